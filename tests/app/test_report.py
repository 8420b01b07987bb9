"""Reports in a real browser: nothing is fetched, nothing complains, every section is filled, on any screen, by day and by night."""

from pathlib import Path

import pytest

from patchclamp.app import circuit_report, effect_report
from patchclamp.app.asked import Source, read
from patchclamp.app.examine import examine

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip

if not CHROMIUM.exists():
    pytest.skip(f"no browser: {CHROMIUM} is missing, so no report was opened", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright, so no report was opened")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(town, tmp_path_factory):
    clean = "When Mary and John went to the store, John gave a drink to"
    found = examine(town, clean, clean.replace("John gave", "Mary gave"), parts=("q",))
    return found, found.page().save(tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_report_opens_by_itself(browser, report, width, scheme):
    found, path = report
    asked, trouble = [], []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == "Inside specimen:town"
    sections = page.locator("details.section")
    assert sections.locator("> summary h2").all_inner_texts() == [s.title for s in found.sections]
    for i, section in enumerate(found.sections):
        shown = sections.nth(i)
        if section.folded:
            shown.locator("> summary").click()
        assert shown.locator("> .reading").first.inner_text().strip()
        assert shown.locator("> .pictures > *").count() == len(section.pictures) > 0
        for n in range(len(section.pictures)):
            box = shown.locator("> .pictures > *").nth(n).bounding_box()
            assert box is not None and box["width"] > 50 and box["height"] > 20, (section.title, n)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert trouble == [] and [u for u in asked if not u.startswith("data:")] == [path.as_uri()]


@pytest.fixture(scope="module", params=["effects", "circuit"])
def other(request, town):
    asked = read(town, Source(task="town/ioi", count=5))
    if request.param == "effects":
        return effect_report.effect_report(asked, effect_report.How())
    return circuit_report.circuit_report(asked, circuit_report.How("eap", edges=60, random=1))


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_other_reports_open_by_themselves_too(browser, other, tmp_path, width, scheme):
    path, asks, trouble = other.page.save(tmp_path / "report.html"), [], []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.on("request", lambda request: asks.append(request.url))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    titles = page.locator("details.section > summary h2").all_inner_texts()
    assert titles == [s.title for s in other.page.sections] and page.locator("figure").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert trouble == [] and [u for u in asks if not u.startswith("data:")] == [path.as_uri()]
