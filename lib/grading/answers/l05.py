"""Lesson 05, training: references and mutants."""

import math

import torch

from lib.grading.answers import Answer, Mutant


def cut_windows(tokens, starts, block_size):
    index = starts[:, None] + torch.arange(block_size)  # (B, T)
    x = tokens[index]  # (B, T)
    y = tokens[index + 1]  # (B, T)
    return x, y


def cross_entropy(logits, targets):
    log_chances = logits.log_softmax(dim=-1)  # (..., V)
    surprise = -log_chances.gather(-1, targets[..., None])  # (..., 1)
    return surprise.mean()


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


ANSWERS = {
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
