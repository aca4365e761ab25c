"""`course use`: the learner's own answers in lib's place, from the command line."""

from pathlib import Path

import click

from lib.errors import CourseError


@click.command("use")
@click.argument("id", required=False, metavar="[EXERCISE]")
@click.argument("notebook", required=False, type=click.Path(path_type=Path), metavar="[NOTEBOOK]")
@click.option("--off", is_flag=True, help="Go back to lib's code, for the exercise named or for all.")
@click.option("--list", "listing", is_flag=True, help="Show what is switched on, and what can be.")
def use(id: str | None, notebook: Path | None, off: bool, listing: bool) -> None:
    """Let later lessons run on your own answer to an exercise.

    It stands in lib's place, is read from NOTEBOOK (by default your copy of the lesson) and has to pass its check with
    full marks. Each later lesson puts it to the check again, says in one line whose code runs, and goes on with lib's
    if yours fails. In a notebook the same is `from lib.lesson import use, use_lib`.
    """
    from lib.lesson.kept import NAMES, kept
    from lib.lesson.predictions import own_folder

    if not off and (listing or not id):
        on = kept()
        for each, name in NAMES.items():
            click.echo(f"{each:<18} {name:<15} {'yours' if each in on else 'lib'}")
        click.echo(f"Kept in {own_folder()}.")
        return

    from lib.course.own_copy.workspace import own_copy
    from lib.lesson import own, series

    if off:
        if notebook:
            raise CourseError("--off takes an exercise or nothing; leave the notebook out")
        gone = own.drop([id] if id else ())
        click.echo(f"lib's code runs again in place of: {', '.join(gone)}" if gone else "none of your own was in use")
    else:
        own.seam(id)
        [lesson] = series.find([str(notebook)]) if notebook else map(own_copy, series.find([id[:2]]))
        path = own.keep(id, lesson.code)
        click.echo(f"{id}: lessons after {id[:2]} run on your code, kept in {path}. Back: course use --off")
