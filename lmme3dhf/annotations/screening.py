"""Observer screening: which subjects' ratings do not count (paper, Section 3.3: "the suggestion
recommended by ITU to conduct the outlier detection and subject rejection").

Every screening takes the ratings of one aspect and says for each subject whether it is rejected,
and why. ITU-R BT.500's is made once, not again on those who are left. Array legend: S subjects, V
videos.

Sources: ITU-R BT.500-13, Annex 2, Section 2.3; ITU-T P.913, post-experiment screening of subjects
by Pearson correlation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmme3dhf.annotations.ratings import z_scores

# ITU-R BT.500: a kurtosis between these counts as normal, where 2 deviations are far; elsewhere
# sqrt(20) are.
NORMAL_KURTOSIS = (2.0, 4.0)
FAR_NORMAL, FAR_OTHER = 2.0, 20**0.5
OUTSIDE_LIMIT, IMBALANCE_LIMIT = 0.05, 0.3
# ITU-T P.913 leaves the threshold to the experiment; .75 is the value that it names (as VQEG does
# for HDTV).
CORRELATION_LIMIT = 0.75


@dataclass(frozen=True)
class Screened:
    """What a screening found.

    Attributes:
        high_S: P, how many of a subject's scores lie far above those of the others.
        low_S: Q, how many lie far below.
        reason_S: Why the subject is rejected, as a part of a sentence; None where it is kept.
    """

    high_S: np.ndarray
    low_S: np.ndarray
    reason_S: tuple[str | None, ...]


def far_scores(score_SV: np.ndarray, ddof: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """P and Q of ITU-R BT.500: how many scores of each subject lie far above and far below.

    Far is 2 S from the video's mean where its kurtosis m4 / m2^2 lies in 2..4, sqrt(20) S
    elsewhere; exactly that far counts. S is over the subjects who rated the video. In a panel of N
    nobody lies further than (N - 1) / sqrt(N) S from the mean (ddof 1), so with 21 subjects or
    fewer nothing is ever far by the second limit. A video that fewer than two subjects rated, or
    all alike, tells nobody from the others and counts for no one.

    Args:
        score_SV: Ratings or z-scores, NaN where missing.
        ddof: 1 for the sample deviation of the Recommendation; 0 for the population deviation that
            the `sureal` package takes, which makes the limits a little tighter.

    Returns:
        P and Q, each (S,).
    """
    count_V = np.count_nonzero(~np.isnan(score_SV), axis=0)
    high_SV = low_SV = np.zeros(score_SV.shape, dtype=bool)
    shared_V = count_V > 1
    shared_V[shared_V] = np.nanmin(score_SV[:, shared_V], axis=0) < np.nanmax(
        score_SV[:, shared_V], axis=0
    )
    if shared_V.any():
        shared_SV, count_V = score_SV[:, shared_V], count_V[shared_V]
        mean_V = np.nanmean(shared_SV, axis=0)
        second_V = np.nanmean((shared_SV - mean_V) ** 2, axis=0)
        kurtosis_V = np.nanmean((shared_SV - mean_V) ** 4, axis=0) / second_V**2
        normal_V = (NORMAL_KURTOSIS[0] <= kurtosis_V) & (kurtosis_V <= NORMAL_KURTOSIS[1])
        deviation_V = np.sqrt(second_V * count_V / (count_V - ddof))
        far_V = np.where(normal_V, FAR_NORMAL, FAR_OTHER) * deviation_V
        # Comparisons with NaN are false: a missing rating is not far.
        high_SV, low_SV = shared_SV >= mean_V + far_V, shared_SV <= mean_V - far_V
    return np.count_nonzero(high_SV, axis=1), np.count_nonzero(low_SV, axis=1)


def shares(high: int, low: int, count: int) -> tuple[float, float]:
    """The two ratios of ITU-R BT.500: (P + Q) / n, how often a subject is far off, and |P - Q| /
    (P + Q), how one-sided that is; NaN where the denominator is 0.
    """
    outside = (high + low) / count if count else float("nan")
    imbalance = abs(high - low) / (high + low) if high + low else float("nan")
    return outside, imbalance


def correlations(score_SV: np.ndarray, mean_SV: np.ndarray) -> np.ndarray:
    """Pearson's r of each subject's scores with a row of means, over the videos that have both.

    NaN with fewer than three such videos, or where either side is constant.
    """
    r_S = np.full(len(score_SV), np.nan)
    for subject, (score_V, mean_V) in enumerate(zip(score_SV, mean_SV, strict=True)):
        both_V = ~np.isnan(score_V) & ~np.isnan(mean_V)
        a, b = score_V[both_V], mean_V[both_V]
        # Means of equal ratings differ by rounding.
        if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 1e-12 * np.abs(b).max():
            r_S[subject] = np.corrcoef(a, b)[0, 1]
    return r_S


def correlation_with_others(score_SV: np.ndarray) -> np.ndarray:
    """Pearson's r of each subject's scores with the mean of all others, (S,); NaN as in
    `correlations`.
    """
    given_SV = ~np.isnan(score_SV)
    others_SV = np.count_nonzero(given_SV, axis=0) - given_SV
    sum_SV = np.nansum(score_SV, axis=0) - np.where(given_SV, score_SV, 0)
    mean_SV = np.divide(sum_SV, others_SV, out=np.full(sum_SV.shape, np.nan), where=others_SV > 0)
    return correlations(score_SV, mean_SV)


def keep_all(rating_SV: np.ndarray, *, ddof: int, limit: float) -> Screened:
    """Rejects nobody; P and Q are reported for the raw ratings."""
    return Screened(*far_scores(rating_SV, ddof), (None,) * len(rating_SV))


def bt500(rating_SV: np.ndarray, *, ddof: int, limit: float) -> Screened:
    """ITU-R BT.500 on raw ratings: rejects whoever is far off in more than 5 % of the own ratings
    and about as often above as below, (P + Q) / n > 0.05 and |P - Q| / (P + Q) < 0.3.

    n is the number of the subject's own ratings. Somebody who is always stricter than the others is
    meant to be kept: that is a bias, not carelessness.
    """
    return _bt500(rating_SV, rating_SV, ddof, "ratings")


def bt500_z(rating_SV: np.ndarray, *, ddof: int, limit: float) -> Screened:
    """ITU-R BT.500 on z-scores: the same after each subject's mean and deviation are removed.

    A subject without z-scores (all ratings alike) is not judged.
    """
    return _bt500(rating_SV, z_scores(rating_SV), ddof, "z-scores")


def _bt500(rating_SV: np.ndarray, score_SV: np.ndarray, ddof: int, what: str) -> Screened:
    high_S, low_S = far_scores(score_SV, ddof)
    reasons = []
    for rating_V, high, low in zip(rating_SV, high_S, low_S, strict=True):
        count = np.count_nonzero(~np.isnan(rating_V))
        outside, imbalance = shares(high, low, count)
        rejected = outside > OUTSIDE_LIMIT and imbalance < IMBALANCE_LIMIT
        reasons.append(
            f"BT.500: {high} of {count} {what} lie far above and {low} far below the others', "
            f"{100 * outside:.1f} % on both sides"
            if rejected
            else None
        )
    return Screened(high_S, low_S, tuple(reasons))


def p913(rating_SV: np.ndarray, *, ddof: int, limit: float) -> Screened:
    """ITU-T P.913 on raw ratings: rejects whoever correlates with the mean by less than `limit`.

    The mean is over all subjects who are left, the subject included, as the Recommendation has it.
    Subjects go one at a time, the worst first, and the means are taken anew each time. A
    correlation that is not defined (see `correlations`) rejects nobody. P and Q are reported for
    the raw ratings of all.
    """
    left_SV = rating_SV.copy()
    reasons: list[str | None] = [None] * len(rating_SV)
    while True:
        count_V = np.count_nonzero(~np.isnan(left_SV), axis=0)
        mean_V = np.divide(
            np.nansum(left_SV, axis=0),
            count_V,
            out=np.full(len(count_V), np.nan),
            where=count_V > 0,
        )
        r_S = correlations(left_SV, np.broadcast_to(mean_V, left_SV.shape))
        if not (r_S < limit).any():
            return Screened(*far_scores(rating_SV, ddof), tuple(reasons))
        worst = int(np.nanargmin(r_S))
        reasons[worst] = (
            f"P.913: the ratings correlate with the mean by {r_S[worst]:.2f}, less than {limit:g}"
        )
        left_SV[worst] = np.nan


SCREENINGS: dict[str, Callable[..., Screened]] = {
    "none": keep_all,
    "bt500": bt500,
    "bt500_z": bt500_z,
    "p913": p913,
}
