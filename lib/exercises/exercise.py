"""An exercise as data: one definition serves the lesson's check, the judge, the mutation tests and feedback.

The exercises of lesson NN are the list EXERCISES in `lib/exercises/lNN.py`. Their references and
mutants live apart, in `lib/answers/`, which a learner's copy does not carry.
"""

import ast
import difflib
import functools
import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass

import lib.exercises as exercises_package
from lib.errors import CourseError
from lib.exercises import properties
from lib.exercises.as_ipython import parse
from lib.exercises.closure import bound, digest, remembered

# What an answer may use without importing it. The lesson has; whoever runs an answer alone runs this first.
PRELUDE = "import math\n\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"

ID = re.compile(r"(\d\d)\.([a-z][a-z0-9_]*)")


@dataclass(frozen=True)
class Property:
    """One thing that must hold. `test(answer, rng)` calls the answer and raises Wrong if it does not.

    proof: whether it takes the idea to pass. It does not where the inputs are the same each time, so that a table of
    results would do, or where only the form of the result counts. Such a one earns beside one that is proof
    (lib.exercises.result).
    """

    name: str
    points: int
    test: Callable
    proof: bool = True


@dataclass(frozen=True)
class Exercise:
    """What a learner is asked, and how the answer is judged.

    id: lesson and short name, "02.causal_mask". points: the sum over the properties. minutes: a newcomer's.
    stub: the source of the answer cell, which defines `name` (by default the id's second part): a function or a
    class that raises a bare NotImplementedError, or, where the answer is a value, `name = ...`. hints: three, from a
    nudge to nearly the answer. forbidden: names an answer should not use, because they are the exercise; a grader
    shows them to a person. ready: dotted names of what does the same, or nearly, ready made in lib and PyTorch; a
    grader sees whether they are called. bench: a function, self-contained but for the PRELUDE, that takes the answer
    and returns what the properties call in its place, with plain values only. It runs where the answer does, and makes
    there what cannot travel to it: a model, an optimizer, a generator of random numbers.
    """

    id: str
    title: str
    points: int
    difficulty: int
    minutes: int
    prompt: str
    stub: str
    properties: tuple
    hints: tuple
    name: str = ""
    forbidden: tuple = ()
    ready: tuple = ()
    bench: Callable | None = None

    def __post_init__(self):
        object.__setattr__(self, "properties", tuple(self.properties))
        object.__setattr__(self, "hints", tuple(self.hints))
        object.__setattr__(self, "prompt", self.prompt.strip())
        object.__setattr__(self, "stub", self.stub.strip())
        if not ID.fullmatch(self.id):
            self._reject("an id is two digits, a dot and a lower-case name")
        if not self.name:
            object.__setattr__(self, "name", self.id.split(".")[1])
        names = [p.name for p in self.properties]
        if len(set(names)) != len(names):
            self._reject("two properties have the same name")
        if any(p.points < 1 for p in self.properties):
            self._reject("every property is worth at least one point")
        if self.points != sum(p.points for p in self.properties):
            self._reject(f"states {self.points} points, its properties add up to "
                         f"{sum(p.points for p in self.properties)}")
        if len(self.hints) != 3 or not all(isinstance(h, str) and h.strip() for h in self.hints):
            self._reject("needs exactly three hints")
        if self.difficulty not in (1, 2, 3):
            self._reject("difficulty is 1, 2 or 3")
        if self.minutes < 1:
            self._reject("minutes is how long a newcomer needs, at least 1")
        if not self.title.strip() or not self.prompt:
            self._reject("needs a title and a prompt")
        if not defines(self.stub, self.name):
            self._reject(f"the stub must define {self.name}")
        if not unsolved(self.stub):
            self._reject("the stub must raise a bare NotImplementedError, or be `name = ...`")

    def _reject(self, why):
        raise CourseError(f"exercise {self.id}: {why}")

    @property
    def lesson(self):
        return self.id[:2]

    @functools.cached_property
    def is_value(self):
        """Whether the answer is a value, such as a letter or a number, and not a function or a class."""
        return not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(self.stub).body)

    def on_bench(self, answer):
        """What the properties call: the answer itself, or what its bench makes of it."""
        return self.bench(answer) if self.bench and callable(answer) else answer

    @functools.cached_property
    def bench_source(self):
        """Source that puts the answer on its bench, where both run; "" without one."""
        if self.bench is None:
            return ""
        put = f"{self.name} = {self.bench.__name__}({self.name})"
        return f"{inspect.getsource(self.bench)}\n\n{put}\n"

    @functools.cached_property
    def version(self):
        """Changes when what the answer is held against does: an exercise that was mended is graded anew."""
        parts = [self.id, self.name, digest(inspect.getsource(properties), None)]
        parts += [self.bench_source] if self.bench else []
        for p in self.properties:
            source = inspect.getsource(inspect.getmodule(p.test))
            parts += [p.name, p.points, p.proof, digest(source, {p.test.__name__})]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def defines(source, name):
    """Whether Python source gives `name` a meaning of its own at its top level; to import it does not count."""
    return any(name in bound(s) for s in parse(source) if not isinstance(s, ast.Import | ast.ImportFrom))


def unsolved(source):
    """Whether an answer's source still has its stub: a function that does nothing, or a name set to `...`."""
    return any(stub(statement) for statement in parse(source))


@remembered
def stub(statement):
    """Whether a definition only holds a place: docstring, `raise NotImplementedError`, `...` or `pass`, and no more."""
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, ast.Constant) and statement.value.value is ...
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return all(map(_empty, statement.body))
    if isinstance(statement, ast.ClassDef):
        methods = [s for s in statement.body if isinstance(s, ast.FunctionDef)]
        return bool(methods) and all(stub(s) if s in methods else _empty(s) for s in statement.body)
    return False


def _empty(statement):
    if isinstance(statement, ast.Raise):
        exc = statement.exc
        exc = exc.func if isinstance(exc, ast.Call) and not exc.args else exc
        return isinstance(exc, ast.Name) and exc.id == "NotImplementedError"
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass) or (constant and isinstance(statement.value.value, str | type(...)))


def lessons():
    """The lessons that have exercises: ("00", "01", ...)."""
    names = (module.name for module in pkgutil.iter_modules(exercises_package.__path__))
    return tuple(sorted(name[1:] for name in names if re.fullmatch(r"l\d\d", name)))


@functools.cache
def _of_lesson(lesson):
    if lesson not in lessons():
        return ()
    found = tuple(importlib.import_module(f"lib.exercises.l{lesson}").EXERCISES)
    for e in found:
        if e.lesson != lesson:
            raise CourseError(f"exercise {e.id}: it is listed under lesson {lesson}")
    for what in ("id", "name"):  # two answers of one name would overwrite each other in the notebook
        values = [getattr(e, what) for e in found]
        for value in values:
            if values.count(value) > 1:
                raise CourseError(f"lesson {lesson}: two exercises have the {what} {value}")
    return found


def exercises(lesson=None):
    """The exercises of one lesson ("02"), or of all, in order. A lesson with none gives ()."""
    if lesson is None:
        return tuple(e for each in lessons() for e in _of_lesson(each))
    if not re.fullmatch(r"\d\d", str(lesson)):
        raise CourseError(f"no lesson {lesson!r}; write a lesson's number with two digits, such as 02")
    return _of_lesson(lesson)


def exercise(id):
    """The exercise of that id. Raises CourseError with the nearest id."""
    for e in _of_lesson(str(id)[:2]):
        if e.id == id:
            return e
    known = [e.id for e in exercises()]
    near = difflib.get_close_matches(str(id), known, n=1, cutoff=0)
    raise CourseError(f"no exercise {id!r}; did you mean {near[0]}?" if near else f"no exercise {id!r}")
