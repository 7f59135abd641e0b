"""Saliency metrics: golden values, simulations of what is random elsewhere, invariances, batches
and tensors against single maps, and the decided edge cases. What other packages compute is in
test_agreement.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter

from lmme3dhf.metrics import saliency
from lmme3dhf.metrics.agreement import (
    KINDS,
    Case,
    golden_inputs,
    golden_scores,
    golden_tolerance,
    random_case,
)
from lmme3dhf.metrics.saliency import (
    FIXATION_RULES,
    PRESETS,
    FixationRule,
    SaliencyOptions,
    fixations_from_density,
    mean_scores,
    other_fixations,
    prepare_released,
    released,
    saliency_scores,
)

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "saliency.json").read_text(encoding="utf-8")
)["cases"]
AREAS = ("auc", "auc_judd", "auc_borji", "auc_shuffled")


@functools.cache
def inputs() -> dict[str, Case]:
    return golden_inputs()


def parts(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return case.predicted_HW, case.density_HW, case.fixations_HW


def small() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, density and fixations of the golden case G1, 24 x 32 with five fixations."""
    return parts(inputs()["G1"])


def random_parts(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    predicted = np.floor(steps * rng.random((20, 30))) / steps
    return predicted, rng.random((20, 30)), rng.random((20, 30)) < 0.05


@pytest.mark.parametrize("name", list(GOLDEN))
def test_golden_inputs_are_those_of_the_digits(name):
    """Sums and counts that came with the digits. Catches inputs that changed with the digits."""
    case, golden = inputs()[name], GOLDEN[name]
    assert case.fixations_HW.sum() == golden["fixations"]
    for field, total in golden["sums"].items():
        digits = 0.5 if isinstance(total, int) else 1e-6
        assert getattr(case, f"{field}_HW").sum() == pytest.approx(total, abs=digits, rel=0)


@pytest.mark.parametrize("name", list(GOLDEN))
def test_golden_values(name):
    """Seventeen definitions. Catches ties mishandled (G3: eight steps; G4: many zeros), the wrong
    ddof, SIM without or with min-max, KLD with another epsilon, another target or with its
    arguments exchanged, single precision, and sums that lose digits on a full strip (G2).
    """
    scores, values = golden_scores(inputs()[name]), GOLDEN[name]["values"]
    compared = set(scores) & set(values)
    assert compared == set(values) - {"entropy of the density"}
    assert len(compared) >= 15
    for metric in compared:
        tolerance = golden_tolerance(name, metric)
        assert scores[metric] == pytest.approx(values[metric], abs=tolerance, rel=0), metric


def test_borji_differs_from_the_golden_digits_by_a_threshold_only(monkeypatch):
    """With thresholds as multiples of a float 0.1 (.6 becomes .6000000000000001, and level 153 of
    255 falls below it) the digits are met exactly. Catches a tolerance that hides a mistake.
    """
    monkeypatch.setattr(saliency, "STEPS", tuple(0.1 * k for k in range(1, 11)))
    score = saliency_scores(*parts(inputs()["G2b"]))["auc_borji"]
    expected = GOLDEN["G2b"]["values"]["auc_borji"]
    assert score == pytest.approx(expected, abs=1e-13, rel=0)


def test_unsigned_8_bit_maps_go_through_their_levels():
    """The same map as 8-bit integers and as floats. Catches a level counted in the wrong bin, and
    moments of levels that nobody has.
    """
    predicted, density, fixations = parts(inputs()["G2b"])
    shuffled = np.roll(fixations, 40, axis=1) & ~fixations
    assert predicted.min() == 0
    dark = np.floor(predicted / 2) + 3
    for map_ in (predicted, dark):
        for preset in PRESETS:
            floats = saliency_scores(map_, density, fixations, options=preset, shuffled=shuffled)
            eight_bit = saliency_scores(
                map_.astype(np.uint8), density, fixations, options=preset, shuffled=shuffled
            )
            assert eight_bit == pytest.approx(floats, abs=1e-13)
            assert all(eight_bit[name] == floats[name] for name in AREAS)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_give_what_arrays_give(kind):
    """Areas to the last bit, the rest to 1e-12, as tensors of their own kind; narrow ones and those
    of a training step too. Catches a path of one library only.
    """
    rng = np.random.default_rng(5)
    for _ in range(6):
        case = random_case(rng, kind)
        arrays = [*parts(case), case.others_HW, case.density_HW + 0.1]
        tensors = [torch.as_tensor(array) for array in arrays]
        for preset in PRESETS:
            ours, theirs = (
                saliency_scores(*a[:3], options=preset, shuffled=a[3], baseline=a[4])
                for a in (arrays, tensors)
            )
            assert theirs == pytest.approx(ours, abs=1e-12, rel=0)
            assert all(theirs[name] == ours[name] for name in AREAS)
            assert len(ours) == 9
    batch = saliency_scores(*(tensor[None] for tensor in tensors[:3]))
    assert isinstance(batch["auc"], torch.Tensor)
    assert batch["auc"].dtype == torch.float64
    assert torch.equal(torch.as_tensor(case.predicted_HW), tensors[0])
    half = tensors[0].to(torch.bfloat16 if kind == "float" else torch.float32).requires_grad_()
    scores = saliency_scores(half, *tensors[1:3])
    wide = saliency_scores(half.detach().double(), *tensors[1:3])
    assert scores == wide


@pytest.mark.parametrize("kind", [*KINDS, "constant"])
@pytest.mark.parametrize("at_once", [2**20, 2000])
def test_a_batch_is_a_loop(kind, at_once, monkeypatch):
    """All at once and in parts of two or three maps, one truth of them empty: equal to the last
    bit, and as tensors to 1e-12. Catches bins, moments or counts of one map that leak into the
    next.
    """
    monkeypatch.setattr(saliency, "PIXELS_AT_ONCE_CPU", at_once)
    rng = np.random.default_rng(8)
    predicted, density, fixations = [], [], []
    for _ in range(7):
        case = random_case(rng, "float" if kind == "constant" else kind)
        predicted.append(case.predicted_HW[:16, :16])
        density.append(case.density_HW[:16, :16] + 1e-3)
        fixations.append(case.fixations_HW[:16, :16])
    if kind == "constant":
        predicted[2][:] = 0.1
        predicted[4][:] = 0
    density[3][:], fixations[3][:] = 0, False
    arrays = [np.stack(maps) for maps in (predicted, density, fixations)]
    shuffled = other_fixations(arrays[2])
    untouched = [array.copy() for array in arrays]
    for preset in PRESETS:
        batch = saliency_scores(*arrays, options=preset, shuffled=shuffled, baseline=density[0])
        assert set(batch) == {*AREAS, "nss", "cc", "sim", "kld", "ig"}
        tensors = [torch.as_tensor(array) for array in (*arrays, shuffled, density[0])]
        same = saliency_scores(
            *tensors[:3], options=preset, shuffled=tensors[3], baseline=tensors[4]
        )
        for name, values in same.items():
            assert values.numpy() == pytest.approx(batch[name], abs=1e-12, rel=0, nan_ok=True)
        for row in range(7):
            alone = saliency_scores(
                *(array[row] for array in arrays),
                options=preset,
                shuffled=shuffled[row],
                baseline=density[0],
            )
            assert {name: values[row] for name, values in batch.items()} == pytest.approx(
                alone, abs=0, rel=0, nan_ok=True
            )
    assert all(map(np.array_equal, arrays, untouched))


def test_one_truth_stands_beside_many_predictions():
    """Catches a truth that only the first prediction is compared with."""
    predicted, density, fixations = small()
    batch = saliency_scores(np.stack([predicted, density]), density, fixations)
    for row, map_ in enumerate((predicted, density)):
        alone = saliency_scores(map_, density, fixations)
        assert {name: values[row] for name, values in batch.items()} == alone
    with pytest.raises(ValueError, match="resize first"):
        saliency_scores(predicted, density[None], fixations)


def test_auc_judd_is_the_mean_over_jitter():
    """Simulates the definition: jitter breaks ties, thresholds stand at the fixated values,
    trapezoid from (0, 0) to (1, 1). Catches a wrong closed form; the mean of 4,000 draws is good to
    about 1e-3.
    """
    rng = np.random.default_rng(1)
    predicted = np.array([[0.0, 0.5, 0.5, 0.5], [1.0, 0.5, 0.5, 0.0], [0.5, 0.0, 0.5, 1.0]])
    fixations = np.zeros((3, 4), dtype=bool)
    fixations[[0, 0, 1], [1, 2, 0]] = True
    total, draws = 0.0, 4000
    for _ in range(draws):
        jittered = predicted + rng.random(predicted.shape) * 1e-7
        thresholds = np.sort(jittered[fixations])[::-1]
        hits = np.arange(1, 4) / 3
        false = np.array([(jittered[~fixations] >= threshold).mean() for threshold in thresholds])
        total += trapezoid([0, *hits, 1], [0, *false, 1])
    score = saliency_scores(predicted, None, fixations)["auc_judd"]
    assert score == pytest.approx(total / draws, abs=3e-3)


@pytest.mark.parametrize("steps", [3, 10**9])
def test_auc_judd_is_the_area_and_a_corner(steps):
    """The corner counted here pixel by pixel, on tied and on untied maps. Catches a corner counted
    among all pixels, or above the highest fixated value.
    """
    for seed in range(10):
        predicted, _, fixations = random_parts(seed, steps)
        at, elsewhere = predicted[fixations], predicted[~fixations]
        pairs = np.sign(at[:, None] - elsewhere[None]) / 2 + 0.5
        k, m = (at == at.min()).sum(), (elsewhere == at.min()).sum()
        corner = ((elsewhere > at.min()).sum() + m * k / (k + 1)) / (2 * pairs.size)
        scores = saliency_scores(predicted, None, fixations)
        assert scores["auc"] == pytest.approx(pairs.mean(), abs=1e-12)
        assert scores["auc_judd"] == pytest.approx(pairs.mean() + corner, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_chance_level_of_auc_judd_is_not_one_half(n):
    """Random maps and n random fixations: 1/2 + 1/(2 (n + 1)), as was simulated elsewhere to
    .754, .671, .581, .555. Catches a correction that vanishes on average.
    """
    rng = np.random.default_rng(n)
    predicted = rng.random((600, 20, 20))
    fixations = np.zeros((600, 400), dtype=bool)
    for row in fixations:
        row[rng.choice(400, n, replace=False)] = True
    values = saliency_scores(predicted, None, fixations.reshape(predicted.shape))["auc_judd"]
    error = values.std(ddof=1) / math.sqrt(600)
    assert values.mean() == pytest.approx(0.5 + 1 / (2 * (n + 1)), abs=4 * error)
    assert values.mean() == pytest.approx({1: 0.754, 2: 0.671, 5: 0.581, 9: 0.555}[n], abs=0.025)


@pytest.mark.parametrize("name", ["G1", "G3", "G4"])
def test_borji_and_shuffled_are_means_of_random_splits(name):
    """The benchmark's code drawn literally, 3,000 splits each. Catches a closed form that counts
    other pixels or thresholds; five standard errors.
    """
    case = inputs()[name]
    rng = np.random.default_rng(3)
    map_ = case.predicted_HW
    scaled = (map_ - map_.min()) / np.ptp(map_)
    at = scaled[case.fixations_HW]
    steps = (np.arange(10, -1, -1) / 10)[:, None]
    hits = [0, *(at >= steps).mean(axis=1), 1]
    ours = case.scores("mit")
    pools = {"auc_borji": scaled.ravel(), "auc_shuffled": scaled[case.others_HW]}
    for metric, pool in pools.items():
        areas = [
            trapezoid(hits, [0, *(rng.choice(pool, len(at)) >= steps).mean(axis=1), 1])
            for _ in range(3000)
        ]
        error = np.std(areas, ddof=1) / math.sqrt(len(areas))
        assert error > 1e-4
        assert ours[metric] == pytest.approx(np.mean(areas), abs=5 * error)


def test_areas_are_invariant_under_monotone_maps_and_mirror_under_their_inverse():
    """Also where nearly all pixels share a bin of the histogram. Catches binning and min-max
    scaling inside the metric.
    """
    predicted, _, fixations = random_parts(0, 10**9)
    scores = saliency_scores(predicted, None, fixations)
    for changed in (np.exp(5 * predicted) - 40, np.exp(60 * predicted), predicted**201):
        found = saliency_scores(changed, None, fixations)
        assert found["auc"] == scores["auc"]
        assert found["auc_judd"] == scores["auc_judd"]
    assert np.ptp(np.sort(predicted**201, axis=None)[:500]) < 1e-6
    assert saliency_scores(-predicted, None, fixations)["auc"] == pytest.approx(1 - scores["auc"])
    mirrored = saliency_scores(predicted[:, ::-1], None, fixations[:, ::-1])
    assert mirrored["auc"] == scores["auc"]


def test_values_that_differ_in_the_last_bit_are_not_tied():
    """By hand: the fixated pixel is one unit in the last place above its neighbour; it beats two of
    three. Catches a comparison after the map is scaled to 0..1, where the two are the same.
    """
    value = 1e-3
    below = np.nextafter(value, 0)
    assert below < value
    assert below + 1 == value + 1
    predicted = np.array([[-1.0, below, value, 1.0]])
    fixations = np.array([[False, False, True, False]])
    assert saliency_scores(predicted, None, fixations)["auc"] == pytest.approx(2 / 3)


def test_affine_maps_do_not_change_nss_cc_sim_and_gain():
    """Catches a metric that needs maps of a certain scale."""
    predicted, density, fixations = random_parts(3, 10**9)
    for density_ in (density, 5 * np.where(density > 0.9, density, 0)):
        scores = saliency_scores(predicted, density_, fixations, baseline=density)
        scaled = saliency_scores(40 * predicted + 7, density_, fixations, baseline=density)
        for name in ("nss", "cc", "sim", "ig", "auc_borji"):
            assert scaled[name] == pytest.approx(scores[name], abs=1e-12)
        times = saliency_scores(40 * predicted, density_, fixations)
        assert times["kld"] == pytest.approx(scores["kld"], abs=1e-12)
        other_scale = saliency_scores(predicted, 9 * density_, fixations)
        assert other_scale == pytest.approx({k: scores[k] for k in other_scale}, abs=1e-12)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_map_against_itself(preset):
    """CC and SIM 1, KLD 0 up to the epsilon. Catches a normalisation that differs between the two
    sides.
    """
    _, density, fixations = parts(inputs()["G2"])
    scores = saliency_scores(density, density, fixations, options=preset, baseline=density)
    assert scores["cc"] == pytest.approx(1)
    assert scores["sim"] == pytest.approx(1)
    # n pixels of the support, eps each: below 1e-3 for the 1e-8 of the released loss.
    assert scores["kld"] == pytest.approx(0, abs=1e-3 if preset == "lmme3dhf-repo" else 1e-9)
    assert scores["ig"] == 0
    assert scores["auc"] > 0.99


def test_small_maps_by_hand():
    """By hand. NSS: mean 1/4, sample deviation 1/2, so 1.5; over the population's sqrt(3) / 4 it is
    sqrt(3). KLD of (1/2, 1/2) from (3/4, 1/4): ln(2/3)/2 + ln(2)/2. Gain at the one fixation over
    a uniform map of four: log2(1 / (1/4)).
    """
    bright = np.array([[0.0, 0.0, 0.0, 1.0]])
    scores = saliency_scores(bright, None, bright > 0, baseline=np.ones((1, 4)))
    assert scores["nss"] == pytest.approx(1.5)
    assert scores["ig"] == pytest.approx(2)
    assert scores["auc"] == 1
    population = saliency_scores(bright, None, bright > 0, options="pysaliency")
    assert population["nss"] == pytest.approx(math.sqrt(3))
    assert population["auc"] == pytest.approx((3 + 0.5) / 4)  # itself included
    one_each = saliency_scores(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]]), None)
    assert one_each["kld"] == pytest.approx((math.log(2 / 3) + math.log(2)) / 2)
    assert set(one_each) == {"cc", "sim", "kld"}
    halves = saliency_scores(np.array([[0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 2.0]]), None)
    assert halves["sim"] == pytest.approx(0.5)
    # Fixations 2 and 3 (scaled 2/3, 1), others 0 and 1: steps .1 to .6 pass both, .7 to 1 one.
    # False alarms over all four: 3/4 to step .3, 2/4 to .6, 1/4 to 1. By trapezoids: 1/8 x 1/2
    # up to (1/4, 1/2), (1/2, 1) adds 3/16, the rest 1/2: 3/4.
    ramp = np.array([[0.0, 1.0, 2.0, 3.0]])
    assert saliency_scores(ramp, None, ramp > 1)["auc_borji"] == pytest.approx(0.75)


def test_an_empty_ground_truth_gives_nan_everywhere():
    """A clean face must not count as SIM 0 and KLD 0, as in the MIT code. Catches values that pull
    the mean.
    """
    predicted, density, fixations = small()
    for preset in PRESETS:
        scores = saliency_scores(
            predicted,
            np.zeros_like(density),
            np.zeros_like(fixations),
            options=preset,
            shuffled=fixations,
            baseline=density,
        )
        assert len(scores) == 9
        assert all(math.isnan(value) for value in scores.values())
    without_others = saliency_scores(predicted, None, fixations, shuffled=np.zeros_like(fixations))
    assert math.isnan(without_others["auc_shuffled"])
    assert not math.isnan(without_others["auc_borji"])


def test_where_every_pixel_is_fixated():
    """There is nothing to compare with, unless a pixel is compared with itself too. Catches a
    division by zero pixels.
    """
    predicted, density, fixations = small()
    everywhere = np.ones_like(fixations)
    for map_ in (predicted, np.ones_like(predicted)):
        scores = saliency_scores(map_, density, everywhere)
        assert math.isnan(scores["auc"])
        assert math.isnan(scores["auc_judd"])
        assert scores["auc_borji"] == 0.5
        assert saliency_scores(map_, None, everywhere, options="pysaliency")["auc"] == 0.5
    assert saliency_scores(predicted, None, everywhere)["nss"] == pytest.approx(0, abs=1e-12)


# Golden entropy of the density: a uniform map costs ln 768 less that, an all-zero one -ln 2**-52.
ENTROPY = GOLDEN["G1"]["values"]["entropy of the density"]


@pytest.mark.parametrize("level", [0.1, 0.0, 3.0])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8])
def test_a_constant_prediction_is_decided(level, kind):
    """Catches NSS of round-off (0.1 has a deviation of 1e-17 over 768 pixels, which gives .9993),
    SIM 0 / 0, and presets that decide alike.
    """
    _, density, fixations = small()
    flat = np.full(density.shape, level).astype(kind)
    level = float(flat[0, 0])
    given = {"shuffled": np.roll(fixations, 1), "baseline": np.ones_like(density)}
    mit = saliency_scores(flat, density, fixations, **given)
    assert mit["auc"] == mit["auc_borji"] == mit["auc_shuffled"] == 0.5
    assert mit["auc_judd"] == pytest.approx(0.5 + 1 / (2 * (5 + 1)))  # chance for five fixations
    assert all(math.isnan(mit[name]) for name in ("nss", "cc", "sim"))
    expected = (math.log(768) if level else 52 * math.log(2)) - ENTROPY
    assert mit["kld"] == pytest.approx(expected)
    assert mit["ig"] == 0
    uniform = saliency_scores(flat, density, fixations, options="pysaliency", **given)
    assert (uniform["auc"], uniform["nss"], uniform["cc"]) == (0.5, 0, 0)
    assert uniform["kld"] == pytest.approx(math.log(768) - ENTROPY)
    shares = density / density.sum()
    assert uniform["sim"] == pytest.approx(np.minimum(shares, 1 / 768).sum())
    repo = saliency_scores(flat, density, fixations, options="lmme3dhf-repo")
    assert math.isnan(repo["kld"])
    # With the minimum off, any constant map is an all-zero one.
    shift = SaliencyOptions(negative="shift")
    below = saliency_scores(np.full(density.shape, -2.0), density, None, options=shift)
    assert below["kld"] == pytest.approx(52 * math.log(2) - ENTROPY)


def test_float32_rounding_is_still_constant():
    """Catches a resized constant map whose last bits would be correlated with the truth."""
    _, density, fixations = small()
    nearly = (0.3 + 1e-8 * np.random.default_rng(0).normal(size=density.shape)).astype(np.float32)
    assert np.ptp(nearly) > 0
    scores = saliency_scores(nearly, density, fixations)
    assert all(math.isnan(scores[name]) for name in ("nss", "cc", "sim"))
    assert scores["auc"] == 0.5
    assert scores["kld"] == pytest.approx(math.log(768) - ENTROPY)
    # Ten times the limit is a map with structure.
    faint = 0.3 + 3e-6 * density
    assert saliency_scores(faint, density, fixations)["cc"] == pytest.approx(1, abs=1e-6)


def test_a_constant_density_has_no_correlation():
    """Where everything is equally marked; KLD is that from a uniform density. Catches 0 / 0."""
    _, density, fixations = small()
    scores = saliency_scores(density + 0.1, np.full_like(density, 0.4), fixations)
    assert math.isnan(scores["cc"])
    assert math.isnan(scores["sim"])
    shares = (density + 0.1) / (density + 0.1).sum()
    assert scores["kld"] == pytest.approx(-np.log(768 * shares).mean())


def test_the_released_rule_and_its_thresholds():
    """NSS of G2b for five thresholds and for the percentile, to the digits that were found
    elsewhere: 5.05, 5.13, 5.20, 5.25, 6.25 and 3.92. Catches a threshold on the density as it came
    (G2b goes to 255), and a percentile of zero that takes every pixel.
    """
    predicted, density, fixations = parts(inputs()["G2b"])
    expected = {0.5: 5.05, 0.75: 5.13, 0.9: 5.20, 0.95: 5.25, 1.0: 6.25}
    for at, value in expected.items():
        found = fixations_from_density(density, released(at))
        score = saliency_scores(predicted, None, found)["nss"]
        assert score == pytest.approx(value, abs=0.0051)
    assert np.array_equal(fixations_from_density(density), fixations)
    top = fixations_from_density(density, "released percentile")
    assert np.array_equal(top, density > np.percentile(density, 95))
    assert saliency_scores(predicted, None, top)["nss"] == pytest.approx(3.92, abs=0.01)
    repo = saliency_scores(predicted, density, None, options="lmme3dhf-repo")
    assert repo == saliency_scores(predicted, density, fixations, options="lmme3dhf-repo")


@pytest.mark.parametrize("rule", list(FIXATION_RULES))
def test_each_map_of_a_batch_has_its_own_peak(rule):
    """Against single maps, and none in an empty map. Catches a peak of the whole batch."""
    rng = np.random.default_rng(2)
    maps = gaussian_filter(rng.random((3, 20, 30)), (0, 2, 2)) * np.array([1, 9, 0])[:, None, None]
    found = fixations_from_density(maps, rule)
    for row in range(3):
        assert np.array_equal(found[row], fixations_from_density(maps[row], rule))
        tensor = fixations_from_density(torch.as_tensor(maps[row]), rule)
        assert np.array_equal(found[row], tensor.numpy())
    assert found[:2].any(axis=(1, 2)).all()
    assert not found[2].any()
    if rule == "released percentile":
        assert np.array_equal(found[1], maps[1] > np.percentile(maps[1], 95))


def test_released_maps_are_cut_to_8_bits_before_they_grow():
    """By hand: 0, 1/2, 1 become 0, 127 (not 128), 255; doubled in width the bilinear values lie a
    quarter in between: 32 of 127, 191 of 127 and 255. Catches rounding, and resizing first.
    """
    row = np.array([[2.0, 3.0, 4.0]])
    found = prepare_released(row, (1, 6))
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 32, 95, 159, 223, 255]]
    assert prepare_released(row, (1, 3)).tolist() == [[0, 127, 255]]
    assert prepare_released(np.full((4, 5), 0.7)).max() == 0
    assert prepare_released(np.eye(4)).shape == (512, 1536)
    with pytest.raises(ValueError, match="expected \\(height, width\\)"):
        prepare_released(np.zeros((2, 3, 4)))


def test_other_fixations_are_those_of_other_maps():
    """By hand. Catches a map's own fixations among its nonfixations."""
    fixations = np.array([[[1, 1, 0]], [[0, 1, 0]], [[0, 0, 0]]], dtype=bool)
    expected = [[[0, 0, 0]], [[1, 0, 0]], [[1, 1, 0]]]
    assert other_fixations(fixations).tolist() == np.array(expected, dtype=bool).tolist()
    with pytest.raises(ValueError, match="expected \\(maps, height, width\\)"):
        other_fixations(fixations[0])


def test_unusable_maps_are_refused():
    """Catches a broadcast over unlike shapes, a NaN that looks like an empty truth, and a batch in
    which nobody can find the culprit.
    """
    predicted, density, fixations = small()
    with pytest.raises(ValueError, match="resize first"):
        saliency_scores(predicted[:, :16], density, fixations)
    with pytest.raises(ValueError, match="resize first"):
        saliency_scores(predicted.ravel(), density.ravel(), fixations.ravel())
    broken = predicted.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="predicted map has 1 values that are not finite"):
        saliency_scores(broken, density, fixations)
    with pytest.raises(ValueError, match="predicted map 1 has 1 values"):
        saliency_scores(np.stack([predicted, broken]), density, fixations)
    broken[0, 0] = -np.inf
    with pytest.raises(ValueError, match="density has 1 values that are not finite"):
        saliency_scores(predicted, broken, fixations)
    with pytest.raises(ValueError, match="density has values down to -"):
        saliency_scores(predicted, density - 1, fixations)
    with pytest.raises(ValueError, match="all NumPy or all torch"):
        saliency_scores(predicted, torch.as_tensor(density), fixations)
    with pytest.raises(ValueError, match="give one of them"):
        saliency_scores(predicted, None, None)
    with pytest.raises(ValueError, match="convert it to floats"):
        saliency_scores(predicted > 0.5, density, fixations)


def test_what_fixations_and_divergence_need():
    """Catches a density passed as fixations (every pixel above 0 would be fixated), the logarithm
    of a negative share, and a floor of 1e-20 that is lost beside the minimum that is taken off.
    """
    predicted, density, fixations = small()
    with pytest.raises(ValueError, match="fixations are float64, expected a boolean map"):
        saliency_scores(predicted, None, density)
    with pytest.raises(ValueError, match="predicted map has values down to -"):
        saliency_scores(predicted - 1, density, None)
    # pysaliency takes the minimum off.
    shifted = saliency_scores(predicted - 1, density, fixations, options="pysaliency")
    plain = saliency_scores(predicted - predicted.min(), density, fixations, options="pysaliency")
    assert shifted == pytest.approx(plain, abs=1e-12)


def test_options_are_checked_where_they_are_made():
    """Catches a misspelt definition that silently becomes another, and unknown presets."""
    predicted, density, fixations = small()
    with pytest.raises(ValueError, match="sim_norm is 'max', expected one of"):
        SaliencyOptions(sim_norm="max")
    with pytest.raises(ValueError, match="kld_eps is 0, expected between 0 and 1"):
        SaliencyOptions(kld_eps=0)
    with pytest.raises(ValueError, match="needs kld_norm 'sum'"):
        SaliencyOptions(kld_form="floor", kld_norm="minmax_sum")
    with pytest.raises(ValueError, match="preset 'MIT' is unknown; use one of"):
        saliency_scores(predicted, density, fixations, options="MIT")
    with pytest.raises(ValueError, match=r"fixation rule 'peak' at 0\.0"):
        released(0.0)
    with pytest.raises(ValueError, match="fixation rule 'best' is unknown"):
        FixationRule("best", 0.5)
    with pytest.raises(ValueError, match="fixation rule 'best' is unknown"):
        fixations_from_density(density, "best")
    assert dataclasses.replace(PRESETS["mit"], kld_eps=1e-7) != PRESETS["mit"]


def test_means_leave_out_what_is_undefined_and_count_it():
    """By hand: one good map, one constant prediction, one clean face; the same as a batch. Catches
    a NaN mean and a hidden denominator.
    """
    nan = math.nan
    rows = [{"auc": 0.9, "cc": 0.6}, {"auc": 0.5, "cc": nan}, {"auc": nan, "cc": nan}]
    batch = {name: np.array([row[name] for row in rows]) for name in ("auc", "cc")}
    tensors = {name: torch.as_tensor(values) for name, values in batch.items()}
    for scores in (rows, batch, tensors):
        assert mean_scores(scores) == {
            "auc": pytest.approx(0.7),
            "cc": 0.6,
            "n": 2,
            "skipped": 1,
            "incomplete": 1,
        }
    all_clean = mean_scores([{"auc": nan}])
    assert math.isnan(all_clean["auc"])
    assert (all_clean["n"], all_clean["skipped"], all_clean["incomplete"]) == (0, 1, 0)


def test_means_of_nothing_or_of_unlike_maps_are_refused():
    """Catches a table row made of no map at all."""
    for nothing in ([], {}, {"auc": np.zeros(0)}):
        with pytest.raises(ValueError, match="no saliency scores"):
            mean_scores(nothing)
    with pytest.raises(ValueError, match="map 1 has the metrics"):
        mean_scores([{"auc": 0.9}, {"cc": 0.9}])
