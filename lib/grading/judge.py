"""Judge one submission: each answer in a sandbox of its own, each verdict out here."""

import hashlib
import time

from lib.exercises.as_ipython import parse
from lib.exercises.exercise import Exercise, exercises
from lib.exercises.reach import surely
from lib.exercises.result import evaluate, nothing
from lib.exercises.standing import Answer
from lib.grading.grades import Flag, Grade, Report
from lib.grading.reading import Cell
from lib.grading.rules import broken, handed_on, suspicious
from lib.grading.sandbox import RemoteAnswer, Sandbox
from lib.grading.submission import answer

TRIES = 3  # for an exercise whose sandbox died


def judge(
    cells: tuple[Cell, ...],
    learner: str,
    lesson: str,
    path: str,
    digest: str,
    sandbox: Sandbox,
    seed: int,
    only: frozenset[str] | None = None,
    rules_cost: bool = False,
) -> Report:
    """The report on one lesson of a notebook.

    seed: hidden inputs are drawn from it; the same seed gives the same verdict. only: the exercises to judge (None:
    all of the lesson's). rules_cost: an answer that uses what its exercise forbids earns nothing.
    """
    began = time.monotonic()
    grades, flags = [], []
    for exercise in exercises(lesson):
        if only is None or exercise.id in only:
            grade, found = _grade(cells, exercise, sandbox, seed, rules_cost)
            grades.append(grade)
            flags += found
    seconds = time.monotonic() - began
    return Report(learner, lesson, path, digest, seed, sandbox.isolated, seconds, tuple(grades), tuple(flags))


def _grade(
    cells: tuple[Cell, ...], exercise: Exercise, sandbox: Sandbox, seed: int, rules_cost: bool
) -> tuple[Grade, list[Flag]]:
    found = answer(cells, exercise)
    flags = [Flag(exercise.id, note) for note in found.notes]
    problem = found.problem
    if found.code is None:
        result = nothing(exercise, problem, attempted=found.attempted)
    else:
        forbidden = broken(exercise, found.reached)
        flags += forbidden
        for text in (found.code.source, *found.code.after):
            flags += suspicious(exercise, text)
        if handed_on(exercise, found.reached):
            problem = f"It only hands on the course's own `{exercise.name}`: there is nothing of its own to judge."
            result = nothing(exercise, problem, attempted=True)
        elif forbidden and rules_cost:
            problem = f"It {forbidden[0].what}."
            result = nothing(exercise, problem, attempted=True)
        else:
            for _ in range(TRIES):
                with sandbox.load(found.code, _one_way(seed)) as remote:
                    result = _evaluate(exercise, remote, seed)
                problem = remote.problem
                if not remote.lost:
                    break  # else the sandbox itself was ended from outside: nothing is the answer's fault
            if result.points < result.out_of:
                flags += [Flag(exercise.id, what) for what in _lacking(found, remote)]
    for outcome in result.outcomes:
        if outcome.crashed:
            flags.append(Flag(exercise.id, f"the check {outcome.name!r} stumbled over the answer"))
    grade = Grade(
        exercise.id, exercise.version, result.points, exercise.points, result.attempted, result.outcomes, problem
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


def _one_way(seed: int) -> int:
    """What an answer may know: a seed of its own, from which that of the hidden inputs cannot be told."""
    return int.from_bytes(hashlib.sha256(f"answer/{seed}".encode()).digest()[:7], "big")


def _evaluate(exercise: Exercise, remote: RemoteAnswer, seed: int):
    if remote.problem:  # gone while its cell was running
        return nothing(exercise, remote.problem, attempted=True)
    if not remote.defined:
        error = remote.error
        if error is None:
            return nothing(exercise, f"The answer's cell does not define `{exercise.name}`.", attempted=True)
        where = f" in line {error.line}" if error.line else ""
        return nothing(exercise, f"The answer's cell does not run: {error.kind}{where}: {error.text}", attempted=True)
    return evaluate(exercise, remote if remote.callable else remote.value, seed)
