"""Several processes: ranks and shares, the files for launchers, and two ranks on the CPU (gloo)
that do what one does.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lmme3dhf import distributed
from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.cli import main
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.predictions import read_predictions
from lmme3dhf.scores import read_scores
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import DIMENSIONS, random_frames

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "configs" / "distributed"
# Several commands in one start of the ranks: imports take longer than the work.
COMMANDS = """
import json, sys
from lmme3dhf.cli import main
sys.exit(max([main(words) for words in json.loads(sys.argv[1])]))
"""


def as_rank(monkeypatch, rank: int, world: int) -> None:
    """This process as one of several."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def launched(*words: str, file: str = "cpu.yaml") -> subprocess.CompletedProcess:
    """Runs `accelerate launch` with one of our files."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [*command, "--config_file", str(FILES / file), "--num_processes", "2", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


# Alone, and shares


def test_a_process_alone_imports_nothing_heavy():
    """Catches a verb that costs seconds of imports because it asks whether it is alone."""
    code = (
        "import sys; from lmme3dhf import distributed as d; d.start(); d.barrier();"
        "print(d.rank(), d.world_size(), d.is_main(), d.all_gather('x'), d.share([1, 2]),"
        "d.named('score'), [m for m in ('torch', 'accelerate') if m in sys.modules])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout.split("\n")[0] == "0 1 True ['x'] [1, 2] score []", done.stderr


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_every_item_once_and_come_back_in_order(monkeypatch, world):
    """Catches a file that two ranks score or none does, and rows in another order. Seven items for
    eight ranks: one has nothing to do.
    """
    items = list("abcdefg")
    parts = []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        parts.append([item.upper() for item in distributed.share(items)])
        assert distributed.is_main() == (rank == 0)
    assert distributed.interleave(parts) == list("ABCDEFG")


def test_a_rank_names_itself(monkeypatch, capsys):
    """Catches a failure that could be anybody's, and a verb that all ranks would run at once."""
    as_rank(monkeypatch, 1, 2)
    assert main(["merge", "nowhere"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("lmme3dhf merge (rank 1 of 2): runs in one process")


# The files


def test_accelerate_reads_every_file():
    """By its own class, and every key of a section is an option of its launcher (it takes unknown
    ones in silence). Catches a key of another version, and files that nobody looks at.
    """
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    options = set(vars(launch_command_parser().parse_args(["script.py"])))
    found = {path.stem: load_config_from_file(str(path)) for path in FILES.glob("*.yaml")}
    assert {name: str(file.distributed_type.value) for name, file in found.items()} == {
        "cpu": "MULTI_GPU",
        "ddp": "MULTI_GPU",
        "multi_node": "MULTI_GPU",
        "fsdp2": "FSDP",
        "deepspeed_zero2": "DEEPSPEED",
        "deepspeed_zero3": "DEEPSPEED",
    }
    for file in found.values():
        assert {*file.fsdp_config, *file.deepspeed_config} <= options
    for stage in (2, 3):
        settings = ROOT / found[f"deepspeed_zero{stage}"].deepspeed_config["deepspeed_config_file"]
        assert json.loads(settings.read_text())["zero_optimization"]["stage"] == stage


@pytest.mark.parametrize("tower", [True, False])
def test_fsdp_finds_the_layers_that_it_is_to_split(tiny_folder, monkeypatch, tower):
    """With and without the vision tower: accelerate refuses a class that is not in the model, and
    splits nothing where the names are wrong.
    """
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

    from lmme3dhf.models.modeling import LMME3DHF, ReadingLayer

    settings = yaml.safe_load((FILES / "fsdp2.yaml").read_text())["fsdp_config"]
    names = settings["fsdp_transformer_layer_cls_to_wrap"]
    assert ReadingLayer.__name__ in names
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=settings["fsdp_version"],
        auto_wrap_policy=settings["fsdp_auto_wrap_policy"].lower(),
        transformer_cls_names_to_wrap=names.split(","),
        reshard_after_forward=settings["fsdp_reshard_after_forward"],
    )
    model = LMME3DHF.from_pretrained(tiny_folder, tower=tower)
    policy = fsdp2_prepare_auto_wrap_policy(plugin, model)
    split = [module for module in model.modules() if policy(module)]
    assert split == list(model.model.language_model.layers)


# Two ranks

SMALL = [
    *("--config", str(ROOT / "configs" / "demo.yaml"), "--data.workers", "0", "--threads", "1"),
    *("--frames.frames", "4", "--frames.min_pixels", "3136", "--frames.max_pixels", "12544"),
    *("--text.trainer.max_steps", "3", "--score.trainer.max_steps", "3"),
]


def stage(name: str, out: Path, data: Path, model: Path, per_rank: int) -> list[str]:
    """Words of a training command."""
    batch = [f"--{name}.trainer.per_device_train_batch_size", str(per_rank)]
    where = ["--data.root", str(data), "--data.features", str(out.parent / "features")]
    return ["train", name, *SMALL, *batch, *where, "--model", str(model), "--out", str(out)]


def using(model: Path, data: Path, out: Path) -> list[list[str]]:
    """Words of a scoring and a predicting command."""
    clips = ["--video_root", str(data / "video_RGB"), "--batch_size", "1", "--maps", "false"]
    lists = [str(data / "text" / f"train_{dimension}.json") for dimension in DIMENSIONS]
    score = ["score", str(data / "odd"), str(data / "video_RGB"), "--model", str(model)]
    return [
        [*score, "--batch_size", "1", "--out", str(out / "scores.csv")],
        ["predict", "--model", str(model), "--data", *lists, *clips, "--out", str(out / "p.jsonl")],
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eight clips of noise with labels; six have an answer, so that batches count unequally."""
    root = tmp_path_factory.mktemp("ranks") / "data"
    clips = root / "video_RGB"
    clips.mkdir(parents=True)
    videos = [f"seed{number:04d}" for number in range(8)]
    for number, video in enumerate(videos):
        frames = random_frames(number, 8, 84, 84).permute(0, 2, 3, 1).numpy()
        write_clip(clips / f"{video}.mp4", list(frames), fps=2)
    for dimension in DIMENSIONS:
        rated = []
        for number, video in enumerate(videos):
            level, mos = LEVELS[(number + len(dimension)) % 5], 10.0 * number + 5
            common = {"video": video, "path": clips / f"{video}.mp4", "task": dimension}
            rated.append((common | {"prompt": PROMPTS[dimension]}, level, mos))
        write_list(
            root / "numerical" / f"train_{dimension}.json",
            [Sample(**c, reply=level_reply(GEN3DHF[dimension], w, m)) for c, w, m in rated],
        )
        write_list(
            root / "text" / f"train_{dimension}.json",
            [Sample(**c, reply=level_reply(GEN3DHF[dimension], w)) for c, w, _ in rated],
        )
    answers = [
        (video, DISTORTIONS[n % 3 : n % 3 + 1 + n % 2]) for n, video in enumerate(videos[:6])
    ]
    write_list(
        root / "distortion" / "train.json",
        [
            Sample(
                video=video,
                path=clips / f"{video}.mp4",
                task="distortion",
                prompt=PROMPTS["distortion"],
                reply=distortion_reply(named),
                distortions=named,
            )
            for video, named in answers
        ],
    )
    # Three clips to validate on, fewer than a batch of one process; two ranks get two and one.
    for path in sorted(root.glob("*/train*.json")):
        rows = json.loads(path.read_text())
        path.with_name(path.name.replace("train", "val")).write_text(json.dumps(rows[2:5]))
    (root / "odd").mkdir()
    (root / "odd" / "broken.mp4").write_bytes(b"no clip")
    return root


@pytest.fixture(scope="module")
def one(data) -> Path:
    """Both stages, scores and predictions by one process, four clips a step."""
    out = data.parent / "one"
    base = ROOT / "lmme3dhf" / "models" / "tiny_base"
    assert main(stage("text", out / "text", data, base, 4)) == 0
    assert main(["merge", str(out / "text")]) == 0
    assert main(stage("score", out / "score", data, out / "text" / "merged", 4)) == 0
    assert main(["merge", str(out / "score")]) == 0
    assert [main(words) for words in using(out / "score" / "merged", data, out)] == [3, 0]
    return out


@pytest.fixture(scope="module")
def two(data, one) -> Path:
    """The same commands by two ranks, two clips each a step, from the same models."""
    out = data.parent / "two"
    script = data.parent / "commands.py"
    script.write_text(COMMANDS)
    base = ROOT / "lmme3dhf" / "models" / "tiny_base"
    commands = [
        stage("text", out / "text", data, base, 2),
        stage("score", out / "score", data, one / "text" / "merged", 2),
        *using(one / "score" / "merged", data, out),
    ]
    done = launched(str(script), json.dumps(commands))
    # Status 3 of `score` (a file that is no clip) is a failure to the launcher, once all is done.
    assert "exitcode  : 3" in done.stderr, done.stderr[-3000:]
    return out


def losses(run: Path) -> list[float]:
    lines = (run / "losses.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("name", ["text", "score"])
def test_two_ranks_learn_what_one_learns(one, two, name):
    """At the same global batch: the loss curve. Catches means of means over unequal batches, ranks
    that draw other samples or the same ones, and gradients that are averaged where they are summed.
    """
    assert losses(one / name)[0] != pytest.approx(losses(one / name)[-1], abs=1e-2)
    assert losses(two / name) == pytest.approx(losses(one / name), abs=1e-5)
    assert len(losses(two / name)) == 3


@pytest.mark.parametrize("name", ["text", "score"])
def test_two_ranks_validate_as_one(one, two, name):
    """After the epoch of two steps and at the end. Catches means over unequal shares, a clip that
    counts twice because a rank has fewer, and SRCC of one rank's clips.
    """
    ours, theirs = (
        [json.loads(line) for line in (run / name / "validation.jsonl").read_text().splitlines()]
        for run in (two, one)
    )
    assert [row["step"] for row in ours] == [2, 3]
    for our, their in zip(ours, theirs, strict=True):
        assert our == pytest.approx(their, abs=1e-5, nan_ok=True)
        assert ("srcc" in our) == (name == "score")


def test_two_ranks_leave_a_model_that_predicts_the_same(data, one, two):
    """Catches a run folder that ranks write at the same time, and another order of samples."""
    assert main(["merge", str(two / "score")]) == 0
    words = using(two / "score" / "merged", data, two / "merged")[1]
    assert main(words) == 0
    ours, theirs = (read_predictions(f / "p.jsonl") for f in (two / "merged", one))
    assert len(ours) == 16
    for our, their in zip(ours, theirs, strict=True):
        assert our.score == pytest.approx(their.score, abs=1e-3)
        assert our.level_probabilities == pytest.approx(their.level_probabilities, abs=1e-5)
        assert our.distortions == their.distortions


def test_a_folder_scored_in_shards_gives_the_same_file(one, two):
    """Nine files on two ranks, one of them no clip. Catches rows that are lost, twice there or in
    another order, and parts that are left behind.
    """
    ours, theirs = (
        [replace(row, seconds=0) for row in read_scores(folder / name)]
        for folder, name in ((two, "scores.csv"), (one, "scores.jsonl"))
    )
    assert ours == theirs == [replace(row, seconds=0) for row in read_scores(two / "scores.jsonl")]
    assert [row.status for row in ours] == ["failed"] + ["ok"] * 8
    assert (two / "p.jsonl").read_bytes() == (one / "p.jsonl").read_bytes()
    assert not list(two.glob(".scores.rank*"))


STARTED = """
import json, os, sys
from argparse import Namespace
from pathlib import Path
from lmme3dhf import distributed, files
from lmme3dhf.cli.options import model_of
from lmme3dhf.config import Config, DataSettings
from lmme3dhf.models import tower
from lmme3dhf.models.folder import ModelError
from lmme3dhf.stages import media, run as runs
from lmme3dhf.stages.table import model_key

read, plain = [], tower._weights_hash
file_hash = files.file_hash
files.file_hash = lambda path: read.append(path.name) or file_hash(path)
tower._weights_hash = lambda *words: read.append("tensors") or plain(*words)

def on_this_rank(model):
    config = Config(model=model, dtype="float32", data=DataSettings(root=Path(sys.argv[2])))
    folder = runs.base_folder(config)
    runs.open_run(Path(sys.argv[3]), "text", config, folder, {})
    recipe = media._tower_recipe(config, folder)
    return [recipe["tower"], model_key(model_of(Namespace(model=model, verify=True)))]

results = on_this_rank(sys.argv[1])
try:
    refused = runs.base_folder(Config(model=sys.argv[4]))
except ModelError as error:
    refused = str(error)
out = Path(sys.argv[3]) / f"rank{distributed.rank()}.json"
distributed.barrier()
out.write_text(json.dumps({"read": read, "results": results, "refused": str(refused)}))
"""


def test_one_rank_reads_the_model_for_all(data, one, tmp_path, monkeypatch):
    """A start of a stage and of `score`: verification, the record's hash, the tower's, the key.
    Catches 16 GB that each of eight ranks reads, one rank that starts from a damaged model, and
    ranks that wait for ever when one refuses it.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = one / "text" / "merged"
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    words = [str(path) for path in (model, data, tmp_path / "run", damaged)]
    done = launched(str(script), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    main_rank, other = (
        json.loads((tmp_path / "run" / f"rank{rank}.json").read_text()) for rank in (0, 1)
    )
    assert main_rank["results"] == other["results"]
    assert main_rank["read"].count("tensors") == 1
    assert main_rank["read"].count("model.safetensors") >= 1
    assert other["read"] == []
    for rank in (main_rank, other):
        assert "model.safetensors is not what was written" in rank["refused"]


def test_the_stage_script_goes_through_the_launcher_unchanged(data, two):
    """On a finished run, which the ranks find finished. Catches a script that does not pass on its
    words, or that a launcher cannot start.
    """
    base = ROOT / "lmme3dhf" / "models" / "tiny_base"
    words = stage("text", two / "text", data, base, 2)[2:]
    done = launched("--no_python", "./train_LLM.sh", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stage 1 is done" in done.stdout


SPLIT = """
import sys, torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from lmme3dhf import distributed
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.modeling import LMME3DHF

def outcome(split):
    torch.manual_seed(0)
    model = LMME3DHF.from_pretrained(sys.argv[1], tower=False)
    options = {"rank": 4, "alpha": 8, "dropout": 0.0, "language": True, "vision": False}
    model = add_adapters(model, **options, heads=("score",))
    if split:
        mesh = init_device_mesh("cpu", (distributed.world_size(),))
        for layer in model.get_base_model().model.language_model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ids = torch.arange(1, 13)[None]
    out = model(
        input_ids=ids,
        seen_until=torch.full_like(ids, 12),
        mm_token_type_ids=torch.zeros_like(ids),
        video_grid_thw=torch.zeros(0, 3, dtype=torch.long),
        second_per_grid_ts=torch.zeros(0),
        video_embeds=torch.zeros(0, model.config.text_config.hidden_size),
        reads=torch.tensor([[3, 11]]),
        learnt=torch.tensor([0]),
        targets=torch.tensor([5]),
        scored=torch.tensor([1]),
    )
    (out.token_losses.sum() + out.heads["score"]["score"].sum()).backward()
    gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
    return distributed.whole(trained), distributed.whole(gradients)

distributed.start()
for whole, split in zip(outcome(False), outcome(True), strict=True):
    assert set(whole) == set(split) and len(whole) > 20
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], rtol=1e-5, atol=1e-6)
assert any(gradient.abs().max() > 1e-3 for gradient in split.values())
print("the same")
"""


def test_a_model_that_fsdp_splits_is_the_same_model(tiny_folder, tmp_path):
    """PyTorch FSDP2 with our layers on two ranks: weights and gradients. Catches a forward pass
    that reads weights past the hooks that put them together, and weights that stay in parts.
    """
    script = tmp_path / "split.py"
    script.write_text(SPLIT)
    done = launched(str(script), str(tiny_folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the same") == 2


@pytest.mark.parametrize("zero", [2, 3])
def test_deepspeed_learns_what_one_process_learns(data, one, zero):
    """ZeRO splits states and gradients over the ranks, ZeRO-3 the weights too. Catches adapters
    that are saved in parts.
    """
    pytest.importorskip("deepspeed")
    from safetensors.torch import load_file

    out = data.parent / f"zero{zero}" / "score"
    words = stage("score", out, data, one / "text" / "merged", 2)
    done = launched("-m", "lmme3dhf.cli", *words, file=f"deepspeed_zero{zero}.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(out) == pytest.approx(losses(one / "score"), abs=1e-5)
    theirs = load_file(one / "score" / "adapter" / "adapter_model.safetensors")
    for name, tensor in load_file(out / "adapter" / "adapter_model.safetensors").items():
        assert (tensor - theirs.pop(name)).abs().max() < 1e-5, name
    assert not theirs


# Slurm

FAKE_SRUN = """#!/usr/bin/env bash
echo "$@" > srun.txt
echo $$ > srun.pid
env | grep ^LAUNCH= >> srun.txt
exec sleep 60
"""
FAKE_SCONTROL = """#!/usr/bin/env bash
echo "$@" >> scontrol.txt
[ "$1" = show ] && printf 'node1\\nnode2\\n' || true
"""


@pytest.mark.parametrize("script", ["slurm_stage.sh", "slurm_folds.sh"])
def test_a_job_before_its_time_limit_is_queued_again(tmp_path, script):
    """With stand-ins for Slurm's commands. Catches a signal that is heard only when the work is
    done, and work that goes on beside the job that follows.
    """
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, content in (("srun", FAKE_SRUN), ("scontrol", FAKE_SCONTROL)):
        (commands / name).write_text(content)
        (commands / name).chmod(0o755)
    slurm = {"NNODES": "2", "JOB_ID": "77", "JOB_NODELIST": "n[1-2]", "ARRAY_TASK_ID": "3"}
    environment = {f"SLURM_{key}": value for key, value in slurm.items()}
    environment |= {"SLURM_GPUS_ON_NODE": "4", "PATH": f"{commands}:{os.environ['PATH']}"}
    job = subprocess.Popen(
        [FILES / script, "./train_LLM.sh", "--out", "run"],
        cwd=tmp_path,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "srun.pid").exists():
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.02)
    time.sleep(0.2)
    job.send_signal(signal.SIGUSR1)
    _, told = job.communicate(timeout=20)
    assert job.returncode == 0
    assert "queued again" in told
    assert "requeue 77" in (tmp_path / "scontrol.txt").read_text().splitlines()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "srun.pid").read_text()), 0)
    started = (tmp_path / "srun.txt").read_text()
    assert started.splitlines()[0].endswith("./train_LLM.sh --out run")
    started = " ".join(started.split())
    if script == "slurm_stage.sh":
        assert "--num_machines 2 --num_processes 8 --main_process_ip node1" in started
    else:
        assert "evaluate crossval --only 3" in started
