"""Every lesson in JupyterLab, in a real browser: Run All, no error, no request to another host."""

from collections.abc import Iterator

import pytest
from lab import Server, Visit, errors
from playwright.sync_api import BrowserContext

from lib.course import lessons
from lib.course.lessons import Lesson

MOST = {"smoke": 180, "cpu": 1200}  # seconds for one lesson, on a busy machine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lesson" in metafunc.fixturenames:
        chosen = lessons.find(metafunc.config.getoption("lessons").split())
        metafunc.parametrize("lesson", chosen, ids=[lesson.number for lesson in chosen])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("lab"), lessons.find(), pytestconfig.getoption("preset"))
    yield server
    server.close()


def test_run_all(lesson: Lesson, server: Server, context: BrowserContext, pytestconfig: pytest.Config):
    visit = Visit(server, context, lesson)
    nb = visit.run_all(MOST.get(pytestconfig.getoption("preset"), 1200))
    assert not errors(nb)
    assert not visit.wrong
    visit.close()
