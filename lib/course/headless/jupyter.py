"""What everybody who starts a Jupyter kernel needs: quiet options, an error in one line, a way to end it."""

import os
import re
import signal

QUIET = ["--log-level=ERROR"]  # no advice about transport encryption between two processes of one machine
ANSI = re.compile(r"\x1b\[[0-9;]*m")


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
