"""What several test files share."""

import signal

import pytest

from lib.device import threads

# Where tests are started in the background, Ctrl-C is ignored, here and in all that they start; several send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["browser"]  # only where it is asked for by name, as `make browser` does


@pytest.fixture
def one_thread():
    """Small tensors are fastest on one thread, and bit-identical from run to run."""
    with threads(1):
        yield
