"""Figures of a data set: the official lists against the audit of the released files, and small
cases worked out by hand.

The audit (2-official-code.md, sections 1.4 and 1.5) was made with other code from the same files.
"""

import math

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.levels import fit_level_scale
from lmme3dhf.annotations.ratings import Ratings
from lmme3dhf.aspects import GEN3DHF, Scale
from lmme3dhf.data import statistics
from lmme3dhf.data.statistics import StripMarks
from lmme3dhf.vocabulary import LEVELS as WORDS
from tests.conftest import DIMENSIONS
from tests.data.conftest import videos

# n, min, max, mean, std, p5, p25, median, p75, p95, skew: section 1.4.
SCORES = {
    ("quality", "all"): (
        *(2000, 6.3619, 65.7502, 50.909, 8.528, 34.49, 46.44, 52.92, 57.16, 60.81, -1.20),
    ),
    ("quality", "train"): (
        *(1600, 6.3619, 65.7502, 50.865, 8.592, 34.49, 46.41, 52.87, 57.15, 60.66, -1.24),
    ),
    ("quality", "eval"): (
        *(400, 18.8380, 64.4391, 51.087, 8.277, 34.61, 46.60, 53.08, 57.18, 61.05, -1.02),
    ),
    ("authenticity", "all"): (
        *(2000, 8.5847, 66.2751, 50.638, 9.656, 31.67, 44.74, 53.39, 57.91, 61.79, -1.05),
    ),
    ("authenticity", "train"): (
        *(1600, 8.5847, 66.2751, 50.626, 9.773, 31.52, 44.72, 53.63, 57.92, 61.81, -1.08),
    ),
    ("authenticity", "eval"): (
        *(400, 21.2361, 64.5764, 50.687, 9.186, 33.19, 44.88, 53.10, 57.89, 61.37, -0.90),
    ),
}


@pytest.mark.parametrize(("dimension", "part"), SCORES)
def test_official_scores_have_the_audited_summary(official, dimension, part):
    """To the digits of section 1.4. Catches another deviation, another percentile rule, the sign
    of the skew.
    """
    mos, parts = official
    scores = mos[dimension]
    if part != "all":
        scores = {video: scores[video] for video in parts[part]}
    found = statistics.summarise(scores)
    p = found["percentiles"]
    n, low, high, mean, std, *percentiles, skew = SCORES[dimension, part]
    assert (found["n"], found["distinct"]) == (n, n)
    assert (round(found["min"], 4), round(found["max"], 4)) == (low, high)
    assert (round(found["mean"], 3), round(found["std"], 3)) == (mean, std)
    assert [round(p[name], 2) for name in ("5", "25", "50", "75", "95")] == percentiles
    assert round(found["skew"], 2) == skew


def test_official_extremes_are_the_audited_videos(official):
    """Section 1.4, and the outer percentiles. Catches extremes that are taken from another row."""
    mos, _ = official
    q, a = (statistics.summarise(mos[dimension]) for dimension in DIMENSIONS)
    assert (q["min_video"], q["max_video"]) == ("seed0642", "seed0985")
    assert (a["min_video"], a["max_video"]) == ("seed0750", "seed0845")
    outer = ("1", "10", "90", "99")
    assert [round(q["percentiles"][p], 2) for p in outer] == [23.59, 39.15, 59.65, 63.06]
    assert [round(a["percentiles"][p], 2) for p in outer] == [21.73, 36.72, 60.52, 64.14]


def test_official_dimensions_are_nearly_one(official):
    """SRCC, PLCC, KRCC of section 1.4. Catches rows of two dimensions that are not of one video."""
    mos, parts = official
    expected = {"train": (0.9011, 0.9213, 0.7281), "eval": (0.8839, 0.8995, 0.6987)}
    for part, figures in expected.items():
        first, second = ({v: mos[d][v] for v in parts[part]} for d in DIMENSIONS)
        found = statistics.agreement(first, second)
        assert tuple(round(found[c], 4) for c in ("srcc", "plcc", "krcc")) == figures


# Section 1.5; "None" is one of bad here, as Eq. 4 closed at the minimum has it.
LEVELS = {
    "quality": {
        "all": (5, 51, 239, 780, 925),
        "train": (5, 43, 192, 618, 742),
        "eval": (0, 8, 47, 162, 183),
    },
    "authenticity": {
        "all": (12, 88, 329, 699, 872),
        "train": (12, 70, 263, 550, 705),
        "eval": (0, 18, 66, 149, 167),
    },
}


@pytest.mark.parametrize(
    ("dimension", "means", "accuracy"),
    [
        ("quality", (25.5, 37.6, 48.8, 57.7), 45.75),
        ("authenticity", (27.3, 38.4, 49.9, 58.7), 41.75),
    ],
)
def test_official_levels_have_the_audited_counts_and_means(official, dimension, means, accuracy):
    """Section 1.5. Catches a part's counts in another's row, and a majority of eval itself."""
    mos, parts = official
    scale = fit_level_scale(
        np.array([mos[dimension][v] for v in parts["train"]]), GEN3DHF[dimension]
    )
    words = {video: scale.level(score) for video, score in mos[dimension].items()}
    found = statistics.levels(words, mos[dimension], parts, WORDS)
    for part, counts in LEVELS[dimension].items():
        assert tuple(found["counts"][part].values()) == counts, part
    named = ("poor", "fair", "good", "excellent")
    assert tuple(round(found["mean_mos"][word], 1) for word in named) == means
    assert found["majority"]["level"] == "excellent"
    assert round(100 * found["majority"]["accuracy"], 2) == accuracy


def test_summary_by_hand():
    """Scores 1, 1, 4: mean 2, deviation sqrt(3), m2 = 2, m3 = 2, skew 2 / 2^1.5. Catches n in place
    of n - 1, and the reverse sign.
    """
    found = statistics.summarise({"seed0001": 1.0, "seed0000": 1.0, "seed0002": 4.0})
    assert (found["n"], found["distinct"]) == (3, 2)
    assert (found["min_video"], found["max_video"]) == ("seed0000", "seed0002")
    assert found["mean"] == pytest.approx(2)
    assert found["std"] == pytest.approx(math.sqrt(3))
    assert found["percentiles"]["50"] == 1
    assert found["percentiles"]["75"] == pytest.approx(2.5)
    assert found["skew"] == pytest.approx(2 / 2**1.5)


def test_a_single_score_has_no_deviation():
    """NaN, not 0, and no warning. Catches a data set of one video."""
    found = statistics.summarise({"seed0000": 50.0})
    assert math.isnan(found["std"])
    assert math.isnan(found["skew"])


def test_bins_are_closed_below():
    """39.9, 40 and 41.9 in bins of two points. Catches a score on an edge in two bins, or none."""
    bins = statistics.histogram({"quality": {"a": 39.9, "b": 40.0, "c": 41.9, "d": 44.0}}, Scale())
    assert [(b["low"], b["high"], b["quality"]) for b in bins] == [
        (38.0, 40.0, 1),
        (40.0, 42.0, 2),
        (42.0, 44.0, 0),
        (44.0, 46.0, 1),
    ]


def test_density_is_one_in_all():
    """Per point of the scale, on a grid of half points that reaches beyond the scores. Catches
    a density per bin; all scores alike have none.
    """
    rng = np.random.default_rng(0)
    scores = dict(zip(videos(200), rng.normal(50, 3, 200), strict=True))
    curve = statistics.density(
        {"quality": scores, "authenticity": dict.fromkeys(scores, 50.0)}, Scale()
    )
    assert sum(point["quality"] for point in curve) * 0.5 == pytest.approx(1, abs=0.01)
    assert max(curve, key=lambda point: point["quality"])["score"] == pytest.approx(50, abs=1.5)
    assert all(math.isnan(point["authenticity"]) for point in curve)


def test_the_most_frequent_level_is_that_of_train():
    """Train is mostly good, eval mostly bad: right in one of three. "None" stays a word of its own.
    Catches a majority that has seen eval.
    """
    words = dict(zip(videos(6), ("good", "good", "None", "bad", "bad", "good"), strict=True))
    mos = dict(zip(videos(6), (60.0, 62.0, 1.0, 10.0, 20.0, 70.0), strict=True))
    parts = {"train": videos(6)[:3], "eval": videos(6)[3:]}
    found = statistics.levels(words, mos, parts, WORDS)
    assert found["majority"] == {"level": "good", "accuracy": pytest.approx(1 / 3)}
    assert list(found["counts"]["all"].items())[:2] == [("None", 1), ("bad", 2)]
    assert found["mean_mos"] == {"None": 1.0, "bad": 15.0, "good": 64.0}
    assert math.isnan(statistics.levels(words, mos, {}, WORDS)["majority"]["accuracy"])


NAMED = {
    "seed0000": ("Eye Distortions", "Hair Distortions"),
    "seed0001": ("No Distortion",),
    "seed0200": ("Eye Distortions",),
    "seed0201": ("No Distortion", "Mouth Distortions"),
}


def test_categories_are_counted_once_a_video():
    """By hand. Catches counts of another generator, "No Distortion" counted as one, and a
    contradiction that nobody hears of.
    """
    found = statistics.count_distortions(NAMED)
    assert found["counts"]["Eye Distortions"] == 2
    assert found["counts"]["Head Structure Distortions"] == 0
    assert found["shares"]["Hair Distortions"] == 0.25
    assert found["per_video"] == {"0": 1, "1": 2, "2": 1}
    assert found["generators"]["1"]["videos"] == 2
    assert found["generators"]["1"]["counts"]["Eye Distortions"] == 1
    assert found["together"]["Eye Distortions"]["Hair Distortions"] == 1
    assert found["together"]["Eye Distortions"]["Eye Distortions"] == 2
    assert found["together"]["Hair Distortions"]["Mouth Distortions"] == 0
    assert found["contradictory"] == ["seed0201"]


def test_scores_with_and_without_a_category():
    """By hand. Catches a video without a score in a mean, and the reverse correlation."""
    mos = {"seed0000": 10.0, "seed0001": 70.0, "seed0200": 30.0}
    found = statistics.categories_against(NAMED, mos)
    assert found["number"]["srcc"] == pytest.approx(-1)
    assert found["number"]["n"] == 3
    assert found["by_number"]["1"] == {"n": 1, "mean": 30.0}
    assert found["by_category"]["Eye Distortions"] == {"n": 2, "with": 20.0, "without": 70.0}
    assert math.isnan(found["by_category"]["Mouth Distortions"]["with"])


def test_regions_touch_at_corners():
    """Two pixels that meet at a corner are one region, a third apart is another; 0.1 counts, less
    does not. Catches another connectivity, and dots that are counted on another pixel.
    """
    map_HW = np.zeros((5, 8), dtype=np.float32)
    map_HW[0, 0], map_HW[1, 1], map_HW[4, 7], map_HW[4, 0] = 1.0, 0.5, 0.2, 0.09
    points = [(0.4, -0.4), (7.0, 4.0), (0.0, 4.0), (1.4, 0.6)]
    found = statistics.measure_marks(map_HW, points)
    assert found == StripMarks(dots=4, regions=2, area=3 / 40, outside=1)
    assert statistics.measure_marks(None, points) == StripMarks(dots=4)
    assert statistics.measure_marks(map_HW, None).dots is None
    with pytest.raises(ValueError, match="outside the map"):
        statistics.measure_marks(map_HW, [(8.0, 0.0)])


def test_marks_go_with_scores_by_hand():
    """More dots, lower scores: SRCC -1 over the strips that have both. Catches strips without a
    score, and unknown dots counted as none.
    """
    marks = {
        "seed0000": StripMarks(dots=0, regions=0, area=0.0, outside=0),
        "seed0001": StripMarks(dots=3, regions=1, area=0.1, outside=1),
        "seed0200": StripMarks(dots=8, regions=1, area=0.3, outside=0),
        "seed0201": StripMarks(dots=9, regions=4, area=0.2, outside=0),
    }
    mos = {"quality": {"seed0000": 70.0, "seed0001": 50.0, "seed0200": 20.0}}
    found = statistics.marks_against(marks, mos)
    assert (found["videos"], found["clean"], found["dots"], found["outside"]) == (4, 1, 20, 1)
    assert found["measures"]["dots"]["quality"]["srcc"] == pytest.approx(-1)
    assert found["measures"]["dots"]["quality"]["n"] == 3
    assert found["measures"]["regions"]["median"] == 1
    assert found["measures"]["area"]["strips"] == 4
    assert found["generators"]["1"] == {"dots": 8.5, "regions": 2.5, "area": 0.25}
    only_maps = {
        video: StripMarks(regions=one.regions, area=one.area) for video, one in marks.items()
    }
    found = statistics.marks_against(only_maps, mos)
    assert (found["clean"], found["dots"], found["outside"]) == (1, None, None)
    assert "dots" not in found["measures"]


def test_raters_by_hand():
    """Three raters who agree but for their places on the slider, and a fourth who is missing twice.
    Catches missing ratings that are counted, and correlations over different videos.
    """
    opinion = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    rating_SV = np.array([opinion, opinion / 2 + 1, 0.1 + opinion, opinion])
    rating_SV[3, :2] = np.nan
    ratings = Ratings("quality", ("a", "b", "c", "d"), tuple(videos(5)), rating_SV)
    found = statistics.raters(ratings, np.random.default_rng(0))
    assert (found["subjects"], found["videos"]) == (4, 5)
    assert (found["ratings"], found["missing"]) == (18, 2)
    assert found["mean_between"] == pytest.approx(1)
    assert found["between"]["a"]["d"] == pytest.approx(1)
    assert [report["mean"] for report in found["reports"]] == pytest.approx([2, 2, 2.1, 3])
    assert [report["ratings"] for report in found["reports"]] == [5, 5, 5, 3]
    assert found["icc"]["videos"] == 3
    assert len(found["split_half"]["srcc"]) > 100
    assert list(found["mos"]) == videos(5)
    again = statistics.raters(ratings, np.random.default_rng(0))
    assert found["split_half"]["srcc"] == again["split_half"]["srcc"]


def test_a_lonely_rater_is_refused_with_a_sentence():
    """Catches a traceback from an empty half."""
    ratings = Ratings("quality", ("a",), tuple(videos(4)), np.array([[1.0, 2.0, 3.0, 4.0]]))
    with pytest.raises(AnnotationError, match="two are needed"):
        statistics.raters(ratings, np.random.default_rng(0))


def test_exemplars_are_chosen_by_their_place():
    """Nine videos in reverse order of their names: worst, quartiles, best. Catches a choice by
    name where there are scores, and a video that is shown twice.
    """
    names = videos(9)
    mos = {"quality": {video: 90.0 - i for i, video in enumerate(names)}}
    chosen = statistics.exemplars(names, mos)
    assert [video for _, video in chosen] == [names[i] for i in (8, 6, 4, 2, 0)]
    assert chosen[0][0] == "worst"
    assert [video for _, video in statistics.exemplars(names, {})] == [
        names[i] for i in (0, 2, 4, 6, 8)
    ]
    assert statistics.exemplars(names[:1], mos) == [("worst", names[0])]
