"""What each figure of a run shows, and the numbers behind it (paper, Section 5): one function a
figure, from predictions and labels to a picture and rows.

Every function takes the path of the PNG and what it draws from, and returns the caption and the
tables. Where something is missing it raises ComparisonError, which says what it would need.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from lmme3dhf.annotations.fixations import left_out_note, read_saliency
from lmme3dhf.baselines.mean_map import mean_map
from lmme3dhf.comparison.assembly import OURS
from lmme3dhf.comparison.floors import setting_of
from lmme3dhf.comparison.methods import ComparisonError, Method, covered, read_map
from lmme3dhf.comparison.scoring import (
    MapSource,
    answer_figures,
    map_figures,
    maps_of,
    paired,
    score_figures,
)
from lmme3dhf.comparison.sources import Ablation, Round, Source, read_ablations, read_source
from lmme3dhf.data.generator_statistics import per_generator
from lmme3dhf.data.marks import STRIP_FOLDER, read_picture, strip_path
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator, latent
from lmme3dhf.data.statistics import by_generator
from lmme3dhf.metrics.correlation import apply_fit, correlations, fitted, within_between
from lmme3dhf.metrics.levels import level_scores
from lmme3dhf.metrics.significance import bootstrap_intervals
from lmme3dhf.metrics.vqa import DistortionScores, distortion_scores
from lmme3dhf.predictions import read_predictions
from lmme3dhf.reports import plots
from lmme3dhf.vocabulary import DISTORTIONS

STAGES = {
    "stage1": "stage 1, levels and distortions",
    "stage2": "stage 2, scores",
    "stage3": "stage 3, saliency",
}
CURVE, SEED = "logistic4", 0
BAND_RESAMPLES, BAND_POINTS = 100, 60  # a fit takes 30 ms
FACES_EACH = 2  # in Fig. 9, of a generator where there are at most five of them, else one
# Axis of the radar, beside the correlations of each aspect -> the figure of `scoring` behind it,
# and what turns it into 0..1.
RADAR = {
    "level\naccuracy": ("level_accuracy", 1),
    "distortions\nmean Jaccard": ("jaccard", 0.01),
    "saliency CC": ("cc", 1),
    "saliency AUC\n(chance 0.5)": ("auc", 1),
    "saliency SIM": ("sim", 1),
}
FOLD_PANELS = {"distortions Jaccard": ("jaccard", 0.01), "saliency CC": ("cc", 1)}


def _of_aspects(
    source: Source, between: str, metrics: Sequence[str] = ("srcc", "plcc")
) -> dict[str, tuple[str, float]]:
    """Title -> figure and unit of each aspect's correlations."""
    return {
        f"{aspect}{between}{metric.upper()}": (f"{aspect}_{metric}", 1)
        for aspect in source.aspects
        for metric in metrics
    }


Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a figure leaves besides its picture.

    Attributes:
        caption: Of the picture.
        tables: End of the CSV's name, empty for the picture's own -> rows.
    """

    caption: str
    tables: dict[str, Rows]


def corner(source: Source) -> str:
    """What stands in the corner of every picture whose numbers are no results; else empty."""
    return f"smoke: {source.smoke}" if source.smoke else ""


def methods_side_by_side(path: Path, source: Source, methods: Sequence[Method]) -> Drawn:
    """Fig. 8: strips with the marked map, that of each method, and the mean training map.

    A test video for each category and a clean one: the first by name that has the category and is
    not shown for another.
    """
    drawn = [method for method in methods if method.maps]
    if not drawn:
        raise ComparisonError("no method has saliency maps; predict them, or give a folder of them")
    videos, unmarked = source.looked_at(source.rounds[0])
    labels = source.rounds[0].labels.distortions
    labels = {video: labels[video] for video in videos if video in labels}
    chosen: dict[str, str] = {}
    for category in DISTORTIONS:
        fitting = (v for v in sorted(labels) if category in labels[v] and v not in chosen)
        video = next(fitting, None)
        if video is not None:
            chosen[video] = category
    if not chosen:
        raise ComparisonError("no labels of distortions, by which the strips are chosen")
    mean = mean_map(setting_of(source, source.rounds[0]))
    rows, table, above = [], [], False
    for video, category in chosen.items():
        truth_HW = read_saliency(source.maps, video)
        maps = [("marked", truth_HW)]
        for method in drawn:
            file = method.maps.get(video)
            map_HW = None if file is None else read_map(file, truth_HW.shape)[0]
            maps.append((method.name, map_HW))
        if mean is not None:
            maps.append(("mean training map", mean.map_of("", truth_HW.shape)))
        for title, map_HW in maps:
            table.append(_map_row(video, category, title, map_HW))
            above |= map_HW is not None and map_HW.max() > 1
        shown = [None if map_HW is None else np.clip(map_HW, 0, 1) for _, map_HW in maps]
        rows.append((f"{video}\n" + "\n".join(wrap(category, 18)), _strip(source, video), shown))
    plots.method_maps(path, [title for title, _ in maps], rows, corner(source))
    absent = [category for category in DISTORTIONS if category not in chosen.values()]
    caption = (
        "A test video for each distortion category and a clean one: the first by name that has the "
        "category and is not shown for another; nobody's success is looked at. Maps are drawn as "
        "they are, none is stretched, and one scale holds for all."
    )
    if absent:
        caption += f" No further test video has {', '.join(absent)}."
    if above:
        caption += " Values above 1 are drawn as 1."
    caption += "".join(f" {line}." for line in left_out_note(unmarked, len(videos + unmarked)))
    return Drawn(caption=caption, tables={"": table})


def faces_of_generators(path: Path, source: Source) -> Drawn:
    """Fig. 9: strip, marked and predicted map for test videos of every generator."""
    ours = source.rounds[0].ours
    marked, unmarked = source.looked_at(source.rounds[0])
    videos = [video for video in marked if video in ours.maps]
    if not videos:
        raise ComparisonError(f"{ours.path}: no saliency maps; predict again with --maps true")
    groups = by_generator(videos)
    each = FACES_EACH if len(groups) <= 5 else 1
    rows, table = [], []
    for place, (group, members) in enumerate(groups.items()):
        # Other faces for each generator: by name alone, the same latent would come every time.
        for video in np.roll(sorted(members), -each * place)[:each].tolist():
            truth_HW = read_saliency(source.maps, video)
            map_HW, _ = read_map(ours.maps[video], truth_HW.shape)
            rows.append((f"generator {group}\n{video}", _strip(source, video), truth_HW, map_HW))
            for title, one_HW in (("marked", truth_HW), ("predicted", map_HW)):
                table.append({"generator": group, **_map_row(video, None, title, one_HW)})
    plots.saliency_overlays(path, rows, corner(source))
    caption = (
        "Test videos by name, the next ones for each generator so that faces differ; nobody's "
        "success is looked at. Maps are drawn as they are, none is stretched. A generator's number "
        "is its videos' number divided by 200."
    )
    caption += "".join(f" {line}." for line in left_out_note(unmarked, len(marked + unmarked)))
    return Drawn(caption=caption, tables={"": table})


def _map_row(video: str, category: str | None, title: str, map_HW: np.ndarray | None) -> dict:
    row = {"video": video} | ({} if category is None else {"category": category}) | {"map": title}
    values = {"peak": None, "mean": None}
    if map_HW is not None:
        values = {"peak": float(map_HW.max()), "mean": float(map_HW.mean(dtype=float))}
    return row | values


def _strip(source: Source, video: str) -> np.ndarray:
    folder = source.data / STRIP_FOLDER
    path = strip_path(folder, video)
    if path is None:
        raise ComparisonError(f"{folder}: no strip of {video}; make the labels again")
    return read_picture(path)


def scatter(path: Path, source: Source, method: Method) -> Drawn:
    """Scores of one method against opinion scores, with the fitted curve and its band."""
    round_ = source.rounds[0]
    dimensions = _scored(method, round_)
    if not dimensions:
        raise ComparisonError(f"{method.path}: no scores of {method.name}")
    rng = np.random.default_rng(SEED)
    predicted, mos, notes, groups, curves, said = {}, {}, {}, {}, {}, []
    points: Rows = []
    for dimension in dimensions:
        videos, x_N, y_N, lacking = paired(method, round_, dimension, allow_missing=True)
        faces_N, generators_N = _numbers(videos, latent), _numbers(videos, generator)
        predicted[dimension], mos[dimension] = x_N, y_N
        notes[dimension] = _with_intervals(x_N, y_N, faces_N, rng)
        curves[dimension], note = _fitted_curve(x_N, y_N, faces_N, rng)
        said += [f" {dimension}: {one}." for one in (*lacking, note) if one]
        names = [None] * len(videos) if generators_N is None else generators_N.astype(str).tolist()
        groups |= {} if generators_N is None else {dimension: names}
        keys = ("video", "generator", "predicted", "mos")
        for values in zip(videos, names, x_N.tolist(), y_N.tolist(), strict=True):
            points.append({"dimension": dimension, **dict(zip(keys, values, strict=True))})
    # Ours live on the scale of the opinion scores; of foreign scores nobody knows.
    plots.score_scatter(
        path,
        predicted,
        mos,
        notes,
        groups=groups if len(groups) == len(dimensions) else None,
        group_name="generator",
        curves=curves,
        same_scale=method.status == "real",
        note=corner(source),
        scales={name: aspect.scale for name, aspect in source.aspects.items()},
    )
    units = "faces" if groups else "videos"
    caption = (
        f"Test videos{' by generator' if groups else ''}, as {method.name} scores them"
        f"{' (turned, as lower is better)' if method.lower_is_better else ''}. Curve: logistic "
        "function of four parameters, fitted to these points; band: the middle 95 % of the curves "
        f"of {BAND_RESAMPLES} resamples of the {units}. Correlations are raw, their intervals 95 % "
        f"bootstrap intervals over {units}." + "".join(said)
    )
    lines = [
        {"dimension": dimension, **point} for dimension, curve in curves.items() for point in curve
    ]
    return Drawn(caption=caption, tables={"": points, "_curve": lines})


def _scored(method: Method, round_: Round) -> list[str]:
    return [a for a in round_.labels.aspects if a in method.scores and a in round_.labels.mos]


def _numbers(videos: Sequence[str], of: Callable[[str], int]) -> np.ndarray | None:
    """The generator or the face of each video; None where the names do not hold them."""
    try:
        return np.array([of(video) for video in videos])
    except DataError:
        return None


def _with_intervals(
    x_N: np.ndarray, y_N: np.ndarray, faces_N: np.ndarray | None, rng: np.random.Generator
) -> str:
    found = correlations(x_N, y_N)
    if np.isnan(found.srcc):
        return "correlation undefined"
    intervals = bootstrap_intervals(x_N, y_N, rng, groups_N=faces_N)
    return "\n".join(
        f"{key.upper()} {getattr(found, key):.3f} "
        f"({intervals[key].low:.3f} to {intervals[key].high:.3f})"
        for key in ("srcc", "plcc")
    )


def _fitted_curve(
    x_N: np.ndarray, y_N: np.ndarray, faces_N: np.ndarray | None, rng: np.random.Generator
) -> tuple[Rows, str]:
    """Points of the curve with the band of the resampled curves, and what the fit says."""
    fit = fitted(x_N, y_N, CURVE)
    grid = np.linspace(x_N.min(), x_N.max(), BAND_POINTS)
    curve = np.asarray(apply_fit(fit, grid))
    units = np.arange(len(x_N)) if faces_N is None else faces_N
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    curves = []
    for _ in range(BAND_RESAMPLES):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        again = np.asarray(apply_fit(fitted(x_N[drawn], y_N[drawn], CURVE), grid))
        if np.isfinite(again).all():
            curves.append(again)
    low, high = np.full((2, BAND_POINTS), np.nan)
    if len(curves) > BAND_RESAMPLES / 2:
        low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    rows = [
        {"predicted": x, "fitted": y, "low": lower, "high": upper}
        for x, y, lower, upper in zip(
            *map(np.ndarray.tolist, (grid, curve, low, high)), strict=True
        )
    ]
    return rows, (fit.note or "").rstrip(".")


def generators(path: Path, source: Source) -> Drawn:
    """Mean predicted score of each generator against its mean opinion score: how much of a score is
    the generator's identity.
    """
    round_ = source.rounds[0]
    ours = round_.ours
    rows, notes, table = {}, {}, []
    for dimension in _scored(ours, round_):
        videos, x_N, y_N, _ = paired(ours, round_, dimension, allow_missing=False)
        found = within_between(x_N, y_N, np.array([generator(video) for video in videos]))
        notes[dimension] = (
            f"SRCC within {found.within.srcc:.3f}, between {found.between.srcc:.3f}\n"
            f"explained by generator: MOS {found.explained_mos:.0%}, "
            f"prediction {found.explained_predicted:.0%}"
        ).replace("nan%", "undefined")
        true_rows, said_rows = (
            per_generator({"score": dict(zip(videos, values_N.tolist(), strict=True))})
            for values_N in (y_N, x_N)
        )
        rows[dimension] = [
            {"generator": true["generator"], "mos": true["score"], "predicted": said["score"]}
            for true, said in zip(true_rows, said_rows, strict=True)
        ]
        for row in rows[dimension]:
            flat = {
                f"{what}_{key}": row[what][key]
                for what in ("mos", "predicted")
                for key in ("mean", "low", "high")
            }
            count = {"generator": row["generator"], "videos": row["mos"]["n"]}
            table.append({"dimension": dimension, **count, **flat})
    if not rows:
        raise ComparisonError(f"{ours.path}: no scores of {ours.name}")
    scales = {name: aspect.scale for name, aspect in source.aspects.items()}
    plots.generator_means(path, rows, notes, corner(source), scales)
    caption = (
        "Means over the test videos of each generator with their 95 % intervals (Student's t). "
        "SRCC within: mean of the generators' own, weighted by their videos; between: of these "
        "means. Explained: share of the variance that lies between generators (eta squared)."
    )
    return Drawn(caption=caption, tables={"": table})


def methods_at_a_glance(path: Path, source: Source, methods: Sequence[Method]) -> Drawn:
    """The radar: every measure in 0..1 of every method that has it."""
    round_ = source.rounds[0]
    found, said = _figures_of(source, round_, {method.name: method for method in methods})
    found[round_.ours.name]["level_accuracy"] = _level_accuracy(round_)
    axes = _of_aspects(source, "\n", ("srcc", "plcc", "krcc")) | RADAR
    values = {
        name: [figures.get(key, np.nan) * unit for key, unit in axes.values()]
        for name, figures in found.items()
    }
    plots.radar(path, list(axes), values, corner(source))
    caption = (
        "Every axis goes from 0 in the centre to 1 at the rim; a value below 0 is drawn in the "
        "centre, a method has no point where it says nothing. KLD has no upper end and is not here."
    )
    names = [name.replace("\n", " ") for name in axes]
    table = [
        {"measure": name, **{method: row[index] for method, row in values.items()}}
        for index, name in enumerate(names)
    ]
    return Drawn(caption=" ".join([caption, *said]), tables={"": table})


def _figures_of(
    source: Source, round_: Round, methods: Mapping[str, Method]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Key -> every figure of a method on one test; and sentences on videos that it lacks, and on
    what could not be had although it says something about it.
    """
    found: dict[str, dict[str, float]] = {key: {} for key in methods}
    maps: dict[str, MapSource] = {}
    notes = []
    marked, unmarked = source.looked_at(round_)
    for key, method in methods.items():
        kinds: dict[str, Callable[[], tuple]] = {}
        if method.scores and round_.labels.mos:
            kinds["scores"] = partial(score_figures, method, round_, allow_missing=True)
        if method.answers and round_.labels.distortions:
            kinds["answers"] = partial(answer_figures, method, round_, allow_missing=True)
        if method.maps:
            kinds["maps"] = partial(maps_of, method, marked, allow_missing=True)
        for kind, get in kinds.items():
            try:
                got, *_, said = get()
            except ComparisonError as error:
                notes.append(f"Without the {kind} of {method.name}: {error}.")
                continue
            notes += [f"{method.name}, {kind}: {note}." for note in said]
            if kind == "maps":
                maps[key] = got
            else:
                found[key] |= got
    if maps:
        try:
            for key, figures in map_figures(maps, source, round_).items():
                found[key] |= figures
            notes += [f"{line}." for line in left_out_note(unmarked, len(marked + unmarked))]
        except ComparisonError as error:
            notes.append(f"Without saliency: {error}.")
    return found, notes


def _level_accuracy(round_: Round) -> float:
    """Share of all aspects' levels that our words name rightly, NaN where there are none."""
    found = [level_scores(*_levels(round_, aspect)) for aspect in round_.labels.levels]
    right, n = (sum(np.trace(f.confusion) for f in found), sum(f.n for f in found))
    return float(right / n) if n else np.nan


def _levels(round_: Round, dimension: str) -> tuple[list[str | None], list[str], tuple[str, ...]]:
    """Our level words, the true ones, and all words of an aspect."""
    records = read_predictions(round_.ours.path)
    said = {record.video: record.level for record in records if record.dimension == dimension}
    truth = round_.labels.levels[dimension]
    levels = round_.labels.aspects[dimension].scale.levels
    return [said.get(video) for video in truth], list(truth.values()), levels


def confused_levels(path: Path, source: Source) -> Drawn:
    """The levels against our answers, a panel an aspect."""
    panels, table = [], []
    for dimension in source.rounds[0].labels.levels:
        said, truth, levels = _levels(source.rounds[0], dimension)
        found = level_scores(said, truth, levels)
        columns = [*levels, "no level"]
        title = f"{dimension}: accuracy {found.accuracy:.1%}, within one {found.within_one:.1%}"
        panels.append((title, levels, columns, found.confusion))
        for level, counts in zip(levels, np.asarray(found.confusion).tolist(), strict=True):
            row = dict(zip(columns, counts, strict=True))
            table.append({"dimension": dimension, "true": level, **row})
    if not panels:
        raise ComparisonError("the lists of the test part have no levels")
    plots.confusion_matrices(path, panels, corner(source))
    caption = (
        "Videos of each true level (rows) by the level that the model's words name (columns); "
        "colour: the share of the row."
    )
    return Drawn(caption=caption, tables={"": table})


def _our_answers(source: Source) -> DistortionScores:
    round_ = source.rounds[0]
    truth = round_.labels.distortions
    if not truth:
        raise ComparisonError(f"{source.data}: no labels of distortions")
    videos, _ = covered(truth, round_.ours.answers, round_.ours, "distortion answer")
    answers = [round_.ours.answers[video] for video in videos]
    return distortion_scores(answers, [truth[video] for video in videos], DISTORTIONS)


def confused_distortions(path: Path, source: Source) -> Drawn:
    """Which categories are named where another one is true."""
    found = _our_answers(source)
    columns = [*DISTORTIONS, "nothing"]
    counts = np.asarray(found.confusion).tolist()
    title = f"{found.n} test videos, mean Jaccard {found.jaccard:.1%}, exact {found.exact:.1%}"
    panels = [(title, DISTORTIONS, columns, counts)]
    plots.confusion_matrices(path, panels, corner(source), size=(9.3, 5.0))
    caption = (
        "A true category (rows) that is named counts on the diagonal; one that is missed counts, "
        "in equal shares, with the categories that are wrongly named for its video, or as nothing "
        "where there are none. Wrong ones beside a complete answer show in the precision only."
    )
    table = [
        {"true": category, **dict(zip(columns, row, strict=True))}
        for category, row in zip(DISTORTIONS, counts, strict=True)
    ]
    return Drawn(caption=caption, tables={"": table})


def categories(path: Path, source: Source) -> Drawn:
    """Precision, recall and F1 of each category."""
    found = _our_answers(source)
    scores = {"precision": found.precision, "recall": found.recall, "F1": found.f1}
    plots.category_scores(path, scores, found.support, corner(source))
    caption = (
        "Of our distortion answers; in brackets the test videos with the category. Precision is "
        "undefined for a category that is never named, recall for one that no test video has."
    )
    table = [
        {
            "category": name,
            "support": found.support[name],
            **{m: s[name] for m, s in scores.items()},
        }
        for name in DISTORTIONS
    ]
    return Drawn(caption=caption, tables={"": table})


def training_curves(path: Path, source: Source) -> Drawn:
    """Loss and learning rate of each stage, from `RUN/stageN/losses.jsonl`, and what
    `validation.jsonl` beside it holds.
    """
    curves, rates, table = {}, {}, []
    validation, measured = {}, []
    for stage, title in STAGES.items():
        file = source.root / stage / "losses.jsonl"
        if not file.is_file():
            continue
        try:
            entries = [json.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
            curves[title] = [(int(e["step"]), float(e["loss"])) for e in entries]
            rates[title] = [
                (int(e["step"]), float(e["learning_rate"])) for e in entries if "learning_rate" in e
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ComparisonError(
                f"{file}: not the losses of a stage ({type(error).__name__}: {error})"
            ) from error
        for entry in entries:
            row = {key: entry.get(key) for key in ("step", "loss", "learning_rate")}
            table.append({"stage": stage, **row})
        rows = _validations(file.with_name("validation.jsonl"))
        measured += [{"stage": stage, **row} for row in rows]
        validation[title] = [
            (row["step"], row["value"]) for row in rows if row["measure"] == "loss"
        ]
    curves = {title: curve for title, curve in curves.items() if curve}
    if not curves:
        raise ComparisonError(f"{source.root}: no {', '.join(f'{s}/losses.jsonl' for s in STAGES)}")
    srcc = {
        dimension: [
            (row["step"], row["value"]) for row in measured if row["measure"] == f"srcc_{dimension}"
        ]
        for dimension in source.aspects
    }
    srcc = {dimension: points for dimension, points in srcc.items() if points}
    plots.loss_curves(path, curves, rates, corner(source), validation, srcc)
    caption = (
        "Each logged step (grey) and the running mean over a twentieth of them; the stages have "
        "different losses, on axes of their own. Dashed: the learning rate."
    )
    if not measured:
        return Drawn(caption=caption, tables={"": table})
    caption += " Green: the loss on the validation part, which no stage is trained on"
    caption += "; its SRCC beside." if srcc else "."
    return Drawn(caption=caption, tables={"": table, "_validation": measured})


def _validations(file: Path) -> Rows:
    """Step, measure and value of each validation that is defined; none without the file."""
    if not file.is_file():
        return []
    try:
        entries = [json.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
        return [
            {"step": int(entry["step"]), "measure": name, "value": float(value)}
            for entry in entries
            for name, value in entry.items()
            if name not in ("step", "epoch", "selected") and value is not None
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ComparisonError(
            f"{file}: not the validations of a stage ({type(error).__name__}: {error})"
        ) from error


def saliency_ablations(path: Path, source: Source) -> Drawn:
    """Table 4 as bars."""
    metrics = {"auc": "AUC", "nss": "NSS", "cc": "CC", "sim": "SIM", "kld": "KLD (lower: better)"}
    return _ablations(path, source, 4, {key: (key, title, 1) for key, title in metrics.items()})


def score_ablations(path: Path, source: Source) -> Drawn:
    """Table 5 as bars."""
    metrics = {f: (f, title, unit) for title, (f, unit) in _of_aspects(source, "\n").items()}
    metrics["jaccard"] = ("jaccard", "distortions\nmean Jaccard", 0.01)
    return _ablations(path, source, 5, metrics)


_WHOLE = {4: "4", 5: "5"}  # table -> its row of the whole model


def _ablations(
    path: Path, source: Source, number: int, metrics: Mapping[str, tuple[str, str, float]]
) -> Drawn:
    """The rows of one table, and of our own that have its figures, in the order of the file."""
    known = [row for row in read_ablations(source.root, source.aspects) if row.table in (0, number)]
    if not known:
        raise ComparisonError(
            f"{source.root}: no ablations of Table {number} (ablations/rows.json); `lmme3dhf "
            "evaluate ablations` runs them"
        )
    whole = _WHOLE[number]
    if all((row.table, row.number) != (number, whole) for row in known):
        ours = source.rounds[0].ours
        known.append(
            Ablation(
                table=number,
                number=whole,
                title=OURS,
                marks={},
                leaking=False,
                method=ours,
                note="the run itself",
            )
        )
    known.sort(key=lambda row: (row.table == 0, row.number))
    named = [(f"({row.number}) {row.title}" if row.number else row.title, row) for row in known]
    ran = {str(place): row.method for place, row in enumerate(known) if row.method is not None}
    found, said = _figures_of(source, source.rounds[0], ran)
    table, rows = [], []
    for place, (name, row) in enumerate(named):
        if row.method is None:
            said.append(f"{name} has not run.")
            continue
        figures = found[str(place)]
        values = {key: figures.get(f, np.nan) * unit for key, (f, _, unit) in metrics.items()}
        if row.table == 0 and np.isnan(list(values.values())).all():
            continue
        rows.append((name + (" (sees test labels)" if row.leaking else ""), row.leaking))
        of_table = row.table or "our own"
        table.append({"table": of_table, "row": name, "leaking": row.leaking, **values})
    if not rows:
        raise ComparisonError(f"none of the ablations of Table {number} has run")
    panels = {title: [row[key] for row in table] for key, (_, title, _) in metrics.items()}
    plots.metric_bars(path, rows, panels, corner(source))
    caption = f"Rows of Table {number} by their number in the paper, then rows of our own."
    if any(leaking for _, leaking in rows):
        caption += " Hatched: given the labels of the test videos, no result."
    return Drawn(caption=" ".join([caption, *said]), tables={"": table})


def folds(path: Path, source: Source, protocol: str) -> Drawn:
    """Each fold's figures, with mean and deviation."""
    if not (source.root / "crossval" / protocol).is_dir():
        raise ComparisonError(
            f"{source.root}: no crossval/{protocol}; `lmme3dhf evaluate crossval --folds "
            f"{protocol}` runs it"
        )
    found = read_source(source.root, source.data, folds=protocol)
    measures = _of_aspects(found, " ") | FOLD_PANELS
    table, said = [], []
    for round_ in found.rounds:
        of_fold, notes = _figures_of(found, round_, {"": round_.ours})
        figures = of_fold[""]
        said += [f"{round_.name}: {note}" for note in notes]
        values = {title: figures.get(f, np.nan) * unit for title, (f, unit) in measures.items()}
        table.append({"fold": round_.name, "videos": len(round_.labels.videos), **values})
    panels = {title: [row[title] for row in table] for title in measures}
    plots.fold_dots(path, [row["fold"] for row in table], panels, corner(source))
    caption = (
        f"{len(found.rounds)} of {found.planned} folds are finished. Line and grey: mean and one "
        "deviation (n - 1) on both sides."
    )
    return Drawn(caption=" ".join([caption, *said]), tables={"": table})
