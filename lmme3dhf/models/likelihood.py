"""How likely each of many possible replies to one dialogue is, exactly and in one forward pass.

The distribution is that of the model when it may only write one of these replies: at every token it
chooses among those with which one of them can still go on. With V(t_1..t_i) the tokens that follow
t_1..t_i in some reply, a reply r = t_1..t_n, its end included, has

    P(r | x) = prod_i  p(t_i | x, t_1..t_i-1) / sum_{v in V(t_1..t_i-1)} p(v | x, t_1..t_i-1).

These sum to 1. Where only one token can follow, its factor is 1, so long names are no drawback. A
greedy free reply that turns out to be one of the replies is also the greedy path here.

The replies form a tree: what two of them have in common at their start is read once. All nodes of
the tree stand behind the dialogue in one sequence; a node sees the dialogue, the nodes above it and
itself, and has the position that it would have if its branch were alone. So its output is that of
ordinary teacher forcing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lmme3dhf.models.configuration import ModelError
from lmme3dhf.models.modeling import LMME3DHF


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplyTree:
    """Some replies as a tree of tokens, without what follows its last forks.

    R replies, N nodes, F forks (places with several next tokens), K next tokens at most. Place 0 is
    the dialogue's last token, place n + 1 is node n.

    Attributes:
        token_N: Token of each node; parents stand before their children.
        depth_N: Nodes from the dialogue to this one, 1 for the first token of a reply.
        sees_NN: Row node sees column node: those above it, and itself.
        place_F: Where the forks are.
        next_FK: The tokens that can follow, filled up with -1.
        takes_RFK: Reply takes this way at that fork, 0 or 1, float64.
    """

    token_N: torch.Tensor
    depth_N: torch.Tensor
    sees_NN: torch.Tensor
    place_F: torch.Tensor
    next_FK: torch.Tensor
    takes_RFK: torch.Tensor


def reply_tree(replies: Sequence[Sequence[int]]) -> ReplyTree:
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
    starts = dict.fromkeys(fork[:i] for fork in forks for i in range(len(fork) + 1))
    place = {start: index for index, start in enumerate(starts)}
    N = len(starts) - 1
    sees_NN = torch.eye(N, dtype=torch.bool)
    for start, index in place.items():
        if len(start) > 1:
            sees_NN[index - 1] |= sees_NN[place[start[:-1]] - 1]
    K = max(len(follow[fork]) for fork in forks)
    takes_RFK = torch.zeros(len(replies), len(forks), K, dtype=torch.float64)
    for f, fork in enumerate(forks):
        for r, reply in enumerate(replies):
            if reply[: len(fork)] == fork:
                takes_RFK[r, f, follow[fork][reply[len(fork)]]] = 1
    tokens = [[*follow[fork], *[-1] * (K - len(follow[fork]))] for fork in forks]
    return ReplyTree(
        token_N=torch.tensor([start[-1] for start in starts if start], dtype=torch.long),
        depth_N=torch.tensor([len(start) for start in starts if start], dtype=torch.long),
        sees_NN=sees_NN,
        place_F=torch.tensor([place[fork] for fork in forks]),
        next_FK=torch.tensor(tokens),
        takes_RFK=takes_RFK,
    )


@torch.inference_mode()
def log_probabilities(
    model: LMME3DHF, batch: dict[str, torch.Tensor], tree: ReplyTree
) -> torch.Tensor:
    """log P(reply | dialogue), natural, of each reply to each dialogue.

    Args:
        model: The model.
        batch: Arguments of `LMME3DHF.hidden_states`; B dialogues that end in text, padded at the
            left.
        tree: The replies.

    Returns:
        (B, R) float64, on the CPU; the probabilities of a row sum to 1.

    Raises:
        ModelError: The attention kernel takes no mask of its own.
    """
    language_model, device = model.model.language_model, model.device
    kernel = language_model.config._attn_implementation
    if kernel not in ("sdpa", "eager"):
        raise ModelError(
            f"{model.name_or_path}: likelihoods of replies need an attention kernel that takes any "
            f"mask, {kernel} does not; load the model with attn_implementation sdpa"
        )
    input_ids, known = batch["input_ids"], batch["attention_mask"].bool()
    position_3BL, _ = model.model.get_rope_index(
        input_ids,
        mm_token_type_ids=batch["mm_token_type_ids"],
        video_grid_thw=batch["video_grid_thw"],
        second_per_grid_ts=batch["second_per_grid_ts"],
        attention_mask=known,
    )
    B, L = input_ids.shape
    N = len(tree.token_N)
    nodes = model.get_input_embeddings()(tree.token_N.to(device)).expand(B, N, -1)
    embeds = torch.cat([model.embed(input_ids, batch["video_embeds"]), nodes], dim=1)
    sees = torch.zeros(B, L + N, L + N, dtype=torch.bool, device=device)
    sees[:, :L, :L] = torch.ones(L, L, dtype=torch.bool, device=device).tril()
    sees[:, L:, :L] = True
    sees[:, :, :L] &= known[:, None, :]
    sees[:, L:, L:] = tree.sees_NN.to(device)
    # A finite number: padding sees nothing, and its rows, which nobody reads, may not become NaN.
    mask = torch.zeros(B, 1, L + N, L + N, dtype=embeds.dtype, device=device)
    mask.masked_fill_(~sees[:, None], torch.finfo(embeds.dtype).min)
    after = position_3BL[:, :, -1:] + tree.depth_N.to(device)
    hidden = language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=torch.cat([position_3BL, after], dim=-1),
        use_cache=False,
    ).last_hidden_state
    place_F, next_FK = tree.place_F.to(device), tree.next_FK.to(device)
    # One dialogue at a time: every fork's logits over the whole vocabulary are large at 7B.
    step_BFK = torch.stack(
        [model.lm_head(row[L - 1 + place_F]).gather(1, next_FK.clamp(min=0)) for row in hidden]
    )
    none = tree.next_FK < 0
    step_BFK = step_BFK.cpu().double().masked_fill(none, -torch.inf).log_softmax(-1)
    return step_BFK.masked_fill(none, 0).flatten(1) @ tree.takes_RFK.flatten(1).T
