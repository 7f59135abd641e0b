"""A small finished run that several files start from: 80 clips, a few steps a stage."""

from pathlib import Path

import pytest

from lmme3dhf.cli import main

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "configs" / "demo.yaml"
SHORT = [
    *("--config", str(DEMO), "--synthetic.latents", "8", "--data.workers", "0", "--threads", "1"),
    *("--text.trainer.num_train_epochs", "1", "--score.trainer.num_train_epochs", "1"),
    *("--saliency.trainer.num_train_epochs", "2"),
]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A finished chain; tests add to it and change nothing of it."""
    out = tmp_path_factory.mktemp("run") / "run"
    assert main(["demo", "--out", str(out), *SHORT]) == 0
    return out
