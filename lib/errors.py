"""The one error a user is meant to read."""


class CourseError(Exception):
    """Something the reader can mend. The message is one line: what is wrong; what to do next."""
