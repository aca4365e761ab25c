"""The card of a check: it says what the plain text says, to every eye and on every page."""

import html.parser
import re

import pytest

from lib.answers import load, mutant_source, reference_source
from lib.exercises.exercise import exercise, exercises
from lib.exercises.result import Outcome, Result, evaluate
from lib.lesson.card import card
from lib.lesson.checks import check, report, shown

MASK = exercise("02.causal_mask")
SOURCES = {"open": MASK.stub, "failed": mutant_source(MASK.id, "transposed"), "passed": reference_source(MASK.id)}
HEADS = {"open": "Not attempted yet", "failed": "Not yet", "passed": "Passed"}


class Read(html.parser.HTMLParser):
    """The words of a card, its tags and attributes; fails where a tag is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags, self.attributes = [], "", [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def result(state):
    return evaluate(MASK, load(SOURCES[state], MASK.name))


@pytest.mark.parametrize("state", SOURCES)
def test_state_is_told_in_words(state):
    read = Read(card(MASK, result(state), 1))
    assert HEADS[state] in read.words and MASK.title in read.words
    assert f"{HEADS[state]}: {MASK.title}" in dict(read.attributes)["aria-label"]
    assert [head for head in HEADS.values() if head in read.words] == [HEADS[state]]


@pytest.mark.parametrize("state", SOURCES)
def test_it_says_what_the_plain_text_says(state):
    found = result(state)
    words = Read(card(MASK, found, 2)).words
    failed = [o for o in found.outcomes if not o.passed and not o.withheld]
    assert words.count("does not hold:") == (state == "failed") * len(failed)
    for outcome in found.outcomes if state != "open" else ():
        assert outcome.name.replace("`", "") in words and f"({outcome.points}/{outcome.out_of})" in words
    if state == "failed":
        assert found.first_failure.message.replace("`", "") in words
        assert words.count("Hint ") == 2 and "Hint 2 of 3" in report(MASK, found, 2)
    else:
        assert "Hint" not in words and "Hint" not in report(MASK, found, 2)


def test_hints_are_folded_and_reached_by_keyboard():
    read = Read(card(MASK, result("failed"), 3))
    assert read.tags.count("details") == read.tags.count("summary") == 3
    assert "open" not in dict(read.attributes) and "tabindex" not in dict(read.attributes)


@pytest.mark.parametrize("state", SOURCES)
def test_it_takes_the_pages_colours(state):
    text = card(MASK, result(state), 3)
    own = re.sub(r"var\(--jp-[\w-]+, [#\w]+\)", "", text)
    assert not re.search(r"#\w+|rgb|white|black", own), "a colour that a theme cannot change"
    assert not re.search(r"(?<!-)\bcolor:|background", text), "text and ground are the page's"
    assert all(tag not in text for tag in ("<script", "<style", "<a ", "<img", "http"))


def test_what_the_learners_code_said_is_text():
    bad = '<script>alert(1)</script> & `one` ` "'
    found = Result(0, 3, True, (Outcome(bad, 0, 3, bad, bad),))
    read = Read(card(MASK, found, 3))
    assert "script" not in read.tags and read.words.count("<script>alert(1)</script> &") == 3


def test_the_same_result_is_the_same_card():
    assert card(MASK, result("failed"), 1) == card(MASK, result("failed"), 1)


@pytest.mark.parametrize("e", exercises(), ids=lambda e: e.id)
def test_every_stub_has_a_card(e):
    said = shown(e, evaluate(e, load(e.stub, e.name)))
    assert "Not attempted yet" in Read(said["text/html"]).words
    assert said["text/plain"].startswith(f"{e.id}: not attempted yet")


def test_a_notebook_shows_the_card_and_keeps_the_text(monkeypatch, capsys):
    import IPython
    import IPython.display

    seen = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: "a kernel")
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: seen.append(data))
    check(MASK.id, load(SOURCES["passed"], MASK.name))
    assert set(seen[0]) == {"text/html", "text/plain"} and "Full marks" not in capsys.readouterr().out
