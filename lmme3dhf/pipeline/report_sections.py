"""The words of a run's report, section by section, around its tables and figures."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from lmme3dhf.baselines import BASELINES
from lmme3dhf.comparison.assembly import NOT_RUN, OURS
from lmme3dhf.comparison.breakdowns import GENERATOR_FLOOR, Leak
from lmme3dhf.comparison.figures import PROTOCOLS, FigureRecord
from lmme3dhf.comparison.methods import Method
from lmme3dhf.comparison.paper import PaperTable
from lmme3dhf.comparison.sources import Source
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator, latent
from lmme3dhf.departures import DEPARTURES, GAPS
from lmme3dhf.files import file_hash
from lmme3dhf.metrics import METRICS
from lmme3dhf.metrics.saliency import PRESETS
from lmme3dhf.models.card import merge_summary
from lmme3dhf.reports.page import Grid, Listing, Part, Picture, Section, Text, Verbatim
from lmme3dhf.reports.tables import Cell, Table, number

SHOWN_PRESETS = ("mit", "lmme3dhf-repo")  # of Table 3; one alone would look like the definition
ABLATIONS = "`lmme3dhf evaluate ablations --config RUN/config.yaml --out RUN`"
LEAK_ONLY = f"{ABLATIONS[:-1]} --only label_leak`"
MEASURES = {
    "scores": "scores",
    "levels": "level words",
    "answers": "distortion answers",
    "maps": "saliency maps",
}
PROTOCOL_IS = {
    "grouped": "five that share no face",
    "official": "the data set's own split",
    "leave-one-generator-out": "one for each generator, trained on all others",
}
CROSSVAL = "`lmme3dhf evaluate crossval --config RUN/config.yaml --out RUN --folds {}`"

# Figures that stand beside what they are about; the others have a section of their own.
PLACED = {
    "generators": "identity",
    "curves": "training",
    "ablations_table4": "ablations",
    "ablations_table5": "ablations",
    **{f"folds_{protocol.replace('-', '_')}": "folds" for protocol in PROTOCOLS},
}

# Oracles, ceilings and what else is no baseline.
BOUNDS = {
    "level oracle": "is given the true level word and gives that level's mean training score: the "
    "most that level words can say, and what a head that reads the label gets for nothing",
    "other dimension's score": "gives the opinion score of the other dimension: how far quality "
    "and authenticity are one thing",
    "another aspect's score": "gives the opinion score of another aspect: how far the two are one "
    "thing",
    "true opinions": "are what was planted in the synthetic clips: the noise of the simulated "
    "raters leaves this much to be reached",
    "raters' noise": "is what the raters' scatter leaves to be reached, estimated from panels "
    "drawn from the panel",
    "marker against marker": "tests one marker's map against the others' points; it is no "
    "ceiling, since a model may know what all of them mark on average",
    "most frequent training level": "gives every clip the level that was most frequent in training",
}


def explained() -> dict[str, str]:
    """Row among the floors, oracles and ceilings of the tables -> what it says."""
    return {baseline.title: baseline.about for baseline in BASELINES.values()} | BOUNDS


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything that the page says.

    Attributes:
        run: Folder of the run.
        source: The run's own test.
        tested: What Tables 1 to 3 are about: the same, or the folds of a protocol.
        methods: Foreign methods.
        paper: The printed tables.
        tables: Name -> table, of those that could be made.
        absent: Name of a table -> why it could not be made.
        figures: All that were tried.
        pictures: Folder that the figures' paths count from.
        files: Name of the folder beside the page.
        folds: Protocol -> its finished folds.
        leak: What the label leak is worth; None where it has not run.
        settings: The run's `config.yaml`; None where there is none.
    """

    run: Path
    source: Source
    tested: Source
    methods: tuple[Method, ...]
    paper: dict[int, PaperTable]
    tables: dict[str, Table]
    absent: dict[str, str]
    figures: tuple[FigureRecord, ...]
    pictures: Path
    files: str
    folds: dict[str, Source]
    leak: Leak | None
    settings: str | None


def summary_of(found: Gathered) -> tuple[Part, ...]:
    """What stands above the contents: smoke or results, and what was run."""
    if found.source.smoke:
        banner = Text(
            f"SMOKE RUN: {found.source.smoke}. The numbers show that the whole chain works; they "
            "say nothing about Gen3DHF or about real faces, and are not to be compared with the "
            "paper's.",
            "warning",
        )
    else:
        banner = Text(
            "RESULTS: the run's own numbers on the data set that is named below.", "banner"
        )
    return (banner, Grid(rows=tuple(_facts(found))))


def sections_of(found: Gathered) -> tuple[Section, ...]:
    """The page's sections, in order."""
    made = {
        "glance": ("At a glance", _glance),
        "tables": ("Tables 1 to 3, and level words", _main_tables),
        "bounds": ("Floors, oracles and ceilings", _bounds),
        "definitions": ("What the metrics are", _definitions),
        "generator-identity": ("How much of a score is the generator's identity", _identity),
        "folds": ("Cross-validation", _folds),
        "ablations": ("Ablations: Tables 4 and 5", _ablations),
        "leak": ("The label leak", _leak),
        "figures": ("Figures", _all_figures),
        "training": ("Training", _training),
        "departures": ("Departures from the paper and the released code", _departures),
        "gaps": ("What could not be reproduced, and why", _gaps),
        "not-run": ("Rows of the paper that were not run", _not_run),
        "absent": ("What this report lacks", _absent),
        "settings": ("Settings", _settings),
    }
    return tuple(
        Section(anchor=anchor, title=title, parts=tuple(parts(found)))
        for anchor, (title, parts) in made.items()
    )


# Summary


def _facts(found: Gathered) -> Iterable[tuple[str, str]]:
    run, source = found.run, found.source
    predictions = run / "predictions.jsonl"
    made = datetime.fromtimestamp(predictions.stat().st_mtime, tz=timezone.utc)
    records = predictions.read_bytes().count(b"\n")
    yield (
        "Predictions",
        f"{records} records of {len(source.rounds[0].labels.videos)} test videos, written on "
        f"{made:%Y-%m-%d} (UTC); SHA-256 `{file_hash(predictions)[:16]}`",
    )
    settings, model = _parsed(found.settings), _json(run / "model" / "config.json")
    text = model.get("text_config") or model
    about = {
        "": (model.get("architectures") or [None])[0],
        "base ": settings.get("model") and f"`{settings['model']}`",
        "layers ": text.get("num_hidden_layers"),
        "hidden size ": text.get("hidden_size"),
        "type ": model.get("dtype"),
    }
    told = [f"{what}{value}" for what, value in about.items() if value]
    if told:
        yield "Model", ", ".join(told)
    files = _json(run / "model" / "manifest.json").get("files", {})
    weights = [entry for name, entry in files.items() if name.endswith(".safetensors")]
    if weights:
        size_mb = sum(entry["bytes"] for entry in weights) / 1e6
        hashes = ", ".join(f"`{entry['sha256'][:16]}`" for entry in weights)
        yield "Weights", f"{size_mb:.1f} MB, SHA-256 {hashes}"
    merged = _json(run / "model" / "merge_report.json")
    if "form" in merged:
        yield "Merge", "; ".join(merge_summary(merged))
    yield "Data set", _data_fact(found)
    split = _json(source.data / "splits.json")
    if split.get("sha256"):
        yield "Split", f"SHA-256 `{split['sha256']}`"
    if found.tested.folds:
        yield (
            "Tables 1 to 3",
            f"mean and deviation over {len(found.tested.rounds)} of {found.tested.planned} folds "
            f"(protocol {found.tested.folds})",
        )
    if found.methods:
        listed = ", ".join(f"{method.name} ({method.status})" for method in found.methods)
        yield "Other methods", listed
    if "seed" in settings:
        yield "Seed", str(settings["seed"])
    steps = _json(run / "steps.json")
    if steps:
        seconds = sum(step["seconds"] for step in steps.values())
        peak = max(step["peak_rss_mb"] for step in steps.values())
        yield "Cost", f"{seconds:.0f} s in all, at most {peak:.0f} MB of memory"
    versions = _json(run / "stage3" / "run.json").get("versions", {})
    told = [f"{library} {version}" for library, version in versions.items()]
    if told:
        yield "Versions", f"{', '.join(told)} (as recorded in stage 3)"


def _data_fact(found: Gathered) -> str:
    source = found.source
    kind = "synthetic (drawn by the renderer)" if _is_synthetic(source) else source.data.name
    videos = source.rounds[0].labels.videos
    text = f"{kind}; {len(source.rounds[0].train.videos)} training and {len(videos)} test videos"
    try:
        generators = {generator(video) for video in videos}
        faces = {latent(video) for video in videos}
    except DataError:
        return text
    return f"{text} ({len(faces)} faces, {len(generators)} generators)"


def _is_synthetic(source: Source) -> bool:
    return (source.data / "truth.json").is_file()


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file or it holds something else."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _parsed(settings: str | None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(settings or "")
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


# At a glance


def _glance(found: Gathered) -> Iterable[Part]:
    scores = [
        (f"{dimension}, SRCC", "table1", f"{dimension}_srcc", 3, GENERATOR_FLOOR, "raters' noise")
        for dimension in found.source.aspects
    ]
    levels = [
        (
            f"{dimension} level, accuracy (%)",
            "levels",
            f"{dimension}_accuracy",
            1,
            "most frequent training level",
            "",
        )
        for dimension in found.source.aspects
    ]
    answers = [
        (
            "distortion answers, mean Jaccard (%)",
            "table2",
            "accuracy",
            1,
            "most frequent training answer",
            "",
        )
    ]
    maps = [
        (
            f"saliency, {title} (preset {SHOWN_PRESETS[0]})",
            f"table3_{SHOWN_PRESETS[0]}",
            key,
            3,
            "mean training map",
            "",
        )
        for key, title in (("cc", "CC"), ("auc", "AUC"))
    ]
    rows = []
    for measure, name, key, decimals, floor, ceiling in (*scores, *levels, *answers, *maps):
        ours = _cell(found, name, OURS, key)
        if ours is None:
            continue
        others = [
            "–"
            if (cell := _cell(found, name, other, key)) is None
            else f"{_digits(cell, decimals)} ({other})"
            for other in (floor, ceiling)
        ]
        low, high = (_cell(found, name, OURS, f"{key}_{end}") for end in ("low", "high"))
        interval = ""
        if low is not None and high is not None:
            interval = f" (95 %: {_digits(low, decimals)} to {_digits(high, decimals)})"
        rows.append((measure, _digits(ours, decimals) + interval, *others))
    if not rows:
        yield Text("Our method has no figures; the tables say why.", "absent")
        return
    yield Grid(header=("measure", "this run", "floor", "ceiling"), rows=tuple(rows))


def _cell(found: Gathered, table: str, row: str, key: str) -> Cell | float | None:
    """A number of a measured row; None where there is none."""
    if table not in found.tables:
        return None
    for block in found.tables[table].blocks:
        for one in block.rows:
            if one.name == row and one.status != NOT_RUN and number(one.cells.get(key)) is not None:
                return one.cells[key]
    return None


def _digits(cell: Cell | float, decimals: int) -> str:
    value = number(cell)
    if math.isnan(value):
        return "undefined"
    std = cell.std if isinstance(cell, Cell) else None
    return f"{value:.{decimals}f}" + ("" if std is None else f" ± {std:.{decimals}f}")


# Tables


def _main_tables(found: Gathered) -> Iterable[Part]:
    names = ("table1", "table2", *(f"table3_{preset}" for preset in SHOWN_PRESETS), "levels")
    if len(SHOWN_PRESETS) > 1:
        yield Text(
            "Table 3 stands here once for each of several sets of definitions, because the paper "
            "names none and no one set gives its numbers."
        )
    for name in names:
        again = name.startswith("table3_") and not name.endswith(SHOWN_PRESETS[0])
        yield from _table(found, name, printed=not again)


def _table(found: Gathered, name: str, *, printed: bool = True) -> Iterable[Part]:
    """A table with the place of its files; where `printed` is false without blocks of printed rows
    alone and the notes on the paper, which stand with another table.
    """
    if name in found.tables:
        table = found.tables[name]
        if not printed:
            blocks = (b for b in table.blocks if any(row.status != NOT_RUN for row in b.rows))
            notes = (note for note in table.notes if not note.startswith("Paper:"))
            table = replace(table, blocks=tuple(blocks), notes=tuple(notes))
        yield table
        yield Text(
            f"Files: `{found.files}/tables/{name}` with .md, .csv (all digits), .tex", "files"
        )
    elif name in found.absent:
        yield Text(f"{_title(name)} could not be made: {found.absent[name]}.", "absent")


def _bounds(found: Gathered) -> Iterable[Part]:
    there = {
        row.name
        for table in found.tables.values()
        for block in table.blocks
        for row in block.rows
        if row.status != NOT_RUN
    }
    yield Text(
        "A floor knows nothing of the clip, an oracle is given a label of the clip that it "
        "scores, and a ceiling is what the noise of the labels leaves to be reached. None of them "
        "is ranked."
    )
    yield Grid(rows=tuple((name, said) for name, said in explained().items() if name in there))


def _definitions(found: Gathered) -> Iterable[Part]:
    rows = [
        (
            metric.title.removesuffix(" (%)"),
            MEASURES[metric.of],
            {True: "higher", False: "lower", None: "–"}[metric.higher],
            metric.definition,
        )
        for metric in METRICS.values()
    ]
    yield Grid(header=("metric", "of", "better", "definition"), rows=tuple(rows))
    yield Text(
        "Undefined is never 0: a constant prediction has no correlation, and the table says so. "
        "Clips without any mark are skipped for maps and counted."
    )
    yield Text(
        "The presets of the saliency metrics, knob by knob: `mit` is the MIT benchmark's code, "
        "`lmme3dhf-repo` what the authors' repository shows of theirs, with MIT's for the rest. "
        "Fixations are the marked points where these are known and no rule is set."
    )
    presets = {name: asdict(PRESETS[name]) for name in SHOWN_PRESETS}
    rows = [
        (f"`{knob}`", *(_knob(options[knob]) for options in presets.values()))
        for knob in presets[SHOWN_PRESETS[0]]
    ]
    yield Grid(header=("knob", *SHOWN_PRESETS), rows=tuple(rows))


def _knob(value: Any) -> str:
    if isinstance(value, dict):  # a rule for fixations
        return ", ".join(f"{key} {one}" for key, one in value.items())
    if isinstance(value, float):
        return "undefined" if math.isnan(value) else f"{value:.3g}"
    return "none" if value is None else str(value)


# What a score is made of


def _identity(found: Gathered) -> Iterable[Part]:
    if "identity" not in found.tables:
        yield Text(f"Not known: {found.absent.get('identity', 'no scores')}.", "absent")
        return
    explained = [
        f"{_digits(cell, 0)} % for {dimension}"
        for dimension in found.source.aspects
        if (cell := _cell(found, "identity", "opinion scores", f"{dimension}_explained"))
        is not None
    ]
    floor = [
        f"{_digits(cell, 3)} for {dimension}"
        for dimension in found.source.aspects
        if (cell := _cell(found, "identity", GENERATOR_FLOOR, f"{dimension}_srcc")) is not None
    ]
    told = f"Of the opinion scores' variance {' and '.join(explained)} lies between generators. "
    if floor:
        told += (
            "A predictor that knows the generator and nothing else of a clip reaches an SRCC of "
            f"{' and '.join(floor)}; what a metric knows of the clip itself shows within "
            "generators."
        )
    yield Text(told)
    yield from _table(found, "identity")
    if "leave-one-generator-out" not in found.folds:
        yield Text(
            "How well generators are scored that no training clip comes from is not known for this "
            f"run; {CROSSVAL.format('leave-one-generator-out')} makes it.",
            "absent",
        )
    yield from _placed(found, "identity")


def _folds(found: Gathered) -> Iterable[Part]:
    for protocol in PROTOCOLS:
        name = f"folds_{protocol}"
        if name in found.tables:
            yield from _table(found, name)
        elif found.absent.get(name):
            yield Text(f"{protocol.capitalize()} folds: {found.absent[name]}.", "absent")
        else:
            command = CROSSVAL.format(protocol)
            yield Text(
                f"No {protocol} folds ({PROTOCOL_IS[protocol]}); {command} trains and tests them.",
                "absent",
            )
    yield from _placed(found, "folds")


# Ablations


def _changes(row: dict[str, Any]) -> Iterable[str]:
    yield from (f"`{key}: {_plain_value(v)}`" for key, v in row.get("settings", {}).items())
    yield from (f"`{key}` x {factor:g}" for key, factor in row.get("factors", {}).items())


def _ablations(found: Gathered) -> Iterable[Part]:
    rows = _ablation_rows(found.run)
    if rows:
        yield Grid(
            header=("table", "row", "starts from", "trains", "differs from the run in"),
            rows=tuple(
                (
                    str(row["table"] or "ours"),
                    f"({row['number']}) {row['title']}" if row.get("number") else row["title"],
                    str(row.get("start", "")),
                    ", ".join(row.get("stages", [])) or "nothing",
                    ", ".join(_changes(row)) or "nothing",
                )
                for row in rows
            ),
        )
    else:
        yield Text(f"The run has no ablations; {ABLATIONS} trains and predicts them.", "absent")
    yield from _table(found, "table4")
    yield from _table(found, "table5")
    yield from _placed(found, "ablations")


def _ablation_rows(run: Path) -> list[dict[str, Any]]:
    """The rows as they were run; `read_ablations` has checked the file."""
    path = run / "ablations" / "rows.json"
    content = json.loads(path.read_bytes()) if path.is_file() else []
    return [{"settings": {}, **row} for row in content]


def _plain_value(value: Any) -> str:
    return json.dumps(value)


def _leak(found: Gathered) -> Iterable[Part]:
    if found.leak is None:
        yield Text(
            "What the released protocol gains by reading the label is not known for this run; "
            f"{LEAK_ONLY} trains that row, which takes one run of stage 2.",
            "absent",
        )
        return
    yield Text(" ".join(leak_sentences(found.leak)))


def leak_sentences(leak: Leak) -> tuple[str, str, str]:
    """What leaks, what it is worth here, and what follows; a sentence each."""
    told = {
        dimension: f"{leak.leaking[dimension]:.3f} for {dimension} where the head that reads no "
        f"label has {srcc:.3f} ({leak.leaking[dimension] - srcc:+.3f})"
        for dimension, srcc in leak.honest.items()
    }
    oracle = " and ".join(f"{srcc:.3f} for {d}" for d, srcc in leak.oracle.items())
    knowing = f" (knowing the level and nothing else of a clip gives {oracle})" if oracle else ""
    return (
        "In the released code the score head reads the hidden state of the ground-truth level "
        "word, in training and in evaluation alike, so it is told which fifth of the scale holds "
        "the score that it is asked for.",
        "Trained in that way on this run's data, the same head reaches an SRCC of "
        f"{' and of '.join(told.values())}{knowing}.",
        "Nobody has the label of a new clip, so that row is no result: it is marked in Table 5, "
        "never ranked, and stands there to show what numbers of such a protocol are worth.",
    )


# Figures


def _placed(found: Gathered, section: str) -> Iterable[Part]:
    for record in found.figures:
        if PLACED.get(record.name) == section and record.png:
            yield _picture(found, record)


def _all_figures(found: Gathered) -> Iterable[Part]:
    yield Text(
        f"Each lies in `{found.files}/figures` as PNG and SVG, with the CSV of its numbers. Those "
        "of a smoke run say so in their corner."
    )
    for record in found.figures:
        if record.name not in PLACED and record.png:
            yield _picture(found, record)


def _picture(found: Gathered, record: FigureRecord) -> Picture:
    return Picture(
        name=record.name,
        title=record.title,
        caption=record.caption,
        png=found.pictures / record.png,
        svg=found.pictures / record.svg if record.svg else None,
        number=record.number,
    )


def _training(found: Gathered) -> Iterable[Part]:
    parts = list(_placed(found, "training"))
    yield from parts
    if not parts:
        reasons = (r.reason for r in found.figures if PLACED.get(r.name) == "training")
        yield Text(f"Not known: {next(reasons, None) or 'no losses'}.", "absent")


# What differs, and what is missing


def _departures(found: Gathered) -> Iterable[Part]:
    rows = ((d.number, d.there, d.here, d.why) for d in DEPARTURES)
    yield Grid(header=("", "there", "here", "why"), rows=tuple(rows))


def _gaps(found: Gathered) -> Iterable[Part]:
    rows = ((gap.what, gap.why, gap.instead) for gap in GAPS)
    yield Grid(header=("what", "why", "here instead"), rows=tuple(rows))


def _not_run(found: Gathered) -> Iterable[Part]:
    yield Text(
        "Printed values of these rows stand in the tables with the status `not run`. Predictions "
        "of any of them become a row with `--method NAME=FILE` (scores or answers) or "
        "`--method NAME=FOLDER` (maps)."
        + (" In a smoke run that is every row of the paper." if found.source.smoke else "")
    )
    rows = []
    for at, printed in found.paper.items():
        name = f"table{at}" if at != 3 else f"table3_{SHOWN_PRESETS[0]}"
        names = [f"({row.number}) {row.name}" if row.number else row.name for row in printed.rows]
        if name in found.tables:
            there = {
                row.name
                for block in found.tables[name].blocks
                for row in block.rows
                if row.status == NOT_RUN
            }
            missing = [name for name in names if name in there]
        else:
            missing = names
        rows.append(
            (
                f"Table\u00a0{at}",
                f"{len(missing)}\u00a0of\u00a0{len(names)}",
                ", ".join(missing) or "–",
            )
        )
    yield Grid(header=("table", "not run", "rows"), rows=tuple(rows))


def _absent(found: Gathered) -> Iterable[Part]:
    items = [f"{_title(name)}: {why}." for name, why in found.absent.items() if why]
    items += [f"{r.title}: {r.reason}." for r in found.figures if r.reason]
    if not items:
        yield Text("Nothing: every table and figure could be made.")
        return
    yield Listing(tuple(items))


def _title(name: str) -> str:
    """Of a table that could not be made."""
    known = {"levels": "Level words", "identity": "Scores and generators"}
    return known.get(name, name.replace("_", ", ", 1).replace("table", "Table ").capitalize())


def _settings(found: Gathered) -> Iterable[Part]:
    if found.settings is None:
        yield Text("The run has no `config.yaml`.", "absent")
        return
    yield Text("RUN stands for the run's folder.")
    yield Verbatim("config.yaml, as resolved when the run was started", found.settings)
