"""What a lesson prints and keeps: start, predict, reveal, calibration."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.errors import CourseError
from lib.lesson import predictions, series, session

ANSWERS = {"a": "it grows", "b": "it shrinks"}


@pytest.fixture
def lesson(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "02_attention.ipynb").write_text('{"cells": []}')
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    threads = torch.get_num_threads()
    yield session.start("02", "cpu", 0)
    torch.set_num_threads(threads)


def again(capsys):
    """The same lesson in another kernel: only what was kept is known."""
    renewed = session.start("02", "cpu", 0)
    capsys.readouterr()
    return renewed


def test_start_prints_one_stable_line(lesson, capsys):
    assert capsys.readouterr().out == "Lesson 02, attention: preset cpu.\n"
    assert (lesson.preset, lesson.seed, lesson.device.type) == ("cpu", 0, "cpu")
    assert torch.get_num_threads() == 1
    assert lesson.pick(smoke=1, cpu=2) == 2


def test_start_seeds_torch(lesson):
    first = (session.start("02", "smoke", 7), torch.rand(3))[1]
    second = (session.start("02", "smoke", 7), torch.rand(3))[1]
    assert torch.equal(first, second)


def test_threads_can_be_asked_for(lesson, monkeypatch):
    monkeypatch.setenv("COURSE_THREADS", "2")
    session.start("02", "cpu")
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("COURSE_THREADS", "9" * 25)
    with pytest.raises(CourseError, match="COURSE_THREADS='9"):
        session.start("02", "cpu")
    monkeypatch.setenv("COURSE_THREADS", "many")
    with pytest.raises(CourseError, match="COURSE_THREADS='many'"):
        session.start("02", "cpu")


@pytest.mark.parametrize(
    "number, preset, seed, says",
    [("02", "cup", 0, "unknown preset 'cup'"), ("77", "cpu", 0, "unknown lesson"), ("02", "cpu", "x", "whole number")],
)
def test_start_refuses_in_one_line(lesson, number, preset, seed, says):
    with pytest.raises(CourseError, match=says):
        session.start(number, preset, seed)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_preset_gpu_without_one(lesson):
    with pytest.raises(CourseError, match="preset gpu needs"):
        session.start("02", "gpu")


def test_start_silences_transformers_before_it_is_there():
    script = (
        "import os, sys, lib.lesson.session\n"
        "assert 'transformers' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "print(os.environ['HF_HUB_OFFLINE'], os.environ['TRANSFORMERS_VERBOSITY'])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "error"] and not ran.stderr


def test_nothing_guessed(lesson, capsys):
    lesson.predict("width", "And then?", ANSWERS)
    lesson.reveal("width", "b")
    lesson.calibration()
    out = capsys.readouterr().out
    assert "Predict: And then?" in out and "  a) it grows" in out and 'guess="a"' in out
    assert "Outcome: b) it shrinks" in out and "You guessed" not in out
    assert "no predictions yet" in out


def test_a_guess_is_kept_and_judged(lesson, capsys):
    lesson.predict("width", "And then?", ANSWERS, guess="a", sure=80)
    later = again(capsys)
    later.predict("width", "And then?", ANSWERS)
    later.reveal("width", "b")
    assert "Your guess: a, 80% sure." in (out := capsys.readouterr().out)
    assert "You guessed a, 80% sure: not this time." in out


def test_the_first_guess_counts(lesson, capsys):
    lesson.predict("width", "And then?", ANSWERS, guess="a", sure=80)
    lesson.predict("width", "And then?", ANSWERS, guess="b", sure=60)  # before the outcome one may think again
    lesson.reveal("width", "a")
    lesson.predict("width", "And then?", ANSWERS, guess="a", sure=100)
    assert "your first guess stays: b, 60% sure" in capsys.readouterr().out
    assert predictions.load("02")["width"].right is False


@pytest.mark.parametrize("guess, sure, says", [("z", 50, "not an option"), ("a", 120, "0 to 100"), ("a", "?", "0 to")])
def test_a_guess_that_is_none(lesson, capsys, guess, sure, says):
    lesson.predict("width", "And then?", ANSWERS, guess=guess, sure=sure)
    assert says in capsys.readouterr().out
    assert predictions.load("02") == {}


def test_reveal_needs_its_question(lesson):
    with pytest.raises(CourseError, match="run the cell that asks first"):
        lesson.reveal("width", "a")
    lesson.predict("width", "And then?", ANSWERS)
    with pytest.raises(CourseError, match="not one of a, b"):
        lesson.reveal("width", "c")


@pytest.mark.parametrize("text", ["{", "[1]", '{"width": 3}', '{"width": {"guess": 1}}', '{"width": {"hat": 1}}'])
def test_a_damaged_file_is_set_aside_not_lost(lesson, capsys, text):
    lesson.predict("width", "And then?", ANSWERS, guess="a")
    path = predictions.home() / "guesses" / "02.json"
    for n in (1, 2):
        path.write_text(text)
        capsys.readouterr()
        assert predictions.load("02") == {}
        assert len(capsys.readouterr().out.splitlines()) == 1
        assert path.with_suffix(f".damaged-{n}").read_text() == text
        assert not path.exists()


def test_guesses_that_cannot_be_read_now_cost_one_line_and_stay(lesson, capsys, monkeypatch):
    def stale(*_, **__):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    lesson.predict("width", "And then?", ANSWERS, guess="a")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        again = session.Lesson("02", "cpu", 0, torch.device("cpu"))
        told = capsys.readouterr().out
        assert told.count("\n") == 1 and "Your guesses for lesson 02 cannot be read" in told
        again.predict("height", "And then?", ANSWERS, guess="b")
        assert "Your guess is not kept" in capsys.readouterr().out
    assert set(predictions.load("02")) == {"width"}


def test_a_home_that_cannot_be_written_costs_one_line(lesson, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file"))
    lesson.predict("width", "And then?", ANSWERS, guess="a", sure=50)
    lesson.reveal("width", "a")
    out = capsys.readouterr().out
    assert "set COURSE_HOME" in out and "You guessed a, 50% sure: right." in out


def test_calibration_in_words():
    def many(right, wrong, sure):
        return [predictions.Guess("a", sure, True)] * right + [predictions.Guess("a", sure, False)] * wrong

    told = predictions.summary(many(3, 3, 0.9))
    assert "right in 3 of 6" in told and "90% sure on average, 50% right" in told and "more sure than right" in told
    assert "Brier score 0.41" in told
    assert "well calibrated" in predictions.summary(many(4, 1, 0.8))
    assert "more right than you dared" in predictions.summary(many(5, 0, 0.5))
    assert "too few" in predictions.summary(many(1, 0, 0.5))
    assert "Brier" not in predictions.summary(many(1, 1, None))
