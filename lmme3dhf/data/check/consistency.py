"""Lists, labels and splits against each other."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from lmme3dhf.annotations.levels import EDGES, LevelScale
from lmme3dhf.data.check.kinds import PARTS, SEED
from lmme3dhf.data.check.reading import Found, Rows, fitted_scales, part_of
from lmme3dhf.data.check.report import Report
from lmme3dhf.data.conflicts import conflicts
from lmme3dhf.data.release import video_id
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.splits import SplitFile, latent
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS

# Scores may have lost their last digits on the way into a sentence.
_TOLERANCE = 1e-6


def check_lists(report: Report, found: Found) -> None:
    """Lists against the label files, each other and the split; of score and level one finding a
    row.
    """
    told = _check_scores(report, found)
    lists = {
        path: [(where, sample) for where, sample in rows if where not in told]
        for path, rows in found.lists.items()
    }
    scores = {} if found.scores is None else found.scores.by_video
    scales = found.scales or fitted_scales(found.lists)
    told |= check_levels(lists, scores, scales, report)
    _check_texts(told, report, found)
    _check_categories(report, found)
    if found.split is None:
        _check_overlap(report, found)
    else:
        _check_parts(found.split, report, found)


def _check_scores(report: Report, found: Found) -> set[str]:
    """Rows against `MOS.json`; gives the places of those that were told."""
    told: set[str] = set()
    if found.scores is None:
        return told
    bad = {video_id(entry) for entry, _ in found.scores.faults}
    for where, sample in found.rows():
        if sample.task not in DIMENSIONS or sample.video in bad:
            continue
        score = found.scores.by_video.get(sample.video, {}).get(sample.task)
        if score is None:
            report.add_error("score", where, f"{sample.video} is not in MOS.json; add it")
        elif sample.mos is not None and abs(sample.mos - score) > _TOLERANCE:
            report.add_error(
                "score",
                where,
                f"{sample.video} has the {sample.task} score {sample.mos:g}, and {score:g} in "
                "MOS.json",
            )
        else:
            continue
        told.add(where)
    return told


def check_levels(
    lists: Mapping[Path, Rows],
    scores: Mapping[str, Mapping[str, float]],
    scales: Mapping[str, LevelScale],
    report: Report,
) -> set[str]:
    """Level words against scores.

    Args:
        lists: List -> its rows.
        scores: Video -> dimension -> score, for rows without one. A text list beside a numerical
            one is compared with that instead, elsewhere.
        scales: Dimension -> scale. Without one the words must at least rise with the scores: the
            fewest rows are told without which they do.
        report: Takes the findings.

    Returns:
        The places of the rows that were told.
    """
    told = set()
    for path, rows in lists.items():
        unscaled = defaultdict(list)
        for where, sample in rows:
            score = sample.mos
            if score is None and _numerical(path) not in lists:
                score = scores.get(sample.video, {}).get(sample.task)
            if score is None or sample.level is None:
                continue
            scale = scales.get(sample.task)
            if scale is None:
                unscaled[sample.task].append((score, LEVELS.index(sample.level), where, sample))
            elif sample.level not in {scale.level(score + d) for d in (-_TOLERANCE, 0, _TOLERANCE)}:
                told.add(where)
                report.add_error(
                    "level",
                    where,
                    f"{sample.video} is called {sample.level}, but its {sample.task} score "
                    f"{score:g} is {scale.level(score)}",
                )
        for graded in unscaled.values():
            for _, _, where, sample in _out_of_order(graded):
                told.add(where)
                report.add_error(
                    "level",
                    where,
                    f"{sample.video} is called {sample.level}, but its {sample.task} score lies "
                    "among those of another level",
                )
    return told


Graded = list[tuple[float, int, str, Sample]]


def _out_of_order(graded: Graded) -> Graded:
    """The fewest items without which levels never fall where scores rise: all but a longest
    non-decreasing subsequence.
    """
    graded = sorted(graded, key=lambda item: item[:2])
    lowest_ends: list[int] = []  # [n]: the lowest last level of a subsequence of n + 1 items
    ends: list[int] = []  # [n]: the item that it ends with
    before: list[int | None] = []
    for index, (_, level, _, _) in enumerate(graded):
        length = bisect_right(lowest_ends, level)
        before.append(ends[length - 1] if length else None)
        lowest_ends[length : length + 1] = [level]
        ends[length : length + 1] = [index]
    kept, last = set(), ends[-1] if ends else None
    while last is not None:
        kept.add(last)
        last = before[last]
    return [item for index, item in enumerate(graded) if index not in kept]


def _numerical(path: Path) -> Path | None:
    """The numerical list of the same name beside a text list."""
    beside = path.parent.parent / "numerical" / path.name
    return beside if path.parent.name == "text" else None


def _check_texts(told: set[str], report: Report, found: Found) -> None:
    """Text lists against the numerical ones of the same name."""
    for path, rows in found.lists.items():
        twin = _numerical(path)
        if twin not in found.lists:
            continue
        levels = {
            (sample.video, sample.task): (where, sample.level)
            for where, sample in found.lists[twin]
        }
        for where, sample in rows:
            other, level = levels.get((sample.video, sample.task), ("", None))
            if level not in (None, sample.level) and not told & {where, other}:
                says = f"{sample.video} is called {sample.level}, and {level} in {other}"
                report.add_error("level", where, says)
        if found.split is None:
            _tell_missing(path, {sample.video for _, sample in found.lists[twin]}, report, found)
            _tell_missing(twin, {sample.video for _, sample in rows}, report, found)


def _tell_missing(path: Path, videos: set[str], report: Report, found: Found) -> None:
    """Videos that a list lacks, unless its bad rows may be theirs."""
    missing = videos - {sample.video for _, sample in found.lists[path]}
    if len(missing) > found.bad_rows[path]:
        for video in sorted(missing):
            report.add_error("missing row", path, f"no row for {video}; add it")


def _check_categories(report: Report, found: Found) -> None:
    """Distortion lists against `distortion_label.json`."""
    if found.categories is None:
        return
    bad = {video_id(entry) for entry, _ in found.categories.faults}
    for where, sample in found.rows():
        if sample.distortions is None or sample.video in bad:
            continue
        categories = found.categories.by_video.get(sample.video)
        if categories != sample.distortions:
            other = "nothing" if categories is None else ", ".join(categories)
            report.add_error(
                "category",
                where,
                f"{sample.video} has {', '.join(sample.distortions)}, and {other} in "
                "distortion_label.json",
            )


def _check_parts(split: SplitFile, report: Report, found: Found) -> None:
    """Lists against the split."""
    part_of_video = {video: part for part, videos in split.parts.items() for video in videos}
    for path, rows in found.lists.items():
        part = part_of(path)
        if part not in split.parts:
            named = ", ".join(split.parts)
            report.add_odd("split", path, f"splits.json has no part {part!r}, but {named}")
            continue
        for where, sample in rows:
            other = part_of_video.get(sample.video)
            if other != part:
                has = "does not have it" if other is None else f"has it in {other!r}"
                report.add_error("split", where, f"{sample.video}: splits.json {has}")
        expected = set(split.parts[part])
        if rows and rows[0][1].task == "distortion":
            # Videos whose remarks fit no category have no answer.
            expected &= set() if found.categories is None else set(found.categories.by_video)
        _tell_missing(path, expected, report, found)


def _check_overlap(report: Report, found: Found) -> None:
    """The lists' parts against each other."""
    parts: dict[str, dict[str, str]] = {part: {} for part in PARTS}
    for path, rows in found.lists.items():
        for where, sample in rows:
            if part_of(path) in parts:
                parts[part_of(path)].setdefault(sample.video, where)
    for index, part in enumerate(PARTS):
        for other in PARTS[:index]:
            for video, where in parts[part].items():
                if video in parts[other]:
                    says = f"{video} is in the {other} lists too; keep it in one part"
                    report.add_error("split", where, says)
    shared = _shared_latents({part: videos for part, videos in parts.items() if videos})
    if shared:
        report.add_odd("shared face", report.root, f"{shared}; the released split is like that")


def _shared_latents(parts: Mapping[str, Iterable[str]]) -> str | None:
    """How many latents are in several parts, as a clause; None where none is."""
    counts = Counter(
        number
        for videos in parts.values()
        for number in {latent(video) for video in videos if SEED.fullmatch(video)}
    )
    shared = sorted(number for number, count in counts.items() if count > 1)
    if not shared:
        return None
    return (
        f"{len(shared)} of {len(counts)} faces (latents) are in more than one of "
        f"{', '.join(parts)}, first {', '.join(map(str, shared[:3]))}"
    )


def check_split_file(path: Path, split: SplitFile, report: Report) -> None:
    """A split against itself and what it says of itself."""
    seen: dict[str, str] = {}
    for part, videos in split.parts.items():
        if not videos:
            report.add_error("split", path, f"part {part!r} is empty")
        for video in videos:
            if video in seen:
                says = f"{video} is in {seen[video]!r} and again in {part!r}; keep it in one"
                report.add_error("split", path, says)
            seen.setdefault(video, part)
    shared = _shared_latents(split.parts)
    if shared and split.latents_shared is False:
        report.add_error("shared face", path, f"{shared}, but by the file none is")
    elif shared and split.latents_shared is None:
        report.add_odd("shared face", path, f"{shared}; the file does not say that they may be")


def check_labels(report: Report, found: Found) -> None:
    """Label files against those who are listed and rated, and the level edges against scores."""
    listed = {sample.video for _, sample in found.rows()}
    for name, labels in (("MOS.json", found.scores), ("distortion_label.json", found.categories)):
        if labels is not None and listed and not found.bad_rows:
            for video in labels.by_video:
                if video not in listed:
                    place = f"{report.root / name}: {video}"
                    report.add_odd("unused label", place, "its video is in no list")
    if found.scores is not None and found.rated is not None:
        for video in sorted(set(found.scores.by_video) - found.rated):
            place = f"{report.root / 'MOS.json'}: {video}"
            report.add_odd("unrated", place, "has no rating in raw/ratings.csv")
    _check_conflicts(report, found)
    fits = [fitted_scales(found.lists, edges) for edges in EDGES]
    for dimension, scale in found.scales.items():
        fitted = [fit[dimension].edges for fit in fits if dimension in fit]
        if fitted and not any(np.allclose(edges, scale.edges) for edges in fitted):
            place = f"{report.root / 'levels.json'}: {dimension}"
            says = f"the edges do not follow from the {dimension} scores of the training list"
            report.add_odd("level edges", place, says)


def _check_conflicts(report: Report, found: Found) -> None:
    """Categories, marks and level words of a video against each other."""
    levels: dict[str, dict[str, str]] = defaultdict(dict)
    for _, sample in found.rows():
        if sample.level is not None:
            levels[sample.task][sample.video] = sample.level
    dots = found.fixations and {v: len(known.points) for v, known in found.fixations.items()}
    categories = None if found.categories is None else found.categories.by_video
    for what, videos in conflicts(categories, dots, levels).items():
        for video in videos:
            report.add_odd("conflict", video, what)
