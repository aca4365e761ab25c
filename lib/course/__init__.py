"""What runs the lessons: a lesson's session, its predictions and expectations, and the `course` command."""


def start(number: str, preset: str = "auto", seed: int = 0):
    """Begin a lesson; see lib.course.session.start."""
    from lib.course.session import start  # the command line has no need of torch, so it is imported here

    return start(number, preset, seed)
