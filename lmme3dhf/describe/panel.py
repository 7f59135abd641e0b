"""How far those who made the labels agree: raters in their scores, markers in the categories
(paper, Sections 3.2 and 3.3).
"""

import math
from collections import Counter
from dataclasses import asdict

import numpy as np

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.data import statistics
from lmme3dhf.data.statistics import Figures
from lmme3dhf.describe.contents import RATINGS, REMARKS, Contents
from lmme3dhf.describe.output import Output
from lmme3dhf.reports import plots
from lmme3dhf.vocabulary import DISTORTIONS

HALVES_SEED = 0  # of the random halves of the panel


def describe_raters(contents: Contents, output: Output) -> Figures | None:
    """Agreement of the raters: halves of the panel, each with the others, and each pair."""
    if not contents.ratings:
        output.left_out["Agreement of the raters"] = f"`{RATINGS}`"
        return None
    figures: Figures = {}
    for aspect, ratings in contents.ratings.items():
        try:
            one = statistics.raters(ratings, np.random.default_rng(HALVES_SEED))
        except AnnotationError as error:
            output.left_out[f"Agreement of the raters in {aspect}"] = str(error)
            continue
        mos, made = contents.mos.get(aspect, {}), one.pop("mos")
        gaps = [abs(made[video] - mos[video]) for video in made if video in mos]
        one["largest_gap_to_mos"] = max(gaps, default=math.nan)
        figures[aspect] = one
    if not figures:
        return None
    output.table(
        "raters.csv",
        "each rater: ratings, agreement with the others, and what the screening says",
        [
            {"dimension": aspect, **report}
            for aspect, one in figures.items()
            for report in one["reports"]
        ],
    )
    plots.subject_bars(
        output.picture("raters.png", "agreement of each rater with the others"),
        {
            aspect: [
                (report["subject"], report["correlation"], report["rejected"] is not None)
                for report in one["reports"]
            ]
            for aspect, one in figures.items()
        },
        output.note,
    )
    output.table(
        "raters_between.csv",
        "Pearson's r between each two raters",
        [
            {"dimension": aspect, "subject": subject, **row}
            for aspect, one in figures.items()
            for subject, row in one["between"].items()
        ],
    )
    what = "SRCC between random halves of the raters"
    halves = {aspect: one["split_half"] for aspect, one in figures.items()}
    output.table(
        "raters_halves.csv",
        what,
        [
            {"dimension": aspect, "split": split, "srcc": srcc}
            for aspect, half in halves.items()
            for split, srcc in enumerate(half["srcc"])
        ],
    )
    plots.split_half_histograms(
        output.picture("raters_halves.png", what),
        {aspect: half["srcc"] for aspect, half in halves.items()},
        {aspect: half["mean"] for aspect, half in halves.items()},
        output.note,
    )
    return figures


def describe_markers(contents: Contents, output: Output) -> Figures | None:
    """Agreement of the markers on each category, and each marker's remarks and dots."""
    if contents.remarks is None:
        output.left_out["Agreement of the markers on categories"] = f"`{REMARKS}`"
        return None
    figures: Figures = asdict(contents.remarks.agreement)
    figures["undecided"] = list(contents.remarks.undecided)
    labels = contents.remarks.labels
    both = [video for video in labels if video in contents.categories]
    figures["compared_with_labels"] = len(both)
    figures["against_labels"] = sum(
        set(labels[video]) != set(contents.categories[video]) for video in both
    )
    dots = Counter()
    for known in contents.fixations.values():
        dots.update(known.dots)
    figures["dots"] = dict(sorted(dots.items()))
    output.table(
        "markers.csv",
        "agreement of the markers on each category",
        [
            {
                "category": category,
                "kappa": figures["kappa"][category],
                **{f"named_by_{k}": n for k, n in enumerate(figures["named_by"][category])},
            }
            for category in DISTORTIONS
        ],
    )
    return figures
