"""Does a lesson give an exercise away before it is tried? What stands in an earlier cell is handed in as the answer.

    python tests/exercises/give_away.py

Candidates for an exercise are every function and class that cells before its own define, in its lesson and in earlier
ones; and what the cells of its lesson compute before, line by line, with the exercise's arguments in place of their own
names. One that earns more than a quarter of the points has given it away. What only calls the library's or PyTorch's
own, ready made, tells nobody how.
"""

import ast
import builtins
import contextlib
import dataclasses
import gc
import io
import itertools
import json
import re
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from lib.exercises.closure import bound, used
from lib.exercises.exercise import PRELUDE, Exercise, exercises
from lib.exercises.result import evaluate

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SHARE = 0.25
SECONDS = 2
MOST = 24  # ways to put the arguments in place of a line's names
# The letters of the course's shapes, read off the first argument.
AXES = """    _s = tuple(getattr(_{first}, "shape", ()))
    if len(_s) == 2: T, D = _s
    if len(_s) == 3: B, T, D = _s
    if len(_s) == 4: B, H, T, Dh = _s; D = H * Dh
"""
COMPUTED = ast.BinOp | ast.Call | ast.Subscript | ast.Compare | ast.ListComp
LETTERS = {"B", "T", "D", "H", "Dh"}


@dataclass(frozen=True)
class Candidate:
    """Something that an earlier cell shows: where, and the source that makes an answer of it."""

    where: str
    source: str


def cells(path: Path) -> Iterator[tuple[int, str, str]]:
    """(number, grade_id, source) of a notebook's code cells."""
    for n, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            yield n, cell["metadata"].get("nbgrader", {}).get("grade_id", ""), "".join(cell["source"])


def statements(source: str) -> list[ast.stmt]:
    return ast.parse(source).body


def before(e: Exercise, path: Path) -> list[tuple[str, list[ast.stmt]]]:
    """The cells of a lesson before an exercise's answer cell, all in an earlier lesson, but for answers and checks."""
    found = []
    for n, grade_id, source in cells(path):
        if grade_id == e.id.replace(".", "-"):
            break
        if not grade_id:
            found.append((f"{path.stem} [{n}]", statements(source)))
    return found


def definitions(shown: list[tuple[str, list[ast.stmt]]]) -> dict[str, tuple[str, ast.stmt]]:
    """{name: (where, statement)} of functions, classes, imports and constants; the newest of a name."""
    found = {}
    for where, body in shown:
        for statement in body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom) or _plain(statement):
                found |= dict.fromkeys(bound(statement), (where, statement))
    return found


def _plain(statement: ast.stmt) -> bool:
    """An assignment of a literal or of a lambda."""
    if not isinstance(statement, ast.Assign):
        return False
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return isinstance(statement.value, ast.Lambda)
    return True


def with_needs(names: set[str], known: dict[str, tuple[str, ast.stmt]]) -> str:
    """The source of what these names need, in an order that runs: imports and constants first."""
    needed, todo = {}, sorted(names)
    while todo:
        name = todo.pop()
        if name in known and name not in needed:
            needed[name] = known[name][1]
            todo += sorted(used(known[name][1]))
    lines = list(dict.fromkeys(map(ast.unparse, needed.values())))
    return "\n".join(sorted(lines, key=lambda line: line.startswith(("def ", "class ", "@"))))


def candidates(e: Exercise, folder: Path = NOTEBOOKS) -> Iterator[Candidate]:
    taken = [*ast.parse(e.stub).body][-1]
    arguments = [a.arg for a in taken.args.args] if isinstance(taken, ast.FunctionDef) else []
    shown = []
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        if path.name[:2] <= e.lesson:
            shown.append(before(e, path))
    known = definitions([cell for lesson in shown for cell in lesson])
    for name, (where, statement) in known.items():
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) or (
            isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda)):
            yield Candidate(f"{where} {name}", f"{with_needs({name}, known)}\n_given = {name}\n")
    if not arguments:
        return
    seen = set()
    known = {name: place for name, place in known.items() if name not in LETTERS}
    others = set(known) | set(dir(builtins)) | {"math", "torch", "F", "nn", "lib"}
    ready = {name.rpartition(".")[2] for name in e.ready} | set(e.forbidden) | {e.name}
    for where, body in shown[-1]:
        for lines in slices(body):
            text = "; ".join(map(ast.unparse, lines))
            names = {n.attr if isinstance(n, ast.Attribute) else n.id
                     for line in lines for n in ast.walk(line) if isinstance(n, ast.Attribute | ast.Name)}  # fmt: skip
            free = sorted(_free(lines) - others - LETTERS)
            given_letters = sorted(_free(lines) & LETTERS)
            if text in seen or names & ready or len(free) > len(arguments):
                continue
            seen.add(text)
            needs = with_needs(set().union(*map(used, lines)) & set(known), known)
            tries = [(free, chosen) for chosen in itertools.permutations(arguments, len(free))]
            tries += [([*free, letter], chosen) for letter in given_letters
                      for chosen in itertools.permutations(arguments, len(free) + 1)]  # fmt: skip
            for old, chosen in itertools.islice(tries, MOST):
                if old:
                    yield Candidate(f"{where} `{text[:70]}`", _function(lines, needs, arguments, dict(zip(old, chosen,
                                    strict=True))))  # fmt: skip


def _function(lines: list[ast.stmt], needs: str, arguments: list[str], names: dict[str, str]) -> str:
    """Lines of a lesson as the body of a function with an exercise's arguments. names: {the lesson's: an argument}."""
    given = ", ".join(f"_{a}=None" for a in arguments)
    body = [f"    {ours} = _{theirs}" for ours, theirs in names.items()]
    body += [f"    {ast.unparse(line)}" for line in lines[:-1]]
    return "\n".join([needs, f"def _given({given}):", AXES.format(first=arguments[0]), *body,
                      f"    return {ast.unparse(lines[-1].value)}", ""])  # fmt: skip


def _general(value: ast.expr) -> Iterator[ast.expr]:
    """The same with a name in place of a whole number above 1 that is no keyword's; each such number in turn."""
    kept = {id(n) for keyword in ast.walk(value) if isinstance(keyword, ast.keyword) for n in ast.walk(keyword)}
    whole = [n for n in ast.walk(value) if isinstance(n, ast.Constant) and type(n.value) is int and id(n) not in kept]
    text = ast.unparse(value)
    for number in sorted({n.value for n in whole if n.value > 1}):
        with contextlib.suppress(SyntaxError):
            yield ast.parse(re.sub(rf"(?<![\w.]){number}(?![\w.])", "_n", text), mode="eval").body


def slices(body: list[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """For each value that a cell computes, at its top or in its functions: the assignments that lead to it, and it."""
    bodies = [body, *(node.body for s in body for node in ast.walk(s) if isinstance(node, ast.FunctionDef | ast.With))]
    for lines in bodies:
        for n, line in enumerate(lines):
            values = [] if isinstance(line, ast.FunctionDef | ast.ClassDef | ast.With) else [
                node for node in ast.walk(line) if isinstance(node, COMPUTED)]
            both = [each for value in values for each in (value, *_general(value))]
            for value in both:
                last = ast.Assign([ast.Name("_", ast.Store())], value, lineno=0)
                wanted, chain = used(ast.Expr(value)), []
                yield [last]
                for earlier in reversed(lines[:n]):
                    if isinstance(earlier, ast.Assign) and bound(earlier) & wanted and not _plain(earlier):
                        chain.insert(0, earlier)
                        wanted = (wanted - bound(earlier)) | used(earlier)
                        yield [*chain, last]


def _free(lines: list[ast.stmt]) -> set[str]:
    """The names that lines use before they bind them."""
    free, made = set(), set()
    for line in lines:
        free |= used(ast.Expr(line.value)) - made
        made |= bound(line)
    return free


class _TooLong(BaseException):
    pass


def _ring(*_):
    raise _TooLong


@contextlib.contextmanager
def seconds(n: float) -> Iterator[None]:
    old, collecting = signal.signal(signal.SIGALRM, _ring), gc.isenabled()
    gc.disable()  # whoever listens to it would swallow the bell
    signal.setitimer(signal.ITIMER_REAL, n)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        if collecting:
            gc.enable()


def points(e: Exercise, candidate: Candidate) -> int:
    """What the candidate earns as an answer."""
    namespace = {"__name__": "given"}
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with seconds(SECONDS):
                exec(PRELUDE + candidate.source, namespace)
                if "Your code raised" in _first(e, namespace["_given"]):
                    return 0
                return evaluate(e, namespace["_given"]).points
        except (Exception, _TooLong, SystemExit):
            return 0
        finally:
            plt.close("all")  # what a lesson's function has drawn


def _first(e: Exercise, answer: object) -> str:
    """What the first property says of it, before more time is spent."""
    one = dataclasses.replace(e, properties=e.properties[:1], points=e.properties[0].points)
    return evaluate(one, answer).outcomes[0].message


def given_away(e: Exercise, folder: Path = NOTEBOOKS) -> list[tuple[int, Candidate]]:
    """(points, candidate) of each that earns more than a quarter, most first; the first of a place."""
    if e.is_value:
        return []
    found = {}
    for candidate in candidates(e, folder):
        earned = points(e, candidate)
        if earned > SHARE * e.points and earned > found.get(candidate.where, (0, None))[0]:
            found[candidate.where] = (earned, candidate)
    return sorted(found.values(), key=lambda pair: -pair[0])


def main() -> None:
    count = 0
    for e in exercises():
        found = given_away(e)
        count += bool(found)
        for earned, candidate in found[:4]:
            print(f"{e.id:<24} {earned} of {e.points}  {candidate.where}", flush=True)
    print(f"{count} of {len(exercises())} exercises are given away.")


if __name__ == "__main__":
    main()
