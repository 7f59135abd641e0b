"""The distribution over given replies: against the library's own class, a reply at a time, and by
hand.
"""

import copy
from itertools import combinations

import pytest
import torch

from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.models.configuration import ModelError
from lmme3dhf.models.likelihood import log_probabilities, reply_tree
from tests.models.conftest import SHAPES, batch_of, made_item

FOUND = "Distortions found:"
EYES, HAIR, HEAD = "Eye Distortions", "Hair Distortions", "Head Structure Distortions"
# Every set of three categories in one order, and the clean answer.
REPLIES = [
    *(", ".join(named) for n in (1, 2, 3) for named in combinations((EYES, HAIR, HEAD), n)),
    "No Distortion",
]


@pytest.fixture(scope="module")
def lively(model):
    """The random model with attention and outputs far from even, so that a token seen, hidden or
    moved by mistake changes a probability by much more than rounding.
    """
    lively = copy.deepcopy(model)
    with torch.no_grad():
        for layer in lively.model.language_model.layers:
            layer.self_attn.q_proj.weight *= 4
            layer.self_attn.k_proj.weight *= 4
            layer.self_attn.o_proj.weight *= 4
        lively.model.language_model.norm.weight *= 3
    return lively


@pytest.fixture(scope="module")
def answers(processor) -> list[list[int]]:
    """The replies as tokens behind the prefix, with their end."""
    encode, end = processor.tokenizer.encode, "<|im_end|>"
    return [encode(f" {reply}{end}", add_special_tokens=False) for reply in REPLIES]


def asked(processor, model, *which: int):
    """The distortion question on noise clips of several grids, as `log_probabilities` takes it."""
    items = [
        made_item(processor, i, SHAPES[i], model=model, prompt=PROMPTS["distortion"], prefix=FOUND)
        for i in which
    ]
    batch = batch_of(processor, *items)
    batch.pop("read_index")
    return batch


@torch.no_grad()
def one_by_one(model, item, replies: list[list[int]]) -> torch.Tensor:
    """log P of each reply by the definition: the stock forward pass on pixels and one reply, and
    at each token a softmax over those that some reply goes on with.
    """
    start = torch.tensor([item.encoded.input_ids])
    found = []
    for reply in replies:
        ids = torch.cat([start, torch.tensor([reply])], dim=1)
        types = torch.tensor([item.encoded.mm_token_type_ids + [0] * len(reply)])
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=types,
            pixel_values_videos=item.pixel_values,
            video_grid_thw=torch.tensor([item.grid_thw]),
            second_per_grid_ts=torch.tensor([item.second_per_grid]),
        ).logits[0, start.shape[1] - 1 : -1]
        total = 0.0
        for i, token in enumerate(reply):
            valid = sorted({r[i] for r in replies if r[:i] == reply[:i]})
            total += float(logits[i, valid].log_softmax(0)[valid.index(token)])
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def test_each_reply_has_its_teacher_forced_probability(lively, processor, answers):
    """Clips of several grids in one padded batch against a forward pass of the stock code for each
    reply. Catches a branch that sees its neighbours or padding, positions that count the whole
    tree, and a softmax over other tokens.
    """
    shapes = (0, 1, 3)
    together = log_probabilities(lively, asked(processor, lively, *shapes), reply_tree(answers))
    for row, index in enumerate(shapes):
        item = made_item(
            processor, index, SHAPES[index], prompt=PROMPTS["distortion"], prefix=FOUND
        )
        expected = one_by_one(lively, item, answers)
        assert expected.std() > 0.3
        torch.testing.assert_close(together[row], expected, atol=2e-5, rtol=2e-5)


def test_the_probabilities_of_all_replies_sum_to_one(lively, processor, answers):
    """Catches a fork whose ways are not weighed against each other, or are counted twice."""
    log_p = log_probabilities(lively, asked(processor, lively, 0, 2), reply_tree(answers))
    assert log_p.shape == (2, len(REPLIES))
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_neighbours_batch_and_order_do_not_matter(lively, processor, answers):
    """Alone, in a batch, in the batch turned round, and with the replies in another order. Catches
    padding that is attended to, and a tree that depends on what was put in first.
    """
    together = log_probabilities(lively, asked(processor, lively, 0, 1, 2), reply_tree(answers))
    turned = log_probabilities(lively, asked(processor, lively, 2, 1, 0), reply_tree(answers))
    torch.testing.assert_close(turned.flip(0), together, atol=2e-5, rtol=2e-5)
    backwards = reply_tree(answers[::-1])
    for row in range(3):
        alone = log_probabilities(lively, asked(processor, lively, row), backwards)
        torch.testing.assert_close(alone[0].flip(0), together[row], atol=2e-5, rtol=2e-5)


def test_only_what_leads_to_a_choice_is_read():
    """By hand: of the replies 1 2 3, 1 2 4 5 and 6 7 only the tokens 1 and 2 stand before a choice.
    Catches forced tokens that cost time, and choices that are lost.
    """
    tree = reply_tree([[1, 2, 3], [1, 2, 4, 5], [6, 7]])
    assert tree.token_N.tolist() == [1, 2]
    assert tree.depth_N.tolist() == [1, 2]
    assert tree.sees_NN.tolist() == [[True, False], [True, True]]
    assert tree.place_F.tolist() == [0, 2]
    assert tree.next_FK.tolist() == [[1, 6], [3, 4]]
    assert tree.takes_RFK.tolist() == [[[1, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [0, 0]]]


@pytest.mark.parametrize(
    "replies", [[], [[1, 2]], [[1, 2], [1, 2]], [[1], [1, 2]], [[1, 2], []]], ids=str
)
def test_replies_without_a_choice_or_an_end_are_refused(replies):
    """A reply that another begins with has no probability of its own: it lacks its end token."""
    with pytest.raises(ValueError, match="none of which another begins with"):
        reply_tree(replies)


def test_replies_of_one_token_need_no_nodes(lively, processor):
    """Yes or no at once. Catches a tree that must have nodes behind the dialogue."""
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    batch = asked(processor, lively, 1)
    log_p = log_probabilities(lively, batch, reply_tree([[yes], [no]]))
    with torch.no_grad():
        last = lively.lm_head(lively.hidden_states(**batch)[:, -1])
    expected = last[:, [yes, no]].double().log_softmax(-1)
    torch.testing.assert_close(log_p, expected, atol=1e-6, rtol=1e-6)


def test_a_kernel_without_masks_of_our_own_is_refused(model, processor, answers, monkeypatch):
    """Flash attention would let every branch see all others. Catches wrong figures from it."""
    config = model.model.language_model.config
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ModelError, match=r"flash_attention_2.*attn_implementation sdpa"):
        log_probabilities(model, asked(processor, model, 0), reply_tree(answers))
