"""Pictures that compare methods, categories, ablations and folds (paper, Section 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np

from lmme3dhf.reports.plots.style import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    line,
    look,
    no_formula,
    picture,
    show_cells,
)


def recall_bars(
    path: Path, recall: Mapping[str, float], support: Mapping[str, int], note: str = ""
) -> None:
    """Recall of each distortion category, with the number of videos that have it."""
    names = [name for name in recall if support[name]]
    with picture(path, 7, 3.4, note) as figure:
        axis = figure.subplots()
        labels = [f"{name} ({support[name]})" for name in names]
        axis.barh(labels, [recall[name] for name in names], color=GREEN)
        axis.set_xlim(0, 1)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("recall on the test videos (number of videos in brackets)")


def category_scores(
    path: Path,
    scores: Mapping[str, Mapping[str, float]],
    support: Mapping[str, int],
    note: str = "",
) -> None:
    """Precision, recall and F1 of each distortion category, with the number of videos that have it.

    Args:
        path: PNG to write.
        scores: "precision", "recall" and "F1" (any names) -> category -> value in 0..1; NaN has a
            cross in place of a bar.
        support: Category -> videos that have it.
        note: See `style.picture`.
    """
    looks = ((BLUE, ""), (SKY, "///"), (ORANGE, "..."))
    names = list(support)
    place = np.arange(len(names))
    height = 0.8 / len(scores)
    with picture(path, 9, 0.5 * len(names) + 1.1, note) as figure:
        axis = figure.subplots()
        for index, (measure, values) in enumerate(scores.items()):
            where = place + (index - (len(scores) - 1) / 2) * height
            width = np.array([values[name] for name in names])
            colour, hatch = looks[index % len(looks)]
            axis.barh(
                where,
                np.nan_to_num(width),
                height * 0.92,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=measure,
            )
            axis.plot(np.full(np.isnan(width).sum(), 0.01), where[np.isnan(width)], "kx", ms=4)
        axis.set_yticks(place, [f"{name} ({support[name]})" for name in names])
        axis.set_xlim(0, 1)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("on the test videos (number with the category in brackets; x: undefined)")
        figure.legend(loc="outside upper right", ncols=len(scores))


def confusion_matrices(
    path: Path,
    panels: Sequence[tuple[str, Sequence[str], Sequence[str], Sequence[Sequence[float]]]],
    note: str = "",
    size: tuple[float, float] = (5.0, 3.9),
) -> None:
    """Matrices of counts, a row a true word and a column an answer: the share of the row as colour,
    the count in the cell.

    Args:
        path: PNG to write.
        panels: (title, names of the rows, names of the columns, counts, which may be fractions of
            a video); a row without counts stays white.
        note: See `style.picture`.
        size: Of a panel, in inches.
    """
    with picture(path, size[0] * len(panels) + 0.7, size[1], note) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, rows, columns, counts) in zip(axes, panels, strict=True):
            counts_RC = np.array(counts)
            total_R1 = counts_RC.sum(axis=1, keepdims=True)
            shares_RC = np.where(total_R1 > 0, counts_RC / np.maximum(total_R1, 1), np.nan)
            texts = [[_count(count) for count in row] for row in counts_RC.tolist()]
            shown = show_cells(axis, shares_RC, texts, 1.0, size=9)
            axis.set_xticks(
                range(len(columns)), ["\n".join(wrap(name, 12)) for name in columns], fontsize=7.5
            )
            axis.set_yticks(
                range(len(rows)),
                [f"{name} ({total:.0f})" for name, total in zip(rows, total_R1[:, 0], strict=True)],
                fontsize=8,
            )
            axis.set_title(title)
            axis.set_xlabel("answered")
        axes[0].set_ylabel("true (videos)")
        figure.colorbar(shown, ax=list(axes), label="share of the row", pad=0.01)


def _count(count: float) -> str:
    if not count:
        return "·"
    return f"{count:.0f}" if abs(count - round(count)) < 0.05 else f"{count:.1f}"


def radar(
    path: Path,
    axes: Sequence[str],
    methods: Mapping[str, Sequence[float]],
    note: str = "",
) -> None:
    """Several measures of several methods at a glance; every axis goes from 0 in the centre to 1 at
    the rim. A value that is NaN leaves a gap; one below 0 is drawn in the centre.

    Args:
        path: PNG to write.
        axes: Names of the measures, clockwise from the top.
        methods: Method -> its values in this order; the first is filled.
        note: See `style.picture`.
    """
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    with picture(path, 9.4, 6.2, note) as figure:
        # Everything in a place of its own: the layout makes no room for the names around the rim.
        figure.set_layout_engine("none")
        axis = figure.add_axes((0.14, 0.11, 0.5, 0.78), projection="polar")
        axis.set_theta_zero_location("N")
        axis.set_theta_direction(-1)
        for index, (method, values) in enumerate(methods.items()):
            radius = np.clip(np.array(values, dtype=float), 0, None)
            closed = np.append(radius, radius[:1])
            axis.plot(
                np.append(angles, angles[:1]),
                closed,
                **line(index),
                linewidth=1.7,
                markersize=5,
                label="\n".join(wrap(no_formula(method), 26)),
                clip_on=False,
            )
            if index == 0 and not np.isnan(radius).any():
                axis.fill(angles, radius, color=look(index)["color"], alpha=0.07)
        axis.set_xticks(angles, [])
        for angle, name in zip(angles, axes, strict=True):
            x, y = np.sin(angle), np.cos(angle)
            side = "center" if abs(x) < 0.1 else "left" if x > 0 else "right"
            end = "bottom" if y > 0.9 else "top" if y < -0.9 else "center"
            axis.text(angle, 1.05, name, ha=side, va=end, fontsize=9)
        axis.set_ylim(0, 1)
        axis.set_yticks([0.25, 0.5, 0.75, 1], ["0.25", "0.5", "0.75", "1"], color="0.4", size=7.5)
        axis.set_rlabel_position(180 / len(axes))
        axis.spines["polar"].set_color("0.75")
        figure.legend(loc="upper left", bbox_to_anchor=(0.73, 0.99))


def metric_bars(
    path: Path,
    rows: Sequence[tuple[str, bool]],
    panels: Mapping[str, Sequence[float]],
    note: str = "",
) -> None:
    """One panel a metric, one bar a row, with its value at the end.

    Args:
        path: PNG to write.
        rows: (name, whether the bar is hatched).
        panels: Title of a metric -> value of each row; NaN has no bar and the word "undefined".
        note: See `style.picture`.
    """
    names = ["\n".join(wrap(no_formula(name), 34)) for name, _ in rows]
    lines = sum(name.count("\n") + 1 for name in names)
    height = 0.2 * lines + 0.14 * len(rows) + 0.9
    with picture(path, 2.6 + 1.75 * len(panels), height, note) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for index, (axis, (metric, values)) in enumerate(zip(axes, panels.items(), strict=True)):
            lengths = np.nan_to_num(np.array(values, dtype=float))
            bars = axis.barh(range(len(rows)), lengths, 0.7, color=BLUE)
            for bar, (_, hatched) in zip(bars, rows, strict=True):
                if hatched:
                    bar.set(facecolor=ORANGE, hatch="///", edgecolor="white", linewidth=0)
            said = ["undefined" if np.isnan(value) else f"{value:.3f}" for value in values]
            axis.bar_label(bars, said, padding=3, fontsize=8)
            low, high = min(0, *lengths), max(0, *lengths)
            room = 0.42 * max(high - low, 1e-3)
            axis.set_xlim(low - (room if low < 0 else 0), high + room)
            axis.set_title(metric)
            axis.grid(axis="y", visible=False)
            axis.locator_params(axis="x", nbins=3)
            axis.axvline(0, color="0.45", linewidth=0.8)
            if index == 0:
                axis.set_yticks(range(len(rows)), names)
                axis.invert_yaxis()


def fold_dots(
    path: Path,
    folds: Sequence[str],
    panels: Mapping[str, Sequence[float]],
    note: str = "",
) -> None:
    """One panel a metric, one dot a fold, with the mean and one deviation (ddof 1) on both sides.

    Args:
        path: PNG to write.
        folds: Names of the folds.
        panels: Title of a metric -> value of each fold; NaN has no dot.
        note: See `style.picture`.
    """
    place = np.arange(len(folds))
    with picture(path, 0.8 + 2.1 * len(panels), 3.3, note) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (metric, values) in zip(axes, panels.items(), strict=True):
            dots = np.array(values, dtype=float)
            known = dots[~np.isnan(dots)]
            axis.plot(place, dots, "o", color=BLUE, markersize=6)
            title = metric
            if len(known):
                mean, spread = known.mean(), known.std(ddof=1) if len(known) > 1 else 0.0
                axis.axhline(mean, color="black", linewidth=1.2)
                axis.axhspan(mean - spread, mean + spread, color="0.5", alpha=0.2, linewidth=0)
                title += f"\n{mean:.3f}" + (f" ± {spread:.3f}" if len(known) > 1 else "")
            axis.set_title(title)
            axis.set_xticks(place, folds, rotation=90, fontsize=8)
            axis.set_xlim(-0.6, len(folds) - 0.4)
