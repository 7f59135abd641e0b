"""What a metric has to beat, and what it cannot pass: rows beside the methods in the tables.

A floor knows nothing of the clip: an entry of `baselines.BASELINES`. An oracle is given a label of
the very clip that is scored; what it reaches bounds what words or another aspect's score can say. A
ceiling is what the noise of the labels leaves to be reached.
"""

from dataclasses import replace

import numpy as np

from lmme3dhf.annotations.fixations import (
    Fixations,
    fixation_map,
    read_saliency,
    saliency_map,
)
from lmme3dhf.annotations.mos import mean_opinion_scores, zscore
from lmme3dhf.annotations.ratings import Ratings, read_ratings
from lmme3dhf.baselines import Setting, in_tables
from lmme3dhf.comparison.methods import Method
from lmme3dhf.comparison.scoring import Figures
from lmme3dhf.comparison.sources import Round, Source
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.metrics.saliency import PRESETS, RELEASED_SIZE, mean_scores, saliency_scores
from lmme3dhf.progress import with_progress
from lmme3dhf.reports.evaluation import true_opinions

FLOOR, ORACLE, CEILING = "floor", "oracle (is given a label)", "ceiling"
PERSON = "one person"  # a marker is no ceiling: a model may know what all of them mark on average
PLANTED = "what was planted in the synthetic clips"
PANELS = 200  # that are drawn for the noise ceiling


def setting_of(source: Source, round_: Round) -> Setting:
    """What a baseline may look at for a test."""
    return Setting(
        data=source.data,
        maps=source.maps,
        train=round_.train,
        media={v: source.data / "video_RGB" / f"{v}.mp4" for v in round_.labels.videos},
        aspects=source.aspects,
    )


def map_size(source: Source) -> tuple[int, int]:
    """(height, width) of the data set's maps: that of the first one; the release's without any."""
    for video in sorted({*source.rounds[0].train.videos, *source.rounds[0].labels.videos}):
        try:
            return read_saliency(source.maps, video).shape
        except FileNotFoundError:
            continue
    return RELEASED_SIZE


def floors_of(what: str, source: Source, round_: Round) -> list[Method]:
    """The baselines in the tables of "scores", "answers" or "maps"; scores of those aspects alone
    that the test has labels of.
    """
    mos = round_.labels.mos
    return [
        replace(method, scores={d: s for d, s in method.scores.items() if mos.get(d)})
        for method in in_tables(setting_of(source, round_), what)
    ]


def score_floors(source: Source, round_: Round) -> list[tuple[str, Method]]:
    """(kind, predictions) for Table 1, without those whose labels are not there."""
    mos = round_.labels.mos
    levels = {aspect: _level_means(round_, aspect) for aspect in mos}
    others = {}
    for aspect, test in mos.items():
        rest = [name for name in mos if name != aspect and set(test) <= set(mos[name])]
        if rest:
            others[aspect] = {video: mos[rest[0]][video] for video in test}
    two = len(source.aspects) < 3
    name = "other dimension's score" if two else "another aspect's score"
    rows = [
        (ORACLE, "level oracle", levels, "the training mean of the clip's true level"),
        (
            ORACLE,
            name,
            others,
            f"the opinion score of {'the other dimension' if two else 'the first other aspect'}",
        ),
        (CEILING, "true opinions", _true_opinions(source, round_), PLANTED),
    ]
    return [(FLOOR, method) for method in floors_of("scores", source, round_) if method.scores] + [
        (kind, Method(name=name, path=source.data, scores=found, notes=(f"{name}: {note}",)))
        for kind, name, scores, note in rows
        if (found := {d: of_d for d, of_d in scores.items() if of_d})
    ]


def _level_means(round_: Round, dimension: str) -> dict[str, float] | None:
    words, scores = round_.train.levels.get(dimension, {}), round_.train.mos.get(dimension, {})
    test = round_.labels.levels.get(dimension, {})
    found: dict[str, list[float]] = {}
    for video, word in words.items():
        if video in scores:
            found.setdefault(word, []).append(scores[video])
    if not found or not set(round_.labels.mos[dimension]) <= set(test):
        return None
    means = {word: float(np.mean(of_word)) for word, of_word in found.items()}
    levels = round_.labels.aspects[dimension].scale.levels
    for word in levels:  # a level that nobody trained on takes the nearest one's mean
        nearest = min(found, key=lambda w: abs(levels.index(w) - levels.index(word)))
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
