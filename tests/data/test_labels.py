"""Labels from the raw annotations of a few hand-made videos, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.fixations import read_saliency_png
from lmme3dhf.data.gen3dhf import PROMPTS, read_list
from lmme3dhf.data.labels import build_labels, read_points
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import read_split
from lmme3dhf.vocabulary import DIMENSIONS

SPLIT = {"train": ["seed0000", "seed0001", "seed0002"], "val": ["seed0003"], "eval": ["seed0004"]}
VIDEOS = [video for part in SPLIT.values() for video in part]
# Where the videos stand on the sliders of both raters, from the lowest step to the highest.
STEPS = {"quality": (0, 1, 2, 3, 4), "authenticity": (4, 3, 2, 1, 0)}
REMARKS = {
    "seed0000": ("distorted eye", "looks fine"),
    "seed0001": ("looks fine", "no distortion"),
    "seed0002": ("strange mouth", "blurry picture"),
    "seed0003": ("nothing wrong", "nothing wrong"),
    "seed0004": ("weird hair", "weird hair"),
}
DOTS = {
    ("anna", "seed0000"): [(20, 10)],
    ("ben", "seed0002"): [(40, 12), (60, 30)],
    ("anna", "seed0002"): [(100, 20)],
}


def write_csv(path: Path, header: str, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def rating_rows() -> list[tuple]:
    """Two raters with another bias and gain but the same order: their z scores agree."""
    return [
        (rater, video, dimension, offset + gain * step)
        for rater, offset, gain in (("rater1", 0.5, 1.0), ("rater2", 1.0, 0.5))
        for dimension in DIMENSIONS
        for video, step in zip(VIDEOS, STEPS[dimension], strict=True)
    ]


def remark_rows() -> list[tuple]:
    return [
        (marker, video, text)
        for video, texts in REMARKS.items()
        for marker, text in zip(("anna", "ben"), texts, strict=True)
    ]


@pytest.fixture
def root(tmp_path) -> Path:
    """Annotations of five videos; strips of 40 x 120 pixels in plain grey."""
    write_csv(tmp_path / "raw/ratings.csv", "subject,video,dimension,rating", rating_rows())
    write_csv(tmp_path / "raw/remarks.csv", "marker,video,remark", remark_rows())
    (tmp_path / "image").mkdir()
    strip = np.full((40, 120, 3), 120, np.uint8)
    for video in VIDEOS:
        Image.fromarray(strip).save(tmp_path / "image" / f"{video}.png")
    for (marker, video), centres in DOTS.items():
        marked = strip.copy()
        for x, y in centres:
            marked[y - 1 : y + 2, x - 1 : x + 2] = (255, 0, 0)
        (tmp_path / "raw/marks" / marker).mkdir(parents=True, exist_ok=True)
        Image.fromarray(marked).save(tmp_path / "raw/marks" / marker / f"{video}.png")
    return tmp_path


def content(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_scores_and_levels_are_those_worked_out_by_hand(root):
    """Five even steps have z = (-2, -1, 0, 1, 2) / sqrt(2.5), MOS = 100 (z + 3) / 6. The training
    part holds the lowest three in quality, so its edges end at the middle score; what lies above is
    excellent. Catches edges fitted on all videos, and one dimension written for the other.
    """
    build_labels(root, SPLIT)
    z = np.array([-2, -1, 0, 1, 2]) / np.sqrt(2.5)
    mos = 100 * (z + 3) / 6
    expected = {"quality": mos, "authenticity": mos[::-1]}
    written = content(root / "MOS.json")
    edges = content(root / "levels.json")
    for dimension in DIMENSIONS:
        found = [written[video][dimension] for video in VIDEOS]
        assert found == pytest.approx(expected[dimension].tolist())
        train = expected[dimension][:3]
        assert edges[dimension] == pytest.approx(np.linspace(train.min(), train.max(), 6).tolist())
    # Lowest, middle and highest of the training part; then what lies beyond it on either side.
    words = {
        "quality": ["bad", "fair", "excellent", "excellent", "excellent"],
        "authenticity": ["excellent", "fair", "bad", "bad", "bad"],
    }
    for dimension in DIMENSIONS:
        listed = {
            sample.video: sample
            for part in SPLIT
            for sample in read_list(root / "numerical" / f"{part}_{dimension}.json")
        }
        assert [listed[video].level for video in VIDEOS] == words[dimension]
        assert [listed[video].mos for video in VIDEOS] == [written[v][dimension] for v in VIDEOS]


def test_lists_hold_their_part_in_the_released_words(root):
    """The sentences of the release, letter by letter. Catches lists of another part, replies with
    the score in the text lists, and absolute paths.
    """
    build_labels(root, SPLIT)
    for part, members in SPLIT.items():
        for task in (*DIMENSIONS, "distortion"):
            kinds = ("text", "numerical") if task in DIMENSIONS else ("distortion",)
            for kind in kinds:
                name = f"{part}_{task}.json" if task in DIMENSIONS else f"{part}.json"
                rows = content(root / kind / name)
                assert [row["videos"] for row in rows] == [f"{video}.mp4" for video in members]
                for row in rows:
                    question, answer = row["messages"]
                    assert question == {"role": "user", "content": f"<video>{PROMPTS[task]}"}
                    assert answer["role"] == "assistant"
                    assert ("(" in answer["content"]) == (kind == "numerical")
    (row,) = content(root / "text" / "eval_quality.json")
    sentence = "The quality of the human face in this video is excellent."
    assert row["messages"][1]["content"] == sentence
    (row,) = content(root / "distortion" / "eval.json")
    assert row["messages"][1]["content"] == "Distortions found: Hair Distortions"
    assert read_split(root / "splits.json") == SPLIT


def test_categories_are_the_union_of_the_markers(root):
    """By hand: what one marker names counts, and clean only where nobody names anything."""
    build_labels(root, SPLIT)
    assert content(root / "distortion_label.json") == {
        "seed0000": ["Eye Distortions"],
        "seed0001": ["No Distortion"],
        "seed0002": ["Mouth Distortions", "Blurring / Exposure / Grain"],
        "seed0003": ["No Distortion"],
        "seed0004": ["Hair Distortions"],
    }


def test_points_and_maps_join_the_markers(root):
    """The planted centres come back, and the map is the Gaussian of 5 pixels around one of them in
    closed form. Catches a marker left out, and maps of clean videos that are not zero.
    """
    build_labels(root, SPLIT)
    points = read_points(root / "fixations.json")
    assert {video: sorted(found) for video, found in points.items()} == {
        "seed0000": [(20, 10)],
        "seed0001": [],
        "seed0002": [(40, 12), (60, 30), (100, 20)],
        "seed0003": [],
        "seed0004": [],
    }
    maps = {video: read_saliency_png(root / "saliency_map" / f"{video}.png") for video in VIDEOS}
    assert {m.shape for m in maps.values()} == {(40, 120)}
    assert {video for video, m in maps.items() if m.any()} == {"seed0000", "seed0002"}
    # Right of the point, away from the border that reflects.
    x = np.arange(20, 38)
    closed_form = np.exp(-((x - 20) ** 2) / 50)
    row = maps["seed0000"][10, 20:38] / maps["seed0000"][10, 20]
    assert row == pytest.approx(closed_form, abs=0.02)


def test_building_again_gives_the_same_files(root):
    """Catches labels that depend on what an earlier call left behind."""
    build_labels(root, SPLIT)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    build_labels(root, SPLIT)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_videos_outside_the_split_get_no_labels(root):
    """Catches labels of videos that were taken out; they still count for the raters' own means."""
    build_labels(root, {"train": SPLIT["train"], "eval": SPLIT["eval"]})
    assert "seed0003" not in content(root / "MOS.json")
    assert not (root / "saliency_map" / "seed0003.png").exists()
    assert content(root / "MOS.json")["seed0002"]["quality"] == pytest.approx(50)


def test_a_video_without_ratings_or_remark_is_refused(root):
    """In one dimension, in both, or without a remark. Catches a video that drops out silently."""
    kept = [row for row in rating_rows() if row[1:3] != ("seed0004", "quality")]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", kept)
    with pytest.raises(DataError, match="seed0004 is in the split but has no ratings"):
        build_labels(root, SPLIT)
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rating_rows())
    with pytest.raises(DataError, match="seed0777 is in the split but has no ratings"):
        build_labels(root, {**SPLIT, "eval": ["seed0004", "seed0777"]})
    kept = [row for row in remark_rows() if row[1] != "seed0001"]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", kept)
    with pytest.raises(DataError, match="seed0001 is in the split but has no ratings or no remark"):
        build_labels(root, SPLIT)


def test_a_dimension_nobody_rated_is_refused(root):
    """Half the experiment is missing. Catches a KeyError in place of a reason."""
    kept = [row for row in rating_rows() if row[2] == "quality"]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", kept)
    with pytest.raises((DataError, AnnotationError), match=r"authenticity|no ratings"):
        build_labels(root, SPLIT)


def test_remarks_that_fit_no_category_are_all_listed(root):
    """Catches a remark that is skipped, and a user who has to mend them one by one."""
    unclear = {("anna", "seed0000"): "hm", ("ben", "seed0002"): "purple", ("ben", "seed0004"): ""}
    rows = [(m, v, unclear.get((m, v), text)) for m, v, text in remark_rows()]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", rows)
    with pytest.raises(DataError, match="3 remarks fit none of the nine categories") as error:
        build_labels(root, SPLIT)
    for (marker, video), text in unclear.items():
        assert f"{video}, {marker}: {text!r}" in str(error.value)
    assert not (root / "MOS.json").exists()


def test_a_broken_table_is_refused_with_its_line(root):
    """Catches a rating outside the slider that is averaged in."""
    rows = rating_rows()
    rows[2] = (*rows[2][:3], 5.5)
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rows)
    with pytest.raises(AnnotationError, match=r"ratings\.csv:4: rating 5\.5 is outside"):
        build_labels(root, SPLIT)


def test_a_careless_rater_is_named(root, capsys):
    """One who moved no slider has no deviation: left out, and said so. Catches a silent loss, and a
    mean that is spoilt.
    """
    idle = [("idle", video, "quality", 3) for video in VIDEOS]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", [*rating_rows(), *idle])
    build_labels(root, SPLIT)
    assert "quality: ratings of idle are left out (gave all 5 videos" in capsys.readouterr().out
    assert content(root / "MOS.json")["seed0002"]["quality"] == pytest.approx(50)
