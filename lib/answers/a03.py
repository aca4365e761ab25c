"""Lesson 03, multi-head attention: references and mutants."""

import torch

from lib.answers import Answer, Mutant


def split_heads(x, n_heads):
    B, T, D = x.shape
    x = x.reshape(B, T, n_heads, D // n_heads)  # (B, T, H, Dh)
    return x.transpose(1, 2)  # (B, H, T, Dh)


def merge_heads(x):
    B, H, T, Dh = x.shape
    x = x.transpose(1, 2)  # (B, T, H, Dh)
    return x.reshape(B, T, H * Dh)  # (B, T, D)


def repeat_kv(x, groups):
    return x.repeat_interleave(groups, dim=1)  # (B, H, S, Dh)


MULTI_HEAD = '''
def multi_head(x, w, n_head, n_kv_head, attend, turn):
    B, T, D = x.shape
    q = (x @ w["q"].T).view(B, T, n_head, -1).transpose(1, 2)  # (B, H, T, Dh)
    k = (x @ w["k"].T).view(B, T, n_kv_head, -1).transpose(1, 2)  # (B, K, T, Dh)
    v = (x @ w["v"].T).view(B, T, n_kv_head, -1).transpose(1, 2)  # (B, K, T, Dh)
    q, k = turn(q), turn(k)
    G = n_head // n_kv_head
    k, v = k.repeat_interleave(G, dim=1), v.repeat_interleave(G, dim=1)  # (B, H, T, Dh) each
    heard = attend(q, k, v)  # (B, H, T, Dh)
    side = heard.transpose(1, 2).reshape(B, T, -1)  # (B, T, H Dh)
    return side @ w["out"].T  # (B, T, D)
'''


def induction_score(weights, tokens):
    found = []
    for t in range(len(tokens)):
        for s in range(t - 1, -1, -1):
            if tokens[s] == tokens[t]:
                found.append(weights[:, t, s + 1])  # (H,)
                break
    if not found:
        return torch.zeros(weights.shape[0])
    return torch.stack(found).mean(dim=0)  # (H,)


ANSWERS = {
    "03.split_heads": Answer(split_heads, (
        Mutant("one reshape", "x.reshape(B, T, n_heads, D // n_heads)",
               "x.reshape(B, n_heads, T, D // n_heads).transpose(1, 2)", "one `reshape`"),
        Mutant("no transpose", "x.transpose(1, 2)", "x", "The shape of the result"),
        Mutant("heads and width swapped", "return x.transpose(1, 2)", "return x.permute(0, 3, 1, 2)",
               "The shape of the result"),
        Mutant("dealt like cards", "x.reshape(B, T, n_heads, D // n_heads)",
               "x.reshape(B, T, D // n_heads, n_heads).transpose(2, 3)", "dealt out like cards"),
        Mutant("heads reversed", "return x.transpose(1, 2)", "return x.transpose(1, 2).flip(1)", "reverse order"),
        Mutant("always one head", "n_heads, D // n_heads", "1, D", "The shape of the result"),
        Mutant("width for heads", "n_heads, D // n_heads", "D // n_heads, n_heads", "The shape of the result"),
        Mutant("squeezed", "return x.transpose(1, 2)", "return x.transpose(1, 2).squeeze()",
               "The shape of the result"),
        Mutant("tokens reversed", "return x.transpose(1, 2)", "return x.transpose(1, 2).flip(2)", "10, 11"),
        Mutant("forgot return", "return x", "x", "Did you forget `return`?"),
    )),
    "03.merge_heads": Answer(merge_heads, (
        Mutant("one reshape", "x = x.transpose(1, 2)", "x = x", "one `reshape`"),
        Mutant("view", "x.reshape(B, T, H * Dh)", "x.view(B, T, H * Dh)", "Your code raised"),
        Mutant("interleaved", "x = x.transpose(1, 2)", "x = x.permute(0, 2, 3, 1)", "interleaved"),
        Mutant("mean of the heads", "x.reshape(B, T, H * Dh)", "x.mean(2)", "The shape of the result"),
        Mutant("sum of the heads, repeated", "x.reshape(B, T, H * Dh)", "x.sum(2).repeat(1, 1, H)", "10, 11, 12, 13"),
        Mutant("heads reversed", "x = x.transpose(1, 2)", "x = x.flip(1).transpose(1, 2)", "10, 11, 12, 13"),
        Mutant("forgot to join", "x.reshape(B, T, H * Dh)", "x", "The shape of the result"),
        Mutant("joined with the tokens", "x.reshape(B, T, H * Dh)", "x.reshape(B, T * H, Dh)",
               "The shape of the result"),
        Mutant("memory order", "x = x.transpose(1, 2)",
               "x = (x if x.is_contiguous() else x.transpose(1, 2).reshape(B, H, T, Dh)).transpose(1, 2)",
               "lie in memory"),
        Mutant("forgot return", "return x", "x", "Did you forget `return`?"),
    )),
    "03.repeat_kv": Answer(repeat_kv, (
        Mutant("tiled", "x.repeat_interleave(groups, dim=1)", "x.repeat(1, groups, 1, 1)", "The whole set is repeated"),
        Mutant("positions repeated", "dim=1", "dim=2", "The shape of the result"),
        Mutant("batch repeated", "dim=1", "dim=0", "The shape of the result"),
        Mutant("width repeated", "dim=1", "dim=3", "The shape of the result"),
        Mutant("up to groups heads", "repeat_interleave(groups, dim=1)",
               "repeat_interleave(groups // x.shape[1], dim=1)", "The shape of the result"),
        Mutant("unequal groups", "x.repeat_interleave(groups, dim=1)",
               "torch.cat((x, x[:, -1:].repeat(1, x.shape[1] * (groups - 1), 1, 1)), dim=1)", "unequal size"),
        Mutant("halved", "x.repeat_interleave(groups, dim=1)", "x.repeat_interleave(groups, dim=1) / groups",
               "1 1 1 2 2 2"),
        Mutant("heads reversed", "x.repeat_interleave(groups, dim=1)", "x.flip(1).repeat_interleave(groups, dim=1)",
               "1 1 1 2 2 2"),
        Mutant("reshaped", "x.repeat_interleave(groups, dim=1)",
               "x.repeat_interleave(groups, dim=2).reshape(x.shape[0], -1, x.shape[2], x.shape[3])",
               "Some head got something else"),
        Mutant("flat", "x.repeat_interleave(groups, dim=1)", "x.repeat_interleave(groups)", "The shape of the result"),
        Mutant("forgot return", "return x", "x", "Did you forget `return`?"),
    )),
    "03.multi_head": Answer(MULTI_HEAD, (
        Mutant("no last matrix", 'side @ w["out"].T', "side", "never passes"),
        Mutant("stream added", 'return side @', 'return x + side @', "The plus is the Block's"),
        Mutant("one reshape", '(x @ w["q"].T).view(B, T, n_head, -1).transpose(1, 2)',
               '(x @ w["q"].T).reshape(B, n_head, T, -1)', "one `reshape`"),
        Mutant("heads not side by side", "heard.transpose(1, 2).reshape(B, T, -1)", "heard.reshape(B, T, -1)",
               "not put side by side"),
        Mutant("keys and values swapped", "attend(q, k, v)", "attend(q, v, k)", "it was handed what"),
        Mutant("keys from the queries", 'w["k"].T', 'w["v"].T', "it was handed what"),
        Mutant("values turned", "q, k = turn(q), turn(k)", "q, k, v = turn(q), turn(k), turn(v)", "values are turned"),
        Mutant("keys not turned", "turn(q), turn(k)", "turn(q), k", "keys are not turned"),
        Mutant("queries not turned", "turn(q), turn(k)", "q, turn(k)", "queries are not turned"),
        Mutant("turned twice", "turn(q), turn(k)", "turn(turn(q)), turn(k)", "turned twice"),
        Mutant("turned before the cut", "q, k = turn(q), turn(k)", 'q, k = turn(x @ w["q"].T), turn(k)',
               "cut into heads first"),
        Mutant("whole set repeated", "k.repeat_interleave(G, dim=1), v.repeat_interleave(G, dim=1)",
               "k.repeat(1, G, 1, 1), v.repeat(1, G, 1, 1)", "in a row"),
        Mutant("groups forgotten", "k, v = k.repeat_interleave(G, dim=1), v.repeat_interleave(G, dim=1)", "pass",
               "`attend` takes heads"),
        Mutant("not transposed", 'x @ w["q"].T', 'x @ w["q"]', "Your code raised"),
        Mutant("forgot return", "return side", "side", "Did you forget `return`?"),
    )),
    "03.induction_score": Answer(induction_score, (
        Mutant("the copy itself", "t, s + 1", "t, s", "the earlier copy itself"),
        Mutant("rows and columns", "t, s + 1", "s + 1, t", "Rows and columns"),
        Mutant("the first copy", "range(t - 1, -1, -1)", "range(t)", "not the first"),
        Mutant("all copies", "break", "pass", "the latest"),
        Mutant("divided by T", "torch.stack(found).mean(dim=0)", "torch.stack(found).sum(dim=0) / len(tokens)",
               "divided by all T"),
        Mutant("a sum", "mean(dim=0)", "sum(dim=0)", "That is a sum"),
        Mutant("over the heads", "mean(dim=0)", "mean().expand(weights.shape[0])", "the same score"),
        Mutant("one number", "mean(dim=0)", "mean()", "The shape of the scores"),
        Mutant("not the nearest", "range(t - 1, -1, -1)", "range(t - 2, -1, -1)", "the latest"),
        Mutant("half of the text", "weights[:, t, s + 1]", "weights[:, t, t - len(tokens) // 2 + 1]",
               "the first 8"),
        Mutant("nothing found", "if not found:", "if False:", "Your code raised"),
        Mutant("NaN", "return torch.zeros(weights.shape[0])", "return torch.full((weights.shape[0],), float('nan'))",
               "NaN"),
        Mutant("forgot return", "return torch.stack(found)", "torch.stack(found)", "Did you forget `return`?"),
    )),
}
