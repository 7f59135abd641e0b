"""Planted dots: the study counts what it plants, and the finder keeps the bounds asked of it."""

import csv

import numpy as np
import pytest

from scripts import dots_study
from scripts.dots_study import Dot


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    out = tmp_path_factory.mktemp("dots") / "dots.csv"
    return dots_study.main(["--count", "20", "--out", str(out)]), out


def overall(tables, title):
    rows = tables[0][title]
    assert rows[0]["condition"] == "all"
    return rows[0]


def test_with_the_plain_strip_dots_are_found_and_nothing_else(tables):
    """The bounds were asked for before the finder was written. Catches red lips, hats and edges
    of JPEG blocks taken for dots, and touching dots counted once.
    """
    row = overall(tables, "with the plain strip")
    assert row["strips"] == 20
    assert row["dots"] > 150
    assert row["recall"] >= 0.98
    assert row["false_a_strip"] <= 0.02
    assert row["median_error_px"] < 0.5


def test_the_plain_strip_is_what_tells_dots_from_clothes(tables):
    """Catches a plain strip that is not used."""
    row = overall(tables, "without the plain strip")
    assert row["dots"] == overall(tables, "with the plain strip")["dots"]
    assert 0.8 < row["recall"] < overall(tables, "with the plain strip")["recall"]
    assert row["false_a_strip"] > 0.02


def test_the_table_is_written_and_its_conditions_add_up(tables):
    """Catches dots that are lost or counted twice in a breakdown."""
    rows = [
        row
        for row in csv.DictReader(tables[1].open(encoding="utf-8"))
        if row["plain_strip"] == "with the plain strip"
    ]
    names = {row["condition"].split(":")[0] for row in rows}
    assert names == {
        "all",
        *("faces", "coding", "JPEG", "edges of dots", "radius, px", "clothes"),
        *("dot lies on", "nearest dot"),
    }
    for name in names:
        of_name = [row for row in rows if row["condition"].split(":")[0] == name]
        assert sum(int(row["dots"]) for row in of_name) == int(rows[0]["dots"])


def test_a_detection_counts_for_one_dot_only():
    """By hand, radius 4: the first detection reaches both dots, the second the first one alone, the
    third none. Catches two dots found by one detection, and a greedy match that loses a pair.
    """
    alone = {"place": "elsewhere", "spacing": 9.0, "visible": True}
    dots = (Dot(x=10, y=10, **alone), Dot(x=15, y=10, **alone))
    found = [(12, 10), (8, 10), (40, 40)]
    pairs = dots_study.matches(found, dots, 4.0)
    assert sorted(pairs) == [(0, 1, 3.0), (1, 0, 2.0)]
    assert dots_study.matches([], dots, 4.0) == []


def test_planted_dots_are_where_they_are_said_to_be():
    """Red at the centre, nothing changed at two radii; a dot on pure red cannot be seen. Catches x
    and y swapped, and recall that is helped or spoilt by dots that nobody could see.
    """
    grey = np.full((96, 288, 3), 128, np.uint8)
    painted = dots_study.with_dots(grey, [(30, 20)], 4.0, smooth=False)
    assert painted[20, 30].tolist() == [255, 0, 0]
    y, x = np.argwhere((painted != grey).any(axis=2)).T
    assert (x.mean(), y.mean()) == (30, 20)
    assert np.hypot(x - 30, y - 20).max() == 4
    red = np.full((96, 288, 3), (255, 0, 0), np.uint8)
    strip = dots_study.make_strip(red, "red", (3.0, 5.0), np.random.default_rng(0))
    elsewhere = [dot.visible for dot in strip.dots if dot.place == "elsewhere"]
    assert elsewhere
    assert not any(elsewhere)
