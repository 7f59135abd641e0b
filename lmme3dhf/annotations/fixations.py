"""Saliency maps from the points that annotators mark on a strip (paper, Section 3.3 and Fig. 5).

`dots` finds them where they were painted; points in tables are read here. The union of all
annotators' points becomes a binary fixation map and, smoothed with a Gaussian of 5 px at the
strip's own size, the saliency map. Points are (x, y) in pixels of the strip, integers at pixel
centres, y downwards. Array legend: H height, W width.
"""

import io
import math
import zipfile
from collections.abc import Collection, Iterable, Mapping
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


def looked_at(
    videos: Iterable[str], maps: Path, points: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """Separates videos that have a map from those that no marker looked at, which have neither map
    nor points; no map can be compared with anything there.

    Args:
        videos: Their names.
        maps: Folder of the ground-truth maps.
        points: The videos in `fixations.json`; None where there is no such file, as in the release:
            then every video is expected to have a map.

    Returns:
        The videos to compare, and those to leave out, each in the order given.
    """
    videos = list(videos)
    if points is None:
        return videos, []
    absent = [
        video
        for video in videos
        if video not in points
        and not any((maps / f"{video}{suffix}").exists() for suffix in (".npz", ".png"))
    ]
    return [video for video in videos if video not in set(absent)], absent


def left_out_note(absent: list[str], total: int, what: str = "test videos") -> tuple[str, ...]:
    """A line on videos that `looked_at` leaves out of `total`; none where it leaves none out."""
    if not absent:
        return ()
    named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
    return (f"{len(absent)} of {total} {what} are left out, no marker looked at them: {named}",)


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

    "Nothing marked" is a row without coordinates, `anna,seed0000,,`, or an empty list in JSON. A
    marker who is not named for a video has not looked at it.

    Raises:
        AnnotationError: With file and line, or video: something else, an empty name, a coordinate
            that is no finite number.
        FileNotFoundError: No such file.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    if path.suffix.lower() == ".csv":
        nothing: dict[tuple[str, str], int] = {}
        for line, (marker, video, x, y) in csv_rows(path, POINT_COLUMNS):
            where = f"{path}:{line}"
            if not marker or not video:
                raise AnnotationError(f"{where}: marker or video is empty; name both")
            of_marker = points.setdefault(video, {}).setdefault(marker, [])
            if not x and not y:
                nothing[video, marker] = line
                continue
            try:
                point = [float(x), float(y)]
            except ValueError as error:
                raise AnnotationError(
                    f"{where}: point ({x}, {y}); expected two numbers, x and y in pixels, or two "
                    "empty cells where nothing is marked"
                ) from error
            of_marker.extend(_points([point], where))
        for (video, marker), line in nothing.items():
            if points[video][marker]:
                raise AnnotationError(
                    f"{path}:{line}: a row without coordinates says that {marker} marked nothing "
                    f"on {video}, but other rows hold points; keep one of the two"
                )
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
