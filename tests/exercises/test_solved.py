"""A solved lesson runs from top to bottom, and every check in it prints full marks."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from forked import Warm
from hunt import hunt
from nbformat.v4 import new_code_cell

from lib.answers import reference_source
from lib.exercises.exercise import exercises
from lib.lesson.cells import solve

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))


KERNELS = ("01", "08")  # lessons run as readers run them; the others, in forks, take half the time
# These read and write with the real model, or train it: its first layers will do, for what it says is no matter
# here, and strict nbval asks the whole of it. Others look into single layers.
SHALLOW, LAYERS = ("00", "07", "10", "11", "12"), hunt(6, 30)


@pytest.fixture(scope="module")
def warm():
    with Warm("forked", "lessons") as warm:
        yield warm


def run(nb, folder, home, warm):
    env = {"COURSE_PRESET": "smoke", "COURSE_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
    if warm:
        return warm.notebook(nb, folder, **env)
    from nbclient import NotebookClient

    client = NotebookClient(nb, timeout=300, kernel_name="python3", extra_arguments=["--log-level=ERROR"],
                            resources={"metadata": {"path": str(folder)}})
    return client.execute(env=os.environ | env)


def printed(nb):
    """{exercise id: what its check cell said, as plain text}"""
    found = {}
    for cell in nb.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if grade_id.endswith("-check"):
            id = grade_id.removesuffix("-check").replace("-", ".", 1)
            found[id] = "".join(o.data["text/plain"] for o in cell.outputs if "data" in o)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_solved_lesson_earns_full_marks(path, tmp_path, request):
    lesson = path.name[:2]
    nb = nbformat.read(path, as_version=4)
    answers = {e.id: reference_source(e.id) for e in exercises(lesson)}
    warm = None if lesson in KERNELS or sys.platform != "linux" else request.getfixturevalue("warm")
    nb = solve(nb, answers)
    if warm and lesson in SHALLOW:
        nb.cells.insert(0, new_code_cell(f"import lessons\nlessons.shallow({LAYERS})"))
    got = printed(run(nb, path.parent, tmp_path, warm))
    assert set(got) == set(answers)
    for e in exercises(lesson):
        assert got[e.id].startswith(f"{e.id}: {e.points} of {e.points} point") and "Full marks." in got[e.id], got[e.id]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_checks_say_not_attempted(path):
    for id, text in printed(nbformat.read(path, as_version=4)).items():
        assert text.startswith(f"{id}: not attempted yet"), text
