"""Accuracy of distortion answers (paper, Section 5.2, Table 2): several categories may be right at
once.

The paper does not define its accuracy; the mean Jaccard index is the headline here, with the share
of exact answers beside it.
"""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from lmme3dhf.vocabulary import DISTORTIONS


@dataclass(frozen=True)
class DistortionScores:
    """How well the predicted categories match the true ones; all shares in 0..1.

    Attributes:
        accuracy: Mean over videos of the Jaccard index, |intersection| / |union|.
        exact: Share of videos with exactly the true categories.
        recall: Category -> share of the videos with it where it is predicted; NaN where no video
            has it.
        precision: Category -> share of the videos predicted to have it that do; NaN where it is
            never predicted.
        support: Category -> number of videos that have it.
        n: Number of videos.
    """

    accuracy: float
    exact: float
    recall: dict[str, float]
    precision: dict[str, float]
    support: dict[str, int]
    n: int


def distortion_scores(
    predicted: Sequence[AbstractSet[str]],
    truth: Sequence[AbstractSet[str]],
    categories: Sequence[str] = DISTORTIONS,
) -> DistortionScores:
    """Compares the predicted with the true categories of each video.

    An empty prediction is an answer that could not be parsed; it counts as wrong.

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
    return DistortionScores(
        accuracy=float(jaccard_N.mean()),
        exact=float((said_NC == true_NC).all(axis=1).mean()),
        recall=_shares(both_NC, true_NC, categories),
        precision=_shares(both_NC, said_NC, categories),
        support={
            category: int(count)
            for category, count in zip(categories, true_NC.sum(axis=0), strict=True)
        },
        n=len(truth),
    )


def _shares(
    both_NC: np.ndarray, among_NC: np.ndarray, categories: Sequence[str]
) -> dict[str, float]:
    counts = zip(categories, both_NC.sum(axis=0), among_NC.sum(axis=0), strict=True)
    return {
        category: float(both / among) if among else float("nan") for category, both, among in counts
    }


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
