"""How likely each of many possible replies to one dialogue is, exactly and in one forward pass.

The distribution is that of the model when it may only write one of these replies: at every token it
chooses among those with which one of them can still go on. With V(t_1..t_i) the tokens that follow
t_1..t_i in some reply, a reply r = t_1..t_n, its end included, has

    P(r | x) = prod_i  p(t_i | x, t_1..t_i-1) / sum_{v in V(t_1..t_i-1)} p(v | x, t_1..t_i-1).

These sum to 1. Where only one token can follow, its factor is 1, so long names are no drawback. A
greedy free reply that turns out to be one of the replies is also the greedy path here.

The replies form a tree: where they fork, one of several tokens can follow. The dialogue with the
start of each reply up to such a fork is a path, and all paths are packed into one sequence, read at
the forks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class Replies:
    """Some replies as a tree of tokens, without what follows its last forks.

    R replies, F forks (places with several next tokens), K next tokens at most.

    Attributes:
        forks: The start of replies before each fork; the empty one is the dialogue's own end.
        next_FK: The tokens that can follow, filled up with -1.
        takes_RFK: Reply takes this way at that fork, 0 or 1, float64.
    """

    forks: tuple[tuple[int, ...], ...]
    next_FK: torch.Tensor
    takes_RFK: torch.Tensor


def reply_tree(replies: Sequence[Sequence[int]]) -> Replies:
    """Builds the tree of some replies.

    Args:
        replies: Tokens of each, its end included.

    Raises:
        ValueError: Less than two replies, or one that another begins with.
    """
    replies = [tuple(reply) for reply in replies]
    follow: dict[tuple[int, ...], dict[int, int]] = {}  # start of replies -> token -> way
    for reply in replies:
        for i, token in enumerate(reply):
            ways = follow.setdefault(reply[:i], {})
            ways.setdefault(token, len(ways))
    if len(set(replies)) < max(2, len(replies)) or not follow.keys().isdisjoint(replies):
        raise ValueError("expected two or more replies, none of which another begins with")
    forks = [start for start, ways in follow.items() if len(ways) > 1]
    K = max(len(follow[fork]) for fork in forks)
    takes_RFK = torch.zeros(len(replies), len(forks), K, dtype=torch.float64)
    for f, fork in enumerate(forks):
        for r, reply in enumerate(replies):
            if reply[: len(fork)] == fork:
                takes_RFK[r, f, follow[fork][reply[len(fork)]]] = 1
    tokens = [[*follow[fork], *[-1] * (K - len(follow[fork]))] for fork in forks]
    return Replies(forks=tuple(forks), next_FK=torch.tensor(tokens), takes_RFK=takes_RFK)


def log_probabilities(
    hidden_BFH: torch.Tensor, output_VH: torch.Tensor, replies: Replies
) -> torch.Tensor:
    """log P(reply | dialogue), natural, of each reply to each of B dialogues.

    Args:
        hidden_BFH: The model's last hidden states at the forks.
        output_VH: Weights of its output layer.
        replies: The replies.

    Returns:
        (B, R) float64, on the CPU; the probabilities of a row sum to 1.
    """
    # Only tokens that can follow somewhere: over the whole vocabulary logits are large at 7B.
    token_U, place_FK = replies.next_FK.clamp(min=0).unique(return_inverse=True)
    logits_BFU = hidden_BFH @ output_VH[token_U.to(output_VH.device)].to(hidden_BFH.dtype).T
    logits_BFU = logits_BFU.cpu().double()
    step_BFK = logits_BFU.gather(2, place_FK.expand(len(logits_BFU), -1, -1))
    none = replies.next_FK < 0
    step_BFK = step_BFK.masked_fill(none, -torch.inf).log_softmax(-1)
    return step_BFK.masked_fill(none, 0).flatten(1) @ replies.takes_RFK.flatten(1).T
