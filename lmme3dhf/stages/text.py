"""Stage 1: instruction tuning on level words and distortion answers, language loss, LoRA (Section
4.2).
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmme3dhf.config import Config, ConfigError
from lmme3dhf.data.collation import Collator
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.stages import run as runs


def language_loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Mean cross-entropy of the replies' tokens."""
    batch = {name: value for name, value in batch.items() if name not in ("read_index", "mos")}
    return model(**batch).loss


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
    if runs.is_finished(run):
        print(f"{run}: stage 1 is done")
        return run
    folder = runs.local_model(config.model)
    samples = runs.listed_samples(config, config.text.lists)
    model, processor = runs.load_model(config, folder)
    metric = runs.metric_of(model, processor, config)
    runs.open_run(run, "text", config, folder, {"metric": metric.to_dict()})
    encoder = DialogueEncoder(processor.tokenizer)

    def encode(sample, video_tokens):
        return encoder.encode(sample.prompt, video_tokens, reply=sample.reply)

    dataset = runs.dialogues(
        config, model, processor, samples, encode, lambda sample: float("nan"), "stage 1"
    )
    collator = Collator(processor.tokenizer.pad_token_id)
    runs.train_adapters(
        config,
        run,
        model,
        dataset,
        collator,
        name="stage 1",
        loss=language_loss,
        settings=config.text.trainer,
        train_head=False,
    )
    return run
