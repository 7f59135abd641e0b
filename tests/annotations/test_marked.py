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


def strip(side):
    """A soft texture at the size of a real strip."""
    noise = np.random.default_rng(3).normal(size=(side, 3 * side, 3))
    return np.clip(128 + 200 * ndimage.gaussian_filter(noise, (4, 4, 0)), 0, 255).astype(np.uint8)


def blended(plain, places, radius, opacity=1.0, fine=4):
    """Red dots with anti-aliased edges."""
    height, width = plain.shape[:2]
    mask = Image.new("L", (width * fine, height * fine))
    for x, y in places:
        middle, reach = (fine * (x + 0.5), fine * (y + 0.5)), fine * radius
        box = [m - reach for m in middle] + [m + reach for m in middle]
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    share = np.asarray(mask.resize((width, height), Image.Resampling.BOX)) / 255 * opacity
    mixed = plain * (1 - share[..., None]) + share[..., None] * np.array(RGB["red"])
    return np.round(mixed).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "radius", "opacity", "quality"),
    [
        (112, 1.5, 1.0, None),
        (112, 1.5, 0.8, None),
        (112, 3.0, 1.0, 75),
        (112, 8.0, 0.5, 90),
        (112, 8.4, 1.0, None),  # 5 % of the strip's width
        (256, 2.0, 0.5, None),
        (256, 3.0, 0.8, 75),
        (512, 2.6, 1.0, None),
        (512, 3.0, 1.0, 75),
        (256, 19.2, 1.0, None),
        (256, 19.2, 0.6, 75),
    ],
)
def test_dots_of_every_size_come_back_at_the_border_and_touching(side, radius, opacity, quality):
    """At the places where they were drawn, nothing else beside them. Catches good dots that are
    refused as strokes, and the ringing of JPEG that is taken for something painted.
    """
    plain = strip(side)
    places = [(0.4 * side, 0.4 * side), (1.5 * side, 0.6 * side), (0.0, 0.7 * side)]
    places += [(2 * side, side - 1.0)]
    if radius >= 2.5 and opacity == 1:
        places += [(2.5 * side, 0.3 * side), (2.5 * side + 2 * radius, 0.3 * side)]
    marked = blended(plain, places, radius, opacity)
    found = read_marking(marked if quality is None else jpeg(marked, quality), plain)
    assert (found.strays, found.specks) == ((), 0)
    assert len(found.points) == len(places)
    for x, y in places:
        assert min(np.hypot(x - a, y - b) for a, b in found.points) < max(1, 0.5 * radius)


def stroke(draw, kind, x, y, length, width):
    half, red = length / 2, RGB["red"]
    if kind == "line":
        draw.line((x - half, y, x + half, y), fill=red, width=width)
    elif kind == "slanted":
        draw.line((x - half, y - half / 2, x + half, y + half / 2), fill=red, width=width)
    elif kind == "cross":
        draw.line((x - half, y, x + half, y), fill=red, width=width)
        draw.line((x, y - half, x, y + half), fill=red, width=width)
    elif kind == "tick":
        draw.line((x - half, y, x - half / 3, y + half, x + half, y - half), fill=red, width=width)
    elif kind == "ring":
        draw.ellipse((x - half, y - half, x + half, y + half), outline=red, width=width)
    else:
        draw.rectangle((x - half, y - half, x + half, y + half), fill=red)


@pytest.mark.parametrize("dots", [0, 5])
@pytest.mark.parametrize("quality", [None, 80])
@pytest.mark.parametrize(
    ("kind", "length", "width"),
    [
        *(("line", 60, width) for width in (2, 3, 5, 9)),
        *(("slanted", 60, width) for width in (2, 3, 5, 9)),
        *(("cross", 50, width) for width in (2, 3, 5)),
        *(("tick", 50, width) for width in (2, 3, 5)),
        *(("ring", 40, width) for width in (2, 5, 9)),
    ],
)
def test_a_red_stroke_is_never_a_row_of_dots(kind, length, width, quality, dots):
    """Alone and beside dots, through JPEG too: it is named at its place, and gives no point even
    where strays are ignored. Catches hand-drawn lines that become dots.
    """
    plain = strip(128)
    places = [(40.0, 30.0), (110.0, 90.0), (330.0, 40.0)] if dots else []
    picture = Image.fromarray(blended(plain, places, dots))
    stroke(ImageDraw.Draw(picture), kind, 200, 64, length, width)
    marked = np.asarray(picture) if quality is None else jpeg(np.asarray(picture), quality)
    found = read_marking(marked, plain)
    assert found.strays
    assert all(np.hypot(s.x - 200, s.y - 64) < length for s in found.strays)
    assert len(found.points) == len(places)


@pytest.mark.parametrize("quality", [None, 80])
@pytest.mark.parametrize("length", [9, 40])
def test_a_red_square_is_at_most_one_place(quality, length):
    """As large as the dots, and far larger. Catches a blot that becomes a dozen dots."""
    plain = strip(128)
    picture = Image.fromarray(blended(plain, [(40, 30), (110, 90), (330, 40)], 5))
    stroke(ImageDraw.Draw(picture), "square", 200, 64, length, 0)
    marked = np.asarray(picture) if quality is None else jpeg(np.asarray(picture), quality)
    found = read_marking(marked, plain)
    on_it = [(x, y) for x, y in found.points if abs(x - 200) < 22 and abs(y - 64) < 22]
    assert len(on_it) <= 1
    assert all(np.hypot(x - 200, y - 64) < 1 for x, y in on_it)


def test_a_strip_without_marks_says_nothing_marked(plain):
    """As it was, through JPEG, and a few grey levels brighter. Catches noise taken for a mark."""
    for returned in (plain, jpeg(plain, 60), np.clip(plain + 5.0, 0, 255).astype(np.uint8)):
        found = read_marking(returned, plain)
        assert (found.points, found.strays) == ((), ())


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
