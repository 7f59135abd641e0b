"""Containers: sizes and lengths that are refused before they cost anything, and single pictures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qwen_vl_utils import vision_process

from lmme3dhf.data import container as reader
from lmme3dhf.data.container import (
    TOKEN_SIDE_PX,
    VideoError,
    probe,
    read_strip,
    verify,
    view_pictures,
)
from lmme3dhf.data.video import FrameChoice, read_clip
from tests.conftest import shared_data
from tests.data.test_video import greys, noise, write_clip

# libx264 takes 0.7 GB for it, so in a process of its own. Two grey pictures; more of them are a few
# bytes each.
MAKE_BOMB = """
import sys, av
with av.open(sys.argv[1], "w") as container:
    options = {"preset": "ultrafast", "tune": "zerolatency", "threads": "1"}
    stream = container.add_stream("libx264", rate=30, options=options)
    stream.width = stream.height = 8192
    stream.pix_fmt = "yuv420p"
    picture = av.VideoFrame(8192, 8192, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    for picture.pts in range(2):
        container.mux(stream.encode(picture))
    container.mux(stream.encode())
"""
# Wall time does not tell on a busy machine; time and memory of the processes do. VmHWM, for maxrss
# starts with what the process had that started this one.
VERIFY = """
import re, resource, sys
from pathlib import Path
from lmme3dhf.cli import main
status = main(["verify", sys.argv[1]])
own_kb = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
read = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, own_kb + read.ru_maxrss, read.ru_utime + read.ru_stime)
"""


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    """An mp4 of 8192x8192 pixels in 200 kB."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.mp4"
    subprocess.run([sys.executable, "-c", MAKE_BOMB, str(path)], check=True)
    assert path.stat().st_size < 250_000
    return path


def lie(path: Path, side: int, told: int = 512) -> Path:
    """The same file, but its boxes (track header, sample description) tell a smaller size; the
    stream in it is as it was.
    """
    content = path.read_bytes()
    sizes = [
        # 16.16 fixed point in the track header, whole numbers in the sample description (ISO/IEC
        # 14496-12, 8.3.2 and 12.1.3).
        ((side << 16).to_bytes(4, "big") * 2, (told << 16).to_bytes(4, "big") * 2),
        (side.to_bytes(2, "big") * 2, told.to_bytes(2, "big") * 2),
    ]
    for size, false in sizes:
        assert content.count(size) == 1
        content = content.replace(size, false)
    lying = path.with_name(f"lying_{path.name}")
    lying.write_bytes(content)
    return lying


@pytest.mark.skipif(sys.platform != "linux", reason="measured by /proc")
@pytest.mark.parametrize("is_lying", [False, True])
def test_a_picture_bomb_is_refused_and_costs_nothing(bomb, is_lying):
    """A picture of it is 100 MB when decoded, and 200 as RGB. Catches a file that fills the memory
    before it is refused, also where only its header is small.
    """
    path = lie(bomb, 8192) if is_lying else bomb
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, str(path)], capture_output=True, text=True, check=True
    )
    said, *_, measured = done.stdout.splitlines()
    assert said.startswith(f"too_large: {path}")
    status, memory_kb, reading_s = measured.split()
    assert status == "3"
    assert int(memory_kb) < 300_000
    assert float(reading_s) < 1


@pytest.fixture
def low_limit(monkeypatch) -> None:
    """256 x 256 in place of 4096 x 4096, so that pictures above it are quickly made."""
    monkeypatch.setattr(reader, "MAX_SIDE_PX", 256)
    monkeypatch.setattr(reader, "_LIMITS", {"max_pixels": str((256 + 128) ** 2)})


CODECS = {
    "libx264": {},
    "libx265": {"x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {},
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_that_lies_does_not_make_a_decoder_allocate(tmp_path, low_limit, codec):
    """Some codecs tell their size beside the stream too, some with each picture alone. Catches a
    limit that is only looked up in the header: FFmpeg itself has to refuse them.
    """
    honest = write_clip(tmp_path / "a.mp4", noise(4, 400, 400), codec=codec, **CODECS[codec])
    for path in (honest, lie(honest, 400, told=128)):
        for read in (verify, lambda path: read_clip(path, FrameChoice())):
            with pytest.raises(VideoError) as error:
                read(path)
            assert error.value.reason == "too_large"


@pytest.mark.parametrize("codec", CODECS)
def test_the_largest_size_is_not_refused(tmp_path, low_limit, codec):
    """Coded in blocks of up to 64, and with margins. Catches a limit of FFmpeg's, which counts
    these, below ours.
    """
    for side in (256, 250):
        pictures = noise(4, 256, 256)
        pictures = [picture[:side, :side].copy() for picture in pictures]
        path = write_clip(tmp_path / f"{side}.mp4", pictures, codec=codec, **CODECS[codec])
        verify(path)
        assert read_clip(path, FrameChoice()).width == side


def test_too_many_pictures_are_refused(tmp_path, monkeypatch):
    """Catches a stream of millions of tiny pictures, whose walk has no end."""
    path = write_clip(tmp_path / "clip.mp4", noise(45))
    monkeypatch.setattr(reader, "MAX_PICTURES", 45)
    assert probe(path).frames == 45
    monkeypatch.setattr(reader, "MAX_PICTURES", 44)
    for read in (probe, verify, lambda path: read_clip(path, FrameChoice())):
        with pytest.raises(VideoError, match="more than 44 pictures") as error:
            read(path)
        assert error.value.reason == "too_large"


def test_a_token_is_as_large_as_the_librarys():
    """Its constants are not imported, since torch would come with them. Catches another patch size
    there.
    """
    assert vision_process.SPATIAL_MERGE_SIZE * 14 == TOKEN_SIDE_PX


def test_pictures_are_given_at_fractions_and_as_shown(tmp_path):
    """By hand: of 21 pictures, 0, 1/4 and 1 are 0, 5 and 20; grey values name them. Catches the
    order of storage in place of that asked for, and pictures on their side.
    """
    path = write_clip(tmp_path / "clip.mp4", greys(21, step=12), qp="0")
    pictures = view_pictures(path, [1.0, 0.0, 0.25, 1.0])
    assert [(p.dtype, p.shape) for p in pictures] == [(np.uint8, (64, 64, 3))] * 4
    assert [round(float(picture.mean()) / 12) for picture in pictures] == [20, 0, 5, 20]
    assert np.array_equal(read_strip(path, [0.0, 1.0]), np.hstack(pictures[1::-1]))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        view_pictures(path, [1.5])
    upright = view_pictures(shared_data("odd", "decord__video_90.mov"), [0.5])[0]
    assert upright.shape == (568, 320, 3)
