"""A data set described: every picture with its table, what is missing named, and the official lists
as the audit has them.
"""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.annotations.fixations import (
    Fixations,
    read_fixations,
    saliency_map,
    write_fixations,
    write_saliency_png,
)
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.describe import describe
from lmme3dhf.files import without_nan, write_csv, write_json
from tests.conftest import DIMENSIONS, shared_data

VIDEOS = [f"seed{200 * g + i:04d}" for g in range(2) for i in range(6)]
SCORES = {video: 20.0 + 5 * place for place, video in enumerate(VIDEOS)}
PARTS = {"train": VIDEOS[:4] + VIDEOS[6:10], "eval": VIDEOS[4:6] + VIDEOS[10:]}
# The better a video, the fewer dots: 11 on the first, none on the last.
DOTS = {video: 11 - place for place, video in enumerate(VIDEOS)}
CATEGORIES = {
    video: ["No Distortion"] if DOTS[video] == 0 else ["Eye Distortions", "Hair Distortions"][:n]
    for video, n in zip(VIDEOS, [2] * 6 + [1] * 6, strict=True)
}
WIDTH, HEIGHT = 96, 32


def sample(video: str, dimension: str, level: str, mos: float | None = None) -> Sample:
    return Sample(
        video=video,
        path=Path(f"{video}.mp4"),
        task=dimension,
        prompt=PROMPTS[dimension],
        reply=level_reply(GEN3DHF[dimension], level, mos),
    )


def write_marks(root: Path) -> None:
    rng = np.random.default_rng(0)
    fixations = {}
    for folder in ("image", "saliency_map"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for video in VIDEOS:
        points = [(float(x), float(y)) for x, y in rng.integers(2, 30, (DOTS[video], 2))]
        strip = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(strip).save(root / "image" / f"{video}.png")
        write_saliency_png(
            root / "saliency_map" / f"{video}.png", saliency_map(points, HEIGHT, WIDTH)
        )
        fixations[video] = points
    # The plain form; the other has dots for each marker.
    write_json(root / "fixations.json", fixations)


def write_raw(root: Path) -> None:
    """Five raters who follow the scores, and two markers who name the categories."""
    rng = np.random.default_rng(1)
    rows = [
        (f"r{rater}", video, dimension, round(float(np.clip(x, 0, 5)), 2))
        for dimension in DIMENSIONS
        for rater in range(5)
        for video in VIDEOS
        for x in [SCORES[video] / 20 + rng.normal(0, 0.3)]
    ]
    write_csv(root / "raw" / "ratings.csv", ("subject", "video", "dimension", "rating"), rows)
    remarks = [
        (marker, video, "strange eyes" if marker == "m1" or DOTS[video] % 2 else "looks fine")
        for marker in ("m1", "m2")
        for video in VIDEOS
    ]
    write_csv(root / "raw" / "remarks.csv", ("marker", "video", "remark"), remarks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict]:
    """A data set with everything in it, described: the folder of the page, and its figures."""
    root = tmp_path_factory.mktemp("whole") / "made|up"
    mos = {video: {"quality": s, "authenticity": 90 - s} for video, s in SCORES.items()}
    write_json(root / "MOS.json", mos)
    write_json(root / "distortion_label.json", CATEGORIES)
    write_json(root / "splits.json", PARTS)
    for part, videos in PARTS.items():
        listed = [sample(video, "quality", "good", SCORES[video]) for video in videos]
        write_list(root / "numerical" / f"{part}_quality.json", listed)
    write_marks(root)
    dots = {
        video: Fixations(known.points, {"m1": len(known.points), "m2": 0}, (WIDTH, HEIGHT))
        for video, known in read_fixations(root / "fixations.json").items()
    }
    write_fixations(root / "fixations.json", dots)
    write_raw(root)
    out = root / "stats"
    return out, describe(root, out)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_picture_has_its_table(whole):
    """All pictures of Section 3.4, each with a CSV of the same name that has rows, legible at 1,000
    pixels. Catches a picture that is announced and not drawn.
    """
    out, figures = whole
    pictures = {name for name in figures["files"] if name.endswith(".png")}
    assert pictures == {
        *("fig2a_mos.png", "fig2b_generators.png", "fig3a_distortions.png"),
        *("fig3b_generators.png", "fig5_strips.png", "fig6_marks.png"),
        *("raters.png", "raters_halves.png"),
    }
    for name in pictures:
        with Image.open(out / name) as picture:
            assert picture.size[0] >= 1000, name
            assert 300 <= picture.size[1] <= 2500, name
        assert rows((out / name).with_suffix(".csv")), name
        assert str(Path(name).with_suffix(".svg")) in figures["files"]
    made = {path.name for path in out.iterdir()}
    assert made == {*figures["files"], "stats.md", "stats.json"}


def test_the_page_links_to_files_that_are_there(whole):
    """Pictures and tables. Catches a link with another name, and a page that shows half of it."""
    out, figures = whole
    page = (out / "stats.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert set(links) == {*figures["files"], "stats.json"}
    assert all((out / link).exists() for link in links)
    # In the list of files, and beside its picture or figures.
    once = {name for name in links if links.count(name) == 1 and not name.endswith(".svg")}
    assert once == {"videos.csv", "stats.json"}
    for words in ("{{", "{%", "None of", "nan"):
        assert words not in page
    assert "# Data set made\\|up" in page


def test_the_figures_are_those_of_the_data(whole):
    """By hand from what was written. Catches a table that was read for another."""
    out, figures = whole
    assert figures["videos"] == 12
    assert figures["parts"] == {
        "sizes": {"train": 8, "eval": 4},
        "in_several": 0,
        "eval_with_latent_in_train": 0,
    }
    assert figures["scores"]["summary"]["quality"]["all"]["mean"] == pytest.approx(47.5)
    assert figures["scores"]["between_dimensions"]["all"]["plcc"] == pytest.approx(-1)
    assert figures["lists"]["largest_gap_to_mos"] == 0
    assert figures["distortions"]["counts"]["Eye Distortions"] == 11
    assert figures["distortions"]["counts"]["Hair Distortions"] == 6
    assert figures["marks"]["dots"] == sum(DOTS.values())
    assert figures["marks"]["measures"]["dots"]["quality"]["srcc"] == pytest.approx(-1)
    assert figures["marks"]["clean"] == 1
    assert figures["raters"]["quality"]["ratings"] == 60
    assert figures["raters"]["quality"]["split_half"]["mean"] > 0.8
    # One marker always names the eyes, the other on every second video; neither ever the hair.
    assert figures["markers"]["named_by"]["Eye Distortions"] == (0, 6, 6)
    assert figures["markers"]["against_labels"] == 7
    assert figures["markers"]["dots"] == {"m1": sum(DOTS.values()), "m2": 0}
    by_video = {row["video"]: row for row in rows(out / "videos.csv")}
    assert by_video["seed0000"]["dots"] == "11"
    assert by_video["seed0200"]["generator"] == "1"
    assert by_video["seed0004"]["part"] == "eval"
    shown = rows(out / "fig5_strips.csv")
    assert [row["video"] for row in shown][:: len(shown) - 1] == [VIDEOS[0], VIDEOS[-1]]


def test_the_json_holds_what_is_returned(whole):
    """NaN as null. Catches a figure that is on the page alone."""
    out, figures = whole
    written = json.loads((out / "stats.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(without_nan(figures)))


def test_only_what_is_missing_is_left_out(whole):
    """The numbers have gaps, so nothing can be said of blocks of 200; all else is there. Catches a
    part that vanishes without a word.
    """
    _, figures = whole
    assert list(figures["left_out"]) == [
        "Evidence that a clip's number divided by 200 is its generator"
    ]
    assert all(
        c["n"] == 12 and not c["missing"] and not c["first"] for c in figures["coverage"].values()
    )


def test_the_same_ratings_give_the_same_figures(whole, tmp_path):
    """Ratings and nothing else, halved again from the fixed seed. Catches ambient chance, and
    raters who are described only beside scores.
    """
    out, figures = whole
    (tmp_path / "raw").mkdir()
    ratings = Path("raw", "ratings.csv")
    (tmp_path / ratings).write_bytes((out.parent / ratings).read_bytes())
    again = describe(tmp_path, tmp_path / "out")
    assert again["scores"] is None
    assert again["coverage"]["ratings"]["n"] == again["videos"] == 12
    assert (tmp_path / "out" / "raters_halves.csv").read_bytes() == (
        out / "raters_halves.csv"
    ).read_bytes()
    for dimension in DIMENSIONS:
        for key in ("split_half", "icc", "reports"):
            assert str(again["raters"][dimension][key]) == str(figures["raters"][dimension][key])


def test_official_lists_are_described_as_audited(tmp_path):
    """Counts of sections 1.1, 1.3 and 1.5 of the audit. Catches "None" that is read as any other
    level, and lists that are compared with themselves.
    """
    figures = describe(shared_data("gen3dhf_annotations"), tmp_path)
    assert figures["videos"] == 2000
    assert figures["parts"]["sizes"] == {"train": 1600, "eval": 400}
    assert figures["parts"]["eval_with_latent_in_train"] == 400
    lists = figures["lists"]
    assert (len(lists["rows"]), sum(lists["rows"].values())) == (8, 8000)
    assert lists["same_order"]
    assert (lists["compared"], lists["text_against_numerical"]) == (4000, 0)
    assert lists["unnamed"] == [
        {"dimension": "quality", "video": "seed0642", "part": "train"},
        {"dimension": "authenticity", "video": "seed0750", "part": "train"},
    ]
    quality, authenticity = (figures["levels"][dimension] for dimension in DIMENSIONS)
    assert list(quality["as_listed"]["counts"]["all"].values()) == [1, 4, 51, 239, 780, 925]
    assert list(authenticity["as_listed"]["counts"]["all"].values()) == [1, 11, 88, 329, 699, 872]
    means = [round(x, 1) for x in quality["as_listed"]["mean_mos"].values()]
    assert means == [6.4, 13.7, 25.5, 37.6, 48.8, 57.7]
    means = [round(x, 1) for x in authenticity["as_listed"]["mean_mos"].values()]
    assert means == [8.6, 15.8, 27.3, 38.4, 49.9, 58.7]
    for one, edges in (
        (quality, [6.361922, 18.239587, 30.117252, 41.994917, 53.872581, 65.750246]),
        (authenticity, [8.584694, 20.122782, 31.660870, 43.198958, 54.737046, 66.275134]),
    ):
        # Both extremes lie in train.
        assert [round(edge, 6) for edge in one["edges"]["all"]] == edges
        assert one["edges"]["all"] == one["edges"]["train"]
        assert (one["compared"], one["listed_against_equation_4"]) == (1999, 0)
    page = (tmp_path / "stats.md").read_text(encoding="utf-8")
    for words in (
        "| quality, all | 2000 | 6.3619 (seed0642) | 65.7502 (seed0985) | 50.909 | 8.528 |",
        "Quality: left-skewed (-1.20)",
        "right for 45.75 % of eval",
        "right for 41.75 % of eval",
        "| quality | 0.472 |",
        "| authenticity | 0.462 |",
        "`distortion_label.json`, or lists in `distortion/`",
        "`fixations.json`",
        "`raw/ratings.csv`",
        "`raw/remarks.csv`",
    ):
        assert words in page, words
    made = {path.name for path in tmp_path.iterdir() if path.suffix == ".png"}
    assert made == {"fig2a_mos.png", "fig2b_generators.png", "partition.png"}


def test_an_empty_folder_is_told_in_one_sentence(tmp_path):
    """And so is one that is not there. Catches an empty page, and files that are left behind."""
    (tmp_path / "in").mkdir()
    for folder, words in (("in", "nothing of Gen3DHF is here"), ("no", "no such folder")):
        with pytest.raises(DataError, match=words) as caught:
            describe(tmp_path / folder, tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_scores_alone_can_be_described(tmp_path):
    """The download's MOS.json without anything else: no parts, no levels of lists. Catches a
    section that needs another.
    """
    mos = {video: {"quality": s, "authenticity": s} for video, s in SCORES.items()}
    write_json(tmp_path / "MOS.json", mos)
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["parts"] is None
    assert figures["lists"] is None
    assert figures["generators"]["floor"] == {"quality": None, "authenticity": None}
    assert figures["levels"]["quality"]["by_equation_4"]["counts"]["all"]["excellent"] == 3
    assert figures["coverage"]["strip"] == {"n": 0, "missing": 12, "first": VIDEOS[:5]}
    needed = " ".join(figures["left_out"].values())
    for name in (
        "splits.json",
        "distortion_label.json",
        "fixations.json",
        "saliency_map/",
        "image/",
    ):
        assert name in needed
    assert "undefined" not in (tmp_path / "out" / "stats.md").read_text(encoding="utf-8")


def test_marks_alone_can_be_described(tmp_path):
    """Strips, maps and dots without scores: the strips are chosen by name. Catches a panel that
    needs scores, and empty tables.
    """
    write_marks(tmp_path)
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["scores"] is None
    assert figures["generators"] is None
    assert "`MOS.json`, or lists in `numerical/`" in figures["left_out"].values()
    assert figures["marks"]["measures"]["dots"]["max"] == 11
    assert "fig5_strips.png" in figures["files"]
    assert "fig6_marks.png" not in figures["files"]
    assert len(rows(tmp_path / "out" / "fig6_marks.csv")) == 12


def test_words_alone_can_be_described(tmp_path):
    """Lists in text/ of one dimension, as JSON lines, with the released "None". Catches a level
    that needs a score, and a "None" that hides in another form of the file.
    """
    lines = []
    for video, level in zip(VIDEOS, ["None", "good", "good"], strict=False):
        reply = level_reply(GEN3DHF["quality"], "good").replace("good", level)
        messages = [
            {"role": "user", "content": "<video>" + PROMPTS["quality"]},
            {"role": "assistant", "content": reply},
        ]
        lines.append(json.dumps({"messages": messages, "videos": f"/x/{video}.mp4"}))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train_quality.json").write_text("\n".join(lines), encoding="utf-8")
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["scores"] is None
    assert figures["levels"]["quality"]["as_listed"]["counts"]["all"]["good"] == 2
    assert figures["lists"]["unnamed"] == [
        {"dimension": "quality", "video": "seed0000", "part": "train"}
    ]
    assert "quality of seed0000 (train)" in (tmp_path / "out" / "stats.md").read_text("utf-8")


def test_videos_without_something_are_counted_and_named(tmp_path):
    """A score for eleven of twelve videos of the split, and a thirteenth that no part has. Catches
    videos that drop out silently.
    """
    mos = {video: {"quality": s, "authenticity": s} for video, s in SCORES.items()}
    del mos["seed0003"]
    mos["seed0400"] = {"quality": 33.0, "authenticity": 44.0}
    write_json(tmp_path / "MOS.json", mos)
    write_json(tmp_path / "splits.json", PARTS)
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["videos"] == 13
    assert figures["coverage"]["quality score"] == {"n": 12, "missing": 1, "first": ["seed0003"]}
    assert figures["coverage"]["part of a split"]["first"] == ["seed0400"]
    assert figures["scores"]["summary"]["quality"]["train"]["n"] == 7


def test_lists_that_disagree_are_told(tmp_path):
    """One word differs between text/ and numerical/, one score from MOS.json by 2, and the order
    is another. Catches checks that compare a list with itself.
    """
    mos = {video: {"quality": s, "authenticity": s} for video, s in SCORES.items()}
    mos["seed0001"]["quality"] += 2
    write_json(tmp_path / "MOS.json", mos)
    listed = [sample(video, "quality", "good", SCORES[video]) for video in VIDEOS]
    write_list(tmp_path / "numerical" / "train_quality.json", listed)
    words = [
        sample(video, "quality", "fair" if i else "good") for i, video in enumerate(VIDEOS[:2])
    ]
    write_list(tmp_path / "text" / "train_quality.json", words)
    lists = describe(tmp_path, tmp_path / "out")["lists"]
    assert (lists["compared"], lists["text_against_numerical"]) == (2, 1)
    assert lists["largest_gap_to_mos"] == pytest.approx(2)
    assert not lists["same_order"]


def test_a_list_of_another_dimension_is_refused(tmp_path):
    """The file's name says what it is about; and a video belongs to one part. Catches labels of one
    dimension that are taken for the other's.
    """
    listed = [sample("seed0000", "authenticity", "good", 50.0)]
    write_list(tmp_path / "a" / "numerical" / "train_quality.json", listed)
    with pytest.raises(DataError, match=r"train_quality\.json: row 1 is about authenticity"):
        describe(tmp_path / "a", tmp_path / "out")
    for part in ("train", "eval"):
        listed = [sample("seed0000", "quality", "good", 50.0)]
        write_list(tmp_path / "b" / "numerical" / f"{part}_quality.json", listed)
    with pytest.raises(DataError, match="seed0000 has a row already"):
        describe(tmp_path / "b", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_marks_of_another_strip_are_refused(tmp_path):
    """A dot beside the map, dots of a larger strip, and a map of another size than its strip;
    nothing is written. Catches dots that are counted somewhere else.
    """
    write_marks(tmp_path)
    points = json.loads((tmp_path / "fixations.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "fixations.json", {**points, "seed0000": [[WIDTH + 3.0, 4.0]]})
    with pytest.raises(DataError, match=r"seed0000: dot \(99, 4\) lies outside the map of 96 x 32"):
        describe(tmp_path, tmp_path / "out")
    of_larger = {"points": [[3, 4]], "dots": {"m1": 1}, "size": [1536, 512]}
    write_json(tmp_path / "fixations.json", {**points, "seed0000": of_larger})
    with pytest.raises(DataError, match="seed0000 was marked on a strip of 1536 x 512, its map is"):
        describe(tmp_path, tmp_path / "out")
    write_json(tmp_path / "fixations.json", points)
    write_saliency_png(tmp_path / "saliency_map" / "seed0000.png", np.zeros((64, 192)))
    with pytest.raises(DataError, match="the map of seed0000 is"):
        describe(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_foreign_name_is_refused(tmp_path):
    """A map with a suffix in its name, as a released script writes it. Catches a traceback, or a
    page, after half of the files.
    """
    write_marks(tmp_path)
    (tmp_path / "saliency_map" / "seed0000.png").rename(
        tmp_path / "saliency_map" / "seed0000_saliency.png"
    )
    with pytest.raises(DataError, match=r"'seed0000_saliency': expected a name like seed0042"):
        describe(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_rater_is_not_a_panel(tmp_path):
    """The section is left out with its reason. Catches an error that hides the rest of the page."""
    mos = {video: {"quality": s, "authenticity": s} for video, s in SCORES.items()}
    write_json(tmp_path / "MOS.json", mos)
    write_csv(
        tmp_path / "raw" / "ratings.csv",
        ("subject", "video", "dimension", "rating"),
        [("r0", video, "quality", s / 20) for video, s in SCORES.items()],
    )
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["raters"] is None
    assert "two are needed" in figures["left_out"]["Agreement of the raters in quality"]


def test_scores_that_are_all_alike_are_told(tmp_path):
    """400 times 50: no levels, no blocks, no latents, and each with its reason. Catches a section
    that stops the page, and shares of a variance that is nothing but rounding.
    """
    mos = {f"seed{i:04d}": {"quality": 50.1, "authenticity": 60.2} for i in range(400)}
    write_json(tmp_path / "MOS.json", mos)
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["levels"]["quality"]["by_equation_4"] is None
    reason = figures["left_out"]["Levels of the quality scores of all by Eq. 4"]
    assert "levels need scores that differ" in reason
    assert "partition.png" not in figures["files"]
    assert np.isnan(figures["generators"]["latents"]["quality"]["p"])


def test_parts_come_from_both_kinds_of_lists(tmp_path):
    """Train in text/, eval in numerical/ alone. Catches a part that the first folder does not
    have, and a floor that is missing without a word.
    """
    for kind, part, mos in (("text", "train", None), ("numerical", "eval", 50.0)):
        listed = [sample(video, "quality", "good", mos) for video in PARTS[part]]
        write_list(tmp_path / kind / f"{part}_quality.json", listed)
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["parts"]["sizes"] == {"train": 8, "eval": 4}
    assert figures["generators"]["floor"] == {"quality": None}
    assert "The floor of a predictor that knows the generator" in figures["left_out"]


def test_hidden_files_are_no_maps(tmp_path):
    """macOS puts ._seed0000.png beside every file of an archive. Catches a video of that name."""
    write_marks(tmp_path)
    for folder in ("image", "saliency_map"):
        (tmp_path / folder / "._seed0000.png").write_bytes(b"\0")
    assert describe(tmp_path, tmp_path / "out")["videos"] == 12


def test_dots_need_no_map_but_their_strip(tmp_path):
    """Without maps the dots are drawn, and have to lie on the strip. Catches a picture that grows
    around a dot beside the strip.
    """
    write_marks(tmp_path)
    shutil.rmtree(tmp_path / "saliency_map")
    figures = describe(tmp_path, tmp_path / "out")
    assert figures["marks"]["measures"].keys() == {"dots"}
    assert "`saliency_map/`" in figures["left_out"].values()
    page = (tmp_path / "out" / "stats.md").read_text(encoding="utf-8")
    assert "A region is" not in page
    points = json.loads((tmp_path / "fixations.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "fixations.json", {**points, "seed0000": [[WIDTH - 0.4, 4.0]]})
    with pytest.raises(DataError, match="lies outside the strip of 96 x 32"):
        describe(tmp_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_two_answers_about_distortions_are_refused(tmp_path):
    """One video in two parts. Catches the later answer in place of the earlier one."""
    listed = [
        Sample(
            video="seed0000",
            path=Path("seed0000.mp4"),
            task="distortion",
            prompt=PROMPTS["distortion"],
            reply="Distortions found: Eye Distortions",
        )
    ]
    for part in ("train", "eval"):
        write_list(tmp_path / "distortion" / f"{part}.json", listed)
    with pytest.raises(DataError, match="seed0000 has a row already"):
        describe(tmp_path, tmp_path / "out")
