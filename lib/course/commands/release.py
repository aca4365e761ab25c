"""`course release`: the learner's copy of the course."""

from pathlib import Path

import click


@click.command("release")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write: new, empty, or an "
              "earlier release.")
@click.option("--lessons", metavar="LESSON,...", help="Only these, as 02,03; default: all.")
def release(out: Path, lessons: str | None) -> None:
    """Write the learner's copy of the course, without answers.

    It holds the lessons with empty answer cells and what they import, and neither references nor mutants, tests or the
    grader. An earlier release in the folder is replaced whole or not at all; a .venv in it stays.
    """
    from lib.course.authoring.learners_copy import release as write

    names = [name.strip() for name in (lessons or "").split(",") if name.strip()]
    released = write(out, names)
    click.echo(f"{len(released)} lesson{'s' * (len(released) != 1)} in {out}, without answers.")
