"""What this machine offers the course, what works and what to fix: one finding a line, for `course doctor`.

Nothing here raises, and nothing needs the data or even PyTorch: a doctor is called when things are missing.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.course.headless.runner import MEMORY, cores, memory
from lib.course.setup import roles
from lib.errors import CourseError
from lib.lesson.predictions import home
from lib.sources import catalogue
from lib.sources.places import ROOT

PYTHONS = ((3, 11), (3, 14))  # from the first, below the second
ROOM = 2.0  # GiB of disk that the data and a converted model need


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: ok, note (works, but worth knowing) or missing. fix: what to do, "" for ok."""

    name: str
    state: str
    what: str
    fix: str = ""


def examine() -> list[Finding]:
    """All findings, in the order of the report."""
    found = []
    for look in (_python, _packages, _torch, _device, _threads, _memory, _disk, _data, _kernel, _own_folder, _grading):
        try:
            found += look()
        except Exception as error:  # a doctor does not die of what it finds
            name = look.__name__.strip("_")
            found.append(Finding(name, "note", f"could not be looked at ({type(error).__name__}: {error})", "tell us"))
    return found


def _python() -> Iterator[Finding]:
    version, (low, high) = platform.python_version(), PYTHONS
    if low <= sys.version_info[:2] < high:
        yield Finding("Python", "ok", f"{version}, {sys.executable}")
    else:
        fix = "remove .venv, then: make setup PYTHON=python3.12 (3.11 to 3.13 will do)"
        yield Finding("Python", "missing", f"{version}; 3.11 to 3.13 is needed", fix)


def _packages() -> Iterator[Finding]:
    here = roles.here()
    wanted = {(role, name): pin for role in here for name, pin in roles.pins(role).items() if name != "torch"}
    lacking = [(role, name) for role, name in wanted if not roles.version(name)]
    others = [f"{name} {there} for {pin}" for (_, name), pin in wanted.items() if (there := roles.version(name)) != pin]
    whose = " and ".join(filter(None, (", ".join(here[:-1]), here[-1])))
    if lacking:
        what = f"{len(wanted) - len(lacking)} of {len(wanted)} for {whose}; no {', '.join(n for _, n in lacking[:4])}"
        yield Finding("packages", "missing", what + (" …" if len(lacking) > 4 else ""), roles.adding(lacking[0][0]))
    elif others:
        what = f"{len(others)} not as pinned: {', '.join(others[:3])}" + (" …" if len(others) > 3 else "")
        yield Finding("packages", "note", what, f"{roles.adding(here[-1])}, unless you meant it")
    else:
        yield Finding("packages", "ok", f"all {len(wanted)} for {whose} as pinned")


def _torch() -> Iterator[Finding]:
    torch = _import_torch()
    if isinstance(torch, str):
        yield Finding("PyTorch", "missing", torch, roles.adding("learn"))
        return
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA in this build"
    yield Finding("PyTorch", "ok", f"{torch.__version__}, {built}, {torch.backends.cpu.get_cpu_capability()}")


def _import_torch():
    """torch, or why it cannot be imported."""
    try:
        import torch
    except ModuleNotFoundError:
        return "not installed"
    except Exception as error:  # a half-copied library, another machine's binary
        return f"does not load, {type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    return torch


def _device() -> Iterator[Finding]:
    if isinstance(_import_torch(), str):
        return
    from lib.device import describe, resolve_preset

    report = describe()
    what = f"{report.get('GPU', report['device'])}, preset {resolve_preset()}"
    if report["device"] == "cpu" and platform.system() == "Linux" and shutil.which("nvidia-smi"):
        fix = "install PyTorch for your CUDA version: see TORCH in the Makefile"
        yield Finding("device", "note", f"{what}; there is an NVIDIA driver, but PyTorch finds no card", fix)
    else:
        yield Finding("device", "ok", what)


def _threads() -> Iterator[Finding]:
    count = f"{cores()} core{'s' * (cores() > 1)}"
    asked = os.environ.get("COURSE_THREADS", "1")
    if asked == "1":
        yield Finding("threads", "ok", f"{count}; a lesson computes on one thread")
    elif asked.isdecimal() and int(asked) > 0:
        fix = "unset COURSE_THREADS unless you measured that it pays: small tensors are fastest on one"
        yield Finding("threads", "note", f"{count}; a lesson computes on {asked} threads", fix)
    else:
        yield Finding("threads", "missing", f"COURSE_THREADS={asked!r} is no number of threads", "unset COURSE_THREADS")


def _memory() -> Iterator[Finding]:
    free, whole = memory()
    what = f"{free:.1f} of {whole:.1f} GiB free"
    if free < MEMORY:
        yield Finding(
            "memory", "note", f"{what}; the 135M model wants {MEMORY:.0f}", "close other programs; run with --jobs 1"
        )
    else:
        yield Finding("memory", "ok", what)


def _disk() -> Iterator[Finding]:
    folder = catalogue.cache_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    what = f"{free:.1f} GiB free in {there}"
    if free >= ROOM or (free > 0.1 and all(map(catalogue.is_here, catalogue.select()))):
        yield Finding("disk", "ok", what)
    else:
        yield Finding(
            "disk", "missing", f"{what}; the data need {ROOM:.0f}", "free some, or set COURSE_CACHE elsewhere"
        )


def _data() -> Iterator[Finding]:
    wanted = catalogue.select()
    lacking = [package.name for package in wanted if not catalogue.is_here(package)]
    if lacking:
        what = f"{len(wanted) - len(lacking)} of {len(wanted)} packages; no {', '.join(lacking[:3])}"
        yield Finding("data", "missing", what + (" …" if len(lacking) > 3 else ""), "course data")
    else:
        yield Finding("data", "ok", f"all {len(wanted)} packages in {catalogue.cache_dir()}")


def _kernel() -> Iterator[Finding]:
    """Whether a notebook's kernel `python3` is this very Python: an old entry in the user's folder may shadow it."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    fix = f"{sys.executable} -m ipykernel install --sys-prefix; if that does not help, remove the one named"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        yield Finding("kernel", "missing", "no kernel named python3", fix)
        return
    program = spec.argv[0]
    found = shutil.which(program) or program
    same = program in ("python", "python3") or Path(found).absolute() == Path(sys.executable).absolute()
    if same or Path(found).parent == Path(sys.executable).parent:
        lab = f"JupyterLab {roles.version('jupyterlab') or 'is not installed'}"
        yield Finding("kernel", "ok", f"{lab}, kernel python3 is this Python")
    else:
        yield Finding("kernel", "note", f"kernel python3 is another Python, {program} ({spec.resource_dir})", fix)


def _own_folder() -> Iterator[Finding]:
    folder = home()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        yield Finding(
            "your folder", "note", f"{folder} cannot be written; guesses are not kept", "set COURSE_HOME elsewhere"
        )
        return
    from lib.lesson.predictions import own_folder

    own = sorted(path.stem for path in own_folder().glob("*.py"))
    yield Finding("your folder", "ok", f"{folder}" + (f"; running on your own {', '.join(own)}" if own else ""))


def _grading() -> Iterator[Finding]:
    if not (ROOT / "lib" / "grading" / "walls.py").is_file():
        return  # a learner's copy does not grade
    if "teach" not in roles.here():
        yield Finding("grading", "ok", f"not set up here; {roles.adding('teach')} adds it")
        return
    fix = "grade on Linux with user namespaces; learners need none of it"
    try:
        from lib.grading.walls import bwrap

        line = [*bwrap(), "--ro-bind", "/", "/", "--unshare-net", "--unshare-pid", "true"]
        ran = subprocess.run(line, capture_output=True, text=True, timeout=20)
        problem = ran.stderr.strip().splitlines()[-1][:100] if ran.returncode else ""
    except (CourseError, OSError, ImportError, subprocess.TimeoutExpired) as error:
        problem = str(error).splitlines()[0][:100]
    if problem:
        yield Finding("grading", "note", f"no sandbox: {problem}", fix)
    else:
        yield Finding("grading", "ok", "the sandbox starts")


def report(findings: list[Finding]) -> str:
    """The findings as plain text, a line each, and a verdict."""
    lines = []
    for finding in findings:
        mark = {"ok": "ok  ", "note": "note", "missing": "FIX "}[finding.state]
        lines.append(f"{mark} {finding.name:<12} {finding.what}" + (f"  ->  {finding.fix}" if finding.fix else ""))
    count = sum(finding.state == "missing" for finding in findings)
    lines.append("Everything needed is here." if not count else f"{count} thing{'s' * (count > 1)} to fix first.")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """One object: ok, and the findings."""
    told = [{"name": f.name, "state": f.state, "what": f.what, "fix": f.fix} for f in findings]
    return json.dumps({"ok": healthy(findings), "findings": told}, indent=1, ensure_ascii=False, allow_nan=False)


def healthy(findings: list[Finding]) -> bool:
    return all(finding.state != "missing" for finding in findings)
