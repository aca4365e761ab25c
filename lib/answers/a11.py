"""Lesson 11, fine-tuning: references and mutants."""

import torch

from lib.answers import Answer, Mutant


def loss_targets(tokens, prompt, T):
    y = torch.full((T,), -100)
    y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]
    return y


def lora(x, W, A, B, alpha):
    low = x @ A.T  # (…, r)
    return x @ W.T + alpha / A.shape[0] * (low @ B.T)


def merged(W, adapters):
    for A, B, alpha in adapters:
        W = W + alpha / len(A) * (B @ A)
    return W


def catches_mask(build):
    tokens, prompt, T = torch.arange(1, 9), 3, 10
    targets = build(tokens, prompt, T)
    return targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]


def catches_thaw(step):
    generator = torch.Generator().manual_seed(0)
    W, A, B, x = (torch.randn(*size, generator=generator) for size in ((4, 6), (2, 6), (4, 2), (5, 6)))
    after = step(W, A, B, x)
    return not torch.equal(after[0], W) or torch.equal(after[1], A) or torch.equal(after[2], B)


ANSWERS = {
    "11.loss_targets": Answer(loss_targets, (
        Mutant("no mask", "y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]", "y[: len(tokens) - 1] = tokens[1:]",
               "The prompt is scored as well"),
        Mutant("first token left out", "y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]",
               "y[prompt : len(tokens) - 1] = tokens[prompt + 1 :]", "first token of the answer is never asked for"),
        Mutant("one too early", "y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]",
               "y[max(0, prompt - 2) : len(tokens) - 1] = tokens[max(1, prompt - 1) :]",
               "The last token of the prompt is asked for"),
        Mutant("not shifted", "y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]",
               "y[prompt : len(tokens)] = tokens[prompt:][: T - prompt]", "asked for its own self"),
        Mutant("no end", "y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]",
               "y[prompt - 1 : len(tokens) - 2] = tokens[prompt:-1]", "last token of the answer is never asked for"),
        Mutant("the wrong way round", "y[prompt - 1 : len(tokens) - 1] = tokens[prompt:]",
               "y[: prompt - 1] = tokens[1:prompt]", "the wrong way round"),
        Mutant("filler 0", "torch.full((T,), -100)",
               "torch.where(torch.arange(T) < len(tokens) - 1, -100, 0)", "The filler has target 0"),
        Mutant("zeros", "torch.full((T,), -100)", "torch.zeros(T, dtype=torch.long)", "the targets are -100"),
        Mutant("too short", "    return y", "    return y[: len(tokens) - 1]", "shape of the result"),
        Mutant("floats", "torch.full((T,), -100)", "torch.full((T,), -100.0)", "dtype of the result"),
    )),
    "11.lora": Answer(lora, (
        Mutant("no scale", "alpha / A.shape[0] * ", "", "The scale is missing"),
        Mutant("alpha alone", "alpha / A.shape[0]", "alpha", "multiplied by alpha, not"),
        Mutant("alpha times r", "alpha / A.shape[0]", "alpha * A.shape[0]", "should be divided by r"),
        Mutant("no alpha", "alpha / A.shape[0]", "1 / A.shape[0]", "alpha is missing"),
        Mutant("upside down", "alpha / A.shape[0]", "A.shape[0] / alpha", "upside down"),
        Mutant("root", "A.shape[0]", "A.shape[0] ** 0.5", "rsLoRA"),
        Mutant("outputs for r", "A.shape[0]", "B.shape[0]", "number of outputs"),
        Mutant("inputs for r", "A.shape[0]", "A.shape[1]", "number of inputs"),
        Mutant("base forgotten", "x @ W.T + ", "", "the frozen weight W is missing"),
        Mutant("subtracted", "x @ W.T + ", "x @ W.T - ", "The change is subtracted"),
        Mutant("base scaled", "x @ W.T + alpha / A.shape[0] * (low @ B.T)",
               "alpha / A.shape[0] * (x @ W.T + low @ B.T)", "must compute what it did before"),
        Mutant("no change", "(low @ B.T)", "(0 * low @ B.T)", "A and B make no difference"),
        Mutant("W on its side", "x @ W.T", "x @ W", "raised"),
    )),
    "11.merged": Answer(merged, (
        Mutant("no scale", "alpha / len(A) * ", "", "scale alpha / r is missing"),
        Mutant("alpha alone", "alpha / len(A)", "alpha", "multiplied by alpha"),
        Mutant("subtracted", "W = W + alpha", "W = W - alpha", "subtracted"),
        Mutant("W forgotten", "W = W + alpha", "W = alpha", "W itself is missing"),
        Mutant("in place", "W = W + alpha", "W += alpha", "changed its input in place"),
        Mutant("first only", "W = W + alpha / len(A) * (B @ A)", "return W + alpha / len(A) * (B @ A)",
               "only the first one arrives"),
        Mutant("last only", "    for A, B, alpha in adapters:", "    for A, B, alpha in adapters[-1:]:",
               "only the last one arrives"),
        Mutant("the mean", "alpha / len(A) * (B @ A)", "alpha / len(A) / len(adapters) * (B @ A)",
               "the mean of the changes"),
        Mutant("one r for all", "len(A)", "len(adapters[-1][0])", "r is used for all"),
        Mutant("none gives zero", "    return W", "    return W if adapters else 0 * W", "With no adapter"),
        Mutant("A and B swapped", "B @ A", "A.T @ B.T", "raised"),
    )),
    "11.catches_mask": Answer(catches_mask, (
        Mutant("never True", "    return targets", "    return False and targets", "a mask that is not there"),
        Mutant("always True", "    return targets", "    return True or targets", "It says True to a mask"),
        Mutant("no filler", "torch.arange(1, 9), 3, 10", "torch.arange(1, 12), 3, 10", "It says True to a mask"),
        Mutant("exact length", "[-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]", "[-100, -100, 4, 5, 6, 7, 8]",
               "It says True to a mask"),
        Mutant("filler not looked at", "targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]",
               "targets.tolist()[:7] != [-100, -100, 4, 5, 6, 7, 8]", "filler with target 0"),
        Mutant("first place only", "targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]",
               "targets.tolist()[0] != -100", "off by one: the first token"),
        Mutant("counts only", "targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]",
               "int((targets != -100).sum()) != 5", "not shifted"),
        Mutant("prompt not looked at", "targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]",
               "targets.tolist()[2:] != [4, 5, 6, 7, 8, -100, -100, -100]", "a mask that is not there"),
        Mutant("end not looked at", "targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]",
               "targets.tolist()[:6] != [-100, -100, 4, 5, 6, 7] or targets[-1] != -100", "leaves out the last token"),
        Mutant("returns targets", "    return targets.tolist() != [-100, -100, 4, 5, 6, 7, 8, -100, -100, -100]",
               "    return targets", "True or False is expected"),
    )),
    "11.catches_thaw": Answer(catches_thaw, (
        Mutant("never True", "    return not", "    return False and not", "a base that learns as well"),
        Mutant("always True", "    return not", "    return True or not", "It says True to a step"),
        Mutant("B zero", "    after = step(W, A, B, x)", "    B = 0 * B\n    after = step(W, A, B, x)",
               "It says True to a step that is right"),
        Mutant("W not looked at", "not torch.equal(after[0], W) or ", "", "a base that learns as well"),
        Mutant("W roughly", "torch.equal(after[0], W)", "torch.allclose(after[0], W, atol=0.01)", "weight decay"),
        Mutant("first row of W", "torch.equal(after[0], W)", "torch.equal(after[0][0], W[0])", "one row moves"),
        Mutant("A not looked at", " or torch.equal(after[1], A)", "", "A never learns"),
        Mutant("B not looked at", " or torch.equal(after[2], B)", "", "B never learns"),
        Mutant("W only", " or torch.equal(after[1], A) or torch.equal(after[2], B)", "", "nothing learns"),
        Mutant("the wrong way round", "not torch.equal(after[0], W)", "torch.equal(after[0], W)",
               "It says True to a step that is right"),
    )),
}
