"""Clips: the header and its refusals, the frame choice against qwen-vl-utils, both decoders,
damaged and odd files.
"""

import faulthandler
import itertools
import os
import pickle
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import vision_process

from lmme3dhf.data import video
from lmme3dhf.data.video import (
    REASONS,
    FrameChoice,
    VideoError,
    VideoHeader,
    probe,
    read_clip,
    read_views,
)
from tests.conftest import shared_data

SMALL = FrameChoice(min_pixels=4 * 28 * 28)


def write_clip(
    path: Path,
    pictures,
    codec: str = "libx264",
    rate: int = 30,
    muxer: dict | None = None,
    **options: str,
) -> Path:
    """Encodes uint8 RGB pictures (H, W, 3) with PyAV."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt = {"gif": "rgb8", "ffv1": "bgr0"}.get(codec, "yuv420p")
        stream.height, stream.width = pictures[0].shape[:2]
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
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
    assert metadata["video_backend"] == clip.decoder == "decord"
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
    other sizes.
    """
    paths = sorted(shared_data("clips").glob("*.mp4"))[::8]
    assert len(paths) >= 3
    for path in paths:
        assert_equals_fetch_video(path, FrameChoice())


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
    header = VideoHeader(
        width=512,
        height=512,
        container="mov",
        codec="h264",
        rotation_deg=0,
        frames=9000,
        fps=60.0,
        keyframes=1,
        bits=8,
    )
    assert video._resized_size(header, 8, FrameChoice()) == [504, 504]
    assert video._resized_size(header, 768, FrameChoice()) == [476, 476]


def test_both_decoders_give_the_same_frames(tmp_path, monkeypatch):
    """Catches a score that depends on which decoder a machine has."""
    pytest.importorskip("decord")
    real = sorted(shared_data("clips").glob("*.mp4"))[:1] + sorted(
        shared_data("odd").glob("decord__video_*.mov")
    )
    assert len(real) == 3
    generated = [
        write_clip(tmp_path / "h264.mp4", noise(45)),
        write_clip(tmp_path / "vp9.webm", noise(20), codec="libvpx-vp9"),
        write_clip(tmp_path / "mpeg4.mkv", noise(20), codec="mpeg4", g="500", bf="2"),
    ]
    for path in real + generated:
        by_decord = read_clip(path, SMALL)
        with monkeypatch.context() as patch:
            patch.setattr(video, "_decord_pictures", lambda *_: None)
            by_pyav = read_clip(path, SMALL)
        assert (by_decord.decoder, by_pyav.decoder) == ("decord", "pyav")
        assert torch.equal(by_decord.frames, by_pyav.frames), path.name
        assert by_decord.indices == by_pyav.indices


def test_a_machine_without_decord_reads_by_pyav(tmp_path, monkeypatch):
    """Catches decord imported at the top, which Apple silicon does not have."""
    path = write_clip(tmp_path / "clip.mp4", noise(10))
    monkeypatch.setitem(sys.modules, "decord", None)
    assert read_clip(path, SMALL).decoder == "pyav"


def test_open_groups_of_pictures_give_the_pictures_asked_for(tmp_path):
    """Catches decord's jumps: in open groups they land on a wrong picture without a word. The grey
    value names each picture.
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
    assert reason_of(short, FrameChoice(frames=6)) == "too_short"
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


@pytest.mark.parametrize("with_decord", [True, False])
def test_damage_in_the_middle_is_an_error_that_tells_how_far(tmp_path, monkeypatch, with_decord):
    """Catches a partial result, or frames that a decoder made up, from a clip with overwritten
    bytes.
    """
    path = write_clip(tmp_path / "clip.mp4", noise(60), bf="0", g="500")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][40]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    if not with_decord:
        monkeypatch.setattr(video, "_decord_pictures", lambda *_: None)
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
    "elite-next3d__test_0_.mp4": "pyav",
    "liveportrait-lfspointer__showcase.gif": "not_a_video",
    "llamafactory__2.avi": "pyav",
    "llamafactory__4.mp4": "decord",
    "pillow__apng_blend_op_over.png": "pyav",
    "pillow__avif_rot0mir0.avif": "still_image",
    "pillow__images_dispose_bgnd.gif": "pyav",
    "pillow__images_duplicate_frame.gif": "too_small",
    "pillow__images_hopper.gif": "still_image",
    "pillow__images_hopper_orientation_6.jpg": "still_image",
    "pillow__images_iss634.apng": "pyav",
    "pillow__images_iss634.webp": "unsupported_codec",
    "pillow__images_zero_width.gif": "not_a_video",
    "piq__goldhill_jpeg.gif": "still_image",
    "sadtalker__itosinger1.wav": "no_video_stream",
    "small__AudioVideoInterleave.avi": "too_small",
    "small__Mpeg4.mp4": "no_video_stream",
    "small__jxl.jxl": "still_image",
    "small__webm.webm": "too_small",
    "torchcodec__av1_video.mkv": "pyav",
    "torchcodec__h264_10bits.mp4": "pyav",
    "torchcodec__h265_video.mp4": "pyav",
    "torchcodec__sine_mono_s16.wav": "no_video_stream",
}


@pytest.mark.parametrize("folder", ["odd", "clips"])
def test_every_real_file_gives_frames_or_a_reason(folder):
    """Catches a traceback or a hang on media found in the wild; what the well-known ones give is
    judged by MANIFEST.tsv.
    """
    paths = [path for path in sorted(shared_data(folder).iterdir()) if path.is_file()]
    assert len(paths) >= 20
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
    if folder == "clips":
        assert set(outcomes.values()) <= {"decord", "pyav"}
    else:
        assert set(outcomes.values()) <= {"decord", "pyav", *REASONS}
        has_decord = "decord" in outcomes.values()
        expected = (
            WELL_KNOWN
            if has_decord
            else {name: kind.replace("decord", "pyav") for name, kind in WELL_KNOWN.items()}
        )
        assert {name: outcomes[name] for name in expected} == expected
