"""Text from outside in the files that we write: names of files, remarks, replies of models and
error messages, which may hold anything. One function for each format; HTML is escaped by the
templates (`reports.page`, `reports.tables`).
"""

import re
import unicodedata
from collections.abc import Iterable

# Spreadsheets take text that begins so for a formula (OWASP, "CSV Injection"), blanks before it and
# the wide forms of East Asian keyboards included. The apostrophe marks cells that got one.
_FORMULA = re.compile(r"'|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# What begins or ends something in the middle of a line of Markdown (an underscore within a word
# does not), and what begins HTML; that becomes entities, which every reader of Markdown knows.
_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=\bwww)\.", re.I)
_HTML = re.compile(r"[<>]|&(?=#?\w+;)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Behind this, a character makes a heading, a list or a rule of the line.
_BLOCK = re.compile(r"^(?:[0-9]+(?=[.)](?:\s|$))|(?=[#+=-]))")
_CODE = re.compile(r"(`[^`]+`)")


def visible(text: str, longest: int | None = None) -> str:
    """A text from outside with everything shown that would change how it is read: controls, marks
    of writing direction and characters without width become ⟨U+202E⟩.

    Args:
        text: Any text, also one with bytes that are no UTF-8.
        longest: Characters that are kept, the rest in the middle giving way to "…".
    """
    shown = "".join(
        f"⟨U+{ord(letter):04X}⟩"
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else letter
        for letter in text
    )
    if longest is None or len(shown) <= longest:
        return shown
    start = longest // 3
    return f"{shown[:start]}…{shown[start + 1 - longest :]}"


def visible_lines(text: str) -> str:
    """As `visible`, but line ends stay."""
    return "\n".join(map(visible, text.split("\n")))


def spreadsheet_text(text: str) -> str:
    """A text as the cell of a CSV file that no spreadsheet takes for a formula: what could be one
    gets an apostrophe in front, and so does what begins with an apostrophe. Numbers stay.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def cell_text(cell: str) -> str:
    """Undoes `spreadsheet_text`: the text of a cell, for those who read a CSV file."""
    text = cell.removeprefix("'")
    return text if spreadsheet_text(text) == cell else cell


def markdown_text(text: str) -> str:
    """A text, possibly with parts from outside, as a line of Markdown that shows it as it is: no
    link, picture, HTML or other markup. Code between backticks stays: nothing in it is markup.
    """
    parts = _CODE.split(visible(text))
    # Every second part is code.
    parts[::2] = [
        _INLINE.sub(r"\\\g<0>", _HTML.sub(lambda found: _ENTITIES[found[0]], part))
        for part in parts[::2]
    ]
    line = "".join(parts).strip()
    return line if _NUMBER.fullmatch(line) else _BLOCK.sub(r"\g<0>\\", line)


def markdown_code(value: object) -> str:
    """What is from outside as code in Markdown."""
    words = " ".join(visible(str(value).replace("`", "'")).split())
    return f"`{words}`" if words else "``"


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table, of cells that are Markdown."""
    header = list(header)
    return [markdown_row(header), markdown_row(["---"] * len(header)), *map(markdown_row, rows)]


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a table, of cells that are Markdown."""
    # In code, too, a bar would end the cell.
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells) + " |"
