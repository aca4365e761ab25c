"""A newer version of a lesson and a learner's copy of the older one, made into one notebook, cell by cell.

Three versions are compared: `base`, the lesson as the learner got it; `mine`, what the learner has made of it; `new`,
the lesson as it is now. What the learner wrote, changed or added stays to the letter; every other cell becomes the new
one.
"""

import difflib
import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lib.lesson.series import source

ALIKE = 0.5  # the share of words in common from which two cells that follow the same neighbour are one, reworded
OURS = ("tags", "nbgrader", "nbval_reason")  # of a cell's metadata, what belongs to the lesson
BESIDE = (
    "**The lesson's newer version of the cell above.** You had changed that cell, so yours stayed. Take from here what "
    "you want, then delete this cell."
)


@dataclass
class Merged:
    """The cells; how many became new ones, came in, went; what of the learner's stands there; where both changed."""

    cells: list[dict] = field(default_factory=list)
    renewed: int = 0
    added: int = 0
    gone: int = 0
    kept: int = 0
    beside: int = 0


@dataclass(eq=False)
class Unit:
    """One cell in up to three versions."""

    base: dict | None = None
    mine: dict | None = None
    new: dict | None = None


def merge(base: list[dict], mine: list[dict], new: list[dict], outputs: bool = True) -> Merged:
    """One list of cells from three, nbformat 4.5's, with ids that are unique.

    Cells are matched by id, else by text, else by likeness between the same neighbours. A cell that both sides changed
    stays the learner's, and the new text stands below it in a cell of its own that does not run. A cell that the
    learner deleted stays deleted, unless it belongs to an exercise. outputs: whether those that the learner's notebook
    shows stay, where the code that made them does.
    """
    units = _units(base, mine, new)
    both = {str(unit.mine.get("id")) for unit in units if _conflicts(unit)}
    merged = Merged()
    taken: set[str] = set()
    reserved = {str(cell.get("id", "")) for cell in new}
    for unit in units:
        if unit.mine and unit.new is None and _superseded(unit.mine, both):
            continue
        cell = _resolved(unit, merged, outputs)
        if cell is None:
            continue
        id = str((unit.new or cell).get("id", ""))
        cell["id"] = _free(id, cell, taken, () if unit.new else reserved)
        merged.cells.append(cell)
        taken.add(cell["id"])
        if _conflicts(unit):
            notice = _notice(unit.new, cell["id"])
            notice["id"] = _free("", notice, taken, reserved)
            merged.cells.append(notice)
            taken.add(notice["id"])
            merged.beside += 1
    return merged


def same(a: dict, b: dict) -> bool:
    """Whether two cells say the same; outputs and metadata do not count."""
    return not _differs(a, b)


def _differs(a: dict, b: dict) -> bool:
    return _said(a) != _said(b)


def _said(cell: dict) -> tuple:
    return cell.get("cell_type"), source(cell), cell.get("attachments") or {}


# Which cell is which


def _units(base: list[dict], mine: list[dict], new: list[dict]) -> list[Unit]:
    """The cells of all three versions, matched, in the order in which they are to stand."""
    units = [Unit(base=cell) for cell in base]
    of_mine, of_new = ({old: theirs for old, theirs in pairs(base, cells)} for cells in (mine, new))
    order = {}
    for name, cells, matched in (("mine", mine, of_mine), ("new", new, of_new)):
        back = {theirs: units[old] for old, theirs in matched.items()}
        order[name] = [back.get(i) or Unit() for i in range(len(cells))]
    # What came in since base and stands on both sides: an update that was broken off has brought it, or another copy.
    loose = {cell.get("id"): unit for cell, unit in zip(new, order["new"], strict=True) if unit.base is None}
    for i, cell in enumerate(mine):
        if order["mine"][i].base is None and (unit := loose.pop(cell.get("id"), None)):
            order["mine"][i] = unit
    for name, cells in (("mine", mine), ("new", new)):
        for unit, cell in zip(order[name], cells, strict=True):
            setattr(unit, name, cell)
    place = {id(unit): i for i, unit in enumerate(units)}
    shared = [[place[id(unit)] for unit in order[name] if unit.base and unit.mine and unit.new] for name in order]
    moved_by_me, moved_by_us = (places != sorted(places) for places in shared)
    if moved_by_me and not moved_by_us:
        return _woven(order["mine"], order["new"])
    return _woven(order["new"], order["mine"])


def _woven(first: list[Unit], second: list[Unit]) -> list[Unit]:
    """All of the first, with what only the second has after what it follows there."""
    units = list(first)
    placed = {id(unit) for unit in units}
    before = None
    for unit in second:
        if id(unit) not in placed:
            at = 0 if before is None else next(i for i, u in enumerate(units) if u is before) + 1
            units.insert(at, unit)
            placed.add(id(unit))
        before = unit
    return units


def pairs(old: list[dict], new: list[dict]) -> list[tuple[int, int]]:
    """Which cell of the old list is which of the new one, as places; each occurs once at most."""
    found: dict[int, int] = {}
    free = {i for i, cell in enumerate(new) if "beside" not in _about(cell)}

    def by(key) -> None:
        places: dict = {}
        for j in sorted(free):
            places.setdefault(key(new[j]), []).append(j)
        for i, cell in enumerate(old):
            k = key(cell)
            if i not in found and k and places.get(k):
                found[i] = places[k].pop(0)
                free.discard(found[i])

    by(lambda cell: cell.get("id") and (cell["id"], _said(cell)[:2]))  # of a cell copied id and all, the untouched one
    by(lambda cell: cell.get("id"))
    by(_grade_id)
    by(lambda cell: source(cell).strip() and _said(cell)[:2])
    alike = sorted(_candidates(old, new, found, free), key=lambda one: -one[0])
    for _, i, j in alike:
        if i not in found and j in free:
            found[i] = j
            free.discard(j)
    return sorted(found.items())


def _candidates(old, new, found, free) -> Iterable[tuple[float, int, int]]:
    """(likeness, old place, new place) of cells that stand between the same neighbours on both sides."""
    for i, cell in enumerate(old):
        if i in found:
            continue
        before = next((found[k] for k in range(i - 1, -1, -1) if k in found), -1)
        after = next((found[k] for k in range(i + 1, len(old)) if k in found), len(new))
        for j in sorted(free):
            if before < j < after and new[j].get("cell_type") == cell.get("cell_type"):
                likeness = _likeness(source(cell), source(new[j]))
                if likeness >= ALIKE:
                    yield likeness, i, j


def _likeness(a: str, b: str) -> float:
    words = [re.findall(r"\w+|[^\w\s]", text) for text in (a, b)]
    matcher = difflib.SequenceMatcher(None, *words, autojunk=False)
    return matcher.ratio() if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= ALIKE else 0.0


# What becomes of it


def _resolved(unit: Unit, merged: Merged, outputs: bool) -> dict | None:
    """The cell that stands in the end, counted; None if none does."""
    base, mine, new = unit.base, unit.mine, unit.new
    if mine is None:
        if new is None or (base is not None and _grade_id(new) is None):
            return None
        merged.added += 1
        return dict(new)
    if new is None:
        if base is not None and same(mine, base):
            merged.gone += 1
            return None
        merged.kept += 1
        return _whole(mine, outputs)
    if same(mine, new) or (base is not None and same(mine, base)):
        merged.renewed += _differs(mine, new)
        if _differs(mine, new) or not outputs:
            return dict(new)
        shown = {name: value for name, value in mine.get("metadata", {}).items() if name not in OURS}
        return _whole(mine) | {"source": new["source"], "metadata": shown | _ours(new)}
    merged.kept += 1
    cell = _whole(mine, outputs)
    return cell | {"metadata": cell["metadata"] | _ours(new)}


def _ours(cell: dict) -> dict:
    return {name: value for name, value in cell.get("metadata", {}).items() if name in OURS}


def _conflicts(unit: Unit) -> bool:
    """Whether both sides have changed a cell, each in its own way; without a base, one has to suppose so."""
    if not (unit.mine and unit.new and _differs(unit.mine, unit.new)):
        return False
    return unit.base is None or (_differs(unit.base, unit.new) and _differs(unit.base, unit.mine))


def _whole(cell: dict, outputs: bool = True) -> dict:
    """The cell with all that nbformat asks for, and nothing that only code may have."""
    code, empty = cell.get("cell_type") == "code", {"outputs": [], "execution_count": None}
    if code and outputs:
        return {"metadata": {}} | empty | cell
    bare = {"metadata": {}} | {name: value for name, value in cell.items() if name not in empty}
    return bare | empty if code else bare


def _notice(new: dict, id: str) -> dict:
    """The marked cell that shows what a cell says now."""
    text = source(new)
    if new.get("cell_type") == "code":
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        text = f"{fence}python\n{text}\n{fence}"
    text = f"{BESIDE}\n\n{text}"
    return {"cell_type": "markdown", "metadata": {"course": {"beside": id, "as": _digest(text)}}, "source": text}


def _superseded(cell: dict, ids: set[str]) -> bool:
    """Whether a cell is an earlier notice, as it was written, about a cell that gets another now."""
    about = _about(cell)
    return about.get("beside") in ids and about.get("as") == _digest(source(cell))


def _about(cell: dict) -> dict:
    about = cell.get("metadata", {}).get("course")
    return about if isinstance(about, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _grade_id(cell: dict) -> str | None:
    graded = cell.get("metadata", {}).get("nbgrader")
    return graded.get("grade_id") if isinstance(graded, dict) else None


def _free(id: str, cell: dict, taken: set[str], reserved: Iterable[str]) -> str:
    """The id if it may be had, else another. None that is made here looks like a lesson's own."""
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id) and id not in taken and id not in reserved:
        return id
    stem = f"own-{_digest(source(cell))}"
    return next(name for n in itertools.count(1) if (name := f"{stem}-{n}") not in taken and name not in reserved)
