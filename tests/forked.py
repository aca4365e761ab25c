"""Notebooks in forks of one warm process that has loaded what lessons import: no kernel to start and none to stop.

    with Warm() as warm:
        warm.run(notebook, folder, COURSE_PRESET="smoke")  # fills in what each code cell displays, or raises

A fork runs the cells in an IPython shell one after another, as a kernel does; strict nbval has the kernels.
"""

import ast
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import nbformat

SECONDS = 900.0  # for a whole notebook on a busy machine


class Warm:
    """The warm process. It may have one thread only, since it forks; so it is none of the processes of the tests."""

    def __enter__(self) -> "Warm":
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        )  # fmt: skip
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def run(self, nb, folder: Path, **environment: str):
        """Run a notebook's code cells in a folder; returns the notebook, with what they display as their outputs.

        Raises AssertionError with the number of the cell that fails.
        """
        cells = [cell for cell in nb.cells if cell.cell_type == "code"]
        with tempfile.NamedTemporaryFile("r", suffix=".json") as told:
            order = {"sources": [cell.source for cell in cells], "folder": str(folder), "told": told.name}
            self.process.stdin.write(json.dumps(order | {"environment": environment}).encode() + b"\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], SECONDS)[0]:
                raise AssertionError(f"it took longer than {SECONDS:.0f} s")
            status, said = self.process.stdout.readline().strip(), told.read()
        assert status == b"0", f"the process ended by itself: {status.decode() or 'with the warm one'}"
        outcome = json.loads(said)
        assert "error" not in outcome, outcome["error"]
        for cell, shown in zip(cells, outcome["shown"], strict=True):
            cell.outputs = [nbformat.from_dict(output) for output in shown]
        return nb


def main() -> None:
    """One order after another, a line of JSON each: fork, let the child run it, tell how it ended."""
    _load()
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _obey(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _load() -> None:
    """Import all that the lessons do; lib.lesson first, as they do."""
    import lib.lesson.session  # noqa: F401
    from lib.lesson.series import series

    sources = ("".join(c["source"]) for each in series() for c in each.notebook["cells"] if c["cell_type"] == "code")
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                getattr(module, alias.name, None)  # what transformers only loads when it is asked for it


def _obey(order: dict) -> None:
    """The child's whole life. Never returns."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)  # the pipe is for the parent's words
        os.chdir(order["folder"])
        os.environ |= order["environment"]
        outcome = _execute(order["sources"])
        with open(order["told"], "w") as file:
            json.dump(outcome, file)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _execute(sources: list[str]) -> dict:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    shell = InteractiveShell.instance(config=config)
    shown = []
    for number, source in enumerate(sources, 1):
        with capture_output() as said:
            result = shell.run_cell(source, store_history=True)
        if not result.success:
            error = result.error_before_exec or result.error_in_exec
            return {"error": f"code cell {number}: {error!r}\n{said.stdout}\n{said.stderr}"}
        shown.append([
            {"output_type": "display_data", "data": {k: v for k, v in o.data.items() if isinstance(v, str)}}
            for o in said.outputs
        ])  # fmt: skip
    return {"shown": shown}


if __name__ == "__main__":
    main()
