"""A data set, a table and a run whose names, remarks and answers are hostile, through every command
that writes them down: no page has markup from them, and no cell a formula.
"""

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from lmme3dhf.annotations.descriptions import read_remarks
from lmme3dhf.annotations.ratings import read_ratings
from lmme3dhf.cli import main
from lmme3dhf.comparison.command import write_table
from lmme3dhf.comparison.methods import read_method
from lmme3dhf.models.card import NO_RECORD, write_card
from lmme3dhf.reports.markdown import demo_report
from lmme3dhf.reports.tables import Block, Column, Row, Table
from lmme3dhf.scores import ScoreRow, read_scores, scores_csv
from tests.conftest import DIMENSIONS, GEN3DHF_FIELDS, score_row

FORMULA = '=HYPERLINK("http://x","y")'
IMAGE = "<img src=x onerror=alert(1)>"
# What only text from here holds; no page may have an element or an attribute of it.
NAMES = (
    FORMULA,
    IMAGE,
    "<script>alert(1)</script>",
    "a|b",
    "-dash",
    "+plus",
    "@at",
    "\u202ertl",
    "line\nend",
    "tab\there",
    "$x^$",
    "[link](http://a.b)",
    "`<b>`",
    "</table><h1>x",
    "\\input{x} & 5 % _",
)
VIDEOS = tuple(f"seed{number:04d}" for number in (*range(6), *range(200, 206)))
_OURS = {"p", "h1", "h2", "h3", "ul", "li", "code", "pre", "em", "strong", "a", "img", "hr"}
_OURS |= {"table", "thead", "tbody", "tr", "th", "td", "blockquote"}


class Elements(HTMLParser):
    """What of a page acts: scripts, handlers, addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.acts: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        """Takes a tag."""
        self.tags.add(tag)
        for name, value in attributes:
            fetches = name in ("src", "href", "action", "data")
            local = re.match(r"data:image/|#|[\w./-]+$", value or "")
            if name.startswith("on") or (fetches and not local):
                self.acts.append((name, value))

    def handle_data(self, data):
        """Takes text."""
        self.text += data


def check_files(folder: Path, *expected: str) -> None:
    """Every CSV, Markdown, LaTeX and HTML file below a folder; some of them must be there."""
    seen = []
    for path in sorted(folder.rglob("*")):
        check = _CHECKS.get(path.suffix)
        # The annotators' own tables are copies, byte for byte.
        if check is not None and path.parent.name != "raw":
            check(path.read_bytes().decode("utf-8"), path)
            seen.append(path.name)
    assert set(expected) <= set(seen), seen


def _check_csv(text: str, path: Path) -> None:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(row) for row in rows}) == 1, path
    for cell in (cell for row in rows for cell in row):
        if cell.lstrip()[:1] in ("=", "+", "-", "@") or cell[:1] in ("\t", "\r", "\n"):
            float(cell)


def _check_markdown(text: str, path: Path) -> None:
    assert not re.search(r"<(?!/?(?:u|details|summary)>)", re.sub(r"`[^`\n]*`", "", text)), path
    page = Elements(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    assert page.tags <= _OURS, path
    assert not page.acts, path
    assert _controls(text) == set(), path


def _without_yaml(text: str) -> str:
    """A model card without what the hub reads."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def _check_html(text: str, path: Path) -> None:
    page = Elements(text)
    assert not page.acts, path
    assert "b" not in page.tags, path
    assert text.count("<h1") == 1, path
    assert text.count("<script>") <= 1, path
    assert _controls(text) == set(), path


def _check_tex(text: str, path: Path) -> None:
    assert "\\input" not in text, path
    assert _controls(text) == set(), path


def _controls(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable()} - {"\n", "\xa0", "\t"}


_CHECKS = {".csv": _check_csv, ".md": _check_markdown, ".html": _check_html, ".tex": _check_tex}


def write_raw(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    """As somebody's survey tool writes it: nothing is guarded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def data(tmp_path) -> Path:
    """A data set of annotators with such names and remarks."""
    root = tmp_path / "data"
    (root / "video_RGB").mkdir(parents=True)
    (root / "image").mkdir()
    for video in VIDEOS:
        (root / "video_RGB" / f"{video}.mp4").touch()
        Image.fromarray(np.full((40, 120, 3), 120, np.uint8)).save(root / "image" / f"{video}.png")
    rng = np.random.default_rng(0)
    ratings = [
        (name, video, dimension, round(min(5, at / 3 + 0.2 * rng.random()), 3))
        for name in NAMES
        for dimension in DIMENSIONS
        for at, video in enumerate(VIDEOS)
    ]
    write_raw(tmp_path / "ratings.csv", ("subject", "video", "dimension", "rating"), ratings)
    remarks = [
        (name, video, "eyes are wrong" if at % 2 else NAMES[(at + who) % len(NAMES)])
        for who, name in enumerate(NAMES)
        for at, video in enumerate(VIDEOS)
    ]
    write_raw(tmp_path / "remarks.csv", ("marker", "video", "remark"), remarks)
    points = [(name, VIDEOS[who % 12], 20 + who, 20) for who, name in enumerate(NAMES)]
    write_raw(tmp_path / "marks.csv", ("marker", "video", "x", "y"), points)
    return root


def test_a_data_set_of_strangers(data, tmp_path, capsys):
    """Labels, check and statistics. Catches subjects.csv and remark_readings.csv with formulas, a
    data card with HTML, a picture whose names are formulas of TeX, and names that are read
    otherwise than they are written.
    """
    sources = [f"--{name}={tmp_path / f'{name}.csv'}" for name in ("ratings", "remarks", "marks")]
    folders = ["--videos", str(data / "video_RGB"), "--out", str(data)]
    strips = ["--strips", str(data / "image"), "--val_share", "0", "--eval_share", "0.3"]
    status = main(["data", "labels", *sources, *folders, *strips])
    said = capsys.readouterr().out
    assert status in (0, 3)  # some remarks fit no category
    assert _controls(said) == set()
    check_files(data, "data_card.md", "subjects.csv", "remark_readings.csv")
    card = (data / "data_card.md").read_text(encoding="utf-8")
    assert "=HYPERLINK" in Elements(MarkdownIt().enable("table").render(card)).text
    assert IMAGE in Elements(MarkdownIt().enable("table").render(card)).text

    main(["data", "check", str(data), "--decode", "none"])
    assert main(["data", "stats", str(data), "--out", str(tmp_path / "stats")]) == 0
    check_files(tmp_path / "stats", "stats.md", "raters.csv", "raters_between.csv", "markers.csv")
    # Our own reader finds the names again.
    known = {name.strip() for name in NAMES}
    (subjects,) = {ratings.subjects for ratings in read_ratings(data / "raw/ratings.csv").values()}
    assert set(subjects) == known
    assert {m for found in read_remarks(data / "raw/remarks.csv").values() for m in found} == known


def test_a_guarded_table_of_ratings_is_read_as_it_was_meant(tmp_path):
    """As a spreadsheet keeps it, or our own writer makes it. Catches a subject who is another in a
    copy of the table.
    """
    rows = [(f"'{FORMULA}", "seed0000", "quality", 1), ("'s Gravenhage", "seed0000", "quality", 2)]
    write_raw(tmp_path / "ratings.csv", ("subject", "video", "dimension", "rating"), rows)
    subjects = read_ratings(tmp_path / "ratings.csv")["quality"].subjects
    assert subjects == ("'s Gravenhage", FORMULA)


def row(file: str, **fields) -> ScoreRow:
    """A scored file."""
    scores = {"quality": 50.0, "authenticity": -3.2, "distortions": ()}
    return score_row(file=file, status="ok", model="0" * 16, **{**scores, **fields})


def failed(file: str) -> ScoreRow:
    """A file without scores, whose message repeats its name."""
    return ScoreRow(file=file, status="failed", reason="not_a_video", message=f"{file} is no video")


def test_a_table_of_scores_of_strangers(tmp_path, capsys):
    """Scores and failures of such names, their page, and the table as somebody's predictions.
    Catches a name that acts on the page, and one that comes back from the CSV otherwise.
    """
    names = [name.replace("/", "_").replace("\\", "_") for name in NAMES]
    rows = [row(f"clips/{name}/{n}{name}") for name in names for n in range(2)]
    rows += [failed(f"clips/{name}/x") for name in names] + [row(FORMULA)]
    table = tmp_path / "scores.csv"
    table.write_bytes(scores_csv(rows, GEN3DHF_FIELDS))
    _check_csv(table.read_text(encoding="utf-8"), table)
    assert read_scores(table) == rows
    assert main(["report", str(table), "--out", str(tmp_path / "page" / "report.html")]) == 0
    check_files(tmp_path / "page", "report.html", "means.csv", "failures.csv")
    known = {Path(r.file).name for r in rows}
    assert set(read_method("m", table, known).scores["quality"]) <= known


@pytest.mark.parametrize("write", [write_table])
def test_a_comparison_with_the_methods_of_strangers(write: Callable, tmp_path):
    """In all four formats of a table. Catches a name, a note or a cell that is markup somewhere."""
    rows = tuple(
        Row(name=name, status=name, cells={"score": 1.5, "text": name}, notes=(name,))
        for name in NAMES
    )
    columns = (Column(key="score", title="score"), Column(key="text", title="text", higher=None))
    blocks = (Block(title=IMAGE, columns=columns, rows=rows),)
    write(Table(name="table1", title=IMAGE, blocks=blocks, notes=NAMES), tmp_path)
    check_files(tmp_path, "table1.md", "table1.csv", "table1.tex")


def test_a_model_card_of_a_stranger(tmp_path):
    """Whose card.json says what it likes. Catches HTML and links on the page that is published, and
    settings that end their block.
    """
    (tmp_path / "config.json").write_text("{}")
    evil = f"{IMAGE} | [x](http://a.b)"
    entry = {
        "stage": evil,
        "settings": {"data": f"a\n~~~~\n{evil}\n~~~~~~~~\n{evil}", evil: evil},
        "settings_sha256": f"`{evil}",
        "data": {
            "name": evil,
            "synthetic": False,
            "lists": [evil],
            "questions": evil,
            "videos": evil,
            "faces": evil,
            "split": {"sha256": f"`{evil}", "parts": {evil: evil}},
        },
        "versions": {evil: evil},
        "hardware": {"device": evil, "processes": 1},
        "merge": None,
    }
    test = {
        "data": evil,
        "synthetic": False,
        "part": evil,
        "videos": 7,
        "faces": evil,
        "faces_in_training": evil,
        "protocol": evil,
        "split_sha256": evil,
        "decoders": [evil],
        "predictions_sha256": f"`{evil}",
        "figures": {},
    }
    base = {"name": evil, "hub": True, "license": evil}
    record = NO_RECORD | {"base": base, "stages": [entry], "tests": [test]}
    write_card(tmp_path, record)
    text = _without_yaml((tmp_path / "README.md").read_text(encoding="utf-8"))
    settings = text.index("<details>")
    _check_markdown(text[:settings] + text[text.index("</details>") :], tmp_path)
    page = Elements(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    assert not page.acts
    assert "img" not in page.tags


def test_clips_of_strangers_on_the_page_of_the_demo():
    """Catches a name that cuts its row, or acts."""
    numbers = dict.fromkeys(("srcc", "plcc", "krcc", "ceiling", "accuracy", "majority"), 0.5)
    saliency = ("cc", "auc", "sim", "kld", "nss", "mean_map_cc", "mean_map_auc", "n", "skipped")
    summary = {
        **dict.fromkeys((*DIMENSIONS, "level", "distortion"), numbers),
        "saliency": dict.fromkeys(saliency, 1),
        "test": {"train_videos": 1, "videos": 1, "latents": 1},
        "seconds": 1.0,
        "peak_rss_mb": 1.0,
    }
    pictures = dict.fromkeys(("scatter", "recall", "losses", "saliency"), "a.png")
    clips = [
        {
            "file": name,
            "quality": "1.000",
            "authenticity": "-1.000",
            "distortions": "",
            "reason": "",
        }
        for name in NAMES
    ]
    page = demo_report(summary, pictures, clips)
    _check_markdown(page, Path("report.md"))
    assert IMAGE in Elements(MarkdownIt().enable("table").render(page)).text
