"""What departs from the paper is said alike wherever it is said."""

import re
from pathlib import Path

from lmme3dhf.departures import DEPARTURES, GAPS

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (D\d+) \| (.*) \| (.*) \| (.*) \|$", re.MULTILINE)


def test_the_readme_says_the_same_departures():
    """Word by word. Catches one that is added or changed in one of the two places only."""
    said = ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(said) > 5
    assert said == [(d.number, d.there, d.here, d.why) for d in DEPARTURES]


def test_departures_are_numbered_and_a_line_of_code_names_only_known_ones():
    """Catches a number twice, and a comment about a departure that no table explains."""
    numbers = [departure.number for departure in DEPARTURES]
    assert numbers == [f"D{at}" for at in range(1, len(numbers) + 1)]
    named = set()
    for path in sorted((ROOT / "lmme3dhf").rglob("*.py")):
        named |= set(re.findall(r"Departure (D\d+)", path.read_text(encoding="utf-8")))
    assert len(named) > 3
    assert named <= set(numbers)


def test_every_gap_says_why_and_what_is_done_instead():
    """Catches an empty cell, and texts that would end in two full stops on the page."""
    assert GAPS
    for gap in GAPS:
        for text in (gap.what, gap.why, gap.instead):
            assert len(text) > 10
            assert not text.endswith(".")
