"""Honest learners whom graders punish: all of them right, or as right as they say."""

from hostile.entry import FULL, Entry, answer_cell, code, insert
from lib.answers import mutant_source, reference_source
from lib.exercises.exercise import exercise

ATTENTION, MASK = reference_source("02.attention"), reference_source("02.causal_mask")


def right(name, source, id="02.attention", edit=None, **more):
    return Entry(name, id[:2], {id: source}, {id: FULL}, edit=edit, **more)


def with_cells(*sources, before="02.attention", after=None):
    """Further cells of their own, above an answer (or below it)."""

    def edit(nb):
        for source in sources:
            insert(nb, code(source), before=None if after else before, after=after)

    return edit


def broken_neighbours(nb):
    for source in ("raise RuntimeError('in another cell')", "this is no Python", "1 / 0", "import nothing_of_that_name",
                   "while True:\n    pass", "import sys\nsys.exit(1)", "import os\nos._exit(3)", "assert False",
                   "input('your name? ')", "open('/nowhere').read()"):  # fmt: skip
        insert(nb, code(source), before="02.attention")


def half_done(nb):
    for id in ("02.attention", "02.effective_tokens"):
        answer_cell(nb, id)["source"] = exercise(id).stub


def below_its_use(nb):
    insert(nb, code("def scaled(q, k):\n    return q @ k.transpose(-2, -1) / sqrt_of(q.shape[-1])"))
    insert(nb, code("def sqrt_of(n):\n    return math.sqrt(n)"))


def windows(nb):
    cell = answer_cell(nb, "02.attention")
    cell["source"] = cell["source"].replace("\n", "\r\n").replace("    ", "\t")


def as_lines(nb):
    for cell in nb["cells"]:
        text = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        cell["source"] = text.splitlines(keepends=True)


ENTRIES = [
    *[Entry(f"good_{lesson}", lesson) for lesson in ("03", "04")],
    Entry("good_plain"),
    right("prints", "print('hello')\n" + ATTENTION.replace("    scores = q", "    print(q, k, v)\n    scores = q", 1)),
    right("warns", "import warnings\nwarnings.simplefilter('always')\n"
                   + ATTENTION.replace("    scores = q", "    warnings.warn('look out')\n    scores = q", 1)),
    right("progress_bars", """
from tqdm import tqdm
from tqdm.auto import trange
def causal_mask(n):
    mask = torch.zeros(n, n, dtype=torch.bool)
    for t in tqdm(range(n)):
        for s in trange(t + 1, leave=False):
            mask[t, s] = True
    return mask
""", "02.causal_mask"),  # fmt: skip
    right("slow", """
import time
def causal_mask(n):
    time.sleep(0.2)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for t in range(n):
        for s in range(n):
            if sum(1 for _ in range(100)) and s <= t:
                mask[t][s] = True
    return mask
""", "02.causal_mask"),  # fmt: skip
    right("sleeps_two_seconds_at_definition", "import time\ntime.sleep(2)\n" + ATTENTION),
    right("cells_of_their_own", ATTENTION, edit=with_cells(
        "x = torch.randn(4, 4)\nx.softmax(-1)", "for step in range(10**9):\n    pass", "%timeit 1 + 1", "!ls",
        "%%bash\necho hi", "# only a comment", "", "data = [i for i in range(3)]")),
    right("helper_in_another_cell", """
def attention(q, k, v, mask=None):
    return weights_of(q, k, mask) @ v
""", edit=with_cells("""
def weights_of(q, k, mask):
    scores = q @ k.transpose(-2, -1) * factor(q)
    return (scores if mask is None else scores.masked_fill(~mask, MINUS)).softmax(-1)
""", "factor = lambda q: q.shape[-1] ** -HALF", "HALF = 0.5\nMINUS = float('-inf')")),  # fmt: skip
    right("helpers_below_their_use", """
def attention(q, k, v, mask=None):
    scores = scaled(q, k)
    return (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1) @ v
""", edit=below_its_use),  # fmt: skip
    right("errors_in_other_cells", ATTENTION, edit=broken_neighbours),
    right("an_error_after_the_definition", ATTENTION + "\n\nprint(attention(tokens_i_deleted, 1, 2))\n"),
    right("exits_after_the_definition", ATTENTION + "\n\nimport sys\nsys.exit('done for today')\n"),
    right("magics_in_the_cell", "%matplotlib inline\n%load_ext autoreload\n!pip list\n" + ATTENTION + "\n%who\n"),
    right("timed_cell", "%%time\n" + ATTENTION),
    right("question_mark_left", ATTENTION + "\nattention?\n?torch.softmax\n"),
    right("numpy_inside", """
import numpy as np
def causal_mask(n):
    return torch.from_numpy(np.tril(np.ones((n, n), dtype=bool)))
""", "02.causal_mask"),  # fmt: skip
    right("numpy_number", """
import numpy as np
def count_params(d_model, d_ff, n_layers, vocab):
    sizes = [4 * d_model * (d_model + 1), 2 * d_model * d_ff + d_ff + d_model, 4 * d_model]
    return np.int64(np.sum(sizes)) * n_layers + vocab * d_model + 2 * d_model
""", "04.count_params"),  # fmt: skip
    # A tensor is asked for and the lesson's own check says so: no points, and the reason.
    Entry("numpy_instead_of_torch", answers={"02.causal_mask": """
import numpy as np
def causal_mask(n):
    return np.tril(np.ones((n, n), dtype=bool))
"""}),  # fmt: skip
    right("lambda", "causal_mask = lambda n: torch.ones(n, n).tril() > 0\n", "02.causal_mask"),
    right("partial_function", """
from functools import partial, lru_cache
def below(n, offset):
    return torch.ones(n, n, dtype=torch.bool).tril(offset)
causal_mask = partial(below, offset=0)
""", "02.causal_mask"),  # fmt: skip
    right("callable_object", """
class Mask:
    def __init__(self): self.made = {}
    def __call__(self, n):
        if n not in self.made:
            self.made[n] = torch.ones(n, n, dtype=torch.bool).tril()
        return self.made[n]
causal_mask = Mask()
""", "02.causal_mask"),  # fmt: skip
    right("decorated", "import functools\ndef timed(f):\n    @functools.wraps(f)\n    def g(*a, **k):\n"
                       "        return f(*a, **k)\n    return g\n\n@timed\n@torch.no_grad()\n" + ATTENTION),
    right("asserts_of_their_own", MASK + """
assert causal_mask(3).sum() == 6
assert causal_mask(2).tolist() == [[True, False], [True, True]], "mine"
q = torch.randn(3, 4)
print(causal_mask(5))
if __name__ == "__main__":
    for n in range(1, 50):
        assert causal_mask(n).shape == (n, n)
""", "02.causal_mask"),
    right("imports_in_another_cell", """
def causal_mask(n: int) -> "Tensor":
    return tensor(np.tril(np.ones((n, n))), dtype=bool_)
""", "02.causal_mask", with_cells("import numpy as np", "from torch import tensor, bool as bool_, Tensor")),
    right("imports_in_a_try", """
def causal_mask(n):
    return tri(n)
""", "02.causal_mask", with_cells("""
try:
    import nothing_of_that_name as fast
    tri = fast.tri
except ImportError:
    def tri(n):
        return torch.ones(n, n).tril().bool()
""")),  # fmt: skip
    right("doubles_in_another_exercise", ATTENTION,
          edit=lambda nb: answer_cell(nb, "02.causal_mask").__setitem__(
              "source", "torch.set_default_dtype(torch.float64)\ntorch.manual_seed(0)\n" + MASK)),
    right("doubles", "def attention(q, k, v, mask=None):\n    q, k, v = q.double(), k.double(), v.double()\n"
                     + ATTENTION.split("\n", 1)[1]),
    right("gradients_left_on", "scale = nn.Parameter(torch.ones(()))\n"
                               + ATTENTION.replace("weights @ v", "(weights @ v) * scale")),
    right("uses_another_answer", ATTENTION.replace(
        "scores.masked_fill(~mask", "scores.masked_fill(~(mask & (causal_mask(1) | True))")),
    right("raise_left_below_the_return", ATTENTION + "    raise NotImplementedError\n"),
    right("docstring_and_hints", '"""My answer."""\n' + ATTENTION + "\n# TODO: hint('02.attention', 1)\nhint('02.attention', 1)\n"),
    right("names_that_the_lesson_has_too", """
def attention(queries, keys, values, mask=None):
    return mixed(queries, keys, mask) @ values
def mixed(x, y, mask, scores=None):
    scores = [x @ y.transpose(-2, -1) for tokens in [0]][0] / math.sqrt(x.shape[-1])
    weights = scores if mask is None else torch.where(mask, scores, -math.inf)
    return weights.softmax(-1)
try:
    q = attention(q, k, v)
except NameError as v:
    pass
"""),  # fmt: skip
    right("compared_with_the_library", ATTENTION + "\nprint(attention)\n",
          edit=with_cells("from lib.attention import attention", "theirs = attention", after="02.attention")),
    right("stores_state", ATTENTION + "\nseen = []\n_plain = attention\ndef attention(q, k, v, mask=None):\n"
                                      "    seen.append((q, k, v))\n    return _plain(q, k, v, mask)\n"),
    right("windows_line_ends_and_tabs", ATTENTION, edit=windows),
    right("source_as_lines", ATTENTION, edit=as_lines),
    right("plots", ATTENTION + "\nfrom matplotlib import pyplot as plt\nplt.imshow(torch.rand(3, 3))\nplt.show()\n"),
    right("displays", "display('hello')\nget_ipython().run_line_magic('time', '1')\n" + ATTENTION + "\ndisplay(attention)\n"),
    Entry("half_done", edit=half_done, deserves={"02.attention": 0, "02.effective_tokens": 0}),
    Entry("partly_right", answers={"02.causal_mask": mutant_source("02.causal_mask", "window of three")},
          deserves={"02.causal_mask": 0}),  # the form alone earns nothing
    right("a_test_that_works", reference_source("02.catches_peeking"), "02.catches_peeking"),
    right("a_test_that_works_and_prints", "print('x')\n" + reference_source("04.catches_leak"), "04.catches_leak"),
    right("a_block_of_classes", """
class Half(nn.Module):
    def __init__(self, norm, inner):
        super().__init__()
        self.norm, self.inner = norm, inner
    def forward(self, x):
        return x + self.inner(self.norm(x))
def pre_norm_block(x, norm1, attend, norm2, mlp):
    return nn.Sequential(Half(norm1, attend), Half(norm2, mlp))(x)
""", "04.pre_norm_block"),
]  # fmt: skip
