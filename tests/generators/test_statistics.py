"""Means of groups and their tests, against SciPy called by hand and worked examples."""

import math

import numpy as np
import pytest
from scipy import stats

from lmme3dhf.metrics.group_means import compare_groups, group_mean, holm, stars


def scores(seed: int, n: int, mean: float = 50.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 10, n)


def test_the_interval_is_that_of_all_resamples_of_three():
    """Of 0, 3 and 9 there are 27 resamples, whose means have these quantiles; 5000 draws find
    them. Catches an interval of the scores in place of the mean's, and one of another level.
    """
    values = np.array([0.0, 3.0, 9.0])
    means = [np.mean([a, b, c]) for a in values for b in values for c in values]
    found = group_mean(values, np.random.default_rng(0))
    assert (found.n, found.mean, found.median) == (3, 4.0, 3.0)
    assert found.low == np.quantile(means, 0.025, method="inverted_cdf") == 0.0
    assert found.high == np.quantile(means, 0.975, method="inverted_cdf") == 9.0
    narrow = group_mean(values, np.random.default_rng(0), level=0.6)
    assert narrow.low == np.quantile(means, 0.2, method="inverted_cdf") == pytest.approx(2.0)
    assert narrow.high == np.quantile(means, 0.8, method="inverted_cdf") == pytest.approx(6.0)


def test_the_interval_of_many_is_that_of_the_normal_distribution():
    """Catches a spread that is not divided by the root of the number of videos, and a batch of
    resamples that is too small to hold all draws.
    """
    values = scores(1, 2000)
    found = group_mean(values, np.random.default_rng(0))
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / math.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)
    assert found == group_mean(values, np.random.default_rng(0))


@pytest.mark.parametrize(("n", "mean"), [(0, math.nan), (1, 7.0)])
def test_too_few_videos_have_no_interval(n, mean):
    """Catches an interval of one video, which would have no width, and a mean of none."""
    found = group_mean(np.full(n, 7.0), np.random.default_rng(0))
    assert found.n == n
    assert (found.mean, found.median) == pytest.approx((mean, mean), nan_ok=True)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_pairs_are_tested_as_scipy_does_by_hand():
    """Small groups without ties exactly, as counted by hand: of C(4,2) = 6 orders of two and two,
    the most extreme on either side are 2, so p = 1/3. Catches a one-sided test, a paired one, and
    a difference with the wrong sign.
    """
    groups = {"a": scores(1, 30), "b": scores(2, 40, 55), "c": scores(3, 25)}
    found = compare_groups(groups)
    assert [(p.first, p.second) for p in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in found:
        x, y = groups[pair.first], groups[pair.second]
        expected = stats.mannwhitneyu(x, y, alternative="two-sided")
        assert pair.p == expected.pvalue
        assert pair.difference == pytest.approx(x.mean() - y.mean())
        assert pair.wins == pytest.approx(np.mean(x[:, None] > y))
    (small,) = compare_groups({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])})
    assert small.p == small.p_holm == pytest.approx(1 / 3)
    assert (small.difference, small.wins) == (-2.0, 0.0)


def test_a_group_of_one_is_never_a_number():
    """And does not count among the pairs that the others are corrected for. Catches a p value
    without spread.
    """
    groups = {
        "a": scores(1, 20),
        "one": np.array([99.0]),
        "b": scores(2, 20, 58),
        "none": scores(1, 0),
    }
    found = {(p.first, p.second): p for p in compare_groups(groups)}
    assert len(found) == 6
    for names, pair in found.items():
        if names == ("a", "b"):
            assert pair.p == pair.p_holm < 0.05
        else:
            numbers = (pair.difference, pair.wins, pair.p, pair.p_holm)
            assert all(math.isnan(number) for number in numbers)


def test_holm_by_hand():
    """m = 4: 0.005 x 4 = 0.02; 0.01 x 3 = 0.03; 0.03 x 2 = 0.06; 0.04 x 1 = 0.04, which may not be
    below the one before. Catches Bonferroni, values that fall, and p above 1.
    """
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([]) == []
    with_gap = holm([0.01, math.nan, 0.02])
    assert math.isnan(with_gap[1])
    assert [with_gap[0], with_gap[2]] == pytest.approx([0.02, 0.02])


def test_stars_stand_for_limits():
    """Below, not at them. Catches a star too many."""
    told = [stars(p) for p in (0.0009, 0.001, 0.0099, 0.01, 0.049, 0.05, 1.0, math.nan)]
    assert told == ["***", "**", "**", "*", "*", "", "", ""]
