"""How sure a correlation is, and whether two methods differ on the same videos.

A resample is a count of how often each video was drawn, so every measure is computed for all
resamples at once, with ties, and exactly as on the resampled list. Videos of one face are alike:
where `groups_N` is given, whole groups are drawn (cluster bootstrap), which gives wider and honest
intervals. Array legend: N videos, B resamples, K different values.

Sources: Efron and Tibshirani, An introduction to the bootstrap (1993), percentile intervals;
Williams, Journal of the Royal Statistical Society B 21 (1959); Steiger, Tests for comparing
elements of a correlation matrix, Psychological Bulletin 87 (1980), eq. 3, 7 and 14.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lmme3dhf.metrics.correlation import (
    FEWEST_PAIRS,
    checked_pairs,
    correlations,
    group_indices,
    is_constant,
)

COMPARED = ("srcc", "plcc", "krcc")
# Differences below this are rounding: PLCC of the same predictions in other units.
_NO_DIFFERENCE = 1e-12
# Rows of the pairwise table at a time: its full size would be N squared.
_BLOCK = 1024


@dataclass(frozen=True)
class Interval:
    """A percentile interval.

    Attributes:
        low: Lower end; NaN where no resample is defined.
        high: Upper end.
        undefined: Resamples on which the measure is undefined (all of one value, or fewer than
            three pairs); the interval is that of the others.
    """

    low: float
    high: float
    undefined: int


@dataclass(frozen=True)
class Difference:
    """First method less second, for one measure.

    Attributes:
        first: The first method's value.
        second: The second method's value.
        difference: First less second.
        interval: Of the difference, by resampling both methods' videos together.
        p_bootstrap: Two-sided: twice the smaller share of resamples on either side of no
            difference, those without difference on both, with one added to each count; at most 1.
        williams_t: Williams' t with n - 3 degrees of freedom, which Steiger recommends for two
            correlations that share a variable. NaN for KRCC, to which it does not apply, and where
            undefined.
        p_williams: Its two-sided p.
        steiger_z: Steiger's Z (his eq. 14: Fisher's z with the pooled correlation); NaN likewise.
        p_steiger: Its two-sided p.
    """

    first: float
    second: float
    difference: float
    interval: Interval
    p_bootstrap: float
    williams_t: float
    p_williams: float
    steiger_z: float
    p_steiger: float


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same videos.

    Attributes:
        srcc: The difference in SRCC. Williams' and Steiger's tests are then made on ranks, which is
            an approximation.
        plcc: The difference in raw PLCC.
        krcc: The difference in KRCC, by the bootstrap alone.
        n: Number of videos.
        groups: Number of groups that were resampled as a whole; None without groups. Williams' and
            Steiger's tests take videos as independent in any case: with groups look at the
            bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
        reason: Why something is undefined, as a sentence; None where nothing is.
    """

    srcc: Difference
    plcc: Difference
    krcc: Difference
    n: int
    groups: int | None
    resamples: int
    level: float
    reason: str | None = None


def bootstrap_intervals(
    predicted_N: np.ndarray,
    mos_N: np.ndarray,
    rng: np.random.Generator,
    *,
    groups_N: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of "srcc", "plcc", "krcc", "rmse" and "mae".

    They cover what another draw of videos (with `groups_N`: of faces) would change, not another
    training of the method.

    Args:
        predicted_N: Predictions.
        mos_N: Opinion scores.
        rng: Source of the resamples.
        groups_N: Group of every video (its face); None draws videos one by one.
        resamples: Number of resamples.
        level: Coverage, between 0 and 1.

    Raises:
        ValueError: As `correlations`; no videos; an impossible number of resamples or level.
    """
    predicted_N, mos_N = checked_pairs(predicted_N, mos_N)
    weight_BN, _ = _resampled(len(mos_N), rng, groups_N, resamples, level)
    measures = _correlations_of(weight_BN, predicted_N, mos_N)
    error_N, total_B = predicted_N - mos_N, weight_BN.sum(axis=1)
    measures["rmse"] = np.sqrt(weight_BN @ error_N**2 / total_B)
    measures["mae"] = weight_BN @ np.abs(error_N) / total_B
    return {name: _interval(value_B, level) for name, value_B in measures.items()}


def compare(
    first_N: np.ndarray,
    second_N: np.ndarray,
    mos_N: np.ndarray,
    rng: np.random.Generator,
    *,
    groups_N: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Whether two methods correlate differently with the opinion scores of the same videos.

    Correlations keep their sign: turn the sign of a method whose scores fall with quality first.

    Args:
        first_N: The first method's predictions.
        second_N: The second method's predictions, in the same order.
        mos_N: Opinion scores.
        rng: Source of the resamples.
        groups_N: Group of every video (its face); None draws videos one by one.
        resamples: Number of resamples.
        level: Coverage of the intervals, between 0 and 1.

    Raises:
        ValueError: As `bootstrap_intervals`.
    """
    first_N, mos_N = checked_pairs(first_N, mos_N)
    second_N, mos_N = checked_pairs(second_N, mos_N)
    n = len(mos_N)
    weight_BN, groups = _resampled(n, rng, groups_N, resamples, level)
    found = [correlations(values_N, mos_N) for values_N in (first_N, second_N)]
    first_B, second_B = (
        _correlations_of(weight_BN, values_N, mos_N) for values_N in (first_N, second_N)
    )
    reasons = [
        f"{name} method: {agreement.reason}"
        for name, agreement in zip(("first", "second"), found, strict=True)
        if agreement.reason is not None
    ]
    tests = {measure: (math.nan,) * 4 for measure in COMPARED}
    if not reasons:
        between = correlations(first_N, second_N)
        for measure in ("srcc", "plcc"):
            triple = (*(getattr(c, measure) for c in (*found, between)), n)
            tests[measure] = (*williams_t(*triple), *steiger_z(*triple))
        if np.isnan([*tests["srcc"], *tests["plcc"]]).any():
            reasons.append(
                "no test where the methods agree fully with each other or with the opinion "
                "scores, or on fewer than four videos"
            )
    differences = {
        measure: _difference(
            getattr(found[0], measure),
            getattr(found[1], measure),
            first_B[measure] - second_B[measure],
            tests[measure],
            level,
        )
        for measure in COMPARED
    }
    return Comparison(
        **differences,
        n=n,
        groups=groups,
        resamples=resamples,
        level=level,
        reason="; ".join(reasons) or None,
    )


def williams_t(first: float, second: float, between: float, n: int) -> tuple[float, float]:
    """Williams' t (Steiger 1980, eq. 7) and its two-sided p with n - 3 degrees of freedom.

    NaN with fewer than four videos, and where the three correlations leave nothing to chance (the
    two methods agree fully).

    Args:
        first: Correlation of the first method with the opinion scores.
        second: Of the second.
        between: Of the two methods with each other.
        n: Number of videos.
    """
    if n < FEWEST_PAIRS + 1 or 1 - abs(between) < 1e-12:
        return math.nan, math.nan
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    mean = (first + second) / 2
    spread = 2 * (n - 1) / (n - 3) * max(determinant, 0.0) + mean**2 * (1 - between) ** 3
    if spread <= 0:
        return math.nan, math.nan
    t = (first - second) * math.sqrt((n - 1) * (1 + between) / spread)
    return t, float(2 * stats.t.sf(abs(t), n - 3))


def steiger_z(first: float, second: float, between: float, n: int) -> tuple[float, float]:
    """Steiger's Z (1980, eq. 14, the covariance by eq. 3 at the mean correlation) and its two-sided
    p; arguments and NaN as `williams_t`, and NaN where a correlation is 1 or -1.
    """
    if n < FEWEST_PAIRS + 1 or 1 - max(abs(first), abs(second), abs(between)) < 1e-12:
        return math.nan, math.nan
    squared = ((first + second) / 2) ** 2
    covariance = between * (1 - 2 * squared) - squared / 2 * (1 - 2 * squared - between**2)
    spread = 2 - 2 * covariance / (1 - squared) ** 2
    if spread <= 0:
        return math.nan, math.nan
    z = (math.atanh(first) - math.atanh(second)) * math.sqrt((n - 3) / spread)
    return z, float(2 * stats.norm.sf(abs(z)))


def _resampled(
    n: int,
    rng: np.random.Generator,
    groups_N: Sequence[Hashable] | None,
    resamples: int,
    level: float,
) -> tuple[np.ndarray, int | None]:
    """How often each resample holds each video, (B, N), and the number of groups."""
    if n == 0:
        raise ValueError("there are no videos to resample")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"{resamples} resamples and level {level}: expected at least one, and a level between "
            "0 and 1"
        )
    if groups_N is None:
        return _counts(rng, resamples, n), None
    index_N, names = group_indices(groups_N, n)
    return _counts(rng, resamples, len(names))[:, index_N], len(names)


def _counts(rng: np.random.Generator, resamples: int, units: int) -> np.ndarray:
    drawn_BU = rng.integers(units, size=(resamples, units))
    flat = drawn_BU + units * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * units)
    return counts.reshape(resamples, units).astype(float)


def _interval(value_B: np.ndarray, level: float) -> Interval:
    defined = value_B[~np.isnan(value_B)]
    undefined = len(value_B) - len(defined)
    if len(defined) == 0:
        return Interval(math.nan, math.nan, undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), undefined)


def _difference(
    first: float,
    second: float,
    difference_B: np.ndarray,
    tests: tuple[float, float, float, float],
    level: float,
) -> Difference:
    defined = difference_B[~np.isnan(difference_B)]
    sides = [np.count_nonzero(sign * defined <= _NO_DIFFERENCE) for sign in (1, -1)]
    p = min(1.0, 2 * (int(min(sides)) + 1) / (len(defined) + 1)) if len(defined) else math.nan
    t, p_williams, z, p_steiger = tests
    return Difference(
        first=first,
        second=second,
        difference=first - second,
        interval=_interval(difference_B, level),
        p_bootstrap=p,
        williams_t=t,
        p_williams=p_williams,
        steiger_z=z,
        p_steiger=p_steiger,
    )


def _correlations_of(
    weight_BN: np.ndarray, predicted_N: np.ndarray, mos_N: np.ndarray
) -> dict[str, np.ndarray]:
    """The three correlations on every resample, NaN where undefined."""
    x, y = _ranked(predicted_N, weight_BN), _ranked(mos_N, weight_BN)
    defined_B = (weight_BN.sum(axis=1) >= FEWEST_PAIRS) & x.varies_B & y.varies_B
    measures = {
        "srcc": _pearson(weight_BN, x.rank_BN, y.rank_BN),
        "plcc": _pearson(weight_BN, predicted_N - predicted_N.mean(), mos_N - mos_N.mean()),
        "krcc": _tau_b(weight_BN, x, y),
    }
    return {name: np.where(defined_B, value_B, np.nan) for name, value_B in measures.items()}


@dataclass(frozen=True)
class _Ranked:
    """One side of the pairs in every resample.

    Attributes:
        code_N: Index of each video's value among the different values.
        rank_BN: Mid-rank of each video within the resample.
        tied_B: Number of pairs of drawn videos with the same value.
        varies_B: Whether at least two values are drawn.
    """

    code_N: np.ndarray
    rank_BN: np.ndarray
    tied_B: np.ndarray
    varies_B: np.ndarray


def _ranked(values_N: np.ndarray, weight_BN: np.ndarray) -> _Ranked:
    if is_constant(values_N):
        values_N = np.zeros_like(values_N)
    code_N = np.unique(values_N, return_inverse=True)[1]
    order_N = np.argsort(code_N, kind="stable")
    first_K = np.flatnonzero(np.diff(code_N[order_N], prepend=-1))
    count_BK = np.add.reduceat(weight_BN[:, order_N], first_K, axis=1)
    rank_BK = np.cumsum(count_BK, axis=1) - (count_BK - 1) / 2
    return _Ranked(
        code_N=code_N,
        rank_BN=rank_BK[:, code_N],
        tied_B=np.sum(count_BK * (count_BK - 1), axis=1) / 2,
        varies_B=np.count_nonzero(count_BK, axis=1) > 1,
    )


def _pearson(weight_BN: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of values (N) or values within the resample (B, N); NaN or rounding where nothing varies."""
    total_B1 = weight_BN.sum(axis=1, keepdims=True)
    x = x - np.sum(weight_BN * x, axis=1, keepdims=True) / total_B1
    y = y - np.sum(weight_BN * y, axis=1, keepdims=True) / total_B1
    weighted = weight_BN * x
    squares_B = np.sum(weighted * x, axis=1) * np.sum(weight_BN * y * y, axis=1)
    return np.clip(
        np.sum(weighted * y, axis=1) / np.sqrt(np.where(squares_B > 0, squares_B, np.nan)), -1, 1
    )


def _tau_b(weight_BN: np.ndarray, x: _Ranked, y: _Ranked) -> np.ndarray:
    """Kendall's tau-b: concordant less discordant pairs as a quadratic form in the counts, whose
    matrix (the sign of each pair) is the same for all resamples.
    """
    n = len(x.code_N)
    # Whole numbers up to N: single precision holds them exactly.
    counts = weight_BN.astype(np.float32)
    twice_B = np.zeros(len(weight_BN))
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        sign = np.sign(x.code_N[rows, None] - x.code_N) * np.sign(y.code_N[rows, None] - y.code_N)
        twice_B += np.einsum(
            "bn,bn->b", counts @ sign.T.astype(np.float32), weight_BN[:, rows], dtype=float
        )
    total_B = weight_BN.sum(axis=1)
    pairs_B = total_B * (total_B - 1) / 2
    untied_B = (pairs_B - x.tied_B) * (pairs_B - y.tied_B)
    return twice_B / 2 / np.sqrt(np.where(untied_B > 0, untied_B, np.nan))
