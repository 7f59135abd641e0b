"""Pictures of a data set (paper, Section 3.4 and Fig. 2, 3, 5 and 6) and of its panel of raters."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from lmme3dhf.aspects import Scale
from lmme3dhf.reports.plots.saliency import overlay
from lmme3dhf.reports.plots.style import (
    GREEN,
    MANY,
    VERMILION,
    aspect_colours,
    no_formula,
    picture,
    score_label,
    show_cells,
    show_picture,
)


def mos_distributions(
    path: Path,
    histogram: Sequence[Mapping[str, float]],
    density: Sequence[Mapping[str, float]],
    scale: Scale,
    note: str = "",
) -> None:
    """Histogram of the opinion scores, one panel an aspect, with a density laid over (Fig. 2a).

    Args:
        path: PNG to write.
        histogram: Bins: "low", "high", and videos under each aspect.
        density: Points of the curves: "score", and density per point of the scale under each
            aspect (NaN for none).
        scale: Where the scores live.
        note: See `style.picture`.
    """
    with picture(path, 9, 3.8, note) as figure:
        dimensions = [name for name in histogram[0] if name not in ("low", "high")]
        colours = aspect_colours(dimensions)
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
                color=colours[dimension],
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
            axis.set_title(f"{dimension}, {counts.sum():.0f} videos")
            axis.set_xlabel(score_label(scale))
        axes[0].set_ylabel(f"videos per {width:g} points")


def generator_bars(
    path: Path, rows: Sequence[Mapping[str, Any]], scale: Scale, note: str = ""
) -> None:
    """Mean opinion score of each generator in each aspect, with the interval of the mean (Fig. 2b).

    Args:
        path: PNG to write.
        rows: "generator", and under each aspect "mean", "low" and "high".
        scale: Where the scores live.
        note: See `style.picture`.
    """
    with picture(path, 9, 4, note) as figure:
        axis = figure.subplots()
        place = np.arange(len(rows))
        dimensions = [name for name, found in rows[0].items() if isinstance(found, Mapping)]
        colours = aspect_colours(dimensions)
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
                color=colours[dimension],
                label=dimension,
                error_kw={"linewidth": 1.3, "capsize": 3},
            )
        axis.set_xticks(place, [str(row["generator"]) for row in rows])
        axis.grid(axis="x", visible=False)
        axis.set_xlabel("generator (by number)")
        axis.set_ylabel(f"{score_label(scale)}\nwith its 95 % interval")
        figure.legend(loc="outside upper right", ncols=len(dimensions))


def partition_curves(
    path: Path, eta2: Mapping[str, Sequence[float]], period: int, note: str = ""
) -> None:
    """Variance of the scores that a cut every `period` numbers explains, against the place where
    the cut begins.

    Args:
        path: PNG to write.
        eta2: Dimension -> share of the variance at each offset.
        period: Numbers in a block.
        note: See `style.picture`.
    """
    with picture(path, 9, 3.2, note) as figure:
        axis = figure.subplots()
        colours = aspect_colours(eta2)
        for (aspect, shares), style in zip(eta2.items(), cycle(("-", "--")), strict=False):
            axis.plot(shares, style, color=colours[aspect], label=aspect, linewidth=1.8)
        axis.set_xlabel(f"number at which the first block of {period} begins")
        axis.set_ylabel("explained variance (eta squared)")
        figure.legend(loc="outside upper right", ncols=len(eta2))


def distortion_bars(path: Path, counts: Mapping[str, int], videos: int, note: str = "") -> None:
    """Videos in which each category was named, in the given order from top to bottom (Fig. 3a)."""
    with picture(path, 9, 3.8, note) as figure:
        axis = figure.subplots()
        bars = axis.barh(list(counts), list(counts.values()), color=GREEN)
        axis.bar_label(
            bars, [f"{count} ({count / videos:.1%})" for count in counts.values()], padding=3
        )
        axis.set_xlim(0, 1.2 * max(1, *counts.values()))  # room for the labels
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"videos with the category (of {videos}; a video may have several)")


def category_heat_map(
    path: Path, rows: Mapping[str, tuple[int, Mapping[str, int]]], note: str = ""
) -> None:
    """Videos of each generator with each category: the number in the cell, its share of the
    generator's videos as colour (Fig. 3b).

    Args:
        path: PNG to write.
        rows: Generator -> (its videos, category -> videos with it).
        note: See `style.picture`.
    """
    categories = list(next(iter(rows.values()))[1])
    counts = np.array([[named[category] for category in categories] for _, named in rows.values()])
    shares = counts / np.array([[videos] for videos, _ in rows.values()])
    with picture(path, 9, 1.9 + 0.36 * len(rows), note) as figure:
        axis = figure.subplots()
        highest = max(shares.max(), 0.01)
        shown = show_cells(axis, shares, counts.astype(str).tolist(), highest, size=10)
        axis.set_xticks(
            range(len(categories)),
            ["\n".join(wrap(category, 13)) for category in categories],
            fontsize=8,
        )
        groups = [f"{name} ({videos})" for name, (videos, _) in rows.items()]
        axis.set_yticks(range(len(rows)), groups)
        axis.set_ylabel("generator (its videos)")
        figure.colorbar(shown, ax=axis, label="share of the generator's videos", pad=0.01)


def marked_strips(
    path: Path,
    rows: Sequence[
        tuple[str, str, np.ndarray, Sequence[tuple[float, float]] | None, np.ndarray | None]
    ],
    note: str = "",
) -> None:
    """Strips with the annotators' dots on the left and the map laid over on the right (Fig. 5).

    Args:
        path: PNG to write.
        rows: (caption, line under it, strip HW3 uint8, dots (x, y) in its pixels or None, map HW
            0..1 or None). Without any map there is no right column.
        note: See `style.picture`.
    """
    columns = 1 + any(map_HW is not None for *_, map_HW in rows)
    captions = ["\n".join([row[0], *wrap(row[1], 150 // columns)]) for row in rows]
    width = 11 / columns
    strips = sum(width * row[2].shape[0] / row[2].shape[1] for row in rows)
    lines = sum(caption.count("\n") + 1 for caption in captions)
    with picture(path, 11, strips + 0.18 * lines + 0.14 * len(rows), note) as figure:
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for index, (_, _, strip, points, map_HW) in enumerate(rows):
            right = ("no map", strip)
            if map_HW is not None:
                right = ("saliency map", overlay(strip, map_HW))
            shown = [(captions[index], strip), right]
            for axis, (title, pixels) in zip(axes[index], shown, strict=False):
                show_picture(axis, pixels)
                axis.set_title(title, loc="left")
            if points:
                x, y = zip(*points, strict=True)
                axes[index, 0].scatter(x, y, s=18, color=VERMILION, ec="white")


def marks_scatter(
    path: Path,
    panels: Sequence[tuple[str, Mapping[str, tuple[Sequence[float], Sequence[float], str]]]],
    scales: Mapping[str, Scale],
    note: str = "",
) -> None:
    """Opinion score against what was marked, a column for each measure and a row for each dimension
    (Section 3.4, Fig. 6); the line joins the means of about ten groups of like marks and size.

    Args:
        path: PNG to write.
        panels: (axis label, aspect -> (measure, scores, note in the title)).
        scales: Aspect -> where its scores live.
        note: See `style.picture`.
    """
    dimensions = list(panels[0][1])
    colours = aspect_colours(dimensions)
    with picture(path, 3.2 * len(panels) + 0.6, 3.1 * len(dimensions), note) as figure:
        axes = figure.subplots(
            len(dimensions), len(panels), squeeze=False, sharex="col", sharey="row"
        )
        for column, (label, by_dimension) in enumerate(panels):
            for row, (dimension, (values, scores, said)) in enumerate(by_dimension.items()):
                axis = axes[row, column]
                x, y = np.array(values, dtype=float), np.array(scores, dtype=float)
                axis.scatter(
                    x,
                    y,
                    s=12,
                    alpha=0.45,
                    color=colours[dimension],
                    edgecolors="none",
                    rasterized=len(x) > MANY,
                )
                edges = np.unique(np.quantile(x, np.linspace(0, 1, 11)))
                group = np.searchsorted(edges[1:-1], x, side="right")
                middles = [(x[group == g].mean(), y[group == g].mean()) for g in np.unique(group)]
                axis.plot(*zip(*middles, strict=True), ".-", color="black")
                axis.set_title(said)
                if column == 0:
                    axis.set_ylabel(f"{dimension}\n{score_label(scales[dimension])}")
                if row == len(dimensions) - 1:
                    axis.set_xlabel(label)
                    if (x == np.round(x)).all():  # counts
                        axis.xaxis.get_major_locator().set_params(integer=True)


def split_half_histograms(
    path: Path,
    srcc: Mapping[str, Sequence[float]],
    means: Mapping[str, float],
    note: str = "",
) -> None:
    """SRCC between the scores of two halves of the raters, over many ways to halve them.

    Args:
        path: PNG to write.
        srcc: Dimension -> one value a halving; those that are NaN are not drawn.
        means: Dimension -> the value that a line marks, NaN for none.
        note: See `style.picture`.
    """
    with picture(path, 9, 3.2, note) as figure:
        axes = figure.subplots(1, len(srcc), squeeze=False, sharex=True, sharey=True)[0]
        defined = {d: np.array(values)[~np.isnan(values)] for d, values in srcc.items()}
        edges = np.histogram_bin_edges(np.concatenate(list(defined.values())), bins=20)
        colours = aspect_colours(defined)
        for axis, (dimension, values) in zip(axes, defined.items(), strict=True):
            axis.hist(values, bins=edges, color=colours[dimension], alpha=0.6, edgecolor="white")
            mean = means[dimension]
            axis.axvline(mean, color="black", linestyle="--", linewidth=1.4)
            said = "undefined" if np.isnan(mean) else f"{mean:.3f}"
            axis.set_title(f"{dimension}, mean {said}")
            axis.set_xlabel("SRCC of one half of the raters with the other")
        axes[0].set_ylabel("random halvings")


def subject_bars(
    path: Path, rows: Mapping[str, Sequence[tuple[str, float, bool]]], note: str = ""
) -> None:
    """How well each rater agrees with the mean of the others.

    Args:
        path: PNG to write.
        rows: Dimension -> (rater, Pearson's r, whether the screening rejects the rater); an r that
            is NaN has no bar.
        note: See `style.picture`.
    """
    with picture(path, 9, 2.6 * len(rows) + 0.5, note) as figure:
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        colours = aspect_colours(rows)
        for axis, (dimension, subjects) in zip(axes, rows.items(), strict=True):
            values = np.nan_to_num([r for _, r, _ in subjects])
            names = [no_formula(name) + " *" * rejected for name, _, rejected in subjects]
            bars = axis.bar(names, values, color=colours[dimension])
            for bar, (_, _, rejected) in zip(bars, subjects, strict=True):
                if rejected:
                    bar.set(alpha=0.45, hatch="//")
            axis.axhline(0, color="0.4", linewidth=0.8)
            axis.set_ylim(min(0.0, *values) - 0.02, 1)
            axis.margins(x=0.01)
            axis.grid(axis="x", visible=False)
            axis.tick_params(axis="x", rotation=90, labelsize=8)
            axis.set_title(f"{dimension} (* and hatched: rejected by the screening)")
            axis.set_ylabel("Pearson's r with\nthe mean of the others")
