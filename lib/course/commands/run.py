"""`course run`: lessons headless, side by side."""

import time
from pathlib import Path

import click

from lib.errors import CourseError


@click.command("run")
@click.argument("names", nargs=-1, metavar="[LESSON]...")
@click.option("--preset", metavar="NAME", help="smoke, cpu, gpu or auto (the default).")
@click.option("--jobs", "-j", type=click.IntRange(min=1),
              help="Lessons side by side; default: as cores and memory allow.")
@click.option("parameters", "-p", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("--resume", is_flag=True, help="Keep lessons that are finished and have not changed since.")
@click.option("--timeout", type=click.FloatRange(min=1), default=1800, show_default=True, metavar="SECONDS",
              help="Stop a lesson that takes longer.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write; default: build/runs.")
@click.option("--own", is_flag=True, help="Run on the answers that you switched on with `course use`.")
def run(
    names: tuple[str, ...],
    preset: str | None,
    jobs: int | None,
    parameters: tuple[tuple[str, str], ...],
    resume: bool,
    timeout: float,
    out: Path | None,
    own: bool,
) -> int:
    """Execute lessons headless, side by side; all if none is named.

    A LESSON is a number (2 or 02), a name (attention, 02_attention) or the path of a notebook.

    Presets: smoke proves in seconds that the code runs, cpu is a laptop's size, gpu is worth a GPU. auto takes
    gpu where CUDA is there, else cpu; the environment variable COURSE_PRESET says what auto means. `--preset X`
    is the same as `-p preset X`. Any other parameter of a lesson's first code cell is set likewise:
    `-p seed 3`.

    Papermill executes them; the notebooks and index.html go to the output folder. A lesson that fails is named with
    its cell and error; the others go on, and the exit status is 1. Ctrl-C stops what is running and keeps what is
    finished; --resume goes on from there.

    Threads: a lesson computes on one thread (COURSE_THREADS=n asks for more), and the cores are divided among
    the lessons that run side by side (OMP_NUM_THREADS).
    """
    from rich.console import Console

    from lib.course.headless import display, runner
    from lib.lesson import predictions, series
    from lib.sources.places import ROOT

    chosen = series.find(names)
    texts = dict(parameters)
    if preset is not None:
        if texts.setdefault("preset", preset) != preset:
            raise CourseError(f"--preset {preset} and -p preset {texts['preset']} disagree; give one")
    preset = runner.check_preset(texts.get("preset", "auto"))
    if preset == "auto":
        from lib.device import resolve_preset

        preset = resolve_preset()
    env = {"COURSE_OWN": str(predictions.own_folder().absolute())} if own else {}
    tasks = [runner.Job(lesson, lesson.stem, runner.given(lesson, texts), preset, env) for lesson in chosen]
    if len({job.name for job in tasks}) < len(tasks):
        raise CourseError("two of the notebooks have the same name; run them one at a time")
    out = out or ROOT / "build" / "runs"
    kept = {job.name: result for job in tasks if resume and (result := runner.finished(out, job))}
    todo = [job for job in tasks if job.name not in kept]
    workers = min(jobs or runner.side_by_side(preset), max(1, len(todo)))
    began = time.monotonic()
    status = 0
    with display.Progress(Console(stderr=True)) as progress:
        try:
            results = runner.run(todo, out, workers, timeout, progress)
        except runner.Interrupted as interruption:
            results, status = interruption.results, interruption.status
    done = {result.name: result for result in results} | kept
    results = [done[job.name] for job in tasks]
    console = Console()
    display.summary(console, results, set(kept), time.monotonic() - began)
    index = display.index(out, runner.receipts(out))
    console.print(f"Notebooks and index: {index}", highlight=False, markup=False, soft_wrap=True)
    if status:
        click.echo("course: interrupted; the same command with --resume goes on from here", err=True)
    return status or int(any(result.state != "ok" for result in results))
