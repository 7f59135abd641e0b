"""The mean training score of the clip's generator; of all clips for an unknown generator."""

import numpy as np

from lmme3dhf.baselines.setting import Setting
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator
from lmme3dhf.data.statistics import by_generator
from lmme3dhf.reports.evaluation import Method

NAME = "mean of the clip's generator"


def generator_mean(setting: Setting) -> Method | None:
    """None without training scores, or where the generators are not known."""
    try:
        scores = {
            aspect: _means(trained, setting.media)
            for aspect, trained in setting.train.mos.items()
            if trained
        }
    except DataError:  # names without a number hold no generator
        return None
    note = f"{NAME}: training mean of its generator"
    return setting.method(NAME, note, scores=scores) if scores else None


def _means(trained: dict[str, float], videos: dict) -> dict[str, float]:
    overall = float(np.mean(list(trained.values())))
    means = {
        group: float(np.mean([trained[video] for video in members]))
        for group, members in by_generator(trained).items()
    }
    return {video: means.get(generator(video), overall) for video in videos}
