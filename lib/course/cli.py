"""The `course` command: thin words over the modules that do the work."""

import importlib
import sys
from typing import Any, ClassVar

import click

from lib.errors import CourseError


class Group(click.Group):
    """Commands that live in modules of their own are imported when they are asked for."""

    elsewhere: ClassVar = {"data": "lib.course.data_command"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.elsewhere:
            return getattr(importlib.import_module(self.elsewhere[name]), name)
        return super().get_command(ctx, name)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def course() -> None:
    """The transformer course: run its lessons, refresh them, fetch their data.

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
    except click.UsageError as problem:
        where = problem.ctx.command_path if problem.ctx else "course"
        status = _complain(f"{problem.format_message().rstrip('.')}; see `{where} --help`")
    except click.ClickException as problem:
        status = _complain(problem.format_message())
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:
        # `course lessons | head`: the reader has seen enough.
        sys.stderr.close()
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> int:
    click.echo("course: " + " ".join(message.split()), err=True)
    return 2
