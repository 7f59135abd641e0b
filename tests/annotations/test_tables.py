"""The walk over annotation tables: what both readers (ratings, remarks) refuse, with the place."""

import re

import pytest

from lmme3dhf.annotations import AnnotationError, csv_rows

COLUMNS = ("video", "remark")


def test_rows_come_with_their_line_numbers(tmp_path):
    """Catches a line number that counts records instead of lines, and a byte order mark glued to
    the first column's name.
    """
    table = tmp_path / "remarks.csv"
    table.write_bytes(b'\xef\xbb\xbfvideo,remark\r\na, one \r\n\r\nb,"two\nlines"\r\nc,"x, y"\r\n')
    assert list(csv_rows(table, COLUMNS)) == [
        (2, ("a", "one")),
        (5, ("b", "two\nlines")),
        (6, ("c", "x, y")),
    ]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 1, "header is ''"),
        (b"remark,video\na,b\n", 1, "expected 'video,remark'"),
        (b"video,remark\na,b\na,b,c\n", 3, "3 cells, expected 2"),
        (b'video,remark\na,"b\n', 2, "not a CSV row"),
        (b"video,remark\na,\xff\n", 2, "not UTF-8"),
    ],
)
def test_a_broken_table_is_refused_with_its_place(tmp_path, content, line, reason):
    """Catches a raw csv or Unicode error, or one that does not say which line to repair."""
    table = tmp_path / "remarks.csv"
    table.write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"remarks\.csv:{line}: .*{re.escape(reason)}"):
        list(csv_rows(table, COLUMNS))
