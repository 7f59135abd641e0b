"""A data set on the Hugging Face hub: the list of its files, and files fetched and verified.

huggingface_hub gives the list, the session (proxies, certificates, offline mode) and the token. The
bytes are written here, for hf_hub_download begins anew after a stop (huggingface_hub#4196) and does
not compare content with the hub's hash (#3643). Everything goes over plain HTTP from HF_ENDPOINT,
so a mirror is never passed by.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,  # of the library's own client, whichever that is
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from lmme3dhf.data.samples import DataError
from lmme3dhf.files import file_hash
from lmme3dhf.progress import EVERY_S

# What the library raises: also for names that are none, and answers that no hub gives.
_ERRORS = (OfflineModeIsEnabled, HTTPError, ValueError, KeyError, TypeError)
# Not the server's last word: timeout, too many requests.
_PASSING_STATUS = (408, 429)
# A try that brought so much is a slow line, not a broken one, and does not count.
_WORTHWHILE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Hub:
    """One data set at one revision (branch, tag or commit)."""

    endpoint: str
    repo_id: str
    revision: str

    @property
    def page(self) -> str:
        """Address of the data set, for people."""
        return f"{self.endpoint}/datasets/{self.repo_id}"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file as the hub lists it.

    Attributes:
        name: Path in the repository.
        bytes: Size.
        hash: Hexadecimal: SHA-256 of the content (64 digits, large files), or SHA-1 of a git blob
            (40 digits).
        commit: The commit it belongs to; the transfer asks for this one.
    """

    name: str
    bytes: int
    hash: str
    commit: str

    def is_content_of(self, path: Path) -> bool:
        """Whether a file on disk is this file."""
        return (
            path.is_file()
            and path.stat().st_size == self.bytes
            and content_hash(path, self.hash) == self.hash
        )


def hub_of(repo_id: str, revision: str) -> Hub:
    """The data set on the hub that HF_ENDPOINT names, or on the public one.

    Raises:
        DataError: HF_ENDPOINT, or a proxy that the environment names, is no address.
    """
    # The library reads it at its import; this is read at each call.
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        address = urlsplit(endpoint)
        good = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:  # the port is no number
        good = False
    if not good:
        raise DataError(
            f"HF_ENDPOINT is {endpoint!r}, expected an address such as https://huggingface.co"
        )
    proxies = getproxies()
    for scheme in proxies.keys() & {"http", "https", "all"}:
        proxy = proxies[scheme]
        try:
            _ = urlsplit(proxy if "://" in proxy else f"//{proxy}").port
        except ValueError as error:
            raise DataError(
                f"{scheme}_proxy is {proxy!r}, expected an address such as http://proxy:8080 "
                f"({error}); correct the variable or unset it"
            ) from error
    return Hub(endpoint=endpoint.rstrip("/"), repo_id=repo_id, revision=revision)


def listing(hub: Hub) -> dict[str, HubFile]:
    """All files of the data set, by name.

    Raises:
        DataError: The hub cannot be reached, refuses, or is none.
    """
    try:
        info = HfApi(endpoint=hub.endpoint).dataset_info(
            hub.repo_id,
            revision=hub.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
        return {
            entry.rfilename: HubFile(
                name=entry.rfilename,
                bytes=int(entry.lfs.size if entry.lfs else entry.size),
                hash=str(entry.lfs.sha256 if entry.lfs else entry.blob_id).lower(),
                commit=str(info.sha),
            )
            for entry in info.siblings or ()
        }
    except _ERRORS as error:
        raise _refusal(hub, "the list of files", error) from error


def fetch(hub: Hub, file: HubFile, path: Path, *, tries: int, wait_s: float) -> None:
    """Fetches a file, going on where `path` ends, and compares it with the hub's hash; other
    content is removed and fetched a second time.

    Args:
        hub: Where from.
        file: What.
        path: Where to; what came stays there when the line breaks for good.
        tries: How often in a row the transfer may break off with less than 1 MiB received.
        wait_s: Pause after the first of these, doubled each time, in seconds.

    Raises:
        DataError: No access, a line that breaks too often, or twice other content.
    """
    for _ in range(2):
        _transfer(hub, file, path, tries, wait_s)
        size, found = path.stat().st_size, content_hash(path, file.hash)
        if (size, found) == (file.bytes, file.hash):
            return
        path.unlink()
        came = f"{size} bytes with the hash {found}"
        print(f"{file.name}: what came is not the hub's file ({came}); removed", flush=True)
    raise DataError(
        f"{file.name}: {hub.endpoint} sent {came} the second time, too; the hub lists {file.bytes} "
        f"bytes with {file.hash}. A proxy or mirror may be at fault: set HF_ENDPOINT to another "
        "one or unset it, and run the same command again"
    )


def content_hash(path: Path, like: str) -> str:
    """The hash of a file on disk, of the same kind as another (see `HubFile`)."""
    if len(like) == 64:
        return file_hash(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def amount(size: int) -> str:
    """Bytes for people: "1.2 GB"."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def _transfer(hub: Hub, file: HubFile, path: Path, tries: int, wait_s: float) -> None:
    """Fetches until `path` has all bytes."""
    path.touch()
    failed = 0
    while (have := path.stat().st_size) < file.bytes:
        try:
            _append(hub, file, path)
            reason = "the server ended it early"
        except _ERRORS as error:
            status = _status(error)
            final = 400 <= status < 500 and status not in _PASSING_STATUS
            if final or not isinstance(error, HTTPError):
                raise _refusal(hub, file.name, error) from error
            reason = f"status {status}" if status else _line(error)
        now = path.stat().st_size
        if now >= file.bytes:
            return
        failed = 0 if now - have >= _WORTHWHILE_BYTES else failed + 1
        at = f"{file.name}: broke off at {now} of {file.bytes} bytes ({reason})"
        if failed >= tries:
            raise DataError(
                f"{at}, {tries} times in a row; check the connection, or set HF_ENDPOINT to "
                "another mirror. The same command goes on from there"
            )
        print(f"{at}; going on" + (f", try {failed + 1} of {tries}" if failed else ""), flush=True)
        time.sleep(wait_s * 2 ** max(0, failed - 1))


def _append(hub: Hub, file: HubFile, path: Path) -> None:
    """Asks for the bytes that `path` does not have, and appends what comes; begins anew where the
    server sends the file from its start. Tells now and then when it will end.
    """
    url = hf_hub_url(
        hub.repo_id,
        file.name,
        repo_type="dataset",
        revision=file.commit,
        endpoint=hub.endpoint,
    )
    first = path.stat().st_size
    # Compressed on the way, a range would not count the file's bytes.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if first:
        headers["Range"] = f"bytes={first}-"
    started = told = time.monotonic()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:
            first = 0
        with path.open("ab" if first else "wb") as out:
            for block in response.iter_bytes():
                out.write(block)
                done, now = out.tell(), time.monotonic()
                if done > file.bytes:
                    return  # not our file; its hash will say so
                if now - told > EVERY_S:
                    told = now
                    left = (now - started) / (done - first) * (file.bytes - done)
                    of = f"{amount(done)} of {amount(file.bytes)}"
                    print(f"{file.name}: {of}, {left:.0f} s left", flush=True)


def _refusal(hub: Hub, what: str, error: Exception) -> DataError:
    """One of the library's errors as a sentence with a way on."""
    token = "a token was sent" if "authorization" in build_hf_headers() else "no token was sent"
    status = _status(error)
    match error:
        case OfflineModeIsEnabled():
            why = "cannot be fetched, HF_HUB_OFFLINE is set; unset it to download"
        case GatedRepoError():
            why = (
                f"access must be granted; ask for it on {hub.page} and set HF_TOKEN to a token of "
                f"that account ({token})"
            )
        case RevisionNotFoundError():
            why = f"{hub.page} has no revision {hub.revision!r}; leave it out for main"
        case RemoteEntryNotFoundError():
            why = f"{hub.page} lists the file but does not have it; try again later"
        case RepositoryNotFoundError():
            why = (
                f"{hub.page} does not exist or is private; check the name, or set HF_TOKEN to a "
                f"token that may read it ({token})"
            )
        case HTTPError() if status in (401, 403):
            why = f"{hub.endpoint} refuses access (status {status}); check HF_TOKEN ({token})"
        case HTTPError() if status and status != 404:
            why = f"{hub.endpoint} answers with status {status}; try again later"
        case HTTPError() if not status:
            why = (
                f"{hub.endpoint} cannot be reached ({_line(error)}); check the connection, or set "
                "HF_ENDPOINT to a mirror of the hub"
            )
        case _:
            why = (
                f"{hub.endpoint} does not answer about {hub.repo_id} as a hub does "
                f"({_line(error)}); check HF_ENDPOINT and the repository's name"
            )
    return DataError(f"{what}: {why}")


def _status(error: Exception) -> int:
    """Of the server's answer; 0 without one."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _line(error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}"
