"""Splits: what belongs together stays together, every video is used once, and the official split is
the released one.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import (
    OFFICIAL_SPLIT,
    SplitFile,
    check_split,
    generator,
    grouped_folds,
    grouped_split,
    latent,
    leave_one_generator_out,
    official_split,
    read_split,
    read_split_file,
    split_hash,
    write_protocols,
    write_split,
)
from tests.conftest import shared_data

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASED = [f"seed{number:04d}" for number in range(2000)]


def latents(videos: list[str]) -> set[int]:
    return {int(video[4:]) % 200 for video in videos}


def test_identifiers_hold_generator_and_latent():
    """By hand: 1399 = 6 * 200 + 199. Catches the two swapped, and names that are guessed at."""
    assert (generator("seed1399"), latent("seed1399")) == (6, 199)
    assert (generator("seed0000"), latent("seed0000")) == (0, 0)
    for name in ("seed", "seed12.mp4", "clip0001", "seed-1", "seed１"):
        with pytest.raises(DataError, match="seed0042"):
            latent(name)


def test_grouped_split_keeps_faces_together_and_uses_every_video_once():
    """Catches a random split of rows, which puts one face on both sides, and videos lost by
    rounding.
    """
    fractions = {"train": 0.7, "val": 0.1, "eval": 0.2}
    split = grouped_split(reversed(RELEASED), fractions, np.random.default_rng(0))
    assert sorted(split["train"] + split["val"] + split["eval"]) == RELEASED
    assert {part: len(videos) for part, videos in split.items()} == {
        "train": 1400,
        "val": 200,
        "eval": 400,
    }
    assert not latents(split["train"]) & latents(split["eval"])
    assert not latents(split["val"]) & (latents(split["train"]) | latents(split["eval"]))
    assert split == grouped_split(RELEASED, fractions, np.random.default_rng(0))
    assert split != grouped_split(RELEASED, fractions, np.random.default_rng(1))


@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.7, "eval": 0.2}, {"train": 1.0, "eval": 0.0}, {"train": 1.2, "eval": -0.2}],
)
def test_shares_that_are_no_partition_are_refused(fractions):
    """Catches videos left out without a word."""
    with pytest.raises(DataError, match="sum to 1"):
        grouped_split(RELEASED, fractions, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("faces", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (7, 1, 2)), (40, (30, 2, 8))]
)
def test_every_part_gets_a_face_however_small_its_share(faces, sizes):
    """A twentieth of four faces rounds to none. Catches an evaluation on nothing, and faces that
    are lost or dealt twice for it.
    """
    videos = [f"seed{face:04d}" for face in range(faces)]
    fractions = {"train": 0.75, "val": 0.05, "eval": 0.2}
    split = grouped_split(videos, fractions, np.random.default_rng(0))
    assert tuple(len(part) for part in split.values()) == sizes
    assert sorted(video for part in split.values() for video in part) == videos


@pytest.mark.parametrize("seed", range(12))
def test_unequal_faces_meet_the_shares_of_videos_as_nearly_as_can_be(seed):
    """Against all deals of up to seven faces. Catches shares of faces, a part without any, and a
    draw that does not depend on the seed alone.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, rng.integers(4, 8)).tolist()
    videos = [f"seed{200 * g + face:04d}" for face, n in enumerate(sizes) for g in range(n)]
    fractions = {"train": 0.75, "val": 0.05, "eval": 0.2}
    if seed % 2:
        fractions = {"train": 0.8, "eval": 0.2}

    def apart(counts):
        return sum(
            abs(n - share * len(videos))
            for n, share in zip(counts, fractions.values(), strict=True)
        )

    nearest = min(
        apart(counts)
        for deal in itertools.product(range(len(fractions)), repeat=len(sizes))
        if all(
            counts := [
                sum(n for n, part in zip(sizes, deal, strict=True) if part == k)
                for k in range(len(fractions))
            ]
        )
    )
    split = grouped_split(videos, fractions, np.random.default_rng(1))
    assert sorted(video for part in split.values() for video in part) == sorted(videos)
    assert apart([len(part) for part in split.values()]) == pytest.approx(nearest)
    check_split(split)
    assert split == grouped_split(videos[::-1], fractions, np.random.default_rng(1))


def test_a_fifth_of_unequal_faces_is_a_fifth_of_the_videos():
    """Ten faces, of which one has eleven videos and nine have one: a fifth of the videos is four
    faces. Catches one video in the test part.
    """
    videos = [f"seed{face:04d}" for face in range(10)]
    videos += [f"seed{200 * g:04d}" for g in range(1, 11)]
    drawn = set()
    for seed in range(9):
        split = grouped_split(videos, {"train": 0.8, "eval": 0.2}, np.random.default_rng(seed))
        assert len(split["eval"]) == 4
        drawn.add(tuple(split["eval"]))
    assert len(drawn) > 1
    # Folds too: no better than the eleven videos in one, but the other nine are shared out.
    folds = [len(fold["eval"]) for fold in grouped_folds(videos, k=4, seed=0)]
    assert sorted(folds) == [3, 3, 3, 11]


def test_faces_that_cannot_be_split_are_refused():
    """Catches an empty part, and a video in two."""
    with pytest.raises(DataError, match=r"2 latents for 3 parts \(train, val, eval\)"):
        grouped_split(
            ["seed0000", "seed0001"],
            {"train": 0.75, "val": 0.05, "eval": 0.2},
            np.random.default_rng(0),
        )
    with pytest.raises(DataError, match="twice"):
        grouped_split(
            ["seed0000", "seed0001", "seed0000"],
            {"train": 0.5, "eval": 0.5},
            np.random.default_rng(0),
        )


def test_folds_test_every_video_once_and_never_a_face_from_training():
    """Catches folds that overlap, miss a video, or share a face."""
    folds = grouped_folds(RELEASED, k=5, seed=0)
    assert sorted(video for fold in folds for video in fold["eval"]) == RELEASED
    for fold in folds:
        assert len(fold["eval"]) == 400
        assert sorted(fold["train"] + fold["eval"]) == RELEASED
        assert not latents(fold["train"]) & latents(fold["eval"])
    assert folds == grouped_folds(RELEASED[::-1], k=5, seed=0)
    assert folds != grouped_folds(RELEASED, k=5, seed=1)
    for k in (1, 201):
        with pytest.raises(DataError, match="folds"):
            grouped_folds(RELEASED, k=k, seed=0)


def test_each_generator_is_left_out_once():
    """Catches folds by number modulo ten, which hold out latents instead."""
    splits = leave_one_generator_out(RELEASED)
    assert [split["eval"] for split in splits] == [
        RELEASED[start : start + 200] for start in range(0, 2000, 200)
    ]
    assert all(sorted(split["train"] + split["eval"]) == RELEASED for split in splits)
    with pytest.raises(DataError, match="empty"):
        leave_one_generator_out(RELEASED[:200])


def test_planted_leaks_are_found():
    """Catches a check that looks at nothing: a video on both sides, a video twice, a face on both
    sides, an empty part.
    """
    check_split({"train": ["seed0000", "seed0200"], "eval": ["seed0001"]})
    for leaking in (
        {"train": ["seed0000", "seed0001"], "eval": ["seed0001"]},
        {"train": ["seed0000", "seed0000"], "eval": ["seed0001"]},
        {"train": ["seed0000"], "eval": []},
    ):
        for allowed in (False, True):
            with pytest.raises(DataError, match=r"again in|empty"):
                check_split(leaking, latents_may_be_shared=allowed)
    shared = {"train": ["seed0000"], "eval": ["seed0200"]}
    with pytest.raises(DataError, match="latent 0 "):
        check_split(shared)
    check_split(shared, latents_may_be_shared=True)


def test_split_hash_is_that_of_the_set():
    """The digest of {"eval":["seed0001"],"train":["seed0000","seed0002"]} by sha256sum. Catches a
    hash by order.
    """
    digest = "c83647b824f7b2db0f45f2012a1db109418eabaf4fcd9b9e4fe01a4d5905f8fa"
    assert split_hash({"train": ["seed0002", "seed0000"], "eval": ["seed0001"]}) == digest
    assert split_hash({"train": ["seed0002", "seed0001"], "eval": ["seed0000"]}) != digest


def test_a_written_split_is_read_again(tmp_path):
    """Catches a part or its order lost on the way, and files of another form."""
    split = {"train": ["seed0003", "seed0000"], "val": ["seed0001"], "eval": ["seed0002"]}
    write_split(tmp_path / "splits.json", split)
    assert read_split(tmp_path / "splits.json") == split
    for content in (
        "[]",
        "{}",
        '{"train": "seed0000"}',
        '{"train": [1]}',
        '{"train": ["a"]}',
        '{"train": ',
    ):
        (tmp_path / "splits.json").write_text(content)
        with pytest.raises(DataError):
            read_split(tmp_path / "splits.json")


def test_a_split_tells_its_protocol_and_older_files_are_read(tmp_path):
    """Catches a header that is lost or taken for a part, and data sets of last month that cannot be
    read any more.
    """
    split = {"train": ["seed0000", "seed0200"], "eval": ["seed0001"]}
    path = tmp_path / "split.json"
    write_split(path, split, protocol="mine", latents_shared=False)
    assert read_split_file(path) == SplitFile(parts=split, protocol="mine", latents_shared=False)
    assert json.loads(path.read_text())["sha256"] == split_hash(split)
    write_split(path, split)
    assert read_split_file(path) == SplitFile(parts=split)
    for older in (split, {"parts": ["seed0002"], **split}):
        path.write_text(json.dumps(older))
        assert read_split_file(path) == SplitFile(parts=older)


def test_a_split_that_was_changed_by_hand_is_noticed(tmp_path):
    """One video moved, one dropped. Catches results on a split that is not the one they name."""
    path = tmp_path / "split.json"
    split = {"train": ["seed0000", "seed0002"], "eval": ["seed0001"]}
    write_split(path, split)
    content = json.loads(path.read_text())
    for parts in (
        {"train": ["seed0000"], "eval": ["seed0001", "seed0002"]},
        {"train": ["seed0000"], "eval": ["seed0001"]},
    ):
        path.write_text(json.dumps({**content, "parts": parts}))
        with pytest.raises(DataError, match=r"split\.json: its parts are not those"):
            read_split(path)
    reordered = {"eval": ["seed0001"], "train": ["seed0002", "seed0000"]}
    path.write_text(json.dumps({**content, "parts": reordered}))
    assert read_split(path) == reordered


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ('{"parts": {"train": ["seed0000"]}, "latent_shared": true}', "'latent_shared' is 'True'"),
        ('{"parts": {"train": ["seed0000"]}, "latents_shared": "no"}', "'latents_shared' is 'no'"),
        ('{"parts": {"train": ["seed0000"]}, "sha256": 1}', "'sha256' is '1'"),
        ('{"parts": {}}', "expected an object like"),
        ('{"train": ["seed0000"],\n "train": ["seed0001"]}', "'train' is there more than once"),
        ('{"train": ["seed0000"],\n "eval": ["seed0001",]}', r"split\.json:2:2\d: not JSON"),
        ('{"train": ["clip1"]}', r"split\.json: video 'clip1'"),
    ],
)
def test_split_files_with_faults_are_refused(tmp_path, content, cause):
    """Catches a misspelt promise that nobody checks, and parts that replace each other."""
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=cause):
        read_split(path)


def test_nothing_false_is_written_about_a_split(tmp_path):
    """A face on both sides under latents_shared=False. Catches a promise without a check."""
    leaking = {"train": ["seed0000"], "eval": ["seed0200"]}
    with pytest.raises(DataError, match="latent 0 "):
        write_split(tmp_path / "split.json", leaking, latents_shared=False)
    assert not list(tmp_path.iterdir())
    write_split(tmp_path / "split.json", leaking, latents_shared=True)
    assert read_split_file(tmp_path / "split.json").latents_shared is True


def test_the_protocols_of_the_repository_are_remade_byte_for_byte(tmp_path):
    """Catches a file edited by hand, a draw that changed, and a protocol without its file."""
    folder = REPOSITORY / OFFICIAL_SPLIT.parent
    written = write_protocols(tmp_path, official=REPOSITORY / OFFICIAL_SPLIT)
    expected = [
        "official.json",
        *(f"latent_fold_{fold}.json" for fold in range(5)),
        *(f"generator_{number}.json" for number in range(10)),
    ]
    assert [path.name for path in written] == expected
    assert sorted(expected) == sorted(path.name for path in folder.glob("*.json"))
    for path in written:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
        assert path.stat().st_size < 40_000


def test_the_protocols_hold_what_their_names_say():
    """Read with the json module alone. Catches folds that share a face and a generator that is in
    training.
    """
    folder = REPOSITORY / OFFICIAL_SPLIT.parent
    evaluated = []
    for fold in range(5):
        content = json.loads((folder / f"latent_fold_{fold}.json").read_text())
        parts = content["parts"]
        assert content["protocol"] == f"latent_fold_{fold}"
        assert content["latents_shared"] is False
        assert not latents(parts["train"]) & latents(parts["eval"])
        assert sorted(parts["train"] + parts["eval"]) == RELEASED
        evaluated += parts["eval"]
    assert sorted(evaluated) == RELEASED
    for number in range(10):
        content = json.loads((folder / f"generator_{number}.json").read_text())
        parts = content["parts"]
        assert content["latents_shared"] is True
        assert parts["eval"] == RELEASED[number * 200 : (number + 1) * 200]
        assert sorted(parts["train"] + parts["eval"]) == RELEASED
    assert json.loads((folder / "official.json").read_text())["latents_shared"] is True


def test_protocols_for_other_videos_come_without_the_official_split(tmp_path):
    """Generators 3 and 7, five faces. Catches generators numbered by their order, and an official
    split of videos that are not there.
    """
    videos = [f"seed{generator_ * 200 + face:04d}" for generator_ in (3, 7) for face in range(5)]
    written = write_protocols(tmp_path, videos)
    assert {path.name for path in written} == {
        *(f"latent_fold_{fold}.json" for fold in range(5)),
        "generator_3.json",
        "generator_7.json",
    }
    assert read_split(tmp_path / "generator_7.json")["train"] == videos[:5]
    with pytest.raises(DataError, match="5 folds of 4 latents"):
        write_protocols(tmp_path / "few", videos[:4])
    assert not (tmp_path / "few").exists()


def test_official_split_is_that_of_the_released_lists():
    """The lists themselves are the expectation. Catches a split file that drifted."""
    split = official_split(REPOSITORY / OFFICIAL_SPLIT)
    for part, videos in split.items():
        listed = read_list(
            shared_data("gen3dhf_annotations", "text", f"{part}_quality.json"), allow_outside=True
        )
        assert videos == sorted(sample.video for sample in listed)


def test_official_split_has_its_sizes_and_shares_latents(tmp_path):
    """As released: 1,600 and 400, disjoint, and every evaluated face is in training under another
    generator.
    """
    split = official_split(REPOSITORY / OFFICIAL_SPLIT)
    assert {part: len(videos) for part, videos in split.items()} == {"train": 1600, "eval": 400}
    assert sorted(split["train"] + split["eval"]) == RELEASED
    assert latents(split["eval"]) <= latents(split["train"])
    with pytest.raises(DataError, match="latent"):
        check_split(split)
    cut = tmp_path / "official.json"
    cut.write_text(json.dumps({**split, "eval": split["eval"][1:]}))
    with pytest.raises(DataError, match="restore"):
        official_split(cut)
    with pytest.raises(DataError, match="root of the repository"):
        write_protocols(tmp_path / "new", official=tmp_path / "absent.json")
    assert not (tmp_path / "new").exists()
