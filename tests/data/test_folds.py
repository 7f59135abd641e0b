"""The folds' lists: who is in them, with which level edges, and that nothing else changes."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.folds import PROTOCOLS, protocol_splits, write_fold
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, read_list, write_list
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import check_split, generator, latent, read_split
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import DIMENSIONS


@pytest.fixture
def data(tmp_path):
    """Three generators of ten faces each, in lists of three parts; the scores are all different."""
    rng = np.random.default_rng(5)
    videos = [f"seed{200 * g + face:04d}" for g in range(3) for face in range(10)]
    mos = {d: dict(zip(videos, rng.uniform(20, 80, 30), strict=True)) for d in DIMENSIONS}
    parts = {"train": videos[:18], "val": videos[18:21], "eval": videos[21:]}
    for part, members in parts.items():
        for dimension in DIMENSIONS:
            write_list(
                tmp_path / "numerical" / f"{part}_{dimension}.json",
                [_sample(v, dimension, _fair(dimension, mos[dimension][v])) for v in members],
            )
        write_list(
            tmp_path / "distortion" / f"{part}.json",
            # The first video's remarks were not understood.
            [_sample(v, "distortion", distortion_reply(DISTORTIONS[:1])) for v in members[1:]],
        )
    return tmp_path


def _fair(dimension: str, score: float) -> str:
    return level_reply(GEN3DHF[dimension], "fair", score)


def _sample(video: str, task: str, reply: str) -> Sample:
    path = Path("video_RGB") / f"{video}.mp4"
    return Sample(video=video, path=path, task=task, prompt=PROMPTS[task], reply=reply)


def test_every_video_is_tested_once_and_no_face_is_on_both_sides(data):
    """The two protocols of ours by their definitions; catches a face that leaks, and a video that
    no fold tests.
    """
    grouped = protocol_splits(data, "grouped")
    assert list(grouped) == [f"latent_fold_{k}" for k in range(5)]
    for split in grouped.values():
        check_split(split)
        assert not {latent(v) for v in split["train"]} & {latent(v) for v in split["eval"]}
    left_out = protocol_splits(data, "leave-one-generator-out")
    assert list(left_out) == ["generator_0", "generator_1", "generator_2"]
    for index, split in enumerate(left_out.values()):
        assert {generator(v) for v in split["eval"]} == {index}
        assert index not in {generator(v) for v in split["train"]}
    for splits in (grouped, left_out):
        tested = sorted(video for split in splits.values() for video in split["eval"])
        assert len(tested) == 30
        assert len(set(tested)) == 30


def test_the_official_split_is_the_lists_own(data):
    """Catches a test video that trains, and the val part lost."""
    (split,) = protocol_splits(data, "official").values()
    assert len(split["train"]) == 21
    assert split["eval"] == [s.video for s in read_list(data / "numerical" / "eval_quality.json")]


def test_a_folds_levels_are_fitted_on_its_training_part(data, tmp_path):
    """Eq. 4 by hand on the fold's own training scores. Catches edges of another split (they would
    know the test scores) and words that do not belong to the edges.
    """
    split = protocol_splits(data, "grouped")["latent_fold_2"]
    out = tmp_path / "fold"
    write_fold(data, split, out, name="latent_fold_2", latents_shared=False)
    edges = json.loads((out / "levels.json").read_text())
    for dimension in DIMENSIONS:
        train = read_list(out / "numerical" / f"train_{dimension}.json")
        scores = [sample.mos for sample in train]
        low, high = min(scores), max(scores)
        assert edges[dimension] == pytest.approx([low + i / 5 * (high - low) for i in range(6)])
        for part in ("train", "eval"):
            words = {s.video: s.level for s in read_list(out / "text" / f"{part}_{dimension}.json")}
            for sample in read_list(out / "numerical" / f"{part}_{dimension}.json"):
                place = np.ceil((sample.mos - low) / (high - low) * 5 - 1e-9) - 1
                assert sample.level == LEVELS[int(np.clip(place, 0, 4))]
                assert words[sample.video] == sample.level


def test_a_fold_keeps_scores_answers_and_says_who_it_is(data, tmp_path):
    """Catches a score changed on the way, a video without an answer that gets one, and a fold whose
    split cannot be told.
    """
    split = protocol_splits(data, "leave-one-generator-out")["generator_1"]
    out = tmp_path / "fold"
    write_fold(data, split, out, name="generator_1", latents_shared=True)
    assert read_split(out / "splits.json") == split
    before = {
        (s.video, s.task): s.mos
        for part in ("train", "val", "eval")
        for d in DIMENSIONS
        for s in read_list(data / "numerical" / f"{part}_{d}.json")
    }
    after = {
        (s.video, s.task): s.mos
        for part in split
        for d in DIMENSIONS
        for s in read_list(out / "numerical" / f"{part}_{d}.json")
    }
    assert after == before
    answered = [s for part in split for s in read_list(out / "distortion" / f"{part}.json")]
    assert len(answered) == 27
    assert {s.distortions for s in answered} == {DISTORTIONS[:1]}


def test_what_cannot_be_dealt_is_told(data, tmp_path):
    """Catches a traceback, and folds of half a data set."""
    assert "grouped" in PROTOCOLS
    with pytest.raises(DataError, match="expected one of grouped"):
        protocol_splits(data, "random")
    with pytest.raises(DataError, match="no lists with the scores of quality"):
        protocol_splits(tmp_path / "nowhere", "grouped")
    path = data / "numerical" / "eval_quality.json"
    write_list(path, read_list(path)[1:])
    with pytest.raises(DataError, match="name other videos"):
        protocol_splits(data, "grouped")
