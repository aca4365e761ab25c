"""An import from before the rooms: it leads where the module is now, and one line says where that is."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from lib import moved
from lib.sources.places import ROOT


def test_every_old_path_leads_somewhere():
    for old, new in moved.MOVED.items():
        assert importlib.util.find_spec(new), new
        assert importlib.util.find_spec(old), old
        file = ROOT / (old.replace(".", "/") + ".py")
        assert not file.exists(), f"{old} is there; take it off the list"


@pytest.mark.parametrize("old", ["lib.decoding", "lib.retail", "lib.grading.check", "lib.course.files"])
def test_it_is_the_very_module_under_both_names(old, capsys, monkeypatch):
    monkeypatch.setattr(moved, "_told", set())
    monkeypatch.delitem(sys.modules, old, raising=False)
    module = importlib.import_module(old)
    new = moved.MOVED[old]
    assert module is importlib.import_module(new) and module.__name__ == new
    place, _, name = new.rpartition(".")
    assert capsys.readouterr().err == f"{old} has moved; write: from {place} import {name}\n"


def test_names_are_found_where_they_are_now():
    parts = [(*old.rpartition(".")[::2], *new.rpartition(".")[::2]) for old, new in moved.NAMES.items()]
    cells = [f"from {module} import {name}\nimport {place}\nassert {name} is {place}.{new}"
             for module, name, place, new in parts]  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", "\n".join(cells)], cwd=ROOT, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    told = [f"{module}.{name} has moved; write: from {place} import {new}" for module, name, place, new in parts]
    assert ran.stderr.splitlines() == told


@pytest.mark.parametrize(("error", "says"), [
    ("forward() got an unexpected keyword argument 'return_attention'", "recorded(model)"),
    ("attention() got an unexpected keyword argument 'return_weights'", "attention_weights(q, k, mask)"),
    ("MultiHeadAttention.forward() got an unexpected keyword argument 'return_weights'", "recorded(layer)"),
    ("'Transformer' object has no attribute 'hidden'", "last_hidden_state"),
    ("'Transformer' object has no attribute 'hidden_size'", ""),
    ("forward() got an unexpected keyword argument 'attention'", ""),
    ("hidden", ""),
])  # fmt: skip
def test_what_is_gone_is_answered_with_todays_way(error, says):
    line = moved.way(TypeError(error))
    assert (says in line and "\n" not in line) if says else line == ""
    assert moved.way(error) == line


def test_a_name_on_the_list_is_nowhere_else():
    for old in moved.NAMES:
        module, _, name = old.rpartition(".")
        there = vars(importlib.import_module(module)).get(name)  # an old submodule of that name, once it was asked for
        assert there is None or old in moved.MOVED, f"{old} is there; take it off the list"


@pytest.mark.parametrize(
    ("old", "name", "said"),
    [
        ("lib.training", "save_checkpoint", ["lib.trainer.checkpoint import save_checkpoint"]),
        ("lib.training", "memory", ["lib.trainer.memory import memory"]),  # a function, in a module of its name
        ("lib.adapt.finetuning", "merge", ["lib.adapt.lora import merge"]),
        ("lib.finetuning", "merge", ["lib.adapt import finetuning", "lib.adapt.lora import merge"]),  # moved twice
        ("lib.course.train_command", "load", ["lib.course.commands import train",
                                              "lib.course.training_run.run_folder import load"]),
    ],
)  # fmt: skip
def test_a_name_that_moved_is_found_and_said_once(old, name, said, capsys, monkeypatch):
    monkeypatch.setattr(moved, "_told", set())
    monkeypatch.delitem(sys.modules, old, raising=False)
    if old not in moved.MOVED:
        importlib.import_module(old)
    found = {}
    for _ in range(2):
        exec(f"from {old} import {name}", found)
    place, _, _ = said[-1].partition(" import ")
    assert found[name] is getattr(importlib.import_module(place), name)
    assert [line.partition("write: from ")[2] for line in capsys.readouterr().err.splitlines()] == said


def test_the_first_cells_of_an_old_lesson_run():
    cells = """
from lib.course import start, use, use_lib
from lib.grading import check, hint
from lib import dialogues, sizing
from lib.course.ledger import Ledger
import lib.plotting
import lib.lesson.plotting
import lib.lesson
assert lib.plotting is lib.lesson.plotting and start is lib.lesson.start and check is lib.lesson.check
from lib.grading import check, hint  # said once
from lib.embedding import TokenEmbedding, rotary_angles
from lib.generation import KVCache, generate, stream_text
from lib.transformer import Config, LayerNorm, RMSNorm
assert TokenEmbedding(5, 3).weight.shape == (5, 3) and LayerNorm(4, 1e-5).eps == 1e-5
"""
    ran = subprocess.run([sys.executable, "-c", cells], cwd=ROOT, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    lines = ran.stderr.splitlines()
    assert "lib.course.start has moved; write: from lib.lesson import start" in lines
    assert "lib.sizing has moved; write: from lib.decide import sizing" in lines
    assert "lib.transformer.LayerNorm has moved; write: from torch.nn import LayerNorm" in lines
    assert len(lines) == len(set(lines)) == 12, ran.stderr


def test_a_name_that_never_was_is_an_error():
    for place in ("lib.course", "lib.training", "lib.adapt.finetuning"):
        with pytest.raises(ImportError, match="nothing"):
            exec(f"from {place} import nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lib.nothing")


def test_an_old_program_is_told_the_new_one():
    ran = subprocess.run([sys.executable, "-m", "lib.course.train_command"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode and "python -m lib.course train" in ran.stderr
