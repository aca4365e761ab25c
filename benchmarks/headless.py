"""The headless runner against plain papermill, lesson after lesson: seconds and their ratio.

    python benchmarks/headless.py [--preset smoke] [--jobs 2] [--out FILE.json]

Each side starts cold, in turn, on the same machine; run it when the machine is quiet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib.course import lessons


def seconds(command: list[str], cwd: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="smoke", choices=lessons.PRESETS)
    parser.add_argument("--jobs", default=2, type=int)
    parser.add_argument("--out", default="build/benchmarks/headless.json", type=Path)
    options = parser.parse_args()
    preset = ["-p", "preset", options.preset]
    with tempfile.TemporaryDirectory() as folder:
        plain = {
            lesson.stem: seconds(
                [sys.executable, "-m", "papermill", str(lesson.path), f"{lesson.stem}.ipynb", *preset], folder
            )
            for lesson in lessons.find()
        }
        course = [sys.executable, "-c", "from lib.course.cli import main; main()", "run", *preset]
        ours = seconds([*course, "--jobs", str(options.jobs), "--out", "out"], folder)
    total = sum(plain.values())
    for name, taken in plain.items():
        print(f"{name:28} {taken:7.1f} s")
    print(f"{'papermill, one by one':28} {total:7.1f} s")
    print(f"{f'course run --jobs {options.jobs}':28} {ours:7.1f} s")
    print(f"{'ratio':28} {ours / total:7.2f}")
    report = {"preset": options.preset, "jobs": options.jobs, "papermill": plain, "course": ours, "ratio": ours / total}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
