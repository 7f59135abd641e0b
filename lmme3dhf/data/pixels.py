"""Pictures of a clip -> patches for the vision tower, by the model's own processor."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import BaseVideoProcessor

from lmme3dhf.data.video import Clip, FrameChoice, VideoError, read_clip, read_views
from lmme3dhf.vocabulary import VIEWS


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """A decoded clip, ready for the vision tower.

    Attributes:
        values: (patches, 1176).
        grid_thw: Temporal patches, patch rows, patch columns.
        second_per_grid: Seconds between temporal patches.
        decoder: Name of the decoder.
        size: Width and height of the clip's own frames, pixels.
        tokens: Visual tokens after the 2x2 merge.
    """

    values: torch.Tensor
    grid_thw: tuple[int, int, int]
    second_per_grid: float
    decoder: str
    size: tuple[int, int]
    tokens: int


def clip_pixels(
    frames: torch.Tensor, processor: BaseVideoProcessor
) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Normalises and cuts frames into patches; they have their size already (`data.video`).

    Args:
        frames: (T, 3, H, W) uint8, T even, sides multiples of 28.
        processor: The model's video processor.

    Returns:
        (patches, 1176) float32, and the grid: temporal patches, patch rows, patch columns.
    """
    out = processor(videos=[frames], do_resize=False, do_sample_frames=False, return_tensors="pt")
    return out["pixel_values_videos"], tuple(out["video_grid_thw"][0].tolist())


def view_pixels(
    clip: Clip, processor: BaseVideoProcessor
) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Patches of single views: each picture fills a temporal patch of its own, as a still image
    does in Qwen2.5-VL.
    """
    return clip_pixels(clip.frames.repeat_interleave(processor.temporal_patch_size, 0), processor)


def read_pixels(
    path: Path, choice: FrameChoice, processor: BaseVideoProcessor, *, views: bool
) -> Pixels:
    """Reads a clip's frames, or its three views, as patches.

    Raises:
        VideoError: See `data.video`.
    """
    if views:
        clip = read_views(path, tuple(view.clip_fraction for view in VIEWS), choice)
        values, grid = view_pixels(clip, processor)
        # The views are a second of the turn apart in a Gen3DHF clip, and a second is what stills
        # are given elsewhere too.
        seconds = 1.0
    else:
        clip = read_clip(path, choice)
        values, grid = clip_pixels(clip.frames, processor)
        seconds = processor.temporal_patch_size / clip.sample_fps
    return Pixels(
        values=values,
        grid_thw=grid,
        second_per_grid=seconds,
        decoder=clip.decoder,
        size=(clip.width, clip.height),
        tokens=grid[0] * grid[1] * grid[2] // processor.merge_size**2,
    )


class PixelLoader(Dataset):
    """Clips as `Pixels` or, for a clip that cannot be read, its `VideoError`; for parallel
    decoding.

    Args:
        paths: The clips.
        choice: How they become frames.
        processor: The model's video processor.
        views: Whether to read the three views instead of the frames.
    """

    def __init__(
        self, paths: list[Path], choice: FrameChoice, processor: BaseVideoProcessor, *, views: bool
    ) -> None:
        self.paths, self.choice, self.processor, self.views = paths, choice, processor, views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels | VideoError:
        try:
            return read_pixels(self.paths[index], self.choice, self.processor, views=self.views)
        except VideoError as error:
            return error


def decoded(loader: PixelLoader, workers: int) -> Iterator[Pixels | VideoError]:
    """Reads the clips in order, in `workers` processes ahead of the caller (0: in this one)."""
    yield from DataLoader(
        loader, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
    )
