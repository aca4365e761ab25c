"""What a page keeps back until the reader has guessed: the outcome of each prediction, and the prose that tells it."""

import ast
import re
from dataclasses import dataclass

from lib.lesson.series import source

SUMMARY = "What happened, and what it means"
FOLD = f"<details><summary>{SUMMARY}</summary>\n\n"
END = "\n\n</details>"
CAPTION = re.compile(r"\bshow\(")  # a figure comes with its words, in the code, and they say what is to be seen
HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Prediction:
    """One prediction of a lesson, by the places of its cells.

    asked, told: the cells that call predict and reveal. outputs: code cells whose outputs show what happened.
    prose: markdown cells that say it, up to the first heading.
    """

    key: str
    asked: int
    told: int
    outputs: tuple[int, ...]
    prose: tuple[int, ...]


def predictions(cells: list[dict]) -> list[Prediction]:
    """Every prediction of a notebook's cells that is both asked and told, in the order in which they are told.

    The outcome begins after the question and ends with the first prose after it is told: at a heading, at an exercise,
    at the next question, or at the next code.
    """
    asked: dict[str, int] = {}
    found = []
    for place, cell in enumerate(cells):
        for what, key in _calls(cell):
            if what == "predict":
                asked[key] = place
            elif key in asked:
                after, prose = _after(cells, place + 1)
                outputs = [i for i in (*range(asked[key] + 1, place + 1), *after) if _hidden(cells[i])]
                found.append(Prediction(key, asked[key], place, tuple(outputs), tuple(prose)))
    return found


@dataclass(frozen=True)
class KeptBack:
    """The places of a notebook's cells that tell an outcome: by outputs, by code (they are among those), by prose."""

    outputs: frozenset[int]
    code: frozenset[int]
    prose: frozenset[int]


def kept_back(cells: list[dict]) -> KeptBack:
    """What of a notebook nobody should see before the guess."""
    found = predictions(cells)
    outputs = frozenset(i for each in found for i in each.outputs)
    code = frozenset(i for i in outputs if CAPTION.search(source(cells[i])))
    return KeptBack(outputs, code, frozenset(i for each in found for i in each.prose))


def folded(cells: list[dict]) -> list[dict]:
    """A copy of a notebook's cells, with the prose that tells an outcome folded. Twice is the same as once."""
    prose = kept_back(cells).prose
    return [cell | {"source": fold(source(cell))} if i in prose else cell for i, cell in enumerate(cells)]


def fold(text: str) -> str:
    """Markdown whose beginning can be opened and closed, up to the first heading.

    A last paragraph that leads on to the next cell, with a colon at its end, stays to be seen.
    """
    head, rest = _parted(text)
    return f"{FOLD}{head}{END}{rest}" if head else text


def unfolded(text: str) -> str:
    """Markdown as it was before `fold`."""
    if not text.startswith(FOLD) or END not in text:
        return text
    head, _, rest = text.removeprefix(FOLD).partition(END)
    return head + rest


def _parted(text: str) -> tuple[str, str]:
    """What there is to fold, and what follows it; the first is empty if there is nothing, or if text folds already."""
    if "<details" in text:
        return "", text
    code = [found.span() for found in FENCE.finditer(text)]
    headings = [h.start() for h in HEADING.finditer(text) if not any(a < h.start() < b for a, b in code)]
    end = headings[0] if headings else len(text)
    if not headings and text.rstrip().endswith(":"):
        end = max(text.rstrip().rfind("\n\n"), 0)
    head = text[:end].rstrip()
    return head, text[len(head) :]


def _calls(cell: dict) -> list[tuple[str, str]]:
    """(predict or reveal, key) of each such call of `lesson` in a cell."""
    text = source(cell)
    if cell.get("cell_type") != "code" or not re.search(r"\blesson\.(predict|reveal)\(", text):
        return []
    try:
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.args]
    except (SyntaxError, ValueError):
        return []
    calls = [c for c in calls if ast.unparse(c.func) in ("lesson.predict", "lesson.reveal")]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [(c.func.attr, c.args[0].value) for c in calls if isinstance(c.args[0], ast.Constant)]


def _after(cells: list[dict], place: int) -> tuple[list[int], list[int]]:
    """The code cells and then the prose that follow an outcome at once."""
    code: list[int] = []
    prose: list[int] = []
    for i, cell in enumerate(cells[place:], place):
        markdown = cell.get("cell_type") == "markdown"
        if "nbgrader" in cell.get("metadata", {}) or (not markdown and (prose or _asks(cell))):
            break
        if not markdown:
            code.append(i)
            continue
        text = source(cell)
        if not _parted(text)[0]:
            break
        prose.append(i)
        if _parted(text)[1]:
            break
    return (code if prose else []), prose


def _asks(cell: dict) -> bool:
    return any(what == "predict" for what, _ in _calls(cell))


def _hidden(cell: dict) -> bool:
    return cell.get("cell_type") == "code" and not _asks(cell) and "nbgrader" not in cell.get("metadata", {})
