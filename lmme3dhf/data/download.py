"""The released Gen3DHF from the Hugging Face hub to the layout of `datasets/README.md`.

Runs with huggingface_hub alone, before torch is installed. Parts wait in `.downloads` until they
are whole and verified (`hub`), and are unpacked without being trusted (`archive`).
"""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmme3dhf.data.archive import extract, free_bytes, listed
from lmme3dhf.data.hub import Hub, HubFile, amount, content_hash, fetch, hub_of, listing
from lmme3dhf.data.samples import DataError
from lmme3dhf.files import write_json

REPO_ID = "YyWooo/Gen3DHF"
RECORD = "downloads.json"

_CLIP = re.compile(r"(?P<stem>seed[0-9]{4})(?P<suffix>\.mp4)")
# The released scripts call a map seed0000_saliency.png in one place and seed0000.png in another.
_PICTURE = re.compile(r"(?P<stem>seed[0-9]{4})(?:_saliency)?(?P<suffix>\.png|\.jpe?g)")

# Part -> its names on the hub, and what its archive holds (None: the file itself). The first names
# are those on the hub, the others those in the released README.
PARTS: dict[str, tuple[tuple[str, ...], re.Pattern[str] | None]] = {
    "image": (("image.zip",), _PICTURE),
    "video_RGB": (("video.zip", "video_RGB.zip"), _CLIP),
    "saliency_map": (("saliency_map.zip",), _PICTURE),
    "MOS": (("MOS.json",), None),
    "distortion_label": (("distortion_label.json",), None),
}
README_PARTS = ("image", "video_RGB", "saliency_map")
_OTHER_WORDS = {"video": "video_RGB", "saliency": "saliency_map", "distortion": "distortion_label"}

# Unpacked over packed: clips and pictures hardly shrink in an archive. The exact size is known, and
# compared with the free space again, when the archive is here.
_UNPACKED = 1.2


def download(
    target_dir: Path | str,
    parts: Sequence[str] | str | None = None,
    *,
    repo_id: str = REPO_ID,
    revision: str = "main",
    keep_archives: bool = False,
    dry_run: bool = False,
    tries: int = 5,
    wait_s: float = 2.0,
) -> None:
    """Fetches, verifies and unpacks parts of the released data set and prints how far it is; the
    same call goes on after a stop and does nothing when all is there. `RECORD` says what was
    fetched.

    Args:
        target_dir: The data set's folder; made where missing.
        parts: See `chosen_parts`; None for all, without an error where the hub has no label files.
        repo_id: Data set on the hub.
        revision: Branch, tag or commit.
        keep_archives: Leave the archives in `target_dir`; else they are removed once unpacked.
        dry_run: Only list what would be done.
        tries, wait_s: See `hub.fetch`.

    Raises:
        DataError: An unknown part, no access, not enough disk space, content that is not the hub's,
            an archive that is refused, or a file in the way. What is finished stays.
        OSError: The folder cannot be written.
    """
    wanted = chosen_parts(parts)
    folder = Path(target_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected the folder of the data set")
    hub = hub_of(repo_id, revision)
    on_hub = listing(hub)
    files = _matched(hub, on_hub, wanted, named=parts is not None)
    record = _read_record(folder)
    left = {part: _left(folder, part, file, record.get(part)) for part, file in files.items()}
    commit = next(iter(files.values())).commit
    print(f"{repo_id} ({hub.endpoint}, commit {commit[:12]}) -> {folder}")
    for part in wanted:
        if part in files:
            file = files[part]
            line = f"{file.name:<22} {amount(file.bytes):>9}  {_state(file, left[part])}"
        else:
            line = f"not on the hub, which holds {listed(sorted(on_hub), 20)}"
        print(f"  {part:<17} {line}")
    todo = {part: file for part, file in files.items() if left[part] is not None}
    if not todo:
        print(f"{folder}: everything is there already")
        return
    _check_disk(folder, todo, left, keep_archives)
    if dry_run:
        print("dry run: nothing was fetched")
        return
    with _only_one(folder):
        for part, file in todo.items():
            path = _here(hub, file, folder, tries, wait_s)
            sizes = _placed(part, file, path, folder, mend=part in record)
            record[part] = {
                "repo_id": repo_id,
                "file": file.name,
                "hash": file.hash,
                "commit": commit,
                "files": sizes,
            }
            write_json(folder / RECORD, {"parts": record})
            if keep_archives and path.exists():
                os.replace(path, folder / file.name)
            elif path != folder / file.name:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # parts that were not asked for may wait there
            (folder / ".downloads").rmdir()


def chosen_parts(parts: Sequence[str] | str | None) -> list[str]:
    """The parts that some words name, in the order of `PARTS`.

    Args:
        parts: One or more words, also several in one string with blanks or commas: names of
            `PARTS`, "video", "saliency", "distortion", file names on the hub, or "all"; in any
            case. None for all.

    Raises:
        DataError: An unknown word, or none.
    """
    if parts is None:
        return list(PARTS)
    text = parts if isinstance(parts, str) else " ".join(parts)
    known = {part.lower(): {part} for part in PARTS} | {"all": set(PARTS)}
    known |= {word: {part} for word, part in _OTHER_WORDS.items()}
    known |= {name.lower(): {part} for part, (names, _) in PARTS.items() for name in names}
    words = [word for word in re.split(r"[\s,]+", text) if word]
    unknown = [word for word in words if word.lower() not in known]
    if unknown or not words:
        raise DataError(
            f"the parts to download are some of {', '.join(PARTS)} or all, not {listed(unknown)}"
        )
    return [part for part in PARTS if any(part in known[word.lower()] for word in words)]


def _matched(
    hub: Hub, on_hub: dict[str, HubFile], wanted: list[str], *, named: bool
) -> dict[str, HubFile]:
    """The hub's file of each part; label files that nobody asked for by name may be missing."""
    files = {}
    for part in wanted:
        names = PARTS[part][0]
        file = next((on_hub[name] for name in names if name in on_hub), None)
        if file is None and (named or part in README_PARTS):
            raise DataError(
                f"{hub.repo_id} ({hub.endpoint}, {hub.revision}) has no {' or '.join(names)} for "
                f"{part}; it holds {listed(sorted(on_hub), 20)}"
            )
        if file and not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", file.hash):
            raise DataError(
                f"{hub.endpoint} gives no hash of {file.name}, so it could not be verified; set "
                "HF_ENDPOINT to another mirror, or unset it"
            )
        if file:
            files[part] = file
    return files


def _left(folder: Path, part: str, file: HubFile, entry: dict[str, Any] | None) -> int | None:
    """How many bytes of a part are still to be fetched; None where nothing is to be done.

    Raises:
        DataError: A file of another origin is in the way.
    """
    path = folder / file.name
    here = _size_of(_partial(folder, file))
    if PARTS[part][1]:
        if os.path.lexists(folder / part) and not (folder / part).is_dir():
            raise DataError(f"{folder / part} is a file, expected a folder; move it away")
        files = entry["files"].items() if entry and entry["hash"] == file.hash else ()
        if files and all(_size_of(folder / part / name) == size for name, size in files):
            return None
        if _size_of(path) == file.bytes:
            return 0  # if its hash is right, which takes longer to see
    elif file.is_content_of(path):
        return None
    elif os.path.lexists(path):
        # An older version that we wrote ourselves may be replaced, nothing else.
        hash_ = entry["hash"] if entry and path.is_file() else None
        if not hash_ or content_hash(path, hash_) != hash_:
            raise DataError(
                f"{path} is there and is not the hub's; it stays as it is. Move it away, or choose "
                "another folder"
            )
    return max(0, file.bytes - here)


def _state(file: HubFile, left: int | None) -> str:
    if left is None:
        return "is there"
    return "to fetch" if left == file.bytes else f"{amount(file.bytes - left)} here"


def _check_disk(
    folder: Path, todo: dict[str, HubFile], left: dict[str, int | None], keep_archives: bool
) -> None:
    """Tells the free disk space and the need at the worst moment, one part after the other: an
    archive is gone before the next is fetched.

    Raises:
        DataError: Free is less than the need.
    """
    need = kept = 0
    for part, file in todo.items():
        unpacked = int(file.bytes * _UNPACKED) if PARTS[part][1] else 0
        need = max(need, kept + left[part] + unpacked)
        kept += unpacked + (left[part] if keep_archives or not unpacked else 0)
    free = free_bytes(folder)
    print(
        f"disk space: up to {amount(need)} needed (unpacked files taken as {_UNPACKED} times "
        f"their archive), {amount(free)} free",
        flush=True,
    )
    if need > free:
        raise DataError(
            f"{folder}: about {need} bytes are needed and {free} are free; make room, choose fewer "
            "parts, or a folder on another disk"
        )


def _here(hub: Hub, file: HubFile, folder: Path, tries: int, wait_s: float) -> Path:
    """Where the hub's content is, fetched if need be: an archive that lay in the folder, or a file
    in `.downloads`.
    """
    lying = folder / file.name
    if file.is_content_of(lying):
        return lying
    if lying.exists():
        print(f"{lying}: not the hub's file; it is fetched")
    partial = _partial(folder, file)
    partial.parent.mkdir(exist_ok=True)
    for other in partial.parent.glob(f"{file.name}.*.part"):
        if other != partial:
            print(f"{other.name}: removed, part of another version")
            other.unlink()
    fetch(hub, file, partial, tries=tries, wait_s=wait_s)
    return partial


def _placed(part: str, file: HubFile, path: Path, folder: Path, *, mend: bool) -> dict[str, int]:
    """Puts a verified file where the layout wants it; returns file names and bytes. Files that
    differ are replaced where an earlier download filled the part's folder (`mend`).
    """
    wanted = PARTS[part][1]
    if wanted is None:
        os.replace(path, folder / file.name)
        print(f"{part}: {folder / file.name}", flush=True)
        return {file.name: file.bytes}
    contents = extract(path, folder / part, wanted, replace=mend)
    more = f", {contents.ignored} system files ignored" if contents.ignored else ""
    if contents.left_out:
        more += f", left out: {listed(contents.left_out)}"
    print(f"{part}: {len(contents.sizes)} files in {folder / part}{more}", flush=True)
    return contents.sizes


def _read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """Part -> what was downloaded for it; nothing where the record is missing or damaged, for it
    only saves work.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_bytes())["parts"]
        for part, entry in parts.items():
            sizes = entry["files"].values()
            if not isinstance(entry["hash"], str) or not all(isinstance(s, int) for s in sizes):
                raise ValueError(f"the entry {part}")
        return parts
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path}: not a record of downloads ({type(error).__name__}: {error}); written anew")
        return {}


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Makes the folder and locks other downloads out; a disk that fills up becomes a sentence."""
    from filelock import FileLock, Timeout  # comes with huggingface_hub, which is told if missing

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(
            f"{folder}: another download into this folder is running; wait for it"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{folder}: the disk (or your share of it) is full; make room, and the same command "
            "goes on"
        ) from error


def _partial(folder: Path, file: HubFile) -> Path:
    """Where a file waits until it is whole and verified."""
    return folder / ".downloads" / f"{file.name}.{file.hash[:16]}.part"


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
