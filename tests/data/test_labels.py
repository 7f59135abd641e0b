"""Labels from the raw annotations of a few hand-made videos, and what is refused."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf import cli
from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.fixations import read_fixations, read_saliency, read_saliency_png
from lmme3dhf.annotations.levels import read_levels
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.card import CARD, LabelReport, summary
from lmme3dhf.data.check import check
from lmme3dhf.data.container import read_strip
from lmme3dhf.data.gen3dhf import PROMPTS, read_list
from lmme3dhf.data.labels import Sources, build_labels, clips_in, deeper_clips, drawn_split
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import Split, latent, read_split
from lmme3dhf.data.synthetic.render import write_clip
from tests.conftest import DIMENSIONS

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


def build(root: Path, split: Split = SPLIT, **choices) -> LabelReport:
    """From the folder's own `raw`, as for a synthetic set; choices may name other sources."""
    names = ("ratings", "mos", "marks", "strips", "remarks", "rules", "distortions", "videos")
    sources = {
        "videos": root / "video_RGB",
        "ratings": root / "raw/ratings.csv",
        "marks": root / "raw/marks",
        "remarks": root / "raw/remarks.csv",
    } | {name: choices.pop(name) for name in names if name in choices}
    out = choices.pop("out", root)
    return build_labels(out, Sources(**sources), split, **choices)


@pytest.fixture
def root(tmp_path) -> Path:
    """Annotations of five videos; strips of 40 x 120 pixels in plain grey, clips that nobody has to
    open.
    """
    (tmp_path / "video_RGB").mkdir()
    for video in VIDEOS:
        (tmp_path / "video_RGB" / f"{video}.mp4").touch()
    write_csv(tmp_path / "raw/ratings.csv", "subject,video,dimension,rating", rating_rows())
    write_csv(tmp_path / "raw/remarks.csv", "marker,video,remark", remark_rows())
    (tmp_path / "image").mkdir()
    strip = np.full((40, 120, 3), 120, np.uint8)
    for video in VIDEOS:
        Image.fromarray(strip).save(tmp_path / "image" / f"{video}.png")
    for marker, video in itertools.product(("anna", "ben"), VIDEOS):
        marked = strip.copy()
        for x, y in DOTS.get((marker, video), []):
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
    build(root)
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
    build(root)
    for part, members in SPLIT.items():
        for task in (*DIMENSIONS, "distortion"):
            kinds = ("text", "numerical") if task in DIMENSIONS else ("distortion",)
            for kind in kinds:
                name = f"{part}_{task}.json" if task in DIMENSIONS else f"{part}.json"
                rows = content(root / kind / name)
                assert [row["videos"] for row in rows] == [[f"{video}.mp4"] for video in members]
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
    build(root)
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
    build(root)
    fixations = read_fixations(root / "fixations.json")
    assert {video: sorted(found.points) for video, found in fixations.items()} == {
        "seed0000": [(20, 10)],
        "seed0001": [],
        "seed0002": [(40, 12), (60, 30), (100, 20)],
        "seed0003": [],
        "seed0004": [],
    }
    assert fixations["seed0002"].dots == {"anna": 1, "ben": 2}
    assert fixations["seed0000"].dots == {"anna": 1, "ben": 0}
    assert {v for v, found in fixations.items() if found.no_distortion} == {
        "seed0001",
        "seed0003",
        "seed0004",
    }
    maps = {video: read_saliency(root / "saliency_map", video) for video in VIDEOS}
    assert {m.shape for m in maps.values()} == {(40, 120)}
    assert {video for video, m in maps.items() if m.any()} == {"seed0000", "seed0002"}
    # Right of the point, away from the border that reflects.
    x = np.arange(20, 38)
    closed_form = np.exp(-((x - 20) ** 2) / 50)
    row = maps["seed0000"][10, 20:38] / maps["seed0000"][10, 20]
    assert row == pytest.approx(closed_form, abs=0.02)
    # The released 8-bit form is the same map, to half a grey value.
    grey = read_saliency_png(root / "saliency_map" / "seed0000.png")
    assert np.abs(grey - maps["seed0000"]).max() == pytest.approx(0.5 / 255, abs=0.2 / 255)
    with Image.open(root / "fixation_map" / "seed0002.png") as picture:
        fixated = np.argwhere(np.asarray(picture))
    assert sorted(map(tuple, fixated[:, ::-1].tolist())) == [(40, 12), (60, 30), (100, 20)]


def test_building_again_gives_the_same_files(root):
    """Catches labels that depend on what an earlier call left behind."""
    build(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    build(root)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_videos_outside_the_split_get_no_labels(root):
    """Catches labels of videos that were taken out; they still count for the raters' own means."""
    build(root, {"train": SPLIT["train"], "eval": SPLIT["eval"]})
    assert "seed0003" not in content(root / "MOS.json")
    assert not (root / "saliency_map" / "seed0003.png").exists()
    assert content(root / "MOS.json")["seed0002"]["quality"] == pytest.approx(50)


def test_a_video_without_ratings_or_remark_is_refused(root):
    """In one dimension, in both, or without a remark. Catches a video that drops out silently."""
    kept = [row for row in rating_rows() if row[1:3] != ("seed0004", "quality")]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", kept)
    with pytest.raises(DataError, match="1 of 5 videos have no quality score, first seed0004"):
        build(root)
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rating_rows())
    with pytest.raises(DataError, match=r"the split: 1 videos have no clip in .*first seed0777"):
        build(root, {**SPLIT, "eval": ["seed0004", "seed0777"]})
    kept = [row for row in remark_rows() if row[1] != "seed0001"]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", kept)
    with pytest.raises(DataError, match="1 of 5 videos have no remark, first seed0001"):
        build(root)


@pytest.mark.parametrize("kind", ["ratings", "remarks", "marks"])
def test_annotations_of_videos_without_a_clip_are_refused(root, kind):
    """A name that was mistyped. Catches annotations that are lost without a word."""
    if kind == "ratings":
        rows = [*rating_rows(), ("rater1", "seed00O4", "quality", 3)]
        write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rows)
    elif kind == "remarks":
        rows = [*remark_rows(), ("anna", "seed00O4", "fine")]
        write_csv(root / "raw/remarks.csv", "marker,video,remark", rows)
    else:
        (root / "raw/marks/anna/seed0000.png").rename(root / "raw/marks/anna/seed00O4.png")
    with pytest.raises(DataError, match=r"1 videos have no clip in .*first seed00O4"):
        build(root)


def test_a_dimension_nobody_rated_is_refused(root):
    """Half the experiment is missing. Catches a KeyError in place of a reason."""
    kept = [row for row in rating_rows() if row[2] == "quality"]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", kept)
    with pytest.raises((DataError, AnnotationError), match=r"authenticity|no ratings"):
        build(root)


def test_remarks_that_fit_no_category_are_all_listed(root):
    """One beside a named distortion, one beside a clean remark, one alone. Catches a remark that is
    skipped, and a video that counts as clean because its only complaint was not understood.
    """
    unclear = {
        ("anna", "seed0000"): "hm",  # the other marker says that it looks fine
        ("ben", "seed0002"): "purple",  # the other marker names the mouth
        ("anna", "seed0003"): "",
        ("ben", "seed0003"): "purple",
    }
    rows = [(m, v, unclear.get((m, v), text)) for m, v, text in remark_rows()]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", rows)
    report = build(root, {"train": SPLIT["train"], "eval": ["seed0003", "seed0004"]})
    assert report.undecided == ["seed0000", "seed0003"]
    told = "\n".join(summary(report))
    for (marker, video), text in unclear.items():
        assert f"unmatched remark: {marker} on {video}: {text!r}" in told
    assert "2 videos are in no distortion list" in told
    assert content(root / "distortion_label.json")["seed0002"] == ["Mouth Distortions"]
    answers = {path.stem: content(path) for path in (root / "distortion").iterdir()}
    assert [row["videos"] for row in answers["train"]] == [["seed0001.mp4"], ["seed0002.mp4"]]
    assert [row["videos"] for row in answers["eval"]] == [["seed0004.mp4"]]
    # Their scores are not lost with it.
    assert len(read_list(root / "text/train_quality.json")) == 3
    readings = (root / "remark_readings.csv").read_text(encoding="utf-8").splitlines()
    assert len(readings) == 1 + len(remark_rows())


def test_a_part_without_any_answer_is_refused(root):
    """Catches an empty list, which no stage can read."""
    rows = [(m, v, "hm" if v == "seed0004" else text) for m, v, text in remark_rows()]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", rows)
    with pytest.raises(DataError, match="none of the 1 videos of 'eval' has a remark that fits"):
        build(root)


def test_a_users_phrases_are_used(root, tmp_path):
    """Catches a rule file that is read and forgotten."""
    rows = [(m, v, "hm freckles" if v == "seed0004" else text) for m, v, text in remark_rows()]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", rows)
    rules = tmp_path / "rules.yaml"
    rules.write_text("categories:\n  Facial Feature Distortions: [freckles]\n", encoding="utf-8")
    build(root, rules=rules)
    assert content(root / "distortion_label.json")["seed0004"] == ["Facial Feature Distortions"]


def test_a_broken_table_is_refused_with_its_line(root):
    """Catches a rating outside the slider that is averaged in."""
    rows = rating_rows()
    rows[2] = (*rows[2][:3], 5.5)
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rows)
    with pytest.raises(AnnotationError, match=r"ratings\.csv:4: rating 5\.5 is outside"):
        build(root)


def test_a_careless_rater_is_named(root):
    """One who moved no slider has no deviation: left out, and said so. Catches a silent loss, and a
    mean that is spoilt.
    """
    idle = [("idle", video, "quality", 3) for video in VIDEOS]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", [*rating_rows(), *idle])
    told = "\n".join(summary(build(root)))
    assert "quality: ratings of 2 of 3 subjects count" in told
    assert "quality: idle left out, gave all 5 videos the same rating" in told
    assert content(root / "MOS.json")["seed0002"]["quality"] == pytest.approx(50)
    subjects = (root / "subjects.csv").read_text(encoding="utf-8").splitlines()
    assert len(subjects) == 1 + 3 + 2
    card = (root / CARD).read_text(encoding="utf-8")
    assert "| quality | idle | 5 | gave all 5 videos the same rating, 3 |" in card


def test_strips_are_cut_from_the_clips_where_there_are_none(root, tmp_path):
    """The pictures at a quarter, half and three quarters of the clip. Catches other pictures, a
    resized strip, and strips that an annotator saw being overwritten.
    """
    frames = [np.full((40, 40, 3), 40 + 8 * index, np.uint8) for index in range(17)]
    write_clip(root / "video_RGB/seed0003.mp4", frames, 8)
    (root / "image/seed0003.png").unlink()
    report = build(root)
    assert report.strips_cut == 1
    with Image.open(root / "image/seed0003.png") as picture:
        strip = np.asarray(picture)
    assert strip.shape == (40, 120, 3)
    for view, index in enumerate((4, 8, 12)):
        assert np.abs(strip[:, 40 * view : 40 * view + 40].astype(int) - (40 + 8 * index)).max() < 4
    assert (strip == read_strip(root / "video_RGB/seed0003.mp4", (0.25, 0.5, 0.75))).all()
    with Image.open(root / "image/seed0000.png") as picture:
        assert (np.asarray(picture) == 120).all()


def test_all_clips_that_give_no_strip_are_named(root):
    """Catches one fault a run, and strips of the good clips that are left behind."""
    for video in ("seed0001", "seed0003"):
        (root / f"image/{video}.png").unlink()
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError, match=r"2 of 2 clips give no strip: seed0001, seed0003; first"):
        build(root)
    assert sorted(root.rglob("*")) == before


def test_another_folder_becomes_a_whole_data_set(root, tmp_path):
    """Clips, strips and raw tables come along. Catches lists whose clips are somewhere else."""
    out = tmp_path / "set"
    build(root, out=out, strips=root / "image")
    for part in SPLIT:
        for sample in read_list(out / "numerical" / f"{part}_quality.json"):
            assert sample.path.parent == out / "video_RGB"
            assert sample.path.exists()
    assert {path.stem for path in (out / "image").iterdir()} == set(VIDEOS)
    assert (out / "raw/ratings.csv").read_bytes() == (root / "raw/ratings.csv").read_bytes()


def test_points_in_a_table_do_as_well_as_marked_strips(root, tmp_path):
    """The planted centres as CSV. Catches another path for points, with other maps."""
    table = tmp_path / "points.csv"
    rows = [(marker, video, x, y) for (marker, video), at in DOTS.items() for x, y in at]
    rows += [("anna", video, "", "") for video in ("seed0001", "seed0003", "seed0004")]
    write_csv(table, "marker,video,x,y", rows)
    build(root)
    from_dots = read_fixations(root / "fixations.json")
    build(root, marks=table)
    from_points = read_fixations(root / "fixations.json")
    for video in VIDEOS:
        assert sorted(from_points[video].points) == sorted(from_dots[video].points)
        assert from_points[video].size == (120, 40)
    write_csv(table, "marker,video,x,y", [("anna", "seed0002", 120, 3)])
    with pytest.raises(AnnotationError, match=r"marks on seed0002: .* outside the picture"):
        build(root, marks=table)


def test_a_marked_strip_of_another_picture_is_named(root):
    """Catches a size error without the file in it."""
    Image.new("RGB", (60, 20)).save(root / "raw/marks/ben/seed0002.png")
    with pytest.raises(AnnotationError, match=r"ben.seed0002\.png: marked strip is \(20, 60\)"):
        build(root)
    (root / "raw/marks/ben/seed0002.png").write_bytes(b"\x89PNG")
    with pytest.raises(AnnotationError, match=r"ben.seed0002\.png: cannot be read as a picture"):
        build(root)


def test_finished_scores_and_categories_of_the_release_make_lists(root, tmp_path):
    """`MOS.json` and `distortion_label.json` in place of raw tables. Catches answers for stage 1
    that only a synthetic set can have.
    """
    scores, labels = tmp_path / "MOS.json", tmp_path / "distortion_label.json"
    scores.write_text(
        json.dumps(
            {v: {"quality": 10 + 9 * i, "authenticity": 60 - i} for i, v in enumerate(VIDEOS)}
        )
    )
    labels.write_text(json.dumps({v: "Eye Distortions, Hair Distortions" for v in VIDEOS}))
    out = tmp_path / "set"
    report = build(
        root, out=out, ratings=None, remarks=None, marks=None, mos=scores, distortions=labels,
        strips=root / "image",
    )  # fmt: skip
    assert report.scores == {}
    assert content(out / "MOS.json")["seed0003"]["quality"] == 37
    (sample,) = read_list(out / "distortion/eval.json")
    assert sample.distortions == ("Eye Distortions", "Hair Distortions")
    assert not (out / "saliency_map").exists()
    row = (out / "opinion_scores.csv").read_text(encoding="utf-8").splitlines()[1]
    assert row == "seed0000,quality,10.0,,,,bad,1.0,0.0,0.0,0.0,0.0"


def test_a_download_gets_its_lists_in_place(root):
    """As the README says it for the release. Catches label files that are read after they were
    replaced, or changed by it, and released maps that are swept away.
    """
    shutil.rmtree(root / "raw")
    scores = {
        v: {"quality": 10.123456789 + 9 * i, "authenticity": 60 - i} for i, v in enumerate(VIDEOS)
    }
    (root / "MOS.json").write_text(json.dumps(scores))
    categories = {v: ["Eye Distortions"] for v in VIDEOS}
    (root / "distortion_label.json").write_text(json.dumps(categories))
    (root / "saliency_map").mkdir()
    (root / "saliency_map/seed0000.png").write_bytes(b"a released map")
    build(
        root, ratings=None, remarks=None, marks=None,
        mos=root / "MOS.json", distortions=root / "distortion_label.json",
    )  # fmt: skip
    assert content(root / "MOS.json") == scores
    assert content(root / "distortion_label.json") == categories
    assert (root / "saliency_map/seed0000.png").read_bytes() == b"a released map"
    (sample,) = read_list(root / "numerical/eval_quality.json")
    assert sample.mos == 10.123456789 + 9 * 4
    assert sample.path == root / "video_RGB/seed0004.mp4"


def test_spread_and_soft_labels_stand_beside_the_score(root):
    """By hand: with raters at z 1 and 2 / sqrt(2.5) steps alike the deviation is 0; a third who
    swaps the last two gives those a deviation and a soft label. Catches columns of another video.
    """
    third = [("rater3", v, d, STEPS[d][i]) for d in DIMENSIONS for i, v in enumerate(VIDEOS)]
    third[3], third[4] = (*third[3][:3], third[4][3]), (*third[4][:3], third[3][3])
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", [*rating_rows(), *third])
    build(root, screening="none")
    lines = (root / "opinion_scores.csv").read_text(encoding="utf-8").splitlines()
    rows = {tuple(line.split(",")[:2]): line.split(",")[2:] for line in lines[1:]}
    z = np.array([1, 1, 2]) / np.sqrt(2.5)
    mos, std, count, ci95, level, *soft = rows["seed0003", "quality"]
    assert float(mos) == pytest.approx((100 * (z + 3) / 6).mean())
    assert float(std) == pytest.approx((100 * z / 6).std(ddof=1))
    assert (count, level) == ("3", "excellent")
    assert float(ci95) == pytest.approx(1.96 * float(std) / 3**0.5)
    assert sum(map(float, soft)) == pytest.approx(1, abs=1e-5)
    assert 0.5 < float(soft[4]) < 1
    assert rows["seed0000", "authenticity"][5:] == ["0.0", "0.0", "0.0", "0.0", "1.0"]


def test_levels_of_equal_count_reach_the_lists(root):
    """Catches an option that changes `levels.json` and not the words, or the other way round."""
    split = {"train": VIDEOS}
    build(root, split, edges="equal_count")
    words = [sample.level for sample in read_list(root / "text/train_quality.json")]
    assert words == ["bad", "poor", "fair", "good", "excellent"]
    edges = read_levels(root / "levels.json", GEN3DHF)["quality"].edges
    scores = sorted(m["quality"] for m in content(root / "MOS.json").values())
    assert edges == pytest.approx(np.quantile(scores, np.linspace(0, 1, 6)).tolist())


def test_a_failure_leaves_the_data_set_as_it_was(root):
    """The last marked strip is broken, after hundreds of good ones. Catches half a set of new maps
    beside old lists, and a hidden folder that stays.
    """
    build(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (root / "raw/marks/ben/seed0002.png").write_bytes(b"broken")
    before[root / "raw/marks/ben/seed0002.png"] = b"broken"
    rows = [(*row[:3], 5 - row[3]) for row in rating_rows()]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rows)
    before[root / "raw/ratings.csv"] = (root / "raw/ratings.csv").read_bytes()
    with pytest.raises(AnnotationError):
        build(root)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_lists_of_an_earlier_split_do_not_stay(root):
    """Catches an eval list of videos that are now in train, and answers that are not made again."""
    build(root)
    build(root, {"train": SPLIT["train"], "test": ["seed0003", "seed0004"]})
    assert {path.name for path in (root / "distortion").iterdir()} == {"train.json", "test.json"}
    with pytest.raises(DataError, match="distortion holds answers for another split"):
        build(root, remarks=None)


def test_contradicting_sources_are_refused(root):
    """Catches one of two sources silently ignored."""
    with pytest.raises(DataError, match="either raw ratings"):
        build(root, mos=root / "MOS.json")
    with pytest.raises(DataError, match="either raw ratings"):
        build(root, ratings=None)
    with pytest.raises(DataError, match="either raw remarks"):
        build(root, distortions=root / "distortion_label.json")
    with pytest.raises(DataError, match="one must be train"):
        build(root, {"eval": VIDEOS})


def test_clips_are_found_by_name(tmp_path):
    """Catches other files taken for clips, and two clips of one video."""
    with pytest.raises(DataError, match="no such folder"):
        clips_in(tmp_path / "absent")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="no clips"):
        clips_in(tmp_path)
    for name in ("b.webm", "a.MP4", ".hidden.mp4"):
        (tmp_path / name).touch()
    assert list(clips_in(tmp_path)) == ["a", "b"]
    (tmp_path / "b.mp4").touch()
    with pytest.raises(DataError, match=r"b\.mp4 and b\.webm are both clips of b"):
        clips_in(tmp_path)


def test_drawn_splits_keep_faces_apart():
    """Twenty latents under three generators. Catches a face on both sides and a wrong share."""
    videos = [f"seed{200 * g + n:04d}" for g in range(3) for n in range(20)]
    split = drawn_split(videos, 0.2, 0.05, 1)
    assert {part: len(members) for part, members in split.items()} == {
        "train": 45,
        "val": 3,
        "eval": 12,
    }
    faces = [{latent(video) for video in members} for members in split.values()]
    assert sum(map(len, faces)) == len(set.union(*faces)) == 20
    assert set(drawn_split(videos, 0.2, 0, 1)) == {"train", "eval"}
    with pytest.raises(DataError, match="shares"):
        drawn_split(videos, 0.9, 0.2, 1)


def test_clips_that_are_links_become_files_of_the_data_set(root, tmp_path):
    """Clips on a big disk, linked into the folder that is given. Catches a data set of links that
    lead out of it, which no stage reads.
    """
    linked = tmp_path / "linked"
    linked.mkdir()
    for video in VIDEOS:
        (linked / f"{video}.mp4").symlink_to(root / "video_RGB" / f"{video}.mp4")
    out = tmp_path / "elsewhere" / "data"
    build(root, videos=linked, strips=root / "image", out=out)
    clips = sorted((out / "video_RGB").iterdir())
    assert [clip.stem for clip in clips] == sorted(VIDEOS)
    assert not any(clip.is_symlink() for clip in clips)
    assert len(read_list(out / "text/train_quality.json")) == 3


def test_links_in_the_data_sets_own_folder_become_files(root, tmp_path_factory):
    """Relative ones, to another folder: the lists refuse clips that lie outside. Catches a data set
    that is written and cannot be read.
    """
    disk = tmp_path_factory.mktemp("disk")
    for video in VIDEOS:
        clip = root / "video_RGB" / f"{video}.mp4"
        (disk / clip.name).write_bytes(video.encode())
        clip.unlink()
        clip.symlink_to(Path(os.path.relpath(disk / clip.name, clip.parent)))
    build(root)
    for video in VIDEOS:
        clip = root / "video_RGB" / f"{video}.mp4"
        assert not clip.is_symlink()
        assert clip.read_bytes() == video.encode()
    assert read_list(root / "text" / "train_quality.json")


def test_a_clip_that_is_a_link_to_nowhere_is_named(root):
    """Catches labels of a set whose clips are gone, with status 0."""
    clip = root / "video_RGB" / "seed0003.mp4"
    clip.unlink()
    clip.symlink_to("gone.mp4")
    for call in (lambda: clips_in(root / "video_RGB"), lambda: build(root)):
        with pytest.raises(DataError, match=r"seed0003\.mp4 is a link to gone\.mp4"):
            call()


def test_clips_in_subfolders_and_frames_are_pointed_out(tmp_path):
    """Linked subfolders too. Catches "no clips in it" for a folder full of them."""
    folder, disk = tmp_path / "videos", tmp_path / "disk"
    (disk / "seed0000").mkdir(parents=True)
    folder.mkdir()
    (disk / "seed0000.mp4").touch()
    (folder / "all").symlink_to(disk)
    with pytest.raises(DataError, match=r"first all/seed0000\.mp4: .*put"):
        clips_in(folder)
    (disk / "seed0000.mp4").unlink()
    for number in range(3):
        Image.new("RGB", (32, 32)).save(disk / "seed0000" / f"{number:03d}.png")
    with pytest.raises(DataError, match=r"ffmpeg"):
        clips_in(folder)


def test_clips_below_others_are_counted_and_the_first_is_named(root, tmp_path):
    """Catches a labelled set that silently lacks the clips of a subfolder."""
    assert deeper_clips(root / "video_RGB") == []
    clip = next((root / "video_RGB").glob("*.mp4"))
    videos = tmp_path / "videos"
    (videos / "more").mkdir(parents=True)
    for name in ("seed0001.mp4", "more/seed0002.mp4", "more/seed0003.mp4"):
        shutil.copyfile(clip, videos / name)
    assert list(clips_in(videos)) == ["seed0001"]
    (line,) = deeper_clips(videos)
    assert line.startswith("2 clips")
    assert "more/seed0002.mp4" in line


def test_a_missing_marked_strip_is_not_an_empty_one(root):
    """Ben lost one, and seed0003 nobody has: its map would say that nothing is wrong. Catches a
    lost file that is learnt as "no distortion", without a word.
    """
    for marker, video in (("ben", "seed0002"), ("anna", "seed0003"), ("ben", "seed0003")):
        (root / "raw/marks" / marker / f"{video}.png").unlink()
    said = "\n".join(summary(build(root)))
    fixations = read_fixations(root / "fixations.json")
    assert set(fixations) == set(VIDEOS) - {"seed0003"}
    assert fixations["seed0002"].points == ((100, 20),)
    assert fixations["seed0002"].dots == {"anna": 1}
    assert not list((root / "saliency_map").glob("seed0003.*"))
    assert "1 videos have no map" in said
    assert "marker ben has not looked at 2 of 5 videos" in said
    # The check names it, and it is no error: stage 3 leaves it out.
    odd = {f.kind: f for f in check(root, decode="none").findings}
    assert "seed0003" in odd["unmarked"].sentence
    assert odd["unmarked"].severity == "odd"
    assert "missing map" not in odd
    (root / "saliency_map/seed0002.png").unlink()
    (root / "saliency_map/seed0002.npz").unlink()
    assert "missing map" in {f.kind for f in check(root, decode="none").findings}


def test_remarks_marks_and_scores_that_contradict_each_other_are_named(root):
    """By hand: seed0004 has hair and no dot; seed0000, whose remarks are now fine, has a dot; the
    authenticity of seed0003 is bad, and nobody saw why. Catches two sources that disagree without
    a word, in the labels and in the check.
    """
    rows = [(m, v, "looks fine" if v == "seed0000" else text) for m, v, text in remark_rows()]
    write_csv(root / "raw/remarks.csv", "marker,video,remark", rows)
    report = build(root)
    expected = {
        "remarks name": ["seed0004"],
        "remarks say that nothing": ["seed0000"],
        "a score is bad": ["seed0003"],
    }
    assert len(report.conflicts) == 3
    for start, videos in expected.items():
        (found,) = [v for what, v in report.conflicts.items() if what.startswith(start)]
        assert found == videos
    checked = [f for f in check(root, decode="none").findings if f.kind == "conflict"]
    assert {(f.place, f.sentence) for f in checked} == {
        (video, what) for what, videos in report.conflicts.items() for video in videos
    }
    assert {f.severity for f in checked} == {"odd"}
    assert "conflict: remarks name" in (root / CARD).read_text(encoding="utf-8")


def test_too_few_raters_are_named(root):
    """Fewer than the fifteen of ITU-R BT.500. Catches rough scores without a word."""
    assert any("fewer than the 15" in line for line in summary(build(root)))
    rows = [(f"{r}{k}", *rest) for k in range(8) for r, *rest in rating_rows()]
    write_csv(root / "raw/ratings.csv", "subject,video,dimension,rating", rows)
    assert not any("fewer than the 15" in line for line in summary(build(root)))


def test_other_marks_are_refused_or_counted(root):
    """A green dot among red ones. Catches a video that is learnt as clean."""
    picture = np.full((40, 120, 3), 120, np.uint8)
    picture[9:12, 29:32] = (0, 255, 0)
    Image.fromarray(picture).save(root / "raw/marks/ben/seed0003.png")
    with pytest.raises(AnnotationError, match=r"ben/seed0003\.png: something green .*\(30, 10\)"):
        build(root)
    report = build(root, other_marks="ignore")
    assert list(report.marked.strays) == ["ben/seed0003.png"]
    assert "1 marked strips hold something else" in (root / CARD).read_text(encoding="utf-8")
    for path in (root / "raw/marks").rglob("*.png"):
        with Image.open(path) as opened:
            marked = np.array(opened)
        marked[(marked == (255, 0, 0)).all(axis=2)] = (0, 255, 0)
        Image.fromarray(marked).save(path)
    build(root, mark_colour="green")
    fixations = read_fixations(root / "fixations.json")
    assert fixations["seed0003"].points == ((30, 10),)
    assert sorted(fixations["seed0002"].points) == [(40, 12), (60, 30), (100, 20)]


def test_the_split_says_what_came_out(root):
    """Catches shares that were asked for and not met, without a word."""
    report = build(root, shares={"train": 0.75, "val": 0.05, "eval": 0.2})
    assert any(
        "train: 60.0%, asked 75.0%" in line and "3 faces" in line for line in summary(report)
    )
    assert "20.0%, asked 20.0%" in (root / CARD).read_text(encoding="utf-8")


def test_strips_are_cut_before_there_are_labels(tmp_path, capsys):
    """One clip is broken. Catches a run that ends at it, a status of success, and strips that are
    cut again over those that somebody marks.
    """
    frames = [np.full((40, 40, 3), 40 + 8 * index, np.uint8) for index in range(17)]
    videos, out = tmp_path / "clips", tmp_path / "strips"
    videos.mkdir()
    write_clip(videos / "seed0001.mp4", frames, 8)
    shutil.copy(videos / "seed0001.mp4", videos / "seed0003.mp4")
    (videos / "seed0002.mp4").write_bytes(b"no clip")
    call = ["data", "strips", "--videos", str(videos), "--out", str(out)]
    assert cli.main(call) == 3
    said = capsys.readouterr().out
    assert "seed0002: no strip: " in said
    assert "2 strips cut, 0 were there, 1 clips give none" in said
    assert {path.name for path in out.iterdir()} == {"seed0001.png", "seed0003.png"}
    with Image.open(out / "seed0001.png") as picture:
        assert (np.asarray(picture) == read_strip(videos / "seed0001.mp4", (0.25, 0.5, 0.75))).all()
    before = (out / "seed0001.png").stat().st_mtime_ns
    (videos / "seed0002.mp4").unlink()
    (out / "seed0003.png").unlink()
    assert cli.main(call) == 0
    assert "1 strips cut, 1 were there, 0 clips" in capsys.readouterr().out
    assert (out / "seed0001.png").stat().st_mtime_ns == before
