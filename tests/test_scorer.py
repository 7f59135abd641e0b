"""The scorer on the tiny base with random weights and made-up clips: what is asked for and what is
not, what a clip may be, memory that does not do, models without scores, distortion answers without
writing, and questions.
"""

import copy
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, repeat
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import GenerationConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLTextModel,
)

import lmme3dhf
from lmme3dhf import scorer as module
from lmme3dhf.annotations.descriptions import distortion_reply, parse_distortions
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.assessment import Assessment, Failure
from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import worker_count
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply
from lmme3dhf.data.pixels import read_pixels
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.strips import DECODER as STRIP_DECODER
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.data.video import FrameChoice
from lmme3dhf.models.configuration import ModelError, SaliencyConfig
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.scorer import (
    VALID_ANSWERS,
    Scorer,
    distortion_log_odds,
    named_categories,
    spelling_tokens,
)
from lmme3dhf.scores import row_of
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS, NO_DISTORTION
from tests.conftest import DIMENSIONS, random_frames

ROOT = Path(__file__).resolve().parents[1]
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
    aspects = with_tokens(model.metric.aspects, processor.tokenizer)
    model.config.set_metric(model.metric.replace(aspects=aspects))
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


# What a clip may be


def decoded_pictures(path: Path) -> np.ndarray:
    """All pictures of a file, by PyAV alone."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def same(one: Assessment, other: Assessment) -> bool:
    """Whether two results are the same to the last bit."""
    fields = ("ratings", "distortions", "distortion_log_odds")
    equal = all(getattr(one, name) == getattr(other, name) for name in fields)
    return equal and np.array_equal(one.saliency, other.saliency)


def moving(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """(count, height, width, 3) uint8 noise."""
    return random_frames(seed, count, height, width).permute(0, 2, 3, 1).contiguous().numpy()


@pytest.mark.parametrize("choice", [FrameChoice(**FRAMES), FrameChoice(fps=2, min_pixels=3136)])
def test_decoded_pictures_score_as_their_file(finished, processor, clips, choice):
    """Bit for bit, as bytes, floats and a tensor, with maps. Catches pictures that are chosen,
    resized or timed otherwise than those of a file.
    """
    scorer = Scorer(finished, processor)
    scorer.choice = choice
    expected = scorer.score(clips[1])
    pictures = decoded_pictures(clips[1])
    for way in (pictures, pictures / np.float32(255), torch.from_numpy(pictures)):
        result = scorer.score(way, fps=4)
        assert same(result, expected)
        assert (result.path, result.decoder) == (None, "memory")
    assert (expected.path, expected.decoder) == (clips[1], "pyav2")
    slower = scorer.score(pictures, fps=1)
    assert slower.quality != expected.quality
    assert np.array_equal(slower.saliency, expected.saliency)


def test_a_rate_is_asked_for_where_it_matters(finished, processor, clips):
    """And refused for a file, whose rate it would not change. Catches a clip whose pictures are
    taken for two seconds or two minutes, as it happens.
    """
    scorer = Scorer(finished, processor, workers=0)
    pictures = decoded_pictures(clips[0])
    # Six pictures that count as four seconds.
    assert same(scorer.score(pictures), scorer.score(pictures, fps=1.5))
    scorer.choice = FrameChoice(fps=2, min_pixels=3136)
    for clip in (pictures, [pictures]):
        with pytest.raises(ValueError, match="these pictures need fps"):
            _ = [*scorer.score(clip)]
    with pytest.raises(ValueError, match=r"a\.mp4: fps is for pictures in memory"):
        scorer.score(clips[0], fps=8)


def test_a_strip_is_scored_from_its_three_views(finished, processor, tmp_path):
    """A file of it, an array, and a clip that is nothing but these views. Catches maps of other
    pictures than the three.
    """
    views = moving(3, 3, 84, 84)
    strip = np.hstack(list(views))
    Image.fromarray(strip).save(tmp_path / "strip.png")
    scorer = Scorer(finished, processor)
    result = scorer.score(tmp_path / "strip.png")
    assert result.saliency.shape == strip.shape[:2]
    assert result.decoder == STRIP_DECODER
    assert same(scorer.score(strip), result)
    # A clip whose views are these: at a quarter, a half and three quarters of it.
    clip = np.stack([views[2], *views, views[0]])
    assert np.array_equal(scorer.score(clip).saliency, result.saliency)
    scorer.choice = FrameChoice(**(FRAMES | {"frames": 6}))
    assert scorer.score(views.repeat(2, axis=0), fps=2).quality == result.quality


def test_maps_are_those_of_the_views_that_are_given(finished, processor, clips):
    """A clip that shows them at its end, its beginning and in its middle. Catches maps of the usual
    places, and scores that depend on them.
    """
    scorer = Scorer(finished, processor, views=(1, 0, 0.5))
    for clip in (moving(4, 5, 84, 84), clips[0]):
        frames = clip if isinstance(clip, np.ndarray) else decoded_pictures(clip)
        result = scorer.score(clip)
        strip = np.hstack([frames[-1], frames[0], frames[round((len(frames) - 1) / 2)]])
        assert np.array_equal(result.saliency, scorer.score(strip).saliency)
        usual = Scorer(finished, processor).score(clip)
        assert (usual.quality, usual.distortions) == (result.quality, result.distortions)
        assert not np.array_equal(usual.saliency, result.saliency)
    scorer.views = None
    assert same(scorer.score(clips[0]), Scorer(finished, processor).score(clips[0]))
    with pytest.raises(DataError, match=r"in 0\.\.1"):
        scorer.views = (-45, 0, 45)


def test_what_is_noticed_about_a_clip_reaches_its_assessment(finished, processor, monkeypatch):
    """A static clip with a score far beyond the scale. Catches a note that ends with the decoder, a
    raw score that is cut off, and a scorer without scores that flags them.
    """
    scorer = Scorer(finished, processor)
    head = finished.heads["score"]
    monkeypatch.setattr(
        head, "forward", lambda hidden: {"score": torch.full(hidden.shape[:1], 1.7856)}
    )
    static = moving(4, 1, 84, 84).repeat(5, axis=0)
    result = scorer.score(static, fps=4)
    assert result.quality.score == pytest.approx(178.56, abs=0.01)
    assert result.outside_training == DIMENSIONS
    assert "do not change" in result.notes[0]
    row = row_of(result, file="a.mp4")
    assert (row.outside_training, row.notes) == (DIMENSIONS, result.notes)
    assert row.ratings["quality"].score == pytest.approx(178.56, abs=0.01)
    assert scorer.score(moving(4, 5, 84, 84)).notes == ()
    words = Scorer(finished, processor, scores=False).score(static, fps=4)
    assert words.outside_training == ()


def test_many_in_every_way(finished, processor, clips, tmp_path):
    """A folder, a pattern, a list, a tuple, a column of paths, a generator, mixed with pictures.
    Catches clips that are left out, twice there or in another order.
    """
    for path in clips:
        (tmp_path / path.name).symlink_to(path)
    scorer = Scorer(finished, processor, batch_size=2)
    pictures = decoded_pictures(clips[1])
    links = [tmp_path / path.name for path in clips]
    ways = {
        "folder": tmp_path,
        "name of a folder": str(tmp_path),
        "pattern": f"{tmp_path}/*.mp4",
        "list": links,
        "column": np.array([str(link) for link in links], dtype=object),
        "generator": (link for link in links),
        "mixed": (links[0], pictures, str(links[2])),
    }
    few = {"fps": 4, "answers": None, "maps": False}
    expected = [result.quality.score for result in scorer.assess(clips, **few)]
    for way, given in ways.items():
        results = list(scorer.score(given, **few))
        paths = [result.path for result in results]
        assert paths == ([links[0], None, links[2]] if way == "mixed" else links), way
        scores = [result.quality.score for result in results]
        assert scores == pytest.approx(expected, abs=1e-3), way


def test_a_bad_clip_is_a_failure_and_the_rest_go_on(finished, processor, clips, tmp_path):
    """Files and pictures. Catches a run of hours that one file ends, and results that slip by one
    place; alone, the same clip raises.
    """
    (tmp_path / "text.mp4").write_text("no video")
    pictures = decoded_pictures(clips[0])
    given = [
        clips[0],
        tmp_path / "text.mp4",
        pictures[..., 0],
        pictures,
        tmp_path / "absent.mp4",
        np.full_like(pictures, 0.5, dtype=np.float32) * np.nan,
        clips[1],
    ]
    scorer = Scorer(finished, processor, batch_size=3)
    results = list(scorer.score(given, fps=4, answers=None, maps=False))
    reasons = [getattr(result, "reason", None) for result in results]
    bad = "not_a_video"
    assert reasons == [None, bad, bad, None, "missing", bad, None]
    assert results[2].message.startswith("clip 3 in memory is of shape")
    assert results[0].quality.score == pytest.approx(results[3].quality.score, abs=1e-3)
    for clip, result in zip(given, results, strict=True):
        if isinstance(result, Failure):
            with pytest.raises(VideoError) as caught:
                scorer.score(clip)
            assert caught.value.reason == result.reason
    for nothing in (3, {"a.mp4": 1}, [3]):
        with pytest.raises(TypeError, match="expected a file, a folder"):
            scorer.score(nothing)


def test_no_more_is_taken_than_is_needed(finished, processor, clips):
    """Endless paths; then the iterator is closed. Catches a list that is made of an iterable, and
    processes that go on decoding for nobody.
    """
    taken = []

    def endless() -> Iterator[Path]:
        for path in repeat(clips[0]):
            taken.append(path)
            yield path

    results = Scorer(finished, processor, batch_size=2, workers=2).score(
        endless(), answers=None, maps=False
    )
    assert taken == []
    assert isinstance(next(results), Assessment)
    # The batch, and what two processes are ahead.
    assert len(taken) <= 2 + 2 * 3
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []


def test_progress_is_told_where_it_is_wanted(finished, processor, clips, monkeypatch, capsys):
    """Of a list how many are left, of a generator how many are done. Catches lines in the output of
    who switched them off.
    """
    monkeypatch.setattr("lmme3dhf.progress.EVERY_S", -1.0)
    scorer = Scorer(finished, processor, workers=0)
    few = {"answers": None, "maps": False}
    _ = [*scorer.score(clips[:2], **few), *scorer.score(iter(clips[:1]), **few)]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"scoring: 1 of 2, \d+ s left", lines[0])
    assert re.fullmatch(r"scoring: 1, [\d.]+ s each", lines[2])
    _ = [*scorer.score(clips[:2], progress=False, **few), scorer.score(clips[0], **few)]
    assert capsys.readouterr().out == ""


SIZES = ((4, 56, 56), (9, 84, 140), (6, 140, 56), (12, 112, 112), (5, 84, 84), (8, 56, 84))


def test_scores_do_not_depend_on_batch_order_or_padding(finished, processor):
    """Clips of six grids and lengths, alone, in batches of several sizes and in shuffled orders, in
    float32. Catches padding that is attended to, positions that move with it, and clips that see
    each other.
    """
    given = [moving(seed, *SIZES[seed % len(SIZES)]) for seed in range(8)]
    rng = np.random.default_rng(0)
    alone = [dict(figures(result)) for result in assessed(finished, processor, given, 1)]
    assert len({figure["quality"] for figure in alone}) == len(given)
    largest, looked = 0.0, 0
    for size in (2, 3, 8):
        order = rng.permutation(8)
        results = assessed(finished, processor, [given[i] for i in order], size)
        for i, result in zip(order, results, strict=True):
            for name, value in figures(result):
                largest = max(largest, abs(value - alone[i][name]))
                looked += 1
    assert looked == 3 * 8 * 21
    # Of scores in 0..1 and probabilities; 2e-6 was seen.
    assert largest < 1e-5


def assessed(model, processor, given: list, size: int) -> list[Assessment]:
    scorer = Scorer(model, processor, batch_size=size)
    scorer.choice = FrameChoice(fps=2, min_frames=2, min_pixels=3136, max_pixels=12544)
    return list(scorer.score(given, fps=3, maps=False, progress=False))


# Memory that does not do


@pytest.fixture
def small_memory(monkeypatch):
    """Lets the language model run out of memory on too many clips, or too long ones."""
    limits = {"clips": math.inf, "tokens": math.inf}
    sizes = []
    run = Qwen2_5_VLTextModel.forward

    def limited(self, *args, **options):
        batch, length = options["inputs_embeds"].shape[:2]
        sizes.append(batch)
        if batch > limits["clips"] or length > limits["tokens"]:
            raise limits.get("error", torch.OutOfMemoryError("CUDA out of memory. Tried to ..."))
        return run(self, *args, **options)

    monkeypatch.setattr(Qwen2_5_VLTextModel, "forward", limited)
    return limits, sizes


@pytest.mark.parametrize(("most", "expected"), [(1, [5, 2, 1, 1, 1, 1, 1]), (3, [5, 2, 2, 1])])
def test_a_batch_that_does_not_fit_is_halved(finished, processor, small_memory, most, expected):
    """Five clips; the scores are those of one batch. Catches a run that ends for want of memory,
    clips that are lost or doubled on the way, and a size that is looked for again in each batch.
    """
    limits, sizes = small_memory
    given = [moving(seed, 6, 84, 140 if seed % 2 else 84) for seed in range(5)]
    options = {"answers": "yes_no", "maps": False}
    plain = list(Scorer(finished, processor, batch_size=5).assess(given, **options))
    sizes.clear()
    limits["clips"] = most
    scorer = Scorer(finished, processor, batch_size=5)
    for _ in range(2):
        results = list(scorer.assess(given, **options))
        for one, other in zip(results, plain, strict=True):
            # Of scores in 0..1 and probabilities; 1e-6 was seen, in float32.
            assert dict(figures(one)) == pytest.approx(dict(figures(other)), abs=5e-6)
    assert sizes[: len(expected)] == expected
    assert scorer.batch_size == min(most, 2)
    assert max(sizes[len(expected) :]) == scorer.batch_size


def test_one_clip_that_does_not_fit_is_a_failure(finished, processor, small_memory):
    """The rest go on, in batches as large as before. Catches a hard end, and neighbours that fail
    along.
    """
    limits, _ = small_memory
    given = [moving(seed, 6, 84, 84) for seed in range(5)]
    given[3] = moving(3, 6, 112, 112)
    scorer = Scorer(finished, processor, batch_size=5, workers=0)
    few = {"answers": None, "maps": False}
    limits["tokens"] = small_length(finished, processor, given[0], few)
    results = list(scorer.assess(given, **few))
    reasons = [getattr(result, "reason", None) for result in results]
    assert reasons == [None, None, None, "out_of_memory", None]
    assert scorer.batch_size > 1
    assert "too large for the memory of cpu, even alone" in results[3].message
    with pytest.raises(VideoError, match="too large for the memory"):
        scorer.score(given[3], **few)
    with pytest.raises(VideoError, match="too large for the memory"):
        scorer.describe(given[3], "What?" * 100)
    assert isinstance(scorer.score(given[0], **few), Assessment)


def small_length(model, processor, clip, options) -> int:
    """Tokens of the pack on one clip."""
    lengths = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]),
        with_kwargs=True,
    )
    Scorer(model, processor, workers=0).score(clip, **options)
    hook.remove()
    return max(lengths)


def test_other_errors_of_the_model_go_up(finished, processor, clips, small_memory):
    """Catches a fault of the code that is taken for a lack of memory and tried again and again."""
    limits, sizes = small_memory
    limits |= {"clips": 0, "error": RuntimeError("mat1 and mat2 shapes cannot be multiplied")}
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        list(Scorer(finished, processor).score(clips, maps=False))
    assert sizes == [len(clips)]
    assert multiprocessing.active_children() == []


# Models without scores


def test_a_model_without_a_head_says_words(untrained, processor, clips):
    """Levels and their probabilities from the output layer, no score. Catches the numbers of a head
    that nobody trained.
    """
    model = copy.deepcopy(untrained)
    with pytest.raises(ModelError, match=r"no trained score head.*--scores false"):
        Scorer(model, processor)
    assert not model.metric.level_tokens
    scorer = Scorer(model, processor, scores=False)
    (result,) = scorer.assess(clips[:1], maps=False, answers=None)
    pixels = read_pixels(clips[0], scorer.choice, processor.video_processor, views=False)
    for dimension in DIMENSIONS:
        rating = getattr(result, dimension)
        assert rating.score is None
        # By the definition: the next token of the reply, among the five words.
        head = processor.tokenizer.encode(
            level_reply(GEN3DHF[dimension], "good").removesuffix(" good.")
        )
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
    monkeypatch.setitem(module.SPELLINGS, "yes", ("affirmatively",))
    scorer = Scorer(finished, processor)
    with pytest.raises(ModelError, match="no tokens of their own for yes and no"):
        next(scorer.assess(clips, answers="yes_no"))


# Questions


@torch.no_grad()
def plain_answer(model, processor, pixels, ids: list[int], length: int) -> str:
    """What the library's own greedy search writes after a dialogue on a clip's pixels."""
    at = ids.index(processor.tokenizer.convert_tokens_to_ids("<|video_pad|>"))
    ids = torch.tensor([[*ids[:at], *[ids[at]] * pixels.tokens, *ids[at + 1 :]]])
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=2 * (ids == ids[0, at]).long(),
        pixel_values_videos=pixels.values,
        video_grid_thw=torch.tensor([pixels.grid_thw]),
        second_per_grid_ts=torch.tensor([pixels.second_per_grid]),
        max_new_tokens=length,
        do_sample=False,
    )
    return processor.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    "question", ["What is wrong here?", "What is <|video_pad|>?", "<|im_end|>"]
)
def test_a_question_is_answered_in_the_models_own_words(finished, processor, clips, question):
    """As the library's own greedy search answers it, control tokens in it spelt out as text.
    Catches a question that ends its own turn or adds a video, and an answer that is drawn.
    """
    scorer = Scorer(finished, processor)
    pixels = read_pixels(clips[1], scorer.choice, processor.video_processor, views=False)
    message = [{"type": "video"}, {"type": "text", "text": "QUESTION"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    encode = processor.tokenizer.encode
    before, after = text.split("QUESTION")
    ids = [*encode(before), *encode(question, split_special_tokens=True), *encode(after)]
    expected = plain_answer(finished, processor, pixels, ids, 12)
    assert scorer.describe(clips[1], question, max_new_tokens=12) == expected != ""
    pictures = decoded_pictures(clips[1])
    assert scorer.describe(pictures, question, fps=4, max_new_tokens=12) == expected


@torch.no_grad()
def test_the_folders_way_of_writing_does_not_act(finished, processor, clips, caplog):
    """Replies of a model whose folder samples, penalises and bans are those of the library's greedy
    search with plain settings, without a word on ignored ones; only its end tokens count. Catches
    any of the folder's settings that comes through.
    """
    choice = Scorer(finished, processor).choice
    pixels = read_pixels(clips[0], choice, processor.video_processor, views=False)
    message = [{"type": "video"}, {"type": "text", "text": "Say it again."}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    ids = processor.tokenizer.encode(text)
    expected = plain_answer(finished, processor, pixels, ids, 12)
    words = processor.tokenizer.encode(expected)
    assert len(set(words)) > 2
    model = copy.copy(finished)
    folder = {
        "do_sample": True,
        "temperature": 5.0,
        "top_k": 3,
        "num_beams": 2,
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": words[:1],
        "bad_words_ids": [words[1:2]],
        "min_new_tokens": 12,
    }
    model.generation_config = GenerationConfig(**folder)
    assert plain_answer(model, processor, pixels, ids, 12) != expected
    transformers.logging.enable_propagation()
    caplog.clear()
    try:
        assert (
            Scorer(model, processor).describe(clips[0], "Say it again.", max_new_tokens=12)
            == expected
        )
    finally:
        transformers.logging.disable_propagation()
    assert not caplog.records
    model.generation_config = GenerationConfig(**folder, eos_token_id=[words[2]])
    shorter = Scorer(model, processor).describe(clips[0], "Say it again.", max_new_tokens=12)
    assert expected.startswith(shorter)
    assert 0 < len(shorter) < len(expected)


def test_a_question_is_about_one_clip(finished, processor, clips, tmp_path):
    """Catches an answer about the first of many, or to nothing."""
    scorer = Scorer(finished, processor)
    with pytest.raises(TypeError, match="describe takes one clip"):
        scorer.describe(clips, "What?")
    with pytest.raises(VideoError, match="does not exist"):
        scorer.describe(tmp_path / "absent.mp4", "What?")
    for question, length in ((" ", 8), ("What?", 0)):
        with pytest.raises(ValueError, match="describe needs a question"):
            scorer.describe(clips[0], question, max_new_tokens=length)


# As it is used


@pytest.fixture(scope="module")
def folder(finished, processor, clips, tmp_path_factory) -> Path:
    """A place to work in: a finished model, a clip and a folder of clips."""
    place = tmp_path_factory.mktemp("work")
    for part in (finished, processor):
        part.save_pretrained(place / "runs" / "demo" / "model")
    (place / "face.mp4").write_bytes(clips[0].read_bytes())
    (place / "clips").mkdir()
    for path in clips:
        (place / "clips" / path.name).write_bytes(path.read_bytes())
    return place


def test_loading_goes_by_its_words(folder, clips):
    """Types, scales and settings. Catches options that are dropped on the way, and bfloat16 that
    is asked for and not there.
    """
    model = folder / "runs" / "demo" / "model"
    scorer = Scorer.from_pretrained(model, load="bf16", batch_size=3, workers=0, timeout_s=5.0)
    assert scorer.model.dtype == torch.bfloat16
    assert (scorer.batch_size, scorer.workers, scorer.timeout_s) == (3, 0, 5.0)
    assert math.isfinite(scorer.score(clips[0]).quality.score)
    stored = Scorer.from_pretrained(str(model), dtype=torch.float32)
    assert (stored.model.dtype, stored.workers) == (torch.float32, worker_count(None))
    quality = stored.scales["dimensions"]["quality"]
    assert (quality["minimum"], quality["maximum"]) == (0, 100)
    assert quality["direction"] == "higher is better"
    with pytest.raises(ModelError, match="'bf16' means bfloat16, and dtype is float16"):
        Scorer.from_pretrained(model, load="bf16", dtype="float16")
    with pytest.raises(ValueError, match="expected at least 1 clip"):
        Scorer.from_pretrained(model, batch_size=0)


def test_scales_of_a_model_that_lies_nowhere(untrained, processor):
    """Catches a traceback for a model that was built in memory."""
    model = copy.deepcopy(untrained)
    model.name_or_path = ""
    scales = Scorer(model, processor, scores=False).scales
    assert scales["frames"]["frames"] == FRAMES["frames"]


NOTEBOOK = """
from lmme3dhf import Scorer
scorer = Scorer.from_pretrained("runs/demo/model", batch_size=2)
result = scorer.score("face.mp4")
print(repr(result))
---
import json
half = scorer.score(Path("clips").glob("*.mp4"))
next(half)
del half
assert scorer.score("face.mp4").quality == result.quality
print(json.dumps([record.to_dict() for record in scorer.score("clips")])[:16])
---
print(type(scorer.describe("face.mp4", "What do you see?", max_new_tokens=4)).__name__)
"""
# A notebook runs its cells in one name space, inside a running loop.
KERNEL = """
import asyncio, json, sys

async def run(cells):
    names = {}
    for cell in cells:
        exec("from pathlib import Path\\n" + cell, names)

asyncio.run(run(json.loads(sys.argv[1])))
"""


def test_a_notebook_session(folder):
    """One clip, an iterator that is left half-way, a folder, a question; then the README's snippets
    with its own names for model and clip. Catches processes that cannot be started in a notebook or
    that keep it from ending, and a README that is older than the code.
    """
    readme = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    snippets = [snippet for snippet in readme if "Scorer" in snippet]
    assert snippets
    done = subprocess.run(
        [sys.executable, "-c", KERNEL, json.dumps([*NOTEBOOK.split("---"), *snippets])],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    shown, rows, answer = done.stdout.splitlines()[:3]
    assert re.match(r"Assessment\('face.mp4': quality -?[\d.]+ of 100 \(", shown)
    assert (rows, answer) == ('[{"file": "clips', "str")


def test_the_public_names_are_there():
    """Each is found on demand, and said by dir(). Catches a name whose module moved."""
    for name in lmme3dhf.__all__:
        assert getattr(lmme3dhf, name) is not None
        assert name in dir(lmme3dhf)
    assert lmme3dhf.Scorer is Scorer
    with pytest.raises(AttributeError, match="no attribute 'scorer_of'"):
        _ = lmme3dhf.scorer_of
