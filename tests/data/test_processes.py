"""Processes that can be stopped: what a file can do to its reader, and that nobody else notices."""

import ctypes
import faulthandler
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.data import processes
from lmme3dhf.data.container import VideoError
from lmme3dhf.data.processes import AHEAD, Answer, Done, ProcessError, answers

ROOT = Path(__file__).resolve().parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory so")


def hostile(path: Path) -> Answer:
    """Does what the file's name says."""
    if path.name == "sleep":
        time.sleep(600)
    elif path.name == "sleep in native code":
        # Holds the interpreter's lock: no Python alarm would be heard.
        ctypes.PyDLL(None).sleep(600)
    elif path.name == "eat":
        bytearray(10**9)
    elif path.name == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif path.name == "crash":
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)
    elif path.name == "exit":
        os._exit(7)
    elif path.name == "raise":
        raise ZeroDivisionError("by nothing")
    elif path.name == "spin":
        while True:
            pass
    elif path.name == "spin in native code":
        pow(3, 10**8)  # holds the interpreter's lock for longer than any test waits
    elif path.name == "starve":
        # Other work has the processors for a second.
        wake = f"sleep 1; kill -CONT {os.getpid()}"
        with subprocess.Popen(["sh", "-c", wake]):
            os.kill(os.getpid(), signal.SIGSTOP)
    elif path.name == "nap":
        time.sleep(0.5)
    elif path.name == "flood":
        return "flood", [np.zeros(10**6, dtype=np.uint8)]
    return os.getpid(), []


def read(*names: str, workers: int = 1, timeout_s: float = 20.0, memory_mb: float = 200.0) -> list:
    """Answers of `hostile`, and the reasons of those that are errors."""
    files = map(Path, names)
    results = answers(hostile, files, workers, timeout_s=timeout_s, memory_mb=memory_mb)
    return [r.reason if isinstance(r, VideoError) else r for r in results]


@pytest.mark.parametrize("name", ["sleep", "sleep in native code", "spin", "spin in native code"])
def test_what_takes_too_long_is_ended(name):
    """Whether it waits or computes. Catches a run that stands still for ever, a deadline that only
    Python code obeys, and files after it that are late too.
    """
    first, bad, after = read("good", name, "good", timeout_s=0.2)
    assert bad == "time_out"
    assert first[0] != after[0], "the process was not replaced"


def test_a_time_out_says_what_to_do():
    """Catches "replace it" for a good file on a busy machine."""
    (error,) = answers(hostile, [Path("x/sleep")], 1, timeout_s=0.02, memory_mb=200)
    assert str(error).startswith("x/sleep was not read within 0.02 s")
    assert "--timeout" in str(error)
    assert "replace" not in str(error)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal on Windows")
def test_other_work_on_the_machine_is_not_the_files_fault():
    """Stopped for a second, of which it may compute 0.3. Catches a deadline by the clock, at which
    good files fail on a loaded machine.
    """
    assert isinstance(read("starve", timeout_s=0.3)[0], tuple)


@linux_only
def test_what_computes_is_ended_by_its_processor_time(monkeypatch):
    """Long before its time by the clock. Catches a file that keeps a core for ten times as long."""
    monkeypatch.setattr(processes, "WALL_FACTOR", 10_000)
    assert read("spin", "spin in native code", timeout_s=0.2) == ["time_out"] * 2


@linux_only
def test_what_eats_memory_is_told_and_goes_no_further():
    """A gigabyte, where 200 MB are allowed on top of what the tests themselves have. Catches a
    limit that counts what is there already, or none.
    """
    assert read("good", "eat", "good")[1] == "out_of_memory"
    assert isinstance(read("eat", memory_mb=2000)[0], tuple)


def test_a_process_that_dies_costs_its_file_alone():
    """Catches a traceback or a hang of the whole run, and one reason for everything: the system
    kills (SIGKILL) whoever takes too much memory.
    """
    names = ["be killed", "good", "crash", "exit", "good", "raise"]
    files = [Path("clips", name) for name in names]
    results = list(answers(hostile, files, 2, timeout_s=20, memory_mb=200))
    assert [isinstance(result, tuple) for result in results] == [name == "good" for name in names]
    errors = [result for result in results if isinstance(result, VideoError)]
    reasons = ["out_of_memory", "decode_error", "decode_error", "decode_error"]
    assert [error.reason for error in errors] == reasons
    says = [
        "clips/be killed needs more",
        "(SIGSEGV)",
        "exit status 7",
        "ZeroDivisionError: by noth",
    ]
    for error, words in zip(errors, says, strict=True):
        assert words in str(error)


class Garbage:
    """In a cycle; when it is freed, which only the collector does, it says so."""

    freed_in: list[int] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        self.freed_in.append(os.getpid())


def collect(path: Path) -> Answer:
    gc.collect()
    return os.getpid() in Garbage.freed_in, []


def test_a_process_frees_nothing_of_its_parents():
    """PyAV's decoders wait for their threads when they are freed, and a forked process has none of
    them: a good file took until its deadline.
    """
    gc.disable()
    try:
        Garbage()
        ((freed, _),) = answers(collect, [Path("good")], 1, timeout_s=20, memory_mb=200)
        assert not freed
        gc.collect()
        assert os.getpid() in Garbage.freed_in
    finally:
        gc.enable()


def leave_a_mark(path: Path) -> Answer:
    path.touch()
    return os.getpid(), []


def test_a_process_that_died_with_nothing_to_do_is_not_the_next_files_fault(tmp_path):
    """Catches a good file that is called bad because something else ended its reader."""
    files = (tmp_path / str(number) for number in range(AHEAD + 2))
    results = answers(leave_a_mark, files, 1, timeout_s=20, memory_mb=200)
    first, _ = next(results)
    # As many as may wait are read, and nothing is asked for.
    _wait_for(lambda: len(list(tmp_path.iterdir())) == AHEAD + 1)
    time.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    _wait_for(lambda: not multiprocessing.active_children())
    pids = [pid for pid, _ in results]
    assert pids[:AHEAD] == [first] * AHEAD
    assert pids[AHEAD] != first


def _wait_for(done: Callable[[], bool]) -> None:
    waited_until = time.monotonic() + 30
    while not done():
        assert time.monotonic() < waited_until
        time.sleep(0.01)


def test_files_are_taken_one_by_one_in_the_callers_thread():
    """From an endless source. Catches a list made of it, a source that is run in another thread,
    and more waiting than promised.
    """
    taken, threads = [], set()

    def source():
        for number in itertools.count():
            taken.append(number)
            threads.add(threading.get_ident())
            yield Done(number) if number % 3 else Path("good")

    results = answers(hostile, source(), 2, timeout_s=20, memory_mb=200)
    given = [next(results) for _ in range(20)]
    results.close()
    assert [g for g in given if isinstance(g, int)] == [n for n in range(20) if n % 3]
    assert threads == {threading.get_ident()}
    assert len(taken) == 20 + 2 * AHEAD


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(wrong):
    """Catches a deadline that ends every file at once, or fails in the process."""
    for limits in ({"timeout_s": wrong, "memory_mb": 1}, {"timeout_s": 1, "memory_mb": wrong}):
        with pytest.raises(ProcessError, match="expected numbers above 0"):
            next(answers(hostile, [Path("good")], 1, **limits))


def test_arrays_come_as_they_were_sent():
    """Catches swapped shapes and types, an empty or a turned array, and one that cannot be written
    to.
    """
    sent = [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.zeros((0, 3), dtype=np.uint8),
        np.random.default_rng(0).integers(0, 256, (7, 50, 41, 3), dtype=np.uint8),
    ]
    ((value, got),) = answers(lambda path: (path, sent), [Path("a")], 1, timeout_s=20, memory_mb=99)
    assert value == Path("a")
    for was, now in zip(sent, got, strict=True):
        assert (was.dtype, was.shape) == (now.dtype, now.shape)
        assert np.array_equal(was, now)
        assert now.flags.writeable


@pytest.mark.parametrize("doing", ["sleep", "flood"])
def test_nothing_is_left_when_the_caller_stops(doing):
    """With readers in the middle of a file, or of sending what they read. Catches processes,
    threads and open files that stay after an error elsewhere.
    """
    assert read("good") != ["time_out"]  # what multiprocessing opens once is open now
    before, threads = _open_files(), threading.active_count()

    def failing() -> None:
        names = ["good"] * 2 * AHEAD + [doing] * 9
        for _ in answers(hostile, map(Path, names), 2, timeout_s=60, memory_mb=200):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert multiprocessing.active_children() == []
    assert threading.active_count() == threads
    assert _open_files() == before


def _open_files() -> set[str]:
    folder = Path("/proc/self/fd")
    return set(os.listdir(folder)) if folder.is_dir() else set()


PARENT = """
import itertools, multiprocessing, sys, time
from pathlib import Path
from lmme3dhf.data import processes
from tests.data.test_processes import hostile
processes.ORPHAN_S, processes.WALL_FACTOR = 0.2, 1
# Each of the three gets one: the others sleep while it is handed out.
names = itertools.chain(["nap"] * 3, itertools.repeat(sys.argv[1]))
files = processes.answers(hostile, map(Path, names), 3, timeout_s=2, memory_mb=200)
for _ in range(3):
    next(files)
time.sleep(0.2)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
if sys.argv[2] == "exit":
    raise SystemExit("done")
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")
@pytest.mark.parametrize("doing", ["good", "sleep in native code"])
@pytest.mark.parametrize("end", ["exit", signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_do_not_outlive_their_parent(doing, end):
    """Idle ones and ones that hang, after an exit, Ctrl-C, and a parent that is killed. Catches
    processes that hold memory and files for ever, and their tracebacks.
    """
    # A group of its own, which Ctrl-C reaches whole.
    words = [sys.executable, "-c", PARENT, doing, str(end)]
    parent = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 3
    if end == signal.SIGINT:
        os.killpg(parent.pid, end)
    elif end != "exit":
        parent.send_signal(end)
    # Both pipes close when the last process that has them is gone.
    _, said = parent.communicate(timeout=30)
    assert said.count("Traceback") == (1 if end == signal.SIGINT else 0)
    _wait_for(lambda: not any(map(_is_alive, pids)))  # a process closes its files first


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # dead, and not yet asked about
