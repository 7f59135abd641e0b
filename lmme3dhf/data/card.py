"""What a data set was made of: a record, the lines that a user sees, and the data card, a page that
stays with the data.
"""

from collections import Counter
from dataclasses import dataclass, field

from lmme3dhf.annotations.descriptions import RemarkLabels
from lmme3dhf.annotations.levels import LevelScale
from lmme3dhf.annotations.mos import OpinionScores
from lmme3dhf.data.splits import Split, split_hash
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS

CARD = "data_card.md"
_NAMED = 20  # names that are listed before "and N more"


@dataclass(kw_only=True)
class LabelReport:
    """What `data.labels` made.

    Attributes:
        choices: Setting -> what was chosen, as the card shows it.
        split: Part -> videos.
        unused: Clips that are in no part of the split.
        scores: Dimension -> scores with their subjects; empty where finished scores were given.
        scales: Dimension -> level scale.
        levels: Dimension -> level -> number of videos.
        distortions: Video -> its categories; without the undecided. None without remarks.
        remarks: What the remarks were read as; None without remarks.
        dots: Video -> number of dots of all markers; None without marks.
        strips_cut: Strips that were cut from clips.
    """

    choices: dict[str, str]
    split: Split
    unused: list[str]
    scores: dict[str, OpinionScores] = field(default_factory=dict)
    scales: dict[str, LevelScale] = field(default_factory=dict)
    levels: dict[str, dict[str, int]] = field(default_factory=dict)
    distortions: dict[str, tuple[str, ...]] | None = None
    remarks: RemarkLabels | None = None
    dots: dict[str, int] | None = None
    strips_cut: int = 0

    @property
    def videos(self) -> list[str]:
        """All videos of the split."""
        return [video for part in self.split.values() for video in part]

    @property
    def undecided(self) -> list[str]:
        """Videos without distortion categories: no answer list holds them."""
        if self.distortions is None:
            return []
        return [video for video in self.videos if video not in self.distortions]


def summary(report: LabelReport) -> list[str]:
    """One line for everything that somebody should know: what was made and what was left out, by
    name.
    """
    parts = ", ".join(f"{part} {len(videos)}" for part, videos in report.split.items())
    lines = [f"{len(report.videos)} videos: {parts}"]
    if report.unused:
        lines.append(f"{len(report.unused)} clips are in no part: {_names(report.unused)}")
    for dimension, scores in report.scores.items():
        kept = len(scores.subjects) - len(scores.left_out)
        lines.append(f"{dimension}: ratings of {kept} of {len(scores.subjects)} subjects count")
        lines += [f"{dimension}: {who} left out, {why}" for who, why in scores.left_out.items()]
    if report.strips_cut:
        lines.append(f"{report.strips_cut} strips were cut from the clips")
    if report.dots is None:
        lines.append("no marks given: no saliency maps")
    else:
        clean = sum(count == 0 for count in report.dots.values())
        lines.append(
            f"{sum(report.dots.values())} dots; {clean} videos without any, their maps are empty"
        )
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
    return lines


def _names(videos: list[str]) -> str:
    rest = f" and {len(videos) - _NAMED} more" if len(videos) > _NAMED else ""
    return ", ".join(videos[:_NAMED]) + rest


def data_card(report: LabelReport) -> str:
    """The card as Markdown; without dates and paths, so that the same input gives the same card."""
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
            ("part", "videos"),
            [(part, str(len(videos))) for part, videos in report.split.items()],
        ),
        "",
        f"SHA-256 of the split: `{split_hash(report.split)}`",
        "",
        "## Levels",
        "",
        "Edges were fitted on the training part alone; counts are over all parts.",
        "",
        *_table(
            ("dimension", *LEVELS, "edges"),
            [
                (
                    dimension,
                    *(str(counts[level]) for level in LEVELS),
                    ", ".join(f"{edge:.3f}" for edge in report.scales[dimension].edges),
                )
                for dimension, counts in report.levels.items()
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
            f"In no distortion list: {_names(report.undecided) or 'none'}.",
        ]
    if report.remarks is not None:
        agreement = report.remarks.agreement
        lines += [
            "",
            f"Agreement of {len(agreement.markers)} markers on {agreement.compared} videos: mean "
            f"overlap (Jaccard) {agreement.jaccard:.3f}. Every remark and how it was read stands "
            "in `remark_readings.csv`.",
        ]
    if report.dots is not None:
        lines += [
            "",
            "## Marks",
            "",
            f"{sum(report.dots.values())} dots on "
            f"{sum(count > 0 for count in report.dots.values())} of {len(report.dots)} videos; "
            "the other maps are empty and say no distortion.",
        ]
    lines += ["", "## Log", "", *(f"- {line}" for line in summary(report)), ""]
    return "\n".join(lines)


def _subjects(report: LabelReport) -> list[str]:
    rows = [
        (dimension, subject.subject, str(subject.ratings), subject.rejected or "counts")
        for dimension, scores in report.scores.items()
        for subject in scores.subjects
    ]
    return [
        *_table(("dimension", "subject", "ratings", "result"), rows),
        "",
        "All figures of the screening are in `subjects.csv`. The raw tables in `raw/` hold the",
        "subjects' names as they were given: replace them before the data set is published.",
    ]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    cells = [header, ("---",) * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
