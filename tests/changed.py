"""`make check`: the tests of what has changed since the main branch; all that are quick where nothing has.

A file's tests are in the one that mirrors its place (lib/shop/desk.py, tests/shop/test_desk.py); else in those that
import it, or in those of its room. An exercise's are its own mutants. The slowest come only for what they mirror.
"""

import re
import subprocess
import sys
from pathlib import Path

from hunt import SLOWEST

ROOT = Path(__file__).parents[1]
TESTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in sorted((ROOT / "tests").rglob("test_*.py")) if "browser" not in path.parts}  # fmt: skip
QUICK = {test for test in TESTS if test.removeprefix("tests/").removesuffix(".py") not in SLOWEST}
HOUSE, SETUP, MUTANTS = "tests/test_house.py", "tests/test_setup.py", "tests/exercises/test_mutants.py"
ELSEWHERE = {"notebooks/": "tests/test_notebooks.py", "tests/hostile/": "tests/grading/test_hostile.py"}
EXERCISES = re.compile(r"lib/(?:exercises/l|answers/a)(\d\d)\.py")


def git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed() -> list[str]:
    """Files that differ from where this branch left main, what is not committed yet among them."""
    [since] = git("merge-base", "HEAD", "main") or git("rev-parse", "HEAD") or ["HEAD"]
    return sorted({*git("diff", "--name-only", since), *git("ls-files", "--others", "--exclude-standard")})


def tests_of(path: str) -> set[str]:
    """The test files of a file."""
    if path in TESTS:
        return {path}
    for folder, test in ELSEWHERE.items():
        if path.startswith(folder):
            return {test}
    if not path.endswith(".py"):
        return {SETUP}
    parts = Path(path.removesuffix("/__init__.py")).with_suffix("").parts
    room = parts[1] if len(parts) > 2 else ""
    if parts[0] == "lib" and (mirror := Path("tests", room, f"test_{parts[-1]}.py").as_posix()) in TESTS:
        return {mirror}
    module = ".".join(parts if parts[0] == "lib" else parts[1:])
    package, _, name = module.rpartition(".")
    imports = re.compile(rf"^(from|import) {module}\b" + rf"|^from {package} import .*\b{name}\b" * bool(package), re.M)
    importers = {test for test in TESTS if module and imports.search(TESTS[test])}
    in_room = {test for test in QUICK if room and test.startswith(f"tests/{room}/")}
    return importers & QUICK or in_room or (importers if parts[0] == "tests" else set()) or QUICK


def runs(paths: list[str]) -> list[list[str]]:
    """The arguments of pytest, of one run after another."""
    found = [tests_of(path) for path in paths if not EXERCISES.fullmatch(path)] or [set() if paths else QUICK]
    wanted = {HOUSE}.union(*found)
    many = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    arguments = [*sorted(wanted), *(many if len(wanted) > 6 else ["-p", "no:xdist"])]
    lessons = sorted({told[1] for path in paths if (told := EXERCISES.fullmatch(path))})
    if not lessons or MUTANTS in wanted:
        return [arguments]
    return [arguments, [MUTANTS, "-p", "no:xdist", "-k", " or ".join(f"{lesson}." for lesson in lessons)]]


if __name__ == "__main__":
    status = 0
    for arguments in runs(changed()):
        print("pytest", *arguments, flush=True)
        status |= subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], cwd=ROOT).returncode
    sys.exit(status)
