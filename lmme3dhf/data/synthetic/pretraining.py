"""Pictures from which the tiny base learns to see: faces nobody is tested on, with dense targets.

The tiny base (`models/tiny.py`) is pretrained once on these (`stages/pretrain.py`). Identities come
from a random stream of their own, so no face of a synthetic Gen3DHF is among them. Unlike the data
set, kinds and severities are drawn evenly, framing and the arc of the turn vary widely, and one
picture in ten shows no face at all.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from lmme3dhf.data.synthetic.bust import (
    EYE_ANGLE,
    EYE_Y,
    MOUTH_Y,
    NOSE_Y,
    PART,
    PARTS,
    Bust,
    Frame,
    Identity,
    smooth_noise,
)
from lmme3dhf.data.synthetic.clips import ClipPlan, ClipRenderer
from lmme3dhf.data.synthetic.distortions import IMAGE, Distortion, filter_frame
from lmme3dhf.data.synthetic.render import SUPERSAMPLING
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

SIZE_PX = 112
CELLS = 16  # dense targets per side: cells of 7 px, four to a patch
CLIP_FRAMES = 8
STILLS = 3
KINDS = 8
LANDMARKS = ("left eye", "right eye", "nose", "mouth")
_STREAM = 0x7072_6574  # keeps these identities apart from those of every data set


@dataclass(frozen=True)
class PoolShard:
    """Arrays of one shard, memory-mapped; N clips, V = CLIP_FRAMES + STILLS pictures each.

    Attributes:
        images: (N, V, 112, 112, 3) uint8.
        parts: (N, V, 16, 16) uint8, index into `bust.PARTS`.
        masks: (N, V, 16, 16, 8) uint8, where each kind shows, 255 = fully.
        severity: (N, 8) float32, 0 = absent.
        landmarks: (N, V, 2, 4, 3) float32: as they stand and as they should; x, y in -1..1 and
            whether it faces the viewer.
        facts: (N, 5) uint8: is a face, glasses, hat, long hair, light from the left.
    """

    images: np.ndarray
    parts: np.ndarray
    masks: np.ndarray
    severity: np.ndarray
    landmarks: np.ndarray
    facts: np.ndarray


_SHAPES = {
    "images": ((CLIP_FRAMES + STILLS, SIZE_PX, SIZE_PX, 3), np.uint8),
    "parts": ((CLIP_FRAMES + STILLS, CELLS, CELLS), np.uint8),
    "masks": ((CLIP_FRAMES + STILLS, CELLS, CELLS, KINDS), np.uint8),
    "severity": ((KINDS,), np.float32),
    "landmarks": ((CLIP_FRAMES + STILLS, 2, len(LANDMARKS), 3), np.float32),
    "facts": ((5,), np.uint8),
}


def open_shard(folder: Path, mode: str, clips: int | None = None) -> PoolShard:
    """Opens (mode "r") or creates (mode "w+", with the number of clips) the arrays of one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, (shape, dtype) in _SHAPES.items():
        path = folder / f"{name}.npy"
        if mode == "r":
            arrays[name] = np.load(path, mmap_mode="r")
        else:
            arrays[name] = np.lib.format.open_memmap(path, mode, dtype, (clips, *shape))
    return PoolShard(**arrays)


def _compress(pictures: np.ndarray, quality: int) -> None:
    # Traces of lossy coding, as every real clip has them, are no distortion of the face.
    for picture in pictures:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=quality)
        picture[:] = np.asarray(Image.open(stream))


def draw_plan(rng: np.random.Generator) -> ClipPlan:
    """A clip with none to three distortions, evenly drawn, and free framing."""
    count = rng.choice(4, p=[0.12, 0.40, 0.30, 0.18])
    kinds = rng.choice(KINDS, size=count, replace=False)
    distortions = tuple(
        Distortion(
            kind=int(kind), severity=float(rng.uniform(0.05, 1.0)), seed=int(rng.integers(2**31))
        )
        for kind in sorted(kinds)
    )
    return ClipPlan(
        identity=Identity.draw(rng),
        distortions=distortions,
        frame=Frame(rng.normal(-0.02, 0.04), rng.normal(0.0, 0.04), rng.uniform(0.76, 1.0)),
        scene_seed=int(rng.integers(2**31)),
        softness=float(rng.uniform(0.0, 0.006)),
        grain_seed=int(rng.integers(2**31)),
    )


def render_pool(folder: Path, clips: int, seed: int, report=lambda done: None) -> None:
    """Renders one shard.

    Args:
        folder: Where the arrays go.
        clips: How many.
        seed: Another seed gives other faces.
        report: Called with the number of finished clips.
    """
    shard = open_shard(folder, "w+", clips)
    for index in range(clips):
        rng = np.random.default_rng((_STREAM, seed, index))
        if rng.random() < 0.1:
            _render_texture(shard, index, rng)
        else:
            _render_face(shard, index, rng)
        if rng.random() < 0.6:
            _compress(shard.images[index], int(rng.integers(60, 96)))
        report(index + 1)
    for array in vars(shard).values():
        array.flush()


def _render_face(shard: PoolShard, index: int, rng: np.random.Generator) -> None:
    plan = draw_plan(rng)
    renderer = ClipRenderer(plan, SIZE_PX)
    # Most clips turn half a circle as in Gen3DHF, the others less: released generators' clips
    # differ.
    arc = 90.0 if rng.random() < 0.65 else rng.uniform(10.0, 60.0)
    yaws = np.concatenate(
        [
            np.linspace(-arc, arc, CLIP_FRAMES),
            np.array([-45.0, 0.0, 45.0]) + rng.normal(0, 6.0, STILLS),
        ]
    )
    bust = renderer.turntable.bust
    canonical = _canonical_landmarks()
    step = SIZE_PX * SUPERSAMPLING // CELLS
    for v, yaw in enumerate(yaws):
        picture, view = renderer.picture(yaw, v)
        shard.images[index, v] = picture
        centres = view.cell_RC[step // 2 :: step, step // 2 :: step]
        shard.parts[index, v] = np.where(
            centres >= 0, bust.part_YA.ravel()[centres], PART["background"]
        )
        for kind, mask in renderer.masks.items():
            values = np.where(view.cell_RC >= 0, mask.ravel()[view.cell_RC], 0.0)
            pooled = values.reshape(CELLS, step, CELLS, step).mean((1, 3))
            shard.masks[index, v, ..., kind] = np.round(255 * pooled)
        for which, marks in enumerate((bust.landmarks, canonical)):
            for k, name in enumerate(LANDMARKS):
                shard.landmarks[index, v, which, k] = _project(bust, *marks[name], np.deg2rad(yaw))
    for item in plan.distortions:
        shard.severity[index, item.kind] = item.severity
    identity = plan.identity
    light = renderer.turntable.scene.light[0] < 0
    shard.facts[index] = (1, identity.glasses, identity.hat, identity.long_hair, light)


def _canonical_landmarks() -> dict[str, tuple[float, float]]:
    return {
        "left eye": (EYE_Y, EYE_ANGLE),
        "right eye": (EYE_Y, -EYE_ANGLE),
        "nose": (NOSE_Y, 0.0),
        "mouth": (MOUTH_Y, 0.0),
    }


def _project(bust: Bust, y: float, theta: float, yaw: float) -> tuple[float, float, float]:
    row = min(np.searchsorted(bust.y_Y, y), bust.y_Y.size - 1)
    column = min(np.searchsorted(bust.theta_A, theta), bust.theta_A.size - 1)
    x = bust.radius_YA[row, column] * np.sin(theta + yaw)
    frame = bust.frame
    return (
        (x - frame.centre_x) / frame.half,
        (y - frame.centre_y) / frame.half,
        float(np.cos(theta + yaw) > 0.2),
    )


def _render_texture(shard: PoolShard, index: int, rng: np.random.Generator) -> None:
    # No face: noise with the fall-off of natural pictures and a few shapes, sharp or not; it slides
    # from frame to frame.
    size = SIZE_PX + 24
    picture = np.zeros((size, size, 3), np.float32) + rng.uniform(0.2, 0.7, 3).astype(np.float32)
    for sigma in (24, 12, 6, 3, 1.5, 0.8):
        shared = smooth_noise(rng, (size, size), (sigma, sigma))
        picture += 0.05 * sigma**0.25 * (shared[..., None] + 0.3 * rng.standard_normal(3))
    y, x = np.mgrid[0:size, 0:size]
    for _ in range(rng.integers(2, 9)):
        centre, radii = rng.uniform(0, size, 2), rng.uniform(4, 30, 2)
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        if rng.random() < 0.5:
            inside = (np.abs(y - centre[0]) < radii[0]) & (np.abs(x - centre[1]) < radii[1])
        picture[inside] = rng.uniform(0.05, 0.95, 3)
    picture = gaussian_filter(picture, (0.5, 0.5, 0)).clip(0, 1)
    distortions: tuple[Distortion, ...] = ()
    if rng.random() < 0.7:
        distortions = (
            Distortion(
                kind=IMAGE, severity=float(rng.uniform(0.05, 1)), seed=int(rng.integers(2**31))
            ),
        )
        shard.severity[index, IMAGE] = distortions[0].severity
    drift = rng.uniform(-1.5, 1.5, 2)
    for v in range(CLIP_FRAMES + STILLS):
        top, left = (12 + drift * (v - 5)).astype(int)
        crop = picture[top : top + SIZE_PX, left : left + SIZE_PX]
        shard.images[index, v] = filter_frame(crop, distortions, rng)
    shard.parts[index] = PARTS.index("background")
    shard.masks[index] = 0


_STATE_WORDS = ("excellent", "good", "fair", "poor", "bad")
_STATE_SUBJECTS = (
    "eyes",
    "mouth",
    "hair",
    "nose and brows",
    "head shape",
    "blending",
    "picture sharpness",
    "clothes and glasses",
)
_COUNT_WORDS = ("no", "one", "two", "three")


def questions(
    severity: np.ndarray, facts: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Questions about one clip with their answers, in random order.

    They name the kinds and use the level words, so that the base knows these words, but none asks
    for an overall quality, an authenticity, or the list of distortions: that is left to the stages.

    Args:
        severity: (8,), 0 = absent.
        facts: (5,), see `PoolShard`.
        rng: Draws wording and order.
    """
    state = np.where(severity > 0, 1 + np.digitize(severity, (0.28, 0.52, 0.76)), 0)
    asked: list[tuple[str, str]] = []
    for kind, subject in enumerate(_STATE_SUBJECTS):
        verb = "are" if subject.startswith(("eyes", "nose", "clothes")) else "is"
        asked.append(
            (
                f"How {verb} the {subject} in this video?",
                f"The state of the {subject} is {_STATE_WORDS[state[kind]]}.",
            )
        )
    present = np.flatnonzero(severity > 0)
    asked.append(
        (
            "How many things are wrong in this video?",
            f"There are {_COUNT_WORDS[len(present)]} distortions.",
        )
    )
    one = DISTORTIONS[int(rng.choice(present))] if len(present) else NO_DISTORTION
    asked.append(("Name one distortion in this video.", f"One distortion is {one}."))
    kind = int(rng.integers(KINDS))
    asked.append(
        (f"Do you find {DISTORTIONS[kind]} here?", "Yes." if severity[kind] > 0 else "No.")
    )
    if facts[0]:
        asked.append(("Does the person wear glasses?", "Yes." if facts[1] else "No."))
        asked.append(("Does the person wear a hat?", "Yes." if facts[2] else "No."))
        asked.append(
            (
                "How long is the hair of this human?",
                "The hair is long." if facts[3] else "The hair is short.",
            )
        )
    asked.append(("Do you see a human face in this video?", "Yes." if facts[0] else "No."))
    return [asked[i] for i in rng.permutation(len(asked))]


def vocabulary_corpus(prompts: tuple[str, ...], replies: tuple[str, ...]) -> list[str]:
    """Texts from which the tiny tokenizer learns its words: the pretraining questions, and the
    metric's prompts and replies.
    """
    rng = np.random.default_rng(0)
    texts = [*prompts, *replies]
    for _ in range(300):
        severity = rng.uniform(0.05, 1, KINDS) * (rng.random(KINDS) < 0.3)
        severity[np.flatnonzero(severity)[3:]] = 0
        for question, answer in questions(severity, rng.integers(0, 2, 5), rng):
            texts += [question, answer]
    texts += [
        f"{word} is {level}." for level in _STATE_WORDS for word in ("The quality", "It", "This")
    ] * 5
    texts += ["You are a helpful assistant.", "system", "user", "assistant", *DISTORTIONS] * 20
    return texts + [text for text in (*prompts, *replies) for _ in range(20)]
