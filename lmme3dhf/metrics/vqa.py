"""Accuracy of distortion answers (paper, Section 5.2, Table 2): several categories may be right at
once.

The paper prints one "Accuracy" and does not define it. `ACCURACIES` names three definitions, so
that a table can say which one its column shows; the mean Jaccard index is the headline here. An
answer in which no category could be read is wrong everywhere and counted. Array legend: N videos, C
categories.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from lmme3dhf.vocabulary import DISTORTIONS

# Attribute of `DistortionScores` -> what it is, in a table's words; the headline first.
ACCURACIES = {
    "jaccard": "mean over videos of the Jaccard index: categories both named and true, divided by "
    "those named or true",
    "exact": "share of videos whose named categories are exactly the true ones",
    "top1": "share of videos whose first named category (of a likelihood answer: the most likely "
    "one) is among the true ones",
}


@dataclass(frozen=True)
class DistortionScores:
    """How well the predicted categories match the true ones; all shares in 0..1.

    Attributes:
        jaccard: Mean over videos of the Jaccard index, |intersection| / |union|.
        exact: Share of videos with exactly the true categories.
        top1: Share of videos whose first predicted category is true; NaN where an answer names two
            or more without order (a set).
        recall: Category -> share of the videos with it where it is predicted; NaN where no video
            has it.
        precision: Category -> share of the videos predicted to have it that do; NaN where it is
            never predicted.
        f1: Category -> their harmonic mean, 2 TP / (2 TP + FP + FN); NaN where it is neither
            predicted nor true anywhere.
        support: Category -> number of videos that have it.
        micro_f1: F1 of all categories counted together.
        macro_f1: Mean of the categories' F1 where defined.
        confusion: Shares of videos added up, (C, C + 1): rows the true category, columns the
            predicted one. A true category that is predicted counts on the diagonal. One that is
            missed counts, in equal shares, with the categories that are predicted wrongly for its
            video, and in the last column ("nothing") where there are none. So each row adds up to
            the category's support, and with one category a video it is the ordinary confusion
            matrix. Wrong categories beside a complete answer show in `precision` only.
        unparsed: Number of videos without any predicted category.
        n: Number of videos.
    """

    jaccard: float
    exact: float
    top1: float
    recall: dict[str, float]
    precision: dict[str, float]
    f1: dict[str, float]
    support: dict[str, int]
    micro_f1: float
    macro_f1: float
    confusion: np.ndarray
    unparsed: int
    n: int


def distortion_scores(
    predicted: Sequence[Collection[str]],
    truth: Sequence[AbstractSet[str]],
    categories: Sequence[str] = DISTORTIONS,
) -> DistortionScores:
    """Compares the predicted with the true categories of each video.

    Args:
        predicted: Each video's categories in the order in which they were named, the most likely
            first where they come from likelihoods; as a set where no order is known. Empty for an
            answer that could not be parsed, which counts as wrong.
        truth: Each video's true categories.
        categories: What may be named, in the order of the tables.

    Raises:
        ValueError: No videos, different lengths, a video without true category, or a word outside
            `categories`.
    """
    if len(predicted) != len(truth) or not truth:
        raise ValueError(
            f"{len(predicted)} predicted and {len(truth)} true answers; expected the same number, "
            "at least one"
        )
    for row, (answer, right) in enumerate(zip(predicted, truth, strict=True)):
        unknown = sorted((set(answer) | set(right)) - set(categories))
        if unknown:
            raise ValueError(
                f"row {row}: category {unknown[0]!r} is not one of {', '.join(categories)}"
            )
        if not right:
            raise ValueError(f"row {row}: no true category; a clean video has the category for it")

    said_NC = np.array([[category in answer for category in categories] for answer in predicted])
    true_NC = np.array([[category in right for category in categories] for right in truth])
    both_NC = said_NC & true_NC
    jaccard_N = both_NC.sum(axis=1) / (said_NC | true_NC).sum(axis=1)
    both_C, said_C, true_C = (table.sum(axis=0) for table in (both_NC, said_NC, true_NC))
    f1 = _shares(2 * both_C, said_C + true_C, categories)
    return DistortionScores(
        jaccard=float(jaccard_N.mean()),
        exact=float((said_NC == true_NC).all(axis=1).mean()),
        top1=_top1(predicted, truth),
        recall=_shares(both_C, true_C, categories),
        precision=_shares(both_C, said_C, categories),
        f1=f1,
        support={c: int(count) for c, count in zip(categories, true_C, strict=True)},
        micro_f1=float(2 * both_C.sum() / (said_C + true_C).sum()),
        macro_f1=float(np.nanmean(list(f1.values()))),
        confusion=_confusion(said_NC, true_NC),
        unparsed=int((~said_NC.any(axis=1)).sum()),
        n=len(truth),
    )


def _shares(part_C: np.ndarray, whole_C: np.ndarray, categories: Sequence[str]) -> dict[str, float]:
    counts = zip(categories, part_C, whole_C, strict=True)
    return {
        category: float(part / whole) if whole else float("nan") for category, part, whole in counts
    }


def _top1(predicted: Sequence[Collection[str]], truth: Sequence[AbstractSet[str]]) -> float:
    if any(isinstance(answer, AbstractSet) and len(answer) > 1 for answer in predicted):
        return float("nan")
    pairs = zip(predicted, truth, strict=True)
    return float(np.mean([next(iter(answer), None) in right for answer, right in pairs]))


def _confusion(said_NC: np.ndarray, true_NC: np.ndarray) -> np.ndarray:
    missed_NC, wrong_NC = true_NC & ~said_NC, said_NC & ~true_NC
    wrong_N1 = wrong_NC.sum(axis=1, keepdims=True)
    instead = np.column_stack([wrong_NC, wrong_N1 == 0]) / np.maximum(wrong_N1, 1)
    confusion = missed_NC.astype(float).T @ instead
    confusion[:, :-1] += np.diag((said_NC & true_NC).sum(axis=0))
    return confusion


def majority_answer(train_truth: Sequence[AbstractSet[str]]) -> frozenset[str]:
    """The single most frequent exact answer of the training labels: the floor that a model must
    beat.

    Among equally frequent answers the one whose categories come first in the vocabulary wins.

    Raises:
        ValueError: No labels, or a word that is not one of the nine categories.
    """
    if not train_truth:
        raise ValueError("no training labels; the majority answer needs at least one")
    counts = Counter(frozenset(right) for right in train_truth)
    unknown = sorted(set().union(*counts) - set(DISTORTIONS))
    if unknown:
        raise ValueError(f"category {unknown[0]!r} is not one of {', '.join(DISTORTIONS)}")
    return min(counts, key=lambda right: (-counts[right], sorted(map(DISTORTIONS.index, right))))
