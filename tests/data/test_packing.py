"""Packs: small trees by hand, and random ones against the plain definition: a token sees itself and
what stands before it in its own dialogues, and nothing else.
"""

import random
from dataclasses import replace

import pytest

from lmme3dhf.data.packing import Pack, TokenPath, expand, pack, slots

VIDEO = 9
IMAGE = -2


def seen_by(packed: Pack, position: int) -> tuple[int, ...]:
    """The tokens that the token at a position sees, itself included."""
    seen = [j for j in range(position + 1) if position < packed.seen_until[j]]
    return tuple(packed.input_ids[j] for j in seen)


def random_paths(seed: int, *, video: bool = False) -> tuple[TokenPath, ...]:
    """Up to seven dialogues of few different tokens, so that they fork late and often; with a video
    they share the token before it.
    """
    rng = random.Random(seed)
    paths = []
    for _ in range(rng.randint(1, 7)):
        start = (1, 2, VIDEO) if video else (1,)
        ids = (*start, *rng.choices((3, 4, 5), k=rng.randint(0, 7)))
        reads = rng.sample(range(len(ids)), k=rng.randint(1, len(ids)))
        paths.append(TokenPath(ids, tuple(sorted(reads))))
    return tuple(paths)


def test_a_small_tree_by_hand():
    """The dialogues 1 2 3 4, 1 2 5 and 1 2 3 6. Catches a token that is there twice, a branch that
    does not stand right behind what it goes on from, and reads in another dialogue's place.
    """
    packed = pack(
        (TokenPath((1, 2, 3, 4), (3,)), TokenPath((1, 2, 5), (2,)), TokenPath((1, 2, 3, 6), (1, 3)))
    )
    assert packed == Pack(
        input_ids=(1, 2, 3, 4, 6, 5),
        seen_until=(6, 6, 5, 4, 5, 6),
        reads=(1, 3, 4, 5),
        places=((1,), (3,), (0, 2)),
    )


def test_one_dialogue_is_itself():
    """Catches a pack that reorders or hides what needs no tree; the same token twice in a row is
    two tokens.
    """
    packed = pack((TokenPath((7, 7, 8), (0, 2)),))
    assert packed == Pack((7, 7, 8), (3, 3, 3), (0, 2), ((0, 1),))


def test_equal_dialogues_stand_there_once():
    """Catches a question that is computed twice, or lost because it was there before."""
    packed = pack((TokenPath((1, 2), (1,)), TokenPath((1, 2), (0, 1)), TokenPath((1, 2), (1,))))
    assert packed == Pack((1, 2), (2, 2), (0, 1), ((1,), (0, 1), (1,)))


@pytest.mark.parametrize("turned", [False, True])
def test_a_dialogue_may_end_inside_another(turned):
    """1 2 and 1 2 3, in both orders. Catches an end that hides the rest, or is hidden by it."""
    paths = (TokenPath((1, 2), (1,)), TokenPath((1, 2, 3), (2,)))
    packed = pack(paths[::-1] if turned else paths)
    assert (packed.input_ids, packed.seen_until) == ((1, 2, 3), (3, 3, 3))
    assert packed.reads == (1, 2)
    assert packed.places == (((1,), (0,)) if turned else ((0,), (1,)))


@pytest.mark.parametrize("seed", range(60))
def test_every_token_sees_its_own_beginning_and_nothing_else(seed):
    """By the definition, on random dialogues: the beginnings of dialogues are what there is to see,
    and each is seen at one place. Catches a branch that sees another one, one that misses what it
    goes on from, and tokens that are there more often than needed.
    """
    paths = random_paths(seed)
    packed = pack(paths)
    beginnings = {path.ids[:n] for path in paths for n in range(1, len(path.ids) + 1)}
    assert len(packed.input_ids) == len(packed.seen_until) == len(beginnings)
    assert {seen_by(packed, i) for i in range(len(packed.input_ids))} == beginnings


@pytest.mark.parametrize("seed", range(60))
def test_each_dialogue_can_be_read_back_where_it_is_read(seed):
    """Catches reads that are mixed up between dialogues that share them, and positions that are
    read without need.
    """
    paths = random_paths(seed)
    packed = pack(paths)
    assert list(packed.reads) == sorted(set(packed.reads))
    assert {place for places in packed.places for place in places} == set(range(len(packed.reads)))
    for path, places in zip(paths, packed.places, strict=True):
        found = [seen_by(packed, packed.reads[place]) for place in places]
        assert found == [path.ids[: read + 1] for read in path.reads]


@pytest.mark.parametrize(
    "paths",
    [
        (),
        (TokenPath((1, 2), (1,)), TokenPath((3, 2), (1,))),
        (TokenPath((1,), (0,)), TokenPath((), ())),
    ],
    ids=["none", "two roots", "an empty one"],
)
def test_what_has_no_common_root_is_refused(paths):
    """Catches a second root that would see the first one's tokens, or a pack of nothing."""
    with pytest.raises(ValueError, match="one or more paths that begin with the same token"):
        pack(paths)


def test_the_placeholder_grows_by_hand():
    """1 V 2 and 1 V 3 with three visual tokens, read before, at and behind them. Catches a branch
    that ends too early by what was put in, and a span of the medium that misses a token.
    """
    packed = pack((TokenPath((1, VIDEO, 2), (0, 2)), TokenPath((1, VIDEO, 3), (1, 2))))
    assert (packed.input_ids, packed.seen_until) == ((1, VIDEO, 2, 3), (4, 4, 3, 4))
    assert packed.places == ((0, 2), (1, 3))
    assert expand(packed, VIDEO, IMAGE, 3) == Pack(
        input_ids=(1, IMAGE, IMAGE, IMAGE, 2, 3),
        seen_until=(6, 6, 6, 6, 5, 6),
        reads=(0, 1, 2, 3, 4, 5),
        places=packed.places,
        media=range(1, 4),
    )
    at = [list(slots(packed, VIDEO, 3, place)) for place in range(4)]
    assert at == [[0], [1, 2, 3], [4], [5]]
    assert expand(packed, VIDEO, VIDEO, 1) == replace(packed, media=range(1, 2))


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_growing_a_pack_is_packing_grown_dialogues(seed, count):
    """Catches any difference between a template that is shared by all clips and a pack that is
    made for one clip.
    """
    paths = random_paths(seed, video=True)
    at = paths[0].ids.index(VIDEO)

    def grown(read: int) -> list[int]:
        if read == at:
            return list(range(at, at + count))
        return [read if read < at else read + count - 1]

    expected = pack(
        tuple(
            TokenPath(
                (*path.ids[:at], *[VIDEO] * count, *path.ids[at + 1 :]),
                tuple(position for read in path.reads for position in grown(read)),
            )
            for path in paths
        )
    )
    template = pack(paths)
    found = expand(template, VIDEO, VIDEO, count)
    assert found.media == range(at, at + count)
    places = tuple(
        tuple(slot for place in own for slot in slots(template, VIDEO, count, place))
        for own in template.places
    )
    assert replace(found, places=places, media=range(0)) == expected


@pytest.mark.parametrize(
    ("paths", "count"),
    [
        (((1, 2), (1, 3)), 0),
        (((1, VIDEO, 2, VIDEO),), 2),
        (((1, VIDEO, 2), (1, 3, VIDEO)), 2),
        (((1, VIDEO, 2), (1, 3)), 1),
        (((1, 3), (1, VIDEO, 2)), 1),
    ],
    ids=["none", "two in one dialogue", "behind a fork", "text last", "text first"],
)
def test_a_placeholder_that_is_not_shared_is_refused(paths, count):
    """Catches a clip whose visual tokens are spread over two places, or seen by some dialogues
    only: what stands before and behind them would be moved apart.
    """
    packed = pack(tuple(TokenPath(ids, (len(ids) - 1,)) for ids in paths))
    with pytest.raises(ValueError, match=rf"^{count} placeholders in one pack; expected one"):
        expand(packed, VIDEO, VIDEO, 4)
