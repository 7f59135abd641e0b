"""Recovery of the truth from simulated raters: what the comparison of rules and screenings says."""

import csv

import numpy as np
import pytest

from lmme3dhf.annotations.screening import SCREENINGS
from scripts import mos_recovery


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    out = tmp_path_factory.mktemp("recovery") / "rows.csv"
    rows = mos_recovery.main(["--panels", "3", "--out", str(out)])
    return rows, list(csv.DictReader(out.open(encoding="utf-8")))


def test_every_method_is_measured_and_written(table):
    """Catches a screening that was added and is not compared, and figures that are not kept."""
    rows, written = table
    per_number = 1 + 2 * len(SCREENINGS) + len(mos_recovery.READINGS)
    assert len(rows) == len(written) == 3 * per_number
    for row, line in zip(rows, written, strict=True):
        assert line["method"] == row["method"]
        assert float(line["srcc_mean"]) == pytest.approx(row["srcc_mean"], abs=1e-6)
        assert 0.5 < row["srcc_mean"] < 1
        assert row["panels"] == 3
        assert (line["recall"] == "") == (row["careless"] == 0 or np.isnan(row["recall"]))


def test_what_the_comparison_is_made_for(table):
    """Six careless raters of 24 spoil the unscreened mean of z-scores; the likelihood does not need
    a screening. And 1/N over subjects who did not rate orders videos by their number of raters
    (departure D7). Catches methods that are swapped or all the same.
    """
    rows = {(r["method"], r["careless"]): r for r in table[0]}
    unscreened, likely = rows["zscore, none", 6], rows["mle, none", 6]
    assert likely["rmse_mean"] < unscreened["rmse_mean"]
    assert rows["zscore, p913", 6]["rmse_mean"] < unscreened["rmse_mean"]
    assert rows["zscore, p913", 6]["recall"] == 1
    ours, over_all = (rows[name, 0] for name in list(mos_recovery.READINGS)[::2])
    assert ours["srcc_mean"] > over_all["srcc_mean"] + 0.05


def test_readings_of_the_print_worked_by_hand():
    """Own means 2 and 3; all squares 1 + 0 + 1 + 1 + 1 by 5 - 2 degrees give sigma_I 1.155; and the
    sum over one rater of two halves its score. Catches a reading that is ours in disguise.
    """
    rating_SV = np.array([[1, 2, 3], [4, np.nan, 2]])
    np.testing.assert_allclose(
        mos_recovery.pooled_z(rating_SV), (rating_SV - [[2], [3]]) / (4 / 3) ** 0.5
    )
    assert mos_recovery.over_all(rating_SV).tolist() == [2.5, 1, 2.5]
    assert mos_recovery.over_raters(rating_SV).tolist() == [2.5, 2, 2.5]


def test_error_after_the_line_by_hand():
    """1, 2, 3 on 0, 3, 0: slope 0, line 1, errors 1, 2, 1. An affine map of the truth has none.
    Catches an error that depends on the scale of a rule.
    """
    rmse = mos_recovery.rmse_after_line(np.array([1.0, 2, 3]), np.array([0.0, 3, 0]))
    assert rmse == pytest.approx(2**0.5)
    truth_V = np.array([1.0, 4, 2, 3])
    assert mos_recovery.rmse_after_line(20 * truth_V - 7, truth_V) == pytest.approx(0, abs=1e-12)


def test_panels_are_those_of_their_seed():
    """Catches panels that all look alike, missing ratings in complete ones, and one number of
    careless raters for all.
    """
    opinion_V, first = mos_recovery.panel(0, 2, 0.0)
    assert np.array_equal(mos_recovery.panel(0, 2, 0.0)[1].rating_SV, first.rating_SV)
    assert not np.array_equal(mos_recovery.panel(1, 2, 0.0)[0], opinion_V)
    for careless in (2, 6):
        rating_SV = mos_recovery.panel(0, careless, 0.0)[1].rating_SV
        r_S = [np.corrcoef(row, opinion_V)[0, 1] for row in rating_SV]
        assert max(np.abs(r_S[-careless:])) < 0.3 < min(r_S[:-careless])
