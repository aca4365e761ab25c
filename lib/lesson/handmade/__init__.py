"""The learner's own transformer: one file that grows with every exercise passed.

`parts` says what it is made of and keeps what has passed; `assembly` makes the file; `frame` is the file while all of
it is the course's; `fill` holds the course's parts for where a learner's is missing; `trial` lets the file speak.

    from lib.lesson import handmade
    handmade.meter()                                     # whose is what
    handmade.speak("The capital of France is")           # the file alone, on SmolLM2's weights
    handmade.load().train(model, tokens, 20)             # the same, in this process
"""

import importlib

PLACES = {"as_saved": "assembly", "load": "trial", "meter": "trial", "speak": "trial"}


def __getattr__(name: str):
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
