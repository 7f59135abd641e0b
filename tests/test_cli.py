"""The command line: verbs, exit status, one sentence for every mistake, and quick help."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lmme3dhf import cli
from lmme3dhf.config import Config, load_config
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.errors import UserError
from lmme3dhf.predictions import Prediction, write_predictions

ROOT = Path(__file__).resolve().parents[1]
VERBS = {"demo", "data", "train", "merge", "predict", "evaluate", "score"}
HEAVY = ("torch", "transformers", "peft", "matplotlib", "scipy", "av", "decord", "datasets")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Verbs set variables for the libraries; the other tests must not see them."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def run_python(code: str, *args: str) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter, as the console command does."""
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


def test_help_of_every_verb_is_quick_and_complete():
    """All in one fresh interpreter, which must not import a heavy library for it: torch alone takes
    seconds. Catches an import at the top of a module that the command line needs, and a verb whose
    parser is broken.
    """
    code = """
import contextlib, io, json, sys
from lmme3dhf.cli import VERBS, main
shown = {}
for argv in (["--help"], *([verb, "--help"] for verb in VERBS)):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main(argv)
        except SystemExit as stop:
            shown[argv[0]] = [stop.code, out.getvalue()]
print(json.dumps([shown, sorted(m for m in sys.modules if "." not in m)]))
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    shown, modules = json.loads(done.stdout)
    assert set(shown) >= VERBS
    for name, (status, text) in shown.items():
        assert status == 0, name
        assert "usage:" in text, name
    for verb in VERBS:
        assert re.search(rf"^\s+{verb}$", shown["--help"][1], re.MULTILINE), verb
    assert "jsonargparse" in modules
    assert not set(HEAVY) & set(modules)


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("train", ("stage", "--out", "--config", "--lora.rank", "--text.trainer")),
        ("merge", ("run", "--out")),
        ("predict", ("--model", "--data", "--video_root", "--out", "--evaluate")),
        ("score", ("paths", "--model", "--out", "--maps")),
        ("evaluate", ("--predictions", "--data", "--out")),
        ("data", ("synthesize", "labels", "check", "splits", "download", "stats")),
        ("data synthesize", ("--out", "--synthetic.latents")),
        ("data labels", ("--ratings", "--marks", "--remarks", "--videos", "--out", "--split")),
        ("data check", ("path", "--video_root", "--decode")),
        ("data splits", ("--out", "--videos")),
        ("data download", ("--target_dir", "--dataset", "--dry_run")),
        ("data stats", ("data", "--out")),
        ("demo", ("--out", "--clips", "--synthetic.latents")),
    ],
)
def test_verbs_have_the_documented_options(capsys, verb, options):
    """Catches an option that was renamed: scripts and README name them."""
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in options:
        assert option in text


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "verb"),
        (["scroe"], "scroe"),
        (["score", "--modle", "x"], "--modle"),
        (["score", "clip.mp4"], "model"),
        (["train", "text"], "out"),
        (["train", "pretext", "--out", "x"], "pretext"),
        (["train", "text", "--out", "x", "--lora.rnk", "3"], "--lora.rnk"),
        (["train", "text", "--out", "x", "--lora.rank", "many"], "lora.rank"),
        (["train", "text", "--out", "x", "--config", "absent.yaml"], "absent.yaml"),
        (["predict", "--model", "m", "--data", "d", "--out", "o", "--maps", "maybe"], "maps"),
    ],
)
def test_wrong_arguments_end_with_status_2(capsys, argv, named):
    """Before anything is loaded, with the argument named. Catches a typing error that is passed
    over, and a verb that runs with defaults.
    """
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    message = capsys.readouterr().err.split("error:")[-1]
    assert named in message
    assert "Traceback" not in message


@pytest.mark.parametrize("started", ["console command", "python -m"])
def test_a_users_mistake_is_one_sentence_and_status_1(started):
    """Through a fresh interpreter, in both ways that our scripts use: nothing else on standard
    error, no traceback, and no warning of a library (Python shows those of `python -m`).
    """
    code = """
import runpy, sys, types
from lmme3dhf.errors import UserError
def fail(run, out):
    raise UserError("clip.mp4: what, where, and how to go on")
sys.modules["lmme3dhf.stages.run"] = types.SimpleNamespace(merge_run=fail)
if sys.argv.pop(1) == "python -m":
    runpy.run_module("lmme3dhf.cli", run_name="__main__", alter_sys=True)
from lmme3dhf.cli import main
sys.exit(main())
"""
    done = run_python(code, started, "merge", "run")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "lmme3dhf merge: clip.mp4: what, where, and how to go on\n"


@pytest.mark.parametrize(
    ("script", "model"),
    [("train_MLP.sh", "output/stage1/merged"), ("train_saliency.sh", "output/stage2/merged")],
)
def test_stages_stay_chained_under_another_file_of_settings(script, model):
    """Catches a stage that starts from the model of the user's --config, not from the stage before,
    because the last word wins; and a user's own --model that does not win.
    """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def printed(*options: str) -> list[str]:
        command = ["bash", script, "--config", "configs/demo.yaml", *options, "--print_config"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert f"model: {model}" in printed()
    assert "dtype: float32" in printed()
    assert "model: elsewhere" in printed("--model", "elsewhere", "--config=configs/demo.yaml")


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    """Catches a command line that swallows every exception: a bug would look like wrong input."""

    def broken(args, config):
        raise AssertionError("a bug")

    monkeypatch.setitem(cli.VERBS, "merge", (cli.VERBS["merge"][0], broken))
    with pytest.raises(AssertionError, match="a bug"):
        cli.main(["merge", "run"])


def a_list(path: Path, *videos: str) -> Path:
    samples = [
        Sample(
            video=video,
            path=Path(f"{video}.mp4"),
            task="quality",
            prompt=PROMPTS["quality"],
            reply=level_reply("quality", "good", 50.0 + number),
        )
        for number, video in enumerate(videos)
    ]
    write_list(path, samples)
    return path


# {absent} does not exist, {out} is to be written, {lists} holds seed0000 and seed0001, {few}
# predicts the first of them only.
MISTAKES = {
    "merge, no run": ("merge {absent}", "{absent}"),
    "train text, no model": ("train text --out {out} --model {absent}", "{absent}"),
    "train score, no model": ("train score --out {out} --model {absent}", "{absent}"),
    "train saliency, no model": ("train saliency --out {out} --model {absent}", "{absent}"),
    "train, impossible value": ("train text --out {out} --lora.rank 0", "lora.rank"),
    "predict, no list": ("predict --model {absent} --data {absent} --out {out}", "{absent}"),
    "predict, no model": ("predict --model {absent} --data {lists} --out {out}", "{absent}"),
    "score, no model": ("score {lists} --model {absent} --out {out}", "{absent}"),
    "score, no model in the folder": ("score {lists} --model {folder} --out {out}", "{folder}"),
    "score, no trained head": ("score {lists} --model {base} --out {out}", "{base}"),
    "score, no such device": (
        "score {lists} --model {base} --out {out} --device typewriter",
        "typewriter",
    ),
    "train text, no model in the folder": (
        "train text --out {out} --model {folder} --text.lists [{lists}]",
        "{folder}: not a whole model folder",
    ),
    "train text, no data": (
        "train text --out {out} --model {base} --data.root {absent}",
        "text/train_quality.json",
    ),
    "train score, no data": (
        "train score --out {out} --model {base} --data.root {absent}",
        "{absent}",
    ),
    "train saliency, no data": (
        "train saliency --out {out} --model {base} --data.root {absent}",
        "{absent}",
    ),
    "evaluate, no predictions": ("evaluate --predictions {absent} --data {lists}", "{absent}"),
    "evaluate, no list": ("evaluate --predictions {few} --data {absent}", "{absent}"),
    "evaluate, too few": ("evaluate --predictions {few} --data {lists}", "seed0001"),
    "data, impossible value": (
        "data synthesize --out {out} --synthetic.latents 0 --synthetic.processes 1",
        "latents",
    ),
}


@pytest.fixture
def quiet_library():
    """As in a fresh process, where the command line sets it before the library is imported."""
    from transformers import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(before)
    logging.enable_progress_bar()


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.usefixtures("quiet_library")
def test_what_a_user_can_get_wrong_is_told_in_one_sentence(tmp_path, capsys, name):
    """With the folder, video or setting in it. Catches a traceback of some library for a mistyped
    path, and an output that is left half written.
    """
    few = tmp_path / "few.jsonl"
    write_predictions(few, [Prediction(video="seed0000", dimension="quality", method="m", score=1)])
    places = {
        "absent": str(tmp_path / "absent"),
        "out": str(tmp_path / "out"),
        "lists": str(a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001")),
        "few": str(few),
        "folder": str(tmp_path / "lists"),
        "base": "lmme3dhf/models/tiny_base",
    }
    command, named = MISTAKES[name]
    status = cli.main([word.format(**places) for word in command.split()])
    error = capsys.readouterr().err
    assert status == 1
    words = command.split()
    verb = " ".join(words[:2]) if words[0] == "data" else words[0]
    assert error.startswith(f"lmme3dhf {verb}: ")
    assert named.format(**places) in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


class FakeScorer:
    """Assesses every .mp4 and fails on everything else, as the scorer does with a bad file."""

    scores = True

    def assess(self, paths, **options):
        from lmme3dhf.scorer import Assessment, Failure, Rating

        for path in paths:
            if path.suffix != ".mp4":
                yield Failure(path, "not_a_video", f"{path} is no video")
                continue
            rating = Rating(score=51.25, level="good", level_probabilities={"good": 1.0})
            yield Assessment(
                path=path,
                quality=rating,
                authenticity=rating,
                distortions=("Eye Distortions", "Hair Distortions"),
                saliency=np.zeros((8, 24), np.float32) if options.get("maps") else None,
                decoder="pyav",
            )


def scored(tmp_path: Path, monkeypatch, *names: str, maps: bool = False) -> tuple[int, list[dict]]:
    """Exit status and rows of `lmme3dhf score FOLDER` on empty files of these names."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    monkeypatch.setattr(cli.scoring, "scorer_of", lambda args: FakeScorer())
    out = tmp_path / "scores.csv"
    argv = ["score", str(folder), "--model", "m", "--out", str(out)]
    status = cli.main([*argv, "--maps", str(tmp_path / "maps")] if maps else argv)
    with out.open(encoding="utf-8", newline="") as file:
        return status, list(csv.DictReader(file))


def test_scoring_goes_on_after_a_bad_file(tmp_path, monkeypatch):
    """Status 3, one row a file, the reason in its row. Catches a batch that stops, and scripts that
    take a half finished batch for a whole one.
    """
    status, rows = scored(tmp_path, monkeypatch, "a.mp4", "b.txt", "c.mp4", ".hidden")
    assert status == 3
    assert [(Path(row["file"]).name, row["status"]) for row in rows] == [
        ("a.mp4", "ok"),
        ("b.txt", "failed"),
        ("c.mp4", "ok"),
    ]
    assert rows[0]["quality"] == "51.250"
    assert rows[0]["distortions"] == "Eye Distortions; Hair Distortions"
    assert rows[1]["reason"] == "not_a_video"
    assert rows[1]["quality"] == ""


def test_scoring_good_files_ends_with_status_0(tmp_path, monkeypatch):
    """Catches a status that is never 0, and maps that are named but not written."""
    status, rows = scored(tmp_path, monkeypatch, "a.mp4", "b.mp4", maps=True)
    assert status == 0
    assert len(rows) == 2
    assert all((tmp_path / "maps" / row["map"]).is_file() for row in rows)


def test_scoring_nothing_is_refused(tmp_path, monkeypatch, capsys):
    """An empty folder, and a clip that does not exist. Catches an empty table that looks done."""
    monkeypatch.setattr(cli.scoring, "scorer_of", lambda args: FakeScorer())
    (tmp_path / "empty").mkdir()
    for path, named in ((tmp_path / "empty", "no files"), (tmp_path / "absent.mp4", "absent.mp4")):
        out = tmp_path / "scores.csv"
        assert cli.main(["score", str(path), "--model", "m", "--out", str(out)]) == 1
        assert named in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "arrived"),
    [
        ("", (True, "likelihood", True, False)),
        ("--answers reply", (True, "reply", True, False)),
        ("--ratings false --answers none", (False, None, True, False)),
        ("--answers yes_no --maps false --write_text true", (True, "yes_no", False, True)),
    ],
)
def test_what_is_asked_for_reaches_the_prediction(tmp_path, monkeypatch, words, arrived):
    """Catches an option that is read and forgotten, and the word none taken for a way to answer."""
    calls = []
    monkeypatch.setattr(cli.scoring, "scorer_of", lambda args: FakeScorer())
    monkeypatch.setattr(
        "lmme3dhf.stages.predict.predict", lambda *given, **asked: calls.append(asked) or 0
    )
    lists = a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001")
    argv = ["predict", "--model", "m", "--data", str(lists), "--out", str(tmp_path / "p.jsonl")]
    assert cli.main([*argv, *words.split()]) == 0
    names = ("ratings", "answers", "maps", "write_text")
    assert calls == [dict(zip(names, arrived, strict=True))]


@pytest.mark.parametrize(
    ("words", "scores"),
    [
        ("predict", True),
        ("predict --scores false", False),
        ("predict --ratings false", False),
        ("score", True),
    ],
)
def test_a_score_head_is_needed_where_scores_are_read(tmp_path, monkeypatch, capsys, words, scores):
    """Words alone, and maps alone, take models without one. Catches numbers of an untrained head in
    a table of scores, and models that are refused for what nobody asked.
    """
    asked = []

    def loaded(folder, **options):
        asked.append(options["scores"])
        raise UserError("far enough")

    monkeypatch.setattr("lmme3dhf.scorer.Scorer.from_pretrained", loaded)
    clip = tmp_path / "a.mp4"
    clip.touch()
    verb, *more = words.split()
    lists = a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001")
    about = ["--data", str(lists)] if verb == "predict" else [str(clip)]
    out = ["--model", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main([verb, *about, *out, *more]) == 1
    assert "far enough" in capsys.readouterr().err
    assert asked == [scores]


@pytest.mark.parametrize("stage", ["text", "score", "saliency"])
def test_each_stage_is_trained_by_its_own_function(tmp_path, monkeypatch, capsys, stage):
    """With the settings of file and options. Catches stages that are swapped, and settings that do
    not arrive.
    """
    called = []
    for name in ("text", "score", "saliency"):

        def keep(config, run, name=name):
            called.append((name, config, run))
            return run

        monkeypatch.setattr(f"lmme3dhf.stages.{name}.train_{name}", keep)
    config = tmp_path / "config.yaml"
    config.write_text("seed: 5\nlora: {rank: 3}\n", encoding="utf-8")
    run = tmp_path / "run"
    argv = ["train", stage, "--config", str(config), "--out", str(run), "--lora.alpha", "9"]
    assert cli.main(argv) == 0
    ((name, settings, folder),) = called
    assert (name, folder) == (stage, run)
    assert isinstance(settings, Config)
    assert (settings.seed, settings.lora.rank, settings.lora.alpha) == (5, 3, 9)
    assert capsys.readouterr().out.strip() == str(run)


def test_the_demo_starts_from_its_own_settings(capsys):
    """`configs/demo.yaml` without being asked, from any folder. Catches a demo that would train the
    7B model.
    """
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--print_config"])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    demo = load_config(ROOT / "configs" / "demo.yaml")
    assert printed["model"] == demo.model == "lmme3dhf/models/tiny_base"
    assert printed["synthetic"]["latents"] == demo.synthetic.latents
    assert printed["text"]["trainer"] == demo.text.trainer


def test_evaluation_is_printed_and_written_as_json(tmp_path, capsys):
    """Two predictions have no correlation: null in the file. Catches figures that other programs
    cannot read.
    """
    predictions = tmp_path / "p.jsonl"
    records = [
        Prediction(video=f"seed000{i}", dimension="quality", method="m", score=i, level="good")
        for i in range(2)
    ]
    write_predictions(predictions, records)
    lists = a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001")
    out = tmp_path / "figures.json"
    argv = ["evaluate", "--predictions", str(predictions), "--data", str(lists), "--out", str(out)]
    assert cli.main(argv) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["level"] == {"quality": 1.0, "accuracy": 1.0}
    assert '"level"' in capsys.readouterr().out


def test_the_console_command_is_this_one():
    """Catches an entry point that was moved."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'lmme3dhf = "lmme3dhf.cli:main"' in text
    assert issubclass(UserError, Exception)
