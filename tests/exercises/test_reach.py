"""What a name reaches in a notebook, and what stood when its check ran."""

import ast

import pytest

from lib.exercises.as_ipython import parse
from lib.exercises.exercise import exercise
from lib.exercises.reach import MOST_STEPS, Program, lean, surely, touched
from lib.exercises.standing import answer, standing_alone

MASK = exercise("02.causal_mask")
KEY = "02-causal_mask"
GOOD = "def causal_mask(n):\n    return helper(n)"
CHECK = ('check("02.causal_mask", causal_mask)', f"{KEY}-check")


def reached(source, name="f"):
    body = parse(source)
    found = Program(body).reach(name)
    return [ast.unparse(body[i]).split("\n")[0] for i in found.chosen], found.missing


@pytest.mark.parametrize(("source", "want"), [
    ("a = heavy()\na = 2\ndef f(): return a", ["a = 2", "def f():"]),  # the older meaning is nobody's
    ("a = 1\na = a + 1\na += 1\ndef f(): return a", ["a = 1", "a = a + 1", "a += 1", "def f():"]),
    ("a = 1\nif x: a = 2\ndef f(): return a", ["a = 1", "if x:", "def f():"]),
    ("a = 1\nif True: a = 2\nelse: a = 3\ndef f(): return a", ["if True:", "def f():"]),
    ("a = 1\nwith b: a = 2\ndef f(): return a", ["with b:", "def f():"]),
    ("try: import e\nexcept ImportError: e = None\ndef f(): return e", ["try:", "def f():"]),
    ("def f(): return a\na = 1\na = 2", ["def f():", "a = 2"]),  # a function sees what stands last
    ("a = 1\nb = a\na = 2\ndef f(): return b", ["a = 1", "b = a", "def f():"]),  # other code, what stood then
    ("def g(): return 1\nb = g()\ndef g(): return 2\ndef f(): return b", ["def g():", "b = g()", "def f():"]),
    ("a = []\na.append(1)\nprint(a)\nplt.plot(a)\ndef f(): return a", ["a = []", "a.append(1)", "def f():"]),
    ("a = {}\na['x'] = 1\na.y = 2\ndel a['x']\ndef f(): return a", ["a = {}", "a['x'] = 1", "a.y = 2", "del a['x']", "def f():"]),
    ("a = {}\ndef fill(x): x[1] = 2\nfill(a)\ndef f(): return a", ["a = {}", "def fill(x):", "fill(a)", "def f():"]),
    ("def set_up():\n    global a\n    a = 1\nset_up()\ndef f(): return a", ["def set_up():", "set_up()", "def f():"]),
    ("a = []\ndef add(): a.append(1)\ndef more(): add()\nmore()\ndef f(): return a",
     ["a = []", "def add():", "def more():", "more()", "def f():"]),
    ("import torch\ntorch.manual_seed(0)\ntorch.save(x, 'x')\ntorch.set_default_dtype(torch.float64)\ndef f(): return torch",
     ["import torch", "torch.manual_seed(0)", "def f():"]),
    ("import random\no = [1]\nrandom.shuffle(o)\ndef f(): return o", ["import random", "o = [1]", "random.shuffle(o)", "def f():"]),
    ("class A:\n    x = 1\n    y = x\n    def g(self): return B\nB = 1\ndef f(): return A", ["class A:", "B = 1", "def f():"]),
    ("from math import *\ndef f(): return sqrt", ["from math import *", "def f():"]),
    ("for i in range(3):\n    a = i\n    print(b)\ndef f(): return a", ["for i in range(3):", "def f():"]),
    ("match p:\n    case [a, *b]: pass\ndef f(): return b", ["match p:", "def f():"]),
    ("if (n := 3) > 2: pass\ndef f(): return n", ["if (n := 3) > 2:", "def f():"]),
    ("def d(g): return g\ns = 1\n@d\ndef f(x=s): return x\nunused = 1", ["def d(g):", "s = 1", "@d"]),
    ("f = lambda: g()\ndef g(): return 1\ng = None", ["f = lambda: g()", "g = None"]),
    ("def f(): return g()\ndef g(): return f()", ["def f():", "def g():"]),
])  # fmt: skip
def test_what_a_name_reaches(source, want):
    assert reached(source)[0] == want


@pytest.mark.parametrize(("source", "missing"), [
    ("def f(): return a", {"a"}), ("def f(): return len(math.pi)", set()), ("x = f\ndef f(): return x", set()),
    ("for i in y:\n    z = i\ndef f(): return z", {"y"}), ("from m import *\ndef f(): return a", set()),
    ("def f():\n    try: g()\n    except E as e: print(e)\n    match 1:\n        case [h, *k]: return h, k", {"g", "E"}),
    ("class f:\n    a = 1\n    b = a\n    def g(self): return [c for c in self.d]", set()),
])  # fmt: skip
def test_what_is_missing_is_named(source, missing):
    assert reached(source)[1] == missing


def test_what_only_shows_something_is_left_out_of_a_loop():
    [loop] = parse("for i in a:\n    print(i)\n    plt.plot(i)\n    b.append(i)\n    assert i\n    if i:\n        i\n    else:\n        c = 1")
    assert ast.unparse(lean(loop)) == "for i in a:\n    b.append(i)\n    if i:\n        pass\n    else:\n        c = 1"
    assert ast.unparse(loop).count("print") == 1, "the statement itself stays as it is, for others"


def test_a_search_ends_however_tangled_the_notebook_is():
    source = "\n".join(f"a{i % 50} = a{(i * 7) % 50} + a{(i * 3) % 50}" for i in range(3000)) + "\ndef f(): return a1"
    found = Program(parse(source)).reach("f")
    assert found.chosen and isinstance(found.whole, bool) and MOST_STEPS


@pytest.mark.parametrize("source", ["x = " + "+".join(["1"] * 900), "x" + ".a" * 900, "x = " + "[" * 80 + "]" * 80])
def test_code_deeper_than_any_is_read_all_the_same(source):
    for statement in parse(source):
        touched(statement), surely(statement), lean(statement)
    answer([(GOOD, KEY), (source, "")], MASK)


def test_helpers_come_before_and_after_in_their_order():
    cells = [("def helper(n): return old", ""), (GOOD + "\nprint(helper)", KEY), ("def helper(n): return new\nnew = 1", ""),
             CHECK, ("def helper(n): return wrong", "")]  # fmt: skip
    code = answer(cells, MASK).code
    assert code.helpers == () and code.after == ("def helper(n):\n    return new", "new = 1") and code.loose == (3,)


def test_an_answer_that_leans_on_itself_is_not_forgotten_on_the_way():
    cells = [(GOOD, KEY), ("_plain = causal_mask\ndef causal_mask(n):\n    return _plain(n)", ""), CHECK]
    code = answer(cells, MASK).code
    assert code.helpers == (GOOD,) and not code.fresh and code.source.startswith("_plain")


def test_only_what_stands_where_the_check_is_called_last():
    cells = [("def causal_mask(n): return 1", KEY), CHECK, ("def causal_mask(n): return 2\n" + CHECK[0], ""),
             ("def causal_mask(n): return 3", "")]  # fmt: skip
    assert "return 2" in answer(cells, MASK).code.source and "check" not in answer(cells, MASK).code.source
    assert "return 2" in standing_alone(cells, MASK)


def test_a_stub_of_another_exercise_gives_nothing_but_what_stands_beside_it_does():
    stub = exercise("02.attention").stub
    cells = [(stub + "\nhelper = 3", "02-attention"), (GOOD + " + attention", KEY), CHECK]
    found = answer(cells, MASK)
    assert found.code.helpers == ("helper = 3",) and found.missing == ("attention",)


def test_what_only_cells_below_the_check_give_is_taken_from_there_and_told():
    cells = [(GOOD, KEY), CHECK, ("def helper(n): return tri(n) > size", ""), ("from numpy import tri\nsize = 1\nprint(2)", "")]
    found = answer(cells, MASK)
    assert found.code.helpers == ("def helper(n):\n    return tri(n) > size", "from numpy import tri", "size = 1")
    assert found.notes == tuple(f"needs `{n}`, which only a cell below its check defines" for n in ("helper", "size", "tri"))
    above = answer([("size = 0", ""), *cells], MASK)
    assert "size = 0" in above.code.helpers and "size = 1" not in above.code.helpers


def test_an_answer_below_its_check_counts_where_none_stands_above_and_is_told():
    cells = [CHECK, ("def causal_mask(n): return 1", KEY)]
    assert answer(cells, MASK).notes == ("the answer stands below its check",)
    stub = (MASK.stub, KEY)
    assert answer([stub, CHECK, ("def causal_mask(n): return 1", "")], MASK).code is None


def test_a_lessons_list_of_the_name_of_somebodys_function_does_not_stand_in_its_way():
    cells = [("plain, helper = [1], [2]", ""), (GOOD, KEY), CHECK, ("def helper(n): return 3", "")]
    assert answer(cells, MASK).code.helpers == ("def helper(n):\n    return 3",)
    cells = [("def helper(n): return 2", ""), (GOOD, KEY), CHECK, ("def helper(n): return 3", "")]
    assert answer(cells, MASK).code.helpers == ("def helper(n):\n    return 2",)
