"""The page that compares generators: its numbers are those of the table, and whatever happens to
the files around it, it is whole, small and harmless.
"""

import base64
import csv
import dataclasses
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.aspects import Scale
from lmme3dhf.assessment import FLAG
from lmme3dhf.cli import main
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.files import file_hash
from lmme3dhf.generators import examples
from lmme3dhf.generators.examples import Chosen, ends, galleries
from lmme3dhf.generators.report import LARGEST_PAGE, MOST_GENERATORS, compare, write_comparison
from lmme3dhf.generators.tables import grouped, p_text, ranks
from lmme3dhf.metrics.group_means import GroupMean
from lmme3dhf.reports.page import Card
from lmme3dhf.scores import ScoreRow, append_row, read_scores
from tests.generators.conftest import (
    BLUE,
    EVIL,
    GREEN,
    RED,
    SHOWN_EVIL,
    Made,
    failed,
    row,
    write_map,
    write_table,
    write_views,
)
from tests.reports.html_page import ReadPage


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def table_named(page: ReadPage, first: str) -> dict[str, list[str]]:
    """First cell -> the others, of the table whose header begins so."""
    (found,) = [t for t in page.tables if any(r[:1] == [first] for r in t[:2])]
    return {cells[0]: cells[1:] for cells in found}


def pictures(html: str) -> list[np.ndarray]:
    """The thumbnails, in their order."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_means_are_those_of_the_table(made: Made):
    """Against NumPy on the rows; the CSV has all digits. Catches a generator's videos that are
    lost, a failed file that is counted as a score, and two dimensions that are swapped.
    """
    scores = {
        name: [
            r.ratings["quality"].score
            for r in read_scores(made.table)
            if r.status == "ok" and r.file.startswith(f"clips/{name}_")
        ]
        for name in ("alpha", "beta")
    }
    shown = {
        cells[0]: cells[1:]
        for cells in ReadPage(made.html).tables[0]
        if cells[0] not in ("", "generator")
    }
    assert list(shown) == ["alpha", SHOWN_EVIL, "beta", "gone"]  # from the best
    written = {r["generator"]: r for r in rows_of(made.files / "tables" / "means.csv")}
    for (name, values), rank in zip(scores.items(), ("1", "3"), strict=True):
        mean = np.mean(values)
        assert shown[name][0] == str(len(values))
        assert shown[name][2:4] == ["0", f"{mean:.1f}"]
        assert shown[name][5] == f"{np.median(values):.1f}"
        assert shown[name][6] == rank
        assert shown[name][7] == f"{mean - 2:.1f}"
        assert float(written[name]["quality_mean"]) == pytest.approx(mean)
        low, high = (float(written[name][f"quality_{end}"]) for end in ("low", "high"))
        assert low < mean < high
        assert shown[name][4] == f"{low:.1f} to {high:.1f}"
    assert shown["alpha"][1] == "1"
    assert shown[SHOWN_EVIL][:5] == ["1", "1", "0", "50.0", "undefined"]
    assert shown["gone"] == ["0", "1", "0", *["–", "undefined", "–", "–"] * 2]


def test_differences_are_tested_and_corrected(made: Made):
    """alpha and beta do not overlap: U = 120 of 12 x 10, with mean 60 and deviation
    sqrt(120 x 23 / 12); less 1/2 for continuity, z = 59.5 / sqrt(230). One video is undefined,
    never a number. Catches a difference with the wrong sign, and stars without a test.
    """
    page = ReadPage(made.html)
    matrices = [t for t in page.tables if t[0][0] == "row less column"]
    assert len(matrices) == 2
    assert matrices[0][0][1:] == ["alpha", SHOWN_EVIL, "beta", "gone"]
    cells = {line[0]: line[1:] for line in matrices[0]}
    assert cells["alpha"][0] == "–"
    assert re.fullmatch(r"\+\d\d\.\d \*\*\*\np < 0.001", cells["alpha"][2])
    assert cells["beta"][0] == cells["alpha"][2].replace("+", "-")
    assert cells[SHOWN_EVIL] == ["undefined", "–", "undefined", "undefined"]
    assert "corrected by Holm's method over the 1 tested pairs" in page.text
    assert "unpaired" in page.text
    pairs = rows_of(made.files / "tables" / "differences_quality.csv")
    (tested,) = [pair for pair in pairs if pair["p"]]
    assert len(pairs) == 6
    assert float(tested["p"]) == pytest.approx(math.erfc(59.5 / math.sqrt(2 * 230)))
    assert tested["share_of_wins"] == "1.0"


def test_levels_and_distortions_are_shares_of_the_scored(made: Made):
    """By hand: one of twelve has two named. Catches shares of all files, and columns that are
    shifted.
    """
    tables = made.files / "tables"
    named = {r["generator"]: r for r in rows_of(tables / "distortions.csv")}
    assert float(named["alpha"]["Eye Distortions"]) == pytest.approx(1 / 12)
    assert float(named["alpha"]["No Distortion"]) == pytest.approx(11 / 12)
    assert named["beta"]["Hair Distortions"] == "1.0"
    assert named["gone"]["Hair Distortions"] == ""
    levels = {r["generator"]: r for r in rows_of(tables / "levels.csv")}
    assert levels["beta"]["quality_poor"] == "1.0"
    assert levels["beta"]["quality_bad"] == "0.0"
    assert float(levels["alpha"]["quality_excellent"]) == pytest.approx(1 / 12)
    shown = {t[0][0]: t for t in ReadPage(made.html).tables if "no distortion" in t[0]}
    header, first, *_ = shown["generator"]
    assert dict(zip(header, first, strict=True))["eye"] == "8"
    assert dict(zip(header, first, strict=True))["no distortion"] == "92"


def test_what_is_left_out_is_counted_and_named(made: Made):
    """Catches a file that is in no group without a word, and reasons that are lost."""
    page = ReadPage(made.html)
    assert (
        "Left out: 3 files without scores, 2 scored files that the pattern does not match"
        in page.text
    )
    assert [t for t in page.tables if t[0] == ["reason", "files"]] == [
        [["reason", "files"], ["empty", "2"], ["truncated", "1"]]
    ]
    for file in ("clips/alpha_bad.mp4", "clips/gone_bad.mp4", "clips/unmatched.mp4", "clips/Ω.mp4"):
        assert file in page.text
    written = rows_of(made.files / "tables" / "failures.csv")
    assert [(r["file"], r["reason"], r["generator"]) for r in written] == [
        ("clips/alpha_bad.mp4", "truncated", "alpha"),
        (f"clips/{EVIL}_bad.mp4", "empty", f"'{EVIL}"),  # no formula for a spreadsheet
        ("clips/gone_bad.mp4", "empty", "gone"),
    ]
    for fact in (f"model {'0123456789abcdef'}", "decoder pyav", "LMME3DHF 1.0", "0 to 100"):
        assert fact in page.text


def test_names_from_outside_stay_text(made: Made):
    """In tables, cards, lists and the contents. Catches a file's name that becomes an element, or
    turns the line around unseen.
    """
    page = ReadPage(made.html)
    assert not page.faults
    assert "\u202e" not in made.html
    assert "<img src=x" not in made.html
    assert page.text.count(SHOWN_EVIL) > 5
    assert "<b>it is</b>" in page.text
    assert len(re.findall("<script", made.html)) == 1
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "http" not in made.html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert re.search(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-",
        made.html,
    )


def test_every_picture_says_what_it_shows(made: Made):
    """Catches a picture without words for those who cannot see it, and a figure that is missing."""
    alts = re.findall(r'<img src="data:[^"]+" alt="([^"]*)"', made.html)
    assert len(alts) == made.html.count("<img ")
    assert all(alts)
    figures = {path.name for path in (made.files / "figures").iterdir()}
    names = [
        f"{what}-{d}" for what in ("means", "scores", "levels") for d in ("quality", "authenticity")
    ]
    assert figures == {f"{name}.{kind}" for name in [*names, "radar"] for kind in ("png", "svg")}


def test_cards_show_the_views_and_the_map_over_them(made: Made):
    """The clip is red, green and blue at -45, 0 and +45 degrees; the map is a block in the third.
    Catches views of other places, an overlay of another video's map, and one that is mirrored.
    """
    plain, overlaid = pictures(made.html)[:2]
    assert plain.shape == overlaid.shape == (64, 288, 3)
    for view, colour in enumerate((RED, GREEN, BLUE)):
        middle = plain[16:48, 96 * view + 24 : 96 * view + 72].reshape(-1, 3)
        assert np.abs(middle.mean(0) - colour).max() < 15
    brightness = overlaid.astype(float).sum(2)
    inside = brightness[24:40, 2 * 96 + 36 : 2 * 96 + 60].mean()
    outside = brightness[:, :192].mean()
    assert inside > 2 * outside
    html = made.html
    assert "best 1: alpha_best.mp4" in html
    assert "Eye Distortions 0.75; Hair Distortions 0.50" in html
    assert "quality 95.0 (excellent), authenticity 93.0 (excellent)" in html


def cards_of(rows: list[ScoreRow], folder: Path, budget: int = 1_000_000) -> list[Card]:
    """A card for each row, made from a table in that folder."""
    chosen = [Chosen("all", tuple(("best 1", each) for each in rows))]
    (gallery,) = galleries(chosen, {each.file: "g" for each in rows}, folder, budget)
    return list(gallery.cards)


def test_scores_beyond_the_scale_are_shown_at_its_end_with_their_flag(tmp_path: Path):
    """A generator whose clip got 178.56, above one at 60. Catches a page that says 178.56 of 100, a
    difference that is larger than the scale, an unusual clip that leads without a word, and raw
    scores that are lost to the CSV files.
    """
    wild = row("clips/wild_1.mp4", 80.0, notes=("a note",), content="0" * 64)
    ratings = {n: dataclasses.replace(r, score=178.56) for n, r in wild.ratings.items()}
    wild = dataclasses.replace(wild, ratings=ratings, outside_training=("quality",))
    rows = [wild, dataclasses.replace(wild, file="clips/wild_2.mp4", outside_training=(), notes=())]
    rows += [row(f"clips/tame_{i}.mp4", 60.0) for i in range(2)]
    rows = [dataclasses.replace(each, views=(0.5, 0.0, 1.0)) for each in rows]
    table = write_table(tmp_path / "scores.csv", rows)
    files = write_comparison(table, tmp_path / "report.html", "{generator}_*")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = re.sub(r'data-order="[^"]*"|data:image[^"]*', "", html)
    assert "178.5" not in text
    page = ReadPage(html)
    assert not page.faults
    means = {cells[0]: cells[1:] for cells in page.tables[0]}
    assert means["wild"][:4] == ["2", "0", f"1 {FLAG}", "100.0"]
    assert means["wild"][4] == "100.0 to 100.0"
    assert means["wild"][6] == "1"
    assert means["tame"][2] == "0"
    matrix = next(t for t in page.tables if t[0][0] == "row less column")
    assert matrix[1][0] == "wild"
    assert matrix[1][2].startswith("+40.0")
    assert f"quality 100.0 {FLAG} (excellent), authenticity 100.0" in page.text
    assert page.text.count("flagged: the raw score of quality") >= 2  # card, and list of files
    assert "Note: a note." in page.text
    assert "1 video with a flag" in page.text
    assert "1 video with notes" in page.text
    assert "views at 0.5, 0, 1 of a clip" in page.text
    written = {r["generator"]: r for r in rows_of(files / "tables" / "means.csv")}
    assert (float(written["wild"]["quality_mean"]), written["wild"]["flagged"]) == (178.56, "1")
    differences = rows_of(files / "tables" / "differences_quality.csv")
    assert float(differences[0]["difference"]) == pytest.approx(118.56)


def test_cards_show_the_views_that_were_scored(tmp_path: Path):
    """Of a table whose views were taken elsewhere. Catches the usual places beside other maps."""
    content = write_views(tmp_path / "x.mp4")
    each = row("x.mp4", 50.0, content=content, views=(1.0, 0.0, 0.5))
    (card,) = cards_of([each], tmp_path)
    with Image.open(io.BytesIO(card.thumbnails[0].jpeg)) as image:
        pixels = np.asarray(image.convert("RGB"))
    for view, colour in enumerate((BLUE, RED, GREEN)):
        middle = pixels[16:48, 96 * view + 24 : 96 * view + 72].reshape(-1, 3)
        assert np.abs(middle.mean(0) - colour).max() < 15


def test_a_clip_that_is_gone_or_changed_is_told_in_its_place(tmp_path: Path):
    """Not there, another content, no clip at all, a map that is gone, of another size, no picture,
    or outside the table's folder. Catches a page that dies, and pictures of another video.
    """
    content = write_views(tmp_path / "table" / "good.mp4")
    (tmp_path / "table" / "broken.mp4").write_bytes(b"no clip")
    write_map(tmp_path / "outside.png")
    Image.new("L", (300, 300)).save(tmp_path / "table" / "square.png")
    cases = [
        (row("absent.mp4", 90.0), 0, "No pictures: the clip is not there any more"),
        (row("good.mp4", 80.0, content="0" * 64), 0, "No pictures: the file has another content"),
        (row("broken.mp4", 70.0), 0, "No pictures: "),
        (row("./good.mp4", 60.0, content=content, map="gone.png"), 1, "it is not there any more"),
        (row("././good.mp4", 50.0, map="../outside.png"), 1, "its path leaves the folder"),
        (row("./././good.mp4", 40.0, map="square.png"), 1, "its 300 x 300 px do not fit"),
        (row("../table/good.mp4", 30.0, map="broken.mp4"), 1, "cannot be read as a picture"),
    ]
    cards = cards_of([each for each, _, _ in cases], tmp_path / "table")
    for card, (_, count, told) in zip(cards, cases, strict=True):
        (sentence,) = card.absent
        assert told in sentence
        assert len(card.thumbnails) == count


def test_paths_are_looked_for_from_here_and_from_the_table(tmp_path: Path, monkeypatch):
    """The page is often made in another folder than the scores, and pictures of three views are
    scored too. Catches thumbnails that vanish.
    """
    content = write_views(tmp_path / "clips" / "x.mp4")
    Image.new("RGB", (300, 100)).save(tmp_path / "clips" / "strip.png")
    of_strip = file_hash(tmp_path / "clips" / "strip.png")
    rows = [
        row("clips/x.mp4", 50.0, content=content),
        row("clips/strip.png", 50.0, content=of_strip),
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [len(card.thumbnails) for card in cards_of(rows, tmp_path)] == [1, 1]
    monkeypatch.chdir(tmp_path)
    assert [len(card.thumbnails) for card in cards_of(rows, tmp_path / "elsewhere")] == [1, 1]


def test_a_table_from_elsewhere_shows_no_picture_of_this_machine(tmp_path: Path):
    """Named by an absolute path, by "..", and through a link in the table's folder; with a hash
    that its maker cannot know, or with none. Catches a private picture on a page that is published.
    """
    private = tmp_path / "private.png"
    Image.new("RGB", (300, 100)).save(private)
    table = tmp_path / "table"
    table.mkdir()
    (table / "link.png").symlink_to(private)
    named = [str(private), "../private.png", "link.png"]
    rows = [row(name, 50.0 - at) for at, name in enumerate(named)]
    rows += [row(f"./{name}", 40.0 - at, content="0" * 64) for at, name in enumerate(named[1:])]
    cards = cards_of(rows, table)
    assert [len(card.thumbnails) for card in cards] == [0] * 5
    assert all(card.absent for card in cards)


def test_a_clip_that_is_replaced_while_the_page_is_made_is_not_shown(tmp_path: Path, monkeypatch):
    """Between the comparison of its content and its decoding. Catches other pictures under the
    scores of a clip.
    """
    content = write_views(tmp_path / "x.mp4")
    decode = examples._decoded

    def replaced(path: Path, at: object):
        Image.new("RGB", (300, 100)).save(tmp_path / "new.png")
        os.replace(tmp_path / "new.png", tmp_path / "x.mp4")
        return decode(tmp_path / "x.mp4", at)

    monkeypatch.setattr(examples, "is_picture", lambda path: True)
    monkeypatch.setattr(examples, "_decoded", replaced)
    (card,) = cards_of([row("x.mp4", 50.0, content=content)], tmp_path)
    assert card.thumbnails == ()
    assert card.absent[0].startswith("No pictures:")


def test_a_page_of_two_thousand_keeps_within_five_megabytes(tmp_path: Path):
    """Ten generators with long names, 200 rows each and as many failed, and clips that compress
    badly. Catches a page that grows with the table, and one without pictures.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    write_clip(tmp_path / "noise.mp4", [coarse.repeat(4, 0).repeat(4, 1)] * 4, fps=4)
    write_saliency_png(tmp_path / "noise.png", rng.random((240, 960)).astype(np.float32))
    rows = []
    for generator in range(10):
        name = f"{'<long name>' * 12}{generator}"
        rows += [
            row(f"./{at}/../{name}/../noise.mp4", float(score), map="noise.png")
            for at, score in enumerate(rng.uniform(5, 99, 200))
        ]
        rows += [failed(f"{at}/{name}/{'x' * 200}.mp4", "empty") for at in range(200)]
    table = tmp_path / "scores.jsonl"
    with table.open("wb") as file:
        for each in rows:
            append_row(file, each)
    for folder in {Path(each.file).parent for each in rows}:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write_comparison(table, tmp_path / "report.html", "{generator}/../noise.mp4")
    page = (tmp_path / "report.html").read_bytes()
    assert len(page) <= LARGEST_PAGE == 5_000_000
    assert len(pictures(page.decode("utf-8"))) == 2 * (4 * 3 + 10 * 4)
    assert "... and 1800 more" in page.decode("utf-8")


def test_pictures_become_smaller_and_then_give_way(tmp_path: Path):
    """With room for all, for less, and for none. Catches pictures that are cut off, and a card that
    does not say why it has none.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    write_clip(tmp_path / "a.mp4", [noise] * 4, fps=4)
    sizes = []
    for budget in (1_000_000, 50_000, 20_000, 5_000):
        (card,) = cards_of([row("a.mp4", 50.0)], tmp_path, budget)
        sizes.append(sum(len(thumbnail.jpeg) for thumbnail in card.thumbnails))
        assert sizes[-1] * 4 / 3 <= budget
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 0
    assert card.absent == ("No pictures: the page would become larger than 5 MB.",)


def test_the_same_table_gives_the_same_page(made: Made, tmp_path: Path):
    """From the JSONL file too, which has the same rows. Catches a date, and figures that hang on
    chance.
    """
    page = tmp_path / "report.html"
    words = ["--group_by={generator}_*", "--out", str(page)]
    assert main(["report", str(made.table.with_suffix(".jsonl")), *words]) == 0
    assert page.read_text(encoding="utf-8").replace(".jsonl", ".csv") == made.html


def test_one_group_is_a_page_too(tmp_path: Path, capsys):
    """All files in one folder, without a pattern; the page lies beside the table by default.
    Catches a test of a group with itself.
    """
    table = write_table(tmp_path / "scores.csv", [row("1.mp4", 50.0), row("2.mp4", 60.0)])
    assert main(["report", str(table)]) == 0
    page = ReadPage((tmp_path / "scores.html").read_text(encoding="utf-8"))
    assert "There is one group, so nothing is compared." in page.text
    assert "all videos" in page.text
    assert str(tmp_path / "scores.html") in capsys.readouterr().out


def test_scores_of_two_models_are_warned_of(tmp_path: Path):
    """Tables that somebody put together. Catches a ranking of models for one of generators."""
    first = write_table(tmp_path / "a.csv", [row("a/1.mp4", 50.0)]).with_suffix(".jsonl")
    text = first.read_text(encoding="utf-8")
    other = text.replace("a/1.mp4", "b/1.mp4").replace("0123456789abcdef", "f" * 16)
    (tmp_path / "both.jsonl").write_text(text + other, encoding="utf-8")
    write_comparison(tmp_path / "both.jsonl", tmp_path / "report.html")
    text = ReadPage((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "cannot be compared" in text
    assert "f" * 16 in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("report {table} --method a=b", "--method is for a run"),
        ("report {table} --folds grouped", "--folds is for a run"),
        ("report {table} --allow_missing", "--allow_missing is for a run"),
        ("report {folder} --group-by {generator}/*", "--group_by is for a table of scores"),
        ("report {table} --group-by {generator}-*", "would give 'alpha'"),
        ("report {table} --out {table}", "is the name of a table"),
        ("report {table} --out {folder}", "is a folder"),
        ("report {folder}/absent.csv", "absent.csv"),
        ("report {folder}/other.txt", "expected a table of scores"),
        ("report {folder}/empty.csv", "is missing"),
        ("report {folder}/failed.csv", "none of its 1 rows has scores"),
        ("report {folder}/many.csv --group-by {generator}.mp4", "41 generators"),
        ("report {folder}/half.csv --group-by bad/{generator}", "has scores; see the column"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    made: Made, tmp_path: Path, capsys, words, told
):
    """Catches an option that is passed over, a traceback, and a table that a page replaces."""
    (tmp_path / "other.txt").write_text("x")
    (tmp_path / "empty.csv").touch()
    write_table(tmp_path / "failed.csv", [failed("a.mp4", "empty")])
    write_table(
        tmp_path / "many.csv", [row(f"{at}.mp4", 50.0) for at in range(MOST_GENERATORS + 1)]
    )
    write_table(tmp_path / "half.csv", [row("good/a.mp4", 50.0), failed("bad/a.mp4", "empty")])
    before = made.table.read_bytes()
    files = set(tmp_path.iterdir())
    places = {"table": made.table, "folder": tmp_path, "generator": "{generator}"}
    assert main([word.format(**places) for word in words.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lmme3dhf report: ")
    assert told in error
    assert len(error.splitlines()) == 1
    assert made.table.read_bytes() == before
    assert set(tmp_path.iterdir()) == files


def test_ends_are_the_highest_and_the_lowest_without_a_video_twice():
    """Of five with two at either end the middle one is left out; of three, two and one. Catches a
    video that is best and worst, and ties that change from run to run.
    """
    rows = [row(f"{name}.mp4", score) for name, score in zip("cabed", (3, 5, 5, 1, 2), strict=True)]
    found = [(place, each.file[0]) for place, each in ends(rows, "quality", 2)]
    assert found == [("best 1", "a"), ("best 2", "b"), ("worst 2", "d"), ("worst 1", "e")]
    found = [(place, each.file[0]) for place, each in ends(rows[:3], "quality", 2)]
    assert found == [("best 1", "a"), ("best 2", "b"), ("worst 1", "c")]
    assert [place for place, _ in ends(rows[:1], "quality", 2)] == ["best 1"]
    assert ends([], "quality", 2) == ()


def test_equal_means_share_a_rank():
    """1, 2, 2, 4, and none without a mean. Catches an order of the alphabet that looks earned."""
    means = {
        name: GroupMean(1, mean, mean, mean, mean)
        for name, mean in {"a": 5.0, "b": 7.0, "c": 5.0, "d": 1.0, "e": float("nan")}.items()
    }
    assert ranks(means, Scale()) == {"a": 2, "b": 1, "c": 2, "d": 4, "e": None}


def test_an_interval_does_not_hang_on_the_other_generators():
    """Catches one source of chance for all, which would change a row when another is added."""
    rows = [
        row(f"{name}/{i}.mp4", float(10 * i + len(name))) for name in ("a", "bb") for i in (1, 2, 5)
    ]
    both = compare(rows, None, "t").means["quality"]
    alone = compare([r for r in rows if "bb" in r.file], "{generator}/*", "t").means["quality"]
    assert both["bb"] == alone["bb"]
    assert [g.name for g in grouped(rows, ["a"] * 3 + ["bb"] * 3, {"quality": Scale()})] == [
        "bb",
        "a",
    ]


def test_p_is_never_zero_on_the_page():
    """Catches "p = 0.000"."""
    told = [p_text(p) for p in (1e-9, 0.00099, 0.001, 0.0494, 0.0996, 0.5, 1.0)]
    assert told == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.001",
        "p = 0.049",
        "p = 0.10",
        "p = 0.50",
        "p = 1.00",
    ]


def test_the_comparison_needs_no_torch():
    """In a fresh interpreter, down to FFmpeg. Catches a page that can only be made on the machine
    with the model.
    """
    code = (
        "import sys, lmme3dhf.generators.report\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
