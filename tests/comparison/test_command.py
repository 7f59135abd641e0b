"""The scripts in evaluate/ as a user calls them."""

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.comparison.conftest import PARTS, mos

SCRIPTS = {
    path.name[:6]: path for path in (Path(__file__).parents[2] / "evaluate").glob("table?_*.py")
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_has_its_script():
    """Catches a table without a door."""
    assert sorted(SCRIPTS) == ["table1", "table2", "table3", "table4", "table5"]


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5"])
def test_a_script_writes_three_files_and_prints_the_page(
    name: str, make_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Catches a script that makes another table."""
    out = tmp_path / "out"
    words = ["--run", str(make_run(smoke=True)), "--out", str(out)]
    assert script(name).main(words) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}.{s}" for s in ("csv", "md", "tex")
    ]
    printed = capsys.readouterr().out
    assert printed == (out / f"{name}.md").read_text(encoding="utf-8")
    assert printed.startswith(f"## Table {name[-1]}.")


def test_a_csv_made_by_hand_becomes_a_row_of_table_1(
    make_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """The README's command. Catches options that do not reach the table."""
    file = tmp_path / "niqe.csv"
    lines = [f"{video},{-mos(video, 'quality')}\n" for video in PARTS["eval"]]
    file.write_text("video,quality\n" + "".join(lines))
    words = ["--run", str(make_run(smoke=False)), "--out", str(tmp_path / "out")]
    words += ["--method", f"NIQE={file}", "--lower_is_better", "NIQE", "--status", "NIQE=retrained"]
    assert script("table1").main(words) == 0
    with (tmp_path / "out" / "table1.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert rows["NIQE"]["status"] == "retrained"
    assert float(rows["NIQE"]["quality_srcc"]) == pytest.approx(1)
    assert float(rows["NIQE"]["quality_srcc_signed"]) == pytest.approx(-1)
    assert "| NIQE [" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "NIQE"], "--method 'NIQE': expected NAME=PATH"),
        (["--method", "A=x.csv", "--method", "A=y.csv"], "'A' is given twice"),
        (["--status", "B=external"], "--status 'B': no such --method"),
        (["--lower_is_better", "B"], "--lower_is_better 'B': no such --method"),
        (["--method", "A=none.csv"], "none.csv: no such file or folder"),
        (["--paper_numbers", "none.yaml"], "none.yaml: the paper's numbers are not here"),
        (["--folds", "official"], "no cross-validation 'official'"),
        (["--part", "test"], "no labels of the part 'test'"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_1(
    words: list[str],
    told: str,
    make_run: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    """Catches a traceback, and files that are written all the same."""
    out = tmp_path / "out"
    assert (
        script("table1").main(["--run", str(make_run(smoke=True)), "--out", str(out), *words]) == 1
    )
    captured = capsys.readouterr()
    assert captured.err.startswith("table 1: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not out.exists()
