"""The paper's Tables 1 to 5 from a run or a data set, anybody's predictions and the printed numbers
(paper, Section 5).

Our rows, foreign ones and printed ones stand side by side, printed values in columns of their own,
so that nothing measured here is ranked against something measured elsewhere. Numbers from synthetic
data or a tiny model are a smoke table: the printed ones are then a block apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from lmme3dhf.annotations.fixations import left_out_note
from lmme3dhf.baselines.mean_map import NAME as MEAN_MAP
from lmme3dhf.comparison.assembly import (
    NOT_RUN,
    OURS,
    RESAMPLES,
    Found,
    Paper,
    assembled,
    bound_row,
    check_marks,
    column_of,
    direction_notes,
    foreign_row,
    further_columns,
    hidden_columns,
    interval_notes,
    measured_row,
    our_methods,
    paper_columns,
    paper_name,
    predicts,
    printed_table,
    require_accuracy,
    score_columns,
    with_figures,
)
from lmme3dhf.comparison.floors import (
    CEILING,
    FLOOR,
    PERSON,
    floors_of,
    marker_agreement,
    noise_ceiling,
    score_floors,
)
from lmme3dhf.comparison.methods import ComparisonError, Method, level_expectations
from lmme3dhf.comparison.paper import PaperTable
from lmme3dhf.comparison.scoring import (
    FITS,
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
from lmme3dhf.metrics import metrics_of
from lmme3dhf.metrics.vqa import ACCURACIES
from lmme3dhf.reports.tables import Column, Row, Table


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
    printed = printed_table(1, paper)
    if not any(round_.labels.mos for round_ in source.rounds):
        raise ComparisonError(f"{source.data}: no opinion scores in its lists; expected numerical/")

    def scored(by_round: Sequence[Method], missing: bool = False) -> list[Found]:
        return [
            score_figures(method, round_, fit=fit, allow_missing=missing)
            for method, round_ in zip(by_round, source.rounds, strict=True)
        ]

    rows = []
    single = source.rounds[0] if len(source.rounds) == 1 and source.folds is None else None
    if predicts(source, "scores"):
        row = measured_row(OURS, "ours", source, "real", scored(our_methods(source)))
        if single is not None:
            found = score_intervals(single.ours, single, rng, resamples=resamples)
            row = with_figures(row, found, interval_notes(found, single))
        rows.append(row)
        words = [level_expectations(round_.ours.path, source.aspects) for round_ in source.rounds]
        if all(words):
            row = measured_row(words[0].name, "ours", source, "real", scored(words))
            rows.append(replace(row, notes=words[0].notes + row.notes))
    for method in methods:
        if not method.scores:
            raise ComparisonError(
                f"{method.path}: no scores of {method.name}; Table 1 needs quality or authenticity"
            )
        row = foreign_row(
            method, printed, source, scored([method] * len(source.rounds), allow_missing)
        )
        row = replace(row, notes=direction_notes(method, printed, row) + row.notes)
        if single is not None:
            options = {"resamples": resamples, "allow_missing": allow_missing}
            found = score_intervals(method, single, rng, **options)
            notes = interval_notes(found, single)
            if single.ours is not None and single.ours.scores:
                found |= significance(method, single.ours, single, rng, **options)
            row = with_figures(row, found, notes)
        rows.append(row)
    floors = [score_floors(source, round_) for round_ in source.rounds]
    bounds = []
    for kind, method in floors[0]:
        by_round = [m for of_round in floors for _, m in of_round if m.name == method.name]
        if len(by_round) == len(floors):
            bounds.append(bound_row(kind, method, source, scored(by_round)))
    noise = [noise_ceiling(source, round_, rng) for round_ in source.rounds]
    if all(noise):
        found = [(figures, (note,) if single is not None else ()) for figures, note in noise]
        bounds.append(measured_row("raters' noise", CEILING, source, "real", found))
    curve = "raw" if fit == "none" else f"after {fit}"
    columns = score_columns(printed, f"PLCC ({curve})", source.aspects)
    extra = tuple(key for key, metric in metrics_of("scores").items() if not metric.shown)
    extra += ("n", "srcc_signed", "srcc_within", "srcc_between")
    extra += ("srcc_low", "srcc_high", "srcc_difference")
    extra += ("p_bootstrap", "p_williams")
    columns += hidden_columns(f"{d}_{key}" for d in source.aspects for key in extra)
    notes = [
        f"PLCC and RMSE are {curve}; KRCC is tau-b.",
        "An oracle is given a label of the clip that it scores; a ceiling is what the noise of the "
        "labels leaves to be reached.",
    ]
    return assembled(1, source, printed, columns, rows, bounds, notes)


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
    require_accuracy(accuracy)
    printed = printed_table(2, paper)
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
    if predicts(source, "answers"):
        rows.append(measured_row(OURS, "ours", source, "real", answered(our_methods(source))))
    for method in methods:
        if not method.answers:
            raise ComparisonError(
                f"{method.path}: no distortion answers of {method.name}; Table 2 needs a column "
                "distortions or reply"
            )
        rows.append(
            foreign_row(
                method, printed, source, answered([method] * len(source.rounds), allow_missing)
            )
        )
    by_round = zip(*(floors_of("answers", source, r) for r in source.rounds), strict=True)
    bounds = [bound_row(FLOOR, floors[0], source, answered(floors)) for floors in by_round]
    columns = [
        Column(key="accuracy", title=f"Accuracy (%, {accuracy})", decimals=2),
        *(
            column_of(metric, key)
            for key, metric in metrics_of("answers").items()
            if key != accuracy and metric.shown
        ),
        *hidden_columns([accuracy, "micro_f1", "unparsed", "n"]),
    ]
    notes = [
        f"Accuracy is {accuracy}: {ACCURACIES[accuracy]}.",
        "Top-1 looks at the first category of an answer: the most likely one where it comes from "
        "likelihoods, else the first as the method gives them (ours: in vocabulary order).",
    ]
    return assembled(2, source, printed, columns, rows, bounds, notes)


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
    printed = printed_table(3, paper)
    wanted = [(OURS, None)] if predicts(source, "maps") else []
    for method in methods:
        if not method.maps:
            raise ComparisonError(
                f"{method.path}: no maps of {method.name}; Table 3 needs a folder of VIDEO.png"
            )
        wanted.append((method.name, method))
    found: dict[str, list[Found]] = {}
    floor_notes: dict[str, Notes] = {}
    people = []
    for round_ in source.rounds:
        sources: dict[str, MapSource] = {}
        counts, lacking = {}, {}
        for name, method in wanted:
            maps = maps_of(
                method or round_.ours,
                source.looked_at(round_)[0],
                allow_missing=bool(method and allow_missing),
            )
            sources[name], counts[name], lacking[name] = maps
        floors = {floor.name: floor for floor in floors_of("maps", source, round_)}
        floor_notes |= {name: floor.notes for name, floor in floors.items()}
        sources |= _floor_maps(floors, round_)
        scores = map_figures(sources, source, round_, preset=preset, baseline=_gain(floors))
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
        measured_row(name, "ours", source, "real", found[name])
        if method is None
        else foreign_row(method, printed, source, found[name])
        for name, method in wanted
    ]
    bounds = []
    for name, notes in floor_notes.items():
        row = measured_row(
            name, FLOOR, source, "real", [(f, ()) for f, _ in found[f"{FLOOR} {name}"]]
        )
        bounds.append(replace(row, notes=notes, ranked=False))
    if all(people):
        of_rounds = [(f, (note,) if len(people) == 1 else ()) for f, note in people]
        bounds.append(measured_row("marker against marker", PERSON, source, "real", of_rounds))
    columns = [
        *paper_columns(printed),
        *further_columns(printed, "maps"),
        *hidden_columns(_MAP_EXTRA),
    ]
    notes = [*_map_notes(source, preset, found)]
    return assembled(3, source, printed, columns, rows, bounds, notes)


_MAP_EXTRA = ("auc_judd", "auc_borji", "auc_shuffled", "ig", "n", "skipped", "incomplete")


def _floor_maps(floors: Mapping[str, Method], round_: Round) -> dict[str, MapSource]:
    everything = frozenset(round_.labels.videos)
    return {
        f"{FLOOR} {name}": MapSource(videos=everything, read=floor.map_of)
        for name, floor in floors.items()
    }


def _gain(floors: Mapping[str, Method]) -> Callable[[tuple[int, int]], np.ndarray] | None:
    """The map that information is gained over: the mean training map."""
    return partial(floors[MEAN_MAP].map_of, "") if MEAN_MAP in floors else None


def _map_notes(source: Source, preset: str, found: Mapping[str, list[Found]]) -> list[str]:
    figures = [of_round for of_round, _ in found[f"{FLOOR} uniform map"]]
    used, skipped = (sum(f[key] for f in figures) for key in ("n", "skipped"))
    tested = sum(len(round_.labels.videos) for round_ in source.rounds)
    absent = [video for round_ in source.rounds for video in source.looked_at(round_)[1]]
    fixations = "the marked points"
    if source.points is None or preset == "lmme3dhf-repo":
        fixations = "the pixels of at least .95 of the ground-truth map (the released rule)"
    return [
        f"Preset {preset}; fixations are {fixations}; AUC is Mann-Whitney's, those of Judd, Borji "
        "and with other clips' fixations (shuffled) are in the CSV.",
        f"{used} test videos have marks; {skipped} without any are skipped for every method.",
        *(f"{line}." for line in left_out_note(absent, tested)),
    ]


def table4(source: Source, *, paper: Paper | None = None, preset: str = "mit") -> Table:
    """The ablation of the saliency decoder (Table 4), from the run's ablations.

    Args:
        source: A run, without folds.
        paper: The printed tables; None for the repository's file.
        preset: As in `table3`.
    """
    round_, ablations = _only_round(source)
    printed = printed_table(4, paper)
    chosen = _chosen(4, printed, ablations, round_)
    own = [a for a in ablations if a.table == 0 and not a.leaking and a.method and a.method.maps]
    sources, notes = {}, {}
    for ablation in (*chosen.values(), *own):
        if ablation.method is not None and ablation.method.maps:
            maps, _, lacking = maps_of(ablation.method, source.looked_at(round_)[0])
            sources[_key(ablation)], notes[_key(ablation)] = maps, lacking
    floors = {floor.name: floor for floor in floors_of("maps", source, round_)}
    sources |= _floor_maps(floors, round_)
    scores = map_figures(sources, source, round_, preset=preset, baseline=_gain(floors))
    found = {key: [(figures, notes.get(key, ()))] for key, figures in scores.items()}
    bounds = [
        bound_row(FLOOR, floor, source, found[f"{FLOOR} {name}"]) for name, floor in floors.items()
    ]
    columns = [
        *paper_columns(printed),
        *further_columns(printed, "maps"),
        *hidden_columns(_MAP_EXTRA),
    ]
    rows = _ablation_rows(printed, chosen, source, found)
    own_rows = [_own_row(ablation, source, found) for ablation in own]
    about = _map_notes(source, preset, found) + ([] if ablations else [_NO_ABLATIONS])
    return assembled(4, source, printed, columns, rows, bounds, about, own_rows)


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
    require_accuracy(accuracy)
    round_, ablations = _only_round(source)
    printed = printed_table(5, paper)
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
        bounds.append(bound_row(kind, method, source, [score_figures(method, round_, fit=fit)]))
    for floor in floors_of("answers", source, round_):
        figures, notes = answer_figures(floor, round_)
        figures["accuracy"] = figures[accuracy]
        bounds.append(bound_row(FLOOR, floor, source, [(figures, notes)]))
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
        *score_columns(printed, f"PLCC ({curve})", source.aspects, f"Accuracy (%, {accuracy})"),
        *hidden_columns(["jaccard", "exact", "top1", "macro_f1", "unparsed"]),
    ]
    rows = _ablation_rows(printed, chosen, source, found)
    own_rows = [_own_row(ablation, source, found) for ablation in own]
    notes = [
        f"PLCC is {curve}; accuracy is {accuracy}: {ACCURACIES[accuracy]}.",
        *_inflation(source, chosen, own, found),
        *([] if ablations else [_NO_ABLATIONS]),
    ]
    return assembled(5, source, printed, columns, rows, bounds, notes, own_rows)


def _inflation(
    source: Source,
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
            f"{aspect} SRCC {leaking[key]:.3f} where row (5) has {honest[key]:.3f} "
            f"({leaking[key] - honest[key]:+.3f})"
            for aspect in source.aspects
            if (key := f"{aspect}_srcc") in leaking and key in honest
        ]
        sentences.append(
            f"{ablation.title}: it is given the label of the video that it scores and reaches "
            f"{' and '.join(parts)}; it is no metric and is not ranked."
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
    return source.rounds[0], read_ablations(source.root, source.aspects)


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
        marks = check_marks(row.marks, row.marks)
        if ablation is None or _key(ablation) not in found:
            if source.smoke:  # elsewhere the printed row stands for it
                rows.append(Row(name=paper_name(row), status=NOT_RUN, cells=marks))
            continue
        made = measured_row(paper_name(row), "", source, "real", found[_key(ablation)])
        notes = (ablation.note,) if ablation.note else ()
        rows.append(replace(made, cells={**marks, **made.cells}, notes=notes + made.notes))
    return rows


def _own_row(ablation: Ablation, source: Source, found: Mapping[str, list[Found]]) -> Row:
    notes = (ablation.note,) if ablation.note else ()
    marks = check_marks(ablation.marks) if ablation.marks else {}
    if _key(ablation) not in found:
        return Row(name=ablation.title, status=NOT_RUN, notes=notes, ranked=False)
    made = measured_row(ablation.title, "", source, "real", found[_key(ablation)])
    if ablation.leaking:
        made = replace(made, name=f"LEAKING: {made.name}", ranked=False)
    return replace(made, cells={**marks, **made.cells}, notes=notes + made.notes)
