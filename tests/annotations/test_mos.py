"""Opinion scores (Eq. 1-3): hand-worked values, the golden simulation, left-out subjects and
refused tables.
"""

import re

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.mos import Ratings, mean_opinion_scores, read_ratings


def _ratings(rating_SV):
    rating_SV = np.array(rating_SV, dtype=float)
    subjects = tuple(f"s{index}" for index in range(rating_SV.shape[0]))
    return Ratings(
        "quality", subjects, tuple(f"v{index}" for index in range(rating_SV.shape[1])), rating_SV
    )


def test_scores_worked_by_hand():
    """By hand: s0 rates 1, 2, 3 (mean 2, sample deviation 1: z -1, 0, 1), s1 rates 4, none, 2 (mean
    3, deviation sqrt 2:
    z .7071, none, -.7071), z' = 100 (z + 3) / 6. Catches ddof 0, a mean over all subjects, and
    missing ratings taken as 0."""
    scores = mean_opinion_scores(_ratings([[1, 2, 3], [4, np.nan, 2]]))
    scaled = np.array(
        [
            [100 * 2 / 6, 50.0, 100 * 4 / 6],
            [100 * (3 + 0.5**0.5) / 6, np.nan, 100 * (3 - 0.5**0.5) / 6],
        ]
    )
    assert scores.mos_V == pytest.approx([scaled[:, 0].mean(), 50.0, scaled[:, 2].mean()])
    apart = abs(scaled[0] - scaled[1]) / 2**0.5  # sample deviation of two values
    assert scores.std_V == pytest.approx([apart[0], np.nan, apart[2]], nan_ok=True)
    assert scores.count_V.tolist() == [2, 1, 2]
    assert scores.left_out == {}


@pytest.mark.parametrize(
    ("subjects", "spoiler", "period", "rating_sum", "first"),
    [
        # Case M2 of a comparison with public reference implementations: nobody is rejected there.
        # The scores were computed once outside of this project, to eight digits.
        (24, 3.0, 8, 4813.43, [51.97435587, 64.49276853, 71.6752251, 69.05000103, 56.04400487]),
        # Case M6, where screening with the sample deviation rejects nobody either.
        (21, 0.6, 5, 4235.16, [51.53145085, 64.35157073, 71.94362869, 69.17401634, 57.41849089]),
    ],
)
def test_scores_of_a_simulated_panel(subjects, spoiler, period, rating_sum, first):
    """Golden values of cases M2 and M6. Catches another order of standardising and averaging, or
    another scale.
    """
    i, j = np.arange(subjects)[:, None], np.arange(80)
    rating_SV = (
        2.5
        + 1.2 * np.sin(0.7 * j)
        + 0.2 * np.cos(1.3 * i)
        + 0.30 * np.sin(12.9898 * (i + 1) * (j + 1) + 0.5 * j)
    )
    rating_SV[-1] += spoiler * ((j % period == 0).astype(float) - (j % period == period // 2))
    rating_SV = np.round(100 * rating_SV) / 100
    assert rating_SV.sum() == pytest.approx(rating_sum, abs=1e-6)
    scores = mean_opinion_scores(_ratings(rating_SV))
    assert scores.mos_V[:5] == pytest.approx(first, abs=1e-8)
    assert (scores.count_V == subjects).all()


def test_scores_do_not_change_with_a_subjects_bias_and_scale():
    """Standardising removes a subject's offset and gain. Catches a pooled mean or deviation (the
    sigma_I of the print).
    """
    rng = np.random.default_rng(0)
    rating_SV = rng.uniform(0, 5, (5, 30))
    moved_SV = rating_SV * rng.uniform(0.1, 0.5, (5, 1)) + rng.uniform(0, 2, (5, 1))
    assert mean_opinion_scores(_ratings(moved_SV)).mos_V == pytest.approx(
        mean_opinion_scores(_ratings(rating_SV)).mos_V
    )


def test_subjects_without_spread_are_left_out_and_named():
    """Catches a division by zero (3.3 three times has a deviation of 4e-16, not 0) and a silent
    loss of a subject.
    """
    nan = np.nan
    scores = mean_opinion_scores(
        _ratings([[1, 2, 3], [3.3, 3.3, 3.3], [nan, 5, nan], [nan, nan, nan]])
    )
    assert scores.mos_V == pytest.approx([100 * 2 / 6, 50, 100 * 4 / 6])
    assert list(scores.left_out) == ["s1", "s2", "s3"]
    assert "the same rating, 3.3" in scores.left_out["s1"]
    assert "rated 1 of 3 videos" in scores.left_out["s2"]
    assert "rated 0 of 3 videos" in scores.left_out["s3"]
    assert np.isnan(scores.std_V).all()


def test_a_video_without_rating_is_an_error():
    """Catches a NaN score that would travel into the labels, also where only a left-out subject
    rated the video.
    """
    with pytest.raises(
        AnnotationError, match=r"1 of 3 videos have no rating that counts, first v2"
    ):
        mean_opinion_scores(_ratings([[1, 2, np.nan], [np.nan, np.nan, 4]]))
    with pytest.raises(AnnotationError, match=r"2 of 2 videos"):
        mean_opinion_scores(_ratings([[2, 2]]))


def test_table_of_the_wrong_shape_is_refused():
    """Catches a transposed table, which would standardise over subjects instead of videos."""
    with pytest.raises(AnnotationError, match=r"\(2, 1\), expected \(1, 2\)"):
        Ratings("quality", ("s0",), ("v0", "v1"), np.zeros((2, 1)))


def test_the_long_table_is_read(tmp_path):
    """Catches mixed-up dimensions, rows taken for columns, and dependence on the rows' order."""
    table = tmp_path / "ratings.csv"
    table.write_text(
        "subject,video,dimension,rating\n"
        "s2,seed0001,quality,5\ns1,seed0001,quality,1.5\ns1,seed0000,quality,0\ns1,seed0007,authenticity,2.25\n"
    )
    ratings = read_ratings(table)
    assert list(ratings) == ["quality", "authenticity"]
    quality = ratings["quality"]
    assert (quality.subjects, quality.videos) == (("s1", "s2"), ("seed0000", "seed0001"))
    np.testing.assert_array_equal(quality.rating_SV, [[0, 1.5], [np.nan, 5]])
    assert (ratings["authenticity"].subjects, ratings["authenticity"].videos) == (
        ("s1",),
        ("seed0007",),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("s1,a,beauty,3", "dimension 'beauty' is not one of quality, authenticity"),
        ("s1,a,quality,good", "rating 'good' is not a number"),
        ("s1,a,quality,", "rating '' is not a number"),
        ("s1,a,quality,nan", "rating 'nan' is not a number"),
        ("s1,a,quality,inf", "rating 'inf' is not a number"),
        ("s1,a,quality,5.01", "outside the slider's 0..5"),
        ("s1,a,quality,-0.1", "outside the slider's 0..5"),
        (",a,quality,3", "subject or video is empty"),
        ("s0,a,quality,3", "subject 's0' has already rated the quality of 'a'"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(tmp_path, row, reason):
    """Catches a row that is skipped, repaired by guessing, or refused without its line."""
    table = tmp_path / "ratings.csv"
    table.write_text(f"subject,video,dimension,rating\ns0,a,quality,1\n{row}\n")
    with pytest.raises(AnnotationError, match=rf"ratings\.csv:3: .*{re.escape(reason)}"):
        read_ratings(table)


def test_a_table_without_rows_is_refused(tmp_path):
    """Catches an empty set of labels that would only fail much later."""
    table = tmp_path / "ratings.csv"
    table.write_text("subject,video,dimension,rating\n")
    with pytest.raises(AnnotationError, match="no ratings below the header"):
        read_ratings(table)
