"""What sets the course up agrees with itself, and the wrapper that takes the network away really does."""

import errno
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from lib.course.cli import course
from lib.course.commands import lab
from lib.course.own_copy import workspace
from lib.course.setup import compile_ahead, preflight
from lib.errors import CourseError
from lib.lesson import series

ROOT = Path(__file__).resolve().parents[1]
MAKE = ("make", "--no-print-directory")  # not even where these tests run under make
LOCKS = ROOT / "requirements"


def test_ci_calls_the_readmes_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make test"]
    assert re.search("^make test ", (ROOT / "README.md").read_text(), re.M)


AGED = """#!/bin/sh
exec "$REAL" -c "import runpy, sys; sys.version_info = $AS; runpy.run_path(sys.argv[1], None, '__main__')" "$@"
"""


def make_setup(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """`make .venv/.ready-learn` of this course in a folder that holds its pins and no more."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [*MAKE, "-f", str(ROOT / "Makefile"), *settings, ".venv/.ready-learn"],
        cwd=_only_pins(folder),
        env={"PATH": "/usr/bin:/bin", "REAL": sys.executable, "AS": variables.get("AS", "")},
        capture_output=True,
        text=True,
    )


def one_line(made: subprocess.CompletedProcess) -> str:
    """What a failed make says besides make's own last line."""
    assert made.returncode
    said = (made.stdout + made.stderr).splitlines()
    [line] = [line for line in said if not re.match(r"make(\[\d+\])?: \*\*\*", line)]
    return line


@pytest.mark.parametrize("version", ["3.9", "3.14"])
def test_a_wrong_python_is_named(tmp_path, version):
    aged = tmp_path / "python"
    aged.write_text(AGED)
    aged.chmod(0o755)
    said = one_line(make_setup(tmp_path, PYTHON=str(aged), AS=f"({version.replace('.', ', ')}, 1)"))
    assert f"Python 3.11 to 3.13 is needed, this is {version}; choose another with: make PYTHON=" in said


def test_no_python_at_all_is_named(tmp_path):
    said = one_line(make_setup(tmp_path, PYTHON="python9"))
    assert said.startswith("no python9 here; install Python 3.11 to 3.13, or name yours with: make PYTHON=")


@pytest.mark.parametrize("what", ["a file", "somebody's folder"])
def test_what_is_no_environment_is_left_alone(tmp_path, what):
    venv = tmp_path / ".venv"
    if what == "a file":
        venv.write_text("mine")
    else:
        venv.mkdir()
        (venv / "thesis.txt").write_text("mine")
    said = one_line(make_setup(tmp_path, PYTHON=sys.executable))
    assert said.startswith(".venv is no ") and "move it away" in said
    assert (venv if what == "a file" else venv / "thesis.txt").read_text() == "mine"


FAKE = """#!/bin/sh
# in place of Python: makes an environment whose pip only notes what it is asked for, and fails when told to
case "$*" in
  *preflight.py) exec "$REAL" "$@" ;;
  "-m venv .venv") mkdir -p .venv/bin && touch .venv/pyvenv.cfg && cp "$0" .venv/bin/python ;;
  "-c import pip") ;;
  *compile_ahead) echo compiles >> told ;;
  *pip\\ install*) echo "$*" | sed 's/.*-compile *//' >> told; case "$*" in *"$FAIL"*) exit 1 ;; esac ;;
esac
"""


class Made:
    """The course set up in a folder, by a Python that only notes what pip is asked for."""

    def __init__(self, folder: Path):
        self.folder = _only_pins(folder)
        self.python = folder / "python"
        self.python.write_text(FAKE)
        self.python.chmod(0o755)

    def __call__(self, role: str, fail: str = "nothing at all") -> tuple[list[str], list[str]]:
        """What pip was asked for, and what make said."""
        (self.folder / "told").write_text("")
        made = subprocess.run(
            [*MAKE, "-f", str(ROOT / "Makefile"), f"PYTHON={self.python}", f".venv/.ready-{role}"],
            cwd=self.folder, env={"PATH": "/usr/bin:/bin", "REAL": sys.executable, "FAIL": fail},
            capture_output=True, text=True,
        )  # fmt: skip
        said = (made.stdout + made.stderr).splitlines()
        assert made.returncode == (fail != "nothing at all") * 2, said
        return (self.folder / "told").read_text().splitlines(), said

    def stamps(self) -> set[str]:
        return {path.name for path in (self.folder / ".venv").glob(".ready*")}


def installs(role: str) -> list[str]:
    [torch] = re.findall(r"^torch==.*", (LOCKS / f"{role}.lock").read_text(), re.M)
    return [f"-c requirements/{role}.lock {torch}", f"-r requirements/{role}.lock", "--no-deps -e .", "compiles"]


def test_a_role_is_set_up_once_and_anew_when_a_pin_changes(tmp_path):
    make = Made(tmp_path)
    assert make("learn")[0] == installs("learn") and make.stamps() == {".ready-learn"}
    assert make("learn")[0] == []
    os.utime(tmp_path / "requirements" / "learn.lock", (2**33, 2**33))
    assert make("learn")[0] == installs("learn")


def test_more_is_added_to_what_is_there(tmp_path):
    make = Made(tmp_path)
    assert make("site")[0] == installs("site") and make("learn")[0] == [], "every role holds learn"
    (tmp_path / ".venv" / ".ready-site").unlink()
    (tmp_path / ".venv" / "mine").touch()
    assert make("teach")[0] == installs("teach") and make.stamps() == {".ready-learn", ".ready-teach"}
    assert make("develop")[0] == installs("develop")
    assert make("site")[0] == make("teach")[0] == make("learn")[0] == [], "develop holds them"
    assert (tmp_path / ".venv" / "mine").exists()


@pytest.mark.parametrize("where", ["torch==", "-r", "-e ."])
def test_an_interrupted_set_up_is_taken_up_again(tmp_path, where):
    make = Made(tmp_path)
    assert make("learn", fail=where)[1][-2].startswith("pip could not finish") and not make.stamps()
    (tmp_path / ".venv" / "half").touch()
    told, said = make("learn")
    assert told == installs("learn") and make.stamps() == {".ready-learn"} and (tmp_path / ".venv" / "half").exists()
    assert len(said) == 1


def test_an_environment_of_the_old_layout_is_taken_up(tmp_path):
    make = Made(tmp_path)
    make("develop")
    for path in (tmp_path / ".venv").glob(".ready*"):
        path.unlink()
    (tmp_path / ".venv" / ".ready").touch()
    told, said = make("learn")
    assert told == installs("learn") and make.stamps() == {".ready-learn"}
    assert said[0].startswith(".venv was made by an earlier version") and len(said) == 2
    assert len(make("teach")[1]) == 1, "said once"


def test_what_lessons_import_is_compiled_ahead(monkeypatch):
    """Where PYTHONDONTWRITEBYTECODE is set, too; and what is not there does not matter."""
    for name in compile_ahead.LATER:
        assert importlib.util.find_spec(name), f"{name} is no more"
    asked, forbidden = [], []

    def imported(name):
        asked.append(name)
        forbidden.append(sys.dont_write_bytecode)
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(compile_ahead.importlib, "import_module", imported)
    compile_ahead.main()
    assert {"lib.attention", "lib.inference.server", "lib.grading.gradebook", *compile_ahead.LATER} <= set(asked)
    assert not [name for name in asked if name.endswith("__main__")] and not any(forbidden)


@pytest.mark.parametrize("role, goals", {
    "learn": ["setup", "data", "run", "lab", "doctor", "setup ROLE=learn"],
    "teach": ["setup ROLE=teach"],
    "site": ["site", "setup ROLE=site"],
    "develop": ["test", "test-long", "check", "lint", "matrix", "browser", "site-check", "bands", "bench", "lab test",
                "setup ROLE=develop"],
}.items())  # fmt: skip
def test_each_target_sets_up_what_it_needs(tmp_path, role, goals):
    _only_pins(tmp_path)
    for goal in goals:
        line = [*MAKE, "-n", "-f", str(ROOT / "Makefile"), *goal.split()]
        env = os.environ | {"ROLE": "another's"}
        said = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
        assert set(re.findall(r"-r requirements/(\w+)\.lock", said)) == {role}, goal


def test_an_unknown_role_is_one_line(tmp_path):
    made = subprocess.run([*MAKE, "-f", str(ROOT / "Makefile"), "setup", "ROLE=tech"], cwd=_only_pins(tmp_path),
                          capture_output=True, text=True)  # fmt: skip
    assert one_line(made) == "there is no role tech; ROLE is one of: develop learn site teach"
    assert not (tmp_path / "requirements" / "tech.lock").exists()


def test_what_an_earlier_set_up_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert preflight.main() is None, "nothing there yet"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("home = /nowhere")
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
    assert preflight.main() is None and "made anew" in capsys.readouterr().out
    assert not (tmp_path / ".venv").exists()


def test_too_little_disk_is_said_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=4e8))
    assert preflight.main().startswith("0.4 GB of disk are free here, the packages need 2")


def test_lab_opens_the_first_lesson_there_is(tmp_path, monkeypatch):
    said = subprocess.run([*MAKE, "-n", "lab"], cwd=ROOT, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == ".venv/bin/course lab", said
    opened = []
    monkeypatch.setattr(lab, "_become", lambda line, env: opened.append(line))
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(workspace, "NOTEBOOKS", tmp_path / "notebooks")
    for numbers, first in (((), None), (("03", "02"), "02_x.ipynb"), (("00",), "00_x.ipynb")):
        for number in numbers:
            (tmp_path / "notebooks").mkdir(exist_ok=True)
            (tmp_path / "notebooks" / f"{number}_x.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4}')
        done = CliRunner().invoke(course, ["lab", "--dir", str(tmp_path / "mine")])
        if first is None:
            assert isinstance(done.exception, CourseError) and "no lessons in" in str(done.exception)
        else:
            assert f"--LabApp.default_url=/lab/tree/{first}" in opened.pop() and (tmp_path / "mine" / first).is_file()


def test_bands_are_measured_by_the_command():
    for given, told in (("LESSONS=05 07", r"measure 05 07$"), ("LESSONS=", r"measure 00_.* 12_capstone$")):
        said = subprocess.run([*MAKE, "-n", "bands", given], cwd=ROOT, capture_output=True, text=True)
        assert re.search(rf"course {told}", said.stdout.strip(), re.M), said.stdout + said.stderr


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "AGENTS.md", "docs/teaching.md"])
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:lib|tests|docs|data|notebooks|\.binder)/[\w./-]*)`", text):
        assert (ROOT / path).exists() or "NN" in path, path
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def _only_pins(folder: Path) -> Path:
    for path in (ROOT / "pyproject.toml", *(ROOT / "requirements").iterdir()):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return folder


REACH = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 2).close()
try:
    socket.create_connection(("198.51.100.1", 9), 2)
except OSError as error:
    print(error.errno)
"""


def test_offline_leaves_loopback_and_nothing_else():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "offline.py"), sys.executable, "-c", REACH],
        capture_output=True,
        text=True,
    )
    if "the network stays on" in ran.stderr:
        pytest.skip(ran.stderr.strip())
    assert ran.stdout.split() == [str(errno.ENETUNREACH)], ran.stderr
