"""Many clips, decoded ahead of whoever computes with them, where a hostile file can do no harm."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lmme3dhf.data.container import VideoError
from lmme3dhf.data.pictures import image_clips, strip_clips
from lmme3dhf.data.processes import MEMORY_MB, TIMEOUT_S, Answer, Done, answers
from lmme3dhf.data.sources import three_views
from lmme3dhf.data.video import Clip, Clips, FrameChoice, read_both, read_clip, read_views
from lmme3dhf.distributed import cores


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """Reads one clip, as `Clips` or, where it cannot be read, its `VideoError`.

    Attributes:
        choice: Which pictures, and at which size.
        frames: Whether to read the pictures that the model sees.
        views: Whether to read the three views.
        strips: Whether a still picture of the three views side by side is a clip too; of no
            meaning where the choice takes images, which have no views.
        at: Where the views are taken, as fractions of the clip.
    """

    choice: FrameChoice
    frames: bool = True
    views: bool = False
    strips: bool = True
    at: tuple[float, ...] = three_views(None)

    def __post_init__(self) -> None:
        assert self.frames or self.views

    def __call__(self, path: Path) -> Clips | VideoError:
        """Reads the clip."""
        try:
            return self._read(path).with_turn_notes(self.at)
        except VideoError as error:
            if error.reason != "still_image" or not (self.strips or self.choice.images):
                return error
            refused = error
        if self.choice.images and not self.frames:
            return refused
        try:
            if self.choice.images:
                return image_clips(path, self.choice)
            return strip_clips(path, self.choice, frames=self.frames, views=self.views)
        except VideoError as error:
            return error

    def _read(self, path: Path) -> Clips:
        if self.frames and self.views:
            frames, views = read_both(path, self.at, self.choice)
            return Clips(frames=frames, views=views)
        if self.views:
            return Clips(views=read_views(path, self.at, self.choice))
        return Clips(frames=read_clip(path, self.choice))


Read = Callable[[Path], Clips | VideoError]
# With more processes the decoded clips only wait for the model.
MOST_WORKERS = 16


def worker_count(workers: int | None) -> int:
    """Processes that decode: as many as given, or with None one a core, at most `MOST_WORKERS`."""
    return min(cores(), MOST_WORKERS) if workers is None else workers


def decoded(
    clips: Iterable[Path | Clips | VideoError],
    read: Read,
    workers: int,
    *,
    timeout_s: float = TIMEOUT_S,
    memory_mb: float = MEMORY_MB,
) -> Iterator[Clips | VideoError]:
    """Reads clips in order, in `workers` processes of one thread each, ahead of the caller.

    A process that is not done in time, takes too much memory or crashes is ended and replaced, and
    its file is a `VideoError`. At most `workers * processes.AHEAD` clips wait in memory; a caller
    that stops early ends the processes.

    Args:
        clips: Files; any number of them, taken one by one as they are needed, in this process. What
            is read already is passed on in its turn.
        read: From a path to what was read; picklable.
        workers: Processes. 0 reads in this one, each clip when it is asked for, and nothing stops
            one that hangs.
        timeout_s: As of `processes.answers`.
        memory_mb: What reading may take, in 10**6 bytes; on Linux only.
    """
    if not workers:
        yield from (read(clip) if isinstance(clip, Path) else clip for clip in clips)
        return
    taken: deque[Path | Clips | VideoError] = deque()

    def files() -> Iterator[Path | Done]:
        for clip in clips:
            taken.append(clip)
            yield clip if isinstance(clip, Path) else Done(clip)

    # The arrays of several clips would not fit the shared memory of a container (64 MB by Docker's
    # default), which tensors take; arrays go through the pipe.
    results = answers(
        partial(_as_arrays, read),
        files(),
        workers,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        prepare=_use_one_thread,
    )
    with closing(results):
        for result in results:
            was_read = isinstance(taken.popleft(), Path) and not isinstance(result, VideoError)
            yield _as_tensors(*result) if was_read else result


def _as_arrays(read: Read, path: Path) -> Answer:
    try:
        clips = read(path)
    except RuntimeError as error:
        # Torch has no type for it.
        if "can't allocate memory" in str(error):
            raise MemoryError from error
        raise
    if isinstance(clips, VideoError):
        return clips, []
    read_clips = {name: clip for name, clip in vars(clips).items() if clip is not None}
    arrays = [clip.frames.numpy() for clip in read_clips.values()]
    return {name: replace(clip, frames=None) for name, clip in read_clips.items()}, arrays


def _as_tensors(
    value: dict[str, Clip] | VideoError, arrays: list[np.ndarray]
) -> Clips | VideoError:
    if isinstance(value, VideoError):
        return value
    frames = map(torch.from_numpy, arrays)
    return Clips(**{name: replace(clip, frames=next(frames)) for name, clip in value.items()})


def _use_one_thread() -> None:
    torch.set_num_threads(1)
