"""Fixation maps, saliency maps and tables of points: closed forms, files."""

import numpy as np
import pytest
from PIL import Image
from scipy import signal

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.fixations import (
    Fixations,
    fixation_map,
    marked_strips,
    read_fixations,
    read_points,
    read_saliency,
    read_saliency_png,
    saliency_map,
    write_fixations,
    write_saliency,
    write_saliency_png,
)


def test_maps_keep_their_digits_and_damage_is_told(tmp_path):
    """Catches a map read from its 8-bit picture, and a broken one that is read as zeros."""
    saliency = saliency_map([(20, 10), (24, 12)], 30, 90)
    write_saliency(tmp_path, "seed0000", saliency)
    assert (read_saliency(tmp_path, "seed0000") == saliency).all()
    path = tmp_path / "seed0000.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(AnnotationError, match=r"seed0000\.npz: cannot be read as a saliency map"):
        read_saliency(tmp_path, "seed0000")
    np.savez(path, saliency=saliency * 2)
    with pytest.raises(AnnotationError, match=r"seed0000\.npz: .* values in 0\.\.1"):
        read_saliency(tmp_path, "seed0000")
    path.unlink()
    assert np.abs(read_saliency(tmp_path, "seed0000") - saliency).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(FileNotFoundError):
        read_saliency(tmp_path, "seed0001")


def test_fixations_survive_their_file(tmp_path):
    """And the plain form is read. Catches a lost size, and a flag that contradicts the points."""
    path = tmp_path / "fixations.json"
    fixations = {
        "seed0000": Fixations(((1.5, 2.0), (3.0, 4.0)), {"anna": 2}, (90, 30)),
        "seed0001": Fixations((), {}, (90, 30)),
    }
    write_fixations(path, fixations)
    assert read_fixations(path) == fixations
    assert [found.no_distortion for found in fixations.values()] == [False, True]
    path.write_text('{"seed0000": [[1, 2]], "seed0001": []}')
    assert read_fixations(path)["seed0000"] == Fixations(((1.0, 2.0),), {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "1:2: not JSON"),
        ("[]", "expected an object of videos"),
        ('{"v": 3}', "v: .*expected points"),
        ('{"v": [[1, NaN]]}', "v: point .*finite"),
        ('{"v": [[1, true]]}', "v: point"),
        ('{"v": {"points": [], "no_distortion": false}}', "v: no_distortion is False"),
        ('{"v": {"points": [[1, 2]], "dots": {"a": 2}}}', "v: 1 points, .*add up to 2"),
        ('{"v": {"points": [], "size": [0, 3]}}', r"v: size is \[0, 3\]"),
    ],
)
def test_broken_fixations_are_refused(tmp_path, text, reason):
    """With the file and the video. Catches a traceback of the decoder."""
    path = tmp_path / "fixations.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=rf"fixations\.json: ?{reason}"):
        read_fixations(path)


def test_points_are_read_from_tables_and_json(tmp_path):
    """By hand; the same point twice by one marker is one dot. Catches x and y swapped."""
    table = tmp_path / "points.csv"
    table.write_text("marker,video,x,y\nanna,v,1,2\nanna,v,1,2\nben,v,3,4.5\n")
    assert read_points(table) == {"v": {"anna": [(1, 2)], "ben": [(3, 4.5)]}}
    listed = tmp_path / "points.json"
    listed.write_text('{"v": {"anna": [[1, 2]]}, "w": [[5, 6]], "clean": []}')
    assert read_points(listed) == {"v": {"anna": [(1, 2)]}, "w": {"": [(5, 6)]}, "clean": {"": []}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("anna,v,one,2", "expected two numbers"),
        ("anna,v,nan,2", "two finite numbers"),
        (",v,1,2", "marker or video is empty"),
        ("anna,v,1", "3 cells, expected 4"),
    ],
)
def test_a_bad_point_is_refused_with_its_line(tmp_path, row, reason):
    """Catches a point that is lost without a word."""
    table = tmp_path / "points.csv"
    table.write_text(f"marker,video,x,y\nben,v,1,1\n{row}\n")
    with pytest.raises(AnnotationError, match=rf"points\.csv:3: .*{reason}"):
        read_points(table)


def test_marked_strips_are_found_by_marker(tmp_path):
    """Catches stray files taken for strips, or passed over."""
    with pytest.raises(AnnotationError, match="no folders of markers"):
        marked_strips(tmp_path)
    (tmp_path / "anna").mkdir()
    for name in ("v.png", "w.JPG", ".DS_Store"):
        (tmp_path / "anna" / name).touch()
    found = marked_strips(tmp_path)
    assert {video: list(by_marker) for video, by_marker in found.items()} == {
        "v": ["anna"],
        "w": ["anna"],
    }
    (tmp_path / "anna" / "v.jpeg").touch()
    with pytest.raises(AnnotationError, match="a strip of the same video"):
        marked_strips(tmp_path)
    (tmp_path / "anna" / "v.jpeg").rename(tmp_path / "anna" / "notes.txt")
    with pytest.raises(AnnotationError, match=r"notes\.txt: not a marked strip"):
        marked_strips(tmp_path)


def test_fixations_stand_at_the_nearest_pixel():
    """By hand, (x, y) into [y, x]. Catches swapped axes, truncation instead of rounding, and
    duplicates counted twice.
    """
    fixated = fixation_map([(4, 1), (4.4, 0.6), (0, 2), (-0.5, 2.49)], height=3, width=5)
    assert fixated.dtype == bool
    assert np.argwhere(fixated).tolist() == [[1, 4], [2, 0]]
    assert not fixation_map([], 3, 5).any()


@pytest.mark.parametrize(
    "point", [(5, 0), (0, 3), (-1, 0), (0, -0.6), (4.5, 0), (float("nan"), 0), (0, float("inf"))]
)
def test_a_point_outside_is_refused(point):
    """Catches negative indices that wrap around, and points of another picture size."""
    with pytest.raises(AnnotationError, match="outside the picture of 5 x 3 px"):
        fixation_map([(1, 1), point], height=3, width=5)


def test_one_point_is_a_gaussian():
    """Closed form exp(-d^2 / (2 sigma^2)), up to the cut at 4 sigma. Catches another width or a
    shifted peak.
    """
    density = saliency_map([(60, 50)], height=101, width=121, sigma_px=5.0)
    y, x = np.mgrid[:101, :121]
    distance = np.hypot(x - 60, y - 50)
    inside = distance < 20
    assert density.dtype == np.float32
    assert density[inside] == pytest.approx(np.exp(-(distance[inside] ** 2) / 50), abs=1e-6)
    assert density[distance > 30].max() == 0
    assert np.unravel_index(density.argmax(), density.shape) == (50, 60)


def test_the_union_of_points_is_smoothed_and_scaled_to_peak_one():
    """Against an explicit convolution with the two-dimensional kernel. Catches maxima instead of
    sums, and a doubled point.
    """
    points = [(20, 20), (24, 22), (24, 22), (50, 33)]
    impulses = np.zeros((60, 80))
    impulses[[20, 22, 33], [20, 24, 50]] = 1
    offset = np.arange(-12, 13)
    kernel = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 3.0**2))
    expected = signal.convolve(impulses, kernel, mode="same", method="direct")
    density = saliency_map(points, height=60, width=80, sigma_px=3.0)
    assert density == pytest.approx(expected / expected.max(), abs=1e-6)
    assert density.max() == 1


def test_no_points_give_an_all_zero_map():
    """A face without distortion must stay expressible. Catches 0 / 0 and a stretched background."""
    density = saliency_map([], height=4, width=6)
    assert density.dtype == np.float32
    assert density.shape == (4, 6)
    assert not density.any()
    with pytest.raises(ValueError, match="sigma_px is 0"):
        saliency_map([], 4, 6, sigma_px=0)


def test_maps_survive_the_picture_file(tmp_path):
    """Catches truncation instead of rounding (at most half a grey step is lost), stretching, and a
    lost all-zero map.
    """
    path = tmp_path / "map.png"
    faint = (0.4 * saliency_map([(20, 10), (3, 4)], height=32, width=48)).astype(np.float32)
    write_saliency_png(path, faint)
    with Image.open(path) as picture:
        assert (picture.mode, picture.size) == ("L", (48, 32))
        assert picture.getextrema()[1] == 102  # 0.4 * 255
    assert np.abs(read_saliency_png(path) - faint).max() <= 0.5 / 255 + 1e-7
    write_saliency_png(path, np.zeros((2, 3)))
    assert not read_saliency_png(path).any()


def test_colour_pictures_are_read_as_grey(tmp_path):
    """Catches a map saved as RGB or with a palette that is refused or read as three maps."""
    grey = Image.fromarray(np.array([[0, 51, 255]], dtype=np.uint8))
    for mode in ("RGB", "P"):
        grey.convert(mode).save(tmp_path / "map.png")
        assert read_saliency_png(tmp_path / "map.png") == pytest.approx(np.array([[0, 0.2, 1]]))


@pytest.mark.parametrize(
    "map_HW",
    [np.full((2, 2), 1.1), np.full((2, 2), -0.1), np.full((2, 2), np.nan), np.zeros((2, 2, 3))],
)
def test_a_map_outside_its_range_is_not_written(tmp_path, map_HW):
    """Catches 8-bit overflow, where 1.1 would become 24."""
    with pytest.raises(AnnotationError, match=r"expected \(height, width\) with values in 0\.\.1"):
        write_saliency_png(tmp_path / "map.png", map_HW)
    assert not (tmp_path / "map.png").exists()


def test_a_file_that_is_no_map_is_refused(tmp_path):
    """Catches a traceback on garbage or a cut file, and 16-bit pictures clipped to white."""
    path = tmp_path / "map.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(AnnotationError, match="cannot be read as a picture"):
        read_saliency_png(path)
    write_saliency_png(path, np.random.default_rng(0).random((64, 64)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(AnnotationError, match="cannot be read as a picture"):
        read_saliency_png(path)
    Image.fromarray(np.full((2, 2), 40000, dtype=np.uint16)).save(path)
    with pytest.raises(AnnotationError, match="expected 8-bit grey"):
        read_saliency_png(path)
    with pytest.raises(FileNotFoundError):
        read_saliency_png(tmp_path / "none.png")
