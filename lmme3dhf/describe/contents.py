"""What the folder of a data set holds, read into records; what is not there stays empty."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmme3dhf.annotations.descriptions import RemarkLabels, label_remarks, read_remarks
from lmme3dhf.annotations.fixations import Fixations, read_fixations, read_saliency
from lmme3dhf.annotations.levels import read_levels
from lmme3dhf.annotations.ratings import Ratings, read_ratings
from lmme3dhf.aspects import Aspects, Scale, aspects_of
from lmme3dhf.data.gen3dhf import UNNAMED_LEVEL, read_list, scan_list
from lmme3dhf.data.marks import MAP_FOLDER, STRIP_FOLDER, read_picture, strip_path
from lmme3dhf.data.release import read_distortion_labels, read_mos
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import read_split
from lmme3dhf.data.statistics import StripMarks, exemplars, measure_marks
from lmme3dhf.progress import with_progress

RATINGS, REMARKS = "raw/ratings.csv", "raw/remarks.csv"


@dataclass(kw_only=True)
class Lists:
    """The lists of one kind, `text/` or `numerical/`.

    Attributes:
        videos: (part, aspect) -> videos in the order of the list.
        mos: Aspect -> video -> score; empty for `text/`.
        words: Aspect -> video -> level word as it stands, "None" included; without aspects that
            have no levels.
    """

    videos: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    mos: dict[str, dict[str, float]] = field(default_factory=dict)
    words: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Contents:
    """What a folder holds.

    Attributes:
        root: The folder.
        aspects: What is rated.
        sources: What -> the file or folder that it was read from.
        lists: "text" and "numerical" -> lists, where there are any.
        parts: Part -> videos; empty where they are not known.
        mos: Aspect -> video -> score.
        scales: Level edges that the folder states.
        categories: Video -> categories.
        fixations: Video -> dots.
        maps: Videos that have a map.
        strips: Video -> strip.
        ratings: Aspect -> raw ratings.
        remarks: The raw remarks, read by the built-in rules; None where there are none.
    """

    root: Path
    aspects: Aspects
    sources: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Lists] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    mos: dict[str, dict[str, float]] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fixations: dict[str, Fixations] = field(default_factory=dict)
    maps: set[str] = field(default_factory=set)
    strips: dict[str, Path] = field(default_factory=dict)
    ratings: dict[str, Ratings] = field(default_factory=dict)
    remarks: RemarkLabels | None = None

    @property
    def rated(self) -> set[str]:
        """Videos with raw ratings."""
        return {video for ratings in self.ratings.values() for video in ratings.videos}

    @property
    def remarked(self) -> set[str]:
        """Videos with raw remarks."""
        return {reading.video for reading in self.remarks.readings} if self.remarks else set()

    @property
    def videos(self) -> list[str]:
        """Every video that something is known of, sorted."""
        listed = (*self.parts.values(), *self.mos.values())
        listed += tuple(videos for kind in self.lists.values() for videos in kind.videos.values())
        known = (self.categories, self.fixations, self.maps, self.strips, self.rated, self.remarked)
        return sorted({video for videos in (*listed, *known) for video in videos})

    def comparable(self) -> tuple[Scale, dict[str, dict[str, float]]]:
        """A scale and aspect -> video -> score on it: the aspects' own scale where it is the same
        for all, else percent of it.
        """
        scales = {name: aspect.scale for name, aspect in self.aspects.items()}
        ends = {(scale.minimum, scale.maximum) for scale in scales.values()}
        if len(ends) == 1:
            return next(iter(scales.values())), self.mos
        percent = Scale(levels=())
        return percent, {
            name: {v: percent.from_unit(scales[name].to_unit(s)) for v, s in scores.items()}
            for name, scores in self.mos.items()
        }

    def words(self, aspect: str) -> dict[str, str]:
        """Video -> level word as the lists have it, those of `text/` first."""
        given = (kind.words.get(aspect) for kind in self.lists.values())
        return next((words for words in given if words), {})


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A strip to show.

    Attributes:
        video, place: Which video, and where it stands among the others.
        picture_HW3: The strip, RGB in uint8.
        points: Its dots (x, y) in pixels; None where they are not known.
        map_HW: Its map, 0..1; None where it has none.
    """

    video: str
    place: str
    picture_HW3: np.ndarray
    points: tuple[tuple[float, float], ...] | None
    map_HW: np.ndarray | None


def read_contents(root: Path, aspects: Aspects | None = None) -> Contents:
    """Reads everything but pictures and maps, of which it notes the names.

    Args:
        root: The folder.
        aspects: What is rated; None for what the data set declares, else Gen3DHF's two.

    Raises:
        DataError: No such folder, or a file that cannot be used.
        AnnotationError: Raw annotations that cannot be used.
        AspectError: The data set's `aspects.yaml` cannot be used.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of a data set")
    aspects = aspects_of(root, aspects)
    lists = {kind: _read_lists(root / kind, aspects) for kind in ("text", "numerical")}
    lists = {kind: one for kind, one in lists.items() if one.videos}
    found = Contents(root=root, aspects=aspects, lists=lists)
    _read_scores(found)
    _read_parts(found)
    if (root / "levels.json").exists():
        found.scales = read_levels(root / "levels.json", aspects)
    _read_categories(found)
    if (root / "fixations.json").exists():
        found.fixations = read_fixations(root / "fixations.json")
        found.sources["dots"] = "fixations.json"
    found.maps = set(_stems(root / MAP_FOLDER, (".png", ".npz")))
    if found.maps:
        found.sources["maps"] = f"{MAP_FOLDER}/"
    for video in _stems(root / STRIP_FOLDER):
        path = strip_path(root / STRIP_FOLDER, video)
        if path is not None:
            found.strips[video] = path
            found.sources["strips"] = f"{STRIP_FOLDER}/"
    if (root / RATINGS).exists():
        found.ratings = read_ratings(root / RATINGS, aspects)
        found.sources["ratings"] = RATINGS
    if (root / REMARKS).exists():
        found.remarks = label_remarks(read_remarks(root / REMARKS))
        found.sources["remarks"] = REMARKS
    return found


def _stems(folder: Path, suffixes: Iterable[str] | None = None) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(
        {
            path.stem
            for path in folder.iterdir()
            if not path.name.startswith(".") and (suffixes is None or path.suffix in suffixes)
        }
    )


def _read_lists(folder: Path, aspects: Aspects) -> Lists:
    lists = Lists()
    for name, aspect in aspects.items():
        scores: dict[str, float] = {}
        words: dict[str, str] = {}
        seen: set[str] = set()
        for path in sorted(folder.glob(f"*_{name}.json")):
            part, _, of_aspect = path.stem.partition("_")
            if of_aspect != name:
                continue
            videos = lists.videos[part, name] = []
            for where, row, sample in scan_list(path, aspects=aspects):
                if isinstance(sample, DataError):
                    raise sample
                if sample.task != name:
                    raise DataError(f"{where} is about {sample.task}; the file's name says {name}")
                if sample.video in seen:
                    raise DataError(
                        f"{where}: {sample.video} has a row already, here or in another part; "
                        "keep one"
                    )
                seen.add(sample.video)
                videos.append(sample.video)
                if aspect.scale.levels:
                    # The reader makes the lowest level of it.
                    unnamed = f" is {UNNAMED_LEVEL}." in row["messages"][1]["content"]
                    words[sample.video] = UNNAMED_LEVEL if unnamed else str(sample.level)
                if sample.mos is not None:
                    scores[sample.video] = sample.mos
        if words:
            lists.words[name] = words
        if scores:
            lists.mos[name] = scores
    return lists


def _read_scores(found: Contents) -> None:
    path = found.root / "MOS.json"
    if path.exists():
        by_video = read_mos(path, found.aspects, set(found.videos))
        found.mos = {d: {video: one[d] for video, one in by_video.items()} for d in found.aspects}
        found.sources["scores"] = path.name
    elif "numerical" in found.lists and found.lists["numerical"].mos:
        found.mos = found.lists["numerical"].mos
        found.sources["scores"] = "numerical/"


def _read_parts(found: Contents) -> None:
    path = found.root / "splits.json"
    parts: dict[str, list[str]] = {}
    if path.exists():
        parts = read_split(path)
        found.sources["parts"] = path.name
    elif found.lists:
        for lists in found.lists.values():
            for (part, _), videos in lists.videos.items():
                parts[part] = list(dict.fromkeys([*parts.get(part, ()), *videos]))
        found.sources["parts"] = ", ".join(f"{kind}/" for kind in found.lists)
    usual = [part for part in ("train", "val", "eval") if part in parts]
    found.parts = {part: parts[part] for part in dict.fromkeys([*usual, *parts])}


def _read_categories(found: Contents) -> None:
    path = found.root / "distortion_label.json"
    if path.exists():
        found.categories = read_distortion_labels(path, set(found.videos))
        found.sources["categories"] = path.name
        return
    for path in sorted((found.root / "distortion").glob("*.json")):
        for sample in read_list(path, aspects=found.aspects, allow_outside=True):
            if sample.distortions is None:
                raise DataError(
                    f"{path}: {sample.video} is asked for its {sample.task}, not for distortions; "
                    "take the row out"
                )
            if sample.video in found.categories:
                raise DataError(
                    f"{path}: {sample.video} has a row already, here or in another part; keep one"
                )
            found.categories[sample.video] = sample.distortions
        found.sources["categories"] = "distortion/"


def measure(contents: Contents) -> dict[str, StripMarks]:
    """Video -> its dots and marked regions, for every video that has dots or a map.

    Raises:
        DataError: Dots of another strip than the map's.
        AnnotationError: A map that cannot be read.
    """
    marks = {}
    videos = sorted(contents.maps.union(contents.fixations))
    for video in with_progress(videos, "maps", len(videos)):
        known, map_HW = contents.fixations.get(video), _map(contents, video)
        if known is not None and map_HW is not None:
            _require_inside(contents, video, "map", map_HW)
        marks[video] = measure_marks(map_HW, None if known is None else known.points)
    return marks


def _map(contents: Contents, video: str) -> np.ndarray | None:
    folder = contents.root / MAP_FOLDER
    return read_saliency(folder, video) if video in contents.maps else None


def _require_inside(contents: Contents, video: str, what: str, picture: np.ndarray) -> None:
    """Raises DataError where a video's dots were not marked on a picture of this size."""
    known, (height, width) = contents.fixations[video], picture.shape[:2]
    where = f"{contents.root / 'fixations.json'}: {video}"
    if known.size not in (None, (width, height)):
        raise DataError(
            f"{where} was marked on a strip of {known.size[0]} x {known.size[1]}, its {what} is "
            f"{width} x {height}; make the labels again"
        )
    for x, y in known.points:
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise DataError(
                f"{where}: dot ({x:g}, {y:g}) lies outside the {what} of {width} x {height}; dots "
                f"and {what} must be of one strip"
            )


def chosen_strips(contents: Contents) -> list[Strip]:
    """The strips to show: those at the quartiles of the scores, among those with marks where there
    are any.

    Raises:
        DataError: A strip that is not of the size of its map or its dots.
        AnnotationError: A strip or a map that cannot be read.
    """
    marked = contents.maps.union(contents.fixations)
    videos = [video for video in contents.strips if video in marked] or list(contents.strips)
    strips = []
    _, shown = contents.comparable()
    signs = {n: 1 if a.scale.higher_is_better else -1 for n, a in contents.aspects.items()}
    good = {n: {v: signs[n] * s for v, s in scores.items()} for n, scores in shown.items()}
    for place, video in exemplars(videos, good) if videos else ():
        path = contents.strips[video]
        picture_HW3 = read_picture(path)
        map_HW = _map(contents, video)
        if map_HW is not None and map_HW.shape != picture_HW3.shape[:2]:
            raise DataError(
                f"{contents.root / MAP_FOLDER}: the map of {video} is {map_HW.shape}, its strip "
                f"{picture_HW3.shape[:2]} (height, width); make the map again"
            )
        known = contents.fixations.get(video)
        if known is not None:
            _require_inside(contents, video, "strip", picture_HW3)
        strips.append(
            Strip(
                video=video,
                place=place,
                picture_HW3=picture_HW3,
                points=None if known is None else known.points,
                map_HW=map_HW,
            )
        )
    return strips
