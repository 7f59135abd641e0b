"""Cross-validation on a small data set, through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lmme3dhf.cli import main
from lmme3dhf.data.splits import generator, read_split
from lmme3dhf.pipeline import crossval
from lmme3dhf.pipeline.crossval import Fold
from lmme3dhf.predictions import read_predictions
from tests.pipeline.conftest import SHORT

WORDS = ["evaluate", "crossval", "--folds", "leave-one-generator-out", *SHORT]


def with_data(finished: Path, out: Path) -> Path:
    """A run's folder with a copy of the data set alone."""
    out.mkdir()
    shutil.copytree(finished / "data", out / "data")
    steps = json.loads((finished / "steps.json").read_text())
    drawn = {name: steps[name] for name in ("synthesize", "labels")}
    (out / "steps.json").write_text(json.dumps(drawn))
    return out


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """Two of ten folds, as processes of their own at the same time."""
    out = with_data(finished, tmp_path_factory.mktemp("cv") / "run")
    assert main([*WORDS, "--out", str(out), "--only", "3", "7", "--jobs", "2"]) == 0
    return out


def test_a_fold_is_a_whole_run_on_its_own_lists(run):
    """Catches a fold that is trained or tested on the run's split, and one without maps."""
    folds = json.loads((run / "crossval" / "leave-one-generator-out" / "folds.json").read_text())
    assert folds["protocol"] == "leave-one-generator-out"
    assert [fold["finished"] for fold in folds["folds"]] == [k in (3, 7) for k in range(10)]
    for number in (3, 7):
        folder = run / "crossval" / "leave-one-generator-out" / f"fold_{number}"
        split = read_split(folder / "data" / "splits.json")
        assert {generator(video) for video in split["eval"]} == {number}
        records = read_predictions(folder / "predictions.jsonl")
        assert {record.video for record in records} == set(split["eval"])
        assert all((folder / record.map).is_file() for record in records)
        figures = json.loads((folder / "figures.json").read_text())
        assert figures["quality"]["n"] == len(split["eval"]) == 8
        assert "cc" in figures["saliency"]
        # The run's own clips and features, not copies.
        assert not (folder / "data" / "video_RGB").exists()
        assert not (folder / "features").exists()


def test_folds_at_the_same_time_give_what_one_after_the_other_gives(run, finished, tmp_path):
    """Catches processes with other settings or lists, and a store that they fill differently."""
    out = with_data(finished, tmp_path / "run")
    assert main([*WORDS, "--out", str(out), "--only", "3"]) == 0
    apart, here = (
        folder / "crossval" / "leave-one-generator-out" / "fold_3" for folder in (run, out)
    )
    assert read_predictions(apart / "predictions.jsonl") == read_predictions(
        here / "predictions.jsonl"
    )
    figures = [json.loads((folder / "figures.json").read_text()) for folder in (apart, here)]
    assert figures[0] | {"seconds": 0} == figures[1] | {"seconds": 0}
    assert "stage 1: step" in (apart / "log.txt").read_text()
    assert not (here / "log.txt").exists()
    # The tables are there, over the folds of all processes.
    assert "2 finished folds of 10" in (apart.parent / "table1.md").read_text()


def test_finished_folds_are_not_run_again(run, capsys):
    """Catches work that is lost or done twice after a stop."""
    folder = run / "crossval" / "leave-one-generator-out"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert before
    assert main([*WORDS, "--out", str(run), "--only", "3", "7"]) == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == before
    assert ", loss " not in capsys.readouterr().out
    # A fold that was stopped before its end goes on: its last step is done again.
    (folder / "fold_7" / "figures.json").unlink()
    assert main([*WORDS, "--out", str(run), "--only", "7"]) == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == before
    assert (folder / "fold_7" / "figures.json").exists()


def test_a_finished_fold_is_compared_with_the_data(run, capsys):
    """Catches a fold of other labels in the tables, and figures that are damaged."""
    path = run / "data" / "numerical" / "train_quality.json"
    before = path.read_bytes()
    rows = json.loads(before)
    contents = [row["messages"][-1]["content"] for row in rows]
    for row, content in zip(rows, contents[::-1], strict=True):
        row["messages"][-1]["content"] = content
    path.write_text(json.dumps(rows))
    try:
        assert main([*WORDS, "--out", str(run), "--only", "3"]) == 1
        assert "fold_3" in capsys.readouterr().err
    finally:
        path.write_bytes(before)
    figures = run / "crossval" / "leave-one-generator-out" / "fold_3" / "figures.json"
    whole = json.loads(figures.read_text())
    figures.write_text("{")
    assert main([*WORDS, "--out", str(run), "--only", "3"]) == 0
    again = json.loads(figures.read_text())
    assert again["quality"] == whole["quality"]


def test_a_run_on_a_data_set_that_was_not_drawn_is_ablated_too(run, tmp_path, capsys):
    """A fold is such a run: its lists lie in its folder and `synthetic.draw` is off. Catches
    commands that draw a data set of their own where one is given.
    """
    fold = run / "crossval" / "leave-one-generator-out" / "fold_3"
    rows = tmp_path / "rows.yaml"
    rows.write_text(
        "rows:\n- {id: words, title: words, table: 5, number: '2', start: text, scores: level}\n"
    )
    words = ["evaluate", "ablations", "--config", str(fold / "config.yaml"), "--out", str(fold)]
    assert main([*words, "--rows", str(rows)]) == 0
    told = capsys.readouterr().out
    assert "synthesize" not in told
    assert "Table 5" in told
    records = read_predictions(fold / "ablations" / "words" / "predictions.jsonl")
    assert {generator(record.video) for record in records} == {3}


def test_folds_that_are_not_there_are_told(run, capsys):
    """Catches a traceback, and a fold number that is passed over."""
    assert main([*WORDS, "--out", str(run), "--only", "10"]) == 1
    assert "folds 0 to 9" in capsys.readouterr().err
    words = ["evaluate", "crossval", "--out", str(run.parent / "other"), "--data.root", "nowhere"]
    assert main(words) == 1
    assert "nowhere: no lists of a data set" in capsys.readouterr().err


# Processes, with stand-ins for the chain

FAILS = "import sys; print('one'); sys.exit('no such luck')"
ENDS = """
import json, os, sys
from pathlib import Path
figures = {d: {"srcc": 0.5} for d in ("quality", "authenticity")} | {"seconds": 1}
Path(sys.argv[1], "figures.json").write_text(json.dumps(figures))
print("sees", os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"))
"""


def stand_in(monkeypatch, code: dict[int, str]) -> None:
    """Runs some code in place of a fold's chain."""

    def command(out: Path, protocol: str, fold: Fold) -> list[str]:
        return [sys.executable, "-c", code[fold.number], str(fold.folder)]

    monkeypatch.setattr(crossval, "_command", command)


def some_folds(folder: Path, count: int) -> list[Fold]:
    return [
        Fold(number, f"fold {number}", folder / f"fold_{number}", {}) for number in range(count)
    ]


def test_a_fold_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    """With the end of its log. Catches four folds that are lost because of one."""
    stand_in(monkeypatch, {0: ENDS, 1: FAILS, 2: ENDS})
    folds = some_folds(tmp_path, 3)
    failed = crossval._run_apart(tmp_path, "grouped", folds, 2, 0)
    assert [fold.number for fold in failed] == [1]
    assert [fold.is_finished() for fold in folds] == [True, False, True]
    told = capsys.readouterr()
    assert "fold 1: failed (status 1)" in told.err
    assert told.err.rstrip().endswith("no such luck")
    assert "fold 2: quality SRCC 0.500" in told.out


def test_every_fold_gets_a_gpu_of_its_own(tmp_path, monkeypatch):
    """Three jobs on a machine that shows two GPUs, 4 and 6, and on one without. Catches folds that
    all take the first GPU, and those that together take more threads than there are.
    """
    stand_in(monkeypatch, dict.fromkeys(range(3), ENDS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    crossval._run_apart(tmp_path, "grouped", some_folds(tmp_path, 3), 3, 0)
    logs = [(tmp_path / f"fold_{k}" / "log.txt").read_text() for k in range(3)]
    assert [log.split("sees ")[1].split()[0] for log in logs] == ["4", "6", "4"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [environment for _, environment in crossval._places(3, 0)] == [
        {"OMP_NUM_THREADS": "2"}
    ] * 3
    assert crossval._places(1, 5)[0][1] == {"OMP_NUM_THREADS": "5"}


def test_who_ends_the_command_ends_its_folds(tmp_path):
    """SIGTERM. Catches folds that go on alone on their GPUs."""
    script = f"""
import sys
from pathlib import Path
from lmme3dhf.pipeline import crossval
code = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
crossval._command = lambda out, protocol, fold: [sys.executable, "-c", code, str(fold.folder)]
folder = Path({str(tmp_path)!r})
crossval._run_apart(folder, "grouped", [crossval.Fold(0, "f", folder / "fold_0", {{}})], 2, 1)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    log = tmp_path / "fold_0" / "log.txt"
    while not (log.exists() and log.read_text().count("\n") > 1):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text().split()[-1]), 0)


def test_no_jobs_are_refused(run, capsys):
    """Catches a command that waits for nothing, for ever."""
    assert main([*WORDS, "--out", str(run), "--jobs", "0"]) == 1
    assert "jobs must be at least 1" in capsys.readouterr().err
