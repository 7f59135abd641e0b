"""The report's pictures: written whole, at the right size, and showing what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lmme3dhf.reports.plots import (
    loss_curves,
    overlay,
    recall_bars,
    saliency_overlays,
    score_scatter,
)

BLUE, ORANGE, GREEN = (0, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)


def read(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def close_to(picture: np.ndarray, colour: tuple[int, int, int], within: int = 60) -> np.ndarray:
    return np.abs(picture - np.array(colour)).sum(axis=2) < within


@pytest.fixture(autouse=True)
def nothing_left_open():
    """Every figure is closed after it was written: a long job must not collect them."""
    yield
    assert plt.get_fignums() == []


def scatter(path, shift: float = 0.0) -> np.ndarray:
    scores = {"quality": [20.0, 40.0, 60.0], "authenticity": [30.0, 50.0 + shift, 70.0]}
    mos = {"quality": [25.0, 35.0, 65.0], "authenticity": [35.0, 45.0, 75.0]}
    score_scatter(path, scores, mos, {"quality": "SRCC 1.000", "authenticity": "SRCC 0.900"})
    return read(path)


def test_the_scatter_shows_both_dimensions(tmp_path):
    """9 x 4.4 inches at 130 dots. Catches an empty panel, and both dimensions in one."""
    picture = scatter(tmp_path / "folder" / "scatter.png")
    assert picture.shape == (572, 1170, 3)
    # Half transparent points on white.
    left, right = picture[:, :585], picture[:, 585:]
    for half, own, other in ((left, BLUE, ORANGE), (right, ORANGE, BLUE)):
        washed = tuple(int(255 - 0.7 * (255 - value)) for value in own)
        assert close_to(half, washed).sum() > 50
        assert close_to(half, other).sum() == 0
    moved = scatter(tmp_path / "moved.png", shift=10.0)
    assert np.array_equal(left, moved[:, :585])
    assert not np.array_equal(right, moved[:, 585:])


@pytest.mark.parametrize("stages", [1, 3])
def test_each_stage_has_its_loss_curve(tmp_path, stages):
    """3.6 x 3.2 inches a stage. Catches a single stage, whose axes are no array, and a curve of
    two steps, shorter than the smoothing.
    """
    steps = {f"stage {i + 1}": [(s, 5.0 / s) for s in range(1, 60)] for i in range(stages)}
    steps["stage 1"] = [(1, 0.5), (2, 0.4)]
    loss_curves(tmp_path / "losses.png", steps)
    picture = read(tmp_path / "losses.png")
    assert picture.shape == (416, 468 * stages, 3)
    for index in range(stages):
        assert close_to(picture[:, 468 * index : 468 * (index + 1)], BLUE).sum() > 50


def test_recall_bars_have_the_length_of_the_recall(tmp_path):
    """A full and a half bar; a category nobody has stays away. Catches bars of other categories,
    and a NaN that breaks the picture.
    """
    recall = {"Eye Distortions": 1.0, "Mouth Distortions": float("nan"), "Hair Distortions": 0.5}
    support = {"Eye Distortions": 4, "Mouth Distortions": 0, "Hair Distortions": 2}
    recall_bars(tmp_path / "recall.png", recall, support)
    picture = read(tmp_path / "recall.png")
    assert picture.shape == (442, 910, 3)
    widths = close_to(picture, GREEN).sum(axis=1)
    full, half = sorted({int(width) for width in widths if width > 20})[::-1][:2]
    assert half == pytest.approx(full / 2, rel=0.03)
    for figures in (recall, support):
        del figures["Mouth Distortions"]
    recall_bars(tmp_path / "without.png", recall, support)
    assert np.array_equal(picture, read(tmp_path / "without.png"))
    # From top to bottom: the full one first.
    assert np.flatnonzero(widths == full).max() < np.flatnonzero(widths == half).min()


@pytest.mark.parametrize("count", [1, 2])
def test_overlays_stand_in_rows_of_three(tmp_path, count):
    """12 x 1.3 inches a row and a title. Catches a single row, whose axes have one dimension, and
    the two maps swapped: the marked map is empty here, the predicted one is not.
    """
    rng = np.random.default_rng(0)
    strip = rng.integers(0, 255, (32, 96, 3), dtype=np.uint8)
    empty, full = np.zeros((32, 96)), np.ones((32, 96))
    saliency_overlays(
        tmp_path / "saliency.png", [(f"clip {i}", strip, empty, full) for i in range(count)]
    )
    picture = read(tmp_path / "saliency.png")
    assert picture.shape == (int(130 * (1.3 * count + 0.3)), 1560, 3)
    colourfulness = picture.max(axis=2) - picture.min(axis=2)
    reddish = (picture[..., 0] - picture[..., 2] > 60) & (picture[..., 1] < 150)
    thirds = np.array_split(np.arange(1560), 3)
    assert colourfulness[:, thirds[0]].mean() > 5
    assert reddish[:, thirds[2]].mean() > 4 * reddish[:, thirds[1]].mean()


def test_overlays_are_grey_where_the_map_is_zero():
    """By hand: three quarters of the mean of the channels. Catches a colour map whose zero is
    yellow, which would tint a clean face.
    """
    picture = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    shown = overlay(picture, np.zeros((6, 8)))
    assert shown.dtype == np.uint8
    assert shown.shape == (6, 8, 3)
    assert (shown == shown[..., :1]).all()
    assert shown[..., 0] == pytest.approx(0.75 * picture.mean(axis=2), abs=1)


def test_overlays_go_from_yellow_to_red():
    """Catches an inverted colour map, and a map that is stretched to its own peak."""
    picture = np.full((1, 4, 3), 128, np.uint8)
    shown = overlay(picture, np.array([[0.0, 0.2, 0.6, 1.0]])).astype(int)
    red, green, blue = shown[0].T
    warmth = red - blue
    assert warmth[0] == 0
    assert warmth[1] > 10
    assert (red[1:] > blue[1:]).all()
    # Less and less green: yellow, orange, red.
    assert green[1] > green[2] > green[3]
    alone = overlay(picture, np.array([[0.0, 0.2, 0.2, 0.2]]))
    assert np.array_equal(alone[0, 1], shown[0, 1])
