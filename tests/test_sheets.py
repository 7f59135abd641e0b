"""The one reader of tables from outside: what people's programs write is read as what it says, and
what could be two things is refused with the way out.
"""

import csv
import io
import re

import pytest

from lmme3dhf.annotations import other_scale
from lmme3dhf.annotations.fixations import read_points
from lmme3dhf.aspects import GEN3DHF, Scale
from lmme3dhf.comparison.methods import read_method
from lmme3dhf.data.check.kinds import POINTS, RATINGS, REMARKS, kind_of
from lmme3dhf.errors import UserError
from lmme3dhf.scores import read_scores, scores_csv
from lmme3dhf.sheets import read_sheet
from tests.conftest import GEN3DHF_FIELDS, score_row

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


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("subject,video,dimension,rating", RATINGS),
        ("video,dimension,ann,ben", RATINGS),
        ("marker,video,remark", REMARKS),
        ("marker,video,x,y", POINTS),
        ("this,that", None),
    ],
)
def test_a_check_knows_the_table_whatever_wrote_it(tmp_path, header, kind):
    """`lmme3dhf data check` goes by content. Catches a table of ratings that is called a clip, or
    passed over.
    """
    path = tmp_path / "t"
    for separator in ",;\t":
        text = header.replace(",", separator).title() + "\n"
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            path.write_bytes(text.encode(encoding))
            assert kind_of(path, GEN3DHF) == kind


@pytest.mark.parametrize(
    ("values", "maximum", "said"),
    [
        ([20, 60, 80, 100], 5, "0 to 100, divide them by 20"),
        ([2, 6, 8, 9.5], 5, "0 to 10, divide them by 2"),
        ([0, 0.25, 0.5, 0.75, 1], 5, "0 to 1, multiply them by 5"),
        ([20, 600, 800, 900], 5, "convert"),
        ([1, 2, 3, 4, 5], 100, "multiply them by 20, or subtract 1 and multiply by 25"),
        ([0.5, 2, 3, 4, 5], 100, "0 to 5, multiply them by 20"),
        ([1, 2, 3, 4, 9], 100, "0 to 10, multiply them by 10"),
        ([0.1, 0.2, 0.3, 0.4, 0.9], 100, "0 to 1, multiply them by 100"),
        ([1, 2, 3, 4, 5], 5, None),
        ([0.5, 1, 1, 1, 5], 5, None),
        ([4, 5, 1, 2, 3, 2, 1, 4, 5, 50], 5, None),  # a slip of one rater
        ([1, 1, 1, 1, 1], 5, None),
        ([3, 4], 100, None),
        ([5, 20, 30, 40, 50], 100, None),
        ([], 100, None),
    ],
)
def test_another_scale_is_known_by_all_its_values(values, maximum, said):
    """With the conversion, worked by hand. Catches a slip that is taken for a scale, and a scale
    that is taken for slips.
    """
    found = other_scale(values, Scale(maximum=maximum))
    assert (found is None) == (said is None)
    assert said is None or said in found
    if said and "divide" in said:
        assert max(values) / float(said.split()[-1]) <= maximum


def test_points_predictions_and_scores_are_read_so_too(tmp_path):
    """Saved by a spreadsheet with semicolons, in UTF-16, with blank rows. Catches a table that has
    a reader of its own.
    """
    path = tmp_path / "t.csv"
    path.write_bytes("marker;video;x;y\nann;a;1,5;2\n;;;\n".encode("utf-16"))
    assert read_points(path) == {"a": {"ann": [(1.5, 2.0)]}}
    path.write_bytes("Video;Quality\nclips/a.mp4;51,25\n;\n".encode("utf-16"))
    assert read_method("M", path, ["a"]).scores == {"quality": {"a": 51.25}}
    row = score_row(
        file="a.mp4",
        status="ok",
        quality=51.25,
        authenticity=-0.5,
        quality_probabilities={"good": 0.75, "fair": 0.25},
        distortions=("Eye Distortions", "Hair Distortions"),
    )
    cells = list(csv.reader(io.StringIO(scores_csv([row], GEN3DHF_FIELDS).decode(), newline="")))
    shown = [c.replace(".", ",") if re.fullmatch(r"-?\d+\.\d+", c) else c for c in cells[1]]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=";").writerows([cells[0], shown, [""] * len(shown)])
    path.write_bytes(stream.getvalue().encode("utf-16"))
    assert read_scores(path) == [row]
