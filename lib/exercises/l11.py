"""Lesson 11, fine-tuning: the exercises."""

import torch

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, dtype, integer, normal, require, shape, verdicts

IGNORE = -100

# --- loss_targets -------------------------------------------------------------------------------------------


def _wanted(tokens, prompt, T):
    y = torch.full((T,), IGNORE)
    y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]
    return y


def _got(answer, tokens, prompt, T):
    return dtype(shape(answer(tokens, prompt, T), (T,)), torch.int64)


def _targets_by_hand(answer, rng):
    tokens = torch.tensor([11, 12, 13, 21, 22, 23])
    got = _got(answer, tokens, 3, 5).tolist()
    require(got != [12, 13, 21, 22, 23], "The prompt is scored as well: its targets must be -100.")
    require(got != [-100, -100, -100, 22, 23], "The first token of the answer is never asked for. It is predicted from "
                                               "the *last* token of the prompt: off by one.")
    require(got != [-100, 13, 21, 22, 23], "The last token of the prompt is asked for, too: off by one.")
    require(got != [-100, -100, -100, 21, 22], "Each token is asked for its own self. The target at place t is token "
                                               "t + 1.")
    require(got != [-100, -100, 21, 22, -100], "The last token of the answer is never asked for. It is the one that "
                                               "ends the turn: without it the model would not learn to stop.")
    require(got != [12, 13, -100, -100, -100], "The mask is the wrong way round: the prompt is scored, the answer is "
                                               "not.")
    require(got == [-100, -100, 21, 22, 23], "Prompt 11, 12, 13, answer 21, 22, 23 and T = 5: the targets are -100, "
                                             "-100, 21, 22, 23.", f"got {got}")


def _targets_padding(answer, rng):
    tokens = torch.tensor([11, 12, 21, 22])
    got = _got(answer, tokens, 2, 7).tolist()
    require(got[3:] != [0] * 4, "The filler has target 0. That is a real token; what is not asked for is -100.")
    require(got[3:] != [22] * 4, "The last token is repeated into the filler.")
    require(got == [-100, 21, 22, -100, -100, -100, -100], "A row shorter than T: all places after the answer must be "
                                                           "-100.", f"got {got}")


def _targets_any(answer, rng):
    for _ in range(6):
        prompt, said, more = integer(rng, 1, 9), integer(rng, 1, 6), integer(rng, 0, 5)
        tokens = torch.randint(1000, (prompt + said,), generator=rng)  # (n,)
        T = len(tokens) - 1 + more
        close(_got(answer, tokens, prompt, T), _wanted(tokens, prompt, T),
              "With other lengths it is wrong. Do prompts of one token and answers of one token work?")


LOSS_TARGETS = Exercise(
    id="11.loss_targets",
    title="Ask for the answer only",
    points=5,
    difficulty=1,
    minutes=12,
    prompt="""
Write `loss_targets(tokens, prompt, T)`. `tokens` is (n,): the prompt, then the answer, whose last token ends the turn.
`prompt` is how many of them are the prompt. Return (T,), T at least n - 1: what the model is to predict at each place.

The target at place t is token t + 1, if that is a token of the answer. All other places are -100, which
`F.cross_entropy` passes over: the prompt, and the filler behind a row that is shorter than its batch.
""",
    stub='''
def loss_targets(tokens, prompt, T):
    """(n,), int, int -> targets (T,), -100 where nothing is asked."""
    raise NotImplementedError
''',
    properties=[
        Property("six tokens, by hand", 3, _targets_by_hand, proof=False),
        Property("filler", 1, _targets_padding, proof=False),
        Property("any length", 1, _targets_any),
    ],
    ready=("lib.adapt.finetuning.answer_loss", "lib.adapt.finetuning.batch"),
    hints=(
        "Begin with T times -100. Then write the answer's tokens into the places from which they are predicted.",
        "The answer's first token, tokens[prompt], is predicted at place prompt - 1. There are n - prompt of them.",
        "y = torch.full((T,), -100), then y[prompt - 1 : n - 1] = tokens[prompt:].",
    ),
)

# --- lora ---------------------------------------------------------------------------------------------------


def _case(rng, r=None, width=5, out=4):
    r = r or integer(rng, 2, 3)
    return normal(rng, 3, 6, width), normal(rng, out, width), normal(rng, r, width), normal(rng, out, r)


def _lora_start(answer, rng):
    x, W, A, B = _case(rng)
    got = shape(answer(x, W, A, torch.zeros_like(B), 16.0), (3, 6, 4))
    require(bool(got.any()), "With B zero the result is zero: the frozen weight W is missing.")
    close(got, x @ W.T, "With B zero, as it is at the start, the layer must compute what it did before: x Wᵀ.")


def _lora_formula(answer, rng):
    for r, alpha in ((2, 6.0), (3, 1.5)):
        x, W, A, B = _case(rng, r)
        low = x @ A.T @ B.T  # (3, 6, out)
        got = shape(answer(x, W, A, B, alpha), (3, 6, 4))
        for factor, says in (
            (0.0, "A and B make no difference."),
            (1.0, "The scale is missing: the change is multiplied by alpha / r."),
            (alpha, "The change is multiplied by alpha, not by alpha / r."),
            (alpha * r, "The change is multiplied by alpha · r; it should be divided by r."),
            (1 / r, "The change is divided by r, but alpha is missing."),
            (r / alpha, "The scale is upside down: alpha / r, not r / alpha."),
            (alpha / r**0.5, "That is alpha / √r, a later variant (rsLoRA). Here it is alpha / r."),
            (alpha / 4, "You divide by the number of outputs. r is the *small* side: A has r rows."),
            (alpha / 5, "You divide by the number of inputs. r is the *small* side: A has r rows."),
            (-alpha / r, "The change is subtracted."),
        ):
            if abs(factor - alpha / r) > 1e-9:
                require(differs(got, x @ W.T + factor * low).any(), says)
        require(differs(got, alpha / r * (x @ W.T + low)).any(), "The frozen weight is scaled as well; only the change "
                                                                 "is.")
        close(got, x @ W.T + alpha / r * low, "The result is not W x + (alpha / r) B A x.", atol=1e-4)


def _lora_rows(answer, rng):
    x, W, A, B = _case(rng)
    apart = torch.cat([answer(part, W, A, B, 4.0) for part in x.split(1)])  # (3, 6, out)
    close(answer(x, W, A, B, 4.0), apart, "Rows of a batch change one another.", atol=1e-4)
    row = x[0, 0]  # (in,)
    close(answer(row, W, A, B, 4.0), W @ row + 4.0 / len(A) * (B @ (A @ row)), "A single vector (in,) does not work.",
          atol=1e-4)


LORA = Exercise(
    id="11.lora",
    title="A change of low rank",
    points=5,
    difficulty=1,
    minutes=10,
    prompt="""
Write LoRA's forward pass, `lora(x, W, A, B, alpha)`:

$$h = W x + \\frac{\\alpha}{r} B A x$$

`x` is (…, in), `W` (out, in), `A` (r, in), `B` (out, r), `alpha` a number. Return (…, out). r is to be read off the
shapes. Never build the full matrix B A: first down to r numbers, then up again.
""",
    stub='''
def lora(x, W, A, B, alpha):
    """x (…, in), W (out, in), A (r, in), B (out, r) -> (…, out)."""
    raise NotImplementedError
''',
    properties=[
        Property("at the start nothing changes", 1, _lora_start),
        Property("the formula, with its scale", 3, _lora_formula),
        Property("any number of rows", 1, _lora_rows),
    ],
    ready=("lib.adapt.lora.LoRALinear", "lib.adapt.lora.add_lora"),
    hints=(
        "A row x times a matrix stored as (out, in) is x @ W.T. Do that three times.",
        "x @ A.T is (…, r); that times B.T is (…, out). The scale is alpha / A.shape[0].",
        "return x @ W.T + alpha / A.shape[0] * (x @ A.T @ B.T).",
    ),
)

# --- merged -------------------------------------------------------------------------------------------------


def _merged_one(answer, rng):
    _, W, A, B = _case(rng, 2)
    got = shape(answer(W, [(A, B, 6.0)]), W.shape)
    require(differs(got, W).any(), "Nothing was added to W.")
    require(differs(got, W + B @ A).any(), "The scale alpha / r is missing.")
    require(differs(got, W + 6.0 * B @ A).any(), "The change is multiplied by alpha, not by alpha / r.")
    require(differs(got, W - 3.0 * B @ A).any(), "The change is subtracted: that is how one takes it out again.")
    require(differs(got, 3.0 * B @ A).any(), "W itself is missing.")
    close(got, W + 3.0 * B @ A, "With one adapter: W + (alpha / r) B A.", atol=1e-4)


def _merged_none(answer, rng):
    W = normal(rng, 4, 5)
    close(answer(W, []), W, "With no adapter, W comes back.")


def _merged_several(answer, rng):
    W, some = normal(rng, 4, 5), []
    for r in (1, 3, 2):
        some.append((normal(rng, r, 5), normal(rng, 4, r), float(integer(rng, 1, 9)) + 0.5))
    want = W + sum(alpha / len(A) * B @ A for A, B, alpha in some)
    got = shape(answer(W, some), W.shape)
    A, B, alpha = some[-1]
    require(differs(got, W + alpha / len(A) * B @ A).any(), "Of several adapters only the last one arrives.")
    A, B, alpha = some[0]
    require(differs(got, W + alpha / len(A) * B @ A).any(), "Of several adapters only the first one arrives.")
    for r in (2, 3):
        require(differs(got, W + sum(alpha * B @ A for A, B, alpha in some) / r, 1e-4).any(),
                "One adapter's r is used for all: each has its own.")
    require(differs(got, W + (want - W) / 3).any(), "That is the mean of the changes. They are added.")
    close(got, want, "With several adapters the changes add up, each with its own alpha and r.", atol=1e-4)


MERGED = Exercise(
    id="11.merged",
    title="Into the weights",
    points=4,
    difficulty=2,
    minutes=10,
    prompt="""
After training, an adapter can be added into the weight, and costs nothing from then on. Several can: a change for the
shop's summaries and one for its politeness are both just numbers to add.

Write `merged(W, adapters)`. `W` is (out, in), `adapters` a list, perhaps empty, of tuples `(A, B, alpha)`, each with
its own rank. Return the one matrix that computes what W with all of them would. W itself must stay as it is: somebody
else may be using it.
""",
    stub='''
def merged(W, adapters):
    """W (out, in), [(A (r, in), B (out, r), alpha), …] -> (out, in)."""
    raise NotImplementedError
''',
    properties=[
        Property("one adapter", 2, _merged_one),
        Property("none", 1, _merged_none, proof=False),
        Property("several", 1, _merged_several),
    ],
    ready=("lib.adapt.lora.merge", "lib.adapt.lora.LoRALinear"),
    hints=(
        "The change of one adapter is a matrix of W's own shape: (alpha / r) B A.",
        "Go through the list and add: W = W + …, not W += …, which would write into the caller's matrix.",
        "for A, B, alpha in adapters: W = W + alpha / len(A) * (B @ A). Then return W.",
    ),
)

# --- catches_mask: the learner writes the test --------------------------------------------------------------


def _right(tokens, prompt, T):
    return _wanted(tokens, prompt, T)


def _right_slowly(tokens, prompt, T):
    n = len(tokens)
    return torch.tensor([int(tokens[t + 1]) if prompt <= t + 1 < n else IGNORE for t in range(T)])


def _no_mask(tokens, prompt, T):
    return _wanted(tokens, 1, T)


def _late(tokens, prompt, T):
    y = _wanted(tokens, prompt, T)
    y[prompt - 1] = IGNORE
    return y


def _early(tokens, prompt, T):
    return _wanted(tokens, max(1, prompt - 1), T)


def _unshifted(tokens, prompt, T):
    y = torch.full((T,), IGNORE)
    y[prompt : len(tokens)] = tokens[prompt:][: T - prompt]
    return y


def _endless(tokens, prompt, T):
    y = _wanted(tokens, prompt, T)
    y[len(tokens) - 2] = IGNORE
    return y


def _filler(tokens, prompt, T):
    y = _wanted(tokens, prompt, T)
    y[len(tokens) - 1 :] = 0
    return y


def _reversed(tokens, prompt, T):
    y = _wanted(tokens, 1, T)
    y[prompt - 1 : len(tokens) - 1] = IGNORE
    return y


def _capped(tokens, prompt, T):
    y = _wanted(tokens, prompt, T)
    y[prompt + 2 :] = IGNORE
    return y


RIGHT = [(_right, False, "It says True to a mask that is right."),
         (_right_slowly, False, "It says True to a mask that is right, made in another way.")]  # fmt: skip


def _masks(*cases):
    def test(answer, rng):
        verdicts(lambda build: answer(lambda tokens, prompt, T: build(tokens, prompt, T)), rng,
                 [*RIGHT, *((function, True, says) for function, says in cases)])  # fmt: skip

    return test


_catches_prompt = _masks(
    (_no_mask, "It misses a mask that is not there: all of the prompt is asked for."),
    (_reversed, "It misses a mask the wrong way round: the prompt is asked for, the answer is not."))
_catches_off = _masks(
    (_late, "It misses a mask off by one: the first token of the answer, predicted at the last place of the prompt, is "
            "never asked for."),
    (_early, "It misses a mask off by one: the prompt's last token is asked for, too. Use a prompt of several tokens."),
    (_unshifted, "It misses targets that are not shifted: each token is asked for its own self."))
_catches_end = _masks(
    (_endless, "It misses a mask that leaves out the last token, the one that ends the turn: the model never stops."),
    (_filler, "It misses filler with target 0 in place of -100. Try a T that is larger than the row needs."),
    (_capped, "It misses a mask that asks for the first three tokens of an answer only. Try a longer answer."))

CATCHES_MASK = Exercise(
    id="11.catches_mask",
    title="Write the test: a mask off by one",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
A loss mask that is wrong by one place raises no error, and the loss falls as nicely as ever. You notice weeks later,
when the model never stops, or starts each answer oddly. So one tests it.

`build(tokens, prompt, T)` is somebody's answer to the first exercise: tokens (n,), the number of prompt tokens, and T
go in, targets (T,) come out. Write `catches_mask(build)`: **True if it is broken**, False if it is right. You can only
call it, with rows of your own choice.
""",
    stub='''
def catches_mask(build):
    """True if build(tokens, prompt, T), which should return the targets (T,), does not."""
    raise NotImplementedError
''',
    properties=[
        Property("the prompt is not asked for", 2, _catches_prompt),
        Property("off by one", 2, _catches_off),
        Property("the end of the row", 2, _catches_end),
    ],
    hints=(
        "Choose one row of which you know the right targets by hand, and compare.",
        "A prompt of three tokens or more, an answer of four or more, all different; and a T larger than n - 1.",
        "y = build(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8]), 3, 10); the right targets are -100, -100, 4, 5, 6, 7, 8, "
        "-100, -100, -100. Return whether yours differ.",
    ),
)

# --- catches_thaw: the learner writes the test --------------------------------------------------------------


def _gradients(W, A, B, x):
    """Of the squared length of LoRA's output, by W, A and B."""
    W, A, B = (p.detach().clone().requires_grad_() for p in (W, A, B))
    with torch.enable_grad():
        return torch.autograd.grad(((x @ W.T + 2 * x @ A.T @ B.T) ** 2).mean(), (W, A, B))


def _sgd(W, A, B, x):
    _, a, b = _gradients(W, A, B, x)
    return W.clone(), A - 0.1 * a, B - 0.1 * b


def _signs(W, A, B, x):
    _, a, b = _gradients(W, A, B, x)
    return W.clone(), A - 0.01 * a.sign(), B - 0.01 * b.sign()


def _thawed(W, A, B, x):
    w, a, b = _gradients(W, A, B, x)
    return W - 0.1 * w, A - 0.1 * a, B - 0.1 * b


def _decayed(W, A, B, x):
    return (0.999 * W, *_sgd(W, A, B, x)[1:])


def _swallowed(W, A, B, x):
    _, A, B = _sgd(W, A, B, x)
    return W + 2 * B @ A, A, B


def _half_asleep(W, A, B, x):
    return W.clone(), A.clone(), _sgd(W, A, B, x)[2]


def _other_half(W, A, B, x):
    return W.clone(), _sgd(W, A, B, x)[1], B.clone()


def _asleep(W, A, B, x):
    return W.clone(), A.clone(), B.clone()


def _one_row_thawed(W, A, B, x):
    W, A, B = (p.clone() for p in (W, *_sgd(W, A, B, x)[1:]))
    W[-1] *= 0.99
    return W, A, B


STEPS = [
    (_sgd, False, "It says True to a step that is right. While B is zero, the gradient of A is zero: in the first step "
                  "A rightly stays. Start from a B that is not zero."),
    (_signs, False, "It says True to a right step of another optimizer."),
]


def _steps(*cases):
    def test(answer, rng):
        verdicts(lambda step: answer(lambda W, A, B, x: step(W, A, B, x)), rng,
                 [*STEPS, *((function, True, says) for function, says in cases)])  # fmt: skip

    return test


_catches_base = _steps(
    (_thawed, "It misses a base that learns as well: W must come back as it was."),
    (_one_row_thawed, "It misses a base of which one row moves. Compare all of W."),
    (_decayed, "It misses weight decay on the frozen base: W shrinks by a thousandth in each step, with no gradient at "
               "all. Compare exactly."),
    (_swallowed, "It misses a step that adds the change into W, and leaves it in A and B, too: it counts twice."))
_catches_sleep = _steps(
    (_asleep, "It misses a step in which nothing learns."),
    (_half_asleep, "It misses a step in which A never learns. Start from a B that is not zero: then both must move."),
    (_other_half, "It misses a step in which B never learns."))

CATCHES_THAW = Exercise(
    id="11.catches_thaw",
    title="Write the test: a base that is not frozen",
    points=5,
    difficulty=3,
    minutes=15,
    prompt="""
`step(W, A, B, x)` takes one training step of a LoRA layer on inputs x (N, in) and returns the new (W, A, B); W is (out,
in), A (r, in), B (out, r). A right step changes A and B and leaves the frozen W exactly as it was.

Write `catches_thaw(step)`: **True if it is broken**, False if it is right. You choose all inputs, and can only call it.
The optimizer is not known, so the size of a change tells you nothing. Beware of one thing: at the start of LoRA, B is
zero, and then the gradient of A is zero as well.
""",
    stub='''
def catches_thaw(step):
    """True if step(W, A, B, x) -> (W, A, B) moves the frozen W, or does not move A and B."""
    raise NotImplementedError
''',
    properties=[
        Property("the base stays", 3, _catches_base),
        Property("the adapter learns", 2, _catches_sleep),
    ],
    hints=(
        "Draw W, A, B and x at random, call the step once, and compare each of the three with what it was.",
        "torch.equal tells whether two tensors are the same to the last bit. W must be; A and B must not be.",
        "new = step(W, A, B, x), then return not torch.equal(new[0], W) or torch.equal(new[1], A) or "
        "torch.equal(new[2], B).",
    ),
)

EXERCISES = [LOSS_TARGETS, LORA, MERGED, CATCHES_MASK, CATCHES_THAW]
