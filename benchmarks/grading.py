"""Grading beside nbgrader and otter-grader: seconds a submission of four exercises, and their ratios.

    python benchmarks/grading.py [--submissions 15] [--many 1000] [--out FILE.json]

The same submissions, right answers and classic mistakes, are graded by all three in one run, one worker each, one
after another, with the same checks: the peers call them in a test cell or file, in the learner's own process, as they
do. nbgrader and we read the very same notebooks; otter gets the answers without the metadata it has no use for.
nbgrader is part of the course's environment; otter-grader gets one of its own under build/. --many grades a class of
that size with all cores and watches the memory of the whole process tree.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
import zipfile
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from lib.answers import answer, mutant_source, reference_source
from lib.exercises.exercise import exercise
from lib.lesson.cells import solve
from lib.lesson.series import find
from lib.sources.places import ROOT

OUT = ROOT / "build/benchmarks/grading.json"
EXERCISES = ("02.causal_mask", "02.attention", "03.split_heads", "04.count_params")
OTTER = "otter-grader==7.0.0"
JUDGED = "evaluate(exercise({id!r}), {name}).points"
HERE = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # nbgrader calls alembic by its bare name
QUIET = {"OMP_NUM_THREADS": "1", "PATH": HERE, "PYTHONWARNINGS": "ignore", "JUPYTER_PLATFORM_DIRS": "1"}
USES = "from lib.exercises.result import evaluate\nfrom lib.exercises.exercise import exercise\n"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PRELUDE = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\ntorch.set_num_threads(1)"


def sources(seed: int) -> dict[str, str]:
    """One learner's answers: most right, some a classic mistake."""
    rng = random.Random(seed)
    return {
        id: reference_source(id) if rng.random() < 0.7 else mutant_source(id, rng.choice(answer(id).mutants).name)
        for id in EXERCISES
    }


def handed_in(answers: dict[str, str]) -> nbformat.NotebookNode:
    """One notebook of four answer cells and their checks, as nbgrader knows them; so do we."""

    def cell(source: str, id: str, **flags) -> nbformat.NotebookNode:
        made = new_code_cell(source, id=id)
        about = {"grade_id": id, "schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
        made.metadata["nbgrader"] = about | flags
        return made

    cells = [new_code_cell(PRELUDE, id="prelude")]
    for id in EXERCISES:
        key, e = id.replace(".", "-"), exercise(id)
        test = f"{USES}points = {JUDGED.format(id=id, name=e.name)}\npoints"
        cells.append(cell(answers.get(id, e.stub), key, solution=True))
        cells.append(cell(test, f"{key}-check", grade=True, locked=True, points=e.points))
    return new_notebook(cells=cells, metadata=KERNEL)


def lessons(folder: Path, n: int) -> None:
    """A class that hands in whole lessons, solved."""
    whole = {lesson: nbformat.read(lesson.path, as_version=4) for lesson in find(["02", "03", "04"])}
    for i in range(n):
        answers = sources(i)
        (folder / f"learner{i:04}").mkdir(parents=True)
        for lesson, nb in whole.items():
            here = {id: text for id, text in answers.items() if id[:2] == lesson.number}
            nbformat.write(solve(nb, here), folder / f"learner{i:04}" / lesson.path.name)


def run(command: list[str], cwd: Path, **env: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **QUIET, **env}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]} {done.stderr[-1500:]}")
    return time.perf_counter() - began


def course(submissions: str, out: str, *options: str) -> list[str]:
    main = "import sys; from lib.course.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", main, "grade", submissions, "--out", out, *options]


def graded(n: int, out: Path) -> None:
    """See that `course grade` gave points to all n learners: a time of what was not done is no time."""
    learners = json.loads((out / "grades.json").read_text(encoding="utf-8"))["learners"]
    having = sum(any(lesson["points"] is not None for lesson in who["lessons"]) for who in learners)
    if having != n:
        raise RuntimeError(f"course grade gave points to {having} of {n} learners")


def warm(place: Path) -> list[float]:
    """Seconds of each submission once everything is loaded, one worker."""
    import torch

    from lib.grading.judge import judge
    from lib.grading.reading import read
    from lib.grading.sandbox import Sandbox

    torch.set_num_threads(1)
    paths = sorted(place.glob("submitted/*/ps/ps.ipynb"))
    with Sandbox() as sandbox:

        def grade(path: Path) -> float:
            began = time.perf_counter()
            cells = read(path).cells
            for id in sorted({id[:2] for id in EXERCISES}):
                only = frozenset(each for each in EXERCISES if each.startswith(id))
                judge(cells, "x", id, str(path), "", sandbox, 1, only)
            return time.perf_counter() - began

        grade(paths[0])
        return [grade(path) for path in paths]


def nbgrader(n: int, place: Path) -> float:
    """Seconds a submission by `nbgrader autograde`."""
    tool = [sys.executable, "-m", "nbgrader"]
    run([*tool, "generate_assignment", "ps", "--create"], place)
    taken = run([*tool, "autograde", "ps", "--create"], place)
    graded = len(list((place / "autograded").glob("*/ps/ps.ipynb")))
    if graded != n:
        raise RuntimeError(f"nbgrader graded {graded} of {n}")
    return taken / n


def hand_in(n: int, place: Path) -> None:
    """The class of n as nbgrader keeps it."""
    (place / "source/ps").mkdir(parents=True)
    nbformat.write(handed_in({}), place / "source/ps/ps.ipynb")
    (place / "nbgrader_config.py").write_text(
        "c = get_config()\nc.ClearSolutions.enabled = False\nc.CourseDirectory.course_id = 'course'\n"
    )
    for i in range(n):
        folder = place / f"submitted/learner{i:04}/ps"
        folder.mkdir(parents=True)
        nbformat.write(handed_in(sources(i)), folder / "ps.ipynb")


def otter(n: int, place: Path, home: Path) -> float:
    """Seconds a submission by `otter run`, which grades one at a time; its containers would cost more."""
    python = home / "bin/python"
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        site = next((home / "lib").glob("python*/site-packages"))
        ours_too = [path for path in sys.path if path.endswith("site-packages")]
        (site / "course.pth").write_text("\n".join([*ours_too, str(ROOT)]))  # torch is installed once
        subprocess.run([python, "-m", "pip", "install", "-q", OTTER], check=True, capture_output=True)
        (home / "ready").touch()
    with zipfile.ZipFile(place / "autograder.zip", "w") as archive:
        archive.writestr("otter_config.json", json.dumps({"seed": None, "lang": "python"}))
        archive.writestr("requirements.txt", "")
        for id in EXERCISES:
            e = exercise(id)
            archive.writestr(f"tests/{e.name}.py", (
                f"from otter.test_files import test_case\n{USES}OK_FORMAT = False\nname = {e.name!r}\n"
                f"points = {e.points}\n\n@test_case(points={e.points}, hidden=False)\ndef test(env):\n"
                f"    assert {JUDGED.format(id=id, name=f'env[{e.name!r}]')} == {e.points}\n"
            ))  # fmt: skip
    (place / "out").mkdir()
    began = time.perf_counter()
    for i in range(n):
        answers = sources(i)
        cells = [new_code_cell(PRELUDE), *(new_code_cell(answers[id]) for id in EXERCISES)]
        nbformat.write(new_notebook(cells=cells, metadata=KERNEL), place / "submission.ipynb")
        command = [str(home / "bin/otter"), "run", "--no-logo", "-a", "autograder.zip", "submission.ipynb", "-o", "out"]
        run(command, place, PATH=f"{home / 'bin'}:{os.environ['PATH']}")
        result = json.loads((place / "out/results.json").read_text())
        if len(result["tests"]) < len(EXERCISES):
            raise RuntimeError(f"otter graded {len(result['tests'])} of {len(EXERCISES)} exercises with {python}")
    return (time.perf_counter() - began) / n


def many(n: int, place: Path) -> dict:
    """A whole class on all cores: seconds, and the memory of all processes together at three moments."""
    lessons(place / "many", n)
    began = time.perf_counter()
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(course("many", "grades"), cwd=place, **quiet)
    seen: list[float] = []

    def watch() -> None:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            for each in [root, *root.children(recursive=True)]:
                try:
                    total += each.memory_info().rss - each.memory_info().shared
                except psutil.Error:
                    continue
            seen.append(total / 2**20)
            time.sleep(0.5)

    thread = threading.Thread(target=watch)
    thread.start()
    process.wait()
    seconds = time.perf_counter() - began
    thread.join()
    if process.returncode:
        raise RuntimeError(f"course grade ended with status {process.returncode}")
    graded(n, place / "grades")
    part = max(1, len(seen) // 10)
    at = {f"{share} %": round(sorted(seen[i : i + part])[part // 2])
          for share in (20, 50, 80) for i in [len(seen) * share // 100]}  # fmt: skip
    return {"submissions": n, "seconds": seconds, "MiB": at}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submissions", default=15, type=int)
    parser.add_argument("--many", default=0, type=int, help="grade a class of this size too")
    parser.add_argument("--out", default=OUT, type=Path, help="JSON (default build/benchmarks/grading.json)")
    options = parser.parse_args()
    n, home = options.submissions, OUT.with_name("otter")
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        hand_in(n, place)
        before = warm(place)
        seconds["nbgrader 0.9.6"] = nbgrader(n, place)
        seconds["ours, warm"] = statistics.mean(before + warm(place))  # before and after, the machine being shared
        seconds["ours, with its start"] = run(course("submitted", "out", "--jobs", "1"), place) / n
        graded(n, place / "out")
        (place / "otter").mkdir()
        try:
            seconds["otter-grader 7.0.0"] = otter(n, place / "otter", home)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"otter-grader could not be installed here: {error}")
        own = seconds["ours, warm"]
        table = [["grading four exercises", name, s / own] for name, s in seconds.items() if "ours" not in name]
        report: dict = {"table": table, "submissions": n, "seconds": seconds}
        for name, taken in seconds.items():
            print(f"{name:30} {taken:7.3f} s a submission {taken / own:7.1f} x", flush=True)
        if options.many:
            report["class"] = many(options.many, place)
    if options.many:
        c = report["class"]
        print(f"{c['submissions']} submissions: {c['seconds']:.0f} s on all cores; memory, MiB: {c['MiB']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
