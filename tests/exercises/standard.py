"""Answers that take no idea, made for every exercise: what they earn is what its points are worth at the least.

    python tests/exercises/standard.py [--seeds 12]

prints a table of points. *Empty* returns None; *constant* what the reference returned for the first input it ever saw;
*echo* its first argument; *shape* zeros where the reference has numbers, all else right; *memoriser* what the reference
returned for any input that could have been seen (here: in checks with other seeds), and else the same as *shape*, or
as *constant*.
"""

import argparse
import sys

import numpy as np
import torch

from lib.answers import load, reference_source
from lib.exercises.exercise import Exercise, exercises
from lib.exercises.result import evaluate

NAMES = ("empty", "constant", "echo", "shape", "memoriser")
SEEN = 12  # checks with other seeds that a memoriser has seen


def key(value) -> object:
    """A value as a key of a table; a function is one like any other."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return ("tensor", str(value.dtype), tuple(value.shape), value.flatten().tolist().__repr__())
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.shape, repr(value.tolist()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(key, value))
    if isinstance(value, dict):
        return ("dict", *((key(k), key(v)) for k, v in value.items()))
    if callable(value):
        return "function"
    return repr(value)


def zeroed(value):
    """The right form with nothing in it."""
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, np.ndarray):
        return np.zeros_like(value)
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return type(value)(0)
    if isinstance(value, str):
        return ""
    if isinstance(value, list | tuple):
        return type(value)(map(zeroed, value))
    if isinstance(value, dict):
        return {k: zeroed(v) for k, v in value.items()}
    return value


def applies(exercise: Exercise) -> bool:
    """To functions; an answer that is one letter, or a class with a state, is nothing to look up in a table."""
    return not exercise.is_value and not isinstance(_reference(exercise), type)


def _reference(exercise: Exercise):
    return load(reference_source(exercise.id), exercise.name)


class Recorder:
    """The reference, and all that it was asked and said."""

    def __init__(self, exercise: Exercise):
        self.reference, self.table, self.last = _reference(exercise), {}, None

    def __call__(self, *args, **kwargs):
        asked = key((args, kwargs))
        said = self.reference(*args, **kwargs)
        self.table.setdefault(asked, said)
        return said


def mutants(exercise: Exercise, seen: int = SEEN) -> dict:
    """{name: function}"""
    recorder = Recorder(exercise)
    for seed in range(seen):
        evaluate(exercise, recorder, f"seen {seed}")
    table, reference = recorder.table, recorder.reference
    first = next(iter(table.values()))

    def shape(*args, **kwargs):
        return zeroed(reference(*args, **kwargs))

    def memoriser(*args, **kwargs):
        asked = key((args, kwargs))
        return table[asked] if asked in table else shape(*args, **kwargs)

    def memoriser_of_constants(*args, **kwargs):
        return table.get(key((args, kwargs)), first)

    return {
        "empty": lambda *args, **kwargs: None,
        "constant": lambda *args, **kwargs: first,
        "echo": lambda *args, **kwargs: next(iter((*args, *kwargs.values())), None),
        "shape": shape,
        "memoriser": memoriser,
        "memoriser 2": memoriser_of_constants,
    }


def points(exercise: Exercise, seeds: int = 3) -> dict[str, float]:
    """{mutant: the points it earns of this exercise, on average over seeds that it has not seen}"""
    found = {}
    for name, mutant in mutants(exercise).items():
        each = [evaluate(exercise, mutant, f"fresh {seed}").points for seed in range(seeds)]
        found[name] = sum(each) / len(each)
    found["memoriser"] = max(found["memoriser"], found.pop("memoriser 2"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    total, whole = dict.fromkeys(NAMES, 0.0), 0
    print(f"{'exercise':28}{'points':>7}" + "".join(f"{name:>11}" for name in NAMES))
    for e in filter(applies, exercises()):
        got = points(e, seeds)
        whole += e.points
        for name in NAMES:
            total[name] += got[name]
        over = "  *" if max(got.values()) > e.points / 4 else ""
        print(f"{e.id:28}{e.points:7}" + "".join(f"{got[name]:11.2f}" for name in NAMES) + over, flush=True)
    print(f"{'all':28}{whole:7}" + "".join(f"{total[name]:11.2f}" for name in NAMES))


if __name__ == "__main__":
    sys.exit(main())
