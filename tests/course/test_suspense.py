"""No outcome stands open below its question: not on the website, not in a release, not in a learner's copy."""

import json
import re

import pytest

from lib.course.own_copy.suspense import END, FOLD, fold, folded, kept_back, predictions, unfolded
from lib.course.own_copy.workspace import prepared
from lib.lesson import series
from lib.lesson.series import source

LESSONS = series.series()
# Every prediction there is. Who adds one to a lesson adds it here, after a look at what is folded of it.
PREDICTIONS = """
00 capitals or sums
01 greek, analogy, order
02 saturation, recall, order
03 one_head, rival, sharing, ablation
04 stream, lens, norms
05 rate, muon, grams, size
06 depth, clock, reach, rung
07 tail, repeats, saves, sums, wrong
08 digits, simple, hands, bag, shuffle, erase, scarce, why
09 rouge, select, unseen, fifty, judge
10 memory, cache, bits, shift
11 before, after, unseen, forgot, small
12 prompt, unseen
"""
UNTOLD = {("10", "shift")}  # after these comes a new section at once: no prose tells the outcome


def md(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, **metadata):
    outputs = [{"output_type": "stream", "name": "stdout", "text": "seen"}]
    return {"cell_type": "code", "metadata": metadata, "source": text, "outputs": outputs, "execution_count": 1}


ASK, TELL = code('lesson.predict(\n    "k", "What?", {"a": "this"})'), code('lesson.reveal("k", "a")')


def test_the_list_is_complete():
    there = {(line[:2], key) for line in PREDICTIONS.split("\n") if line for key in line[3:].split(", ")}
    found = {(lesson.number, each.key) for lesson in LESSONS for each in predictions(lesson.notebook["cells"])}
    assert found == there
    for lesson in LESSONS:  # by another road: the words themselves
        text = "\n".join(source(c) for c in lesson.notebook["cells"] if c["cell_type"] == "code")
        for what in ("predict", "reveal"):
            assert len(re.findall(rf"\blesson\.{what}\(", text)) == sum(number == lesson.number for number, _ in there)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_each_outcome_is_kept_back(lesson):
    cells = lesson.notebook["cells"]
    kept = kept_back(cells)
    for each in predictions(cells):
        assert each.asked < each.told and each.told in kept.outputs
        for place in range(each.asked + 1, each.told + 1):
            asks = "lesson.predict(" in source(cells[place])
            assert cells[place]["cell_type"] == "markdown" or asks != (place in kept.outputs)
        assert ((lesson.number, each.key) in UNTOLD) == (not each.prose)
    begun = prepared(cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in begun)
    for place, (cell, before) in enumerate(zip(begun, cells, strict=True)):
        assert source(cell).startswith(FOLD) == (place in kept.prose)
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
        ours = "jupyter" in before["metadata"]  # what an exercise asks for, folded in every copy
        tells = place in kept.outputs and "show(" in source(cell)
        assert hidden == (ours or tells), "a caption gives the outcome away"
        assert unfolded(source(cell)) == source(before), "nothing else has changed, and it can be undone"
    assert json.dumps(folded(begun)) == json.dumps(begun)


@pytest.mark.parametrize(
    "text, head, rest",
    [
        ("All of it.", "All of it.", ""),
        ("One.\n\nTwo.", "One.\n\nTwo.", ""),
        ("One.\n\n## Next\n\nThree.", "One.", "\n\n## Next\n\nThree."),
        ("One.\n\nLook at this:", "One.", "\n\nLook at this:"),
        ("Look at this:", "", "Look at this:"),
        ("## Next\n\nThree.", "", "## Next\n\nThree."),
        ("One.\n\n```\n# no heading\n```\n", "One.\n\n```\n# no heading\n```", "\n"),
        ("<details><summary>Why?</summary>\n\nSo.\n</details>", "", ""),
    ],
)  # fmt: skip
def test_what_of_a_cell_is_folded(text, head, rest):
    assert fold(text) == (f"{FOLD}{head}{END}{rest}" if head else text)
    assert unfolded(fold(text)) == text and fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    "cells, outputs, prose",
    [
        ([ASK, code("x"), TELL, md("So it is.")], {1, 2}, {3}),
        ([ASK, TELL, code("more"), md("So it is."), code("next"), md("Another thing.")], {1, 2}, {3}),
        ([ASK, TELL, md("So it is."), md("And so."), md("# New"), md("Another.")], {1}, {2, 3}),
        ([ASK, TELL, md("So it is.\n\n# New"), md("Another.")], {1}, {2}),
        ([ASK, TELL, md("# New"), md("Another.")], {1}, set()),
        ([ASK, TELL, code("more"), md("# New")], {1}, set()),
        ([ASK, TELL, code("stub", nbgrader={"grade_id": "02-x"}), md("Another.")], {1}, set()),
        ([ASK, TELL, code('lesson.predict("z", "?", {})'), md("Between.")], {1}, set()),
        ([ASK, code('lesson.predict("z", "?", {})'), code('lesson.reveal("z", "a")\nlesson.reveal("k", "a")'),
          md("Both.")], {2}, {3}),
        ([TELL, md("Never asked.")], set(), set()),
        ([ASK, code("x"), md("Never told.")], set(), set()),
        ([code("predict(model)"), code("other.reveal('k', 1)"), code("lesson.predict(")], set(), set()),
    ],
)  # fmt: skip
def test_where_an_outcome_begins_and_ends(cells, outputs, prose):
    kept = kept_back(cells)
    assert (kept.outputs, kept.code, kept.prose) == (outputs, set(), prose)
