"""Our metrics against scikit-learn, pysaliency, scipy and torchmetrics; the table of differences
and the benchmark, which must fail when something differs.
"""

import importlib
import json

import numpy as np
import pytest

from lmme3dhf.metrics import agreement
from lmme3dhf.metrics.agreement import KINDS, REFERENCES, Compared, random_case, rows_of
from scripts import bench_metrics
from tests.conftest import shared_data

LIBRARIES = {
    "scikit-learn": "sklearn",
    "pysaliency": "pysaliency",
    "scipy": "scipy",
    "torchmetrics": "torchmetrics",
    "torch": "torch",
}
METRICS = {
    "scikit-learn": {"auc", "auc_borji", "auc_shuffled, steps", "auc_shuffled, exact"},
    "pysaliency": {
        "auc, all pixels",
        "auc_judd",
        "auc_shuffled, exact",
        "nss, ddof 0",
        "cc",
        "sim, sum",
        "kld, floor 1e-20",
        "kld, MIT_KLDiv",
        "ig, positive maps",
    },
    "scipy": {"auc", "nss", "cc", "kld, positive maps"},
    "torchmetrics": {"auc", "cc", "kld, positive maps"},
    "torch": {"every auc", "nss", "cc", "sim", "kld"},
}


@pytest.fixture
def pysaliency(monkeypatch):
    """Its first import needs a name that NumPy 2.4 took away, as the module knows."""
    if not hasattr(np, "trapz"):
        monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    pytest.importorskip("pysaliency")


def test_every_reference_is_tested():
    """Catches a reference that was added to the table alone."""
    assert set(REFERENCES) == set(LIBRARIES) == set(METRICS)


@pytest.mark.parametrize("reference", list(REFERENCES))
def test_random_maps_agree(reference, request):
    """Forty maps of five kinds, ties and flat backgrounds among them, each metric within its
    tolerance. Catches definitions that drift from what others compute.
    """
    if reference == "pysaliency":
        request.getfixturevalue("pysaliency")
    pytest.importorskip(LIBRARIES[reference])
    rng = np.random.default_rng(11)
    cases = [random_case(rng, KINDS[number % len(KINDS)]) for number in range(40)]
    rows = rows_of([one for case in cases for one in REFERENCES[reference](case)])
    assert {row.metric for row in rows} == METRICS[reference]
    assert all(row.cases >= 8 for row in rows)
    assert [row for row in rows if not row.agrees] == []


@pytest.mark.parametrize("reference", ["scipy", "pysaliency"])
def test_real_maps_agree(reference, request):
    """Models' maps with human fixations, and human densities of 8-bit JPEG pictures. Catches what
    small random maps do not have: hundreds of thousands of pixels, densities that are nowhere 0.
    """
    if reference == "pysaliency":
        request.getfixturevalue("pysaliency")
    cases = list(agreement.real_cases(shared_data("saliency")))
    assert len(cases) == 2 + 2 * 12
    chosen = [cases[0], cases[2], cases[3]]
    assert {case.predicted_HW.dtype for case in chosen} == {np.dtype(np.uint8), np.dtype("f4")}
    rows = rows_of([one for case in chosen for one in REFERENCES[reference](case)])
    assert len(rows) >= 3
    assert [row for row in rows if not row.agrees] == []


def test_differences_are_largest_ones_and_nan_is_one():
    """By hand. Catches a mean in place of the maximum, and a NaN that compares as equal."""
    pairs = [(1.0, 1.5), (1.0, 0.0), (np.nan, np.nan)]
    found = [Compared("cc", "x", ours, theirs, 0.75) for ours, theirs in pairs]
    (row,) = rows_of(found)
    assert (row.cases, row.difference, row.agrees) == (3, 1.0, False)
    (row,) = rows_of([Compared("cc", "x", np.nan, 0.5, 0.75)])
    assert (row.difference, row.agrees) == (np.inf, False)


def without(monkeypatch, *libraries: str) -> None:
    found = importlib.import_module

    def import_module(name: str):
        if name.split(".")[0] in libraries:
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(agreement.importlib, "import_module", import_module)


def test_the_table_names_what_it_could_not_compare_with(monkeypatch, tmp_path, capsys):
    """Catches references that are left out in silence, and a table that needs them all."""
    without(monkeypatch, "pysaliency", "torchmetrics", "sklearn")
    status = agreement.main(
        ["--cases", "5", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "a.json")]
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert "not compared with: pysaliency, sklearn, torchmetrics" in printed
    assert "pip install -e '.[test]'" in printed
    assert f"{tmp_path / 'none'}: no real maps there" in printed
    assert "| kld MIT | golden page | 5 |" in printed
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert written["missing"] == ["pysaliency", "sklearn", "torchmetrics"]
    compared_with = {row["reference"] for row in written["rows"]}
    assert compared_with == {
        "scipy",
        "ours on torch tensors",
        "golden page",
        "the definition, NumPy",
    }
    srcc = {row["cases"] for row in written["rows"] if row["metric"] == "srcc"}
    assert srcc == {5}


def test_a_difference_is_an_exit_status(monkeypatch, tmp_path, capsys):
    """With an NSS that is off by 1e-6. Catches a table that is printed and not looked at."""
    without(monkeypatch, "pysaliency", "torchmetrics", "sklearn", "torch")
    true_nss = agreement.saliency_scores

    def shifted(*args, **kwargs):
        scores = true_nss(*args, **kwargs)
        return scores | {"nss": scores["nss"] + 1e-6} if "nss" in scores else scores

    monkeypatch.setattr(agreement, "saliency_scores", shifted)
    assert agreement.main(["--cases", "5", "--data", str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "TOO FAR" in line]
    assert len(lines) == 4
    assert all(line.startswith("| nss") for line in lines)


def test_the_benchmark_compares_equal_results(pysaliency, tmp_path):
    """On small maps; the times say nothing here. Catches sides that compute different things."""
    pytest.importorskip("sklearn")
    out = tmp_path / "bench.json"
    size = ["--maps", "2", "--height", "64", "--width", "96"]
    report = bench_metrics.main([*size, "--repeats", "1", "--torch", "--out", str(out)])
    assert set(report["kinds"]) == {"float64", "float32", "8-bit", "8-bit as float32"}
    for kind, found in report["kinds"].items():
        assert found["jitter"] == kind.startswith("8-bit")
        for metric, row in found["metrics"].items():
            drawn = metric == "auc_borji" or (metric == "auc_judd" and found["jitter"])
            limit = 0.05 if drawn else 1e-11
            assert row["largest_difference"] <= limit, (kind, metric)
        assert found["ours_ms"] > 0
        assert found["theirs_ms"] >= found["theirs_with_the_faster_auc_ms"] > 0
    assert json.loads(out.read_text(encoding="utf-8"))["size"] == [64, 96]
