"""`course measure`: the bands of a lesson's claims, measured anew."""

import click

from lib.errors import CourseError


@click.command("measure")
@click.argument("names", nargs=-1, required=True, metavar="LESSON...")
@click.option("--preset", default="cpu", show_default=True, metavar="NAME", help="smoke, cpu or gpu.")
@click.option("--seeds", default="0,1,2,3,4", show_default=True, metavar="N,N,...", help="Seeds to run.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Runs side by side; default: one per core.")
@click.option("--only-seconds", is_flag=True, help="Keep how long a run takes, and leave the bands as they are.")
@click.option("parameters", "-p", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
def measure(
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

    from lib.course.authoring.bands import measure
    from lib.course.headless import display, runner
    from lib.lesson import expectations, series

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
    for lesson in series.find(names):
        with display.Progress(Console(stderr=True)) as progress:
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
