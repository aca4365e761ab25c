"""Lesson 01, embeddings: the exercises."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, dtype, finite, integer, normal, require, shape, tensor

# --- merge --------------------------------------------------------------------------------------------------


def _list(got):
    """The ids that an answer returned, as a list of whole numbers."""
    if isinstance(got, torch.Tensor):
        got = got.tolist()
    require(isinstance(got, list | tuple), "A list of ids is expected: collect them in a list and return that.")
    require(all(isinstance(i, int) and not isinstance(i, bool) for i in got),
            "Every entry of the list should be one id, a whole number.")
    return list(got)


def _glued(ids, pair, new):
    """The oracle: look at two neighbours at a time, and step over what was merged."""
    out, at = [], 0
    while at < len(ids):
        hit = tuple(ids[at : at + 2]) == pair
        out.append(new if hit else ids[at])
        at += 2 if hit else 1
    return out


def _merge_by_hand(answer, rng):
    got = _list(answer([1, 2, 3, 1, 2], (1, 2), 9))
    require(got != [9, 3, 1, 2], "Only the first occurrence of the pair is merged; merge every one.")
    require(got != [1, 2, 3, 1, 2], "Nothing is merged: wherever the pair stands, new_id takes its place.")
    require(got not in ([9, 2, 3, 9, 2], [9, 9, 3, 9, 9], [1, 9, 3, 1, 9]),
            "Both ids of the pair go, and one new_id takes the place of the two.")
    require(got == [9, 3, 9], "With the pair (1, 2) and new_id 9, [1, 2, 3, 1, 2] becomes [9, 3, 9].", f"got {got}")


def _merge_direction(answer, rng):
    got = _list(answer([2, 1, 2, 2, 1], (1, 2), 9))
    require(got != [9, 2, 9], "The pair is ordered: (1, 2) is 1 followed by 2, and 2 followed by 1 is not it.")
    require(got != [2, 9, 2], "The last id of the text is lost: it has no right neighbour, but it must be kept.")
    require(got == [2, 9, 2, 1], "[2, 1, 2, 2, 1] holds the pair (1, 2) once and becomes [2, 9, 2, 1].", f"got {got}")


def _merge_overlap(answer, rng):
    a, new = integer(rng, 0, 99), 300
    got = _list(answer([a, a, a], (a, a), new))
    require(got != [new, new], "In aaa the pair (a, a) occurs twice, but the two share a letter: once it is used, "
            "it is gone. The result is one new_id and one a.")
    require(got != [a, new], "In aaa the pair is merged from the right. Go from left to right: new_id comes first.")
    require(got == [new, a], "aaa with the pair (a, a) becomes new_id, a.", f"got {got}")
    got = _list(answer([a, a, a, a], (a, a), new))
    require(got == [new, new], "aaaa with the pair (a, a) becomes new_id, new_id.", f"got {got}")


def _merge_edges(answer, rng):
    for ids in ([], [5], [5, 6], [7, 5]):
        got = _list(answer(ids, (5, 7), 300))
        require(got == ids, "A text without the pair must come back as it was: the empty text, a single id, and the "
                "last id of the text too.", f"{ids} became {got}")


def _merge_any(answer, rng):
    for pair in 5 * [(0, 0), (0, 1), (1, 0), (1, 1)]:
        ids = torch.randint(0, 2, (integer(rng, 20, 30),), generator=rng).tolist()
        got, want = _list(answer(ids, pair, 300)), _glued(ids, pair, 300)
        require(got == want, "On a longer text the result is not what merging from left to right gives.",
                f"{ids} with {pair}: expected {want}, got {got}")


MERGE = Exercise(
    id="01.merge",
    title="Glue a pair",
    points=5,
    difficulty=1,
    minutes=8,
    prompt="""
Write `merge(ids, pair, new_id)`: a new list in which `new_id` stands wherever the two ids of `pair` stood side by
side. Go from left to right. `[1, 2, 3, 1, 2]` with the pair `(1, 2)` and `new_id` 9 becomes `[9, 3, 9]`.

And what becomes of `[1, 1, 1]` with the pair `(1, 1)`? An id can be used only once.
""",
    stub='''
def merge(ids, pair, new_id):
    """A list of ids -> a new list, each occurrence of the pair replaced by new_id, from the left."""
    raise NotImplementedError
''',
    properties=[
        Property("five ids, by hand", 1, _merge_by_hand, proof=False),
        Property("a pair has a direction", 1, _merge_direction, proof=False),
        Property("aaa: pairs that overlap", 1, _merge_overlap, proof=False),
        Property("nothing to merge, nothing lost", 1, _merge_edges, proof=False),
        Property("any text", 1, _merge_any),
    ],
    ready=("lib.tokenizer.BPETokenizer", "lib.tokenizer._merge_in_word"),
    hints=(
        "Build a new list. Walk with a position that moves on by two after a merge and by one otherwise.",
        "At position i, compare (ids[i], ids[i + 1]) with the pair, but only if i + 1 is still inside the list. "
        "A while loop lets you choose the step.",
        "out, i = [], 0; while i < len(ids): if tuple(ids[i:i + 2]) == tuple(pair), append new_id and add 2 to i, "
        "else append ids[i] and add 1. Slices never run over the end.",
    ),
)

# --- apply_merges -------------------------------------------------------------------------------------------


def _encoded(ids, merges):
    """The oracle, as GPT-2's encoder does it: among all pairs that are there, merge the oldest; again."""
    rank = {(left, right): r for r, (left, right, _) in enumerate(merges)}
    while here := [rank[pair] for pair in pairwise(ids) if pair in rank]:
        left, right, new = merges[min(here)]
        ids = _glued(ids, (left, right), new)
    return ids


def _apply_by_hand(answer, rng):
    merges = [(1, 2, 10), (10, 3, 11), (3, 1, 12)]
    got = _list(answer([1, 2, 3, 1, 2, 3], merges))
    require(got != [10, 12, 2, 3], "The youngest merge is applied first. Go in the order of the list: oldest first.")
    require(got != [10, 3, 10, 3], "You stop after the first merge. A later merge may use the piece it made.")
    require(got not in ([11, 1, 2, 3], [11, 10, 3], [10, 3, 1, 2, 3]),
            "Each merge is applied at one place only. Apply it wherever its pair stands, then take the next merge.")
    require(got == [11, 11], "First 1, 2 become 10 at both places; then 10, 3 become 11 at both. What is left is "
            "[11, 11].", f"got {got}")


def _apply_absent(answer, rng):
    got = _list(answer([4, 5, 6], [(1, 2, 10), (4, 5, 11), (11, 6, 12)]))
    require(got == [12], "A merge whose pair is not in the text is passed over; the merges after it still count.",
            f"got {got}")
    for ids in ([], [1]):
        require(_list(answer(ids, [(1, 2, 10)])) == ids, "A text of no ids or one id has no pairs: return it as it is.")
    require(_list(answer([1, 2], [])) == [1, 2], "With no merges learned, the text stays as it is.")


def _apply_older_wins(answer, rng):
    got = _list(answer([1, 2, 3], [(2, 3, 10), (1, 2, 11)]))
    require(got != [11, 3], "1, 2, 3: both (1, 2) and (2, 3) are there, and you took the one further left. The *older* "
            "merge wins, wherever it stands.")
    require(got == [1, 10], "With (2, 3) learned before (1, 2), 1, 2, 3 becomes 1, 10.", f"got {got}")


def _apply_any(answer, rng):
    for _ in range(15):
        merges, seen = [], set()
        while len(merges) < 5:
            pair = (integer(rng, 0, 2 + len(merges)), integer(rng, 0, 2 + len(merges)))
            if pair not in seen:
                seen.add(pair)
                merges.append((*pair, 3 + len(merges)))
        ids = torch.randint(0, 3, (integer(rng, 10, 30),), generator=rng).tolist()
        got, want = _list(answer(ids, merges)), _encoded(ids, merges)
        require(got == want, "On a longer text the result is not what GPT-2's encoder gives: oldest merge first, each "
                "from left to right.", f"{ids} with {merges}: expected {want}, got {got}")


APPLY_MERGES = Exercise(
    id="01.apply_merges",
    title="Read a new text",
    points=5,
    difficulty=2,
    minutes=10,
    prompt="""
Training is over; a new text arrives. Write `apply_merges(ids, merges)`. `ids` is a list of byte ids; `merges` is a
list of `(left, right, new)` in the order in which they were learned: wherever `left` stands before `right`, `new`
takes their place. Return the list that is left when all have had their turn, oldest first, each from left to right.
You may call your `merge` from above.
""",
    stub='''
def apply_merges(ids, merges):
    """A list of ids and a list of (left, right, new), oldest first -> the merged list of ids."""
    raise NotImplementedError
''',
    properties=[
        Property("three merges, by hand", 1, _apply_by_hand, proof=False),
        Property("merges that find nothing", 1, _apply_absent, proof=False),
        Property("the older merge wins", 1, _apply_older_wins, proof=False),
        Property("any text, any merges", 2, _apply_any),
    ],
    ready=("lib.tokenizer.BPETokenizer", "lib.tokenizer._merge_in_word"),
    hints=(
        "You have the glueing of one pair already. What is missing is a loop around it.",
        "The order of the loops matters: outside the merges, inside the text. For each merge, go through the "
        "whole text.",
        "for left, right, new in merges: ids = merge(ids, (left, right), new). Then return ids, as a list.",
    ),
)

# --- embed --------------------------------------------------------------------------------------------------


def _embedded(answer, ids, table):
    got = finite(tensor(answer(ids, table)))
    before, (V, D) = tuple(ids.shape), table.shape
    require(tuple(got.shape) != (*before, V), "Each id becomes as many numbers as there are tokens. The table has a "
            "row for each token, (V, D), and an id becomes its row: D numbers.")
    require(ids.ndim < 2 or tuple(got.shape) != (ids.numel(), D), "The batch is gone: ids (B, T) become (B, T, D), "
            "not one long list of rows.")
    return shape(got, (*before, D), "the result")


def _embed_by_hand(answer, rng):
    table = torch.tensor([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [20.0, 21.0, 22.0], [30.0, 31.0, 32.0]])
    ids = torch.tensor([3, 0, 3, 1])
    got = _embedded(answer, ids, table)
    for wrong, says in (
        (table, "The rows come in the table's own order. Take the row that each *id* names: the first id is 3."),
        (table[ids - 1], "Every row is one too early: ids count from 0, and id 0 is the table's first row."),
        (ids[:, None] * table, "The id is used as a quantity. It is only a name: it says which row, and no more."),
        (table[ids] * 3**0.5, "The rows are right and stretched by √D. The paper did that; our model does not."),
        (F.normalize(table[ids], dim=-1), "The rows come at length 1. Take them as they stand in the table."),
    ):
        require(differs(got, wrong).any(), says)
    close(got, table[ids], "The ids 3, 0, 3, 1 name the rows that begin with 30, 0, 30 and 10. Yours are others.")


def _embed_batch(answer, rng):
    for ids_shape in ((2, 5), (3, 1), (1, 4), (2, 2, 3), ()):
        V, D = integer(rng, 7, 12), integer(rng, 2, 5)
        table, ids = normal(rng, V, D), torch.randint(0, V, ids_shape, generator=rng)
        want = torch.stack([table[i] for i in ids.flatten().tolist()]).view(*ids_shape, D)  # (..., D)
        close(_embedded(answer, ids, table), want, f"Ids of shape {ids_shape} should become their rows, "
              f"{(*ids_shape, D)}. The shape fits, and the numbers are others.")


def _embed_alone(answer, rng):
    table, (a, b, c, d) = normal(rng, 9, 4), torch.randperm(9, generator=rng)[:4].tolist()
    ids = torch.tensor([[a, b, a, c], [b, a, d, d]])
    got = _embedded(answer, ids, table)
    require(torch.equal(got[0, 0], got[0, 2]) and torch.equal(got[0, 0], got[1, 1]), "The same id gives different "
            "vectors at different places. A table knows neither places nor neighbours.")
    other = torch.tensor([[a, b, a, c], [d, c, b, a]])
    close(_embedded(answer, other, table)[0], got[0], "A text's vectors change with another text of the batch.")
    close(got[0, 0], table[a], "An id's vector is not its row of the table.")


def _embed_large(answer, rng):
    table = normal(rng, 40_000, 8)
    ids = torch.randint(0, 40_000, (2, 50), generator=rng)
    close(_embedded(answer, ids, table), torch.stack([table[i] for i in ids.flatten().tolist()]).view(2, 50, 8),
          "With a vocabulary of 40,000 the rows are others.")


EMBED = Exercise(
    id="01.embed",
    title="From ids to vectors",
    points=5,
    difficulty=1,
    minutes=5,
    prompt="""
Write `embed(ids, table)`. `ids` is a tensor of whole numbers of any shape, say (B, T); `table` is (V, D), a row for
each of the V tokens. Each id becomes its row, so the result has one axis more, (B, T, D). Index the table rather than
call PyTorch's `embedding`.
""",
    stub='''
def embed(ids, table):
    """Whole numbers (...) and a table (V, D) -> (..., D): the row of each id."""
    raise NotImplementedError
''',
    properties=[
        Property("four ids, by hand", 1, _embed_by_hand, proof=False),
        Property("a batch of any shape", 2, _embed_batch),
        Property("an id is always the same vector", 1, _embed_alone),
        Property("a real vocabulary", 1, _embed_large),
    ],
    forbidden=("embedding", "Embedding"),
    ready=("torch.nn.Embedding", "torch.nn.functional.embedding", "lib.lesson.handmade.fill.embed"),
    hints=(
        "A list of three rows is table[[4, 0, 4]]. What if the list is a tensor?",
        "Indexing with a tensor of whole numbers gives a tensor of its shape, with a row in place of each number.",
        "return table[ids]. That it is so short is the point: an embedding is a look-up.",
    ),
)

# --- cosine_nearest -----------------------------------------------------------------------------------------


def _nearest(answer, table, i, k):
    got = answer(table, i, k)
    got = torch.tensor(_list(got)) if isinstance(got, list | tuple) else tensor(got)
    return dtype(shape(got, (k,), "the result"), torch.int64, "the result").long()


def _nearest_by_hand(answer, rng):
    table = torch.tensor([[1.0, 0.0], [10.0, 10.0], [0.9, 0.1], [-1.0, 0.0], [0.0, 2.0], [3.0, 6.0]])
    got = _nearest(answer, table, 0, 3).tolist()
    require(0 not in got, "Row i is in its own list. It is always nearest to itself, and says nothing: leave it out.")
    require(got != [1, 5, 2], "Long rows win because they are long. Divide each row by its own length, along "
            "dim=1; the plain dot product is not enough.")
    require(got != [2, 3, 4], "Ranked by distance. Two rows that point the same way are alike by cosine, however far "
            "apart they end.")
    require(got != [3, 4, 5], "The least alike come first; you want the largest cosines.")
    require(sorted(got) != [1, 2, 5] or got == [2, 1, 5], "The right rows in the wrong order: the most alike comes "
            "first.")
    require(got == [2, 1, 5], "Row 0 points to the right. The directions nearest to it are those of rows 2, 1 and 5.",
            f"got {got}")


def _nearest_lengths(answer, rng):
    table = normal(rng, 30, 8)
    i, k = integer(rng, 0, 29), 5
    got = _nearest(answer, table, i, k)
    factors = torch.logspace(-2, 2, 30)[torch.randperm(30, generator=rng)]
    again = _nearest(answer, table * factors[:, None], i, k)
    require(torch.equal(got, again), "Making rows longer or shorter changes the result. The cosine knows only "
            "directions: divide each row by its own length.")


def _nearest_twin(answer, rng):
    table = normal(rng, 40, 6)
    table[3], table[8], table[10] = table[5] * 32, table[5] / 32, table[5]
    twins = [3, 5, 8, 10]
    for i in twins:
        got = _nearest(answer, table, i, 3).tolist()
        require(sorted(got) == [j for j in twins if j != i],
                "Three other rows point in the very direction of row i: they belong in the list, and i does not. Take "
                "out row i by its index, not by skipping the first entry.",
                f"rows {twins} are twins; for row {i}, got {got}")


def _nearest_any(answer, rng):
    for _ in range(5):
        n, d = integer(rng, 12, 40), integer(rng, 3, 9)
        table, i = normal(rng, n, d), integer(rng, 0, n - 1)
        cosine = [float(torch.dot(table[i].double(), row.double()) / (table[i].double().norm() * row.double().norm()))
                  for row in table]
        want = sorted((j for j in range(n) if j != i), key=lambda j: -cosine[j])[:4]
        got = _nearest(answer, table, i, 4).tolist()
        require(got == want, "On random rows the four nearest differ from those found one by one.",
                f"expected {want}, got {got}")


NEAREST = Exercise(
    id="01.cosine_nearest",
    title="Find the neighbours",
    points=5,
    difficulty=2,
    minutes=8,
    prompt="""
Write `cosine_nearest(table, i, k)`: the indices of the `k` rows of `table`, (V, D), whose direction is nearest to that
of row `i`, the most alike first. Row `i` itself is not its own neighbour. The result is a tensor of `k` whole numbers.
""",
    stub='''
def cosine_nearest(table, i, k):
    """(V, D) -> (k,) indices of the rows most like row i by cosine, without i, most alike first."""
    raise NotImplementedError
''',
    properties=[
        Property("six arrows, by hand", 1, _nearest_by_hand, proof=False),
        Property("length does not matter", 1, _nearest_lengths, proof=False),
        Property("twins of row i", 1, _nearest_twin),
        Property("any table", 2, _nearest_any),
    ],
    hints=(
        "Three steps: a cosine for each row, hide row i, take the largest k.",
        "Divide every row by its length (table / table.norm(dim=1, keepdim=True)); then all cosines are one product "
        "with row i.",
        "scores = unit @ unit[i]; scores[i] = -float('inf'); return scores.topk(k).indices.",
    ),
)

# --- rotary -------------------------------------------------------------------------------------------------


def _turned(x, positions, theta):
    """The oracle: coordinates i and i + Dh/2 as one complex number, times e^(i angle)."""
    half = x.shape[1] // 2
    z = torch.complex(x[:, :half].double(), x[:, half:].double())  # (T, Dh/2)
    speed = torch.tensor([theta ** (-2 * i / x.shape[1]) for i in range(half)], dtype=torch.float64)  # (Dh/2,)
    z = z * torch.polar(torch.ones_like(z.real), positions.double()[:, None] * speed)
    return torch.cat((z.real, z.imag), 1).float()  # (T, Dh)


def _rotary_pair(answer, rng):
    x, positions = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 1, 2, 7])
    got = finite(shape(answer(x, positions), (4, 2)))
    angle = positions.float()
    right = torch.stack((angle.cos(), angle.sin()), 1)  # (4, 2)
    for wrong, says in (
        (x, "Nothing turns: the position has no effect."),
        (torch.stack((angle.cos(), -angle.sin()), 1), "Turned the wrong way round: (1, 0) turns towards (0, 1), so the "
         "new second coordinate is x1 * sin + x2 * cos."),
        (torch.stack((angle.sin(), angle.cos()), 1), "Sine and cosine are swapped: at position 0 nothing should move."),
        (torch.tensor([[math.cos(i), math.sin(i)] for i in range(4)]), "The rows are turned by 0, 1, 2, 3, … and not "
         "by the `positions` that were given."),
        (torch.stack(((angle * math.pi / 180).cos(), (angle * math.pi / 180).sin()), 1), "The angle is taken as "
         "degrees; it is in radians."),
    ):
        require(differs(got, wrong).any(), says)
    close(got, right, "A single pair turns by its position in radians: (1, 0) at position p becomes (cos p, sin p).")


def _rotary_length(answer, rng):
    T, Dh = integer(rng, 3, 6), 2 * integer(rng, 2, 4)
    x = normal(rng, T, Dh)
    got = finite(shape(answer(x, torch.arange(1, T + 1)), (T, Dh)))
    close(got.norm(dim=1), x.norm(dim=1), "The length of a vector changes. Turning never does that: check the signs, "
          "x1 cos - x2 sin and x1 sin + x2 cos.", atol=1e-4)
    close(answer(x, torch.zeros(T, dtype=torch.int64)), x, "At position 0 nothing should move.", atol=1e-4)


def _rotary_two_pairs(answer, rng):
    x, positions = torch.tensor([[1.0, 2.0, 0.5, -1.0], [0.3, -0.7, 1.0, 0.2]]), torch.tensor([3, 5])

    def with_(speeds, adjacent=False):
        y = x[:, [0, 2, 1, 3]] if adjacent else x
        angle = positions[:, None] * torch.tensor(speeds)  # (2, 2)
        a, b = y[:, :2], y[:, 2:]
        y = torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), 1)
        return y[:, [0, 2, 1, 3]] if adjacent else y

    got = finite(shape(answer(x, positions, 16.0), (2, 4)))
    for speeds, adjacent, says in (
        ([1.0, 0.25], True, "Neighbours (0 and 1, 2 and 3) are turned together. Here the pairs are i and i + Dh/2, "
         "as in Llama."),
        ([1.0, 1.0], False, "All pairs turn at the same speed. Pair i turns at theta^(-2i/Dh)."),
        ([1.0, 4.0], False, "Later pairs turn faster: the exponent of theta needs a minus."),
        ([1.0, 0.5], False, "The exponent is -i/Dh; it should be -2i/Dh, so that the speeds span the whole range "
         "down to nearly 1/theta."),
        ([1.0, 1 / 16], False, "The exponent is -2i/(Dh/2): divide by Dh, the width of the whole head."),
        ([1.0, 0.01], False, "theta is fixed at 10000; use the argument."),
    ):
        require(differs(got, with_(speeds, adjacent)).any(), says)
    close(got, with_([1.0, 0.25]), "With Dh = 4 and theta = 16, coordinates 0 and 2 turn by the position, 1 and 3 by a "
          "quarter of it.")


def _rotary_distance(answer, rng):
    Dh = 2 * integer(rng, 3, 6)
    q, k = normal(rng, Dh).expand(2, Dh), normal(rng, Dh).expand(2, Dh)
    m, n, shift = integer(rng, 5, 9), integer(rng, 0, 4), integer(rng, 10, 50)
    a = answer(q, torch.tensor([m, m + shift]), 10.0)
    b = answer(k, torch.tensor([n, n + shift]), 10.0)
    scores = (a * b).sum(1)  # (2,)
    close(scores[1], scores[0], "Moving query and key by the same number of places changes their score. It should "
          "depend on the distance only.", atol=1e-3)


def _rotary_any(answer, rng):
    for _ in range(4):
        T, Dh = integer(rng, 1, 6), 2 * integer(rng, 1, 8)
        x, positions = normal(rng, T, Dh), torch.randint(0, 50, (T,), generator=rng)
        close(answer(x, positions), _turned(x, positions, 10000.0), "On random vectors the result differs from turning "
              "each pair as a complex number.", atol=1e-3)


ROTARY = Exercise(
    id="01.rotary",
    title="Turn every pair",
    points=6,
    difficulty=3,
    minutes=15,
    prompt="""
Write `rotary(x, positions, theta=10000.0)`. Row t of `x`, (T, Dh), stands at `positions[t]`; Dh is even. Coordinates
$i$ and $i + D_h/2$ are a pair, for $i = 0 \\ldots D_h/2 - 1$. Turn each pair by the angle
$\\text{position} \\cdot \\theta^{-2i/D_h}$:

$$(a, b) \\rightarrow (a \\cos - b \\sin,\\; a \\sin + b \\cos)$$

The result is (T, Dh). Work it out here with your own sine and cosine rather than the library's `rotate`.
""",
    stub='''
def rotary(x, positions, theta=10000.0):
    """(T, Dh) and positions (T,) -> (T, Dh): coordinates i and i + Dh/2 turned by position * theta^(-2i/Dh)."""
    raise NotImplementedError
''',
    properties=[
        Property("one pair, by hand", 1, _rotary_pair, proof=False),
        Property("two pairs, by hand", 2, _rotary_two_pairs, proof=False),
        Property("lengths stay", 1, _rotary_length, proof=False),
        Property("only the distance counts", 1, _rotary_distance, proof=False),
        Property("any vectors", 1, _rotary_any),
    ],
    ready=("lib.embedding.rotate", "lib.embedding.rotary_angles", "lib.lesson.handmade.fill.rotary"),
    hints=(
        "Make the angles first, a table of shape (T, Dh/2): a column of positions times a row of speeds.",
        "half = x.shape[1] // 2; speeds = theta ** (-2 * torch.arange(half) / x.shape[1]); angle = positions[:, None] "
        "* speeds. The two members of all pairs are x[:, :half] and x[:, half:].",
        "a, b = x[:, :half], x[:, half:], and the result is torch.cat((a * angle.cos() - b * angle.sin(), a * "
        "angle.sin() + b * angle.cos()), dim=1).",
    ),
)

EXERCISES = [MERGE, APPLY_MERGES, EMBED, NEAREST, ROTARY]
