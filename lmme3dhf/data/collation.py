"""Batches: packed questions on clips, with the clips' visual tokens or pixels; and dialogues,
padded at the left, for the model to go on with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lmme3dhf.data.dialogue import IGNORED, VIDEO_TYPE, DialogueEncoder, Encoded
from lmme3dhf.data.gen3dhf import SALIENCY_PROMPT
from lmme3dhf.data.packing import Pack, Path, expand, pack

# What is no tensor, or no argument of the model.
FACTS = ("names", "tokens", "values", "asked")


@dataclass(frozen=True, kw_only=True)
class Media:
    """A clip as the model takes it.

    Attributes:
        grid_thw: Temporal patches, patch rows, patch columns.
        second_per_grid: Seconds between temporal patches.
        tokens: Visual tokens after the merge.
        video_embeds: (visual tokens, hidden), when the tower ran before.
        pixel_values: (patches, 1176), when it has to run.
    """

    grid_thw: tuple[int, int, int]
    second_per_grid: float
    tokens: int
    video_embeds: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A dialogue on a clip with its name and target.

    Attributes:
        name: Says which sample this is ("seed0001 quality"), for messages.
        encoded: The tokens.
        aspect: The aspect that is asked; None for another question.
        values: Aspect -> target in units of its scale; what is not known is left out.
    """

    name: str
    encoded: Encoded
    aspect: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Item:
    """Some questions on one clip, packed.

    Attributes:
        media: The clip.
        pack: The questions' tokens, the video placeholder repeated once a visual token.
        names: Of the questions.
        learnt: (index into the pack's reads, token to be predicted there).
        scored: (index into the pack's reads, the question that is scored there).
        video_pad: The placeholder's token.
    """

    media: Media
    pack: Pack
    names: tuple[str, ...]
    learnt: tuple[tuple[int, int], ...]
    scored: tuple[tuple[int, Question], ...]
    video_pad: int


def packed_item(questions: Sequence[Question], media: Media) -> Item:
    """Packs the questions on one clip.

    A token is learnt where the dialogue's labels say so, by the token before it; a score is read at
    the dialogue's read position. What follows the last of these is no input at all.
    """
    paths, targets = [], []
    for question in questions:
        encoded = question.encoded
        learnt = {i - 1: label for i, label in enumerate(encoded.labels) if label != IGNORED}
        reads = sorted({*learnt, encoded.read_index} - {-1})
        paths.append(Path(encoded.input_ids[: reads[-1] + 1], tuple(reads)))
        targets.append([learnt.get(read) for read in reads])
    template = pack(tuple(paths))
    learnt, scored = [], []
    for question, path, places, tokens in zip(
        questions, paths, template.places, targets, strict=True
    ):
        learnt += [(p, t) for p, t in zip(places, tokens, strict=True) if t is not None]
        if question.encoded.read_index >= 0:
            place = places[path.reads.index(question.encoded.read_index)]
            scored.append((place, question))
    video_pad = questions[0].encoded.video_pad
    return Item(
        media=media,
        pack=expand(template, video_pad, media.tokens),
        names=tuple(question.name for question in questions),
        learnt=tuple(learnt),
        scored=tuple(scored),
        video_pad=video_pad,
    )


@dataclass(frozen=True)
class Collator:
    """Collates `Item`s into the arguments of `LMME3DHF.forward`.

    Attributes:
        pad_token_id: Fills the right.
        pad_to: Lengths are rounded up to a multiple of it, so that a compiled model meets few
            shapes.
        aspects: What may be asked, in the order of `values`.
    """

    pad_token_id: int
    pad_to: int = 1
    aspects: tuple[str, ...] = ()

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Pads and stacks.

        Returns:
            input_ids, seen_until, mm_token_type_ids (batch, length); reads (batch, R); learnt and
            targets (learnt tokens,), scored and asked (scored reads,) and values (scored reads,
            aspects) float32, NaN where unknown, all left out where there are none;
            grids and times; `video_embeds` or `pixel_values_videos`, concatenated; and `names` of
            the questions and the number of `tokens` that are no padding, which are no tensors.
        """
        batch = packed_batch(
            [item.pack for item in items],
            [item.media for item in items],
            items[0].video_pad,
            self.pad_token_id,
            self.pad_to,
        )
        width = batch["reads"].shape[1]
        learnt = [(row * width + p, t) for row, i in enumerate(items) for p, t in i.learnt]
        scored = [(row * width + p, q) for row, i in enumerate(items) for p, q in i.scored]
        if learnt:
            batch["learnt"], batch["targets"] = torch.tensor(learnt).unbind(1)
        if scored:
            batch["scored"] = torch.tensor([place for place, _ in scored])
        if scored and self.aspects:
            questions = [question for _, question in scored]
            batch["asked"] = torch.tensor([self.aspects.index(q.aspect) for q in questions])
            rows = [[q.values.get(name, float("nan")) for name in self.aspects] for q in questions]
            batch["values"] = torch.tensor(rows, dtype=torch.float32)
        batch["names"] = [name for item in items for name in item.names]
        batch["tokens"] = sum(len(item.pack.input_ids) for item in items)
        return batch


def packed_batch(
    packs: Sequence[Pack],
    media: Sequence[Media],
    video_pad: int,
    pad_token_id: int,
    pad_to: int = 1,
) -> dict[str, torch.Tensor]:
    """Arguments of `LMME3DHF.hidden_at` for packs on clips; rows are padded at the right, and reads
    with their own first one.

    Args:
        packs: One a clip, expanded.
        media: The clips.
        video_pad: The video placeholder's token.
        pad_token_id: Fills the right.
        pad_to: Lengths are rounded up to a multiple of it.
    """
    longest = max(len(pack.input_ids) for pack in packs)
    length = -(-longest // pad_to) * pad_to
    most = max(len(pack.reads) for pack in packs)

    def padded(row: Sequence[int], fill: int) -> list[int]:
        return [*row, *[fill] * (length - len(row))]

    input_ids = torch.tensor([padded(pack.input_ids, pad_token_id) for pack in packs])
    # A padding token sees and is seen by itself alone.
    alone = range(1, length + 1)
    seen = [[*pack.seen_until, *alone[len(pack.seen_until) :]] for pack in packs]
    reads = [[*pack.reads, *[pack.reads[0]] * (most - len(pack.reads))] for pack in packs]
    batch = {
        "input_ids": input_ids,
        "seen_until": torch.tensor(seen),
        "mm_token_type_ids": (input_ids == video_pad) * VIDEO_TYPE,
        "reads": torch.tensor(reads),
        "video_grid_thw": torch.tensor([clip.grid_thw for clip in media]),
        "second_per_grid_ts": torch.tensor([clip.second_per_grid for clip in media]),
    }
    return batch | _joined(media)


def _joined(media: Sequence[Media]) -> dict[str, torch.Tensor]:
    if media[0].video_embeds is not None:
        return {"video_embeds": torch.cat([clip.video_embeds for clip in media])}
    return {"pixel_values_videos": torch.cat([clip.pixel_values for clip in media])}


def view_batch(
    encoder: DialogueEncoder, media: Sequence[Media], prompt: str | None = None
) -> dict[str, torch.Tensor]:
    """Arguments of `LMME3DHF.view_states` for the views of some clips with equal grids.

    The prompt stands before the views: in a causal model text after them could not reach the
    visual tokens' hidden states (departure D5). The sequence ends at the last visual token.

    Args:
        encoder: Of the model's tokenizer.
        media: The views of each clip.
        prompt: None for `SALIENCY_PROMPT`; "" for no question at all.
    """
    asked = encoder.encode(SALIENCY_PROMPT if prompt is None else prompt, video_first=False)
    end = asked.input_ids.index(encoder.video_pad)
    packs = []
    for clip in media:
        whole = expand(
            pack((Path(asked.input_ids[: end + 1], (end,)),)), encoder.video_pad, clip.tokens
        )
        packs.append(replace(whole, reads=tuple(range(end, end + clip.tokens))))
    return packed_batch(packs, media, encoder.video_pad, encoder.tokenizer.pad_token_id)


def written_batch(
    dialogues: Sequence[Encoded], media: Sequence[Media], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Arguments of `generate` for one dialogue a clip; padded at the left, so that all rows go on
    at the same place.

    Args:
        dialogues: Not expanded.
        media: Their clips.
        pad_token_id: Fills the left.
    """
    rows = [
        encoded.expand(clip.tokens).input_ids
        for encoded, clip in zip(dialogues, media, strict=True)
    ]
    length = max(map(len, rows))

    def padded(fill: int, of: Callable[[tuple[int, ...]], Sequence[int]]) -> torch.Tensor:
        return torch.tensor([[*[fill] * (length - len(row)), *of(row)] for row in rows])

    video_pad = dialogues[0].video_pad
    input_ids = padded(pad_token_id, lambda row: row)
    return {
        "input_ids": input_ids,
        "attention_mask": padded(0, lambda row: [1] * len(row)),
        "mm_token_type_ids": (input_ids == video_pad) * VIDEO_TYPE,
        "video_grid_thw": torch.tensor([clip.grid_thw for clip in media]),
        "second_per_grid_ts": torch.tensor([clip.second_per_grid for clip in media]),
    } | _joined(media)
