"""Cross-validation on a small data set, through the command line."""

import json
import shutil
from pathlib import Path

import pytest

from lmme3dhf.cli import main
from lmme3dhf.data.splits import generator, read_split
from lmme3dhf.predictions import read_predictions
from tests.pipeline.conftest import SHORT

WORDS = ["evaluate", "crossval", "--folds", "leave-one-generator-out", *SHORT]


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """A run with its data set alone, and two of ten folds."""
    out = tmp_path_factory.mktemp("cv") / "run"
    out.mkdir()
    shutil.copytree(finished / "data", out / "data")
    steps = json.loads((finished / "steps.json").read_text())
    drawn = {name: steps[name] for name in ("synthesize", "labels")}
    (out / "steps.json").write_text(json.dumps(drawn))
    assert main([*WORDS, "--out", str(out), "--only", "3", "7"]) == 0
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
