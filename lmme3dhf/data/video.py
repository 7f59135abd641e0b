"""Reading clips: which pictures of a video the model sees, and at which size (paper, Section 4.1;
Qwen2.5-VL's own rules).

Three steps: `probe` reads the container and its packets and refuses what cannot be a clip before
anything large is decoded; the frame choice and the size come from qwen-vl-utils; then the wanted
pictures are decoded, resized one by one, and given as uint8.

decord reads where it is exact, PyAV everywhere else; both give the same pictures bit for bit.
decord finds a picture by jumping to the keyframe before it, and with more than one keyframe it may
land on a wrong one without a word (open groups of pictures, H.264 in AVI, MPEG-TS); in AVI it also
loses the last pictures now and then. So it gets MP4 and Matroska streams with a single keyframe,
where there is nothing to jump over: the released clips and what common encoders write below 250
pictures.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.stream import Disposition
from qwen_vl_utils.vision_process import (
    FPS,
    FPS_MAX_FRAMES,
    FPS_MIN_FRAMES,
    FRAME_FACTOR,
    MODEL_SEQ_LEN,
    SPATIAL_MERGE_SIZE,
    VIDEO_MAX_TOKEN_NUM,
    VIDEO_MIN_TOKEN_NUM,
    smart_nframes,
    smart_resize,
)
from torchvision.transforms.functional import InterpolationMode, resize

from lmme3dhf.errors import UserError

REASONS = (
    "missing",
    "empty",
    "not_a_video",
    "no_video_stream",
    "still_image",
    "too_short",
    "too_small",
    "too_large",
    "truncated",
    "unsupported_codec",
    "decode_error",
)

# Vision patches of 14 pixels, merged 2 by 2: one token covers 28 x 28 pixels, and no side may be
# smaller.
TOKEN_SIDE_PX = 14 * SPATIAL_MERGE_SIZE
MIN_PIXELS = VIDEO_MIN_TOKEN_NUM * TOKEN_SIDE_PX**2
MAX_PIXELS = VIDEO_MAX_TOKEN_NUM * TOKEN_SIDE_PX**2
MAX_SIDE_PX = 4096

# FFmpeg opens these as video although they are text: subtitle art, and playlists that name other
# files.
_TEXT_FORMATS = {"tty", "hls", "dash", "concat"}
_STILL_FORMATS = {"image2", "ico"}
_STILL_BRANDS = ("avif", "heic", "heix", "mif1")
_ANIMATED_PICTURE_FORMATS = {"gif", "apng"}
_DECORD_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
# FFmpeg's frame threads can hang when decoding stops early; slice threads cannot.
_THREADS = "SLICE"


class VideoError(UserError):
    """A file that gives no clip.

    Attributes:
        reason: One of `REASONS`, for tables and programs; the message is one sentence for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS, reason
        # Both arguments go up, else the error could not be pickled out of a loader's worker.
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


@dataclass(frozen=True, kw_only=True)
class VideoHeader:
    """What the container tells, before the pictures are decoded.

    Attributes:
        width: Of the picture as it is shown, in pixels.
        height: Of the picture as it is shown, in pixels.
        container: FFmpeg's name ("matroska,webm").
        codec: FFmpeg's name ("h264").
        rotation_deg: By which the display matrix turns the stored picture, counter-clockwise, a
            multiple of 90; included in width and height.
        frames: Pictures that the stream holds, counted by its packets, for what headers say is not
            reliable.
        fps: Average pictures per second.
        keyframes: Pictures that decode by themselves.
        bits: Bits per colour component.
    """

    width: int
    height: int
    container: str
    codec: str
    rotation_deg: int
    frames: int
    fps: float
    keyframes: int
    bits: int


@dataclass(frozen=True, kw_only=True)
class FrameChoice:
    """Which pictures of a clip are read and at which size; the defaults are those of qwen-vl-utils.

    Attributes:
        fps: Pictures per second, evenly spaced from the first to the last picture; not used where
            `frames` is given.
        frames: A fixed even number of pictures.
        min_frames: At least so many (or all, rounded down to an even number, where the clip has
            fewer).
        max_frames: At most so many.
        min_pixels: Smallest area of a resized picture, in pixels.
        max_pixels: Largest area of a resized picture; long clips get less, so that a whole clip
            fits the model's context.

    Raises:
        ValueError: An impossible value.
    """

    fps: float | None = FPS
    frames: int | None = None
    min_frames: int = FPS_MIN_FRAMES
    max_frames: int = FPS_MAX_FRAMES
    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Pictures read from a clip.

    Attributes:
        frames: uint8, (T, 3, H, W), RGB, resized so that both sides are multiples of 28.
        indices: Which pictures of the clip these are, from 0.
        total_frames: Pictures in the clip.
        source_fps: Pictures per second in the clip.
        sample_fps: Pictures per second among those read (T / total_frames * source_fps).
        decoder: "decord" or "pyav".
        width: Of the clip as it is shown, in pixels.
        height: Of the clip as it is shown, in pixels.
    """

    frames: torch.Tensor
    indices: tuple[int, ...]
    total_frames: int
    source_fps: float
    sample_fps: float
    decoder: str
    width: int
    height: int


def probe(path: Path) -> VideoHeader:
    """Reads a file's header and packets and decodes one picture at most; fast, and bounded for
    hostile files too.

    A cut GIF, MPEG-TS or raw stream cannot be told from a shorter one. Damage inside a picture
    shows on reading.

    Raises:
        VideoError: With a reason: the file is missing, empty, no video, a still picture; has fewer
            than 2 pictures, sides below 28 or above 4096 pixels; is cut off; or its codec is
            unknown to FFmpeg.
    """
    path = Path(path)
    start = _first_bytes(path)
    try:
        # The absolute path, for FFmpeg takes "12:30.mp4" for a protocol; "replace", for GIF
        # comments are in any encoding.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            return _header(path, container, start)
    except av.error.DecoderNotFoundError as error:
        raise VideoError(
            "unsupported_codec", f"{path}: FFmpeg has no decoder for it; convert it to H.264 in MP4"
        ) from error
    except av.error.FFmpegError as error:
        raise _unreadable(path, start, error.strerror) from error


def _first_bytes(path: Path) -> bytes:
    """The file's first bytes; opening alone would wait for ever on a pipe."""
    if not path.is_file():
        what = "is not an ordinary file" if path.exists() else "does not exist"
        raise VideoError("missing", f"{path} {what}; check the path and the video root")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise VideoError(
            "missing", f"{path} cannot be opened ({error.strerror}); check its permissions"
        ) from error
    if not start:
        raise VideoError("empty", f"{path} has 0 bytes; copy or download it again")
    return start


def _unreadable(path: Path, start: bytes, cause: str | None) -> VideoError:
    text = start.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return VideoError(
            "not_a_video",
            f"{path} is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return VideoError(
            "not_a_video", f"{path} is a web page; the download went wrong, fetch the video itself"
        )
    if start[4:8] == b"ftyp":
        return VideoError(
            "truncated",
            f"{path} is an MP4 file without its index; it was cut off, copy or download it again",
        )
    return VideoError(
        "not_a_video",
        f"{path} is no video that FFmpeg can open ({cause}); expected a file such as H.264 in MP4",
    )


def _header(path: Path, container: av.container.InputContainer, start: bytes) -> VideoHeader:
    name = container.format.name
    if name in _TEXT_FORMATS:
        raise VideoError(
            "not_a_video", f"{path} is text ({name}); expected a video such as H.264 in MP4"
        )
    stream = container.streams.best("video")
    # The cover of a song is a video stream too.
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise VideoError(
            "no_video_stream", f"{path} has no video stream; expected a clip with pictures"
        )
    if name == "webp_pipe" and b"ANIM" in start:
        raise VideoError(
            "unsupported_codec",
            f"{path} is an animated WebP, which FFmpeg cannot read; convert it to H.264 in MP4",
        )
    brand = container.metadata.get("major_brand", "")
    if name.endswith("_pipe") or name in _STILL_FORMATS or brand.startswith(_STILL_BRANDS):
        raise _still_image(path)
    codec = stream.codec_context
    if codec is None:
        raise VideoError(
            "unsupported_codec",
            f"{path}: FFmpeg has no decoder for its pictures; convert it to H.264 in MP4",
        )
    if codec.width and codec.height:
        _check_sides(path, codec.width, codec.height)
    try:
        frames, keyframes, fps, first = _walk(path, container, stream)
    except av.error.DecoderNotFoundError:
        raise
    except av.error.FFmpegError as error:
        raise VideoError(
            "decode_error", f"{path} is damaged at its beginning ({error.strerror}); replace it"
        ) from error
    if frames < 2:
        if name in _ANIMATED_PICTURE_FORMATS:
            raise _still_image(path)
        raise VideoError("too_short", f"{path} holds fewer than 2 pictures; expected a clip")
    if first is None:
        raise VideoError(
            "decode_error",
            f"{path}: none of its {frames} pictures can be decoded; it is damaged, replace it",
        )
    _check_sides(path, first.width, first.height)
    quarter_turns = _quarter_turns(first)
    width, height = (
        (first.height, first.width) if quarter_turns % 2 else (first.width, first.height)
    )
    return VideoHeader(
        width=width,
        height=height,
        container=name,
        codec=codec.codec.canonical_name,
        rotation_deg=90 * quarter_turns,
        frames=frames,
        fps=fps,
        keyframes=keyframes,
        bits=first.format.components[0].bits,
    )


def _walk(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[int, int, float, av.VideoFrame | None]:
    """Counts the packets and decodes the first picture: (pictures, keyframes, pictures per second,
    first picture).
    """
    stream.thread_type = _THREADS
    frames, keyframes, damaged, first = 0, 0, None, None
    begin, end = math.inf, -math.inf
    for packet in container.demux(stream):
        if first is None:
            first = next(iter(packet.decode()), None)
        # An edit list discards pictures that are stored but not shown; the last packet is an empty
        # mark.
        if not packet.size or packet.is_discard:
            continue
        frames += 1
        keyframes += packet.is_keyframe
        if packet.is_corrupt and damaged is None:
            damaged = frames
        if packet.pts is not None:
            begin = min(begin, float(packet.pts * packet.time_base))
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    rate = stream.average_rate or stream.guessed_rate
    if not stream.average_rate and frames > 1 and end > begin:
        rate = frames / (end - begin)
    fps = float(rate) if rate else 0.0
    if damaged is not None and damaged < frames:
        raise VideoError(
            "decode_error",
            f"{path} is damaged after {damaged - 1} of {frames} pictures; replace it",
        )
    announced = _announced_end_s(stream)
    # The last packet may not tell how long it lasts, hence the tolerance.
    cut = announced is not None and fps > 0 and end < announced - max(2 / fps, 0.02 * announced)
    if damaged is not None or cut:
        raise VideoError(
            "truncated",
            f"{path} breaks off after {frames} pictures; it was cut off, copy or download it again",
        )
    if frames > 1 and not fps:
        raise VideoError("decode_error", f"{path} tells no frame rate; convert it to H.264 in MP4")
    return frames, keyframes, fps, first


def _announced_end_s(stream: av.VideoStream) -> float | None:
    """When the stream is to end by its own header, in seconds; Matroska has it in a tag."""
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) if tag else None


def _still_image(path: Path) -> VideoError:
    return VideoError(
        "still_image", f"{path} is a still picture; expected a clip of at least 2 pictures"
    )


def _check_sides(path: Path, width: int, height: int) -> None:
    if min(width, height) < TOKEN_SIDE_PX:
        raise VideoError(
            "too_small",
            f"{path} has pictures of {width}x{height}; expected at least {TOKEN_SIDE_PX} a side",
        )
    if max(width, height) > MAX_SIDE_PX:
        raise VideoError(
            "too_large",
            f"{path} has pictures of {width}x{height}; expected at most {MAX_SIDE_PX} a side, "
            "scale it",
        )


def _quarter_turns(picture: av.VideoFrame) -> int:
    """How often a stored picture is turned by 90 degrees, counter-clockwise, to be shown; 0..3."""
    return round(picture.rotation / 90) % 4


def read_clip(path: Path, choice: FrameChoice) -> Clip:
    """Reads the pictures of a clip that the model sees, evenly spaced from the first to the last,
    as qwen-vl-utils chooses.

    The frames equal those of `qwen_vl_utils.fetch_video` with its decord reader on the same file
    bit for bit, except where that reader is wrong (see above), and for more than 8 bits per colour,
    which the two decoders convert differently: PyAV has them.

    Raises:
        VideoError: As `probe`; too_short where `choice.frames` asks for more than the clip has;
            decode_error where it breaks.
    """
    path = Path(path)
    header = probe(path)
    if choice.frames is not None and choice.frames > header.frames:
        raise VideoError(
            "too_short",
            f"{path} has {header.frames} pictures, {choice.frames} were asked for; take a longer "
            "clip or fewer frames",
        )
    if choice.frames is not None:
        wanted = {"nframes": choice.frames}
    else:
        wanted = {
            "fps": choice.fps,
            "min_frames": choice.min_frames,
            "max_frames": choice.max_frames,
        }
    count = smart_nframes(wanted, total_frames=header.frames, video_fps=header.fps)
    indices = torch.linspace(0, header.frames - 1, count).round().long().tolist()
    return _read(path, header, indices, _resized_size(header, len(indices), choice))


def read_views(path: Path, views: Sequence[float], choice: FrameChoice) -> Clip:
    """Reads one picture per view, at round(fraction * (pictures - 1)), halves to the even number;
    resized as by `read_clip`.

    Args:
        path: The clip.
        views: Fractions of the clip, 0 for its first picture and 1 for its last, in any order.
        choice: Only the bounds of the area count.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
        ValueError: No view, or a fraction outside 0..1.
    """
    path = Path(path)
    header = probe(path)
    indices = _view_indices(header, views)
    return _read(path, header, indices, _resized_size(header, len(indices), choice))


def read_strip(path: Path, views: Sequence[float]) -> np.ndarray:
    """The pictures of `read_views` side by side and at the clip's own size: the strip that
    annotators mark (paper, Fig. 4).

    Returns:
        uint8 (height, views * width, 3), RGB.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
        ValueError: No view, or a fraction outside 0..1.
    """
    path = Path(path)
    header = probe(path)
    clip = _read(path, header, _view_indices(header, views), [header.height, header.width])
    return np.hstack(list(clip.frames.permute(0, 2, 3, 1).numpy()))


def _view_indices(header: VideoHeader, views: Sequence[float]) -> list[int]:
    if not views or not all(0 <= fraction <= 1 for fraction in views):
        raise ValueError(f"views at {views}, expected fractions of the clip in 0..1")
    return [round(fraction * (header.frames - 1)) for fraction in views]


def _read(path: Path, header: VideoHeader, indices: list[int], size: list[int]) -> Clip:
    decoder, pictures = "decord", _decord_pictures(path, header, set(indices), size)
    if pictures is None:
        decoder, pictures = "pyav", _pyav_pictures(path, header, set(indices), size)
    return Clip(
        frames=torch.stack([pictures[index] for index in indices]),
        indices=tuple(indices),
        total_frames=header.frames,
        source_fps=header.fps,
        sample_fps=len(indices) / header.frames * header.fps,
        decoder=decoder,
        width=header.width,
        height=header.height,
    )


def _resized_size(header: VideoHeader, count: int, choice: FrameChoice) -> list[int]:
    """(height, width) of the resized pictures, by qwen-vl-utils' budget: nine tenths of the context
    for the whole clip.
    """
    budget = MODEL_SEQ_LEN * TOKEN_SIDE_PX * TOKEN_SIDE_PX * 0.9 / count * FRAME_FACTOR
    limit = max(min(MAX_PIXELS, budget), int(choice.min_pixels * 1.05))
    return list(
        smart_resize(
            header.height,
            header.width,
            factor=TOKEN_SIDE_PX,
            min_pixels=choice.min_pixels,
            max_pixels=min(choice.max_pixels, limit),
        )
    )


def available_decoder() -> str:
    """Which decoder this machine starts with: "decord" where it is installed (PyAV still reads what
    it cannot), else "pyav".
    """
    try:
        import decord  # noqa: F401
    except (ImportError, OSError):  # no wheel for this machine, or one whose libraries do not load
        return "pyav"
    return "decord"


def _decord_pictures(
    path: Path, header: VideoHeader, wanted: set[int], size: list[int]
) -> dict[int, torch.Tensor] | None:
    """Index -> resized picture; None where decord is absent, is not exact (see the module's text),
    or fails.

    A failure is left to PyAV, which tells how far the stream is good. Known limit: damage that a
    codec conceals goes unnoticed here; PyAV notices part of it.
    """
    if header.container not in _DECORD_CONTAINERS or header.keyframes != 1 or header.bits != 8:
        return None
    if available_decoder() != "decord":
        return None
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        # The tolerance makes decord fail where it would put a neighbour in place of a picture that
        # it cannot decode.
        reader = decord.VideoReader(str(path.absolute()), fault_tol=1e-9)
        if len(reader) != header.frames:
            return None
        return {index: _resized(reader[index].asnumpy(), size) for index in sorted(wanted)}
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration):
        return None


def _pyav_pictures(
    path: Path, header: VideoHeader, wanted: set[int], size: list[int]
) -> dict[int, torch.Tensor]:
    """Index -> resized picture; decodes to the end, for only then it is known that no picture was
    lost on the way.
    """
    pictures, count, cause = {}, 0, None
    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.thread_type = _THREADS
            for picture in container.decode(stream):
                turns = _quarter_turns(picture)
                shown = (
                    (picture.height, picture.width)
                    if turns % 2
                    else (picture.width, picture.height)
                )
                if picture.is_corrupt or shown != (header.width, header.height):
                    cause = (
                        "a damaged picture"
                        if picture.is_corrupt
                        else f"pictures of {shown[0]}x{shown[1]} follow"
                    )
                    break
                if count in wanted:
                    pictures[count] = _resized(
                        np.rot90(picture.to_ndarray(format="rgb24"), turns), size
                    )
                count += 1
    except av.error.FFmpegError as error:
        cause = error.strerror
    if cause or count != header.frames:
        raise VideoError(
            "decode_error",
            f"{path} breaks after {count} of {header.frames} pictures "
            f"({cause or 'the rest cannot be decoded'}); replace it",
        )
    return pictures


def _resized(picture_HW3: np.ndarray, size: list[int]) -> torch.Tensor:
    """uint8 (3, H, W); bicubic with antialias, rounded and clamped, as qwen-vl-utils does it."""
    picture_3HW = torch.from_numpy(np.ascontiguousarray(picture_HW3)).permute(2, 0, 1)
    return resize(picture_3HW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
