"""From folders of learners to the code of each answer: whose file, which lesson, which cell, what else it needs."""

import ast
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.errors import CourseError
from lib.exercises.closure import bound, needed, parse, plain, unparsed, used
from lib.exercises.exercise import Exercise, defines, exercises, unsolved
from lib.grading.reading import Cell
from lib.grading.sandbox import Code
from lib.lesson.cells import place
from lib.lesson.series import series, source

DEEP = 5  # folders below a learner's in which a notebook is looked for


@dataclass(frozen=True)
class Submission:
    """A file somebody handed in. problem: why it is left out, "" if it is not."""

    learner: str
    path: Path
    problem: str = ""


def find(paths: list[Path], learner: str | None = None, out: Path | None = None) -> list[Submission]:
    """The notebooks under each path: a notebook, a learner's folder of them, or a folder of learners' folders.

    learner: the name for a path that is one learner's. out: where grades are written, which is no learner. Raises
    CourseError for a path that holds nothing to grade.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise CourseError(f"no file or folder {path}; check the path")
        here = list(_one(path.resolve() if path.is_symlink() else path, learner, out))
        if not here:
            raise CourseError(
                f"no notebook in {path}; give a notebook, a learner's folder of notebooks, or a folder of such folders"
            )
        found += here
    return found


def _one(path: Path, learner: str | None, out: Path | None) -> Iterator[Submission]:
    path = path.absolute()
    if path.is_file():
        # ada/02_attention.ipynb is ada's; ada.ipynb is too
        yield Submission(learner or (path.parent.name if home(path) else path.stem) or "learner", path)
    elif any(_notebooks(path, 0)) and (learner or sum(any(_notebooks(f, DEEP)) for f in _folders(path)) < 2):
        for file in _notebooks(path, DEEP):
            yield Submission(learner or path.name or "learner", file)
    else:
        for file in _notebooks(path, 0):
            yield Submission(path.name, file, "it lies beside the learners' folders; put it into its learner's")
        folders = [f for f in _folders(path) if not (out and _for_grades(f, out))]
        if learner is not None and folders:
            raise CourseError(f"{path} holds several folders; --learner names one learner's folder or notebook")
        for folder in folders:
            files = list(_notebooks(folder, DEEP))
            for file in files:
                yield Submission(folder.name, file)
            if not files:
                why = "it is a link to another folder" if folder.is_symlink() else "no notebook in it"
                yield Submission(folder.name, folder, why)


def _folders(path: Path) -> list[Path]:
    hidden = re.compile(r"\.[^.]|__")  # .git, __MACOSX; but "..x" is somebody's
    return sorted(p for p in path.iterdir() if p.is_dir() and not hidden.match(p.name))


def _for_grades(folder: Path, out: Path) -> bool:
    """Whether a folder is there for the grades, or for what leads to them, and not for a learner."""
    return out.resolve().is_relative_to(folder.resolve()) and not any(_notebooks(folder, DEEP))


def _notebooks(folder: Path, deep: int) -> Iterator[Path]:
    """The .ipynb files of a folder and, down to that depth, of those in it; through no link."""
    if folder.is_symlink() and deep:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if deep:
                yield from _notebooks(Path(entry.path), deep - 1)
        elif entry.name.endswith(".ipynb"):
            yield Path(entry.path)


def lessons(cells: tuple[Cell, ...]) -> dict[str, float]:
    """{lesson: the share of its exercises that a notebook has cells of}, in order, for the lessons of this course."""
    here = {found[0] for cell in cells if (found := place(cell.grade_id))}
    whole = {n: {e.id for e in exercises(n)} for n in sorted({id[:2] for id in here})}
    return {n: len(ids & here) / len(ids) for n, ids in whole.items() if ids & here}


def home(path: Path) -> str:
    """The lesson that a file says it is of, by its name; "" if it does not say."""
    found = re.match(r"(\d\d)_", path.name)
    return found[1] if found else ""


@dataclass(frozen=True)
class Answer:
    """The code of one answer. notes: what is unusual about where it stood. code: None if there is nothing to run."""

    code: Code | None
    notes: tuple[str, ...] = ()
    problem: str = ""


def answer(cells: tuple[Cell, ...], exercise: Exercise) -> Answer:
    """What a notebook gives as the answer to an exercise, as a run from top to bottom would leave it.

    The answer's cell is the one with its id; of several, the last that is solved. One that was left as it was gives
    way to a solved one put right below it, before the check; one that is gone, to any cell that defines the name.
    """
    key = exercise.id.replace(".", "-")
    own = [i for i, cell in enumerate(cells) if cell.grade_id == key]
    solved = [i for i in own if not _blank(cells[i], exercise)]
    notes = ("several cells have this exercise's id",) if len(own) > 1 else ()
    at = solved[-1] if solved else None
    if at is None or not defines(cells[at].source, exercise.name):
        if others := [i for i in _elsewhere(cells, own, key) if _solves(cells[i], exercise)]:
            at = others[-1]
            notes += ("the answer stands in a cell of its own",)
    if at is None:
        return Answer(None, notes, "" if own else "There is no cell for this answer in the notebook.")
    cell = cells[at]
    rest = [c for i, c in enumerate(cells) if i != at and i not in own and not _passed_over(c)]
    statements = [s for c in rest for s in parse(c.source)]
    names, given = set(), set()
    for s in parse(cell.source):  # what the cell has given a meaning to itself, it does not need from elsewhere
        names |= used(s) - given
        given |= bound(s)
    # What the answer is, its own cell says.
    helpers = [unparsed(s) for s in needed(statements, names) if exercise.name not in bound(s)]
    return Answer(Code(exercise.name, plain(cell.source), tuple(filter(None, helpers))), notes)


def _blank(cell: Cell, exercise: Exercise) -> bool:
    """Whether an answer's cell still says nothing."""
    return cell.source.strip() == exercise.stub or (not parse(cell.source) and _only_comments(cell.source)) or (
        unsolved(cell.source) and _as_given(cell.source, exercise)
    )


def _only_comments(source: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())


def _as_given(source: str, exercise: Exercise) -> bool:
    """The stub but for spaces and comments."""
    try:
        return [ast.dump(s) for s in parse(source)] == [ast.dump(s) for s in parse(exercise.stub)]
    except (RecursionError, ValueError):  # deeper than any stub, or a number too long to print
        return False


def _solves(cell: Cell, exercise: Exercise) -> bool:
    return defines(cell.source, exercise.name) and not unsolved(cell.source)


def _passed_over(cell: Cell) -> bool:
    """Checks, and answers that are still stubs, define nothing for others."""
    found = place(cell.grade_id)
    return bool(found) and (found[1] != "answer" or unsolved(cell.source))


def _elsewhere(cells: tuple[Cell, ...], own: list[int], key: str) -> list[int]:
    """Cells without an id in which an answer may stand: those between its cell and its check; if its cell is gone, all
    that the learner has added or changed."""
    free = [i for i, cell in enumerate(cells) if not place(cell.grade_id)]
    if not own:
        return [i for i in free if cells[i].source.strip() not in _ours()]
    checks = [i for i, cell in enumerate(cells) if cell.grade_id == f"{key}-check"]
    return [i for i in free if any(own[0] < i < check for check in checks)]


@functools.cache
def _ours() -> frozenset[str]:
    """The code cells of the lessons themselves."""
    return frozenset(
        source(cell).strip() for lesson in series() for cell in lesson.notebook["cells"] if cell["cell_type"] == "code"
    )
