"""Reading clips: which pictures of a video the model sees, and at which size (paper, Section 4.1;
Qwen2.5-VL's own rules).

The container's packets are walked through first: what cannot be a clip is refused before anything
large is decoded, and the frame choice and the size come from qwen-vl-utils. Then the wanted
pictures are decoded in one pass from the beginning, resized one by one, and given as uint8.

The pass knows pictures by their time stamps, so it can leave out those of which neither the caller
nor another picture has need: after the last wanted one, and in an H.264 stream, where pictures
tell, also those to which no other refers and those before a fresh start. All others must come, in
the order of their times. Anything odd (times that are missing or not in order, a picture that does
not come, damage, another size) sends the file to a second reader that decodes and counts every
picture, and tells how far the stream is good.

Frames equal those of qwen-vl-utils with its decord reader bit for bit. decord itself is not used:
it decodes everything, and with more than one keyframe it may land on a wrong picture without a
word (open groups of pictures, H.264 in AVI, MPEG-TS).
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
# Types of units in H.264 (ITU-T H.264, Table 7-1): parts of pictures, parts of one that starts
# afresh, and parameter sets.
_SLICES = range(1, 6)
_FRESH = 5
_SETTINGS = {7, 8, 13, 15}
# What reads clips; a part of the key of everything that is stored.
DECODER = "pyav"


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
        decoder: What decoded it.
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
    with _opened(path) as (container, stream):
        return _header(path, container, stream)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A file and the video stream in it, or why there is none."""
    start = _first_bytes(path)
    try:
        # The absolute path, for FFmpeg takes "12:30.mp4" for a protocol; "replace", for GIF
        # comments are in any encoding.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            stream = _video_stream(path, container, start)
            # Clips are read side by side by several workers; more threads cost more than they give.
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.error.DecoderNotFoundError as error:
        raise VideoError(
            "unsupported_codec", f"{path}: FFmpeg has no decoder for it; convert it to H.264 in MP4"
        ) from error
    except av.error.FFmpegError as error:
        raise _unreadable(path, start, error.strerror) from error


def verify(path: Path) -> None:
    """Decodes all pictures of a clip.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
    """
    path = Path(path)
    for _ in _pictures_by_count(path, probe(path), set()):
        pass


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


def _video_stream(
    path: Path, container: av.container.InputContainer, start: bytes
) -> av.VideoStream:
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
    return stream


def _header(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream
) -> VideoHeader:
    packets = _walk(path, container, stream, decode_first=True)
    first = packets.first
    if first is None:
        raise VideoError(
            "decode_error",
            f"{path}: none of its {packets.frames} pictures can be decoded; it is damaged, "
            "replace it",
        )
    _check_sides(path, first.width, first.height)
    width, height = _shown_size(first)
    return VideoHeader(
        width=width,
        height=height,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        rotation_deg=90 * _quarter_turns(first),
        frames=packets.frames,
        fps=packets.fps,
        keyframes=packets.keyframes,
        bits=first.format.components[0].bits,
    )


@dataclass(frozen=True, kw_only=True)
class _Packets:
    """What a walk through the packets tells.

    Attributes:
        times: Time stamps of the pictures that are shown, in the order of storage.
        begin: Time stamp of the very first packet.
        rewind: To which time to go back for it.
        unreferenced: Times of pictures to which no other refers, as far as the stream tells.
        fresh: Times of pictures beyond which no later one refers, as far as the stream tells.
        settings: Times of pictures with which the decoder gets settings for later ones.
        keyframes: Pictures that decode by themselves.
        fps: Average pictures per second.
        first: The first picture, where it was asked for and can be decoded.
    """

    times: list[int | None]
    begin: int | None
    rewind: int | None
    unreferenced: set[int | None]
    fresh: set[int | None]
    settings: set[int | None]
    keyframes: int
    fps: float
    first: av.VideoFrame | None

    @property
    def frames(self) -> int:
        return len(self.times)


def _walk(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    *,
    decode_first: bool,
) -> _Packets:
    """Reads all packets and, at most, decodes the first picture."""
    codec = stream.codec_context
    h264 = codec.codec.canonical_name == "h264"
    length_bytes = _length_bytes(codec.extradata or b"")
    unreferenced, fresh, settings = set(), set(), set()
    times, keyframes, damaged, first = [], 0, None, None
    begin, rewind, start, end = None, None, math.inf, -math.inf
    try:
        for packet in container.demux(stream):
            if decode_first and first is None:
                first = next(iter(packet.decode()), None)
            if rewind is None:
                begin, rewind = packet.pts, packet.pts if packet.dts is None else packet.dts
            # An edit list discards pictures that are stored but not shown; the last packet is an
            # empty mark.
            if not packet.size or packet.is_discard:
                continue
            times.append(packet.pts)
            units = _units(bytes(packet), length_bytes) if h264 else []
            slices = [header for header in units if header & 31 in _SLICES]
            if slices and not any(header >> 5 for header in slices):
                unreferenced.add(packet.pts)
            if slices and all(header & 31 == _FRESH for header in slices):
                fresh.add(packet.pts)
            if any(header & 31 in _SETTINGS for header in units):
                settings.add(packet.pts)
            keyframes += packet.is_keyframe
            if packet.is_corrupt and damaged is None:
                damaged = len(times)
            if packet.pts is not None:
                start = min(start, float(packet.pts * packet.time_base))
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except av.error.DecoderNotFoundError:
        raise
    except av.error.FFmpegError as error:
        raise VideoError(
            "decode_error", f"{path} is damaged at its beginning ({error.strerror}); replace it"
        ) from error
    frames = len(times)
    rate = stream.average_rate or stream.guessed_rate
    if not stream.average_rate and frames > 1 and end > start:
        rate = frames / (end - start)
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
    if frames < 2:
        if container.format.name in _ANIMATED_PICTURE_FORMATS:
            raise _still_image(path)
        raise VideoError("too_short", f"{path} holds fewer than 2 pictures; expected a clip")
    return _Packets(
        times=times,
        begin=begin,
        rewind=rewind,
        unreferenced=unreferenced,
        fresh=fresh,
        settings=settings,
        keyframes=keyframes,
        fps=fps,
        first=first,
    )


def _length_bytes(extradata: bytes) -> int | None:
    """How many bytes tell the length of each H.264 unit; None where start codes part them (ISO/IEC
    14496-15, 5.3.3.1).
    """
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else None


def _units(packet: bytes, length_bytes: int | None) -> list[int]:
    """First bytes of the units in an H.264 packet: 5 bits say what it is (nal_unit_type), 2 whether
    other pictures may refer to it (nal_ref_idc; ITU-T H.264, 7.3.1 and 7.4.1). Empty where the
    units cannot be told apart.
    """
    headers, at = [], 0
    while at < len(packet):
        if length_bytes is None:
            at = packet.find(b"\0\0\1", at) + 3
            if at < 3:
                break
            unit = at
        else:
            unit = at + length_bytes
            at = unit + int.from_bytes(packet[at:unit], "big")
            if at == unit:
                return []
        if unit >= len(packet) or at > len(packet):
            return []
        headers.append(packet[unit])
    return headers


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


def _shown_size(picture: av.VideoFrame) -> tuple[int, int]:
    """(width, height) after turning."""
    sides = picture.width, picture.height
    return sides[::-1] if _quarter_turns(picture) % 2 else sides


def read_clip(path: Path, choice: FrameChoice) -> Clip:
    """Reads the pictures of a clip that the model sees, evenly spaced from the first to the last,
    as qwen-vl-utils chooses.

    The frames equal those of `qwen_vl_utils.fetch_video` with its decord reader on the same file
    bit for bit, except where that reader is wrong (see above), and for more than 8 bits per colour,
    which the two decoders convert differently.

    Known limit: damage that a codec conceals goes unnoticed, and so does damage to pictures that
    are left out or come after the last wanted one.

    Raises:
        VideoError: As `probe`; too_short where `choice.frames` asks for more than the clip has;
            decode_error where it breaks.
    """
    return _read(Path(path), _frames(Path(path), choice))[0]


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
    return _read(Path(path), _views(views, choice))[0]


def read_both(path: Path, views: Sequence[float], choice: FrameChoice) -> tuple[Clip, Clip]:
    """What `read_clip` and `read_views` give, from one pass through the clip.

    Raises:
        VideoError: As `read_clip`.
        ValueError: As `read_views`.
    """
    frames, at_views = _read(Path(path), _frames(Path(path), choice), _views(views, choice))
    return frames, at_views


def read_strip(path: Path, views: Sequence[float]) -> np.ndarray:
    """The pictures of `read_views` side by side and at the clip's own size: the strip that
    annotators mark (paper, Fig. 4).

    Returns:
        uint8 (height, views * width, 3), RGB.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
        ValueError: No view, or a fraction outside 0..1.
    """
    (clip,) = _read(Path(path), _views(views, None))
    return np.hstack(list(clip.frames.permute(0, 2, 3, 1).numpy()))


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """Pictures to read from a clip.

    Attributes:
        indices: (pictures in the clip, pictures per second) -> which of them.
        size: (width, height, how many) -> height and width to which they are resized.
    """

    indices: Callable[[int, float], list[int]]
    size: Callable[[int, int, int], list[int]]


def _frames(path: Path, choice: FrameChoice) -> _Wish:
    def indices(total: int, fps: float) -> list[int]:
        if choice.frames is not None and choice.frames > total:
            raise VideoError(
                "too_short",
                f"{path} has {total} pictures, {choice.frames} were asked for; take a longer clip "
                "or fewer frames",
            )
        if choice.frames is not None:
            wanted = {"nframes": choice.frames}
        else:
            wanted = {
                "fps": choice.fps,
                "min_frames": choice.min_frames,
                "max_frames": choice.max_frames,
            }
        count = smart_nframes(wanted, total_frames=total, video_fps=fps)
        return torch.linspace(0, total - 1, count).round().long().tolist()

    return _Wish(indices=indices, size=partial(_resized_size, choice))


def _views(views: Sequence[float], choice: FrameChoice | None) -> _Wish:
    """Without a choice at the clip's own size."""
    if not views or not all(0 <= fraction <= 1 for fraction in views):
        raise ValueError(f"views at {views}, expected fractions of the clip in 0..1")
    return _Wish(
        indices=lambda total, fps: [round(fraction * (total - 1)) for fraction in views],
        size=partial(_resized_size, choice) if choice else lambda width, height, _: [height, width],
    )


def _resized_size(choice: FrameChoice, width: int, height: int, count: int) -> list[int]:
    """(height, width) of the resized pictures, by qwen-vl-utils' budget: nine tenths of the context
    for the whole clip.
    """
    budget = MODEL_SEQ_LEN * TOKEN_SIDE_PX * TOKEN_SIDE_PX * 0.9 / count * FRAME_FACTOR
    limit = max(min(MAX_PIXELS, budget), int(choice.min_pixels * 1.05))
    return list(
        smart_resize(
            height,
            width,
            factor=TOKEN_SIDE_PX,
            min_pixels=choice.min_pixels,
            max_pixels=min(choice.max_pixels, limit),
        )
    )


class _DoubtError(Exception):
    """The pictures of a stream are not what their time stamps promise."""


def _read(path: Path, *wishes: _Wish) -> list[Clip]:
    """One clip per wish, from one pass through the file."""
    with _opened(path) as (container, stream):
        packets = _walk(path, container, stream, decode_first=False)
        asked = [wish.indices(packets.frames, packets.fps) for wish in wishes]
        wanted = {index for indices in asked for index in indices}
        try:
            pictures = _pictures_by_time(container, stream, packets, wanted)
            return _clips(pictures, wishes, asked, packets.frames, packets.fps)
        except (_DoubtError, av.error.FFmpegError):
            pass  # to the reader that knows better, below
    header = probe(path)
    pictures = _pictures_by_count(path, header, wanted)
    return _clips(pictures, wishes, asked, header.frames, header.fps)


def _clips(
    pictures: Iterator[tuple[int, av.VideoFrame]],
    wishes: Sequence[_Wish],
    asked: Sequence[Sequence[int]],
    total: int,
    fps: float,
) -> list[Clip]:
    """Turns pictures as they are shown and resizes them; no more than one is in memory at its own
    size.
    """
    resized: list[dict[int, torch.Tensor]] = [{} for _ in wishes]
    for index, picture in pictures:
        width, height = _shown_size(picture)
        rgb = _rgb(picture)
        for wish, indices, done in zip(wishes, asked, resized, strict=True):
            if index in indices:
                done[index] = _resized(rgb, wish.size(width, height, len(indices)))
    return [
        Clip(
            frames=torch.stack([done[index] for index in indices]),
            indices=tuple(indices),
            total_frames=total,
            source_fps=fps,
            sample_fps=len(indices) / total * fps,
            decoder=DECODER,
            width=width,
            height=height,
        )
        for indices, done in zip(asked, resized, strict=True)
    ]


def _pictures_by_time(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: _Packets,
    wanted: set[int],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(index, picture) of the wanted pictures, from the beginning to the last of them. A picture's
    index is its rank by time, so those that are left out on the way shift nothing.

    Raises:
        _DoubtError: See above; FFmpegError likewise.
    """
    times = {time for time in packets.times if time is not None}
    if packets.begin is None or len(times) != packets.frames:
        raise _DoubtError
    in_order = sorted(times)
    needed = _needed(packets, {in_order[index] for index in wanted})
    last = max(wanted)
    expected = ((i, t) for i, t in enumerate(in_order) if t in needed)
    codec = stream.codec_context
    shown = {(codec.width, codec.height), (codec.height, codec.width)}
    container.seek(packets.rewind, stream=stream)
    for number, packet in enumerate(container.demux(stream)):
        if number == 0 and packet.pts != packets.begin:
            raise _DoubtError
        # What an edit list discards is not among the times, and may be referred to.
        if packet.pts in times and packet.pts not in needed:
            continue
        for picture in packet.decode():
            index, time = next(expected, (0, None))
            if picture.pts != time or picture.is_corrupt or _shown_size(picture) not in shown:
                raise _DoubtError
            shown = {_shown_size(picture)}
            if index in wanted:
                yield index, picture
            if index == last:
                return
    raise _DoubtError


def _needed(packets: _Packets, wanted: set[int]) -> set[int]:
    """Times of the wanted pictures and of all that they may depend on, which come before them in
    the stream.
    """
    needed, referring = set(), False
    for time in reversed(packets.times):
        referred = referring and time not in packets.unreferenced
        if time in wanted or referred or (needed and time in packets.settings):
            needed.add(time)
            referring = time not in packets.fresh
    return needed


def _pictures_by_count(
    path: Path, header: VideoHeader, wanted: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(index, picture) of the wanted pictures; decodes to the end, for only then it is known that
    no picture was lost on the way.
    """
    count, cause = 0, None
    with _opened(path) as (container, stream):
        try:
            for picture in container.decode(stream):
                shown = _shown_size(picture)
                if picture.is_corrupt:
                    cause = "a damaged picture"
                    break
                if shown != (header.width, header.height):
                    cause = f"pictures of {shown[0]}x{shown[1]} follow"
                    break
                if count in wanted:
                    yield count, picture
                count += 1
        except av.error.FFmpegError as error:
            cause = error.strerror
    if cause or count != header.frames:
        raise VideoError(
            "decode_error",
            f"{path} breaks after {count} of {header.frames} pictures "
            f"({cause or 'the rest cannot be decoded'}); replace it",
        )


def _rgb(picture: av.VideoFrame) -> np.ndarray:
    """uint8 (H, W, 3) as it is shown."""
    # FFmpeg would upsample the colours of interlaced pictures field by field, decord does not; a
    # copy of the planes has no such mark.
    planes = picture
    if picture.interlaced_frame and picture.format.name in ("yuv420p", "yuvj420p"):
        planes = av.VideoFrame.from_ndarray(picture.to_ndarray(), format=picture.format.name)
        planes.colorspace, planes.color_range = picture.colorspace, picture.color_range
    return np.rot90(planes.to_ndarray(format="rgb24"), _quarter_turns(picture))


def _resized(picture_HW3: np.ndarray, size: list[int]) -> torch.Tensor:
    """uint8 (3, H, W); bicubic with antialias, rounded and clamped, as qwen-vl-utils does it."""
    picture_3HW = torch.from_numpy(np.ascontiguousarray(picture_HW3)).permute(2, 0, 1)
    return resize(picture_3HW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
