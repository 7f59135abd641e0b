"""Stage 1: instruction tuning on level words and distortion answers, language loss, LoRA (Section
4.2).
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmme3dhf.config import Config, ConfigError
from lmme3dhf.data.collation import FACTS, Collator, Question
from lmme3dhf.data.dialogue import DialogueEncoder, turns_before
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.distributed import is_main
from lmme3dhf.models.modeling import load_processor
from lmme3dhf.stages import run as runs
from lmme3dhf.training import StageLoss


class LanguageLoss(StageLoss):
    """Mean cross-entropy of the replies' tokens."""

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """Learnt tokens."""
        return [len(batch["learnt"])]

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """(1,) sum of the tokens' losses."""
        arguments = {name: value for name, value in batch.items() if name not in FACTS}
        return model(**arguments).token_losses.sum()[None]


def train_text(config: Config, run: Path) -> Path:
    """Runs, or goes on with, stage 1.

    Args:
        config: Settings; `config.model` is the model to start from.
        run: The run folder.

    Returns:
        The run folder, with the trained adapter.

    Raises:
        ConfigError: Neither part of the model is to be adapted.
    """
    if not (config.lora.language or config.lora.vision):
        raise ConfigError("lora.language or lora.vision must be on: stage 1 trains nothing else")
    runs.check_trainer(config, "text")
    folder = runs.base_folder(config)
    if runs.is_done(run, "text", config, folder):
        print(f"{run}: stage 1 is done")
        return run
    samples = _with_replies(runs.listed_samples(config, config.text.lists), config)
    settings = config.text.trainer | config.hardware
    validation = runs.validation_samples(config, config.text.lists, settings, "stage 1")
    processor = load_processor(folder)
    metric = runs.metric_of(folder, processor, config, runs.aspects_at(config))
    runs.open_run(run, "text", config, folder, {"metric": metric.to_dict()})
    encoder = DialogueEncoder(processor.tokenizer)

    def question(sample: Sample) -> Question:
        before = turns_before(metric.aspects.get(sample.task), sample.slots)
        encoded = encoder.encode(sample.prompt, reply=sample.reply, before=before)
        return Question(name=f"{sample.video} {sample.task}", encoded=encoded)

    dataset = runs.clip_questions(
        config, folder, processor, samples, question, "stage 1", validation
    )
    runs.train_adapters(
        config,
        run,
        runs.load_model(config, folder),
        dataset,
        Collator(processor.tokenizer.pad_token_id, config.pad_to, tuple(metric.aspects)),
        name="stage 1",
        loss=LanguageLoss(),
        settings=config.text.trainer,
        metric=metric,
        validation=validation,
    )
    return run


def _with_replies(samples: list[Sample], config: Config) -> list[Sample]:
    """The samples with something to say; how many have not is printed.

    Raises:
        DataError: None has.
    """
    kept = [sample for sample in samples if sample.reply is not None]
    absent = len(samples) - len(kept)
    if not kept:
        raise DataError(
            f"text.lists: none of {', '.join(config.text.lists)} has a reply to learn; give levels "
            "(NAME_level in a table), or edges to the scales of aspects.yaml"
        )
    if absent and is_main():
        print(f"stage 1: {absent} of {len(samples)} questions have no reply and are left out")
    return kept
