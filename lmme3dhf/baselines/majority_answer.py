"""The most frequent answer of the training clips, for every clip."""

from collections import Counter

from lmme3dhf.baselines.setting import Setting
from lmme3dhf.metrics import vqa
from lmme3dhf.reports.evaluation import Method


def majority_answer(setting: Setting) -> Method | None:
    """None without training answers."""
    train = list(setting.train.distortions.values())
    if not train:
        return None
    counts = Counter(category for named in train for category in named)
    # The more frequent first: for the accuracy that looks at the first alone.
    answer = tuple(sorted(vqa.majority_answer(train), key=lambda name: (-counts[name], name)))
    return setting.method(
        "most frequent training answer",
        f"always: {', '.join(answer)}",
        answers=dict.fromkeys(setting.media, answer),
    )
