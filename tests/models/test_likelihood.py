"""The distribution over given replies: against the library's own class, a reply at a time, and by
hand.
"""

import math
from itertools import combinations

import pytest
import torch

from lmme3dhf.data.collation import packed_batch
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.packing import TokenPath, expand, pack
from lmme3dhf.models.likelihood import log_probabilities, reply_tree
from tests.models.conftest import SHAPES, Case, made_case, stock_batch

FOUND = "Distortions found:"
EYES, HAIR, HEAD = "Eye Distortions", "Hair Distortions", "Head Structure Distortions"
# Every set of three categories in one order, and the clean answer.
REPLIES = [
    *(", ".join(named) for n in (1, 2, 3) for named in combinations((EYES, HAIR, HEAD), n)),
    "No Distortion",
]


@pytest.fixture(scope="module")
def answers(processor) -> list[list[int]]:
    """The replies as tokens behind the prefix, with their end."""
    encode, end = processor.tokenizer.encode, "<|im_end|>"
    return [encode(f" {reply}{end}", add_special_tokens=False) for reply in REPLIES]


def question(processor, seed: int, model=None) -> Case:
    """The distortion question on a noise clip, several grids."""
    return made_case(
        processor, seed, SHAPES[seed], model=model, prompt=PROMPTS["distortion"], prefix=FOUND
    )


@torch.no_grad()
def packed_odds(model, processor, replies: list[list[int]], *which: int, pad_to: int = 1):
    """log P of replies to the question on some clips: all forks in one sequence a clip, all clips
    in one pass.
    """
    tree = reply_tree(replies)
    cases = [question(processor, seed, model) for seed in which]
    encoded = cases[0].questions[0].encoded
    ids = [(*encoded.input_ids, *fork) for fork in tree.forks]
    packed = pack(tuple(TokenPath(path, (len(path) - 1,)) for path in ids))
    media = [case.media for case in cases]
    packs = [expand(packed, encoded.marker, encoded.marker, clip.tokens) for clip in media]
    pad_token = processor.tokenizer.pad_token_id
    hidden = model.hidden_at(**packed_batch(packs, media, pad_token, pad_to))
    forks = hidden[:, [place for (place,) in packed.places]]
    return log_probabilities(forks, model.lm_head.weight, tree)


@torch.no_grad()
def one_by_one(stock, processor, case: Case, replies: list[list[int]]) -> torch.Tensor:
    """log P of each reply by the definition: the stock class on pixels and one reply, and at each
    token a softmax over those that some reply goes on with.
    """
    asked = stock_batch(processor, case)
    del asked["labels"]
    start = asked["input_ids"]
    found = []
    for reply in replies:
        ids = torch.cat([start, torch.tensor([reply])], dim=1)
        text = torch.zeros(1, len(reply), dtype=torch.long)
        more = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": torch.cat([asked["mm_token_type_ids"], text], dim=1),
        }
        logits = stock(**asked | more).logits[0, start.shape[1] - 1 : -1]
        total = 0.0
        for i, token in enumerate(reply):
            valid = sorted({r[i] for r in replies if r[:i] == reply[:i]})
            total += float(logits[i, valid].log_softmax(0)[valid.index(token)])
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def test_each_reply_has_its_teacher_forced_probability(lively, lively_stock, processor, answers):
    """Clips of several grids in one padded batch against a forward pass of the stock class for each
    reply. Catches a branch that sees its neighbours or padding, positions that count the whole
    tree, and a softmax over other tokens.
    """
    shapes = (0, 1, 3)
    together = packed_odds(lively, processor, answers, *shapes)
    for row, index in enumerate(shapes):
        expected = one_by_one(lively_stock, processor, question(processor, index), answers)
        assert expected.std() > 0.3
        torch.testing.assert_close(together[row], expected, atol=2e-5, rtol=2e-5)


def test_the_probabilities_of_all_replies_sum_to_one(lively, processor, answers):
    """Catches a fork whose ways are not weighed against each other, or are counted twice."""
    log_p = packed_odds(lively, processor, answers, 0, 2)
    assert log_p.shape == (2, len(REPLIES))
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_neighbours_batch_and_order_do_not_matter(lively, processor, answers):
    """Alone, in a batch, in the batch turned round, padded, and with the replies in another order.
    Catches padding that is attended to, and a tree that depends on what was put in first.
    """
    together = packed_odds(lively, processor, answers, 0, 1, 2)
    turned = packed_odds(lively, processor, answers, 2, 1, 0, pad_to=64)
    torch.testing.assert_close(turned.flip(0), together, atol=2e-5, rtol=2e-5)
    for row in range(3):
        alone = packed_odds(lively, processor, answers[::-1], row)
        torch.testing.assert_close(alone[0].flip(0), together[row], atol=2e-5, rtol=2e-5)


def test_only_what_leads_to_a_choice_is_read():
    """By hand: of the replies 1 2 3, 1 2 4 5 and 6 7 only the tokens 1 and 2 stand before a choice.
    Catches forced tokens that cost time, and choices that are lost.
    """
    tree = reply_tree([[1, 2, 3], [1, 2, 4, 5], [6, 7]])
    assert tree.forks == ((), (1, 2))
    assert tree.next_FK.tolist() == [[1, 6], [3, 4]]
    assert tree.takes_RFK.tolist() == [[[1, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [0, 0]]]


def test_log_probabilities_by_hand():
    """Of the replies 1 3, 1 4 and 2 5 with logits 0 and ln 3 at the first token, ln 4 and 0 at the
    second: 1/4 * 4/5, 1/4 * 1/5 and 3/4, whatever other tokens' logits are. Catches factors that
    are summed over other tokens, the filling among them, and replies in another order.
    """
    tree = reply_tree([[1, 3], [1, 4], [2, 5]])
    first = torch.tensor([50.0, 0.0, math.log(3), -2.0, 7.0, 9.0])
    second = torch.tensor([-50.0, 8.0, 9.0, math.log(4), 0.0, 1.0])
    # Two hidden units, each of which says one fork's logits.
    log_p = log_probabilities(torch.eye(2)[None], torch.stack([first, second], dim=1), tree)
    expected = torch.tensor([[0.2, 0.05, 0.75]], dtype=torch.float64)
    assert log_p.dtype == torch.float64
    torch.testing.assert_close(log_p.exp(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "replies", [[], [[1, 2]], [[1, 2], [1, 2]], [[1], [1, 2]], [[1, 2], []]], ids=str
)
def test_replies_without_a_choice_or_an_end_are_refused(replies):
    """A reply that another begins with has no probability of its own: it lacks its end token."""
    with pytest.raises(ValueError, match="none of which another begins with"):
        reply_tree(replies)


def test_replies_of_one_token_are_weighed_at_the_dialogues_end(lively, lively_stock, processor):
    """Yes or no at once. Catches a tree that must have tokens behind the dialogue."""
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    log_p = packed_odds(lively, processor, [[yes], [no]], 1)
    arguments = stock_batch(processor, question(processor, 1))
    del arguments["labels"]
    with torch.no_grad():
        last = lively_stock(**arguments).logits[:, -1]
    expected = last[:, [yes, no]].double().log_softmax(-1)
    torch.testing.assert_close(log_p, expected, atol=1e-5, rtol=1e-5)
