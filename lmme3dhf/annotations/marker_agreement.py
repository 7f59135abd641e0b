"""How far markers agree on the categories of the same videos (paper, Section 3.2: three markers a
video).

Per category: how many markers name it, and kappa, their agreement beyond chance. Over all
categories: the overlap of the sets that two markers give the same video. Array legend: V videos.

Sources: Fleiss, Measuring nominal scale agreement among many raters, Psychological Bulletin 76
(1971); Fleiss and Cuzick, The reliability of dichotomous judgments: unequal numbers of judges per
subject, Applied Psychological Measurement 3 (1979); Jaccard (1912).
"""

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.vocabulary import DISTORTIONS


@dataclass(frozen=True)
class MarkerAgreement:
    """Agreement of k markers.

    Attributes:
        markers: Their names, sorted.
        videos: Number of videos with a remark by anybody.
        compared: Number of videos on which two markers or more could be read: kappa and the
            overlaps are about these.
        missing: Marker -> videos without a remark by this marker.
        unmatched: Marker -> this marker's remarks that fit no rule.
        named_by: Category -> number of videos on which exactly 0, 1, ..., k markers name it.
        kappa: Category -> kappa over the compared videos; NaN where nobody, or everybody, names it.
        jaccard: Mean of |A and B| / |A or B| over all pairs of markers on the same video, 0..1; NaN
            without a pair.
        jaccard_of: Marker -> the same over the pairs with this marker.
    """

    markers: tuple[str, ...]
    videos: int
    compared: int
    missing: dict[str, int]
    unmatched: dict[str, int]
    named_by: dict[str, tuple[int, ...]]
    kappa: dict[str, float]
    jaccard: float
    jaccard_of: dict[str, float]


def marker_agreement(categories: Mapping[str, Mapping[str, Collection[str]]]) -> MarkerAgreement:
    """Compares what markers name.

    A remark that fits no rule is no judgement: its video counts as not judged by that marker. "No
    distortion" is one, and two markers who say so agree fully.

    Args:
        categories: Video -> marker -> categories, empty where the remark fits no rule. A marker may
            be missing on some videos.
    """
    markers = tuple(sorted({marker for of_video in categories.values() for marker in of_video}))
    judged = [
        {marker: frozenset(named) for marker, named in of_video.items() if named}
        for of_video in categories.values()
    ]
    compared = [of_video for of_video in judged if len(of_video) >= 2]
    judges_V = np.array([len(of_video) for of_video in compared])
    overlaps = [
        (pair, _overlap(of_video[pair[0]], of_video[pair[1]]))
        for of_video in compared
        for pair in itertools.combinations(of_video, 2)
    ]
    return MarkerAgreement(
        markers=markers,
        videos=len(categories),
        compared=len(compared),
        missing={m: sum(m not in of for of in categories.values()) for m in markers},
        unmatched={m: sum(m in of and not of[m] for of in categories.values()) for m in markers},
        named_by={
            category: tuple(
                np.bincount(_naming(judged, category), minlength=len(markers) + 1).tolist()
            )
            for category in DISTORTIONS
        },
        kappa={c: kappa(_naming(compared, c), judges_V) for c in DISTORTIONS},
        jaccard=_mean([overlap for _, overlap in overlaps]),
        jaccard_of={
            m: _mean([overlap for pair, overlap in overlaps if m in pair]) for m in markers
        },
    )


def _naming(videos: list[dict[str, frozenset[str]]], category: str) -> np.ndarray:
    return np.array([sum(category in c for c in of_video.values()) for of_video in videos], int)


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def kappa(yes_V: np.ndarray, judges_V: np.ndarray) -> float:
    """Agreement beyond chance on a question of yes or no, by judges who may differ from video to
    video: Fleiss and Cuzick (1979), which is Fleiss' kappa (1971) where their number is constant.

    With x of n judges saying yes on each of V videos, and p the share of yes among all judgements:
    1 - sum(x (n - x) / n) / (V (mean(n) - 1) p (1 - p)).

    Args:
        yes_V: Judges who say yes.
        judges_V: Judges, at least 2 on every video.

    Returns:
        At most 1; 0 where they agree as by chance; NaN where all judgements are alike or there are
        none.

    Raises:
        AnnotationError: Shapes that differ, fewer than 2 judges, or more of them saying yes than
            there are.
    """
    yes_V, judges_V = np.asarray(yes_V, float), np.asarray(judges_V, float)
    if yes_V.shape != judges_V.shape or yes_V.ndim != 1:
        raise AnnotationError(
            f"kappa of answers {yes_V.shape} and judges {judges_V.shape}: expected one number of "
            "each per video"
        )
    if np.any(judges_V < 2) or np.any(yes_V < 0) or np.any(yes_V > judges_V):
        raise AnnotationError(
            "kappa: expected at least 2 judges on every video, and 0 to all of them saying yes; "
            "leave out videos with fewer"
        )
    if yes_V.sum() in (0, judges_V.sum()):
        return math.nan
    share = yes_V.sum() / judges_V.sum()
    disagreement = np.sum(yes_V * (judges_V - yes_V) / judges_V)
    by_chance = len(judges_V) * (judges_V.mean() - 1) * share * (1 - share)
    return float(1 - disagreement / by_chance)
