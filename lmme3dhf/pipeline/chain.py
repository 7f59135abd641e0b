"""The chain from labels to tested predictions: three stages, each merged, one model folder, the
records of the test part, and their figures, in the model's card too.

synthesize -> labels (where the data set is drawn) -> stage 1 -> merge -> stage 2 -> merge ->
stage 3 -> one model folder -> predict the test part -> figures. Each step leaves files behind and
is skipped when they are there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lmme3dhf.comparison.sources import labels_of, part_lists
from lmme3dhf.config import Config, dump_config
from lmme3dhf.data.card import summary
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.labels import Sources, build_labels, clips_in, drawn_split
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import latent, read_split
from lmme3dhf.data.synthetic.dataset import synthesize
from lmme3dhf.data.synthetic.generators import video_name
from lmme3dhf.files import replace_file
from lmme3dhf.models.card import add_test, merge_summary
from lmme3dhf.pipeline.evaluation import evaluate_file
from lmme3dhf.pipeline.job import Job
from lmme3dhf.predictions import PredictionError
from lmme3dhf.reports.evaluation import opinion_ceiling
from lmme3dhf.scorer import Scorer
from lmme3dhf.stages.predict import predict
from lmme3dhf.stages.provenance import facts_of_test
from lmme3dhf.stages.run import MERGED, merge_run
from lmme3dhf.stages.saliency import train_saliency
from lmme3dhf.stages.score import train_score
from lmme3dhf.stages.table import model_key
from lmme3dhf.stages.text import train_text
from lmme3dhf.training import TrainingError
from lmme3dhf.vocabulary import DIMENSIONS

EVAL_SHARE, VAL_SHARE = 0.20, 0.05  # of the faces, where the data set is drawn
TRAIN = {"text": train_text, "score": train_score, "saliency": train_saliency}
# Share of the whole job that each step takes, measured once; for the estimate of the end alone.
SHARES = {
    "synthesize": 0.15,
    "labels": 0.06,
    "stage 1": 0.22,
    "stage 2": 0.35,
    "stage 3": 0.17,
    "predict": 0.04,
    "report": 0.01,
}


def open_job(config: Config, out: Path) -> Config:
    """Creates the job's folder, or checks that it is this job's.

    Args:
        config: Settings. With `synthetic.draw` the data set is `out/data`, which the first steps
            make; otherwise it is `data.root`.
        out: Folder of the job; `out/features` is the store of features unless the settings name
            another.

    Returns:
        The settings with every folder of the data decided, as written to `out/config.yaml`.

    Raises:
        TrainingError: The folder was started with other settings.
        DataError: `data.root` holds no lists.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    data = config.data
    if config.synthetic.draw:
        data = replace(data, root=out / "data", video_root=None, features=None)
    elif not (data.root / "numerical").is_dir():
        raise DataError(
            f"{data.root}: no lists of a data set; check --data.root, or draw a synthetic one with "
            "--synthetic.draw true"
        )
    config = replace(config, data=replace(data, features=data.features or out / "features"))
    settings = out / "config.yaml"
    if settings.exists() and settings.read_text(encoding="utf-8") != dump_config(config):
        raise TrainingError(f"{out} was started with other settings; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    replace_file(settings, dump_config(config))
    return config


def run_chain(config: Config, out: Path) -> Job:
    """Runs the chain, or goes on with it.

    Args:
        config: From `open_job`.
        out: Folder of the job. `out/model` is the finished model, `out/predictions.jsonl` holds
            the records of the test part.

    Returns:
        The finished steps; "report" holds the figures, which stand in the model's card, too.
    """
    job = draw_data(config, out)
    one, two, three, model = out / "stage1", out / "stage2", out / "stage3", out / "model"
    job.step("stage 1", lambda: train_and_merge("text", config, one))
    after_one = replace(config, model=str(one / MERGED))
    job.step("stage 2", lambda: train_and_merge("score", after_one, two))
    after_two = replace(config, model=str(two / MERGED))
    job.step("stage 3", lambda: train_and_merge("saliency", after_two, three, model))
    job.step("predict", lambda: predict_test(config, model, out / "predictions.jsonl"))
    job.step("report", lambda: told_figures(config, out / "predictions.jsonl", model))
    return job


def draw_data(config: Config, out: Path) -> Job:
    """The first steps of the chain, where the data set is drawn; returns the job that goes on."""
    job = Job(out / "steps.json", SHARES)
    if config.synthetic.draw:
        job.step("synthesize", lambda: _synthesize(config, config.data.root))
        job.step("labels", lambda: _label(config, config.data.root))
    else:
        job.shares = {s: share for s, share in SHARES.items() if s not in ("synthesize", "labels")}
    return job


def train_and_merge(stage: str, config: Config, run: Path, merged: Path | None = None) -> None:
    """Trains one stage ("text", "score" or "saliency") and merges it; what is there is kept."""
    TRAIN[stage](config, run)
    report = merge_run(run, merged, verify=config.verify)
    print(f"merged into {report['folder']}:", *merge_summary(report), sep="\n  ")


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


def test_samples(config: Config) -> list[Sample]:
    """The questions about the test part, both dimensions; labels are not read."""
    data = config.data.resolved()
    lists = [data.root / "numerical" / f"eval_{dimension}.json" for dimension in DIMENSIONS]
    return [s for path in lists for s in read_list(path, data.video_root, labels="ignore")]


def predict_test(config: Config, model: Path, out: Path) -> None:
    """Predicts the test part with a finished model.

    Raises:
        DataError: Some clips could not be predicted; the others' records stay.
    """
    predict(
        lambda: Scorer.from_pretrained(
            model, batch_size=config.batch_size, workers=config.data.workers, verify=config.verify
        ),
        test_samples(config),
        out,
        model=model_key(model),
        maps=True,
    ).require_all()


def told_figures(config: Config, predictions: Path, model: Path) -> dict[str, Any]:
    """The figures of the test part (see `figures`), which the model's card then tells too."""
    found = figures(config, predictions)
    lists = part_lists(config.data.root, "eval")
    facts = facts_of_test(predictions, lists, config.data.video_root)
    add_test(model, {**facts, "figures": {k: v for k, v in found.items() if k != "test"}})
    return found


def figures(config: Config, predictions: Path) -> dict[str, Any]:
    """Every figure of a predictions file on the test part, with floors, and, where the data set
    holds the true opinions, the ceiling that the raters' noise sets.
    """
    data = config.data.root
    maps, fixations = data / config.saliency.maps, data / "fixations.json"
    found = evaluate_file(
        predictions,
        part_lists(data, "eval"),
        train_lists=part_lists(data, "train"),
        maps=maps if maps.is_dir() else None,
        fixations=fixations if fixations.exists() else None,
    )
    without = [dimension for dimension in DIMENSIONS if dimension not in found]
    if without:
        raise PredictionError(
            f"{predictions}: no scores of {without[0]}; remove the file, and the same command "
            "predicts again"
        )
    split = read_split(data / "splits.json")
    if (data / "truth.json").exists():
        mos = labels_of(
            s for path in part_lists(data, "eval") for s in read_list(path, allow_outside=True)
        ).mos
        for dimension, value in opinion_ceiling(data / "truth.json", mos, split["eval"]).items():
            found[dimension]["ceiling"] = value
    found["test"] = {
        "videos": len(split["eval"]),
        "latents": len({latent(video) for video in split["eval"]}),
        "train_videos": len(split["train"]),
    }
    return found
