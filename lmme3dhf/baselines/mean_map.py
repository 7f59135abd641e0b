"""The mean of the training maps."""

import numpy as np

from lmme3dhf.annotations.fixations import read_saliency
from lmme3dhf.baselines.setting import Setting
from lmme3dhf.progress import with_progress
from lmme3dhf.reports.evaluation import Method

NAME = "mean training map"


def mean_map(setting: Setting) -> Method | None:
    """The mean of the training maps of the size that is asked for, clean videos' zero maps
    included, all zero where none has the size; None without training maps.
    """
    videos = [
        video
        for video in setting.train.videos
        if any((setting.maps / f"{video}{suffix}").is_file() for suffix in (".npz", ".png"))
    ]
    if not videos:
        return None
    sums: dict[tuple[int, int], np.ndarray] = {}
    count: dict[tuple[int, int], int] = {}
    for video in with_progress(videos, NAME, len(videos)):
        map_HW = read_saliency(setting.maps, video).astype(np.float64)
        sums[map_HW.shape] = sums.get(map_HW.shape, 0) + map_HW
        count[map_HW.shape] = count.get(map_HW.shape, 0) + 1
    means = {shape: total / count[shape] for shape, total in sums.items()}
    note = f"{NAME}: clean videos count as all zero"
    return setting.method(NAME, note, map_of=lambda _, shape: means.get(shape, np.zeros(shape)))
