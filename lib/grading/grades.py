"""What grading says of one submission: the record that the gradebook keeps, exports and feedback read.

All text in a record is fit to keep and to show, whoever wrote it: it is cleaned and capped as the record is made.
"""

from dataclasses import dataclass, replace

from lib.exercises.result import Outcome
from lib.grading.cleaning import clean

MOST_FLAGS = 40  # of one report; what they say is summed up before (lib.grading.rules)
MOST = {
    "learner": 300, "lesson": 20, "path": 1000, "digest": 100, "exercise": 100, "version": 100, "name": 200,
    "what": 200, "message": 1000, "detail": 500, "problem": 1000,
}  # fmt: skip


def _cleaned(record):
    """{field: text} of a record whose text has to change to be clean."""
    texts = {name: getattr(record, name) for name in MOST if hasattr(record, name)}
    return {name: better for name, text in texts.items() if (better := clean(text, MOST[name])) != text}


class _Clean:
    def __post_init__(self):
        for name, text in _cleaned(self).items():
            object.__setattr__(self, name, text)


@dataclass(frozen=True)
class Flag(_Clean):
    """Something that a person should look at. line: of the answer cell's source, from 1, or None."""

    exercise: str
    what: str
    line: int | None = None


@dataclass(frozen=True)
class Grade(_Clean):
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

    def __post_init__(self):
        super().__post_init__()
        outcomes = tuple(replace(o, **texts) if (texts := _cleaned(o)) else o for o in self.outcomes)
        object.__setattr__(self, "outcomes", outcomes)

    @property
    def first_failure(self) -> Outcome | None:
        return next((o for o in self.outcomes if not o.passed and not o.withheld), None)


@dataclass(frozen=True)
class Report(_Clean):
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

    def __post_init__(self):
        super().__post_init__()
        if len(self.flags) > MOST_FLAGS:
            rest = Flag("", f"and {len(self.flags) - MOST_FLAGS + 1} more things to look at")
            object.__setattr__(self, "flags", (*self.flags[: MOST_FLAGS - 1], rest))

    @property
    def points(self) -> int:
        return sum(g.points for g in self.grades)

    @property
    def out_of(self) -> int:
        return sum(g.out_of for g in self.grades)
