"""Words of a command whose work goes on when nobody listens any more."""

import os
import sys

import click


def say(text: str, err: bool = False) -> None:
    """Print a line. A reader who has left, as in `course train | head`, costs no more than the line."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        leave(sys.stderr if err else sys.stdout)


def leave(stream) -> None:
    """Send what a stream still holds, and all that follows, nowhere: Python would stumble over it as it ends."""
    if stream is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
