"""Red dots: planted dots on drawn and real strips, and what must not be taken for one."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.dots import red_dots
from tests.conftest import shared_data

HEIGHT, WIDTH = 128, 384


def _textured_strip():
    """A noisy strip with red lips, a red hat in the dots' own red, and skin."""
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH, 3)), (4, 4, 0)) * 400
    strip = np.clip(150 + smooth + rng.normal(scale=8, size=smooth.shape), 0, 255)
    strip[90:100, 40:80] = (200, 45, 60)
    strip[10:30, 200:260] = (255, 0, 0)
    return strip.astype(np.uint8)


def _painted(strip, centres, radius=3):
    picture = Image.fromarray(strip)
    draw = ImageDraw.Draw(picture)
    for x, y in centres:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 0, 0))
    return np.asarray(picture)


def test_planted_dots_come_back_among_red_areas():
    """Catches red lips or a red hat taken for dots, x and y swapped, dots at the border lost, and a
    shifted centre.
    """
    plain = _textured_strip()
    centres = [
        (20, 20),
        (60, 95),
        (3, 64),
        (300, 100),
        (380, 124),
        (150, 50),
    ]  # (60, 95) lies on the lips
    found = red_dots(_painted(plain, centres), plain)
    assert len(found) == len(centres)
    for x, y in centres:
        nearest = min(found, key=lambda point: (point[0] - x) ** 2 + (point[1] - y) ** 2)
        assert nearest == pytest.approx((x, y), abs=0.01 if 4 <= x <= 379 else 1)


def test_dots_on_real_strips_come_back():
    """Real faces, the marked strip through JPEG. Catches thresholds that only fit clean synthetic
    pictures.
    """
    strips = sorted(shared_data("strips").glob("spherehead_*.png"))
    assert strips
    for path in strips:
        with Image.open(path) as picture:
            plain = np.asarray(picture.convert("RGB"))
        centres = [
            (x, y)
            for x in range(20, plain.shape[1] - 20, 90)
            for y in range(20, plain.shape[0] - 20, 60)
        ]
        compressed = io.BytesIO()
        Image.fromarray(_painted(plain, centres)).save(compressed, format="JPEG", quality=90)
        found = red_dots(np.asarray(Image.open(compressed)), plain)
        assert sorted((round(x), round(y)) for x, y in found) == sorted(centres)


def test_nothing_painted_gives_no_dots():
    """Catches red areas found without a mark, and compression noise (3 of 255) on them taken for a
    mark.
    """
    plain = _textured_strip()
    assert red_dots(plain, plain) == []
    noisy = np.clip(plain + np.random.default_rng(0).integers(-3, 4, plain.shape), 0, 255).astype(
        np.uint8
    )
    assert red_dots(noisy, plain) == []


def test_specks_are_ignored_and_a_stroke_is_discs_side_by_side():
    """Pins the two decisions on size: under 5 pixels is no dot; a stroke is covered by discs of its
    width along its middle.
    """
    plain = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    marked = plain.copy()
    marked[10:12, 10:12] = (255, 0, 0)  # 4 pixels
    assert red_dots(marked, plain) == []
    marked[50:71, 100:201] = (255, 0, 0)
    found = red_dots(marked, plain)
    assert 4 <= len(found) <= 10
    assert all(100 <= x <= 200 and abs(y - 60) < 2 for x, y in found)


@pytest.mark.parametrize(("radius", "apart"), [(2, 2.0), (3, 1.4), (3, 2.0), (6, 1.4), (6, 2.0)])
def test_touching_and_overlapping_dots_count_each(radius, apart):
    """Pairs and a row of three beside dots that stand alone, at two spacings in radii. Catches
    connected dots that are counted once, in their middle.
    """
    plain = _textured_strip()
    step = apart * radius
    centres = [(20, 60), (60, 30), (160, 60), (160 + step, 60), (300, 90), (300, 90 + step)]
    centres += [(330, 40), (330 + step, 40), (330 + 2 * step, 40)]
    found = red_dots(_painted(plain, centres, radius), plain)
    assert len(found) == len(centres)
    for centre in centres:
        assert min(np.hypot(*(np.array(centre) - point)) for point in found) < 0.6 * radius


def test_dots_without_the_plain_strip_are_told_from_lips_and_hats():
    """Catches a red hat taken for dots where there is nothing to compare with."""
    plain = _textured_strip()
    centres = [(20, 20), (120, 60), (300, 100), (150, 50)]
    found = red_dots(_painted(plain, centres, 3))
    assert sorted((round(x), round(y)) for x, y in found) == sorted(centres)


def test_two_pictures_are_told_from_one():
    """Another clip's strip. Catches red of another picture taken for dots."""
    plain = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    with pytest.raises(AnnotationError, match="both must be the same picture"):
        red_dots(np.full_like(plain, 200), plain)


def test_pictures_that_do_not_belong_together_are_refused():
    """Catches a broadcast of unlike pictures and floats in 0..1, where nothing is ever red."""
    plain = np.zeros((8, 9, 3), dtype=np.uint8)
    with pytest.raises(AnnotationError, match=r"\(8, 8\) and plain strip \(8, 9\)"):
        red_dots(plain[:, :8], plain)
    with pytest.raises(AnnotationError, match="marked strip is float64"):
        red_dots(plain / 255, plain)
