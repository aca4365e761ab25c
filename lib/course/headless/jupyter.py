"""What everybody who starts a Jupyter kernel needs: an environment that is nobody's, an error in one line, an end."""

import importlib.util
import os
import re
import signal
from pathlib import Path

from lib.moved import way

QUIET = ["--log-level=ERROR"]  # no advice about transport encryption between two processes of one machine
ANSI = re.compile(r"\x1b\[[0-9;]*m")


PERSONAL = {"MPLBACKEND", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONBREAKPOINT"}


def nobodys(folder: Path) -> dict[str, str]:
    """This process's environment without what its user has set for other work: IPython's settings and start-up files,
    Matplotlib's looks and backend, Python's warnings and optimisation. folder: where IPython may write.
    """
    env = {name: value for name, value in os.environ.items() if name not in PERSONAL}
    env["IPYTHONDIR"] = str(folder / "ipython")
    if found := importlib.util.find_spec("matplotlib"):
        env["MATPLOTLIBRC"] = str(Path(found.origin).parent / "mpl-data" / "matplotlibrc")
    return env


def brief(name: str, text: str) -> str:
    """An error in one line: its name and the first line of what it says, and today's way to what is no more."""
    said = ANSI.sub("", text).strip().splitlines()
    today = way(text)
    return (f"{name}: {said[0][:300]}" if said else name) + (f" ({today})" if today else "")


def kill_group(pid: int) -> None:
    """Kill a process and, where the system has groups, all of the group it leads."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        pass
