"""Whether clips can be decoded to their last picture, and whether folders are as they were written;
needs neither torch nor a model.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lmme3dhf.data.container import VideoError, probe, verify
from lmme3dhf.data.processes import MEMORY_MB, TIMEOUT_S, Answer, answers
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.sources import files_below
from lmme3dhf.data.strips import read_views
from lmme3dhf.distributed import cores
from lmme3dhf.files import MANIFEST, damage, write_csv
from lmme3dhf.progress import with_progress
from lmme3dhf.scores import FAILED, OK

# More of them read a disk no faster, and each may take the memory that one file may.
MOST_PROCESSES = 8
# Of a folder that is not what its manifest says; files have `container.REASONS`.
DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a file, or of a folder with a manifest.

    Attributes:
        path: The file or folder.
        reason: Why it is bad, one of `container.REASONS` or `DAMAGED`; None where it is good.
        message: The same as a sentence; None where it is good.
    """

    path: Path
    reason: str | None = None
    message: str | None = None


def verdicts(
    paths: Sequence[Path | str],
    *,
    compare: Callable[[Path], str | None] = damage,
    timeout_s: float = TIMEOUT_S,
    memory_mb: float = MEMORY_MB,
) -> Iterator[Verdict]:
    """Decodes clips whole, and compares folders that have a manifest with it; in order.

    Args:
        paths: Clips, strips, folders of them, patterns, and folders with a manifest (a model, a
            run), which are compared with it alone.
        compare: What is wrong with such a folder; None for nothing.
        timeout_s: As of `processes.answers`.
        memory_mb: What reading a file may take, in 10**6 bytes; on Linux only.

    Raises:
        DataError: As `sources.files_below`; or a folder is a model without a manifest.
    """
    folders = [path for path in map(Path, paths) if (path / MANIFEST).is_file()]
    for path in map(Path, paths):
        if path not in folders and (path / "config.json").is_file():
            raise DataError(
                f"{path}: a model without a {MANIFEST}, so there is nothing to compare it with; "
                "only folders that lmme3dhf merge wrote have one"
            )
    others = [path for path in paths if Path(path) not in folders]
    files = files_below(others) if others else []
    yield from with_progress(
        (_folder(f, compare(f)) for f in folders), "folders compared", len(folders)
    )
    found = faults(files, timeout_s=timeout_s, memory_mb=memory_mb)
    with closing(found):
        told = with_progress(found, "files decoded", len(files))
        for path, fault in zip(files, told, strict=True):
            yield Verdict(path=path) if fault is None else _bad(path, fault)


def faults(
    files: Iterable[Path],
    *,
    whole: bool = True,
    strips: bool = True,
    timeout_s: float = TIMEOUT_S,
    memory_mb: float = MEMORY_MB,
) -> Iterator[VideoError | None]:
    """Why files give no clip, each read in a process that can be stopped (`data.processes`).

    Args:
        files: Clips.
        whole: Decode all pictures; else the header and one picture at most.
        strips: Whether strips are good too.
        timeout_s: As of `verdicts`.
        memory_mb: Likewise.

    Yields:
        For each file its error, or None.
    """
    results = answers(
        partial(_fault, whole, strips),
        files,
        min(cores(), MOST_PROCESSES),
        timeout_s=timeout_s,
        memory_mb=memory_mb,
    )
    with closing(results):
        for result in results:
            yield result if isinstance(result, VideoError) else result[0]


def write_verdicts(path: Path, found: Iterable[Verdict]) -> None:
    """Writes a CSV file: file, status (ok or failed), reason, message."""
    rows = [
        (str(v.path), FAILED if v.reason else OK, v.reason or "", v.message or "") for v in found
    ]
    write_csv(path, ["file", "status", "reason", "message"], rows)


def _fault(whole: bool, strips: bool, path: Path) -> Answer:
    """The error of a file, or None, and no arrays."""
    try:
        if whole:
            verify(path)
        else:
            probe(path)
    except VideoError as error:
        if error.reason != "still_image" or not strips:
            return error, []
    else:
        return None, []
    try:
        read_views(path)
    except VideoError as error:
        return error, []
    return None, []


def _folder(path: Path, wrong: str | None) -> Verdict:
    if wrong is None:
        return Verdict(path=path)
    message = f"{path} is not as it was written: {wrong}; make it again, or copy it again"
    return Verdict(path=path, reason=DAMAGED, message=message)


def _bad(path: Path, fault: VideoError) -> Verdict:
    return Verdict(path=path, reason=fault.reason, message=str(fault))
