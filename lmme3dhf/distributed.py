"""Which of several processes this one is, and what they do together.

`accelerate launch` and `torchrun` start one process for each GPU (or, for trying, several on the
CPU) and tell each its rank in the environment. A process alone needs neither torch nor accelerate
here. The process group is opened by the first function that waits for others, through
`accelerate.PartialState`: NCCL between GPUs, gloo on the CPU.
"""

import atexit
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
# How long a rank waits for the others: one may compute features for hours before the rest go on. A
# rank that dies does not wait for this: the launcher then ends all.
PATIENCE = timedelta(hours=12)


def rank() -> int:
    """This process's number, 0 to `world_size() - 1`; 0 when it is alone."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """Number of processes that run the same command together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is rank 0, which alone writes what is written once."""
    return rank() == 0


def cores() -> int:
    """CPU cores for this process: those that it may use, shared out among the launcher's processes
    on this machine; at least 1.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    return max(1, (usable or 1) // beside)


def start() -> None:
    """Opens the process group and makes this rank's GPU the current one ("cuda" then means that
    one); nothing when the process is alone. Call it before a model is loaded.
    """
    if world_size() == 1:
        return
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
        PartialState(cpu=on_cpu or not torch.cuda.is_available(), timeout=PATIENCE)
        # A group that is still open when the interpreter ends may end it with an abort.
        atexit.register(torch.distributed.destroy_process_group)


def barrier() -> None:
    """Returns when every rank has come here."""
    all_gather(None)


def all_gather(item: T) -> list[T]:
    """One object from every rank, in the order of the ranks, on every rank.

    Args:
        item: This rank's; any plain Python object, tensors on the CPU.
    """
    if world_size() == 1:
        return [item]
    start()
    import torch

    gathered: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(gathered, item)
    return gathered


def on_main(function: Callable[[], T]) -> T:
    """What rank 0 computes for all: its result on every rank, or its error. Every rank has to ask.

    Args:
        function: Called on rank 0 alone; what it gives or raises travels between processes.
    """
    result, refused = None, None
    if is_main():
        try:
            result = function()
        except (OSError, ValueError, RuntimeError) as error:
            refused = error
    result, refused = all_gather((result, refused))[0]
    if refused is not None:
        raise refused
    return result


def share(items: Sequence[T]) -> Sequence[T]:
    """This rank's part of a list: every `world_size()`-th item, from `rank()` on."""
    return items[rank() :: world_size()]


def interleave(parts: Sequence[Sequence[T]]) -> list[T]:
    """Undoes `share`: what the ranks made of their parts, one result an item, in the order of the
    whole list.

    Args:
        parts: Each rank's results, in the order of the ranks.
    """
    count = sum(len(part) for part in parts)
    return [parts[index % len(parts)][index // len(parts)] for index in range(count)]


def whole(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of parameters as whole tensors on the CPU, on every rank; every rank has to ask.

    DeepSpeed (ZeRO-3) and FSDP leave each rank a part of a parameter, or nothing.

    Args:
        parameters: Name -> parameter of a model that was trained.
    """
    values = {}
    for name, parameter in parameters.items():
        if hasattr(parameter, "ds_id"):  # split by ZeRO-3
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                values[name] = parameter.detach().cpu().clone()
        else:
            split_by_fsdp = hasattr(parameter, "full_tensor")
            value = parameter.full_tensor() if split_by_fsdp else parameter
            values[name] = value.detach().cpu().contiguous()
    return values


def deepspeed_settings() -> dict[str, Any] | None:
    """The content of the DeepSpeed file that `accelerate launch` was given; None without one."""
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true" or not path:
        return None
    return json.loads(Path(path).read_text(encoding="utf-8"))


def named(what: str) -> str:
    """A name for messages: "score", or with several processes "score (rank 1 of 2)"."""
    return f"{what} (rank {rank()} of {world_size()})" if world_size() > 1 else what
