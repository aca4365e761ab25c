"""Exercises as data, the check in the lesson, and the notebook cells made from them.

Lessons need two names: `check(id, answer)` and `hint(id, n)`.
"""

from lib.grading.check import check, hint

__all__ = ["check", "hint"]
