"""One synthetic clip: the plan that decides everything about it, and its pictures."""

from dataclasses import dataclass

import numpy as np

from lmme3dhf.data.synthetic.bust import Frame, Identity
from lmme3dhf.data.synthetic.distortions import Distortion, distorted_bust, filter_frame
from lmme3dhf.data.synthetic.render import SUPERSAMPLING, Scene, Turntable, View


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Everything that a clip shows; equal plans give equal pictures.

    Attributes:
        identity: Whose face.
        distortions: What is wrong with it.
        frame: Framing of the pictures.
        scene_seed: Decides light and background.
        softness: Blur of the generator, as a fraction of the frame's width.
        grain_seed: Decides the grain of the frames.
    """

    identity: Identity
    distortions: tuple[Distortion, ...]
    frame: Frame
    scene_seed: int
    softness: float
    grain_seed: int


class ClipRenderer:
    """Renders the pictures of one plan at any angle.

    Args:
        plan: What to show.
        size_px: Side of the square pictures, pixels.
    """

    def __init__(self, plan: ClipPlan, size_px: int) -> None:
        self.plan = plan
        bust, self.masks = distorted_bust(
            plan.identity, size_px * SUPERSAMPLING, plan.frame, plan.distortions
        )
        self.turntable = Turntable(
            bust, Scene.draw(np.random.default_rng(plan.scene_seed), size_px)
        )

    def picture(self, yaw_deg: float, frame_index: int) -> tuple[np.ndarray, View]:
        """The picture (H, W, 3) uint8 sRGB at a yaw, and the view behind it (for masks);
        `frame_index` decides the grain.
        """
        view = self.turntable.view(yaw_deg)
        rng = np.random.default_rng((self.plan.grain_seed, frame_index))
        return filter_frame(view.colour_HW3, self.plan.distortions, rng, self.plan.softness), view


def turntable_yaws(frames: int) -> np.ndarray:
    """Yaw of every frame of a clip: a uniform turn from -90 to +90 degrees (Section 3.1), shape
    (frames,).
    """
    return np.linspace(-90.0, 90.0, frames)
