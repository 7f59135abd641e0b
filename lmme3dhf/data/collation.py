"""Batches: encoded dialogues, padded at the left, with their visual tokens or pixels."""

from dataclasses import dataclass

import torch

from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder, Encoded
from lmme3dhf.data.gen3dhf import SALIENCY_PROMPT
from lmme3dhf.data.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class Item:
    """One dialogue with the media it is about.

    Attributes:
        name: Says which sample this is ("seed0001 quality"), for messages.
        encoded: The tokens.
        grid_thw: Temporal patches, patch rows, patch columns.
        second_per_grid: Seconds between temporal patches.
        video_embeds: (visual tokens, hidden), when the tower ran before.
        pixel_values: (patches, 1176), when it has to run.
        mos: Target in MOS / 100; nan without one.
    """

    name: str
    encoded: Encoded
    grid_thw: tuple[int, int, int]
    second_per_grid: float
    video_embeds: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None
    mos: float = float("nan")


class Collator:
    """Collates `Item`s into the arguments of `LMME3DHF.forward`.

    Padding stands at the left: the last tokens of all rows align, and generation can go on from
    them.

    Args:
        pad_token_id: Fills the left.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, items: list[Item]) -> dict:
        """Pads and stacks.

        Returns:
            input_ids, attention_mask, mm_token_type_ids, labels (batch, length); read_index
            (batch,), -1 without a score; grids and times; `video_embeds` or `pixel_values_videos`,
            concatenated; `mos` (batch,), nan without one; `names`.
        """
        length = max(len(item.encoded.input_ids) for item in items)

        def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
            return torch.tensor([[fill] * (length - len(row)) + row for row in rows])

        encoded = [item.encoded for item in items]
        batch = {
            "names": [item.name for item in items],
            "input_ids": padded([e.input_ids for e in encoded], self.pad_token_id),
            "attention_mask": padded([[1] * len(e.input_ids) for e in encoded], 0),
            "mm_token_type_ids": padded([e.mm_token_type_ids for e in encoded], 0),
            "labels": padded([e.labels for e in encoded], IGNORED),
            "read_index": torch.tensor(
                [
                    e.read_index + length - len(e.input_ids) if e.read_index >= 0 else -1
                    for e in encoded
                ]
            ),
            "video_grid_thw": torch.tensor([item.grid_thw for item in items]),
            "second_per_grid_ts": torch.tensor([item.second_per_grid for item in items]),
            "mos": torch.tensor([item.mos for item in items], dtype=torch.float32),
        }
        if items[0].video_embeds is not None:
            batch["video_embeds"] = torch.cat([item.video_embeds for item in items])
        else:
            batch["pixel_values_videos"] = torch.cat([item.pixel_values for item in items])
        return batch


def view_batch(
    encoder: DialogueEncoder, collate: Collator, clips: list[Pixels], prompt: str | None = None
) -> dict[str, torch.Tensor]:
    """Arguments of `LMME3DHF.saliency_features` for the views of some clips.

    The prompt stands before the views: in a causal model text after them could not reach the
    visual tokens' hidden states (departure D5).

    Args:
        encoder: Of the model's tokenizer.
        collate: Of the same.
        clips: The views of each clip.
        prompt: None for `SALIENCY_PROMPT`; "" for no question at all.
    """
    prompt = SALIENCY_PROMPT if prompt is None else prompt
    items = [
        Item(
            name="",
            encoded=encoder.encode(prompt, pixels.tokens, video_first=False),
            grid_thw=pixels.grid_thw,
            second_per_grid=pixels.second_per_grid,
            pixel_values=pixels.values,
        )
        for pixels in clips
    ]
    unused = ("names", "labels", "read_index", "mos")
    return {name: value for name, value in collate(items).items() if name not in unused}
