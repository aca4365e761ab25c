"""One notebook in one process, by papermill: `python -m lib.course.headless.execute`, started by the runner.

Reads its orders as one line of JSON on stdin, tells its progress as lines of JSON on stdout. The end of stdin
means that the runner is gone: then it stops, and its kernel with it.
"""

import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from lib.course.headless.jupyter import QUIET, brief, kill_group

_client: Any = None


def main() -> int:
    orders = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides
    threading.Thread(target=_watch, daemon=True).start()
    logging.disable(logging.WARNING)

    import papermill
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    at = 0

    class Engine(NBClientEngine):
        """papermill's own, with a word on every cell that begins."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_: Any) -> Any:
            global _client
            order = {}
            for cell in nb_man.nb.cells:
                injected = "injected-parameters" in cell.metadata.get("tags", [])
                if cell.cell_type == "code" and cell.source.strip() and not injected:
                    order[cell.id] = len(order) + 1

            def begins(cell: Any, cell_index: int) -> None:
                nonlocal at
                if cell.id in order:
                    at = order[cell.id]
                    _tell(cell=at)

            _client = PapermillNotebookClient(
                nb_man, kernel_name=kernel_name, startup_timeout=120, extra_arguments=QUIET
            )
            _client.on_notebook_start = lambda **_: _tell(kernel=_kernel(), cells=len(order))
            _client.on_cell_start = begins
            result = _client.execute()
            if at < len(order):  # sys.exit() in a cell: papermill takes that for the end
                failed = any(o.output_type == "error" and o.ename != "SystemExit" for o in _outputs(nb_man.nb))
                if not failed:
                    raise EarlyEnd
            return result

    papermill_engines.register("course", Engine)
    try:
        papermill.execute_notebook(
            orders["source"],
            orders["out"],
            parameters=orders["parameters"],
            engine_name="course",
            kernel_name="python3",
            language="python",
            cwd=orders["cwd"],
            progress_bar=False,
        )
    except PapermillExecutionError as problem:
        _tell(failed=brief(problem.ename, problem.evalue), at=at)
        return 1
    except EarlyEnd:
        _tell(failed="SystemExit: the rest of the lesson was not run", at=at)
        return 1
    except Exception as problem:
        _tell(failed=brief(type(problem).__name__, str(problem)), at=at)
        return 1
    _tell(done=True)
    return 0


class EarlyEnd(Exception):
    """A cell ended the kernel's run on purpose."""


def _outputs(nb: Any) -> list[Any]:
    return [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]


def _tell(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _kernel() -> int | None:
    """The kernel's process id, once there is one."""
    manager = _client.km if _client else None
    return getattr(manager.provisioner, "pid", None) if manager else None


def _watch() -> None:
    # The file descriptor, not sys.stdin: a thread blocked inside a buffered reader would break the exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(signum: int, frame: Any) -> None:
    kernel = _kernel()
    if kernel:
        kill_group(kernel)
        _client.km.cleanup_connection_file()
    os._exit(128 + signum)



if __name__ == "__main__":
    sys.exit(main())
