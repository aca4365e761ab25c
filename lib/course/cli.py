"""The `course` command: thin words over the modules that do the work."""

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import click

from lib.errors import CourseError


class Group(click.Group):
    """Commands that live in modules of their own are imported when they are asked for."""

    elsewhere: ClassVar = {  # a learner's copy has not all of them
        name: f"lib.course.{name}_command"
        for name in "data doctor generate grade progress release serve site size train use".split()
        if importlib.util.find_spec(f"lib.course.{name}_command")
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.elsewhere:
            return getattr(importlib.import_module(self.elsewhere[name]), name)
        return super().get_command(ctx, name)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def course() -> None:
    """The transformer course: its lessons and your progress, and models to train, size and serve.

    Every command has --help. A mistake costs one line and exit status 2.
    """


@course.command("lessons")
def lessons_command() -> None:
    """List the lessons: number, title, file."""
    from rich.console import Console
    from rich.table import Table

    from lib.course import lessons

    table = Table(box=None)
    for column in ("lesson", "title", "file"):
        table.add_column(column, no_wrap=column != "title")
    for lesson in lessons.find():
        table.add_row(lesson.number, lesson.title, lesson.path.name)
    Console().print(table)


@course.command("run")
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
def run_command(
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

    from lib.course import lessons, predictions, report, runner

    chosen = lessons.find(names)
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
    out = out or lessons.ROOT / "build" / "runs"
    kept = {job.name: result for job in tasks if resume and (result := runner.finished(out, job))}
    todo = [job for job in tasks if job.name not in kept]
    workers = min(jobs or runner.side_by_side(preset), max(1, len(todo)))
    began = time.monotonic()
    status = 0
    with report.Progress(Console(stderr=True)) as progress:
        try:
            results = runner.run(todo, out, workers, timeout, progress)
        except runner.Interrupted as interruption:
            results, status = interruption.results, interruption.status
    done = {result.name: result for result in results} | kept
    results = [done[job.name] for job in tasks]
    console = Console()
    report.summary(console, results, set(kept), time.monotonic() - began)
    index = report.index(out, runner.receipts(out))
    console.print(f"Notebooks and index: {index}", highlight=False, markup=False, soft_wrap=True)
    if status:
        click.echo("course: interrupted; the same command with --resume goes on from here", err=True)
    return status or int(any(result.state != "ok" for result in results))


@course.command("measure")
@click.argument("names", nargs=-1, required=True, metavar="LESSON...")
@click.option("--preset", default="cpu", show_default=True, metavar="NAME", help="smoke, cpu or gpu.")
@click.option("--seeds", default="0,1,2,3,4", show_default=True, metavar="N,N,...", help="Seeds to run.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Runs side by side; default: one per core.")
@click.option("--only-seconds", is_flag=True, help="Keep how long a run takes, and leave the bands as they are.")
@click.option("parameters", "-p", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
def measure_command(
    names: tuple[str, ...],
    preset: str,
    seeds: str,
    jobs: int | None,
    only_seconds: bool,
    parameters: tuple[tuple[str, str], ...],
) -> int:
    """Measure the claims of lessons, and write their bands.

    Runs each lesson once per seed, headless, and writes to data/expectations.json. A band is the least and the
    greatest value, widened by the margin that the lesson states at its claim. Under smoke only the seconds are kept.
    With -p only the claims are written that a lesson makes for the sake of these parameters. For authors.
    """
    from rich.console import Console

    from lib.course import expectations, lessons, report, runner
    from lib.course.measure import measure

    if preset == "auto":
        raise CourseError("measure one preset by name: smoke, cpu or gpu")
    runner.check_preset(preset)
    numbers = [text.strip() for text in seeds.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise CourseError(f"--seeds takes whole numbers with commas between them, not {seeds!r}")
    wanted = sorted({int(number) for number in numbers})
    texts = dict(parameters)
    if {"preset", "seed"} & texts.keys():
        raise CourseError("preset and seed are set by --preset and --seeds")
    if texts and only_seconds:
        raise CourseError("--only-seconds is of a lesson as it is; leave -p out")
    workers = jobs or (1 if preset == "gpu" else runner.cores())
    for lesson in lessons.find(names):
        with report.Progress(Console(stderr=True)) as progress:
            try:
                entries = measure(lesson, preset, wanted, min(workers, len(wanted)), progress, not only_seconds, texts)
            except runner.Interrupted as interruption:
                click.echo(f"course: interrupted; nothing written for {lesson.stem}", err=True)
                return interruption.status
        taken = f"{expectations.seconds(lesson.number, preset)} s"
        click.echo(f"{lesson.stem}: {taken if only_seconds else f'{len(entries)} claims'} under {preset}")
        for entry in entries:
            low, high = entry["presets"][preset]["band"]
            click.echo(f"  {entry['id']}: mean {entry['presets'][preset]['mean']:g}, band {low:g} to {high:g}")
    return 0


@course.command("refresh")
@click.argument("names", nargs=-1, required=True, metavar="LESSON...")
@click.option("--no-run", is_flag=True, help="Only sync the exercises and normalise; keep the outputs.")
def refresh_command(names: tuple[str, ...], no_run: bool) -> None:
    """Make a lesson's notebook ready to commit.

    Brings its exercise cells in step with lib/grading/exercises, executes it in place under the cpu preset
    and writes it in one normal form. Nothing is written if a cell fails or prints to stderr. For authors.
    """
    from lib.course import lessons
    from lib.course.refresh import refresh

    for lesson in lessons.find(names):
        changed = refresh(lesson, run=not no_run)
        click.echo(f"{lesson.stem}: {'refreshed' if changed else 'unchanged'}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a CourseError or a misuse is one line on stderr and exit status 2."""
    try:
        status: Any = course.main(args=arguments, prog_name="course", standalone_mode=False)
    except CourseError as problem:
        status = _complain(str(problem))
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.ctx.get_help())
        status = 0
    except click.UsageError as problem:
        where = problem.ctx.command_path if problem.ctx else "course"
        status = _complain(f"{problem.format_message().rstrip('.')}; see `{where} --help`")
    except click.ClickException as problem:
        status = _complain(problem.format_message())
    except ModuleNotFoundError as problem:
        if (problem.name or "lib").split(".")[0] == "lib":
            raise  # a mistake of ours
        status = _complain(f"the package {problem.name} is not installed; run make setup, then try again")
    except (click.Abort, KeyboardInterrupt):
        click.echo("course: interrupted", err=True)
        status = 130
    except BrokenPipeError:
        # `course lessons | head`: the reader has seen enough.
        sys.stderr.close()
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> int:
    click.echo("course: " + " ".join(message.split()), err=True)
    return 2
