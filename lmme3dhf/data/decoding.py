"""Many clips, decoded ahead of whoever computes with them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from lmme3dhf.data.video import Clip, FrameChoice, VideoError, read_both, read_clip, read_views
from lmme3dhf.vocabulary import VIEWS

# Clips that a worker may be ahead; so many wait in memory for each.
AHEAD = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """What was asked for of one clip, from one pass through it.

    Attributes:
        frames: The pictures that the model sees.
        views: The three views.
    """

    frames: Clip | None = None
    views: Clip | None = None


class ClipLoader(Dataset):
    """Clips as `Clips` or, for one that cannot be read, its `VideoError`.

    Args:
        paths: The clips.
        choice: Which pictures of them, and at which size.
        frames: Whether to read the pictures that the model sees.
        views: Whether to read the three views.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        choice: FrameChoice,
        *,
        frames: bool = True,
        views: bool = False,
    ) -> None:
        assert frames or views
        self.paths, self.choice, self.frames, self.views = paths, choice, frames, views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Clips | VideoError:
        path = self.paths[index]
        fractions = [view.clip_fraction for view in VIEWS]
        try:
            if self.frames and self.views:
                frames, views = read_both(path, fractions, self.choice)
                return Clips(frames=frames, views=views)
            if self.views:
                return Clips(views=read_views(path, fractions, self.choice))
            return Clips(frames=read_clip(path, self.choice))
        except VideoError as error:
            return error


def decoded(loader: ClipLoader, workers: int) -> Iterator[Clips | VideoError]:
    """Reads clips in order, in `workers` processes of one thread each, ahead of the caller (0: in
    this process, each when it is asked for). At most `workers * AHEAD` clips wait in memory; a
    caller that stops early ends the processes.
    """
    workers = min(workers, len(loader))
    if not workers:
        yield from map(loader.__getitem__, range(len(loader)))
        return
    loaded = DataLoader(
        loader,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=partial(_with_frames, torch.Tensor.numpy),
    )
    # Tensors would come through shared memory, which is small in containers (64 MB by Docker's
    # default), and hold a file descriptor each; arrays come through the worker's pipe.
    yield from map(partial(_with_frames, torch.from_numpy), loaded)


def _with_frames(convert: Callable, clips: Clips | VideoError) -> Clips | VideoError:
    """The same with tensors as arrays, or arrays as tensors."""
    if isinstance(clips, VideoError):
        return clips
    read = {"frames": clips.frames, "views": clips.views}
    return Clips(
        **{name: replace(clip, frames=convert(clip.frames)) for name, clip in read.items() if clip}
    )
