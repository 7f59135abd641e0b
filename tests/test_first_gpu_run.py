"""`scripts/first_gpu_run.sh` with stand-ins for what it starts; the commands themselves have their
own tests.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What every command of the run becomes: one may fail, training says how it went.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *"train score"*) echo "lmme3dhf train: no luck | at all" >&2; exit "${SCORE_STATUS:-0}" ;;
    *"train text"*)
        echo "stage 1: step 1 of 2, loss 9.0000, 1.0 samples/s, 1.0 GB, 2 s left"
        echo "stage 1: step 2 of 2, loss 1.5000, 2.0 samples/s, 3.0 GB, 0 s left"
        echo "$TORCH_LOGS: Recompiling function forward" ;;
    *) echo "done with $*" ;;
esac
"""
PRESETS = sorted(f"preset_{path.stem}" for path in (ROOT / "configs" / "presets").glob("*.yaml"))
STEPS = ["doctor", "features", "stage1", "merge1", "stage2", "merge2", *PRESETS]
STEPS += ["likelihood", "reply", "bench"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a folder with a blank, whose Python is the stand-in."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "first_gpu_run.sh", folder / "scripts")
    for name in ("scripts/python.sh", "merge_lora.sh"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    return folder


def run(checkout: Path, **variables: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit status, and of each step in the table its result and figure."""
    ended = subprocess.run(
        ["bash", checkout / "scripts" / "first_gpu_run.sh", "a model", "some data"],
        cwd=checkout,
        env=os.environ | {"OUT": "the run"} | variables,
        capture_output=True,
        check=False,
        timeout=60,
    )
    lines = (checkout / "the run" / "table.md").read_text().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == 4 for row in rows)
    assert all(
        (checkout / "the run" / f"{row[0]}.log").is_file() for row in rows if row[1] != "not run"
    )
    return ended.returncode, {row[0]: (row[1], row[3]) for row in rows}


def test_every_step_has_a_row_with_its_figure(checkout):
    """Catches a step that is left out, and a figure from the beginning of a log."""
    status, rows = run(checkout)
    assert status == 0
    assert list(rows) == STEPS
    assert {result for result, _ in rows.values()} == {"passed"}
    assert rows["stage1"][1] == "loss 1.5000, 2.0 samples/s, 3.0 GB"
    assert rows[PRESETS[0]][1] == "loss 1.5000, 2.0 samples/s, 3.0 GB, 1 recompiles"
    assert "a model" in rows["doctor"][1]


def test_a_step_that_fails_does_not_end_the_run(checkout):
    """Catches a run that ends there, and one whose status is good all the same."""
    status, rows = run(checkout, SCORE_STATUS="4")
    assert status == 1
    assert list(rows) == STEPS
    assert [name for name, (result, _) in rows.items() if result == "failed"] == ["stage2"]
    assert rows["stage2"][1] == "status 4: lmme3dhf train: no luck / at all"


def test_what_has_no_time_left_is_not_run(checkout):
    """Catches a run that takes as long as it takes, and steps that go missing from the table."""
    status, rows = run(checkout, MINUTES="0")
    assert status == 1
    assert list(rows) == STEPS
    assert {result for result, _ in rows.values()} == {"not run"}
