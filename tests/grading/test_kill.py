"""Nothing is lost: whatever is killed, and whenever, the same command again ends with the same grades."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import psutil
import pytest
from forked import Fork
from hostile import CORPUS
from hunt import hunt
from test_hostile import COURSE, FRUGAL, Class, adopted, needs_isolation

from lib.course.cli import main

pytestmark = needs_isolation
KILLS, PARTS = hunt(2, 40), hunt(1, 10)  # of the whole command; of warm processes and of workers each
NAMES = ["good_plain", "good_03", "half_done", "partly_right", "segfault", "exit_at_definition"]


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """Six learners, right, wrong and crashing, and what an undisturbed run gives them."""
    entries = [e for name in NAMES for e in CORPUS if e.name == name]
    few = Class(entries, tmp_path_factory.mktemp("kill")).build()
    few.log = few.top / "said"
    began = time.monotonic()
    run = start(few, few.out, anew=True)
    assert run.wait() == 0
    few.seconds = time.monotonic() - began
    few.undisturbed = grades(few.out)
    assert few.undisturbed == Counter((e.name, id, points) for e in entries for id, points in e.points.items())
    return few


def start(few, out, *options, workers=1, anew=False):
    """The command, in a process group of its own, as a terminal starts it; anew: a process that loads everything."""
    words = ["grade", str(few.folder), "--out", str(out), "--seed", "7", f"-j{workers}", *options]
    few.log.write_bytes(b"")
    if not anew:
        return Fork(main, words, said=few.log, **FRUGAL)
    with open(few.log, "wb") as said:
        line = [sys.executable, "-c", COURSE, *words]
        return subprocess.Popen(line, env=os.environ | FRUGAL, stdout=said, stderr=said, start_new_session=True)


def grades(out, db="gradebook.sqlite"):
    """Each grade there is, counted: (learner, exercise, points)."""
    if not (out / db).exists():
        return Counter()
    with closing(sqlite3.connect(f"file:{out / db}?mode=ro", uri=True)) as book:
        try:
            return Counter(book.execute(
                "SELECT l.name, g.exercise, g.points FROM grades g JOIN submissions s ON s.id = g.submission_id "
                "JOIN learners l ON l.id = s.learner_id"
            ).fetchall())  # fmt: skip
        except sqlite3.OperationalError:
            return Counter()  # no table yet


def wait_for(run, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while run.poll() is None and not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_killed_at_random_moments(learners, tmp_path):
    rng, out, cut = random.Random(3), tmp_path / "0", 0
    with adopted() as left:
        for i in range(KILLS):
            have = grades(out).total()
            run = start(learners, out)
            if i % 4 == 0:  # at any moment at all, before there is anything to lose as well
                wait_for(run, lambda: False, rng.uniform(0, learners.seconds))
            else:  # while grades are being made, one to four of them later
                more = rng.randint(1, 4)
                wait_for(run, lambda: grades(out).total() >= have + more)  # noqa: B023
                time.sleep(rng.uniform(0, 0.05))
            cut += run.poll() is None
            run.kill()  # the command alone: all below it must end by itself
            run.wait()
            assert grades(out) <= learners.undisturbed  # none is wrong, none is there twice
            if grades(out) == learners.undisturbed:  # it got to the end in pieces: begin anew
                out = tmp_path / str(i + 1)
        assert start(learners, out).wait() == 0
    assert grades(out) == learners.undisturbed
    assert cut >= KILLS * 2 // 3, "the kills came too late to show anything"
    assert left == []


def below(run, what):
    """Processes of a run: its workers, or what makes up its sandboxes (but for the runners: these are the answers)."""
    found = []
    for process in psutil.Process(run.pid).children(recursive=True):
        try:
            line, parent = " ".join(process.cmdline()), process.parent()
            ours = parent and parent.pid == run.pid and process.name() != "bwrap" and "resource_tracker" not in line
            if what == "workers" and ours:
                found.append(process)
            elif what == "sandboxes" and (process.name() == "bwrap" or (parent and parent.name() == "bwrap")):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("what", ["sandboxes", "workers"])
def test_parts_killed_while_it_runs(what, learners, tmp_path):
    rng, killed = random.Random(5), 0
    with adopted() as left:
        run = start(learners, tmp_path, workers=2 if what == "workers" else 1)
        while run.poll() is None and killed < PARTS:
            before = grades(tmp_path).total()
            wait_for(run, lambda: grades(tmp_path).total() > before, 20)  # noqa: B023
            time.sleep(rng.uniform(0, 0.1))
            try:
                if victims := below(run, what):
                    rng.choice(victims).kill()
                    killed += 1
            except psutil.Error:
                continue
        status = run.wait()
        found = grades(tmp_path)
        assert found <= learners.undisturbed
        if what == "sandboxes":  # not even one exercise is lost to it
            assert status == 0 and found == learners.undisturbed, learners.log.read_text()
        elif found != learners.undisturbed:
            assert start(learners, tmp_path).wait() == 0
    assert grades(tmp_path) == learners.undisturbed
    assert killed >= (PARTS + 1) // 2, "it was over too soon to show anything"
    assert left == []


def test_interrupted_from_the_keyboard(learners, tmp_path):
    with adopted() as left:
        run = start(learners, tmp_path, anew=True)
        wait_for(run, lambda: grades(tmp_path).total() > 0)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=20) == 130
        assert grades(tmp_path) <= learners.undisturbed
        assert start(learners, tmp_path).wait() == 0
    assert grades(tmp_path) == learners.undisturbed
    assert left == []


def test_two_graders_on_one_database(learners, tmp_path):
    db = tmp_path / "gradebook.sqlite"
    both = [start(learners, tmp_path / name, "--db", str(db)) for name in ("one", "two")]
    assert [run.wait() for run in both] == [0, 0]
    assert grades(tmp_path) == learners.undisturbed
