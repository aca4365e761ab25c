"""Which statements a name needs, and nothing else."""

import ast

import pytest

from lib.exercises.as_ipython import parse
from lib.exercises.closure import bound, digest, needed, used

LESSON = """
import numpy as np
import matplotlib.pyplot as plt
from math import *
data = train(1000)
def helper(x):
    return np.tri(x) * factor
factor = 2
factor = factor + 1
print("heavy")
def other():
    return data
"""


def names(statements):
    return [ast.unparse(s).split("\n")[0] for s in statements]


def test_what_an_answer_needs_and_through_it():
    got = names(needed(parse(LESSON), {"helper"}))
    assert got == ["import numpy as np", "from math import *", "def helper(x):", "factor = 2", "factor = factor + 1"]
    assert "data = train(1000)" in names(needed(parse(LESSON), {"other"}))


def test_a_ring_of_functions_ends():
    ring = parse("def f(): return g()\ndef g(): return f()")
    assert len(needed(ring, {"f"})) == 2


@pytest.mark.parametrize(("source", "want"), [
    ("import a.b.c", {"a"}), ("import a.b as c", {"c"}), ("from a import b as c, d", {"c", "d"}),
    ("x, (y, *z) = 1, (2, 3)", {"x", "y", "z"}), ("x: int = 3", {"x"}), ("class A: pass", {"A"}), ("f()", set()),
    ("for i in x: pass", set()),
])
def test_names_that_a_statement_gives(source, want):
    assert bound(ast.parse(source).body[0]) == want


def test_names_that_a_statement_reads():
    assert used(ast.parse("y = f(x).z[w]")) == {"f", "x", "w"}


def test_a_digest_changes_with_the_code_and_not_with_its_looks():
    old = digest("def f(x):\n    return g(x)\ndef g(x): return 1\ndef h(): pass", {"f"})
    assert digest("def f(x):\n    # why\n    return g( x )\ndef g(x): return 1\ndef h(): return 3", {"f"}) == old
    assert digest("def f(x):\n    return g(x)\ndef g(x): return 2", {"f"}) != old
