"""Saliency metrics: golden values, scikit-learn, simulated jitter, invariances, and the decided
edge cases.
"""

import math

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from lmme3dhf.metrics.saliency import auc, auc_judd, cc, kld, mean_scores, nss, saliency_scores, sim


def _small():
    """Prediction, density and fixations of the golden case G1, 24 x 32."""
    i, j = np.mgrid[:24, :32]
    predicted = (
        0.5
        + 0.3 * np.sin(2 * np.pi * (i + 1) / 24) * np.cos(2 * np.pi * j / 32)
        + 0.2 * ((7 * i + 13 * j) % 17) / 17
    )
    fixations = np.zeros((24, 32), dtype=bool)
    fixations[[3, 8, 12, 12, 20], [5, 20, 12, 13, 28]] = True
    density = gaussian_filter(fixations.astype(float), 2)
    assert predicted.sum() == pytest.approx(456.1529411765, abs=1e-9)
    return predicted, density / density.max(), fixations


def _large():
    """The golden case G2, 512 x 1536 with 16 marks."""
    k = np.arange(16)
    y, x = (97 * k + 61) % 512, (389 * k + 173) % 1536
    fixations = np.zeros((512, 1536), dtype=bool)
    fixations[y, x] = True
    density = gaussian_filter(fixations.astype(float), 5)
    moved = np.zeros((512, 1536))
    moved[(y + 6) % 512, (x + 9) % 1536] = 1
    blurred = gaussian_filter(moved, 12)
    i, j = np.mgrid[:512, :1536]
    predicted = blurred / blurred.max() + 0.15 * (1 + np.sin(i / 40) * np.cos(j / 60))
    assert predicted.sum() == pytest.approx(131064.849639, abs=1e-6)
    return predicted, density / density.max(), fixations


def _eight_bit():
    """The golden case G2b: G2 through 8 bits, fixations where the released rule puts them (density
    of at least 0.95).
    """
    predicted, density, _ = _large()
    predicted = np.floor(255 * (predicted - predicted.min()) / np.ptp(predicted))
    density = np.floor(255 * density)
    fixations = density / 255 >= 0.95
    assert (predicted.sum(), density.sum(), fixations.sum()) == (27680298, 624543, 84)
    return predicted, density, fixations


# Computed once outside of this project: AUC by scikit-learn, the other metrics by a transliteration
# of the MIT benchmark's MATLAB code that reproduces published MATLAB outputs to 8 digits; AUC-Judd
# is its expectation over the jitter.
GOLDEN = {
    "G1": {
        "auc": 0.475753604194,
        "auc_judd": 0.552948885976,
        "nss": -0.058766728509,
        "cc": -0.019870197486,
        "sim": 0.344852656804,
        "kld": 1.213565301417,
    },
    "G2": {
        "auc": 0.992078937865,
        "auc_judd": 0.992483462951,
        "nss": 5.201866702761,
        "cc": 0.376782690978,
        "sim": 0.063500035944,
        "kld": 3.368598363066,
    },
    "G2b": {
        "auc": 0.992236231529,
        "auc_judd": 0.992321904854,
        "nss": 5.244943305113,
        "cc": 0.374055468533,
        "sim": 0.058892735322,
        "kld": 3.397547736238,
    },
    "G3": {
        "auc": 0.441677588467,
        "auc_judd": 0.525775447794,
        "nss": -0.197351124377,
        "cc": -0.026366432689,
        "sim": 0.345659539585,
        "kld": 1.232063396118,
    },
    "G4": {
        "auc": 0.443381389253,
        "auc_judd": 0.530439056356,
        "nss": -0.254361748708,
        "cc": -0.045037303094,
        "sim": 0.219535445742,
        "kld": 16.871070983235,
    },
}


@pytest.mark.parametrize("case", list(GOLDEN))
def test_golden_values(case):
    """Catches ties mishandled (G3: eight steps; G4: many zeros), ddof 0, SIM without min-max, KLD
    with another epsilon or with
    its arguments exchanged, single precision, and sums that lose digits on a full strip (G2)."""
    if case == "G2":
        predicted, density, fixations = _large()
    elif case == "G2b":
        predicted, density, fixations = _eight_bit()
    else:
        predicted, density, fixations = _small()
        predicted = {
            "G1": predicted,
            "G3": np.floor(8 * predicted) / 8,
            "G4": np.maximum(predicted - 0.6, 0),
        }[case]
    scores = saliency_scores(predicted, density, fixations)
    assert list(scores) == list(GOLDEN[case])
    assert scores == pytest.approx(GOLDEN[case], abs=1e-9)


def _random_case(seed, steps):
    rng = np.random.default_rng(seed)
    predicted = np.floor(steps * rng.random((20, 30))) / steps
    return predicted, rng.random((20, 30)), rng.random((20, 30)) < 0.05


@pytest.mark.parametrize("steps", [2, 7, 10**9])
def test_auc_agrees_with_scikit_learn(steps):
    """On random maps with many, some and no ties. Catches ties counted for one side."""
    for seed in range(20):
        predicted, _, fixations = _random_case(seed, steps)
        assert auc(predicted, fixations) == pytest.approx(
            roc_auc_score(fixations.ravel(), predicted.ravel()), abs=1e-12
        )


def test_auc_judd_is_the_mean_over_jitter():
    """Simulates the definition: jitter breaks ties, thresholds stand at the fixated values,
    trapezoid from (0, 0) to (1, 1).
    Catches a wrong closed form; the mean of 4,000 draws is good to about 1e-3."""
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
    assert auc_judd(predicted, fixations) == pytest.approx(total / draws, abs=3e-3)


def test_auc_is_invariant_under_monotone_maps_and_mirrors_under_their_inverse():
    """Catches binning and min-max scaling inside the metric."""
    predicted, _, fixations = _random_case(0, 10**9)
    value = auc(predicted, fixations)
    assert auc(np.exp(5 * predicted) - 40, fixations) == value
    assert auc_judd(np.exp(5 * predicted) - 40, fixations) == auc_judd(predicted, fixations)
    assert auc(-predicted, fixations) == pytest.approx(1 - value)
    assert auc(predicted[:, ::-1], fixations[:, ::-1]) == value


def test_affine_maps_do_not_change_nss_cc_and_sim():
    """Catches a metric that needs maps of a certain scale."""
    predicted, density, fixations = _random_case(3, 10**9)
    scaled = 40 * predicted + 7
    assert nss(scaled, fixations) == pytest.approx(nss(predicted, fixations))
    assert cc(scaled, density) == pytest.approx(cc(predicted, density))
    assert sim(scaled, density) == pytest.approx(sim(predicted, density))
    assert kld(40 * predicted, density) == pytest.approx(kld(predicted, density))


def test_a_map_against_itself():
    """Catches a normalisation that differs between the two sides."""
    _, density, _ = _large()
    assert cc(density, density) == pytest.approx(1)
    assert sim(density, density) == pytest.approx(1)
    assert kld(density, density) == pytest.approx(0, abs=1e-9)


def test_small_maps_by_hand():
    """By hand. NSS: mean 1/4, sample deviation 1/2, so 1.5. KLD of (1/2, 1/2) from (3/4, 1/4):
    ln(2/3)/2 + ln(2)/2.
    """
    only_bright = np.array([[0.0, 0.0, 0.0, 1.0]])
    assert nss(only_bright, only_bright > 0) == pytest.approx(1.5)
    assert kld(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]])) == pytest.approx(
        (math.log(2 / 3) + math.log(2)) / 2
    )
    assert sim(np.array([[0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 2.0]])) == pytest.approx(0.5)


def test_an_empty_ground_truth_gives_nan_everywhere():
    """A clean face must not count as SIM 0 and KLD 0, as in the MIT code. Catches values that pull
    the mean.
    """
    predicted, density, fixations = _small()
    scores = saliency_scores(predicted, np.zeros_like(density), np.zeros_like(fixations))
    assert all(math.isnan(value) for value in scores.values())
    everywhere = np.ones_like(fixations)
    assert math.isnan(auc(predicted, everywhere))
    assert math.isnan(auc_judd(predicted, everywhere))


@pytest.mark.parametrize("level", [0.1, 0.0, 3.0])
def test_a_constant_prediction_is_decided(level):
    """Catches NSS of round-off (0.1 has a deviation of 1e-17 over 768 pixels, which gives .9993)
    and SIM 0 / 0.
    """
    _, density, fixations = _small()
    scores = saliency_scores(np.full(density.shape, level), density, fixations)
    assert scores["auc"] == 0.5
    assert scores["auc_judd"] == pytest.approx(0.5 + 1 / (2 * (5 + 1)))  # chance for five fixations
    assert all(math.isnan(scores[name]) for name in ("nss", "cc", "sim"))
    # Golden entropy of the density: 5.474529534490465 nat. A uniform map costs ln 768 less that, an
    # all-zero one -ln 2**-52.
    assert scores["kld"] == pytest.approx(
        (math.log(768) if level else 52 * math.log(2)) - 5.474529534490465
    )


def test_float32_rounding_is_still_constant():
    """Catches a resized constant map whose last bits would be correlated with the truth."""
    _, density, fixations = _small()
    nearly = (0.3 + 1e-8 * np.random.default_rng(0).normal(size=density.shape)).astype(np.float32)
    assert np.ptp(nearly) > 0
    assert math.isnan(nss(nearly, fixations))
    assert math.isnan(cc(nearly, density))


@pytest.mark.parametrize("metric", [auc, auc_judd, nss, cc, sim, kld])
def test_unusable_maps_are_refused(metric):
    """Catches a broadcast over unlike shapes and a NaN that looks like an empty truth."""
    predicted, density, fixations = _small()
    truth = fixations if metric in (auc, auc_judd, nss) else density
    with pytest.raises(ValueError, match="resize first"):
        metric(predicted[:, :16], truth)
    predicted[0, 0] = np.nan
    with pytest.raises(ValueError, match="predicted map has 1 values that are not finite"):
        metric(predicted, truth)


def test_what_fixations_and_divergence_need():
    """Catches a density passed as fixations (every pixel above 0 would be fixated) and the
    logarithm of a negative share.
    """
    predicted, density, _ = _small()
    with pytest.raises(ValueError, match="fixations are float64, expected a boolean map"):
        nss(predicted, density)
    with pytest.raises(ValueError, match="predicted map has values down to -"):
        kld(predicted - 1, density)


def test_means_leave_out_what_is_undefined_and_count_it():
    """By hand: one good map, one constant prediction, one clean face. Catches a NaN mean and a
    hidden denominator.
    """
    nan = math.nan
    result = mean_scores(
        [{"auc": 0.9, "cc": 0.6}, {"auc": 0.5, "cc": nan}, {"auc": nan, "cc": nan}]
    )
    assert result == {"auc": pytest.approx(0.7), "cc": 0.6, "n": 2, "skipped": 1, "incomplete": 1}
    all_clean = mean_scores([{"auc": nan}])
    assert math.isnan(all_clean["auc"])
    assert (all_clean["n"], all_clean["skipped"], all_clean["incomplete"]) == (0, 1, 0)


def test_means_of_nothing_or_of_unlike_maps_are_refused():
    """Catches a table row made of no map at all."""
    with pytest.raises(ValueError, match="no saliency scores"):
        mean_scores([])
    with pytest.raises(ValueError, match="map 1 has the metrics"):
        mean_scores([{"auc": 0.9}, {"cc": 0.9}])
