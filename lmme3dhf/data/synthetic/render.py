"""One view of a bust: z-buffer per row, shading, background; and clips as H.264 files."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from lmme3dhf.data.synthetic.bust import Bust, smooth_noise

# Image rows and columns are rendered at this multiple and averaged: edges without stairs.
SUPERSAMPLING = 2


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Light and background of a clip.

    Attributes:
        light: Unit vector towards the light in camera axes (x right, y down, z towards the viewer).
        ambient: Light without direction, 0..1.
        warmth: Colour of the light, linear RGB factors.
        background_HW3: Linear RGB picture behind the head.
    """

    light: np.ndarray
    ambient: float
    warmth: np.ndarray
    background_HW3: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, size_px: int) -> "Scene":
        """Draws light and background."""
        light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.1), 1.0])
        kind = rng.choice(["plain", "white", "dark", "gradient", "bokeh", "texture"])
        colour = rng.uniform(0.02, 0.8, 3)
        picture = np.empty((size_px, size_px, 3), np.float32)
        if kind == "white":
            picture[:] = rng.uniform(0.8, 1.0)
        elif kind == "dark":
            picture[:] = colour * 0.06
        elif kind == "plain":
            picture[:] = colour
        elif kind == "gradient":
            ramp = (
                np.linspace(0, 1, size_px)[:, None, None]
                if rng.random() < 0.5
                else np.linspace(0, 1, size_px)[None, :, None]
            )
            picture[:] = colour + ramp * (rng.uniform(0.02, 0.8, 3) - colour)
        else:
            sigma = size_px / (9 if kind == "bokeh" else 40)
            shape, grain = (size_px, size_px), (sigma, sigma)
            bright = 0.35 * smooth_noise(rng, shape, grain)
            for channel in range(3):
                picture[..., channel] = colour[channel] * (
                    1 + bright + 0.15 * smooth_noise(rng, shape, grain)
                )
        return cls(
            light=light / np.linalg.norm(light),
            ambient=rng.uniform(0.25, 0.5),
            warmth=1 + rng.uniform(-0.08, 0.08, 3),
            background_HW3=picture.clip(0, 1),
        )


@dataclass(frozen=True)
class View:
    """What one camera angle shows.

    Attributes:
        colour_HW3: sRGB in 0..1, float32.
        cell_RC: For every supersampled pixel the index of the visible grid cell (row-major), -1 for
            background.
    """

    colour_HW3: np.ndarray
    cell_RC: np.ndarray

    def gather(self, grid_YA: np.ndarray, background: float = 0.0) -> np.ndarray:
        """Looks a grid up in the picture: (H, W), averaged over the supersamples."""
        flat = grid_YA.reshape(-1).astype(np.float32)
        values = np.where(self.cell_RC >= 0, flat[self.cell_RC], background)
        return _pool(values)


class Turntable:
    """A bust ready to be looked at from any angle; normals are computed once."""

    def __init__(self, bust: Bust, scene: Scene) -> None:
        self.bust, self.scene = bust, scene
        radius = bust.radius_YA
        rows, columns = radius.shape
        d_theta = (np.roll(radius, -1, 1) - np.roll(radius, 1, 1)) / (2 * 2 * np.pi / columns)
        d_y = np.gradient(radius, 2 * bust.frame.half / rows, axis=0)
        # The cross product of the two tangents in the local frame (radial, tangential, vertical).
        r = np.maximum(radius, 1e-3)
        length = np.sqrt(1 + (d_theta / r) ** 2 + d_y**2)
        # Normals of a step of the silhouette (under the chin) are kept from swallowing all light.
        self._radial = (1 / length).astype(np.float32).ravel()
        self._tangential = (-d_theta / r / length).astype(np.float32).ravel()
        self._down = (-d_y / length).clip(-0.8, 0.8).astype(np.float32).ravel()
        self._colour = bust.colour_YA3.reshape(-1, 3)
        self._shine = bust.shine_YA.ravel()

    def view(self, yaw_deg: float) -> View:
        """Renders the bust turned by `yaw_deg` (positive: the subject's face turns towards the
        right edge of the picture).

        Only the half that faces the camera is drawn: what leans over its edge (a shifted nose in
        profile) is cut there.
        """
        bust = self.bust
        rows, columns = bust.radius_YA.shape
        yaw = np.deg2rad(yaw_deg)
        first = int(np.floor((-yaw - np.pi / 2 + np.pi) / (2 * np.pi) * columns))
        visible = np.arange(first, first + columns // 2 + 1) % columns
        angle = bust.theta_A[visible] + yaw
        radius = bust.radius_YA[:, visible]
        x = radius * np.sin(angle)
        depth = radius * np.cos(angle)
        width = rows
        column = (((x - bust.frame.centre_x) / bust.frame.half + 1) * (width / 2)).astype(np.int32)
        inside = (radius > 0) & (column >= 0) & (column < width)
        r, a = np.nonzero(inside)
        key = (depth[r, a] * 1e6).astype(np.int64) * (rows * columns) + (r * columns + visible[a])
        buffer = np.full(rows * width, -1, np.int64)
        np.maximum.at(buffer, r * width + column[r, a], key)
        cell = np.where(buffer >= 0, buffer % (rows * columns), -1).reshape(rows, width)
        self._close_gaps(cell)
        return View(self._shade(cell, yaw), cell)

    @staticmethod
    def _close_gaps(cell: np.ndarray) -> None:
        # Steep slopes leave single empty columns between two filled ones.
        for _ in range(2):
            hole = (cell[:, 1:-1] < 0) & (cell[:, :-2] >= 0) & (cell[:, 2:] >= 0)
            cell[:, 1:-1][hole] = cell[:, :-2][hole]
        hole = (cell[:, 2:-2] < 0) & (cell[:, :-4] >= 0) & (cell[:, 4:] >= 0)
        cell[:, 2:-2][hole] = cell[:, :-4][hole]

    def _shade(self, cell: np.ndarray, yaw: float) -> np.ndarray:
        scene, size = self.scene, cell.shape[0] // SUPERSAMPLING
        seen = cell >= 0
        index = cell[seen]
        angle = self.bust.theta_A[index % self.bust.radius_YA.shape[1]] + yaw
        s, c = np.sin(angle), np.cos(angle)
        radial, tangential, down = self._radial[index], self._tangential[index], self._down[index]
        nx, nz = radial * s + tangential * c, radial * c - tangential * s
        light = scene.light
        diffuse = np.clip(nx * light[0] + down * light[1] + nz * light[2], 0, 1)
        half = (light + np.array([0, 0, 1])) / np.linalg.norm(light + np.array([0, 0, 1]))
        gloss = (
            np.clip(nx * half[0] + down * half[1] + nz * half[2], 0, 1) ** 24 * self._shine[index]
        )
        lit = (scene.ambient + (1.05 - scene.ambient) * diffuse)[:, None] * scene.warmth
        full = np.repeat(np.repeat(scene.background_HW3, SUPERSAMPLING, 0), SUPERSAMPLING, 1)
        full[seen] = self._colour[index] * lit + 0.25 * gloss[:, None]
        return to_srgb(_pool(full)).reshape(size, size, 3)


def _pool(picture: np.ndarray) -> np.ndarray:
    k = SUPERSAMPLING
    return sum(picture[i::k, j::k] for i in range(k) for j in range(k)) / (k * k)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Display values of linear light, both 0..1 (gamma 2.2 in place of the exact sRGB curve)."""
    return np.clip(linear, 0, 1) ** np.float32(1 / 2.2)


def write_clip(path: Path, frames_THW3: list[np.ndarray], fps: int, crf: int = 14) -> None:
    """Writes 8-bit RGB frames as an H.264 mp4 with PyAV.

    Args:
        path: The file; its folder exists.
        frames_THW3: Frames of one even size.
        fps: Frames per second.
        crf: x264's quality; 14 is visually lossless.
    """
    height, width = frames_THW3[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # One thread, and no macroblock tree, which reads uninitialised memory at small sizes: the
        # same frames give the same bytes everywhere.
        stream.options = {
            "crf": str(crf),
            "preset": "veryfast",
            "threads": "1",
            "x264-params": "mbtree=0",
        }
        for frame in frames_THW3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
