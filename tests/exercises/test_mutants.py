"""Over every exercise there is: the reference earns all, the stub nothing, each mutant less, by name."""

import ast
import json
import sys
from pathlib import Path

import nbformat
import pytest
import standard
from hunt import hunt

from lib.answers import answer, answers, load, mutant_source, reference_source
from lib.exercises.exercise import exercise, exercises, lessons
from lib.exercises.result import evaluate
from lib.grading.held import held
from lib.grading.judge import judge
from lib.grading.reading import Cell
from lib.grading.sandbox import Sandbox
from lib.lesson import cells

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
IDS = [e.id for e in exercises()]
MUTANTS = [(id, m.name) for id in IDS for m in answers(id[:2])[id].mutants] if IDS else []
SEEDS = range(hunt(2, 100))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("id", IDS)
def test_reference_earns_full_marks_and_stub_nothing(id):
    e = exercise(id)
    reference, stub = load(reference_source(id), e.name), load(e.stub, e.name)
    for seed in SEEDS:
        result = evaluate(e, reference, seed)
        assert result.points == e.points, (seed, result.first_failure)
    result = evaluate(e, stub)
    assert result.points == 0 and not result.attempted


@pytest.mark.parametrize(("id", "name"), MUTANTS)
def test_mutant_is_caught_by_name(id, name):
    e, says = exercise(id), answer(id).mutant(name).says
    mutant = load(mutant_source(id, name), e.name)
    verdicts = set()
    for seed in SEEDS:
        result = evaluate(e, mutant, seed)
        assert result.attempted and result.points < e.points, f"seed {seed}: not caught"
        assert says in result.first_failure.message, (seed, result.first_failure)
        assert not any(o.crashed for o in result.outcomes), (seed, result)
        verdicts.add(tuple(o.passed for o in result.outcomes))
    assert len(verdicts) == 1, "the verdict depends on the seed"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
@pytest.mark.parametrize("id", IDS)
def test_the_judge_outside_gives_the_same_verdicts(id, sandbox):
    """In the sandbox an answer sees copies that came over a wire, and the judge sees what it sent back."""
    e = exercise(id)
    sources = {"reference": reference_source(id), "stub": e.stub}
    sources |= {m.name: mutant_source(id, m.name) for m in answer(id).mutants}
    for name, source in sources.items():
        cells = (Cell(source, id.replace(".", "-")),)
        [grade] = judge(cells, "x", e.lesson, "", "", sandbox, 1, frozenset({id})).grades
        here = evaluate(e, load(source, e.name), 1, held(e))
        assert [o.passed for o in grade.outcomes] == [o.passed for o in here.outcomes], name
        if name not in ("reference", "stub"):
            assert grade.points < e.points and answer(id).mutant(name).says in here.first_failure.message


@pytest.mark.parametrize("id", IDS)
def test_six_mutants_at_least_each_of_its_own(id):
    mutants = answer(id).mutants
    assert len(mutants) >= 6
    assert len({m.name for m in mutants}) == len(mutants)
    assert len({mutant_source(id, m.name) for m in mutants}) == len(mutants)


def test_answers_and_exercises_are_the_same_set():
    for lesson in lessons():
        assert set(answers(lesson)) == {e.id for e in exercises(lesson)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_carries_its_exercises_once_and_in_step(path):
    nb = nbformat.read(path, as_version=4)
    lesson = path.name[:2]
    ids = [c.metadata["nbgrader"]["grade_id"] for c in nb.cells if "nbgrader" in c.metadata]
    keys = [e.id.replace(".", "-") for e in exercises(lesson)]
    want = [key + part for key in keys for part in ("-prompt", "", "-check")]
    assert sorted(ids) == sorted(want)
    sources = cells.answer_cells(nb)
    assert sources == {e.id: e.stub for e in exercises(lesson)}, "an answer cell holds more than its stub"
    before = json.dumps(nb, sort_keys=True)
    assert json.dumps(cells.sync(nb, lesson), sort_keys=True) == before, f"run: course refresh {lesson}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_nothing_in_the_lesson_leans_on_an_answer(path):
    """Cells after an answer cell use lib's version: with the stub in place, its name would only raise."""
    nb = nbformat.read(path, as_version=4)
    names = set()
    for cell in nb.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if cell.cell_type != "code" or grade_id.endswith("-check"):
            continue
        if grade_id:
            names.add(exercise(grade_id.replace("-", ".", 1)).name)
            continue
        nodes = list(ast.walk(ast.parse(cell.source)))
        used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        rebound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        rebound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        rebound |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
        assert not names & used - rebound, f"a cell uses what the learner is to write:\n{cell.source}"


@pytest.mark.parametrize("id", [e.id for e in filter(standard.applies, exercises())])
def test_no_points_without_the_idea(id):
    """The standard mutants: empty, constant, echo, the right shape, and a table of all that could have been seen."""
    e = exercise(id)
    for name, points in standard.points(e, seeds=hunt(2, 12)).items():
        assert points <= e.points / 4, f"{name} earns {points} of {e.points}"
