"""The headless runner against plain papermill, lesson after lesson: seconds, their ratio, and its median.

    python benchmarks/headless.py [--preset smoke] [--jobs 2] [--repeats 3] [--out FILE.json]

Each round runs all lessons both ways, cold, and the two take turns at going first. These are wall seconds, for
waiting is what is compared: run it when the machine is quiet.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib.lesson import series

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "headless.json"


def seconds(command: list[str], cwd: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def papermill(preset: str) -> float:
    """All lessons, one after another."""
    with tempfile.TemporaryDirectory() as folder:
        plain = [sys.executable, "-m", "papermill", "-p", "preset", preset]
        return sum(seconds([*plain, str(lesson.path), f"{lesson.stem}.ipynb"], folder) for lesson in series.find())


def course(preset: str, jobs: int) -> float:
    """All lessons, `jobs` side by side."""
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-c", "from lib.course.cli import main; main()", "run", "--out", "out"]
        return seconds([*ours, "--preset", preset, "--jobs", str(jobs)], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="smoke", choices=series.PRESETS)
    parser.add_argument("--jobs", default=2, type=int)
    parser.add_argument("--repeats", default=3, type=int)
    parser.add_argument("--out", default=OUT, type=Path)
    options = parser.parse_args()
    print(f"{len(series.find())} lessons, preset {options.preset}\n")
    print(f"{'round':8}{'papermill':>12}{f'run --jobs {options.jobs}':>16}{'ratio':>8}", flush=True)
    rounds = []
    for n in range(options.repeats):
        sides = {"papermill": lambda: papermill(options.preset), "course": lambda: course(options.preset, options.jobs)}
        taken = {name: sides[name]() for name in (sides if n % 2 == 0 else reversed(sides))}
        rounds.append({**taken, "ratio": taken["course"] / taken["papermill"]})
        _row(str(n + 1), rounds[-1])
    medians = {name: statistics.median(taken[name] for taken in rounds) for name in rounds[0]}
    _row("median", medians)
    table = [[f"all lessons under {options.preset}", "papermill, one by one", 1 / medians["ratio"]]]
    report = {"table": table, "preset": options.preset, "jobs": options.jobs, "rounds": rounds, "median": medians}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def _row(name: str, taken: dict[str, float]) -> None:
    print(f"{name:8}{taken['papermill']:10.1f} s{taken['course']:14.1f} s{taken['ratio']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
