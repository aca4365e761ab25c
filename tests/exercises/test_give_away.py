"""No lesson gives an exercise away before it is tried (give_away.py has how that is looked for)."""

import json

import give_away
import pytest
from hunt import hunt

from lib.exercises.exercise import exercise, exercises

# Those that a cell once gave away come first: all of the others are tried by make test-long.
ONCE = ["03.split_heads", "03.merge_heads", "05.cross_entropy", "03.repeat_kv", "02.attention", "00.greedy",
        "00.memory_gb"]  # fmt: skip
IDS = [*ONCE, *(e.id for e in exercises() if e.id not in ONCE)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("id", IDS[: hunt(len(ONCE), len(IDS))])
def test_nothing_before_it_earns_its_marks(id):
    assert [(points, found.where) for points, found in give_away.given_away(exercise(id))] == []


SHOWN = {
    "a function under another name": "def mine(q, n):\n    return q.view(*q.shape[:2], n, -1).transpose(1, 2)",
    "with a helper": "def cut(q, n):\n    return q.view(*q.shape[:2], n, -1)\n\ndef mine(q, n):\n"
                     "    return cut(q, n).transpose(1, 2)",
    "a lambda": "mine = lambda q, n: q.unflatten(-1, (n, -1)).transpose(1, 2)",
    "lines of a cell": "x = torch.zeros(1, 3, 4)\nB, T, D, H = 1, 3, 4, 2\ncut = x.view(B, T, H, D // H)\n"
                       "heads = cut.transpose(1, 2)",
    "inside a print": "print(q.unflatten(-1, (H, -1)).transpose(1, 2)[0])",
    "with a number in place of an argument": "y = q.unflatten(-1, (4, -1)).transpose(1, 2)",
    "inside a function": "def layer(x, H):\n    q = x.unflatten(-1, (H, -1)).transpose(1, 2)\n    return q @ q",
}


@pytest.mark.parametrize("kind", SHOWN)
def test_what_gives_away_is_found(kind, tmp_path):
    cells = [{"cell_type": "code", "metadata": {}, "source": SHOWN[kind]},
             {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": "03-split_heads"}}, "source": ""}]
    (tmp_path / "03_x.ipynb").write_text(json.dumps({"cells": cells}))
    assert give_away.given_away(exercise("03.split_heads"), tmp_path)
    (tmp_path / "03_x.ipynb").write_text(json.dumps({"cells": cells[::-1]}))
    assert not give_away.given_away(exercise("03.split_heads"), tmp_path), "it stands below"
