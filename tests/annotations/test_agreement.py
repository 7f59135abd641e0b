"""Agreement between raters: Shrout and Fleiss's published table, halves of panels worked by hand,
and gaps.
"""

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.agreement import intraclass_correlation, spearman_brown, split_half
from lmme3dhf.annotations.ratings import Ratings

NAN = float("nan")
# Shrout and Fleiss (1979), Table 2: six targets by four judges, and the values of their Table 4.
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def panel(rating_SV):
    rating_SV = np.array(rating_SV, dtype=float)
    return Ratings(
        "quality",
        tuple(f"s{index}" for index in range(len(rating_SV))),
        tuple(f"v{index}" for index in range(rating_SV.shape[1])),
        rating_SV,
    )


def noisy_panel(subjects, videos, noise, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(2.5, 1, videos) + rng.normal(0, noise, (subjects, videos))


def test_intraclass_correlation_of_the_published_table():
    """ICC(2,1) = .29 and ICC(2,k) = .62 as printed; to more digits from the printed mean squares
    11.24, 32.49 and 1.02. Catches videos taken for subjects, and the models 1 and 3 (.17 and .71).
    """
    found = intraclass_correlation(panel(np.transpose(SHROUT_FLEISS)))
    assert (round(found.single, 2), round(found.average, 2)) == (0.29, 0.62)
    between, judges, error = 11.24, 32.49, 1.02
    assert found.single == pytest.approx(
        (between - error) / (between + 3 * error + 4 * (judges - error) / 6), abs=2e-3
    )
    assert found.average == pytest.approx(
        (between - error) / (between + (judges - error) / 6), abs=2e-3
    )
    assert (found.subjects, found.videos, found.incomplete, found.left_out) == (4, 6, 0, ())


def test_intraclass_correlation_with_gaps():
    """Two more videos that somebody has not rated, and a subject who rated none: the published
    values again, and both are counted. Catches gaps filled with 0 or a mean, and a silent loss.
    """
    rating_SV = np.vstack([np.transpose(SHROUT_FLEISS).astype(float), np.full(6, NAN)])
    gaps_SV = np.full((5, 2), 3.0)
    gaps_SV[1:, 0] = gaps_SV[4, 1] = gaps_SV[0, 1] = NAN
    found = intraclass_correlation(panel(np.hstack([gaps_SV, rating_SV])))
    assert (round(found.single, 2), round(found.average, 2)) == (0.29, 0.62)
    assert (found.subjects, found.videos, found.incomplete) == (4, 6, 2)
    assert found.left_out == ("s4",)


def test_intraclass_correlation_at_its_ends():
    """Perfect agreement is 1; a bias of one subject lowers it (absolute agreement), by hand: 1, 2,
    3 and 2, 3, 4 have mean squares 2, 1.5 and 0, so 2 / (2 + 2 * 1.5 / 3) and 2 / (2 + 1.5 / 3).
    Ratings that are all alike have none. Catches model 3, which ignores biases.
    """
    same = intraclass_correlation(panel([[1, 2, 3]] * 2))
    assert (same.single, same.average) == (1, 1)
    biased = intraclass_correlation(panel([[1, 2, 3], [2, 3, 4]]))
    assert (biased.single, biased.average) == pytest.approx((2 / 3, 0.8))
    flat = intraclass_correlation(panel([[3.3, 3.3, 3.3]] * 2))
    assert np.isnan([flat.single, flat.average]).all()


def test_intraclass_correlation_needs_common_videos():
    """Catches a figure of a single video or subject."""
    with pytest.raises(AnnotationError, match=r"2 subjects rated anything, and 1 of 3 videos"):
        intraclass_correlation(panel([[1, 2, NAN], [NAN, 2, 3]]))
    with pytest.raises(AnnotationError, match="1 subjects rated anything"):
        intraclass_correlation(panel([[1, 2, 3], [NAN] * 3]))


def test_split_half_of_two_subjects_is_their_correlation():
    """By hand: 1, 2, 3, 4 and 2, 1, 3, 4 have rho 1 - 6 * 2 / (4 * 15) = .8 in every split, and
    2 * .8 / 1.8 for both together. Catches halves that share a subject (rho 1).
    """
    found = split_half(panel([[1, 2, 3, 4], [2, 1, 3, 4]]), np.random.default_rng(0), splits=5)
    assert found.srcc_H == pytest.approx([0.8] * 5)
    assert (found.mean, found.low, found.median, found.high) == pytest.approx([0.8] * 4)
    assert found.std == pytest.approx(0)
    assert found.spearman_brown == pytest.approx(1.6 / 1.8)
    assert (found.half, found.videos, found.left_out) == (1, 4, ())


def test_split_half_foretells_a_panel_of_twice_the_size():
    """Halves of 24 agree as the classical model says: variance 1 of the videos, 4 of the noise,
    twelve subjects: r = 1 / (1 + 4 / 12) = .75; and the corrected value 1 / (1 + 4 / 24) = .857 is
    how two panels of 24 agree. Catches the correction left out or made twice.
    """
    found = split_half(panel(noisy_panel(24, 2000, 2.0)), np.random.default_rng(1))
    assert found.mean == pytest.approx(0.75, abs=0.03)
    assert found.spearman_brown == pytest.approx(6 / 7, abs=0.03)
    assert found.low < found.median < found.high
    assert 0 < found.std < 0.05
    two = split_half(panel(noisy_panel(48, 2000, 2.0)), np.random.default_rng(1), splits=20)
    assert two.mean == pytest.approx(found.spearman_brown, abs=0.02)


def test_split_half_comes_from_the_generator():
    """Catches chance that is not passed in."""
    ratings = panel(noisy_panel(9, 40, 1.0))
    first, again, other = (
        split_half(ratings, np.random.default_rng(seed), splits=20) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.srcc_H, again.srcc_H)
    assert not np.array_equal(first.srcc_H, other.srcc_H)
    assert first.half == 4  # of nine, one stands aside


def test_split_half_with_gaps_and_useless_subjects():
    """Biases and gains do not matter, a constant subject and one with a single rating are in no
    half, and only common videos count. Catches gaps as 0, which would order videos by their number
    of raters.
    """
    rating_SV = noisy_panel(12, 300, 0.3)
    rng = np.random.default_rng(2)
    gaps_SV = rating_SV * rng.uniform(0.5, 2, (12, 1)) + rng.normal(0, 3, (12, 1))
    gaps_SV[rng.random(gaps_SV.shape) < 0.7] = NAN
    single = np.full(300, NAN)
    single[0] = 1
    gaps_SV = np.vstack([gaps_SV, np.full(300, 2.0), single])
    found = split_half(panel(gaps_SV), np.random.default_rng(0), splits=50)
    assert found.left_out == ("s12", "s13")
    assert found.half == 6
    # A half rates a video with probability 1 - .7^6 = .882, both with its square, .779.
    assert found.videos == pytest.approx(300 * 0.779, abs=12)
    assert found.mean > 0.85


def test_split_half_of_a_useless_panel_is_refused():
    """Catches NaN that travels into a report, and an error without a count."""
    rng = np.random.default_rng(0)
    with pytest.raises(AnnotationError, match="1 of 2 subjects have given different ratings"):
        split_half(panel([[1, 2, 3], [2, 2, 2]]), rng)
    apart = [[1, 2, 3, NAN, NAN], [NAN, NAN, 3, 1, 2]]
    with pytest.raises(AnnotationError, match="have 1 of 5 videos in common"):
        split_half(panel(apart), rng)
    with pytest.raises(ValueError, match="1 splits"):
        split_half(panel([[1, 2, 3], [1, 2, 3]]), rng, splits=1)


def test_spearman_brown_by_hand():
    """Catches the inverse, from a whole panel to its half."""
    assert spearman_brown(0.5) == pytest.approx(2 / 3)
    assert spearman_brown(0) == 0
    assert np.isnan(spearman_brown(-1))
