"""Outside the sandbox: start it, send an answer in, call it as if it were here.

    with Sandbox() as sandbox:
        answer = sandbox.load(code)       # RemoteAnswer: callable, like the function the learner wrote
        answer(q, k, v)                   # runs over there; only numbers come back

Isolation is bubblewrap's for the warm process, then namespaces of its own for every answer (lib/grading/warm.py),
limits on what it uses, and a filter on system calls. docs/grading.md says against what, and what is not defended.
"""

import contextlib
import json
import math
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from lib.errors import CourseError
from lib.exercises.exercise import PRELUDE
from lib.exercises.standing import Code
from lib.exercises.verdict import AnswerError, Gone
from lib.grading import wire
from lib.grading.walls import Begun, begin

START = 120.0  # seconds for the warm process to load torch on a busy machine
STARTS = 8  # tries to start a warm process that is killed meanwhile
RESTARTS = 3  # how often one exercise may crash and go on


@dataclass(frozen=True)
class Limits:
    """What one answer may use, all its processes together. Seconds and bytes."""

    wall: float = 40.0
    cpu: float = 20.0
    memory: int = 2 * 2**30  # beyond what torch itself has
    processes: int = 32
    disk: int = 64 * 2**20
    files: int = 4096


class Sandbox:
    """A warm process that runs answers, one at a time, each in a fork that nothing of the last one has touched.

    isolated=False is the same without walls, for submissions that are trusted. hidden: files and folders that must not
    be seen even if they lie inside a folder of the system or of Python. begun: one that is starting already. Raises
    CourseError with the reason where isolation cannot be had.
    """

    def __init__(
        self, limits: Limits | None = None, isolated: bool = True, hidden: tuple[str, ...] = (),
        begun: Begun | None = None,
    ):  # fmt: skip
        self.limits, self.isolated, self.hidden, self._begun = limits or Limits(), isolated, hidden, begun
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._spare: socket.socket | None = None  # the line to a runner that has no answer yet
        self._said: dict | None = None
        self._waiting = False
        self._start()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the warm process and all below it."""
        for line in (self._spare, self._control):
            if line:
                line.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._control = self._process = self._spare = None

    def _start(self) -> None:
        for attempt in range(STARTS):
            why, killed = self._try_to_start()
            if not why:
                self._prepare()
                return
            if not killed or attempt == STARTS - 1:
                raise CourseError(
                    f"the sandbox does not start ({why}); docs/grading.md says what it needs, --unsandboxed does "
                    "without, for submissions that you trust"
                )

    def _try_to_start(self) -> tuple[str, bool]:
        """Why it does not start ("" if it does), and whether it ended without a word, as what is killed does."""
        self.close()
        begun, self._begun = self._begun or begin(self.isolated, self.hidden), None
        self._process, self._control = begun.process, begun.control
        self._control.settimeout(START)
        with begun.said as said:
            hello = self._line()
            if hello is None or "error" in hello:
                self._process.kill()
                self._process.wait()
                said.seek(0)
                text = said.read().decode("utf-8", "replace").strip().splitlines()
                why = (hello or {}).get("error") or (text[-1] if text else "it ended without a word")
                self.close()
                return why, not hello and not text
        return "", False

    def _line(self) -> dict | None:
        """One line of JSON from the warm process; None if it is gone."""
        data = b""
        try:
            while not data.endswith(b"\n"):
                if not (more := self._control.recv(4096)):
                    return None
                data += more
        except OSError:
            return None
        return json.loads(data)

    def _tell(self, order: dict, fd: int | None = None) -> None:
        """Give the warm process an order; `_told` waits for what it says to it."""
        with contextlib.suppress(OSError):  # then it says nothing
            socket.send_fds(self._control, [json.dumps(order).encode()], [] if fd is None else [fd])
        self._waiting = True

    def _told(self) -> dict | None:
        """What the warm process says to the last order; None if it is gone."""
        if self._waiting:
            self._said, self._waiting = self._line(), False
        return self._said

    def _prepare(self) -> None:
        """Have a runner made, for the answer that comes next."""
        self._spare, theirs = socket.socketpair()
        with theirs:
            self._tell({"do": "start", "limits": asdict(self.limits)}, theirs.fileno())

    @contextlib.contextmanager
    def channel(self, deadline: float) -> Iterator["Channel"]:
        """A fresh runner. If the warm process has died, or something is left in it, another is started first.

        Nobody waits for a runner to be made or ended: the next one is made while this one works.
        """
        for _ in range(2):
            said = self._told()
            if said and not said["left"]:
                break
            self._start()
        else:
            raise CourseError("the sandbox died twice in a row; see docs/grading.md")
        line = Channel(self._spare, deadline)
        self._prepare()
        try:
            yield line
        finally:
            line.socket.close()
            self._told()
            self._tell({"do": "end", "gone": line.gone})
            if line.failed:
                line.why = (self._told() or {"why": "keeper"})["why"]

    def load(self, code: Code, seed: int = 0) -> "RemoteAnswer":
        """The answer that `code` defines, ready to be called."""
        return RemoteAnswer(self, code, seed)


class Channel:
    """The line to one runner. failed: something went wrong on it; then `why`, once it is closed, says how the runner
    ended. gone: the other end closed it."""

    def __init__(self, socket: socket.socket, deadline: float):
        self.socket, self.deadline, self.why, self.gone, self.failed = socket, deadline, "", False, False


WHY = {
    "memory": "Your code used more memory than it may.",
    "cpu": "Your code ran out of time: it computes for far too long, or forever.",
    "processes": "Your code started too many processes.",
    "late": "Your code ran out of time: it waits or computes for far too long, or forever.",
}


class RemoteAnswer:
    """A learner's function or class over there. Calling it raises AnswerError for what the code raised, Gone if the
    code is no more: crashed, over a limit, or talking nonsense.

    After a crash the next call finds a fresh process; after a limit there is no next call. problem: the last Gone.
    """

    def __init__(self, sandbox: Sandbox, code: Code, seed: int):
        self.sandbox, self.code, self.seed = sandbox, code, seed
        self.lost = False  # the sandbox died, by no doing of the answer's that we know of
        self.problem, self.defined, self.error, self.value, self.callable = "", False, None, None, False
        self.failed: list[tuple[int, str]] = []  # helpers that did not run: number, why
        self._stack: contextlib.ExitStack | None = None
        self._line: Channel | None = None
        self._functions: list = []
        self._calls = 0
        self._starts = 0
        self._final = False
        self._deadline = time.monotonic() + sandbox.limits.wall
        with contextlib.suppress(Gone):
            self._open()

    def __enter__(self) -> "RemoteAnswer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._stack:
            self._stack.close()
        self._stack = None

    def _open(self) -> None:
        if self._final or self._starts > RESTARTS:
            raise Gone(self.problem)
        self._starts += 1
        self._calls = 0
        order = {"prelude": PRELUDE, **{k: list(v) if isinstance(v, tuple) else v for k, v in vars(self.code).items()}}
        for again in (True, False):
            self._stack = contextlib.ExitStack()
            self._line = self._stack.enter_context(self.sandbox.channel(self._deadline))
            there = False
            try:
                self._send({})
                self._receive()
                there = True
                self._send({**order, "seed": self.seed})
                said = self._receive()
                break
            except Gone:
                self.lost |= not there  # it died while it waited: no answer's doing
                if not (again and self.lost):
                    raise
                self.problem, self._final, self.lost = "", False, False
        self.defined, self.callable = said.get("defined") is True, said.get("callable") is True
        self.error = _error(said["error"]) if said.get("error") else None
        self.failed = _failed(said.get("failed"), len(self.code.helpers))
        self.value = said.get("value")

    def __call__(self, *args, **kwargs):
        return self._call(None, args, kwargs)

    def _call(self, target, args, kwargs):
        if self._stack is None:
            if target is not None:
                raise Gone(self.problem)  # what that object knew died with its process
            self._open()
        self._calls += 1
        try:
            self._send({"target": target, "args": list(args), "kwargs": kwargs})
        except ValueError as error:
            raise AnswerError("ValueError", str(error)) from None
        while "callback" in (said := self._receive()):
            self._send(self._called_back(said))
        if said.get("n") != self._calls:
            self._gone("talk")
        if "args" in said:
            for given, changed in zip([list(args), kwargs], [said["args"], said.get("kwargs")], strict=True):
                _write_back(given, changed)
        if "raised" in said:
            raise _error(said["raised"])
        if "unreadable" in said:
            raise AnswerError("ValueError", f"what your code returned cannot be read: {said['unreadable']}")
        return said.get("value")

    def _called_back(self, said: dict) -> dict:
        """Compute a function of ours that the answer was handed, for arguments that it chose."""
        try:
            function = self._functions[said["callback"]]
            args, kwargs = tuple(said.get("args", ())), dict(said.get("kwargs", {}))
            _modest([args, kwargs])
            with torch.no_grad():
                return {"value": function(*args, **kwargs)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:300]}

    def _send(self, message: dict) -> None:
        try:
            wire.send(self._line.socket, message, self._refer, self._line.deadline)
        except wire.Broken:
            self._line.gone = True
            self._gone("")
        except wire.Late:
            self._gone("late")

    def _receive(self) -> dict:
        try:
            return wire.receive(self._line.socket, self._resolve, self._line.deadline)
        except wire.Broken as error:
            self._line.gone = "gone" in str(error) or "reset" in str(error).lower()
            self._gone("" if self._line.gone else "talk")
        except wire.Late:
            self._gone("late")

    def _gone(self, why: str):
        self._line.failed = True
        self.close()
        why = why or self._line.why
        self.lost |= self._line.why == "keeper"
        self._final = why in WHY or self.lost
        if why.startswith(("signal", "exit")):
            self.problem = f"Your code ended the Python process it ran in ({why})."
        else:
            self.problem = WHY.get(why, "Your code broke the line to the grader, or the process behind it.")
        raise Gone(self.problem)

    def _refer(self, value) -> dict:
        if isinstance(value, Handle):
            return {"handle": value._number}
        if not callable(value):
            raise TypeError(f"{type(value).__name__} cannot be handed to an answer")
        self._functions.append(value)
        return {"callback": len(self._functions) - 1}

    def _resolve(self, tree: dict):
        number, kind, is_callable = tree["handle"]
        return (CallableHandle if is_callable else Handle)(self, int(number), str(kind)[:80], self._starts)


class Handle:
    """An object that stays over there; its methods can be called."""

    def __init__(self, answer: RemoteAnswer, number: int, kind: str, start: int):
        self._answer, self._number, self.kind_name, self._start = answer, number, kind, start

    def _remote(self, name, args, kwargs):
        if self._start != self._answer._starts:
            raise Gone(self._answer.problem)
        return self._answer._call([self._number, name], args, kwargs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._remote(name, args, kwargs)


class CallableHandle(Handle):
    def __call__(self, *args, **kwargs):
        return self._remote(None, args, kwargs)


def _error(told) -> AnswerError:
    kind, text, line = ([*told, None, None, None] if isinstance(told, list) else [None] * 3)[:3]
    return AnswerError(str(kind)[:80], str(text or "")[:500], line if type(line) is int else None)


def _failed(told, helpers: int) -> list[tuple[int, str]]:
    rows = [row for row in told if isinstance(row, list) and len(row) == 2] if isinstance(told, list) else []
    return [(n, str(why)[:80]) for n, why in rows[:20] if type(n) is int and 0 <= n < helpers]


def _write_back(given, changed) -> None:
    """Do here to what was handed over what the answer did to its copy."""
    if isinstance(given, torch.Tensor):
        if isinstance(changed, torch.Tensor) and given.shape == changed.shape and given.dtype == changed.dtype:
            with torch.no_grad():
                given.copy_(changed)
    elif isinstance(given, list | tuple) and isinstance(changed, list | tuple):
        for i, (a, b) in enumerate(zip(given, changed, strict=False)):
            if isinstance(a, torch.Tensor | list | dict | tuple):
                _write_back(a, b)
            elif isinstance(given, list):
                given[i] = b
        if isinstance(given, list):
            given[len(changed) :] = changed[len(given) :]
    elif isinstance(given, dict) and isinstance(changed, dict):
        for key in set(given) - set(changed):
            del given[key]
        for key, value in changed.items():
            if isinstance(given.get(key), torch.Tensor | list | dict | tuple):
                _write_back(given[key], value)
            else:
                given[key] = value


MOST_ENTRIES, MOST_WORK = 2**20, 2**26


def _modest(value) -> None:
    """Raise ValueError for tensors so large, side by side, that a function of ours might take all memory or all day.

    Axes are counted from the right, as broadcasting does: a few long axes, each in another tensor, make a huge product.
    """
    longest: list[int] = []
    for size in _shapes(value):
        longest += [1] * (len(size) - len(longest))
        for axis, n in enumerate(reversed(size)):
            longest[axis] = max(longest[axis], n)
    entries = math.prod(longest)
    if entries > MOST_ENTRIES or entries * max(longest, default=1) > MOST_WORK:
        raise ValueError("the grader's functions take smaller tensors than these")


def _shapes(value) -> Iterator[tuple[int, ...]]:
    if isinstance(value, torch.Tensor):
        yield tuple(value.shape)
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _shapes(each)
