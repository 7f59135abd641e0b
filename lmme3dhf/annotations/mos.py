"""Opinion scores from raw ratings (paper, Section 3.3, Eq. 1-3; ITU-T P.910 and P.913).

Two rules make one score a video out of many subjects' ratings, after a screening has taken out the
subjects who are not to be trusted:

- `zscore`, the paper's: each subject's ratings are standardised over the videos that this subject
  judged, mapped linearly to the aspect's scale, and averaged per video.
- `mle`, the maximum-likelihood recovery of ITU-T P.910 (2023) and P.913 (2021): a rating is the
  video's quality plus the subject's bias plus noise of the subject's own size, its inconsistency.
  All three are estimated together, so a careless subject weighs little instead of being thrown out.

What their scores mean differs and must not be mixed: see `zscore` and `most_likely`. A higher
rating is a higher score, whatever the direction of the scale. Array legend: S subjects, V videos.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.csgraph import connected_components

from lmme3dhf.annotations import AnnotationError, require_known
from lmme3dhf.annotations.ratings import Ratings, z_scores
from lmme3dhf.annotations.screening import (
    CORRELATION_LIMIT,
    SCREENINGS,
    correlation_with_others,
    shares,
)

CI95_DEVIATIONS = 1.96  # ITU-R BT.500-13, Annex 2: delta = 1.96 S / sqrt(N)

# Alternating projection ends when no score moves by more, in units of the ratings.
MLE_TOLERANCE = 1e-9
MLE_ITERATIONS = 10_000
# An inconsistency counts as this share of the slider at least: nobody repeats a position better.
# See `most_likely`.
INCONSISTENCY_FLOOR = 0.02


@dataclass(frozen=True)
class SubjectReport:
    """What became of one subject.

    Attributes:
        subject: Its name.
        ratings: How many videos it rated.
        high: P of ITU-R BT.500, how many of its ratings lie far above the others'. Like the next
            four not looked at (0 or NaN) where the rule cannot use the subject at all.
        low: Q, how many lie far below.
        outside: (P + Q) / ratings.
        imbalance: |P - Q| / (P + Q); NaN where both are 0.
        correlation: Pearson's r of its ratings with the mean of all others that the rule can use;
            NaN with fewer than three common videos or without variation.
        bias: By how much it rates higher than the panel, in units of the ratings; None where the
            rule does not estimate it or the subject does not count.
        inconsistency: Standard deviation of its ratings from quality plus bias, in units of the
            ratings; None as above, never below `INCONSISTENCY_FLOOR` of the slider.
        rejected: Why it does not count, as a part of a sentence; None where it counts.
    """

    subject: str
    ratings: int
    high: int
    low: int
    outside: float
    imbalance: float
    correlation: float
    bias: float | None
    inconsistency: float | None
    rejected: str | None


@dataclass(frozen=True)
class OpinionScores:
    """The scores of one aspect.

    Attributes:
        videos: Names of the V videos, in the order of the ratings.
        mos_V: Opinion scores on the aspect's scale; an extreme video can lie a little outside.
        std_V: Standard deviation of one subject's rating on the same scale; how it is found, the
            rule says. NaN where it is not known.
        count_V: Number of subjects behind each score.
        ci95_V: Half width of the 95 % confidence interval, 1.96 std / sqrt(count) (ITU-R BT.500).
        subjects: A report on every subject, in the order of the ratings.
    """

    videos: tuple[str, ...]
    mos_V: np.ndarray
    std_V: np.ndarray
    count_V: np.ndarray
    ci95_V: np.ndarray
    subjects: tuple[SubjectReport, ...]

    @property
    def left_out(self) -> dict[str, str]:
        """Subject that does not count -> the reason."""
        return {r.subject: r.rejected for r in self.subjects if r.rejected is not None}


def mean_opinion_scores(
    ratings: Ratings,
    *,
    rule: str = "zscore",
    screening: str = "bt500",
    ddof: int = 1,
    correlation_limit: float = CORRELATION_LIMIT,
) -> OpinionScores:
    """Opinion scores of one aspect, with a report on every subject.

    Subjects whom the rule cannot use are left out first, then the screening judges the others, then
    the rule scores the videos by those who are left. Every subject left out is named with the
    reason.

    Args:
        ratings: The raw ratings.
        rule: One of `RULES`.
        screening: One of `SCREENINGS`.
        ddof: Degrees of freedom of the deviation in ITU-R BT.500: 1 as the Recommendation has it, 0
            as the `sureal` package does.
        correlation_limit: Threshold of the screening "p913".

    Raises:
        AnnotationError: A name or `ddof` that does not exist, a video without a rating by any
            subject that counts, or ratings that the rule cannot solve.
    """
    require_known("rule", rule, RULES)
    require_known("screening", screening, SCREENINGS)
    if ddof not in (0, 1):
        raise AnnotationError(f"ddof is {ddof!r}, expected 0 or 1")
    rating_SV = ratings.rating_SV
    reason_S = [RULES[rule].unusable(row, len(ratings.videos)) for row in rating_SV]
    usable = [index for index, reason in enumerate(reason_S) if reason is None]
    _require_ratings(ratings, reason_S)

    screened = SCREENINGS[screening](rating_SV[usable], ddof=ddof, limit=correlation_limit)
    high_S, low_S = np.zeros((2, len(rating_SV)), dtype=int)
    correlation_S = np.full(len(rating_SV), np.nan)
    high_S[usable], low_S[usable] = screened.high_S, screened.low_S
    correlation_S[usable] = correlation_with_others(rating_SV[usable])
    for index, reason in zip(usable, screened.reason_S, strict=True):
        reason_S[index] = reason
    _require_ratings(ratings, reason_S)

    kept = [index for index, reason in enumerate(reason_S) if reason is None]
    names = tuple(ratings.subjects[index] for index in kept)
    recovered = RULES[rule].scores(replace(ratings, subjects=names, rating_SV=rating_SV[kept]))
    count_V = np.count_nonzero(~np.isnan(rating_SV[kept]), axis=0)
    reports = []
    for index, (subject, rating_V) in enumerate(zip(ratings.subjects, rating_SV, strict=True)):
        count, high, low = np.count_nonzero(~np.isnan(rating_V)), high_S[index], low_S[index]
        looked_at = index in usable
        outside, imbalance = shares(high, low, count if looked_at else 0)
        reports.append(
            SubjectReport(
                subject=subject,
                ratings=int(count),
                high=int(high),
                low=int(low),
                outside=float(outside),
                imbalance=float(imbalance),
                correlation=float(correlation_S[index]),
                bias=recovered.bias.get(subject),
                inconsistency=recovered.inconsistency.get(subject),
                rejected=reason_S[index],
            )
        )
    ci95_V = CI95_DEVIATIONS * recovered.std_V / np.sqrt(count_V)
    return OpinionScores(
        ratings.videos, recovered.mos_V, recovered.std_V, count_V, ci95_V, tuple(reports)
    )


def _require_ratings(ratings: Ratings, reason_S: list[str | None]) -> None:
    kept = [reason is None for reason in reason_S]
    count_V = np.count_nonzero(~np.isnan(ratings.rating_SV[kept]), axis=0)
    unrated = [video for video, count in zip(ratings.videos, count_V, strict=True) if count == 0]
    if unrated:
        left_out = [
            f"{subject}: {reason}"
            for subject, reason in zip(ratings.subjects, reason_S, strict=True)
            if reason is not None
        ]
        first = f", first {left_out[0]}" if left_out else ""
        raise AnnotationError(
            f"{ratings.aspect} ratings: {len(unrated)} of {len(ratings.videos)} videos have no "
            f"rating that counts, first {', '.join(unrated[:3])} ({len(left_out)} of "
            f"{len(ratings.subjects)} subjects do not count{first}); collect ratings for these "
            "videos or remove them"
        )


@dataclass(frozen=True)
class Recovered:
    """What a rule finds: scores and deviations as in `OpinionScores`; bias and inconsistency by
    subject, in units of the ratings, empty where the rule has none.
    """

    mos_V: np.ndarray
    std_V: np.ndarray
    bias: dict[str, float]
    inconsistency: dict[str, float]


@dataclass(frozen=True)
class Rule:
    """A way from ratings to scores.

    Attributes:
        unusable: A subject's row of ratings and the number of videos -> why the rule cannot use the
            subject, None where it can.
        scores: The ratings of the subjects that count, every video rated -> the scores.
    """

    unusable: Callable[[np.ndarray, int], str | None]
    scores: Callable[[Ratings], Recovered]


def too_few(rating_V: np.ndarray, videos: int) -> str | None:
    """Two ratings are needed to see more of a subject than where it stands as a whole."""
    count = np.count_nonzero(~np.isnan(rating_V))
    if count < 2:
        return f"rated {count} of {videos} videos; two are needed to know a subject's spread"
    return None


def too_few_or_alike(rating_V: np.ndarray, videos: int) -> str | None:
    """Without two different ratings there is no standard deviation to divide by."""
    given = rating_V[~np.isnan(rating_V)]
    if len(given) >= 2 and given.min() == given.max():
        return f"gave all {len(given)} videos the same rating, {given[0]:g}"
    return too_few(rating_V, videos)


def zscore(ratings: Ratings) -> Recovered:
    """Eq. 1-3: z per subject, mapped to minimum + (maximum - minimum) (z + 3) / 6 of the scale (100
    (z + 3) / 6 in the paper), mean over the subjects who rated the video.

    The scale is one of the panel: its middle is an average video of the set, a sixth of it a
    standard deviation of one subject's ratings. It says nothing about positions of the slider.
    std_V is the sample deviation (ddof 1) of the subjects' scaled ratings, NaN where a single
    subject counts.
    """
    scale = ratings.scale
    width = scale.maximum - scale.minimum
    scaled_SV = scale.minimum + width * (z_scores(ratings.rating_SV) + 3) / 6
    # Departure D7: Eq. 3 prints 1/N and no sum; here it is the mean over the subjects who rated.
    mos_V = np.nanmean(scaled_SV, axis=0)
    count_V = np.count_nonzero(~np.isnan(scaled_SV), axis=0)
    squares_V = np.nansum((scaled_SV - mos_V) ** 2, axis=0)
    std_V = np.sqrt(
        np.divide(squares_V, count_V - 1, out=np.full(len(mos_V), np.nan), where=count_V > 1)
    )
    return Recovered(mos_V, std_V, {}, {})


def most_likely(ratings: Ratings) -> Recovered:
    """Maximum likelihood for rating = psi_V + bias_S + inconsistency_S * normal noise, by
    alternating projection (ITU-T P.910, P.913).

    Given the qualities psi_V, a subject's bias is the mean of what is left of its ratings and its
    inconsistency the deviation of the rest; given these, psi_V is the mean of the bias-free ratings
    weighted by 1 / inconsistency^2. The two steps alternate, from the plain means, until no psi
    moves by more than `MLE_TOLERANCE`. Missing ratings take no part. Only the sum of psi and bias
    is determined, so the biases are shifted to mean 0 over the subjects.

    The scores are positions of the slider, whose ends become the ends of the scale: 0..5 becomes
    0..100 as 100 psi / 5, and 50 is its middle, not the average video as with `zscore`. A video
    rated only by strict or only by generous subjects can lie a little outside.

    The likelihood has no maximum where psi follows one subject so closely that its inconsistency
    goes to 0 and its weight to infinity. That happens to a subject whose noise is below sqrt(3 / N)
    of that of N others: nearly always in panels of three to five, often below ten, hardly with 24.
    Such scores are one subject's ratings, worse than those of `zscore`, and are refused. Where
    several subjects agree perfectly there is nothing to follow; their inconsistency counts as
    `INCONSISTENCY_FLOOR`, so their weights are finite and equal.

    std_V is the model's deviation of one rating without its bias, the root of the harmonic mean of
    the squared inconsistencies of those who rated; std_V / sqrt(count) is the model's standard
    error of the score, with biases and inconsistencies taken as known. The ratings of a subject
    who is alone are the scores; its noise is not known, so std_V is NaN.

    Raises:
        AnnotationError: The subjects fall into groups without a common video, whose biases cannot
            be compared, the scores follow one subject without end, or the steps do not settle
            within `MLE_ITERATIONS`.
    """
    given_SV = ~np.isnan(ratings.rating_SV)
    _require_one_group(ratings, given_SV)
    rating_SV = np.where(given_SV, ratings.rating_SV, 0)
    count_S, count_V = given_SV.sum(axis=1), given_SV.sum(axis=0)
    psi_V = rating_SV.sum(axis=0) / count_V
    slider, scale = ratings.slider, ratings.scale
    floor = INCONSISTENCY_FLOOR * (slider.maximum - slider.minimum)
    for _ in range(MLE_ITERATIONS):
        bias_S = (given_SV * (rating_SV - psi_V)).sum(axis=1) / count_S
        free_SV = given_SV * (rating_SV - bias_S[:, None])
        noise_SV = free_SV - given_SV * psi_V
        inconsistency_S = np.sqrt((noise_SV**2).sum(axis=1) / count_S)
        inconsistency_S = np.maximum(inconsistency_S, floor)
        weight_S = inconsistency_S**-2
        before_V, psi_V = psi_V, weight_S @ free_SV / (weight_S @ given_SV)
        moved = np.abs(psi_V - before_V).max()
        if moved <= MLE_TOLERANCE:
            break
    else:
        raise AnnotationError(
            f"{ratings.aspect} ratings: rule 'mle' has not settled after {MLE_ITERATIONS} "
            f"iterations (a score still moves by {moved:.1g}); too few videos have several "
            "raters in common, collect more ratings or use rule 'zscore'"
        )
    _require_no_leader(ratings, given_SV, inconsistency_S, weight_S, floor)
    psi_V, bias_S = psi_V + bias_S.mean(), bias_S - bias_S.mean()
    unit = (scale.maximum - scale.minimum) / (slider.maximum - slider.minimum)
    mos_V = scale.minimum + unit * (psi_V - slider.minimum)
    bias = dict(zip(ratings.subjects, bias_S.tolist(), strict=True))
    if len(ratings.subjects) == 1:
        return Recovered(mos_V, np.full(psi_V.shape, np.nan), bias, {})
    return Recovered(
        mos_V=mos_V,
        std_V=unit * np.sqrt(count_V / (weight_S @ given_SV)),
        bias=bias,
        inconsistency=dict(zip(ratings.subjects, inconsistency_S.tolist(), strict=True)),
    )


def _require_one_group(ratings: Ratings, given_SV: np.ndarray) -> None:
    common_SS = given_SV.astype(int) @ given_SV.T.astype(int)
    groups, group_S = connected_components(common_SS, directed=False)
    if groups > 1:
        apart = int(np.flatnonzero(group_S != group_S[0])[0])
        raise AnnotationError(
            f"{ratings.aspect} ratings: the subjects fall into {groups} groups that rated no "
            f"common video, {ratings.subjects[0]!r} in one and {ratings.subjects[apart]!r} in "
            "another; rule 'mle' cannot compare their biases, use rule 'zscore' or let somebody "
            "rate videos of both"
        )


def _require_no_leader(
    ratings: Ratings,
    given_SV: np.ndarray,
    inconsistency_S: np.ndarray,
    weight_S: np.ndarray,
    floor: float,
) -> None:
    shared_SV = given_SV & (given_SV.sum(axis=0) > 1)
    share_SV = weight_S[:, None] / (weight_S @ given_SV)
    for subject, noise, shared_V, share_V in zip(
        ratings.subjects, inconsistency_S, shared_SV, share_SV, strict=True
    ):
        if noise <= floor and shared_V.any() and share_V[shared_V].mean() > 0.5:
            raise AnnotationError(
                f"{ratings.aspect} ratings: rule 'mle' has no best solution here, its scores "
                f"follow subject {subject!r} without end (inconsistency below {floor:g}, "
                f"{len(ratings.subjects)} subjects count); use rule 'zscore' or collect ratings "
                "by more subjects"
            )


RULES: dict[str, Rule] = {
    "zscore": Rule(too_few_or_alike, zscore),
    "mle": Rule(too_few, most_likely),
}
