"""From assessments to records: what was not asked for stays empty, and nothing asked for is no
prediction.
"""

from pathlib import Path

import numpy as np
import pytest

from lmme3dhf import distributed
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.predictions import read_predictions
from lmme3dhf.scorer import Assessment, Failure, Rating
from lmme3dhf.stages.predict import predict
from lmme3dhf.vocabulary import DISTORTIONS

ODDS = {category: -float(index) for index, category in enumerate(DISTORTIONS)}


class FakeScorer:
    """Says of every clip what is asked for, and keeps how it was asked.

    Args:
        scores: Whether ratings have scores.
    """

    def __init__(self, scores: bool = True) -> None:
        self.scores = scores
        self.asked: dict = {}

    def assess(self, paths, *, ratings=True, answers="reply", maps=True, **options):
        """See `lmme3dhf.scorer.Scorer.assess`."""
        self.asked = {"ratings": ratings, "answers": answers, "maps": maps, **options}
        rating = Rating(
            score=51.25 if self.scores else None, level="good", level_probabilities={"good": 1.0}
        )
        for path in paths:
            if path.stem == "broken":
                yield Failure(path, "not_a_video", f"{path} is no video")
                continue
            yield Assessment(
                path=path,
                quality=rating if ratings else None,
                authenticity=rating if ratings else None,
                distortions=DISTORTIONS[:1] if answers else None,
                saliency=np.ones((8, 24), np.float32) if maps else None,
                decoder="pyav",
                distortion_log_odds=ODDS if answers == "likelihood" else None,
            )


def listed(*videos: str, task: str = "quality") -> list[Sample]:
    return [
        Sample(video=video, path=Path(f"{video}.mp4"), task=task, prompt=PROMPTS[task])
        for video in videos
    ]


def test_likelihoods_are_written_and_read_back(tmp_path):
    """Catches log-odds that do not arrive in the records of both dimensions."""
    scorer, out = FakeScorer(), tmp_path / "p.jsonl"
    samples = listed("seed0000", "seed0001", task="distortion")
    assert predict(scorer, samples, out, maps=False, answers="likelihood") == 4
    assert scorer.asked["answers"] == "likelihood"
    records = read_predictions(out)
    assert [record.distortion_log_odds for record in records] == [ODDS] * 4
    assert {record.map for record in records} == {None}


def test_what_was_not_asked_for_is_empty_in_the_records(tmp_path):
    """Maps alone, then words alone. Catches a level or an answer that nobody gave."""
    out = tmp_path / "p.jsonl"
    predict(FakeScorer(), listed("seed0000"), out, maps=True, ratings=False, answers=None)
    (record,) = read_predictions(out)
    assert (tmp_path / record.map).is_file()
    said = (record.score, record.level, record.level_probabilities, record.distortions)
    assert said == (None, None, None, None)
    predict(FakeScorer(scores=False), listed("seed0000"), out, maps=False)
    (record,) = read_predictions(out)
    assert (record.score, record.level, record.map) == (None, "good", None)


def test_asking_for_nothing_is_refused(tmp_path):
    """Catches a file of empty records."""
    with pytest.raises(DataError, match="no ratings, no answers and no maps"):
        predict(
            FakeScorer(),
            listed("seed0000"),
            tmp_path / "p.jsonl",
            maps=False,
            ratings=False,
            answers=None,
        )
    assert not list(tmp_path.iterdir())


def test_a_clip_that_cannot_be_read_stops_the_test_set(tmp_path):
    """With its name and reason. Catches a test set that is shortened without a word."""
    with pytest.raises(DataError, match=r"1 of 2 clips cannot be read:\s+broken \(not_a_video\)"):
        predict(FakeScorer(), listed("seed0000", "broken"), tmp_path / "p.jsonl", maps=False)
    assert not list(tmp_path.iterdir())


def as_rank(monkeypatch, rank: int, gathered) -> None:
    """This process as one of two, whose other gives what `gathered` makes of this one's."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "all_gather", gathered)


def test_the_main_rank_alone_tells_and_writes(tmp_path, monkeypatch):
    """Records in the order of the list. Catches two ranks that write one file, and one sentence
    that is told by all.
    """
    samples, out = listed("seed0000", "seed0001", "seed0002"), tmp_path / "p.jsonl"
    second = []

    def from_first(outcomes):
        second.extend(outcomes)
        return [[[], []], outcomes]

    as_rank(monkeypatch, 1, from_first)
    predict(FakeScorer(), samples, out, maps=False)
    assert not out.exists()
    as_rank(monkeypatch, 0, lambda outcomes: [outcomes, second])
    assert predict(FakeScorer(), samples, out, maps=False) == 3
    videos = [record.video for record in read_predictions(out)]
    assert videos == ["seed0000", "seed0001", "seed0002"]
    out.unlink()
    as_rank(monkeypatch, 1, lambda outcomes: [["seed0000 (not_a_video): no"], outcomes])
    predict(FakeScorer(), samples[:2], out, maps=False)
    assert not out.exists()
    as_rank(monkeypatch, 0, lambda outcomes: [outcomes, ["seed0001 (not_a_video): no"]])
    with pytest.raises(DataError, match="1 of 2 clips cannot be read"):
        predict(FakeScorer(), samples[:2], out, maps=False)
