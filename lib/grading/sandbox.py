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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lib.errors import CourseError
from lib.exercises.exercise import PRELUDE
from lib.exercises.standing import Code
from lib.exercises.verdict import AnswerError, Gone
from lib.grading import wire
from lib.grading.account import Group, Groups
from lib.grading.cleaning import clean
from lib.grading.rules import ready_made
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
    be seen even if they lie inside a folder of the system or of Python. begun: one that is starting already. groups:
    use the kernel's own account of what answers use, where it can be had; `account` says. Raises CourseError with the
    reason where isolation cannot be had.
    """

    def __init__(
        self, limits: Limits | None = None, isolated: bool = True, hidden: tuple[str, ...] = (),
        begun: Begun | None = None, groups: bool = True,
    ):  # fmt: skip
        self.limits, self.isolated, self.hidden, self._begun = limits or Limits(), isolated, hidden, begun
        self.limited = True  # functions of ours may be computed in this process
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._spare: socket.socket | None = None  # the line to a runner that has no answer yet
        self._number = 0  # of that runner
        self._ordered = 0  # the number in the last order
        self._said: dict | None = None
        self._waiting = self._untidy = False
        most = self.limits.memory + 2 * self.limits.disk if isinstance(self.limits.disk, int) else self.limits.memory
        self._groups = Groups(most, self.limits.processes) if groups and isolated else None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def account(self) -> str:
        """Who counts what answers use: the kernel's control groups, or we, from /proc; and what was tried for that."""
        if self._groups is None:
            return "nobody" if not self.isolated else "from /proc"
        return self._groups.tried if self._groups.sets else f"from /proc ({self._groups.tried})"

    def close(self) -> None:
        """End the warm process and all below it."""
        self._end()
        if self._groups:
            self._groups.remove()

    def _end(self) -> None:
        for line in (self._spare, self._control):
            if line:
                line.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._control = self._process = self._spare = None

    def _start(self) -> None:
        self._untidy = self._waiting = False
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
        self._end()
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
                self._end()
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

    def _tell(self, order: dict, fds: Sequence[int] = ()) -> None:
        """Give the warm process an order; `_told` waits for what it says to it."""
        self._ordered, self._waiting = order["number"], True
        with contextlib.suppress(OSError):  # then it says nothing
            socket.send_fds(self._control, [json.dumps(order).encode()], fds)

    def _told(self) -> dict | None:
        """What the warm process says to the last order; None if it is gone, or speaks of something else."""
        if self._waiting:
            self._said, self._waiting = self._line(), False
            if self._said and self._said.get("number") != self._ordered:
                self._said = None
        return self._said

    def _prepare(self) -> bool:
        """Have a runner made, for the answer that comes next. False if something is left of one before it."""
        self._number += 1
        files, kind, clear = [], "", True
        if self._groups and self._groups.sets:
            group = self._groups.sets[self._number % 2]
            try:
                clear = self._clear(group)
                files, kind = group.files(), group.kind
            except OSError:  # somebody removed it
                self._groups.remove()
        self._spare, theirs = socket.socketpair()
        order = {"do": "start", "number": self._number, "limits": vars(self.limits), "account": kind}
        with theirs:
            self._tell(order, [theirs.fileno(), *files])
        return clear

    @staticmethod
    def _clear(group: Group) -> bool:
        """Whether nothing is left in a set of groups; what is dying gets a moment."""
        patience = time.monotonic() + 2.0
        while group.left():
            if time.monotonic() > patience:
                return False
            time.sleep(0.002)
        return True

    @contextlib.contextmanager
    def channel(self, deadline: float) -> Iterator["Channel"]:
        """A fresh runner. If the warm process has died, or something is left in it, another is started first.

        Nobody waits for a runner to be made or ended: the next one is made while this one works. What is not ended in
        good order is ended with the whole warm process, before anything else runs. To start another is on no clock.
        """
        began = 0.0
        for _ in range(2):
            said = None if self._untidy else self._told()
            if said and not said["left"]:
                break
            began = began or time.monotonic()
            self._start()
        else:
            raise CourseError("the sandbox died twice in a row; see docs/grading.md")
        deadline += time.monotonic() - began if began else 0.0
        line, number = Channel(self._spare, deadline), self._number
        self._untidy = True
        tidy = self._prepare()
        try:
            yield line
        finally:
            line.socket.close()
            tidy &= self._told() is not None
            self._tell({"do": "end", "number": number, "gone": line.gone})
            if line.failed:
                line.why = (self._told() or {"why": "keeper"})["why"]
            self._untidy = not tidy

    def load(self, code: Code, ready: Sequence[str] = (), forbidden: Sequence[str] = ()) -> "RemoteAnswer":
        """The answer that `code` defines, ready to be called. ready, forbidden: what it is seen to call of these
        (dotted names; names of PyTorch's operations and their twins) is in its `uses`.
        """
        return RemoteAnswer(self, code, {"ready": list(ready), "forbidden": list(forbidden)})


class Channel:
    """The line to one runner. failed: something went wrong on it; then `why`, once it is closed, says how the runner
    ended. gone: the other end closed it."""

    def __init__(self, socket: socket.socket, deadline: float):
        self.socket, self.deadline, self.why, self.gone, self.failed = socket, deadline, "", False, False


WHY = {
    "unread": "What your code uses could not be told, so it was ended.",
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

    def __init__(self, sandbox: Sandbox, code: Code, watched: dict):
        self.sandbox, self.code, self.watched = sandbox, code, watched
        self.lost = False  # the sandbox died, by no doing of the answer's that we know of
        self.problem, self.defined, self.error, self.value, self.callable = "", False, None, None, False
        self.failed: list[tuple[int, str]] = []  # helpers that did not run: number, why
        self.stopped: tuple[int, str] | None = None  # a line of the cell that failed above what is needed, and why
        self._stack: contextlib.ExitStack | None = None
        self._line: Channel | None = None
        self._functions: list = []
        self._calls = 0
        self._busy = False  # a call of ours is under way
        self.uses: dict[str, int | None] = {}  # what it was seen to call ready made, and in which line first
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
            self._deadline = self._line.deadline
            there = False
            try:
                self._send({})
                self._receive()
                there = True
                self._send({**order, **self.watched})
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
        self.stopped = next(iter(_failed([said.get("stopped")], len(self.code.source))), None)
        self.value = said.get("value")

    def __call__(self, *args, **kwargs):
        return self._call(None, args, kwargs)

    def _call(self, target, args, kwargs):
        if self._busy:
            raise RuntimeError("a call within a call")
        self._busy = True
        try:
            return self._called(target, args, kwargs)
        finally:
            self._busy = False

    def _called(self, target, args, kwargs):
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
            try:
                self._send(self._called_back(said))
            except ValueError as error:  # what our function returns is too large to send
                self._send({"error": str(error)})
        self._note(said.get("uses"))
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
            number, args, kwargs = said["callback"], said.get("args", ()), said.get("kwargs", {})
            if type(number) is not int or not 0 <= number < len(self._functions):
                raise ValueError("no function of the grader's")
            _modest([args, kwargs])
            with torch.no_grad():
                return {"value": self._functions[number](*args, **kwargs)}
        except Exception as error:
            return {"error": clean(f"{type(error).__name__}: {error}", 300)}

    def _note(self, uses) -> None:
        """Remember what the answer says of itself that it called: names that were asked about, and a line."""
        for use in uses if isinstance(uses, list) else ():
            if isinstance(use, list) and len(use) == 2 and isinstance(use[0], str) and len(self.uses) < 20:
                name, line = use
                if name in self.watched["ready"] or ready_made(name.rpartition(".")[2], self.watched["forbidden"]):
                    self.uses.setdefault(clean(name, 100), line if type(line) is int else None)

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
        why = (why or self._line.why).partition(" (")[0] or "talk"
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
        if not self.sandbox.limited:
            raise HandsOver
        self._functions.append(value)
        return {"callback": len(self._functions) - 1}

    def _resolve(self, tree: dict):
        number, kind, is_callable = tree["handle"]
        if type(number) is not int or not isinstance(kind, str):
            raise ValueError(number)
        return (CallableHandle if is_callable is True else Handle)(self, number, clean(kind, 80), self._starts)


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
    kind, text, line = ([*told[:3], None, None, None] if isinstance(told, list) else [None] * 3)[:3]
    kind, text = (each if isinstance(each, str) else "" for each in (kind, text))
    text = "\n".join(clean(each, 500) for each in text[:500].split("\n"))
    return AnswerError(clean(kind, 80), text, line if type(line) is int and 0 < line < 10**6 else None)


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
MOST_PARTS, MOST_LETTERS, MOST_NUMBER = 10_000, 20_000, 2**63


def _modest(value) -> None:
    """Raise ValueError for arguments that a function of ours is not made for: objects that live over there, and plain
    values so large, all together, that it might take all memory or all day.

    Axes are counted from the right, as broadcasting does: a few long axes, each in another tensor, make a huge product.
    """
    longest: list[int] = []
    parts = letters = 0
    todo = [value]
    while todo:
        each = todo.pop()
        parts += 1
        if isinstance(each, torch.Tensor | np.ndarray):
            size = tuple(each.shape)
            longest += [1] * (len(size) - len(longest))
            for axis, n in enumerate(reversed(size)):
                longest[axis] = max(longest[axis], n)
        elif isinstance(each, list | tuple):
            todo += each
        elif isinstance(each, dict):
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, str):
            letters += len(each)
        elif isinstance(each, int | float):
            if not isinstance(each, float) and abs(each) > MOST_NUMBER:
                raise ValueError("the grader's functions take smaller numbers than these")
        elif each is not None:
            raise ValueError("the grader's functions take plain values: numbers, text, tensors, lists of them")
        if parts + len(todo) > MOST_PARTS or letters > MOST_LETTERS:
            raise ValueError("the grader's functions take less than that at once")
    entries = math.prod(longest)
    if entries > MOST_ENTRIES or entries * max(longest, default=1) > MOST_WORK:
        raise ValueError("the grader's functions take smaller tensors than these")


class HandsOver(BaseException):
    """A check hands functions of ours to an answer, which chooses what they compute: that is for a limited helper
    (lib.grading.helper), not for this process."""
