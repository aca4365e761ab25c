"""Lesson 05, training: references and mutants."""

import math

import torch

from lib.answers import Answer, Mutant


def cut_windows(tokens, starts, block_size):
    index = starts[:, None] + torch.arange(block_size)  # (B, T)
    x = tokens[index]  # (B, T)
    y = tokens[index + 1]  # (B, T)
    return x, y


def cross_entropy(logits, targets):
    log_chances = logits.log_softmax(dim=-1)  # (..., V)
    surprise = -log_chances.gather(-1, targets[..., None])  # (..., 1)
    return surprise.mean()


def training_step(model, optimizer, x, y, loss_of, max_norm):
    loss = loss_of(model(x), y)  # ()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()


def cosine_schedule(step, steps, warmup, peak, lowest):
    if step < warmup:
        return peak * (step + 1) / warmup
    u = (step - warmup) / (steps - warmup)
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * u)) / 2


def catches_wrong_average(accumulate):
    grads = [torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 5.0]), torch.tensor([4.0, 0.5])]
    counts = [1, 2, 5]
    want = sum(c * g for c, g in zip(counts, grads, strict=True)) / sum(counts)
    return not torch.allclose(accumulate(grads, counts), want)


class Momentum:
    def __init__(self, lr, beta):
        self.lr, self.beta = lr, beta
        self.velocity = 0

    def step(self, w, g):
        self.velocity = self.beta * self.velocity + g
        return w - self.lr * self.velocity


def fit_bigram(tokens, vocab_size):
    table = torch.zeros(vocab_size, vocab_size, requires_grad=True)  # (V, V)
    optimizer = torch.optim.Adam([table], lr=0.3)
    for _ in range(60):
        logits = table[tokens[:-1]]  # (N - 1, V)
        loss = torch.nn.functional.cross_entropy(logits, tokens[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return table.detach()


ANSWERS = {
    "05.momentum": Answer(Momentum, (
        Mutant("forgets", "self.beta * self.velocity + g", "g", "nothing is remembered"),
        Mutant("uphill", "w - self.lr", "w + self.lr", "uphill"),
        Mutant("never fades", "self.beta * self.velocity", "self.velocity", "never fades"),
        Mutant("averaged", "self.velocity + g", "self.velocity + (1 - self.beta) * g", "too short"),
        Mutant("looks ahead", "self.lr * self.velocity", "self.lr * (g + self.beta * self.velocity)", "too long"),
        Mutant("shared memory", "self.velocity = 0\n\n    def step(self, w, g):\n        self.velocity = self.beta",
               "Momentum.velocity = 0\n\n    def step(self, w, g):\n        Momentum.velocity = self.beta",
               "share one memory"),
        Mutant("in place", "return w - self.lr * self.velocity", "w -= self.lr * self.velocity\n        return w",
               "in place"),
        Mutant("returns the velocity", "w - self.lr * self.velocity", "self.velocity", "plain gradient descent"),
        Mutant("rate in the memory", "self.velocity + g\n        return w - self.lr * self.velocity",
               "self.velocity + self.lr * g\n        return w - self.velocity * self.lr", "plain gradient descent"),
        Mutant("forgot return", "return w", "w", "Did you forget `return`?"),
    )),
    "05.fit_bigram": Answer(fit_bigram, (
        Mutant("untrained", "range(60)", "range(0)", "knows nothing"),
        Mutant("one timid step", "range(60)", "range(1)", "Train longer"),
        Mutant("transposed", "return table.detach()", "return table.detach().T", "the wrong way"),
        Mutant("chances", "return table.detach()", "return table.detach().softmax(-1)", "logits, not chances"),
        Mutant("repeats itself", "tokens[1:])", "tokens[:-1])", "far from what this language allows"),
        Mutant("the loss", "return table.detach()", "return loss.detach()", "shape of the table"),
        Mutant("impossible pairs", "return table.detach()",
               "counts = torch.zeros(vocab_size, vocab_size)\n    for a, b in zip(tokens[:-1], tokens[1:]):\n"
               "        counts[a, b] += 1\n    return (counts + 1e-30).log()", "held to be impossible"),
        Mutant("an optimizer for nothing", "[table]", "[table.detach().clone().requires_grad_()]", "knows nothing"),
    )),
    "05.cut_windows": Answer(cut_windows, (
        Mutant("not shifted", "index + 1", "index", "y equals x"),
        Mutant("shifted back", "index + 1", "(index - 1) % len(tokens)", "earlier"),
        Mutant("shifted by two", "index + 1", "(index + 2) % len(tokens)", "two tokens later"),
        Mutant("wraps around", "tokens[index + 1]", "torch.roll(x, -1, 1)", "wraps around"),
        Mutant("one thing", "return x, y", "return torch.stack([x, y])", "return x, y"),
        Mutant("columns", "return x, y", "return x.T, y.T", "lies on its side"),
        Mutant("too short", "torch.arange(block_size)", "torch.arange(block_size - 1)", "The shape of x"),
        Mutant("starts ignored", "starts[:, None]", "torch.arange(len(starts))[:, None]", "begin at positions 1 and 4"),
        Mutant("sorted", "starts[:, None]", "starts.sort().values[:, None]", "does not begin at its start"),
        Mutant("floats", "return x, y", "return x.float(), y.float()", "dtype of x is float32"),
    )),
    "05.cross_entropy": Answer(cross_entropy, (
        Mutant("wrong sign", "surprise = -log", "surprise = log", "wrong sign"),
        Mutant("summed", "surprise.mean()", "surprise.sum()", "*sum* over the positions"),
        Mutant("bits", "surprise.mean()", "surprise.mean() / math.log(2)", "in bits"),
        Mutant("chances", "logits.log_softmax(dim=-1)", "logits.softmax(dim=-1)", "loss of ln V"),
        Mutant("everybody", "log_chances.gather(-1, targets[..., None])", "log_chances",
               "all tokens of the vocabulary"),
        Mutant("wrong axis", "dim=-1", "dim=0", "loss of ln V"),
        Mutant("no softmax", "logits.log_softmax(dim=-1)", "logits", "loss of ln V"),
        Mutant("overflow", "logits.log_softmax(dim=-1)", "(logits.exp() / logits.exp().sum(-1, keepdim=True)).log()",
               "exp overflows"),
        Mutant("clamped", "logits.log_softmax(dim=-1)", "logits.softmax(-1).clamp_min(1e-9).log()", "Did you clamp"),
        Mutant("not averaged", "surprise.mean()", "surprise", "one number is expected"),
    )),
    "05.training_step": Answer(training_step, (
        Mutant("old gradients kept", "    optimizer.zero_grad()\n", "", "gradient of the step before is still in"),
        Mutant("step too early", "    loss.backward()\n", "    optimizer.step()\n    loss.backward()\n",
               "before `backward`"),
        Mutant("no step", "    optimizer.step()\n", "", "takes no step"),
        Mutant("no gradient", "    loss.backward()\n", "", "No gradient is computed"),
        Mutant("forgotten before the step", "    optimizer.step()\n",
               "    optimizer.zero_grad()\n    optimizer.step()\n", "weights are what they were"),
        Mutant("uphill", "loss.backward()", "(-loss).backward()", "uphill"),
        Mutant("no clipping", "    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n", "",
               "goes through whole"),
        Mutant("clipped too late",
               "    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n    optimizer.step()\n",
               "    optimizer.step()\n    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
               "goes through whole"),
        Mutant("clipped before the gradient", "    optimizer.zero_grad()\n    loss.backward()\n",
               "    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n    max_norm = 1e9\n"
               "    optimizer.zero_grad()\n    loss.backward()\n",
               "goes through whole"),
        Mutant("each by itself", "    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
               "    for w in model.parameters():\n        torch.nn.utils.clip_grad_norm_([w], max_norm)\n",
               "clipped by itself"),
        Mutant("entries", "clip_grad_norm_", "clip_grad_value_", "Single entries are cut off"),
        Mutant("always of that length", "    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
               "    length = sum(w.grad.square().sum() for w in model.parameters()) ** 0.5\n"
               "    for w in model.parameters():\n        w.grad *= max_norm / length\n", "weights are not"),
        Mutant("the loss afterwards", "return loss.item()", "return loss_of(model(x), y).item()", "before the step"),
        Mutant("the graph kept", "loss.item()", "loss", "still holds on"),
        Mutant("copies x", "loss_of(model(x), y)", "loss_of(model(x), x)", "loss that is returned is wrong"),
        Mutant("two steps", "    optimizer.step()\n", "    optimizer.step()\n    optimizer.step()\n",
               "several times"),
        Mutant("forgot return", "    return loss.item()", "    loss.item()", "returns nothing"),
    )),
    "05.cosine_schedule": Answer(cosine_schedule, (
        Mutant("first step wasted", "(step + 1) / warmup", "step / warmup", "a rate of 0"),
        Mutant("no warm-up", "step < warmup", "False", "not peak * (step + 1) / warmup"),
        Mutant("cosine from step 0", "(step - warmup) / (steps - warmup)", "step / steps",
               "from the end of the warm-up"),
        Mutant("whole wave", "math.pi", "2 * math.pi", "half a wave"),
        Mutant("to zero", "lowest + (peak - lowest) * (1", "peak * (1", "falls to 0"),
        Mutant("straight line", "(1 + math.cos(math.pi * u)) / 2", "(1 - u)", "a straight line"),
        Mutant("quarter wave", "(1 + math.cos(math.pi * u)) / 2", "math.cos(math.pi * u / 2)", "half-way between"),
        Mutant("number written in", "(steps - warmup)", "(steps - 10)", "written into your code"),
    )),
    "05.catches_wrong_average": Answer(catches_wrong_average, (
        Mutant("always True", "return not torch.allclose(accumulate(grads, counts), want)", "return True",
               "It says True to a correct"),
        Mutant("always False", "return not torch.allclose(accumulate(grads, counts), want)", "return False",
               "never divides by the number of tokens"),
        Mutant("exact", "torch.allclose", "torch.equal", "last bit"),
        Mutant("equal counts", "[1, 2, 5]", "[2, 2, 2]", "*unequal* counts"),
        Mutant("equal gradients", "torch.tensor([-3.0, 5.0]), torch.tensor([4.0, 0.5])",
               "torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])", "keeps only the last part"),
        Mutant("two parts", ", torch.tensor([4.0, 0.5])]\n    counts = [1, 2, 5]", "]\n    counts = [1, 3]",
               "three parts"),
        Mutant("believes in equal parts", "sum(c * g for c, g in zip(counts, grads, strict=True)) / sum(counts)",
               "sum(grads) / len(grads)", "It says True to a correct"),
        Mutant("one token each", "[1, 2, 5]", "[1, 1, 1]", "*unequal* counts"),
    )),
}
