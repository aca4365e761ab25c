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
from lib.lesson.series import series

DEEP = 5  # folders below a learner's in which a notebook is looked for


@dataclass(frozen=True)
class Submission:
    """A file somebody handed in. problem: why it is left out, "" if it is not."""

    learner: str
    path: Path
    problem: str = ""


def find(paths: list[Path], learner: str | None = None, out: Path | None = None) -> list[Submission]:
    """The notebooks under each path: a notebook, a learner's folder of them, or a folder of learners' folders.

    learner: the name for a path that is one learner's. out: where grades are written, which is no learner. A file that
    looks like a notebook and cannot be read as one is told. Raises CourseError for a path that holds nothing to grade,
    and for a layout that would be guessed.
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
        whose = learner or from_canvas(path) or (path.parent.name if home(path) else path.stem)
        yield Submission(whose or "learner", path)
        return
    flat = list(_notebooks(path, 0))
    canvas = [file for file in flat if from_canvas(file)]
    if canvas and learner is None and not any(any(_notebooks(f, DEEP)) for f in _folders(path)):
        for file in flat:
            whose = from_canvas(file)
            yield Submission(whose or path.name, file, "" if whose else "its name does not say whose it is")
        yield from _odd(path, 0, path.name)
        return
    folders = [f for f in _folders(path) if not (out and _for_grades(f, out))]
    holding = [f for f in folders if any(_notebooks(f, DEEP))]
    # ann/attempt 1 and ann/attempt 2, if ann is given; but people may be numbers, or submission_17.
    own = all(OWN.fullmatch(f.name) and re.search(r"(?i)[a-z]", f.name) for f in holding)
    own = own and not any(re.match(r"(?i)submission", f.name) for f in holding)
    if learner or (flat and len(holding) < 2) or (len(holding) > 1 and own):
        yield from _learners(path, learner or path.name or "learner", learner is not None)
        return
    for file in flat:
        yield Submission(path.name, file, "it lies beside the learners' folders; put it into its learner's")
    yield from _odd(path, 0, path.name)
    if len(holding) == 1 and len(folders) == 1 and (why := _several(holding[0])):
        inner = holding[0]
        raise CourseError(
            f"{path} holds one folder, {inner.name}, and {why}; if those in it are learners, give {inner}, "
            "if all is one person's, add --learner NAME"
        )
    for folder in folders:
        there = list(_learners(folder, folder.name, False))
        yield from there
        if not there:
            why = "it is a link to another folder" if folder.is_symlink() else "no notebook in it"
            yield Submission(folder.name, folder, why)


def _learners(folder: Path, name: str, certain: bool) -> Iterator[Submission]:
    """What one learner's folder holds; if it looks like several people's, nothing of it is graded, and it is told."""
    why = "" if certain else _several(folder)
    for file in _notebooks(folder, DEEP):
        yield Submission(name, file, f"{why}; give each learner a folder" if why else "")
    yield from _odd(folder, DEEP, name)


# A folder of one learner's: attempt 2, week 03, v1, 2026-11-29, 02_attention, final
OWN = re.compile(
    r"(?i)[\W_]*((attempt|try|trial|submission|version|ver|v|week|lesson|day|part|unit|module|session|homework|hw|"
    r"assignment|old|new|final|draft|first|second|third|last|resubmission|notebooks?|work|workspace|copy|backup)?"
    r"[\W_]*[\d.:T_-]*)*[\W_]*"
)


def _several(folder: Path) -> str:
    """Why a folder seems to be several people's: one lesson in two folders whose names are no attempts; "" if not."""
    places: dict[tuple, set[str]] = {}
    for file in _notebooks(folder, DEEP):
        inside = file.relative_to(folder).parts[:-1]
        for i, part in enumerate(inside):  # two in one and the same folder: ann and bob in submissions
            if not OWN.fullmatch(part) and not home(Path(part)):
                places.setdefault((home(file) or file.name, inside[:i]), set()).add(part)
    for (what, _), names in places.items():
        if len(names) > 1:
            first, second, *_ = sorted(names)
            return f"lesson {what} is in {first} and in {second}" if what.isdecimal() else (
                f"{what} is in {first} and in {second}")  # fmt: skip
    return ""


def from_canvas(path: Path) -> str:
    """Whose a file is that was downloaded from Canvas, flat: lastfirst_12345 of lastfirst_LATE_12345_67890_x.ipynb."""
    found = re.fullmatch(r"(.+?)_(?:LATE_)?(\d+)_(\d+)_.+", path.name)
    return f"{found[1]}_{found[2]}" if found and not re.match(r"\d\d_", path.name) else ""


def _folders(path: Path) -> list[Path]:
    hidden = re.compile(r"\.[^.]|__")  # .git, __MACOSX; but "..x" is somebody's
    return sorted(p for p in path.iterdir() if p.is_dir() and not hidden.match(p.name))


def _for_grades(folder: Path, out: Path) -> bool:
    """Whether a folder is there for the grades, or for what leads to them, and not for a learner."""
    return out.resolve().is_relative_to(folder.resolve()) and not any(_notebooks(folder, DEEP))


def _files(folder: Path, deep: int) -> Iterator[Path]:
    """The files of a folder and, down to that depth, of those in it; through no link."""
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
            if deep and not entry.name.startswith("__MACOSX"):
                yield from _files(Path(entry.path), deep - 1)
        else:
            yield Path(entry.path)


def _notebooks(folder: Path, deep: int) -> Iterator[Path]:
    return (path for path in _files(folder, deep) if path.name.lower().endswith(".ipynb"))


# What a browser, a mail program or a person makes of a notebook's name.
ODD = re.compile(r"(?i).*\.ipynb[^/]+|\d\d_.*\.(json|html|pdf|py|txt|md)|.*\.(zip|tar|tgz|gz|7z|rar)")


def _odd(folder: Path, deep: int, name: str) -> Iterator[Submission]:
    """Files that look like notebooks and are not read."""
    for path in _files(folder, deep):
        if ODD.fullmatch(path.name) and not path.name.lower().endswith(".ipynb"):
            packed = re.search(r"(?i)\.(zip|tar|tgz|gz|7z|rar)$", path.name)
            how = "unpack it first" if packed else "it has to end in .ipynb, as JupyterLab saves it"
            yield Submission(name, path, f"it looks handed in, but is not read; {how}")


def newest(path: Path) -> tuple:
    """What orders several hand-ins of one thing: the attempt that its folder counts, time, then the (1) of a copy."""
    counted = re.compile(r"(?i)(?:attempt|submission|try|v)[\W_]*(\d+)$")
    attempts = [int(found[1]) for part in path.parts[:-1] if (found := counted.search(part))]
    copy = re.search(r"\((\d+)\)|-Copy(\d+)", path.stem)
    try:
        time = path.stat().st_mtime
    except OSError:
        time = 0.0
    return attempts[-1] if attempts else 0, round(time), int(copy[1] or copy[2]) if copy else 0


def lessons(cells: tuple[Cell, ...]) -> dict[str, float]:
    """{lesson: the share of its exercises that a notebook has cells of}, in order, for the lessons of this course."""
    here = {found[0] for cell in cells if (found := place(cell.grade_id))}
    whole = {n: {e.id for e in exercises(n)} for n in sorted({id[:2] for id in here})}
    return {n: len(ids & here) / len(ids) for n, ids in whole.items() if ids & here}


def home(path: Path) -> str:
    """The lesson that a file says it is of, by its name; "" if it does not say."""
    whole = re.search("|".join(re.escape(lesson.stem) for lesson in _series()) or "$^", path.name)
    found = whole or re.match(r"\d\d_", path.name)
    return found[0][:2] if found else ""


_series = functools.cache(series)


def answer(cells: tuple[Cell, ...], exercise: Exercise) -> Answer:
    """What a notebook gives as the answer to an exercise; the lesson's own cells are nobody's."""
    return standing.answer([(c.source, c.grade_id) for c in cells], exercise, lambda: _ours(exercise.lesson))


@functools.cache
def _ours(number: str) -> frozenset[str]:
    """The code cells of a lesson itself."""
    [lesson] = [lesson for lesson in series() if lesson.number == number]
    return frozenset(source.strip() for source, _ in lesson.code)
