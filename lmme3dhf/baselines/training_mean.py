"""The mean of the training scores, for every clip."""

import numpy as np

from lmme3dhf.baselines.setting import Setting
from lmme3dhf.reports.evaluation import Method

NAME = "mean of the training scores"


def training_mean(setting: Setting) -> Method | None:
    """None without training scores."""
    scores = {
        aspect: dict.fromkeys(setting.media, float(np.mean(list(trained.values()))))
        for aspect, trained in setting.train.mos.items()
        if trained
    }
    note = f"{NAME}: constant, so it has no correlations"
    return setting.method(NAME, note, scores=scores) if scores else None
