"""What several test files share."""

import pytest

from lib.device import threads


@pytest.fixture
def one_thread():
    """Small tensors are fastest on one thread, and bit-identical from run to run."""
    with threads(1):
        yield
