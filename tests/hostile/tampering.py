"""Tampering with the notebook: cells, ids, tags, metadata. Only what an answer computes may count."""

from hostile.entry import FULL, Entry, answer_cell, code, insert
from lib.answers import mutant_source, reference_source
from lib.exercises.exercise import exercise, exercises

RIGHT = reference_source("02.attention")
WRONG = mutant_source("02.attention", "no scale")  # right but for the scale: some of the points
STUB = exercise("02.attention").stub


def edited(name, edit, deserves=None, lesson="02", **more):
    return Entry(name, lesson, edit=edit, deserves=deserves or {}, **more)


def meta(nb, id="02.attention", check=False):
    return answer_cell(nb, id, check)["metadata"]["nbgrader"]


def ids_swapped(nb):
    a, b = meta(nb), meta(nb, "02.causal_mask")
    a["grade_id"], b["grade_id"] = b["grade_id"], a["grade_id"]


def points_raised(nb):
    for cell in nb["cells"]:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"] |= {"points": 10**9, "schema_version": 99}
            cell["metadata"]["points"] = cell["metadata"]["score"] = 10**9


def check_rewritten(nb):
    answer_cell(nb, "02.attention")["source"] = STUB
    cell = answer_cell(nb, "02.attention", check=True)
    cell["source"] = "print('02.attention: 8 of 8 points')\n8"
    cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "8"}, "metadata": {},
                        "execution_count": 1}]  # fmt: skip


def check_patched(nb):
    """The check's cell gives the name its meaning: nothing there counts."""
    answer_cell(nb, "02.attention")["source"] = STUB
    answer_cell(nb, "02.attention", check=True)["source"] = RIGHT


def outputs_forged(nb):
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "8 of 8 points\nFull marks."}]
            cell["execution_count"] = 1
    answer_cell(nb, "02.attention")["source"] = STUB


def flags_flipped(nb):
    for cell in nb["cells"]:
        if "nbgrader" in cell["metadata"]:
            about = cell["metadata"]["nbgrader"]
            about |= {"locked": False, "grade": not about["grade"], "solution": not about["solution"]}


def metadata_stripped_but_ids(nb):
    for cell in nb["cells"]:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"] = {"nbgrader": {"grade_id": cell["metadata"]["nbgrader"]["grade_id"]}}


def metadata_of_wrong_types(nb):
    extra = [None, [], "x", 5, {"nbgrader": None}, {"nbgrader": []}, {"nbgrader": {"grade_id": 7}},
             {"nbgrader": {"grade_id": None}}, {"nbgrader": {"grade_id": {"a": 1}}},
             {"nbgrader": {"grade_id": "02-attention\n"}}, {"nbgrader": {"grade_id": "x" * 10**6}},
             {"nbgrader": {"grade_id": "\uff10\uff12-attention"}}, {"tags": {"solution": 1}}, {"tags": 5}]  # fmt: skip
    for metadata in extra:
        nb["cells"].append(code(WRONG) | {"metadata": metadata})
    nb["cells"] += [None, 5, "cell", [], {"cell_type": "code"}, {"cell_type": 7, "source": 7},
                    {"cell_type": "code", "source": {"a": 1}, "metadata": {}},
                    {"cell_type": "code", "source": [1, None, ["x"]], "metadata": {}}]  # fmt: skip
    nb["metadata"] = ["learner", {"name": "honest"}]


def learner_claimed(nb):
    nb["metadata"] |= {"authors": [{"name": "good_plain"}], "learner": "good_plain", "student_id": "good_plain",
                       "nbgrader": {"student": "good_plain", "score": 24}}  # fmt: skip


def kernel_replaced(nb):
    nb["metadata"]["kernelspec"] = {"name": "../../bin/sh", "display_name": "x", "language": "bash",
                                    "argv": ["touch", "/tmp/owned"]}  # fmt: skip
    nb["metadata"]["language_info"] = {"name": "bash", "file_extension": "/../../x", "nbconvert_exporter": "os.system"}


def copied(first, second):
    def edit(nb):
        answer_cell(nb, "02.attention")["source"] = first
        insert(nb, code(second, "02-attention"), after="02.attention")

    return edit


def answer_below(nb):
    answer_cell(nb, "02.attention")["source"] = STUB
    insert(nb, code(RIGHT), after="02.attention")


def answer_far_above(nb):
    """A right function far from its place, and a wrong one in it: the wrong one is the answer."""
    answer_cell(nb, "02.attention")["source"] = WRONG
    nb["cells"].insert(0, code(RIGHT))


def cell_deleted(nb):
    nb["cells"].remove(answer_cell(nb, "02.attention"))
    nb["cells"].append(code(RIGHT))


def cell_deleted_for_good(nb):
    nb["cells"].remove(answer_cell(nb, "02.attention"))


def check_deleted(nb):
    nb["cells"].remove(answer_cell(nb, "02.attention", check=True))


def turned_to_markdown(nb):
    answer_cell(nb, "02.attention")["cell_type"] = "markdown"


def foreign_cell(nb):
    """Pasted from another lesson, id and all, as JupyterLab does: it counts there, unless a notebook of that is here."""
    insert(nb, code(reference_source("04.count_params"), "04-count_params"))


def unknown_ids(nb):
    for id in ("02-bonus", "99-attention", "02-attention-check-check", "../../02-attention", "02-attention-answer"):
        insert(nb, code("attention = causal_mask = lambda *a: 8", id))


def everything_reversed(nb):
    nb["cells"].reverse()


def id_misspelt(nb):
    meta(nb)["grade_id"] = "02-Attention "


PARTIAL = 6  # what `no scale` earns: the look-up by hand and the comparison with PyTorch's are lost
SWAPPED = {"02.attention": 0, "02.causal_mask": 0}

ENTRIES = [
    edited("ids_swapped", ids_swapped, SWAPPED),
    edited("points_raised", points_raised),
    edited("check_rewritten", check_rewritten, {"02.attention": 0}),
    edited("check_defines_the_answer", check_patched, {"02.attention": 0}),
    edited("outputs_forged", outputs_forged, {"02.attention": 0}),
    edited("lock_and_roles_flipped", flags_flipped),
    edited("metadata_stripped_but_ids", metadata_stripped_but_ids),
    edited("metadata_of_wrong_types", metadata_of_wrong_types),
    edited("another_learner_claimed", learner_claimed),
    edited("kernel_replaced", kernel_replaced),
    edited("copied_wrong_then_right", copied(WRONG, RIGHT), flags=("several cells",)),
    edited("copied_right_then_wrong", copied(RIGHT, WRONG), {"02.attention": PARTIAL}, flags=("several cells",)),
    edited("copied_right_then_stub", copied(RIGHT, STUB), flags=("several cells",)),
    edited("answer_in_the_cell_below", answer_below, flags=("a cell of its own",)),
    edited("right_one_far_above_wrong_one", answer_far_above, {"02.attention": PARTIAL}),
    edited("cell_gone_answer_at_the_end", cell_deleted, flags=("a cell of its own",)),
    edited("cell_gone_for_good", cell_deleted_for_good, {"02.attention": 0}),
    edited("check_gone", check_deleted),
    edited("answer_turned_to_markdown", turned_to_markdown, {"02.attention": 0}),
    edited("cell_of_another_lesson", foreign_cell,
           {e.id: FULL if e.id == "04.count_params" else 0 for e in exercises("04")}),
    edited("ids_that_do_not_exist", unknown_ids),
    edited("cells_in_reverse", everything_reversed, {"02.attention": FULL}),
    edited("id_misspelt", id_misspelt, flags=("a cell of its own",)),
]
