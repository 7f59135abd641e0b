"""What the five tables are put together from: rows of figures, the printed rows and columns, and
the blocks in which they may stand together.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lmme3dhf.aspects import Aspects
from lmme3dhf.comparison.floors import CEILING, FLOOR, ORACLE, PERSON
from lmme3dhf.comparison.methods import ComparisonError, Method
from lmme3dhf.comparison.paper import MARKS, PaperRow, PaperTable, read_paper
from lmme3dhf.comparison.scoring import Figures, Notes
from lmme3dhf.comparison.sources import Round, Source
from lmme3dhf.metrics import Metric, metrics_of
from lmme3dhf.metrics.vqa import ACCURACIES
from lmme3dhf.reports.tables import Block, Cell, Column, Row, Table

SMOKE, NOT_RUN = "smoke", "not run"
RESULTS = ("real", "retrained", "external")  # statuses of numbers that are results
OURS = "LMME3DHF"
RESAMPLES = 1000
CHECK = "✓"

Paper = Mapping[int, PaperTable]
Found = tuple[Figures, Notes]  # of one round


def kind_of(rows: Iterable[Row]) -> str:
    """ "smoke" or "results": the one place that decides whether rows may stand in one table.

    Raises:
        ComparisonError: A smoke row among results, or an unknown status.
    """
    by_status: dict[str, str] = {}
    for row in rows:
        if row.status not in (SMOKE, NOT_RUN, *RESULTS):
            raise ComparisonError(f"row {row.name!r}: unknown status {row.status!r}")
        by_status.setdefault(row.status, row.name)
    result = next((status for status in RESULTS if status in by_status), None)
    if SMOKE in by_status and result is not None:
        raise ComparisonError(
            f"{by_status[SMOKE]!r} is a smoke row (synthetic data or a tiny model) and "
            f"{by_status[result]!r} a result; they cannot stand in one table"
        )
    return SMOKE if SMOKE in by_status else "results"


def check_marks(marks: Mapping[str, bool], names: Iterable[str] = MARKS) -> dict[str, str]:
    """Ticks for the columns of Table 5 that are marked."""
    return {name: CHECK if marks.get(name) else "" for name in names}


def printed_table(number: int, paper: Paper | None) -> PaperTable:
    """One of the printed tables, from the repository's file where none are given."""
    return (read_paper() if paper is None else paper)[number]


def require_accuracy(accuracy: str) -> None:
    """Refuses a name that is no definition of accuracy (`ComparisonError`)."""
    if accuracy not in ACCURACIES:
        raise ComparisonError(f"accuracy {accuracy!r} is not one of {', '.join(ACCURACIES)}")


def predicts(source: Source, what: str) -> bool:
    """Whether our method says `what` (a field of `Method`) in every test."""
    return all(round_.ours is not None and getattr(round_.ours, what) for round_ in source.rounds)


def our_methods(source: Source) -> list[Method]:
    """Our method's predictions, one a test."""
    return [round_.ours for round_ in source.rounds]


def _status(source: Source, status: str) -> str:
    return SMOKE if source.smoke else status


def measured_row(
    name: str,
    group: str,
    source: Source,
    status: str,
    found: Sequence[Found],
) -> Row:
    """A row of one test's figures, or of the mean and deviation (ddof 1) of several tests'."""
    keys = dict.fromkeys(key for figures, _ in found for key in figures)
    cells = {}
    for key in keys:
        values = [float(figures.get(key, np.nan)) for figures, _ in found]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        cells[key] = Cell(float(np.mean(values)), std)
    notes = tuple(dict.fromkeys(note for _, of_round in found for note in of_round))
    return Row(name=name, group=group, status=_status(source, status), cells=cells, notes=notes)


def bound_row(kind: str, method: Method, source: Source, found: Sequence[Found]) -> Row:
    """A row of a floor, an oracle or a ceiling, named by its kind."""
    row = measured_row(method.name, kind, source, "real", found)
    return replace(row, notes=method.notes, ranked=False)


def foreign_row(
    method: Method,
    printed: PaperTable,
    source: Source,
    found: Sequence[Found],
) -> Row:
    """A foreign method's row, in the group of the printed row of its name."""
    match = _match(method.name, printed)
    group = match.group if match else "other methods"
    row = measured_row(method.name, group, source, method.status, found)
    notes = method.notes
    if source.smoke:
        notes = (f"{method.status} predictions", *notes)
    return replace(row, notes=notes + row.notes)


def with_figures(row: Row, figures: Figures, notes: Notes) -> Row:
    """The row with more figures and notes."""
    return replace(row, cells={**row.cells, **figures}, notes=row.notes + notes)


def interval_notes(found: Figures, round_: Round) -> Notes:
    """The 95 % intervals of SRCC as a note."""
    spans = [
        f"{dimension} {found[f'{dimension}_srcc_low']:.3f} to {found[f'{dimension}_srcc_high']:.3f}"
        for dimension in round_.labels.aspects
        if f"{dimension}_srcc_low" in found
    ]
    return (f"95 % interval of SRCC: {', '.join(spans)}",) if spans else ()


def direction_notes(method: Method, printed: PaperTable, row: Row) -> Notes:
    """Never turned silently: what was turned, and what looks as if it should be."""
    if method.lower_is_better:
        return ("lower is better: scores are turned before every metric (signed SRCC in the CSV)",)
    negative = [
        cell.value
        for key, cell in row.cells.items()
        if key.endswith("_srcc") and isinstance(cell, Cell) and cell.value < 0
    ]
    match = _match(method.name, printed)
    if not negative and not (match and match.direction == "lower"):
        return ()
    why = "its correlation is negative" if negative else "its output is known as one"
    return (f"shown as given; if lower is better ({why}), give --lower_is_better {method.name!r}",)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*?\)", "", name).casefold())


def _match(name: str, printed: PaperTable) -> PaperRow | None:
    """The printed row of a method, whatever the spelling and the size in brackets."""
    return next((row for row in printed.rows if _plain(row.name) == _plain(name)), None)


def paper_name(row: PaperRow) -> str:
    """Name of a printed row, with its number where the table has them."""
    return f"({row.number}) {row.name}" if row.number else row.name


def paper_columns(printed: PaperTable, prefix: str = "") -> list[Column]:
    """Columns of a printed table's metrics."""
    return [
        Column(
            key=f"{prefix}{column.key}",
            title=column.title,
            group=column.group,
            higher=column.higher,
            decimals=2 if column.key == "accuracy" else 4,
        )
        for column in printed.columns
    ]


def score_columns(
    printed: PaperTable, plcc: str, aspects: Aspects, accuracy: str = "Accuracy (%)"
) -> list[Column]:
    """The same for tables of scores, the header saying which PLCC and which accuracy; then what the
    paper does not print of `METRICS` and of the aspects.
    """
    titles = {"PLCC": plcc if plcc != "PLCC (raw)" else "PLCC", "Accuracy (%)": accuracy}
    columns = paper_columns(printed)
    known = {column.key for column in columns}
    columns += [
        column_of(metric, f"{aspect}_{key}", aspect.capitalize())
        for aspect in aspects
        for key, metric in metrics_of("scores").items()
        if metric.shown and f"{aspect}_{key}" not in known
    ]
    return [replace(column, title=titles.get(column.title, column.title)) for column in columns]


def further_columns(printed: PaperTable, kind: str) -> list[Column]:
    """The metrics of a kind that the paper does not print."""
    known = {column.key for column in printed.columns}
    return [column_of(m, key) for key, m in metrics_of(kind).items() if key not in known]


def column_of(metric: Metric, key: str, group: str = "") -> Column:
    """The column of a metric."""
    return Column(
        key=key,
        title=metric.title if metric.shown else key,
        group=group if metric.shown else "",
        higher=metric.higher if metric.shown else None,
        decimals=metric.decimals,
        shown=metric.shown,
    )


def hidden_columns(keys: Iterable[str]) -> list[Column]:
    """Columns that the CSV alone shows."""
    return [Column(key=key, title=key, higher=None, shown=False) for key in keys]


def assembled(
    number: int,
    source: Source,
    printed: PaperTable,
    columns: Sequence[Column],
    rows: Sequence[Row],
    bounds: Sequence[Row],
    notes: Sequence[str],
    own: Sequence[Row] = (),
) -> Table:
    """Blocks: what was measured with the printed values beside it (in a smoke table the printed
    ones come last, by themselves), rows of our own, floors and ceilings.
    """
    smoke = kind_of([*rows, *own, *bounds]) == SMOKE
    keys = {column.key for column in printed.columns}
    scored = any(f"{aspect}_srcc" in keys for aspect in source.aspects)
    if not scored and number in (1, 5):  # the paper rates other aspects
        title = "Scores" if number == 1 else "Ablations of adapters and regression"
        printed = replace(printed, title=title, rows=(), notes=(), improvement={})
    beside = tuple(
        replace(column, group=f"paper: {column.group}".strip())
        for column in paper_columns(printed, "paper_")
    )
    title = f"Table {number}. {printed.title}"
    blocks = []
    if smoke:
        title += " – SMOKE, no results"
        blocks.append(_block(f"SMOKE: {source.smoke}", columns, rows))
    else:
        heading = "Measured here"
        heading += ", and printed in the paper (Gen3DHF)" if printed.rows else ""
        blocks.append(_block(heading, (*columns, *beside), _merged(printed, rows)))
    blocks.append(_block("Rows of our own", columns, own))
    kinds = (FLOOR, ORACLE, PERSON, CEILING)
    unranked = [replace(row, ranked=False) for row in bounds]
    unranked.sort(key=lambda row: kinds.index(row.group))
    heading = "Floors, oracles and ceilings on the same videos (not ranked)"
    blocks.append(_block(heading, columns, unranked))
    if smoke:
        alone = [_printed_row(row) for row in printed.rows]
        heading = "Printed in the paper (Gen3DHF, not comparable)"
        blocks.append(_block(heading, (*columns, *beside), alone))
    blocks = [block for block in blocks if block.rows]
    about = list(notes)
    if source.folds is not None:
        about.insert(
            0,
            f"Mean ± standard deviation (ddof 1) over {len(source.rounds)} finished folds of "
            f"{source.planned} (protocol {source.folds}).",
        )
    if smoke:
        about.insert(
            0,
            f"Smoke: {source.smoke}. The numbers show that the chain works and say nothing about "
            "Gen3DHF.",
        )
    measured = any(round_.ours is not None for round_ in source.rounds)
    if measured and not smoke and not (source.root / "model" / "config.json").is_file():
        about.append("The size of our model is not known: the run has no model/config.json.")
    about += [f"Paper: {note}" for note in printed.notes]
    if printed.improvement:
        gains = ", ".join(f"{gain:+.1f}" for gain in printed.improvement.values())
        about.append(f"Paper: its row Improvement, in percent, reads {gains}.")
    return Table(name=f"table{number}", title=title, blocks=tuple(blocks), notes=tuple(about))


def _block(title: str, columns: Iterable[Column], rows: Sequence[Row]) -> Block:
    """A block with the columns that its rows have something in."""
    filled = {key for row in rows for key in row.cells}
    kept = tuple(column for column in columns if column.key in filled)
    return Block(title=title, columns=kept, rows=tuple(rows))


def _merged(printed: PaperTable, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Measured rows and the printed ones that were not run, by the paper's groups; every measured
    row with a printed counterpart has its values beside.
    """
    by_paper: dict[str, list[Row]] = {}
    others: list[Row] = []
    for row in rows:
        match = next((p for p in printed.rows if paper_name(p) == row.name), None)
        match = match or _match(row.name, printed)
        if match is None:
            others.append(row)
            continue
        cells = {**row.cells, **_printed_cells(match)}
        group = row.group if row.group == "ours" else match.group
        notes = row.notes + ((match.note,) if match.note else ())
        by_paper.setdefault(paper_name(match), []).append(
            replace(row, cells=cells, group=group, notes=notes)
        )
    merged = []
    groups = dict.fromkeys(row.group for row in printed.rows)
    for group in groups:
        for row in printed.rows:
            if row.group != group:
                continue
            measured = by_paper.get(paper_name(row), [])
            merged += [m for m in measured if m.group == group]
            if not measured:
                merged.append(_printed_row(row))
    ours = [row for found in by_paper.values() for row in found if row.group == "ours"]
    ours += [row for row in others if row.group == "ours"]
    return (*merged, *(row for row in others if row.group != "ours"), *ours)


def _printed_cells(row: PaperRow) -> dict[str, float]:
    return {f"paper_{key}": value for key, value in row.values.items()}


def _printed_row(row: PaperRow) -> Row:
    return Row(
        name=paper_name(row),
        group=row.group,
        status=NOT_RUN,
        cells={**check_marks(row.marks, row.marks), **_printed_cells(row)},
        notes=(row.note,) if row.note else (),
    )
