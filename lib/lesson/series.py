"""The lessons as data: number, name, title, file; found in the notebooks folder."""

import difflib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lib.errors import CourseError
from lib.sources.places import ROOT

NOTEBOOKS = ROOT / "notebooks"

# As in lib.device, which would import torch: two seconds that a command line should not cost.
PRESETS = ("smoke", "cpu", "gpu")


@dataclass(frozen=True)
class Lesson:
    """One notebook: `02_attention.ipynb` has number "02" and name "attention"."""

    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        """Two digits, or "" for a notebook that is no numbered lesson."""
        found = re.match(r"(\d\d)_", self.stem)
        return found[1] if found else ""

    @property
    def name(self) -> str:
        return re.sub(r"^\d\d_", "", self.stem).replace("_", " ")

    @cached_property
    def notebook(self) -> dict:
        """The notebook as plain JSON."""
        try:
            nb = json.loads(self.path.read_text(encoding="utf-8-sig"))  # some editors put a mark in front
        except OSError as problem:
            raise CourseError(f"cannot read {self.path}: {problem.strerror}") from None
        except ValueError:
            raise CourseError(f"{self.path} is not a notebook (no JSON in it); restore the file") from None
        if not isinstance(nb, dict) or not isinstance(nb.get("cells"), list):
            raise CourseError(f"{self.path} is not a notebook (no cells); save it again from JupyterLab")
        return nb

    @property
    def code(self) -> list[tuple[str, str]]:
        """(source, grade_id) of each code cell; "" for a cell that has no such id."""
        cells = (cell for cell in self.notebook["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code")
        return [(source(cell), grade_id(cell)) for cell in cells]

    @property
    def title(self) -> str:
        """The first heading, else the name."""
        for cell in self.notebook["cells"]:
            found = re.search(r"^#\s+(.+)$", source(cell), re.MULTILINE)
            if cell.get("cell_type") == "markdown" and found:
                return found[1].strip()
        return self.name


def source(cell: dict) -> str:
    """A cell's source as one string; the format allows a list of lines too."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def grade_id(cell: dict) -> str:
    """The exercise's id in a cell's metadata, whatever they are; "" if there is none."""
    for key in ("metadata", "nbgrader", "grade_id"):
        cell = cell.get(key) if isinstance(cell, dict) else None
    return cell if isinstance(cell, str) else ""


def series() -> list[Lesson]:
    """Every lesson of the course, in reading order."""
    return [Lesson(path) for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]


def find(names: tuple[str, ...] | list[str] = ()) -> list[Lesson]:
    """Lessons by number ("02", "2"), name ("attention", "02_attention") or path; all of them for no name.

    A lesson named twice comes once. Raises CourseError for an unknown name.
    """
    known = series()
    if not names:
        if not known:
            raise CourseError(f"no lessons in {NOTEBOOKS}; run from a complete clone of the course")
        return known
    return list(dict.fromkeys(_one(str(name), known) for name in names))


def _one(name: str, known: list[Lesson]) -> Lesson:
    for lesson in known:
        short = lesson.stem.removeprefix(f"{lesson.number}_")
        if name in (lesson.stem, short) or (name.isdecimal() and name.zfill(2) == lesson.number):
            return lesson
    path = Path(name)
    if path.suffix == ".ipynb":
        if path.is_file():
            return Lesson(path.resolve())
        raise CourseError(f"no notebook at {name}; `course lessons` lists the lessons")
    stems = [lesson.stem for lesson in known]
    near = difflib.get_close_matches(name, [*stems, *(s[3:] for s in stems)], n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    have = ", ".join(stems) or "none yet"
    raise CourseError(f"unknown lesson {name!r}; the lessons are: {have}.{guess}")
