"""Distortion answers: four videos worked by hand, scikit-learn on random answers, the majority
answer.
"""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score, precision_score, recall_score

from lmme3dhf.metrics.vqa import distortion_scores, majority_answer
from lmme3dhf.vocabulary import DISTORTIONS

EYE, MOUTH, HAIR = DISTORTIONS[:3]


def test_scores_worked_by_hand():
    """By hand: Jaccard 1, 1/2, 0, 0 (an unparsed reply). Catches a missing video, a wrong
    denominator, and 0 where nothing
    can be said (mouth is never predicted, hair never true)."""
    scores = distortion_scores(
        predicted=[{EYE}, {EYE}, {HAIR}, set()],
        truth=[{EYE}, {EYE, MOUTH}, {EYE}, {MOUTH}],
        categories=(EYE, MOUTH, HAIR),
    )
    assert scores.accuracy == pytest.approx(1.5 / 4)
    assert scores.exact == 0.25
    assert scores.recall == pytest.approx({EYE: 2 / 3, MOUTH: 0, HAIR: np.nan}, nan_ok=True)
    assert scores.precision == pytest.approx({EYE: 1, MOUTH: np.nan, HAIR: 0}, nan_ok=True)
    assert scores.support == {EYE: 3, MOUTH: 2, HAIR: 0}
    assert scores.n == 4


def test_scores_agree_with_scikit_learn():
    """On 200 random answers. Catches recall and precision exchanged, and averaging over categories
    instead of videos.
    """
    rng = np.random.default_rng(5)
    true_NC, said_NC = rng.random((2, 200, len(DISTORTIONS))) < 0.3
    true_NC[:, 0] |= ~true_NC.any(axis=1)
    as_sets = [
        [{DISTORTIONS[c] for c in np.flatnonzero(row)} for row in table]
        for table in (said_NC, true_NC)
    ]
    scores = distortion_scores(*as_sets)
    assert scores.accuracy == pytest.approx(
        jaccard_score(true_NC, said_NC, average="samples", zero_division=0)
    )
    assert scores.exact == pytest.approx(accuracy_score(true_NC, said_NC))
    assert list(scores.recall.values()) == pytest.approx(
        recall_score(true_NC, said_NC, average=None).tolist()
    )
    assert list(scores.precision.values()) == pytest.approx(
        precision_score(true_NC, said_NC, average=None).tolist()
    )
    assert list(scores.support.values()) == true_NC.sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("predicted", "truth", "reason"),
    [
        ([], [], "0 predicted and 0 true answers"),
        ([{EYE}], [{EYE}, {EYE}], "1 predicted and 2 true answers"),
        ([{EYE}, {"Ear"}], [{EYE}, {EYE}], "row 1: category 'Ear'"),
        ([{EYE}, {EYE}], [{EYE}, set()], "row 1: no true category"),
    ],
)
def test_impossible_answers_are_refused(predicted, truth, reason):
    """Catches a mean over nothing, shifted rows, misspelt categories, and 0 / 0."""
    with pytest.raises(ValueError, match=reason):
        distortion_scores(predicted, truth)


def test_the_majority_answer_is_the_most_frequent_exact_set():
    """By hand. Catches the most frequent category (five times) or pair of them in place of the
    answer (mouth, thrice).
    """
    labels = [{MOUTH}] * 3 + [{EYE}] * 2 + [{EYE, MOUTH}] * 2 + [{EYE, HAIR}]
    assert majority_answer(labels) == {MOUTH}


def test_ties_go_to_the_vocabulary_order():
    """Catches a winner that depends on the order of the labels or on hashing."""
    labels = [{HAIR}, {EYE, HAIR}, {MOUTH}, {EYE, MOUTH}]
    assert majority_answer(labels) == majority_answer(labels[::-1]) == {EYE, MOUTH}
    assert majority_answer([{MOUTH}, {EYE}]) == {EYE}
    with pytest.raises(ValueError, match="no training labels"):
        majority_answer([])
    with pytest.raises(ValueError, match="'Ear' is not one of"):
        majority_answer([{"Ear"}])
