"""What sets the course up agrees with itself, and the wrapper that takes the network away really does."""

import errno
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

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


def test_ci_calls_the_readmes_two_commands():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line.startswith("make")]
    assert commands == ["make run", "make test"]
    readme = (ROOT / "README.md").read_text()
    assert all(command in readme for command in commands)


def test_a_wrong_python_is_named(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\nexec "$REAL" -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[2])" "$@"\n')
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), f"PYTHON={old}", ".venv/.ready"],
        cwd=_only_pins(tmp_path),
        env={"PATH": "/usr/bin:/bin", "REAL": sys.executable},
        capture_output=True,
        text=True,
    )
    assert made.returncode and "Python 3.11 to 3.13 is needed, this is 3.9" in made.stderr


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
