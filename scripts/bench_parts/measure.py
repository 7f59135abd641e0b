"""How the benchmark measures: both sides by turns in one run, processor time, one thread, and
beside every ratio how far the two results are apart.
"""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

LIBRARIES = (
    "lmme3dhf",
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "numpy",
    "scipy",
    "av",
    "decord",
    "qwen-vl-utils",
)


@dataclass(frozen=True)
class Goal:
    """What a row is to reach.

    Attributes:
        gate: Below it the benchmark fails.
        aim: What was hoped for.
    """

    gate: float
    aim: float


# The gates are those of the task that the benchmark was written for, the aims likewise. R4 is two
# rows, for two and for three questions.
GOALS = {
    "R1": Goal(3, 4),
    "R2": Goal(1.7, 1.8),
    "R3": Goal(2.4, 2.6),
    "R4": Goal(4, 6),
    "R4b": Goal(6, 9),
    "R5": Goal(2.5, 2.8),
    "R6": Goal(2.8, 4),
    "R7": Goal(1.5, 1.7),
    "R8": Goal(20, 30),
    "R9": Goal(60, 85),
    "R10": Goal(40, 300),
    "R11": Goal(3, 8),
    "R12": Goal(10, 16),
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side of a row cost.

    Attributes:
        does: What exactly it does.
        cost: Median over the repeats, in the row's unit.
        spread: Half the distance between the quartiles, relative to the median.
        all: Every repeat.
    """

    does: str
    cost: float
    spread: float
    all: list[float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the benchmark: what the plain path costs against ours.

    Attributes:
        id: "R1" to "R12"; more letters behind it for the same lever under other conditions.
        what: The lever and its conditions.
        ratio: Median cost of the plain side by that of ours.
        gate: The ratio that it must reach; None for a row that stands beside another.
        aim: The ratio that it is to reach; None likewise.
        difference: Largest difference between the results of the two sides.
        of: What the difference is of.
        tolerance: The difference may not exceed it.
        unit: Of the costs, "s" or "MB".
        plain: The plain side.
        ours: Our side.
    """

    id: str
    what: str
    ratio: float
    gate: float | None
    aim: float | None
    difference: float
    of: str
    tolerance: float
    unit: str
    plain: Side
    ours: Side

    @property
    def failures(self) -> list[str]:
        """What is wrong with the row, in words; empty when it passes."""
        found = []
        if self.gate is not None and not self.ratio >= self.gate:
            found.append(f"{self.id}: {self.ratio:.2f} times, the gate is {self.gate:g}")
        if not self.difference <= self.tolerance:
            found.append(
                f"{self.id}: the sides differ by {self.difference:.2g} ({self.of}), allowed are "
                f"{self.tolerance:g}"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def side(does: str, costs: list[float]) -> Side:
    """Median and spread of what one side cost."""
    median = statistics.median(costs)
    spread = 0.0
    if len(costs) > 1:
        low, _, high = statistics.quantiles(costs, n=4, method="inclusive")
        spread = (high - low) / 2 / median if median else 0.0
    return Side(does=does, cost=median, spread=spread, all=costs)


def row(
    id: str,
    what: str,
    *,
    plain: tuple[str, list[float]],
    ours: tuple[str, list[float]],
    difference: float,
    of: str,
    tolerance: float,
    unit: str = "s",
) -> Row:
    """A row from the costs of both sides.

    Args:
        id: With a goal in `GOALS`, the row has its gate; otherwise it stands beside another.
        what: The lever and its conditions.
        plain: What the plain side does, and what that cost each time.
        ours: The same of our side.
        difference: Between their results.
        of: What the difference is of.
        tolerance: The most that it may be.
        unit: Of the costs.
    """
    first, second = side(*plain), side(*ours)
    goal = GOALS.get(id)
    return Row(
        id=id,
        what=what,
        ratio=first.cost / second.cost,
        gate=goal.gate if goal else None,
        aim=goal.aim if goal else None,
        difference=float(difference),
        of=of,
        tolerance=tolerance,
        unit=unit,
        plain=first,
        ours=second,
    )


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Processor time of a call, of all threads of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    clock: Callable[[Callable[[], Any]], float] = cpu_seconds,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Times several calls by turns, so that whatever else the machine does meets all of them.

    Args:
        calls: Name -> call.
        repeats: How often each is timed.
        clock: Gives the cost of a call.
        warm_up: Whether each runs once before, untimed.
    """
    if warm_up:
        for call in calls.values():
            call()
    costs: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        # Who goes first changes, or the first would always pay for the caches of the last.
        order = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        for name in order:
            costs[name].append(clock(calls[name]))
    return costs


class Parts:
    """Adds up the time between marks by name: what share of a step is which part's.

    Args:
        clock: Seconds; processor time by default.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._since: float | None = None

    def start(self) -> None:
        """The time from here on belongs to the next mark."""
        self._since = self.clock()

    def mark(self, name: str) -> None:
        """The time since the last mark belongs to this part."""
        now = self.clock()
        if self._since is not None:
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


def memory_peak(call: Callable[[], Any]) -> int:
    """Most bytes that a call held at a time beyond what was there before, by the events of torch's
    own allocator on the CPU.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = call()
    del result
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def largest(first: Any, second: Any) -> float:
    """Largest absolute difference between two tensors or arrays of one shape; infinite where the
    shapes differ.
    """
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    if first.shape != second.shape:
        return float("inf")
    return float((first.double() - second.double()).abs().max()) if first.numel() else 0.0


def relative(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Largest difference between two sets of gradients, relative to the largest gradient; infinite
    where they do not belong to the same parameters.
    """
    if set(first) != set(second) or not first:
        return float("inf")
    scale = max(float(g.abs().max()) for g in first.values())
    return max(largest(first[name], second[name]) for name in first) / scale


def environment() -> dict[str, Any]:
    """Machine, versions and load: what a figure depends on beside the code."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "absent"
    about: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": versions,
    }
    if torch.cuda.is_available():
        about["accelerator"] = torch.cuda.get_device_name()
        about["cuda"] = torch.version.cuda
    return about


def _processor() -> str:
    kind = platform.processor() or platform.machine()
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}"


def peak_rss_mb() -> float:
    """Most memory that this process has had resident so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kilobytes elsewhere.
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
