"""Lesson 03, multi-head attention: the exercises."""

import torch

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, differs, dtype, integer, normal, require, shape


def _sizes(rng):
    """B, T, H, Dh, all different, so that no mix-up of axes has the right shape by chance."""
    B, T, H, Dh = (2, 3, 4, 5)
    order = torch.randperm(4, generator=rng).tolist()
    return [(B, T, H, Dh)[i] + 1 for i in order]


# --- split_heads --------------------------------------------------------------------------------------------


def _split_told_apart(got, x, H):
    """Raise Wrong for the classic confusions, given a result of the right shape."""
    B, T, D = x.shape
    require(differs(got, x.reshape(B, H, T, D // H)).any() or T == 1 or H == 1,
            "This is one `reshape` from (B, T, D) to (B, H, T, Dh): the right shape with the wrong numbers. It cuts "
            "along the tokens, so a head sees pieces of few tokens, not a slice of each.")
    require(differs(got, x.unflatten(-1, (D // H, H)).permute(0, 3, 1, 2)).any() or H in (1, D),
            "The width is dealt out like cards: head 0 got every H-th number. A head takes D/H numbers that lie "
            "side by side.")
    require(differs(got.flip(1), x.unflatten(-1, (H, D // H)).transpose(1, 2)).any() or H == 1,
            "The heads are in reverse order: head 0 takes the *first* D/H numbers.")


def _split_shape(answer, rng):
    B, T, H, Dh = _sizes(rng)
    shape(answer(normal(rng, B, T, H * Dh), H), (B, H, T, Dh))


def _split_by_hand(answer, rng):
    x = torch.tensor([[[10.0, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]])  # (1, 3, 4)
    want = torch.tensor([[[[10.0, 11], [20, 21], [30, 31]], [[12, 13], [22, 23], [32, 33]]]])  # (1, 2, 3, 2)
    got = shape(answer(x, 2), (1, 2, 3, 2))
    _split_told_apart(got, x, 2)
    close(got, want, "For the three tokens of the text, head 0 should hold 10, 11, then 20, 21, then 30, 31.")


def _split_slices(answer, rng):
    B, T, H, Dh = _sizes(rng)
    x = normal(rng, B, T, H * Dh)
    got = shape(answer(x, H), (B, H, T, Dh))
    _split_told_apart(got, x, H)
    for h in range(H):
        close(got[:, h], x[:, :, h * Dh:(h + 1) * Dh],
              "Head h must hold, for each token, the numbers from h * Dh up to (h + 1) * Dh. It holds others.")


def _split_edges(answer, rng):
    B, T, D = 2, integer(rng, 3, 6), 6
    x = normal(rng, B, T, D)
    close(answer(x, 1), x[:, None],
          "With one head nothing is cut: the result is x with an axis of size 1 for the head.")
    close(answer(x, D), x.transpose(1, 2)[..., None],
          "With as many heads as numbers, each head gets one number of each token.")
    one = normal(rng, 1, 1, D)
    close(answer(one, 2), one.view(1, 2, 1, 3),
          "One text of one token is split wrongly. Keep every axis, even of size 1.")


SPLIT_HEADS = Exercise(
    id="03.split_heads",
    title="Cut the width into heads",
    points=5,
    difficulty=1,
    minutes=8,
    prompt="""
Write `split_heads(x, n_heads)`: it takes `x` of shape (B, T, D) and returns (B, H, T, D/H), with H = `n_heads`.
Head h holds, of **each** token, the numbers from h · D/H up to (h + 1) · D/H. D is a multiple of H.
""",
    stub='''
def split_heads(x, n_heads):
    """(B, T, D) -> (B, H, T, D/H)."""
    raise NotImplementedError
''',
    properties=[
        Property("the shape", 1, _split_shape, proof=False),
        Property("three tokens, by hand", 1, _split_by_hand, proof=False),
        Property("each head holds its slice of each token", 2, _split_slices),
        Property("one head, one token, heads of width 1", 1, _split_edges),
    ],
    ready=("lib.attention.split_heads",),
    hints=(
        "Two steps. First cut the last axis in two, (H, D/H). Then bring the head's axis to its place.",
        "x.view(B, T, n_heads, D // n_heads) has the cut; its axes are (B, T, H, Dh). Which two must change places?",
        "B, T, D = x.shape, and then return x.view(B, T, n_heads, D // n_heads).transpose(1, 2).",
    ),
)

# --- merge_heads --------------------------------------------------------------------------------------------


def _merge_told_apart(got, x):
    B, H, T, Dh = x.shape
    require(differs(got, x.reshape(B, T, H * Dh)).any() or T == 1 or H == 1,
            "This is one `reshape`: it reads on within a head, so a row mixes several tokens. Bring the head's axis "
            "next to the width first.")
    require(differs(got, x.permute(0, 2, 3, 1).flatten(-2)).any() or H == 1 or Dh == 1,
            "The heads are interleaved: first number of each head, then the second. Each head's numbers stay side "
            "by side.")


def _merge_shape(answer, rng):
    B, T, H, Dh = _sizes(rng)
    shape(answer(normal(rng, B, H, T, Dh)), (B, T, H * Dh))


def _merge_by_hand(answer, rng):
    x = torch.tensor([[[[10.0, 11], [20, 21], [30, 31]], [[12, 13], [22, 23], [32, 33]]]])  # (1, 2, 3, 2)
    want = torch.tensor([[[10.0, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]])  # (1, 3, 4)
    got = shape(answer(x), (1, 3, 4))
    _merge_told_apart(got, x)
    close(got, want, "For the heads of the text, the first token should be 10, 11, 12, 13 again.")


def _merge_undoes(answer, rng):
    B, T, H, Dh = _sizes(rng)
    x = normal(rng, B, T, H * Dh)
    split = torch.stack(x.split(Dh, dim=-1), dim=1)  # (B, H, T, Dh)
    got = shape(answer(split), (B, T, H * Dh))
    _merge_told_apart(got, split)
    close(got, x, "Splitting and then merging must give back what there was. It does not: are heads or tokens in "
                  "another order?")


def _merge_layout(answer, rng):
    B, T, H, Dh = _sizes(rng)
    x = normal(rng, B, T, H, Dh).transpose(1, 2)  # (B, H, T, Dh), a view that is not contiguous
    want = torch.cat(x.unbind(1), dim=-1)  # (B, T, H · Dh)
    close(answer(x), want, "It depends on how the numbers lie in memory: a transposed view gives another result.")


MERGE_HEADS = Exercise(
    id="03.merge_heads",
    title="Put the heads side by side again",
    points=5,
    difficulty=1,
    minutes=5,
    prompt="""
Write `merge_heads(x)`, the way back: (B, H, T, Dh) to (B, T, H · Dh). Each token gets head 0's numbers, then head
1's, and so on. It must undo `split_heads`, and take any tensor of that shape, however it lies in memory.
""",
    stub='''
def merge_heads(x):
    """(B, H, T, Dh) -> (B, T, H * Dh)."""
    raise NotImplementedError
''',
    properties=[
        Property("the shape", 1, _merge_shape, proof=False),
        Property("two heads, by hand", 1, _merge_by_hand, proof=False),
        Property("it undoes the split", 2, _merge_undoes),
        Property("a view that is not contiguous", 1, _merge_layout),
    ],
    ready=("lib.attention.merge_heads",),
    hints=(
        "The same two steps as in split_heads, in reverse order.",
        "First swap axes 1 and 2, so that the shape is (B, T, H, Dh). Then join the last two axes.",
        "return x.transpose(1, 2).flatten(-2). (`.view` would complain after a transpose: the numbers no longer lie "
        "in that order; `.reshape` and `.flatten` copy where needed.)",
    ),
)

# --- repeat_kv ----------------------------------------------------------------------------------------------


def _repeat_shape(answer, rng):
    B, S, K, Dh = _sizes(rng)
    groups = 7
    shape(answer(normal(rng, B, K, S, Dh), groups), (B, K * groups, S, Dh))


def _repeat_by_hand(answer, rng):
    x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)  # (B, K = 2, S, Dh): key/value heads "1" and "2"
    got = shape(answer(x, 3), (1, 6, 1, 1))
    require(got.flatten().tolist() != [1, 2, 1, 2, 1, 2],
            "The whole set is repeated: 1 2 1 2 1 2. Query heads of one group are neighbours, so each key/value head "
            "must stand several times *in a row*: 1 1 1 2 2 2.")
    require(got.flatten().tolist() != [1, 1, 2, 2, 2, 2] and got.flatten().tolist() != [1, 2, 2, 2, 2, 2],
            "The groups are of unequal size: each key/value head must come `groups` times.")
    close(got.flatten(), torch.tensor([1.0, 1, 1, 2, 2, 2]),
          "Key/value heads 1 and 2 in groups of three give 1 1 1 2 2 2.")


def _repeat_each(answer, rng):
    B, S, K, Dh = _sizes(rng)
    groups = integer(rng, 2, 4)
    x = normal(rng, B, K, S, Dh)
    got = shape(answer(x, groups), (B, K * groups, S, Dh))
    for h in range(K * groups):
        close(got[:, h], x[:, h // groups],
              "Query head h listens to key/value head h // groups, all of its positions and its whole width unchanged. "
              "Some head got something else.")


def _repeat_one(answer, rng):
    B, S, K, Dh = _sizes(rng)
    x = normal(rng, B, K, S, Dh)
    close(answer(x, 1), x, "With groups of one nothing is repeated: plain multi-head attention.")
    x = normal(rng, B, 1, S, Dh)
    close(answer(x, K), x.expand(B, K, S, Dh), "One key/value head for all (multi-query) is not repeated rightly.")


REPEAT_KV = Exercise(
    id="03.repeat_kv",
    title="One key/value head, several listeners",
    points=5,
    difficulty=2,
    minutes=8,
    prompt="""
Write `repeat_kv(x, groups)`: keys or values `x` of shape (B, K, S, Dh) become (B, K · groups, S, Dh), so that every
query head finds its own. Query heads of one group are neighbours: query head h listens to key/value head
h // `groups`.
""",
    stub='''
def repeat_kv(x, groups):
    """(B, K, S, Dh) -> (B, K * groups, S, Dh): query head h gets key/value head h // groups."""
    raise NotImplementedError
''',
    properties=[
        Property("the shape", 1, _repeat_shape, proof=False),
        Property("two heads in groups of three, by hand", 1, _repeat_by_hand, proof=False),
        Property("each query head gets its own", 2, _repeat_each),
        Property("groups of one, and one group", 1, _repeat_one),
    ],
    ready=("lib.attention.grouped_attention", "lib.lesson.handmade.fill.repeat_kv"),
    hints=(
        "Which axis is the heads'? Each of its entries should stand `groups` times in a row.",
        "PyTorch has two ways to repeat: `repeat` tiles the whole (1 2 1 2), `repeat_interleave` repeats each entry "
        "(1 1 2 2).",
        "return x.repeat_interleave(groups, dim=1).",
    ),
)

# --- induction_score ----------------------------------------------------------------------------------------


def _targets(tokens, pick=lambda places: places[-1], step=1):
    """(query, target) pairs: for each token seen before, the position after an earlier copy."""
    tokens = tokens.tolist()
    pairs = []
    for t in range(len(tokens)):
        before = [s for s in range(t) if tokens[s] == tokens[t]]
        if before:
            pairs.append((t, pick(before) + step))
    return pairs


def _mean(weights, pairs, n=None):
    return torch.stack([weights[:, t, s] for t, s in pairs]).sum(0) / (n or len(pairs))  # (H,)


def _rows(rng, H, T):
    """Random attention weights, (H, T, T); not causal, so that rows and columns differ everywhere."""
    return normal(rng, H, T, T).softmax(-1)


def _score(answer, weights, tokens):
    return dtype(shape(answer(weights, tokens), (weights.size(0),), "the scores"), torch.float32, "the scores")


def _confused(got, weights, tokens):
    """Raise Wrong for the classic confusions."""
    right = _mean(weights, _targets(tokens))
    for other, says in (
        (_mean(weights, _targets(tokens, step=0)),
         "That is the weight on the earlier copy itself. Induction looks at the token *after* the copy: that is what "
         "should come next."),
        (_mean(weights.transpose(1, 2), _targets(tokens)),
         "Rows and columns are mixed up: weights[h, t, s] is how much the query t looks at the key s."),
        (_mean(weights, _targets(tokens, pick=lambda places: places[0])),
         "With several earlier copies, take the *latest* one, not the first."),
        (_mean(weights, _targets(tokens), len(tokens)),
         "The sum is divided by all T positions. Divide by the number of positions that have an earlier copy."),
        (_mean(weights, _targets(tokens), 1),
         "That is a sum; a score is a mean, between 0 and 1."),
        (right.mean().expand(len(right)), "All heads got the same score: average over positions only, not over heads."),
    ):
        require(differs(got, other).any() or not differs(right, other).any(), says)


def _induction_by_hand(answer, rng):
    tokens = torch.tensor([5, 8, 2, 5, 8])  # positions 3 and 4 repeat 0 and 1: they should look at 1 and 2
    weights = _rows(rng, 2, 5)
    weights[0, 3], weights[0, 4] = torch.eye(5)[1], torch.eye(5)[2]  # a perfect induction head
    weights[1, 3], weights[1, 4] = torch.eye(5)[0], torch.eye(5)[4]  # looks elsewhere
    got = _score(answer, weights, tokens)
    _confused(got, weights, tokens)
    close(got, torch.tensor([1.0, 0.0]),
          "On the tokens 5 8 2 5 8, a head that looks from the second 5 at the first 8, and from the second 8 "
          "at the 2, scores 1; one that looks elsewhere scores 0.")


def _induction_random(answer, rng):
    for _ in range(3):
        H, R = integer(rng, 3, 5), integer(rng, 5, 9)
        half = torch.randperm(50, generator=rng)[:R]  # (R,)
        tokens = torch.cat((half, half))  # (2R,)
        weights = _rows(rng, H, 2 * R)
        got = _score(answer, weights, tokens)
        _confused(got, weights, tokens)
        close(got, _mean(weights, _targets(tokens)), "On random tokens said twice, the mean weight differs.")


def _induction_several(answer, rng):
    for _ in range(3):
        H, T = integer(rng, 2, 4), integer(rng, 15, 20)
        tokens = torch.randint(4, (T,), generator=rng)  # (T,): many copies of each
        weights = _rows(rng, H, T)
        got = _score(answer, weights, tokens)
        _confused(got, weights, tokens)
        close(got, _mean(weights, _targets(tokens)),
              "With tokens that come many times, at any distance, the mean weight differs. For each t, find the latest "
              "s < t with the same token; its target is s + 1.")


def _induction_none(answer, rng):
    got = _score(answer, _rows(rng, 3, 6), torch.randperm(30, generator=rng)[:6])
    close(got, torch.zeros(3), "In a text in which no token comes twice, each head's score is 0.")


INDUCTION_SCORE = Exercise(
    id="03.induction_score",
    title="Score a head on any text",
    points=6,
    difficulty=3,
    minutes=15,
    prompt="""
`stripe` needs a text that repeats exactly. Write `induction_score(weights, tokens)` for **any** text: `weights` is
(H, T, T), with weights[h, t, s] how much query t looks at key s; `tokens` is (T,), whole numbers. It returns (H,).

For each position t whose token stood before, find the **latest** earlier position s with the same token. The
target is s + 1, what came after it. A head's score is its mean weight on the target, over all such t. If no token
comes twice, the score is 0 for every head.
""",
    stub='''
def induction_score(weights, tokens):
    """(H, T, T) attention weights, (T,) token ids -> (H,) mean weight on the token after the latest copy."""
    raise NotImplementedError
''',
    properties=[
        Property("five tokens, by hand", 1, _induction_by_hand, proof=False),
        Property("random tokens, said twice", 2, _induction_random),
        Property("tokens that come many times", 2, _induction_several),
        Property("nothing repeats", 1, _induction_none, proof=False),
    ],
    hints=(
        "Two plain loops will do: over t, and over s from t - 1 downwards until the tokens agree.",
        "Collect weights[:, t, s + 1], of shape (H,), in a list. One more line stops the inner loop at the latest s.",
        "found = []; for t in range(len(tokens)): for s in range(t - 1, -1, -1): if tokens[s] == tokens[t]: append and "
        "break. Return torch.stack(found).mean(0), or zeros of shape (H,) if the list is empty.",
    ),
)

# --- multi_head ---------------------------------------------------------------------------------------------


def _layer_sizes(rng, G):
    """B, T, D, K, Dh, all different, and none of H Dh, K Dh equal to D: no mix-up has the right shape by chance."""
    B, T, K, Dh = (int(n) for n in torch.tensor([2, 3, 5, 4])[torch.randperm(4, generator=rng)])
    return B, T, K * G * Dh + 1, K, Dh


def _layer_weights(rng, D, H, K, Dh):
    """The four matrices of a layer, each (out, in)."""
    sizes = {"q": (H * Dh, D), "k": (K * Dh, D), "v": (K * Dh, D), "out": (D, H * Dh)}
    return {name: normal(rng, *size) / size[1] ** 0.5 for name, size in sizes.items()}


def _as_it_is(x):
    return x


def _cut(x, heads):
    """(B, T, heads · Dh) -> (B, heads, T, Dh)."""
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


def _beside(x):
    """(B, H, T, Dh) -> (B, T, H · Dh)."""
    return torch.cat(x.unbind(1), dim=-1)


def _handed(what, want, *given):
    """Raise Wrong unless a function of ours was handed heads of the right shape."""
    for x in given:
        size = tuple(x.shape)
        require(size == want, f"`{what}` takes heads, of shape (B, heads, T, Dh); it was handed something else.",
                f"handed {size}, expected {want}")


def _layer(answer, rng, attend, turn=_as_it_is, G=1):
    """The answer's result, its shape checked; x, w; and q, k, v by hand, in heads and before any turn."""
    B, T, D, K, Dh = _layer_sizes(rng, G)
    H = K * G
    x, w = normal(rng, B, T, D), _layer_weights(rng, D, H, K, Dh)

    def look_up(q, k, v):
        _handed("attend", (B, H, T, Dh), q, k, v)
        return attend(q, k, v)

    def place(x):
        require(x.dim() == 4 and x.shape[-2:] == (T, Dh),
                "`turn` takes heads, of shape (B, heads, T, Dh): cut into heads first, then turn.",
                f"handed {tuple(x.shape)}")
        return turn(x)

    got = answer(x, w, H, K, look_up, place)
    require(tuple(getattr(got, "shape", ())) != (B, T, H * Dh),
            'What the heads brought never passes `w["out"]`: the last matrix mixes it.')
    shape(got, (B, T, D), "the layer's output")
    q, k, v = (_cut(x @ w[name].T, heads) for name, heads in (("q", H), ("k", K), ("v", K)))
    return got, x, w, q, k, v


def _wide(x, G):
    return x.repeat_interleave(G, dim=1)


def _out(heads, w):
    return _beside(heads) @ w["out"].T


def _layer_shape(answer, rng):
    for G in (1, 2):
        _layer(answer, rng, lambda q, k, v: q, G=G)


def _layer_heads(answer, rng):
    for i, name in enumerate("qkv"):
        got, x, w, *parts = _layer(answer, rng, lambda *given, i=i: given[i])
        B, H, T, Dh = parts[0].shape
        flat = x @ w[name].T  # (B, T, H · Dh)
        want = _out(parts[i], w)  # (B, T, D)
        require(differs(got, x + want).any(), "The stream x is added to the result. The plus is the Block's; a layer "
                                              "returns what it wrote and nothing else.")
        require(differs(got, _out(flat.reshape(B, H, T, Dh), w)).any(),
                "The cut into heads is one `reshape`: the right shape with the wrong numbers. Cut the width, then move "
                "the heads' axis.")
        require(differs(got, parts[i].reshape(B, T, -1) @ w["out"].T).any(),
                "The heads are not put side by side: move the heads' axis back next to the width, then join the two.")
        other = {"q": "k", "k": "v", "v": "k"}[name]
        require(differs(got, _out(_cut(x @ w[other].T, H), w)).any(),
                f'Where `attend` should find `{name}`, it was handed what `w["{other}"]` makes.')
        close(got, want, f"With an `attend` that hands on its `{name}`, the layer must return that, head beside head, "
                         'times `w["out"]` transposed. It does not.', atol=1e-4)


def _layer_turns(answer, rng):
    def turn(x):
        return 2 * x + torch.arange(x.size(-2))[:, None]  # each position its own

    for i, name in enumerate("qkv"):
        got, _x, w, *parts = _layer(answer, rng, lambda *given, i=i: given[i], turn)
        plain, turned = _out(parts[i], w), _out(turn(parts[i]), w)
        if name == "v":
            require(differs(got, turned).any(), "The values are turned as well. Where a token stands decides who "
                                                "listens to whom, not what is said: turn queries and keys only.")
        else:
            what = {"q": "queries", "k": "keys"}[name]
            require(differs(got, plain).any(), f"The {what} are not turned: without `turn` nobody knows where a token "
                                               "stands.")
            require(differs(got, _out(turn(turn(parts[i])), w)).any(), f"The {what} are turned twice.")
        close(got, plain if name == "v" else turned,
              f"With an `attend` that hands on its `{name}`, the result differs.", atol=1e-4)


def _layer_groups(answer, rng):
    G = integer(rng, 2, 3)
    for i, name in enumerate("qkv"):
        got, _x, w, *parts = _layer(answer, rng, lambda *given, i=i: given[i], G=G)
        if name != "q":
            tiled = parts[i].repeat(1, G, 1, 1)
            require(differs(got, _out(tiled, w)).any(),
                    "Query heads of one group are neighbours: each key/value head must stand several times *in a row*. "
                    "Yours repeats the whole set.")
            parts[i] = _wide(parts[i], G)
        close(got, _out(parts[i], w), "With fewer key/value heads than query heads the result differs: query head h "
                                      "listens to key/value head h // (n_head // n_kv_head).", atol=1e-4)


def _layer_agrees(answer, rng):
    def attend(q, k, v):
        T = q.size(-2)
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5  # (B, H, T, T)
        return scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), float("-inf")).softmax(-1) @ v

    def turn(x):
        return x.roll(1, -1) * torch.linspace(-1, 1, x.size(-2))[:, None]

    for G in (1, integer(rng, 2, 3)):
        got, _x, w, q, k, v = _layer(answer, rng, attend, turn, G)
        close(got, _out(attend(turn(q), _wide(turn(k), G), _wide(v, G)), w),
              "With real attention between the tokens the result differs from the layer written out.", atol=1e-4)


MULTI_HEAD = Exercise(
    id="03.multi_head",
    title="The whole layer",
    points=9,
    difficulty=3,
    minutes=25,
    prompt="""
Write `multi_head(x, w, n_head, n_kv_head, attend, turn)`, an attention layer on bare tensors. `x` is (B, T, D). `w` is
a dictionary of four matrices, kept as PyTorch keeps them, (out, in), so `x @ w["q"].T` makes the queries:

- `w["q"]` is (H · Dh, D), `w["k"]` and `w["v"]` are (K · Dh, D), with H = `n_head` and K = `n_kv_head`;
- `w["out"]` is (D, H · Dh), the matrix $W^O$ that mixes what the heads brought.

Cut queries, keys and values into heads. Let `turn(heads)`, (B, heads, T, Dh) to the same shape, write the positions
into queries and keys, not into values. Give each query head its own keys and values, H of each. `attend(q, k, v)`
does the look-up for all heads at once, (B, H, T, Dh) three times to (B, H, T, Dh). Return (B, T, D). You
may call your `split_heads`, `merge_heads` and `repeat_kv` from above.
""",
    stub='''
def multi_head(x, w, n_head, n_kv_head, attend, turn):
    """(B, T, D) -> (B, T, D): project, cut into heads, turn, attend, put side by side, mix."""
    raise NotImplementedError
''',
    properties=[
        Property("heads of the right shape, and back", 1, _layer_shape, proof=False),
        Property("each head its slice, then mixed", 2, _layer_heads),
        Property("queries and keys are turned, values are not", 2, _layer_turns),
        Property("groups share keys and values", 2, _layer_groups),
        Property("with real attention", 2, _layer_agrees),
    ],
    ready=("lib.attention.MultiHeadAttention", "lib.lesson.handmade.fill.multi_head"),
    forbidden=("MultiheadAttention", "multi_head_attention_forward"),
    hints=(
        "Seven lines: three projections cut into heads, two turns, a repeat for keys and values, the look-up, and the "
        "way back.",
        "q = split_heads(x @ w[\"q\"].T, n_head), and so for k and v with n_kv_head. Then q, k = turn(q), turn(k). How "
        "many query heads listen to one key/value head?",
        "k, v = repeat_kv(k, n_head // n_kv_head), repeat_kv(v, n_head // n_kv_head); heard = attend(q, k, v); and "
        "return merge_heads(heard) @ w[\"out\"].T.",
    ),
)

EXERCISES = [SPLIT_HEADS, MERGE_HEADS, REPEAT_KV, MULTI_HEAD, INDUCTION_SCORE]
