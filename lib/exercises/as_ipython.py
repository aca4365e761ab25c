"""A notebook's cell as IPython reads it: the same text for whoever looks at the code and for whoever runs it."""

import ast
import collections
import functools
import re

from lib.exercises.closure import children

SHORT = 4_000  # characters; so that what is remembered stays small, whatever is handed in
LONG = 1_000_000  # characters of longer sources that are remembered, all together
DEEP = 250  # levels of syntax; code that people write has 50
MOST_MAGIC = 100  # lines of a cell that may be IPython's own; each takes IPython another look at the whole cell
PROMPTS = re.compile(r"^[ \t]*(?:>>>|\.\.\.|In \[)", re.M)
MAGIC = re.compile(r"^\s*[%!?,;/]|\?\s*$|=\s*[%!]", re.M)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SAME_NAMES = ("time", "capture", "prun")  # cell magics that run their cell here


def parse(source: str) -> list[ast.stmt]:
    """The statements of a cell; [] for one that is no Python, or more of it than can be read.

    They are for reading only: a class of learners has the same cells over and over, and they are read once.
    """
    return _read(source)[0]


def error(source: str) -> str:
    """Why a cell does not run at all, as Python says it; "" if it may."""
    return _read(source)[1]


def unreadable(source: str) -> str:
    """Why a cell that Python might run cannot be read here, "" if it can, or if it is no Python for anybody.

    What has not been read must not be run: whoever looks for something in it would look at nothing.
    """
    return _read(source)[2]


def _read(source: str) -> tuple[list[ast.stmt], str, str]:
    if len(source) <= SHORT:
        return _once(source)
    if source in _long:
        _long.move_to_end(source)
        return _long[source]
    _long[source] = _parse(source)
    while sum(map(len, _long)) > LONG and len(_long) > 1:
        _long.popitem(last=False)
    return _long[source]


_long: collections.OrderedDict[str, tuple[list[ast.stmt], str, str]] = collections.OrderedDict()


def _parse(source: str) -> tuple[list[ast.stmt], str, str]:
    try:
        tree = ast.parse(plain(source))
    except SyntaxError as problem:
        where = f" in line {problem.lineno}" if problem.lineno else ""
        return [], f"{type(problem).__name__}{where}: {problem.msg}", ""
    except (RecursionError, MemoryError):
        return [], "", "it is nested too deeply to be read"
    except ValueError:
        return [], "", "it holds characters that no code has"
    level: list[ast.AST] = [tree]
    for _ in range(DEEP):
        level = [child for node in level for child in children(node)]
        if not level:
            return tree.body, "", ""
    return [], "", "it is nested too deeply to be read"


_once = functools.lru_cache(maxsize=1024)(_parse)


def plain(source: str) -> str:
    """The Python that IPython makes of a cell, each line where it was.

    Prompts and indentation that were pasted along are gone. A magic is nothing, but for those that run a statement
    (`%time x = f()` is `x = f()`); what is assigned from one stays a call of `get_ipython()`. A cell magic below the
    first line is an error, and what follows it never runs.
    """
    return _plain_once(source) if len(source) <= SHORT else _plain(source)


def _plain(source: str) -> str:
    if _is_python(source):
        return source if "get_ipython" not in source else _without_magic(source)
    lines = source.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        name = re.match(r"%%(\w*)", lines[first])[1]
        if name in SAME_NAMES and not lines[first].rstrip().endswith("?"):
            inside = plain("\n".join(lines[first + 1 :]))
            if name != "capture" and _awaits(inside):  # these run their cell as a program, where nothing is awaited
                inside = 'raise SyntaxError("nothing can be awaited in a cell that is timed")'
            return "\n" * (first + 1) + inside
    if len(MAGIC.findall(source)) > MOST_MAGIC:
        return source
    try:
        from IPython.core.inputtransformer2 import TransformerManager  # half a second, and few cells need it

        text = TransformerManager().transform_cell(source)
    except Exception:  # what IPython cannot read it shows as an error
        return source
    return _without_magic("\n" * first + text)


_plain_once = functools.lru_cache(maxsize=256)(_plain)


def _awaits(source: str) -> bool:
    """Whether a cell awaits something outside its functions."""
    try:
        level: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    while level:
        if any(isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) for node in level):
            return True
        level = [child for node in level if not isinstance(node, FUNCTIONS) for child in children(node)]
    return False


def _is_python(source: str) -> bool:
    """Whether IPython would run a cell as it stands: its own syntax is never Python's."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    except (RecursionError, MemoryError):
        return True
    return not PROMPTS.search(source)


def _without_magic(text: str) -> str:
    """Python with its calls of `get_ipython()` made nothing, or what they would run."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    lines, taken, found = text.split("\n"), set(), []
    if late := _late_magic(tree):
        lines[late - 1 :] = ['raise SyntaxError("a cell magic is the first line of its cell, or an error")']
        tree.body = [s for s in tree.body if s.lineno < late]
    for node in ast.walk(tree):
        call = node.value if isinstance(node, ast.Expr) else node
        asked = _asked(call)
        if asked and node not in taken and node.lineno == node.end_lineno:
            taken.add(call)
            found.append((node.lineno, node.col_offset, node.end_col_offset, _instead(*asked, alone=call is not node)))
    for number, start, end, new in sorted(found, reverse=True):
        line = lines[number - 1].encode()
        lines[number - 1] = (line[:start] + (new.encode() or line[start:end]) + line[end:]).decode()
    return "\n".join(lines)


def _late_magic(tree: ast.Module) -> int:
    """The line of a cell magic that is not the cell's first line, where IPython ends the cell; 0 if there is none."""
    asked = ((s.lineno, _asked(s.value)) for s in tree.body if isinstance(s, ast.Expr))
    return next((line for line, a in asked if a and a[0] == "run_line_magic" and a[1][:1] and a[1][0][0] == "%"), 0)


def _instead(kind: str, words: list[str], alone: bool) -> str:
    """What stands for a magic: what it would run, or nothing; "" if its value is asked for, and unknown."""
    if kind == "run_line_magic" and words[:1] == ["time"] and len(words) == 2 and "\n" not in words[1]:
        try:
            compile(words[1], "<magic>", "exec" if alone else "eval", ast.PyCF_ONLY_AST)
            return words[1].strip() or "pass"
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return "pass" if alone else ""


def _asked(node: ast.AST) -> tuple[str, list[str]] | None:
    """What `get_ipython().kind("words", …)` asks for; None for anything else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _shell(node.func.value)):
        return None
    return node.func.attr, [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]


def _shell(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"
