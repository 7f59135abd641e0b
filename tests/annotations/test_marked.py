"""Marks on strips, and what must not be taken for "nothing marked"."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.fixations import read_points
from lmme3dhf.annotations.marked import COLOURS, read_marking

CENTRES = [(60, 40), (190, 70), (320, 90)]
RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "yellow": (255, 255, 0),
}


@pytest.fixture(scope="module")
def plain():
    """A soft texture of 128 x 384 px around middle grey."""
    noise = np.random.default_rng(3).normal(size=(128, 384, 3))
    return np.clip(128 + 200 * ndimage.gaussian_filter(noise, (4, 4, 0)), 0, 255).astype(np.uint8)


def drawn(plain, kind, colour, radius=5, width=2, centres=CENTRES):
    picture = Image.fromarray(plain)
    draw = ImageDraw.Draw(picture)
    for x, y in centres:
        box = (x - radius, y - radius, x + radius, y + radius)
        if kind == "dot":
            draw.ellipse(box, fill=colour)
        elif kind == "ring":
            draw.ellipse(box, outline=colour, width=width)
        else:
            draw.line((x - radius, y, x + radius, y), fill=colour, width=width)
    return np.asarray(picture)


def jpeg(picture, quality):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def is_near(points):
    return len(points) == len(CENTRES) and all(
        min(np.hypot(x - a, y - b) for a, b in points) < 1 for x, y in CENTRES
    )


@pytest.mark.parametrize("quality", [None, 90])
@pytest.mark.parametrize("colour", COLOURS)
def test_dots_and_rings_of_every_colour_that_is_asked_for(plain, colour, quality):
    """Catches a colour that is found as another, and a ring read at its stroke."""
    for shape, radius in (("dot", 5), ("ring", 14)):
        marked = drawn(plain, shape, RGB[colour], radius)
        marked = marked if quality is None else jpeg(marked, quality)
        found = read_marking(marked, plain, colour, shape)
        assert is_near(found.points)
        assert not found.strays
        if colour != "red":
            assert read_marking(marked, plain).strays


@pytest.mark.parametrize("quality", [None, 90])
@pytest.mark.parametrize(
    ("kind", "colour", "radius", "width"),
    [
        ("ring", "red", 8, 2),
        ("ring", "red", 20, 2),
        ("ring", "red", 24, 6),
        ("dot", "lime", 5, 0),
        ("dot", "white", 5, 0),
        ("dot", "black", 5, 0),
        ("line", "blue", 20, 2),
    ],
)
def test_what_is_no_red_dot_is_a_stray(plain, quality, kind, colour, radius, width):
    """Alone, and one of them among five dots. Catches marks that become "no distortion"."""
    marked = drawn(plain, kind, colour, radius, width)
    found = read_marking(marked if quality is None else jpeg(marked, quality), plain)
    assert len(found.strays) >= 3
    dots = [(30, 100), (90, 110), (130, 20), (250, 20), (360, 20)]
    marked = drawn(plain, "dot", "red", centres=dots)
    marked = drawn(marked, kind, colour, radius, width, CENTRES[1:2])
    found = read_marking(marked if quality is None else jpeg(marked, quality), plain)
    assert found.strays
    assert all(np.hypot(s.x - 190, s.y - 70) < radius + 3 for s in found.strays)


def test_a_strip_without_marks_says_nothing_marked(plain):
    """As it was, through JPEG, and a few grey levels brighter. Catches noise taken for a mark."""
    for returned in (plain, jpeg(plain, 60), np.clip(plain + 5.0, 0, 255).astype(np.uint8)):
        found = read_marking(returned, plain)
        assert (found.points, found.strays, found.specks) == ((), (), 0)


def test_the_strip_of_another_clip_is_refused(plain):
    """A head elsewhere before the same background: the median does not differ. Catches marks at
    places of another face.
    """
    other = plain.copy()
    other[20:80, 40:160] = 255 - other[20:80, 40:160] // 2
    with pytest.raises(AnnotationError, match="another clip"):
        read_marking(other, plain)


def test_points_say_nothing_marked_in_csv_and_json(tmp_path):
    """Catches a marker who looked and saw nothing lost, and both said at once."""
    table = tmp_path / "points.csv"
    table.write_text("marker,video,x,y\nann,seed0000,3,4\nben,seed0000,,\n")
    expected = {"seed0000": {"ann": [(3.0, 4.0)], "ben": []}}
    assert read_points(table) == expected
    (tmp_path / "points.json").write_text('{"seed0000": {"ann": [[3, 4]], "ben": []}}')
    assert read_points(tmp_path / "points.json") == expected
    table.write_text("marker,video,x,y\nann,seed0000,3,4\nann,seed0000,,\n")
    with pytest.raises(AnnotationError, match=r"points\.csv:3: .*keep one"):
        read_points(table)
    table.write_text("marker,video,x,y\nann,seed0000,3,\n")
    with pytest.raises(AnnotationError, match=r"points\.csv:2: "):
        read_points(table)
