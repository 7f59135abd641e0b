"""A finished run that is asked for again: with damaged files, with other data, with parts missing.

Of every case the exit status and what the message names are compared, never the sentence.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmme3dhf.cli import main
from lmme3dhf.config import read_settings
from lmme3dhf.models.tiny import TINY_BASE
from lmme3dhf.predictions import read_predictions
from tests.pipeline.conftest import SHORT


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """A copy of the finished run, with a plain base beside it."""
    out = tmp_path_factory.mktemp("again") / "run"
    shutil.copytree(finished, out)
    shutil.copytree(TINY_BASE, out / "base", ignore=shutil.ignore_patterns("manifest.json"))
    return out


@pytest.fixture
def changed(run) -> Iterator[Callable[[str, bytes], None]]:
    """Writes a file of the run; afterwards it is as it was."""
    before: dict[Path, bytes] = {}

    def change(name: str, content: bytes) -> None:
        before.setdefault(run / name, (run / name).read_bytes())
        (run / name).write_bytes(content)

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def words(run: Path, door: str, out: Path) -> list[str]:
    """The command line of a door."""
    settings, clips = ("--config", str(run / "config.yaml")), run / "data" / "video_RGB"
    labels = str(run / "data" / "numerical" / "eval_quality.json")
    score = ["score", str(min(clips.iterdir())), "--out", str(out / "scores.csv")]
    return {
        "demo": ["demo", "--out", str(run), *SHORT],
        "stage 1": ["train", "text", *settings, "--out", str(run / "stage1")],
        "new stage 2": [
            *("train", "score", *settings, "--model", str(run / "base")),
            *("--score.trainer.max_steps", "1", "--out", str(out / "new")),
        ],
        "new stage 3": [
            *("train", "saliency", *settings, "--model", str(run / "base")),
            *("--saliency.trainer.max_steps", "1", "--out", str(out / "new")),
        ],
        "merge": ["merge", str(run / "stage1"), "--out", str(out / "merged")],
        "score": [*score, "--model", str(run / "model"), "--verify", "false"],
        "verified": [*score, "--model", str(run / "model")],
        "predict": [
            *("predict", "--data", labels, "--video_root", str(clips), "--verify", "false"),
            *("--model", str(run / "model"), "--out", str(out / "predictions.jsonl")),
        ],
        "evaluate": [
            *("evaluate", "--predictions", str(run / "predictions.jsonl"), "--data", labels)
        ],
        "report": ["report", str(run)],
    }[door]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "not JSON": lambda content: b"{]",
    "a list": lambda content: b"[1]\n",
    "a text": lambda content: b'"x"\n',
    "not UTF-8": lambda content: b"\xff\xfe" + content,
}
JSON, TEXT = tuple(DAMAGE), ("not UTF-8",)
DAMAGED = [
    ("model/config.json", ("score", "predict", "verified"), JSON),
    ("model/generation_config.json", ("score",), JSON),
    ("model/tokenizer.json", ("score",), JSON),
    ("model/tokenizer_config.json", ("score",), JSON),
    ("model/processor_config.json", ("score",), JSON),
    ("model/chat_template.jinja", ("score",), ("not UTF-8", "truncated")),
    ("base/config.json", ("new stage 2", "new stage 3"), JSON),
    ("base/tokenizer.json", ("new stage 2",), JSON),
    ("base/tokenizer_config.json", ("new stage 2",), JSON),
    ("base/processor_config.json", ("new stage 3",), JSON),
    ("steps.json", ("demo",), JSON),
    ("config.yaml", ("demo",), ("a list", "a text", "not JSON", "not UTF-8")),
    ("config.yaml", ("report",), TEXT),
    ("stage1/run.json", ("stage 1", "merge", "demo"), JSON),
    ("stage1/config.yaml", ("stage 1", "merge"), ("a list", "a text", "not UTF-8")),
    ("stage1/speed.json", ("merge", "demo"), JSON),
    ("data/levels.json", ("new stage 2",), JSON),
    ("data/truth.json", ("demo",), JSON),
    ("data/splits.json", ("demo",), JSON),
    ("data/fixations.json", ("demo",), JSON),
    ("data/numerical/eval_quality.json", ("evaluate",), JSON),
    ("predictions.jsonl", ("evaluate", "report", "demo"), ("a list", "not UTF-8")),
]


@pytest.mark.parametrize(
    ("name", "door", "kind"),
    [(name, door, kind) for name, doors, kinds in DAMAGED for door in doors for kind in kinds],
)
def test_a_damaged_file_is_a_sentence_with_its_name(
    run, changed, capsys, tmp_path, name, door, kind
):
    """Catches a traceback (an exception passes `main`), and a file that is passed over."""
    changed(name, DAMAGE[kind]((run / name).read_bytes()))
    assert main(words(run, door, tmp_path)) == 1
    error = capsys.readouterr().err
    assert Path(name).name in error
    assert any(way in error for way in (";", "give ", "expected")), "no way out"


@pytest.mark.parametrize("setting", ["--data.root", "--model"])
def test_a_finished_stage_does_not_pass_what_is_not_there(run, capsys, tmp_path, setting):
    """Catches "stage 1 is done" for a data set or a model that does not exist."""
    nowhere = str(tmp_path / "nowhere")
    assert main([*words(run, "stage 1", tmp_path), setting, nowhere]) == 1
    assert nowhere in capsys.readouterr().err


def _other_labels(rows: list) -> list:
    for row in rows:
        answer = row["messages"][-1]
        answer["content"] = answer["content"].replace("poor", "bad").replace("fair", "good")
    return rows


@pytest.mark.parametrize("change", [_other_labels, lambda rows: rows[::2]])
@pytest.mark.parametrize("finished_stage", [True, False])
def test_a_run_does_not_go_on_with_other_labels(run, changed, capsys, change, finished_stage):
    """Under the same root. Catches weights that come from two data sets."""
    name = "text/train_quality.json"
    path = run / "data" / name
    changed(f"data/{name}", json.dumps(change(json.loads(path.read_bytes()))).encode())
    if not finished_stage:
        changed("stage1/manifest.json", b"{}")
    assert main(words(run, "stage 1", run)) == 1
    error = capsys.readouterr().err
    assert name in error
    assert "--out" in error


def test_a_smaller_micro_batch_goes_on_and_says_so(run, capsys):
    """Half the micro-batch, twice the accumulation, other workers. Catches a run that is locked by
    what a machine asks for.
    """
    trainer = "--text.trainer.per_device_train_batch_size"
    whole = read_settings(run / "config.yaml")["text"]["trainer"]["per_device_train_batch_size"]
    other = [*words(run, "stage 1", run), trainer, str(whole // 2), "--data.workers", "1"]
    assert main([*other, "--text.trainer.gradient_accumulation_steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "per_device_train_batch_size" in out
    assert "data.workers" in out
    # Alone it makes other steps.
    assert main(other) == 1
    assert "micro-batch" in capsys.readouterr().err


def test_a_lost_model_is_named_and_merged_again_with_its_figures(run, capsys):
    """Catches a finished job without a model, and a card that has lost the figures of the test."""
    shutil.move(run / "model", run / "lost")
    assert main(words(run, "demo", run)) == 1
    error = capsys.readouterr().err
    assert f"lmme3dhf merge {run / 'stage3'} --out {run / 'model'}" in error
    assert main(["merge", str(run / "stage3"), "--out", str(run / "model")]) == 0
    assert main(words(run, "demo", run)) == 0
    assert (run / "model" / "card.json").read_bytes() == (run / "lost" / "card.json").read_bytes()
    shutil.rmtree(run / "lost")


def test_lost_predictions_are_made_again(run):
    """The others are kept. Catches figures of a part of the test, and a KeyError."""
    path = run / "predictions.jsonl"
    whole, before = path.read_bytes(), read_predictions(path)
    for lost in (b"", b"".join(whole.splitlines(keepends=True)[3:])):
        path.write_bytes(lost)
        assert main(words(run, "demo", run)) == 0
        for old, new in zip(before, read_predictions(path), strict=True):
            assert (new.video, new.dimension, new.map) == (old.video, old.dimension, old.map)
            # Clips are batched otherwise; what is left are the last bits of float32.
            assert new.score == pytest.approx(old.score, abs=1e-4)
    path.write_bytes(whole)


def test_other_labels_of_the_test_give_other_figures(run, changed, capsys):
    """Catches figures that belong to labels that are gone."""
    name = "data/numerical/eval_quality.json"
    before = json.loads((run / "summary.json").read_bytes())["quality"]["srcc"]
    rows = json.loads((run / name).read_bytes())
    contents = [row["messages"][-1]["content"] for row in rows]
    for row, content in zip(rows, contents[::-1], strict=True):
        row["messages"][-1]["content"] = content
    changed(name, json.dumps(rows).encode())
    assert main(words(run, "demo", run)) == 0
    assert json.loads((run / "summary.json").read_bytes())["quality"]["srcc"] != before
    assert "other figures" in capsys.readouterr().out


@pytest.mark.slow
def test_another_setting_of_stage_2_trains_from_there(finished, tmp_path):
    """Catches stage 1 trained again, and a stage 3 of the former stage 2."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    kept = (out / "stage1" / "manifest.json").read_bytes()
    before = (out / "model" / "model.safetensors").read_bytes()
    rate = ["--score.trainer.learning_rate", "1e-5"]
    assert main(["demo", "--out", str(out), *SHORT, *rate]) == 0
    assert (out / "stage1" / "manifest.json").read_bytes() == kept
    assert (out / "model.old-1" / "model.safetensors").read_bytes() == before
    assert (out / "model" / "model.safetensors").read_bytes() != before
