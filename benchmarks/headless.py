"""The headless runner against plain papermill, one lesson after another, on the same lessons in one run.

    python benchmarks/headless.py [--preset smoke|cpu] [--repeat N]

Prints the seconds of both, their medians and the ratio, and writes build/benchmarks/headless.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from lib.course import lessons


def plain(preset: str, out: Path) -> float:
    """Seconds that papermill's own command takes for all lessons, one after another."""
    began = time.perf_counter()
    for lesson in lessons.series():
        subprocess.run(
            [sys.executable, "-m", "papermill", str(lesson.path), str(out / lesson.path.name), "-p", "preset", preset],
            cwd=lesson.path.parent,
            check=True,
            capture_output=True,
        )
    return time.perf_counter() - began


def ours(preset: str, out: Path) -> float:
    """Seconds that `course run --jobs 2` takes for the same lessons."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "from lib.course.cli import main; main()", "run", "--preset", preset]
    subprocess.run([*command, "--jobs", "2", "--out", str(out)], check=True, capture_output=True)
    return time.perf_counter() - began


@click.command(help=__doc__)
@click.option("--preset", default="smoke", show_default=True, type=click.Choice(["smoke", "cpu"]))
@click.option("--repeat", default=3, show_default=True, type=click.IntRange(1))
def main(preset: str, repeat: int) -> None:
    seconds: dict[str, list[float]] = {"plain papermill": [], "course run --jobs 2": []}
    for turn in range(repeat):
        pair = [("plain papermill", plain), ("course run --jobs 2", ours)]
        for name, run in pair if turn % 2 == 0 else reversed(pair):
            with tempfile.TemporaryDirectory() as out:
                seconds[name].append(run(preset, Path(out)))
            click.echo(f"{name}: {seconds[name][-1]:.1f} s")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["course run --jobs 2"] / medians["plain papermill"]
    click.echo(f"median ratio, {len(lessons.series())} lessons under {preset}: {ratio:.2f}")
    path = lessons.ROOT / "build" / "benchmarks" / "headless.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"preset": preset, "cores": os.cpu_count(), "seconds": seconds, "medians": medians, "ratio": ratio}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
