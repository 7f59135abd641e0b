"""Generators and what tells them: the official lists against the audit of the released files
(2-official-code.md, sections 1.3 and 1.7), and small cases worked out by hand.
"""

import math

import numpy as np
import pytest

from lmme3dhf.data import generator_statistics
from tests.conftest import DIMENSIONS
from tests.data.conftest import videos

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
    rows = generator_statistics.per_generator(mos)
    dealt = generator_statistics.dealt_out(parts, mos["quality"])
    population = math.sqrt(199 / 200)
    found = [
        (
            round(row["quality"]["mean"], 2),
            round(row["quality"]["std"] * population, 2),
            round(row["authenticity"]["mean"], 2),
            round(row["authenticity"]["std"] * population, 2),
            round(row["difference"], 2),
            dealt["counts"]["eval"][str(row["generator"])],
        )
        for row in rows
    ]
    assert tuple(found) == BLOCKS
    # The audit's test of eval alone against 40 of each (p .62) leaves out that train has the rest;
    # both together, cell by cell: one fifth of each generator is drawn without putting back.
    uneven = sum((block[-1] - 40) ** 2 for block in BLOCKS) / (40 * (1 - 0.2))
    assert (dealt["chi2"], dealt["freedom"]) == (pytest.approx(uneven), 9)


def test_official_numbers_hold_the_generator(official):
    """eta squared of section 1.7: offset 0 is the best, the number modulo 10 says nothing; at 200
    Student's t is 13.6. Catches groups that are counted by another rule.
    """
    mos, _ = official
    found = generator_statistics.partition(mos)
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
        found = generator_statistics.generator_floor(mos[dimension], parts)
        assert (round(found["srcc"], 3), round(found["krcc"], 3)) == (srcc, krcc)
        assert round(found["plcc"], 4) == plcc
        assert found["n"] == 400


def test_official_generators_one_and_seven_share_their_latents(official):
    """Section 1.3: r .380 (p 3e-8) and .347 (p 5e-7) between blocks 1 and 7 at equal index. Catches
    pairs of videos of other latents.
    """
    mos, _ = official
    for dimension, r, p in (("quality", 0.380, 3e-8), ("authenticity", 0.347, 5e-7)):
        strongest = generator_statistics.latents(mos[dimension])["pairs"][0]
        assert (strongest["first"], strongest["second"], strongest["n"]) == (1, 7, 200)
        assert round(strongest["r"], 3) == r
        assert float(f"{strongest['p']:.0e}") == p
        assert strongest["p_adjusted"] == pytest.approx(45 * strongest["p"])


def test_the_interval_of_a_mean_is_students():
    """Scores 1, 2, 3: mean 2, deviation 1, t(.975; 2) = 4.3027 (any table), half width 2.4841.
    Catches 1.96, and the deviation in place of that of the mean.
    """
    scores = dict(zip(("seed0200", "seed0201", "seed0399"), (1.0, 2.0, 3.0), strict=True))
    (row,) = generator_statistics.per_generator(
        {"quality": scores, "authenticity": {"seed0200": 4.0}}
    )
    assert (row["generator"], row["videos"], row["difference"]) == (1, 3, -3.0)
    assert row["quality"]["low"] == pytest.approx(2 - 2.4841, abs=1e-4)
    assert row["quality"]["high"] == pytest.approx(2 + 2.4841, abs=1e-4)
    assert row["authenticity"]["n"] == 1


def test_a_single_score_has_no_interval():
    """NaN, not 0, and no difference of one dimension. Catches a data set of one video."""
    row = generator_statistics.per_generator({"quality": {"seed0000": 50.0}})[0]
    assert math.isnan(row["quality"]["low"])
    assert "difference" not in row


def test_an_uneven_draw_by_hand():
    """Generators of 10 and 30 videos, 4 of each in eval: expected 2 and 6 there, 8 and 24 in train,
    chi2 = 4/2 + 4/6 + 4/8 + 4/24 = 10/3 with one degree of freedom; its upper tail is
    erfc(sqrt(chi2 / 2)). Catches a test against equal counts where generators differ in size, and
    one that takes the rest for endless.
    """
    first, second = videos(10), [f"seed{n:04d}" for n in range(200, 230)]
    parts = {"train": [*first[4:], *second[4:]], "eval": [*first[:4], *second[:4]], "val": []}
    found = generator_statistics.dealt_out(parts, [*first, *second])
    assert found["counts"]["eval"] == {"0": 4, "1": 4}
    assert found["counts"]["train"] == {"0": 6, "1": 26}
    assert (found["chi2"], found["freedom"]) == (pytest.approx(10 / 3), 1)
    assert found["p"] == pytest.approx(math.erfc(math.sqrt(5 / 3)))


@pytest.mark.parametrize("parts", [{}, {"eval": []}, {"eval": videos(4)}])
def test_one_part_is_not_dealt_out(parts):
    """Nothing to compare. Catches an empty table."""
    found = generator_statistics.dealt_out(parts, [*videos(4), "seed0200"])
    assert math.isnan(found["p"])
    assert set(found["counts"]) == set(parts)


def test_explained_variance_by_hand():
    """Groups (0, 2) and (4, 6): between 4 * 4 = 16 of 20. Catches a share of deviations."""
    values, groups = np.array([0.0, 2.0, 4.0, 6.0]), np.array([7, 7, 9, 9])
    assert generator_statistics.explained(values, groups) == pytest.approx(16 / 20)
    assert math.isnan(generator_statistics.explained(np.ones(4), groups))


def test_partition_finds_a_planted_boundary():
    """400 scores jump from 0 to 1 at number 200. By hand: blocks from 50 have means 0, 1/4 and 1,
    so 62.5 of 100; those from 100 have 0, 1/2 and 1, so 50. Catches an offset that counts from the
    other side, and figures where numbers are missing.
    """
    scores = {video: float(i >= 200) for i, video in enumerate(videos(400))}
    found = generator_statistics.partition({"quality": scores})
    assert found["best"] == {"offset": 0, "eta2": pytest.approx(1)}
    assert found["worst"] == {"offset": 100, "eta2": pytest.approx(0.5)}
    assert found["eta2"]["quality"][50] == pytest.approx(0.625)
    # A jump at 150 is found there, not 150 before the end of a period.
    elsewhere = generator_statistics.partition(
        {"quality": {v: float(v >= "seed0150") for v in scores}}
    )
    assert elsewhere["best"] == {"offset": 150, "eta2": pytest.approx(1)}
    # Without any variance beside the jump t is not defined; infinity could not be written as JSON.
    assert math.isnan(found["steps"][0]["quality"])
    assert "difference" not in found["steps"][0]
    del scores["seed0123"]
    assert generator_statistics.partition({"quality": scores}) is None
    few = {video: float(i) for i, video in enumerate(videos(399))}
    assert generator_statistics.partition({"quality": few}) is None


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
    found = generator_statistics.latents(table(np.array([-2.0, 1.0, 1.0]) + residual + generators))
    assert found["eta2"] == pytest.approx(12 / 16)
    assert found["by_chance"] == pytest.approx(2 / 4)
    assert found["f"] == pytest.approx(3)
    assert found["p"] == pytest.approx(1 / 4)
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == (0, 1, 3)


def test_one_generator_has_no_latent_effect():
    """Nothing can be tested. Catches a division by no degrees of freedom."""
    found = generator_statistics.latents(table(np.array([[1.0, 2.0, 4.0]])))
    assert math.isnan(found["p"])
    assert found["pairs"] == []


def test_the_floor_says_a_generators_mean():
    """Means 10, 20, 30 in train, eval in another order; an unknown generator gets the mean of all.
    Catches a floor that reads eval.
    """
    train = {"seed0000": 8.0, "seed0001": 12.0, "seed0200": 20.0, "seed0400": 30.0}
    held_out = {"seed0002": 1.0, "seed0202": 3.0, "seed0402": 2.0}
    parts = {"train": list(train), "eval": list(held_out)}
    found = generator_statistics.generator_floor(train | held_out, parts)
    # Ranks 1, 2, 3 against 1, 3, 2.
    assert found["srcc"] == pytest.approx(0.5)
    assert found["krcc"] == pytest.approx(1 / 3)
    # 17.5, the mean of train, lies between 10 and 20: ranks 1, 3, 4, 2 against 1, 3, 2, 4.
    more = held_out | {"seed0602": 4.0}
    found = generator_statistics.generator_floor(train | more, {**parts, "eval": list(more)})
    assert found["srcc"] == pytest.approx(1 - 6 * 8 / (4 * 15))
    assert generator_statistics.generator_floor(train, {"train": list(train)}) is None
