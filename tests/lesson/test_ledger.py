"""Decisions with their numbers: written once, read by later lessons, and never lost to a damaged file."""

import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch

from lib.errors import CourseError
from lib.lesson import ledger
from lib.lesson.ledger import Entry, Ledger, claim

GOOD = dict(stage="select", decision="the rule", instead_of=["SmolLM2", "a coin"], number=0.8, shown="0.8 right",
            source="measured here")  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_later_lesson_reads_what_an_earlier_one_wrote():
    Ledger().add("09.select", **GOOD)
    Ledger().add("10.size", **GOOD | {"stage": "deploy", "number": torch.tensor(3.0)})
    again = Ledger()
    assert again.entries["09.select"] == Entry(**GOOD) and again.entries["10.size"].number == 3.0
    assert list(again.of("09")) == ["09.select"] and repr(again) == "<ledger shop, 2 decisions>"
    assert not Ledger("other").entries


def test_running_a_lesson_again_replaces_its_entries():
    book = Ledger()
    book.add("09.select", **GOOD)
    book.add("09.select", **GOOD | {"decision": "SmolLM2"})
    assert [entry.decision for entry in Ledger().entries.values()] == ["SmolLM2"]


def test_two_kernels_at_once_lose_nothing():
    one, two = Ledger(), Ledger()
    one.add("09.select", **GOOD)
    two.add("10.size", **GOOD)
    one.add("09.select", **GOOD | {"decision": "SmolLM2"})
    assert {key: e.decision for key, e in Ledger().entries.items()} == {"09.select": "SmolLM2", "10.size": "the rule"}


def test_table():
    book = Ledger()
    book.add("09.watch", **GOOD | {"stage": "watch", "decision": "w " * 40})
    book.add("09.select", **GOOD)
    book.add("11.adapt", **GOOD | {"stage": "adapt"})
    lines = book.table("09").splitlines()
    assert lines[0].split()[:2] == ["stage", "decision"] and lines[2].startswith("select")
    assert "SmolLM2; a coin" in lines[2] and "0.8 right [measured" in lines[2]
    assert any(line.startswith("watch") for line in lines) and "adapt" not in book.table("09")
    assert max(map(len, lines)) <= sum(ledger.WIDTHS) + 6 and all(line == line.rstrip() for line in lines)
    assert "adapt" in book.table()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stage": "buy"}, "the stages are scope"),
        ({"instead_of": []}, "nothing was decided"),
        ({"instead_of": "a coin"}, "is a list"),
        ({"number": math.nan}, "rests on a number"),
        ({"number": "0.8"}, "rests on a number"),
        ({"number": True}, "rests on a number"),
        ({"source": " "}, "the source is missing"),
        ({"decision": None}, "the decision is missing"),
    ],
)
def test_no_decision_without_its_parts(change, says):
    book = Ledger()
    with pytest.raises(CourseError, match=says):
        book.add("09.select", **GOOD | change)
    assert not book.entries and not Ledger().entries


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"09.x": 3}', '{"09.x": {"stage": "buy"}}', "\ud800"])
def test_a_damaged_file_is_set_aside(own_home, capsys, text):
    path = own_home / "ledger" / "shop.json"
    path.parent.mkdir(parents=True)
    content = text.encode(errors="surrogatepass")
    path.write_bytes(content)
    book = Ledger()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "set aside as" in printed and not book.entries
    assert path.with_suffix(".damaged-1").read_bytes() == content
    book.add("09.select", **GOOD)
    assert len(Ledger().entries) == 1


def test_one_bad_entry_loses_nothing(own_home, capsys):
    book = Ledger()
    book.add("09.select", **GOOD)
    kept = json.loads(book.path.read_text())
    book.path.write_text(json.dumps(kept | {"10.x": {"stage": "select"}}))
    Ledger()
    assert "09.select" in book.path.with_suffix(".damaged-1").read_text()


def test_a_folder_that_cannot_be_written_costs_one_line(own_home, capsys):
    own_home.parent.mkdir(exist_ok=True)
    own_home.write_text("in the way")
    book = Ledger()
    book.add("09.select", **GOOD)
    assert "COURSE_HOME" in capsys.readouterr().out and len(book.entries) == 1


def test_a_file_that_cannot_be_read_now_costs_one_line_and_is_not_written_over(capsys, monkeypatch):
    def stale(*_, **__):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    Ledger().add("09.select", **GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        book = Ledger()
        told = capsys.readouterr().out
        assert told.count("\n") == 1 and "The ledger cannot be read" in told and "Stale file handle" in told
        book.add("10.size", **GOOD)
        assert "The ledger is not kept" in capsys.readouterr().out
    book.add("11.adapt", **GOOD)
    assert set(Ledger().entries) == {"09.select", "10.size", "11.adapt"}, "what was there, and what came meanwhile"


@pytest.mark.parametrize("name", ["", "../shop", "a b", "a/b"])
def test_a_name_stays_in_its_folder(name):
    with pytest.raises(CourseError, match="one plain word"):
        Ledger(name)


def test_claims_of_earlier_lessons():
    number, shown, source = claim("05.main_loss")
    assert 1.7 < number < 2.0 and "1.8" in shown and source == "claim 05.main_loss, 3 seeds"
    Ledger().add("09.x", "select", "d", ["e"], number, shown, source)
    with pytest.raises(CourseError, match=r"no measured claim '99\.x'"):
        claim("99.x")
