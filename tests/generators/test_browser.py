"""The page in a real browser: it asks for nothing, sorts, fits a phone, and prints."""

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.generators.conftest import SHOWN_EVIL, Made

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A Chromium that is on this machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, made: Made) -> Iterator:
    """The page, open; afterwards nothing was asked for or complained about."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    asked, said = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))

    def answer(route) -> None:
        url = route.request.url
        if url.startswith("data:") or url == made.page.as_uri():
            route.continue_()
        else:
            asked.append(url)
            route.abort()

    context.route("**/*", answer)
    tab.goto(made.page.as_uri())
    yield tab
    assert asked == []
    assert said == []
    context.close()


def first_column(tab, table: str) -> list[str]:
    return tab.locator(f"#{table} + .scroll tbody th").all_inner_texts()


def test_a_click_on_a_column_sorts_the_table(opened):
    """Numbers from the highest, again from the lowest, names from A; what is undefined comes last
    either way. Catches an order of texts ("9" after "10"), and a script that the page's own policy
    forbids.
    """
    table = opened.locator("#means + .scroll table")
    assert first_column(opened, "means") == ["alpha", SHOWN_EVIL, "beta", "gone"]
    videos = table.get_by_role("button", name="videos")
    videos.click()
    assert first_column(opened, "means") == ["alpha", "beta", SHOWN_EVIL, "gone"]
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("videos")
    videos.click()
    assert first_column(opened, "means") == ["gone", SHOWN_EVIL, "beta", "alpha"]
    table.get_by_role("button", name="mean").first.click()
    assert first_column(opened, "means") == ["alpha", SHOWN_EVIL, "beta", "gone"]
    table.get_by_role("button", name="mean").first.click()
    assert first_column(opened, "means") == ["beta", SHOWN_EVIL, "alpha", "gone"]
    table.get_by_role("button", name="generator").click()
    assert first_column(opened, "means")[1:] == ["alpha", "beta", "gone"]
    assert table.locator("th[aria-sort]").count() == 1
    # The other tables stay as they were.
    assert first_column(opened, "levels") == ["alpha", SHOWN_EVIL, "beta", "gone"]


def test_sorting_works_from_the_keyboard(opened):
    """Catches headers that only a mouse reaches."""
    opened.locator("#means + .scroll").get_by_role("button", name="videos").focus()
    opened.keyboard.press("Enter")
    assert first_column(opened, "means")[:2] == ["alpha", "beta"]


@pytest.mark.parametrize("width", [360, 390, 800, 1200])
def test_the_page_is_never_wider_than_the_window(opened, width):
    """On a phone the tables scroll in their boxes. Catches a page that scrolls sideways, and tables
    that are cut off.
    """
    opened.set_viewport_size({"width": width, "height": 800})
    size = "[document.documentElement.scrollWidth, innerWidth]"
    wide, window = opened.evaluate(size)
    assert wide <= window == width
    cut_off = """[...document.querySelectorAll("table")]
      .filter(table => table.scrollWidth > table.parentElement.clientWidth)
      .filter(table => getComputedStyle(table.parentElement).overflowX !== "auto").length"""
    assert opened.evaluate(cut_off) == 0


def test_every_picture_can_be_drawn(opened):
    """Catches a picture that is cut off or of a wrong kind."""
    shown = opened.evaluate(
        "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
    )
    assert len(shown) > 7
    assert all(shown)


def test_nothing_from_outside_runs(browser, made: Made):
    """The evil name, and a script that somebody adds: the policy allows only the page's own by its
    hash. Catches a policy that is too wide.
    """
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(made.page.as_uri())
    ran = tab.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          return window.ran === true;
        }"""
    )
    assert not ran
    assert tab.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    context.close()


def test_without_script_the_page_is_whole(browser, made: Made):
    """Catches content that only a script brings, and buttons that do nothing."""
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(made.page.as_uri())
    assert first_column(tab, "means") == ["alpha", SHOWN_EVIL, "beta", "gone"]
    assert tab.locator("button").count() == 0
    context.close()


def test_it_prints_on_paper(opened, tmp_path):
    """A4, every table whole. Catches boxes that hide their columns on paper."""
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 703, "height": 1000})  # A4 less its margins, at 96 dpi
    hidden = """[...document.querySelectorAll(".scroll")]
      .filter(box => getComputedStyle(box).overflowX !== "visible").length"""
    assert opened.evaluate(hidden) == 0
    assert opened.locator("th button").count() > 0
    pdf = tmp_path / "page.pdf"
    opened.pdf(path=str(pdf), prefer_css_page_size=True)
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    (width, height) = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content).groups()
    assert (round(float(width)), round(float(height))) == (595, 842)
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", content)) < 30
