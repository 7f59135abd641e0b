"""A data set from raw annotations: opinion scores, levels, categories, maps, strips and the lists
that the stages read (paper, Sections 3.2, 3.3 and 4.2).

One path for synthetic and for people's annotations. Everything is read and checked first; then it
is written into a hidden folder of the data set and moved into place at the end. Bad input leaves
the data set as it was, and so does a kill, unless it falls between those moves: then old and new
files stand side by side until the same call is made again. What is read and written is described in
`datasets/README.md`.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.annotations import AnnotationError, require_known
from lmme3dhf.annotations.descriptions import distortion_reply, label_remarks, read_remarks
from lmme3dhf.annotations.levels import EDGES, fit_level_scale, soft_label, to_json
from lmme3dhf.annotations.mos import RULES, SubjectReport, mean_opinion_scores
from lmme3dhf.annotations.ratings import read_ratings
from lmme3dhf.annotations.rules import load_rules
from lmme3dhf.annotations.screening import SCREENINGS
from lmme3dhf.aspects import ASPECTS_FILE, DISTORTION, aspects_of, read_aspects
from lmme3dhf.data.card import CARD, LabelReport, data_card
from lmme3dhf.data.conflicts import conflicts
from lmme3dhf.data.container import missing
from lmme3dhf.data.gen3dhf import DISTORTION_PROMPT, VIDEO_FOLDER, write_list, write_ratings
from lmme3dhf.data.marks import STRIP_FOLDER, open_marks, take_strips, write_maps, write_strips
from lmme3dhf.data.release import read_distortion_labels, read_mos
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.sources import files_below, is_picture
from lmme3dhf.data.splits import Split, check_split, grouped_split, write_split
from lmme3dhf.files import is_inside, replace_file, write_csv, write_json

CLIP_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
OTHER_MARKS = ("error", "ignore")
_STAGING = ".labels"
# Folders that may hold more than this module puts there.
_MERGED = (STRIP_FOLDER, VIDEO_FOLDER, "raw")
# Tables that go where the new labels were not made from ratings or remarks.
_TABLES = ("subjects.csv", "remark_readings.csv")
# What the sources are; marks may be either.
_FILES = ("aspects", "ratings", "mos", "remarks", "rules", "distortions")
_FOLDERS = ("videos", "strips")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the raw annotations are, or what was made from them elsewhere.

    Attributes:
        videos: Folder of the clips.
        aspects: YAML of what is rated (`aspects.read_aspects`); None for what the data set has
            declared before, else Gen3DHF's two.
        ratings: CSV of ratings (`annotations.ratings.read_ratings`).
        mos: In place of ratings: a `MOS.json` as the release has it.
        marks: Folder of marked strips, one folder a marker, or a CSV or JSON file of points
            (`annotations.fixations`); None makes no maps.
        strips: Folder of unmarked strips; what is missing there, or everything, is cut from the
            clips.
        remarks: CSV `marker,video,remark`; None makes no distortion answers.
        rules: YAML that extends the built-in table of phrases.
        distortions: In place of remarks: a `distortion_label.json` as the release has it.
    """

    videos: Path
    aspects: Path | None = None
    ratings: Path | None = None
    mos: Path | None = None
    marks: Path | None = None
    strips: Path | None = None
    remarks: Path | None = None
    rules: Path | None = None
    distortions: Path | None = None

    def __post_init__(self) -> None:
        if (self.ratings is None) == (self.mos is None):
            raise DataError("labels: give either raw ratings (CSV) or finished scores (MOS.json)")
        if self.remarks is not None and self.distortions is not None:
            raise DataError(
                "labels: give either raw remarks (CSV) or finished categories "
                "(distortion_label.json), not both"
            )
        if self.rules is not None and self.remarks is None:
            raise DataError(
                f"labels: {self.rules} says how remarks are read; give the remarks (CSV) too, or "
                "leave the rules out"
            )
        for name in (*_FILES, *_FOLDERS, "marks"):
            path = getattr(self, name)
            if path is None:
                continue
            if not path.exists():
                raise DataError(f"labels: {path} does not exist; correct the path of the {name}")
            if name in _FILES and path.is_dir():
                raise DataError(f"labels: {path} is a folder; expected the file of the {name}")
            if name in _FOLDERS and not path.is_dir():
                raise DataError(f"labels: {path} is a file; expected the folder of the {name}")

    @property
    def score_file(self) -> Path:
        """Where the opinion scores come from."""
        return self.mos if self.ratings is None else self.ratings


def drawn_split(videos: Iterable[str], eval_share: float, val_share: float, seed: int) -> Split:
    """A split into train, val and eval, all videos of a latent in one part.

    Args:
        videos: Names seedNNNN.
        eval_share: Share of the videos that eval gets.
        val_share: Share of the videos that val gets; 0 makes no such part.
        seed: Seed of the draw.

    Raises:
        DataError: Shares that leave nothing to train or evaluate on; or as
            `data.splits.grouped_split`.
    """
    if not (eval_share > 0 and val_share >= 0 and eval_share + val_share < 1):
        raise DataError(
            f"split: shares of {eval_share} for eval and {val_share} for val; expected more than 0 "
            "and at least 0, together less than 1"
        )
    return grouped_split(videos, split_shares(eval_share, val_share), np.random.default_rng(seed))


def split_shares(eval_share: float, val_share: float) -> dict[str, float]:
    """Part -> its share of the videos, in the order of the parts."""
    shares = {"train": 1 - val_share - eval_share, "val": val_share, "eval": eval_share}
    return {part: share for part, share in shares.items() if share != 0}


def clips_in(folder: Path) -> dict[str, Path]:
    """Video -> clip, sorted by name; where there are no videos, the images.

    Raises:
        DataError: No such folder, no clip in it, two clips of one name, or a link that leads
            nowhere.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of the clips")
    clips: dict[str, Path] = {}
    files = [p for p in sorted(folder.iterdir()) if not (p.is_dir() or p.name.startswith("."))]
    videos = [path for path in files if path.suffix.lower() in CLIP_SUFFIXES]
    for path in videos or filter(is_picture, files):
        if not path.exists():
            raise DataError(f"{path} {missing(path)}; mend the link, or remove it")
        if path.stem in clips:
            raise DataError(
                f"{folder}: {clips[path.stem].name} and {path.name} are both clips of "
                f"{path.stem}; keep one"
            )
        clips[path.stem] = path
    if not clips:
        deeper = "".join(f"; {line}" for line in deeper_clips(folder))
        raise DataError(f"{folder}: no clips ({', '.join(CLIP_SUFFIXES)}) in it{deeper}")
    return clips


def deeper_clips(folder: Path) -> list[str]:
    """A line on clips in folders below, which `clips_in` does not take; none without them."""
    folders = [p for p in sorted(folder.iterdir()) if p.is_dir() and any(p.iterdir())]
    below = files_below(folders) if folders else []
    deeper = [path for path in below if path.suffix.lower() in CLIP_SUFFIXES]
    if not deeper:
        return []
    first = deeper[0].relative_to(folder)
    return [
        f"{len(deeper)} clips are in folders below {folder}, first {first}: not taken; put "
        "all clips into one folder"
    ]


def build_labels(
    root: Path,
    sources: Sources,
    split: Split,
    *,
    rule: str = "zscore",
    screening: str = "bt500",
    edges: str = "equal_width",
    processes: int = 1,
    mark_colour: str = "red",
    mark_shape: str = "dot",
    other_marks: str = "error",
    shares: Mapping[str, float] | None = None,
) -> LabelReport:
    """Makes every label file of a data set.

    Args:
        root: Folder of the data set, made where it is missing.
        sources: The annotations.
        split: Part ("train", "val", "eval") -> videos. Level edges are fitted on train alone.
        rule: How ratings become scores, one of `annotations.mos.RULES`.
        screening: Which subjects are rejected, one of `annotations.screening.SCREENINGS`.
        edges: How levels are cut, one of `annotations.levels.EDGES`.
        processes: Processes that look for dots, see `data.marks.write_maps`.
        mark_colour: Colour of the marks on strips, one of `annotations.marked.COLOURS`.
        mark_shape: Shape of the marks on strips, one of `annotations.marked.SHAPES`.
        other_marks: "error" refuses marked strips with anything else on them, "ignore" counts them.
        shares: Part -> share of the videos that was asked for, for the report; None where the split
            was given.

    Returns:
        What was made. The caller prints it.

    Raises:
        AnnotationError: Raw annotations that cannot be used, with file and line.
        DataError: A video twice in the split, or without its clip, ratings or remarks; annotations
            of videos that have no clip; a score beyond its scale; something in the way at `root`.
        VideoError: A clip from which no strip can be cut.
    """
    require_known("rule", rule, RULES)
    require_known("screening", screening, SCREENINGS)
    require_known("other_marks", other_marks, OTHER_MARKS)
    require_known("edges", edges, EDGES)
    if "train" not in split:
        raise DataError(f"split: parts {', '.join(split)}; one must be train, for the levels")
    check_split(split, latents_may_be_shared=True)  # the official one shares them; the card says so
    aspects = read_aspects(sources.aspects) if sources.aspects else aspects_of(root)
    for aspect in aspects.values():  # Ratings come without slots: fail now, not after the maps.
        aspect.question()
        aspect.prefix()
    made = _folders_to_make(root)
    clips = clips_in(sources.videos)
    videos = [video for part in split.values() for video in part]
    _same_videos("the split", videos, clips, sources.videos)
    choices = (
        {"scores": "given"} if sources.ratings is None else {"scores": rule, "screening": screening}
    )
    report = LabelReport(
        aspects=aspects,
        choices=choices | {"level edges": edges},
        split=split,
        unused=sorted(set(clips) - set(videos)),
        asked=dict(shares or {}),
    )

    mos, spread = _opinion_scores(sources, clips, videos, rule, screening, report)
    for name, aspect in aspects.items():
        train = np.array([mos[name][video] for video in split["train"]])
        try:
            report.scales[name] = fit_level_scale(train, aspect, edges)
        except AnnotationError as error:
            raise AnnotationError(f"{sources.score_file}, part 'train': {error}") from error
    words = {
        name: {video: scale.level(mos[name][video]) for video in videos}
        for name, scale in report.scales.items()
        if scale.levels
    }
    for name, of_aspect in words.items():
        counts = Counter(of_aspect.values())
        report.levels[name] = {level: counts[level] for level in aspects[name].scale.levels}
    _distortions(sources, clips, videos, report)
    marks = None
    if sources.marks is not None:
        marks = open_marks(sources.marks, mark_colour, mark_shape)
    if marks is not None:
        _same_videos(str(sources.marks), marks.videos, clips, sources.videos)

    if report.distortions is None and (root / "distortion").exists():
        raise DataError(
            f"{root / 'distortion'} holds answers for another split; give the remarks too, or "
            "another folder"
        )

    staging = root / _STAGING
    shutil.rmtree(staging, ignore_errors=True)  # of a call that was killed
    staging.mkdir(parents=True)
    try:
        strips = root / STRIP_FOLDER if sources.strips is None else sources.strips
        report.strips_cut, failed = write_strips(
            staging / STRIP_FOLDER,
            {video: clips[video] for video in videos if not is_picture(clips[video])},
            strips,
        )
        if failed:
            raise DataError(
                f"{len(failed)} of {report.strips_cut + len(failed)} clips give no strip: "
                f"{', '.join(failed)}; first reason: {next(iter(failed.values()))}"
            )
        if sources.strips is not None:
            take_strips(staging / STRIP_FOLDER, videos, strips)
        if marks is not None:
            report.marked = write_maps(
                staging,
                videos,
                marks,
                [staging / STRIP_FOLDER, root / STRIP_FOLDER],
                processes,
                ignore_strays=other_marks == "ignore",
            )
        report.conflicts = conflicts(
            _of(videos, report.distortions), _of(videos, report.dots_by_video), words, aspects
        )
        _write_tables(staging, videos, mos, spread, report)
        for part, members in split.items():
            _write_lists(staging, part, members, mos, clips, report)
        replace_file(staging / CARD, data_card(report))
        _take_raw(sources, staging)
        _take_clips((clips[video] for video in videos), root, staging)
        _publish(staging, root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
    return report


def _of(videos: list[str], labels: Mapping[str, Any] | None) -> dict[str, Any]:
    return {video: labels[video] for video in videos if video in (labels or {})}


def _folders_to_make(root: Path) -> list[Path]:
    """The data set's folder and those around it that do not exist yet, the innermost first."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    there = missing[-1].parent if missing else root
    if not there.is_dir():
        raise DataError(f"{there} is a file; give another folder for the data set")
    return missing


def _same_videos(who: str, videos: Iterable[str], clips: Mapping[str, Path], folder: Path) -> None:
    absent = sorted(set(videos) - set(clips))
    if absent:
        raise DataError(
            f"{who}: {len(absent)} videos have no clip in {folder}, first "
            f"{', '.join(absent[:3])}; names are those of the clips without suffix: add the clips "
            "or take the videos out"
        )


def _opinion_scores(
    sources: Sources,
    clips: Mapping[str, Path],
    videos: list[str],
    rule: str,
    screening: str,
    report: LabelReport,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, tuple[float, int, float]]]]:
    """Aspect -> video -> MOS, and (deviation, ratings, half confidence interval) where known."""
    aspects, source = report.aspects, sources.score_file
    mos: dict[str, dict[str, float]] = {name: {} for name in aspects}
    spread: dict[str, dict[str, tuple[float, int, float]]] = {name: {} for name in aspects}
    if sources.mos is not None:
        by_video = read_mos(source, aspects, clips)
        mos = {name: {v: scores[name] for v, scores in by_video.items()} for name in aspects}
    else:
        for name, ratings in read_ratings(source, aspects).items():
            try:
                scores = mean_opinion_scores(ratings, rule=rule, screening=screening)
            except AnnotationError as error:
                raise AnnotationError(f"{source}: {error}") from error
            report.scores[name] = scores
            columns = (scores.mos_V, scores.std_V, scores.count_V, scores.ci95_V)
            for video, score, *rest in zip(
                scores.videos, *(column.tolist() for column in columns), strict=True
            ):
                mos[name][video], spread[name][video] = score, tuple(rest)
    for name, scored in mos.items():
        scale = aspects[name].scale
        if sources.ratings is not None:
            # Finished scores may be those of the whole release beside a part of its clips.
            _same_videos(str(source), scored, clips, sources.videos)
        absent = [video for video in videos if video not in scored]
        if absent:
            raise DataError(
                f"{source}: {len(absent)} of {len(videos)} videos have no {name} score, "
                f"first {', '.join(absent[:3])}; rate them, or take "
                "them out of the split (--split) or their clips out of the folder"
            )
        outside = [video for video in videos if not scale.holds(scored[video])]
        if outside:
            # Three deviations from a rater's mean are the ends of the scale (Eq. 1).
            raise DataError(
                f"{source}: {len(outside)} {name} scores lie outside {scale.minimum:g} to "
                f"{scale.maximum:g}, first {outside[0]} with {scored[outside[0]]:.1f}; its few "
                "ratings are extreme ones, let more people rate it"
            )
    return mos, spread


def _distortions(
    sources: Sources, clips: Mapping[str, Path], videos: list[str], report: LabelReport
) -> None:
    if sources.distortions is not None:
        report.distortions = read_distortion_labels(sources.distortions, clips)
        source, known, what = sources.distortions, set(report.distortions), "categories"
    elif sources.remarks is not None:
        remarks = read_remarks(sources.remarks)
        _same_videos(str(sources.remarks), remarks, clips, sources.videos)
        report.remarks = label_remarks(remarks, load_rules(sources.rules))
        report.distortions = report.remarks.labels
        source, known, what = sources.remarks, set(remarks), "remark"
    else:
        return
    absent = [video for video in videos if video not in known]
    if absent:
        raise DataError(
            f"{source}: {len(absent)} of {len(videos)} videos have no {what}, first "
            f"{', '.join(absent[:3])}; write what was seen, if only that nothing is wrong"
        )


def _write_tables(
    folder: Path,
    videos: list[str],
    mos: Mapping[str, Mapping[str, float]],
    spread: Mapping[str, Mapping[str, tuple[float, int, float]]],
    report: LabelReport,
) -> None:
    write_json(
        folder / "MOS.json",
        {video: {name: mos[name][video] for name in report.scales} for video in sorted(videos)},
    )
    rows = []
    words = list(dict.fromkeys(word for scale in report.scales.values() for word in scale.levels))
    for video in sorted(videos):
        for name, scale in report.scales.items():
            score = mos[name][video]
            known = spread[name].get(video, (float("nan"), None, float("nan")))
            level, soft = None, {}
            if scale.levels:
                level = scale.level(score)
                soft = dict(zip(scale.levels, soft_label(scale, score, known[0]), strict=True))
            shares = [round(soft[word], 6) if word in soft else None for word in words]
            rows.append((video, name, score, *known, level, *shares))
    write_csv(
        folder / "opinion_scores.csv",
        ("video", "dimension", "mos", "std", "ratings", "ci95", "level", *words),
        rows,
    )
    if report.scores:
        names = [item.name for item in fields(SubjectReport)]
        write_csv(
            folder / "subjects.csv",
            ("dimension", *names),
            [
                (name, *asdict(subject).values())
                for name, scores in report.scores.items()
                for subject in scores.subjects
            ],
        )
    write_json(folder / "levels.json", to_json(report.scales))
    write_split(folder / "splits.json", report.split)
    if report.distortions is not None:
        decided = sorted(set(videos) & set(report.distortions))
        write_json(
            folder / "distortion_label.json", {v: list(report.distortions[v]) for v in decided}
        )
    if report.remarks is not None:
        write_csv(
            folder / "remark_readings.csv",
            ("marker", "video", "remark", "categories", "corrections", "unread"),
            [
                (
                    reading.marker,
                    reading.video,
                    reading.text,
                    "; ".join(reading.categories),
                    "; ".join(f"{typed} = {meant}" for typed, meant in reading.corrections),
                    "; ".join(reading.unread),
                )
                for reading in report.remarks.readings
            ],
        )


def _write_lists(
    folder: Path,
    part: str,
    videos: list[str],
    mos: Mapping[str, Mapping[str, float]],
    clips: Mapping[str, Path],
    report: LabelReport,
) -> None:
    def sample(video: str, **about: Any) -> Sample:
        return Sample(video=video, path=clips[video], **about)

    for name, scale in report.scales.items():
        aspect = replace(report.aspects[name], scale=scale)
        about = {"task": name, "prompt": aspect.question()}
        rated = [sample(video, values={name: mos[name][video]}, **about) for video in videos]
        write_ratings(folder, part, aspect, rated)
    if report.distortions is not None:
        decided = [video for video in videos if video in report.distortions]
        if not decided:
            unread = next(r for r in report.remarks.readings if r.video in videos and not r.matched)
            raise DataError(
                f"split: none of the {len(videos)} videos of {part!r} has a remark that fits a "
                f"category, first {unread.marker} on {unread.video}: {unread.text[:60]!r}; extend "
                "the phrases by --rules"
            )
        about = {"task": DISTORTION, "prompt": DISTORTION_PROMPT}
        write_list(
            folder / "distortion" / f"{part}.json",
            [sample(v, reply=distortion_reply(report.distortions[v]), **about) for v in decided],
        )


def _take_raw(sources: Sources, staging: Path) -> None:
    """Copies the aspects, and the annotators' tables, which `lmme3dhf data stats` reads; the marked
    strips stay where they are.
    """
    if sources.aspects is not None:
        shutil.copyfile(sources.aspects, staging / ASPECTS_FILE)
    for path, name in ((sources.ratings, "ratings.csv"), (sources.remarks, "remarks.csv")):
        if path is not None:
            (staging / "raw").mkdir(exist_ok=True)
            shutil.copyfile(path, staging / "raw" / name)


def _take_clips(clips: Iterable[Path], root: Path, staging: Path) -> None:
    """Links the clips into the data set, or copies them where the disk cannot link; symbolic links
    that lead out of it are replaced.
    """
    folder = root / VIDEO_FOLDER
    for clip in clips:
        there = folder.exists() and clip.parent.samefile(folder)
        if there and is_inside(clip, folder):
            continue
        (staging / VIDEO_FOLDER).mkdir(exist_ok=True)
        target = staging / VIDEO_FOLDER / clip.name
        try:
            # The file itself: a link would lead out of the data set.
            target.hardlink_to(clip.resolve())
        except OSError:  # another disk, or one without links
            shutil.copyfile(clip, target)


def _publish(staging: Path, root: Path) -> None:
    """Moves what was made into place; what an earlier call made is replaced."""
    for made in staging.iterdir():
        target = root / made.name
        if target.exists() and target.is_dir() != made.is_dir():
            kind = "a folder" if target.is_dir() else "a file"
            raise DataError(f"{target} is {kind} and in the way of the labels; move it away")
    for name in _TABLES:
        if not (staging / name).exists():
            (root / name).unlink(missing_ok=True)
    for made in sorted(staging.iterdir()):
        target = root / made.name
        if made.is_dir() and made.name not in _MERGED and target.exists():
            # Lists and maps of videos that are no longer in the set go. Moved away, not deleted
            # here: the set is mixed for as short a time as can be.
            target.replace(staging / f".old.{made.name}")
        if made.is_dir() and target.exists():
            for path in made.iterdir():
                path.replace(target / path.name)
        else:
            made.replace(target)
