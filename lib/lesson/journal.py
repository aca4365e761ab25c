"""What a learner has done: every check of an answer, written down as it happens, on the learner's own disk.

COURSE_HOME/progress.jsonl is a journal: a line for each check is added at its end, and nothing in it is ever changed.
So two kernels can write at once, a damaged line costs that line alone, and what a newer version of the course wrote
stays for it.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from lib.errors import CourseError
from lib.lesson import ledger
from lib.lesson.files import append_line, no_number
from lib.lesson.predictions import Guess, calibration, every, home

VERSION = 1


@dataclass(frozen=True)
class Check:
    """One check of one answer: points of out_of, and when, in UTC as ISO 8601."""

    exercise: str
    points: int
    out_of: int
    when: str = ""

    def __post_init__(self):
        if not (isinstance(self.exercise, str) and re.fullmatch(r"\d\d\.[a-z][a-z0-9_]*", self.exercise)):
            raise ValueError("no exercise's id")
        if not (type(self.points) is type(self.out_of) is int and 0 <= self.points <= self.out_of):
            raise ValueError("no points")
        if not isinstance(self.when, str):
            raise ValueError("no time")


class Exercise(Protocol):
    """What is asked of an exercise here; `lib.exercises.outline` has them."""

    id: str
    title: str
    points: int
    minutes: int


@dataclass(frozen=True)
class Standing:
    """Where a learner stands in one exercise: the best points so far, and the checks up to the first full marks."""

    exercise: Exercise
    points: int
    tries: int

    @property
    def passed(self) -> bool:
        return self.points == self.exercise.points

    @property
    def state(self) -> str:
        return "passed" if self.passed else "begun" if self.tries else "not attempted"


def journal() -> Path:
    return home() / "progress.jsonl"


def record(exercise: str, points: int, out_of: int) -> None:
    """Write one check down. A disk that is full, or a folder not to be written, costs one line, not the lesson."""
    check = Check(exercise, points, out_of, datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        append_line(journal(), json.dumps({"v": VERSION} | asdict(check), allow_nan=False))
    except OSError as problem:
        why = problem.strerror or problem
        print(f"(Your progress is not kept, {home()}: {why}; set COURSE_HOME to your own folder.)")


def checks() -> tuple[list[Check], list[str]]:
    """All checks in the order in which they were made; and a line on each kind of trouble with the file."""
    path = journal()
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return [], []
    except OSError as problem:
        return [], [f"Your progress in {path} cannot be read: {problem.strerror}."]
    read, newer, damaged = [], 0, 0
    for line in filter(bytes.strip, lines):
        try:
            kept = json.loads(line, parse_constant=no_number)
            version = kept.pop("v")
            if type(version) is int and version > VERSION:
                newer += 1
            elif version == VERSION:
                read.append(Check(**kept))
            else:
                damaged += 1
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            damaged += 1
    notes = []
    if newer:
        notes.append(f"{_lines(newer)} of {path} from a newer version of the course: kept, and not counted here.")
    if damaged:
        notes.append(f"{_lines(damaged)} of {path} cannot be read: left as found, and not counted.")
    return read, notes


def standings(exercises: Iterable[Exercise], checks: Iterable[Check]) -> list[Standing]:
    """Where the learner stands in each exercise, in their order.

    Points count while the exercise is worth what it was worth then: a check of an exercise that has changed since is
    a try, and no more.
    """
    by_id: dict[str, list[Check]] = {}
    for check in checks:
        by_id.setdefault(check.exercise, []).append(check)
    return [_standing(e, by_id.get(e.id, [])) for e in exercises]


def _standing(exercise: Exercise, checks: list[Check]) -> Standing:
    best = max((c.points for c in checks if c.out_of == exercise.points), default=0)
    won = next((n for n, c in enumerate(checks, 1) if (c.points, c.out_of) == (exercise.points,) * 2), len(checks))
    return Standing(exercise, best, won)


def _lines(n: int) -> str:
    return f"{n} line{'s' * (n > 1)}"


@dataclass(frozen=True)
class Chapter:
    """One lesson: where the learner stands in its exercises, and the guesses by key."""

    lesson: str
    title: str
    standings: list[Standing]
    guesses: dict[str, Guess]

    @property
    def passed(self) -> int:
        return sum(s.passed for s in self.standings)

    @property
    def points(self) -> int:
        return sum(s.points for s in self.standings)

    @property
    def out_of(self) -> int:
        return sum(s.exercise.points for s in self.standings)

    @property
    def tries(self) -> int:
        return sum(s.tries for s in self.standings)


@dataclass(frozen=True)
class Overview:
    """All lessons, with the checks and guesses that they were read from; notes: what could not be read."""

    chapters: list[Chapter]
    checks: list[Check]
    guesses: dict[str, dict[str, Guess]]
    notes: list[str]

    @property
    def standings(self) -> list[Standing]:
        return [s for chapter in self.chapters for s in chapter.standings]

    @property
    def exercises(self) -> int:
        return len(self.standings)

    @property
    def passed(self) -> int:
        return sum(c.passed for c in self.chapters)

    @property
    def points(self) -> int:
        return sum(c.points for c in self.chapters)

    @property
    def out_of(self) -> int:
        return sum(c.out_of for c in self.chapters)

    @property
    def next(self) -> Standing | None:
        """The first exercise that is not passed, after the one that was checked last; None if all are."""
        order = [s.exercise.id for s in self.standings]
        last = next((order.index(c.exercise) for c in reversed(self.checks) if c.exercise in order), 0)
        around = self.standings[last:] + self.standings[:last]
        return next((s for s in around if not s.passed), None)


def exported(overview: Overview) -> str:
    """All that is kept, and what it comes to, as JSON."""
    return json.dumps({
        "format": "transformer-course progress",
        "version": VERSION,
        "points": overview.points,
        "out_of": overview.out_of,
        "exercises": [
            {"id": s.exercise.id, "title": s.exercise.title, "state": s.state, "points": s.points,
             "out_of": s.exercise.points, "tries": s.tries}
            for s in overview.standings
        ],
        "calibration": asdict(calibration(every(overview.guesses))),
        "checks": [asdict(check) for check in overview.checks],
        "guesses": {
            lesson: {key: asdict(guess) for key, guess in of_lesson.items()}
            for lesson, of_lesson in overview.guesses.items()
        },
        "ledger": {
            name: {key: asdict(entry) for key, entry in entries.items()}
            for name, entries in ledger.everything().items()
        },
        "own": _own_answers(),
    }, indent=1, ensure_ascii=False, allow_nan=False) + "\n"  # fmt: skip


def _own_answers() -> dict[str, str]:
    """The sources of the answers that are switched on, by exercise."""
    try:
        return {p.stem: p.read_text(encoding="utf-8", errors="replace") for p in sorted((home() / "own").glob("*.py"))}
    except OSError as problem:
        raise CourseError(f"cannot read {problem.filename}: {problem.strerror}; nothing is exported") from None
