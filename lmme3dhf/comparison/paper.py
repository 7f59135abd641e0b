"""The numbers that the paper prints: every row of Tables 1 to 5 (`evaluate/paper_numbers.yaml`).

They are data of the repository, copied from the paper's text and checked on reading; nothing is
computed from them here.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmme3dhf.comparison.methods import ComparisonError

PAPER_NUMBERS = Path(__file__).resolve().parents[2] / "evaluate" / "paper_numbers.yaml"
DIRECTIONS = ("higher", "lower", "unknown")
MARKS = ("vision", "llm", "regression")  # the check marks of Table 5


@dataclass(frozen=True, kw_only=True)
class PaperColumn:
    """A column of a printed table.

    Attributes:
        key: What the column is called in our tables, "quality_srcc".
        title: Its printed title.
        group: The title above several columns; empty for none.
        higher: Whether a higher value is better.
        low, high: Values outside are misprints, or misread.
    """

    key: str
    title: str
    group: str
    higher: bool
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of a printed table.

    Attributes:
        name: The method, or the set-up of an ablation.
        group: Kind of method.
        reference: Number in the paper's list of references; None for the paper's own method.
        direction: Whether the method's own output is higher or lower for better videos.
        values: Column -> printed value.
        number: Of an ablation's row, "1"; else empty.
        marks: Check marks of Table 5; else empty.
        ours: Whether it is LMME3DHF in its default set-up.
        inferred: Whether the name is not printed but concluded.
        note: What a reader should know about the row; may be empty.
    """

    name: str
    group: str
    reference: int | None
    direction: str
    values: dict[str, float]
    number: str = ""
    marks: dict[str, bool]
    ours: bool = False
    inferred: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A printed table.

    Attributes:
        title: What it shows.
        columns: In printed order.
        rows: In printed order.
        notes: Where the paper is unclear, or disagrees with itself.
        improvement: Column -> the printed row "Improvement" in percentage points; else empty.
    """

    title: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    improvement: dict[str, float]

    @property
    def ours(self) -> PaperRow:
        """The row of LMME3DHF in its default set-up."""
        return next(row for row in self.rows if row.ours)


def read_paper(path: Path | None = None) -> dict[int, PaperTable]:
    """Table number -> table.

    Args:
        path: The file; None for the repository's.

    Raises:
        ComparisonError: No such file, or one with an unknown key, a missing one, a number out of
            range, two rows alike, or without exactly one row of LMME3DHF in a table.
    """
    path = PAPER_NUMBERS if path is None else path
    if not path.is_file():
        raise ComparisonError(
            f"{path}: the paper's numbers are not here; they are part of the repository, not of "
            "the installed package: give --paper_numbers FILE"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ComparisonError(
            f"{path}: not YAML ({reason}); restore it from the repository"
        ) from error
    _keys(content, {"source", "tables"}, set(), str(path))
    _keys(content["tables"], {1, 2, 3, 4, 5}, set(), f"{path}: tables")
    return {
        number: _table(table, f"{path}: table {number}")
        for number, table in content["tables"].items()
    }


def _keys(content: Any, required: set, optional: set, where: str) -> None:
    if not isinstance(content, dict):
        raise ComparisonError(f"{where}: {str(content)[:60]!r}, expected keys and values")
    for kind, keys in (
        ("unknown", set(content) - required - optional),
        ("missing", required - set(content)),
    ):
        if keys:
            expected = ", ".join(sorted(map(str, required | optional)))
            raise ComparisonError(
                f"{where}: {kind} key {min(map(str, keys))!r}; expected {expected}"
            )


def _table(content: Any, where: str) -> PaperTable:
    _keys(content, {"title", "columns", "rows", "notes"}, {"improvement"}, where)
    columns = tuple(_column(c, f"{where}, column {i}") for i, c in enumerate(content["columns"], 1))
    rows = tuple(
        _row(r, columns, f"{where}, row {i} ({r.get('name') if isinstance(r, dict) else r})")
        for i, r in enumerate(content["rows"], 1)
    )
    names = [(row.number, row.name) for row in rows]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ComparisonError(f"{where}: row {' '.join(twice).strip()!r} is there twice; keep one")
    if sum(row.ours for row in rows) != 1:
        raise ComparisonError(
            f"{where}: {sum(row.ours for row in rows)} rows with `ours`, expected one"
        )
    improvement = content.get("improvement", [])
    if improvement:
        improvement = _values(improvement, columns, f"{where}, improvement", low=-100, high=100)
    return PaperTable(
        title=str(content["title"]),
        columns=columns,
        rows=rows,
        notes=tuple(map(str, content["notes"])),
        improvement=dict(improvement),
    )


def _column(content: Any, where: str) -> PaperColumn:
    _keys(content, {"key", "title", "group", "higher", "range"}, set(), where)
    limits = content["range"]
    if not (isinstance(limits, list) and len(limits) == 2 and type(content["higher"]) is bool):
        raise ComparisonError(f"{where}: expected a range [low, high], and higher: true or false")
    return PaperColumn(
        key=str(content["key"]),
        title=str(content["title"]),
        group=str(content["group"]),
        higher=content["higher"],
        low=float(limits[0]),
        high=float(limits[1]),
    )


def _row(content: Any, columns: tuple[PaperColumn, ...], where: str) -> PaperRow:
    optional = {"number", "marks", "ours", "inferred", "note"}
    _keys(content, {"name", "group", "reference", "direction", "values"}, optional, where)
    if content["direction"] not in DIRECTIONS:
        raise ComparisonError(
            f"{where}: direction {content['direction']!r} is not one of {', '.join(DIRECTIONS)}"
        )
    reference = content["reference"]
    if reference is not None and not (type(reference) is int and reference > 0):
        raise ComparisonError(f"{where}: reference {reference!r}, expected a number or null")
    marks = content.get("marks", {})
    if marks:
        _keys(marks, set(MARKS), set(), f"{where}, marks")
    return PaperRow(
        name=str(content["name"]),
        group=str(content["group"]),
        reference=reference,
        direction=content["direction"],
        values=_values(content["values"], columns, where),
        number=str(content.get("number", "")),
        marks={mark: bool(value) for mark, value in marks.items()},
        ours=bool(content.get("ours", False)),
        inferred=bool(content.get("inferred", False)),
        note=str(content.get("note", "")),
    )


def _values(
    values: Any,
    columns: tuple[PaperColumn, ...],
    where: str,
    low: float | None = None,
    high: float | None = None,
) -> dict[str, float]:
    if not isinstance(values, list) or len(values) != len(columns):
        raise ComparisonError(f"{where}: values {values!r}, expected {len(columns)} numbers")
    for column, value in zip(columns, values, strict=True):
        least = column.low if low is None else low
        most = column.high if high is None else high
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not least <= value <= most:
            raise ComparisonError(
                f"{where}: {column.key} is {value!r}, expected a number in {least:g}..{most:g}"
            )
    return {column.key: float(value) for column, value in zip(columns, values, strict=True)}
