"""Distortion categories, marked strips, and marks against the scores (paper, Section 3.4 and Fig.
3, 5 and 6).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lmme3dhf.data import statistics
from lmme3dhf.data.statistics import REGION_LEVEL, Figures, StripMarks
from lmme3dhf.describe.contents import Contents, Strip
from lmme3dhf.describe.output import Output
from lmme3dhf.reports import plots


def describe_distortions(contents: Contents, output: Output) -> Figures | None:
    """How often each category was named (Fig. 3a), generator by generator (Fig. 3b), and the
    scores with and without it.
    """
    if not contents.categories:
        output.left_out["Distortion categories (Fig. 3)"] = (
            "`distortion_label.json`, or lists in `distortion/`"
        )
        return None
    figures = statistics.count_distortions(contents.categories)
    figures["against"] = {
        aspect: statistics.categories_against(contents.categories, scores)
        for aspect, scores in contents.mos.items()
    }
    counts = dict(sorted(figures["counts"].items(), key=lambda pair: -pair[1]))
    output.table(
        "fig3a_distortions.csv",
        "videos with each category, and their mean score",
        [
            {
                "category": name,
                "videos": count,
                "share": figures["shares"][name],
                **{d: against["by_category"][name] for d, against in figures["against"].items()},
            }
            for name, count in counts.items()
        ],
    )
    path = output.picture("fig3a_distortions.png", "videos with each category")
    plots.distortion_bars(path, counts, figures["videos"], output.note)
    groups = figures["generators"].items()
    output.table(
        "fig3b_generators.csv",
        "videos of each generator with each category",
        [{"generator": group, "videos": one["videos"], **one["counts"]} for group, one in groups],
    )
    plots.category_heat_map(
        output.picture("fig3b_generators.png", "categories of each generator"),
        {group: (one["videos"], one["counts"]) for group, one in groups},
        output.note,
    )
    output.table(
        "together.csv",
        "videos with two categories at the same time",
        [{"category": name, **counts} for name, counts in figures["together"].items()],
    )
    return figures


def describe_strips(
    contents: Contents, strips: Sequence[Strip], marks: Mapping[str, StripMarks], output: Output
) -> list[Figures] | None:
    """Some strips with their dots and maps (Fig. 5)."""
    if not strips:
        output.left_out["Strips with their marks (Fig. 5)"] = "`image/`"
        return None
    rows, shown = [], []
    for strip in strips:
        scores = {d: by_video.get(strip.video) for d, by_video in contents.mos.items()}
        categories = "; ".join(contents.categories.get(strip.video, ()))
        rows.append(
            {
                "place": strip.place,
                "video": strip.video,
                **scores,
                "categories": categories,
                **asdict(marks.get(strip.video, StripMarks())),
            }
        )
        said = [f"{d} {score:.1f}" for d, score in scores.items() if score is not None]
        caption = ", ".join([f"{strip.place}: {strip.video}", *said])
        shown.append((caption, categories, strip.picture_HW3, strip.points, strip.map_HW))
    output.table("fig5_strips.csv", "the strips in the picture", rows)
    path = output.picture("fig5_strips.png", "strips with their marks")
    plots.marked_strips(path, shown, output.note)
    return rows


def describe_marks(
    contents: Contents, marks: Mapping[str, StripMarks], output: Output
) -> Figures | None:
    """Number and area of what was marked, against the scores (Fig. 6)."""
    if not contents.fixations:
        output.left_out["Number of marked dots"] = "`fixations.json`"
    if not contents.maps:
        output.left_out["Number and area of marked regions (Fig. 6)"] = "`saliency_map/`"
    if not marks:
        return None
    figures = statistics.marks_against(marks, contents.mos)
    figures["level"] = REGION_LEVEL
    output.table(
        "fig6_marks.csv",
        "dots, regions and marked area of each strip, with its scores",
        [
            {
                "video": video,
                **asdict(one),
                **{d: scores.get(video) for d, scores in contents.mos.items()},
            }
            for video, one in marks.items()
        ],
    )
    panels = [
        (of_measure["name"], panel)
        for measure, of_measure in figures["measures"].items()
        if (panel := _panel(contents, marks, measure, of_measure))
    ]
    figures["drawn"] = bool(panels)
    if panels:
        path = output.picture("fig6_marks.png", "marks against the scores")
        scales = {name: aspect.scale for name, aspect in contents.aspects.items()}
        plots.marks_scatter(path, panels, scales, output.note)
    return figures


def _panel(
    contents: Contents, marks: Mapping[str, StripMarks], measure: str, of_measure: Figures
) -> dict[str, tuple]:
    """Aspect -> (values of the measure, scores, note); empty where an aspect has no video
    with both.
    """
    values = {video: getattr(one, measure) for video, one in marks.items()}
    panel = {}
    for aspect, scores in contents.mos.items():
        both = [v for v, value in values.items() if value is not None and v in scores]
        if not both:
            return {}
        note = f"SRCC {of_measure[aspect]['srcc']:.3f}, {len(both)} videos"
        panel[aspect] = ([values[v] for v in both], [scores[v] for v in both], note)
    return panel
