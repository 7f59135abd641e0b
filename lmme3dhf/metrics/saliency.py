"""How well predicted saliency maps find the marked distortions (paper, Section 5.3, Table 3).

AUC (Mann-Whitney, Judd, Borji, shuffled), NSS, CC, SIM, KLD and information gain of one map or of a
batch, by named definitions: the paper does not say which of the definitions in use it takes, and
they differ by more than its methods do. What the MIT benchmark's code draws at random (jitter,
splits) is replaced by its expected value in closed form, so every figure is deterministic.

Maps are NumPy arrays or torch tensors on any device, of one shape; a map that differs in size is
resized before it comes here. One pass over a map serves all metrics: its extremes and moments once,
and one histogram, from which every AUC comes exactly, because pixels are compared one by one in the
few bins that hold a fixated value. Where the density is zero it adds nothing to CC, SIM and KLD, so
those read its support only.

Where the ground truth is empty (a face without distortion) every metric is NaN, so that clean faces
do not pull a mean; constant predictions are decided in `SaliencyOptions`.

Array legend: B maps, H height, W width, N pixels of a map, S pixels of the density's support, F
fixated pixels, K bins, U distinct fixated values, T thresholds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from PIL import Image

# A NumPy array or a torch tensor. torch is never imported here: the array brings its own functions.
Array = Any

# Below float32 rounding of a resized constant map: such a map has no structure to be correlated
# with.
CONSTANT_SPREAD = 1e-6
MATLAB_EPS = 2.0**-52
# Bins of the histogram of a map that is not of 8 bits: few pixels share one with a fixated value,
# and the counts stay in the processor's cache.
BINS = 2**14
# Thresholds of AUC-Borji on the map scaled to 0..1, ascending; 0, which every pixel reaches, is
# left out.
STEPS = tuple(k / 10 for k in range(1, 11))
# Pixels that go through the dense part at once, eight bytes each and up to four arrays: one strip
# on a CPU, where it then stays near the core; dozens on an accelerator (about 1 GB).
PIXELS_AT_ONCE_CPU = 2**20
PIXELS_AT_ONCE_ACCELERATOR = 2**25
RELEASED_SIZE = (512, 1536)  # height and width of the released maps


@dataclass(frozen=True)
class FixationRule:
    """Which pixels of a density map stand for the marked points where those are not known.

    Attributes:
        kind: "peak": pixels of at least `at` after the map is scaled from its minimum to its
            maximum. "percentile": pixels above that percentile of the map's values.
        at: Threshold, in 0..1 for "peak" and 0..100 for "percentile".
    """

    kind: str
    at: float

    def __post_init__(self) -> None:
        limits = {"peak": 1.0, "percentile": 100.0}
        if self.kind not in limits:
            raise ValueError(f"fixation rule {self.kind!r} is unknown; use one of {[*limits]}")
        if not 0 < self.at <= limits[self.kind]:
            raise ValueError(
                f"fixation rule {self.kind!r} at {self.at}; expected above 0 and at most "
                f"{limits[self.kind]:g}"
            )


def released(at: float = 0.95) -> FixationRule:
    """The rule of the released `create_fixations.py`, with its threshold as a knob.

    About nine pixels around an isolated point; where points overlap the density peaks there, and
    the isolated ones fall below the threshold and vanish.
    """
    return FixationRule("peak", at)


# "released percentile" is computed in the released code and never used. On a map that is mostly
# zero, as all of these are, its threshold is 0.
FIXATION_RULES = {
    "released": released(),
    "released percentile": FixationRule("percentile", 95.0),
}


@dataclass(frozen=True, kw_only=True)
class SaliencyOptions:
    """One set of definitions; the defaults are those of the MIT saliency benchmark's code ("mit").

    Attributes:
        auc_nonfixated: What a fixated pixel is compared with in `auc`. "unfixated": the other
            pixels (MIT; pysaliency's nonfixations="unfixated"). "all": every pixel, itself included
            (pysaliency's default, "uniform"). AUC-Judd takes the unfixated ones in both.
        shuffled: How other images' fixations are used. "steps": MIT's AUC_shuffled, ten thresholds
            a tenth of the map's range apart, in expectation over its random splits. "exact": every
            pair, ties one half (pysaliency's nonfixations="shuffled").
        nss_ddof: Standard deviation over N - ddof pixels: 1 is MATLAB's std, 0 pysaliency's.
        sim_norm: "minmax_sum": each map from minimum to maximum, then to sum 1 (MIT). "sum": to sum
            1 only (pysaliency).
        kld_target: "density", or "binary": the fixation map itself (a driver script of the authors'
            group calls MIT's KLdiv so; it gives about 9 nat at 1536x512, unlike Table 3's 1.9).
        kld_norm: "sum" (MIT, pysaliency), or "minmax_sum" (the released training loss).
        kld_form: "ratio": sum G ln(eps + G / (P + eps)) (MIT). "floor": eps is added to both maps
            before they are scaled, then sum G ln(G / P) (pysaliency's default).
        kld_eps: MIT: MATLAB's 2**-52. pysaliency: 1e-20 in its default form, and 2.2204e-16 written
            out in its MIT_KLDiv. The released loss: 1e-8. At zero predictions it decides the value.
        zero_map: An all-zero prediction in KLD and in SIM of norm "sum". "zero": it stays zero and
            costs about 36 nat less the density's entropy (MIT). "uniform" (pysaliency).
        constant: NSS and CC of a constant prediction: NaN (MIT divides by zero, or by round-off:
            .9993 for a constant of 0.1), or 0 (pysaliency). A constant prediction, up to a relative
            spread of 1e-6, has every AUC at its chance level and no SIM or KLD by "minmax_sum"
            (NaN); by "sum" it counts as uniform. A constant density has no CC and no SIM by
            "minmax_sum".
        negative: Predictions below zero in KLD, SIM and information gain by "sum". "refuse": a
            ValueError, since MIT's logarithm would be of a negative share. "shift": the minimum is
            taken off (pysaliency).
        ig_norm: Scaling of prediction and baseline in the information gain: "minmax_sum" (MIT's
            InfoGain), or "sum" (densities, as pysaliency's models give them). A constant map is
            uniform in both.
        ig_eps: Added before the logarithm to base 2 (MIT: MATLAB's 2**-52).
        fixation_rule: Where no fixations are given, they are read off the density by this rule.
            None: fixations must be given to have the metrics that need them.
    """

    auc_nonfixated: str = "unfixated"
    shuffled: str = "steps"
    nss_ddof: int = 1
    sim_norm: str = "minmax_sum"
    kld_target: str = "density"
    kld_norm: str = "sum"
    kld_form: str = "ratio"
    kld_eps: float = MATLAB_EPS
    zero_map: str = "zero"
    constant: float = math.nan
    negative: str = "refuse"
    ig_norm: str = "minmax_sum"
    ig_eps: float = MATLAB_EPS
    fixation_rule: FixationRule | None = None

    def __post_init__(self) -> None:
        allowed = {
            "auc_nonfixated": ("unfixated", "all"),
            "shuffled": ("steps", "exact"),
            "nss_ddof": (0, 1),
            "sim_norm": ("minmax_sum", "sum"),
            "kld_target": ("density", "binary"),
            "kld_norm": ("sum", "minmax_sum"),
            "kld_form": ("ratio", "floor"),
            "zero_map": ("zero", "uniform"),
            "negative": ("refuse", "shift"),
            "ig_norm": ("minmax_sum", "sum"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {values}")
        for name in ("kld_eps", "ig_eps"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected between 0 and 1")
        if self.kld_form == "floor" and self.kld_norm != "sum":
            raise ValueError("kld_form 'floor' adds eps before the sum; it needs kld_norm 'sum'")


# - mit: the benchmark's MATLAB code (cvzoya/saliency, code_forMetrics) in expectation. Departures:
#   an empty truth is NaN where its SIM and KLD are 0, a single fixation has an AUC-Borji where it
#   returns NaN, and negative maps are refused.
# - pysaliency: the functions of pysaliency 0.2.22 with their default arguments.
# - lmme3dhf-repo: the evaluator behind Table 3 is not published. What is: fixations by the rule
#   above, from densities that are Gaussians of 5 px at the video's own size, brought to 1536x512;
#   predictions cut to 8 bits before they are resized to it (`prepare_released`); and the KLD of the
#   training loss. The other metrics are MIT's, for want of any.
PRESETS = {
    "mit": SaliencyOptions(),
    "pysaliency": SaliencyOptions(
        auc_nonfixated="all",
        shuffled="exact",
        nss_ddof=0,
        sim_norm="sum",
        kld_form="floor",
        kld_eps=1e-20,
        zero_map="uniform",
        constant=0.0,
        negative="shift",
        ig_norm="sum",
    ),
    "lmme3dhf-repo": SaliencyOptions(
        kld_norm="minmax_sum", kld_eps=1e-8, fixation_rule=FIXATION_RULES["released"]
    ),
}


def fixations_from_density(density: Array, rule: FixationRule | str = "released") -> Array:
    """Boolean map of the pixels that a rule takes for fixations; none in a constant map.

    Args:
        density: (H, W), or (B, H, W) where every map is judged by itself.
        rule: A rule, or the name of one in `FIXATION_RULES`.

    Raises:
        ValueError: An unknown name, another shape, or values that are not finite.
    """
    if isinstance(rule, str):
        if rule not in FIXATION_RULES:
            raise ValueError(f"fixation rule {rule!r} is unknown; use one of {[*FIXATION_RULES]}")
        rule = FIXATION_RULES[rule]
    xp = _namespace({"density": density})
    _check_maps({"density": density})
    map_BN = xp.astype(xp.reshape(density, (-1, _pixels(density))), xp.float64)
    low_B1, high_B1 = _extremes(xp, map_BN, _names("density", density, 0))
    if rule.kind == "peak":
        # A constant map has no peak: 0 / 1 stays below every threshold.
        spread_B1 = xp.where(high_B1 > low_B1, high_B1 - low_B1, xp.ones_like(low_B1))
        found_BN = (map_BN - low_B1) / spread_B1 >= rule.at
    else:
        # Linear between the neighbouring values, as NumPy's percentile.
        place = rule.at / 100 * (map_BN.shape[1] - 1)
        sorted_BN = xp.sort(map_BN, axis=1)
        below_B, above_B = sorted_BN[:, math.floor(place)], sorted_BN[:, math.ceil(place)]
        threshold_B = below_B + (above_B - below_B) * (place - math.floor(place))
        found_BN = map_BN > threshold_B[:, None]
    return xp.reshape(found_BN, density.shape)


def prepare_released(predicted_HW: np.ndarray, size: tuple[int, int] = RELEASED_SIZE) -> np.ndarray:
    """An 8-bit map as the released code writes it: scaled from minimum to maximum, cut (not
    rounded) to 0..255, and only then resized, bilinearly.

    A constant map divides by zero there; here it becomes 0. Enlarging is meant: where a side
    shrinks, Pillow's filter averages over the pixels that fall together, unlike OpenCV's.

    Args:
        predicted_HW: The map as predicted.
        size: (height, width) of the result.

    Raises:
        ValueError: Not one map, or values that are not finite.
    """
    predicted_HW = np.asarray(predicted_HW)
    if predicted_HW.ndim != 2 or not predicted_HW.size or not np.isfinite(predicted_HW).all():
        raise ValueError(
            f"map of shape {predicted_HW.shape}: expected (height, width) of finite values"
        )
    predicted_HW = predicted_HW.astype(np.float64) - predicted_HW.min()
    grey_HW = (255 * predicted_HW / (predicted_HW.max() or 1)).astype(np.uint8)
    height, width = size
    return np.asarray(Image.fromarray(grey_HW).resize((width, height), Image.Resampling.BILINEAR))


def other_fixations(fixations_BHW: Array) -> Array:
    """For each map the pixels fixated in any other map and not in its own: the nonfixations of the
    shuffled AUC as the benchmark's code has them.

    Raises:
        ValueError: Not a batch of boolean maps.
    """
    xp = _namespace({"fixations": fixations_BHW})
    _check_maps({"fixations": fixations_BHW})
    if fixations_BHW.ndim != 3:
        raise ValueError(f"fixations {fixations_BHW.shape}: expected (maps, height, width)")
    times_HW = xp.sum(xp.astype(fixations_BHW, xp.int64), axis=0)
    return (times_HW[None] > 0) & ~fixations_BHW


def saliency_scores(
    predicted: Array,
    density: Array | None,
    fixations: Array | None,
    *,
    options: str | SaliencyOptions = "mit",
    shuffled: Array | None = None,
    baseline: Array | None = None,
) -> dict[str, Any]:
    """All metrics of one map (H, W), as floats, or of a batch (B, H, W), as float64 arrays (B,).

    With fixations: `auc`, the probability that a fixated pixel is predicted higher than one that is
    not, ties one half (Mann-Whitney); `auc_judd`; `auc_borji`; and `nss`, the mean standardised
    prediction at the fixated pixels. With a density: `cc`, Pearson's correlation over all pixels;
    `sim`, the histogram intersection; and `kld`, the divergence of the prediction from it in nat,
    lower is better. With other images' fixations: `auc_shuffled`. With a baseline: `ig`, the
    information gain over it at the fixated pixels, in bit.

    AUC-Judd places its thresholds at the n fixated values only, which adds to the Mann-Whitney area
    the corner above the lowest of them: (a + m k / (k + 1)) / (2 n (N - n)), with a the other
    pixels above that value, and m others and k fixations tied with it; this is the expected value
    over its jitter. Its chance level is therefore 1/2 + 1 / (2 (n + 1)), not 1/2. AUC-Borji is the
    trapezoid over the thresholds 1, .9, ... 0 of the map scaled to 0..1, with the false alarms
    taken over all pixels: the expected value over its random splits.

    Everything is computed in float64, whatever comes in: on a CPU one strip of 512 x 1536 at a
    time, about 20 MB beside the maps and hardly more time than single precision takes. Unsigned
    8-bit maps go through their 256 levels instead, in half the time. NumPy and torch count the same
    pixels, so every AUC is the same to the last bit; their sums differ in rounding, below 1e-12.
    Apple's `mps` device has no float64; bring its tensors to the CPU.

    Edge cases: NaN without fixations (also for `auc_shuffled` where no other image has any) and for
    an empty density; `auc` of unfixated pixels and `auc_judd` are NaN where every pixel is
    fixated; constant and all-zero predictions are decided in `SaliencyOptions`.

    Args:
        predicted: Maps on any scale; bigger is more salient. One truth (H, W) may stand beside a
            batch of them, and is then that of each.
        density: The ground truth's density on any scale, of at least 0. None leaves `cc`, `sim` and
            `kld` out.
        fixations: Boolean, true at the marked pixels. None leaves out what needs them, unless the
            options have a rule for reading them off the density.
        options: Definitions, or the name of a preset in `PRESETS`.
        shuffled: Boolean, true at the pixels that were fixated in other images
            (`other_fixations`).
        baseline: A map or maps to gain information over, such as the mean training map.

    Raises:
        ValueError: Shapes or kinds of arrays differ, values are not finite or negative, the
            fixations are not boolean, or the preset is unknown; the map is named by its number.
    """
    if isinstance(options, str):
        if options not in PRESETS:
            raise ValueError(f"preset {options!r} is unknown; use one of {[*PRESETS]}")
        options = PRESETS[options]
    given = {"predicted map": predicted, "density": density, "fixations": fixations}
    given |= {"shuffled fixations": shuffled, "baseline": baseline}
    given = {name: array for name, array in given.items() if array is not None}
    xp = _namespace(given)
    _check_maps(given)
    if density is None and fixations is None:
        raise ValueError(
            "neither a density nor fixations to compare the map with; give one of them"
        )
    if fixations is None and density is not None and options.fixation_rule is not None:
        given["fixations"] = fixations_from_density(density, options.fixation_rule)
    if array_api_compat.is_torch_array(predicted):
        given = {name: array.detach() for name, array in given.items()}
    given = {name: xp.broadcast_to(array, predicted.shape) for name, array in given.items()}
    pixels = _pixels(predicted)
    flat = {name: xp.reshape(array, (-1, pixels)) for name, array in given.items()}
    rows: list[dict[str, float]] = []
    on_cpu = str(array_api_compat.device(predicted)).startswith("cpu")
    at_once = PIXELS_AT_ONCE_CPU if on_cpu else PIXELS_AT_ONCE_ACCELERATOR
    step = max(1, at_once // pixels)
    for first in range(0, flat["predicted map"].shape[0], step):
        part = {name: array_BN[first : first + step] for name, array_BN in flat.items()}
        names = {name: _names(name, predicted, first) for name in part}
        rows += _scores_of_part(xp, part, names, options)
    if predicted.ndim == 2:
        return rows[0]
    device = array_api_compat.device(predicted)
    return {
        metric: xp.asarray([row[metric] for row in rows], dtype=xp.float64, device=device)
        for metric in rows[0]
    }


def mean_scores(
    scores: Sequence[Mapping[str, float]] | Mapping[str, Sequence[float]],
) -> dict[str, float]:
    """The mean of each metric over the maps where it is defined, with the counts that belong to it.

    `n` counts the maps with at least one defined metric and `skipped` those without any (no marked
    distortion). `incomplete` counts those of the n where some metric is NaN (a constant
    prediction): they are missing from that metric's mean only. A metric that is defined nowhere is
    NaN.

    Args:
        scores: The scores of each map, or those of a batch as `saliency_scores` returns them.

    Raises:
        ValueError: No maps, or maps with different metrics.
    """
    if isinstance(scores, Mapping):
        listed = {metric: _listed(values) for metric, values in scores.items()}
        columns = zip(*listed.values(), strict=True)
        scores = [dict(zip(listed, values, strict=True)) for values in columns]
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


def _namespace(arrays: Mapping[str, Array]) -> Any:
    """NumPy or torch, with the array API's names."""
    try:
        return array_api_compat.array_namespace(*arrays.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(array).__name__}" for name, array in arrays.items())
        raise ValueError(
            f"arrays of one kind are expected, all NumPy or all torch, not {kinds}"
        ) from error


def _pixels(map_BHW: Array) -> int:
    return map_BHW.shape[-2] * map_BHW.shape[-1]


def _listed(values_B: Array) -> list:
    """The elements as Python numbers."""
    return values_B.tolist() if hasattr(values_B, "tolist") else list(values_B)


def _check_maps(arrays: Mapping[str, Array]) -> None:
    """Refuses kinds that a map cannot have, and shapes other than the first one's; a single map may
    stand beside a batch.
    """
    first, shape = next((name, tuple(array.shape)) for name, array in arrays.items())
    for name, array in arrays.items():
        found = tuple(array.shape)
        if len(found) not in (2, 3) or 0 in found or found not in (shape, shape[-2:]):
            raise ValueError(
                f"{first} {shape} and {name} {found}: expected one (height, width), or one "
                "(maps, height, width); resize first"
            )
        boolean = str(array.dtype).removeprefix("torch.") == "bool"
        if name.endswith("fixations") and not boolean:
            raise ValueError(
                f"{name} are {array.dtype}, expected a boolean map, true at the marked pixels"
            )
        if boolean and not name.endswith("fixations"):
            raise ValueError(f"{name} is boolean, expected numbers; convert it to floats")


def _names(name: str, batch: Array, first: int) -> list[str]:
    """What errors call the maps of a batch from its map `first` on; one map needs no number."""
    if batch.ndim == 2:
        return [name]
    return [f"{name} {number}" for number in range(first, batch.shape[0])]


def _extremes(xp: Any, map_BN: Array, names: Sequence[str]) -> tuple[Array, Array]:
    """Smallest and largest value (B, 1) as float64; a ValueError where a value is not finite."""
    low_B1, high_B1 = (
        xp.astype(extreme(map_BN, axis=1, keepdims=True), xp.float64)
        for extreme in (xp.min, xp.max)
    )
    # NaN spreads to both extremes, and an infinity is one of them.
    for row, values in enumerate(_listed(xp.concat([low_B1, high_B1], axis=1))):
        if not all(math.isfinite(value) for value in values):
            count = int(xp.sum(xp.astype(~xp.isfinite(map_BN[row]), xp.int64)))
            raise ValueError(f"{names[row]} has {count} values that are not finite")
    return low_B1, high_B1


@dataclass(frozen=True)
class _Prediction:
    """What the dense pass leaves of a predicted map. "Scaled" is the map from 0 to 1, or 0
    everywhere where it is constant.

    Attributes:
        name: What errors call it.
        value_N: The map as it came.
        bin_N: Bin of each pixel, ascending with its value; None for 8-bit maps, whose levels are
            the bins.
        count_K: Pixels in each bin.
        low: Smallest value.
        spread: Largest less smallest value; infinite for a constant map, which is taken for `low`
            everywhere.
        scaled_sum: Sum of the scaled map.
        scaled_squares: Sum of its squared deviations from its mean.
    """

    name: str
    value_N: Array
    bin_N: Array | None
    count_K: Array
    low: float
    spread: float
    scaled_sum: float
    scaled_squares: float

    @property
    def pixels(self) -> int:
        return self.value_N.shape[0]

    @property
    def constant(self) -> bool:
        return math.isinf(self.spread)

    @property
    def scaled_mean(self) -> float:
        return self.scaled_sum / self.pixels

    def scaled(self, value_S: Array) -> Array:
        """Float64 values of the map on the scale of 0..1."""
        return (value_S - self.low) / self.spread


@dataclass(frozen=True)
class _Target:
    """Where a ground-truth map is not zero.

    Attributes:
        place_S: Pixels of the support.
        value_S: The map there, float64.
        low: Smallest value of the whole map.
        high: Largest value.
        pixels: N.
    """

    place_S: Array
    value_S: Array
    low: float
    high: float
    pixels: int

    @property
    def constant(self) -> bool:
        return _is_constant(self.low, self.high)


def _is_constant(low: float, high: float) -> bool:
    return high - low <= CONSTANT_SPREAD * max(abs(low), abs(high))


def _predictions(xp: Any, predicted_BN: Array, names: Sequence[str]) -> list[_Prediction]:
    """The dense pass: extremes, moments and histogram of each map of a part."""
    maps, pixels = predicted_BN.shape
    device = array_api_compat.device(predicted_BN)
    low_B1, high_B1 = _extremes(xp, predicted_BN, names)
    spread_B1 = high_B1 - low_B1
    limit_B1 = CONSTANT_SPREAD * xp.maximum(xp.abs(low_B1), xp.abs(high_B1))
    spread_B1 = xp.where(spread_B1 <= limit_B1, xp.full_like(spread_B1, math.inf), spread_B1)

    def counts(bin_BN: Array, bins: int) -> Array:
        if maps > 1:
            bin_BN = bin_BN + bins * xp.arange(maps, dtype=xp.int64, device=device)[:, None]
        count_BK = xp.bincount(xp.reshape(bin_BN, (-1,)), minlength=maps * bins)
        return xp.reshape(count_BK, (maps, bins))

    if predicted_BN.dtype == xp.uint8:
        bin_BN = [None] * maps
        count_BK = counts(xp.astype(predicted_BN, xp.int64), 256)
        scaled_BK = xp.arange(256, dtype=xp.float64, device=device) - low_B1
        scaled_BK = scaled_BK / spread_B1
        sum_B = xp.sum(count_BK * scaled_BK, axis=1)
        squares_B = xp.sum(count_BK * (scaled_BK - sum_B[:, None] / pixels) ** 2, axis=1)
    else:
        # In place: fresh memory would cost a CPU more than the arithmetic. Row by row whatever the
        # layout of the input, so that sums do not depend on it.
        scaled_BN = xp.empty(predicted_BN.shape, dtype=xp.float64, device=device)
        scaled_BN[...] = predicted_BN
        scaled_BN -= low_B1
        scaled_BN /= spread_B1
        sum_B = xp.sum(scaled_BN, axis=1)
        rest_BN = scaled_BN - sum_B[:, None] / pixels
        rest_BN *= rest_BN
        squares_B = xp.sum(rest_BN, axis=1)
        scaled_BN *= BINS
        bin_BN = xp.astype(scaled_BN, xp.int64)
        count_BK = counts(bin_BN, BINS + 1)
    figures_B4 = xp.stack([low_B1[:, 0], spread_B1[:, 0], sum_B, squares_B], axis=1)
    return [
        _Prediction(names[row], predicted_BN[row], bin_BN[row], count_BK[row], *figures)
        for row, figures in enumerate(_listed(figures_B4))
    ]


def _targets(xp: Any, truth_BN: Array, names: Sequence[str]) -> list[_Target]:
    """The supports of ground-truth maps of a part, densities or fixations."""
    if truth_BN.dtype == xp.bool:
        truth_BN = xp.astype(truth_BN, xp.uint8)
    extremes = _listed(xp.concat(_extremes(xp, truth_BN, names), axis=1))
    targets = []
    for row, (low, high) in enumerate(extremes):
        if low < 0:
            raise ValueError(f"{names[row]} has values down to {low:g}; expected at least 0")
        (place_S,) = xp.nonzero(truth_BN[row] != 0)
        value_S = xp.astype(truth_BN[row][place_S], xp.float64)
        targets.append(_Target(place_S, value_S, low, high, truth_BN.shape[1]))
    return targets


def _scores_of_part(
    xp: Any,
    part: Mapping[str, Array],
    names: Mapping[str, Sequence[str]],
    options: SaliencyOptions,
) -> list[dict[str, float]]:
    """Scores of each map of a part."""
    predictions = _predictions(xp, part["predicted map"], names["predicted map"])
    baselines = None
    if "baseline" in part:
        baselines = _predictions(xp, part["baseline"], names["baseline"])
    densities = _targets(xp, part["density"], names["density"]) if "density" in part else None
    divergent = densities
    if options.kld_target == "binary":
        divergent = None
        if "fixations" in part:
            divergent = _targets(xp, part["fixations"], names["fixations"])
    rows = []
    for row, prediction in enumerate(predictions):
        scores: dict[str, float] = {}
        if "fixations" in part:
            (place_F,) = xp.nonzero(part["fixations"][row])
            value_F = xp.astype(prediction.value_N[place_F], xp.float64)
            others_N = part["shuffled fixations"][row] if "shuffled fixations" in part else None
            scores |= _areas(xp, prediction, value_F, others_N, options)
            scores["nss"] = _nss(xp, prediction, value_F, options)
        if densities is not None:
            scores["cc"] = _cc(xp, prediction, densities[row], options)
            scores["sim"] = _sim(xp, prediction, densities[row], options)
        if divergent is not None:
            scores["kld"] = _kld(xp, prediction, divergent[row], options)
        if "fixations" in part and baselines is not None:
            scores["ig"] = _information_gain(xp, prediction, baselines[row], place_F, options)
        rows.append(scores)
    return rows


def _areas(
    xp: Any,
    prediction: _Prediction,
    value_F: Array,
    others_N: Array | None,
    options: SaliencyOptions,
) -> dict[str, float]:
    """Every AUC, from whole numbers of pixels; auc_shuffled with other images' fixations only.

    Args:
        xp: The arrays' functions.
        prediction: The map after the dense pass.
        value_F: The map at the fixated pixels, float64.
        others_N: Pixels fixated in other images.
        options: Definitions.
    """
    n, pixels = value_F.shape[0], prediction.pixels
    value_O = None
    if others_N is not None:
        value_O = xp.astype(prediction.value_N[others_N], xp.float64)
    others = 0 if value_O is None else value_O.shape[0]
    areas = dict.fromkeys(("auc", "auc_judd", "auc_borji"), math.nan)
    if value_O is not None:
        areas["auc_shuffled"] = math.nan
    if n == 0:
        return areas
    unfixated = pixels - n
    if prediction.constant:
        chance = {"auc": 0.5, "auc_judd": 0.5 + 1 / (2 * (n + 1)), "auc_borji": 0.5}
        if others:
            chance["auc_shuffled"] = 0.5
        areas |= chance
    else:
        value_U, times_U = xp.unique_counts(value_F)
        step_T = xp.asarray(STEPS, dtype=xp.float64, device=array_api_compat.device(value_F))
        less_U, equal_U, less_T = _counts_below(xp, prediction, value_U, step_T)
        # Twice the pairs that a fixated pixel wins, ties one half. Those among the fixated pixels
        # themselves come to n * n.
        won = int(xp.sum(times_U * (2 * less_U + equal_U)))
        if options.auc_nonfixated == "all":
            areas["auc"] = won / (2 * n * pixels)
        elif unfixated:
            areas["auc"] = (won - n * n) / (2 * n * unfixated)
        if unfixated:
            tied_fixated = int(times_U[0])
            tied = int(equal_U[0]) - tied_fixated
            above = pixels - int(less_U[0]) - int(equal_U[0]) - (n - tied_fixated)
            corner = above + tied * tied_fixated / (tied_fixated + 1)
            areas["auc_judd"] = (won - n * n + corner) / (2 * n * unfixated)
        hits_T = n - _ranked(xp, step_T, prediction.scaled(value_F))[0]
        areas["auc_borji"] = _stepped_area(hits_T, n, pixels - less_T, pixels)
        if others and options.shuffled == "exact":
            less_U, equal_U = _ranked(xp, value_U, value_O)
            won = int(xp.sum(times_U * (2 * less_U + equal_U)))
            areas["auc_shuffled"] = won / (2 * n * others)
        elif others:
            alarms_T = others - _ranked(xp, step_T, prediction.scaled(value_O))[0]
            areas["auc_shuffled"] = _stepped_area(hits_T, n, alarms_T, others)
    if not unfixated:
        areas["auc_judd"] = math.nan
        if options.auc_nonfixated == "unfixated":
            areas["auc"] = math.nan
    return areas


def _ranked(xp: Any, limit_U: Array, value_S: Array) -> tuple[Array, Array]:
    """How many values are less than, and how many equal to, each of some ascending limits."""
    limits = limit_U.shape[0]
    # Limits below each value; a value is at most limit j where j or fewer are.
    below_S = xp.searchsorted(limit_U, value_S)
    up_to_U = xp.cumulative_sum(xp.bincount(below_S, minlength=limits + 1))[:limits]
    nearest_S = limit_U[xp.minimum(below_S, xp.full_like(below_S, limits - 1))]
    equal_U = xp.bincount(below_S[nearest_S == value_S], minlength=limits)
    return up_to_U - equal_U, equal_U


def _counts_below(
    xp: Any, prediction: _Prediction, value_U: Array, step_T: Array
) -> tuple[Array, Array, Array]:
    """Exact counts over all pixels of a map that is not constant.

    Returns:
        Pixels below each value, pixels equal to it, and pixels whose scaled value is below each
        threshold.
    """
    count_K = prediction.count_K
    if prediction.bin_N is None:
        up_to_K = xp.cumulative_sum(count_K)
        level_U = xp.astype(value_U, xp.int64)
        equal_U = count_K[level_U]
        level_K = xp.arange(256, dtype=xp.float64, device=array_api_compat.device(count_K))
        # A threshold is above 0, so at least the lowest level lies below it.
        below_T = xp.searchsorted(prediction.scaled(level_K), step_T)
        return up_to_K[level_U] - equal_U, equal_U, up_to_K[below_T - 1]
    bin_U = xp.astype(prediction.scaled(value_U) * BINS, xp.int64)
    bin_T = xp.astype(step_T * BINS, xp.int64)
    # Bins ascend with the value, so whole bins below are below. In a bin that holds a limit the
    # pixels are compared themselves.
    mixed_K = xp.zeros_like(count_K, dtype=xp.bool)
    mixed_K[bin_U] = True
    mixed_K[bin_T] = True
    (place_S,) = xp.nonzero(mixed_K[prediction.bin_N])
    value_S = xp.astype(prediction.value_N[place_S], xp.float64)
    whole_K = xp.cumulative_sum(xp.where(mixed_K, xp.zeros_like(count_K), count_K))
    less_U, equal_U = _ranked(xp, value_U, value_S)
    less_T, _ = _ranked(xp, step_T, prediction.scaled(value_S))
    return less_U + whole_K[bin_U], equal_U, less_T + whole_K[bin_T]


def _stepped_area(hits_T: Array, n: int, alarms_T: Array, count: int) -> float:
    """Area below the straight lines from (0, 0) through the thresholds' points to (1, 1).

    Args:
        hits_T: Fixated pixels that reach each threshold, thresholds ascending.
        n: All fixated pixels.
        alarms_T: Other pixels that reach it.
        count: All other pixels.
    """
    hits = [0, *reversed(_listed(hits_T)), n]
    alarms = [0, *reversed(_listed(alarms_T)), count]
    twice = sum(
        (alarms[step] - alarms[step - 1]) * (hits[step] + hits[step - 1])
        for step in range(1, len(hits))
    )
    return twice / (2 * n * count)


def _nss(xp: Any, prediction: _Prediction, value_F: Array, options: SaliencyOptions) -> float:
    if value_F.shape[0] == 0:
        return math.nan
    if prediction.constant:
        return options.constant
    deviation = math.sqrt(prediction.scaled_squares / (prediction.pixels - options.nss_ddof))
    return (float(xp.mean(prediction.scaled(value_F))) - prediction.scaled_mean) / deviation


def _cc(xp: Any, prediction: _Prediction, density: _Target, options: SaliencyOptions) -> float:
    if density.constant:
        return math.nan
    if prediction.constant:
        return options.constant
    # Where the density is 0 it adds to its own spread only; taking its minimum off changes no
    # correlation, and keeps digits.
    value_S = density.value_S - density.low
    mean = float(xp.sum(value_S)) / density.pixels
    zeros = density.pixels - value_S.shape[0]
    squares = float(xp.sum((value_S - mean) ** 2)) + zeros * mean**2
    scaled_S = prediction.scaled(xp.astype(prediction.value_N[density.place_S], xp.float64))
    together = float(xp.sum((scaled_S - prediction.scaled_mean) * value_S))
    return together / math.sqrt(prediction.scaled_squares * squares)


def _sim(xp: Any, prediction: _Prediction, density: _Target, options: SaliencyOptions) -> float:
    if density.high == 0:
        return math.nan
    predicted_S = _shares(xp, prediction, density.place_S, options.sim_norm, options)
    return float(xp.sum(xp.minimum(predicted_S, _target_shares(xp, density, options.sim_norm))))


def _kld(xp: Any, prediction: _Prediction, target: _Target, options: SaliencyOptions) -> float:
    if target.high == 0:
        return math.nan
    eps = options.kld_eps
    if options.kld_form == "floor":
        # Nothing is zero any more, so this one needs all pixels.
        true_N = xp.full_like(prediction.value_N, eps, dtype=xp.float64)
        true_N[target.place_S] += target.value_S
        true_N /= xp.sum(true_N)
        if prediction.constant:
            return float(xp.sum(true_N * xp.log(true_N * prediction.pixels)))
        predicted_N = xp.astype(prediction.value_N, xp.float64, copy=True)
        # One after the other: beside a minimum of -1 the floor would be lost.
        predicted_N -= _floor(prediction, options)
        predicted_N += eps
        predicted_N /= xp.sum(predicted_N)
        return float(xp.sum(true_N * xp.log(true_N / predicted_N)))
    predicted_S = _shares(xp, prediction, target.place_S, options.kld_norm, options)
    true_S = _target_shares(xp, target, options.kld_norm)
    return float(xp.sum(true_S * xp.log(eps + true_S / (predicted_S + eps))))


def _information_gain(
    xp: Any,
    prediction: _Prediction,
    baseline: _Prediction,
    place_F: Array,
    options: SaliencyOptions,
) -> float:
    if place_F.shape[0] == 0:
        return math.nan
    bits = []
    for map_ in (prediction, baseline):
        if map_.constant:
            bits.append(math.log2(options.ig_eps + 1 / map_.pixels))
        else:
            share_F = _shares(xp, map_, place_F, options.ig_norm, options)
            bits.append(float(xp.mean(xp.log2(options.ig_eps + share_F))))
    return bits[0] - bits[1]


def _floor(prediction: _Prediction, options: SaliencyOptions) -> float:
    """What is taken off a map before it is scaled to sum 1."""
    if prediction.low >= 0:
        return 0.0
    if options.negative == "refuse":
        raise ValueError(
            f"{prediction.name} has values down to {prediction.low:g}; shares need at least 0: "
            "clip or shift it, or set the option negative='shift'"
        )
    return prediction.low


def _shares(
    xp: Any, prediction: _Prediction, place_S: Array, norm: str, options: SaliencyOptions
) -> Array:
    """The map at some pixels after it is scaled to sum 1, by way of 0..1 in "minmax_sum"."""
    value_S = xp.astype(prediction.value_N[place_S], xp.float64)
    if norm == "minmax_sum":
        if prediction.constant:
            return xp.full_like(value_S, math.nan)
        return prediction.scaled(value_S) / prediction.scaled_sum
    floor = _floor(prediction, options)
    if prediction.constant:
        empty = prediction.low == floor and options.zero_map == "zero"
        return xp.full_like(value_S, 0 if empty else 1 / prediction.pixels)
    total = prediction.pixels * (prediction.low - floor) + prediction.spread * prediction.scaled_sum
    return (value_S - floor) / total


def _target_shares(xp: Any, target: _Target, norm: str) -> Array:
    """The target's support after the whole is scaled to sum 1."""
    if norm == "minmax_sum" and target.constant:
        return xp.full_like(target.value_S, math.nan)
    # With a minimum above 0 the support is every pixel.
    value_S = target.value_S - target.low if norm == "minmax_sum" else target.value_S
    return value_S / xp.sum(value_S)
