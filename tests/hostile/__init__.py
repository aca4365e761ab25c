"""Submissions that a grader must survive, as data: who forges, tampers, spies, floods; odd files; honest bad luck.

Each says what it deserves. All are our own. tests/grading/test_hostile.py grades them with the real command.
"""

from dataclasses import replace
from importlib import import_module

from hostile.entry import KINDS

CORPUS = [replace(entry, kind=kind) for kind in KINDS for entry in import_module(f"hostile.{kind}").ENTRIES]
