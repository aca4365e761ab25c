"""Exercises in notebooks: three cells each, made from the registry, in nbgrader's metadata (schema 3)."""

import copy
import re

import nbformat

from lib.errors import CourseError
from lib.exercises.exercise import exercise, unsolved
from lib.exercises.result import nothing
from lib.exercises.standing import place
from lib.lesson.checks import shown

MARKER = re.compile(r"# exercise (\S+)")


def sync(nb, lesson):
    """Bring the exercises of a lesson's notebook in step with the registry, in place, and return it.

    A code cell that is the one line `# exercise 02.causal_mask` becomes prompt, answer cell and check cell.
    Where they are there already, prompt and check are rewritten, and so is the answer cell unless it has been
    solved. Doing it twice changes nothing more. Raises CourseError for an unknown id or a second
    cell of one id.
    """
    old = {}
    for cell in nb.cells:
        grade_id = _grade_id(cell)
        if grade_id in old:
            raise CourseError(f"lesson {lesson}: two cells have the id {grade_id}; delete one")
        if grade_id:
            old[grade_id] = cell
    cells, seen = [], set()
    for cell in nb.cells:
        id, role = _place(cell)
        if role in ("prompt", "check"):
            continue  # made anew beside its answer cell
        if id is None:
            cells.append(cell)
            continue
        e = exercise(id)
        if e.lesson != lesson:
            raise CourseError(f"lesson {lesson}: exercise {id} belongs to lesson {e.lesson}")
        if id in seen:
            raise CourseError(f"lesson {lesson}: exercise {id} is there twice; delete one")
        seen.add(id)
        answer = cell if role == "answer" else None
        source = answer.source if answer and not unsolved(answer.source) else e.stub
        key = id.replace(".", "-")
        cells += [
            _cell(old.get(f"{key}-prompt"), f"{key}-prompt", prompt(e), locked=True),
            _cell(answer, key, source, solution=True),
            _cell(old.get(f"{key}-check"), f"{key}-check", f'check("{id}", {e.name})',
                  grade=True, locked=True, points=e.points),
        ]
    nb.cells = cells
    return nb


def restate(nb):
    """Say anew, in place, what each executed check says of a stub: that is known without running it."""
    stubs = {id for id, source in answer_cells(nb).items() if source == exercise(id).stub}
    for cell in nb.cells:
        id, role = _place(cell)
        if role == "check" and id in stubs and cell.outputs:
            e = exercise(id)
            cell.outputs = [nbformat.v4.new_output("display_data", data=shown(e, nothing(e, "")))]


def prompt(e):
    """The markdown of an exercise's first cell."""
    points = f"{e.points} point{'s' if e.points > 1 else ''}"
    minutes = f"{e.minutes} minute{'s' if e.minutes > 1 else ''}"
    return (f"### Exercise: {e.title}\n\n*{points}, difficulty {e.difficulty} of 3, about {minutes}.*\n\n"
            f"{e.prompt}\n\nWrite it below, run it, then run the check. "
            f'Stuck? `hint("{e.id}", 1)` gives the first of three hints.')


def solve(nb, answers):
    """A copy of the notebook with `answers`, {id: source}, in its answer cells."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        id, role = _place(cell)
        if role == "answer" and id in answers:
            cell.source = answers[id].strip()
            cell.outputs, cell.execution_count = [], None
    return nb


def answer_cells(nb):
    """{exercise id: source} of a notebook's answer cells. Of a cell copied id and all, the last solved one counts."""
    found = {}
    for cell in nb.cells:
        id, role = _place(cell)
        if role == "answer" and (id not in found or not unsolved(cell.source)):
            found[id] = cell.source
    return found


def _grade_id(cell):
    """The cell's grade_id, or "" if it has none."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _place(cell):
    """(exercise id, role) of a cell: prompt, answer, check or marker. (None, None) for any other."""
    if found := place(_grade_id(cell)):
        return found
    if cell.cell_type == "code" and (match := MARKER.fullmatch(cell.source.strip())):
        return match[1], "marker"
    return None, None


def _cell(cell, grade_id, source, *, grade=False, solution=False, locked=False, points=None):
    """The cell (or a new one) with that source and metadata; its outputs stay if its source does."""
    if cell is None:
        new = nbformat.v4.new_code_cell if grade or solution else nbformat.v4.new_markdown_cell
        cell = new(source, id=grade_id)
    elif cell.source != source:
        cell.source = source
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbgrader = {"grade": grade, "grade_id": grade_id, "locked": locked, "schema_version": 3,
                "solution": solution, "task": False}
    if points is not None:
        nbgrader["points"] = points
    cell.metadata["nbgrader"] = nbformat.from_dict(nbgrader)
    return cell
