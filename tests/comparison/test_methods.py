"""Anybody's predictions: CSV and JSONL made by hand, folders of maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.comparison.methods import (
    ComparisonError,
    Method,
    covered,
    level_expectations,
    read_map,
    read_method,
)
from lmme3dhf.predictions import Prediction, write_predictions

KNOWN = ("seed0001", "seed0002", "seed0003")


def read(tmp_path: Path, text: str, name: str = "m.csv", **more: object) -> Method:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_method("M", path, KNOWN, **more)


def test_a_csv_made_by_hand_becomes_scores(tmp_path: Path):
    """As a spreadsheet writes it: a byte order mark, capitals in the header, folders and suffixes
    in the names. Catches a reader that wants our own form.
    """
    method = read(
        tmp_path,
        "\ufeffVideo,Quality,Authenticity\n"
        "clips/seed0001.mp4,51.5,40\n"
        "C:\\clips\\seed0002.mp4,3e1,\n"
        "\n"
        "seed0003,-2,41\n",
    )
    assert method.scores == {
        "quality": {"seed0001": 51.5, "seed0002": 30.0, "seed0003": -2.0},
        "authenticity": {"seed0001": 40.0, "seed0003": 41.0},
    }
    assert method.status == "external"
    assert method.notes == ()


def test_a_long_csv_has_a_dimension_a_row(tmp_path: Path):
    """Catches the second dimension of a video taken for a second prediction."""
    text = "video,dimension,score\nseed0001,quality,1\nseed0001,Authenticity,2\n"
    assert read(tmp_path, text).scores == {
        "quality": {"seed0001": 1.0},
        "authenticity": {"seed0001": 2.0},
    }


def test_level_words_count_one_to_five_and_are_told(tmp_path: Path):
    """As zero-shot models answer. Catches words that are refused, or counted without a note."""
    method = read(tmp_path, "video,quality\nseed0001,bad\nseed0002,Excellent\n")
    assert method.scores["quality"] == {"seed0001": 1.0, "seed0002": 5.0}
    assert method.notes == ("level words count bad 1 to excellent 5",)


def test_answers_are_read_tolerantly_and_silence_is_an_answer(tmp_path: Path):
    """Separated by semicolons, lower case, free text. Catches an unreadable reply that counts as
    missing and so leaves the mean.
    """
    method = read(
        tmp_path,
        "video,distortions\nseed0001,eye distortion; Hair Distortions\nseed0002,no distortion\n"
        "seed0003,\n",
    )
    assert method.answers == {
        "seed0001": ("Eye Distortions", "Hair Distortions"),
        "seed0002": ("No Distortion",),
        "seed0003": (),
    }
    replies = '{"video": "seed0001", "reply": "Distortions found: Mouth Distortions"}\n'
    assert read(tmp_path, replies, "m.jsonl").answers == {"seed0001": ("Mouth Distortions",)}
    listed = '{"video": "seed0001", "distortions": ["Eye Distortions", "Hair Distortions"]}\n'
    assert read(tmp_path, listed, "m.jsonl").answers["seed0001"][1] == "Hair Distortions"


def test_our_own_table_of_scores_is_read(tmp_path: Path):
    """The columns of `lmme3dhf score`, a failed file among them. Catches a failure that is read as
    a score of nothing.
    """
    method = read(
        tmp_path,
        "file,status,reason,message,quality,quality_level,authenticity,authenticity_level,"
        "distortions,map,decoder\n"
        "clips/seed0001.mp4,ok,,,51.000,good,40.000,fair,Eye Distortions,,decord\n"
        "clips/seed0002.mp4,failed,damaged,no frames,,,,,,,\n",
    )
    assert method.scores["quality"] == {"seed0001": 51.0}
    assert method.answers == {"seed0001": ("Eye Distortions",)}
    assert method.notes == ("1 files of its table could not be scored",)


def test_our_own_records_are_read_under_the_given_name(tmp_path: Path):
    """JSONL of `lmme3dhf predict`. Catches maps looked up in the wrong folder."""
    path = tmp_path / "p.jsonl"
    record = Prediction(video="seed0001", dimension="quality", method="X", score=3, map="m/a.png")
    write_predictions(path, [record])
    method = read_method("M", path, KNOWN, status="retrained")
    assert (method.name, method.status) == ("M", "retrained")
    assert method.scores == {"quality": {"seed0001": 3.0}}
    assert method.maps == {"seed0001": tmp_path / "m" / "a.png"}


def test_failures_in_records_are_no_predictions(tmp_path: Path):
    """Also where a method's level probabilities become its score. Catches a failed clip that takes
    the others' scores along, and one that is not named.
    """
    path = tmp_path / "p.jsonl"
    about = {"video": "seed0001", "dimension": "quality", "method": "X"}
    good = Prediction(**about | {"video": "seed0002"}, level="bad", level_probabilities={"bad": 1})
    write_predictions(path, [Prediction(**about, reason="truncated", message="cut off"), good])
    method = read_method("M", path, KNOWN)
    assert method.scores == {"quality": {"seed0002": 1.0}}
    assert "1 videos could not be predicted, the first is seed0001 (truncated)" in method.notes
    assert level_expectations(path).scores == method.scores


def test_what_is_not_used_is_named(tmp_path: Path):
    """Catches a misspelt column, or videos of another set, that vanish without a word."""
    method = read(tmp_path, "video,quality,qualty2\nseed0001,1,2\nseed0999,1,2\nseed0998,1,2\n")
    assert method.notes == (
        "columns not used: qualty2",
        "2 videos of its file are not in the test set and left out, the first is seed0998",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clip,quality\nseed0001,1\n", ":1: keys clip, quality; expected video"),
        ("video,niqe\nseed0001,1\n", ":1: keys video, niqe; expected video"),
        ("video,quality,quality\nseed0001,1,2\n", "column 'quality' is there twice"),
        ("video,quality\n", "no rows below the header"),
        ("video,quality\nseed0001,1\nseed0002,high\n", ":3: quality of seed0002 is 'high'"),
        ("video,quality\nseed0001,nan\n", ":2: quality of seed0001 is 'nan'"),
        ("video,quality\nseed0001,1,2\n", ":2: 3 cells, expected 2"),
        ("video,quality\nseed0001,1\na/seed0001.mp4,2\n", ":3: seed0001 is there a second time"),
        ("video,quality\n,1\n", ":2: no video is named"),
        ("video,dimension,score\nseed0001,beauty,1\n", ":2: dimension 'beauty'"),
        ('video,quality\n"seed0001,1\n', "not a CSV row"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, text: str, told: str):
    """Catches a traceback, and a row that is passed over."""
    with pytest.raises(ComparisonError, match=told):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"video": "seed0001", "quality": 1}\n{"video":\n', ":2: not a JSON object"),
        ("[1]\n", ":1: list, expected a JSON object"),
        ('{"video": "seed0001", "quality": true}\n', "quality of seed0001 is 'True'"),
        ("\n", ":1: keys none"),
    ],
)
def test_wrong_json_lines_are_refused_with_their_line(tmp_path: Path, text: str, told: str):
    """Catches a damaged line that shortens the test."""
    with pytest.raises(ComparisonError, match=told):
        read(tmp_path, text, "m.jsonl")


def test_other_files_and_absent_ones_are_refused(tmp_path: Path):
    """Catches a guess at the format."""
    with pytest.raises(ComparisonError, match=r"\.txt; expected \.csv"):
        read(tmp_path, "x", "m.txt")
    with pytest.raises(ComparisonError, match="no such file or folder"):
        read_method("M", tmp_path / "none.csv", KNOWN)
    with pytest.raises(ComparisonError, match="status 'real' of M"):
        read(tmp_path, "video,quality\nseed0001,1\n", status="real")


def test_a_folder_of_maps_is_read_by_its_names(tmp_path: Path):
    """Pictures and arrays, other files beside. Catches a map that is taken under a name with its
    suffix, and two maps of one video of which one wins.
    """
    folder = tmp_path / "maps"
    folder.mkdir()
    grey = Image.fromarray(np.zeros((4, 6), np.uint8))
    grey.save(folder / "seed0001.png")
    grey.save(folder / "seed0002.mp4.jpg")
    np.save(folder / "seed0003.npy", np.zeros((4, 6)))
    (folder / "readme.txt").write_text("x")
    method = read_method("M", folder, KNOWN)
    assert {video: path.name for video, path in method.maps.items()} == {
        "seed0001": "seed0001.png",
        "seed0002": "seed0002.mp4.jpg",
        "seed0003": "seed0003.npy",
    }
    assert method.notes == ("1 files of its folder are no maps",)
    grey.save(folder / "seed0003.png")
    with pytest.raises(ComparisonError, match=r"two maps of seed0003, seed0003\.npy and"):
        read_method("M", folder, KNOWN)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ComparisonError, match="no maps; expected VIDEO with one of"):
        read_method("M", empty, KNOWN)


def test_maps_of_8_and_16_bits_and_arrays_have_their_values(tmp_path: Path):
    """51 of 255 and 13107 of 65535 are both .2. Catches 16 bits cut to 8, and a scale of 255 for
    both.
    """
    Image.fromarray(np.full((4, 6), 51, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 6), 13107, np.uint16)).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", np.full((4, 6), 0.2))
    for name in ("a.png", "b.png", "c.npy"):
        map_HW, resized = read_map(tmp_path / name, (4, 6))
        assert map_HW == pytest.approx(np.full((4, 6), 0.2), abs=1e-7), name
        assert not resized


def test_maps_of_another_size_are_resized_and_counted(tmp_path: Path):
    """A horizontal step of double size stays a step at the same place. Catches height and width
    that are swapped.
    """
    step_HW = np.zeros((8, 12), np.uint8)
    step_HW[:, 6:] = 255
    Image.fromarray(step_HW).save(tmp_path / "a.png")
    map_HW, resized = read_map(tmp_path / "a.png", (4, 6))
    assert resized
    assert map_HW.shape == (4, 6)
    assert (map_HW[:, 0] == 0).all()
    assert (map_HW[:, 5] == 1).all()


def test_what_is_no_map_is_refused(tmp_path: Path):
    """Catches a log density that KLD would turn into NaN, and an array that would have to be
    unpickled.
    """
    np.save(tmp_path / "negative.npy", np.full((4, 6), -1.0))
    np.save(tmp_path / "three.npy", np.zeros((4, 6, 3)))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    (tmp_path / "text.png").write_text("no picture")
    for name, told in (
        ("negative.npy", "negative or not finite"),
        ("three.npy", r"shape \(4, 6, 3\)"),
        ("object.npy", "cannot be read as a map"),
        ("text.png", "cannot be read as a map"),
        ("none.png", "no such map"),
    ):
        with pytest.raises(ComparisonError, match=told):
            read_map(tmp_path / name, (4, 6))


def test_missing_videos_are_an_error_or_a_note(tmp_path: Path):
    """Catches a method that is tested on the videos it likes."""
    method = read(tmp_path, "video,quality\nseed0001,1\nseed0002,2\n")
    have = method.scores["quality"]
    assert covered(KNOWN[:2], have, method, "score") == (["seed0001", "seed0002"], ())
    with pytest.raises(
        ComparisonError, match=r"1 of 3 labelled videos have no score by M \(seed00"
    ):
        covered(KNOWN, have, method, "score")
    videos, notes = covered(KNOWN, have, method, "score", allow_missing=True)
    assert videos == ["seed0001", "seed0002"]
    assert notes == ("without 1 of 3 test videos that have no score (seed0003)",)
    with pytest.raises(ComparisonError, match="1 of 1 labelled videos have no score"):
        covered(KNOWN[2:], have, method, "score", allow_missing=True)


def test_records_of_two_methods_in_a_file_are_refused(tmp_path: Path):
    """Catches a row that is half one method and half another."""
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(
            json.dumps({"video": "seed0001", "dimension": "quality", "method": m, "score": 1})
            + "\n"
            for m in "AB"
        )
    )
    with pytest.raises(ComparisonError, match="records of 2 methods"):
        read_method("M", path, KNOWN)
