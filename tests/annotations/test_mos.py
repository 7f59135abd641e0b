"""Opinion scores: hand-worked values, golden panels, both rules, the report on every subject, and
refused ratings.
"""

from dataclasses import replace

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.mos import (
    RULES,
    mean_opinion_scores,
)
from lmme3dhf.annotations.ratings import Ratings
from lmme3dhf.annotations.screening import SCREENINGS
from lmme3dhf.aspects import Scale
from scripts.compare_sureal import FORMULA_PANELS, formula_panel

NAN = float("nan")
NOISE_FLOOR = 0.1  # 2 % of a slider of 0..5


def panel(rating_SV):
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
    scores = mean_opinion_scores(panel([[1, 2, 3], [4, NAN, 2]]))
    scaled = np.array(
        [
            [100 * 2 / 6, 50.0, 100 * 4 / 6],
            [100 * (3 + 0.5**0.5) / 6, NAN, 100 * (3 - 0.5**0.5) / 6],
        ]
    )
    assert scores.mos_V == pytest.approx([scaled[:, 0].mean(), 50.0, scaled[:, 2].mean()])
    apart = abs(scaled[0] - scaled[1]) / 2**0.5  # sample deviation of two values
    assert scores.std_V == pytest.approx([apart[0], NAN, apart[2]], nan_ok=True)
    assert scores.ci95_V == pytest.approx(1.96 * apart / 2**0.5, nan_ok=True)
    assert scores.count_V.tolist() == [2, 1, 2]
    assert scores.left_out == {}


def test_scores_on_a_scale_of_1_to_5():
    """By hand: marks 1 to 3 and 2 to 4 have z = -1, 0, 1, so Eq. 1-3 give 1 + 4 (z + 3) / 6 =
    2.333, 3, 3.667; the deviation is 0. As positions of a slider of 1 to 5, their mean is 1.5, 2.5,
    3.5 on a scale of 1 to 5 and 12.5, 37.5, 62.5 on one of 0 to 100, and each bias is half a step.
    A scale that is better at its low end takes higher marks as higher scores, too. Catches
    100 in the formula, a scale that begins at 0, and scores turned round.
    """
    marks = panel([[1, 2, 3], [2, 3, 4]])
    slider = Scale(minimum=1, maximum=5, levels=())
    for better in (True, False):
        five = Scale(minimum=1, maximum=5, higher_is_better=better)
        on_five = replace(marks, slider=slider, scale=five)
        scores = mean_opinion_scores(on_five, screening="none")
        assert scores.mos_V == pytest.approx([7 / 3, 3, 11 / 3])
        assert scores.std_V == pytest.approx([0, 0, 0])
        likely = mean_opinion_scores(on_five, rule="mle", screening="none")
        assert likely.mos_V == pytest.approx([1.5, 2.5, 3.5])
        assert [report.bias for report in likely.subjects] == pytest.approx([-0.5, 0.5])
    hundred = replace(marks, slider=slider)
    likely = mean_opinion_scores(hundred, rule="mle", screening="none")
    assert likely.mos_V == pytest.approx([12.5, 37.5, 62.5])
    # Agreement is perfect: the deviation is 2 % of the slider, in units of the score.
    assert likely.std_V == pytest.approx([2, 2, 2])


# Golden scores of the first five videos, computed once outside of this project to eight digits:
# Eq. 1-3 after BT.500 with the sample deviation.
Z_SCORES = {
    "M1": [52.390740288, 63.924391576, 71.262606245, 68.353282946, 53.565468047],
    "M2": [51.97435587, 64.49276853, 71.6752251, 69.05000103, 56.04400487],
    "M3": [52.30492901, 64.23481507, 71.03777333, 68.52098964, 55.83642992],
    "M4": [51.99106806, 64.50933495, 70.99457685, 66.6819421, 56.89149573],
    "M5": [50.89681173, 64.68792, 72.12022157, 69.5681645, 57.32032766],
    "M6": [51.53145085, 64.35157073, 71.94362869, 69.17401634, 57.41849089],
    "M7": [51.28196298, 64.3757545, 71.45381359, 69.06749206, 57.06809135],
}
SUMS = {
    "M1": 1863.31,
    "M2": 4813.43,
    "M3": 4814.37,
    "M4": 3614.68,
    "M5": 4813.43,
    "M6": 4235.16,
    "M7": 4814.37,
}
# z-scores after BT.500 on z-scores, by the sureal package, which takes ddof 0 in its screening.
Z_SCREENED = {
    "M2": [0.0538087035, 0.8812752003, 1.3272132942, 1.17408987, 0.4392196594],
    "M3": [0.0769177789, 0.8625452698, 1.2872288153, 1.1440495238, 0.4240854808],
    "M4": [0.0243923231, 0.9002309753, 1.3116265743, 1.1142559209, 0.4187061465],
    "M5": [0.0538087035, 0.8812752003, 1.3272132942, 1.17408987, 0.4392196594],
    "M6": [0.0918870508, 0.8610942438, 1.3166177216, 1.1504409807, 0.4451094535],
    "M7": [0.0769177789, 0.8625452698, 1.2872288153, 1.1440495238, 0.4240854808],
}


@pytest.mark.parametrize("name", Z_SCORES)
def test_scores_of_the_golden_panels(name):
    """Catches another order of screening, standardising and averaging, or another scale."""
    rating_SV = formula_panel(*FORMULA_PANELS[name])
    assert rating_SV.sum() == pytest.approx(SUMS[name], abs=1e-6)
    scores = mean_opinion_scores(panel(rating_SV))
    assert scores.mos_V[:5] == pytest.approx(Z_SCORES[name], abs=1e-8)
    assert list(scores.left_out) == (["s23"] if name in ("M5", "M7") else [])
    assert (scores.count_V == len(rating_SV) - len(scores.left_out)).all()


@pytest.mark.parametrize("name", Z_SCREENED)
def test_scores_screened_on_z(name):
    """Catches z-scores taken anew, or means that still hold the rejected subject."""
    ratings = panel(formula_panel(*FORMULA_PANELS[name]))
    scores = mean_opinion_scores(ratings, screening="bt500_z", ddof=0)
    assert scores.mos_V[:5] * 6 / 100 - 3 == pytest.approx(Z_SCREENED[name], abs=1e-9)


def test_scores_do_not_change_with_a_subjects_bias_and_scale():
    """Standardising removes a subject's offset and gain. Catches a pooled mean or deviation (the
    sigma_I of the print).
    """
    rng = np.random.default_rng(0)
    rating_SV = rng.uniform(0, 5, (5, 30))
    moved_SV = rating_SV * rng.uniform(0.1, 0.5, (5, 1)) + rng.uniform(0, 2, (5, 1))
    scores, moved = (
        mean_opinion_scores(panel(table), screening="none") for table in (rating_SV, moved_SV)
    )
    assert moved.mos_V == pytest.approx(scores.mos_V)
    assert moved.std_V == pytest.approx(scores.std_V)


# psi, bias and inconsistency by sureal's SubjectMLEModelProjectionSolver.
LIKELY = {
    "M1": (
        [2.618260635, 3.617277837, 4.125744901, 3.902566777, 3.009173118],
        [0.2799027778, 0.0569027778, -0.2822638889],
        [0.3023073143, 0.3028887615, 0.3040174493],
    ),
    "M5": (
        [2.5560689922, 3.2850755148, 3.6632849585, 3.5373250195, 2.8956666343],
        [0.2036302083, 0.0547552083, -0.1668697917],
        [0.2081362416, 0.2076354891, 0.2075190751],
    ),
    "M6": (
        [2.5771994603, 3.2871807926, 3.6917226127, 3.5408378534, 2.9037680228],
        [0.1896964286, 0.0408214286, -0.1808035714],
        [0.2077626391, 0.2067478467, 0.207421615],
    ),
    "M7": (
        [2.5812627455, 3.2959078662, 3.66337864, 3.532229453, 2.8763347022],
        [0.205140625, 0.055640625, -0.166359375],
        [0.291538, 0.291004763, 0.2901934383],
    ),
}


@pytest.mark.parametrize("name", LIKELY)
def test_likelihood_scores_of_the_golden_panels(name):
    """Golden values of another implementation. Catches the wrong weights, biases that are not
    centred, and a loop that stops early.
    """
    ratings = panel(formula_panel(*FORMULA_PANELS[name]))
    scores = mean_opinion_scores(ratings, rule="mle", screening="none")
    psi, bias, inconsistency = LIKELY[name]
    assert scores.mos_V[:5] * 5 / 100 == pytest.approx(psi, abs=1e-7)
    assert [r.bias for r in scores.subjects[:3]] == pytest.approx(bias, abs=1e-7)
    assert [r.inconsistency for r in scores.subjects[:3]] == pytest.approx(inconsistency, abs=1e-7)
    if name == "M1":
        # sureal's standard error of the score; and the spoilt last subject is seen.
        error_V = scores.std_V / scores.count_V**0.5 * 5 / 100
        assert error_V == pytest.approx(np.full(60, 0.0914999604), abs=1e-9)
        assert scores.ci95_V == pytest.approx(1.96 * 100 / 5 * error_V)
        assert scores.subjects[-1].inconsistency == pytest.approx(1.3099254233, abs=1e-7)


def test_likelihood_recovers_biases_despite_gaps():
    """Without noise, rating = psi + bias: the rule finds both, although every video has other
    raters, whose plain mean is off by their biases. By hand: biases 1, 0, -.4 have mean .2, which
    goes to psi. Catches missing ratings taken as 0 and biases averaged over all videos.
    """
    psi_V, bias_S = np.array([1, 2, 3, 2.5]), np.array([1, 0, -0.4])
    rating_SV = psi_V + bias_S[:, None]
    rating_SV[0, 0] = rating_SV[1, 1] = rating_SV[2, 3] = NAN
    scores = mean_opinion_scores(panel(rating_SV), rule="mle", screening="none")
    assert scores.mos_V == pytest.approx(100 / 5 * (psi_V + 0.2), abs=1e-5)
    assert [r.bias for r in scores.subjects] == pytest.approx([0.8, -0.2, -0.6], abs=1e-6)
    assert scores.count_V.tolist() == [2, 2, 3, 2]


def log_likelihood(rating_SV, psi_V, bias_S, inconsistency_S):
    """Of the model, written down from its definition with scipy's normal density."""
    from scipy.stats import norm

    density_SV = norm.logpdf(rating_SV, psi_V + bias_S[:, None], inconsistency_S[:, None])
    return np.nansum(density_SV)


def test_no_step_from_the_solution_is_more_likely():
    """Catches a loop that settles elsewhere than at a maximum, as with weights 1 / deviation."""
    rng = np.random.default_rng(3)
    rating_SV = rng.uniform(1, 4, 40) + rng.normal(0, 1, (20, 40)) * rng.uniform(0.4, 0.8, (20, 1))
    rating_SV[rng.random(rating_SV.shape) < 0.3] = NAN
    scores = mean_opinion_scores(panel(rating_SV), rule="mle", screening="none")
    psi_V = scores.mos_V * 5 / 100
    bias_S = np.array([r.bias for r in scores.subjects])
    noise_S = np.array([r.inconsistency for r in scores.subjects])
    assert noise_S.min() > NOISE_FLOOR
    assert bias_S.mean() == pytest.approx(0, abs=1e-12)
    best = log_likelihood(rating_SV, psi_V, bias_S, noise_S)
    for size in (1e-4, 1e-2):
        for _ in range(50):
            steps = [size * rng.normal(size=a.size) for a in (psi_V, bias_S, noise_S)]
            moved = [a + step for a, step in zip((psi_V, bias_S, noise_S), steps, strict=True)]
            assert log_likelihood(rating_SV, *moved) < best


def test_likelihood_weighs_careless_subjects_down():
    """Ten subjects with noise .3 and five who do not look: the rule's scores are nearer to the
    truth than the paper's, and it says who they are. Catches equal weights.
    """
    rng = np.random.default_rng(1)
    truth_V = rng.uniform(0.5, 4.5, 150)
    rating_SV = truth_V + rng.normal(0, 0.3, (15, 150))
    rating_SV[10:] = rng.uniform(0, 5, (5, 150))
    likely, plain = (
        mean_opinion_scores(panel(rating_SV), rule=rule, screening="none")
        for rule in ("mle", "zscore")
    )
    off = [1 - np.corrcoef(scores.mos_V, truth_V)[0, 1] for scores in (likely, plain)]
    assert off[0] < off[1] / 3
    noise = [r.inconsistency for r in likely.subjects]
    assert max(noise[:10]) < 0.4
    assert min(noise[10:]) > 1


def test_an_inconsistency_has_a_floor():
    """Two subjects or all agree perfectly: their inconsistency would be 0 and their weights
    infinite. By hand, two of weight 1 / .1^2 outweigh the third. Catches a division by 0.
    """
    alike = mean_opinion_scores(panel([[1, 2, 4]] * 3), rule="mle")
    assert alike.mos_V == pytest.approx([20, 40, 80])
    assert [r.inconsistency for r in alike.subjects] == [NOISE_FLOOR] * 3
    assert alike.std_V == pytest.approx([100 / 5 * NOISE_FLOOR] * 3)
    two = mean_opinion_scores(panel([[1, 2, 4]] * 2 + [[4, 1, 2]]), rule="mle")
    assert [r.inconsistency for r in two.subjects[:2]] == [NOISE_FLOOR] * 2
    assert two.mos_V == pytest.approx([20, 40, 80], abs=2)


def test_scores_that_follow_one_subject_are_refused():
    """Three subjects of equal noise: the likelihood grows without end as the scores become one
    subject's ratings. Catches labels made of them.
    """
    few_SV = np.linspace(1, 4, 80) + np.random.default_rng(0).normal(0, 0.5, (3, 80))
    with pytest.raises(AnnotationError, match=r"follow subject 's\d' without end .*, 3 subjects"):
        mean_opinion_scores(panel(few_SV), rule="mle", screening="none")
    assert np.isfinite(mean_opinion_scores(panel(few_SV), screening="none").mos_V).all()


def test_likelihood_needs_common_videos():
    """Two panels of two for two halves of the videos: nothing says whose half is better. Catches
    biases of 0 that look like a result.
    """
    rating_SV = np.full((4, 4), NAN)
    rating_SV[:2, :2] = [[1, 2], [2, 3]]
    rating_SV[2:, 2:] = [[3, 4], [2, 3]]
    with pytest.raises(AnnotationError, match="2 groups that rated no common video, 's0' in one"):
        mean_opinion_scores(panel(rating_SV), rule="mle")
    rating_SV[0, 2] = 3
    assert np.isfinite(mean_opinion_scores(panel(rating_SV), rule="mle").mos_V).all()


def test_likelihood_that_does_not_settle_is_told(monkeypatch):
    """Catches scores that are handed out half-way."""
    monkeypatch.setattr("lmme3dhf.annotations.mos.MLE_ITERATIONS", 2)
    ratings = panel(formula_panel(*FORMULA_PANELS["M1"]))
    with pytest.raises(AnnotationError, match="has not settled after 2 iterations"):
        mean_opinion_scores(ratings, rule="mle")


def test_every_subject_is_reported():
    """Catches a subject that is lost without a word, and figures given to the wrong one: M5's last
    subject is far off in 9 + 11 of 80.
    """
    rating_SV = formula_panel(*FORMULA_PANELS["M5"])
    alone = np.full(80, NAN)
    alone[3] = 2
    rating_SV = np.vstack([np.full(80, 2.5), rating_SV[-1], alone, rating_SV[:-1]])
    ratings = panel(rating_SV)
    scores = mean_opinion_scores(ratings)
    assert tuple(r.subject for r in scores.subjects) == ratings.subjects
    flat, spoilt, single, good = scores.subjects[:4]
    assert flat.rejected == "gave all 80 videos the same rating, 2.5"
    assert single.rejected == "rated 1 of 80 videos; two are needed to know a subject's spread"
    assert spoilt.rejected.startswith("BT.500: 9 of 80 ratings lie far above and 11 far below")
    assert scores.left_out == {"s0": flat.rejected, "s1": spoilt.rejected, "s2": single.rejected}
    assert (spoilt.high, spoilt.low, spoilt.outside) == (9, 11, 0.25)
    assert spoilt.imbalance == pytest.approx(0.1)
    assert (good.ratings, good.high, good.low, good.rejected) == (80, 1, 0, None)
    others_V = np.mean(rating_SV[[1, *range(4, 26)]], axis=0)
    assert good.correlation == pytest.approx(np.corrcoef(rating_SV[3], others_V)[0, 1])
    assert (single.ratings, single.high, flat.high) == (1, 0, 0)
    assert np.isnan([single.outside, flat.outside, flat.correlation, single.imbalance]).all()
    assert all(r.bias is None and r.inconsistency is None for r in scores.subjects)
    assert scores.mos_V[:5] == pytest.approx(Z_SCORES["M5"], abs=1e-8)


def test_the_rules_leave_out_different_subjects():
    """A constant rater has no z-score, but a bias and an inconsistency: the likelihood weighs it
    down. One rating is its own bias. Catches one list of reasons for both rules.
    """
    rating_SV = np.vstack([formula_panel(*FORMULA_PANELS["M5"])[:-1], np.full((2, 80), 2.5)])
    rating_SV[-1, 1:] = NAN
    zscore = mean_opinion_scores(panel(rating_SV), screening="none")
    likely = mean_opinion_scores(panel(rating_SV), rule="mle", screening="none")
    assert list(zscore.left_out) == ["s23", "s24"]
    assert list(likely.left_out) == ["s24"]
    assert likely.subjects[23].inconsistency > 3 * likely.subjects[0].inconsistency
    assert likely.subjects[24].bias is None
    assert likely.subjects[24].inconsistency is None


def test_subjects_without_spread_are_left_out_and_named():
    """Catches a division by zero (3.3 three times has a deviation of 4e-16, not 0) and a silent
    loss of a subject.
    """
    scores = mean_opinion_scores(
        panel([[1, 2, 3], [3.3, 3.3, 3.3], [NAN, 5, NAN], [NAN, NAN, NAN]])
    )
    assert scores.mos_V == pytest.approx([100 * 2 / 6, 50, 100 * 4 / 6])
    assert list(scores.left_out) == ["s1", "s2", "s3"]
    assert "the same rating, 3.3" in scores.left_out["s1"]
    assert "rated 1 of 3 videos" in scores.left_out["s2"]
    assert "rated 0 of 3 videos" in scores.left_out["s3"]
    assert np.isnan(scores.std_V).all()
    assert np.isnan(scores.ci95_V).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("screening", SCREENINGS)
def test_no_rule_depends_on_the_order_of_subjects_and_videos(rule, screening):
    """Contract of all pairs: subjects and videos in another order give the same scores in that
    order, every video gets a score, and the counts are those of the subjects kept. Catches a result
    that depends on who stands first.
    """
    rng = np.random.default_rng(5)
    rating_SV = rng.uniform(0, 5, 60) * 0.8 + rng.normal(0.5, 0.5, (12, 60))
    rating_SV[-2:] = rng.uniform(0, 5, (2, 60))
    rating_SV[rng.random(rating_SV.shape) < 0.1] = NAN
    scores = mean_opinion_scores(panel(rating_SV), rule=rule, screening=screening)
    rows, columns = rng.permutation(12), rng.permutation(60)
    mixed = mean_opinion_scores(panel(rating_SV[rows][:, columns]), rule=rule, screening=screening)
    assert mixed.mos_V == pytest.approx(scores.mos_V[columns])
    assert mixed.ci95_V == pytest.approx(scores.ci95_V[columns])
    kept = [r.rejected is None for r in scores.subjects]
    assert [r.rejected for r in mixed.subjects] == [scores.subjects[i].rejected for i in rows]
    assert scores.count_V.tolist() == (~np.isnan(rating_SV[kept])).sum(axis=0).tolist()
    assert np.isfinite(scores.mos_V).all()
    assert scores.ci95_V == pytest.approx(1.96 * scores.std_V / scores.count_V**0.5)
    if screening == "none":
        assert scores.left_out == {}
    if screening == "p913":
        assert {"s10", "s11"} <= set(scores.left_out)


@pytest.mark.parametrize("rule", RULES)
def test_one_subject_alone_is_the_panel(rule):
    """By hand: 1, 2, 3 is z -1, 0, 1, or 20, 40, 60 % of the slider. Catches statistics that need a
    second subject.
    """
    scores = mean_opinion_scores(panel([[1, 2, 3]]), rule=rule)
    expected = {"zscore": [100 / 3, 50, 200 / 3], "mle": [20, 40, 60]}[rule]
    assert scores.mos_V == pytest.approx(expected)
    assert scores.count_V.tolist() == [1, 1, 1]
    assert np.isnan(scores.subjects[0].correlation)


def test_one_rating_for_each_video():
    """Each video has one rater: the score is that rater's z. Catches a screening that divides by a
    deviation of one, and a spread where none is known.
    """
    scores = mean_opinion_scores(panel([[1, 2, 3, NAN, NAN], [NAN, NAN, NAN, 5, 4]]))
    root = 0.5**0.5
    assert scores.mos_V * 6 / 100 - 3 == pytest.approx([-1, 0, 1, root, -root], abs=1e-12)
    assert np.isnan(scores.std_V).all()
    assert scores.left_out == {}


@pytest.mark.parametrize("rule", RULES)
def test_a_video_without_rating_is_an_error(rule):
    """Catches a NaN score that would travel into the labels, also where only a left-out subject
    rated the video.
    """
    with pytest.raises(
        AnnotationError, match=r"1 of 3 videos have no rating that counts, first v2"
    ):
        mean_opinion_scores(panel([[1, 2, NAN], [NAN, NAN, 4]]), rule=rule)
    with pytest.raises(AnnotationError, match=r"2 of 2 videos .*3 of 3 subjects do not count"):
        mean_opinion_scores(panel(np.full((3, 2), NAN)), rule=rule)


def test_a_video_that_only_a_rejected_subject_rated_is_an_error():
    """Catches a screening after which a video has no score."""
    rating_SV = formula_panel(*FORMULA_PANELS["M5"])
    rating_SV[:-1, 7] = NAN
    with pytest.raises(AnnotationError, match=r"1 of 80 .*, first v7 .* first s23: BT\.500: 9 of"):
        mean_opinion_scores(panel(rating_SV))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rule": "median"}, "rule 'median' is not one of zscore, mle"),
        ({"screening": "bt501"}, "screening 'bt501' is not one of none, bt500, bt500_z, p913"),
        ({"ddof": 2}, "ddof is 2, expected 0 or 1"),
    ],
)
def test_unknown_settings_are_refused(settings, reason):
    """Catches a misspelt rule that falls back to another."""
    with pytest.raises(AnnotationError, match=reason):
        mean_opinion_scores(panel([[1, 2], [2, 1]]), **settings)
