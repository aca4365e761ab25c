"""Predict, then run: a learner's guesses, how sure they were, and how well the two agree."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from lib.course.files import read_kept, write_json


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
    """Where answers that run in lib's place are kept (lib.course.own); COURSE_OWN names another for a headless run."""
    return Path(os.environ.get("COURSE_OWN") or home() / "own")


def load(lesson: str) -> dict[str, Guess]:
    """The guesses kept for one lesson. A damaged file is set aside with one line, so that nothing is lost."""
    return read_kept(_path(lesson), _guess, f"Your guesses for lesson {lesson}")


def save(lesson: str, guesses: dict[str, Guess]) -> None:
    """Keep one lesson's guesses. A folder that cannot be written costs one line, not the lesson."""
    try:
        write_json(_path(lesson), {key: asdict(guess) for key, guess in guesses.items()})
    except OSError as problem:
        print(f"(Your guess is not kept, {home()}: {problem.strerror}; set COURSE_HOME to your own folder.)")


def everything() -> list[Guess]:
    """All guesses of all lessons."""
    return [guess for path in sorted(_path("00").parent.glob("*.json")) for guess in load(path.stem).values()]


def summary(guesses: list[Guess]) -> str:
    """How often right against how sure, in plain words, with the Brier score.

    Brier score: mean of (sure - right)^2, 0 perfect, 0.25 what "50 % sure" of everything earns
    (Brier, 1950, "Verification of forecasts expressed in terms of probability").
    """
    known = [guess for guess in guesses if guess.right is not None]
    if not known:
        return "You have made no predictions yet. A guess costs nothing, and it shows you what surprises you."
    hits = sum(guess.right for guess in known)
    lines = [f"You were right in {hits} of {len(known)} predictions."]
    rated = [guess for guess in known if guess.sure is not None]
    if rated:
        rate = sum(guess.right for guess in rated) / len(rated)
        sure = sum(guess.sure for guess in rated) / len(rated)
        brier = sum((guess.sure - guess.right) ** 2 for guess in rated) / len(rated)
        if len(rated) < 5:
            verdict = "too few to say more; keep guessing"
        elif abs(rate - sure) <= 0.1:
            verdict = "well calibrated"
        else:
            verdict = "more sure than right" if sure > rate else "more right than you dared to think"
        lines.append(f"Where you said how sure: {sure:.0%} sure on average, {rate:.0%} right; {verdict}.")
        lines.append(f"Brier score {brier:.2f} (0 is perfect; always saying 50% earns 0.25).")
    return "\n".join(lines)


def _path(lesson: str) -> Path:
    return home() / "guesses" / f"{lesson}.json"


def _guess(guess: str, sure: float | None = None, right: bool | None = None) -> Guess:
    if not isinstance(guess, str) or not (sure is None or isinstance(sure, int | float)):
        raise TypeError("not a guess")
    if not (right is None or isinstance(right, bool)):
        raise TypeError("not an outcome")
    return Guess(guess, sure, right)
