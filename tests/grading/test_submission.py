"""Whose file it is, and which code of a notebook is the answer."""

import json
import os

import pytest

from lib.course.commands.grade import Work
from lib.errors import CourseError
from lib.exercises.exercise import exercise
from lib.grading.grades import Report
from lib.grading.reading import Cell
from lib.grading.submission import answer, find, home, lessons

MASK = exercise("02.causal_mask")
KEY = "02-causal_mask"
GOOD = "def causal_mask(n):\n    return torch.ones(n, n).tril().bool()"
CHECK = Cell("check(...)", f"{KEY}-check")


def code(*cells):
    return answer(cells, MASK)


def test_the_cell_with_the_id():
    got = code(Cell("import numpy as np"), Cell(GOOD, KEY), CHECK)
    assert got.code.source == GOOD and got.code.helpers == () and got.notes == ()


def test_only_what_the_answer_needs_comes_along_and_never_a_check_or_a_stub():
    need = Cell("import numpy as np\nimport torch.nn as nn\ntrain()\ndef helper(n): return np.tri(n)")
    stub = Cell(exercise("02.attention").stub, "02-attention")
    got = code(need, stub, Cell("def causal_mask(n): return helper(n) > attention", KEY), CHECK)
    assert got.code.helpers == ("import numpy as np", "def helper(n):\n    return np.tri(n)")


def test_what_the_answers_own_cell_defines_is_not_fetched_from_elsewhere():
    """A lesson's `seen` in another cell, with all that it needs, is not the answer's."""
    lesson = Cell("from lib.attention import recorded\nseen = recorded(model)\nstep = 1")
    own = f"seen = []\n{GOOD}\nstep = step + 1\nother = causal_mask\ndef causal_mask(n):\n    seen.append(n + step)"
    assert code(lesson, Cell(own, KEY), CHECK).code.helpers == ("step = 1",)


@pytest.mark.parametrize("source", [
    MASK.stub, MASK.stub + "\n\n", "", "  \n", "# later", MASK.stub.replace("raise", "# now?\n    raise"),
])
def test_a_cell_left_as_it_was_is_no_answer(source):
    got = code(Cell(source, KEY), CHECK)
    assert got.code is None and got.problem == ""


def test_half_an_answer_is_one():
    half = 'def causal_mask(n):\n    if n == 1:\n        return torch.ones(1, 1).bool()\n    raise NotImplementedError'
    assert code(Cell(half, KEY), CHECK).code.source == half


def test_of_several_with_the_id_the_last_that_is_solved():
    got = code(Cell("def causal_mask(n): return 1", KEY), Cell(GOOD, KEY), Cell(MASK.stub, KEY), CHECK)
    assert got.code.source == GOOD and "several cells" in got.notes[0]


def test_below_the_stub_and_before_the_check():
    below = code(Cell(MASK.stub, KEY), Cell(GOOD), CHECK)
    assert below.code.source == GOOD and "cell of its own" in below.notes[0]
    assert code(Cell(MASK.stub, KEY), CHECK, Cell(GOOD)).code is None  # a lesson's own cell may stand there
    assert code(Cell(GOOD), Cell(MASK.stub, KEY), CHECK).code is None


def test_where_the_cell_is_gone_any_of_the_learners():
    assert code(Cell(GOOD), CHECK).code.source == GOOD
    assert code(Cell("from lib.attention import causal_mask"), CHECK).code is None
    assert "no cell for this answer" in code(CHECK).problem


def test_the_lessons_own_cells_are_nobodys_answer():
    from lib.lesson.series import find, source

    [lesson] = find(["02"])
    ours = [source(c) for c in lesson.notebook["cells"] if c["cell_type"] == "code" and "nbgrader" not in c["metadata"]]
    assert any("def " in s for s in ours)
    assert answer(tuple(map(Cell, ours)), exercise("02.attention")).code is None


def test_lessons_of_a_notebook():
    cells = (Cell("", KEY), Cell("", "03-split_heads-check"), Cell("", "02-no_such"), Cell("", "99-x"), Cell(""))
    assert lessons(cells) == {"02": 1 / 5, "03": 1 / 5}


# --- whose file ---


def notebook(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_one_notebook_a_learners_folder_a_class(tmp_path):
    for name in ("class/ada/02_attention.ipynb", "class/ada/03_x.ipynb", "class/bob/week 1/02_attention.ipynb",
                 "class/bob/.ipynb_checkpoints/02_attention-checkpoint.ipynb", "class/cleo/notes.txt", "dan.ipynb"):
        notebook(tmp_path / name)

    def names(*paths, **options):
        return [(s.learner, s.path.name, s.problem) for s in find([tmp_path / p for p in paths], **options)]

    ada = [("ada", "02_attention.ipynb", ""), ("ada", "03_x.ipynb", "")]
    assert names("class/ada") == ada
    assert names("class/ada/02_attention.ipynb") == ada[:1]
    assert names("dan.ipynb") == [("dan", "dan.ipynb", "")]
    assert names("class/ada", learner="eve") == [("eve", *a[1:]) for a in ada]
    everyone = [*ada, ("bob", "02_attention.ipynb", ""), ("cleo", "cleo", "no notebook in it")]
    assert names("class") == everyone
    assert names("class/ada", "dan.ipynb") == [*ada, ("dan", "dan.ipynb", "")]


def test_the_grades_are_no_learner(tmp_path):
    for name in ("class/ada/02_attention.ipynb", "class/bob/02_attention.ipynb", "class/cleo/notes.txt"):
        notebook(tmp_path / name)

    def names(out):
        (tmp_path / out).mkdir(parents=True, exist_ok=True)
        return [s.learner for s in find([tmp_path / "class"], out=tmp_path / out)]

    assert names("grades") == names("class/grades") == ["ada", "bob", "cleo"]
    (tmp_path / "class/grades").rmdir()
    assert names("class/build/grades") == ["ada", "bob", "cleo"]
    assert names("class/ada/grades") == ["ada", "bob", "build", "cleo"], "ada handed something in"


def test_links_are_not_followed(tmp_path):
    notebook(tmp_path / "secret" / "02_attention.ipynb")
    notebook(tmp_path / "class" / "ada" / "02_attention.ipynb")
    (tmp_path / "class" / "mallory").symlink_to(tmp_path / "secret")
    (tmp_path / "class" / "ada" / "more").symlink_to(tmp_path / "secret")
    got = find([tmp_path / "class"])
    assert [(s.learner, bool(s.problem)) for s in got] == [("ada", False), ("mallory", True)]


@pytest.mark.parametrize(("make", "says"), [("none", "no file or folder"), ("empty", "no notebook in")])
def test_nothing_to_grade_is_one_line(tmp_path, make, says):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match=says):
        find([tmp_path / make])


def lay(tmp_path, *names):
    for name in names:
        notebook(tmp_path / name)
    return tmp_path


def told(path, **options):
    return [(s.learner, s.path.name, bool(s.problem)) for s in find([path], **options)]


@pytest.mark.parametrize("inside", [
    ("attempt 1", "attempt 2"), ("Attempt_01", "Attempt_02"), ("submission-1", "submission-2"), ("v1", "v2"),
    ("1", "2"), ("week 1", "week 2"), ("2026-11-28", "2026-11-29"), ("old", "new"), ("draft", "final"),
    ("02_attention", "copy of 02"),
])  # fmt: skip
def test_attempts_are_one_learners(tmp_path, inside):
    lay(tmp_path, *(f"class/{who}/{each}/02_attention.ipynb" for who in ("ann", "bob") for each in inside))
    assert {(who, bad) for who, _, bad in told(tmp_path / "class")} == {("ann", False), ("bob", False)}


@pytest.mark.parametrize("inside", [
    ("learner-a", "learner-b"), ("ann", "bob"), ("s0123", "s0124"), ("Lee, Ann", "Lee, Bob"), ("@ann", "-bob"),
    ("a.b@example.org", "c.d@example.org"),
])  # fmt: skip
def test_a_folder_too_deep_is_told_and_never_merged(tmp_path, inside):
    lay(tmp_path, *(f"unzipped/submissions/{each}/02_attention.ipynb" for each in inside))
    says = "holds one folder, submissions, .*; if those in it are learners, give .*--learner"
    with pytest.raises(CourseError, match=says):
        find([tmp_path / "unzipped"])
    assert [who for who, _, _ in told(tmp_path / "unzipped/submissions")] == sorted(inside)
    with pytest.raises(CourseError, match="holds one folder, unzipped, and lesson 02 is in "):
        find([tmp_path])
    one = told(tmp_path / "unzipped/submissions", learner="ann")
    assert [(who, bad) for who, _, bad in one] == [("ann", False)] * 2
    lay(tmp_path, "unzipped/more/02_attention.ipynb")
    assert ("submissions", "02_attention.ipynb", True) in told(tmp_path / "unzipped"), "two people's, in one of a class"
    assert ("more", "02_attention.ipynb", False) in told(tmp_path / "unzipped")


@pytest.mark.parametrize("names", [("101", "102"), ("submission_17", "submission_18"), ("2026", "2027"), ("ann", "v2")])
def test_people_may_be_called_by_numbers(tmp_path, names):
    lay(tmp_path, *(f"class/{name}/02_attention.ipynb" for name in names))
    assert [who for who, _, _ in told(tmp_path / "class")] == list(names)


def test_several_lessons_in_folders_are_one_learners(tmp_path):
    lay(tmp_path, "class/ann/first part/02_attention.ipynb", "class/ann/heads/03_multi_head_attention.ipynb")
    assert {(who, bad) for who, _, bad in told(tmp_path / "class")} == {("ann", False)}


def test_flat_files_from_canvas_are_their_learners(tmp_path):
    lay(tmp_path, "canvas/leeann_12345_67890_02_attention.ipynb", "canvas/leebob_LATE_12346_67891_02_attention-1.ipynb",
        "canvas/leebob_12346_67892_03_multi_head_attention.ipynb", "canvas/who.ipynb")
    assert told(tmp_path / "canvas") == [
        ("leeann_12345", "leeann_12345_67890_02_attention.ipynb", False),
        ("leebob_12346", "leebob_12346_67892_03_multi_head_attention.ipynb", False),
        ("leebob_12346", "leebob_LATE_12346_67891_02_attention-1.ipynb", False), ("canvas", "who.ipynb", True),
    ]  # fmt: skip
    assert home(tmp_path / "leeann_12345_67890_02_attention.ipynb") == "02"
    assert told(tmp_path / "canvas/leeann_12345_67890_02_attention.ipynb")[0][0] == "leeann_12345"


@pytest.mark.parametrize("name", [
    "02_attention.ipynb.txt", "02_attention.ipynb.json", "02_attention.json", "02_attention.zip", "x.rar", "all.tar.gz",
    "02_attention.ipynb.zip", "homework.ipynb.html", "02_attention.html", "02_attention.pdf",
    "02_attention.ipynb.crdownload",
])  # fmt: skip
def test_what_looks_like_a_notebook_and_is_not_read_is_told(tmp_path, name):
    lay(tmp_path, f"class/ann/{name}", "class/bob/02_attention.ipynb", "class/bob/notes.txt", "class/bob/data.json")
    assert told(tmp_path / "class") == [("ann", name, True), ("bob", "02_attention.ipynb", False)]


def test_an_ending_in_capitals_is_read(tmp_path):
    lay(tmp_path, "ann/02_attention.IPYNB")
    assert told(tmp_path / "ann") == [("ann", "02_attention.IPYNB", False)]


class Book:
    """Stands in for a gradebook that knows nothing."""

    def __init__(self):
        self.written = []

    def graded(self, *_, **__):
        return {}

    def write(self, report):
        self.written.append(report)


def hand_in(path, when, sources=(GOOD,)):
    keys = [f"02-{key}" for key in ("causal_mask", "attention", "catches_peeking", "effective_tokens")]
    cells = [{"cell_type": "code", "metadata": {"nbgrader": {"grade_id": key}}, "source": sources[0]} for key in keys]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells}))
    os.utime(path, (when, when))


LATER = [("02_attention.ipynb", "02_attention (1).ipynb"), ("02_attention.ipynb", "02_attention-Copy1.ipynb"),
         ("attempt 1/02_attention.ipynb", "attempt 2/02_attention.ipynb"),
         ("attempt 9/02_attention.ipynb", "attempt 10/02_attention.ipynb")]  # fmt: skip
TIMED = [*LATER, ("02_attention (1).ipynb", "02_attention.ipynb"), ("old/02_attention.ipynb", "new/02_attention.ipynb")]


@pytest.mark.parametrize(("older", "newer", "when"), [
    *((*pair, 2_000_000) for pair in TIMED), *((*pair, 1_000_000) for pair in LATER)])  # fmt: skip
def test_the_newest_of_several_counts_and_is_told(tmp_path, older, newer, when):
    hand_in(tmp_path / "ann" / older, 1_000_000)
    hand_in(tmp_path / "ann" / newer, when)
    work = Work([tmp_path / "ann"], tmp_path / "out", None, Book(), 1, False, True)
    [job] = work.jobs()
    assert job.path == str(tmp_path / "ann" / newer)
    [(who, left_out, why)] = work.older
    assert (who, left_out) == ("ann", tmp_path / "ann" / older) and "counts" in why
    report = work.noted(Report("ann", "02", job.path, job.digest))
    assert any("several were handed in" in flag.what and "counts" in flag.what for flag in report.flags)


def test_the_number_of_an_attempt_counts_before_the_time(tmp_path):
    hand_in(tmp_path / "ann/attempt 2/02_attention.ipynb", 1_000_000)
    hand_in(tmp_path / "ann/attempt 1/02_attention.ipynb", 2_000_000)
    [job] = Work([tmp_path / "ann"], tmp_path / "out", None, Book(), 1, False, True).jobs()
    assert "attempt 2" in job.path


def test_files_that_may_be_several_peoples_are_told_and_none_is_graded(tmp_path):
    for who in ("ann", "bob"):
        hand_in(tmp_path / "class" / f"{who}.ipynb", 1_000_000)
    book = Book()
    work = Work([tmp_path / "class"], tmp_path / "out", None, book, 1, False, True)
    assert list(work.jobs()) == [] and len(work.notes) == 2
    assert "whose are they?" in book.written[0].problem
