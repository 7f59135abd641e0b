"""The prediction record and its file: round trip, refused records with their place,
whole-or-nothing writing.
"""

import dataclasses
import json
import re

import numpy as np
import pytest

from lmme3dhf.predictions import (
    Prediction,
    PredictionError,
    predicted,
    read_predictions,
    write_predictions,
)

FULL = Prediction(
    video="seed0463",
    dimension="quality",
    method="LMME3DHF",
    score=56.6144326546138,
    level="excellent",
    level_probabilities={"bad": 0.0, "poor": 0.0, "fair": 0.1, "good": 0.3, "excellent": 0.6},
    distortions=("Eye Distortions", "Blurring / Exposure / Grain"),
    text="The quality of the human face in this video is excellent. \N{GRINNING FACE}",
    map="maps/seed0463.png",
    decoder="decord",
    distortion_log_odds={"Eye Distortions": 1.0986122886681098, "No Distortion": -37.25},
)
BARE = Prediction(video="seed0463", dimension="authenticity", method="LMME3DHF")


def test_records_survive_the_file_bit_for_bit(tmp_path):
    """Catches lost digits, tuples that come back as lists, and None that comes back as a word or a
    gap.
    """
    path = tmp_path / "run" / "predictions.jsonl"
    assert write_predictions(path, iter([FULL, BARE])) == 2
    assert read_predictions(path) == [FULL, BARE]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert [child.name for child in path.parent.iterdir()] == ["predictions.jsonl"]


def test_numpy_scalars_become_floats(tmp_path):
    """Catches a float32 score that JSON refuses, or that changes on the way."""
    score = np.float32(48.123)
    odds = {"No Distortion": np.float32(-2.5)}
    record = dataclasses.replace(
        BARE, score=score, level_probabilities={"good": np.float32(1)}, distortion_log_odds=odds
    )
    write_predictions(tmp_path / "p.jsonl", [record])
    (read,) = read_predictions(tmp_path / "p.jsonl")
    assert type(record.score) is float
    assert read.distortion_log_odds == odds
    assert read.score == score


def test_hand_made_records_need_three_fields_only(tmp_path):
    """A foreign method's file. Catches a reader that insists on our own fields; blank lines are no
    records.
    """
    path = tmp_path / "p.jsonl"
    path.write_text('{"video": "a", "dimension": "quality", "method": "NIQE", "score": 112}\r\n\n')
    assert read_predictions(path) == [
        Prediction(video="a", dimension="quality", method="NIQE", score=112.0)
    ]
    path.write_text("")
    assert read_predictions(path) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("video", ""),
        ("method", None),
        ("dimension", "Beauty!"),
        ("score", float("nan")),
        ("score", float("inf")),
        ("score", "51.2"),
        ("score", True),
        ("level", "very good"),
        ("level_probabilities", {1: 1.0}),
        ("level_probabilities", {"good": 1.1}),
        ("level_probabilities", {"good": float("nan")}),
        ("level_probabilities", [0.2] * 5),
        ("distortions", ("Ear Trouble",)),
        ("distortions", "Eye Distortions"),
        ("distortions", ("Eye Distortions", "Eye Distortions")),
        ("text", 5),
        ("map", "/home/me/maps/a.png"),
        ("map", "../maps/a.png"),
        ("map", "maps\\a.png"),
        ("map", "C:/maps/a.png"),
        ("map", ""),
        ("decoder", 1),
        ("distortion_log_odds", {"Ear Trouble": 1.0}),
        ("distortion_log_odds", {"Eye Distortions": float("-inf")}),
        ("distortion_log_odds", {"Eye Distortions": True}),
        ("distortion_log_odds", [0.5] * 9),
        ("reason", 3),
        ("message", ["cut off"]),
        ("content", "0" * 63),
        ("model", "x" * 16),
        ("settings", 7),
    ],
)
def test_impossible_values_are_refused(field, value):
    """Catches what would later be averaged, plotted or opened as if it were sound."""
    with pytest.raises(
        PredictionError, match=rf"^{field} of .* is {re.escape(repr(value))}, expected"
    ):
        Prediction(**{"video": "a", "dimension": "quality", "method": "m", field: value})


def test_scores_beyond_the_scale_are_kept():
    """Pins the decision: a regressor may overshoot and foreign scales exist. Catches clipping,
    which makes ties.
    """
    assert dataclasses.replace(BARE, score=-3.5).score == -3.5
    assert dataclasses.replace(BARE, score=104).score == 104


GOOD_LINE = '{"video": "a", "dimension": "quality", "method": "m"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            '{"video": "b", "dimension": "quality", "method": "m", "scores": 3}',
            "unknown field 'scores'; the nearest that exists is 'score'",
        ),
        (
            '{"video": "b", "dimension": "quality", "method": "m", "level_probs": null}',
            "the nearest that exists is 'level_probabilities'",
        ),
        ('{"video": "b", "method": "m"}', "field 'dimension' is missing"),
        (
            '{"video": "b", "dimension": "quality", "method": "m", "score": NaN}',
            "score of 'b' is nan, expected a finite number",
        ),
        ('{"video": "b", "dimension": "quali', "not a JSON object in UTF-8"),
        ('["b"]', "list instead of a JSON object"),
        (GOOD_LINE, "second record of video 'a', dimension 'quality', method 'm'"),
    ],
)
def test_a_bad_line_is_refused_with_its_place(tmp_path, line, reason):
    """Catches a line that is skipped, and an error that does not say where to look."""
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD_LINE}\n\n{line}\n")
    with pytest.raises(PredictionError, match=rf"p\.jsonl:3: .*{re.escape(reason)}"):
        read_predictions(path)


FAILED = dataclasses.replace(BARE, reason="truncated", message="seed0463.mp4 is cut off")


def test_a_failure_says_nothing_else(tmp_path):
    """Catches a score beside a reason; a failure survives the file."""
    with pytest.raises(PredictionError, match=r"^reason of .* null where something was predicted"):
        dataclasses.replace(FULL, reason="truncated")
    write_predictions(tmp_path / "p.jsonl", [FAILED, FULL])
    assert read_predictions(tmp_path / "p.jsonl") == [FAILED, FULL]
    assert predicted([FULL, FAILED]) == ([FULL], {"seed0463": FAILED})


@pytest.mark.parametrize("cut", range(1, len(GOOD_LINE)))
def test_a_last_line_that_was_cut_off_is_no_record(tmp_path, cut):
    """As a kill leaves it, at any byte. Catches a file that nobody can read any more."""
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD_LINE}\n{GOOD_LINE.replace('quality', 'authenticity')[:cut]}")
    assert [record.dimension for record in read_predictions(path)] == ["quality"]


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """Catches a UnicodeDecodeError without a place."""
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"video": "\xff"}\n')
    with pytest.raises(PredictionError, match=r"p\.jsonl:1: not a JSON object in UTF-8"):
        read_predictions(path)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    """Catches half a file after a crash, a lost older one, and temporary files left behind."""
    path = tmp_path / "p.jsonl"
    write_predictions(path, [FULL])
    before = path.read_bytes()

    def interrupted():
        yield BARE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, interrupted())
    with pytest.raises(PredictionError, match="second record of video 'seed0463'"):
        write_predictions(path, [BARE, BARE])
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["p.jsonl"]


def test_one_line_is_one_plain_json_object(tmp_path):
    """Catches NaN tokens or escapes that other languages' JSON readers refuse, and a field that is
    not written.
    """
    write_predictions(tmp_path / "p.jsonl", [FULL])
    content = json.loads((tmp_path / "p.jsonl").read_text(encoding="utf-8"))
    assert list(content) == [
        "video",
        "dimension",
        "method",
        "score",
        "level",
        "level_probabilities",
        "distortions",
        "text",
        "map",
        "decoder",
        "distortion_log_odds",
    ]
    assert content["distortions"] == ["Eye Distortions", "Blurring / Exposure / Grain"]
