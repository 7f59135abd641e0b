"""Do our metrics agree with those of others? Both compute the same cases.

Random maps (floats, 8-bit, few levels, mostly zero, flat background), random scores with and
without ties, the golden digits and, where there are any, real maps go through `metrics.saliency`
and `metrics.correlation`, and through scipy, scikit-learn, pysaliency and torchmetrics, which were
written by others. The table shows the largest absolute difference of every metric; the exit status
is 1 where one exceeds its tolerance. References that are not installed are named and left out.

    python -m lmme3dhf.metrics.agreement
    python -m lmme3dhf.metrics.agreement --cases 20 --data maps --out agreement.json

What the references do otherwise, known from their behaviour:

- pysaliency's AUC counts all pixels as nonfixated, its NSS divides by the population deviation, its
  SIM does not take the minimum off, its KLD adds 1e-20 to both maps, and its MIT_KLDiv has the
  epsilon 2.2204e-16 in place of 2**-52: the options follow it. Without its jitter its AUC-Judd
  counts ties for the fixated pixels: compared where no fixated value is tied;
- scipy's and torchmetrics' divergence and pysaliency's densities have no epsilon: compared without
  ours, where the prediction is positive;
- torchmetrics computes ranks and areas in float32.

Array legend: H height, W width, N scores.
"""

import argparse
import dataclasses
import importlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from scipy import io, ndimage, special, stats

from lmme3dhf.files import write_json
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.metrics.saliency import (
    PRESETS,
    STEPS,
    SaliencyOptions,
    fixations_from_density,
    other_fixations,
    saliency_scores,
)

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = PROJECT / "tests" / "golden" / "saliency.json"
DATA = PROJECT.parent / "shared" / "data" / "saliency"
KINDS = ("float", "8-bit", "few levels", "mostly zero", "flat background")
# Below any share's last digit: what is left where a reference has no epsilon.
NO_EPS = 1e-300
WITHOUT_EPS = dataclasses.replace(PRESETS["mit"], kld_eps=NO_EPS)
MIT_KLDIV = dataclasses.replace(PRESETS["pysaliency"], kld_form="ratio", kld_eps=2.2204e-16)
# Round-off of sums over a few hundred thousand pixels.
ROUNDING = 1e-12
FLOAT32 = 1e-6


@dataclass(frozen=True)
class Case:
    """One prediction with its ground truth.

    Attributes:
        predicted_HW: Floats, or unsigned 8-bit.
        density_HW: Float64.
        fixations_HW: Boolean, at least one.
        others_HW: Boolean, pixels fixated in other images; None where there are none.
    """

    predicted_HW: np.ndarray
    density_HW: np.ndarray
    fixations_HW: np.ndarray
    others_HW: np.ndarray | None = None

    def scores(self, options: str | SaliencyOptions) -> dict[str, float]:
        """Our metrics of the case."""
        truth = (self.density_HW, self.fixations_HW)
        return saliency_scores(self.predicted_HW, *truth, options=options, shuffled=self.others_HW)


@dataclass(frozen=True)
class Compared:
    """One value of ours beside the same by somebody else.

    Attributes:
        metric: Name in the table.
        reference: Who computed theirs.
        ours: Our value.
        theirs: Their value.
        tolerance: Largest difference that is still agreement.
    """

    metric: str
    reference: str
    ours: float
    theirs: float
    tolerance: float


@dataclass(frozen=True)
class Row:
    """All cases of one metric and one reference.

    Attributes:
        metric: The metric.
        reference: Who computed the other side.
        cases: How many values were compared.
        difference: Largest absolute difference; infinite where one side only is NaN.
        tolerance: Largest difference that is still agreement.
    """

    metric: str
    reference: str
    cases: int
    difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether no case is further apart than the tolerance."""
        return self.difference <= self.tolerance


class _MissingError(Exception):
    """A reference that is not installed."""


def random_case(rng: np.random.Generator, kind: str) -> Case:
    """A small random case of a kind in `KINDS`, with 1 to 40 fixations and 5 to 60 of others."""
    height, width = (int(n) for n in rng.integers(16, 64, 2))
    noise_HW = rng.random((height, width))
    smooth_HW = ndimage.gaussian_filter(noise_HW, rng.uniform(0.5, 4))
    smooth_HW = (smooth_HW - smooth_HW.min()) / np.ptp(smooth_HW)
    predicted_HW = {
        "float": lambda: 0.01 + smooth_HW + 0.1 * noise_HW,
        "8-bit": lambda: np.floor(255 * smooth_HW).astype(np.uint8),
        "few levels": lambda: np.floor(rng.integers(2, 9) * noise_HW),
        "mostly zero": lambda: np.maximum(smooth_HW - 0.8, 0),
        # As float32, like maps from a model; all but a few pixels are the same.
        "flat background": lambda: np.where(noise_HW > 0.95, noise_HW, 0.3).astype(np.float32),
    }[kind]()
    marked_HW = np.zeros((height, width), dtype=bool)
    marked_HW.flat[rng.choice(marked_HW.size, rng.integers(1, 41), replace=False)] = True
    others_HW = np.zeros((height, width), dtype=bool)
    others_HW.flat[rng.choice(marked_HW.size, rng.integers(5, 61), replace=False)] = True
    density_HW = ndimage.gaussian_filter(marked_HW.astype(np.float64), rng.uniform(1, 4))
    return Case(predicted_HW, density_HW / density_HW.max(), marked_HW, others_HW)


def golden_inputs() -> dict[str, Case]:
    """The inputs of the golden digits, by the formulas that were given with them."""
    i, j = np.mgrid[:24, :32]
    small_HW = (
        0.5
        + 0.3 * np.sin(2 * np.pi * (i + 1) / 24) * np.cos(2 * np.pi * j / 32)
        + 0.2 * ((7 * i + 13 * j) % 17) / 17
    )
    marked_HW = np.zeros((24, 32), dtype=bool)
    marked_HW[[3, 8, 12, 12, 20], [5, 20, 12, 13, 28]] = True
    density_HW = ndimage.gaussian_filter(marked_HW.astype(np.float64), 2)
    density_HW /= density_HW.max()
    others_HW = np.zeros((24, 32), dtype=bool)
    others_HW[::5, ::4] = True
    truth = (density_HW, marked_HW, others_HW & ~marked_HW)
    k = np.arange(16)
    y, x = (97 * k + 61) % 512, (389 * k + 173) % 1536
    dots_HW = np.zeros((512, 1536), dtype=bool)
    dots_HW[y, x] = True
    smooth_HW = ndimage.gaussian_filter(dots_HW.astype(np.float64), 5)
    smooth_HW /= smooth_HW.max()
    moved_HW = np.zeros((512, 1536))
    moved_HW[(y + 6) % 512, (x + 9) % 1536] = 1
    blurred_HW = ndimage.gaussian_filter(moved_HW, 12)
    i, j = np.mgrid[:512, :1536]
    large_HW = blurred_HW / blurred_HW.max() + 0.15 * (1 + np.sin(i / 40) * np.cos(j / 60))
    grey_HW = np.floor(255 * (large_HW - large_HW.min()) / np.ptp(large_HW))
    cut_HW = np.floor(255 * smooth_HW)
    return {
        "G1": Case(small_HW, *truth),
        "G2": Case(large_HW, smooth_HW, dots_HW),
        "G2b": Case(grey_HW, cut_HW, cut_HW / 255 >= 0.95),
        "G3": Case(np.floor(8 * small_HW) / 8, *truth),
        "G4": Case(np.maximum(small_HW - 0.6, 0), *truth),
    }


def golden_scores(case: Case) -> dict[str, float]:
    """Our values under the names of the golden digits."""
    mit, theirs, kldiv = (case.scores(o) for o in ("mit", "pysaliency", MIT_KLDIV))
    binary = case.scores(SaliencyOptions(kld_target="binary"))
    released = case.scores("lmme3dhf-repo")
    itself = saliency_scores(case.density_HW, case.density_HW, case.fixations_HW)
    values = {
        "auc": mit["auc"],
        "auc all": theirs["auc"],
        "auc_judd": mit["auc_judd"],
        "auc_borji": mit["auc_borji"],
        "nss ddof 1": mit["nss"],
        "nss ddof 0": theirs["nss"],
        "cc": mit["cc"],
        "sim minmax_sum": mit["sim"],
        "sim sum": theirs["sim"],
        "kld MIT": mit["kld"],
        "kld pysaliency MIT_KLDiv": kldiv["kld"],
        "kld pysaliency default": theirs["kld"],
        "kld MIT, binary": binary["kld"],
        "kld released loss, float32": released["kld"],
        "nss ddof 1 of the density": itself["nss"],
    }
    if case.others_HW is not None:
        values["auc_shuffled steps"] = mit["auc_shuffled"]
        values["auc_shuffled exact"] = theirs["auc_shuffled"]
    return values


def golden_tolerance(case: str, metric: str) -> float:
    """How many of the golden digits are meant."""
    if "float32" in metric:
        return FLOAT32
    # Levels of an 8-bit map lie exactly on thresholds, .6 for one, which were 0.6000000000000001
    # where the digits come from. MATLAB has .6, as we have.
    if (case, metric) == ("G2b", "auc_borji"):
        return 1e-6
    return 1e-11


def real_cases(folder: Path) -> Iterator[Case]:
    """Real maps in the folders of the MIT benchmark's demonstration and of a part of MIT1003.

    In `mit_demo` two models' maps with human fixations; in `mit1003` human densities, which are
    compared with the picture's brightness and with the density of the next picture, fixations read
    off by the released rule.
    """
    demo = folder / "mit_demo"
    for model in sorted((demo / "MODELS").glob("*_i210.jpg")):
        fixated_HW = np.asarray(io.loadmat(demo / "FIXATIONLOCS" / "i210.mat")["fixations"]) > 0
        density_HW = _grey(demo / "FIXATIONMAPS" / "i210.jpg", fixated_HW.shape)
        yield Case(_grey(model, fixated_HW.shape), density_HW.astype(np.float64), fixated_HW)
    paths = sorted((folder / "mit1003" / "ALLFIXATIONMAPS").glob("*.jpg"))
    for path, following in zip(paths, paths[1:] + paths[:1], strict=True):
        grey_HW = _grey(path)
        next_HW = _grey(following, grey_HW.shape)
        fixated_BHW = fixations_from_density(np.stack([grey_HW, next_HW]))
        truth = (grey_HW.astype(np.float64), fixated_BHW[0], other_fixations(fixated_BHW)[0])
        yield Case(next_HW, *truth)
        brightness_HW = _grey(folder / "mit1003" / "ALLSTIMULI" / path.name, grey_HW.shape)
        yield Case(brightness_HW / np.float32(255), *truth)


def _grey(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    with Image.open(path) as picture:
        grey = picture.convert("L")
    if shape is not None and shape != (grey.height, grey.width):
        grey = grey.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def _oracle(name: str) -> ModuleType:
    """An optional library; it is slow to import and warns."""
    if name.startswith("pysaliency") and not hasattr(np, "trapz"):
        # pysaliency 0.2.22 uses the name that NumPy 2.4 took away.
        np.trapz = np.trapezoid
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise _MissingError(name.split(".")[0]) from error


def _scaled(map_HW: np.ndarray) -> np.ndarray:
    map_HW = map_HW.astype(np.float64)
    return (map_HW - map_HW.min()) / np.ptp(map_HW)


def with_scikit_learn(case: Case) -> Iterator[Compared]:
    """Areas; those of AUC-Borji's points after their rates are counted pixel by pixel."""
    oracle = _oracle("sklearn.metrics")
    ours, exact = case.scores("mit"), case.scores("pysaliency")
    at_HW, map_HW = case.fixations_HW, case.predicted_HW

    def compared(metric: str, value: float, theirs: float) -> Compared:
        return Compared(metric, "scikit-learn", value, float(theirs), ROUNDING)

    area = oracle.roc_auc_score(at_HW.ravel(), map_HW.ravel())
    yield compared("auc", ours["auc"], area)
    scaled_HW = _scaled(map_HW)

    def stepped(elsewhere: np.ndarray) -> float:
        rates = [
            [1, *((values >= step).mean() for step in STEPS), 0]
            for values in (elsewhere, scaled_HW[at_HW])
        ]
        return oracle.auc(*rates)

    yield compared("auc_borji", ours["auc_borji"], stepped(scaled_HW))
    if case.others_HW is not None:
        others = map_HW[case.others_HW]
        yield compared(
            "auc_shuffled, steps", ours["auc_shuffled"], stepped(scaled_HW[case.others_HW])
        )
        truth = np.repeat([True, False], [at_HW.sum(), len(others)])
        theirs = oracle.roc_auc_score(truth, np.concatenate([map_HW[at_HW], others]))
        yield compared("auc_shuffled, exact", exact["auc_shuffled"], theirs)


def with_pysaliency(case: Case) -> Iterator[Compared]:
    """Everything that its functions on arrays give."""
    roc, metrics = _oracle("pysaliency.roc"), _oracle("pysaliency.metrics")
    judd, ours, kldiv = (case.scores(o) for o in ("mit", "pysaliency", MIT_KLDIV))
    map_HW, density_HW = case.predicted_HW.astype(np.float64), case.density_HW
    y, x = np.nonzero(case.fixations_HW)
    at, elsewhere = map_HW[y, x], map_HW[~case.fixations_HW]

    def compared(metric: str, value: float, theirs: float, tolerance: float = ROUNDING) -> Compared:
        return Compared(metric, "pysaliency", value, float(theirs), tolerance)

    area, *_ = roc.general_roc(at, map_HW.ravel())
    yield compared("auc, all pixels", ours["auc"], area)
    if len(np.unique(at)) == len(at) and not np.isin(at, elsewhere).any():
        area, *_ = roc.general_roc(at, elsewhere, judd=1)
        yield compared("auc_judd", judd["auc_judd"], area)
    if case.others_HW is not None:
        area, *_ = roc.general_roc(at, map_HW[case.others_HW])
        yield compared("auc_shuffled, exact", ours["auc_shuffled"], area)
    yield compared("nss, ddof 0", ours["nss"], metrics.NSS(map_HW, x, y).mean(), 1e-11)
    yield compared("cc", ours["cc"], metrics.CC(map_HW, density_HW))
    yield compared("sim, sum", ours["sim"], metrics.SIM(map_HW, density_HW))
    # It takes the exponential of a logarithm, of 0 too.
    with np.errstate(divide="ignore"):
        divergence = metrics.image_based_kl_divergence(map_HW, density_HW)
        divergence_mit = metrics.MIT_KLDiv(map_HW, density_HW)
    yield compared("kld, floor 1e-20", ours["kld"], divergence, 1e-11)
    yield compared("kld, MIT_KLDiv", kldiv["kld"], divergence_mit, 1e-11)
    if map_HW.min() > 0:
        # Densities without an epsilon, as its probabilistic models have them.
        baseline_HW = ndimage.gaussian_filter(density_HW, 5) + 0.05
        without_eps = dataclasses.replace(PRESETS["pysaliency"], ig_eps=NO_EPS)
        gained = saliency_scores(
            map_HW, None, case.fixations_HW, options=without_eps, baseline=baseline_HW
        )
        at, base = (
            metrics.convert_saliency_map_to_density(one_HW)[y, x]
            for one_HW in (map_HW, baseline_HW)
        )
        gain = np.log2(at / base).mean()
        yield compared("ig, positive maps", gained["ig"], gain, 1e-11)


def with_scipy(case: Case) -> Iterator[Compared]:
    """The statistics that saliency has other names for."""
    ours = case.scores("mit") | {"kld": case.scores(WITHOUT_EPS)["kld"]}
    map_HW, at_HW = case.predicted_HW.astype(np.float64), case.fixations_HW

    def compared(metric: str, theirs: float, tolerance: float = ROUNDING) -> Compared:
        return Compared(metric, "scipy", ours[metric.split(",")[0]], float(theirs), tolerance)

    pairs = at_HW.sum() * (~at_HW).sum()
    yield compared("auc", stats.mannwhitneyu(map_HW[at_HW], map_HW[~at_HW]).statistic / pairs)
    yield compared("nss", stats.zscore(map_HW, axis=None, ddof=1)[at_HW].mean(), 1e-11)
    yield compared("cc", stats.pearsonr(map_HW.ravel(), case.density_HW.ravel()).statistic)
    if map_HW.min() > 0:
        true_HW, shares_HW = case.density_HW / case.density_HW.sum(), map_HW / map_HW.sum()
        yield compared("kld, positive maps", special.rel_entr(true_HW, shares_HW).sum(), 1e-11)


def with_torchmetrics(case: Case) -> Iterator[Compared]:
    """Its area under the curve, correlation and divergence."""
    functional, torch = _oracle("torchmetrics.functional"), _oracle("torch")
    ours = case.scores("mit") | {"kld": case.scores(WITHOUT_EPS)["kld"]}
    # Outside of 0..1 it would take a sigmoid first.
    scaled_N = torch.as_tensor(_scaled(case.predicted_HW).ravel())
    truth_N = torch.as_tensor(case.fixations_HW.ravel()).int()
    map_N = torch.as_tensor(case.predicted_HW.astype(np.float64).ravel())
    density_N = torch.as_tensor(case.density_HW.ravel())

    def compared(metric: str, theirs: object, tolerance: float) -> Compared:
        value = ours[metric.split(",")[0]]
        return Compared(metric, "torchmetrics", value, float(theirs), tolerance)

    yield compared("auc", functional.auroc(scaled_N, truth_N, task="binary"), FLOAT32)
    yield compared("cc", functional.pearson_corrcoef(map_N, density_N), 1e-11)
    if map_N.min() > 0:
        theirs = functional.kl_divergence(density_N[None], map_N[None])
        yield compared("kld, positive maps", theirs, 1e-11)


def with_torch(case: Case) -> Iterator[Compared]:
    """Our own metrics of the same maps as torch tensors."""
    torch = _oracle("torch")
    arrays = (case.predicted_HW, case.density_HW, case.fixations_HW, case.others_HW)
    tensors = [None if array is None else torch.as_tensor(array.copy()) for array in arrays]
    for preset in PRESETS:
        ours = case.scores(preset)
        same = saliency_scores(*tensors[:3], options=preset, shuffled=tensors[3])
        for metric, value in ours.items():
            tolerance = 0.0 if metric.startswith("auc") else ROUNDING
            name = "every auc" if metric.startswith("auc") else metric
            yield Compared(name, "ours on torch tensors", value, same[metric], tolerance)


REFERENCES: dict[str, Callable[[Case], Iterator[Compared]]] = {
    "scikit-learn": with_scikit_learn,
    "pysaliency": with_pysaliency,
    "scipy": with_scipy,
    "torchmetrics": with_torchmetrics,
    "torch": with_torch,
}


def random_scores(rng: np.random.Generator, tied: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N,) and opinion scores (N,) of 5 to 200 videos; tied ones on five levels."""
    mos_N = rng.uniform(20, 80, int(rng.integers(5, 201)))
    predicted_N = mos_N + rng.normal(0, rng.uniform(1, 60), len(mos_N))
    if tied:
        predicted_N = np.round(predicted_N / 20)
        mos_N = np.round(mos_N / 5)
    return predicted_N, mos_N


def correlations_compared(predicted_N: np.ndarray, mos_N: np.ndarray) -> Iterator[Compared]:
    """Against scipy, against the definitions written out, and against torchmetrics."""
    ours = correlations(predicted_N, mos_N)
    if math.isnan(ours.srcc):
        return

    def compared(metric: str, reference: str, theirs: object, tolerance: float) -> Compared:
        return Compared(metric, reference, getattr(ours, metric), float(theirs), tolerance)

    yield compared("srcc", "scipy", stats.spearmanr(predicted_N, mos_N).statistic, ROUNDING)
    yield compared("plcc", "scipy", stats.pearsonr(predicted_N, mos_N).statistic, ROUNDING)
    yield compared("krcc", "scipy", stats.kendalltau(predicted_N, mos_N).statistic, ROUNDING)
    root = math.sqrt(np.square(predicted_N - mos_N).mean())
    ranks_2N = stats.rankdata([predicted_N, mos_N], axis=1)
    signs_2NN = np.sign([v[:, None] - v[None, :] for v in (predicted_N, mos_N)])
    norms = math.sqrt((signs_2NN[0] ** 2).sum() * (signs_2NN[1] ** 2).sum())
    definition = "the definition, NumPy"
    yield compared("srcc", definition, np.corrcoef(ranks_2N)[0, 1], ROUNDING)
    yield compared("plcc", definition, np.corrcoef(predicted_N, mos_N)[0, 1], ROUNDING)
    yield compared("krcc", definition, signs_2NN.prod(axis=0).sum() / norms, ROUNDING)
    yield compared("rmse", definition, root, ROUNDING)


def correlations_with_torchmetrics(
    predicted_N: np.ndarray, mos_N: np.ndarray
) -> Iterator[Compared]:
    """Its ranks are in float32."""
    functional, torch = _oracle("torchmetrics.functional"), _oracle("torch")
    ours = correlations(predicted_N, mos_N)
    if math.isnan(ours.srcc):
        return
    pair = (torch.as_tensor(predicted_N), torch.as_tensor(mos_N))

    def compared(metric: str, theirs: object, tolerance: float) -> Compared:
        return Compared(metric, "torchmetrics", getattr(ours, metric), float(theirs), tolerance)

    yield compared("srcc", functional.spearman_corrcoef(*pair), FLOAT32)
    yield compared("plcc", functional.pearson_corrcoef(*pair), 1e-11)
    yield compared("krcc", functional.kendall_rank_corrcoef(*pair, variant="b"), FLOAT32)
    yield compared("rmse", functional.mean_squared_error(*pair, squared=False), 1e-11)


def rows_of(compared: list[Compared]) -> list[Row]:
    """One row for each metric and reference, in the order in which they came."""
    found: dict[tuple[str, str, float], list[float]] = {}
    for one in compared:
        both_nan = math.isnan(one.ours) and math.isnan(one.theirs)
        apart = 0.0 if both_nan else abs(one.ours - one.theirs)
        key = (one.metric, one.reference, one.tolerance)
        found.setdefault(key, []).append(math.inf if math.isnan(apart) else apart)
    return [
        Row(metric, reference, len(apart), max(apart), tolerance)
        for (metric, reference, tolerance), apart in found.items()
    ]


def compared_with_all(cases: list[Case], label: str = "") -> tuple[list[Row], set[str]]:
    """All saliency references on some cases; also which of them are not installed.

    Args:
        cases: The cases.
        label: Stands in brackets behind the references' names.
    """
    rows, missing = [], set()
    for compare in REFERENCES.values():
        try:
            found = [one for case in cases for one in compare(case)]
        except _MissingError as error:
            missing.add(str(error))
            continue
        rows += rows_of(
            [dataclasses.replace(one, reference=f"{one.reference}{label}") for one in found]
        )
    return rows, missing


def main(argv: list[str] | None = None) -> int:
    """Compares everything, prints the table and says whether all agree: 0 or 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=200, help="random cases of each sort")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with mit_demo and mit1003")
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="file of golden digits")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args(argv)
    if args.cases < 1:
        parser.error(f"--cases is {args.cases}, expected at least 1")
    rng = np.random.default_rng(args.seed)
    cases = [random_case(rng, KINDS[number % len(KINDS)]) for number in range(args.cases)]
    rows, missing = compared_with_all(cases)
    absent = []
    real = list(real_cases(args.data)) if args.data.is_dir() else []
    if real:
        rows += compared_with_all(real, ", real maps")[0]
    else:
        absent.append(f"{args.data}: no real maps there; give their folder with --data")
    if args.golden.is_file():
        digits = json.loads(args.golden.read_text(encoding="utf-8"))["cases"]
        rows += rows_of(
            [
                Compared(metric, "golden page", value, digits[name]["values"][metric], tolerance)
                for name, case in golden_inputs().items()
                for metric, value in golden_scores(case).items()
                for tolerance in [golden_tolerance(name, metric)]
                if metric in digits[name]["values"]
            ]
        )
    else:
        absent.append(f"{args.golden}: no golden digits there; give their file with --golden")
    pairs = [random_scores(rng, tied=number % 2 == 1) for number in range(args.cases)]
    rows += rows_of([one for pair in pairs for one in correlations_compared(*pair)])
    try:
        rows += rows_of([one for pair in pairs for one in correlations_with_torchmetrics(*pair)])
    except _MissingError as error:
        missing.add(str(error))
    print("| metric | compared with | cases | largest absolute difference | tolerance | |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        verdict = "" if row.agrees else "TOO FAR"
        print(
            f"| {row.metric} | {row.reference} | {row.cases} | {row.difference:.1e} | "
            f"{row.tolerance:.0e} | {verdict} |"
        )
    for line in absent:
        print(line)
    if missing:
        print(
            f"not installed, so not compared with: {', '.join(sorted(missing))}; the project's "
            "test extra brings them: pip install -e '.[test]'"
        )
    apart = [row for row in rows if not row.agrees]
    print(f"{len(rows) - len(apart)} of {len(rows)} rows agree")
    if args.out:
        write_json(
            args.out,
            {
                "rows": [dataclasses.asdict(row) | {"agrees": row.agrees} for row in rows],
                "missing": sorted(missing),
                "absent": absent,
            },
        )
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
