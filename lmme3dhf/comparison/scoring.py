"""Figures of one method on one test: scores, distortion answers, maps (paper, Section 5.1).

Every figure is in the units of its table: correlations in -1..1, accuracies in percent.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lmme3dhf.annotations.fixations import fixation_map, read_saliency
from lmme3dhf.comparison.methods import ComparisonError, Method, covered, read_map
from lmme3dhf.comparison.sources import Round, Source
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator, latent
from lmme3dhf.metrics import measured, metrics_of
from lmme3dhf.metrics.correlation import correlations, fitted, within_between
from lmme3dhf.metrics.saliency import (
    PRESETS,
    fixations_from_density,
    mean_scores,
    prepare_released,
    saliency_scores,
)
from lmme3dhf.metrics.significance import bootstrap_intervals, compare
from lmme3dhf.progress import with_progress

FITS = ("none", "logistic4", "logistic5")

Figures = dict[str, float]
Notes = tuple[str, ...]


def oriented(method: Method, scores: Mapping[str, float]) -> dict[str, float]:
    """The scores with higher meaning better."""
    sign = -1.0 if method.lower_is_better else 1.0
    return {video: sign * score for video, score in scores.items()}


def paired(
    method: Method, round_: Round, dimension: str, *, allow_missing: bool
) -> tuple[list[str], np.ndarray, np.ndarray, Notes]:
    """The videos of a test that a method has a score for, its oriented scores, their opinion
    scores, and a note on those that it lacks.
    """
    truth = round_.labels.mos[dimension]
    scores = oriented(method, method.scores[dimension])
    videos, notes = covered(
        truth, scores, method, f"{dimension} score", allow_missing=allow_missing
    )
    predicted_N = np.array([scores[video] for video in videos])
    return videos, predicted_N, np.array([truth[video] for video in videos]), notes


def score_figures(
    method: Method, round_: Round, *, fit: str = "none", allow_missing: bool = False
) -> tuple[Figures, Notes]:
    """Correlations of a method's scores with the opinion scores, for each aspect it has:
    `quality_srcc` and so on by `METRICS`, `_n`, SRCC within and between generators,
    and `_srcc_signed`, that of the scores as they were given.

    Args:
        method: Its scores are turned where lower is better.
        round_: The test.
        fit: The curve through which scores go before PLCC and RMSE; one of `FITS`. PLCC keeps the
            sign of the raw one, so that a curve cannot turn a method round.
        allow_missing: See `covered`.
    """
    figures: Figures = {}
    notes: list[str] = []
    for dimension in round_.labels.aspects:
        if dimension not in method.scores or dimension not in round_.labels.mos:
            continue
        videos, predicted_N, mos_N, lacking = paired(
            method, round_, dimension, allow_missing=allow_missing
        )
        notes += lacking
        found = correlations(predicted_N, mos_N)
        figures |= {
            f"{dimension}_{key}": value
            for key, value in measured("scores", predicted_N, mos_N).items()
        }
        if found.reason:
            notes.append(f"{dimension}: {found.reason}")
        elif fit != "none":
            curve = fitted(predicted_N, mos_N, fit)
            figures[f"{dimension}_plcc"] = float(np.copysign(curve.plcc, found.plcc))
            figures[f"{dimension}_rmse"] = curve.rmse
            notes += [f"{dimension}: {curve.note}"] if curve.note else []
        figures[f"{dimension}_n"] = found.n
        sign = -1.0 if method.lower_is_better else 1.0
        figures[f"{dimension}_srcc_signed"] = sign * found.srcc
        groups = _numbers(videos, generator)
        if groups is not None:
            grouped = within_between(predicted_N, mos_N, groups)
            figures[f"{dimension}_srcc_within"] = grouped.within.srcc
            figures[f"{dimension}_srcc_between"] = grouped.between.srcc
    return figures, tuple(dict.fromkeys(notes))


def _numbers(videos: list[str], of: Callable[[str], int]) -> np.ndarray | None:
    """The generator or the latent of each video; None where the names do not hold them."""
    try:
        return np.array([of(video) for video in videos])
    except DataError:
        return None


def score_intervals(
    method: Method,
    round_: Round,
    rng: np.random.Generator,
    *,
    resamples: int,
    allow_missing: bool = False,
) -> Figures:
    """95 % bootstrap intervals of SRCC, `quality_srcc_low` and so on; faces are resampled as a
    whole where the names of the videos hold them.
    """
    figures: Figures = {}
    for dimension in round_.labels.aspects:
        if dimension in method.scores and dimension in round_.labels.mos:
            videos, predicted_N, mos_N, _ = paired(
                method, round_, dimension, allow_missing=allow_missing
            )
            found = bootstrap_intervals(
                predicted_N, mos_N, rng, groups_N=_numbers(videos, latent), resamples=resamples
            )["srcc"]
            figures |= {
                f"{dimension}_srcc_low": found.low,
                f"{dimension}_srcc_high": found.high,
            }
    return figures


def significance(
    method: Method,
    ours: Method,
    round_: Round,
    rng: np.random.Generator,
    *,
    resamples: int,
    allow_missing: bool = False,
) -> Figures:
    """Whether a method's SRCC differs from ours on the videos that both have:
    `quality_srcc_difference` (the method's less ours), `quality_p_bootstrap` (faces resampled) and
    `quality_p_williams` (on ranks, videos taken as independent).
    """
    figures: Figures = {}
    for dimension in round_.labels.aspects:
        known = (method.scores.get(dimension), ours.scores.get(dimension))
        if not all(known) or dimension not in round_.labels.mos:
            continue
        theirs, mine = oriented(method, known[0]), oriented(ours, known[1])
        truth = round_.labels.mos[dimension]
        videos = [video for video in truth if video in theirs and video in mine]
        found = compare(
            np.array([theirs[video] for video in videos]),
            np.array([mine[video] for video in videos]),
            np.array([truth[video] for video in videos]),
            rng,
            groups_N=_numbers(videos, latent),
            resamples=resamples,
        )
        figures |= {
            f"{dimension}_srcc_difference": found.srcc.difference,
            f"{dimension}_p_bootstrap": found.srcc.p_bootstrap,
            f"{dimension}_p_williams": found.srcc.p_williams,
        }
    return figures


def answer_figures(
    method: Method, round_: Round, *, allow_missing: bool = False
) -> tuple[Figures, Notes]:
    """Accuracies of distortion answers in percent, by `METRICS`; `unparsed` answers, `n` videos."""
    truth = round_.labels.distortions
    videos, notes = covered(
        truth, method.answers, method, "distortion answer", allow_missing=allow_missing
    )
    answers, truths = ([of[video] for video in videos] for of in (method.answers, truth))
    unparsed = sum(not answer for answer in answers)
    figures = measured("answers", answers, truths) | {"unparsed": unparsed, "n": len(videos)}
    if unparsed:
        notes += (f"{unparsed} answers name no category; they count as wrong",)
    return figures, notes


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """Somebody who gives a saliency map of a video.

    Attributes:
        videos: Those it has a map for.
        read: Video and the ground truth's (height, width) -> map of that size.
    """

    videos: Collection[str]
    read: Callable[[str, tuple[int, int]], np.ndarray]


def maps_of(
    method: Method, videos: Iterable[str], *, allow_missing: bool = False
) -> tuple[MapSource, Counter, Notes]:
    """A method's maps, a counter that will tell how many of them were "resized", and a note on
    videos that have none.
    """
    kept, notes = covered(videos, method.maps, method, "map", allow_missing=allow_missing)
    count: Counter = Counter()

    def read(video: str, shape: tuple[int, int]) -> np.ndarray:
        map_HW, resized = read_map(method.maps[video], shape)
        count["resized"] += resized
        return map_HW

    return MapSource(videos=frozenset(kept), read=read), count, notes


def map_figures(
    sources: Mapping[str, MapSource],
    source: Source,
    round_: Round,
    *,
    preset: str = "mit",
    baseline: Callable[[tuple[int, int]], np.ndarray] | None = None,
) -> dict[str, Figures]:
    """Mean figures of several methods' maps, each over its own videos, in one walk over the ground
    truth: `auc`, `auc_judd`, `auc_borji`, `auc_shuffled`, `nss`, `cc`, `sim`, `kld`, `ig` where
    there is a baseline, `n`, `skipped` (nothing marked) and `incomplete`. Videos that no marker
    looked at are left out.

    Fixations are the marked points; where these are not known, or the preset says so, they are
    read off the map by the released rule.

    Args:
        sources: Name -> maps.
        source: The data set.
        round_: The test.
        preset: One of `metrics.saliency.PRESETS`.
        baseline: (height, width) -> the map that information is gained over.

    Raises:
        ComparisonError: No preset of that name, a test video without ground truth, or none that a
            marker looked at.
    """
    if preset not in PRESETS:
        raise ComparisonError(f"preset {preset!r} is not one of {', '.join(PRESETS)}")
    videos, absent = source.looked_at(round_)
    if not videos:
        raise ComparisonError(
            f"{source.data / 'fixations.json'}: no marker looked at any of the {len(absent)} test "
            "videos; have some of them marked"
        )
    fixated = {video: truth_of(source, video, preset)[1] for video in videos}
    anywhere: dict[tuple[int, int], np.ndarray] = {}
    for fixation_HW in fixated.values():
        shape = fixation_HW.shape
        anywhere[shape] = anywhere.get(shape, np.zeros(shape, dtype=bool)) | fixation_HW
    # Kept as places, not as pictures: 400 boolean strips are 300 MB.
    fixated = {video: (f.shape, np.flatnonzero(f)) for video, f in fixated.items()}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    others = {name: entry for name, entry in metrics_of("maps").items() if entry.measure}
    for video in with_progress(videos, "map metrics", len(videos)):
        shape, places = fixated[video]
        density_HW, _ = truth_of(source, video, preset)
        fixation_HW = np.zeros(shape, dtype=bool)
        fixation_HW.flat[places] = True
        having = [name for name, maps in sources.items() if video in maps.videos]
        if not having:
            continue
        predicted_BHW = np.stack(
            [_prepared(sources[name].read(video, shape), preset) for name in having]
        )
        found = saliency_scores(
            predicted_BHW,
            np.broadcast_to(density_HW, predicted_BHW.shape),
            np.broadcast_to(fixation_HW, predicted_BHW.shape),
            options=preset,
            shuffled=np.broadcast_to(anywhere[shape] & ~fixation_HW, predicted_BHW.shape),
            baseline=None if baseline is None else baseline(shape),
        )
        for index, name in enumerate(having):
            row = {metric: float(values[index]) for metric, values in found.items()}
            for metric, entry in others.items():
                row[metric] = math.nan
                if fixation_HW.any():
                    row[metric] = entry.measure(predicted_BHW[index], density_HW, fixation_HW)
            rows[name].append(row)
    return {name: mean_scores(of_name) for name, of_name in rows.items() if of_name}


def truth_of(source: Source, video: str, preset: str) -> tuple[np.ndarray, np.ndarray]:
    """The density and the fixations of a video, both (height, width).

    Raises:
        ComparisonError: The video has no ground truth, or is not among the marked points.
    """
    try:
        density_HW = read_saliency(source.maps, video)
    except FileNotFoundError as error:
        raise ComparisonError(
            f"{source.maps}: no map of the test video {video}; download or make the maps"
        ) from error
    rule = PRESETS[preset].fixation_rule
    if source.points is None or rule is not None:
        return density_HW, fixations_from_density(density_HW, rule or "released")
    if video not in source.points:
        raise ComparisonError(
            f"{source.data / 'fixations.json'}: {video} is not in it; add it, with no points where "
            "nothing is marked"
        )
    return density_HW, fixation_map(source.points[video].points, *density_HW.shape)


def _prepared(predicted_HW: np.ndarray, preset: str) -> np.ndarray:
    """The released code stretches every map and cuts it to 8 bits before it is resized."""
    if preset == "lmme3dhf-repo":
        return prepare_released(predicted_HW, predicted_HW.shape)
    return predicted_HW
