"""Correlations, fitted curves and the split by groups: golden cases, invariances, and the decided
edge cases.
"""

import warnings

import numpy as np
import pytest
from scipy import stats

from lmme3dhf.metrics.correlation import CURVES, apply_fit, correlations, fitted, within_between


def _golden_cases():
    """Formulas and values of a comparison made outside of this project with scipy, torchmetrics and
    pandas: predictions, opinion scores, (SRCC, PLCC, KRCC).
    """
    i = np.arange(60)
    mos = 50 + 18 * np.sin(0.37 * i) + 0.2 * ((11 * i) % 29)
    continuous = 1 / (1 + np.exp(-(mos - 52) / 9)) + 0.06 * np.cos(1.7 * i)
    five_levels = np.clip(np.floor(5 * continuous), 0, 4) + 1
    exponential = np.exp((mos - 50) / 8) + 0.15 * np.cos(1.7 * i)
    line = np.linspace(-3, 3, 60) + 0.2 * np.sin(3.1 * i)
    sigmoid = 20 + 60 / (1 + np.exp(-1.8 * (line - 0.3))) + 1.5 * np.cos(2.3 * i)
    return {
        "C1": (continuous, mos, (0.9686023895526537, 0.9835557006747463, 0.8564971751412429)),
        "C2": (five_levels, mos, (0.9521448647733043, 0.9666725853637579, 0.8563262184548809)),
        "C3": (
            [1, 2, 2, 3, 3, 3, 4, 5, 5],
            [2, 1, 3, 3, 2, 5, 4, 5, 4],
            (0.726114409381326, 0.7081990131435401, 0.6032506032509048),
        ),
        "C4": (exponential, mos, (0.983717699361, 0.861969617640, 0.928813559322)),
        "C5": (line, sigmoid, (0.982495137538, 0.964379306349, 0.911864406780)),
    }


@pytest.mark.parametrize("case", ["C1", "C2", "C3", "C4", "C5"])
def test_golden_cases(case):
    """Catches ranks without ties (C2, C3), tau-c for tau-b, a fit before PLCC, and single
    precision.
    """
    predicted, mos, expected = _golden_cases()[case]
    result = correlations(np.array(predicted), np.array(mos))
    assert (result.srcc, result.plcc, result.krcc) == pytest.approx(expected, abs=1e-12)
    assert result.n == len(mos)
    assert result.reason is None


def test_golden_errors():
    """RMSE of C1 and C3 from the same comparison, MAE of C3 by hand (differences 1 1 1 0 1 2 0 0
    1). Catches N - 1 for N, errors after a fit, and RMSE for MAE.
    """
    predicted, mos, _ = _golden_cases()["C1"]
    assert correlations(predicted, mos).rmse == pytest.approx(55.22699074426869, abs=1e-9)
    predicted, mos, _ = _golden_cases()["C3"]
    result = correlations(predicted, mos)
    assert result.rmse == pytest.approx(1.0)
    assert result.mae == pytest.approx(7 / 9)


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
    assert result.reason


def test_what_is_undefined_says_why():
    """Catches NaN without a reason, and errors lost with the correlations: they are defined from
    one pair on.
    """
    assert correlations([], []).reason == "there are no pairs"
    assert np.isnan(correlations([], []).rmse)
    one = correlations([3.0], [5.0])
    assert (one.rmse, one.mae) == (2.0, 2.0)
    assert "at least 3 pairs, there are 1" in one.reason
    assert correlations([7, 7, 7], [1, 2, 3]).reason == "all 3 predictions are the same"
    assert correlations([1, 2, 3], [7, 7, 7]).reason == "all 3 opinion scores are the same"


def test_the_order_of_the_videos_does_not_matter():
    """Catches anything that depends on neighbours, in all three functions."""
    rng = np.random.default_rng(3)
    predicted, mos = rng.normal(size=(2, 80))
    mos += predicted
    groups = rng.integers(5, size=80)
    order = rng.permutation(80)
    assert vars(correlations(predicted, mos)) == pytest.approx(
        vars(correlations(predicted[order], mos[order]))
    )
    for curve in CURVES:
        one, other = fitted(predicted, mos, curve), fitted(predicted[order], mos[order], curve)
        assert one.plcc == pytest.approx(other.plcc, abs=1e-6)
    one, other = (within_between(predicted[o], mos[o], groups[o]) for o in (np.arange(80), order))
    assert vars(one.within) == pytest.approx(vars(other.within))
    assert vars(one.between) == pytest.approx(vars(other.between))


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


@pytest.mark.parametrize(
    ("case", "curve", "plcc", "rmse", "digits"),
    [
        ("C5", "logistic4", 0.9990063738974, 1.06189883420, 1e-12),
        ("C5", "logistic5", 0.9990089575801, 1.06051801623, 1e-11),
        ("C2", "logistic4", 0.96680252435, 3.2494966, 1e-8),
    ],
)
def test_golden_fits(case, curve, plcc, rmse, digits):
    """Two public initialisations agree on these. Catches another formula, RMSE with N - 4, and
    PLCC without the fit.
    """
    predicted, mos, _ = _golden_cases()[case]
    fit = fitted(predicted, mos, curve)
    assert fit.plcc == pytest.approx(plcc, abs=digits)
    assert fit.rmse == pytest.approx(rmse, rel=1e-8)
    assert fit.converged
    assert fit.note == ""


@pytest.mark.parametrize(
    ("case", "curve", "least"),
    [
        ("C1", "logistic4", 0.983727359),
        ("C1", "logistic5", 0.984399751),
        ("C2", "logistic5", 0.967035505),
        ("C4", "logistic4", 0.98317),
        ("C4", "logistic5", 0.99087),
    ],
)
def test_the_fit_is_at_least_as_good_as_the_best_public_start(case, curve, least):
    """On C4 the usual start of the five parameters ends at the raw .86197, in silence. Catches a
    single start, and a search that stops in the nearly flat valleys of C1 and C2.
    """
    predicted, mos, _ = _golden_cases()[case]
    assert fitted(predicted, mos, curve).plcc >= least


def test_the_line_in_place_of_a_curve():
    """Raw |PLCC| and the residual's deviation, from scipy's regression. Catches a sign kept or a
    slope that is not that of least squares.
    """
    predicted, mos, _ = _golden_cases()["C1"]
    regression = stats.linregress(-predicted, mos)
    fit = fitted(-predicted, mos, "linear")
    assert fit.plcc == pytest.approx(-regression.rvalue)
    residual = mos - regression.intercept - regression.slope * -predicted
    assert fit.rmse == pytest.approx(residual.std())
    assert apply_fit(fit, [0.0, 1.0]) == pytest.approx(
        [regression.intercept, regression.intercept + regression.slope]
    )


def _awkward_cases():
    """Predictions and opinion scores as they come: noise, ties, two values, outliers, few pairs."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=40)
    yield "noise", x, rng.normal(size=40)
    yield "falling", x, -np.tanh(2 * x) + 0.3 * rng.normal(size=40)
    yield "two values", (x > 0).astype(float), x
    yield "outlier", np.append(x, 1e6), np.append(x + rng.normal(size=40), 0)
    yield "far from zero", 1e9 + x, x + rng.normal(size=40)
    yield "tiny", 1e-9 * x, 1e-3 * (x + rng.normal(size=40))
    yield "exact line", x, 3 * x + 1
    yield "exact step", x, np.where(x > 0.2, 80.0, 20.0)
    yield "six pairs", x[:6], rng.normal(size=6)
    yield "three pairs", x[:3], rng.normal(size=3)


@pytest.mark.parametrize("case", list(_awkward_cases()), ids=lambda case: case[0])
def test_a_curve_is_never_worse_than_the_line_nor_the_line_than_the_mean(case):
    """Catches a search that ended above its start, figures that are not those of the curve that is
    returned, and warnings of overflow.
    """
    _, predicted, mos = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line = fitted(predicted, mos, "linear")
        assert line.rmse <= mos.std() * (1 + 1e-12)
        for curve in ("logistic4", "logistic5"):
            fit = fitted(predicted, mos, curve)
            assert fit.rmse <= line.rmse
            assert fit.plcc >= line.plcc - 1e-12
            value = apply_fit(fit, predicted)
            error = np.sqrt(np.mean((value - mos) ** 2))
            assert error == pytest.approx(fit.rmse, rel=1e-6, abs=1e-6 * mos.std())
            assert np.corrcoef(value, mos)[0, 1] == pytest.approx(fit.plcc, abs=1e-6)


def test_a_curve_that_is_not_taken_says_so():
    """Catches a line that goes by the name of a logistic curve."""
    x = np.array([1.0, 2.0, 4.0, 8.0])
    fit = fitted(x, x**2, "logistic4")
    assert fit.note == "the line in place of logistic4: 4 parameters need more than 4 pairs"
    assert not fit.converged
    assert apply_fit(fit, x) == pytest.approx(apply_fit(fitted(x, x**2, "linear"), x))
    straight = np.arange(20.0)
    assert "the line in place of logistic5" in fitted(straight, 2 * straight, "logistic5").note
    assert "limit of its kind" in fitted(*_golden_cases()["C1"][:2], "logistic4").note


def test_an_undefined_fit_is_nan_with_its_reason():
    """Catches a fit of nothing, and a curve of an unknown name."""
    fit = fitted([1, 1, 1, 1], [1, 2, 3, 4], "logistic5")
    assert np.isnan([fit.plcc, fit.rmse]).all()
    assert fit.note == "all 4 predictions are the same"
    assert np.isnan(apply_fit(fit, [1.0, 2.0])).all()
    with pytest.raises(ValueError, match="'cubic' is not one of linear, logistic4, logistic5"):
        fitted([1, 2, 3], [1, 2, 3], "cubic")
    with pytest.raises(ValueError, match="not finite"):
        fitted([1, 2, np.nan], [1, 2, 3], "logistic4")


def test_the_curve_is_the_formula_that_was_asked_for():
    """The formulas as printed, with parameters chosen by hand: noise-free scores come back.
    Catches a curve of another family, which would not reach them.
    """
    x = np.linspace(-2, 5, 50)
    four = 20 + (75 - 20) / (1 + np.exp(-(x - 1.5) / abs(-0.7)))
    fit = fitted(x, four, "logistic4")
    assert fit.rmse < 1e-6
    at = np.array([-2.5, 0.1, 6.0])
    assert apply_fit(fit, at) == pytest.approx(20 + 55 / (1 + np.exp(-(at - 1.5) / 0.7)), abs=1e-4)
    assert fit.parameters["location"] == pytest.approx(1.5, abs=1e-4)
    five = 30 * (0.5 - 1 / (1 + np.exp(2.5 * (x - 1)))) + 4 * x + 50
    assert fitted(x, five, "logistic5").rmse < 1e-6
    assert fitted(x, five, "logistic4").rmse > 0.1


def test_within_and_between_worked_by_hand():
    """Three generators whose means agree perfectly while the order inside them is the opposite:
    MOS 10, 40, 70 and predictions 1, 4, 8. Catches groups mixed up, a pooled SRCC, and
    eta for eta squared.
    """
    predicted = np.array([2.0, 1.0, 0.0, 5.0, 4.0, 3.0, 9.0, 8.0, 7.0])
    mos = np.array([9.0, 10.0, 11.0, 39.0, 40.0, 41.0, 69.0, 70.0, 71.0])
    result = within_between(predicted, mos, ["b"] * 3 + ["a"] * 3 + ["c"] * 3)
    assert result.within.srcc == result.within.krcc == pytest.approx(-1)
    assert result.within.plcc == pytest.approx(-1)
    assert result.within.rmse == pytest.approx(np.sqrt(8 / 3))
    assert result.within.reason is None
    assert result.between.srcc == result.between.krcc == pytest.approx(1)
    assert result.between.n == 3
    assert list(result.groups) == ["b", "a", "c"]
    assert result.left_out == ()
    # Sums of squares: MOS 3 (900 + 0 + 900) between groups, predictions 3 (1, 4 and 8 about 13/3:
    # 222/9), and 6 within groups for both.
    assert result.explained_mos == pytest.approx(5400 / 5406)
    assert result.explained_predicted == pytest.approx((3 * 222 / 9) / (3 * 222 / 9 + 6))


def test_groups_that_say_nothing_are_left_out_by_name():
    """A constant group, one of two videos, one of four and one of eight. Catches NaN for all
    because of one, zero in its place, an unweighted mean, and groups that vanish without a word.
    """
    rng = np.random.default_rng(2)
    sizes = {"constant": 3, "pair": 2, "four": 4, "eight": 8}
    group = [name for name, size in sizes.items() for _ in range(size)]
    predicted, mos = rng.normal(size=(2, len(group)))
    predicted[:3] = 0.1 + 0.2  # whose mean rounds
    result = within_between(predicted, mos, group)
    four, eight = (
        stats.spearmanr(predicted[a:b], mos[a:b]).statistic for a, b in ((5, 9), (9, 17))
    )
    assert result.within.srcc == pytest.approx((4 * four + 8 * eight) / 12)
    assert result.left_out == ("constant", "pair")
    assert "2 of 4 groups have no SRCC: constant (all 3 predictions are the same), pair" in (
        result.within.reason
    )
    lonely = within_between(predicted, mos, range(len(group)))
    assert np.isnan([lonely.within.srcc, lonely.within.plcc]).all()
    assert lonely.between.srcc == pytest.approx(correlations(predicted, mos).srcc)
    assert lonely.explained_mos == pytest.approx(1)


def test_pooled_plcc_within_groups_is_the_partial_correlation():
    """Least squares on indicators of the groups leaves the same residuals. Catches means taken
    from one side only, and groups' means that weigh alike.
    """
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(4), [5, 10, 20, 40])
    predicted, mos = rng.normal(size=(2, 75)) + 2 * group
    mos += predicted
    indicators = (group[:, None] == np.arange(4)).astype(float)
    left = [
        values - indicators @ np.linalg.lstsq(indicators, values, rcond=None)[0]
        for values in (predicted, mos)
    ]
    result = within_between(predicted, mos, group)
    assert result.within.plcc == pytest.approx(np.corrcoef(*left)[0, 1])
    assert result.explained_mos == pytest.approx(1 - left[1].var() / mos.var())


def test_impossible_groups_are_refused_and_no_videos_are_nan():
    """Catches groups' names of other videos, and a crash on nothing."""
    with pytest.raises(ValueError, match="2 groups' names for 3 videos"):
        within_between([1, 2, 3], [1, 2, 3], ["a", "b"])
    nothing = within_between([], [], [])
    assert np.isnan([nothing.within.srcc, nothing.explained_mos]).all()
    same = within_between([1, 2, 3], [5, 5, 5], ["a", "a", "b"])
    assert np.isnan(same.explained_mos)
    assert same.explained_predicted == pytest.approx(0.75)
