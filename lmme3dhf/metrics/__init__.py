"""Metrics of the paper's Section 5 as pure functions on arrays and labels; no torch, no files.

`METRICS` lists those of the tables and reports. Another one is a function and an entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.metrics.levels import level_scores
from lmme3dhf.metrics.vqa import ACCURACIES, distortion_scores


@dataclass(frozen=True, kw_only=True)
class Metric:
    """An entry of `METRICS`.

    Attributes:
        of: What it measures, and so what `measure` is given and which table has it:
            "scores": predicted and opinion scores of N videos, two float arrays (N,);
            "levels": level words (None for no word), true words, and the scale's words from the
            lowest scores to the highest;
            "answers": distortion categories as they were named, and the true sets;
            "maps": predicted map, ground-truth density and boolean fixations, arrays (H, W), of a
            video on which something is marked.
        measure: Returns a number, NaN where it is undefined. None for a map metric that
            `saliency_scores` computes together with the others.
        title: In the head of a table.
        higher: Whether a higher value is better; None where neither is.
        definition: One sentence without its subject, for the report.
        percent: Whether tables show 100 times the number.
        decimals: Digits after the point in a table.
        shown: Whether the printed table shows it; the CSV has it anyway.
    """

    of: str
    measure: Callable[..., float] | None
    title: str
    higher: bool | None
    definition: str
    percent: bool = False
    decimals: int = 4
    shown: bool = True


def _correlation(name: str) -> Callable[..., float]:
    return lambda predicted_N, mos_N: getattr(correlations(predicted_N, mos_N), name)


def _level(name: str) -> Callable[..., float]:
    return lambda said, truth, words: getattr(level_scores(said, truth, words), name)


def _answer(name: str) -> Callable[..., float]:
    return lambda named, truth: getattr(distortion_scores(named, truth), name)


def _scores(name: str, title: str, definition: str, **more: Any) -> Metric:
    more = {"higher": True} | more
    measure = _correlation(name)
    return Metric(of="scores", measure=measure, title=title, definition=definition, **more)


def _levels(name: str, title: str, definition: str, **more: Any) -> Metric:
    more = {"percent": True, "decimals": 1} | more
    measure = _level(name)
    return Metric(
        of="levels", measure=measure, title=title, higher=True, definition=definition, **more
    )


def _answers(name: str, title: str, definition: str, **more: Any) -> Metric:
    return Metric(
        of="answers",
        measure=_answer(name),
        title=title,
        higher=True,
        definition=definition,
        percent=True,
        decimals=2,
        **more,
    )


def _maps(title: str, definition: str, **more: Any) -> Metric:
    more = {"higher": True} | more
    return Metric(of="maps", measure=None, title=title, definition=definition, **more)


METRICS: dict[str, Metric] = {
    "srcc": _scores("srcc", "SRCC", "Spearman's correlation of predicted and opinion scores"),
    "plcc": _scores(
        "plcc", "PLCC", "Pearson's correlation, raw unless its column says which curve was fitted"
    ),
    "krcc": _scores("krcc", "KRCC", "Kendall's correlation (tau-b)"),
    "rmse": _scores("rmse", "RMSE", "root of the mean squared error", higher=False, shown=False),
    "mae": _scores("mae", "MAE", "mean absolute error", higher=False, shown=False),
    "level_accuracy": _levels("accuracy", "accuracy (%)", "share of videos with the true level"),
    "level_within_one": _levels(
        "within_one", "within one (%)", "share of videos with the true level or a neighbour of it"
    ),
    "level_macro_f1": _levels("macro_f1", "macro F1 (%)", "mean of the levels' F1"),
    "level_kappa": _levels(
        "kappa",
        "kappa",
        "Cohen's kappa with quadratic weights; 0 for an answer that knows nothing of the clip",
        percent=False,
        decimals=3,
    ),
    "jaccard": _answers("jaccard", "Jaccard (%)", ACCURACIES["jaccard"]),
    "exact": _answers("exact", "exact (%)", ACCURACIES["exact"]),
    "top1": _answers("top1", "top-1 (%)", ACCURACIES["top1"]),
    "macro_f1": _answers("macro_f1", "macro F1 (%)", "mean of the categories' F1"),
    "micro_f1": _answers(
        "micro_f1", "micro F1 (%)", "F1 of all categories counted together", shown=False
    ),
    "auc": _maps(
        "AUC",
        "chance that a marked pixel has a higher value than an unmarked one (Mann-Whitney, ties "
        "one half); those of Judd, Borji and with other clips' points are in the CSV, in "
        "expectation in place of random draws",
    ),
    "nss": _maps("NSS", "mean standardised value at the marked pixels"),
    "cc": _maps("CC", "Pearson's correlation with the map"),
    "sim": _maps("SIM", "what both maps share (histogram intersection)"),
    "kld": _maps("KLD", "what the prediction loses of the map, in nat", higher=False),
}


def metrics_of(kind: str) -> dict[str, Metric]:
    """The entries of one kind: "scores", "levels", "answers" or "maps"."""
    return {name: metric for name, metric in METRICS.items() if metric.of == kind}


def measured(kind: str, *arguments: Any) -> dict[str, float]:
    """Every metric of one kind that has a function of its own, in percent where tables have it so.

    Args:
        kind: See `Metric.of`.
        arguments: What the functions take.
    """
    return {
        name: (100 if metric.percent else 1) * float(metric.measure(*arguments))
        for name, metric in metrics_of(kind).items()
        if metric.measure is not None
    }
