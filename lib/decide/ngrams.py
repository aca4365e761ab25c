"""The strongest language model without a network: a table of what followed the last few tokens."""

import torch
from torch import Tensor


def witten_bell(rows: Tensor, asked: Tensor, vocab_size: int) -> Tensor:
    """The chance that n-grams give to what came: (M,), float64.

    rows: texts to count, (R, N) tokens each. asked: (M, n), n - 1 tokens of context and the one that came. The chance
    after a context of length k leans on that after k - 1: (c + kinds · p) / (total + kinds), with c how often the token
    came there, kinds how many different ones did, and p the shorter context's chance (Witten and Bell 1991, method C,
    interpolated); the shortest leans on 1/V. A context that never occurred leaves p as it is.
    """
    chance = torch.full((len(asked),), 1 / vocab_size, dtype=torch.float64)
    for n in range(1, asked.size(1) + 1):
        seen, count = _keys(rows.unfold(1, n, 1), vocab_size).flatten().unique(return_counts=True)
        context, which, kinds = (seen // vocab_size).unique(return_inverse=True, return_counts=True)
        total = torch.zeros_like(context).index_add(0, which, count)
        key = _keys(asked[:, -n:], vocab_size)  # (M,)
        times, there = _beside(seen, count, key), _beside(context, total, key // vocab_size)
        others = _beside(context, kinds, key // vocab_size)
        chance = torch.where(there > 0, (times + others * chance) / (there + others).clamp_min(1), chance)
    return chance


def _keys(grams: Tensor, vocab_size: int) -> Tensor:
    """(…, n) tokens as one number each, (…)."""
    return sum(grams[..., -1 - i] * vocab_size**i for i in range(grams.size(-1)))


def _beside(known: Tensor, values: Tensor, asked: Tensor) -> Tensor:
    """What stands beside each number in a sorted table; 0 where it is not there."""
    at = torch.searchsorted(known, asked).clamp_max(len(known) - 1)
    return torch.where(known[at] == asked, values[at], 0).double()
