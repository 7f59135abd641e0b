"""Saliency maps over their strips (paper, Fig. 8 and 9). Array legend: H height, W width."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lmme3dhf.reports.plots.style import no_formula, picture, show_picture

_DIMMED = 0.5  # of a face below the heat, so that higher values are brighter, in a grey print too
_GREY = 128  # below the heat of the colour bar


def overlay(picture_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:
    """A map over a picture: a dim grey picture where the map is 0, from violet over orange to light
    yellow where it is high, brighter for higher values; uint8. The map is not stretched.

    Args:
        picture_HW3: RGB in 0..255.
        map_HW: Of the picture's size, 0..1.
    """
    grey = np.repeat(picture_HW3.mean(-1, keepdims=True), 3, -1) * _DIMMED
    # Without its darkest third, which would darken the face.
    heat = matplotlib.colormaps["inferno"](0.35 + 0.65 * map_HW)[..., :3] * 255
    alpha = np.clip(map_HW * 2.5, 0, 0.9)[..., None]
    return (grey * (1 - alpha) + heat * alpha).astype(np.uint8)


def saliency_overlays(
    path: Path, rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], note: str = ""
) -> None:
    """Strips with the marked and the predicted map laid over (Fig. 9).

    Args:
        path: PNG to write.
        rows: (caption, strip HW3 uint8, true map HW 0..1, predicted map HW 0..1).
        note: See `style.picture`.
    """
    titles = ["marked by annotators", "predicted (as it is, not stretched)"]
    maps = [(caption, strip, [truth, predicted]) for caption, strip, truth, predicted in rows]
    method_maps(path, titles, maps, note, width=12)


def method_maps(
    path: Path,
    titles: Sequence[str],
    rows: Sequence[tuple[str, np.ndarray, Sequence[np.ndarray | None]]],
    note: str = "",
    width: float = 13,
) -> None:
    """Strips with the maps of several methods laid over, side by side (Fig. 8): one colour map on
    one scale, 0..1, for all of them, with its bar.

    Args:
        path: PNG to write.
        titles: A title for each column of maps.
        rows: (caption, strip HW3 uint8, a map HW 0..1 for each title, None for none).
        note: See `style.picture`.
        width: Of the picture, in inches.
    """
    columns = 1 + len(titles)
    strip_inches = (width - 0.9) / columns
    heights = [
        max(
            strip_inches * strip.shape[0] / strip.shape[1] + 0.06,
            0.125 * (caption.count("\n") + 1) + 0.1,
        )
        for caption, strip, _ in rows
    ]
    with picture(path, width, sum(heights) + 0.85, note) as figure:
        axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.005, hspace=0.0)
        for index, (caption, strip, maps) in enumerate(rows):
            show_picture(axes[index, 0], strip)
            axes[index, 0].set_ylabel(caption, fontsize=7, rotation=0, ha="right", va="center")
            for axis, map_HW in zip(axes[index, 1:], maps, strict=True):
                show_picture(axis, strip if map_HW is None else overlay(strip, map_HW))
                if map_HW is None:
                    axis.set_xlabel("no map", fontsize=7)
        for axis, title in zip(axes[0], ["views at -45, 0, +45 degrees", *titles], strict=True):
            axis.set_title(no_formula(title), fontsize=9)
        _colour_bar(figure, axes)


def _colour_bar(figure: Figure, axes: np.ndarray) -> None:
    """The overlay of a ramp over middle grey: what a value looks like."""
    ramp_HW = np.linspace(0, 1, 256)[None].repeat(8, 0)
    colours = overlay(np.full((*ramp_HW.shape, 3), _GREY), ramp_HW)[0] / 255
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(
            matplotlib.colors.Normalize(0, 1), matplotlib.colors.ListedColormap(colours)
        ),
        ax=axes,
        location="bottom",
        shrink=0.35,
        aspect=40,
        pad=0.01,
    )
    bar.set_label("value of the map over middle grey, the same scale in every column", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
