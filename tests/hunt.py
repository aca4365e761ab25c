"""What takes long: hunts, of which `make test` takes a few seconds and `make test-long` all, and the slowest files."""

import os

LONG = "COURSE_TEST_LONG"  # in the environment: set by pytest's option --long

# Longest first, as they are begun: then two processes end at about the same time. `make check` does without them,
# but for those of what has changed.
SLOWEST = """
grading/test_hostile exercises/test_solved exercises/test_mutants decide/test_known grading/test_holds
trainer/test_parallel grading/test_kill grading/test_honest course/test_runner grading/test_nbgrader
grading/test_sandbox weights/test_pretrained trainer/test_precision course/test_bad_input course/test_learners_copy
course/test_website inference/test_server course/test_train sources/test_catalogue course/test_own_settings
course/test_renewal course/test_teaching grading/test_gradebook
""".split()


def hunt(some, whole):
    """So many seeds, examples or kills: some in every run of the tests, the whole in a long one."""
    return whole if os.environ.get(LONG) else some
