"""Saliency maps from the red dots that annotators paint on a strip (paper, Section 3.3 and Fig. 5).

A marked strip is compared with the plain one to find the dots' centres; the union of all
annotators' points becomes a binary fixation map and, smoothed with a Gaussian of 5 px at the
strip's own size, the saliency map. Points are (x, y) in pixels of the strip, integers at pixel
centres, y downwards. Array legend: H height, W width.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from lmme3dhf.annotations import AnnotationError

SIGMA_PX = 5.0  # paper, Section 3.3

# A dot is painted in pure red; lips, hats and blushed skin seldom reach this red, and the
# comparison with the plain strip sees to those that do.
RED_AT_LEAST = 180
GREEN_AND_BLUE_AT_MOST = 80
CHANGED_BY_AT_LEAST = 30  # of 255, in any channel
DOT_PIXELS_AT_LEAST = 5  # smaller specks are compression or resampling noise


def red_dots(marked_HW3: np.ndarray, plain_HW3: np.ndarray) -> list[tuple[float, float]]:
    """Centres (x, y) of the red dots painted on a strip, from top to bottom.

    A dot is a connected group (diagonals count) of at least 5 pixels that are saturated red in the
    marked strip and differ from the plain strip; its centre is the mean of its pixels. Touching
    dots form one group and give one point, as does a stroke much larger than a dot. A dot on an
    area that is already pure red leaves no difference and is not found.

    Args:
        marked_HW3: The strip with dots, RGB, uint8.
        plain_HW3: The same strip without dots.

    Raises:
        AnnotationError: The pictures are not uint8 RGB or differ in size.
    """
    for name, picture in (("marked", marked_HW3), ("plain", plain_HW3)):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise AnnotationError(
                f"{name} strip is {picture.dtype} {picture.shape}, expected RGB of (height, "
                "width, 3) in uint8"
            )
    if marked_HW3.shape != plain_HW3.shape:
        raise AnnotationError(
            f"marked strip is {marked_HW3.shape[:2]} and plain strip {plain_HW3.shape[:2]}; both "
            "must be the same picture"
        )
    marked, plain = marked_HW3.astype(np.int16), plain_HW3.astype(np.int16)
    red = (marked[..., 0] >= RED_AT_LEAST) & (marked[..., 1:].max(axis=2) <= GREEN_AND_BLUE_AT_MOST)
    painted = red & (np.abs(marked - plain).max(axis=2) >= CHANGED_BY_AT_LEAST)
    label_HW, count = ndimage.label(painted, structure=np.ones((3, 3)))
    pixels = np.bincount(label_HW.ravel(), minlength=count + 1)
    dots = [label for label in range(1, count + 1) if pixels[label] >= DOT_PIXELS_AT_LEAST]
    return [(float(x), float(y)) for y, x in ndimage.center_of_mass(painted, label_HW, dots)]


def fixation_map(points: Iterable[tuple[float, float]], height: int, width: int) -> np.ndarray:
    """Boolean map (height, width), true at the pixel nearest to each point; points on the same
    pixel count once.

    Raises:
        AnnotationError: A point lies outside the picture or is not finite.
    """
    fixated_HW = np.zeros((height, width), dtype=bool)
    for index, (x, y) in enumerate(points):
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise AnnotationError(
                f"point {index}, ({x}, {y}), lies outside the picture of {width} x {height} px; "
                "points are (x, y) in its pixels"
            )
        fixated_HW[math.floor(y + 0.5), math.floor(x + 0.5)] = True
    return fixated_HW


def saliency_map(
    points: Iterable[tuple[float, float]], height: int, width: int, sigma_px: float = SIGMA_PX
) -> np.ndarray:
    """Float32 map (height, width) with peak 1: Gaussians of `sigma_px` around the union of the
    points, over their maximum.

    Without points the map is all zero, which says "no distortion". At the picture's border the
    Gaussian is reflected.

    Raises:
        AnnotationError: A point lies outside the picture.
        ValueError: `sigma_px` is not positive.
    """
    if not sigma_px > 0:
        raise ValueError(f"sigma_px is {sigma_px}, expected a positive width in pixels")
    fixated_HW = fixation_map(points, height, width)
    if not fixated_HW.any():
        return np.zeros((height, width), dtype=np.float32)
    density_HW = ndimage.gaussian_filter(fixated_HW.astype(np.float64), sigma_px, mode="reflect")
    return (density_HW / density_HW.max()).astype(np.float32)


def write_saliency_png(path: Path, saliency_HW: np.ndarray) -> None:
    """Writes a map with values in 0..1 as an 8-bit grey picture: 255 times the value, rounded.

    Departure D9: the released code stretches every predicted map to full contrast; then none can
    say "no distortion".

    Raises:
        AnnotationError: The map is not two-dimensional or leaves 0..1.
    """
    if (
        saliency_HW.ndim != 2
        or not np.isfinite(saliency_HW).all()
        or saliency_HW.min() < 0
        or saliency_HW.max() > 1
    ):
        raise AnnotationError(
            f"{path}: map of shape {saliency_HW.shape} cannot be written; expected (height, "
            "width) with values in 0..1"
        )
    Image.fromarray(np.round(255 * saliency_HW.astype(np.float64)).astype(np.uint8)).save(
        path, format="PNG"
    )


def read_saliency_png(path: Path) -> np.ndarray:
    """Float32 map (height, width) in 0..1 from an 8-bit picture; colour is reduced to its grey
    value, white is 1.

    Raises:
        AnnotationError: Not a picture, or one of more than 8 bits.
        FileNotFoundError: No such file.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise AnnotationError(
                    f"{path}: picture of mode {picture.mode}, expected 8-bit grey; convert it"
                )
            grey_HW = np.asarray(picture.convert("L"))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:  # Pillow reports broken PNG chunks as SyntaxError
        raise AnnotationError(
            f"{path}: cannot be read as a picture ({error}); write the map again"
        ) from error
    return grey_HW.astype(np.float32) / 255
