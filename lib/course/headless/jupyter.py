"""What everybody who starts a Jupyter kernel needs: quiet options, nobody's own settings, a way to end it."""

import contextlib
import importlib.util
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

QUIET = ["--log-level=ERROR"]  # no advice about transport encryption between two processes of one machine
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def impersonal(place: Path) -> dict[str, str]:
    """An environment in which a lesson gives what it gives for everybody, as an addition to os.environ.

    Whoever runs it may have settings of IPython, Matplotlib and Jupyter, and another kernel called python3; none of
    that is read. place: an empty folder. Variables that are not to be there are empty.
    """
    found = {name: str(place / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    for folder in found.values():
        os.makedirs(folder, exist_ok=True)
    found |= {"JUPYTER_PATH": "", "JUPYTER_CONFIG_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONSTARTUP": ""}
    found |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    matplotlib = importlib.util.find_spec("matplotlib")
    for folder in matplotlib.submodule_search_locations if matplotlib else ():
        found["MATPLOTLIBRC"] = str(Path(folder, "mpl-data", "matplotlibrc"))
    return found


@contextlib.contextmanager
def nobodys(place: Path) -> Iterator[None]:
    """The same for this process, which looks for kernels itself."""
    before = dict(os.environ)
    os.environ |= impersonal(place)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def brief(name: str, text: str) -> str:
    """An error in one line: its name and the first line of what it says."""
    said = ANSI.sub("", text).strip().splitlines()
    return f"{name}: {said[0][:300]}" if said else name


def kill_group(pid: int) -> None:
    """Kill a process and, where the system has groups, all of the group it leads."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        pass
