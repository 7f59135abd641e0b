"""Pictures that are decoded already, in memory or in a strip -> the clips that `data.video` reads
from files: the same choice of pictures, resized in the same way.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lmme3dhf.data import strips
from lmme3dhf.data.container import VideoError, check_length, check_sides, view_indices
from lmme3dhf.data.sources import three_views
from lmme3dhf.data.video import Clip, Clips, FrameChoice, resized
from lmme3dhf.vocabulary import VIEWS

MEMORY = "memory"  # the decoder of what was never decoded here
CLIP_S = 4.0  # how long the clips of Gen3DHF are (its dataset card)
# Of a strip the model sees each view twice, in a temporal patch of its own, for a second: as the
# saliency decoder sees the views of a clip (`data.pixels.view_pixels`).
_TIMES = 2


def clips_in_memory(
    clip: Any,
    choice: FrameChoice,
    fps: float | None,
    *,
    frames: bool,
    views: bool,
    name: str,
    at: Sequence[float] = three_views(None),
) -> Clips:
    """What `data.decoding` gives of a file, of pictures in memory.

    Args:
        clip: See `pictures_of`.
        choice: Which pictures the model sees, and at which size.
        fps: Of a clip, see `rate_of`; a strip has none.
        frames: Whether the pictures that the model sees are wanted.
        views: Whether the three views are wanted.
        name: Of the clip, for messages.
        at: Where the views are taken, as fractions of the clip; a strip has its own.

    Raises:
        VideoError: See `pictures_of` and `clip_of_frames`.
        ValueError: See `rate_of`.
    """
    notes: tuple[str, ...] = ()
    if isinstance(clip, Image.Image):
        clip, notes = strips.image_rgb(clip, name)
    pictures = pictures_of(clip, name)
    if pictures.ndim == 3 and choice.images:
        return _image_clips(pictures, choice, MEMORY, notes, name)
    if pictures.ndim == 3:
        try:
            three = torch.from_numpy(strips.views_of_strip(pictures.numpy(), name))
        except VideoError as error:
            if error.reason != "still_image":
                raise
            hint = "stack the pictures of a clip to one array (T, H, W, 3)"
            raise VideoError("still_image", f"{error}; {hint}") from error
        return _strip_clips(three, choice, MEMORY, notes, frames=frames, views=views)
    return Clips(
        frames=clip_of_frames(pictures, choice, fps, name=name) if frames else None,
        views=views_of_frames(pictures, choice, at, name=name) if views else None,
    ).with_turn_notes(at)


def strip_clips(path: Path, choice: FrameChoice, *, frames: bool, views: bool) -> Clips:
    """What `data.decoding` gives of a clip, of the file of a strip.

    Raises:
        VideoError: See `data.strips.read_views`.
    """
    three, notes = strips.read_views(path)
    return _strip_clips(
        torch.from_numpy(three), choice, strips.DECODER, notes, frames=frames, views=views
    )


def image_clips(path: Path, choice: FrameChoice) -> Clips:
    """What `data.decoding` gives of a clip, of the file of a still image.

    Raises:
        VideoError: See `data.strips.read_image`; too_small or too_large.
    """
    image_HW3, notes = strips.read_image(path)
    return _image_clips(torch.from_numpy(image_HW3), choice, strips.DECODER, notes, str(path))


def _image_clips(
    image_HW3: torch.Tensor,
    choice: FrameChoice,
    decoder: str,
    notes: tuple[str, ...],
    name: str,
) -> Clips:
    """A still image, twice, between which no time passes."""
    height, width, _ = image_HW3.shape
    check_sides(name, width, height)
    return Clips(frames=_clip(image_HW3[None], [0, 0], choice, math.inf, decoder, notes))


def _strip_clips(
    views_3HW3: torch.Tensor,
    choice: FrameChoice,
    decoder: str,
    notes: tuple[str, ...],
    *,
    frames: bool,
    views: bool,
) -> Clips:
    """The views as a clip of three seconds, in which each is seen for one; and as views."""
    seen = [i for i in range(len(VIEWS)) for _ in range(_TIMES)]
    each = list(range(len(VIEWS)))
    return Clips(
        frames=_clip(views_3HW3, seen, choice, 1.0, decoder, notes) if frames else None,
        views=_clip(views_3HW3, each, choice, 1.0, decoder, notes) if views else None,
    )


def pictures_of(clip: Any, name: str) -> torch.Tensor:
    """Pictures in memory as uint8 RGB on the CPU, of the same shape.

    Args:
        clip: (T, H, W, 3), a clip from its first to its last picture, or (H, 3W, 3), a strip; an
            array, a tensor on any device or a Pillow picture; uint8, or floats in 0..1, which are
            rounded to the nearest of 256 steps.
        name: Of the clip, for messages.

    Raises:
        VideoError: not_a_video, for another shape or type, or values out of range.
    """
    values = clip.detach().cpu() if isinstance(clip, torch.Tensor) else _tensor(clip, name)
    _check_shape(tuple(values.shape), name)
    if values.is_floating_point():
        low, high = values.aminmax() if values.numel() else (0.0, 0.0)
        # A comparison with NaN is false.
        if not (low >= 0 and high <= 1):
            raise VideoError(
                "not_a_video",
                f"{name}: values from {low:g} to {high:g}; expected floats in 0..1, or uint8 in "
                "0..255",
            )
        return (255 * values.float()).round().to(torch.uint8)
    if values.dtype != torch.uint8:
        raise _wrong_type(str(values.dtype).removeprefix("torch."), name)
    return values


def _tensor(clip: Any, name: str) -> torch.Tensor:
    array = np.asarray(clip)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise _wrong_type(str(array.dtype), name)
    # What is read-only, turned round or of the other byte order cannot be a tensor.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _wrong_type(kind: str, name: str) -> VideoError:
    return VideoError(
        "not_a_video",
        f"{name}: values of type {kind}; expected uint8 in 0..255, or floats in 0..1",
    )


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) in (3, 4) and shape[-1] == 3:
        return
    hint = ""
    if len(shape) == 5:
        hint = "; several clips are given as a list"
    elif shape[-1] == 4:
        hint = (
            "; leave the alpha channel out, [..., :3], where it is opaque, and multiply by it else"
        )
    elif len(shape) == 4 and shape[1] == 3:
        hint = "; the colours come last, permute(0, 2, 3, 1)"
    elif len(shape) == 3 and shape[0] == 3:
        hint = "; the colours come last, permute(1, 2, 0)"
    elif shape[-1] == 1 or len(shape) in (2, 3):
        hint = "; grey is given as three equal colours"
    raise VideoError(
        "not_a_video",
        f"{name} is of shape {shape}; expected (T, H, W, 3) for a clip, or (H, 3W, 3) for a strip "
        f"of three views{hint}",
    )


def rate_of(total: int, fps: float | None, choice: FrameChoice) -> float:
    """Pictures per second of a clip in memory.

    Args:
        total: Pictures in the clip.
        fps: Where it is known. None where the model takes a fixed number of pictures: the clip is
            taken for one of four seconds, as those of Gen3DHF are. Then only the time stamps depend
            on it, not the choice of pictures.
        choice: Which pictures the model takes.

    Raises:
        ValueError: No rate where it decides which pictures are taken, or an impossible one.
    """
    if fps is None and choice.frames is None:
        raise ValueError(
            f"these pictures need fps, how many they are a second: this model takes {choice.fps:g} "
            "a second of them"
        )
    if fps is None:
        return total / CLIP_S
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; expected pictures per second above 0")
    return float(fps)


def clip_of_frames(
    frames_THW3: torch.Tensor, choice: FrameChoice, fps: float | None, *, name: str
) -> Clip:
    """What `data.video.read_clip` gives of a file that holds these pictures.

    Args:
        frames_THW3: The whole clip, on any device: uint8, or floats on the scale 0 to 255, which
            are resized as floats, clamped, not rounded, and keep their gradients.
        choice: Which pictures are taken, and at which size.
        fps: See `rate_of`.
        name: Of the clip, for messages.

    Raises:
        VideoError: too_short, too_small or too_large.
        ValueError: See `rate_of`.
    """
    total = _check_clip(frames_THW3, name)
    fps = rate_of(total, fps, choice)
    indices = choice.indices(total, fps)
    return _clip(frames_THW3, indices, choice, fps, MEMORY, choice.notes(total))


def views_of_frames(
    frames_THW3: torch.Tensor, choice: FrameChoice, at: Sequence[float], *, name: str
) -> Clip:
    """What `data.video.read_views` gives of a file that holds these pictures; see `clip_of_frames`.
    A view has no time.
    """
    total = _check_clip(frames_THW3, name)
    indices = view_indices(at, total)
    return _clip(frames_THW3, indices, choice, 1.0, MEMORY)


def _check_clip(frames_THW3: torch.Tensor, name: str) -> int:
    """The number of pictures, where they can be a clip."""
    total, height, width, _ = frames_THW3.shape
    check_length(name, total)
    check_sides(name, width, height)
    return total


def _clip(
    frames_THW3: torch.Tensor,
    indices: list[int],
    choice: FrameChoice,
    fps: float,
    decoder: str,
    notes: tuple[str, ...] = (),
) -> Clip:
    total, height, width, _ = frames_THW3.shape
    size = choice.size(width, height, len(indices))
    chosen = {index: resized(frames_THW3[index].permute(2, 0, 1), size) for index in indices}
    return Clip(
        frames=torch.stack([chosen[index] for index in indices]),
        indices=tuple(indices),
        total_frames=total,
        source_fps=fps,
        sample_fps=len(indices) / total * fps,
        decoder=decoder,
        width=width,
        height=height,
        notes=notes,
    )
