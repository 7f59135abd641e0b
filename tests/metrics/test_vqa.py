"""Distortion answers: four videos worked by hand, scikit-learn on random answers, the majority
answer.
"""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    jaccard_score,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from lmme3dhf.metrics.vqa import ACCURACIES, distortion_scores, majority_answer
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
    assert scores.jaccard == pytest.approx(1.5 / 4)
    assert scores.exact == 0.25
    assert scores.recall == pytest.approx({EYE: 2 / 3, MOUTH: 0, HAIR: np.nan}, nan_ok=True)
    assert scores.precision == pytest.approx({EYE: 1, MOUTH: np.nan, HAIR: 0}, nan_ok=True)
    assert scores.support == {EYE: 3, MOUTH: 2, HAIR: 0}
    assert scores.f1 == {EYE: pytest.approx(4 / 5), MOUTH: 0, HAIR: 0}
    assert scores.macro_f1 == pytest.approx(4 / 5 / 3)
    assert scores.micro_f1 == pytest.approx(2 * 2 / (3 + 5))
    assert scores.top1 == 0.5
    assert scores.unparsed == 1
    assert scores.n == 4
    # Eye: twice met, once hair in its place. Mouth: nothing in its place, twice.
    assert scores.confusion.tolist() == [[2, 0, 1, 0], [0, 0, 0, 2], [0, 0, 0, 0]]


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
    assert scores.jaccard == pytest.approx(
        jaccard_score(true_NC, said_NC, average="samples", zero_division=0)
    )
    assert scores.exact == pytest.approx(accuracy_score(true_NC, said_NC))
    precision, recall, f1, support = precision_recall_fscore_support(
        true_NC, said_NC, zero_division=np.nan
    )
    assert list(scores.recall.values()) == pytest.approx(recall.tolist())
    assert list(scores.precision.values()) == pytest.approx(precision.tolist())
    assert list(scores.f1.values()) == pytest.approx(f1.tolist())
    assert list(scores.support.values()) == support.tolist()
    for average, ours in (("micro", scores.micro_f1), ("macro", scores.macro_f1)):
        assert ours == pytest.approx(
            precision_recall_fscore_support(true_NC, said_NC, average=average)[2]
        )
    hits_C = multilabel_confusion_matrix(true_NC, said_NC)[:, 1, 1]
    assert np.diag(scores.confusion).tolist() == hits_C.tolist()
    assert scores.confusion.sum(axis=1) == pytest.approx(support)
    assert scores.unparsed == (~said_NC.any(axis=1)).sum()


def test_with_one_category_a_video_the_confusion_is_the_ordinary_one():
    """Of scikit-learn. Catches rows for columns."""
    rng = np.random.default_rng(7)
    truth, said = rng.integers(len(DISTORTIONS), size=(2, 300))
    scores = distortion_scores([{DISTORTIONS[i]} for i in said], [{DISTORTIONS[i]} for i in truth])
    assert scores.confusion[:, :-1].tolist() == confusion_matrix(truth, said).tolist()
    assert not scores.confusion[:, -1].any()
    assert scores.top1 == scores.exact == scores.jaccard


def test_what_is_named_in_the_place_of_what_is_missed():
    """By hand: eye is missed while mouth (right) and hair, cloth (wrong) are named: a half each.
    The second video is right but for one too many, which is nobody's place. Catches a right
    category blamed for a miss, a miss that counts twice, and false alarms without a miss.
    """
    scores = distortion_scores(
        predicted=[(MOUTH, HAIR, DISTORTIONS[7]), (EYE, MOUTH)],
        truth=[{EYE, MOUTH}, {EYE}],
    )
    assert scores.confusion[0].tolist() == [1, 0, 0.5, 0, 0, 0, 0, 0.5, 0, 0]
    assert scores.confusion[1].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert not scores.confusion[2:].any()


def test_the_first_named_category_is_what_top1_looks_at():
    """Catches the first of the vocabulary, any of the named, an unparsed answer that drops out,
    and a guess at the order of a set.
    """
    truth = [{MOUTH}, {EYE, HAIR}, {EYE}]
    assert distortion_scores([(MOUTH, EYE), (MOUTH, EYE), ()], truth).top1 == pytest.approx(1 / 3)
    assert distortion_scores([(EYE, MOUTH), (HAIR,), [EYE]], truth).top1 == pytest.approx(2 / 3)
    assert distortion_scores([{MOUTH}, {EYE}, set()], truth).top1 == pytest.approx(2 / 3)
    assert np.isnan(distortion_scores([{MOUTH, EYE}, {EYE}, set()], truth).top1)


def test_every_accuracy_is_a_figure_and_has_its_words():
    """Catches a table that prints a definition which is not that of its column."""
    scores = distortion_scores([(EYE,), (EYE,)], [{EYE}, {EYE, MOUTH}])
    figures = {name: getattr(scores, name) for name in ACCURACIES}
    assert figures == {"jaccard": 0.75, "exact": 0.5, "top1": 1.0}
    assert all(len(words.split()) > 5 for words in ACCURACIES.values())


def test_the_order_of_the_videos_does_not_matter():
    """Catches a count that depends on neighbours."""
    said, truth = [(MOUTH, HAIR), (EYE,), ()], [{EYE}, {EYE, MOUTH}, {HAIR}]
    one, other = distortion_scores(said, truth), distortion_scores(said[::-1], truth[::-1])
    assert one.confusion.tolist() == other.confusion.tolist()
    assert (one.jaccard, one.top1, one.f1) == (
        other.jaccard,
        other.top1,
        pytest.approx(other.f1, nan_ok=True),
    )


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
