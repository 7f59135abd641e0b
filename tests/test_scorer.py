"""The scorer on the tiny base with random weights and made-up clips: what is asked for and what is
not, models without scores, and distortion answers by likelihood.
"""

import copy
import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLTextModel,
)

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
def counted(monkeypatch) -> dict[str, int]:
    """How often the vision tower and the language model run, all paths to them included, and how
    often a text is written; the runs that write it are not counted as readings.
    """
    calls = {"tower": 0, "read": 0, "written": 0}
    writing = []

    def count(owner: type, method: str, name: str) -> None:
        run = getattr(owner, method)

        def counted(self, *args, **options):
            calls[name] += not writing
            if name == "written":
                writing.append(name)
            try:
                return run(self, *args, **options)
            finally:
                if name == "written":
                    writing.pop()

        monkeypatch.setattr(owner, method, counted)

    count(Qwen2_5_VisionTransformerPretrainedModel, "forward", "tower")
    count(Qwen2_5_VLTextModel, "forward", "read")
    count(LMME3DHF, "generate", "written")
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
    assert counted == {"tower": 1, "read": 1, "written": 0}
    (answers,) = scorer.assess(
        clips[:1], ratings=False, answers="reply", maps=False, write_text=True
    )
    assert answers.distortions is not None
    assert (answers.quality, answers.saliency, answers.distortion_log_odds) == (None, None, None)
    # A reply is written, and nothing else is read.
    assert counted == {"tower": 2, "read": 1, "written": 1}
    (ratings,) = scorer.assess(clips[:1], answers=None, maps=False)
    assert math.isfinite(ratings.quality.score)
    assert (ratings.distortions, ratings.saliency) == (None, None)
    assert (ratings.quality.text, ratings.authenticity.text) == (None, None)
    assert counted == {"tower": 3, "read": 2, "written": 1}


@pytest.mark.parametrize("answers", ["likelihood", "yes_no"])
def test_a_batch_is_read_in_one_pass(finished, processor, clips, counted, answers):
    """Catches a vision tower, most of the cost of a short question, that runs once a question, and
    questions that are read one after another.
    """
    results = list(Scorer(finished, processor).assess(clips, answers=answers, maps=False))
    assert all(result.quality and result.distortion_log_odds for result in results)
    assert counted == {"tower": len(clips), "read": 1, "written": 0}
    list(Scorer(finished, processor, batch_size=2).assess(clips, answers=answers, maps=False))
    assert counted == {"tower": 2 * len(clips), "read": 1 + 2, "written": 0}


def test_nothing_is_written_unless_it_is_asked_for(finished, processor, clips, counted):
    """By default scores, levels and distortions are read. Catches a reply that is generated, token
    by token, and thrown away; and texts that are not there when they are wanted.
    """
    result = Scorer(finished, processor).score(clips[0])
    assert (result.quality.text, result.authenticity.text) == (None, None)
    assert result.distortion_log_odds is not None
    assert counted["written"] == 0
    (told,) = Scorer(finished, processor).assess(clips[:1], maps=False, write_text=True)
    assert told.quality.text is not None
    assert told.authenticity.text is not None
    # The two sentences; the distortions are read all the same, from the same visual tokens.
    assert counted == {"tower": 1 + 1 + 1, "read": 1 + 1 + 1, "written": 2}


def figures(result) -> Iterator[tuple[str, float]]:
    """All numbers of a result, by name."""
    for dimension in DIMENSIONS:
        if rating := getattr(result, dimension):
            yield dimension, rating.score / 100
            for level, probability in rating.level_probabilities.items():
                yield f"{dimension} {level}", probability
    for category, odds in (result.distortion_log_odds or {}).items():
        # What 256 replies say in sum, in probability.
        yield category, 1 / (1 + math.exp(-odds))


def test_figures_do_not_depend_on_what_else_is_asked(finished, processor, clips):
    """Ratings alone, distortions alone, both, and both with maps and texts, in batches of several
    sizes. Catches questions that see each other, and a read position that moves with them.
    """
    ways = (
        {"answers": None},
        {"ratings": False},
        {"answers": "yes_no"},
        {"ratings": False, "answers": "yes_no"},
        {"maps": True, "write_text": True},
        {"answers": "reply"},
    )
    whole = {}
    for answers in ("likelihood", "yes_no"):
        scorer = Scorer(finished, processor)
        results = list(scorer.assess(clips, answers=answers, maps=False))
        whole[answers] = [dict(figures(result)) for result in results]
        scores = [result.quality.score for result in results]
        assert max(scores) - min(scores) > 0.1
    looked = 0
    for size, way in zip((1, 2, 3, 1, 2, 3), ways, strict=True):
        results = Scorer(finished, processor, batch_size=size).assess(
            clips, **{"maps": False} | way
        )
        for row, result in enumerate(results):
            expected = whole["yes_no" if way.get("answers") == "yes_no" else "likelihood"][row]
            for name, value in figures(result):
                assert value == pytest.approx(expected[name], abs=1e-5), (way, name)
                looked += 1
    assert looked == len(clips) * (12 + 9 + 21 + 9 + 21 + 12)


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
        logits = plain_logits(model, processor, pixels, PROMPTS[dimension], head)[-1]
        words = [processor.tokenizer.encode(f" {level}")[0] for level in LEVELS]
        expected = logits[words].softmax(0).tolist()
        assert list(rating.level_probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert rating.level == LEVELS[int(np.argmax(expected))]


@torch.no_grad()
def plain_logits(model, processor, pixels, question: str, reply=()) -> torch.Tensor:
    """Logits of the token after a question on one clip, and of that after each token of a reply, by
    the library's own chat template, placeholders and forward pass.
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
    ).logits[0, -1 - len(reply) :]


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


def test_likelihood_weighs_whole_replies(untrained, processor, clips, monkeypatch):
    """Sets of three categories, each reply by the library's own code on the clip's pixels and the
    definition: at each token a softmax over those with which some reply goes on. Catches hidden
    states that are handed to other forks, and replies without their end.
    """
    names = (EYES, MOUTH, HAIR)
    answers = [named for n in (1, 2, 3) for named in combinations(names, n)] + [(NO_DISTORTION,)]
    monkeypatch.setattr(module, "VALID_ANSWERS", tuple(answers))
    scorer = Scorer(copy.deepcopy(untrained), processor, scores=False)
    (result,) = scorer.assess(clips[1:2], maps=False)
    pixels = read_pixels(clips[1], scorer.choice, processor.video_processor, views=False)
    head = processor.tokenizer.encode("Distortions found:")
    spoken = [f"Distortions found: {', '.join(named)}<|im_end|>" for named in answers]
    replies = [processor.tokenizer.encode(reply) for reply in spoken]
    share = dict.fromkeys(names, 0.0)
    for reply, named in zip(replies, answers, strict=True):
        logits = plain_logits(untrained, processor, pixels, PROMPTS["distortion"], reply)
        p = 1.0
        for i in range(len(head), len(reply)):
            ways = {other[i] for other in replies if other[:i] == reply[:i]}
            p *= float(logits[i, reply[i]].exp() / logits[i, sorted(ways)].exp().sum())
        for category in set(named) & set(names):
            share[category] += p
    for category, p in share.items():
        assert result.distortion_log_odds[category] == pytest.approx(
            math.log(p / (1 - p)), abs=1e-4
        )


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
        p = plain_logits(untrained, processor, pixels, question)[-1].softmax(0)
        expected = math.log(p[spelt["yes"]].sum() / p[spelt["no"]].sum())
        assert odds[category] == pytest.approx(expected, abs=1e-4)
    assert odds[NO_DISTORTION] == -max(odds[category] for category in DISTORTIONS[:-1])


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
