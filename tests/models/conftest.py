"""The tiny model in both classes, and dialogues about made-up clips."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ProcessorMixin, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.data.collation import Collator, Item
from lmme3dhf.data.dialogue import DialogueEncoder, level_token_ids
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.pixels import clip_pixels
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import random_frames

PREFIX = "The quality of the human face in this video is"
# Frames, height, width: several grids, those of the second and third have as many tokens.
SHAPES = ((4, 84, 112), (2, 56, 84), (2, 84, 56), (8, 56, 140))


def load_with_head(folder: Path, **options) -> LMME3DHF:
    """A model whose score head is drawn wide, so that its scores differ clearly."""
    torch.manual_seed(0)
    model = LMME3DHF.from_pretrained(folder, **options).eval()
    with torch.no_grad():
        for layer in model.score_head.layers:
            layer.weight.normal_(0, (2 / layer.in_features) ** 0.5)
    return model


@pytest.fixture(scope="session")
def model(tiny_folder: Path, processor: ProcessorMixin) -> LMME3DHF:
    """Ours, with level tokens; shared, so no test may change it."""
    model = load_with_head(tiny_folder)
    tokens = level_token_ids(processor.tokenizer, PREFIX, LEVELS)
    model.config.set_metric(model.metric.replace(level_token_ids=tokens))
    return model


@pytest.fixture(scope="session")
def stock(tiny_folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The library's class on the same folder; shared, so no test may change it."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_folder).eval()


def made_item(
    processor: ProcessorMixin,
    seed: int,
    shape: tuple[int, int, int] = SHAPES[0],
    *,
    model: LMME3DHF | None = None,
    prompt: str = PROMPTS["quality"],
    reply: str | None = None,
    prefix: str | None = PREFIX,
    video_first: bool = True,
) -> Item:
    """A dialogue about noise, with pixels or, given a model, with its visual tokens."""
    values, grid = clip_pixels(random_frames(seed, *shape), processor.video_processor)
    tokens = grid[0] * grid[1] * grid[2] // 4
    media = {"pixel_values": values}
    if model is not None:
        with torch.no_grad():
            media = {"video_embeds": model.encode_video(values, torch.tensor([grid]))}
    return Item(
        name=f"noise{seed}",
        encoded=DialogueEncoder(processor.tokenizer).encode(
            prompt, tokens, reply=reply, prefix=prefix, video_first=video_first
        ),
        grid_thw=grid,
        second_per_grid=0.5,
        **media,
    )


def batch_of(processor: ProcessorMixin, *items: Item, keep: tuple[str, ...] = ()) -> dict:
    """What a forward pass takes without labels, and what else is named."""
    batch = Collator(processor.tokenizer.pad_token_id)(list(items))
    unused = {"names", "labels", "mos"} - set(keep)
    return {name: value for name, value in batch.items() if name not in unused}


def rewritten(folder: Path, target: Path, change: Callable[[dict], dict], name: str) -> Path:
    """A copy of a folder with the tensors of one safetensors file changed."""
    shutil.copytree(folder, target)
    tensors = change(load_file(target / name))
    save_file(tensors, target / name, metadata={"format": "pt"})
    return target
