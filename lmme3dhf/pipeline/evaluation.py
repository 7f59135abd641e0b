"""Predictions in a file against the labels in a data set's lists."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.annotations.fixations import read_fixations
from lmme3dhf.aspects import GEN3DHF, Aspects
from lmme3dhf.comparison.sources import labels_of
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.predictions import map_path, read_predictions, require_predicted
from lmme3dhf.reports.evaluation import Labels, evaluate, evaluate_maps


def evaluate_file(
    predictions: Path,
    lists: list[Path],
    *,
    train_lists: list[Path] | None = None,
    maps: Path | None = None,
    fixations: Path | None = None,
    aspects: Aspects | None = None,
) -> dict[str, Any]:
    """Every metric that a predictions file and some lists allow.

    Args:
        predictions: JSONL of one method.
        lists: Lists with the labels of the test videos.
        train_lists: Lists of the training videos, for the floors (majority answers, mean map).
        maps: Folder of the ground-truth maps.
        fixations: `fixations.json`, the marked points.
        aspects: What was rated; None for Gen3DHF's.

    Raises:
        PredictionError: A labelled video could not be predicted or has no prediction, or the file
            cannot be read.
    """
    aspects = aspects or GEN3DHF
    labels = labels_of(
        (sample for path in lists for sample in read_list(path, allow_outside=True)), aspects
    )
    records = require_predicted(read_predictions(predictions), labels.videos, str(predictions))
    train = labels_of(
        (sample for path in train_lists or [] for sample in read_list(path, allow_outside=True)),
        aspects,
    )
    figures = evaluate(records, labels, list(train.distortions.values()))
    if "level" in figures and train.levels:
        figures["level"]["majority"] = _majority_level(labels, train)
    predicted = {record.video: map_path(record, predictions) for record in records if record.map}
    if maps is not None and predicted:
        points = None
        if fixations is not None:
            points = {video: f.points for video, f in read_fixations(fixations).items()}
        figures["saliency"] = evaluate_maps(predicted, maps, points, train.videos, labels.videos)
    return figures


def _majority_level(labels: Labels, train: Labels) -> float:
    shares = []
    for dimension in (name for name in train.levels if labels.levels.get(name)):
        (level, _), *_ = Counter(train.levels[dimension].values()).most_common(1)
        truth = list(labels.levels[dimension].values())
        shares.append(truth.count(level) / len(truth))
    return float(np.mean(shares))
