"""Pages in a real browser: they fetch nothing, report no error, show the right number under pointer and keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import picture_samples as samples
import pytest

from patchclamp.picture import Heatmap, Page, Picture, Section

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

if not CHROMIUM.exists():
    pytest.skip(f"no browser: {CHROMIUM} is missing, so no page was opened", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright, so no page was opened")

CELLS = Heatmap(
    np.array([[0.1234, 0.5678], [np.nan, 0.00091]]),
    ("0", "1"),
    ("<b>", " John"),
    "layer",
    "position",
    unit="probability",
    details={"rank": np.array([[1, 2], [3, 4]])},
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a picture's page; fails the test if it fetched anything or complained."""
    contexts, trouble = [], []

    def opened(picture: Picture, width: int = 1200, **settings):
        context = browser.new_context(viewport={"width": width, "height": 800}, **settings)
        contexts.append(context)
        page = context.new_page()
        path = picture.save(tmp_path / "page.html")
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on("request", lambda request: trouble.append(request.url) if not known(request.url, path) else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not trouble


def known(url: str, path: Path) -> bool:
    return url == path.as_uri() or url.startswith("data:")


def tip(page) -> str:
    return page.locator(".tip").inner_text()


@pytest.mark.parametrize("name", ["report", "hostile"])
def test_a_page_opens_quietly(open_page, name):
    page = open_page(samples.EVERYTHING[name])
    assert page.locator("patchclamp-picture .tip").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_picture_comes_alive(open_page, theme):
    extreme = (picture for picture in samples.EXTREME.values() if not isinstance(picture, Page))
    pictures = (*samples.ORDINARY.values(), *extreme)
    page = open_page(Page("All", sections=(Section("All", pictures=pictures),)), color_scheme=theme)
    assert page.evaluate("document.querySelector('patchclamp-picture').alive") is True


def test_the_pointer_shows_a_cells_value(open_page):
    page = open_page(CELLS)
    page.locator("td", has_text="0.12").hover()
    assert tip(page).split("\n")[:2] == ["layer 0 · position <b>", "0.1234 probability"]
    assert re.search(r"rank\s+1", tip(page))
    assert page.locator("th.at").all_inner_texts() == ["<b>", "0"]
    page.locator("figure").hover(position={"x": 2, "y": 2})
    assert not page.locator(".tip").is_visible()


def test_the_keyboard_shows_a_cells_value(open_page):
    page = open_page(CELLS)
    page.keyboard.press("Tab")
    assert "0.1234 probability" in tip(page)
    page.keyboard.press("ArrowRight")
    assert "0.5678 probability" in tip(page)
    page.keyboard.press("ArrowDown")
    assert "0.00091 probability" in tip(page)
    page.keyboard.press("ArrowLeft")
    assert "no value" in tip(page)
    page.keyboard.press("Escape")
    assert not page.locator(".tip").is_visible()


def test_the_browsers_own_tooltip_does_not_double_ours(open_page):
    page = open_page(CELLS)
    cell = page.locator("td", has_text="0.12")
    assert "0.1234" in cell.get_attribute("title")
    cell.hover()
    assert cell.get_attribute("title") is None


def test_an_images_cell_shows_its_value(open_page):
    picture = samples.effects(48, 100)
    page = open_page(picture)
    box = page.locator(".raster").bounding_box()
    row, column = 20, 70
    page.mouse.move(box["x"] + (column + 0.5) * box["width"] / 100, box["y"] + (row + 0.5) * box["height"] / 48)
    assert f"layer {row} · head {column}" in tip(page)
    assert f"{float(f'{picture.values[row, column]:.4g}'):g}".replace("-", "−") in tip(page)
    page.locator(".raster").focus()
    page.keyboard.press("ArrowRight")
    assert f"layer {row} · head {column + 1}" in tip(page)


def test_a_click_on_a_head_enlarges_it(open_page):
    picture = samples.attention(3)
    page = open_page(picture)
    before = page.locator(".large .day").get_attribute("src")
    page.locator(".heads button").nth(2).click()
    assert page.locator(".large .head b").inner_text() == "L2H2"
    assert page.locator(".large .day").get_attribute("src") not in (None, before)
    assert page.locator(".heads button").nth(2).get_attribute("aria-pressed") == "true"
    box = page.locator(".raster").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 2)
    weight = float(tip(page).split("\n")[1].removesuffix(" weight"))
    assert weight == pytest.approx(picture.patterns[2].weights[-1, 0], abs=1e-4)


def test_the_keyboard_enlarges_a_head(open_page):
    page = open_page(samples.attention(3))
    page.locator(".heads button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator(".large .head b").inner_text() == "L1H1"


def test_lines_join_tokens_and_one_query_can_be_singled_out(open_page):
    picture = samples.attention(1)
    page = open_page(picture)
    drawn = (picture.patterns[0].weights >= 0.02).sum()
    assert page.locator(".lines path").count() == pytest.approx(drawn, abs=1)
    page.locator(".lines .from bdi").nth(13).hover()
    left = (picture.patterns[0].weights[13] >= 0.02).sum()
    assert page.locator(".lines path:not(.off)").count() == pytest.approx(left, abs=1)


def test_a_plot_shows_the_values_at_the_pointer(open_page):
    page = open_page(samples.lines())
    box = page.locator(".area").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 6 / 11 + 3, box["y"] + 20)
    assert tip(page).startswith("layer 6")
    assert "0.5455" in tip(page)
    page.locator(".area").focus()
    page.keyboard.press("ArrowRight")
    assert tip(page).startswith("layer 7")


def test_a_node_shows_its_edges(open_page):
    page = open_page(samples.network())
    page.locator(".node").nth(1).hover()
    assert "0.8 logits" in tip(page)
    assert re.search(r"from ·Mary\s+0.9", tip(page))
    page.locator(".node").nth(0).hover()
    assert page.locator(".web path.off").count() == 1


@pytest.mark.parametrize("name", ["report", "hostile"])
def test_the_page_never_scrolls_sideways(open_page, name):
    page = open_page(samples.EVERYTHING[name])
    for width in (360, 768, 1440, 2560):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_row_labels_stay_when_a_wide_map_scrolls(open_page):
    page = open_page(samples.lens(12, 30), 360)
    label = page.locator("th[scope=row]").first
    before = label.bounding_box()["x"]
    page.locator(".scroll").evaluate("box => { box.scrollLeft = 400 }")
    assert label.bounding_box()["x"] == pytest.approx(before, abs=4)


@pytest.mark.parametrize("column", [0, 29])
def test_tooltips_stay_on_the_screen(open_page, column):
    page = open_page(samples.lens(12, 30), 360)
    page.locator("tbody tr").first.locator("td").nth(column).hover()
    box = page.locator(".tip").bounding_box()
    assert box["x"] >= 0
    assert box["y"] >= 0
    assert box["x"] + box["width"] <= 360


def test_without_script_everything_can_be_read(open_page):
    page = open_page(samples.report(), java_script_enabled=False)
    cell = page.locator("table.words td[title]").first
    value = f"{float(f'{samples.lens().values[0, 0]:.4g}'):g}"
    assert f"{value} probability" in cell.get_attribute("title")
    assert page.locator(".large .shaded img").first.is_visible()
    page.locator("summary", has_text="Strongest key").click()
    assert page.locator(".behind table").first.is_visible()


def test_sections_fold_without_script(open_page):
    page = open_page(samples.report(), java_script_enabled=False)
    figure = page.locator("figure").first
    page.locator("summary h2").first.click()
    assert not figure.is_visible()


def test_dark_and_light_by_preference_and_by_attribute(open_page):
    def shown(page) -> tuple[str, bool]:
        colour = page.locator("td.q64").first.evaluate("cell => getComputedStyle(cell).backgroundColor")
        return colour, page.locator(".large .night").first.is_visible()

    picture = Page("T", sections=(Section("S", pictures=(CELLS, samples.attention(1))),))
    light, dark = (shown(open_page(picture, color_scheme=scheme)) for scheme in ("light", "dark"))
    assert light != dark
    assert (light[1], dark[1]) == (False, True)
    page = open_page(picture, color_scheme="light")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert shown(page) == dark


def test_pieces_put_in_later_come_alive(open_page):
    from patchclamp.picture import html

    page = open_page(samples.bars())
    page.evaluate("piece => document.body.insertAdjacentHTML('beforeend', piece)", html.body(CELLS))
    page.locator("td", has_text="0.12").hover()
    assert "0.1234 probability" in page.locator(".tip").last.inner_text()


def test_text_on_cells_is_readable_as_drawn(open_page):
    """The contrast that the browser computes, not the one that Python promises."""
    page = open_page(samples.lens(12, 14))
    computed = "[...document.querySelectorAll('td[title]')].map(cell => getComputedStyle(cell))"
    pairs = page.evaluate(computed + ".map(style => [style.color, style.backgroundColor])")
    for one, other in {tuple(pair) for pair in pairs}:
        assert ratio(one, other) >= 4.5


def ratio(one: str, other: str) -> float:
    from patchclamp.picture import colour

    return colour.contrast(*("#{:02x}{:02x}{:02x}".format(*map(int, re.findall(r"\d+", text)[:3])) for text in (one, other)))
