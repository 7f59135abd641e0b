"""How well a predicted saliency map finds the marked distortions (paper, Section 5.3, Table 3).

Definitions follow the MIT saliency benchmark, deterministic where its code draws at random. Maps
and fixations are arrays of one shape; a map that differs in size is resized before it comes here.
Where the ground truth is empty (a face without distortion) every metric is NaN, so that clean faces
do not pull a mean; constant predictions are decided metric by metric. Array legend: H height, W
width.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

# Below float32 rounding of a resized constant map: such a map has no structure to be correlated
# with.
CONSTANT_SPREAD = 1e-6
MATLAB_EPS = 2.0**-52


def _checked(
    predicted_HW: np.ndarray, truth_HW: np.ndarray, truth_name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (fixations stay boolean), or a ValueError that says what is wrong."""
    predicted_HW, truth_HW = np.asarray(predicted_HW), np.asarray(truth_HW)
    if predicted_HW.ndim != 2 or predicted_HW.shape != truth_HW.shape:
        raise ValueError(
            f"predicted map {predicted_HW.shape} and {truth_name} {truth_HW.shape}: expected one "
            "(height, width); resize first"
        )
    if truth_name == "fixations" and truth_HW.dtype != bool:
        raise ValueError(
            f"fixations are {truth_HW.dtype}, expected a boolean map, true at the marked pixels"
        )
    for name, map_HW in (("predicted map", predicted_HW), (truth_name, truth_HW)):
        if not np.isfinite(map_HW).all():
            raise ValueError(
                f"{name} has {np.count_nonzero(~np.isfinite(map_HW))} values that are not finite"
            )
    if truth_name == "fixations":
        return predicted_HW.astype(np.float64), truth_HW
    return predicted_HW.astype(np.float64), truth_HW.astype(np.float64)


def _constant(map_HW: np.ndarray) -> bool:
    return np.ptp(map_HW) <= CONSTANT_SPREAD * np.abs(map_HW).max()


def auc(predicted_HW: np.ndarray, fixations_HW: np.ndarray) -> float:
    """Probability that a fixated pixel is predicted higher than one that is not, ties one half
    (Mann-Whitney), 0..1.

    NaN without fixations or where every pixel is fixated; one half for a constant map.
    """
    predicted_HW, fixations_HW = _checked(predicted_HW, fixations_HW, "fixations")
    at_fixations = np.sort(predicted_HW[fixations_HW])
    elsewhere = predicted_HW[~fixations_HW]
    if len(at_fixations) == 0 or len(elsewhere) == 0:
        return math.nan
    # Rank of each other pixel among the few fixated ones: exact, and cheaper than ranking the whole
    # map.
    lower = np.searchsorted(at_fixations, elsewhere, side="left").sum(dtype=np.int64)
    lower_or_equal = np.searchsorted(at_fixations, elsewhere, side="right").sum(dtype=np.int64)
    return 1 - float(lower + lower_or_equal) / (2 * len(at_fixations) * len(elsewhere))


def auc_judd(predicted_HW: np.ndarray, fixations_HW: np.ndarray) -> float:
    """The expected value of AUC-Judd over its random jitter, 0..1; NaN without fixations or where
    every pixel is fixated.

    AUC-Judd places its thresholds at the n fixated values only, which adds to the Mann-Whitney area
    the corner above the lowest of them: (a + m k / (k + 1)) / (2 n (N - n)), with a the other
    pixels above that value, and m others and k fixations tied with it. Its chance level is
    therefore 1/2 + 1 / (2 (n + 1)), not 1/2.
    """
    area = auc(predicted_HW, fixations_HW)
    if math.isnan(area):
        return math.nan
    predicted_HW, fixations_HW = (
        np.asarray(predicted_HW, dtype=np.float64),
        np.asarray(fixations_HW),
    )
    at_fixations, elsewhere = predicted_HW[fixations_HW], predicted_HW[~fixations_HW]
    lowest = at_fixations.min()
    tied = np.count_nonzero(at_fixations == lowest)
    corner = np.count_nonzero(elsewhere > lowest) + np.count_nonzero(elsewhere == lowest) * tied / (
        tied + 1
    )
    return area + corner / (2 * len(at_fixations) * len(elsewhere))


def nss(predicted_HW: np.ndarray, fixations_HW: np.ndarray) -> float:
    """Mean standardised prediction (sample deviation, ddof 1) at the fixated pixels; 0 is chance.

    NaN without fixations and for a constant map.
    """
    predicted_HW, fixations_HW = _checked(predicted_HW, fixations_HW, "fixations")
    if not fixations_HW.any() or _constant(predicted_HW):
        return math.nan
    return float(
        (predicted_HW[fixations_HW].mean() - predicted_HW.mean()) / predicted_HW.std(ddof=1)
    )


def cc(predicted_HW: np.ndarray, density_HW: np.ndarray) -> float:
    """Pearson correlation of the maps over all pixels, -1..1; NaN where either is constant (an
    empty density included).
    """
    predicted_HW, density_HW = _checked(predicted_HW, density_HW, "density")
    if _constant(predicted_HW) or _constant(density_HW):
        return math.nan
    predicted_HW, density_HW = predicted_HW - predicted_HW.mean(), density_HW - density_HW.mean()
    norms = math.sqrt(np.vdot(predicted_HW, predicted_HW) * np.vdot(density_HW, density_HW))
    return float(np.vdot(predicted_HW, density_HW) / norms)


def sim(predicted_HW: np.ndarray, density_HW: np.ndarray) -> float:
    """Histogram intersection of the maps, each scaled from minimum to maximum and then to sum 1
    (MIT), 0..1.

    NaN where either map is constant (an empty density included).
    """
    predicted_HW, density_HW = _checked(predicted_HW, density_HW, "density")
    if _constant(predicted_HW) or _constant(density_HW):
        return math.nan
    shares = [
        (map_HW - map_HW.min()) / (map_HW - map_HW.min()).sum()
        for map_HW in (predicted_HW, density_HW)
    ]
    return float(np.minimum(*shares).sum())


def kld(predicted_HW: np.ndarray, density_HW: np.ndarray) -> float:
    """Kullback-Leibler divergence of the prediction from the density in nat (MIT): sum G ln(eps + G
    / (P + eps)).

    Both maps are scaled to sum 1 and eps is MATLAB's 2**-52. Lower is better, 0 for equal maps up
    to rounding. NaN for an empty density; an all-zero prediction stays zero and costs about 36 nat
    less the density's entropy.

    Raises:
        ValueError: A map has negative values; shift or clip it first.
    """
    predicted_HW, density_HW = _checked(predicted_HW, density_HW, "density")
    for name, map_HW in (("predicted map", predicted_HW), ("density", density_HW)):
        if map_HW.min() < 0:
            raise ValueError(
                f"{name} has values down to {map_HW.min():g}; the divergence needs maps of at "
                "least 0, clip or shift it"
            )
    if not density_HW.any():
        return math.nan
    density_HW = density_HW / density_HW.sum()
    if predicted_HW.any():
        predicted_HW = predicted_HW / predicted_HW.sum()
    return float((density_HW * np.log(MATLAB_EPS + density_HW / (predicted_HW + MATLAB_EPS))).sum())


def saliency_scores(
    predicted_HW: np.ndarray, density_HW: np.ndarray, fixations_HW: np.ndarray
) -> dict[str, float]:
    """All metrics of one map: auc, auc_judd and nss against the fixations, cc, sim and kld against
    the density.

    Raises:
        ValueError: Shapes differ, values are not finite or negative, or the fixations are not
            boolean.
    """
    return {
        "auc": auc(predicted_HW, fixations_HW),
        "auc_judd": auc_judd(predicted_HW, fixations_HW),
        "nss": nss(predicted_HW, fixations_HW),
        "cc": cc(predicted_HW, density_HW),
        "sim": sim(predicted_HW, density_HW),
        "kld": kld(predicted_HW, density_HW),
    }


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the maps where it is finite, with the counts that belong to it.

    `n` counts the maps with at least one finite metric and `skipped` those without any (no marked
    distortion). `incomplete` counts those of the n where some metric is NaN (a constant
    prediction): they are missing from that metric's mean only. A metric that is finite nowhere is
    NaN.

    Raises:
        ValueError: No maps, or maps with different metrics.
    """
    if not scores:
        raise ValueError("no saliency scores; expected those of at least one map")
    metrics = list(scores[0])
    for row, of_map in enumerate(scores):
        if set(of_map) != set(metrics):
            raise ValueError(
                f"map {row} has the metrics {sorted(of_map)}, expected {sorted(metrics)} as for "
                "the first"
            )
    finite = [
        [of_map[metric] for of_map in scores if math.isfinite(of_map[metric])] for metric in metrics
    ]
    finite_of_map = [sum(math.isfinite(value) for value in of_map.values()) for of_map in scores]
    skipped = finite_of_map.count(0)
    return {
        **{
            metric: sum(values) / len(values) if values else math.nan
            for metric, values in zip(metrics, finite, strict=True)
        },
        "n": len(scores) - skipped,
        "skipped": skipped,
        "incomplete": sum(0 < count < len(metrics) for count in finite_of_map),
    }
