"""A ledger of decisions: what was decided, instead of what, on which number, and where that number came from.

Lesson 09 opens the ledger, on the learner's own disk. An entry has a key, so that running a lesson
again replaces its entries and never doubles them.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lib.errors import CourseError
from lib.lesson import expectations
from lib.lesson.files import locked, read_kept, read_or_tell, write_json
from lib.lesson.predictions import home

STAGES = ("scope", "metric", "select", "adapt", "evaluate", "deploy", "watch")
WIDTHS = (9, 34, 26, 30)  # of the table's columns, in characters


@dataclass(frozen=True)
class Entry:
    """One decision. number: what it rests on, as measured; shown: the same in words, for the table.

    Raises CourseError if a part is missing: a decision with no alternative, or resting on no number, is none.
    """

    stage: str
    decision: str
    instead_of: tuple[str, ...]
    number: float
    shown: str
    source: str

    def __post_init__(self):
        if self.stage not in STAGES:
            raise CourseError(f"no stage {self.stage!r}; the stages are {', '.join(STAGES)}")
        if isinstance(self.instead_of, str) or not all(isinstance(one, str) and one for one in self.instead_of):
            raise CourseError("instead_of is a list of what else could have been decided, each in words")
        object.__setattr__(self, "instead_of", tuple(self.instead_of))
        if not self.instead_of:
            raise CourseError(f"{self.stage}: where there was no alternative, nothing was decided; name at least one")
        for name in ("decision", "shown", "source"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise CourseError(f"{self.stage}: the {name} is missing; say it in words")
        number = self.number
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise CourseError(f"{self.stage}: a decision rests on a number, not on {number!r}; measure one")


def claim(id: str) -> tuple[float, str, str]:
    """(number, shown, source) of what an earlier lesson measured: the mean over its seeds, and its band.

    Raises CourseError for a claim that no lesson makes.
    """
    entry = expectations.load().get(id)
    measured = entry and entry["presets"].get("cpu")
    if not measured:
        raise CourseError(f"no measured claim {id!r}; data/expectations.json lists them")
    d, (low, high) = entry["digits"], measured["band"]
    shown = f"{entry['what']}: {measured['mean']:z.{d}f} ({low:z.{d}f} to {high:z.{d}f})"
    return measured["mean"], shown, f"claim {id}, {len(measured['seeds'])} seed{'s' * (len(measured['seeds']) > 1)}"


class Ledger:
    """Entries by key, kept in COURSE_HOME/ledger/NAME.json; a new Ledger of that name goes on with them."""

    def __init__(self, name: str = "shop"):
        if not name.isidentifier():
            raise CourseError(f"a ledger's name is one plain word, not {name!r}")
        self.path = home() / "ledger" / f"{name}.json"
        self.entries = read_or_tell(self.path, Entry, "The ledger")

    def __repr__(self):
        return f"<ledger {self.path.stem}, {len(self.entries)} decisions>"

    def add(
        self, key: str, stage: str, decision: str, instead_of: Sequence[str], number: float, shown: str, source: str
    ) -> None:
        """Write a decision down, under a key such as "09.metric", in place of what stood there."""
        if not isinstance(key, str) or not key.strip():
            raise CourseError("an entry needs a key, such as 09.metric")
        if not isinstance(number, bool) and hasattr(number, "item"):
            number = number.item()  # numpy's and torch's numbers
        self.entries[key] = entry = Entry(stage, decision, instead_of, number, shown, source)
        try:
            with locked(self.path):  # another kernel may have decided something meanwhile
                self.entries |= read_kept(self.path, Entry, "The ledger") | {key: entry}
                write_json(self.path, {key: asdict(entry) for key, entry in self.entries.items()})
        except OSError as problem:
            where, why = self.path.parent, problem.strerror or problem
            print(f"(The ledger is not kept, {where}: {why}; set COURSE_HOME to your own folder.)")

    def of(self, lesson: str) -> dict[str, Entry]:
        """The entries whose keys begin with a lesson's number."""
        return {key: entry for key, entry in self.entries.items() if key.startswith(f"{lesson}.")}

    def table(self, lesson: str = "") -> str:
        """The decisions as plain text in the order of the stages; of one lesson, or all."""
        chosen = self.of(lesson) if lesson else self.entries
        rows = sorted(chosen.values(), key=lambda entry: STAGES.index(entry.stage))
        cells = [(e.stage, e.decision, "; ".join(e.instead_of), f"{e.shown} [{e.source}]") for e in rows]
        head = ("stage", "decision", "instead of", "rests on [from]")
        rule = tuple("-" * width for width in WIDTHS)
        return "\n".join(line for row in (head, rule, *cells) for line in _row(row))


def everything() -> dict[str, dict[str, Entry]]:
    """All ledgers, by name and key."""
    names = sorted(path.stem for path in (home() / "ledger").glob("*.json") if path.stem.isidentifier())
    return {name: Ledger(name).entries for name in names}


def _row(cells: Sequence[str]) -> list[str]:
    """One row of a table, its cells wrapped to WIDTHS."""
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
    height = max(map(len, wrapped))
    lines = zip(*(lines + [""] * (height - len(lines)) for lines in wrapped), strict=True)
    return ["  ".join(part.ljust(width) for part, width in zip(line, WIDTHS, strict=True)).rstrip() for line in lines]
