"""Batches: padding at the left, and everything that has to move with it."""

import math

import pytest
import torch

from lmme3dhf.data.collation import Collator, Item, view_batch
from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT
from lmme3dhf.data.pixels import Pixels, clip_pixels
from tests.conftest import random_frames

PREFIX = "The quality of the human face in this video is"


@pytest.fixture
def encoder(processor) -> DialogueEncoder:
    return DialogueEncoder(processor.tokenizer)


@pytest.fixture
def collate(processor) -> Collator:
    return Collator(processor.tokenizer.pad_token_id)


def item(encoder, tokens: int, *, name: str = "", mos: float = math.nan, **dialogue) -> Item:
    return Item(
        name=name,
        encoded=encoder.encode(PROMPTS["quality"], tokens, **dialogue),
        grid_thw=(1, 2, 2 * tokens),
        second_per_grid=tokens / 2,
        video_embeds=torch.full((tokens, 8), float(tokens)),
        mos=mos,
    )


def test_rows_are_padded_at_the_left(encoder, collate):
    """Catches padding at the right, where generation would go on from it, and a mask, a type or a
    label that does not move along.
    """
    items = [item(encoder, 3, reply="Yes."), item(encoder, 11, reply="No, not at all.")]
    batch = collate(items)
    length = len(items[1].encoded.input_ids)
    for row, one in enumerate(items):
        pad = length - len(one.encoded.input_ids)
        expected = {
            "input_ids": [collate.pad_token_id] * pad + one.encoded.input_ids,
            "attention_mask": [0] * pad + [1] * (length - pad),
            "mm_token_type_ids": [0] * pad + one.encoded.mm_token_type_ids,
            "labels": [IGNORED] * pad + one.encoded.labels,
        }
        for name, values in expected.items():
            assert batch[name].dtype == torch.int64
            assert batch[name][row].tolist() == values, name
    assert batch["attention_mask"][0, 0] == 0
    assert collate(items[:1])["attention_mask"].all()


def test_read_position_moves_with_the_padding(processor, encoder, collate):
    """Catches a score that is read in the padding or in the prompt, and a sample without a score
    that gets a position by the shift.
    """
    items = [
        item(encoder, 2, prefix=PREFIX),
        item(encoder, 30, reply=f"{PREFIX} excellent. (88.8)", prefix=PREFIX),
        item(encoder, 5, reply="Yes."),
    ]
    batch = collate(items)
    for row in (0, 1):
        token = batch["input_ids"][row, batch["read_index"][row]]
        assert processor.tokenizer.decode(token) == " is"
    assert batch["read_index"].tolist()[0] == batch["input_ids"].shape[1] - 1
    assert batch["read_index"].tolist()[2] == -1


def test_media_and_targets_keep_the_order_of_the_samples(encoder, collate):
    """Catches visual tokens, grids, times, targets or names of a neighbour."""
    items = [item(encoder, n, name=f"seed{n}", mos=n / 10, prefix=PREFIX) for n in (4, 1, 7)]
    batch = collate([*items, item(encoder, 2, name="none")])
    assert batch["names"] == ["seed4", "seed1", "seed7", "none"]
    assert batch["video_embeds"][:, 0].tolist() == [4.0] * 4 + [1.0] + [7.0] * 7 + [2.0] * 2
    assert batch["video_grid_thw"].tolist() == [[1, 2, 8], [1, 2, 2], [1, 2, 14], [1, 2, 4]]
    assert batch["second_per_grid_ts"].tolist() == [2.0, 0.5, 3.5, 1.0]
    assert batch["mos"].dtype == torch.float32
    torch.testing.assert_close(batch["mos"][:3], torch.tensor([0.4, 0.1, 0.7]))
    assert batch["mos"][3].isnan()
    assert "pixel_values_videos" not in batch


def made_pixels(processor, seed: int, height: int = 84, width: int = 56) -> Pixels:
    frames = random_frames(seed, 6, height, width)
    values, grid = clip_pixels(frames, processor.video_processor)
    return Pixels(
        values=values,
        grid_thw=grid,
        second_per_grid=1.0,
        decoder="pyav",
        size=(width, height),
        tokens=grid[0] * grid[1] * grid[2] // 4,
    )


def test_pixels_go_where_no_tokens_are(processor, encoder, collate):
    """Catches pixels that are dropped or stacked instead of joined: grids differ in a batch."""
    clips = [made_pixels(processor, 0), made_pixels(processor, 1, height=28)]
    batch = collate(
        [
            Item(
                name="",
                encoded=encoder.encode("How?", clip.tokens),
                grid_thw=clip.grid_thw,
                second_per_grid=1.0,
                pixel_values=clip.values,
            )
            for clip in clips
        ]
    )
    assert torch.equal(batch["pixel_values_videos"], torch.cat([clip.values for clip in clips]))
    assert "video_embeds" not in batch


def test_view_batch_asks_before_it_shows(processor, encoder, collate):
    """In a causal model text after the views cannot reach them (departure D5). Catches the saliency
    question behind the video, and arguments that `saliency_features` does not take.
    """
    clips = [made_pixels(processor, seed) for seed in (0, 1)]
    batch = view_batch(encoder, collate, clips)
    assert set(batch) == {
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values_videos",
        "second_per_grid_ts",
        "video_grid_thw",
    }
    assert batch["video_grid_thw"].tolist() == [[3, 6, 4]] * 2
    assert (batch["input_ids"] == encoder.video_pad).sum(1).tolist() == [18, 18]
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert f"user\n{SALIENCY_PROMPT}<|vision_start|><|video_pad|>" in text
    assert torch.equal(batch["pixel_values_videos"], torch.cat([clip.values for clip in clips]))
