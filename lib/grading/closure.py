"""Which statements a name needs: the part of a program that has to run before one function can.

Used on a learner's notebook, to run an answer without the training loop three cells further up, and on our own
exercises, to tell when a check has changed. Nothing here runs the code it reads.
"""

import ast
import hashlib

DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SIMPLE = DEFINITION | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign


def parse(source: str) -> list[ast.stmt]:
    """The statements of a cell; [] for one that is no Python. Lines of notebook magic (% and !) are passed over."""
    if source.lstrip().startswith("%%") and not source.lstrip().startswith(("%%time", "%%capture")):
        return []  # a cell of another language
    try:
        return ast.parse(plain(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def plain(source: str) -> str:
    """The source with each line of notebook magic made empty, so that line numbers stay."""
    if "%" not in source and "!" not in source:
        return source
    try:
        ast.parse(source)
        return source  # a % at the start of a line may be arithmetic
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = source.split("\n")
        return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level definition, import or assignment gives a meaning to; none for other statements."""
    if isinstance(statement, DEFINITION):
        return {statement.name}
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name.split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return set()
    return {n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)}


def used(node: ast.AST) -> set[str]:
    """Every name that a piece of code reads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def needed(statements: list[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """Those of `statements`, in their order, that `names` need, directly or through one another.

    Only definitions, imports and assignments count; of several that give one name a meaning, all do (x = 1; x = x + 1).
    A star import gives unknown names, so it is always among them.
    """
    makers: dict[str, list[int]] = {}
    chosen, open_names = set(), set(names)
    for i, statement in enumerate(statements):
        if isinstance(statement, SIMPLE):
            for name in bound(statement):
                makers.setdefault(name, []).append(i)
    chosen |= set(makers.get("*", ()))
    seen = set()
    while open_names:
        name = open_names.pop()
        seen.add(name)
        for i in makers.get(name, ()):
            if i not in chosen:
                chosen.add(i)
                open_names |= used(statements[i]) - seen
    return [statements[i] for i in sorted(chosen)]


def digest(source: str, names: set[str] | None) -> str:
    """A digest of what `names` (None: all) mean in a module: it changes with any code they need, not with comments."""
    statements = parse(source) if names is None else needed(parse(source), names)
    return hashlib.sha256("\n".join(map(ast.dump, statements)).encode()).hexdigest()[:16]
