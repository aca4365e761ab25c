"""Choices held against situations: each sum by hand, every scenario solvable, none so easy that all passes."""

import dataclasses

import pytest

from lib.decide import scenarios
from lib.decide.evaluation import examples_needed
from lib.decide.scenarios import (
    HOW,
    WHERE,
    Choice,
    answer_seconds,
    cache_bytes,
    consistent,
    describe,
    from_plain,
    memory,
    monthly,
    problems,
    scenario,
    shelf,
)
from lib.errors import CourseError

NAMES = list(shelf().scenarios)
LLAMA, LAPTOP = shelf().models["llama-8b"], shelf().devices["laptop"]


def about(choice, given):
    return [problem.about for problem in problems(choice, given)]


def test_the_sums_by_hand():
    """Llama 3.1 8B: 16.06 GB in 16 bits; its cache 131,072 bytes a token (32 layers, 8 heads of 128, K and V)."""
    assert cache_bytes(LLAMA, 1) == 131_072 and cache_bytes(LLAMA, 8192) == 2**30
    assert memory(LLAMA, 16, 0) == pytest.approx(16.06e9, rel=1e-3)
    assert memory(LLAMA, 4, 1000, batch=8) == pytest.approx(LLAMA.params / 2 + 8 * 131_072_000)
    reading, token = 2 * LLAMA.params * 100 / 2e11, (2 * LLAMA.params + 131_072 * 110) / 2e10
    assert answer_seconds(LLAMA, LAPTOP, 16, 100, 10) == pytest.approx(reading + 10 * token)
    crowd = answer_seconds(LLAMA, LAPTOP, 16, 0, 1, batch=64)
    assert crowd == pytest.approx(2 * LLAMA.params * 64 / 2e11), "with many at once the arithmetic is the bound"
    shop = scenario("shop")
    assert monthly(LLAMA, shop, "house") == pytest.approx(36) and monthly(LLAMA, shop, "hosted") == pytest.approx(8.52)


def test_parameters_are_those_published():
    assert [model.params for model in shelf().models.values()][1:] == [134515008, 1711376384, 8030261248, 70553706496]


def test_at_least_twelve_scenarios_each_with_a_way_through_and_wrong_ones():
    assert len(NAMES) >= 12
    ways = {}
    for name in NAMES:
        given = scenario(name)
        test = examples_needed(given.share, given.share + given.gap, given.disagree)
        good = consistent(given)
        everything = [Choice(m, h, w, test) for m in shelf().models for h in HOW for w in WHERE]
        assert good and any(problems(choice, given) for choice in everything), name
        ways[name] = frozenset((choice.model, choice.where) for choice in good)
    assert len(set(ways.values())) >= 6, "the scenarios differ in what they allow"


def test_each_model_fits_somewhere_and_only_the_smallest_off_the_shelf_everywhere():
    fits = {model: [any(choice.model == model for choice in consistent(scenario(name))) for name in NAMES]
            for model in shelf().models}  # fmt: skip
    assert all(map(any, fits.values()))
    assert [model for model, where in fits.items() if all(where)] == ["smollm2-135m"]


RIGHT = {
    "ward": Choice("llama-8b", "fine-tune", "house", 300),
    "archive": Choice("smollm2-1.7b", "prompt", "house", 1000),
}


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("ward", {"where": "hosted"}, ["privacy"]),
        ("ward", {"model": "llama-70b", "bits": 4}, ["memory"]),
        ("ward", {"batch": 1, "test": 200}, ["test"]),
        ("ward", {"test": 600}, ["examples"]),
        ("ward", {"how": "prompt", "test": 601}, ["examples"]),
        ("ward", {"how": "from scratch"}, ["data"]),
        ("ward", {"model": "specialist-2m"}, ["data"]),
        ("ward", {"model": "specialist-2m", "how": "from scratch"}, ["data"]),
        ("archive", {"model": "llama-70b", "where": "hosted"}, ["cost"]),
        ("archive", {"model": "smollm2-135m", "where": "hosted"}, ["cost"]),
    ],
)
def test_each_contradiction_is_found_and_alone(name, change, what):
    assert about(RIGHT[name], scenario(name)) == []
    found = problems(dataclasses.replace(RIGHT[name], **change), scenario(name))
    assert [problem.about for problem in found] == what
    assert all("\n" not in problem.says for problem in found)


def test_time():
    slow = dataclasses.replace(scenario("ward"), seconds=1)
    assert about(RIGHT["ward"], slow) == ["latency"]
    crowded = dataclasses.replace(scenario("ward"), requests=100_000)
    assert about(RIGHT["ward"], crowded) == ["capacity"]
    many = dataclasses.replace(RIGHT["ward"], batch=64)
    assert about(many, dataclasses.replace(crowded, requests=10_000)) == ["memory"]
    open_topics = dataclasses.replace(scenario("factory"), topics="open")
    assert about(Choice("specialist-2m", "from scratch", "house", 800), open_topics) == ["breadth"]


def test_a_card_says_all_that_is_given():
    for name in NAMES:
        card = describe(scenario(name))
        assert name in card and f"{scenario(name).requests:,}" in card and max(map(len, card.splitlines())) < 150


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(model="gpt-5", how="prompt", where="house", test=1), "model is one of specialist-2m"),
        (dict(model="llama-8b", how="hope", where="house", test=1), "how is one of"),
        (dict(model="llama-8b", how="prompt", where="moon", test=1), "where is one of"),
        (dict(model="llama-8b", how="prompt", where="house", test=-1), "test is a whole number"),
        (dict(model="llama-8b", how="prompt", where="house", test=1.5), "test is a whole number"),
        (dict(model="llama-8b", how="prompt", where="house", test=1, bits=3), "bits is one of"),
        (dict(model="llama-8b", how="prompt", where="house", test=1, batch=0), "batch is a whole number"),
        (dict(model=["llama-8b"], how="prompt", where="house", test=1), "model is one of"),
        (dict(model="llama-8b"), "a choice has model"),
        (dict(model="llama-8b", how="prompt", where="house", test=1, luck=1), "a choice has model"),
        ("llama-8b", "a choice is a dictionary"),
    ],
)
def test_bad_choices_are_one_clear_line(fields, says):
    with pytest.raises(CourseError, match=says):
        from_plain(fields)


def test_an_unknown_scenario_is_told_the_known_ones():
    with pytest.raises(CourseError, match="no scenario 'moon'; there are ward"):
        scenario("moon")


@pytest.mark.parametrize("text", ["", "model = 3", "[model]\nx = { params = 1 }\n[device]\n[scenario]\n[per_million]"])
def test_a_damaged_file(tmp_path, text):
    (tmp_path / "scenarios.toml").write_text(text)
    with pytest.raises(CourseError, match="is damaged"):
        scenarios.shelf(tmp_path / "scenarios.toml")
