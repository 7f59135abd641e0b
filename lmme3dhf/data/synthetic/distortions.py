"""Planted distortions of the paper's eight kinds (Section 3.3), of continuous severity.

A distortion acts at one of three places: on the features before they are painted (eyes, mouth,
nose, brows, glasses), on the finished grids (hair, head structure, blending, cloth), or on the
pictures (blur, exposure, grain). Each leaves a mask of where a viewer would point at, on the same
grid, so that it can be projected into any view.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lmme3dhf.data.synthetic.bust import (
    BROW_Y,
    EYE_ANGLE,
    EYE_Y,
    MOUTH_Y,
    NOSE_Y,
    PART,
    Bust,
    Frame,
    Identity,
    bump,
    make_bust,
    smooth_noise,
    soft,
)

EYE, MOUTH, HAIR, FEATURE, HEAD, BLENDING, IMAGE, CLOTH = range(
    8
)  # order of vocabulary.DISTORTIONS


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One planted distortion.

    Attributes:
        kind: Index into `vocabulary.DISTORTIONS` (0 to 7).
        severity: 0 (hardly visible) to 1 (as bad as this kind gets).
        seed: Decides the variant: which eye, which direction, which patch.
    """

    kind: int
    severity: float
    seed: int


@dataclass
class _Draft:
    """What the feature distortions of one face ask for, and where."""

    features: dict[str, dict]
    spots: list[tuple[int, float, float, float, float]]  # kind, y, theta, size in y, size in theta


def distorted_bust(
    identity: Identity, rows: int, frame: Frame, distortions: tuple[Distortion, ...]
) -> tuple[Bust, dict[int, np.ndarray]]:
    """Builds a face with its distortions of shape and colour.

    Args:
        identity: Whose face.
        rows: Height of the grid.
        frame: What the pictures will show.
        distortions: What is planted; those of the picture (`IMAGE`) only get a mask here, see
            `filter_frame`.

    Returns:
        The bust, and for every kind the mask (Y, A), 0..1, of where it shows.
    """
    draft = _Draft({}, [])
    for item in distortions:
        if item.kind in _FEATURE_EDITS:
            _FEATURE_EDITS[item.kind](
                draft, identity, item.severity, np.random.default_rng(item.seed)
            )
    bust = make_bust(identity, rows, frame, draft.features)
    masks = {item.kind: np.zeros(bust.radius_YA.shape, np.float32) for item in distortions}
    for kind, y, theta, size_y, size_theta in draft.spots:
        _spot(masks[kind], bust, y, theta, size_y, size_theta)
    for item in distortions:
        if item.kind in _GRID_EDITS:
            _GRID_EDITS[item.kind](
                bust, masks[item.kind], item.severity, np.random.default_rng(item.seed)
            )
    return bust, masks


def filter_frame(
    frame_HW3: np.ndarray,
    distortions: tuple[Distortion, ...],
    rng: np.random.Generator,
    softness: float = 0.0,
) -> np.ndarray:
    """Blur, exposure and grain, in display values.

    Args:
        frame_HW3: sRGB in 0..1.
        distortions: What is planted; only those of the kind `IMAGE` act.
        rng: Draws the grain of this frame.
        softness: Blur that every clip of a generator has, as a fraction of the frame's width.

    Returns:
        8-bit sRGB.
    """
    width = frame_HW3.shape[1]
    blur, grain, gain = softness * width, 0.0, 1.0
    for item in distortions:
        if item.kind != IMAGE:
            continue
        variant = np.random.default_rng(item.seed)
        mode = variant.choice(["blur", "grain", "bright", "dark"], p=[0.4, 0.3, 0.15, 0.15])
        if mode == "blur":
            blur = np.hypot(blur, (0.003 + 0.022 * item.severity) * width)
        elif mode == "grain":
            grain = 0.02 + 0.17 * item.severity
        else:
            gain = 2.0 ** ((0.25 + 1.35 * item.severity) * (1 if mode == "bright" else -1.6))
    frame = frame_HW3
    if blur > 0.2:
        frame = gaussian_filter(frame, (blur, blur, 0), truncate=3)
    if gain != 1.0:
        frame = frame * np.float32(gain ** (1 / 2.2))
    if grain:
        frame = frame + grain * rng.standard_normal(frame.shape, np.float32)
    return (np.clip(frame, 0, 1) * 255 + 0.5).astype(np.uint8)


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _spot(
    mask: np.ndarray, bust: Bust, y: float, theta: float, size_y: float, size_theta: float
) -> None:
    where, dy, dt = bust.window(y, theta, 2 * size_y, 2 * size_theta)
    mask[where] = np.maximum(mask[where], np.exp(-((dy / size_y) ** 2) - (dt / size_theta) ** 2))


def _eyes(draft: _Draft, identity: Identity, s: float, rng: np.random.Generator) -> None:
    sides = [("left",), ("right",), ("left", "right")][rng.choice(3, p=[0.4, 0.4, 0.2])]
    mode = rng.choice(["shift", "large", "small", "fade", "colour"])
    red = rng.random() < 0.6
    for name in sides:
        side = 1.0 if name == "left" else -1.0
        change: dict = {}
        if mode == "shift":
            change = {"dy": _sign(rng) * (0.015 + 0.10 * s), "dtheta": _sign(rng) * 0.10 * s}
        elif mode == "large":
            change = {"scale": 1.08 + 0.75 * s}
        elif mode == "small":
            change = {"scale": 0.93 - 0.60 * s}
        elif mode == "fade":
            change = {"alpha": 0.95 - 0.90 * s}
        else:
            target = np.array([0.75, 0.03, 0.02]) if red else np.array([0.02, 0.02, 0.02])
            white = np.array([0.86, 0.85, 0.83])
            change = {
                "sclera": tuple(white + (0.15 + 0.85 * s) * (target - white)),
                "gaze": (0.0, side * 0.10 * s),
            }
        draft.features[f"{name} eye"] = change
        y, theta = EYE_Y + change.get("dy", 0.0), side * EYE_ANGLE + change.get("dtheta", 0.0)
        draft.spots.append((EYE, y, theta, 0.09, 0.18))


def _mouth(draft: _Draft, identity: Identity, s: float, rng: np.random.Generator) -> None:
    mode = rng.choice(["tilt", "open", "wide", "narrow", "fade", "low"])
    change: dict = {}
    if mode == "tilt":
        change = {"tilt": _sign(rng) * (0.06 + 0.42 * s)}
    elif mode == "open":
        change = {"opened": 0.012 + 0.10 * s, "wave": 0.035 * s}
    elif mode == "wide":
        change = {"scale": 1.10 + 0.75 * s, "wave": 0.02 * s}
    elif mode == "narrow":
        change = {"scale": 0.90 - 0.60 * s}
    elif mode == "fade":
        change = {"alpha": 0.95 - 0.90 * s}
    else:
        change = {"dy": _sign(rng) * (0.02 + 0.085 * s)}
    draft.features["mouth"] = change
    draft.spots.append((MOUTH, MOUTH_Y + change.get("dy", 0.0), 0.0, 0.09, 0.25))


def _facial_features(draft: _Draft, identity: Identity, s: float, rng: np.random.Generator) -> None:
    mode = rng.choice(["nose shift", "nose large", "nose small", "nose twist", "brow"])
    if mode == "brow":
        name, side = ("left", 1.0) if rng.random() < 0.5 else ("right", -1.0)
        change = {
            "dy": -(0.02 + 0.15 * s) if rng.random() < 0.5 else 0.02 + 0.11 * s,
            "tilt": _sign(rng) * 0.40 * s,
        }
        draft.features[f"{name} brow"] = change
        draft.spots.append((FEATURE, BROW_Y + change["dy"], side * 0.42, 0.08, 0.22))
        return
    if mode == "nose shift":
        change = {"dtheta": _sign(rng) * (0.05 + 0.36 * s), "dy": rng.uniform(-0.05, 0.05) * s}
    elif mode == "nose large":
        change = {"scale": 1.15 + 1.25 * s}
    elif mode == "nose small":
        change = {"scale": 0.85 - 0.80 * s}
    else:
        change = {"twist": _sign(rng) * (0.06 + 0.50 * s)}
    draft.features["nose"] = change
    theta = change.get("dtheta", 0.0) + change.get("twist", 0.0)
    draft.spots.append((FEATURE, NOSE_Y - 0.03 + change.get("dy", 0.0), theta, 0.11, 0.18))


def _glasses(draft: _Draft, identity: Identity, s: float, rng: np.random.Generator) -> None:
    # Only faces that wear glasses; the others get torn cloth (`_cloth`).
    if not identity.glasses:
        return
    broken = int(rng.integers(2))
    dy, scale = [0.0, 0.0], [1.0, 1.0]
    dy[broken] = _sign(rng) * (0.02 + 0.13 * s)
    scale[broken] = 1 - 0.45 * s if rng.random() < 0.5 else 1 + 0.25 * s
    draft.features["glasses"] = {"dy": tuple(dy), "scale": tuple(scale)}
    draft.spots.append((CLOTH, EYE_Y + dy[broken], (-1.0, 1.0)[broken] * 0.45, 0.12, 0.25))


def _hair(bust: Bust, mask: np.ndarray, s: float, rng: np.random.Generator) -> None:
    hair = bust.part_YA == PART["hair"]
    front = np.exp(-((bust.theta_A / 1.9) ** 4))[None, :]
    shape = hair.shape
    patches = smooth_noise(rng, shape, (shape[0] / 16, shape[1] / 26))
    hit = (
        hair * soft(np.quantile(patches[hair], 1 - 0.10 - 0.35 * s) - patches, 0.25)
        if hair.any()
        else np.zeros(shape, np.float32)
    )
    mode = rng.choice(["holes", "blobs", "spikes"])
    strength = np.float32(0.25 + 0.75 * s)
    if mode == "holes":
        bust.colour_YA3 += (strength * hit)[..., None] * (
            np.asarray(bust.identity.skin, np.float32) * 0.9 - bust.colour_YA3
        )
        bust.radius_YA -= 0.9 * bust.identity.hair_volume * hit * strength
    elif mode == "blobs":
        alien = rng.uniform(0, 0.9, 3).astype(np.float32)
        bust.colour_YA3 += (strength * hit)[..., None] * (alien - bust.colour_YA3)
    else:
        ragged = smooth_noise(rng, shape, (shape[0] / 60, shape[1] / 130))
        hit = hair * soft(0.3 - patches, 0.4)
        bust.radius_YA += (hit * np.abs(ragged) * (0.03 + 0.13 * s) * (bust.radius_YA > 0)).astype(
            np.float32
        )
        bust.colour_YA3 *= 1 - (0.5 * s * hit * (ragged > 0))[..., None]
    np.maximum(mask, hit * front, out=mask)


def _head(bust: Bust, mask: np.ndarray, s: float, rng: np.random.Generator) -> None:
    mode = rng.choice(["bump", "dent", "narrow", "wide", "taper"])
    head = soft(bust.y_Y - 0.44, 0.03)[:, None] * (bust.radius_YA > 0)
    if mode in ("bump", "dent"):
        y = rng.choice([-0.55, -0.25, 0.12, 0.30])
        theta = _sign(rng) * rng.uniform(0.65, 1.35)
        height = (0.04 + 0.28 * s) if mode == "bump" else -(0.04 + 0.19 * s)
        bump(bust, y, theta, 0.15, 0.42, height)
        _spot(mask, bust, y, theta, 0.13, 0.38)
        return
    if mode == "taper":
        grow = np.clip((bust.y_Y - 0.44) / -1.2, 0, 1)[:, None] * (0.10 + 0.45 * s) * _sign(rng)
        factor = 1 + grow - 0.4 * (0.10 + 0.45 * s) * np.sign(grow.sum())
    else:
        factor = 1 + (0.06 + 0.32 * s) * (1 if mode == "wide" else -1)
    bust.radius_YA *= (1 + head * (factor - 1)).astype(np.float32)
    for side in (-1.0, 1.0):
        _spot(mask, bust, 0.25, side * 0.9, 0.14, 0.35)
        _spot(mask, bust, -0.45, side * 0.9, 0.14, 0.35)


def _blending(bust: Bust, mask: np.ndarray, s: float, rng: np.random.Generator) -> None:
    y, theta = bust.y_Y[:, None], bust.theta_A[None, :]
    if rng.random() < 0.55:
        # A second face shines through, shifted.
        rows = round(_sign(rng) * (0.07 + 0.07 * rng.random()) / float(bust.y_Y[1] - bust.y_Y[0]))
        columns = round(
            _sign(rng) * (0.10 + 0.20 * rng.random()) / float(bust.theta_A[1] - bust.theta_A[0])
        )
        region = soft(np.hypot((y + 0.0) / 0.42, theta / 1.0) - 1, 0.25) * (0.12 + 0.48 * s)
        ghost = np.roll(bust.colour_YA3, (rows, columns), (0, 1))
        bust.colour_YA3 += region[..., None] * (ghost - bust.colour_YA3)
        for at_y, at_theta in ((EYE_Y, EYE_ANGLE), (EYE_Y, -EYE_ANGLE), (MOUTH_Y, 0.0)):
            shift = (
                rows * (bust.y_Y[1] - bust.y_Y[0]),
                columns * (bust.theta_A[1] - bust.theta_A[0]),
            )
            _spot(mask, bust, at_y + shift[0] / 2, at_theta + shift[1] / 2, 0.09, 0.18)
        return
    # A patch of another skin with a hard edge.
    centre = rng.uniform(-0.35, 0.30), rng.uniform(-0.8, 0.8)
    wobble = 0.18 * smooth_noise(
        rng, bust.radius_YA.shape, (bust.y_Y.size / 12, bust.theta_A.size / 26)
    )
    distance = (
        np.hypot(
            (y - centre[0]) / rng.uniform(0.2, 0.32), (theta - centre[1]) / rng.uniform(0.4, 0.65)
        )
        + wobble
        - 1
    )
    skin = ~np.isin(bust.part_YA, (PART["cloth"],))
    patch = soft(distance, 0.04) * skin
    tint = 1 + (0.18 + 0.62 * s) * np.where(
        rng.random() < 0.5, np.array([-1.0, -0.85, -0.7]), np.array([0.35, -0.75, -0.8])
    )
    bust.colour_YA3 *= (1 + patch[..., None] * (tint.astype(np.float32) - 1)).astype(np.float32)
    rim = np.exp(-((distance / 0.25) ** 2)) * skin * np.exp(-((theta / 1.7) ** 4))
    np.maximum(mask, rim, out=mask)


def _picture(bust: Bust, mask: np.ndarray, s: float, rng: np.random.Generator) -> None:
    # The picture itself is changed in `filter_frame`; viewers point at the features that suffer.
    for y, theta in bust.landmarks.values():
        _spot(mask, bust, y, theta, 0.09, 0.18)


def _cloth(bust: Bust, mask: np.ndarray, s: float, rng: np.random.Generator) -> None:
    if bust.identity.glasses:
        return  # broken glasses already (`_glasses`)
    y, theta = bust.y_Y[:, None], bust.theta_A[None, :]
    shape = bust.radius_YA.shape
    noise = smooth_noise(rng, shape, (shape[0] / 22, shape[1] / 40))
    front = np.exp(-((theta / 1.7) ** 4))
    alien = rng.uniform(0.0, 0.9, 3).astype(np.float32)
    if rng.random() < 0.5:
        # Cloth creeps up the neck and over the jaw.
        edge = (
            bust.identity.neckline
            - (0.05 + 0.40 * s) * np.clip(0.6 + 0.6 * noise[shape[0] // 2], 0, 1.6)[None, :]
        )
        region = soft(edge - y, 0.02) * (bust.part_YA != PART["cloth"]) * (np.abs(theta) < 1.9)
        bust.colour_YA3 += region[..., None] * (
            np.asarray(bust.identity.cloth, np.float32) - bust.colour_YA3
        )
        bust.part_YA[region > 0.5] = PART["cloth"]
    else:
        cells = y > bust.identity.neckline - 0.10 - 0.15 * s
        region = soft(0.9 - 1.1 * s - noise, 0.2) * cells
        bust.colour_YA3 += ((0.35 + 0.65 * s) * region)[..., None] * (alien - bust.colour_YA3)
        bust.radius_YA += (0.10 * s * region * (bust.radius_YA > 0)).astype(np.float32)
    np.maximum(mask, region * front, out=mask)


Edit = Callable[..., None]
_FEATURE_EDITS: dict[int, Edit] = {
    EYE: _eyes,
    MOUTH: _mouth,
    FEATURE: _facial_features,
    CLOTH: _glasses,
}
_GRID_EDITS: dict[int, Edit] = {
    HAIR: _hair,
    HEAD: _head,
    BLENDING: _blending,
    IMAGE: _picture,
    CLOTH: _cloth,
}
