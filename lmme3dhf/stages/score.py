"""Stage 2: regression of the opinion score from final hidden states, L1, LoRA and head (Section
4.2).

Departure D1: the released code feeds the ground-truth level word to the head. Here the head reads
the position before that word; the reply is not even part of the input, except when language is
rehearsed, and there causality keeps it from the score.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lmme3dhf.annotations.levels import fit_level_scale, read_levels
from lmme3dhf.config import Config
from lmme3dhf.data.collation import Collator
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import level_reply
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.stages import run as runs
from lmme3dhf.training import LossFunction
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
    """Encodes questions up to the read position; with language rehearsal the rest of the reply
    follows.
    """

    def encode(sample: Sample, video_tokens: int):
        prefix = answer_prefix.format(dimension=sample.task) if sample.task in DIMENSIONS else None
        reply = spoken_reply(sample) if config.score.language_weight else None
        return encoder.encode(sample.prompt, video_tokens, reply=reply, prefix=prefix)

    return encode


def train_score(config: Config, run: Path) -> Path:
    """Runs, or goes on with, stage 2.

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
    metric = runs.metric_of(model, processor, config, level_edges=edges)
    runs.open_run(run, "score", config, folder, {"metric": metric.to_dict()})
    encode = encoder_for(config, DialogueEncoder(processor.tokenizer), metric.answer_prefix)

    def target(sample: Sample) -> float:
        return float("nan") if sample.mos is None else sample.mos / 100

    dataset = runs.dialogues(config, model, processor, samples, encode, target, "stage 2")
    collator = Collator(processor.tokenizer.pad_token_id)
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
