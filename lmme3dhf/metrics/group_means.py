"""How sure the mean of a group of videos is, and whether two groups differ.

The groups are the videos of different generators, so nothing is paired: the tests take every video
as drawn on its own. Array legend: N videos, P pairs of groups.

Sources: Efron and Tibshirani, An introduction to the bootstrap (1993), percentile intervals; Mann
and Whitney, Annals of Mathematical Statistics 18 (1947); Holm, Scandinavian Journal of Statistics 6
(1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

RESAMPLES, LEVEL = 5000, 0.95
FEWEST_VIDEOS = 2  # fewer have no spread: no interval, no test
_DRAWS = 5_000_000  # at a time: 40 MB
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class GroupMean:
    """The mean of a group's scores.

    Attributes:
        n: Number of videos.
        mean: NaN without videos.
        median: NaN without videos.
        low: Lower end of the interval of the mean; NaN with fewer than two videos.
        high: Upper end; likewise.
    """

    n: int
    mean: float
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two groups, compared.

    Attributes:
        first: Name of one group.
        second: Name of the other.
        difference: Mean of the first less mean of the second; NaN where it is not tested.
        wins: How often a video of the first has a higher score than one of the second, over all
            pairs of videos, with ties as half; 0.5 is no difference. NaN likewise.
        p: Two-sided p of Mann and Whitney's test; NaN where a group has fewer than two videos.
        p_holm: The same, corrected for all pairs that are tested.
    """

    first: str
    second: str
    difference: float
    wins: float
    p: float
    p_holm: float


def group_mean(
    score_N: np.ndarray,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> GroupMean:
    """Mean and median with the percentile bootstrap interval of the mean.

    With videos that all have one score the interval has no width: the resamples know no other
    score. With fewer than about ten videos it is too narrow.

    Args:
        score_N: Scores of the group's videos.
        rng: Source of the resamples.
        resamples: Number of resamples.
        level: Coverage, between 0 and 1.
    """
    n = len(score_N)
    if n == 0:
        return GroupMean(0, *[math.nan] * 4)
    low = high = math.nan
    if n >= FEWEST_VIDEOS:
        interval = stats.bootstrap(
            (score_N,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, _DRAWS // n),
            confidence_level=level,
            method="percentile",
            random_state=rng,
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return GroupMean(n, float(np.mean(score_N)), float(np.median(score_N)), low, high)


def compare_groups(score_of: Mapping[str, np.ndarray]) -> list[Pair]:
    """Every pair of groups, in the order of the mapping, by Mann and Whitney's test.

    SciPy takes the exact distribution where one group has at most eight videos and no scores are
    tied, and else the normal one with ties and continuity corrected.

    Args:
        score_of: Group -> scores of its videos.
    """
    tested = []
    for first, second in combinations(score_of, 2):
        x, y = score_of[first], score_of[second]
        if min(len(x), len(y)) < FEWEST_VIDEOS:
            tested.append((first, second, math.nan, math.nan, math.nan))
            continue
        found = stats.mannwhitneyu(x, y, alternative="two-sided", method="auto")
        wins = float(found.statistic) / (len(x) * len(y))
        difference = float(np.mean(x) - np.mean(y))
        tested.append((first, second, difference, wins, float(found.pvalue)))
    corrected = holm([p for *_, p in tested])
    return [Pair(*pair, p_holm=p) for pair, p in zip(tested, corrected, strict=True)]


def holm(p_P: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down method, in the same order.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than
    the one before it, nor larger than 1. NaN stays NaN and does not count.
    """
    known = sorted((p, at) for at, p in enumerate(p_P) if not math.isnan(p))
    corrected, least = [math.nan] * len(p_P), 0.0
    for rank, (p, at) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[at] = least
    return corrected


def stars(p: float) -> str:
    """One star below 0.05, two below 0.01, three below 0.001; none for NaN."""
    return next((mark for limit, mark in STARS if p < limit), "")
