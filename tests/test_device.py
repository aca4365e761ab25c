"""Presets, devices and threads."""

import time

import pytest
import torch

from lib.device import ceilings, describe, generator, pick_device, resolve_preset, seconds, spare_cores, threads
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


@pytest.mark.parametrize(("said", "cores"), [("3", 3), (" 4,2", 4), ("", None), ("x", None), ("0", None), ("-1", None),
                                             ("9" * 30, None)])  # fmt: skip
def test_cores_that_may_be_kept_busy(monkeypatch, said, cores):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert spare_cores(torch.device("cpu")) == cores or (cores is None and spare_cores(torch.device("cpu")) in (1, 2))
    assert spare_cores(torch.device("meta")) == 1


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**40, "7", None])
def test_a_seed_that_is_no_number_of_64_bits(seed):
    with pytest.raises(CourseError, match="a seed is a whole number of at most 64 bits"):
        generator(seed)
    assert generator(2**64 - 1).initial_seed() == 2**64 - 1 and generator(-1).initial_seed() == 2**64 - 1


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert describe()["device"] == pick_device().type


def test_seconds_is_a_median_without_the_first_call():
    naps = iter([0.2, 0.01, 0.01, 0.01, 0.3, 0.01])
    assert 0.01 <= seconds(lambda: time.sleep(next(naps)), torch.device("cpu")) < 0.1
    assert next(naps, None) is None


def test_the_card_that_is_timed_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    seconds(lambda: None, torch.device("cuda:1"), repeats=1)
    assert waited == [torch.device("cuda:1")] * 4


def test_ceilings_are_what_a_product_and_a_copy_reach():
    with threads(1):
        flops, bandwidth = ceilings(torch.device("cpu"), n=256)
        a = torch.randn(256, 256)
        again = 2 * 256**3 / seconds(lambda: a @ a, torch.device("cpu"), 20)
    assert 0.1 < flops / again < 10 and 1e8 < bandwidth < 1e13
