"""A map that is the same everywhere."""

import numpy as np

from lmme3dhf.baselines.setting import Setting
from lmme3dhf.reports.evaluation import Method


def uniform_map(setting: Setting) -> Method:
    """One half at every pixel."""
    return setting.method(
        "uniform map", "uniform map: chance", map_of=lambda _, shape: np.full(shape, 0.5)
    )
