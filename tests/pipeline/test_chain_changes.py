"""A job that is asked for again with other settings, or whose records are damaged."""

from pathlib import Path

import pytest

from lmme3dhf.config import Config, with_settings
from lmme3dhf.files import DamagedError
from lmme3dhf.pipeline.chain import open_job
from lmme3dhf.pipeline.job import Job

STEP = '{"seconds": 1, "peak_rss_mb": 1, "result": null}'
WEIGHT = {"score.language_weight": 0.5}


@pytest.fixture
def config(tmp_path):
    """Settings of a job with two finished stages, without their files."""
    config = with_settings(Config(), {"synthetic.draw": True})
    open_job(config, tmp_path)
    (tmp_path / "steps.json").write_text(f'{{"stage 1": {STEP}, "stage 2": {STEP}}}')
    for name in ("stage1", "stage2", "model"):
        (tmp_path / name).mkdir()
    return config


def test_a_setting_of_stage_2_keeps_stage_1_and_puts_the_rest_aside(config, tmp_path):
    """Catches finished work that is refused, mixed or deleted."""
    open_job(with_settings(config, WEIGHT), tmp_path)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"stage1", "stage2.old-1", "model.old-1"}
    assert set(Job(tmp_path / "steps.json", {}).done) == {"stage 1"}


def test_what_a_kill_left_is_put_aside_by_the_next_call(config, tmp_path, monkeypatch):
    """The kill comes after the first folder. Catches a model of the old settings beside a new
    stage 2.
    """
    moves, rename = [], Path.rename

    def killed(path, target):
        moves.append(path.name)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    other = with_settings(config, WEIGHT)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            open_job(other, tmp_path)
    assert (tmp_path / "model").is_dir()
    assert set(Job(tmp_path / "steps.json", {}).done) == {"stage 1"}
    open_job(other, tmp_path)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"stage1", "stage2.old-1", "model.old-1"}


@pytest.mark.parametrize(
    "content", ["{", "", "[1]", '{"stage 1": 3}', '{"stage 1": {}}', '{"stage 1": null}']
)
def test_damaged_steps_are_a_sentence(tmp_path, content):
    """Catches a traceback."""
    (tmp_path / "steps.json").write_text(content)
    with pytest.raises(DamagedError, match=r"steps\.json.*delete it"):
        Job(tmp_path / "steps.json", {})
