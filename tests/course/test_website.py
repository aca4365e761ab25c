"""The website: every link leads somewhere, nothing comes from another host, nothing leaks, what is wrong is told."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from test_learners_copy import leaks

from lib.course.cli import course
from lib.course.commands.site import HAND_WRITTEN, _render, build, for_the_web
from lib.course.own_copy.suspense import SUMMARY, kept_back, predictions
from lib.course.website.reading_time import estimate, reading
from lib.course.website.reference import ROOMS, pages
from lib.errors import CourseError
from lib.lesson import expectations, series
from lib.sources.places import ROOT

LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "embed": "src", "object": "data",
         "link": "href", "video": "src", "audio": "src"}  # fmt: skip


@dataclasses.dataclass
class Page(HTMLParser):
    """What a page holds: its anchors, its links, what a browser loads for it, its pictures, its text."""

    path: Path

    def __post_init__(self):
        super().__init__()
        self.anchors, self.links, self.loads, self.pictures, self.unfolded, self.words = {""}, [], [], [], 0, []
        self.depth, self.in_summary, self.shown, self.summaries = 0, False, [], []
        self.feed(self.path.read_text(encoding="utf-8"))
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if LOADS.get(tag) in given:
            self.loads.append(given[LOADS[tag]])
        if "srcset" in given or "@import" in given.get("style", "") or "url(" in given.get("style", ""):
            self.loads.append(given.get("srcset") or given["style"])
        if tag == "img":
            self.pictures.append(given)
        self.unfolded += tag == "details" and "open" in given
        self.depth += tag == "details"
        self.in_summary |= tag == "summary"

    def handle_endtag(self, tag):
        self.depth -= tag == "details"
        self.in_summary &= tag != "summary"

    def handle_data(self, data):
        self.words.append(data)
        if self.in_summary:
            self.summaries.append(data)
        if self.in_summary or not self.depth:
            self.shown.append(data)  # what stands there before anything is opened


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return build(series.find(), tmp_path_factory.mktemp("web") / "site").parent


@pytest.fixture(scope="module")
def parsed(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_there_is_a_page_for_everything(site, parsed):
    names = {str(path.relative_to(site)) for path in parsed}
    made = {"lessons.html", "expectations.html", "claims.html"}
    assert {"index.html", *made, "guides/grading.html", "search.html"} <= names
    assert {f"notebooks/{lesson.stem}.html" for lesson in series.find()} <= names
    modules = {path.stem for path in (ROOT / "lib").glob("[!_]*.py")} - {"moved"}
    modules |= {f"{room}.{path.stem}" for room in ROOMS for path in (ROOT / "lib" / room).glob("[!_]*.py")}
    assert {f"reference/{name}.html" for name in modules} <= names


def broken(parsed):
    for path, page in parsed.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield path.name, link
            elif target in parsed and unquote(parts.fragment) not in parsed[target].anchors:
                yield path.name, link


def test_every_internal_link_and_anchor_leads_somewhere(parsed):
    assert sum(len(page.links) for page in parsed.values()) > 1000
    assert not list(broken(parsed))


def test_a_broken_link_would_be_found(tmp_path):
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    good.write_text('<p id="here"><a href="bad.html">x</a><a href="#here">x</a>')
    bad.write_text('<a href="good.html#nowhere">x</a><img src="gone.png"><a href="https://example.org">x</a>')
    assert [link for _, link in broken({path: Page(path) for path in (good, bad)})] == ["good.html#nowhere", "gone.png"]


def test_nothing_is_loaded_from_another_host(site, parsed):
    for page in parsed.values():
        assert not [load for load in page.loads if urlsplit(load).scheme or load.startswith("//")], page.path
    sheets = [path for path in site.rglob("*.css")]
    assert len(sheets) > 3
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", text), sheet


def test_figures_keep_their_words(parsed, site):
    for lesson in series.find():
        page = parsed[site / "notebooks" / f"{lesson.stem}.html"]
        figures = [picture for picture in page.pictures if "_images/" in picture["src"]]
        assert len(figures) == reading(lesson).figures
        assert all(len(picture.get("alt", "")) > 20 for picture in figures)
        assert all(picture["alt"] in page.text for picture in figures), "the caption is to be seen, too"
        assert "Figure: " not in page.text


def test_maths_is_drawn_without_a_script(parsed, site):
    page = (site / "notebooks" / "02_attention.html").read_text(encoding="utf-8")
    assert page.count("<math") > 40 and "<msqrt>" in page
    for path, parsed_page in parsed.items():
        assert not any("mathjax" in load.lower() for load in parsed_page.loads)
        assert not re.search(r"\\(frac|sqrt|mathrm)\b", parsed_page.text) or path.parent.name == "reference"


def test_folded_stays_folded_and_no_answer_leaks(parsed, site):
    assert not sum(page.unfolded for path, page in parsed.items() if path.parent.name != "reference")
    for path, page in parsed.items():
        assert not leaks(page.text), path
    assert not any("answers" in str(path) or "mutant" in path.name for path in site.rglob("*"))


@pytest.mark.parametrize("lesson", series.series(), ids=lambda lesson: lesson.number)
def test_no_outcome_is_to_be_seen_before_it_is_asked_for(parsed, site, lesson):
    page = parsed[site / "notebooks" / f"{lesson.stem}.html"]
    shown, whole = (" ".join("".join(words).split()) for words in (page.shown, page.words))
    cells = lesson.notebook["cells"]
    outcomes = [line for cell in cells for output in cell.get("outputs", [])
                for line in "".join(output.get("text", "")).splitlines() if line.startswith("Outcome: ")]  # fmt: skip
    assert len(outcomes) == len(predictions(cells)) > 0
    for line in outcomes:
        assert line in whole and line not in shown
    for each in predictions(cells):
        assert f"Predict: {question(cells[each.asked])}" in shown
        for place in range(each.asked + 1, each.told + 1):
            for alt in alts(cells[place]):
                assert alt in whole and alt not in shown, "a figure between the question and its outcome"
    assert not [alt for alt in alts({"outputs": [o for c in cells for o in c.get("outputs", [])]}) if alt not in whole]
    kept = kept_back(cells)
    assert page.summaries.count("Show the code and what happened") == len(kept.code)
    bare = [place for place in kept.outputs - kept.code if cells[place]["outputs"]]
    assert page.summaries.count("Show what happened") == len(bare) and page.summaries.count(SUMMARY) == len(kept.prose)


def question(cell) -> str:
    """The first line that the question prints, without its first word."""
    text = "".join("".join(output["text"]) for output in cell["outputs"])
    return " ".join(re.search(r"^Predict: (.*)$", text, re.M)[1].split())


def alts(cell) -> list[str]:
    found = (output.get("metadata", {}).get("image/png", {}).get("alt") for output in cell.get("outputs", []))
    return [" ".join(alt.split()) for alt in found if alt]


def test_a_fold_needs_no_script_and_prints(site):
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "notebooks").glob("*.html"))
    assert re.search(r'<details class="told below-input">\s*<summary>Show what happened</summary>', text)
    assert "Toggle hidden content" not in text, "a name that says the same of each"
    style = (site / "_static" / "site.css").read_text(encoding="utf-8")
    assert re.search(r"@media print \{[^@]*details::details-content \{ content-visibility: visible", style)


def test_the_expectations_are_all_there(parsed, site):
    text = " ".join(parsed[site / "expectations.html"].text.split())
    for claim in expectations.load().values():
        assert " ".join(claim["what"].split()) in text
        for found in claim["presets"].values():
            assert found["command"] in text and found["machine"] in text


def test_a_screen_reader_can_name_the_arrow_of_the_side_bar(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert text.count("toctree-toggle") == text.count('<summary aria-label="Show the pages below">') > 0


def test_prose_leads_to_the_library(site):
    assert 'href="../reference/attention.html' in (site / "notebooks" / "02_attention.html").read_text(encoding="utf-8")


def test_lessons_can_be_read_in_the_time_they_say():
    for lesson in series.find():
        counted = reading(lesson)
        assert counted.minutes <= 45, lesson.stem
        assert abs(counted.minutes - estimate(lesson)) <= 15, lesson.stem


def test_a_link_to_a_lesson_that_is_left_out_leaves_its_words():
    cell = {"cell_type": "markdown", "metadata": {}, "source": "see [one](01_a.ipynb), [two](02_b.ipynb#x)"}
    (shown,) = for_the_web({"cells": [cell]}, {"01_a.ipynb"})["cells"]
    assert shown["source"] == "see [one](01_a.ipynb), two"


def test_the_reference_says_what_a_docstring_says(monkeypatch, tmp_path):
    (tmp_path / "__init__.py").write_text('"""All of it, in the order of the lessons: b, a."""')
    (tmp_path / "a.py").write_text('"""A.\n\n    drawn *here*\n\nEnd.\n"""\nfrom lib.b import Box\n\n\n'
                                   'def f(x: Box, n=3) -> Box:\n    """Costs $3."""\n\n\ndef _hidden(): ...\n')
    (tmp_path / "b.py").write_text('"""B."""\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass Box:\n'
                                   '    """A box."""\n\n    side: int = 1\n')
    monkeypatch.setattr("lib.course.website.reference.LIB", tmp_path)
    made = pages([])
    assert list(made) == ["index", "b", "a"]
    assert "{py:function} f(x: lib.b.Box, n=3) -> lib.b.Box\n\nCosts \\$3." in made["a"]
    assert "\n    drawn *here*" in made["a"] and "_hidden" not in made["a"]
    assert "{py:class} Box(side: int=1)" in made["b"].replace(" = ", "=")


@pytest.fixture
def few_pages(tmp_path) -> Path:
    folder = tmp_path / "pages"
    (folder / "_static").mkdir(parents=True)
    (folder / "conf.py").write_bytes((HAND_WRITTEN / "conf.py").read_bytes())
    return folder


@pytest.mark.parametrize("mistake", ["[there](nowhere.md)", "$\\nonsense{x}$", "#### Too deep"])
def test_a_mistake_stops_the_build(few_pages, tmp_path, mistake):
    (few_pages / "index.md").write_text(f"# Home\n\n{mistake}\n")
    with pytest.raises(CourseError, match=r"the site has a mistake: index\.md"):
        _render(few_pages, tmp_path / "out", tmp_path / "doctrees")


def test_nothing_else_is_ever_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(course, ["site", "--out", str(tmp_path)])
    assert isinstance(done.exception, CourseError) and "no earlier site" in str(done.exception)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_earlier_site_stays_when_the_build_fails(tmp_path, monkeypatch):
    out = tmp_path / "site"
    out.mkdir()
    (out / ".course-site").touch()
    (out / "index.html").write_text("earlier")

    def fails(*_):
        raise CourseError("the site has a mistake")

    monkeypatch.setattr("lib.course.commands.site._render", fails)
    with pytest.raises(CourseError):
        build([], out)
    assert (out / "index.html").read_text() == "earlier" and list(tmp_path.iterdir()) == [out]
