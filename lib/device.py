"""Where the numbers live: presets, devices, threads and seeds."""

import contextlib
import difflib
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from lib.errors import CourseError

PRESETS = ("smoke", "cpu", "gpu")


def resolve_preset(name: str = "auto") -> str:
    """The preset to run: `auto` is `gpu` where CUDA is found, else `cpu`; COURSE_PRESET overrides `auto`."""
    if name == "auto":
        name = os.environ.get("COURSE_PRESET", "auto")
    if name == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), [*PRESETS, "auto"], n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise CourseError(f"unknown preset {name!r}; choose auto, smoke, cpu or gpu.{guess}")
    return name


def pick_device(name: str = "auto") -> torch.device:
    """A torch device that exists here. `auto` prefers CUDA, then Apple's MPS, then the CPU.

    Raises CourseError for a device this machine does not have.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    kind = str(name).split(":")[0]
    if kind not in there:
        raise CourseError(f"unknown device {name!r}; choose auto, cpu, cuda or mps")
    if not there[kind]:
        have = ", ".join(device for device, here in there.items() if here)
        raise CourseError(f"this machine has no {kind!r} device (it has: {have}); use device auto or cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CourseError(f"unknown device {name!r}; write for example cuda:0") from None
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CourseError(f"no device {name!r}; this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Run a block on n CPU threads. Small tensors are fastest on one; the 135M model can use more."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def spare_cores(device: torch.device) -> int:
    """How many cores the 135M model may keep busy: OMP_NUM_THREADS, else two at most; one beside a GPU."""
    if device.type != "cpu":
        return 1
    asked = re.match(r"\s*([1-9]\d{0,3})(?!\d)", os.environ.get("OMP_NUM_THREADS", ""))  # "4,2" is for nested teams
    return int(asked[1]) if asked else min(2, os.cpu_count() or 1)


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 5, of=statistics.median) -> float:
    """Wall time of work(), once it has run to warm up; a GPU is waited for. `of` picks from the repeats."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # not the current card, if that is another
        elif device.type == "mps":
            torch.mps.synchronize()

    taken = []
    for _ in range(repeats + 1):
        wait()
        began = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - began)
    return of(taken[1:])


def ceilings(device: torch.device, dtype: torch.dtype = torch.float32, n: int = 1024) -> tuple[float, float]:
    """What this machine reaches at best: (operations a second in a matrix product, bytes a second in a copy).

    n: side of the square matrices; a GPU needs 4,096 or more to be busy. The copy is far larger than any cache.
    """
    a = torch.randn(n, n, device=device).to(dtype)  # (n, n)
    flops = 2 * n**3 / seconds(lambda: a @ a, device, of=min)
    source = torch.ones(2**26 if device.type == "cuda" else 2**24, device=device)  # 256 or 64 MiB
    target = torch.empty_like(source)
    return flops, 2 * source.nbytes / seconds(lambda: target.copy_(source), device, of=min)  # read once, written once


def seed_everything(seed: int) -> None:
    """Seed torch on every device. Library code takes its own generators; this is for model initialisation."""
    torch.manual_seed(seed)


def generator(seed: int) -> torch.Generator:
    """The CPU's random numbers from a seed. Raises CourseError for one of more than 64 bits."""
    try:
        return torch.Generator().manual_seed(seed)
    except (RuntimeError, TypeError, ValueError):  # OverflowError is the last's
        raise CourseError(f"a seed is a whole number of at most 64 bits, not {str(seed)[:40]}") from None


def describe() -> dict[str, str]:
    """What this machine offers, in words, for the device report of lesson 00."""
    device = pick_device()
    report = {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "CPU": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "device": device.type,
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        report["GPU"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    return report
