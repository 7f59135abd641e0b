"""The records of the metric: as JSON, as one line, and with probabilities."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.assessment import (
    Assessment,
    Failure,
    Rating,
    is_outside_training,
    on_scale,
    probabilities,
    score_text,
)
from lmme3dhf.data.container import DECODER
from lmme3dhf.vocabulary import LEVELS

GOOD = Rating(score=63.14, level="good", level_probabilities=dict.fromkeys(LEVELS, 0.2))
EVEN = {"Eye Distortions": 0.0, "Hair Distortions": math.log(3), "No Distortion": -math.log(9)}


def assessment(**changes) -> Assessment:
    """A clip with everything."""
    fields = {
        "path": Path("a folder/face.mp4"),
        "quality": GOOD,
        "authenticity": GOOD,
        "distortions": ("Hair Distortions",),
        "saliency": np.full((2, 6), 0.5, np.float32),
        "decoder": DECODER,
        "distortion_log_odds": EVEN,
    }
    return Assessment(**(fields | changes))


def test_probabilities_are_those_of_the_log_odds():
    """By hand: even odds are 1/2, 3 to 1 is 3/4, 1 to 9 is 1/10. Catches another base, and an
    overflow where a category is all but certain.
    """
    expected = {"Eye Distortions": 0.5, "Hair Distortions": 0.75, "No Distortion": 0.1}
    assert assessment().distortion_probabilities == pytest.approx(expected)
    assert probabilities({"a": 800.0, "b": -800.0, "c": math.inf, "d": -math.inf}) == {
        "a": 1.0,
        "b": 0.0,
        "c": 1.0,
        "d": 0.0,
    }
    assert assessment(distortion_log_odds=None).distortion_probabilities is None


def test_a_record_is_json_and_tells_its_scale():
    """Catches paths, tuples and arrays that JSON does not take, a number whose direction nobody
    knows, and megabytes of map that nobody asked for.
    """
    read = json.loads(json.dumps(assessment().to_dict(), allow_nan=False))
    assert read["scale"] == {"minimum": 0, "maximum": 100, "direction": "higher is better"}
    assert read["file"] == "a folder/face.mp4"
    assert read["quality"]["score"] == 63.14
    assert (read["authenticity"]["level"], read["distortions"]) == ("good", ["Hair Distortions"])
    assert read["distortion_probabilities"]["Hair Distortions"] == pytest.approx(0.75)
    assert "saliency" not in read
    with_map = json.loads(json.dumps(assessment().to_dict(saliency=True), allow_nan=False))
    assert with_map["saliency"] == [[0.5] * 6] * 2


def test_what_was_not_asked_for_is_null():
    """Catches an empty list of distortions that reads like a clean face."""
    empty = assessment(
        path=None, quality=None, distortions=None, saliency=None, distortion_log_odds=None
    )
    read = json.loads(json.dumps(empty.to_dict(saliency=True)))
    for name in ("file", "quality", "distortions", "distortion_probabilities", "saliency"):
        assert read[name] is None


def test_a_record_is_one_readable_line():
    """What a notebook shows. Catches an array of pixels over the screen, and a name that breaks the
    line or the terminal.
    """
    assert repr(assessment()) == (
        "Assessment('face.mp4': quality 63.1 of 100 (good), authenticity 63.1 of 100 (good), "
        "distortions: Hair Distortions, map 6x2)"
    )
    odd = str(assessment(path=Path("a\n\x1b[2Jb.mp4"), saliency=None))
    assert "\n" not in odd
    assert "\x1b" not in odd
    words = Rating(score=None, level="poor", level_probabilities={})
    assert str(assessment(quality=words, authenticity=None, distortions=(), saliency=None)) == (
        "Assessment('face.mp4': quality poor, distortions: none named)"
    )


def test_a_failure_is_json_too():
    """Catches a list of results that cannot be written as a whole."""
    failure = Failure(Path("a.mp4"), "empty", "a.mp4 has 0 bytes")
    expected = {"file": "a.mp4", "reason": "empty", "message": "a.mp4 has 0 bytes"}
    assert json.loads(json.dumps(failure.to_dict())) == expected
    assert Failure(None, "too_short", "").to_dict()["file"] is None


def test_people_read_scores_on_the_scale():
    """A natural clip got 178.56 of 100 once. Catches a clip whose quality is said to be beyond the
    scale, and a raw score that is lost.
    """
    assert [score_text(raw) for raw in (178.56, 100.04, 63.14, -4.0)] == [
        "100.0",
        "100.0",
        "63.1",
        "0.0",
    ]
    assert math.isnan(on_scale(math.nan))
    assert on_scale(np.array([-4.0, 50.0, 178.56])).tolist() == [0.0, 50.0, 100.0]
    assert score_text(7.0, {"minimum": 1, "maximum": 5}) == "5.0"
    wild = Rating(score=178.56, level="excellent", level_probabilities={}, outside_training=True)
    said = assessment(quality=wild, notes=("a note",))
    assert "quality 100.0 of 100 (excellent)" in repr(said)
    assert "178" not in repr(said)
    assert "flagged" in repr(said)
    assert "a note" in repr(said)
    read = said.to_dict()
    assert (read["quality"]["score"], read["quality"]["outside_training"]) == (178.56, True)
    assert read["notes"] == ["a note"]
    assert said.outside_training == ("quality",)
    assert assessment(quality=None).outside_training == ()


def test_what_lies_farther_out_than_the_training_scores_spread_is_flagged():
    """Training scores from 20 to 80 with a standard deviation of 15: the rule begins below 5 and
    above 95. Without a record the scale stands for them. Catches a flag for an ordinary overshoot
    of either, and none for the natural clip of 178.56.
    """
    training = {"percentiles": [20.0, 50.0, 80.0], "deviation": 15.0}
    scale = {"minimum": 0, "maximum": 100, "training": training}
    found = {raw: is_outside_training(raw, scale) for raw in (4.9, 5.0, 50.0, 95.0, 95.1, 178.56)}
    assert [raw for raw, outside in found.items() if outside] == [4.9, 95.1, 178.56]
    for unknown in ({**scale, "training": None}, {"minimum": 0, "maximum": 100}):
        assert [is_outside_training(raw, unknown) for raw in (-4.0, 108.0)] == [False, False]
        assert [is_outside_training(raw, unknown) for raw in (-60.0, 178.56)] == [True, True]
