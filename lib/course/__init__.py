"""The `course` command: its words, the headless runner, what authors need, and the website."""

from lib.moved import forward

__getattr__ = forward(__name__)
