"""Expectation bands: for each claim, what several seeds measured, and whether this run agrees."""

import contextlib
import json
import math
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.errors import CourseError
from lib.lesson.files import write_json
from lib.sources.places import ROOT

BANDS = ROOT / "data" / "expectations.json"
ABOUT = (
    "For each claim of a lesson: what several seeds measured, per preset. `band` is the smallest and the "
    "largest value, widened by the claim's margin. `command` re-measures it; do not edit numbers by hand."
)


@dataclass(frozen=True)
class Claim:
    """What a lesson states at its call of `expect`."""

    id: str
    what: str
    margin: float
    digits: int
    low: float | None = None
    high: float | None = None

    def band(self, values: list[float]) -> tuple[float, float]:
        """Least and greatest value, widened by the margin, rounded outwards, kept inside what is possible."""
        step = 10.0**self.digits
        # The nudge keeps 0.97 from becoming 0.96 only because 0.97 * 100 is a hair under 97.
        low = math.floor((min(values) - self.margin) * step + 1e-6) / step
        high = math.ceil((max(values) + self.margin) * step - 1e-6) / step
        if self.low is not None:
            low = max(low, self.low)
        if self.high is not None:
            high = min(high, self.high)
        return low, high


def load(path: Path | None = None) -> dict[str, dict]:
    """Claims by id. Raises CourseError for a damaged file; a missing one holds none."""
    return _read(path or BANDS)["claims"]


def seconds(lesson: str, preset: str) -> float | None:
    """What a lesson took when it was measured under a preset; None if it has not been."""
    return (timing(lesson, preset) or {}).get("seconds")


def timing(lesson: str, preset: str) -> dict | None:
    """The seconds, and the machine they were measured on."""
    return _read(BANDS)["seconds"].get(lesson, {}).get(preset)


def verdict(claim: Claim, value: float, preset: str, device: str) -> str:
    """One line a learner reads: the band, and whether the value is within."""
    if preset == "smoke":
        return f"{claim.what}: not checked under smoke"
    measured = load().get(claim.id, {}).get("presets", {}).get(preset)
    if measured is None:
        return f"{claim.what}: no band for preset {preset} yet"
    if measured["device"] != device:
        return f"{claim.what}: no band for preset {preset} on {device} yet"
    low, high = measured["band"]
    d = claim.digits
    within = low <= value <= high  # False for NaN
    answer = "yes" if within else f"no, it is {value:z.{d}f}"
    return f"{claim.what}: within {low:z.{d}f} to {high:z.{d}f}: {answer}"


def quoted(id: str, preset: str | None = None) -> list[str]:
    """What was measured for a claim that this run leaves out, a line for each preset: mean, band and command.

    With a preset, the line of that one only.
    """
    entry = load().get(id)
    measured = {name: m for name, m in (entry or {"presets": {}})["presets"].items() if preset in (None, name)}
    if not measured:
        return [f"{id}: not measured yet" + (f" under {preset}" if preset else "")]
    d, lines = entry["digits"], []
    for preset, m in measured.items():
        low, high = m["band"]
        lines.append(f"{entry['what']}: {m['mean']:z.{d}f} when we measured it under {preset} "
                     f"({low:z.{d}f} to {high:z.{d}f} is normal) with: {m['command']}")  # fmt: skip
    return lines


def record(claim: Claim, value: float, preset: str, device: str, machine: str) -> None:
    """Append the exact value to the file named by COURSE_RECORD, if any; `course measure` reads it."""
    path = os.environ.get("COURSE_RECORD")
    if path:
        value = value if math.isfinite(value) else str(value)
        line = {**asdict(claim), "value": value, "preset": preset, "device": device, "machine": machine}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def recorded(path: Path) -> list[dict]:
    """What one run of a lesson recorded; no file means no claim was reached."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    return [line | {"value": float(line["value"])} for line in lines]  # "nan" too, which JSON has not as a number


def update(
    lesson: str,
    preset: str,
    runs: dict[int, list[dict]],
    taken: float,
    machine: str,
    path: Path | None = None,
    extra: str = "",
) -> list[dict]:
    """Write the bands of one lesson and preset from what each seed's run recorded; returns the new entries.

    `taken` is the median of the runs' seconds on `machine`. Claims the lesson no longer makes are dropped.
    extra: the command's " -p NAME VALUE …", for claims that a lesson makes only with other parameters than its own;
    then those alone are written, and no seconds. Measuring without leaves them as they are.
    Raises CourseError if the seeds disagree on which claims there are, or a value is not finite.
    """
    path = path or BANDS
    kept = _read(path)
    claims = kept["claims"]

    def command(key: str) -> str:
        return claims.get(key, {}).get("presets", {}).get(preset, {}).get("command", "")

    by_seed = {seed: {line["id"]: line for line in lines} for seed, lines in runs.items()}
    ids = list(next(iter(by_seed.values())))
    for seed, lines in by_seed.items():
        if set(lines) != set(ids):
            odd = sorted(set(lines) ^ set(ids))
            raise CourseError(f"seed {seed} made other claims than the first seed: {', '.join(odd)}")
        for line in lines.values():
            if not math.isfinite(line["value"]):
                raise CourseError(f"{line['id']} is {line['value']} with seed {seed}; nothing written")
    if extra:
        ids = [key for key in ids if " -p " in command(key) or not command(key)]
    stale = [key for key, entry in claims.items() if entry["lesson"] == lesson and key not in ids]
    stale = [key for key in stale if not extra and " -p " not in command(key)]
    for key in stale:
        claims[key]["presets"].pop(preset, None)
        if not claims[key]["presets"]:
            del claims[key]
    seeds = sorted(by_seed)
    changed = []
    for key in ids:
        line = by_seed[seeds[0]][key]
        claim = Claim(**{name: line[name] for name in Claim.__dataclass_fields__})
        values = [by_seed[seed][key]["value"] for seed in seeds]
        entry = claims.setdefault(key, {"presets": {}})
        presets = entry["presets"] | {
            preset: {
                "device": line["device"],
                "machine": line["machine"],
                "seeds": seeds,
                "values": [float(f"{value:.6g}") for value in values],
                "mean": float(f"{sum(values) / len(values):.6g}"),
                "band": list(claim.band(values)),
                "command": f"course measure {lesson} --preset {preset} --seeds {','.join(map(str, seeds))}{extra}",
            }
        }
        claims[key] = {
            "lesson": lesson,
            "what": claim.what,
            "margin": claim.margin,
            "digits": claim.digits,
            "presets": dict(sorted(presets.items())),
        }
        changed.append({"id": key, **claims[key]})
    if not extra:
        kept["seconds"].setdefault(lesson, {})[preset] = _taken(taken, machine)
    _write(path, kept)
    return changed


def keep_seconds(lesson: str, preset: str, taken: float, machine: str, path: Path | None = None) -> None:
    """Write how long a lesson takes, and leave its bands as they are."""
    path = path or BANDS
    kept = _read(path)
    kept["seconds"].setdefault(lesson, {})[preset] = _taken(taken, machine)
    _write(path, kept)


def _taken(taken: float, machine: str) -> dict:
    return {"seconds": round(taken, 1), "machine": machine}


def _write(path: Path, kept: dict) -> None:
    ordered = {name: dict(sorted(kept[name].items())) for name in ("seconds", "claims")}
    with _writing(path):
        write_json(path, {"about": ABOUT, **ordered})


def check_writable(path: Path | None = None) -> None:
    """Raise CourseError if bands could not be written here: better before minutes of runs than after."""
    path = path or BANDS
    with _writing(path), tempfile.TemporaryFile(dir=path.parent):
        pass


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise CourseError(f"cannot write {path}: {problem.strerror}; measure in a clone that you can write") from None


def _read(path: Path) -> dict[str, dict]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {"seconds": dict(kept["seconds"]), "claims": dict(kept["claims"])}
    except FileNotFoundError:
        return {"seconds": {}, "claims": {}}
    except OSError as problem:
        raise CourseError(f"cannot read {path}: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError):
        restore = f"git -C {shlex.quote(str(path.parent))} checkout -- {path.name}"
        raise CourseError(f"{path} is damaged; restore it with `{restore}`") from None
