"""What annotators left on a strip: their marks, and whatever else differs from the plain strip.

A strip that comes back without any change says "nothing marked"; one with something that is no mark
(a ring among dots, another colour, a note) must not say so. Points are (x, y) in pixels of the
strip. Array legend: H height, W width.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.dots import (
    DOT_PIXELS_AT_LEAST,
    cover,
    dots_with_radius,
    everywhere,
    paint_by_change,
)

SHAPES = ("dot", "ring")
# Colour -> order of the channels that turns it into red, and whether they are inverted first. Both
# keep all distances, so dots of every colour are found as well as red ones.
_TO_RED = {
    "red": ((0, 1, 2), False),
    "green": ((1, 0, 2), False),
    "blue": ((2, 1, 0), False),
    "cyan": ((0, 1, 2), True),
    "magenta": ((1, 0, 2), True),
    "yellow": ((2, 1, 0), True),
}
COLOURS = tuple(_TO_RED)
_NAMED_RGB = {
    **{name: [255 * (inverted != (i == order[0])) for i in range(3)]
       for name, (order, inverted) in _TO_RED.items()},
    "black": [0, 0, 0],
    "grey": [128, 128, 128],
    "white": [255, 255, 255],
}  # fmt: skip

# A pixel of a strip that went through JPEG has changed where the mean change of its 3 x 3
# surroundings reaches this in a channel. JPEG of quality 60 and more stays below 49, beside dots
# too (60 strips of scripts/dots_study.py).
CHANGED_FROM = 50
# In a strip that was stored without loss, most pixels are the plain strip's to the bit.
LOSSLESS_FROM, CHANGED_FROM_LOSSLESS = 0.8, 24
_BESIDE_PX = 3  # around a mark: soft edges
# The changes around a ring or a scribble; another clip's strip differs over more of its area.
ANOTHER_STRIP_FROM = 0.05
# Shapes that are dots: hardly any pixel lies outside the discs. Where dots are too small to show
# notches between neighbours, their centres lie within a short distance, in radii; where they are
# large enough, there are few, and by their number: how far the notches may be painted, how far
# discs and paint overlap at least, and how many pixels of a notch there are at least. Of the
# demo's 3,000 marked strips none is refused, and one where each dot is moved by up to 2.5 px.
_SOFT_PX, _FAR_SHARE, _LONGEST_GROUP, _DOTS_IN_GROUP = 1.5, 0.2, 10, 5
_NOTCHES_FROM_PX = 3.0
_GROUP = {2: (0.8, 0.7, 0.0), 3: (0.6, 0.8, 0.0), 4: (0.5, 0.86, 0.9)}
_HOLE_PER_RADIUS = 5.0  # a ring's hole in squared radii; dots that touch enclose less
# A spot in the marks' colour up to this size is counted as a dot that was not recognised.
_SPECK_SIDE_PX, _SPECK_SIDE_PER_RADIUS = 8, 4.0
_NAMED_STRAYS = 3


@dataclass(frozen=True)
class Stray:
    """A change of a strip that is no mark.

    Attributes:
        x: Its middle, pixels.
        y: Its middle, pixels.
        pixels: How many pixels have changed.
        looks: What it looks like: "a red ring", "something green".
    """

    x: int
    y: int
    pixels: int
    looks: str

    def __str__(self) -> str:
        return f"{self.looks} of {self.pixels} px at ({self.x}, {self.y})"


@dataclass(frozen=True)
class Marking:
    """What one marker left on one strip.

    Attributes:
        points: Centres of the marks.
        strays: Changes that are no marks.
        specks: Spots in the marks' colour that are too small or too crowded for a dot.
    """

    points: tuple[tuple[float, float], ...] = ()
    strays: tuple[Stray, ...] = ()
    specks: int = 0

    def strays_named(self) -> str:
        """The largest strays, for a message."""
        largest = sorted(self.strays, key=lambda stray: -stray.pixels)
        rest = len(largest) - _NAMED_STRAYS
        more = f" and {rest} more" if rest > 0 else ""
        return ", ".join(map(str, largest[:_NAMED_STRAYS])) + more


def read_marking(
    marked_HW3: np.ndarray, plain_HW3: np.ndarray, colour: str = "red", shape: str = "dot"
) -> Marking:
    """Finds the marks on a strip, and what else was painted on it.

    Args:
        marked_HW3: The strip as it came back, RGB, uint8; it may have gone through JPEG.
        plain_HW3: The strip without marks.
        colour: The marks' colour, one of `COLOURS`.
        shape: "dot", filled; or "ring", closed and not touching another, whose mark is its middle.

    Raises:
        AnnotationError: As `annotations.dots.red_dots`, or another clip's strip.
    """
    marked, plain = (_as_red(picture, colour) for picture in (marked_HW3, plain_HW3))
    if shape == "dot":
        points, radius_px = dots_with_radius(marked, plain)
        taken_HW = cover(points, *everywhere(marked[..., 0]), (radius_px or 0) + _BESIDE_PX) > 0
    else:
        points, taken_HW, radius_px = *_rings(marked, plain), None
    change_HW3 = marked_HW3.astype(np.float32) - plain_HW3.astype(np.float32)
    painted_HW = np.abs(change_HW3).max(axis=2) >= CHANGED_FROM_LOSSLESS
    changed_HW = painted_HW
    if (change_HW3 == 0).mean() < LOSSLESS_FROM:
        mean_HW3 = ndimage.uniform_filter(change_HW3, size=(3, 3, 1))
        changed_HW = np.abs(mean_HW3).max(axis=2) >= CHANGED_FROM
    changed_HW = changed_HW & ~taken_HW
    share = float(changed_HW.mean())
    if share >= ANOTHER_STRIP_FROM:
        raise AnnotationError(
            f"{share:.0%} of its pixels are not those of the plain strip; expected the same "
            "picture with marks on it: is it another clip's strip?"
        )
    strays, specks = [], 0
    label_HW, _ = ndimage.label(changed_HW, structure=np.ones((3, 3)))
    evidence_HW = paint_by_change(marked, plain)[0] if points or changed_HW.any() else None
    for label, box in enumerate(ndimage.find_objects(label_HW), 1):
        inside = (label_HW[box] == label) & painted_HW[box]
        if inside.sum() < DOT_PIXELS_AT_LEAST:
            continue
        is_ring = _hole(label_HW[box] == label) > DOT_PIXELS_AT_LEAST
        ours = (evidence_HW[box][inside] > 0).mean() > 0.5
        longest = max(side.stop - side.start for side in box)
        small = longest <= max(_SPECK_SIDE_PX, _SPECK_SIDE_PER_RADIUS * (radius_px or 0))
        if shape == "dot" and ours and small and not is_ring:
            specks += 1
            continue
        y, x = (round((side.start + side.stop - 1) / 2) for side in box)
        name = _colour_name(np.median(marked_HW3[box][inside], axis=0))
        looks = f"a {name} ring" if is_ring else f"something {name}"
        strays.append(Stray(x, y, int(inside.sum()), looks))
    if shape == "dot" and points:
        points, shapes = _not_dots(evidence_HW, points, radius_px, colour)
        strays += shapes
    return Marking(tuple(points), tuple(strays), specks)


def _as_red(picture_HW3: np.ndarray, colour: str) -> np.ndarray:
    order, inverted = _TO_RED[colour]
    if colour == "red" or picture_HW3.shape[-1] != 3:  # the reader of the dots refuses it
        return picture_HW3
    return (255 - picture_HW3 if inverted else picture_HW3)[..., order]


def _colour_name(rgb: np.ndarray) -> str:
    return min(_NAMED_RGB, key=lambda name: float(np.linalg.norm(rgb - _NAMED_RGB[name])))


def _hole(mask_HW: np.ndarray) -> int:
    """Pixels that a shape encloses."""
    return int(ndimage.binary_fill_holes(mask_HW).sum() - mask_HW.sum())


def _not_dots(
    paint_HW: np.ndarray, points: list[tuple[float, float]], radius_px: float, colour: str
) -> tuple[list[tuple[float, float]], list[Stray]]:
    """Separates dots from the discs that the finder laid over a stroke, a thick ring or a blot.

    Dots that touch leave notches between neighbours, a stroke does not. Dots of a few pixels
    show none; there a stroke is known by its length alone.

    Returns:
        The dots, and the painted shapes that are none.
    """
    label_HW, _ = ndimage.label(paint_HW > 0, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(label_HW)
    at = np.rint(points).astype(int)
    label_N = label_HW[at[:, 1], at[:, 0]]
    kept, strays = list(points), []
    for label in np.unique(label_N[label_N > 0]):
        ours = [point for point, of_point in zip(points, label_N, strict=True) if of_point == label]
        rows, columns = boxes[label - 1]
        inside = label_HW[rows, columns] == label
        share_HW = np.where(inside, (paint_HW[rows, columns] + 1) / 2, 0)
        moved = np.array(ours) - (columns.start, rows.start)
        if _is_dots(inside, share_HW, moved, radius_px):
            continue
        kept = [point for point in kept if point not in ours]
        y, x = (round((side.start + side.stop - 1) / 2) for side in (rows, columns))
        is_ring = _hole(inside) > _HOLE_PER_RADIUS * radius_px**2
        looks = f"a {colour} {'ring' if is_ring else 'stroke or blot'}"
        strays.append(Stray(x, y, int(inside.sum()), looks))
    return kept, strays


def _is_dots(
    inside: np.ndarray, share_HW: np.ndarray, centre_N2: np.ndarray, radius_px: float
) -> bool:
    """Whether a painted shape is as many dots as the finder says.

    Args:
        inside: (H, W), the shape.
        share_HW: How far each of its pixels is painted, 0..1.
        centre_N2: (x, y) of the dots within it.
        radius_px: Radius of the dots, pixels.
    """
    y, x = np.nonzero(inside)
    far = cdist(np.stack([x, y], axis=1), centre_N2).min(axis=1) > radius_px + _SOFT_PX
    count, distance_NN = len(centre_N2), cdist(centre_N2, centre_N2)
    if far.mean() > _FAR_SHARE:
        return False
    if count == 1 or radius_px < _NOTCHES_FROM_PX:
        return bool(distance_NN.max() <= _LONGEST_GROUP * radius_px)
    if count > _DOTS_IN_GROUP:
        return False
    window = everywhere(inside)
    discs_HW = cover(centre_N2.tolist(), *window, radius_px)
    edges = minimum_spanning_tree(distance_NN).tocoo()
    between = [
        (centre_N2[i] + t * (centre_N2[j] - centre_N2[i])).tolist()
        for i, j in zip(edges.row, edges.col, strict=True)
        for t in np.linspace(0.1, 0.9, 9)
    ]
    notch_HW = np.clip(cover(between, *window, radius_px) - discs_HW, 0, 1)
    notch = float(notch_HW.sum())
    filled = float((notch_HW * share_HW).sum()) / max(notch, 1e-6)
    overlap = (inside & (discs_HW > 0.5)).sum() / (inside | (discs_HW > 0.5)).sum()
    most_filled, least_overlap, least_notch = _GROUP[min(count, max(_GROUP))]
    return filled <= most_filled and overlap >= least_overlap and notch >= least_notch * (count - 1)


def _rings(marked: np.ndarray, plain: np.ndarray) -> tuple[list[tuple[float, float]], np.ndarray]:
    """Middles of the closed red rings, and the pixels within and around them."""
    paint_HW = ndimage.binary_dilation(
        paint_by_change(marked, plain)[0] > 0, structure=np.ones((3, 3))
    )
    label_HW, _ = ndimage.label(paint_HW, structure=np.ones((3, 3)))
    points, taken_HW = [], np.zeros_like(paint_HW)
    for label, box in enumerate(ndimage.find_objects(label_HW), 1):
        inside = label_HW[box] == label
        filled = ndimage.binary_fill_holes(inside)
        if ndimage.label(filled & ~inside)[1] != 1:  # open, filled, or rings that cross
            continue
        y, x = ndimage.center_of_mass(filled)
        points.append((float(x) + box[1].start, float(y) + box[0].start))
        taken_HW[box] |= filled
    return points, ndimage.binary_dilation(taken_HW, iterations=_BESIDE_PX)
