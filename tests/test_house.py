"""The house: arrows point one way, and no name stands for two things."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from lib.sources.places import ROOT

LIB = ROOT / "lib"


def linted(*options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    line = [sys.executable, "-c", program, "--no-cache", *options]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True)


def test_arrows_point_one_way():
    ran = linted()
    assert ran.returncode == 0, ran.stdout


def test_an_arrow_back_is_seen(tmp_path):
    """Also where it is drawn at call time, inside a function."""
    for path in LIB.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    with (tmp_path / "lib" / "attention.py").open("a") as file:
        file.write("\n\ndef late():\n    from lib.lesson import checks\n\n    return checks\n")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    ran = linted(cwd=tmp_path)
    assert ran.returncode and "lib.attention is not allowed to import lib.lesson" in ran.stdout, ran.stdout + ran.stderr


def test_no_name_stands_for_two_things():
    named = defaultdict(set)
    for path in LIB.rglob("*.py"):
        place = path.parent if path.stem == "__init__" else path.with_suffix("")
        if place != LIB and path.stem != "__main__":
            named[place.name].add(str(place.relative_to(ROOT)))
    assert not [places for places in named.values() if len(places) > 1]


def test_every_room_says_what_it_is_for():
    for folder in {path.parent for path in LIB.rglob("*.py")}:
        assert (folder / "__init__.py").read_text().startswith('"""'), folder
