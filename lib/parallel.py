"""Several processes, one model: each reads its share of every batch, then all add up their gradients.

torchrun starts the processes and tells each its rank. Every process holds the whole model and takes the same step,
so the weights stay equal without ever being sent again (data parallelism).
"""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from lib.errors import CourseError


@dataclass(frozen=True)
class Team:
    """The processes that train one model, as one of them sees it. Alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def leader(self) -> bool:
        """The one process that prints and writes files."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Which of a batch's rows are this process's: all are somebody's, and shares differ by one row at most."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor the sum of everybody's. All travel in one message: a message costs more than bytes."""
        if self.size == 1:
            return
        flat = torch.cat([t.detach().flatten() for t in tensors])  # (n,)
        dist.all_reduce(flat)
        for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.detach().copy_(total.view_as(t))

    def follow(self, tensors: Sequence[Tensor]) -> None:
        """Put the leader's values into everybody's tensors."""
        if self.size > 1:
            for t in tensors:
                dist.broadcast(t.detach(), 0)

    def agree(self, value: int, what: str) -> None:
        """Raise CourseError in every process unless all hold the same value."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise CourseError(
                f"the processes disagree on {what} ({', '.join(map(str, sorted(set(values))))}); "
                f"give all of them the same files and options"
            )


ALONE = Team()


def torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarts() -> int:
    """How often torchrun has started the team anew after a worker died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """Meet the other processes that torchrun started: (team, this process's device). Without torchrun, alone.

    gloo carries the numbers between CPUs, NCCL between GPUs, of which each process takes one. Raises CourseError
    if a machine has fewer GPUs than processes.
    """
    if not torchrun():
        yield ALONE, device
        return
    if device.type == "cuda":
        local, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= cards:
            raise CourseError(f"this machine has {cards} GPU(s) and more processes; use --nproc-per-node {cards}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif device.type == "mps":
        device = torch.device("cpu")  # no library carries gradients between processes on Apple's GPU
    if os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"]:  # one machine: it need not have a network
        for name in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(dist.rendezvous("env://"))
    # After a restart the same store still holds the addresses of the dead: each life of the team has its own page.
    store = dist.PrefixStore(f"life {restarts()}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=datetime.timedelta(minutes=10))
    try:
        yield Team(rank, size), device
    finally:
        dist.destroy_process_group()
