"""A learner's progress: written whatever happens, read whatever the file has become, and never lost."""

import errno
import html.parser
import json
import re
import subprocess
import sys

import click.testing
import pytest

from lib.answers import load, mutant_source, reference_source
from lib.course.cli import course, main
from lib.exercises.exercise import exercise, exercises
from lib.lesson import check, predictions
from lib.lesson.handmade import parts
from lib.lesson.journal import Check, checks, journal, record, standings
from lib.lesson.ledger import Ledger
from lib.lesson.predictions import Guess

MASK = exercise("02.causal_mask")


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments, **options):
    return click.testing.CliRunner().invoke(course, ["progress", *map(str, arguments)], **options)


def one(made, e=MASK):
    [found] = standings([e], made)
    return found.points, found.tries, found.state


# --- the journal ---


def test_the_check_in_a_lesson_writes_it_down(capsys):
    wrong, right = mutant_source(MASK.id, "transposed"), reference_source(MASK.id)
    check(MASK.id, load(MASK.stub, MASK.name))
    assert not journal().exists(), "nothing was attempted"
    for source in (wrong, wrong, right, right, wrong):
        check(MASK.id, load(source, MASK.name))
    made, notes = checks()
    assert [(c.exercise, c.points, c.out_of) for c in made] == [(MASK.id, n, 3) for n in (0, 0, 3, 3, 0)] and not notes
    assert one(made) == (3, 3, "passed"), "a try after full marks takes nothing away and is not counted"
    assert "not kept" not in capsys.readouterr().out


def test_what_somebody_else_grades_is_not_ours(monkeypatch, capsys):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    check(MASK.id, load(reference_source(MASK.id), MASK.name))
    assert not journal().exists()


def test_standings():
    assert one([]) == (0, 0, "not attempted")
    assert one([Check(MASK.id, 2, 3), Check(MASK.id, 1, 3), Check("02.attention", 8, 8)]) == (2, 2, "begun")
    assert one([Check(MASK.id, 5, 5)]) == (0, 1, "begun"), "the exercise has changed since"


def test_two_kernels_at_once_lose_nothing():
    program = "from lib.lesson.journal import record\nfor _ in range(60): record('02.causal_mask', 1, 3)"
    kernels = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [kernel.wait() for kernel in kernels] == [0, 0]
    made, notes = checks()
    assert len(made) == 120 and not notes


def kept(v=1, exercise="02.x", points=1, out_of=1, when=""):
    return json.dumps({"v": v, "exercise": exercise, "points": points, "out_of": out_of, "when": when})


NONSENSE = [
    "", "no json", "[]", "3", '{"v": 1}', "\ud800", "[" * 9999, "<<<<<<< HEAD", kept(v=0), kept(v="1"),
    kept(exercise="../x"), kept(points=2), kept(points=True), kept(points=float("nan")), kept(when=3),
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_a_damaged_line_costs_that_line_alone(text):
    record(MASK.id, 1, 3)
    line = text.encode(errors="surrogatepass")
    with journal().open("ab") as file:
        file.write(line)  # and no end of line
    record(MASK.id, 3, 3)
    before = journal().read_bytes()
    made, notes = checks()
    assert [c.points for c in made] == [1, 3]
    assert len(notes) == bool(text) and all("1 line of" in note and "left as found" in note for note in notes)
    assert journal().read_bytes() == before and (not line or line in before)


def test_a_newer_version_is_kept_and_told():
    record(MASK.id, 1, 3)
    with journal().open("a") as file:
        file.write('{"v": 2, "what": "nobody knows yet"}\n' * 2)
    record(MASK.id, 3, 3)
    made, notes = checks()
    assert len(made) == 2 and journal().read_text().count("nobody knows") == 2
    assert len(notes) == 1 and "2 lines" in notes[0] and "newer version" in notes[0]


@pytest.mark.parametrize("trouble", ["full", "in the way", "a folder"])
def test_a_disk_that_takes_nothing_costs_one_line(own_home, monkeypatch, capsys, trouble):
    if trouble == "full":
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr("lib.lesson.journal.append_line", full)
    elif trouble == "in the way":
        own_home.write_text("")
    else:
        journal().mkdir(parents=True)
    check(MASK.id, load(reference_source(MASK.id), MASK.name))
    told = capsys.readouterr().out.splitlines()
    assert any("Full marks" in line for line in told) and "progress is not kept" in told[-1]
    assert run().exit_code == 0


# --- other files that a kernel shares with the next ---


def test_guesses_of_two_kernels_are_merged():
    first, second = predictions.load("02"), predictions.load("02")
    first["a"] = Guess("x", 0.5)
    predictions.save("02", first)
    second["b"] = Guess("y")
    predictions.save("02", second)
    assert set(predictions.load("02")) == {"a", "b"}
    predictions.save("02", {"a": Guess("x", 0.5, True)})
    predictions.save("02", {"a": Guess("z", 1.0)})
    assert predictions.load("02")["a"] == Guess("x", 0.5, True), "a known outcome is final"


# --- the command ---


def fill():
    for points in (1, 3):
        record(MASK.id, points, 3)
    record("02.attention", 4, 8)
    predictions.save("02", {"a": Guess("x", 0.8, True), "b": Guess("<y>", 0.6, False), "c": Guess("z")})
    Ledger().add("09.select", "select", "the rule", ["a coin"], 0.8, "0.8 right", "measured here")
    (predictions.home() / "own").mkdir()
    (predictions.home() / "own" / "02.attention.py").write_text("def attention(): ...")


def test_the_table(monkeypatch):
    assert "0 of" in run().output and "no predictions yet" in run().output
    fill()
    text = run().output
    [row] = [line for line in text.splitlines() if line.startswith("02")]
    assert re.search(r"1 of 5 +7 of 30 +3 +1 of 2$", row), row
    assert f"1 of {len(exercises())} passed, 7 of {sum(e.points for e in exercises())} points" in text
    assert "You were right in 1 of 2 predictions." in text
    assert "Next: 02.attention" in text and str(predictions.home()) in text


def test_a_notebook_that_is_none_costs_one_line(monkeypatch, tmp_path):
    (tmp_path / "02_attention.ipynb").write_text("<<<<<<< HEAD")
    monkeypatch.setattr("lib.lesson.series.NOTEBOOKS", tmp_path)
    fill()
    ran = run()
    assert ran.exit_code == 0 and "is not a notebook" in ran.output and "7 of 30" in ran.output


def test_export_holds_all_that_is_kept(tmp_path):
    fill()
    assert run("--export", tmp_path / "p.json").exit_code == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert (found["format"], found["version"], found["points"]) == ("transformer-course progress", 1, 7)
    assert [c["points"] for c in found["checks"]] == [1, 3, 4] and found["guesses"]["02"]["b"]["guess"] == "<y>"
    by_id = {e["id"]: e for e in found["exercises"]}
    assert by_id[MASK.id]["state"] == "passed" and by_id["02.attention"]["state"] == "begun"
    assert found["calibration"]["brier"] == pytest.approx((0.04 + 0.36) / 2)
    assert found["ledger"]["shop"]["09.select"]["decision"] == "the rule"
    assert found["own"] == {"02.attention": "def attention(): ..."}


class Page(html.parser.HTMLParser):
    """The tags that are open, and all that would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.asked = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.asked += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_nobody(tmp_path):
    fill()
    with journal().open("a") as file:
        file.write("<script>\n")
    assert run("--html", tmp_path / "p.html").exit_code == 0
    text = (tmp_path / "p.html").read_text()
    page = Page(text)
    assert not page.open and not page.asked and "url(" not in text and "<script" not in text
    assert text.count("passed</td>") == 1 and text.count("begun</td>") == 1 and "cannot be read" in text
    assert "70 to 90 %" in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("arguments, says", [
    (["--html", "p.txt"], "does not end in .html"), (["--export", "02_attention.ipynb"], "does not end in .json"),
    (["--html", "/dev/null/p.html"], "cannot write"),
])  # fmt: skip
def test_a_mistake_is_one_line(capsys, arguments, says):
    with pytest.raises(SystemExit) as end:
        main(["progress", *arguments])
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.count("\n") == 1 and says in told


def test_the_meter_of_the_learners_transformer_is_on_the_page(own_home, tmp_path):
    fill()
    ran = run("--html", tmp_path / "p.html")
    assert "Your transformer" not in ran.output + (tmp_path / "p.html").read_text(encoding="utf-8")
    parts.keep("02.attention", "x")
    ran = run("--html", tmp_path / "p.html")
    assert ran.output.count(f"Your transformer: 1 of {len(parts.IDS)} parts are yours, next: 01.merge.") == 1
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert f"Your transformer: 1 of {len(parts.IDS)} parts are yours" in page


REMOVE = "Remove 5 files: all checks, predictions, decisions, answers in use and parts of your transformer?"


def test_remove_asks_first(own_home):
    assert "Nothing is kept" in run("--remove").output
    fill()
    (own_home / "guesses" / "02.damaged-1").write_text("x")
    ran = run("--remove", input="n\n")
    assert ran.exit_code and len(checks()[0]) == 3 and predictions.load("02")
    assert run("--remove").exit_code, "nobody answers"
    ran = run("--remove", input="y\n")
    assert ran.exit_code == 0 and REMOVE in ran.output
    assert checks() == ([], []) and not predictions.everything() and not [p for p in own_home.rglob("*") if p.is_file()]
