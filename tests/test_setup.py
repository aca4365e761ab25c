"""What sets the course up agrees with itself, and the wrapper that takes the network away really does."""

import errno
import re
import subprocess
import sys
import tomllib
import types
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement

from lib.course import preflight, workspace
from lib.course.cli import course
from lib.course.commands import lab
from lib.errors import CourseError
from lib.lesson import series

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")


def pins(name: str) -> dict[str, str]:
    found = (PIN.match(line) for line in (ROOT / name).read_text().splitlines())
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def test_every_requirement_is_pinned_and_locked():
    direct, locked = pins("requirements.txt"), pins("requirements.lock")
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) == len(direct)
    assert direct.items() <= locked.items()


def test_the_lock_is_clean():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"nvidia|triton|\+cpu|file:|https?://|--index|--find", text)


def test_the_versions_installed_are_the_pinned_ones():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    for wanted in (Requirement(line) for line in lines if line and line[0] != "#"):
        if not wanted.marker or wanted.marker.evaluate():
            assert wanted.specifier.contains(metadata.version(wanted.name)), wanted


def test_environment_yml_installs_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in conda
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_ci_calls_the_readmes_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make test"]
    assert re.search("^make test ", (ROOT / "README.md").read_text(), re.M)


AGED = """#!/bin/sh
exec "$REAL" -c "import runpy, sys; sys.version_info = $AS; runpy.run_path(sys.argv[1], None, '__main__')" "$@"
"""


def make_setup(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """`make .venv/.ready` of this course in a folder that holds its pins and no more."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), *settings, ".venv/.ready"],
        cwd=_only_pins(folder),
        env={"PATH": "/usr/bin:/bin", "REAL": sys.executable, "AS": variables.get("AS", "")},
        capture_output=True,
        text=True,
    )


def one_line(made: subprocess.CompletedProcess) -> str:
    """What a failed make says besides make's own last line."""
    assert made.returncode
    [line] = [line for line in (made.stdout + made.stderr).splitlines() if not line.startswith("make: ***")]
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
    said = subprocess.run(["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True).stdout
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
        said = subprocess.run(["make", "-n", "bands", given], cwd=ROOT, capture_output=True, text=True)
        assert re.search(rf"course {told}", said.stdout.strip(), re.M), said.stdout + said.stderr


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "AGENTS.md", "docs/teaching.md"])
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:lib|tests|docs|data|notebooks|\.binder)/[\w./-]*)`", text):
        assert (ROOT / path).exists() or "NN" in path, path
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def _only_pins(folder: Path) -> Path:
    for name in ("requirements.txt", "requirements.lock", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
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
