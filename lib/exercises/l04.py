"""Lesson 04, the transformer: the exercises."""

import math

import torch
import torch.nn.functional as F

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, finite, integer, normal, number, require, shape, verdicts

# --- count_params -------------------------------------------------------------------------------------------


def _parts(D, F_, L, V):
    """The pieces a decoder is made of, so that a wrong total can be told by what it lacks or has twice."""
    return {
        "embedding": V * D,
        "attention": L * 4 * D * D,
        "attention biases": L * 4 * D,
        "mlp": L * 2 * D * F_,
        "mlp biases": L * (F_ + D),
        "norms": L * 2 * 2 * D,
        "final norm": 2 * D,
    }


def _params_sizes(rng):
    D = integer(rng, 17, 40)
    return D, 3 * D + integer(rng, 1, 9), integer(rng, 3, 7), integer(rng, 301, 500)


def _whole(answer, D, F_, L, V):
    got = number(answer(D, F_, L, V))
    require(got == int(got), "A count of parameters is a whole number; yours has a fraction.")
    return int(got)


def _params_explained(answer, D, F_, L, V):
    """The answer's count, the classic slips told apart by the exact difference each makes."""
    parts = _parts(D, F_, L, V)
    got, want = _whole(answer, D, F_, L, V), sum(parts.values())
    for off, says in (
        (parts["embedding"], "The vocabulary's matrix is counted twice: with tied embeddings the output head "
                             "*is* the token embedding, so it counts once."),
        (-parts["embedding"], "The token embedding is missing: vocab rows of d_model numbers."),
        (-L * D * D, "Attention has four D x D matrices: queries, keys, values, and the output that mixes the "
                     "heads. One is missing."),
        (-L * D * F_, "The MLP has two matrices, up and down. One is missing."),
        (L * D * F_, "The MLP has three matrices in your count; without a gate there are two."),
        (-parts["attention biases"] - parts["mlp biases"], "The linear layers' biases are missing."),
        (-parts["norms"], "Four vectors of d_model are missing in each layer: attention's biases, or the two "
                          "LayerNorms with a scale and a shift each."),
        (-parts["mlp biases"], "The MLP's biases are missing: d_ff for up, d_model for down."),
        (L * (F_ - D), "The MLP's biases are wrong: a bias is as long as the layer's *output*: d_ff for up, "
                       "d_model for down."),
        (L * (D - F_), "The MLP's biases are wrong: a bias is as long as the layer's *output*: d_ff for up, "
                       "d_model for down."),
        (-2 * L * D, "There are two LayerNorms a layer; one is missing."),
        (-parts["final norm"], "The final LayerNorm, after the last layer, is missing."),
        (-parts["norms"] - parts["final norm"], "No LayerNorm is counted at all."),
        (-(2 * L + 1) * D, "A LayerNorm has two vectors, a scale and a shift. You count one."),
        (V, "The output head has no bias here: tied to the embedding, it is that matrix and nothing else."),
    ):
        require(got - want != off, says)
    return got, want


def _params_by_hand(answer, rng):
    got, want = _params_explained(answer, 3, 7, 2, 11)  # 33 + 2 * ((36 + 12) + (42 + 10) + 12) + 6
    require(got == want, "For d_model=3, d_ff=7, two layers and eleven tokens the parts add up to 263: 33 in the "
                         "embedding; 48 in each attention, 52 in each MLP, 12 in each layer's norms; 6 in the "
                         "last norm.", f"got {got}")


def _params_layers(answer, rng):
    D, F_, L, V = _params_sizes(rng)
    _params_explained(answer, D, F_, L, V)
    step = _whole(answer, D, F_, L + 1, V) - _whole(answer, D, F_, L, V)
    want = 4 * D * D + 2 * D * F_ + 9 * D + F_
    require(step == want, "One layer more adds the wrong number of parameters. Count what a layer owns: four "
                          "attention matrices, two of the MLP, their biases, two LayerNorms; nothing of the "
                          "embedding or the final norm.")


def _params_vocab(answer, rng):
    D, F_, L, V = _params_sizes(rng)
    _params_explained(answer, D, F_, L, V)
    step = _whole(answer, D, F_, L, V + 1) - _whole(answer, D, F_, L, V)
    require(step == D, "One token more in the vocabulary must add d_model numbers: one row of the tied "
                       "embedding.")


def _params_any(answer, rng):
    for _ in range(5):
        got, want = _params_explained(answer, *_params_sizes(rng))
        require(got == want, "For random sizes the total is off. Check it part by part against the table in "
                             "the text.")


COUNT_PARAMS = Exercise(
    id="04.count_params",
    title="Count to the digit",
    points=5,
    difficulty=1,
    minutes=10,
    prompt="""
Write `count_params(d_model, d_ff, n_layers, vocab)`: how many trainable numbers a decoder has, as a whole
number. This decoder has

- a token embedding, which is the output head as well (**tied**, counted once); **no positional table**;
- in each layer: attention's four matrices (queries, keys, values, output), each d_model by d_model; a plain MLP
  (up to d_ff, down again; no gate); **biases everywhere** in these; and **two LayerNorms**;
- **one final LayerNorm** after the last layer.

A LayerNorm has a scale and a shift. The head has no bias.
""",
    stub='''
def count_params(d_model, d_ff, n_layers, vocab):
    """Trainable numbers of a decoder with tied embeddings and biases everywhere."""
    raise NotImplementedError
''',
    properties=[
        Property("a tiny one, by hand", 1, _params_by_hand, proof=False),
        Property("what one layer more adds", 1, _params_layers),
        Property("what one token more adds", 1, _params_vocab),
        Property("any sizes", 2, _params_any),
    ],
    ready=("lib.transformer.count_parameters", "lib.decide.counting.count"),
    hints=(
        "Write the total as vocab * d_model + n_layers * (one layer) + (final norm), and count one layer on "
        "paper first: attention, MLP, norms.",
        "A linear layer from a to b with a bias has a * b + b numbers. Attention is four from d_model to "
        "d_model; the MLP is one from d_model to d_ff and one back.",
        "One layer: 4 * (d_model**2 + d_model) + (d_model * d_ff + d_ff) + (d_ff * d_model + d_model) + "
        "2 * (2 * d_model). The final norm: 2 * d_model.",
    ),
)

# --- rms_norm -----------------------------------------------------------------------------------------------


def _rms(x, weight, eps):
    return x / (x * x).mean(-1, keepdim=True).add(eps).sqrt() * weight


def _rms_explained(got, x, weight, eps):
    mean = x.mean(-1, keepdim=True)
    square = (x * x).mean(-1, keepdim=True)
    slips = (
        (x / ((x * x).sum(-1, keepdim=True) + eps).sqrt() * weight,
         "You divide by the length of the vector: the *mean* of the squares belongs under the root, not their "
         "sum."),
        ((x - mean) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt() * weight,
         "That is LayerNorm: RMSNorm does not subtract the mean."),
        ((x - mean) / (x.var(-1, keepdim=True) + eps).sqrt() * weight,
         "That is LayerNorm: RMSNorm does not subtract the mean."),
        (x / (x.var(-1, keepdim=True) + eps).sqrt() * weight,
         "You divide by the standard deviation, which is measured from the mean; the root mean square is "
         "measured from zero."),
        (x / (square + eps) * weight, "The square root is missing: you divide by the mean square itself."),
        (x / (square + eps).sqrt(), "The weight is not used: stretch the result by it."),
        (x / (square + eps).sqrt() + weight, "The weight is added; it multiplies."),
        (x * (square + eps).sqrt() * weight, "You multiply by the root mean square; divide by it."),
        (x / ((x * x).mean() + eps).sqrt() * weight,
         "The mean runs over all of x: each position (each vector along the last axis) is normed on its own."),
    )
    for slip, says in slips:
        if got.shape == slip.shape:
            require(differs(got, slip).any() or not differs(slip, _rms(x, weight, eps)).any(), says)
    return got


def _rms_by_hand(answer, rng):
    x = torch.tensor([[3.0, 4.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0]])  # mean square 50 / 8 = 6.25, root 2.5
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    got = finite(shape(answer(x, weight, 0.0), (1, 8)))
    _rms_explained(got, x, weight, 0.0)
    close(got, x / 2.5, "The squares of 3, 4, 0, 5 and four zeros have the mean 6.25, so the root mean square "
                        "is 2.5 and every entry is divided by it. Yours differs.")


def _rms_scale(answer, rng):
    x, weight = normal(rng, 3, 5, 16) + 0.7, torch.ones(16)
    got = _rms_explained(finite(shape(answer(x, weight, 1e-6), (3, 5, 16))), x, weight, 1e-6)
    close(got.square().mean(-1), torch.ones(3, 5), "After the norm each vector's mean square must be 1 when "
                                                  "the weight is 1. Yours is not.", atol=1e-3)
    close(answer(1000 * x, weight, 1e-6), got, "A vector a thousand times as long must come out the same: the "
                                               "norm forgets length and keeps direction.", atol=1e-4)


def _rms_alone(answer, rng):
    x, weight = normal(rng, 2, 4, 12), normal(rng, 12)
    whole = _rms_explained(shape(answer(x, weight, 1e-5), (2, 4, 12)), x, weight, 1e-5)
    for b in range(2):
        for t in range(4):
            alone = shape(answer(x[b, t], weight, 1e-5), (12,), "the result for one vector")
            close(alone, whole[b, t], "A position's result depends on the other positions: take the mean over "
                                      "the last axis only, dim=-1, with keepdim=True.")


def _rms_eps(answer, rng):
    zero = answer(torch.zeros(2, 6), torch.ones(6), 1e-5)
    require(not zero.isnan().any(), "A vector of zeros becomes NaN. That is what eps is for: it keeps the "
                                    "division from being 0/0.")
    x, weight, eps = normal(rng, 4, 6) * 0.1, torch.ones(6), 0.5
    got = shape(answer(x, weight, eps), (4, 6))
    square = (x * x).mean(-1, keepdim=True)  # (4, 1)
    require(differs(got, x / square.sqrt()).any(), "eps has no effect.")
    for wrong in (x / (square.sqrt() + eps), x / (square + eps * eps).sqrt()):
        require(differs(got, wrong).any(), "eps is in the wrong place: add it to the mean square, *inside* the "
                                           "square root.")
    close(got, _rms(x, weight, eps), "With a large eps the result differs: add eps to the mean square, inside "
                                     "the square root.")


def _rms_agrees(answer, rng):
    D = integer(rng, 8, 40)
    x, weight = 3 * normal(rng, 2, 5, D) - 1, normal(rng, D)
    close(answer(x, weight, 1e-6), F.rms_norm(x, (D,), weight, 1e-6),
          "The result differs from PyTorch's rms_norm on random input.")


RMS_NORM = Exercise(
    id="04.rms_norm",
    title="The norm of Llama",
    points=6,
    difficulty=1,
    minutes=8,
    prompt="""
Write `rms_norm(x, weight, eps)`. `x` is (..., D), with any leading axes; `weight` is (D,); the result has the
shape of `x`. Each vector along the last axis is divided by its own root mean square, then stretched by `weight`:

$$y_i = \\frac{x_i}{\\sqrt{\\frac{1}{D} \\sum_j x_j^2 + \\varepsilon}} \\; w_i$$

Do not call PyTorch's `rms_norm`.
""",
    stub='''
def rms_norm(x, weight, eps):
    """(..., D), (D,) -> (..., D): unit root mean square, then stretch."""
    raise NotImplementedError
''',
    properties=[
        Property("eight numbers, by hand", 1, _rms_by_hand, proof=False),
        Property("forgets length, keeps direction", 1, _rms_scale),
        Property("each position on its own", 1, _rms_alone, proof=False),
        Property("eps inside the root", 2, _rms_eps),
        Property("agrees with PyTorch's", 1, _rms_agrees),
    ],
    forbidden=("RMSNorm",),
    ready=(
        "lib.transformer.rms_norm", "lib.transformer.RMSNorm", "lib.kernels.norms.fast_rms_norm",
        "lib.kernels.norms.RMSNormWithGradient",
    ),
    hints=(
        "Root mean square, read backwards: square the entries, take their mean, take the root.",
        "The mean runs over the last axis, and must keep it so that the division lines up: "
        ".mean(-1, keepdim=True).",
        "square = x.pow(2).mean(-1, keepdim=True); return x / torch.sqrt(square + eps) * weight.",
    ),
)

# --- pre_norm_block -----------------------------------------------------------------------------------------


def _zero(x):
    return torch.zeros_like(x)


def _same(x):
    return x


def _block(x, norm1, attend, norm2, mlp):
    x = x + attend(norm1(x))  # (..., T, D)
    return x + mlp(norm2(x))  # (..., T, D)


def _maps(rng, D):
    """Two norms, an attention and an MLP that no two wirings of them can confuse: none commutes with another."""
    a, b, mix, wide, back = (normal(rng, D, D) / D**0.5 for _ in range(5))
    return (
        lambda x: torch.tanh(x) @ a + 0.3,
        lambda x: (x @ mix).cumsum(-2),
        lambda x: torch.sin(x) @ b - 0.2,
        lambda x: torch.relu(x @ wide + 0.1) @ back,
    )


def _block_straight(answer, rng):
    x = normal(rng, 2, 4, 6)
    got = shape(answer(x, _same, _zero, _same, _zero), (2, 4, 6))
    require(differs(got, torch.zeros_like(x)).any(),
            "When attention and MLP both write zeros, the block must hand x on unchanged; yours loses it. The "
            "residual stream is missing: add to x, don't replace it.")
    close(got, x, "When attention and MLP both write zeros, the block must hand x on unchanged.")
    got = shape(answer(x, lambda x: 3 * x, _zero, lambda x: 5 * x, _zero), (2, 4, 6))
    close(got, x, "When both halves write zeros the stream must pass untouched, but a norm has changed it. The "
                  "norm sits on the branch, *before* attention or MLP, never on the stream itself.")


def _block_writes(answer, rng):
    x = normal(rng, 2, 3, 4)
    only = shape(answer(x, _same, lambda x: x * 0 + 7.0, _same, _zero), (2, 3, 4))
    require(differs(only, x).any(), "What attention writes never reaches the result.")
    require(differs(only, torch.full_like(x, 7.0)).any(),
            "Attention's output replaces the stream; it must be added to it.")
    close(only, x + 7, "Attention writes 7 everywhere, the MLP nothing: the result must be x + 7.")
    only = shape(answer(x, _same, _zero, _same, lambda x: x * 0 + 7.0), (2, 3, 4))
    require(differs(only, x).any(), "What the MLP writes never reaches the result.")
    require(differs(only, torch.full_like(x, 7.0)).any(),
            "The MLP's output replaces the stream; it must be added to it.")
    close(only, x + 7, "The MLP writes 7 everywhere, attention nothing: the result must be x + 7.")


def _block_reads(answer, rng):
    x = normal(rng, 2, 3, 4)
    read = {}

    def spy(name, returns):
        def inner(x):
            read[name] = x.detach().clone()
            return returns(x)
        return inner

    def run(norm1=_same, attend=_zero, norm2=_same, mlp=_zero):
        read.clear()
        answer(x, norm1, spy("attend", attend), norm2, spy("mlp", mlp))
        for name in ("attend", "mlp"):
            require(name in read, f"`{name}` is never called.")

    run(norm1=lambda x: 2 * x, norm2=lambda x: 3 * x)
    require(differs(read["attend"], x).any() and differs(read["mlp"], x).any(),
            "A half reads the raw stream: it must read a normed copy, norm first.")
    require(differs(read["attend"], 3 * x).any(), "The norms are swapped: norm1 belongs to attention, norm2 to "
                                                  "the MLP.")
    close(read["attend"], 2 * x, "Attention must read norm1 of the stream.")
    require(differs(read["mlp"], 2 * x).any(), "The MLP reads through norm1; norm2 is its own.")
    close(read["mlp"], 3 * x, "The MLP must read norm2 of the stream.")
    run(attend=lambda x: x * 0 + 7)
    require(differs(read["mlp"], x).any(),
            "The MLP reads the stream as it was before attention wrote on it. First attention writes, then the "
            "MLP reads the *new* stream.")
    require(differs(read["mlp"], torch.full_like(x, 7.0)).any(),
            "The MLP reads only what attention wrote; it must read the whole stream, x and the write.")
    close(read["mlp"], x + 7, "The MLP must read the stream with attention's write on it.")


def _block_agrees(answer, rng):
    D = integer(rng, 4, 8)
    x = normal(rng, 2, integer(rng, 3, 6), D)
    norm1, attend, norm2, mlp = _maps(rng, D)
    close(answer(x, norm1, attend, norm2, mlp), _block(x, norm1, attend, norm2, mlp),
          "With random norms, attention and MLP the result differs from x + attend(norm1(x)), then the same with "
          "the MLP.", atol=1e-4)


PRE_NORM_BLOCK = Exercise(
    id="04.pre_norm_block",
    title="Wire the Block",
    points=6,
    difficulty=2,
    minutes=8,
    prompt="""
Write `pre_norm_block(x, norm1, attend, norm2, mlp)`: the dotted box of this lesson's first picture, as code. `x` is the
residual stream, (..., T, D). The other four are **functions**, each from (..., T, D) to (..., T, D): `norm1` and
`attend` are on the first loop, `norm2` and `mlp` on the second. All you do is the wiring. Return the stream.
""",
    stub='''
def pre_norm_block(x, norm1, attend, norm2, mlp):
    """(..., T, D) -> (..., T, D): two reads of the stream, two writes on it."""
    raise NotImplementedError
''',
    properties=[
        Property("two silent halves leave the stream alone", 2, _block_straight, proof=False),
        Property("each half adds what it writes", 1, _block_writes),
        Property("each half reads the right normed copy", 2, _block_reads, proof=False),
        Property("any norms, attention and MLP", 1, _block_agrees),
    ],
    ready=("lib.transformer.Block", "lib.lesson.handmade.fill.pre_norm_block"),
    hints=(
        "It is two lines of the same form and a return. Draw the river first: x goes straight through, each half "
        "is a loop that leaves it, passes a norm, does its work, and flows back in with a plus.",
        "The first line is x = x + attend(...). What does attention read: x, or a normed copy of it?",
        "x = x + attend(norm1(x)), and then the MLP's line reads the x that the first line made.",
    ),
)

# --- catches_leak: the learner writes the test --------------------------------------------------------------

VOCAB = 50


def _centre(x, axes):
    x = x - x.mean(axes, keepdim=True)
    return x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt()


def _language_model(allowed=None, axes=-1, gain=1.0, wobble=0.0, seed=4):
    """A two-layer decoder with random weights. allowed(layer, T) -> (T, T) bool, True = may attend."""
    g = torch.Generator().manual_seed(seed)
    D = 16
    table = torch.randn(VOCAB, D, generator=g)  # (V, D)
    layers = torch.randn(2, 6, D, D, generator=g) / D**0.5
    places = 0.3 * torch.randn(64, D, generator=g)  # (longest, D)

    def model(tokens):
        T = tokens.shape[-1]
        x = table[tokens] + places[:T]  # (B, T, D)
        for i, (q, k, v, out, up, down) in enumerate(layers):
            mask = torch.ones(T, T, dtype=torch.bool).tril() if allowed is None else allowed(i, T)
            h = _centre(x, axes)  # (B, T, D)
            scores = (h @ q) @ (h @ k).mT / D**0.5  # (B, T, T)
            x = x + gain * scores.masked_fill(~mask, float("-inf")).softmax(-1) @ (h @ v) @ out  # (B, T, D)
            x = x + torch.relu(_centre(x, -1) @ up) @ down  # (B, T, D)
        return x @ table.T + wobble * x.sum()  # (B, T, V)

    return model


def _tri(T, diagonal=0):
    return torch.ones(T, T, dtype=torch.bool).tril(diagonal)


def _all(T):
    return torch.ones(T, T, dtype=torch.bool)


def _window_of_three(layer, T):
    return _tri(T) & ~_tri(T, -3)


def _each_alone(tokens):
    return torch.nn.functional.one_hot(tokens, VOCAB).float() @ torch.eye(VOCAB).roll(1, 0)


def _tell(answer, rng, leaking, says, *others):
    """The learner's verdicts on a leaking model, a correct one and others: (model, if it leaks, what else means)."""
    correct = (_language_model(), False,
               "It says True to a correct model. Compare only the logits at positions *before* the change: those at "
               "and after it are allowed to differ.")  # fmt: skip
    # A lambda has no telling name.
    verdicts(lambda model: answer(lambda tokens: model(tokens)), rng, [(leaking, True, says), correct, *others])


NO_MASK = "It says False to a model with no mask at all."


def _leak_trusts(answer, rng):
    says = ("It says True to a model {}. It never looks ahead: judge what leaks from the future, not what the past "
            "should give.")
    _tell(answer, rng, _language_model(lambda i, T: _all(T)), NO_MASK,
          (_language_model(_window_of_three), False, says.format("that sees only the last three tokens")),
          (_each_alone, False, says.format("that looks at one token at a time")))


def _leak_rounding(answer, rng):
    _tell(answer, rng, _language_model(lambda i, T: _all(T)), NO_MASK,
          (_language_model(wobble=1e-9), False,
           "It says True to a correct model whose logits wobble in the last digits. Floats are compared with a "
           "tolerance: torch.allclose, not == or torch.equal."))


def _leak_layers(answer, rng):
    _tell(answer, rng, _language_model(lambda layer, T: _tri(T) if layer == 0 else _all(T)),
          "It misses a mask that is dropped after the first layer.",
          (_language_model(lambda layer, T: _all(T) if layer == 0 else _tri(T)), True,
           "It misses a mask that only the first layer forgot."))


def _leak_small(answer, rng):
    _tell(answer, rng, _language_model(lambda layer, T: _tri(T) if layer == 0 else _all(T), gain=0.01),
          "It misses a small leak: with random weights a dropped mask may change a logit by a thousandth. "
          "Is your tolerance too loose?")


def _leak_step(answer, rng):
    _tell(answer, rng, _language_model(lambda layer, T: _tri(T, 1) if layer == 1 else _tri(T)),
          "It misses a last layer whose mask is off by one: only the position just *before* the first "
          "changed token shows it. Do you compare that one?")


def _leak_long(answer, rng):
    _tell(answer, rng, _language_model(lambda layer, T: _tri(T) if T <= 12 else _all(T)),
          "It misses a mask that is dropped for sequences longer than 12. Does your test try a longer one?")


def _leak_batch(answer, rng):
    _tell(answer, rng, _language_model(axes=(0, -1)),
          "It misses a model that mixes the *sequences* of a batch: a norm taken over the batch as well. "
          "Does your test change one row and look at the others?")


CATCHES_LEAK = Exercise(
    id="04.catches_leak",
    title="Write the test: does the whole model leak?",
    points=9,
    difficulty=3,
    minutes=15,
    prompt="""
A published tutorial once handed its mask to the first layer and forgot it in the others. The loss looked
wonderful: from the second layer on, every token could read the answer.

Write `catches_leak(model)`: **True if the model leaks**, False if it does not. `model(tokens)` takes a (B, T)
tensor of whole numbers from 0 to 49 and returns logits (B, T, 50). A causal language model leaks when the logits
at some position depend on a *later* token, or on *another sequence* of the batch. You can only call it, as often
as you like, with T up to 64.

We hand your test correct models (not all of them transformers) and leaking ones: a layer without its mask, a mask
one step off, a very small leak, a leak only in longer sequences, a leak between sequences.
""",
    stub='''
def catches_leak(model):
    """True if model(tokens), (B, T) -> (B, T, 50), lets a later token or another sequence be heard."""
    raise NotImplementedError
''',
    properties=[
        Property("trusts what is causal", 2, _leak_trusts),
        Property("forgives rounding", 1, _leak_rounding),
        Property("sees a mask that some layers forgot", 2, _leak_layers),
        Property("sees a leak of one step", 1, _leak_step),
        Property("sees a small leak", 1, _leak_small),
        Property("sees a leak in long sequences", 1, _leak_long),
        Property("sees a leak between sequences", 1, _leak_batch),
    ],
    hints=(
        "You need not know which layer is wrong. If no layer leaks, changing token t + 1 and all after it cannot "
        "change the logits at positions 0 to t. And changing one sequence cannot change another.",
        "Take tokens of shape (2, 24). For each t: a copy with fresh tokens from t + 1 on, and compare the logits "
        "[:, : t + 1] with torch.allclose. For the batch: change row 0 and compare row 1.",
        "Write (tokens[:, t + 1:] + 1) % 50 into the copy: then every later token really changes. Use an absolute "
        "tolerance near 1e-5. After the loop: other = tokens.clone(); other[0] = (other[0] + 1) % 50; compare "
        "model(other)[1] with model(tokens)[1].",
    ),
)

# --- gated_mlp ----------------------------------------------------------------------------------------------


def _silu(z):
    return z / (1 + (-z).exp())


def _mlp(x, gate, up, down):
    return (_silu(x @ gate.T) * (x @ up.T)) @ down.T


def _mlp_told_apart(got, x, gate, up, down):
    g, u = x @ gate.T, x @ up.T  # (…, F) each
    right = _mlp(x, gate, up, down)
    slips = (
        (g.sigmoid() * u @ down.T, "The gate is a plain sigmoid. SiLU is z times the sigmoid of z."),
        (g.relu() * u @ down.T, "The gate bends like ReLU; here it is SiLU."),
        (F.gelu(g) * u @ down.T, "The gate bends like GELU; here it is SiLU."),
        (g * u @ down.T, "Nothing bends: without SiLU the gate is one more product."),
        (g * _silu(u) @ down.T, "Gate and up are swapped: SiLU bends the gate, and `up` stays straight."),
        (_silu(g * u) @ down.T, "SiLU bends the product; it must bend the gate alone, before the product."),
        ((_silu(g) + u) @ down.T, "Gate and up are added. A gate multiplies: it decides how much passes."),
        (_silu(u) @ down.T, "The gate is not used."),
        (_silu(g) @ down.T, "`w_up` is not used."),
        (x + right, "The stream x is added to the result. The plus is the Block's."),
    )
    for slip, says in slips:
        require(differs(got, slip).any() or not differs(slip, right).any(), says)
    return got


def _mlp_sizes(rng):
    """Two leading axes, D and F, all different."""
    D = integer(rng, 4, 6)
    return 2, 3, D, D + integer(rng, 2, 5)


def _mlp_weights(rng, D, F_):
    return normal(rng, F_, D), normal(rng, F_, D), normal(rng, D, F_)


def _mlp_by_hand(answer, rng):
    x, ln3 = torch.tensor([[1.0, 2.0]]), math.log(3.0)  # the sigmoid of ln 3 is 3/4
    gate = torch.tensor([[ln3, 0.0], [0.0, 0.0], [-100.0, 0.0]])  # (F = 3, D = 2)
    up = torch.tensor([[0.0, 2.0], [1.0, 1.0], [5.0, 5.0]])  # (F, D)
    down = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])  # (D, F)
    got = _mlp_told_apart(finite(shape(answer(x, gate, up, down), (1, 2))), x, gate, up, down)
    close(got, torch.tensor([[3 * ln3, 0.0]]),
          "Three features: one whose gate says ln 3 and whose value is 4, one with a gate of 0, one shut. "
          "SiLU(ln 3) is 3/4 of ln 3, so the result is (3 ln 3, 0).", atol=1e-4)


def _mlp_alone(answer, rng):
    B, T, D, F_ = _mlp_sizes(rng)
    x, weights = normal(rng, B, T, D), _mlp_weights(rng, D, F_)
    whole = shape(answer(x, *weights), (B, T, D))
    close(answer(x[0, 0], *weights), whole[0, 0], "One vector alone gives another result than the same vector among "
                                                  "others: each position is worked on by itself.", atol=1e-4)


def _mlp_gate(answer, rng):
    B, T, D, F_ = _mlp_sizes(rng)
    x, (gate, up, down) = normal(rng, B, T, D).abs() + 0.5, _mlp_weights(rng, D, F_)
    f = integer(rng, 0, F_ - 1)
    open_ = _mlp_told_apart(shape(answer(x, gate, up, down), (B, T, D)), x, gate, up, down)
    shut = gate.clone()
    shut[f] = -100.0  # x is positive, so this gate never opens
    got = finite(shape(answer(x, shut, up, down), (B, T, D)))
    require(differs(got, open_).any(), "A gate that shuts changes nothing: `w_gate` is not used.")
    without = torch.arange(F_) != f
    close(got, _mlp(x, shut[without], up[without], down[:, without]),
          "A feature whose gate is shut must write nothing; yours still does.", atol=1e-4)


def _mlp_agrees(answer, rng):
    B, T, D, F_ = _mlp_sizes(rng)
    x, weights = normal(rng, B, T, D), _mlp_weights(rng, D, F_)
    got = _mlp_told_apart(shape(answer(x, *weights), (B, T, D)), x, *weights)
    close(got, _mlp(x, *weights), "On random weights the result differs from the formula.", atol=1e-4)


GATED_MLP = Exercise(
    id="04.gated_mlp",
    title="The MLP of Llama",
    points=6,
    difficulty=1,
    minutes=8,
    prompt="""
Write `gated_mlp(x, w_gate, w_up, w_down)`, the right one of the two formulas above, with $f$ = SiLU,
$\\mathrm{SiLU}(z) = z \\cdot \\mathrm{sigmoid}(z)$. `x` is (..., D). The matrices are kept as PyTorch keeps them, (out,
in): `w_gate` and `w_up` are (F, D), `w_down` is (D, F). No biases. Return (..., D).
""",
    stub='''
def gated_mlp(x, w_gate, w_up, w_down):
    """(..., D), (F, D), (F, D), (D, F) -> (..., D): widen, gate, narrow."""
    raise NotImplementedError
''',
    properties=[
        Property("three features, by hand", 1, _mlp_by_hand, proof=False),
        Property("each position on its own", 1, _mlp_alone, proof=False),
        Property("a shut gate lets nothing pass", 2, _mlp_gate),
        Property("any weights", 2, _mlp_agrees),
    ],
    ready=("lib.transformer.GatedMLP", "lib.transformer.MLP", "lib.lesson.handmade.fill.gated_mlp"),
    hints=(
        "Two roads from D to F, one of them bent; multiply them number by number; one road back.",
        "x @ w_gate.T has shape (..., F), and so has x @ w_up.T. F.silu bends one of them. Which?",
        "return (F.silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T.",
    ),
)

# --- transformer --------------------------------------------------------------------------------------------


def _model_given(rng, n_layer=3):
    """Tokens, table, blocks that don't commute, a norm and a head of its own; V, D, B, T all different."""
    B, T, D, V = 2, 3, 5, integer(rng, 7, 9)
    tokens = torch.randint(V, (B, T), generator=rng)  # (B, T)
    table, head, matrices = normal(rng, V, D), normal(rng, V, D), normal(rng, n_layer, D, D)

    def block(i):
        return lambda x: x + (x @ matrices[i] / D**0.5 + i).tanh()  # (B, T, D)

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() + 0.5  # (B, T, D)

    return tokens, table, [block(i) for i in range(n_layer)], norm, head


def _model(tokens, table, blocks, norm, head):
    x = table[tokens]  # (B, T, D)
    for block in blocks:
        x = block(x)
    return norm(x) @ head.T  # (B, T, V)


def _model_told_apart(got, tokens, table, blocks, norm, head):
    right = _model(tokens, table, blocks, norm, head)
    x = table[tokens]  # (B, T, D)
    after_each = x
    for block in blocks:
        after_each = norm(block(after_each))
    twice = x
    for block in blocks:
        twice = twice + block(twice)
    beside = torch.stack([block(x) for block in blocks]).sum(0)  # (B, T, D)
    slips = (
        (_model(tokens, table, blocks, lambda x: x, head), "The last norm is missing: the head reads a normed stream."),
        (_model(tokens, table, [norm, *blocks], lambda x: x, head), "The norm comes first; it belongs after the last "
                                                                    "Block, before the head."),
        (after_each @ head.T, "The norm is taken after every Block; it stands once, before the head."),
        (_model(tokens, table, blocks[::-1], norm, head), "The Blocks run in reverse order."),
        (_model(tokens, table, blocks[:1], norm, head), "Only the first Block runs."),
        (_model(tokens, table, blocks[:-1], norm, head), "The last Block is left out."),
        (_model(tokens, table, blocks[1:], norm, head), "The first Block is left out."),
        (_model(tokens, table, [], norm, head), "No Block runs."),
        (norm(twice) @ head.T,
         "Each Block's result is added to the stream once more. A Block adds by itself: its result is the new stream."),
        (norm(beside) @ head.T, "Every Block reads the embedding; each must read what the one before it left."),
        (right.softmax(-1), "These are shares. A model returns scores, logits; the softmax comes later."),
        (right.log_softmax(-1), "These are log-shares. A model returns scores, logits; the softmax comes later."),
        (_model(tokens, table, blocks, norm, table),
         "The head is the embedding table. A model may tie the two, but here `head` is handed to you."),
    )
    for slip, says in slips:
        require(differs(got, slip).any() or not differs(slip, right).any(), says)
    return got


def _model_shape(answer, rng):
    given = _model_given(rng)
    shape(answer(*given), (*given[0].shape, len(given[4])), "the logits")


def _model_look_up(answer, rng):
    tokens, table, _, _, head = _model_given(rng)
    got = shape(answer(tokens, table, [], lambda x: x, head), (*tokens.shape, len(head)), "the logits")
    close(got, table[tokens] @ head.T, "Without Blocks, and with a norm that does nothing, the logits must be each "
                                       "token's row of the table, compared with each row of the head.", atol=1e-4)


def _model_order(answer, rng):
    given = _model_given(rng)
    got = _model_told_apart(shape(answer(*given), (*given[0].shape, len(given[4])), "the logits"), *given)
    close(got, _model(*given), "With three Blocks the logits differ.", atol=1e-4)


def _model_calls(answer, rng):
    tokens, table, blocks, norm, head = _model_given(rng, integer(rng, 4, 6))
    order = []

    def spied(name, function):
        def inner(x):
            order.append(name)
            return function(x)

        return inner

    answer(tokens, table, [spied(i, block) for i, block in enumerate(blocks)], spied("norm", norm), head)
    require(order == [*range(len(blocks)), "norm"],
            "Each Block must run once, in order, and then the norm, once.", f"what ran: {order}")


def _model_any(answer, rng):
    given = _model_given(rng, integer(rng, 4, 6))
    got = shape(answer(*given), (*given[0].shape, len(given[4])), "the logits")
    close(_model_told_apart(got, *given), _model(*given), "With more Blocks the logits differ.", atol=1e-4)


TRANSFORMER = Exercise(
    id="04.transformer",
    title="The whole model",
    points=7,
    difficulty=1,
    minutes=10,
    prompt="""
Write `transformer(tokens, table, blocks, norm, head)`. `tokens` is (B, T), whole numbers; `table` is the embedding,
(V, D); `blocks` is a list of functions and `norm` a function, each from (B, T, D) to (B, T, D); `head` is (V, D), a row
for each token that might come next. Look the tokens up, run the Blocks in order, norm once, and compare each position
with each row of the head. Return the logits, (B, T, V).
""",
    stub='''
def transformer(tokens, table, blocks, norm, head):
    """(B, T) -> (B, T, V): look up, Blocks, norm, compare with every token."""
    raise NotImplementedError
''',
    properties=[
        Property("logits of the right shape", 1, _model_shape, proof=False),
        Property("look up, and compare", 1, _model_look_up),
        Property("three Blocks and a norm", 2, _model_order),
        Property("each runs once, in order", 1, _model_calls, proof=False),
        Property("any number of Blocks", 2, _model_any),
    ],
    ready=("lib.transformer.Transformer", "lib.lesson.handmade.fill.transformer"),
    hints=(
        "Four lines: the stream's beginning, a loop, and what comes after it.",
        "table[tokens] picks a row for each token. In the loop, what a Block returns is the new stream.",
        "x = table[tokens]; for block in blocks: x = block(x); return norm(x) @ head.T.",
    ),
)

EXERCISES = [RMS_NORM, GATED_MLP, PRE_NORM_BLOCK, TRANSFORMER, COUNT_PARAMS, CATCHES_LEAK]
