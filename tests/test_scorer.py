"""The scorer on the tiny base with random weights and made-up clips: what is asked for and what is
not, models without scores, and distortion answers by likelihood.
"""

import copy
import math

import numpy as np
import pytest
import torch

from lmme3dhf import scorer as module
from lmme3dhf.annotations.descriptions import distortion_reply, parse_distortions
from lmme3dhf.data.dialogue import level_token_ids
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply
from lmme3dhf.data.pixels import read_pixels
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.models.configuration import ModelError, SaliencyConfig
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.scorer import (
    VALID_ANSWERS,
    Scorer,
    distortion_log_odds,
    named_categories,
    spelling_tokens,
)
from lmme3dhf.vocabulary import DIMENSIONS, DISTORTIONS, LEVELS, NO_DISTORTION
from tests.conftest import random_frames

FRAMES = {"fps": None, "frames": 4, "min_pixels": 3136, "max_pixels": 12544}
EYES, MOUTH, HAIR = DISTORTIONS[:3]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three clips of noise; the second has another grid."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{name}.mp4" for name in "abc"]
    for seed, path in enumerate(paths):
        frames = random_frames(seed, 6, 84, 140 if seed == 1 else 84)
        write_clip(path, list(frames.permute(0, 2, 3, 1).numpy()), fps=4)
    return paths


@pytest.fixture(scope="module")
def untrained(tiny_folder):
    """A plain Qwen2.5-VL: no head, no level tokens. Its outputs are far from even."""
    model = LMME3DHF.from_pretrained(tiny_folder)
    with torch.no_grad():
        model.model.language_model.norm.weight *= 3
    model.config.set_metric(model.metric.replace(frames=FRAMES))
    return model


@pytest.fixture(scope="module")
def finished(untrained, processor):
    """The same as if all stages had been trained."""
    model = copy.deepcopy(untrained)
    prefix = model.metric.answer_prefix.format(dimension="quality")
    tokens = level_token_ids(processor.tokenizer, prefix, LEVELS)
    model.config.set_metric(model.metric.replace(level_token_ids=tokens))
    model.add_saliency_decoder(SaliencyConfig())
    model.missing_parts = []
    return model


@pytest.fixture
def counted(monkeypatch):
    """How often the vision tower and the language model run."""
    calls = {"encode_video": 0, "hidden_states": 0, "generate": 0, "saliency_features": 0}
    for name in calls:
        run = getattr(LMME3DHF, name)

        def count(self, *args, _name=name, _run=run, **options):
            calls[_name] += 1
            return _run(self, *args, **options)

        monkeypatch.setattr(LMME3DHF, name, count)
    return calls


# What is asked for


def test_only_what_is_asked_for_is_computed(finished, processor, clips, counted):
    """Maps alone, answers alone, ratings alone. Catches passes whose result nobody reads, and
    fields that are filled all the same.
    """
    scorer = Scorer(finished, processor)
    (maps,) = scorer.assess(clips[:1], ratings=False, answers=None)
    assert maps.saliency.shape == (84, 3 * 84)
    assert (maps.quality, maps.authenticity, maps.distortions) == (None, None, None)
    # The views' own pass; nothing is read from the clip's frames.
    assert counted == {
        "encode_video": 1,
        "hidden_states": 1,
        "generate": 0,
        "saliency_features": 1,
    }
    (answers,) = scorer.assess(clips[:1], ratings=False, maps=False, write_text=True)
    assert answers.distortions is not None
    assert (answers.quality, answers.saliency, answers.distortion_log_odds) == (None, None, None)
    assert counted["generate"] == 1
    (ratings,) = scorer.assess(clips[:1], answers=None, maps=False)
    assert math.isfinite(ratings.quality.score)
    assert (ratings.distortions, ratings.saliency) == (None, None)
    assert counted["generate"] == 1
    assert counted["saliency_features"] == 1


def test_maps_alone_need_a_decoder(untrained, processor, clips):
    """Catches a run of hours that writes records with nothing in them."""
    scorer = Scorer(copy.deepcopy(untrained), processor, scores=False)
    with pytest.raises(ModelError, match="no saliency decoder; train stage 3"):
        next(scorer.assess(clips, ratings=False, answers=None))


def test_an_unknown_way_to_answer_is_refused(finished, processor, clips):
    """Catches a misspelt word that is taken for the default."""
    with pytest.raises(ValueError, match="'likely', expected one of reply, likelihood, yes_no"):
        next(Scorer(finished, processor).assess(clips, answers="likely"))


# Models without scores


def test_a_model_without_a_head_says_words(untrained, processor, clips):
    """Levels and their probabilities from the output layer, no score. Catches the numbers of a head
    that nobody trained.
    """
    model = copy.deepcopy(untrained)
    with pytest.raises(ModelError, match=r"no trained score head.*--scores false"):
        Scorer(model, processor)
    assert model.metric.level_token_ids is None
    scorer = Scorer(model, processor, scores=False)
    (result,) = scorer.assess(clips[:1], maps=False, answers=None)
    pixels = read_pixels(clips[0], scorer.choice, processor.video_processor, views=False)
    for dimension in DIMENSIONS:
        rating = getattr(result, dimension)
        assert rating.score is None
        # By the definition: the next token of the reply, among the five words.
        head = processor.tokenizer.encode(level_reply(dimension, "good").removesuffix(" good."))
        logits = plain_logits(model, processor, pixels, PROMPTS[dimension], head)
        words = [processor.tokenizer.encode(f" {level}")[0] for level in LEVELS]
        expected = logits[words].softmax(0).tolist()
        assert list(rating.level_probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert rating.level == LEVELS[int(np.argmax(expected))]


@torch.no_grad()
def plain_logits(model, processor, pixels, question: str, reply=()) -> torch.Tensor:
    """Logits of the token after a question (and the start of a reply) on one clip, by the library's
    own chat template, placeholders and forward pass.
    """
    message = [{"type": "video"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    text = text.replace("<|video_pad|>", "<|video_pad|>" * pixels.tokens)
    ids = torch.tensor([[*processor.tokenizer.encode(text), *reply]])
    video = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    return model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=2 * (ids == video).long(),
        pixel_values_videos=pixels.values,
        video_grid_thw=torch.tensor([pixels.grid_thw]),
        second_per_grid_ts=torch.tensor([pixels.second_per_grid]),
    ).logits[0, -1]


# Distortion answers


def test_the_valid_answers_are_all_that_a_list_can_say():
    """2^8 - 1 sets of the eight and the clean one, each written and read back. Catches an answer
    that has no probability.
    """
    assert len(set(VALID_ANSWERS)) == len(VALID_ANSWERS) == 2**8
    for named in VALID_ANSWERS:
        assert parse_distortions(distortion_reply(named)).categories == named


def test_log_odds_are_those_of_the_marginals():
    """By hand: eyes alone .5, eyes and hair .3, clean .2, so eyes .8, hair .3, clean .2. Catches
    odds of the first or the likeliest reply alone, and another base than e.
    """
    log_p = torch.full((len(VALID_ANSWERS),), math.log(1e-30), dtype=torch.float64)
    for named, share in (((EYES,), 0.5), ((EYES, HAIR), 0.3), ((NO_DISTORTION,), 0.2)):
        log_p[VALID_ANSWERS.index(named)] = math.log(share)
    odds = distortion_log_odds(log_p)
    assert list(odds) == list(DISTORTIONS)
    assert odds[EYES] == pytest.approx(math.log(0.8 / 0.2))
    assert odds[HAIR] == pytest.approx(math.log(0.3 / 0.7))
    assert odds[NO_DISTORTION] == pytest.approx(math.log(0.2 / 0.8))
    assert odds[MOUTH] < -50
    assert named_categories(odds) == (EYES,)


def test_what_is_likelier_than_not_is_named():
    """In vocabulary order; the likeliest alone where nothing is; the clean answer where all are
    equal. Catches an empty answer, which would count as unparsable.
    """
    low = dict.fromkeys(DISTORTIONS, -2.0)
    assert named_categories(low | {HAIR: 0.1, EYES: 3.0}) == (EYES, HAIR)
    assert named_categories(low | {MOUTH: -0.5}) == (MOUTH,)
    assert named_categories(low) == (NO_DISTORTION,)
    assert named_categories(low | {EYES: 0.0, NO_DISTORTION: 0.0}) == (NO_DISTORTION,)


@pytest.mark.parametrize("way", ["likelihood", "yes_no"])
def test_answers_without_writing_are_valid_and_do_not_depend_on_the_batch(
    finished, processor, clips, way
):
    """Random weights, whose free replies are no words at all. Catches an answer that cannot be
    parsed, and log-odds that change with batch, neighbours or order.
    """
    (one, *_) = whole = list(
        Scorer(finished, processor, batch_size=3).assess(clips, answers=way, maps=False)
    )
    assert list(one.distortion_log_odds) == list(DISTORTIONS)
    assert len({result.distortion_log_odds[EYES] for result in whole}) == 3
    alone = Scorer(finished, processor, batch_size=1).assess(clips[::-1], answers=way, maps=False)
    for result, again in zip(whole, list(alone)[::-1], strict=True):
        assert result.distortions in VALID_ANSWERS
        assert result.distortions == named_categories(result.distortion_log_odds)
        assert again.distortion_log_odds == pytest.approx(result.distortion_log_odds, abs=2e-4)
    assert Scorer(finished, processor).score(clips[0], answers=way).distortion_log_odds is not None


def test_yes_and_no_are_weighed_at_the_first_token_of_the_reply(untrained, processor, clips):
    """Eight questions, each by the library's own code on the clip's pixels. Catches another
    position or question, and spellings that are left out.
    """
    scorer = Scorer(copy.deepcopy(untrained), processor, scores=False)
    (result,) = scorer.assess(clips[1:2], answers="yes_no", ratings=False, maps=False)
    pixels = read_pixels(clips[1], scorer.choice, processor.video_processor, views=False)
    vocabulary = processor.tokenizer.get_vocab()
    space = processor.tokenizer.tokenize(" a")[0][0]
    spelt = {
        word: [
            vocabulary[text]
            for text in (word, word.title(), word.upper(), space + word, space + word.title())
            if text in vocabulary
        ]
        for word in ("yes", "no")
    }
    assert all(len(tokens) > 1 for tokens in spelt.values())
    odds = result.distortion_log_odds
    for category in DISTORTIONS[:-1]:
        question = f"Does the human face in this video show {category}? Please answer yes or no."
        p = plain_logits(untrained, processor, pixels, question).softmax(0)
        expected = math.log(p[spelt["yes"]].sum() / p[spelt["no"]].sum())
        assert odds[category] == pytest.approx(expected, abs=1e-4)
    assert odds[NO_DISTORTION] == -max(odds[category] for category in DISTORTIONS[:-1])


def test_questions_share_the_clips_visual_tokens(finished, processor, clips, counted):
    """Catches a vision tower, most of the cost of a short question, that runs once a question."""
    list(Scorer(finished, processor).assess(clips, answers="yes_no", ratings=False, maps=False))
    assert counted["encode_video"] == len(clips)
    # All clips of a batch go through the model together, once a category.
    assert counted["hidden_states"] == 8


def test_spellings_of_one_token_count_once(processor):
    """Catches the first token of a longer spelling, which may begin another word."""
    encode = processor.tokenizer.encode
    assert len(encode("No", add_special_tokens=False)) == 1
    assert len(encode("Nonono", add_special_tokens=False)) > 1
    tokens = spelling_tokens(processor.tokenizer, ("No", "Nonono", "No"))
    assert tokens == tuple(encode("No", add_special_tokens=False))


def test_a_tokenizer_without_yes_is_refused(finished, processor, clips, monkeypatch):
    """Catches a sum over no token, whose log-odds would be infinite."""
    monkeypatch.setitem(module._SPELLINGS, "yes", ("affirmatively",))
    scorer = Scorer(finished, processor)
    with pytest.raises(ModelError, match="no tokens of their own for yes and no"):
        next(scorer.assess(clips, answers="yes_no"))
