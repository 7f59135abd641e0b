"""One store: a folder of shards under one recipe, with what is there, reading, filling and
verifying.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmme3dhf.data.container import VideoError
from lmme3dhf.data.samples import DataError
from lmme3dhf.distributed import all_gather, is_main, share, world_size
from lmme3dhf.errors import UserError
from lmme3dhf.features.clips import ClipKeys
from lmme3dhf.features.shards import (
    SUFFIX,
    DamageError,
    Shard,
    ShardWriter,
    Tensors,
    put_aside,
    size_of,
)
from lmme3dhf.files import file_state, write_json
from lmme3dhf.progress import with_progress

RECIPE, LOCK = "recipe.json", ".lock"

Load = Callable[[list[Path]], Iterable[Any]]
Compute = Callable[[Any], Tensors]


class StoreError(UserError, RuntimeError):
    """A store that cannot be read or filled; the message says why and how to go on."""


class FeatureStore:
    """Features of clips on disk.

    Args:
        root: Folder of all stores; this one is a folder below it.
        kind: What the features are ("tokens"), the beginning of the folder's name.
        recipe: Everything beside the clip that the features depend on; JSON types.

    Attributes:
        folder: Where the shards are.
    """

    def __init__(self, root: Path, kind: str, recipe: dict[str, Any]) -> None:
        # As it comes back from the file: tuples are lists there.
        self.recipe = json.loads(json.dumps({"kind": kind} | recipe))
        plain = json.dumps(self.recipe, sort_keys=True)
        self.folder = root / f"{kind}-{hashlib.sha256(plain.encode()).hexdigest()[:16]}"
        self._keys = ClipKeys()
        self._shards: dict[Path, Shard] = {}
        self._where: dict[str, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Maps of files do not travel to other processes; they are opened there again.
        return self.__dict__ | {"_shards": {}, "_where": {}}

    def __contains__(self, clip: Path) -> bool:
        return self._find(self._keys.key(clip)) is not None

    def read(self, clip: Path) -> Tensors:
        """All tensors of a clip, as views of the mapped shard: nothing is copied before it is used.

        Raises:
            StoreError: The clip is not here, or its shard is damaged (it is then put aside).
        """
        key = self._keys.key(clip)
        shard = self._find(key)
        if shard is None:
            raise StoreError(
                f"{self.folder}: no features of {clip}; run the stage (or lmme3dhf data features) "
                "again, it computes what is missing"
            )
        try:
            return shard.read(key)
        except DamageError as error:
            raise StoreError(
                f"{error}; put aside as {put_aside(shard.path).name}. Run the same command again: "
                "its clips are computed again"
            ) from error

    def missing(self, clips: Iterable[Path]) -> list[Path]:
        """The clips without features, each file's content once."""
        self._look()
        keys = {self._keys.key(clip): clip for clip in reversed(list(clips))}
        return [clip for key, clip in reversed(keys.items()) if key not in self._where]

    def fill(
        self,
        clips: Iterable[Path],
        load: Load,
        compute: Callable[[], Compute],
        *,
        workers: int,
        name: str,
    ) -> None:
        """Computes what is not there yet, shared among the ranks.

        A kill loses what is not yet in a shard. Two jobs that fill the same store do so one after
        the other, and the second finds what the first has computed.

        Args:
            clips: The clips; named twice, computed once.
            load: From clips to what `compute` takes of each, in their order, or to the
                `VideoError` of a clip that cannot be read.
            compute: Called once and only when a clip is missing: loads what is needed and gives the
                function from a loaded clip to its tensors, on the CPU.
            workers: Threads that hash clips.
            name: For progress lines.

        Raises:
            DataError: Some clips cannot be read; all of them are named, with reasons. Nothing is
                trained on the rest by accident.
            StoreError: The features need more space than is free; told before anything is written.
        """
        clips = list(dict.fromkeys(clips))
        absent = [clip for clip in clips if not clip.is_file()]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(clips)} clips are missing, the first is {absent[0]}; "
                "check data.video_root"
            )
        self._keys.learn(clips, workers)
        if not self._missing_everywhere(clips):
            return
        with self._alone(name):
            missing = self._missing_everywhere(clips)
            broken = self._fill(missing, load, compute, name) if missing else []
            broken = [line for part in all_gather(broken) for line in part]
        self._look()
        if broken:
            listed = "\n  ".join(sorted(broken))
            raise DataError(
                f"{len(broken)} of {len(clips)} clips cannot be read; replace them or take them "
                f"off the lists:\n  {listed}"
            )

    def verify(self) -> int:
        """Compares every tensor with its checksum, shared among the ranks; damaged shards are named
        on standard error and put aside, and the next `fill` computes their clips again.

        Returns:
            Number of shards put aside.
        """
        paths = share(all_gather(sorted(self.folder.glob(f"*{SUFFIX}")))[0])
        what = f"{self.folder.name}: shards verified"
        damaged = 0
        for path in with_progress(paths, what, len(paths)):
            try:
                # Opened anew: what this process has found whole before proves nothing now.
                fresh = Shard(path)
                for key in fresh.names:
                    fresh.read(key)
            except DamageError as error:
                damaged += 1
                print(f"{error}; put aside as {put_aside(path).name}", file=sys.stderr)
            except FileNotFoundError:
                continue  # another process has put it aside
        damaged = sum(all_gather(damaged))
        self._look()
        return damaged

    def _fill(
        self,
        missing: list[Path],
        load: Load,
        compute: Callable[[], Compute],
        name: str,
    ) -> list[str]:
        """Computes this rank's share; returns a line for each clip that cannot be read."""
        mine = list(share(missing))
        # Before the first is read: features belong to the bytes that were decoded.
        keys = [self._keys.key(clip) for clip in mine]
        broken: list[str] = []
        is_told = False
        features = compute() if mine else None
        loaded: Iterable[Any] = zip(mine, load(mine), strict=True)
        if is_main():
            ranks = world_size()
            what = f"{name}: clips" if ranks == 1 else f"{name}: clips of 1 of {ranks} processes"
            loaded = with_progress(loaded, what, len(mine))
        with ShardWriter(self.folder) as writer:
            for key, (clip, content) in zip(keys, loaded, strict=True):
                state = file_state(clip)
                if state is None or state.content != key:
                    broken.append(f"{clip} (changed): it changed while it was read")
                    continue
                if isinstance(content, VideoError):
                    broken.append(f"{clip} ({content.reason}): {content}")
                    continue
                tensors = features(content)
                if not is_told:
                    self._tell_need(len(missing), len(mine) * size_of(tensors), name)
                    is_told = True
                writer.add(key, tensors)
        if not is_told:
            self._tell_need(len(missing), 0, name)
        return broken

    def _tell_need(self, clips: int, need: int, name: str) -> None:
        """Tells the size of what is to come, or refuses it; all ranks come here once."""
        gathered = all_gather((need, shutil.disk_usage(self.folder).free))
        # From the same figures all ranks decide alike; else some would wait for the others.
        need, free = sum(part[0] for part in gathered), min(part[1] for part in gathered)
        if need > free:
            raise StoreError(
                f"{self.folder}: the features of {clips} clips need {_told(need)} and "
                f"{_told(free)} are free; free some space, name another folder with "
                "--data.features, or compute them in each step with --data.store false"
            )
        if is_main():
            print(f"{name}: {clips} clips, about {_told(need)} in {self.folder}", flush=True)

    def _missing_everywhere(self, clips: list[Path]) -> list[Path]:
        """What is missing by the main rank's view, on every rank."""
        return all_gather(self.missing(clips))[0]

    def _look(self) -> None:
        """Takes up shards that were not there before; forgets those that are gone."""
        paths = set(self.folder.glob(f"*{SUFFIX}"))
        for path in paths - set(self._shards):
            try:
                self._shards[path] = Shard(path)
            except DamageError as error:
                print(f"{error}; put aside as {put_aside(path).name}", file=sys.stderr)
            except FileNotFoundError:
                continue  # another process has put it aside
        for path in set(self._shards) - paths:
            del self._shards[path]
        self._where = {k: shard for _, shard in sorted(self._shards.items()) for k in shard.names}

    def _find(self, key: str) -> Shard | None:
        if key not in self._where:
            self._look()
        return self._where.get(key)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Opens the folder for writing, for one job at a time; the main rank holds the lock."""
        lock = FileLock(self.folder / LOCK)
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"{name}: waiting for another job that fills {self.folder}", flush=True)
                lock.acquire()
        try:
            if is_main():
                write_json(self.folder / RECIPE, self.recipe)
                for left in self.folder.glob(".*.tmp"):
                    left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()


def _told(size: int) -> str:
    """A size in the unit that gives it digits before the point."""
    unit, name = next((u for u in ((10**9, "GB"), (10**6, "MB")) if size >= u[0]), (10**3, "kB"))
    return f"{size / unit:,.1f} {name}"
