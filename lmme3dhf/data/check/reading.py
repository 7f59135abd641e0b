"""Reads the files of a data set one by one, for a check: what is good in them is kept, what is
wrong is reported.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmme3dhf.annotations import AnnotationError, other_scale
from lmme3dhf.annotations.descriptions import read_remarks
from lmme3dhf.annotations.fixations import Fixations, read_fixations, read_points
from lmme3dhf.annotations.levels import fit_level_scale, read_levels
from lmme3dhf.annotations.ratings import read_ratings
from lmme3dhf.aspects import Aspects, Scale
from lmme3dhf.data.check.kinds import (
    CATEGORIES,
    CLIP,
    FIXATIONS,
    LIST,
    MAP,
    POINTS,
    RATINGS,
    REMARKS,
    SCALES,
    SCORES,
    SPLIT,
    STRIP,
    TABLE,
    kind_of,
)
from lmme3dhf.data.check.report import Report
from lmme3dhf.data.container import missing
from lmme3dhf.data.gen3dhf import UNNAMED_LEVEL, is_absolute, require_inside, scan_list
from lmme3dhf.data.readers.table import read_table
from lmme3dhf.data.release import Labels, read_json, scan_distortion_labels, scan_mos
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import SplitFile, read_split_file
from lmme3dhf.errors import UserError

_MEDIA = (MAP, STRIP, CLIP)


@dataclass(kw_only=True)
class Found:
    """What the files hold, as far as it could be read; None for a file that is not there.

    Attributes:
        aspects: What is rated.
        lists: List -> samples of its good rows.
        bad_rows: List -> number of its other rows.
        scores: Video -> aspect -> score, and what was wrong.
        categories: Video -> categories, and what was wrong.
        scales: Aspect -> scale of `levels.json`.
        split: The content of `splits.json`.
        fixations: Video -> its fixations.
        rated: Videos with ratings.
        clips: Clip -> the place that names it first.
        not_sought: Clips behind absolute paths of another machine.
    """

    aspects: Aspects
    lists: dict[Path, list[Sample]] = field(default_factory=dict)
    bad_rows: Counter = field(default_factory=Counter)
    scores: Labels | None = None
    categories: Labels | None = None
    scales: Mapping[str, Scale] = field(default_factory=dict)
    split: SplitFile | None = None
    fixations: Mapping[str, Fixations] | None = None
    rated: set[str] | None = None
    clips: dict[Path, str] = field(default_factory=dict)
    not_sought: set[Path] = field(default_factory=set)

    def rows(self) -> Iterator[Sample]:
        """The samples of the good rows of all lists."""
        for samples in self.lists.values():
            yield from samples

    @property
    def listed(self) -> set[str]:
        """The videos of the good rows."""
        return {sample.video for sample in self.rows()}


def read_file(
    path: Path,
    expected: str | None,
    video_root: Path | None,
    report: Report,
    found: Found,
    *,
    allow_outside: bool = False,
) -> str | None:
    """Reads a file into `found` and reports what is wrong in it.

    Args:
        path: The file.
        expected: The kind that its name promises, or None.
        video_root: Folder of the clips, or None.
        report: Takes the findings.
        found: Takes the content. Media are left to be opened later.
        allow_outside: As in `check`.

    Returns:
        Its kind; None where it is not known or not the expected one.
    """
    if not path.exists():
        report.add_error("file", path, f"{missing(path)}; mend the link, or remove it")
        return expected
    try:
        # The reader of what is expected says what it misses.
        kind = kind_of(path, found.aspects) or expected
        if expected not in (None, kind):
            report.add_error("file", path, f"holds {kind}, expected {expected}; is it misnamed?")
            return None
        if kind is None:
            return None
        if kind == LIST:
            _read_list(path, video_root, report, found, allow_outside)
        elif kind == TABLE:
            _read_table(path, video_root, report, found, allow_outside)
        elif kind not in _MEDIA:
            _READERS[kind](path, report, found)
    except UserError as error:
        report.add_message("file", path, str(error))
        return expected
    if kind not in _MEDIA:
        report.looked_at[_PLURALS[kind]] += 1
    return kind


def _read_list(
    path: Path, video_root: Path | None, report: Report, found: Found, allow_outside: bool
) -> None:
    samples: list[Sample] = []
    first: dict[tuple[str, str], Sample] = {}
    absolute: list[str] = []
    as_text = 0
    for where, row, sample in scan_list(path, video_root, found.aspects):
        report.looked_at["rows"] += 1
        is_elsewhere = False  # a clip of another machine, which cannot be opened here
        if isinstance(sample, Sample):
            entry = row["videos"] if isinstance(row["videos"], str) else row["videos"][0]
            is_elsewhere = (
                video_root is None and is_absolute(entry) and not sample.path.parent.is_dir()
            )
            if not (is_elsewhere or allow_outside):
                try:
                    require_inside(sample, path, video_root)
                except DataError as error:
                    sample = error
        if isinstance(sample, DataError):
            report.add_message("row", where, str(sample))
            found.bad_rows[path] += 1
            continue
        before = first.setdefault((sample.video, sample.task), sample)
        if before is not sample:
            same = "the same" if before == sample else "another"
            place = before.where.removeprefix(str(path)).lstrip(": ")
            report.add_error(
                "duplicate",
                sample.where,
                f"{sample.video} has {same} answer on {sample.task} in {place} already; keep one",
            )
            found.bad_rows[path] += 1
            continue
        samples.append(sample)
        if f" is {UNNAMED_LEVEL}." in row["messages"][1]["content"]:
            sentence = f"{sample.video} has level 'None', which is read as {sample.level}"
            report.add_odd("level None", sample.where, sentence)
        as_text += isinstance(row["videos"], str)
        if is_absolute(entry):
            absolute.append(entry)
        if is_elsewhere:
            found.not_sought.add(sample.path)
            continue
        found.clips.setdefault(sample.path, sample.where)
    read = len(samples) + found.bad_rows[path]
    if as_text:
        report.add_odd(
            "videos as text",
            path,
            f"{as_text} of {read} rows hold videos as a string, where chat formats have a list of "
            "paths; read as a list of one",
        )
    if absolute:
        report.add_odd(
            "absolute path",
            path,
            f"{len(absolute)} of {read} rows hold absolute paths, "
            f"first {absolute[0]!r}; given a video root, only the file name counts",
        )
    for name, aspect in found.aspects.items():
        scores = [s.mos for s in samples if s.task == name and s.mos is not None]
        if other := other_scale(scores, aspect.scale):
            report.add_odd("scale", path, f"the {name} scores {other}")
    found.lists[path] = samples


def _read_table(
    path: Path, video_root: Path | None, report: Report, found: Found, allow_outside: bool
) -> None:
    options = {"aspects": found.aspects, "labels": "require", "allow_outside": allow_outside}
    samples = found.lists[path] = []
    for sample in read_table(path, root=video_root, **options):
        report.looked_at["rows"] += 1
        if isinstance(sample, DataError):
            report.add_message("row", path, str(sample))
            continue
        samples.append(sample)
        found.clips.setdefault(sample.path, sample.where)


def _read_scores(path: Path, report: Report, found: Found) -> None:
    found.scores = scan_mos(path, found.aspects, found.listed)
    for entry, sentence in found.scores.faults:
        report.add_error("score", f"{path}: {entry}", sentence)


def _read_categories(path: Path, report: Report, found: Found) -> None:
    found.categories = scan_distortion_labels(path, found.listed)
    for entry, sentence in found.categories.faults:
        report.add_error("category", f"{path}: {entry}", sentence)


def _read_scales(path: Path, report: Report, found: Found) -> None:
    _refuse_double_keys(path)
    found.scales = read_levels(path, found.aspects)


def _read_split(path: Path, report: Report, found: Found) -> None:
    found.split = read_split_file(path)


def _read_fixations(path: Path, report: Report, found: Found) -> None:
    _refuse_double_keys(path)
    found.fixations = read_fixations(path)


def _read_ratings(path: Path, report: Report, found: Found) -> None:
    ratings = read_ratings(path, found.aspects)
    found.rated = {video for table in ratings.values() for video in table.videos}


def _read_remarks(path: Path, report: Report, found: Found) -> None:
    read_remarks(path)


def _read_points(path: Path, report: Report, found: Found) -> None:
    if path.suffix.lower() != ".csv":
        _refuse_double_keys(path)
    read_points(path)


def _refuse_double_keys(path: Path) -> None:
    _, twice = read_json(path)
    if twice:
        raise DataError(f"{path}: the key {twice[0]!r} is there more than once; keep one")


_READERS = {
    SCORES: _read_scores,
    CATEGORIES: _read_categories,
    SCALES: _read_scales,
    SPLIT: _read_split,
    FIXATIONS: _read_fixations,
    RATINGS: _read_ratings,
    REMARKS: _read_remarks,
    POINTS: _read_points,
}
_PLURALS = {
    LIST: "lists",
    TABLE: "tables of clips",
    **{kind: f"files of {kind}" for kind in _READERS},
    SPLIT: "splits",
}


def scales_beside(path: Path, aspects: Aspects) -> Mapping[str, Scale]:
    """The scales for a list that is checked alone: those of the data set's `levels.json`, or fitted
    on the training lists in the same folder. Faults of those files are theirs.
    """
    try:
        return read_levels(path.parent.parent / "levels.json", aspects)
    except (UserError, FileNotFoundError):
        pass
    beside = Found(aspects=aspects)
    for train in (path.parent / f"train_{name}.json" for name in aspects):
        try:
            scanned = [sample for _, _, sample in scan_list(train, aspects=aspects)]
        except (UserError, FileNotFoundError):
            continue
        beside.lists[train] = [sample for sample in scanned if isinstance(sample, Sample)]
    return fitted_scales(beside)


def fitted_scales(found: Found, edges: str = "equal_width") -> dict[str, Scale]:
    """The scales fitted on the scores in the training lists; none where the scores are too few or
    all alike.
    """
    scores = defaultdict(list)
    for path, samples in found.lists.items():
        for sample in samples:
            if part_of(path) == "train" and sample.mos is not None:
                scores[sample.task].append(sample.mos)
    scales = {}
    for name, given in scores.items():
        try:
            scales[name] = fit_level_scale(np.array(given), found.aspects[name], edges)
        except AnnotationError:
            continue
    return scales


def part_of(path: Path) -> str:
    """The part of a list by its name: "train" of text/train_quality.json."""
    return path.stem.split("_")[0]
