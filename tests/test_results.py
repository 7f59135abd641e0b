"""Aspects on any scale and questions by likelihood, from the scorer through records, the table of
scores, its page and rewards, on the tiny model with a head whose value is known.
"""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from lmme3dhf import Question
from lmme3dhf.app import drawing
from lmme3dhf.aspects import GEN3DHF, Aspect, AspectError, Scale
from lmme3dhf.assessment import Answer, QuestionError, Rating, read_questions
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.pixels import read_pixels
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.generators.examples import ends
from lmme3dhf.generators.report import write_comparison
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.predictions import read_predictions
from lmme3dhf.reward import RewardError, as_loss, as_reward
from lmme3dhf.scorer import Scorer
from lmme3dhf.scores import ScoreError, ScoreRow, ScoreTable, fields_of, read_scores, scores_csv
from lmme3dhf.stages.predict import predict
from lmme3dhf.stages.table import score_files
from tests.conftest import random_frames
from tests.reports.html_page import ReadPage
from tests.test_scorer import plain_logits

FRAMES = {"fps": None, "frames": 4, "min_pixels": 3136, "max_pixels": 12544}
MODEL = "0" * 16
UNIT = 0.75  # of the head, whatever it reads
# By hand: 1 + 4 * 0.75, 10 * 0.75, -1 + 2 * 0.75.
SCORES = {"sharpness": 4.0, "noise": 7.5, "depth": 0.5}
QUESTIONS = {
    "beard": Question("Does {subject} have a beard?", ("Yes", "No")),
    "view": Question("From where? (A) front (B) side (C) front or back", ("A", "B", "A or C")),
}


def aspect(name: str, **scale) -> Aspect:
    return Aspect(
        name=name,
        prompt=f"Rate the {{aspect}} of {'{subject}' if name == 'sharpness' else 'this'}.",
        answer_prefix="The {aspect} is",
        scale=Scale(**scale),
    )


ASPECTS = {
    a.name: a
    for a in (
        aspect("sharpness", minimum=1, maximum=5, levels=("bad", "fair", "good")),
        aspect("noise", minimum=0, maximum=10, higher_is_better=False, levels=("poor", "good")),
        aspect("depth", minimum=-1, maximum=1, levels=()),
    )
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{name}.mp4" for name in ("a_1", "b_1")]
    for seed, path in enumerate(paths):
        frames = random_frames(seed, 6, 84, 84)
        write_clip(path, list(frames.permute(0, 2, 3, 1).numpy()), fps=4)
    return paths


@pytest.fixture(scope="module")
def scorer(tiny_folder, processor) -> Scorer:
    model = LMME3DHF.from_pretrained(tiny_folder)
    with torch.no_grad():
        model.model.language_model.norm.weight *= 3
        model.heads["score"].layers[-1].weight.zero_()
        model.heads["score"].layers[-1].bias.fill_(UNIT)
    aspects = with_tokens(ASPECTS, processor.tokenizer)
    model.config.set_metric(model.metric.replace(frames=FRAMES, aspects=aspects))
    model.missing_parts = []
    return Scorer(model, processor, workers=0)


# The scorer


def test_every_aspect_has_its_score_and_its_words(scorer, processor, clips):
    """Scores by hand, words by the library's own forward pass over the dialogue. Catches 0..100 on
    another scale, words of another aspect, and words where there are none.
    """
    result = scorer.score(clips[0], slots={"subject": "a cat"}, answers=None, maps=False)
    found = {name: rating.score for name, rating in result.ratings.items()}
    assert found == pytest.approx(SCORES)
    assert [r.by_head for r in result.ratings.values()] == [{"score": s} for s in found.values()]
    pixels = read_pixels(clips[0], scorer.choice, processor.video_processor, views=False)
    questions = {"sharpness": "Rate the sharpness of a cat.", "noise": "Rate the noise of this."}
    for name, question in questions.items():
        words = ASPECTS[name].scale.levels
        head = processor.tokenizer.encode(f"The {name} is")
        logits = plain_logits(scorer.model, processor, pixels, question, head)[-1]
        expected = logits[[processor.tokenizer.encode(f" {word}")[0] for word in words]].softmax(0)
        rating = result.ratings[name]
        assert list(rating.level_probabilities) == list(words)
        assert list(rating.level_probabilities.values()) == pytest.approx(
            expected.tolist(), abs=1e-5
        )
        assert rating.level == words[int(expected.argmax())]
    assert (result.ratings["depth"].level, result.ratings["depth"].level_probabilities) == (
        None,
        None,
    )


def test_questions_are_answered_by_whole_replies(scorer, processor, clips):
    """Against separate forward passes: at each token a softmax over those with which some
    candidate goes on, the end of the reply included. Catches a candidate that is judged by its
    first token alone, and a reply that another one begins with.
    """
    slots = {"subject": "the cat"}
    result = scorer.score(
        clips[1], slots=slots, questions=QUESTIONS, answers="likelihood", maps=False
    )
    plain = scorer.score(clips[1], slots=slots, answers="likelihood", maps=False)
    odds = plain.distortion_log_odds
    assert result.distortion_log_odds == pytest.approx(odds, abs=1e-4)
    pixels = read_pixels(clips[1], scorer.choice, processor.video_processor, views=False)
    for name, question in QUESTIONS.items():
        replies = [processor.tokenizer.encode(f"{c}<|im_end|>") for c in question.candidates]
        prompt = question.prompt.replace("{subject}", "the cat")
        expected = []
        for reply in replies:
            logits = plain_logits(scorer.model, processor, pixels, prompt, reply)
            p = 1.0
            for i in range(len(reply)):
                ways = {other[i] for other in replies if other[:i] == reply[:i]}
                p *= float(logits[i, reply[i]].exp() / logits[i, sorted(ways)].exp().sum())
            expected.append(p)
        answer = result.answers[name]
        assert sum(expected) == pytest.approx(1)
        assert list(answer.probabilities) == list(question.candidates)
        assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert answer.likeliest == question.candidates[expected.index(max(expected))]


def test_each_clip_has_its_own_slots(scorer, clips):
    """In one batch, by list, function, or one mapping for all. Catches the first clip's slots for
    all of a batch, and hidden states of another clip's dialogue.
    """
    own = [{"subject": "a cat"}, {"subject": "an old man with a very long beard"}]
    options = {"answers": None, "maps": False, "questions": QUESTIONS, "progress": False}
    alone = [scorer.score(c, slots=s, **options) for c, s in zip(clips, own, strict=True)]
    same = [scorer.score(c, slots=own[0], **options) for c in clips]

    def chances(results) -> list[list[float]]:
        return [
            [
                *r.ratings["sharpness"].level_probabilities.values(),
                *r.answers["beard"].probabilities.values(),
            ]
            for r in results
        ]

    assert chances(alone)[1] != pytest.approx(chances(same)[1], abs=1e-4)
    by_name = dict(zip(clips, own, strict=True))
    for slots, expected in ((own, alone), (by_name.get, alone), (own[0], same)):
        found = list(scorer.score(clips, slots=slots, **options))
        for one, other in zip(chances(found), chances(expected), strict=True):
            assert one == pytest.approx(other, abs=2e-4)
    with pytest.raises(AspectError, match=r"sharpness.*'subject'"):
        scorer.score(clips[0], answers=None, maps=False)
    with pytest.raises(ValueError, match="shorter"):
        list(scorer.score(clips, slots=own[:1], **options))


def test_questions_that_cannot_be_asked_are_refused(scorer, clips, tmp_path):
    """Catches a traceback, and an answer that hides a rating."""
    for candidates in ((), ("Yes",), ("Yes", "Yes"), "Yes", ("Yes", "")):
        with pytest.raises(QuestionError, match="expected a"):
            Question("Is it?", candidates)
    for name in ("noise", "distortion"):
        with pytest.raises(QuestionError, match=f"{name}.*another name"):
            scorer.score(clips[0], questions={name: QUESTIONS["view"]})
    with pytest.raises(QuestionError, match="slots="):
        QUESTIONS["beard"].text({})
    path = tmp_path / "q.yaml"
    path.write_text("view:\n  prompt: From where?\n  candidates: [A, B]\n")
    assert read_questions(path) == {"view": Question("From where?", ("A", "B"))}
    for content in ("view: [1]", "- a", "view:\n  prompt: a", "{"):
        path.write_text(content)
        with pytest.raises(QuestionError, match=r"q\.yaml.*candidates"):
            read_questions(path)


# Records


def samples(clips: list[Path], task: str) -> list[Sample]:
    return [Sample(video=path.stem, path=path, task=task, prompt=f"Rate {task}.") for path in clips]


def test_records_name_any_aspect(scorer, clips, tmp_path):
    """Catches a record of Gen3DHF's aspects alone, answers that are lost, and heads beside each
    other where there is one.
    """
    out = tmp_path / "p.jsonl"
    options = {"model": MODEL, "aspects": ASPECTS, "maps": False}
    two = {name: scorer.aspects[name] for name in ("noise", "depth")}
    scorer = replaced(scorer, two)
    questions = {"view": QUESTIONS["view"]}
    options |= {"aspects": two, "questions": questions}
    predict(lambda: scorer, samples(clips, "distortion"), out, **options)
    records = read_predictions(out)
    assert [(r.video, r.dimension) for r in records] == [
        (path.stem, name) for path in clips for name in two
    ]
    assert [r.score for r in records[:2]] == pytest.approx([7.5, 0.5])
    assert (records[0].level in ("poor", "good"), records[1].level) == (True, None)
    assert set(records[0].answers) == {"view"}
    assert sum(records[0].answers["view"].values()) == pytest.approx(1)
    assert "by_head" not in json.loads(out.read_text().splitlines()[0])
    before = out.read_bytes()
    predict(lambda: pytest.fail("stands"), samples(clips, "distortion"), out, **options)
    assert out.read_bytes() == before
    with pytest.raises(DataError, match=r"asks for quality.*rates noise, depth"):
        predict(None, samples(clips, "quality"), out, **options)
    # Another question: the records are made anew.
    options["questions"] = {"view": Question("From where else?", ("A", "B"))}
    predict(lambda: scorer, samples(clips, "distortion"), out, **options)
    assert set(read_predictions(out)[0].answers["view"]) == {"A", "B"}


@dataclass(frozen=True, kw_only=True)
class Asked(Sample):
    """A sample with a question of its own."""

    candidates: tuple[str, ...] = ()
    slots: Mapping[str, str] = field(default_factory=dict)


def test_a_list_has_questions_and_slots_of_its_own(scorer, clips, tmp_path):
    """Two lists on one clip each: a question with candidates, and a prompt with slots. Catches a
    candidate that is lost, a record that stands though its slots are others, and one wording for
    two.
    """
    out, name = tmp_path / "p.jsonl", "sharpness"
    scorer = replaced(scorer, {name: scorer.aspects[name]})
    options = {"model": MODEL, "aspects": scorer.aspects, "maps": False, "answers": None}

    def asked(path: Path, subject: str, prompt: str = "Is {it} a cat?") -> Asked:
        about = {"candidates": ("Yes", "No"), "slots": {"subject": subject}}
        return Asked(video=path.stem, path=path, task="cat", prompt=prompt, **about)

    predict(lambda: scorer, [asked(c, "a cat") for c in clips], out, **options)
    before = read_predictions(out)
    assert [(r.dimension, list(r.answers["cat"])) for r in before] == [(name, ["Yes", "No"])] * 2
    predict(
        lambda: scorer, [asked(clips[0], "a cat"), asked(clips[1], "an old dog")], out, **options
    )
    after = read_predictions(out)
    assert after[0] == before[0]
    assert after[1].level_probabilities != before[1].level_probabilities
    with pytest.raises(DataError, match="two wordings"):
        predict(None, [asked(clips[0], ""), asked(clips[1], "", "Is it?")], out, **options)


def test_every_head_is_in_the_record(scorer, clips, tmp_path, monkeypatch):
    """Two heads, of 0.75 and 0.25 of the way: 7.5 and 2.5 of 10. Catches the second one's score as
    that of the aspect, and units of the head.
    """
    read = LMME3DHF.scores

    def two(model, hidden, aspect):
        return read(model, hidden, aspect) | {"voter": torch.full((len(hidden),), 0.25)}

    monkeypatch.setattr(LMME3DHF, "scores", two)
    scorer, out = replaced(scorer, {"noise": scorer.aspects["noise"]}), tmp_path / "p.jsonl"
    result = scorer.score(clips[0], answers=None, maps=False)
    assert result.ratings["noise"].score == pytest.approx(7.5)
    assert result.to_dict()["noise"]["by_head"] == pytest.approx({"score": 7.5, "voter": 2.5})
    options = {"model": MODEL, "aspects": scorer.aspects, "maps": False}
    predict(lambda: scorer, samples(clips[:1], "noise"), out, **options)
    (record,) = read_predictions(out)
    assert (record.score, record.by_head["voter"]) == pytest.approx((7.5, 2.5))


def replaced(scorer: Scorer, aspects: dict[str, Aspect]) -> Scorer:
    """The same model with other aspects."""
    other = Scorer(scorer.model, scorer.processor, workers=0)
    other.aspects = aspects
    return other


# The table and its page


def test_the_table_names_its_aspects(scorer, clips, tmp_path):
    """Both files, read back and continued; another model's aspects are refused by name. Catches
    columns of Gen3DHF, a scale that the table forgets, and rows of two models in one table.
    """
    aspects = {name: scorer.aspects[name] for name in ("noise", "depth")}
    scorer, out = replaced(scorer, aspects), tmp_path / "scores.csv"
    questions = {"view": QUESTIONS["view"]}
    options = {"model": MODEL, "aspects": aspects, "questions": questions}
    (tmp_path / "bad.mp4").write_text("no clip")
    score_files(lambda: scorer, [tmp_path / "bad.mp4", clips[0]], out, **options)
    score_files(lambda: scorer, [tmp_path / "bad.mp4", *clips], out, **options)
    rows = read_scores(out)
    assert rows == read_scores(out.with_suffix(".jsonl"))
    assert [row.status for row in rows] == ["failed", "ok", "ok"]
    rating = rows[1].ratings["noise"]
    assert (rating.score, rows[1].ratings["depth"].score) == (7.5, 0.5)
    assert rating.scale == ASPECTS["noise"].scale
    assert rows[1].ratings["depth"].level is None
    assert sum(rows[1].answers["view"].probabilities.values()) == pytest.approx(1, abs=1e-5)
    header = next(csv.reader(out.open(encoding="utf-8", newline="")))
    assert tuple(header) == (
        *("file", "status", "reason", "message"),
        *("noise", "noise_level", "noise_probabilities", "noise_scale"),
        *("depth", "depth_level", "depth_probabilities", "depth_scale"),
        *("view_answer", "view_probabilities"),
        *("distortions", "distortion_probabilities"),
        *("map", "content", "model", "decoder", "version", "seconds"),
        *("outside_training", "notes", "views"),
    )
    for changed in ({"aspects": GEN3DHF}, {"questions": {}}):
        with pytest.raises(ScoreError, match=r"noise_level.*expected file.*another --out"):
            score_files(lambda: scorer, clips, out, **options | changed)
    with pytest.raises(ScoreError, match="two columns 'view_probabilities'"):
        fields_of({"view": Scale()}, ["view"])


def row(file: str, noise: float, **fields) -> ScoreRow:
    noisy = Rating(
        score=noise, level="good", level_probabilities=None, scale=ASPECTS["noise"].scale
    )
    depth = Rating(score=0.25, level=None, level_probabilities=None, scale=ASPECTS["depth"].scale)
    return ScoreRow(
        **{
            "file": file,
            "status": "ok",
            "model": MODEL,
            "ratings": {"noise": noisy, "depth": depth},
            "distortions": (),
            "answers": {"beard": Answer({"Yes": 0.25, "No": 0.75})},
            **fields,
        }
    )


def test_rows_on_other_scales_come_back(tmp_path):
    """From both files. Catches a level that another scale does not have, and a flag by 0..100."""
    rows = [row("a", 2.5), row("b", 11.5)]
    assert [r.outside_training for r in rows] == [(), ("noise",)]  # a tenth of 0..10 beyond the end
    scales = {name: rating.scale for name, rating in rows[0].ratings.items()}
    about = {"model": MODEL, "decoders": (), "aspects": scales, "questions": ["beard"]}
    with ScoreTable(tmp_path / "t.csv", **about) as table:
        table.append(*rows)
    assert read_scores(tmp_path / "t.csv") == read_scores(tmp_path / "t.jsonl") == rows
    assert (tmp_path / "t.csv").read_bytes() == scores_csv(rows, fields_of(scales, ["beard"]))
    for change in ({"score": math.nan}, {"level": "excellent"}, {"level_probabilities": {"x": 1}}):
        with pytest.raises(ScoreError, match=r"noise.* of 'a'"):
            row("a", 1.0, ratings={"noise": replace(rows[0].ratings["noise"], **change)})


def test_the_page_ranks_the_lower_first_where_lower_is_better(tmp_path):
    """Generator `low` with less noise is first; its cleanest video is the best one. Catches an
    order by the highest, 0..100 in sentences, and levels of an aspect without words.
    """
    rows = [
        row(f"{g}_{i}.mp4", base + i) for g, base in (("high", 6.0), ("low", 1.0)) for i in (0, 1)
    ]
    scales = {name: rating.scale for name, rating in rows[0].ratings.items()}
    table = tmp_path / "t.csv"
    about = {"model": MODEL, "decoders": (), "aspects": scales, "questions": ["beard"]}
    with ScoreTable(table, **about) as opened:
        opened.append(*rows)
    files = write_comparison(table, tmp_path / "report.html", "{generator}_*")
    page = ReadPage((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.faults
    assert "noise from 0 to 10, lower is better" in page.text
    assert "best 1: low_0.mp4" in page.text
    assert "noise 1.00 (good), depth 0.250" in page.text
    assert "beard: No 0.75" in page.text
    with (files / "tables" / "means.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [(r["generator"], r["noise_mean"], r["noise_rank"]) for r in written] == [
        ("low", "1.5", "1"),
        ("high", "6.5", "2"),
    ]
    assert {path.stem for path in (files / "figures").glob("*.png")} == {
        *("means-noise", "means-depth", "scores-noise", "scores-depth"),
        *("levels-noise", "radar"),
    }
    levels = (files / "tables" / "levels.csv").read_text(encoding="utf-8").splitlines()[0]
    assert levels == "generator,videos,noise_poor,noise_good"
    assert [place for place, r in ends(rows, "noise", 1) if r.file == "low_0.mp4"] == ["best 1"]


def test_the_page_to_try_shows_any_scale():
    """Catches a sentence on a level that is none, and a marker that stands by 0..100."""
    scale = ASPECTS["noise"].scale.replace(edges=(0, 2, 10))
    noisy = Rating(
        score=2.5, level="good", level_probabilities={"poor": 0.25, "good": 0.75}, scale=scale
    )
    training = {"videos": 3, "percentiles": [0.05 * i for i in range(101)]}
    card = str(drawing.rating_card("noise", noisy, training))
    assert "on a scale of 0 to 10, lower is better" in card
    assert 'class="marker" style="left:25.00%"' in card
    assert "Higher than 50 % of the 3 training videos" in card
    assert not ReadPage(card).faults
    plain = Rating(score=0.5, level=None, level_probabilities=None, scale=ASPECTS["depth"].scale)
    card = str(drawing.rating_card("depth", plain, None))
    assert "Level word" not in card
    assert not ReadPage(card).faults
    rows = [row("a.mp4", 2.5)]
    shown = drawing.session_table(rows, ["noise", "depth"], b"")
    assert ReadPage(str(shown)).tables[0] == [
        ["File", "Noise", "Depth", "Distortions"],
        ["a.mp4", "2.50 (good)", "0.250", ""],
    ]


# Rewards


def test_rewards_follow_range_and_direction(scorer):
    """The head says 0.75 of the way from minimum to maximum: 75 of 100 where higher is better, 25
    where lower is. Catches a generator that is rewarded for noise, and a mean of different units.
    """
    frames = random_frames(0, 6, 84, 84).permute(0, 2, 3, 1) / 255
    slots = {"subject": "a cat"}
    expected = {"sharpness": 75.0, "noise": 25.0, "depth": 75.0}
    for name, value in expected.items():
        reward = as_reward(scorer, aspects=name, slots=slots)
        assert reward(frames, 4.0).tolist() == pytest.approx([value])
    both = as_loss(scorer, aspects=["sharpness", "noise"], slots=slots)
    assert both(frames, 4.0).tolist() == pytest.approx([0.5])
    every = as_reward(scorer, slots=slots)
    assert every(frames, 4.0).tolist() == pytest.approx([175 / 3])
    with pytest.raises(RewardError, match=r"quality.*sharpness, noise, depth"):
        as_reward(scorer, aspects="quality")
