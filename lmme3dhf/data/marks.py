"""Strips and marks of a data set: strips cut from the clips, and maps and fixations made from what
annotators marked on them (paper, Sections 3.2 and 3.3).
"""

import contextlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from lmme3dhf.annotations import AnnotationError, require_known
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
from lmme3dhf.annotations.marked import COLOURS, SHAPES, Marking, read_marking
from lmme3dhf.data.container import VideoError, read_strip
from lmme3dhf.data.strips import image_rgb
from lmme3dhf.distributed import cores
from lmme3dhf.files import replace_file
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
        markers: Everybody who looked at some video.
        pictures: Video -> marker -> marked strip; one without a mark says "nothing marked", none
            at all says that this marker has not looked.
        points: Video -> marker -> points, (x, y) in pixels of the strip; in the same way empty or
            absent.
        colour: Colour of the marks on the strips.
        shape: Shape of the marks on the strips.
    """

    source: Path
    markers: tuple[str, ...]
    pictures: Mapping[str, Mapping[str, Path]]
    points: Mapping[str, Mapping[str, Points]]
    colour: str = "red"
    shape: str = "dot"

    @property
    def videos(self) -> set[str]:
        """The videos that somebody looked at."""
        return set(self.pictures) | set(self.points)

    def of(self, video: str) -> "Marks":
        """The marks on one video alone."""
        return replace(
            self,
            pictures={video: self.pictures.get(video, {})},
            points={video: self.points.get(video, {})},
        )

    def on(self, video: str, plain_HW3: np.ndarray) -> dict[str, Marking]:
        """Marker -> what was marked on one video, given its unmarked strip.

        Raises:
            AnnotationError: A marked strip that cannot be read, or is another picture than the
                unmarked one; with its path.
        """
        found = {}
        for marker, path in self.pictures.get(video, {}).items():
            marked_HW3 = read_picture(path)
            try:
                found[marker] = read_marking(marked_HW3, plain_HW3, self.colour, self.shape)
            except AnnotationError as error:
                raise AnnotationError(f"{path}: {error}") from error
        points = self.points.get(video, {})
        return found | {marker: Marking(tuple(listed)) for marker, listed in points.items()}


def open_marks(path: Path, colour: str = "red", shape: str = "dot") -> Marks:
    """The marks in a folder of marked strips, or in a CSV or JSON file of points.

    Args:
        path: Folder or file.
        colour: Colour of the marks on strips.
        shape: Shape of the marks on strips.

    Raises:
        AnnotationError: Nothing there, or not what was expected; with the place.
    """
    require_known("mark_colour", colour, COLOURS)
    require_known("mark_shape", shape, SHAPES)
    if path.is_dir():
        pictures = marked_strips(path)
        markers = (p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        return Marks(path, tuple(sorted(markers)), pictures, {}, colour, shape)
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


def write_strips(
    folder: Path, clips: Mapping[str, Path], known: Path
) -> tuple[int, dict[str, VideoError]]:
    """Writes the strip of every clip that has none in `known`: its frames at -45, 0 and +45
    degrees side by side, at the clip's own size.

    Returns:
        How many were cut; and video -> why its clip gives none.
    """
    missing = [video for video in clips if strip_path(known, video) is None]
    failed: dict[str, VideoError] = {}
    for video in with_progress(missing, "strips", len(missing)):
        try:
            strip_HW3 = read_strip(clips[video], [view.clip_fraction for view in VIEWS])
        except VideoError as error:
            failed[video] = error
            continue
        folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(strip_HW3).save(stream, "PNG")
        # Whole or not at all: a strip that is there is not cut again.
        replace_file(folder / f"{video}.png", stream.getvalue())
    return len(missing) - len(failed), failed


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


@dataclass(frozen=True)
class MarkedVideos:
    """What the marks come to.

    Attributes:
        dots: Video -> marker -> number of marks, of the markers who looked at it; without the
            videos that nobody looked at, which have no map.
        strays: Marked strip -> what is on it that is no mark and was ignored.
        specks: Marked strips with spots that are too small or too crowded for a dot.
    """

    dots: dict[str, dict[str, int]]
    strays: dict[str, str]
    specks: list[str]


def write_maps(
    folder: Path,
    videos: Sequence[str],
    marks: Marks,
    strips: Iterable[Path],
    processes: int = 1,
    *,
    ignore_strays: bool = False,
) -> MarkedVideos:
    """Writes the saliency map (8-bit and float), the fixation map and the points of every video
    that a marker looked at; where nothing was marked, all are empty and `no_distortion` is set.

    Args:
        folder: Of the data set.
        videos: Videos to write.
        marks: Of all markers; a video's points are their union.
        strips: Folders of unmarked strips; the first that has one counts.
        processes: At most so many look for marks at a time, 0 for one a core; fewer where there are
            not `_WORTH_A_PROCESS` videos for each. The result does not depend on it.
        ignore_strays: Whether what is no mark may be on a marked strip.

    Raises:
        AnnotationError: A marked strip of another size or clip, a point outside the strip, marked
            strips with something that is no mark; with the place.
    """
    strips = list(strips)
    (folder / FIXATION_FOLDER).mkdir(parents=True)
    (folder / MAP_FOLDER).mkdir(parents=True)
    videos = [video for video in videos if video in marks.videos]
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
        found = list(with_progress(made, "maps", len(videos)))
    fixations = dict(zip(videos, (one for one, _, _ in found), strict=True))
    strays = {name: what for _, of_video, _ in found for name, what in of_video.items()}
    if strays and not ignore_strays:
        first = "; ".join(f"{name}: {what}" for name, what in list(strays.items())[:3])
        shape = "filled" if marks.shape == "dot" else "closed"
        raise AnnotationError(
            f"{marks.source}: {len(strays)} marked strips hold something that is no {shape} "
            f"{marks.colour} {marks.shape}: {first}{'; ...' if len(strays) > 3 else ''}; mark them "
            "again on the plain strip, say how the marks look (--mark_colour, --mark_shape), or "
            "take only what fits (--other_marks ignore)"
        )
    write_fixations(folder / "fixations.json", fixations)
    return MarkedVideos(
        {video: known.dots for video, known in fixations.items()},
        strays,
        [name for _, _, specks in found for name in specks],
    )


def _write_map(job: tuple[Path, str, Path, Marks]) -> tuple[Fixations, dict[str, str], list[str]]:
    """Writes one video's maps: folder of the data set, video, unmarked strip, its marks. Gives its
    fixations, and the marked strips with strays and with specks.
    """
    folder, video, strip, marks = job
    plain_HW3 = read_picture(strip)
    by_marker = marks.on(video, plain_HW3)
    points = [point for marking in by_marker.values() for point in marking.points]
    height, width = plain_HW3.shape[:2]
    fixated_HW = np.zeros((height, width), dtype=bool)
    strays, specks = {}, []
    for marker, marking in by_marker.items():
        try:
            fixated_HW |= fixation_map(marking.points, height, width)
        except AnnotationError as error:
            whose = f"{marker}'s " if marker else ""
            raise AnnotationError(
                f"{marks.source}: marks on {video}: {whose}{error}; correct or remove it"
            ) from error
        if marking.strays:
            strays[_name(marks, video, marker)] = marking.strays_named()
        if marking.specks:
            specks.append(_name(marks, video, marker))
    write_fixation_png(folder / FIXATION_FOLDER / f"{video}.png", fixated_HW)
    write_saliency(folder / MAP_FOLDER, video, saliency_map(points, height, width))
    counts = {marker: len(marking.points) for marker, marking in by_marker.items()}
    return Fixations(points=tuple(points), dots=counts, size=(width, height)), strays, specks


def _name(marks: Marks, video: str, marker: str) -> str:
    """A marked strip below the folder of the marks."""
    return marks.pictures[video][marker].relative_to(marks.source).as_posix()
