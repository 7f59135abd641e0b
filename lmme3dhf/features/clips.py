"""Keys of clips: the hash of a file's bytes, remembered while path, size and time stay."""

import hashlib
import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lmme3dhf.distributed import all_gather, is_main, share
from lmme3dhf.files import file_hash, write_json

HASHES = "clips.json"
# A file may change twice within the resolution of its time; the hash of a file as young as that is
# not kept between runs.
_SETTLED_NS = 2 * 10**9


class _Known(NamedTuple):
    size: int
    time_ns: int
    key: str


class ClipKeys:
    """SHA-256 of clips' bytes.

    Args:
        folder: Where what is known is kept between runs (`HASHES`); no path is written there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HASHES
        self._known: dict[str, _Known] = {}
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {name: _Known(*known) for name, known in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # absent or damaged: it only saves time

    def key(self, clip: Path) -> str:
        """The clip's key."""
        if (key := self._recall(clip)) is None:
            name, known = _hashed(clip)
            self._known[name] = known
            key = known.key
        return key

    def learn(self, clips: Iterable[Path], workers: int) -> None:
        """Hashes what is not known yet, in threads and shared among the ranks, and keeps it."""
        # What one rank remembers another may not: the main rank's list is everybody's.
        unknown = all_gather([clip for clip in clips if self._recall(clip) is None])[0]
        if not unknown:
            return
        now = time.time_ns()
        with ThreadPoolExecutor(max(1, workers)) as pool:
            found = dict(pool.map(_hashed, share(unknown)))
        for part in all_gather(found):
            self._known |= part
        if is_main():
            settled = {n: k for n, k in self._known.items() if k.time_ns < now - _SETTLED_NS}
            write_json(self._path, settled)

    def _recall(self, clip: Path) -> str | None:
        known = self._known.get(_name(clip))
        stat = clip.stat()
        same = known is not None and (known.size, known.time_ns) == (stat.st_size, stat.st_mtime_ns)
        return known.key if same else None


def _name(clip: Path) -> str:
    return hashlib.sha256(str(clip.resolve()).encode()).hexdigest()[:32]


def _hashed(clip: Path) -> tuple[str, _Known]:
    # First the state, then the bytes: of a file that changes meanwhile the state is not seen again.
    stat = clip.stat()
    return _name(clip), _Known(stat.st_size, stat.st_mtime_ns, file_hash(clip))
