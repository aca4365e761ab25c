"""Lesson 00, start here: references and mutants."""

from lib.answers import Answer, Mutant


def greedy(probabilities):
    return int(probabilities.argmax())


def exact_match(answers, truths):
    pairs = zip(answers, truths, strict=True)
    right = [a.strip().casefold() == t.strip().casefold() for a, t in pairs]
    return sum(right) / len(right)


def memory_gb(n_parameters, bytes_per_parameter=4):
    return n_parameters * bytes_per_parameter / 1e9


ANSWERS = {
    "00.one_step": Answer('one_step = "c"', (
        Mutant("a sentence", '"c"', '"a"', "whole sentences"),
        Mutant("a token", '"c"', '"b"', "not by the model"),
        Mutant("a look-up", '"c"', '"d"', "only its weights"),
        Mutant("no such letter", '"c"', '"e"', "one letter"),
        Mutant("a word", '"c"', '"probabilities"', "one letter"),
        Mutant("a number", '"c"', "3", "letter in quotes"),
        Mutant("a list", '"c"', '["c"]', "letter in quotes"),
    )),
    "00.greedy": Answer(greedy, (
        Mutant("least likely", "argmax()", "argmin()", "least likely"),
        Mutant("the probability", "int(probabilities.argmax())", "float(probabilities.max())", "*place*"),
        Mutant("off by one", "argmax())", "argmax()) + 1", "Off by one"),
        Mutant("second best", "argmax()", "argsort()[-2]", "second most likely"),
        Mutant("always last", "probabilities.argmax()", "probabilities.numel() - 1", "not the most likely"),
        Mutant("always zero", "probabilities.argmax()", "0", "not the most likely"),
        Mutant("a float", "int(", "float(", "whole number"),
        Mutant("forgot return", "return int", "int", "Did you forget `return`?"),
    )),
    "00.exact_match": Answer(exact_match, (
        Mutant("blanks count", "a.strip().casefold()", "a.casefold()", "Blanks"),
        Mutant("capitals count", "a.strip().casefold() == t.strip().casefold()", "a.strip() == t.strip()",
               "Capital letters"),
        Mutant("how many", "sum(right) / len(right)", "sum(right)", "how many are right"),
        Mutant("per cent", "sum(right) / len(right)", "100 * sum(right) / len(right)", "per cent"),
        Mutant("truth inside", "a.strip().casefold() == t.strip().casefold()",
               "t.strip().casefold() in a.strip().casefold()", "whole match"),
        Mutant("answer inside", "a.strip().casefold() == t.strip().casefold()",
               "a.strip().casefold() in t.strip().casefold()", "whole match"),
        Mutant("any order", "zip(answers, truths, strict=True)",
               "zip(sorted(answers), sorted(truths))", "belongs to one question"),
        Mutant("first only", "zip(answers, truths, strict=True)", "zip(answers[:1], truths[:1])", "0.75"),
    )),
    "00.memory_gb": Answer(memory_gb, (
        Mutant("GiB", "1e9", "2**30", "GiB"),
        Mutant("bits", "/ 1e9", "* 8 / 1e9", "bits"),
        Mutant("bytes", " / 1e9", "", "in bytes"),
        Mutant("MB", "1e9", "1e6", "in MB"),
        Mutant("two bytes", "bytes_per_parameter=4", "bytes_per_parameter=2", "4"),
        Mutant("cut off", "/ 1e9", "// 1e9", "cut off"),
        Mutant("divided", "n_parameters * bytes", "n_parameters / bytes", "times the bytes"),
    )),
}
