"""All that the lessons' cells import, imported once, lib.lesson first as they do: for a process that forks."""

import ast
import dataclasses
import importlib

import torch._dynamo  # noqa: F401 - what an optimizer imports as it is made

import lib.lesson.session  # noqa: F401
from lib.lesson.series import series

for _source in ("".join(c["source"]) for each in series() for c in each.notebook["cells"] if c["cell_type"] == "code"):
    for _node in ast.walk(ast.parse(_source)):
        if isinstance(_node, ast.Import):
            for _alias in _node.names:
                importlib.import_module(_alias.name)
        elif isinstance(_node, ast.ImportFrom):
            for _alias in _node.names:  # asked for, since transformers only loads what it is asked for
                getattr(importlib.import_module(_node.module), _alias.name, None)


def shallow(n_layer: int) -> None:
    """From now on, in this process, the real model is its first layers alone: it says nothing of use, in less time."""
    from lib.weights import pretrained

    whole = pretrained.load_smollm2

    def first():
        model, tokenizer = whole()
        model.blocks = model.blocks[:n_layer]
        model.config = dataclasses.replace(model.config, n_layer=n_layer)
        return model, tokenizer

    pretrained.load_smollm2 = first
