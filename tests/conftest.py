"""What several test files share, in which order they run, and how long a hunt lasts."""

import os
import signal
from pathlib import Path

import pytest
from hunt import LONG, SLOWEST
from hypothesis import settings

from lib.device import threads

# Where tests are started in the background, Ctrl-C is ignored, here and in all that they start; several send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["browser"]  # only where it is asked for by name, as `make browser` does

HERE = Path(__file__).parent

settings.register_profile("long", max_examples=2000, deadline=None)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="every hunt in full, as `make test-long` does: hours")


def pytest_configure(config):
    config.addinivalue_line("markers", "long(time): takes so long that only --long runs it")
    if config.getoption("long"):
        os.environ[LONG] = "1"  # for the test files, as they are imported, here and in the processes of xdist
        settings.load_profile("long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("long"):
        for item in items:
            if mark := item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason=f"{mark.args[0]}; make test-long runs it"))
    place = {HERE / f"{name}.py": number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture
def one_thread():
    """Small tensors are fastest on one thread, and bit-identical from run to run."""
    with threads(1):
        yield
