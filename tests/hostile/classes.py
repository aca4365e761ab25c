"""A large class graded by the real command, some of it hostile, beside one of the same size that is honest.

    python tests/hostile/classes.py [--learners 1000] [--hostile 50] [--db URL] [--nobody]

Prints for each of the two: wall time, the largest memory of the grader and of one worker, by quarters of the run, and
how many learners got exactly what they deserve; then what the hostile ones may take. --db: PostgreSQL, say; its
tables are dropped first. --nobody: as an ordinary user, which root becomes.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import psutil
from sqlalchemy import MetaData, create_engine

from hostile import CORPUS
from hostile.entry import KINDS, Entry, Place
from lib.grading.cleaning import learner
from lib.sources.places import ROOT

COURSE = "import sys; from lib.course.cli import main; sys.exit(main())"
SLEEPERS = {"slow", "sleeps_two_seconds_at_definition"}  # honest, but what they take is no work: one of each
TIMEOUT = 8


def drawn(learners: int, hostile: int) -> list[Entry]:
    """Honest ones with replacement, the same in any class; the last ones hostile, of one kind after another."""
    rng = random.Random(1)
    honest = [entry for entry in CORPUS if entry.kind == "honest" and not entry.path]
    some = [entry for entry in honest if entry.name in SLEEPERS]
    often = [entry for entry in honest if entry.name not in SLEEPERS]
    some = (some + [rng.choice(often) for _ in range(learners)])[:learners]
    some = [replace(entry, path=f"h{n:04} {entry.name}") for n, entry in enumerate(some)]
    decks = [[entry for entry in CORPUS if entry.kind == kind] for kind in KINDS if kind != "honest"]
    for deck in decks:
        rng.shuffle(deck)
    picked: list[Entry] = []
    while len(picked) < hostile:
        for deck in decks:
            picked += deck[:1]
            del deck[:1]
    return some[: learners - hostile] + picked[:hostile]


def memory(grader: psutil.Process) -> tuple[int, int]:
    """MB of the command and its workers together, and of the largest worker. What answers use is not in it."""
    sizes, own = [grader.memory_info().rss], grader.cmdline()
    for process in grader.children():
        try:
            if process.cmdline() == own or "spawn_main" in " ".join(process.cmdline()):  # forked, or begun anew
                sizes.append(process.memory_info().rss)
        except psutil.Error:
            pass
    return sum(sizes) // 2**20, max(sizes[1:], default=0) // 2**20


def graded(entries: list[Entry], top: Path, options: list[str], nobody: bool) -> dict:
    """Build the class, grade it, and look at what everybody got."""
    folder, out, drop = top / "class", top / "out", top / "drop"
    for path in (top, folder, out, drop):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    place = Place(str(folder), str(out), str(ROOT), str(drop), "token", 1)
    for entry in entries:
        entry.write(place)
    line = [sys.executable, "-c", COURSE, "grade", str(folder), "--out", str(out), "--timeout", str(TIMEOUT), *options]
    if nobody:
        line = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", *line]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HOME": str(out)}
    with open(top / "said", "w") as said:
        began = time.monotonic()
        command = subprocess.Popen(line, stdout=said, stderr=said, env=environ, cwd=top, stdin=subprocess.DEVNULL)
        seen = []
        while command.poll() is None:
            try:
                seen.append(memory(psutil.Process(command.pid)))
            except psutil.Error:
                pass
            time.sleep(1)
        wall = time.monotonic() - began
    if not (out / "grades.json").exists():
        sys.exit("nothing was graded: " + (top / "said").read_text()[-2000:])
    wrong = Counter()
    result = json.loads((out / "grades.json").read_text(encoding="utf-8"))
    got = {
        each["name"]: {e["exercise"]: e["points"] for r in each["lessons"] for e in r["exercises"]}
        for each in result["learners"]
    }
    for entry in entries:
        name = learner(entry.path if isinstance(entry.path, str) and entry.path else entry.name)
        if isinstance(entry.path, bytes):
            name = learner(os.fsdecode(entry.path))
        if got.get(name, {}) != entry.points:
            wrong[entry.kind == "honest"] += 1
            print("  not as deserved:", entry.kind, name[:60], got.get(name), "deserved", entry.points)
    honest = sum(entry.kind == "honest" for entry in entries)
    quarters = [max(pair[0] for pair in seen[len(seen) * q // 4 : len(seen) * (q + 1) // 4] or [(0, 0)]) for q in range(4)]
    return {
        "wall": round(wall, 1),
        "exit": command.returncode,
        "learners": len(entries),
        "honest right": f"{honest - wrong[True]} of {honest}",
        "others right": f"{len(entries) - honest - wrong[False]} of {len(entries) - honest}",
        "MB by quarters": quarters,
        "MB of the largest worker": max(pair[1] for pair in seen),
        "how counted": [line for line in (top / "said").read_text().splitlines() if "cgroup" in line][:1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, default=1000)
    parser.add_argument("--hostile", type=int, default=50)
    parser.add_argument("--db", help="URL of a database for this alone")
    parser.add_argument("--nobody", action="store_true")
    parser.add_argument("--only", choices=["honest", "mixed"])
    asked = parser.parse_args()
    walls = {}
    for name, hostile in (("honest", 0), ("mixed", asked.hostile)):
        if asked.only not in (None, name):
            continue
        if asked.db:
            engine = create_engine(asked.db.replace("postgresql:", "postgresql+psycopg:"))
            tables = MetaData()
            tables.reflect(engine)
            tables.drop_all(engine)
            engine.dispose()
        entries = drawn(asked.learners, hostile)
        with tempfile.TemporaryDirectory(prefix="classes-") as top:
            found = graded(entries, Path(top), ["--db", asked.db] if asked.db else [], asked.nobody)
        walls[name] = found["wall"]
        print(name, json.dumps(found), flush=True)
    if len(walls) == 2:
        theirs = sum(len(entry.answers) or 1 for entry in entries if entry.kind != "honest") * TIMEOUT / os.cpu_count()
        most = 1.1 * walls["honest"] + theirs
        print(f"mixed may take {most:.0f} s: honest and a tenth, and limits of the hostile ones {theirs:.0f} s")


if __name__ == "__main__":
    main()
