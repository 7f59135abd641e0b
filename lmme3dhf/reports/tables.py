"""One table, four writers: Markdown, CSV, LaTeX and HTML (the form of the paper's Tables 1 to 5).

A table has blocks, and a block has columns and rows of its own. Within a block the best value of
each column is bold and the second-best underlined; nothing is compared across blocks.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from jinja2 import Environment

from lmme3dhf.escaping import markdown_row, markdown_text, visible, visible_lines
from lmme3dhf.files import csv_text

BEST, SECOND = "best", "second"
ABSENT, UNDEFINED = "–", "undefined"
LEGEND = "Bold: best of its column in the block; underlined: second-best."


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a block.

    Attributes:
        key: Its name in the CSV and in the rows' cells.
        title: Its title.
        group: A title above several columns; empty for none.
        higher: Whether a higher value is better; None where nothing is best.
        decimals: Digits after the point, in all writers but CSV.
        shown: Whether the page shows it; the CSV has it anyway.
    """

    key: str
    title: str
    group: str = ""
    higher: bool | None = True
    decimals: int = 4
    shown: bool = True


@dataclass(frozen=True)
class Cell:
    """A number, and its deviation over several rounds where there are some."""

    value: float
    std: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a block.

    Attributes:
        name: The method.
        group: Kind of method; rows of one kind stand together.
        status: Where the numbers come from.
        cells: Column -> number, or text; absent where the row does not say it, NaN where it is
            undefined.
        notes: What a reader has to know about the row.
        ranked: Whether it takes part in best and second-best.
    """

    name: str
    group: str = ""
    status: str = ""
    cells: Mapping[str, Cell | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ranked: bool = True


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that can be compared with each other."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        name: Name of its files, "table1".
        title: What it shows.
        blocks: At least one.
        notes: What holds for the table as a whole.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


def number(cell: Cell | float | str | None) -> float | None:
    """The number in a cell; None for a text, or where there is nothing."""
    if cell is None or isinstance(cell, str):
        return None
    return float(cell.value if isinstance(cell, Cell) else cell)


def marks(block: Block) -> dict[tuple[int, str], str]:
    """(row, column) -> `BEST` or `SECOND`, among the block's ranked rows.

    Values are compared as printed, rounded to the column's decimals: what looks alike is marked
    alike, ties all of them. A column with fewer than two numbers has no best.
    """
    found: dict[tuple[int, str], str] = {}
    for column in block.columns:
        if column.higher is None:
            continue
        values = {}
        for index, row in enumerate(block.rows):
            value = number(row.cells.get(column.key)) if row.ranked else None
            if value is not None and math.isfinite(value):
                values[index] = round(value, column.decimals)
        if len(values) < 2:
            continue
        order = sorted(set(values.values()), reverse=column.higher)
        for index, value in values.items():
            if value in order[:2]:
                found[index, column.key] = (BEST, SECOND)[order.index(value)]
    return found


def markdown(table: Table) -> str:
    """The table as GitHub Markdown: a heading, a table a block, and the notes, all escaped."""
    numbers = _numbered(table)
    parts = [f"## {markdown_text(table.title)}", ""]
    for block in table.blocks:
        columns, best = _shown(block), marks(block)
        if block.title:
            parts += [f"**{markdown_text(block.title)}**", ""]
        titles = [f"{c.group} {c.title}{arrow}".strip() for c, arrow in _with_arrows(columns)]
        parts.append(markdown_row(["Method", "Status", *map(markdown_text, titles)]))
        parts.append(markdown_row(["---", "---", *(["---:"] * len(columns))]))
        for index, row in _with_groups(block):
            if isinstance(row, str):
                parts.append(
                    markdown_row([f"*{markdown_text(row)}*", *([""] * (len(columns) + 1))])
                )
                continue
            cells = []
            for column in columns:
                cell = row.cells.get(column.key)
                text = _text(cell, column)
                text = markdown_text(text) if isinstance(cell, str) else text
                style = {BEST: "**{}**", SECOND: "<u>{}</u>"}.get(best.get((index, column.key)))
                cells.append(style.format(text) if style else text)
            name = f"{markdown_text(row.name)} {_cited(row, numbers)}".strip()
            parts.append(markdown_row([name, markdown_text(row.status), *cells]))
        parts.append("")
    parts += [LEGEND, ""] if any(marks(block) for block in table.blocks) else []
    parts += [f"- {markdown_text(note)}" for note in table.notes]
    parts += [f"- [{at}] {markdown_text(note)}" for note, at in numbers.items()]
    return "\n".join(parts).rstrip() + "\n"


def csv(table: Table) -> str:
    """The table as CSV with all digits and all columns, also those that the page leaves out.

    Every column of a block that has numbers with a deviation is followed by one named `<key>_sd`.
    `marks` says which columns the row is best or second-best in.
    """
    columns: dict[str, bool] = {}  # key -> whether it has deviations
    for block in table.blocks:
        for column in block.columns:
            spread = any(
                isinstance(cell, Cell) and cell.std is not None
                for row in block.rows
                for cell in (row.cells.get(column.key),)
            )
            columns[column.key] = columns.get(column.key, False) or spread
    header = ["block", "method", "group", "status"]
    for key, spread in columns.items():
        header += [key, f"{key}_sd"] if spread else [key]
    lines = []
    for block in table.blocks:
        best = marks(block)
        for index, row in enumerate(block.rows):
            line = [block.title, row.name, row.group, row.status]
            for key, spread in columns.items():
                cell = row.cells.get(key)
                line.append(cell if isinstance(cell, str) else _digits(number(cell)))
                if spread:
                    line.append(_digits(cell.std if isinstance(cell, Cell) else None))
            marked = [f"{kind} {key}" for (at, key), kind in best.items() if at == index]
            lines.append([*line, "; ".join(marked), " | ".join(row.notes)])
    return csv_text([*header, "marks", "notes"], lines)


def latex(table: Table) -> str:
    """The table as LaTeX for the packages booktabs, graphicx and amssymb: one `tabular` a block,
    notes below.
    """
    numbers = _numbered(table)
    lines = [
        "% needs \\usepackage{booktabs,graphicx,amssymb}",
        "\\begin{table*}[t]",
        "\\centering",
        # LaTeX numbers tables itself.
        f"\\caption{{{_tex(re.sub(r'^Table [0-9]+[^.]*[.] ', '', table.title))}}}",
        f"\\label{{tab:{table.name}}}",
    ]
    for block in table.blocks:
        columns, best = _shown(block), marks(block)
        width = len(columns) + 2
        lines += [f"\\par\\medskip {_tex(block.title)}\\par\\smallskip"] if block.title else []
        lines += [
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{ll{'r' * len(columns)}}}",
            "\\toprule",
        ]
        lines += _tex_groups(columns)
        titles = [f"{_tex(column.title + arrow)}" for column, arrow in _with_arrows(columns)]
        lines += [_tex_line(["Method", "Status", *titles]), "\\midrule"]
        for index, row in _with_groups(block):
            if isinstance(row, str):
                lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{_tex(row)}}}}} \\\\")
                continue
            cells = []
            for column in columns:
                text = _tex(_text(row.cells.get(column.key), column), minus=True)
                style = {BEST: "\\textbf", SECOND: "\\underline"}.get(best.get((index, column.key)))
                cells.append(f"{style}{{{text}}}" if style else text)
            cited = _cited(row, numbers)
            name = _tex(row.name) + (f"\\textsuperscript{{{cited[1:-1]}}}" if cited else "")
            lines.append(_tex_line([name, _tex(row.status), *cells]))
        lines += ["\\bottomrule", "\\end{tabular}}"]
    notes = [*table.notes, *(f"[{at}] {note}" for note, at in numbers.items())]
    if notes:
        lines += ["\\par\\medskip\\begin{minipage}{\\linewidth}\\footnotesize"]
        lines += [f"{_tex(note)}\\par" for note in notes]
        lines += ["\\end{minipage}"]
    return "\n".join([*lines, "\\end{table*}"]) + "\n"


_HTML = """\
<h3 id="{{ name }}">{{ title }}</h3>
{% for block in blocks -%}
{% if block.title %}<h4>{{ block.title }}</h4>
{% endif -%}
<div class="scroll"><table class="numbers">
<thead><tr>{% set rows = 2 if block.groups else 1 %}<th rowspan="{{ rows }}">Method</th>\
<th rowspan="{{ rows }}">Status</th>
{%- for group, span in block.groups %}<th colspan="{{ span }}"\
{% if group %} class="over"{% endif %}>{{ group }}</th>{% endfor %}
{%- if block.groups %}</tr>
<tr>{% endif %}
{%- for title in block.titles %}<th>{{ title }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in block.rows -%}
{% if row.head %}<tr class="group"><th colspan="{{ block.titles | length + 2 }}">{{ row.head }}\
</th></tr>
{% else %}<tr><td>{{ row.name }}{% if row.cited %}&nbsp;<sup>{{ row.cited }}</sup>{% endif %}</td>\
<td>{{ row.status }}</td>
{%- for text, mark in row.cells %}<td class="{{ mark }}">{{ text }}</td>{% endfor %}</tr>
{% endif -%}
{% endfor -%}
</tbody></table></div>
{% endfor -%}
{% if legend %}<p class="legend">{{ legend }}</p>
{% endif -%}
{% if notes %}<ul class="notes">
{% for note in notes %}<li>{{ note }}</li>
{% endfor %}</ul>
{% endif %}"""


def html(table: Table) -> str:
    """The table as a piece of HTML, escaped, with the table's name as anchor; wide blocks are in a
    box that scrolls, cells have the class "best" or "second".
    """
    numbers = _numbered(table)
    blocks = []
    for block in table.blocks:
        columns, best = _shown(block), marks(block)
        rows = []
        for index, row in _with_groups(block):
            if isinstance(row, str):
                rows.append({"head": row})
                continue
            cells = [
                # A line may end before the deviation, nowhere else.
                (
                    _text(row.cells.get(column.key), column).replace("± ", "±\xa0"),
                    best.get((index, column.key), ""),
                )
                for column in columns
            ]
            cited = _cited(row, numbers)
            rows.append(
                {"name": row.name, "status": row.status, "cells": cells, "cited": cited[1:-1]}
            )
        titles = [f"{column.title}{arrow}" for column, arrow in _with_arrows(columns)]
        groups = _spans(columns)
        blocks.append({"title": block.title, "groups": groups, "titles": titles, "rows": rows})
    environment = Environment(autoescape=True, keep_trailing_newline=True, finalize=finalized)
    return environment.from_string(_HTML).render(
        name=table.name,
        title=table.title,
        blocks=blocks,
        legend=LEGEND if any(marks(block) for block in table.blocks) else "",
        notes=[*table.notes, *(f"[{at}] {note}" for note, at in numbers.items())],
    )


def finalized(value: Any) -> Any:
    """A value for a template of HTML: in texts that are not HTML yet, controls and marks of writing
    direction are shown.
    """
    return visible_lines(value) if type(value) is str else value


def _shown(block: Block) -> list[Column]:
    return [column for column in block.columns if column.shown]


def _numbered(table: Table) -> dict[str, int]:
    """Note of any row -> its number, in the order in which they come."""
    notes = (note for block in table.blocks for row in block.rows for note in row.notes)
    return {note: at for at, note in enumerate(dict.fromkeys(notes), 1)}


def _cited(row: Row, numbers: Mapping[str, int]) -> str:
    cited = ", ".join(str(numbers[note]) for note in dict.fromkeys(row.notes))
    return f"[{cited}]" if cited else ""


def _with_groups(block: Block) -> Iterator[tuple[int, Row | str]]:
    """(index, row); before the first row of each group its name, where there are several."""
    several = len({row.group for row in block.rows}) > 1
    last = ""
    for index, row in enumerate(block.rows):
        if several and row.group != last and row.group:
            yield index, row.group
        last = row.group
        yield index, row


def _with_arrows(columns: Iterable[Column]) -> list[tuple[Column, str]]:
    """Says which way is better where the columns differ in it."""
    columns = list(columns)
    directions = {column.higher for column in columns} - {None}
    arrows = {True: " ↑", False: " ↓", None: ""}
    return [(c, arrows[c.higher] if len(directions) > 1 else "") for c in columns]


def _text(cell: Cell | float | str | None, column: Column) -> str:
    if cell is None:
        return ABSENT
    if isinstance(cell, str):
        return cell
    value = number(cell)
    if not math.isfinite(value):
        return UNDEFINED
    text = f"{value:.{column.decimals}f}"
    if isinstance(cell, Cell) and cell.std is not None and math.isfinite(cell.std):
        text += f" ± {cell.std:.{column.decimals}f}"
    return text


def _digits(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.10g}"


_TEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "±": "$\\pm$",
    "✓": "$\\checkmark$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "≥": "$\\geq$",
    "–": "--",
}


def _tex(text: str, *, minus: bool = False) -> str:
    escaped = "".join(_TEX.get(letter, letter) for letter in visible(text))
    return re.sub(r"^-(?=\d)", "$-$", escaped) if minus else escaped


def _tex_line(cells: Iterable[str]) -> str:
    line = " & ".join(cells) + " \\\\"
    # After the end of a line these would belong to it.
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def _spans(columns: Iterable[Column]) -> list[tuple[str, int]]:
    """(title, columns) of the groups of columns, those without a title too; none without groups."""
    columns = list(columns)
    if not any(column.group for column in columns):
        return []
    spans = groupby(columns, key=lambda column: column.group)
    return [(group, len(list(members))) for group, members in spans]


def _tex_groups(columns: list[Column]) -> list[str]:
    """The line of group titles, each above its columns with a rule; none without groups."""
    cells, rules, at = [], [], 3
    for group, span in _spans(columns):
        cells.append(f"\\multicolumn{{{span}}}{{c}}{{{_tex(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    return [_tex_line(["", "", *cells]), "".join(rules)] if cells else []
