"""A turning head without a mesh: identity -> radius and colour over (height, angle).

A bust is a generalised cylinder. For every height y and every angle theta about the vertical axis
it has one radius and one colour, so a view needs one z-buffer per image row (`render.py`), and a
distortion is an edit of the two grids (`distortions.py`) that stays attached to the head when the
head turns.

Coordinates: y runs downwards, theta from -pi to pi with 0 at the tip of the nose and positive
towards the subject's left; one unit of length is about a head's height less the hair; a `Frame`
says which part of that the picture shows. Colours are linear RGB in 0..1.
Array names: Y rows of the grid, A angles.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, uniform_filter1d

# What a grid cell shows; also the dense target when the tiny base is pretrained.
PARTS = (
    "background",
    "skin",
    "hair",
    "eye",
    "brow",
    "nose",
    "mouth",
    "ear",
    "neck",
    "cloth",
    "accessory",
)
PART = {name: index for index, name in enumerate(PARTS)}


@dataclass(frozen=True)
class Frame:
    """The square part of the bust's plane that a picture shows, in the bust's units.

    Attributes:
        centre_y: Height of the picture's middle.
        centre_x: Shift of the picture's middle sideways; the axis stands at 0.
        half: Half the picture's side. With the defaults the head fills three quarters of the
            height.
    """

    centre_y: float = -0.02
    centre_x: float = 0.0
    half: float = 0.88


# Height, side and depth half-axes and forward shift of the horizontal ellipses of an average bust.
_PROFILE = np.array(
    [
        [-0.805, 0.02, 0.02, -0.05],
        [-0.780, 0.17, 0.19, -0.05],
        [-0.720, 0.29, 0.34, -0.05],
        [-0.600, 0.39, 0.46, -0.03],
        [-0.400, 0.45, 0.53, -0.01],
        [-0.150, 0.45, 0.53, 0.00],
        [0.050, 0.43, 0.51, 0.01],
        [0.200, 0.385, 0.46, 0.03],
        [0.310, 0.32, 0.39, 0.08],
        [0.390, 0.24, 0.31, 0.14],
        [0.430, 0.16, 0.25, 0.19],
        [0.455, 0.20, 0.22, -0.04],
        [0.580, 0.21, 0.22, -0.06],
        [0.660, 0.30, 0.26, -0.06],
        [0.760, 0.66, 0.33, -0.05],
        [1.300, 1.00, 0.42, -0.05],
    ]
)

EYE_ANGLE, EYE_Y = 0.40, -0.17
MOUTH_Y, NOSE_Y, BROW_Y = 0.205, 0.075, -0.315
EAR_ANGLE, EAR_Y = 1.62, -0.07


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes a face that face; drawn from the latent seed alone, so every generator shows the
    same person.

    Lengths are relative to the average bust, angles in radians, colours linear RGB in 0..1.
    """

    width: float
    depth: float
    jaw: float
    nose_length: float
    nose_width: float
    eye_size: float
    eye_open: float
    mouth_width: float
    lip: float
    smile: float
    brow: float
    ear: float
    skin: tuple[float, float, float]
    iris: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair: tuple[float, float, float]
    cloth: tuple[float, float, float]
    trim: tuple[float, float, float]
    hairline: float
    hair_volume: float
    hair_length: float
    parting: float
    cloth_pattern: int
    neckline: float
    glasses: bool
    hat: bool
    earrings: bool
    texture_seed: int

    @property
    def long_hair(self) -> bool:
        """Whether the hair hangs over the ears."""
        return self.hair_length > 0.1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Identity":
        """Draws an identity; the same generator state gives the same face."""
        tone = rng.uniform(0.0, 1.0)
        skin = np.array([0.90, 0.68, 0.55]) * (1 - tone) + np.array([0.36, 0.21, 0.14]) * tone
        hair = np.array(
            [
                [0.06, 0.05, 0.05],
                [0.22, 0.12, 0.06],
                [0.45, 0.27, 0.12],
                [0.75, 0.58, 0.30],
                [0.55, 0.54, 0.53],
            ]
        )
        iris = np.array(
            [[0.20, 0.11, 0.05], [0.12, 0.28, 0.45], [0.16, 0.32, 0.16], [0.30, 0.28, 0.25]]
        )
        return cls(
            width=rng.uniform(0.90, 1.08),
            depth=rng.uniform(0.94, 1.06),
            jaw=rng.uniform(0.88, 1.15),
            nose_length=rng.uniform(0.80, 1.25),
            nose_width=rng.uniform(0.80, 1.25),
            eye_size=rng.uniform(0.92, 1.12),
            eye_open=rng.uniform(0.80, 1.15),
            mouth_width=rng.uniform(0.85, 1.15),
            lip=rng.uniform(0.80, 1.25),
            smile=rng.uniform(-0.25, 0.8),
            brow=rng.uniform(0.7, 1.4),
            ear=rng.uniform(0.8, 1.2),
            skin=tuple(np.clip(skin * rng.uniform(0.94, 1.06, 3), 0, 1)),
            iris=tuple(iris[rng.integers(len(iris))] * rng.uniform(0.8, 1.2)),
            lips=tuple(
                np.clip(skin * np.array([0.95, 0.58, 0.60]) + np.array([0.04, 0.0, 0.01]), 0, 1)
            ),
            hair=tuple(np.clip(hair[rng.integers(len(hair))] * rng.uniform(0.8, 1.2), 0, 1)),
            cloth=tuple(rng.uniform(0.04, 0.75, 3)),
            trim=tuple(rng.uniform(0.04, 0.9, 3)),
            hairline=rng.uniform(-0.60, -0.45),
            hair_volume=rng.uniform(0.03, 0.10),
            hair_length=rng.choice([-0.12, 0.0, 0.25, 0.55, 0.75]),
            parting=rng.uniform(-0.5, 0.5),
            cloth_pattern=int(rng.integers(4)),
            neckline=rng.uniform(0.60, 0.72),
            glasses=bool(rng.random() < 0.3),
            hat=bool(rng.random() < 0.12),
            earrings=bool(rng.random() < 0.3),
            texture_seed=int(rng.integers(2**31)),
        )


@dataclass
class Bust:
    """Radius, colour and part of every grid cell; `distortions.py` edits it in place.

    Attributes:
        y_Y: Heights of the rows, shape (Y,).
        theta_A: Angles of the columns, shape (A,), from -pi to pi.
        radius_YA: Distance from the axis, units.
        colour_YA3: Linear RGB, 0..1.
        part_YA: Index into `PARTS`.
        shine_YA: Strength of the highlight, 0..1.
        identity: Whose bust it is.
        frame: What a picture of it shows; the rows of the grid are the rows of the picture.
        landmarks: Name -> (y, theta) of the facial landmarks as they stand now (edits move them).
    """

    y_Y: np.ndarray
    theta_A: np.ndarray
    radius_YA: np.ndarray
    colour_YA3: np.ndarray
    part_YA: np.ndarray
    shine_YA: np.ndarray
    identity: Identity
    frame: Frame
    landmarks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def window(
        self, y: float, theta: float, half_y: float, half_theta: float
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """Cells around a point, and their offsets from it.

        Returns:
            The index of the cells and the offsets dy (Y,1) and dtheta (1,A) in the bust's units;
            the window is cut at the grid's border (the seam is at the back of the head).
        """
        rows = slice(*np.searchsorted(self.y_Y, [y - half_y, y + half_y]))
        columns = slice(*np.searchsorted(self.theta_A, [theta - half_theta, theta + half_theta]))
        return (rows, columns), self.y_Y[rows, None] - y, self.theta_A[None, columns] - theta

    def paint(
        self, where: tuple[slice, slice], alpha_YA: np.ndarray, colour, part: str | None = None
    ) -> None:
        """Blends a colour into a window; cells that are mostly covered become `part`."""
        cells = self.colour_YA3[where]
        cells += alpha_YA[..., None] * (np.asarray(colour, np.float32) - cells)
        if part is not None:
            self.part_YA[where][alpha_YA > 0.5] = PART[part]


def soft(signed_distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside (negative distance), 0 outside, with a linear edge of the given width."""
    return np.clip(0.5 - signed_distance / width, 0.0, 1.0).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]
) -> np.ndarray:
    """Gaussian noise smoothed to the given correlation lengths (cells), zero mean and unit
    deviation.
    """
    # Noise is drawn on a coarse grid and stretched: the same look for a tenth of the time.
    step = [max(1, int(s)) for s in sigma]
    small = rng.standard_normal([-(-n // k) + 3 for n, k in zip(shape, step, strict=True)]).astype(
        np.float32
    )
    small = gaussian_filter(small, [s / k for s, k in zip(sigma, step, strict=True)], mode="wrap")
    rows = np.arange(shape[0], dtype=np.float32) / step[0]
    columns = np.arange(shape[1], dtype=np.float32) / step[1]
    r, c = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r)[:, None], (columns - c)[None, :]
    left, right = small[:, c], small[:, c + 1]
    wide = left + fc * (right - left)
    noise = wide[r] + fr * (wide[r + 1] - wide[r])
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def make_bust(
    identity: Identity, rows: int, frame: Frame, features: dict[str, dict] | None = None
) -> Bust:
    """Builds a bust.

    Args:
        identity: Whose face.
        rows: Height of the grid; the renderer needs the height of its (supersampled) image.
        frame: What the pictures will show.
        features: Keyword arguments for single features, by name ("left eye", "right eye", "left
            brow", "right brow", "nose", "mouth", "glasses"): how a distortion moves, scales or
            fades them. None builds the face as it should be.
    """
    changed = features or {}
    y_Y = (((np.arange(rows) + 0.5) / rows * 2 - 1) * frame.half + frame.centre_y).astype(
        np.float32
    )
    columns = 3 * rows
    theta_A = ((np.arange(columns) + 0.5) / columns * 2 * np.pi - np.pi).astype(np.float32)
    rng = np.random.default_rng(identity.texture_seed)
    bust = Bust(
        y_Y=y_Y,
        theta_A=theta_A,
        radius_YA=_base_radius(identity, y_Y, theta_A),
        colour_YA3=np.empty((rows, columns, 3), np.float32),
        part_YA=np.full((rows, columns), PART["skin"], np.uint8),
        shine_YA=np.full((rows, columns), 0.25, np.float32),
        identity=identity,
        frame=frame,
        landmarks={
            "left eye": (EYE_Y, EYE_ANGLE),
            "right eye": (EYE_Y, -EYE_ANGLE),
            "nose": (NOSE_Y, 0.0),
            "mouth": (MOUTH_Y, 0.0),
        },
    )
    _paint_skin(bust, rng)
    if not identity.long_hair:
        for side in (-1.0, 1.0):
            add_ear(bust, side)
    _paint_cloth(bust, rng)
    _add_hair(bust, rng)
    add_nose(bust, **changed.get("nose", {}))
    for side, name in ((-1.0, "right"), (1.0, "left")):
        add_eye(bust, side, **changed.get(f"{name} eye", {}))
        add_brow(bust, side, **changed.get(f"{name} brow", {}))
    add_mouth(bust, **changed.get("mouth", {}))
    if identity.glasses:
        add_glasses(bust, **changed.get("glasses", {}))
    if identity.earrings and not identity.long_hair:
        for side in (-1.0, 1.0):
            add_earring(bust, side)
    if identity.hat:
        _add_hat(bust)
    return bust


def _base_radius(identity: Identity, y_Y: np.ndarray, theta_A: np.ndarray) -> np.ndarray:
    y, a, b, c = _PROFILE.T
    head = y < 0.45
    widen = np.where(head, identity.width * np.where(y > 0.15, identity.jaw, 1.0), 1.0)
    a, b = a * widen, b * np.where(head, identity.depth, 1.0)
    a_Y, b_Y, c_Y = (PchipInterpolator(y, curve)(y_Y)[:, None] for curve in (a, b, c))
    # Distance from the axis to an ellipse whose centre stands c in front of it.
    s, k = np.sin(theta_A)[None, :], np.cos(theta_A)[None, :]
    A = (s / a_Y) ** 2 + (k / b_Y) ** 2
    B = -2 * k * c_Y / b_Y**2
    C = (c_Y / b_Y) ** 2 - 1
    radius = (-B + np.sqrt(np.maximum(B * B - 4 * A * C, 0))) / (2 * A)
    radius[y_Y < _PROFILE[0, 0]] = 0
    return radius.astype(np.float32)


def _paint_skin(bust: Bust, rng: np.random.Generator) -> None:
    identity, shape = bust.identity, bust.radius_YA.shape
    tone = smooth_noise(rng, shape, (shape[0] / 14, shape[1] / 30)) * 0.035
    pores = smooth_noise(rng, shape, (shape[0] / 180, shape[1] / 500)) * 0.035
    np.multiply(
        np.asarray(identity.skin, np.float32), (1 + tone + pores)[..., None], out=bust.colour_YA3
    )
    for side in (-1, 1):
        where, dy, dt = bust.window(0.08, side * 0.55, 0.25, 0.45)
        bust.paint(
            where,
            0.3 * np.exp(-((dy / 0.11) ** 2) - (dt / 0.22) ** 2),
            np.asarray(identity.lips) * 1.15,
        )
    bust.part_YA[bust.y_Y > 0.445] = PART["neck"]
    # Sockets, brow ridge, cheekbones, chin.
    for y, theta, size_y, size_t, height in (
        (EYE_Y, EYE_ANGLE, 0.10, 0.22, -0.035),
        (EYE_Y, -EYE_ANGLE, 0.10, 0.22, -0.035),
        (-0.30, 0.0, 0.07, 0.55, 0.02),
        (0.02, 0.62, 0.12, 0.28, 0.018),
        (0.02, -0.62, 0.12, 0.28, 0.018),
        (0.36, 0.0, 0.06, 0.25, 0.03),
    ):
        bump(bust, y, theta, size_y, size_t, height)


def bump(
    bust: Bust, y: float, theta: float, size_y: float, size_theta: float, height: float
) -> None:
    """Adds a Gaussian bump (or, with a negative height, a dent) to the radius."""
    where, dy, dt = bust.window(y, theta, 3 * size_y, 3 * size_theta)
    shape = np.exp(-((dy / size_y) ** 2) - (dt / size_theta) ** 2)
    bust.radius_YA[where] += height * shape * (bust.radius_YA[where] > 0)


def add_ear(bust: Bust, side: float) -> None:
    """Adds an ear (side -1: the subject's right) as a ridge with a darker hollow."""
    size = bust.identity.ear
    where, dy, dt = bust.window(EAR_Y, side * EAR_ANGLE, 0.17 * size, 0.30)
    distance = np.hypot(dy / (0.135 * size), dt / 0.17)
    inside = soft(distance - 1, 0.25)
    bust.radius_YA[where] += (0.085 * size * inside * np.clip(1.2 - 0.5 * distance, 0, 1)).astype(
        np.float32
    )
    bust.paint(where, 0.9 * inside, np.asarray(bust.identity.skin) * 0.93, "ear")
    bust.paint(where, 0.45 * soft(distance - 0.5, 0.5), np.asarray(bust.identity.skin) * 0.55)


def add_nose(
    bust: Bust, *, dy: float = 0.0, dtheta: float = 0.0, scale: float = 1.0, twist: float = 0.0
) -> None:
    """Adds the nose: a ridge from the bridge to the tip, wings and nostrils.

    Args:
        bust: Edited in place.
        dy: Shift of the whole nose, units.
        dtheta: Shift sideways, radians.
        scale: Size, 1 for the identity's own nose, 0 for none.
        twist: Sideways lean of the tip against the bridge, radians.
    """
    identity = bust.identity
    tip = NOSE_Y + dy
    length = 0.27 * identity.nose_length**0.5
    where, oy, ot = bust.window(tip - length / 2, dtheta, length, 0.60)
    along = np.clip((oy + length / 2 + 1e-6) / length, 0, 1)  # 0 at the bridge, 1 at the tip
    below = np.clip((oy - length / 2) / 0.045, 0, None)
    height = (
        0.135
        * identity.nose_length
        * scale
        * (0.12 + 0.88 * along**1.4)
        * np.exp(-(below**2))
        * (oy > -length / 2 - 0.03)
    )
    width = (0.09 + 0.10 * along**2) * identity.nose_width * max(scale, 0.3) ** 0.5
    ridge = np.exp(-(((ot - twist * along) / width) ** 2))
    bust.radius_YA[where] += (height * ridge).astype(np.float32)
    bust.part_YA[where][(height * ridge > 0.02)] = PART["nose"]
    # Shade at the flanks and a warmer tip: a nose is seen from the front as well.
    flank = (
        np.exp(-(((np.abs(ot - twist * along) - 1.15 * width) / (0.45 * width)) ** 2))
        * along
        * np.exp(-(below**2))
    )
    bust.paint(
        where,
        (0.32 * min(1.0, scale) * flank * (oy > -length / 2)).astype(np.float32),
        np.asarray(identity.skin) * 0.45,
    )
    warm = np.exp(
        -(((oy - length / 2 + 0.02) / 0.05) ** 2)
        - ((ot - twist) / (0.13 * max(scale, 0.2) ** 0.5)) ** 2
    )
    bust.paint(where, (0.30 * min(1.0, scale) * warm).astype(np.float32), identity.lips)
    for side in (-1, 1):
        y, theta = tip + 0.03, dtheta + twist + side * 0.075 * identity.nose_width
        cells, ny, nt = bust.window(y, theta, 0.05, 0.10)
        nostril = soft(np.hypot(ny / 0.018, nt / 0.042) - 1, 0.5) * min(1.0, scale)
        bust.paint(cells, 0.8 * nostril, np.asarray(identity.skin) * 0.25, "nose")
    bust.landmarks["nose"] = (tip, dtheta + twist)


def add_eye(
    bust: Bust,
    side: float,
    *,
    dy: float = 0.0,
    dtheta: float = 0.0,
    scale: float = 1.0,
    gaze: tuple[float, float] = (0.0, 0.0),
    alpha: float = 1.0,
    sclera=(0.86, 0.85, 0.83),
) -> None:
    """Paints an eye: lids, white, iris, pupil, glint.

    Args:
        bust: Edited in place.
        side: +1 for the subject's left eye, -1 for the right.
        dy: Shift down, units.
        dtheta: Shift sideways, radians.
        scale: Size against the identity's own eye.
        gaze: Offset of the iris (dy, dtheta).
        alpha: 1 for a full eye, 0 for bare skin.
        sclera: Colour of the white, linear RGB.
    """
    identity = bust.identity
    y, theta = EYE_Y + dy, side * EYE_ANGLE + dtheta
    half_t = 0.215 * identity.eye_size * scale
    half_y = 0.060 * identity.eye_size * identity.eye_open * scale
    where, oy, ot = bust.window(y, theta, 2.2 * half_y + 0.02, 1.35 * half_t)
    u = np.clip(np.abs(ot) / half_t, 0, 1)
    upper, lower = half_y * (1 - u**2.2), 0.75 * half_y * (1 - u**2.2)
    # Signed distance to the almond, in units.
    distance = np.maximum(-oy - upper, oy - lower) + 0.1 * np.maximum(np.abs(ot) - half_t, 0)
    opening = soft(distance, 0.014)
    bust.paint(
        where, alpha * 0.55 * soft(distance - 0.022, 0.04), np.asarray(identity.skin) * 0.62, "eye"
    )
    bust.paint(where, alpha * opening, sclera, "eye")
    iris = np.hypot((oy - gaze[0]) / 0.056, (ot - gaze[1]) / 0.115) / (identity.eye_size * scale)
    bust.paint(where, alpha * opening * soft(iris - 1, 0.15), identity.iris)
    bust.paint(where, alpha * opening * soft(iris - 0.45, 0.15), (0.01, 0.01, 0.01))
    glint = np.hypot((oy - gaze[0] + 0.020) / 0.014, (ot - gaze[1] - 0.030) / 0.028) / scale
    bust.paint(where, alpha * opening * soft(glint - 1, 0.5), (1.0, 1.0, 1.0))
    lid = soft(np.abs(-oy - upper) - 0.009, 0.012) * (np.abs(ot) < half_t)
    bust.paint(where, alpha * 0.8 * lid, np.asarray(identity.skin) * 0.12)
    bust.landmarks["left eye" if side > 0 else "right eye"] = (y, theta)


def add_brow(bust: Bust, side: float, *, dy: float = 0.0, tilt: float = 0.0) -> None:
    """Paints an eyebrow; `dy` shifts it (units), `tilt` leans it (units per radian)."""
    identity = bust.identity
    where, oy, ot = bust.window(BROW_Y + dy, side * 0.42, 0.16, 0.32)
    arch = -0.035 * (1 - (ot / 0.26) ** 2) + (tilt - 0.05) * ot * side * -1
    thickness = 0.021 * identity.brow * (1 - 0.5 * np.clip(ot * side / 0.26, -0.3, 1))
    stroke = soft(np.abs(oy - arch) - thickness, 0.016) * soft(np.abs(ot) - 0.25, 0.05)
    bust.paint(where, 0.85 * stroke, np.asarray(identity.hair) * 0.7, "brow")


def add_mouth(
    bust: Bust,
    *,
    tilt: float = 0.0,
    dy: float = 0.0,
    scale: float = 1.0,
    opened: float = 0.0,
    wave: float = 0.0,
    alpha: float = 1.0,
) -> None:
    """Paints the mouth.

    Args:
        bust: Edited in place.
        tilt: Lean of the mouth line, units per radian.
        dy: Shift down, units.
        scale: Width against the identity's own mouth.
        opened: Half opening of the lips, units.
        wave: Amplitude of a ripple of the mouth line, units.
        alpha: 1 for a full mouth, 0 for bare skin.
    """
    identity = bust.identity
    half = 0.33 * identity.mouth_width * scale
    where, oy, ot = bust.window(MOUTH_Y + dy, 0.0, 0.24 + opened, half * 1.2)
    u = np.clip(np.abs(ot) / half, 0, 1)
    line = 0.035 * identity.smile * (0.3 - u**2) + tilt * ot + wave * np.sin(ot / half * 9.0)
    upper = 0.036 * identity.lip * (1 - u**2) * (1 + 0.25 * np.cos(ot / half * 6)) + opened * (
        1 - u**2
    )
    lower = 0.046 * identity.lip * (1 - u**2) + opened * (1 - u**2)
    offset = oy - line
    lips = soft(np.maximum(-offset - upper, offset - lower), 0.014) * (u < 1)
    bust.paint(where, alpha * 0.9 * lips, identity.lips, "mouth")
    gap = np.maximum(0.006, opened * (1 - u**2))
    bust.paint(
        where,
        alpha * 0.9 * soft(np.abs(offset) - gap, 0.010) * (u < 0.97),
        np.asarray(identity.lips) * 0.12,
        "mouth",
    )
    if opened > 0.01:
        teeth = soft(
            np.abs(offset + 0.45 * opened * (1 - u**2)) - 0.4 * opened * (1 - u**2), 0.01
        ) * (u < 0.75)
        bust.paint(where, alpha * 0.9 * teeth, (0.80, 0.78, 0.72))
    bust.shine_YA[where] = np.maximum(bust.shine_YA[where], 0.6 * lips)
    bust.landmarks["mouth"] = (MOUTH_Y + dy, 0.0)


def hairline(identity: Identity, theta_A: np.ndarray) -> np.ndarray:
    """Height of the lower edge of the hair at every angle, units."""
    away = np.abs(theta_A - 0.12 * identity.parting)
    front = identity.hairline + 0.05 * np.cos(3 * (theta_A - identity.parting))
    if identity.long_hair:
        edge = np.where(away < 1.02, front, identity.hair_length)
    else:
        edge = np.where(away < 0.95, front, np.where(away < 1.75, -0.18, 0.25))
    kernel = np.hanning(max(3, len(theta_A) // 28 | 1))
    padded = np.concatenate([edge[-len(kernel) :], edge, edge[: len(kernel)]])
    return np.convolve(padded, kernel / kernel.sum(), mode="same")[
        len(kernel) : -len(kernel)
    ].astype(np.float32)


def _add_hair(bust: Bust, rng: np.random.Generator) -> None:
    identity, shape = bust.identity, bust.radius_YA.shape
    strands = smooth_noise(rng, shape, (shape[0] / 9, shape[1] / 420))
    locks = smooth_noise(rng, shape, (shape[0] / 5, shape[1] / 60))
    edge_A = hairline(identity, bust.theta_A) + 0.03 * locks[shape[0] // 3]
    covered = soft(bust.y_Y[:, None] - edge_A[None, :], 0.05)
    volume = identity.hair_volume * (1 + 0.25 * locks)
    # Long hair hangs down outside the neck and in front of the shoulders.
    hanging = (0.50 * identity.width + 0.6 * identity.hair_volume) * np.clip(
        (bust.y_Y[:, None] + 0.6) / 0.6, 0, 1
    )
    radius = np.maximum(bust.radius_YA + volume, hanging) - bust.radius_YA
    # The hair's thickness grows over a quarter radian, so that its side is a surface (of hair) and
    # not a gap.
    spread = uniform_filter1d(covered, shape[1] // 25, axis=1, mode="wrap")
    bust.radius_YA += spread * radius * (bust.radius_YA > 0)
    covered = np.maximum(covered, np.clip(4 * spread - 0.6, 0, 1) * (np.abs(bust.theta_A) > 0.8))
    shade = 1 + np.float32(0.30) * strands + np.float32(0.10) * locks
    bust.colour_YA3 += covered[..., None] * (
        np.asarray(identity.hair, np.float32) * shade[..., None].clip(0.3, 1.9) - bust.colour_YA3
    )
    bust.part_YA[covered > 0.5] = PART["hair"]
    bust.shine_YA[covered > 0.5] = 0.4


def _paint_cloth(bust: Bust, rng: np.random.Generator) -> None:
    identity = bust.identity
    rows = slice(int(np.searchsorted(bust.y_Y, identity.neckline - 0.10)), None)
    y, theta = bust.y_Y[rows, None], bust.theta_A[None, :]
    neckline = identity.neckline + 0.06 * np.cos(theta)
    covered = soft(neckline - y, 0.02)
    shape = covered.shape
    pattern = (
        np.zeros(shape, np.float32),
        np.sin(y * 60) + 0 * theta,
        np.sin(theta * 16) + 0 * y,
        np.sin(y * 45) * np.sin(theta * 14),
    )[identity.cloth_pattern]
    cloth, trim = np.asarray(identity.cloth, np.float32), np.asarray(identity.trim, np.float32)
    weave = 1 + 0.06 * smooth_noise(rng, shape, (bust.y_Y.size / 150, shape[1] / 300))
    colour = (cloth + (pattern > 0.3)[..., None] * (trim - cloth) * np.float32(0.7)) * weave[
        ..., None
    ]
    collar = soft(np.abs(y - neckline - 0.02) - 0.02, 0.01)
    colour += collar[..., None] * (trim - colour)
    bust.colour_YA3[rows] += covered[..., None] * (colour - bust.colour_YA3[rows])
    bust.radius_YA[rows] += 0.02 * covered
    bust.part_YA[rows][covered > 0.5] = PART["cloth"]
    bust.shine_YA[rows][covered > 0.5] = 0.05


def add_glasses(
    bust: Bust,
    *,
    dy: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    colour=None,
) -> None:
    """Adds glasses: two rims, a bridge and temples; `dy` and `scale` are those of the right and the
    left rim.
    """
    colour = (0.02, 0.02, 0.03) if colour is None else colour
    for index, side in enumerate((-1.0, 1.0)):
        where, oy, ot = bust.window(EYE_Y + dy[index] + 0.01, side * 0.41, 0.26, 0.48)
        distance = (np.abs(oy / 0.118) ** 3 + np.abs(ot / 0.30) ** 3) ** (1 / 3) / max(
            scale[index], 1e-3
        )
        rim = soft(np.abs(distance - 1) - 0.07, 0.08)
        bust.paint(where, rim, colour, "accessory")
        bust.paint(where, 0.12 * soft(distance - 0.95, 0.1), (0.55, 0.65, 0.75))
        bust.radius_YA[where] += 0.015 * rim
        temple, oy, ot = bust.window(EYE_Y - 0.03 + dy[index], side * 1.1, 0.04, 0.42)
        bust.paint(temple, soft(np.abs(oy) - 0.012, 0.012) + 0 * ot, colour, "accessory")
    where, oy, ot = bust.window(EYE_Y - 0.02 + min(dy), 0.0, 0.05, 0.14)
    bust.paint(where, soft(np.abs(oy) - 0.012, 0.012) + 0 * ot, colour, "accessory")


def add_earring(bust: Bust, side: float, *, scale: float = 1.0) -> None:
    """Hangs a ball under an ear; `scale` is its size against an ordinary one."""
    where, oy, ot = bust.window(EAR_Y + 0.19, side * (EAR_ANGLE - 0.05), 0.08 * scale, 0.2 * scale)
    ball = soft(np.hypot(oy / (0.04 * scale), ot / (0.08 * scale)) - 1, 0.2)
    bust.paint(where, ball, bust.identity.trim, "accessory")
    target = np.maximum(bust.radius_YA[where], 0.46 * bust.identity.width)
    bust.radius_YA[where] += ball * (target + 0.03 - bust.radius_YA[where])
    bust.shine_YA[where] = np.maximum(bust.shine_YA[where], ball)


def _add_hat(bust: Bust) -> None:
    edge = bust.identity.hairline + 0.06 + 0.02 * np.cos(bust.theta_A)
    covered = soft(bust.y_Y[:, None] - edge[None, :], 0.03)
    band = soft(np.abs(bust.y_Y[:, None] - edge[None, :] + 0.05) - 0.03, 0.01)
    cells = bust.colour_YA3
    cells += covered[..., None] * (np.asarray(bust.identity.cloth, np.float32) - cells)
    cells += band[..., None] * (np.asarray(bust.identity.trim, np.float32) - cells)
    bust.radius_YA += (0.03 * covered + 0.02 * band) * (bust.radius_YA > 0)
    bust.part_YA[covered > 0.5] = PART["accessory"]
    bust.shine_YA[covered > 0.5] = 0.05
