"""Lesson 09, project life cycle: references and mutants."""

import math

import torch

from lib.answers import Answer, Mutant


def wilson_interval(right, n, z=1.96):
    p, shrink = right / n, 1 + z**2 / n
    centre = (p + z**2 / (2 * n)) / shrink
    reach = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / shrink
    return centre - reach, centre + reach


def paired_interval(first, second, draws):
    means = (second - first)[draws].mean(dim=1)  # (R,)
    return torch.quantile(means, 0.025).item(), torch.quantile(means, 0.975).item()


def seen_share(text, training, n):
    def parts(one):
        words = one.lower().split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = {part for one in training for part in parts(one)}
    mine = parts(text)
    return sum(part in known for part in mine) / len(mine) if mine else 0.0


DECISIONS = '''decisions = {
    "ward": {"model": "llama-8b", "how": "fine-tune", "where": "house", "test": 300},
    "shop": {"model": "smollm2-135m", "how": "fine-tune", "where": "house", "test": 400},
    "helpdesk": {"model": "llama-8b", "how": "prompt", "where": "hosted", "test": 500},
    "factory": {"model": "specialist-2m", "how": "from scratch", "where": "house", "test": 800, "bits": 8},
    "bank": {"model": "llama-8b", "how": "fine-tune", "where": "house", "test": 1000, "batch": 64},
    "archive": {"model": "smollm2-1.7b", "how": "fine-tune", "where": "house", "test": 1200, "batch": 8},
}
'''


def catches_bad_rouge(score):
    known = [
        ("no no no no", "no", 2 / 5),
        ("a b", "a b c d", 4 / 6),
        ("a b c d", "a b", 4 / 6),
        ("b a", "a b", 1.0),
        ("Cat", "cat", 1.0),
        ("cat.", "cat", 1.0),
        ("cat", "cats", 0.0),
    ]
    return any(abs(score(said, wanted) - truth) > 1e-3 for said, wanted, truth in known)


ANSWERS = {
    "09.wilson_interval": Answer(wilson_interval, (
        Mutant("the plain interval", "    return centre - reach, centre + reach",
               "    reach = z * math.sqrt(p * (1 - p) / n)\n    return p - reach, p + reach", "fails near 0 and 1"),
        Mutant("not shrunk", "1 + z**2 / n", "1", "The division by 1 + z²/n"),
        Mutant("about the share", "return centre - reach, centre + reach", "return p - reach, p + reach",
               "middle is not the share itself"),
        Mutant("n not squared", "(4 * n**2)", "(4 * n)", "Under the root it is"),
        Mutant("high, low", "return centre - reach, centre + reach", "return centre + reach, centre - reach",
               "wrong way round"),
        Mutant("per cent", "return centre - reach, centre + reach",
               "return 100 * (centre - reach), 100 * (centre + reach)", "in per cent"),
        Mutant("a fixed z", "p, shrink = right", "z = 1.96; p, shrink = right", "from 0.110 to 0.473"),
        Mutant("no root", "math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))", "(p * (1 - p) / n + z**2 / (4 * n**2))",
               "from 0.110 to 0.473"),
        Mutant("only the reach", "return centre - reach, centre + reach", "return reach", "An interval is two numbers"),
        Mutant("cut for few", "centre - reach, centre + reach",
               "(centre - reach, centre + reach) if right else (0.0, 0.0)", "is not empty"),
    )),
    "09.paired_interval": Answer(paired_interval, (
        Mutant("pairs torn apart", "(second - first)[draws].mean(dim=1)",
               "second[draws].mean(dim=1) - first[draws.flip(0)].mean(dim=1)", "torn apart"),
        Mutant("the wrong sign", "(second - first)", "(first - second)", "The sign"),
        Mutant("the sum", ".mean(dim=1)", ".sum(dim=1)", "not the sum"),
        Mutant("90 %", "torch.quantile(means, 0.025).item(), torch.quantile(means, 0.975)",
               "torch.quantile(means, 0.05).item(), torch.quantile(means, 0.95)", "5 % and 95 %"),
        Mutant("the extremes", "torch.quantile(means, 0.025).item(), torch.quantile(means, 0.975)",
               "means.min().item(), means.max()", "smallest and the largest"),
        Mutant("a bell curve", "torch.quantile(means, 0.025).item(), torch.quantile(means, 0.975)",
               "(means.mean() - 1.96 * means.std()).item(), (means.mean() + 1.96 * means.std())", "no bell curve"),
        Mutant("the wrong axis", "mean(dim=1)", "mean(dim=0)", "percentiles of the drawn means"),
        Mutant("draws unused", "(second - first)[draws]", "(second - first).expand(len(draws), -1)",
               "percentiles of the drawn means"),
        Mutant("each example once", "(second - first)[draws].mean(dim=1)",
               "torch.stack([(second - first)[row.unique()].mean() for row in draws])",
               "percentiles of the drawn means"),
        Mutant("one number", "return torch.quantile(means, 0.025).item(), torch.quantile(means, 0.975).item()",
               "return means.mean().item()", "An interval is two numbers"),
    )),
    "09.seen_share": Answer(seen_share, (
        Mutant("a bag of words", "[tuple(words[i : i + n])", "[tuple(sorted(words[i : i + n]))", "in another order"),
        Mutant("single words", "[tuple(words[i : i + n])", "[tuple(words[i : i + 1])", "n is the length of a run"),
        Mutant("the last run lost", "range(len(words) - n + 1)", "range(len(words) - n)", "All of a copied text"),
        Mutant("always three", "def parts(one):", "n = 3\n\n    def parts(one):", "n is the length of a run"),
        Mutant("any run", "sum(part in known for part in mine) / len(mine) if mine else 0.0",
               "float(any(part in known for part in mine))", "the share"),
        Mutant("letters", "sum(part in known for part in mine)",
               "sum(any(' '.join(part) in one.lower() for one in training) for part in mine)", "words, not letters"),
        Mutant("texts run together", "for one in training for part in parts(one)",
               "for part in parts(' '.join(training))", "cross from one training text"),
        Mutant("capitals count", "one.lower().split()", "one.split()", "Capital letters"),
        Mutant("short is seen", "if mine else 0.0", "if mine else 1.0", "fewer than n words"),
        Mutant("each run once", "mine = parts(text)", "mine = set(parts(text))", "Each place counts"),
        Mutant("of the training", "/ len(mine) if", "/ len(known) if", "All of a copied text"),
    )),
    "09.decisions": Answer(DECISIONS, (
        Mutant("out of the house", '"where": "house", "test": 300', '"where": "hosted", "test": 300',
               "ward: the data may not leave the house"),
        Mutant("too large", '"ward": {"model": "llama-8b"', '"ward": {"model": "llama-70b"', "GB are needed"),
        Mutant("too slow", '"shop": {"model": "smollm2-135m"', '"shop": {"model": "smollm2-1.7b"',
               "an answer takes at least"),
        Mutant("test too small", '"test": 400', '"test": 50', "shop: 5% of difference need"),
        Mutant("too dear", '"archive": {"model": "smollm2-1.7b", "how": "fine-tune", "where": "house"',
               '"archive": {"model": "llama-70b", "how": "fine-tune", "where": "hosted"', "a month are spent"),
        Mutant("too broad", '"how": "prompt"', '"how": "from scratch"', "helpdesk: "),
        Mutant("nowhere to be had", '"how": "from scratch"', '"how": "prompt"', "it has to be trained from scratch"),
        Mutant("one at a time", '"batch": 64', '"batch": 1', "requests a day are answered in time"),
        Mutant("more than there are", '"test": 1200', '"test": 5000', "labelled examples are used"),
        Mutant("nobody hosts it", '"shop": {"model": "smollm2-135m", "how": "fine-tune", "where": "house"',
               '"shop": {"model": "smollm2-135m", "how": "fine-tune", "where": "hosted"', "nobody hosts"),
        Mutant("one forgotten", '"archive"', '"museum"', "no decision for the scenario 'archive'"),
        Mutant("no such model", '"archive": {"model": "smollm2-1.7b"', '"archive": {"model": "gpt-5"',
               "archive: model is one of"),
        Mutant("half a decision", ', "where": "house", "test": 1200, "batch": 8', "", "archive: a choice has model"),
    )),
    "09.catches_bad_rouge": Answer(catches_bad_rouge, (
        Mutant("always True", "    return any(", "    return True or any(", "It says True to a right ROUGE-1"),
        Mutant("never True", "    return any(", "    return False and any(", "ignores counts"),
        Mutant("counts forgotten", '        ("no no no no", "no", 2 / 5),\n', "", "ignores counts"),
        Mutant("equal lengths only", '        ("no no no no", "no", 2 / 5),\n        ("a b", "a b c d", 4 / 6),\n'
               '        ("a b c d", "a b", 4 / 6),\n', '        ("a a b", "a b b", 4 / 6),\n', "only precision"),
        Mutant("capitals forgotten", '        ("Cat", "cat", 1.0),\n', "", "capital letters"),
        Mutant("full stops forgotten", '        ("cat.", "cat", 1.0),\n', "", "a full stop"),
        Mutant("parts of words forgotten", '        ("cat", "cats", 0.0),\n', "", "part of a word"),
        Mutant("order forgotten", '        ("b a", "a b", 1.0),\n', "", "the order matters"),
        Mutant("exact", "> 1e-3", "> 0", "Allow for rounding"),
        Mutant("far too lax", "> 1e-3", "> 0.55", "It misses a ROUGE"),
        Mutant("the truth is the plain mean", '"a b c d", "a b", 4 / 6', '"a b c d", "a b", 3 / 4',
               "It says True to a right ROUGE-1"),
        Mutant("a number", "return any(", "return sum(", "True or False is expected"),
    )),
}
