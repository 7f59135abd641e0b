"""Ten synthetic "generators": each shows the same faces, in its own style and with its own habits
of failing.

As in Gen3DHF a video's number is generator * 200 + latent. A generator decides which kinds of
distortion are likely, how many and how severe they are, how soft its pictures are and how they are
framed; the face comes from the latent alone.
"""

from dataclasses import dataclass

import numpy as np

from lmme3dhf.data.splits import LATENTS
from lmme3dhf.data.synthetic.bust import Frame, Identity
from lmme3dhf.data.synthetic.clips import ClipPlan
from lmme3dhf.data.synthetic.distortions import (
    BLENDING,
    CLOTH,
    EYE,
    FEATURE,
    HAIR,
    HEAD,
    IMAGE,
    MOUTH,
    Distortion,
)

_IDENTITIES, _CLIPS = 0x6661_6365, 0x636C_6970  # names of the random streams
_KINDS = 8


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Habits of one generator.

    Attributes:
        favourites: Kinds that it plants four times as often as the others.
        counts: Probabilities of none, one, two and three distortions.
        severity: Parameters of the Beta distribution of severities.
        softness: Largest blur of its pictures, as a fraction of the frame's width.
        half: Half the side of its pictures, in the bust's units.
    """

    favourites: tuple[int, ...]
    counts: tuple[float, float, float, float] = (0.14, 0.46, 0.28, 0.12)
    severity: tuple[float, float] = (1.3, 1.3)
    softness: float = 0.003
    half: float = 0.88


GENERATORS = (
    Generator(
        favourites=(HEAD, BLENDING),
        counts=(0.02, 0.28, 0.40, 0.30),
        severity=(2.2, 1.0),
        softness=0.006,
        half=0.92,
    ),
    Generator(favourites=(EYE, HAIR)),
    Generator(favourites=(MOUTH, FEATURE), counts=(0.22, 0.50, 0.20, 0.08), severity=(1.2, 1.6)),
    Generator(favourites=(IMAGE, EYE), softness=0.005, half=0.84),
    Generator(
        favourites=(HAIR, CLOTH),
        counts=(0.28, 0.50, 0.16, 0.06),
        severity=(1.1, 1.9),
        softness=0.002,
    ),
    Generator(favourites=(FEATURE, BLENDING), severity=(1.4, 1.5)),
    Generator(favourites=(CLOTH, HEAD), counts=(0.20, 0.50, 0.22, 0.08)),
    Generator(
        favourites=(BLENDING, MOUTH),
        counts=(0.06, 0.42, 0.34, 0.18),
        severity=(1.7, 1.2),
        half=0.86,
    ),
    Generator(
        favourites=(HEAD, IMAGE),
        counts=(0.08, 0.44, 0.32, 0.16),
        severity=(1.6, 1.2),
        softness=0.005,
    ),
    Generator(
        favourites=(HAIR, EYE),
        counts=(0.26, 0.52, 0.16, 0.06),
        severity=(1.1, 1.7),
        softness=0.002,
        half=0.90,
    ),
)


def video_name(generator: int, latent: int) -> str:
    """Name of a clip, as in the release: seedNNNN with NNNN = generator * 200 + latent."""
    return f"seed{generator * LATENTS + latent:04d}"


def clip_plan(generator: int, latent: int, seed: int) -> ClipPlan:
    """What a generator makes of a latent.

    Args:
        generator: 0 to 9.
        latent: 0 to 199.
        seed: Of the data set; another seed gives other people.
    """
    habits = GENERATORS[generator]
    identity = Identity.draw(np.random.default_rng((_IDENTITIES, seed, latent)))
    rng = np.random.default_rng((_CLIPS, seed, generator, latent))
    weights = np.ones(_KINDS)
    weights[list(habits.favourites)] = 4
    count = rng.choice(4, p=habits.counts)
    kinds = sorted(rng.choice(_KINDS, size=count, replace=False, p=weights / weights.sum()))
    distortions = tuple(
        Distortion(
            kind=int(kind),
            severity=float(0.06 + 0.94 * rng.beta(*habits.severity)),
            seed=int(rng.integers(2**31)),
        )
        for kind in kinds
    )
    return ClipPlan(
        identity=identity,
        distortions=distortions,
        frame=Frame(
            rng.normal(-0.02, 0.02), rng.normal(0.0, 0.02), habits.half * rng.uniform(0.97, 1.03)
        ),
        scene_seed=int(rng.integers(2**31)),
        softness=float(rng.uniform(0.0, habits.softness)),
        grain_seed=int(rng.integers(2**31)),
    )
