"""Lesson 06, why it scales: references and mutants."""

from lib.answers import Answer, Mutant


def longest_path(inputs):
    known = {}

    def depth(name):
        if name not in known:
            known[name] = 1 + max((depth(other) for other in inputs[name]), default=0)
        return known[name]

    return max(depth(name) for name in inputs)


def roofline_seconds(work, peak, bandwidth):
    return sum(max(flops / peak, moved / bandwidth) for flops, moved in work)


def block_flops(T, d_model, d_ff):
    matrices = 2 * T * (4 * d_model * d_model + 2 * d_model * d_ff)
    scores = 4 * T * T * d_model
    return matrices, scores


def catches_wrong_share(share):
    for size, rows in ((1, 3), (2, 7), (4, 11)):
        parts = [share(rank, size, rows) for rank in range(size)]
        if sorted(row for part in parts for row in part) != list(range(rows)):
            return True
        if max(map(len, parts)) - min(map(len, parts)) > 1:
            return True
    return False


ANSWERS = {
    "06.longest_path": Answer(longest_path, (
        Mutant("arrows", "default=0", "default=-1", "not the arrows"),
        Mutant("all operations", "max(depth(name) for name in inputs)", "len(inputs)", "counted all operations"),
        Mutant("shortest", "1 + max((depth", "1 + min((depth", "wait for the *longer* one"),
        Mutant("first input only", "for other in inputs[name])", "for other in inputs[name][:1])",
               "wait for the *longer* one"),
        Mutant("summed", "1 + max((depth(other) for other in inputs[name]), default=0)",
               "1 + sum(depth(other) for other in inputs[name])", "one sum: the depth is 3"),
        Mutant("last listed", "max(depth(name) for name in inputs)", "depth(list(inputs)[-1])",
               "need not be the last in the dictionary"),
        Mutant("listed order", "(depth(other) for other in inputs[name])",
               "(known.get(other, 0) for other in inputs[name])", "may list an operation before its inputs"),
        Mutant("float", "return max(depth(name) for name in inputs)",
               "return max(depth(name) for name in inputs) + 0.5", "a depth is a whole number"),
    )),
    "06.roofline_seconds": Answer(roofline_seconds, (
        Mutant("upside down", "flops / peak", "peak / flops", "wrong way round"),
        Mutant("arithmetic alone", "max(flops / peak, moved / bandwidth)", "flops / peak", "only the arithmetic"),
        Mutant("added", "max(flops / peak, moved / bandwidth)", "(flops / peak + moved / bandwidth)",
               "2 seconds"),
        Mutant("faster of the two", "max(flops / peak", "min(flops / peak", "2 seconds"),
        Mutant("totals", "sum(max(flops / peak, moved / bandwidth) for flops, moved in work)",
               "max(sum(f for f, _ in work) / peak, sum(b for _, b in work) / bandwidth)", "compared the totals"),
        Mutant("slowest alone", "sum(max(flops / peak, moved / bandwidth) for flops, moved in work)",
               "max((max(f / peak, b / bandwidth) for f, b in work), default=0)", "the slowest operation alone"),
        Mutant("number written in", "moved / bandwidth", "moved / 10e9", "written into your code"),
        Mutant("milliseconds", "return sum(", "return 1000 * sum(", "2 seconds"),
    )),
    "06.block_flops": Answer(block_flops, (
        Mutant("one operation", "matrices = 2 * T", "matrices = T", "are two operations"),
        Mutant("three matrices", "4 * d_model * d_model +", "3 * d_model * d_model +", "left out one of attention's"),
        Mutant("one MLP matrix", "2 * d_model * d_ff", "d_model * d_ff", "*two* matrices"),
        Mutant("one token", "matrices = 2 * T *", "matrices = 2 *", "for one token"),
        Mutant("width assumed", "2 * d_model * d_ff", "8 * d_model * d_model", "it need not be 4 times"),
        Mutant("scores alone", "scores = 4 * T", "scores = 2 * T", "counted one of two"),
        Mutant("not squared", "4 * T * T * d_model", "4 * T * d_model", "T times T"),
        Mutant("half the square", "4 * T * T * d_model", "2 * T * (T + 1) * d_model", "scores and mixing is wrong"),
        Mutant("one number", "return matrices, scores", "return matrices + scores", "Two numbers are expected"),
    )),
    "06.catches_wrong_share": Answer(catches_wrong_share, (
        Mutant("always True", "    for size, rows in ((1, 3), (2, 7), (4, 11)):",
               "    return True\n    for size, rows in ((1, 3), (2, 7), (4, 11)):", "It says True to a correct"),
        Mutant("always False", "    for size, rows in ((1, 3), (2, 7), (4, 11)):",
               "    return False\n    for size, rows in ((1, 3), (2, 7), (4, 11)):", "row 0 is nobody's"),
        Mutant("even rows", "(1, 3), (2, 7), (4, 11)", "(1, 3), (2, 6), (4, 12)", "does not divide evenly"),
        Mutant("two at most", "(1, 3), (2, 7), (4, 11)", "(1, 3), (2, 7)", "far more than the others"),
        Mutant("lengths forgotten", "max(map(len, parts)) - min(map(len, parts)) > 1", "False",
               "far more than the others"),
        Mutant("order matters", "sorted(row for part in parts for row in part)",
               "[row for part in parts for row in part]",
               "It says True to a correct"),
        Mutant("equal lengths", "> 1:", "> 0:", "It says True to a correct"),
        Mutant("sets", "sorted(row for part in parts for row in part)",
               "sorted({row for part in parts for row in part})", "reads *all* rows"),
        Mutant("one process", "for rank in range(size)]", "for rank in range(1)] * size", "It says True to a correct"),
    )),
}
