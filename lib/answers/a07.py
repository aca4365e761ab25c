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


def sample(logits, temperature, top_k, top_p, generator):
    logits = logits / temperature  # (B, V)
    if top_k is not None:
        least = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None:
        ranked, order = logits.softmax(-1).sort(descending=True)  # (B, V) each
        beyond = ranked.cumsum(-1) - ranked >= top_p  # (B, V): the likelier ones have reached it
        gone = torch.zeros_like(beyond).scatter(-1, order, beyond)  # (B, V)
        logits = logits.masked_fill(gone, -math.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]  # (B,)


class Cache:
    def __init__(self):
        self.k = self.v = None

    def attend(self, q, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k], dim=2)  # (B, H, S, Dh)
        self.v = v if self.v is None else torch.cat([self.v, v], dim=2)  # (B, H, S, Dh)
        T, S = q.size(2), self.k.size(2)
        seen = torch.ones(T, S, dtype=torch.bool).tril(S - T)  # (T, S): all old ones, and the new up to itself
        scores = q @ self.k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, H, T, S)
        return scores.masked_fill(~seen, -math.inf).softmax(-1) @ self.v  # (B, H, T, Dh)


def write_text(read, prompt, n, choose):
    text = new = prompt  # (B, T)
    for _ in range(n):
        new = choose(read(new)[:, -1])[:, None]  # (B, 1)
        text = torch.cat([text, new], dim=1)
    return text


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
    "07.sample": Answer(sample, (
        Mutant("greedy", "torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]", "logits.argmax(-1)",
               "nothing is drawn"),
        Mutant("hotter is colder", "logits / temperature", "logits * temperature", "own likeliest"),
        Mutant("no temperature", "logits / temperature", "logits / 1", "own likeliest"),
        Mutant("top-k idle", "logits = logits.masked_fill(logits < least, -math.inf)",
               "logits.masked_fill(logits < least, -math.inf)", "own likeliest"),
        Mutant("top-k one more", "logits.topk(top_k).values", "logits.topk(min(top_k + 1, logits.size(1))).values",
               "own likeliest"),
        Mutant("one too many unless one", "logits.topk(top_k).values", "logits.topk(top_k + (top_k > 1)).values",
               "one token too many"),
        Mutant("top-k of the batch", "logits.topk(top_k).values[:, -1:]", "logits.flatten().topk(top_k).values[-1]",
               "probability tensor"),
        Mutant("top-k by zero", "logits < least, -math.inf", "logits < least, 0.0", "own likeliest"),
        Mutant("top-p stops early", "ranked.cumsum(-1) - ranked >= top_p",
               "(ranked.cumsum(-1) > top_p) & (ranked.cumsum(-1) > ranked)", "past top_p is missing"),
        Mutant("top-p idle", "gone, -math.inf", "gone & False, -math.inf", "own likeliest"),
        Mutant("top-p before the temperature", "logits.softmax(-1).sort", "(logits * temperature).softmax(-1).sort",
               "before the temperature"),
        Mutant("not put back", "torch.zeros_like(beyond).scatter(-1, order, beyond)", "beyond", "own likeliest"),
        Mutant("top-p of all", """\
    if top_k is not None:
        least = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None:
        ranked, order = logits.softmax(-1)""", """\
    whole = logits.softmax(-1)
    if top_k is not None:
        least = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None:
        ranked, order = whole""", "what top_k has left"),
        Mutant("uniform among the kept", "logits.softmax(-1), 1, gen", "(logits > -math.inf).float(), 1, gen",
               "own likeliest"),
        Mutant("one draw for all rows", "torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]",
               "torch.multinomial(logits.softmax(-1)[:1], 1, generator=generator)[:, 0].expand(len(logits))",
               "own likeliest"),
        Mutant("another generator", "1, generator=generator", "1", "from `generator` alone"),
        Mutant("a column", "[:, 0]  # (B,)", "", "shape of what was drawn"),
        Mutant("forgot return", "    return torch", "    torch", "Did you forget `return`?"),
    )),
    "07.cache": Answer(Cache, (
        Mutant("forgets the keys", "k if self.k is None else torch.cat([self.k, k], dim=2)", "k", "raised"),
        Mutant("forgets everything", "        T, S =", "        self.k, self.v = k, v\n        T, S =",
               "sees only itself"),
        Mutant("no mask", ".tril(S - T)", "", "without its mask"),
        Mutant("mask in the wrong corner", ".tril(S - T)", ".tril()", "as if all had been read at once"),
        Mutant("mask for the prompt only", ".tril(S - T)", ".tril(S - T if S == T else S)", "In which corner"),
        Mutant("not itself", ".tril(S - T)", ".tril(S - T - (S > T))", "does not see itself"),
        Mutant("new ones first", "torch.cat([self.v, v], dim=2)", "torch.cat([v, self.v], dim=2)",
               "in the order in which they came"),
        Mutant("no scale", " / math.sqrt(q.size(-1))", "", "not divided by the square root"),
        Mutant("one memory for all", """\
        self.k = k if self.k is None else torch.cat([self.k, k], dim=2)  # (B, H, S, Dh)
        self.v = v if self.v is None else torch.cat([self.v, v], dim=2)  # (B, H, S, Dh)
""", """\
        kept = Cache.attend.__dict__
        kept["k"] = torch.cat([kept["k"], k], dim=2) if kept else k
        kept["v"] = torch.cat([kept["v"], v], dim=2) if "v" in kept else v
        self.k, self.v = kept["k"], kept["v"]
""", "share one memory"),
        Mutant("keys for values", "softmax(-1) @ self.v", "softmax(-1) @ self.k", "causal attention"),
        Mutant("forgot return", "return scores", "scores", "Did you forget `return`?"),
    )),
    "07.write_text": Answer(write_text, (
        Mutant("reads all again", "read(new)", "read(text)", "nothing twice"),
        Mutant("first position", "read(new)[:, -1]", "read(new)[:, 0]", "*last* position"),
        Mutant("greedy by itself", "choose(read(new)[:, -1])", "read(new)[:, -1].argmax(-1)", "second likeliest"),
        Mutant("one too few", "range(n)", "range(n - 1)", "shape of the text"),
        Mutant("only the new", "return text", "return text[:, prompt.size(1):]", "Only the new tokens"),
        Mutant("reads the last as well", "    return text", "    read(new)\n    return text", "nobody asks"),
        Mutant("prompt one by one", "    for _ in range(n):",
               "    for t in range(prompt.size(1) - 1 if n else 0):\n        read(prompt[:, t : t + 1])\n"
               "    new = prompt[:, -1:]\n    for _ in range(n):", "at once"),
        Mutant("the prompt forgotten", "text = new = prompt", "text = prompt\n    new = prompt[:, -1:]",
               "first new token is wrong"),
        Mutant("one row for all", "choose(read(new)[:, -1])[:, None]",
               "choose(read(new)[:, -1])[:1, None].expand(len(prompt), 1)", "first new token is wrong"),
        Mutant("chooses twice", "new = choose(read(new)[:, -1])[:, None]",
               "logits = read(new)[:, -1]\n        choose(logits)\n        new = choose(logits)[:, None]",
               "once for each"),
        Mutant("forgot return", "    return text", "    text", "Did you forget `return`?"),
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
