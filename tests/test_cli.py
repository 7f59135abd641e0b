"""The command line: verbs, exit status, one sentence for every mistake, and quick help."""

import csv
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml

from lmme3dhf import cli
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.cli.spelling import options_of, spelled
from lmme3dhf.config import REMOVED_FIELDS, Config, ConfigError, SaliencySettings, load_config
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.errors import UserError
from lmme3dhf.predictions import Prediction, read_predictions, write_predictions
from lmme3dhf.stages.predict import Outcome

ROOT = Path(__file__).resolve().parents[1]
VERBS = {
    "app",
    "data",
    "demo",
    "doctor",
    "evaluate",
    "merge",
    "predict",
    "report",
    "baseline",
    "score",
    "train",
    "verify",
}
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
    seconds. Catches an import at the top of a module that the command line needs, a verb whose
    parser is broken, and one that --help lists without a word on what it does.
    """
    code = """
import contextlib, io, json, sys
from lmme3dhf.cli import VERBS, main
shown = {}
for argv in (["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)):
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
    assert shown.pop("--version") == [0, f"lmme3dhf {version('lmme3dhf')}\n"]
    assert set(shown) == VERBS | {"--help"}
    for name, (status, text) in shown.items():
        assert status == 0, name
        assert "usage:" in text, name
    whole = shown["--help"][1]
    for verb in VERBS:
        assert re.search(rf"^    {verb}( +|\n +)[A-Z]", whole, re.MULTILINE), verb
    words = " ".join(whole.split())
    for status in (
        "0 all good",
        "1 wrong input",
        "2 wrong arguments",
        "3 some files",
        "130 stopped",
    ):
        assert status in words
    assert "jsonargparse" in modules
    assert not set(HEAVY) & set(modules)


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("train", ("stage", "--out", "--config", "--lora.rank", "--text.trainer")),
        ("merge", ("run", "--out")),
        (
            "predict",
            ("--model", "--data", "--video_root", "--allow_outside", "--out", "--evaluate"),
        ),
        ("score", ("paths", "--model", "--out", "--maps")),
        ("doctor", ("--json", "--model", "--offline")),
        ("evaluate", ("--predictions", "--data", "--out")),
        ("data", ("synthesize", "labels", "check", "splits", "download", "stats")),
        ("data synthesize", ("--out", "--synthetic.latents")),
        ("data labels", ("--ratings", "--marks", "--remarks", "--videos", "--out", "--split")),
        ("data check", ("path", "--video_root", "--allow_outside", "--decode")),
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


def refused(capsys, *argv: str) -> str:
    """What a command line says that ends with status 2: one line on standard error."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(argv))
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("scroe", "unknown verb scroe; did you mean score?"),
        ("xyz", "unknown verb xyz; expected one of "),
        ("data labls", "unknown action labls; did you mean labels?"),
        ("data", 'expected "action" to be one of '),
        ("score --modle x", "unknown option --modle; did you mean --model?"),
        ("score --modle=x", "unknown option --modle; did you mean --model?"),
        ("score -model x", "unknown option -model; did you mean --model?"),
        ("train text --out x --frames.m 3", "--frames.m; did you mean"),
        ("score --qqq", "unknown option --qqq; --help lists the options"),
        ("score clip.mp4", "the following arguments are required: --model, --out"),
        ("data stats", "the following arguments are required: data, --out"),
        ("score a --model m --out o --dtype int8", "--dtype: invalid choice: 'int8'"),
        ("train text", "the following arguments are required: --out"),
        ("train pretext --out x", "invalid choice: 'pretext'"),
        ("train text --out x --lora.rnk 3", "--lora.rnk; did you mean --lora.rank?"),
        ("train text --out x --rank 3", "--rank; did you mean --lora.rank?"),
        ("train text --out x --lora.rank many", "--lora.rank: Expected a <class 'int'>"),
        ("train text --out x --config absent.yaml", "absent.yaml"),
        ("predict --model m --data d --out o --maps maybe", "--maps: "),
    ],
)
def test_wrong_arguments_end_with_status_2(capsys, argv, told):
    """In one sentence, before anything is loaded, with the argument and the nearest one named.
    Catches a typing error that is passed over, a verb that runs with defaults, and a screen full of
    usage in which the mistake is lost.
    """
    line = refused(capsys, *argv.split())
    assert told in line
    words = argv.split()
    known = [word for word in words[:2] if word in VERBS or word == "stats"]
    about = " ".join(["lmme3dhf", *known])
    assert line.startswith(f"{about}: ")
    assert line.endswith(f" ({about} --help)")


def test_no_words_show_the_help(capsys):
    """On standard error, with the status of wrong arguments. Catches a script whose variable is
    empty and that goes on as if something had run.
    """
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "usage: lmme3dhf" in told.err
    assert "score" in told.err


def test_every_option_of_every_verb_is_taken_in_both_spellings():
    """With - and with _, with a value behind = and without, and also below a mapping. Catches one
    verb whose options are written otherwise than those of all others.
    """
    _, parsers = cli._parsers()
    looked_at = 0
    for words, parser in parsers.items():
        actions = parser._option_string_actions
        for option in options_of(parser):
            if not option.startswith("--"):
                continue
            for typed in (option.replace("_", "-"), "--" + option[2:].replace("-", "_")):
                (name, value), (whole,) = (
                    spelled(given, parser) for given in ([typed, "x"], [f"{typed}=a-b_c"])
                )
                # An action may have both; either is it.
                assert actions[name] is actions[option], (words, typed)
                assert (value, whole) == ("x", f"{name}=a-b_c")
            looked_at += 1
    assert looked_at > 200
    train = parsers["train"]
    below = ["--text.trainer.learning-rate", "5e-5", "--", "--not-an-option"]
    assert spelled(below, train) == ["--text.trainer.learning_rate", *below[1:]]
    assert spelled(["clip.mp4", "-3"], parsers["score"]) == ["clip.mp4", "-3"]


def test_dashes_reach_the_verb(tmp_path, monkeypatch):
    """Catches a spelling that is corrected and then lost."""
    asked = []
    monkeypatch.setitem(
        cli.VERBS, "merge", (cli.VERBS["merge"][0], lambda args, config: asked.append(args) or 0)
    )
    printed = ["train", "text", "--out", "x", "--frames.max-pixels", "50176", "--print-config"]
    with pytest.raises(SystemExit) as stop:
        cli.main(printed)
    assert not stop.value.code
    assert cli.main(["merge", "run", "--ou", "there"]) == 0  # cut short
    assert asked[0].out == Path("there")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("train text --out x --lora_rank 8", "here it is --lora.rank"),
        ("train text --out x --freeze_vit True", "here it is --lora.vision"),
        ("train text --out x --warmup_ratio .1", "--STAGE.trainer.warmup_steps"),
        ("train text --out x --learning-rate 1", "--STAGE.trainer.learning_rate"),
        ("train text --out x --max_length 2048", "a sequence is never cut"),
        ("train text --out x --evaluation_strategy no", "trainer.eval_strategy"),
        ("train text --out x --group_by_length true", "train_sampling_strategy: group_by_length"),
        ("predict --self_model m", "here it is --model"),
        ("predict --val_dataset m", "here it is --data"),
        ("merge --adapter output/stage1", "the run is given without an option"),
    ],
)
def test_old_names_are_answered_with_ours(capsys, argv, told):
    """Those of ms-swift, the released scripts and transformers 4. Catches an answer that proposes
    an option that only looks alike, such as --text.lists for --lora_rank.
    """
    assert told in refused(capsys, *argv.split())


def test_removed_settings_of_trainer_are_translated(tmp_path, capsys):
    """Of every name in the table: it is gone from the installed library, what replaces it is there,
    and it is refused in a file and on the command line before anything is loaded. Catches a table
    that ages, and a run that stops after hours of features because of a name.
    """
    import dataclasses

    from transformers import TrainingArguments

    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert not set(REMOVED_FIELDS) & known
    for name, instead in REMOVED_FIELDS.items():
        first = re.match(r"\w+", instead)[0]
        assert first in known | {"nothing", "another", "the"}, name
    for name, instead in REMOVED_FIELDS.items():
        with pytest.raises(ConfigError, match=f"saliency.trainer.{name}: ") as refusal:
            SaliencySettings(trainer={name: 1})
        assert instead in str(refusal.value)
    file = tmp_path / "config.yaml"
    file.write_text("score: {trainer: {evaluation_strategy: steps}}\n", encoding="utf-8")
    argv = ["train", "score", "--out", str(tmp_path / "out"), "--config", str(file)]
    assert cli.main(argv) == 1
    assert "score.trainer.evaluation_strategy: " in capsys.readouterr().err
    argv = ["train", "text", "--out", str(tmp_path / "out"), "--text.trainer.warmup-ratio", "0.1"]
    assert cli.main(argv) == 1
    assert "warmup_steps" in capsys.readouterr().err
    assert cli.main([*argv[:4], "--hardware.no_cuda", "true"]) == 1
    assert "use_cpu: true" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("started", ["console command", "python -m"])
def test_a_users_mistake_is_one_sentence_and_status_1(started):
    """Through a fresh interpreter, in both ways that our scripts use: nothing else on standard
    error, no traceback, and no warning of a library (Python shows those of `python -m`).
    """
    code = """
import runpy, sys, types
from lmme3dhf.errors import UserError
def fail(*words, **options):
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
            reply=level_reply(GEN3DHF["quality"], "good", 50.0 + number),
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
    "score, no model": ("score {lists} --model {absent} --out {out}/scores.csv", "{absent}"),
    "score, no model in the folder": (
        "score {lists} --model {folder} --out {out}/scores.csv",
        "{folder}",
    ),
    "score, no trained head": ("score {lists} --model {base} --out {out}/scores.csv", "{base}"),
    "score, no such device": (
        "score {lists} --model {base} --out {out}/scores.csv --device typewriter",
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

    scores, batch_size = True, 8

    def assess(self, paths, **options):
        from lmme3dhf.scorer import Assessment, Failure, Rating

        for path in paths:
            if path.suffix != ".mp4":
                yield Failure(path, "not_a_video", f"{path} is no video")
                continue
            rating = Rating(score=51.25, level="good", level_probabilities={"good": 1.0})
            yield Assessment(
                path=path,
                ratings={"quality": rating, "authenticity": rating},
                distortions=("Eye Distortions", "Hair Distortions"),
                saliency=np.zeros((8, 24), np.float32) if options.get("maps") else None,
                decoder="pyav2",
            )


def scored(tmp_path: Path, monkeypatch, *names: str, maps: bool = False) -> tuple[int, list[dict]]:
    """Exit status and rows of `lmme3dhf score FOLDER` on files of these names; without maps unless
    they are asked for.
    """
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    monkeypatch.setattr(cli.scoring, "scorer_of", lambda *words: FakeScorer())
    out = tmp_path / "scores.csv"
    argv = ["score", str(folder), "--model", str(tmp_path / "m"), "--out", str(out)]
    status = cli.main(argv if maps else [*argv, "--maps", "none"])
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
    assert (rows[0]["quality"], rows[0]["map"]) == ("51.25", "")
    assert rows[0]["distortions"] == "Eye Distortions; Hair Distortions"
    assert rows[1]["reason"] == "not_a_video"
    assert rows[1]["quality"] == ""


def test_scoring_good_files_ends_with_status_0(tmp_path, monkeypatch):
    """Catches a status that is never 0, and maps that are named but not written: by default beside
    the table.
    """
    status, rows = scored(tmp_path, monkeypatch, "a.mp4", "b.mp4", maps=True)
    assert status == 0
    assert len(rows) == 2
    assert all((tmp_path / row["map"]).parent == tmp_path / "scores_maps" for row in rows)
    assert all((tmp_path / row["map"]).is_file() for row in rows)


def test_scoring_nothing_is_refused(tmp_path, monkeypatch, capsys):
    """An empty folder, and a clip that does not exist. Catches an empty table that looks done."""
    monkeypatch.setattr(cli.scoring, "scorer_of", lambda *words: FakeScorer())
    (tmp_path / "empty").mkdir()
    for path, named in ((tmp_path / "empty", "no files"), (tmp_path / "absent.mp4", "absent.mp4")):
        out = tmp_path / "scores.csv"
        assert cli.main(["score", str(path), "--model", "m", "--out", str(out)]) == 1
        assert named in capsys.readouterr().err
        assert not out.exists()


def test_views_that_cannot_be_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    """In each command that takes them. Catches a model that is loaded first, and a traceback."""
    monkeypatch.setattr(cli.scoring, "model_of", None)
    monkeypatch.setattr("lmme3dhf.cli.app.model_of", None)
    monkeypatch.setattr("lmme3dhf.app.page.require_gradio", lambda: None)
    (tmp_path / "a.mp4").write_text("a clip")
    lists = a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001")
    commands = (
        ["score", str(tmp_path), "--out", str(tmp_path / "scores.csv")],
        ["predict", "--data", str(lists), "--out", str(tmp_path / "p.jsonl")],
        ["app"],
    )
    for command in commands:
        assert cli.main([*command, "--model", "m", "--views", "-45", "0", "45"]) == 1
        assert "in 0..1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "arrived"),
    [
        ("", (True, "likelihood", True, False, None)),
        ("--answers reply --views 0.25 0.5 0.75", (True, "reply", True, False, None)),
        ("--views 0.875 0 0.125", (True, "likelihood", True, False, (0.875, 0.0, 0.125))),
        ("--ratings false --answers none", (False, None, True, False, None)),
        ("--answers yes_no --maps false --write_text true", (True, "yes_no", False, True, None)),
    ],
)
def test_what_is_asked_for_reaches_the_prediction(tmp_path, monkeypatch, words, arrived):
    """Catches an option that is read and forgotten, and the word none taken for a way to answer."""
    calls = []
    fake_model(monkeypatch)
    outcome = Outcome(out=tmp_path, records=0, clips=0, failures=())
    monkeypatch.setattr(
        "lmme3dhf.stages.predict.predict", lambda *given, **asked: calls.append(asked) or outcome
    )
    lists = a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001")
    argv = ["predict", "--model", "m", "--data", str(lists), "--out", str(tmp_path / "p.jsonl")]
    assert cli.main([*argv, *words.split()]) == 0
    names = ("ratings", "answers", "maps", "write_text", "views")
    asked = dict(zip(names, arrived, strict=True))
    about = {"model": "0" * 16, "aspects": GEN3DHF, "questions": {}, "scores": asked["ratings"]}
    assert calls == [about | asked]


def fake_model(monkeypatch) -> None:
    """`FakeScorer` in place of a model."""
    monkeypatch.setattr(cli.scoring, "model_of", lambda args: Path("m"))
    monkeypatch.setattr(cli.scoring, "scorer_of", lambda *words: FakeScorer())
    monkeypatch.setattr("lmme3dhf.stages.table.model_key", lambda *words: "0" * 16)


def test_one_bad_clip_costs_its_own_records_alone(tmp_path, monkeypatch, capsys):
    """Status 3 and the clip by name; every evaluation refuses the set until it is replaced. Catches
    correlations of a test set that was shortened.
    """
    fake_model(monkeypatch)
    lists = a_list(tmp_path / "lists" / "eval.json", "seed0000", "seed0001", "seed0002")
    rows = json.loads(lists.read_text())
    (tmp_path / "lists" / "seed0001.avi").write_text("no video")
    rows[1]["videos"] = ["seed0001.avi"]
    lists.write_text(json.dumps(rows))
    out = tmp_path / "p.jsonl"
    argv = ["predict", "--model", "m", "--data", str(lists), "--out", str(out), "--maps", "false"]
    assert cli.main(argv) == 3
    error = capsys.readouterr().err
    assert "1 of 3 clips" in error
    assert "seed0001 (not_a_video)" in error
    assert [(r.video, r.reason) for r in read_predictions(out)] == [
        ("seed0000", None),
        ("seed0001", "not_a_video"),
        ("seed0002", None),
    ]
    for words in (
        ["evaluate", "--predictions", str(out), "--data", str(lists)],
        [*argv, "--evaluate", "true"],
    ):
        assert cli.main(words) == 1
        error = capsys.readouterr().err
        assert "1 of 3 labelled videos" in error
        assert "seed0001" in error


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
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    out = ["--model", str(tmp_path), "--out", str(tmp_path / "out.csv")]
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
