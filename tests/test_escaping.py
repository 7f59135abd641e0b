"""Text from outside in Markdown, read by a parser that we did not write."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from lmme3dhf.escaping import (
    cell_text,
    markdown_code,
    markdown_row,
    markdown_table,
    markdown_text,
    spreadsheet_text,
    visible,
)

PLAIN = ["seed0001", "a_b_c.mp4", "R&D", "3.5 (of 5)", "-0.25", "face's left eye", "1,600", "100 %"]
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- ",
    "&lt;b&gt; &copy; &#60;",
    "[link](javascript:alert(1))",
    "![picture](http://a.b/c.png)",
    "[1]: http://a.b",
    "<http://a.b>",
    "http://a.b/c and https://a.b and www.a.b",
    "**bold** __bold__ *i* _i_ ~~gone~~",
    "# heading",
    "- entry",
    "1. entry",
    "1) entry",
    "+ entry",
    "> quote",
    "---",
    "===",
    "```",
    "~~~",
    "``a` <b>c</b>",
    "a ` b",
    "a\\",
    "\\`<b>`",
    "a|b",
    "a\\|b",
    "$x$",
    '=HYPERLINK("http://x","y")',
    "    code",
    "\\<b>",
]
MARKUP = MarkdownIt("commonmark").enable("table")


class Read(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        """Takes a tag."""
        assert not attributes
        self.tags.append(tag)

    def handle_data(self, data):
        """Takes text."""
        self.text += data


@pytest.mark.parametrize("text", [*PLAIN, *HOSTILE])
def test_markdown_shows_the_text_and_nothing_else(text):
    """As a line, an entry of a list and a cell of a table. Catches markup, HTML, an entity and a
    cell of its own; backticks alone make code, of which the bars are shown without their stroke.
    """
    shown = markdown_text(text)
    plain = text.strip().replace("`", "")
    line = Read(MARKUP.render(shown))
    assert set(line.tags) <= {"p", "code"}
    assert line.text.strip().replace("`", "") == plain
    entry = Read(MARKUP.render(f"- {shown}"))
    assert set(entry.tags) <= {"ul", "li", "code"}
    table = "\n".join(markdown_table(["a", "b"], [[shown, "end"]]))
    cells = Read(MARKUP.render(table))
    assert cells.tags.count("td") == 2
    assert set(cells.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert cells.text.replace("`", "").split() == ["a", "b", *plain.split(), "end"]
    code = Read(MARKUP.render(markdown_code(text)))
    assert code.tags == ["p", "code"]


@pytest.mark.parametrize("text", HOSTILE[:4])
def test_no_html_stands_in_markdown(text):
    """For readers of Markdown that know no escapes."""
    assert "<" not in markdown_text(text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays_as_it_is(text):
    """Catches strokes all over a page that nobody attacks."""
    assert markdown_text(text) == text
    assert spreadsheet_text(text) == text


def test_addresses_are_no_links():
    """Of those that GitHub makes links of without being asked."""
    shown = markdown_text("http://a.b www.a.b HTTPS://a.b")
    assert "://" not in shown
    assert "www." not in shown


def test_controls_and_directions_are_shown():
    """Catches a name that turns the rest of a line round, or that hides letters."""
    assert visible("a\u202eb\u200bc\nd\x1b[31m\ud800") == (
        "a⟨U+202E⟩b⟨U+200B⟩c⟨U+000A⟩d⟨U+001B⟩[31m⟨U+D800⟩"
    )
    assert markdown_text("a\n# b") == "a⟨U+000A⟩# b"


def test_a_row_has_its_cells():
    """Bars in code end no cell."""
    assert markdown_row(["`a|b`", "c"]) == "| `a\\|b` | c |"


@pytest.mark.parametrize("text", ["=1", "'", "'=1", "''=1", "+a", "-a", "@a", " =1", "-1", "a", ""])
def test_an_apostrophe_comes_and_goes(text):
    """Catches a cell that is read back with an apostrophe more or less."""
    assert cell_text(spreadsheet_text(text)) == text
