"""nbgrader's own tools, the real package, take our notebooks; formgrader opens the gradebook we write."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import test_exports as samples

from lib.answers import reference_source
from lib.exercises.exercise import PRELUDE, exercises
from lib.grading import exports
from lib.lesson import series
from lib.lesson.cells import answer_cells, solve

ROOT = Path(__file__).parents[2]
CONFIG = textwrap.dedent(re.search(r"```python\n(.*?) *```", (ROOT / "docs" / "grading.md").read_text(), re.S)[1])


# A command of theirs, but that lib comes first, which spares it a second or more: lib/__init__.py says how.
THEIRS = "import lib, runpy; runpy.run_module('{}', run_name='__main__', alter_sys=True)"


def environment(folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls alembic by name
    return os.environ | {"HOME": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"}


def nbgrader(folder, *arguments):
    line = [sys.executable, "-c", THEIRS.format("nbgrader"), *arguments]
    ran = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment(folder))
    return ran.returncode, ran.stdout + ran.stderr


def test_generate_assignment_takes_every_lesson_and_keeps_its_stubs(tmp_path):
    source = tmp_path / "source" / "course"
    source.mkdir(parents=True)
    (tmp_path / "nbgrader_config.py").write_text(CONFIG)
    for lesson in series.series():
        nb = nbformat.read(lesson.path, as_version=4)
        nb = solve(nb, {e.id: e.stub for e in exercises(lesson.number)})
        nbformat.write(nb, source / lesson.path.name)
    status, said = nbgrader(tmp_path, "generate_assignment", "course")
    assert status == 0 and "ERROR" not in said, said
    made = sorted((tmp_path / "release" / "course").glob("*.ipynb"))
    assert [path.name for path in made] == [lesson.path.name for lesson in series.series()]
    for path in made:
        nb, there = nbformat.read(path, as_version=4), answer_cells(nbformat.read(source / path.name, as_version=4))
        here = [e for e in exercises(path.name[:2]) if e.id in there]
        assert here and answer_cells(nb) == {e.id: e.stub for e in here}
        grades = [c.metadata.nbgrader for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade")]
        assert sorted((g.grade_id, g.points) for g in grades) == sorted(
            (f"{e.id.replace('.', '-')}-check", e.points) for e in here)
        assert all(g.checksum for g in grades)


@pytest.fixture
def every_exercise():
    """The exercise cells of all lessons, without the experiments between them, which take minutes."""
    cells = [nbformat.v4.new_code_cell(f"from lib.lesson import check, hint\n{PRELUDE}")]
    for lesson in series.series():
        cells += [c for c in nbformat.read(lesson.path, as_version=4).cells if "nbgrader" in c.metadata]
    return nbformat.v4.new_notebook(cells=cells)


def test_validate_passes_what_is_solved_and_names_what_is_not(every_exercise, tmp_path):
    references = {e.id: reference_source(e.id) for e in exercises()}
    nbformat.write(solve(every_exercise, references), tmp_path / "solved.ipynb")
    started = {e.id: e.stub for e in exercises()} | {"02.causal_mask": references["02.causal_mask"]}
    nbformat.write(solve(every_exercise, started), tmp_path / "started.ipynb")
    status, said = nbgrader(tmp_path, "validate", "solved.ipynb", "started.ipynb")
    solved, begun = said.split("Success! Your notebook passes all the tests.")
    assert status == 0 and "cell failed" not in solved, said
    failed = re.findall(r"cell failed:\s+check\(\"([\w.]+)\"", begun)
    assert failed == [id for id in answer_cells(every_exercise) if id != "02.causal_mask"], said
    assert begun.count("cell failed") == len(failed), "a cell that is no exercise fails"


def test_formgrader_opens_the_gradebook(tmp_path):
    (tmp_path / "source" / "02_attention").mkdir(parents=True)  # it lists the assignments whose source there is
    shutil.copy(series.find(["02"])[0].path, tmp_path / "source" / "02_attention")
    exports.nbgrader_db(samples.CLASS, tmp_path / "gradebook.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    extensions = '{"nbgrader.server_extensions.formgrader": true}'
    (tmp_path / "jupyter_server_config.json").write_text(f'{{"ServerApp": {{"jpserver_extensions": {extensions}}}}}')
    command = [sys.executable, "-c", THEIRS.format("jupyter"), "server", "--no-browser", "--allow-root",
               f"--ServerApp.port={port}",
               "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token=token"]
    with open(tmp_path / "log", "w+") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log,
                                  env=environment(tmp_path) | {"JUPYTER_CONFIG_DIR": str(tmp_path)})
        try:
            def get(path):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}?token=token", timeout=30) as answer:
                    return answer.read().decode()

            for _ in range(120):
                try:
                    get("api/status")
                    break
                except OSError:
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.25)
            (assignment,) = json.loads(get("formgrader/api/assignments"))
            assert (assignment["name"], assignment["max_score"]) == ("02_attention", samples.POSSIBLE)
            students = {s["id"]: s["score"] for s in json.loads(get("formgrader/api/students"))}
            assert students == {"ann": 1, "bob": 0, "cyd": 1}
            submissions = json.loads(get("formgrader/api/submissions/02_attention"))
            assert {s["student"]: s["needs_manual_grade"] for s in submissions} == dict.fromkeys(students, True)
            assert "02_attention" in get("formgrader/manage_submissions/02_attention")
        finally:
            server.terminate()
            server.wait(20)
