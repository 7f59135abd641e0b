"""Bootstrap and tests of differences: against scipy on explicit resamples, published examples and
simulations.
"""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from lmme3dhf.metrics.significance import (
    bootstrap_intervals,
    compare,
    steiger_z,
    williams_t,
)


def _tied(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated values with ties on both sides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.round(x + 0.5 * rng.normal(size=n), 1), np.round(x)


class _Draws:
    """In place of a generator: hands out draws that the test knows."""

    def __init__(self, drawn: np.ndarray) -> None:
        self.drawn = drawn

    def integers(self, high: int, size: tuple[int, int]) -> np.ndarray:
        """The draws, as asked for."""
        assert (self.drawn.shape, self.drawn.max() < high) == (size, True)
        return self.drawn


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_are_those_of_the_resampled_lists(grouped):
    """scipy and NumPy on every resample, written out video by video, with ties. Catches wrong
    ranks or ties of repeated videos, tau-a, one draw for all, and groups that are torn apart.
    """
    predicted, mos = _tied(40, seed=1)
    groups = np.arange(40) // 4 if grouped else np.arange(40)
    drawn = np.random.default_rng(2).integers(groups.max() + 1, size=(60, groups.max() + 1))
    found = bootstrap_intervals(
        predicted,
        mos,
        _Draws(drawn),
        groups_N=groups if grouped else None,
        resamples=60,
        level=0.9,
    )
    expected = {name: [] for name in found}
    for units in drawn:
        rows = np.concatenate([np.flatnonzero(groups == unit) for unit in units])
        x, y = predicted[rows], mos[rows]
        expected["srcc"].append(stats.spearmanr(x, y).statistic)
        expected["plcc"].append(stats.pearsonr(x, y).statistic)
        expected["krcc"].append(stats.kendalltau(x, y).statistic)
        expected["rmse"].append(np.sqrt(np.mean((x - y) ** 2)))
        expected["mae"].append(np.mean(np.abs(x - y)))
    assert set(found) == {"srcc", "plcc", "krcc", "rmse", "mae"}
    for name, values in expected.items():
        ends = np.percentile(values, [5, 95])
        assert (found[name].low, found[name].high) == pytest.approx(tuple(ends), abs=1e-12)
        assert found[name].undefined == 0


def test_many_videos_are_counted_in_blocks():
    """More videos than a block holds, against scipy on two resamples. Catches pairs between blocks
    that are lost.
    """
    predicted, mos = _tied(1500, seed=4)
    drawn = np.random.default_rng(5).integers(1500, size=(2, 1500))
    found = bootstrap_intervals(predicted, mos, _Draws(drawn), resamples=2, level=0.999999)
    taus = sorted(stats.kendalltau(predicted[rows], mos[rows]).statistic for rows in drawn)
    assert (found["krcc"].low, found["krcc"].high) == pytest.approx(tuple(taus), abs=1e-6)


def test_an_interval_holds_the_estimate_and_narrows_with_the_videos():
    """Catches intervals of something else than the estimate."""
    rng = np.random.default_rng(6)
    widths = []
    for n in (50, 800):
        mos = rng.normal(size=n)
        predicted = mos + rng.normal(size=n)
        found = bootstrap_intervals(predicted, mos, rng, resamples=400)
        for name, estimate in (
            ("srcc", stats.spearmanr(predicted, mos).statistic),
            ("plcc", stats.pearsonr(predicted, mos).statistic),
            ("krcc", stats.kendalltau(predicted, mos).statistic),
            ("rmse", np.sqrt(np.mean((predicted - mos) ** 2))),
        ):
            assert found[name].low < estimate < found[name].high
        widths.append(found["srcc"].high - found["srcc"].low)
    assert 2.5 < widths[0] / widths[1] < 6.5  # the root of 16 is 4


def test_intervals_cover_the_truth_as_often_as_they_say():
    """200 draws of 60 pairs with a known correlation, 90 % intervals. Catches half a tail cut off
    and intervals of a mean.
    """
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=60).T
        found = bootstrap_intervals(x, y, rng, resamples=200, level=0.9)["plcc"]
        held += found.low < 0.6 < found.high
    assert 0.83 < held / 200 < 0.95


def test_whole_faces_are_drawn_where_groups_are_given():
    """Every video five times: as many videos, no more knowledge. By faces the interval is that of
    the faces, one by one it is 1 / sqrt(5) of it. Catches groups that are ignored.
    """
    rng = np.random.default_rng(8)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    face = np.repeat(np.arange(60), 5)

    def width(found) -> float:
        return found["srcc"].high - found["srcc"].low

    faces = width(bootstrap_intervals(x, y, rng))
    grouped = width(bootstrap_intervals(x[face], y[face], rng, groups_N=face))
    alone = width(bootstrap_intervals(x[face], y[face], rng))
    assert grouped == pytest.approx(faces, rel=0.15)
    assert alone == pytest.approx(faces / math.sqrt(5), rel=0.15)


def test_undefined_resamples_are_counted():
    """Two of the three draws hold one value only, or a constant side. Catches NaN that spoils the
    interval, and zeros in its place.
    """
    predicted, mos = np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 5.0])
    drawn = np.array([[0, 0, 1, 1], [3, 3, 3, 3], [0, 1, 2, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bootstrap_intervals(predicted, mos, _Draws(drawn), resamples=3)
        flat = bootstrap_intervals(np.full(4, 0.1 + 0.2), mos, np.random.default_rng(0))
    assert found["srcc"].undefined == found["krcc"].undefined == 2
    assert found["srcc"].low == pytest.approx(stats.spearmanr(predicted, mos).statistic)
    assert found["rmse"].undefined == 0
    assert flat["plcc"].undefined == 1000
    assert np.isnan([flat["plcc"].low, flat["plcc"].high]).all()


def test_impossible_requests_are_refused():
    """Catches intervals of nothing."""
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no videos to resample"):
        bootstrap_intervals([], [], rng)
    with pytest.raises(ValueError, match="0 resamples and level"):
        bootstrap_intervals([1, 2, 3], [1, 2, 3], rng, resamples=0)
    with pytest.raises(ValueError, match="level 95"):
        bootstrap_intervals([1, 2, 3], [1, 2, 3], rng, level=95)
    with pytest.raises(ValueError, match="1 groups' names for 3 videos"):
        bootstrap_intervals([1, 2, 3], [1, 2, 3], rng, groups_N=["a"])
    with pytest.raises(ValueError, match="not finite in rows"):
        compare([1, 2, 3], [1, np.inf, 3], [1, 2, 3], rng)
    with pytest.raises(ValueError, match="expected two lists of the same length"):
        compare([1, 2, 3], [1, 2], [1, 2, 3], rng)


def test_steigers_own_example():
    """Steiger (1980): masculinity and femininity, correlated by .1, with verbal ability .5 and .4
    in 103 persons; both statistics are .89 to two digits. More digits by hand. Catches n for n - 3
    and a determinant with a wrong sign.
    """
    # Williams: |R| = 1 - .25 - .16 - .01 + .04 = .62; .1 sqrt(102 * 1.1 / (2 * 1.02 * .62 + .2025 *
    # .729)) = .1 sqrt(112.2 / 1.41242) = .8913.
    t, p_t = williams_t(0.5, 0.4, 0.1, 103)
    assert t == pytest.approx(0.8913, abs=5e-5)
    # Steiger: covariance .1 * .595 - .10125 * .585 = .000269, over .7975 ** 2; z .5493 and .4236.
    z, p_z = steiger_z(0.5, 0.4, 0.1, 103)
    assert z == pytest.approx(0.12566 * 10 / math.sqrt(2 - 2 * 0.00026875 / 0.63601), abs=2e-4)
    assert p_t == pytest.approx(0.375, abs=1e-3)
    assert p_z == pytest.approx(0.374, abs=1e-3)
    assert williams_t(0.4, 0.5, 0.1, 103)[0] == pytest.approx(-t)


def test_williams_agrees_with_the_full_determinant():
    """The same statistic with the determinant by NumPy, on a correlation matrix of data. Catches a
    correlation in another one's place.
    """
    rng = np.random.default_rng(9)
    mos = rng.normal(size=50)
    first, second = mos + rng.normal(size=50), mos + 2 * rng.normal(size=50)
    matrix = np.corrcoef([mos, first, second])
    a, b, between = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    expected = (a - b) * np.sqrt(
        49
        * (1 + between)
        / (2 * 49 / 47 * np.linalg.det(matrix) + ((a + b) / 2) ** 2 * (1 - between) ** 3)
    )
    found = compare(first, second, mos, rng, resamples=10).plcc
    assert found.williams_t == pytest.approx(expected)
    assert found.p_williams == pytest.approx(2 * stats.t.sf(abs(expected), 47))
    ranks = [stats.rankdata(values) for values in (first, second, mos)]
    on_ranks = compare(*ranks, rng, resamples=10).plcc
    assert compare(first, second, mos, rng, resamples=10).srcc.williams_t == pytest.approx(
        on_ranks.williams_t
    )


def test_no_more_false_alarms_than_promised():
    """Two equally good methods, 2,000 sets of 40 videos at 5 %, by the formulas; 200 sets by the
    bootstrap. Catches a test that finds differences where there are none, or never any.
    """
    rng = np.random.default_rng(10)
    covariance = [[1, 0.7, 0.7], [0.7, 1, 0.6], [0.7, 0.6, 1]]
    data = rng.multivariate_normal(np.zeros(3), covariance, size=(2000, 40))
    p_williams, p_steiger = [], []
    for rows in data:
        r = np.corrcoef(rows.T)
        p_williams.append(williams_t(r[0, 1], r[0, 2], r[1, 2], 40)[1])
        p_steiger.append(steiger_z(r[0, 1], r[0, 2], r[1, 2], 40)[1])
    # Four standard errors of 5 % in 2,000 are 2 %.
    assert np.mean(np.array(p_williams) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(p_steiger) < 0.05) == pytest.approx(0.05, abs=0.02)
    p_bootstrap = [
        compare(*rows.T[[1, 2, 0]], rng, resamples=200).srcc.p_bootstrap for rows in data[:200]
    ]
    assert 0.005 < np.mean(np.array(p_bootstrap) < 0.05) < 0.11


def test_a_real_difference_is_found_with_its_sign():
    """Catches first and second exchanged, and resamples that are not paired: alone, the intervals
    of these two overlap.
    """
    rng = np.random.default_rng(11)
    mos = rng.normal(size=200)
    shared = rng.normal(size=200)
    better, worse = mos + 0.9 * shared, mos + 1.1 * shared
    found = compare(better, worse, mos, rng)
    for difference in (found.srcc, found.plcc, found.krcc):
        assert difference.difference == pytest.approx(difference.first - difference.second)
        assert 0 < difference.interval.low < difference.difference < difference.interval.high
        assert difference.p_bootstrap == pytest.approx(2 / 1001)
    assert found.plcc.p_williams < 1e-6
    assert found.srcc.p_steiger < 1e-3
    assert np.isnan([found.krcc.williams_t, found.krcc.steiger_z]).all()
    alone = [bootstrap_intervals(x, mos, rng)["srcc"] for x in (better, worse)]
    assert alone[0].low < alone[1].high
    turned = compare(worse, better, mos, rng)
    assert turned.srcc.williams_t == pytest.approx(-found.srcc.williams_t)
    assert (found.n, found.groups, found.resamples, found.level) == (200, None, 1000, 0.95)
    assert compare(better, worse, mos, rng, groups_N=np.arange(200) // 5).groups == 40


def test_equal_and_undefined_methods_are_told():
    """Catches a significant difference from itself, and NaN without a reason."""
    rng = np.random.default_rng(12)
    mos, method = rng.normal(size=(2, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = compare(method, 2 * method + 1, mos, rng)
        flat = compare(method, np.ones(30), mos, rng)
        few = compare(method[:3], mos[:3], mos[:3], rng)
        perfect = compare(mos, method, mos, rng)
    assert same.srcc.difference == 0
    assert same.srcc.p_bootstrap == same.plcc.p_bootstrap == same.krcc.p_bootstrap == 1
    assert np.isnan([same.plcc.williams_t, same.plcc.p_steiger]).all()
    assert "agree fully with each other" in same.reason
    assert flat.reason == "second method: all 30 predictions are the same"
    assert np.isnan([flat.srcc.difference, flat.srcc.p_bootstrap, flat.srcc.p_williams]).all()
    assert flat.srcc.interval.undefined == 1000
    assert "fewer than four videos" in few.reason
    assert perfect.srcc.p_bootstrap < 0.01
    assert np.isnan(perfect.srcc.steiger_z)


def test_the_order_of_the_videos_does_not_change_the_tests():
    """Catches pairs that are torn apart."""
    rng = np.random.default_rng(13)
    first, second, mos = rng.normal(size=(3, 60)) + rng.normal(size=60)
    order = rng.permutation(60)
    one = compare(first, second, mos, rng, resamples=10)
    other = compare(first[order], second[order], mos[order], rng, resamples=10)
    assert one.srcc.p_williams == pytest.approx(other.srcc.p_williams)
    assert one.krcc.difference == pytest.approx(other.krcc.difference)
