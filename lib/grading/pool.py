"""Many submissions: workers side by side, each with a warm sandbox; every report is handed over as soon as it is there.

A worker is one of ours: it holds the exercises and their hidden inputs, and talks to sandboxes. If one dies or hangs
over a submission, the submission is tried once more by a fresh one, each exercise in a limited process of its own, so
that only the one that it died of is lost; and if that fails, too, reported as what it is: not judged.
"""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lib.errors import CourseError
from lib.grading.account import sweep
from lib.grading.grades import Report
from lib.grading.reading import Cell
from lib.grading.sandbox import Limits
from lib.grading.walls import Begun

MEMORY = 2 * 2**30  # bytes a worker may add: what an answer makes it compute must not fill the machine
START = 300.0  # seconds for a worker to load everything on a busy machine
SLACK = 60.0  # seconds beyond an exercise's own limit before a worker is held to hang
TRIES = 2


@dataclass(frozen=True)
class Job:
    """One lesson of one submission. only: the exercises to judge."""

    learner: str
    lesson: str
    path: str
    digest: str
    cells: tuple[Cell, ...]
    seed: int
    only: frozenset[str]


@dataclass
class Settings:
    limits: Limits
    isolated: bool = True
    rules_cost: bool = False
    hidden: tuple[str, ...] = ()


def run(
    jobs: Iterable[Job], settings: Settings, workers: int, done: Callable[[Report], None], begun: Begun | None = None
) -> str:
    """Judge the jobs and call done(report) for each, in the order in which they finish. They are taken as needed.
    Returns who counted what the answers used ("" if there was nothing to do).

    begun: a warm process that is starting already, for the first worker.

    Raises CourseError if sandboxes cannot be had at all; nothing is lost by stopping at any moment.
    """
    jobs = iter(jobs)
    waiting = list(itertools.islice(jobs, workers))
    losses: Counter[Job] = Counter()
    crew = []
    for _ in waiting:
        crew.append(_Worker(settings, begun))
        begun = None
    try:
        while waiting or any(w.job for w in crew):
            for worker in crew:
                if worker.ready and not worker.job and waiting:
                    job = waiting.pop()
                    worker.give(job, careful=losses[job] > 0)
                    waiting += [] if waiting else itertools.islice(jobs, 1)
            now = time.monotonic()
            timeout = min([1.0, *(max(0.0, w.deadline - now) for w in crew)])
            said = multiprocessing.connection.wait([w.pipe for w in crew], timeout)
            for worker in crew:
                if worker.pipe in said:
                    report, why = _hear(worker), "The judge stopped over it"
                elif time.monotonic() > worker.deadline:
                    report, why = _LOST, "Judging it took far too long"
                else:
                    continue
                if report is _LOST and (job := worker.again()):
                    losses[job] += 1
                    if losses[job] < TRIES:
                        waiting.append(job)
                        continue
                    report = Report(job.learner, job.lesson, job.path, job.digest, job.seed, settings.isolated)
                    report = replace(report, problem=f"{why}, {TRIES} times; a person should look at it")
                if isinstance(report, Report):
                    done(report)
    finally:
        for worker in crew:
            worker.stop()
        sweep()
    return next((worker.account for worker in crew if worker.account), "")


_LOST = object()


def _hear(worker: "_Worker") -> Report | object | None:
    """The report that a worker sends, _LOST if it is gone, None for its first word."""
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, OSError):
        return _LOST
    if kind == "refused":
        raise CourseError(content)
    worker.ready, worker.job, worker.deadline = True, None, float("inf")
    if kind == "ready":
        worker.account, content = content, None
    return content


class _Worker:
    """A process of ours with a sandbox, and the job it has."""

    def __init__(self, settings: Settings, begun: Begun | None = None):
        self.settings, self.failures, self.account = settings, 0, ""
        # What this process has loaded, a fork need not load again.
        self.start("fork" if sys.platform == "linux" else "spawn", begun if sys.platform == "linux" else None)

    def start(self, how: str = "spawn", begun: Begun | None = None) -> None:
        context = multiprocessing.get_context(how)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.settings, os.getpid(), begun), daemon=True)
        self.process.start()
        theirs.close()
        if begun:
            begun.hand_over()
        self.ready, self.job, self.deadline = False, None, time.monotonic() + START

    def give(self, job: Job, careful: bool = False) -> None:
        self.job = job
        self.deadline = time.monotonic() + len(job.only) * self.settings.limits.wall + SLACK
        try:
            self.pipe.send((job, careful))
        except OSError:
            self.deadline = 0.0

    def again(self) -> Job | None:
        """Begin anew; returns the job that was lost."""
        job = self.job
        if job is None:
            self.failures += 1
            if self.failures == 3:
                raise CourseError("a worker died three times before it could begin; is there memory left?")
        self.stop()
        self.start()
        return job

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe, settings: Settings, parent: int, begun: Begun | None = None) -> None:
    """A worker's life: one job after another, until there is nobody to send them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _die_with(parent)
    import torch

    from lib.grading.helper import Helper
    from lib.grading.judge import judge
    from lib.grading.sandbox import Sandbox

    torch.set_num_threads(1)
    _limit_memory()
    try:
        sandbox = Sandbox(settings.limits, settings.isolated, settings.hidden, begun)
    except CourseError as error:
        pipe.send(("refused", str(error)))
        return
    helper = Helper()
    with sandbox:
        pipe.send(("ready", sandbox.account))
        while True:
            try:
                job, careful = pipe.recv()
            except EOFError:
                return
            report = judge(
                job.cells, job.learner, job.lesson, job.path, job.digest, sandbox, job.seed, job.only,
                settings.rules_cost, helper, careful,
            )  # fmt: skip
            pipe.send(("report", report))


def _die_with(parent: int) -> None:
    """End this process when its parent does, however that ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _limit_memory() -> None:
    try:
        import resource

        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    except (ImportError, OSError, ValueError):
        pass
