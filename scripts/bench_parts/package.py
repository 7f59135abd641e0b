"""Our side: the package's own code, called as the stages and the scorer call it.

Nothing is written anew here: features come from the stages' store, batches from `data.collation`,
losses from the stages, the forward pass from the model class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_parts.material import SEED
from bench_parts.plain import adapt
from torch import nn
from transformers import ProcessorMixin

from lmme3dhf.config import Config, DataSettings, FrameSettings
from lmme3dhf.data.collation import FACTS, Collator, Media, Question, packed_item
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.pixels import Pixels, clip_pixels
from lmme3dhf.data.samples import Sample
from lmme3dhf.models.modeling import LMME3DHF, load_configuration, load_processor
from lmme3dhf.models.saliency_decoder import SaliencyDecoder
from lmme3dhf.stages import run as runs
from lmme3dhf.stages.media import frame_store, view_features
from lmme3dhf.stages.saliency import (
    SaliencyItems,
    SaliencyLoss,
    collate_maps,
    saliency_geometry,
)
from lmme3dhf.stages.text import LanguageLoss
from lmme3dhf.training import StageLoss


def settings(
    folder: Path,
    features: Path,
    side_px: int,
    *,
    frames: int = 8,
    packed: bool = True,
    store: bool = True,
    dtype: str = "float32",
    workers: int = 0,
) -> Config:
    """The settings of a run on square frames of this side.

    Args:
        folder: Of the model.
        features: Of the store.
        side_px: Side of the frames.
        frames: How many.
        packed: All questions on a clip in one item.
        store: Compute the tower's features once.
        dtype: Of the backbone.
        workers: Processes that decode.
    """
    area = side_px * side_px
    return Config(
        model=str(folder),
        dtype=dtype,
        packed=packed,
        frames=FrameSettings(frames=frames, min_pixels=area, max_pixels=area),
        data=DataSettings(root=features, features=features, store=store, workers=workers),
    )


@dataclass(frozen=True)
class Training:
    """Stage 1, ready for its epochs.

    Attributes:
        model: With adapters.
        dataset: Items, one a clip or one a question.
        collator: Makes batches of items.
        loss: The stage's.
        optimiser: Over what is trained.
    """

    model: nn.Module
    dataset: runs.ClipQuestions
    collator: Collator
    loss: StageLoss
    optimiser: torch.optim.Optimizer

    def batches(self, items_each: int = 1) -> list[list[int]]:
        """Indices of the items of each batch."""
        rows = list(range(len(self.dataset)))
        return [rows[i : i + items_each] for i in range(0, len(rows), items_each)]


def dialogue(encoder: DialogueEncoder, sample: Sample) -> Question:
    """A question with its reply, to be learnt."""
    encoded = encoder.encode(sample.prompt, reply=sample.reply)
    return Question(name=f"{sample.video} {sample.task}", encoded=encoded)


def stage_1(config: Config, folder: Path, samples: Sequence[Sample], make_optimiser) -> Training:
    """Fills the store and loads the model, as stage 1 does.

    Args:
        config: From `settings`.
        folder: Of the model.
        samples: The questions.
        make_optimiser: Of a model.
    """
    processor = load_processor(folder)
    encoder = DialogueEncoder(processor.tokenizer)
    dataset = runs.clip_questions(
        config, folder, processor, samples, lambda sample: dialogue(encoder, sample), "bench"
    )
    model = adapt(runs.load_model(config, folder)).train()
    collator = Collator(processor.tokenizer.pad_token_id, config.pad_to)
    return Training(model, dataset, collator, LanguageLoss(), make_optimiser(model))


def backward(training: Training, groups: Sequence[Sequence[int]]) -> float:
    """Gradients of one step of the optimiser on some micro-batches, by the rule of
    `lmme3dhf.training`: each term is a mean over the whole step.

    Args:
        training: From `stage_1`.
        groups: Items of each micro-batch.

    Returns:
        The loss.
    """
    batches = [training.collator([training.dataset[i] for i in group]) for group in groups]
    total = torch.tensor([training.loss.counts(batch) for batch in batches]).sum(0)
    device = next(training.model.parameters()).device
    loss = 0.0
    for batch in batches:
        placed = to_device({k: v for k, v in batch.items() if k not in ("names", "tokens")}, device)
        part = (training.loss.sums(training.model, placed) / total.to(device)).sum()
        part.backward()
        loss += float(part.detach())
    return loss


def step(training: Training, groups: Sequence[Sequence[int]]) -> float:
    """One step of the optimiser; see `backward`."""
    loss = backward(training, groups)
    training.optimiser.step()
    training.optimiser.zero_grad()
    return loss


def to_device(batch: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Tensors of a batch, on a device."""
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def media(model: LMME3DHF, pixels: Pixels) -> Media:
    """A clip with its visual tokens: one pass of the tower."""
    grid = torch.tensor([pixels.grid_thw], device=model.device)
    tokens = model.encode_video(pixels.values.to(model.device), grid)
    return Media(
        grid_thw=pixels.grid_thw,
        second_per_grid=pixels.second_per_grid,
        tokens=pixels.tokens,
        video_embeds=tokens,
    )


def prefix_batch(
    processor: ProcessorMixin,
    encoder: DialogueEncoder,
    clips: Sequence[Media],
    prompts: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Questions up to the end of the answers' prefixes, packed on each clip."""
    items = []
    for clip in clips:
        questions = [
            Question(name="", encoded=encoder.encode(prompt, prefix=prefix))
            for prompt, prefix in prompts
        ]
        items.append(packed_item(questions, clip))
    return Collator(processor.tokenizer.pad_token_id)(items)


@torch.inference_mode()
def read_levels(model: LMME3DHF, batch: dict[str, Any]) -> torch.Tensor:
    """Logits (questions, 5) of the level words at the read positions of a `prefix_batch`."""
    placed = to_device({k: v for k, v in batch.items() if k not in FACTS}, model.device)
    scored = placed.pop("scored")
    hidden = model.hidden_at(**placed).flatten(0, 1)[scored]
    # All aspects have the same level words.
    return model.level_logits(hidden, next(iter(model.metric.aspects)))


@torch.inference_mode()
def level_logits(
    model: LMME3DHF,
    processor: ProcessorMixin,
    encoder: DialogueEncoder,
    pixels: Pixels,
    prompts: Sequence[tuple[str, str]],
) -> torch.Tensor:
    """All questions about a decoded clip in one pass, the tower once."""
    return read_levels(model, prefix_batch(processor, encoder, [media(model, pixels)], prompts))


def frames_from_store(
    config: Config, processor: ProcessorMixin, clip: Path
) -> Callable[[], torch.Tensor]:
    """Fills the store of frames and gives the function that makes patches of them."""
    store = frame_store(config, [clip], "bench")
    return lambda: clip_pixels(store.read(clip)["frames"], processor.video_processor)[0]


@dataclass(frozen=True)
class Saliency:
    """Stage 3, ready for its epochs.

    Attributes:
        decoder: Fresh, from a fixed seed.
        items: Its data set.
        loss: The stage's.
        optimiser: Over the decoder.
    """

    decoder: SaliencyDecoder
    items: SaliencyItems
    loss: StageLoss
    optimiser: torch.optim.Optimizer


def stage_3(
    config: Config, folder: Path, clips: Sequence[Path], maps: Path, make_optimiser
) -> Saliency:
    """Fills the stores (where the settings have any) and builds the decoder, as stage 3 does.

    Args:
        config: From `settings`.
        folder: Of the model.
        clips: The clips.
        maps: Folder of their maps.
        make_optimiser: Of a model.
    """
    backbone = load_configuration(folder)
    geometry = saliency_geometry(config, backbone)
    features = view_features(config, folder, load_processor(folder), geometry, clips, "bench")
    torch.manual_seed(SEED)
    decoder = SaliencyDecoder(
        vision_width=backbone.vision_config.hidden_size,
        text_width=backbone.text_config.hidden_size,
        width=geometry.width,
        branches=geometry.branches,
    )
    asked = [Sample(video=clip.stem, path=clip, task="quality", prompt="") for clip in clips]
    items = SaliencyItems(asked, features, maps)
    loss = SaliencyLoss(config.saliency.weights)
    return Saliency(decoder, items, loss, make_optimiser(decoder))


def saliency_losses(side: Saliency, *, learn: bool) -> torch.Tensor:
    """Loss of each clip, batch size 1; with `learn` a step of the optimiser after each."""
    losses = []
    for index in range(len(side.items)):
        batch = collate_maps([side.items[index]])
        loss = (side.loss.sums(side.decoder, batch) / torch.tensor(side.loss.counts(batch))).sum()
        losses.append(loss.detach())
        if learn:
            loss.backward()
            side.optimiser.step()
            side.optimiser.zero_grad()
    return torch.stack(losses)
