"""What a person should look at in an answer, found by reading it. A flag is a question, not a verdict."""

import ast

from lib.exercises.closure import parse
from lib.exercises.exercise import Exercise
from lib.grading.grades import Flag

# No answer needs these; an honest one may still have them, and nothing they reach is there to be found.
MODULES = frozenset(
    "ast atexit builtins cffi code ctypes dis fcntl gc importlib inspect linecache marshal mmap multiprocessing os "
    "pickle pty resource runpy shutil signal socket subprocess sys threading traceback types".split()
)
CALLS = frozenset("__import__ breakpoint compile delattr eval exec getattr globals locals open setattr vars".split())
LIBRARY = "from the course's library"
UNDER = frozenset(
    "__builtins__ __class__ __bases__ __subclasses__ __globals__ __code__ __closure__ __dict__ __reduce__ _getframe "
    "f_back f_locals f_globals gi_frame tb_frame".split()
)


def broken(exercise: Exercise, source: str, helpers: tuple[str, ...] = ()) -> list[Flag]:
    """Uses of what the exercise forbids: the thing itself, ready made. helpers: further code that the answer needs."""
    found = {}
    modules = {name for text in (source, *helpers) for name in _modules_of_lib(text)}
    for line, node in _nodes(source, helpers):
        for name in _names(node) & set(exercise.forbidden):
            found.setdefault((name, line), f"uses `{name}`, which the exercise asks to write")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            if any(alias.name in (exercise.name, "*") for alias in node.names):
                found.setdefault(("lib", line), f"takes `{exercise.name}` {LIBRARY}")
        if isinstance(node, ast.Attribute) and node.attr == exercise.name:
            whose = ast.unparse(node.value)[:40] if isinstance(node.value, ast.Name | ast.Attribute) else "…"
            ours = whose.split(".")[0] in modules
            what = f"takes `{exercise.name}` {LIBRARY}" if ours else f"uses `{whose}.{exercise.name}`, ready made"
            if whose != "self":
                found.setdefault((exercise.name, line), what)
    return [Flag(exercise.id, what, line) for (_, line), what in found.items()]


def _nodes(source: str, helpers: tuple[str, ...]):
    """(line, node) of all code; only the answer's own lines have a number that means something to a reader."""
    for text in (source, *helpers):
        for statement in parse(text):
            for node in ast.walk(statement):
                yield (getattr(node, "lineno", None) if text is source else None), node


def _modules_of_lib(source: str) -> set[str]:
    """The names under which code has the course's modules."""
    found = set()
    for node in (node for statement in parse(source) for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            found |= {a.asname or "lib" for a in node.names if a.name.split(".")[0] == "lib"}
        elif isinstance(node, ast.ImportFrom) and node.module == "lib":
            found |= {a.asname or a.name for a in node.names}
    return found


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
