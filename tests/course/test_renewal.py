"""A refreshed notebook: executed, in one form, and never written when something is wrong."""

import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.course.authoring.renewal import normalised, refresh
from lib.errors import CourseError
from lib.lesson.series import Lesson


def write(path, *sources):
    cells = [new_markdown_cell("# A lesson"), *(new_code_cell(source) for source in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return Lesson(path)


def test_refresh_executes_in_the_notebooks_folder_and_settles(tmp_path):
    lesson = write(
        tmp_path / "02_attention.ipynb",
        "import os\nprint(os.getcwd())\nprint(os.environ['COURSE_PRESET'])",
        "import torch\ntorch.cuda.is_available()",
    )
    assert refresh(lesson)
    nb = nbformat.read(lesson.path, as_version=4)
    assert nb.cells[1].outputs[0].text.splitlines() == [str(tmp_path), "cpu"]
    assert nb.cells[2].outputs[0].data["text/plain"] == "False"
    first = lesson.path.read_bytes()
    assert not refresh(lesson) and not refresh(lesson, run=False)
    assert lesson.path.read_bytes() == first


@pytest.mark.parametrize(
    "source, says",
    [
        ("1/0", "02_attention, code cell 2: ZeroDivisionError: division by zero"),
        ("import sys\nprint('so so', file=sys.stderr)", "code cell 2: it prints to stderr: so so"),
        ("import warnings\nwarnings.warn('careful')", "code cell 2: it prints to stderr: .*careful"),
    ],
)
def test_nothing_is_written_when_a_cell_is_wrong(tmp_path, source, says):
    lesson = write(tmp_path / "02_attention.ipynb", "1", source)
    before = lesson.path.read_bytes()
    with pytest.raises(CourseError, match=says):
        refresh(lesson)
    assert lesson.path.read_bytes() == before


def test_a_cell_that_hangs_is_named(tmp_path):
    lesson = write(tmp_path / "02_attention.ipynb", "while True: pass")
    with pytest.raises(CourseError, match=r"02_attention: .*(timed out|timeout)"):
        refresh(lesson, timeout=2)


def test_ctrl_c_ends_it_and_leaves_the_file_and_no_kernel(tmp_path):
    lesson = write(tmp_path / "02_attention.ipynb",
                   "import os, time\nopen('pid.part', 'w').write(str(os.getpid()))\nos.rename('pid.part', 'pid')\n"
                   "time.sleep(600)")  # fmt: skip
    before = lesson.path.read_bytes()
    command = [sys.executable, "-c", "from lib.course.cli import main; main()", "refresh", str(lesson.path)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=30)
    finally:
        running.kill()
    assert (running.returncode, said.strip()) == (130, "course: interrupted")
    assert lesson.path.read_bytes() == before
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_no_notebook(tmp_path):
    (tmp_path / "02_attention.ipynb").write_text("{")
    with pytest.raises(CourseError, match="is not a notebook"):
        refresh(Lesson(tmp_path / "02_attention.ipynb"))


def test_normalised():
    def stream(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    nb = new_notebook(
        metadata={"kernelspec": {"name": "mine", "display_name": "Mine", "language": "python"}, "widgets": {"a": 1}},
        cells=[
            new_code_cell("\nx\n", execution_count=9, outputs=[stream("a"), stream("b"), stream("c", "stderr")]),
            new_code_cell("x", metadata={"tags": ["t"], "execution": {"iopub": "2026"}, "scrolled": True}),
            new_code_cell("y", execution_count=3, outputs=[new_output("execute_result", {}, execution_count=3)]),
            new_code_cell("stub", metadata={"nbgrader": {"grade_id": "02-mask"}}),
        ],
    )
    nb = normalised(nb)
    assert nb.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    first, second, third, answer = nb.cells
    assert [cell.execution_count for cell in nb.cells] == [1, 2, 3, 4]
    assert third.outputs[0].execution_count == 3
    assert [output.text for output in first.outputs] == ["ab", "c"]
    assert first.source == "x" and second.metadata == {"tags": ["t"]}
    assert second.id == f"{first.id}-2" and answer.id == "02-mask"
    ids = [cell.id for cell in nb.cells]
    assert [cell.id for cell in normalised(nb).cells] == ids
    nbformat.validate(nb)
