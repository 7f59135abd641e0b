"""Opinion scores, their levels, and the generators behind them (paper, Section 3.4 and Fig. 2)."""

from itertools import combinations

import numpy as np

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.levels import fit_level_scale
from lmme3dhf.aspects import Aspect, Scale
from lmme3dhf.data import generator_statistics, statistics
from lmme3dhf.data.gen3dhf import UNNAMED_LEVEL
from lmme3dhf.data.statistics import Figures
from lmme3dhf.describe.contents import Contents
from lmme3dhf.describe.output import Output
from lmme3dhf.reports import plots


def describe_scores(contents: Contents, output: Output) -> Figures | None:
    """Distribution of the scores (Fig. 2a), part by part, and of each two aspects."""
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
        for name, scores in within.items():
            if scores:
                summary.setdefault(name, {})[part] = statistics.summarise(scores)
        for first, second in combinations(within, 2):
            pair = part if len(within) == 2 else f"{first} against {second}, {part}"
            together[pair] = statistics.agreement(within[first], within[second])
    scale, shown = contents.comparable()
    bins, curves = statistics.histogram(shown, scale), statistics.density(shown, scale)
    output.table("fig2a_mos.csv", "videos in each bin of the scores", bins)
    output.table("fig2a_density.csv", "density of the scores", curves)
    path = output.picture("fig2a_mos.png", "distribution of the scores")
    plots.mos_distributions(path, bins, curves, scale, output.note)
    output.table(
        "scores.csv",
        "number, extremes, mean, deviation, percentiles and skew of the scores",
        [
            {"dimension": name, "part": part, **figures}
            for name, by_part in summary.items()
            for part, figures in by_part.items()
        ],
    )
    peaks = {}
    for name in mos:
        defined = [point for point in curves if not np.isnan(point[name])]
        highest = max(defined, key=lambda point: point[name], default=None)
        peaks[name] = None if highest is None else highest["score"]
    return {"summary": summary, "between_dimensions": together, "densest_at": peaks}


def describe_levels(contents: Contents, output: Output) -> Figures | None:
    """Level edges, videos of each level as listed and by Eq. 4, and where these differ."""
    figures: Figures = {}
    rows = []
    for name, aspect in contents.aspects.items():
        mos, listed = contents.mos.get(name, {}), contents.words(name)
        levels = aspect.scale.levels
        if not levels or not (mos or listed):
            continue
        scales = _fitted_scales(contents, aspect, output)
        known = dict(scales)
        if name in contents.scales:
            known = {"levels.json": contents.scales[name], **scales}
        one: Figures = {
            "edges": {source: list(scale.edges) for source, scale in known.items()},
            "as_listed": (
                statistics.levels(listed, mos, contents.parts, levels) if listed else None
            ),
            "by_equation_4": None,
        }
        scale = scales.get("train", scales.get("all"))
        if scale is not None:
            words = {video: scale.level(score) for video, score in mos.items()}
            one["by_equation_4"] = statistics.levels(words, mos, contents.parts, levels)
            named = {v: w for v, w in listed.items() if w != UNNAMED_LEVEL and v in words}
            one["compared"] = len(named)
            one["listed_against_equation_4"] = sum(words[v] != w for v, w in named.items())
        for source in ("as_listed", "by_equation_4"):
            for part, counts in one[source]["counts"].items() if one[source] else ():
                rows.append({"dimension": name, "levels": source, "part": part, **counts})
        figures[name] = one
    if not figures:
        return None
    output.table("levels.csv", "videos of each level, part by part", rows)
    return figures


def _fitted_scales(contents: Contents, aspect: Aspect, output: Output) -> dict[str, Scale]:
    """ "all" and "train" -> the scale with the edges that Eq. 4 makes of these scores, where it
    makes any.
    """
    mos = contents.mos.get(aspect.name, {})
    scales = {}
    for part, videos in {"all": mos, "train": contents.parts.get("train", ())}.items():
        scores = [mos[video] for video in videos if video in mos]
        if scores:
            try:
                scales[part] = fit_level_scale(np.array(scores), aspect)
            except AnnotationError as error:
                what = f"Levels of the {aspect.name} scores of {part} by Eq. 4"
                output.left_out[what] = str(error)
    return scales


def describe_generators(contents: Contents, output: Output) -> Figures | None:
    """Mean scores of the generators (Fig. 2b), what they alone predict of eval, and the evidence
    that a clip's number holds its generator.
    """
    mos = contents.mos
    if not mos:
        return None
    what = "mean score of each generator"
    scale, shown = contents.comparable()
    rows = generator_statistics.per_generator(shown)
    output.table("fig2b_generators.csv", what, rows)
    path = output.picture("fig2b_generators.png", what)
    plots.generator_bars(path, rows, scale, output.note)
    figures: Figures = {
        "rows": rows,
        "dealt_out": generator_statistics.dealt_out(contents.parts, contents.videos),
        "floor": {
            name: generator_statistics.generator_floor(scores, contents.parts)
            for name, scores in mos.items()
        },
        "latents": {d: generator_statistics.latents(scores) for d, scores in mos.items()},
        "partition": generator_statistics.partition(shown),
    }
    output.table(
        "latents.csv",
        "correlation of the scores of two generators over their common latents",
        [
            {"dimension": name, **pair}
            for name, one in figures["latents"].items()
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
