"""Predictions of one method against the labels of a data set: the first metrics (Section 5.1).

Correlations are raw, a dimension at a time; the accuracy of distortion answers is the mean Jaccard
index of the named and the true set; saliency is compared with the map (CC, SIM, KLD) and with the
marked points (AUC, NSS) at the strip's own size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.annotations.fixations import (
    fixation_map,
    looked_at,
    read_saliency,
    read_saliency_png,
)
from lmme3dhf.aspects import GEN3DHF, Aspects
from lmme3dhf.files import DamagedError, read_object
from lmme3dhf.metrics import metrics_of
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.metrics.levels import level_accuracy
from lmme3dhf.metrics.saliency import fixations_from_density, mean_scores, saliency_scores
from lmme3dhf.metrics.vqa import distortion_scores, majority_answer
from lmme3dhf.predictions import Prediction, PredictionError, require_predicted
from lmme3dhf.vocabulary import DISTORTIONS

_RESTORE = "copy it again from where the data set was drawn, or draw the data set again"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known of some videos.

    Attributes:
        aspects: What was rated, in the order of tables.
        mos: Aspect -> video -> MOS.
        levels: Aspect -> video -> level word.
        distortions: Video -> categories.
    """

    mos: dict[str, dict[str, float]]
    levels: dict[str, dict[str, str]]
    distortions: dict[str, frozenset[str]]
    aspects: Aspects = field(default_factory=lambda: GEN3DHF)

    @property
    def videos(self) -> list[str]:
        """Every labelled video, sorted."""
        tables = (*self.mos.values(), *self.levels.values(), self.distortions)
        return sorted({video for table in tables for video in table})


@dataclass(frozen=True, kw_only=True)
class Method:
    """The predictions of one method, for whatever videos it has them.

    Attributes:
        name: As in the tables.
        path: Where they were read.
        status: "real" for a run of ours, "retrained" or "external".
        lower_is_better: Whether its scores run against the scale of the aspect: lower is better
            where a higher opinion score is.
        scores: Aspect -> video -> score on any scale.
        answers: Video -> distortion categories in the order in which they were named; empty where
            none could be read in the answer.
        maps: Video -> file of the saliency map.
        leaking: Whether it is known to have seen labels of the test videos.
        notes: What a reader has to know.
        map_of: (video, (height, width)) -> map, of one that computes its maps; None where they are
            files.
    """

    name: str
    path: Path
    status: str = "external"
    lower_is_better: bool = False
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    maps: dict[str, Path] = field(default_factory=dict)
    leaking: bool = False
    notes: tuple[str, ...] = ()
    map_of: Callable[[str, tuple[int, int]], np.ndarray] | None = None

    @property
    def videos(self) -> set[str]:
        """Every video it says something about."""
        scored = (video for scores in self.scores.values() for video in scores)
        return {*scored, *self.answers, *self.maps}


def evaluate(
    predictions: Iterable[Prediction],
    labels: Labels,
    train_distortions: list[frozenset[str]] | None = None,
) -> dict[str, Any]:
    """Scores, levels and distortion answers of one method.

    Args:
        predictions: Records of one method; every labelled video of a dimension must be among them.
        labels: The labels of the test videos.
        train_distortions: Answers of the training videos, for the majority answer's accuracy.

    Returns:
        Nested figures, ready for JSON; undefined ones are NaN.

    Raises:
        PredictionError: There are no records, or those of several methods; a labelled video could
            not be predicted, has no prediction, or no score while others have one.
    """
    predictions = require_predicted(predictions, labels.videos)
    methods = {p.method for p in predictions}
    if len(methods) > 1:
        raise PredictionError(f"records of {', '.join(sorted(methods))}; evaluate one at a time")
    found = {(p.video, p.dimension): p for p in predictions}
    result: dict[str, Any] = {}
    right_levels: list[float] = []
    for dimension, aspect in labels.aspects.items():
        truth, levels = labels.mos.get(dimension, {}), labels.levels.get(dimension, {})
        missing = [v for v in dict.fromkeys([*truth, *levels]) if (v, dimension) not in found]
        if missing:
            raise PredictionError(
                f"{dimension}: {len(missing)} labelled videos have no prediction, the first is "
                f"{missing[0]}; predict them, or evaluate on fewer lists"
            )
        records = [found[video, dimension] for video in truth]
        scored = [record.score is not None for record in records]
        if any(scored) and not all(scored):
            raise PredictionError(
                f"{dimension}: {scored.count(False)} of {len(scored)} records have no score, the "
                f"first is {records[scored.index(False)].video}"
            )
        if any(scored):
            predicted_N = np.array([record.score for record in records])
            mos_N = np.array(list(truth.values()))
            agreement = correlations(predicted_N, mos_N)
            result[dimension] = {
                key: metric.measure(predicted_N, mos_N)
                for key, metric in metrics_of("scores").items()
                if metric.shown
            } | {"n": agreement.n}
            if agreement.reason is not None:
                result[dimension]["reason"] = agreement.reason
        said = [found[video, dimension].level for video in levels]
        # Without a single word nobody was asked for one.
        if any(word is not None for word in said):
            accuracy = level_accuracy(said, list(levels.values()), aspect.scale.levels)
            result.setdefault("level", {})[dimension] = accuracy
            right_levels += [accuracy] * len(levels)
    if right_levels:
        result["level"]["accuracy"] = float(np.mean(right_levels))
    answered = {
        p.video: frozenset(p.distortions) for p in found.values() if p.distortions is not None
    }
    if labels.distortions and answered:
        missing = [video for video in labels.distortions if video not in answered]
        if missing:
            raise PredictionError(
                f"distortion: {len(missing)} labelled videos have no answer, the first is "
                f"{missing[0]}"
            )
        videos = list(labels.distortions)
        truth_sets = list(labels.distortions.values())
        scores = distortion_scores([answered[video] for video in videos], truth_sets, DISTORTIONS)
        result["distortion"] = {
            "accuracy": scores.jaccard,
            "exact": scores.exact,
            "recall": scores.recall,
            "support": scores.support,
            "n": scores.n,
        }
        if train_distortions:
            always = majority_answer(train_distortions)
            floor = distortion_scores([always] * len(truth_sets), truth_sets, DISTORTIONS)
            result["distortion"]["majority"] = floor.jaccard
            result["distortion"]["majority_answer"] = sorted(always)
    return result


def evaluate_maps(
    predicted: dict[str, Path],
    truth: Path,
    points: dict[str, list[tuple[float, float]]] | None,
    train_videos: list[str],
    videos: list[str],
) -> dict[str, Any]:
    """Saliency maps of one method, with the mean training map as the floor.

    Args:
        predicted: Video -> 8-bit map of the strip's size.
        truth: Folder of the ground-truth maps.
        points: Video -> marked points in the strip. None where they are not known, as in the
            release: pixels of at least 0.95 of the map's peak then stand for them (the rule of the
            released `create_fixations.py`; it loses overlapping points).
        train_videos: Videos whose maps are averaged into the floor; clean ones are all zero.
            Empty for no floor.
        videos: The test videos; each must have a predicted map. Those with neither map nor entry
            among the points are left out: no marker looked at them.

    Returns:
        Mean figures over the maps where they are defined, `n`, how many were skipped because the
        ground truth is empty, and the floor's `cc` and `auc` as `mean_map_cc` and `mean_map_auc`;
        `not_looked_at` lists the videos that were left out, where there are any.

    Raises:
        PredictionError: A test video has no predicted map, or no marked points entry.
    """
    train_videos, _ = looked_at(train_videos, truth, points)
    videos, unmarked = looked_at(videos, truth, points)
    if not videos:
        raise PredictionError(
            f"{truth}: no marker looked at any of the test videos; have some of them marked, or "
            "leave the maps out (--saliency_maps)"
        )
    absent = [video for video in videos if video not in predicted]
    if absent:
        raise PredictionError(
            f"saliency: {len(absent)} of {len(videos)} test videos have no predicted map, the "
            f"first is {absent[0]}"
        )
    mean_map = None
    if train_videos:
        mean_map = np.mean([read_saliency(truth, video) for video in train_videos], axis=0)
    ours, floor = [], []
    for video in videos:
        density = read_saliency(truth, video)
        if points is not None:
            if video not in points:
                raise PredictionError(f"{video} is not in the file of marked points; add it there")
            fixations = fixation_map(points[video], *density.shape)
        else:
            fixations = fixations_from_density(density, "released")
        ours.append(saliency_scores(read_saliency_png(predicted[video]), density, fixations))
        if mean_map is not None:
            floor.append(saliency_scores(mean_map, density, fixations))
    result = mean_scores(ours) | {
        "fixations": "marked points" if points is not None else "map >= 0.95"
    }
    if unmarked:
        result["not_looked_at"] = unmarked
    if floor:
        base = mean_scores(floor)
        result |= {"mean_map_cc": base["cc"], "mean_map_auc": base["auc"]}
    return result


def opinion_ceiling(
    truth: Path, mos: dict[str, dict[str, float]], videos: Iterable[str]
) -> dict[str, float]:
    """SRCC that the true opinions of synthetic videos reach against the raters' MOS: nobody who
    knows everything but the raters' noise does better.

    Args:
        truth: `truth.json` of a synthetic data set.
        mos: Aspect -> video -> MOS.
        videos: The test videos.

    Raises:
        DamagedError: See `true_opinions`.
    """
    opinions, videos = true_opinions(truth), list(videos)
    if absent := set(videos) - next(iter(opinions.values())).keys():
        raise DamagedError(f"{truth}: damaged, it lacks {min(absent)}; {_RESTORE}")
    return {
        dimension: correlations(
            np.array([opinions[dimension][video] for video in videos]),
            np.array([mos[dimension][video] for video in videos]),
        ).srcc
        for dimension in opinions
    }


def true_opinions(truth: Path) -> dict[str, dict[str, float]]:
    """Dimension -> video -> what was planted in synthetic videos, by `truth.json`.

    Raises:
        DamagedError: The file is damaged.
    """
    planted = read_object(truth, _RESTORE)
    try:
        return {
            dimension: {video: float(about["opinion"][index]) for video, about in planted.items()}
            for index, dimension in enumerate(GEN3DHF)  # what the renderer plants
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DamagedError(f"{truth}: damaged, an opinion is missing; {_RESTORE}") from error
