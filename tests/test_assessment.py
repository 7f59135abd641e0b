"""The records of the metric: as JSON, as one line, and with probabilities."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.aspects import Scale
from lmme3dhf.assessment import (
    Answer,
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

SCALE = Scale(minimum=1, maximum=5, higher_is_better=False, levels=("clean", "noisy"))
GOOD = Rating(score=63.14, level="good", level_probabilities=dict.fromkeys(LEVELS, 0.2))
EVEN = {"Eye Distortions": 0.0, "Hair Distortions": math.log(3), "No Distortion": -math.log(9)}


def assessment(**changes) -> Assessment:
    """A clip with everything."""
    fields = {
        "path": Path("a folder/face.mp4"),
        "ratings": {"quality": GOOD, "authenticity": GOOD},
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
    scale = {"minimum": 0, "maximum": 100, "direction": "higher is better"}
    assert read["quality"]["scale"] == scale
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
        path=None, ratings={}, distortions=None, saliency=None, distortion_log_odds=None
    )
    read = json.loads(json.dumps(empty.to_dict(saliency=True)))
    assert (empty.quality, "quality" in read) == (None, False)
    for name in ("file", "distortions", "distortion_probabilities", "saliency"):
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
    assert str(assessment(ratings={"quality": words}, distortions=(), saliency=None)) == (
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
    assert (score_text(7.0, SCALE), score_text(3.214, SCALE)) == ("5.00", "3.21")
    wild = Rating(score=178.56, level="excellent", level_probabilities={}, outside_training=True)
    said = assessment(ratings={"quality": wild}, notes=("a note",))
    assert "quality 100.0 of 100 (excellent)" in repr(said)
    assert "178" not in repr(said)
    assert "flagged" in repr(said)
    assert "a note" in repr(said)
    read = said.to_dict()
    assert (read["quality"]["score"], read["quality"]["outside_training"]) == (178.56, True)
    assert read["notes"] == ["a note"]
    assert said.outside_training == ("quality",)
    assert assessment(ratings={}).outside_training == ()


def test_what_lies_farther_out_than_the_training_scores_spread_is_flagged():
    """Training scores from 20 to 80 with a standard deviation of 15: the rule begins below 5 and
    above 95. Without a record the scale stands for them. Catches a flag for an ordinary overshoot
    of either, and none for the natural clip of 178.56.
    """
    training = {"percentiles": [20.0, 50.0, 80.0], "deviation": 15.0}
    raws = (4.9, 5.0, 50.0, 95.0, 95.1, 178.56)
    found = {raw: is_outside_training(raw, Scale(), training) for raw in raws}
    assert [raw for raw, outside in found.items() if outside] == [4.9, 95.1, 178.56]
    assert [is_outside_training(raw) for raw in (-4.0, 108.0)] == [False, False]
    assert [is_outside_training(raw) for raw in (-60.0, 178.56)] == [True, True]
    # On 1 to 5 a tenth of the scale is 0.4.
    assert [is_outside_training(raw, SCALE) for raw in (0.5, 0.7, 5.3, 5.5)] == [
        *(True, False),
        *(False, True),
    ]


def test_ratings_on_any_scale_say_where_they_live():
    """Catches "of 100" on another scale, a low score taken for a bad one where low is good, a
    level in brackets that is none, and answers that JSON loses.
    """
    noise = Rating(score=1.234, level="clean", level_probabilities={"clean": 1.0}, scale=SCALE)
    sharp = Rating(
        score=0.5,
        level=None,
        level_probabilities=None,
        scale=Scale(minimum=-1, maximum=1, levels=()),
        by_head={"a": 0.5, "b": 0.25},
    )
    said = assessment(
        ratings={"noise": noise, "sharp": sharp},
        answers={"beard": Answer({"Yes": 0.25, "No": 0.75})},
        distortions=None,
        saliency=None,
    )
    assert str(said) == (
        "Assessment('face.mp4': noise 1.23 of 5, lower is better (clean), sharp 0.500 of 1, "
        "beard: No)"
    )
    read = json.loads(json.dumps(said.to_dict()))
    assert read["noise"]["scale"] == {"minimum": 1, "maximum": 5, "direction": "lower is better"}
    assert read["sharp"]["by_head"] == {"a": 0.5, "b": 0.25}
    assert "by_head" not in read["noise"]
    assert read["answers"] == {
        "beard": {"answer": "No", "probabilities": {"Yes": 0.25, "No": 0.75}}
    }
    assert (said.quality, said.authenticity) == (None, None)
