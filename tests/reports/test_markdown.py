"""The demo's page: every figure in its place, undefined ones named so."""

import math
import re

import pytest
from jinja2 import UndefinedError

from lmme3dhf.reports.markdown import demo_report

PICTURES = {name: f"report/{name}.png" for name in ("scatter", "recall", "losses", "saliency")}


def summary() -> dict:
    """Figures that are all different, so that none can stand in for another."""
    return {
        "quality": {"srcc": 0.111, "plcc": 0.112, "krcc": 0.113, "n": 200, "ceiling": 0.114},
        "authenticity": {"srcc": 0.121, "plcc": 0.122, "krcc": 0.123, "n": 200, "ceiling": 0.124},
        "level": {"quality": 0.1, "authenticity": 0.2, "accuracy": 0.131, "majority": 0.132},
        "distortion": {"accuracy": 0.141, "majority": 0.142, "recall": {}, "support": {}},
        "saliency": {
            "cc": 0.151,
            "mean_map_cc": 0.152,
            "auc": 0.153,
            "mean_map_auc": 0.154,
            "sim": 0.155,
            "kld": 1.156,
            "nss": 2.157,
            "n": 161,
            "skipped": 39,
        },
        "test": {"videos": 200, "latents": 20, "train_videos": 750},
        "seconds": 321.6,
        "peak_rss_mb": 2345.4,
    }


def test_every_figure_is_on_the_page():
    """Catches a figure that is left out or printed twice under another name."""
    page = demo_report(summary(), PICTURES, [])
    for value in (
        *("0.111", "0.112", "0.113", "0.114", "0.121", "0.122", "0.123", "0.124", "0.131"),
        *("0.132", "0.141", "0.142", "0.151", "0.152", "0.153", "0.154", "0.155", "1.156", "2.157"),
    ):
        assert page.count(value) == 1, value
    for words in ("750 synthetic videos", "20 faces", "322 s", "2345 MB", "161 test videos"):
        assert words in " ".join(page.split()), words
    assert "39 without any" in " ".join(page.split())
    assert re.findall(r"\]\(([^)]+)\)", page) == [
        PICTURES[name] for name in ("scatter", "recall", "saliency", "losses")
    ]
    assert "{{" not in page
    assert "{%" not in page


def test_videos_that_no_marker_looked_at_are_on_the_page():
    """Catches figures over fewer videos than the page says."""
    found = summary()
    assert "no marker looked" not in demo_report(found, PICTURES, [])
    found["saliency"]["not_looked_at"] = ["seed0003", "seed0207"]
    page = demo_report(found, PICTURES, [])
    assert "no marker looked at them: seed0003, seed0207." in " ".join(page.split())
    assert "\n\n## Scores" in page


def test_figures_stand_beside_what_they_are_compared_with():
    """Row by row. Catches a ceiling or floor beside another figure."""
    page = demo_report(summary(), PICTURES, [])
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    for name, values in {
        "quality: SRCC / PLCC / KRCC": ("0.111", "0.112", "0.113", "0.114"),
        "authenticity: SRCC / PLCC / KRCC": ("0.121", "0.122", "0.123", "0.124"),
        "level accuracy": ("0.131", "0.132"),
        "distortion accuracy (mean Jaccard)": ("0.141", "0.142"),
        "saliency CC": ("0.151", "0.152"),
        "saliency AUC": ("0.153", "0.154"),
    }.items():
        assert re.findall(r"\d\.\d{3}", rows[name]) == list(values), name


def test_tables_are_well_formed():
    """Equally many cells in every row of a table, a blank line before and after. Catches a page
    that renders as running text.
    """
    clips = [
        {
            "file": f"{i}.mp4",
            "quality": "51.200",
            "authenticity": "49.100",
            "distortions": "Eye Distortions",
            "reason": "",
        }
        for i in range(3)
    ]
    lines = demo_report(summary(), PICTURES, clips).splitlines()
    tables, inside = 0, False
    for before, line in zip(["", *lines], [*lines, ""], strict=True):
        if line.startswith("|"):
            if not inside:
                assert before == ""
                cells, tables = line.count("|"), tables + 1
            assert line.count("|") == cells
            assert line.endswith("|")
        inside = line.startswith("|")
    assert tables == 2


def test_undefined_figures_are_called_undefined():
    """A constant model has no correlation. Catches "nan" on the page, and a zero in its place."""
    figures = summary()
    figures["quality"] |= {"srcc": math.nan, "plcc": None}
    page = demo_report(figures, PICTURES, [])
    row = next(line for line in page.splitlines() if line.startswith("| quality"))
    assert row.count("undefined") == 2
    assert "nan" not in page
    assert "None" not in page


def test_a_missing_figure_is_no_blank():
    """Catches a page with gaps where the summary lost a key."""
    figures = summary()
    del figures["saliency"]["nss"]
    with pytest.raises(UndefinedError, match="nss"):
        demo_report(figures, PICTURES, [])


def test_scored_clips_are_listed_with_their_reason():
    """Catches rows that are lost, and a heading without any clip."""
    clips = [
        {
            "file": "real.mp4",
            "quality": "51.234",
            "authenticity": "48.765",
            "distortions": "Eye Distortions; Hair Distortions",
            "reason": "",
        },
        {
            "file": "broken.mp4",
            "quality": "",
            "authenticity": "",
            "distortions": "",
            "reason": "truncated",
        },
    ]
    page = demo_report(summary(), PICTURES, clips)
    assert "## Scored clips" in page
    real = "| real.mp4 | 51.234 | 48.765 | Eye Distortions; Hair Distortions |  |"
    assert real in page.splitlines()
    assert "| broken.mp4 |  |  |  | truncated |" in page.splitlines()
    assert "## Scored clips" not in demo_report(summary(), PICTURES, [])
