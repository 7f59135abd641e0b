"""CSV files as people's programs write them: the one reader of every table that comes from outside.

What is unambiguous is read: commas, semicolons or tabs between the cells, a decimal comma where no
comma separates cells, UTF-8 or a byte order mark of UTF-16, "sep=;" in the first line, and blank
rows and columns at the end, as spreadsheets write them. Anything else is an error that says how to
save the table.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lmme3dhf.errors import UserError
from lmme3dhf.files import csv_cells

SEPARATORS = (",", ";", "\t")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_NAMED_SEPARATOR = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


class Sheet(NamedTuple):
    """A table.

    Attributes:
        header: Names of the columns.
        rows: Number of the line in which a row ends, and its cells, as many as columns.
    """

    header: tuple[str, ...]
    rows: list[tuple[int, tuple[str, ...]]]


def read_sheet(
    path: Path,
    error: type[UserError],
    *,
    fits: Callable[[tuple[str, ...]], bool],
    advice: Callable[[tuple[str, ...]], str] | None = None,
    exact: bool = False,
) -> Sheet:
    """Reads a table; cells come without surrounding blanks and without the apostrophe before a
    formula (`files.csv_lines`).

    Args:
        path: The file.
        error: Class of what is raised.
        fits: Whether a header is one that is expected; it decides between the separators.
        advice: Says of a header that does not fit what to do; None where the caller does.
        exact: For tables that this project writes: blanks stay, bytes that are no UTF-8 have
            escapes in their place, and a last row that was cut off is left out.

    Raises:
        UserError: Of the class `error`, with path and line: not UTF-8, not CSV, a header that does
            not fit, or a wrong number of cells.
        FileNotFoundError: No such file.
    """
    text = _decoded(path, error, exact=exact)
    named = _NAMED_SEPARATOR.match(text)
    text = text[named.end() :] if named else text
    first = 2 if named else 1
    separator, header = _header(text, named[1] if named else SEPARATORS, fits)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=not exact)
    begins, rows = first, []
    try:
        # A file that is no CSV at all is broken in its first row.
        next(reader, None)
        if advice is not None and not fits(header):
            shown = separator.join(header)[:80]
            raise error(f"{path}:{first}: header is {shown!r}; {advice(header)}")
        begins = reader.line_num + first
        for row in reader:
            line, begins = reader.line_num + first - 1, reader.line_num + first
            cells = _cells(row, separator, exact=exact)
            while len(cells) > len(header) and not cells[-1]:
                cells.pop()
            if any(cells):
                rows.append((line, tuple(cells)))
    except csv.Error as fault:
        raise error(
            f"{path}:{begins}: not a CSV row ({fault}); correct the quotes in this line"
        ) from fault
    if exact and rows and len(rows[-1][1]) < len(header):
        rows.pop()
    for line, cells in rows:
        if len(cells) != len(header):
            raise error(
                f"{path}:{line}: {len(cells)} cells, expected {len(header)} "
                f"({separator.join(header)[:80]}); put text that contains {separator!r} in double "
                "quotes, and write decimals with a point"
            )
    return Sheet(header, rows)


def sheet_header(
    path: Path, error: type[UserError], fits: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """The names of a table's columns, of its first 10,000 bytes alone."""
    return _header(_decoded(path, error, exact=True, limit=10_000), SEPARATORS, fits)[1]


def _decoded(path: Path, error: type[UserError], *, exact: bool, limit: int = -1) -> str:
    with path.open("rb") as file:
        content = file.read(limit)
    if content.startswith(_WORKBOOKS):
        raise error(f"{path}: a spreadsheet's own file, not CSV; save the table as CSV in UTF-8")
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "backslashreplace" if exact else "strict")
        at = text.find("\0")
        place, reason = text[: max(at, 0)].count("\n"), "a zero byte"
    except UnicodeDecodeError as fault:
        at, place, reason = fault.start, content.count(b"\n", 0, fault.start), fault.reason
    if at >= 0:
        raise error(f"{path}:{place + 1}: not UTF-8 ({reason}); save the table as UTF-8")
    return text


def _header(
    text: str, separators: str | tuple[str, ...], fits: Callable[[tuple[str, ...]], bool]
) -> tuple[str, tuple[str, ...]]:
    """The separator and the header: the first that fits, else that of the most columns."""
    headers = {}
    for separator in separators:
        try:
            row = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            row = []
        cells = [cell.strip() for cell in csv_cells(row)]
        while cells and not cells[-1]:
            cells.pop()
        headers[separator] = tuple(cells)
    likely = max(headers, key=lambda separator: len(headers[separator]))
    separator = next((s for s, header in headers.items() if fits(header)), likely)
    return separator, headers[separator]


def _cells(row: list[str], separator: str, *, exact: bool) -> list[str]:
    cells = csv_cells(row) if exact else [cell.strip() for cell in csv_cells(row)]
    if separator == ",":
        return cells
    return [c.replace(",", ".") if _DECIMAL_COMMA.fullmatch(c) else c for c in cells]
