"""From assessments to records: what was not asked for stays empty, nothing asked for is no
prediction, what is known is on the disk, and the same command continues.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf import distributed
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.config import Config
from lmme3dhf.data.container import DECODER
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.files import file_state
from lmme3dhf.pipeline import chain
from lmme3dhf.predictions import Prediction, PredictionError, read_predictions, write_predictions
from lmme3dhf.scorer import Assessment, Failure, Rating
from lmme3dhf.stages.predict import predict as predict_clips
from lmme3dhf.vocabulary import DISTORTIONS

ODDS = {category: -float(index) for index, category in enumerate(DISTORTIONS)}


MODEL, OTHER = "0" * 16, "f" * 16


class FakeScorer:
    """Says of every clip what is asked for, and keeps how it was asked.

    Args:
        scores: Whether ratings have scores.
        score: The score of every clip.
        stop: Clips after which the process is killed.
    """

    def __init__(self, scores: bool = True, score: float = 51.25, stop: int | None = None) -> None:
        self.scores, self.score, self.stop = scores, score, stop
        self.asked: dict = {}
        self.clips: list[str] = []

    def assess(self, paths, *, ratings=True, answers="reply", maps=True, **options):
        """See `lmme3dhf.scorer.Scorer.assess`."""
        self.asked = {"ratings": ratings, "answers": answers, "maps": maps, **options}
        rating = Rating(
            score=self.score if self.scores else None,
            level="good",
            level_probabilities={"good": 1.0},
        )
        for path in paths:
            if len(self.clips) == self.stop:
                raise KeyboardInterrupt
            self.clips.append(path.stem)
            if not path.exists():
                yield Failure(path, "missing", f"{path} does not exist")
                continue
            if path.read_bytes() == b"broken":
                yield Failure(path, "not_a_video", f"{path} is no video")
                continue
            yield Assessment(
                path=path,
                ratings=dict.fromkeys(GEN3DHF, rating) if ratings else {},
                distortions=DISTORTIONS[:1] if answers else None,
                saliency=np.ones((8, 24), np.float32) if maps else None,
                decoder=DECODER,
                distortion_log_odds=ODDS if answers == "likelihood" else None,
            )


def listed(folder: Path, *videos: str, task: str = "quality") -> list[Sample]:
    """Questions on clips, which are made where they are missing; those named broken are."""
    for video in videos:
        path = folder / f"{video}.mp4"
        if not path.exists():
            path.write_text("broken" if video == "broken" else f"clip {video}")
    return [
        Sample(video=video, path=folder / f"{video}.mp4", task=task, prompt=PROMPTS[task])
        for video in videos
    ]


def predict(scorer, samples, out, *, model: str = MODEL, maps: bool = False, **options):
    """The outcome of the command with a scorer that is loaded already."""
    options = {"aspects": GEN3DHF, **options}
    return predict_clips(lambda: scorer, samples, out, model=model, maps=maps, **options)


def said(out: Path) -> list[tuple]:
    """Video, dimension, score and reason of each record."""
    return [(r.video, r.dimension, r.score, r.reason) for r in read_predictions(out)]


def test_likelihoods_are_written_and_read_back(tmp_path):
    """Catches log-odds that do not arrive in the records of both dimensions."""
    scorer, out = FakeScorer(), tmp_path / "p.jsonl"
    samples = listed(tmp_path, "seed0000", "seed0001", task="distortion")
    assert predict(scorer, samples, out, answers="likelihood").records == 4
    assert scorer.asked["answers"] == "likelihood"
    records = read_predictions(out)
    assert [record.distortion_log_odds for record in records] == [ODDS] * 4
    assert {record.map for record in records} == {None}


def test_what_was_not_asked_for_is_empty_in_the_records(tmp_path):
    """Maps alone, then words alone. Catches a level or an answer that nobody gave."""
    out = tmp_path / "p.jsonl"
    predict(FakeScorer(), listed(tmp_path, "seed0000"), out, maps=True, ratings=False, answers=None)
    (record,) = read_predictions(out)
    assert (tmp_path / record.map).is_file()
    found = (record.score, record.level, record.level_probabilities, record.distortions)
    assert found == (None, None, None, None)
    predict(FakeScorer(scores=False), listed(tmp_path, "seed0000"), out, maps=False)
    (record,) = read_predictions(out)
    assert (record.score, record.level, record.map) == (None, "good", None)


def test_asking_for_nothing_is_refused(tmp_path):
    """Catches a file of empty records."""
    with pytest.raises(DataError, match="no ratings, no answers and no maps"):
        predict(
            FakeScorer(),
            listed(tmp_path, "seed0000"),
            tmp_path / "p.jsonl",
            maps=False,
            ratings=False,
            answers=None,
        )
    assert not (tmp_path / "p.jsonl").exists()


def test_a_clip_that_cannot_be_read_has_records_and_the_others_stay(tmp_path):
    """Catches a night of work that is thrown away for one bad file, a test set that is shortened
    without a word, and a folder of this machine in a file that is passed on.
    """
    out, samples = tmp_path / "p.jsonl", listed(tmp_path, "seed0000", "broken", "seed0001")
    outcome = predict(FakeScorer(), samples, out)
    assert said(out) == [
        ("seed0000", "quality", 51.25, None),
        ("broken", "quality", None, "not_a_video"),
        ("seed0001", "quality", 51.25, None),
    ]
    assert (outcome.records, outcome.clips, len(outcome.failures)) == (2, 3, 1)
    assert outcome.failures[0].message == "broken.mp4 is no video"
    assert str(tmp_path) not in out.read_text()
    with pytest.raises(DataError, match=r"1 of 3 clips .*\n  broken \(not_a_video\): broken.mp4"):
        outcome.require_all()
    # The failure would come again: nothing is loaded.
    assert predict_clips(None, samples, out, model=MODEL, aspects=GEN3DHF, maps=False) == outcome
    # Replaced, it is predicted alone, and takes its place.
    (tmp_path / "broken.mp4").write_text("good now")
    scorer = FakeScorer()
    predict(scorer, samples, out).require_all()
    assert scorer.clips == ["broken"]
    assert [video for video, *_ in said(out)] == ["seed0000", "broken", "seed0001"]


@pytest.mark.parametrize("stop", range(4))
@pytest.mark.parametrize("torn", [b"", b'{"video": "seed00', b"\xc3"])
def test_a_kill_leaves_whole_records_and_the_same_command_continues(tmp_path, stop, torn):
    """After any clip, with the beginning of a record behind the last whole one or without. Catches
    clips that are predicted twice, and a file unlike that of an undisturbed run.
    """
    samples = listed(tmp_path, "seed0000", "seed0001", "seed0002", task="distortion")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
    predict(FakeScorer(), samples, whole)
    first, second = FakeScorer(stop=stop), FakeScorer()
    if stop < 3:
        with pytest.raises(KeyboardInterrupt):
            predict(first, samples, out)
    else:
        predict(first, samples, out)
    assert out.exists() == (stop > 0)
    if stop:
        assert len(read_predictions(out)) == 2 * stop
        with out.open("ab") as file:
            file.write(torn)
        if torn != b"\xc3":
            assert len(read_predictions(out)) == 2 * stop
        else:  # no command of ours leaves this
            with pytest.raises(PredictionError):
                predict(second, samples, out)
            return
    predict(second, samples, out)
    assert first.clips + second.clips == ["seed0000", "seed0001", "seed0002"]
    assert out.read_bytes() == whole.read_bytes()


def test_one_of_two_records_is_no_clip(tmp_path):
    """A kill within the records of a clip. Catches a clip without its second dimension."""
    samples, out = listed(tmp_path, "seed0000", "seed0001", task="distortion"), tmp_path / "p.jsonl"
    predict(FakeScorer(), samples, out)
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    scorer = FakeScorer()
    predict(scorer, samples, out)
    assert scorer.clips == ["seed0001"]
    assert out.read_bytes() == whole


def changed_clip(folder: Path) -> dict:
    (folder / "seed0001.mp4").write_text("another clip")
    return {}


@pytest.mark.parametrize(
    ("change", "anew", "cause"),
    [
        (lambda folder: {"model": OTHER}, ["seed0000", "seed0001"], "another model"),
        (lambda folder: {"answers": "yes_no"}, ["seed0000", "seed0001"], "prompts or options"),
        (lambda folder: {"maps": True}, ["seed0000", "seed0001"], "prompts or options"),
        (lambda folder: {"scores": False}, ["seed0000", "seed0001"], "prompts or options"),
        (lambda folder: {"views": (0.5, 0.0, 1.0)}, ["seed0000", "seed0001"], "prompts or options"),
        (changed_clip, ["seed0001"], "clips that have changed"),
    ],
)
def test_what_does_not_stand_is_made_anew_and_said(tmp_path, capsys, change, anew, cause):
    """Catches records of two models in one file, and scores of a clip that is there no more."""
    samples, out = listed(tmp_path, "seed0000", "seed0001"), tmp_path / "p.jsonl"
    predict(FakeScorer(score=1.0), samples, out)
    scorer = FakeScorer(score=2.0)
    predict(scorer, samples, out, **change(tmp_path))
    assert scorer.clips == anew
    scores = {video: score for video, _, score, _ in said(out)}
    assert scores == {v: 2.0 if v in anew else 1.0 for v in ("seed0000", "seed0001")}
    printed = capsys.readouterr().out
    assert f"{out}: {len(anew)} records do not stand" in printed
    assert cause in printed


def test_another_prompt_is_another_question(tmp_path):
    """Catches answers to a question that the list asks no more."""
    samples, out = listed(tmp_path, "seed0000"), tmp_path / "p.jsonl"
    predict(FakeScorer(), samples, out)
    scorer = FakeScorer()
    predict(scorer, [samples[0].__class__(**{**vars(samples[0]), "prompt": "<video>Well?"})], out)
    assert scorer.clips == ["seed0000"]


def test_another_list_leaves_no_record_of_the_one_before(tmp_path):
    """And what both have is kept, in the new order. Catches a test set with clips of another."""
    out = tmp_path / "p.jsonl"
    predict(FakeScorer(), listed(tmp_path, "seed0000", "seed0001"), out)
    scorer = FakeScorer()
    predict(scorer, listed(tmp_path, "seed0002", "seed0001"), out)
    assert scorer.clips == ["seed0002"]
    assert [video for video, *_ in said(out)] == ["seed0002", "seed0001"]


def test_records_of_an_earlier_version_are_made_anew(tmp_path, capsys):
    """They do not say which model made them. Catches a mixed file."""
    samples, out = listed(tmp_path, "seed0000"), tmp_path / "p.jsonl"
    old = Prediction(video="seed0000", dimension="quality", method="LMME3DHF", score=1)
    write_predictions(out, [old])
    predict(FakeScorer(), samples, out)
    assert said(out) == [("seed0000", "quality", 51.25, None)]
    assert "another method or version" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["no records\n", '{"video": "a"}\n', "NIQE"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path, content):
    """Another method's predictions, or no predictions. Catches a file that is written over."""
    out = tmp_path / "p.jsonl"
    if content == "NIQE":
        record = Prediction(video="seed0000", dimension="quality", method="NIQE", score=1)
        write_predictions(out, [record])
    else:
        out.write_text(content)
    before = out.read_bytes()
    with pytest.raises(PredictionError, match=r"p\.jsonl"):
        predict(FakeScorer(), listed(tmp_path, "seed0000"), out)
    assert out.read_bytes() == before


def test_a_lost_map_is_made_again(tmp_path):
    """Catches a record whose map is not there."""
    samples, out = listed(tmp_path, "seed0000", "seed0001"), tmp_path / "p.jsonl"
    predict(FakeScorer(), samples, out, maps=True)
    lost = tmp_path / read_predictions(out)[1].map
    lost.unlink()
    scorer = FakeScorer()
    predict(scorer, samples, out, maps=True)
    assert scorer.clips == ["seed0001"]
    assert lost.is_file()


def test_a_missing_clip_is_looked_for_again(tmp_path):
    """Catches a failure of the moment that stays for ever."""
    samples, out = listed(tmp_path, "seed0000", "seed0001"), tmp_path / "p.jsonl"
    (tmp_path / "seed0001.mp4").rename(tmp_path / "away")
    assert [f.reason for f in predict(FakeScorer(), samples, out).failures] == ["missing"]
    (tmp_path / "away").rename(tmp_path / "seed0001.mp4")
    scorer = FakeScorer()
    predict(scorer, samples, out).require_all()
    assert scorer.clips == ["seed0001"]


def test_the_content_is_that_of_the_bytes_that_were_read(tmp_path):
    """A clip that is replaced while it is read is read again, with the same question. Catches a
    record that the next command takes for one of the new clip.
    """
    samples, out = listed(tmp_path, "seed0000"), tmp_path / "p.jsonl"

    class Replacing(FakeScorer):
        def assess(self, paths, **options):
            results = list(super().assess(paths, **options))
            if len(self.clips) == 1:
                paths[0].write_text("replaced")
            yield from results

    scorer = Replacing()
    predict(scorer, samples, out, answers="yes_no")
    assert scorer.clips == ["seed0000", "seed0000"]
    assert scorer.asked["answers"] == "yes_no"
    (record,) = read_predictions(out)
    assert record.content == hashlib.sha256(b"replaced").hexdigest()


def test_records_say_what_made_them_and_readers_of_old_files_go_on(tmp_path):
    """The fields of a record before this, in their order, then the three that let a command
    continue. Catches a failure's fields in every record.
    """
    out = tmp_path / "p.jsonl"
    predict(FakeScorer(), listed(tmp_path, "seed0000"), out)
    content = json.loads(out.read_text())
    assert list(content)[-4:] == ["distortion_log_odds", "content", "model", "settings"]
    assert len(content) == 14
    assert content["model"] == MODEL


def as_rank(monkeypatch, rank: int, gathered) -> None:
    """This process as one of two, whose other gives what `gathered` makes of this one's."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "all_gather", gathered)


def test_ranks_write_the_file_of_one_process(tmp_path, monkeypatch):
    """The other rank's records come from its hidden part. Catches two ranks that write one file,
    records in the order of the ranks, and a part that is left behind.
    """
    names = ("seed0000", "seed0001", "broken", "seed0003")
    samples, out = listed(tmp_path, *names, task="distortion"), tmp_path / "p.jsonl"
    alone = tmp_path / "alone.jsonl"
    outcome = predict(FakeScorer(), samples, alone)
    own = tmp_path / ".p.rank_1.jsonl"

    def from_main(item):
        # The states of the clips; the clips that are to be predicted; anything else.
        if isinstance(item, list) and len(item) == 2:
            states = [file_state(sample.path) for sample in samples]
            return [states[0::2], states[1::2]]
        return [list(names) if item == [] else (None, None) if item else outcome, item]

    as_rank(monkeypatch, 1, from_main)
    predict(FakeScorer(), samples, out)
    assert not out.exists()
    assert [r.video for r in read_predictions(own)][::2] == ["seed0001", "seed0003"]
    part = own.read_bytes()
    own.unlink()

    def from_second(item):
        if item is None and not own.exists():  # the barrier: the second is done
            own.write_bytes(part)
        if isinstance(item, list) and len(item) == 2:
            return from_main(item)
        return [item, item]

    as_rank(monkeypatch, 0, from_second)
    ours = predict(FakeScorer(), samples, out)
    assert out.read_bytes() == alone.read_bytes()
    assert [f.video for f in ours.failures] == ["broken"]
    assert not list(tmp_path.glob(".p.rank*"))


def test_the_parts_of_killed_ranks_are_taken_over(tmp_path):
    """Those of the same command alone. Catches work of the ranks that is lost, and records of
    another model that come in by a part.
    """
    samples = listed(tmp_path, "seed0000", "seed0001", "seed0002")
    out, other = tmp_path / "p.jsonl", tmp_path / "other.jsonl"
    predict(FakeScorer(score=1.0), samples, out)
    predict(FakeScorer(score=9.0), samples, other, model=OTHER)
    lines = out.read_bytes().splitlines(keepends=True)
    out.unlink()
    (tmp_path / ".p.rank_0.jsonl").write_bytes(lines[2] + lines[0][:50])
    (tmp_path / ".p.rank_1.jsonl").write_bytes(other.read_bytes().splitlines(keepends=True)[1])
    scorer = FakeScorer(score=1.0)
    predict(scorer, samples, out)
    assert scorer.clips == ["seed0000", "seed0001"]
    assert out.read_bytes() == b"".join(lines)


def test_a_chain_without_scores_has_no_figures(tmp_path, monkeypatch):
    """Of a predictions file whose scores were emptied. Catches a KeyError of the ceiling."""
    monkeypatch.setattr(chain, "evaluate_file", lambda *given, **more: {"quality": {"srcc": 0.5}})
    with pytest.raises(PredictionError, match=r"p\.jsonl: no scores of authenticity; remove"):
        chain.figures(Config(), tmp_path / "p.jsonl")
