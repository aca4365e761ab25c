"""The learner's copy of the course: the lessons with their stubs, what they import, and no answer.

What goes in is listed here by name, so that a new file of the grader stays out until somebody lists it.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nbformat

from lib.course.authoring.renewal import renewed
from lib.course.own_copy.workspace import prepared
from lib.errors import CourseError
from lib.exercises.exercise import exercises
from lib.lesson.cells import answer_cells, solve
from lib.lesson.files import write_json
from lib.lesson.series import Lesson, find
from lib.sources.places import ROOT

MARK = ".course-release.json"  # what tells an earlier release from a folder that somebody needs
ROOMS = ("sources", "kernels", "trainer", "weights", "inference", "view", "decide", "shop", "adapt", "lesson", "course",
         "lesson/handmade", "course/headless", "course/own_copy", "course/setup",
         "course/training_run")  # fmt: skip
COMMANDS = ("data", "doctor", "explore", "generate", "lab", "lessons", "mine", "progress", "run", "serve", "size",
            "train", "use")  # fmt: skip
EXERCISES = ("as_ipython", "closure", "exercise", "outline", "properties", "reach", "result", "standing", "verdict")
TARGETS = ("help", "setup", "data", "run", "lab", "doctor", "clean")
HOSTS = (".binder/environment.yml", ".binder/postBuild", "Dockerfile", ".dockerignore")
LICENCES = ("LICENSE", "LICENSE-lessons", "THIRD_PARTY.md")
FILES = ("requirements/learn.lock", "environment.yml", "AGENTS.md", *LICENCES, *HOSTS)


def release(out: Path, names: Iterable[str] = ()) -> list[Lesson]:
    """Write the learner's copy of the named lessons (all if none is) to the folder `out`, whole or not at all.

    An answer cell that holds more than its stub is emptied. An earlier release in `out` is replaced, but for what
    else was put there, such as a .venv. Raises CourseError where `out` holds anything else.
    """
    lessons = find(tuple(names))
    strange = [lesson.path.name for lesson in lessons if not lesson.number or lesson.path.parent != ROOT / "notebooks"]
    if strange:
        raise CourseError(f"{strange[0]} is no lesson of this course; `course lessons` lists them")
    out = Path(out).absolute()
    _see_that_it_may_go(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as part:
            fresh = Path(part) / "new"
            _build(fresh, lessons)
            _swap(fresh, out, Path(part) / "old")
    except OSError as error:
        raise CourseError(f"cannot write the release to {out} ({error.strerror}); choose another folder") from None
    return lessons


def _see_that_it_may_go(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise CourseError(f"{out} is not a folder; choose another with --out")
    if out == ROOT or ROOT.is_relative_to(out):
        raise CourseError(f"{out} holds the course itself; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise CourseError(f"{out} is not empty and no earlier release; choose another folder with --out, or empty it")


def _swap(fresh: Path, out: Path, old: Path) -> None:
    """Put the new release where the old one was. What else stands there, such as a .venv, comes along."""
    if not out.exists():
        fresh.replace(out)
        return
    ours = {path.name for path in fresh.iterdir()} | {"notebooks", "lib", "data"}
    out.replace(old)
    try:
        for path in old.iterdir():
            if path.name not in ours:
                path.replace(fresh / path.name)
        fresh.replace(out)
    except BaseException:
        if not out.exists():
            for path in fresh.iterdir():  # back to where it was
                if path.name not in ours:
                    path.replace(old / path.name)
            old.replace(out)
        raise


def _build(folder: Path, lessons: list[Lesson]) -> None:
    numbers = {lesson.number for lesson in lessons}
    for path in _library(numbers):
        _copy(path, folder)
    for path in (ROOT / "data").rglob("*"):
        if path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(ROOT).parts):
            _copy(path, folder)
    for name in FILES:
        _copy(ROOT / name, folder)
    for lesson in lessons:
        _write(folder / "notebooks" / lesson.path.name, notebook(lesson))
    _write(folder / "pyproject.toml", project((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    _write(folder / "Makefile", makefile((ROOT / "Makefile").read_text()))
    _write(folder / "README.md", README.replace("@LESSONS@", "\n".join(f"- {lesson.title}" for lesson in lessons)))
    _write(folder / ".gitignore", "/workspace/\n.venv/\nbuild/\n__pycache__/\n*.egg-info/\n.ipynb_checkpoints/\n")
    write_json(folder / MARK, {"format": "transformer-course release", "version": 1, "lessons": sorted(numbers)})


def _library(numbers: set[str]) -> list[Path]:
    """The files of lib/ that a learner's copy carries."""
    lib = ROOT / "lib"
    kinds = (".py", ".html", ".css", ".js", ".json")
    exercises = [*EXERCISES, *(f"l{number}" for number in numbers)]
    return sorted([
        *lib.glob("*.py"),
        *(path for room in ROOMS for path in (lib / room).iterdir() if path.suffix in kinds),
        *(lib / "course" / "commands" / f"{name}.py" for name in ("__init__", *COMMANDS)),
        *(path for name in ("__init__", *exercises) if (path := lib / "exercises" / f"{name}.py").is_file()),
    ])


def _copy(path: Path, folder: Path) -> None:
    target = folder / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)  # with its mode: postBuild is a program


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def notebook(lesson: Lesson) -> str:
    """A lesson's notebook as a learner gets it: no outputs, outcomes folded, each answer cell with its stub."""
    nb = nbformat.reads(renewed(lesson, lesson.path.read_text(encoding="utf-8"), run=False), as_version=4)
    sources = answer_cells(nb)
    nb = solve(nb, {e.id: e.stub for e in exercises(lesson.number) if sources.get(e.id, e.stub) != e.stub})
    nb.cells = nbformat.from_dict(prepared(nb.cells))
    return nbformat.writes(nb) + "\n"


def project(text: str) -> str:
    """pyproject.toml with the learner's role alone, and without the authors' tools."""
    kept = ("[build-system]", "[project]", "[project.scripts]", "[tool.setuptools")
    return "\n".join(part for part in re.split(r"\n(?=\[)", text) if part.startswith(kept)).rstrip() + "\n"


def makefile(text: str) -> str:
    """The Makefile with the learner's targets alone."""
    blocks = re.split(r"\n(?=[a-z]+:)", text)
    kept = [block for block in blocks[1:] if block.split(":")[0] in TARGETS]
    head = re.sub(r"^(# A file goes to|SIDE_BY_SIDE :=|NBVAL :=).*\n", "", blocks[0], flags=re.M)
    head = re.sub(r"^# Who sets up.*?^ROLE :=.*?$", "ROLE := learn", head, flags=re.M | re.S)
    kept = [re.sub(r"^\t@.*nbgrader.*\n| \(ROLE=.*\)$", "", block, flags=re.M) for block in kept]
    head = re.sub(r"^\.PHONY:.*$", f".PHONY: {' '.join(TARGETS)}", head, flags=re.M)
    return "\n".join([head, *kept]).rstrip() + "\n"


README = """# Understand transformers by building one

Your copy of the course: notebooks that build a transformer step by step, on your own machine.

@LESSONS@

## Start

You need Python 3.11 to 3.13, pip and make.

```
make lab     # sets everything up the first time (about 2 GB, a few minutes), then opens the lessons in JupyterLab
make run     # executes every lesson headless; results and an index page under build/
```

On Linux, plain PyTorch brings CUDA, which is several GB. For a small CPU-only build, pass the arguments that the
selector on PyTorch's own site shows: `make lab TORCH="torch==2.13.0 --index-url <that address>"`.

Windows was not tried. It has no make by default; in PowerShell:

```
py -3.11 -m venv .venv
.venv\\Scripts\\python -m pip install torch==2.13.0
.venv\\Scripts\\python -m pip install -r requirements\\learn.lock
.venv\\Scripts\\python -m pip install --no-deps -e .
.venv\\Scripts\\course data
.venv\\Scripts\\course lab
```

You work in a copy of your own, in `workspace/`; the lessons in `notebooks/` stay as they came. When a newer release
lies here, the same `make lab` brings what has changed into your copy and keeps what you have written. (If it comes as
an archive, in another folder, copy `workspace/` into that folder first.)

## Exercises

Write your answer in the cell that raises `NotImplementedError`, run it, then run the check below it. It says what does
not hold yet and gives a hint. Cells you add are no trouble; do not delete the exercise's own cells.
`.venv/bin/course progress` shows how far you are; it is kept on your machine and nowhere else.

Hand in the notebooks of `workspace/` as they are, under the names they have. Save first (Ctrl-S). Your instructor's
grader tries your answers on other inputs; what passes the check here passes there, unless it was made for the check's
inputs alone.

## Licence

The code is under the Apache License 2.0 (`LICENSE`), the lessons' text and figures under CC BY 4.0 (`LICENSE-lessons`).
`THIRD_PARTY.md` names the texts, weights and pictures that others have made, with their licences.
"""
