"""Lessons side by side, each in a process of its own; what is finished stays finished."""

import ast
import contextlib
import hashlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.course.headless.jupyter import kill_group
from lib.errors import CourseError
from lib.lesson.expectations import seconds as expected_seconds
from lib.lesson.files import write_json
from lib.lesson.series import PRESETS, Lesson, source
from lib.sources.places import ROOT

TIMEOUT = 1800.0
MEMORY = 3.0  # GiB that the lessons with the 135M model need
_GRACE = 5.0  # seconds a lesson gets to put its kernel down


@dataclass(frozen=True)
class Job:
    """One run of one lesson. `name` is that of the executed notebook; `env` is added to the environment."""

    lesson: Lesson
    name: str
    parameters: dict[str, Any]
    preset: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """How a job went. `state` is ok, failed or stopped; `key` says of what source and parameters it is the result."""

    name: str
    title: str
    preset: str
    state: str
    seconds: float
    cells: int
    error: str = ""
    key: str = ""
    digest: str = ""


@dataclass
class Task:
    """A job on its way."""

    job: Job
    state: str = "waiting"
    cell: int = 0
    cells: int = 0
    started: float = 0.0
    ended: float = 0.0
    error: str = ""
    key: str = ""
    kernel: int | None = None
    process: subprocess.Popen | None = None
    result: Result | None = None

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> tuple[float, float]:
    """GiB of memory: what is free, and all that this process may use."""
    import psutil

    seen = psutil.virtual_memory()
    free, whole = seen.available / 2**30, seen.total / 2**30
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):  # containers
        if limit.is_file() and (text := limit.read_text().strip()).isdecimal() and int(text) < seen.total:
            whole = int(text) / 2**30
            free = min(free, whole)
    return free, whole


def side_by_side(preset: str) -> int:
    """How many lessons may run at once: as many as there are cores for, and memory."""
    if preset == "gpu":
        return 1  # lessons that share one GPU would measure each other
    return min(cores(), max(1, int(memory()[0] // MEMORY)))


# ------------------------------------------------------------------------------------------- parameters


def check_preset(preset: str) -> str:
    """The preset as given, or CourseError; COURSE_PRESET takes the place of "auto" as it does in a lesson."""
    import difflib

    name = preset if preset != "auto" else os.environ.get("COURSE_PRESET", "auto")
    if name in (*PRESETS, "auto"):
        return name
    near = difflib.get_close_matches(name, [*PRESETS, "auto"], n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise CourseError(f"unknown preset {name!r}; choose auto, smoke, cpu or gpu.{guess}")


def declared(lesson: Lesson) -> dict[str, Any]:
    """The parameters of a lesson and their defaults, read from the cell tagged `parameters` without running it."""
    for cell in lesson.notebook["cells"]:
        if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", []):
            found = {}
            try:
                lines = ast.parse(source(cell)).body
            except SyntaxError as problem:
                raise CourseError(f"{lesson.stem}: its parameters cell is no Python: {problem.msg}") from None
            for line in lines:
                names = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
                for name in names:
                    if isinstance(name, ast.Name):
                        with contextlib.suppress(ValueError):
                            found[name.id] = ast.literal_eval(line.value)
            return found
    return {}


def given(lesson: Lesson, texts: dict[str, str]) -> dict[str, Any]:
    """Parameter texts of a command line as values of the type of the lesson's defaults.

    Raises CourseError for a name the lesson does not have and for a text that is no such value.
    """
    known = declared(lesson)
    values = {}
    for name, text in texts.items():
        if name not in known:
            have = ", ".join(known) or "none"
            raise CourseError(f"lesson {lesson.stem} has no parameter {name!r}; it has: {have}")
        values[name] = _typed(lesson, name, text, known[name])
    return values


def _typed(lesson: Lesson, name: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    kind = type(default)
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not kind:
        raise CourseError(f"parameter {name!r} of lesson {lesson.stem} is {_kinds(kind)}, not {text!r}")
    return value


def _kinds(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "True or False"}.get(kind, f"a {kind.__name__}")


# ------------------------------------------------------------------------------------------- receipts


def key(job: Job) -> str:
    """A digest of all that decides a job's result: the lesson's cells, its parameters, whose code, Python."""
    cells = [
        (cell.get("cell_type"), source(cell), cell.get("metadata", {}).get("tags"))
        for cell in job.lesson.notebook["cells"]
    ]
    own = Path(job.env["COURSE_OWN"]).glob("*.py") if "COURSE_OWN" in job.env else ()
    answers = [[path.name, hashlib.sha256(_bytes(path)).hexdigest()] for path in sorted(own)]
    what = json.dumps([cells, job.parameters, job.preset, _library(), answers, platform.python_version()])
    return hashlib.sha256(what.encode()).hexdigest()


def _library() -> str:
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "lib").rglob("*.py"), *(ROOT / "data").rglob("*")]):
        name = path.relative_to(ROOT)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):  # as in .ipynb_checkpoints
            digest.update(f"{name}\n".encode() + _bytes(path))
    return digest.hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise CourseError(f"cannot read {path}: {problem.strerror}") from None


def _receipt(out: Path, name: str) -> Path:
    return out / ".receipts" / f"{name}.json"


def receipts(out: Path) -> list[Result]:
    """The results kept in a folder, in order of their names; what cannot be read counts as not there."""
    found = []
    for path in sorted((out / ".receipts").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Result(**json.loads(path.read_text(encoding="utf-8"))))
    return found


def finished(out: Path, job: Job) -> Result | None:
    """The result of an earlier run of just this job, if its executed notebook is still what that run wrote."""
    with contextlib.suppress(OSError):
        for result in receipts(out):
            if result.name == job.name and result.state == "ok" and result.key == key(job):
                if result.digest == _digest(out / f"{job.name}.ipynb"):
                    return result
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------- running


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: `status` is the exit status a shell expects, `results` what there was by then."""

    def __init__(self, status: int, results: list[Result]):
        self.status, self.results = status, results


def run(
    jobs: list[Job],
    out: Path,
    workers: int,
    timeout: float = TIMEOUT,
    watch: Callable[[list[Task], Task | None], None] = lambda tasks, changed: None,
) -> list[Result]:
    """Run jobs, `workers` at a time, the longest first; results in the order of the jobs.

    Each executed notebook is written to `out` and then its receipt. `watch(tasks, changed)` is called whenever
    a task began or ended, and a few times a second with None. Raises Interrupted after SIGINT or SIGTERM, when
    no process is left, and CourseError if `out` cannot be written.
    """
    tasks = [Task(job) for job in jobs]
    try:
        (out / ".receipts").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="course-run-", ignore_cleanup_errors=True) as scratch:
            _Runner(tasks, out, workers, timeout, watch, Path(scratch)).run()
    except OSError as problem:
        raise CourseError(f"cannot write to {out}: {problem.strerror}; choose another --out") from None
    return [task.result for task in tasks]


class _Runner:
    def __init__(self, tasks, out, workers, timeout, watch, scratch):
        self.tasks, self.out, self.workers, self.timeout = tasks, out, workers, timeout
        self.watch, self.scratch = watch, scratch
        self.waiting = sorted(tasks, key=_longest)
        self.events: queue.Queue[tuple[Task, dict | None]] = queue.Queue()

    def run(self) -> None:
        with _signals() as caught:
            try:
                while self.waiting or self._running():
                    while self.waiting and len(self._running()) < self.workers and not caught:
                        self._start(self.waiting.pop(0))
                    self._step()
                    if caught:
                        break
            except BaseException:
                self._stop_all()
                raise
            if caught:
                self._stop_all()
                results = [task.result or _result(task, "stopped") for task in self.tasks]
                raise Interrupted(128 + caught[0], results)

    def _running(self) -> list[Task]:
        return [task for task in self.tasks if task.state == "running"]

    def _start(self, task: Task) -> None:
        place = self.scratch / task.job.name
        for folder in ("work", "home", "ipython", "runtime"):
            (place / folder).mkdir(parents=True)
        for old in (_receipt(self.out, task.job.name), self.out / f"{task.job.name}.ipynb"):
            old.unlink(missing_ok=True)
        task.key = key(task.job)  # of the code it starts with: what is written while it runs is not what ran
        env = {
            **os.environ,
            # A lesson computes on one thread unless it asks for more; more than its share of cores never pays.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // self.workers)),
            "COURSE_HOME": str(place / "home"),  # the learner's own guesses are not part of a headless run,
            "COURSE_OWN": str(place / "home" / "own"),  # nor is the learner's own code, unless the job says so
            "IPYTHONDIR": str(place / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
            **task.job.env,
        }
        with (place / "stderr").open("wb") as stderr:
            task.process = subprocess.Popen(
                [sys.executable, "-m", "lib.course.headless.execute"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=place / "work",
                env=env,
                start_new_session=True,  # Ctrl-C reaches the runner only, which then stops the lessons in order
            )
        orders = {
            "source": str(task.job.lesson.path),
            "out": str(self._part(task)),
            "parameters": task.job.parameters,
            "cwd": str(place / "work"),
        }
        with contextlib.suppress(BrokenPipeError):
            task.process.stdin.write(json.dumps(orders).encode() + b"\n")
            task.process.stdin.flush()
        threading.Thread(target=self._listen, args=(task,), daemon=True).start()
        task.state, task.started = "running", time.monotonic()
        self.watch(self.tasks, task)

    def _part(self, task: Task) -> Path:
        return self.scratch / task.job.name / "executed.ipynb"

    def _listen(self, task: Task) -> None:
        with task.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    self.events.put((task, json.loads(line)))
        task.process.wait()
        with contextlib.suppress(BrokenPipeError):
            task.process.stdin.close()
        self.events.put((task, None))

    def _step(self) -> None:
        """Take in what the lessons told, at most a quarter of a second of it."""
        self.watch(self.tasks, None)
        for task in self._running():
            if task.seconds > self.timeout:
                where = f" in code cell {task.cell}" if task.cell else ""
                task.error = f"took longer than {self.timeout:g} s, stopped{where}"
                self._stop(task)
        with contextlib.suppress(queue.Empty):
            task, event = self.events.get(timeout=0.25)
            while True:
                self._take(task, event)
                task, event = self.events.get_nowait()

    def _take(self, task: Task, event: dict | None) -> None:
        if event is None:
            self._end(task)
            return
        task.kernel = event.get("kernel", task.kernel)
        task.cells = event.get("cells", task.cells)
        task.cell = event.get("cell", task.cell)
        if "failed" in event:
            where = f"code cell {event['at']}: " if event["at"] else ""
            task.error = where + event["failed"]

    def _end(self, task: Task) -> None:
        if task.state != "running":
            return
        task.ended = time.monotonic()
        status = task.process.returncode
        if status != 0 and task.kernel:
            kill_group(task.kernel)
        if status != 0 and not task.error:
            said = (self.scratch / task.job.name / "stderr").read_text("utf-8", "replace").strip().splitlines()
            task.error = f"its process ended with status {status}" + (f": {said[-1][:300]}" if said else "")
        task.state = "ok" if status == 0 else "failed"
        task.result = _result(task, task.state)
        self._keep(task)
        self.watch(self.tasks, task)

    def _keep(self, task: Task) -> None:
        """Put the executed notebook in its place, then its receipt: a receipt vouches for what is there."""
        notebook = self.out / f"{task.job.name}.ipynb"
        if self._part(task).exists():
            part = notebook.with_name(f".{notebook.name}.part")
            shutil.copyfile(self._part(task), part)
            os.replace(part, notebook)
            task.result.digest = _digest(notebook)
        write_json(_receipt(self.out, task.job.name), asdict(task.result))

    def _stop(self, task: Task) -> None:
        with contextlib.suppress(ProcessLookupError):
            task.process.terminate()
        try:
            task.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            kill_group(task.process.pid)
            task.process.kill()
            task.process.wait()
        if task.kernel:
            kill_group(task.kernel)

    def _stop_all(self) -> None:
        running = self._running()
        for task in running:
            with contextlib.suppress(ProcessLookupError):
                task.process.terminate()
        for task in running:
            self._stop(task)
            task.state, task.ended = "stopped", time.monotonic()


def _longest(task: Task) -> float:
    # One that was never measured is started first: it may be long.
    return -(expected_seconds(task.job.lesson.number, task.job.preset) or float("inf"))


def _result(task: Task, state: str) -> Result:
    return Result(
        name=task.job.name,
        title=task.job.lesson.title,
        preset=task.job.preset,
        state=state,
        seconds=round(task.seconds, 1),
        cells=task.cells,
        error=task.error,
        key=task.key,
    )


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them, so that a lesson is never left half stopped."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {
        number: signal.signal(number, lambda n, frame: caught.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
