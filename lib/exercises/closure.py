"""Which statements a name needs: the part of a program that has to run before one function can.

Used on a learner's notebook, to run an answer without the training loop three cells further up, and on our own
exercises, to tell when a check has changed. Nothing here runs the code it reads.
"""

import ast
import functools
import hashlib

DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SIMPLE = DEFINITION | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign
BLOCK = ast.If | ast.Try  # an import with a fallback, say; simple if all in them is


def remembered(function):
    """Keep on a node what was found out about it: the cells of a class are read once, but asked about often."""
    key = "_" + function.__name__

    @functools.wraps(function)
    def ask(node):
        try:
            return node.__dict__[key]
        except KeyError:
            found = node.__dict__[key] = function(node)
            return found

    return ask


# What holds no part of a program worth a visit: names, flags, and the operators, which are all alike.
PLAIN = frozenset("attr conversion ctx id is_async kind level lineno op ops simple type_comment".split())
FIELDS: dict[type, list[str]] = {}


def children(node: ast.AST) -> list[ast.AST]:
    """The parts of a node as ast.iter_child_nodes gives them, but for operators and contexts, in less time."""
    kind, found = node.__class__, []
    if kind not in FIELDS:
        FIELDS[kind] = [name for name in kind._fields if name not in PLAIN]
    for name in FIELDS[kind]:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


@remembered
def nodes(statement: ast.AST) -> list[ast.AST]:
    """All nodes of a statement, itself first, in the order of ast.walk."""
    found = [statement]
    for node in found:  # which grows
        found += children(node)
    return found


@remembered
def bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level definition, import or assignment gives a meaning to; none for other statements."""
    if isinstance(statement, DEFINITION):
        return {statement.name}
    if isinstance(statement, BLOCK):
        return {name for inner in _inside(statement) for name in bound(inner)}
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name.split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return set()
    return {n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)}


def _inside(statement: ast.stmt) -> list[ast.stmt]:
    """The statements of an if or a try, its other branches' too."""
    parts = [statement.body, statement.orelse, getattr(statement, "finalbody", [])]
    return [s for part in parts + [h.body for h in getattr(statement, "handlers", [])] for s in part]


def _simple(statement: ast.stmt) -> bool:
    """Whether a statement gives names a meaning and does nothing else."""
    if isinstance(statement, BLOCK):
        return all(isinstance(inner, ast.Pass) or _simple(inner) for inner in _inside(statement))
    return isinstance(statement, SIMPLE)


@remembered
def used(node: ast.AST) -> set[str]:
    """Every name that a piece of code reads from around it: not a function's own arguments and variables."""
    try:
        return _free(node)
    except RecursionError:  # deeper than code is: then all that it names
        return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


@remembered
def unparsed(statement: ast.stmt) -> str:
    """The statement as code again; "" for one that cannot be written down (too deep, or a number too long)."""
    try:
        return ast.unparse(statement)
    except (RecursionError, ValueError):
        return ""


FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def _free(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id} | _free(node.value)
    if isinstance(node, FUNCTION):
        body = node.body if isinstance(node.body, list) else [node.body]
        inner = {id(n) for n in body}
        around = [n for n in children(node) if id(n) not in inner and not isinstance(n, ast.arguments)]
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        arguments = [a for a in arguments if a is not None]
        around += [*given.defaults, *filter(None, given.kw_defaults), *filter(None, (a.annotation for a in arguments))]
        local, outer = {a.arg for a in arguments}, set()
        for statement in body:
            stored(statement, local, outer)
        inside = {name for statement in body for name in _free(statement)}
        return (inside - (local - outer)) | {name for n in around for name in _free(n)}
    found = {name for child in children(node) for name in _free(child)}
    if isinstance(node, COMPREHENSION):
        found -= {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    return found


def stored(node: ast.AST, local: set[str], outer: set[str]) -> None:
    """Add the names that a function's code makes its own, and those that it says are not."""
    if isinstance(node, ast.Global):
        outer.update(node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        local.add(node.id)
    elif isinstance(node, ast.Import | ast.ImportFrom | DEFINITION):
        local.update(bound(node))
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        local.add(node.name)
    if not isinstance(node, FUNCTION | ast.ClassDef | COMPREHENSION):
        for child in children(node):
            stored(child, local, outer)


def needed(statements: list[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """Those of `statements`, in their order, that `names` need, directly or through one another.

    Only definitions, imports and assignments count; of several that give one name a meaning, all do (x = 1; x = x + 1).
    A star import gives unknown names, so it is always among them.
    """
    makers: dict[str, list[int]] = {}
    chosen, open_names = set(), set(names)
    for i, statement in enumerate(statements):
        if _simple(statement):
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
    statements = _module(source)
    statements = statements if names is None else needed(statements, names)
    return hashlib.sha256("\n".join(map(_dumped, statements)).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=32)  # a module of ours is asked about for each exercise in it
def _module(source: str) -> list[ast.stmt]:
    return ast.parse(source).body


_dumped = remembered(ast.dump)
