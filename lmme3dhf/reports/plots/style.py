"""One style for every picture: fonts, colours that colour-blind readers can tell apart (Okabe and
Ito), a grey grid, and the two files that each becomes, PNG and SVG.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmme3dhf.aspects import Scale
from lmme3dhf.files import replace_file

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, SKY, ORANGE = "#CC79A7", "#56B4E9", "#E69F00"
DIMENSION_COLOURS = {"quality": BLUE, "authenticity": VERMILION}
_OTHER_ASPECTS = (GREEN, PINK, ORANGE, SKY)

# Colour and marker change together, so that a picture printed in grey still tells them apart.
_COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")
_LINES = ("-", "--", "-.", ":")

PNG_DPI, SVG_DPI = 130, 150  # of the SVG only the strips and other rasters in it
MANY = 500  # more points than these are a raster in the SVG, which would become megabytes
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.7,
    "axes.edgecolor": "0.45",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "0.2",
    "ytick.color": "0.2",
    "hatch.linewidth": 0.6,
    # The same call gives the same bytes: names in the file are not drawn at random.
    "svg.hashsalt": "lmme3dhf",
    "svg.fonttype": "path",
}


@contextmanager
def picture(path: Path, width: float, height: float, note: str = "") -> Iterator[Figure]:
    """An empty figure in the common style; when the block ends it is written as `path` (PNG) and as
    SVG of the same name, both deterministic and whole. Nothing is written where the block fails.

    Args:
        path: PNG to write.
        width, height: In inches.
        note: Small line in the lower right corner, such as "synthetic data, tiny model".
    """
    path = Path(path)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        if note:
            figure.supxlabel(note, x=0.995, ha="right", size=7.5, style="italic", color="0.35")
        yield figure
        for form, dpi, metadata in (("png", PNG_DPI, {}), ("svg", SVG_DPI, {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=form, dpi=dpi, metadata=metadata)
            replace_file(path.with_suffix(f".{form}"), content.getvalue())
            figure.set_layout_engine("none")  # everything has its place: no second search


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th group; no two of the first seventy look the same."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def line(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the index-th line."""
    return {**look(index), "linestyle": _LINES[index % len(_LINES)]}


def aspect_colours(names: Iterable[str]) -> dict[str, str]:
    """Aspect -> the colour that it has in a picture of these."""
    others = cycle(_OTHER_ASPECTS)
    return {name: DIMENSION_COLOURS.get(name) or next(others) for name in names}


def score_label(scale: Scale) -> str:
    """Label of an axis of opinion scores."""
    return f"mean opinion score ({scale.minimum:g}-{scale.maximum:g})"


def show_picture(axis: Axes, pixels: np.ndarray) -> None:
    """A picture without axes around it."""
    axis.imshow(pixels)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def show_cells(
    axis: Axes, shares_RC: np.ndarray, texts: Sequence[Sequence[str]], highest: float, size: float
) -> Any:
    """A matrix with its shares as colour and a text in every cell, dark on bright and bright on
    dark; a share that is NaN is white.

    Returns:
        The image, for a colour bar.
    """
    shown = axis.imshow(shares_RC, cmap="cividis", vmin=0, vmax=highest, aspect="auto")
    axis.grid(False)
    axis.tick_params(length=0)
    for (row, column), share in np.ndenumerate(shares_RC):
        dark = share <= 0.55 * highest  # not where it is NaN
        axis.text(
            column,
            row,
            texts[row][column],
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=size,
        )
    return shown


def no_formula(text: str) -> str:
    """A text from outside as matplotlib draws it letter by letter; between two $ it would be a
    formula, or an error.
    """
    return text.replace("$", r"\$")
