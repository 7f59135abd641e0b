"""How long work tells where it stands."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
EVERY_S = 10.0


def with_progress(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    """Passes items on and prints, every ten seconds and after the last one of work that took so
    long, how many are done and how many seconds are left.

    Args:
        items: Each is counted when the next one is asked for, that is when the work on it is done.
        what: The work and the items, as in "maps: 20 of 2000, 130 s left".
        total: Number of items; None where it is not known, and so neither what is left.
    """
    started = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told > EVERY_S or (done == total and now - started > EVERY_S):
            told = now
            each = (now - started) / done
            left = f"{each:.1f} s each" if total is None else f"{each * (total - done):.0f} s left"
            print(f"{what}: {done}{f' of {total}' if total else ''}, {left}", flush=True)
