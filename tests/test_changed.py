"""`make check` finds the tests of what has changed, and all that are quick where it cannot tell."""

import changed
import pytest
from hunt import SLOWEST


@pytest.mark.parametrize("path, tests", [
    ("lib/shop/desk.py", {"tests/shop/test_desk.py"}),
    ("lib/attention.py", {"tests/test_attention.py"}),
    ("lib/grading/sandbox.py", {"tests/grading/test_sandbox.py"}),  # slow, but its own
    ("tests/shop/test_desk.py", {"tests/shop/test_desk.py"}),
    ("tests/hostile/odd.py", {"tests/grading/test_hostile.py"}),
    ("notebooks/02_attention.ipynb", {"tests/test_notebooks.py"}),
    ("README.md", {"tests/test_setup.py"}),
    ("docs/site/conf.py", changed.QUICK),
    ("conftest.py", changed.QUICK),
])  # fmt: skip
def test_whose_tests_are_whose(path, tests):
    assert changed.tests_of(path) == tests


def test_where_there_is_no_mirror_those_that_import_it_or_its_room():
    assert "tests/lesson/test_journal.py" in changed.tests_of("lib/lesson/files.py")
    assert changed.tests_of("lib/grading/pool.py") == {t for t in changed.QUICK if t.startswith("tests/grading/")}
    assert changed.tests_of("tests/forked.py") > {"tests/exercises/test_solved.py"}, "no quick one imports it"


def test_an_exercise_has_its_mutants_and_nothing_has_all_that_is_quick():
    both = changed.runs(["lib/answers/a02.py", "lib/exercises/l03.py"])
    assert [run[0] for run in both] == [changed.HOUSE, changed.MUTANTS] and "02. or 03." in both[1]
    [alone] = changed.runs([])
    assert changed.QUICK < set(alone) and not {f"tests/{name}.py" for name in SLOWEST} & set(alone)


def test_the_slowest_are_there():
    assert {f"tests/{name}.py" for name in SLOWEST} <= set(changed.TESTS)
