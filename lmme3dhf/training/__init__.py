"""Training runs: `transformers.Trainer` with checkpoints that can be trusted, a guard against
non-finite losses, progress, and the speed of each step.

A run folder holds `config.yaml` (resolved settings), `run.json` (what it started from and what it
trains), `checkpoints/`, and when it is finished `losses.jsonl`, `validation.jsonl` (with validation
data), `speed.json` and the trained weights. A checkpoint counts only with its manifest (sizes and
hashes of its files), which is written last; older checkpoints are deleted after that: a kill at any
moment leaves the newest checkpoint that is whole, and the run goes on from there.

Validation changes nothing of a training: it draws no random number of training's generators, and
its values decide only which epoch's weights are kept where `load_best_model_at_end` is set.

Several ranks (`lmme3dhf.distributed`) train one model on one run folder, which all of them see; the
first alone writes what is written once.

Precision: with `bf16: true` the forward pass runs under autocast. The backbone's weights are
bfloat16, adapters and heads float32. Autocast computes the adapters in bfloat16, so their inputs
are not copied to float32 at each of 196 layers, while their weights, gradients and optimiser states
stay float32, where a step of 1e-4 of a weight is not rounded away; the heads leave autocast and
compute in float32.
"""

import difflib
import importlib
import json
import math
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, reduce
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.modeling_layers import GradientCheckpointingLayer

from lmme3dhf import distributed
from lmme3dhf.errors import UserError
from lmme3dhf.files import damage, replace_file, without_nan, write_json, write_manifest

LOSSES, VALIDATION, SPEED = "losses.jsonl", "validation.jsonl", "speed.json"
# Fields of TrainingArguments with which a run could not go on after a kill -> why.
_REFUSED = {
    "save_only_model": "a run cannot go on from checkpoints without the optimiser's state",
    "ignore_data_skip": "a run that goes on would see other samples",
    "push_to_hub": "checkpoints are no loadable models; merge the run and upload the merged folder",
}


class StageLoss(Protocol):
    """What a stage minimises: a sum of terms, each a mean over things that may be unequally many in
    each batch (learnt tokens, scored questions).

    All methods get a batch of the collator without `names` and `tokens`.

    Attributes:
        measured: Names of the values that `measures` gives.
    """

    measured: tuple[str, ...] = ()

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """How many things each term is a mean over, in this batch."""

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """The terms as weighted sums over this batch, shape (terms,), float32."""

    def judge(
        self, model: nn.Module, batch: dict[str, Any], names: list[str]
    ) -> tuple[torch.Tensor, list[list[float]]]:
        """Validation: `sums`, and a row of numbers for each sample from which `measures` follow.

        Args:
            model: In evaluation mode, without gradients.
            batch: A batch of validation data.
            names: Its names.
        """
        return self.sums(model, batch), []

    def measures(self, rows: list[list[float]]) -> dict[str, float]:
        """Values of the whole validation data, beside the loss, from the rows of all batches."""
        return {}


class TrainingError(UserError, RuntimeError):
    """A run that cannot start or must not go on; the message says why and how to go on."""


class NonFiniteLossError(TrainingError):
    """The loss or a gradient stopped being a number; raised before the optimiser's step, so the
    weights are still good.
    """


def latest_checkpoint(checkpoints: Path, *, with_best: bool = False) -> Path | None:
    """The newest checkpoint that is whole.

    Damaged ones are named on standard error and put aside as `broken-checkpoint-N`, so that they do
    not push out good ones.

    Args:
        checkpoints: Their folder.
        with_best: Whether the checkpoint with the best validation so far has to be whole as well.
    """
    for folder in _numbered(checkpoints):
        wrong = damage(folder) or (_best_damage(folder) if with_best else None)
        if wrong is None:
            return folder
        print(f"{folder}: not used, {wrong}", file=sys.stderr)
        # Only the main rank of the run that holds the folder's lock comes here.
        aside = folder.with_name(f"broken-{folder.name}")
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
    return None


def _numbered(checkpoints: Path) -> list[Path]:
    """The checkpoints, newest first."""
    numbers = [re.fullmatch(r"checkpoint-(\d+)", path.name) for path in checkpoints.glob("*")]
    steps = sorted((int(match[1]) for match in numbers if match), reverse=True)
    return [checkpoints / f"checkpoint-{step}" for step in steps]


def _best_damage(folder: Path) -> str | None:
    """What is wrong with the best checkpoint that a whole checkpoint refers to."""
    best = json.loads((folder / "trainer_state.json").read_bytes()).get("best_global_step")
    wrong = damage(folder.with_name(f"checkpoint-{best}")) if best else None
    return wrong and f"the best one before it is checkpoint-{best}, and {wrong}"


def _rotate(checkpoints: Path, limit: int | None, best: int | None) -> None:
    """Deletes the oldest checkpoints beyond `limit`; the newest and the best (a step) stay."""
    newest, *older = _numbered(checkpoints)
    kept = {newest, checkpoints / f"checkpoint-{best}"} & {newest, *older}
    spare = [folder for folder in older if folder not in kept]
    for folder in spare[max(0, limit - len(kept)) :] if limit and limit > 0 else ():
        shutil.rmtree(folder, ignore_errors=True)


class VerifiedCheckpoints(TrainerCallback):
    """Writes the manifest of each checkpoint after everything else of it, and then deletes old ones
    (Trainer's own rotation comes before the manifest).

    A step that is saved is logged as well: Trainer forgets what it has summed up for the next log
    when it is killed, and the loss curve would differ.

    Args:
        limit: Most checkpoints to keep; None for all.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit

    def on_train_begin(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer."""
        if state.best_global_step:
            # The folder may have been moved since.
            best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer after each step, once it has decided what to do."""
        # Whether the best is saved is known after the log.
        may_save = args.save_strategy == "best" and control.should_evaluate
        control.should_log = control.should_log or control.should_save or may_save

    def on_epoch_end(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer after each epoch."""
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer when a checkpoint has been written, on every rank."""
        distributed.barrier()
        if distributed.is_main():
            checkpoints = Path(args.output_dir)
            write_manifest(checkpoints / f"checkpoint-{state.global_step}")
            _rotate(checkpoints, self.limit, state.best_global_step)


class EpochValidation(TrainerCallback):
    """Moves the validation of an epoch to its last step, before a checkpoint of this step: a run
    that goes on from there would miss it.
    """

    def __init__(self) -> None:
        self.validated = -1

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer after each step."""
        ends = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if args.eval_strategy == "epoch" and ends:
            control.should_evaluate = True

    def on_evaluate(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by `StageTrainer.evaluate`."""
        self.validated = state.global_step

    def on_epoch_end(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer after each epoch."""
        if self.validated == state.global_step:
            control.should_evaluate = False


class StepGuard(TrainerCallback):
    """Stops all ranks together, before the optimiser's step, when a loss or a gradient is not
    finite.

    What a step computed is looked at once, when all of it is there: a look at each loss or each
    gradient would make the GPU wait for the CPU every time. Two cases differ:

    A float16 loss scaler skips a step whose gradients overflow and lowers its scale; that is left
    to it, and counted, until the scale is 1.

    DeepSpeed makes its step within the backward pass. Losses are checked before that
    (`check_losses`), and the norm of the gradients, which DeepSpeed keeps to itself, after it.

    Args:
        accelerator: Trainer's.

    Attributes:
        skipped: Steps that the scaler skipped since the last log entry.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.skipped = accelerator, 0
        self.losses: list[tuple[list[str], torch.Tensor]] = []

    def saw(self, names: list[str], loss: torch.Tensor) -> None:
        """Notes the loss of a micro-batch and the names of its samples."""
        self.losses.append((names, loss.detach()))

    def check_losses(self, step: int) -> None:
        """Raises where a loss since the last check is not finite on any rank; every rank has to
        ask.
        """
        losses, self.losses = self.losses, []
        if not math.isfinite(reduce(sum(loss for _, loss in losses), "sum")):
            told = distributed.all_gather(_not_finite_loss(f"step {step}", losses))
            raise NonFiniteLossError(next(loss for loss in told if loss))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer between clipping and the step; under DeepSpeed after the step."""
        step = f"step {state.global_step + 1}"
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            # In float16 DeepSpeed skips what overflows.
            norm = self.accelerator.deepspeed_engine_wrapped.engine.get_global_grad_norm()
            if norm is not None and not args.fp16 and not math.isfinite(norm):
                raise NonFiniteLossError(
                    f"{step}: the gradients' norm is {norm}, and DeepSpeed has made this step; "
                    "the weights after it are not saved. Lower the learning rate, or check the "
                    "samples of this step; the run goes on from the last checkpoint"
                )
            return
        losses, self.losses = self.losses, []
        gradients = {
            name: parameter.grad
            for name, parameter in kwargs["model"].named_parameters()
            if parameter.grad is not None
        }
        norm = _total_norm(gradients.values()).to(args.device)
        loss = sum(loss for _, loss in losses)
        all_norms, all_losses = reduce(torch.stack([norm, loss.to(norm)]), "sum").tolist()
        if math.isfinite(all_norms) and math.isfinite(all_losses):
            return
        scaler = self.accelerator.scaler
        if math.isfinite(all_losses) and scaler is not None and scaler.get_scale() > 1:
            self.skipped += 1
            return
        about_loss = _not_finite_loss(step, losses)
        told = distributed.all_gather((about_loss, _not_finite_gradient(step, gradients, norm)))
        # A bad loss explains the gradients of all ranks; the first rank with one tells it.
        raise NonFiniteLossError(next((loss for loss, _ in told if loss), told[0][1]))


def _total_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm over all gradients, float32, also where FSDP has split them over ranks."""
    norm = nn.utils.get_total_norm(list(gradients))
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()


def _not_finite_loss(step: str, losses: list[tuple[list[str], torch.Tensor]]) -> str | None:
    for names, loss in losses:
        if not torch.isfinite(loss):
            return (
                f"{step}: the loss is {loss.item()} on {', '.join(names)}; the run stopped before "
                "the step, and the last good checkpoint stays. Check these samples, lower the "
                "learning rate, or take another dtype"
            )
    return None


def _not_finite_gradient(step: str, gradients: dict[str, torch.Tensor], norm: torch.Tensor) -> str:
    bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    what = f"the gradient of {bad[0]} is not finite" if bad else f"the gradients' norm is {norm}"
    return (
        f"{step}: {what}; the weights are those before this step. Lower the learning rate, or "
        "check the samples of this step"
    )


class Speed:
    """What a run gets through in which time, from one log entry to the next.

    Data wait is the share of the time that this rank's loop spent waiting for batches; memory is
    the most that torch had allocated on this rank's GPU, on the CPU the resident set of the process
    when it was looked at.
    """

    def __init__(self) -> None:
        self.windows: list[dict[str, float]] = []
        self.start()

    def start(self) -> None:
        """Begins a window."""
        self.begun, self.waited = time.perf_counter(), 0.0
        self.done: torch.Tensor | None = None

    def add(self, done: torch.Tensor) -> None:
        """Adds model TFLOP, samples and tokens, shape (3,), of all ranks."""
        self.done = done if self.done is None else self.done + done

    def close(self) -> dict[str, float]:
        """Ends a window and gives its rates; without tokens or a FLOP model, without theirs."""
        seconds = time.perf_counter() - self.begun
        tflop, samples, tokens = [0.0] * 3 if self.done is None else self.done.tolist()
        window = {
            "seconds": seconds,
            "waited": self.waited,
            "samples": samples,
            "tokens": tokens,
            "tflop": tflop,
            "memory_gb": _memory_gb(),
        }
        self.windows.append(window)
        self.start()
        return self._rates(window)

    def summary(self) -> dict[str, Any]:
        """Totals and rates over all windows, and the median window's rates, which a compilation at
        the start and checkpoints do not move. Every rank has to ask.
        """
        total = {key: sum(window[key] for window in self.windows) for key in self.windows[0]}
        most = max(window["memory_gb"] for window in self.windows)
        total["memory_gb"] = max(distributed.all_gather(most))
        rates = [self._rates(window) for window in self.windows]
        return {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "processes": distributed.world_size(),
            "seconds": total["seconds"],
            "samples": int(total["samples"]),
            "tokens": int(total["tokens"]),
            **self._rates(total),
            "median": {
                key: statistics.median(rate.get(key, 0.0) for rate in rates)
                for key in rates[0]
                if key.endswith("_per_s")
            },
        }

    @staticmethod
    def _rates(window: dict[str, float]) -> dict[str, float]:
        seconds = window["seconds"]
        return {
            "samples_per_s": window["samples"] / seconds,
            **({"tokens_per_s": window["tokens"] / seconds} if window["tokens"] else {}),
            **({"model_tflop_per_s": window["tflop"] / seconds} if window["tflop"] else {}),
            "peak_memory_gb": window["memory_gb"],
            "data_wait": window["waited"] / seconds,
        }


def _memory_gb() -> float:
    used = (
        torch.cuda.max_memory_allocated()
        if torch.cuda.is_available()
        else psutil.Process().memory_info().rss
    )
    return used / 1e9


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

    def on_evaluate(
        self, args: TrainingArguments, state: Any, control: Any, metrics: dict, **kwargs: Any
    ) -> None:
        """Called by `StageTrainer.evaluate`."""
        if state.is_world_process_zero:
            values = ((k.removeprefix("eval_"), v) for k, v in metrics.items() if k != "epoch")
            words = [f"{key} {value:.4f}" for key, value in values]
            print(
                f"{self.name}: validation at step {state.global_step}: {', '.join(words)}",
                flush=True,
            )

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
                f"{self.name}: step {done} of {steps}, loss {float(logs['loss']):.4f}, "
                f"{speed_words(logs)}, {left:.0f} s left",
                flush=True,
            )


def speed_words(rates: dict[str, float]) -> str:
    """The rates of a log entry in words."""
    words = [
        f"{rates[key]:,.{0 if rates[key] >= 100 else 1 if rates[key] >= 0.1 else 3}f} {unit}"
        for key, unit in (
            ("samples_per_s", "samples/s"),
            ("tokens_per_s", "tokens/s"),
            ("model_tflop_per_s", "TFLOP/s"),
            ("peak_memory_gb", "GB"),
        )
        if key in rates
    ]
    return ", ".join([*words, f"{rates['data_wait']:.0%} waiting for data"])


class StageTrainer(Trainer):
    """Trainer with a stage's loss, which is the same however a batch is cut, and may not become
    infinite unnoticed.

    The loss of a step is, summed over the terms, (sum over all micro-batches and ranks) / (count
    over all of them). The counts of a step are known before its first forward pass, so each
    micro-batch's share is exact, and the shares just add up.

    Args:
        loss: The stage's loss.
        flops: Model FLOPs of a batch, forward and backward (`models.flops`); None without a model
            of them.
        **kwargs: Arguments of `Trainer`.
    """

    def __init__(
        self,
        *,
        loss: StageLoss,
        flops: Callable[[dict[str, Any]], float | torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage_loss, self.flops = loss, flops
        self.speed, self.guard = Speed(), StepGuard(self.accelerator)
        self.add_callback(self.guard)
        # Trainer must not divide by the accumulation steps.
        self.loss_is_scaled_for_ga = True

    # Trainer's own methods take and pass on whatever they are called with: names and order of
    # arguments change between versions of the library.
    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict], torch.Tensor]:
        """The micro-batches of a step, and the counts of its loss over all of them and all ranks,
        shape (terms,).
        """
        device = self.args.device
        begun = time.perf_counter()
        batches, _ = super().get_batch_samples(*args, **kwargs)
        self.speed.waited += time.perf_counter() - begun
        flops = sum(map(self.flops, batches)) if self.flops else 0.0
        samples = sum(len(batch["names"]) for batch in batches)
        tokens = sum(batch.get("tokens", 0) for batch in batches)
        counts = [sum(term) for term in zip(*map(self._counts, batches), strict=True)]
        known = torch.tensor([samples, tokens, *counts], dtype=torch.float32, device=device)
        # The FLOPs may be on the device already; nobody waits for them here.
        tflop = torch.as_tensor(flops, dtype=torch.float32, device=device)[None] / 1e12
        sums = reduce(torch.cat([tflop, known]), "sum")
        self.speed.add(sums[:3])
        return batches, sums[3:]

    def _counts(self, batch: dict[str, Any]) -> list[int]:
        return self.stage_loss.counts(_without_labels(batch))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        *,
        num_items_in_batch: torch.Tensor,
        **kwargs: Any,
    ) -> torch.Tensor:
        """This micro-batch's share of the step's loss (see `get_batch_samples`)."""
        sums = self.stage_loss.sums(model, _without_labels(inputs))
        # A term of which this step has nothing is 0 / 1.
        loss = (sums.float() / num_items_in_batch.clamp(min=1)).sum()
        self.guard.saw(inputs["names"], loss)
        if self.is_deepspeed_enabled and self.accelerator.sync_gradients:
            self.guard.check_losses(self.state.global_step + 1)
        # Gradients, and the logged loss, are averaged over ranks; ours have to be summed.
        return loss * self.args.world_size

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and measures on the validation data as `eval_*`, logged; training does not notice:
        none of its random numbers is drawn, and no state of it changes.
        """
        begun = time.perf_counter()
        # The wrapped model, for the precision of training.
        model, was_training = self.model_wrapped, self.model_wrapped.training
        model.eval()
        parts: list[tuple[list[float], list[int]]] = []
        rows: list[list[float]] = []
        with torch.no_grad():
            for batch, counted in self._validation_batches():
                inputs = _without_labels(self._prepare_inputs(batch))
                with self.compute_loss_context_manager():
                    sums, own = self.stage_loss.judge(model, inputs, batch["names"])
                if counted:
                    parts.append((sums.tolist(), self.stage_loss.counts(inputs)))
                    rows += own
        model.train(was_training)
        gathered = distributed.all_gather((parts, rows))
        parts = [part for of_rank, _ in gathered for part in of_rank]
        rows = [row for _, of_rank in gathered for row in of_rank]
        sums, counts = (np.sum(side, axis=0) for side in zip(*parts, strict=True))
        values = {"loss": float((sums / counts.clip(min=1)).sum())} | self.stage_loss.measures(rows)
        metrics = {f"eval_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self.speed.begun += time.perf_counter() - begun
        return metrics

    def _validation_batches(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """This rank's batches, and whether each counts: ranks that split a model compute together,
        so every rank has as many.
        """
        count, size = len(self.eval_dataset), self.args.per_device_eval_batch_size
        mine = distributed.share(range(count))
        starts = range(0, -(-count // distributed.world_size()), size)
        chunks = [list(mine[start : start + size]) for start in starts]
        loader = DataLoader(
            self.eval_dataset,
            batch_sampler=[chunk or [0] for chunk in chunks],
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            # Else each pass draws a seed from the generator of training's dropout.
            generator=torch.Generator(),
        )
        yield from zip(loader, map(bool, chunks), strict=True)

    def _load_best_model(self, *args: Any, **kwargs: Any) -> None:
        best = Path(self.state.best_model_checkpoint)
        if wrong := damage(best):
            raise TrainingError(
                f"{best}: the best checkpoint cannot be loaded, {wrong}; run the same command "
                "again: it trains again what is missing"
            )
        super()._load_best_model(*args, **kwargs)

    def floating_point_ops(self, *args: Any, **kwargs: Any) -> int:
        """Nothing: the log has model TFLOP/s of our own."""
        return 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the speed since the last entry, and steps that were skipped, to each entry with a
        loss.
        """
        if "loss" in logs:
            logs |= self.speed.close()
            if self.guard.skipped:
                logs["skipped_steps"], self.guard.skipped = self.guard.skipped, 0
        super().log(logs, *args, **kwargs)


def _without_labels(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without what is there for messages and the speed alone."""
    return {key: value for key, value in batch.items() if key not in ("names", "tokens")}


def is_validated(settings: dict[str, Any]) -> bool:
    """Whether a stage's settings leave validation on."""
    return settings.get("eval_strategy", "epoch") not in ("no", False)  # YAML reads no as False


def refuse_selection(settings: dict[str, Any]) -> None:
    """Raises where the settings select a checkpoint by validation, for a run that has none.

    Raises:
        TrainingError: Says so.
    """
    if settings.get("load_best_model_at_end") or settings.get("save_strategy") == "best":
        raise TrainingError(
            "trainer.load_best_model_at_end and trainer.save_strategy: best need validation; give "
            "the data set lists of its val part, and leave out trainer.eval_strategy: no"
        )


def training_arguments(
    settings: dict[str, Any], output_dir: Path, seed: int, *, has_validation: bool = True
) -> TrainingArguments:
    """Builds Trainer's arguments from the stage's settings.

    Args:
        settings: Any of its fields; types are those of the dataclass.
        output_dir: For the checkpoints.
        seed: Of the weights' start and the order of the samples.
        has_validation: Whether there are validation data; without them no evaluation.

    Raises:
        TrainingError: An unknown field, with the nearest known one; a field with which a run could
            not go on; values that do not go together; a selection without validation; or Liger
            kernels that are not installed, or would replace the model's forward pass.
    """
    known = {field.name for field in fields(TrainingArguments)}
    ours = {
        "output_dir": str(output_dir),
        "seed": seed,
        # All ranks draw the same order, though each has its own dropout.
        "data_seed": seed,
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
        if name in _REFUSED and settings[name]:
            raise TrainingError(f"trainer.{name}: {_REFUSED[name]}; leave it out")
    chosen = {
        "use_cpu": not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        "report_to": "none",
        "save_total_limit": 2,
        "save_strategy": "epoch",
        "logging_steps": 1,
        "eval_strategy": "epoch",
        # What fits in training fits.
        "per_device_eval_batch_size": settings.get("per_device_train_batch_size", 8),
    } | settings
    if not (has_validation and is_validated(settings)):
        refuse_selection(settings)
        chosen |= {"eval_strategy": "no", "eval_on_start": False}
    elif (
        chosen.get("load_best_model_at_end")
        and "eval_strategy" not in settings
        and chosen["save_strategy"] == "steps"
    ):
        # The best can only be chosen among those that are saved.
        chosen |= {"eval_strategy": "steps", "eval_steps": chosen.get("save_steps", 500)}
    if chosen.get("use_liger_kernel"):
        chosen["liger_kernel_config"] = _liger_kernels(chosen.get("liger_kernel_config") or {})
    if chosen.get("bf16") and (deepspeed := distributed.deepspeed_settings()):
        # Its bf16 would turn adapters and heads into bfloat16; its autocast leaves them float32.
        autocast = {"enabled": True, "dtype": "bfloat16"}
        chosen |= {
            "bf16": False,
            "deepspeed": deepspeed | {"bf16": {"enabled": False}, "torch_autocast": autocast},
        }
    try:
        args = TrainingArguments(**chosen, **ours)
    except ValueError as error:
        raise TrainingError(f"trainer: {error}") from error
    # One process trains on one GPU; several are the launcher's, not DataParallel's.
    args._n_gpu = min(1, args.n_gpu)
    return args


def _liger_kernels(chosen: dict[str, bool]) -> dict[str, bool]:
    """Which kernels Liger puts in place: norms, and the language model's rotary positions and gated
    MLP. Its losses take logits at all positions, ours at the learnt ones.

    Liger 0.8.5 cannot be imported for this model on transformers 5.24, whose output class and
    rotary function have other names.
    """
    try:
        # What Liger imports when it is applied, in the middle of Trainer's start.
        importlib.import_module("liger_kernel.transformers.model.qwen2_5_vl")
    except ImportError as error:
        raise TrainingError(
            "trainer.use_liger_kernel: Liger's kernels for Qwen2.5-VL cannot be imported "
            f"({error}); leave the setting out, or, on a machine with a GPU, install a "
            f"liger-kernel that fits transformers {version('transformers')} (0.8.5 does not fit "
            "5.24)"
        ) from error
    losses = {"fused_linear_cross_entropy": False, "cross_entropy": False}
    for name in losses:
        if chosen.get(name):
            raise TrainingError(
                f"trainer.liger_kernel_config.{name} would replace this model's forward pass, "
                "which has no logits but those of learnt tokens; leave it out"
            )
    return losses | chosen


def compile_layers(model: nn.Module, *, backend: str, mode: str | None) -> None:
    """Compiles the repeated layers that are trained, each on its own and in place; a model without
    such layers as a whole.

    Equal layers share what was compiled, and what stands between them (positions, which are
    computed in Python) breaks no graph: three graphs at any depth, for the first layer, the others
    and the last, where the whole model is unrolled into many that are all compiled anew for
    another shape. Names of weights stay. Under gradient checkpointing torch runs the layers
    uncompiled.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer)
        and any(parameter.requires_grad for parameter in module.parameters())
    ]
    for module in layers or [model]:
        module.compile(backend=backend, mode=mode)


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the first rank's lock is that of all."""
    run.mkdir(parents=True, exist_ok=True)
    lock, refused = FileLock(run / ".lock", timeout=0), None
    if distributed.is_main():
        try:
            lock.acquire()
        except Timeout:
            refused = f"{run}: another process is training here; wait for it, or give another --out"
    refused = distributed.all_gather(refused)[0]
    if refused:
        raise TrainingError(refused)
    try:
        yield
    finally:
        lock.release()


def train(
    *,
    name: str,
    model: nn.Module,
    loss: StageLoss,
    dataset: Any,
    collator: Callable[[list], dict],
    settings: dict[str, Any],
    run: Path,
    seed: int,
    flops: Callable[[dict[str, Any]], float | torch.Tensor] | None = None,
    validation: Any = None,
) -> nn.Module:
    """Trains, or goes on with, one run; the model is trained in place and returned.

    Afterwards `run/losses.jsonl` holds the loss of every logged step. The same call after a kill
    gives the same weights, bit for bit, and the same losses (on the CPU, in one process).
    `run/validation.jsonl` holds loss and measures on the validation data, by default after each
    epoch; with `load_best_model_at_end` the row with `selected` is the one whose weights are kept.
    `run/speed.json` holds how fast the steps since the last start were.

    Under a launcher every rank calls this; a step then takes `per_device_train_batch_size` items on
    each. Where an epoch's last step is not full, the ranks take its first items again (accelerate's
    rule); otherwise losses and gradients are those of one process with the same items a step.

    Args:
        name: For progress lines.
        model: Its parameters that require a gradient are trained.
        loss: The stage's loss.
        dataset: Indexable, draws nothing at random.
        collator: Makes batches of its items; they hold `names`, and `tokens` (how many) where
            there are any.
        settings: Fields of `TrainingArguments`.
        run: The run folder.
        seed: See `training_arguments`.
        flops: See `StageTrainer`.
        validation: Data to validate on, indexable like `dataset`; None for no validation.

    Raises:
        TrainingError: Another process trains in the same folder; a metric to select by that the
            stage does not measure, or that was never defined; or see `NonFiniteLossError`.
    """
    with _locked(run):
        set_seed(seed)
        has_validation = validation is not None
        args = training_arguments(
            settings, run / "checkpoints", seed, has_validation=has_validation
        )
        metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
        if has_validation and metric not in ("loss", *loss.measured):
            raise TrainingError(
                f"trainer.metric_for_best_model: {name} measures no {metric!r}, but "
                f"{', '.join(('loss', *loss.measured))}"
            )
        # Trainer deletes old checkpoints before the new one has its manifest.
        limit, args.save_total_limit = args.save_total_limit, None
        if args.torch_compile:
            compile_layers(model, backend=args.torch_compile_backend, mode=args.torch_compile_mode)
            # Trainer would compile the whole.
            args.torch_compile, args.torch_compile_backend = False, None
        trainer = StageTrainer(
            loss=loss,
            flops=flops,
            model=model,
            args=args,
            train_dataset=dataset,
            eval_dataset=validation,
            data_collator=collator,
            callbacks=[EpochValidation(), VerifiedCheckpoints(limit), Progress(name)],
        )
        trainer.remove_callback(PrinterCallback)
        if distributed.world_size() > 1:
            set_seed(seed + distributed.rank())  # other dropout on each rank
        resume = None
        if distributed.is_main():
            best = args.load_best_model_at_end
            resume = latest_checkpoint(run / "checkpoints", with_best=best)
        resume = distributed.all_gather(resume)[0]
        if resume is not None:
            args.eval_on_start = False  # it was done
            if distributed.is_main():
                print(f"{name}: going on from {resume}", flush=True)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.speed.start()
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        speed = trainer.speed.summary() if trainer.speed.windows else None
        selected = _selected(trainer.state, metric) if args.load_best_model_at_end else None
        if distributed.is_main():
            history = trainer.state.log_history
            if skipped := sum(entry.get("skipped_steps", 0) for entry in history):
                print(
                    f"{name}: {skipped} of {trainer.state.global_step} steps were skipped by the "
                    "float16 loss scaler",
                    flush=True,
                )
            if selected is not None:
                print(
                    f"{name}: the weights of step {selected} are kept, whose validation "
                    f"{metric} is the best: {trainer.state.best_metric:.4f}",
                    flush=True,
                )
            write_losses(run / LOSSES, history)
            if has_validation:
                write_validation(run / VALIDATION, history, selected)
            if speed:
                write_json(run / SPEED, speed)
        distributed.barrier()
        # The library may wrap the model in place (PEFT models stay themselves).
        return model


def _selected(state: Any, metric: str) -> int:
    """The step whose weights were loaded at the end."""
    if state.best_model_checkpoint is None:
        raise TrainingError(
            f"trainer.load_best_model_at_end: no validation gave a finite {metric}, so nothing can "
            "be selected by it; give another trainer.metric_for_best_model, or leave both out, "
            "with another --out"
        )
    return state.best_global_step


def write_losses(path: Path, history: list[dict[str, Any]]) -> None:
    """Writes the logged steps (step, epoch, loss, learning rate, gradient norm, and how many were
    skipped by a float16 loss scaler) as JSON lines; a norm that is not finite is null.
    """
    keep = ("step", "epoch", "loss", "learning_rate", "grad_norm", "skipped_steps")
    rows = [
        {key: entry[key] for key in keep if key in entry} for entry in history if "loss" in entry
    ]
    for row in rows:
        if not math.isfinite(row["loss"]):
            raise NonFiniteLossError(f"step {row['step']}: the logged loss is {row['loss']}")
        if not math.isfinite(row.get("grad_norm", 0)):
            row["grad_norm"] = None
    replace_file(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_validation(path: Path, history: list[dict[str, Any]], selected: int | None) -> None:
    """Writes the validations (step, epoch, loss and what else the stage measures; null where
    undefined) as JSON lines; the selected step's row says so.
    """
    rows = []
    for entry in history:
        if "eval_loss" in entry:
            # A run that goes on has read its first entries with other keys first.
            names = sorted(key for key in entry if key.startswith("eval_"))
            values = {name.removeprefix("eval_"): entry[name] for name in names}
            row = {"step": entry["step"], "epoch": entry["epoch"], "loss": 0.0} | values
            rows.append(row | ({"selected": True} if entry["step"] == selected else {}))
    replace_file(path, "".join(json.dumps(without_nan(row)) + "\n" for row in rows))
