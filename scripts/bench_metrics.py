"""How fast are our saliency metrics? Both sides do the same maps in one run, by turns.

The full set on strips of 512 x 1536: AUC (Mann-Whitney), AUC-Judd, AUC-Borji, shuffled AUC, NSS,
CC, SIM and KLD. Their side computes each with a library call on one map after the other:

- AUC: scikit-learn's roc_auc_score, or pysaliency's general_rocs_per_positive over the unfixated
  pixels, which is faster; the whole set is given with either;
- AUC-Judd: pysaliency's general_roc at the fixated values; maps in which one of these is tied with
  another pixel get its AUC_Judd's jitter first, so that its value there is one random draw;
- AUC-Borji: neither library has it; the MIT benchmark's definition in NumPy, 100 random splits:
  one random draw as well;
- shuffled AUC: pysaliency's general_rocs_per_positive over other images' fixations;
- NSS, CC, SIM, KLD: pysaliency's functions, KLD as MIT_KLDiv.

Our side is one call of `saliency_scores` on the batch, with the same definitions. "Ours" beside a
single metric is the smallest call that gives it, alone: metrics share most of their work, so these
do not add up to the whole set.

    python scripts/bench_metrics.py
    python scripts/bench_metrics.py --maps 4 --repeats 3 --torch --out runs/bench_metrics.json

Times are processor time, which other programs disturb least, per map: medians over the repeats.
Both sides run on one thread. Compiling (numba) and first calls are not timed.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import integrate, ndimage

from lmme3dhf.files import write_json
from lmme3dhf.metrics.agreement import MIT_KLDIV
from lmme3dhf.metrics.saliency import other_fixations, saliency_scores

SAME = dataclasses.replace(MIT_KLDIV, auc_nonfixated="unfixated")
KINDS = {
    "float64": lambda map_HW: map_HW,
    "float32": lambda map_HW: map_HW.astype(np.float32),
    "8-bit": lambda map_HW: np.floor(255 * map_HW).astype(np.uint8),
    # What a PNG becomes before it is evaluated.
    "8-bit as float32": lambda map_HW: np.floor(255 * map_HW).astype(np.float32) / 255,
}
SPLITS = 100
JITTER = 1e-7
# The smallest call of ours that gives a metric: which arrays it needs beside the prediction.
NEEDS = {
    "auc": ("fixations",),
    "auc_judd": ("fixations",),
    "auc_borji": ("fixations",),
    "auc_shuffled": ("fixations", "shuffled"),
    "nss": ("fixations",),
    "cc": ("density",),
    "sim": ("density",),
    "kld": ("density",),
}
FULL = ("density", "fixations", "shuffled")


def strips(
    maps: int, height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions in 0..1, densities and fixations (maps, height, width): 4 to 24 points on each,
    found by the prediction with an error of some pixels, among false alarms, on a faint background.
    """
    predicted, densities, fixations = [], [], []
    for _ in range(maps):
        count = int(rng.integers(4, 25))
        y, x = rng.integers(0, height, count), rng.integers(0, width, count)
        fixated_HW = np.zeros((height, width), dtype=bool)
        fixated_HW[y, x] = True
        density_HW = ndimage.gaussian_filter(fixated_HW.astype(np.float64), 5)
        found_HW = np.zeros((height, width))
        moved = rng.normal(0, 8, (2, count)).astype(int)
        found_HW[(y + moved[0]) % height, (x + moved[1]) % width] = rng.random(count)
        found_HW[rng.integers(0, height, 6), rng.integers(0, width, 6)] = 0.5
        blurred_HW = ndimage.gaussian_filter(found_HW, 12)
        faint_HW = ndimage.gaussian_filter(rng.random((height, width)), 6)
        faint_HW = (faint_HW - faint_HW.min()) / np.ptp(faint_HW)
        map_HW = blurred_HW / blurred_HW.max() + 0.1 * faint_HW
        predicted.append((map_HW - map_HW.min()) / np.ptp(map_HW))
        densities.append(density_HW / density_HW.max())
        fixations.append(fixated_HW)
    return np.stack(predicted), np.stack(densities), np.stack(fixations)


def borji_by_splits(map_HW: np.ndarray, fixated_HW: np.ndarray, rng: np.random.Generator) -> float:
    """AUC-Borji as the MIT benchmark defines it, over random splits."""
    map_HW = map_HW.astype(np.float64)
    scaled_HW = (map_HW - map_HW.min()) / np.ptp(map_HW)
    at = scaled_HW[fixated_HW]
    areas = []
    for _ in range(SPLITS):
        drawn = scaled_HW.ravel()[rng.integers(0, scaled_HW.size, len(at))]
        steps = np.arange(0, max(at.max(), drawn.max()) + 0.1, 0.1)[::-1, None]
        hits = [0, *(at >= steps).mean(axis=1), 1]
        alarms = [0, *(drawn >= steps).mean(axis=1), 1]
        areas.append(integrate.trapezoid(hits, alarms))
    return float(np.mean(areas))


def their_metrics(tied: bool, rng: np.random.Generator) -> dict[str, Callable[..., float]]:
    """Name -> library call on (map, density, fixations, others); AUC in two ways.

    Args:
        tied: Whether fixated values may be tied, so that AUC-Judd needs its jitter.
        rng: Draws jitter and splits.

    Raises:
        SystemExit: A library is not installed.
    """
    if not hasattr(np, "trapz"):
        # pysaliency 0.2.22 uses the name that NumPy 2.4 took away.
        np.trapz = np.trapezoid
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pysaliency import metrics, roc
            from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise SystemExit(
            f"bench_metrics.py: {error.name} is not installed; install the project with its test "
            "extra: pip install -e '.[test]'"
        ) from error

    def judd(p, g, f, o):
        if tied:
            p = p + JITTER * rng.random(p.shape)
        return roc.general_roc(p[f], p[~f], judd=1)[0]

    def nss(p, g, f, o):
        y, x = np.nonzero(f)
        return metrics.NSS(p, x, y).mean()

    def kld(p, g, f, o):
        with np.errstate(divide="ignore"):  # it takes the logarithm of 0
            return metrics.MIT_KLDiv(p, g)

    # p prediction, g density, f fixations, o others' fixations.
    return {
        "auc": lambda p, g, f, o: roc_auc_score(f.ravel(), p.ravel()),
        "auc by pysaliency": lambda p, g, f, o: roc.general_rocs_per_positive(p[f], p[~f]).mean(),
        "auc_judd": judd,
        "auc_borji": lambda p, g, f, o: borji_by_splits(p, f, rng),
        "auc_shuffled": lambda p, g, f, o: roc.general_rocs_per_positive(p[f], p[o]).mean(),
        "nss": nss,
        "cc": lambda p, g, f, o: metrics.CC(p, g),
        "sim": lambda p, g, f, o: metrics.SIM(p, g),
        "kld": kld,
    }


def our_scores(arrays: dict, names: tuple[str, ...]) -> dict:
    """One call on the batch with only some of the arrays."""
    given = {name: arrays[name] if name in names else None for name in FULL}
    return saliency_scores(
        arrays["predicted"],
        given["density"],
        given["fixations"],
        options=SAME,
        shuffled=given["shuffled"],
    )


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Milliseconds of the processor, and what the call returned."""
    start = time.process_time()
    result = call()
    return 1000 * (time.process_time() - start), result


def compared(arrays: dict, repeats: int, rng: np.random.Generator, torch) -> dict:
    """Times and differences for one kind of map.

    Args:
        arrays: "predicted" of that kind, "density", "fixations" and "shuffled".
        repeats: How often each side runs.
        rng: Draws their jitter and splits.
        torch: The library, to time ours on tensors too; None for NumPy alone.

    Returns:
        Milliseconds per map, ratios and largest differences, ready for JSON.
    """
    tied = any(
        np.isin(map_HW[at_HW], map_HW[~at_HW]).any()
        for map_HW, at_HW in zip(arrays["predicted"], arrays["fixations"], strict=True)
    )
    theirs = their_metrics(tied, rng)
    count = len(arrays["predicted"])
    # Their functions compute in what they are given; the library's own models cast to float64.
    wide = [
        (predicted.astype(np.float64), density, fixations, others)
        for predicted, density, fixations, others in zip(
            *(arrays[name] for name in ("predicted", *FULL)), strict=True
        )
    ]
    tensors = None
    if torch is not None:
        tensors = {name: torch.as_tensor(array) for name, array in arrays.items()}
    calls = set(NEEDS.values())
    for call in theirs.values():
        call(*wide[0])
    our_scores(arrays, FULL)
    their_ms: dict[str, list[float]] = {name: [] for name in theirs}
    our_ms: dict[object, list[float]] = {key: [] for key in (FULL, "torch", *calls)}
    for _ in range(repeats):
        for name, call in theirs.items():
            spent, values = timed(lambda call=call: [call(*one) for one in wide])
            their_ms[name].append(spent / count)
            if name in NEEDS:
                arrays[f"their {name}"] = values
        spent, ours = timed(lambda: our_scores(arrays, FULL))
        our_ms[FULL].append(spent / count)
        for names in calls - {FULL}:
            our_ms[names].append(timed(lambda names=names: our_scores(arrays, names))[0] / count)
        if tensors is not None:
            our_ms["torch"].append(timed(lambda: our_scores(tensors, FULL))[0] / count)
    their = {name: statistics.median(values) for name, values in their_ms.items()}
    our = {key: statistics.median(values) for key, values in our_ms.items() if values}
    metrics = {
        name: {
            "theirs_ms": their[name],
            "ours_alone_ms": our[needs],
            "ratio": their[name] / our[needs],
            "largest_difference": float(np.abs(ours[name] - arrays[f"their {name}"]).max()),
        }
        for name, needs in NEEDS.items()
    }
    with_scikit = sum(their[name] for name in NEEDS)
    fastest = with_scikit - their["auc"] + min(their["auc"], their["auc by pysaliency"])
    return {
        "metrics": metrics,
        "jitter": tied,
        "auc_by_pysaliency_ms": their["auc by pysaliency"],
        "theirs_ms": with_scikit,
        "theirs_with_the_faster_auc_ms": fastest,
        "ours_ms": our[FULL],
        "ours_torch_ms": our.get("torch"),
        "ratio": with_scikit / our[FULL],
        "ratio_with_the_faster_auc": fastest / our[FULL],
    }


def main(argv: list[str] | None = None) -> dict:
    """Runs the benchmark; returns, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--maps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--torch", action="store_true", help="time torch tensors on the CPU too")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    if args.maps < 2 or args.repeats < 1:
        parser.error("at least 2 maps (shuffled AUC needs another one) and 1 repeat")
    torch = None
    if args.torch:
        import torch

        torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    predicted, density, fixations = strips(args.maps, args.height, args.width, rng)
    shared = {"density": density, "fixations": fixations, "shuffled": other_fixations(fixations)}
    report = {
        "maps": args.maps,
        "size": [args.height, args.width],
        "repeats": args.repeats,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "kinds": {},
    }
    for kind, made in KINDS.items():
        arrays = {"predicted": made(predicted), **shared}
        found = compared(arrays, args.repeats, rng, torch)
        report["kinds"][kind] = found
        print(f"\n{kind}, {args.maps} maps of {args.height} x {args.width}, ms per map")
        print("| metric | theirs | ours alone | ratio | largest difference |")
        print("|---|---|---|---|---|")
        for name, row in found["metrics"].items():
            print(
                f"| {name} | {row['theirs_ms']:.2f} | {row['ours_alone_ms']:.2f} | "
                f"{row['ratio']:.1f} | {row['largest_difference']:.1e} |"
            )
        print(
            f"whole set: theirs {found['theirs_ms']:.1f} (AUC by pysaliency: "
            f"{found['theirs_with_the_faster_auc_ms']:.1f}), ours {found['ours_ms']:.2f}: "
            f"{found['ratio']:.1f} times ({found['ratio_with_the_faster_auc']:.1f} times)"
            + (f"; ours on torch tensors {found['ours_torch_ms']:.2f}" if torch else "")
        )
        if found["jitter"]:
            print("auc_judd: one draw of jitter on their side")
    print("\nauc_borji: one draw of random splits on their side")
    if args.out:
        write_json(args.out, report)
    return report


if __name__ == "__main__":
    main()
