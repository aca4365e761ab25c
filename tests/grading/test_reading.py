"""A submission's file may be anything at all: it is read, or refused with a reason; nothing raises."""

import json
import os

import pytest

from lib.grading import reading
from lib.grading.reading import Cell, parse, read


def answer(source, grade_id="02-causal_mask", **cell):
    return {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": grade_id}}, "source": source, **cell}


def cells(nb):
    return parse(json.dumps(nb).encode())[0]


def written(tmp_path, data):
    path = tmp_path / "a.ipynb"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


@pytest.mark.parametrize("nb", [
    None, [], "text", 5, {}, {"cells": None}, {"cells": {}}, {"cells": []}, {"cells": [None, 5, [], "x", {}]},
    {"worksheets": [None, 5, {"cells": 7}]}, {"cells": [{"cell_type": "markdown", "source": "x"}]},
    {"cells": [answer(None), answer({"a": 1}), answer("x", cell_type="raw")]},
])
def test_json_without_code_is_refused_with_a_reason(nb):
    found, problem = parse(json.dumps(nb).encode())
    assert found == [] and problem


def test_a_cell_that_is_too_long_says_so_when_it_runs():
    most, over = "x" * 200_000, "x" * 200_001
    [(kept, _), (instead, grade_id)] = cells({"cells": [answer(most), answer(over)]})
    assert kept == most and grade_id == "02-causal_mask"
    with pytest.raises(ValueError, match="this cell has 200,001 characters; 200,000 are read"):
        exec(instead)


@pytest.mark.parametrize(("cell", "grade_id"), [
    ({"cell_type": "code", "source": "x"}, ""), ({"cell_type": "code", "metadata": None, "source": "x"}, ""),
    ({"cell_type": "code", "metadata": {"nbgrader": []}, "source": "x"}, ""), (answer("x", grade_id=5), ""),
    (answer("x", grade_id="a" * 1000), ""), (answer("x", outputs="nonsense", execution_count=-1), "02-causal_mask"),
])
def test_of_metadata_only_a_grade_id_counts(cell, grade_id):
    assert cells({"cells": [cell]}) == [("x", grade_id)]


def test_source_as_a_list_of_lines_and_as_the_old_format_has_it():
    assert cells({"cells": [answer(["a = 1\n", "b = 2"])], "nbformat": "?"}) == [("a = 1\nb = 2", "02-causal_mask")]
    old = {"cell_type": "code", "input": ["a = 1\n", "b = 2"], "metadata": {}}
    assert cells({"worksheets": [{"cells": [old]}], "nbformat": 3}) == [("a = 1\nb = 2", "")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_any_common_encoding(tmp_path, encoding):
    data = json.dumps({"cells": [answer("s = 'é'")]}, ensure_ascii=False).encode(encoding)
    if encoding == "utf-16-le":
        data = b"\xff\xfe" + data
    assert read(written(tmp_path, data)).cells == (Cell("s = 'é'", "02-causal_mask"),)


def test_bytes_of_another_encoding_and_halves_of_characters_do_no_harm(tmp_path):
    data = json.dumps({"cells": [answer("s = 'é'")]}, ensure_ascii=False).encode("latin-1")
    assert read(written(tmp_path, data)).cells[0].source.startswith("s = ")
    lone = b'{"cells": [{"cell_type": "code", "metadata": {}, "source": "x = \\"\\ud800\\""}]}'
    read(written(tmp_path, lone)).cells[0].source.encode()


@pytest.mark.parametrize(("data", "says"), [
    (b"", "empty"), (b"\n \n", "empty"), (b"{", "not JSON"), (b"hello", "not JSON"), (b"\x00\x01\xff" * 50, "not JSON"),
    (b'{"cells": [\n<<<<<<< HEAD\n]}', "merge conflict"), (b"[" * 200_000, "too deeply"), (b"9" * 10_000, "not JSON"),
    (b'{"cells": [' + b"{}," * 2_000 + b"{}]}", "more than 2,000 cells"),
    (b'{"cells": []}', "no cells"), (b'{"a": 1}', "no notebook"),
])
def test_what_is_no_notebook_is_told_in_one_line(tmp_path, data, says):
    file = read(written(tmp_path, data))
    assert says in file.problem and "\n" not in file.problem and file.cells == ()


def test_no_link_pipe_or_folder_is_followed(tmp_path):
    real = written(tmp_path, {"cells": [answer("x = 1")]})
    (tmp_path / "link.ipynb").symlink_to(real)
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    assert "link" in read(tmp_path / "link.ipynb").problem
    assert "ordinary" in read(tmp_path / "pipe.ipynb").problem
    assert read(tmp_path / "folder.ipynb").problem
    assert "No such file" in read(tmp_path / "none.ipynb").problem


def test_a_large_file_is_read_apart_and_a_bomb_in_one_harms_nobody(tmp_path, monkeypatch):
    picture = {"cell_type": "code", "metadata": {}, "source": "y = 2", "outputs": [{"data": "A" * 6_000_000}]}
    large = read(written(tmp_path, {"cells": [answer("x = 1"), picture]}))
    assert [c.source for c in large.cells] == ["x = 1", "y = 2"]
    bomb = b'{"cells": [' + b"[]," * 40_000_000 + b"[]]}"
    assert "more memory or time" in read(written(tmp_path, bomb)).problem
    monkeypatch.setattr(reading, "MOST", 1000)
    assert "limit" in read(written(tmp_path, b" " * 2000)).problem
