"""Where the numbers live: presets, devices, threads and seeds."""

import contextlib
import difflib
import os
import platform
from collections.abc import Iterator

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


def seed_everything(seed: int) -> None:
    """Seed torch on every device. Library code takes its own generators; this is for model initialisation."""
    torch.manual_seed(seed)


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
