"""References and mutants: what instructors and tests know, and a learner's copy of the course does not carry.

The answers of lesson NN are the dictionary ANSWERS, {exercise id: Answer}, in `lib/answers/aNN.py`.
A mutant is the reference with one piece of text replaced: a classic wrong answer, with a fragment of the
message that names it. Only tests and tools import this package.
"""

import ast
import functools
import importlib
import inspect
import linecache
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from lib.errors import CourseError
from lib.exercises.exercise import PRELUDE, defines, exercise


@dataclass(frozen=True)
class Mutant:
    """The reference with `old`, which occurs once, replaced by `new`; the first message contains `says`."""

    name: str
    old: str
    new: str
    says: str


@dataclass(frozen=True)
class Answer:
    """reference: a function (its source is read) or a source string; self-contained but for the PRELUDE."""

    reference: Callable | str
    mutants: tuple

    def mutant(self, name):
        return next(m for m in self.mutants if m.name == name)


@functools.cache
def answers(lesson):
    """{exercise id: Answer} of a lesson; {} where the lesson has none."""
    try:
        return dict(importlib.import_module(f"lib.answers.a{lesson}").ANSWERS)
    except ModuleNotFoundError as error:
        if error.name != f"lib.answers.a{lesson}":
            raise
        return {}


def answer(id):
    """The Answer to an exercise. Raises CourseError where there is none."""
    e = exercise(id)
    if id not in answers(e.lesson):
        raise CourseError(f"exercise {id} has no answer; add one to lib/answers/a{e.lesson}.py")
    return answers(e.lesson)[id]


def reference_source(id):
    """The source of the reference, as a learner would have typed it into the answer cell."""
    reference = answer(id).reference
    source = reference if isinstance(reference, str) else inspect.getsource(reference)
    source = textwrap.dedent(source).strip() + "\n"
    if not defines(source, exercise(id).name):
        raise CourseError(f"exercise {id}: the reference must define {exercise(id).name}")
    return source


def mutant_source(id, name):
    """The source of one mutant. Raises CourseError unless it is a different, well-formed program."""
    source, mutant = reference_source(id), answer(id).mutant(name)
    times = source.count(mutant.old)
    if times != 1:
        raise CourseError(f"exercise {id}, mutant {name!r}: {mutant.old!r} must occur once in the reference; "
                          f"it occurs {times} times")
    changed = source.replace(mutant.old, mutant.new)
    try:
        same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
    except SyntaxError as error:
        why = f"not Python: {error.msg}, line {error.lineno}"
        raise CourseError(f"exercise {id}, mutant {name!r}: {why}") from error
    if same:
        raise CourseError(f"exercise {id}, mutant {name!r}: it is the reference")
    return changed


def load(source, name):
    """Run source of ours after the PRELUDE, in a fresh namespace, and return what it calls `name`."""
    file = f"<{name}>"
    # Known to linecache, so that messages can quote the line.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = {"__name__": "answer"}
    exec(PRELUDE, namespace)
    exec(compile(source, file, "exec"), namespace)
    return namespace[name]
