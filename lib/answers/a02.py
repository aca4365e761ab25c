"""Lesson 02, attention: references and mutants."""

import math

import torch

from lib.answers import Answer, Mutant


def causal_mask(n):
    position = torch.arange(n)
    return position[:, None] >= position[None, :]  # (n, n)


def attention(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1)  # (..., T, S)
    scores = scores / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)  # (..., T, S)
    return weights @ v  # (..., T, Dv)


def catches_peeking(attend):
    T, Dh = 16, 8
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, T, Dh, generator=generator)
    before = attend(q, k, v)  # (T, Dh)
    for t in range(T - 1):
        q2, k2, v2 = q.clone(), k.clone(), v.clone()
        q2[t + 1:] = torch.randn(T - t - 1, Dh, generator=generator)
        k2[t + 1:] = torch.randn(T - t - 1, Dh, generator=generator)
        v2[t + 1:] = torch.randn(T - t - 1, Dh, generator=generator)
        after = attend(q2, k2, v2)  # (T, Dh)
        if not torch.allclose(before[: t + 1], after[: t + 1]):
            return True
    return False


def effective_tokens(weights):
    logs = weights.clamp_min(1e-12).log()  # (..., T, S), finite where a mask made the weight 0
    entropy = -(weights * logs).sum(dim=-1)  # (..., T)
    return entropy.exp()


def previous_token(T):
    Wk = torch.eye(T)  # (T, T): a token is found by its place
    Wq = 20 * T**0.5 * torch.eye(T).roll(1, 0)  # (T, T): row t asks for place t - 1, firmly
    return Wq, Wk


ANSWERS = {
    "02.causal_mask": Answer(causal_mask, (
        Mutant("no diagonal", ">=", ">", "the diagonal is False"),
        Mutant("transposed", ">=", "<=", "transposed"),
        Mutant("inverted", ">=", "<", "True and False are swapped"),
        Mutant("one ahead", "position[:, None]", "position[:, None] + 1", "one step into the future"),
        Mutant("no mask", "position[None, :]", "position[None, :] * 0", "nothing hides the future"),
        Mutant("floats", "return position[:, None] >= position[None, :]",
               "return (position[:, None] >= position[None, :]).float()", "dtype of the mask is float32"),
        Mutant("additive", "return position[:, None] >= position[None, :]",
               "return torch.zeros(n, n).masked_fill(position[:, None] < position[None, :], float('-inf'))",
               "it should be bool"),
        Mutant("batch axis", "position[:, None] >= position[None, :]",
               "(position[:, None] >= position[None, :])[None]", "it should be (1, 1)"),
        Mutant("window of three", "position[:, None] >= position[None, :]",
               "(position[:, None] >= position[None, :]) & (position[:, None] - position[None, :] < 3)",
               "not the one in the text"),
        Mutant("fixed size", "torch.arange(n)", "torch.arange(4)", "it should be (1, 1)"),
        Mutant("forgot return", "return position", "position", "Did you forget `return`?"),
    )),
    "02.attention": Answer(attention, (
        Mutant("no scale", "math.sqrt(q.shape[-1])", "1", "not scaled"),
        Mutant("scale by Dh", "math.sqrt(q.shape[-1])", "q.shape[-1]", "divided by Dh"),
        Mutant("scale by the number of keys", "q.shape[-1]", "k.shape[-2]", "number of keys"),
        Mutant("multiplied", "scores / math", "scores * math", "multiplied by sqrt(Dh)"),
        Mutant("softmax over queries", "softmax(dim=-1)", "softmax(dim=-2)", "a softmax over the *keys*"),
        Mutant("no softmax", "scores.softmax(dim=-1)", "scores", "a softmax over the *keys*"),
        Mutant("mask ignored", "mask is not None", "False", "The mask has no effect"),
        Mutant("mask inverted", "~mask", "mask", "the wrong way round"),
        Mutant("hidden scores are 0", 'float("-inf")', "0.0", "must be -inf"),
        Mutant("hidden scores are -1", 'float("-inf")', "-1.0", "must be -inf"),
        Mutant("mask after softmax", 'weights = scores.softmax(dim=-1)',
               'weights = scores.softmax(dim=-1).nan_to_num(0) if mask is None else '
               '(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) * mask', "after the softmax"),
        Mutant("k.T", "k.transpose(-2, -1)", "k.permute(*range(k.dim() - 1, -1, -1))", "Your code raised"),
        Mutant("squeezed", "weights @ v", "(weights @ v).squeeze()", "shape"),
        Mutant("overflow", "scores.softmax(dim=-1)", "scores.exp() / scores.exp().sum(-1, keepdim=True)",
               "NaN in the result for large scores"),
        Mutant("returns the weights", "return weights @ v", "return weights", "shape"),
        Mutant("in place", "scores = q @ k.transpose(-2, -1)", "scores = q.mul_(1.5) @ k.transpose(-2, -1) / "
                                                               "1.5",
               "in place"),
        Mutant("values are the keys", "weights @ v", "weights @ k", "plain average of the values"),
    )),
    "02.previous_token": Answer(previous_token, (
        Mutant("wrong way", "roll(1, 0)", "roll(-1, 0)", "asks for the one *after* it"),
        Mutant("shifted along the other axis", "roll(1, 0)", "roll(1, 1)", "asks for the one *after* it"),
        Mutant("not shifted", ".roll(1, 0)", "", "looks at itself"),
        Mutant("two back", "roll(1, 0)", "roll(2, 0)", "another one than the one just before"),
        Mutant("faint", "20 * T**0.5 * ", "", "not firmly"),
        Mutant("firm for short texts only", "20 * T**0.5 * ", "30 * ", "not firmly"),
        Mutant("not scaled for the division", "20 * T**0.5 * ", "5 * T**0.5 * ", "not firmly"),
        Mutant("infinite", "20 * T**0.5 * torch.eye(T).roll(1, 0)", "torch.eye(T).roll(1, 0) * math.inf", "finite"),
        Mutant("no query", "20 * T**0.5 * ", "0 * ", "All scores of a token are the same"),
        Mutant("always the first", "torch.eye(T).roll(1, 0)", "torch.eye(T)[:1].expand(T, T)", "at the first one"),
        Mutant("swapped", "return Wq, Wk", "return Wk, Wq", "asks for the one *after* it"),
        Mutant("one matrix", "return Wq, Wk", "return Wq", "Two matrices"),
        Mutant("forgot return", "return ", "", "Did you forget `return`?"),
    )),
    "02.catches_peeking": Answer(catches_peeking, (
        Mutant("always True", "return False", "return True", "It says True to a correct causal attention"),
        Mutant("never True", "return True", "return False", "no mask at all"),
        Mutant("judges everything", "before[: t + 1], after[: t + 1]", "before, after",
               "It says True to a correct causal attention"),
        Mutant("exact equality", "torch.allclose", "torch.equal", "last bit"),
        Mutant("skips the last position", "before[: t + 1], after[: t + 1]", "before[:t], after[:t]", "off "
                                                                                                      "by "
                                                                                                      "one"),
        Mutant("values untouched", "v2[t + 1:] = torch.randn(T - t - 1, Dh, generator=generator)", "pass",
               "change the values"),
        Mutant("keys untouched", "k2[t + 1:] = torch.randn(T - t - 1, Dh, generator=generator)", "pass",
               "change the keys"),
        Mutant("queries untouched", "q2[t + 1:] = torch.randn(T - t - 1, Dh, generator=generator)", "pass",
               "change the *queries*"),
        Mutant("short sequences only", "T, Dh = 16, 8", "T, Dh = 6, 8", "longer than 8"),
        Mutant("compares with its own attention", "if not torch.allclose(before[: t + 1], after[: t + 1]):",
               "mask = torch.ones(T, T, dtype=torch.bool).tril()\n"
               "        own = (q @ k.T / Dh**0.5).masked_fill(~mask, float('-inf')).softmax(-1) @ v\n"
               "        if not torch.allclose(before, own, atol=1e-5):", "only the last three tokens"),
        Mutant("returns a tensor", "return True", "return before > 0", "True or False is expected"),
    )),
    "02.effective_tokens": Answer(effective_tokens, (
        Mutant("no exp", "entropy.exp()", "entropy", "entropy itself, in nats"),
        Mutant("bits", "return entropy.exp()", "return entropy / math.log(2)", "entropy itself, in bits"),
        Mutant("mixed bases", "1e-12).log()", "1e-12).log2()", "do not belong together"),
        Mutant("sign", "-(weights * logs)", "(weights * logs)", "minus sign"),
        Mutant("zero times minus infinity", ".clamp_min(1e-12)", "", "NaN where a weight is exactly zero"),
        Mutant("zeros count a little", "clamp_min(1e-12)", "add(0.1)", "must count as n tokens"),
        Mutant("over the queries", "dim=-1", "dim=-2", "shape"),
        Mutant("mean", ".sum(dim=-1)", ".mean(dim=-1)", "yours is a mean"),
        Mutant("counts what is not zero", "return entropy.exp()", "return (weights > 0).sum(-1).float()",
               "counted wrongly"),
        Mutant("one over the largest", "return entropy.exp()", "return 1 / weights.max(-1).values",
               "1 / the largest weight"),
        Mutant("one over the squares", "return entropy.exp()", "return 1 / weights.square().sum(-1)",
               "squared weights"),
        Mutant("over everything", "dim=-1", "", "shape"),
        Mutant("in place", "weights.clamp_min", "weights.clamp_min_", "in place"),
    )),
}
