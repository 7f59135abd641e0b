"""Batches: packed questions on clips, with the clips' visual tokens or pixels; and dialogues,
padded at the left, for the model to go on with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder, Encoded
from lmme3dhf.data.gen3dhf import SALIENCY_PROMPT
from lmme3dhf.data.packing import Pack, TokenPath, expand, pack, slots
from lmme3dhf.models.backbone import MEDIA, library_arguments

# Keys of a batch that are no arguments of the model.
FACTS = ("names", "tokens", "values", "asked")


@dataclass(frozen=True, kw_only=True)
class Media:
    """A video or image as the model takes it.

    Attributes:
        grid_thw: Temporal patches, patch rows, patch columns.
        second_per_grid: Seconds between temporal patches; 0 for an image.
        tokens: Visual tokens after the merge.
        video_embeds: (visual tokens, hidden), when the tower ran before.
        pixel_values: (patches, 1176), when it has to run.
    """

    grid_thw: tuple[int, int, int]
    second_per_grid: float
    tokens: int
    video_embeds: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None

    @property
    def kind(self) -> str:
        """A key of `models.backbone.MEDIA`."""
        return "video" if self.second_per_grid else "image"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A dialogue on a clip with its name and targets.

    Attributes:
        name: Says which sample this is ("seed0001 quality"), for messages.
        encoded: The tokens.
        aspect: The aspect that it asks for; None for another question.
        values: Aspect -> target, 0 at the minimum of its scale and 1 at its maximum; those that
            are not known are left out.
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
        pack: The questions' tokens, the placeholder repeated once a visual token.
        names: Names of the questions.
        learnt: (index into the pack's reads, token to be predicted there).
        scored: The questions that are scored: the aspect that is asked for, the targets, and by
            name of a read the indices into the pack's reads.
    """

    media: Media
    pack: Pack
    names: tuple[str, ...]
    learnt: tuple[tuple[int, int], ...]
    scored: tuple[tuple[str | None, Mapping[str, float], Mapping[str, tuple[int, ...]]], ...]


def packed_item(questions: Sequence[Question], media: Media, spans: Sequence[str] = ()) -> Item:
    """Packs the questions on one clip.

    A token is learnt where the dialogue's labels say so, by the token before it; a score is read at
    the dialogue's answer, and what else is asked for there. What follows the last of these is no
    input at all.

    Args:
        questions: At least one.
        media: The clip.
        spans: Names of `Encoded.reads` that heads read beside "answer".
    """
    paths, targets = [], []
    for question in questions:
        encoded = question.encoded
        learnt = {i - 1: label for i, label in enumerate(encoded.labels) if label != IGNORED}
        wanted = {i for name in _read_names(encoded, spans) for i in encoded.reads[name]}
        reads = sorted({*learnt, *wanted})
        paths.append(TokenPath(encoded.input_ids[: reads[-1] + 1], tuple(reads)))
        targets.append([learnt.get(read) for read in reads])
    template, marker = pack(tuple(paths)), questions[0].encoded.marker
    learnt, scored = [], []
    for question, path, places, tokens in zip(
        questions, paths, template.places, targets, strict=True
    ):
        at = {
            read: slots(template, marker, media.tokens, place)
            for read, place in zip(path.reads, places, strict=True)
        }
        learnt += [
            (at[read].start, token)
            for read, token in zip(path.reads, tokens, strict=True)
            if token is not None
        ]
        if "answer" in question.encoded.reads:
            named = {
                name: tuple(slot for i in question.encoded.reads[name] for slot in at[i])
                for name in _read_names(question.encoded, spans)
            }
            scored.append((question.aspect, question.values, named))
    placeholder = questions[0].encoded.placeholders[media.kind]
    return Item(
        media=media,
        pack=expand(template, marker, placeholder, media.tokens),
        names=tuple(question.name for question in questions),
        learnt=tuple(learnt),
        scored=tuple(scored),
    )


def _read_names(encoded: Encoded, spans: Sequence[str]) -> list[str]:
    """The reads of a dialogue that heads take: none where it is not scored."""
    return ["answer", *spans] if "answer" in encoded.reads else []


@dataclass(frozen=True)
class Collator:
    """Collates `Item`s into the arguments of `LMME3DHF.forward`.

    Attributes:
        pad_token_id: Fills the right.
        pad_to: Lengths are rounded up to a multiple of it, so that a compiled model meets few
            shapes.
        aspects: Names of the aspects, in the order of the columns of `values`.
        spans: Names of the reads beside "answer", as of `packed_item`.
    """

    pad_token_id: int
    pad_to: int = 1
    aspects: tuple[str, ...] = ()
    spans: tuple[str, ...] = ()

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Pads and stacks.

        Returns:
            input_ids, seen_until, mm_token_type_ids (batch, length); reads (batch, R); learnt and
            targets (learnt tokens,); for the S questions that are scored `scored` (S,), indices of
            their answers into the flattened `reads`, for each further read `span_NAME` (S, T),
            filled up with -1, `values` (S, aspects) float32, NaN where unknown, and `asked` (S,),
            the index of the aspect or -1; all left out where there are none; grids and times;
            `video_embeds` or `pixel_values_videos`, concatenated; and `names` of the questions and
            the number of `tokens` that are no padding, which are no tensors.
        """
        batch = packed_batch(
            [item.pack for item in items],
            [item.media for item in items],
            self.pad_token_id,
            self.pad_to,
        )
        width = batch["reads"].shape[1]
        learnt = [(row * width + p, t) for row, i in enumerate(items) for p, t in i.learnt]
        if learnt:
            batch["learnt"], batch["targets"] = torch.tensor(learnt).unbind(1)
        scored = [(row, *question) for row, item in enumerate(items) for question in item.scored]
        if scored:
            batch["scored"] = torch.tensor(
                [row * width + at["answer"][0] for row, _, _, at in scored]
            )
            for name in self.spans:
                longest = max(len(at[name]) for *_, at in scored)
                batch[f"span_{name}"] = torch.tensor(
                    [
                        [*(row * width + i for i in at[name]), *[-1] * (longest - len(at[name]))]
                        for row, _, _, at in scored
                    ]
                )
            nan = float("nan")
            batch["values"] = torch.tensor(
                [[known.get(name, nan) for name in self.aspects] for _, _, known, _ in scored],
                dtype=torch.float32,
            )
            order = {name: index for index, name in enumerate(self.aspects)}
            batch["asked"] = torch.tensor([order.get(aspect, -1) for _, aspect, _, _ in scored])
        batch["names"] = [name for item in items for name in item.names]
        batch["tokens"] = sum(len(item.pack.input_ids) for item in items)
        return batch


def packed_batch(
    packs: Sequence[Pack],
    media: Sequence[Media],
    pad_token_id: int,
    pad_to: int = 1,
) -> dict[str, torch.Tensor]:
    """Arguments of `LMME3DHF.hidden_at` for packs on clips; rows are padded at the right, and reads
    with their own first one.

    Args:
        packs: One a clip, expanded.
        media: The clips.
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
    token_types = torch.zeros_like(input_ids)
    for row, own, medium in zip(token_types, packs, media, strict=True):
        row[own.media.start : own.media.stop] = MEDIA[medium.kind].token_type
    batch = {
        "input_ids": input_ids,
        "seen_until": torch.tensor(seen),
        "mm_token_type_ids": token_types,
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
        encoder: The encoder with the model's tokenizer.
        media: The views of each clip.
        prompt: None for `SALIENCY_PROMPT`; "" for no question at all.
    """
    asked = encoder.encode(SALIENCY_PROMPT if prompt is None else prompt, media_first=False)
    end = asked.reads["media"].start
    template = pack((TokenPath(asked.input_ids[: end + 1], (end,)),))
    packs = [
        expand(template, asked.marker, asked.placeholders[clip.kind], clip.tokens) for clip in media
    ]
    return packed_batch(packs, media, encoder.tokenizer.pad_token_id)


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
        encoded.expand(clip.kind, clip.tokens)
        for encoded, clip in zip(dialogues, media, strict=True)
    ]
    length = max(len(row.input_ids) for row in rows)
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_token_id)
    attention_mask, token_types = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
    for number, (row, clip) in enumerate(zip(rows, media, strict=True)):
        start, seen = length - len(row.input_ids), row.reads["media"]
        input_ids[number, start:] = torch.tensor(row.input_ids)
        attention_mask[number, start:] = 1
        token_types[number, start + seen.start : start + seen.stop] = MEDIA[clip.kind].token_type
    return (
        {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "mm_token_type_ids": token_types,
        }
        | library_arguments(
            [clip.kind for clip in media],
            torch.tensor([clip.grid_thw for clip in media]),
            torch.tensor([clip.second_per_grid for clip in media]),
        )
        | _joined(media)
    )
