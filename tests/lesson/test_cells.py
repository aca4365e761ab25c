"""From a marker to three cells and back, whatever state the notebook is in."""

import copy
import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.answers import reference_source
from lib.errors import CourseError
from lib.exercises.exercise import exercise
from lib.lesson.cells import answer_cells, restate, solve, sync

MASK = exercise("02.causal_mask")


def lesson(*ids):
    cells = [new_markdown_cell("# Lesson"), new_code_cell("from lib.lesson import check, hint")]
    for id in ids:
        cells += [new_code_cell(f"# exercise {id}"), new_markdown_cell("On we go.")]
    return new_notebook(cells=cells)


def as_text(nb):
    return json.dumps(nb, sort_keys=True)


def by_grade_id(nb):
    return {c.metadata["nbgrader"]["grade_id"]: c for c in nb.cells if "nbgrader" in c.metadata}


def test_a_marker_becomes_three_cells_in_nbgraders_metadata():
    nb = sync(lesson(MASK.id), "02")
    nbformat.validate(nb)
    assert [c.cell_type for c in nb.cells] == ["markdown", "code", "markdown", "code", "code", "markdown"]
    prompt, answer, check = nb.cells[2:5]
    assert answer.source == MASK.stub
    assert check.source == 'check("02.causal_mask", causal_mask)'
    said = (MASK.title, MASK.prompt, "3 points", "difficulty 1 of 3", "about 5 minutes", 'hint("02.causal_mask", 1)')
    for part in said:
        assert part in prompt.source
    shared = {"task": False, "schema_version": 3}
    assert prompt.metadata.nbgrader == {
        "grade": False, "solution": False, "locked": True, "grade_id": "02-causal_mask-prompt", **shared}
    assert answer.metadata.nbgrader == {
        "grade": False, "solution": True, "locked": False, "grade_id": "02-causal_mask", **shared}
    assert check.metadata.nbgrader == {
        "grade": True, "solution": False, "locked": True, "points": 3, "grade_id": "02-causal_mask-check", **shared}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", id) for id in by_grade_id(nb))


def test_syncing_twice_changes_nothing():
    nb = sync(lesson("02.causal_mask", "02.attention"), "02")
    once = as_text(nb)
    assert as_text(sync(nb, "02")) == once
    ids = [c.id for c in nb.cells]
    assert len(set(ids)) == len(ids)


def test_what_drifted_is_brought_back():
    nb = sync(lesson(MASK.id), "02")
    want = as_text(nb)
    cells = by_grade_id(nb)
    cells["02-causal_mask-prompt"].source = "an older prompt"
    cells["02-causal_mask-check"].source = "print('full marks')"
    cells["02-causal_mask"].source = "def causal_mask(n, older):\n    raise NotImplementedError"
    cells["02-causal_mask-check"].metadata["nbgrader"]["points"] = 99
    assert as_text(sync(nb, "02")) == want
    nb.cells.remove(cells["02-causal_mask-prompt"])  # deleted, or moved: it belongs beside its answer cell
    nb.cells.append(nb.cells.pop(nb.cells.index(cells["02-causal_mask-check"])))
    assert as_text(sync(nb, "02")) == want


def test_outputs_stay_where_the_source_does():
    nb = sync(lesson(MASK.id), "02")
    check = by_grade_id(nb)["02-causal_mask-check"]
    check.outputs = [nbformat.v4.new_output("stream", text="kept")]
    assert by_grade_id(sync(nb, "02"))["02-causal_mask-check"].outputs[0].text == "kept"
    check.source = "old"
    assert by_grade_id(sync(nb, "02"))["02-causal_mask-check"].outputs == []


def test_what_a_check_says_of_a_stub_is_brought_in_step():
    nb = sync(lesson(MASK.id, "02.attention", "02.effective_tokens"), "02")
    cells = by_grade_id(nb)
    for key in ("02-causal_mask-check", "02-attention-check"):
        cells[key].outputs = [nbformat.v4.new_output("stream", text="old")]
    cells["02-attention"].source = reference_source("02.attention")
    restate(nb)
    nbformat.validate(nb)
    [said] = cells["02-causal_mask-check"].outputs
    assert said.data["text/plain"].startswith("02.causal_mask: not attempted yet (3 points)")
    assert "Not attempted yet" in said.data["text/html"]
    assert cells["02-attention-check"].outputs[0].text == "old", "that is known by running it alone"
    assert cells["02-effective_tokens-check"].outputs == [], "it has not been run"


def test_other_metadata_of_the_cell_is_left_alone():
    nb = sync(lesson(MASK.id), "02")
    by_grade_id(nb)["02-causal_mask-check"].metadata["tags"] = ["kept"]
    assert by_grade_id(sync(nb, "02"))["02-causal_mask-check"].metadata["tags"] == ["kept"]


def test_a_solved_answer_is_never_overwritten():
    nb = solve(sync(lesson(MASK.id), "02"), {MASK.id: reference_source(MASK.id)})
    assert answer_cells(sync(nb, "02"))[MASK.id] == reference_source(MASK.id).strip()
    broken = solve(nb, {MASK.id: "def causal_mask(n:\n    half a line"})
    assert "half a line" in answer_cells(sync(broken, "02"))[MASK.id]


@pytest.mark.parametrize(("nb", "says"), [
    (lesson("02.casual_mask"), "did you mean 02.causal_mask"),
    (lesson("02.causal_mask", "02.causal_mask"), "there twice"),
])
def test_a_bad_marker_is_one_clear_line(nb, says):
    with pytest.raises(CourseError, match=says):
        sync(nb, "02")


def test_an_exercise_stays_in_its_lesson_and_ids_stay_unique():
    with pytest.raises(CourseError, match="belongs to lesson 02"):
        sync(lesson("02.causal_mask"), "03")
    nb = sync(lesson("02.causal_mask"), "02")
    nb.cells += copy.deepcopy(nb.cells[3:4])
    with pytest.raises(CourseError, match="two cells have the id 02-causal_mask"):
        sync(nb, "02")


def test_solve_leaves_the_original_alone():
    nb = sync(lesson("02.causal_mask", "02.attention"), "02")
    before = as_text(nb)
    solved = solve(nb, {MASK.id: reference_source(MASK.id)})
    assert as_text(nb) == before
    assert answer_cells(solved) == {
        MASK.id: reference_source(MASK.id).strip(), "02.attention": exercise("02.attention").stub}
