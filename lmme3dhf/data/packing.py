"""All questions on one clip as one sequence: what dialogues have in common is there once.

Dialogues on the same clip begin alike: system message, the clip's visual tokens, often a few
words. Written as a tree of tokens, that beginning is read once and each dialogue is a path from the
root. The tree stands in one sequence in depth-first order, so that everything below a token is an
unbroken stretch behind it, and one number a token, `seen_until`, says all that a model must know: a
token is seen from itself up to there. Attention mask and positions follow from it
(`models.modeling.tree_attention`), and every path gets the hidden states that it would get alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache


@dataclass(frozen=True)
class TokenPath:
    """One dialogue, up to the last token whose hidden state is needed.

    Attributes:
        ids: Its tokens, with one placeholder of a video or image.
        reads: Indices into `ids` where hidden states are needed, in rising order.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]


@dataclass(frozen=True)
class Pack:
    """Some paths as one sequence of L tokens.

    Attributes:
        input_ids: L tokens in depth-first order.
        seen_until: For each token the index after the last one that sees it; L for what all paths
            share.
        reads: Indices into `input_ids` where some path is read, in rising order.
        places: For each path and each of its reads, the index into `reads`.
        media: Where the placeholders are, once they are expanded.
    """

    input_ids: tuple[int, ...]
    seen_until: tuple[int, ...]
    reads: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    media: range = range(0)


@lru_cache(maxsize=4096)
def pack(paths: tuple[TokenPath, ...]) -> Pack:
    """Merges paths into one sequence.

    Args:
        paths: At least one; the first token is the same in all.

    Raises:
        ValueError: No path, or paths that begin with different tokens.
    """
    if not paths or len({path.ids[:1] for path in paths}) != 1:
        raise ValueError("expected one or more paths that begin with the same token")
    children: list[dict[int, int]] = [{}]  # of node n: token -> node; node 0 stands before the root
    tokens = [-1]
    at: list[list[int]] = []  # of each path: the node of each of its tokens
    for path in paths:
        node, nodes = 0, []
        for token in path.ids:
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                tokens.append(token)
            node = children[node][token]
            nodes.append(node)
        at.append(nodes)
    order: list[int] = []
    index, end = [0] * len(children), [0] * len(children)
    stack = [(child, False) for child in children[0].values()]
    while stack:
        node, done = stack.pop()
        if done:
            end[node] = len(order)
            continue
        index[node] = len(order)
        order.append(node)
        stack.append((node, True))
        stack += [(child, False) for child in reversed(children[node].values())]
    read = [[index[nodes[i]] for i in path.reads] for path, nodes in zip(paths, at, strict=True)]
    reads = sorted({position for positions in read for position in positions})
    slot = {position: i for i, position in enumerate(reads)}
    return Pack(
        input_ids=tuple(tokens[node] for node in order),
        seen_until=tuple(end[node] for node in order),
        reads=tuple(reads),
        places=tuple(tuple(slot[position] for position in positions) for positions in read),
    )


def expand(template: Pack, marker: int, placeholder: int, count: int) -> Pack:
    """Repeats the placeholder once a visual token.

    Args:
        template: A pack with one marker, which all paths share.
        marker: The token that stands for the medium in the template.
        placeholder: The token that takes its place.
        count: Visual tokens of the medium.

    Returns:
        The pack with `count` placeholders. A read at the marker becomes a read of each of them:
        see `slots`. The places are those of the template.

    Raises:
        ValueError: Not exactly one marker that all paths share: dialogues that diverge before the
            medium have none in common.
    """
    found, length = template.input_ids.count(marker), len(template.input_ids)
    shared = template.seen_until[: template.input_ids.index(marker) + 1] if found else ()
    if found != 1 or any(end != length for end in shared):
        raise ValueError(
            f"{found} placeholders in one pack; expected one that all of its dialogues share"
        )
    at, grow = template.input_ids.index(marker), count - 1

    def repeated(values: Sequence[int]) -> tuple[int, ...]:
        return (*values[:at], *[values[at]] * count, *values[at + 1 :])

    reads: list[int] = []
    for read in template.reads:
        reads += range(at, at + count) if read == at else [read + grow if read > at else read]
    ids = list(repeated(template.input_ids))
    ids[at : at + count] = [placeholder] * count
    return replace(
        template,
        input_ids=tuple(ids),
        seen_until=tuple(end + grow for end in repeated(template.seen_until)),
        reads=tuple(reads),
        media=range(at, at + count),
    )


def slots(template: Pack, marker: int, count: int, place: int) -> range:
    """Where a place of a template is among the reads of the expanded pack: one slot, or one for
    each visual token where the marker is read.
    """
    read, at = template.reads[place], template.input_ids.index(marker)
    if read == at:
        return range(place, place + count)
    shift = count - 1 if read > at and at in template.reads else 0
    return range(place + shift, place + shift + 1)
