"""Files with pictures: what a container holds, why it gives no clip, and its pictures as they are
shown. Needs FFmpeg (PyAV) and numpy alone.

The container's packets are walked through first: what cannot be a clip is refused before anything
large is decoded, by its sides and its number of pictures, and FFmpeg refuses larger pictures than
the header tells of. Then the wanted pictures are decoded in one pass from the beginning. Time and
memory are bounded by the process that reads (`data.processes`).

The pass knows pictures by their time stamps, so it can leave out those of which neither the caller
nor another picture has need: after the last wanted one, and in an H.264 stream, where pictures
tell, also those to which no other refers and those before a fresh start. All others must come, in
the order of their times. Anything odd (times that are missing or not in order, a picture that does
not come, damage, another size) sends the file to a second reader that decodes and counts every
picture, and tells how far the stream is good.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from lmme3dhf.errors import UserError, format_error

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
    "time_out",
    "out_of_memory",
    "changed",
)

# Vision patches of 14 pixels, merged 2 by 2: one token covers 28 x 28 pixels, and no side may be
# smaller.
TOKEN_SIDE_PX = 28
MAX_SIDE_PX = 4096
# 27 minutes at 60 pictures per second, 400 times a clip of Gen3DHF. The walk through so many takes
# a second or two; the model sees 768 of them at most.
MAX_PICTURES = 100_000
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
# FFmpeg's own limit: a header may tell a small size, and the pictures behind it are large.
# Some decoders count the margin that they add.
_LIMITS = {"max_pixels": str((MAX_SIDE_PX + 128) ** 2)}
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
        with av.open(str(path.absolute()), metadata_errors="replace", options=_LIMITS) as container:
            stream = _video_stream(path, container, start)
            # Clips are read side by side by several workers; more threads cost more than they give.
            stream.codec_context.thread_count = 1
            stream.codec_context.options = _LIMITS
            yield container, stream
    except MemoryError as error:  # numpy's, torch's and FFmpeg's
        raise VideoError(
            "out_of_memory", f"{path} needs more memory than there is; allow more, or scale it"
        ) from error
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
        error.filename = str(path)  # an error while reading names no file
        raise VideoError("missing", format_error(error)) from error
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
        check_sides(str(path), codec.width, codec.height)
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
    check_sides(str(path), first.width, first.height)
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
            if len(times) > MAX_PICTURES:
                raise _too_many(path)
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
    except (av.error.DecoderNotFoundError, MemoryError):
        raise
    except av.error.ArgumentError as error:
        # What FFmpeg says to a picture above its limit; damage is "invalid data" to it.
        raise VideoError(
            "too_large",
            f"{path} has pictures that FFmpeg refuses, as it does above {MAX_SIDE_PX}x{MAX_SIDE_PX}"
            "; scale it, or replace it",
        ) from error
    except av.error.FFmpegError as error:
        _check_room(stream)
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


def _too_many(path: Path) -> VideoError:
    return VideoError(
        "too_large",
        f"{path} holds more than {MAX_PICTURES:,} pictures; expected a clip, cut it",
    )


def _check_room(stream: av.VideoStream) -> None:
    """Tells want of memory from damage, while the decoder still holds its pictures: that of H.264
    says "invalid data" to both.

    Raises:
        MemoryError: There is no room for one more picture, of up to 8 bytes a pixel.
    """
    codec = stream.codec_context
    np.empty((codec.height, codec.width, 8), dtype=np.uint8)


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


def check_sides(name: str, width: int, height: int) -> None:
    """Refuses pictures that the model cannot take, or that take too much memory.

    Args:
        name: Of the file, for the message.
        width: In pixels.
        height: In pixels.

    Raises:
        VideoError: too_small, too_large.
    """
    if min(width, height) < TOKEN_SIDE_PX:
        raise VideoError(
            "too_small",
            f"{name} has pictures of {width}x{height}; expected at least {TOKEN_SIDE_PX} a side",
        )
    if max(width, height) > MAX_SIDE_PX:
        raise VideoError(
            "too_large",
            f"{name} has pictures of {width}x{height}; expected at most {MAX_SIDE_PX} a side, "
            "scale it",
        )


def _quarter_turns(picture: av.VideoFrame) -> int:
    """How often a stored picture is turned by 90 degrees, counter-clockwise, to be shown; 0..3."""
    return round(picture.rotation / 90) % 4


def _shown_size(picture: av.VideoFrame) -> tuple[int, int]:
    """(width, height) after turning."""
    sides = picture.width, picture.height
    return sides[::-1] if _quarter_turns(picture) % 2 else sides


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What was read of a clip.

    Attributes:
        kept: Index of each wanted picture -> what was kept of it.
        total: Pictures in the clip.
        fps: Pictures per second in the clip.
        width: Of the clip as it is shown, in pixels.
        height: Of the clip as it is shown, in pixels.
        notes: See `data.video.Clip`.
    """

    kept: dict[int, Any]
    total: int
    fps: float
    width: int
    height: int
    notes: tuple[str, ...] = ()


def read_pictures(
    path: Path,
    choose: Callable[[int, float], Iterable[int]],
    keep: Callable[[int, np.ndarray], Any],
) -> Pictures:
    """Reads pictures of a clip in one pass; no more than one is in memory, but for what is kept.

    Known limit: damage that a codec conceals goes unnoticed, and so does damage to pictures that
    are left out or come after the last wanted one.

    Args:
        path: The clip.
        choose: (pictures in the clip, pictures per second) -> indices of the wanted ones, from 0.
        keep: (index, uint8 (H, W, 3), RGB, as it is shown) -> what is kept of it.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        packets = _walk(path, container, stream, decode_first=False)
        wanted = set(choose(packets.frames, packets.fps))
        try:
            pictures = _pictures_by_time(container, stream, packets, wanted)
            return _kept(pictures, keep, packets.frames, packets.fps)
        except MemoryError:
            raise
        except (_DoubtError, av.error.FFmpegError):
            pass  # to the reader that knows better, below
    header = probe(path)
    pictures = _pictures_by_count(path, header, wanted)
    return _kept(pictures, keep, header.frames, header.fps)


def view_pictures(path: Path, fractions: Sequence[float]) -> list[np.ndarray]:
    """Single pictures at the clip's own size, at round(fraction * (pictures - 1)), halves to the
    even number.

    Args:
        path: The clip.
        fractions: Places in the clip, 0 for its first picture and 1 for its last, in any order.

    Returns:
        uint8 (H, W, 3), RGB, as shown, in the order of `fractions`.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
        ValueError: No fraction, or one outside 0..1.
    """
    indices: list[int] = []

    def choose(total: int, fps: float) -> list[int]:
        indices[:] = view_indices(fractions, total)
        return indices

    kept = read_pictures(path, choose, lambda _, picture_HW3: picture_HW3).kept
    return [kept[index] for index in indices]


def read_strip(path: Path, fractions: Sequence[float]) -> np.ndarray:
    """The pictures of `view_pictures` side by side: the strip that annotators mark (paper, Fig. 4).

    Returns:
        uint8 (height, fractions * width, 3), RGB.

    Raises:
        VideoError: As `view_pictures`.
        ValueError: Likewise.
    """
    return np.hstack(view_pictures(path, fractions))


def view_indices(fractions: Sequence[float], total: int) -> list[int]:
    """Indices of the pictures at fractions of a clip of `total` pictures.

    Raises:
        ValueError: No fraction, or one outside 0..1.
    """
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"views at {fractions}, expected fractions of the clip in 0..1")
    return [round(fraction * (total - 1)) for fraction in fractions]


def _kept(
    pictures: Iterator[tuple[int, av.VideoFrame]],
    keep: Callable[[int, np.ndarray], Any],
    total: int,
    fps: float,
) -> Pictures:
    kept, size = {}, (0, 0)
    for index, picture in pictures:
        size = _shown_size(picture)
        kept[index] = keep(index, _rgb(picture))
    return Pictures(kept=kept, total=total, fps=fps, width=size[0], height=size[1])


class _DoubtError(Exception):
    """The pictures of a stream are not what their time stamps promise."""


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
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            cause = error.strerror
        if cause or count != header.frames:
            _check_room(stream)
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
