"""The kernel's own account of what an answer uses: control groups, where they can be had.

Two sets of groups for each sandbox, for the runner that works and the one that waits, made below the groups that the
grader itself is in: whatever limits those have stay in force. cgroup v1 as root, or v2 where a group was delegated.
"""

import contextlib
import itertools
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

SLACK = 8  # processes beyond the limit, so that our own count is the one that says why
NAME = re.compile(r"course-grade-(\d+)-\d+")
NUMBER = itertools.count()
V1 = ("cpuacct", "memory", "pids")


@dataclass
class Group:
    """A set of groups: where they are, and in which files the kernel says what they use."""

    kind: str
    places: list[Path]
    cpu: Path
    events: Path
    memory: Path
    count: Path
    opened: list[int] = field(default_factory=list)

    def files(self) -> list[int]:
        """Open, until it is removed: the lists of processes, to write to; then CPU, events and memory, to read."""
        return self._open()[:-1]

    def left(self) -> int:
        """How many processes and threads are in it. (A list of processes, read again, may be an old one in v1.)"""
        return int(os.pread(self._open()[-1], 64, 0))

    def _open(self) -> list[int]:
        if not self.opened:
            wanted = [(place / "cgroup.procs", os.O_WRONLY) for place in self.places]
            wanted += [(path, os.O_RDONLY) for path in (self.cpu, self.events, self.memory, self.count)]
            try:
                for path, how in wanted:
                    self.opened.append(os.open(path, how | os.O_CLOEXEC))
            except OSError:
                self._close()
                raise
        return self.opened

    def _close(self) -> None:
        while self.opened:
            os.close(self.opened.pop())

    def remove(self) -> None:
        """Once those in it are gone; what is dying gets a moment."""
        self._close()
        _gone(self.places)


class Groups:
    """Two sets of groups under one limit. tried: what was found, or what was tried and refused. None are had: empty."""

    def __init__(self, memory: int, processes: int, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")):
        self.sets: list[Group] = []
        tried = []
        for kind, make in (("v2", self._v2), ("v1", self._v1)):
            try:
                for _ in range(2):
                    self.sets.append(make(root, proc, f"course-grade-{os.getpid()}-{next(NUMBER)}", memory, processes))
                tried = [f"cgroup {kind}"]
                break
            except (OSError, LookupError, ValueError) as error:
                self.remove()
                tried.append(f"cgroup {kind}: {error.strerror if isinstance(error, OSError) else error}")
        self.tried = "; ".join(tried)

    def remove(self) -> None:
        while self.sets:
            self.sets.pop().remove()

    def _v1(self, root: Path, proc: Path, name: str, memory: int, processes: int) -> Group:
        own = _own(proc)
        places = {}
        for controller in V1:
            top = root / controller
            if controller not in own or not (top / "cgroup.procs").exists():
                raise LookupError(f"no controller {controller}")
            places[controller] = top / own[controller].lstrip("/")
        if (places["memory"] / "memory.use_hierarchy").read_text().strip() != "1":
            raise LookupError("its memory groups do not count what is below them")
        made = Group("v1", [], *(Path(),) * 4)
        self.sets.append(made)  # so that a half of it is removed, too
        for top in places.values():
            _sweep(top)
            (top / name).mkdir()
            made.places.append(top / name)
        self.sets.pop()
        cpu, ram, tasks = made.places
        (ram / "memory.limit_in_bytes").write_text(str(memory))
        (tasks / "pids.max").write_text(str(processes + SLACK))
        made.cpu, made.events = cpu / "cpuacct.usage", ram / "memory.oom_control"
        made.memory, made.count = ram / "memory.usage_in_bytes", tasks / "pids.current"
        return made

    def _v2(self, root: Path, proc: Path, name: str, memory: int, processes: int) -> Group:
        own = _own(proc).get("")
        top = next((p for p in (root / "unified", root) if (p / "cgroup.controllers").exists()), None)
        if own is None or top is None:
            raise LookupError("not mounted")
        here = top / own.lstrip("/")
        why = "no group was delegated that counts memory and processes"
        for above in (here, *here.parents):  # a group with processes in it cannot hand its controllers on
            if not above.is_relative_to(top):
                break
            place = above / name
            try:
                _sweep(above)
                place.mkdir()
            except OSError as error:
                why = f"{above}: {error.strerror}"
                break
            if {"memory", "pids"} <= set((place / "cgroup.controllers").read_text().split()):
                (place / "memory.max").write_text(str(memory))
                (place / "pids.max").write_text(str(processes + SLACK))
                with contextlib.suppress(OSError):
                    (place / "memory.swap.max").write_text("0")
                names = ("cpu.stat", "memory.events", "memory.current", "pids.current")
                return Group("v2", [place], *(place / name for name in names))
            place.rmdir()
        raise LookupError(why)


def _own(proc: Path) -> dict[str, str]:
    """{controller: the group this process is in}; "" is v2's."""
    found = {}
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def sweep(root: Path = Path("/sys/fs/cgroup")) -> None:
    """Remove what graders that were killed have left of groups."""
    with contextlib.suppress(OSError, ValueError):
        for controller, path in _own(Path("/proc")).items():
            for top in (root / controller, root / "unified", root):
                for above in (top / path.lstrip("/"), *(top / path.lstrip("/")).parents):
                    if above.is_relative_to(top):
                        _gone(_dead(above))


def _sweep(top: Path) -> None:
    for place in _dead(top):
        with contextlib.suppress(OSError):
            place.rmdir()


def _dead(top: Path) -> list[Path]:
    """The groups of graders that are no more."""
    names = ((place, NAME.fullmatch(place.name)) for place in top.glob("course-grade-*"))
    return [place for place, found in names if found and not Path(f"/proc/{found[1]}").exists()]


def _gone(places: list[Path], patience: float = 2.0) -> None:
    end = time.monotonic() + patience
    for place in places:
        while place.exists():
            try:
                place.rmdir()
            except OSError:
                if time.monotonic() > end:
                    break
                time.sleep(0.005)
