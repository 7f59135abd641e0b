"""JSONL files that a command adds records to as soon as they are known, and continues after a kill.

A kill at any byte leaves whole lines and at most the beginning of one, which is dropped.
"""

import dataclasses
import difflib
import glob
import json
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar

from filelock import FileLock, Timeout

from lmme3dhf.errors import UserError
from lmme3dhf.files import replace_file

Key = TypeVar("Key")
Record = TypeVar("Record")

# The processes that decode hold the lock too, and those of a command that was killed end when their
# clip is read.
PATIENCE_S = 5.0


def json_line(content: dict[str, Any]) -> bytes:
    """A line of the file, with its end."""
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a name that is no UTF-8
        return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


def whole_lines(path: Path) -> list[tuple[int, bytes]]:
    """Number and bytes (without the end) of each line that is not blank; an object that breaks off
    at the end of the file is left out.

    Raises:
        FileNotFoundError: No such file.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    try:
        json.loads(rest.decode("utf-8"))
        lines.append(rest)
    except ValueError:
        if not rest.lstrip().startswith(b"{"):  # not the beginning of a record
            lines.append(rest)
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def check_fields(
    given: Iterable[str],
    known: Collection[str],
    required: Iterable[str],
    where: str,
    error: type[UserError],
) -> None:
    """Refuses a record or a header without a required field, or with an unknown one.

    Raises:
        UserError: Of the class `error`; the message begins with `where`.
    """
    given = list(given)
    for field in required:
        if field not in given:
            raise error(f"{where}: field {field!r} is missing; expected {', '.join(known)}")
    for field in given:
        if field not in known:
            nearest = difflib.get_close_matches(field, known, n=1, cutoff=0)[0]
            raise error(f"{where}: unknown field {field!r}; the nearest that exists is {nearest!r}")


def append(file: BinaryIO, data: bytes) -> None:
    """Adds to a file; when this returns, it is on the disk."""
    try:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        error.filename = file.name  # a full disk names no file
        raise


def part_file(out: Path, rank: int) -> Path:
    """Where one of several processes puts its records until the main one takes them; hidden, so
    that nobody reads it as a file of the folder.
    """
    return out.with_name(f".{out.stem}.rank_{rank}.jsonl")


def part_files(out: Path) -> list[Path]:
    """The parts that are there, of this command or of one that was killed."""
    return sorted(out.parent.glob(f".{glob.escape(out.stem)}.rank_*.jsonl"))


class RecordFile(Generic[Key, Record]):
    """A file of records that is open for writing, by one process at a time.

    Opening it makes it whole: a last line that was cut off is dropped. A file that is closed
    without a record leaves nothing behind.

    Args:
        record: The file; it and its folder are made where they are missing.

    Attributes:
        rows: Key -> record, in the order of the file.

    Raises:
        UserError: On opening (of the class `error`): another process has it open, or it is
            something else.
    """

    error: ClassVar[type[UserError]] = UserError

    def __init__(self, record: Path) -> None:
        self.record = record
        self.rows: dict[Key, Record] = {}
        self._lines: dict[Key, bytes] = {}
        self._lock = FileLock(record.with_name(f".{record.stem}.lock"), timeout=PATIENCE_S)
        self._open: list[BinaryIO] = []
        self._made: list[Path] = []

    def __enter__(self) -> "RecordFile[Key, Record]":
        folder = self.record.parent
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise self.error(
                f"{self.record}: another process is writing it; wait for that, or give another "
                "--out"
            ) from None
        try:
            for left in folder.glob(f".{glob.escape(self.record.stem)}.*.tmp"):
                left.unlink(missing_ok=True)
            for record, line in self._read():
                self._keep(record, line + b"\n")
            self._write_whole()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if self.rows:
            self._lock.release()
            return
        for path in self._files():
            path.unlink(missing_ok=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else put something there
            for made in self._made:
                made.rmdir()

    def append(self, *records: Record) -> None:
        """Adds records; when this returns, they are on the disk.

        Raises:
            UserError: The file has a record of this key.
        """
        lines = [json_line(self._content(record)) for record in records]
        for record, line in zip(records, lines, strict=True):
            self._keep(record, line)
        append(self._open[0], b"".join(lines))

    def forget(self, keys: Iterable[Key]) -> None:
        """Removes records, which are to be made anew; the others stay byte for byte."""
        gone = [key for key in keys if key in self.rows]
        for key in gone:
            del self.rows[key], self._lines[key]
        if gone:
            self._write_whole()

    def arrange(self, keys: Iterable[Key]) -> None:
        """Brings the records into this order; those of other keys come last."""
        order = list(dict.fromkeys([*(key for key in keys if key in self.rows), *self.rows]))
        if order != list(self.rows):
            self.rows = {key: self.rows[key] for key in order}
            self._lines = {key: self._lines[key] for key in order}
            self._write_whole()

    def _read(self) -> Iterable[tuple[Record, bytes]]:
        """The records that are there, each with its line; checks that this command may add to
        them.
        """
        raise NotImplementedError

    def _key(self, record: Record) -> Key:
        raise NotImplementedError

    def _content(self, record: Record) -> dict[str, Any]:
        return dataclasses.asdict(record)

    def _files(self) -> tuple[Path, ...]:
        return (self.record,)

    def _keep(self, record: Record, line: bytes) -> None:
        key = self._key(record)
        if key in self.rows:
            raise self.error(f"{self.record}: two rows of {key!r}; keep one")
        self.rows[key], self._lines[key] = record, line

    def _replace(self) -> None:
        """Writes the files as a whole."""
        replace_file(self.record, b"".join(self._lines.values()))

    def _write_whole(self) -> None:
        self._close()
        self._replace()
        self._open = [path.open("ab") for path in self._files()]

    def _close(self) -> None:
        for file in self._open:
            file.close()
        self._open = []
