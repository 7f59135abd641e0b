"""Training runs on a toy model with dropout: continuing bit by bit, damaged checkpoints, numbers
that are none, and settings.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from accelerate.utils.deepspeed import DeepSpeedEngineWrapper
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer

from lmme3dhf import training
from lmme3dhf.config import load_config
from lmme3dhf.files import MANIFEST, damage, write_manifest
from lmme3dhf.training import (
    NonFiniteLossError,
    Speed,
    StageLoss,
    TrainingError,
    latest_checkpoint,
    train,
    training_arguments,
    write_losses,
)

STEPS = 18  # 12 samples, batches of 2, 3 epochs
EVERY_4 = {"save_strategy": "steps", "save_steps": 4}


class Toy(nn.Module):
    """Two layers with dropout, and one that is frozen."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(torch.tanh(self.first(self.frozen(x))))).squeeze(-1)


class KeywordToy(Toy):
    """The same with the keyword arguments that many models of the library take."""

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        return super().forward(x)


class Numbers(Dataset):
    """Twelve samples, s0 to s11; `poisoned` ones have no finite target."""

    def __init__(self, poisoned: int | None = None) -> None:
        self.x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
        self.y = self.x.sum(1)
        if poisoned is not None:
            self.y[poisoned] = float("nan")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict:
        return {"name": f"s{index}", "x": self.x[index], "y": self.y[index]}


def collate(items: list[dict]) -> dict:
    return {
        "names": [item["name"] for item in items],
        "x": torch.stack([item["x"] for item in items]),
        "labels": torch.stack([item["y"] for item in items]),
    }


class L1:
    """The mean absolute difference, as a stage gives it; `change` may spoil its sum."""

    def __init__(self, change: Callable = lambda model, batch, value: value) -> None:
        self.change = change

    def counts(self, batch: dict) -> list[int]:
        assert set(batch) == {"x", "labels"}
        return [len(batch["labels"])]

    def sums(self, model: nn.Module, batch: dict) -> torch.Tensor:
        assert set(batch) == {"x", "labels"}
        value = (model(batch["x"]) - batch["labels"]).abs().sum()
        return self.change(model, batch, value)[None]


class KilledError(Exception):
    """Stands for a kill between two steps."""


def killed_at(step: int) -> L1:
    """The loss, until the process dies in this step."""
    seen = 0

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == step:
            raise KilledError
        return value

    return L1(change)


def go(
    run: Path,
    *,
    loss: StageLoss | None = None,
    dataset: Dataset | None = None,
    kind: type = Toy,
    dropout: float = 0.3,
    seed: int = 0,
    collator: Callable = collate,
    flops: Callable | None = None,
    validation: Dataset | None = None,
    **settings,
) -> nn.Module:
    """Starts, or goes on with, a run; the model starts from one state."""
    torch.manual_seed(1)
    return train(
        name="toy",
        model=kind(dropout),
        loss=loss or L1(),
        dataset=dataset or Numbers(),
        collator=collator,
        settings={
            "num_train_epochs": 3,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            **settings,
        },
        run=run,
        seed=seed,
        flops=flops,
        validation=validation,
    )


def kill(run: Path, step: int, **settings) -> None:
    with pytest.raises(KilledError):
        go(run, loss=killed_at(step), **settings)


def checkpoints(run: Path) -> list[int]:
    return sorted(int(p.name.split("-")[1]) for p in (run / "checkpoints").glob("checkpoint-*"))


def losses(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def flip(path: Path, byte: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[nn.Module, Path]:
    """A run that nothing happened to: the trained model and the folder."""
    run = tmp_path_factory.mktemp("whole")
    return go(run, **EVERY_4), run


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("killed")
    kill(run, 10, **EVERY_4)
    assert checkpoints(run) == [4, 8]
    return run


@pytest.fixture
def run(killed_run, tmp_path) -> Path:
    """A run that was killed after its checkpoints 4 and 8."""
    return Path(shutil.copytree(killed_run, tmp_path / "run"))


def assert_ends_like(whole: tuple[nn.Module, Path], model: nn.Module, run: Path) -> None:
    """The same weights, bit for bit, and the same loss curve."""
    state = whole[0].state_dict()
    assert state
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert (run / "losses.jsonl").read_bytes() == (whole[1] / "losses.jsonl").read_bytes()


# Going on


@pytest.mark.parametrize("step", [2, 7, 8, 18])
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, whole, step):
    """Killed before the first checkpoint, between two, in the step after which one is due, and in
    the last one. Catches samples that are seen twice or never, dropout from another random state,
    an optimiser that forgot its moments, and a loss curve with a gap.
    """
    kill(tmp_path, step, **EVERY_4)
    assert not (tmp_path / "losses.jsonl").exists()
    assert_ends_like(whole, go(tmp_path, **EVERY_4), tmp_path)
    assert losses(tmp_path)[-1]["step"] == STEPS


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, 10),  # the default: a checkpoint an epoch
        (EVERY_4 | {"logging_steps": 2}, 11),
        (EVERY_4 | {"gradient_accumulation_steps": 2, "num_train_epochs": 6}, 22),
        # Logs between checkpoints: the sum since the last log dies with the process.
        (EVERY_4 | {"logging_steps": 3}, 10),
        ({"save_strategy": "epoch", "logging_steps": 4}, 10),
        ({"save_strategy": "steps", "save_steps": 0.34, "logging_steps": 4}, 10),
        (EVERY_4 | {"logging_strategy": "epoch"}, 10),
        (EVERY_4 | {"dataloader_num_workers": 1, "lr_scheduler_type": "cosine"}, 10),
    ],
)
def test_so_it_does_with_other_settings(tmp_path, settings, step):
    """Catches a state that is kept under the settings of the test above only: steps of several
    batches, losses logged now and then, batches that another process makes.
    """
    whole, run = tmp_path / "whole", tmp_path / "killed"
    model = go(whole, **settings)
    kill(run, step, **settings)
    assert_ends_like((model, whole), go(run, **settings), run)
    assert losses(run)[-1]["step"] == STEPS


def test_dropout_and_order_come_from_the_seed(tmp_path, whole):
    """The tests above must be able to fail: another seed gives another run."""
    assert_ends_like(whole, go(tmp_path / "same", **EVERY_4), tmp_path / "same")
    go(tmp_path / "other", seed=1, **EVERY_4)
    assert losses(tmp_path / "other") != losses(whole[1])


def test_a_finished_run_is_not_trained_further(tmp_path, whole):
    """Catches a second call that adds steps or shortens the loss curve."""
    run = Path(shutil.copytree(whole[1], tmp_path / "run"))
    (run / "losses.jsonl").unlink()
    assert_ends_like(whole, go(run, loss=killed_at(1), **EVERY_4), run)
    curve = losses(run)
    assert [row["step"] for row in curve] == list(range(1, STEPS + 1))
    assert set(curve[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm"}


# Checkpoints


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("")


def flipped_key(folder: Path) -> None:
    # The name of a field: "bytes" becomes "cytes".
    content = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(content.replace('"bytes"', '"cytes"', 1))


def flipped_high_bit(folder: Path) -> None:
    content = bytearray((folder / MANIFEST).read_bytes())
    content[0] ^= 0x80
    (folder / MANIFEST).write_bytes(bytes(content))


def flipped_weight(folder: Path) -> None:
    flip(folder / "model.safetensors")


def flipped_random_state(folder: Path) -> None:
    flip(folder / "rng_state.pth", 200)


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def emptied_state(folder: Path) -> None:
    (folder / "trainer_state.json").write_bytes(b"")


def no_optimizer(folder: Path) -> None:
    (folder / "optimizer.pt").unlink()


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (no_manifest, "no manifest"),
        (empty_manifest, "manifest cannot be read"),
        (flipped_key, "manifest cannot be read"),
        (flipped_high_bit, "manifest cannot be read"),
        (flipped_weight, "model.safetensors is not what was written"),
        (flipped_random_state, "rng_state.pth is not what was written"),
        (cut_weights, "model.safetensors has"),
        (emptied_state, "trainer_state.json has 0 bytes"),
        (no_optimizer, "optimizer.pt is missing"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_and_the_older_one_used(whole, run, capsys, harm, named):
    """The library resumes from the highest number, and from several of these damages without a
    word. Catches a run that goes on from half a checkpoint, or ends where an older one would do.
    """
    newest = run / "checkpoints" / "checkpoint-8"
    harm(newest)
    assert latest_checkpoint(run / "checkpoints") == run / "checkpoints" / "checkpoint-4"
    told = capsys.readouterr().err
    assert f"{newest}: not used" in told
    assert named in told
    assert_ends_like(whole, go(run, **EVERY_4), run)


def test_manifest_names_every_file(run):
    """Catches a file that the manifest does not cover: its damage would go unseen."""
    for step in checkpoints(run):
        folder = run / "checkpoints" / f"checkpoint-{step}"
        listed = json.loads((folder / MANIFEST).read_text())["files"]
        there = {path.name for path in folder.iterdir()} - {MANIFEST}
        assert set(listed) == there
        assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt"} <= there
        assert damage(folder) is None


def test_checkpoints_are_ordered_by_their_number(tmp_path):
    """Catches an order by name, in which 9 is newer than 10."""
    for step in (2, 9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text("w")
        write_manifest(folder)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert latest_checkpoint(tmp_path / "absent") is None


def test_a_copy_of_a_checkpoint_does_not_stop_the_run(run):
    """Catches a crash on "checkpoint-8.bak", which careful users leave."""
    (run / "checkpoints" / "checkpoint-8.bak").mkdir()
    assert latest_checkpoint(run / "checkpoints") == run / "checkpoints" / "checkpoint-8"


def test_without_a_good_checkpoint_the_run_starts_again(whole, run, capsys):
    """Catches a run that cannot be started any more."""
    for step in (4, 8):
        no_manifest(run / "checkpoints" / f"checkpoint-{step}")
    assert_ends_like(whole, go(run, **EVERY_4), run)
    assert capsys.readouterr().err.count("not used") == 2


@pytest.mark.parametrize("limit", [1, 2])
def test_damaged_checkpoints_do_not_push_out_good_ones(tmp_path, limit):
    """Rotation keeps the newest, damaged or not. Catches a checkpoint that is deleted as soon as it
    is written, and an empty folder whose manifest says that it is whole: the run can never go on.
    """
    run, settings = tmp_path / "run", EVERY_4 | {"save_total_limit": limit}
    kill(run, 14, **settings)
    for step in checkpoints(run):
        folder = run / "checkpoints" / f"checkpoint-{step}"
        flipped_weight(folder)
        # File systems with coarse times make the library sort by number; so do these.
        os.utime(folder, (4e9 + step, 4e9 + step))
    kill(run, 6, **settings)
    newest = latest_checkpoint(run / "checkpoints")
    assert newest is not None
    assert (newest / "model.safetensors").exists()
    go(run, **settings)


def test_a_second_run_in_the_folder_is_refused(tmp_path, whole):
    """Two runs would delete each other's checkpoints and both end well. Catches a lock that is not
    taken. (That it does not outlive a failed run, the killed runs above show.)
    """
    refused = []

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        if not refused:
            with (
                torch.random.fork_rng(),  # which the second run seeds
                pytest.raises(TrainingError, match="another process is training here") as error,
            ):
                go(tmp_path, **EVERY_4)
            refused.append(str(error.value))
        return value

    assert_ends_like(whole, go(tmp_path, loss=L1(change), **EVERY_4), tmp_path)
    assert str(tmp_path) in refused[0]


# Numbers that are none


def watching(change: Callable, seen: list[dict]) -> L1:
    """Keeps the weights as they were when a loss was asked for."""

    def watched(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return change(model, batch, value)

    return L1(watched)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_no_number_stops_before_the_step(tmp_path, accumulation):
    """The library would write 0 as the loss and go on with weights that are no numbers. Catches a
    step that is still taken, samples that are not named, and a bad checkpoint.
    """
    run, seen, models = tmp_path / "run", [], []

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        models.append(model)
        # Sample s3 turns bad in the second epoch.
        return value * float("nan") if len(models) > 6 and bad_in(batch) else value

    bad = Numbers().x[3]

    def bad_in(batch: dict) -> bool:
        return bool((batch["x"] == bad).all(1).any())

    settings = {
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": accumulation,
    }
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan on s") as error:
        go(run, loss=watching(change, seen), **settings)
    assert "s3" in str(error.value).split("the run stopped")[0]
    assert 7 <= len(seen) <= 12
    step = (len(seen) - 1) // accumulation
    assert f"step {step + 1}:" in str(error.value)
    after = models[-1].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in seen[-1].items())
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    last = latest_checkpoint(run / "checkpoints")
    assert last.name == f"checkpoint-{step - step % 2}"
    assert damage(last) is None
    assert not (run / "losses.jsonl").exists()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_no_number_stops_before_the_step(tmp_path, clip):
    """A finite loss may have no gradient: the root of 0. Catches a step that destroys the weights,
    and clipping that spreads the damage unseen.
    """
    run, seen, models = tmp_path / "run", [], []

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        models.append(model)
        return value + (0 * value).sqrt() if len(models) == 7 else value

    with pytest.raises(NonFiniteLossError, match=r"step 7: the gradient of \S+ is not finite"):
        go(run, loss=watching(change, seen), max_grad_norm=clip, **EVERY_4)
    assert len(seen) == 7
    after = models[-1].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in seen[-1].items())
    assert latest_checkpoint(run / "checkpoints").name == "checkpoint-4"


def test_an_infinite_loss_with_gradients_stops_too(tmp_path):
    """Adding infinity leaves the gradients as they are. Catches a guard that looks at gradients
    alone.
    """

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        return value + float("inf")

    with pytest.raises(NonFiniteLossError, match=r"step 1: the loss is inf on s\d+, s\d+; the run"):
        go(tmp_path, loss=L1(change))


def test_poisoned_sample_is_named_with_its_neighbour_only(tmp_path):
    """Catches names of other batches, or all names of the data set."""
    with pytest.raises(NonFiniteLossError) as error:
        go(tmp_path, dataset=Numbers(poisoned=5))
    named = str(error.value).split(" on ")[1].split(";")[0].split(", ")
    assert "s5" in named
    assert len(named) == 2


def test_a_logged_loss_that_is_no_number_is_refused(tmp_path):
    """Catches a curve with a hole that no reader of JSON accepts."""
    with pytest.raises(NonFiniteLossError, match="step 2"):
        write_losses(
            tmp_path / "losses.jsonl",
            [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("inf")}],
        )
    assert not (tmp_path / "losses.jsonl").exists()


# What is trained


def test_frozen_weights_stay_and_the_others_move(tmp_path):
    """Catches a trainer that thaws what a stage froze, by weight decay too."""
    torch.manual_seed(1)
    before = Toy(0.3).state_dict()
    after = go(tmp_path, weight_decay=0.1).state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("frozen"), name


@pytest.mark.parametrize(
    "kind",
    [
        Toy,
        KeywordToy,
    ],
)
def test_accumulating_small_batches_is_one_large_batch(tmp_path, kind):
    """By definition of the mean. Catches gradients and losses that grow with the accumulation."""
    plain = {"optim": "sgd", "max_grad_norm": 0.0, "dropout": 0.0, "kind": kind}
    large = go(tmp_path / "large", per_device_train_batch_size=4, **plain)
    small = go(tmp_path / "small", gradient_accumulation_steps=2, **plain)
    curves = [[row["loss"] for row in losses(tmp_path / run)] for run in ("large", "small")]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    for name, tensor in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


class Terms:
    """Two terms of which batches hold unequally much: absolute errors of samples with a positive
    first feature, and twice the squared ones of all.
    """

    def counts(self, batch: dict) -> list[int]:
        return [int((batch["x"][:, 0] > 0).sum()), len(batch["x"])]

    def sums(self, model: nn.Module, batch: dict) -> torch.Tensor:
        error = model(batch["x"]) - batch["labels"]
        return torch.stack(
            [error[batch["x"][:, 0] > 0].abs().sum(), 2 * error.square().sum()],
        )


@pytest.mark.parametrize(("size", "steps"), [(4, 2), (2, 4), (1, 8)])
def test_a_step_is_the_same_however_it_is_cut(tmp_path, size, steps):
    """A step of 8, and at the epoch's end one of 4, cut into micro-batches with unequal counts,
    some with none. Catches a mean of means, a term that is divided by another's count, and a last
    step that is divided by as many micro-batches as the others.
    """
    plain = {"max_grad_norm": 0.0, "dropout": 0.0, "loss": Terms()}
    whole = go(tmp_path / "whole", per_device_train_batch_size=8, **plain)
    cut = go(
        tmp_path / "cut",
        per_device_train_batch_size=size,
        gradient_accumulation_steps=steps,
        **plain,
    )
    curves = [[row["loss"] for row in losses(tmp_path / run)] for run in ("whole", "cut")]
    assert len(curves[0]) == 6
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)


def test_the_loss_is_what_its_definition_says(tmp_path):
    """The first step on all 12 samples, computed here. Catches a common factor, which a comparison
    of two runs does not see.
    """
    go(tmp_path, per_device_train_batch_size=12, dropout=0.0, loss=Terms())
    torch.manual_seed(1)
    model, data = Toy(0.0), Numbers()
    error = model(data.x) - data.y
    expected = error[data.x[:, 0] > 0].abs().mean() + 2 * error.square().mean()
    assert losses(tmp_path)[0]["loss"] == pytest.approx(expected.item(), rel=1e-6)


# Speed


class Clock:
    """Stands for `time.perf_counter`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_amounts_by_time(monkeypatch):
    """Two windows on a clock of ours: 2 s and 6 s. Catches a window that begins where the one
    before began, a wait that is never forgotten, and a median of totals.
    """
    clock = Clock()
    monkeypatch.setattr(training.time, "perf_counter", clock)
    monkeypatch.setattr(training, "_memory_gb", lambda: clock.now)
    speed = Speed()
    speed.add(torch.tensor([4.0, 3.0, 100.0]))
    speed.add(torch.tensor([4.0, 1.0, 100.0]))
    speed.waited = 0.5
    clock.now = 2.0
    assert speed.close() == {
        "samples_per_s": 2.0,
        "tokens_per_s": 100.0,
        "model_tflop_per_s": 4.0,
        "peak_memory_gb": 2.0,
        "data_wait": 0.25,
    }
    speed.add(torch.tensor([0.0, 3.0, 0.0]))
    clock.now = 8.0
    assert speed.close() == {"samples_per_s": 0.5, "peak_memory_gb": 8.0, "data_wait": 0.0}
    summary = speed.summary()
    assert summary["samples"] == 7
    assert summary["seconds"] == 8.0
    assert summary["tokens_per_s"] == 25.0
    assert summary["peak_memory_gb"] == 8.0
    assert summary["data_wait"] == 0.0625
    assert summary["median"]["samples_per_s"] == 1.25


def with_tokens(items: list[dict]) -> dict:
    """Batches with 5 tokens a sample."""
    return collate(items) | {"tokens": 5 * len(items)}


def test_the_log_tells_the_speed_and_the_loss_curve_does_not(tmp_path):
    """36 samples in 18 steps, 5 tokens each, 10^12 operations a batch. Catches amounts that miss a
    micro-batch, and a loss curve that differs between equal runs.
    """
    go(
        tmp_path,
        collator=with_tokens,
        flops=lambda batch: 1e12,
        gradient_accumulation_steps=2,
        logging_steps=3,
        save_strategy="steps",
        save_steps=9,
    )
    state = json.loads(
        (tmp_path / "checkpoints" / "checkpoint-9" / "trainer_state.json").read_text()
    )
    told = {"samples_per_s", "tokens_per_s", "model_tflop_per_s", "peak_memory_gb", "data_wait"}
    for entry in state["log_history"]:
        assert told < set(entry)
        assert entry["tokens_per_s"] == pytest.approx(5 * entry["samples_per_s"])
        assert 0 < entry["data_wait"] < 1
        # This process holds torch.
        assert 0.1 < entry["peak_memory_gb"] < 50
    speed = json.loads((tmp_path / "speed.json").read_text())
    assert (speed["samples"], speed["tokens"], speed["processes"]) == (36, 180, 1)
    assert speed["model_tflop_per_s"] * speed["seconds"] == pytest.approx(18)
    assert len(losses(tmp_path)) == 3
    assert not told & {key for row in losses(tmp_path) for key in row}


def test_progress_tells_the_last_step(tmp_path, capsys):
    """Catches a run that ends without a word, and one that tells every step to a log file."""
    go(tmp_path)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("toy: step")]
    assert told[-1].startswith(f"toy: step {STEPS} of {STEPS}, loss ")
    assert re.search(r" samples/s, [\d.]+ GB, \d+% waiting for data, 0 s left$", told[-1])
    assert len(told) <= 3


# Settings


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("learning_rat", "learning_rate"), ("warmup_step", "warmup_steps"), ("zzzz", None)],
)
def test_an_unknown_setting_names_the_nearest(tmp_path, name, nearest):
    """Catches a misspelt or removed field that changes nothing, or ends in a bare TypeError."""
    with pytest.raises(TrainingError, match=rf"trainer\.{name} is not a field") as error:
        training_arguments({name: 1}, tmp_path, 0)
    assert ("did you mean" in str(error.value)) == (nearest is not None)
    assert str(error.value).endswith(nearest or "TrainingArguments")


def test_settings_reach_the_trainer(tmp_path):
    """Catches a default of ours that wins over a setting, and a guard that is switched off."""
    args = training_arguments(
        {"save_total_limit": 5, "logging_steps": 7, "learning_rate": 3e-4}, tmp_path, 11
    )
    assert (args.save_total_limit, args.logging_steps, args.learning_rate) == (5, 7, 3e-4)
    assert (args.seed, args.output_dir) == (11, str(tmp_path))
    assert args.logging_nan_inf_filter is False
    assert args.remove_unused_columns is False
    defaults = training_arguments({}, tmp_path, 0)
    assert (defaults.save_total_limit, defaults.logging_steps) == (2, 1)
    assert defaults.report_to == []


CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_there_is_a_preset_for_each_size_of_card():
    """The test below asks each file that is there."""
    found = {path.stem for path in (CONFIGS / "presets").glob("*.yaml")}
    assert found == {"h200", "a6000", "24gb"}


@pytest.mark.parametrize("preset", ["h200", "a6000", "24gb"])
def test_a_preset_goes_over_the_papers_settings(tmp_path, monkeypatch, preset):
    """Catches a preset that loses what the paper sets, or names a field that Trainer does not have;
    and memory that is given as if it had been measured.
    """
    path = CONFIGS / "presets" / f"{preset}.yaml"
    paper = load_config(CONFIGS / "paper.yaml")
    config = load_config(CONFIGS / "paper.yaml", "--config", str(path))
    assert (config.text, config.score) == (paper.text, paper.score)
    assert config.hardware
    assert config.quantization == ("4bit" if preset == "24gb" else "none")
    for settings in (config.text.trainer, config.score.trainer):
        args = training_arguments(settings | config.hardware, tmp_path, 0)
        assert (args.learning_rate, args.num_train_epochs, args.bf16) == (1e-4, 50, True)
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        assert step == 2
    assert "not measured" in " ".join(path.read_text().replace("#", "").split())


@pytest.mark.parametrize("name", ["seed", "output_dir", "disable_tqdm", "label_names"])
def test_a_setting_that_is_ours_is_refused_in_our_words(tmp_path, name):
    """Catches a traceback for a setting that exists, but has another place (or none)."""
    with pytest.raises(TrainingError, match=rf"trainer\.{name}"):
        training_arguments({name: 1}, tmp_path, 0)


LIGER = "liger_kernel.transformers.model.qwen2_5_vl"


def test_liger_kernels_that_cannot_be_imported_are_refused(tmp_path, monkeypatch):
    """Liger 0.8.5 imports an output class that transformers 5.24 no longer has, and only when
    Trainer starts. Catches its traceback there.
    """
    monkeypatch.setitem(sys.modules, LIGER, None)
    with pytest.raises(TrainingError, match=r"use_liger_kernel: .* cannot be imported .*leave"):
        training_arguments({"use_liger_kernel": True}, tmp_path, 0)


def test_liger_kernels_leave_the_models_forward_pass_alone(tmp_path, monkeypatch):
    """Liger's default replaces it by one with the library's loss. Catches the default."""
    monkeypatch.setitem(sys.modules, LIGER, ModuleType(LIGER))
    args = training_arguments(
        {"use_liger_kernel": True, "liger_kernel_config": {"swiglu": False}}, tmp_path, 0
    )
    assert args.liger_kernel_config["fused_linear_cross_entropy"] is False
    assert args.liger_kernel_config["swiglu"] is False
    with pytest.raises(TrainingError, match="fused_linear_cross_entropy would replace"):
        training_arguments(
            {"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": True}},
            tmp_path,
            0,
        )


# Validation


class JudgedL1(L1):
    """With the mean error as a measure that says which samples were looked at."""

    measured = ("bias", "samples")

    def judge(
        self, model: nn.Module, batch: dict, names: list[str]
    ) -> tuple[torch.Tensor, list[list[float]]]:
        assert not model.training
        assert not torch.is_grad_enabled()
        error = model(batch["x"]) - batch["labels"]
        return error.abs().sum()[None], [
            [float(name[1:]), float(value)] for name, value in zip(names, error, strict=True)
        ]

    def measures(self, rows: list[list[float]]) -> dict[str, float]:
        return {
            "bias": sum(value for _, value in rows) / len(rows),
            "samples": sum(number for number, _ in rows),
        }


class Unseen(Numbers):
    """Seven other samples."""

    def __init__(self) -> None:
        self.x = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
        self.y = self.x.sum(1) + 1


def validations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


VALIDATED = {"loss": JudgedL1(), "validation": Unseen()}


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_changes_no_weight_and_no_loss(tmp_path, whole, workers):
    """With dropout, whose numbers come from the generator that a DataLoader draws from. Catches a
    draw, a model that stays in evaluation mode, and a loss that is summed up with the others.
    """
    run = tmp_path / "run"
    settings = EVERY_4 | {"eval_strategy": "steps", "eval_steps": 1}
    model = go(run, dataloader_num_workers=workers, **settings, **VALIDATED)
    assert_ends_like(whole, model, run)
    assert [row["step"] for row in validations(run)] == list(range(1, STEPS + 1))
    assert not (whole[1] / "validation.jsonl").exists()


def test_a_validation_is_what_its_definition_says(tmp_path, capsys):
    """Computed here with the weights at the end, on seven samples in batches of two. Catches means
    of means over unequal batches, the training data, dropout, and samples that are counted twice.
    """
    model = go(tmp_path, **VALIDATED)
    rows = validations(tmp_path)
    assert [row["step"] for row in rows] == [6, 12, 18]
    assert [row["epoch"] for row in rows] == [1.0, 2.0, 3.0]
    data = Unseen()
    with torch.no_grad():
        error = model.eval()(data.x) - data.y
    assert rows[-1]["loss"] == pytest.approx(error.abs().mean().item(), rel=1e-6)
    assert rows[-1]["bias"] == pytest.approx(error.mean().item(), rel=1e-6)
    assert {row["samples"] for row in rows} == {sum(range(7))}
    assert set(rows[0]) == {"step", "epoch", "loss", "bias", "samples"}
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation at step" in line]
    assert len(lines) == 3
    assert f"loss {rows[-1]['loss']:.4f}, bias {rows[-1]['bias']:.4f}" in lines[-1]


@pytest.mark.parametrize("settings", [{"eval_strategy": "no"}, {"eval_strategy": False}])
def test_validation_can_be_switched_off(tmp_path, settings):
    """Also as YAML reads the word. Catches a setting that is overruled."""
    go(tmp_path, **VALIDATED, **settings)
    assert validations(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, 10),
        ({"save_strategy": "steps", "save_steps": 6}, 7),
        (EVERY_4 | {"load_best_model_at_end": True}, 14),
        (
            {"save_strategy": "best", "metric_for_best_model": "bias", "greater_is_better": False},
            14,
        ),
        (EVERY_4 | {"eval_on_start": True, "max_steps": 15, "logging_steps": 4}, 10),
    ],
)
def test_a_killed_run_has_the_same_validations(tmp_path, settings, step):
    """Step 6 ends the first epoch: where it is saved, a validation that came after the checkpoint
    would be lost. Catches that, and a best step that is forgotten.
    """
    whole, run = tmp_path / "whole", tmp_path / "run"
    settings = settings | {"validation": Unseen()}
    model = go(whole, loss=JudgedL1(), **settings)
    loss = killed_at(step)
    judged = JudgedL1(loss.change)
    with pytest.raises(KilledError):
        go(run, loss=judged, **settings)
    assert_ends_like((model, whole), go(run, loss=JudgedL1(), **settings), run)
    assert (run / "validation.jsonl").read_bytes() == (whole / "validation.jsonl").read_bytes()
    assert len(validations(whole)) >= 3


# Keeping the best


BEST = EVERY_4 | {"load_best_model_at_end": True, "save_total_limit": 1}


def overfitted(run: Path, step: int | None = None, **settings) -> nn.Module:
    """The training data lead away from the validation data after a few steps."""
    far = Unseen()
    torch.manual_seed(1)
    with torch.no_grad():
        far.y = Toy(0.0).eval()(far.x)
    change = killed_at(step).change if step else L1().change
    return go(run, loss=JudgedL1(change), validation=far, **settings)


def test_the_best_weights_are_kept(tmp_path):
    """The validation data are what the model says at the start, so the first checkpoint is the
    best. Catches the last weights in its place, and a rotation that deletes the best.
    """
    plain = overfitted(tmp_path / "plain", **EVERY_4)
    model = overfitted(tmp_path / "run", **BEST)
    rows = validations(tmp_path / "run")
    assert min(row["loss"] for row in rows) == rows[0]["loss"]
    assert [row.get("selected") for row in rows] == [True, *[None] * (len(rows) - 1)]
    assert checkpoints(tmp_path / "run") == [4, STEPS]
    saved = load_file(tmp_path / "run" / "checkpoints" / "checkpoint-4" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    assert any(
        not torch.equal(a, b)
        for a, b in zip(plain.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")


@pytest.mark.parametrize("harm", [flipped_weight, no_manifest, shutil.rmtree])
def test_a_damaged_best_checkpoint_is_trained_again(tmp_path, capsys, harm):
    """Killed at step 14, when 4 is the best and 12 the newest. Catches a run that ends with other
    weights than it would have had, or cannot be ended any more.
    """
    whole, run = tmp_path / "whole", tmp_path / "run"
    model = overfitted(whole, **BEST)
    with pytest.raises(KilledError):
        overfitted(run, 14, **BEST)
    assert checkpoints(run) == [4, 12]
    harm(run / "checkpoints" / "checkpoint-4")
    assert_ends_like((model, whole), overfitted(run, **BEST), run)
    assert "checkpoint-12: not used" in capsys.readouterr().err


def test_a_moved_run_keeps_its_best(tmp_path):
    """The library stores the path of the best checkpoint and forgets it where that is not there.
    Catches the last weights in its place.
    """
    whole, run = tmp_path / "whole", tmp_path / "run"
    model = overfitted(whole, **BEST)
    with pytest.raises(KilledError):
        overfitted(run, 14, **BEST)
    moved = run.rename(tmp_path / "moved")
    assert_ends_like((model, whole), overfitted(moved, **BEST), moved)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"load_best_model_at_end": True}, "need validation"),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, "need validation"),
        (
            {"load_best_model_at_end": True, "validation": Unseen(), "eval_strategy": "no"},
            "eval_strategy",
        ),
        (
            {"metric_for_best_model": "srcc", "validation": Unseen(), "loss": JudgedL1()},
            "measures no 'srcc'",
        ),
        (
            {
                "load_best_model_at_end": True,
                "validation": Unseen(),
                "eval_strategy": "steps",
                "eval_steps": 5,
            },
            "trainer:",
        ),
        ({"save_only_model": True}, "save_only_model"),
        ({"ignore_data_skip": True}, "ignore_data_skip"),
        ({"push_to_hub": True}, "push_to_hub"),
    ],
)
def test_a_selection_or_a_setting_that_cannot_be_is_refused(tmp_path, settings, named):
    """Before the first step. Catches a KeyError after the first epoch, and runs that cannot go on
    after a kill.
    """
    with pytest.raises(TrainingError, match=named):
        go(tmp_path, **({"loss": killed_at(1)} | settings))


def test_a_selection_by_what_is_never_defined_is_refused(tmp_path):
    """Catches the last weights under the name of the best."""

    class Undefined(JudgedL1):
        def measures(self, rows: list[list[float]]) -> dict[str, float]:
            return {"bias": float("nan"), "samples": 0.0}

    with pytest.raises(TrainingError, match="finite bias"):
        go(
            tmp_path,
            loss=Undefined(),
            validation=Unseen(),
            load_best_model_at_end=True,
            metric_for_best_model="bias",
        )


def test_an_older_checkpoint_stays_until_the_new_one_is_whole(tmp_path, whole, monkeypatch):
    """Killed between a checkpoint and its manifest, with one checkpoint to keep. Catches a rotation
    that leaves nothing to go on from.
    """
    settings = EVERY_4 | {"save_total_limit": 1}
    written = []

    def manifest(folder: Path) -> None:
        written.append(folder)
        if len(written) == 2:
            raise KilledError
        write_manifest(folder)

    monkeypatch.setattr(training, "write_manifest", manifest)
    with pytest.raises(KilledError):
        go(tmp_path, **settings)
    assert checkpoints(tmp_path) == [4, 8]
    assert damage(tmp_path / "checkpoints" / "checkpoint-4") is None
    monkeypatch.undo()
    assert_ends_like(whole, go(tmp_path, **settings), tmp_path)
    assert checkpoints(tmp_path) == [STEPS]


# A float16 scaler, DeepSpeed


@pytest.fixture
def float16(monkeypatch):
    """Trainer with a real loss scaler and accelerate's code around it, on the CPU, for which
    accelerate makes none of its own.
    """
    create = training.StageTrainer.create_accelerator_and_postprocess

    def with_scaler(self: Trainer) -> None:
        create(self)
        monkeypatch.setitem(AcceleratorState._shared_state, "_mixed_precision", "fp16")
        self.accelerator.native_amp = True
        self.accelerator.scaler = torch.amp.GradScaler("cpu")

    monkeypatch.setattr(training.StageTrainer, "create_accelerator_and_postprocess", with_scaler)


class Overflow(torch.autograd.Function):
    """The identity, whose gradient overflows in float16 above its range."""

    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return (gradient * 16).half().float()


def test_steps_that_overflow_in_float16_are_skipped_and_counted(tmp_path, float16, capsys):
    """The scale starts at 65536; half of it (two samples) times 16 is no float16 number until it is
    4096: four steps at least are skipped. Catches a guard that stops at the first, weights that
    such a step moves, and a curve that no reader of JSON accepts.
    """
    seen = []

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return Overflow.apply(value)

    run, killed = tmp_path / "run", tmp_path / "killed"
    model = go(run, loss=L1(change), **EVERY_4)
    rows = losses(run)
    skipped = [row.get("skipped_steps") == 1 for row in rows]
    assert skipped[:4] == [True] * 4
    assert not all(skipped[4:])
    assert [row["grad_norm"] is None for row in rows] == skipped
    for before, after, stays in zip(seen[:-1], seen[1:], skipped[:-1], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before) == stays
    assert f"{sum(skipped)} of {STEPS} steps were skipped" in capsys.readouterr().out
    steps = iter(range(STEPS))

    def dying(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        if next(steps) == 9:
            raise KilledError
        return Overflow.apply(value)

    with pytest.raises(KilledError):
        go(killed, loss=L1(dying), **EVERY_4)
    assert_ends_like((model, run), go(killed, loss=L1(change), **EVERY_4), killed)


def test_gradients_that_no_scale_mends_stop_a_float16_run(tmp_path, float16):
    """Catches a run that skips every step to its end."""
    loss = L1(lambda model, batch, value: value + (0 * value).sqrt())
    with pytest.raises(NonFiniteLossError, match=r"step 17: the gradient of \S+ is not finite"):
        go(tmp_path, loss=loss, **EVERY_4)


def test_a_loss_that_is_no_number_stops_a_float16_run_at_once(tmp_path, float16):
    """Catches a scaler that hides what comes from the samples."""
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan on s") as error:
        go(tmp_path, dataset=Numbers(poisoned=5))
    assert "s5" in str(error.value)


class Engine:
    """Stands for DeepSpeed's, which is not installed here: `accelerate`'s wrapper of it makes the
    optimiser's step within the backward pass of the last micro-batch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, norm: float = 1.0) -> None:
        self.optimizer, self.norm, self.steps = optimizer, norm, 0

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        pass

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.steps += 1

    def get_global_grad_norm(self) -> float:
        return self.norm


def under_deepspeed(monkeypatch, norm: float = 1.0) -> list[Engine]:
    """Trainer's steps with accelerate's own wrapper around a made-up engine."""
    engines: list[Engine] = []
    step = training.StageTrainer.training_step

    def stepping(self: Trainer, *args, **kwargs) -> torch.Tensor:
        if not engines:
            engines.append(Engine(self.optimizer.optimizer, norm))
            accelerator = self.accelerator
            accelerator.deepspeed_engine_wrapped = DeepSpeedEngineWrapper(engines[0])
            self.is_deepspeed_enabled = True
            monkeypatch.setattr(type(accelerator), "distributed_type", DistributedType.DEEPSPEED)
            monkeypatch.setattr(self.optimizer, "step", lambda: None)
            self._prepare_input = lambda inputs: inputs
        return step(self, *args, **kwargs)

    monkeypatch.setattr(training.StageTrainer, "training_step", stepping)
    return engines


@pytest.mark.parametrize("accumulation", [1, 2])
def test_under_deepspeed_a_bad_loss_stops_before_the_step(tmp_path, monkeypatch, accumulation):
    """The engine is made up, its wrapper is accelerate's. Catches a look that comes after the
    backward pass, when the weights are spoilt already.
    """
    engines, models = under_deepspeed(monkeypatch), []

    def change(model: nn.Module, batch: dict, value: torch.Tensor) -> torch.Tensor:
        models.append(model)
        return value * float("nan") if len(models) == 5 else value

    with pytest.raises(NonFiniteLossError, match=r"the loss is nan on s\S+, s\S+; the run stopped"):
        go(tmp_path, loss=L1(change), gradient_accumulation_steps=accumulation)
    assert engines[0].steps == 4 // accumulation
    assert all(torch.isfinite(tensor).all() for tensor in models[0].state_dict().values())


def test_under_deepspeed_a_bad_gradient_is_not_saved(tmp_path, monkeypatch):
    """DeepSpeed shows a norm when its step is made. Catches a message that says otherwise, and a
    checkpoint of what came out.
    """
    engines = under_deepspeed(monkeypatch, float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"step 1: .* has made this step.* not saved"):
        go(tmp_path, save_strategy="steps", save_steps=1)
    assert engines[0].steps == 1
    assert checkpoints(tmp_path) == []
