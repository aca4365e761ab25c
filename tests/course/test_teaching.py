"""docs/teaching.md is true: its commands, read from the page, take a class of five from release to exports."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
import yaml

from lib.answers import answers, mutant_source, reference_source
from lib.course.headless.runner import MEMORY
from lib.exercises.exercise import exercises
from lib.grading.exports import file_name
from lib.lesson.cells import solve
from lib.lesson.series import series
from lib.sources.places import ROOT

PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]
HANDED_IN = re.findall(r"^  (\w+/\d\d_\w+\.ipynb)$", PAGE, re.M)
POINTS = {lesson: sum(e.points for e in exercises(lesson)) for lesson in ("02", "03")}


def course(line: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a command of the page as its reader would, in that folder."""
    program, *arguments = shlex.split(line)
    assert program == "course"
    return subprocess.run(
        [sys.executable, "-c", "from lib.course.cli import main; main()", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )


def hand_in(released: Path, submissions: Path) -> None:
    """What the page says that five learners handed in."""
    solved = {
        "ann/02": {e.id: reference_source(e.id) for e in exercises("02")},
        "ann/03": {e.id: reference_source(e.id) for e in exercises("03")},
        "bob/02": {e.id: reference_source(e.id) for e in exercises("02")[:2]},
        "cleo/02": {},
        "dan/02": {id: mutant_source(id, answer.mutants[0].name) for id, answer in answers("02").items()},
        "eve/02": {},
    }
    assert {path[: path.index("_")] for path in HANDED_IN} == set(solved)
    for path in HANDED_IN:
        nb = nbformat.read(released / "notebooks" / Path(path).name, as_version=4)
        target = submissions / path
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(solve(nb, solved[path[: path.index("_")]]), target)
    broken = submissions / "eve" / "02_attention.ipynb"
    broken.write_text(broken.read_text(encoding="utf-8")[:5000], encoding="utf-8")


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux")
def test_the_walk(tmp_path):
    release, grade = COMMANDS
    clone = tmp_path / "clone"  # the reader's, beside which the released folder is put
    clone.mkdir()
    made = course(release, clone)
    assert made.returncode == 0, made.stderr
    released = tmp_path / "transformer-course"
    assert [path.name[:2] for path in sorted((released / "notebooks").iterdir())] == ["02", "03"]
    for name in ("Dockerfile", "AGENTS.md", ".binder/environment.yml", "lib/course/setup/preflight.py"):
        assert (released / name).is_file(), name
    assert os.access(released / ".binder/postBuild", os.X_OK)

    hand_in(released, clone / "submissions")
    graded = course(f"{grade} --jobs 1", clone)  # one worker's start is enough for five notebooks
    assert graded.returncode == 1, "eve's could not be graded\n" + graded.stderr
    grades = clone / "grades"
    told = {who["name"]: who for who in json.loads((grades / "grades.json").read_text())["learners"]}
    assert list(told) == ["ann", "bob", "cleo", "dan", "eve"]
    lessons = {name: {lesson["lesson"]: lesson for lesson in who["lessons"]} for name, who in told.items()}
    assert {number: lesson["points"] for number, lesson in lessons["ann"].items()} == POINTS
    assert lessons["bob"]["02"]["points"] == sum(e.points for e in exercises("02")[:2])
    assert lessons["cleo"]["02"]["points"] == 0
    assert not any(exercise["attempted"] for exercise in lessons["cleo"]["02"]["exercises"])
    assert 0 < lessons["dan"]["02"]["points"] < POINTS["02"]
    assert lessons["eve"]["02"]["points"] is None and lessons["eve"]["02"]["problem"]

    for path in re.findall(r"^\| `grades/([^`]+)`", PAGE, re.M):
        assert list(grades.glob(path)), f"the page names {path}"
    for table in ("gradebook.csv", "canvas.csv", "moodle.csv"):
        text = rows(grades / table)
        assert any("ann" in row and str(POINTS["02"]) in row for row in text), (table, text)
    for name in told:
        assert (grades / "feedback" / f"{file_name(name)}.html").is_file()
        assert (grades / "gradescope" / file_name(name) / "results.json").is_file()
    dan = (grades / "feedback" / f"{file_name('dan')}.html").read_text(encoding="utf-8")
    assert "the diagonal is False" in dan, "the page of feedback names what is wrong"


def test_the_hubs_link_opens_the_first_lesson():
    [link] = re.findall(r"https://HUB/\S+", PAGE)
    parts = urlsplit(link)
    asked = {name: value for name, [value] in parse_qs(parts.query, strict_parsing=True).items()}
    assert parts.path == "/hub/user-redirect/git-pull" and set(asked) == {"repo", "branch", "urlpath"}
    folder = asked["repo"].rsplit("/", 1)[1]
    assert asked["urlpath"] == f"lab/tree/{folder}/notebooks/{series()[0].path.name}"
    assert f"course release --out ../{folder} " in PAGE and f"cd ../{folder} && git init -b {asked['branch']} " in PAGE


def test_binder_installs_what_environment_yml_does():
    there = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    here = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = there["dependencies"][-1]["pip"]
    there["dependencies"][-1] = {"pip": [line.replace("../", "").replace("..", ".") for line in pip]}
    assert there == here
    for line in pip:
        assert (ROOT / ".binder" / line.split()[1]).resolve().exists()


def test_the_container_installs_the_pins():
    text = (ROOT / "Dockerfile").read_text()
    torch = re.search(r"^torch==\S+", (ROOT / "requirements" / "learn.lock").read_text(), re.M)[0]
    assert f'ARG TORCH="{torch}"' in text and f"TORCH=\"{torch} --index-url" in PAGE
    for copied in re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in copied.split())
    [home] = re.findall(r"COURSE_HOME=(\S+)", text)
    assert f"-v course-home:{home} " in PAGE


def test_what_must_not_go_along_is_left_out():
    """Of commits what the walk makes, and of an image built in the clone the answers too."""
    ignored, unsent = ((ROOT / name).read_text().split() for name in (".gitignore", ".dockerignore"))
    for folder in ("submissions", "grades", "transformer-course"):
        assert f"/{folder}/" in ignored and folder in unsent
    assert "lib/answers" in unsent


def test_the_memory_a_learner_needs_is_what_doctor_asks_for():
    assert f"- A learner needs {MEMORY:.0f} GiB of memory" in PAGE


def test_assistants_are_asked_to_tutor():
    text = (ROOT / "AGENTS.md").read_text()
    assert "NotImplementedError" in text and re.search(r'hint\("\d\d\.\w+", 1\)', text) and "CONTRIBUTING.md" in text
