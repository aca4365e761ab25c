"""The core of grading: what a learner's code may do, what it is told, and that both are the same everywhere."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch

from lib.answers import Answer, Mutant, load, mutant_source, reference_source
from lib.errors import CourseError
from lib.exercises.exercise import Exercise, Property, exercise, exercises
from lib.exercises.properties import (
    call,
    call_method,
    close,
    differs,
    dtype,
    finite,
    integer,
    normal,
    number,
    shape,
    tensor,
    truth,
)
from lib.exercises.result import evaluate
from lib.exercises.verdict import AnswerError, NotAttempted, Wrong
from lib.lesson import check, hint
from lib.lesson.checks import _failed, report
from lib.lesson.handmade import parts

STUB = "def double(x):\n    raise NotImplementedError\n"


def one(test, **changes):
    fields = dict(id="02.double", title="Double", points=2, difficulty=1, minutes=1, prompt="Double it.", stub=STUB,
                  properties=[Property("doubles", 2, test)], hints=("one", "two", "three"))
    return Exercise(**{**fields, **changes})


def doubles(answer, rng):
    x = normal(rng, 3)
    close(answer(x), 2 * x, "not doubled")


@pytest.fixture(autouse=True)
def fresh_kernel(monkeypatch):
    monkeypatch.delenv("COURSE_CHECK_SEED", raising=False)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    _failed.clear()


# --- what an exercise must be ---


@pytest.mark.parametrize(("changes", "says"), [
    ({"id": "2.double"}, "an id is"),
    ({"points": 3}, "states 3 points"),
    ({"hints": ("one", "two")}, "three hints"),
    ({"hints": ("one", "two", " ")}, "three hints"),
    ({"difficulty": 4}, "difficulty"),
    ({"minutes": 0}, "minutes"),
    ({"prompt": " "}, "prompt"),
    ({"stub": "def triple(x):\n    raise NotImplementedError"}, "must define double"),
    ({"stub": "def double(x):\n    raise NotImplementedError('later')"}, "NotImplementedError"),
    ({"stub": "def double(x:"}, "must define double"),
    ({"properties": [Property("a", 1, doubles), Property("a", 1, doubles)]}, "same name"),
    ({"properties": [Property("a", 2, doubles), Property("b", 0, doubles)]}, "at least one point"),
])
def test_a_malformed_exercise_is_refused(changes, says):
    with pytest.raises(CourseError, match=says):
        one(doubles, **changes)


def test_a_class_may_be_the_answer():
    stub = "class Counter:\n    def step(self, x):\n        raise NotImplementedError"

    def counts(answer, rng):
        counter = answer()
        call_method(counter, "step", 2)
        close(call_method(counter, "step", 3), 5, "does not add up")

    e = one(counts, stub=stub, name="Counter")
    source = "class Counter:\n    n = 0\n    def step(self, x):\n        self.n += x\n        return self.n"
    assert evaluate(e, load(source, "Counter")).points == 2
    assert not evaluate(e, load(stub, "Counter")).attempted
    assert "no method `step`" in evaluate(e, load("class Counter: pass", "Counter")).first_failure.message


def test_bad_ids_are_one_clear_line(capsys):
    with pytest.raises(CourseError, match=r"did you mean 02\.causal_mask"):
        exercise("02.casual_mask")
    with pytest.raises(CourseError, match="two digits"):
        exercises("2")
    assert exercises("99") == ()
    check("02.casual_mask", None)
    hint("nonsense")
    hint("02.causal_mask", 4)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3 and "did you mean" in printed[0] and "three hints" in printed[2]


# --- the door to the learner's code ---


def lines(source, name="f"):
    return load(source, name)


def test_an_exception_is_told_with_type_text_and_line():
    f = lines("def g(x):\n    return x @ torch.ones(7)\n\ndef f(x):\n    return g(x)\n")
    with pytest.raises(Wrong, match=r"raised RuntimeError in line 2 \(`return x @ torch.ones\(7\)`\): .+"):
        call(f, torch.ones(3))
    with pytest.raises(Wrong, match="raised SystemExit in line 2"):
        call(lines("def f():\n    raise SystemExit"))
    with pytest.raises(Wrong, match="raised RecursionError"):
        call(lines("def f():\n    return f()"))
    with pytest.raises(Wrong, match=r"raised TypeError: f\(\) takes 0"):
        call(lines("def f(): pass"), 1)
    with pytest.raises(Wrong) as wrong:
        call(lines("def f():\n    raise ValueError(f'{object()}' + 'x' * 1000)"))
    assert "0x" not in wrong.value.message and len(wrong.value.message) < 300


def test_only_a_bare_not_implemented_error_is_the_stub():
    with pytest.raises(NotAttempted):
        call(lines("def f():\n    raise NotImplementedError"))
    with pytest.raises(NotAttempted):
        call(lines("def f():\n    raise NotImplementedError()"))
    with pytest.raises(Wrong, match="raised NotImplementedError"):  # a softmax over integers, say
        call(lines("def f():\n    return torch.ones(2, dtype=torch.long).softmax(0)"))


def test_a_remote_answer_is_judged_alike():
    def remote(kind, text="", line=None):
        def answer(*args):
            raise AnswerError(kind, text, line)
        return answer

    with pytest.raises(NotAttempted):
        call(remote("NotImplementedError"))
    with pytest.raises(Wrong, match=r"raised ValueError in line 3: bad"):
        call(remote("ValueError", "bad", 3))


def test_none_and_changed_inputs_are_named():
    with pytest.raises(Wrong, match="forget `return`"):
        call(lines("def f(x):\n    x * 2"), torch.ones(2))
    x = torch.ones(2)
    for body in ("x.mul_(2)", "x[0] = float('nan')", "x.resize_(3)"):
        with pytest.raises(Wrong, match="in place"):
            call(lines(f"def f(x):\n    {body}\n    return x"), x)
        with pytest.raises(Wrong, match="in place"):
            call(lines(f"def f(x):\n    x = x[0]['a']\n    {body}\n    return x"), [{"a": x}])
    with pytest.raises(Wrong, match="in place"):
        call(lines("def f(x):\n    x.append(1)\n    return x"), [1])
    assert torch.equal(x, torch.ones(2)), "the test's own input was spoilt"
    assert call(lines("def f(x):\n    x.mul_(2)"), x, in_place=True) is None
    assert torch.equal(x, 2 * torch.ones(2))


def test_inputs_with_nan_or_gradient_come_through():
    x = torch.tensor([float("nan"), 1.0], requires_grad=True)
    got = call(lambda x: torch.autograd.grad((x * 3).sum(), x)[0], x)
    assert got.tolist() == [3, 3]
    assert not call(lambda x: x * 2, x).requires_grad
    assert type(call(lambda: torch.nn.Parameter(torch.ones(1)))) is torch.Tensor


ODD = [None, True, 3, 10**400, 2.5, float("nan"), "text", b"bytes", [1, 2], (), {}, {"a": torch.ones(1)}, object(), len,
       np.ones(3), np.float64(1), torch.tensor(float("nan")), torch.ones(0), torch.ones(3, dtype=torch.bfloat16),
       torch.ones(3, dtype=torch.complex64), torch.ones(3, device="meta"), torch.ones(3).to_sparse(),
       torch.ones(1).expand(10**6, 10**6), torch.ones(3, requires_grad=True) * 2, torch.ones(3).bool(),
       range(3), Exception]


@pytest.mark.parametrize("id", [e.id for e in exercises()])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_odd_results_cost_points_and_nothing_else(id, odd):
    e = exercise(id)
    result = evaluate(e, lambda *args, **kwargs: odd)
    assert 0 <= result.points < e.points and result.first_failure.message
    assert "Traceback" not in report(e, result)
    for judge in (tensor, number, truth, finite, lambda x: shape(x, (3,)), lambda x: dtype(x, torch.float32),
                  lambda x: close(x, torch.zeros(3), "no"), lambda x: close(x, 0.5, "no")):
        try:
            judge(call(lambda: odd))
        except Wrong as wrong:
            assert wrong.message


def test_close_says_what_differs():
    want = torch.tensor([1.0, 2.0])
    close(torch.tensor([1.0, 2.0], dtype=torch.float64), want, "no")
    close(torch.tensor([-torch.inf, 0]), torch.tensor([-torch.inf, 0]), "no")
    for got, says in (
        (torch.tensor([1.0, 2.1]), "the reason"),
        (torch.tensor([1.0, torch.nan]), "NaN"),
        (torch.tensor([1.0, torch.inf]), "infinity"),
        (torch.tensor([[1.0, 2.0]]), r"\(1, 2\); it should be \(2,\)"),
        (torch.tensor([1, 2]), "int64; it should be float32"),
        (want.numpy(), "numpy array"),
    ):
        with pytest.raises(Wrong, match=says):
            close(got, want, "the reason")
    with pytest.raises(Wrong) as wrong:
        close(torch.tensor([1.0, 2.5]), want, "the reason")
    assert "2.5" in wrong.value.detail and "2.5" not in wrong.value.message
    assert not differs(want, want).any()
    close(np.float32(0.5), 0.5, "no")
    with pytest.raises(Wrong, match="the reason"):
        close(float("nan"), 0.5, "the reason")
    assert truth(np.bool_(True)) and truth(torch.tensor(True)) and number(torch.tensor([3])) == 3


# --- the verdict ---


def test_the_seed_decides_the_inputs_and_nothing_else_does():
    seen = []

    def look(answer, rng):
        seen.append((normal(rng, 2).tolist(), torch.rand(1).item(), integer(rng, 0, 10**6)))

    e = one(look)
    for seed in (0, 0, 1):
        torch.manual_seed(len(seen))
        before = torch.get_rng_state()
        evaluate(e, abs, seed)
        assert torch.equal(torch.get_rng_state(), before), "the lesson's own random numbers moved"
    assert seen[0] == seen[1] and all(a != b for a, b in zip(seen[0], seen[2], strict=True))
    two = dataclasses.replace(e, points=3, properties=(Property("first", 1, look), *e.properties))
    evaluate(two, abs, 0)
    assert seen[4] == seen[0], "another property's draws moved this one's"
    assert seen[3] != seen[4], "two properties see the same inputs"


def test_a_half_written_answer_keeps_its_points():
    e = one(None, points=3, properties=[Property("doubles", 2, doubles), Property(
        "strings", 1, lambda answer, rng: close(answer("2"), 4, "no"))])
    half = lines("def f(x):\n    if isinstance(x, str):\n        raise NotImplementedError\n    return 2 * x")
    result = evaluate(e, half)
    assert (result.points, result.attempted) == (2, True)
    assert "NotImplementedError" in result.first_failure.message


def test_a_broken_test_is_marked_for_a_person():
    result = evaluate(one(lambda answer, rng: 1 / 0), abs)
    assert result.points == 0 and result.outcomes[0].crashed


def test_what_cannot_be_called_earns_nothing():
    result = evaluate(one(doubles), 5)
    assert result.points == 0 and "not a function" in result.first_failure.message


# --- what the lesson prints ---


def test_the_stub_is_not_an_error(capsys):
    e = exercise("02.causal_mask")
    for _ in range(2):
        assert check(e.id, load(e.stub, e.name)) is None
    assert capsys.readouterr().out.splitlines() == 2 * [
        "02.causal_mask: not attempted yet (3 points). "
        "Write your answer in the cell above, run it, then run this cell."]


def test_full_marks_are_one_warm_line(capsys):
    check("02.causal_mask", load(reference_source("02.causal_mask"), "causal_mask"))
    assert capsys.readouterr().out == (
        "02.causal_mask: 3 of 3 points\n"
        "  pass  1/1  an (n, n) tensor of bool\n"
        "  pass  1/1  four tokens, by hand\n"
        "  pass  1/1  any length: the past and itself, nothing more\n"
        "Full marks. It holds everywhere we looked: well done.\n")


def test_each_failed_try_earns_one_more_hint(capsys):
    wrong = load(mutant_source("02.causal_mask", "transposed"), "causal_mask")
    texts = []
    for n in (1, 2, 3, 3):
        check("02.causal_mask", wrong)
        text = capsys.readouterr().out
        assert "  FAIL  0/1  four tokens, by hand\n        The mask is transposed" in text
        assert text.count("The mask is transposed") == 1, "only the first failure is explained"
        assert f"Hint {n} of 3: {exercise('02.causal_mask').hints[n - 1]}" in text
        texts.append(text.split("Hint")[0])
    assert len(set(texts)) == 1, "the same answer reads the same every time"
    hint("02.causal_mask", 2)
    assert capsys.readouterr().out.startswith("Hint 2 of 3: ")


def test_nbgrader_learns_the_points(monkeypatch, capsys):
    partly = load(mutant_source("02.attention", "no scale"), "attention")
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check("02.attention", partly) == 6
    assert check("02.causal_mask", load(exercise("02.causal_mask").stub, "causal_mask")) == 0


# --- mutants ---


def test_a_mutant_must_be_a_different_program(monkeypatch):
    bad = (Mutant("absent", "nothing like it", "", ""), Mutant("twice", "position", "p", ""),
           Mutant("same", ">=", ">= ", ""), Mutant("not Python", ">=", ">= >=", ""))
    made = {"02.causal_mask": Answer(reference_source("02.causal_mask"), bad)}
    monkeypatch.setattr("lib.answers.answers", lambda lesson: made)
    for mutant, says in zip(bad, ("0 times", "times", "is the reference", "not Python"), strict=True):
        with pytest.raises(CourseError, match=says):
            mutant_source("02.causal_mask", mutant.name)


def test_what_passes_in_a_notebook_joins_the_learners_transformer(monkeypatch, tmp_path, capsys):
    """The source that stood when the check ran, helpers included; not in a script, not below full marks."""
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    helper = "def helper(n):\n    return torch.arange(n)\n\n\n"
    cell = helper + "def causal_mask(n):\n    return helper(n)[:, None] >= helper(n)\n"
    namespace = {}
    exec("import torch\n" + cell, namespace)
    check("02.causal_mask", namespace["causal_mask"])
    assert parts.standing() == "", "a script has no cells"
    shell = types.SimpleNamespace(user_ns={"In": ["", "import torch", cell, 'check("02.causal_mask", causal_mask)']})
    monkeypatch.setattr(sys.modules["lib.lesson.checks"], "_in_notebook", lambda: True)
    monkeypatch.setattr(sys.modules["lib.lesson.checks"], "_show", lambda *given: None)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    check("02.causal_mask", lambda n: torch.ones(n, n, dtype=torch.bool))
    assert parts.standing() == ""
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    check("02.causal_mask", namespace["causal_mask"])
    assert parts.standing() == "", "somebody grades somebody else's"
    monkeypatch.delenv("NBGRADER_EXECUTION")
    check("02.causal_mask", namespace["causal_mask"])
    assert f"Your transformer: 1 of {len(parts.IDS)} parts are yours, next: 01.merge." in capsys.readouterr().out
    assert "def helper" in parts.kept()[0]["02.causal_mask"]
