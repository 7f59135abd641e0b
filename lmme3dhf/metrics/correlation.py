"""Agreement of predicted scores and levels with the subjects' (paper, Section 5.1: SRCC, PLCC,
KRCC; level accuracy).

PLCC is raw, without a fitted curve before it, as in the released code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lmme3dhf.vocabulary import LEVELS

# A spread below this share of the values is rounding, not prediction.
CONSTANT_SPREAD = 1e-12


@dataclass(frozen=True)
class Correlations:
    """Rank, linear and pairwise correlation, each in -1..1 or NaN where undefined.

    Attributes:
        srcc: Spearman's rho (ties get their mean rank).
        plcc: Pearson's r of the raw values.
        krcc: Kendall's tau-b.
        n: Number of pairs.
    """

    srcc: float
    plcc: float
    krcc: float
    n: int


def correlations(predicted_N: np.ndarray, mos_N: np.ndarray) -> Correlations:
    """SRCC, raw PLCC and KRCC (tau-b) of N predictions with their opinion scores, on any scales.

    With fewer than three pairs, or where either side is constant, all three are NaN (never 0).

    Raises:
        ValueError: Not one-dimensional, different lengths, or values that are not finite (their
            rows are named).
    """
    predicted_N, mos_N = np.asarray(predicted_N, dtype=float), np.asarray(mos_N, dtype=float)
    if predicted_N.ndim != 1 or predicted_N.shape != mos_N.shape:
        raise ValueError(
            f"predictions {predicted_N.shape} and scores {mos_N.shape}: expected two lists of the "
            "same length"
        )
    for name, values_N in (("prediction", predicted_N), ("opinion score", mos_N)):
        rows = np.flatnonzero(~np.isfinite(values_N)).tolist()
        if rows:
            more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
            raise ValueError(
                f"the {name} is not finite in rows {rows[:10]}{more} of {len(values_N)}; predict "
                "or remove these rows"
            )
    n = len(mos_N)
    if n < 3 or _constant(predicted_N) or _constant(mos_N):
        return Correlations(np.nan, np.nan, np.nan, n)
    return Correlations(
        srcc=float(stats.spearmanr(predicted_N, mos_N).statistic),
        plcc=float(stats.pearsonr(predicted_N, mos_N).statistic),
        krcc=float(stats.kendalltau(predicted_N, mos_N, variant="b").statistic),
        n=n,
    )


def _constant(values_N: np.ndarray) -> bool:
    return np.ptp(values_N) <= CONSTANT_SPREAD * np.abs(values_N).max()


def level_accuracy(predicted: Sequence[str | None], truth: Sequence[str]) -> float:
    """Share of rows whose predicted level word is the true one, 0..1; NaN without rows.

    None, or a word that is no level, is a wrong answer: an unparsable reply does not leave the
    count.

    Raises:
        ValueError: Different lengths, or a true level that is not one of the five.
    """
    if len(predicted) != len(truth):
        raise ValueError(
            f"{len(predicted)} predicted and {len(truth)} true levels; expected one prediction a "
            "row"
        )
    for row, word in enumerate(truth):
        if word not in LEVELS:
            raise ValueError(f"true level {word!r} in row {row} is not one of {', '.join(LEVELS)}")
    if not truth:
        return float("nan")
    return sum(a == b for a, b in zip(predicted, truth, strict=True)) / len(truth)
