"""Tables of ratings: both forms, what is refused with its place, and z-scores."""

import re

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.ratings import SLIDER, Ratings, read_origins, read_ratings, z_scores
from lmme3dhf.aspects import GEN3DHF, Aspect, Scale

LONG = "subject,video,dimension,rating\n"
WIDE = "video,dimension,s1,s2\n"


def written(folder, content):
    table = folder / "ratings.csv"
    table.write_text(content)
    return table


def test_the_long_table_is_read(tmp_path):
    """Catches mixed-up dimensions, rows taken for columns, and dependence on the rows' order."""
    ratings = read_ratings(
        written(
            tmp_path,
            LONG + "s2,seed0001,quality,5\ns1,seed0001,quality,1.5\ns1,seed0000,quality,0\n"
            "s1,seed0007,authenticity,2.25\n",
        )
    )
    assert list(ratings) == ["quality", "authenticity"]
    quality = ratings["quality"]
    assert (quality.subjects, quality.videos) == (("s1", "s2"), ("seed0000", "seed0001"))
    np.testing.assert_array_equal(quality.rating_SV, [[0, 1.5], [np.nan, 5]])
    assert (ratings["authenticity"].subjects, ratings["authenticity"].videos) == (
        ("s1",),
        ("seed0007",),
    )


def test_the_wide_table_is_read_as_the_long_one(tmp_path):
    """The same ratings in both forms, as a spreadsheet saves them: byte order mark, blanks, columns
    and rows in another order. Catches columns given to the wrong subject, and a missing rating
    taken as 0.
    """
    long = read_ratings(
        written(
            tmp_path,
            LONG + "ann,b,quality,4\nann,a,quality,1\nbob,a,quality,2\nbob,b,quality,\n"
            "ann,a,authenticity,3\nbob,a,authenticity,5\n",
        )
    )
    table = tmp_path / "wide.csv"
    table.write_bytes(
        b"\xef\xbb\xbfvideo,dimension,bob, ann\r\na,authenticity,5,3\r\nb,quality,,4\r\n"
        b"a,quality, 2 ,1\r\n\r\n"
    )
    wide = read_ratings(table)
    assert list(wide) == list(long) == ["quality", "authenticity"]
    for dimension, ratings in wide.items():
        assert ratings.subjects == long[dimension].subjects == ("ann", "bob")
        assert ratings.videos == long[dimension].videos
        np.testing.assert_array_equal(ratings.rating_SV, long[dimension].rating_SV)
    np.testing.assert_array_equal(wide["quality"].rating_SV, [[1, 4], [2, np.nan]])


NOISE = Aspect(
    name="noise",
    prompt="How noisy?",
    answer_prefix="It is",
    scale=Scale(minimum=1, maximum=5, levels=(), higher_is_better=False),
)


def test_any_aspect_is_read_from_three_forms(tmp_path):
    """The same ratings with the column named "aspect", by the aspects themselves, and by subject.
    Catches Gen3DHF's slider for marks of other experiments, and a mark that is lost.
    """
    both = {"noise": NOISE, "quality": GEN3DHF["quality"]}
    for content in (
        "subject,video,aspect,rating\na,x,noise,2\na,y,noise,5\nb,y,noise,4\nb,x,quality,1\n",
        "subject,video,noise,quality\na,x,2,\na,y,5,\nb,y,4,\nb,x,,1\n",
        "video,aspect,a,b\nx,noise,2,\ny,noise,5,4\nx,quality,,1\n",
    ):
        ratings = read_ratings(written(tmp_path, content), both)
        noise = ratings["noise"]
        np.testing.assert_array_equal(noise.rating_SV, [[2, 5], [np.nan, 4]])
        assert noise.slider == noise.scale == NOISE.scale
        assert ratings["quality"].slider == SLIDER


def test_a_table_of_ratings_may_say_where_clips_come_from(tmp_path):
    """The same ratings with and without the columns. Catches a generator taken for a subject, and a
    clip of two people.
    """
    plain = "video,dimension,a,b\nx,quality,1,2\ny,quality,3,4\n"
    more = "generator,video,dimension,a,identity,b\nG1,x,quality,1,ann,2\nG2,y,quality,3,ben,4\n"
    table = written(tmp_path, plain)
    expected = read_ratings(table)["quality"].rating_SV
    assert read_origins(table) == {}
    table = written(tmp_path, more)
    np.testing.assert_array_equal(read_ratings(table)["quality"].rating_SV, expected)
    assert read_origins(table) == {"x": ("G1", "ann"), "y": ("G2", "ben")}
    table = written(tmp_path, more + "G1,x,authenticity,1,cat,2\n")
    with pytest.raises(AnnotationError, match=r":4: 'x' has G1 and cat here, and G1 and ann"):
        read_origins(table)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([1, 2, 4], (1, 5)),
        ([10, 50, 90], (10, 90)),
        ([-3, 0, 3], (-3, 3)),
        ([1, 2, 3, 4, 5, 55], "outside the slider's 1..5"),
        ([7, 7, 7], "scores need finite numbers that differ"),
        ([70, 80, float("inf")], "scores need finite numbers that differ"),
    ],
)
def test_the_slider_is_the_scale_or_what_the_file_has(tmp_path, marks, expected):
    """Catches marks of 10 to 90 refused for a scale of 1 to 5, and a typing error that stretches
    the slider.
    """
    rows = "".join(f"a,v{number},{mark}\n" for number, mark in enumerate(marks))
    table = written(tmp_path, f"subject,video,noise\n{rows}")
    if isinstance(expected, str):
        with pytest.raises(AnnotationError, match=re.escape(expected)):
            read_ratings(table, {"noise": NOISE})
    else:
        slider = read_ratings(table, {"noise": NOISE})["noise"].slider
        assert (slider.minimum, slider.maximum) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("s1,a,beauty,3", "aspect 'beauty' is not one of quality, authenticity"),
        ("s1,a,quality,good", "rating 'good' is not a number"),
        ("s1,a,quality,nan", "rating 'nan' is not a number; write 3.5"),
        ("s1,a,quality,inf", "rating 'inf' is not a number"),
        ("s1,a,quality,5.01", "outside the slider's 0..5"),
        ("s1,a,quality,-0.1", "outside the slider's 0..5"),
        (",a,quality,3", "subject or video is empty"),
        ("s1,,quality,3", "subject or video is empty"),
        ("s0,a,quality,3", "subject 's0' has already rated the quality of 'a' in line 2"),
        ("s0,a,quality,", "subject 's0' has already rated the quality of 'a' in line 2"),
        ("s1,a,quality", "3 cells, expected 4"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(tmp_path, row, reason):
    """Catches a row that is skipped, repaired by guessing, or refused without its line."""
    table = written(tmp_path, f"{LONG}s0,a,quality,1\n{row}\n")
    with pytest.raises(AnnotationError, match=rf"ratings\.csv:3: .*{re.escape(reason)}"):
        read_ratings(table)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b,beauty,3,4", "aspect 'beauty' is not one of"),
        ("b,quality,3,bad", "rating 'bad' is not a number"),
        ("b,quality,6,3", "rating 6 is outside the slider's 0..5"),
        (",quality,2,3", "subject or video is empty"),
        ("a,quality,2,3", "subject 's1' has already rated the quality of 'a' in line 2"),
        ("b,quality,2", "3 cells, expected 4 (video,dimension,s1,s2)"),
        ("b,quality,2,3,4", "5 cells, expected 4"),
    ],
)
def test_a_bad_row_of_a_wide_table_is_refused_with_its_place(tmp_path, row, reason):
    """Catches a second row of a video that overwrites the first, and cells that move to the next
    subject.
    """
    table = written(tmp_path, f"{WIDE}a,quality,1,\n{row}\n")
    with pytest.raises(AnnotationError, match=rf"ratings\.csv:3: .*{re.escape(reason)}"):
        read_ratings(table)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "video,subject,dimension,rating",
        "video,dimension",
        "video,dimension,rating",  # the long form without its subjects, not a subject "rating"
        "dimension,video,s1",
        "video;s1;s2",
        "video,s1,s2",
    ],
)
def test_an_unknown_header_is_told_both_forms(tmp_path, header):
    """Catches a table that is read by position, and an error that leaves the reader to guess."""
    with pytest.raises(AnnotationError, match=r"ratings\.csv:1: header is") as caught:
        read_ratings(written(tmp_path, f"{header}\na,quality,3\n"))
    assert "'subject,video,dimension,rating'" in str(caught.value)
    assert "'video,dimension,<subject>,<subject>,...'" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("video,dimension,s1,s2,s1", "column 5 is subject 's1' a second time"),
        ("video,dimension,s1,,s2", "column 4 has no name"),
    ],
)
def test_bad_columns_of_a_wide_table_are_refused(tmp_path, header, reason):
    """Catches one subject's ratings overwritten by another column of the same name."""
    with pytest.raises(AnnotationError, match=rf"ratings\.csv:1: {reason}"):
        read_ratings(written(tmp_path, f"{header}\na,quality,1,2,3\n"))


@pytest.mark.parametrize("rows", ["", "s0,a,quality,\n"])
def test_a_table_without_ratings_is_refused(tmp_path, rows):
    """Catches an empty set of labels that would only fail much later."""
    with pytest.raises(AnnotationError, match="no ratings below the header"):
        read_ratings(written(tmp_path, LONG + rows))


def test_what_is_no_table_is_refused(tmp_path):
    """Catches a raw csv or Unicode error from the look at the header."""
    table = tmp_path / "ratings.csv"
    table.write_bytes("video,dimension,J\xf6rg\na,quality,3\n".encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"ratings\.csv:1: not UTF-8"):
        read_ratings(table)
    table.write_text('"' + "x" * 200_000 + '"\n')
    with pytest.raises(AnnotationError, match=r"ratings\.csv:1: not a CSV row"):
        read_ratings(table)
    with pytest.raises(FileNotFoundError):
        read_ratings(tmp_path / "absent.csv")


def test_table_of_the_wrong_shape_is_refused():
    """Catches a transposed table, which would standardise over subjects instead of videos, and an
    empty one.
    """
    with pytest.raises(AnnotationError, match=r"\(2, 1\), expected \(1, 2\)"):
        Ratings("quality", ("s0",), ("v0", "v1"), np.zeros((2, 1)))
    with pytest.raises(AnnotationError, match="at least one of each"):
        Ratings("quality", ("s0",), (), np.zeros((1, 0)))


def test_z_scores_worked_by_hand():
    """By hand: 1, 2, 3 has mean 2 and sample deviation 1; 4, -, 2 mean 3 and deviation sqrt 2.
    Catches ddof 0, a missing rating taken as 0, and a division by a deviation of 0 (3.3 three times
    has a computed one of 4e-16).
    """
    nan, root = np.nan, 0.5**0.5
    rating_SV = np.array([[1, 2, 3], [4, nan, 2], [3.3, 3.3, 3.3], [nan, 5, nan], [nan] * 3])
    expected_SV = [[-1, 0, 1], [root, nan, -root], [nan] * 3, [nan] * 3, [nan] * 3]
    np.testing.assert_allclose(z_scores(rating_SV), expected_SV, atol=1e-15)
