"""What a metric has to beat, and what it cannot pass: rows beside the methods in the tables.

A floor knows nothing of the clip: the training set's mean, its mean for the clip's generator, its
most frequent answer, its mean map. An oracle is given a label of the very clip that is scored; what
it reaches bounds what words or the other dimension's score can say. A ceiling is what the noise of
the labels leaves to be reached.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from lmme3dhf.annotations.fixations import (
    Fixations,
    fixation_map,
    read_saliency,
    saliency_map,
)
from lmme3dhf.annotations.mos import mean_opinion_scores, zscore
from lmme3dhf.annotations.ratings import Ratings, read_ratings
from lmme3dhf.comparison.methods import Method
from lmme3dhf.comparison.scoring import Figures, MapSource
from lmme3dhf.comparison.sources import Round, Source
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator
from lmme3dhf.data.statistics import by_generator
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.metrics.saliency import PRESETS, mean_scores, saliency_scores
from lmme3dhf.metrics.vqa import majority_answer
from lmme3dhf.progress import with_progress
from lmme3dhf.reports.evaluation import true_opinions
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS

FLOOR, ORACLE, CEILING = "floor", "oracle (is given a label)", "ceiling"
PERSON = "one person"  # a marker is no ceiling: a model may know what all of them mark on average
PANELS = 200  # that are drawn for the noise ceiling


def score_floors(source: Source, round_: Round) -> list[tuple[str, Method]]:
    """(kind, predictions) for Table 1, without those whose labels are not there."""
    truth, train = round_.labels, round_.train
    means, generators, levels, others = {}, {}, {}, {}
    for dimension, test in truth.mos.items():
        trained = train.mos.get(dimension)
        if trained:
            mean = float(np.mean(list(trained.values())))
            means[dimension] = dict.fromkeys(test, mean)
            generators[dimension] = _generator_means(trained, test, mean)
            levels[dimension] = _level_means(round_, dimension)
        other = truth.mos.get(next(d for d in DIMENSIONS if d != dimension), {})
        if set(test) <= set(other):
            others[dimension] = {video: other[video] for video in test}
    opinions = _true_opinions(source, round_)
    rows = [
        (FLOOR, "mean of the training scores", means, "constant, so it has no correlations"),
        (FLOOR, "mean of the clip's generator", generators, "training mean of its generator"),
        (ORACLE, "level oracle", levels, "the training mean of the clip's true level"),
        (ORACLE, "other dimension's score", others, "the opinion score of the other dimension"),
        (CEILING, "true opinions", opinions, "what was planted in the synthetic clips"),
    ]
    return [
        (kind, Method(name=name, path=source.data, scores=found, notes=(f"{name}: {note}",)))
        for kind, name, scores, note in rows
        if (found := {d: of_d for d, of_d in scores.items() if of_d})
    ]


def _generator_means(
    trained: dict[str, float], test: dict[str, float], mean: float
) -> dict[str, float] | None:
    try:
        means = {
            group: float(np.mean([trained[video] for video in videos]))
            for group, videos in by_generator(trained).items()
        }
        return {video: means.get(generator(video), mean) for video in test}
    except DataError:  # names without a number hold no generator
        return None


def _level_means(round_: Round, dimension: str) -> dict[str, float] | None:
    words, scores = round_.train.levels.get(dimension, {}), round_.train.mos[dimension]
    test = round_.labels.levels.get(dimension, {})
    found: dict[str, list[float]] = {}
    for video, word in words.items():
        if video in scores:
            found.setdefault(word, []).append(scores[video])
    if not found or not set(round_.labels.mos[dimension]) <= set(test):
        return None
    means = {word: float(np.mean(of_word)) for word, of_word in found.items()}
    for word in LEVELS:  # a level that nobody trained on takes the nearest one's mean
        nearest = min(found, key=lambda w: abs(LEVELS.index(w) - LEVELS.index(word)))
        means.setdefault(word, means[nearest])
    return {video: means[test[video]] for video in round_.labels.mos[dimension]}


def _true_opinions(source: Source, round_: Round) -> dict[str, dict[str, float]]:
    path = source.data / "truth.json"
    if not path.is_file():
        return {}
    return {
        dimension: {video: opinions[video] for video in test}
        for dimension, opinions in true_opinions(path).items()
        if (test := round_.labels.mos.get(dimension)) and set(test) <= set(opinions)
    }


def noise_ceiling(
    source: Source, round_: Round, rng: np.random.Generator, panels: int = PANELS
) -> tuple[Figures, str] | None:
    """How well the true opinion of many people would correlate with the opinion scores, which few
    gave: the raters' noise alone keeps a perfect metric at this value.

    The bootstrap's argument: as the panel is to everybody, so is a panel drawn from it with
    replacement to the panel. The panel's scores stand for the truth, those of a panel drawn from it
    (as many subjects, scored by Eq. 1-3) for the labels, and their correlation, averaged over the
    draws, estimates that of the truth with the labels. The panel's scores vary a little more than
    the truth does, so the value is slightly too high.

    Subjects are screened once, by ITU-R BT.500; all their videos are scored, the test's are
    correlated.

    Returns:
        `quality_srcc` and so on, and a note with the 95 % intervals of single panels; None without
        raw ratings of all test videos.
    """
    if source.ratings is None:
        return None
    figures: Figures = {}
    notes = []
    for dimension, ratings in read_ratings(source.ratings).items():
        test = round_.labels.mos.get(dimension)
        if not test or not set(test) <= set(ratings.videos):
            continue
        scored = mean_opinion_scores(ratings)
        left_out = scored.left_out
        kept = [i for i, subject in enumerate(ratings.subjects) if subject not in left_out]
        of_test = [ratings.videos.index(video) for video in test]
        mos_N = scored.mos_V[of_test]
        same = np.allclose(mos_N, list(test.values()), atol=0.01)
        other = "" if same else " (the labels come from another rule or screening)"
        rows, undrawn = [], 0
        for _ in range(panels):
            drawn = rng.choice(kept, len(kept))
            rating_SV = ratings.rating_SV[drawn]
            if np.isnan(rating_SV).all(axis=0).any():  # nobody of them rated some video
                undrawn += 1
                continue
            names = tuple(f"{i}" for i in range(len(drawn)))
            panel = zscore(Ratings(dimension, names, ratings.videos, rating_SV))
            found = correlations(mos_N, panel.mos_V[of_test])
            rows.append((found.srcc, found.plcc, found.krcc))
        if not rows:
            continue
        mean = np.mean(rows, axis=0)
        figures |= {
            f"{dimension}_{key}": float(value)
            for key, value in zip(("srcc", "plcc", "krcc"), mean, strict=True)
        }
        low, high = np.quantile([row[0] for row in rows], (0.025, 0.975))
        more = f", {undrawn} draws without a rating of every video left out" if undrawn else ""
        notes.append(
            f"{dimension} SRCC {low:.3f} to {high:.3f} in 95 % of {len(rows)} panels of "
            f"{len(kept)}{more}{other}"
        )
    if not figures:
        return None
    return figures, (
        "raters' noise: the panel's scores against those of panels drawn from it with replacement, "
        "which estimates how well the true opinions correlate with the labels (slightly too high); "
        + "; ".join(notes)
    )


def majority(source: Source, round_: Round) -> Method | None:
    """The most frequent answer of the training videos, given to every test video."""
    train = list(round_.train.distortions.values())
    if not train or not round_.labels.distortions:
        return None
    counts = Counter(category for named in train for category in named)
    # The more frequent first: for the accuracy that looks at the first alone.
    answer = tuple(sorted(majority_answer(train), key=lambda name: (-counts[name], name)))
    return Method(
        name="most frequent training answer",
        path=source.data,
        answers=dict.fromkeys(round_.labels.distortions, answer),
        notes=(f"always: {', '.join(answer)}",),
    )


def mean_map(source: Source, round_: Round) -> Callable[[tuple[int, int]], np.ndarray] | None:
    """(height, width) -> mean of the training maps of that size, clean videos' zero maps included;
    None without training maps. All zero where no training map has the size.
    """
    videos = [
        video
        for video in round_.train.videos
        if any((source.maps / f"{video}{suffix}").is_file() for suffix in (".npz", ".png"))
    ]
    if not videos:
        return None
    sums: dict[tuple[int, int], np.ndarray] = {}
    count: dict[tuple[int, int], int] = {}
    for video in with_progress(videos, "mean training map", len(videos)):
        map_HW = read_saliency(source.maps, video).astype(np.float64)
        sums[map_HW.shape] = sums.get(map_HW.shape, 0) + map_HW
        count[map_HW.shape] = count.get(map_HW.shape, 0) + 1
    means = {shape: total / count[shape] for shape, total in sums.items()}
    return lambda shape: means.get(shape, np.zeros(shape))


def map_floors(
    round_: Round, mean: Callable[[tuple[int, int]], np.ndarray] | None
) -> dict[str, tuple[MapSource, str]]:
    """Name -> maps that know nothing of the clip, and what they are."""
    everything = frozenset(round_.labels.videos)
    floors = {
        "uniform map": (
            MapSource(videos=everything, read=lambda _, shape: np.full(shape, 0.5)),
            "uniform map: chance",
        ),
        "centre of each view": (
            MapSource(videos=everything, read=lambda _, shape: centre_map(shape)),
            "centre of each view: a Gaussian, a quarter of the view's side wide",
        ),
    }
    if mean is not None:
        floors["mean training map"] = (
            MapSource(videos=everything, read=lambda _, shape: mean(shape)),
            "mean training map: clean videos count as all zero",
        )
    return floors


def centre_map(shape: tuple[int, int]) -> np.ndarray:
    """A Gaussian in the middle of each square of a strip, or of a picture of another form, with a
    deviation of a quarter of its height.
    """
    height, width = shape
    views = max(1, round(width / height))
    y = (np.arange(height) + 0.5) / height - 0.5
    x = np.mod((np.arange(width) + 0.5) * views / width, 1) - 0.5
    x = x * (width / views) / height
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * 0.25**2))


def marker_agreement(source: Source, round_: Round, *, preset: str) -> tuple[Figures, str] | None:
    """How well one marker's map predicts what the others marked, averaged over markers and videos.

    The truth is made of the other markers' points alone, so it is a little poorer than the labels'.

    Returns:
        Figures as `map_figures` gives them, and a note; None where the points are not known by
        marker, or there is one marker only.
    """
    points = source.points or {}
    markers = sorted({marker for found in points.values() for marker in found.dots})
    videos, _ = source.looked_at(round_)
    sized = [v for v in videos if v in points and points[v].size is not None]
    if len(markers) < 2 or len(sized) < len(videos):
        return None
    rule = PRESETS[preset].fixation_rule
    rows = []
    for video in with_progress(sized, "markers against each other", len(sized)):
        width, height = points[video].size
        by_marker = _by_marker(points[video])
        for marker in markers:
            others = [p for m, of_m in by_marker.items() if m != marker for p in of_m]
            density_HW = saliency_map(others, height, width)
            fixated_HW = None if rule else fixation_map(others, height, width)
            predicted_HW = saliency_map(by_marker.get(marker, []), height, width)
            rows.append(saliency_scores(predicted_HW, density_HW, fixated_HW, options=preset))
    figures = mean_scores(rows)
    return figures, (
        f"one marker's map against the points of the others, {len(markers)} markers in turn: "
        f"{figures['n']} pairs, {figures['skipped']} skipped because the others marked nothing"
    )


def _by_marker(found: Fixations) -> dict[str, tuple[tuple[float, float], ...]]:
    """The points are listed marker by marker, in the order of `dots`."""
    by_marker, start = {}, 0
    for marker, dots in found.dots.items():
        by_marker[marker] = found.points[start : start + dots]
        start += dots
    return by_marker
