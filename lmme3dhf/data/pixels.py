"""Pictures of a clip -> patches for the vision tower, as the model's own processor makes them.

All steps are torch's and keep the graph: frames that are in memory as floats give the patches of a
file with a gradient to their pixels.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BaseVideoProcessor

from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import ClipReader
from lmme3dhf.data.video import Clip, FrameChoice


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """A decoded clip, ready for the vision tower.

    Attributes:
        values: (patches, 1176).
        grid_thw: Temporal patches, patch rows, patch columns.
        second_per_grid: Seconds between temporal patches; 0 for a still image.
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
    """Normalises and cuts frames into patches, on the frames' device; they have their size already
    (`data.video`).

    Args:
        frames: (T, 3, H, W), T even, sides multiples of 28; uint8, or floats on the same scale.
        processor: The model's video processor.

    Returns:
        (patches, 1176) float32 (float64 for frames in float64), and the grid: temporal patches,
        patch rows, patch columns.
    """
    floats = frames.to(torch.promote_types(frames.dtype, torch.float32))
    # As the processor does it: in units of the 8-bit scale, and without the tables it keeps, which
    # know no gradient where they were made under inference_mode.
    mean, std = (
        (floats.new_tensor(values) * (1.0 / processor.rescale_factor)).view(3, 1, 1)
        for values in (processor.image_mean, processor.image_std)
    )
    patches, *grid = processor.patchify(
        ((floats - mean) / std)[None],
        patch_size=processor.patch_size,
        merge_size=processor.merge_size,
        temporal_patch_size=processor.temporal_patch_size,
    )
    return patches[0], tuple(grid)


def frame_pixels(clip: Clip, processor: BaseVideoProcessor) -> Pixels:
    """Patches of the pictures that the model sees, as `data.video.read_clip` gives them."""
    values, grid = clip_pixels(clip.frames, processor)
    seconds = processor.temporal_patch_size / clip.sample_fps
    return _pixels(clip, values, grid, seconds, processor)


def view_pixels(clip: Clip, processor: BaseVideoProcessor) -> Pixels:
    """Patches of single views, as `data.video.read_views` gives them: each picture fills a temporal
    patch of its own, as a still image does in Qwen2.5-VL.
    """
    twice = clip.frames.repeat_interleave(processor.temporal_patch_size, 0)
    values, grid = clip_pixels(twice, processor)
    # The views are a second of the turn apart in a Gen3DHF clip, and a second is what stills are
    # given elsewhere too.
    return _pixels(clip, values, grid, 1.0, processor)


def _pixels(
    clip: Clip,
    values: torch.Tensor,
    grid: tuple[int, int, int],
    seconds: float,
    processor: BaseVideoProcessor,
) -> Pixels:
    return Pixels(
        values=values,
        grid_thw=grid,
        second_per_grid=seconds,
        decoder=clip.decoder,
        size=(clip.width, clip.height),
        tokens=math.prod(grid) // processor.merge_size**2,
    )


def read_pixels(
    path: Path, choice: FrameChoice, processor: BaseVideoProcessor, *, views: bool
) -> Pixels:
    """Reads a clip's frames, or its three views, as patches. For both, and for many clips, see
    `data.decoding`.

    Raises:
        VideoError: See `data.video`.
    """
    read = ClipReader(choice=choice, frames=not views, views=views, strips=False)(path)
    if isinstance(read, VideoError):
        raise read
    return view_pixels(read.views, processor) if views else frame_pixels(read.frames, processor)
