"""Whose file it is, and which code of a notebook is the answer."""

import pytest

from lib.errors import CourseError
from lib.exercises.exercise import exercise
from lib.grading.reading import Cell
from lib.grading.submission import answer, find, lessons

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
    assert lessons(cells) == {"02": 1 / 4, "03": 1 / 4}


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
