"""Clips as players show them: flips, pixels that are not square, time stamps, whole fragments."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.bitstream import BitStreamFilterContext
from PIL import Image, ImageOps

from lmme3dhf.data.container import VideoError, probe, verify, view_pictures
from lmme3dhf.data.video import FrameChoice, read_clip, read_views
from tests.data.test_video import SMALL, greys, noise, write_clip

# a, b, c, d of the display matrix: (p, q) is shown at (a p + c q, b p + d q).
SHOWN = {
    (1, 0, 0, 1): lambda stored: stored,
    (-1, 0, 0, 1): lambda stored: stored[:, ::-1],
    (1, 0, 0, -1): lambda stored: stored[::-1],
    (-1, 0, 0, -1): lambda stored: stored[::-1, ::-1],
    (0, 1, -1, 0): lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    (0, -1, 1, 0): lambda stored: stored.transpose(1, 0, 2)[::-1],
    (0, 1, 1, 0): lambda stored: stored.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
}


def with_matrix(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """The same MP4 with another matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""

    def fields(a: float, b: float, c: float, d: float) -> bytes:
        numbers = [a, b, 0, c, d, 0, 0, 0]
        words = [round(number * 65536) for number in numbers] + [1 << 30]
        return b"".join(word.to_bytes(4, "big", signed=True) for word in words)

    content, plain = path.read_bytes(), fields(1, 0, 0, 1)
    at = content.index(plain, content.index(b"tkhd"))
    turned = path.with_name(f"turned{path.suffix}")
    turned.write_bytes(content[:at] + fields(*matrix) + content[at + len(plain) :])
    return turned


@pytest.mark.parametrize("matrix", SHOWN)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_the_whole_display_matrix_is_applied(tmp_path, matrix, suffix):
    """Catches flips that are read as rotations. The expectation follows the matrix's definition."""
    path = write_clip(tmp_path / f"clip.{suffix}", noise(4))
    stored = view_pictures(path, [0.5])[0]
    shown = view_pictures(with_matrix(path, matrix), [0.5])[0]
    assert np.array_equal(shown, SHOWN[matrix](stored))
    clip = read_clip(tmp_path / f"turned.{suffix}", SMALL)
    assert (clip.height, clip.width) == shown.shape[:2]
    assert clip.notes == ()


@pytest.mark.parametrize("turn", ["rotate=90", "flip=horizontal"])
def test_a_turn_that_stands_in_the_first_picture_holds_for_all(tmp_path, turn):
    """H.264 with a keyframe every fourth picture. Catches one turned picture among others."""
    path = write_clip(tmp_path / "plain.mp4", noise(12), **{"bf": "0", "g": "4"})
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        (video,) = source.streams.video
        stream = target.add_stream_from_template(video)
        insert = f"h264_metadata=display_orientation=insert:{turn}"
        insert_first = BitStreamFilterContext(insert, video)
        for number, packet in enumerate(source.demux(video)):
            if packet.size:
                for one in insert_first.filter(packet) if number == 0 else [packet]:
                    one.stream = stream
                    target.mux(one)
    with av.open(str(turned)) as clip:
        assert sum(bool(len(frame.side_data)) for frame in clip.decode(video=0)) < 12
    for at in ([0, 0.5, 1], [0.5, 1]):
        for plain, found in zip(view_pictures(path, at), view_pictures(turned, at), strict=True):
            assert np.array_equal(found, np.rot90(plain) if "90" in turn else plain[:, ::-1])
    verify(turned)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_exif_is_applied(tmp_path, orientation, suffix):
    """Motion JPEG of a camera, as Pillow turns its pictures. Catches frames that nobody can read
    for a kind of side data that PyAV does not know, and mirrored ones.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, jpegs = tmp_path / f"a.{suffix}", []
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj444p"
        for number, picture in enumerate(noise(3, 64, 96)):
            jpeg = io.BytesIO()
            Image.fromarray(picture).save(jpeg, "JPEG", subsampling=0, exif=exif)
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = number
            target.mux(packet)
            jpegs.append(jpeg)
    verify(path)
    for jpeg, found in zip(jpegs, view_pictures(path, [0, 0.5, 1]), strict=True):
        expected = np.asarray(ImageOps.exif_transpose(Image.open(jpeg)))
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 8


def test_other_angles_are_noted(tmp_path):
    """By 30 degrees; catches an angle that is dropped silently."""
    path = write_clip(tmp_path / "clip.mp4", noise(4))
    clip = read_clip(with_matrix(path, (0.866, 0.5, -0.5, 0.866)), SMALL)
    assert torch.equal(clip.frames, read_clip(path, SMALL).frames)
    (note,) = clip.notes
    assert "30 degrees" in note


def with_ratio(path: Path, ratio: Fraction, pictures: list[np.ndarray]) -> Path:
    write_clip(path, pictures, colour={"sample_aspect_ratio": ratio}, qp="0")
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_pixels_that_are_not_square_are_shown_square(tmp_path, suffix):
    """Stored at 64x96 with pixels twice as wide as high. Catches squeezed frames, and sizes that
    are computed from the stored width.
    """
    pictures = [np.ascontiguousarray(p[:, ::2]) for p in noise(4)]
    path = with_ratio(tmp_path / f"clip.{suffix}", Fraction(2), pictures)
    clip = read_clip(path, SMALL)
    assert (clip.width, clip.height) == (128, 96)
    assert tuple(clip.frames.shape[2:]) == tuple(SMALL.size(128, 96, 4)[:2])
    assert view_pictures(path, [0.5])[0].shape == (96, 128, 3)
    assert (probe(path).width, probe(path).height) == (128, 96)


def test_a_turned_clip_has_its_pixels_stretched_before_turning(tmp_path):
    """Catches a ratio that is applied to the shown width."""
    pictures = [np.ascontiguousarray(p[:, ::2]) for p in noise(4)]
    path = with_ratio(tmp_path / "clip.mp4", Fraction(2), pictures)
    clip = read_clip(with_matrix(path, (0, 1, -1, 0)), SMALL)
    assert (clip.width, clip.height) == (96, 128)


def test_an_absurd_ratio_is_refused(tmp_path):
    """By hand: 128 pixels at 1:100 are one. Catches limits that hold for stored sizes alone."""
    path = with_ratio(tmp_path / "clip.mp4", Fraction(1, 100), noise(4))
    with pytest.raises(VideoError, match="aspect ratio") as error:
        read_clip(path, SMALL)
    assert error.value.reason == "too_small"


# In 600ths of a second: one second at 10 frames per second, one at 60.
SLOW_START = [60 * i for i in range(10)] + [600 + 10 * i for i in range(60)]
FILES = {
    "a.mp4": {},
    "b.mov": {},
    "c.mkv": {},
    "d.ts": {},
    "e.mp4": {"movflags": "empty_moov+frag_keyframe"},
    "f.mp4": {"movflags": "frag_keyframe+delay_moov"},
    "g.mp4": {"movflags": "dash+frag_keyframe+global_sidx"},
    "h.mp4": {"movflags": "hybrid_fragmented"},
    "i.mp4": {"use_editlist": "0"},
}


@pytest.mark.parametrize("name", FILES)
def test_frames_and_views_by_time_stamp_in_every_container(tmp_path, name):
    """By hand: 2 s, so 4 frames at 0, 2/3, 4/3 and 2 s: 6 starts at 0.6 s, 30 at 4/3 s. 1/4, 1/2
    and 3/4 are 0.5, 1 and 1.5 s. Catches the header's rate, and a whole file called cut.
    """
    path = tmp_path / name
    write_clip(path, greys(70, step=3), times=SLOW_START, muxer=FILES[name], bf="3", g="20", qp="0")
    clip = read_clip(path, SMALL)
    assert clip.indices == (0, 6, 30, 69)
    assert (clip.source_fps, clip.sample_fps) == (35, 2)
    assert (clip.frames.float().mean(dim=(1, 2, 3)) / 3).round().tolist() == [0, 6, 30, 69]
    assert read_views(path, (0.25, 0.5, 0.75), SMALL).indices == (5, 10, 40)


def test_a_pause_is_seen_for_as_long_as_it_lasts(tmp_path):
    """0.5 s, a frame that stays for a second, 0.5 s. Catches a pause that counts as one frame."""
    times = [10 * i for i in range(30)] + [900 + 10 * i for i in range(30)]
    path = write_clip(tmp_path / "clip.mkv", greys(60, step=4), times=times)
    clip = read_clip(path, FrameChoice(frames=8, min_pixels=28 * 28))
    assert clip.indices == (0, 17, 29, 29, 29, 29, 42, 59)
    assert clip.source_fps == 30


def at_times(path: Path, times_ms: list[float], last_ms: int = 40) -> Path:
    """Flat frames at these times, the last for `last_ms`; the container rounds them."""
    source = write_clip(path.with_suffix(".nut"), greys(len(times_ms), step=8), bf="0")
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for packet, time_ms in zip(packets, times_ms, strict=True):
            packet.pts = packet.dts = round(90 * time_ms)
            packet.time_base, packet.duration = Fraction(1, 90000), 90 * last_ms
            packet.stream = stream
            new.mux(packet)
    return path


CONTAINERS = ["mp4", "mov", "mkv", "ts", "flv"]


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_two_frames_with_one_time_stamp_are_read_by_time_all_the_same(tmp_path, suffix):
    """By hand: 5.2 s, of which frame 6 is shown from 0.2 s to 5 s. Matroska and FLV have one stamp
    for frames 3 and 4. Catches a repeated stamp that makes every frame count alike.
    """
    times_ms = [0, 40, 80, 120, 120.3, 160, 200, 5000, 5040, 5080, 5120, 5160]
    path = at_times(tmp_path / f"clip.{suffix}", times_ms)
    clip = read_clip(path, FrameChoice(frames=8, min_pixels=28 * 28))
    assert clip.indices == (0, 6, 6, 6, 6, 6, 6, 11)
    assert (clip.frames.float().mean(dim=(1, 2, 3)) / 8).round().tolist() == list(clip.indices)
    assert clip.source_fps == pytest.approx(12 / 5.2)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_the_rate_is_that_of_the_time_stamps_in_every_container(tmp_path, suffix):
    """Ten frames, one a second, of which the last is said to last for 0.9 s. Catches the header's
    average in MP4, which counts that.
    """
    path = at_times(tmp_path / f"clip.{suffix}", [1000 * i for i in range(10)], 900)
    assert read_clip(path, SMALL).source_fps == 1


def test_frames_that_all_have_one_time_stamp_are_taken_as_even(tmp_path):
    """Catches a timeline without a length. Two frames may not share a time in MP4."""
    path = at_times(tmp_path / "clip.mkv", [0.01 * i for i in range(12)])
    assert read_clip(path, FrameChoice(frames=4, min_pixels=28 * 28)).indices == (0, 4, 7, 11)


def test_a_fragmented_file_that_is_cut_in_a_box_is_truncated(tmp_path):
    """Catches a cut in what stands between the frames."""
    path = write_clip(
        tmp_path / "clip.mp4",
        noise(70),
        times=SLOW_START,
        muxer={"movflags": "empty_moov+frag_keyframe"},
        bf="3",
        g="20",
    )
    content = path.read_bytes()
    at = content.rindex(b"moof", 0, content.rindex(b"moof"))
    for cut in (at + 8, at + 40, content.rindex(b"moof") + 60):
        path.write_bytes(content[:cut])
        with pytest.raises(VideoError) as error:
            probe(path)
        assert error.value.reason == "truncated"


FRAGMENTS = {"movflags": "frag_keyframe"}
SIZED = {
    "a.mp4": {"muxer": {"movflags": "faststart"}},
    "b.mkv": {},
    "c.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "d.avi": {"codec": "mpeg4"},
    "e.flv": {},
    "f.mp4": {"muxer": FRAGMENTS, "g": "60"},
    "g.wmv": {"codec": "wmv2"},
}


@pytest.mark.parametrize("name", SIZED)
def test_a_file_that_lost_one_frame_of_sixty_is_truncated(tmp_path, name):
    """Cut where the last frame begins. Catches a tolerance in time for files that say how large
    they are, and Matroska files without FFmpeg's tag.
    """
    path = write_clip(tmp_path / name, noise(60), **{"bf": "0"} | SIZED[name])
    content = path.read_bytes().replace(b"DURATION", b"XURATION")
    path.write_bytes(content)
    assert probe(path).frames == 60
    verify(path)
    with av.open(str(path)) as container:
        last = max(packet.pos for packet in container.demux(video=0) if packet.size)
    path.write_bytes(content[:last])
    with pytest.raises(VideoError) as error:
        probe(path)
    assert error.value.reason == "truncated"


@pytest.mark.parametrize("gap", [0, 13, 3000])
def test_an_avi_is_whole_where_its_frames_are_far_apart(tmp_path, gap):
    """In 600ths of a second, at which the header counts. Catches a length in such units that is
    taken for frames that are missing.
    """
    times = [24 * i + (gap if i >= 10 else 0) for i in range(20)]
    path = write_clip(tmp_path / "a.avi", noise(20), codec="mpeg4", times=times)
    assert probe(path).frames == 20
    verify(path)


@pytest.mark.parametrize("rest", [bytes(1000), bytes(7), b"\xa0\xff\x13abc", b"<html>" * 50])
@pytest.mark.parametrize("muxer", [FRAGMENTS, {}])
def test_what_is_appended_to_a_whole_mp4_changes_nothing(tmp_path, rest, muxer):
    """Catches bytes after the last box that are taken for a box that is cut."""
    path = write_clip(tmp_path / "a.mp4", noise(40), g="10", muxer=muxer)
    path.write_bytes(path.read_bytes() + rest)
    assert probe(path).frames == 40
    verify(path)


@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("bf", ["0", "2"])
def test_an_avi_is_read_at_its_rate(tmp_path, count, bf):
    """At 25 frames per second, counted in 600ths. Catches time stamps of a decoder's order."""
    times = [24 * i for i in range(count)]
    path = write_clip(tmp_path / "a.avi", noise(count), times=times, bf=bf)
    assert read_clip(path, SMALL).source_fps == 25
