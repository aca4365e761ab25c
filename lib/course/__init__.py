"""What runs the lessons: a lesson's session, its predictions and expectations, and the `course` command.

What a notebook calls is here; it is imported when called, for the command line has no need of torch.
"""


def start(number: str, preset: str = "auto", seed: int = 0):
    """Begin a lesson; see lib.course.session.start."""
    from lib.course.session import start

    return start(number, preset, seed)


def use(id: str) -> None:
    """Let later lessons run on your answer to an exercise; see lib.course.own."""
    from lib.course.own import use

    use(id)


def use_lib(*ids: str) -> None:
    """Go back to lib's code, for these exercises or for all; see lib.course.own."""
    from lib.course.own import use_lib

    use_lib(*ids)
