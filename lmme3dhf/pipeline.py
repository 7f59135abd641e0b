"""The main job: from nothing to a tested model, in resumable steps.

synthesize -> labels -> stage 1 -> merge -> stage 2 -> merge -> stage 3 -> one model folder ->
predict the test split -> summary and report -> score clips. Each step leaves files behind and is
skipped when they are there; what it cost is kept in `steps.json`, so that the summary's figures
hold for the whole job however often it was interrupted.
"""

import csv
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from lmme3dhf.annotations.fixations import read_fixations, read_saliency, read_saliency_png
from lmme3dhf.config import Config, dump_config
from lmme3dhf.data.card import summary
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.labels import Sources, build_labels, clips_in, drawn_split
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.splits import latent, read_split
from lmme3dhf.data.synthetic.dataset import synthesize
from lmme3dhf.data.synthetic.generators import video_name
from lmme3dhf.files import replace_file, write_json
from lmme3dhf.predictions import read_predictions
from lmme3dhf.reports.evaluation import Labels, evaluate, evaluate_maps, opinion_ceiling
from lmme3dhf.reports.markdown import demo_report
from lmme3dhf.reports.plots import loss_curves, recall_bars, saliency_overlays, score_scatter
from lmme3dhf.scorer import Scorer
from lmme3dhf.stages.predict import files_below, predict, score_files
from lmme3dhf.stages.run import MERGED, merge_run
from lmme3dhf.stages.saliency import train_saliency
from lmme3dhf.stages.score import train_score
from lmme3dhf.stages.text import train_text
from lmme3dhf.training import LOSSES, TrainingError
from lmme3dhf.vocabulary import DIMENSIONS

EVAL_SHARE, VAL_SHARE = 0.20, 0.05  # of the faces
# Share of the whole job that each step takes, measured once; for the estimate of the end alone.
_SHARES = {
    "synthesize": 0.20,
    "labels": 0.03,
    "stage 1": 0.20,
    "stage 2": 0.30,
    "stage 3": 0.20,
    "predict": 0.06,
    "report": 0.01,
}


class _PeakMemory:
    """Largest memory of this process and its children together, sampled twice a second, in MB."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for member in (process, *process.children(recursive=True)):
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:  # it ended between listing and asking
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def run_demo(config: Config, out: Path, clips: Path | None = None) -> dict[str, Any]:
    """Runs the main job, or goes on with it.

    Args:
        config: Settings; `data` is replaced by `out/data`.
        out: Folder of the job. `out/model` is the finished model, `out/data` the data set.
        clips: Folder of clips to score at the end; None scores none.

    Returns:
        The content of `out/summary.json`.

    Raises:
        TrainingError: The folder was started with other settings.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    data = out / "data"
    config = replace(
        config, data=replace(config.data, root=data, video_root=None, features=out / "features")
    )
    settings = out / "config.yaml"
    if settings.exists() and settings.read_text(encoding="utf-8") != dump_config(config):
        raise TrainingError(f"{out} was started with other settings; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    replace_file(settings, dump_config(config))
    job = _Job(out / "steps.json")
    job.step("synthesize", lambda: _synthesize(config, data))
    job.step("labels", lambda: _label(config, data))
    one, two, three, model = out / "stage1", out / "stage2", out / "stage3", out / "model"
    job.step("stage 1", lambda: _stage(train_text, config, one, one / MERGED))
    after_one = replace(config, model=str(one / MERGED))
    job.step("stage 2", lambda: _stage(train_score, after_one, two, two / MERGED))
    after_two = replace(config, model=str(two / MERGED))
    job.step("stage 3", lambda: _stage(train_saliency, after_two, three, model))
    job.step("predict", lambda: _predict(config, data, model, out))
    summary = job.step("report", lambda: _summarise(out))
    if clips is not None:
        scorer = Scorer.from_pretrained(model, batch_size=config.batch_size)
        good, bad = score_files(
            scorer, files_below([clips]), out / "clips.csv", maps=out / "clips_maps"
        )
        print(f"clips: {good} scored, {bad} not; see {out / 'clips.csv'}")
    summary |= {"seconds": job.seconds(), "peak_rss_mb": job.peak_mb()}
    write_json(out / "summary.json", summary)
    _write_report(out, summary)
    return summary


class _Job:
    """Steps that are done once, and what they cost.

    Args:
        path: `steps.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Does a step, or returns what it returned before."""
        if name in self.done:
            print(f"== {name}: done before ({self.done[name]['seconds']:.0f} s)", flush=True)
            return self.done[name]["result"]
        finished = sum(_SHARES[step] for step in self.done)
        known = f", about {self._left(finished):.0f} s left in all" if finished else ""
        print(f"== {name}{known}", flush=True)
        started = time.monotonic()
        with _PeakMemory() as memory:
            result = work()
        seconds = time.monotonic() - started
        self.done[name] = {"seconds": seconds, "peak_rss_mb": memory.peak_mb, "result": result}
        write_json(self.path, self.done)
        return result

    def _left(self, finished: float) -> float:
        return self.seconds() / finished * (1 - finished)

    def seconds(self) -> float:
        """Seconds of all steps so far, those of earlier calls included."""
        return sum(step["seconds"] for step in self.done.values())

    def peak_mb(self) -> float:
        """Largest memory of any step, MB."""
        return max(step["peak_rss_mb"] for step in self.done.values())


def make_data(config: Config, root: Path) -> None:
    """Makes a synthetic data set: clips, raw annotations, and the labels made from them."""
    _synthesize(config, root)
    _label(config, root)


def _synthesize(config: Config, data: Path) -> None:
    made = config.synthetic
    # Too few faces for a split are told before they are drawn.
    one_generator = [video_name(0, face) for face in range(made.latents)]
    drawn_split(one_generator, EVAL_SHARE, VAL_SHARE, config.seed)
    synthesize(
        data,
        latents=made.latents,
        size_px=made.size_px,
        frames=made.frames,
        fps=made.fps,
        processes=made.processes,
        seed=config.seed,
    )


def _label(config: Config, data: Path) -> None:
    raw, videos = data / "raw", data / "video_RGB"
    sources = Sources(
        videos=videos,
        ratings=raw / "ratings.csv",
        marks=raw / "marks",
        remarks=raw / "remarks.csv",
    )
    split = drawn_split(clips_in(videos), EVAL_SHARE, VAL_SHARE, config.seed)
    report = build_labels(data, sources, split, processes=config.synthetic.processes)
    print("\n".join(summary(report)))


def _stage(train: Callable[[Config, Path], Path], config: Config, run: Path, merged: Path) -> None:
    train(config, run)
    report = merge_run(run, merged)
    print(
        f"merged into {merged}: relative difference {report['relative_difference']:.2g} "
        f"on {report['samples']} samples (limit {report['limit']:g})"
    )


def _predict(config: Config, data: Path, model: Path, out: Path) -> None:
    samples = [
        sample
        for dimension in DIMENSIONS
        for sample in read_list(
            data / "numerical" / f"eval_{dimension}.json", data / "video_RGB", labels="ignore"
        )
    ]
    scorer = Scorer.from_pretrained(
        model, batch_size=config.batch_size, workers=config.data.workers
    )
    predict(scorer, samples, out / "predictions.jsonl", maps=True, write_text=False)


def labels_of(samples: Iterable[Sample]) -> Labels:
    """The labels that lists hold.

    Args:
        samples: From `data.gen3dhf.read_list`.
    """
    labels = Labels(mos={}, levels={}, distortions={})
    for sample in samples:
        if sample.mos is not None:
            labels.mos.setdefault(sample.task, {})[sample.video] = sample.mos
        if sample.level is not None:
            labels.levels.setdefault(sample.task, {})[sample.video] = sample.level
        if sample.distortions is not None:
            labels.distortions[sample.video] = frozenset(sample.distortions)
    return labels


def evaluate_file(
    predictions: Path,
    lists: list[Path],
    *,
    train_lists: list[Path] | None = None,
    maps: Path | None = None,
    fixations: Path | None = None,
) -> dict[str, Any]:
    """Every metric that a predictions file and some lists allow.

    Args:
        predictions: JSONL of one method.
        lists: Lists with the labels of the test videos.
        train_lists: Lists of the training videos, for the floors (majority answers, mean map).
        maps: Folder of the ground-truth maps.
        fixations: `fixations.json`, the marked points.
    """
    records = read_predictions(predictions)
    labels = labels_of(sample for path in lists for sample in read_list(path))
    train = labels_of(sample for path in train_lists or [] for sample in read_list(path))
    figures = evaluate(records, labels, list(train.distortions.values()))
    if "level" in figures and train.levels:
        figures["level"]["majority"] = _majority_level(labels, train)
    predicted = {record.video: predictions.parent / record.map for record in records if record.map}
    if maps is not None and predicted:
        points = None
        if fixations is not None:
            points = {video: f.points for video, f in read_fixations(fixations).items()}
        figures["saliency"] = evaluate_maps(predicted, maps, points, train.videos, labels.videos)
    return figures


def part_lists(data: Path, part: str) -> list[Path]:
    """The lists of one part of a data set that hold all its labels."""
    numerical = [data / "numerical" / f"{part}_{dimension}.json" for dimension in DIMENSIONS]
    return [*numerical, data / "distortion" / f"{part}.json"]


def _summarise(out: Path) -> dict[str, Any]:
    data = out / "data"
    summary = evaluate_file(
        out / "predictions.jsonl",
        part_lists(data, "eval"),
        train_lists=part_lists(data, "train"),
        maps=data / "saliency_map",
        fixations=data / "fixations.json",
    )
    split = read_split(data / "splits.json")
    mos = labels_of(s for path in part_lists(data, "eval") for s in read_list(path)).mos
    for dimension, value in opinion_ceiling(data / "truth.json", mos, split["eval"]).items():
        summary[dimension]["ceiling"] = value
    summary["test"] = {
        "videos": len(split["eval"]),
        "latents": len({latent(video) for video in split["eval"]}),
        "train_videos": len(split["train"]),
    }
    return summary


def _majority_level(labels: Labels, train: Labels) -> float:
    shares = []
    for dimension in DIMENSIONS:
        (level, _), *_ = Counter(train.levels[dimension].values()).most_common(1)
        truth = list(labels.levels[dimension].values())
        shares.append(truth.count(level) / len(truth))
    return float(np.mean(shares))


def _write_report(out: Path, summary: dict[str, Any]) -> None:
    data, pictures = out / "data", out / "report"
    labels = labels_of(s for path in part_lists(data, "eval") for s in read_list(path))
    predictions = read_predictions(out / "predictions.jsonl")
    by_key = {(p.video, p.dimension): p for p in predictions}
    score_scatter(
        pictures / "scatter.png",
        {d: [by_key[video, d].score for video in labels.mos[d]] for d in DIMENSIONS},
        {d: list(labels.mos[d].values()) for d in DIMENSIONS},
        {
            d: f"SRCC {summary[d]['srcc']:.3f}, noise ceiling {summary[d]['ceiling']:.3f}"
            for d in DIMENSIONS
        },
    )
    recall_bars(
        pictures / "recall.png", summary["distortion"]["recall"], summary["distortion"]["support"]
    )
    curves = {}
    for index in (1, 2, 3):
        lines = (out / f"stage{index}" / LOSSES).read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        curves[f"stage {index}"] = [(entry["step"], entry["loss"]) for entry in entries]
    loss_curves(pictures / "losses.png", curves)
    saliency_overlays(pictures / "saliency.png", _overlay_rows(out, labels, by_key))
    names = ("scatter", "recall", "losses", "saliency")
    page = demo_report(
        summary, {name: f"report/{name}.png" for name in names}, _clip_rows(out / "clips.csv")
    )
    replace_file(out / "report.md", page)


def _overlay_rows(out: Path, labels: Labels, by_key: dict) -> list:
    # Every category once where it can be shown, then the worst videos; the choice is not by
    # success.
    data = out / "data"
    chosen: list[str] = []
    for category in dict.fromkeys(
        c for names in labels.distortions.values() for c in sorted(names)
    ):
        chosen.append(next(v for v, names in labels.distortions.items() if category in names))
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
                read_saliency_png(out / record.map),
            )
        )
    return rows


def _clip_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [Path(row["file"]).name.replace("|", "\\|") for row in rows]
    return [{**row, "file": name} for row, name in zip(rows, names, strict=True)]
