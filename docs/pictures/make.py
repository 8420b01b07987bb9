"""Makes the picture of the README: two sections of a report as a browser draws them.

python docs/pictures/make.py        needs playwright and a chromium (CHROMIUM, default /usr/bin/chromium)
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import patchclamp as pc
from patchclamp.app.examine import examine

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
SHOWN = ("What each block would say", "Where the difference travels")
HERE = Path(__file__).parent


def main() -> None:
    page = examine(pc.load("specimen:town"), CLEAN, CORRUPT).page()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page.save(Path(folder) / "report.html")
        browser = play.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_page(viewport={"width": 1130, "height": 900}, device_scale_factor=1.5)
        tab.goto((Path(folder) / "report.html").as_uri())
        # Only the sections shown stay, in their order.
        tab.evaluate(
            "titles => document.querySelectorAll('details.section, header, footer').forEach(part => {"
            " const title = part.querySelector('h2')?.textContent.trim() ?? '';"
            " if (!titles.some(t => title.includes(t))) part.style.display = 'none'; })",
            list(SHOWN),
        )
        tab.locator("article.report").screenshot(path=HERE / "examine.png")
        browser.close()


if __name__ == "__main__":
    main()
