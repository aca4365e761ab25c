"""What a person should look at in an answer, found by reading it. A flag is a question, not a verdict."""

import ast

from lib.exercises.closure import bound, parse, used
from lib.exercises.exercise import Exercise
from lib.grading.grades import Flag

# No answer needs these; an honest one may still have them, and nothing they reach is there to be found.
MODULES = frozenset(
    "ast atexit builtins cffi code ctypes dis fcntl gc importlib inspect linecache marshal mmap multiprocessing os "
    "pickle pty resource rouge_score runpy sacrebleu scipy shutil signal sklearn socket statsmodels subprocess sys "
    "threading tiktoken tokenizers traceback transformers types".split()
)
CALLS = frozenset(
    "__import__ attrgetter breakpoint compile delattr eval exec getattr globals locals methodcaller open setattr "
    "vars".split()
)
LIBRARY = "from the course's library"
UNDER = frozenset(
    "__builtins__ __class__ __bases__ __subclasses__ __globals__ __code__ __closure__ __dict__ __reduce__ _getframe "
    "CompilationUnit DisableTorchFunction DisableTorchFunctionSubclass _pop_torch_function_stack attrgetter f_back "
    "f_locals f_globals gi_frame jit load_library methodcaller tb_frame".split()
)


def broken(exercise: Exercise, source: str, helpers: tuple[str, ...] = ()) -> list[Flag]:
    """Uses of what the exercise forbids in the answer's own definition: the thing itself, ready made.

    helpers: further code that the answer needs. A try-out, or a comparison beside the answer, is no use. Each name is
    told once, with its first line and on how many more it stands.
    """
    found: dict[str, list] = {}

    def note(key: str, line: int | None, what: str) -> None:
        found.setdefault(key, [what, line, set()])[2].add(line)

    texts = {source: concerning(parse(source), exercise.name)} | {text: parse(text) for text in helpers}
    modules = {name for statements in texts.values() for name in _modules_of_lib(statements)}
    for text, statements in texts.items():
        for node in (node for statement in statements for node in ast.walk(statement)):
            line = getattr(node, "lineno", None) if text is source else None  # only there a number tells a reader
            for name in _names(node):
                mine = isinstance(node, ast.Name)  # a variable may be called anything that is not the thing itself
                if twin := ready_made(name, exercise.forbidden, exact=mine):
                    note(twin, line, f"uses `{name}`, which the exercise asks to write")
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
                if any(alias.name in (exercise.name, "*") for alias in node.names):
                    note("lib", line, f"takes `{exercise.name}` {LIBRARY}")
            if isinstance(node, ast.Attribute) and node.attr == exercise.name:
                whose = node.value.id if isinstance(node.value, ast.Name) else _dotted(node.value)
                ours = whose.split(".")[0] in modules
                what = f"takes `{exercise.name}` {LIBRARY}" if ours else f"uses `{whose}.{exercise.name}`, ready made"
                if whose != "self":
                    note("lib" if ours else exercise.name, line, what)
    flags = []
    for what, line, lines in found.values():
        more = f" (and on {len(lines) - 1} more lines)" if len(lines) > 1 else ""
        flags.append(Flag(exercise.id, what + more, line))
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


def concerning(statements: list[ast.stmt], name: str) -> list[ast.stmt]:
    """Those of a cell's statements that make `name` what it is, in their order, through whatever they need.

    A statement makes the names that it stores, and those whose attributes, items or methods it uses to change them.
    """
    makers: dict[str, list[int]] = {}
    own = {made for s in statements if not isinstance(s, ast.Import | ast.ImportFrom) for made in bound(s)}
    for i, statement in enumerate(statements):
        for made in _made(statement, own):
            makers.setdefault(made, []).append(i)
    chosen = set(makers.get("*", ()))
    wanted, seen = {name, *(u for i in chosen for u in used(statements[i]))}, set()
    while wanted:
        each = wanted.pop()
        seen.add(each)
        for i in makers.get(each, ()):
            if i not in chosen:
                chosen.add(i)
                wanted |= used(statements[i]) - seen
    return [statements[i] for i in sorted(chosen)]


def _made(statement: ast.stmt, own: set[str]) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return bound(statement)
    made = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            made.add(_dotted(node).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
            made |= bound(node)
        elif isinstance(statement, ast.Expr) and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            made |= {_dotted(node.func.value).split(".")[0]} & own  # kept.append(…)
    return made


def _dotted(node: ast.expr) -> str:
    """The dotted name that an expression begins with, shortened; "…" if it begins with none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        parts += [node.attr] if isinstance(node, ast.Attribute) else []
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "…", *reversed(parts)])[:80]


def _modules_of_lib(statements: list[ast.stmt]) -> set[str]:
    """The names under which code has the course's modules."""
    found = set()
    for node in (node for statement in statements for node in ast.walk(statement)):
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
                    names = {".".join(node.module.split(".")[:2])}
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
