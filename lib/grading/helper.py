"""A process for one exercise: what a check of ours computes there, for an answer that may have chosen it, has limits.

It is a fork of the judge that evaluates one answer and is gone. The sandbox stays here: the helper borrows lines to its
runners, one at a time.
"""

import contextlib
import ctypes
import json
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

from lib.grading.sandbox import Channel, Sandbox

MEMORY = 2**30  # bytes that a check may add
SLACK = 5.0  # seconds beyond the answer's own limit
TOO_MUCH = "Judging what your code returned, or asked the grader to compute, took more time or memory than it may."


class Helper:
    """Runs checks in a process of their own, under limits. None is left when `run` returns."""

    def run(self, sandbox: Sandbox, judged: Callable):
        """(what judged(sandbox) returns, "") or (None, why it returned nothing)."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _work(theirs, sandbox, judged)
        theirs.close()
        try:
            with ours:
                return _serve(ours, sandbox, time.monotonic() + sandbox.limits.wall + SLACK)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _serve(line: socket.socket, sandbox: Sandbox, deadline: float):
    """Lend the helper runners until it is done."""
    with contextlib.ExitStack() as lent:
        channel: Channel | None = None
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([line], [], [], left)[0]:
                break
            data = line.recv(2**16)
            if not data:
                break
            if data[:1] != b"{":  # the length of a result
                return _result(line, int(data), deadline)
            order = json.loads(data)
            if order["do"] == "open":
                channel = lent.enter_context(sandbox.channel(order["deadline"]))
                deadline += channel.deadline - order["deadline"]
                socket.send_fds(line, [json.dumps(channel.deadline).encode()], [channel.socket.fileno()])
            else:
                channel.gone, channel.failed = order["gone"], order["failed"]
                lent.close()
                line.sendall(json.dumps({"why": channel.why}).encode())
    return None, TOO_MUCH


def _result(line: socket.socket, size: int, deadline: float):
    line.sendall(b"go")
    data = bytearray()
    while len(data) < size:
        line.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = line.recv(2**20)
        except TimeoutError:
            more = b""
        if not more:
            return None, TOO_MUCH
        data += more
    return pickle.loads(data), ""  # from a process of ours, in which no code of a learner's has run


def _work(line: socket.socket, sandbox: Sandbox, judged: Callable) -> None:
    """The helper's whole life. Never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if hasattr(signal, "SIGXCPU"):
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource

            cpu = int(sandbox.limits.cpu) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
            with open("/proc/self/statm") as file:
                size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        data = pickle.dumps(judged(Borrowed(line, sandbox)))
        line.sendall(b"%d" % len(data))
        line.recv(2)
        line.sendall(data)
    finally:
        os._exit(0)


class Borrowed:
    """The judge's sandbox as its helper sees it."""

    limited = True

    def __init__(self, line: socket.socket, sandbox: Sandbox):
        self._line, self.limits, self.isolated = line, sandbox.limits, sandbox.isolated

    load = Sandbox.load

    @contextlib.contextmanager
    def channel(self, deadline: float) -> Iterator[Channel]:
        self._line.sendall(json.dumps({"do": "open", "deadline": deadline}).encode())
        said, [fd], _, _ = socket.recv_fds(self._line, 64, 1)
        channel = Channel(socket.socket(fileno=fd), json.loads(said))
        try:
            yield channel
        finally:
            channel.socket.close()
            about = {"do": "close", "gone": channel.gone, "failed": channel.failed}
            self._line.sendall(json.dumps(about).encode())
            channel.why = json.loads(self._line.recv(4096))["why"]


