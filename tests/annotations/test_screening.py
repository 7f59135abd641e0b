"""Observer screening: BT.500's counts and rejections, P.913's correlation, by hand and against the
golden panels.
"""

import numpy as np
import pytest

from lmme3dhf.annotations.screening import (
    SCREENINGS,
    correlation_with_others,
    correlations,
    far_scores,
    shares,
)
from scripts.compare_sureal import FORMULA_PANELS, formula_panel

NAN = float("nan")


def rejected(screening, rating_SV, ddof=1, limit=0.75):
    found = SCREENINGS[screening](np.array(rating_SV, dtype=float), ddof=ddof, limit=limit)
    return [subject for subject, reason in enumerate(found.reason_S) if reason is not None]


@pytest.mark.parametrize(
    ("outlier", "ddof", "far"),
    [
        # Mean .3, squares 14.1, S 1.252 (ddof 1), kurtosis 3.14: 2.7 is more than 2 S = 2.50.
        (3.0, 1, 1),
        # Mean .25, squares 11.625, kurtosis 2.51: 2.25 lies between 2 S = 2.156 with ddof 0 and
        # 2.273 with ddof 1.
        (2.5, 0, 1),
        (2.5, 1, 0),
    ],
)
def test_far_scores_of_a_normal_video_worked_by_hand(outlier, ddof, far):
    """Nine subjects at -1, 0, 1 and one outlier. Catches the other deviation, and P and Q mixed
    up.
    """
    video = np.array([[-1.0]] * 3 + [[0.0]] * 3 + [[1.0]] * 3 + [[outlier]])
    high_S, low_S = far_scores(video, ddof)
    assert high_S.tolist() == [0] * 9 + [far]
    assert not low_S.any()
    high_S, low_S = far_scores(-video, ddof)
    assert low_S.tolist() == [0] * 9 + [far]
    assert not high_S.any()


@pytest.mark.parametrize(("subjects", "far"), [(21, 0), (22, 1)])
def test_twenty_one_subjects_cannot_be_far_by_the_second_limit(subjects, far):
    """One subject against all others is (N - 1) / sqrt(N) deviations off: 4.36 of 21, 4.48 of 22;
    sqrt(20) is 4.47 and the kurtosis is near N. Catches 2 S for every video.
    """
    video = np.zeros((subjects, 1))
    video[0] = 1
    assert far_scores(video)[0].tolist() == [far] + [0] * (subjects - 1)


def test_what_tells_nobody_apart_counts_for_nobody():
    """A video rated alike by all has S = 0, where everybody is at both limits; one with a single
    rating has no S. Catches a panel that is rejected for agreeing, and NaN in the counts.
    """
    alike = np.full((5, 30), 3.3)
    assert not np.any(far_scores(alike))
    assert rejected("bt500", alike) == []
    single = np.full((5, 30), NAN)
    single[0] = np.arange(30) / 10
    assert not np.any(far_scores(single))
    assert not np.any(far_scores(np.full((3, 2), NAN)))
    assert rejected("p913", single) == rejected("bt500_z", single) == []


# P and Q other than 0, by subject, and who is rejected: computed once outside of this project from
# the definition, for both deviations. M6 and M7 are made so that the deviation decides.
GOLDEN = {
    ("M1", 0): ({0: 3, 5: 2, 10: 1}, {2: 1, 7: 2}, []),
    ("M1", 1): ({10: 1}, {7: 1}, []),
    ("M2", 0): ({0: 2, 5: 2, 10: 2, 14: 1, 23: 2}, {2: 3, 7: 1, 12: 2, 21: 2}, []),
    ("M2", 1): ({0: 1, 5: 1, 10: 1}, {2: 2, 12: 2, 21: 2}, []),
    ("M3", 0): ({0: 1}, {2: 1, 12: 1}, []),
    ("M4", 1): ({0: 1}, {12: 1, 17: 1}, []),
    ("M5", 0): (
        {0: 2, 5: 2, 10: 2, 14: 1, 23: 9},
        {2: 1, 7: 1, 12: 2, 21: 2, 23: 11},
        [23],
    ),
    ("M5", 1): ({0: 1, 5: 2, 10: 1, 23: 9}, {2: 1, 12: 2, 21: 2, 23: 11}, [23]),
    ("M6", 0): ({0: 1, 10: 1, 19: 1, 20: 3}, {2: 3, 12: 3, 16: 1, 17: 1, 20: 5}, [20]),
    ("M6", 1): ({0: 1, 20: 2}, {2: 2, 12: 2, 20: 5}, []),
    ("M7", 0): ({0: 1, 23: 4}, {2: 1, 12: 1, 23: 2}, []),
    ("M7", 1): ({0: 1, 23: 3}, {2: 1, 12: 1, 23: 2}, [23]),
}


@pytest.mark.parametrize(("name", "ddof"), GOLDEN)
def test_screening_of_the_golden_panels(name, ddof):
    """Catches a wrong kurtosis, deviation, limit or ratio: M5's last subject is off in 20 of 80,
    M6's in 8 of 80 (or 7, which are one-sided), M7's 6 are 4 and 2 (or 5, which are 3 and 2).
    """
    high, low, out = GOLDEN[name, ddof]
    rating_SV = formula_panel(*FORMULA_PANELS[name])
    high_S, low_S = far_scores(rating_SV, ddof)
    assert {s: int(n) for s, n in enumerate(high_S) if n} == high
    assert {s: int(n) for s, n in enumerate(low_S) if n} == low
    assert rejected("bt500", rating_SV, ddof) == out


@pytest.mark.parametrize(
    ("name", "out"), [("M1", []), ("M2", [23]), ("M3", [23]), ("M4", [17]), ("M5", [23])]
)
def test_screening_of_z_scores_rejects_others(name, out):
    """Golden: raw, nobody is rejected in M1 to M4. Catches a screening that ignores what it is made
    on.
    """
    assert rejected("bt500_z", formula_panel(*FORMULA_PANELS[name])) == out


def panel_with_an_outlier(videos, above, below):
    """Nine subjects at -1, 0, 1 in every video; the tenth is far above in the first `above`, far
    below in the next `below`, and 0 in the rest.
    """
    rating_SV = np.repeat([[-1.0]] * 3 + [[0.0]] * 3 + [[1.0]] * 3 + [[0.0]], videos, axis=1)
    rating_SV[-1, :above] = 3
    rating_SV[-1, above : above + below] = -3
    return rating_SV


@pytest.mark.parametrize(
    ("above", "below", "out"),
    [
        (3, 3, [9]),  # 6 of 100, 0 one-sided
        (3, 2, []),  # 5 of 100 is not more than .05
        (13, 7, []),  # |13 - 7| / 20 is not less than .3
        (12, 7, [9]),  # 5 / 19 is
        (6, 0, []),  # always above: a bias
    ],
)
def test_both_limits_of_bt500(above, below, out):
    """By hand. Catches `>=` for `>` at the limits, and the two conditions joined by `or`."""
    found = SCREENINGS["bt500"](panel_with_an_outlier(100, above, below), ddof=1, limit=0.75)
    assert (found.high_S[-1], found.low_S[-1]) == (above, below)
    assert [i for i, reason in enumerate(found.reason_S) if reason] == out
    if out:
        assert f"{above} of 100 ratings lie far above and {below} far below" in found.reason_S[9]


def test_a_share_is_of_the_own_ratings():
    """The outlier rated 50 of 100 videos and is off in 4: 8 %, not 4. Catches a share of all
    videos, which would spare whoever rates little.
    """
    rating_SV = panel_with_an_outlier(100, 2, 2)
    assert rejected("bt500", rating_SV) == []
    rating_SV[-1, 50:] = NAN
    assert rejected("bt500", rating_SV) == [9]


def test_shares_by_hand():
    """Catches 0 for what is not defined: 0 would pass for a balanced subject."""
    assert shares(3, 1, 40) == (0.1, 0.5)
    assert shares(0, 0, 40)[0] == 0
    assert np.isnan(shares(0, 0, 40)[1])
    assert np.isnan(shares(0, 0, 0)).all()


def test_p913_takes_the_worst_first_and_looks_again():
    """By hand: three subjects t and one u, uncorrelated, spreads as 1 to 2.8. The mean is 3 t + u,
    so t correlates by 3 / sqrt(9 + 7.84) = .731, u by .682: all are below .75, but without u the
    others agree perfectly. Catches all thrown out at once, and means that keep the rejected.
    """
    t, u = np.array([1, 1, -1, -1]) / 2, np.array([1, -1, 1, -1]) * 1.4
    rating_SV = 2.5 + np.array([t, t, u, t])
    found = SCREENINGS["p913"](rating_SV, ddof=1, limit=0.75)
    assert [reason is not None for reason in found.reason_S] == [False, False, True, False]
    assert found.reason_S[2] == "P.913: the ratings correlate with the mean by 0.68, less than 0.75"
    assert rejected("p913", rating_SV, limit=0.68) == []
    assert not np.isnan(rating_SV).any()  # the caller's table is as it was


def test_correlation_with_the_others_by_hand():
    """s0 against the mean of s1 and s2 where they rated: 1, 2, 3, 4 with 2, 2, 4, 4 gives
    2 / sqrt(5 * 1) = .894. Catches a mean with the subject in it, and missing ratings as 0.
    """
    rating_SV = np.array(
        [[1, 2, 3, 4, 5], [1, NAN, 4, 3, NAN], [3, 2, NAN, 5, NAN], [NAN] * 5, [2] * 5], dtype=float
    )
    r_S = correlation_with_others(rating_SV[:4])
    assert r_S[0] == pytest.approx(4 / 20**0.5)
    assert np.isnan(r_S[3])
    assert np.isnan(correlation_with_others(rating_SV)[4])  # a constant correlates with nothing


def test_correlations_need_three_videos():
    """Two points always correlate by 1 or -1. Catches a subject praised or rejected for them."""
    score_SV = np.array([[1, 2, NAN], [1, 2, 4]])
    r_S = correlations(score_SV, np.array([[1, 3, 3], [1, 3, 3]]))
    assert np.isnan(r_S[0])
    assert r_S[1] == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 3])[0, 1])
