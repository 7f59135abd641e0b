"""How far the subjects agree with each other: the bound of what a metric can reach (paper, Section
3.2: 21 subjects rate every video).

Two views: how well one half of the panel orders the videos as the other half does, and which share
of the ratings' variance belongs to the videos. Array legend: S subjects, V videos, H splits.

Sources: Spearman (1910) and Brown (1910); Shrout and Fleiss, Intraclass correlations: uses in
assessing rater reliability, Psychological Bulletin 86 (1979).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.ratings import Ratings, z_scores

SPLITS = 200


@dataclass(frozen=True)
class SplitHalf:
    """Agreement of random halves of a panel. All values in -1..1.

    Attributes:
        srcc_H: Spearman's rho between the scores of the two halves, one value a split; NaN where a
            half scores all videos alike.
        mean, std: Of srcc_H, the deviation with ddof 1.
        low, median, high: Its quantiles .025, .5 and .975.
        spearman_brown: 2 r / (1 + r) of the mean r, the Spearman-Brown correction from half a panel
            to the whole. It is exact for Pearson's r of equally good halves; for ranks it is the
            customary approximation.
        half: Subjects in each half; with an odd panel one subject stands aside in each split.
        left_out: Subjects without z-scores (fewer than two ratings, or all alike), who are in no
            half.
        videos: Mean number of videos that both halves rated, over the splits.
    """

    srcc_H: np.ndarray
    mean: float
    std: float
    low: float
    median: float
    high: float
    spearman_brown: float
    half: int
    left_out: tuple[str, ...]
    videos: float


def split_half(ratings: Ratings, rng: np.random.Generator, splits: int = SPLITS) -> SplitHalf:
    """Splits the panel at random, scores the videos by each half, and correlates the two.

    A half's score is the mean of its subjects' z-scores, the order of Eq. 1-3; nobody is screened.
    With missing ratings, each split compares the videos that both of its halves rated.

    Args:
        ratings: The raw ratings of one aspect.
        rng: Draws the halves.
        splits: How many splits, at least two.

    Raises:
        AnnotationError: Fewer than two subjects with z-scores, or a split whose halves have fewer
            than three videos in common.
        ValueError: Fewer than two splits.
    """
    if splits < 2:
        raise ValueError(f"{splits} splits; two at least are needed for a deviation")
    z_SV = z_scores(ratings.rating_SV)
    usable_S = ~np.isnan(z_SV).all(axis=1)
    left_out = tuple(s for s, usable in zip(ratings.subjects, usable_S, strict=True) if not usable)
    z_SV = z_SV[usable_S]
    half = len(z_SV) // 2
    if not half:
        raise AnnotationError(
            f"{ratings.aspect} ratings: {len(z_SV)} of {len(usable_S)} subjects have given "
            "different ratings; two are needed to compare halves of the panel"
        )
    srcc_H, videos_H = np.empty(splits), np.empty(splits)
    for split in range(splits):
        order = rng.permutation(len(z_SV))
        halves_SV = z_SV[order[:half]], z_SV[order[half : 2 * half]]
        counts_V = [np.count_nonzero(~np.isnan(half_SV), axis=0) for half_SV in halves_SV]
        both_V = (counts_V[0] > 0) & (counts_V[1] > 0)
        videos_H[split] = both_V.sum()
        if videos_H[split] < 3:
            raise AnnotationError(
                f"{ratings.aspect} ratings: two halves of the panel have {both_V.sum()} of "
                f"{len(both_V)} videos in common; three are needed to correlate their scores"
            )
        first_V, second_V = (np.nanmean(half_SV[:, both_V], axis=0) for half_SV in halves_SV)
        constant = np.ptp(first_V) == 0 or np.ptp(second_V) == 0
        srcc_H[split] = np.nan if constant else stats.spearmanr(first_V, second_V).statistic
    mean = float(srcc_H.mean())
    low, median, high = (float(value) for value in np.quantile(srcc_H, (0.025, 0.5, 0.975)))
    return SplitHalf(
        srcc_H=srcc_H,
        mean=mean,
        std=float(srcc_H.std(ddof=1)),
        low=low,
        median=median,
        high=high,
        spearman_brown=spearman_brown(mean),
        half=half,
        left_out=left_out,
        videos=float(videos_H.mean()),
    )


def spearman_brown(r: float) -> float:
    """Reliability of a panel twice as large as one of reliability r, 2 r / (1 + r); NaN at -1."""
    return 2 * r / (1 + r) if r != -1 else float("nan")


@dataclass(frozen=True)
class IntraclassCorrelation:
    """Shares of variance by Shrout and Fleiss's second model: subjects and videos are both drawn at
    random, and agreement is absolute, so a subject's bias counts as disagreement.

    Attributes:
        single: ICC(2,1), the reliability of one subject's ratings.
        average: ICC(2,k), that of the mean of all k subjects.
        subjects: k, the subjects with any rating.
        videos: The videos that all of these rated, which alone are used.
        incomplete: The other videos, not used.
        left_out: Subjects without any rating.
    """

    single: float
    average: float
    subjects: int
    videos: int
    incomplete: int
    left_out: tuple[str, ...]


def intraclass_correlation(ratings: Ratings) -> IntraclassCorrelation:
    """ICC(2,1) and ICC(2,k) of the raw ratings, from the mean squares of a two-way analysis of
    variance without repetition.

    The analysis needs complete rows: videos that a subject has not rated are left out and counted.
    Both values are NaN where the ratings do not vary at all; a negative value says that the videos
    differ less than chance would have them.

    Raises:
        AnnotationError: Fewer than two subjects, or fewer than two videos that all of them rated.
    """
    given_SV = ~np.isnan(ratings.rating_SV)
    rated_S = given_SV.any(axis=1)
    left_out = tuple(s for s, rated in zip(ratings.subjects, rated_S, strict=True) if not rated)
    complete_V = given_SV[rated_S].all(axis=0)
    k, n = int(rated_S.sum()), int(complete_V.sum())
    if k < 2 or n < 2:
        raise AnnotationError(
            f"{ratings.aspect} ratings: {k} subjects rated anything, and {n} of "
            f"{len(complete_V)} videos were rated by all of these; two of each are needed for an "
            "intraclass correlation"
        )
    rating_SV = ratings.rating_SV[rated_S][:, complete_V]
    mean = rating_SV.mean()
    video_V, subject_S = rating_SV.mean(axis=0), rating_SV.mean(axis=1)
    between_videos = k * ((video_V - mean) ** 2).sum() / (n - 1)
    between_subjects = n * ((subject_S - mean) ** 2).sum() / (k - 1)
    rest_SV = rating_SV - video_V - subject_S[:, None] + mean
    error = (rest_SV**2).sum() / ((n - 1) * (k - 1))
    subject_share = (between_subjects - error) / n
    explained = between_videos - error
    total_single = between_videos + (k - 1) * error + k * subject_share
    varies = np.ptp(rating_SV) > 0
    return IntraclassCorrelation(
        single=float(explained / total_single) if varies else float("nan"),
        average=float(explained / (between_videos + subject_share)) if varies else float("nan"),
        subjects=k,
        videos=n,
        incomplete=len(complete_V) - n,
        left_out=left_out,
    )
