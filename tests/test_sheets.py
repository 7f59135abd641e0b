"""The one reader of tables from outside: what people's programs write is read as what it says, and
what could be two things is refused with the way out.
"""

import csv
import io
import re

import pytest

from lmme3dhf.annotations.fixations import read_points
from lmme3dhf.comparison.methods import read_method
from lmme3dhf.errors import UserError
from lmme3dhf.scores import ScoreRow, read_scores, scores_csv
from lmme3dhf.sheets import read_sheet

HEADER = ("video", "rating")
ROWS = [(2, ("a", "3.5")), (3, ("b, c", "-0.25"))]
PLAIN = 'video,rating\na,3.5\n"b, c",-0.25\n'
GERMAN = "video;rating\na;3,5\nb, c;-0,25\n"


def read(path, **options):
    options.setdefault("fits", lambda header: header == HEADER)
    return read_sheet(path, UserError, **options)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        GERMAN.encode(),
        GERMAN.replace(",", ".").replace("b. c", "b, c").encode(),
        GERMAN.replace(";", "\t").encode(),
        PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
        GERMAN.encode("utf-16"),  # with a mark, as Excel's "Unicode text" has it
        b"\xfe\xff" + GERMAN.encode("utf-16-be"),
        (PLAIN + "\n,\n , \n").encode(),
        (GERMAN + ";\n;\n").encode(),
        b'video,rating,,\na,3.5,,\n"b, c",-0.25,,\n,,,\n',
        b"video;rating\na;3,5\nb, c;-0,25;\n",
    ],
)
def test_what_spreadsheets_write_is_the_same_table(tmp_path, content):
    """Separators, decimal commas, encodings, and blank rows and columns at the end. Catches a row
    of nothing, a mark in a name, and 3,5 read as two cells or as 35.
    """
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert read(path) == (HEADER, ROWS)


def test_the_separator_that_excel_names_is_taken(tmp_path):
    """And the lines count on. Catches a first line that is taken for the header."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"sep=;\r\n" + GERMAN.replace("\n", "\r\n").encode())
    assert read(path) == (HEADER, [(line + 1, cells) for line, cells in ROWS])


def test_a_comma_stays_where_commas_separate(tmp_path):
    """`"3,5"` in quotes may be 3.5 or a list. Catches a number that is guessed."""
    path = tmp_path / "t.csv"
    path.write_text('video,rating\na,"3,5"\n')
    assert read(path).rows == [(2, ("a", "3,5"))]
    path.write_text("video;rating\na;1.234,5\n")
    assert read(path).rows == [(2, ("a", "1.234,5"))]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"video,rating\na,3,5\n", ":2: 3 cells, expected 2 .*decimals with a point"),
        (PLAIN.encode("utf-16-le"), ":1: not UTF-8 .*save the table as UTF-8"),
        ("video,rating\nJ\xf6rg,3\n".encode("latin-1"), ":2: not UTF-8 .*save the table as UTF-8"),
        (b"PK\x03\x04\0\0", "save the table as CSV"),
        (b"video|rating\na|3\n", r":1: header is 'video\|rating'; mend it"),
        (b'video,rating\na,"3\n', ":2: not a CSV row"),
        (b"", ":1: header is ''; mend it"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_way_out(tmp_path, content, said):
    """Catches a traceback, and a table that is read by guessing."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}.*{said}"):
        read(path, advice=lambda header: "mend it")


def test_points_predictions_and_scores_are_read_so_too(tmp_path):
    """Saved by a spreadsheet with semicolons, in UTF-16, with blank rows. Catches a table that has
    a reader of its own.
    """
    path = tmp_path / "t.csv"
    path.write_bytes("marker;video;x;y\nann;a;1,5;2\n;;;\n".encode("utf-16"))
    assert read_points(path) == {"a": {"ann": [(1.5, 2.0)]}}
    path.write_bytes("Video;Quality\nclips/a.mp4;51,25\n;\n".encode("utf-16"))
    assert read_method("M", path, ["a"]).scores == {"quality": {"a": 51.25}}
    row = ScoreRow(
        file="a.mp4",
        status="ok",
        quality=51.25,
        authenticity=-0.5,
        quality_probabilities={"good": 0.75, "fair": 0.25},
        distortions=("Eye Distortions", "Hair Distortions"),
    )
    cells = list(csv.reader(io.StringIO(scores_csv([row]).decode(), newline="")))
    shown = [c.replace(".", ",") if re.fullmatch(r"-?\d+\.\d+", c) else c for c in cells[1]]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=";").writerows([cells[0], shown, [""] * len(shown)])
    path.write_bytes(stream.getvalue().encode("utf-16"))
    assert read_scores(path) == [row]
