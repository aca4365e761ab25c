"""From folders of learners to the code of each answer: whose file, which lesson, which cell, what else it needs."""

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.errors import CourseError
from lib.exercises import standing
from lib.exercises.exercise import Exercise, exercises
from lib.exercises.standing import Answer, place
from lib.grading.reading import Cell
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


def answer(cells: tuple[Cell, ...], exercise: Exercise) -> Answer:
    """What a notebook gives as the answer to an exercise; the lesson's own cells are nobody's."""
    return standing.answer([(c.source, c.grade_id) for c in cells], exercise, _ours)


@functools.cache
def _ours() -> frozenset[str]:
    """The code cells of the lessons themselves."""
    return frozenset(
        source(cell).strip() for lesson in series() for cell in lesson.notebook["cells"] if cell["cell_type"] == "code"
    )
