"""Headline claims: each beside a rival that was measured, none typed twice, and shown in its lesson."""

import json

import pytest

from lib.course.website.pages import claims_page
from lib.errors import CourseError
from lib.lesson import claims, series

GOOD = """[[claim]]
id = "02.recall"
lesson = "02"
says = "Attention recalls."
refuted_by = "An average that recalls."
rival = "A plain average."
claim = "02.attention"
against = ["02.average", "02.gru"]
"""


def band(*values, what="recall"):
    of = {"device": "cpu", "machine": "any CPU", "seeds": list(range(len(values))), "values": list(values),
          "mean": sum(values) / len(values), "band": [0, 1], "command": "course measure 02"}  # fmt: skip
    return {"lesson": "02", "what": what, "margin": 0.1, "digits": 2, "presets": {"cpu": of}}


@pytest.fixture
def loaded(tmp_path):
    """Reads claims from a text, beside a few bands."""
    bands = {"02.attention": band(0.9, 1.0, 0.98), "02.average": band(0.125, 0.125, 0.125, what="average"),
             "02.gru": band(0.4, 0.3, 0.36, 0.46), "02.few": band(0.4, 0.3)}  # fmt: skip
    (tmp_path / "bands.json").write_text(json.dumps({"seconds": {}, "claims": bands}))

    def load(text):
        (tmp_path / "claims.toml").write_text(text, encoding="utf-8")
        return claims.load(tmp_path / "claims.toml", tmp_path / "bands.json")

    return load


def test_a_claim_has_its_own_figures_and_its_rivals(loaded):
    [(headline, own, (average, gru))] = loaded(GOOD)
    assert (headline.id, headline.changed) == ("02.recall", "")
    assert str(own) == "0.96 (0.90 to 1.00)" and own.seeds == (0, 1, 2)
    assert str(average) == "0.12" and average.what == "average"
    assert str(gru) == "0.38 (0.30 to 0.46)" and gru.command == "course measure 02"


WRONG = {
    "unknown band": (GOOD.replace("02.gru", "02.lstm"), "names the band '02.lstm', which is not measured"),
    "unknown band of its own": (GOOD.replace('"02.attention"', '"02.none"'), "names the band '02.none'"),
    "two seeds": (GOOD.replace("02.gru", "02.few"), "02.few has 2 seeds, not 3 or more"),
    "no rival": (GOOD.replace("rival = ", "changed = "), "lacks a rival"),
    "an empty rival": (GOOD.replace('"A plain average."', '" "'), "lacks a rival"),
    "no rival's band": (GOOD.replace('["02.average", "02.gru"]', "[]"), "lacks a rival's band"),
    "a rival's band that is no list": (GOOD.replace('["02.average", "02.gru"]', '"02.gru"'), "lacks a rival's band"),
    "nothing that would refute it": (GOOD.replace("refuted_by", "changed"), "lacks the field 'refuted_by'"),
    "its own rival": (GOOD.replace("02.gru", "02.attention"), "is its own rival"),
    "a typed figure": (GOOD + "seeds = 5\n", "has a field 'seeds'"),
    "another lesson's": (GOOD.replace('lesson = "02"', 'lesson = "03"'), "is not of lesson '03'"),
    "twice": (GOOD + GOOD, "comes twice"),
    "changed by a number": (GOOD + "changed = 3\n", "'changed' is a text"),
    "no id": (GOOD.replace('id = "02.recall"\n', ""), "an entry without an id lacks the field 'id'"),
    "no list": ('claim = "x"\n', "[[claim]]"),
    "no TOML": ("[[claim\n", "is no list of [[claim]] tables"),
    "nothing": ("", "is no list of [[claim]] tables"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_line(kind, loaded):
    text, says = WRONG[kind]
    with pytest.raises(CourseError) as problem:
        loaded(text)
    assert says in str(problem.value) and "\n" not in str(problem.value)


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(CourseError, match="cannot read"):
        claims.load(tmp_path / "none.toml")


TOLD = claims.load()


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told[0].id)
def test_the_lesson_shows_the_rival_beside_the_claim(told):
    headline, own, rivals = told
    [lesson] = [each for each in series.series() if each.number == headline.lesson]
    shown = "\n".join(series.source({"source": output.get("text", "")})
                      for cell in lesson.notebook["cells"] for output in cell.get("outputs", []))  # fmt: skip
    for measured in (own, *rivals):
        assert f"{measured.what}: " in shown, f"lesson {headline.lesson} doesn't print this band"


def test_the_page_has_every_claim():
    page = claims_page(series.series())
    assert page.count("*Refuted by:*") == len(TOLD)
    for headline, own, rivals in TOLD:
        assert str(own) in page and all(str(each) in page for each in rivals)
        assert f"`{own.command}`" in page and headline.lesson in page
