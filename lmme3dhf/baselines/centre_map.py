"""A Gaussian in the middle of each view."""

import numpy as np

from lmme3dhf.baselines.setting import Setting
from lmme3dhf.reports.evaluation import Method

NAME = "centre of each view"


def centre_map(setting: Setting) -> Method:
    """A strip is several square views side by side."""
    note = f"{NAME}: a Gaussian, a quarter of the view's side wide"
    return setting.method(NAME, note, map_of=lambda _, shape: gaussians(shape))


def gaussians(shape: tuple[int, int]) -> np.ndarray:
    """A Gaussian in the middle of each square of a strip, or of a picture of another form, with a
    standard deviation of a quarter of its height.
    """
    height, width = shape
    views = max(1, round(width / height))
    y = (np.arange(height) + 0.5) / height - 0.5
    x = np.mod((np.arange(width) + 0.5) * views / width, 1) - 0.5
    x = x * (width / views) / height
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * 0.25**2))
