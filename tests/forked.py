"""Functions in forks of one warm process, which has imported once what each of them would: two seconds with torch.

    with Warm("test_something") as warm:
        done = warm.call("test_something:function", "an argument", COURSE_PRESET="smoke")
        done.value, done.status, done.said

A fork is a process like any other: it may set its environment, start processes, crash or be killed. `notebook` runs a
notebook's cells in one. `Fork` is one of the tests' own process, which has loaded what it needs, and need not be waited
for.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 900.0  # for one call on a busy machine


@dataclass
class Done:
    """What came of a call: the function's value as JSON has it, the exit status (0 if it returned), and all it said."""

    value: Any
    status: int
    said: str


class Warm:
    """The warm process. It forks, so it may have one thread only, and is none of the processes of the tests.

    modules: what it imports before the first call.
    """

    def __init__(self, *modules: str):
        self.modules = modules

    def __enter__(self) -> "Warm":
        line = [sys.executable, __file__, json.dumps([p for p in sys.path if p]), *self.modules]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                                        env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()  # then it ends
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()

    def call(self, function: str, *arguments, folder: Path | None = None, **environment: str) -> Done:
        """Call `module:name` in a fork of its own."""
        with tempfile.TemporaryDirectory() as top:
            told, said = Path(top, "told"), Path(top, "said")
            order = {"function": function, "arguments": arguments, "environment": environment,
                     "folder": str(folder or Path.cwd()), "told": str(told), "said": str(said)}  # fmt: skip
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
            assert select.select([self.process.stdout], [], [], SECONDS)[0], f"it took longer than {SECONDS:.0f} s"
            status = self.process.stdout.readline()
            assert status, "the warm process is gone"
            value = json.loads(told.read_text()) if told.exists() else None
            return Done(value, int(status), said.read_text(errors="replace"))

    def notebook(self, nb, folder: Path, **environment: str):
        """Run a notebook's code cells in a folder; returns the notebook, with what they display as their outputs.

        Raises AssertionError with the number of the cell that fails.
        """
        import nbformat  # here alone: over there nobody needs it

        cells = [cell for cell in nb.cells if cell.cell_type == "code"]
        environment |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        with tempfile.TemporaryDirectory() as top:
            sources = [cell.source for cell in cells]
            done = self.call("forked:cells", sources, folder=folder, IPYTHONDIR=top, **environment)
        assert done.status == 0, done.said[-4000:]
        for cell, shown in zip(cells, done.value, strict=True):
            cell.outputs = [nbformat.from_dict(output) for output in shown]
        return nb


class Fork:
    """A function in a fork of this very process, in a session of its own; to be asked and ended as a Popen is.

    said: the file for all that it says.
    """

    def __init__(self, function: Callable, *arguments, said: Path, folder: Path | None = None, **environment: str):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            gc.freeze()
            os.setsid()
            order = {"said": str(said), "folder": str(folder or Path.cwd()), "environment": environment}
            _live(order, lambda: function(*arguments))

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = SECONDS) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.01)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------------- over there


def main() -> None:
    """One order after another, a line of JSON each: fork, let the child obey, tell how it ended."""
    _, path, *modules = sys.argv
    sys.path[:] = json.loads(path)
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all memory
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _obey(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _obey(order: dict) -> None:
    """The child's whole life. Never returns."""

    def obey():
        module, _, name = order["function"].partition(":")
        value = getattr(importlib.import_module(module), name)(*order["arguments"])
        Path(order["told"]).write_text(json.dumps(value))

    _live(order, obey)


def _live(order: dict, work: Callable[[], None]) -> None:
    """Where it says, nothing on stdin, all it says in one file. Never returns."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)  # the pipes are the parent's
        os.dup2(1, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        os.chdir(order["folder"])
        os.environ |= order["environment"]
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def cells(sources: list[str]) -> list[list[dict]]:
    """Run cells one after another in an IPython shell, as a kernel does; what each displays, as outputs."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance(ipython_dir=os.environ["IPYTHONDIR"], colors="NoColor")
    displayed = []
    for number, source in enumerate(sources, 1):
        with capture_output() as shown:
            result = shell.run_cell(source, store_history=True)
        if not result.success:
            error = result.error_before_exec or result.error_in_exec
            sys.exit(f"{shown.stdout}\n{shown.stderr}\ncode cell {number}: {error!r}")
        displayed.append([
            {"output_type": "display_data", "data": {k: v for k, v in output.data.items() if isinstance(v, str)}}
            for output in shown.outputs
        ])  # fmt: skip
    return displayed


if __name__ == "__main__":
    main()
