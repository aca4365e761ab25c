"""Check an answer in the lesson, and tell the learner: what holds, what does not, and the next hint."""

import os
import sys

from lib.errors import CourseError
from lib.exercises.exercise import exercise
from lib.exercises.result import evaluate
from lib.exercises.standing import standing_alone
from lib.lesson.card import card
from lib.lesson.handmade import parts
from lib.lesson.journal import record
from lib.lesson.kept import NAMES

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
    if id in NAMES and result.points == result.out_of and _in_notebook():
        print(f'Later lessons can run on it in place of lib\'s: from lib.lesson import use; use("{id}")')
    if id in parts.IDS and result.points == result.out_of and _in_notebook():
        _join(e)
    if result.attempted:
        record(id, result.points, result.out_of)
    return None


def _join(exercise):
    """Make a passed answer a part of the learner's own transformer, and say how far that is."""
    cells = getattr(sys.modules["IPython"].get_ipython(), "user_ns", {}).get("In", ())
    if source := standing_alone([(cell, "") for cell in cells], exercise):
        try:
            parts.keep(exercise.id, source)
            print(parts.standing())
        except CourseError as problem:
            print(f"({problem})")


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
        mark = "pass" if o.passed else "held" if o.withheld else "FAIL"
        lines.append(f"  {mark}  {o.points}/{o.out_of}  {o.name}")
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
