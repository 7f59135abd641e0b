"""Files that are whole or not there: atomic writing, hashes, and manifests that say what a finished
folder holds.
"""

import csv
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lmme3dhf.errors import UserError
from lmme3dhf.escaping import cell_text, spreadsheet_text

MANIFEST = "manifest.json"
# Of a file that keeps changing, such as one that is still being written.
_READINGS = 3
# Two threads hash faster than most disks read.
_HASH_THREADS = min(4, os.cpu_count() or 1)
# A file may change twice within the resolution of its times; the hash of a file as young as that is
# not kept between runs.
_SETTLED_NS = 2 * 10**9
# The oldest go first; 100,000 take about 20 MB.
_MOST_REMEMBERED = 100_000
# Inode, bytes, times of the last change of the content and of anything (mtime, ctime, in ns). A
# program can set the first of the times, but not the second.
_State = tuple[int, int, int, int]
_Value = TypeVar("_Value")


class Hashed(NamedTuple):
    """What is known of a file: its state, the hash, and whether both may be kept."""

    state: _State
    sha256: str
    settled: bool


class ChangedError(UserError, RuntimeError):
    """A file that changed whenever it was read."""


class DamagedError(UserError, ValueError):
    """A file of a run or a job that is no longer as it was written."""


class FileState(NamedTuple):
    """What a file is at one moment: the SHA-256 of its bytes, and inode, size and times.

    The hash alone would miss a file that was replaced and put back; the rest alone would miss a
    change within the resolution of the clock.
    """

    content: str
    state: _State


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        FileNotFoundError: No such file.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Hashes:
    """SHA-256 of files' bytes, remembered between runs while a file's inode, size and times stay.

    What is remembered lies in one file of the user's cache folder (`hashes_file`), without paths.
    Where that cannot be read or written, files are hashed each time. Damage that a disk does to a
    file without writing it changes no time: `damage` without hashes reads everything.
    """

    def __init__(self) -> None:
        self._known = _read_hashes()

    def recall(self, path: Path) -> str | None:
        """The hash of a file that is as it was when it was read; else None.

        Raises:
            FileNotFoundError: No such file.
        """
        known = self._known.get(_name(path))
        return known.sha256 if known is not None and known.state == _state(path) else None

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """File -> hash, in the given order; what is not known is read, in threads, and remembered.

        Raises:
            FileNotFoundError: No such file.
        """
        paths = list(paths)
        self.add(self.read([path for path in paths if self.recall(path) is None]))
        return {path: self._known[_name(path)].sha256 for path in paths}

    @staticmethod
    def read(paths: Sequence[Path], threads: int = _HASH_THREADS) -> dict[str, Hashed]:
        """Hashes files in threads, for `add`, here or in another process."""
        settled = time.time_ns() - _SETTLED_NS
        # First the state, then the bytes: of a file that changes meanwhile the state is not seen
        # again.
        states = [_state(path) for path in paths]
        hashes = _file_hashes(paths, threads)
        return {
            _name(path): Hashed(state, hashes[path], max(state[2:]) < settled)
            for path, state in zip(paths, states, strict=True)
        }

    def add(self, read: Mapping[str, Hashed], *, keep: bool = True) -> None:
        """Learns what `read` gave.

        Args:
            read: What it gave.
            keep: Whether later runs are to know it too.
        """
        self._known |= read
        if keep:
            _keep_hashes({name: hashed for name, hashed in read.items() if hashed.settled})


def hashes_file() -> Path:
    """Where hashes are remembered: lmme3dhf/hashes.json in the user's cache folder.

    Environment: XDG_CACHE_HOME.

    Raises:
        RuntimeError: The user has no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = named if named.is_absolute() else Path.home() / ".cache"
    return folder / "lmme3dhf" / "hashes.json"


def _read_hashes() -> dict[str, Hashed]:
    """Empty where the file is absent or damaged: it only saves time."""
    try:
        content = json.loads(hashes_file().read_bytes())
        return {
            name: Hashed((int(inode), int(size), int(written), int(changed)), str(sha256), True)
            for name, (inode, size, written, changed, sha256) in content.items()
        }
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return {}


def _keep_hashes(learnt: dict[str, Hashed]) -> None:
    """Adds to the file what other processes may be adding to as well: it is replaced as a whole, so
    at worst the other's entries are forgotten.
    """
    if not learnt:
        return
    kept = list((_read_hashes() | learnt).items())[-_MOST_REMEMBERED:]
    try:
        content = {name: [*hashed.state, hashed.sha256] for name, hashed in kept}
        replace_file(hashes_file(), json.dumps(content))
    except (OSError, RuntimeError):
        pass  # a cache folder that is absent, full or read-only


def _file_hashes(paths: Sequence[Path], threads: int = _HASH_THREADS) -> dict[Path, str]:
    # hashlib lets other threads run while it computes.
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return dict(zip(paths, pool.map(file_hash, paths), strict=True))


def _name(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]


def _state(path: Path) -> _State:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def file_state(path: Path) -> FileState | None:
    """A file's bytes and identity; None where there is no regular file that can be read, such as a
    pipe, whose reading would never end.
    """
    try:
        if not path.is_file():
            return None
        # Before the hash: a change during the hashing shows in the next state.
        state = _state(path)
        return FileState(file_hash(path), state)
    except OSError:
        return None


def read_unchanged(
    path: Path, before: FileState | None, read: Callable[[], _Value]
) -> tuple[_Value, FileState | None]:
    """Reads a file again until it was the same before and after: the hash is then that of the bytes
    that were read, whoever replaces or writes the file meanwhile.

    Args:
        path: The file.
        before: Its `file_state` before the first reading.
        read: Opens and reads it, as often as it is called.

    Returns:
        What was read, and the state that it belongs to.

    Raises:
        ChangedError: It changed during each of three readings.
    """
    for _ in range(_READINGS):
        value = read()
        after = file_state(path)
        if after == before:
            return value, after
        before = after
    raise ChangedError(
        f"{path} changed while it was read, {_READINGS} times; wait until it is written, then run "
        "the same command again"
    )


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path stays in a folder, whatever "..", an absolute path or a symbolic link in it
    says. The folder itself may be a link.
    """
    return path.resolve().is_relative_to(folder.resolve())


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file as a whole: a kill leaves the old file or the new one, never half of one. Makes
    missing folders.

    Args:
        path: The file.
        content: Text (written as UTF-8 with \\n line ends) or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file, and nobody knows the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON as a whole (see `replace_file`).

    NaN, which JSON does not know, becomes null: an undefined figure stays undefined, never 0.
    """
    replace_file(path, json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n")


def read_object(path: Path, mend: str, expected: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in a file that a command of ours wrote.

    Args:
        path: The file.
        mend: What to do where it is damaged, for the message.
        expected: Key -> type, or types, of what has to be there.

    Raises:
        DamagedError: Not JSON in UTF-8, no object, or not with what is expected.
        FileNotFoundError: No such file.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedError(f"{path}: damaged, not JSON in UTF-8 ({reason}); {mend}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DamagedError(f"{path}: damaged, a JSON object is expected, got {kind}; {mend}")
    for key, kinds in (expected or {}).items():
        if not isinstance(content.get(key), kinds):
            raise DamagedError(f"{path}: damaged, {key!r} is missing or of a wrong type; {mend}")
    return content


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes `csv_text` as a whole (see `replace_file`)."""
    replace_file(path, csv_text(header, rows))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file with \\n line ends (see `csv_lines`); bytes that are no UTF-8, as in names of
    files, have escapes in their place.
    """
    return csv_lines([header, *rows], "\n").encode("utf-8", "backslashreplace").decode("utf-8")


def csv_lines(rows: Iterable[Iterable[Any]], line_end: str = "\r\n") -> str:
    """Rows as lines of a CSV file in which no text is a formula (`escaping.spreadsheet_text`); NaN
    and None become empty cells. `csv_cells` gives the texts back as they were.
    """
    lines = []
    for row in rows:
        # The only value that is unlike itself is NaN.
        known = ["" if cell is None or cell != cell else cell for cell in row]
        stream = io.StringIO(newline="")
        # With these line ends a cell with either letter of them is quoted.
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow([spreadsheet_text(c) if isinstance(c, str) else c for c in known])
        lines.append(stream.getvalue().removesuffix("\r\n") + line_end)
    return "".join(lines)


def csv_cells(row: Iterable[str]) -> list[str]:
    """The cells of a row that `csv.reader` read, without what `csv_lines` put before texts."""
    return [cell_text(cell) for cell in row]


def without_nan(content: Any) -> Any:
    """The same nested content with None in place of NaN."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def write_manifest(folder: Path) -> None:
    """Writes sizes and hashes of all files of a folder, last, as the sign that it is whole."""
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    )
    hashes = _file_hashes(files)
    listed = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": hashes[p]}
        for p in files
    }
    write_json(folder / MANIFEST, {"files": listed})


def damage(
    folder: Path, hashes: Hashes | None = None, *, ignored: Sequence[str] = ()
) -> str | None:
    """What is wrong with a folder that should have a manifest; None when every file is as it was
    written.

    Args:
        folder: The folder.
        hashes: Takes the hash of a file that has not changed since it was last read from there;
            None reads every file.
        ignored: Patterns of names that are not compared.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return "it has no manifest: it was not finished"
    try:
        listed = json.loads(manifest.read_bytes())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its manifest cannot be read ({type(error).__name__}: {error})"
    if not expected:
        return "its manifest lists no files"
    for name in [name for name in expected if any(fnmatch(name, p) for p in ignored)]:
        del expected[name]
    for name, (size, _) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
    paths = [folder / name for name in expected]
    found = _file_hashes(paths) if hashes is None else hashes.of(paths)
    for path, (name, (_, sha256)) in zip(paths, expected.items(), strict=True):
        if found[path] != sha256:
            return f"{name} is not what was written (its hash differs)"
    return None
