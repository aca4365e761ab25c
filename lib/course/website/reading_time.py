"""What a lesson asks of its reader: words, cells, exercises, minutes."""

import re
from dataclasses import dataclass

from lib.lesson.series import Lesson, source

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
STATED = re.compile(r"Reading takes about (\d+) minutes")


@dataclass(frozen=True)
class Reading:
    """words: of prose. minutes: to read, as the lesson itself says at its top. points: of all exercises together."""

    words: int
    cells: int
    figures: int
    exercises: int
    points: int
    minutes: int


def reading(lesson: Lesson) -> Reading:
    """Count a lesson. One that does not say its minutes gets them from its length."""
    cells = lesson.notebook["cells"]
    prose = "\n".join(source(cell) for cell in cells if cell.get("cell_type") == "markdown")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    points = [grade["points"] for cell in cells if (grade := cell["metadata"].get("nbgrader", {})).get("grade")]
    stated = STATED.search(" ".join(prose.split()))
    return Reading(
        words=len(WORD.findall(prose)),
        cells=len(cells),
        figures=figures,
        exercises=len(points),
        points=sum(points),
        minutes=int(stated[1]) if stated else estimate(lesson),
    )


def estimate(lesson: Lesson) -> int:
    """Minutes by the length: 200 words of prose or of output, 20 lines of code, two figures a minute."""
    minutes = 0.0
    for cell in lesson.notebook["cells"]:
        text = source(cell)
        if cell.get("cell_type") == "markdown":
            minutes += len(WORD.findall(text)) / 200
            continue
        minutes += sum(bool(line.strip()) for line in text.splitlines()) / 20
        for output in cell.get("outputs", []):
            figure = "image/png" in output.get("data", {})
            minutes += 0.5 if figure else len("".join(output.get("text", "")).split()) / 200
    return round(minutes)
