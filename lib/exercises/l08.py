"""Lesson 08, vision transformer: the exercises."""

import functools
import math

import torch
import torch.nn.functional as F

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, integer, normal, require, shape, verdicts

# --- assemble -----------------------------------------------------------------------------------------------


def _cut(images, P):
    """Pictures (B, C, Y, X) cut up, one square after another: (B, T, C·P·P)."""
    _, _, Y, X = images.shape
    squares = [images[:, :, y : y + P, x : x + P].flatten(1) for y in range(0, Y, P) for x in range(0, X, P)]
    return torch.stack(squares, dim=1)  # (B, T, C·P·P)


def _assembled(answer, images, P):
    """What the answer makes of cut-up pictures, (B, C, Y, X)."""
    return shape(answer(_cut(images, P), P, tuple(images.shape[1:])), images.shape)


def _assemble_by_hand(answer, rng):
    want = torch.arange(16.0).view(1, 1, 4, 4)  # (1, 1, 4, 4)
    got = _assembled(answer, want, 2)
    parts = want.view(2, 2, 2, 2)  # (rows, P, columns, P)
    require(differs(got, _cut(want, 2).view_as(want)).any(),
            "The numbers come out in the order in which they went in. A reshape alone never moves a number: the rows "
            "of a patch must be laid beside those of its neighbour.")
    require(differs(got, parts.permute(0, 3, 2, 1).reshape_as(want)).any(),
            "Each patch lies on its side: its rows became columns.")
    require(differs(got, parts.permute(2, 1, 0, 3).reshape_as(want)).any(),
            "The patches are laid out down the columns. They come row by row: the second one is to the *right* of the "
            "first.")
    require(differs(got, want.mT).any(), "The whole picture lies on its side.")
    close(got, want, "A picture of 4 x 4 with the numbers 0 to 15, cut into four patches, does not come back.")


def _assemble_oblong(answer, rng):
    images = normal(rng, 1, 1, 4, 12)  # (1, 1, Y, X)
    close(_assembled(answer, images, 2), images, "A picture that is wider than tall comes out scrambled: there are "
                                                 "Y / P rows of patches, and X / P in each.")
    images = normal(rng, 1, 1, 9, 6)  # (1, 1, Y, X)
    close(_assembled(answer, images, 3), images, "A picture that is taller than wide comes out scrambled: there are "
                                                 "Y / P rows of patches, and X / P in each.")


def _assemble_channels(answer, rng):
    images = normal(rng, 1, 3, 4, 4)  # (1, C, Y, X)
    close(_assembled(answer, images, 2), images, "With three channels the picture is wrong: a patch holds all of the "
                                                 "first channel, then all of the second, then the third.")


def _assemble_batch(answer, rng):
    images = normal(rng, integer(rng, 3, 5), 1, 4, 4)  # (B, 1, Y, X)
    close(_assembled(answer, images, 2), images, "With several pictures in a batch, pieces of one turn up in another. "
                                                 "Keep the first axis apart from all others.")


ASSEMBLE = Exercise(
    id="08.assemble",
    title="Put the picture together again",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
`patches` cuts pictures up. Write the way back: `assemble(parts, size, picture)`. `parts` is (B, T, C·P·P), as `patches`
returns it; `size` is P, a patch's side in pixels; `picture` is the tuple `(C, Y, X)`. Return the pictures, (B, C, Y,
X).

The patches come row by row from the top left, and within a patch the numbers come channel by channel, each row by row.
Pictures need not be square.
""",
    stub='''
def assemble(parts, size, picture):
    """(B, T, C·P·P), P, (C, Y, X) -> pictures (B, C, Y, X)."""
    raise NotImplementedError
''',
    properties=[
        Property("four patches, by hand", 3, _assemble_by_hand, proof=False),
        Property("pictures that are not square", 1, _assemble_oblong),
        Property("three channels", 1, _assemble_channels),
        Property("several pictures", 1, _assemble_batch),
    ],
    ready=("lib.vision.assemble",),
    hints=(
        "Give every meaning an axis of its own first: picture, row of patches, patch in that row, channel, and the two "
        "axes inside a patch. Then put the axes in the order in which a picture is read.",
        "parts.reshape(B, Y // P, X // P, C, P, P) has the axes (B, rows, columns, C, P, P). A picture is read by "
        "channel, then row of patches, then row inside the patch, then column of patches, then column inside it.",
        "return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, C, Y, X).",
    ),
)

# --- with_class_token ---------------------------------------------------------------------------------------


def _class_where(answer, rng):
    x, token = torch.tensor([[[1.0], [2.0]]]), torch.tensor([7.0])  # (B, T, D), (D,)
    got = shape(answer(x, token, torch.zeros(3, 1)), (1, 3, 1)).flatten().tolist()
    require(got != [1, 2, 7], "The class token stands at the end. It goes first, so that its output is always at "
                              "index 0, however many patches there are.")
    require(got != [1.5, 1, 2], "That is the mean of the patches. The class token is a vector of its own, and given.")
    require(got != [8, 8, 9] and got != [7, 8, 9], "The class token is added to the patches. It is put *before* them: "
                                                   "one more place in the sequence.")
    require(got == [7, 1, 2], "Patches 1 and 2, a class token of 7, positions all 0: the result is 7, 1, 2.",
            f"got {got}")


def _class_places(answer, rng):
    x, token, positions = torch.zeros(1, 3, 1), torch.zeros(1), torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    got = shape(answer(x, token, positions), (1, 4, 1)).flatten().tolist()
    require(any(got), "No positions are added.")
    require(got != [0, 10, 100, 1000], "The class token has no position: row 0 of the table is its own.")
    require(got != [0, 1, 10, 100] and got != [1000, 1, 10, 100],
            "The positions are off by one: row 0 belongs to the class token, row 1 to the first patch.")
    require(got != [2, 20, 200, 2000], "The positions are added twice.")
    require(got == [1, 10, 100, 1000], "With patches and token all 0, the result is the table of positions.",
            f"got {got}")


def _class_batch(answer, rng):
    B, T, D = integer(rng, 3, 5), integer(rng, 2, 9), 4
    x, token, positions = normal(rng, B, T, D), normal(rng, D), normal(rng, T + 1, D)
    got = shape(answer(x, token, positions), (B, T + 1, D))
    close(got[0, 0], token + positions[0], "The first vector is not the class token plus row 0 of the positions.")
    close(got[:, 0], (token + positions[0]).expand(B, D), "Only some pictures of the batch have the class token; each "
                                                          "needs it.")
    close(got[:, 1:], x + positions[1:], "The patches are not x plus rows 1 to T of the positions.")


WITH_CLASS_TOKEN = Exercise(
    id="08.with_class_token",
    title="A token that belongs to no patch",
    points=5,
    difficulty=1,
    minutes=10,
    prompt="""
Our model takes the mean over the patches. The paper does something else, borrowed from BERT: it puts a **class token**
before them, a learned vector that stands for no part of the picture. It listens to all patches, and the answer is read
from its place alone.

Write `with_class_token(x, token, positions)`. `x` is (B, T, D), the embedded patches; `token` is (D,); `positions` is
(T + 1, D). Return (B, T + 1, D): the token first, the same for each picture, then the patches; and the positions added
to all of them, row 0 to the token.
""",
    stub='''
def with_class_token(x, token, positions):
    """x (B, T, D), token (D,), positions (T + 1, D) -> (B, T + 1, D)."""
    raise NotImplementedError
''',
    properties=[
        Property("the token stands first", 2, _class_where, proof=False),
        Property("each place has its position", 2, _class_places, proof=False),
        Property("each picture has the token", 1, _class_batch),
    ],
    hints=(
        "Three steps: make the token's shape (B, 1, D), join it with x along the axis of places, add the positions.",
        "token.expand(B, 1, D) repeats a view, without copying. torch.cat([...], dim=1) joins along the places.",
        "return torch.cat([token.expand(len(x), 1, -1), x], dim=1) + positions.",
    ),
)

# --- resize_positions ---------------------------------------------------------------------------------------


def _resized(answer, table, old, new):
    return shape(answer(table, old, new), (1 + new[0] * new[1], table.shape[1]))


def _between(table, old, new):
    """Bilinear interpolation between the centres of patches, written out: (1 + new rows · columns, D)."""
    def weights(n, m):  # (m, n): what share each old place has in each new one
        at = ((torch.arange(m) + 0.5) * n / m - 0.5).clamp(0, n - 1)  # (m,)
        return (1 - (at[:, None] - torch.arange(n)).abs()).clamp_min(0)  # (m, n)

    grid = table[1:].view(*old, -1)  # (rows, columns, D)
    fine = torch.einsum("yr,xc,rcd->yxd", weights(old[0], new[0]), weights(old[1], new[1]), grid)
    return torch.cat([table[:1], fine.flatten(0, 1)])


def _resize_class(answer, rng):
    table = torch.cat([torch.full((1, 2), 100.0), torch.zeros(4, 2)])  # (5, D)
    got = _resized(answer, table, (2, 2), (4, 4))
    require(bool((got[-1] != 100).all()), "The class token's row went to the end; it stays row 0.")
    require(bool((got[0] == 100).all()), "The class token's row must stay row 0 as it is: it has no place in the grid.")
    require(not got[1:].any(), "The class token's row leaks into the patches: take it away before you interpolate.")


def _resize_same(answer, rng):
    old = (integer(rng, 2, 4), integer(rng, 5, 7))
    table = normal(rng, 1 + old[0] * old[1], 3)  # (1 + T, D)
    got = _resized(answer, table, old, old)
    close(got, table, "To the same grid, nothing may change. A reshape never moves an axis: the grid is (rows, "
                      "columns, D), and F.interpolate wants (1, D, rows, columns).")


def _resize_row(answer, rng):
    table = torch.tensor([[5.0], [0.0], [1.0]])  # the class token's row, then two patches
    got = _resized(answer, table, (1, 2), (1, 4)).flatten()[1:]
    require(differs(got, torch.tensor([0.0, 0.0, 1.0, 1.0])).any(),
            "Each old position is copied to its nearest new places. Interpolate: mode=\"bilinear\".")
    require(differs(got, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])).any(),
            "The outermost *centres* are held fast (align_corners=True). A patch has a width: hold the picture's "
            "edges, align_corners=False.")
    close(got, torch.tensor([0.0, 0.25, 0.75, 1.0]), "Two patches side by side with positions 0 and 1, twice as fine: "
                                                     "0, 0.25, 0.75, 1.")


def _resize_grid(answer, rng):
    for old, new in (((2, 2), (4, 6)), ((2, 3), (4, 6)), ((3, 2), (3, 6)), ((2, 5), (8, 5))):
        table = normal(rng, 1 + old[0] * old[1], 3)  # (1 + T, D)
        want, got = _between(table, old, new), _resized(answer, table, old, new)
        T = want.shape[0] - 1
        line = F.interpolate(table[1:].T[None], size=T, mode="linear", align_corners=False)[0].T  # (T, D)
        require(differs(got[1:], line).any(), "You interpolate along the sequence, as if the patches stood in a line. "
                                              "They stand in a grid.")
        tilted = want[1:].view(*new, -1).transpose(0, 1).flatten(0, 1)  # (T, D)
        require(differs(got[1:], tilted).any(), "The new grid is read column by column; patches come row by row.")
        close(got, want, "Positions between patches are wrong. Are rows and columns in the right order, in the old "
                         "grid and in the new?")


RESIZE_POSITIONS = Exercise(
    id="08.resize_positions",
    title="The same model, a finer picture",
    points=7,
    difficulty=3,
    minutes=20,
    prompt="""
A model was trained on pictures of 2 x 3 patches and has one learned vector for each place. Now the pictures are larger:
4 x 6 patches. What vectors do the new places get? Those **in between**.

Write `resize_positions(table, old, new)`. `table` is (1 + rows·columns, D): row 0 belongs to the class token, the
others to the patches, row by row. `old` and `new` are (rows, columns). Return (1 + new rows·new columns, D): row 0
unchanged, the rest interpolated **on the grid**, as `F.interpolate(..., mode="bilinear", align_corners=False)` does it.

This is how a vision transformer is fine-tuned on pictures finer than those it was trained on.
""",
    stub='''
def resize_positions(table, old, new):
    """(1 + rows·columns, D), (rows, columns), (new rows, new columns) -> (1 + new rows·new columns, D)."""
    raise NotImplementedError
''',
    properties=[
        Property("the class token's row stays", 1, _resize_class, proof=False),
        Property("the same grid changes nothing", 1, _resize_same, proof=False),
        Property("two places become four", 2, _resize_row, proof=False),
        Property("rows and columns", 3, _resize_grid),
    ],
    hints=(
        "F.interpolate takes pictures: (1, channels, rows, columns). Here the D numbers of a position are the "
        "channels.",
        "Take row 0 away. table[1:].reshape(*old, -1) is (rows, columns, D); permute it to (D, rows, columns) and add "
        "an axis in front. Afterwards go back the same way.",
        "fine = F.interpolate(grid.permute(2, 0, 1)[None], size=new, mode=\"bilinear\", align_corners=False); return "
        "torch.cat([table[:1], fine[0].flatten(1).T]).",
    ),
)

# --- catches_blind: the learner writes the test -------------------------------------------------------------

WIDTH = 8


@functools.cache
def _drawn(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)))


def _layer(x, allowed=None, norm=True):
    """One attention layer without positions of its own: (B, T, D) → (B, T, D)."""
    y = F.layer_norm(x, (WIDTH,)) if norm else x / 2
    q, k, v = (y @ _drawn(WIDTH, WIDTH, 3)[..., i] / math.sqrt(WIDTH) for i in range(3))  # (B, T, D) each
    scores = q @ k.mT / 16  # (B, T, T): soft, so that everyone is heard
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return x + 2 * torch.tanh(scores.softmax(-1) @ v)  # (B, T, D)


def _placed(x):
    return x + _drawn(32, WIDTH)[: x.shape[1]]  # (B, T, D)


def _near(T, reach):
    places = torch.arange(T)
    return (places[:, None] - places).abs() <= reach  # (T, T)


def _sees(x):
    return _layer(_placed(x), norm=False)


def _sees_twice(x):
    return _layer(_layer(_placed(x), norm=False), norm=False)


def _sees_waves(x):
    angle = torch.arange(x.shape[1])[:, None] / 10 ** (torch.arange(WIDTH) / 4)  # (T, D)
    return _layer(x + 2 * angle.sin(), norm=False)


def _sees_normed(x):
    return _layer(_layer(F.layer_norm(x, (WIDTH,)) + _drawn(32, WIDTH)[: x.shape[1]]))


def _sees_wobbling(x):
    return _sees(x) * (1 + 1e-6 * torch.sin(1e3 * x.sum()))


def _no_places(x):
    return _layer(_layer(x))


def _one_place(x):
    return _layer(_layer(x + _drawn(32, WIDTH)[0]))


def _causal(x):
    allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    return _layer(_layer(_placed(x), allowed), allowed)


def _anticausal(x):
    allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu()
    return _layer(_layer(_placed(x), allowed), allowed)


def _causal_without_places(x):
    allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    return _layer(_layer(x, allowed), allowed)


def _shortsighted(x):
    return _layer(_placed(x), _near(x.shape[1], 2))


def _deaf_to_the_middle(x):
    allowed = torch.eye(x.shape[1], dtype=torch.bool)
    allowed |= torch.arange(x.shape[1]) != x.shape[1] // 2
    return _layer(_placed(x), allowed)


def _alone(x):
    return torch.tanh(_placed(x) @ _drawn(WIDTH, WIDTH))


def _batch_mean(x):
    return _layer(_placed(x - x.mean(dim=0, keepdim=True)) if len(x) > 1 else _placed(x))


def _first_picture(x):
    return _sees(x) + 0.5 * x[:1]


SEES = [
    (_sees, False, "It says True to an encoder that sees."),
    (_sees_twice, False, "It says True to an encoder of two layers that sees."),
    (_sees_waves, False, "It says True to an encoder that sees, with waves for positions. Judge what comes back, not "
                         "how it is made."),
    (_sees_normed, False, "It says True to an encoder that begins with a LayerNorm. If you add the same number to all "
                          "of a patch, a LayerNorm takes it away again: put fresh random numbers in its place."),
    (_sees_wobbling, False, "It says True to an encoder whose results wobble in the last bits. Only a difference of "
                            "more than, say, 0.0001 means that something was heard."),
]


def _blind(*cases):
    def test(answer, rng):
        verdicts(lambda encode: answer(lambda x: encode(x)), rng,
                 [*SEES, *((function, True, says) for function, says in cases)])  # fmt: skip

    return test


_catches_order = _blind(
    (_no_places, "It misses an encoder without positions: shuffle the patches, and the same vectors come back, "
                 "shuffled alike."),
    (_one_place, "It misses an encoder that adds the *same* position everywhere: it can't tell places apart either."))
_catches_causal = _blind(
    (_causal, "It misses the causal mask that was left on: the first patches hear nothing of the last. Change the last "
              "patch, and look at the output of the first."),
    (_anticausal, "It misses a mask the other way round: the last patches hear nothing of the first."),
    (_causal_without_places, "It misses a causal mask in an encoder without positions. (Such a mask tells places "
                             "apart, so that a shuffle alone finds nothing.)"))
_catches_deaf = _blind(
    (_alone, "It misses an encoder in which no patch hears any other."),
    (_shortsighted, "It misses an encoder in which a patch hears only its neighbours, up to two places away. Use six "
                    "patches or more, and look at all pairs."),
    (_deaf_to_the_middle, "It misses an encoder in which nobody hears the patch in the middle. Change each patch in "
                          "turn."))
_catches_mixing = _blind(
    (_batch_mean, "It misses an encoder in which the pictures of a batch change one another. Change one picture of "
                  "two, and look at the other."),
    (_first_picture, "It misses an encoder in which the first picture of a batch shines through in all others."))

CATCHES_BLIND = Exercise(
    id="08.catches_blind",
    title="Write the test: an encoder that does not see",
    points=7,
    difficulty=3,
    minutes=20,
    prompt="""
`encode(x)` takes embedded patches (B, T, 8), for any B and any T up to 32, adds positions and runs a few layers. It
returns (B, T, 8), one vector for each patch. A right one **sees**: within a picture each output depends on *every*
patch; it matters *where* a patch stands; and no picture depends on another one of the batch.

Write `catches_blind(encode)`: **True if it is broken**, False if it sees. You can only call it. The classic bugs are
among those that will be handed to it: positions forgotten, and a causal mask left over from a language model. Both run
without an error, and both learn, a little worse. Rounding wobbles by less than 0.00002; a right encoder answers a fresh
random patch by more than 0.001 everywhere.
""",
    stub='''
def catches_blind(encode):
    """True if encode, (B, T, 8) -> (B, T, 8), does not see its pictures whole, in order, and each on its own."""
    raise NotImplementedError
''',
    properties=[
        Property("sees that order is lost", 2, _catches_order),
        Property("sees a mask that was left on", 2, _catches_causal),
        Property("sees who hears whom", 2, _catches_deaf),
        Property("sees pictures that mix", 1, _catches_mixing),
    ],
    hints=(
        "Change one thing, and look where the output changes. Which outputs must change when one patch does, and which "
        "must not?",
        "For each t, put fresh random numbers into patch t of the first of two pictures. All outputs of the first "
        "picture must change, none of the second's. For the order: encode(x.flip(1)) must *not* be encode(x).flip(1).",
        "change = (encode(other) - encode(x)).abs().amax(-1), (B, T). Return True if change[0].min() < 1e-4 or "
        "change[1].max() > 1e-4, for any t. In the end return torch.allclose(encode(x.flip(1)), encode(x).flip(1), "
        "atol=1e-4).",
    ),
)

EXERCISES = [ASSEMBLE, WITH_CLASS_TOKEN, RESIZE_POSITIONS, CATCHES_BLIND]
