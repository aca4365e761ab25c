"""The `course` command: thin words over the modules that do the work."""

import contextlib
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import click

from lib.course import commands
from lib.course.output import leave
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
        if name not in self.places:
            return None
        command = getattr(importlib.import_module(self.places[name]), name)
        for parameter in command.params:
            if isinstance(parameter.type, click.FloatRange):
                parameter.callback = _number
        return command

    def make_context(self, *given: Any, **options: Any) -> click.Context:
        with _heard():
            return super().make_context(*given, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _heard():
            return super().invoke(ctx)


def _number(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """NaN lies in every range, since it compares with nothing."""
    if value is not None and value != value:
        raise click.BadParameter(f"{value} is not a number", ctx, parameter)
    return value


class Unheard(Exception):
    """Whoever read what a command says has left. click and rich would end the process there, with status 1."""


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise Unheard from None
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise Unheard from None
        raise


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def course() -> None:
    """The transformer course: its lessons and your progress, and models to train, size and serve.

    Every command has --help. A mistake costs one line and exit status 2.
    """


TELL = {"", "data", "doctor", "generate", "lessons", "progress", "size"}  # who stops reading has had what there is


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a CourseError, a misuse, or what the system refuses is one line and exit status 2."""
    _see_to_the_streams()
    status = _run(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()  # a disk that is full is found out here, not as Python ends
        except BrokenPipeError:
            leave(stream)
        except OSError as problem:
            leave(stream)
            status = _complain(f"the output cannot be written ({problem.strerror}); send it somewhere else")
    sys.exit(status)


def _see_to_the_streams() -> None:
    """Whatever a terminal or a pipe cannot show is spelt out; and a stream that is closed is nobody's file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> int:
    try:
        for word in arguments:
            _see_that_it_is_text(word)
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
    except Unheard:  # `course lessons | head`: the reader has seen enough; `course train | head` has not ended
        status = 0 if _command(arguments) in TELL else 141
    except UnicodeEncodeError as problem:
        if problem.reason != "surrogates not allowed":
            raise  # a mistake of ours
        shown = ascii(problem.object[max(0, problem.start - 60) : problem.end])
        status = _complain(f"a name or text is not UTF-8, at the end of {shown}; rename the folder, or work in another")
    except RecursionError:
        status = _complain("something in what was given is nested too deeply to be read; give something flatter")
    except MemoryError:
        status = _complain("there is not enough memory for this; give less, or close other programs")
    except OSError as problem:  # whatever no command has a better line for
        why = problem.strerror or str(problem)
        if problem.filename:
            status = _complain(f"{problem.filename}: {why}; mend that, or name another file")
        else:
            status = _complain(f"the output cannot be written ({why}); send it somewhere else")
    return status if isinstance(status, int) else 0


def _see_that_it_is_text(word: str) -> None:
    try:
        word.encode()
    except UnicodeEncodeError as problem:
        byte = ord(word[problem.start]) & 0xFF
        shown = ascii(word[:60])
        raise CourseError(f"{shown} is not UTF-8 (byte {byte:#04x}); type it in UTF-8, or rename the file") from None


def _command(arguments: list[str]) -> str:
    """Which command was called, if any."""
    return next((word for word in arguments if word in Group.places), "")


def _complain(message: str) -> int:
    with contextlib.suppress(OSError):  # nobody there to tell
        plain = re.sub(r"\[Errno \d+\] ", "", " ".join(message.split()))
        short = re.sub(r"(\S{200})\S{300,}", r"\1…", plain)  # nobody reads a megabyte
        click.echo(f"course: {short}", err=True)
    return 2
