"""A learner's page: plain, whole in one file, readable by anyone, and silent about what is hidden."""

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest

from lib.errors import CourseError
from lib.exercises.exercise import exercise, exercises
from lib.exercises.result import Outcome
from lib.grading import feedback
from lib.grading.gradebook import Standing
from lib.grading.grades import Flag, Grade, Report

HIDDEN = "expected 0.123, got 9.87"
EVIL = "</p><script src=//x>alert(1)</script>&\"'`<img src=x onerror=alert(2)>{total}"
MASK = Grade("02.causal_mask", "v1", 1, 3, True, (
    Outcome("four tokens, by hand", 1, 1),
    Outcome("any length", 0, 2, "It is transposed: `mask[i, j]` is j >= i.", HIDDEN)))
FULL = Grade("02.causal_mask", "v1", 3, 3, True, (Outcome("four tokens, by hand", 3, 3),))
STUB = Grade("02.attention", "v1", 0, 5, False, (Outcome("adds up", 0, 5, "This part still raises."),))
CRASH = Grade("02.attention", "v1", 0, 5, True, (Outcome("adds up", 0, 5, "Cannot make sense.", HIDDEN, crashed=True),))
LESSON = Report("ann", "02", "ann/02.ipynb", "d1", 7, True, 1.6, (STUB, MASK),
                (Flag("02.causal_mask", "calls a built-in", 3),))
ANN = Standing("ann", (LESSON,))


class Page(HTMLParser):
    VOID = ("meta", "br", "img", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.headings, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, "a tag is left open"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def page(*grades, standing=ANN, **changes):
    if grades or changes:
        standing = replace(ANN, reports=(replace(LESSON, **({"grades": grades} | changes if grades else changes)),))
    text = feedback.page(standing)
    return text, Page(text)


def test_it_says_what_holds_what_does_not_and_why():
    html, parsed = page()
    said = " ".join(parsed.text.split())
    assert "1 of 8 points in what was graded" in said
    assert "✓ holds: four tokens, by hand (1 of 1 point)" in said
    assert "✗ does not hold: any length (0 of 2 points)It is transposed: mask[i, j] is j >= i." in said
    assert "<code>mask[i, j]</code>" in html
    assert "Not attempted yet." in said and exercise("02.attention").title in said
    for hint in exercise("02.causal_mask").hints:
        assert " ".join(hint.replace("`", "").split()) in said
    assert html.count("<details>") == 6 and "<details open" not in html


def test_exercises_stand_in_the_order_of_the_lesson():
    ids = [e.id for e in exercises("04")]
    html, _ = page(standing=Standing("ann", (replace(LESSON, lesson="04", flags=(), grades=tuple(
        Grade(id, "v", 0, 1, False) for id in sorted(ids))),)))
    titles = [html.index(f"<h3><bdi>{escape(exercise(id).title)}<") for id in ids]
    assert ids != sorted(ids) and titles == sorted(titles)


def test_full_marks_need_no_hints():
    html, parsed = page(FULL, flags=())
    assert "Full marks" in parsed.text and "<details>" not in html and "person" not in parsed.text


def test_nothing_hidden_is_shown():
    for grades in ((STUB, MASK), (CRASH,)):
        html, parsed = page(*grades)
        assert "0.123" not in html and "9.87" not in html
    assert "The check itself failed here" in parsed.text and "Cannot make sense" not in parsed.text


def test_a_flag_is_only_a_neutral_note():
    html, parsed = page()
    assert parsed.text.count("A person will also look at this") == 1 and "built-in" not in html
    assert "A person will also look" in page(flags=(Flag("", "a cell was copied"),))[1].text


def test_a_lesson_that_could_not_be_graded_is_not_zero():
    _, parsed = page(grades=(), flags=(), problem="the file is not JSON")
    said = " ".join(parsed.text.split())
    assert "could not be graded: the file is not JSON" in said and "they are not zero" in said
    assert "0 of" not in said.split("not graded")[1] and "1 file could not be graded" in said


def test_files_of_no_lesson_are_named():
    bad = [Report("ann", "", f"ann/{n}.ipynb", "", problem=f"{n} is not JSON") for n in ("a", "b")]
    html, parsed = page(standing=Standing("ann", (*bad, LESSON)))
    assert parsed.text.count("A file of no lesson") == 4 and "a is not JSON." in parsed.text
    assert len(set(re.findall(r' id="([^"]+)"', html))) == 3


def test_problems_and_no_sandbox_are_said():
    _, parsed = page(replace(MASK, problem="it ran out of time"), sandboxed=False)
    assert "could not be tried to the end: it ran out of time" in parsed.text
    assert "without a sandbox" in parsed.text


def test_an_exercise_and_a_lesson_that_are_no_more():
    gone = Report("ann", "77", "p", "d", grades=(Grade("77.gone", "v", 0, 1, True, (Outcome("p", 0, 1, "no"),)),))
    _, parsed = page(standing=Standing("ann", (gone,)))
    assert "Lesson 77" in parsed.text and "77.gone" in parsed.text


def test_everything_from_outside_is_escaped():
    evil = Grade(EVIL, "v", 0, 2, True, (Outcome(EVIL, 0, 1, EVIL, EVIL), Outcome("`", 0, 1, "a\nb\x00 `")), EVIL)
    report = Report(EVIL, EVIL, EVIL, EVIL, grades=(evil,), flags=(Flag(EVIL, EVIL),), problem=EVIL)
    html, parsed = page(standing=Standing(EVIL, (report,)))
    assert not {"script", "img"} & set(parsed.tags)
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert "alert(1)" in parsed.text and "{total}" in html and "\x00" not in html


def test_it_asks_nobody_for_anything(tmp_path):
    html, parsed = page()
    assert not {"script", "img", "link", "iframe", "object", "form"} & set(parsed.tags)
    assert not re.search(r"https?:|//|url\(|@import", html)
    links = [value for name, value in parsed.attributes if name in ("href", "src")]
    ids = {value for name, value in parsed.attributes if name == "id"}
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)


def test_headings_go_down_one_at_a_time_and_the_language_is_said():
    html, parsed = page()
    assert parsed.headings[0] == 1 and parsed.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert ("lang", "en") in parsed.attributes and "main" in parsed.tags and "<title>Feedback for ann</title>" in html


def luminance(colour):
    colour = colour * 2 if len(colour) == 3 else colour
    parts = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_can_be_read(mode):
    root = feedback.STYLE.split("@media (prefers-color-scheme: dark)")[mode].split("}")[0]
    colours = dict(re.findall(r"--(\w+): #([0-9a-f]+)", root))
    assert len(colours) == 8
    for text in ("ink", "soft", "link", "pass", "fail"):
        for ground in ("paper", "note"):
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 6, (text, ground)


def test_a_page_for_each_learner_whatever_they_are_called(tmp_path):
    names = ["ann", "Ann", "../up", "a/b", "", "\u202eevil", "x" * 300, "名前"]
    paths = feedback.write([replace(ANN, learner=name) for name in names], tmp_path)
    assert len(set(paths)) == len(names) == len(list(tmp_path.iterdir()))
    assert "<title>Feedback for 名前</title>" in paths[-1].read_text(encoding="utf-8")
    with pytest.raises(CourseError, match="cannot write"):
        feedback.write([ANN], paths[0])
