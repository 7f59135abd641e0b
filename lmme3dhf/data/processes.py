"""Processes that read files from strangers and can be stopped: one file at a time, with limits on
time and memory. A thread cannot be ended from outside; a process can.

What goes wrong with a file stays with it: a process that hangs, eats memory or crashes is ended and
replaced, and the file gets a `VideoError`. Needs no torch.
"""

import atexit
import gc
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.data.container import VideoError
from lmme3dhf.errors import UserError

# For one file: seconds of processor time, and memory in 10**6 bytes. A clip of 4096x4096 pixels
# takes about 400, 768 pictures for the model about 1300.
TIMEOUT_S = 60.0
MEMORY_MB = 2048
# Other work on the machine does not use up a file's processor time, and neither does a disk that
# hangs: by the clock a file may take so many times as long, and no longer than system calls wait.
WALL_FACTOR = 10
_LONGEST_WAIT_S = 10**6
# Results that a process may be ahead of the caller; so many wait in memory for each.
AHEAD = 2
# How long a process may take before its first file, where it has to import everything anew.
START_S = 120.0
# A process whose parent was killed in the middle of a file ends itself after its time by the clock
# and this.
ORPHAN_S = 5.0
# Forking starts in milliseconds and shares what is loaded. Python's default for Linux has become
# "forkserver", which imports torch anew for each process; elsewhere forking is unsafe or unknown.
_CONTEXT = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
# A process that is forked between the making of another's pipe and the closing of its far end would
# hold that end open, and the death of its owner would go unnoticed.
_STARTING = threading.Lock()
# Near ends of all pipes. A forked process closes its copies, else a parent's death would go
# unnoticed.
_NEAR_ENDS: set[Connection] = set()

# Something small, and the arrays, which travel without being pickled.
Answer = tuple[Any, list[np.ndarray]]


class ProcessError(UserError, RuntimeError):
    """No process can be started, or not with these limits."""


@dataclass(frozen=True)
class Done:
    """What stands among the files and needs no reading; it comes out in its turn.

    Attributes:
        value: What comes out.
    """

    value: Any


def nothing() -> None:
    """Prepares nothing."""


def answers(
    read: Callable[[Path], Answer],
    files: Iterable[Path | Done],
    workers: int,
    *,
    timeout_s: float,
    memory_mb: float,
    prepare: Callable[[], None] = nothing,
) -> Iterator[Any]:
    """Reads files in `workers` processes; the answers come in the files' order.

    At most `workers * AHEAD` answers wait. A caller that stops early ends the processes; so does
    the end of this process, however it comes. The memory limit holds on Linux only.

    Args:
        read: From a file to what was read of it; picklable. An exception ends its process, and is
            the file's decode_error.
        files: Taken one by one in the caller's thread, as far ahead as answers wait.
        workers: Processes, 1 or more; fewer are started for fewer files.
        timeout_s: Seconds of processor time for one file, and `WALL_FACTOR` times as many by the
            clock; by the clock alone on Windows.
        memory_mb: What a process may take on top of what it has before its first file, in 10**6
            bytes.
        prepare: Called once in each process.

    Yields:
        What `read` gave; a `VideoError` (time_out, out_of_memory, decode_error); the value of a
        `Done`.

    Raises:
        ProcessError: A process does not start; a limit that is none.
        OSError: A process does not start, told by the system.
    """
    assert workers >= 1
    if not (0 < timeout_s < 10**6 and 0 < memory_mb < 10**9):
        raise ProcessError(
            f"{timeout_s:g} s and {memory_mb:g} MB for a file; expected numbers above 0 and below "
            "a million seconds and a billion MB"
        )
    todo: queue.SimpleQueue = queue.SimpleQueue()
    crew = _Crew(todo, read, prepare, timeout_s, memory_mb)
    waiting: deque[Future] = deque()
    atexit.register(crew.stop)
    try:
        for file in files:
            waiting.append(Future())
            if isinstance(file, Done):
                waiting[-1].set_result(file.value)
            else:
                todo.put((file, waiting[-1]))
                crew.grow(workers)
            if len(waiting) > workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        atexit.unregister(crew.stop)
        crew.stop()


class _Crew:
    """Threads that own a process each, hand it files and wait for its answers.

    Args:
        todo: Files, each with the `Future` of its answer.
        read: As of `answers`.
        prepare: Likewise.
        timeout_s: Likewise.
        memory_mb: Likewise.
    """

    def __init__(
        self,
        todo: queue.SimpleQueue,
        read: Callable[[Path], Answer],
        prepare: Callable[[], None],
        timeout_s: float,
        memory_mb: float,
    ) -> None:
        self._todo, self._work = todo, (read, prepare, timeout_s, memory_mb)
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        self._owner = os.getpid()
        self._threads: list[threading.Thread] = []
        self._children: set[_Child] = set()
        self._is_stopped = False

    def grow(self, most: int) -> None:
        """Adds a thread, up to `most`."""
        if len(self._threads) < most:
            thread = threading.Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ends all processes and threads; files that are not read stay so."""
        if os.getpid() != self._owner:
            return  # somebody's fork, which has copied this
        with _STARTING:
            self._is_stopped = True
            for child in self._children:
                child.process.kill()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        child = None
        try:
            while (item := self._todo.get()) is not None and not self._is_stopped:
                file, future = item
                try:
                    # The death of one that had nothing to do is not this file's fault.
                    while child is None or not child.takes(file):
                        dead, child = child, None
                        self._end(dead)
                        child = self._start()
                    answer = child.answer(_wall_s(self._timeout_s))
                except (ProcessError, OSError) as error:
                    future.set_exception(error)
                    continue
                except BaseException as error:
                    future.set_exception(error)
                    raise
                if isinstance(answer, _Failure):
                    self._end(child)
                    child = None
                    answer = answer.told(file, self._timeout_s, self._memory_mb)
                future.set_result(answer)
        finally:
            self._end(child)

    def _start(self) -> "_Child":
        with _STARTING:
            if self._is_stopped:
                raise ProcessError("stopped")
            child = _Child(*self._work)
            self._children.add(child)
        if not child.is_ready():
            self._end(child)
            raise ProcessError(
                f"a process that reads files ended at once, or did not start within {START_S:.0f} "
                "s; free some memory, or read in this process (workers 0)"
            )
        return child

    def _end(self, child: "_Child | None") -> None:
        if child is not None:
            with _STARTING:
                child.close()
                self._children.discard(child)


@dataclass(frozen=True)
class _Failure:
    """Why a process gave no answer.

    Attributes:
        reason: One of `container.REASONS`.
        says: More about a decode_error.
    """

    reason: str
    says: str = ""

    def told(self, file: Path, timeout_s: float, memory_mb: float) -> VideoError:
        """The same as a sentence about the file."""
        if self.reason == "time_out":
            message = (
                f"{file} was not read within {timeout_s:g} s of processor time and "
                f"{_wall_s(timeout_s):g} s by the clock; try again when disk and machine are less "
                "busy, or allow more (--timeout, timeout_s)"
            )
        elif self.reason == "out_of_memory":
            message = (
                f"{file} needs more than {memory_mb:g} MB of memory to be read; allow more, or "
                "scale it"
            )
        else:
            message = f"{file} cannot be read: {self.says}; replace it"
        return VideoError(self.reason, message)


class _Child:
    """One process and the pipe to it; to be made and closed under `_STARTING`."""

    def __init__(self, *work: Any) -> None:
        self._pipe, far_end = _CONTEXT.Pipe()
        _NEAR_ENDS.add(self._pipe)
        self.process = _CONTEXT.Process(target=_work, args=(far_end, *work), daemon=True)
        try:
            self.process.start()
        except OSError:
            self._close_pipe()
            raise
        finally:
            far_end.close()

    def is_ready(self) -> bool:
        """Waits until it has started; False where it does not."""
        try:
            return self._pipe.poll(START_S) and self._pipe.recv()
        except (EOFError, OSError):
            return False

    def takes(self, file: Path) -> bool:
        """Hands it a file; False where it is dead."""
        try:
            self._pipe.send(file)
        except OSError:
            return False
        return True

    def answer(self, wall_s: float) -> Answer | _Failure:
        """Waits for the answer."""
        try:
            if not self._pipe.poll(wall_s):
                return _Failure("time_out")
            given = self._pipe.recv()
            if isinstance(given, _Failure):
                return given
            value, shapes = given
            arrays = [np.empty(shape, dtype) for shape, dtype in shapes]
            for array in arrays:
                if array.size:
                    self._pipe.recv_bytes_into(_bytes_of(array))
            return value, arrays
        except (EOFError, OSError):
            return self._death()

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self._close_pipe()

    def _death(self) -> _Failure:
        """How the process ended without an answer."""
        status = None
        if wait([self.process.sentinel], timeout=ORPHAN_S):
            with _STARTING:
                self.process.join()
                status = self.process.exitcode
        if status is None or status >= 0:
            return _Failure("decode_error", f"its reader ended (exit status {status})")
        name = signal.Signals(-status).name
        if name == "SIGKILL":  # not ours; the system kills whoever takes the most memory
            return _Failure("out_of_memory")
        if name in ("SIGPROF", "SIGALRM"):
            return _Failure("time_out")
        return _Failure("decode_error", f"its reader crashed ({name})")

    def _close_pipe(self) -> None:
        _NEAR_ENDS.discard(self._pipe)
        self._pipe.close()


def _work(
    pipe: Connection,
    read: Callable[[Path], Answer],
    prepare: Callable[[], None],
    timeout_s: float,
    memory_mb: float,
) -> None:
    """Runs in the process: file after file, until the pipe is closed."""
    # What the parent has dropped and not yet collected stays the parent's: a decoder waits for its
    # threads when it is freed, and none of them was forked.
    gc.freeze()
    for inherited in _NEAR_ENDS:
        inherited.close()
    # Ctrl-C reaches all processes of a terminal; the parent decides. And what the parent does when
    # it is asked to end is not for its copies to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    prepare()
    _limit_memory(memory_mb)
    try:
        pipe.send(True)
        while True:
            file = pipe.recv()
            _alarms(timeout_s, _wall_s(timeout_s) + ORPHAN_S)
            _answer(pipe, read, file)
            _alarms(0, 0)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _answer(pipe: Connection, read: Callable[[Path], Answer], file: Path) -> None:
    try:
        value, arrays = read(file)
        if isinstance(value, VideoError) and value.reason == "out_of_memory":
            raise MemoryError  # a new process starts with all of its memory
        arrays = [np.ascontiguousarray(array) for array in arrays]
        pipe.send((value, [(array.shape, array.dtype.str) for array in arrays]))
        for array in arrays:
            if array.size:
                pipe.send_bytes(_bytes_of(array))
    except (MemoryError, BlockingIOError):  # the latter: no memory for a thread's stack
        pipe.send(_Failure("out_of_memory"))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        pipe.send(_Failure("decode_error", f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _limit_memory(memory_mb: float) -> None:
    """Bounds what the process may allocate from now on; only Linux counts this so."""
    try:
        import resource  # not on Windows

        # In pages: size, resident, shared, text, lib, data, dirty (man 5 proc). A forked process
        # starts with all that its parent has allocated.
        data = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except (ImportError, FileNotFoundError):
        return
    limit = data * os.sysconf("SC_PAGE_SIZE") + int(memory_mb * 10**6)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _wall_s(timeout_s: float) -> float:
    """Seconds by the clock for a file that may take `timeout_s` of processor time."""
    return min(WALL_FACTOR * timeout_s, _LONGEST_WAIT_S)


def _alarms(processor_s: float, wall_s: float) -> None:
    """Lets the system end this process after so much time of either kind; 0 calls it off."""
    if hasattr(signal, "setitimer"):  # not on Windows
        for ending, timer, seconds in (
            (signal.SIGPROF, signal.ITIMER_PROF, processor_s),
            (signal.SIGALRM, signal.ITIMER_REAL, wall_s),
        ):
            signal.signal(ending, signal.SIG_DFL)
            signal.setitimer(timer, seconds)
