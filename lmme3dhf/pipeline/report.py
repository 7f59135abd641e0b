"""One page with everything of a run: tables, figures, what its scores are made of, its settings,
and what it departs from (paper, Section 5).

The page needs nothing else; tables and figures also lie as files beside it. What the run lacks is
said with the command that makes it, and the page is made anyway. Nothing on it is of the day it was
made: the same run gives the same bytes. No model is loaded, and torch is not needed.
"""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lmme3dhf.comparison.assembly import SMOKE
from lmme3dhf.comparison.breakdowns import identity_table, leak, level_table
from lmme3dhf.comparison.command import read_methods, write_table
from lmme3dhf.comparison.figures import (
    PROTOCOLS,
    FigureRecord,
    dataset_records,
    draw,
    write_index,
)
from lmme3dhf.comparison.methods import Method
from lmme3dhf.comparison.paper import PaperTable, read_paper
from lmme3dhf.comparison.sources import Source, read_ablations, read_source
from lmme3dhf.comparison.tables import table1, table2, table3, table4, table5
from lmme3dhf.describe import describe
from lmme3dhf.errors import UserError
from lmme3dhf.files import ChangedError, csv_cells, file_state, replace_file
from lmme3dhf.pipeline.report_sections import SHOWN_PRESETS, Gathered, sections_of, summary_of
from lmme3dhf.reports.page import Page, render
from lmme3dhf.reports.tables import Block, Cell, Column, Row, Table

TABLES, FIGURES = "tables", "figures"  # folders below that of the page's files


def write_report(
    run: Path,
    out: Path,
    methods: Sequence[str] = (),
    *,
    statuses: Sequence[str] = (),
    lower: Sequence[str] = (),
    folds: str | None = None,
    allow_missing: bool = False,
) -> Path:
    """Writes the page, and the tables and figures into a folder beside it (`report_files` for
    `report.html`); the page comes last and as a whole.

    Args:
        run: Folder of a run with predictions.
        out: The page.
        methods: Anybody's predictions, `NAME=PATH`.
        statuses: `NAME=STATUS` of some of them.
        lower: Names of those whose scores are lower for better videos.
        folds: Protocol whose folds Tables 1 to 3 are means over; None for the run's own test.
        allow_missing: Test a foreign method on the videos it has, and say how many it lacks.

    Returns:
        Folder of the tables and figures.

    Raises:
        ComparisonError: A run that cannot be read, no such folds, or foreign predictions that
            cannot be used.
        ChangedError: The predictions were replaced meanwhile.
        UserError: `run` is no run, or `out` is a folder.
    """
    run, out = Path(run), Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the file to write, such as {out / 'report.html'}")
    if not (run / "predictions.jsonl").is_file():
        raise UserError(
            f"{run}: no predictions.jsonl in it; give the folder of a run, as `lmme3dhf demo --out "
            f"{run}` makes one"
        )
    predictions = run / "predictions.jsonl"
    before = file_state(predictions)
    source = read_source(run)
    tested = source if folds is None else read_source(run, source.data, folds=folds)
    foreign = read_methods(source, methods, statuses, lower)
    paper = read_paper()
    read_ablations(run)  # a broken file is told before the work
    files = out.with_name(f"{out.stem}_files")

    cross = _cross_validations(run, source)
    found = {name: of_folds for name, of_folds in cross.items() if isinstance(of_folds, Source)}
    absent = {f"folds_{name}": why for name, why in cross.items() if isinstance(why, str)}
    tables = {}
    unseen = found.get("leave-one-generator-out")
    makers = _makers(source, tested, foreign, paper, unseen, allow_missing=allow_missing)
    for name, (make, concerned) in makers.items():
        print(f"report: {name}", flush=True)
        try:
            tables[name] = replace(make(), name=name)
        except UserError as error:
            if concerned:  # with a method that somebody gave; it may not vanish silently
                raise
            absent[name] = str(error)
    print("report: figures", flush=True)
    figures = _figures(source, files / FIGURES, foreign)
    for protocol, of_folds in found.items():
        record = next(r for r in figures if r.name == f"folds_{protocol.replace('-', '_')}")
        if record.csv:
            rows = files / FIGURES / record.csv[0]
            tables[f"folds_{protocol}"] = _fold_table(protocol, of_folds, rows)
    for table in tables.values():
        write_table(table, files / TABLES)

    gathered = Gathered(
        run=run,
        source=source,
        tested=tested,
        methods=tuple(foreign),
        paper=paper,
        tables=tables,
        absent={name: _plain(why, run) for name, why in absent.items()},
        figures=tuple(replace(r, reason=r.reason and _plain(r.reason, run)) for r in figures),
        pictures=files / FIGURES,
        files=files.name,
        folds=found,
        leak=leak(source),
        settings=_settings(run),
    )
    title = f"LMME3DHF: report of the run {run.resolve().name}"
    page = Page(title=title, lead=summary_of(gathered), sections=sections_of(gathered))
    content = render(page)
    if file_state(predictions) != before:
        # The page has a hash of them, beside figures.
        raise ChangedError(
            f"{predictions} changed while the page was made; run the same command again"
        )
    replace_file(out, content)
    return files


def _makers(
    source: Source,
    tested: Source,
    foreign: Sequence[Method],
    paper: dict[int, PaperTable],
    unseen: Source | None,
    *,
    allow_missing: bool,
) -> dict[str, tuple[Callable[[], Table], list[Method]]]:
    """Name -> what makes the table, and the foreign methods in it."""
    scored = [method for method in foreign if method.scores]
    answering = [method for method in foreign if method.answers]
    mapping = [method for method in foreign if method.maps]
    options = {"paper": paper, "allow_missing": allow_missing}
    return {
        "table1": (partial(table1, tested, scored, **options), scored),
        "table2": (partial(table2, tested, answering, **options), answering),
        **{
            f"table3_{preset}": (
                partial(_table3, tested, mapping, preset=preset, **options),
                mapping,
            )
            for preset in SHOWN_PRESETS
        },
        "table4": (partial(table4, source, paper=paper), []),
        "table5": (partial(table5, source, paper=paper), []),
        "levels": (partial(level_table, source), []),
        "identity": (partial(identity_table, source, scored, unseen), []),
    }


def _table3(source: Source, methods: Sequence[Method], *, preset: str, **options) -> Table:
    """Table 3 with the preset in its title, since it stands there more than once."""
    made = table3(source, methods, preset=preset, **options)
    return replace(made, title=made.title.replace("Table 3.", f"Table 3, preset {preset}."))


def _cross_validations(run: Path, source: Source) -> dict[str, Source | str]:
    """Protocol -> its finished folds, or why there are none."""
    found: dict[str, Source | str] = {}
    for protocol in PROTOCOLS:
        if not (run / "crossval" / protocol).is_dir():
            found[protocol] = ""
            continue
        try:
            found[protocol] = read_source(run, source.data, folds=protocol)
        except UserError as error:
            found[protocol] = str(error)
    return found


def _figures(source: Source, folder: Path, foreign: Sequence[Method]) -> list[FigureRecord]:
    """Draws every figure, those of the data set first, and writes their index."""
    why = None
    try:
        described = describe(source.data, folder / "dataset")
    except UserError as error:
        described, why = {"files": {}, "left_out": {}}, str(error)
    of_data = dataset_records(described, "dataset")
    records = [replace(r, reason=why or r.reason) for r in of_data]
    records += draw(source.root, folder, foreign)
    write_index(folder, records)
    return records


def _fold_table(protocol: str, source: Source, rows: Path) -> Table:
    """The folds of a protocol with mean and deviation, from the CSV behind their figure."""
    with rows.open(encoding="utf-8", newline="") as stream:
        header, *lines = map(csv_cells, csv.reader(stream))
    read = [dict(zip(header, line, strict=True)) for line in lines]
    measures = [key for key in read[0] if key not in ("fold", "videos")]
    status = SMOKE if source.smoke else "real"
    listed, mean = [], {}
    for fold in read:
        cells = {key: float(fold[key]) for key in measures if fold[key]}
        listed.append(
            Row(name=fold["fold"], status=status, cells=cells | {"videos": fold["videos"]})
        )
    for key in measures:
        values = [float(fold[key]) for fold in read if fold[key]]
        if values:
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            mean[key] = Cell(float(np.mean(values)), std)
    listed.append(Row(name="mean", status=status, cells=mean))
    columns = [Column(key="videos", title="videos", higher=None)]
    columns += [Column(key=key, title=key, higher=None) for key in measures if key in mean]
    return Table(
        name=f"folds_{protocol}",
        title=f"Folds: {protocol}" + (" – SMOKE, no results" if source.smoke else ""),
        blocks=(Block(title="", columns=tuple(columns), rows=tuple(listed)),),
        notes=(
            f"{len(source.rounds)} of {source.planned} folds are finished; the deviation is over "
            "folds (ddof 1).",
        ),
    )


def _settings(run: Path) -> str | None:
    path = run / "config.yaml"
    return _plain(path.read_text(encoding="utf-8"), run) if path.is_file() else None


def _plain(text: str, run: Path) -> str:
    """A text in which RUN stands for the run's folder: the page is read elsewhere."""
    for folder in {str(run.resolve()), str(run)} - {"."}:
        text = re.sub(rf"(?<![\w./-]){re.escape(folder)}(?![\w-])", "RUN", text)
    return text
