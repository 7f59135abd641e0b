"""Simulated annotators: their ratings hold the truth, their dots lie on what is wrong, and their
remarks mean it.
"""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from lmme3dhf.annotations.descriptions import categories_of
from lmme3dhf.annotations.dots import red_dots
from lmme3dhf.annotations.mos import mean_opinion_scores
from lmme3dhf.annotations.ratings import Ratings
from lmme3dhf.data.synthetic.clips import ClipPlan, ClipRenderer
from lmme3dhf.data.synthetic.distortions import EYE, HEAD, IMAGE, MOUTH, Distortion
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.raters import (
    _CLEAN,
    _REMARKS,
    CARELESS,
    MARKERS,
    RATERS,
    mark,
    painted,
    simulated_ratings,
    true_opinion,
)
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

SIDE = 64


def planned(*distortions: tuple[int, float], softness: float = 0.0) -> ClipPlan:
    """The first face of a data set with (kind, severity) planted."""
    return dataclasses.replace(
        clip_plan(0, 0, 0),
        softness=softness,
        distortions=tuple(Distortion(kind=k, severity=s, seed=1) for k, s in distortions),
    )


def opinions(count: int) -> np.ndarray:
    """True opinions of the first clips of a data set, (count, 2)."""
    return np.array([true_opinion(clip_plan(i % 10, i // 10, 0)) for i in range(count)])


def ratings(opinion_V: np.ndarray, seed: int) -> Ratings:
    return Ratings(
        "quality",
        tuple(f"rater{i:02d}" for i in range(RATERS)),
        tuple(f"seed{i:04d}" for i in range(opinion_V.size)),
        simulated_ratings(opinion_V, np.random.default_rng(seed)),
    )


def test_opinions_fall_with_severity_and_number():
    """Catches opinions outside the slider, and a distortion that does no harm or does good."""
    assert true_opinion(planned()) == pytest.approx((4.4, 4.4))
    for kind in range(8):
        for dimension in (0, 1):
            falling = [true_opinion(planned((kind, s)))[dimension] for s in (0.1, 0.4, 1.0)]
            assert 4.4 > falling[0] > falling[1] > falling[2] > 0
    one, two = true_opinion(planned((EYE, 0.5))), true_opinion(planned((EYE, 0.5), (HEAD, 0.5)))
    assert two[0] < one[0]
    assert two[1] < one[1]
    assert true_opinion(planned(softness=0.006)) < true_opinion(planned())


def test_the_two_dimensions_are_related_but_not_the_same():
    """Blur harms quality most, broken geometry authenticity. Catches one dimension copied."""
    blurred, broken = true_opinion(planned((IMAGE, 0.7))), true_opinion(planned((HEAD, 0.7)))
    assert blurred[0] < blurred[1]
    assert broken[0] > broken[1]
    quality, authenticity = opinions(300).T
    assert 0.7 < stats.spearmanr(quality, authenticity).statistic < 0.99


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_opinion_scores_recover_the_truth_despite_careless_raters(seed):
    """The z-scored mean of all 24 raters orders 300 videos as the truth does. Catches raters
    without signal, careless ones who spoil the mean, and a clip that saturates.
    """
    for opinion_V in opinions(300).T:
        raw = ratings(opinion_V, seed)
        scores = mean_opinion_scores(raw, screening="none")
        assert scores.left_out == {}
        assert stats.spearmanr(scores.mos_V, opinion_V).statistic > 0.95
        agreement = [stats.spearmanr(row, opinion_V).statistic for row in raw.rating_SV]
        assert CARELESS == 2
        assert max(abs(value) for value in agreement[-CARELESS:]) < 0.2
        assert min(agreement[:-CARELESS]) > 0.6
        # One rater alone is not the truth: there is noise to be averaged away.
        assert max(agreement[:-CARELESS]) < 0.95


def test_ratings_are_positions_of_the_slider():
    """0 to 5 in steps of 0.01, biased and spread from rater to rater. Catches values that the
    reader of ratings refuses.
    """
    rating_SV = simulated_ratings(np.linspace(0, 5, 200), np.random.default_rng(0))
    assert rating_SV.shape == (24, 200)
    assert rating_SV.min() >= 0
    assert rating_SV.max() <= 5
    assert rating_SV * 100 == pytest.approx(np.round(rating_SV * 100), abs=1e-9)
    assert rating_SV.mean(axis=1).std() > 0.1
    again = simulated_ratings(np.linspace(0, 5, 200), np.random.default_rng(0))
    assert np.array_equal(rating_SV, again)


def test_the_default_panel_is_the_one_that_it_always_was():
    """The first and the last rater of a small panel, written down before the number of careless
    raters could be chosen. Catches a draw that moved: every data set would get other labels.
    """
    rating_SV = simulated_ratings(np.linspace(0, 5, 5), np.random.default_rng(0))
    assert rating_SV[0].tolist() == [0.57, 1.33, 2.73, 4.15, 5.0]
    assert rating_SV[-1].tolist() == [4.48, 1.85, 2.47, 2.57, 3.53]


def test_the_number_of_careless_raters_can_be_chosen():
    """Catches careless raters who stay in the panel, and one who replaces another rater than the
    last.
    """
    opinion_V = np.linspace(0, 5, 200)
    for careless in (0, 1, 6):
        rating_SV = simulated_ratings(opinion_V, np.random.default_rng(1), careless=careless)
        r_S = np.array([stats.spearmanr(row, opinion_V).statistic for row in rating_SV])
        assert (np.flatnonzero(np.abs(r_S) < 0.3) == np.arange(RATERS - careless, RATERS)).all()
        assert (r_S[: RATERS - careless] > 0.6).all()


def masks_with_a_square(kind: int, view: int) -> dict[int, np.ndarray]:
    """A mask that is 1 in a square of one view of the strip, 0 elsewhere."""
    mask = np.zeros((SIDE, 3 * SIDE), np.float32)
    mask[20:36, view * SIDE + 30 : view * SIDE + 46] = 1
    return {kind: mask}


@pytest.mark.parametrize("view", [0, 1, 2])
def test_marks_lie_on_the_masked_region(view):
    """By hand: rows 20 to 35, columns 30 to 45 of one view, and a jitter of 0.4 pixels. Catches x
    and y swapped, and a view that is taken for another.
    """
    plan = planned((MOUTH, 1.0))
    looked_at = 0
    for seed in range(20):
        masks = masks_with_a_square(MOUTH, view)
        points, remark = mark(plan, masks, np.random.default_rng(seed))
        assert points
        for x, y in points:
            assert 28 <= x - view * SIDE <= 48
            assert 18 <= y <= 38
            looked_at += 1
        assert categories_of(remark) == {DISTORTIONS[MOUTH]}
    assert looked_at > 20


def test_marks_stay_inside_their_view():
    """A mask at the very edge. Catches points outside the strip, which no map can hold, and points
    that jump into the neighbouring view.
    """
    mask = np.zeros((SIDE, 3 * SIDE), np.float32)
    mask[:3, SIDE : SIDE + 3] = mask[-3:, 2 * SIDE - 3 : 2 * SIDE] = 1
    plan = planned((EYE, 1.0))
    looked_at = 0
    for seed in range(30):
        for x, y in mark(plan, {EYE: mask}, np.random.default_rng(seed))[0]:
            assert SIDE <= x <= 2 * SIDE - 1
            assert 0 <= y <= SIDE - 1
            looked_at += 1
    assert looked_at > 30


def test_a_clean_clip_gets_no_marks():
    """Catches marks without a distortion, and remarks that name one."""
    for seed in range(20):
        points, remark = mark(planned(), {}, np.random.default_rng(seed))
        assert points == []
        assert categories_of(remark) == {NO_DISTORTION}


def test_what_is_turned_away_is_not_marked():
    """An empty mask: the region faces away in all views. Catches a draw from all-zero weights. Blur
    is named even so: it is seen everywhere.
    """
    empty = np.zeros((SIDE, 3 * SIDE), np.float32)
    for kind, expected in ((EYE, NO_DISTORTION), (IMAGE, DISTORTIONS[IMAGE])):
        points, remark = mark(planned((kind, 1.0)), {kind: empty}, np.random.default_rng(0))
        assert points == []
        assert categories_of(remark) == {expected}


def test_severe_distortions_are_seen_more_often_and_get_more_dots():
    """Catches an attention that does not depend on severity."""
    counts = []
    for severity in (0.1, 0.9):
        plan, masks = planned((EYE, severity)), masks_with_a_square(EYE, 1)
        marks = [len(mark(plan, masks, np.random.default_rng(seed))[0]) for seed in range(150)]
        counts.append((np.mean([count > 0 for count in marks]), np.mean(marks)))
    assert counts[0][0] < 0.7 < counts[1][0]
    assert counts[0][1] < counts[1][1]


def test_remarks_name_only_what_is_planted():
    """Three kinds at once, joined in one sentence. Catches words of one template that read as
    another category once they are joined.
    """
    named = set()
    for seed in range(60):
        kinds = np.random.default_rng(seed).choice(8, 3, replace=False)
        plan = planned(*((int(kind), 1.0) for kind in kinds))
        masks = {int(kind): masks_with_a_square(0, 1)[0] for kind in kinds}
        remark = mark(plan, masks, np.random.default_rng(seed))[1]
        assert categories_of(remark) == {DISTORTIONS[kind] for kind in kinds}, remark
        named |= categories_of(remark)
    assert named == set(DISTORTIONS[:8])


@pytest.mark.parametrize(
    ("remark", "category"),
    [
        *((text, DISTORTIONS[kind]) for kind, texts in enumerate(_REMARKS) for text in texts),
        *((text, NO_DISTORTION) for text in _CLEAN),
    ],
)
def test_every_remark_means_its_own_category(remark, category):
    """Catches a template that the rules for people's remarks read otherwise, or not at all."""
    assert categories_of(remark) == {category}


def test_every_pair_of_remarks_means_both_categories():
    """Catches a denial or a phrase that reaches over the comma."""
    pairs = [
        (first, second, {DISTORTIONS[a], DISTORTIONS[b]})
        for a, b in itertools.permutations(range(8), 2)
        for first in _REMARKS[a]
        for second in _REMARKS[b]
    ]
    assert len(pairs) > 400
    for first, second, categories in pairs:
        assert categories_of(f"{first}, {second}") == categories


@pytest.mark.parametrize("side", [64, 112, 512])
def test_painted_dots_are_found_again(side):
    """On a rendered strip, at the demo's and the release's size. Catches dots too small for the
    finder, painted with x and y swapped, or in another red.
    """
    renderer = ClipRenderer(planned(), side)
    strip = np.hstack([renderer.picture(yaw, 0)[0] for yaw in (-45, 0, 45)])
    before = strip.copy()
    places = [
        (view * side + fx * side, fy * side)
        for view in range(3)
        for fx, fy in ((0.25, 0.3), (0.5, 0.55), (0.71, 0.82))
    ]
    places.append((0.5 * side + 0.5, 0.92 * side + 0.5))
    # As far out as a marker goes: the border cuts the dot, which moves its centre.
    corners = [(2.0, 2.0), (3 * side - 3.0, side - 3.0)]
    places += corners
    found = red_dots(painted(strip, places), strip)
    assert np.array_equal(strip, before)
    assert len(found) == len(places)
    for x, y in places:
        distance = min(np.hypot(x - fx, y - fy) for fx, fy in found)
        assert distance < (1.0 if (x, y) not in corners else max(1.0, 0.01 * side))


def test_there_are_three_markers():
    """As in the paper's Section 3.2, and with different names: each has a folder of marks."""
    assert len(set(MARKERS)) == 3
