"""The store: what is computed is found again, whole, and only where everything is the same."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from lmme3dhf import files as files_module
from lmme3dhf.data.container import VideoError
from lmme3dhf.data.samples import DataError
from lmme3dhf.features import clips as clips_module
from lmme3dhf.features import shards as shards_module
from lmme3dhf.features import store as store_module
from lmme3dhf.features.store import RECIPE, FeatureStore, StoreError
from tests.features.conftest import Counting, agrees, features, loaded


def shards(store: FeatureStore) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


def test_what_is_there_is_not_computed_again(clips, counting, opened):
    """Catches a store that never hits, a model that is loaded for nothing, a clip that is computed
    once a question, and features of another clip.
    """
    counting(opened(), [*clips[:2], clips[0]])
    assert len(counting.clips) == 2
    counting(opened(), clips[:2])
    assert counting.loaded == 1
    counting(opened(), clips)
    assert len(counting.clips) == len(clips)
    assert sorted(counting.clips) == sorted(clip.read_bytes() for clip in clips)
    assert agrees(opened(), clips)


def test_another_recipe_is_another_store(clips, counting, opened):
    """Catches stale features of other weights; and a recipe that nobody can read."""
    one, other = opened({"weights": "a", "sizes": (1, 2)}), opened({"weights": "b"})
    counting(one, clips[:1])
    assert clips[0] in one
    assert clips[0] not in other
    recipe = json.loads((one.folder / RECIPE).read_text())
    assert recipe == {"kind": "test", "weights": "a", "sizes": [1, 2]}
    assert opened({"sizes": [1, 2], "weights": "a"}).folder == one.folder


def test_features_follow_the_clips_bytes_and_not_its_name(clips, counting, opened, tmp_path):
    """Catches another clip under an old name that meets the old clip's features, and a moved data
    set that is computed again.
    """
    counting(opened(), clips)
    moved = tmp_path / "elsewhere" / "other_name.mp4"
    moved.parent.mkdir()
    shutil.copy(clips[0], moved)
    assert opened().missing([moved]) == []
    assert torch.equal(opened().read(moved)["tokens"], opened().read(clips[0])["tokens"])
    clips[0].write_bytes(clips[0].read_bytes()[::-1])  # as long as before
    assert opened().missing(clips) == [clips[0]]
    counting(opened(), clips)
    assert len(counting.clips) == len(clips) + 1
    assert agrees(opened(), clips)


def test_a_clip_that_is_replaced_between_its_key_and_its_decoding_is_not_kept(clips, opened):
    """Before its decoding, and after it. Catches features of one content under the key of another,
    which every later run would take for right.
    """
    for when, clip in (("before", clips[0]), ("after", clips[1])):
        old = clip.read_bytes()
        store = opened({"when": when})

        def load(missing, when=when, old=old):
            for path in missing:
                if when == "before":
                    path.write_bytes(old[::-1])
                content = path.read_bytes()
                if when == "after":
                    path.write_bytes(old[::-1])
                yield content

        with pytest.raises(DataError, match=f"{clip.name} .changed."):
            store.fill([clip], load, lambda: features, workers=0, name="test")
        assert clip not in opened({"when": when})
        clip.write_bytes(old)
        assert clip not in opened({"when": when})


def test_an_open_store_sees_that_a_clip_changed(clips, counting, opened):
    """Catches a key that is remembered by name alone."""
    store = opened()
    counting(store, clips[:1])
    store.read(clips[0])
    clips[0].write_bytes(b"another clip")
    with pytest.raises(StoreError, match=r"no features of .*seed0000.*data features"):
        store.read(clips[0])


def test_features_come_back_bit_for_bit(clips, opened):
    """Catches rounding, a changed type, values that json or NumPy would not keep, and a tensor that
    is stored in another order than it is seen.
    """
    tensors = {
        "float32": torch.tensor([1 / 3, float("nan"), float("inf"), -0.0, 1e-45]),
        "bfloat16": torch.randn(3, 5).bfloat16(),
        "float64": torch.tensor(1 / 3, dtype=torch.float64),
        "int64": torch.tensor([2**62 + 1, -3]),
        "uint8": torch.arange(256, dtype=torch.uint8),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "part": torch.arange(10.0)[3:7],
        "empty": torch.zeros(0, 4),
    }
    opened().fill(clips[:1], loaded, lambda: lambda content: tensors, workers=0, name="test")
    back = opened().read(clips[0])
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        raw = [t.contiguous().view(-1).view(torch.uint8) for t in (back[name], tensor)]
        assert torch.equal(*raw), name


def test_small_clips_share_files_and_large_ones_do_not(clips, counting, opened, monkeypatch):
    """Catches a file a clip (2,000 files to open each epoch), and a file that grows for ever (a
    kill loses all of it).
    """
    counting(opened(), clips)
    assert len(shards(opened())) == 1
    monkeypatch.setattr(shards_module, "SHARD_CLIPS", 3)
    counting(opened({"by": "clips"}), clips)
    assert len(shards(opened({"by": "clips"}))) == 3
    size = sum(t.numel() * t.element_size() for t in features(clips[0].read_bytes()).values())
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 4 * size)
    monkeypatch.setattr(shards_module, "SHARD_CLIPS", 100)
    counting(opened({"by": "bytes"}), clips)
    assert len(shards(opened({"by": "bytes"}))) == 2
    assert agrees(opened({"by": "bytes"}), clips)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells maps on Linux only")
def test_reading_copies_nothing(clips, counting, opened):
    """The tensors lie in the mapped file. Catches a read that loads the whole shard."""
    counting(opened(), clips)
    store = opened()
    address = store.read(clips[3])["tokens"].data_ptr()
    name = shards(store)[0].name
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [line[0].split("-") for line in maps if line[-1].endswith(name)]
    assert any(int(low, 16) <= address < int(high, 16) for low, high in spans)


def test_no_changed_byte_ever_gives_another_number(clips, counting, opened, capsys):
    """Each byte of a shard is changed in turn, header and checksums included: what is read is right
    or refused, never wrong. Catches damage that a header check alone would let through.
    """
    counting(opened(), clips[:2])
    path = shards(opened())[0]
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        store = opened()
        for clip in clips[:2]:
            try:
                assert agrees(store, [clip]), place
            except StoreError:
                refused += 1
        # Put aside, the damaged file is out of the way.
        path.with_suffix(".broken").unlink(missing_ok=True)
    assert refused > len(whole) / 3


def test_no_cut_shard_gives_numbers(clips, counting, opened, capsys):
    """Catches a shard that a full disk cut, and a store that cannot be opened because of it."""
    counting(opened(), clips[:2])
    path = shards(opened())[0]
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert opened().missing(clips[:2]) == clips[:2]
        assert path.name in capsys.readouterr().err
        assert not path.exists()


def test_a_damaged_shard_is_named_put_aside_and_computed_again(clips, counting, opened, capsys):
    """Catches damage that stops every later run as well."""
    counting(opened(), clips)
    path = shards(opened())[0]
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    assert opened().missing(clips) == []  # the header is whole
    assert opened().verify() == 1
    assert path.name in capsys.readouterr().err
    assert path.with_suffix(".broken").exists()
    counting(opened(), clips)
    assert len(counting.clips) == 2 * len(clips)
    assert agrees(opened(), clips)
    assert opened().verify() == 0
    path.write_bytes(path.read_bytes()[:-1])
    assert opened().verify() == 1
    assert opened().missing(clips) == clips


def test_reading_damage_says_what_to_do(clips, counting, opened):
    """Catches a stage that dies on a damaged byte with a traceback, and once more the next time."""
    counting(opened(), clips[:1])
    path = shards(opened())[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"not what was written.*same command again"):
        opened().read(clips[0])
    counting(opened(), clips[:1])
    assert agrees(opened(), clips[:1])


def test_two_processes_find_the_same_damage(clips, counting, opened, monkeypatch):
    """The other one puts the shard aside between any look and the renaming. Catches a traceback of
    the slower one.
    """
    counting(opened(), clips[:1])
    path = shards(opened())[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    replace = os.replace

    def overtaken(old: Path, new: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        replace(old, new)
        replace(old, new)

    monkeypatch.setattr(os, "replace", overtaken)
    with pytest.raises(StoreError, match="same command again"):
        opened().read(clips[0])
    assert path.with_suffix(".broken").exists()
    counting(opened(), clips[:1])
    assert agrees(opened(), clips[:1])


def test_a_shard_that_goes_while_the_store_is_verified_is_left_out(
    clips, counting, opened, monkeypatch
):
    """Catches a traceback where another process has put it aside."""
    counting(opened(), clips[:1])

    def gone(paths: list[Path]) -> list[Path]:
        for path in paths:
            path.unlink()
        return paths

    monkeypatch.setattr(store_module, "share", gone)
    assert opened().verify() == 0


def test_all_broken_clips_are_named_at_once(clips, counting, opened):
    """Catches a run that trains on the rest, and one that tells of one broken clip an hour."""

    def load(paths):
        for path in paths:
            odd = int(path.stem[-1]) % 2
            yield VideoError("truncated", f"{path} is cut") if odd else path.read_bytes()

    for _ in range(2):  # still the next run does not go on without them
        with pytest.raises(DataError, match="3 of 7 clips cannot be read") as error:
            counting(opened(), clips, load=load)
        assert all(f"{clip} (truncated)" in str(error.value) for clip in clips[1::2])
        assert opened().missing(clips) == clips[1::2]
        assert len(counting.clips) == 4  # what could be computed is kept


def test_missing_clips_are_told_before_anything_is_computed(clips, counting, opened):
    """Catches a wrong video root that shows after an hour of features."""
    absent = clips[0].with_name("nowhere.mp4")
    with pytest.raises(DataError, match=r"1 of 3 clips are missing.*nowhere.*video_root"):
        counting(opened(), [clips[0], absent, clips[1], clips[0]])
    assert counting.loaded == 0


def test_a_failure_keeps_what_was_computed(clips, opened):
    """Catches a shard that is lost with the clip after it, and one that is half written."""

    def compute(content):
        if content == clips[4].read_bytes():
            raise MemoryError
        return features(content)

    with pytest.raises(MemoryError):
        opened().fill(clips, loaded, lambda: compute, workers=0, name="test")
    assert opened().missing(clips) == clips[4:]
    assert agrees(opened(), clips[:4])


def in_process(function, *arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def test_after_a_kill_only_the_rest_is_computed(clips, counting, opened, monkeypatch):
    """Catches work that is lost beyond the shards in hand (one open, one being written), files that
    a kill leaves behind, and a lock that outlives its owner.
    """
    monkeypatch.setattr(shards_module, "SHARD_CLIPS", 1)

    def killed_at_the_sixth():
        def compute(content):
            if content == clips[5].read_bytes():
                os.kill(os.getpid(), signal.SIGKILL)
            return features(content)

        opened().fill(clips, loaded, lambda: compute, workers=0, name="test")

    process = in_process(killed_at_the_sixth)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    missing = opened().missing(clips)
    assert missing in (clips[4:], clips[5:])
    (opened().folder / ".abc.safetensors.1.tmp").write_bytes(b"half a shard")
    counting(opened(), clips)
    assert counting.clips == [clip.read_bytes() for clip in missing]
    assert agrees(opened(), clips)
    assert not list(opened().folder.glob(".*.tmp"))


def test_a_shard_that_cannot_be_written_ends_the_fill(clips, counting, opened, monkeypatch):
    """It is written in another thread. Catches a full disk that nobody hears of, and clips that
    count as stored.
    """
    monkeypatch.setattr(shards_module, "SHARD_CLIPS", 2)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "replace_file", full)
        with pytest.raises(OSError, match="No space left"):
            counting(opened(), clips)
    assert len(counting.clips) < len(clips)
    assert opened().missing(clips) == clips


def test_two_jobs_fill_one_store(clips, opened, tmp_path):
    """They come at the same time. Catches a clip that both compute, and shards that overwrite each
    other.
    """
    log = tmp_path / "computed"

    def job():
        def compute(content):
            with log.open("ab") as file:
                file.write(content[:1])
            time.sleep(0.01)
            return features(content)

        opened().fill(clips, loaded, lambda: compute, workers=0, name="test")

    jobs = [in_process(job) for _ in range(2)]
    for process in jobs:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(log.read_bytes()) == sorted(clip.read_bytes()[0] for clip in clips)
    assert agrees(opened(), clips)


class World:
    """Ranks as threads: what `lmme3dhf.distributed` does between processes, without their start."""

    def __init__(self, monkeypatch, size: int) -> None:
        self.size, self.local = size, threading.local()
        self.barrier, self.slots = threading.Barrier(size, timeout=30), [None] * size
        for module in (store_module, clips_module):
            monkeypatch.setattr(module, "all_gather", self.all_gather)
            monkeypatch.setattr(module, "is_main", lambda: self.local.rank == 0)
            monkeypatch.setattr(module, "share", lambda items: items[self.local.rank :: size])
        monkeypatch.setattr(store_module, "world_size", lambda: size)

    def all_gather(self, item):
        self.slots[self.local.rank] = item
        self.barrier.wait()
        gathered = list(self.slots)
        self.barrier.wait()
        return gathered

    def run(self, function) -> list:
        """`function(rank)` on every rank; what it returned or raised."""
        results = [None] * self.size

        def on_rank(rank):
            self.local.rank = rank
            try:
                results[rank] = function(rank)
            except (StoreError, DataError) as error:
                results[rank] = error

        threads = [threading.Thread(target=on_rank, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        return results


@pytest.mark.parametrize("count", [7, 2, 1])
def test_ranks_share_the_work(clips, opened, monkeypatch, count):
    """Each writes its own shards, and all see all of them, also where there are fewer clips than
    ranks. Catches a clip that two ranks compute, and a rank that waits for ever.
    """
    world, counted = World(monkeypatch, 3), [Counting() for _ in range(3)]
    stores = [opened() for _ in range(3)]
    world.run(lambda rank: counted[rank](stores[rank], clips[:count]))
    assert [len(one.clips) for one in counted] == [len(clips[:count][r::3]) for r in range(3)]
    assert all(agrees(store, clips[:count]) for store in stores)
    assert world.run(lambda rank: stores[rank].verify()) == [0, 0, 0]


def test_ranks_fail_together(clips, opened, monkeypatch):
    """Catches one rank that raises while the others wait, and a list of broken clips that names one
    rank's alone.
    """

    def load(paths):
        return (VideoError("empty", "is empty") if path in clips[:3] else b"ok" for path in paths)

    world = World(monkeypatch, 2)
    errors = world.run(lambda rank: Counting()(opened(), clips, load=load))
    assert all("3 of 7 clips cannot be read" in str(error) for error in errors)
    usage = namedtuple("usage", "free")(100)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage)
    errors = world.run(lambda rank: Counting()(opened({"another": 1}), clips))
    assert all("need" in str(error) for error in errors)


def test_the_need_is_told_and_compared_with_what_is_free(
    clips, counting, opened, monkeypatch, capsys
):
    """Seven clips of 20 x 20 float32 and one int64: 11,256 bytes, 11.3 kB. Catches a fill that dies
    on a full disk after hours, and a refusal that leaves something behind.
    """
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage(11_100))
    with pytest.raises(StoreError) as error:
        counting(opened(), clips)
    assert "7 clips need 11.3 kB and 11.1 kB are free" in str(error.value)
    assert "data.features" in str(error.value)
    assert shards(opened()) == []
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage(11_256))
    counting(opened(), clips)
    assert "7 clips, about 11.3 kB" in capsys.readouterr().out
    assert agrees(opened(), clips)


@pytest.fixture
def read(monkeypatch, tmp_path) -> list[Path]:
    """The files that are hashed, with a memory of their own in which the youngest file may be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files_module, "_SETTLED_NS", -(10**12))
    paths = []
    file_hash = files_module.file_hash
    monkeypatch.setattr(files_module, "file_hash", lambda p: paths.append(p) or file_hash(p))
    return paths


def test_hashes_are_kept_between_runs(clips, counting, opened, read):
    """2,000 clips are 10 GB. Catches a start that reads them all again."""
    counting(opened(), clips)
    assert set(read) == set(clips)
    read.clear()
    assert opened().missing(clips) == []
    assert read == []
    os.utime(clips[2])  # touched: read again
    assert opened().missing(clips) == []
    assert read == [clips[2]]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_clip_that_is_exchanged_is_read_again(clips, counting, opened, read, in_place):
    """Of equal size and with its old time stamp, as `rsync -t` and archives leave it. Catches
    features of the clip that was there before, also within one run.
    """
    store = opened()
    counting(store, clips)
    before = clips[3].stat()
    other = clips[3].read_bytes()[::-1]
    if in_place:
        clips[3].write_bytes(other)
    else:
        clips[3].with_suffix(".new").write_bytes(other)
        os.replace(clips[3].with_suffix(".new"), clips[3])
    os.utime(clips[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert clips[3].stat().st_size == before.st_size
    for again in (store, opened()):
        assert again.missing(clips) == [clips[3]]
    counting(opened(), clips)
    assert agrees(opened(), clips)


def test_a_store_goes_to_other_processes(clips, counting, opened):
    """Loaders start workers, some of them by pickling. Catches a store that holds open files."""
    store = opened()
    counting(store, clips)
    assert agrees(store, clips)
    copy = pickle.loads(pickle.dumps(store))
    assert agrees(copy, clips)
