"""What a lesson's second cell calls: `lesson = start("02", preset, seed)`."""

import os
import random
import sys
import warnings
from typing import TypeVar

# Quiet and offline before anyone imports transformers, tokenizers or huggingface_hub: they read these once.
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm asks for widgets that no lesson shows

import torch  # noqa: E402

from lib import moved  # noqa: E402
from lib.device import describe, pick_device, resolve_preset, seed_everything  # noqa: E402
from lib.errors import CourseError  # noqa: E402
from lib.lesson import expectations, predictions, series  # noqa: E402
from lib.lesson.expectations import Claim  # noqa: E402
from lib.lesson.handmade import parts  # noqa: E402
from lib.lesson.predictions import Guess  # noqa: E402

T = TypeVar("T")
_NOT_GIVEN = object()


def start(number: str, preset: str = "auto", seed: int = 0) -> "Lesson":
    """Set up one lesson: silent offline libraries, one torch thread, the seed, the look of figures.

    COURSE_THREADS=n asks for n threads; small tensors are fastest on one. Raises CourseError for an unknown
    lesson, preset, or a seed that is no whole number of 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise CourseError(f"seed is a whole number of at most 64 bits, not {seed!r}; set it in the parameters cell")
    [found] = series.find([number])
    preset = resolve_preset(preset)
    if preset == "gpu":
        device = pick_device("auto")
        if device.type == "cpu":
            raise CourseError("preset gpu needs a CUDA or MPS device, this machine has none; use preset cpu")
    else:
        device = pick_device("cpu")
    torch.set_num_threads(_threads())
    print(f"Lesson {found.number}, {found.name}: preset {preset}.")
    if line := parts.standing():
        print(line)
    if predictions.own_folder().is_dir():
        from lib.lesson import own  # with the model and the checks, which are of no use where nothing is switched on

        own.begin(found.number)
    random.seed(seed)
    seed_everything(seed)
    _style()
    return Lesson(found.number, preset, seed, device)


class Lesson:
    """A running lesson: its preset, seed and device, its predictions and its claims."""

    def __init__(self, number: str, preset: str, seed: int, device: torch.device):
        self.number, self.preset, self.seed, self.device = number, preset, seed, device
        self._guesses = predictions.load(number)
        self._options: dict[str, dict[str, str]] = {}

    def __repr__(self) -> str:
        return f"<lesson {self.number}, preset {self.preset}>"

    def pick(self, *, smoke: T, cpu: T, gpu: T = _NOT_GIVEN) -> T:
        """The value for this run's preset; `gpu` is the same as `cpu` unless given."""
        return {"smoke": smoke, "cpu": cpu, "gpu": cpu if gpu is _NOT_GIVEN else gpu}[self.preset]

    def predict(
        self,
        key: str,
        question: str,
        options: dict[str, str],
        guess: str | None = None,
        sure: float | None = None,
    ) -> None:
        """Ask before the run decides. `guess` is a letter of `options`; `sure` is per cent, 0 to 100.

        The first guess counts: after the outcome is known it can no longer be changed.
        """
        self._options[key] = options
        print(f"Predict: {question}")
        for letter, text in options.items():
            print(f"  {letter}) {text}")
        kept = self._guesses.get(key)
        if guess is None:
            if kept is None:
                first = next(iter(options))
                print(f'To guess, set guess="{first}" and sure=70 (per cent) in this cell and run it.')
            else:
                print(f"Your guess: {_told(kept)}.")
            return
        letter = str(guess).strip().lower()
        certain = _probability(sure)
        if letter not in options:
            print(f"{guess!r} is not an option; guess one of: {', '.join(options)}.")
        elif certain is _NOT_GIVEN:
            print(f"sure={sure!r} is not a number from 0 to 100; how sure are you, in per cent?")
        elif kept is not None and kept.right is not None:
            print(f"The outcome is known already, so your first guess stays: {_told(kept)}.")
        else:
            self._guesses[key] = Guess(letter, certain)
            predictions.save(self.number, self._guesses)
            print(f"Your guess: {_told(self._guesses[key])}.")

    def reveal(self, key: str, outcome: str) -> None:
        """Tell what the run decided, and whether the guess was right."""
        if key not in self._options:
            raise CourseError(f"nothing was predicted under {key!r} yet; run the cell that asks first")
        options = self._options[key]
        if outcome not in options:
            raise CourseError(f"outcome {outcome!r} of {key!r} is not one of {', '.join(options)}")
        print(f"Outcome: {outcome}) {options[outcome]}")
        guess = self._guesses.get(key)
        if guess is None:
            return
        if guess.right is None:
            guess.right = guess.guess == outcome
            predictions.save(self.number, self._guesses)
        print(f"You guessed {_told(guess)}: {'right' if guess.guess == outcome else 'not this time'}.")

    def quote(self, id: str, preset: str | None = None) -> None:
        """Print what was measured for a claim that this run leaves out, under each preset or the one given."""
        print("\n".join(expectations.quoted(id, preset)))

    def calibration(self) -> None:
        """How often right against how sure, over all lessons so far."""
        print(predictions.summary(predictions.every(predictions.everything())))

    def expect(
        self,
        id: str,
        value: float,
        *,
        what: str,
        margin: float,
        digits: int = 2,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """Print whether a measured value lies in its committed band, and record it when measuring.

        what    the claim in words, e.g. "recall accuracy with attention"
        margin  how far beyond the measured seeds a healthy run may lie, in the value's unit
        digits  decimals in which the band is stated
        low, high  what is possible at all (an accuracy: 0 and 1), so that a band never goes beyond
        """
        if not id.startswith(f"{self.number}."):
            raise CourseError(f"claim {id!r} belongs to another lesson; ids here start with {self.number!r}")
        claim = Claim(id, what, margin, digits, low, high)
        value = float(value)
        device = self.device.type
        if self.preset != "smoke":
            machine = describe().get("GPU", "any CPU") if device == "cuda" else f"any {device.upper()}"
            expectations.record(claim, value, self.preset, device, machine)
        print(expectations.verdict(claim, value, self.preset, device))


def _told(guess: Guess) -> str:
    return guess.guess if guess.sure is None else f"{guess.guess}, {guess.sure:.0%} sure"


def _probability(sure: float | None) -> float | object | None:
    """Per cent to a probability; a fraction such as 0.7 is read as what was meant."""
    if sure is None:
        return None
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 100:
        return _NOT_GIVEN
    return float(sure) if 0 < sure < 1 else sure / 100


def _threads() -> int:
    text = os.environ.get("COURSE_THREADS", "1")
    if not text.isdecimal() or len(text) > 4 or int(text) < 1:
        raise CourseError(f"COURSE_THREADS={text!r} is not a number of threads; unset it or use 1")
    return int(text)


def _style() -> None:
    """The course's figure style, in a notebook only: a script has no use for pyplot's 0.7 seconds.

    A cell shows its last expression's value alone, whatever somebody's own IPython settings say.
    """
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        from lib.lesson import plotting

        plotting.style()
        shell.ast_node_interactivity = "last_expr"
        shell.set_custom_exc((TypeError, AttributeError), _show)


def _show(shell, kind: type, error: Exception, trace, tb_offset: int | None = None) -> None:
    """Show an error as IPython does, with a line below it where an old notebook asks for what is done otherwise now."""
    if line := moved.way(error):
        error.add_note(line)
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)
