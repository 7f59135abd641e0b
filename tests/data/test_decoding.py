"""Many clips, decoded ahead in other processes."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmme3dhf.data import processes
from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import MOST_WORKERS, ClipReader, decoded, worker_count
from lmme3dhf.data.processes import AHEAD
from lmme3dhf.data.video import Clips, FrameChoice, read_clip, read_views
from lmme3dhf.vocabulary import VIEWS
from tests.data.test_video import noise, write_clip

SMALL = FrameChoice(min_pixels=28 * 28)
FRACTIONS = [view.clip_fraction for view in VIEWS]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Three clips of different lengths."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"{count}.mp4", noise(count)) for count in (41, 12, 25)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_stays_and_broken_clips_do_not_end_it(clips, tmp_path, workers):
    """Catches clips that change places when several processes decode, an error that ends the rest,
    one that cannot be sent from its process, and frames that differ after the way through the pipe.
    """
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip" * 100)
    paths = [clips[0], broken, clips[1], tmp_path / "absent.mp4", clips[2]]
    results = list(decoded(iter(paths), ClipReader(choice=SMALL, views=True), workers))
    assert [type(result) for result in results] == [Clips, VideoError, Clips, VideoError, Clips]
    assert [results[1].reason, results[3].reason] == ["not_a_video", "missing"]
    assert str(broken) in str(results[1])
    for index in (0, 2, 4):
        frames, views = read_clip(paths[index], SMALL), read_views(paths[index], FRACTIONS, SMALL)
        assert torch.equal(results[index].frames.frames, frames.frames)
        assert torch.equal(results[index].views.frames, views.frames)
        assert results[index].frames.sample_fps == frames.sample_fps
        assert results[index].views.indices == views.indices


@pytest.mark.parametrize(
    ("usable", "ranks", "expected"), [(6, 1, 6), (6, 2, 3), (2, 4, 1), (500, 1, MOST_WORKERS)]
)
def test_a_process_a_core_where_nobody_says_how_many(monkeypatch, usable, ranks, expected):
    """Catches two processes on any machine, every rank with all cores, and a count that is given
    and not taken.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(usable)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert worker_count(None) == expected
    assert [worker_count(given) for given in (0, 1, 40)] == [0, 1, 40]


@pytest.mark.parametrize("workers", [0, 1])
def test_only_what_is_asked_for_is_read(clips, workers):
    """Catches frames that are sent along with the views for nothing."""
    (views,) = decoded(clips[:1], ClipReader(choice=SMALL, frames=False, views=True), workers)
    (frames,) = decoded(clips[:1], ClipReader(choice=SMALL), workers)
    assert (views.frames, frames.views) == (None, None)
    assert len(views.views.frames) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_read_already_keeps_its_place(clips, workers):
    """Catches clips in memory that overtake files, or are sent to another process and back."""
    ready, refused = Clips(), VideoError("too_short", "an array of one picture")
    results = list(decoded([ready, clips[0], refused, clips[1]], ClipReader(choice=SMALL), workers))
    assert (results[0] is ready, results[2] is refused) == (True, True)
    assert [results[index].frames.total_frames for index in (1, 3)] == [41, 12]


def test_a_strip_is_a_clip_where_it_may_be_one(tmp_path):
    """Catches a strip on a training list that is taken for a clip, and one that cannot be scored;
    other pictures are neither.
    """
    strip, face = tmp_path / "strip.png", tmp_path / "face.png"
    Image.fromarray(np.hstack(noise(3, 96, 96))).save(strip)
    Image.fromarray(noise(1)[0]).save(face)
    reader = ClipReader(choice=SMALL, frames=False, views=True)
    (read, refused) = decoded([strip, face], reader, 1)
    assert len(read.views.frames) == 3
    assert refused.reason == "still_image"
    (refused,) = decoded([strip], ClipReader(choice=SMALL, strips=False), 1)
    assert refused.reason == "still_image"


def test_clips_that_are_kept_hold_no_file_and_no_shared_memory(clips):
    """Catches torch's usual way for tensors between processes: a file descriptor and a piece of
    /dev/shm each, which end a run over many clips, or one in a container.
    """
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    kept = list(decoded(clips * 8, ClipReader(choice=SMALL), workers=2))
    assert len(kept) == 24
    assert not any(read.frames.frames.is_shared() for read in kept)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def _marked(folder: Path, path: Path) -> Clips | VideoError:
    (folder / f"{time.monotonic_ns()}").touch()
    return ClipReader(choice=SMALL)(path)


def test_workers_stay_a_bounded_way_ahead_and_end_with_the_caller(clips, tmp_path):
    """Each reading leaves a mark. Catches a folder that is read into memory whole while the model
    is slow, and processes that go on after a caller that stopped.
    """
    workers = 2
    results = decoded(clips[1:2] * 40, partial(_marked, tmp_path), workers)
    next(results)
    # One more than are waiting has been asked for, as soon as the first was handed out.
    most = workers * AHEAD + 1
    waited_until = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < most and time.monotonic() < waited_until:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == most
    assert len(multiprocessing.active_children()) == workers
    results.close()
    assert multiprocessing.active_children() == []


def _threads(_: Path) -> VideoError:
    return VideoError("empty", str(torch.get_num_threads()))


def test_a_worker_uses_one_thread(clips):
    """Catches as many threads as cores in each of as many processes."""
    assert [str(r) for r in decoded(clips, _threads, workers=1)] == ["1"] * 3


@dataclass(frozen=True)
class Hostile:
    """A reader that meets its match in one of the files."""

    name: str
    does: str

    def __call__(self, path: Path) -> Clips | VideoError:
        """Reads, or does not."""
        if path.name == self.name and self.does == "sleep":
            time.sleep(600)
        if path.name == self.name and self.does == "numpy":
            np.ones(10**9, dtype=np.uint8)
        if path.name == self.name and self.does == "torch":
            torch.ones(10**9, dtype=torch.uint8)
        return ClipReader(choice=SMALL)(path)


@pytest.mark.parametrize(
    ("does", "reason"),
    [("sleep", "time_out"), ("numpy", "out_of_memory"), ("torch", "out_of_memory")],
)
def test_a_clip_that_hangs_or_eats_memory_is_refused_and_the_rest_is_read(
    clips, does, reason, monkeypatch
):
    """Catches a run that ends, or stands still, for one file."""
    monkeypatch.setattr(processes, "WALL_FACTOR", 0.4)
    reader = Hostile(clips[1].name, does)
    first, bad, last = decoded(clips, reader, 1, timeout_s=5, memory_mb=500)
    assert (bad.reason, str(clips[1]) in str(bad)) == (reason, True)
    assert [first.frames.total_frames, last.frames.total_frames] == [41, 25]
