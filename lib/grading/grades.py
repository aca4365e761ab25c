"""What grading says of one submission: the record that the gradebook keeps, exports and feedback read."""

from dataclasses import dataclass

from lib.exercises.result import Outcome


@dataclass(frozen=True)
class Flag:
    """Something that a person should look at. line: of the answer cell's source, from 1, or None."""

    exercise: str
    what: str
    line: int | None = None


@dataclass(frozen=True)
class Grade:
    """One exercise of one submission.

    version: digest of the exercise's checks, so that a mended exercise is graded anew. problem: why the answer
    could not be judged to the end (it crashed, ran out of time or memory, was never defined), "" if it could.
    """

    exercise: str
    version: str
    points: int
    out_of: int
    attempted: bool
    outcomes: tuple[Outcome, ...] = ()
    problem: str = ""

    @property
    def first_failure(self) -> Outcome | None:
        return next((o for o in self.outcomes if not o.passed), None)


@dataclass(frozen=True)
class Report:
    """One submission: one learner's notebook of one lesson.

    digest: SHA-256 of the file. problem: why nothing in it could be graded, "" if it could; then `grades` is empty
    and the points are unknown, not zero. seed: what the hidden inputs were drawn from. sandboxed: False if the
    grader was told to do without isolation.
    """

    learner: str
    lesson: str
    path: str
    digest: str
    seed: int = 0
    sandboxed: bool = True
    seconds: float = 0.0
    grades: tuple[Grade, ...] = ()
    flags: tuple[Flag, ...] = ()
    problem: str = ""

    @property
    def points(self) -> int:
        return sum(g.points for g in self.grades)

    @property
    def out_of(self) -> int:
        return sum(g.out_of for g in self.grades)
