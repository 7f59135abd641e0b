"""The golden values: what a change that is not meant to change a number must keep.

`python scripts/golden.py` compares them outside the tests, and with `--renew` writes them anew.
"""

import json
import shutil
from pathlib import Path

import golden
import pytest

from tests.conftest import shared_data
from tests.pipeline.conftest import SHORT


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """The finished run without what other tests add to it, which tables would show."""
    out = tmp_path_factory.mktemp("golden") / "run"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("ablations", "folds*"))
    return out


def test_the_small_run_keeps_its_values(run):
    """Losses, labels, frames, records, tables and figures of a run, against those stored before
    the package was rebuilt. Catches any number that moves without being meant to.
    """
    assert golden.RUN == SHORT  # or the values would be those of another run
    assert golden.compare("run.json", golden.run_values(run)) == []


def test_the_real_files_keep_their_values(run):
    """Frames, views and scores of real and odd files. Catches another frame, another refusal and
    another score.
    """
    shared_data("clips")
    assert golden.compare("media.json", golden.media_values(run)) == []


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (("losses", "stage2", 3, "loss"), lambda value: value * 1.03),
        (("records", 5, "score"), lambda value: value + 0.1),
        (("records", 5, "level"), lambda _: "another"),
        (("labels", "MOS.json"), lambda _: "another"),
        (("summary", "quality", "srcc"), lambda _: None),
    ],
)
def test_a_changed_value_is_named(place, change, monkeypatch, tmp_path):
    """Catches a comparison that passes whatever is found."""
    shutil.copy(golden.GOLDEN / "run.json", tmp_path)
    monkeypatch.setattr(golden, "GOLDEN", tmp_path)
    stored = json.loads((tmp_path / "run.json").read_text())
    monkeypatch.setattr(golden, "versions", lambda: stored["versions"])
    found = {key: value for key, value in stored.items() if key != "versions"}
    assert golden.compare("run.json", found) == []
    *way, last = place
    inner = found
    for step in way:
        inner = inner[step]
    inner[last] = change(inner[last])
    (line,) = golden.compare("run.json", found)
    assert "/".join(map(str, place)) in line
