"""Pictures of the report; the only module that draws."""

from pathlib import Path

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


def overlay(picture_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:
    """A map over a picture: grey where it is 0, from yellow to red where it is high; uint8."""
    grey = np.repeat(picture_HW3.mean(-1, keepdims=True), 3, -1) * 0.75
    heat = matplotlib.colormaps["YlOrRd"](map_HW)[..., :3] * 255
    alpha = np.clip(map_HW * 1.6, 0, 0.85)[..., None]
    return (grey * (1 - alpha) + heat * alpha).astype(np.uint8)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
