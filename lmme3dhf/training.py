"""Training runs: `transformers.Trainer` with checkpoints that can be trusted, a guard against
non-finite losses, progress, and the speed of each step.

A run folder holds `config.yaml` (resolved settings), `run.json` (what it started from and what it
trains), `checkpoints/`, and when it is finished `losses.jsonl`, `speed.json` and the trained
weights. A checkpoint counts only with its manifest (sizes and hashes of its files), which is
written last: a kill at any moment leaves the newest checkpoint that is whole, and the run goes on
from there.

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

import psutil
import torch
from accelerate.utils import reduce
from filelock import FileLock, Timeout
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.modeling_layers import GradientCheckpointingLayer

from lmme3dhf import distributed
from lmme3dhf.errors import UserError
from lmme3dhf.files import damage, replace_file, write_json, write_manifest

LOSSES, SPEED = "losses.jsonl", "speed.json"


class StageLoss(Protocol):
    """What a stage minimises: a sum of terms, each a mean over things that may be unequally many in
    each batch (learnt tokens, scored questions).

    Both methods get a batch of the collator without `names` and `tokens`.
    """

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """How many things each term is a mean over, in this batch."""

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """The terms as weighted sums over this batch, shape (terms,), float32."""


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
        """Called by Trainer when a checkpoint has been written, on every rank."""
        distributed.barrier()
        if distributed.is_main():
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StepGuard(TrainerCallback):
    """Stops all ranks together, before the optimiser's step, when a loss or a gradient is not
    finite.

    What a step computed is looked at once, when all of it is there: a look at each loss or each
    gradient would make the GPU wait for the CPU every time.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[list[str], torch.Tensor]] = []

    def saw(self, names: list[str], loss: torch.Tensor) -> None:
        """Notes the loss of a micro-batch and the names of its samples."""
        self.losses.append((names, loss.detach()))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Called by Trainer between clipping and the step."""
        losses, self.losses = self.losses, []
        # DeepSpeed keeps gradients to itself; only losses are seen then.
        gradients = {
            name: parameter.grad
            for name, parameter in kwargs["model"].named_parameters()
            if parameter.grad is not None
        }
        norm = _total_norm(gradients.values()).to(args.device)
        total = reduce(norm + sum(loss for _, loss in losses), "sum")
        if math.isfinite(total):
            return
        step = f"step {state.global_step + 1}"
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
        self.speed, self.guard = Speed(), StepGuard()
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
        # Gradients, and the logged loss, are averaged over ranks; ours have to be summed.
        return loss * self.args.world_size

    def floating_point_ops(self, *args: Any, **kwargs: Any) -> int:
        """Nothing: the log has model TFLOP/s of our own."""
        return 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the speed since the last entry to each entry with a loss."""
        if "loss" in logs:
            logs |= self.speed.close()
        super().log(logs, *args, **kwargs)


def _without_labels(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without what is there for messages and the speed alone."""
    return {key: value for key, value in batch.items() if key not in ("names", "tokens")}


def training_arguments(settings: dict[str, Any], output_dir: Path, seed: int) -> TrainingArguments:
    """Builds Trainer's arguments from the stage's settings.

    Args:
        settings: Any of its fields; types are those of the dataclass.
        output_dir: For the checkpoints.
        seed: Of the weights' start and the order of the samples.

    Raises:
        TrainingError: An unknown field, with the nearest known one; or Liger kernels that are not
            installed, or would replace the model's forward pass.
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
    chosen = {
        "use_cpu": not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        "report_to": "none",
        "save_total_limit": 2,
        "save_strategy": "epoch",
        "logging_steps": 1,
    } | settings
    if chosen.get("use_liger_kernel"):
        chosen["liger_kernel_config"] = _liger_kernels(chosen.get("liger_kernel_config") or {})
    if chosen.get("bf16") and (deepspeed := distributed.deepspeed_settings()):
        # Its bf16 would turn adapters and heads into bfloat16; its autocast leaves them float32.
        autocast = {"enabled": True, "dtype": "bfloat16"}
        chosen |= {
            "bf16": False,
            "deepspeed": deepspeed | {"bf16": {"enabled": False}, "torch_autocast": autocast},
        }
    args = TrainingArguments(**chosen, **ours)
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
) -> nn.Module:
    """Trains, or goes on with, one run; the model is trained in place and returned.

    Afterwards `run/losses.jsonl` holds the loss of every logged step. The same call after a kill
    gives the same weights, bit for bit, and the same losses (on the CPU, in one process).
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

    Raises:
        TrainingError: Another process trains in the same folder, or see `NonFiniteLossError`.
    """
    with _locked(run):
        set_seed(seed)
        args = training_arguments(settings, run / "checkpoints", seed)
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
            data_collator=collator,
            callbacks=[VerifiedCheckpoints(), Progress(name)],
        )
        trainer.remove_callback(PrinterCallback)
        if distributed.world_size() > 1:
            set_seed(seed + distributed.rank())  # other dropout on each rank
        resume = latest_checkpoint(run / "checkpoints") if distributed.is_main() else None
        resume = distributed.all_gather(resume)[0]
        if resume is not None and distributed.is_main():
            print(f"{name}: going on from {resume}", flush=True)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.speed.start()
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        speed = trainer.speed.summary() if trainer.speed.windows else None
        if distributed.is_main():
            write_losses(run / LOSSES, trainer.state.log_history)
            if speed:
                write_json(run / SPEED, speed)
        distributed.barrier()
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
