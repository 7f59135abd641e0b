"""The red dots that annotators paint on a strip, found (paper, Section 3.3 and Fig. 5).

Points are (x, y) in pixels of the strip, integers at pixel centres, y downwards. Array legend: H
height, W width, N points.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from lmme3dhf.annotations import AnnotationError

# Distances are Euclidean in RGB, 0..441.
RED = np.array((255.0, 0.0, 0.0), dtype=np.float32)  # what a dot is painted with
REDDER_BY_AT_LEAST = 60  # a painted pixel's red over its green and blue
UNSEEN_BELOW = 24  # nearer to red than this, a pixel of the plain strip cannot show a dot
CLEAR_FROM = 80  # as far from red as this, it shows a dot beyond doubt
DOT_PIXELS_AT_LEAST = 5  # smaller specks are compression or resampling noise
# The released code asks for 20 px of area in 512 px of height.
DOT_AREA_PER_SQUARE_HEIGHT = 20 / 512**2
ROUND_AT_LEAST = 0.95  # share of a disc's compactness, for a dot that tells its size
# How much of a disc must be seen to be painted, of what can be seen of it: the first of a group;
# what every further one must add; and both at least, of a whole disc.
FIRST_AT_LEAST, FURTHER_AT_LEAST, ANY_AT_LEAST = 0.2, 0.15, 0.04
NOT_THE_SAME_PICTURE = 24  # median difference of the two strips
BLEEDS_BELOW = (20, 12)  # changes of luma and of red chroma that JPEG's coarser colour makes

# Without the plain strip.
PAINTED_WITHIN = 70  # a pixel this far from red is as likely paint as not
PAINTED_WITHIN_KNOWN = 90  # the same, once the dots' size is known
LARGEST_RADIUS_PER_HEIGHT = 1 / 30  # larger red areas are hats
COVERED_AT_LEAST = 0.75  # intersection over union of a group of red pixels and its discs


def red_dots(
    marked_HW3: np.ndarray,
    plain_HW3: np.ndarray | None = None,
    *,
    radius_px: float | None = None,
) -> list[tuple[float, float]]:
    """Centres (x, y) of the red dots painted on a strip, from top to bottom; dots that touch or
    overlap count each.

    With the plain strip, a pixel is painted as far as it has changed on the way from its own colour
    to pure red, so red lips and hats stay what they are, and a dot on them is found as far as
    anything has changed there. All dots of a strip have one size, which those that stand alone
    tell; every group of painted pixels is then covered by as few discs of that size as explain it.
    A stroke becomes discs side by side. Without the plain strip, what counts is nearness to red,
    and groups that discs do not explain are taken for lips and hats: expect more faults.

    Args:
        marked_HW3: The strip with dots, RGB, uint8.
        plain_HW3: The same strip without dots; small differences, as by JPEG, are allowed for.
        radius_px: Radius of the dots in pixels; None finds it.

    Raises:
        AnnotationError: The pictures are not uint8 RGB, differ in size, or are two pictures.
    """
    return dots_with_radius(marked_HW3, plain_HW3, radius_px)[0]


def dots_with_radius(
    marked_HW3: np.ndarray, plain_HW3: np.ndarray | None, radius_px: float | None = None
) -> tuple[list[tuple[float, float]], float | None]:
    """As `red_dots`, with the radius that was found in pixels; None where there is no dot."""
    if plain_HW3 is None:
        _check_rgb("marked", marked_HW3)
        if radius_px is None:
            near_HW = np.clip(1 - _from_red(marked_HW3) / PAINTED_WITHIN, -1, 1)
            radius_px = _dot_radius(near_HW, LARGEST_RADIUS_PER_HEIGHT * len(marked_HW3))
        if radius_px is None:
            return [], None
        paint_HW, seen_HW = _paint_by_colour(marked_HW3, radius_px)
    else:
        paint_HW, seen_HW = paint_by_change(marked_HW3, plain_HW3)
        radius_px = radius_px or _dot_radius(paint_HW, math.inf)
        if radius_px is None:
            return [], None
    points = []
    for group_HW, seen_group_HW, (top, left) in _groups(paint_HW, seen_HW, radius_px):
        centres = _discs(group_HW, seen_group_HW, radius_px)
        if plain_HW3 is not None or _covered(group_HW, centres, radius_px) >= COVERED_AT_LEAST:
            points += [(x + left, y + top) for x, y in centres]
    return sorted(points, key=lambda point: (point[1], point[0])), radius_px


def _check_rgb(name: str, picture: np.ndarray) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise AnnotationError(
            f"{name} strip is {picture.dtype} {picture.shape}, expected RGB of (height, width, 3) "
            "in uint8"
        )


def _redness(picture_HW3: np.ndarray) -> np.ndarray:
    return picture_HW3[..., 0] - picture_HW3[..., 1:].max(axis=2)


def _from_red(picture_HW3: np.ndarray) -> np.ndarray:
    """Distance of every pixel from red; what is not even reddish is as far as can be."""
    picture_HW3 = picture_HW3.astype(np.float32)
    distance_HW = np.linalg.norm(picture_HW3 - RED, axis=2)
    distance_HW[_redness(picture_HW3) < REDDER_BY_AT_LEAST] = 255
    return distance_HW


def paint_by_change(marked_HW3: np.ndarray, plain_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of paint per pixel, -1 (none) to 1 (paint), and how much can be seen there, 0..1.

    A pixel that is covered to a share s shows plain + s (red - plain), so s is the projection of
    its change on the way to red. Where the plain strip is itself nearly red, both look alike and
    the evidence fades.

    Raises:
        AnnotationError: As `red_dots`.
    """
    _check_rgb("marked", marked_HW3)
    _check_rgb("plain", plain_HW3)
    if marked_HW3.shape != plain_HW3.shape:
        raise AnnotationError(
            f"marked strip is {marked_HW3.shape[:2]} and plain strip {plain_HW3.shape[:2]}; "
            "both must be the same picture"
        )
    plain, marked = plain_HW3.astype(np.float32), marked_HW3.astype(np.float32)
    change, way = marked - plain, RED - plain
    median = float(np.median(np.abs(change[::4, ::4])))
    if median > NOT_THE_SAME_PICTURE:
        raise AnnotationError(
            f"marked and plain strip differ by {median:.0f} of 255 over most of their area; both "
            "must be the same picture"
        )
    length_HW = np.einsum("hwc,hwc->hw", way, way)  # squared
    share_HW = np.einsum("hwc,hwc->hw", change, way) / np.maximum(length_HW, 1)
    # Paint of another colour may lie half-way to red, but is not red.
    reddish_HW = _redness(marked) >= REDDER_BY_AT_LEAST
    share_HW = np.where(reddish_HW, share_HW, np.minimum(share_HW, 0.5))
    clear_HW = (length_HW >= CLEAR_FROM**2) & reddish_HW
    share_HW = share_HW / _full_share(np.where(clear_HW, share_HW, 0))
    # JPEG stores colour coarsely: beside red lips it bleeds, at the same brightness.
    luma = np.array((0.299, 0.587, 0.114), dtype=np.float32)
    chroma = np.array((0.5, -0.419, -0.081), dtype=np.float32)
    reddest_HW = ndimage.maximum_filter(plain @ chroma, size=5)
    bled_HW = (np.abs(change @ luma) < BLEEDS_BELOW[0]) & (
        marked @ chroma < reddest_HW + BLEEDS_BELOW[1]
    )
    share_HW = np.where(bled_HW, np.minimum(share_HW, 0.5), share_HW)
    seen_HW = np.minimum(length_HW / CLEAR_FROM**2, 1)
    seen_HW[length_HW < UNSEEN_BELOW**2] = 0
    return seen_HW * np.clip(2 * share_HW - 1, -1, 1), seen_HW


def _paint_by_colour(marked_HW3: np.ndarray, radius_px: float) -> tuple[np.ndarray, np.ndarray]:
    """As `paint_by_change`, with the surroundings of a dot's size standing in for the plain
    strip.
    """
    distance_HW = _from_red(marked_HW3)
    around_HW = ndimage.grey_closing(distance_HW, size=(2 * math.ceil(radius_px) + 1,) * 2)
    share_HW = np.minimum(
        1 - distance_HW / np.maximum(around_HW, 1), 1 - distance_HW / (2 * PAINTED_WITHIN_KNOWN)
    )
    seen_HW = np.minimum((around_HW / CLEAR_FROM) ** 2, 1)
    seen_HW[around_HW < UNSEEN_BELOW] = 0
    return seen_HW * np.clip(2 * share_HW - 1, -1, 1), seen_HW


def _full_share(share_HW: np.ndarray) -> float:
    """What the middle of a dot shows: below 1 where JPEG has paled the small ones."""
    label_HW, count = ndimage.label(share_HW > 0.3, structure=np.ones((3, 3)))
    if not count:
        return 1.0
    pixels = np.bincount(label_HW.ravel())[1:]
    inside = label_HW > 0
    peaks = np.zeros(count + 1, dtype=share_HW.dtype)
    np.maximum.at(peaks, label_HW[inside], share_HW[inside])
    peaks = peaks[1:][pixels >= DOT_PIXELS_AT_LEAST]
    return float(np.clip(np.median(peaks), 0.6, 1)) if peaks.size else 1.0


def _dot_radius(paint_HW: np.ndarray, largest_px: float) -> float | None:
    """The dots' radius in pixels: the median of those that stand alone; where none does, of the
    deepest point of each group. None where nothing is as large as a dot.
    """
    least_area = max(DOT_PIXELS_AT_LEAST, DOT_AREA_PER_SQUARE_HEIGHT * len(paint_HW) ** 2)
    label_HW, _ = ndimage.label(paint_HW > 0, structure=np.ones((3, 3)))
    alone, grouped = [], []
    for label, box in enumerate(ndimage.find_objects(label_HW), 1):
        inside = label_HW[box] == label
        area = int(inside.sum())
        if area < DOT_PIXELS_AT_LEAST or paint_HW[box][inside].mean() < 0.3:
            continue
        cut = any(
            axis.start == 0 or axis.stop == size
            for axis, size in zip(box, paint_HW.shape, strict=True)
        )
        radius = math.sqrt(area / math.pi)
        y, x = np.nonzero(inside)
        # 1 for a disc, whose variance is area / (2 pi); less for everything else.
        compact = area / (2 * math.pi * max(y.var() + x.var(), 1e-6))
        is_round = compact >= ROUND_AT_LEAST and area > 0.7 * inside.size
        if not cut and is_round and area >= least_area and radius <= largest_px:
            alone.append(radius)
            continue
        deepest = float(ndimage.distance_transform_edt(np.pad(inside, 1)).max()) - 0.5
        if math.pi * deepest**2 >= least_area and deepest <= largest_px:
            # Five pixels are no smaller a disc than this.
            grouped.append(max(deepest, math.sqrt(DOT_PIXELS_AT_LEAST / math.pi)))
    found = alone or grouped
    return float(np.median(found)) if found else None


def _groups(
    paint_HW: np.ndarray, seen_HW: np.ndarray, radius_px: float
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """Painted pixels that may belong to common dots: (paint, seen, (top, left)) of each group's
    surroundings. Lines thinner than three quarters of a radius are no dots: they are the edges of
    shifted or recompressed pictures.
    """
    label_HW, count = ndimage.label(paint_HW > 0, structure=np.ones((3, 3)))
    block = max(2, math.ceil(0.75 * radius_px))
    core_HW = ndimage.minimum_filter((label_HW > 0).astype(np.uint8), size=block, mode="nearest")
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.unique(label_HW[core_HW > 0])] = True
    kept[0] = False
    reach = math.ceil(radius_px) + 2
    near_HW = ndimage.maximum_filter(kept[label_HW], size=2 * (reach // 2) + 1)
    group_HW, _ = ndimage.label(near_HW, structure=np.ones((3, 3)))
    for group, box in enumerate(ndimage.find_objects(group_HW), 1):
        rows, columns = (
            slice(max(0, axis.start - reach), min(size, axis.stop + reach))
            for axis, size in zip(box, paint_HW.shape, strict=True)
        )
        paint = paint_HW[rows, columns].copy()
        ours = (group_HW[rows, columns] == group) & kept[label_HW[rows, columns]]
        paint[(paint > 0) & ~ours] = 0
        if np.count_nonzero(paint > 0) >= DOT_PIXELS_AT_LEAST:
            yield paint, seen_HW[rows, columns], (rows.start, columns.start)


def _disc_NHW(
    centres: list[tuple[float, float]], rows: slice, columns: slice, radius_px: float
) -> np.ndarray:
    """How far each disc covers the pixels of a window, 0..1, with soft edges."""
    x_N, y_N = np.array(centres, dtype=np.float32).T
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - y_N[:, None, None]
    along = np.arange(columns.start, columns.stop, dtype=np.float32) - x_N[:, None, None]
    return np.clip(radius_px + 0.5 - np.sqrt(down**2 + along**2), 0, 1)


def cover(
    centres: list[tuple[float, float]], rows: slice, columns: slice, radius_px: float
) -> np.ndarray:
    """How far discs together cover the pixels of a window, 0..1."""
    cover_HW = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
    for centre in centres:
        np.maximum(cover_HW, _disc_NHW([centre], rows, columns, radius_px)[0], out=cover_HW)
    return cover_HW


def everywhere(picture_HW: np.ndarray) -> tuple[slice, slice]:
    """The window that is the whole picture, for `cover`."""
    return slice(0, picture_HW.shape[0]), slice(0, picture_HW.shape[1])


def _window(x: float, y: float, reach: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    return (
        slice(max(0, math.floor(y - reach)), min(shape[0], math.ceil(y + reach) + 1)),
        slice(max(0, math.floor(x - reach)), min(shape[1], math.ceil(x + reach) + 1)),
    )


def _discs(paint_HW: np.ndarray, seen_HW: np.ndarray, radius_px: float) -> list:
    """Centres of as few discs as explain the paint: the best one is added, and all nearby ones
    moved to where they cover most together, until another would add too little.
    """
    window = everywhere(paint_HW)
    reach = math.ceil(radius_px + 0.5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius_px + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    visible_HW = ndimage.correlate(seen_HW, kernel, mode="constant")
    least = ANY_AT_LEAST * float(kernel.sum())
    centres: list[tuple[float, float]] = []
    total = 0.0
    while True:
        left_HW = paint_HW * (1 - cover(centres, *window, radius_px))
        gain_HW = ndimage.correlate(left_HW, kernel, mode="constant")
        share = FURTHER_AT_LEAST if centres else FIRST_AT_LEAST
        for _ in range(3):  # the best place may lead nowhere where the next best does not
            cy, cx = np.unravel_index(gain_HW.argmax(), gain_HW.shape)
            if gain_HW[cy, cx] <= 0:
                return _centred(paint_HW, centres, float(kernel.sum()))
            trial = [*centres, (float(cx), float(cy))]
            _settle(paint_HW, trial, radius_px)
            better = float((paint_HW * cover(trial, *window, radius_px)).sum())
            at = round(trial[-1][1]), round(trial[-1][0])
            if better - total >= max(least, share * visible_HW[at]):
                centres, total = trial, better
                break
            gain_HW[_window(cx, cy, radius_px, paint_HW.shape)] = 0
        else:
            return _centred(paint_HW, centres, float(kernel.sum()))


def _centred(paint_HW: np.ndarray, centres: list, disc_area: float) -> list:
    """A single dot that is whole lies exactly in the middle of its pixels."""
    mask_HW = paint_HW > 0
    borders = (mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1])
    whole = (
        len(centres) == 1
        and ndimage.label(mask_HW, structure=np.ones((3, 3)))[1] == 1
        and not any(border.any() for border in borders)
        and abs(mask_HW.sum() / disc_area - 1) < 0.25
    )
    if not whole:
        return centres
    y, x = ndimage.center_of_mass(mask_HW)
    return [(float(x), float(y))]


# Staying comes first: it wins where nothing is better.
_MOVES = ((0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def _settle(paint_HW: np.ndarray, centres: list[tuple[float, float]], radius_px: float) -> None:
    """Moves the newest disc and those near it, in place, by steps of 1, 1/2 and 1/4 pixel as long
    as the paint that they cover grows.
    """
    height, width = paint_HW.shape
    newest = centres[-1]
    for step in (1.0, 0.5, 0.25):
        reach = radius_px + 1 + step
        for _ in range(8):
            moved = False
            for index, (x, y) in enumerate(centres):
                if math.dist((x, y), newest) > 4 * radius_px:
                    continue
                others = [
                    centre
                    for k, centre in enumerate(centres)
                    if k != index and math.dist(centre, (x, y)) < 2 * reach
                ]
                rows, columns = _window(x, y, reach, paint_HW.shape)
                points = [
                    (min(max(x + step * dx, 0), width - 1), min(max(y + step * dy, 0), height - 1))
                    for dx, dy in _MOVES
                ]
                # What the disc at each point adds to the others.
                added = _disc_NHW(points, rows, columns, radius_px)
                if others:
                    added -= _disc_NHW(others, rows, columns, radius_px).max(axis=0)
                gain_N = np.maximum(added, 0, out=added).reshape(len(points), -1) @ (
                    paint_HW[rows, columns].ravel()
                )
                best = int(gain_N.argmax())
                if gain_N[best] > gain_N[0] + 1e-4:
                    centres[index], moved = points[best], True
            if not moved:
                break


def _covered(paint_HW: np.ndarray, centres: list[tuple[float, float]], radius_px: float) -> float:
    """Intersection over union of the painted pixels and the discs."""
    mask_HW = paint_HW > 0
    cover_HW = cover(centres, *everywhere(paint_HW), radius_px) > 0.5
    return float((mask_HW & cover_HW).sum() / max((mask_HW | cover_HW).sum(), 1))
