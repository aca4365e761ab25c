"""What a notebook gives as the answer to an exercise: what stood when the exercise's check ran.

The notebook is read as a run from top to bottom would leave it, up to the last cell that calls the check; nothing is
run here. What is bound again below changes nothing. The same for the grader and for `course use`.
"""

import ast
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.exercises.as_ipython import error, parse, plain, unreadable
from lib.exercises.closure import bound, nodes, unparsed
from lib.exercises.exercise import Exercise, stub
from lib.exercises.reach import Program, Reach, lean, now, surely, touched

GRADE_ID = re.compile(r"(\d\d)-([a-z][a-z0-9_]*)(-prompt|-check)?")

LATE = -1  # the number of the cell of statements that ran before all, although they stand below the check
VALUE = ast.Tuple | ast.List | ast.ListComp | ast.Dict | ast.DictComp | ast.Set | ast.Constant | ast.BinOp
MOST_LATE = 9  # steps in the search for them


def place(grade_id: str) -> tuple[str, str] | None:
    """(exercise id, role) that a grade_id names; None for any other."""
    match = GRADE_ID.fullmatch(grade_id)
    return (f"{match[1]}.{match[2]}", (match[3] or "-answer")[1:]) if match else None


@dataclass(frozen=True)
class Code:
    """What a sandbox runs: helpers, each by itself, then the cell that defines `name`, then what came after it.

    loose: lines of the cell where statements begin that the answer does without; they may fail. fresh: nothing of that
    name may be left from the helpers.
    """

    name: str
    source: str
    helpers: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    loose: tuple[int, ...] = ()
    fresh: bool = True


@dataclass(frozen=True)
class Answer:
    """The code of one answer; None if there is nothing to run. notes: what is unusual about where it stood.

    reached: the statements that the answer needs, each with whether it is of the cell that defines it. missing: names
    that it needs and nothing gives. attempted: there is something, even if it cannot be run.
    """

    code: Code | None
    notes: tuple[str, ...] = ()
    problem: str = ""
    reached: tuple[tuple[ast.stmt, bool], ...] = ()
    missing: tuple[str, ...] = ()
    attempted: bool = False


def answer(cells: Sequence[tuple[str, str]], exercise: Exercise, ours: Callable[[], frozenset] = frozenset) -> Answer:
    """What the code cells of a notebook, (source, grade_id) each, give as the answer to an exercise.

    ours: the sources of the lesson's own cells, which are nobody's answer.
    """
    return _Notebook(cells, exercise, ours).answer()


@dataclass(frozen=True)
class _At:
    """A statement and where it stands: cell number, number in the cell."""

    node: ast.stmt
    cell: int
    number: int


@functools.lru_cache(maxsize=1)  # asked about for each exercise of a lesson
def _read(cells: tuple[tuple[str, str], ...]) -> tuple[list[list[ast.stmt]], list[tuple[_At, str]]]:
    """The cells' statements; and all of them, each with the one exercise for which it counts ("" for any)."""
    parsed, found = [parse(source) for source, _ in cells], []
    for i, (body, (_, grade_id)) in enumerate(zip(parsed, cells, strict=True)):
        at = place(grade_id)
        for n, node in enumerate(body):
            others = at and (at[1] != "answer" or _left(node, at[0]))
            found.append((_At(node, i, n), at[0] if others else ""))
    return parsed, found


class _Notebook:
    def __init__(self, cells: Sequence[tuple[str, str]], exercise: Exercise, ours: Callable[[], frozenset]):
        self.cells, self.exercise, self.name, self.ours = cells, exercise, exercise.name, ours
        key = exercise.id.replace(".", "-")
        self.places = [place(grade_id) for _, grade_id in cells]
        self.own = [i for i, (_, grade_id) in enumerate(cells) if grade_id == key]
        self.checks = [i for i, (_, grade_id) in enumerate(cells) if grade_id == f"{key}-check"]
        self.parsed, self.all = _read(tuple(map(tuple, cells)))
        self.below = False  # the answer stands below its check
        self.late: list[str] = []  # names that the answer needs and only cells below its check give
        # A cell of another exercise is where this answer stands only if its own says nothing.
        self.silent = all(not self.parsed[i] and _only_comments(cells[i][0]) for i in self.own)

    def answer(self) -> Answer:
        cell, number, what = self._check()
        everything = self.statements
        upto = [s for s in everything if (s.cell, s.number) < (cell, number)]
        if what is not None and not (isinstance(what, ast.Name) and what.id == self.name):
            given = ast.Assign([ast.copy_location(ast.Name(self.name, ast.Store()), what)], what)
            upto.append(_At(ast.copy_location(given, what), cell, number))
        found = self._stands(upto)
        if found is None:  # nothing there yet: then what there is at all, as where the check was moved up
            last = [s for s in everything if self._gives(s) and (s.cell in self.own or not self.own)]
            end = (last[-1].cell, len(self.parsed[last[-1].cell])) if last else (-1, 0)
            upto = [s for s in everything if (s.cell, s.number) < end]
            found = self._stands(upto) if last else None
            self.below = found is not None and self.own != []
        if found is None:
            return self._nothing()
        return self._code(*found, end=(cell, number))

    # --- where the check is ---

    def _check(self) -> tuple[int, int, ast.expr | None]:
        """Cell and statement that call the check last, and what is handed to it: the answer, if any call has that."""
        calls = []
        for i, (source, _) in enumerate(self.cells):
            if self.exercise.id in source and "check" in source:
                for n, statement in enumerate(self.parsed[i]):
                    calls += [(i, n, what) for what in _checked(statement, self.exercise.id)]
        mine = [call for call in calls if isinstance(call[2], ast.Name) and call[2].id == self.name]
        if mine and not any(self.name in surely(s.node) for s in self.statements):
            mine, calls = [], [call for call in calls if call not in mine]  # nothing has that name: no check ran
        if mine or calls:
            return (mine or calls)[-1]
        if self.checks:
            return self.checks[-1], 0, None
        solved = [i for i in self.own if not all(map(stub, self.parsed[i]))]
        return (solved or self.own or [len(self.cells) - 1])[-1] + 1, 0, None

    # --- what stands there ---

    @functools.cached_property
    def statements(self) -> list[_At]:
        """All statements that count: no check of the lesson's, no stub of another exercise."""
        name, id = self.name, self.exercise.id
        return [
            s for s, owner in self.all
            if owner in ("", id) and (name not in touched(s.node) or self._may_give(s.node, s.cell))
        ]  # fmt: skip

    def _may_give(self, node: ast.stmt, cell: int) -> bool:
        """Whether a statement that gives the name a meaning can be an answer's."""
        if self.name in bound(node) and isinstance(node, ast.Import | ast.ImportFrom):
            return False  # the course's version, or nobody's
        at = self.places[cell]
        if at is None:
            return self.cells[cell][0].strip() not in self.ours()
        return at[0] == self.exercise.id or (at[1] == "answer" and self.silent)

    def _gives(self, s: _At) -> bool:
        return self.name in touched(s.node) and self.name in surely(s.node) and not stub(s.node)

    def _stands(self, upto: list[_At]) -> tuple[list[_At], Reach] | None:
        """The program without stubs that give way, and what the name reaches in it; None if there is no answer."""
        solved_before = False
        program = []
        for s in upto:
            mine = self.name in touched(s.node)
            if mine and stub(s.node):
                if solved_before and s.cell in self.own:
                    continue  # a copy of the stub below an answer gives way to it
                solved_before = False
            elif mine:
                solved_before = s.cell in self.own
            program.append(s)
        if all(stub(s.node) for s in program if self.name in touched(s.node)):
            return None
        found = Program([s.node for s in program]).reach(self.name)
        givers = [program[i] for i in found.chosen if self.name in touched(program[i].node)]
        if not givers or all(stub(s.node) for s in givers):
            return None
        return self._with_later(program, found)

    def _with_later(self, program: list[_At], found: Reach) -> tuple[list[_At], Reach]:
        """What no cell above the check gives is taken from below it: somebody has run those cells first."""
        if lists := self._called_lists(program, found):  # a lesson's list of the name of somebody's function
            program = [s for s in program if not touched(s.node) & lists]
            found = Program([s.node for s in program]).reach(self.name)
        used = {id(s.node) for s in program}
        rest = [s for s in self.statements if id(s.node) not in used and self.name not in touched(s.node)]
        late: set[int] = set()
        for _ in range(MOST_LATE):
            new = {n for n, s in enumerate(rest) if n not in late and touched(s.node) & found.missing}
            if not new:
                break
            late |= new
            first = [_At(rest[n].node, LATE, n) for n in sorted(late)]
            found = Program([s.node for s in [*first, *program]]).reach(self.name)
        if not late:
            return program, found
        self.late = sorted({name for n in late for name in surely(rest[n].node)} & found.names)
        return [*(_At(rest[n].node, LATE, n) for n in sorted(late)), *program], found

    def _called_lists(self, program: list[_At], found: Reach) -> set[str]:
        """Names that the answer calls, that only values have which cannot be called, and that a function below has."""
        chosen = [program[i].node for i in found.chosen]
        below = {s.name for body in self.parsed for s in body if isinstance(s, ast.FunctionDef)} - {self.name}
        lists = {name for name in below & found.names
                 if (givers := [s for s in chosen if name in surely(s)])
                 and all(isinstance(s, ast.Assign) and isinstance(s.value, VALUE) for s in givers)}  # fmt: skip
        if lists:
            called = [n.func for s in chosen for n in nodes(s) if isinstance(n, ast.Call)]
            lists &= {f.id for f in called if isinstance(f, ast.Name)}
        return lists

    def _nothing(self) -> Answer:
        """What to say where no answer stands."""
        if not self.own:
            return Answer(None, problem="There is no cell for this answer in the notebook.")
        for i in reversed(self.own):
            source = self.cells[i][0]
            if why := error(source):
                return Answer(None, problem=f"The answer's cell does not run: {why}", attempted=True)
            if why := unreadable(source):
                return Answer(None, problem=f"Its code was not run: {why}.", attempted=True)
            if self.parsed[i] and not all(map(stub, self.parsed[i])) and not _as_given(self.parsed[i], self.exercise):
                names = {name for s in ast.walk(ast.Module(self.parsed[i], [])) for name in _imported(s)}
                if names & {self.name, "*"}:  # somebody else's, and so no answer
                    why = f"The answer's cell does not define `{self.name}`: it imports it."
                    return Answer(None, problem=why, attempted=True)
                if not any(stub(s) and self.name in touched(s) for s in self.parsed[i]):
                    return Answer(Code(self.name, plain(source)), reached=tuple((s, True) for s in self.parsed[i]))
        return Answer(None)

    def _code(self, program: list[_At], found: Reach, end: tuple[int, int]) -> Answer:
        chosen = [program[i] for i in found.chosen]
        givers = [s for s in chosen if self.name in touched(s.node)]
        anew = [s for s in givers if self.name in surely(s.node) and self.name not in now(s.node)]
        main = (anew or givers)[-1]
        made_up = self._made_up(main)
        if made_up and isinstance(main.node.value, ast.Name):  # the check was handed another name
            given, imported = main.node.value.id, ast.Import | ast.ImportFrom
            theirs = [s for s in chosen if given in surely(s.node) and not isinstance(s.node, imported)]
            main, made_up = (theirs[-1], False) if theirs else (main, True)
        if made_up:
            source, loose = f"{unparsed(main.node)}\n", ()
        else:
            source = self._upto(plain(self.cells[main.cell][0]), main.cell, end)
            kept = {s.number for s in chosen if s.cell == main.cell and not self._made_up(s)}
            strict = {self.parsed[main.cell][n].lineno for n in kept}
            loose = tuple(s.lineno for s in self.parsed[main.cell] if s.lineno not in strict)
        rest = [s for s in chosen if (made_up and s is not main) or s.cell != main.cell or self._made_up(s)]
        above = [made_up or (s.cell, s.number) < (main.cell, 0) for s in rest]
        before = [s for s, first in zip(rest, above, strict=True) if first]
        after = [s for s, first in zip(rest, above, strict=True) if not first]
        copies = [i for i in self.own if i <= end[0] and any(self.name in touched(s) for s in self.parsed[i])]
        notes = ("several cells have this exercise's id",) if len(copies) > 1 else ()
        notes += () if main.cell in self.own or made_up else ("the answer stands in a cell of its own",)
        notes += ("the answer stands below its check",) if self.below else ()
        notes += tuple(f"needs `{name}`, which only a cell below its check defines" for name in self.late[:5])
        if not found.whole:
            notes += ("it is too tangled to find all that it needs",)
        futures = [unparsed(s.node) for s in program if isinstance(s.node, ast.ImportFrom)
                   and s.node.module == "__future__" and s not in chosen]  # fmt: skip
        code = Code(
            self.name, source, tuple(dict.fromkeys(futures)) + _texts(before), _texts(after), loose,
            fresh=not any(self.name in touched(s.node) for s in before),
        )  # fmt: skip
        reached = tuple((s.node, not made_up and s.cell == main.cell) for s in chosen)
        return Answer(code, notes, reached=reached, missing=tuple(sorted(found.missing)))

    def _made_up(self, s: _At) -> bool:
        body = self.parsed[s.cell] if s.cell != LATE else [s.node] * (s.number + 1)
        return s.number >= len(body) or body[s.number] is not s.node

    def _upto(self, source: str, cell: int, end: tuple[int, int]) -> str:
        """The cell's source down to where the check is called, if it is called in it."""
        if cell != end[0] or end[1] >= len(self.parsed[cell]):
            return source
        return "\n".join(source.split("\n")[: self.parsed[cell][end[1]].lineno - 1])


def _left(node: ast.stmt, id: str) -> bool:
    """Whether a statement is the stub of that exercise, left as it was."""
    return stub(node) and id[3:] in {name.lower() for name in bound(node)}


def _texts(statements: list[_At]) -> tuple[str, ...]:
    return tuple(filter(None, (unparsed(lean(s.node)) for s in statements)))


def _checked(statement: ast.stmt, id: str) -> list[ast.expr]:
    """What a statement hands to the check of an exercise."""
    found = []
    for node in nodes(statement):
        if isinstance(node, ast.Call) and "check" in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
            given = [*node.args, *(k.value for k in node.keywords)]
            if len(given) == 2 and isinstance(given[0], ast.Constant) and given[0].value == id:
                found.append(given[1])
    return found


def _imported(node: ast.AST) -> set[str]:
    return bound(node) if isinstance(node, ast.Import | ast.ImportFrom) else set()


def _only_comments(source: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())


def _as_given(body: list[ast.stmt], exercise: Exercise) -> bool:
    """The stub but for spaces and comments."""
    try:
        return [ast.dump(s) for s in body] == [ast.dump(s) for s in parse(exercise.stub)]
    except (RecursionError, ValueError):  # deeper than any stub, or a number too long to print
        return False


def standing_alone(cells: Sequence[tuple[str, str]], exercise: Exercise) -> str:
    """An answer as a program by itself; "" if there is none."""
    code = answer(cells, exercise).code
    if code is None:
        return ""
    lines, body = code.source.split("\n"), parse(code.source)
    strict = {s.lineno for s in body} - {*code.loose}
    for s in body:
        if s.lineno in code.loose and strict.isdisjoint(range(s.lineno, s.end_lineno + 1)):
            first = min([s.lineno, *(d.lineno for d in getattr(s, "decorator_list", ()))])
            lines[first - 1 : s.end_lineno] = [""] * (s.end_lineno - first + 1)
    return "\n\n".join([*code.helpers, "\n".join(lines).strip(), *code.after]) + "\n"
