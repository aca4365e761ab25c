"""`course refresh`: a lesson's notebook, made ready to commit."""

import click


@click.command("refresh")
@click.argument("names", nargs=-1, required=True, metavar="LESSON...")
@click.option("--no-run", is_flag=True, help="Only sync the exercises and normalise; keep the outputs.")
def refresh(names: tuple[str, ...], no_run: bool) -> None:
    """Make a lesson's notebook ready to commit.

    Brings its exercise cells in step with lib/exercises, executes it in place under the cpu preset
    and writes it in one normal form. Nothing is written if a cell fails or prints to stderr. For authors.
    """
    from lib.lesson import series

    lessons = series.find(names)  # before the second that the rest takes
    from lib.course.authoring.renewal import refresh

    for lesson in lessons:
        changed = refresh(lesson, run=not no_run)
        click.echo(f"{lesson.stem}: {'refreshed' if changed else 'unchanged'}")
