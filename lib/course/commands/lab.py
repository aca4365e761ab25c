"""`course lab`: the lessons in JupyterLab, in the learner's own copy."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click

from lib.errors import CourseError

# Through lib, which keeps out what it keeps out of every process.
LAB = "import sys, lib; from jupyterlab.labapp import main; sys.argv[0] = 'jupyter-lab'; sys.exit(main())"
KERNEL = "lib.course.headless.this_python.ThisPython"


@click.command("lab")
@click.argument("jupyter", nargs=-1, type=click.UNPROCESSED, metavar="[-- JUPYTERLAB OPTION...]")
@click.option("--dir", "folder", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Your folder; default: COURSE_WORKSPACE, else workspace/ beside the lessons.")
@click.option("--update", "only", is_flag=True, help="Only bring your copy up to date; open nothing.")
def lab(jupyter: tuple[str, ...], folder: Path | None, only: bool) -> int:
    """Open your own copy of the lessons in JupyterLab, at the first.

    The first call makes the copy, with all outputs empty. After an update of the course, each further call brings what
    is new or changed in the lessons, and keeps what you have written: answers, notes, guesses, cells that you added or
    deleted. Where you and the lesson have changed the same cell, yours stays and the new text stands below it. Before a
    notebook changes it is put into .course/backups in your folder. To start a lesson afresh, move your notebook away.

    What you had written into notebooks/, where the lessons themselves are, is carried over on the first call. What
    stands after `--` goes to JupyterLab, as in: course lab -- --no-browser
    """
    from lib.course.headless.jupyter import nobodys
    from lib.course.own_copy import workspace
    from lib.lesson import series

    if jupyter and not jupyter[0].startswith("-"):
        raise CourseError(f"`course lab` has no use for {jupyter[0]!r}; what JupyterLab is to get begins with a dash")
    lessons = series.find()
    folder = (folder or workspace.place()).absolute()
    for line in workspace.update(folder, lessons):
        click.echo(line)
    if only:
        click.echo(f"Up to date: {folder}")
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        raise CourseError("JupyterLab is not installed; run make setup, then try again")
    env = nobodys(folder / workspace.KEPT) | {"COURSE_WORKSPACE": str(folder)}
    return _become(command(folder, lessons[0].path.name, jupyter), env)


def command(folder: Path, first: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command line of JupyterLab on that folder, opened at that notebook."""
    place = ["--notebook-dir", str(folder), f"--LabApp.default_url=/lab/tree/{first}"]
    kernel = f"--ServerApp.kernel_spec_manager_class={KERNEL}"
    return [sys.executable, "-c", LAB, *place, kernel, *options]


def _become(line: list[str], env: dict[str, str]) -> int:
    """Run a program in this one's place, so that Ctrl-C, and a container's end, reach it and nobody else."""
    if os.name == "posix":
        if sys.stdout is not None:
            sys.stdout.flush()
        os.execve(line[0], line, env)
    return subprocess.run(line, env=env).returncode
