"""Opinion scores, their levels, and the generators behind them (paper, Section 3.4 and Fig. 2)."""

import numpy as np

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.levels import LevelScale, fit_level_scale
from lmme3dhf.data import generator_statistics, statistics
from lmme3dhf.data.statistics import UNNAMED_LEVEL, Figures
from lmme3dhf.describe.contents import Contents
from lmme3dhf.describe.output import Output
from lmme3dhf.reports import plots
from lmme3dhf.vocabulary import DIMENSIONS


def describe_scores(contents: Contents, output: Output) -> Figures | None:
    """Distribution of the scores (Fig. 2a), part by part, and of one dimension with the other."""
    mos = contents.mos
    if not mos:
        output.left_out["Opinion scores and their levels (Fig. 2)"] = (
            "`MOS.json`, or lists in `numerical/`"
        )
        return None
    summary: Figures = {}
    together: Figures = {}
    for part, videos in {"all": contents.videos, **contents.parts}.items():
        within = {d: {v: scores[v] for v in videos if v in scores} for d, scores in mos.items()}
        for dimension, scores in within.items():
            if scores:
                summary.setdefault(dimension, {})[part] = statistics.summarise(scores)
        if len(within) > 1:
            together[part] = statistics.agreement(*within.values())
    bins, curves = statistics.histogram(mos), statistics.density(mos)
    output.table("fig2a_mos.csv", "videos in each bin of the scores", bins)
    output.table("fig2a_density.csv", "density of the scores", curves)
    path = output.picture("fig2a_mos.png", "distribution of the scores")
    plots.mos_distributions(path, bins, curves, output.note)
    output.table(
        "scores.csv",
        "number, extremes, mean, deviation, percentiles and skew of the scores",
        [
            {"dimension": dimension, "part": part, **figures}
            for dimension, by_part in summary.items()
            for part, figures in by_part.items()
        ],
    )
    peaks = {}
    for dimension in mos:
        defined = [point for point in curves if not np.isnan(point[dimension])]
        highest = max(defined, key=lambda point: point[dimension], default=None)
        peaks[dimension] = None if highest is None else highest["score"]
    return {"summary": summary, "between_dimensions": together, "densest_at": peaks}


def describe_levels(contents: Contents, output: Output) -> Figures | None:
    """Level edges, videos of each level as listed and by Eq. 4, and where these differ."""
    figures: Figures = {}
    rows = []
    for dimension in DIMENSIONS:
        mos, listed = contents.mos.get(dimension, {}), contents.words(dimension)
        if not mos and not listed:
            continue
        scales = _fitted_scales(contents, dimension, output)
        known = dict(scales)
        if dimension in contents.scales:
            known = {"levels.json": contents.scales[dimension], **scales}
        one: Figures = {
            "edges": {source: list(scale.edges) for source, scale in known.items()},
            "as_listed": statistics.levels(listed, mos, contents.parts) if listed else None,
            "by_equation_4": None,
        }
        scale = scales.get("train", scales.get("all"))
        if scale is not None:
            words = {video: scale.level(score) for video, score in mos.items()}
            one["by_equation_4"] = statistics.levels(words, mos, contents.parts)
            named = {v: w for v, w in listed.items() if w != UNNAMED_LEVEL and v in words}
            one["compared"] = len(named)
            one["listed_against_equation_4"] = sum(words[v] != w for v, w in named.items())
        for source in ("as_listed", "by_equation_4"):
            for part, counts in one[source]["counts"].items() if one[source] else ():
                rows.append({"dimension": dimension, "levels": source, "part": part, **counts})
        figures[dimension] = one
    if not figures:
        return None
    output.table("levels.csv", "videos of each level, part by part", rows)
    return figures


def _fitted_scales(contents: Contents, dimension: str, output: Output) -> dict[str, LevelScale]:
    """ "all" and "train" -> the scale that Eq. 4 makes of these scores, where it makes one."""
    mos = contents.mos.get(dimension, {})
    scales = {}
    for part, videos in {"all": mos, "train": contents.parts.get("train", ())}.items():
        scores = [mos[video] for video in videos if video in mos]
        if scores:
            try:
                scales[part] = fit_level_scale(np.array(scores), dimension)
            except AnnotationError as error:
                output.left_out[f"Levels of the {dimension} scores of {part} by Eq. 4"] = str(error)
    return scales


def describe_generators(contents: Contents, output: Output) -> Figures | None:
    """Mean scores of the generators (Fig. 2b), what they alone tell of eval, and the evidence that
    a clip's number holds its generator.
    """
    mos = contents.mos
    if not mos:
        return None
    what = "mean score of each generator"
    rows = generator_statistics.per_generator(mos)
    output.table("fig2b_generators.csv", what, rows)
    plots.generator_bars(output.picture("fig2b_generators.png", what), rows, output.note)
    figures: Figures = {
        "rows": rows,
        "dealt_out": generator_statistics.dealt_out(contents.parts, contents.videos),
        "floor": {
            dimension: generator_statistics.generator_floor(scores, contents.parts)
            for dimension, scores in mos.items()
        },
        "latents": {d: generator_statistics.latents(scores) for d, scores in mos.items()},
        "partition": generator_statistics.partition(mos),
    }
    output.table(
        "latents.csv",
        "correlation of the scores of two generators over their common latents",
        [
            {"dimension": dimension, **pair}
            for dimension, one in figures["latents"].items()
            for pair in one["pairs"]
        ],
    )
    if contents.parts and None in figures["floor"].values():
        output.left_out["The floor of a predictor that knows the generator"] = (
            "scores of videos in `train` and in `eval`"
        )
    partition = figures["partition"]
    if partition is None:
        output.left_out["Evidence that a clip's number divided by 200 is its generator"] = (
            "scores that differ, for every number from the first to the last of two generators"
        )
        return figures
    eta2, period = partition["eta2"], partition["period"]
    what = "variance explained by blocks of 200 numbers, by where they begin"
    table = [
        {"offset": offset, **{d: shares[offset] for d, shares in eta2.items()}}
        for offset in range(period)
    ]
    output.table("partition.csv", what, table)
    plots.partition_curves(output.picture("partition.png", what), eta2, period, output.note)
    return figures
