"""Pictures of the reports; the only module that draws."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lmme3dhf.vocabulary import DIMENSIONS

# Distinguishable by colour-blind readers (Okabe and Ito).
_COLOURS = {"quality": "#0072B2", "authenticity": "#D55E00"}


def score_scatter(
    path: Path,
    predicted: dict[str, list[float]],
    mos: dict[str, list[float]],
    notes: dict[str, str],
) -> None:
    """Predicted score against MOS, one panel a dimension.

    Args:
        path: PNG to write.
        predicted: Dimension -> scores.
        mos: Dimension -> MOS, in the same order.
        notes: Dimension -> line under the title.
    """
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots(1, len(DIMENSIONS))
    for axis, dimension in zip(axes, DIMENSIONS, strict=True):
        x, y = predicted[dimension], mos[dimension]
        low, high = min(*x, *y) - 2, max(*x, *y) + 2
        axis.plot([low, high], [low, high], color="0.7", linewidth=1, zorder=0)
        axis.scatter(x, y, s=14, alpha=0.7, color=_COLOURS[dimension], edgecolors="none")
        axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axis.set_xlabel("predicted score (0-100)")
        axis.set_ylabel("mean opinion score (0-100)")
        axis.set_title(f"{dimension}\n{notes[dimension]}", fontsize=10)
    _save(figure, path)


def loss_curves(path: Path, curves: dict[str, list[tuple[int, float]]]) -> None:
    """Training loss of each stage, with its running mean over a twentieth of the steps.

    Args:
        path: PNG to write.
        curves: Stage -> (step, loss).
    """
    figure = Figure(figsize=(3.6 * len(curves), 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (stage, curve) in zip(axes, curves.items(), strict=True):
        steps, losses = np.array(curve).T
        width = max(1, len(losses) // 20)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axis.plot(steps, losses, color="0.8", linewidth=0.8)
        middle = (width - 1) // 2
        axis.plot(steps[middle : middle + len(smooth)], smooth, color="#0072B2")
        # The first steps are far above the rest.
        axis.set_yscale("log")
        axis.set_title(stage, fontsize=10)
        axis.set_xlabel("step")
    axes[0].set_ylabel("loss")
    _save(figure, path)


def recall_bars(path: Path, recall: dict[str, float], support: dict[str, int]) -> None:
    """Recall of each distortion category, with the number of videos that have it."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    names = [name for name in recall if support[name]]
    axis.barh(
        [f"{name} ({support[name]})" for name in names], [recall[n] for n in names], color="#009E73"
    )
    axis.set_xlim(0, 1)
    axis.invert_yaxis()
    axis.set_xlabel("recall on the test videos (number of videos in brackets)")
    _save(figure, path)


def saliency_overlays(
    path: Path, rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    """Strips with the marked and the predicted map laid over.

    Args:
        path: PNG to write.
        rows: (caption, strip HW3 uint8, true map HW 0..1, predicted map HW 0..1).
    """
    figure = Figure(figsize=(12, 1.3 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    titles = (
        "views at -45, 0, +45 degrees",
        "marked by annotators",
        "predicted (as it is, not stretched)",
    )
    for index, (caption, strip, truth, predicted) in enumerate(rows):
        shown = (strip, overlay(strip, truth), overlay(strip, predicted))
        for axis, picture, title in zip(axes[index], shown, titles, strict=True):
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
            if index == 0:
                axis.set_title(title, fontsize=9)
        axes[index, 0].set_ylabel(caption, fontsize=6.5, rotation=0, ha="right", va="center")
    _save(figure, path)


def mos_distributions(
    path: Path, histogram: Sequence[Mapping[str, float]], density: Sequence[Mapping[str, float]]
) -> None:
    """Histogram of the opinion scores, one panel a dimension, with a density laid over (Fig. 2a).

    Args:
        path: PNG to write.
        histogram: Bins: "low", "high", and videos under each dimension.
        density: Points of the curves: "score", and density per point of the scale under each
            dimension (NaN for none).
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    dimensions = [dimension for dimension in DIMENSIONS if dimension in histogram[0]]
    axes = figure.subplots(1, len(dimensions), squeeze=False, sharey=True)[0]
    low = np.array([bin["low"] for bin in histogram])
    width = histogram[0]["high"] - histogram[0]["low"]
    for axis, dimension in zip(axes, dimensions, strict=True):
        counts = np.array([bin[dimension] for bin in histogram])
        axis.bar(
            low,
            counts,
            width,
            align="edge",
            color=_COLOURS[dimension],
            alpha=0.55,
            edgecolor="white",
            linewidth=0.4,
        )
        axis.plot(
            [point["score"] for point in density],
            [point[dimension] * counts.sum() * width for point in density],
            color="black",
            linewidth=1.4,
        )
        axis.set_title(f"{dimension}, {counts.sum():.0f} videos", fontsize=11)
        axis.set_xlabel("mean opinion score (0-100)")
    axes[0].set_ylabel(f"videos per {width:g} points")
    _save(figure, path)


def generator_bars(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Mean opinion score of each generator in both dimensions, with the interval of the mean (Fig.
    2b).

    Args:
        path: PNG to write.
        rows: "generator", and under each dimension "mean", "low" and "high".
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(rows))
    dimensions = [dimension for dimension in DIMENSIONS if dimension in rows[0]]
    width = 0.8 / len(dimensions)
    for index, dimension in enumerate(dimensions):
        mean, low, high = (
            np.array([row[dimension][name] for row in rows]) for name in ("mean", "low", "high")
        )
        axis.bar(
            place + (index - (len(dimensions) - 1) / 2) * width,
            mean,
            width * 0.94,
            yerr=np.nan_to_num(np.array([mean - low, high - mean])),
            color=_COLOURS[dimension],
            label=dimension,
            error_kw={"linewidth": 1.3, "capsize": 3},
        )
    axis.set_xticks(place, [str(row["generator"]) for row in rows])
    axis.set_xlabel("generator (by number)")
    axis.set_ylabel("mean opinion score (0-100)\nwith its 95 % interval")
    figure.legend(loc="outside upper right", ncols=len(dimensions), frameon=False)
    _save(figure, path)


def partition_curves(path: Path, eta2: Mapping[str, Sequence[float]], period: int) -> None:
    """Variance of the scores that a cut every `period` numbers explains, against the place where
    the cut begins.

    Args:
        path: PNG to write.
        eta2: Dimension -> share of the variance at each offset.
        period: Numbers in a block.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    for (dimension, shares), style in zip(eta2.items(), ("-", "--"), strict=False):
        axis.plot(shares, style, color=_COLOURS[dimension], label=dimension, linewidth=1.8)
    axis.set_xlabel(f"number at which the first block of {period} begins")
    axis.set_ylabel("explained variance (eta squared)")
    figure.legend(loc="outside upper right", ncols=len(eta2), frameon=False)
    _save(figure, path)


def distortion_bars(path: Path, counts: Mapping[str, int], videos: int) -> None:
    """Videos in which each category was named, in the given order from top to bottom (Fig. 3a)."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(list(counts), list(counts.values()), color="#009E73")
    axis.bar_label(
        bars, [f"{count} ({count / videos:.1%})" for count in counts.values()], padding=3
    )
    axis.set_xlim(0, 1.2 * max(1, *counts.values()))  # room for the labels
    axis.invert_yaxis()
    axis.set_xlabel(f"videos with the category (of {videos}; a video may have several)")
    _save(figure, path)


def category_heat_map(path: Path, rows: Mapping[str, tuple[int, Mapping[str, int]]]) -> None:
    """Videos of each generator with each category: the number in the cell, its share of the
    generator's videos as colour (Fig. 3b).

    Args:
        path: PNG to write.
        rows: Generator -> (its videos, category -> videos with it).
    """
    categories = list(next(iter(rows.values()))[1])
    counts = np.array([[named[category] for category in categories] for _, named in rows.values()])
    shares = counts / np.array([[videos] for videos, _ in rows.values()])
    figure = Figure(figsize=(9, 1.9 + 0.36 * len(rows)), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="cividis", vmin=0, vmax=max(shares.max(), 0.01))
    axis.set_aspect("auto")
    for (row, column), count in np.ndenumerate(counts):
        bright = shares[row, column] > 0.55 * picture.norm.vmax
        axis.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            color="black" if bright else "white",
            fontsize=10,
        )
    axis.set_xticks(
        range(len(categories)),
        ["\n".join(wrap(category, 13)) for category in categories],
        fontsize=8,
    )
    axis.set_yticks(range(len(rows)), [f"{name} ({videos})" for name, (videos, _) in rows.items()])
    axis.set_ylabel("generator (its videos)")
    figure.colorbar(picture, ax=axis, label="share of the generator's videos", pad=0.01)
    _save(figure, path)


def marked_strips(
    path: Path,
    rows: Sequence[
        tuple[str, str, np.ndarray, Sequence[tuple[float, float]] | None, np.ndarray | None]
    ],
) -> None:
    """Strips with the annotators' dots on the left and the map laid over on the right (Fig. 5).

    Args:
        path: PNG to write.
        rows: (caption, line under it, strip HW3 uint8, dots (x, y) in its pixels or None, map HW
            0..1 or None). Without any map there is no right column.
    """
    columns = 1 + any(map_HW is not None for *_, map_HW in rows)
    captions = ["\n".join([row[0], *wrap(row[1], 150 // columns)]) for row in rows]
    width = 11 / columns
    strips = sum(width * row[2].shape[0] / row[2].shape[1] for row in rows)
    lines = sum(caption.count("\n") + 1 for caption in captions)
    figure = Figure(figsize=(11, strips + 0.18 * lines + 0.14 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for index, (_, _, strip, points, map_HW) in enumerate(rows):
        right = ("no map", strip) if map_HW is None else ("saliency map", overlay(strip, map_HW))
        shown = [(captions[index], strip), right]
        for axis, (title, picture) in zip(axes[index], shown, strict=False):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=10, loc="left")
        if points:
            axes[index, 0].scatter(*zip(*points, strict=True), s=18, color="#D55E00", ec="white")
    _save(figure, path)


def marks_scatter(
    path: Path,
    panels: Sequence[tuple[str, Mapping[str, tuple[Sequence[float], Sequence[float], str]]]],
) -> None:
    """Opinion score against what was marked, a column for each measure and a row for each dimension
    (Section 3.4, Fig. 6); the line joins the means of about ten groups of like marks and size.

    Args:
        path: PNG to write.
        panels: (axis label, dimension -> (measure, scores, note in the title)).
    """
    dimensions = list(panels[0][1])
    figure = Figure(figsize=(3.2 * len(panels) + 0.6, 3.1 * len(dimensions)), layout="constrained")
    axes = figure.subplots(len(dimensions), len(panels), squeeze=False, sharex="col", sharey="row")
    for column, (label, by_dimension) in enumerate(panels):
        for row, (dimension, (values, scores, note)) in enumerate(by_dimension.items()):
            axis = axes[row, column]
            x, y = np.array(values, dtype=float), np.array(scores, dtype=float)
            axis.scatter(x, y, s=12, alpha=0.45, color=_COLOURS[dimension], edgecolors="none")
            edges = np.unique(np.quantile(x, np.linspace(0, 1, 11)))
            group = np.searchsorted(edges[1:-1], x, side="right")
            middles = [(x[group == g].mean(), y[group == g].mean()) for g in np.unique(group)]
            axis.plot(*zip(*middles, strict=True), ".-", color="black")
            axis.set_title(note, fontsize=10)
            if column == 0:
                axis.set_ylabel(f"{dimension}\nmean opinion score (0-100)")
            if row == len(dimensions) - 1:
                axis.set_xlabel(label)
    _save(figure, path)


def split_half_histograms(
    path: Path, srcc: Mapping[str, Sequence[float]], means: Mapping[str, float]
) -> None:
    """SRCC between the scores of two halves of the raters, over many ways to halve them.

    Args:
        path: PNG to write.
        srcc: Dimension -> one value a halving; those that are NaN are not drawn.
        means: Dimension -> the value that a line marks, NaN for none.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(srcc), squeeze=False, sharex=True, sharey=True)[0]
    defined = {d: np.array(values)[~np.isnan(values)] for d, values in srcc.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(defined.values())), bins=20)
    for axis, (dimension, values) in zip(axes, defined.items(), strict=True):
        axis.hist(values, bins=edges, color=_COLOURS[dimension], alpha=0.6, edgecolor="white")
        mean = means[dimension]
        axis.axvline(mean, color="black", linestyle="--", linewidth=1.4)
        said = "undefined" if np.isnan(mean) else f"{mean:.3f}"
        axis.set_title(f"{dimension}, mean {said}", fontsize=11)
        axis.set_xlabel("SRCC of one half of the raters with the other")
    axes[0].set_ylabel("random halvings")
    _save(figure, path)


def subject_bars(path: Path, rows: Mapping[str, Sequence[tuple[str, float, bool]]]) -> None:
    """How well each rater agrees with the mean of the others.

    Args:
        path: PNG to write.
        rows: Dimension -> (rater, Pearson's r, whether the screening rejects the rater); an r that
            is NaN has no bar.
    """
    figure = Figure(figsize=(9, 2.6 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, (dimension, subjects) in zip(axes, rows.items(), strict=True):
        values = np.nan_to_num([r for _, r, _ in subjects])
        names = [f"{name} *" if rejected else name for name, _, rejected in subjects]
        bars = axis.bar(names, values, color=_COLOURS[dimension])
        for bar, (_, _, rejected) in zip(bars, subjects, strict=True):
            if rejected:
                bar.set(alpha=0.45, hatch="//")
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_ylim(min(0.0, *values) - 0.02, 1)
        axis.margins(x=0.01)
        axis.tick_params(axis="x", rotation=90, labelsize=8)
        axis.set_title(f"{dimension} (* and hatched: rejected by the screening)", fontsize=11)
        axis.set_ylabel("Pearson's r with\nthe mean of the others")
    _save(figure, path)


def overlay(picture_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:
    """A map over a picture: grey where it is 0, from yellow to red where it is high; uint8."""
    grey = np.repeat(picture_HW3.mean(-1, keepdims=True), 3, -1) * 0.75
    heat = matplotlib.colormaps["YlOrRd"](map_HW)[..., :3] * 255
    alpha = np.clip(map_HW * 1.6, 0, 0.85)[..., None]
    return (grey * (1 - alpha) + heat * alpha).astype(np.uint8)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
