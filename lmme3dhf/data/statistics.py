"""What a data set holds, in figures: scores, levels, distortions, marks and raters (paper, Section
3.4 and Fig. 2a, 3 and 6); what is about generators alone is in `generator_statistics`.

Pure functions of labels by video; nothing is read, written or drawn here. The results are plain
dictionaries, ready for JSON; what is undefined is NaN, never 0. Identifiers hold the generator and
the latent (see `splits`). Array legend: S subjects, V videos, H height, W width.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage, stats

from lmme3dhf.annotations.agreement import intraclass_correlation, split_half
from lmme3dhf.annotations.mos import mean_opinion_scores
from lmme3dhf.annotations.ratings import Ratings
from lmme3dhf.annotations.screening import correlations as subject_correlations
from lmme3dhf.aspects import Scale
from lmme3dhf.data.gen3dhf import UNNAMED_LEVEL
from lmme3dhf.data.splits import generator
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
BIN_WIDTH = 2.0  # of the score histograms, in percent of the scale
# Level of a saliency map, whose peak is 1, from which a pixel belongs to a marked region. A lone
# dot smoothed with 5 px then covers a disc of 10.7 px radius.
REGION_LEVEL = 0.1
MEASURES = {  # attribute of StripMarks -> what it is
    "dots": "marked dots",
    "regions": f"marked regions (map at {REGION_LEVEL:g} or above)",
    "area": "marked share of the strip",
}

Scores = Mapping[str, float]
Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StripMarks:
    """What annotators marked on one strip; None where it is not known.

    Attributes:
        dots: Number of dots.
        regions: Number of connected areas of the map at `REGION_LEVEL` or above.
        area: Their share of the strip, 0..1.
        outside: Dots that lie in none of these areas.
    """

    dots: int | None = None
    regions: int | None = None
    area: float | None = None
    outside: int | None = None


def summarise(mos: Scores) -> Figures:
    """Number, extremes with their videos, mean, deviation (ddof 1), percentiles (linear) and skew
    of one aspect.

    The skew is Fisher and Pearson's g1 = m3 / m2^1.5 with population moments; below 0 the long tail
    is on the left, at the low scores. NaN where the scores are alike or too few.
    """
    videos, mos_V = _sorted(mos)
    lowest, highest = int(mos_V.argmin()), int(mos_V.argmax())
    spread = bool(np.ptp(mos_V) > 0)
    return {
        "n": len(videos),
        "distinct": len(np.unique(mos_V)),
        "min": float(mos_V[lowest]),
        "min_video": videos[lowest],
        "max": float(mos_V[highest]),
        "max_video": videos[highest],
        "mean": float(mos_V.mean()),
        "std": float(mos_V.std(ddof=1)) if len(mos_V) > 1 else math.nan,
        "percentiles": {
            str(p): float(value)
            for p, value in zip(PERCENTILES, np.percentile(mos_V, PERCENTILES), strict=True)
        },
        "skew": float(stats.skew(mos_V)) if spread else math.nan,
    }


def histogram(mos: Mapping[str, Scores], scale: Scale) -> list[Figures]:
    """Videos in each bin of `BIN_WIDTH`, from the lowest score of any aspect to the highest; lower
    end included, upper end not. All aspects are on this scale.
    """
    width = BIN_WIDTH * _percent(scale)
    counts = {
        name: Counter(math.floor((score - scale.minimum) / width) for score in scores.values())
        for name, scores in mos.items()
    }
    every = [b for bins in counts.values() for b in bins]
    return [
        {
            "low": scale.minimum + b * width,
            "high": scale.minimum + (b + 1) * width,
            **{name: bins[b] for name, bins in counts.items()},
        }
        for b in range(min(every), max(every) + 1)
    ]


def density(mos: Mapping[str, Scores], scale: Scale) -> list[Figures]:
    """Density of each aspect at every half percent of the scale, from ten percent below the lowest
    score of any to ten above the highest: Gaussian kernels, Scott's width. NaN where all scores of
    an aspect are alike. All aspects are on this scale.
    """
    percent = _percent(scale)
    every = np.concatenate([_sorted(scores)[1] for scores in mos.values()])
    lowest, highest = (float(end - scale.minimum) / percent for end in (every.min(), every.max()))
    low, high = max(0, math.floor(lowest) - 10), min(100, math.ceil(highest) + 10)
    grid = scale.minimum + percent * np.arange(low, high + 0.25, 0.5)
    curves = {}
    for name, scores in mos.items():
        _, mos_V = _sorted(scores)
        if np.ptp(mos_V) > 0:
            curves[name] = stats.gaussian_kde(mos_V)(grid)
        else:
            curves[name] = np.full(len(grid), math.nan)
    return [
        {"score": float(score), **{name: float(curve[i]) for name, curve in curves.items()}}
        for i, score in enumerate(grid)
    ]


def _percent(scale: Scale) -> float:
    return (scale.maximum - scale.minimum) / 100


def agreement(first: Scores, second: Scores) -> Figures:
    """SRCC, PLCC, KRCC and n over the videos that both have."""
    both = sorted(set(first) & set(second))
    found = correlations(
        np.array([first[video] for video in both]), np.array([second[video] for video in both])
    )
    return dataclasses.asdict(found)


def levels(
    words: Mapping[str, str],
    mos: Scores,
    parts: Mapping[str, Collection[str]],
    order: Sequence[str],
) -> Figures:
    """Videos and mean score per level word, and how often the most frequent level is right.

    Args:
        words: Video -> level word; the released "None" may be among them.
        mos: Scores of the same aspect.
        parts: Part -> videos. The most frequent level is that of "train" (of all videos where there
            is no such part), its accuracy is counted on "eval".
        order: The level words, from the lowest scores to the highest.

    Returns:
        "counts": part or "all" -> word -> number; "mean_mos": word -> mean, for words that occur;
        "majority": its word, and its accuracy on eval (NaN without that part).
    """
    if UNNAMED_LEVEL in words.values():
        order = (UNNAMED_LEVEL, *order)
    counts = {}
    for part, videos in {"all": words, **parts}.items():
        found = Counter(words[video] for video in videos if video in words)
        counts[part] = {word: found[word] for word in order}
    means = {}
    for word in order:
        scores = [mos[video] for video, given in words.items() if given == word and video in mos]
        if scores:
            means[word] = float(np.mean(scores))
    known = counts.get("train", counts["all"])
    majority = max(order, key=known.__getitem__)
    held_out = counts.get("eval", {})
    total = sum(held_out.values())
    return {
        "counts": counts,
        "mean_mos": means,
        "majority": {
            "level": majority,
            "accuracy": held_out[majority] / total if total else math.nan,
        },
    }


def count_distortions(categories: Mapping[str, Collection[str]]) -> Figures:
    """How often each category was named, overall, per generator and together with each other.

    Returns:
        "videos"; "counts" and "shares" per category; "per_video": number of categories ("No
        Distortion" is none) -> videos; "generators": generator -> its "videos" and "counts";
        "together": category -> category -> videos with both (on the diagonal: with this one);
        "contradictory": videos that have "No Distortion" and another category.
    """
    counts = _counts(categories.values())
    groups = by_generator(categories)
    number = Counter(number_of_categories(names) for names in categories.values())
    return {
        "videos": len(categories),
        "counts": counts,
        "shares": {name: count / len(categories) for name, count in counts.items()},
        "per_video": {str(k): number[k] for k in range(max(number) + 1)},
        "generators": {
            str(group): {
                "videos": len(members),
                "counts": _counts(categories[video] for video in members),
            }
            for group, members in groups.items()
        },
        "together": {
            name: _counts(names for names in categories.values() if name in names)
            for name in DISTORTIONS
        },
        "contradictory": sorted(
            video
            for video, names in categories.items()
            if NO_DISTORTION in names and len(set(names)) > 1
        ),
    }


def _counts(named: Iterable[Collection[str]]) -> dict[str, int]:
    found = Counter(name for names in named for name in set(names))
    return {name: found[name] for name in DISTORTIONS}


def number_of_categories(names: Collection[str]) -> int:
    """Distortions among the categories of a video; "No Distortion" is none."""
    return len(set(names) - {NO_DISTORTION})


def categories_against(categories: Mapping[str, Collection[str]], mos: Scores) -> Figures:
    """Scores of one aspect against the categories.

    Returns:
        "number": SRCC, PLCC, KRCC and n of the number of categories with the scores; "by_number":
        number -> "n" and "mean"; "by_category": category -> "n", and the mean score "with" and
        "without" it (NaN where there is no such video).
    """
    videos = sorted(set(categories) & set(mos))
    number = {video: float(number_of_categories(categories[video])) for video in videos}
    by_number = {}
    for count in sorted(set(number.values())):
        scores = [mos[video] for video in videos if number[video] == count]
        by_number[str(int(count))] = {"n": len(scores), "mean": float(np.mean(scores))}
    by_category = {}
    for name in DISTORTIONS:
        having = [mos[video] for video in videos if name in categories[video]]
        others = [mos[video] for video in videos if name not in categories[video]]
        by_category[name] = {
            "n": len(having),
            "with": float(np.mean(having)) if having else math.nan,
            "without": float(np.mean(others)) if others else math.nan,
        }
    return {
        "number": agreement(number, mos),
        "by_number": by_number,
        "by_category": by_category,
    }


def measure_marks(
    map_HW: np.ndarray | None, points: Sequence[tuple[float, float]] | None
) -> StripMarks:
    """Dots and marked areas of one strip.

    Args:
        map_HW: Saliency map, 0..1, or None. Areas touch at sides or corners of pixels to be one.
        points: Dots (x, y) in the map's pixels, integers at pixel centres, or None.

    Raises:
        ValueError: A dot outside the map.
    """
    dots = None if points is None else len(points)
    if map_HW is None:
        return StripMarks(dots=dots)
    marked_HW = map_HW >= REGION_LEVEL
    _, regions = ndimage.label(marked_HW, structure=np.ones((3, 3)))
    outside = None
    if points is not None:
        outside = 0
        height, width = map_HW.shape
        for x, y in points:
            column, row = math.floor(x + 0.5), math.floor(y + 0.5)
            if not (0 <= column < width and 0 <= row < height):
                raise ValueError(f"dot ({x:g}, {y:g}) lies outside the map of {width} x {height}")
            outside += not marked_HW[row, column]
    return StripMarks(
        dots=dots, regions=int(regions), area=float(marked_HW.mean()), outside=outside
    )


def marks_against(marks: Mapping[str, StripMarks], mos: Mapping[str, Scores]) -> Figures:
    """Marks of all strips and how they go with the scores.

    Returns:
        "videos", "clean" (no dots, or no areas where dots are not known); "dots" and "outside" in
        all, None where they are not known; "measures": measure -> its "name", the number of
        "strips" that have it, "mean", "median", "max", and for each aspect SRCC, PLCC, KRCC and
        n with the scores; "generators": generator -> measure -> mean. Measures that no strip has
        are left out.
    """
    figures: Figures = {"videos": len(marks), "measures": {}, "generators": {}}
    dots = [one.dots for one in marks.values() if one.dots is not None]
    outside = [one.outside for one in marks.values() if one.outside is not None]
    figures["dots"] = sum(dots) if dots else None
    figures["outside"] = sum(outside) if outside else None
    figures["clean"] = sum(
        (one.dots if one.dots is not None else one.regions) == 0 for one in marks.values()
    )
    for measure, name in MEASURES.items():
        values = {
            video: float(getattr(one, measure))
            for video, one in marks.items()
            if getattr(one, measure) is not None
        }
        if not values:
            continue
        listed = list(values.values())
        figures["measures"][measure] = {
            "name": name,
            "strips": len(listed),
            "mean": float(np.mean(listed)),
            "median": float(np.median(listed)),
            "max": float(np.max(listed)),
            **{aspect: agreement(values, scores) for aspect, scores in mos.items()},
        }
        for group, members in by_generator(values).items():
            mean = float(np.mean([values[video] for video in members]))
            figures["generators"].setdefault(str(group), {})[measure] = mean
    return figures


def raters(ratings: Ratings, rng: np.random.Generator) -> Figures:
    """How far the raters of one aspect agree.

    Args:
        ratings: Their raw ratings.
        rng: Draws the halves of the panel.

    Returns:
        "subjects", "videos", "ratings" and "missing" as numbers; "split_half" (SRCC between random
        halves, one value a split under "srcc") and "icc" as in `annotations.agreement`; "reports":
        for each subject what `mean_opinion_scores` says of it by its default rule and screening,
        with mean and deviation (ddof 1) of its ratings on the slider; "between": subject -> subject
        -> Pearson's r over their common videos, and "mean_between" over all pairs; "mos": video ->
        opinion score by the default rule.

    Raises:
        AnnotationError: Too few subjects or common videos, or a video without a rating that counts.
    """
    rating_SV = ratings.rating_SV
    scores = mean_opinion_scores(ratings)
    halves = split_half(ratings, rng)
    figures = dataclasses.asdict(halves)
    figures["srcc"] = figures.pop("srcc_H").tolist()
    reports = []
    for report, rating_V in zip(scores.subjects, rating_SV, strict=True):
        given = rating_V[~np.isnan(rating_V)]
        mean = float(given.mean()) if len(given) else math.nan
        std = float(given.std(ddof=1)) if len(given) > 1 else math.nan
        reports.append({**dataclasses.asdict(report), "mean": mean, "std": std})
    r_SS = np.array(
        [
            subject_correlations(rating_SV, np.broadcast_to(rating_V, rating_SV.shape))
            for rating_V in rating_SV
        ]
    )
    pairs = r_SS[np.triu_indices(len(r_SS), 1)]
    return {
        "subjects": len(ratings.subjects),
        "videos": len(ratings.videos),
        "ratings": int(np.count_nonzero(~np.isnan(rating_SV))),
        "missing": int(np.count_nonzero(np.isnan(rating_SV))),
        "split_half": figures,
        "icc": dataclasses.asdict(intraclass_correlation(ratings)),
        "reports": reports,
        "between": {
            subject: dict(zip(ratings.subjects, row.tolist(), strict=True))
            for subject, row in zip(ratings.subjects, r_SS, strict=True)
        },
        "mean_between": float(np.nanmean(pairs)) if np.isfinite(pairs).any() else math.nan,
        "mos": dict(zip(scores.videos, scores.mos_V.tolist(), strict=True)),
    }


def exemplars(videos: Collection[str], mos: Mapping[str, Scores]) -> list[tuple[str, str]]:
    """Five videos to look at, (what, video): the worst, the best, and those at the quartiles, by
    the mean score over the aspects. No chance and no taste is in the choice.
    """
    rated = [video for video in videos if all(video in scores for scores in mos.values())]
    if not mos or not rated:
        ranked = sorted(videos)
        names = ("first", "at 1/4", "middle", "at 3/4", "last")
    else:
        ranked = sorted(
            rated, key=lambda video: (np.mean([scores[video] for scores in mos.values()]), video)
        )
        names = ("worst", "lower quartile", "median", "upper quartile", "best")
    chosen: dict[str, str] = {}
    for name, share in zip(names, (0, 0.25, 0.5, 0.75, 1), strict=True):
        chosen.setdefault(ranked[round(share * (len(ranked) - 1))], name)
    return [(name, video) for video, name in chosen.items()]


def _sorted(mos: Scores) -> tuple[list[str], np.ndarray]:
    videos = sorted(mos)
    return videos, np.array([mos[video] for video in videos], dtype=float)


def by_generator(videos: Collection[str]) -> dict[int, list[str]]:
    """Generator -> its videos, both sorted."""
    groups: dict[int, list[str]] = {}
    for video in sorted(videos):
        groups.setdefault(generator(video), []).append(video)
    return dict(sorted(groups.items()))
