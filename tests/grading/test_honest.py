"""Honest learners get what the lesson's own check gave, and nobody is accused.

First one by one, each with its brothers; then notebooks from a grammar of habits (tests/honest.py), each run in a real
kernel and through the grader.
"""

import json

import pytest
import torch
from honest import Kernel, Notebook, accused, graded, make
from hostile.entry import answer_cell, code, insert, notebook
from hunt import hunt
from test_hostile import needs_isolation

from lib.answers import mutant_source, reference_source
from lib.exercises.exercise import PRELUDE, exercise
from lib.grading.reading import parse
from lib.grading.sandbox import Sandbox
from lib.lesson.own import standing_alone

MASK, ATTENTION = reference_source("02.causal_mask"), reference_source("02.attention")
WRONG = mutant_source("02.causal_mask", "transposed")
HELPED = "def causal_mask(n):\n    assert {}\n" + MASK.split("\n", 1)[1]


def of(source, *above, below=(), copies=(), under=(), between=(), id="02.causal_mask", check=None):
    """Lesson 02 with an answer in its cell, and cells of the learner's around it."""

    def edit(nb):
        answer_cell(nb, id)["source"] = source
        for text in above:
            insert(nb, code(text), before=id)
        for text in reversed(between):
            insert(nb, code(text), after=id)
        at = nb["cells"].index(answer_cell(nb, id, check=True)) + 1
        nb["cells"][at:at] = [code(text) for text in below]
        nb["cells"][at:at] = [code(text, id.replace(".", "-")) for text in under]
        for text in copies:
            insert(nb, code(text, id.replace(".", "-")), before=id)
        if check:
            answer_cell(nb, id, check=True)["source"] = check

    return id, edit


def merges(source):
    """The answer to one exercise calls that to another."""

    def edit(nb):
        answer_cell(nb, "01.merge")["source"] = source
        answer_cell(nb, "01.apply_merges")["source"] = (
            "def apply_merges(ids, merges):\n    for left, right, new in merges:\n"
            "        ids = merge(ids, (left, right), new)\n    return list(ids)")  # fmt: skip

    return "01.apply_merges", edit


DEVICE = 'if torch.cuda.is_available():\n    device = "cuda"; print(device)\nelse: device = "cpu"'
EINOPS = "try:\n    import einops_of_mine as einops\nexcept ImportError:\n    {}einops = None"
MERGE = reference_source("01.merge").rstrip()
LAST = MERGE.split("\n")[-1]
DEAD = LAST[: len(LAST) - len(LAST.lstrip())]
INDENTED = "".join(f"    {line}\n" for line in MASK.splitlines())
PROMPTED = "".join((">>> " if i == 0 else "... ") + line + "\n" for i, line in enumerate(MASK.splitlines()))
NUMBERED = "".join(("In [1]: " if i == 0 else "   ...: ") + line + "\n" for i, line in enumerate(MASK.splitlines()))
ASKS = MASK.replace("  # (n, n)", "  # is that the right way round?")
PRINTS = "print('mine')\n"
ALSO = "from lib.attention import causal_mask as theirs\n"

CASES = {
    # tries it in its own cell: the lesson's own later `mask = …` came along
    "tries it": of(MASK + "\nmask = causal_mask(4); print(mask)"),
    "tries it on a mask of the lesson's": of(MASK + "\nprint(mask)\nmask = causal_mask(4)"),
    "tries it in a loop": of(MASK + "\nfor q in range(3):\n    print(causal_mask(q))"),
    "tries it in a with": of(MASK + "\nwith torch.no_grad():\n    weights = causal_mask(3).float()\n    weights"),
    "tries it on the lesson's tensors": of(MASK + "\nours = q.masked_fill(~causal_mask(6), 0)\nprint(ours)"),
    "asserts on what the lesson made": of(MASK + "\nassert torch.equal(causal_mask(6), mask)"),
    # compares with the library
    "compares": of(ATTENTION + "\nfrom lib.attention import attention as theirs\nx = torch.randn(3, 4, 4)\n"
                   "print(torch.allclose(attention(*x), theirs(*x)))", id="02.attention"),
    "compares with a module": of(ATTENTION + "\nprint(torch.allclose(attention(q, k, v), lib.attention.attention(q, k, v)))",
                                 id="02.attention"),
    "compares with PyTorch": of(ATTENTION + "\nprint(torch.allclose(attention(q, k, v), "
                                "F.scaled_dot_product_attention(q, k, v)))", id="02.attention"),
    "compares below": of(MASK, between=[ALSO + "print(torch.equal(causal_mask(4), theirs(4)))"]),
    "compares in a function": of(MASK, between=[ALSO + "def same(n):\n    return torch.equal(causal_mask(n), theirs(n))\nsame(3)"]),
    "has the library's under its own name, above": of(MASK, "from lib.attention import causal_mask\ncausal_mask(3)"),
    "imports two and uses one": of(ATTENTION.replace("scores.softmax(dim=-1)", "softmax(scores, dim=-1)"),
                                   "from torch.nn.functional import softmax, scaled_dot_product_attention", id="02.attention"),
    # asks in a comment
    "asks": of("%%time\n" + ASKS),
    "asks by the way": of("%%time\n" + MASK.replace("  # (n, n)", "\n    # n or n + 1?")),
    "asks in a text": of("%%time\n" + MASK + "\nnote = 'why?'\n# why?"),
    "asks for help": of(ASKS + "\ncausal_mask?\n?torch.tril\ntorch.tril??"),
    "asks in front": of("# what is it to do?\n%matplotlib inline\n" + MASK),
    # indents, pastes
    "indents": of(INDENTED), "indents with a magic": of("%%time\n" + INDENTED), "indents below a comment": of("    # mine\n" + INDENTED),
    "pastes prompts": of(PROMPTED), "pastes numbered prompts": of(NUMBERED), "pastes prompts below lines": of("\n\n" + PROMPTED),
    # magics
    "installs in an except": of("try: import einops_of_mine\nexcept ImportError:\n    !echo pip install einops\n" + MASK),
    "installs in an except above": of(HELPED.format("einops is None"), EINOPS.format("!echo pip install einops\n    ")),
    "installs in an except and no more": of(HELPED.format("ok == 1"), "ok = 1\ntry: import einops_of_mine\nexcept ImportError:\n    %pwd"),
    "installs in its own cell": of(EINOPS.format("!echo pip\n    ") + "\n" + HELPED.format("einops is None")),
    "an except with a magic": of(HELPED.format("einops is None"), EINOPS.format("%pwd\n    ")),
    "captured": of("%%capture out\n" + MASK), "captured and timed": of("%%capture\n%%time\n" + MASK),
    "times one line": of(HELPED.format("size == 3"), "%time size = 1 + 2"),
    "lists files": of("files = !echo a\n%env X=1\n" + MASK + "\n%timeit -n1 -r1 causal_mask(3)"),
    # awaits at top level
    "awaits": of("import asyncio\n" + MASK + "\nawait asyncio.sleep(0)"),
    "awaits first": of("import asyncio\nawait asyncio.sleep(0)\n" + MASK),
    "needs what it awaited": of(HELPED.format("got == 3"), "async def f():\n    return 3\ngot = await f()"),
    "awaits in a with": of(HELPED.format("lock is not None"),
                           "import asyncio\nlock = asyncio.Lock()\nasync with lock:\n    print('held')"),
    # tries again
    "tries again above the check": of(WRONG, between=[MASK]),
    "tries again twice": of(WRONG, between=[mutant_source("02.causal_mask", "inverted"), MASK + "\nprint(causal_mask(2))"]),
    "tries again in the check's cell": of(WRONG, check=MASK + '\ncheck("02.causal_mask", causal_mask)'),
    "tries again with a condition": of(WRONG, between=["if True:\n" + INDENTED]),
    "gives another name to the check": of(WRONG, between=[MASK.replace("def causal_mask", "def mine")],
                                          check='check("02.causal_mask", mine)'),
    "gives a lambda to the check": of(MASK.replace("def causal_mask", "def mine"), check='check("02.causal_mask", lambda n: mine(n))'),
    "checks a name that nothing has, too": of(MASK.replace("def causal_mask", "def mine"), check='check("02.causal_mask", mine)',
                                              below=['check("02.causal_mask", causal_mask)']),
    "wraps it by hand": of(MASK, between=["_plain = causal_mask\ndef causal_mask(n):\n    return _plain(n)"]),
    "decorates it in the next cell": of(MASK, "def same(f):\n    return lambda n: f(n)", between=["causal_mask = same(causal_mask)"]),
    # splits and copies
    "splits": of(MASK, copies=["import math\nprint('mine')"]),
    "splits the try-out off": of("print(causal_mask(3))\nmask = causal_mask(4)", copies=[MASK]),
    "splits a helper off": of(HELPED.format("two == 2"), copies=["two = 2\nprint(two)"]),
    "splits a comment off": of(MASK + "\nx = 1", copies=["# my answer"]),
    "a broken copy below": of(MASK, under=[WRONG]), "a stub copied below": of(MASK, under=[exercise("02.causal_mask").stub]),
    "a wrong try copied above": of(MASK, copies=[WRONG]), "the copy is checked, then broken": of(
        WRONG, under=[MASK + '\ncheck("02.causal_mask", causal_mask)'], below=[WRONG]),
    # uses a name again
    "a helper again below": of(HELPED.format("half(4) == 2"), "def half(x):\n    return x / 2", below=["def half(x):\n    return 0"]),
    "scratch": of(ATTENTION, below=["math = 'done'; torch = None"], id="02.attention"),
    "the answer again below": of(MASK, below=["causal_mask = None"]), "deleted below": of(MASK, below=["del causal_mask, torch"]),
    "a constant again below": of(HELPED.format("SIZE == 3"), "SIZE = 3", below=["for SIZE in range(9): pass"]),
    "another meaning above": of(HELPED.format("tokens == 3"), "tokens = 3\nprint(tokens)"),
    # prints while choosing, and other cells that do more than define
    "prints while choosing": of(HELPED.format("device in ('cpu', 'cuda')"), DEVICE),
    "a loop": of(HELPED.format("seen == [0, 1]"), "seen = []\nfor i in range(2):\n    seen.append(i)\n    print(seen)"),
    "a with": of(HELPED.format("two == 2"), "with torch.no_grad():\n    two = int(torch.ones(2).sum())\n    print(two)"),
    "a while": of(HELPED.format("n_max == 8"), "n_max = 1\nwhile n_max < 8:\n    n_max *= 2"),
    "a try": of(HELPED.format("big == 7"), "try:\n    big = int('x')\nexcept ValueError as e:\n    print(e)\n    big = 7"),
    "a global of a function": of(HELPED.format("ready == 5"), "def set_up():\n    global ready\n    ready = 5\nset_up()"),
    "a dict that is filled": of(HELPED.format("box == {'x': 1}"), "box = {}\ndef fill(b):\n    b['x'] = 1\nfill(box)"),
    "an error at the end of it": of(HELPED.format("kept == 8"), "kept = 8\nprint(kept)\n1 / 0"),
    "types as text, told above": of("def causal_mask(n: Number) -> Mask:\n" + MASK.split("\n", 1)[1],
                                    "from __future__ import annotations\nprint('x')"),
    # leaves a dead line
    "a dead line in a helper's answer": merges(MERGE + f"\n{DEAD}raise NotImplementedError\n"),
    "a branch that is not done": merges(MERGE.replace("\n", "\n    if None:\n        raise NotImplementedError\n", 1)),
    "a dead line": of(MASK + "    raise NotImplementedError\n"),
    "a class with an abstract part": of("class Base:\n    def go(self):\n        raise NotImplementedError\nclass Mine(Base):\n"
                                        "    def go(self):\n        return 1\n" + HELPED.format("Mine().go() == 1")),
}  # fmt: skip


def cells_of(name):
    id, edit = CASES[name]
    nb = notebook(id[:2])
    edit(nb)
    found, problem = parse(json.dumps(nb).encode())
    assert not problem
    return id, found


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


@needs_isolation
@pytest.mark.parametrize("name", CASES)
def test_an_honest_learner_gets_full_marks_and_is_not_accused(name, sandbox):
    id, found = cells_of(name)
    said = graded(Notebook(name, id[:2], [id], found), sandbox)
    assert said["points"] == {id: exercise(id).points}, said
    assert not accused(said) and not any("several" in what for what in said["flags"] if "cop" not in name), said


@pytest.mark.parametrize("name", [name for name, (id, _) in CASES.items() if id == "02.causal_mask"])
def test_use_reads_as_the_grader_does(name):
    id, found = cells_of(name)
    source = standing_alone(found, exercise(id))
    if "await" in source or "async" in source:  # an answer that stands alone is run without a loop
        return
    namespace = {}
    exec(PRELUDE, namespace)
    exec(compile(source, "<own>", "exec"), namespace)
    assert torch.equal(namespace["causal_mask"](5), torch.ones(5, 5).tril().bool())


@needs_isolation
@pytest.mark.parametrize("source", ["import math\n%%time\n" + MASK, "# mine\n%%capture\n" + MASK, "%pwd\n\n%%time\n" + MASK])
def test_what_stands_below_a_late_cell_magic_never_ran(source, sandbox):
    id, edit = of(source)
    nb = notebook("02")
    edit(nb)
    assert graded(Notebook("x", "02", [id], parse(json.dumps(nb).encode())[0]), sandbox)["points"] == {id: 0}


@needs_isolation
def test_what_stands_below_a_failing_line_of_its_cell_is_told(sandbox):
    id, edit = of(HELPED.format("seen == []") + "\n\n1 / 0\nseen = []")
    nb = notebook("02")
    edit(nb)
    said = graded(Notebook("x", "02", [id], parse(json.dumps(nb).encode())[0]), sandbox)
    assert any("below line 7, which fails here (ZeroDivisionError)" in what for what in said["flags"]), said


MISSING = {
    "a name of nowhere": (HELPED.format("nowhere == 3"), (), "needs `nowhere`, which no cell above its check defines"),
    "a name of further down": (HELPED.format("late == 3"), ("late = 3",), "needs `late`, which only a cell below its check"),
}


@needs_isolation
@pytest.mark.parametrize("name", MISSING)
def test_what_was_missing_is_told_by_name(name, sandbox):
    source, below, says = MISSING[name]
    id, edit = of(source, below=below)
    nb = notebook("02")
    edit(nb)
    said = graded(Notebook(name, "02", [id], parse(json.dumps(nb).encode())[0]), sandbox)
    assert any(says in what for what in said["flags"]), said


@needs_isolation
def test_what_cannot_be_made_where_answers_are_judged_is_told_by_name(sandbox):
    id, edit = of(HELPED.format("len(words) > 0"), "words = open('/nowhere/of/mine.txt').read()")
    nb = notebook("02")
    edit(nb)
    said = graded(Notebook("x", "02", [id], parse(json.dumps(nb).encode())[0]), sandbox)
    assert any("needs `words`, which cannot be made" in what and "FileNotFoundError" in what for what in said["flags"]), said


THEIRS = {
    "calls it": "import lib.attention\ndef attention(q, k, v, mask=None):\n    out = lib.attention.attention(q, k, v, mask)\n    return out",
    "calls it through a helper": "from lib.attention import attention as a\ndef help(*x):\n    y = a(*x)\n    return y\n"
                                 "def attention(q, k, v, mask=None):\n    return help(q, k, v, mask)",
    "calls it by a second name": "import lib.attention as tools\nf = tools.attention\ndef attention(q, k, v, mask=None):\n"
                                 "    out = f(q, k, v, mask)\n    return out",
}  # fmt: skip


@needs_isolation
@pytest.mark.parametrize("name", THEIRS)
def test_a_call_of_the_library_from_the_answer_itself_is_told_and_costs_only_if_the_instructor_says_so(name, sandbox):
    id, edit = of(THEIRS[name], id="02.attention")
    nb = notebook("02")
    edit(nb)
    found = Notebook(name, "02", [id], parse(json.dumps(nb).encode())[0])
    said = graded(found, sandbox)
    assert said["points"] == {id: 8} and any("from the course's library" in what for what in said["flags"]), said
    assert graded(found, sandbox, rules_cost=True)["points"] == {id: 0}


HANDED_ON = ["from lib.attention import attention",
             "from lib.attention import attention as a\ndef help(*x):\n    return a(*x)\ndef attention(q, k, v, mask=None):\n    return help(q, k, v, mask)",
             "import lib.attention\nattention = lib.attention.attention",
             "from lib.attention import attention as a\nattention = lambda *x: a(*x)",
             "import functools, lib.attention\nattention = functools.partial(lib.attention.attention)",
             'def attention(q, k, v, mask=None):\n    "mine"\n    from lib.attention import attention\n    return attention(q, k, v, mask)']


@needs_isolation
@pytest.mark.parametrize("source", HANDED_ON)
def test_what_only_hands_on_the_librarys_own_is_no_answer(source, sandbox):
    id, edit = of(source, id="02.attention")
    nb = notebook("02")
    edit(nb)
    assert graded(Notebook("x", "02", [id], parse(json.dumps(nb).encode())[0]), sandbox)["points"] == {id: 0}


@needs_isolation
def test_habits_of_honest_learners_earn_what_their_own_checks_gave(sandbox):
    """Each notebook in a real kernel, from the top, and through the grader; `make test-long` takes thousands."""
    many, differ = hunt(50, 2000), []
    with Kernel() as kernel:
        for seed in range(many):
            nb = make(seed)
            nb.points = kernel.run([source for source, _ in nb.cells])
            said = graded(nb, sandbox)
            assert not accused(said), (nb.name, nb.habits, said)
            if said["points"] != {id: nb.points.get(id, 0) for id in nb.ids}:
                assert said["flags"] or any(said["problems"]), (nb.name, nb.habits, nb.points, said)
                differ.append((nb.name, nb.habits, nb.points, said))
    assert len(differ) <= 0.02 * many, differ


def test_the_generator_makes_the_same_notebook_again():
    assert make(5) == make(5)
