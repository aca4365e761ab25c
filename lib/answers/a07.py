"""Lesson 07, generation: references and mutants."""

import math

import torch

from lib.answers import Answer, Mutant


def nucleus(probabilities, p):
    ranked, order = probabilities.sort(descending=True)  # (V,) each
    before = ranked.cumsum(0) - ranked  # (V,): what the likelier ones have reached
    keep = before < p  # (V,)
    kept = torch.zeros_like(probabilities)  # (V,)
    kept[order[keep]] = ranked[keep]
    return kept / kept.sum()


def catches_idle_top_k(cut):
    generator = torch.Generator().manual_seed(0)
    for k in (1, 2, 3, 7, 19):
        logits = torch.randn(20, generator=generator)  # (V,)
        at = logits.topk(k).indices  # (k,)
        want = torch.full_like(logits, -math.inf)  # (V,)
        want[at] = logits[at]
        if not torch.equal(cut(logits.clone(), k), want):
            return True
    return False


def catches_bad_cache(attend):
    T, Dh = 10, 8
    q, k, v = torch.randn(3, T, Dh, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    want = (q @ k.T / math.sqrt(Dh)).masked_fill(~mask, -math.inf).softmax(-1) @ v  # (T, Dh): no cache
    for sizes in ([10], [1] * 10, [4, 6]):
        pieces, a = [], 0
        for n in sizes:
            b = a + n
            pieces.append(attend(q[a:b], k[a:b], v[a:b], k[:a], v[:a]))  # (n, Dh)
            a = b
        if not torch.allclose(torch.cat(pieces), want, atol=1e-5):
            return True
    return False


def pad_left(prompts, filler):
    T = max(len(prompt) for prompt in prompts)
    padding = torch.tensor([T - len(prompt) for prompt in prompts])  # (B,)
    tokens = torch.tensor([[filler] * (T - len(prompt)) + prompt for prompt in prompts])  # (B, T)
    count = torch.arange(T) - padding[:, None]  # (B, T)
    return tokens, count.clamp_min(0), count >= 0


ANSWERS = {
    "07.nucleus": Answer(nucleus, (
        Mutant("stops one early", "before < p", "ranked.cumsum(0) < p", "past p is missing"),
        Mutant("one too many", "before < p", "before - ranked.roll(1) * (torch.arange(len(ranked)) > 0) < p",
               "One token too many"),
        Mutant("not divided", "kept / kept.sum()", "kept", "add up to 1"),
        Mutant("sorted", "kept[order[keep]] = ranked[keep]", "kept[keep] = ranked[keep]", "The result is sorted"),
        Mutant("unlikely ones", "descending=True", "descending=False", "from the likeliest down"),
        Mutant("softmax again", "kept / kept.sum()", "kept.softmax(0)", "Yours differ"),
        Mutant("those above 1 - p", "before < p", "ranked > 1 - p", "past p is missing"),
        Mutant("never all", "before < p", "(before < p) & (torch.arange(len(ranked)) < 3)", "With p = 1 nothing"),
        Mutant("in place", "kept[order[keep]] = ranked[keep]",
               "kept[order[keep]] = ranked[keep]\n    probabilities.copy_(kept)", "in place"),
        Mutant("as a list", "return kept / kept.sum()", "return (kept / kept.sum()).tolist()", "tensor is expected"),
    )),
    "07.catches_idle_top_k": Answer(catches_idle_top_k, (
        Mutant("always True", "return False", "return True", "It says True to a correct top-k"),
        Mutant("never True", "return True", "return False", "does nothing: all logits"),
        Mutant("large k only", "(1, 2, 3, 7, 19)", "(7, 19)", "small k, below 5"),
        Mutant("one k only", "(1, 2, 3, 7, 19)", "(6,)", "small k, below 5"),
        Mutant("sorted logits", "torch.randn(20, generator=generator)",
               "torch.randn(20, generator=generator).sort(descending=True).values", "keeps the *first* k"),
        Mutant("counts only", "not torch.equal(cut(logits.clone(), k), want)",
               "(cut(logits.clone(), k) > -math.inf).sum() != k", "keeps the *first* k"),
        Mutant("looks only at what is kept", "not torch.equal(cut(logits.clone(), k), want)",
               "not torch.equal(cut(logits.clone(), k)[at], logits[at])", "does nothing: all logits"),
        Mutant("looks only at the places", "not torch.equal(cut(logits.clone(), k), want)",
               "not torch.equal(cut(logits.clone(), k) > -math.inf, want > -math.inf)", "changes their logits"),
        Mutant("looks only for a change", "not torch.equal(cut(logits.clone(), k), want)",
               "torch.equal(cut(logits.clone(), k), logits)", "one token too few"),
        Mutant("expects zeros", "-math.inf)  # (V,)", "0.0)  # (V,)", "It says True to a correct top-k"),
        Mutant("compares chances loosely", "not torch.equal(cut(logits.clone(), k), want)",
               "not torch.allclose(cut(logits.clone(), k).softmax(0), want.softmax(0), atol=0.9)",
               "does nothing: all logits"),
        Mutant("returns what it got", "return True", "return want", "True or False is expected"),
    )),
    "07.catches_bad_cache": Answer(catches_bad_cache, (
        Mutant("always True", "return False", "return True", "It says True to a correct cache"),
        Mutant("never True", "return True", "return False", "skips the mask while it reads the prompt"),
        Mutant("one by one only", "([10], [1] * 10, [4, 6])", "([1] * 10,)", "skips the mask while it reads"),
        Mutant("the prompt only", "([10], [1] * 10, [4, 6])", "([10],)", "drops the mask once something"),
        Mutant("prompt, then one by one", "([10], [1] * 10, [4, 6])", "([10], [5] + [1] * 5)",
               "drops the mask once something"),
        Mutant("last position only", "torch.cat(pieces), want,", "torch.cat(pieces)[-1], want[-1],",
               "skips the mask while it reads the prompt"),
        Mutant("exact", "torch.allclose(torch.cat(pieces), want, atol=1e-5)", "torch.equal(torch.cat(pieces), want)",
               "It says True to a correct cache"),
        Mutant("no past handed over", "k[:a], v[:a]", "k[:0], v[:0]", "It says True to a correct cache"),
        Mutant("expects no mask", ".tril()", "", "It says True to a correct cache"),
        Mutant("far too lenient", "atol=1e-5", "atol=10", "skips the mask while it reads the prompt"),
        Mutant("returns a tensor", "return True", "return want", "True or False is expected"),
    )),
    "07.pad_left": Answer(pad_left, (
        Mutant("on the right", "[filler] * (T - len(prompt)) + prompt", "prompt + [filler] * (T - len(prompt))",
               "fillers are on the right"),
        Mutant("fillers count", "count.clamp_min(0), count", "torch.arange(T).expand(len(prompts), T), count",
               "as if the fillers counted"),
        Mutant("negative positions", "count.clamp_min(0)", "count", "negative positions"),
        Mutant("inverted", "count >= 0", "count < 0", "the wrong way round"),
        Mutant("the first does not count", "count >= 0", "count > 0", "real should be"),
        Mutant("by the filler", "count >= 0", "tokens != filler", "Go by the lengths"),
        Mutant("zeros", "[filler] *", "[0] *", "the filler that was asked for"),
        Mutant("from one", "count.clamp_min(0)", "(count + 1).clamp_min(0)", "positions should be"),
        Mutant("as numbers", "count >= 0", "(count >= 0).long()", "dtype of real"),
        Mutant("two things", "return tokens, count.clamp_min(0), count >= 0", "return tokens, count >= 0",
               "Three tensors are expected"),
        Mutant("cut to the shortest", "T = max(len(prompt) for prompt in prompts)",
               "T = min(len(prompt) for prompt in prompts)\n    prompts = [prompt[-T:] for prompt in prompts]",
               "shape of tokens"),
    )),
}
