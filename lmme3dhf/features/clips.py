"""Keys of clips: the hash of a file's bytes, remembered while the file stays as it is."""

from collections.abc import Iterable
from pathlib import Path

from lmme3dhf.distributed import all_gather, is_main, share
from lmme3dhf.files import Hashes


class ClipKeys:
    """SHA-256 of clips' bytes (see `files.Hashes`)."""

    def __init__(self) -> None:
        self._hashes = Hashes()

    def key(self, clip: Path) -> str:
        """The clip's key."""
        return self._hashes.of([clip])[clip]

    def learn(self, clips: Iterable[Path], workers: int) -> None:
        """Hashes what is not known yet, in threads and shared among the ranks, and keeps it."""
        # What one rank remembers another may not: the main rank's list is everybody's.
        unknown = all_gather([clip for clip in clips if self._hashes.recall(clip) is None])[0]
        if not unknown:
            return
        for part in all_gather(self._hashes.read(share(unknown), workers)):
            self._hashes.add(part, keep=is_main())
