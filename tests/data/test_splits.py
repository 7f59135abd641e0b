"""Splits: what belongs together stays together, every video is used once, and the official split is
the released one.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import (
    OFFICIAL_SPLIT,
    check_split,
    generator,
    grouped_folds,
    grouped_split,
    latent,
    leave_one_generator_out,
    official_split,
    read_split,
    split_hash,
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


def test_a_part_that_would_be_empty_is_refused():
    """Three faces cannot give a part of a tenth. Catches an evaluation on nothing."""
    with pytest.raises(DataError, match="empty"):
        grouped_split(
            ["seed0000", "seed0001", "seed0002"],
            {"train": 0.9, "eval": 0.1},
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


def test_official_split_is_that_of_the_released_lists():
    """The lists themselves are the expectation. Catches a split file that drifted."""
    split = official_split(REPOSITORY / OFFICIAL_SPLIT)
    for part, videos in split.items():
        listed = read_list(shared_data("gen3dhf_annotations", "text", f"{part}_quality.json"))
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
