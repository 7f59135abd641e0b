"""Clips: the header and its refusals, frames against qwen-vl-utils with decord, pictures that are
left out, damaged and odd files.
"""

import faulthandler
import gc
import itertools
import os
import pickle
import subprocess
import sys
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import vision_process

from lmme3dhf.data import container as reader
from lmme3dhf.data import video
from lmme3dhf.data.container import REASONS, VideoError, VideoHeader, probe, read_strip
from lmme3dhf.data.video import FrameChoice, read_both, read_clip, read_views
from tests.conftest import shared_data

SMALL = FrameChoice(min_pixels=4 * 28 * 28)


def write_clip(
    path: Path,
    pictures,
    codec: str = "libx264",
    rate: int = 30,
    muxer: dict | None = None,
    times: Sequence[int] | None = None,
    colour: dict | None = None,
    **options: str,
) -> Path:
    """Encodes uint8 RGB pictures (H, W, 3) with PyAV; `times` in 600ths of a second, `colour` are
    attributes of the stream.
    """
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt = {"gif": "rgb8", "ffv1": "bgr0"}.get(codec, "yuv420p")
        stream.height, stream.width = pictures[0].shape[:2]
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        for name, value in (colour or {}).items():
            setattr(stream.codec_context, name, value)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(count: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Coarse coloured noise that moves: every picture differs, and none is easy to resize by
    accident.
    """
    tiles = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return [np.roll(tiles.repeat(8, 0).repeat(8, 1), 3 * index, axis=1) for index in range(count)]


def greys(count: int, step: int, side: int = 64) -> list[np.ndarray]:
    """Flat pictures whose grey value tells their index: value / step."""
    return [np.full((side, side, 3), step * index, dtype=np.uint8) for index in range(count)]


def grey_indices(clip: video.Clip, step: int) -> list[int]:
    return (clip.frames.float().mean(dim=(1, 2, 3)) / step).round().int().tolist()


def reason_of(path: Path, choice: FrameChoice = SMALL) -> str:
    with pytest.raises(VideoError) as error:
        read_clip(path, choice)
    assert str(path) in str(error.value)
    return error.value.reason


@pytest.fixture
def decord_reader(monkeypatch):
    """fetch_video with decord, whatever else is installed."""
    pytest.importorskip("decord")
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "decord")


def assert_equals_fetch_video(path: Path, choice: FrameChoice) -> video.Clip:
    element = {"video": str(path), "min_pixels": choice.min_pixels, "max_pixels": choice.max_pixels}
    if choice.frames is None:
        element |= {
            "fps": choice.fps,
            "min_frames": choice.min_frames,
            "max_frames": choice.max_frames,
        }
    else:
        element |= {"nframes": choice.frames}
    (expected, metadata), sample_fps = vision_process.fetch_video(
        element, return_video_sample_fps=True, return_video_metadata=True
    )
    clip = read_clip(path, choice)
    assert (metadata["video_backend"], clip.decoder) == ("decord", "pyav2")
    assert clip.frames.dtype == torch.uint8
    assert torch.equal(clip.frames.float(), expected)
    assert list(clip.indices) == list(metadata["frames_indices"])
    assert (clip.total_frames, clip.source_fps) == (metadata["total_num_frames"], metadata["fps"])
    assert clip.sample_fps == sample_fps
    return clip


@pytest.mark.parametrize(
    "choice",
    [
        FrameChoice(),
        FrameChoice(fps=5.0, min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28),
        FrameChoice(frames=6),
        FrameChoice(fps=30.0, max_frames=11, min_frames=2, min_pixels=8 * 28 * 28),
    ],
)
def test_frames_equal_fetch_video(tmp_path, decord_reader, choice):
    """Catches another frame choice, size, colour, rounding or resizing than qwen-vl-utils'."""
    path = write_clip(tmp_path / "clip.mp4", noise(45))
    clip = assert_equals_fetch_video(path, choice)
    assert (clip.width, clip.height) == (128, 96)


def test_frames_of_real_clips_equal_fetch_video(decord_reader):
    """Catches what a generated clip does not have: real encoders' settings, 60 frames per second,
    other sizes, clips that lie on their side.
    """
    clips = sorted(shared_data("clips").glob("*.mp4"))
    turned = sorted(shared_data("odd").glob("decord__video_*.mov"))
    assert len(clips) >= 20
    assert len(turned) == 2
    for path in clips:
        assert_equals_fetch_video(path, FrameChoice())
    for path in turned:
        assert_equals_fetch_video(path, SMALL)


def x264(params: str) -> dict[str, str]:
    return {"x264-params": f"scenecut=0:{params}"}


STREAMS = {
    "pyramid.mp4": x264("bframes=5:b-adapt=0:b-pyramid=normal"),
    "plain.mkv": x264("bframes=3:b-adapt=0:b-pyramid=none"),
    "closed.mp4": x264("keyint=12:bframes=3"),
    "fields.mp4": x264("interlaced=1:tff=1"),
    "colours.mp4": {"colour": {"colorspace": 1, "color_range": 2}, "pix_fmt": "yuv420p"},
    "uneven.mp4": {"times": [20 * i + 4 * (i % 3) for i in range(45)]},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=none:bframes=4:b-adapt=0"},
    "layers.mp4": {"codec": "libx265", "x265-params": "log-level=none:temporal-layers=3"},
    "mpeg4.mp4": {"codec": "mpeg4", "g": "500", "bf": "2"},
    "mpeg2.mkv": {"codec": "mpeg2video", "g": "500", "bf": "2"},
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_kind_of_stream_equals_fetch_video(tmp_path, monkeypatch, decord_reader, name):
    """Catches a picture that is taken for its neighbour when others are left out, one that refers
    to those, and other colours.
    """
    path = write_clip(tmp_path / name, noise(45), **STREAMS[name])
    choice = FrameChoice(fps=5.0, min_pixels=4 * 28 * 28)
    monkeypatch.setattr(reader, "_pictures_by_count", None)
    clip = assert_equals_fetch_video(path, choice)
    monkeypatch.setattr(reader, "_units", lambda *_: [])
    assert torch.equal(read_clip(path, choice).frames, clip.frames)


@pytest.mark.parametrize(
    ("name", "keyint", "least"), [("a.mp4", 99, 20), ("a.mkv", 99, 20), ("b.mp4", 8, 30)]
)
def test_pictures_that_nobody_needs_are_not_decoded(tmp_path, name, keyint, least):
    """But for those asked for, all pictures are made unreadable to which no other refers (by the
    two bits of H.264 that say so), and all after the last one asked for in their closed group.
    Catches a decoder that works for nothing.
    """
    path = tmp_path / name
    write_clip(path, noise(46), **x264(f"bframes=2:b-adapt=0:b-pyramid=none:keyint={keyint}"))
    whole = read_clip(path, SMALL)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    wanted = {sorted(packet.pts for packet in packets)[index] for index in whole.indices}
    content, spoilt, ended = bytearray(path.read_bytes()), 0, True
    for packet in reversed(packets):
        data = bytes(packet)
        if packet.pts in wanted:
            ended = False
        elif ended or data[4] >> 5 == 0:
            at = content.index(data, packet.pos)
            content[at + 5 : at + len(data)] = b"\xff" * (len(data) - 5)
            spoilt += 1
        ended |= packet.is_keyframe
    assert spoilt >= least
    path.write_bytes(content)
    assert torch.equal(read_clip(path, SMALL).frames, whole.frames)


def test_pictures_that_bring_settings_are_kept():
    """By hand: stored in this order, times 0 to 5; 2 starts afresh, 1 and 4 are referred to by no
    other. Catches a decoder that never gets the settings that came with a picture left out.
    """
    told = {"unreferenced": {1, 4}, "fresh": {0, 2}, "begin": 0, "rewind": 0, "first": None}
    rest = {"times": list(range(6)), "keyframes": 2, "pixel_ratio": Fraction(1)}
    rest["timeline"] = reader.Timeline(frames=6, fps=1.0)
    packets = reader._Packets(settings=set(), **told, **rest)
    assert reader._needed(packets, {5}) == {2, 3, 5}
    assert reader._needed(packets, {1, 3}) == {0, 1, 2, 3}
    packets = reader._Packets(settings={0, 4}, **told, **rest)
    assert reader._needed(packets, {5}) == {0, 2, 3, 4, 5}


def test_units_of_h264_by_hand():
    """Both ways of parting them. Catches a byte of a length or of a picture that is taken for the
    head of a unit.
    """
    lengths = b"\0\0\0\2\x67\1" + b"\0\0\0\3\x01\x65\x65"
    codes = b"\0\0\0\1\x67\1" + b"\0\0\1\x01\x65\x65"
    assert reader._units(lengths, 4) == reader._units(codes, None) == [0x67, 0x01]
    for broken in (lengths[:-1], lengths + b"\0", lengths + b"\0\0\0\0", b"\xff" * 9):
        assert reader._units(broken, 4) == []
    assert reader._units(b"no start code", None) == []


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_clip(path, SMALL),
        lambda path: reader.view_pictures(path, (0.25, 0.5, 0.75)),
        lambda path: read_strip(path, (0.25, 0.5, 0.75)),
        probe,
        reader.verify,
    ],
)
def test_no_picture_outlives_its_clip(tmp_path, read):
    """Without a search for cycles. Catches pictures that pile up with the threads that converted
    them, until a process meets its memory limit.
    """
    path = write_clip(tmp_path / "a.mp4", noise(12))
    gc.collect()
    gc.disable()
    try:
        read(path)
        left = [one for one in gc.get_objects() if isinstance(one, av.VideoFrame)]
    finally:
        gc.enable()
    assert not left


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_picture_that_is_lost_without_a_word_is_an_error(tmp_path, codec):
    """Some decoders go on from garbage without an error. Catches wrong pictures after one that was
    lost, wherever it was.
    """
    path = write_clip(tmp_path / "clip.mp4", noise(40), codec=codec, bf="0", g="500")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for number in (3, 20, 38):
        at, size = packets[number].pos, packets[number].size
        garbage = np.random.default_rng(number).bytes(size)
        path.write_bytes(content[:at] + garbage + content[at + size :])
        assert reason_of(path) == "decode_error"


@pytest.mark.parametrize("name", ["twins.mkv", "stored.avi", "none.h264"])
def test_pictures_are_counted_where_times_do_not_tell_them_apart(tmp_path, monkeypatch, name):
    """Two pictures at each time in Matroska; times in the order of storage in AVI; none at all in a
    bare stream. The grey value names each picture. Catches pictures that are found by a time that
    is not theirs.
    """
    options = {"bf": "2"}
    if name == "twins.mkv":
        options = {"codec": "ffv1", "times": [20 * (index // 2) for index in range(30)]}
    path = write_clip(tmp_path / name, greys(30, step=8), **options)
    monkeypatch.setattr(reader, "_pictures_by_time", _only_doubt(reader._pictures_by_time))
    clip = read_clip(path, FrameChoice(frames=10, min_pixels=28 * 28))
    assert clip.indices == (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)
    assert grey_indices(clip, step=8) == list(clip.indices)


def _only_doubt(by_time):
    def doubting(*arguments):
        with pytest.raises(reader._DoubtError):
            yield from by_time(*arguments)
        raise reader._DoubtError

    return doubting


def test_default_choice_is_eight_frames_of_504_for_a_released_clip(tmp_path):
    """As the released code samples 4 s at 60 fps and 512x512: 8 frames of 504x504, 1,296 tokens in
    pairs. Catches 224x224.
    """
    pictures = [np.full((512, 512, 3), 128, dtype=np.uint8)] * 240
    clip = read_clip(
        write_clip(tmp_path / "seed0000.mp4", pictures, rate=60, preset="ultrafast"), FrameChoice()
    )
    assert tuple(clip.frames.shape) == (8, 3, 504, 504)
    assert (clip.indices[0], clip.indices[-1], clip.sample_fps) == (0, 239, 2.0)


def test_long_clips_get_smaller_frames():
    """By hand: 0.9 * 128000 tokens for 768 frames in pairs leave 235,200 pixels each, so 512x512
    becomes 476x476.
    """
    assert FrameChoice().size(512, 512, 8) == [504, 504]
    assert FrameChoice().size(512, 512, 768) == [476, 476]


def test_open_groups_of_pictures_give_the_pictures_asked_for(tmp_path):
    """Catches jumps to keyframes, with which decord lands on wrong pictures here. The grey value
    names each picture.
    """
    params = "open-gop=1:keyint=12:scenecut=0:bframes=3:b-adapt=0"
    path = write_clip(tmp_path / "open.mp4", greys(60, step=4), **{"x264-params": params})
    with av.open(str(path)) as container:
        times = [
            (packet.is_keyframe, packet.pts) for packet in container.demux(video=0) if packet.size
        ]
    assert any(key and later < time for (key, time), (_, later) in itertools.pairwise(times)), (
        "not an open group"
    )
    clip = read_clip(path, FrameChoice(frames=10, min_pixels=28 * 28))
    assert clip.indices == (0, 7, 13, 20, 26, 33, 39, 46, 52, 59)
    assert grey_indices(clip, step=4) == list(clip.indices)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx-vp9"), ("a.gif", "gif"), ("a.mkv", "ffv1"), ("a.ts", "libx264")],
)
def test_pictures_are_counted_where_the_header_does_not(tmp_path, name, codec):
    """Catches trust in the header's number of frames: 0 for these in Matroska and MPEG-TS."""
    path = write_clip(tmp_path / name, greys(15, step=16), codec=codec, rate=10)
    clip = read_clip(path, FrameChoice(frames=8, min_pixels=28 * 28))
    assert clip.total_frames == probe(path).frames == 15
    assert grey_indices(clip, step=16) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_views_are_single_frames_at_fractions_of_the_clip(tmp_path):
    """By hand: of 21 pictures, 1/4, 1/2 and 3/4 of the way from 0 to 20 are 5, 10 and 15. Catches
    fractions of the length.
    """
    path = write_clip(tmp_path / "clip.mp4", greys(21, step=12), qp="0")
    clip = read_views(path, (0.25, 0.5, 0.75), SMALL)
    assert clip.indices == (5, 10, 15)
    assert grey_indices(clip, step=12) == [5, 10, 15]
    assert tuple(clip.frames.shape[2:]) == tuple(read_clip(path, SMALL).frames.shape[2:])
    assert read_views(path, (1.0, 0.0, 1.0), SMALL).indices == (20, 0, 20)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        read_views(path, (1.5,), SMALL)


def test_frames_and_views_come_from_one_pass(tmp_path, monkeypatch):
    """Catches views that cost a second decoding, and pictures of one that land in the other."""
    fractions = (0.25, 0.5, 0.75)
    # Of 25 pictures the views are 6, 12 and 18, the frames 0, 8, 16 and 24.
    path = write_clip(tmp_path / "clip.mp4", noise(25))
    choice = FrameChoice(frames=4, min_pixels=4 * 28 * 28)
    expected = read_clip(path, choice), read_views(path, fractions, choice)
    opened, original = [], reader._opened
    monkeypatch.setattr(reader, "_opened", lambda p: opened.append(p) or original(p))
    clips = read_both(path, fractions, choice)
    assert opened == [path]
    for clip, alone in zip(clips, expected, strict=True):
        assert torch.equal(clip.frames, alone.frames)
        assert clip.indices == alone.indices
        assert clip.sample_fps == alone.sample_fps
    assert clips[0].indices == (0, 8, 16, 24)
    assert clips[1].indices == (6, 12, 18)


def test_a_strip_has_the_views_side_by_side_at_the_clips_own_size(tmp_path):
    """Catches a strip that is resized, or whose views stand in another order."""
    path = write_clip(tmp_path / "clip.mp4", greys(21, step=12), qp="0")
    strip = read_strip(path, (0.25, 0.5, 0.75))
    assert strip.shape == (64, 3 * 64, 3)
    assert (strip.mean(axis=(0, 2)).reshape(3, 64).mean(1) / 12).round().tolist() == [5, 10, 15]


def test_rotation_is_applied_and_told():
    """Phone clips of 568x320, upright by their display matrix. Catches frames that lie on their
    side.
    """
    quarter = probe(shared_data("odd", "decord__video_90.mov"))
    half = probe(shared_data("odd", "decord__video_180.mov"))
    assert (quarter.width, quarter.height, quarter.rotation_deg) == (320, 568, 270)
    assert (half.width, half.height, half.rotation_deg) == (568, 320, 180)
    frames = read_clip(shared_data("odd", "decord__video_90.mov"), SMALL).frames
    assert frames.shape[2] > frames.shape[3]


def test_header_of_a_generated_clip(tmp_path):
    """Catches swapped sides and a header that decodes to another rate or length."""
    assert probe(write_clip(tmp_path / "clip.mkv", noise(45), g="20")) == VideoHeader(
        width=128,
        height=96,
        container="matroska,webm",
        codec="h264",
        rotation_deg=0,
        frames=45,
        fps=30.0,
        keyframes=3,
        bits=8,
    )


def test_files_that_are_no_video(tmp_path):
    """Catches a traceback, or one reason for everything, where the user needs to know what the file
    is.
    """
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>404</body></html>" + "x" * 500)
    (tmp_path / "pointer.mp4").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    (tmp_path / "art.nfo").write_text("text that FFmpeg draws as a video " * 20)
    os.mkfifo(tmp_path / "pipe.mp4")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    expected = {
        "nothing.mp4": "missing",
        "": "missing",
        "pipe.mp4": "missing",
        "empty.mp4": "empty",
        "noise.mp4": "not_a_video",
        "page.mp4": "not_a_video",
        "pointer.mp4": "not_a_video",
        "art.nfo": "not_a_video",
        "sound.wav": "no_video_stream",
    }
    assert {name: reason_of(tmp_path / name) for name in expected} == expected
    with pytest.raises(VideoError, match="git lfs pull"):
        probe(tmp_path / "pointer.mp4")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "gif"])
def test_still_pictures_are_told_apart_from_clips(tmp_path, suffix):
    """Catches a photograph that is scored as a clip of one frame."""
    path = tmp_path / f"face.{suffix}"
    Image.fromarray(noise(1)[0]).save(path)
    assert reason_of(path) == "still_image"


def test_a_gif_comment_in_another_encoding_is_no_obstacle(tmp_path):
    """Catches the UnicodeDecodeError that PyAV raises on opening such a file."""
    path = tmp_path / "face.gif"
    pictures = [Image.fromarray(picture) for picture in noise(4)]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], comment=b"Photoshop\xa8", duration=100
    )
    assert read_clip(path, SMALL).total_frames == 4


def test_sizes_and_lengths_out_of_range(tmp_path):
    """Catches a huge picture that is decoded before it is refused, and clips that the model cannot
    take.
    """
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    wide = np.zeros((32, 4160, 3), dtype=np.uint8)
    assert reason_of(write_clip(tmp_path / "one.mp4", [blank])) == "too_short"
    assert reason_of(write_clip(tmp_path / "small.mp4", [blank[:26]] * 4)) == "too_small"
    assert reason_of(write_clip(tmp_path / "large.mp4", [wide] * 4)) == "too_large"
    short = write_clip(tmp_path / "short.mp4", noise(5))
    few = read_clip(short, FrameChoice(frames=6))
    assert (few.indices, len(few.notes)) == ((0, 1, 3, 4), 1)
    assert read_clip(short, FrameChoice(frames=4)).indices == (0, 1, 3, 4)
    assert len(read_clip(write_clip(tmp_path / "three.mp4", noise(3)), FrameChoice()).indices) == 2


def test_cut_files_are_truncated_and_never_shorter_clips(tmp_path):
    """Catches a cut copy that reads as a clip of fewer frames, which Matroska and AVI allow without
    any error.
    """
    whole = [
        write_clip(tmp_path / "index_last.mp4", noise(60)),
        write_clip(tmp_path / "index_first.mp4", noise(60), muxer={"movflags": "faststart"}),
        write_clip(tmp_path / "matroska.mkv", noise(60)),
        write_clip(tmp_path / "frames.avi", noise(60), codec="mpeg4"),
    ]
    for path in whole:
        assert probe(path).frames == 60
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
        assert reason_of(path) == "truncated", path.name


def test_damage_in_the_middle_is_an_error_that_tells_how_far(tmp_path):
    """Catches a partial result, or frames that a decoder made up, from a clip with overwritten
    bytes.
    """
    path = write_clip(tmp_path / "clip.mp4", noise(60), bf="0", g="500")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][40]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"after 4\d of 60 pictures") as error:
        read_clip(path, SMALL)
    assert error.value.reason == "decode_error"


@pytest.mark.parametrize(
    "impossible",
    [
        {"fps": None},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"frames": 5},
        {"frames": 0},
        {"min_frames": 1},
        {"min_frames": 9, "max_frames": 8},
        {"min_pixels": 0},
        {"min_pixels": 28 * 28 * 9, "max_pixels": 28 * 28 * 8},
        {"max_pixels": 2 * 768 * 28 * 28},
    ],
)
def test_impossible_choices_are_refused(impossible):
    """Catches settings that qwen-vl-utils rounds or clamps silently, or fails on in the middle of a
    run.
    """
    with pytest.raises(ValueError, match=r"expected|give"):
        FrameChoice(**impossible)


def test_errors_survive_a_worker_process():
    """Catches an error that cannot be unpickled, which hangs a pool of loaders."""
    error = pickle.loads(pickle.dumps(VideoError("empty", "a.mp4 has 0 bytes")))
    assert (error.reason, str(error)) == ("empty", "a.mp4 has 0 bytes")


def test_import_is_silent():
    """Catches banners on import, which would land in every result table that is piped."""
    done = subprocess.run(
        [sys.executable, "-c", "import lmme3dhf.data.video"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


WELL_KNOWN = {
    "decord__corrupted.mp4": "decode_error",
    "elite-next3d__test_0_.mp4": "pyav2",
    "liveportrait-lfspointer__showcase.gif": "not_a_video",
    "llamafactory__2.avi": "pyav2",
    "llamafactory__4.mp4": "pyav2",
    "pillow__apng_blend_op_over.png": "pyav2",
    "pillow__avif_rot0mir0.avif": "still_image",
    "pillow__images_dispose_bgnd.gif": "pyav2",
    "pillow__images_duplicate_frame.gif": "too_small",
    "pillow__images_hopper.gif": "still_image",
    "pillow__images_hopper_orientation_6.jpg": "still_image",
    "pillow__images_iss634.apng": "pyav2",
    "pillow__images_iss634.webp": "unsupported_codec",
    "pillow__images_zero_width.gif": "not_a_video",
    "piq__goldhill_jpeg.gif": "still_image",
    "sadtalker__itosinger1.wav": "no_video_stream",
    "small__AudioVideoInterleave.avi": "too_small",
    "small__Mpeg4.mp4": "no_video_stream",
    "small__jxl.jxl": "still_image",
    "small__webm.webm": "too_small",
    "torchcodec__av1_video.mkv": "pyav2",
    "torchcodec__h264_10bits.mp4": "pyav2",
    "torchcodec__h265_video.mp4": "pyav2",
    "torchcodec__sine_mono_s16.wav": "no_video_stream",
}


def test_every_odd_file_gives_frames_or_a_reason():
    """Catches a traceback or a hang on media found in the wild; what the well-known ones give is
    judged by MANIFEST.tsv.
    """
    paths = [path for path in sorted(shared_data("odd").iterdir()) if path.is_file()]
    assert len(paths) >= 60
    outcomes = {}
    # A decoder that hangs does so in native code, where no Python alarm is heard.
    faulthandler.dump_traceback_later(120, exit=True)
    try:
        for path in paths:
            try:
                clip = read_clip(path, SMALL)
            except VideoError as error:
                outcomes[path.name] = error.reason
            else:
                assert len(clip.frames) == len(clip.indices) >= 2
                outcomes[path.name] = clip.decoder
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert set(outcomes.values()) <= {"pyav2", *REASONS}
    assert {name: outcomes[name] for name in WELL_KNOWN} == WELL_KNOWN
