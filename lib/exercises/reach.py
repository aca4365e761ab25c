"""What a name reaches: the statements of a notebook that have to run before one function can, as they stood.

    program = Program(statements)          # top-level statements, in the order in which they ran
    found = program.reach("attention")     # found.chosen: those that it needs; found.missing: names that nothing gives

A function's names mean what they meant last; those of other code, what they meant when it ran. So of two statements
that give one name a meaning only the later counts, unless the later may not have run, or changes what the earlier made.
"""

import ast
import builtins
from dataclasses import dataclass, field

from lib.exercises.closure import COMPREHENSION, DEFINITION, FUNCTION, bound, children, nodes, remembered, stored, used

MOST_STEPS = 200_000  # of one search; a lesson's notebook takes a hundred
MOST_CALLS = 200  # functions that one function calls, through each other
KNOWN = frozenset(dir(builtins)) | {"__name__", "__file__", "display", "get_ipython", "math", "torch", "F", "nn"}
# Their calls change nothing that they are handed.
PURE = frozenset("print display len help type repr show check hint plt sns bars curves heatmap hover_map".split())
CHANGING = frozenset(
    "add append appendleft clear discard extend insert pop popitem popleft remove reverse setdefault sort "
    "update".split()
)


@remembered
def surely(node: ast.stmt) -> set[str]:
    """The names that a statement gives a meaning to, whichever way it goes."""
    if isinstance(node, ast.With | ast.AsyncWith):
        targets = [item.optional_vars for item in node.items if item.optional_vars]
        return {n for t in targets for n in _names(t)} | _all(node.body)
    if isinstance(node, ast.If):
        return _all(node.body) & _all(node.orelse)
    if isinstance(node, ast.Try | ast.TryStar):
        whole = _all(node.body) | _all(node.orelse)
        for handler in node.handlers:
            if not any(isinstance(s, ast.Raise) for s in handler.body):
                whole &= _all(handler.body)
        return whole | _all(node.finalbody)
    if isinstance(node, ast.AugAssign):
        return _names(node.target) if isinstance(node.target, ast.Name) else set()
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return set()
    return {name for name in bound(node) if name != "*"} if isinstance(node, DEFINITION | SIMPLE) else set()


SIMPLE = ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign


def _all(body: list[ast.stmt]) -> set[str]:
    return {name for statement in body for name in surely(statement)}


def _names(target: ast.expr) -> set[str]:
    """The names that a target gives a meaning to: those of (x, y[0], *z) are x and z."""
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


@remembered
def touched(node: ast.stmt) -> set[str]:
    """All names that a statement may give a meaning to, or whose object it may change. A star import touches "*"."""
    found: set[str] = set()
    try:
        _touch(node, found, alone=True)
    except RecursionError:  # deeper than code is: then all that it stores
        found |= _bound_inside(node)
    return found


def _touch(node: ast.AST, found: set[str], alone: bool = False) -> None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        found |= bound(node)
    elif isinstance(node, DEFINITION):
        found.add(node.name)
        if isinstance(node, ast.ClassDef):
            return
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        found.add(node.id)
    elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        found |= _root(node)
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        found.add(node.name)
    elif isinstance(node, ast.Call):
        found |= _changed(node, alone)
    if isinstance(node, FUNCTION):
        return  # runs when it is called
    targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)} if isinstance(
        node, COMPREHENSION) else set()  # fmt: skip
    inside: set[str] = set()
    for child in children(node):
        _touch(child, inside, (isinstance(node, ast.Expr | ast.Await) and alone) or isinstance(child, ast.stmt))
    found |= inside - targets


def _changed(call: ast.Call, alone: bool) -> set[str]:
    """The names of the objects that a call may change. alone: what it returns is not used."""
    root = _root(call.func)
    if root & PURE:
        return set()
    found = set()
    if isinstance(call.func, ast.Attribute):
        name = call.func.attr
        if alone or name in CHANGING or (name.endswith("_") and not name.startswith("_")):
            found |= root
    if alone:
        found |= {a.id for a in map(_starred, call.args) if isinstance(a, ast.Name)}
    return found


def _starred(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Starred) else node


def _root(node: ast.AST) -> set[str]:
    """{"x"} for x, x.y, x[0].z(); empty for what starts with no name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


@remembered
def now(node: ast.AST) -> set[str]:
    """The names that code reads as it runs: of a function that it defines, only defaults, decorators and types."""
    try:
        return _now(node)
    except RecursionError:
        return used(node)


def _now(node: ast.AST) -> set[str]:
    if isinstance(node, FUNCTION):
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        around = [*given.defaults, *filter(None, given.kw_defaults)]
        around += [a.annotation for a in arguments if a is not None and a.annotation]
        if not isinstance(node, ast.Lambda):
            around += [*node.decorator_list, *filter(None, [node.returns])]
        return {name for part in around for name in _now(part)}
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id} | _now(node.value)
    found = {name for child in children(node) for name in _now(child)}
    if isinstance(node, COMPREHENSION):
        found -= {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    if isinstance(node, ast.ClassDef):
        found -= {name for s in node.body for name in touched(s)}
    return found


@remembered
def later(node: ast.AST) -> set[str]:
    """The names that the functions which code defines read when they are called."""
    found: set[str] = set()
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, FUNCTION):
            found |= used(each)
        else:
            stack += children(each)
    return found


@remembered
def effects(node: ast.AST) -> tuple[frozenset[str], frozenset[str]]:
    """What calling a function changes outside it, and the names that it calls."""
    local, outer, changed = set(), set(), set()
    given = node.args
    for a in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
        if a is not None:
            local.add(a.arg)
    for statement in node.body:
        stored(statement, local, outer)
        changed |= touched(statement)
    called = [n.func for s in node.body for n in nodes(s) if isinstance(n, ast.Call)]
    return frozenset((changed - local) | outer), frozenset(f.id for f in called if isinstance(f, ast.Name))


@remembered
def calls(node: ast.AST) -> set[str]:
    """The names of what a statement calls as it runs."""
    found: set[str] = set()
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name):
            found.add(each.func.id)
        if not isinstance(each, FUNCTION):
            stack += children(each)
    return found


@dataclass
class Reach:
    """chosen: the numbers of the statements that a name needs, in order. missing: names that no statement gives.
    names: all that were asked for."""

    chosen: list[int] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    whole: bool = True  # False: the search was given up


class Program:
    """Top-level statements in the order in which they ran."""

    def __init__(self, statements: list[ast.stmt]):
        self.statements = statements
        functions: dict[str, list[ast.AST]] = {}
        for s in statements:
            if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.setdefault(s.name, []).append(s)
        self._changes = {name: self._effect(name, functions) for name in functions}
        self.touching: dict[str, list[int]] = {}
        for i, s in enumerate(statements):
            names = touched(s)
            if not isinstance(s, DEFINITION) and (called := calls(s) & self._changes.keys()):
                names = names.union(*(self._changes[name] for name in called))
            for name in names:
                self.touching.setdefault(name, []).append(i)
        self.modules = {n for s in statements if isinstance(s, ast.Import | ast.ImportFrom) for n in bound(s)}

    @staticmethod
    def _effect(name: str, functions: dict[str, list[ast.AST]]) -> set[str]:
        """What a call of the function changes, through those that it calls too."""
        found: set[str] = set()
        seen, open_names = set(), [name]
        while open_names and len(seen) < MOST_CALLS:
            each = open_names.pop()
            if each not in seen:
                seen.add(each)
                for function in functions.get(each, ()):
                    changed, called = effects(function)
                    found |= changed
                    open_names += called
        return found

    def reach(self, name: str) -> Reach:
        """What `name` needs at the end of the program."""
        end, found, chosen = len(self.statements), Reach(), set()
        work, seen, steps = [(name, end)], set(), 0
        work += [("*", end)]
        while work:
            ask = work.pop()
            steps += 1
            if steps > MOST_STEPS:
                found.whole, work = False, []
            if ask in seen:
                continue
            seen.add(ask)
            name, before = ask
            found.names.add(name)
            known = False
            for i in reversed(self.touching.get(name, ())):
                steps += 1
                if i >= before:
                    continue
                s = self.statements[i]
                known = True
                if not self._worth(s, name):
                    continue
                chosen.add(i)
                work += [(n, i) for n in now(lean(s))]
                for n in later(s):
                    work += [(n, before), (n, end)]
                if name in surely(s):
                    break
            if not known and name not in KNOWN and name != "*":
                found.missing.add(name)
        found.chosen = sorted(chosen)
        given = {n for i in chosen for n in touched(self.statements[i])}
        found.missing = set() if "*" in given else found.missing - given
        return found

    def _worth(self, s: ast.stmt, name: str) -> bool:
        """Whether a statement that touches a name is needed for it: `plt.show()` changes nothing of plt that counts."""
        if name in surely(s) or name not in self.modules:
            return True
        if not isinstance(s, ast.Expr):
            return name in _bound_inside(s)
        # A setting of a module, as torch.manual_seed(0), comes along if that takes nothing else.
        settings = {n.attr for n in nodes(s) if isinstance(n, ast.Attribute)}
        return now(s) <= self.modules | KNOWN and not any(name.startswith("set_default") for name in settings)


@remembered
def _bound_inside(node: ast.stmt) -> set[str]:
    """The names that a statement with others in it may give a meaning to."""
    found: set[str] = set()
    for inner in nodes(node):
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            found.add(inner.id)
        elif isinstance(inner, ast.Import | ast.ImportFrom | DEFINITION):
            found |= bound(inner)
    return found


@remembered
def lean(node: ast.stmt) -> ast.stmt:
    """The statement without what only shows something inside it: prints, plots, bare values."""
    if not isinstance(node, ast.For | ast.While | ast.With | ast.If | ast.AsyncFor | ast.AsyncWith):
        return node
    new = type(node)(**dict(ast.iter_fields(node)))
    for part in ("body", "orelse"):
        if body := getattr(node, part, []):
            setattr(new, part, [lean(s) for s in body if not _shows(s)] or [ast.copy_location(ast.Pass(), node)])
    return ast.copy_location(new, node)


def _shows(s: ast.stmt) -> bool:
    if isinstance(s, ast.Assert):
        return True
    value = s.value if isinstance(s, ast.Expr) else None
    value = value.value if isinstance(value, ast.Await) else value
    return value is not None and not (isinstance(value, ast.Call) and not _root(value.func) & PURE)
