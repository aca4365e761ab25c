"""Measure a lesson's claims: run it headless once per seed and write the bands."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from lib.course.headless import runner
from lib.errors import CourseError
from lib.lesson import expectations
from lib.lesson.series import Lesson


def measure(
    lesson: Lesson,
    preset: str,
    seeds: list[int],
    workers: int,
    watch: Callable = lambda tasks, changed: None,
    bands: bool = True,
    texts: dict[str, str] | None = None,
) -> list[dict]:
    """Run the lesson for each seed, update data/expectations.json, return the entries written.

    bands=False: keep the seconds only. texts: other parameters of the lesson than its own, as on the command line; then
    only the claims that the lesson makes for their sake are written. Raises CourseError, and writes nothing, if a run
    fails or the file cannot be written.
    """
    expectations.check_writable()
    given = runner.given(lesson, texts) if texts else {}
    with tempfile.TemporaryDirectory(prefix="course-measure-") as folder:
        records = {seed: Path(folder) / f"{seed}.jsonl" for seed in seeds}
        jobs = [
            runner.Job(
                lesson,
                f"{lesson.stem}-seed-{seed}",
                {"preset": preset, "seed": seed, **given},
                preset,
                {"COURSE_RECORD": str(path)},
            )
            for seed, path in records.items()
        ]
        results = runner.run(jobs, Path(folder) / "out", workers, watch=watch)
        for result in results:
            if result.state != "ok":
                raise CourseError(f"{result.name}, {result.error}; nothing written")
        runs = {seed: expectations.recorded(path) for seed, path in records.items()}
    taken = statistics.median(result.seconds for result in results)
    machine = next((line["machine"] for lines in runs.values() for line in lines if preset == "gpu"), "")
    machine = machine or f"CPU, {runner.cores()} cores, {workers} at a time"
    if not bands:
        expectations.keep_seconds(lesson.number, preset, taken, machine)
        return []
    extra = "".join(f" -p {name} {text}" for name, text in (texts or {}).items())
    return expectations.update(lesson.number, preset, runs, taken, machine, extra=extra)
