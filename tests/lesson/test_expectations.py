"""Bands: how they are made from seeds, what a learner reads, and what is refused."""

import json
import math

import pytest

from lib.errors import CourseError
from lib.lesson import expectations
from lib.lesson.expectations import Claim

CLAIM = Claim("02.recall", "recall accuracy", margin=0.02, digits=2, low=0.0, high=1.0)


def lines(*values, id="02.recall", **changes):
    line = {"id": id, "what": "recall accuracy", "margin": 0.02, "digits": 2, "low": 0.0, "high": 1.0}
    line |= {"preset": "cpu", "device": "cpu", "machine": "any CPU"} | changes
    return {seed: [line | {"value": value}] for seed, value in enumerate(values)}


@pytest.fixture
def bands(tmp_path, monkeypatch):
    path = tmp_path / "expectations.json"
    monkeypatch.setattr(expectations, "BANDS", path)
    return path


def test_a_band_is_rounded_outwards_and_stays_possible():
    assert CLAIM.band([0.97, 0.981]) == (0.95, 1.0)
    assert CLAIM.band([0.005]) == (0.0, 0.03)
    assert Claim("x", "loss", 0.0, 2).band([1.557, 1.601]) == (1.55, 1.61)
    assert Claim("x", "loss", 0.0, 2).band([0.97]) == (0.97, 0.97)  # 0.97 * 100 is a hair under 97
    assert Claim("x", "ratio", 1.0, 0).band([-2.4]) == (-4.0, -1.0)


def test_verdict(bands):
    expectations.update("02", "cpu", lines(0.90, 0.94), 9.0, "CPU")
    tell = expectations.verdict
    assert tell(CLAIM, 0.91, "cpu", "cpu") == "recall accuracy: within 0.88 to 0.96: yes"
    assert tell(CLAIM, 0.961, "cpu", "cpu") == "recall accuracy: within 0.88 to 0.96: no, it is 0.96"
    assert tell(CLAIM, 0.5, "cpu", "cpu").endswith("no, it is 0.50")
    assert "no, it is nan" in tell(CLAIM, math.nan, "cpu", "cpu")
    assert tell(CLAIM, 0.9, "smoke", "cpu") == "recall accuracy: not checked under smoke"
    assert tell(CLAIM, 0.9, "gpu", "cuda") == "recall accuracy: no band for preset gpu yet"
    assert tell(CLAIM, 0.9, "cpu", "mps") == "recall accuracy: no band for preset cpu on mps yet"


def test_the_file_says_how_it_was_measured(bands):
    expectations.update("02", "cpu", lines(0.90, 0.94), 9.04, "CPU, 2 cores")
    expectations.update("02", "gpu", lines(0.99, device="cuda", machine="a card"), 3.0, "a card")
    kept = json.loads(bands.read_text())
    assert kept["seconds"]["02"]["cpu"] == {"seconds": 9.0, "machine": "CPU, 2 cores"}
    assert expectations.seconds("02", "gpu") == 3.0 and expectations.seconds("03", "cpu") is None
    claim = kept["claims"]["02.recall"]
    assert (claim["what"], claim["lesson"], claim["margin"]) == ("recall accuracy", "02", 0.02)
    assert claim["presets"]["cpu"] == {
        "device": "cpu",
        "machine": "any CPU",
        "seeds": [0, 1],
        "values": [0.9, 0.94],
        "mean": 0.92,
        "band": [0.88, 0.96],
        "command": "course measure 02 --preset cpu --seeds 0,1",
    }
    assert claim["presets"]["gpu"]["device"] == "cuda"


def test_only_the_measured_lesson_and_preset_change(bands):
    expectations.update("01", "cpu", lines(0.5, id="01.kept"), 1, "CPU")
    expectations.update("02", "cpu", lines(0.5, id="02.old"), 1, "CPU")
    expectations.update("02", "gpu", lines(0.5, id="02.old"), 1, "GPU")
    expectations.update("02", "cpu", lines(0.5, id="02.new"), 1, "CPU")
    claims = expectations.load()
    assert list(claims) == ["01.kept", "02.new", "02.old"]
    assert list(claims["02.old"]["presets"]) == ["gpu"]
    expectations.update("02", "smoke", {0: []}, 1, "CPU")  # smoke makes no claims, so it drops none
    assert list(expectations.load()) == ["01.kept", "02.new", "02.old"]


def test_claims_of_other_parameters_live_beside_the_rest(bands):
    both = {0: [*lines(0.5)[0], *lines(0.9, id="02.long")[0]]}
    expectations.update("02", "cpu", lines(0.7), 9.0, "CPU")
    [entry] = expectations.update("02", "cpu", both, 99.0, "CPU", extra=" -p steps 900")
    assert entry["id"] == "02.long"  # the other claim has its own measurement, with the lesson's own parameters
    assert entry["presets"]["cpu"]["command"] == "course measure 02 --preset cpu --seeds 0 -p steps 900"
    assert expectations.seconds("02", "cpu") == 9.0
    expectations.update("02", "cpu", lines(0.8), 8.0, "CPU")
    claims = expectations.load()
    assert claims["02.recall"]["presets"]["cpu"]["mean"] == 0.8 and claims["02.long"]["presets"]["cpu"]["mean"] == 0.9
    expectations.update("02", "cpu", {0: lines(0.95, id="02.long")[0]}, 99.0, "CPU", extra=" -p steps 1000")
    assert expectations.load()["02.long"]["presets"]["cpu"]["mean"] == 0.95
    assert list(expectations.load()) == ["02.long", "02.recall"]


def test_a_claim_can_be_quoted_where_it_is_not_checked(bands):
    expectations.update("02", "cpu", lines(0.90, 0.94), 9.0, "CPU")
    assert expectations.quoted("02.recall") == [
        "recall accuracy: 0.92 when we measured it under cpu (0.88 to 0.96 is normal) with: "
        "course measure 02 --preset cpu --seeds 0,1"
    ]
    assert expectations.quoted("02.unknown") == ["02.unknown: not measured yet"]
    assert expectations.quoted("02.recall", "cpu") == expectations.quoted("02.recall")
    assert expectations.quoted("02.recall", "gpu") == ["02.recall: not measured yet under gpu"]


def test_what_is_refused_leaves_the_file_alone(bands):
    expectations.update("02", "cpu", lines(0.5), 1, "CPU")
    before = bands.read_text()
    with pytest.raises(CourseError, match=r"seed 1 made other claims than the first seed: 02\.recall"):
        expectations.update("02", "cpu", lines(0.5) | {1: []}, 1, "CPU")
    with pytest.raises(CourseError, match=r"02\.recall is nan with seed 1"):
        expectations.update("02", "cpu", lines(0.5, math.nan), 1, "CPU")
    assert bands.read_text() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"claims": {}}', '{"seconds": {}, "claims": 3}'])
def test_a_damaged_file_is_one_line(bands, text):
    bands.write_text(text)
    with pytest.raises(CourseError, match=f"damaged; restore .* `git -C {bands.parent} checkout -- {bands.name}`$"):
        expectations.load()


def test_a_file_that_cannot_be_read_is_not_called_damaged(bands):
    bands.mkdir()
    with pytest.raises(CourseError, match=f"^cannot read {bands}: Is a directory$"):
        expectations.load()


def test_values_are_recorded_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_RECORD", raising=False)
    expectations.record(CLAIM, 0.5, "cpu", "cpu", "any CPU")
    monkeypatch.setenv("COURSE_RECORD", str(tmp_path / "record"))
    assert expectations.recorded(tmp_path / "record") == []
    expectations.record(CLAIM, 1 / 3, "cpu", "cpu", "any CPU")
    [line] = expectations.recorded(tmp_path / "record")
    assert line["value"] == 1 / 3 and line["id"] == "02.recall"


def test_the_committed_bands_are_sound():
    for id, entry in expectations.load().items():
        assert id.startswith(f"{entry['lesson']}.")
        for preset, measured in entry["presets"].items():
            low, high = measured["band"]
            assert low <= min(measured["values"]) <= measured["mean"] <= max(measured["values"]) <= high, (id, preset)
            assert len(measured["seeds"]) == len(measured["values"])
