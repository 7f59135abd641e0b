"""Training runs: `transformers.Trainer` with checkpoints that can be trusted, a guard against
non-finite losses, and progress.

A run folder holds `config.yaml` (resolved settings), `run.json` (what it started from and what it
trains), `checkpoints/`, and when it is finished `losses.jsonl` and the trained weights. A
checkpoint counts only with its manifest (sizes and hashes of its files), which is written last: a
kill at any moment leaves the newest checkpoint that is whole, and the run goes on from there.
"""

import difflib
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from lmme3dhf.errors import UserError
from lmme3dhf.files import damage, replace_file, write_manifest

LOSSES = "losses.jsonl"

LossFunction = Callable[[nn.Module, dict[str, Any]], torch.Tensor]


class TrainingError(UserError, RuntimeError):
    """A run that cannot start or must not go on; the message says why and how to go on."""


class NonFiniteLossError(TrainingError):
    """The loss or a gradient stopped being a number; raised before the optimiser's step, so the
    weights are still good.
    """


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole.

    Damaged ones are named on standard error and put aside as `broken-checkpoint-N`: Trainer keeps
    the newest few by number, and a damaged one would push out a good one.
    """
    numbered = re.compile(r"checkpoint-(\d+)")
    found = [path for path in checkpoints.glob("checkpoint-*") if numbered.fullmatch(path.name)]
    for folder in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        wrong = damage(folder)
        if wrong is None:
            return folder
        print(f"{folder}: not used, {wrong}", file=sys.stderr)
        aside = folder.with_name(f"broken-{folder.name}")
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
    return None


class VerifiedCheckpoints(TrainerCallback):
    """Writes the manifest of each checkpoint after everything else of it.

    A step that is saved is logged as well: Trainer forgets what it has summed up for the next log
    when it is killed, and the loss curve would differ.
    """

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer after each step, once it has decided what to do."""
        control.should_log = control.should_log or control.should_save

    def on_epoch_end(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer after each epoch."""
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer when a checkpoint has been written."""
        if state.is_world_process_zero:
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class GradientGuard(TrainerCallback):
    """Stops before the optimiser's step when a gradient is not finite."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer between clipping and the step."""
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise NonFiniteLossError(
                    f"step {state.global_step + 1}: the gradient of {name} is not finite; the "
                    "weights are those before this step. Lower the learning rate, or check the "
                    "samples of this step"
                )


class Progress(TrainerCallback):
    """Says where a run stands and how long it will take, every few seconds and at the end.

    Args:
        name: What is being trained.
        every_s: Seconds between lines.
    """

    def __init__(self, name: str, every_s: float = 10.0) -> None:
        self.name, self.every_s = name, every_s

    def on_train_begin(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer."""
        self.started = self.told = time.monotonic()
        self.first = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: Any,
        control: Any,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by Trainer when there is a loss to tell."""
        now, done, steps = time.monotonic(), state.global_step, state.max_steps
        if not logs or "loss" not in logs or (now - self.told < self.every_s and done < steps):
            return
        self.told = now
        left = (now - self.started) / max(1, done - self.first) * (steps - done)
        if state.is_world_process_zero:
            print(
                f"{self.name}: step {done} of {steps}, loss {float(logs['loss']):.4f}, {left:.0f} "
                "s left",
                flush=True,
            )


class StageTrainer(Trainer):
    """Trainer with a loss function of the stage, which may not become infinite unnoticed.

    Args:
        loss: Computes the loss from the model and a batch.
        **kwargs: Arguments of `Trainer`.
    """

    def __init__(self, *, loss: LossFunction, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage_loss = loss
        # Our losses are means: Trainer has to divide them by the accumulation steps.
        self.loss_is_scaled_for_ga = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        """The stage's loss; raises `NonFiniteLossError` with the names of the samples when it is
        not finite.
        """
        names = inputs.pop("names")
        loss = self.stage_loss(model, inputs)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()} on "
                f"{', '.join(names)}; the run stopped before the step, and the last good "
                "checkpoint stays. Check these samples, lower the learning rate, or take another "
                "dtype"
            )
        return loss


def training_arguments(settings: dict[str, Any], output_dir: Path, seed: int) -> TrainingArguments:
    """Builds Trainer's arguments from the stage's settings.

    Args:
        settings: Any of its fields; types are those of the dataclass.
        output_dir: For the checkpoints.
        seed: Of the weights' start and the order of the samples.

    Raises:
        TrainingError: An unknown field, with the nearest known one.
    """
    known = {field.name for field in fields(TrainingArguments)}
    ours = {
        "output_dir": str(output_dir),
        "seed": seed,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": [],
        # The guard sees infinite losses; Trainer would write 0 in their place.
        "logging_nan_inf_filter": False,
    }
    for name in settings:
        if name in ours:
            raise TrainingError(f"trainer.{name} is set by the stage; leave it out (seed: --seed)")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise TrainingError(
                f"trainer.{name} is not a field of "
                f"TrainingArguments{f'; did you mean {near[0]}' if near else ''}"
            )
    chosen = {
        "use_cpu": not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        "report_to": "none",
        "save_total_limit": 2,
        "save_strategy": "epoch",
        "logging_steps": 1,
    } | settings
    return TrainingArguments(**chosen, **ours)


def train(
    *,
    name: str,
    model: nn.Module,
    loss: LossFunction,
    dataset: Any,
    collator: Callable[[list], dict],
    settings: dict[str, Any],
    run: Path,
    seed: int,
) -> nn.Module:
    """Trains, or goes on with, one run; the model is trained in place and returned.

    Afterwards `run/losses.jsonl` holds the loss of every logged step. The same call after a kill
    gives the same weights, bit for bit, and the same losses (on the CPU).

    Args:
        name: For progress lines.
        model: Its parameters that require a gradient are trained.
        loss: The stage's loss.
        dataset: Indexable, draws nothing at random.
        collator: Makes batches of its items; they hold `names`.
        settings: Fields of `TrainingArguments`.
        run: The run folder.
        seed: See `training_arguments`.

    Raises:
        TrainingError: Another process trains in the same folder, or see `NonFiniteLossError`.
    """
    run.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(run / ".lock", timeout=0).acquire()
    except Timeout as error:
        raise TrainingError(
            f"{run}: another process is training here; wait for it, or give another --out"
        ) from error
    with lock:
        set_seed(seed)
        args = training_arguments(settings, run / "checkpoints", seed)
        trainer = StageTrainer(
            loss=loss,
            model=model,
            args=args,
            train_dataset=dataset,
            data_collator=collator,
            callbacks=[VerifiedCheckpoints(), GradientGuard(), Progress(name)],
        )
        trainer.remove_callback(PrinterCallback)
        resume = latest_checkpoint(run / "checkpoints")
        if resume is not None:
            print(f"{name}: going on from {resume}", flush=True)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        write_losses(run / LOSSES, trainer.state.log_history)
        # The library may wrap the model in place (PEFT models stay themselves).
        return model


def write_losses(path: Path, history: list[dict[str, Any]]) -> None:
    """Writes the logged steps (step, epoch, loss, learning rate, gradient norm) as JSON lines."""
    keep = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    rows = [
        {key: entry[key] for key in keep if key in entry} for entry in history if "loss" in entry
    ]
    for row in rows:
        if not math.isfinite(row["loss"]):
            raise NonFiniteLossError(f"step {row['step']}: the logged loss is {row['loss']}")
    replace_file(path, "".join(json.dumps(row) + "\n" for row in rows))
