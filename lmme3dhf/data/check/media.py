"""Clips, strips, maps and fixations: whether they are there, can be read and belong together."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.fixations import fixation_map, read_saliency, read_saliency_png
from lmme3dhf.data.check.kinds import PICTURE_ERRORS
from lmme3dhf.data.check.reading import Found
from lmme3dhf.data.check.report import Report
from lmme3dhf.data.container import missing as missing_because
from lmme3dhf.data.gen3dhf import VIDEO_FOLDER
from lmme3dhf.data.marks import MAP_FOLDER, STRIP_FOLDER
from lmme3dhf.data.sources import is_picture
from lmme3dhf.data.verify import faults
from lmme3dhf.progress import with_progress
from lmme3dhf.vocabulary import NO_DISTORTION, VIEWS

MEDIA_FOLDERS = (VIDEO_FOLDER, STRIP_FOLDER, MAP_FOLDER)
_GREY_TOLERANCE = 1 / 255  # a picture has 256 values
Size = tuple[int, int]  # width, height


def check_media(
    root: Path, video_root: Path | None, decode: str, report: Report, found: Found
) -> None:
    """The media of every video that a list, a label or the split names; of all that are there where
    none names any.
    """
    clip_folder = root / VIDEO_FOLDER if video_root is None else video_root
    for folder in (clip_folder, root / STRIP_FOLDER, root / MAP_FOLDER):
        if folder.is_symlink() and not folder.exists():
            report.add_error("missing folder", folder, f"{missing_because(folder)}; mend the link")
    clips, strips, maps = map(_by_video, (clip_folder, root / STRIP_FOLDER, root / MAP_FOLDER))
    videos = _named_videos(found)
    own = (strips, maps) if video_root is not None else (clips, strips, maps)
    for video, path in [item for files in own for item in files.items() if videos]:
        if video not in videos:
            report.add_odd("unused file", path, "its video is in no list or label")
    videos = videos or {*clips, *strips, *maps}

    if clip_folder.is_dir():
        named = {clip.stem for clip in (*found.clips, *found.not_sought)}
        for video in sorted(videos - named):
            clip = clips.get(video, clip_folder / f"{video}.mp4")
            found.clips[clip] = str(clip)
    check_clips(found.clips, decode, report)
    report_not_sought(report, found)
    for what, folder, files in (("strip", STRIP_FOLDER, strips), ("map", MAP_FOLDER, maps)):
        if (root / folder).is_dir():
            missing = videos - set(files)
            if what == "map" and found.fixations is None and (root / "fixations.json").exists():
                missing = set()  # unreadable, which has been said; nobody may have looked at them
            elif what == "map" and found.fixations is not None:
                listed = found.listed
                unmarked = sorted((missing & listed) - set(found.fixations))
                missing -= set(unmarked)
                if unmarked:
                    says = f"{len(unmarked)} videos have no map, for no marker looked at them"
                    report.add_odd("unmarked", root / folder, f"{says}: {_first(unmarked)}")
            for video in sorted(missing):
                report.add_error(f"missing {what}", root / folder, f"nothing for {video}")
            report.looked_at[f"{what}s"] += len(files)
    if decode != "none":
        for video in with_progress(sorted(videos), "checking strips and maps", len(videos)):
            size = check_strip(strips[video], decode, report) if video in strips else None
            if video in maps:
                _check_map_of(video, maps[video], size, report, found)
            if found.fixations is not None and video in found.fixations and size is not None:
                _check_points(video, size, report, found)
    for video in sorted(set(found.fixations or ()) - videos):
        place = f"{root / 'fixations.json'}: {video}"
        report.add_odd("unused label", place, "its video is in no list or label")


def _first(videos: list[str]) -> str:
    return ", ".join(videos[:3]) + (", ..." if len(videos) > 3 else "")


def _by_video(folder: Path) -> dict[str, Path]:
    """Video -> its file in a folder of media."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    there = (path for path in files if path.is_file() or not path.exists())  # or a broken link
    return {path.stem: path for path in there if not path.name.startswith(".")}


def _named_videos(found: Found) -> set[str]:
    videos = found.listed
    for labels in (found.scores, found.categories):
        videos |= set() if labels is None else set(labels.by_video)
    if found.split is not None:
        videos |= {video for part in found.split.parts.values() for video in part}
    return videos


def report_not_sought(report: Report, found: Found) -> None:
    """Clips that nobody could look for."""
    if found.not_sought:
        report.add_odd(
            "clips not looked for",
            report.root,
            f"{len(found.not_sought)} clips are named by absolute paths into folders that are not "
            "on this machine; give a video root to look for them",
        )


def check_clips(clips: Mapping[Path, str], decode: str, report: Report) -> None:
    """Clips that are missing or give no pictures.

    Args:
        clips: Clip -> the place that names it.
        decode: As in `check`.
        report: Takes the findings.
    """
    missing = [clip for clip in clips if not clip.is_file()]
    in_folder = Counter(clip.parent for clip in clips)
    for folder, count in Counter(clip.parent for clip in missing).items():
        if count > 1 and count == in_folder[folder]:
            first = next(clip for clip in missing if clip.parent == folder)
            says = f"none of {count} clips is there"
            if first.is_symlink():
                says += f", the first {missing_because(first)}; mend the links"
            elif deeper := next(folder.rglob(first.name), None):
                says += f", but {deeper.parent} has them; give it as video root"
            else:
                says += "; give the folder of the clips as video root"
            report.add_error("missing clip", folder, says)
            in_folder[folder] = 0
    for clip in missing:
        if in_folder[clip.parent]:
            report.add_error("missing clip", clips[clip], f"{clip} {missing_because(clip)}")
    there = [clip for clip in clips if clip.is_file()]
    if there:
        report.looked_at["clips"] += len(there)
    if not there or decode == "none":
        return
    if all(map(is_picture, there)):  # a set of images, not strips in the place of clips
        for clip in there:
            _picture_size("clip", clip, decode, report)
        return
    found = faults(there, whole=decode == "views", strips=False)
    for fault, clip in zip(with_progress(found, "checking clips", len(there)), there, strict=True):
        if fault is not None:
            report.add_error("clip", clips[clip], str(fault))


def check_strip(path: Path, decode: str, report: Report) -> Size | None:
    """The size of a strip that can be read."""
    size = _picture_size("strip", path, decode, report)
    if size is not None and size[0] != len(VIEWS) * size[1]:
        says = f"has {size[0]} x {size[1]} px, expected {len(VIEWS)} square views side by side"
        report.add_odd("strip", path, says)
    return size


def _picture_size(kind: str, path: Path, decode: str, report: Report) -> Size | None:
    try:
        with Image.open(path) as picture:
            if decode == "views":
                picture.load()
            return picture.size
    except PICTURE_ERRORS as error:
        report.add_error(kind, path, f"cannot be read as a picture ({error}); replace it")
        return None


def check_map(path: Path, report: Report) -> np.ndarray | None:
    """A map that can be read; its reader refuses values outside 0..1. Where it is there as numbers
    and as a picture, both must be the same.
    """
    try:
        saliency_HW = read_saliency(path.parent, path.stem)
        picture = path.with_suffix(".png")
        if picture.exists():
            grey_HW = read_saliency_png(picture)
            if (
                grey_HW.shape != saliency_HW.shape
                or np.abs(grey_HW - saliency_HW).max() > _GREY_TOLERANCE
            ):
                report.add_error("map", picture, "is another map than the npz file beside it")
        return saliency_HW
    except AnnotationError as error:
        report.add_message("map", path, str(error))
    except FileNotFoundError:
        report.add_error("map", path, "is no map that the stages read; expected PNG or npz")
    return None


def _check_map_of(
    video: str, path: Path, strip_size: Size | None, report: Report, found: Found
) -> None:
    """A map against its strip, categories and fixations."""
    saliency_HW = check_map(path, report)
    if saliency_HW is None:
        return
    height, width = saliency_HW.shape
    if strip_size not in (None, (width, height)):
        size = " x ".join(map(str, strip_size))
        report.add_error("map", path, f"has {width} x {height} px, its strip {size}")
    marked = bool(saliency_HW.any())
    # The other way round is no fault: blur is seen where nothing in particular can be marked.
    categories = None if found.categories is None else found.categories.by_video.get(video)
    if marked and categories == (NO_DISTORTION,):
        says = f"is not all zero, but {video} is labelled {NO_DISTORTION}"
        report.add_odd("map", path, says)
    known = None if found.fixations is None else found.fixations.get(video)
    if known is not None and marked != bool(known.points):
        says = f"is {'not ' if marked else ''}all zero, but fixations.json has "
        report.add_error("map", path, f"{says}{len(known.points)} points for {video}")


def _check_points(video: str, strip_size: Size, report: Report, found: Found) -> None:
    """Points that lie outside the strip, or were marked on one of another size."""
    known, (width, height) = found.fixations[video], strip_size
    place = f"{report.root / 'fixations.json'}: {video}"
    if known.size is not None and tuple(known.size) != strip_size:
        size = " x ".join(map(str, known.size))
        report.add_error(
            "fixation", place, f"marked on {size} px, its strip has {width} x {height}"
        )
        return
    try:
        fixation_map(known.points, height, width)
    except AnnotationError as error:
        report.add_error("fixation", place, str(error))
