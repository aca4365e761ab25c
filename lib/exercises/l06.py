"""Lesson 06, why it scales: the exercises."""

import torch

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, integer, number, require, verdicts

# --- longest_path -------------------------------------------------------------------------------------------


def _whole(got):
    """`got` as a whole number."""
    got = number(got)
    require(got == int(got), f"Your code returned {got:g}; a depth is a whole number.")
    return int(got)


def _chain(n):
    """x0 -> x1 -> … : each needs the one before."""
    return {f"x{i}": [f"x{i - 1}"] if i else [] for i in range(n)}


def _path_chain(answer, rng):
    n = integer(rng, 5, 120)
    got = _whole(answer(_chain(n)))
    require(got != n - 1, f"A chain of {n} operations has depth {n}: count the operations on the path, not the arrows "
                          "between them.")
    require(got == n, "A chain, in which each operation needs the one before, is as deep as it is long.", f"got {got}")
    require(_whole(answer({"a": []})) == 1, "A single operation with no inputs has depth 1.")


def _path_wide(answer, rng):
    n = integer(rng, 4, 8)
    got = _whole(answer({"in": []} | {f"side{i}": ["in"] for i in range(n)} | {"out": [f"side{i}" for i in range(n)]}))
    require(got != n + 2, "You counted all operations. Those side by side can run at the same time: only the longest "
                          "chain counts.")
    require(got == 3, f"One input, {n} operations side by side, one sum: the depth is 3.", f"got {got}")


def _path_longest(answer, rng):
    short, long = integer(rng, 2, 15), integer(rng, 20, 120)
    graph = _chain(long) | {f"s{i}": [f"s{i - 1}"] if i else [] for i in range(short)}
    first = graph | {"end": [f"s{short - 1}", f"x{long - 1}"]}
    last = graph | {"end": [f"x{long - 1}", f"s{short - 1}"]}
    got, other = _whole(answer(first)), _whole(answer(last))
    require(long not in (got, other), "When two chains meet, the result has to wait for the *longer* one; yours "
                                           "follows another.")
    require((got, other) == (long + 1, long + 1), "Two chains of unequal length meet in one operation: the depth is "
                                                  "that of the longer, and one more.", f"got {got} and {other}")
    tail = _whole(answer(first | {"after": ["s0"]}))
    require(tail == long + 1, "The deepest operation need not be the last in the dictionary.", f"got {tail}")


def _path_order(answer, rng):
    graph = _chain(integer(rng, 5, 80))
    names = list(graph)
    mixed = {names[i]: graph[names[i]] for i in torch.randperm(len(names), generator=rng).tolist()[::-1]}
    got = _whole(answer(dict(reversed(graph.items())))), _whole(answer(mixed))
    require(got == (len(names), len(names)), "The dictionary may list an operation before its inputs; the depth must "
                                             "not depend on the order.", f"got {got[0]} and {got[1]}")


def _path_shared(answer, rng):
    # Ten times over: two operations read the same input and are added.
    graph = {"x0": []}
    for i in range(10):
        graph |= {f"a{i}": [f"x{i}"], f"b{i}": [f"x{i}"], f"x{i + 1}": [f"a{i}", f"b{i}"]}
    got = _whole(answer(graph))
    require(got == 21, "A result that two operations read is counted wrongly: it is on their paths, not added to them.",
            f"expected 21, got {got}")


LONGEST_PATH = Exercise(
    id="06.longest_path",
    title="How long must you wait?",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
Write `longest_path(inputs)`. `inputs` is a dictionary: for each operation, the list of the operations whose results it
needs. Return the **depth** of this graph: how many operations lie on its longest chain. With as many processors as you
like, and one second for each operation, that is how long you must wait.

`{"a": [], "b": [], "c": ["a", "b"]}` has depth 2: `a` and `b` run together, then `c`. The dictionary may list
operations in any order, and a result can be used many times.
""",
    stub='''
def longest_path(inputs):
    """{operation: [operations it needs]} -> how many operations lie on the longest chain, a whole number."""
    raise NotImplementedError
''',
    properties=[
        Property("a chain is as deep as it is long", 1, _path_chain),
        Property("what runs side by side counts once", 1, _path_wide, proof=False),
        Property("the longer of two chains", 2, _path_longest),
        Property("in any order", 1, _path_order),
        Property("results that are used twice", 1, _path_shared, proof=False),
    ],
    hints=(
        "An operation can start when its slowest input is ready. So its depth is one more than the largest depth "
        "among its inputs.",
        "Write a helper depth(name) that calls itself for the inputs. Keep the results in a dictionary, and look there "
        "first.",
        "known = {}; def depth(name): if name not in known: known[name] = 1 + max((depth(i) for i in inputs[name]), "
        "default=0); return known[name]. Return the max over all names.",
    ),
)

# --- roofline_seconds ---------------------------------------------------------------------------------------

PEAK, BANDWIDTH = 100e9, 10e9  # operations and bytes a second: the ridge is at 10 operations a byte


def _seconds(answer, work):
    return float(number(answer(work, PEAK, BANDWIDTH)))


def _roofline_one(answer, rng):
    heavy = _seconds(answer, [(200e9, 1e9)])
    require(heavy != 1 / 2, "You divided the wrong way round: seconds are operations / (operations a second).")
    close(heavy, 2.0, "200 billion operations at 100 billion a second, with next to nothing to move: 2 seconds.")
    light = _seconds(answer, [(1e9, 30e9)])
    require(light != 0.01, "You counted only the arithmetic. Here 30 GB must be moved at 10 GB a second, and the "
                           "arithmetic has to wait.")
    close(light, 3.0, "30 GB at 10 GB a second, with next to nothing to compute: 3 seconds.")


def _roofline_overlap(answer, rng):
    got = _seconds(answer, [(200e9, 15e9)])
    require(abs(got - 3.5) > 1e-6, "You added moving and computing. They overlap: an operation takes as long as the "
                                   "slower of the two.")
    require(abs(got - 1.5) > 1e-6, "You took the faster of the two; the slower one sets the pace.")
    close(got, 2.0, "2 seconds of arithmetic over 1.5 seconds of moving take 2 seconds.")


def _roofline_many(answer, rng):
    work = [(200e9, 1e9), (1e9, 30e9)]  # 2 s of arithmetic, then 3 s of moving
    got = _seconds(answer, work)
    require(abs(got - 3.0) > 0.01, "You took the slowest operation alone; they run one after another.")
    require(abs(got - 3.1) > 0.01, "You added everything up first and compared the totals. Each operation has a limit "
                                   "of its own: arithmetic in one does not hide the moving in the next.")
    close(got, 5.0, "A 2-second operation and then a 3-second one take 5 seconds.")
    require(_seconds(answer, []) == 0, "No work takes no time.")


def _roofline_any(answer, rng):
    work = [(250e9 * integer(rng, 2, 9), 1e9), (1e9, 5e9 * integer(rng, 2, 9)), (250e9, 1e9)]
    want = sum(max(f / 250e9, b / 5e9) for f, b in work)
    close(answer(work, 250e9, 5e9), want, "With another machine the time is wrong: is one of the numbers written into "
                                          "your code?", rtol=1e-4)


ROOFLINE_SECONDS = Exercise(
    id="06.roofline_seconds",
    title="Computing or carrying?",
    points=6,
    difficulty=1,
    minutes=10,
    prompt="""
Write `roofline_seconds(work, peak, bandwidth)`: the least time, in seconds, that a machine needs for some operations,
one after another. `work` is a list of pairs `(flops, bytes)`: how much each computes, and how much it moves to and from
memory. `peak` is the machine's operations a second, `bandwidth` its bytes a second.

Within one operation, computing and moving overlap perfectly, so the slower of the two decides. Between operations
nothing overlaps.
""",
    stub='''
def roofline_seconds(work, peak, bandwidth):
    """[(flops, bytes), ...], flops a second, bytes a second -> seconds, a float."""
    raise NotImplementedError
''',
    properties=[
        Property("one operation of either kind", 2, _roofline_one, proof=False),
        Property("computing and moving overlap", 1, _roofline_overlap, proof=False),
        Property("one after another", 2, _roofline_many, proof=False),
        Property("any machine", 1, _roofline_any),
    ],
    hints=(
        "For one operation there are two times: that of the arithmetic, and that of the moving. Which one do you wait "
        "for?",
        "One operation takes max(flops / peak, bytes / bandwidth). Then add up over the operations.",
        "return sum(max(flops / peak, moved / bandwidth) for flops, moved in work)",
    ),
)

# --- block_flops --------------------------------------------------------------------------------------------


def _flops(answer, *sizes):
    got = answer(*sizes)
    require(not isinstance(got, torch.Tensor) and isinstance(got, tuple | list) and len(got) == 2,
            "Two numbers are expected: `return matrices, scores`.")
    return _whole(got[0]), _whole(got[1])


def _flops_linear(answer, rng):
    T, D = 8 * integer(rng, 1, 99), 16 * integer(rng, 1, 99)
    got, _ = _flops(answer, T, D, 4 * D)
    right = 2 * T * (4 * D * D + 2 * D * 4 * D)
    require(2 * got != right, "The matrices' count is half of what it should be: a multiplication and an addition are "
                              "two operations.")
    require(got != 2 * T * (3 * D * D + 8 * D * D), "You left out one of attention's four matrices: q, k, v, and the "
                                                    "one that mixes the heads at the end.")
    require(got != 2 * T * (4 * D * D + 4 * D * D), "The MLP has *two* matrices, up and down.")
    require(got != right // T, "That is for one token; there are T of them.")
    require(got == right, "The count for the matrices is wrong: four of D by D in attention, two of D by d_ff in the "
                          "MLP, each applied to T tokens.", f"expected {right:,}, got {got:,}")


def _flops_width(answer, rng):
    T, D, F = 8, 32, integer(rng, 20, 900)
    got, _ = _flops(answer, T, D, F)
    require(got == 2 * T * (4 * D * D + 2 * D * F), "The MLP's width is `d_ff`; it need not be 4 times d_model.")


def _flops_scores(answer, rng):
    T, D = 8 * integer(rng, 2, 99), 16 * integer(rng, 1, 99)
    _, got = _flops(answer, T, D, 4 * D)
    right = 4 * T * T * D
    require(got != right // 2, "You counted one of two: the queries meet the keys (T x T dot products of D numbers), "
                               "and then the weights mix the values. Each is 2 T T D operations.")
    require(got != 4 * T * D, "The scores are *each* token against *each*: T times T.")
    require(got == right, "The count for scores and mixing is wrong.", f"expected {right:,}, got {got:,}")


def _flops_bill(answer, rng):
    T, D = 16 * integer(rng, 2, 5), 64
    (a, b), (c, d) = _flops(answer, T, D, 256), _flops(answer, 2 * T, D, 256)
    require(c == 2 * a, "Twice as many tokens must cost the matrices twice as much.")
    require(d == 4 * b, "Twice as many tokens must cost the scores *four* times as much: that is the bill.")


BLOCK_FLOPS = Exercise(
    id="06.block_flops",
    title="The bill",
    points=6,
    difficulty=2,
    minutes=10,
    prompt="""
Write `block_flops(T, d_model, d_ff)`: how many operations the forward pass of one Block takes for a sequence of T
tokens. Return two whole numbers, `(matrices, scores)`:

- `matrices`: attention's four matrices, each d_model by d_model, and the MLP's two (plain, without a gate), up to d_ff
  and down again. All are applied to each token.
- `scores`: every query against every key, and the weights' mixture of the values, over all heads together. Count the
  full square, as if there were no mask.

A multiplication and an addition are two operations: a matrix of m by n applied to one token takes 2 m n. Leave norms,
softmax and biases out.
""",
    stub='''
def block_flops(T, d_model, d_ff):
    """Sizes -> (operations of the matrices, operations of scores and mixing), whole numbers."""
    raise NotImplementedError
''',
    properties=[
        Property("the matrices", 2, _flops_linear),
        Property("any width of the MLP", 1, _flops_width),
        Property("scores and mixing", 2, _flops_scores),
        Property("twice the tokens", 1, _flops_bill, proof=False),
    ],
    ready=("lib.decide.sizing.forward_flops", "lib.decide.sizing.attention_flops"),
    hints=(
        "Six matrices see every token. The scores are a T by T table; each entry is a dot product over the width. How "
        "the width is cut into heads does not matter for the sum.",
        "matrices = 2 * T * (4 * d_model**2 + 2 * d_model * d_ff). For the scores: T * T dot products of d_model "
        "numbers, and as much again for the mixture.",
        "return 2 * T * (4 * d_model**2 + 2 * d_model * d_ff), 4 * T * T * d_model",
    ),
)

# --- catches_wrong_share: the learner writes the test -------------------------------------------------------


def _in_one_piece(rank, size, rows):
    return list(range(rows * rank // size, rows * (rank + 1) // size))


def _every_nth(rank, size, rows):
    return list(range(rank, rows, size))


def _backwards(rank, size, rows):
    return _every_nth(size - 1 - rank, size, rows)[::-1]


def _all_the_same(rank, size, rows):
    return list(range(rows // size))


def _everything(rank, size, rows):
    return list(range(rows))


def _drops_the_rest(rank, size, rows):
    each = rows // size
    return list(range(rank * each, (rank + 1) * each))


def _fills_up(rank, size, rows):
    each = -(-rows // size)
    return [row % rows for row in range(rank * each, (rank + 1) * each)]


def _rest_to_the_last(rank, size, rows):
    each = rows // size
    return list(range(rank * each, rows if rank == size - 1 else (rank + 1) * each))


def _counts_from_one(rank, size, rows):
    return [row + 1 for row in _in_one_piece(rank, size, rows)]


def _for_two(rank, size, rows):
    return _in_one_piece(rank, size, rows) if size <= 2 else _in_one_piece(min(rank, 1), 2, rows)


def _tell(answer, rng, *wrong):
    """The learner's verdicts on wrong divisions and on two right ones. wrong: (function, what acquitting it means)."""
    right = [
        (_in_one_piece, False, "It says True to a correct share: each process gets the next few rows in one piece."),
        (_every_nth, False, "It says True to a correct share: process 0 of 2 gets rows 0, 2, 4, … and process 1 the "
                            "others. Any division will do in which each row is somebody's, once."),
        (_backwards, False, "It says True to a correct share whose rows come in another order. Compare what all "
                            "processes have together, sorted."),
    ]  # fmt: skip
    # A lambda has no telling name.
    verdicts(lambda share: answer(lambda rank, size, rows: share(rank, size, rows)), rng,
             [*((function, True, says) for function, says in wrong), *right])


def _share_right(answer, rng):
    _tell(answer, rng, (_counts_from_one, "It says False to a version whose rows begin at 1: row 0 is nobody's, and "
                                          "one row does not exist."))


def _share_same(answer, rng):
    _tell(answer, rng,
          (_all_the_same, "It says False to the classic: every process reads the *same* rows. Look at what all "
                          "processes have together, not at one."),
          (_everything, "It says False to a version in which every process reads *all* rows."))


def _share_rest(answer, rng):
    _tell(answer, rng,
          (_drops_the_rest, "It says False to a version that drops the rows that are left over. Try a number of rows "
                            "that does not divide evenly."),
          (_fills_up, "It says False to a version that fills up with rows that it has given away already. Try a number "
                      "of rows that does not divide evenly."))


def _share_even(answer, rng):
    _tell(answer, rng, (_rest_to_the_last, "It says False to a version in which one process gets far more than the "
                                           "others, who then wait for it. Shares may differ by one row at most: try, "
                                           "say, 4 processes and 11 rows."))


def _share_many(answer, rng):
    _tell(answer, rng, (_for_two, "It says False to a version that is right for one or two processes only."))


CATCHES_WRONG_SHARE = Exercise(
    id="06.catches_wrong_share",
    title="Write the test: everybody reads the same rows",
    points=8,
    difficulty=3,
    minutes=20,
    prompt="""
In data-parallel training `share(rank, size, rows)` tells each process which rows of the batch to read: a list of row
numbers for process `rank` (0, 1, …) of `size`. It is right if

- each of the rows 0 … rows − 1 is read by exactly one process, in any order;
- no process has more than one row more than another, since everybody waits for the slowest.

Write `catches_wrong_share(share)`. It calls `share` with numbers of your choice, with at least as many rows as
processes, and returns `True` if it is wrong, `False` if it is right. The classic bug, every process reading the same
rows, raises no error, and the loss goes down all the same: you have paid for eight machines and got the batch of one.
""",
    stub='''
def catches_wrong_share(share):
    """True if share(rank, size, rows) is wrong, False if it is right."""
    raise NotImplementedError
''',
    properties=[
        Property("trusts what is right", 2, _share_right),
        Property("catches everybody reading the same", 2, _share_same),
        Property("catches rows lost or read twice", 2, _share_rest),
        Property("catches an uneven division", 1, _share_even),
        Property("catches what needs more than two processes", 1, _share_many),
    ],
    hints=(
        "For one choice of size and rows, collect the lists of all processes. What must they be together? And their "
        "lengths?",
        "parts = [share(rank, size, rows) for rank in range(size)]. All together, sorted, they must be list(range(rows"
        ")). Numbers that divide evenly hide half of the bugs, and so do two processes.",
        "Loop over (size, rows) in [(1, 3), (2, 7), (4, 11)]. Return True if sorted(sum(parts, [])) != "
        "list(range(rows)) or max(map(len, parts)) - min(map(len, parts)) > 1. After the loop, return False.",
    ),
)

EXERCISES = [LONGEST_PATH, ROOFLINE_SECONDS, BLOCK_FLOPS, CATCHES_WRONG_SHARE]
