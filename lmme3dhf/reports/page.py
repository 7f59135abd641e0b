"""One HTML page that needs nothing else: sections of text, tables and pictures, with the pictures
in it.

Whatever comes from outside (names of methods, paths, settings) is escaped. There are no scripts and
no links but those within the page; a content policy in its head forbids a browser to fetch
anything. Texts may hold `code` between backticks.
"""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from lmme3dhf.reports.tables import Table, html

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
    """

    name: str
    title: str
    caption: str
    png: Path
    svg: Path | None = None
    number: str | None = None


Part = Text | Listing | Grid | Verbatim | Picture | Table


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
@media (max-width: 600px) {
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
  figure, tr, .banner, .warning { break-inside: avoid; }
  figure img { max-height: 225mm; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .12rem .3rem; }
  table.numbers td:first-child { min-width: 0; position: static; }
  table.numbers td:nth-child(2) { white-space: normal; }
  .banner, .warning, .absent, nav, pre, code { print-color-adjust: exact;
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
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
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
</body>
</html>
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
<img src="{{ content(part) }}" alt="{{ part.title }}">
<figcaption><strong>{{ label(part) }}</strong>. {{ part.caption | code }}</figcaption>
</figure>""",
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
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = lambda text: _with_code(escape(text))
    environment.globals |= {"content": _content, "label": _label}
    templates = {kind: environment.from_string(text) for kind, text in _PARTS.items()}

    def shown(part: Part) -> Markup:
        if isinstance(part, Table):
            return _with_code(Markup(html(part)))
        return Markup(templates[type(part)].render(part=part))

    return environment.from_string(_PAGE).render(
        page=page, style=Markup(_STYLE), shown=shown, entries=_entries
    )


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
        if isinstance(part, Table):
            yield part.name, part.title.split(" – ")[0].split(". ")[0]
        elif isinstance(part, Picture):
            yield f"figure-{part.name}", f"Fig. {part.number}" if part.number else part.title


def _label(picture: Picture) -> str:
    return f"As Fig. {picture.number} of the paper: " * bool(picture.number) + picture.title


def _content(picture: Picture) -> str:
    """The picture as a data URI."""
    content, kind = embedded(picture.png, picture.svg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


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
