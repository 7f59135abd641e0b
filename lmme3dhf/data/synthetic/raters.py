"""Simulated annotators: 24 raters with bias, spread and a few careless ones, and three markers with
red dots and remarks.

They stand for the subjective experiment of Section 3.2; what they leave behind are raw annotations,
from which the labels are made by the same code as from people's (`data.labels`).
"""

import numpy as np

from lmme3dhf.data.synthetic.clips import ClipPlan
from lmme3dhf.data.synthetic.distortions import IMAGE

RATERS = 24
CARELESS = 2
MARKERS = ("marker1", "marker2", "marker3")
DOT_RADIUS_SHARE = 0.016  # of a view's side

# Weight of each kind at full severity: broken geometry harms authenticity most, broken pictures
# quality.
_QUALITY = np.array([0.75, 0.70, 0.65, 0.80, 0.85, 0.95, 1.30, 0.50])
_AUTHENTICITY = np.array([1.05, 0.95, 0.60, 1.10, 1.15, 0.85, 0.60, 0.45])

_REMARKS = (
    ("the eyes look wrong", "distorted eye", "strange eyes"),
    ("mouth is deformed", "strange mouth", "the lips look unnatural"),
    ("hair is broken", "weird hair", "hair looks unnatural"),
    ("nose is distorted", "strange eyebrow and nose", "the nose looks wrong"),
    ("head shape is wrong", "deformed head", "strange skull"),
    ("face overlaps with another one", "bad blending on the skin", "blending problem"),
    ("blurry picture", "too much grain or bad exposure", "the picture is noisy and blurred"),
    ("clothes are torn", "strange cloth and accessories", "the collar or the glasses are broken"),
)
_CLEAN = ("no distortion", "looks fine", "nothing wrong")


def true_opinion(plan: ClipPlan) -> tuple[float, float]:
    """What the average careful rater thinks of a clip, quality and authenticity, on the slider's
    scale 0 to 5.
    """
    severity = np.zeros(len(_QUALITY))
    for item in plan.distortions:
        severity[item.kind] = item.severity
    softness = plan.softness / 0.006
    harm_quality = severity @ _QUALITY + 0.15 * softness
    harm_authenticity = severity @ _AUTHENTICITY + 0.05 * softness
    return tuple(
        float(4.4 - 3.9 * (1 - np.exp(-0.85 * harm))) for harm in (harm_quality, harm_authenticity)
    )


def simulated_ratings(
    opinion_V: np.ndarray, rng: np.random.Generator, *, careless: int = CARELESS
) -> np.ndarray:
    """Slider positions of all raters.

    Args:
        opinion_V: True opinions of one dimension, 0 to 5, shape (videos,).
        rng: Draws the raters and their noise.
        careless: How many of the `RATERS` do not look, 0 to all.

    Returns:
        (raters, videos), 0 to 5 in steps of 0.01. The last `careless` raters do not look.
    """
    rating_SV = np.empty((RATERS, opinion_V.size))
    for rater in range(RATERS):
        bias, gain, spread = rng.normal(0, 0.35), rng.uniform(0.7, 1.15), rng.uniform(0.4, 0.8)
        rating_SV[rater] = (
            2.7 + gain * (opinion_V - 2.7) + bias + rng.normal(0, spread, opinion_V.size)
        )
        if rater >= RATERS - careless:
            rating_SV[rater] = rng.normal(3.0, 0.9, opinion_V.size)
    return np.round(np.clip(rating_SV, 0, 5), 2)


def mark(
    plan: ClipPlan, mask_by_kind: dict[int, np.ndarray], rng: np.random.Generator
) -> tuple[list[tuple[float, float]], str]:
    """Where one marker puts dots on the strip, and what the marker writes.

    Args:
        plan: The clip; the more severe a distortion, the surer it is seen and the more dots it
            gets.
        mask_by_kind: Kind -> (H, 3W) mask of where it shows in the strip, 0..1.
        rng: Draws attention, places and words.

    Returns:
        Points (x, y) in the strip, and the remark.
    """
    points: list[tuple[float, float]] = []
    words: list[str] = []
    for item in plan.distortions:
        strip = mask_by_kind[item.kind]
        if rng.random() > min(1.0, 0.35 + 1.6 * item.severity):
            continue
        side = strip.shape[0]
        seen = False
        for view in range(strip.shape[1] // side):
            weight = strip[:, view * side : (view + 1) * side] ** 3
            # A region turned away, or a sliver at the edge, is not marked.
            if weight.max() < 0.15 or weight.sum() < 0.002 * side * side:
                continue
            seen = True
            for flat in rng.choice(
                weight.size,
                size=1 + rng.poisson(0.7 + 1.2 * item.severity),
                p=weight.ravel() / weight.sum(),
            ):
                y, x = divmod(int(flat), side)
                jitter = rng.normal(0, 0.006 * side, 2)
                points.append(
                    (
                        view * side + np.clip(x + jitter[0], 2, side - 3),
                        np.clip(y + jitter[1], 2, side - 3),
                    )
                )
        # Blur and grain are seen even where nothing in particular is pointed at.
        if seen or item.kind == IMAGE:
            words.append(str(rng.choice(_REMARKS[item.kind])))
    return points, ", ".join(words) if words else str(rng.choice(_CLEAN))


def painted(strip_HW3: np.ndarray, points: list[tuple[float, float]]) -> np.ndarray:
    """The strip with a red dot at each point, as the annotation interface shows it."""
    out = strip_HW3.copy()
    radius = max(1.6, DOT_RADIUS_SHARE * strip_HW3.shape[0])
    y, x = np.mgrid[0 : out.shape[0], 0 : out.shape[1]]
    for px, py in points:
        out[(x - px) ** 2 + (y - py) ** 2 <= radius**2] = (255, 0, 0)
    return out
