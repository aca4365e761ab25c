"""What one submission of the corpus is, and how it becomes a learner's folder."""

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lib.answers import reference_source
from lib.exercises.exercise import exercise, exercises
from lib.lesson.series import series

FULL = None  # in `deserves`: all of an exercise's points
LEFT = ("02.catches_peeking", "04.catches_leak")  # left as stubs unless an entry answers them: they take half a second
KINDS = ("forging", "tampering", "reaching", "resources", "odd", "judging", "honest")


@dataclass(frozen=True)
class Place:
    """Where the class is and what an escape would reach. Each is put into sources that name it, as @CLASS@ etc."""

    CLASS: str  # the folder of learners
    OUT: str  # the grader's output, its gradebook among it
    ROOT: str  # the checkout, with the references
    DROP: str  # a folder that anybody may write to
    TOKEN: str  # a secret in the grader's environment, and the name of the abstract socket
    PORT: int  # where the test listens, TCP and UDP

    def fill(self, source: str) -> str:
        for name, value in vars(self).items():
            source = source.replace(f"@{name}@", str(value))
        return source


@dataclass(frozen=True)
class Entry:
    """A submission: the lesson's notebook with every exercise solved by its reference, but for what is told here.

    answers: what stands in an answer's cell instead. deserves: points of exercises, FULL for all of them; those in
    `answers` deserve nothing unless told, the others all. edit: changes the notebook (parsed JSON) in place; raw: its
    bytes; build: makes the learner's folder by itself. problem: it cannot be graded, for a reason that has this in it.
    flags: what a person must be shown. path: the folder's name, if that is what is odd.
    """

    name: str
    lesson: str = "02"
    answers: dict[str, str] = field(default_factory=dict)
    deserves: dict[str, int | None] = field(default_factory=dict)
    edit: Callable[[dict], None] | None = None
    raw: Callable[[bytes], bytes] | None = None
    build: Callable[[Path, Place], None] | None = None
    problem: str = ""
    flags: tuple[str, ...] = ()
    path: str | bytes = ""
    kind: str = ""

    @property
    def points(self) -> dict[str, int]:
        """{exercise: what it deserves}; {} for one that cannot be graded."""
        if self.problem:
            return {}
        given = {e.id: e.points for e in exercises(self.lesson)}
        for id in LEFT:
            if id in given and id not in self.answers:
                given[id] = 0
        given |= dict.fromkeys(self.answers, 0)
        for id, points in self.deserves.items():
            given[id] = exercise(id).points if points is FULL else points
        return given

    def write(self, place: Place) -> Path:
        """Make the learner's folder."""
        folder = Path(os.fsdecode(os.path.join(os.fsencode(place.CLASS), os.fsencode(self.path or self.name))))
        if self.build:
            self.build(folder, place)
            return folder
        folder.mkdir()
        nb = notebook(self.lesson, {id: place.fill(source) for id, source in self.answers.items()})
        if self.edit:
            self.edit(nb)
        data = json.dumps(nb).encode()
        (folder / file_name(self.lesson)).write_bytes(self.raw(data) if self.raw else data)
        return folder


def file_name(lesson: str) -> str:
    return next(each.path.name for each in series() if each.number == lesson)


@cache
def _solved(lesson: str) -> dict:
    nb = copy.deepcopy(next(each.notebook for each in series() if each.number == lesson))
    for each in nb["cells"]:
        each["outputs"] = [] if each["cell_type"] == "code" else None
        if each["outputs"] is None:
            del each["outputs"]
    for e in exercises(lesson):
        if e.id not in LEFT:
            answer_cell(nb, e.id)["source"] = reference_source(e.id)
    return nb


def notebook(lesson: str, answers: dict[str, str] | None = None) -> dict:
    """The lesson's own notebook, solved, with these answers in it."""
    nb = copy.deepcopy(_solved(lesson))
    for id, source in (answers or {}).items():
        answer_cell(nb, id)["source"] = source
    return nb


def answer_cell(nb: dict, id: str, check: bool = False) -> dict:
    key = id.replace(".", "-") + ("-check" if check else "")
    return next(c for c in nb["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == key)


def code(source: str, grade_id: str | None = None) -> dict:
    """A new code cell."""
    metadata = {} if grade_id is None else {"nbgrader": {
        "grade_id": grade_id, "solution": True, "grade": False, "locked": False, "schema_version": 3, "task": False,
    }}  # fmt: skip
    return {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": [], "source": source}


def insert(nb: dict, cell: dict, before: str | None = None, after: str | None = None) -> None:
    """Put a cell beside an exercise's answer, or, told neither, at the end."""
    at = len(nb["cells"])
    if before or after:
        at = nb["cells"].index(answer_cell(nb, before or after)) + bool(after)
    nb["cells"].insert(at, cell)
