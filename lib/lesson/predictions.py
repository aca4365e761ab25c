"""Predict, then run: a learner's guesses, how sure they were, and how well the two agree."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from lib.lesson.files import locked, read_kept, read_or_tell, write_json


@dataclass
class Guess:
    """One prediction. `sure` is a probability in 0..1 or None; `right` is None until the outcome is known."""

    guess: str
    sure: float | None = None
    right: bool | None = None


def home() -> Path:
    """The learner's own state folder: COURSE_HOME, else the platform's place for user data."""
    return Path(os.environ.get("COURSE_HOME") or platformdirs.user_data_dir("transformer-course", False))


def own_folder() -> Path:
    """Where answers that run in lib's place are kept (lib.lesson.own); COURSE_OWN names another for a headless run."""
    return Path(os.environ.get("COURSE_OWN") or home() / "own")


def load(lesson: str) -> dict[str, Guess]:
    """The guesses kept for one lesson. A file that is damaged or cannot be read costs one line; nothing is lost."""
    return read_or_tell(_path(lesson), _guess, _what(lesson))


def save(lesson: str, guesses: dict[str, Guess]) -> None:
    """Keep one lesson's guesses, beside those that another kernel has kept meanwhile; a known outcome is final.

    A folder that cannot be written costs one line, not the lesson.
    """
    path = _path(lesson)
    try:
        with locked(path):
            kept = read_kept(path, _guess, _what(lesson))
            final = {key: guess for key, guess in kept.items() if guess.right is not None}
            write_json(path, {key: asdict(guess) for key, guess in (kept | guesses | final).items()})
    except OSError as problem:
        why = problem.strerror or problem
        print(f"(Your guess is not kept, {home()}: {why}; set COURSE_HOME to your own folder.)")


def everything() -> dict[str, dict[str, Guess]]:
    """All guesses, by lesson and key."""
    return {path.stem: load(path.stem) for path in sorted(_path("00").parent.glob("*.json"))}


def every(guesses: dict[str, dict[str, Guess]]) -> list[Guess]:
    """The guesses of all lessons in one list."""
    return [guess for of_lesson in guesses.values() for guess in of_lesson.values()]


@dataclass(frozen=True)
class Calibration:
    """How often right against how sure. Of `known` outcomes `right` were guessed; of those, `rated` came with a
    probability: `sure` on average, right at the `rate`.

    brier: mean of (sure - right)^2, 0 perfect, 0.25 what "50 % sure" of everything earns
    (Brier, 1950, "Verification of forecasts expressed in terms of probability"). The last three are None unrated.
    """

    known: int
    right: int
    rated: int
    sure: float | None = None
    rate: float | None = None
    brier: float | None = None


def calibration(guesses: Iterable[Guess]) -> Calibration:
    known = [guess for guess in guesses if guess.right is not None]
    right = sum(guess.right for guess in known)
    rated = [(guess.sure, guess.right) for guess in known if guess.sure is not None]
    if not rated:
        return Calibration(len(known), right, 0)
    means = (sum(each) / len(rated) for each in zip(*((s, r, (s - r) ** 2) for s, r in rated), strict=True))
    return Calibration(len(known), right, len(rated), *means)


def summary(guesses: Iterable[Guess]) -> str:
    """The calibration in plain words."""
    found = calibration(guesses)
    if not found.known:
        return "You have made no predictions yet. A guess costs nothing, and it shows you what surprises you."
    lines = [f"You were right in {found.right} of {found.known} predictions."]
    if found.rated:
        if found.rated < 5:
            verdict = "too few to say more; keep guessing"
        elif abs(found.rate - found.sure) <= 0.1:
            verdict = "well calibrated"
        else:
            verdict = "more sure than right" if found.sure > found.rate else "more right than you dared to think"
        lines.append(f"Where you said how sure: {found.sure:.0%} sure on average, {found.rate:.0%} right; {verdict}.")
        lines.append(f"Brier score {found.brier:.2f} (0 is perfect; always saying 50% earns 0.25).")
    return "\n".join(lines)


def _path(lesson: str) -> Path:
    return home() / "guesses" / f"{lesson}.json"


def _what(lesson: str) -> str:
    return f"Your guesses for lesson {lesson}"


def _guess(guess: str, sure: float | None = None, right: bool | None = None) -> Guess:
    if not isinstance(guess, str) or not (sure is None or (type(sure) in (int, float) and 0 <= sure <= 1)):
        raise TypeError("not a guess")
    if not (right is None or isinstance(right, bool)):
        raise TypeError("not an outcome")
    return Guess(guess, sure, right)
