"""A folder with broken files: scored by the command, killed, and gone on with."""

import os
import sys
from functools import partial
from typing import BinaryIO

import psutil
import pytest

from lmme3dhf import jsonl
from lmme3dhf.cli import main
from lmme3dhf.data.container import REASONS
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.processes import answers
from lmme3dhf.errors import UserError
from lmme3dhf.models.configuration import SaliencyConfig
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.scores import ScoreError, read_scores
from scripts.score_folder_study import as_mp4, faces, make_folder, study
from tests.test_scores import opened, written

FRAMES = {"fps": None, "frames": 4, "min_pixels": 3136, "max_pixels": 12544}


@pytest.fixture(scope="module")
def model(tiny_folder, processor, tmp_path_factory):
    """A folder as after all stages, with random weights."""
    folder = tmp_path_factory.mktemp("finished")
    made = LMME3DHF.from_pretrained(tiny_folder)
    aspects = with_tokens(made.metric.aspects, processor.tokenizer)
    made.config.set_metric(made.metric.replace(frames=FRAMES, aspects=aspects))
    made.add_saliency_decoder(SaliencyConfig())
    made.missing_parts = []
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def forked(words: list[str], log: BinaryIO) -> psutil.Process:
    """The command in a copy of this process, which has imported all it needs."""
    number = os.fork()
    if number:
        return psutil.Process(number)
    status = 1
    try:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115
        status = main(words)
        sys.stdout.flush()
    finally:
        os._exit(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_folder_that_was_killed_half_way_is_gone_on_with(model, tmp_path):
    """Forty files, fourteen broken in as many ways; SIGKILL, the same command, and once more.
    Catches a file that is scored twice or never, a wrong reason, a lock that outlives its process,
    and a map that is named but not there.
    """
    expected = make_folder(tmp_path / "clips", 40, [as_mp4(face) for face in faces(2, frames=6)])
    out = tmp_path / "scores.csv"
    words = ["score", str(tmp_path / "clips"), "--model", str(model), "--out", str(out)]
    figures = study(partial(forked, [*words, "--batch_size", "2"]), out, expected)
    assert figures["faults"] == [], out.with_suffix(".log").read_text()
    assert figures["broken"] == 14
    assert set(figures["reasons"]) == set(REASONS) - {"time_out", "out_of_memory", "changed"}
    good = [row for row in read_scores(out) if row.status == "ok"]
    assert len({row.map for row in good}) == 26
    assert all((tmp_path / row.map).is_file() for row in good)
    assert len({row.ratings["quality"].score for row in good}) > 1
    told = out.with_suffix(".log").read_text().splitlines()[-1]
    assert told.startswith(f"{out}: 26 files scored, 14 not (decode_error 1, empty 1, missing 1")
    assert told.endswith("40 of these rows were there before")


def nothing(task: int) -> tuple[int, list]:
    """Stands for decoding a clip."""
    return task, []


def test_processes_that_decode_do_not_free_the_lock(tmp_path, monkeypatch):
    """They are copies of the process that holds it. Catches a second command that is let in when
    the first one of them ends, while the first command is still writing.
    """
    monkeypatch.setattr(jsonl, "PATIENCE_S", 0)
    out = tmp_path / "scores.csv"
    with opened(out):
        assert list(answers(nothing, [1, 2, 3], 2, timeout_s=60, memory_mb=500)) == [
            (n, []) for n in (1, 2, 3)
        ]
        with pytest.raises(ScoreError, match="another process"):
            written(out)


def test_options_reach_the_scorer(model, tmp_path, monkeypatch, capsys):
    """Catches an option that is read and forgotten, and impossible numbers that end in a traceback
    or in a folder of time-outs.
    """
    given = {}

    def loaded(folder, **options):
        given.update(options)
        raise UserError("far enough")

    monkeypatch.setattr("lmme3dhf.scorer.Scorer.from_pretrained", loaded)
    (tmp_path / "a.mp4").touch()
    words = ["score", str(tmp_path / "a.mp4"), "--model", str(model)]
    words += ["--out", str(tmp_path / "scores.csv")]
    assert main(words) == 1
    assert (given["workers"], given["batch_size"], given["timeout_s"]) == (None, 8, 60)
    assert (given["load"], given["attn_implementation"]) == (None, "auto")
    options = "--load 8bit --attn_implementation sdpa --timeout 5 --workers 0 --batch_size 3"
    options += " --views 0.5 0 1"
    assert main([*words, *options.split(), "--device", "cpu", "--dtype", "float32"]) == 1
    assert given == {
        "device": "cpu",
        "dtype": "float32",
        "load": "8bit",
        "attn_implementation": "sdpa",
        "timeout_s": 5,
        "workers": 0,
        "batch_size": 3,
        "scores": True,
        "views": [0.5, 0.0, 1.0],
        "verify": False,  # the command has verified it before it computed the key
    }
    for wrong in ("--timeout 0", "--batch_size 0", "--workers -1", "--load 2bit"):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            main([*words, *wrong.split()])
        assert wrong.split()[0].strip("-") in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
