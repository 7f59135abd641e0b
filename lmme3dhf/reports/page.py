"""One HTML page that needs nothing else: sections of text, tables and pictures, with the pictures
in it.

Whatever comes from outside (names of methods, paths, settings) is escaped. There are no links but
those within the page; a content policy in its head forbids a browser to fetch anything, and to run
any script but the one that sorts tables, which is told by its hash and is only there where a table
can be sorted. Texts may hold `code` between backticks.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from lmme3dhf.reports.tables import Table, finalized, html

LARGEST_SVG = 200_000  # bytes; a larger vector picture gives way to the PNG
LARGEST_PNG = 500_000  # bytes; a larger one, of photographs, becomes a JPEG
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is a class of the style: "banner", "warning", "absent", "files" or
    empty.
    """

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Listing:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table of texts; without a header its first column holds names."""

    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verbatim:
    """A file's text, folded away under its title."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its caption.

    Attributes:
        name: Of its anchor, `figure-NAME`.
        title: What it shows.
        caption: What a reader needs to know.
        png: The file to show.
        svg: Of the same picture; shown in place of the PNG where it is small.
        number: Of the paper's figure, "2a"; None for one that the paper does not have.
        wide: Whether it scrolls in its box on a narrow screen, where it would be too small.
    """

    name: str
    title: str
    caption: str
    png: Path
    svg: Path | None = None
    number: str | None = None
    wide: bool = False


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, below each other where there is no room."""

    items: tuple[Picture, ...]


@dataclass(frozen=True)
class Value:
    """A cell of a sheet.

    Attributes:
        text: What is shown; lines end at line ends.
        order: What it is sorted by; None (or NaN) comes last in either direction.
        heat: -1..1; how strongly the cell is coloured, vermilion below 0 and blue above.
    """

    text: str
    order: float | str | None = None
    heat: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of numbers with names in its first column, which a reader can sort by a column.

    Attributes:
        name: Its anchor.
        title: What it shows.
        header: Title of each column.
        rows: Cells of each row, one a column.
        over: (title, columns) above the header, together as many columns; empty for none.
        notes: What a reader has to know.
        sortable: Whether a script in the page sorts it.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    over: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    sortable: bool = True


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: its JPEG file, and what it shows for those who cannot see it."""

    jpeg: bytes
    alt: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A video in a gallery: its thumbnails below each other, or why there are none, and what is
    said about it.
    """

    title: str
    thumbnails: tuple[Thumbnail, ...]
    absent: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Cards under a heading, in so many columns where there is room."""

    title: str
    cards: tuple[Card, ...]
    columns: int = 3


Part = Text | Listing | Grid | Verbatim | Picture | Pictures | Table | Sheet | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page; `anchor` is made of letters and hyphens."""

    anchor: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page: its title, what stands above the contents, and its sections."""

    title: str
    lead: tuple[Part, ...]
    sections: tuple[Section, ...]


_STYLE = """\
:root { --ink: #1a1a1a; --soft: #555; --line: #d5d5d5; --blue: #0072b2; --vermilion: #d55e00; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1rem 1.25rem 4rem; color: var(--ink);
  background: #fff; font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.35rem; margin: 2.8rem 0 .6rem; padding-top: .5rem;
  border-top: 2px solid var(--blue); }
h3 { font-size: 1.08rem; margin: 1.8rem 0 .4rem; }
h4 { font-size: .95rem; margin: 1.1rem 0 .3rem; color: var(--soft); }
p, ul { margin: .5rem 0; max-width: 52rem; }
li { margin: .2rem 0; }
a { color: var(--blue); }
code { font: .88em/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  background: #f2f2f2; padding: .05em .3em; border-radius: 3px; }
table.names code { overflow-wrap: anywhere; }
code span { white-space: nowrap; }
.banner, .warning { max-width: none; padding: .7rem 1rem; border-left: 6px solid var(--blue);
  background: #eaf3f9; }
.warning { border-color: var(--vermilion); background: #fdf0e7; }
.absent { padding: .5rem .9rem; border-left: 4px solid #999; background: #f5f5f5; }
.files, .legend { color: var(--soft); font-size: .9rem; }
nav { margin-top: 1.5rem; padding: .2rem 1rem .6rem; background: #f7f7f7;
  border: 1px solid var(--line); }
nav ol { margin: .4rem 0; padding-left: 1.6rem; }
nav span { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-size: .86rem; line-height: 1.35; }
th, td { padding: .28rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { vertical-align: bottom; }
thead tr:last-child th, thead th[rowspan] { border-bottom: 2px solid #888; }
table.numbers td:nth-child(n+3) { text-align: right; font-variant-numeric: tabular-nums; }
table.numbers thead th { text-align: right; }
table.numbers thead tr:first-child th:nth-child(-n+2) { text-align: left; }
table.numbers th.over { text-align: center; border-bottom-color: #bbb; }
table.numbers td:first-child { min-width: 8.5rem; max-width: 22rem; position: sticky; left: 0;
  background: #fff; }
table.numbers td:nth-child(2) { color: var(--soft); white-space: nowrap; }
table.numbers tr.group th { text-align: left; font-weight: 600; font-style: italic;
  background: #f7f7f7; }
table.names td:first-child { font-weight: 600; white-space: nowrap; }
td.best { font-weight: 700; }
td.second { text-decoration: underline; }
sup { font-size: .7em; color: var(--soft); line-height: 0; }
ul.notes { font-size: .9rem; color: #333; padding-left: 1.2rem; }
figure { margin: 1.6rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 52rem; font-size: .92rem; margin-top: .4rem; }
pre { overflow-x: auto; padding: .8rem; background: #f5f5f5; font-size: .82rem; line-height: 1.4; }
summary { cursor: pointer; color: var(--blue); }
.wide img { min-width: 46rem; }
.side { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.side figure { flex: 1 1 22rem; max-width: 36rem; min-width: 0; margin: 1rem 0; }
.side figure img { width: 100%; }
table.sheet th, table.sheet td { text-align: right; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
table.sheet th:first-child, table.sheet td:first-child { text-align: left; }
table.sheet tbody th { font-weight: 600; position: sticky; left: 0; background: #fff;
  min-width: 8.5rem; max-width: 16rem; overflow-wrap: anywhere; }
table.sheet thead th.over { text-align: center; border-bottom-color: #bbb; }
table.sheet td { white-space: pre; }
table.sheet td[style] { background: rgb(0 114 178 / var(--heat)); }
table.sheet td.low[style] { background: rgb(213 94 0 / var(--heat)); }
th button { font: inherit; color: inherit; text-align: inherit; background: none; border: 0;
  padding: 0; cursor: pointer; }
th button::after { content: "\\a0\\2195"; color: #767676; }
th[aria-sort=ascending] button::after { content: "\\a0\\2191"; color: var(--blue); }
th[aria-sort=descending] button::after { content: "\\a0\\2193"; color: var(--blue); }
.cards { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 24.8rem));
  gap: 1rem 1.4rem; margin: .6rem 0 1.4rem; }
.cards article { border: 1px solid var(--line); padding: .6rem; min-width: 0; }
.cards h4 { margin: 0 0 .4rem; color: var(--ink); overflow-wrap: anywhere; }
.cards img { display: block; width: 100%; height: auto; margin: 0 0 3px; }
.cards p { margin: .25rem 0 0; font-size: .88rem; line-height: 1.4; }
@media (max-width: 900px) {
  .cards { grid-template-columns: 1fr 1fr; }
}
@media (max-width: 600px) {
  .cards { grid-template-columns: minmax(0, 1fr); }
  table.sheet tbody th { min-width: 7.4rem; }
  body { padding: .6rem .8rem 3rem; }
  h1 { font-size: 1.4rem; }
  h2 { font-size: 1.2rem; }
  table.names td:first-child { white-space: normal; }
}
@page { size: A4; margin: 14mm 12mm; }
@media print {
  html { font-size: 9.5pt; }
  body, p, ul { max-width: none; }
  body { padding: 0; }
  h2, h3, h4 { break-after: avoid; }
  figure, tr, .banner, .warning, .cards article { break-inside: avoid; }
  figure img { max-height: 225mm; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .12rem .3rem; }
  table.numbers td:first-child { min-width: 0; position: static; }
  table.numbers td:nth-child(2) { white-space: normal; }
  .wide img { min-width: 0; }
  .side figure { flex-basis: 40%; }
  .cards { grid-template-columns: 1fr 1fr; gap: .5rem; }
  table.sheet tbody th { min-width: 6.5rem; position: static; }
  th button::after { content: none; }
  .banner, .warning, .absent, nav, pre, code, td { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  pre { white-space: pre-wrap; }
  a { color: inherit; text-decoration: none; }
}
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{{ allowed }}">
<title>{{ page.title }}</title>
<style>
{{ style }}</style>
</head>
<body>
<header>
<h1>{{ page.title }}</h1>
{% for part in page.lead %}
{{ shown(part) }}
{% endfor %}
</header>
<nav aria-label="Contents">
<ol>
{% for section in page.sections %}
<li><a href="#{{ section.anchor }}">{{ section.title }}</a>
{%- for anchor, label in entries(section) %}
{{ "<br><span>" | safe if loop.first else " · " }}<a href="#{{ anchor }}">{{ label }}</a>
{%- if loop.last %}</span>{% endif %}
{%- endfor %}</li>
{% endfor %}
</ol>
</nav>
<main>
{% for section in page.sections %}
<section>
<h2 id="{{ section.anchor }}">{{ section.title }}</h2>
{% for part in section.parts %}
{{ shown(part) }}
{% endfor %}
</section>
{% endfor %}
</main>
{% if script %}
<script>{{ script }}</script>
{% endif %}
</body>
</html>
"""

# Without it the page is whole; the buttons are its own. Rows of equal cells stay in their order.
_SORTING = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const key = (row) => row.cells[column].dataset.order;
      const given = (text) => text !== undefined;
      const numbers = [...body.rows].map(key).filter(given).every((text) => !isNaN(text));
      const first = numbers ? "descending" : "ascending";
      const other = numbers ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => (numbers ? a - b : a.localeCompare(b));
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return given(x) && given(y) ? sign * compare(x, y) : given(y) - given(x);
      });
      body.append(...rows);
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
    });
  });
}
"""

_PARTS = {
    Text: """<p{% if part.kind %} class="{{ part.kind }}"{% endif %}>{{ part.text | code }}</p>""",
    Listing: """<ul>
{% for item in part.items %}
<li>{{ item | code }}</li>
{% endfor %}
</ul>""",
    Grid: """<div class="scroll"><table{% if not part.header %} class="names"{% endif %}>
{% if part.header %}
<thead><tr>{% for cell in part.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
{% endif %}
<tbody>
{% for row in part.rows %}
<tr>{% for cell in row %}<td>{{ cell | code }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>""",
    Verbatim: """<details><summary>{{ part.title }}</summary>
<pre>{{ part.text }}</pre></details>""",
    Picture: """<figure id="figure-{{ part.name }}">
{% if part.wide %}
<div class="scroll wide" tabindex="0" role="region" aria-label="{{ part.title }}">
{% endif %}
<img src="{{ content(part) }}" alt="{{ part.title }}">
{% if part.wide %}
</div>
{% endif %}
<figcaption><strong>{{ label(part) }}</strong>. {{ part.caption | code }}</figcaption>
</figure>""",
    Pictures: """<div class="side">
{% for item in part.items %}
{{ shown(item) }}
{% endfor %}
</div>""",
    Sheet: """<h3 id="{{ part.name }}">{{ part.title }}</h3>
<div class="scroll" tabindex="0" role="region" aria-label="{{ part.title }}">
<table class="sheet{{ " sortable" if part.sortable else "" }}">
<thead>
{% if part.over %}
<tr>{% for title, span in part.over %}
<th colspan="{{ span }}"{% if title %} class="over"{% endif %}>{{ title }}</th>
{% endfor %}</tr>
{% endif %}
<tr>{% for title in part.header %}<th scope="col">{{ title }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>{% for cell in row %}<{{ "td" if loop.index0 else 'th scope="row"' | safe }}{{ cell | cell }}>\
{{ cell.text }}</{{ "td" if loop.index0 else "th" }}>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if part.notes %}
<ul class="notes">
{% for note in part.notes %}
<li>{{ note | code }}</li>
{% endfor %}
</ul>
{% endif %}""",
    Gallery: """<h3>{{ part.title }}</h3>
<div class="cards" style="--columns:{{ part.columns }}">
{% for card in part.cards %}
<article>
<h4>{{ card.title }}</h4>
{% for thumbnail in card.thumbnails %}
<img src="{{ thumbnail.jpeg | jpeg }}" alt="{{ thumbnail.alt }}">
{% endfor %}
{% for sentence in card.absent %}
<p class="absent">{{ sentence }}</p>
{% endfor %}
{% for line in card.lines %}
<p>{{ line }}</p>
{% endfor %}
</article>
{% endfor %}
</div>""",
}


def render(page: Page) -> str:
    """The page as HTML. The same page gives the same bytes.

    Raises:
        ValueError: Two sections, tables or pictures with one anchor.
        FileNotFoundError: A picture that is not there.
    """
    anchors = [
        anchor
        for section in page.sections
        for anchor in (section.anchor, *(anchor for anchor, _ in _entries(section)))
    ]
    twice = sorted({anchor for anchor in anchors if anchors.count(anchor) > 1})
    if twice:
        raise ValueError(f"two parts of the page have the anchor {twice[0]!r}")
    environment = Environment(
        autoescape=True,
        finalize=finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = lambda text: _with_code(escape(text))
    environment.filters["cell"] = _cell_attributes
    environment.filters["jpeg"] = lambda content: _data_uri(content, "jpeg")
    environment.globals |= {"content": _content, "label": _label}
    templates = {kind: environment.from_string(text) for kind, text in _PARTS.items()}

    def shown(part: Part) -> Markup:
        if isinstance(part, Table):
            return _with_code(Markup(html(part)))
        return Markup(templates[type(part)].render(part=part, shown=shown))

    sorts = any(
        isinstance(part, Sheet) and part.sortable
        for part in (*page.lead, *(part for section in page.sections for part in section.parts))
    )
    digest = base64.b64encode(hashlib.sha256(_SORTING.encode("utf-8")).digest()).decode("ascii")
    return environment.from_string(_PAGE).render(
        page=page,
        style=Markup(_STYLE),
        script=Markup(_SORTING) if sorts else "",
        allowed=Markup(f"; script-src 'sha256-{digest}'") if sorts else "",
        shown=shown,
        entries=_entries,
    )


def _cell_attributes(cell: Value) -> Markup:
    """What a cell is sorted by, and its colour."""
    attributes = ""
    # The only value that is unlike itself is NaN.
    if cell.order is not None and cell.order == cell.order:
        order = cell.order if isinstance(cell.order, str) else f"{cell.order:.10g}"
        attributes += f' data-order="{escape(order)}"'
    if cell.heat:
        attributes += ' class="low"' if cell.heat < 0 else ""
        # Black letters are read well on the strongest, too.
        attributes += f' style="--heat:{min(abs(cell.heat), 1) * 0.55:.2f}"'
    return Markup(attributes)


def _with_code(escaped: Markup) -> Markup:
    def code(found: re.Match) -> str:
        # Options are not cut at their hyphens.
        words = re.sub(r"(?<!\S)(-\S+)", r"<span>\1</span>", found[1])
        return f"<code>{words}</code>"

    # As a plain string: pieces joined to Markup would be escaped once more.
    return Markup(re.sub(r"`([^`<>]+)`", code, str(escaped)))


def _entries(section: Section) -> Iterator[tuple[str, str]]:
    """(anchor, short title) of what the contents list below a section."""
    for part in section.parts:
        if isinstance(part, Table | Sheet):
            yield part.name, part.title.split(" – ")[0].split(". ")[0]
        for picture in _pictures(part):
            yield (
                f"figure-{picture.name}",
                (f"Fig. {picture.number}" if picture.number else picture.title),
            )


def _pictures(part: Part) -> tuple[Picture, ...]:
    if isinstance(part, Picture):
        return (part,)
    return part.items if isinstance(part, Pictures) else ()


def _label(picture: Picture) -> str:
    return f"As Fig. {picture.number} of the paper: " * bool(picture.number) + picture.title


def _content(picture: Picture) -> Markup:
    """The picture as a data URI."""
    return _data_uri(*embedded(picture.png, picture.svg))


def _data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}")


def embedded(png: Path, svg: Path | None = None) -> tuple[bytes, str]:
    """What a page shows of a picture, and its kind: the SVG where it is small, else the PNG, a
    large one as JPEG.

    Args:
        png: The picture.
        svg: The same as vectors.
    """
    if svg is not None and svg.stat().st_size <= LARGEST_SVG:
        return svg.read_bytes(), "svg+xml"
    if png.stat().st_size <= LARGEST_PNG:
        return png.read_bytes(), "png"
    stream = io.BytesIO()
    with Image.open(png) as picture:
        # Without subsampling: letters and red dots keep their edges.
        options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": True}
        picture.convert("RGB").save(stream, "JPEG", **options)
    return stream.getvalue(), "jpeg"
