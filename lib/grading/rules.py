"""What a person should look at in an answer, found by reading it. A flag is a question, not a verdict."""

import ast

from lib.grading.closure import parse
from lib.grading.exercise import Exercise
from lib.grading.report import Flag

# No answer needs these; an honest one may still have them, and nothing they reach is there to be found.
MODULES = frozenset(
    "ast atexit builtins cffi code ctypes dis fcntl gc importlib inspect linecache marshal mmap multiprocessing os "
    "pickle pty resource runpy shutil signal socket subprocess sys threading traceback types".split()
)
CALLS = frozenset("__import__ breakpoint compile delattr eval exec globals locals open setattr vars".split())
LIBRARY = "from the course's library"
UNDER = frozenset(
    "__builtins__ __class__ __bases__ __subclasses__ __globals__ __code__ __closure__ __dict__ __reduce__ _getframe "
    "f_back f_locals f_globals gi_frame tb_frame".split()
)


def broken(exercise: Exercise, source: str) -> list[Flag]:
    """Uses of what the exercise forbids: the thing itself, ready made."""
    found = {}
    for statement in parse(source):
        for node in ast.walk(statement):
            for name in _names(node):
                if name in exercise.forbidden:
                    found.setdefault((name, node.lineno), f"uses `{name}`, which the exercise asks to write")
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
                if any(alias.name in (exercise.name, "*") for alias in node.names):
                    found.setdefault(("lib", node.lineno), f"takes `{exercise.name}` {LIBRARY}")
    return [Flag(exercise.id, what, line) for (_, line), what in found.items()]


def suspicious(exercise: Exercise, source: str) -> list[Flag]:
    """Uses of what an answer to any exercise can do without."""
    found = {}
    for statement in parse(source):
        for node in ast.walk(statement):
            names = _names(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {name.split(".")[0] for name in names} & MODULES
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("lib.grading", "lib.course")):
                    names = {node.module}
            elif isinstance(node, ast.Name):
                names &= CALLS | UNDER
            else:
                names &= UNDER
            for name in names:
                found.setdefault(name, getattr(node, "lineno", None))
    return [Flag(exercise.id, f"uses `{name}`", line) for name, line in found.items()]


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {alias.name for alias in node.names} | {node.module or ""}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}  # getattr(F, "...")
    return set()
