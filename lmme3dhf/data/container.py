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
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
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
# The model joins frames in pairs. There is no other rule on length, for files and for frames in
# memory: a model that takes more frames than a clip has gets those (`video.FrameChoice`).
MIN_FRAMES = 2
# 27 minutes at 60 pictures per second, 400 times a clip of Gen3DHF. The walk through so many takes
# a second or two; the model sees 768 of them at most.
MAX_PICTURES = 100_000
# FFmpeg opens these as video although they are text: subtitle art, and playlists that name other
# files.
_TEXT_FORMATS = {"tty", "hls", "dash", "concat"}
_STILL_FORMATS = {"image2", "ico"}
_STILL_BRANDS = ("avif", "heic", "heix", "mif1")
_ANIMATED_PICTURE_FORMATS = {"gif", "apng"}
# Of these FFmpeg adds up or looks up the times, so that their duration proves nothing.
_MEASURED = {"gif", "mpegts", "mpeg", "ogg", "nut"}
# Boxes at the top level of MP4 and MOV (ISO/IEC 14496-12, 6.2.3, and QuickTime).
_BOXES = {
    *(b"ftyp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"styp", b"emsg", b"prft"),
    *(b"free", b"skip", b"wide", b"meta", b"meco", b"uuid", b"pdin", b"udta", b"pnot"),
}
# The identifier of the object that has the file's size.
_ASF_FILE_PROPERTIES = rb"\xa1\xdc\xab\x8cG\xa9\xcf\x11\x8e\xe4\0\xc0\x0c Se"
# Types of units in H.264 (ITU-T H.264, Table 7-1): parts of pictures, parts of one that starts
# afresh, and parameter sets.
_SLICES = range(1, 6)
_FRESH = 5
_SETTINGS = {7, 8, 13, 15}
# FFmpeg's own limit: a header may tell a small size, and the pictures behind it are large.
# Some decoders count the margin that they add.
_LIMITS = {"max_pixels": str((MAX_SIDE_PX + 128) ** 2)}
# A good file may be one that FFmpeg cannot decode.
_UNSUPPORTED = (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)
# Said of what is shown otherwise than the file stores it.
TRANSPARENT = "transparent pixels are shown on black"
# FFmpeg's own decoders of VP8 and VP9 drop the alpha that WebM has beside each frame.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# What reads clips; a part of the key of everything that is stored. The number rises when the same
# file gives other frames: 2 since flips, pixel shapes, time stamps and transparency are applied.
DECODER = "pyav2"


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
        mirrored: Whether the stored picture is mirrored left to right before it is turned.
        pixel_ratio: Width of a stored pixel by its height; included in width and height.
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
    mirrored: bool = False
    pixel_ratio: Fraction = Fraction(1)


def probe(path: Path) -> VideoHeader:
    """Reads a file's header and packets and decodes one picture at most; fast, and bounded for
    hostile files too.

    A cut MPEG-TS, NUT, Ogg or raw stream looks like a shorter one, and so does a GIF that is cut
    between images. Damage inside a picture shows on reading.

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
            codec = stream.codec_context
            codec.thread_count, codec.options = 1, _LIMITS
            # The fourth byte of an uncompressed AVI (BI_RGB) is not alpha, and often 0.
            if (codec.name, codec.codec_tag, codec.pix_fmt) == ("rawvideo", "\0" * 4, "bgra"):
                codec.pix_fmt = "bgr0"
            yield container, stream
    except MemoryError as error:  # numpy's, torch's and FFmpeg's
        raise VideoError(
            "out_of_memory", f"{path} needs more memory than there is; allow more, or scale it"
        ) from error
    except (av.error.DecoderNotFoundError, av.codec.codec.UnknownCodecError) as error:
        raise VideoError(
            "unsupported_codec", f"{path}: FFmpeg has no decoder for it; convert it to H.264 in MP4"
        ) from error
    except av.error.PatchWelcomeError as error:
        raise VideoError(
            "unsupported_codec",
            f"{path} uses what FFmpeg does not support; convert it to H.264 in MP4",
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
        what = "is not an ordinary file" if path.exists() else missing(path)
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


def missing(path: Path) -> str:
    """What is wrong with a path that does not exist, after its name."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which does not exist"
    return "does not exist"


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
    if start.startswith(b"\x89PNG"):
        return VideoError(
            "unsupported_codec",
            f"{path} is a PNG that FFmpeg cannot open ({cause}); convert it to H.264 in MP4",
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
    orientation = _orientation(first) or _Orientation()
    width, height = _shown_size(path, first, packets.pixel_ratio, orientation)
    return VideoHeader(
        width=width,
        height=height,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        rotation_deg=90 * orientation.turns,
        mirrored=orientation.mirrored,
        pixel_ratio=packets.pixel_ratio,
        frames=packets.frames,
        fps=packets.timeline.fps,
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
        timeline: When the pictures are shown.
        pixel_ratio: Width of a stored pixel by its height.
        first: The first picture, where it was asked for and can be decoded.
    """

    times: list[int | None]
    begin: int | None
    rewind: int | None
    unreferenced: set[int | None]
    fresh: set[int | None]
    settings: set[int | None]
    keyframes: int
    timeline: "Timeline"
    pixel_ratio: Fraction
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
    gif = container.format.name == "gif"
    times, decoded, durations = [], [], []
    keyframes, damaged, first, refused = 0, None, None, None
    begin, rewind, start, end = None, None, math.inf, -math.inf
    stored, lasting, images, is_image_cut = 0, 0, 0, False
    try:
        for packet in _demuxed(container, stream):
            if decode_first and first is None and refused is None:
                try:
                    first = next(iter(packet.decode()), None)
                except av.error.FFmpegError as error:
                    refused = error  # unless it is no clip at all
            if rewind is None:
                begin, rewind = packet.pts, packet.pts if packet.dts is None else packet.dts
            stored += bool(packet.size)
            lasting += packet.duration or 0
            # An edit list discards pictures that are stored but not shown; the last packet is an
            # empty mark.
            if not packet.size or packet.is_discard:
                continue
            if gif:
                images, is_image_cut = _gif_images(bytes(packet))
            times.append(packet.pts)
            decoded.append(packet.dts)
            durations.append(packet.duration or 0)
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
    except av.error.FFmpegError as error:
        raise _undecodable(path, stream, error) from error
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
    ends_early = _ends_early(path, container, stream, stored)
    announced = _announced_end_s(container, stream)
    if ends_early is not None:
        # What Matroska lost may be the index at its end, or the end of a sound track.
        lasted = announced is not None and end >= announced - float(2 * stream.time_base)
        cut = ends_early and not (lasted and stream.duration is None)
    else:
        # The last packet may not tell how long it lasts, hence the tolerance.
        slack = max(2 / fps, 0.02 * announced) if announced is not None and fps else math.inf
        cut = announced is not None and end < announced - slack
        if cut and stream.duration is not None and stored >= stream.frames:
            # With B-frames, fragmented files announce the sum of what packets last, or add the
            # delay of the first picture. A file with less than the smallest of these is cut.
            delay = 0 if begin is None else begin - rewind
            covered = max(float(lasting * stream.time_base), end - start)
            cut = covered + float(delay * stream.time_base) < (
                float(stream.duration * stream.time_base) - slack
            )
    if damaged is not None or cut or is_image_cut:
        raise VideoError(
            "truncated",
            f"{path} breaks off after {frames} pictures; it was cut off, copy or download it again",
        )
    # AVI stores when frames are decoded. Where FFmpeg knows no other order, it takes the time of
    # the next frame for when one is shown.
    is_avi = container.format.name == "avi" and None not in times and times == sorted(times)
    timeline = _timeline(decoded if is_avi else times, durations, stream.time_base, fps)
    if frames > 1 and not timeline.fps:
        raise VideoError("decode_error", f"{path} tells no frame rate; convert it to H.264 in MP4")
    # FFmpeg takes images without times, and all that follow an empty comment, for a single one.
    if frames < MIN_FRAMES and gif and max(stream.frames, images) > 1:
        raise VideoError(
            "unsupported_codec",
            f"{path} is a GIF of {max(stream.frames, images)} images, of which FFmpeg reads one; "
            "convert it to H.264 in MP4",
        )
    if frames < MIN_FRAMES and container.format.name in _ANIMATED_PICTURE_FORMATS:
        raise _still_image(path)
    check_length(str(path), frames)
    if refused is not None:
        raise _undecodable(path, stream, refused) from refused
    return _Packets(
        times=times,
        begin=begin,
        rewind=rewind,
        unreferenced=unreferenced,
        fresh=fresh,
        settings=settings,
        keyframes=keyframes,
        timeline=timeline,
        # PyAV gives the container's, then the codec's, as players take them.
        pixel_ratio=stream.sample_aspect_ratio or Fraction(1),
        first=first,
    )


def _undecodable(path: Path, stream: av.VideoStream, error: av.error.FFmpegError) -> Exception:
    """The error for a file whose first frame or packets FFmpeg refuses."""
    if isinstance(error, _UNSUPPORTED):
        return error
    if isinstance(error, av.error.ArgumentError):
        # What FFmpeg says to a picture above its limit; damage is "invalid data" to it.
        return VideoError(
            "too_large",
            f"{path} has pictures that FFmpeg refuses, as it does above {MAX_SIDE_PX}x{MAX_SIDE_PX}"
            "; scale it, or replace it",
        )
    _check_room(stream)
    return VideoError(
        "decode_error", f"{path} is damaged at its beginning ({error.strerror}); replace it"
    )


def _demuxed(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The stream's packets, without those of a GIF that have no image."""
    gif = container.format.name == "gif"
    for packet in container.demux(stream):
        if not gif or not packet.size or _gif_images(bytes(packet))[0]:
            yield packet


def _gif_images(packet: bytes) -> tuple[int, bool]:
    """How many images a GIF packet has, and whether the last one is cut off. After a file's last
    image, comments and other extensions make a packet of their own (GIF89a, sections 17 to 27).
    """

    def colours(flags: bytes) -> int:
        return 6 << (flags[0] & 7) if flags and flags[0] & 0x80 else 0

    at, images, is_cut = 0, 0, False
    if packet.startswith(b"GIF"):
        at = 13 + colours(packet[10:11])
    while (kind := packet[at : at + 1]) in (b"\x21", b"\x2c"):
        # An extension's label, or an image's descriptor, colours and code size; then blocks up to
        # an empty one.
        at += 2 if kind == b"\x21" else 11 + colours(packet[at + 9 : at + 10])
        while at < len(packet) and packet[at]:
            at += 1 + packet[at]
        at += 1
        images += kind == b"\x2c"
        is_cut = kind == b"\x2c" and at > len(packet)
    return images or int(kind not in (b"", b"\x3b")), is_cut


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """When the frames of a clip are shown.

    Attributes:
        frames: Frames in the clip.
        fps: Frames per second, the average over the duration.
        starts_s: (frames,) when each frame appears, in seconds after the first, equal for frames
            with the same time stamp; None where frames are evenly spaced, or where time stamps are
            missing or half of them are repeated.
    """

    frames: int
    fps: float
    starts_s: np.ndarray | None = None

    def at(self, fractions: Sequence[float]) -> list[int]:
        """Indices of the frames that are shown at fractions of the duration, or, where frames are
        evenly spaced, as `view_indices` gives them.

        Raises:
            ValueError: No fraction, or one outside 0..1.
        """
        even = view_indices(fractions, self.frames)
        if self.starts_s is None:
            return even
        # Containers round time stamps, Matroska to milliseconds: a frame is never missed by that.
        times_s = np.asarray(fractions) * self.frames / self.fps + 1e-3
        return (np.searchsorted(self.starts_s, times_s, side="right") - 1).tolist()


def _timeline(
    times: Sequence[int | None], durations: Sequence[int], time_base: Fraction, header_fps: float
) -> Timeline:
    """The rate of the time stamps, or the header's where it is within their rounding."""
    total = len(times)
    if total < 2 or None in times or len(set(times)) <= total // 2:
        return Timeline(frames=total, fps=header_fps)
    order = np.argsort(times)
    starts = np.array(times)[order] - min(times)
    span, longest_gap = int(starts[-1]), int(np.diff(starts).max())
    interval = span / (total - 1)
    # Not every container tells how long the last frame lasts, and some guess: it lasts as long as
    # the one before it, except where all durations agree with the stamps and it is held for long.
    last = int(starts[-1] - starts[-2])
    held = durations[order[-1]]
    is_held = held > 2 * longest_gap and (abs(sum(durations) - held - span) <= total + span // 10)
    is_even = not is_held and bool(
        (np.abs(starts - interval * np.arange(total)) < interval / 2).all()
    )
    ticks = Fraction(span * total, total - 1) if is_even else span + (held if is_held else last)
    duration = ticks * time_base
    # Half a millisecond decides on the number of frames and their positions in the model, so that
    # a duration is taken for a simple one where stamps are not exact enough to tell them apart.
    simple = duration.limit_denominator(60)
    is_simple = abs(simple - duration) <= time_base
    if is_even and header_fps:
        off_s = abs((total - 1) / header_fps - float(span * time_base))
        # An earlier container may have rounded the stamps to milliseconds.
        if off_s <= (time_base if is_simple else max(time_base, 1 / 2000)):
            return Timeline(frames=total, fps=header_fps)
    if is_simple:
        duration = simple
    return Timeline(
        frames=total,
        fps=float(total / duration),
        starts_s=None if is_even else starts * float(time_base),
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


def _ends_early(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, stored: int
) -> bool | None:
    """Whether a file is shorter than its own headers say and lacks frames; None where they do not
    say.

    Args:
        path: The file.
        container: The file, opened.
        stream: The video stream in it.
        stored: Frames in it, counted by packets.
    """
    name, size = container.format.name, path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4096)
        if name == "avi":  # 0 and all ones: not known when it was written
            # Some writers count the first 8 bytes as well.
            stated = int.from_bytes(start[4:8], "little")
            return size < stated < 2**32 - 1 and stored < (stream.frames or math.inf)
        if name == "flv":
            found = re.search(rb"\0\x08filesize\0(.{8})", start, re.DOTALL)
            return size < struct.unpack(">d", found[1])[0] if found else None
        if name == "asf":  # 0: not known when it was written
            found = re.search(_ASF_FILE_PROPERTIES + rb".{24}(.{8})", start, re.DOTALL)
            return size < int.from_bytes(found[1], "little") if found and any(found[1]) else None
        if name.startswith("matroska"):
            at = start.find(b"\x18\x53\x80\x67") + 4  # the segment; then its size (RFC 8794, 4)
            length = 9 - start[at].bit_length() if 4 <= at < len(start) else 0
            stated = int.from_bytes(start[at : at + length], "big") & ((1 << 7 * length) - 1)
            is_known = stated != (1 << 7 * length) - 1
            return size < at + length + stated if is_known else None
        if not name.startswith("mov") and name != "apng":
            return None
        at, kinds, frames = (8 if name == "apng" else 0), set(), stream.frames
        for _ in range(2 * MAX_PICTURES):
            file.seek(min(at, size))
            header = file.read(16)
            kind, length = header[4:8], int.from_bytes(header[:4], "big")
            if name == "apng":
                length += 12  # PNG (third edition), 5.3
            elif length == 1:  # 64 bits follow (ISO/IEC 14496-12, 4.2)
                length = int.from_bytes(header[8:], "big")
            # The rest of the file (0), or something that was appended.
            if length < 8 or (name != "apng" and kind not in _BOXES):
                break
            kinds.add(kind)
            at += length
            if kind == b"acTL":
                frames = int.from_bytes(header[8:12], "big")
            if kind == b"IEND":
                break
    if name == "apng":
        return (at > size or b"IEND" not in kinds) and stored < frames
    if b"moof" in kinds or not frames:
        return True if at > size else None  # after whole fragments, others may be missing
    return at > size and stored < frames


def _announced_end_s(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    """When the stream is to end by its own header, in seconds; Matroska has it in a tag."""
    if container.format.name in _MEASURED:
        return None
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) if tag else None


def _still_image(path: Path) -> VideoError:
    return VideoError(
        "still_image", f"{path} is a still picture; expected a clip of at least 2 pictures"
    )


def check_length(name: str, frames: int) -> None:
    """Refuses what is no clip.

    Args:
        name: The file, for the message.
        frames: How many it has.

    Raises:
        VideoError: too_short.
    """
    if frames < MIN_FRAMES:
        raise VideoError("too_short", f"{name} holds fewer than 2 pictures; expected a clip")


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


@dataclass(frozen=True, kw_only=True)
class _Orientation:
    """How a stored picture is shown: mirrored left to right, then turned.

    Attributes:
        turns: By 90 degrees, counter-clockwise; 0..3.
        mirrored: Whether it is mirrored.
        notes: What the display matrix asks for beyond that.
    """

    turns: int = 0
    mirrored: bool = False
    notes: tuple[str, ...] = ()


def _unknown(cls: type[SideDataType], number: object) -> SideDataType:
    """A member for a kind of side data that PyAV does not know, for which it refuses all others."""
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{number}", number
    return member


# FFmpeg has kinds that PyAV 18 does not list, such as EXIF.
SideDataType._missing_ = classmethod(_unknown)


def _orientation(picture: av.VideoFrame) -> _Orientation | None:
    """What the display matrix asks for; FFmpeg hands it out for every container, and for EXIF. None
    without one: an H.264 stream may carry it in its first picture alone, for all that follow.
    """
    # Not `picture.side_data`: the two would refer to each other, and pictures, with the threads
    # that converted them, would pile up until Python looks for cycles.
    side_data = SideDataContainer(picture).get(SideDataType.DISPLAYMATRIX)
    if side_data is None:
        return None
    # A stored point (p, q) is shown at (a p + c q, b p + d q).
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(side_data), dtype=np.int32)[:5])
    sides = math.hypot(a, b) * math.hypot(c, d)
    if not sides:
        return _Orientation()
    mirrored = a * d < b * c
    clockwise_deg = math.degrees(math.atan2(-b, -a) if mirrored else math.atan2(b, a))
    turns = round(-clockwise_deg / 90)
    notes = ()
    # One degree is FFmpeg's own tolerance.
    off_deg = abs(clockwise_deg + 90 * turns)
    if off_deg > 1 or abs(a * c + b * d) > math.sin(math.radians(1)) * sides:
        asked = f"turned by {clockwise_deg:.0f} degrees" if off_deg > 1 else "slanted"
        notes = (
            f"its display matrix asks for frames {asked}, they are shown at the nearest multiple "
            "of 90 degrees",
        )
    return _Orientation(turns=turns % 4, mirrored=mirrored, notes=notes)


def _shown_size(
    path: Path, picture: av.VideoFrame, pixel_ratio: Fraction, orientation: _Orientation
) -> tuple[int, int]:
    """(width, height) in square pixels after turning: as in players, the stored width is scaled.

    Raises:
        VideoError: too_small, too_large, before or after scaling.
    """
    check_sides(str(path), picture.width, picture.height)
    sides = round(picture.width * pixel_ratio), picture.height
    if sides[0] != picture.width:
        name = f"{path} has a sample aspect ratio of {pixel_ratio} and so"
        check_sides(name, *sides)
    return sides[::-1] if orientation.turns % 2 else sides


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What was read of a clip.

    Attributes:
        kept: Index of each wanted picture -> what was kept of it.
        timeline: When the clip's pictures are shown.
        width: Of the clip as it is shown, in square pixels.
        height: Of the clip as it is shown, in square pixels.
        notes: See `data.video.Clip`.
    """

    kept: dict[int, Any]
    timeline: Timeline
    width: int
    height: int
    notes: tuple[str, ...] = ()


def read_pictures(
    path: Path,
    choose: Callable[[Timeline], Iterable[int]],
    keep: Callable[[int, np.ndarray, tuple[int, int]], Any],
) -> Pictures:
    """Reads pictures of a clip in one pass; no more than one is in memory, but for what is kept.

    Known limit: damage that a codec conceals goes unnoticed, and so does damage to pictures that
    are left out or come after the last wanted one.

    Args:
        path: The clip.
        choose: When the clip's pictures are shown -> indices of the wanted ones, from 0.
        keep: (index, uint8 (H, W, 3), RGB, upright, in stored pixels; width and height at which it
            is shown, which differ from (W, H) where pixels are not square) -> what is kept of it.

    Raises:
        VideoError: As `probe`, and decode_error where the clip breaks.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        packets = _walk(path, container, stream, decode_first=False)
        timeline, ratio = packets.timeline, packets.pixel_ratio
        wanted = set(choose(timeline))
        try:
            pictures = _pictures_by_time(container, stream, packets, wanted)
            return _kept(path, pictures, keep, timeline, ratio)
        except (MemoryError, *_UNSUPPORTED):
            raise
        except (_DoubtError, av.error.FFmpegError):
            pass  # to the reader that knows better, below
    header = probe(path)
    pictures = _pictures_by_count(path, header, wanted)
    return _kept(path, pictures, keep, timeline, ratio)


def view_pictures(path: Path, fractions: Sequence[float]) -> list[np.ndarray]:
    """Single pictures at the size at which the clip is shown, see `Timeline.at`.

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

    def choose(timeline: Timeline) -> list[int]:
        indices[:] = timeline.at(fractions)
        return indices

    def keep(_: int, picture_HW3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if picture_HW3.shape[1::-1] == size:
            return picture_HW3
        stored = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HW3), format="rgb24")
        return stored.reformat(*size, interpolation="BICUBIC").to_ndarray()

    kept = read_pictures(path, choose, keep).kept
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
    path: Path,
    pictures: Iterator[tuple[int, av.VideoFrame, _Orientation]],
    keep: Callable[[int, np.ndarray, tuple[int, int]], Any],
    timeline: Timeline,
    pixel_ratio: Fraction,
) -> Pictures:
    kept, size, notes = {}, (0, 0), {}
    for index, picture, orientation in pictures:
        size = _shown_size(path, picture, pixel_ratio, orientation)
        alpha_HW = _alpha(picture)
        kept[index] = keep(index, _upright(_rgb(picture, alpha_HW), orientation), size)
        notes |= dict.fromkeys(orientation.notes)
        if alpha_HW is not None:
            notes[TRANSPARENT] = None
    return Pictures(kept=kept, timeline=timeline, width=size[0], height=size[1], notes=tuple(notes))


class _DoubtError(Exception):
    """The pictures of a stream are not what their time stamps promise."""


def _pictures_by_time(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: _Packets,
    wanted: set[int],
) -> Iterator[tuple[int, av.VideoFrame, _Orientation]]:
    """(index, picture, orientation) of the wanted pictures, from the beginning to the last of them.
    A picture's index is its rank by time, so those that are left out on the way shift nothing.

    Raises:
        _DoubtError: See above; FFmpegError likewise.
    """
    times = {time for time in packets.times if time is not None}
    if packets.begin is None or len(times) != packets.frames:
        raise _DoubtError
    in_order = sorted(times)
    # The first tells how all are turned.
    needed = _needed(packets, {in_order[index] for index in {0, *wanted}})
    last, orientation = max(wanted), None
    expected = ((i, t) for i, t in enumerate(in_order) if t in needed)
    codec = stream.codec_context
    size = codec.width, codec.height
    container.seek(packets.rewind, stream=stream)
    decoder = _decoder(stream)
    for number, packet in enumerate(_demuxed(container, stream)):
        if number == 0 and packet.pts != packets.begin:
            raise _DoubtError
        # What an edit list discards is not among the times, and may be referred to.
        if packet.pts in times and packet.pts not in needed:
            continue
        for picture in decoder.decode(packet):
            index, time = next(expected, (0, None))
            if picture.pts != time or picture.is_corrupt or (picture.width, picture.height) != size:
                raise _DoubtError
            found = _orientation(picture)
            if orientation is None:
                orientation = found or _Orientation()
            elif found not in (None, orientation):  # turned in the middle
                raise _DoubtError
            if index in wanted:
                yield index, picture, orientation
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
) -> Iterator[tuple[int, av.VideoFrame, _Orientation]]:
    """(index, picture, orientation) of the wanted pictures; decodes to the end, for only then it is
    known that no picture was lost on the way.
    """
    count, cause, orientation = 0, None, _Orientation()
    with _opened(path) as (container, stream):
        try:
            decoder = _decoder(stream)
            packets = _demuxed(container, stream)
            for picture in (p for packet in packets for p in decoder.decode(packet)):
                orientation = _orientation(picture) or orientation
                shown = _shown_size(path, picture, header.pixel_ratio, orientation)
                if picture.is_corrupt:
                    cause = "a damaged picture"
                    break
                if shown != (header.width, header.height):
                    raise VideoError(
                        "unsupported_codec",
                        f"{path} goes on at {shown[0]}x{shown[1]} after {count} frames of "
                        f"{header.width}x{header.height}; convert it to one size",
                    )
                if count in wanted:
                    yield count, picture, orientation
                count += 1
        except (MemoryError, *_UNSUPPORTED):
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


def _decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's own decoder, or the one that reads the alpha in a WebM file."""
    own = stream.codec_context
    # FFmpeg writes the tag in capitals where it copies a stream.
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if tags.get("alpha_mode") != "1" or own.name not in _ALPHA_DECODERS:
        return own
    decoder = av.CodecContext.create(_ALPHA_DECODERS[own.name], "r")
    decoder.thread_count, decoder.options = 1, _LIMITS
    return decoder


def _alpha(picture: av.VideoFrame) -> np.ndarray | None:
    """The opacity of a picture as it is stored, uint8 (H, W); None where all of it is opaque. Taken
    as straight: PyAV does not give the frame's alpha mode.
    """
    component = next((c for c in picture.format.components if c.is_alpha), None)
    if component is None and not picture.format.has_palette:
        return None
    if component is None or sum(c.plane == component.plane for c in picture.format.components) > 1:
        alpha_HW = picture.to_ndarray(format="rgba")[..., 3]
    else:
        # swscale gets the last columns of such a plane wrong for some sizes.
        plane, is_float = picture.planes[component.plane], "f" in picture.format.name
        kind = f"{'<>'[picture.format.is_big_endian]}{'uf'[is_float]}{-(-component.bits // 8)}"
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : picture.width]
        full = 1 if is_float else 2**component.bits - 1
        alpha_HW = rows
        if full != 255:
            alpha_HW = np.rint(rows.clip(0, full) * np.float32(255 / full)).astype(np.uint8)
    return None if alpha_HW.min() == 255 else alpha_HW


def on_black(colours_HW3: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Straight colours over black, rounded to the nearest: what is transparent decides nothing."""
    opaque_HW3 = colours_HW3.astype(np.uint16) * alpha_HW[..., None]
    return ((opaque_HW3 + 127) // 255).astype(np.uint8)


def _rgb(picture: av.VideoFrame, alpha_HW: np.ndarray | None) -> np.ndarray:
    """uint8 (H, W, 3) as it is stored, over black."""
    # FFmpeg would upsample the colours of interlaced pictures field by field, decord does not; a
    # copy of the planes has no such mark.
    planes = picture
    if picture.interlaced_frame and picture.format.name in ("yuv420p", "yuvj420p"):
        planes = av.VideoFrame.from_ndarray(picture.to_ndarray(), format=picture.format.name)
        planes.colorspace, planes.color_range = picture.colorspace, picture.color_range
    colours_HW3 = planes.to_ndarray(format="rgb24")
    if alpha_HW is not None:
        colours_HW3 = on_black(colours_HW3, alpha_HW)
    return colours_HW3


def _upright(stored_HW3: np.ndarray, orientation: _Orientation) -> np.ndarray:
    """The colours of a picture, mirrored and turned by its display matrix."""
    return np.rot90(stored_HW3[:, ::-1] if orientation.mirrored else stored_HW3, orientation.turns)
