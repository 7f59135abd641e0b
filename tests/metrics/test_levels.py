"""Level words: accuracy, neighbours, F1 and kappa, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score

from lmme3dhf.metrics.levels import level_accuracy, level_scores
from lmme3dhf.vocabulary import LEVELS


def test_level_accuracy_counts_unparsed_replies_as_wrong():
    """By hand: 2 of 4. Catches a denominator without the unparsed replies."""
    assert level_accuracy(["good", None, "fair", "superb"], ["good", "bad", "fair", "poor"]) == 0.5
    assert np.isnan(level_accuracy([], []))


@pytest.mark.parametrize("score", [level_accuracy, level_scores])
def test_foreign_labels_are_refused(score):
    """Catches the released "None" level slipping in as a class of its own, and misaligned lists."""
    with pytest.raises(ValueError, match="true level 'None' in row 1"):
        score(["good", "bad"], ["good", "None"])
    with pytest.raises(ValueError, match="1 predicted and 2 true levels"):
        score(["good"], ["good", "bad"])


def test_level_scores_worked_by_hand():
    """Five videos: met, one off, three off, silent, a word that is no level. F1: bad 2/4 (met once,
    said twice, true twice), poor 0, good 0, excellent 0; fair is nowhere. Catches the sixth column
    lost, a silent reply near some level, F1 of a level that nobody speaks of, and rows for columns.
    """
    truth = ["bad", "bad", "good", "poor", "excellent"]
    said = ["bad", "poor", "bad", None, "superb"]
    scores = level_scores(said, truth)
    assert scores.accuracy == pytest.approx(1 / 5)
    assert scores.within_one == pytest.approx(2 / 5)
    assert scores.macro_f1 == pytest.approx((2 / 4) / 4)
    assert scores.n == 5
    assert scores.confusion.tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    # Squared distances seen: 0 + 1 + 9 + 9 (poor to excellent) + 16 = 35. By chance, true levels
    # against said (2 bad, 1 poor, 2 silent): bad 0, 1, 16; good 9, 4, 9; poor 1, 0, 9; excellent
    # 16, 9, 16: (2 (0 + 1 + 32) + (18 + 4 + 18) + (2 + 0 + 18) + (32 + 9 + 32)) / 5 = 199 / 5.
    assert scores.kappa == pytest.approx(1 - 35 / (199 / 5))


def test_level_scores_agree_with_scikit_learn():
    """On 300 random answers. Catches linear weights, F1 weighted by support, and a transposed
    table.
    """
    rng = np.random.default_rng(1)
    truth = rng.integers(5, size=300)
    said = np.clip(truth + rng.integers(-2, 3, size=300), 0, 4)
    scores = level_scores([LEVELS[i] for i in said], [LEVELS[i] for i in truth])
    assert scores.macro_f1 == pytest.approx(f1_score(truth, said, average="macro"))
    assert scores.kappa == pytest.approx(cohen_kappa_score(truth, said, weights="quadratic"))
    assert scores.confusion[:, :5].tolist() == confusion_matrix(truth, said).tolist()
    assert scores.confusion[:, 5].sum() == 0
    assert scores.within_one == pytest.approx(np.mean(np.abs(truth - said) <= 1))


def test_f1_with_silent_replies_agrees_with_scikit_learn():
    """There they are a sixth class that is left out of the mean. Catches them left out of the
    recall.
    """
    rng = np.random.default_rng(6)
    truth, said = rng.integers(5, size=200), rng.integers(6, size=200)
    words = [*LEVELS, None]
    scores = level_scores([words[i] for i in said], [words[i] for i in truth])
    assert scores.macro_f1 == pytest.approx(f1_score(truth, said, labels=range(5), average="macro"))


def test_silence_does_not_pay():
    """Replies that are wrong are worth more than none, and silence alone is worth nothing: 0 as
    for an answer that is always the same. Catches kappa over the answered videos only, which would
    be 1 here.
    """
    truth = [*LEVELS] * 4
    half = [level if i % 2 else None for i, level in enumerate(truth)]
    assert level_scores(truth, truth).kappa == pytest.approx(1)
    assert level_scores(half, truth).kappa < 0.5
    near = [level if i % 2 else LEVELS[max(i % 5 - 1, 0)] for i, level in enumerate(truth)]
    assert level_scores(half, truth).kappa < level_scores(near, truth).kappa
    for always in (None, "fair", "bad"):
        assert level_scores([always] * 20, truth).kappa == pytest.approx(0, abs=1e-12)


def test_what_is_undefined_is_nan():
    """Catches 0 or 1 without videos, and kappa of 0 / 0 where all are of one level."""
    nothing = level_scores([], [])
    assert np.isnan([nothing.accuracy, nothing.within_one, nothing.macro_f1, nothing.kappa]).all()
    assert nothing.confusion.shape == (5, 6)
    assert nothing.n == 0
    alike = level_scores(["fair"] * 3, ["fair"] * 3)
    assert (alike.accuracy, alike.macro_f1) == (1, 1)
    assert np.isnan(alike.kappa)


def test_the_order_of_the_videos_does_not_matter():
    """Catches a count that depends on neighbours."""
    rng = np.random.default_rng(8)
    words = [*LEVELS, None]
    pairs = [
        (words[i], LEVELS[j]) for i, j in zip(*rng.integers((6, 5), size=(50, 2)).T, strict=True)
    ]
    one, other = (level_scores(*zip(*p, strict=True)) for p in (pairs, pairs[::-1]))
    assert one.kappa == pytest.approx(other.kappa)
    assert one.confusion.tolist() == other.confusion.tolist()
