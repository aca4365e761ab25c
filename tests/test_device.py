"""Presets, devices and threads."""

import os
import statistics
import time
from types import SimpleNamespace

import pytest
import torch

from lib import device as device_module
from lib.device import (
    ceilings,
    describe,
    generator,
    pick_device,
    resolve_preset,
    seconds,
    seed_everything,
    spare_cores,
    threads,
)
from lib.errors import CourseError


def test_presets(monkeypatch):
    monkeypatch.delenv("COURSE_PRESET", raising=False)
    assert resolve_preset() == ("gpu" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("COURSE_PRESET", "smoke")
    assert resolve_preset("auto") == "smoke"
    assert resolve_preset("cpu") == "cpu"
    with pytest.raises(CourseError, match="Did you mean 'smoke'"):
        resolve_preset("smok")
    with pytest.raises(CourseError, match=r"'xyz'; choose auto, smoke, cpu or gpu\.$"):
        resolve_preset("xyz")
    monkeypatch.delenv("COURSE_PRESET")
    for here, preset in ((True, "gpu"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=here: here)
        assert resolve_preset() == preset


def has(monkeypatch, cuda: int = 0, mps: bool = False):
    """A machine with so many CUDA cards, and Apple's or not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_the_best_device_is_picked(monkeypatch):
    for machine, best in ((dict(), "cpu"), (dict(mps=True), "mps"), (dict(cuda=1, mps=True), "cuda")):
        has(monkeypatch, **machine)
        assert pick_device() == pick_device("auto") == torch.device(best)
        assert pick_device("cpu") == torch.device("cpu")


def test_a_named_device(monkeypatch):
    has(monkeypatch, cuda=2)
    for name in ("cpu", "cpu:0", "cuda", "cuda:0", "cuda:1"):
        assert pick_device(name) == torch.device(name)
    with pytest.raises(CourseError, match=r"no device 'cuda:2'; this machine has 2 CUDA device\(s\)"):
        pick_device("cuda:2")
    with pytest.raises(CourseError, match=r"no 'mps' device \(it has: cpu, cuda\)"):
        pick_device("mps")
    has(monkeypatch, cuda=1)
    assert pick_device("cuda:0") == torch.device("cuda:0") and pick_device("cuda") == torch.device("cuda")


def test_spare_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for there, spare in ((1, 1), (2, 2), (16, 2), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda there=there: there)
        assert spare_cores(torch.device("cpu")) == spare and spare_cores(torch.device("cuda")) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert spare_cores(torch.device("cpu")) == 5 and spare_cores(torch.device("cuda")) == 1


def test_a_seed_is_a_seed():
    drawn = []
    for seed in (3, 3, 4):
        seed_everything(seed)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_report(monkeypatch):
    has(monkeypatch)
    report = describe()
    assert list(report) == ["Python", "PyTorch", "CPU", "device"]
    assert report["CPU"].startswith(f"{os.cpu_count()} cores, ")
    has(monkeypatch, cuda=1)
    card = SimpleNamespace(name="A card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert describe()["GPU"] == "A card, 80 GiB" and describe()["device"] == "cuda"


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
        with threads(2):
            assert torch.get_num_threads() == 2
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
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    seconds(lambda: waited.append("work"), torch.device("mps"), repeats=2)
    assert waited[4:] == ["mps", "work", "mps"] * 3


def test_times_by_a_clock_that_is_known(monkeypatch):
    clock = iter([0, 100, 100, 103, 200, 201, 300, 302])  # the first takes 100 s, then 3, 1 and 2
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert seconds(lambda: None, torch.device("cpu"), 3, of=sorted) == [1, 2, 3]
    defaults = seconds.__defaults__
    assert defaults == (5, statistics.median)


@pytest.mark.parametrize(("kind", "numbers"), [("cpu", 2**24), ("cuda", 2**26)])
def test_ceilings_count_what_a_product_does_and_a_copy_moves(monkeypatch, kind, numbers):
    made, real = [], torch.randn

    def fake(size, device):
        made.append((size, device.type))
        return SimpleNamespace(nbytes=4 * size)

    monkeypatch.setattr(torch, "randn", lambda *size, device: real(*size))
    monkeypatch.setattr(torch, "ones", fake)
    monkeypatch.setattr(torch, "empty_like", lambda tensor: None)
    monkeypatch.setattr(device_module, "seconds", lambda work, device, of: {min: 0.5}[of])
    flops, bandwidth = ceilings(torch.device(kind), n=8)
    assert flops == 2 * 8**3 / 0.5 and bandwidth == 2 * 4 * numbers / 0.5 and made == [(numbers, kind)]
    products = []
    monkeypatch.setattr(device_module, "seconds", lambda work, device, of: products.append(work) or 1.0)
    ceilings(torch.device(kind), torch.bfloat16)
    assert products[0]().dtype is torch.bfloat16 and products[0]().shape == (1024, 1024)


def test_ceilings_are_what_a_product_and_a_copy_reach():
    with threads(1):
        flops, bandwidth = ceilings(torch.device("cpu"), n=256)
        a = torch.randn(256, 256)
        again = 2 * 256**3 / seconds(lambda: a @ a, torch.device("cpu"), 20)
    assert 0.1 < flops / again < 10 and 1e8 < bandwidth < 1e13
