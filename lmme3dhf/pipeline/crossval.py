"""Cross-validation: the chain once for every fold of a protocol (paper, Section 5.1: five folds).

A fold is an ordinary run in a folder of its own, with lists of its own; what it left is used when
the same command runs again. Frozen features are shared, since they do not depend on the lists.
Several folds at a time are processes of their own, each with a GPU or a share of the cores.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from lmme3dhf.comparison.command import write_tables
from lmme3dhf.comparison.sources import read_source
from lmme3dhf.comparison.tables import table1, table2, table3
from lmme3dhf.config import Config
from lmme3dhf.data.folds import protocol_splits, write_fold
from lmme3dhf.data.samples import DataError
from lmme3dhf.files import write_json
from lmme3dhf.pipeline.chain import draw_data, open_job, run_chain
from lmme3dhf.stages.prepare import fill_stores
from lmme3dhf.training import TrainingError

FOLDER, FOLDS, FIGURES, LOG = "crossval", "folds.json", "figures.json", "log.txt"
_LOG_LINES = 12  # of a failed fold's log, shown
_POLL_S, _PROGRESS_S = 0.2, 30.0  # how often children are looked at, and told about


@dataclass(frozen=True)
class Fold:
    """One fold of a protocol.

    Attributes:
        number: From 0.
        name: As the protocol calls it.
        folder: Of its run.
        split: Part -> videos.
    """

    number: int
    name: str
    folder: Path
    split: dict[str, list[str]]

    def is_finished(self) -> bool:
        """Whether its figures are there, which are written last."""
        return (self.folder / FIGURES).exists()


def run_crossval(
    config: Config, out: Path, protocol: str, only: Sequence[int] = (), jobs: int = 1
) -> Path:
    """Runs every fold that is not finished, compares the others with what is asked for, and makes
    Tables 1 to 3 over those that are finished.

    Args:
        config: Settings of the chain.
        out: Folder of the run; the folds come below `out/crossval/<protocol>`.
        protocol: One of `data.folds.PROTOCOLS`.
        only: Numbers of the folds to run; empty for all.
        jobs: Folds at a time. 1 runs them in this process; more are processes of their own, of
            which number i sees GPU i (of as many as there are) or a share of the CPU's threads,
            and writes to its fold's `log.txt`.

    Returns:
        `folds.json`: each fold's name, folder, sizes, and whether it is finished. The fold's
        figures are in its own `figures.json`, the tables beside `folds.json`.

    Raises:
        DataError: No such fold, or a protocol that the data set does not allow.
        TrainingError: `jobs` below 1; a finished fold has other settings or data, or another
            model; or some folds failed, which are named when the others are done.
    """
    if jobs < 1:
        raise TrainingError(f"jobs must be at least 1, got {jobs}")
    config = open_job(config, out)
    with FileLock(out / ".data.lock"):  # jobs of a cluster that start at the same time draw once
        draw_data(config, out)
    below = out / FOLDER / protocol
    folds = [
        Fold(number, name, below / f"fold_{number}", split)
        for number, (name, split) in enumerate(protocol_splits(config.data.root, protocol).items())
    ]
    missing = [number for number in only if not 0 <= number < len(folds)]
    if missing:
        raise DataError(
            f"fold {missing[0]}: {protocol} has the folds 0 to {len(folds) - 1}; give some of them"
        )
    wanted = [folds[k] for k in (only or range(len(folds)))]
    todo = [fold for fold in wanted if not fold.is_finished()]
    for fold in wanted:
        if fold not in todo:  # compared with what is asked for; its steps are not done again
            _run_fold(config, protocol, fold)
    failed: list[Fold] = []
    if jobs == 1:
        _run_here(config, protocol, todo)
    elif todo:
        _fill_stores(config, protocol, todo)
        failed = _run_apart(out, protocol, todo, jobs, config.threads)
    listed = _write_results(out, protocol, folds)
    if failed:
        logs = ", ".join(str(fold.folder / LOG) for fold in failed)
        raise TrainingError(
            f"{len(failed)} of {len(todo)} folds failed ({logs}); mend what their logs say, and "
            "the same command goes on"
        )
    return listed


def _run_here(config: Config, protocol: str, todo: Sequence[Fold]) -> None:
    taken: list[float] = []
    for done, fold in enumerate(todo):
        left = f", about {np.mean(taken) * (len(todo) - done):.0f} s left in all" if taken else ""
        print(f"== {protocol}: {fold.name} ({done + 1} of {len(todo)}){left}", flush=True)
        taken.append(_run_fold(config, protocol, fold))
        print(_told(fold), flush=True)


def _run_fold(config: Config, protocol: str, fold: Fold) -> float:
    """Runs one fold, or waits for the process that does; returns its seconds."""
    fold.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(fold.folder / ".fold.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{fold.folder}: another process runs this fold; waiting for it", flush=True)
        lock.acquire()
    with lock:
        of_fold = _with_lists(config, protocol, fold)
        job = run_chain(open_job(of_fold, fold.folder), fold.folder)
        figures = job.done["report"]["result"] | {"seconds": job.seconds()}
        write_json(fold.folder / FIGURES, figures)
        return job.seconds()


@dataclass
class _Child:
    """A fold that runs as a process of its own."""

    fold: Fold
    process: subprocess.Popen
    started: float
    told: float

    @classmethod
    def start(cls, fold: Fold, command: list[str], environment: dict[str, str]) -> "_Child":
        fold.folder.mkdir(parents=True, exist_ok=True)
        with (fold.folder / LOG).open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command,
                env=os.environ | environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        now = time.monotonic()
        return cls(fold, process, now, now)

    def log_end(self, lines: int) -> str:
        """The last lines of its log."""
        written = (self.fold.folder / LOG).read_text(encoding="utf-8", errors="replace")
        return "\n".join(written.splitlines()[-lines:])

    def tell(self) -> None:
        """Shows, every now and then, where it stands: the last line of its log."""
        now = time.monotonic()
        if now - self.told > _PROGRESS_S:
            self.told = now
            print(f"{self.fold.name}, {now - self.started:.0f} s: {self.log_end(1)}", flush=True)


def _run_apart(
    out: Path, protocol: str, todo: Sequence[Fold], jobs: int, threads: int
) -> list[Fold]:
    """Runs folds as processes of their own, `jobs` at a time; returns those that failed."""
    places = _places(min(jobs, len(todo)), threads)
    waiting, failed = deque(todo), []
    running: dict[int, _Child] = {}
    # Whoever ends this process means the folds as well.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while waiting or running:
            for place, (name, environment) in enumerate(places):
                if waiting and place not in running:
                    fold = waiting.popleft()
                    print(f"{fold.name}: on {name}, see {fold.folder / LOG}", flush=True)
                    command = _command(out, protocol, fold)
                    running[place] = _Child.start(fold, command, environment)
            time.sleep(_POLL_S)
            for place, child in list(running.items()):
                if child.process.poll() is None:
                    child.tell()
                    continue
                del running[place]
                if child.fold.is_finished():
                    left = len(waiting) + len(running)
                    print(f"{_told(child.fold)}; {left} folds left", flush=True)
                else:
                    failed.append(child.fold)
                    print(
                        f"{child.fold.name}: failed (status {child.process.returncode}); the end "
                        f"of {child.fold.folder / LOG}:\n{child.log_end(_LOG_LINES)}",
                        file=sys.stderr,
                        flush=True,
                    )
    finally:
        signal.signal(signal.SIGTERM, before)
        for child in running.values():
            child.process.terminate()
        for child in running.values():
            child.process.wait()
    return failed


def _command(out: Path, protocol: str, fold: Fold) -> list[str]:
    words = ["evaluate", "crossval", "--config", str(out / "config.yaml"), "--out", str(out)]
    words += ["--folds", protocol, "--only", str(fold.number)]
    return [sys.executable, "-m", "lmme3dhf.cli", *words]


def _places(jobs: int, threads: int) -> list[tuple[str, dict[str, str]]]:
    """Name and environment of each process: one GPU, in turn, or, on the CPU, as many threads as
    the settings give each process (0: its share).
    """
    count = torch.cuda.device_count()
    if not count:
        threads = threads or max(1, torch.get_num_threads() // jobs)
        return [(f"{threads} CPU threads", {"OMP_NUM_THREADS": str(threads)})] * jobs
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",")[:count] if named else [str(number) for number in range(count)]
    chosen = [gpus[place % count] for place in range(jobs)]
    return [(f"GPU {gpu}", {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in chosen]


def _write_results(out: Path, protocol: str, folds: Sequence[Fold]) -> Path:
    """Writes `folds.json` and, with finished folds, the tables. One process at a time: folds that
    run at the same time (as processes, or as jobs of a cluster) all come here when they are done.
    """
    below = out / FOLDER / protocol
    below.mkdir(parents=True, exist_ok=True)
    with FileLock(below / ".lock"):
        listed = [
            {
                "name": fold.name,
                "folder": fold.folder.name,
                "finished": fold.is_finished(),
                "train": len(fold.split["train"]),
                "eval": len(fold.split["eval"]),
            }
            for fold in folds
        ]
        write_json(below / FOLDS, {"protocol": protocol, "folds": listed})
        if any(fold["finished"] for fold in listed):
            source = read_source(out, folds=protocol)
            write_tables((table1(source), table2(source), table3(source)), below)
    return below / FOLDS


def _with_lists(config: Config, protocol: str, fold: Fold) -> Config:
    """Writes the fold's lists; returns its settings."""
    source, data = config.data.resolved(), fold.folder / "data"
    write_fold(
        source.root,
        fold.split,
        data,
        name=fold.name,
        latents_shared=protocol != "grouped",
    )
    maps = os.path.relpath(source.root / config.saliency.maps, data)
    return replace(
        config,
        data=replace(source, root=data),
        saliency=replace(config.saliency, maps=maps),
        synthetic=replace(config.synthetic, draw=False),
    )


def _fill_stores(config: Config, protocol: str, todo: Sequence[Fold]) -> None:
    """Computes the frozen features of all folds before several of them need them at once."""
    if not config.data.store:
        return
    for fold in todo:
        fill_stores(_with_lists(config, protocol, fold), verify=False)
    torch.cuda.empty_cache()


def _figures(fold: Fold) -> dict[str, Any]:
    return json.loads((fold.folder / FIGURES).read_text(encoding="utf-8"))


def _told(fold: Fold) -> str:
    figures = _figures(fold)
    scores = ", ".join(
        f"{name} SRCC {found['srcc']:.3f}"
        for name, found in figures.items()
        if isinstance(found, dict) and "srcc" in found
    )
    return f"{fold.name}: {scores} ({figures['seconds']:.0f} s)"
