"""The learner's own copy of the lessons: made without outputs, brought up to date, and never at the cost of a word.

It is a folder that Git does not see. Besides the notebooks it holds `.course/`: `base/` has each lesson as it was when
it came, to tell what the learner has changed since, and `backups/` each notebook as it was before an update. Which
base a notebook was made from stands in the notebook itself, so that one atomic write renews both: an update that is
broken off anywhere leaves each notebook either old or new, and is taken up where it stopped.
"""

import hashlib
import itertools
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lib.course.own_copy.merging import Merged, merge, same
from lib.course.own_copy.suspense import folded, kept_back, unfolded
from lib.errors import CourseError
from lib.lesson.files import locked, write_atomic, write_json
from lib.lesson.series import NOTEBOOKS, Lesson, source
from lib.sources.places import ROOT

KEPT = ".course"


def place() -> Path:
    """The learner's folder: COURSE_WORKSPACE, else `workspace` beside the lessons."""
    return Path(os.environ.get("COURSE_WORKSPACE") or ROOT / "workspace").absolute()


def own_copy(lesson: Lesson) -> Lesson:
    """The learner's notebook of a lesson, if there is one, else the lesson itself."""
    path = place() / lesson.path.name
    return Lesson(path) if path.is_file() else lesson


def update(folder: Path, lessons: list[Lesson]) -> list[str]:
    """Bring new and changed lessons into the folder, and make it if need be; returns what is worth telling, in lines.

    Answers, notes and guesses stay as they are. A notebook that cannot be read is left alone. Raises CourseError for a
    folder that holds something else, or cannot be written.
    """
    folder = folder.absolute()
    _see_that_it_may_go(folder)
    try:
        with locked(folder / KEPT / "update"):
            return _Update(folder, lessons).run()
    except OSError as problem:
        why = problem.strerror or "another `course lab` is at work on it"
        raise CourseError(f"cannot write {folder} ({why}); choose another folder with --dir") from None


def _see_that_it_may_go(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CourseError(f"{folder} is not a folder; choose another with --dir")
    here = Path(os.path.realpath(folder))  # a link in a ring leads nowhere, and is refused below
    if ROOT.is_relative_to(here) or any(here.is_relative_to(ours) for ours in (NOTEBOOKS, ROOT / "lib")):
        raise CourseError(f"{folder} holds the course's own files; choose another folder with --dir")
    if folder.is_dir() and not (folder / KEPT).is_dir():
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if names and not any(re.fullmatch(r"\d\d_\w+\.ipynb", name) for name in names):
            raise CourseError(f"{folder} holds other things; choose a new or empty folder with --dir")


@dataclass
class _Update:
    """One run over all lessons. ships: what `shipped` gives for each; told: the lines for the learner."""

    folder: Path
    lessons: list[Lesson]
    ships: dict[str, tuple[list[dict], list[dict]]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        for lesson in self.lessons:
            try:
                self.ships[lesson.stem] = shipped(lesson)
            except CourseError as problem:
                self.told.append(str(problem))
        made = sum(self._one(lesson) for lesson in self.lessons if lesson.stem in self.ships)
        if made:
            self.told.insert(0, f"{made} lesson{'s' * (made > 1)} put into {self.folder}, for you to write in.")
        return self.told

    def _one(self, lesson: Lesson) -> bool:
        """Bring one lesson up to date; returns whether it has come in anew."""
        raw, own = self.ships[lesson.stem]
        new = prepared(raw)
        base = self.folder / KEPT / "base" / f"{lesson.stem}-{_digest(new)}.ipynb"
        path = self.folder / lesson.path.name
        if not path.exists():
            self._follow(lesson, new)
        if not path.exists():
            if any((self.folder / KEPT / "base").glob(f"{lesson.stem}-*.ipynb")):
                own = []  # it was carried over once; now the learner wants it afresh
            merged = merge(new, _untouched_as(new, raw, own), new, outputs=False) if own else Merged(new)
            if own:
                wrote = f"{_n(merged.kept, 'cell')} that you had written into {lesson.path.parent.name}/"
                self.told.append(f"{lesson.stem}: {wrote} came along into your copy; the file there is as it was.")
            self._fill(lesson, merged)
            self._write(path, merged.cells, base, new, {})
            return True
        try:
            text = path.read_text(encoding="utf-8")
            notebook = _parsed(text)
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None) or "damaged"
            self.told.append(f"{lesson.stem}: your copy cannot be read ({why}) and is left as it is; move "
                             f"{path} away, and the next `course lab` makes a fresh one.")  # fmt: skip
            return False
        about = notebook["metadata"].get("course")
        known = self.folder / KEPT / "base" / Path(str(about.get("base") if isinstance(about, dict) else "")).name
        if known == base and base.is_file():
            return False
        mine = notebook["cells"]
        if (old := _cells(known)) is not None:
            merged = merge(old, mine, new)
        else:
            merged = merge(_supposed(mine, new), mine, new, outputs=False)
        self._fill(lesson, merged)
        write_atomic(self._backup(path.name), text)
        if path.read_text(encoding="utf-8") != text:
            self.told.append(f"{lesson.stem}: it was saved at this very moment and is left as it is; run this again.")
            return False
        self._write(path, merged.cells, base, new, notebook["metadata"])
        self._tell(lesson, merged)
        return False

    def _backup(self, name: str) -> Path:
        """A place for a backup that nothing has yet."""
        backups = self.folder / KEPT / "backups"
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        names = (now if n == 1 else f"{now}-{n}" for n in itertools.count(1))
        return next(path for day in names if not (path := backups / day / name).exists())

    def _write(self, path: Path, cells: list[dict], base: Path, new: list[dict], metadata: dict) -> None:
        """The base first, then the notebook that names it."""
        write_json(base, _notebook(new, {}))
        write_json(path, _notebook(cells, metadata | {"course": {"base": base.name}}))

    def _follow(self, lesson: Lesson, new: list[dict]) -> None:
        """A lesson may have got another number: then the learner's notebook gets it too."""
        ours = {other.path.name for other in self.lessons}
        wanted = {_grade_id(cell) for cell in new} - {""}
        for path in sorted(self.folder.glob(f"[0-9][0-9]_{lesson.stem[3:]}.ipynb")):
            if path.name not in ours and wanted & {_grade_id(cell) for cell in _cells(path) or ()}:
                path.rename(self.folder / lesson.path.name)
                self.told.append(f"{path.stem} is {lesson.stem} now.")
                return

    def _fill(self, lesson: Lesson, merged: Merged) -> None:
        """Put an answer into a cell that is still open, where the exercise has come from another lesson."""
        here = {_grade_id(cell): cell for cell in merged.cells if _answers(cell) and not _solved(cell)}
        if not here:
            return
        for path in sorted(self.folder.glob("[0-9][0-9]_*.ipynb")):
            if path.name == lesson.path.name:
                continue
            stays = {_grade_id(cell) for cell in self.ships.get(path.stem, ([], []))[0]}
            for cell in _cells(path) or ():
                id = _grade_id(cell)
                if id in here and id not in stays and _answers(cell) and _solved(cell):
                    here.pop(id)["source"] = source(cell)
                    self.told.append(f"{lesson.stem}: your answer to {id} came along from {path.stem}.")

    def _tell(self, lesson: Lesson, merged: Merged) -> None:
        if not (merged.renewed or merged.added or merged.gone or merged.beside):
            return
        counts = ((merged.renewed, "changed"), (merged.added, "new"), (merged.gone, "gone"), (merged.kept, "yours"))
        line = f"{lesson.stem} is brought up to date, cells: {', '.join(f'{n} {what}' for n, what in counts if n)}."
        if merged.beside:
            line += f" You and the lesson had both changed {merged.beside}; the new text stands below yours."
        self.told.append(line)


# What the course ships


def prepared(cells: list[dict]) -> list[dict]:
    """A lesson's cells as a learner begins: no outputs, no counts, and what would tell an outcome too soon folded."""
    telling = kept_back(cells).code
    bare = []
    for i, cell in enumerate(folded(cells)):
        cell = {name: value for name, value in cell.items() if name not in ("outputs", "execution_count")}
        if cell.get("cell_type") == "code":
            cell |= {"execution_count": None, "outputs": []}
        if i in telling:
            cell |= {"metadata": cell["metadata"] | {"jupyter": {"source_hidden": True}}}
        bare.append(cell)
    return bare


def shipped(lesson: Lesson) -> tuple[list[dict], list[dict]]:
    """(the lesson's own cells, the cells of its file if somebody has written into it).

    The lesson is what Git has committed. Where Git cannot tell, each cell's id does: it is made from the cell's text.
    """
    committed = _committed(lesson.path)
    if committed is None:
        cells = lesson.notebook["cells"]
        own = [cell for cell in cells if not _as_it_came(cell)]
        return ([c for c in map(_emptied, cells) if c and _as_it_came(c)], cells) if own else (cells, [])
    try:
        cells = _parsed(lesson.path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return committed, []
    differs = len(cells) != len(committed) or not all(map(same, cells, committed))
    return committed, cells if differs else []


def _committed(path: Path) -> list[dict] | None:
    command = ["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"]
    try:
        return _parsed(subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8"))["cells"]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _as_it_came(cell: dict) -> bool:
    """Whether a cell is the course's, to the letter, as far as the cell alone can tell."""
    if _grade_id(cell):
        return not (_answers(cell) and _solved(cell))
    text = f"{cell.get('cell_type')}\n{unfolded(source(cell))}"
    return str(cell.get("id")).split("-")[0] == hashlib.sha256(text.encode()).hexdigest()[:8]


def _emptied(cell: dict) -> dict | None:
    """The cell, an answer with its stub again; None for an exercise that is not known."""
    if not (_answers(cell) and _solved(cell)):
        return cell
    from lib.exercises.exercise import exercise
    from lib.lesson.cells import place as exercise_of

    try:
        id, _ = exercise_of(_grade_id(cell))
        return cell | {"source": exercise(id).stub}
    except (CourseError, TypeError):
        return None


def _untouched_as(new: list[dict], raw: list[dict], own: list[dict]) -> list[dict]:
    """A file's cells, those that are the lesson's own put as the learner's copy has them."""
    bare = {cell.get("id"): (before, cell) for before, cell in zip(raw, new, strict=True)}
    return [bare[id][1] if (id := cell.get("id")) in bare and same(cell, bare[id][0]) else cell for cell in own]


def _supposed(mine: list[dict], new: list[dict]) -> list[dict]:
    """What a notebook that came without its base may have been made from."""
    named = {cell.get("id"): cell for cell in new}
    base = []
    for cell in mine:
        fresh = named.get(cell.get("id"))
        if _as_it_came(cell):
            base.append(cell)
        elif fresh and _as_it_came(fresh):
            base.append(fresh)
    return base


# Notebooks as plain JSON


def _parsed(text: str) -> dict:
    """A notebook of nbformat 4. Raises ValueError for anything else. NaN, which is no JSON, is read as null."""
    try:
        notebook = json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or notebook.get("nbformat") != 4:
        raise ValueError("no notebook")
    for cell in cells:
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            raise ValueError("no cell")
        text = cell.get("source", "")
        if not (isinstance(text, str) or (isinstance(text, list) and all(isinstance(line, str) for line in text))):
            raise ValueError("no text")
        if not isinstance(cell.setdefault("metadata", {}), dict):
            raise ValueError("no metadata")
    if not isinstance(notebook.setdefault("metadata", {}), dict):
        raise ValueError("no metadata")
    return notebook


def _cells(path: Path) -> list[dict] | None:
    """A notebook's cells; None if it cannot be read."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return None


def _notebook(cells: list[dict], metadata: dict) -> dict:
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}} | metadata
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _digest(cells: list[dict]) -> str:
    return hashlib.sha256(json.dumps(cells, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def _grade_id(cell: dict) -> str:
    graded = cell.get("metadata", {}).get("nbgrader")
    return str(graded.get("grade_id", "")) if isinstance(graded, dict) else ""


def _answers(cell: dict) -> bool:
    return bool(_grade_id(cell)) and cell["metadata"]["nbgrader"].get("solution") is True


def _solved(cell: dict) -> bool:
    """Whether an answer cell holds more than its stub, as far as one can tell without PyTorch's two seconds."""
    return not re.search(r"\braise NotImplementedError\b|= \.\.\.(?:\s|$)", source(cell))


def _n(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
