"""Transparent pixels: whatever colour lies under them, files that look the same are read the same,
over black, and a note says so.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from lmme3dhf.data.container import TRANSPARENT, probe, verify, view_pictures
from lmme3dhf.data.decoding import ClipReader
from lmme3dhf.data.pictures import clips_in_memory
from lmme3dhf.data.video import Clip, FrameChoice, read_clip
from tests.conftest import shared_data
from tests.data.test_video import noise

CHOICE = FrameChoice(min_frames=2, min_pixels=4 * 28 * 28)
# Codec and pixel format -> suffix, and by how much the codec changes a colour.
LOSSLESS = {
    ("ffv1", "bgra"): (".mkv", 0),
    ("ffv1", "yuva444p"): (".mkv", 5),
    ("ffv1", "yuva444p10le"): (".mkv", 5),
    ("ffv1", "yuva444p16le"): (".mkv", 5),
    ("ffv1", "gbrap12le"): (".mkv", 1),
    ("qtrle", "argb"): (".mov", 0),
    ("png", "rgba"): (".mov", 0),
    ("png", "rgba64be"): (".mov", 1),
    ("png", "ya8"): (".mov", None),
    ("utvideo", "gbrap"): (".avi", 0),
    ("apng", "rgba"): (".apng", 0),
    ("exr", "gbrapf32le"): (".mov", None),
}


def alpha_of(height: int = 96, width: int = 128) -> np.ndarray:
    """Opaque in the middle, half transparent on a stripe in it, else transparent."""
    alpha_HW = np.zeros((height, width), np.uint8)
    alpha_HW[24:72, 32:96] = 255
    alpha_HW[40:48, 32:96] = 128
    return alpha_HW


def write_rgba(
    path: Path, pictures, alpha_HW: np.ndarray, codec: str, pix_fmt: str, **options: str
) -> Path:
    """Encodes RGB pictures that share an alpha plane."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = alpha_HW.shape
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.dstack([picture, alpha_HW]), format="rgba")
            frame = frame.reformat(format=pix_fmt)
            if len(frame.planes) == 4:
                _fill_alpha(frame, alpha_HW)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _fill_alpha(frame: av.VideoFrame, alpha_HW: np.ndarray) -> None:
    """Sets the plane itself: swscale spoils rows of it now and then."""
    plane, bits = frame.planes[3], frame.format.components[3].bits
    kind, full = {8: ("u1", 255), 32: ("<f4", 1)}.get(bits, ("<u2", 2**bits - 1))
    rows = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
    values = alpha_HW * (full / 255)
    rows[:, : frame.width] = values if full == 1 else np.rint(values)
    plane.update(rows.tobytes())


def hiding(pictures, alpha_HW: np.ndarray, value: int) -> list[np.ndarray]:
    """The pictures with another colour under alpha 0."""
    return [np.where(alpha_HW[..., None] > 0, p, value).astype(np.uint8) for p in pictures]


def shown(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """All frames of a clip at its own size (T, H, W, 3), and the notes."""
    last = probe(path).frames - 1
    frames = view_pictures(path, [index / last for index in range(last + 1)])
    return np.stack(frames), read_clip(path, CHOICE).notes


def over_black(pictures, alpha_HW: np.ndarray) -> np.ndarray:
    """By the definition of straight alpha, in floats."""
    return np.rint(np.stack(pictures) * (alpha_HW[..., None] / 255)).astype(int)


@pytest.mark.parametrize(("codec", "pix_fmt"), LOSSLESS)
def test_colours_under_alpha_0_decide_nothing(tmp_path, codec, pix_fmt):
    """Catches clips that look the same and have other scores, and a format that was forgotten."""
    suffix, tolerance = LOSSLESS[codec, pix_fmt]
    alpha_HW, faces = alpha_of(), noise(4)
    read = {}
    for value in (0, 255):
        path = tmp_path / f"{value}{suffix}"
        write_rgba(path, hiding(faces, alpha_HW, value), alpha_HW, codec, pix_fmt)
        read[value], notes = shown(path)
        assert notes == read_clip(path, CHOICE).notes == (TRANSPARENT,)
        verify(path)
    assert np.array_equal(read[0], read[255])
    assert not read[0][:, alpha_HW == 0].any()
    if tolerance is not None:
        assert np.abs(read[0].astype(int) - over_black(faces, alpha_HW)).max() <= tolerance


@pytest.mark.parametrize(
    ("codec", "name", "options"),
    [("libvpx-vp9", "a.webm", {}), ("libvpx-vp9", "a.mkv", {}), ("libvpx", "a.webm", {})],
)
def test_the_alpha_of_webm_is_read(tmp_path, codec, name, options):
    """It lies beside the frames, where FFmpeg's own decoders of VP8 and VP9 do not look."""
    if codec == "libvpx":
        options = {"auto-alt-ref": "0"}
    alpha_HW = alpha_of()
    path = tmp_path / name
    write_rgba(path, hiding(noise(12), alpha_HW, 255), alpha_HW, codec, "yuva420p", **options)
    frames, notes = shown(path)
    assert notes == (TRANSPARENT,)
    assert (frames.shape, probe(path).frames) == ((12, 96, 128, 3), 12)
    outside = np.ones_like(alpha_HW, bool)
    outside[16:80, 24:104] = False  # a lossy edge
    assert frames[:, outside].max() <= 3
    assert frames[:, 52:68, 36:92].mean() > 80
    assert read_clip(path, CHOICE).total_frames == 12
    # As FFmpeg writes the tag where it copies a stream.
    path.write_bytes(path.read_bytes().replace(b"alpha_mode", b"ALPHA_MODE"))
    assert np.array_equal(shown(path)[0], frames)


@pytest.mark.parametrize("side", [(96, 128), (97, 63), (63, 97)])
@pytest.mark.parametrize("pix_fmt", ["bgra", "yuva420p", "yuva422p", "yuva444p10le", "gbrap12le"])
def test_an_opaque_alpha_changes_nothing(tmp_path, pix_fmt, side):
    """Bit for bit as FFmpeg converts it, without a note. Catches a detour of the colours, and last
    columns that swscale makes half transparent in some sizes.
    """
    pictures = [np.random.default_rng(i).integers(0, 256, (*side, 3), np.uint8) for i in range(3)]
    path = write_rgba(tmp_path / "a.mkv", pictures, np.full(side, 255, np.uint8), "ffv1", pix_fmt)
    frames, notes = shown(path)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(frames, np.stack(expected))
    assert notes == ()


def test_the_unused_byte_of_an_uncompressed_avi_is_no_alpha(tmp_path):
    """BI_RGB of 32 bits: editors write 0 there. Catches a good clip that turns black."""
    faces = noise(3)
    path = write_rgba(tmp_path / "a.avi", faces, np.zeros((96, 128), np.uint8), "rawvideo", "bgra")
    frames, notes = shown(path)
    assert np.array_equal(frames, np.stack(faces))
    assert notes == ()


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng"])
@pytest.mark.parametrize("disposal", [0, 1, 2])
def test_pillow_shows_the_same_animation(tmp_path, suffix, disposal):
    """Each frame over black, by another decoder. Catches FFmpeg's white under a transparent GIF."""
    alpha_HW = alpha_of()
    alpha_HW[alpha_HW == 128] = 255  # a GIF has no half
    faces = [
        np.dstack([face // 64 * 64, np.roll(alpha_HW, 4 * i, 0)]) for i, face in enumerate(noise(4))
    ]
    first, *others = map(Image.fromarray, faces)
    path = tmp_path / f"a{suffix}"
    kind = {} if suffix == ".gif" else {"format": "PNG"}
    first.save(path, save_all=True, append_images=others, duration=40, disposal=disposal, **kind)
    expected = []
    with Image.open(path) as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            black = Image.new("RGBA", animation.size, (0, 0, 0, 255))
            black.alpha_composite(animation.convert("RGBA"))
            expected.append(np.asarray(black.convert("RGB")))
    frames, notes = shown(path)
    assert np.array_equal(frames, np.stack(expected))
    assert notes == (TRANSPARENT,)


def strips() -> dict[str, tuple[Image.Image, Image.Image]]:
    """Mode -> two strips that look the same, with black and with white under alpha 0."""
    alpha_HW = np.hstack([alpha_of(96, 96)] * 3)
    strip = np.hstack(noise(3, 96, 96))
    made = {}
    for value in (0, 255):
        (colours,) = hiding([strip], alpha_HW, value)
        rgba = Image.fromarray(np.dstack([colours, alpha_HW]))
        indexed = Image.fromarray(
            np.where(alpha_HW > 0, colours[..., 0] // 2 + 1, 0).astype(np.uint8)
        )
        indexed.putpalette([value] * 3 + [v for v in range(1, 256) for _ in range(3)])
        indexed.info["transparency"] = 0
        keyed = np.where(alpha_HW[..., None] > 0, strip // 2, 200 + value // 5).astype(np.uint8)
        keyed = Image.fromarray(keyed)
        keyed.info["transparency"] = (200 + value // 5,) * 3
        for mode, image in (
            ("RGBA", rgba),
            ("LA", rgba.convert("LA")),
            ("P", indexed),
            ("RGB", keyed),
        ):
            made.setdefault(mode, []).append(image)
    return made


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_strips_that_look_the_same_are_the_same(tmp_path, mode):
    """As files and as open images. Catches colours that only an editor shows."""
    reader = ClipReader(choice=CHOICE, views=True)
    read: list[Clip] = []
    for number, image in enumerate(strips()[mode]):
        path = tmp_path / f"{number}.png"
        transparency = {"transparency": image.info["transparency"]} if image.info else {}
        image.save(path, **transparency)
        verify_strip = reader(path)
        with Image.open(path) as opened:
            assert opened.mode == mode
            memory = clips_in_memory(opened, CHOICE, None, frames=True, views=True, name="it")
        for clips in (verify_strip, memory):
            assert clips.frames.notes == clips.views.notes == (TRANSPARENT,)
            read.append(clips.views)
    for clip in read[1:]:
        assert torch.equal(clip.frames, read[0].frames)
    corner = read[0].frames[:, :, :10, :10]
    assert not corner.any()


def test_an_opaque_strip_stays_as_it_is(tmp_path):
    """Of 8 and 16 bits. Catches a note on a file that has nothing to note, and changed colours."""
    strip = np.hstack(noise(3, 96, 96))
    opaque = np.dstack([strip, np.full(strip.shape[:2], 255, np.uint8)])
    Image.fromarray(strip).save(tmp_path / "rgb.png")
    Image.fromarray(opaque).save(tmp_path / "rgba.png")
    encoder = av.CodecContext.create("png", "w")
    encoder.pix_fmt, encoder.time_base = "rgba64be", Fraction(1, 25)
    encoder.height, encoder.width = strip.shape[:2]
    (packet,) = (
        encoder.encode(av.VideoFrame.from_ndarray(opaque, format="rgba")) or encoder.encode()
    )
    (tmp_path / "rgba64.png").write_bytes(bytes(packet))
    reader = ClipReader(choice=CHOICE)
    read = [reader(tmp_path / f"{name}.png").frames for name in ("rgb", "rgba", "rgba64")]
    assert [clip.notes for clip in read] == [(), (), ()]
    assert torch.equal(read[1].frames, read[0].frames)
    # swscale's 16 bits of an 8-bit value may round to the next one, and resizing adds to that.
    assert (read[2].frames.int() - read[0].frames.int()).abs().max() <= 2


def test_real_pairs_that_look_the_same_are_read_the_same():
    """A drawn face with black and with white under alpha 0, as a clip and as a strip."""
    reader = ClipReader(choice=CHOICE, views=True)
    for one, other in (
        ("hidden_black.mkv", "hidden_white.mkv"),
        ("strip_black.png", "strip_white.png"),
    ):
        first, second = reader(shared_data("odd_more", one)), reader(shared_data("odd_more", other))
        for name in ("frames", "views"):
            assert torch.equal(getattr(first, name).frames, getattr(second, name).frames)
            assert getattr(first, name).notes == (TRANSPARENT,)
