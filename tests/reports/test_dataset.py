"""The page that describes a data set, and its pictures: every figure in its place, undefined ones
named so, and drawings that show what they were given.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lmme3dhf.aspects import Scale
from lmme3dhf.reports.dataset import dataset_page
from lmme3dhf.reports.plots import (
    category_heat_map,
    distortion_bars,
    generator_bars,
    marked_strips,
    marks_scatter,
    mos_distributions,
    overlay,
    partition_curves,
    split_half_histograms,
    subject_bars,
)
from lmme3dhf.vocabulary import DISTORTIONS

BLUE, ORANGE, GREEN = (0, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)


@pytest.fixture(autouse=True)
def nothing_left_open():
    """Every figure is closed after it was written."""
    yield
    assert plt.get_fignums() == []


def read(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def close_to(picture: np.ndarray, colour: tuple[int, int, int], within: int = 40) -> np.ndarray:
    return np.abs(picture - np.array(colour)).sum(axis=2) < within


def figures() -> dict:
    """The least that a page can be about."""
    sections = ("parts", "lists", "scores", "levels", "generators", "distortions", "marks")
    return {
        "name": "made",
        "videos": 3,
        "sources": {"strips": "image/"},
        "coverage": {"strip": {"n": 3, "missing": 0, "first": []}},
        **dict.fromkeys((*sections, "strips", "raters", "markers")),
        "left_out": {"Opinion scores": "`MOS.json`"},
        "files": {"videos.csv": "everything"},
    }


def test_a_page_without_sections_says_what_it_needs():
    """Catches a section that is there without its figures, and a list of needs that is not."""
    page = dataset_page(figures())
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Data set made",
        "## Files",
    ]
    assert "| Opinion scores | `MOS.json` |" in page
    assert "strips from `image/`" in page
    assert "| strip | 3 | 0 |" in page
    assert "\n\n\n" not in page
    assert "Not described" not in dataset_page({**figures(), "left_out": {}})


def test_undefined_figures_are_called_so():
    """NaN and None are no 0. Catches a rater's agreement that looks like a number, a hatched name
    without its reason, and a cell that breaks its table.
    """
    half = {"mean": math.nan, "low": None, "high": 0.5, "spearman_brown": 0.25, "srcc": [0.5] * 200}
    report = {"subject": "a|b", "rejected": "far off"}
    one = {
        "subjects": 2,
        "videos": 4,
        "ratings": 7,
        "missing": 1,
        "split_half": half,
        "icc": {"single": 0.125, "average": 0.375},
        "mean_between": 0.625,
        "reports": [report, {"subject": "c", "rejected": None}],
        "largest_gap_to_mos": math.nan,
    }
    page = dataset_page({**figures(), "raters": {"quality": one}})
    row = (
        "| quality | 2 | 4 | 7 | 1 | undefined | undefined to 0.500 | 0.250 | 0.125 | 0.375 | 0.625"
    )
    assert row in page
    assert "Quality: 1 of 2 rejected: a\\|b (far off)." in page
    assert " nan" not in page
    assert "differ from" not in page


def test_distributions_show_both_dimensions(tmp_path):
    """Bars of half transparent blue on the left and orange on the right, the taller bin twice the
    other, on one scale. Catches an empty panel, counts of one dimension under the other's name, and
    bars of the second that are cut off at the height of the first.
    """
    bins = [
        {"low": 40.0, "high": 42.0, "quality": 10, "authenticity": 40},
        {"low": 42.0, "high": 44.0, "quality": 20, "authenticity": 20},
    ]
    curve = [{"score": s, "quality": math.nan, "authenticity": 0.1} for s in (39.0, 45.0)]
    mos_distributions(tmp_path / "mos.png", bins, curve, Scale())
    picture = read(tmp_path / "mos.png")
    assert picture.shape == (494, 1170, 3)
    left, right = picture[:, :585], picture[:, 585:]
    tallest = []
    for half, colour, rises in ((left, BLUE, True), (right, ORANGE, False)):
        washed = tuple(round(255 - 0.55 * (255 - value)) for value in colour)
        heights = close_to(half, washed).sum(axis=0)
        bars = heights[heights > 50]
        assert max(bars) > 1.7 * min(bars)
        assert (bars[: len(bars) // 3].mean() < bars[-len(bars) // 3 :].mean()) == rises
        tallest.append(max(bars))
    assert tallest[1] == pytest.approx(2 * tallest[0], rel=0.03)


def test_generator_bars_have_the_height_of_the_mean(tmp_path):
    """Quality twice authenticity; an interval that is not defined is not drawn. Catches swapped
    dimensions, and a NaN that breaks the picture.
    """
    row = {
        "quality": {"mean": 60.0, "low": 55.0, "high": 65.0},
        "authenticity": {"mean": 30.0, "low": math.nan, "high": math.nan},
    }
    generator_bars(tmp_path / "bars.png", [{"generator": g, **row} for g in range(3)], Scale())
    picture = read(tmp_path / "bars.png")[60:]  # below the legend
    blue, orange = (close_to(picture, colour).sum(axis=0).max() for colour in (BLUE, ORANGE))
    assert blue == pytest.approx(2 * orange, rel=0.05)


def test_bars_and_cells_show_counts(tmp_path):
    """Bars of 4 and 2 videos; the cell with the largest share is the brightest. Catches shares
    over all videos in place of the generator's.
    """
    distortion_bars(tmp_path / "bars.png", {"Eye Distortions": 4, "Hair Distortions": 2}, 8)
    widths = close_to(read(tmp_path / "bars.png"), GREEN).sum(axis=1)
    full, half = sorted({int(width) for width in widths if width > 20})[::-1][:2]
    assert half == pytest.approx(full / 2, rel=0.03)
    rows = {"0": (100, {"Eye Distortions": 30, "No Distortion": 0}), "1": (10, {})}
    rows["1"] = (10, {"Eye Distortions": 9, "No Distortion": 0})
    category_heat_map(tmp_path / "cells.png", rows)
    picture = read(tmp_path / "cells.png")
    cells = picture[: int(0.7 * len(picture)), 120 : int(0.45 * picture.shape[1])]
    upper, lower = np.array_split(cells, 2)
    assert lower.mean() > 1.3 * upper.mean()
    assert picture.shape[1] == 1170


def test_curves_are_of_both_dimensions(tmp_path):
    """Catches one line for two."""
    eta2 = {"quality": [0.3, 0.2, 0.25], "authenticity": [0.5, 0.4, 0.45]}
    partition_curves(tmp_path / "curve.png", eta2, 3)
    picture = read(tmp_path / "curve.png")[80:]
    for colour in (BLUE, ORANGE):
        assert close_to(picture, colour).sum() > 500


@pytest.mark.parametrize("with_map", [True, False])
def test_strips_show_dots_and_maps(tmp_path, with_map):
    """Orange dots on the left half alone; without maps the strip takes the whole width. Catches
    dots drawn beside their place, and a row without dots or map.
    """
    strip = np.full((40, 120, 3), 120, np.uint8)
    map_HW = np.ones((40, 120)) if with_map else None
    rows = [
        ("first", "eyes", strip, [(10.0, 20.0), (15.0, 20.0)], map_HW),
        ("second", "", strip, None, None),
    ]
    marked_strips(tmp_path / "strips.png", rows)
    picture = read(tmp_path / "strips.png")
    assert picture.shape[1] == 1430
    y, x = np.nonzero(close_to(picture, ORANGE))
    width = 715 if with_map else 1430
    # At 12.5 of 120 pixels from the left, in the middle of the first of two rows.
    assert np.median(x) / width == pytest.approx(12.5 / 120, abs=0.03)
    assert y.max() < len(picture) / 2
    heated = close_to(picture, tuple(overlay(strip[:1, :1], np.ones((1, 1)))[0, 0].tolist()))
    assert heated[: len(picture) // 2, 750:].any() == with_map


def test_long_captions_make_room(tmp_path):
    """Eight categories take lines of their own above the strip. Catches a caption that is cut off
    at the edge of the picture.
    """
    strip = np.full((40, 120, 3), 120, np.uint8)
    heights = []
    for name in ("Eye Distortions", "; ".join(DISTORTIONS)):
        marked_strips(tmp_path / "strips.png", [("first", name, strip, None, np.ones((40, 120)))])
        picture = read(tmp_path / "strips.png")
        heights.append(len(picture))
        # Above the strip there is text on the left half and none at its end.
        assert (picture[:10, 690:715] == 255).all()
    assert heights[1] > heights[0] + 30


def test_marks_are_scattered_by_dimension(tmp_path):
    """A measure that is the same for all videos, and one with many ties. Catches a line through
    groups that are empty.
    """
    same, tied, scores = [2.0] * 30, [0.0] * 25 + [1.0] * 5, list(range(30))
    panels = [
        (name, {d: (values, scores, "SRCC") for d in ("quality", "authenticity")})
        for name, values in (("same", same), ("tied", tied))
    ]
    scales = dict.fromkeys(panels[0][1], Scale())
    marks_scatter(tmp_path / "marks.png", panels, scales)
    picture = read(tmp_path / "marks.png")
    upper, lower = np.array_split(picture, 2)
    for half, own, other in ((upper, BLUE, ORANGE), (lower, ORANGE, BLUE)):
        washed, foreign = (
            tuple(round(255 - 0.45 * (255 - value)) for value in colour) for colour in (own, other)
        )
        assert close_to(half, washed).sum() > 100
        assert close_to(half, foreign).sum() == 0


def test_raters_have_a_panel_for_each_dimension(tmp_path):
    """A rejected rater is pale, one without a figure has no bar. Catches a NaN that breaks the
    axis.
    """
    rows = {"quality": [("a", 0.9, False), ("b", -0.1, True), ("c", math.nan, True)]}
    subject_bars(tmp_path / "one.png", rows)
    subject_bars(tmp_path / "two.png", {**rows, "authenticity": [("a", 0.5, False)]})
    one, two = read(tmp_path / "one.png"), read(tmp_path / "two.png")
    assert len(two) > 1.5 * len(one)
    assert close_to(one, BLUE).sum() > 5000
    assert close_to(one, ORANGE).sum() == 0
    assert close_to(two, ORANGE).sum() > 5000


def test_halves_are_counted_in_the_same_bins(tmp_path):
    """Three values close together are one bar, as high as three alike: bins are those of both
    panels. Catches bins of each panel's own, which make a narrow spread look wide, and a half
    that scores all videos alike.
    """
    halves = {"quality": [0.9, 0.901, 0.902], "authenticity": [0.8, 0.8, 0.8, math.nan]}
    means = {"quality": 0.901, "authenticity": math.nan}
    split_half_histograms(tmp_path / "halves.png", halves, means)
    picture = read(tmp_path / "halves.png")
    assert picture.shape == (416, 1170, 3)
    heights = []
    for half, colour in ((picture[:, :585], BLUE), (picture[:, 585:], ORANGE)):
        washed = tuple(round(255 - 0.6 * (255 - value)) for value in colour)
        heights.append(close_to(half, washed).sum(axis=0).max())
    assert heights[0] == pytest.approx(heights[1], abs=2)
