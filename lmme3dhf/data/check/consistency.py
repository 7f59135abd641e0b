"""Lists, labels and splits against each other."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from lmme3dhf.annotations.levels import EDGES
from lmme3dhf.aspects import DISTORTION, Scale
from lmme3dhf.data.check.kinds import PARTS, SEED
from lmme3dhf.data.check.reading import Found, fitted_scales, part_of
from lmme3dhf.data.check.report import Report
from lmme3dhf.data.conflicts import conflicts
from lmme3dhf.data.release import video_id
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.splits import SplitFile, latent

# Scores may have lost their last digits on the way into a sentence.
_TOLERANCE = 1e-6


def check_lists(report: Report, found: Found) -> None:
    """Lists against the label files, each other and the split; of score and level one finding a
    row.
    """
    reported = _check_scores(report, found)
    reported |= check_levels(found, found.scales or fitted_scales(found), report, reported)
    _check_texts(reported, report, found)
    _check_categories(report, found)
    if found.split is None:
        _check_overlap(report, found)
    else:
        _check_parts(found.split, report, found)


def _check_scores(report: Report, found: Found) -> set[str]:
    """Rows against `MOS.json`; gives the places of those that were reported."""
    reported: set[str] = set()
    if found.scores is None:
        return reported
    bad = {video_id(entry, found.scores.known) for entry, _ in found.scores.faults}
    for sample in found.rows():
        if sample.task not in found.aspects or sample.video in bad:
            continue
        score = found.scores.by_video.get(sample.video, {}).get(sample.task)
        if score is None:
            report.add_error("score", sample.where, f"{sample.video} is not in MOS.json; add it")
        elif sample.mos is not None and abs(sample.mos - score) > _TOLERANCE:
            report.add_error(
                "score",
                sample.where,
                f"{sample.video} has the {sample.task} score {sample.mos:g}, and {score:g} in "
                "MOS.json",
            )
        else:
            continue
        reported.add(sample.where)
    return reported


def check_levels(
    found: Found, scales: Mapping[str, Scale], report: Report, reported: Collection[str] = ()
) -> set[str]:
    """Level words of the lists against scores: those of the row, else of `MOS.json`. A text list
    beside a numerical one is compared with that instead, elsewhere.

    Args:
        found: The lists.
        scales: Aspect -> scale with edges. Without one the words must at least rise with the
            scores: the fewest rows are reported without which they do.
        report: Takes the findings.
        reported: Places of rows that need no second finding.

    Returns:
        The places of the rows that are reported now.
    """
    more = set()
    scores = {} if found.scores is None else found.scores.by_video
    for path, samples in found.lists.items():
        unscaled = defaultdict(list)
        for sample in samples:
            score = sample.mos
            if score is None and _numerical(path) not in found.lists:
                score = scores.get(sample.video, {}).get(sample.task)
            if score is None or sample.level is None or sample.where in reported:
                continue
            scale = scales.get(sample.task)
            if scale is None:
                levels = found.aspects[sample.task].scale.levels
                unscaled[sample.task].append((score, levels.index(sample.level), sample))
            elif sample.level not in {scale.level(score + d) for d in (-_TOLERANCE, 0, _TOLERANCE)}:
                more.add(sample.where)
                report.add_error(
                    "level",
                    sample.where,
                    f"{sample.video} is called {sample.level}, but its {sample.task} score "
                    f"{score:g} is {scale.level(score)}",
                )
        for graded in unscaled.values():
            for _, _, sample in _out_of_order(graded):
                more.add(sample.where)
                report.add_error(
                    "level",
                    sample.where,
                    f"{sample.video} is called {sample.level}, but its {sample.task} score lies "
                    "among those of another level",
                )
    return more


Graded = list[tuple[float, int, Sample]]


def _out_of_order(graded: Graded) -> Graded:
    """The fewest items without which levels never fall where scores rise: all but a longest
    non-decreasing subsequence.
    """
    graded = sorted(graded, key=lambda item: item[:2])
    lowest_ends: list[int] = []  # [n]: the lowest last level of a subsequence of n + 1 items
    ends: list[int] = []  # [n]: the item that it ends with
    before: list[int | None] = []
    for index, (_, level, _) in enumerate(graded):
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


def _check_texts(reported: set[str], report: Report, found: Found) -> None:
    """Text lists against the numerical ones of the same name."""
    for path, samples in found.lists.items():
        twin = _numerical(path)
        if twin not in found.lists:
            continue
        twins = {(sample.video, sample.task): sample for sample in found.lists[twin]}
        for sample in samples:
            other = twins.get((sample.video, sample.task))
            if other is None or other.level == sample.level:
                continue
            if not reported & {sample.where, other.where}:
                says = f"{sample.video} is called {sample.level}, and {other.level} in "
                report.add_error("level", sample.where, says + other.where)
        if found.split is None:
            _report_missing(path, {sample.video for sample in found.lists[twin]}, report, found)
            _report_missing(twin, {sample.video for sample in samples}, report, found)


def _report_missing(path: Path, videos: set[str], report: Report, found: Found) -> None:
    """Videos that a list lacks, unless its bad rows may be theirs."""
    missing = videos - {sample.video for sample in found.lists[path]}
    if len(missing) > found.bad_rows[path]:
        for video in sorted(missing):
            report.add_error("missing row", path, f"no row for {video}; add it")


def _check_categories(report: Report, found: Found) -> None:
    """Distortion lists against `distortion_label.json`."""
    if found.categories is None:
        return
    bad = {video_id(entry, found.categories.known) for entry, _ in found.categories.faults}
    for sample in found.rows():
        if sample.distortions is None or sample.video in bad:
            continue
        categories = found.categories.by_video.get(sample.video)
        if categories != sample.distortions:
            other = "nothing" if categories is None else ", ".join(categories)
            report.add_error(
                "category",
                sample.where,
                f"{sample.video} has {', '.join(sample.distortions)}, and {other} in "
                "distortion_label.json",
            )


def _check_parts(split: SplitFile, report: Report, found: Found) -> None:
    """Lists against the split."""
    part_of_video = {video: part for part, videos in split.parts.items() for video in videos}
    for path, samples in found.lists.items():
        part = part_of(path)
        if part not in split.parts:
            named = ", ".join(split.parts)
            report.add_odd("split", path, f"splits.json has no part {part!r}, but {named}")
            continue
        for sample in samples:
            other = part_of_video.get(sample.video)
            if other != part:
                has = "does not have it" if other is None else f"has it in {other!r}"
                report.add_error("split", sample.where, f"{sample.video}: splits.json {has}")
        expected = set(split.parts[part])
        if samples and samples[0].task == DISTORTION:
            # Videos whose remarks fit no category have no answer.
            expected &= set() if found.categories is None else set(found.categories.by_video)
        _report_missing(path, expected, report, found)


def _check_overlap(report: Report, found: Found) -> None:
    """The lists' parts against each other."""
    parts: dict[str, dict[str, str]] = {part: {} for part in PARTS}
    for path, samples in found.lists.items():
        for sample in samples:
            if part_of(path) in parts:
                parts[part_of(path)].setdefault(sample.video, sample.where)
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
    listed = found.listed
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
    fits = [fitted_scales(found, edges) for edges in EDGES]
    for name, scale in found.scales.items():
        fitted = [fit[name].edges for fit in fits if name in fit]
        if fitted and not any(np.allclose(edges, scale.edges) for edges in fitted):
            place = f"{report.root / 'levels.json'}: {name}"
            says = f"the edges do not follow from the {name} scores of the training list"
            report.add_odd("level edges", place, says)


def _check_conflicts(report: Report, found: Found) -> None:
    """Categories, marks and level words of a video against each other."""
    levels: dict[str, dict[str, str]] = defaultdict(dict)
    for sample in found.rows():
        if sample.level is not None:
            levels[sample.task][sample.video] = sample.level
    dots = found.fixations and {v: len(known.points) for v, known in found.fixations.items()}
    categories = None if found.categories is None else found.categories.by_video
    for what, videos in conflicts(categories, dots, levels, found.aspects).items():
        for video in videos:
            report.add_odd("conflict", video, what)
