"""Functions held back for *write the test* exercises: right ones and broken ones, with parameters drawn anew.

A learner's copy of the course has the functions of lib.exercises, and could tell each by what it returns. These it has
not. Each is a near relation of one that is known, broken (or right) for every input that shows anything at all.
"""

import functools
import hashlib
import inspect
import math
import sys
from collections.abc import Callable

import torch

from lib.exercises import l02, l04, l05, l06, l07, l08, l09, l10, l11, l12
from lib.exercises.exercise import Exercise
from lib.exercises.properties import integer, verdicts

MISSED = "It misses a broken one that we keep back, a near relation of those that you know."
ACCUSED = "It says True to a correct one that we keep back, a near relation of those that you know."


def share(rng, low: float, high: float) -> float:
    """One number between two."""
    return low + (high - low) * torch.rand((), generator=rng).item()


def peeking(rng):
    width, slope, some, step = integer(rng, 2, 6), share(rng, 0.1, 1), share(rng, 0.3, 0.9), integer(rng, 1, 3)

    def window(q, k, v):
        T = q.shape[-2]
        return l02._attend(q, k, v, torch.ones(T, T, dtype=torch.bool).tril().triu(1 - width))

    def fading(q, k, v):  # ALiBi: further back counts less
        T = q.shape[-2]
        far = (torch.arange(T)[:, None] - torch.arange(T)).clamp_min(0)  # (T, T)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) - slope * far
        return scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -math.inf).softmax(-1) @ v

    def partly(q, k, v):
        return (1 - some) * l02._attend(q, k, v) + some * l02._no_mask(q, k, v)

    def ahead(q, k, v):
        T = q.shape[-2]
        return l02._attend(q, k, v, torch.ones(T, T, dtype=torch.bool).tril(step))

    return [window, fading], [partly, ahead]


def leaking(rng):
    width, layer, gain, seed = integer(rng, 2, 6), integer(rng, 0, 1), share(rng, 0.7, 1.5), integer(rng, 5, 10**6)
    narrow = l04._language_model(lambda i, T: l04._tri(T) & ~l04._tri(T, -width), gain=gain, seed=seed)
    plain = l04._language_model(gain=gain, seed=seed + 1)
    open_ = l04._language_model(lambda i, T: l04._all(T) if i == layer else l04._tri(T), gain=gain, seed=seed)
    mixed = l04._language_model(axes=(0, -1), gain=gain, seed=seed)
    return [narrow, plain], [open_, mixed]


def averaging(rng):
    factor, power = share(rng, 1.2, 3), share(rng, 0.3, 0.7)

    def backwards(grads, counts):
        return l05._right(grads[::-1], counts[::-1])

    def scaled(grads, counts):
        return factor * l05._right(grads, counts)

    def bent(grads, counts):
        return l05._right(grads, [c**power for c in counts])

    return [backwards], [scaled, bent]


def sharing(rng):
    turn = integer(rng, 1, 5)

    def turned(rank, size, rows):
        return l06._every_nth((rank + turn) % size, size, rows)

    def one_short(rank, size, rows):
        return turned(rank, size, rows)[rank == turn % size :]

    return [turned], [one_short]


def cutting(rng):
    more = share(rng, 0.5, 2)

    def by_order(logits, k):
        keep = logits.argsort(descending=True).argsort() < k
        return torch.where(keep, logits, -math.inf)

    def louder(logits, k):
        return l07._top_k(logits, k) + more

    return [by_order], [louder]


def caching(rng):
    heat = share(rng, 1.5, 3)

    def through_zero(q, k, v, past_k, past_v):
        return l07._cache(2 * q, k / 2, v, past_k / 2, past_v)

    def hot(q, k, v, past_k, past_v):
        return l07._cache(heat * q, k, v, past_k, past_v)

    return [through_zero], [hot]


def seeing(rng):
    scale, leak, reach = share(rng, 1, 3), share(rng, 0.3, 0.8), integer(rng, 1, 2)

    def louder(x):
        return scale * l08._sees(x)

    def shining(x):
        return l08._sees(x) + leak * x[:1]

    def near(x):
        return l08._layer(l08._placed(x), l08._near(x.shape[1], reach))

    return [louder], [shining, near]


def scoring(rng):
    beta = share(rng, 1.6, 3) ** (2 * integer(rng, 0, 1) - 1)

    def swapped(said, wanted):  # F1 is the same both ways
        return l09._right(wanted, said)

    def leaning(said, wanted):
        precision, recall = l09._precision(said, wanted), l09._recall(said, wanted)
        below = beta**2 * precision + recall
        return (1 + beta**2) * precision * recall / below if below else 0.0

    return [swapped], [leaning]


def counting(rng):
    factor, offset = integer(rng, 2, 5), integer(rng, 1000, 10**6)

    def other_order(L, H, K, Dh, T, batch, width):
        return int(width) * int(batch) * int(T) * int(Dh) * int(K) * int(L) * 2

    def too_many(*sizes):
        return factor * l10._right(*map(int, sizes))

    def and_some(*sizes):
        return l10._right(*map(int, sizes)) + offset

    return [other_order], [too_many, and_some]


def masking(rng):
    late = integer(rng, 1, 2)

    def copied(tokens, prompt, T):
        return l11._right(tokens.clone(), prompt, T).clone()

    def later(tokens, prompt, T):
        y = l11._wanted(tokens, prompt, T)
        y[prompt - 1 : prompt - 1 + late] = l11.IGNORE
        return y

    return [copied], [later]


def thawing(rng):
    rate, drift = share(rng, 0.02, 0.2), share(rng, 0.9, 0.99)

    def slower(W, A, B, x):
        _, a, b = l11._gradients(W, A, B, x)
        return W.clone(), A - rate * a, B - rate * b

    def drifting(W, A, B, x):
        return (drift * W, *slower(W, A, B, x)[1:])

    return [slower], [drifting]


def hurrying(rng):
    times = integer(rng, 2, 4)

    def right(events):
        return list(l12._right_otherwise(list(events)))

    def many_times(events):
        return [order for order in l12._right(events) for _ in range(times)]

    return [right], [many_times]


def _test(make: Callable, arguments: int) -> Callable:
    def test(answer, rng):
        right, wrong = make(rng)
        cases = [(f, True, MISSED) for f in wrong] + [(f, False, ACCUSED) for f in right]
        # One of as many arguments as those that are known, and of no telling name.
        names = ", ".join(f"a{i}" for i in range(arguments))
        shelter = eval(f"lambda f: lambda {names}: f({names})")  # ours, and nothing else in it
        verdicts(lambda f: answer(shelter(f)), rng, cases)

    return test


TESTS = {
    "02.catches_peeking": _test(peeking, 3),
    "04.catches_leak": _test(leaking, 1),
    "05.catches_wrong_average": _test(averaging, 2),
    "06.catches_wrong_share": _test(sharing, 3),
    "07.catches_idle_top_k": _test(cutting, 2),
    "07.catches_bad_cache": _test(caching, 5),
    "08.catches_blind": _test(seeing, 1),
    "09.catches_bad_rouge": _test(scoring, 2),
    "10.catches_heads": _test(counting, 7),
    "11.catches_mask": _test(masking, 3),
    "11.catches_thaw": _test(thawing, 4),
    "12.catches_hasty": _test(hurrying, 1),
}


def held(exercise: Exercise) -> Callable | None:
    """What must hold as well for more than half of an exercise's points, where answers are graded."""
    return TESTS.get(exercise.id)


@functools.cache
def version(exercise: Exercise) -> str:
    """The version of an exercise's checks, with those that are held back."""
    if exercise.id not in TESTS:
        return exercise.version
    source = inspect.getsource(sys.modules[__name__])
    return hashlib.sha256(f"{exercise.version}/{source}".encode()).hexdigest()[:12]
