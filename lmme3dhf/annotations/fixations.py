"""Saliency maps from the red dots that annotators paint on a strip (paper, Section 3.3 and Fig. 5).

A marked strip is compared with the plain one to find the dots' centres; the union of all
annotators' points becomes a binary fixation map and, smoothed with a Gaussian of 5 px at the
strip's own size, the saliency map. Points are (x, y) in pixels of the strip, integers at pixel
centres, y downwards. Array legend: H height, W width.
"""

import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from lmme3dhf.annotations import AnnotationError, csv_rows, json_content
from lmme3dhf.files import replace_file, write_json

POINT_COLUMNS = ("marker", "video", "x", "y")
STRIP_SUFFIXES = (".png", ".jpg", ".jpeg")
SIGMA_PX = 5.0  # paper, Section 3.3

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
    _check_rgb("marked", marked_HW3)
    if plain_HW3 is None:
        if radius_px is None:
            near_HW = np.clip(1 - _from_red(marked_HW3) / PAINTED_WITHIN, -1, 1)
            radius_px = _dot_radius(near_HW, LARGEST_RADIUS_PER_HEIGHT * len(marked_HW3))
        if radius_px is None:
            return []
        paint_HW, seen_HW = _paint_by_colour(marked_HW3, radius_px)
    else:
        _check_rgb("plain", plain_HW3)
        if marked_HW3.shape != plain_HW3.shape:
            raise AnnotationError(
                f"marked strip is {marked_HW3.shape[:2]} and plain strip {plain_HW3.shape[:2]}; "
                "both must be the same picture"
            )
        paint_HW, seen_HW = _paint_by_change(marked_HW3, plain_HW3)
        radius_px = radius_px or _dot_radius(paint_HW, math.inf)
        if radius_px is None:
            return []
    points = []
    for group_HW, seen_group_HW, (top, left) in _groups(paint_HW, seen_HW, radius_px):
        centres = _discs(group_HW, seen_group_HW, radius_px)
        if plain_HW3 is not None or _covered(group_HW, centres, radius_px) >= COVERED_AT_LEAST:
            points += [(x + left, y + top) for x, y in centres]
    return sorted(points, key=lambda point: (point[1], point[0]))


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


def _paint_by_change(
    marked_HW3: np.ndarray, plain_HW3: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of paint per pixel, -1 (none) to 1 (paint), and how much can be seen there, 0..1.

    A pixel that is covered to a share s shows plain + s (red - plain), so s is the projection of
    its change on the way to red. Where the plain strip is itself nearly red, both look alike and
    the evidence fades.
    """
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
    """As `_paint_by_change`, with the surroundings of a dot's size standing in for the plain
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


def _cover(
    centres: list[tuple[float, float]], rows: slice, columns: slice, radius_px: float
) -> np.ndarray:
    """How far discs together cover the pixels of a window, 0..1."""
    cover_HW = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
    for centre in centres:
        np.maximum(cover_HW, _disc_NHW([centre], rows, columns, radius_px)[0], out=cover_HW)
    return cover_HW


def _everywhere(picture_HW: np.ndarray) -> tuple[slice, slice]:
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
    everywhere = _everywhere(paint_HW)
    reach = math.ceil(radius_px + 0.5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius_px + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    visible_HW = ndimage.correlate(seen_HW, kernel, mode="constant")
    least = ANY_AT_LEAST * float(kernel.sum())
    centres: list[tuple[float, float]] = []
    total = 0.0
    while True:
        left_HW = paint_HW * (1 - _cover(centres, *everywhere, radius_px))
        gain_HW = ndimage.correlate(left_HW, kernel, mode="constant")
        share = FURTHER_AT_LEAST if centres else FIRST_AT_LEAST
        for _ in range(3):  # the best place may lead nowhere where the next best does not
            cy, cx = np.unravel_index(gain_HW.argmax(), gain_HW.shape)
            if gain_HW[cy, cx] <= 0:
                return _centred(paint_HW, centres, float(kernel.sum()))
            trial = [*centres, (float(cx), float(cy))]
            _settle(paint_HW, trial, radius_px)
            better = float((paint_HW * _cover(trial, *everywhere, radius_px)).sum())
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
                rows, columns = _window(x, y, reach, paint_HW.shape)
                others = [
                    centre
                    for k, centre in enumerate(centres)
                    if k != index and math.dist(centre, (x, y)) < 2 * reach
                ]
                points = [
                    (min(max(x + step * dx, 0), width - 1), min(max(y + step * dy, 0), height - 1))
                    for dx, dy in _MOVES
                ]
                # What the disc at each point adds to the others.
                added = _disc_NHW(points, rows, columns, radius_px)
                added -= _cover(others, rows, columns, radius_px)
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
    cover_HW = _cover(centres, *_everywhere(paint_HW), radius_px) > 0.5
    return float((mask_HW & cover_HW).sum() / max((mask_HW | cover_HW).sum(), 1))


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


def write_saliency(folder: Path, video: str, saliency_HW: np.ndarray) -> None:
    """Writes a ground-truth map twice: `VIDEO.png`, 8-bit grey as the release has it, and
    `VIDEO.npz` with the array `saliency` in float32, which loses nothing.

    Raises:
        AnnotationError: The map is not two-dimensional or leaves 0..1.
    """
    _check_map(folder / f"{video}.png", saliency_HW)
    folder.mkdir(parents=True, exist_ok=True)
    write_saliency_png(folder / f"{video}.png", saliency_HW)
    stream = io.BytesIO()
    np.savez_compressed(stream, saliency=saliency_HW.astype(np.float32))
    replace_file(folder / f"{video}.npz", stream.getvalue())


def read_saliency(folder: Path, video: str) -> np.ndarray:
    """Float32 map (height, width) in 0..1 of a video: from its .npz, or from its .png where there
    is no other, as in the release.

    Raises:
        AnnotationError: A file that is damaged, or holds anything but a map with values in 0..1.
        FileNotFoundError: The video has no map.
    """
    path = folder / f"{video}.npz"
    if not path.exists():
        return read_saliency_png(folder / f"{video}.png")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            saliency_HW = arrays["saliency"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise AnnotationError(
            f"{path}: cannot be read as a saliency map ({error}); make the labels again"
        ) from error
    _check_map(path, saliency_HW)
    return saliency_HW.astype(np.float32)


def _check_map(path: Path, saliency_HW: np.ndarray) -> None:
    good = saliency_HW.ndim == 2 and saliency_HW.size > 0 and saliency_HW.dtype.kind == "f"
    # Comparisons with NaN are false.
    if not (good and saliency_HW.min() >= 0 and saliency_HW.max() <= 1):
        raise AnnotationError(
            f"{path}: {saliency_HW.dtype} map of shape {saliency_HW.shape}; expected floats of "
            "(height, width) with values in 0..1"
        )


def write_fixation_png(path: Path, fixated_HW: np.ndarray) -> None:
    """Writes a fixation map as a picture of one bit a pixel, white at the marked points."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(fixated_HW).save(path, format="PNG")


@dataclass(frozen=True)
class Fixations:
    """What was marked on one video.

    Attributes:
        points: All markers' points, (x, y) in pixels of the strip.
        dots: Marker -> number of its dots; empty where it is not known.
        size: (width, height) of the strip; None where it is not known.
    """

    points: tuple[tuple[float, float], ...]
    dots: dict[str, int]
    size: tuple[int, int] | None = None

    @property
    def no_distortion(self) -> bool:
        """Whether nobody marked anything."""
        return not self.points


def write_fixations(path: Path, fixations: Mapping[str, Fixations]) -> None:
    """Writes `fixations.json`: video -> points, dots by marker, size and no_distortion."""
    write_json(
        path,
        {
            video: {
                "points": [list(point) for point in found.points],
                "dots": found.dots,
                "size": None if found.size is None else list(found.size),
                "no_distortion": found.no_distortion,
            }
            for video, found in sorted(fixations.items())
        },
    )


def read_fixations(path: Path) -> dict[str, Fixations]:
    """Reads `fixations.json`, also in its plain form video -> [[x, y], ...].

    Raises:
        AnnotationError: Not JSON, or something else in it; with the video.
        FileNotFoundError: No such file.
    """
    fixations = {}
    for video, entry in _json_object(path).items():
        where = f"{path}: {video}"
        if isinstance(entry, list):
            entry = {"points": entry}
        if not isinstance(entry, dict) or "points" not in entry:
            raise AnnotationError(f"{where}: {str(entry)[:60]!r}; expected points [[x, y], ...]")
        points = tuple(_points(entry["points"], where))
        dots, size = entry.get("dots") or {}, entry.get("size")
        if not isinstance(dots, dict) or not all(type(n) is int and n >= 0 for n in dots.values()):
            raise AnnotationError(f"{where}: dots are {dots!r}, expected a count for each marker")
        if dots and sum(dots.values()) != len(points):
            raise AnnotationError(
                f"{where}: {len(points)} points, but the markers' dots add up to "
                f"{sum(dots.values())}"
            )
        whole = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
        if size is not None and not (whole and min(size) > 0):
            raise AnnotationError(f"{where}: size is {size!r}, expected [width, height] in pixels")
        if entry.get("no_distortion", not points) is not (not points):
            raise AnnotationError(
                f"{where}: no_distortion is {entry['no_distortion']!r} beside {len(points)} points"
            )
        fixations[video] = Fixations(points, dots, None if size is None else tuple(size))
    return fixations


def read_points(path: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Reads marked points: video -> marker -> (x, y) in pixels of the strip.

    Either CSV `marker,video,x,y`, one point a row, or JSON {video: {marker: [[x, y], ...]}}; in
    JSON a video's points may also stand without markers, [[x, y], ...], and then belong to the
    marker "". The same point twice by one marker counts once: it is one dot.

    Raises:
        AnnotationError: With file and line, or video: something else, an empty name, a coordinate
            that is no finite number.
        FileNotFoundError: No such file.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    if path.suffix.lower() == ".csv":
        for line, (marker, video, x, y) in csv_rows(path, POINT_COLUMNS):
            where = f"{path}:{line}"
            if not marker or not video:
                raise AnnotationError(f"{where}: marker or video is empty; name both")
            try:
                point = [float(x), float(y)]
            except ValueError as error:
                raise AnnotationError(
                    f"{where}: point ({x}, {y}); expected two numbers, x and y in pixels"
                ) from error
            points.setdefault(video, {}).setdefault(marker, []).extend(_points([point], where))
        if not points:
            raise AnnotationError(
                f"{path}: no points below the header; expected rows of {','.join(POINT_COLUMNS)}"
            )
    else:
        for video, entry in _json_object(path).items():
            by_marker = entry if isinstance(entry, dict) else {"": entry}
            points[video] = {
                marker: _points(listed, f"{path}: {video}{marker and ', '}{marker}")
                for marker, listed in by_marker.items()
            }
    return {
        video: {marker: list(dict.fromkeys(listed)) for marker, listed in by_marker.items()}
        for video, by_marker in points.items()
    }


def _json_object(path: Path) -> dict[str, object]:
    content = json_content(path)
    if not isinstance(content, dict) or not content:
        raise AnnotationError(f"{path}: expected an object of videos, not an empty one")
    return content


def _points(listed: object, where: str) -> list[tuple[float, float]]:
    if not isinstance(listed, list):
        raise AnnotationError(f"{where}: {str(listed)[:60]!r}; expected points [[x, y], ...]")
    for point in listed:
        good = isinstance(point, list) and len(point) == 2
        if not (good and all(type(n) in (int, float) and math.isfinite(n) for n in point)):
            raise AnnotationError(
                f"{where}: point {str(point)[:60]}; expected [x, y], two finite numbers"
            )
    return [(float(x), float(y)) for x, y in listed]


def marked_strips(folder: Path) -> dict[str, dict[str, Path]]:
    """Video -> marker -> marked strip, in a folder with one folder a marker: MARKER/VIDEO.png.

    Raises:
        AnnotationError: No marker's folder, a file that is no picture by its name, or two strips of
            one marker for one video.
    """
    markers = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not markers:
        raise AnnotationError(f"{folder}: no folders of markers; expected MARKER/VIDEO.png")
    strips: dict[str, dict[str, Path]] = {}
    for marker in markers:
        for path in sorted(marker.iterdir()):
            if path.name.startswith("."):
                continue
            if path.suffix.lower() not in STRIP_SUFFIXES or not path.is_file():
                raise AnnotationError(
                    f"{path}: not a marked strip; expected VIDEO with {', '.join(STRIP_SUFFIXES)}"
                )
            of_video = strips.setdefault(path.stem, {})
            if marker.name in of_video:
                raise AnnotationError(
                    f"{path}: {of_video[marker.name].name} is a strip of the same video; keep one"
                )
            of_video[marker.name] = path
    return strips
