"""How long a hunt lasts: a few seconds in `make test`, minutes to hours in `make test-long` (pytest --long)."""

import os

LONG = "COURSE_TEST_LONG"  # in the environment: set by --long


def hunt(some, whole):
    """So many seeds, examples or kills: some in every run of the tests, the whole in a long one."""
    return whole if os.environ.get(LONG) else some
