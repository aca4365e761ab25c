"""The command line itself: help for everything, one line for a mistake, and no two-second import for a word."""

import ast
import os
import re
import subprocess
import sys

import pytest

from lib.course.cli import course, main
from lib.course.setup import roles
from lib.course.setup.roles import adding
from lib.lesson import series
from lib.sources.places import ROOT


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


@pytest.mark.parametrize("command", [[], *([name] for name in course.list_commands(None))])
def test_every_command_has_help(capsys, command):
    assert ended(*command, "--help") == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"Usage: {' '.join(['course', *command])}") and not told.err


@pytest.mark.parametrize("name", course.list_commands(None))
def test_the_first_line_of_a_commands_help_is_its_line_in_the_list(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    assert ended("--help") == ended(name, "--help") == 0
    listed, own = capsys.readouterr().out.split(f"Usage: course {name}")
    [line] = re.findall(rf"^  {name} +(\S.*)$", listed.split("Commands:")[1], re.M)
    first = own.split("\n\n")[1]
    assert first == f"  {line}" and re.fullmatch(r"[A-Z][^.]*\.", line), "one plain sentence, in both places"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["rnu"], "No such command 'rnu'"),
        (["run", "--jobs", "x"], "'x' is not a valid integer"),
        (["refresh"], "Missing argument 'LESSON...'"),
        (["refresh", "77"], "unknown lesson '77'"),
        (["measure", "0", "--preset", "auto"], "measure one preset by name"),
        (["measure", "0", "--preset", "cup"], "unknown preset 'cup'"),
        (["measure", "0", "--seeds", "1,b"], "--seeds takes whole numbers"),
        (["measure", "0", "-p", "seed", "3"], "preset and seed are set by"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, says):
    assert ended(*arguments) == 2
    told = capsys.readouterr()
    assert not told.out and len(told.err.splitlines()) == 1
    assert told.err.startswith("course: ") and says in told.err


WITHOUT = """
import importlib.metadata, sys
lacking = sys.argv.pop(1)
sys.modules[lacking] = None
found = importlib.metadata.distribution

def distribution(name):
    if name == lacking:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

importlib.metadata.distribution = distribution
from lib.course.cli import main
main()
"""


@pytest.mark.parametrize("command, package, what, role", [
    ("grade .", "sqlalchemy", "grading", "teach"),
    ("site --lessons 02 --out build/site", "sphinx", "the website", "site"),
    ("site --lessons 02 --out build/site", "ziamath", "the website", "site"),
    ("serve --model smollm2", "fastapi", "`course serve`", "learn"),
])  # fmt: skip
def test_a_role_that_is_not_installed_is_one_line_and_the_one_command(tmp_path, command, package, what, role):
    line = [sys.executable, "-c", WITHOUT, package, *command.split()]
    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    says = f"course: {what} needs packages that are not installed ({package}); add them with: {adding(role)}\n"
    assert (ran.returncode, ran.stderr) == (2, says)


def test_the_one_command_is_make_s_in_its_own_environment_and_pip_s_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))
    monkeypatch.setattr(roles.shutil, "which", lambda program: f"/bin/{program}")
    assert (adding("learn"), adding("teach")) == ("make setup", "make setup ROLE=teach")
    monkeypatch.setattr(roles.shutil, "which", lambda program: None)
    assert (adding("learn"), adding("teach")) == (f'pip install -e "{ROOT}"', f'pip install -e "{ROOT}[teach]"')
    monkeypatch.undo()
    monkeypatch.setattr(sys, "prefix", "/elsewhere")
    assert adding("site") == f'pip install -e "{ROOT}[site]"'


def test_alone_it_says_what_there_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert ended() == 0
    told = capsys.readouterr()
    assert not told.err and told.out.startswith("Usage: course") and "..." not in told.out.split("Commands:")[1]
    listed = re.findall(r"^  ([a-z]+) +\S", told.out.split("Commands:")[1], re.M)
    assert listed == course.list_commands(None), "each command on one line"


def test_ctrl_c_costs_one_line(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(series, "find", interrupted)
    assert ended("lessons") == 130
    assert capsys.readouterr().err.strip() == "course: interrupted"


def test_lessons_are_listed(capsys):
    assert ended("lessons") == 0
    out = capsys.readouterr().out
    assert all(lesson.path.name in out for lesson in series.series())


HEAVY = {"torch", "numpy", "transformers", "matplotlib", "papermill", "nbclient", "nbformat", "jsonschema", "IPython",
         "jupyter_client", "sqlalchemy", "sphinx", "fastapi", "pydantic", "tokenizers", "lark"}  # fmt: skip
WATCHED = """
import sys
from lib.course.cli import course, main
for words in [line.split() for line in sys.argv[1:]]:
    try:
        main(words)
    except SystemExit:
        pass
print(sorted(module for module in sys.modules if "." not in module), file=sys.stderr)
"""


@pytest.mark.parametrize("lines", [
    ["--help", *(f"{name} --help" for name in course.list_commands(None))],
    ["lessons", "data --list", "size gpt2", "size --list", "use --list"],
    ["progress", "progress --html {0}/p.html", "lab --update --dir {0}/w"],
    ["run nonesuch", "refresh nonesuch", "measure 02 --preset auto", "train --steps x", "generate", "serve --port x",
     "site --out /dev/null"],
], ids=["help", "lists", "folders", "mistakes"])  # fmt: skip
def test_a_command_imports_only_what_it_needs(tmp_path, lines):
    lines = [line.format(tmp_path) for line in lines]
    env = os.environ | {"COURSE_HOME": str(tmp_path / "home")}
    ran = subprocess.run([sys.executable, "-c", WATCHED, *lines], capture_output=True, text=True, env=env)
    modules = set(ast.literal_eval(ran.stderr.splitlines()[-1]))
    assert modules & HEAVY == set(), ran.stderr
    assert "click" in modules


def test_the_grammar_that_nobody_asked_for_is_in_no_process(tmp_path):
    """jsonschema loads an extra of jupyter-events wherever it is found: 38 grammars, seconds of every start."""
    for start in ("import lib.course.headless.execute, papermill, nbformat", "import lib, nbval.plugin, jupyter_events",
                  "import lib, jupyterlab.labapp"):
        program = f"import sys; {start}; print([m for m in ('lark', 'rfc3987_syntax') if sys.modules.get(m)])"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert ran.stdout == "[]\n", ran.stderr


def test_the_command_line_imports_nothing_heavy():
    script = (
        "import sys; import lib.course.cli, lib.lesson.series\n"
        "import lib.course.headless.display, lib.course.headless.runner\n"
        "print([m for m in ('torch', 'transformers', 'papermill', 'nbclient', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
