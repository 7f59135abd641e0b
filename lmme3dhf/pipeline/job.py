"""Steps that are done once, with what they cost.

What a step took is kept in `steps.json`, so that the figures of a job hold for the whole of it
however often it was interrupted.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from lmme3dhf.errors import UserError
from lmme3dhf.files import DamagedError, read_object, write_json


class _PeakMemory:
    """Largest memory of this process and its children together, sampled twice a second, in MB."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for member in (process, *process.children(recursive=True)):
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:  # it ended between listing and asking
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def read_steps(path: Path) -> dict[str, Any]:
    """The finished steps in `steps.json`; none where there is no such file.

    Raises:
        DamagedError: It is damaged.
    """
    if not path.exists():
        return {}
    mend = "restore it, or delete it: finished stages are kept, and the other steps are done again"
    done = read_object(path, mend)
    for name, step in done.items():
        known = step if isinstance(step, dict) else {}
        costs = (known.get("seconds"), known.get("peak_rss_mb"))
        if "result" not in known or not all(isinstance(cost, int | float) for cost in costs):
            raise DamagedError(f"{path}: damaged, {name!r} has no cost; {mend}")
    return done


class JobError(UserError, RuntimeError):
    """A job whose records or results are no longer as they were written."""


class Job:
    """Steps that are done once, and what they cost.

    Args:
        path: `steps.json`.
        shares: Step -> its part of the whole job's time (any unit), for the estimate of the end
            alone.
    """

    def __init__(self, path: Path, shares: Mapping[str, float]) -> None:
        self.path, self.shares = path, shares
        self.done: dict[str, Any] = read_steps(path)

    def step(
        self, name: str, work: Callable[[], Any], check: Callable[[], None] | None = None
    ) -> Any:
        """Does a step, or returns what it returned before, after `check`, which raises where what
        the step left is no longer as it was.
        """
        if name in self.done:
            if check is not None:
                check()
            print(f"== {name}: done before ({self.done[name]['seconds']:.0f} s)", flush=True)
            return self.done[name]["result"]
        finished = sum(self.shares[step] for step in self.done)
        known = f", about {self._left(finished):.0f} s left in all" if finished else ""
        print(f"== {name}{known}", flush=True)
        started = time.monotonic()
        with _PeakMemory() as memory:
            result = work()
        seconds = time.monotonic() - started
        self.done[name] = {"seconds": seconds, "peak_rss_mb": memory.peak_mb, "result": result}
        write_json(self.path, self.done)
        return result

    def _left(self, finished: float) -> float:
        return self.seconds() / finished * (sum(self.shares.values()) - finished)

    def seconds(self) -> float:
        """Seconds of all steps so far, those of earlier calls included."""
        return sum(step["seconds"] for step in self.done.values())

    def peak_mb(self) -> float:
        """Largest memory of any step, MB."""
        return max(step["peak_rss_mb"] for step in self.done.values())
