"""Work on many items in as large parts as fit in memory."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

# What torch's allocators say where they have no error of their own: on the CPU of Linux and of
# Windows, and of libraries on the GPU.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")

T = TypeVar("T")


def in_parts(
    items: Sequence[Any], run: Callable[[Sequence[Any]], list[T]]
) -> tuple[list[T | None], int | None]:
    """Runs over items in as large parts as fit in memory.

    A part that does not fit is halved, down to one item; after an item that does not fit alone the
    rest is tried as a whole again, for that item may have been the large one.

    Args:
        items: At least one.
        run: Gives one result an item; what it gives must not depend on the part.

    Returns:
        The results, None for an item that does not fit alone; and the largest part that fitted
        where the whole did not, else None.
    """
    results: list[T | None] = []
    size, fitted, failed = len(items), 0, False
    while len(results) < len(items):
        part = items[len(results) : len(results) + size]
        try:
            results += run(part)
            fitted = max(fitted, len(part))
            continue
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Out of the handler: what it holds on to holds the tensors of the failed run.
        failed = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(part) == 1:
            results.append(None)
            size = len(items)
        else:
            size = len(part) // 2
    return results, fitted if failed and fitted else None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(phrase in str(error) for phrase in _NO_MEMORY)
