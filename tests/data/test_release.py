"""The release's label files: every plain spelling is read alike, and nothing is guessed."""

import json
from pathlib import Path

import pytest

from lmme3dhf.data.release import (
    read_distortion_labels,
    read_json,
    read_mos,
    scan_distortion_labels,
    scan_mos,
    video_id,
)
from lmme3dhf.data.samples import DataError

SCORES = {
    "seed0000": {"quality": 51.25, "authenticity": 49.5},
    "seed0642": {"quality": 6.0, "authenticity": 100.0},
}
EYES, GRAIN, CLEAN = "Eye Distortions", "Blurring / Exposure / Grain", "No Distortion"
CATEGORIES = {"seed0000": (EYES, GRAIN), "seed0642": (CLEAN,)}


def written(tmp_path: Path, content: object, name: str = "labels.json") -> Path:
    path = tmp_path / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content",
    [
        SCORES,
        {
            "/home/somebody/video_RGB/seed0000.mp4": {"Quality": 51.25, "Authenticity": 49.5},
            "C:\\video_RGB\\seed0642.MP4": {"Quality": 6, "Authenticity": 100},
        },
        {
            "0": {"MOS_quality": "51.25", "MOS_authenticity": "49.5", "std_quality": 9},
            "642": {"MOS_quality": "6", "MOS_authenticity": "100", "std_quality": 9},
        },
        {
            "quality_mos": {"seed0000": 51.25, "seed0642": 6},
            "authenticity_mos": {"seed0642.png": 100, "seed0000.png": 49.5},
            "seeds": 2,
        },
        [
            {"id": 7, "video": "seed0000.mp4", "authenticity score": 49.5, "quality score": 51.25},
            {"id": 8, "video": "seed0642.mp4", "authenticity score": 100, "quality score": 6},
        ],
        [
            {"Name": "Seed_0", "qualityMOS": 51.25, "authenticityMOS": 49.5},
            {"Name": "Seed_642", "qualityMOS": 6.0, "authenticityMOS": 1e2},
        ],
    ],
)
def test_opinion_scores_are_read_in_every_plain_spelling(tmp_path, content):
    """Catches a release that cannot be read because of its file's form, and a deviation taken for a
    score.
    """
    assert read_mos(written(tmp_path, content)) == SCORES


def test_a_byte_order_mark_is_passed_over(tmp_path):
    """Catches files saved on Windows that are "not JSON"."""
    assert read_mos(written(tmp_path, "\ufeff" + json.dumps(SCORES))) == SCORES


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ({"quality": float("nan"), "authenticity": 1}, "quality is NaN"),
        ({"quality": 1, "authenticity": float("inf")}, "authenticity is Infinity"),
        ({"quality": 101, "authenticity": 1}, "quality is 101, expected a finite number in 0..100"),
        ({"quality": -0.5, "authenticity": 1}, "quality is -0.5"),
        ({"quality": None, "authenticity": 1}, "quality is null"),
        ({"quality": True, "authenticity": 1}, "quality is true"),
        ({"quality": "good", "authenticity": 1}, 'quality is "good"'),
        ({"quality": {"mean": 3}, "authenticity": 1}, "quality is {"),
        ({"quality": 1}, "no score of authenticity"),
        ({"std_quality": 1, "authenticity": 1}, "no score of quality"),
        ({"quality": 1, "Quality": 2, "authenticity": 1}, "two scores of quality"),
        ([51.2, 49.9], "does not say which score is which"),
        (51.2, "does not say which score is which"),
        (None, "does not say which score is which"),
    ],
)
def test_scores_that_cannot_be_trusted_are_refused_by_name(tmp_path, entry, cause):
    """The good entry beside it stays. Catches a NaN in training, quality and authenticity guessed
    from their order, and a fault that hides the rest.
    """
    path = written(tmp_path, {"seed0007": entry, "seed0000": SCORES["seed0000"]})
    with pytest.raises(DataError) as error:
        read_mos(path)
    assert str(error.value).startswith(f"{path}: seed0007: ")
    assert cause in str(error.value)
    scanned = scan_mos(path)
    assert scanned.by_video == {"seed0000": SCORES["seed0000"]}
    assert [entry for entry, _ in scanned.faults] == ["seed0007"]


def test_the_same_video_twice_is_noticed(tmp_path):
    """As a key twice, which JSON's own reader drops without a word, and under two spellings."""
    entry = json.dumps(SCORES["seed0000"])
    double = f'{{"seed0000": {entry}, "seed0000": {entry}}}'
    with pytest.raises(DataError, match="'seed0000': this key is there more than once"):
        read_mos(written(tmp_path, double))
    spelt = {"seed0000": SCORES["seed0000"], "a/seed0000.mp4": SCORES["seed0000"]}
    with pytest.raises(DataError, match=r"a/seed0000\.mp4: seed0000 is there already"):
        read_mos(written(tmp_path, spelt))
    inner = '{"seed0000": {"quality": 1, "quality": 2, "authenticity": 3}}'
    with pytest.raises(DataError, match="'quality': this key"):
        read_mos(written(tmp_path, inner))


def test_all_faults_are_counted_and_the_first_is_told(tmp_path):
    """Catches a file that is mended fault by fault, one run each."""
    content = {f"seed{n:04d}": {"quality": 101 + n, "authenticity": 1} for n in range(3)}
    with pytest.raises(DataError, match=r"seed0000: quality is 101.*\(and 2 more faults\)"):
        read_mos(written(tmp_path, content))
    by_dimension = {
        "quality": {"seed0000": 1, "seed0001": None, "seed0002": 3},
        "authenticity": {"seed0000": 1, "seed0001": 2},
    }
    scanned = scan_mos(written(tmp_path, by_dimension))
    assert scanned.by_video == {"seed0000": {"quality": 1.0, "authenticity": 1.0}}
    assert [entry for entry, _ in scanned.faults] == ["seed0001", "seed0002"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ('{"seed0000": {"quality": 1,\n "authenticity": }}', r"labels\.json:2:18: not JSON"),
        ("", r"labels\.json:1:1: not JSON"),
        ("[]", "with at least one video"),
        ("{}", "with at least one video"),
        ("7", "expected an object of videos"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('[{"quality": 1}]', r"record 1: keys \['quality'\], expected the video"),
        ("[7]", "record 1: 7, expected an object"),
        ('[{"video": null, "quality": 1, "authenticity": 1}]', "null: this names no video"),
    ],
)
def test_files_of_another_form_are_told_with_their_place(tmp_path, content, cause):
    """Catches a traceback of the JSON reader, and a file without videos."""
    for read in (read_mos, read_distortion_labels):
        with pytest.raises(DataError, match=cause):
            read(written(tmp_path, content))
    (tmp_path / "latin.json").write_bytes(b'{"\xe9": 1}')
    with pytest.raises(DataError, match="not UTF-8 at byte 2"):
        read_mos(tmp_path / "latin.json")


@pytest.mark.parametrize(
    "content",
    [
        {video: list(names) for video, names in CATEGORIES.items()},
        {"seed0000.mp4": f"{GRAIN}, {EYES}", "seed0642.mp4": CLEAN},
        {"0": "eye distortion; blurring/exposure/grain", "642": "no distortion"},
        {"seed0000": {"labels": [GRAIN, EYES]}, "seed0642": {"labels": CLEAN}},
        {"seed0000": [EYES, CLEAN, GRAIN, EYES], "seed0642": [CLEAN]},
        {
            "seed0000": {EYES: 1, GRAIN: 1, CLEAN: 0},
            "seed0642": {EYES: False, GRAIN: False, CLEAN: True},
        },
        [
            {"video": "seed0000.mp4", "Distortions": [EYES, GRAIN], "generator": "EG3D"},
            {"video": "seed0642.mp4", "Distortions": [CLEAN], "generator": "EG3D"},
        ],
    ],
)
def test_categories_are_read_in_every_plain_spelling(tmp_path, content):
    """In vocabulary order, "No Distortion" only alone. Catches a lost or doubled category."""
    assert read_distortion_labels(written(tmp_path, content)) == CATEGORIES


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ([EYES, "Leg Distortions"], "'Leg Distortions' is none of the nine"),
        ([], 'no categories; write "No Distortion"'),
        ("", "no categories"),
        ({"labels": []}, "no categories"),
        ({EYES: 0, CLEAN: 0}, "no categories"),
        ({EYES: 0.4, CLEAN: 0}, "expected 0 or 1"),
        ([0, 3], "expected a list of category names"),
        (3, "expected a list of category names"),
        (None, "expected a list of category names"),
        ({"level": "good"}, r"keys \['level'\], expected the categories"),
        ({"labels": [EYES], "categories": [CLEAN]}, "expected the categories once"),
    ],
)
def test_categories_that_are_not_sure_are_refused_by_name(tmp_path, entry, cause):
    """Catches an unknown name that is dropped, and a video that nobody looked at called clean."""
    path = written(tmp_path, {"seed0007": entry, "seed0000": [EYES]})
    with pytest.raises(DataError, match=cause) as error:
        read_distortion_labels(path)
    assert str(error.value).startswith(f"{path}: seed0007: ")
    assert scan_distortion_labels(path).by_video == {"seed0000": (EYES,)}


def test_categories_with_their_videos_are_refused(tmp_path):
    """The table turned round: its keys would be taken for videos."""
    with pytest.raises(DataError, match="the keys are categories"):
        read_distortion_labels(written(tmp_path, {EYES: ["seed0000"], CLEAN: ["seed0642"]}))


def test_names_of_videos():
    """Catches "seed42", a file's own name, changed into another file's, and numbers left bare."""
    same = ("seed0042", "/a/b/seed0042.mp4", "a\\seed0042.PNG", "42", 42, "0042.mp4", "Seed-42")
    assert {video_id(name) for name in same} == {"seed0042"}
    assert video_id("seed42.mp4") == "seed42"
    assert video_id("seed12345") == "seed12345"
    assert video_id("clip v1.5") == "clip v1.5"
    assert [video_id(name) for name in ("", "a/", None, True, 1.5)] == [None] * 5


def test_clips_may_be_called_by_numbers(tmp_path):
    """Catches a clip 42.mp4 whose scores and categories go to seed0042."""
    scores = {"42": SCORES["seed0000"], "0007.mp4": SCORES["seed0642"]}
    found = read_mos(written(tmp_path, scores), known={"42", "0007"})
    assert found == {"42": SCORES["seed0000"], "0007": SCORES["seed0642"]}
    assert read_mos(written(tmp_path, scores), known={"42"}).keys() == {"42", "seed0007"}
    labels = {"quality": {"42": 1, "43": "x"}, "authenticity": {"42": 2, "43": 3}}
    scanned = scan_mos(written(tmp_path, labels), known={"42", "43"})
    assert scanned.by_video == {"42": {"quality": 1, "authenticity": 2}}
    assert [entry for entry, _ in scanned.faults] == ["43"]
    path = written(tmp_path, {"42": [EYES]})
    assert read_distortion_labels(path, {"42"}) == {"42": (EYES,)}


def test_keys_that_occur_twice_are_named(tmp_path):
    """At any depth. Catches json.loads, which keeps the last one."""
    path = written(tmp_path, '{"a": {"b": 1, "b": 2}, "c": [{"d": 1, "d": 1}], "a": 1}')
    assert read_json(path) == ({"a": 1, "c": [{"d": 1}]}, ["b", "d", "a"])
