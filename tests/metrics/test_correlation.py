"""Correlations and level accuracy: golden cases, invariances, and the decided edge cases."""

import warnings

import numpy as np
import pytest

from lmme3dhf.metrics.correlation import correlations, level_accuracy


def _golden_cases():
    """Formulas and values of a comparison made outside of this project with scipy, torchmetrics and
    pandas (C1-C3).
    """
    i = np.arange(60)
    mos = 50 + 18 * np.sin(0.37 * i) + 0.2 * ((11 * i) % 29)
    continuous = 1 / (1 + np.exp(-(mos - 52) / 9)) + 0.06 * np.cos(1.7 * i)
    five_levels = np.clip(np.floor(5 * continuous), 0, 4) + 1
    return {
        "C1": (continuous, mos, (0.9686023895526537, 0.9835557006747463, 0.8564971751412429)),
        "C2": (five_levels, mos, (0.9521448647733043, 0.9666725853637579, 0.8563262184548809)),
        "C3": (
            [1, 2, 2, 3, 3, 3, 4, 5, 5],
            [2, 1, 3, 3, 2, 5, 4, 5, 4],
            (0.726114409381326, 0.7081990131435401, 0.6032506032509048),
        ),
    }


@pytest.mark.parametrize("case", ["C1", "C2", "C3"])
def test_golden_cases(case):
    """Catches ranks without ties (C2, C3), tau-c for tau-b, a fit before PLCC, and single
    precision.
    """
    predicted, mos, expected = _golden_cases()[case]
    result = correlations(np.array(predicted), np.array(mos))
    assert (result.srcc, result.plcc, result.krcc) == pytest.approx(expected, abs=1e-12)
    assert result.n == len(mos)


def test_what_does_not_change_the_correlations():
    """Ranks stay under monotone maps and PLCC under positive affine ones. Catches a coefficient in
    another one's place.
    """
    predicted, mos, _ = _golden_cases()["C1"]
    plain = correlations(predicted, mos)
    curved = correlations(np.exp(predicted), mos)
    assert (curved.srcc, curved.krcc) == pytest.approx((plain.srcc, plain.krcc))
    assert curved.plcc != pytest.approx(plain.plcc, abs=1e-3)
    assert correlations(3 * predicted - 7, mos).plcc == pytest.approx(plain.plcc)
    reverse = correlations(-predicted, mos)
    assert (reverse.srcc, reverse.plcc, reverse.krcc) == pytest.approx(
        (-plain.srcc, -plain.plcc, -plain.krcc)
    )


@pytest.mark.parametrize(
    ("predicted", "mos"),
    [
        ([1, 1, 1, 1], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [5, 5, 5, 5]),
        ([1, 2], [1, 2]),
        ([], []),
        ([48.1, 48.1 + 1e-14, 48.1], [1, 2, 3]),
    ],
)
def test_undefined_is_nan_without_a_warning(predicted, mos):
    """Catches 0 or 1 for a constant predictor or two points, and a coefficient of pure rounding
    noise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = correlations(np.array(predicted), np.array(mos))
    assert np.isnan([result.srcc, result.plcc, result.krcc]).all()
    assert result.n == len(mos)


def test_values_that_are_not_finite_are_refused_by_row():
    """Catches rows that scipy would turn into an unexplained NaN, or that would be dropped in
    silence.
    """
    with pytest.raises(ValueError, match=r"the prediction is not finite in rows \[1, 3\] of 4"):
        correlations(np.array([1, np.nan, 2, np.inf]), np.arange(4))
    with pytest.raises(
        ValueError, match=r"opinion score is not finite in rows \[0, .*, 9\] and 2 more of 12"
    ):
        correlations(np.arange(12), np.full(12, np.nan))
    with pytest.raises(ValueError, match="expected two lists of the same length"):
        correlations(np.arange(3), np.arange(4))


def test_level_accuracy_counts_unparsed_replies_as_wrong():
    """By hand: 2 of 4. Catches a denominator without the unparsed replies."""
    assert level_accuracy(["good", None, "fair", "superb"], ["good", "bad", "fair", "poor"]) == 0.5
    assert np.isnan(level_accuracy([], []))


def test_level_accuracy_refuses_foreign_labels():
    """Catches the released "None" level slipping in as a class of its own, and misaligned lists."""
    with pytest.raises(ValueError, match="true level 'None' in row 1"):
        level_accuracy(["good", "bad"], ["good", "None"])
    with pytest.raises(ValueError, match="1 predicted and 2 true levels"):
        level_accuracy(["good"], ["good", "bad"])
