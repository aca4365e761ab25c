"""Pages of the website that are made from data: the list of lessons, and what results are normal."""

import itertools
import re

from lib.course.website.reading_time import reading
from lib.lesson import claims, expectations
from lib.lesson.series import Lesson

LESSONS = """# The lessons

Read them in order: each builds on the ones before. *Reading* is without the exercises. *Computer* is how long a run of
the whole lesson took under the preset `cpu`, on {machine}; `smoke` is much faster, and only shows that the code runs.

{table}

Your own numbers for the computer will differ. [What is normal](expectations.md) says how far results may.
"""

EXPECTATIONS = """# What is normal

Results that depend on chance are stated as bands. We ran each lesson with several seeds; a band reaches from the least
to the greatest value, widened by a margin that the lesson states. If your value is inside, all is well. If it is
outside, something differs that is worth finding: another device, another version, or a change of yours.

The presets: `cpu` is a laptop's size, `gpu` is worth a GPU. Measure anew with the command above each table.
"""

CLAIMS = """# Claims and their rivals

An experiment that cannot fail shows nothing. Here are the lessons' headline claims. Each stands with what would refute
it, and with the strongest rival that we let in. Figures are means over the seeds; brackets have the least and the
greatest value. The lessons show both sides after asking you for a guess, so read the lesson first.
"""


def lessons_page(lessons: list[Lesson]) -> str:
    """A row a lesson, in Markdown. Raises CourseError for a damaged expectations file."""
    rows, machines = [], []
    for lesson in lessons:
        counted = reading(lesson)
        taken = expectations.timing(lesson.number, "cpu")
        if taken:
            machines.append(taken["machine"])
        title = re.sub(r"^\d\d · ", "", lesson.title)
        rows.append([
            lesson.number, f"[{title}](notebooks/{lesson.path.name})", f"{counted.minutes} min", f"{counted.words:,}",
            str(counted.cells), f"{counted.exercises} ({counted.points} points)",
            f"{taken['seconds']:.0f} s" if taken else "not measured",
        ])  # fmt: skip
    machine = "; ".join(dict.fromkeys(machines)) or "no machine yet"
    heads = ["#", "Lesson", "Reading", "Words", "Cells", "Exercises", "Computer"]
    return LESSONS.format(machine=machine, table=_table(heads, "llrrrrr", rows))


def expectations_page(lessons: list[Lesson]) -> str:
    """Every claim with its band, by lesson, preset and command. Raises CourseError for a damaged file."""
    titles = {lesson.number: lesson.title for lesson in lessons}
    measured = [
        (claim["lesson"], preset, found["command"], found["machine"], claim, found)
        for claim in expectations.load().values()
        for preset, found in claim["presets"].items()
    ]
    measured.sort(key=lambda row: row[:4])
    parts = [EXPECTATIONS]
    for number, of_lesson in itertools.groupby(measured, key=lambda row: row[0]):
        parts.append(f"## {titles.get(number, number)}")
        for (_, preset, command, machine), group in itertools.groupby(of_lesson, key=lambda row: row[:4]):
            rows = [_claim(claim, found) for *_, claim, found in group]
            parts.append(f"Preset `{preset}`, on {machine}, with `{command}`:")
            parts.append(_table(["Claim", "Band", "Mean", "Seeds"], "lrrr", rows))
    return "\n\n".join(parts) + "\n"


def claims_page(lessons: list[Lesson]) -> str:
    """Every headline claim beside its rivals, a table for each lesson. Raises CourseError for a damaged file."""
    titles = {lesson.number: lesson.title for lesson in lessons}
    parts = [CLAIMS]
    told = sorted(claims.load(), key=lambda row: row[0].lesson)
    for number, of_lesson in itertools.groupby(told, key=lambda row: row[0].lesson):
        rows, commands = [], []
        for headline, own, rivals in of_lesson:
            fewest = min(len(each.seeds) for each in (own, *rivals))
            rows.append([
                f"{_plain(headline.says)}<br>*Refuted by:* {_plain(headline.refuted_by)}", _figures(own),
                "<br>".join([_plain(headline.rival), *map(_figures, rivals)]), str(fewest),
                _plain(headline.changed) or "it stood",
            ])  # fmt: skip
            commands += [each.command for each in (own, *rivals)]
        parts.append(f"## {titles.get(number, number)}")
        parts.append(_table(["Claim", "Figures", "Strongest rival", "Seeds", "What the rival changed"], "lllrl", rows))
        parts.append("Measured with " + ", ".join(f"`{command}`" for command in dict.fromkeys(commands)) + ".")
    return "\n\n".join(parts) + "\n"


def _figures(measured: claims.Measured) -> str:
    return f"{_plain(measured.what)}: {measured}"


def _claim(claim: dict, found: dict) -> list[str]:
    digits = claim["digits"]
    low, high = (f"{value:z,.{digits}f}" for value in found["band"])
    return [_plain(claim["what"]), f"{low} to {high}", f"{found['mean']:z,.{digits}f}", str(len(found["seeds"]))]


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]$<|])", r"\\\1", text)


def _table(heads: list[str], align: str, rows: list[list[str]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])
