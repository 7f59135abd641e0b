"""The main job: the chain on a synthetic data set, its page, and clips of your own scored last."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmme3dhf.annotations.fixations import (
    looked_at,
    read_fixations,
    read_saliency,
    read_saliency_png,
)
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.assessment import FLAG, on_scale
from lmme3dhf.comparison.sources import labels_of, part_lists
from lmme3dhf.config import Config
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.sources import files_below
from lmme3dhf.files import replace_file, write_json
from lmme3dhf.pipeline.chain import open_job, run_chain
from lmme3dhf.predictions import map_path, read_predictions
from lmme3dhf.reports.evaluation import Labels
from lmme3dhf.reports.markdown import demo_report
from lmme3dhf.reports.plots import loss_curves, recall_bars, saliency_overlays, score_scatter
from lmme3dhf.scorer import Scorer, aspects_of_folder
from lmme3dhf.scores import ScoreRow, read_scores
from lmme3dhf.stages.table import maps_beside, model_key, score_files
from lmme3dhf.training import LOSSES, VALIDATION


def run_demo(config: Config, out: Path, clips: Path | None = None) -> dict[str, Any]:
    """Runs the main job, or goes on with it.

    Args:
        config: Settings; the data set is drawn into `out/data` whatever they say.
        out: Folder of the job. `out/model` is the finished model, `out/data` the data set.
        clips: Folder of clips to score at the end; None scores none.

    Returns:
        The content of `out/summary.json`.

    Raises:
        TrainingError: The folder was started with other settings.
    """
    config = open_job(replace(config, synthetic=replace(config.synthetic, draw=True)), out)
    job = run_chain(config, out)
    if clips is not None:
        model, table = out / "model", out / "clips.csv"
        tally = score_files(
            lambda: Scorer.from_pretrained(
                model, batch_size=config.batch_size, verify=config.verify
            ),
            files_below([clips]),
            table,
            model=model_key(model),
            aspects=aspects_of_folder(model),
            maps=maps_beside(table),
        )
        print(f"clips: {tally}; see {table}")
    summary = job.done["report"]["result"]
    summary |= {"seconds": job.seconds(), "peak_rss_mb": job.peak_mb()}
    write_json(out / "summary.json", summary)
    _write_report(out, summary)
    return summary


def _write_report(out: Path, summary: dict[str, Any]) -> None:
    data, pictures = out / "data", out / "report"
    labels = labels_of(
        s for path in part_lists(data, "eval") for s in read_list(path, allow_outside=True)
    )
    predictions = read_predictions(out / "predictions.jsonl")
    by_key = {(p.video, p.dimension): p for p in predictions}
    score_scatter(
        pictures / "scatter.png",
        {d: [by_key[video, d].score for video in labels.mos[d]] for d in GEN3DHF},
        {d: list(labels.mos[d].values()) for d in GEN3DHF},
        {
            d: f"SRCC {summary[d]['srcc']:.3f}, noise ceiling {summary[d]['ceiling']:.3f}"
            for d in GEN3DHF
        },
    )
    recall_bars(
        pictures / "recall.png", summary["distortion"]["recall"], summary["distortion"]["support"]
    )
    curves, validation = (
        {f"stage {index}": _losses(out / f"stage{index}" / name) for index in (1, 2, 3)}
        for name in (LOSSES, VALIDATION)
    )
    loss_curves(pictures / "losses.png", curves, validation=validation)
    saliency_overlays(pictures / "saliency.png", _overlay_rows(out, labels, by_key))
    names = ("scatter", "recall", "losses", "saliency")
    page = demo_report(
        summary, {name: f"report/{name}.png" for name in names}, _clip_rows(out / "clips.jsonl")
    )
    replace_file(out / "report.md", page)


def _losses(path: Path) -> list[tuple[int, float]]:
    """Step and loss of each line; a run without validation has no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines]
    return [(e["step"], e["loss"]) for e in entries if e["loss"] is not None]


def _overlay_rows(out: Path, labels: Labels, by_key: dict) -> list:
    # Every category once where it can be shown, then the worst videos; the choice is not by
    # success.
    data = out / "data"
    fixations = data / "fixations.json"
    points = read_fixations(fixations) if fixations.is_file() else None
    marked, _ = looked_at(labels.distortions, data / "saliency_map", points)
    chosen: list[str] = []
    for category in dict.fromkeys(c for v in marked for c in sorted(labels.distortions[v])):
        chosen.append(next(v for v in marked if category in labels.distortions[v]))
    rows = []
    for video in dict.fromkeys(chosen):
        with Image.open(data / "image" / f"{video}.png") as picture:
            strip = np.asarray(picture.convert("RGB"))
        record = by_key[video, "quality"]
        caption = f"{video}\nlabelled: {', '.join(sorted(labels.distortions[video]))}\nnamed: " + (
            ", ".join(record.distortions) or "nothing"
        )
        rows.append(
            (
                caption.replace(", ", ",\n"),
                strip,
                read_saliency(data / "saliency_map", video),
                read_saliency_png(map_path(record, out / "predictions.jsonl")),
            )
        )
    return rows


def _clip_rows(path: Path) -> list[dict[str, str]]:
    rows = read_scores(path) if path.exists() else []
    return [
        {
            "file": Path(row.file).name,
            **{d: _score_cell(row, d) for d in GEN3DHF},
            "distortions": "; ".join(row.distortions or ()),
            "reason": row.reason or "",
        }
        for row in rows
    ]


def _score_cell(row: ScoreRow, dimension: str) -> str:
    if dimension not in row.ratings:
        return ""
    return f"{on_scale(row.ratings[dimension].score):.3f}" + f" {FLAG}" * (
        dimension in row.outside_training
    )
