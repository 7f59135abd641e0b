"""Pictures that compare generators by the scores of their videos.

All are narrow enough for a phone, and stand side by side on wider screens. Generators come in the
order in which they are given, under the names of `drawn_names`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.projections.polar import PolarAxes

from lmme3dhf.aspects import Scale
from lmme3dhf.assessment import GEN3DHF_SCALE
from lmme3dhf.reports.plots.style import DIMENSION_COLOURS, GREEN, line, no_formula, picture

WIDTH = 5.2  # inches
MOST_POINTS = 150  # of a generator that are drawn
MOST_IN_ONE = 5  # generators in one radar; more hide each other
_LONGEST = 22  # characters of a name
_FEWEST_FOR_SHAPE = 10  # videos, below which a violin would show more than is known


def drawn_names(names: Sequence[str]) -> list[str]:
    """What the generators are called in pictures: their names, shortened in the middle; "generator
    3" where the pictures' font has not all letters of the third's, or another's looks the same.
    """
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    half = _LONGEST // 2
    short = [
        name if len(name) <= _LONGEST else f"{name[:half]}…{name[1 - half :]}" for name in names
    ]
    return [
        name
        if short.count(name) == 1 and all(font.get_char_index(ord(letter)) for letter in name)
        else f"generator {number}"
        for number, name in enumerate(short, 1)
    ]


def generator_intervals(
    path: Path,
    aspect: str,
    rows: Sequence[tuple[str, float, float, float]],
    note: str = "",
    *,
    scale: Scale = GEN3DHF_SCALE,
) -> None:
    """Mean score of each generator with its interval.

    Args:
        path: PNG to write.
        aspect: Its name, which gives the colour.
        rows: (generator, mean, low end, high end); without an interval (NaN) the dot alone, without
            a mean nothing.
        note: See `style.picture`.
        scale: Where the scores live.
    """
    place = np.arange(len(rows))
    mean_G, low_G, high_G = (np.array([row[at] for row in rows]) for at in (1, 2, 3))
    with picture(path, WIDTH, _height(len(rows)), note) as figure:
        axis = figure.subplots()
        axis.hlines(place, low_G, high_G, color="0.2", linewidth=1.6)
        colour = DIMENSION_COLOURS.get(aspect, GREEN)
        axis.plot(mean_G, place, "o", color=colour, markersize=7, zorder=3)
        _name_rows(axis, [name for name, *_ in rows])
        axis.set_xlabel(f"mean {aspect} ({_ends(scale)})")


def score_distributions(
    path: Path,
    aspect: str,
    score_of: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    note: str = "",
    *,
    scale: Scale = GEN3DHF_SCALE,
) -> None:
    """Scores of each generator's videos: a point a video (of more than 150 as many, drawn at
    random), the quartiles and the median as a box, and from ten videos on the shape of the
    distribution.

    Args:
        path: PNG to write.
        aspect: Its name, which gives the colour.
        score_of: Generator -> scores.
        rng: Draws the points, and how far they lie from their line.
        note: See `style.picture`.
        scale: Where the scores live.
    """
    colour = DIMENSION_COLOURS.get(aspect, GREEN)
    with picture(path, WIDTH, _height(len(score_of), 0.5), note) as figure:
        axis = figure.subplots()
        for place, score_N in enumerate(score_of.values()):
            if len(score_N) >= _FEWEST_FOR_SHAPE and np.ptp(score_N) > 0:
                x, density = _shape(score_N)
                axis.fill_between(
                    x, place - 0.42 * density, place + 0.42 * density, color=colour, alpha=0.2, lw=0
                )
            if len(score_N) > 1:
                low, middle, high = np.quantile(score_N, (0.25, 0.5, 0.75))
                axis.barh(
                    place,
                    high - low,
                    0.3,
                    low,
                    facecolor="none",
                    edgecolor="0.15",
                    linewidth=1.1,
                    zorder=4,
                )
                axis.vlines(middle, place - 0.15, place + 0.15, color="0.15", lw=2, zorder=4)
            shown_N = score_N
            if len(score_N) > MOST_POINTS:
                shown_N = rng.choice(score_N, MOST_POINTS, replace=False)
            spread_N = rng.uniform(-0.12, 0.12, len(shown_N)) if len(shown_N) > 1 else 0
            axis.plot(
                shown_N,
                place + spread_N + np.zeros(len(shown_N)),
                "o",
                color=colour,
                markersize=3.4,
                markeredgewidth=0,
                alpha=0.7,
                zorder=3,
                rasterized=len(score_of) * MOST_POINTS > 1500,
            )
        _name_rows(axis, list(score_of))
        axis.set_xlabel(f"{aspect} of a video ({_ends(scale)})")


def level_bars(
    path: Path,
    aspect: str,
    levels: Sequence[str],
    shares: Mapping[str, Sequence[float]],
    note: str = "",
) -> None:
    """Share of each generator's videos at each level word, from dark for the worst to bright for
    the best, which a print in grey keeps.

    Args:
        path: PNG to write.
        aspect: Its name.
        levels: From the first to the last that is drawn, worst to best.
        shares: Generator -> share of each level, 0..1; all NaN has no bar.
        note: See `style.picture`.
    """
    colours = matplotlib.colormaps["cividis"](np.linspace(0.05, 1, len(levels)))
    with picture(path, WIDTH, _height(len(shares)) + 0.35, note) as figure:
        axis = figure.subplots()
        share_GL = np.nan_to_num(np.array(list(shares.values()), dtype=float))
        start_GL = np.cumsum(share_GL, axis=1) - share_GL
        for at, level in enumerate(levels):
            axis.barh(
                range(len(shares)),
                100 * share_GL[:, at],
                0.72,
                100 * start_GL[:, at],
                color=colours[at],
                edgecolor="white",
                linewidth=0.6,
                label=level,
            )
            for place, (share, start) in enumerate(
                zip(share_GL[:, at], start_GL[:, at], strict=True)
            ):
                if share >= 0.08:
                    axis.text(
                        100 * (start + share / 2),
                        place,
                        f"{100 * share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if at < len(levels) / 2 else "black",
                    )
        _name_rows(axis, list(shares))
        axis.set_xlim(0, 100)
        axis.grid(visible=False)
        axis.set_xlabel(f"% of the videos at each level of {aspect}")
        figure.legend(loc="outside upper center", ncols=len(levels), handlelength=1.1)


def generator_radar(
    path: Path, axes: Sequence[str], values: Mapping[str, Sequence[float]], note: str = ""
) -> None:
    """Several measures of each generator, all 0..100 and higher for better: up to five generators
    in one radar, more in one each over the grey mean of all.

    Args:
        path: PNG to write.
        axes: Names of the measures, clockwise from the top.
        values: Generator -> its values in this order; NaN leaves a gap.
        note: See `style.picture`.
    """
    if len(values) <= MOST_IN_ONE:
        with picture(path, WIDTH, 5.0 + 0.1 * len(values), note) as figure:
            axis = figure.subplots(subplot_kw={"projection": "polar"})
            _radar_axes(axis, axes, 8)
            for index, (name, value_A) in enumerate(values.items()):
                _around(axis, value_A, **line(index), lw=1.6, markersize=5, label=no_formula(name))
            figure.legend(loc="outside lower center", ncols=2, handlelength=3)
        return
    value_GA = np.array(list(values.values()), dtype=float)
    known_GA = ~np.isnan(value_GA)
    mean_A = np.where(known_GA, value_GA, 0).sum(0) / np.maximum(known_GA.sum(0), 1)
    columns = 3
    rows = -(-len(values) // columns)
    with picture(path, 2.9 * columns, 2.75 * rows, note) as figure:
        panels = figure.subplots(
            rows, columns, squeeze=False, subplot_kw={"projection": "polar"}
        ).ravel()
        for panel in panels[len(values) :]:
            panel.set_visible(False)
        for panel, name, value_A in zip(panels, values, value_GA, strict=False):
            _radar_axes(panel, axes, 6.5)
            _around(panel, mean_A, color="0.45", lw=1.1, ls="--")
            colour = DIMENSION_COLOURS["quality"]
            _around(panel, value_A, color=colour, lw=1.5, marker="o", markersize=3)
            panel.set_title(no_formula(name), fontsize=9.5, pad=20)


def _ends(scale: Scale) -> str:
    return f"{scale.minimum:g}-{scale.maximum:g}, {scale.direction}"


def _radar_axes(axis: PolarAxes, names: Sequence[str], size: float) -> None:
    """Axes of 0..100, the first at the top and the others clockwise."""
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    axis.set_theta_zero_location("N")
    axis.set_theta_direction(-1)
    axis.set_xticks(angles, [""] * len(names))
    for angle, name in zip(angles, names, strict=True):
        x, y = np.sin(angle), np.cos(angle)
        axis.text(
            angle,
            108,
            "\n".join(wrap(name, 14, break_long_words=False)),
            ha="center" if abs(x) < 0.1 else "left" if x > 0 else "right",
            va="bottom" if y > 0.9 else "top" if y < -0.9 else "center",
            fontsize=size,
        )
    axis.set_ylim(0, 100)
    axis.set_yticks([25, 50, 75, 100], ["", "50", "", "100"], color="0.4", size=size - 1)
    axis.set_rlabel_position(180 / len(names))
    axis.spines["polar"].set_color("0.75")


def _around(axis: PolarAxes, value_A: Sequence[float], **how: Any) -> None:
    """A closed line; a value outside 0..100 is drawn at the centre or the rim."""
    angles = np.linspace(0, 2 * np.pi, len(value_A) + 1)
    closed = np.clip(np.append(value_A, value_A[:1]), 0, 100)
    axis.plot(angles, closed, clip_on=False, **how)


def _height(rows: int, each: float = 0.3) -> float:
    return 0.85 + each * max(rows, 2)


def _name_rows(axis: matplotlib.axes.Axes, names: Sequence[str]) -> None:
    """The first on top."""
    axis.set_yticks(range(len(names)), [no_formula(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def _shape(score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places from the lowest to the highest score, and the density there over its maximum: Gaussian
    kernels with Scott's width.
    """
    width = score_N.std(ddof=1) * len(score_N) ** -0.2
    x = np.linspace(score_N.min(), score_N.max(), 100)
    density = np.array([np.exp(-(((at - score_N) / width) ** 2) / 2).sum() for at in x])
    return x, density / density.max()
