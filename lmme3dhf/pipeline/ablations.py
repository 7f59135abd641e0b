"""The rows of Tables 4 and 5, and some of our own: trained, predicted, kept one folder a row.

The rows are data (`configs/ablations.yaml`); what they have in common with the run they share with
it: they start from its models, and read its stores of features. The predictions of a row are an
ordinary predictions file, from which the tables are made like any method's.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmme3dhf.config import Ablation, Config, to_plain, with_settings
from lmme3dhf.files import read_object, write_json
from lmme3dhf.pipeline.chain import open_job, run_chain, test_samples, train_and_merge
from lmme3dhf.predictions import Prediction, read_predictions, write_predictions
from lmme3dhf.scorer import Scorer, aspects_of_folder
from lmme3dhf.stages.predict import predict
from lmme3dhf.stages.run import MERGED, aspects_at, base_folder, check_trainer, listed_samples
from lmme3dhf.stages.score import read_scores, with_edges
from lmme3dhf.stages.table import model_key
from lmme3dhf.training import TrainingError

FOLDER, ROWS, ROW = "ablations", "rows.json", "row.json"
PREDICTIONS = "predictions.jsonl"
# What of a row decides its numbers; titles and notes may change.
_DECISIVE = ("start", "stages", "scores", "answers", "maps", "settings", "factors")
# How many times longer a stage takes whose vision tower trains; for the estimate of the end alone.
_TRAINED_TOWER = 3.0


def run_ablations(
    config: Config, out: Path, rows: Sequence[Ablation], only: Sequence[str] = ()
) -> Path:
    """Runs the chain where it is not there yet, then every row; both go on after a kill.

    Args:
        config: Settings of the chain.
        out: Folder of the chain; the rows come below `out/ablations`.
        rows: From `load_ablations`.
        only: Ids of the rows to run, with those that they start from; empty for all.

    Returns:
        `out/ablations/rows.json`, which lists the finished rows in the order of `rows`.

    Raises:
        TrainingError: `only` names no row, or a row was run with other settings before.
    """
    unknown = set(only) - {row.id for row in rows}
    if unknown:
        known = ", ".join(row.id for row in rows)
        raise TrainingError(f"ablation {sorted(unknown)[0]!r} is not one of {known}")
    changed = {row.id: with_settings(config, row.settings, row.factors) for row in rows}
    for row in rows:
        for stage in row.stages:
            check_trainer(changed[row.id], stage)
    config = open_job(config, out)
    job = run_chain(config, out)
    cost = {name: step["seconds"] for name, step in job.done.items()}
    wanted = _with_starts(rows, only or [row.id for row in rows])
    changed = {row.id: with_settings(config, row.settings, row.factors) for row in rows}
    models = {
        "base": config.model,
        "text": str(out / "stage1" / MERGED),
        "score": str(out / "stage2" / MERGED),
        "saliency": str(out / "model"),
    }
    expected = {
        row.id: 0.0
        if (out / FOLDER / row.id / ROW).exists()
        else _expected_seconds(row, changed[row.id], cost)
        for row in wanted
    }
    left = dict(expected)
    for number, row in enumerate(wanted, 1):
        folder = out / FOLDER / row.id
        of_row = replace(changed[row.id], model=models[row.start])
        print(
            f"== row {number} of {len(wanted)}, {row.id}: {row.title}; "
            f"about {sum(left.values()):.0f} s left in all",
            flush=True,
        )
        models[row.id], seconds = _run_row(row, of_row, out, folder)
        del left[row.id]
        if row.stages and expected[row.id]:
            print(f"{row.id}: {seconds:.0f} s", flush=True)
    return _write_rows(out, rows)


def _is_run(row: Ablation) -> bool:
    """Whether the row is about the run's own finished model."""
    return row.start == "saliency" and not row.stages


def _with_starts(rows: Sequence[Ablation], ids: Iterable[str]) -> list[Ablation]:
    by_id, needed = {row.id: row for row in rows}, set()
    for name in ids:
        while name in by_id and name not in needed:
            needed.add(name)
            name = by_id[name].start
    return [row for row in rows if row.id in needed]


def _expected_seconds(row: Ablation, config: Config, cost: dict[str, float]) -> float:
    stages = {"text": "stage 1", "score": "stage 2", "saliency": "stage 3"}
    seconds = sum(cost[stages[stage]] for stage in row.stages)
    if config.lora.vision:
        seconds *= _TRAINED_TOWER
    return seconds + (cost["predict"] if row.stages else 0)


def _run_row(row: Ablation, config: Config, out: Path, folder: Path) -> tuple[str, float]:
    """Trains and predicts a row; returns the folder of its model, and the seconds of this call."""
    started = time.monotonic()
    settings = to_plain(row)
    before = _read_row(folder)
    changed = [name for name in _DECISIVE if before and _differ(before["row"], settings, name)]
    if changed:
        raise TrainingError(
            f"{folder} was run as another row ({', '.join(changed)} differ); move it away to run "
            "it anew, or give the row another id"
        )
    for stage in row.stages:
        run = folder / stage
        train_and_merge(stage, config, run)  # a finished run is compared with what is asked for
        config = replace(config, model=str(run / MERGED))
    model = model_key(base_folder(config))
    if before and before.get("model", model) != model:
        raise TrainingError(
            f"{folder} was predicted with another model than {config.model}; move it away to run "
            "it anew"
        )
    if before:
        _check_predicted(_predictions(row, out), config)
    else:
        _predict_row(row, config, out, folder / PREDICTIONS)
        seconds = time.monotonic() - started
        write_json(folder / ROW, {"row": settings, "model": model, "seconds": seconds})
    return config.model, time.monotonic() - started


def _read_row(folder: Path) -> dict[str, Any]:
    """The content of a finished row's `row.json`; empty without one.

    Raises:
        DamagedError: It is damaged.
    """
    path = folder / ROW
    if not path.exists():
        return {}
    mend = "delete it, and the same command makes the row again"
    return read_object(path, mend, {"row": dict, "seconds": (int, float)})


def _check_predicted(path: Path, config: Config) -> None:
    """Raises where a finished row has lost predictions."""
    there = {record.video for record in read_predictions(path)} if path.is_file() else set()
    lost = sorted({sample.video for sample in test_samples(config)} - there)
    if lost:
        raise TrainingError(
            f"{path}: {len(lost)} videos of the test are missing, the first is {lost[0]}; restore "
            f"it, or delete it and {ROW} beside it, and the same command predicts again"
        )


def _predictions(row: Ablation, out: Path) -> Path:
    """The finished model's records, with their maps, are the run's own."""
    own = _is_run(row) and row.scores == "head"
    return out / PREDICTIONS if own else out / FOLDER / row.id / PREDICTIONS


def _differ(before: dict[str, Any], now: dict[str, Any], name: str) -> bool:
    # What is empty may also be absent: the row is from before there was such a thing.
    return (before.get(name) or None) != (now.get(name) or None)


def _predict_row(row: Ablation, config: Config, out: Path, path: Path) -> None:
    if _is_run(row):
        if row.scores != "head":
            _rewrite(out / PREDICTIONS, path, row, config)
        return
    if row.scores == "head" and config.score.read != "answer":
        lists = [f"numerical/eval_{dimension}.json" for dimension in aspects_at(config)]
        scores = read_scores(config, base_folder(config), lists)
        write_predictions(
            path,
            [
                Prediction(video=video, dimension=dimension, method=row.id, score=score)
                for (video, dimension), score in scores.items()
            ],
        )
        return
    model = base_folder(config)
    predict(
        lambda: Scorer.from_pretrained(
            model,
            batch_size=config.batch_size,
            workers=config.data.workers,
            scores=row.scores == "head",
            verify=False,  # done
        ),
        test_samples(config),
        path,
        model=model_key(model),
        aspects=aspects_of_folder(model),
        ratings=row.scores != "none",
        scores=row.scores == "head",
        answers="likelihood" if row.answers else None,
        maps=row.maps,
    ).require_all()
    if row.scores in ("level", "level_probabilities"):
        _rewrite(path, path, row, config)


def _rewrite(source: Path, path: Path, row: Ablation, config: Config) -> None:
    """The records of `source` under the row's name, with its scores and what counts of it."""
    records = read_predictions(source)
    if row.scores.startswith("level"):
        centres = _level_centres(config)
        records = [replace(r, score=_from_level(r, row.scores, centres)) for r in records]
    kept = {"method": row.id, "map": None}
    if not row.answers:
        kept["distortions"] = None
    write_predictions(path, [replace(record, **kept) for record in records])


def _level_centres(config: Config) -> dict[str, dict[str, float]]:
    samples = listed_samples(config, list(config.score.lists))
    return {
        name: {
            level: (low + high) / 2
            for level, low, high in zip(scale.levels, scale.edges, scale.edges[1:], strict=False)
        }
        for name, aspect in with_edges(aspects_at(config), config.data.root, samples).items()
        if (scale := aspect.scale).edges
    }


def _from_level(record: Prediction, kind: str, centres: dict[str, dict[str, float]]) -> float:
    """The score that a level, or the mean under the level distribution, stands for (0-100)."""
    of_dimension = centres[record.dimension]
    if kind == "level":
        return of_dimension[record.level]
    shares: dict[str, Any] = record.level_probabilities
    return sum(of_dimension[level] * p for level, p in shares.items()) / sum(shares.values())


def _write_rows(out: Path, rows: Sequence[Ablation]) -> Path:
    listed = []
    for row in rows:
        if about := _read_row(out / FOLDER / row.id):
            listed.append(
                {
                    **dataclasses.asdict(row),
                    "predictions": _predictions(row, out).relative_to(out).as_posix(),
                    "seconds": about["seconds"],
                }
            )
    path = out / FOLDER / ROWS
    write_json(path, listed)
    return path
