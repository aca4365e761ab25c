"""Every lesson in JupyterLab, in a real browser: Run All, no error, no request to another host; exercises by hand."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import PATIENCE, Server, Visit, contrast, errors
from playwright.sync_api import BrowserContext, Page, expect

from lib.answers import answer, mutant_source, reference_source
from lib.exercises.exercise import exercise
from lib.lesson import series
from lib.lesson.series import Lesson

THEMES = ("JupyterLab Dark", "JupyterLab Light")
SECONDS = 1800  # for one lesson, whatever else the machine has to do
# In these lessons an exercise is solved at the second try: {lesson: (exercise, name of the wrong answer given first)}.
BY_HAND = {"00": ("00.greedy", "off by one"), "02": ("02.causal_mask", "transposed"), "04": ("04.rms_norm", "no root")}

expect.set_options(timeout=1000 * PATIENCE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lesson" in metafunc.fixturenames:
        chosen = series.find(metafunc.config.getoption("lessons").split())
        metafunc.parametrize("lesson", chosen, ids=[lesson.number for lesson in chosen])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("lab"), pytestconfig.getoption("preset"))
    yield server
    server.close()


@pytest.fixture
def picture(pytestconfig: pytest.Config) -> Callable[[Page, str], None]:
    """Keeps what a page shows, in a light theme and a dark one, where pictures are asked for."""
    folder = pytestconfig.getoption("pictures")

    def keep(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep


def test_lesson(lesson: Lesson, server: Server, context: BrowserContext, picture: Callable[[Page, str], None]):
    visit = Visit(server, context, lesson)
    assert not errors(visit.run_all(SECONDS))
    if lesson.number in BY_HAND:
        solve(visit, *BY_HAND[lesson.number], picture)
        assert not errors(visit.save())
    assert not visit.wrong
    visit.close()


def solve(visit: Visit, id: str, wrong: str, picture: Callable[[Page, str], None]) -> None:
    """Give a wrong answer, read what the check says of it, open a hint, by keyboard; then give the right one."""
    card = visit.answer(id, mutant_source(id, wrong))
    expect(card).to_contain_text("Not yet")
    expect(card).to_contain_text(answer(id).mutant(wrong).says)
    hint = card.get_by_text(exercise(id).hints[0].replace("`", ""))
    expect(hint).to_be_hidden()
    card.get_by_text("Hint 1 of 3").focus()
    visit.page.keyboard.press("Enter")
    expect(hint).to_be_visible()
    for theme in THEMES:
        visit.theme(theme)
        assert contrast(card) >= 4.5, theme
        picture(visit.page, f"{id} wrong, {theme}")
    card = visit.answer(id, reference_source(id))
    expect(card).to_contain_text("Passed")
    for theme in THEMES:
        visit.theme(theme)
        assert contrast(card) >= 4.5, theme
        picture(visit.page, f"{id} right, {theme}")


def test_progress_agrees(server: Server, context: BrowserContext, tmp_path: Path, picture, pytestconfig: pytest.Config):
    """After the lessons: what was solved in them, and nothing else, has been passed, each at the second try."""
    chosen = {lesson.number for lesson in series.find(pytestconfig.getoption("lessons").split())}
    solved = {id for number, (id, _) in BY_HAND.items() if number in chosen}
    files = tmp_path / "progress.html", tmp_path / "progress.json"
    program = "from lib.course.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, "progress", "--html", files[0], "--export", files[1]],
                   env=os.environ | {"COURSE_HOME": str(server.home)}, check=True, capture_output=True)  # fmt: skip
    found = json.loads(files[1].read_text(encoding="utf-8"))
    begun = {e["id"]: (e["state"], e["tries"]) for e in found["exercises"] if e["state"] != "not attempted"}
    assert begun == dict.fromkeys(solved, ("passed", 2))
    assert found["points"] == sum(exercise(id).points for id in solved)

    wrong = []
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
    page.goto(files[0].as_uri())
    expect(page.locator("td.passed")).to_have_count(len(solved))
    expect(page.locator(".total")).to_contain_text(f"{found['points']} of {found['out_of']} points")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        picture(page, f"progress-{scheme}")
    assert not wrong
