"""Lessons are found by any name a person would type, and a wrong one is told the right ones."""

import json

import pytest

from lib import device
from lib.errors import CourseError
from lib.lesson import series

NOTEBOOK = '{"cells": [{"cell_type": "markdown", "source": ["# Attention, read aloud\\n", "text"]}], "nbformat": 4}'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("01_embeddings", "02_attention", "03_multi_head_attention"):
        (tmp_path / f"{name}.ipynb").write_text(NOTEBOOK)
    (tmp_path / "scratch.ipynb").write_text(NOTEBOOK)
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["2", "02", "attention", "02_attention", "path"])
def test_find(folder, name):
    name = str(folder / "02_attention.ipynb") if name == "path" else name
    [lesson] = series.find([name])
    assert (lesson.number, lesson.name, lesson.stem) == ("02", "attention", "02_attention")
    assert lesson.title == "Attention, read aloud"


def test_no_name_is_the_whole_series_in_order(folder):
    assert [lesson.number for lesson in series.find()] == ["01", "02", "03"]
    assert [lesson.name for lesson in series.find(["3", "multi_head_attention"])] == ["multi head attention"]


def test_any_notebook_by_its_path(folder):
    [lesson] = series.find([str(folder / "scratch.ipynb")])
    assert (lesson.number, lesson.stem) == ("", "scratch")


def test_a_wrong_name_is_told_the_right_ones(folder):
    with pytest.raises(CourseError, match=r"unknown lesson 'atention'.*01_embeddings.*Did you mean 'attention'"):
        series.find(["atention"])
    with pytest.raises(CourseError, match="no notebook at nowhere"):
        series.find(["nowhere.ipynb"])


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_named(folder, text):
    (folder / "scratch.ipynb").write_text(text)
    [lesson] = series.find([str(folder / "scratch.ipynb")])
    with pytest.raises(CourseError, match=r"scratch.ipynb is not a notebook"):
        lesson.title  # noqa: B018


def test_presets_are_those_of_the_library():
    assert series.PRESETS == device.PRESETS


def test_a_notebook_with_a_mark_in_front_and_odd_metadata_is_read(tmp_path):
    """As the grader reads it: some editors put a byte-order mark there."""
    about = {"nbgrader": {"grade_id": "02-attention"}}
    cells = [{"cell_type": "code", "source": ["x = 1\n", "y"], "metadata": about},
             {"cell_type": "code", "source": "z", "metadata": []},
             {"cell_type": "markdown", "source": "no"}]  # fmt: skip
    path = tmp_path / "02_attention.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8-sig")
    assert series.Lesson(path).code == [("x = 1\ny", "02-attention"), ("z", "")]
