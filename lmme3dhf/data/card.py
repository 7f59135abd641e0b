"""What a data set was made of: a record, the lines that a user sees, and the data card, a page that
stays with the data.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from lmme3dhf.annotations.descriptions import RemarkLabels
from lmme3dhf.annotations.mos import OpinionScores
from lmme3dhf.aspects import Aspects, Scale
from lmme3dhf.data.marks import MarkedVideos
from lmme3dhf.data.splits import Split, latent, split_hash
from lmme3dhf.escaping import markdown_table, markdown_text, visible
from lmme3dhf.vocabulary import DISTORTIONS

CARD = "data_card.md"
FEWEST_SUBJECTS = 15  # ITU-R BT.500
_NAMED = 20  # names that are listed before "and N more"


@dataclass(kw_only=True)
class LabelReport:
    """What `data.labels` made.

    Attributes:
        aspects: What is rated.
        choices: Setting -> what was chosen, as the card shows it.
        split: Part -> videos.
        unused: Clips that are in no part of the split.
        scores: Aspect -> scores with their subjects; empty where finished scores were given.
        scales: Aspect -> its scale, with edges where it has levels.
        levels: Aspect -> level -> number of videos; without aspects that have no levels.
        distortions: Video -> its categories; without the undecided. None without remarks.
        remarks: What the remarks were read as; None without remarks.
        marked: What was marked, by video; None without marks.
        strips_cut: Strips that were cut from clips.
        conflicts: What contradicts what in remarks, marks and scores -> videos.
        asked: Part -> share of the videos that was asked for; empty where the split was given.
    """

    aspects: Aspects
    choices: dict[str, str]
    split: Split
    unused: list[str]
    scores: dict[str, OpinionScores] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    levels: dict[str, dict[str, int]] = field(default_factory=dict)
    distortions: dict[str, tuple[str, ...]] | None = None
    remarks: RemarkLabels | None = None
    marked: MarkedVideos | None = None
    strips_cut: int = 0
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)

    @property
    def videos(self) -> list[str]:
        """All videos of the split."""
        return [video for part in self.split.values() for video in part]

    @property
    def shared_faces(self) -> list[int]:
        """Latents of which several parts have videos."""
        parts = Counter(face for part in self.split.values() for face in {latent(v) for v in part})
        return sorted(face for face, count in parts.items() if count > 1)

    @property
    def dots_by_video(self) -> dict[str, int]:
        """Video -> number of dots of all markers who looked at it; empty without marks."""
        dots_by_video = {} if self.marked is None else self.marked.dots
        return {video: sum(dots.values()) for video, dots in dots_by_video.items()}

    @property
    def unmarked(self) -> list[str]:
        """Videos that no marker looked at though there are marks: they have no map."""
        if self.marked is None:
            return []
        return [video for video in self.videos if video not in self.marked.dots]

    @property
    def parts(self) -> list[tuple[str, int, int, str]]:
        """Part, videos, faces (latents) and its share of the videos, with the one asked for."""
        rows = []
        for part, videos in self.split.items():
            share = f"{len(videos) / len(self.videos):.1%}"
            if part in self.asked:
                share += f", asked {self.asked[part]:.1%}"
            rows.append((part, len(videos), len({latent(v) for v in videos}), share))
        return rows

    @property
    def undecided(self) -> list[str]:
        """Videos without distortion categories: no answer list holds them."""
        if self.distortions is None:
            return []
        return [video for video in self.videos if video not in self.distortions]


def summary(report: LabelReport) -> list[str]:
    """One line for everything that somebody should know: what was made and what was left out, by
    name; for a terminal too, whatever the names hold.
    """
    parts = ", ".join(f"{part} {len(videos)}" for part, videos in report.split.items())
    lines = [f"{len(report.videos)} videos: {parts}"]
    lines += [
        f"{part}: {share} of the videos, {faces} faces" for part, _, faces, share in report.parts
    ]
    if report.unused:
        lines.append(f"{len(report.unused)} clips are in no part: {_names(report.unused)}")
    if report.shared_faces:
        lines.append(
            f"{len(report.shared_faces)} faces (latents) are in more than one part: "
            f"{_names([str(face) for face in report.shared_faces])}"
        )
    for name, scores in report.scores.items():
        lines += [f"{name}: {line}" for line in _panel(scores)]
    if report.strips_cut:
        lines.append(f"{report.strips_cut} strips were cut from the clips")
    lines += ["no marks given: no saliency maps"] if report.marked is None else _marks(report)
    lines += _idle_markers(report)
    lines += [
        f"conflict: {what}: {len(videos)} videos, {_names(videos)}"
        for what, videos in report.conflicts.items()
    ]
    if report.distortions is None:
        lines.append("no remarks given: no distortion answers")
    if report.remarks is not None:
        unmatched = [reading for reading in report.remarks.readings if not reading.matched]
        lines += [
            f"unmatched remark: {r.marker} on {r.video}: {r.text!r}" for r in unmatched[:_NAMED]
        ]
        if len(unmatched) > _NAMED:
            lines.append(f"... and {len(unmatched) - _NAMED} more, see remark_readings.csv")
    if report.undecided:
        lines.append(
            f"{len(report.undecided)} videos are in no distortion list, for their remarks fit no "
            f"category (extend the phrases by --rules): {_names(report.undecided)}"
        )
    return [visible(line) for line in lines]


def _panel(scores: OpinionScores) -> list[str]:
    """Who and what of the ratings counts."""
    subjects, left_out = len(scores.subjects), scores.left_out
    lines = [f"ratings of {subjects - len(left_out)} of {subjects} subjects count"]
    lines += [f"{who} left out, {why}" for who, why in left_out.items()]
    if subjects - len(left_out) < FEWEST_SUBJECTS:
        lines.append(
            f"{subjects - len(left_out)} subjects are fewer than the {FEWEST_SUBJECTS} that ITU-R "
            "BT.500 asks for; the scores are rough, let more people rate"
        )
    expected = (subjects - len(left_out)) * len(scores.videos)
    missing = expected - int(scores.count_V.sum())
    if missing:
        fewest = int(scores.count_V.argmin())
        lines.append(
            f"{missing} of {expected} ratings that could count are missing; "
            f"{scores.videos[fewest]} has fewest, {scores.count_V[fewest]}"
        )
    unknown = [v for v, std in zip(scores.videos, scores.std_V, strict=True) if math.isnan(std)]
    if unknown:
        lines.append(
            f"{len(unknown)} videos have a single rating that counts, so neither deviation nor "
            f"confidence interval: {_names(unknown)}"
        )
    return lines


def _marks(report: LabelReport) -> list[str]:
    """What was marked, what was not looked at, and what is no mark."""
    counts, marked = list(report.dots_by_video.values()), report.marked
    lines = [
        f"{sum(counts)} dots; {counts.count(0)} videos without any, their maps are empty: markers "
        "looked and marked nothing"
    ]
    if report.unmarked:
        lines.append(
            f"{len(report.unmarked)} videos have no map, for no marker looked at them (a strip "
            f"without a mark says that nothing is wrong): {_names(report.unmarked)}"
        )
    if marked.strays:
        lines.append(
            f"{len(marked.strays)} marked strips hold something else than marks, ignored: "
            + _names([f"{name} ({what})" for name, what in marked.strays.items()])
        )
    if marked.specks:
        lines.append(
            f"{len(marked.specks)} marked strips have spots too small or too crowded to be read as "
            f"dots, left out: {_names(marked.specks)}"
        )
    return lines


def _idle_markers(report: LabelReport) -> list[str]:
    """Markers who marked nothing, or remarked on few videos: their files may be lost."""
    lines = []
    agreement = None if report.remarks is None else report.remarks.agreement
    remarked = set(agreement.markers) if agreement else set()
    marked, looked = Counter(), Counter()
    for dots in ({} if report.marked is None else report.marked.dots).values():
        marked.update(dots)
        looked.update(dots.keys())
    marked.pop("", None)  # points without a marker
    if marked:
        idle = sorted(m for m in remarked | set(marked) if not marked[m])
        lines += [f"marker {marker} has no dot on any video" for marker in idle]
        videos = len(report.videos)
        lines += [
            f"marker {marker} has not looked at {videos - looked[marker]} of {videos} videos"
            for marker in sorted(marked)
            if looked[marker] < videos
        ]
    if agreement:
        lines += [
            f"marker {marker} has no remark on {missing} of {agreement.videos} videos"
            for marker, missing in {
                **{marker: agreement.videos for marker in sorted(set(marked) - remarked)},
                **agreement.missing,
            }.items()
            if missing
        ]
    return lines


def _names(videos: list[str]) -> str:
    rest = f" and {len(videos) - _NAMED} more" if len(videos) > _NAMED else ""
    return ", ".join(videos[:_NAMED]) + rest


def data_card(report: LabelReport) -> str:
    """The card as Markdown; without dates and paths, so that the same input gives the same card."""
    words = list(dict.fromkeys(word for counts in report.levels.values() for word in counts))
    lines = [
        "# Data card",
        "",
        "A Gen3DHF-like data set, made by `lmme3dhf data labels` from clips and raw annotations.",
        "",
        *_table(("choice", "value"), list(report.choices.items())),
        "",
        "## Parts",
        "",
        *_table(
            ("part", "videos", "faces", "share"),
            [(part, str(videos), str(faces), share) for part, videos, faces, share in report.parts],
        ),
        "",
        f"SHA-256 of the split: `{split_hash(report.split)}`",
        "",
        "## Levels",
        "",
        "Edges were fitted on the training part alone; counts are over all parts.",
        "",
        *_table(
            ("dimension", *words, "edges"),
            [
                (
                    name,
                    *(str(counts.get(word, "")) for word in words),
                    ", ".join(f"{edge:.3f}" for edge in report.scales[name].edges),
                )
                for name, counts in report.levels.items()
            ],
        ),
    ]
    if report.scores:
        lines += ["", "## Subjects", "", *_subjects(report)]
    if report.distortions is not None:
        found = Counter(c for video in report.videos for c in report.distortions.get(video, ()))
        lines += [
            "",
            "## Distortions",
            "",
            *_table(("category", "videos"), [(c, str(found[c])) for c in DISTORTIONS]),
            "",
            markdown_text(f"In no distortion list: {_names(report.undecided) or 'none'}."),
        ]
    if report.remarks is not None:
        agreement = report.remarks.agreement
        overlap = "No two markers could be read on the same video, so nothing tells how they agree."
        if agreement.compared:
            overlap = (
                f"Agreement of {len(agreement.markers)} markers on {agreement.compared} videos: "
                f"mean overlap (Jaccard) {agreement.jaccard:.3f}."
            )
        lines += [
            "",
            f"{overlap} Every remark and how it was read stands in `remark_readings.csv`.",
        ]
    if report.marked is not None:
        counts = list(report.dots_by_video.values())
        lines += [
            "",
            "## Marks",
            "",
            f"{sum(counts)} dots on {len(counts) - counts.count(0)} of {len(counts)} videos; the "
            "other maps are empty and say no distortion.",
            *(
                [f"{len(report.unmarked)} more videos were looked at by no marker and have no map."]
                if report.unmarked
                else []
            ),
        ]
    lines += ["", "## Log", "", *(f"- {markdown_text(line)}" for line in summary(report)), ""]
    return "\n".join(lines)


def _subjects(report: LabelReport) -> list[str]:
    rows = [
        (name, subject.subject, str(subject.ratings), subject.rejected or "counts")
        for name, scores in report.scores.items()
        for subject in scores.subjects
    ]
    return [
        *_table(("dimension", "subject", "ratings", "result"), rows),
        "",
        "All figures of the screening are in `subjects.csv`. The raw tables in `raw/` hold the",
        "subjects' names as they were given: replace them before the data set is published.",
    ]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return markdown_table(header, [map(markdown_text, row) for row in rows])
