"""Libraries tried in processes of their own, with a deadline: one that crashes or hangs is then a
finding, not the end of the examination.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# Before each line that a probe has for its parent; libraries print what they like between them.
MARK = "lmme3dhf-doctor "
# A child that did nothing for a while hangs; one that still computes is slow, and gets more time.
PATIENCE_S, LIMIT_S = 20.0, 120.0
_IDLE_S, _IDLE_CPU_S = 5.0, 0.05
_POLL_S = 0.1
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Step:
    """One thing that a probe tried.

    Attributes:
        facts: What came out; None where it did not work.
        problem: Why it did not work, on one line.
    """

    facts: dict[str, Any] | None
    problem: str = ""


Steps = Mapping[str, Step]


def tried(
    probes: Mapping[str, Mapping[str, Any]],
    *,
    patience_s: float = PATIENCE_S,
    limit_s: float = LIMIT_S,
) -> dict[str, Steps]:
    """Runs functions of `doctor.probes`, all at the same time, each in a process of its own.

    Args:
        probes: Name of the function -> its arguments, as JSON takes them.
        patience_s: Seconds after which a process that does nothing is ended.
        limit_s: Seconds after which every process is ended.

    Returns:
        Name -> what was tried, in order, by name. The last step may be what the process crashed or
        hung in, which is "end" between two steps.
    """
    with tempfile.TemporaryDirectory(prefix="lmme3dhf-doctor-") as folder:
        begun = {name: _start(name, given, Path(folder)) for name, given in probes.items()}
        ended = _wait(begun, patience_s, limit_s)
        return {name: _steps(name, Path(folder), ended[name]) for name in begun}


def _start(name: str, given: Mapping[str, Any], folder: Path) -> subprocess.Popen:
    # No folder of the user's is on the path only because the command was started there, but the
    # checkout is, where the project was never installed.
    paths = [os.environ.get("PYTHONPATH", ""), "" if "-packages" in _ROOT.name else str(_ROOT)]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"}
    # Files, not pipes: a grandchild that lives on keeps a pipe open, and its reader waiting.
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "lmme3dhf.doctor.probes", name, json.dumps(given)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=os.environ | environment,
        )


def _wait(
    running: Mapping[str, subprocess.Popen], patience_s: float, limit_s: float
) -> dict[str, int | None]:
    """Exit status of each process, None for one that had to be ended."""
    began = time.monotonic()
    ended: dict[str, int | None] = {}
    moved = dict.fromkeys(running, (began, 0.0))  # when it last did something, CPU seconds by then
    try:
        while len(ended) < len(running):
            now = time.monotonic()
            for name in running.keys() - ended.keys():
                if (status := running[name].poll()) is not None:
                    ended[name] = status
                    continue
                used = _cpu_s(running[name].pid)
                if used > moved[name][1] + _IDLE_CPU_S:
                    moved[name] = (now, used)
                idle = now - moved[name][0] > min(_IDLE_S, patience_s)
                if now - began > (patience_s if idle else limit_s):
                    running[name].kill()
                    running[name].wait()
                    ended[name] = None
            time.sleep(_POLL_S)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    return ended


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:  # it has just ended
        return 0.0
    return times.user + times.system


def _steps(name: str, folder: Path, status: int | None) -> dict[str, Step]:
    told, errors = (
        (folder / f"{name}.{kind}").read_text(encoding="utf-8", errors="replace")
        for kind in ("out", "err")
    )
    found: dict[str, Step] = {}
    begun = "end"
    for line in told.splitlines():
        if line.startswith(MARK):
            record = json.loads(line.removeprefix(MARK))
            begun = record["step"]
            if "facts" in record:
                found[begun] = Step(record["facts"], record.get("problem", ""))
                begun = "end"
    if status is None:
        found[begun] = Step(None, "it hangs: no answer, and nothing was computed any more")
    elif status != 0:
        found[begun] = Step(None, _end(status, errors))
    return found


def _end(status: int, errors: str) -> str:
    """How a process ended that should have ended otherwise."""
    lines = errors.strip().splitlines()
    if status < 0:
        known = {int(number): number.name for number in signal.Signals}
        return f"it crashes ({known.get(-status, f'signal {-status}')})"
    return lines[-1] if lines else f"it ends with status {status}"
