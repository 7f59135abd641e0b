"""Many clips, decoded ahead in other processes."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from lmme3dhf.data.decoding import AHEAD, ClipLoader, Clips, decoded
from lmme3dhf.data.video import FrameChoice, VideoError, read_clip, read_views
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
    results = list(decoded(ClipLoader(paths, SMALL, views=True), workers))
    assert [type(result) for result in results] == [Clips, VideoError, Clips, VideoError, Clips]
    assert [results[1].reason, results[3].reason] == ["not_a_video", "missing"]
    assert str(broken) in str(results[1])
    for index in (0, 2, 4):
        frames, views = read_clip(paths[index], SMALL), read_views(paths[index], FRACTIONS, SMALL)
        assert torch.equal(results[index].frames.frames, frames.frames)
        assert torch.equal(results[index].views.frames, views.frames)
        assert results[index].frames.sample_fps == frames.sample_fps
        assert results[index].views.indices == views.indices


@pytest.mark.parametrize("workers", [0, 1])
def test_only_what_is_asked_for_is_read(clips, workers):
    """Catches frames that are sent along with the views for nothing."""
    (views,) = decoded(ClipLoader(clips[:1], SMALL, frames=False, views=True), workers)
    (frames,) = decoded(ClipLoader(clips[:1], SMALL), workers)
    assert (views.frames, frames.views) == (None, None)
    assert len(views.views.frames) == 3


def test_clips_that_are_kept_hold_no_file_and_no_shared_memory(clips):
    """Catches the loader's usual way for tensors: a file descriptor and a piece of /dev/shm each,
    which end a run over many clips, or one in a container.
    """
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    kept = list(decoded(ClipLoader(clips * 8, SMALL), workers=2))
    assert len(kept) == 24
    assert not any(read.frames.frames.is_shared() for read in kept)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_workers_stay_a_bounded_way_ahead_and_end_with_the_caller(clips, tmp_path):
    """Each reading leaves a mark. Catches a folder that is read into memory whole while the model
    is slow, and processes that go on after a caller that stopped.
    """

    class Marking(ClipLoader):
        def __getitem__(self, index: int) -> Clips | VideoError:
            (tmp_path / str(index)).touch()
            return super().__getitem__(index)

    workers = 2
    results = decoded(Marking(clips[1:2] * 40, SMALL), workers)
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


def test_a_worker_uses_one_thread(clips):
    """Catches as many threads as cores in each of as many processes."""

    class Counting(ClipLoader):
        def __getitem__(self, index: int) -> VideoError:
            return VideoError("empty", str(torch.get_num_threads()))

    assert [str(r) for r in decoded(Counting(clips, SMALL), workers=1)] == ["1"] * 3
