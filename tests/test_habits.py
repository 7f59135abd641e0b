"""Every command of the released README, as it is written there and from the folder in which it is
started there: it runs, or names the one that replaces it.

The shell scripts are run by bash, on a copy of the checkout with small settings and data. The
Python that they start is noted by a stand-in and then run in this process: imports take longer than
the work.
"""

import io
import json
import os
import runpy
import shlex
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.cli import scripts
from lmme3dhf.cli.habits import INFERENCE, MERGING, TRAINING, OldHabitError, translated_words
from lmme3dhf.config import Config, add_config
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.predictions import read_predictions
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import DIMENSIONS, random_frames
from tests.data.fake_hub import serving

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    *("train_LLM.sh", "train_MLP.sh", "train_saliency.sh", "merge_lora.sh", "merge_mlp.py"),
    *("evaluate/inference_text.py", "evaluate/inference_precise.sh", "scripts/python.sh"),
    "download_dataset.py",
)
# Notes how Python was called, and says that the project can be imported.
STAND_IN = """#!{python}
import json, os, sys
if sys.argv[1] != "-c":
    with open({calls!r}, "a") as file:
        file.write(json.dumps({{"argv": sys.argv[1:], "cwd": os.getcwd()}}) + "\\n")
"""
SMALL = {
    "model": "lmme3dhf/models/tiny_base",
    "dtype": "float32",
    "threads": 1,
    "data": {"root": "datasets", "workers": 0},
    "frames": {"frames": 4, "min_pixels": 3136, "max_pixels": 12544},
    "text": {"trainer": {"max_steps": 1, "per_device_train_batch_size": 2}},
    "score": {"trainer": {"max_steps": 1, "per_device_train_batch_size": 2}},
}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Commands set variables for the libraries; the other tests must not see them."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def make_data(root: Path) -> None:
    """Six clips of noise with all lists, laid out as the release has them."""
    videos = [f"seed{number:04d}" for number in range(6)]
    (root / "video_RGB").mkdir(parents=True)
    for number, video in enumerate(videos):
        frames = random_frames(number, 4, 84, 84).permute(0, 2, 3, 1).numpy()
        write_clip(root / "video_RGB" / f"{video}.mp4", list(frames), fps=2)
    for part, named in (("train", videos[:3]), ("eval", videos[3:])):
        for dimension in DIMENSIONS:
            samples = [
                Sample(
                    video=video,
                    path=root / "video_RGB" / f"{video}.mp4",
                    task=dimension,
                    prompt=PROMPTS[dimension],
                    reply=level_reply(GEN3DHF[dimension], LEVELS[n], 20.0 * n + 5),
                )
                for n, video in enumerate(named)
            ]
            for kind in ("numerical", "text"):
                write_list(root / kind / f"{part}_{dimension}.json", samples)
        answers = [
            Sample(
                video=video,
                path=root / "video_RGB" / f"{video}.mp4",
                task="distortion",
                prompt=PROMPTS["distortion"],
                reply=distortion_reply(DISTORTIONS[n : n + 1]),
                distortions=DISTORTIONS[n : n + 1],
            )
            for n, video in enumerate(named)
        ]
        write_list(root / "distortion" / f"{part}.json", answers)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the scripts with small settings where the paper's are, and a small data set."""
    folder = tmp_path_factory.mktemp("habits") / "a checkout"  # with a blank
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "configs").mkdir()
    (folder / "configs" / "paper.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    make_data(folder / "datasets")
    return folder


class Shell:
    """Runs command lines in a folder.

    Args:
        folder: The checkout.
        stand_in: Folder for the Python that notes its calls.
        capsys: Of the test.
    """

    def __init__(self, folder: Path, stand_in: Path, capsys) -> None:
        self.folder, self.capsys = folder, capsys
        self.calls = stand_in / "calls.jsonl"
        stand_in.mkdir()
        python = stand_in / "python"
        python.write_text(STAND_IN.format(python=sys.executable, calls=str(self.calls)))
        python.chmod(0o755)
        self.path = f"{stand_in}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, line: str) -> tuple[int, str]:
        """Exit status of the last command of a line, and what it said on standard error."""
        self.calls.unlink(missing_ok=True)
        environment = os.environ | {"PATH": self.path}
        subprocess.run(["bash", "-ec", line], cwd=self.folder, env=environment, check=True)
        (call,) = map(json.loads, self.calls.read_text().splitlines())
        first, *rest = call["argv"]
        here, argv = os.getcwd(), sys.argv
        os.chdir(call["cwd"])
        try:
            if first == "-m":
                assert rest[0] == "lmme3dhf.cli.scripts"
                return scripts.started(rest[1], rest[2:]), self.capsys.readouterr().err
            sys.argv = [first, *rest]
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(first, run_name="__main__")
            return stop.value.code, self.capsys.readouterr().err
        finally:
            os.chdir(here)
            sys.argv = argv


@pytest.fixture
def shell(checkout, tmp_path, capsys) -> Shell:
    return Shell(checkout, tmp_path / "stand_in", capsys)


def test_training_and_evaluation_as_the_released_readme_has_them(checkout, shell):
    """Its lines one after the other. Where it says "edit line 28", the command is told that needs
    no editing, and that one runs. Catches a script that a user of the release cannot start, and a
    second stage that takes the run for the model.
    """
    lines = [
        "./train_LLM.sh",
        "./merge_lora.sh --adapter output/stage1",
        "./train_MLP.sh --model output/stage1",
        "./merge_lora.sh --adapter output/stage2",
        "CUDA_VISIBLE_DEVICES= python merge_mlp.py",
    ]
    for line in lines:
        status, told = shell(line)
        assert status == 0, (line, told)
    record = json.loads((checkout / "output" / "stage2" / "run.json").read_text())
    assert record["model"].endswith("output/stage1/merged")
    assert (checkout / "output" / "stage2" / "merged" / "model.safetensors").is_file()

    status, told = shell("cd evaluate; CUDA_VISIBLE_DEVICES= python inference_text.py")
    assert status == 2
    line = told.partition("to be given: ")[2].strip()
    assert line.startswith("python inference_text.py --model ../output/stage")
    status, told = shell(f"cd evaluate; CUDA_VISIBLE_DEVICES= {line}")
    assert status == 0, told
    out = checkout / "evaluate" / shlex.split(line)[-1]
    assert all(record.text for record in read_predictions(out))

    status, told = shell(
        "cd evaluate; ./inference_precise.sh --self_model ../output/stage2/merged "
        "--val_dataset ../datasets/numerical/eval_quality.json"
    )
    assert status == 0, told
    out = checkout / "evaluate" / "output" / "inference_precise.jsonl"
    assert [type(record.score) for record in read_predictions(out)] == [float] * 3
    assert out.with_suffix(".metrics.json").is_file()

    # A run that waits to be merged is found, newest first; the head's is that of stage 2.
    shutil.rmtree(checkout / "output" / "stage1" / "merged")
    status, told = shell("./merge_lora.sh")
    assert status == 0, told
    assert (checkout / "output" / "stage1" / "merged" / "config.json").is_file()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("./merge_lora.sh", "train first (./train_LLM.sh), or name a run: ./merge_lora.sh"),
        ("./merge_lora.sh --adapters --merge_lora true", "train first (./train_LLM.sh)"),
        ("python merge_mlp.py", "train first (./train_MLP.sh), or name a run: python merge_mlp.py"),
        ("cd evaluate; python inference_text.py", "python inference_text.py --model "),
        ("cd evaluate; ./inference_precise.sh", "./inference_precise.sh --model "),
        ("cd evaluate; ./inference_precise.sh --self_model m", "--data to be given"),
        ("./train_LLM.sh --target_modules q_proj", "all linear layers are adapted"),
        ("./train_LLM.sh --train_type full --system Hello", "system message"),
        ("cd evaluate && ../train_MLP.sh --lora_rnk 4", "did you mean --lora.rank?"),
    ],
)
def test_without_what_it_needs_a_script_says_how_it_is_called(tmp_path, line, told):
    """By the real Python, from other folders too. Catches a traceback, a usage text of another
    program, and a script that finds the project only from the root.
    """
    for name in (*COPIED, "configs/paper.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert told in sentence


def test_a_python_without_the_project_is_told(tmp_path):
    """Neither the one on the path nor a .venv has it. Catches "No module named lmme3dhf"."""
    for name in COPIED:
        (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "code" / name)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "dirname"):
        (commands / name).symlink_to(shutil.which(name))
    for name in ("python", "python3"):
        (commands / name).write_text("#!/bin/sh\nexit 1\n")
        (commands / name).chmod(0o755)
    done = subprocess.run(
        [str(commands / "bash"), "code/train_LLM.sh"],
        cwd=tmp_path,
        env={"PATH": str(commands)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lmme3dhf is not installed for this Python: conda activate")


def test_scripts_can_be_started():
    """The released ones are not executable, and its README starts them with ./. Catches a lost
    bit."""
    shells = [*ROOT.glob("*.sh"), *(ROOT / "evaluate").glob("*.sh"), ROOT / "scripts" / "python.sh"]
    assert len(shells) >= 6
    for path in shells:
        assert path.stat().st_mode & stat.S_IXUSR, path
        assert path.read_text().startswith("#!/usr/bin/env bash\n"), path


RELEASED_TRAINING = (
    "--model Qwen/Qwen2.5-VL-7B-Instruct --train_type lora --dataset ./datasets/text/a.json "
    "./datasets/text/b.json --val_dataset ./datasets/text/c.json --split_dataset_ratio 0 "
    "--torch_dtype bfloat16 --freeze_vit True --num_train_epochs 1 --per_device_train_batch_size 1 "
    "--per_device_eval_batch_size 1 --learning_rate 1e-4 --lora_rank 8 --lora_alpha 32 "
    "--target_modules all-linear --gradient_accumulation_steps 1 --eval_steps 3200 "
    "--save_steps 3200 --save_total_limit 5 --logging_steps 5 --max_length 2048 "
    "--output_dir output --system 'You are a helpful assistant.' --weight_decay 0.01 "
    "--warmup_ratio 0.05 --dataloader_num_workers 4 --model_author swift --model_name swift-robot"
)


def parsed(words: list[str]) -> Config:
    from jsonargparse import ArgumentParser

    from lmme3dhf.config import config_from

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--out")
    add_config(parser)
    return config_from(parser.instantiate(parser.parse_args(words)))


def test_the_released_scripts_own_options_mean_here_what_they_meant():
    """All 26 of train_LLM.sh at once. Catches an option that is taken and has no effect without a
    word, and a freeze_vit whose sense is turned.
    """
    words, notes = translated_words(
        shlex.split(RELEASED_TRAINING), TRAINING, stage="text", result="stage1"
    )
    assert words[words.index("--out") + 1] == "output/stage1"
    config = parsed(words)
    assert config.model == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert config.dtype == "bfloat16"
    assert (config.lora.rank, config.lora.alpha) == (8, 32)
    assert (config.lora.vision, config.lora.language) == (False, True)
    assert [Path(path).is_absolute() for path in config.text.lists] == [True, True]
    assert [Path(path).name for path in config.text.lists] == ["a.json", "b.json"]
    assert config.text.trainer == {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "learning_rate": 1e-4,
        "gradient_accumulation_steps": 1,
        "save_steps": 3200,
        "save_strategy": "steps",
        "save_total_limit": 5,
        "logging_steps": 5,
        "weight_decay": 0.01,
        "warmup_steps": 0.05,
        "dataloader_num_workers": 4,
    }
    left_out = {word.strip(",") for note in notes for word in note.split() if word[:2] == "--"}
    assert left_out == {
        *("--val_dataset", "--eval_steps", "--per_device_eval_batch_size", "--max_length"),
        *("--model_author", "--model_name"),
    }


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("--freeze_vit False", "--lora.vision true"),
        ("--freeze-vit=true", "--lora.vision false"),
        ("--freeze_llm True", "--lora.language false"),
        ("--quant_bits 4", "--quantization 4bit"),
        ("--attn_impl flash_attn", "--attn_implementation flash_attention_2"),
        ("--lora.rank 4 --seed 7", "--lora.rank 4 --seed 7"),
    ],
)
def test_options_with_another_sense_are_turned(words, ours):
    """Catches a swapped truth value, and words of ours that are touched."""
    assert translated_words(words.split(), TRAINING, stage="score") == (ours.split(), [])


@pytest.mark.parametrize(
    "words",
    [
        *("--train_type full", "--target_modules q_proj", "--freeze_aligner false"),
        *("--split_dataset_ratio 0.1", "--resume_from_checkpoint output/v0"),
    ],
)
def test_what_cannot_be_had_is_refused(words):
    """Catches a run that is other than what was asked for."""
    with pytest.raises(OldHabitError, match=words.split()[0]):
        translated_words(words.split(), TRAINING, stage="text")


def test_every_translation_leads_to_an_option_that_exists():
    """Catches a table that ages: a setting that was renamed since."""
    from lmme3dhf.cli import _parsers
    from lmme3dhf.cli.spelling import options_of, spelled

    _, parsers = _parsers()
    looked_at = 0
    for verb, table in (("train", TRAINING), ("merge", MERGING), ("predict", INFERENCE)):
        for name, old in table.items():
            assert old.ours or old.instead, name
            assert name not in {option[2:] for option in options_of(parsers[verb])}, name
            if old.ours.startswith("--"):
                assert spelled([old.ours.format(stage="saliency")], parsers[verb])
                looked_at += 1
    assert looked_at > 30


def test_the_base_of_the_released_inference_is_left_out():
    """Its --model was the 7B base beside --self_model. Catches the base that is scored with."""
    given = "--model Qwen/X --self_model out --val_dataset a.json, b.json --output_dir o"
    words, notes = translated_words(given.split(), INFERENCE, result="p.jsonl")
    assert words == ["--model", "out", "--data", "a.json", "b.json", "--out", "o/p.jsonl"]
    assert "--model" in notes[0]


def test_a_run_is_known_by_any_of_its_folders(tmp_path, monkeypatch):
    """The adapter, a checkpoint, what was merged. Catches a merge of a folder that is no run."""
    monkeypatch.chdir(tmp_path)
    run = Path("output", "stage2")
    (run / "checkpoints" / "checkpoint-3200").mkdir(parents=True)
    (run / "run.json").write_text('{"stage": "score"}')
    ready = scripts.SCRIPTS["merge_lora.sh"].ready
    for folder in (run, run / "adapter", run / "merged", run / "checkpoints" / "checkpoint-3200"):
        (named,) = ready("merge_lora.sh", [str(folder)])
        assert Path(named).resolve() == run.resolve()
    assert ready("merge_lora.sh", ["--out", "x", "elsewhere"]) == ["--out", "x", "elsewhere"]
    # Not merged yet: training on it says how.
    for model in (run, run / "merged"):
        with pytest.raises(OldHabitError, match=r"not merged yet: \./merge_lora\.sh --adapter"):
            scripts.SCRIPTS["train_MLP.sh"].ready("train_MLP.sh", ["--model", str(model)])


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("python download_dataset.py", "Gen3DHF"),
        (
            "python download_dataset.py --target_dir there "
            "--dataset 'image video_RGB saliency_map'",
            "there",
        ),
    ],
)
def test_the_download_runs(tmp_path, line, target):
    """Against a hub on this machine, with the words of the released README. Catches a default
    folder elsewhere.
    """
    files = {
        "video_RGB.zip": zipped("seed0000.mp4"),
        "image.zip": zipped("seed0000.png"),
        "saliency_map.zip": zipped("seed0000.png"),
    }
    with serving(files) as hub:
        settings = {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "HF_TOKEN_PATH": os.devnull}
        settings |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        line = line.replace("download_dataset.py", shlex.quote(str(ROOT / "download_dataset.py")))
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / target / "video_RGB" / "seed0000.mp4").read_bytes() == b"content"


def test_the_environment_file_is_the_one_of_the_readme():
    """`conda env create -f env.yml` and `conda activate lmme3dhf`. Catches a renamed environment,
    and one that installs something else than this project.
    """
    content = yaml.safe_load((ROOT / "env.yml").read_text(encoding="utf-8"))
    assert content["name"] == "lmme3dhf"
    (pip,) = (entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    assert any(line.startswith("--editable .") for line in pip)
    assert any(str(entry).startswith("python=3.") for entry in content["dependencies"])
