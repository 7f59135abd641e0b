"""Figures of a data set: the official lists against the audit of the released files, and small
cases worked out by hand.

The audit (2-official-code.md, sections 1.3 to 1.7) was made with other code from the same files.
"""

import math

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.levels import fit_level_scale
from lmme3dhf.annotations.ratings import Ratings
from lmme3dhf.data import statistics
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.statistics import StripMarks
from lmme3dhf.vocabulary import DIMENSIONS
from tests.conftest import shared_data


def videos(count: int) -> list[str]:
    return [f"seed{number:04d}" for number in range(count)]


@pytest.fixture(scope="module")
def official() -> tuple[dict, dict]:
    """Scores and parts of the eight official lists."""
    mos: dict = {dimension: {} for dimension in DIMENSIONS}
    parts: dict = {}
    for dimension in DIMENSIONS:
        for part in ("train", "eval"):
            path = shared_data("gen3dhf_annotations", "numerical", f"{part}_{dimension}.json")
            samples = read_list(path)
            parts[part] = [sample.video for sample in samples]
            mos[dimension] |= {sample.video: sample.mos for sample in samples}
    return mos, parts


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
    scale = fit_level_scale(np.array([mos[dimension][v] for v in parts["train"]]), dimension)
    words = {video: scale.level(score) for video, score in mos[dimension].items()}
    found = statistics.levels(words, mos[dimension], parts)
    for part, counts in LEVELS[dimension].items():
        assert tuple(found["counts"][part].values()) == counts, part
    named = ("poor", "fair", "good", "excellent")
    assert tuple(round(found["mean_mos"][word], 1) for word in named) == means
    assert found["majority"]["level"] == "excellent"
    assert round(100 * found["majority"]["accuracy"], 2) == accuracy


# Mean and deviation of quality and authenticity, mean difference, videos in eval (1.3 and 1.7).
BLOCKS = (
    (38.72, 7.69, 35.26, 6.38, 3.46, 47),
    (51.86, 7.82, 49.60, 10.94, 2.25, 33),
    (53.63, 6.79, 54.09, 7.60, -0.47, 43),
    (52.37, 9.64, 52.89, 9.87, -0.52, 34),
    (54.92, 6.86, 56.04, 6.36, -1.11, 41),
    (53.76, 6.92, 52.66, 7.96, 1.10, 39),
    (53.30, 5.68, 53.96, 7.18, -0.67, 37),
    (48.09, 7.22, 48.26, 9.53, -0.17, 38),
    (48.19, 6.35, 49.05, 5.10, -0.86, 37),
    (54.27, 5.67, 54.57, 4.66, -0.30, 51),
)


def test_official_generators_have_the_audited_means(official):
    """Section 1.7, whose deviations divide by n where ours divide by n - 1. Catches blocks that
    begin elsewhere.
    """
    mos, parts = official
    rows = statistics.per_generator(mos)
    dealt = statistics.dealt_out(set(parts["eval"]), mos["quality"])
    population = math.sqrt(199 / 200)
    found = [
        (
            round(row["quality"]["mean"], 2),
            round(row["quality"]["std"] * population, 2),
            round(row["authenticity"]["mean"], 2),
            round(row["authenticity"]["std"] * population, 2),
            round(row["difference"], 2),
            dealt["counts"][str(row["generator"])],
        )
        for row in rows
    ]
    assert tuple(found) == BLOCKS
    assert round(dealt["p"], 2) == 0.62


def test_official_numbers_hold_the_generator(official):
    """eta squared of section 1.7: offset 0 is the best, the number modulo 10 says nothing; at 200
    Student's t is 13.6. Catches groups that are counted by another rule.
    """
    mos, _ = official
    found = statistics.partition(mos)
    assert found["best"]["offset"] == 0
    assert round(found["best"]["eta2"], 3) == 0.643
    assert round(found["worst"]["eta2"], 3) == 0.482
    assert [round(found["eta2"][d][0], 3) for d in DIMENSIONS] == [0.297, 0.346]
    assert round(found["modulo_10"]["quality"], 4) == 0.0006
    assert [step["at"] for step in found["steps"]] == list(range(200, 2000, 200))
    assert round(abs(found["steps"][0]["quality"]), 1) == 13.6
    assert max(found["steps"], key=lambda step: abs(step["difference"]))["at"] == 1200


def test_official_floor_of_the_generator(official):
    """Section 1.7: .472/.578/.341 and .462/.629/.331 (a PLCC of .5775 is printed as .578 there).
    Catches means over eval, and a floor over both dimensions at once.
    """
    mos, parts = official
    expected = {"quality": (0.472, 0.5775, 0.341), "authenticity": (0.462, 0.6286, 0.331)}
    for dimension, (srcc, plcc, krcc) in expected.items():
        found = statistics.generator_floor(mos[dimension], parts)
        assert (round(found["srcc"], 3), round(found["krcc"], 3)) == (srcc, krcc)
        assert round(found["plcc"], 4) == plcc
        assert found["n"] == 400


def test_official_generators_one_and_seven_share_their_latents(official):
    """Section 1.3: r .380 (p 3e-8) and .347 (p 5e-7) between blocks 1 and 7 at equal index. Catches
    pairs of videos of other latents.
    """
    mos, _ = official
    for dimension, r, p in (("quality", 0.380, 3e-8), ("authenticity", 0.347, 5e-7)):
        strongest = statistics.latents(mos[dimension])["pairs"][0]
        assert (strongest["first"], strongest["second"], strongest["n"]) == (1, 7, 200)
        assert round(strongest["r"], 3) == r
        assert float(f"{strongest['p']:.0e}") == p
        assert strongest["p_adjusted"] == pytest.approx(45 * strongest["p"])


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
    row = statistics.per_generator({"quality": {"seed0000": 50.0}})[0]
    assert math.isnan(row["quality"]["low"])
    assert "difference" not in row


def test_bins_are_closed_below():
    """39.9, 40 and 41.9 in bins of two points. Catches a score on an edge in two bins, or none."""
    bins = statistics.histogram({"quality": {"a": 39.9, "b": 40.0, "c": 41.9, "d": 44.0}})
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
    curve = statistics.density({"quality": scores, "authenticity": dict.fromkeys(scores, 50.0)})
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
    found = statistics.levels(words, mos, parts)
    assert found["majority"] == {"level": "good", "accuracy": pytest.approx(1 / 3)}
    assert list(found["counts"]["all"].items())[:2] == [("None", 1), ("bad", 2)]
    assert found["mean_mos"] == {"None": 1.0, "bad": 15.0, "good": 64.0}
    assert math.isnan(statistics.levels(words, mos, {})["majority"]["accuracy"])


def test_the_interval_of_a_mean_is_students():
    """Scores 1, 2, 3: mean 2, deviation 1, t(.975; 2) = 4.3027 (any table), half width 2.4841.
    Catches 1.96, and the deviation in place of that of the mean.
    """
    scores = dict(zip(("seed0200", "seed0201", "seed0399"), (1.0, 2.0, 3.0), strict=True))
    (row,) = statistics.per_generator({"quality": scores, "authenticity": {"seed0200": 4.0}})
    assert (row["generator"], row["videos"], row["difference"]) == (1, 3, -3.0)
    assert row["quality"]["low"] == pytest.approx(2 - 2.4841, abs=1e-4)
    assert row["quality"]["high"] == pytest.approx(2 + 2.4841, abs=1e-4)
    assert row["authenticity"]["n"] == 1


def test_an_uneven_draw_by_hand():
    """10 and 30 videos, 4 of each drawn: expected 2 and 6, chi2 = 4/2 + 4/6. Catches a test against
    equal counts where generators differ in size.
    """
    first, second = videos(10), [f"seed{n:04d}" for n in range(200, 230)]
    found = statistics.dealt_out({*first[:4], *second[:4]}, [*first, *second])
    assert found["counts"] == {"0": 4, "1": 4}
    assert found["chi2"] == pytest.approx(4 / 2 + 4 / 6)
    assert math.isnan(statistics.dealt_out(set(), first)["p"])


def test_explained_variance_by_hand():
    """Groups (0, 2) and (4, 6): between 4 * 4 = 16 of 20. Catches a share of deviations."""
    values, groups = np.array([0.0, 2.0, 4.0, 6.0]), np.array([7, 7, 9, 9])
    assert statistics.explained(values, groups) == pytest.approx(16 / 20)
    assert math.isnan(statistics.explained(np.ones(4), groups))


def test_partition_finds_a_planted_boundary():
    """400 scores jump from 0 to 1 at number 200. By hand: blocks from 50 have means 0, 1/4 and 1,
    so 62.5 of 100; those from 100 have 0, 1/2 and 1, so 50. Catches an offset that counts from the
    other side, and figures where numbers are missing.
    """
    scores = {video: float(i >= 200) for i, video in enumerate(videos(400))}
    found = statistics.partition({"quality": scores})
    assert found["best"] == {"offset": 0, "eta2": pytest.approx(1)}
    assert found["worst"] == {"offset": 100, "eta2": pytest.approx(0.5)}
    assert found["eta2"]["quality"][50] == pytest.approx(0.625)
    # A jump at 150 is found there, not 150 before the end of a period.
    elsewhere = statistics.partition({"quality": {v: float(v >= "seed0150") for v in scores}})
    assert elsewhere["best"] == {"offset": 150, "eta2": pytest.approx(1)}
    # Without any variance beside the jump t is not defined; infinity could not be written as JSON.
    assert math.isnan(found["steps"][0]["quality"])
    assert "difference" not in found["steps"][0]
    del scores["seed0123"]
    assert statistics.partition({"quality": scores}) is None
    few = {video: float(i) for i, video in enumerate(videos(399))}
    assert statistics.partition({"quality": few}) is None


def table(effect: np.ndarray) -> dict[str, float]:
    """Scores (generator, latent) by video."""
    return {f"seed{200 * g + i:04d}": float(x) for (g, i), x in np.ndenumerate(effect)}


def test_latent_effect_by_hand():
    """Two generators and three latents. Within generators the squares sum to 16, of which the
    latents' -2, 1, 1 make 12: F = (12 / 2) / (4 / 2) = 3, and with 2 and 2 degrees of freedom p =
    1 / (1 + F). Catches a generator's mean counted as an effect of the latent.
    """
    residual = np.array([[0.0, 1.0, -1.0], [0.0, -1.0, 1.0]])  # 0 in every row and column
    generators = np.array([[0.0], [50.0]])
    found = statistics.latents(table(np.array([-2.0, 1.0, 1.0]) + residual + generators))
    assert found["eta2"] == pytest.approx(12 / 16)
    assert found["by_chance"] == pytest.approx(2 / 4)
    assert found["f"] == pytest.approx(3)
    assert found["p"] == pytest.approx(1 / 4)
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == (0, 1, 3)


def test_one_generator_has_no_latent_effect():
    """Nothing can be tested. Catches a division by no degrees of freedom."""
    found = statistics.latents(table(np.array([[1.0, 2.0, 4.0]])))
    assert math.isnan(found["p"])
    assert found["pairs"] == []


def test_the_floor_says_a_generators_mean():
    """Means 10, 20, 30 in train, eval in another order; an unknown generator gets the mean of all.
    Catches a floor that reads eval.
    """
    train = {"seed0000": 8.0, "seed0001": 12.0, "seed0200": 20.0, "seed0400": 30.0}
    held_out = {"seed0002": 1.0, "seed0202": 3.0, "seed0402": 2.0}
    parts = {"train": list(train), "eval": list(held_out)}
    found = statistics.generator_floor(train | held_out, parts)
    # Ranks 1, 2, 3 against 1, 3, 2.
    assert found["srcc"] == pytest.approx(0.5)
    assert found["krcc"] == pytest.approx(1 / 3)
    # 17.5, the mean of train, lies between 10 and 20: ranks 1, 3, 4, 2 against 1, 3, 2, 4.
    more = held_out | {"seed0602": 4.0}
    found = statistics.generator_floor(train | more, {**parts, "eval": list(more)})
    assert found["srcc"] == pytest.approx(1 - 6 * 8 / (4 * 15))
    assert statistics.generator_floor(train, {"train": list(train)}) is None


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
