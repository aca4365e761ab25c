"""Judge one submission: each answer in a sandbox of its own, each verdict out here."""

import dataclasses
import faulthandler
import functools
import os
import time
from collections.abc import Sequence

from lib.exercises.as_ipython import parse, unreadable
from lib.exercises.exercise import Exercise, exercises
from lib.exercises.reach import surely
from lib.exercises.result import evaluate, nothing
from lib.exercises.standing import Answer
from lib.grading.grades import Flag, Grade, Report
from lib.grading.held import held, version
from lib.grading.helper import Helper
from lib.grading.reading import Cell
from lib.grading.rules import broken, handed_on, noted, suspicious, taken
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
        result = nothing(exercise, problem, attempted=found.attempted)
        if found.attempted and (why := problem.partition("was not run: ")[2]):
            flags.append(Flag(exercise.id, f"was not run: {why}"))
    elif unread:  # and so it is not run
        problem = f"Its code was not run: {unread}."
        result = nothing(exercise, problem, attempted=True)
        flags.append(Flag(exercise.id, f"was not run: {unread}"))
    else:
        forbidden = broken(exercise, found.reached)
        for text in (found.code.source, *found.code.after):
            flags += suspicious(exercise, text)
        result = None
        barred = _barred(exercise, found, forbidden, rules_cost)
        if not barred:
            code = found.code
            if exercise.bench:
                code = dataclasses.replace(code, after=(*code.after, exercise.bench_source))
            for _ in range(TRIES):
                with sandbox.load(code, exercise.ready, _operations(exercise)) as remote:
                    result = _evaluate(exercise, remote, seed)
                problem = remote.problem
                if not remote.lost:
                    break  # else the sandbox itself was ended from outside: nothing is the answer's fault
            if result.points < result.out_of:
                flags += [Flag(exercise.id, what) for what in _lacking(found, remote)]
            if remote.stopped:
                line, why = remote.stopped
                what = f"what its cell holds below line {line}, which fails here ({why}), may never have run"
                flags.append(Flag(exercise.id, what))
            seen = noted(exercise, remote.uses)
            barred = _barred(exercise, found, forbidden, rules_cost, seen)
            forbidden = _once(forbidden, seen)
        flags = forbidden + flags
        if barred:
            problem = barred
            result = nothing(exercise, problem, attempted=True)
    for outcome in result.outcomes:
        if outcome.crashed:
            flags.append(Flag(exercise.id, f"the check {outcome.name!r} stumbled over the answer"))
    grade = Grade(
        exercise.id, version(exercise), result.points, exercise.points, result.attempted, result.outcomes, problem
    )
    return grade, flags


def _lacking(found: Answer, remote: RemoteAnswer) -> list[str]:
    """What the answer needs and did not have, by name."""
    said = [f"needs `{name}`, which no cell above its check defines" for name in found.missing[:5]]
    for number, why in remote.failed[:5]:
        names = sorted(surely(parsed[0])) if (parsed := parse(remote.code.helpers[number])) else []
        what = ", ".join(f"`{name}`" for name in names[:3]) or "a statement of another cell"
        said.append(f"needs {what}, which cannot be made where answers are judged ({why})")
    return said


def _barred(exercise: Exercise, found: Answer, read: list[Flag], rules_cost: bool, seen: Sequence[Flag] = ()) -> str:
    """Why an answer earns nothing, "" if it may: it is only the library's own, or takes that where no reader sees it,
    or the rules are to cost points. read: flags from its code; seen: from what it called as it ran.
    """
    if handed_on(exercise, found.reached):
        return f"It only hands on the course's own `{exercise.name}`: there is nothing of its own to judge."
    hidden = None if read else next(filter(taken, seen), None)
    barred = hidden or next(iter([*read, *seen] if rules_cost else ()), None)
    return f"It {barred.what}." if barred else ""


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
    return evaluate(exercise, remote if remote.callable else remote.value, seed, held(exercise), on_bench=True)
