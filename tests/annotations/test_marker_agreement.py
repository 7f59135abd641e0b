"""Agreement of markers against Fleiss' published example, Cohen's kappa where the two coincide, and
counts made by hand.
"""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.marker_agreement import kappa, marker_agreement
from lmme3dhf.vocabulary import DISTORTIONS

EYE, MOUTH, HAIR, FEATURE, HEAD, OVERLAP, BLUR, CLOTH, NONE = DISTORTIONS

# The example that textbooks give for Fleiss' kappa: 10 subjects, 14 raters, 5 categories; how many
# raters chose each. Overall kappa .210.
EXAMPLE = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_kappa_of_the_textbook_example():
    """Fleiss (1971): the overall kappa is the mean of the categories' kappas with weights p (1 -
    p). Catches n in place of n - 1, and chance from the wrong shares.
    """
    raters = EXAMPLE.sum(axis=1)
    assert set(raters) == {14}
    shares = EXAMPLE.sum(axis=0) / EXAMPLE.sum()
    kappas = [kappa(column, raters) for column in EXAMPLE.T]
    assert np.average(kappas, weights=shares * (1 - shares)) == pytest.approx(0.210, abs=5e-4)


def test_kappa_of_two_raters_is_cohens_where_they_say_yes_equally_often():
    """Fleiss pools the raters' shares, Cohen does not; with equal shares they are one. Catches a
    kappa that is only nearly right.
    """
    first = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 0])
    second = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0, 0])
    assert first.sum() == second.sum()
    expected = cohen_kappa_score(first, second)
    assert kappa(first + second, np.full(10, 2)) == pytest.approx(expected)


def test_kappa_with_different_numbers_of_judges():
    """By hand: 3 of 3, 0 of 2 and 1 of 2 say yes. p = 4/7, disagreement 1/2, mean n 7/3: 1 - .5 /
    (3 * 4/3 * 12/49) = 1 - 49/96. Catches a constant number of judges taken for granted.
    """
    assert kappa(np.array([3, 0, 1]), np.array([3, 2, 2])) == pytest.approx(1 - 49 / 96)


@pytest.mark.parametrize(
    ("yes", "judges", "expected"),
    [
        ([3, 0], [3, 3], 1.0),
        ([1, 1], [2, 2], -1.0),
        ([0, 0], [3, 3], math.nan),
        ([3, 3], [3, 3], math.nan),
        ([], [], math.nan),
    ],
)
def test_kappa_at_its_ends(yes, judges, expected):
    """Catches a 0 or 1 where nothing can be said, as of a category that nobody names."""
    assert kappa(np.array(yes), np.array(judges)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("yes", "judges"), [([1], [1]), ([3], [2]), ([-1], [2]), ([1, 1], [2]), ([[1]], [[2]])]
)
def test_impossible_counts_are_refused(yes, judges):
    """Catches a figure made of numbers that cannot be."""
    with pytest.raises(AnnotationError, match="kappa"):
        kappa(np.array(yes), np.array(judges))


NAMED = {
    "seed0000": {"ann": {EYE, MOUTH}, "ben": {EYE}, "eve": {EYE, MOUTH}},
    "seed0001": {"ann": {NONE}, "ben": {NONE}},
    "seed0002": {"eve": {HAIR}, "ann": set()},
    "seed0003": {"ben": {BLUR}, "ann": {EYE}, "eve": set()},
}


def test_counts_by_hand():
    """Four videos of three markers with gaps. Catches a remark that was not understood counted as
    a denial, and a missing marker counted as agreeing.
    """
    found = marker_agreement(NAMED)
    assert found.markers == ("ann", "ben", "eve")
    assert (found.videos, found.compared) == (4, 3)
    assert found.missing == {"ann": 0, "ben": 1, "eve": 1}
    assert found.unmatched == {"ann": 1, "ben": 0, "eve": 1}
    assert found.named_by[EYE] == (2, 1, 0, 1)
    assert found.named_by[MOUTH] == (3, 0, 1, 0)
    assert found.named_by[HAIR] == (3, 1, 0, 0)
    assert found.named_by[NONE] == (3, 0, 1, 0)
    for counts in found.named_by.values():
        assert sum(counts) == 4


def test_overlaps_and_kappas_by_hand():
    """Pairs: ann-ben 1/2, ann-eve 1, ben-eve 1/2 on the first video; ann-ben 1 on the second, 0 on
    the fourth. Eyes: 3 of 3, 0 of 2, 1 of 2, as above. Catches pairs counted twice and a video with
    one reader counted as agreement.
    """
    found = marker_agreement(NAMED)
    assert found.jaccard == pytest.approx((0.5 + 1 + 0.5 + 1 + 0) / 5)
    assert found.jaccard_of == pytest.approx(
        {"ann": (0.5 + 1 + 1 + 0) / 4, "ben": (0.5 + 0.5 + 1 + 0) / 4, "eve": 0.75}
    )
    assert found.kappa[EYE] == pytest.approx(1 - 49 / 96)
    assert math.isnan(found.kappa[HAIR])
    assert found.kappa[NONE] == pytest.approx(1.0)


def test_one_marker_agrees_with_nobody():
    """Catches a division by zero, and perfect agreement of one."""
    found = marker_agreement({"seed0000": {"ann": {EYE}}})
    assert found.compared == 0
    assert math.isnan(found.jaccard)
    assert all(math.isnan(value) for value in found.kappa.values())
    assert found.named_by[EYE] == (0, 1)


def test_the_order_of_the_markers_does_not_matter():
    """Catches a result that depends on the order of the rows."""
    turned = {video: dict(reversed(of.items())) for video, of in reversed(NAMED.items())}
    assert repr(marker_agreement(turned)) == repr(marker_agreement(NAMED))
