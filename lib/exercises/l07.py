"""Lesson 07, generation: the exercises."""

import math

import torch
import torch.nn.functional as F

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, dtype, finite, integer, normal, require, shape, truth
from lib.exercises.verdict import Wrong

# --- nucleus ------------------------------------------------------------------------------------------------


def _nucleus_by_hand(answer, rng):
    got = shape(answer(torch.tensor([0.15, 0.5, 0.05, 0.3]), 0.6), (4,))
    finite(got)
    require(differs(got, torch.tensor([0.0, 0.5, 0.0, 0.3])).any(),
            "What is kept does not add up to 1. Divide it by its sum.")
    require(differs(got, torch.tensor([0.0, 1.0, 0.0, 0.0])).any(),
            "The token that takes the sum past p is missing: the kept tokens must *reach* p together.")
    require(differs(got, torch.tensor([0.15, 0.5, 0.0, 0.3]) / 0.95).any(),
            "One token too many: stop as soon as the kept tokens reach p.")
    require(differs(got, torch.tensor([0.625, 0.375, 0.0, 0.0])).any(),
            "The result is sorted. Each chance must stay at its own token.")
    require(differs(got, torch.tensor([0.15, 0.5, 0.05, 0.3])).any(),
            "Nothing is cut. Do you sort, and add up, from the likeliest down?")
    close(got, torch.tensor([0.0, 0.625, 0.0, 0.375]),
          "Chances of 0.15, 0.5, 0.05, 0.3 and p = 0.6: the second and the fourth reach 0.8 together, and become 0.625 "
          "and 0.375. Yours differ.")


def _nucleus_one(answer, rng):
    probabilities = (3 * normal(rng, integer(rng, 5, 30))).softmax(0)  # (V,)
    got = finite(shape(answer(probabilities, 1e-6), probabilities.shape))
    want = F.one_hot(probabilities.argmax(), len(probabilities)).float()  # (V,)
    close(got, want, "With a tiny p exactly the likeliest token must stay, with a chance of 1.")
    close(answer(probabilities, 1.0), probabilities, "With p = 1 nothing may be cut.", atol=1e-4)


def _nucleus_fewest(answer, rng):
    for _ in range(5):
        probabilities = (2 * normal(rng, integer(rng, 20, 60))).softmax(0)  # (V,)
        ranked = probabilities.sort(descending=True).values
        n = integer(rng, 2, 12)
        p = (ranked[:n].sum() - ranked[n - 1] / 2).item()  # n tokens reach it, n - 1 do not
        got = finite(shape(answer(probabilities, p), probabilities.shape))
        kept = got > 0
        require(bool((got >= 0).all()), "A chance below 0.")
        require(probabilities[kept].sum() >= p, "The kept tokens do not reach p together.")
        require(int(kept.sum()) <= n, "Fewer tokens would reach p: keep no more than needed.")
        close(got[kept] * probabilities[kept].sum(), probabilities[kept],
              "Among the kept tokens the proportions have changed; only divide by their sum.")
        close(got.sum(), 1.0, "The chances must add up to 1.", atol=1e-4)


NUCLEUS = Exercise(
    id="07.nucleus",
    title="The likely ones, and no more",
    points=5,
    difficulty=2,
    minutes=10,
    prompt="""
Write `nucleus(probabilities, p)`. `probabilities` is (V,), one chance for each token, adding up to 1. Keep the
**fewest** likeliest tokens that together reach at least `p`; give all others a chance of exactly 0; divide what is
left by its sum. The result is (V,), each chance still at its own token. For chances 0.15, 0.5, 0.05, 0.3 and
`p = 0.6` it is 0, 0.625, 0, 0.375. At least one token always stays.
""",
    stub='''
def nucleus(probabilities, p):
    """(V,) chances -> (V,): the fewest likeliest that reach p, divided by their sum; 0 elsewhere."""
    raise NotImplementedError
''',
    properties=[
        Property("four tokens, by hand", 2, _nucleus_by_hand, proof=False),
        Property("never none, and all for p = 1", 1, _nucleus_one),
        Property("the fewest that reach p, in proportion", 2, _nucleus_fewest),
    ],
    ready=("lib.generation.cut_tail",),
    hints=(
        "Sort from the likeliest down and add up as you go. A token stays if those *before* it have not reached p yet.",
        "ranked, order = probabilities.sort(descending=True); before = ranked.cumsum(0) - ranked; keep = before < p.",
        "kept = torch.zeros_like(probabilities); kept[order[keep]] = ranked[keep]; return kept / kept.sum().",
    ),
)

# --- functions that an answer is to judge --------------------------------------------------------------------


def _judge(answer, rng, cases):
    """Ask the answer about each (function, whether it is broken, what a wrong verdict means), in an order of chance.

    Told in the order given: the first verdict that is wrong.
    """
    told = {}
    for i in torch.randperm(len(cases), generator=rng).tolist():
        told[i] = truth(answer(cases[i][0]))
    for i, (_, broken, says) in enumerate(cases):
        require(told[i] == broken, says)


# --- catches_idle_top_k -------------------------------------------------------------------------------------


def _top_k(logits, k):
    least = logits.topk(min(k, len(logits))).values[-1]
    return logits.masked_fill(logits < least, -math.inf)


def _top_k_by_rank(logits, k):
    rank = logits.argsort(descending=True).argsort()
    return torch.where(rank < k, logits, torch.tensor(-math.inf))


def _top_k_built(logits, k):
    values, at = logits.topk(min(k, len(logits)))
    return torch.full_like(logits, -math.inf).scatter(0, at, values)


def _idle(logits, k):
    logits.masked_fill(logits < logits.topk(min(k, len(logits))).values[-1], -math.inf)  # and thrown away
    return logits.clone()


def _one_more(logits, k):
    return _top_k(logits, k + 1)


def _one_fewer(logits, k):
    return _top_k(logits, max(1, k - 1))


def _smallest(logits, k):
    return logits.masked_fill(logits > logits.topk(min(k, len(logits)), largest=False).values[-1], -math.inf)


def _first_k(logits, k):
    return logits.masked_fill(torch.arange(len(logits)) >= k, -math.inf)


def _zero(logits, k):
    return logits.masked_fill(logits < logits.topk(min(k, len(logits))).values[-1], 0.0)


def _rescaled(logits, k):
    return _top_k(logits, k).log_softmax(0) * 0.5


def _idle_when_small(logits, k):
    return _top_k(logits, k) if k >= 5 else logits.clone()


SOUND_TOP_K = [
    (_top_k, False, "It says True to a correct top-k. What is kept keeps its logit; all else is -inf."),
    (_top_k_by_rank, False, "It says True to a correct top-k that goes by rank. Judge what comes back, not how it is "
                            "made."),
    (_top_k_built, False, "It says True to a correct top-k that builds a new tensor. Judge what comes back, not how it "
                          "is made."),
]


def _catches_idle(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K, (_idle, True, "It misses the top-k that does nothing: all logits come back as "
                                                     "they were.")])


def _catches_idle_small(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K, (_idle_when_small, True, "It misses a top-k that does nothing for small k, "
                                                                "below 5. Does your test try several k?")])


def _catches_count(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K,
                         (_one_more, True, "It misses a top-k that keeps one token too many."),
                         (_one_fewer, True, "It misses a top-k that keeps one token too few.")])


def _catches_which(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K,
                         (_first_k, True, "It misses one that keeps the *first* k tokens, likely or not. Give it "
                                          "logits that are not sorted."),
                         (_smallest, True, "It misses one that keeps the k *smallest* logits.")])


def _catches_values(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K,
                         (_zero, True, "It misses one that writes 0 in place of -inf: a logit of 0 is a chance, and "
                                       "often a good one."),
                         (_rescaled, True, "It misses one that keeps the right tokens and changes their logits.")])


CATCHES_IDLE_TOP_K = Exercise(
    id="07.catches_idle_top_k",
    title="Write the test: a top-k that does nothing",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
A well-known course shipped a top-k whose result was thrown away. It ran, it raised nothing, and it did nothing. Write
the test that catches it, and its cousins.

`cut(logits, k)` takes logits (V,), all different, and a whole number `k`. It must return (V,): the `k` largest logits
unchanged, each at its place, and `-inf` everywhere else. Write `catches_idle_top_k(cut)`: it calls `cut` on examples
that you make up, and returns **True if it is broken**, False if it is right. Several right ones and several broken ones
will be handed to it, in any order.
""",
    stub='''
def catches_idle_top_k(cut):
    """True if cut(logits (V,), k) does not do what a top-k must, False if it does."""
    raise NotImplementedError
''',
    properties=[
        Property("sees that nothing happens", 2, _catches_idle),
        Property("sees it for every k", 1, _catches_idle_small),
        Property("counts", 1, _catches_count),
        Property("looks at which tokens are kept", 1, _catches_which),
        Property("looks at their logits", 1, _catches_values),
    ],
    hints=(
        "Make logits that are not sorted, call cut, and compare the result with what you know it must be.",
        "Which positions must stay? logits.topk(k).indices says so. There the result must equal the logits; at all "
        "other places it must be -inf.",
        "For each of several k, small ones too: want = torch.full_like(logits, -math.inf); at = "
        "logits.topk(k).indices; want[at] = logits[at]; return True if not torch.equal(cut(logits, k), want).",
    ),
)

# --- pad_left -----------------------------------------------------------------------------------------------


def _padded(answer, prompts, filler):
    got = answer(prompts, filler)
    if isinstance(got, torch.Tensor) or not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong("Three tensors are expected: `return tokens, positions, real`.")
    size = (len(prompts), max(map(len, prompts)))
    for name, part in zip(("tokens", "positions", "real"), got, strict=True):
        dtype(shape(part, size, name), torch.bool if name == "real" else torch.long, name)
    return got


def _pad_by_hand(answer, rng):
    tokens, positions, real = _padded(answer, [[5, 6, 7], [8]], 0)
    require(not torch.equal(tokens, torch.tensor([[5, 6, 7], [8, 0, 0]])),
            "The fillers are on the right. Then the last column of a short row is a filler, and the next token would "
            "follow *it*. Put them on the left.")
    close(tokens, torch.tensor([[5, 6, 7], [0, 0, 8]]), "tokens should be [[5, 6, 7], [0, 0, 8]].")
    require(not torch.equal(real, torch.tensor([[0, 0, 0], [1, 1, 0]]).bool()),
            "`real` is the wrong way round: True is a token of the prompt, False a filler.")
    close(real, torch.tensor([[1, 1, 1], [0, 0, 1]]).bool(), "real should be [[1, 1, 1], [0, 0, 1]], as booleans.")
    require(int(positions[1, 2]) != 2, "The short prompt's only token stands at position 2, as if the fillers counted. "
                                       "It is the first real token of its row: position 0.")
    require(bool((positions >= 0).all()), "There are negative positions. A filler's position is 0.")
    close(positions, torch.tensor([[0, 1, 2], [0, 0, 0]]), "positions should be [[0, 1, 2], [0, 0, 0]].")


def _pad_any(answer, rng):
    lengths = [integer(rng, 1, 9) for _ in range(integer(rng, 3, 6))] + [10, 4]
    prompts = [torch.randint(1, 50, (n,), generator=rng).tolist() for n in lengths]
    tokens, positions, real = _padded(answer, prompts, 0)
    for row, prompt in enumerate(prompts):
        n = len(prompt)
        require(tokens[row, -n:].tolist() == prompt, "A prompt does not stand whole at the right end of its row.")
        require(int(real[row].sum()) == n and bool(real[row, -n:].all()), "`real` does not mark the prompt's tokens.")
        require(positions[row, -n:].tolist() == list(range(n)),
                "Positions must count 0, 1, 2, ... from a row's first real token.")
        require(not positions[row, :-n].any(), "A filler's position is 0.")


def _pad_filler(answer, rng):
    filler = integer(rng, 1, 9)
    prompts = [[filler, 3, filler], [11], [filler, filler]]
    tokens, positions, real = _padded(answer, prompts, filler)
    close(tokens, torch.tensor([[filler, 3, filler], [filler, filler, 11], [filler] * 3]),
          "The free places must hold the filler that was asked for.")
    close(real, torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]]).bool(),
          "A prompt may contain the filler's id as a real token. Go by the lengths, not by `tokens != filler`.")
    close(positions, torch.tensor([[0, 1, 2], [0, 0, 0], [0, 0, 1]]),
          "Positions are wrong where a prompt contains the filler's id as a real token. Go by the lengths.")


PAD_LEFT = Exercise(
    id="07.pad_left",
    title="Uneven prompts in one batch",
    points=6,
    difficulty=2,
    minutes=10,
    prompt="""
Write `pad_left(prompts, filler)`. `prompts` is a list of B lists of token ids, none empty, of different lengths; T is
the longest length. Return three tensors of shape (B, T):

- `tokens`: each prompt at the **right** end of its row, `filler` before it;
- `positions`: 0, 1, 2, … counted from the row's first real token; 0 for a filler;
- `real`: bool, True for a token of the prompt. A prompt may itself contain the filler's id.
""",
    stub='''
def pad_left(prompts, filler):
    """Lists of ids -> tokens, positions (B, T) whole numbers, real (B, T) bool."""
    raise NotImplementedError
''',
    properties=[
        Property("two prompts, by hand", 3, _pad_by_hand, proof=False),
        Property("any lengths", 2, _pad_any),
        Property("the filler's id inside a prompt", 1, _pad_filler, proof=False),
    ],
    ready=("lib.generation.left_pad",),
    hints=(
        "For each prompt you need the number of fillers, T minus its length. All three tensors follow from it.",
        "tokens: [filler] * n + prompt, row by row. Let padding be (B,), the numbers of fillers. A column's index "
        "minus padding[:, None] counts from the first real token; it is negative for a filler.",
        "count = torch.arange(T) - padding[:, None]; return tokens, count.clamp_min(0), count >= 0.",
    ),
)

# --- catches_bad_cache --------------------------------------------------------------------------------------


def _look(q, k, v, past_k, past_v, allowed):
    """Attention of T new tokens over P old and T new ones, with `allowed` (T, P + T)."""
    k, v = torch.cat([past_k, k]), torch.cat([past_v, v])  # (S, Dh)
    scores = q @ k.T / math.sqrt(q.shape[-1])  # (T, S)
    return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v  # (T, Dh)


def _right(T, P):
    return torch.ones(T, P + T, dtype=torch.bool).tril(P)


def _cache(q, k, v, past_k, past_v):
    return _look(q, k, v, past_k, past_v, _right(len(q), len(past_k)))


def _cache_token_by_token(q, k, v, past_k, past_v):
    out = [F.scaled_dot_product_attention(q[t : t + 1], torch.cat([past_k, k[: t + 1]]),
                                          torch.cat([past_v, v[: t + 1]])) for t in range(len(q))]
    return torch.cat(out)


def _cache_wobbles(q, k, v, past_k, past_v):
    return _cache(q, k, v, past_k, past_v) * 3 / 3 * (1 + 1e-7)


def _no_prefill_mask(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    return _look(q, k, v, past_k, past_v, _right(T, P) if P else torch.ones(T, T, dtype=torch.bool))


def _no_mask_later(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    return _look(q, k, v, past_k, past_v, torch.ones(T, P + T, dtype=torch.bool) if P else _right(T, 0))


def _corner(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    return _look(q, k, v, past_k, past_v, torch.ones(T, P + T, dtype=torch.bool).tril())


def _forgets(q, k, v, past_k, past_v):
    return _cache(q, k, v, past_k[:0], past_v[:0])


def _forgets_the_last(q, k, v, past_k, past_v):
    return _cache(q, k, v, past_k[:-1], past_v[:-1])


def _without_itself(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    allowed = _right(T, P)
    if P:  # a first token would have nobody
        allowed &= torch.arange(P + T) != P + torch.arange(T)[:, None]
    return _look(q, k, v, past_k, past_v, allowed)


SOUND_CACHE = [
    (_cache, False, "It says True to a correct cache."),
    (_cache_token_by_token, False, "It says True to a correct cache that goes token by token. Judge what comes back, "
                                   "not how it is made."),
    (_cache_wobbles, False, "It says True to a correct cache whose results wobble in the last bit. Compare floats with "
                            "torch.allclose, not == or torch.equal."),
]


def _bad(*cases):
    def test(answer, rng):
        _judge(answer, rng, [*SOUND_CACHE, *((function, True, says) for function, says in cases)])

    return test


_catches_prefill = _bad((_no_prefill_mask,
    "It misses the cache that skips the mask while it reads the prompt: with nothing remembered and several new "
    "tokens, each sees the later ones. Does your test read several tokens in the first call?"))
_catches_pieces = _bad(
    (_no_mask_later, "It misses a cache that drops the mask once something is remembered: the second piece of a prompt "
                     "sees its own future. Does your test read several tokens when there is a past?"),
    (_corner, "It misses a mask that starts in the wrong corner: with a past, new token t may see all the past and the "
              "new ones up to t. Does your test read several tokens when there is a past?"))
_catches_past = _bad((_forgets, "It misses a cache that forgets everything."),
                     (_forgets_the_last, "It misses a cache that forgets the last token it has read."))
_catches_itself = _bad((_without_itself, "It misses a cache in which a new token does not see itself once there is a "
                                         "past."))

CATCHES_BAD_CACHE = Exercise(
    id="07.catches_bad_cache",
    title="Write the test: a cache that changes the answer",
    points=7,
    difficulty=3,
    minutes=20,
    prompt="""
A cache may change the time, never the result. `attend(q, k, v, past_k, past_v)` is one head of causal attention with a
memory. `q`, `k`, `v` are (T, Dh): T new tokens. `past_k`, `past_v` are (P, Dh): the keys and values of the P tokens
before them; P may be 0. It returns (T, Dh): each new token's mixture over **all P old tokens and the new ones up to
itself**. It does not store anything; whoever calls it keeps the keys and values.

Write `catches_bad_cache(attend)`: **True if it is broken**, False if it is right. You can only call it. Each bug is one
that people make; the first of them forgets the mask while it reads the prompt, and nowhere else.
""",
    stub='''
def catches_bad_cache(attend):
    """True if attend(q, k, v (T, Dh), past_k, past_v (P, Dh)) is not causal attention over past and new."""
    raise NotImplementedError
''',
    properties=[
        Property("sees a prompt read without its mask", 2, _catches_prefill),
        Property("sees what goes wrong in the second piece", 2, _catches_pieces),
        Property("sees a memory with a hole", 2, _catches_past),
        Property("sees a token that forgets itself", 1, _catches_itself),
    ],
    hints=(
        "Compute causal attention over, say, ten tokens yourself, without any cache. Then read the same ten tokens "
        "through attend, in pieces, and compare.",
        "Try several ways to cut: all ten at once, one by one, four and then six. In each call, past_k and past_v are "
        "k[:start] and v[:start].",
        "For sizes in ([10], [1] * 10, [4, 6]): collect attend(q[a:b], k[a:b], v[a:b], k[:a], v[:a]) for each piece, "
        "torch.cat them, and return True if torch.allclose with your own result, atol=1e-5, fails. Then False.",
    ),
)

EXERCISES = [NUCLEUS, CATCHES_IDLE_TOP_K, CATCHES_BAD_CACHE, PAD_LEFT]
