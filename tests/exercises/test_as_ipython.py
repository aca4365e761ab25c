"""A cell is read as IPython reads it, and its lines stay where they were."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from lib.exercises.as_ipython import error, parse, plain, unreadable

LATE = "raise SyntaxError('a cell magic is the first line of its cell, or an error')"
AWAITED = "raise SyntaxError('nothing can be awaited in a cell that is timed')"
INSTALLS = "try:\n    import e\nexcept ImportError:\n    "


def code(source):
    return "; ".join(ast.unparse(s) for s in parse(source))


@pytest.mark.parametrize(("source", "want"), [
    ("%matplotlib inline\n!pip install x\nx = 1\n", "pass; pass; x = 1"),
    ("x = (7\n% 4)", "x = 7 % 4"), ("%%html\n<b>", "pass"), ("%%bash\nx = 1", "pass"), ("%%timeit\nx = 1", "pass"),
    ("%%time\nx = 1", "x = 1"), ("%%capture\n%%time\n!ls\nx = 1", "pass; x = 1"), ("\n\n%%time -x\nx = 1", "x = 1"),
    ("%time x = f(2)", "x = f(2)"), ("x = %time f(2)", "x = f(2)"), ("%timeit f(2)", "pass"),
    ("x = !ls", "x = get_ipython().getoutput('ls')"), ("f?\n?g\nh??\nx = 1", "pass; pass; pass; x = 1"),
    ("x = 1  # is that right?\n# or?", "x = 1"), ("x = 'why?'\n!ls", "x = 'why?'; pass"),
    ("    x = 1\n    y = 2", "x = 1; y = 2"), (">>> def f():\n...     return 2\n", "def f():\n    return 2"),
    ("In [3]: x = 1\n   ...: y = 2", "x = 1; y = 2"), ("await f()\nx = 1", "await f(); x = 1"),
    (INSTALLS + "!pip install e", INSTALLS + "pass"),
    ("get_ipython().run_line_magic('time', '1'); x = 1", "1; x = 1"),
    ("x = 1\n%%time\ny = 2", "x = 1; " + LATE), ("# a\n%%capture\ny = 2\n%%time\nz", LATE),
    ("%%time\nx = 1\nif x:\n    await f()", AWAITED), ("%%capture\nawait f()", "await f()"),
    ("%%time\nasync def f():\n    await g()", "async def f():\n    await g()"),
])  # fmt: skip
def test_as_ipython_reads_it(source, want):
    assert code(source) == want


@pytest.mark.parametrize("source", [
    "\n\n%%time\n\ndef f():\n    return 2\n", "%cd x\n\n\ndef f(): pass", "\n \n    a = 1\n    def f():\n        pass",
    "f?\ndef g(): pass",
])  # fmt: skip
def test_lines_stay_where_they_were(source):
    [f] = [s for s in parse(source) if isinstance(s, ast.FunctionDef)]
    assert source.split("\n")[f.lineno - 1].strip().startswith("def ")


@pytest.mark.parametrize("source", [
    "def f(:", "x = (", "\0", "(" * 5000, "-" * 100_000 + "1", "%x\n" * 5000 + "(", "?", "%%", "x = !",
])  # fmt: skip
def test_what_is_no_python_has_no_statements_or_none_that_count(source):
    body = parse(source)
    assert all(isinstance(s, ast.Pass) or "get_ipython" in ast.unparse(s) for s in body)
    assert body or error(source) or unreadable(source)


@pytest.mark.parametrize("source", ["x = " + "+".join(["1"] * 900), "x" + ".a" * 900, "-" * 100_000 + "1"])
def test_what_is_too_deep_is_told(source):
    assert parse(source) == [] and "too deeply" in unreadable(source) and not error(source)
    assert not unreadable("x = 1") and not unreadable("def f(:")


PIECES = ["x = 1", "%time y = 2", "!ls", "f?", "# why?", "s = '''", ">>> a", "...", "    b = 1", "def f():",
          "    return 1", "%%time", "x = (", ")", "if x:", "'''", "In [1]: c", "await g()", "", "x %= 3", "z = x != 1",
          "...   ", "@f"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_python_is_taken_as_it_stands_only_where_ipython_does_so_too(pieces):
    """What we read without asking IPython, IPython would not have changed."""
    source = "\n".join(pieces)
    theirs = TransformerManager().transform_cell(source)
    try:
        want = ast.dump(ast.parse(theirs))
    except SyntaxError:
        assert parse(source) == [] or "%%" in source
        return
    if "get_ipython" not in theirs and not source.lstrip().startswith("%%"):
        assert ast.dump(ast.parse(plain(source))) == want
