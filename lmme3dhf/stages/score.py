"""Stage 2: regression of the opinion score from final hidden states, L1, LoRA and head (Section
4.2).

Departure D1: the released code feeds the ground-truth level word to the head. Here the head reads
the position before that word; the reply is not even part of the input, except when language is
rehearsed, and there causality keeps it from the score. `score.read` "label" trains the released
protocol as an ablation, whose model cannot be used for anything else.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ProcessorMixin

from lmme3dhf.annotations.levels import fit_level_scale, read_levels
from lmme3dhf.config import Config
from lmme3dhf.data.collation import Collator
from lmme3dhf.data.dialogue import DialogueEncoder, Encoded
from lmme3dhf.data.gen3dhf import level_reply
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.stages import run as runs
from lmme3dhf.training import LossFunction, train
from lmme3dhf.vocabulary import DIMENSIONS


def score_loss(language_weight: float) -> LossFunction:
    """L1 between predicted and true MOS / 100, plus the weighted language loss.

    Args:
        language_weight: 0 leaves the language loss out.
    """

    def loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        batch = dict(batch)
        mos = batch.pop("mos")
        if not language_weight:
            batch.pop("labels")
        output = model(**batch)
        scored = torch.isfinite(mos)
        # A batch of rehearsal questions alone has no score to learn.
        total = (output.score[scored] - mos[scored]).abs().sum() / scored.sum().clamp(min=1)
        return total + language_weight * output.loss if language_weight else total

    return loss


def spoken_reply(sample: Sample) -> str:
    """What the model is to say: the level sentence without the number that the numerical lists
    append.
    """
    return level_reply(sample.task, sample.level) if sample.task in DIMENSIONS else sample.reply


def scored_samples(config: Config) -> list[Sample]:
    """The samples of the stage, those of rehearsal last.

    Raises:
        DataError: A sample of the numerical lists has no score.
    """
    samples = runs.listed_samples(config, config.score.lists)
    for sample in samples:
        if sample.mos is None:
            raise DataError(
                f"{sample.video} {sample.task}: no score; score.lists takes lists of the "
                "numerical kind"
            )
    if config.score.language_weight:
        samples += runs.listed_samples(config, config.score.rehearsal)
    return samples


def level_edges(root: Path, samples: list[Sample]) -> dict[str, tuple[float, ...]]:
    """Edges of the level scales by dimension: those stored with the data set, which its lists were
    labelled with; where it has none (the release), Eq. 4 on the training scores.

    Args:
        root: Folder of the data set.
        samples: The training samples.
    """
    stored = root / "levels.json"
    if stored.exists():
        return {dimension: scale.edges for dimension, scale in read_levels(stored).items()}
    by_dimension = {
        d: np.array([s.mos for s in samples if s.task == d and s.mos is not None])
        for d in DIMENSIONS
    }
    return {d: fit_level_scale(mos, d).edges for d, mos in by_dimension.items() if len(mos)}


def encoder_for(config: Config, encoder: DialogueEncoder, answer_prefix: str) -> Callable:
    """Encodes questions up to the read position; with language rehearsal, or where the label is
    read, the rest of the reply follows.
    """

    def encode(sample: Sample, video_tokens: int) -> Encoded:
        prefix = None
        if sample.task in DIMENSIONS:
            prefix = answer_prefix.format(dimension=sample.task)
            if config.score.read == "question":
                prefix = ""
            elif config.score.read == "label":
                prefix += f" {sample.level}"
        replies = config.score.language_weight or config.score.read == "label"
        reply = spoken_reply(sample) if replies else None
        return encoder.encode(sample.prompt, video_tokens, reply=reply, prefix=prefix)

    return encode


def train_score(config: Config, run: Path) -> Path:
    """Runs, or goes on with, stage 2.

    Without LoRA (`lora.language` and `lora.vision` off) the head is trained alone, on hidden states
    that are computed once; there is nothing then that could rehearse language.

    Args:
        config: Settings; `config.model` is the merged model of stage 1.
        run: The run folder.

    Returns:
        The run folder, with the trained adapter and head.
    """
    if runs.is_finished(run):
        print(f"{run}: stage 2 is done")
        return run
    folder = runs.local_model(config.model)
    samples = scored_samples(config)
    model, processor = runs.load_model(config, folder)
    edges = level_edges(config.data.root, samples)
    metric = runs.metric_of(model, processor, config, level_edges=edges, read=config.score.read)
    runs.open_run(run, "score", config, folder, {"metric": metric.to_dict()})
    dataset = _questions(config, model, processor, samples, metric.answer_prefix, "stage 2")
    collator = Collator(processor.tokenizer.pad_token_id)
    if not (config.lora.language or config.lora.vision):
        _train_head(config, run, model, dataset, collator)
        return run
    runs.train_adapters(
        config,
        run,
        model,
        dataset,
        collator,
        name="stage 2",
        loss=score_loss(config.score.language_weight),
        settings=config.score.trainer,
        train_head=True,
    )
    return run


def _questions(
    config: Config,
    model: LMME3DHF,
    processor: ProcessorMixin,
    samples: list[Sample],
    answer_prefix: str,
    name: str,
) -> runs.Dialogues:
    def target(sample: Sample) -> float:
        return float("nan") if sample.mos is None else sample.mos / 100

    encode = encoder_for(config, DialogueEncoder(processor.tokenizer), answer_prefix)
    return runs.dialogues(config, model, processor, samples, encode, target, name)


def _train_head(
    config: Config, run: Path, model: LMME3DHF, dataset: runs.Dialogues, collator: Collator
) -> None:
    scored = [i for i, sample in enumerate(dataset.samples) if sample.mos is not None]
    probe = collator([dataset[i] for i in scored[: runs.PROBE_SAMPLES]])
    runs.save_probe(run, probe)
    items = [
        {"name": name, "hidden": hidden, "mos": mos}
        for batch in _batches(dataset, scored, collator, config.batch_size)
        for name, hidden, mos in zip(
            batch["names"], _read_states(model, batch), batch["mos"], strict=True
        )
    ]
    model.requires_grad_(False)
    head = model.score_head.requires_grad_(True)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        stacked = {key: torch.stack([row[key] for row in rows]) for key in ("hidden", "mos")}
        return {"names": [row["name"] for row in rows], **stacked}

    def loss(module: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        return (module(batch["hidden"]) - batch["mos"]).abs().mean()

    train(
        name="stage 2",
        model=head,
        loss=loss,
        dataset=items,
        collator=collate,
        settings=config.score.trainer,
        run=run,
        seed=config.seed,
    )
    runs.finish_part(run, head, runs.HEAD)


def _batches(
    dataset: runs.Dialogues, rows: list[int], collator: Collator, size: int
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), size):
        yield collator([dataset[i] for i in rows[start : start + size]])


@torch.no_grad()
def _read_states(model: LMME3DHF, batch: dict[str, Any]) -> torch.Tensor:
    """Hidden states (batch, hidden), float32, at the read positions."""
    tensors = {
        name: value.to(model.device)
        for name, value in batch.items()
        if name not in ("names", "labels", "mos", "read_index")
    }
    if "video_embeds" not in tensors:
        tensors["video_embeds"] = model.encode_video(
            tensors.pop("pixel_values_videos"), tensors["video_grid_thw"]
        )
    hidden = model.hidden_states(**tensors)
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, batch["read_index"].to(hidden.device)].float().cpu()


def read_scores(config: Config, folder: Path, lists: list[str]) -> dict[tuple[str, str], float]:
    """Scores of a merged model on labelled lists, read where the model reads.

    For ablations alone. `Scorer` scores clips and knows no label; here the lists' labels are part
    of the input where `score.read` is "label", and then the figures say nothing about new videos.

    Args:
        config: Settings of the run that trained the model.
        folder: The merged model.
        lists: Lists of the numerical kind, relative to `data.root`.

    Returns:
        (video, dimension) -> score, 0-100.
    """
    model, processor = runs.load_model(config, folder)
    samples = runs.listed_samples(config, lists)
    dataset = _questions(config, model, processor, samples, model.metric.answer_prefix, "scores")
    collator = Collator(processor.tokenizer.pad_token_id)
    scores: list[float] = []
    for batch in _batches(dataset, list(range(len(samples))), collator, config.batch_size):
        with torch.no_grad():
            head = model.score_head(_read_states(model, batch).to(model.device))
        scores += (100 * head).tolist()
    keys = [(sample.video, sample.task) for sample in samples]
    return dict(zip(keys, scores, strict=True))
