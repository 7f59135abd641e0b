"""Animated GIF and PNG: what is good is read, what FFmpeg cannot do is called not supported, and
only data that cannot be decoded are called damaged. Pillow is the other decoder.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.data.container import VideoError, probe, verify
from lmme3dhf.data.verify import verdicts
from lmme3dhf.data.video import FrameChoice, read_clip
from tests.conftest import shared_data
from tests.data.test_video import noise

CHOICE = FrameChoice(min_pixels=4 * 28 * 28)
# Blocks of GIF89a, sections 23 to 26, and the application block that browsers know.
CONTROL = b"\x21\xf9\x04\x00\x04\x00\x00\x00"
COMMENT = b"\x21\xfe\x05hello\x00"
PLAIN_TEXT = b"\x21\x01\x0c" + struct.pack("<4H4B", 0, 0, 80, 20, 8, 8, 1, 0) + b"\x05hello\x00"
LOOP = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
XMP = b"\x21\xff\x0bXMP DataXMP\x05<xml>\x00"
LONG = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 20 + b"\x00"
TRAILER = b"\x3b"


def gif(count: int = 6) -> bytes:
    """An animated GIF without a trailer."""
    first, *others = map(Image.fromarray, noise(count))
    stream = BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=40)
    assert stream.getvalue().endswith(TRAILER)
    return stream.getvalue()[:-1]


ENDS = {
    "comment": COMMENT + TRAILER,
    "two comments": COMMENT + COMMENT + TRAILER,
    "a long comment": LONG + TRAILER,
    "a comment and no trailer": COMMENT,
    "a cut comment": COMMENT[:4],
    "application": XMP + TRAILER,
    "loop": LOOP + TRAILER,
    "plain text": CONTROL + PLAIN_TEXT + TRAILER,
    "control alone": CONTROL + TRAILER,
    "no trailer": b"",
    "two trailers": TRAILER + TRAILER,
    "zeros": TRAILER + bytes(100),
    "a web page": TRAILER + b"<html>" * 50,
}


@pytest.mark.parametrize("end", ENDS)
def test_what_follows_the_last_image_of_a_gif_is_no_frame(tmp_path, end):
    """Catches "breaks after 70 of 71 pictures, replace it" for a GIF with a comment at its end."""
    path = tmp_path / "a.gif"
    path.write_bytes(gif() + ENDS[end])
    with Image.open(path) as animation:
        assert animation.n_frames == 6
    assert probe(path).frames == 6
    verify(path)
    clip = read_clip(path, CHOICE)
    assert (clip.total_frames, clip.source_fps) == (6, 25.0)


@pytest.mark.parametrize("block", [COMMENT, XMP, LOOP, CONTROL + PLAIN_TEXT])
def test_blocks_between_the_images_of_a_gif_change_nothing(tmp_path, block):
    """Catches a walk through the blocks that loses its way."""
    plain, path = tmp_path / "plain.gif", tmp_path / "a.gif"
    plain.write_bytes(gif() + TRAILER)
    path.write_bytes((block + CONTROL[:3]).join(plain.read_bytes().split(CONTROL[:3])))
    assert path.stat().st_size > plain.stat().st_size
    verify(path)
    assert read_clip(path, CHOICE).frames.equal(read_clip(plain, CHOICE).frames)


def test_a_gif_without_times_is_not_supported(tmp_path):
    """FFmpeg gives one frame of it. Catches a still picture, of which Pillow shows six."""
    path = tmp_path / "a.gif"
    plain = gif() + TRAILER
    parts = plain.split(CONTROL[:3])
    path.write_bytes(parts[0] + b"".join(part[5:] for part in parts[1:]))
    with Image.open(path) as animation:
        assert animation.n_frames == 6
    assert refusals(path) == {"unsupported_codec"}


def test_a_gif_that_begins_with_an_empty_comment_is_not_supported(tmp_path):
    """FFmpeg gives one frame of it. Catches a still picture, of which Pillow shows six."""
    path = tmp_path / "a.gif"
    plain = gif() + TRAILER
    at = plain.index(CONTROL[:3])
    path.write_bytes(plain[:at] + b"\x21\xfe\x00" + plain[at:])
    with Image.open(path) as animation:
        assert animation.n_frames == 6
    assert refusals(path) == {"unsupported_codec"}


@pytest.mark.parametrize("lost", [1, 200, 5000])
def test_a_gif_that_is_cut_in_its_last_image_is_truncated(tmp_path, lost):
    """An image ends with an empty block. Catches a last frame of which a part is missing."""
    path = tmp_path / "a.gif"
    path.write_bytes(gif()[:-lost])
    assert refusals(path) == {"truncated"}


def test_a_still_gif_without_a_trailer_is_a_still_image(tmp_path):
    """Catches bytes after its only image that are counted as another one."""
    path = tmp_path / "a.gif"
    path.write_bytes(gif(1) + bytes(9))
    assert refusals(path) == {"still_image"}


def refusals(path: Path) -> set[str]:
    """The reasons that the doors give; none may say that a good file is damaged."""
    reasons = {next(verdicts([path])).reason}
    for door in (verify, lambda path: read_clip(path, CHOICE)):
        with pytest.raises(VideoError) as error:
            door(path)
        reasons.add(error.value.reason)
        assert ("damaged" in str(error.value)) == (error.value.reason == "decode_error")
        assert "convert it" in str(error.value) or error.value.reason != "unsupported_codec"
    return reasons


def apng(frames, *, bits: int = 8, colours: int = 2, blend: int = 0, hidden: bool = False) -> bytes:
    """An animated PNG (W3C PNG 3, section 4.9) of frames (H, W, channels) in range of `bits`.

    Args:
        frames: Integers.
        bits: 1, 8 or 16 a channel.
        colours: PNG's colour type: 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha.
        blend: 0 replaces, 1 draws over.
        hidden: Whether the default image is none of the frames.
    """
    height, width = frames[0].shape[:2]

    def data(frame: np.ndarray) -> bytes:
        rows = frame.astype(">u2" if bits == 16 else "u1")
        rows = np.packbits(rows[..., 0], axis=1) if bits == 1 else rows
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)),
        (b"acTL", struct.pack(">II", len(frames), 0)),
    ]
    if hidden:
        chunks.append((b"IDAT", data(0 * frames[0])))
    number = 0
    for frame in frames:
        control = struct.pack(">5I2H2B", number, width, height, 0, 0, 1, 25, 0, blend)
        chunks.append((b"fcTL", control))
        first = number == 0 and not hidden
        content = data(frame) if first else struct.pack(">I", number + 1) + data(frame)
        chunks.append((b"IDAT" if first else b"fdAT", content))
        number += 1 if first else 2
    chunks.append((b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def faces(*channels: int) -> list[np.ndarray]:
    """Frames of these channels; the fourth is alpha, and not all opaque."""
    alpha = np.full((96, 128), 255)
    alpha[:, :64] = 0
    return [np.dstack([face, alpha])[..., channels].astype(int) for face in noise(6)]


RGB, RGBA, GREY, GREY_ALPHA = (0, 1, 2), (0, 1, 2, 3), (0,), (0, 3)
GOOD = {
    "8 bit": apng(faces(*RGB)),
    "16 bit": apng([257 * face for face in faces(*RGB)], bits=16),
    "16 bit alpha": apng([257 * face for face in faces(*RGBA)], bits=16, colours=6),
    "16 bit grey": apng([257 * face for face in faces(*GREY)], bits=16, colours=0),
    "16 bit grey alpha": apng([257 * face for face in faces(*GREY_ALPHA)], bits=16, colours=4),
    "drawn over": apng(faces(*RGBA), colours=6, blend=1),
    "hidden default": apng(faces(*RGB), hidden=True),
    "16 bit hidden default": apng([257 * face for face in faces(*RGB)], bits=16, hidden=True),
    "trailing bytes": apng(faces(*RGB)) + bytes(50),
    "no end": apng(faces(*RGB))[:-12],
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_apngs_are_read(tmp_path, kind):
    """As Pillow counts them. Catches a hidden default image that is shown as a frame."""
    path = tmp_path / "a.png"
    path.write_bytes(GOOD[kind])
    with Image.open(path) as animation:
        assert animation.n_frames - bool(animation.default_image) == 6
    assert probe(path).frames == 6
    verify(path)
    assert read_clip(path, CHOICE).total_frames == 6


def test_apngs_that_ffmpeg_does_not_support_are_not_damaged(tmp_path):
    """Good ones by the standard, which Pillow reads: 16 bits drawn over, one bit of grey, and a
    control chunk before the animation's. Catches "it is damaged, replace it".
    """
    deep = [257 * face for face in faces(*RGBA)]
    plain = apng(faces(*RGB))
    animation, control = plain[33 : 33 + 20], plain[53 : 53 + 38]
    bad = {
        "over": apng(deep, bits=16, colours=6, blend=1),
        "bit": apng([face % 2 for face in faces(*GREY)], bits=1, colours=0),
        "order": plain[:33] + control + animation + plain[33 + 58 :],
    }
    for name, content in bad.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        with Image.open(path) as image:
            assert image.n_frames == 6
            for index in range(6):
                image.seek(index)
                image.load()
        assert refusals(path) == {"unsupported_codec"}, name


def test_damaged_animations_are_damaged(tmp_path):
    """Codes that are longer than GIF allows, and a PNG whose data are cut. Catches everything that
    is called not supported.
    """
    content = bytearray(gif())
    at = content.rindex(b"\x2c\0\0\0\0\x80\0\x60\0") + 9
    colours = 3 * 2 ** ((content[at] & 7) + 1) if content[at] & 0x80 else 0
    content[at + 1 + colours] = 15
    (tmp_path / "a.gif").write_bytes(content + TRAILER)
    with pytest.raises(VideoError, match="of 6 pictures") as error:
        verify(tmp_path / "a.gif")
    assert error.value.reason == "decode_error"
    plain = apng(faces(*RGB))
    (tmp_path / "a.png").write_bytes(plain[: len(plain) * 7 // 10])
    with pytest.raises(VideoError) as error:
        verify(tmp_path / "a.png")
    assert error.value.reason == "truncated"


def test_no_file_that_pillow_reads_whole_is_called_damaged():
    """All odd files found in the wild."""
    looked_at = 0
    for path in sorted(shared_data("odd").iterdir()):
        try:
            with Image.open(path) as image:
                for index in range(getattr(image, "n_frames", 1)):
                    image.seek(index)
                    image.load()
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue
        looked_at += 1
        verdict = next(verdicts([path]))
        assert verdict.reason not in ("decode_error", "truncated", "not_a_video"), verdict
    assert looked_at >= 30


def test_an_apng_that_lacks_images_of_which_it_tells_is_truncated(tmp_path):
    """Cut where the last of six images begins. Catches an animation of five."""
    first, *others = map(Image.fromarray, noise(6))
    path = tmp_path / "a.png"
    first.save(path, save_all=True, append_images=others, duration=40)
    assert probe(path).frames == 6
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"fcTL") - 4])
    with pytest.raises(VideoError) as error:
        probe(path)
    assert error.value.reason == "truncated"
