"""Lesson 10, sizing: the exercises."""

import math

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, integer, number, require, verdicts

# --- block_parameters ---------------------------------------------------------------------------------------


def _count(D, H, K, Dh, F):
    return D * H * Dh + 2 * D * K * Dh + H * Dh * D + 3 * D * F + 2 * D


def _block_plain(answer, rng):
    D, H, F = 8 * integer(rng, 2, 5), 4, integer(rng, 30, 60)
    got, Dh = number(answer(D, H, H, D // H, F)), D // H
    right = _count(D, H, H, Dh, F)
    require(got != right - D * F, "A gated MLP has **three** matrices: gate, up and down. Yours has two.")
    require(got != right - 2 * D, "The two norms are missing: D weights each.")
    require(got != right - D, "There are two norms in a block, one before each half.")
    require(got != right - D * D, "Attention has four matrices: queries, keys, values, and the way out.")
    require(got != right + 2 * D, "An RMSNorm only stretches: D weights. It has no shift.")
    close(got, right, "With as many key and value heads as query heads the count is wrong.", atol=0.5, rtol=0)


def _block_grouped(answer, rng):
    K, G, F, Dh = integer(rng, 1, 3), integer(rng, 2, 4), integer(rng, 30, 60), 4
    H = K * G
    D = H * Dh
    got, right = number(answer(D, H, K, Dh, F)), _count(D, H, K, Dh, F)
    require(got != _count(D, H, H, Dh, F), "Keys and values are counted for all H query heads; there are K heads of "
                                           "them.")
    require(got != right + D * (H - K) * Dh, "Only one of keys and values has K heads in your sum. Both have.")
    require(got != right - D * K * Dh, "Keys *and* values: two matrices of D × K·Dh.")
    close(got, right, "With fewer key and value heads than query heads the count is wrong.", atol=0.5, rtol=0)


def _block_odd(answer, rng):
    D, H, K, Dh, F = 20, 4, 2, integer(rng, 6, 9), 50
    close(number(answer(D, H, K, Dh, F)), _count(D, H, K, Dh, F),
          "When H·Dh is not D the count is wrong. The way out goes from H·Dh to D; Gemma and Qwen3 are built so.",
          atol=0.5, rtol=0)  # fmt: skip


BLOCK_PARAMETERS = Exercise(
    id="10.block_parameters",
    title="A block, to the digit",
    points=6,
    difficulty=1,
    minutes=10,
    prompt="""
Write `block_parameters(D, H, K, Dh, F)`: how many parameters one block of a Llama has. `D` is the model's width, `H`
the number of query heads, `K` of key and value heads, `Dh` a head's width, `F` the MLP's. There are no biases. The MLP
is gated, and there are two RMSNorms. `H·Dh` need not be `D`. Return a whole number.
""",
    stub='''
def block_parameters(D, H, K, Dh, F):
    """Parameters of one block: attention with H query and K key/value heads, a gated MLP, two RMSNorms."""
    raise NotImplementedError
''',
    properties=[
        Property("as many key as query heads", 2, _block_plain),
        Property("grouped heads", 2, _block_grouped),
        Property("heads wider than the model", 2, _block_odd, proof=False),
    ],
    ready=("lib.transformer.count_parameters", "lib.decide.counting.count"),
    hints=(
        "Go through the block from the input to the output and write down each matrix: from how many numbers, to how "
        "many?",
        "Queries: D to H·Dh. Keys and values: D to K·Dh each. The way out: H·Dh to D. The MLP: D to F twice, F to D "
        "once. A norm: D.",
        "return 2 * D * H * Dh + 2 * D * K * Dh + 3 * D * F + 2 * D.",
    ),
)

# --- cache_bytes --------------------------------------------------------------------------------------------


def _cache(L, K, Dh, T, batch, width, window):
    return 2 * L * K * Dh * (T if window is None else min(T, window)) * batch * width


def _cache_plain(answer, rng):
    L, K, Dh, T = integer(rng, 3, 9), integer(rng, 2, 5), 8, integer(rng, 50, 90)
    got, right = number(answer(L, K, Dh, T, 1, 2, None)), _cache(L, K, Dh, T, 1, 2, None)
    require(2 * got != right, "Half of it is missing. A number has `width` bytes, and keys **and** values are kept.")
    require(got * L != right, "Each layer has keys and values of its own.")
    require(got * T != right, "That is the cache of one token; there are T of them.")
    close(got, right, "One text, 2 bytes a number: the cache is wrong.", atol=0.5, rtol=0)


def _cache_batch(answer, rng):
    L, K, Dh, T, B, width = 3, 2, 8, integer(rng, 20, 40), integer(rng, 3, 7), integer(rng, 3, 4)
    got, right = number(answer(L, K, Dh, T, B, width, None)), _cache(L, K, Dh, T, B, width, None)
    require(got * B != right, "Every text of the batch has a cache of its own. (The weights are what they share.)")
    close(got, right, "With several texts and another width the cache is wrong.", atol=0.5, rtol=0)


def _cache_window(answer, rng):
    T = integer(rng, 100, 200)
    got = number(answer(2, 2, 4, T, 1, 2, 10))
    whole = _cache(2, 2, 4, T, 1, 2, None)
    require(got != whole, "A layer with a sliding window keeps no more than `window` tokens.")
    close(got, whole * 10 // T, "With a window shorter than the text the cache is wrong.", atol=0.5, rtol=0)
    close(number(answer(2, 2, 4, T, 1, 2, T + 50)), _cache(2, 2, 4, T, 1, 2, None),
          "A window longer than the text: there are only T tokens to keep.", atol=0.5, rtol=0)  # fmt: skip


CACHE_BYTES = Exercise(
    id="10.cache_bytes",
    title="What a conversation weighs",
    points=5,
    difficulty=1,
    minutes=10,
    prompt="""
Write `cache_bytes(L, K, Dh, T, batch, width, window)`: the bytes of the key-value cache of `batch` texts, `T` tokens
each. The model has `L` layers, `K` key and value heads of width `Dh`; a number takes `width` bytes. `window` is None,
or how many tokens a layer looks back at most.
""",
    stub='''
def cache_bytes(L, K, Dh, T, batch, width, window):
    """Bytes of the keys and values of `batch` texts of T tokens; window: None, or the most that a layer keeps."""
    raise NotImplementedError
''',
    properties=[
        Property("one text", 2, _cache_plain),
        Property("several texts", 1, _cache_batch),
        Property("a sliding window", 2, _cache_window),
    ],
    ready=("lib.decide.sizing.kv_cache_bytes", "lib.decide.scenarios.cache_bytes"),
    hints=(
        "How many numbers does one token leave behind in one layer? Then: how many layers, tokens, texts; how many "
        "bytes a number?",
        "K heads of width Dh, for the key and again for the value: 2·K·Dh numbers a token and layer. With a window, "
        "min(T, window) tokens are kept.",
        "kept = T if window is None else min(T, window); return 2 * L * K * Dh * kept * batch * width.",
    ),
)

# --- training_bytes -----------------------------------------------------------------------------------------


def _states(N, devices, stage):
    return (2 * N / (devices if stage >= 3 else 1) + 2 * N / (devices if stage >= 2 else 1)
            + 12 * N / (devices if stage >= 1 else 1))  # fmt: skip


def _zero_alone(answer, rng):
    N = 1000 * integer(rng, 5, 5000)
    got = number(answer(N, 1, 0))
    require(got != 12 * N, "12 bytes a parameter: either that is the optimizer's part alone, or its 4-byte copy of the "
                           "weights is missing.")
    require(got != 14 * N, "Weights or gradients are missing: 2 bytes each.")
    require(got != 8 * N and got != 12 * N, "The optimizer keeps three numbers of 4 bytes for each parameter.")
    close(got, 16 * N, "On one device, all of it: 2 + 2 + 12 bytes a parameter.")
    close(number(answer(N, 8, 0)), 16 * N, "At stage 0 nothing is shared out: each of 8 devices holds all of it.")


def _zero_stages(answer, rng):
    N, devices = 1000 * integer(rng, 5, 5000), integer(rng, 3, 9)
    for stage, what in ((1, "the optimizer's 12 bytes are shared out, weights and gradients are not"),
                        (2, "optimizer and gradients are shared out, the weights are not")):  # fmt: skip
        got = number(answer(N, devices, stage))
        require(not math.isclose(got, 16 * N / devices),
                "At stages 1 and 2 everything is shared out. Only stage 3 does that.")
        require(not (stage == 1 and math.isclose(got, (2 + 2 / devices + 12 / devices) * N)),
                "At stage 1 the gradients are shared out already; that comes with stage 2.")
        close(got, _states(N, devices, stage), f"At stage {stage}: {what}.")


def _zero_all(answer, rng):
    N, devices = 1000 * integer(rng, 5, 5000), integer(rng, 3, 9)
    close(number(answer(N, devices, 3)), 16 * N / devices, "At stage 3 everything is shared out, the weights too.")
    close(number(answer(N, 1, 3)), 16 * N, "On one device no stage saves anything.")


TRAINING_BYTES = Exercise(
    id="10.training_bytes",
    title="Share the state out",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
Training with AdamW in mixed precision keeps for each parameter a weight of 2 bytes, a gradient of 2 bytes, and in the
optimizer three numbers of 4 bytes. ZeRO shares these among the devices (Rajbhandari et al. 2020). Stage 0: nothing.
Stage 1: the optimizer's numbers. Stage 2: the gradients too. Stage 3: the weights too.

Write `training_bytes(N, devices, stage)`: the bytes on **each** device for a model of `N` parameters. (Activations
come on top.)
""",
    stub='''
def training_bytes(N, devices, stage):
    """Bytes of weights, gradients and optimizer on each device, for ZeRO stage 0 to 3."""
    raise NotImplementedError
''',
    properties=[
        Property("nothing shared", 2, _zero_alone),
        Property("stages 1 and 2", 2, _zero_stages),
        Property("stage 3", 2, _zero_all),
    ],
    ready=("lib.decide.sizing.training_memory",),
    hints=(
        "Three terms. Each is either whole on every device, or divided by the number of devices.",
        "The optimizer's term is divided from stage 1 on, the gradients' from stage 2 on, the weights' at stage 3.",
        "def share(least): return devices if stage >= least else 1; then 2 * N / share(3) + 2 * N / share(2) + "
        "12 * N / share(1).",
    ),
)

# --- break_even ---------------------------------------------------------------------------------------------

MONTH = 30 * 24 * 3600


def _even_plain(answer, rng):
    tokens, api, rent = 100 * integer(rng, 5, 20), float(integer(rng, 2, 9)), float(integer(rng, 1, 4))
    got, right = number(answer(tokens, api, rent, 1e-7)), rent * 720 / (tokens * api / 1e6)
    require(not math.isclose(got * 720, right), "The device is rented for the whole month, 720 hours, not for one.")
    require(not math.isclose(got, right / 1e6), "The API's price is for a *million* tokens.")
    require(not math.isclose(got * right, 1), "That is upside down: the month's rent over what the API takes for one "
                                              "request.")
    require(not math.isclose(got, right * tokens), "That is in tokens; a request has several.")
    require(not math.isclose(got, rent * MONTH * 1e6 / (tokens * api)), "The rent is for an hour, not for a second.")
    close(got, right, "A fast device: the month's rent over the API's price for a request is wrong.")


def _even_slow(answer, rng):
    got = number(answer(1000, 1.0, 2.0, 3600.0))
    require(math.isinf(got) or got > MONTH, "A device that takes an hour a request serves 720 a month. It cannot reach "
                                            "this break-even, so the answer is math.inf.")
    require(math.isinf(got), "For what the device cannot serve, return math.inf.")
    at = 2.0 * 720 / (1000 / 1e6)
    close(number(answer(1000, 1.0, 2.0, 0.99 * MONTH / at)), at, "A device that can just serve so many reaches the "
                                                                 "break-even. A month has 30 days of 24 hours.")
    require(math.isinf(number(answer(1000, 1.0, 2.0, 1.01 * MONTH / at))),
            "A device that is a little too slow cannot reach the break-even. A month has 30 days of 24 hours.")


BREAK_EVEN = Exercise(
    id="10.break_even",
    title="Rent, or pay by the token?",
    points=5,
    difficulty=2,
    minutes=15,
    prompt="""
Write `break_even(tokens, api_price, rent, seconds)`: from how many requests a month it is cheaper to rent a device than
to pay an API. A request has `tokens` tokens; the API takes `api_price` dollars a **million** tokens; the device costs
`rent` dollars an **hour**, all month (30 days), busy or not, and takes `seconds` for one request.

If the device cannot serve that many requests in a month, return `math.inf`.
""",
    stub='''
def break_even(tokens, api_price, rent, seconds):
    """Requests a month from which renting is cheaper; math.inf if one device cannot serve so many."""
    raise NotImplementedError
''',
    properties=[
        Property("the month's rent over a request's price", 3, _even_plain),
        Property("too slow to get there", 2, _even_slow, proof=False),
    ],
    hints=(
        "What does the device cost a month? What does the API take for one request? When are the two bills equal?",
        "A month has 720 hours. One request costs tokens / 1e6 * api_price. The device serves 720 * 3600 / seconds.",
        "requests = rent * 720 / (tokens / 1e6 * api_price); return requests if requests * seconds <= 720 * 3600 else "
        "math.inf.",
    ),
)

# --- catches_heads: the learner writes the test ---------------------------------------------------------------


def _right(L, H, K, Dh, T, batch, width):
    return 2 * L * K * Dh * T * batch * width


def _right_float(L, H, K, Dh, T, batch, width):
    return float(2 * L * K * Dh * T) * batch * width


CORRECT = [
    (_right, False, "It says True to a right formula."),
    (_right_float, False, "It says True to a right formula that returns a float. Compare values, not types."),
]


def _wrong(*cases):
    def test(answer, rng):
        def ask(formula):
            def sheltered(L, H, K, Dh, T, batch, width):
                return formula(*(int(v) for v in (L, H, K, Dh, T, batch, width)))

            return answer(sheltered)

        verdicts(ask, rng, [*CORRECT, *((formula, True, says) for formula, says in cases)])

    return test


_catches_heads = _wrong(
    (lambda L, H, K, Dh, T, b, w: 2 * L * H * Dh * T * b * w,
     "It misses the formula that counts query heads. Ask about a model with fewer key and value heads than query "
     "heads: with as many, the bug does not show."),
    (lambda L, H, K, Dh, T, b, w: 2 * L * max(K, H // 8) * Dh * T * b * w,
     "It misses a formula that never believes in groups of more than eight. Ask about a model with one key and value "
     "head and many query heads."))
_catches_factors = _wrong(
    (lambda L, H, K, Dh, T, b, w: L * K * Dh * T * b * w, "It misses a formula that forgets the values."),
    (lambda L, H, K, Dh, T, b, w: 2 * L * K * Dh * T * w, "It misses a formula that forgets the batch. Ask about "
                                                          "more than one text."),
    (lambda L, H, K, Dh, T, b, w: 2 * L * K * Dh * T * b * 2, "It misses a formula that takes every number for 2 "
                                                              "bytes. Ask with another width."),
    (lambda L, H, K, Dh, T, b, w: 2 * K * Dh * T * b * w, "It misses a formula that has only one layer."))
_catches_width = _wrong(
    (lambda L, H, K, Dh, T, b, w: 2 * L * K * (K * Dh // H) * T * b * w, "It misses a formula that makes heads "
                                                                         "narrower when there are fewer of them."),
    (lambda L, H, K, Dh, T, b, w: 2 * L * K * 64 * T * b * w, "It misses a formula that takes every head to be 64 "
                                                              "wide. Ask about another width."),
    (lambda L, H, K, Dh, T, b, w: 2 * L * K * Dh * min(T, 4096) * b * w, "It misses a formula that stops at 4,096 "
                                                                         "tokens. Ask about a long text."))

CATCHES_HEADS = Exercise(
    id="10.catches_heads",
    title="Write the test: a cache that is counted wrongly",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
A colleague wrote `formula(L, H, K, Dh, T, batch, width)`: the bytes of a key-value cache, for a model with L layers, H
query heads, K key and value heads of width Dh, and `batch` texts of T tokens, at `width` bytes a number. There are no
sliding windows.

Write `catches_heads(formula)`: **True if the formula is wrong**, False if it is right. You can only call it, as often
as you like. The classic bug is among those that will be handed to it: it counts H where it should count K. Planned with
it, a service for Llama 3 rents several times the memory that it needs.
""",
    stub='''
def catches_heads(formula):
    """True if formula(L, H, K, Dh, T, batch, width) gives wrong bytes for some key-value cache."""
    raise NotImplementedError
''',
    properties=[
        Property("sees the wrong heads", 2, _catches_heads),
        Property("sees a factor that is missing", 2, _catches_factors),
        Property("sees numbers that were built in", 2, _catches_width),
    ],
    hints=(
        "Work one case out by hand, with seven sizes that are all different, and none of them usual.",
        "Which sizes would hide a bug? K = H hides the heads, batch = 1 the batch, width = 2 the width, Dh = 64 a head "
        "of 64, a short text a limit. Ask about several cases.",
        "Compare formula(3, 32, 1, 80, 10_000, 5, 4) with 2 * 3 * 1 * 80 * 10_000 * 5 * 4, and a second case with K "
        "above 1.",
    ),
)

EXERCISES = [BLOCK_PARAMETERS, CACHE_BYTES, TRAINING_BYTES, BREAK_EVEN, CATCHES_HEADS]
