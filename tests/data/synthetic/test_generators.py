"""The ten generators: one face under all of them, habits of their own, other people under another
seed.
"""

from collections import Counter

import numpy as np
import pytest

from lmme3dhf.data.splits import generator as generator_of
from lmme3dhf.data.splits import latent as latent_of
from lmme3dhf.data.synthetic.clips import ClipPlan
from lmme3dhf.data.synthetic.generators import GENERATORS, clip_plan, video_name
from lmme3dhf.data.synthetic.raters import true_opinion

LATENTS = 120


@pytest.fixture(scope="module")
def plans() -> list[list[ClipPlan]]:
    """Generator -> latent -> plan, of one data set."""
    return [[clip_plan(g, n, seed=0) for n in range(LATENTS)] for g in range(10)]


def test_names_are_those_of_the_release():
    """By hand: 200 latents a generator, four digits. Catches another numbering than the one that
    splits take apart.
    """
    assert video_name(0, 0) == "seed0000"
    assert video_name(1, 0) == "seed0200"
    assert video_name(9, 199) == "seed1999"
    for g, n in ((0, 7), (4, 199), (9, 0)):
        name = video_name(g, n)
        assert (generator_of(name), latent_of(name)) == (g, n)


def test_every_generator_shows_the_same_people(plans):
    """Catches faces that depend on the generator: a split by latent would then leak nothing and
    test nothing. The clips themselves differ.
    """
    assert len(GENERATORS) == len(plans) == 10
    for n in range(LATENTS):
        assert len({plan[n].identity for plan in plans}) == 1
        assert len({plan[n].scene_seed for plan in plans}) == 10
    assert len({plan.identity for plan in plans[0]}) == LATENTS


def test_another_seed_gives_other_people_and_other_clips(plans):
    """Catches a seed that is not used, and seeds that are only shifted against each other."""
    known = {plan.identity for plan in plans[0]}
    others = [clip_plan(0, n, seed) for seed in (1, 2, 200) for n in range(LATENTS)]
    assert len({plan.identity for plan in others}) == 3 * LATENTS
    assert not known & {plan.identity for plan in others}
    assert clip_plan(3, 5, 0) == plans[3][5]


def test_plans_are_possible(plans):
    """Catches kinds planted twice, severities outside 0..1, and faces out of the picture."""
    looked_at = 0
    for habits, of_generator in zip(GENERATORS, plans, strict=True):
        for plan in of_generator:
            kinds = [item.kind for item in plan.distortions]
            assert kinds == sorted(set(kinds))
            assert len(kinds) <= 3
            assert all(0 <= kind < 8 for kind in kinds)
            assert all(0 < item.severity <= 1 for item in plan.distortions)
            assert 0 <= plan.softness <= habits.softness
            assert 0.7 < plan.frame.half < 1.1
            assert abs(plan.frame.centre_x) < 0.12
            looked_at += len(kinds)
    assert looked_at > 1000


def test_generators_fail_in_their_own_ways(plans):
    """Favourites come most often, counts as often as declared. Catches weights that are given to
    the wrong kind, and generators that are all alike.
    """
    everything: Counter = Counter()
    for habits, of_generator in zip(GENERATORS, plans, strict=True):
        kinds = Counter(item.kind for plan in of_generator for item in plan.distortions)
        everything += kinds
        favourite = np.mean([kinds[kind] for kind in habits.favourites])
        others = np.mean([kinds[kind] for kind in range(8) if kind not in habits.favourites])
        assert favourite > 1.8 * others
        counts = np.bincount([len(plan.distortions) for plan in of_generator], minlength=4)
        # Three standard errors of a share of 120.
        assert counts / LATENTS == pytest.approx(habits.counts, abs=0.14)
        assert sum(habits.counts) == pytest.approx(1)
    assert min(everything[kind] for kind in range(8)) > 60
    clean = sum(not plan.distortions for of_generator in plans for plan in of_generator)
    assert clean > 60


def test_generators_differ_in_quality(plans):
    """As in the release, whose scores jump at multiples of 200. Catches severities and counts
    without effect.
    """
    means = [np.mean([true_opinion(plan)[0] for plan in of_generator]) for of_generator in plans]
    assert max(means) - min(means) > 1.0
    assert int(np.argmin(means)) == 0
