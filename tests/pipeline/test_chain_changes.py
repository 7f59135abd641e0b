"""A job that is asked for again with other settings, or whose records are damaged."""

import pytest

from lmme3dhf.config import Config, with_settings
from lmme3dhf.pipeline.chain import open_job
from lmme3dhf.pipeline.job import Job, JobError


def test_a_setting_of_stage_2_keeps_stage_1_and_puts_the_rest_aside(tmp_path):
    """Catches finished work that is refused, mixed or deleted."""
    config = with_settings(Config(), {"synthetic.draw": True})
    open_job(config, tmp_path)
    step = '{"seconds": 1, "peak_rss_mb": 1, "result": null}'
    (tmp_path / "steps.json").write_text(f'{{"stage 1": {step}, "stage 2": {step}}}')
    for name in ("stage1", "stage2", "model"):
        (tmp_path / name).mkdir()
    open_job(with_settings(config, {"score.language_weight": 0.5}), tmp_path)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"stage1", "stage2.old-1", "model.old-1"}
    assert set(Job(tmp_path / "steps.json", {}).done) == {"stage 1"}


def test_damaged_steps_are_a_sentence(tmp_path):
    """Catches a traceback."""
    (tmp_path / "steps.json").write_text("{")
    with pytest.raises(JobError, match=r"steps\.json"):
        Job(tmp_path / "steps.json", {})
