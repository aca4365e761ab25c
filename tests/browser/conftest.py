"""A real browser, for `make browser`: not part of `pytest tests`, which needs neither browser nor minutes."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser that asks nobody for anything by itself, in a container too.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lessons", default="", help="only these lessons, such as '00 03'; default: all")
    parser.addoption("--preset", default="smoke", help="the size at which lessons run: smoke (default) or cpu")
    parser.addoption("--pictures", default="", help="folder for pictures of what the browser showed")


def executable() -> str:
    """The browser to drive: COURSE_BROWSER, else the first Chromium on the path."""
    found = os.environ.get("COURSE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.exit("no Chromium here; install it (Debian: apt install chromium) or name one in COURSE_BROWSER", 2)
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser window that nobody has used before."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()
