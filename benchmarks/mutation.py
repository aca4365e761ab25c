"""Do the unit tests notice? Small wrong changes to a module, drawn by a seed, each put to the tests of the same name.

    python benchmarks/mutation.py                        # the story, generation, sizing, evaluation, fine-tuning
    python benchmarks/mutation.py attention decide.sizing --seed 7 --count 30
    python benchmarks/mutation.py attention --show 12    # one change of the draw, as a diff

A mutant is the module with one place changed: another operator, a number off by one, a condition turned round, an
argument lost, a statement left out. It is killed if a test fails or no longer ends. What survives is a missing test or
an equal program; those that were looked at and found equal are listed in EQUAL, by what they change.
"""

import argparse
import ast
import copy
import difflib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "benchmarks" / "mutation.json"
MODULES = (
    "device", "corpus", "tokenizer", "embedding", "attention", "transformer", "training", "generation", "vision",
    "decide.sizing", "decide.evaluation", "adapt.lora", "adapt.finetuning",
)  # fmt: skip
# Equal programs: `module: the changed line as it was -> as it is`, with the reason.
EQUAL = {
    "tokenizer: GONE = -1 -> GONE = -2":
        "any number that is no token",
    "tokenizer: super().__init__() -> pass":
        "a dict without arguments is empty either way",
    "tokenizer: temporary.write_text(json.dumps(saved, allow_nan=False), encoding='utf-8') -> "
    "temporary.write_text(json.dumps(saved), encoding='utf-8')":
        "nothing saved is a float",
    "generation: return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits) -> "
    "return torch.where(seen, torch.where(logits >= 0, logits / penalty, logits * penalty), logits)":
        "0 is 0 either way",
    "vision: def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int=500) -> float: -> "
    "def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int=501) -> float:":
        "the same pictures, in other portions",
    "vision: found = [model(part.to(device)).argmax(-1).cpu() for part in images.split(batch_size)] -> "
    "found = [model(part.to(device)).argmax(1).cpu() for part in images.split(batch_size)]":
        "scores have two axes",
    "decide.sizing: near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5) -> "
    "near = difflib.get_close_matches(wanted, known, cutoff=0.5)":
        "the nearest stands first",
    "adapt.lora: with torch.random.fork_rng(devices=[]): -> with torch.random.fork_rng():":
        "the same where there is no GPU",
    "adapt.lora: plain = nn.Linear(1, 1, bias=False) -> plain = nn.Linear(1, 1)":
        "weight and bias are put in its place",
    "adapt.lora: plain = nn.Linear(1, 1, bias=False) -> plain = nn.Linear(1, 2, bias=False)":
        "so are its sizes",
    "adapt.finetuning: text = fingerprint(torch.tensor([*every, *(int(10000.0 * x) for x in base_sample(model))])) -> "
    "text = fingerprint(torch.tensor([*every, *(int(10000.0 / x) for x in base_sample(model))]))":
        "tells as much apart",
}  # fmt: skip

COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
           ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip
BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
          ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip


def places(tree: ast.Module) -> list[tuple[ast.AST, str, int]]:
    """Every change that can be made: the node, what is done to it, and to which of its parts."""
    skipped = {id(node) for node in _skipped(tree)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Compare):
            found += [(node, "compare", i) for i, op in enumerate(node.ops) if type(op) in COMPARE]
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in BINARY:
            found.append((node, "operator", 0))
        elif isinstance(node, ast.BoolOp):
            found += [(node, "and/or", 0), *((node, "one less", i) for i in range(len(node.values)))]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            found.append((node, "without its sign", 0))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            found.append((node, "constant", 0))
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            found.append((node, "condition", 0))
        elif isinstance(node, ast.Call):
            found += [(node, "without an argument", i) for i, word in enumerate(node.keywords) if word.arg]
        elif isinstance(node, ast.Return) and node.value is not None:
            found.append((node, "returns nothing", 0))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found.append((node, "left out", 0))
        if isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break):
            found.append((node, "left out", 0))
    return found


def _skipped(tree: ast.Module):
    """Docstrings, annotations and texts that only people read."""
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.JoinedStr):
            parts.append(node)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts += node.exc.args
        for part in filter(None, parts):
            yield from ast.walk(part)


def mutated(tree: ast.Module, at: int) -> ast.Module:
    """A copy of the tree with the change of that number made."""
    tree = copy.deepcopy(tree)
    node, what, i = places(tree)[at]
    if what == "compare":
        node.ops[i] = COMPARE[type(node.ops[i])]()
    elif what == "operator":
        node.op = BINARY[type(node.op)]()
    elif what == "and/or":
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif what == "one less":
        del node.values[i]
    elif what == "without its sign":
        _replace(tree, node, node.operand)
    elif what == "constant":
        value = node.value
        node.value = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 2 + 0.1
    elif what == "condition":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif what == "without an argument":
        del node.keywords[i]
    elif what == "returns nothing":
        node.value = ast.Constant(None)
    else:
        _replace(tree, node, ast.Pass())
    return ast.fix_missing_locations(tree)


def _replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    ast.copy_location(new, old)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]


def changed(tree: ast.Module, other: ast.Module) -> str:
    """The change as one line: `was -> is`."""
    was, now = (ast.unparse(t).splitlines() for t in (tree, other))
    lines = [line for line in difflib.ndiff(was, now) if line[0] in "-+"]
    gone = " ".join(line[2:].strip() for line in lines if line[0] == "-")
    come = " ".join(line[2:].strip() for line in lines if line[0] == "+")
    return f"{gone} -> {come}"


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the mutant in the module's place."""

    def __init__(self, name: str, path: Path, tree: ast.Module):
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.tree, str(self.path), "exec"), vars(module))


def put_to_the_tests(name: str, path: Path, tree: ast.Module | None, tests: Path, limit: float) -> tuple[str, float]:
    """Run the tests in a fork of this process: ("killed" | "survived" | "no end", seconds)."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()  # what the tests start ends with them
        log = os.open(os.environ.get("MUTATION_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        import lib  # noqa: F401  it asks to be first at finding modules; the mutant is found before

        if tree is not None:
            sys.meta_path.insert(0, Instead(name, path, tree))
        import pytest

        status = 1
        try:
            loaded = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that transformers has loaded already
            plain = ["-x", "-q", "-W", loaded, "-p", "no:cacheprovider", "-p", "no:xdist"]
            status = int(pytest.main([*plain, str(tests)]))
        finally:
            os._exit(status)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        taken = time.monotonic() - began
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed", taken
        if taken > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "no end", taken
        time.sleep(0.02)


def examine(short: str, seed: int, count: int) -> dict:
    """Draw `count` mutants of a module and put each to its tests."""
    *room, last = short.split(".")
    path = ROOT.joinpath("lib", *room, f"{last}.py")
    tests = ROOT.joinpath("tests", *room, f"test_{last}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    number = len(places(tree))
    drawn = sorted(random.Random(f"{seed} {short}").sample(range(number), min(count, number)))
    how, whole = put_to_the_tests(f"lib.{short}", path, None, tests, 1800)
    if how != "survived":
        raise SystemExit(f"the tests of lib.{short} fail as it is; mend them first")
    result = {"module": short, "seed": seed, "places": number, "drawn": len(drawn), "seconds": round(whole, 1),
              "killed": 0, "no end": 0, "equal": [], "survived": []}  # fmt: skip
    for at in drawn:
        other = mutated(tree, at)
        said = changed(tree, other)
        if f"{short}: {said}" in EQUAL or ast.dump(other) == ast.dump(tree):
            result["equal"].append(said)
            continue
        how, _ = put_to_the_tests(f"lib.{short}", path, other, tests, 3 * whole + 20)
        if how == "survived":
            result["survived"].append({"number": at, "line": places(tree)[at][0].lineno, "change": said})
            print(f"  {short}:{places(tree)[at][0].lineno} [{at}] survives: {said}", flush=True)
        else:
            result["killed" if how == "killed" else "no end"] += 1
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES), metavar="MODULE", help="as in decide.sizing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=30, help="mutants a module")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="print one change of the module and end")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path[:0] = [str(ROOT)]
    os.chdir(ROOT)
    if options.show is not None:
        tree = ast.parse((ROOT / "lib" / f"{options.modules[0].replace('.', '/')}.py").read_text(encoding="utf-8"))
        was, now = (ast.unparse(t).splitlines() for t in (tree, mutated(tree, options.show)))
        print("\n".join(difflib.unified_diff(was, now, "as it is", "mutant", lineterm="", n=4)))
        return
    _warm_up()
    results = []
    print(f"{'module':20}{'places':>8}{'drawn':>7}{'killed':>8}{'equal':>7}{'survived':>10}", flush=True)
    for short in options.modules:
        result = examine(short, options.seed, options.count)
        killed, equal = result["killed"] + result["no end"], len(result["equal"])
        share = killed / max(1, result["drawn"] - equal)
        print(f"{short:20}{result['places']:8}{result['drawn']:7}{killed:8}{equal:7}{len(result['survived']):10}"
              f"{share:7.0%}", flush=True)
        results.append(result)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


def _warm_up() -> None:
    """What all tests load, once; nothing of lib's story, which a fork loads with its change."""
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
