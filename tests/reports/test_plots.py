"""The report's pictures: written whole, at the right size, and showing what they were given."""

import re
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lmme3dhf.aspects import Scale
from lmme3dhf.reports import plots
from lmme3dhf.reports.plots import (
    category_scores,
    confusion_matrices,
    fold_dots,
    generator_means,
    loss_curves,
    method_maps,
    metric_bars,
    overlay,
    radar,
    recall_bars,
    saliency_overlays,
    score_scatter,
)
from lmme3dhf.reports.plots.generators import drawn_names
from lmme3dhf.reports.plots.style import line, look, picture

NAN = float("nan")
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
    """8.5 x 4.6 inches at 130 dots. Catches an empty panel, and both dimensions in one."""
    picture = scatter(tmp_path / "folder" / "scatter.png")
    assert picture.shape == (598, 1105, 3)
    # Half transparent points on white.
    left, right = picture[:, :552], picture[:, 552:]
    for half, own, other in ((left, BLUE, ORANGE), (right, ORANGE, BLUE)):
        washed = tuple(int(255 - 0.7 * (255 - value)) for value in own)
        assert close_to(half, washed).sum() > 50
        assert close_to(half, other).sum() == 0
    moved = scatter(tmp_path / "moved.png", shift=10.0)
    assert np.array_equal(left, moved[:, :552])
    assert not np.array_equal(right, moved[:, 552:])


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


def test_the_validation_loss_is_drawn_with_the_losses(tmp_path):
    """Catches a curve in the other stage's panel, and one that is drawn without data."""
    steps = {name: [(s, 5.0 / s) for s in range(1, 60)] for name in ("stage 1", "stage 2")}
    loss_curves(tmp_path / "plain.png", steps, validation={"stage 1": [], "stage 2": []})
    loss_curves(tmp_path / "losses.png", steps)
    plain = read(tmp_path / "plain.png")
    assert np.array_equal(plain, read(tmp_path / "losses.png"))
    both = {"stage 1": [], "stage 2": [(20, 1.0), (40, 0.5)]}
    loss_curves(tmp_path / "both.png", steps, validation=both)
    picture = read(tmp_path / "both.png")
    assert close_to(picture[:, :468], GREEN).sum() == 0
    assert close_to(picture[:, 468:], GREEN).sum() > 50
    srcc = {"authenticity": [(20, 0.5), (40, 0.7)]}
    loss_curves(tmp_path / "srcc.png", steps, validation=both, srcc=srcc)
    picture = read(tmp_path / "srcc.png")
    assert picture.shape == (416, 3 * 468, 3)
    assert close_to(picture[:, 936:], ORANGE).sum() > 50
    assert close_to(picture[:, :936], ORANGE).sum() == 0


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
    """Catches a single row, whose axes have one dimension, and the two maps swapped: the marked map
    is empty here, the predicted one is not.
    """
    rng = np.random.default_rng(0)
    strip = rng.integers(0, 255, (32, 96, 3), dtype=np.uint8)
    empty, full = np.zeros((32, 96)), np.ones((32, 96))
    saliency_overlays(
        tmp_path / "saliency.png", [(f"clip {i}", strip, empty, full) for i in range(count)]
    )
    picture = read(tmp_path / "saliency.png")
    assert picture.shape[1] == 1560
    # Above the colour bar.
    above = picture[: int(0.6 * len(picture))]
    colourful = above.max(axis=2) - above.min(axis=2) > 40
    # The strips of the three columns, a little away from where they meet.
    left, middle, right = (colourful[:, x : x + 380] for x in (110, 600, 1090))
    assert left.mean() > 0.1
    assert right.mean() > 0.1
    assert middle.mean() == 0


def test_every_method_has_its_column(tmp_path):
    """A map of ones has the colour of the end of the scale, a missing one says so. Catches a column
    that is dropped, after which all others stand under wrong names.
    """
    strip = np.full((32, 96, 3), 128, np.uint8)
    maps = [np.zeros((32, 96)), None, np.ones((32, 96))]
    method_maps(tmp_path / "maps.png", ["marked", "Method A", "Method B"], [("clip", strip, maps)])
    above = read(tmp_path / "maps.png")[:150]
    bright = close_to(above, tuple(int(v) for v in overlay(strip, np.ones((32, 96)))[0, 0]))
    quarters = np.array_split(bright, 4, axis=1)
    assert [bool(quarter.mean() > 0.1) for quarter in quarters] == [False, False, False, True]
    said = words(tmp_path / "maps.svg")
    assert {"marked", "Method A", "Method B", "no map", "clip"} <= said


def test_overlays_are_grey_where_the_map_is_zero():
    """By hand: half of the mean of the channels. Catches a colour map whose zero has a colour,
    which would tint a clean face.
    """
    picture = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    shown = overlay(picture, np.zeros((6, 8)))
    assert shown.dtype == np.uint8
    assert shown.shape == (6, 8, 3)
    assert (shown == shown[..., :1]).all()
    assert shown[..., 0] == pytest.approx(0.5 * picture.mean(axis=2), abs=1)


def test_overlays_are_brighter_for_higher_values():
    """In a grey print too, over middle grey. Catches an inverted colour map, and a map that is
    stretched to its own peak.
    """
    picture = np.full((1, 11, 3), 128, np.uint8)
    shown = overlay(picture, np.linspace(0, 1, 11)[None]).astype(int)
    brightness = shown[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness) > 2).all()
    alone = overlay(picture, np.full((1, 11), 0.2))
    assert np.array_equal(alone[0, 0], shown[0, 2])


def words(path) -> set[str]:
    """The texts of an SVG whose letters are drawn as paths: they stand there as comments, one a
    line of the text.
    """
    content = path.read_text(encoding="utf-8")
    assert ElementTree.fromstring(content).tag.endswith("svg")
    return {text.strip() for text in re.findall("<!-- (.*?) -->", content, re.DOTALL)}


def test_the_same_call_gives_the_same_bytes(tmp_path):
    """PNG and SVG. Catches dates and random names, by which a remade page differs everywhere."""
    for name in ("one", "two"):
        scatter(tmp_path / f"{name}.png")
    for form in ("png", "svg"):
        one, two = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("one", "two"))
        assert len(one) > 1000
        assert one == two
    assert b"date" not in (tmp_path / "one.svg").read_bytes()


def test_a_drawing_that_fails_leaves_nothing(tmp_path):
    """Neither half a picture nor a style that stays. Catches an empty picture of a broken figure,
    and a style that leaks into a program that draws with matplotlib itself.
    """
    before = dict(matplotlib.rcParams)
    with pytest.raises(ValueError, match="stop"), picture(tmp_path / "p.png", 2, 2, "note"):
        raise ValueError("stop")
    assert dict(matplotlib.rcParams) == before
    assert not list(tmp_path.iterdir())


def test_the_note_stands_in_every_picture(tmp_path):
    """ "synthetic data" must not get lost when a picture leaves its page. Catches a drawing that
    forgets to hand the note on.
    """
    note = "synthetic data, tiny model"
    ends = {"mean": 50.0, "low": 40.0, "high": 60.0}
    strip, empty = np.zeros((8, 24, 3), np.uint8), np.zeros((8, 24))
    both = {"quality": [1.0, 2.0], "authenticity": [1.0, 2.0]}
    calls = {
        score_scatter: (both, both, {"quality": "", "authenticity": ""}),
        loss_curves: ({"stage 1": [(1, 2.0), (2, 1.0)]},),
        generator_means: (
            {"quality": [{"generator": 0, "mos": ends, "predicted": ends}]},
            {"quality": ""},
        ),
        saliency_overlays: ([("a", strip, empty, empty)],),
        method_maps: (["A"], [("a", strip, [empty])]),
        recall_bars: ({"Eye Distortions": 1.0}, {"Eye Distortions": 1}),
        category_scores: ({"F1": {"Eye Distortions": NAN}}, {"Eye Distortions": 1}),
        confusion_matrices: ([("a", ["x"], ["x", "y"], [[1, 2]])],),
        radar: (["a", "b", "c"], {"M": [0.1, NAN, 0.2]}),
        metric_bars: ([("row", True), ("other", False)], {"SRCC": [NAN, -0.5]}),
        fold_dots: (["fold_0", "fold_1"], {"SRCC": [0.5, NAN], "PLCC": [NAN, NAN]}),
        plots.mos_distributions: (
            [{"low": 0, "high": 2, "quality": 3}],
            [{"score": 1, "quality": NAN}],
            Scale(),
        ),
        plots.generator_bars: ([{"generator": 0, "quality": ends}], Scale()),
        plots.partition_curves: ({"quality": [0.1, 0.2]}, 2),
        plots.distortion_bars: ({"Eye Distortions": 1}, 2),
        plots.category_heat_map: ({"0": (2, {"Eye Distortions": 1})},),
        plots.marked_strips: ([("a", "b", strip, None, None)],),
        plots.marks_scatter: (
            [("dots", {"quality": ([1.0, 2.0], [3.0, 4.0], "said")})],
            {"quality": Scale()},
        ),
        plots.split_half_histograms: ({"quality": [0.5, 0.6]}, {"quality": 0.55}),
        plots.subject_bars: ({"quality": [("a", 0.5, False)]},),
        plots.generator_intervals: ("quality", [("a", 1.0, NAN, NAN)]),
        plots.score_distributions: (
            "quality",
            {"a": np.arange(12.0), "b": np.array([])},
            np.random.default_rng(0),
        ),
        plots.level_bars: ("quality", ["bad", "good"], {"a": [0.5, 0.5], "b": [NAN, NAN]}),
        plots.generator_radar: (["a", "b", "c"], {"A": [10.0, NAN, 20.0]}),
    }
    assert {call.__name__ for call in calls} == set(plots.__all__) - {"overlay"}
    for index, (call, arguments) in enumerate(calls.items()):
        call(tmp_path / f"{index}.png", *arguments, note=note)
        assert note in words(tmp_path / f"{index}.svg"), call.__name__


def test_generators_can_be_told_apart_in_pictures():
    """By what is drawn. Catches two long names that are shortened to one, and letters that the font
    does not have, which would all be the same box.
    """
    long = ["a" * 30 + "x" + "b" * 30, "a" * 30 + "y" + "b" * 30, "c" * 15 + "d" * 15]
    assert drawn_names(["Ünï_1", "生成器", *long]) == [
        "Ünï_1",
        "generator 2",
        "generator 3",
        "generator 4",
        f"{'c' * 11}…{'d' * 10}",
    ]


def test_many_generators_have_a_radar_each(tmp_path):
    """Six do not share one. Catches a radar in which nobody finds a line, and a name that becomes a
    formula.
    """
    for count, alone in ((5, False), (6, True)):
        values = {f"$gen{at}$": [50.0 + at, NAN, 20.0] for at in range(count)}
        path = tmp_path / f"{count}.png"
        plots.generator_radar(path, ["first", "second", "third"], values)
        drawn = path.with_suffix(".svg").read_text(encoding="utf-8")
        assert drawn.count("<!-- second -->") == (count if alone else 1)
        assert drawn.replace("\\$", "$").count("<!-- $gen3$ -->") == 1


def test_groups_and_lines_can_be_told_apart():
    """By marker or dashes alone, for a grey print. Catches ten generators of which two look the
    same.
    """
    assert len({look(index)["marker"] for index in range(10)}) == 10
    assert len({tuple(look(index).values()) for index in range(70)}) == 70
    assert len({(line(i)["marker"], line(i)["linestyle"]) for i in range(20)}) == 20


def test_the_scatter_names_its_groups_and_shows_the_fit(tmp_path):
    """A legend with every group once, in the order of numbers; a curve without band. Catches groups
    of one panel alone, "10" before "2", and a NaN band that hides the curve.
    """
    x = [10.0, 20.0, 30.0]
    points = [{"predicted": p, "fitted": p, "low": NAN, "high": NAN} for p in (10.0, 30.0)]
    score_scatter(
        tmp_path / "s.png",
        {"quality": x},
        {"quality": [12.0, 19.0, 33.0]},
        {"quality": "SRCC 1.000"},
        groups={"quality": ["10", "2", "2"]},
        curves={"quality": points},
        same_scale=False,
    )
    content = (tmp_path / "s.svg").read_text(encoding="utf-8")
    assert "the method's own scale" in content
    assert "95 % band" not in content
    assert content.index("<!-- 2 -->", content.index("legend")) < content.index(
        "<!-- 10 -->", content.index("legend")
    )
    assert "<!-- fit -->" in content


def test_cells_hold_the_counts_and_an_empty_row_stays_white(tmp_path):
    """Row 1 has nobody: no share, no colour. Catches a division by zero, and columns in place of
    rows being normalised: 9 of 10 and 1 of 10.
    """
    panel = ("quality", ["bad", "poor"], ["bad", "poor", "no level"], [[9, 1, 0], [0, 0, 0]])
    confusion_matrices(tmp_path / "c.png", [panel])
    said = words(tmp_path / "c.svg")
    assert {"9", "1", "bad (10)", "poor (0)", "no", "level"} & said >= {"9", "1", "bad (10)"}
    picture = read(tmp_path / "c.png")
    bright = (np.array(matplotlib.colormaps["cividis"](0.9)[:3]) * 255).astype(int)
    dark = (np.array(matplotlib.colormaps["cividis"](0.1)[:3]) * 255).astype(int)
    cells = [close_to(picture, tuple(colour.tolist()), 12) for colour in (bright, dark)]
    # The cells of the first row, left and middle; the colour bar to the right has a thin line.
    columns = [np.flatnonzero(cell.sum(axis=0) > 100) for cell in cells]
    assert columns[0].max() < columns[1].min()
    assert len(columns[0]) == pytest.approx(len(columns[1]), abs=3)


def test_undefined_bars_and_folds_are_named(tmp_path):
    """Catches NaN drawn as 0 without a word, and one fold that breaks the deviation."""
    metric_bars(tmp_path / "b.png", [("one", False), ("two", True)], {"CC": [0.25, NAN]})
    assert {"0.250", "undefined", "one", "two"} <= words(tmp_path / "b.svg")
    fold_dots(
        tmp_path / "f.png", ["a", "b", "c"], {"CC": [0.25, 0.75, NAN], "NSS": [1.0, NAN, NAN]}
    )
    said = words(tmp_path / "f.svg")
    # Mean 0.5, deviation sqrt(2 * 0.25**2 / 1).
    assert {"0.500 ± 0.354", "1.000"} <= said
