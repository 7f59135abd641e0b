"""Strips and marks of a data set: strips cut from the clips, and maps and fixations made from what
annotators marked on them (paper, Sections 3.2 and 3.3).
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.dots import red_dots
from lmme3dhf.annotations.fixations import (
    Fixations,
    fixation_map,
    marked_strips,
    read_points,
    saliency_map,
    write_fixation_png,
    write_fixations,
    write_saliency,
)
from lmme3dhf.data.container import VideoError, read_strip
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.strips import image_rgb
from lmme3dhf.distributed import cores
from lmme3dhf.progress import with_progress
from lmme3dhf.vocabulary import VIEWS

STRIP_FOLDER, MAP_FOLDER, FIXATION_FOLDER = "image", "saliency_map", "fixation_map"
_STRIP_SUFFIXES = (".png", ".jpg", ".jpeg")
_WORTH_A_PROCESS = 50  # videos; a process takes a second or two to start
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Marks:
    """What the markers left: marked strips, or points.

    Attributes:
        source: Where they are.
        markers: Everybody who looked, also those who marked nothing.
        pictures: Video -> marker -> marked strip.
        points: Video -> marker -> points, (x, y) in pixels of the strip.
    """

    source: Path
    markers: tuple[str, ...]
    pictures: Mapping[str, Mapping[str, Path]]
    points: Mapping[str, Mapping[str, Points]]

    @property
    def videos(self) -> set[str]:
        """The videos that somebody marked."""
        return set(self.pictures) | set(self.points)

    def of(self, video: str) -> "Marks":
        """The marks on one video alone."""
        return replace(
            self,
            pictures={video: self.pictures.get(video, {})},
            points={video: self.points.get(video, {})},
        )

    def on(self, video: str, plain_HW3: np.ndarray) -> dict[str, Points]:
        """Marker -> points on one video, given its unmarked strip.

        Raises:
            AnnotationError: A marked strip that cannot be read, or is another picture than the
                unmarked one; with its path.
        """
        found = {}
        for marker, path in self.pictures.get(video, {}).items():
            marked_HW3 = read_picture(path)
            try:
                found[marker] = red_dots(marked_HW3, plain_HW3)
            except AnnotationError as error:
                raise AnnotationError(f"{path}: {error}") from error
        return found | {marker: list(p) for marker, p in self.points.get(video, {}).items()}


def open_marks(path: Path) -> Marks:
    """The marks in a folder of marked strips, or in a CSV or JSON file of points.

    Raises:
        AnnotationError: Nothing there, or not what was expected; with the place.
    """
    if path.is_dir():
        pictures = marked_strips(path)
        markers = (p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        return Marks(path, tuple(sorted(markers)), pictures, {})
    points = read_points(path)
    markers = {marker for by_marker in points.values() for marker in by_marker}
    return Marks(path, tuple(sorted(markers)), {}, points)


def read_picture(path: Path) -> np.ndarray:
    """RGB picture (H, W, 3) in uint8.

    Raises:
        AnnotationError: Not a picture, or a damaged one; with its path.
    """
    try:
        with Image.open(path) as picture:
            return image_rgb(picture, str(path))[0]
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise AnnotationError(
            f"{path}: cannot be read as a picture ({error}); save it again"
        ) from error


def strip_path(folder: Path, video: str) -> Path | None:
    """A video's strip in a folder, None where it has none; a link that leads nowhere is one too."""
    paths = (folder / f"{video}{suffix}" for suffix in _STRIP_SUFFIXES)
    return next((path for path in paths if os.path.lexists(path)), None)


def write_strips(folder: Path, clips: Mapping[str, Path], known: Path) -> int:
    """Writes the strip of every clip that has none in `known`: its pictures at -45, 0 and +45
    degrees side by side, at the clip's own size.

    Returns:
        How many were cut.

    Raises:
        DataError: Clips that cannot be read, all of them named with the reason of the first.
    """
    missing = [video for video in clips if strip_path(known, video) is None]
    if not missing:
        return 0

    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, VideoError] = {}
    for video in with_progress(missing, "strips", len(missing)):
        try:
            strip_HW3 = read_strip(clips[video], [view.clip_fraction for view in VIEWS])
        except VideoError as error:
            failed[video] = error
            continue
        Image.fromarray(strip_HW3).save(folder / f"{video}.png")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(missing)} clips give no strip: {', '.join(failed)}; first "
            f"reason: {next(iter(failed.values()))}"
        )
    return len(missing)


def take_strips(folder: Path, videos: Iterable[str], source: Path) -> None:
    """Copies the strips of videos, as PNG, from the folder that somebody gave.

    Raises:
        AnnotationError: One that is no picture; with its path.
    """
    for video in videos:
        path = strip_path(source, video)
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read_picture(path)).save(folder / f"{video}.png")


def write_maps(
    folder: Path, videos: Sequence[str], marks: Marks, strips: Iterable[Path], processes: int = 1
) -> dict[str, dict[str, int]]:
    """Writes the saliency map (8-bit and float), the fixation map and the points of every video;
    where nobody marked anything, all are empty and `no_distortion` is set.

    Args:
        folder: Of the data set.
        videos: Videos to write.
        marks: Of all markers; a video's points are their union.
        strips: Folders of unmarked strips; the first that has one counts.
        processes: At most so many look for dots at a time, 0 for one a core; fewer where there are
            not `_WORTH_A_PROCESS` videos for each. The result does not depend on it.

    Returns:
        Video -> marker -> number of dots, for every marker.

    Raises:
        AnnotationError: A marked strip of another size, a point outside the strip; with the place.
    """
    strips = list(strips)
    (folder / FIXATION_FOLDER).mkdir(parents=True)
    jobs = [
        (folder, video, next(filter(None, (strip_path(s, video) for s in strips))), marks.of(video))
        for video in videos
    ]
    processes = min(processes or cores(), len(videos) // _WORTH_A_PROCESS)
    with contextlib.ExitStack() as stack:
        if processes > 1:
            # Spawned, not forked: the caller may hold threads.
            pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
            made = stack.enter_context(pool).map(_write_map, jobs, chunksize=4)
        else:
            made = map(_write_map, jobs)
        fixations = dict(zip(videos, with_progress(made, "maps", len(videos)), strict=True))
    write_fixations(folder / "fixations.json", fixations)
    return {
        video: dict.fromkeys(marks.markers, 0) | found.dots for video, found in fixations.items()
    }


def _write_map(job: tuple[Path, str, Path, Marks]) -> Fixations:
    """Writes one video's maps: folder of the data set, video, unmarked strip, its marks."""
    folder, video, strip, marks = job
    plain_HW3 = read_picture(strip)
    by_marker = marks.on(video, plain_HW3)
    points = [point for marked in by_marker.values() for point in marked]
    height, width = plain_HW3.shape[:2]
    fixated_HW = np.zeros((height, width), dtype=bool)
    for marker, marked in by_marker.items():
        try:
            fixated_HW |= fixation_map(marked, height, width)
        except AnnotationError as error:
            whose = f"{marker}'s " if marker else ""
            raise AnnotationError(
                f"{marks.source}: marks on {video}: {whose}{error}; correct or remove it"
            ) from error
    write_fixation_png(folder / FIXATION_FOLDER / f"{video}.png", fixated_HW)
    write_saliency(folder / MAP_FOLDER, video, saliency_map(points, height, width))
    counts = {marker: len(marked) for marker, marked in by_marker.items()}
    return Fixations(points=tuple(points), dots=counts, size=(width, height))
