"""Stage 2: the samples that it takes."""

from pathlib import Path

import pytest

from lmme3dhf.config import Config, with_settings
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.stages import run as runs
from lmme3dhf.stages.score import scored_samples


def test_scores_on_another_scale_stop_the_stage(monkeypatch):
    """MOS of 1 to 5 in one dimension, with the factor; the same scores times 20 are taken. Catches
    a head that learns to say 3 of 100 for everything.
    """

    def listed(factor: float) -> list[Sample]:
        about = {"path": Path("a.mp4"), "prompt": "<video>"}
        marks = (1.2, 2.5, 3.0, 4.1, 4.9)
        return [
            Sample(video=f"v{i}", task=task, values={task: mark * scale}, **about)
            for task, scale in (("quality", 20), ("authenticity", factor))
            for i, mark in enumerate(marks)
        ]

    # The rehearsal lists and the clips are no matter here.
    config = with_settings(
        Config(), {"score.language_weight": 0, "score.trainer": {"eval_strategy": "no"}}
    )
    rows = {"factor": 1}
    monkeypatch.setattr(
        runs, "listed_samples", lambda _, names: listed(rows["factor"]) if names else []
    )
    with pytest.raises(DataError, match=r"authenticity scores .* 1\.2 to 4\.9.* multiply .* 20"):
        scored_samples(config)
    rows["factor"] = 20
    assert len(scored_samples(config)[0]) == 10
