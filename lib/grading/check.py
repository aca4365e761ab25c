"""Judge an answer, and tell the learner in the lesson.

`evaluate` is the pure core, the same for the lesson, the mutation tests and a judge that stands outside:
it calls the answer, which may be a function here or a handle to one elsewhere, and looks at what comes back.
"""

import hashlib
import os
import sys
from dataclasses import dataclass

import torch

from lib.course.progress import record
from lib.errors import CourseError
from lib.grading.card import card
from lib.grading.exercise import NotAttempted, Wrong, exercise
from lib.grading.properties import Guarded


@dataclass(frozen=True)
class Outcome:
    """What became of one property. crashed: the test itself failed, so a person should look."""

    name: str
    points: int
    out_of: int
    message: str = ""
    detail: str = ""
    crashed: bool = False

    @property
    def passed(self):
        return self.points == self.out_of


@dataclass(frozen=True)
class Result:
    """points of out_of, and an outcome per property, in order. attempted: it is more than the stub."""

    points: int
    out_of: int
    attempted: bool
    outcomes: tuple

    @property
    def first_failure(self):
        return next((o for o in self.outcomes if not o.passed), None)


def evaluate(exercise, answer, seed=0):
    """Judge an answer to an exercise. Prints nothing and never raises for what the answer does.

    Each property draws its inputs from a generator of its own, made from seed, exercise and property: the
    same seed gives the same inputs, whatever other properties there are.
    """
    if exercise.is_value and answer is ...:
        return nothing(exercise, "")
    if callable(answer) == exercise.is_value:
        is_what = "a function, not a value" if exercise.is_value else f"{type(answer).__name__}, not a function"
        return nothing(exercise, f"`{exercise.name}` is {is_what}. Run the answer cell.", attempted=True)
    outcomes, attempted = [], False
    for p in exercise.properties:
        start = _number(seed, exercise.id, p.name)
        with torch.random.fork_rng(devices=[]):
            # An answer that draws from the global generator is repeatable too. (torch.manual_seed would also queue
            # a call for each kind of GPU, with a stack trace, for good.)
            torch.default_generator.manual_seed(start)
            try:
                p.test(answer if exercise.is_value else Guarded(answer), torch.Generator().manual_seed(start))
                outcomes.append(Outcome(p.name, p.points, p.points))
            except NotAttempted:
                outcomes.append(Outcome(p.name, 0, p.points, "This part still raises NotImplementedError."))
                continue
            except Wrong as wrong:
                outcomes.append(Outcome(p.name, 0, p.points, wrong.message, wrong.detail))
            except Exception as error:
                message = "The check cannot make sense of what your code returned. Is it of the right type?"
                detail = f"{type(error).__name__}: {error}".split("\n")[0]
                outcomes.append(Outcome(p.name, 0, p.points, message, detail, crashed=True))
        attempted = True
    return Result(sum(o.points for o in outcomes), exercise.points, attempted, tuple(outcomes))


def nothing(exercise, message, attempted=False):
    """The result of an answer that could not be put to the test: no points, and why."""
    outcomes = tuple(Outcome(p.name, 0, p.points, message) for p in exercise.properties)
    return Result(0, exercise.points, attempted, outcomes)


def _number(*parts):
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")


# Whose answers can stand in lib's place; lib.course.own has how.
REPLACES_LIB = ("02.causal_mask", "02.attention", "03.split_heads", "03.merge_heads", "04.pre_norm_block")

_failed = {}  # tries that fell short, by exercise, in this kernel: each earns one more hint


def check(id, answer):
    """Judge the answer to exercise `id` and show what holds, what does not, and the next of three hints.

    Inputs are the same on every call and machine; the environment variable COURSE_CHECK_SEED draws others.
    What was attempted is written down for `course progress`, on this machine alone.
    Never raises. Returns None; only where nbgrader executes the notebook does it return the points, which is
    how nbgrader learns of partial credit.
    """
    try:
        e = exercise(id)
    except CourseError as error:
        print(error)
        return None
    result = evaluate(e, answer, os.environ.get("COURSE_CHECK_SEED", 0))
    if result.attempted and result.points < result.out_of:
        _failed[id] = min(_failed.get(id, 0) + 1, 3)
    _show(e, result, _failed.get(id, 0))
    if "NBGRADER_EXECUTION" in os.environ:  # somebody grades somebody else's
        return result.points
    if id in REPLACES_LIB and result.points == result.out_of and _in_notebook():
        print(f'Later lessons can run on it in place of lib\'s: from lib.course import use; use("{id}")')
    if result.attempted:
        record(id, result.points, result.out_of)
    return None


def _in_notebook():
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def _show(exercise, result, hints):
    if _in_notebook():
        from IPython.display import display

        display(shown(exercise, result, hints), raw=True)
    else:
        print(report(exercise, result, hints))


def shown(exercise, result, hints=0):
    """A result as a notebook keeps it: the card, and the plain text for what shows no HTML."""
    return {"text/html": card(exercise, result, hints), "text/plain": report(exercise, result, hints)}


def report(exercise, result, hints=0):
    """A result as plain text, and the last of so many hints where it falls short."""
    if not result.attempted:
        return (f"{exercise.id}: not attempted yet ({_points(exercise.points)}). "
                "Write your answer in the cell above, run it, then run this cell.")
    lines = [f"{exercise.id}: {result.points} of {_points(result.out_of)}"]
    for o in result.outcomes:
        lines.append(f"  {'pass' if o.passed else 'FAIL'}  {o.points}/{o.out_of}  {o.name}")
        if o is result.first_failure:
            lines.append(f"        {o.message}")
            if o.detail:
                lines.append(f"        ({o.detail})")
    if result.points == result.out_of:
        lines.append("Full marks. It holds everywhere we looked: well done.")
    elif hints:
        lines.append(_hint(exercise, hints))
    return "\n".join(lines)


def hint(id, n=1):
    """Print the n-th of an exercise's three hints. Never raises."""
    try:
        e = exercise(id)
    except CourseError as error:
        print(error)
        return
    if n not in (1, 2, 3):
        print(f"There are three hints; ask for hint({id!r}, 1), 2 or 3.")
        return
    print(_hint(e, n))


def _hint(exercise, n):
    return f"Hint {n} of 3: {exercise.hints[n - 1]}"


def _points(n):
    return f"{n} point" if n == 1 else f"{n} points"
