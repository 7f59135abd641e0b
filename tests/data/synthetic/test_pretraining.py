"""Pretraining pictures: dense targets that agree with what the picture shows, questions that agree
with the targets, and faces that no data set has.
"""

import dataclasses
import re

import numpy as np
import pytest

from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.synthetic import pretraining
from lmme3dhf.data.synthetic.bust import PART, PARTS
from lmme3dhf.data.synthetic.distortions import IMAGE
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.pretraining import (
    CELLS,
    CLIP_FRAMES,
    KINDS,
    LANDMARKS,
    SIZE_PX,
    STILLS,
    PoolShard,
    draw_plan,
    open_shard,
    questions,
    render_pool,
    vocabulary_corpus,
)
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS, NO_DISTORTION

CLIPS = 10
VIEWS = CLIP_FRAMES + STILLS


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> PoolShard:
    folder = tmp_path_factory.mktemp("pool")
    told = []
    render_pool(folder, CLIPS, seed=0, report=told.append)
    assert told == list(range(1, CLIPS + 1))
    return open_shard(folder, "r")


def faces(shard: PoolShard) -> list[int]:
    found = np.flatnonzero(shard.facts[:, 0]).tolist()
    assert found
    return found


def test_a_shard_has_the_documented_arrays(shard):
    """Catches shapes and types other than those the trainer maps into memory."""
    shapes = {
        "images": (CLIPS, VIEWS, SIZE_PX, SIZE_PX, 3),
        "parts": (CLIPS, VIEWS, CELLS, CELLS),
        "masks": (CLIPS, VIEWS, CELLS, CELLS, KINDS),
        "severity": (CLIPS, KINDS),
        "landmarks": (CLIPS, VIEWS, 2, len(LANDMARKS), 3),
        "facts": (CLIPS, 5),
    }
    assert {field.name for field in dataclasses.fields(PoolShard)} == set(shapes)
    for name, shape in shapes.items():
        assert getattr(shard, name).shape == shape
    assert shard.images.dtype == shard.parts.dtype == shard.masks.dtype == np.uint8
    assert shard.parts.max() < len(PARTS)
    assert shard.severity.min() >= 0
    assert shard.severity.max() <= 1
    assert (shard.images.std(axis=(2, 3, 4)) > 1).all()


def test_the_same_seed_gives_the_same_pool(shard, tmp_path):
    """Catches ambient chance, and seeds that are not used."""
    for seed in (0, 1):
        render_pool(tmp_path / f"{seed}", 1, seed)
    again, other = (open_shard(tmp_path / f"{seed}", "r") for seed in (0, 1))
    for name in ("images", "parts", "masks", "severity", "landmarks", "facts"):
        assert np.array_equal(getattr(again, name)[0], getattr(shard, name)[0])
    assert not np.array_equal(other.images[0], shard.images[0])


def test_masks_show_what_is_planted_and_nothing_else(shard):
    """Catches targets of another kind's channel, and severities without a mask."""
    planted = 0
    for clip in range(CLIPS):
        for kind in range(KINDS):
            masked = shard.masks[clip, ..., kind].any()
            if not shard.severity[clip, kind]:
                assert not masked
            elif shard.facts[clip, 0]:
                assert masked, DISTORTIONS[kind]
                planted += 1
    assert planted > 3


def test_parts_agree_with_the_landmarks(shard):
    """A landmark that faces the viewer lies on a cell of its own part, or next to one. Catches
    targets that are mirrored, transposed, or of another frame.
    """
    part_of = {"left eye": "eye", "right eye": "eye", "nose": "nose", "mouth": "mouth"}
    hits, wanted = 0, 0
    for clip in faces(shard):
        # Undistorted clips and those whose features stand where they should.
        if shard.severity[clip].any():
            moved = shard.landmarks[clip, :, 0, :, :2] != shard.landmarks[clip, :, 1, :, :2]
            if moved.any() or shard.severity[clip, [0, 1, 3, 5, 7]].any():
                continue
        for view in range(VIEWS):
            for index, name in enumerate(LANDMARKS):
                x, y, faces_viewer = shard.landmarks[clip, view, 0, index]
                if not faces_viewer:
                    continue
                column, row = int((x + 1) / 2 * CELLS), int((y + 1) / 2 * CELLS)
                near = shard.parts[
                    clip, view, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2
                ]
                wanted += 1
                hits += (near == PART[part_of[name]]).any()
    assert wanted > 20
    assert hits / wanted > 0.85


def test_landmarks_turn_with_the_head(shard):
    """The nose crosses from one side to the other while the head turns, as the first frame and the
    last show opposite sides. Catches landmarks of one frame repeated for all.
    """
    for clip in faces(shard):
        nose = shard.landmarks[clip, :CLIP_FRAMES, 1, LANDMARKS.index("nose"), 0]
        assert (np.diff(nose) > 0).all()
        assert nose[0] < nose.mean() < nose[-1]


def test_pictures_without_a_face_say_so(shard):
    """Textures: background only, no mask, no facts, and no distortion but those of the picture.
    Catches targets left over from a face.
    """
    textures = np.flatnonzero(shard.facts[:, 0] == 0)
    assert textures.size
    others = [kind for kind in range(KINDS) if kind != IMAGE]
    for clip in textures:
        assert (shard.parts[clip] == PART["background"]).all()
        assert not shard.masks[clip].any()
        assert not shard.facts[clip].any()
        assert not shard.severity[clip, others].any()


def test_no_pretraining_face_is_in_a_data_set(tmp_path, monkeypatch):
    """The identities that the pool really draws, against all 200 of several data sets. Catches a
    random stream that is shared: the demo would then be tested on faces it was pretrained on.
    """
    drawn, textures = [], []

    def keep(shard, index, rng):
        drawn.append(draw_plan(rng).identity)

    monkeypatch.setattr(pretraining, "_render_face", keep)
    monkeypatch.setattr(pretraining, "_render_texture", lambda *given: textures.append(given))
    monkeypatch.setattr(pretraining, "_compress", lambda pictures, quality: None)
    for seed in (0, 1, 42):
        render_pool(tmp_path / f"{seed}", 80, seed)
    known = {clip_plan(0, n, seed).identity for seed in (0, 1, 42) for n in range(200)}
    assert len(known) == 600
    assert len(set(drawn)) == len(drawn) > 180
    # One in ten shows no face.
    assert 10 < len(textures) < 40
    assert not known & set(drawn)
    # Nor twice the same texture or width: the streams are not merely shifted by a draw.
    assert not {i.texture_seed for i in known} & {i.texture_seed for i in drawn}
    assert not {i.width for i in known} & {i.width for i in drawn}


def test_plans_are_drawn_evenly():
    """Catches kinds that pretraining never or seldom sees; a data set's generators have favourites,
    the pool has none.
    """
    rng = np.random.default_rng(0)
    plans = [draw_plan(rng) for _ in range(600)]
    counts = np.bincount([d.kind for p in plans for d in p.distortions], minlength=KINDS)
    assert len(counts) == KINDS
    assert counts.min() > 0.7 * counts.max()
    severities = [d.severity for p in plans for d in p.distortions]
    assert np.histogram(severities, bins=5, range=(0.05, 1.0))[0].min() > 100
    assert sum(not p.distortions for p in plans) > 40


def asked(severity: dict[int, float], facts: tuple[int, ...], seed: int = 0) -> dict[str, str]:
    values = np.zeros(KINDS)
    values[list(severity)] = list(severity.values())
    return dict(questions(values, np.array(facts), np.random.default_rng(seed)))


def test_answers_agree_with_what_is_planted():
    """By hand: an eye distortion of 0.9 and a blur of 0.1 on a face with glasses and short hair.
    Catches states that are inverted or of another kind.
    """
    answers = asked({0: 0.9, 6: 0.1}, (1, 1, 0, 0, 1))
    assert answers["How are the eyes in this video?"] == "The state of the eyes is bad."
    sharpness = answers["How is the picture sharpness in this video?"]
    assert sharpness == "The state of the picture sharpness is good."
    assert answers["How is the mouth in this video?"] == "The state of the mouth is excellent."
    assert answers["How many things are wrong in this video?"] == "There are two distortions."
    one = answers["Name one distortion in this video."]
    assert one in {f"One distortion is {DISTORTIONS[kind]}." for kind in (0, 6)}
    assert answers["Does the person wear glasses?"] == "Yes."
    assert answers["Does the person wear a hat?"] == "No."
    assert answers["How long is the hair of this human?"] == "The hair is short."
    assert answers["Do you see a human face in this video?"] == "Yes."
    for seed in range(30):
        for question, answer in asked({0: 0.9, 6: 0.1}, (1, 1, 0, 0, 1), seed).items():
            found = re.fullmatch("Do you find (.+) here\\?", question)
            if found:
                assert (answer == "Yes.") == (found[1] in (DISTORTIONS[0], DISTORTIONS[6]))


def test_worse_distortions_are_called_worse():
    """Catches thresholds out of order: five words, from excellent without a distortion to bad."""
    words = []
    for severity in (0.0, 0.1, 0.4, 0.6, 0.95):
        answer = asked({1: severity}, (1, 0, 0, 0, 0))["How is the mouth in this video?"]
        words.append(answer.removesuffix(".").split()[-1])
    assert words == list(LEVELS[::-1])


def test_a_picture_without_face_is_not_asked_about_its_wearer():
    """Catches answers on glasses and hair where nobody is."""
    answers = asked({}, (0, 0, 0, 0, 0))
    assert answers["Do you see a human face in this video?"] == "No."
    assert answers["Name one distortion in this video."] == f"One distortion is {NO_DISTORTION}."
    assert not any("person" in question or "hair of" in question for question in answers)


def test_no_question_asks_what_the_stages_teach():
    """Neither a rating nor the list of distortions. Catches a base that was shown the metric's own
    task, so that the demo would prove nothing.
    """
    rng = np.random.default_rng(0)
    texts = set()
    for _ in range(100):
        severity = rng.uniform(0, 1, KINDS) * (rng.random(KINDS) < 0.3)
        severity[np.flatnonzero(severity)[3:]] = 0
        for pair in questions(severity, rng.integers(0, 2, 5), rng):
            texts.update(pair)
    assert len(texts) > 40
    for text in texts:
        assert text not in PROMPTS.values()
        assert not re.search(r"quality|authentic|rate |any distortion|found:", text), text


def test_the_tokenizers_texts_hold_prompts_and_level_words():
    """Catches a vocabulary that was learnt without the metric's own words."""
    corpus = vocabulary_corpus(("Please rate it.",), ("It is good.",))
    assert corpus == vocabulary_corpus(("Please rate it.",), ("It is good.",))
    assert corpus.count("Please rate it.") > 5
    text = " ".join(corpus)
    for word in (*LEVELS, *DISTORTIONS, "assistant"):
        assert word in text
