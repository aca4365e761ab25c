"""Three versions of a notebook made into one: what a learner wrote stays, all else is new."""

import copy
import hashlib

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.course.own_copy.merging import BESIDE, merge
from lib.lesson.series import source

RUN = [{"output_type": "stream", "name": "stdout", "text": "ran"}]


def md(text, id=None, **metadata):
    return {"cell_type": "markdown", "id": id or made(text), "metadata": metadata, "source": text}


def code(text, id=None, outputs=(), **metadata):
    return {"cell_type": "code", "id": id or made(text), "metadata": metadata, "source": text,
            "execution_count": 1 if outputs else None, "outputs": list(outputs)}  # fmt: skip


def made(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def answer(text, exercise="02-mask"):
    nbgrader = {"grade": False, "grade_id": exercise, "locked": False, "schema_version": 3, "solution": True}
    return code(text, exercise, nbgrader=nbgrader)


def texts(merged):
    return [source(cell) for cell in merged.cells]


def valid(cells):
    notebook = {"cells": copy.deepcopy(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    nbformat.validate(nbformat.from_dict(notebook))
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    return True


A, B, C = md("# One, a heading"), code("x = first(value)"), md("the third cell of all")
STUB = answer("def mask(T):\n    raise NotImplementedError")
MINE = answer("def mask(T):\n    return torch.ones(T, T).tril().bool()")
PROMPT = md("### Exercise", "02-mask-prompt", nbgrader={"grade_id": "02-mask-prompt", "solution": False})
BASE = [A, B, PROMPT, STUB, C]
NOTE = md("my own note", "7f3c1d2e-random")
OTHER = code("x = first(value, carefully=True)  # a sentence more")


def beside(cell):
    text = f"```python\n{cell['source']}\n```" if cell["cell_type"] == "code" else cell["source"]
    return f"{BESIDE}\n\n{text}"


CASES = {
    # what: (base, mine, new, what the sources are then)
    "nothing has changed": (BASE, BASE, BASE, BASE),
    "an answer stays": (BASE, [A, B, PROMPT, MINE, C], BASE, [A, B, PROMPT, MINE, C]),
    "an answer stays where the lesson changed around it": (
        BASE, [A, B, PROMPT, MINE, C], [A, OTHER, PROMPT, STUB, C], [A, OTHER, PROMPT, MINE, C]),
    "an open answer gets the new stub": (BASE, BASE, [A, B, PROMPT, answer("def mask(T, S): ..."), C],
                                         [A, B, PROMPT, answer("def mask(T, S): ..."), C]),
    "an answer stays and the new stub stands beside": (
        BASE, [A, B, PROMPT, MINE, C], [A, B, PROMPT, answer("def mask(T, S): ..."), C],
        [A, B, PROMPT, MINE, beside(answer("def mask(T, S): ...")), C]),
    "a cell added stays where it was put": (BASE, [A, NOTE, B, PROMPT, STUB, C], BASE, [A, NOTE, B, PROMPT, STUB, C]),
    "a cell added first, and one added last": (
        BASE, [NOTE, *BASE, code("mine()", "z")], BASE, [NOTE, *BASE, "mine()"]),
    "a note stays beside its neighbour when new cells come": (
        BASE, [A, NOTE, B, PROMPT, STUB, C], [A, md("brand new"), B, PROMPT, STUB, C],
        [A, NOTE, "brand new", B, PROMPT, STUB, C]),
    "a note stays when its neighbour goes": (BASE, [A, B, NOTE, PROMPT, STUB, C], [A, PROMPT, STUB, C],
                                             [A, NOTE, PROMPT, STUB, C]),
    "new cells come where they belong": (BASE, BASE, [A, B, md("new"), PROMPT, STUB, C, code("last()")],
                                         [A, B, "new", PROMPT, STUB, C, "last()"]),
    "what the lesson dropped goes": (BASE, BASE, [A, PROMPT, STUB], [A, PROMPT, STUB]),
    "what the lesson dropped stays if the learner had changed it": (
        BASE, [A, code(f"{B['source']}  # mine", B["id"]), PROMPT, STUB, C], [A, PROMPT, STUB, C],
        [A, f"{B['source']}  # mine", PROMPT, STUB, C]),
    "what the learner deleted stays deleted": (BASE, [A, PROMPT, STUB], BASE, [A, PROMPT, STUB]),
    "also when the lesson has changed it": (BASE, [A, PROMPT, STUB, C], [A, OTHER, PROMPT, STUB, C],
                                            [A, PROMPT, STUB, C]),
    "an exercise's cells come back": (BASE, [A, B, C], BASE, BASE),
    "both changed a cell": (
        BASE, [A, code("x = mine(value)", B["id"]), PROMPT, STUB, C], [A, OTHER, PROMPT, STUB, C],
        [A, "x = mine(value)", beside(OTHER), PROMPT, STUB, C]),
    "both changed a cell that kept its id": (
        BASE, [A, code("x = mine(value)", B["id"]), PROMPT, STUB, C], [A, code("other.words", B["id"]), *BASE[2:]],
        [A, "x = mine(value)", beside(code("other.words")), PROMPT, STUB, C]),
    "both changed it in the same way": (BASE, [A, code(OTHER["source"], B["id"]), *BASE[2:]], [A, OTHER, *BASE[2:]],
                                        [A, OTHER, *BASE[2:]]),
    "both changed prose": (
        BASE, [*BASE[:4], md("the third cell of all, says me", C["id"])], [*BASE[:4], md("the third cell, reworded")],
        [*BASE[:4], "the third cell of all, says me", beside(md("the third cell, reworded"))]),
    "the learner's order stays": (BASE, [A, C, B, PROMPT, STUB], [A, OTHER, md("new"), PROMPT, STUB, C],
                                  [A, C, OTHER, "new", PROMPT, STUB]),
    "the lesson's order is taken": (BASE, [A, B, PROMPT, MINE, C], [A, C, PROMPT, STUB, B], [A, C, PROMPT, MINE, B]),
    "a cell copied id and all": (BASE, [A, B, code("x = copied", B["id"]), *BASE[2:]], BASE,
                                 [A, B, "x = copied", *BASE[2:]]),
    "a cell copied id and all, and put above": (
        BASE, [A, code("x = copied", B["id"]), B, *BASE[2:]], [A, OTHER, *BASE[2:]],
        [A, "x = copied", OTHER, *BASE[2:]]),
    "a cell copied id and all, and put above, in the lesson as it was": (
        BASE, [A, code("x = copied", B["id"]), B, *BASE[2:]], BASE, [A, "x = copied", *BASE[1:]]),
    "two of the learner's cells with one id": (BASE, [*BASE, NOTE, NOTE | {"source": "more"}], BASE,
                                               [*BASE, NOTE, "more"]),
    "a new cell has the id that the learner's has": (
        BASE, [*BASE[:4], code("mine()", "both"), C], [A, B, PROMPT, STUB, C, code("ours()", "both")],
        [*BASE, "mine()", beside(code("ours()"))]),
    "a cell like another that stands elsewhere": (
        BASE, [A, code("x = first(value)  # mine", B["id"]), *BASE[2:]], [A, PROMPT, STUB, C, OTHER],
        [A, "x = first(value)  # mine", PROMPT, STUB, C, OTHER]),
    "a cell whose kind was changed": (
        BASE, [A, B | {"cell_type": "markdown", "outputs": RUN}, *BASE[2:]], BASE, [A, B["source"], *BASE[2:]]),
    "a notebook that lost its ids": (
        BASE, [{k: v for k, v in cell.items() if k != "id"} for cell in [A, NOTE, B, PROMPT, MINE, C]],
        [A, OTHER, PROMPT, STUB, C], [A, NOTE, OTHER, PROMPT, MINE, C]),
    "an update that was broken off": (BASE, [A, OTHER, md("new"), PROMPT, STUB, C], [A, OTHER, md("new"), *BASE[2:]],
                                      [A, OTHER, "new", PROMPT, STUB, C]),
    "all of it deleted": (BASE, [], BASE, [PROMPT, STUB]),
    "nothing there at first": ([], [NOTE], BASE, [NOTE, *BASE]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    base, mine, new, wanted = copy.deepcopy(CASES[case])
    merged = merge(base, mine, new)
    assert texts(merged) == [cell if isinstance(cell, str) else cell["source"] for cell in wanted]
    assert (base, mine, new) == CASES[case][:3], "the versions are left as they were"
    assert valid(merged.cells)
    for cell in new:
        assert [c["id"] for c in merged.cells if source(c) == source(cell)] in ([], [cell["id"]]), "the lesson's own id"
    again = merge(new, merged.cells, new)
    assert texts(again) == texts(merged) and not again.beside, "a second time changes nothing"


def test_outputs_stay_with_the_code_that_made_them():
    base = [B, code("y = 2")]
    mine = [B | {"outputs": RUN, "execution_count": 3}, code("y = 2") | {"outputs": RUN, "execution_count": 4}]
    new = [B, code("y = 2 # now")]
    same, renewed = merge(base, mine, new).cells
    assert (same["outputs"], same["execution_count"]) == (RUN, 3)
    assert (renewed["outputs"], renewed["execution_count"]) == ([], None)
    assert merge(base, mine, new, outputs=False).cells[0]["outputs"] == []


def test_metadata_is_the_lessons_where_it_is_the_lessons():
    mine = MINE | {"metadata": {"nbgrader": {"grade_id": "forged"}, "tags": ["x"], "collapsed": True}}
    new = STUB | {"metadata": STUB["metadata"] | {"tags": ["kept"]}}
    [cell] = merge([STUB], [mine], [new]).cells
    assert cell["metadata"] == STUB["metadata"] | {"tags": ["kept"], "collapsed": True}
    assert source(cell) == source(MINE)
    [cell] = merge([B], [B | {"metadata": {"tags": ["old"], "collapsed": True}}], [B]).cells
    assert cell["metadata"] == {"collapsed": True}


def test_a_later_conflict_takes_the_earlier_notices_place():
    mine = code("x = mine(value)", B["id"])
    first = merge([B], [mine], [OTHER])
    third = code("x = first(value, carefully=True)  # a sentence less")
    second = merge([OTHER], first.cells, [third])
    assert texts(second) == ["x = mine(value)", beside(third)]
    assert texts(merge([third], second.cells, [third])) == texts(second), "it stays until the learner deletes it"
    scribbled = [first.cells[0], first.cells[1] | {"source": f"{source(first.cells[1])}\n\nI took the second line."}]
    kept = texts(merge([OTHER], scribbled, [third]))
    assert kept == ["x = mine(value)", beside(third), scribbled[1]["source"]]
    assert texts(merge([third], second.cells[:1], [third])) == ["x = mine(value)"]


def test_a_notice_never_runs():
    text = "print('```')\n````"
    merged = merge([B], [code("x = mine(value)", B["id"])], [code(text, B["id"])])
    notice = merged.cells[1]
    assert notice["cell_type"] == "markdown" and f"`````python\n{text}\n`````" in source(notice)


def test_a_notice_is_not_taken_for_its_cell():
    first, second, third = (md(" ".join(WORDS[:80]) + end) for end in (".", "!", "?"))
    merged = merge([first], [first | {"source": "mine"}], [second])
    assert texts(merged) == ["mine", beside(second)]
    assert texts(merge([second], merged.cells[1:], [third])) == [beside(second)], "the cell itself was deleted"


# Anything that learners and authors may do

WORDS = [f"{a}{b}{c}" for a in "klmnprst" for b in "aeiou" for c in "klmnprst"]


def cell_of(n):
    """Cell n of the lesson, like no other."""
    text = " ".join(WORDS[(7 * n + 31 * i) % len(WORDS)] + str(n) for i in range(8))
    return [md, code, code][n % 3](text)


EDITS = st.lists(st.tuples(st.sampled_from(["edit", "edit", "delete", "add", "add", "move"]), st.integers(0, 30)),
                 max_size=8)  # fmt: skip


def changed(cells, edits, who, rehash):
    """The cells after the edits; {id of base cell: what happened to it}, and the texts that were written."""
    cells, fate, written = copy.deepcopy(cells), {}, []
    origin = [cell["id"] for cell in cells]
    for n, (what, at) in enumerate(edits):
        place = at % (len(cells) + 1)
        if what == "add" or place == len(cells):
            text = f"{who} writes {who}{n} new words {who}{n}a {who}{n}b"
            cells.insert(place, md(text, f"{who}-{n}" if who == "mine" else None))
            origin.insert(place, None)
            written.append(text)
            continue
        before = origin[place]
        if what == "delete":
            if who == "mine" and before is None:
                continue  # what a learner deletes again need not survive
            gone = cells.pop(place)
            written = [text for text in written if text != source(gone)]
            origin.pop(place)
            fate[before] = "deleted"
        elif what == "edit":
            old = source(cells[place])
            text = f"{old} {who}{n}"
            cells[place] |= {"source": text} | ({"id": made(text)} if rehash else {})
            written = [t for t in written if t != old] + [text]
            fate[before] = "edited"
        else:
            cells.append(cells.pop(place))
            origin.append(origin.pop(place))
            fate["moved"] = True
    fate.pop(None, None)
    return cells, origin, fate, written


@settings(max_examples=300, deadline=None)
@given(size=st.integers(0, 9), mine=EDITS, new=EDITS, later=EDITS, rehash=st.booleans())
def test_nothing_written_is_lost_and_all_else_is_new(size, mine, new, later, rehash):
    base = [cell_of(n) for n in range(size)]
    my_cells, _, my_fate, my_texts = changed(base, mine, "mine", rehash=False)
    new_cells, origin, new_fate, _ = changed(base, new, "ours", rehash)
    merged = merge(base, my_cells, new_cells)
    assert valid(merged.cells)
    assert_kept(merged, my_texts)
    shown = {(cell["id"], source(cell)) for cell in merged.cells}
    notices = "\n".join(source(cell) for cell in merged.cells if "course" in cell["metadata"])
    for cell, before in zip(new_cells, origin, strict=True):
        if before is None or before not in my_fate:
            assert (cell["id"], source(cell)) in shown, "what the learner had not touched is the new text"
        elif my_fate[before] == "edited" and new_fate.get(before) == "edited":
            assert source(cell) in notices or (cell["id"], source(cell)) in shown, "and so is the text of a conflict"
        elif my_fate[before] == "deleted" and new_fate.get(before) != "edited":
            assert source(cell) not in texts(merged), "what the learner deleted stays deleted"
    for cell in base:
        if cell["id"] not in my_fate and new_fate.get(cell["id"]) == "deleted":
            assert source(cell) not in texts(merged), "what the lesson dropped is gone"
    if not my_fate.get("moved"):
        untouched = [source(c) for c, b in zip(new_cells, origin, strict=True) if b and b not in my_fate]
        assert [text for text in texts(merged) if text in untouched] == untouched, "in the lesson's order"
    again = merge(new_cells, merged.cells, new_cells)
    assert texts(again) == texts(merged) and valid(again.cells)
    next_cells, *_ = changed(new_cells, later, "then", rehash)
    assert_kept(merge(new_cells, merged.cells, next_cells), my_texts)


def assert_kept(merged, written):
    there = texts(merged)
    for text in written:
        assert text in there, "what the learner wrote stands there to the letter"
