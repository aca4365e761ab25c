"""What takes long: hunts, of which `make test` takes a few seconds and `make test-long` all, and the slowest files."""

import os

LONG = "COURSE_TEST_LONG"  # in the environment: set by pytest's option --long

# Longest first, as they are begun: then two processes end at about the same time. `make check` does without them,
# but for those of what has changed.
SLOWEST = """
exercises/test_solved grading/test_hostile grading/test_kill grading/test_honest trainer/test_parallel
course/test_runner exercises/test_mutants grading/test_nbgrader grading/test_sandbox trainer/test_precision
weights/test_pretrained course/test_bad_input course/test_teaching course/test_learners_copy course/test_website
inference/test_server course/test_train course/test_own_settings course/test_renewal sources/test_catalogue
grading/test_gradebook
""".split()


def hunt(some, whole):
    """So many seeds, examples or kills: some in every run of the tests, the whole in a long one."""
    return whole if os.environ.get(LONG) else some
