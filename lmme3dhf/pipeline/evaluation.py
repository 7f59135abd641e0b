"""Predictions in a file against the labels in a data set's lists."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.annotations.fixations import read_fixations, write_saliency_png
from lmme3dhf.aspects import GEN3DHF, Aspects
from lmme3dhf.baselines import BASELINES
from lmme3dhf.comparison.floors import map_size, setting_of
from lmme3dhf.comparison.methods import read_map
from lmme3dhf.comparison.sources import labels_of, read_source
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.errors import UserError
from lmme3dhf.predictions import (
    Prediction,
    map_path,
    read_predictions,
    require_predicted,
    write_predictions,
)
from lmme3dhf.progress import with_progress
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
    labels, train = (
        labels_of(
            (s for p in paths for s in read_list(p, aspects=aspects, allow_outside=True)), aspects
        )
        for paths in (lists, train_lists or [])
    )
    records = require_predicted(read_predictions(predictions), labels.videos, str(predictions))
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


def write_baseline(name: str, data: Path, out: Path, part: str = "eval") -> int:
    """Writes what a baseline says as prediction records, its maps beside them.

    Args:
        name: An entry of `BASELINES`.
        data: Folder of the data set with its training part.
        out: JSONL to write.
        part: Part of the data set that is predicted.

    Returns:
        Number of records.

    Raises:
        UserError: An unknown baseline, or labels that it needs are not there.
    """
    if name not in BASELINES:
        raise UserError(
            f"baseline {name!r} is not one of {', '.join(BASELINES)}; `--plugin MODULE` adds others"
        )
    source = read_source(data=data, part=part)
    setting = setting_of(source, source.rounds[0])
    said = BASELINES[name].run(setting)
    if said is None:
        raise UserError(
            f"{data}: the labels that {name} needs are not there; it looks at the part 'train'"
        )
    maps = out.with_name(f"{out.stem}_maps") if said.map_of or said.maps else None
    shape = None
    if maps is not None:
        maps.mkdir(parents=True, exist_ok=True)
        shape = map_size(source)
    records = []
    for video in with_progress(list(setting.media), name, len(setting.media)):
        written = None
        if maps is not None:
            file = said.maps.get(video)
            map_HW = said.map_of(video, shape) if file is None else read_map(file, shape)[0]
            write_saliency_png(maps / f"{video}.png", np.clip(map_HW, 0, 1))
            written = f"{maps.name}/{video}.png"
        scores = {aspect: said.scores.get(aspect, {}).get(video) for aspect in source.aspects}
        for aspect, score in scores.items():
            records.append(
                Prediction(
                    video=video,
                    dimension=aspect,
                    method=BASELINES[name].title,
                    score=score,
                    distortions=said.answers.get(video),
                    map=written,
                )
            )
    return write_predictions(out, records)


def _majority_level(labels: Labels, train: Labels) -> float:
    shares = []
    for dimension in (name for name in train.levels if labels.levels.get(name)):
        (level, _), *_ = Counter(train.levels[dimension].values()).most_common(1)
        truth = list(labels.levels[dimension].values())
        shares.append(truth.count(level) / len(truth))
    return float(np.mean(shares))
