"""Notebooks as honest learners leave them, from a grammar of habits; what a real kernel says of each, and the grader.

    python tests/honest.py make 2000 FILE      # the notebooks, and what their own checks gave in one kernel, as JSON lines
    python tests/honest.py grade FILE          # through the grader of the lib that Python finds: what differs
"""

import ast
import json
import os
import random
import sys
import tempfile
import textwrap
from dataclasses import asdict, dataclass, field

IDS = """00.one_step 00.greedy 00.exact_match 00.memory_gb 01.cosine_nearest 02.causal_mask 02.attention 02.effective_tokens
03.split_heads 03.merge_heads 03.repeat_kv 04.rms_norm 04.count_params 05.cross_entropy 05.momentum 07.nucleus 09.wilson_interval
10.cache_bytes 11.loss_targets""".split()
TRIES = {
    "02.causal_mask": "(4)", "02.attention": "(*torch.randn(3, 2, 5, 4))", "02.effective_tokens": "(torch.full((2, 3), 1 / 3))",
    "03.split_heads": "(torch.randn(2, 3, 8), 2)", "03.merge_heads": "(torch.randn(2, 2, 3, 4))",
    "03.repeat_kv": "(torch.randn(1, 2, 3, 4), 2)", "04.count_params": "(8, 32, 2, 100)",
}  # fmt: skip
# Names that lessons use too.
NAMES = "mask scores weights q k v x model tokens rows train draw table step steps names chosen".split()
ACCUSATIONS = ("from the course's library", "which the exercise asks to write", "ready made", "hands on the course's own")


@dataclass
class Notebook:
    """cells: (source, grade_id) each. habits: what its learner did. points: what its checks gave, run from the top."""

    name: str
    lesson: str
    ids: list[str]
    cells: list[list[str]] = field(default_factory=list)
    habits: list[str] = field(default_factory=list)
    points: dict[str, int] = field(default_factory=dict)


@dataclass
class Work:
    """One exercise on its way: cells above, the answer's cell, cells below it, the check, cells below that."""

    id: str
    name: str
    answer: str
    rng: random.Random
    above: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)  # with the answer's id, in front of it
    between: list[str] = field(default_factory=list)
    check: str = ""
    below: list[str] = field(default_factory=list)
    below_copies: list[str] = field(default_factory=list)
    right: str = ""
    wrong: str = ""

    @property
    def key(self) -> str:
        return self.id.replace(".", "-")

    @property
    def call(self) -> str:
        return f"{self.name}{TRIES.get(self.id, '(1)')}"

    def other(self) -> str:
        return self.rng.choice(NAMES)

    def cells(self) -> list[list[str]]:
        return [
            *([c, ""] for c in self.above), *([c, self.key] for c in self.copies), [self.answer, self.key],
            *([c, ""] for c in self.between), [self.check, f"{self.key}-check"], *([c, self.key] for c in self.below_copies),
            *([c, ""] for c in self.below),
        ]  # fmt: skip


def inside(source: str, line: str) -> str | None:
    """The source with a line at the beginning of its last function; None if there is none."""
    functions = [s for s in ast.parse(source).body if isinstance(s, ast.FunctionDef)]
    if not functions:
        return None
    body = functions[-1].body
    first = body[1] if len(body) > 1 and isinstance(body[0], ast.Expr) else body[0]
    if first.lineno == functions[-1].lineno:
        return None
    lines = source.split("\n")
    indent = lines[first.lineno - 1][: first.col_offset]
    return "\n".join([*lines[: first.lineno - 1], indent + line, *lines[first.lineno - 1 :]])


# What an answer leans on: a cell above it (or in it), and what its function then says first.
HELPERS = {
    "prints while choosing": ('if torch.cuda.is_available():\n    where = "cuda"; print(where)\nelse:\n    where = "cpu"', 'where in ("cpu", "cuda")'),
    "a loop fills a list": ("squares = []\nfor i in range(5):\n    squares.append(i * i)\n    print(i)", "squares[4] == 16"),
    "a loop fills a dict, and draws": ("counts = {}\nfor c in 'abca':\n    counts[c] = counts.get(c, 0) + 1\nprint(counts)\nplt.plot([1, 2])\nplt.show()", "counts['a'] == 2"),
    "a while loop": ("power = 1\nwhile power < 100:\n    power *= 2\nprint(power)", "power == 128"),
    "a with block": ("with torch.no_grad():\n    twos = torch.ones(2).sum().item()\n    print(twos)", "twos == 2"),
    "an import with a fallback": ("try:\n    import einops_of_mine as einops\nexcept ImportError:\n    einops = None\n    print('none')", "einops is None"),
    "installs in an except": ("try:\n    import einops_of_mine as einops\nexcept ImportError:\n    !echo pip install einops\n    einops = None", "einops is None"),
    "a bare except": ("try:\n    big = int('x')\nexcept:\n    big = 7", "big == 7"),
    "a decorator": ("import functools\ndef plain(f):\n    @functools.wraps(f)\n    def g(*a):\n        return f(*a)\n    return g\n@plain\ndef half(x):\n    return x / 2\nhalf(2)", "half(4) == 2"),
    "a cache": ("from functools import lru_cache\n@lru_cache\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nprint(fib(9))", "fib(7) == 13"),
    "a class": ("class Scale:\n    unit = 2\n    def __init__(self, by):\n        self.by = by * Scale.unit\n    def __call__(self, x):\n        return x * self.by\nscale = Scale(3)\nscale", "scale(2) == 12"),
    "a class with a parent": ("class Base:\n    pass\nclass Sub(Base):\n    def three(self):\n        return Three\nThree = 3\nprint(Sub().three())", "Sub().three() == 3"),
    "a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\n    b: int = 2\nprint(Pair(1))", "Pair(1).b == 2"),
    "a lambda": ("HALF = 0.5\nhalve = lambda x: x * HALF\nprint(halve(3))", "halve(4) == 2"),
    "a star import": ("from math import *\nprint(sqrt(4))", "sqrt(4) == 2"),
    "a global that a function sets": ("def set_up():\n    global ready\n    ready = 5\nset_up()\nprint(ready)", "ready == 5"),
    "a function that fills what it is given": ("box = {}\ndef fill(b):\n    b['x'] = 1\nfill(box)\nprint(box)", "box['x'] == 1"),
    "steps on one name": ("size = 1\nsize = size + 1\nsize += 1\nprint(size)", "size == 3"),
    "a name used twice": ("other = 'old'\nprint(other)\nother = 4", "other == 4"),
    "several at once": ("(first, second), third = (1, 2), 3\nprint(first)", "first + second + third == 6"),
    "a walrus": ("if (n_seen := len('abc')) > 2:\n    print(n_seen)", "n_seen == 3"),
    "a match": ("match [1, 2]:\n    case [1, rest]:\n        print(rest)\n    case _:\n        rest = 0", "rest == 2"),
    "a comprehension": ("letters = [c for c in 'abc' if c != 'b']\nindex = {c: i for i, c in enumerate(letters)}\nindex", "index['c'] == 1"),
    "appended later": ("words = ['a']\nwords", "words[-1] == 'b'"),
    "a seed": ("torch.manual_seed(7)\nnoise = torch.randn(2)\nprint(noise)", "noise.shape == (2,)"),
    "shuffled": ("import random\norder = list(range(4))\nrandom.shuffle(order)\nprint(order)", "sorted(order) == [0, 1, 2, 3]"),
    "a timed cell": ("%%time\nspeed = 3\nprint(speed)", "speed == 3"),
    "a timed line": ("%time quick = sum(range(4))", "quick == 6"),
    "a captured cell": ("%%capture\nprint('x')\nquiet = 1", "quiet == 1"),
    "an error below": ("kept = 8\nprint(kept)\n1 / 0", "kept == 8"),
    "an await above": ("import asyncio\nawait asyncio.sleep(0)\nawaited = 2", "awaited == 2"),
    "an awaited value": ("import asyncio\nasync def fetch():\n    await asyncio.sleep(0)\n    return 3\nfetched = await fetch()", "fetched == 3"),
    "a numpy constant": ("import numpy as np\nnp.random.seed(0)\nEPS = np.finfo(np.float32).eps\nprint(EPS)", "EPS > 0"),
    "an enum": ("from enum import Enum\nclass Kind(Enum):\n    A = 1\nprint(list(Kind))", "Kind.A.value == 1"),
    "a partial": ("from functools import partial\nadd = partial(lambda a, b: a + b, 2)\nprint(add(1))", "add(3) == 5"),
    "an index that is set": ("grid = torch.zeros(3)\ngrid[1] = 5\nprint(grid)", "grid[1].item() == 5"),
    "an attribute that is set": ("class Box: pass\nbox_of = Box()\nbox_of.x = 4\nprint(box_of.x)", "box_of.x == 4"),
    "a helper that calls below": ("def outer(x):\n    return inner(x) + 1\ndef inner(x):\n    return x * 2\nprint(outer(1))", "outer(2) == 5"),
    "deleted and made again": ("temp = 1\ndel temp\ntemp = 2", "temp == 2"),
    "unpacked with a star": ("head, *tail = [1, 2, 3]\nprint(tail)", "tail == [2, 3]"),
    "a nested if": ("level = 0\nfor i in range(4):\n    if i % 2:\n        level += i\n        continue\n    print(i)", "level == 4"),
    "an assert between": ("limit = 3\nassert limit > 2, limit\nlimit", "limit == 3"),
}  # fmt: skip


def leans(w):
    """The answer needs something of another cell, or of its own."""
    what = w.rng.choice(list(HELPERS))
    cell, test = HELPERS[what]
    new = inside(w.answer, f"assert {test}")
    if new is None:
        return None
    where = w.rng.choice(["above", "above", "own", "between"])
    if what == "appended later":
        w.above.append(cell)
        w.rng.choice([w.above, w.between]).append("words.append('b')\nprint(words)")
    elif where == "own" and not cell.startswith("%%") and "1 / 0" not in cell:
        new = cell + "\n\n" + new
    else:
        (w.above if where != "between" else w.between).append(cell)
    w.answer = new
    name = test.split()[0].split("[")[0].split("(")[0].split(".")[0]
    if w.rng.random() < 0.4 and name.isidentifier():
        w.below.append(f"{name} = 'something else'\nprint({name})")
        what += ", bound again below"
    return what


def tries_it(w):
    other = w.other()
    w.answer += w.rng.choice([
        f"\n\n{other} = {w.call}\nprint({other})", f"\n\nfor {other} in range(2):\n    print({w.call})",
        f"\n\ntry:\n    {w.call}\nexcept Exception as error:\n    print(error)", f"\n\n{w.call}",
        f"\n\nassert {w.call} is not None", f"\n\nwith torch.no_grad():\n    {other} = {w.call}\n    print({other})",
    ])  # fmt: skip


def compares(w):
    where = w.rng.choice(["answer", "between", "above", "below"])
    first = w.rng.choice([f"from lib.attention import {w.name} as theirs", f"import lib.attention\ntheirs = lib.attention.{w.name}",
                          f"import lib.attention as tools\ntheirs = tools.{w.name}", f"from lib.attention import {w.name}"])  # fmt: skip
    theirs = w.name if first.endswith(f"import {w.name}") else "theirs"
    if w.id not in ("02.causal_mask", "02.attention", "03.split_heads", "03.merge_heads"):
        return None
    if theirs == w.name:
        if where in ("answer", "between", "below"):
            where = "above"
        w.above.append(f"{first}\nprint({w.name})")
        return
    text = f"{first}\nprint(torch.allclose({w.call}.float(), {theirs}{TRIES[w.id]}.float()))"
    if where == "answer":
        w.answer += "\n\n" + text
    else:
        getattr(w, where).append(text)


def magics(w):
    kind = w.rng.randrange(6)
    if kind == 0:
        w.answer = w.rng.choice(["%%time\n", "%%capture\n", "%%time\n\n"]) + w.answer
    elif kind == 1:
        w.answer = w.rng.choice(["%matplotlib inline\n", "!echo hello\n", "%load_ext autoreload\n%autoreload 2\n", "%pwd\n"]) + w.answer
    elif kind == 2:
        w.answer += f"\n%time {w.call}\n"
    elif kind == 3:
        w.answer += f"\n%timeit -n 1 -r 1 {w.call}"
    elif kind == 4:
        w.above.append("files = !echo a\nprint(files)\n%env X=1\n!echo {files}")
    else:
        w.between.append(f"%%time\n{w.call}")


def asks(w):
    kind = w.rng.randrange(4)
    if kind == 0:
        new = inside(w.answer, "pass  # is that the right way round?")
        if new is None:
            return None
        w.answer = new
    elif kind == 1:
        w.answer += f"\n{w.name}?\n"
    elif kind == 2:
        w.answer += "\n?torch.softmax\n# why?\n"
    else:
        w.answer = "# what does this want?\n" + w.answer + "\nnote = 'really?'\n"
    if w.rng.random() < 0.5 and not w.answer.startswith("%%"):
        w.answer = "%%time\n" + w.answer


def indents(w):
    if w.answer.startswith("%%") or ('"""' in w.answer.replace('"""\n', "", 1) and w.answer.count('"""') > 2):
        return None
    w.answer = textwrap.indent(w.answer, w.rng.choice(["    ", "  ", "\t"]))


def pastes(w):
    lines = w.answer.split("\n")
    if w.answer.startswith("%%") or any(line.startswith(("%", "!", "?")) for line in lines) or w.answer.count('"""') > 2:
        return None
    try:
        starts = {s.lineno for s in ast.parse(w.answer).body} | {
            d.lineno for s in ast.parse(w.answer).body for d in getattr(s, "decorator_list", ())}  # fmt: skip
    except SyntaxError:
        return None
    if w.rng.random() < 0.5:
        w.answer = "\n".join((">>> " if i in starts else "... ") + line for i, line in enumerate(lines, 1))
    else:
        w.answer = "\n".join((f"In [{i}]: " if i in starts else "   ...: ") + line for i, line in enumerate(lines, 1))


def splits(w):
    try:
        body = ast.parse(w.answer).body
    except SyntaxError:
        return None
    if len(body) < 2:
        w.copies.append("import math\nprint('my answer:')")
        return
    cut = body[w.rng.randrange(1, len(body))]
    first = min([cut.lineno, *(d.lineno for d in getattr(cut, "decorator_list", ()))])
    lines = w.answer.split("\n")
    w.copies.append("\n".join(lines[: first - 1]))
    w.answer = "\n".join(lines[first - 1 :])


def copies(w):
    kind = w.rng.randrange(3)
    if kind == 0:
        w.below_copies.append(w.wrong)
    elif kind == 1:
        w.copies.insert(0, w.wrong)
    else:
        w.below_copies.append(w.wrong + f"\nprint({w.name})")
        w.below.append("x = 3")


def second_try(w):
    kind = w.rng.randrange(4)
    if kind == 0:
        w.between.append(w.answer)
        w.answer = w.wrong
    elif kind == 1:
        w.between.append(w.answer)
        w.answer = "# my answer is below"
    elif kind == 2:
        w.below.append(w.wrong)
    else:
        w.above.append(w.wrong)


def renames(w):
    if f"def {w.name}(" not in w.answer or w.between:
        return None
    mine = f"my_{w.name}"
    kind = w.rng.randrange(3)
    w.answer = w.answer.replace(f"def {w.name}(", f"def {mine}(")
    if kind == 0:
        w.check = f'check("{w.id}", {mine})'
    elif kind == 1:
        w.answer += f"\n\n{w.name} = {mine}"
    else:
        w.between.append(f"{w.name} = {mine}\nprint({w.name})")


def scratch(w):
    w.below.append(w.rng.choice([
        "math = 'done'; torch = None", "import random as torch", "F = 3\nnn = None", "del math", f"{w.name} = None",
        "def helper():\n    raise ValueError\nlen = 3", "from math import *\nlog = 2", "for torch in range(3): pass",
    ]))  # fmt: skip


def awaits(w):
    w.answer = w.rng.choice(["import asyncio\n" + w.answer + "\nawait asyncio.sleep(0)\n",
                             "import asyncio\nawait asyncio.sleep(0)\n" + w.answer,
                             w.answer + "\nimport asyncio\nasync def later():\n    return 1\nprint(await later())"])  # fmt: skip


def dead_line(w):
    if not w.answer.rstrip().split("\n")[-1].lstrip().startswith("return"):
        return None
    last = w.answer.rstrip().split("\n")[-1]
    w.answer = w.answer.rstrip() + "\n" + last[: len(last) - len(last.lstrip())] + "raise NotImplementedError\n"


def decorates(w):
    if f"\ndef {w.name}(" not in "\n" + w.answer:
        return None
    kind = w.rng.randrange(4)
    timed = "import time\ndef timed(f):\n    def g(*a, **k):\n        start = time.time()\n        out = f(*a, **k)\n        took.append(time.time() - start)\n        return out\n    return g\ntook = []"
    if kind == 0:
        w.answer = ("\n" + w.answer).replace(f"\ndef {w.name}(", f"\n@torch.no_grad()\ndef {w.name}(")[1:]
        if w.answer.startswith("%%"):
            return None
    elif kind == 1:
        w.above.append(timed)
        w.answer = ("\n" + w.answer).replace(f"\ndef {w.name}(", f"\n@timed\ndef {w.name}(")[1:]
    elif kind == 2:
        w.above.append(timed)
        w.between.append(f"{w.name} = timed({w.name})\nprint({w.name})")
    else:
        w.between.append(f"_plain = {w.name}\ncalls = 0\ndef {w.name}(*args, **options):\n    global calls\n    calls += 1\n    return _plain(*args, **options)")


def counts(w):
    new = inside(w.answer, "seen.append(len(seen))")
    if new is None:
        return None
    w.answer = w.rng.choice([f"seen = []\n{new}\nprint(seen)", f"{new}\nseen = []"])


def line_ends(w):
    w.answer = w.answer.replace("\n", "\r\n") if w.rng.random() < 0.5 else w.answer.replace("    ", "\t")


def in_the_check(w):
    if w.answer.startswith("%%"):
        return None
    w.check, w.answer = w.answer + "\n\n" + w.check, w.rng.choice(["", "# see below"])


def checks_again(w):
    kind = w.rng.randrange(3)
    if kind == 0 and not w.answer.startswith("%%"):
        w.answer += "\n" + w.check
    elif kind == 1:
        w.between.append(w.check)
    else:
        w.below.append(w.check)


def errs(w):
    w.answer += w.rng.choice(["\n\nprint(a_name_i_deleted)", "\n\n1 / 0", "\n\nassert False, 'todo'", "\n\nopen('no such file')"])


def hints(w):
    new = ast.parse(w.answer) if not w.answer.startswith(("%", "!", "?", " ", "\t", ">", "I")) else None
    if new is None:
        return None
    w.answer = w.rng.choice([
        "from __future__ import annotations\n", 'from typing import Any, Optional\nTensorLike = "Tensor"\n',
    ]) + w.answer  # fmt: skip


def future_above(w):
    if f"def {w.name}(" not in w.answer:
        return None
    w.above.insert(0, "from __future__ import annotations\nprint('types are text')")
    head, _, rest = w.answer.partition(f"def {w.name}(")
    args, colon, body = rest.partition("):")
    w.answer = f"{head}def {w.name}({args}) -> NotImported:{body}" if colon else w.answer


def own_work(w):
    other = w.other()
    w.rng.choice([w.above, w.between, w.below]).append(w.rng.choice([
        f"{other} = torch.randn(3, 4)\n{other}.softmax(-1)", f"for step in range(3):\n    {other} = step\nprint({other})",
        "layer = nn.Linear(4, 4)\nopt = torch.optim.SGD(layer.parameters(), lr=0.1)\nfor _ in range(2):\n    opt.zero_grad()\n    layer(torch.ones(4)).sum().backward()\n    opt.step()",
        f"def {other}(n):\n    return n\nprint({other}(3))", "x = input_of_mine", "# only a comment", "", "%%bash\necho hi",
        "import os, sys\nprint(os.getcwd(), sys.version)",
    ]))  # fmt: skip


HABITS = [leans, leans, leans, tries_it, compares, magics, asks, indents, pastes, splits, copies, second_try, renames, scratch,
          awaits, dead_line, decorates, counts, line_ends, in_the_check, checks_again, errs, hints, future_above, own_work]  # fmt: skip
LATE = (indents, pastes, line_ends, in_the_check)  # they change how the whole cell looks


def make(seed: int) -> Notebook:
    """One learner's notebook."""
    from lib.answers import answer, mutant_source, reference_source
    from lib.exercises.exercise import exercise

    rng = random.Random(seed)
    first = rng.choice(IDS)
    same = [id for id in IDS if id[:2] == first[:2] and id != first]
    ids = [first, *rng.sample(same, min(len(same), rng.choice([0, 0, 1])))]
    nb = Notebook(f"n{seed:05}", first[:2], ids)
    nb.cells = [["import math\n\nimport matplotlib.pyplot as plt\nimport torch\nimport torch.nn.functional as F\n"
                 "from torch import nn\n\nimport lib.attention\nfrom lib.lesson import check, hint", ""]]  # fmt: skip
    around = [source for source in _lesson(first[:2])]
    nb.cells += [[source, ""] for source in sorted(rng.sample(around, min(3, len(around))), key=around.index)]
    for id in ids:
        e = exercise(id)
        kinds = [mutant_source(id, m.name) for m in answer(id).mutants]
        right = reference_source(id).strip()
        wrong = rng.choice(kinds).strip()
        w = Work(id, e.name, right, rng, check=f'check("{id}", {e.name})', right=right, wrong=wrong)
        luck = rng.random()
        if luck < 0.12:
            w.answer = wrong
        elif luck < 0.16:
            w.answer = e.stub
        habits = rng.sample(HABITS, rng.choice([1, 1, 2, 2, 3]))
        for habit in sorted(dict.fromkeys(habits), key=lambda h: h in LATE):
            before = (w.answer, list(w.above), list(w.between))
            try:
                told = habit(w)
            except SyntaxError:
                w.answer, w.above, w.between = before
                continue
            nb.habits.append(f"{habit.__name__}" + (f": {told}" if told else ""))
        nb.cells += w.cells()
    nb.cells += [[source, ""] for source in rng.sample(around, min(2, len(around)))]
    return nb


def _lesson(number: str) -> list[str]:
    """The lesson's own cells that cost nothing to run."""
    from lib.lesson.series import find, source

    [lesson] = find([number])
    found = [source(c) for c in lesson.notebook["cells"] if c["cell_type"] == "code" and "nbgrader" not in c["metadata"]]
    heavy = ("load_", "train(", "steps", "lesson.", "start(", "show(", "seed = 0", "hover_map", "Reader", "model")
    return [text for text in found if not any(word in text for word in heavy)]


# ------------------------------------------------------------------------------------------- a real kernel

BEGIN = """
import sys, types
if "honest_log" not in sys.modules:
    log = sys.modules["honest_log"] = types.ModuleType("honest_log")
    exec(get_ipython().user_ns["SPY"] if "SPY" in get_ipython().user_ns else SPY_TEXT, log.__dict__)
sys.modules["honest_log"].begin()
get_ipython().reset(new_session=False)
"""
SPY = """
import torch
import lib.lesson.checks as checks
evaluate, checks.record = checks.evaluate, lambda *a: None
def spy(exercise, answer, seed=0):
    result = evaluate(exercise, answer, seed)
    seen.append([exercise.id, result.points])
    return result
checks.evaluate = spy
def begin():
    global seen
    seen = []
    torch.set_default_dtype(torch.float32)
"""
BEGIN = BEGIN.replace('get_ipython().user_ns["SPY"] if "SPY" in get_ipython().user_ns else SPY_TEXT', repr(SPY))


class Kernel:
    """One ordinary kernel, its variables emptied before each notebook."""

    def __enter__(self) -> "Kernel":
        from jupyter_client.manager import start_new_kernel

        self.home = tempfile.TemporaryDirectory()
        env = os.environ | {"IPYTHONDIR": self.home.name, "COURSE_HOME": self.home.name, "MPLBACKEND": "agg"}
        self.manager, self.client = start_new_kernel(env=env, extra_arguments=["--HistoryManager.enabled=False"],
                                                     cwd=self.home.name)  # fmt: skip
        return self

    def __exit__(self, *_) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.home.cleanup()

    def run(self, sources: list[str], patience: float = 120) -> dict[str, int]:
        """{exercise: points that its check gave last}, with all cells run from the top, whatever fails."""
        self._do(BEGIN, patience)
        for source in sources:
            self._do(source, patience)
        said = self._do("", patience, {"seen": "__import__('json').dumps(__import__('sys').modules['honest_log'].seen)"})
        return dict(json.loads(ast.literal_eval(said["content"]["user_expressions"]["seen"]["data"]["text/plain"])))

    def _do(self, source: str, patience: float, ask: dict[str, str] | None = None) -> dict:
        wanted = self.client.execute(source, user_expressions=ask, stop_on_error=False, allow_stdin=False)
        while (reply := self.client.get_shell_msg(timeout=patience))["parent_header"].get("msg_id") != wanted:
            pass
        return reply


# ------------------------------------------------------------------------------------------- the grader


def graded(nb: Notebook, sandbox, rules_cost: bool = False) -> dict:
    """What the grader says: {"points": {exercise: points}, "flags": [...], "problems": [...]}."""
    from lib.grading.judge import judge
    from lib.grading.reading import Cell

    cells = tuple(Cell(*cell) for cell in nb.cells)
    report = judge(cells, nb.name, nb.lesson, "p", "d", sandbox, 0, frozenset(nb.ids), rules_cost)
    return {"points": {g.exercise: g.points for g in report.grades}, "flags": [f.what for f in report.flags],
            "problems": [g.problem for g in report.grades if g.problem]}  # fmt: skip


def accused(said: dict) -> list[str]:
    return [what for what in said["flags"] + said["problems"] if any(word in what for word in ACCUSATIONS)]


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "make":
        first, count, path = int(rest[0]), int(rest[1]), rest[2]
        with Kernel() as kernel, open(path, "w") as file:
            for seed in range(first, first + count):
                nb = make(seed)
                nb.points = kernel.run([source for source, _ in nb.cells])
                file.write(json.dumps(asdict(nb)) + "\n")
                file.flush()
        return
    from lib.grading.sandbox import Sandbox

    total, differ, flagged, accusations, silent = 0, 0, 0, 0, 0
    with Sandbox() as sandbox, open(rest[0]) as file:
        for line in file:
            nb = Notebook(**json.loads(line))
            said = graded(nb, sandbox)
            want = {id: nb.points.get(id, 0) for id in nb.ids}
            total += 1
            flagged += bool(said["flags"])
            if words := accused(said):
                accusations += 1
                print(f"ACCUSED {nb.name} {nb.habits}: {words}", flush=True)
            if said["points"] != want:
                differ += 1
                silent += not said["flags"] and not said["problems"]
                print(f"DIFFERS {nb.name} {nb.habits}: kernel {want}, grader {said}", flush=True)
    print(f"{total} notebooks: {differ} differ ({silent} of them silently), {flagged} flagged, {accusations} accused")


if __name__ == "__main__":
    main()
