"""Our opinion scores against those of the `sureal` package, which was written by others."""

import sys

import numpy as np
import pytest

from scripts import compare_sureal

TOLERANCE = 1e-6  # sureal's alternating projection stops at a step of 1e-8


@pytest.fixture(scope="module")
def report():
    return compare_sureal.main(["--panels", "2"])


def test_everything_agrees_with_sureal(report):
    """Seven panels of the formula, two complete and two with gaps. Catches any other order of
    screening, standardising and averaging, other weights, and gaps that are not left out.
    """
    assert len(report) == 11
    looked_at = 0
    for name, quantities in report.items():
        for quantity, apart in quantities.items():
            if isinstance(apart, float):
                assert apart < TOLERANCE, (name, quantity)
                looked_at += 1
            elif apart is False or apart is None:
                # The share of far ratings is of the own ratings here, of all videos there.
                assert name.startswith("missing"), (name, quantity)
    assert looked_at > 100
    assert all(r["BT.500, same rejected, P + Q of all videos"] for r in report.values())


def test_the_table_names_every_quantity(report, tmp_path, capsys):
    """Catches a comparison that ran and was not shown, and panels without any gap or rejection."""
    out = tmp_path / "new" / "compare.json"
    compare_sureal.main(["--panels", "1", "--out", str(out)])
    printed = capsys.readouterr().out
    assert out.exists()
    assert "Iteration" not in printed  # sureal's own progress
    for quantity in next(iter(report.values())):
        assert f"\n| {quantity} | " in printed
    assert "| BT.500, same rejected | 7 of 7 | 1 of 1 |" in printed
    assert np.isnan(compare_sureal.simulated_panel(0, 0.25)).mean() == pytest.approx(0.25, abs=0.03)
    assert not np.isnan(compare_sureal.simulated_panel(0, 0)).any()


def test_without_sureal_one_sentence_says_so(monkeypatch):
    """Catches a traceback of an import."""
    monkeypatch.setitem(sys.modules, "sureal", None)
    with pytest.raises(SystemExit, match="sureal is not installed; install the project with its"):
        compare_sureal.main([])
