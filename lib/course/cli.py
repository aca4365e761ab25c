"""The `course` command: thin words over the modules that do the work."""

import importlib
import pkgutil
import sys
from typing import Any, ClassVar

import click

from lib.course import commands
from lib.course.setup.roles import lacking
from lib.errors import CourseError


class Group(click.Group):
    """Each command is a module of lib.course.commands and is imported when it is asked for."""

    places: ClassVar = {  # a learner's copy has not all of them
        module.name: f"lib.course.commands.{module.name}" for module in pkgutil.iter_modules(commands.__path__)
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.places)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return getattr(importlib.import_module(self.places[name]), name) if name in self.places else None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def course() -> None:
    """The transformer course: its lessons and your progress, and models to train, size and serve.

    Every command has --help. A mistake costs one line and exit status 2.
    """


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
        package = (problem.name or "lib").split(".")[0]
        if package == "lib":
            raise  # a mistake of ours
        status = _complain(lacking(_command(arguments), package))
    except (click.Abort, KeyboardInterrupt):
        click.echo("course: interrupted", err=True)
        status = 130
    except BrokenPipeError:
        # `course lessons | head`: the reader has seen enough.
        sys.stderr.close()
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _command(arguments: list[str] | None) -> str:
    """Which command was called, if any."""
    return next((word for word in arguments or sys.argv[1:] if word in Group.places), "")


def _complain(message: str) -> int:
    click.echo("course: " + " ".join(message.split()), err=True)
    return 2
