"""Lesson 07, generation: the exercises."""

import math

import torch
import torch.nn.functional as F

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import call_method, close, differs, dtype, finite, integer, normal, require, shape, truth
from lib.exercises.verdict import Wrong

# --- nucleus ------------------------------------------------------------------------------------------------


def _nucleus_by_hand(answer, rng):
    got = shape(answer(torch.tensor([0.15, 0.5, 0.05, 0.3]), 0.6), (4,))
    finite(got)
    require(differs(got, torch.tensor([0.0, 0.5, 0.0, 0.3])).any(),
            "What is kept does not add up to 1. Divide it by its sum.")
    require(differs(got, torch.tensor([0.0, 1.0, 0.0, 0.0])).any(),
            "The token that takes the sum past p is missing: the kept tokens must *reach* p together.")
    require(differs(got, torch.tensor([0.15, 0.5, 0.0, 0.3]) / 0.95).any(),
            "One token too many: stop as soon as the kept tokens reach p.")
    require(differs(got, torch.tensor([0.625, 0.375, 0.0, 0.0])).any(),
            "The result is sorted. Each chance must stay at its own token.")
    require(differs(got, torch.tensor([0.15, 0.5, 0.05, 0.3])).any(),
            "Nothing is cut. Do you sort, and add up, from the likeliest down?")
    close(got, torch.tensor([0.0, 0.625, 0.0, 0.375]),
          "Chances of 0.15, 0.5, 0.05, 0.3 and p = 0.6: the second and the fourth reach 0.8 together, and become 0.625 "
          "and 0.375. Yours differ.")


def _nucleus_one(answer, rng):
    probabilities = (3 * normal(rng, integer(rng, 5, 30))).softmax(0)  # (V,)
    got = finite(shape(answer(probabilities, 1e-6), probabilities.shape))
    want = F.one_hot(probabilities.argmax(), len(probabilities)).float()  # (V,)
    close(got, want, "With a tiny p exactly the likeliest token must stay, with a chance of 1.")
    close(answer(probabilities, 1.0), probabilities, "With p = 1 nothing may be cut.", atol=1e-4)


def _nucleus_fewest(answer, rng):
    for _ in range(5):
        probabilities = (2 * normal(rng, integer(rng, 20, 60))).softmax(0)  # (V,)
        ranked = probabilities.sort(descending=True).values
        n = integer(rng, 2, 12)
        p = (ranked[:n].sum() - ranked[n - 1] / 2).item()  # n tokens reach it, n - 1 do not
        got = finite(shape(answer(probabilities, p), probabilities.shape))
        kept = got > 0
        require(bool((got >= 0).all()), "A chance below 0.")
        require(probabilities[kept].sum() >= p, "The kept tokens do not reach p together.")
        require(int(kept.sum()) <= n, "Fewer tokens would reach p: keep no more than needed.")
        close(got[kept] * probabilities[kept].sum(), probabilities[kept],
              "Among the kept tokens the proportions have changed; only divide by their sum.")
        close(got.sum(), 1.0, "The chances must add up to 1.", atol=1e-4)


NUCLEUS = Exercise(
    id="07.nucleus",
    title="The likely ones, and no more",
    points=5,
    difficulty=2,
    minutes=10,
    prompt="""
Write `nucleus(probabilities, p)`. `probabilities` is (V,), one chance for each token, adding up to 1. Keep the
**fewest** likeliest tokens that together reach at least `p`; give all others a chance of exactly 0; divide what is
left by its sum. The result is (V,), each chance still at its own token. For chances 0.15, 0.5, 0.05, 0.3 and
`p = 0.6` it is 0, 0.625, 0, 0.375. At least one token always stays.
""",
    stub='''
def nucleus(probabilities, p):
    """(V,) chances -> (V,): the fewest likeliest that reach p, divided by their sum; 0 elsewhere."""
    raise NotImplementedError
''',
    properties=[
        Property("four tokens, by hand", 2, _nucleus_by_hand, proof=False),
        Property("never none, and all for p = 1", 1, _nucleus_one),
        Property("the fewest that reach p, in proportion", 2, _nucleus_fewest),
    ],
    ready=("lib.generation.cut_tail",),
    hints=(
        "Sort from the likeliest down and add up as you go. A token stays if those *before* it have not reached p yet.",
        "ranked, order = probabilities.sort(descending=True); before = ranked.cumsum(0) - ranked; keep = before < p.",
        "kept = torch.zeros_like(probabilities); kept[order[keep]] = ranked[keep]; return kept / kept.sum().",
    ),
)

# --- sample -------------------------------------------------------------------------------------------------

SHARES = torch.tensor([0.36, 0.24, 0.16, 0.12, 0.08, 0.04])
DRAWS = 4000
FAR = 0.045  # five standard deviations of a share of so many draws


def _draws(answer):
    """A generator cannot travel: it is made where the answer runs, from a seed, and whether it was used comes back."""

    def run(logits, temperature, top_k, top_p, seed):
        generator = torch.Generator().manual_seed(seed)
        before, world = generator.get_state(), torch.get_rng_state()
        drawn = answer(logits, temperature, top_k, top_p, generator)
        if drawn is None:
            return None
        used = not torch.equal(generator.get_state(), before)
        return drawn, used, not torch.equal(torch.get_rng_state(), world)

    return run


def _sampled(answer, logits, temperature, top_k, top_p, seed):
    drawn, _, _ = answer(logits, temperature, top_k, top_p, seed)
    shape(drawn, (len(logits),), "what was drawn")
    dtype(drawn, torch.long, "what was drawn")
    require(bool(((drawn >= 0) & (drawn < logits.size(1))).all()), "A number was drawn that is no token's.")
    return drawn


def _rows(rng, shares=SHARES, temperature=1.0):
    """DRAWS equal rows of logits, and the shares, both in an order of chance: the softmax at that temperature."""
    order = torch.randperm(len(shares), generator=rng)
    logits = temperature * shares[order].log() - 1 - normal(rng, 1).abs()  # (V,): a constant changes nothing
    return logits.repeat(DRAWS, 1), shares[order]


def _shares(drawn):
    return drawn.bincount(minlength=len(SHARES)).float() / len(drawn)  # (V,)


def _off(got, want):
    return (got - want).abs().max().item() > FAR


def _sample_likeliest(answer, rng):
    logits = 2 * normal(rng, 40, 12)
    best = logits.argmax(-1)  # (B,)
    for what, given in (("top_k = 1", (1.0, 1, None)), ("a tiny top_p", (1.0, None, 1e-6)),
                        ("a temperature of 0.0001", (1e-4, None, None))):  # fmt: skip
        drawn = _sampled(answer, logits, *given, integer(rng, 0, 999))
        require(not torch.equal(drawn, logits.argmin(-1)), "It takes the unlikeliest.")
        close(drawn, best, f"With {what} each row must get its own likeliest token.")


def _sample_temperature(answer, rng):
    for heat in (1.0, 2.5):
        logits, shares = _rows(rng, temperature=heat)
        drawn = _sampled(answer, logits, heat, None, None, integer(rng, 0, 999))
        got, best = _shares(drawn), F.one_hot(shares.argmax(), 6).float()
        require(_off(got, best), "The likeliest token comes each time: nothing is drawn.")
        require(drawn.unique().numel() > 1, "All rows get the same token: draw for each row by itself.")
        require(_off(got, torch.full((6,), 1 / 6)), "All tokens come about equally often, likely or not.")
        if heat != 1:
            require(_off(got, (logits[0] * heat).softmax(0)), "The logits are multiplied by the temperature; divide "
                                                              "them by it.")
            require(_off(got, logits[0].softmax(0)), "The temperature changes nothing.")
        require(not _off(got, shares), "Over many draws the tokens do not come as often as their chances say: the "
                                       "softmax of the logits, divided by the temperature.")  # fmt: skip


def _kept(shares, k=None, p=None):
    """The shares after the cut, by hand."""
    ranked, order = shares.sort(descending=True)
    keep = torch.ones(len(shares), dtype=torch.bool)
    if k is not None:
        keep &= torch.arange(len(shares)) < k
    if p is not None:
        ranked = ranked * keep / (ranked * keep).sum()
        keep &= ranked.cumsum(0) - ranked < p
    cut = torch.zeros_like(shares)
    cut[order[keep]] = shares[order[keep]]
    return cut / cut.sum()


def _sample_top_k(answer, rng):
    logits, shares = _rows(rng)
    drawn = _sampled(answer, logits, 1.0, 3, None, integer(rng, 0, 999))
    got, want = _shares(drawn), _kept(shares, k=3)
    require(_off(got, shares), "top_k cuts nothing.")
    require(_off(got, _kept(shares, k=2)), "top_k keeps one token too few.")
    require(_off(got, _kept(shares, k=4)), "top_k keeps one token too many.")
    require(not bool(((got > 0) & (want == 0)).any()), "With top_k = 3 a token was drawn that is not among the three "
                                                       "likeliest.")
    require(not _off(got, want), "With top_k = 3 the three likeliest must come in their own proportions.")
    mixed = 3 * normal(rng, 50, 9)
    drawn = _sampled(answer, mixed, 1.0, 2, None, integer(rng, 0, 999))
    require(bool((mixed.topk(2).indices == drawn[:, None]).any(1).all()),
            "top_k is taken over the whole batch: each row has its own likeliest tokens.")


def _sample_top_p(answer, rng):
    for heat in (1.0, 2.5):
        logits, shares = _rows(rng, temperature=heat)
        drawn = _sampled(answer, logits, heat, None, 0.7, integer(rng, 0, 999))
        got, want = _shares(drawn), _kept(shares, p=0.7)  # 0.36 + 0.24 + 0.16
        require(_off(got, shares), "top_p cuts nothing.")
        if heat != 1:  # where two tokens would have reached it
            require(_off(got, _kept(shares, k=2)), "top_p looks at the chances before the temperature; it must look at "
                                                   "those that are drawn from.")
        require(_off(got, _kept(shares, k=2)), "The token that takes the sum past top_p is missing: those kept must "
                                               "*reach* it together.")
        require(_off(got, _kept(shares, k=4)), "top_p keeps one token too many: stop as soon as it is reached.")
        require(not bool(((got > 0) & (want == 0)).any()), "With top_p = 0.7 a token was drawn that should be cut.")
        require(not _off(got, want), "With top_p = 0.7 the tokens that are kept must come in their own proportions.")
    mixed = 3 * normal(rng, 60, 9)
    drawn = _sampled(answer, mixed, 1.0, None, 0.5, integer(rng, 0, 999))
    kept = torch.stack([_kept(row.softmax(0), p=0.5) for row in mixed])  # (B, V)
    require(bool((kept.gather(1, drawn[:, None]) > 0).all()), "With rows that differ, top_p is wrong: is each chance "
                                                              "put back at its own token, in its own row?")


def _sample_both(answer, rng):
    logits, shares = _rows(rng)
    got = _shares(_sampled(answer, logits, 1.0, 4, 0.65, integer(rng, 0, 999)))
    want = _kept(shares, k=4, p=0.65)  # of 0.88, 0.41 + 0.27 reach it; of 1, it would take a third
    require(_off(got, _kept(shares, p=0.65)), "With both, top_p must look at what top_k has left, with its chances "
                                              "adding up to 1 again.")
    require(not _off(got, want), "With top_k and top_p the shares are wrong.")


def _sample_generator(answer, rng):
    logits, _ = _rows(rng)
    seed = integer(rng, 0, 999)
    first, used, world = answer(logits, 1.0, 5, 0.95, seed)
    require(used and not world, "The draw does not come from `generator` alone, so a seed would not give the same text "
                                "again.")
    require(first.unique().numel() > 1, "All rows get the same token: draw for each row by itself.")
    require(torch.equal(first, answer(logits, 1.0, 5, 0.95, seed)[0]), "Equal generators give different tokens.")
    require(not torch.equal(first, answer(logits, 1.0, 5, 0.95, seed + 1)[0]), "Another seed gives the same tokens.")


SAMPLE = Exercise(
    id="07.sample",
    title="Draw a token",
    points=9,
    difficulty=2,
    minutes=20,
    prompt="""
Write `sample(logits, temperature, top_k, top_p, generator)`, the piece of code that makes a model write. `logits` is
(B, V); return (B,), one token for each row, as whole numbers. In this order:

- divide the logits by `temperature`, a number above 0;
- if `top_k` is not `None`, keep each row's `top_k` likeliest tokens;
- if `top_p` is not `None`, keep of those the fewest likeliest that together reach it, their chances adding up to 1;
- draw from what is left, each token with its chance. `torch.multinomial(chances, 1, generator=generator)` draws one
  column for each row of chances.
""",
    stub='''
def sample(logits, temperature, top_k, top_p, generator):
    """(B, V) -> (B,): one token a row, drawn after the tail is cut."""
    raise NotImplementedError
''',
    properties=[
        Property("nothing left but the likeliest", 1, _sample_likeliest),
        Property("as often as the chances say", 2, _sample_temperature),
        Property("top-k", 2, _sample_top_k),
        Property("top-p", 2, _sample_top_p),
        Property("both", 1, _sample_both),
        Property("the generator, and nothing else", 1, _sample_generator),
    ],
    ready=("lib.generation.choose", "lib.generation.cut_tail", "lib.lesson.handmade.fill.sample"),
    bench=_draws,
    hints=(
        "What is cut gets a logit of -inf: then its chance is exactly 0, and the others add up to 1 by themselves.",
        "top-k: everything below logits.topk(top_k).values[:, -1:] goes. top-p: ranked, order = "
        "logits.softmax(-1).sort(descending=True); a token goes if those before it, ranked.cumsum(-1) - ranked, have "
        "reached top_p already. `scatter` puts that back in each token's place.",
        "gone = (ranked.cumsum(-1) - ranked >= top_p).scatter(-1, order, ...) needs a tensor to scatter into: "
        "torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, beyond). Then logits.masked_fill(gone, "
        "-math.inf), and torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0].",
    ),
)

# --- cache --------------------------------------------------------------------------------------------------


def _one_layer(rng, T=None, B=2, H=2, Dh=4):
    """q, k and v of a whole text, (B, H, T, Dh) each, and what causal attention makes of them."""
    T = T or integer(rng, 7, 10)
    q, k, v = (normal(rng, B, H, T, Dh) for _ in range(3))
    scores = q @ k.transpose(-2, -1) / math.sqrt(Dh)  # (B, H, T, T)
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    return q, k, v, scores.masked_fill(~seen, -math.inf).softmax(-1) @ v


def _in_pieces(cache, q, k, v, sizes):
    """What the answer's cache says to pieces of these sizes, one after another, side by side again."""
    said, at = [], 0
    for n in sizes:
        here = slice(at, at + n)
        got = call_method(cache, "attend", q[:, :, here], k[:, :, here], v[:, :, here])
        said.append(finite(shape(got, q[:, :, here].shape, "what attend returns"), "what attend returns"))
        at += n
    return torch.cat(said, dim=2)


def _cache_prompt(answer, rng):
    q, k, v, want = _one_layer(rng)
    got, again = (_in_pieces(answer(), q, k, v, [q.size(2)]) for _ in range(2))
    require(not differs(got, again).any(),
            "Two caches share one memory: make it in __init__, on self, not in the class: "
            "each layer of a model has a cache of its own.")
    require(differs(got, (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v).any(),
            "The prompt is read without its mask: each of its tokens sees those after it.")
    require(differs(got, (q @ k.transpose(-2, -1)).masked_fill(
        ~torch.ones(q.size(2), q.size(2), dtype=torch.bool).tril(), -math.inf).softmax(-1) @ v).any(),
        "The scores are not divided by the square root of the head's width.")
    close(got, want, "A prompt, read at once, must give causal attention. It does not.", atol=1e-4)


def _cache_steps(answer, rng):
    q, k, v, want = _one_layer(rng)
    T = q.size(2)
    got = _in_pieces(answer(), q, k, v, [3] + [1] * (T - 3))
    require(differs(got[:, :, 3:], v[:, :, 3:]).any(), "After the prompt each token sees only itself: what was read "
                                                       "before is forgotten.")
    scores = q[:, :, -1:] @ k[:, :, :-1].transpose(-2, -1) / 2  # (B, H, 1, T - 1)
    require(differs(got[:, :, -1:], scores.softmax(-1) @ v[:, :, :-1]).any(), "A new token does not see itself.")
    close(got, want, "A prompt of three tokens, and then one at a time: it must be as if all had been read at once. "
                     "Are keys and values kept in the order in which they came?", atol=1e-4)


def _cache_pieces(answer, rng):
    q, k, v, want = _one_layer(rng)
    T = q.size(2)
    got = _in_pieces(answer(), q, k, v, [2, 3, T - 5])
    require(not differs(got[:, :, :2], want[:, :, :2], atol=1e-4).any(), "The first piece is wrong already.")
    close(got, want, "In pieces of several tokens it goes wrong from the second piece on: a new token sees all old "
                     "ones, and of the new ones those up to itself. In which corner does your mask begin?", atol=1e-4)


def _cache_from_nothing(answer, rng):
    q, k, v, want = _one_layer(rng, T=12)
    got = _in_pieces(answer(), q, k, v, [1] * 12)
    close(got, want, "Token by token from the very first, it goes wrong.", atol=1e-4)


CACHE = Exercise(
    id="07.cache",
    name="Cache",
    title="A memory for one layer",
    points=8,
    difficulty=2,
    minutes=15,
    prompt="""
Write the class `Cache`: what one attention layer remembers of the text so far. It begins empty. Its method
`attend(q, k, v)` takes the queries, keys and values of the T **new** tokens, (B, H, T, Dh) each. It puts keys and
values behind those that it has, and returns (B, H, T, Dh): for each new token the mixture that causal attention gives
over **all old tokens and the new ones up to itself**. T may be the length of a prompt, or 1, or anything between.
""",
    stub='''
class Cache:
    def __init__(self):
        raise NotImplementedError

    def attend(self, q, k, v):
        """(B, H, T, Dh) of the new tokens, three times -> (B, H, T, Dh)."""
        raise NotImplementedError
''',
    properties=[
        Property("a prompt, read at once", 2, _cache_prompt),
        Property("then token by token", 2, _cache_steps),
        Property("in pieces", 3, _cache_pieces),
        Property("token by token from the first", 1, _cache_from_nothing),
    ],
    ready=("lib.generation.KVCache", "lib.generation.LayerCache", "lib.lesson.handmade.fill.Cache"),
    hints=(
        "Keep the keys and the values on self, None at first, and put the new ones behind them with torch.cat along "
        "the tokens' axis, dim=2. The rest is attention with a mask that is not square.",
        "With S keys in all, the queries belong to the last T of them: query i may see keys 0 to S - T + i. "
        "torch.ones(T, S, dtype=torch.bool).tril(S - T) is True just there.",
        "In attend: self.k = k if self.k is None else torch.cat([self.k, k], dim=2), and so for v; scores = q @ "
        "self.k.transpose(-2, -1) / math.sqrt(q.size(-1)); mask as above; masked_fill(~mask, -math.inf).softmax(-1) @ "
        "self.v.",
    ),
)

# --- write_text -----------------------------------------------------------------------------------------------


class _Remembers:
    """A model with a memory: what it says of a token depends on all that it was handed, and in which order."""

    def __init__(self, table):
        self.table, self.state, self.sizes = table, table[:1] * 0, []  # table: (V, V)

    def __call__(self, tokens):
        self.sizes.append(tuple(tokens.shape))
        said = []
        for column in tokens.T:
            self.state = self.table[column] + 0.8 * self.state.roll(1, -1)  # (B, V)
            said.append(self.state)
        return torch.stack(said, dim=1)  # (B, T, V)


def _slowly(table, prompt, n, choose, read=lambda model, text: model(text)):
    """Generation that reads everything anew for each token; or, with another `read`, a slip."""
    text = prompt
    for _ in range(n):
        text = torch.cat([text, choose(read(_Remembers(table), text)[:, -1])[:, None]], dim=1)  # (B, T + 1)
    return text


def _telling(rng, n, B, choose):
    """A model and a prompt for which no slip gives the right text by chance: (table, prompt, text)."""
    V, T = 9, integer(rng, 3, 5)
    for _ in range(1000):
        table, prompt = 3 * normal(rng, V, V), torch.randint(V, (B, T), generator=rng)
        want = _slowly(table, prompt, n, choose)
        first = choose(_Remembers(table)(prompt)[:, 0])
        alone = choose(_Remembers(table)(prompt[:, -1:])[:, -1])
        model, twice = _Remembers(table), prompt
        for _ in range(n):
            twice = torch.cat([twice, choose(model(twice)[:, -1])[:, None]], dim=1)
        if n == 0 or ((first != want[:, T]).all() and (alone != want[:, T]).all()
                      and len(want[:, T].unique()) == B and not torch.equal(twice, want)):  # fmt: skip
            return table, prompt, want
    raise ValueError("no telling model found")


def _generated(answer, rng, n, B=2, choose=lambda logits: logits.argmax(-1)):
    """(the answer's text, text without a memory, the model as the answer left it, prompt)"""
    table, prompt, want = _telling(rng, n, B, choose)
    model, (V, T) = _Remembers(table), (len(table), prompt.size(1))

    def spied(logits):
        require(tuple(logits.shape) == (B, V), "`choose` takes the logits of the last position, (B, V); it was handed "
                                               "something else.", f"handed {tuple(logits.shape)}")
        return choose(logits)

    got = answer(model, prompt, n, spied)
    if tuple(getattr(got, "shape", ())) == (B, n) and n:
        raise Wrong("Only the new tokens come back; the text is wanted, prompt and all.")
    dtype(shape(got, (B, T + n), "the text"), torch.long, "the text")
    return got, want, model, prompt


def _generate_same(answer, rng):
    got, want, _, prompt = _generated(answer, rng, integer(rng, 6, 8))
    T = prompt.size(1)
    close(got[:, :T], prompt, "The text does not begin with the prompt.")
    require(torch.equal(got[:, T], want[:, T]), "The first new token is wrong: choose it by the logits at the prompt's "
                                                "*last* position.")
    close(got, want, "After the first new token the text differs from one written without a memory. The model "
                     "remembers what it was handed: hand it what is new, and nothing twice.")


def _generate_work(answer, rng):
    n = integer(rng, 6, 8)
    got, want, model, prompt = _generated(answer, rng, n)
    B, T = prompt.shape
    close(got, want, "The text differs from one written without a memory.")
    require(model.sizes and model.sizes[0] == (B, T), "The prompt must be read at once, in the first call.")
    read = sum(size[1] for size in model.sizes)
    require(read <= T + n, "Tokens are read more than once. The model remembers them; that is the point.")
    require(read < T + n, "The last token is read as well, and nobody asks what would come after it.")
    require(all(size == (B, 1) for size in model.sizes[1:]), "After the prompt the model must be handed one new "
                                                             "token at a time, (B, 1).")


def _generate_draws(answer, rng):
    """Any `choose`, asked once a token; each row by itself; and no new token at all."""
    count = [0]

    def second(logits):
        count[0] += 1
        return logits.topk(2).indices[:, 1]

    n = integer(rng, 4, 6)
    table, prompt, want = _telling(rng, n, 3, lambda logits: logits.topk(2).indices[:, 1])
    got = answer(_Remembers(table), prompt, n, second)
    dtype(shape(got, want.shape, "the text"), torch.long, "the text")
    close(got, want, "With a `choose` that takes the second likeliest the text is wrong: every new token is "
                     "`choose`'s, row by row.")
    require(count[0] == n, "`choose` must be asked once for each new token.")
    got, want, _, _ = _generated(answer, rng, 0)
    close(got, want, "For n = 0 the prompt must come back as it is.")


WRITE_TEXT = Exercise(
    id="07.write_text",
    title="Write, and read nothing twice",
    points=6,
    difficulty=1,
    minutes=10,
    prompt="""
Write `write_text(read, prompt, n, choose)`. `read(tokens)` is a model with caches in it: it takes the **new** tokens,
(B, T), remembers them behind all that it has read, and returns their logits, (B, T, V). `choose(logits)` takes (B, V)
and returns the next token of each row, (B,). `prompt` is (B, T). Return (B, T + n): the prompt and n new tokens.

Let the model read the prompt once, and then one token at a time. What nobody asks for need not be read.
""",
    stub='''
def write_text(read, prompt, n, choose):
    """(B, T) -> (B, T + n): the prompt, and n tokens, each chosen after all before it."""
    raise NotImplementedError
''',
    properties=[
        Property("the same text as without a memory", 2, _generate_same),
        Property("each token is read once", 2, _generate_work),
        Property("any way to choose", 2, _generate_draws),
    ],
    ready=("lib.generation.generate", "lib.generation.stream", "lib.lesson.handmade.fill.write_text"),
    hints=(
        "Two things change from round to round: the text so far, and what of it is new to the model. At first all of "
        "the prompt is new.",
        "In each of n rounds: logits = read(new)[:, -1], then new = choose(logits)[:, None], (B, 1), which joins the "
        "text by torch.cat along dim=1.",
        "text = new = prompt; for _ in range(n): new = choose(read(new)[:, -1])[:, None]; text = torch.cat([text, "
        "new], dim=1). Then return text.",
    ),
)

# --- functions that an answer is to judge --------------------------------------------------------------------


def _judge(answer, rng, cases):
    """Ask the answer about each (function, whether it is broken, what a wrong verdict means), in an order of chance.

    Told in the order given: the first verdict that is wrong.
    """
    told = {}
    for i in torch.randperm(len(cases), generator=rng).tolist():
        told[i] = truth(answer(cases[i][0]))
    for i, (_, broken, says) in enumerate(cases):
        require(told[i] == broken, says)


# --- catches_idle_top_k -------------------------------------------------------------------------------------


def _top_k(logits, k):
    least = logits.topk(min(k, len(logits))).values[-1]
    return logits.masked_fill(logits < least, -math.inf)


def _top_k_by_rank(logits, k):
    rank = logits.argsort(descending=True).argsort()
    return torch.where(rank < k, logits, torch.tensor(-math.inf))


def _top_k_built(logits, k):
    values, at = logits.topk(min(k, len(logits)))
    return torch.full_like(logits, -math.inf).scatter(0, at, values)


def _idle(logits, k):
    logits.masked_fill(logits < logits.topk(min(k, len(logits))).values[-1], -math.inf)  # and thrown away
    return logits.clone()


def _one_more(logits, k):
    return _top_k(logits, k + 1)


def _one_fewer(logits, k):
    return _top_k(logits, max(1, k - 1))


def _smallest(logits, k):
    return logits.masked_fill(logits > logits.topk(min(k, len(logits)), largest=False).values[-1], -math.inf)


def _first_k(logits, k):
    return logits.masked_fill(torch.arange(len(logits)) >= k, -math.inf)


def _zero(logits, k):
    return logits.masked_fill(logits < logits.topk(min(k, len(logits))).values[-1], 0.0)


def _rescaled(logits, k):
    return _top_k(logits, k).log_softmax(0) * 0.5


def _idle_when_small(logits, k):
    return _top_k(logits, k) if k >= 5 else logits.clone()


SOUND_TOP_K = [
    (_top_k, False, "It says True to a correct top-k. What is kept keeps its logit; all else is -inf."),
    (_top_k_by_rank, False, "It says True to a correct top-k that goes by rank. Judge what comes back, not how it is "
                            "made."),
    (_top_k_built, False, "It says True to a correct top-k that builds a new tensor. Judge what comes back, not how it "
                          "is made."),
]


def _catches_idle(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K, (_idle, True, "It misses the top-k that does nothing: all logits come back as "
                                                     "they were.")])


def _catches_idle_small(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K, (_idle_when_small, True, "It misses a top-k that does nothing for small k, "
                                                                "below 5. Does your test try several k?")])


def _catches_count(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K,
                         (_one_more, True, "It misses a top-k that keeps one token too many."),
                         (_one_fewer, True, "It misses a top-k that keeps one token too few.")])


def _catches_which(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K,
                         (_first_k, True, "It misses one that keeps the *first* k tokens, likely or not. Give it "
                                          "logits that are not sorted."),
                         (_smallest, True, "It misses one that keeps the k *smallest* logits.")])


def _catches_values(answer, rng):
    _judge(answer, rng, [*SOUND_TOP_K,
                         (_zero, True, "It misses one that writes 0 in place of -inf: a logit of 0 is a chance, and "
                                       "often a good one."),
                         (_rescaled, True, "It misses one that keeps the right tokens and changes their logits.")])


CATCHES_IDLE_TOP_K = Exercise(
    id="07.catches_idle_top_k",
    title="Write the test: a top-k that does nothing",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
A well-known course shipped a top-k whose result was thrown away. It ran, it raised nothing, and it did nothing. Write
the test that catches it, and its cousins.

`cut(logits, k)` takes logits (V,), all different, and a whole number `k`. It must return (V,): the `k` largest logits
unchanged, each at its place, and `-inf` everywhere else. Write `catches_idle_top_k(cut)`: it calls `cut` on examples
that you make up, and returns **True if it is broken**, False if it is right. Several right ones and several broken ones
will be handed to it, in any order.
""",
    stub='''
def catches_idle_top_k(cut):
    """True if cut(logits (V,), k) does not do what a top-k must, False if it does."""
    raise NotImplementedError
''',
    properties=[
        Property("sees that nothing happens", 2, _catches_idle),
        Property("sees it for every k", 1, _catches_idle_small),
        Property("counts", 1, _catches_count),
        Property("looks at which tokens are kept", 1, _catches_which),
        Property("looks at their logits", 1, _catches_values),
    ],
    hints=(
        "Make logits that are not sorted, call cut, and compare the result with what you know it must be.",
        "Which positions must stay? logits.topk(k).indices says so. There the result must equal the logits; at all "
        "other places it must be -inf.",
        "For each of several k, small ones too: want = torch.full_like(logits, -math.inf); at = "
        "logits.topk(k).indices; want[at] = logits[at]; return True if not torch.equal(cut(logits, k), want).",
    ),
)

# --- pad_left -----------------------------------------------------------------------------------------------


def _padded(answer, prompts, filler):
    got = answer(prompts, filler)
    if isinstance(got, torch.Tensor) or not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong("Three tensors are expected: `return tokens, positions, real`.")
    size = (len(prompts), max(map(len, prompts)))
    for name, part in zip(("tokens", "positions", "real"), got, strict=True):
        dtype(shape(part, size, name), torch.bool if name == "real" else torch.long, name)
    return got


def _pad_by_hand(answer, rng):
    tokens, positions, real = _padded(answer, [[5, 6, 7], [8]], 0)
    require(not torch.equal(tokens, torch.tensor([[5, 6, 7], [8, 0, 0]])),
            "The fillers are on the right. Then the last column of a short row is a filler, and the next token would "
            "follow *it*. Put them on the left.")
    close(tokens, torch.tensor([[5, 6, 7], [0, 0, 8]]), "tokens should be [[5, 6, 7], [0, 0, 8]].")
    require(not torch.equal(real, torch.tensor([[0, 0, 0], [1, 1, 0]]).bool()),
            "`real` is the wrong way round: True is a token of the prompt, False a filler.")
    close(real, torch.tensor([[1, 1, 1], [0, 0, 1]]).bool(), "real should be [[1, 1, 1], [0, 0, 1]], as booleans.")
    require(int(positions[1, 2]) != 2, "The short prompt's only token stands at position 2, as if the fillers counted. "
                                       "It is the first real token of its row: position 0.")
    require(bool((positions >= 0).all()), "There are negative positions. A filler's position is 0.")
    close(positions, torch.tensor([[0, 1, 2], [0, 0, 0]]), "positions should be [[0, 1, 2], [0, 0, 0]].")


def _pad_any(answer, rng):
    lengths = [integer(rng, 1, 9) for _ in range(integer(rng, 3, 6))] + [10, 4]
    prompts = [torch.randint(1, 50, (n,), generator=rng).tolist() for n in lengths]
    tokens, positions, real = _padded(answer, prompts, 0)
    for row, prompt in enumerate(prompts):
        n = len(prompt)
        require(tokens[row, -n:].tolist() == prompt, "A prompt does not stand whole at the right end of its row.")
        require(int(real[row].sum()) == n and bool(real[row, -n:].all()), "`real` does not mark the prompt's tokens.")
        require(positions[row, -n:].tolist() == list(range(n)),
                "Positions must count 0, 1, 2, ... from a row's first real token.")
        require(not positions[row, :-n].any(), "A filler's position is 0.")


def _pad_filler(answer, rng):
    filler = integer(rng, 1, 9)
    prompts = [[filler, 3, filler], [11], [filler, filler]]
    tokens, positions, real = _padded(answer, prompts, filler)
    close(tokens, torch.tensor([[filler, 3, filler], [filler, filler, 11], [filler] * 3]),
          "The free places must hold the filler that was asked for.")
    close(real, torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]]).bool(),
          "A prompt may contain the filler's id as a real token. Go by the lengths, not by `tokens != filler`.")
    close(positions, torch.tensor([[0, 1, 2], [0, 0, 0], [0, 0, 1]]),
          "Positions are wrong where a prompt contains the filler's id as a real token. Go by the lengths.")


PAD_LEFT = Exercise(
    id="07.pad_left",
    title="Uneven prompts in one batch",
    points=6,
    difficulty=2,
    minutes=10,
    prompt="""
Write `pad_left(prompts, filler)`. `prompts` is a list of B lists of token ids, none empty, of different lengths; T is
the longest length. Return three tensors of shape (B, T):

- `tokens`: each prompt at the **right** end of its row, `filler` before it;
- `positions`: 0, 1, 2, … counted from the row's first real token; 0 for a filler;
- `real`: bool, True for a token of the prompt. A prompt may itself contain the filler's id.
""",
    stub='''
def pad_left(prompts, filler):
    """Lists of ids -> tokens, positions (B, T) whole numbers, real (B, T) bool."""
    raise NotImplementedError
''',
    properties=[
        Property("two prompts, by hand", 3, _pad_by_hand, proof=False),
        Property("any lengths", 2, _pad_any),
        Property("the filler's id inside a prompt", 1, _pad_filler, proof=False),
    ],
    ready=("lib.generation.left_pad",),
    hints=(
        "For each prompt you need the number of fillers, T minus its length. All three tensors follow from it.",
        "tokens: [filler] * n + prompt, row by row. Let padding be (B,), the numbers of fillers. A column's index "
        "minus padding[:, None] counts from the first real token; it is negative for a filler.",
        "count = torch.arange(T) - padding[:, None]; return tokens, count.clamp_min(0), count >= 0.",
    ),
)

# --- catches_bad_cache --------------------------------------------------------------------------------------


def _look(q, k, v, past_k, past_v, allowed):
    """Attention of T new tokens over P old and T new ones, with `allowed` (T, P + T)."""
    k, v = torch.cat([past_k, k]), torch.cat([past_v, v])  # (S, Dh)
    scores = q @ k.T / math.sqrt(q.shape[-1])  # (T, S)
    return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v  # (T, Dh)


def _right(T, P):
    return torch.ones(T, P + T, dtype=torch.bool).tril(P)


def _cache(q, k, v, past_k, past_v):
    return _look(q, k, v, past_k, past_v, _right(len(q), len(past_k)))


def _cache_token_by_token(q, k, v, past_k, past_v):
    out = [F.scaled_dot_product_attention(q[t : t + 1], torch.cat([past_k, k[: t + 1]]),
                                          torch.cat([past_v, v[: t + 1]])) for t in range(len(q))]
    return torch.cat(out)


def _cache_wobbles(q, k, v, past_k, past_v):
    return _cache(q, k, v, past_k, past_v) * 3 / 3 * (1 + 1e-7)


def _no_prefill_mask(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    return _look(q, k, v, past_k, past_v, _right(T, P) if P else torch.ones(T, T, dtype=torch.bool))


def _no_mask_later(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    return _look(q, k, v, past_k, past_v, torch.ones(T, P + T, dtype=torch.bool) if P else _right(T, 0))


def _corner(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    return _look(q, k, v, past_k, past_v, torch.ones(T, P + T, dtype=torch.bool).tril())


def _forgets(q, k, v, past_k, past_v):
    return _cache(q, k, v, past_k[:0], past_v[:0])


def _forgets_the_last(q, k, v, past_k, past_v):
    return _cache(q, k, v, past_k[:-1], past_v[:-1])


def _without_itself(q, k, v, past_k, past_v):
    T, P = len(q), len(past_k)
    allowed = _right(T, P)
    if P:  # a first token would have nobody
        allowed &= torch.arange(P + T) != P + torch.arange(T)[:, None]
    return _look(q, k, v, past_k, past_v, allowed)


SOUND_CACHE = [
    (_cache, False, "It says True to a correct cache."),
    (_cache_token_by_token, False, "It says True to a correct cache that goes token by token. Judge what comes back, "
                                   "not how it is made."),
    (_cache_wobbles, False, "It says True to a correct cache whose results wobble in the last bit. Compare floats with "
                            "torch.allclose, not == or torch.equal."),
]


def _bad(*cases):
    def test(answer, rng):
        _judge(answer, rng, [*SOUND_CACHE, *((function, True, says) for function, says in cases)])

    return test


_catches_prefill = _bad((_no_prefill_mask,
    "It misses the cache that skips the mask while it reads the prompt: with nothing remembered and several new "
    "tokens, each sees the later ones. Does your test read several tokens in the first call?"))
_catches_pieces = _bad(
    (_no_mask_later, "It misses a cache that drops the mask once something is remembered: the second piece of a prompt "
                     "sees its own future. Does your test read several tokens when there is a past?"),
    (_corner, "It misses a mask that starts in the wrong corner: with a past, new token t may see all the past and the "
              "new ones up to t. Does your test read several tokens when there is a past?"))
_catches_past = _bad((_forgets, "It misses a cache that forgets everything."),
                     (_forgets_the_last, "It misses a cache that forgets the last token it has read."))
_catches_itself = _bad((_without_itself, "It misses a cache in which a new token does not see itself once there is a "
                                         "past."))

CATCHES_BAD_CACHE = Exercise(
    id="07.catches_bad_cache",
    title="Write the test: a cache that changes the answer",
    points=7,
    difficulty=3,
    minutes=20,
    prompt="""
A cache may change the time, never the result. `attend(q, k, v, past_k, past_v)` is one head of causal attention with a
memory. `q`, `k`, `v` are (T, Dh): T new tokens. `past_k`, `past_v` are (P, Dh): the keys and values of the P tokens
before them; P may be 0. It returns (T, Dh): each new token's mixture over **all P old tokens and the new ones up to
itself**. It does not store anything; whoever calls it keeps the keys and values.

Write `catches_bad_cache(attend)`: **True if it is broken**, False if it is right. You can only call it. Each bug is one
that people make; the first of them forgets the mask while it reads the prompt, and nowhere else.
""",
    stub='''
def catches_bad_cache(attend):
    """True if attend(q, k, v (T, Dh), past_k, past_v (P, Dh)) is not causal attention over past and new."""
    raise NotImplementedError
''',
    properties=[
        Property("sees a prompt read without its mask", 2, _catches_prefill),
        Property("sees what goes wrong in the second piece", 2, _catches_pieces),
        Property("sees a memory with a hole", 2, _catches_past),
        Property("sees a token that forgets itself", 1, _catches_itself),
    ],
    hints=(
        "Compute causal attention over, say, ten tokens yourself, without any cache. Then read the same ten tokens "
        "through attend, in pieces, and compare.",
        "Try several ways to cut: all ten at once, one by one, four and then six. In each call, past_k and past_v are "
        "k[:start] and v[:start].",
        "For sizes in ([10], [1] * 10, [4, 6]): collect attend(q[a:b], k[a:b], v[a:b], k[:a], v[:a]) for each piece, "
        "torch.cat them, and return True if torch.allclose with your own result, atol=1e-5, fails. Then False.",
    ),
)

EXERCISES = [NUCLEUS, SAMPLE, CATCHES_IDLE_TOP_K, CACHE, WRITE_TEXT, CATCHES_BAD_CACHE, PAD_LEFT]
