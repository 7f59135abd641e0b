"""The demo's own clips, from their table to the page."""

from lmme3dhf.pipeline.demo import _clip_rows
from lmme3dhf.scores import ScoreRow
from tests.test_scores import good, written


def test_clips_of_the_demo_are_listed_whatever_they_are_called(tmp_path):
    """Catches a name that is changed before the page escapes it, and cells that read None."""
    out = tmp_path / "clips.csv"
    assert _clip_rows(out) == []
    broken = ScoreRow(file="b/b.mp4", status="failed", reason="empty", model=good("a").model)
    written(out, good("b/a|\n1.mp4"), broken)
    assert _clip_rows(out) == [
        {
            "file": "a|\n1.mp4",
            "quality": "0.000",
            "authenticity": "100.000",
            "distortions": "Eye Distortions; Mouth Distortions",
            "reason": "",
        },
        {"file": "b.mp4", "quality": "", "authenticity": "", "distortions": "", "reason": "empty"},
    ]
