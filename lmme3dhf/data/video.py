"""Reading clips: which pictures of a video the model sees, and at which size (paper, Section 4.1;
Qwen2.5-VL's own rules).

The frame choice and the size come from qwen-vl-utils. The pictures are decoded by `data.container`,
resized one by one, and given as uint8.

Frames equal those of qwen-vl-utils with its decord reader bit for bit. decord itself is not used:
it decodes everything, and with more than one keyframe it may land on a wrong picture without a
word (open groups of pictures, H.264 in AVI, MPEG-TS).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qwen_vl_utils.vision_process import (
    FPS,
    FPS_MAX_FRAMES,
    FPS_MIN_FRAMES,
    FRAME_FACTOR,
    MODEL_SEQ_LEN,
    VIDEO_MAX_TOKEN_NUM,
    VIDEO_MIN_TOKEN_NUM,
    smart_nframes,
    smart_resize,
)
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.transforms.functional import InterpolationMode, resize

from lmme3dhf.data.container import (
    DECODER,
    TOKEN_SIDE_PX,
    Timeline,
    read_pictures,
)

MIN_PIXELS = VIDEO_MIN_TOKEN_NUM * TOKEN_SIDE_PX**2
MAX_PIXELS = VIDEO_MAX_TOKEN_NUM * TOKEN_SIDE_PX**2


@dataclass(frozen=True, kw_only=True)
class FrameChoice:
    """Which pictures of a clip are read and at which size; the defaults are those of qwen-vl-utils.

    Attributes:
        fps: Pictures per second, evenly spaced from the first to the last picture; not used where
            `frames` is given.
        frames: A fixed even number of pictures (or all, rounded down to an even number, where the
            clip has fewer).
        min_frames: At least so many (or all, rounded down to an even number, where the clip has
            fewer).
        max_frames: At most so many.
        min_pixels: Smallest area of a resized picture, in pixels.
        max_pixels: Largest area of a resized picture; long clips get less, so that a whole clip
            fits the model's context.
        images: Whether a still image is an input of its own; otherwise it is a strip of three
            views.

    Raises:
        ValueError: An impossible value.
    """

    fps: float | None = FPS
    frames: int | None = None
    min_frames: int = FPS_MIN_FRAMES
    max_frames: int = FPS_MAX_FRAMES
    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS
    images: bool = False

    def __post_init__(self) -> None:
        if self.frames is None and not (
            self.fps is not None and math.isfinite(self.fps) and self.fps > 0
        ):
            raise ValueError(
                f"fps is {self.fps}; give frames per second above 0, or a fixed number of frames"
            )
        if self.frames is not None and (self.frames < FRAME_FACTOR or self.frames % FRAME_FACTOR):
            raise ValueError(
                f"frames is {self.frames}, expected an even number: the model joins frames in pairs"
            )
        if not FRAME_FACTOR <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"frames between {self.min_frames} and {self.max_frames}, expected 2 <= "
                "min_frames <= max_frames"
            )
        if not TOKEN_SIDE_PX**2 <= self.min_pixels <= self.max_pixels <= MAX_PIXELS:
            raise ValueError(
                f"pixels between {self.min_pixels} and {self.max_pixels}, "
                f"expected {TOKEN_SIDE_PX**2} <= min_pixels <= max_pixels <= {MAX_PIXELS}"
            )

    def to_dict(self) -> dict[str, Any]:
        """What a model folder stores. `images` only where it is true, so that stored features and
        records of video models keep their keys.
        """
        values = asdict(self)
        return values if self.images else {k: v for k, v in values.items() if k != "images"}

    def indices(self, total: int, fps: float) -> list[int]:
        """Which pictures of a clip are read, in rising order, evenly spaced from the first to the
        last.

        Args:
            total: Pictures in the clip, 2 or more.
            fps: Pictures per second in the clip.
        """
        if self.frames is not None:
            wanted = {"nframes": min(self.frames, total // FRAME_FACTOR * FRAME_FACTOR)}
        else:
            wanted = {
                "fps": self.fps,
                "min_frames": self.min_frames,
                "max_frames": self.max_frames,
            }
        count = smart_nframes(wanted, total_frames=total, video_fps=fps)
        return torch.linspace(0, total - 1, count).round().long().tolist()

    def notes(self, total: int) -> tuple[str, ...]:
        """Whether a clip of so many frames has fewer than the model takes, as a `Clip` notes it."""
        least = self.min_frames if self.frames is None else self.frames
        if total >= least:
            return ()
        return (f"the clip has {total} frames, fewer than the {least} that the model takes",)

    def size(self, width: int, height: int, count: int) -> list[int]:
        """(height, width) of the resized pictures, by qwen-vl-utils' budget: nine tenths of the
        context for the whole clip.

        Args:
            width: Of the clip as it is shown, in pixels.
            height: Likewise.
            count: Pictures that are read.
        """
        budget = MODEL_SEQ_LEN * TOKEN_SIDE_PX * TOKEN_SIDE_PX * 0.9 / count * FRAME_FACTOR
        limit = max(min(MAX_PIXELS, budget), int(self.min_pixels * 1.05))
        return list(
            smart_resize(
                height,
                width,
                factor=TOKEN_SIDE_PX,
                min_pixels=self.min_pixels,
                max_pixels=min(self.max_pixels, limit),
            )
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Pictures read from a clip.

    Attributes:
        frames: uint8, (T, 3, H, W), RGB, resized so that both sides are multiples of 28.
        indices: Which pictures of the clip these are, from 0.
        total_frames: Pictures in the clip.
        source_fps: Pictures per second in the clip.
        sample_fps: Pictures per second among those read (T / total_frames * source_fps). Infinite,
            as source_fps, for a still image, which is read twice: the model joins frames in pairs.
        decoder: What decoded it.
        width: Of the clip as it is shown, in pixels.
        height: Of the clip as it is shown, in pixels.
        notes: What a reader of the scores should know about how the clip was read, such as that
            transparent pixels are shown on black; short sentences without the clip's name.
    """

    frames: torch.Tensor
    indices: tuple[int, ...]
    total_frames: int
    source_fps: float
    sample_fps: float
    decoder: str
    width: int
    height: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """What was asked for of one clip, from one pass through it.

    Attributes:
        frames: The pictures that the model sees.
        views: The three views.
    """

    frames: Clip | None = None
    views: Clip | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of both clips, each once."""
        clips = [clip for clip in (self.frames, self.views) if clip is not None]
        return tuple(dict.fromkeys(note for clip in clips for note in clip.notes))

    def with_turn_notes(self, at: Sequence[float]) -> "Clips":
        """The same, with what is noticed about how the head of a clip turns (`turn_notes`).

        Args:
            at: Where the views are taken, as fractions of the clip.
        """
        # Frames are evenly spaced over the clip.
        name = "views" if self.frames is None else "frames"
        clip = getattr(self, name)
        if math.isinf(clip.source_fps):  # an image
            return self
        last = len(clip.frames) - 1
        places = range(len(at)) if name == "views" else [place * last for place in at]
        notes = clip.notes + turn_notes(clip.frames, places)
        return replace(self, **{name: replace(clip, notes=notes)})


# For `turn_notes`: the side to which frames are reduced; the most that frames of one still image
# differ by and the least that tells where a head looks, as root mean squares in levels of 0..255;
# the highest mirror symmetry that is none, and the asymmetry of a middle view that is no front.
_SIDE, _STILL, _TURNED, _UNLIKE, _ASKEW = 16, 1.0, 4.0, -0.4, 1.15


def turn_notes(frames_T3HW: torch.Tensor, places: Sequence[float]) -> tuple[str, ...]:
    """What can be noticed about a clip that is no turntable from one side to the other, as a `Clip`
    notes it. Only what is certain: many such clips get no note.

    Either the frames do not change, or the views contradict a turn in two ways:

    - The outer views are not mirror images. Let D be their difference, which no static background
      enters, and D' its mirror image. A head that turns by as much to either side has D' = -D:
      the mean of -D D' over that of D D is 1. Without a relation it is 0, and a front and a back of
      a head give -1.
    - The middle view is less like its mirror image than they are (mean square over theirs), though
      a front is the most like it.

    The 1,000 clips of the demo and 37 real and drawn ones, read as frames or as views, have a
    symmetry above -0.28 or an asymmetry below 1.07. Noted are, read as eight frames, 36 of 80 full
    turns of drawn heads that start at a side, 7 of 10 real clips that begin a quarter too late and
    95 of 250 such drawn ones, 17 of 250 turns from the front to one side, and no full turn that
    starts in front: its outer views are the two profiles.

    Args:
        frames_T3HW: uint8, in the order of the clip.
        places: Of the three views, in frames after the first; the middle one may lie between two.
    """
    # Every pixel of small frames, and of large ones no more than are needed.
    step = max(1, min(frames_T3HW.shape[-2:]) // (8 * _SIDE))
    reduced = [adaptive_avg_pool2d(f[:, ::step, ::step].float(), _SIDE) for f in frames_T3HW]
    grey_THW = torch.stack(reduced).mean(1)
    if (grey_THW - grey_THW[0]).square().mean((1, 2)).sqrt().max() < _STILL:
        return ("the frames do not change, so this is no turntable clip",)
    # Lights that go up and down are no turn.
    grey_THW -= grey_THW.mean((1, 2), keepdim=True)
    outer = [round(places[0]), round(places[-1])]
    change_HW = grey_THW[outer[0]] - grey_THW[outer[1]]
    power = change_HW.square().mean()
    symmetry = -(change_HW * change_HW.flip(1)).mean() / power.clamp_min(_TURNED**2)
    asymmetry_T = (grey_THW - grey_THW.flip(2)).square().mean((1, 2))
    middle = min(asymmetry_T[math.floor(places[1])], asymmetry_T[math.ceil(places[1])])
    if symmetry > _UNLIKE or middle < _ASKEW * asymmetry_T[outer].mean():
        return ()
    return (
        "the outer views are no mirror images of each other, so the middle view may not show the "
        "face from the front (give other views with --views)",
    )


def read_clip(path: Path, choice: FrameChoice) -> Clip:
    """Reads the pictures of a clip that the model sees, evenly spaced from the first to the last,
    as qwen-vl-utils chooses.

    The frames equal those of `qwen_vl_utils.fetch_video` with its decord reader on the same file
    bit for bit, except where that reader is wrong (see above), for more than 8 bits per colour,
    which the two decoders convert differently, and for clips that it does not show as players do:
    of a variable frame rate, those frames are read that are shown at evenly spaced times, and
    flips and pixels that are not square are applied.

    Known limit: damage that a codec conceals goes unnoticed, and so does damage to pictures that
    are left out or come after the last wanted one.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
    """
    return _read(Path(path), _frames(choice))[0]


def read_views(path: Path, views: Sequence[float], choice: FrameChoice) -> Clip:
    """Reads one picture per view, at round(fraction * (pictures - 1)), halves to the even number,
    or at a fraction of the duration where the frame rate varies; resized as by `read_clip`.

    Args:
        path: The clip.
        views: Fractions of the clip, 0 for its first picture and 1 for its last, in any order.
        choice: Only the bounds of the area count.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
        ValueError: No view, or a fraction outside 0..1.
    """
    return _read(Path(path), _views(views, choice))[0]


def read_both(path: Path, views: Sequence[float], choice: FrameChoice) -> tuple[Clip, Clip]:
    """What `read_clip` and `read_views` give, from one pass through the clip.

    Raises:
        VideoError: As `read_clip`.
        ValueError: As `read_views`.
    """
    frames, at_views = _read(Path(path), _frames(choice), _views(views, choice))
    return frames, at_views


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """Pictures to read from a clip.

    Attributes:
        indices: When the clip's pictures are shown -> which of them.
        size: (width, height, how many) -> height and width to which they are resized.
        notes: Frames in the clip -> what there is to note about their number.
    """

    indices: Callable[[Timeline], list[int]]
    size: Callable[[int, int, int], list[int]]
    notes: Callable[[int], tuple[str, ...]] = lambda _: ()


def _frames(choice: FrameChoice) -> _Wish:
    def indices(timeline: Timeline) -> list[int]:
        even = choice.indices(timeline.frames, timeline.fps)
        if timeline.starts_s is None:
            return even
        return timeline.at(np.linspace(0, 1, len(even)).tolist())

    return _Wish(indices=indices, size=choice.size, notes=choice.notes)


def _views(views: Sequence[float], choice: FrameChoice) -> _Wish:
    return _Wish(indices=lambda timeline: timeline.at(views), size=choice.size)


def _read(path: Path, *wishes: _Wish) -> list[Clip]:
    """One clip per wish, from one pass through the file."""
    asked: list[list[int]] = []

    def choose(timeline: Timeline) -> set[int]:
        asked[:] = [wish.indices(timeline) for wish in wishes]
        return {index for indices in asked for index in indices}

    def keep(
        index: int, picture_HW3: np.ndarray, shown: tuple[int, int]
    ) -> list[torch.Tensor | None]:
        return [
            resized(_tensor(picture_HW3), wish.size(*shown, len(indices)))
            if index in indices
            else None
            for wish, indices in zip(wishes, asked, strict=True)
        ]

    read = read_pictures(path, choose, keep)
    timeline = read.timeline
    return [
        Clip(
            frames=torch.stack([read.kept[index][number] for index in indices]),
            indices=tuple(indices),
            total_frames=timeline.frames,
            source_fps=timeline.fps,
            sample_fps=len(indices) / timeline.frames * timeline.fps,
            decoder=DECODER,
            width=read.width,
            height=read.height,
            notes=read.notes + wishes[number].notes(read.timeline.frames),
        )
        for number, indices in enumerate(asked)
    ]


def resized(picture_3HW: torch.Tensor, size: list[int]) -> torch.Tensor:
    """A picture at another (height, width): bicubic with antialias, as qwen-vl-utils does it.

    uint8 is rounded and clamped; floats on the same scale are clamped alone, and keep their
    gradients.
    """
    picture = resize(picture_3HW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return picture.clamp(0, 255) if picture.is_floating_point() else picture


def _tensor(picture_HW3: np.ndarray) -> torch.Tensor:
    """(3, H, W); the array may be turned."""
    return torch.from_numpy(np.ascontiguousarray(picture_HW3)).permute(2, 0, 1)
