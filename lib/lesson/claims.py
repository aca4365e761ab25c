"""Headline claims of the lessons, each beside the strongest rival that was let in: data/claims.toml.

Words stand there; seeds, values and commands are those of the bands in data/expectations.json, and typed nowhere else.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from lib.errors import CourseError
from lib.lesson import expectations
from lib.sources.places import ROOT

CLAIMS = ROOT / "data" / "claims.toml"
FEWEST = 3  # seeds


@dataclass(frozen=True)
class Measured:
    """One band's own figures. what: as the lesson prints it; values: one for each seed."""

    what: str
    digits: int
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    command: str

    def __str__(self) -> str:
        mean, low, high = (f"{v:z,.{self.digits}f}" for v in (sum(self.values) / len(self.values), *self._ends))
        return mean if low == high else f"{mean} ({low} to {high})"

    @property
    def _ends(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class Headline:
    """What a lesson claims. claim: the id of its band; against: those of its rivals; changed: "" if it stood."""

    id: str
    lesson: str
    says: str
    refuted_by: str
    rival: str
    claim: str
    against: tuple[str, ...]
    changed: str = ""


def load(path: Path | None = None, bands: Path | None = None) -> list[tuple[Headline, Measured, tuple[Measured, ...]]]:
    """Each headline with its own figures and its rivals', in the order of the file.

    Raises CourseError with one line on the first entry that is wrong: a field that is missing, empty or unknown, an id
    that comes twice, a band that is not there, fewer than three seeds.
    """
    path = path or CLAIMS
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("'claim' is something else")
    except OSError as problem:
        raise CourseError(f"cannot read {path}: {problem.strerror}") from None
    except (ValueError, KeyError) as problem:
        raise CourseError(f"{path} is no list of [[claim]] tables ({problem}); mend it") from None
    known, found = expectations.load(bands), []
    for entry in entries:
        headline = _headline(entry, path)
        if headline.id in [other.id for other, *_ in found]:
            raise CourseError(f"{path}: {headline.id} comes twice; give each claim an id of its own")
        both = [_measured(band, headline, known, path) for band in (headline.claim, *headline.against)]
        found.append((headline, both[0], tuple(both[1:])))
    return found


def _headline(entry: dict, path: Path) -> Headline:
    name = entry.get("id") or "an entry without an id"
    names = [field.name for field in fields(Headline)]
    if unknown := sorted(set(entry) - set(names)):
        raise CourseError(f"{path}: {name} has a field {unknown[0]!r}; the fields are: {', '.join(names)}")
    for field in names:
        value = entry.get(field)
        if field == "against":
            right = isinstance(value, list) and value and all(isinstance(band, str) for band in value)
        else:
            right = isinstance(value, str) and (value.strip() or field == "changed")
        if not right and field != "changed":
            what = "a rival's band" if field == "against" else "a rival" if field == "rival" else f"the field {field!r}"
            raise CourseError(f"{path}: {name} lacks {what}; a claim states the strongest rival, with its figures")
        if not right and field in entry:
            raise CourseError(f"{path}: {name}: 'changed' is a text, empty if the claim stood")
    if entry["claim"] in entry["against"]:
        raise CourseError(f"{path}: {name} is its own rival; name another band under 'against'")
    if not entry["id"].startswith(f"{entry['lesson']}."):
        raise CourseError(f"{path}: {name} is not of lesson {entry['lesson']!r}; ids begin with the lesson's number")
    return Headline(**entry | {"against": tuple(entry["against"])})


def _measured(band: str, headline: Headline, known: dict[str, dict], path: Path) -> Measured:
    entry = known.get(band)
    if not entry:
        raise CourseError(f"{path}: {headline.id} names the band {band!r}, which is not measured; measure it first")
    presets = entry["presets"]
    of = presets.get("cpu") or next(iter(presets.values()))
    if len(of["seeds"]) < FEWEST:
        few = len(of["seeds"])
        raise CourseError(f"{path}: {headline.id}: {band} has {few} seeds, not {FEWEST} or more; measure it with more")
    return Measured(entry["what"], entry["digits"], tuple(of["values"]), tuple(of["seeds"]), of["command"])
