"""The paper's Tables 1 to 5 from a run or a data set, anybody's predictions and the printed numbers
(paper, Section 5).

Our rows, foreign ones and printed ones stand side by side, printed values in columns of their own,
so that nothing measured here is ranked against something measured elsewhere. Numbers from synthetic
data or a tiny model are a smoke table: the printed ones are then a block apart.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lmme3dhf.comparison.floors import (
    CEILING,
    FLOOR,
    ORACLE,
    PERSON,
    majority,
    map_floors,
    marker_agreement,
    mean_map,
    noise_ceiling,
    score_floors,
)
from lmme3dhf.comparison.methods import ComparisonError, Method, level_expectations
from lmme3dhf.comparison.paper import MARKS, PaperRow, PaperTable, read_paper
from lmme3dhf.comparison.scoring import (
    FITS,
    Figures,
    MapSource,
    Notes,
    answer_figures,
    map_figures,
    maps_of,
    score_figures,
    score_intervals,
    significance,
)
from lmme3dhf.comparison.sources import Ablation, Round, Source, read_ablations
from lmme3dhf.metrics.vqa import ACCURACIES
from lmme3dhf.reports.tables import Block, Cell, Column, Row, Table
from lmme3dhf.vocabulary import DIMENSIONS

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


def table1(
    source: Source,
    methods: Sequence[Method] = (),
    *,
    paper: Paper | None = None,
    fit: str = "none",
    allow_missing: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Table:
    """Quality and authenticity scores of all methods (Table 1).

    Args:
        source: The run or data set.
        methods: Anybody's predictions.
        paper: The printed tables; None for the repository's file.
        fit: Curve before PLCC, one of `scoring.FITS`.
        allow_missing: Test a foreign method on the videos it has, and say how many it lacks.
        seed: Of the bootstraps.
        resamples: Of each bootstrap.

    Raises:
        ComparisonError: Predictions that are missing or cannot be used.
    """
    _require_names(methods)
    if fit not in FITS:
        raise ComparisonError(f"fit {fit!r} is not one of {', '.join(FITS)}")
    rng = np.random.default_rng(seed)
    printed = _printed(1, paper)
    if not any(round_.labels.mos for round_ in source.rounds):
        raise ComparisonError(f"{source.data}: no opinion scores in its lists; expected numerical/")

    def scored(by_round: Sequence[Method], missing: bool = False) -> list[Found]:
        return [
            score_figures(method, round_, fit=fit, allow_missing=missing)
            for method, round_ in zip(by_round, source.rounds, strict=True)
        ]

    rows = []
    single = source.rounds[0] if len(source.rounds) == 1 and source.folds is None else None
    if _has(source, "scores"):
        row = _row(OURS, "ours", source, "real", scored(_ours(source)))
        if single is not None:
            found = score_intervals(single.ours, single, rng, resamples=resamples)
            row = _with(row, found, _interval_notes(found, single))
        rows.append(row)
        words = [level_expectations(round_.ours.path) for round_ in source.rounds]
        if all(words):
            row = _row(words[0].name, "ours", source, "real", scored(words))
            rows.append(replace(row, notes=words[0].notes + row.notes))
    for method in methods:
        if not method.scores:
            raise ComparisonError(
                f"{method.path}: no scores of {method.name}; Table 1 needs quality or authenticity"
            )
        row = _foreign(
            method, printed, source, scored([method] * len(source.rounds), allow_missing)
        )
        row = replace(row, notes=_direction_notes(method, printed, row) + row.notes)
        if single is not None:
            options = {"resamples": resamples, "allow_missing": allow_missing}
            found = score_intervals(method, single, rng, **options)
            notes = _interval_notes(found, single)
            if single.ours is not None and single.ours.scores:
                found |= significance(method, single.ours, single, rng, **options)
            row = _with(row, found, notes)
        rows.append(row)
    floors = [score_floors(source, round_) for round_ in source.rounds]
    bounds = []
    for kind, method in floors[0]:
        by_round = [m for of_round in floors for _, m in of_round if m.name == method.name]
        if len(by_round) == len(floors):
            bounds.append(_bound(kind, method, source, scored(by_round)))
    noise = [noise_ceiling(source, round_, rng) for round_ in source.rounds]
    if all(noise):
        found = [(figures, (note,) if single is not None else ()) for figures, note in noise]
        bounds.append(_row("raters' noise", CEILING, source, "real", found))
    curve = "raw" if fit == "none" else f"after {fit}"
    columns = _score_columns(printed, f"PLCC ({curve})")
    extra = ("rmse", "mae", "n", "srcc_signed", "srcc_within", "srcc_between")
    extra += ("srcc_low", "srcc_high", "srcc_difference")
    extra += ("p_bootstrap", "p_williams")
    columns += _hidden(f"{d}_{key}" for d in DIMENSIONS for key in extra)
    notes = [
        f"PLCC and RMSE are {curve}; KRCC is tau-b.",
        "An oracle is given a label of the clip that it scores; a ceiling is what the noise of the "
        "labels leaves to be reached.",
    ]
    return _assembled(1, source, printed, columns, rows, bounds, notes)


def table2(
    source: Source,
    methods: Sequence[Method] = (),
    *,
    paper: Paper | None = None,
    accuracy: str = "jaccard",
    allow_missing: bool = False,
) -> Table:
    """Distortion answers of all methods (Table 2).

    Args:
        source: The run or data set.
        methods: Anybody's answers.
        paper: The printed tables; None for the repository's file.
        accuracy: What the column "Accuracy" shows, one of `metrics.vqa.ACCURACIES`.
        allow_missing: As in `table1`.

    Raises:
        ComparisonError: Answers that are missing or cannot be used.
    """
    _require_names(methods)
    _require_accuracy(accuracy)
    printed = _printed(2, paper)
    if not all(round_.labels.distortions for round_ in source.rounds):
        raise ComparisonError(
            f"{source.data}: no distortion labels; expected distortion/eval.json, which `lmme3dhf "
            "data labels` makes"
        )

    def answered(by_round: Sequence[Method], missing: bool = False) -> list[Found]:
        found = []
        for method, round_ in zip(by_round, source.rounds, strict=True):
            figures, notes = answer_figures(method, round_, allow_missing=missing)
            found.append((figures | {"accuracy": figures[accuracy]}, notes))
        return found

    rows = []
    if _has(source, "answers"):
        rows.append(_row(OURS, "ours", source, "real", answered(_ours(source))))
    for method in methods:
        if not method.answers:
            raise ComparisonError(
                f"{method.path}: no distortion answers of {method.name}; Table 2 needs a column "
                "distortions or reply"
            )
        rows.append(
            _foreign(
                method, printed, source, answered([method] * len(source.rounds), allow_missing)
            )
        )
    bounds = []
    floors = [majority(source, round_) for round_ in source.rounds]
    if all(floors):
        bounds.append(_bound(FLOOR, floors[0], source, answered(floors)))
    columns = [
        Column(key="accuracy", title=f"Accuracy (%, {accuracy})", decimals=2),
        *(
            Column(key=key, title=title, decimals=2)
            for key, title in (
                ("jaccard", "Jaccard (%)"),
                ("exact", "exact (%)"),
                ("top1", "top-1 (%)"),
                ("macro_f1", "macro F1 (%)"),
            )
            if key != accuracy
        ),
        *_hidden([key for key in (accuracy, "micro_f1", "unparsed", "n") if key != "accuracy"]),
    ]
    notes = [
        f"Accuracy is {accuracy}: {ACCURACIES[accuracy]}.",
        "Top-1 looks at the first category of an answer: the most likely one where it comes from "
        "likelihoods, else the first as the method gives them (ours: in vocabulary order).",
    ]
    return _assembled(2, source, printed, columns, rows, bounds, notes)


def table3(
    source: Source,
    methods: Sequence[Method] = (),
    *,
    paper: Paper | None = None,
    preset: str = "mit",
    allow_missing: bool = False,
) -> Table:
    """Saliency maps of all methods (Table 3).

    Args:
        source: The run or data set.
        methods: Anybody's maps.
        paper: The printed tables; None for the repository's file.
        preset: Definitions of the metrics, one of `metrics.saliency.PRESETS`.
        allow_missing: As in `table1`.

    Raises:
        ComparisonError: Maps that are missing or cannot be used.
    """
    _require_names(methods)
    printed = _printed(3, paper)
    wanted = [(OURS, None)] if _has(source, "maps") else []
    for method in methods:
        if not method.maps:
            raise ComparisonError(
                f"{method.path}: no maps of {method.name}; Table 3 needs a folder of VIDEO.png"
            )
        wanted.append((method.name, method))
    found: dict[str, list[Found]] = {}
    floor_notes: dict[str, str] = {}
    people = []
    for round_ in source.rounds:
        sources: dict[str, MapSource] = {}
        counts, lacking = {}, {}
        for name, method in wanted:
            maps = maps_of(
                method or round_.ours,
                round_.labels.videos,
                allow_missing=bool(method and allow_missing),
            )
            sources[name], counts[name], lacking[name] = maps
        mean = mean_map(source, round_)
        floors = map_floors(round_, mean)
        floor_notes |= {name: note for name, (_, note) in floors.items()}
        sources |= {f"{FLOOR} {name}": maps for name, (maps, _) in floors.items()}
        scores = map_figures(sources, source, round_, preset=preset, baseline=mean)
        for name, figures in scores.items():
            notes = lacking.get(name, ())
            if counts.get(name, {}).get("resized"):
                notes += (
                    f"{counts[name]['resized']} maps resized to the ground truth's size (bilinear)",
                )
            if figures["incomplete"]:
                notes += (
                    f"{figures['incomplete']} maps with an undefined metric (constant maps) are "
                    "missing from that metric's mean alone",
                )
            found.setdefault(name, []).append((figures, notes))
        people.append(marker_agreement(source, round_, preset=preset))
    rows = [
        _row(name, "ours", source, "real", found[name])
        if method is None
        else _foreign(method, printed, source, found[name])
        for name, method in wanted
    ]
    bounds = []
    for name, note in floor_notes.items():
        row = _row(name, FLOOR, source, "real", [(f, ()) for f, _ in found[f"{FLOOR} {name}"]])
        bounds.append(replace(row, notes=(note,), ranked=False))
    if all(people):
        of_rounds = [(f, (note,) if len(people) == 1 else ()) for f, note in people]
        bounds.append(_row("marker against marker", PERSON, source, "real", of_rounds))
    columns = [*_columns(printed), *_hidden(_MAP_EXTRA)]
    notes = [*_map_notes(source, preset, found)]
    return _assembled(3, source, printed, columns, rows, bounds, notes)


_MAP_EXTRA = ("auc_judd", "auc_borji", "auc_shuffled", "ig", "n", "skipped", "incomplete")


def _map_notes(source: Source, preset: str, found: Mapping[str, list[Found]]) -> list[str]:
    figures = [of_round for of_round, _ in found[f"{FLOOR} uniform map"]]
    used, skipped = (sum(f[key] for f in figures) for key in ("n", "skipped"))
    fixations = "the marked points"
    if source.points is None or preset == "lmme3dhf-repo":
        fixations = "the pixels of at least .95 of the ground-truth map (the released rule)"
    return [
        f"Preset {preset}; fixations are {fixations}; AUC is Mann-Whitney's, those of Judd, Borji "
        "and with other clips' fixations (shuffled) are in the CSV.",
        f"{used} test videos have marks; {skipped} without any are skipped for every method.",
    ]


def table4(source: Source, *, paper: Paper | None = None, preset: str = "mit") -> Table:
    """The ablation of the saliency decoder (Table 4), from the run's ablations.

    Args:
        source: A run, without folds.
        paper: The printed tables; None for the repository's file.
        preset: As in `table3`.
    """
    round_, ablations = _only_round(source)
    printed = _printed(4, paper)
    chosen = _chosen(4, printed, ablations, round_)
    own = [a for a in ablations if a.table == 0 and not a.leaking and a.method and a.method.maps]
    sources, notes = {}, {}
    for ablation in (*chosen.values(), *own):
        if ablation.method is not None and ablation.method.maps:
            maps, _, lacking = maps_of(ablation.method, round_.labels.videos)
            sources[_key(ablation)], notes[_key(ablation)] = maps, lacking
    mean = mean_map(source, round_)
    floors = map_floors(round_, mean)
    sources |= {f"{FLOOR} {name}": maps for name, (maps, _) in floors.items()}
    scores = map_figures(sources, source, round_, preset=preset, baseline=mean)
    found = {key: [(figures, notes.get(key, ()))] for key, figures in scores.items()}
    bounds = [
        replace(_row(name, FLOOR, source, "real", found[f"{FLOOR} {name}"]), notes=(note,))
        for name, (_, note) in floors.items()
    ]
    columns = [*_columns(printed), *_hidden(_MAP_EXTRA)]
    rows = _ablation_rows(printed, chosen, source, found)
    own_rows = [_own_row(ablation, source, found) for ablation in own]
    about = _map_notes(source, preset, found) + ([] if ablations else [_NO_ABLATIONS])
    return _assembled(4, source, printed, columns, rows, bounds, about, own_rows)


def table5(
    source: Source,
    *,
    paper: Paper | None = None,
    accuracy: str = "jaccard",
    fit: str = "none",
) -> Table:
    """The ablation of LoRA and regression (Table 5), from the run's ablations, and rows of our own;
    the leaking protocol's row is marked and never ranked.

    Args:
        source: A run, without folds.
        paper: The printed tables; None for the repository's file.
        accuracy: As in `table2`.
        fit: As in `table1`.
    """
    _require_accuracy(accuracy)
    round_, ablations = _only_round(source)
    printed = _printed(5, paper)
    chosen = _chosen(5, printed, ablations, round_)
    own = [a for a in ablations if a.table == 0]
    found = {}
    for ablation in (*chosen.values(), *own):
        if ablation.method is None:
            continue
        figures, notes = score_figures(ablation.method, round_, fit=fit)
        if ablation.method.answers and round_.labels.distortions:
            answers, more = answer_figures(ablation.method, round_)
            figures |= answers | {"accuracy": answers[accuracy]}
            notes += more
        found[_key(ablation)] = [(figures, notes)]
    bounds = []
    for kind, method in score_floors(source, round_):
        bounds.append(_bound(kind, method, source, [score_figures(method, round_, fit=fit)]))
    floor = majority(source, round_)
    if floor is not None:
        figures, notes = answer_figures(floor, round_)
        figures["accuracy"] = figures[accuracy]
        bounds.append(_bound(FLOOR, floor, source, [(figures, notes)]))
    curve = "raw" if fit == "none" else f"after {fit}"
    columns = [
        *(
            Column(key=mark, title=title, group=group, higher=None)
            for mark, title, group in (
                ("vision", "vision", "LoRA"),
                ("llm", "LLM", "LoRA"),
                ("regression", "Regression", ""),
            )
        ),
        *_score_columns(printed, f"PLCC ({curve})", f"Accuracy (%, {accuracy})"),
        *_hidden(["jaccard", "exact", "top1", "macro_f1", "unparsed"]),
    ]
    rows = _ablation_rows(printed, chosen, source, found)
    own_rows = [_own_row(ablation, source, found) for ablation in own]
    notes = [
        f"PLCC is {curve}; accuracy is {accuracy}: {ACCURACIES[accuracy]}.",
        *_inflation(chosen, own, found),
        *([] if ablations else [_NO_ABLATIONS]),
    ]
    return _assembled(5, source, printed, columns, rows, bounds, notes, own_rows)


def _inflation(
    chosen: Mapping[str, Ablation],
    own: Sequence[Ablation],
    found: Mapping[str, list[Found]],
) -> list[str]:
    """By how much a protocol that sees labels exceeds ours, in a sentence each."""
    ours = chosen.get("5")
    if ours is None or _key(ours) not in found:
        return []
    honest = found[_key(ours)][0][0]
    sentences = []
    for ablation in own:
        if not ablation.leaking or _key(ablation) not in found:
            continue
        leaking = found[_key(ablation)][0][0]
        parts = [
            f"{dimension} SRCC {leaking[key]:.3f} where row (5) has {honest[key]:.3f} "
            f"({leaking[key] - honest[key]:+.3f})"
            for dimension in DIMENSIONS
            if (key := f"{dimension}_srcc") in leaking and key in honest
        ]
        sentences.append(
            f"The leaking protocol ({ablation.title}) is given the label of the video that it "
            f"scores and reaches {' and '.join(parts)}; it is no metric and is not ranked."
        )
    return sentences


def _require_names(methods: Sequence[Method]) -> None:
    names = [OURS, *(method.name for method in methods)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        whose = "the run's own method" if twice == OURS else "two methods"
        raise ComparisonError(f"{twice!r} is the name of {whose}; give the foreign one another")


_NO_ABLATIONS = "The run has no ablations; `lmme3dhf evaluate ablations` trains and predicts them."


def _only_round(source: Source) -> tuple[Round, list[Ablation]]:
    if source.folds is not None:
        raise ComparisonError("ablations are run on the plain split; leave --folds out")
    return source.rounds[0], read_ablations(source.root)


def _chosen(
    number: int, printed: PaperTable, ablations: Sequence[Ablation], round_: Round
) -> dict[str, Ablation]:
    """Number of a printed row -> our run of it; the plain run stands for the default set-up."""
    chosen = {a.number: a for a in ablations if a.table == number}
    default = printed.ours.number
    if default not in chosen and round_.ours is not None:
        marks = dict(printed.ours.marks)
        chosen[default] = Ablation(
            table=number,
            number=default,
            title=OURS,
            marks=marks,
            leaking=False,
            method=round_.ours,
            note="the run itself",
        )
    return chosen


def _key(ablation: Ablation) -> str:
    return f"{ablation.table} {ablation.number} {ablation.title}"


def _ablation_rows(
    printed: PaperTable,
    chosen: Mapping[str, Ablation],
    source: Source,
    found: Mapping[str, list[Found]],
) -> list[Row]:
    rows = []
    for row in printed.rows:
        ablation = chosen.get(row.number)
        marks = _check_marks(row.marks, row.marks)
        if ablation is None or _key(ablation) not in found:
            if source.smoke:  # elsewhere the printed row stands for it
                rows.append(Row(name=_paper_name(row), status=NOT_RUN, cells=marks))
            continue
        made = _row(_paper_name(row), "", source, "real", found[_key(ablation)])
        notes = (ablation.note,) if ablation.note else ()
        rows.append(replace(made, cells={**marks, **made.cells}, notes=notes + made.notes))
    return rows


def _check_marks(marks: Mapping[str, bool], names: Iterable[str] = MARKS) -> dict[str, str]:
    return {name: CHECK if marks.get(name) else "" for name in names}


def _own_row(ablation: Ablation, source: Source, found: Mapping[str, list[Found]]) -> Row:
    notes = (ablation.note,) if ablation.note else ()
    marks = _check_marks(ablation.marks) if ablation.marks else {}
    if _key(ablation) not in found:
        return Row(name=ablation.title, status=NOT_RUN, notes=notes, ranked=False)
    made = _row(ablation.title, "", source, "real", found[_key(ablation)])
    if ablation.leaking:
        made = replace(made, name=f"LEAKING: {made.name}", ranked=False)
    return replace(made, cells={**marks, **made.cells}, notes=notes + made.notes)


def _printed(number: int, paper: Paper | None) -> PaperTable:
    return (read_paper() if paper is None else paper)[number]


def _require_accuracy(accuracy: str) -> None:
    if accuracy not in ACCURACIES:
        raise ComparisonError(f"accuracy {accuracy!r} is not one of {', '.join(ACCURACIES)}")


def _has(source: Source, what: str) -> bool:
    return all(round_.ours is not None and getattr(round_.ours, what) for round_ in source.rounds)


def _ours(source: Source) -> list[Method]:
    return [round_.ours for round_ in source.rounds]


def _status(source: Source, status: str) -> str:
    return SMOKE if source.smoke else status


def _row(
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


def _bound(kind: str, method: Method, source: Source, found: Sequence[Found]) -> Row:
    row = _row(method.name, kind, source, "real", found)
    return replace(row, notes=method.notes, ranked=False)


def _foreign(
    method: Method,
    printed: PaperTable,
    source: Source,
    found: Sequence[Found],
) -> Row:
    match = _match(method.name, printed)
    group = match.group if match else "other methods"
    row = _row(method.name, group, source, method.status, found)
    notes = method.notes
    if source.smoke:
        notes = (f"{method.status} predictions", *notes)
    return replace(row, notes=notes + row.notes)


def _with(row: Row, figures: Figures, notes: Notes) -> Row:
    return replace(row, cells={**row.cells, **figures}, notes=row.notes + notes)


def _interval_notes(found: Figures, round_: Round) -> Notes:
    spans = [
        f"{dimension} {found[f'{dimension}_srcc_low']:.3f} to {found[f'{dimension}_srcc_high']:.3f}"
        for dimension in DIMENSIONS
        if f"{dimension}_srcc_low" in found
    ]
    return (f"95 % interval of SRCC: {', '.join(spans)}",) if spans else ()


def _direction_notes(method: Method, printed: PaperTable, row: Row) -> Notes:
    """Never turned silently: what was turned, and what looks as if it should be."""
    if method.lower_is_better:
        return ("lower is better: scores are turned before every metric (signed SRCC in the CSV)",)
    negative = [
        cell.value
        for dimension in DIMENSIONS
        if isinstance(cell := row.cells.get(f"{dimension}_srcc"), Cell) and cell.value < 0
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


def _paper_name(row: PaperRow) -> str:
    return f"({row.number}) {row.name}" if row.number else row.name


def _columns(printed: PaperTable, prefix: str = "") -> list[Column]:
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


def _score_columns(printed: PaperTable, plcc: str, accuracy: str = "Accuracy (%)") -> list[Column]:
    titles = {"PLCC": plcc if plcc != "PLCC (raw)" else "PLCC", "Accuracy (%)": accuracy}
    return [
        replace(column, title=titles.get(column.title, column.title))
        for column in _columns(printed)
    ]


def _hidden(keys: Iterable[str]) -> list[Column]:
    return [Column(key=key, title=key, higher=None, shown=False) for key in keys]


def _assembled(
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
    beside = tuple(
        replace(column, group=f"paper: {column.group}".strip())
        for column in _columns(printed, "paper_")
    )
    title = f"Table {number}. {printed.title}"
    blocks = []
    if smoke:
        title += " – SMOKE, no results"
        blocks.append(_block(f"SMOKE: {source.smoke}", columns, rows))
    else:
        heading = "Measured here, and printed in the paper (Gen3DHF)"
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
        match = next((p for p in printed.rows if _paper_name(p) == row.name), None)
        match = match or _match(row.name, printed)
        if match is None:
            others.append(row)
            continue
        cells = {**row.cells, **_printed_cells(match)}
        group = row.group if row.group == "ours" else match.group
        notes = row.notes + ((match.note,) if match.note else ())
        by_paper.setdefault(_paper_name(match), []).append(
            replace(row, cells=cells, group=group, notes=notes)
        )
    merged = []
    groups = dict.fromkeys(row.group for row in printed.rows)
    for group in groups:
        for row in printed.rows:
            if row.group != group:
                continue
            measured = by_paper.get(_paper_name(row), [])
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
        name=_paper_name(row),
        group=row.group,
        status=NOT_RUN,
        cells={**_check_marks(row.marks, row.marks), **_printed_cells(row)},
        notes=(row.note,) if row.note else (),
    )
