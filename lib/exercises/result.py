"""Put an answer to the test: `evaluate`, and what comes of it.

The same for the lesson, the mutation tests and a judge that stands outside: it calls the answer, which may be a
function here or a handle to one elsewhere, and looks at what comes back.
"""

import hashlib
from dataclasses import dataclass

import torch

from lib.exercises.properties import Guarded
from lib.exercises.verdict import NotAttempted, Wrong


@dataclass(frozen=True)
class Outcome:
    """What became of one property. crashed: the test itself failed, so a person should look. withheld: it holds, but
    says too little by itself to earn its points.
    """

    name: str
    points: int
    out_of: int
    message: str = ""
    detail: str = ""
    crashed: bool = False
    withheld: bool = False

    @property
    def passed(self):
        return self.points == self.out_of


@dataclass(frozen=True)
class Result:
    """points of out_of, and an outcome per property, in order. attempted: it is more than the stub."""

    points: int
    out_of: int
    attempted: bool
    outcomes: tuple

    @property
    def first_failure(self):
        return next((o for o in self.outcomes if not o.passed and not o.withheld), None)


def evaluate(exercise, answer, seed=0, held=None, on_bench=False):
    """Judge an answer to an exercise. Prints nothing and never raises for what the answer does.

    Each property draws its inputs from a generator of its own, made from seed, exercise and property: the
    same seed gives the same inputs, whatever other properties there are. held: a further test, (answer, rng), without
    which no more than half of the points are to be had. on_bench: the answer is on its exercise's bench already.
    """
    if exercise.is_value and answer is ...:
        return nothing(exercise, "")
    if callable(answer) == exercise.is_value:
        is_what = "a function, not a value" if exercise.is_value else f"{type(answer).__name__}, not a function"
        return nothing(exercise, f"`{exercise.name}` is {is_what}. Run the answer cell.", attempted=True)
    answer = answer if on_bench else exercise.on_bench(answer)
    outcomes, attempted = [], False
    for p in exercise.properties:
        start = _number(seed, exercise.id, p.name)
        with torch.random.fork_rng(devices=[]):
            # An answer that draws from the global generator is repeatable too. (torch.manual_seed would also queue
            # a call for each kind of GPU, with a stack trace, for good.)
            torch.default_generator.manual_seed(start)
            try:
                p.test(answer if exercise.is_value else Guarded(answer), torch.Generator().manual_seed(start))
                outcomes.append(Outcome(p.name, p.points, p.points))
            except NotAttempted:
                outcomes.append(Outcome(p.name, 0, p.points, "This part still raises NotImplementedError."))
                continue
            except Wrong as wrong:
                outcomes.append(Outcome(p.name, 0, p.points, wrong.message, wrong.detail))
            except Exception as error:
                message = "The check cannot make sense of what your code returned. Is it of the right type?"
                detail = f"{type(error).__name__}: {error}".split("\n")[0]
                outcomes.append(Outcome(p.name, 0, p.points, message, detail, crashed=True))
        attempted = True
    outcomes = _earned(exercise, outcomes)
    if held and 2 * sum(o.points for o in outcomes) > exercise.points:
        try:
            held(Guarded(answer), torch.Generator().manual_seed(_number(seed, exercise.id, "held")))
        except Exception as error:
            message = error.message if isinstance(error, Wrong) else "One that we keep back could not be told."
            outcomes = _capped(outcomes, exercise.points // 2, message)
    return Result(sum(o.points for o in outcomes), exercise.points, attempted, tuple(outcomes))


WITHHELD = ("This holds, but a table of known results, or the right form alone, would do for it: its points count once "
            "something holds that takes more.")


def _earned(exercise, outcomes):
    """The outcomes as they count: where nothing that is proof holds, at most a quarter of the points is to be had."""
    proof = [p.proof for p in exercise.properties]
    if not any(proof) or any(sure and o.passed for sure, o in zip(proof, outcomes, strict=True)):
        return outcomes
    return _capped(outcomes, exercise.points // 4, WITHHELD)


def _capped(outcomes, room, message):
    """The outcomes with so many points at most; the rest are withheld."""
    earned = []
    for o in outcomes:
        if o.points > room:
            o = Outcome(o.name, 0, o.out_of, message, withheld=True)
        room -= o.points
        earned.append(o)
    return earned


def nothing(exercise, message, attempted=False):
    """The result of an answer that could not be put to the test: no points, and why."""
    outcomes = tuple(Outcome(p.name, 0, p.points, message) for p in exercise.properties)
    return Result(0, exercise.points, attempted, outcomes)


def _number(*parts):
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")
