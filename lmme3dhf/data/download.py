"""The released Gen3DHF from the Hugging Face hub to the layout of `datasets/README.md`.

Runs with huggingface_hub alone, before torch is installed. The library gives the listing, the
session (proxies, certificates, offline mode) and the token; the bytes are written here, for
hf_hub_download throws a partial file away when a transfer breaks off (huggingface_hub#4196), and
does not compare content with the hub's hash (#3643). Everything goes over plain HTTP from
HF_ENDPOINT, so a mirror is never passed by.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lmme3dhf.data.archive import extract, listed
from lmme3dhf.data.samples import DataError
from lmme3dhf.files import file_hash, write_json

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
# A try that brought so much is a slow line, not a broken one, and does not count.
_WORTHWHILE_BYTES = 1 << 20
# Not the server's last word: timeout, bad range, too many requests.
_PASSING_STATUS = (408, 416, 429)


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file as the hub lists it.

    Attributes:
        name: Path in the repository.
        bytes: Size.
        kind: What `hash` is: "sha256" of the content (large files), or "git", the SHA-1 of a git
            blob.
        hash: Hexadecimal.
        commit: The commit it belongs to; the transfer asks for this one.
    """

    name: str
    bytes: int
    kind: str
    hash: str
    commit: str

    def hash_of(self, path: Path) -> str:
        """The same hash of a file on disk."""
        if self.kind == "sha256":
            return file_hash(path)
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def is_content_of(self, path: Path) -> bool:
        """Whether a file on disk is this file."""
        return (
            path.is_file() and path.stat().st_size == self.bytes and self.hash_of(path) == self.hash
        )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What is to be done for one part: `partial` bytes of the archive or file are here already;
    `done` where nothing is to be done.
    """

    part: str
    file: HubFile
    wanted: re.Pattern[str] | None
    partial: int
    done: bool


def download(
    target_dir: Path | str,
    parts: Sequence[str] | str | None = None,
    *,
    repo_id: str = REPO_ID,
    revision: str = "main",
    keep_archives: bool = False,
    dry_run: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    tries: int = 5,
    wait_s: float = 2.0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Fetches, verifies and unpacks parts of the released data set; the same call goes on after a
    stop and does nothing when all is there.

    Args:
        target_dir: The data set's folder; made where missing.
        parts: See `chosen_parts`; None for all, without an error where the hub has no label files.
        repo_id: Data set on the hub.
        revision: Branch, tag or commit.
        keep_archives: Leave the archives in `target_dir`; else they are removed once unpacked.
        dry_run: Only list what would be done.
        endpoint: Address of the hub; None for HF_ENDPOINT, or the public hub.
        token: None for HF_TOKEN, or the one that huggingface_hub was given by a login.
        tries: How often in a row a transfer may break off with less than 1 MiB received.
        wait_s: Pause after the first of these, doubled each time, in seconds.
        say: Told sentences for the user; None prints them.

    Returns:
        `folder`, `repo_id`, `commit`, `missing` (default parts that the hub does not have) and
        `parts`: for each its `file` on the hub, `bytes`, `state` ("fetched", "there", or in a dry
        run "to fetch"), and for archives unpacked now `files` (how many), `left_out` (names of
        members that are none of ours) and `ignored` (how many system files).

    Raises:
        DataError: An unknown part, no access, not enough disk space, content that is not the hub's,
            an archive that is refused, or a file in the way. What is finished stays.
        OSError: The folder cannot be written, or the disk became full.
    """
    say = _print if say is None else say
    # Nobody asked for these by name.
    optional = set(PARTS) - set(README_PARTS) if parts is None else set()
    wanted = chosen_parts(parts)
    folder = Path(target_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected the folder of the data set")
    hub = _hub(repo_id, revision, endpoint, token)
    files, on_hub = _matched(hub, wanted, optional)
    missing = [part for part in wanted if part not in files]
    record = _read_record(folder, say)
    steps = [_step(folder, part, file, record.get(part)) for part, file in files.items()]
    _tell_plan(hub, folder, steps, missing, on_hub, keep_archives, say)

    report: dict[str, Any] = {
        "folder": folder,
        "repo_id": repo_id,
        "commit": next(iter(files.values())).commit,
        "missing": missing,
        "parts": {
            step.part: {
                "file": step.file.name,
                "bytes": step.file.bytes,
                "state": "there" if step.done else "to fetch",
            }
            for step in steps
        },
    }
    todo = [step for step in steps if not step.done]
    if dry_run or not todo:
        say("dry run: nothing was fetched" if todo else f"{folder}: everything is there already")
        return report
    with _only_one(folder):
        for step in todo:
            partial = folder / ".downloads" / f"{step.file.name}.{step.file.hash[:16]}.part"
            source = _fetch(hub, step.file, folder, partial, tries, wait_s, say)
            entry = _placed(step, source, folder, record.get(step.part), report, say)
            record[step.part] = {"repo_id": repo_id, **entry}
            write_json(folder / RECORD, {"parts": record})
            if source == partial and partial.exists():
                if keep_archives:
                    os.replace(partial, folder / step.file.name)
                else:
                    partial.unlink()
        with contextlib.suppress(OSError):  # archives of other parts may wait there
            (folder / ".downloads").rmdir()
    return report


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
    known = {part.lower(): part for part in PARTS} | _OTHER_WORDS
    known |= {name.lower(): part for part, (names, _) in PARTS.items() for name in names}
    words = [word for word in re.split(r"[\s,]+", text) if word]
    unknown = [word for word in words if word.lower() not in known and word.lower() != "all"]
    if unknown or not words:
        raise DataError(
            f"the parts to download are some of {', '.join(PARTS)} or all, not "
            f"{listed(unknown) if words else 'nothing'}"
        )
    named = {known.get(word.lower()) for word in words}
    every = "all" in (word.lower() for word in words)
    return [part for part in PARTS if every or part in named]


@dataclass(frozen=True, kw_only=True)
class _Hub:
    """Where the files are. Without a token huggingface_hub looks for one (HF_TOKEN, a login)."""

    endpoint: str
    repo_id: str
    revision: str
    token: str | None


def _hub(repo_id: str, revision: str, endpoint: str | None, token: str | None) -> _Hub:
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise DataError("downloading needs huggingface_hub: pip install huggingface_hub") from error
    # The library reads HF_ENDPOINT once, at its import; this is read at each call.
    endpoint = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise DataError(
            f"HF_ENDPOINT is {endpoint!r}, expected an address such as https://huggingface.co"
        )
    return _Hub(endpoint=endpoint.rstrip("/"), repo_id=repo_id, revision=revision, token=token)


def _listing(hub: _Hub) -> dict[str, HubFile]:
    """All files of the revision, by name."""
    from huggingface_hub import HfApi, constants

    with _sentences(hub, "the list of files"):
        info = HfApi(endpoint=hub.endpoint, token=hub.token).dataset_info(
            hub.repo_id,
            revision=hub.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
        return {
            entry.rfilename: HubFile(
                name=entry.rfilename,
                bytes=int(entry.lfs.size if entry.lfs else entry.size),
                kind="sha256" if entry.lfs else "git",
                hash=str(entry.lfs.sha256 if entry.lfs else entry.blob_id).lower(),
                commit=str(info.sha),
            )
            for entry in info.siblings or ()
        }


def _append(hub: _Hub, file: HubFile, partial: Path, tell: Callable[[int, int], None]) -> None:
    """Asks for the bytes that `partial` does not have, and appends what comes; the file is begun
    anew where the server sends it from its start.

    Raises:
        HTTPError: Of the library's own client: the line broke, or the server refused.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(
        hub.repo_id,
        file.name,
        repo_type="dataset",
        revision=file.commit,
        endpoint=hub.endpoint,
    )
    # Compressed on the way, a range would not count the file's bytes.
    headers = {**build_hf_headers(token=hub.token), "Accept-Encoding": "identity"}
    have = _size_of(partial)
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        with partial.open("ab" if response.status_code == 206 else "wb") as out:
            for block in response.iter_bytes():
                out.write(block)
                tell(out.tell(), file.bytes)
                if out.tell() > file.bytes:
                    return  # not our file; the comparison with the hub's hash will say so


@contextlib.contextmanager
def _sentences(hub: _Hub, what: str) -> Iterator[None]:
    """Turns the library's errors into sentences."""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DataError(
            f"{what} cannot be fetched: HF_HUB_OFFLINE is set; unset it to download"
        ) from error
    except HTTPError as error:
        raise DataError(f"{what}: {_refusal(hub, error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{what}: {hub.endpoint} does not answer about {hub.repo_id} as a hub does "
            f"({type(error).__name__}: {_line(error)}); check HF_ENDPOINT and the repository's name"
        ) from error


def _refusal(hub: _Hub, error: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import get_token

    page = f"{hub.endpoint}/datasets/{hub.repo_id}"
    sent = "a token was sent" if hub.token or get_token() else "no token was sent"
    status = _status(error)
    if isinstance(error, GatedRepoError):
        return (
            f"access must be granted; ask for it on {page} and set HF_TOKEN to a token of that "
            f"account ({sent})"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{page} has no revision {hub.revision!r}; leave it out for main"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{page} lists the file but does not have it; try again later"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{page} does not exist or is private; check the name, or set HF_TOKEN to a token that "
            f"may read it ({sent})"
        )
    if status in (401, 403):
        return f"{hub.endpoint} refuses access (status {status}); check HF_TOKEN ({sent})"
    if status:
        return f"{hub.endpoint} answers with status {status}; try again later"
    return (
        f"{hub.endpoint} cannot be reached ({type(error).__name__}: {_line(error)}); check the "
        "connection, or set HF_ENDPOINT to a mirror of the hub"
    )


def _matched(
    hub: _Hub, wanted: list[str], optional: set[str]
) -> tuple[dict[str, HubFile], list[str]]:
    """The hub's file of each part, and the names of all its files."""
    on_hub = _listing(hub)
    files = {}
    for part in wanted:
        names = PARTS[part][0]
        found = next((on_hub[name] for name in names if name in on_hub), None)
        if found:
            if not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", found.hash):
                raise DataError(
                    f"{hub.endpoint} gives no hash of {found.name}, so it could not be verified; "
                    "set HF_ENDPOINT to another mirror, or unset it"
                )
            files[part] = found
        elif part not in optional:
            raise DataError(
                f"{hub.repo_id} ({hub.endpoint}, {hub.revision}) has no {' or '.join(names)} for "
                f"{part}; it holds {listed(sorted(on_hub), 20)}"
            )
    return files, sorted(on_hub)


def _step(folder: Path, part: str, file: HubFile, entry: dict[str, Any] | None) -> _Step:
    """What is here of a part.

    Raises:
        DataError: A label file of another origin is in the way.
    """
    wanted = PARTS[part][1]
    partial = min(
        file.bytes,
        max(
            _size_of(folder / ".downloads" / f"{file.name}.{file.hash[:16]}.part"),
            file.bytes if _size_of(folder / file.name) == file.bytes else 0,
        ),
    )
    if wanted:
        done = bool(entry) and entry["hash"] == file.hash
        done = done and all(
            _size_of(folder / part / name) == size for name, size in entry["files"].items()
        )
        return _Step(part=part, file=file, wanted=wanted, partial=partial, done=done)
    path = folder / file.name
    done = file.is_content_of(path)
    # An older version that we wrote ourselves may be replaced, nothing else.
    ours = bool(entry) and path.is_file() and entry["own_hash"] == file_hash(path)
    if os.path.lexists(path) and not done and not ours:
        raise DataError(
            f"{path} is there and is not the hub's; it stays as it is. Move it away, or choose "
            "another folder"
        )
    return _Step(part=part, file=file, wanted=None, partial=0 if ours else partial, done=done)


def _tell_plan(
    hub: _Hub,
    folder: Path,
    steps: list[_Step],
    missing: list[str],
    on_hub: list[str],
    keep_archives: bool,
    say: Callable[[str], None],
) -> None:
    """Says what will be done.

    Raises:
        DataError: The free disk space is less than the need.
    """
    say(f"{hub.repo_id} ({hub.endpoint}, commit {steps[0].file.commit[:12]}) -> {folder}")
    for step in steps:
        if step.done:
            here = "is there"
        elif step.partial:
            here = f"{_amount(step.partial)} here"
        else:
            here = "to fetch"
        say(f"  {step.part:<17} {step.file.name:<22} {_amount(step.file.bytes):>9}  {here}")
    for part in missing:
        say(f"  {part:<17} not on the hub, which holds {listed(on_hub, 20)}")
    need, kept = 0, 0
    for step in steps:
        if step.done:
            continue
        fetch = step.file.bytes - step.partial
        unpacked = int(step.file.bytes * _UNPACKED) if step.wanted else 0
        need = max(need, kept + fetch + unpacked)
        # One part after the other: an archive is gone before the next is fetched.
        stays = fetch if keep_archives or not step.wanted else 0
        kept += unpacked + stays
    if not need:
        return
    there = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free
    say(
        f"disk space: up to {_amount(need)} needed (unpacked files taken as {_UNPACKED} times "
        f"their archive), {_amount(free)} free"
    )
    if need > free:
        raise DataError(
            f"{folder}: about {need} bytes are needed and {free} are free; make room, choose fewer "
            "parts, or a folder on another disk"
        )


def _fetch(
    hub: _Hub,
    file: HubFile,
    folder: Path,
    partial: Path,
    tries: int,
    wait_s: float,
    say: Callable[[str], None],
) -> Path:
    """Where the hub's content is: in `partial`, or in an archive that lay in the folder."""
    lying = folder / file.name
    if file.is_content_of(lying):
        return lying
    if lying.exists():
        say(f"{lying}: not the hub's file; it is fetched")
    for other in partial.parent.glob(f"{file.name}.*.part"):
        if other != partial:
            say(f"{other.name}: removed, part of another version")
            other.unlink()
    for _ in range(2):
        _transfer(hub, file, partial, tries, wait_s, say)
        if file.is_content_of(partial):
            return partial
        found = f"{_size_of(partial)} bytes with {file.kind} {file.hash_of(partial)}"
        partial.unlink()
        say(f"{file.name}: what came is not the hub's file ({found}); removed")
    raise DataError(
        f"{file.name}: {hub.endpoint} sent {found} the second time, too; the hub lists "
        f"{file.bytes} bytes with {file.kind} {file.hash}. A proxy or mirror may be at fault: set "
        "HF_ENDPOINT to another one or unset it, and run the same command again"
    )


def _transfer(
    hub: _Hub,
    file: HubFile,
    partial: Path,
    tries: int,
    wait_s: float,
    say: Callable[[str], None],
) -> None:
    """Fetches until `partial` has all bytes, going on where it ends."""
    from huggingface_hub.errors import HTTPError

    partial.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    while (have := _size_of(partial)) < file.bytes or not partial.exists():
        reason = "the server ended it early"
        with _sentences(hub, file.name):
            try:
                _append(hub, file, partial, _progress(file.name, have, say))
            except HTTPError as error:
                status = _status(error)
                if 400 <= status < 500 and status not in _PASSING_STATUS:
                    raise
                if status == 416:
                    partial.unlink(missing_ok=True)
                reason = f"status {status}" if status else f"{type(error).__name__}: {_line(error)}"
        now = _size_of(partial)
        if now >= file.bytes and partial.exists():
            return
        failed = 0 if now - have >= _WORTHWHILE_BYTES else failed + 1
        at = f"{file.name}: broke off at {now} of {file.bytes} bytes ({reason})"
        if failed >= tries:
            raise DataError(
                f"{at}, {tries} times in a row; check the connection, or set HF_ENDPOINT to "
                "another mirror. The same command goes on from there"
            )
        say(f"{at}; going on" + (f", try {failed + 1} of {tries}" if failed else ""))
        time.sleep(wait_s * 2 ** max(0, failed - 1))


def _placed(
    step: _Step,
    source: Path,
    folder: Path,
    entry: dict[str, Any] | None,
    report: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Puts a verified file where the layout wants it; returns its entry of the record."""
    told = report["parts"][step.part]
    told["state"] = "fetched"
    new = {
        "file": step.file.name,
        "bytes": step.file.bytes,
        "hash": step.file.hash,
        "commit": step.file.commit,
    }
    if step.wanted is None:
        os.replace(source, folder / step.file.name)
        say(f"{step.part}: {folder / step.file.name}")
        return {**new, "own_hash": file_hash(folder / step.file.name)}
    contents = extract(
        source,
        folder / step.part,
        step.wanted,
        # A folder that an earlier download filled may be mended; another's may not.
        replace=entry is not None,
        tell=_progress(f"unpacking {step.file.name}", 0, say),
    )
    told |= {
        "files": len(contents.members),
        "left_out": list(contents.left_out),
        "ignored": contents.ignored,
    }
    more = f", {contents.ignored} system files ignored" if contents.ignored else ""
    if contents.left_out:
        more += f", left out: {listed(contents.left_out)}"
    say(f"{step.part}: {len(contents.members)} files in {folder / step.part}{more}")
    return {**new, "files": contents.sizes}


def _read_record(folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Part -> what was downloaded for it; nothing where the record is missing or damaged, for it
    only saves work.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_bytes())["parts"]
        for part, entry in parts.items():
            if PARTS[part][1]:
                valid = all(isinstance(size, int) for size in entry["files"].values())
            else:
                valid = isinstance(entry["own_hash"], str)
            if not valid or not isinstance(entry["hash"], str):
                raise ValueError(f"the entry {part}")
        return parts
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        say(f"{path}: not a record of downloads ({type(error).__name__}: {error}); written anew")
        return {}


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # comes with huggingface_hub

    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".download.lock", timeout=0).acquire()
    except Timeout as error:
        raise DataError(
            f"{folder}: another download into this folder is running; wait for it"
        ) from error
    with lock:
        yield


def _progress(
    label: str, first: int, say: Callable[[str], None], every_s: float = 10.0
) -> Callable[[int, int], None]:
    """Something to be told the bytes done and all bytes; says now and then when it will end."""
    started = told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > every_s and done > first:
            told = now
            left = (now - started) / (done - first) * (total - done)
            say(f"{label}: {_amount(done)} of {_amount(total)}, {left:.0f} s left")

    return tell


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _amount(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def _status(error: Exception) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0)


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _print(sentence: str) -> None:
    print(sentence, flush=True)
