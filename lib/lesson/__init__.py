"""What a notebook calls: `start`, `check`, `hint`, `use` and `use_lib`, and what they stand on.

Each is imported when it is first asked for: the command line reads predictions and progress from here too, and has no
need of torch.
"""

import importlib

PLACES = {"start": "session", "check": "checks", "hint": "checks", "use": "own", "use_lib": "own"}


def __getattr__(name: str):
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
