"""Batches: packed questions padded at the right, what is learnt and scored where, and dialogues to
be gone on with, padded at the left.
"""

import pytest
import torch

from lmme3dhf.data.collation import (
    Collator,
    Item,
    Media,
    Question,
    packed_item,
    view_batch,
    written_batch,
)
from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder, Encoded
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT
from lmme3dhf.data.pixels import clip_pixels
from tests.conftest import random_frames

PREFIX = "The quality of the human face in this video is"
OTHER = "The authenticity of the human face in this video is"
TENSORS = {"input_ids", "seen_until", "mm_token_type_ids", "reads", "video_embeds"}
TENSORS |= {"video_grid_thw", "second_per_grid_ts"}


@pytest.fixture
def encoder(processor) -> DialogueEncoder:
    return DialogueEncoder(processor.tokenizer)


@pytest.fixture
def collate(processor) -> Collator:
    return Collator(processor.tokenizer.pad_token_id, aspects=("quality",))


def media(tokens: int) -> Media:
    """A clip whose visual tokens tell how many they are."""
    return Media(
        grid_thw=(1, 2, 2 * tokens),
        second_per_grid=tokens / 2,
        tokens=tokens,
        video_embeds=torch.full((tokens, 8), float(tokens)),
    )


def question(encoder, name: str = "", mos: float | None = None, **dialogue) -> Question:
    prompt = dialogue.pop("prompt", PROMPTS["quality"])
    return Question(
        name=name,
        encoded=encoder.encode(prompt, **dialogue),
        aspect="quality",
        values={} if mos is None else {"quality": mos},
    )


def item(encoder, tokens: int, **options) -> Item:
    return packed_item([question(encoder, **options)], media(tokens))


@pytest.fixture
def three(encoder) -> list[Question]:
    """The questions of one clip: learnt and scored, scored alone, learnt alone."""
    return [
        question(encoder, "q", 0.4, reply=f"{PREFIX} poor. (12.3)", prefix=PREFIX),
        question(encoder, "a", 0.7, prompt=PROMPTS["authenticity"], prefix=OTHER),
        question(encoder, "d", prompt=PROMPTS["distortion"], reply="Distortions found: Blurriness"),
    ]


def seen_by(input_ids, seen_until, position: int) -> list[int]:
    """The tokens that the token at a position sees, itself included."""
    return [int(input_ids[j]) for j in range(position + 1) if position < seen_until[j]]


def beginnings_learnt(encoded: Encoded) -> list[tuple[list[int], int]]:
    """By the definition: what stands before each learnt token, and the token."""
    learnt = [i for i, label in enumerate(encoded.labels) if label != IGNORED]
    return [(list(encoded.input_ids[:i]), encoded.labels[i]) for i in learnt]


# Items


def test_each_learnt_token_is_predicted_from_its_own_beginning(three):
    """Catches labels that are off by one, that are predicted in another question's branch, and the
    end of a reply that is not learnt.
    """
    packed = packed_item(three, media(5))
    found = [
        (seen_by(packed.pack.input_ids, packed.pack.seen_until, packed.pack.reads[place]), token)
        for place, token in packed.learnt
    ]
    expected = [pair for q in three for pair in beginnings_learnt(q.encoded.expand(5))]
    assert found == expected
    assert {len(before) for before, _ in found} != {len(found[0][0])}
    assert packed.names == ("q", "a", "d")


def test_each_score_is_read_at_the_end_of_its_prefix(processor, three):
    """Catches a score at the level word, at another question's read position, or with another
    question's target.
    """
    packed = packed_item(three, media(5))
    found = [
        (seen_by(packed.pack.input_ids, packed.pack.seen_until, packed.pack.reads[place]), scored)
        for place, scored in packed.scored
    ]
    for (seen, scored), asked, prefix in zip(found, three[:2], (PREFIX, OTHER), strict=True):
        alone = asked.encoded.expand(5)
        assert seen == list(alone.input_ids[: alone.read_index + 1])
        assert processor.tokenizer.decode(seen).endswith(f"<|im_start|>assistant\n{prefix}")
        assert scored.values == asked.values
    without = packed_item([question_without_target(three[0])], media(5))
    ((_, scored),) = without.scored
    assert scored.values == {}


def question_without_target(asked: Question) -> Question:
    return Question(name=asked.name, encoded=asked.encoded, aspect=asked.aspect)


def test_what_nobody_reads_is_no_input(encoder, three):
    """The last token of a reply predicts nothing that is learnt. Catches tokens that cost time for
    nothing, and a label that gets into the input of a question that is only scored.
    """
    told = question(encoder, reply=f"{PREFIX} poor. (12.3)")
    alone = packed_item([told], media(5))
    assert alone.pack.input_ids == told.encoded.expand(5).input_ids[:-1]
    assert not alone.scored
    asked = question(encoder, prefix=PREFIX)
    assert packed_item([asked], media(5)).pack.input_ids == asked.encoded.expand(5).input_ids
    # What the questions share, the clip above all, is there once.
    lengths = [len(packed_item([q], media(5)).pack.input_ids) for q in three]
    together = len(packed_item(three, media(5)).pack.input_ids)
    shared = together - len(packed_item(three, media(4)).pack.input_ids)
    assert shared == 1
    assert together < sum(lengths) - 2 * 5


def test_a_question_that_is_there_twice_counts_twice(three):
    """Catches a loss that depends on whether equal questions met in one pack."""
    once, twice = packed_item(three[:1], media(5)), packed_item([three[0]] * 2, media(5))
    assert twice.pack.input_ids == once.pack.input_ids
    assert twice.learnt == once.learnt * 2
    assert twice.scored == once.scored * 2


# Packed batches


def test_rows_are_padded_at_the_right(encoder, collate, three):
    """Catches padding that some token sees or that sees any, a placeholder's type that is lost, and
    reads that lie in the padding.
    """
    items = [item(encoder, 3, prefix=PREFIX), packed_item(three, media(11))]
    batch = collate(items)
    length, most = len(items[1].pack.input_ids), len(items[1].pack.reads)
    for row, one in enumerate(items):
        own = len(one.pack.input_ids)
        ids = [*one.pack.input_ids, *[collate.pad_token_id] * (length - own)]
        expected = {
            "input_ids": ids,
            "seen_until": [*one.pack.seen_until, *range(own + 1, length + 1)],
            "mm_token_type_ids": [2 * (token == encoder.video_pad) for token in ids],
            "reads": [*one.pack.reads, *[one.pack.reads[0]] * (most - len(one.pack.reads))],
        }
        for name, values in expected.items():
            assert batch[name].dtype == torch.int64
            assert batch[name][row].tolist() == values, name
    assert len(items[0].pack.input_ids) < length
    assert batch["tokens"] == len(items[0].pack.input_ids) + length


def test_lengths_are_rounded_up(processor, encoder, collate, three):
    """Catches a length that is cut instead of filled, and a multiple that is filled once more."""
    whole = collate([packed_item(three, media(5))])
    length = whole["input_ids"].shape[1]
    for pad_to in (1, 7, 64, length):
        padded = Collator(processor.tokenizer.pad_token_id, pad_to)([packed_item(three, media(5))])
        expected = next(n for n in range(length, 2 * length + 64) if n % pad_to == 0)
        for name in ("input_ids", "seen_until", "mm_token_type_ids"):
            assert padded[name].shape == (1, expected)
            assert torch.equal(padded[name][:, :length], whole[name])
        assert padded["tokens"] == length
        assert torch.equal(padded["reads"], whole["reads"])


def test_reads_are_counted_over_the_rows(encoder, collate, three):
    """Rows are read at different numbers of places. Catches tokens and scores that are taken from
    another row, or from another question of the row.
    """
    asked = [[three[1]], three, [three[2], three[0]]]
    batch = collate([packed_item(row, media(4 + i)) for i, row in enumerate(asked)])
    width = batch["reads"].shape[1]

    def seen(place: int) -> list[int]:
        row = place // width
        position = int(batch["reads"].flatten()[place])
        return seen_by(batch["input_ids"][row], batch["seen_until"][row].tolist(), position)

    dialogues = [(q, q.encoded.expand(4 + i)) for i, row in enumerate(asked) for q in row]
    learnt = zip(batch["learnt"].tolist(), batch["targets"].tolist(), strict=True)
    assert [(seen(place), token) for place, token in learnt] == [
        pair for _, encoded in dialogues for pair in beginnings_learnt(encoded)
    ]
    scored = [(q.values.get("quality"), e) for q, e in dialogues if e.read_index >= 0]
    assert [seen(place) for place in batch["scored"].tolist()] == [
        list(encoded.input_ids[: encoded.read_index + 1]) for _, encoded in scored
    ]
    assert batch["values"].dtype == torch.float32
    torch.testing.assert_close(batch["values"][:, 0], torch.tensor([mos for mos, _ in scored]))
    assert batch["names"] == ["a", "q", "a", "d", "d", "q"]


def test_what_is_not_there_is_left_out(encoder, collate):
    """Catches empty tensors that a mean would turn into nan, and targets without their reads."""
    asked = collate([item(encoder, 2, prefix=PREFIX)])
    told = collate([item(encoder, 2, reply="Yes.")])
    facts = {"names", "tokens"}
    assert set(asked) == TENSORS | facts | {"scored", "values", "asked"}
    assert asked["values"].isnan().all()
    assert set(told) == TENSORS | facts | {"learnt", "targets"}


def test_media_and_targets_keep_the_order_of_the_samples(encoder, collate):
    """Catches visual tokens, grids, times, targets or names of a neighbour."""
    items = [item(encoder, n, name=f"seed{n}", mos=n / 10, prefix=PREFIX) for n in (4, 1, 7)]
    batch = collate([*items, item(encoder, 2, name="none", prefix=PREFIX)])
    assert batch["names"] == ["seed4", "seed1", "seed7", "none"]
    assert batch["video_embeds"][:, 0].tolist() == [4.0] * 4 + [1.0] + [7.0] * 7 + [2.0] * 2
    assert batch["video_grid_thw"].tolist() == [[1, 2, 8], [1, 2, 2], [1, 2, 14], [1, 2, 4]]
    assert batch["second_per_grid_ts"].tolist() == [2.0, 0.5, 3.5, 1.0]
    torch.testing.assert_close(batch["values"][:3, 0], torch.tensor([0.4, 0.1, 0.7]))
    assert batch["values"][3].isnan()
    assert "pixel_values_videos" not in batch


def made_pixels(processor, seed: int, height: int = 84, width: int = 56) -> Media:
    values, grid = clip_pixels(random_frames(seed, 6, height, width), processor.video_processor)
    tokens = grid[0] * grid[1] * grid[2] // 4
    return Media(grid_thw=grid, second_per_grid=1.0, tokens=tokens, pixel_values=values)


def test_pixels_go_where_no_tokens_are(processor, encoder, collate):
    """Catches pixels that are dropped or stacked instead of joined: grids differ in a batch."""
    clips = [made_pixels(processor, 0), made_pixels(processor, 1, height=28)]
    batch = collate([packed_item([question(encoder, prefix=PREFIX)], clip) for clip in clips])
    joined = torch.cat([clip.pixel_values for clip in clips])
    assert torch.equal(batch["pixel_values_videos"], joined)
    assert "video_embeds" not in batch


# Views and dialogues to be gone on with


def test_view_batch_asks_before_it_shows(processor, encoder):
    """In a causal model text after the views cannot reach them (departure D5). Catches the saliency
    question behind the video, visual tokens that are not read, and text behind them that costs time
    for nothing.
    """
    clips = [made_pixels(processor, seed) for seed in (0, 1)]
    batch = view_batch(encoder, clips)
    assert set(batch) == TENSORS - {"video_embeds"} | {"pixel_values_videos"}
    assert batch["video_grid_thw"].tolist() == [[3, 6, 4]] * 2
    at = batch["input_ids"] == encoder.video_pad
    assert at.sum(1).tolist() == [18, 18]
    assert batch["reads"].tolist() == [row.nonzero()[:, 0].tolist() for row in at]
    assert at[:, -1].all()
    assert batch["seen_until"].unique().tolist() == [batch["input_ids"].shape[1]]
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert f"user\n{SALIENCY_PROMPT}<|vision_start|><|video_pad|>" in text
    joined = torch.cat([clip.pixel_values for clip in clips])
    assert torch.equal(batch["pixel_values_videos"], joined)


@pytest.mark.parametrize("prompt", ["Where do you look?", ""])
def test_view_batch_asks_what_it_is_told_to(processor, encoder, prompt):
    """Table 5's row without a question included. Catches a prompt that is replaced by the usual
    one because it is empty.
    """
    batch = view_batch(encoder, [made_pixels(processor, 0)], prompt)
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert f"user\n{prompt}<|vision_start|><|video_pad|>" in text
    assert SALIENCY_PROMPT not in text


def test_dialogues_to_be_gone_on_with_are_padded_at_the_left(processor, encoder):
    """Catches padding at the right, where generation would go on from it, and a mask or a type that
    does not move along.
    """
    clips = [media(3), media(11)]
    dialogues = [
        encoder.encode(PROMPTS["distortion"], prefix="Distortions found:"),
        encoder.encode(PROMPTS["quality"]),
    ]
    pad_token = processor.tokenizer.pad_token_id
    batch = written_batch(dialogues, clips, pad_token)
    rows = [d.expand(m.tokens).input_ids for d, m in zip(dialogues, clips, strict=True)]
    length = len(rows[1])
    assert len(rows[0]) < length
    for row, ids in enumerate(rows):
        pad = length - len(ids)
        expected = {
            "input_ids": [pad_token] * pad + list(ids),
            "attention_mask": [0] * pad + [1] * len(ids),
            "mm_token_type_ids": [0] * pad + [2 * (token == encoder.video_pad) for token in ids],
        }
        for name, values in expected.items():
            assert batch[name].dtype == torch.int64
            assert batch[name][row].tolist() == values, name
    assert batch["video_embeds"][:, 0].tolist() == [3.0] * 3 + [11.0] * 11
    assert batch["video_grid_thw"].tolist() == [[1, 2, 6], [1, 2, 22]]
    assert batch["second_per_grid_ts"].tolist() == [1.5, 5.5]
