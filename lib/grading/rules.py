"""What a person should look at in an answer, found by reading it. A flag is a question, not a verdict.

What counts is what the answer's own definition reaches (lib.exercises.reach): a comparison with the library beside it
is none of it. There, to have something ready made is to call it; an import alone is nothing.
"""

import ast
import functools
import sys

from lib.exercises.as_ipython import parse
from lib.exercises.closure import nodes, remembered
from lib.exercises.exercise import Exercise
from lib.exercises.reach import surely
from lib.grading.grades import Flag

# No answer needs these; an honest one may still have them, and nothing they reach is there to be found.
MODULES = frozenset(
    "ast asyncio atexit bdb builtins cffi code codecs codeop concurrent ctypes dis faulthandler fcntl gc "
    "importlib inspect io linecache marshal mmap multiprocessing os pdb pickle pkgutil posix pty resource rouge_score "
    "runpy sacrebleu scipy select selectors shutil signal sklearn socket socketserver statsmodels subprocess sys "
    "tempfile threading tiktoken tokenize tokenizers traceback transformers types zipimport".split()
)
INNER = frozenset(name for name in sys.stdlib_module_names if name[:1] == "_" != name[1:2])
CALLS = frozenset(
    "__import__ attrgetter breakpoint compile delattr eval exec getattr globals locals methodcaller open setattr "
    "vars".split()
)
LIBRARY = "from the course's library"
UNDER = frozenset(
    "__builtins__ __class__ __bases__ __getattribute__ __self__ __subclasses__ __globals__ __code__ __closure__ "
    "__dict__ __reduce__ _getframe CompilationUnit DisableTorchFunction DisableTorchFunctionSubclass "
    "_pop_torch_function_stack attrgetter f_back f_locals f_globals gi_frame jit load_library "
    "methodcaller tb_frame".split()
)
BARE = CALLS | UNDER
Reached = tuple[tuple[ast.stmt, bool], ...]  # statements, and whether each is of the answer's own cell


def broken(exercise: Exercise, reached: Reached) -> list[Flag]:
    """Uses of what the exercise forbids: the thing itself, ready made, in the statements that the answer needs."""
    found: dict[tuple[str, int | None], str] = {}
    origin = _origins(reached)
    mine = {name for s, _ in reached for name in surely(s)} - origin.keys()
    called = {id(n.func) for s, _ in reached for n in nodes(s) if isinstance(n, ast.Call)}
    for statement, own in reached:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        for node, names in _named(statement):
            line = getattr(node, "lineno", None) if own else None
            path = _path(node, origin)
            for name in {path.rpartition(".")[2], *names}:
                # A variable may be called anything that is not the thing itself.
                if twin := ready_made(name, exercise.forbidden, exact=isinstance(node, ast.Name) and not path):
                    found.setdefault((twin, line), f"uses `{name}`, which the exercise asks to write")
            if not path.endswith(f".{exercise.name}") or id(node) not in called:
                continue
            root = _root(node)
            if path.startswith("lib."):
                found.setdefault((exercise.name, line), f"takes `{exercise.name}` {LIBRARY}")
            elif root not in mine and root in origin:
                whose = path.removesuffix(f".{exercise.name}")[:40]
                found.setdefault((exercise.name, line), f"uses `{whose}.{exercise.name}`, ready made")
    told: dict[str, list[Flag]] = {}
    for (name, line), what in found.items():
        told.setdefault(name, []).append(Flag(exercise.id, what, line))
    flags = []
    for first, *more in told.values():  # each name once, with its first line and on how many more it stands
        many = f" (and on {len(more)} more lines)" if more else ""
        flags.append(Flag(exercise.id, first.what + many, first.line))
    return flags


def ready_made(name: str, forbidden: tuple[str, ...], exact: bool = False) -> str:
    """Which of the forbidden names this one is, or is a private twin of ("" if none): `_x_math` is one of `x`."""
    twin = not exact and name.isidentifier()
    return next((f for f in forbidden if name == f or (twin and len(f) >= 8 and f in name)), "")


def noted(exercise: Exercise, uses: dict[str, int | None]) -> list[Flag]:
    """What an answer was seen to call as it ran, {dotted name: line}, as flags."""
    flags = []
    for name, line in uses.items():
        same = name.startswith("lib.") and name.rpartition(".")[2] == exercise.name  # and not only a neighbour
        what = f"called `{name}` {LIBRARY}" if same else f"called `{name}`, ready made"
        flags.append(Flag(exercise.id, what, line))
    return sorted(flags, key=lambda flag: (not taken(flag), flag.what))


def taken(flag: Flag) -> bool:
    """Whether a flag says that there is no answer to judge: it is the library's."""
    return LIBRARY in flag.what


def handed_on(exercise: Exercise, reached: Reached) -> bool:
    """Whether the answer is nothing but the library's own: another name for it, or a call that passes everything on."""
    origin = _origins(reached)

    def theirs(node: ast.AST) -> bool:
        return _path(node, origin).startswith("lib.") and _path(node, origin).endswith(f".{exercise.name}")

    functions = {s.name: s for s, _ in reached if isinstance(s, ast.FunctionDef)}

    def passes_on(value: ast.AST | None, left: int = 9) -> bool:
        if isinstance(value, ast.Lambda):
            return passes_on(value.body, left)
        if isinstance(value, ast.Call):
            if isinstance(value.func, ast.Name) and value.func.id in functions and not theirs(value.func):
                return left > 0 and only_returns(functions[value.func.id], left - 1)
            partial = _path(value.func, origin).endswith("partial") and len(value.args) == 1
            return theirs(value.func) or (partial and theirs(value.args[0]))
        return theirs(value) if value is not None else False

    def only_returns(function: ast.FunctionDef, left: int = 9) -> bool:
        doc = isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant)
        rest = [s for s in function.body[doc:] if not isinstance(s, ast.Import | ast.ImportFrom)]
        return len(rest) == 1 and isinstance(rest[0], ast.Return) and passes_on(rest[0].value, left)

    definitions = [s for s, _ in reached if exercise.name in surely(s)]
    last = definitions[-1] if definitions else None
    if isinstance(last, ast.Assign):
        return passes_on(last.value)
    return isinstance(last, ast.FunctionDef) and only_returns(last)


@functools.lru_cache(maxsize=1)  # asked twice or three times about one answer
def _origins(reached: Reached) -> dict[str, str]:
    """{name: dotted path} of what the statements import, inside functions too, and of plain second names for it."""
    found: dict[str, str] = {}
    for node in (node for s, _ in reached for node in nodes(s)):
        if isinstance(node, ast.Import):
            for a in node.names:
                found[a.asname or a.name.split(".")[0]] = a.name if a.asname else a.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module or ''}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute):
            if (path := _path(node.value, found)) and _root(node.value) in found:
                found |= {t.id: path for t in node.targets if isinstance(t, ast.Name)}
    if "*" in found:
        found |= {name: f"{found['*'].removesuffix('.*')}.{name}" for name in _loaded(reached) if name not in found}
    return found


def _loaded(reached: Reached) -> set[str]:
    given = {name for s, _ in reached for name in surely(s)}
    return {n.id for s, _ in reached for n in nodes(s) if isinstance(n, ast.Name)} - given


def _path(node: ast.AST, origin: dict[str, str]) -> str:
    """The dotted path that a name or attribute stands for, imports followed; "" for other code."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([origin.get(node.id, node.id), *reversed(parts)])


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def suspicious(exercise: Exercise, source: str) -> list[Flag]:
    """Uses of what an answer to any exercise can do without."""
    found = {}
    for statement in parse(source):
        for node, names in _named(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                roots = {name.split(".")[0] for name in names}
                names = {root for root in roots if root in MODULES or root in INNER}
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("lib.grading", "lib.course")):
                    names = {".".join(node.module.split(".")[:2])}
            elif isinstance(node, ast.Name):
                names = names & BARE
            else:
                names = names & UNDER
            for name in names:
                found.setdefault(name, getattr(node, "lineno", None))
    return [Flag(exercise.id, f"uses `{name}`", line) for name, line in found.items()]


@remembered
def _named(statement: ast.stmt) -> list[tuple[ast.AST, set[str]]]:
    """The nodes of a statement that hold names, each with its own."""
    return [(node, names) for node in nodes(statement) if (names := _names(node))]


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
    if isinstance(node, ast.MatchClass):
        return set(node.kwd_attrs)
    return set()
