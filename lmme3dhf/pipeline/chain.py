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
from lmme3dhf.config import Config, dump_config, read_settings, to_plain
from lmme3dhf.data.card import summary
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.labels import Sources, build_labels, clips_in, drawn_split
from lmme3dhf.data.readers import list_samples
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import latent, read_split
from lmme3dhf.data.synthetic.dataset import synthesize
from lmme3dhf.data.synthetic.generators import video_name
from lmme3dhf.files import Hashes, damage, replace_file, without_nan, write_json
from lmme3dhf.models.card import add_test, merge_summary
from lmme3dhf.models.folder import REPORT, model_damage
from lmme3dhf.pipeline.evaluation import evaluate_file
from lmme3dhf.pipeline.job import Job, JobError, read_steps
from lmme3dhf.predictions import PredictionError
from lmme3dhf.reports.evaluation import opinion_ceiling
from lmme3dhf.scorer import Scorer, aspects_of_folder
from lmme3dhf.stages.identity import STAGES, changes
from lmme3dhf.stages.predict import predict
from lmme3dhf.stages.provenance import facts_of_test
from lmme3dhf.stages.run import (
    MERGED,
    aspects_at,
    base_folder,
    check_trainer,
    is_done,
    merge_run,
)
from lmme3dhf.stages.saliency import train_saliency
from lmme3dhf.stages.score import train_score
from lmme3dhf.stages.table import model_key
from lmme3dhf.stages.text import train_text
from lmme3dhf.training import TrainingError

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
    for stage in STAGES:
        check_trainer(config, stage)
    if settings.exists():
        _compare(read_settings(settings), to_plain(config), out)
    out.mkdir(parents=True, exist_ok=True)
    replace_file(settings, dump_config(config))
    return config


def _compare(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    """Compares a job's settings with those that it was started with: says what changed without
    deciding a result, and puts aside what has to start anew.

    Raises:
        TrainingError: The data or the first stage would be others.
    """
    decided = {stage: changes(old, new, stage) for stage in STAGES}
    drawn = {
        f"synthetic.{name}": f"{old['synthetic'].get(name)} -> {value}"
        for name, value in new["synthetic"].items()
        if old["synthetic"].get(name) != value and name != "processes"
    }
    if not new["synthetic"]["draw"]:
        drawn = {name: change for name, change in drawn.items() if name == "synthetic.draw"}
    if first := drawn | decided["text"][0]:
        raise TrainingError(
            f"{out} was started with other settings; give another --out. Changed:\n  "
            + "\n  ".join(f"{name}: {change}" for name, change in first.items())
        )
    for name, change in {k: v for _, free in decided.values() for k, v in free.items()}.items():
        print(f"{out}: {name}: {change}")
    for number, stage in ((2, "score"), (3, "saliency")):
        if deciding := decided[stage][0]:
            what = ", ".join(f"{name}: {change}" for name, change in deciding.items())
            print(f"{out}: {what}; stage {number} and what follows start anew")
            _put_aside(out, number)
            return


def _put_aside(out: Path, first: int) -> None:
    """Renames what stage `first` and the later steps left to NAME.old-N, and forgets the steps."""
    done = read_steps(out / "steps.json")
    steps = {"stage 2", "stage 3", "predict", "report"} - ({"stage 2"} if first == 3 else set())
    # Forgotten first: after a kill in between, what is still there is put aside by the next call.
    write_json(out / "steps.json", {k: step for k, step in done.items() if k not in steps})
    names = [f"stage{number}" for number in range(first, 4)]
    names += ["model", "predictions.jsonl", "predictions_maps", "ablations", "crossval"]
    for name in names:
        path = out / name
        if path.exists():
            number = 1
            while (aside := path.with_name(f"{name}.old-{number}")).exists():
                number += 1
            path.rename(aside)
            print(f"{path} is kept as {aside}")


def _check_stage(stage: str, config: Config, run: Path, merged: Path) -> None:
    """Raises where a finished stage, its data or its merged model is no longer as it was."""
    wrong = damage(run) if run.is_dir() else "the folder is missing"
    if wrong:
        raise JobError(
            f"{run}: not as stage {stage!r} left it: {wrong}; restore it, or move it away and "
            f"delete {run.parent / 'steps.json'}: whole stages before it are kept"
        )
    is_done(run, stage, config, base_folder(config))
    wrong = model_damage(merged, Hashes()) if merged.is_dir() else "the folder is missing"
    if not wrong and not (merged / REPORT).is_file():
        wrong = f"{REPORT} is missing"
    if wrong:
        raise JobError(
            f"{merged}: not as it was merged: {wrong}; restore it, or make it again: "
            f"lmme3dhf merge {run} --out {merged}"
        )


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

    def train(number: int, of_stage: Config, run: Path, merged: Path) -> None:
        stage = STAGES[number - 1]
        job.step(
            f"stage {number}",
            lambda: train_and_merge(stage, of_stage, run, merged),
            lambda: _check_stage(stage, of_stage, run, merged),
        )

    train(1, config, one, one / MERGED)
    train(2, replace(config, model=str(one / MERGED)), two, two / MERGED)
    train(3, replace(config, model=str(two / MERGED)), three, model)
    records = out / "predictions.jsonl"
    job.step(
        "predict",
        lambda: predict_test(config, model, records),
        lambda: predict_test(config, model, records),  # adds what is missing
    )
    before = job.done.pop("report", None)  # the labels of the test may have changed
    found = job.step("report", lambda: told_figures(config, records, model))
    if before and before["result"] != without_nan(found):
        print(f"{out}: the test gives other figures than before: labels or predictions changed")
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
    # Drawn markers crowd dots as people may, and a group that nobody can tell apart is counted.
    report = build_labels(
        data, sources, split, processes=config.synthetic.processes, other_marks="ignore"
    )
    print("\n".join(summary(report)))


def test_samples(config: Config) -> list[Sample]:
    """The questions about the test part, all aspects; labels are not read."""
    data, aspects = config.data.resolved(), aspects_at(config)
    lists = [data.root / "numerical" / f"eval_{name}.json" for name in aspects]
    return list_samples(lists, root=data.video_root, aspects=aspects, labels="ignore")


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
        aspects=aspects_of_folder(model),
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
    data, aspects = config.data.root, aspects_at(config)
    maps, fixations = data / config.saliency.maps, data / "fixations.json"
    found = evaluate_file(
        predictions,
        part_lists(data, "eval"),
        train_lists=part_lists(data, "train"),
        maps=maps if maps.is_dir() else None,
        fixations=fixations if fixations.exists() else None,
        aspects=aspects,
    )
    without = [name for name in aspects if name not in found]
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
