"""Presets, devices and threads."""

import pytest
import torch

from lib.device import describe, pick_device, resolve_preset, threads
from lib.errors import CourseError


def test_presets(monkeypatch):
    monkeypatch.delenv("COURSE_PRESET", raising=False)
    assert resolve_preset() == ("gpu" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("COURSE_PRESET", "smoke")
    assert resolve_preset("auto") == "smoke"
    assert resolve_preset("cpu") == "cpu"
    with pytest.raises(CourseError, match="Did you mean 'smoke'"):
        resolve_preset("smok")


@pytest.mark.parametrize(
    ("name", "says"), [("tpu", "unknown device"), ("cpu:x", "unknown device"), ("cuda:99", "device")]
)
def test_a_device_that_is_not_there(name, says):
    with pytest.raises(CourseError, match=says):
        pick_device(name)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert describe()["device"] == pick_device().type
