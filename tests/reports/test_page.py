"""The page: nothing from outside is fetched or becomes a part of it, and every link has its end."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.reports.page import (
    LARGEST_PNG,
    LARGEST_SVG,
    Grid,
    Listing,
    Page,
    Part,
    Picture,
    Section,
    Text,
    Verbatim,
    embedded,
    render,
)
from lmme3dhf.reports.tables import Block, Column, Row, Table
from tests.reports.html_page import ReadPage

EVIL = "<script>alert('x')</script> & \"y\" <img src=http://a.b/c.png>"


def page_of(*parts: Part) -> Page:
    section = Section(anchor="one", title="A section", parts=parts)
    return Page(title="Title", lead=(Text("lead", "banner"),), sections=(section,))


def table_of(name: str, *methods: str) -> Table:
    rows = tuple(Row(name=m, status="real", cells={"srcc": i / 7}) for i, m in enumerate(methods))
    column = Column(key="srcc", title="SRCC")
    return Table(
        name=name, title="Table 1. Scores", blocks=(Block(title="", columns=(column,), rows=rows),)
    )


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "p.png"
    Image.fromarray(np.full((4, 6, 3), 200, dtype=np.uint8)).save(path)
    return path


def test_text_from_outside_stays_text(png: Path):
    """In every kind of part. Catches a method's name or a setting that becomes part of the page."""
    made = render(
        page_of(
            Text(EVIL, "absent"),
            Listing((EVIL,)),
            Grid(rows=((EVIL, EVIL),), header=(EVIL, "b")),
            Verbatim(EVIL, EVIL),
            Picture(name="p", title=EVIL, caption=EVIL, png=png),
            table_of("table1", EVIL),
        )
    )
    page = ReadPage(made)
    assert "script" not in page.names
    assert page.text.count("alert('x')") == 11  # the picture's title is in the contents, too
    assert [source[:21] for source in page.sources] == ["data:image/png;base64"]
    assert not page.faults


def test_code_stands_between_backticks_and_nowhere_else():
    """Catches backticks that are shown, and a lone one that swallows the rest of the page."""
    made = render(page_of(Text("run `a --b <c>` or `d`, and a lone ` here"), Listing(("`e`",))))
    assert "run `a --b &lt;c&gt;`" not in made
    assert "<code>a <span>--b</span> &lt;c&gt;</code> or <code>d</code>, and a lone ` here" in made
    assert "<li><code>e</code></li>" in made


def test_contents_lead_to_every_section_table_and_picture(png: Path):
    """Catches a link without an end, and a table that the contents leave out."""
    page = ReadPage(
        render(
            page_of(
                table_of("table1", "a", "b"),
                Picture(name="fig8", title="Maps", caption="c", png=png, number="8"),
                Picture(name="radar", title="Radar", caption="c", png=png),
            )
        )
    )
    assert page.links == ["#one", "#table1", "#figure-fig8", "#figure-radar"]
    assert page.ids == ["one", "table1", "figure-fig8", "figure-radar"]
    assert "A sectionTable 1 · Fig. 8 · Radar" in page.text
    assert page.captions == ["As Fig. 8 of the paper: Maps. c", "Radar. c"]


def test_two_parts_with_one_anchor_are_refused(png: Path):
    """Catches a link that leads to the first of two."""
    with pytest.raises(ValueError, match="anchor 'one'"):
        render(page_of(table_of("one", "a")))


def test_a_browser_is_told_to_fetch_nothing(png: Path):
    """Catches a font or a script library that is loaded from somewhere."""
    made = render(page_of(Picture(name="p", title="t", caption="c", png=png)))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in made
    assert "http" not in made.replace("http-equiv", "")
    assert "@import" not in made
    assert "url(" not in made


def test_the_same_page_has_the_same_bytes(png: Path):
    """Catches a set, a date or an address in it."""
    parts = (table_of("table1", "a", "b"), Picture(name="p", title="t", caption="c", png=png))
    assert render(page_of(*parts)) == render(page_of(*parts))


def test_small_vector_pictures_are_shown_and_photographs_become_jpeg(tmp_path: Path):
    """Catches a page of tens of megabytes, a picture that is squeezed or darkened, and one that is
    not the file's.
    """
    rng = np.random.default_rng(0)
    smooth = np.linspace(40, 200, 600)[:, None, None] + 20 * np.sin(np.arange(900) / 30)[:, None]
    noise = rng.normal(0, 6, (600, 900, 3))
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.fromarray(pixels).convert("RGBA").save(large)
    Image.fromarray(pixels[:40, :40]).save(small)
    vector = tmp_path / "v.svg"
    vector.write_bytes(b"<svg xmlns='x'/>")

    assert large.stat().st_size > LARGEST_PNG
    assert embedded(small, vector) == (b"<svg xmlns='x'/>", "svg+xml")
    vector.write_bytes(b" " * (LARGEST_SVG + 1))
    assert embedded(small, vector) == (small.read_bytes(), "png")
    content, kind = embedded(large)
    assert kind == "jpeg"
    assert len(content) < large.stat().st_size / 2
    shown = np.asarray(Image.open(io.BytesIO(content)), dtype=float)
    assert shown.shape == pixels.shape
    assert abs(shown.mean() - pixels.mean()) < 0.5
    assert np.abs(shown - pixels).mean() < 6

    made = render(page_of(Picture(name="p", title="t", caption="c", png=small, svg=vector)))
    (source,) = ReadPage(made).sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == small.read_bytes()
