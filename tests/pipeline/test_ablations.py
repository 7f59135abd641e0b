"""Ablations run on a small finished chain, through the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf import Scorer
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.cli import main
from lmme3dhf.config import load_config
from lmme3dhf.data.gen3dhf import level_reply, read_list, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.models.configuration import ModelError
from lmme3dhf.predictions import read_predictions
from lmme3dhf.stages.score import read_scores
from tests.pipeline.conftest import SHORT

ROWS = """
rows:
- {id: language, title: words, table: 5, number: "2", start: text, scores: level, answers: true}
- {id: softmax, title: levels, start: text, scores: level_probabilities}
- {id: head, title: head, start: base, stages: [score], scores: head, answers: true,
   settings: {lora.language: false}}
- {id: leak, title: leak, start: text, stages: [score], scores: head, leaking: true,
   settings: {score.read: label}}
- {id: question, title: question, start: text, stages: [score], scores: head,
   settings: {score.read: question, score.trainer.num_train_epochs: 0.1}, factors: {lora.rank: 0.5}}
- {id: blind, title: w/o LLM, table: 4, number: "1", start: score, stages: [saliency], maps: true,
   settings: {saliency.branches: visual, saliency.trainer.num_train_epochs: 0.1}}
- {id: silent, title: prompt, table: 4, number: "2", start: score, stages: [saliency], maps: true,
   settings: {saliency.prompt: "", saliency.trainer.num_train_epochs: 0.1}}
- {id: whole, title: all, table: 5, number: "5", start: saliency, scores: head, maps: true}
"""


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.yaml"
    path.write_text(ROWS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ablated(finished, rows_file) -> Path:
    """The finished chain with its ablations."""
    words = ["evaluate", "ablations", "--out", str(finished), "--rows", str(rows_file), *SHORT]
    assert main(words) == 0
    return finished


def _records(run: Path, row: str) -> list:
    return read_predictions(run / "ablations" / row / "predictions.jsonl")


def test_every_row_is_listed_with_what_it_says(ablated):
    """Catches a row that was not run, and one whose predictions cannot be found or say what the
    row does not count.
    """
    rows = json.loads((ablated / "ablations" / "rows.json").read_text())
    assert [row["id"] for row in rows] == [
        *("language", "softmax", "head", "leak", "question", "blind", "silent", "whole")
    ]
    clips = len(read_list(ablated / "data" / "numerical" / "eval_quality.json"))
    for row in rows:
        records = read_predictions(ablated / row["predictions"])
        assert len(records) == 2 * clips
        for record in records:
            assert (record.score is not None) == (row["scores"] != "none"), row["id"]
            assert (record.map is not None) == row["maps"], row["id"]
            if not row["answers"] and row["id"] != "whole":
                assert record.distortions is None, row["id"]
        assert row["seconds"] >= 0


def test_a_level_is_worth_its_middle(ablated):
    """By hand from the stored edges; catches a level taken for its number, and edges of the other
    dimension.
    """
    edges = json.loads((ablated / "data" / "levels.json").read_text())
    levels = ("bad", "poor", "fair", "good", "excellent")
    for record in _records(ablated, "language"):
        at = levels.index(record.level)
        low, high = edges[record.dimension][at : at + 2]
        assert record.score == pytest.approx((low + high) / 2)
    for record in _records(ablated, "softmax"):
        middles = [
            (a + b) / 2
            for a, b in zip(edges[record.dimension], edges[record.dimension][1:], strict=False)
        ]
        shares = [record.level_probabilities[level] for level in levels]
        assert record.score == pytest.approx(np.dot(middles, shares), abs=1e-4)


def _said(sample: Sample, word: str) -> Sample:
    return replace(
        sample,
        levels={sample.task: word},
        reply=level_reply(GEN3DHF[sample.task], word, sample.mos),
    )


def test_the_released_protocol_reads_the_label(ablated):
    """The leak itself: another word in the test list gives other scores there, and the same ones,
    bit for bit, where the answer is read. Catches an ablation that does not leak (its row would say
    that leaking costs nothing), and a metric that does.
    """
    config = load_config(ablated / "config.yaml")
    path = ablated / "data" / "numerical" / "eval_quality.json"
    honest = path.read_text(encoding="utf-8")
    models = {
        "label": ablated / "ablations" / "leak" / "score" / "merged",
        "answer": ablated / "stage2" / "merged",
    }
    scores = {}
    try:
        for word in ("bad", "excellent"):
            write_list(path, [_said(sample, word) for sample in read_list(path)])
            for read, model in models.items():
                reading = replace(config, score=replace(config.score, read=read))
                scores[word, read] = read_scores(reading, model, ["numerical/eval_quality.json"])
    finally:
        path.write_text(honest, encoding="utf-8")
    assert len(scores["bad", "answer"]) == 10
    assert scores["bad", "answer"] == scores["excellent", "answer"]
    pairs = [
        (scores["bad", "label"][k], scores["excellent", "label"][k]) for k in scores["bad", "label"]
    ]
    assert all(bad != excellent for bad, excellent in pairs)


@pytest.mark.parametrize("row", ["leak", "question"])
def test_a_model_that_reads_elsewhere_scores_no_new_video(ablated, row):
    """Catches a leaking model that is handed on as a metric."""
    with pytest.raises(ModelError, match="only a model that reads at the answer"):
        Scorer.from_pretrained(ablated / "ablations" / row / "score" / "merged")


def test_ablated_decoders_are_loaded_as_they_were_trained(ablated):
    """Catches a prompt or a branch that is lost when the model is merged and loaded again."""
    blind = Scorer.from_pretrained(ablated / "ablations" / "blind" / "saliency" / "merged")
    assert blind.model.metric.saliency.branches == "visual"
    assert not blind.model.saliency_decoder.multimodal
    silent = Scorer.from_pretrained(ablated / "ablations" / "silent" / "saliency" / "merged")
    assert silent.model.metric.saliency.prompt == ""


def test_the_same_command_does_nothing_twice(ablated, rows_file, capsys):
    """Catches a second call that trains or predicts again."""
    files = {p: p.stat().st_mtime_ns for p in (ablated / "ablations").rglob("*") if p.is_file()}
    words = ["evaluate", "ablations", "--out", str(ablated), "--rows", str(rows_file), *SHORT]
    assert main(words) == 0
    changed = {p.stem for p, at in files.items() if p.stat().st_mtime_ns != at}
    assert changed <= {"rows", "table4", "table5"}
    assert ", loss " not in capsys.readouterr().out


def test_wrong_rows_are_told(ablated, rows_file, tmp_path, capsys):
    """Catches a traceback, a misspelt id that runs nothing, and a changed row under an old name."""
    words = ["evaluate", "ablations", "--out", str(ablated), *SHORT]
    assert main([*words, "--rows", str(rows_file), "--only", "laek"]) == 1
    assert "'laek' is not one of language" in capsys.readouterr().err
    assert main([*words, "--rows", str(tmp_path / "no.yaml")]) == 1
    assert "no.yaml" in capsys.readouterr().err
    other = tmp_path / "rows.yaml"
    other.write_text(ROWS.replace("score.read: label", "score.read: answer"), encoding="utf-8")
    assert main([*words, "--rows", str(other), "--only", "leak"]) == 1
    assert "was run as another row" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("row.json", b"{"),
        ("row.json", b"[1]"),
        ("row.json", b'{"row": 1}'),
        ("predictions.jsonl", b""),
        ("predictions.jsonl", b"[1]\n"),
    ],
)
def test_a_finished_row_is_looked_at_again(ablated, rows_file, capsys, name, content):
    """Catches a traceback, and a row of a table whose predictions are gone."""
    path = ablated / "ablations" / "leak" / name
    before = path.read_bytes()
    words = ["evaluate", "ablations", "--out", str(ablated), "--rows", str(rows_file), *SHORT]
    path.write_bytes(content)
    try:
        assert main([*words, "--only", "leak"]) == 1
        assert str(path) in capsys.readouterr().err
    finally:
        path.write_bytes(before)


def test_a_finished_row_of_another_model_is_refused(ablated, rows_file, capsys):
    """Catches predictions that stand in a table under a model that did not make them."""
    path = ablated / "ablations" / "language" / "row.json"
    before = path.read_text(encoding="utf-8")
    words = ["evaluate", "ablations", "--out", str(ablated), "--rows", str(rows_file), *SHORT]
    path.write_text(json.dumps(json.loads(before) | {"model": "0" * 16}), encoding="utf-8")
    try:
        assert main([*words, "--only", "language"]) == 1
        assert str(path.parent) in capsys.readouterr().err
    finally:
        path.write_text(before, encoding="utf-8")
