"""Pictures of training and of predicted scores against opinion scores (paper, Section 5.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from lmme3dhf.aspects import GEN3DHF, Scale
from lmme3dhf.reports.plots.style import BLUE, DIMENSION_COLOURS, GREEN, ORANGE, look, picture


def score_scatter(
    path: Path,
    predicted: Mapping[str, Sequence[float]],
    mos: Mapping[str, Sequence[float]],
    notes: Mapping[str, str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    group_name: str = "",
    curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    same_scale: bool = True,
    note: str = "",
    scales: Mapping[str, Scale] | None = None,
) -> None:
    """Predicted score against MOS, one panel a dimension that has any.

    Args:
        path: PNG to write.
        predicted: Dimension -> scores.
        mos: Dimension -> MOS, in the same order.
        notes: Dimension -> lines under the title.
        groups: Dimension -> the group of each score; each group gets a colour and a marker.
        group_name: Above the groups in the legend.
        curves: Dimension -> points of a fitted curve: "predicted", "fitted", and "low" and "high"
            of its band (NaN where there is none).
        same_scale: Whether predictions are on the scale of the MOS: equal axes and the diagonal.
        note: See `style.picture`.
        scales: Aspect -> where its opinion scores live; None for Gen3DHF's.
    """
    dimensions = list(predicted)
    scales = scales or {name: aspect.scale for name, aspect in GEN3DHF.items()}
    kinds = sorted({name for names in (groups or {}).values() for name in names}, key=_numbers_last)
    width = 4.0 * len(dimensions) + (1.1 if kinds or curves else 0.5)
    with picture(path, width, 4.6, note) as figure:
        axes = figure.subplots(1, len(dimensions), squeeze=False)[0]
        for axis, dimension in zip(axes, dimensions, strict=True):
            x, y = np.array(predicted[dimension]), np.array(mos[dimension])
            if same_scale:
                margin = 0.02 * (scales[dimension].maximum - scales[dimension].minimum)
                low, high = min(*x, *y) - margin, max(*x, *y) + margin
                axis.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
                axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            if groups is None:
                colour = DIMENSION_COLOURS.get(dimension, GREEN)
                axis.scatter(x, y, s=14, alpha=0.7, color=colour, edgecolors="none")
            for index, kind in enumerate(kinds):
                own = np.array([name == kind for name in groups[dimension]])
                axis.scatter(
                    x[own],
                    y[own],
                    s=17,
                    alpha=0.75,
                    linewidth=0,
                    **look(index),
                    label=kind if dimension == dimensions[0] else None,
                )
            if curves:
                _draw_curve(axis, curves[dimension], dimension == dimensions[0])
            ends = _ends(scales[dimension])
            scale = ends if same_scale else "the method's own scale"
            axis.set_xlabel(f"predicted score ({scale})")
            axis.set_ylabel(f"mean opinion score ({ends})")
            axis.set_title(f"{dimension}\n{notes[dimension]}")
        if kinds or curves:
            figure.legend(loc="outside right upper", title=group_name if kinds else None)


def _ends(scale: Scale) -> str:
    return f"{scale.minimum:g}-{scale.maximum:g}" + (
        "" if scale.higher_is_better else ", lower is better"
    )


def _numbers_last(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (-1, name)


def _draw_curve(axis: Axes, points: Sequence[Mapping[str, float]], named: bool) -> None:
    x, fitted, low, high = (
        np.array([point[name] for point in points])
        for name in ("predicted", "fitted", "low", "high")
    )
    band = "95 % band" if named and not np.isnan(low).all() else None
    axis.fill_between(x, low, high, color="0.3", alpha=0.3, linewidth=0, label=band, zorder=3)
    axis.plot(x, fitted, color="black", linewidth=1.6, label="fit" if named else None, zorder=4)


def generator_means(
    path: Path,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    notes: Mapping[str, str],
    note: str = "",
    scales: Mapping[str, Scale] | None = None,
) -> None:
    """Mean predicted score of each generator against its mean MOS, with the intervals of both.

    Args:
        path: PNG to write.
        rows: Dimension -> generators: "generator", and under "mos" and "predicted" "mean", "low"
            and "high" (NaN where a generator has one video).
        notes: Dimension -> lines under the title.
        note: See `style.picture`.
        scales: As in `score_scatter`.
    """
    scales = scales or {name: aspect.scale for name, aspect in GEN3DHF.items()}
    with picture(path, 4.0 * len(rows) + 1.1, 4.6, note) as figure:
        axes = figure.subplots(1, len(rows), squeeze=False)[0]
        for axis, (dimension, generators) in zip(axes, rows.items(), strict=True):
            ends = []
            for index, row in enumerate(generators):
                (x, x_error), (y, y_error) = (_with_error(row[s]) for s in ("mos", "predicted"))
                axis.errorbar(
                    x,
                    y,
                    xerr=x_error,
                    yerr=y_error,
                    **look(index),
                    markersize=6,
                    linewidth=0,
                    elinewidth=1,
                    label=str(row["generator"]) if axis is axes[0] else None,
                )
                for centre, error in ((x, x_error), (y, y_error)):
                    ends += [centre - error[0, 0], centre + error[1, 0]]
            margin = 0.015 * (scales[dimension].maximum - scales[dimension].minimum)
            low, high = min(ends) - margin, max(ends) + margin
            axis.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
            axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            axis.set_xlabel(f"mean of the opinion scores ({_ends(scales[dimension])})")
            axis.set_ylabel(f"mean of the predicted scores ({_ends(scales[dimension])})")
            axis.set_title(f"{dimension}\n{notes[dimension]}")
        figure.legend(loc="outside right upper", title="generator")


def _with_error(mean: Mapping[str, float]) -> tuple[float, np.ndarray]:
    ends = np.array([[mean["mean"] - mean["low"]], [mean["high"] - mean["mean"]]])
    return mean["mean"], np.nan_to_num(ends)


def loss_curves(
    path: Path,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    rates: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    note: str = "",
    validation: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    srcc: Mapping[str, Sequence[tuple[int, float]]] | None = None,
) -> None:
    """Training loss of each stage, with its running mean over a twentieth of the steps, and the
    loss on validation data.

    Args:
        path: PNG to write.
        curves: Stage -> (step, loss).
        rates: Stage -> (step, learning rate), drawn on an axis of its own; a stage may have none.
        note: See `style.picture`.
        validation: Stage -> (step, validation loss); a stage may have none.
        srcc: Dimension -> (step, SRCC on validation data), in a panel of its own where there are
            any.
    """
    panels = len(curves) + bool(srcc)
    with picture(path, 3.6 * panels, 3.2, note) as figure:
        *axes, last = figure.subplots(1, panels, squeeze=False)[0]
        if srcc:
            _draw_srcc(last, srcc)
        else:
            axes.append(last)
        for axis, (stage, curve) in zip(axes, curves.items(), strict=True):
            steps, losses = np.array(curve).T
            width = max(1, len(losses) // 20)
            smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
            axis.plot(steps, losses, color="0.75", linewidth=0.8)
            middle = (width - 1) // 2
            axis.plot(steps[middle : middle + len(smooth)], smooth, color=BLUE, linewidth=1.7)
            if validation and validation.get(stage):
                axis.plot(*np.array(validation[stage]).T, "o-", color=GREEN, markersize=4)
            # The first steps are far above the rest.
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(stage)
            axis.set_xlabel("step")
            if rates and rates.get(stage):
                _draw_rate(axis, rates[stage], axis is axes[-1])
        shown = ",\ngreen: validation" if validation and any(validation.values()) else ""
        axes[0].set_ylabel(f"loss (grey: each step,\nblue: running mean{shown})")


def _draw_srcc(axis: Axes, srcc: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    for dimension, points in srcc.items():
        colour = DIMENSION_COLOURS.get(dimension, GREEN)
        axis.plot(*np.array(points).T, "o-", color=colour, markersize=4, label=dimension)
    axis.set_title("scores, validation")
    axis.set_xlabel("step")
    axis.set_ylabel("SRCC")
    axis.legend()


def _draw_rate(axis: Axes, rate: Sequence[tuple[int, float]], last: bool) -> None:
    other = axis.twinx()
    steps, values = np.array(rate).T
    other.plot(steps, 1000 * values, color=ORANGE, linestyle="--", linewidth=1.2)
    other.grid(False)
    other.spines["right"].set_visible(True)
    other.set_ylim(0)
    if last:
        other.set_ylabel("1000 x learning rate (dashed)")
