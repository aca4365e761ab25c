"""Lesson 02, attention: the exercises."""

import math

import torch
import torch.nn.functional as F

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, dtype, finite, integer, normal, require, shape, tensor, verdicts
from lib.exercises.verdict import Wrong

# --- causal_mask --------------------------------------------------------------------------------------------


def _mask(answer, n):
    """The answer's mask for n tokens, its shape and dtype checked, and the classic confusions told apart."""
    mask = dtype(shape(answer(n), (n, n), "the mask"), torch.bool, "the mask")
    row, column = torch.arange(n)[:, None], torch.arange(n)[None, :]
    if n > 1:
        require(not mask.all(), "Every token may attend to every token: nothing hides the future.")
        require(not torch.equal(mask, row < column),
                "True and False are swapped: True must mean *may* attend, and you marked what is forbidden.")
        require(not torch.equal(mask, row <= column),
                "The mask is transposed: rows are the tokens that look, columns the tokens they look at.")
        require(not torch.equal(mask, row > column),
                "No token may attend to itself: the diagonal is False. A token sees the past *and* itself.")
        require(not torch.equal(mask, row + 1 >= column),
                "Off by one: each token sees one step into the future, which is the very token it must "
                "predict.")
    return mask


def _mask_form(answer, rng):
    for n in (1, integer(rng, 2, 9)):
        dtype(shape(answer(n), (n, n), "the mask"), torch.bool, "the mask")


def _mask_by_hand(answer, rng):
    want = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    close(_mask(answer, 4), want, "For n = 4 the mask is not the one in the text.")


def _mask_future(answer, rng):
    n = integer(rng, 5, 200)
    mask = _mask(answer, n)
    past = torch.ones(n, n, dtype=torch.bool).tril()
    require(not (mask & ~past).any(), "Some token sees the future: nothing right of the diagonal may be True.")
    require(mask[past].all(), "Some token misses part of its past: all up to the diagonal must be True.")


CAUSAL_MASK = Exercise(
    id="02.causal_mask",
    title="Hide the future",
    points=3,
    difficulty=1,
    minutes=5,
    prompt="""
Write `causal_mask(n)`: a tensor of shape (n, n) and dtype bool. Entry [t, s] is True when token t **may
attend** to token s. A token sees the past and itself, never the future. For n = 4, with 1 for True:

    1 0 0 0
    1 1 0 0
    1 1 1 0
    1 1 1 1
""",
    stub='''
def causal_mask(n):
    """(n, n) bool: True where token t (row) may attend to token s (column)."""
    raise NotImplementedError
''',
    properties=[
        Property("an (n, n) tensor of bool", 1, _mask_form, proof=False),
        Property("four tokens, by hand", 1, _mask_by_hand, proof=False),
        Property("any length: the past and itself, nothing more", 1, _mask_future),
    ],
    ready=("lib.attention.causal_mask",),
    hints=(
        "Number the positions 0 to n - 1. Token t may attend to token s when s is not after t. Write that as "
        "a comparison.",
        "torch.arange(n) gives the positions. Compare a column of them, shape (n, 1), with a row, shape (1, "
        "n): broadcasting makes the (n, n) table.",
        "positions[:, None] >= positions[None, :] is the whole table. (torch.tril of a table of True works "
        "too.)",
    ),
)

# --- attention ----------------------------------------------------------------------------------------------


def _attention_average(answer, rng):
    T, S, Dh = integer(rng, 2, 5), integer(rng, 6, 9), integer(rng, 2, 4)
    k, v = normal(rng, S, Dh), normal(rng, S, Dh)
    got = finite(shape(answer(torch.zeros(T, Dh), k, v), (T, Dh)))
    close(got, v.mean(0).expand(T, Dh),
          "A query of zeros matches every key equally, so it must get the plain average of the values. It "
          "does not: are the weights a softmax over the *keys* (the last axis of the scores), so that each "
          "row adds to 1?")


def _attention_by_hand(answer, rng):
    # The scores q.k are 2 ln 3, 0 and 0: divided by sqrt(4), the first key is three times as likely as each
    # of the others.
    q = torch.tensor([[2 * math.log(3.0), 0, 0, 0]])  # (T = 1, Dh = 4)
    k = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]])  # (S = 3, Dh)
    v = torch.tensor([[10.0], [0.0], [5.0]])  # (S, 1): the width of a value need not be that of a key
    got = finite(shape(answer(q, k, v), (1, 1)))

    def if_divided_by(c):
        weights = (q @ k.T / c).softmax(-1)
        return weights @ v

    for c, says in (
        (1, "The scores are not scaled: divide them by sqrt(Dh), Dh being the width of a head, before the "
            "softmax."),
        (4, "The scores are divided by Dh; it must be its square root."),
        (math.sqrt(3), "The scores are divided by the square root of the number of keys; Dh is the width of "
                       "a head."),
        (0.5, "The scores are multiplied by sqrt(Dh); divide by it."),
    ):
        require(differs(got, if_divided_by(c)).any(), says)
    close(got, torch.tensor([[7.0]]),
          "Three keys, the first three times as likely as each other, carrying 10, 0 and 5: the answer is 7. "
          "Yours differs: look at the scores, the scale and the softmax, in this order.")


def _hears(answer, q, k, v, got):
    """A constant keeps every symmetry there is, so first: what comes out must depend on what goes in."""
    require(differs(answer(q, k, 2 * v + 1), got).any(), "Other values give the same result: it is no average of them.")


def _attention_order(answer, rng):
    S, Dh = integer(rng, 5, 9), integer(rng, 2, 6)
    q, k, v = normal(rng, S, Dh), normal(rng, S, Dh), normal(rng, S, Dh)
    p = torch.randperm(S, generator=rng)
    out = shape(answer(q, k, v), (S, Dh))
    _hears(answer, q, k, v, out)
    close(answer(q, k[p], v[p]), out,
          "Shuffling the keys together with their values changes the result. A look-up must not depend on "
          "where in memory an item lies.", atol=1e-4)
    close(answer(q[p], k, v), out[p],
          "Shuffling the queries does not just shuffle the results: one query's result depends on another "
          "query. Is the softmax over the keys, the last axis of the scores?", atol=1e-4)


def _attention_mask(answer, rng):
    T, S, Dh = integer(rng, 4, 6), integer(rng, 7, 9), integer(rng, 2, 4)
    mask = torch.rand(T, S, generator=rng) < 0.5  # (T, S)
    mask[torch.arange(T), torch.arange(T)] = True  # no row without anything to attend to
    mask[torch.arange(T), torch.arange(T) + 1] = False  # and none without anything hidden
    q, k, v = normal(rng, T, Dh), normal(rng, S, Dh), normal(rng, S, Dh)
    got = shape(answer(q, k, v, mask), (T, Dh))
    plain = F.softmax(q @ k.T / math.sqrt(Dh), -1)  # (T, S)
    require(differs(got, plain @ v).any(), "The mask has no effect.")
    swapped = plain.masked_fill(mask, 0)
    require(differs(got, swapped @ v / swapped.sum(-1, keepdim=True)).any(),
            "The mask is used the wrong way round: True means *may* attend, so hide the entries where it is "
            "False.")
    require(differs(got, plain.masked_fill(~mask, 0) @ v).any(),
            "The mask is applied after the softmax, so the weights no longer add to 1. Hide the scores "
            "before it.")
    finite(got)
    constant = answer(q, k, torch.ones(S, Dh), mask)
    require(differs(constant, got).any(), "Other values give the same result: it is no average of them.")
    close(constant, torch.ones(T, Dh),
          "All values are 1, so every weighted average is 1; yours is not. The weights that are left must "
          "add to 1 in each row: hide scores before the softmax.")
    for t in range(T):
        hidden = ~mask[t][:, None]  # (S, 1)
        other_k, other_v = torch.where(hidden, k + 5, k), torch.where(hidden, v + 5, v)
        again = shape(answer(q, other_k, other_v, mask), got.shape)
        if differs(again[t], got[t], atol=1e-4).any():
            close(answer(q, k, other_v, mask)[t], got[t],
                  "A hidden value still leaks into the result. A hidden score must be -inf, so that its weight "
                  "is exactly 0; 0 or a smallish number is not enough.", atol=1e-4)
            raise Wrong("A hidden key still changes the result: hide its score with -inf before the softmax.")


def _attention_leading(answer, rng):
    T, S, Dh = integer(rng, 2, 4), integer(rng, 5, 7), integer(rng, 2, 4)
    q, k, v = normal(rng, 2, 3, T, Dh), normal(rng, 2, 3, S, Dh), normal(rng, 2, 3, S, Dh)  # (B, H, ., Dh)
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)  # (T, S), shared by all
    says = ("With leading axes (batch, heads) each slice must be its own attention; yours mixes them. "
            "Transpose the last two axes of k only: k.transpose(-2, -1).")
    _hears(answer, q, k, v, shape(answer(q, k, v), q.shape, "the result for (B, H, T, Dh)"))
    for given in (None, mask):
        whole = shape(answer(q, k, v, given), (2, 3, T, Dh), "the result for (B, H, T, Dh)")
        for b in range(2):
            close(shape(answer(q[b], k[b], v[b], given), (3, T, Dh)), whole[b], says)
        b, h = integer(rng, 0, 1), integer(rng, 0, 2)
        close(answer(q[b, h], k[b, h], v[b, h], given), whole[b, h], says)


def _attention_large(answer, rng):
    Dh = integer(rng, 3, 6)
    k, v = torch.eye(Dh), normal(rng, Dh, Dh)
    got = answer(1000 * k, k, v)
    finite(shape(got, (Dh, Dh)), "the result for large scores")
    close(got, v, "A query that matches one key overwhelmingly must get that key's value. Yours does not.")


def _attention_agrees(answer, rng):
    T, Dh = integer(rng, 6, 9), integer(rng, 12, 16)
    q, k, v = normal(rng, 2, 3, T, Dh), normal(rng, 2, 3, T, Dh), normal(rng, 2, 3, T, Dh)
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    says = "The result differs from PyTorch's own scaled_dot_product_attention on random input."
    close(answer(q, k, v), F.scaled_dot_product_attention(q, k, v), says)
    close(answer(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask), says)


ATTENTION = Exercise(
    id="02.attention",
    title="The equation, in code",
    points=8,
    difficulty=2,
    minutes=15,
    prompt="""
Write `attention(q, k, v, mask=None)`, the paper's equation:

$$\\mathrm{softmax}\\left(\\frac{q k^\\top}{\\sqrt{D_h}}\\right) v$$

`q` is (..., T, Dh), `k` is (..., S, Dh), `v` is (..., S, Dv), with any number of leading axes (none, a batch,
a batch and heads); the result is (..., T, Dv). `mask`, if given, is bool and (T, S): True = **may attend**.
Every row of it has at least one True. Do not call PyTorch's own attention: the point is to see each step.
""",
    stub='''
def attention(q, k, v, mask=None):
    """(..., T, Dh), (..., S, Dh), (..., S, Dv) -> (..., T, Dv); mask (T, S) bool, True = may attend."""
    raise NotImplementedError
''',
    properties=[
        Property("equal scores give the average", 1, _attention_average),
        Property("a look-up by hand", 1, _attention_by_hand, proof=False),
        Property("the order of memory does not matter", 1, _attention_order),
        Property("what the mask hides cannot be heard", 2, _attention_mask),
        Property("any leading axes", 1, _attention_leading),
        Property("large scores do not overflow", 1, _attention_large),
        Property("agrees with PyTorch's", 1, _attention_agrees),
    ],
    ready=(
        "lib.attention.attention", "lib.attention.attention_weights", "lib.attention.grouped_attention",
        "lib.attention.MultiHeadAttention", "lib.kernels.fused.fused_attention",
    ),
    hints=(
        "Four steps, a line each: scores of every query with every key; scale; hide; softmax and average.",
        "scores = q @ k.transpose(-2, -1) has shape (..., T, S). Divide by math.sqrt of q.shape[-1]. Hide "
        "with scores.masked_fill(..., float('-inf')) before the softmax.",
        "masked_fill fills where its first argument is True, and our mask is True where nothing is hidden: "
        "give it ~mask. Then weights = scores.softmax(dim=-1) and return weights @ v.",
    ),
    forbidden=("scaled_dot_product_attention", "MultiheadAttention", "multi_head_attention_forward"),
)

# --- catches_peeking: the learner writes the test -----------------------------------------------------------


def _attend(q, k, v, allowed=None):
    """Plain attention over (..., T, Dh), causal unless told otherwise: the variants below are made of it."""
    T = q.shape[-2]
    allowed = torch.ones(T, T, dtype=torch.bool).tril() if allowed is None else allowed
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, T)
    return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v  # (..., T, Dh)


def _window(q, k, v):
    T = q.shape[-2]
    return _attend(q, k, v, torch.ones(T, T, dtype=torch.bool).tril().triu(-2))


def _rounded(q, k, v):
    unit = v.abs().amax() + 1  # depends on the future, and cancels but for the last bit
    return _attend(q, k, v) / unit * unit


def _past_average(q, k, v):
    steps = torch.arange(1, v.shape[-2] + 1, dtype=v.dtype)[:, None]  # (T, 1)
    return v.cumsum(-2) / steps


def _no_mask(q, k, v):
    return _attend(q, k, v, torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool))


def _one_ahead(q, k, v):
    return _attend(q, k, v, torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril(1))


def _transposed(q, k, v):
    return _attend(q, k, v, torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu())


def _only_short(q, k, v):
    return _attend(q, k, v) if q.shape[-2] <= 8 else _no_mask(q, k, v)


def _after_softmax(q, k, v):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, T)
    return scores.softmax(-1).tril() @ v


def _zero_score(q, k, v):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, T)
    return scores.tril().softmax(-1) @ v


def _centred_queries(q, k, v):
    return _attend(q - q.mean(-2, keepdim=True), k, v)


def _tell(answer, rng, attend, says, *trusted):
    """The learner's verdicts on a leaking implementation and on correct ones, [(attend, what a True means)]."""
    correct = (_attend, False, "It says True to a correct causal attention. Compare only the results at positions "
                               "*before* the change: those after it are allowed to differ.")  # fmt: skip
    cases = [(attend, True, says), correct, *((each, False, text) for each, text in trusted)]
    # A lambda has no telling name.
    verdicts(lambda attend: answer(lambda q, k, v: attend(q, k, v)), rng, cases)


def _peeking_correct(answer, rng):
    _tell(answer, rng, _no_mask, "It says False to an attention with no mask at all.",
          (_window, "It says True to an attention that sees only the last three tokens. That one never looks ahead: "
                    "judge what leaks from the future, not what the past should give."),
          (_past_average, "It says True to a plain average over the past. That never looks ahead: judge what leaks "
                          "from the future, not whether it equals your own attention."))


def _peeking_rounding(answer, rng):
    _tell(answer, rng, _no_mask, "It says False to an attention with no mask at all.",
          (_rounded, "It says True to a correct attention whose results wobble in the last bit. Floats are compared "
                     "with a tolerance: torch.allclose, not == or torch.equal."))


def _peeking_step(answer, rng):
    _tell(answer, rng, _one_ahead,
          "It misses a mask that is off by one: each token sees one step ahead. The result just *before* the first "
          "changed token must stay the same; do you look at it?")
    _tell(answer, rng, _transposed, "It misses a transposed mask, with which tokens see only the future.")


def _peeking_values(answer, rng):
    _tell(answer, rng, _zero_score,
          "It misses a mask that sets hidden scores to 0 instead of -inf: hidden *values* still get weight. Does your "
          "test change the values of future tokens?")


def _peeking_keys(answer, rng):
    _tell(answer, rng, _after_softmax,
          "It misses a mask applied after the softmax: hidden *keys* still count in the sum that each row is divided "
          "by. Does your test change the keys of future tokens?")


def _peeking_queries(answer, rng):
    _tell(answer, rng, _centred_queries,
          "It misses an attention that first subtracts the mean query over all positions. Does your test change the "
          "*queries* of future tokens?")


def _peeking_long(answer, rng):
    _tell(answer, rng, _only_short,
          "It misses a mask that is dropped for sequences longer than 8. Does your test try a longer one?")


CATCHES_PEEKING = Exercise(
    id="02.catches_peeking",
    title="Write the test: does it look into the future?",
    points=8,
    difficulty=3,
    minutes=15,
    prompt="""
Somebody hands you `attend`, said to be a causal self-attention: `attend(q, k, v)` takes three tensors of
shape (..., T, Dh) and returns (..., T, Dh). Write `catches_peeking(attend)`: it returns **True if the
function looks into the future**, False if it does not. You cannot read its code; you can only call it, as
often as you like.

We hand your test several correct functions (not all of them attention as you would write it) and several with
a bug that people really make. The bugs hide: some leak only through the keys, the values or the queries, some
only by one step, some only in sequences of a dozen tokens or more.
""",
    stub='''
def catches_peeking(attend):
    """True if attend(q, k, v), each (..., T, Dh), lets a token see a later one."""
    raise NotImplementedError
''',
    properties=[
        Property("trusts what is causal", 2, _peeking_correct),
        Property("forgives rounding", 1, _peeking_rounding),
        Property("sees a leak of one step", 1, _peeking_step),
        Property("sees a leak through the values", 1, _peeking_values),
        Property("sees a leak through the keys", 1, _peeking_keys),
        Property("sees a leak through the queries", 1, _peeking_queries),
        Property("sees a leak in long sequences", 1, _peeking_long),
    ],
    hints=(
        "If nobody looks ahead, then changing the future cannot change the present. Call attend twice, with "
        "inputs that agree up to some position and differ after it, and compare the results up to that "
        "position.",
        "Take T = 16 and change everything after position t: q, k and v, by fresh random numbers. Compare "
        "the results at positions 0 to t, the last one included, with torch.allclose.",
        "Loop over every t from 0 to T - 2. Clone q, k and v, overwrite [t + 1:] in the clones, and return "
        "True as soon as attend(...)[: t + 1] is not allclose to what it was; after the loop, return False.",
    ),
)

# --- effective_tokens ---------------------------------------------------------------------------------------


def _shares(rng, *size):
    """Weights that add up to 1 along the last axis, none of them zero."""
    return normal(rng, *size).softmax(-1)


def _effective(weights):
    """The oracle, in float64, and by another road than the hint: the product of w^-w."""
    w = weights.double()
    return (w ** -w).prod(-1)


def _effective_shape(answer, rng):
    H, T, S = integer(rng, 2, 3), integer(rng, 4, 5), integer(rng, 6, 8)
    for size in ((T, S), (H, T, S)):
        says = "the result (one number for each query: the last axis is gone)"
        shape(answer(_shares(rng, *size)), size[:-1], says)


def _effective_even(answer, rng):
    for n in (2, integer(rng, 3, 12)):
        got = shape(answer(torch.full((1, n), 1 / n)), (1,))
        finite(got)
        entropy = torch.tensor([math.log(n)])
        require(differs(got, entropy).any(),
                "That is the entropy itself, in nats. The number of tokens is exp of it.")
        require(differs(got, entropy / math.log(2)).any(),
                "That is the entropy itself, in bits. The number of tokens is 2 to that power.")
        require(differs(got, 1 / torch.tensor([float(n)])).any(),
                "It gives 1/n for an even spread over n tokens: the minus sign of the exponent is missing.")
        require(differs(got, torch.exp(entropy / n)).any(),
                "The entropy is a sum over the tokens, and yours is a mean.")
        require(differs(got, torch.exp(entropy / math.log(2))).any(),
                "The logarithm and the exponential do not belong together: log2 goes with 2 to the power, "
                "the natural log with exp.")
        close(got, torch.tensor([float(n)]), "Weight spread evenly over n tokens must count as n tokens.")


def _effective_zeros(answer, rng):
    n = integer(rng, 3, 6)
    weights = torch.zeros(n, n)
    for t in range(n):
        weights[t, : t + 1] = 1 / (t + 1)
    got = answer(weights)
    require(not tensor(got).isnan().any(),
            "NaN where a weight is exactly zero, as it is behind every causal mask: 0 * log 0 is NaN for the "
            "machine. Such a token must count nothing.")
    close(got, torch.arange(1.0, n + 1),
          "With a causal mask, row t spread evenly over its t + 1 visible tokens must count t + 1. A token "
          "with weight zero counts nothing.", atol=1e-3, rtol=1e-3)


def _effective_uneven(answer, rng):
    weights = _shares(rng, 5, 7)
    got = finite(shape(answer(weights), (5,)))
    require(differs(got, 1 / weights.square().sum(-1), atol=1e-4).any(),
            "That is 1 / sum of the squared weights: another measure of the same thing, and a good one, but "
            "not the one in the text.")
    require(differs(got, 1 / weights.max(-1).values, atol=1e-4).any(),
            "That is 1 / the largest weight: it forgets how the rest is shared out.")
    close(got, _effective(weights).float(),
          "Unevenly spread weight is counted wrongly: w * log w, added up over the *keys* (the last axis), "
          "with a minus sign, then exp.", atol=1e-3, rtol=1e-3)


EFFECTIVE_TOKENS = Exercise(
    id="02.effective_tokens",
    title="How many tokens does it look at?",
    points=5,
    difficulty=2,
    minutes=10,
    prompt="""
Write `effective_tokens(weights)`. `weights` is (..., T, S): attention weights, each row adds up to 1. The
result is (..., T), one number for each query:

$$\\exp\\Big(-\\sum_s w_s \\ln w_s\\Big)$$

All weight on one token gives 1; an even spread over n tokens gives n. Mind the causal mask: it makes some
weights exactly zero, and such a token counts nothing ($0 \\ln 0$ is meant to be 0).
""",
    stub='''
def effective_tokens(weights):
    """(..., T, S), rows adding up to 1 -> (..., T): how many tokens each query looks at, effectively."""
    raise NotImplementedError
''',
    properties=[
        Property("one number for each query", 1, _effective_shape, proof=False),
        Property("an even spread over n counts n", 1, _effective_even, proof=False),
        Property("a weight of zero counts nothing", 2, _effective_zeros, proof=False),
        Property("uneven weights", 1, _effective_uneven),
    ],
    hints=(
        "Three steps: w ln w for each weight, minus the sum over the last axis, exp of that. Then try it on a "
        "row that has a zero in it.",
        "torch.log(0) is -inf, and 0 * -inf is NaN. Keep the logarithm away from zero: clamp the weights from "
        "below by something tiny before you take it.",
        "entropy = -(weights * weights.clamp_min(1e-12).log()).sum(dim=-1); return entropy.exp(). "
        "(torch.special.entr(weights) is -w ln w, with the zero taken care of.)",
    ),
)

# --- previous_token: the learner designs a head --------------------------------------------------------------


def _head(answer, T):
    """(scores, weights), (T, T) each, of the head that the answer's two matrices make on one-hot positions."""
    got = answer(T)
    require(isinstance(got, tuple | list) and len(got) == 2, "Two matrices are expected: return Wq, Wk.")
    Wq, Wk = (shape(tensor(each), (T, T), name) for each, name in zip(got, ("Wq", "Wk"), strict=True))
    for each, name in ((Wq, "Wq"), (Wk, "Wk")):
        require(bool(each.isfinite().all()), f"{name} has an entry that is no finite number. Sharp enough is enough: "
                "infinity times zero is NaN.")
    scores = Wq.double() @ Wk.double().T / math.sqrt(T)  # (T, T): x is the identity, so the queries are Wq itself
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)  # (T, T): the future
    return scores, scores.masked_fill(hidden, -math.inf).softmax(-1)


def _previous(answer, T):
    scores, weights = _head(answer, T)
    t = torch.arange(1, T)
    looks = weights[1:].argmax(-1)  # (T - 1,)
    spread = weights[1:].max(-1).values - weights[1:].min(-1).values
    wanted = scores[1:-1].argmax(-1)  # what each token but the last asks for, hidden or not
    even = bool((scores.max(-1).values == scores.min(-1).values).any())
    require(T < 4 or even or not torch.equal(wanted, torch.arange(2, T)), "Each token asks for the one *after* it, "
            "which the mask hides. Shift the other way: the query of token t is the key of token t - 1. (Mind which of "
            "a matrix and its transpose you have.)")
    require(T < 3 or (spread[1:] > 1e-9).all(), "All scores of a token are the same, so it looks evenly at all that it "
            "may see. Its query has to match one key better than the others.")
    require(not torch.equal(looks, t), "Each token looks at itself: its query matches its own key. It should match the "
            "key of the token before.")
    require(T < 3 or not (looks == 0).all(), "Every token looks at the first one. Each should ask for its own "
            "predecessor.")
    require(torch.equal(looks, t - 1), "Some token looks mostly at another one than the one just before it.",
            f"with T = {T} tokens 1, 2, … look at {looks.tolist()[:8]}")
    least = weights[t, t - 1].min().item()
    require(least > 0.99, "It looks the right way, and not firmly: the strongest weight is below 99 %. Make the scores "
            "larger. Mind that they are divided by √T, and that there are more tokens to share with in a longer text.",
            f"with T = {T} the weight on the token before is as low as {least:.2f}")


def _previous_form(answer, rng):
    _head(answer, integer(rng, 2, 9))


def _previous_five(answer, rng):
    _previous(answer, 5)


def _previous_any(answer, rng):
    for T in (2, integer(rng, 6, 30), integer(rng, 31, 90), integer(rng, 150, 300)):
        _previous(answer, T)


PREVIOUS_TOKEN = Exercise(
    id="02.previous_token",
    title="Design a head",
    points=6,
    difficulty=2,
    minutes=12,
    prompt="""
Make a **previous-token head** by hand: every token looks at the one just before it. The vectors say only where a token
stands: token t is row t of the T by T identity. Write `previous_token(T)`: it returns `(Wq, Wk)`, two (T, T) matrices.
Queries are `x @ Wq`, keys `x @ Wk`; scores are divided by $\\sqrt{T}$, and the causal mask is on. Each token but the
first must put more than 99 % of its weight on the token before it, for any T from 2 to 300.
""",
    stub='''
def previous_token(T):
    """-> (Wq, Wk), each (T, T): with one-hot positions as vectors, token t looks at token t - 1."""
    raise NotImplementedError
''',
    properties=[
        Property("two matrices", 1, _previous_form, proof=False),
        Property("five tokens", 1, _previous_five, proof=False),
        Property("any number of tokens", 4, _previous_any),
    ],
    hints=(
        "x is the identity, so x @ Wq is Wq: its row t is the query of token t, and row s of Wk is the key of token s. "
        "Which rows should match?",
        "Let every key be its own one-hot position, Wk = torch.eye(T). Then the query of token t is one-hot at t - 1: "
        "the identity with its rows moved down by one. That matches; now make it firm.",
        "torch.eye(T).roll(1, 0) moves the rows down by one. Scores of 1 / √T are too faint: multiply by 20 * T**0.5.",
    ),
)

EXERCISES = [CAUSAL_MASK, ATTENTION, PREVIOUS_TOKEN, CATCHES_PEEKING, EFFECTIVE_TOKENS]
