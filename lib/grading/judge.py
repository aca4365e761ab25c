"""Judge one submission: each answer in a sandbox of its own, each verdict out here."""

import faulthandler
import functools
import os
import time

from lib.exercises.closure import unreadable
from lib.exercises.exercise import Exercise, exercises
from lib.exercises.result import evaluate, nothing
from lib.grading.grades import Flag, Grade, Report
from lib.grading.held import held, version
from lib.grading.helper import Helper
from lib.grading.reading import Cell
from lib.grading.rules import broken, noted, suspicious, taken
from lib.grading.sandbox import HandsOver, RemoteAnswer, Sandbox
from lib.grading.submission import answer

TRIES = 3  # for an exercise whose sandbox died
SLACK = 60.0  # seconds beyond an answer's limit before this process is held to hang over it
HANDING: set[str] = set()  # exercises that were found to hand functions of ours to an answer


def judge(
    cells: tuple[Cell, ...],
    learner: str,
    lesson: str,
    path: str,
    digest: str,
    sandbox: Sandbox,
    seed: int | str,
    only: frozenset[str] | None = None,
    rules_cost: bool = False,
    helper: Helper | None = None,
    careful: bool = False,
) -> Report:
    """The report on one lesson of a notebook.

    seed: hidden inputs are drawn from it; the same seed gives the same verdict. only: the exercises to judge (None:
    all of the lesson's). rules_cost: an answer that uses what its exercise forbids earns nothing. helper: where checks
    that hand out functions of ours run, under limits (None: here); careful: all of them.
    """
    began = time.monotonic()
    grades, flags = [], []
    sandbox.limited = helper is None
    for exercise in exercises(lesson):
        if only is None or exercise.id in only:
            grade, found = _limited(cells, exercise, sandbox, seed, rules_cost, helper, careful)
            grades.append(grade)
            flags += found
    seconds = time.monotonic() - began
    return Report(learner, lesson, path, digest, seed, sandbox.isolated, seconds, tuple(grades), tuple(flags))


def _limited(
    cells: tuple[Cell, ...], exercise: Exercise, sandbox: Sandbox, seed: int | str, rules_cost: bool,
    helper: Helper | None, careful: bool,
) -> tuple[Grade, list[Flag]]:  # fmt: skip
    """Judge an exercise here, with an end to it whatever happens, or in the helper."""
    if helper is None:
        return _grade(cells, exercise, sandbox, seed, rules_cost)
    if not careful and exercise.id not in HANDING:
        # Not even a loop in C lasts: the process ends, and whoever waits for it has the submission judged carefully.
        faulthandler.dump_traceback_later(sandbox.limits.wall + SLACK, exit=True, file=_nowhere())
        try:
            return _grade(cells, exercise, sandbox, seed, rules_cost)
        except HandsOver:
            HANDING.add(exercise.id)
        finally:
            faulthandler.cancel_dump_traceback_later()
    judged, why = helper.run(sandbox, lambda lent: _grade(cells, exercise, lent, seed, rules_cost))
    if judged is None:
        result = nothing(exercise, why, attempted=True)
        flags = [Flag(exercise.id, why)]
        grade = Grade(exercise.id, version(exercise), 0, exercise.points, True, result.outcomes, why)
        return grade, flags
    return judged


@functools.cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _grade(
    cells: tuple[Cell, ...], exercise: Exercise, sandbox: Sandbox, seed: int | str, rules_cost: bool
) -> tuple[Grade, list[Flag]]:
    found = answer(cells, exercise)
    flags = [Flag(exercise.id, note) for note in found.notes]
    problem = found.problem
    unread = next(filter(None, map(unreadable, (found.code.source, *found.code.helpers))), "") if found.code else ""
    if found.code is None:
        result = nothing(exercise, problem)
    elif unread:  # and so it is not run
        problem = f"Its code was not run: {unread}."
        result = nothing(exercise, problem, attempted=True)
        flags.append(Flag(exercise.id, f"was not run: {unread}"))
    else:
        forbidden = broken(exercise, found.code.source, found.code.helpers)
        flags += suspicious(exercise, found.code.source)
        result = None
        if not _barred(forbidden, rules_cost):
            for _ in range(TRIES):
                with sandbox.load(found.code, exercise.ready, _operations(exercise)) as remote:
                    result = _evaluate(exercise, remote, seed)
                problem = remote.problem
                if not remote.lost:
                    break  # else the sandbox itself was ended from outside: nothing is the answer's fault
            forbidden = _once(forbidden, noted(exercise, remote.uses))
        flags = forbidden + flags
        if barred := _barred(forbidden, rules_cost):  # seen in the code, or as it ran
            problem = f"It {barred.what}."
            result = nothing(exercise, problem, attempted=True)
    for outcome in result.outcomes:
        if outcome.crashed:
            flags.append(Flag(exercise.id, f"the check {outcome.name!r} stumbled over the answer"))
    grade = Grade(
        exercise.id, version(exercise), result.points, exercise.points, result.attempted, result.outcomes, problem
    )
    return grade, flags


def _barred(forbidden: list[Flag], rules_cost: bool) -> Flag | None:
    """The flag for which an answer earns nothing: it is the library's own, or the rules are to cost points."""
    return next(filter(taken, forbidden), forbidden[0] if forbidden and rules_cost else None)


def _operations(exercise: Exercise) -> tuple[str, ...]:
    """PyTorch's own operations that an answer should not call: those forbidden, and the one of its name."""
    return (*exercise.forbidden, exercise.name) if exercise.forbidden else ()


def _once(read: list[Flag], seen: list[Flag]) -> list[Flag]:
    """What was read in the code, and what was seen as it ran and stands in no line of the first."""
    lines = {flag.line for flag in read}
    return read + [flag for flag in seen if flag.line is None or flag.line not in lines]


def _evaluate(exercise: Exercise, remote: RemoteAnswer, seed: int):
    if remote.problem:  # gone while its cell was running
        return nothing(exercise, remote.problem, attempted=True)
    if not remote.defined:
        error = remote.error
        if error is None:
            return nothing(exercise, f"The answer's cell does not define `{exercise.name}`.", attempted=True)
        where = f" in line {error.line}" if error.line else ""
        return nothing(exercise, f"The answer's cell does not run: {error.kind}{where}: {error.text}", attempted=True)
    return evaluate(exercise, remote if remote.callable else remote.value, seed, held(exercise))
