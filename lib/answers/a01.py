"""Lesson 01, embeddings: references and mutants."""

import torch

from lib.answers import Answer, Mutant


def merge(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def apply_merges(ids, merges):
    for left, right, new in merges:
        out = []
        for i in ids:
            if out and (out[-1], i) == (left, right):
                out[-1] = new
            else:
                out.append(i)
        ids = out
    return list(ids)


def embed(ids, table):
    return table[ids]  # (..., D)


def cosine_nearest(table, i, k):
    unit = table / table.norm(dim=1, keepdim=True)  # (V, D)
    scores = unit @ unit[i]  # (V,)
    scores[i] = -float("inf")
    return scores.topk(k).indices  # (k,)


def rotary(x, positions, theta=10000.0):
    half = x.shape[1] // 2
    speed = theta ** (-2 * torch.arange(half) / x.shape[1])  # (Dh/2,)
    angle = positions[:, None] * speed  # (T, Dh/2)
    cos, sin = angle.cos(), angle.sin()
    a, b = x[:, :half], x[:, half:]  # (T, Dh/2) each
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=1)  # (T, Dh)


MERGE_BODY = """    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out
"""

ANSWERS = {
    "01.merge": Answer(merge, (
        Mutant("first only", "(ids[i], ids[i + 1]) == pair", "new_id not in out and (ids[i], ids[i + 1]) == pair",
               "Only the first occurrence"),
        Mutant("never", "== pair", "== list(pair)", "Nothing is merged"),
        Mutant("second stays", "i += 2", "i += 1", "Both ids of the pair go"),
        Mutant("any order", "== pair", "in (pair, pair[::-1])", "The pair is ordered"),
        Mutant("overlap counted twice", "            i += 2",
               "            i += 1 if i + 2 < len(ids) and pair == (ids[i + 1], ids[i + 2]) else 2", "share a letter"),
        Mutant("from the right", MERGE_BODY, """    out, i = [], len(ids) - 1
    while i >= 0:
        if i > 0 and (ids[i - 1], ids[i]) == pair:
            out.append(new_id)
            i -= 2
        else:
            out.append(ids[i])
            i -= 1
    return out[::-1]
""", "merged from the right"),
        Mutant("last id lost", "while i < len(ids)", "while i < len(ids) - 1", "last id of the text is lost"),
        Mutant("in place", "return out", "ids[:] = out\n    return ids", "in place"),
        Mutant("forgot return", "return out", "out", "Did you forget `return`?"),
    )),
    "01.apply_merges": Answer(apply_merges, (
        Mutant("youngest first", "in merges", "in reversed(merges)", "youngest merge is applied first"),
        Mutant("first merge only", "in merges", "in merges[:1]", "stop after the first merge"),
        Mutant("one place each", "if out and", "if new not in out and out and", "at one place only"),
        Mutant("gives up", "        ids = out\n",
               "        if out == list(ids):\n            break\n        ids = out\n",
               "passed over"),
        Mutant("in the order of ids", "for left, right, new in merges", "for left, right, new in sorted(merges)",
               "The *older*"),
        Mutant("swapped", "(left, right):", "(right, left):", "What is left is"),
        Mutant("both stay", "out[-1] = new", "out.append(new)", "What is left is"),
        Mutant("starts from the original", "        ids = out\n", "        pass\n", "What is left is"),
        Mutant("crashes on nothing", "if out and", "if", "Your code raised IndexError"),
    )),
    "01.embed": Answer(embed, (
        Mutant("the table itself", "table[ids]", "table[torch.arange(ids.numel()).view(ids.shape) % len(table)]",
               "own order"),
        Mutant("counts from one", "table[ids]", "table[ids - 1]", "one too early"),
        Mutant("id as a quantity", "table[ids]", "ids[..., None] * table[ids * 0 + torch.arange(ids.numel()).view("
               "ids.shape) % len(table)]", "used as a quantity"),
        Mutant("stretched", "table[ids]", "table[ids] * table.shape[1] ** 0.5", "stretched by √D"),
        Mutant("length one", "table[ids]", "F.normalize(table[ids], dim=-1)", "at length 1"),
        Mutant("columns", "table[ids]", "table.T[ids % table.shape[1]]", "as many numbers as there are tokens"),
        Mutant("one-hot", "table[ids]", "F.one_hot(ids, len(table)).float()", "as many numbers as there are tokens"),
        Mutant("batch flattened", "table[ids]", "table[ids.flatten()]", "The batch is gone"),
        Mutant("place added", "table[ids]", "table[ids] + (torch.arange(ids.shape[-1])[:, None] if ids.ndim > 1 else "
               "0)", "the numbers are others"),
        Mutant("averaged over the text", "return table[ids]", "x = table[ids]\n    return x if x.ndim < 3 else "
               "x.mean(1, keepdim=True).expand_as(x)", "the numbers are others"),
        Mutant("small vocabularies only", "table[ids]", "table[ids % 1000]", "vocabulary of 40,000"),
        Mutant("forgot return", "return ", "", "Did you forget `return`?"),
    )),
    "01.cosine_nearest": Answer(cosine_nearest, (
        Mutant("itself included", 'scores[i] = -float("inf")', "pass", "in its own list"),
        Mutant("dot product", "table / table.norm(dim=1, keepdim=True)", "table.clone()", "Long rows win"),
        Mutant("distance", "unit @ unit[i]", "-(table - table[i]).norm(dim=1)", "Ranked by distance"),
        Mutant("least alike", "unit @ unit[i]", "-(unit @ unit[i])", "least alike come first"),
        Mutant("wrong axis", "dim=1", "dim=0", "along dim=1"),
        Mutant("unsorted", ".indices", ".indices.sort().values", "wrong order"),
        Mutant("the scores", ".indices", ".values", "dtype"),
        Mutant("one too many", "topk(k)", "topk(k + 1)", "shape"),
        Mutant("skips the first", "    scores[i] = -float(\"inf\")\n    return scores.topk(k).indices",
               "    return scores.sort(stable=True, descending=True).indices[1 : k + 1]", "by its index"),
    )),
    "01.rotary": Answer(rotary, (
        Mutant("no turn", "positions[:, None] * speed", "0 * positions[:, None] * speed", "Nothing turns"),
        Mutant("wrong way", "a * cos - b * sin, a * sin + b * cos", "a * cos + b * sin, b * cos - a * sin",
               "wrong way round"),
        Mutant("sine and cosine swapped", "cos, sin = angle.cos(), angle.sin()", "sin, cos = angle.cos(), angle.sin()",
               "swapped"),
        Mutant("own positions", "positions[:, None]", "torch.arange(len(x))[:, None]", "not by the `positions`"),
        Mutant("degrees", "* speed", "* speed * math.pi / 180", "degrees"),
        Mutant("adjacent pairs", "    a, b = x[:, :half], x[:, half:]  # (T, Dh/2) each\n"
               "    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=1)",
               "    a, b = x[:, 0::2], x[:, 1::2]\n"
               "    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=2).flatten(1)", "Neighbours"),
        Mutant("one speed", "-2 * torch.arange(half)", "0 * torch.arange(half)", "same speed"),
        Mutant("faster", "-2 *", "2 *", "turn faster"),
        Mutant("no 2", "-2 *", "-1 *", "The exponent is -i/Dh"),
        Mutant("half the width", "/ x.shape[1])", "/ half)", "divide by Dh"),
        Mutant("fixed theta", "theta **", "10000.0 **", "use the argument"),
        Mutant("sign", "a * cos - b * sin", "a * cos + b * sin", "quarter of it"),
    )),
}
