"""Agreement of predicted level words with the true ones (paper, Section 4.2).

A reply without a level word is an answer like any other, and a wrong one: nothing here leaves it
out. Array legend: L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmme3dhf.vocabulary import LEVELS


@dataclass(frozen=True)
class LevelScores:
    """How well level words are met; NaN where undefined.

    Attributes:
        accuracy: Share of videos with the true level, 0..1.
        within_one: Share of videos with the true level or a neighbour of it, 0..1.
        macro_f1: Mean of the levels' F1, 0..1, over the levels that are said or true somewhere. A
            video without a level word is missed by its true level.
        kappa: Cohen's kappa with quadratic weights, at most 1; 0 is what an answer that knows
            nothing of the video gets. To say no level counts as one more answer, as far from every
            true level as the farthest of them: over the answered videos alone a method would
            gain by keeping silent where it is unsure. NaN where all are of one level and said to
            be.
        confusion: Number of videos, (L, L + 1): rows the true level, columns the level said, from
            the lowest; the last column counts videos without a level word.
        n: Number of videos.
    """

    accuracy: float
    within_one: float
    macro_f1: float
    kappa: float
    confusion: np.ndarray
    n: int


def level_scores(
    predicted: Sequence[str | None], truth: Sequence[str], levels: Sequence[str] = LEVELS
) -> LevelScores:
    """Compares the predicted with the true level of each video; without videos all shares are NaN.

    None, or a word that is no level, is wrong everywhere and counted in the last column of
    `confusion`.

    Args:
        predicted: A level word, or None, for each video.
        truth: The true level words.
        levels: The words, from the lowest scores to the highest.

    Raises:
        ValueError: Different lengths, or a true level that is not one of the words.
    """
    if len(predicted) != len(truth):
        raise ValueError(
            f"{len(predicted)} predicted and {len(truth)} true levels; expected one prediction a "
            "row"
        )
    count = len(levels)
    confusion = np.zeros((count, count + 1), dtype=int)
    for row, (said, right) in enumerate(zip(predicted, truth, strict=True)):
        if right not in levels:
            raise ValueError(f"true level {right!r} in row {row} is not one of {', '.join(levels)}")
        confusion[levels.index(right), levels.index(said) if said in levels else count] += 1
    n = len(truth)
    if n == 0:
        return LevelScores(np.nan, np.nan, np.nan, np.nan, confusion, 0)
    true_L, said_L = confusion.sum(axis=1), confusion.sum(axis=0)[:count]
    hit_L = np.diag(confusion)
    occurs_L = true_L + said_L > 0
    f1_L = 2 * hit_L[occurs_L] / (true_L + said_L)[occurs_L]
    level_L = np.arange(count)
    distance_LL = np.abs(level_L[:, None] - level_L)
    return LevelScores(
        accuracy=float(hit_L.sum() / n),
        within_one=float(confusion[:, :count][distance_LL <= 1].sum() / n),
        macro_f1=float(f1_L.mean()),
        kappa=_quadratic_kappa(confusion, distance_LL),
        confusion=confusion,
        n=n,
    )


def _quadratic_kappa(confusion: np.ndarray, distance_LL: np.ndarray) -> float:
    """1 less the ratio of the squared distances seen to those expected by chance (Cohen,
    Psychological Bulletin 70, 1968)."""
    distance = np.column_stack([distance_LL, distance_LL.max(axis=1)]) ** 2
    expected = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / confusion.sum()
    if not (distance * expected).any():
        return float("nan")
    return float(1 - (distance * confusion).sum() / (distance * expected).sum())


def level_accuracy(
    predicted: Sequence[str | None], truth: Sequence[str], levels: Sequence[str] = LEVELS
) -> float:
    """Share of rows whose predicted level word is the true one (`level_scores`), 0..1."""
    return level_scores(predicted, truth, levels).accuracy
