"""The website in a real browser, opened from its folder: no error, no other host, no barrier, search that finds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from lib.course.commands.site import build
from lib.lesson import series

SCHEMES = ("light", "dark")
SETTLED = "Promise.allSettled(document.getAnimations().map(animation => animation.finished))"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(series.find(), tmp_path_factory.mktemp("web") / "site").parent


@pytest.fixture(params=SCHEMES)
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A tab of a reader whose system is light or dark; `page.wrong` fills with what should not happen."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    page.wrong = []
    page.on("console", lambda said: said.type in ("error", "warning") and page.wrong.append((page.url, said.text)))
    page.on("pageerror", lambda error: page.wrong.append((page.url, str(error))))
    page.on("requestfailed", lambda asked: page.wrong.append((page.url, f"{asked.url} failed")))
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:"))
            or page.wrong.append((page.url, asked.url)))  # fmt: skip
    yield page
    page.close()


def test_no_page_errs_or_asks_another_host(page: Page, site: Path):
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    assert len(paths) > 40
    for path in paths:
        page.goto(path.as_uri())
    assert not page.wrong


def test_no_page_shuts_anybody_out(page: Page, site: Path):
    found = []
    for path in [site / "index.html", site / "lessons.html", *sorted((site / "notebooks").glob("*.html"))]:
        page.goto(path.as_uri())
        page.evaluate(SETTLED)  # while colours change from one theme to the other, no contrast is what a reader sees
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                where = [node["target"] for node in violation["nodes"]][:3]
                found.append((path.name, violation["id"], len(violation["nodes"]), where))
    assert not found


def test_search_finds(page: Page, site: Path):
    page.goto(f"{(site / 'search.html').as_uri()}?q=causal+mask")
    page.wait_for_selector("#search-results li a")
    titles = page.locator("#search-results li a").all_text_contents()
    assert any("Attention" in title for title in titles)
    assert not page.wrong


def test_the_theme_follows_the_reader_and_the_menu(page: Page, site: Path):
    page.goto((site / "index.html").as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    as_the_system = page.evaluate(ground)
    seen = {}
    for mode in SCHEMES:
        page.locator("button.theme-switch-button").click()
        page.locator(f"button.theme-change-button[data-mode={mode}]").click()
        seen[mode] = page.evaluate(ground)
    assert seen["light"] != seen["dark"] and as_the_system in seen.values()


def test_a_folded_answer_opens_when_asked(page: Page, site: Path):
    page.goto((site / "notebooks" / "02_attention.html").as_uri())
    folded = page.locator("article details").first
    assert not folded.locator("p").first.is_visible()
    folded.locator("summary").click()
    assert folded.locator("p").first.is_visible()
