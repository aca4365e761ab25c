"""The judge holds: limits, runners, helpers, flags, writers. Whole submissions of these kinds are in tests/hostile."""

import contextlib
import dataclasses
import importlib
import inspect
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from lib.answers import reference_source
from lib.errors import CourseError
from lib.exercises import standing
from lib.exercises.exercise import exercise, exercises
from lib.exercises.result import Outcome
from lib.exercises.verdict import AnswerError, Gone
from lib.grading import exports, feedback, reading, seccomp, wire
from lib.grading import gradebook as module
from lib.grading.account import Groups
from lib.grading.gradebook import Gradebook, NotKept, Standing
from lib.grading.grades import MOST_FLAGS, Flag, Grade, Report
from lib.grading.held import TESTS, held, version
from lib.grading.helper import TOO_MUCH, Helper
from lib.grading.judge import judge
from lib.grading.reading import Cell
from lib.grading.rules import broken, suspicious
from lib.grading.sandbox import Code, Limits, Sandbox, _modest
from lib.sources.places import ROOT

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
LIMITS = Limits(wall=8, cpu=1, memory=2**30)


@pytest.fixture(scope="module", params=[True, False], ids=["kernel's account", "from /proc"])
def box(request):
    with Sandbox(LIMITS, groups=request.param) as sandbox:
        yield sandbox


@pytest.fixture(scope="module", params=[True, False], ids=["kernel's account", "from /proc"])
def patient_box(request):
    with Sandbox(dataclasses.replace(LIMITS, wall=120), groups=request.param) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def plain_box():
    with Sandbox(LIMITS) as sandbox:
        yield sandbox


def f(box, body, *helpers):
    return box.load(Code("f", f"def f(x=0):\n{body}", helpers))


# --- limits ---

HIDE = "    import ctypes, os, signal, time\n    libc = ctypes.CDLL(None)\n"


@linux
@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nRssAnon: 0", b") 0 0 0", b""], ids=range(4))
def test_memory_is_counted_whatever_a_process_is_called(box, name):
    body = HIDE + (
        f"    for i in range(5):\n        if os.fork() == 0:\n            libc.prctl(15, {name!r}, 0, 0, 0)\n"
        "            x = bytearray(b'x' * 4 * 10**8)\n            time.sleep(60)\n    time.sleep(60)"
    )
    with f(box, body) as answer, pytest.raises(Gone, match="more memory"):
        answer()


@linux
def test_what_is_only_claimed_counts_as_well(box):
    body = HIDE + (
        "    libc.mmap.restype = ctypes.c_void_p\n    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, "
        "*[ctypes.c_int] * 3, ctypes.c_long)\n    for i in range(8):\n        if os.fork() == 0:\n"
        "            libc.mmap(None, 950_000_000, 0, 0x4022, -1, 0)\n            time.sleep(60)\n    time.sleep(60)"
    )
    with f(box, body) as answer, pytest.raises(Gone, match="more memory"):
        answer()


@linux
@pytest.mark.parametrize("lives", [0.3, 0.03])
@pytest.mark.parametrize("how", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "waits = True"])
def test_computing_is_counted_whoever_reaps(patient_box, lives, how):
    """Until four times has been computed of what may be, however long that takes on a busy machine."""
    body = HIDE + f"""    waits, begun, alive = False, 0, []
    {how}
    def lives(child):
        try:
            os.kill(child, 0)
            return True
        except OSError:
            return False
    while alive or begun * {lives} < 4:
        if begun * {lives} < 4 and len(alive) < 3:
            try:
                child = os.fork()
                if child == 0:
                    end = time.process_time() + {lives}
                    while time.process_time() < end: pass
                    os._exit(0)
                begun, alive = begun + 1, [*alive, child]
                continue
            except OSError: pass
        time.sleep({lives} / 10)
        try:
            while waits and os.waitpid(-1, os.WNOHANG)[0]: pass
        except OSError: pass
        alive = [child for child in alive if lives(child)]
    return 1"""
    with f(patient_box, body) as answer, pytest.raises(Gone, match=r"out of time|too many"):
        answer()


@linux
@pytest.mark.parametrize("groups", [True, False], ids=["kernel's account", "from /proc"])
def test_computing_is_counted_of_those_who_lost_their_parent(groups, lives=0.02):
    """Grandchildren, whose parent is gone before they begin, and whom nobody waits for."""
    body = HIDE + f"""    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    r, w = os.pipe()
    done = begun = 0
    while done * {lives} < 8:
        if begun - done < 3 and begun * {lives} < 9:
            if os.fork() == 0:
                if os.fork() == 0:
                    end = time.process_time() + {lives}
                    while time.process_time() < end: pass
                    os.write(w, b'x')
                os._exit(0)
            begun += 1
        else:
            done += len(os.read(r, 1))
    return 1"""
    with Sandbox(dataclasses.replace(LIMITS, wall=120), groups=groups) as box, f(box, body) as answer:
        with pytest.raises(Gone, match=r"out of time|too many"):
            answer()


@linux
def test_a_limit_on_time_ends_those_who_hide(box):
    """One computes for good, of another name, in a session of its own, deaf and nice; one waits. Both are gone."""
    body = HIDE + (
        "    if os.fork() == 0:\n        libc.prctl(15, b'\\xff', 0, 0, 0); os.setsid(); os.nice(19)\n"
        "        [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15, 24, 25)]\n"
        "        while True: pass\n    time.sleep(1000)"
    )
    with f(box, body) as answer, pytest.raises(Gone, match="out of time"):
        answer()
    with f(box, "    import os\n    return os.getpid()") as answer:
        assert answer() == 1


@linux
def test_what_cannot_be_read_is_a_breach(monkeypatch):
    """The keeper's own code, told that /proc fails it."""
    monkeypatch.syspath_prepend(ROOT / "lib/grading")
    warm = importlib.import_module("warm")
    running = object.__new__(warm.Running)
    running.isolated, running.why, running.account, running.base, running.size = True, "", None, 0, 0
    running.limits, killed = {"memory": 1, "disk": 1, "processes": 9, "cpu": 9}, []
    running._kill = killed.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "_others", lambda spared: [1])
        patch.setattr(warm, "_memory", lambda pid: (_ for _ in ()).throw(PermissionError(13, "no")))
        running.watch([])
    assert running.why.startswith("unread") and killed


@linux
def test_who_counts_is_said_and_nothing_of_it_is_left(tmp_path):
    with Sandbox(LIMITS) as sandbox:
        account = sandbox.account
        assert account.startswith(("cgroup v", "from /proc (cgroup v2:"))
        if account.startswith("cgroup"):
            places = [place for group in sandbox._groups.sets for place in group.places]
            with f(sandbox, "    return 1") as answer:
                assert answer() == 1 and any((place / "cgroup.procs").read_text() for place in places)
    if account.startswith("cgroup"):
        assert not [place for place in places if place.exists()]
    nowhere = Groups(2**30, 32, root=tmp_path)
    assert nowhere.sets == [] and nowhere.tried == "cgroup v2: not mounted; cgroup v1: no controller cpuacct"


def test_a_delegated_group_is_found_above_one_that_has_processes(tmp_path):
    """cgroup v2 as systemd lays it out for a user, in a folder that only looks like it."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user/app/shell\n")
    (tmp_path / "root/user/app/shell").mkdir(parents=True)
    (tmp_path / "root/cgroup.controllers").write_text("cpu memory pids")
    mkdir = Path.mkdir

    def made(self, *args, **kwargs):
        mkdir(self, *args, **kwargs)
        if self.name.startswith("course-grade"):
            (self / "cgroup.controllers").write_text("memory pids" if self.parent.name == "app" else "")

    def removed(self):
        for file in self.iterdir():
            file.unlink()
        os.rmdir(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", made)
        patch.setattr(Path, "rmdir", removed)
        groups = Groups(2**30, 32, tmp_path / "root", tmp_path / "proc")
        assert groups.tried == "cgroup v2" and {p.parent.name for g in groups.sets for p in g.places} == {"app"}
        assert (groups.sets[0].places[0] / "memory.max").read_text() == str(2**30)
        groups.remove()
    assert [p.name for p in (tmp_path / "root/user/app").iterdir()] == ["shell"]


# --- after an order that went wrong ---


class Full(BaseException):
    """As when the judge's own stack is full."""


@linux
@pytest.mark.parametrize("where", ["_told", "_tell", "_prepare"])
def test_after_an_order_gone_wrong_the_next_answer_has_its_own_runner(plain_box, monkeypatch, where):
    answer = f(plain_box, "    return 1")
    assert answer() == 1
    kept = getattr(Sandbox, where)

    def full(self, *args):
        monkeypatch.setattr(Sandbox, where, kept)
        raise Full

    keeper = plain_box._process.pid
    if where == "_prepare":
        answer.close()
        monkeypatch.setattr(Sandbox, where, full)
        with pytest.raises(Full):
            f(plain_box, "    return 1")
    else:
        monkeypatch.setattr(Sandbox, where, full)
        with pytest.raises(Full):
            answer.close()
    with f(plain_box, "    import os\n    return [os.getpid(), len(os.listdir('/tmp'))]") as other:
        assert other()[0] == 1
    assert plain_box._process.pid != keeper, "nothing of the other is beside it"
    with f(plain_box, "    while True: pass") as endless, pytest.raises(Gone, match="computes"):
        endless()  # its own limits, not what the other had left
    assert len(psutil.Process(plain_box._process.pid).children(recursive=True)) <= 3


@linux
def test_an_order_of_another_number_ends_the_warm_process(plain_box):
    plain_box._told()
    plain_box._tell({"do": "end", "number": 10**6, "gone": False})
    assert plain_box._told() is None
    with f(plain_box, "    return 5") as answer:
        assert answer() == 5


# --- functions of ours, called by an answer ---


@pytest.mark.parametrize(
    "value",
    [
        [object()],
        ["x" * 30_000],
        [[[]] * 20_000],
        [2**70],
        [{i: i for i in range(6000)}],
        [torch.zeros(2**21)],
        [torch.zeros(2000, 1), torch.zeros(1, 2000)],
        [lambda: 1],
        [b"x"],
        [{"a": [object()]}],
        ["x" * 15_000] * 2,
    ],
    ids=range(11),
)
def test_arguments_of_all_kinds_have_a_size(value):
    with pytest.raises(ValueError, match="the grader's functions take"):
        _modest(value)


def test_modest_arguments_pass():
    _modest([1, 2.5, None, True, "text", [1, (2, {"a": torch.zeros(64, 64)})], -(2**60)])


@linux
def test_no_object_of_the_answers_and_no_call_within_a_call(plain_box):
    asked = []

    def ours(*args):
        asked.append(args)
        return len(args)

    with f(
        plain_box, "    class A: pass\n    try: return x(A())\n    except RuntimeError as error: return str(error)"
    ) as answer:
        assert "plain values" in answer(ours) and not asked
    with f(plain_box, "    return x(1) if callable(x) else x") as answer:

        def within(n):
            return answer(n)

        with pytest.raises(AnswerError, match="a call within a call"):
            answer(within)
        assert answer(3) == 3


@linux
def test_what_a_function_of_ours_returns_has_a_size_too(plain_box):
    with f(plain_box, "    try: return x()\n    except RuntimeError as error: return 'told: ' + str(error)") as answer:
        assert "far larger" in answer(lambda: torch.zeros(wire.MOST_NUMBERS))
        assert answer(lambda: 5) == 5


@linux
@pytest.mark.parametrize(
    "what",
    [
        "bytearray(3 * 2**30)",
        "time.sleep(10**6)",
        "[0 for _ in iter(int, 1)]",
        "os.abort()",
        "os._exit(0)",
        "ctypes.string_at(0)",
    ],
)
def test_a_helper_that_passes_a_limit_costs_one_result(what, monkeypatch):
    import ctypes

    assert ctypes
    with Sandbox(Limits(wall=2, cpu=1)) as box:
        monkeypatch.setattr("lib.grading.helper.SLACK", 1.0)
        began = time.monotonic()
        got = Helper().run(box, lambda lent: eval(what, {"time": time, "os": os, "ctypes": ctypes}))
        assert got == (None, TOO_MUCH) and time.monotonic() - began < 6
        assert Helper().run(box, lambda lent: 7) == (7, "")

        def asks(lent):
            with f(lent, "    return x + 1") as answer:
                return answer(1)

        assert Helper().run(box, asks) == (2, "")
        with f(box, "    return 4") as answer:
            assert answer() == 4


@linux
@pytest.mark.parametrize("id", ["02.catches_peeking", "04.pre_norm_block"])
def test_checks_that_hand_out_functions_run_in_a_helper(plain_box, id):
    cells = (Cell(reference_source(id), id.replace(".", "-")),)
    ran = []

    class Noting(Helper):
        def run(self, *args):
            ran.append(id)
            return super().run(*args)

    for _ in range(2):
        report = judge(cells, "x", id[:2], "", "", plain_box, 1, frozenset({id}), helper=Noting())
        assert report.points == report.out_of and not report.flags
    assert len(ran) == 2


# --- what was not read, and what is ready made ---


def flags_of(id, source):
    found = standing.answer([(source, id.replace(".", "-"))], exercise(id))
    return [flag.what for flag in broken(exercise(id), found.reached)]


def test_a_comparison_beside_the_answer_is_no_use():
    source = reference_source("02.attention")
    beside = (
        "q = torch.randn(2, 3)\nprint(attention(q, q, q) - F.scaled_dot_product_attention(q, q, q))\nbest = F.rms_norm"
    )
    assert flags_of("02.attention", f"{source}\n{beside}") == []
    for inside in (
        "kept = [F.scaled_dot_product_attention]",
        "kept = []\nkept.append(F.scaled_dot_product_attention)",
        "kept = {}\nkept['x'] = F.scaled_dot_product_attention",
        "class kept: pass\nkept.f = F._scaled_dot_product_attention_math",
        "for kept in [F.scaled_dot_product_attention]: pass",
        "with x as kept: kept = F.scaled_dot_product_attention",
    ):
        used = f"{inside}\ndef attention(q, k, v, mask=None):\n    return kept[0](q, k, v)"
        assert len(flags_of("02.attention", used)) == 1, inside


def test_flags_are_summed_up():
    many = "def attention(q, k, v):\n" + "    F.scaled_dot_product_attention\n" * 5000
    [told] = flags_of("02.attention", many)
    assert told == "uses `scaled_dot_product_attention`, which the exercise asks to write (and on 4999 more lines)"
    modules = "".join(f"from lib.grading.x{i} import y\nimport os as o{i}\n" for i in range(3000))
    assert len(suspicious(exercise("02.attention"), modules)) == 2
    report = Report("a", "02", "p", "d", flags=tuple(Flag("02.attention", f"{i}") for i in range(10_000)))
    assert len(report.flags) == MOST_FLAGS and "9961 more" in report.flags[-1].what


@linux
@pytest.mark.parametrize(
    "id, source, name",
    [
        (
            "02.attention",
            "import lib.attention as A\ndef attention(q, k, v, mask=None):\n"
            "    return vars(A)['atten' + 'tion'](q, k, v, mask)",
            "lib.attention.attention",
        ),
        (
            "04.rms_norm",
            "import lib.transformer as A\ndef rms_norm(x, w, eps):\n"
            "    return A.make_norm and A.__dict__['rms' + '_norm'](x, w, eps)",
            "lib.transformer.rms_norm",
        ),
        (
            "02.attention",
            "def attention(q, k, v, mask=None):\n"
            "    return getattr(F, 'scaled_dot_product' + '_attention')(q, k, v, mask)",
            "torch.scaled_dot_product_attention",
        ),
        (
            "04.rms_norm",
            "def rms_norm(x, w, eps):\n    return getattr(F, 'rms' + '_norm')(x, w.shape, w, eps)",
            "torch.rms_norm",
        ),
        (
            "05.cross_entropy",
            "def cross_entropy(l, t):\n"
            "    return getattr(F, 'nll' '_loss')(l.log_softmax(-1).flatten(0, -2), t.flatten())",
            "torch.nll_loss",
        ),
        (
            "03.split_heads",
            "import lib.attention as A\ndef split_heads(x, n):\n"
            "    return [f for n, f in vars(A).items() if n[:6] == 'split_'][0](x, n)",
            "lib.attention.split_heads",
        ),
    ],
    ids=range(6),
)
def test_what_is_ready_made_is_seen_as_it_runs(plain_box, id, source, name):
    e = exercise(id)
    with plain_box.load(Code(e.name, source), e.ready, (*e.forbidden, e.name)) as answer:
        with contextlib.suppress(AnswerError, Gone):
            answer(
                *{
                    "02.attention": [torch.zeros(2, 3)] * 3,
                    "04.rms_norm": [torch.ones(2, 4), torch.ones(4), 1e-5],
                    "05.cross_entropy": [torch.zeros(2, 5), torch.zeros(2, dtype=torch.long)],
                    "03.split_heads": [torch.zeros(1, 2, 4), 2],
                }[id]
            )
        assert answer.uses[name] == len(source.splitlines())


CALLS = "\ndef attention(q, k, v, mask=None):\n    return f(q, k, v, mask)"
COPIES = {
    "its source, run again": "import lib.attention as A\nspace = {}\nexec(open(A.__file__).read(), space)\n"
    "f = space['atten' + 'tion']",
    "its source, in other words": "import lib.attention as A\ntext = open(A.__file__).read()\n"
    "text = text[text.index('def attention('):].partition('\\n\\n\\n')[0]\nspace = dict(vars(A))\n"
    "exec(text.replace('def attention', 'def mine'), space)\nf = space['mine']",
    "no importer of ours": "import sys, importlib\nsys.meta_path[:] = [m for m in sys.meta_path if type(m) is type]\n"
    "A = importlib.import_module('lib.attention')\nf = vars(A)['atten' + 'tion']",
    "a loader by hand": "import importlib.machinery as m, lib\n"
    "A = m.SourceFileLoader('mine', lib.__path__[0] + '/attention.py').load_module()\nf = vars(A)['atten' + 'tion']",
    "a function of its code": "import types, lib.attention as A\n"
    "code = compile(open(A.__file__).read(), '<answer>', 'exec')\n"
    "f = [types.FunctionType(c, dict(vars(A)), None, (None,)) for c in code.co_consts "
    "if isinstance(c, types.CodeType) and c.co_name == 'atten' + 'tion'][0]",
    "bytes of it": "import os, lib\nfile = os.open(lib.__path__[0] + '/attention.py', os.O_RDONLY)\n"
    "space = {}\nexec(os.read(file, 10**6), space)\nf = space['atten' + 'tion']",
}


@linux
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_librarys_is_the_librarys(plain_box, how):
    """However it was made of lib's own file, its call is seen; and there is no answer of the learner's to judge."""
    e = exercise("02.attention")
    with plain_box.load(Code(e.name, COPIES[how] + CALLS), e.ready, (*e.forbidden, e.name)) as answer:
        assert answer.error is None
        with contextlib.suppress(AnswerError):
            answer(*[torch.ones(2, 3)] * 3)
        assert answer.uses["lib.attention.attention"] == len((COPIES[how] + CALLS).splitlines())
    report = judge((Cell(COPIES[how] + CALLS, "02-attention"),), "x", "02", "", "", plain_box, 1, frozenset({e.id}))
    assert report.points == 0 and any("library" in flag.what for flag in report.flags), report


EACH = "import os, sys, types, lib.attention as A\n@MORE@\ndef attention(q, k, v, mask=None):\n    @BODY@"
MADE = {
    "its source, run": (
        "", "s = {}\n    exec(open(A.__file__).read(), s)\n    return s['atten' + 'tion'](q, k, v, mask)"),
    "its module, loaded": (
        "import importlib.util as u", "spec = u.spec_from_file_location('mine', A.__file__)\n"
        "    m = u.module_from_spec(spec)\n    spec.loader.exec_module(m)\n"
        "    return vars(m)['atten' + 'tion'](q, k, v, mask)"),
    "a function of its code": (
        "c = compile(open(A.__file__).read(), 'x', 'exec')\n"
        "c = [c for c in c.co_consts if isinstance(c, types.CodeType) and c.co_name == 'atten' + 'tion'][0]",
        "return types.FunctionType(c, dict(vars(A)), None, (None,))(q, k, v, mask)"),
    "its code, in another function": (
        "c = compile(open(A.__file__).read(), 'x', 'exec')\n"
        "c = [c for c in c.co_consts if isinstance(c, types.CodeType) and c.co_name == 'atten' + 'tion'][0]\n"
        "def f(q, k, v, mask=None): pass",
        "globals().update({n: x for n, x in vars(A).items() if n[:2] != '__' and n != 'atten' + 'tion'})\n"
        "    f.__code__ = c\n    return f(q, k, v, mask)"),
    "a child of each call": (
        "f = vars(A)['atten' + 'tion']",
        "r, w = os.pipe()\n    if os.fork() == 0:\n        y = f(q, k, v, mask)\n"
        "        os.write(w, y.numpy().tobytes())\n        os._exit(0)\n    os.close(w)\n    os.wait()\n"
        "    return torch.frombuffer(bytearray(os.read(r, 10**6)), dtype=v.dtype).reshape(*q.shape[:-1], v.shape[-1])"),
    "a child that copies": (
        "", "r, w = os.pipe()\n    if os.fork() == 0:\n        s = {}\n        exec(open(A.__file__).read(), s)\n"
        "        os.write(w, s['atten' + 'tion'](q, k, v, mask).numpy().tobytes())\n        os._exit(0)\n"
        "    os.close(w)\n    os.wait()\n"
        "    return torch.frombuffer(bytearray(os.read(r, 10**6)), dtype=v.dtype).reshape(*q.shape[:-1], v.shape[-1])"),
    "a child that waits": (
        "import io, socket\nf = vars(A)['atten' + 'tion']\nours, theirs = socket.socketpair()\nif os.fork() == 0:\n"
        "    while data := theirs.recv(10**6):\n        out = io.BytesIO()\n"
        "        torch.save(f(*torch.load(io.BytesIO(data))), out)\n        theirs.send(out.getvalue())\n"
        "    os._exit(0)",
        "out = io.BytesIO()\n    torch.save((q, k, v, mask), out)\n    ours.send(out.getvalue())\n"
        "    return torch.load(io.BytesIO(ours.recv(10**6)))"),
}  # fmt: skip


@linux
@pytest.mark.parametrize("how", MADE)
def test_what_is_made_within_a_call_or_called_in_a_child_is_seen(plain_box, how):
    more, body = MADE[how]
    source = EACH.replace("@MORE@", more).replace("@BODY@", body)
    e = exercise("02.attention")
    q, k, v = torch.randn(3, 2, 4)
    with plain_box.load(Code(e.name, source), e.ready, (*e.forbidden, e.name)) as answer:
        assert answer.error is None
        got = answer(q, k, v)  # the trick works
        assert torch.allclose(got, (q @ k.T / 2).softmax(-1) @ v, atol=1e-5)
        assert "lib.attention.attention" in answer.uses
    report = judge((Cell(source, "02-attention"),), "x", "02", "", "", plain_box, 1, frozenset({e.id}))
    assert report.points == 0 and any("library" in flag.what for flag in report.flags), report


TAKE = "import lib.attention as A\ng = A.__getattribute__('atten' + 'tion')\n"
WAYS = {
    "a pattern": "import lib.attention as A\nmatch A:\n    case object(attention=f): pass",
    "a pickle": "import pickle\nf = pickle.loads(b'clib.attention\\natten' + b'tion\\n.')",
    "a pickle of PyTorch's": (
        "import io, zipfile\nb = io.BytesIO()\ntorch.save(0, b)\nz, out = zipfile.ZipFile(b), io.BytesIO()\n"
        "w = zipfile.ZipFile(out, 'w')\nfor n in z.namelist():\n    w.writestr(n, b'clib.attention\\natten' + "
        "b'tion\\n.' if n.endswith('data.pkl') else z.read(n))\nw.close()\nout.seek(0)\n"
        "f = torch.load(out, weights_only=False)"
    ),
    "a formatter": "import string, lib.attention as A\n"
    "f = string.Formatter().get_field('0.atten' + 'tion', (A,), {})[0]",
    "pydoc": "import pydoc\nf = pydoc.locate('lib.attention.atten' + 'tion')",
    "logging": "import logging.config as c\nf = c.BaseConfigurator({}).resolve('lib.attention.atten' + 'tion')",
    "another name": TAKE + "g.__name__ = g.__qualname__ = 'mine'\ng.__module__ = '__main__'\nf = g",
    "a copy": TAKE + "import copy\nf = copy.copy(g)",
    "what it wraps": TAKE + "import inspect\nf = inspect.unwrap(g)",
    "a generator": TAKE + "def gen():\n    out = None\n    while True: out = g(*(yield out))\n"
    "x = gen()\nnext(x)\nf = lambda *a: x.send(a)",
    "a loop's thread": TAKE + "import asyncio\nf = lambda *a: asyncio.run(asyncio.to_thread(g, *a))",
    "a pool of processes": TAKE + "import multiprocessing as mp\n"
    "from concurrent.futures import ProcessPoolExecutor as P\n"
    "f = lambda *a: P(1, mp_context=mp.get_context('fork')).submit(g, *a).result()",
    "a worker of PyTorch's": TAKE + "from torch.utils.data import DataLoader\nclass D:\n"
    "    def __init__(self, a): self.a = a\n    def __len__(self): return 1\n"
    "    def __getitem__(self, i): return g(*self.a)\n"
    "f = lambda *a: next(iter(DataLoader(D(a), batch_size=None, num_workers=1)))",
    "what computes when it is looked at": TAKE + """class Later(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if todo := args[0].__dict__.pop('todo', None):
            super().__torch_function__(torch.Tensor.copy_, types, (args[0], g(*todo)), {})
        return super().__torch_function__(function, types, args, kwargs or {})
def f(q, k, v, mask):
    out = torch.zeros(*q.shape[:-1], v.shape[-1]).as_subclass(Later)
    out.todo = q, k, v, mask
    return out""",
    "a list that computes when it is read": TAKE + """class Later(list):
    def __iter__(self): return iter([g(*self.todo)])
def f(*todo):
    out = Later([0])
    out.todo = todo
    return out""",
}


@linux
@pytest.mark.parametrize("way", WAYS)
def test_by_whatever_way_it_was_come_by(plain_box, way):
    """The library's own, where no reader sees a call of it: there is nothing of the learner's to judge."""
    e = exercise("02.attention")
    report = judge((Cell(WAYS[way] + CALLS, "02-attention"),), "x", "02", "", "", plain_box, 1, frozenset({e.id}))
    assert report.points == 0 and any("library" in flag.what for flag in report.flags), report


@linux
@pytest.mark.parametrize(
    "way",
    [
        "match F:\n    case object(scaled_dot_product_attention=f): pass",
        "f = F.__getattribute__('scaled_dot_' + 'product_attention')",
        "b = print.__self__\nkeep = b.getattr\nb.getattr = lambda o, n, *d: '' if n == '__name__' else keep(o, n, *d)\n"
        "f = F.__getattribute__('scaled_dot_' + 'product_attention')",
        "g = F.__getattribute__('scaled_dot_' + 'product_attention')\nclass Later(torch.Tensor):\n    @classmethod\n"
        "    def __torch_function__(cls, function, types, args=(), kwargs=None):\n"
        "        if todo := args[0].__dict__.pop('todo', None):\n"
        "            super().__torch_function__(torch.Tensor.copy_, types, (args[0], g(*todo)), {})\n"
        "        return super().__torch_function__(function, types, args, kwargs or {})\n"
        "def f(*todo):\n    out = torch.zeros(*todo[0].shape[:-1], todo[2].shape[-1]).as_subclass(Later)\n"
        "    out.todo = todo\n    return out",
        "g = F.__getattribute__('scaled_dot_' + 'product_attention')\n"
        "f = lambda q, k, v, m: torch.func.vmap(lambda a, b, c: g(a, b, c, m))(q[None], k[None], v[None])[0]",
    ],
    ids=["a pattern", "an attribute", "other builtins", "a tensor that computes when it is looked at", "vmap"],
)
def test_an_operation_of_pytorchs_has_a_flag(plain_box, way):
    e = exercise("02.attention")
    report = judge((Cell(way + CALLS, "02-attention"),), "x", "02", "", "", plain_box, 1, frozenset({e.id}))
    assert any("scaled_dot_product_attention" in flag.what for flag in report.flags), report


@pytest.mark.parametrize(
    "code",
    [
        "import io\nline = io.FileIO(3, 'r+b')", "import posix\nposix.write(3, b'')", "from _io import FileIO",
        "import _socket", "x.__getattribute__('y')", "print.__self__.getattr = None", "import gc", "f.__closure__",
        "import ctypes", "import subprocess", "import os\nos.execv", "import sys\nsys._getframe()", "import tempfile",
        "open(3, 'wb')", "from select import poll", "torch._C._pop_torch_function_stack()", "import importlib.util",
    ],
)  # fmt: skip
def test_what_it_takes_to_hide_has_flags(code):
    assert suspicious(exercise("02.attention"), code)


def test_what_honest_code_imports_has_no_flag():
    code = "from __future__ import annotations\nimport math, time, random, collections, functools, json, re\n"
    code += "import numpy as np\nimport torch\nfrom torch import nn\nfrom pathlib import Path\n_x = 1\nself._y = _x"
    assert suspicious(exercise("02.attention"), code) == []


@linux
@pytest.mark.parametrize(
    "body",
    [
        "from lib.attention import causal_mask\n    import lib.transformer, lib.training",
        "import collections\n    exec('y = 1', {})\n    collections.namedtuple('a', 'b c')",
        "import os\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
        "import importlib, lib.attention\n    importlib.reload(lib.attention)",
        "import inspect, lib.attention\n    inspect.getsource(lib.attention.attention)",
    ],
    ids=["imports", "exec of its own", "fork", "reload", "source"],
)
def test_what_an_honest_call_may_do_is_no_use(plain_box, body):
    first, rest = reference_source("02.attention").split("\n", 1)
    source = f"import lib.attention\n{first}\n    {body}\n{rest}"
    report = judge((Cell(source, "02-attention"),), "x", "02", "", "", plain_box, 1, frozenset({"02.attention"}))
    assert report.points == report.out_of and not any("called" in f.what for f in report.flags), (source, report)


@linux
@pytest.mark.parametrize("id", ["02.attention", "02.causal_mask", "04.rms_norm", "03.split_heads"])
def test_what_a_learner_typed_is_no_copy(plain_box, id):
    """To the letter the library's, with the library beside it to compare: that accuses nobody."""
    e = exercise(id)
    place = next(name for name in e.ready if name.startswith("lib.") and name.endswith("." + e.name)).rpartition(".")[0]
    module = importlib.import_module(place)
    cells = (
        Cell(f"import {place} as theirs\nimport inspect\nprint(inspect.getsource(theirs))"),
        Cell(f"import {place} as L\n_open = open(L.__file__).read()\nfrom {place} import *\n"
             + inspect.getsource(getattr(module, e.name)), id.replace(".", "-")),
    )  # fmt: skip
    report = judge(cells, "x", id[:2], "", "", plain_box, 1, frozenset({id}))
    own = f"called `{place}.{e.name}`"  # neighbours that it imports may well be seen
    assert not any(own in flag.what for flag in report.flags), report


@linux
@pytest.mark.parametrize(
    "how",
    [
        "import threading\ndef f(*a):\n    o = []\n    t = threading.Thread(target=lambda: o.append(g(*a)))\n"
        "    t.start(); t.join()\n    return o[0]",
        "from concurrent.futures import ThreadPoolExecutor as P\npool = P(1)\ndef f(*a):\n"
        "    return pool.submit(g, *a).result()",
        "import _thread\ndef f(*a):\n    o, lock = [], _thread.allocate_lock()\n    lock.acquire()\n"
        "    def run():\n        o.append(g(*a)); lock.release()\n    _thread.start_new_thread(run, ())\n"
        "    lock.acquire()\n    return o[0]",
    ],
    ids=["Thread", "pool", "_thread"],
)
def test_what_a_thread_calls_is_seen(plain_box, how):
    source = "g = vars(F)['scaled_dot' + '_product_attention']\n" + how + CALLS
    e = exercise("02.attention")
    with plain_box.load(Code(e.name, source), e.ready, (*e.forbidden, e.name)) as answer:
        answer(*[torch.ones(2, 3)] * 3)
        assert list(answer.uses) == ["torch.scaled_dot_product_attention"]


@linux
def test_a_try_out_is_not_seen_and_changes_nothing(plain_box):
    source = (
        "import lib.attention as A\nx = torch.ones(2, 3)\n"
        "tried = A.attention(x, x, x), F.scaled_dot_product_attention(x, x, x)\n"
        "def attention(q, k, v, mask=None):\n    return tried[0]"
    )
    e = exercise("02.attention")
    with plain_box.load(Code(e.name, source), e.ready, e.forbidden) as answer:
        assert torch.equal(answer(*[torch.ones(2, 3)] * 3), torch.ones(2, 3)) and answer.uses == {}


def test_every_ready_made_thing_is_there():
    import importlib

    for e in exercises():
        for name in e.ready:
            place, _, thing = name.rpartition(".")
            assert hasattr(importlib.import_module(place), thing), (e.id, name)


@linux
def test_a_cell_that_is_too_long_to_be_read_is_told_and_an_attempt(plain_box):
    cell = {"cell_type": "code", "source": f"{reference_source('02.causal_mask')}\n#{'x' * 200_000}",
            "metadata": {"nbgrader": {"grade_id": "02-causal_mask"}}}  # fmt: skip
    cells = tuple(Cell(*read) for read in reading.parse(json.dumps({"cells": [cell]}).encode())[0])
    [grade] = judge(cells, "x", "02", "", "", plain_box, 1, frozenset({"02.causal_mask"})).grades
    assert grade.points == 0 and grade.attempted and "200,000 are read" in grade.outcomes[0].message


@linux
def test_a_use_that_a_reader_sees_is_a_flag_and_costs_nothing(plain_box):
    """Inside what it calls, the library's own of that name runs, too: that is the same use, not a hidden one."""
    source = "from lib.transformer import RMSNorm\ndef rms_norm(x, w, eps):\n    return w * RMSNorm(x.size(-1), eps)(x)"
    cells = (Cell(source, "04-rms_norm"),)
    report = judge(cells, "x", "04", "", "", plain_box, 1, frozenset({"04.rms_norm"}))
    assert report.points > 0 and any("uses `RMSNorm`" in flag.what for flag in report.flags), report


STACK = """
import sys
def stack():
    told, f = [], sys._getframe()
    while f is not None:
        told += [v for n, v in sorted(f.f_locals.items()) if isinstance(v, (int, str)) and n not in ("told", "n")]
        told += [v for d in f.f_locals.values() if type(d) is dict for v in d.values() if type(v) is int]
        f = f.f_back
    return told
"""
PROBES = {
    "the first seed": "torch.initial_seed()",
    "the generator's state": "torch.get_rng_state().long().sum().item()",
    "numbers drawn": "torch.rand(3).tolist()",
    "a generator's own": "torch.default_generator.initial_seed()",
    "dropout": "F.dropout(torch.ones(64)).nonzero().flatten().tolist()",
    "all that stands on the stack": "stack()",
}


@linux
@pytest.mark.parametrize("how", PROBES)
def test_the_sandbox_knows_nothing_of_the_seed(plain_box, how):
    """Two seeds, and what can be told of them: at definition, and in the first call."""
    source = f"{STACK}FIRST = {PROBES[how]}\ndef causal_mask(n):\n    raise ValueError(str([FIRST, {PROBES[how]}]))"
    said = {
        judge((Cell(source, "02-causal_mask"),), "x", "02", "", "", plain_box, seed, frozenset({"02.causal_mask"}))
        .grades[0].outcomes[1].message  # of a property that asks for 4 each time
        for seed in (7, 2025)
    }  # fmt: skip
    assert len(said) == 1 and "ValueError" in said.pop()


SEARCH = """
import hashlib
def searched(k):
    for n in range(300):
        start = hashlib.sha256(f"{n}/02.attention/equal scores give the average".encode()).digest()[:7]
        rng = torch.Generator().manual_seed(int.from_bytes(start, "big"))
        for low, high in ((2, 6), (6, 10), (2, 5)):  # three sizes, then the keys
            torch.randint(low, high, (), generator=rng)
        if torch.equal(torch.randn(k.shape, generator=rng), k):
            return n
def attention(q, k, v, mask=None):
    raise ValueError(f"found {searched(k)}")
"""


@linux
def test_a_told_seed_is_not_found_from_what_was_drawn(plain_box, tmp_path):
    """Who knows our source can try all small seeds against the inputs; what is drawn from is no small seed."""
    from lib.course.commands.grade import _drawn

    def found(seed):
        report = judge(
            (Cell(SEARCH, "02-attention"),), "x", "02", "", "", plain_box, seed, frozenset({"02.attention"})
        )
        return "".join(o.message for o in report.grades[0].outcomes)

    assert "found 7" in found(7), "the search works"
    assert "found None" in found(_drawn(7, tmp_path)) and "found 7" not in found(_drawn(7, tmp_path))


def test_a_told_seed_is_mixed_with_a_key_of_the_graders(tmp_path):
    from lib.course.commands.grade import _drawn

    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    assert _drawn(7, one) == _drawn(7, one) != _drawn(8, one) and _drawn(7, one) != _drawn(7, other)
    assert (one / "seed.key").stat().st_mode & 0o777 == 0o600


# --- points ---


@pytest.mark.parametrize("id", TESTS)
def test_what_is_held_back_is_told_right_by_the_reference(id):
    from lib.answers import load
    from lib.exercises.result import evaluate

    e = exercise(id)
    for seed in range(8):
        result = evaluate(e, load(reference_source(id), e.name), seed, held(e))
        assert result.points == e.points, (seed, result.first_failure)
    assert version(e) != e.version
    for always in (True, False):
        assert evaluate(e, lambda *_, always=always: always, 1, held(e)).points == 0


# --- what is written ---


def test_nobodys_entry_costs_the_others_theirs(tmp_path, monkeypatch):
    good = Standing("ann", (Report("ann", "02", "p", "d", grades=(Grade("02.causal_mask", "v", 3, 3, True),)),))
    bad = replace(good, learner="bad")
    for what in ("gradescope_json", "grades_csv"):
        kept = getattr(exports, what)

        def stumbles(s, kept=kept):
            if "bad" in str(s) and "cannot be written" not in str(s):
                raise ValueError("no")
            return kept(s)

        monkeypatch.setattr(exports, what, stumbles)
        exports.write([good, bad], tmp_path)
        assert (
            '"ann"' in (tmp_path / "grades.json").read_text()
            and "person should look" in (tmp_path / "grades.csv").read_text()
        )
        monkeypatch.setattr(exports, what, kept)
    kept = feedback._lesson
    monkeypatch.setattr(
        feedback, "_lesson", lambda r, s, k: 1 / 0 if s.learner == "bad" and not r.problem else kept(r, s, k)
    )
    pages = [path.read_text() for path in feedback.write([good, bad], tmp_path / "pages")]
    assert "3 of 3" in pages[0] and "cannot be shown" in pages[1]


def test_what_no_database_takes_costs_its_entry(tmp_path, monkeypatch):
    with Gradebook(tmp_path / "grades.db") as book:
        kept = Gradebook._write

        def refuses(self, report):
            if report.grades:
                raise NotKept("too large")
            kept(self, report)

        monkeypatch.setattr(Gradebook, "_write", refuses)
        assert "cannot be kept" in book.write(
            Report("ann", "02", "p", "d", grades=(Grade("02.causal_mask", "v", 3, 3, True),))
        )
        monkeypatch.undo()
        assert "cannot be kept" in book.standings()[0].reports[0].problem
        monkeypatch.setattr(Gradebook, "_write", lambda *_: (_ for _ in ()).throw(CourseError("disk full")))
        with pytest.raises(CourseError, match="disk full"):
            book.write(Report("ann", "02", "p", "d"))
    assert module.ITS_OWN


def test_only_lessons_of_ours_make_columns():
    strange = Standing("ann", (Report("ann", "31", "p", "d", problem="no JSON"), Report("ann", "02", "p", "e")))
    assert list(exports.lesson_exercises([strange])) == ["02"]
    assert "31" not in exports.canvas_csv([strange]).splitlines()[0]


def test_a_call_newer_than_the_list_is_refused():
    import struct

    for machine in ("x86_64", "aarch64"):
        code = seccomp.program(machine)
        lines = [struct.unpack("HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]

        def answer(number, argument=0, lines=lines, machine=machine):
            at, value = 0, 0
            while True:
                what, yes, no, k = lines[at]
                at += 1
                if what == seccomp.LOAD:
                    value = {seccomp.NUMBER: number, seccomp.MACHINE: seccomp.ARCH[machine]}.get(k, argument)
                elif what == seccomp.RETURN:
                    return k
                else:
                    holds = {seccomp.JEQ: value == k, seccomp.JGE: value >= k, seccomp.JSET: bool(value & k)}[what]
                    at += yes if holds else no

        assert answer(seccomp.REVIEWED) == answer(0) == seccomp.ALLOW
        for number in (seccomp.REVIEWED + 1, 467, 500, 2**20, *seccomp.CALLS[machine].values()):
            if number not in (seccomp.CALLS[machine]["clone"],):
                assert answer(number) != seccomp.ALLOW, number


# --- the threat model ---

NOTHING_TO_TEST = ("A hole in", "Side channels", "Copying from", "A multiple-choice")


def test_each_sentence_of_the_threat_model_names_a_test_that_is_there():
    text = (ROOT / "docs/grading.md").read_text(encoding="utf-8").partition("## Threat model")[2]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| against", "|---"))]
    assert len(rows) >= 12
    for row in rows:
        assert re.search(r"`test_\w+`", row), row
    below = text.partition("**What is not defended.**")
    for said in (below[0].strip().splitlines()[-1], *re.split(r"\n- ", below[2])[1:]):
        assert re.search(r"`test_\w+`", said) or said.startswith(NOTHING_TO_TEST), said
    there = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+)`", text)):
        assert f"def {name}(" in there, name


BROTHERS = {  # of each of fifteen attacks that once got through: submissions of the corpus, and tests
    "numbers of a shape": "big_numbers_in_a_list big_number_of_an_object half_a_million_lists "
    "one_blob_for_many_tensors",
    "many statements": "class_of_many_methods a_list_of_many many_arguments",
    "many axes": "axes_in_a_frame seventeen_axes arrays_of_many_axes lists_in_lists",
    "calls within calls": "calls_back_with_objects calls_back_with_a_flood_of_lists "
    "calls_back_with_no_arguments_at_all test_no_object_of_the_answers_and_no_call_within_a_call",
    "the library's": "a_name_in_pieces a_dictionary_of_lib what_another_room_imports "
    "test_by_whatever_way_it_was_come_by test_a_copy_of_the_librarys_is_the_librarys "
    "test_what_is_made_within_a_call_or_called_in_a_child_is_seen",
    "PyTorch's": "an_op_of_aten an_op_from_a_dictionary an_op_from_elsewhere "
    "test_an_operation_of_pytorchs_has_a_flag",
    "a table": "table_of_answers test_no_points_without_the_idea test_what_is_held_back_is_told_right_by_the_reference",
    "too deep to read": "nots_too_deep_to_read a_chain_too_deep_to_read a_helper_too_deep_to_read",
    "the seed": "seed_by_brute_force test_the_sandbox_knows_nothing_of_the_seed "
    "test_a_told_seed_is_not_found_from_what_was_drawn test_a_told_seed_is_mixed_with_a_key_of_the_graders",
    "limits": "name_hides_memory_that_is_used children_that_reap_themselves test_what_is_only_claimed_counts_as_well "
    "test_memory_is_counted_whatever_a_process_is_called test_computing_is_counted_of_those_who_lost_their_parent",
    "flags": "flood_of_flags_within flood_of_modules flood_of_owners",
    "halves of characters": "the_other_half halves_in_the_wrong_order half_a_character_returned tags_and_marks",
    "long texts": "an_exception_of_many_letters flood_of_modules test_long_texts_that_do_not_compress "
    "test_what_no_database_takes_costs_its_entry",
    "names": "name_in_two_forms_1 name_in_two_forms_2 test_no_two_names_become_one "
    "test_file_names_are_safe_distinct_and_stable test_any_name_and_any_text_is_kept_apart",
    "columns": "flood_of_files another_course test_only_lessons_of_ours_make_columns "
    "test_a_file_of_no_lesson_is_named_and_makes_no_column",
}


@pytest.mark.parametrize("kind", BROTHERS)
def test_each_attack_has_brothers(kind):
    from hostile import CORPUS

    names = BROTHERS[kind].split()
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) >= 3
    for name in names:
        assert name in {entry.name for entry in CORPUS} or f"def {name}(" in tests, name


def test_the_limits_are_those_of_the_threat_model():
    limits = Limits()
    text = (ROOT / "docs/grading.md").read_text(encoding="utf-8")
    said = (
        f"{limits.wall:.0f} s by the clock, {limits.cpu:.0f} s of computing, {limits.memory // 2**30} GB, "
        f"{limits.processes} processes, {limits.disk // 2**20} MB and {limits.files:,} files in each"
    )
    assert said in text


def test_outcomes_and_results_say_what_is_withheld():
    held_ = Outcome("a", 0, 1, "m", withheld=True)
    grade = Grade("02.causal_mask", "v", 0, 3, True, (held_, Outcome("b", 0, 2, "why")))
    assert grade.first_failure.message == "why"
