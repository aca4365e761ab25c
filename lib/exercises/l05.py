"""Lesson 05, training: the exercises."""

import math
from itertools import pairwise

import torch
from torch import nn

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import (
    call_method,
    close,
    differs,
    dtype,
    finite,
    integer,
    normal,
    number,
    require,
    shape,
    verdicts,
)
from lib.exercises.verdict import Wrong

# --- cut_windows --------------------------------------------------------------------------------------------


def _windows(answer, tokens, starts, block_size):
    """The answer's (x, y), each (B, T) of integers."""
    got = answer(tokens, starts, block_size)
    if isinstance(got, torch.Tensor) or not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong("Your code returned one thing; two are expected: `return x, y`.")
    size = (len(starts), block_size)
    for name, part in zip("xy", got, strict=True):
        if tuple(getattr(part, "shape", ())) == size[::-1] and size[0] != size[1]:
            raise Wrong(f"{name} lies on its side: windows are rows, (B, T), and yours are columns.")
        dtype(shape(part, size, name), torch.long, name)
    return got


def _windows_by_hand(answer, rng):
    tokens = torch.arange(100, 110)
    x, y = _windows(answer, tokens, torch.tensor([1, 4]), 4)
    close(x, torch.tensor([[101, 102, 103, 104], [104, 105, 106, 107]]),
          "x is not the windows of 4 tokens that begin at positions 1 and 4.")
    require(not torch.equal(y, x),
            "y equals x: the model would learn to repeat the token it has just read. y is one token later.")
    require(not torch.equal(y, x - 1),
            "y is one token *earlier* than x: the model would learn to look back. The target is the token that "
            "comes next.")
    require(not torch.equal(y, x + 2), "y is two tokens later than x; it must be one.")
    require(not torch.equal(y, torch.roll(x, -1, 1)),
            "The last target of each window is wrong: it wraps around to the window's own first token. It must "
            "be the token that follows the window in the text.")
    close(y, torch.tensor([[102, 103, 104, 105], [105, 106, 107, 108]]),
          "y is not x one token later.")


def _windows_shift(answer, rng):
    n, B, T = integer(rng, 60, 90), integer(rng, 3, 5), integer(rng, 6, 9)
    tokens = torch.randperm(n, generator=rng)  # all different
    starts = torch.randperm(n - T, generator=rng)[:B].sort(descending=True).values
    x, y = _windows(answer, tokens, starts, T)
    close(x[:, 0], tokens[starts], "A window does not begin at its start.")
    close(y[:, :-1], x[:, 1:], "The target at one position must be the input at the next.")
    close(y[:, -1], tokens[starts + T], "The last target must be the token that follows the window in the text.")


def _windows_edges(answer, rng):
    T = integer(rng, 4, 8)
    tokens = torch.randperm(T + 3, generator=rng)
    x, y = _windows(answer, tokens, torch.tensor([2, 0, 2]), T)
    close(x, torch.stack([tokens[2 : 2 + T], tokens[:T], tokens[2 : 2 + T]]),
          "Windows must come in the order of `starts`, repeated ones too.")
    close(y[0, -1], tokens[-1], "The very last token of the text must be usable as a target.")


CUT_WINDOWS = Exercise(
    id="05.cut_windows",
    title="Text into batches",
    points=5,
    difficulty=1,
    minutes=10,
    prompt="""
Write `cut_windows(tokens, starts, block_size)`. `tokens` is the whole text, (N,) integers. `starts` is (B,)
integers: where each window begins. Return two tensors of shape (B, block_size):

- `x`: row b is the `block_size` tokens from `starts[b]` on;
- `y`: the same, one token later. `y[b, t]` is the token that follows `x[b, t]`.
""",
    stub='''
def cut_windows(tokens, starts, block_size):
    """tokens (N,), starts (B,) -> x (B, T), y (B, T): y is x one token later."""
    raise NotImplementedError
''',
    properties=[
        Property("ten tokens, by hand", 2, _windows_by_hand, proof=False),
        Property("inputs and targets are shifted by one", 2, _windows_shift),
        Property("any start, up to the last token", 1, _windows_edges),
    ],
    ready=("lib.corpus.batches",),
    hints=(
        "One window is tokens[s : s + block_size]. Its targets are the same slice moved by one. Build one of each "
        "per start, then stack them.",
        "torch.stack([tokens[s : s + block_size] for s in starts.tolist()]) is x. Do not shift x itself: its last "
        "target is not in it.",
        "y is torch.stack([tokens[s + 1 : s + 1 + block_size] for s in starts.tolist()]). Return x, y.",
    ),
)

# --- cross_entropy ------------------------------------------------------------------------------------------


def _entropy_even(answer, rng):
    V = integer(rng, 7, 40)
    got = number(answer(torch.zeros(6, V), torch.arange(6) % V))
    says = "A model that finds all V tokens equally likely must have a loss of ln V."
    require(math.isfinite(got), "The loss of equal logits is not a finite number.")
    require(not math.isclose(got, -math.log(V), rel_tol=1e-3), says + " Yours has the wrong sign: a surprise is "
                                                                      "*minus* the logarithm of a chance.")
    require(not math.isclose(got, math.log2(V), rel_tol=1e-3), says + " Yours is in bits: use the natural logarithm.")
    require(not math.isclose(got, 6 * math.log(V), rel_tol=1e-3), says + " Yours is the *sum* over the positions; "
                                                                         "take the mean.")
    close(got, math.log(V), says, atol=1e-4)


def _entropy_by_hand(answer, rng):
    # Chances 1/2, 1/4, 1/4 in both rows; the true tokens are the first and the last: ln 2 and ln 4.
    logits = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0]]) * math.log(2)
    got = number(answer(logits, torch.tensor([0, 2])))
    require(not math.isclose(got, -(0.5 + 0.25) / 2, abs_tol=1e-4),
            "Your code averages the chances themselves; a surprise is the *logarithm* of the chance.")
    require(not math.isclose(got, -logits.log_softmax(-1).mean().item(), abs_tol=1e-4),
            "Your code averages over all tokens of the vocabulary. Pick out, in each row, the one that really came.")
    close(got, 1.5 * math.log(2),
          "Chances of 1/2 and 1/4 for the tokens that came: the loss is (ln 2 + ln 4) / 2. Yours differs.", atol=1e-4)


def _entropy_shift(answer, rng):
    logits = 2 * normal(rng, 7, 5)
    targets = torch.randint(5, (7,), generator=rng)
    got = number(answer(logits, targets))
    shifted = number(answer(logits + 3 * normal(rng, 7, 1), targets))
    close(shifted, got, "Adding the same number to all logits of a row changes the loss; it must not. Is the softmax "
                        "over the vocabulary, the last axis?", atol=1e-4)


def _entropy_large(answer, rng):
    logits = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 0.0, -1000.0]])
    got = number(answer(logits, torch.tensor([1, 0])))
    require(math.isfinite(got),
            "Logits of 1000 give infinity or NaN: exp overflows, or a chance of exactly 0 goes into the logarithm. "
            "log_softmax computes both steps safely as one.")
    close(got, (1000 + math.log(2)) / 2, "For large logits the loss is wrong. Did you clamp something?", rtol=1e-4)


def _entropy_agrees(answer, rng):
    logits, targets = 3 * normal(rng, 3, 4, 6), torch.randint(6, (3, 4), generator=rng)
    want = torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), targets.flatten()).item()
    for size in ((12, 6), (3, 4, 6)):
        close(answer(logits.reshape(size), targets.reshape(size[:-1])), want,
              "The result differs from PyTorch's own cross_entropy on random input.", atol=1e-4)


CROSS_ENTROPY = Exercise(
    id="05.cross_entropy",
    title="How surprised?",
    points=7,
    difficulty=2,
    minutes=10,
    prompt="""
Write `cross_entropy(logits, targets)`: the mean surprise, in nats, as one number (a scalar tensor).

`logits` is (..., V), one score per possible token; `targets` is (...), the token that really came. The softmax of
a row of logits gives chances; the surprise is minus the natural logarithm of the chance of the true token; the
loss is its mean over all positions. Do not call PyTorch's own cross-entropy or NLL loss. Scores can be as large
as 1000.
""",
    stub='''
def cross_entropy(logits, targets):
    """(..., V) and (...) -> (): the mean of minus ln(chance of the target)."""
    raise NotImplementedError
''',
    properties=[
        Property("knowing nothing costs ln V", 2, _entropy_even),
        Property("two positions, by hand", 2, _entropy_by_hand, proof=False),
        Property("only differences between logits count", 1, _entropy_shift, proof=False),
        Property("large logits do not overflow", 1, _entropy_large, proof=False),
        Property("agrees with PyTorch's", 1, _entropy_agrees),
    ],
    forbidden=("cross_entropy_loss", "nll_loss", "CrossEntropyLoss", "NLLLoss"),
    ready=("lib.training.next_token_loss",),
    hints=(
        "Three steps: logarithms of the chances, pick the target's in each row, minus the mean.",
        "logits.log_softmax(-1) gives all logarithms at once, safely. gather picks along the last axis, and wants "
        "an index with as many axes: targets[..., None].",
        "return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()",
    ),
)

# --- training_step ------------------------------------------------------------------------------------------


def _gym(answer):
    """A model of two layers and an optimizer, made where the answer runs; what became of them comes back."""

    def run(weights, optimizer, rate, batches, max_norm):
        """weights: a table (V, D) and a head (V, D). Some steps; a dictionary of plain values on each.

        There is an old gradient on the weights, as a step before would leave it.
        """
        table, head = (nn.Parameter(w.clone()) for w in weights)
        happened = []

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.head = table, head

            def forward(self, tokens):
                return self.table[tokens].tanh() @ self.head.T  # (B, T, V)

        def loss_of(logits, targets):
            shapes = tuple(logits.shape), tuple(targets.shape)
            if shapes != ((*targets.shape, len(table)), tuple(x.shape)):
                raise ValueError(f"loss_of takes logits (B, T, V) and targets (B, T); it was handed {shapes}")
            happened.append("loss")
            return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()

        model = Model()
        made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](model.parameters(), lr=rate)
        usual = made.step
        made.step = lambda *given: (happened.append("step"), usual(*given))[1]
        for weight in model.parameters():
            weight.register_hook(lambda gradient: happened.append("backward"))
            weight.grad = torch.full_like(weight, 3.0)
        told = []
        for x, y in batches:
            happened.clear()
            loss = answer(model, made, x, y, loss_of, max_norm)
            told.append({
                "loss": loss.detach() if isinstance(loss, torch.Tensor) else loss,
                "graph": isinstance(loss, torch.Tensor) and loss.requires_grad,
                "weights": [weight.detach().clone() for weight in (table, head)],
                "happened": list(happened),
            })  # fmt: skip
        return told

    return run


def _step_given(rng, n=1, V=7, D=4, scale=1.0):
    """Weights of `_gym`'s model, and n batches (x, y), each (B, T)."""
    weights = [scale * normal(rng, V, D), scale * normal(rng, V, D)]
    return weights, [tuple(torch.randint(V, (2, 2, 3), generator=rng)) for _ in range(n)]


def _steps_right(weights, optimizer, rate, batches, max_norm, clip="all", old=False):
    """(losses, weights after each step, length of each gradient) of steps by our own hand. clip, old: slips."""
    table, head = (w.clone().requires_grad_() for w in weights)
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([table, head], lr=rate)
    if old:
        table.grad, head.grad = (torch.full_like(w, 3.0) for w in weights)
    losses, after, lengths = [], [], []
    with torch.enable_grad():
        for x, y in batches:
            if not old:
                made.zero_grad()
            logits = table[x].tanh() @ head.T  # (B, T, V)
            loss = -logits.log_softmax(-1).gather(-1, y[..., None]).mean()
            loss.backward()
            parts = [[table], [head]] if clip == "each" else [[table, head]]
            lengths.append(torch.cat([w.grad.flatten() for w in (table, head)]).norm().item())
            for part in parts:
                length = torch.cat([w.grad.flatten() for w in part]).norm()
                for w in part:
                    if clip == "entries":
                        w.grad.clamp_(-max_norm, max_norm)
                    elif clip == "always":
                        w.grad *= max_norm / length
                    elif clip and length > max_norm:
                        w.grad *= max_norm / length
            made.step()
            losses.append(loss.item())
            after.append([w.detach().clone() for w in (table, head)])
    return losses, after, lengths


def _stepped(answer, weights, optimizer, rate, batches, max_norm):
    """What the gym tells of each step, once the losses, the order and the returned number are right."""
    losses, _, _ = _steps_right(weights, optimizer, rate, batches, max_norm)
    told = answer(weights, optimizer, rate, batches, max_norm)
    if not isinstance(told, list) or len(told) != len(batches):
        raise Wrong("The step could not be followed. Does it replace the model or the optimizer?")
    for n, (each, want) in enumerate(zip(told, losses, strict=True)):
        happened = [what for i, what in enumerate(each["happened"]) if what not in each["happened"][:i]]
        require(happened, "Nothing happened: neither a loss nor a step.")
        require("loss" in happened, "The loss is not computed with `loss_of`.")
        require("step" in happened, "The optimizer takes no step.")
        require("backward" in happened, "No gradient is computed: call `backward` on the loss.")
        require(happened.index("backward") < happened.index("step"),
                "The optimizer steps before `backward` has computed the new gradient.")
        require(each["happened"].count("step") == 1, "The optimizer must step once; yours steps several times.")
        require(each["loss"] is not None, "The step returns nothing; it should return the loss.")
        require(not each["graph"], "What is returned still holds on to all that was computed for the gradient: return "
                                   "the number, loss.item().")
        if n == 0:
            close(each["loss"], want, "The loss that is returned is wrong. It is this batch's, before the step.",
                  atol=1e-4)
    return told


def _step_by_hand(answer, rng):
    weights, batches = _step_given(rng)
    given = (weights, "sgd", 0.5, batches, 1e9)
    [told] = _stepped(answer, *given)
    _, [want], _ = _steps_right(*given)
    _, [dirty], _ = _steps_right(*given, old=True)
    for got, right, old, before in zip(told["weights"], want, dirty, weights, strict=True):
        require(differs(got, before).any(), "The weights are what they were. Is the gradient forgotten between "
                                            "`backward` and the step?")
        require(differs(got, old).any(), "The gradient of the step before is still in: `backward` *adds* to what is "
                                         "there. Forget it first.")
        require(differs(got, 2 * before - right).any(), "The loss goes up: that step is uphill.")
        close(got, right, "After one step of plain gradient descent the weights are not w - rate * gradient.",
              atol=1e-4)


def _step_clips(answer, rng):
    weights, batches = _step_given(rng, scale=2.0)
    *_, [length] = _steps_right(weights, "sgd", 1.0, batches, 1e9)
    most = length / 3
    given = (weights, "sgd", 1.0, batches, most)
    [told] = _stepped(answer, *given)
    for clip, says in (
        ("", "A gradient three times as long as max_norm goes through whole: clip it after `backward` and before the "
             "step."),
        ("each", "Each weight's gradient is clipped by itself. Its direction changes; measure the length of all "
                 "together, and shorten them all by one factor."),
        ("entries", "Single entries are cut off. That bends the gradient; clipping shortens it and keeps its "
                    "direction."),
    ):  # fmt: skip
        _, [slip], _ = _steps_right(*given, clip=clip)
        require(any(differs(a, b, atol=1e-4).any() for a, b in zip(told["weights"], slip, strict=True)), says)
    _, [want], _ = _steps_right(*given)
    for got, right in zip(told["weights"], want, strict=True):
        close(got, right, "With a gradient longer than max_norm the step is wrong: shortened to max_norm, it keeps its "
                          "direction.", atol=1e-4, rtol=1e-3)  # fmt: skip
    given = (weights, "sgd", 1.0, batches, 3 * length)
    [told], (_, [want], _) = _stepped(answer, *given), _steps_right(*given)
    for got, right in zip(told["weights"], want, strict=True):
        close(got, right, "A gradient shorter than max_norm must stay as it is; yours is changed.", atol=1e-4,
              rtol=1e-3)


def _step_any(answer, rng):
    for optimizer, rate, most in (("adam", 0.05, 1e9), ("sgd", 0.3, 0.4)):
        weights, batches = _step_given(rng, n=3, V=integer(rng, 8, 11), D=integer(rng, 5, 7))
        given = (weights, optimizer, rate, batches, most)
        told, (losses, after, _) = _stepped(answer, *given), _steps_right(*given)
        for each, loss, want in zip(told, losses, after, strict=True):
            for got, right in zip(each["weights"], want, strict=True):
                close(got, right, "Over several steps, or with another optimizer, the weights go elsewhere.", atol=1e-3)
            close(each["loss"], loss, "Over several steps the losses that are returned are wrong.", atol=1e-3)


TRAINING_STEP = Exercise(
    id="05.training_step",
    title="One step of training",
    points=8,
    difficulty=2,
    minutes=15,
    prompt="""
Write `training_step(model, optimizer, x, y, loss_of, max_norm)`: one step, for any model and optimizer of PyTorch's.
`x` and `y` are a batch as above, (B, T); `model(x)` gives logits, (B, T, V); `loss_of(logits, targets)` gives the loss,
such as your `cross_entropy`. In this order:

- how surprised is the model by `y`?
- forget what gradients are left over from the step before, for PyTorch *adds* to them;
- find the gradient of every parameter, `loss.backward()`;
- **clip**: if all gradients, taken as one long vector, are longer than `max_norm`, shorten them to it, all by one
  factor. (`torch.nn.utils.clip_grad_norm_` does that.) A seat belt, for the one bad batch in a long run;
- let the optimizer step, and return the loss as a plain number, `loss.item()`.
""",
    stub='''
def training_step(model, optimizer, x, y, loss_of, max_norm):
    """One step down, in place; the loss before it, a number."""
    raise NotImplementedError
''',
    properties=[
        Property("one step downhill", 3, _step_by_hand),
        Property("long gradients are shortened, short ones kept", 3, _step_clips),
        Property("several steps, another optimizer", 2, _step_any),
    ],
    ready=("lib.training.loop", "lib.training.train", "lib.lesson.handmade.fill.training_step"),
    bench=_gym,
    hints=(
        "Six lines, in the order of the list. Each is one call.",
        "loss = loss_of(model(x), y), then optimizer.zero_grad(), then loss.backward(). What comes between that and "
        "optimizer.step()?",
        "loss = loss_of(model(x), y); optimizer.zero_grad(); loss.backward(); "
        "nn.utils.clip_grad_norm_(model.parameters(), max_norm); optimizer.step(); return loss.item().",
    ),
)

# --- cosine_schedule ----------------------------------------------------------------------------------------

STEPS, WARMUP, PEAK, LOWEST = 110, 10, 2.0, 0.2


def _schedule(answer, step):
    return float(number(answer(step, STEPS, WARMUP, PEAK, LOWEST)))


def _schedule_warmup(answer, rng):
    first = _schedule(answer, 0)
    require(first != 0, "The very first step has a rate of 0, so it is wasted: step 0 gets peak / warmup.")
    require(not math.isclose(first, PEAK), "There is no warm-up: step 0 already has the peak rate.")
    for step in range(WARMUP):
        close(_schedule(answer, step), PEAK * (step + 1) / WARMUP,
              "During the warm-up the rate is not peak * (step + 1) / warmup.")


def _schedule_corners(answer, rng):
    close(_schedule(answer, WARMUP), PEAK, "The step after the warm-up must have the peak rate. Does the cosine count "
                                           "its steps from the end of the warm-up?")
    end = _schedule(answer, STEPS)
    require(not math.isclose(end, 0.0, abs_tol=1e-6), "The rate falls to 0; it must end at `lowest`.")
    require(not math.isclose(end, PEAK), "At the end the rate is back at the peak: half a wave is needed, not a whole "
                                         "one.")
    close(end, LOWEST, "At step = steps the rate is not `lowest`.")
    close(_schedule(answer, 60), (PEAK + LOWEST) / 2,
          "Half-way down the rate must be half-way between peak and lowest.")


def _schedule_shape(answer, rng):
    rates = [_schedule(answer, step) for step in range(WARMUP, STEPS + 1)]
    require(all(a > b for a, b in pairwise(rates)), "After the warm-up the rate must fall at "
                                                                            "every step.")
    require(not math.isclose(rates[25], PEAK - (PEAK - LOWEST) / 4, rel_tol=1e-3), "That is a straight line; a cosine "
                                                                                   "starts flat and ends flat.")
    want = LOWEST + (PEAK - LOWEST) * (1 + math.sqrt(0.5)) / 2
    close(rates[25], want, "A quarter of the way down the rate is not that of half a cosine wave.", rtol=1e-4)


def _schedule_any(answer, rng):
    warmup = integer(rng, 3, 9)
    steps, peak = warmup + 4 * integer(rng, 5, 20), 10.0 ** -integer(rng, 2, 5)
    half = warmup + (steps - warmup) // 2
    close(answer(half, steps, warmup, peak, 0.0), peak / 2, "With other numbers the curve is wrong: is one of them "
                                                            "written into your code?", atol=1e-9, rtol=1e-4)
    close(answer(0, steps, 0, peak, 0.0), peak, "With warmup = 0 the first step must have the peak rate.", atol=1e-9)


COSINE_SCHEDULE = Exercise(
    id="05.cosine_schedule",
    title="Up, then gently down",
    points=6,
    difficulty=2,
    minutes=10,
    prompt="""
Write `cosine_schedule(step, steps, warmup, peak, lowest)`: the learning rate at a step, as a float.

- For `step < warmup`: a straight line, `peak * (step + 1) / warmup`.
- After that: half a cosine wave, from `peak` at `step = warmup` down to `lowest` at `step = steps`. With $u$ running
  from 0 to 1 on the way, the rate is $\\text{lowest} + (\\text{peak} - \\text{lowest}) \\cdot (1 + \\cos \\pi u) / 2$.
""",
    stub='''
def cosine_schedule(step, steps, warmup, peak, lowest):
    """The learning rate at `step`, a float."""
    raise NotImplementedError
''',
    properties=[
        Property("the warm-up, step by step", 1, _schedule_warmup, proof=False),
        Property("peak, middle and end", 2, _schedule_corners, proof=False),
        Property("half a cosine wave", 2, _schedule_shape, proof=False),
        Property("any numbers", 1, _schedule_any),
    ],
    ready=("lib.training.schedule", "torch.optim.lr_scheduler.CosineAnnealingLR"),
    hints=(
        "Two cases, with an if. For the second, first compute u: the share of the way down that is done.",
        "u = (step - warmup) / (steps - warmup). It is 0 at the end of the warm-up and 1 at the end of the run.",
        "if step < warmup: return peak * (step + 1) / warmup. Then return lowest + (peak - lowest) * (1 + "
        "math.cos(math.pi * u)) / 2.",
    ),
)

# --- catches_wrong_average: the learner writes the test -----------------------------------------------------


def _right(grads, counts):
    return sum(c * g for g, c in zip(grads, counts, strict=True)) / sum(counts)


def _right_but_rounded(grads, counts):  # as another order of additions might
    right = _right(grads, counts)
    return torch.nextafter(right, right + 1)


def _equal_parts(grads, counts):
    return sum(grads) / len(grads)


def _summed(grads, counts):
    return sum(grads)


def _weighted_sum(grads, counts):
    return sum(c * g for g, c in zip(grads, counts, strict=True))


def _last_only(grads, counts):
    return grads[-1].clone()


def _by_parts(grads, counts):
    return _weighted_sum(grads, counts) / len(grads)


def _twice(grads, counts):
    return _right(grads, counts) / len(grads)


def _two_at_most(grads, counts):
    return _right(grads[:2], counts[:2])


def _tell(answer, rng, wrong, says, *others):
    """The learner's verdicts on a wrong accumulation, a right one and others: (it, if wrong, what else means)."""
    right = (_right, False, "It says True to a correct accumulation. What should the result be? The gradients, "
                            "weighted by their counts, divided by the number of all tokens.")  # fmt: skip
    # A lambda has no telling name.
    verdicts(lambda accumulate: answer(lambda grads, counts: accumulate(grads, counts)), rng,
             [(wrong, True, says), right, *others])


def _average_right(answer, rng):
    _tell(answer, rng, _weighted_sum, "It says False to a version that never divides by the number of tokens.",
          (_right_but_rounded, False, "It says True to a correct version that rounds otherwise, in the last bit. "
                                      "Compare with torch.allclose."))


def _average_sum(answer, rng):
    _tell(answer, rng, _summed, "It says False to a version that adds the parts up and never divides.",
          (_twice, True, "It says False to a version that divides by the number of parts once too often."))


def _average_last(answer, rng):
    _tell(answer, rng, _last_only, "It says False to a version that keeps only the last part: an accumulated gradient "
                                   "that is overwritten. Try parts whose gradients differ.")


def _average_counts(answer, rng):
    _tell(answer, rng, _equal_parts,
          "It says False to a version that takes the plain mean of the parts. That is right only when all parts have "
          "equally many tokens: try *unequal* counts.",
          (_by_parts, True, "It says False to a version that divides by the number of parts, not of tokens."))


def _average_many(answer, rng):
    _tell(answer, rng, _two_at_most,
          "It says False to a version that forgets every part after the second: try three parts.")


CATCHES_WRONG_AVERAGE = Exercise(
    id="05.catches_wrong_average",
    title="Write the test: a gradient averaged wrongly",
    points=7,
    difficulty=3,
    minutes=15,
    prompt="""
A large batch is read in parts. `accumulate(grads, counts)` gets, for each part, the gradient of its *mean* loss (a list
of tensors of one shape) and how many tokens it had (a list of whole numbers). It must return the gradient of the mean
loss over **all** tokens: what one large batch would have given.

Write `catches_wrong_average(accumulate)`. It calls `accumulate` on examples that you make up, and returns `True` if the
implementation is wrong, `False` if it is right. A right one may differ from yours in the last bit. In 2024 one of the
bugs that you are hunting was found in the most used training library; it had been there for years.
""",
    stub='''
def catches_wrong_average(accumulate):
    """True if accumulate(grads, counts) is wrong, False if it is right."""
    raise NotImplementedError
''',
    properties=[
        Property("trusts what is right", 2, _average_right),
        Property("catches a sum that is not divided, or twice", 1, _average_sum),
        Property("catches a gradient that is overwritten", 1, _average_last),
        Property("catches parts of unequal size", 2, _average_counts),
        Property("catches what needs three parts", 1, _average_many),
    ],
    hints=(
        "Compute the right answer yourself, from numbers that you choose, and compare. Choose numbers for which wrong "
        "versions give something else.",
        "Take three parts with different gradients and different counts. The mean over all tokens weighs "
        "each part by its "
        "count: the sum of count * gradient, divided by the sum of the counts.",
        "grads = [torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 5.0]), torch.tensor([4.0, 0.5])], counts = "
        "[1, 2, 5]. Return "
        "not torch.allclose(accumulate(grads, counts), want).",
    ),
)

# --- Momentum: a class with a memory ------------------------------------------------------------------------


def _steps(optimizer, w, grads):
    """The weights after each of several steps."""
    seen = []
    for g in grads:
        w = shape(call_method(optimizer, "step", w, g), w.shape, "what `step` returns")
        seen.append(w)
    return seen


def _momentum_by_hand(answer, rng):
    w, g = torch.tensor([10.0, -2.0]), torch.tensor([2.0, 4.0])
    first, second = _steps(answer(lr=0.1, beta=0.5), w, [g, g])
    require(not torch.allclose(first, w + 0.1 * g), "It goes uphill: a step *subtracts* lr times the velocity.")
    require(not torch.allclose(first, w - 0.05 * g),
            "The first step is too short: the gradient enters the velocity whole, not times (1 - beta).")
    require(not torch.allclose(first, w - 0.15 * g),
            "The first step is too long: it looks ahead (Nesterov's variant). Here the step is lr times the velocity.")
    close(first, torch.tensor([9.8, -2.4]), "The first step should be plain gradient descent: w - lr * g.")
    require(not torch.allclose(second, first - 0.1 * g),
            "The second step is like the first: nothing is remembered. Keep the velocity on self.")
    require(not torch.allclose(second, first - 0.2 * g),
            "The velocity never fades: multiply what is remembered by beta at each step.")
    close(second, torch.tensor([9.5, -3.0]), "Two equal gradients, beta 0.5: the second velocity is 1.5 times the "
                                             "gradient. Yours differs.")


def _momentum_fades(answer, rng):
    w, g = normal(rng, 3, 2), normal(rng, 3, 2)
    *_, before, after = _steps(answer(lr=0.5, beta=0.5), w, [g, *[torch.zeros(3, 2)] * 12])
    require(differs(w, before, atol=1e-2).any(), "A first push moves nothing.")
    close(before, after, "Without new gradients the weights must come to rest: the velocity halves at each step when "
                         "beta is 0.5.", atol=1e-2)
    *_, before, after = _steps(answer(lr=0.5, beta=0.0), w, [g, torch.zeros(3, 2), torch.zeros(3, 2)])
    close(after, before, "With beta 0 nothing is remembered: a zero gradient then moves nothing.")


def _momentum_own(answer, rng):
    g = normal(rng, 4)
    one, other = answer(lr=0.1, beta=0.9), answer(lr=0.1, beta=0.9)
    for _ in range(3):
        call_method(one, "step", torch.zeros(4), g)
    close(call_method(other, "step", torch.zeros(4), g), -0.1 * g,
          "Two optimizers share one memory: make the velocity in __init__, on self, not in the class.")


def _momentum_any(answer, rng):
    lr, beta, w = 0.03, 0.8, normal(rng, 2, 3)
    grads = [normal(rng, 2, 3) for _ in range(6)]
    want, v, velocity = [], w, torch.zeros(2, 3)
    for g in grads:
        velocity = beta * velocity + g
        v = v - lr * velocity
        want.append(v)
    for got, right in zip(_steps(answer(lr, beta), w, grads), want, strict=True):
        close(got, right, "Over several different gradients the weights go elsewhere: velocity = beta * velocity + g, "
                          "then w - lr * velocity.", atol=1e-4)


MOMENTUM = Exercise(
    id="05.momentum",
    name="Momentum",
    title="An optimizer with a memory",
    points=6,
    difficulty=2,
    minutes=10,
    prompt="""
Write the class `Momentum(lr, beta)`, gradient descent that remembers where it was going. It starts with a velocity
of 0. Its method `step(w, g)` takes weights and their gradient, two tensors of one shape; it makes the new velocity
$v \\leftarrow \\beta v + g$ and **returns** the new weights $w - \\mathrm{lr} \\cdot v$. It leaves `w` itself as it
was.
""",
    stub='''
class Momentum:
    def __init__(self, lr, beta):
        raise NotImplementedError

    def step(self, w, g):
        """Weights and their gradient -> new weights, all of one shape."""
        raise NotImplementedError
''',
    properties=[
        Property("two steps, by hand", 2, _momentum_by_hand),
        Property("what is remembered fades", 1, _momentum_fades),
        Property("each optimizer its own memory", 1, _momentum_own),
        Property("any gradients", 2, _momentum_any),
    ],
    ready=("torch.optim.SGD",),
    hints=(
        "An object can remember: keep lr, beta and the velocity on self. The velocity may start as the number 0.",
        "In step: first the new velocity from the old one and the gradient, then the new weights from the velocity.",
        "self.velocity = self.beta * self.velocity + g, then return w - self.lr * self.velocity.",
    ),
)

# --- fit_bigram: a trained model, judged by the weights it gives back --------------------------------------------


def _chain(rng, vocab_size, n):
    """A made-up language in which each token likes some followers more: (n,) tokens, and its chances (V, V)."""
    liked = (4 * normal(rng, vocab_size, vocab_size)).softmax(-1)  # (V, V)
    chances = 0.5 * liked + 0.5 / vocab_size  # (V, V): how likely j follows i, and no pair too rare to be seen
    tokens = [0]
    for u in torch.rand(n - 1, generator=rng).tolist():
        row = chances[tokens[-1]].cumsum(0)
        tokens.append(min(int((row < u).sum()), vocab_size - 1))
    return torch.tensor(tokens), chances


def _trained(answer, tokens, vocab_size):
    return finite(shape(answer(tokens, vocab_size), (vocab_size, vocab_size), "the table"), "the table")


def _expected_loss(table, chances):
    """The mean surprise of a table of logits over the language itself: more text than anybody could read."""
    share = torch.full((len(chances),), 1 / len(chances))
    for _ in range(200):  # how often each token comes, in the long run
        share = share @ chances
    return -(share[:, None] * chances * table.double().log_softmax(-1)).sum().item()


def _bigram_unseen(answer, rng):
    tokens = torch.tensor([0, 1, 2, 3] * 50)  # only four pairs ever occur
    loss = -_trained(answer, tokens, 5).log_softmax(-1)
    require(loss.max() < 50, "A pair that it never saw is held to be impossible. One surprise in new text would then "
                             "cost everything: keep all logits finite.")


def _bigram_learns(answer, rng):
    tokens, chances = _chain(rng, 5, 1000)
    table = _trained(answer, tokens, 5)
    lost, best = _expected_loss(table, chances), _expected_loss(chances.log(), chances)
    require(abs(lost - math.log(5)) > 1e-3, "The table knows nothing: on new text its loss is ln V, that of a guess.")
    require(_expected_loss(table.T, chances) > lost - 1e-6,
            "The table looks the wrong way: row i scores what *follows* token i, not what came before it. Is it "
            "transposed?")
    require(lost < best + 0.2 * (math.log(5) - best),
            "On text that it has not seen, its loss is far from what this language allows. Train longer, or on more of "
            "the text; and give back logits, not chances.",
            f"loss {lost:.3f}; the language allows {best:.3f}")


FIT_BIGRAM = Exercise(
    id="05.fit_bigram",
    title="Train a model, give back its weights",
    points=5,
    difficulty=3,
    minutes=20,
    prompt="""
Write `fit_bigram(tokens, vocab_size)`: it trains the smallest language model there is and returns its weights.
`tokens` is a text of (N,) integers. The model is one table of logits, (V, V): row i scores what follows token i.

Train it any way you like, in a second or two. Only the table counts: we measure its loss ourselves, on text from the
same source that your code has not seen.
""",
    stub='''
def fit_bigram(tokens, vocab_size):
    """tokens (N,) -> table of logits (V, V): row i scores what follows token i."""
    raise NotImplementedError
''',
    properties=[
        Property("nothing is impossible", 1, _bigram_unseen, proof=False),
        Property("it predicts text that it has not seen", 4, _bigram_learns),
    ],
    hints=(
        "Inputs are all tokens but the last, targets all but the first. table[inputs] is (N - 1, V) logits: the loss "
        "is their cross-entropy with the targets.",
        "Start from zeros with requires_grad=True and let torch.optim.Adam with a rate of about 0.3 take some 60 "
        "steps on the whole text.",
        "for _ in range(60): loss = F.cross_entropy(table[tokens[:-1]], tokens[1:]); optimizer.zero_grad(); "
        "loss.backward(); optimizer.step(). Then return table.detach().",
    ),
)

EXERCISES = [CUT_WINDOWS, CROSS_ENTROPY, TRAINING_STEP, COSINE_SCHEDULE, MOMENTUM, CATCHES_WRONG_AVERAGE, FIT_BIGRAM]
