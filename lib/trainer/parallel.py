"""Several processes, one model: each reads its share of every batch, then all add up their gradients.

torchrun starts the processes and tells each its rank. Either every process holds the whole model and takes the same
step, so the weights stay equal without ever being sent again (data parallelism). Or, for a model that outgrows one
device, every weight is cut: a process keeps its share of it, of its gradient and of the optimizer's averages, and a
layer is whole only while it works (ZeRO, Rajbhandari et al. 2020; PyTorch's FSDP2).
"""

import contextlib
import datetime
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lib.errors import CourseError
from lib.trainer.history import History
from lib.trainer.part import Part


@dataclass(frozen=True)
class Team:
    """The processes that train one model, as one of them sees it. Alone by default."""

    rank: int = 0
    size: int = 1
    sharded: bool = False  # whether the weights are cut between them

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

    def total(self, value: float, device: torch.device) -> float:
        """The sum of everybody's numbers."""
        if self.size == 1:
            return value
        everyone = torch.tensor([value], dtype=torch.float64, device=device)  # (1,)
        self.add_up([everyone])
        return everyone.item()

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

    def meet(self) -> None:
        """Wait until everybody is here. torchrun ends them all as soon as one has left with an error's status."""
        if self.size > 1:
            dist.barrier()

    def place(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Put a model with `blocks`, the same in every process, on this one's device: whole or, if sharded, cut.

        The cut happens in place and block by block, so the device never holds all of it. From then on every process
        must take part in each forward and backward pass. Nothing is held twice, so there is nobody to `follow`.
        """
        if not self.sharded:
            return model.to(device)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (self.size,))
        for part in (*model.blocks, model):  # the model last: what no block holds, the embedding first of all
            fully_shard(part, mesh=mesh, reshard_after_forward=True)  # and so `parameters` are always the shares
            part.set_gradient_divide_factor(1.0)  # a sum, not a mean: the losses are weighted by rows already
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
        return model

    @torch.no_grad()
    def gather(self, model: nn.Module, ordinary: nn.Module | None) -> None:
        """Copy the weights of a model that is cut into the leader's ordinary one. All must call this."""
        for name, p in model.named_parameters():
            weight = whole(p)
            if self.leader:
                ordinary.get_parameter(name).copy_(weight)


ALONE = Team()


def is_cut(tensor: Tensor) -> bool:
    """Whether a process holds a share of the tensor alone: a DTensor, whose import takes half a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. If it is cut, all processes must call this, and each gets a copy."""
    return tensor.full_tensor() if is_cut(tensor) else tensor


def cut(tensor: Tensor, like: Tensor) -> Tensor:
    """On `like`'s device: this process's share of a whole tensor if `like` is cut, otherwise all of it."""
    tensor = tensor.to(like.device)
    if not is_cut(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)  # nothing is sent


class Together(Part):
    """A run's part where a team trains: each process reads its share of every batch, and all add up their gradients.

    watch(done, loss) is called after each step; if it is true in one process, all leave together after the next.
    Raises CourseError if the team is larger than a batch of `config` (a lib.training.TrainConfig).
    """

    def __init__(self, team: Team, model: nn.Module, config, watch: Callable[[int, Tensor], object]):
        if team.size > config.batch_size:
            raise CourseError(
                f"{team.size} processes cannot share a batch of {config.batch_size} rows; "
                f"start at most {config.batch_size} processes or use a larger batch_size"
            )
        rows = team.share(config.batch_size)
        self.share = (rows.stop - rows.start) / config.batch_size
        self.team, self.watch, self.tired, self.leaving = team, watch, False, False
        self.held = [p for p in model.parameters() if not is_cut(p)]  # by every process; of a model that is cut, none

    def begin(self, history: History) -> None:
        self.team.agree(history.step, "the step to go on from")
        self.team.follow(self.held)

    def before(self, step: int) -> None:
        torch.manual_seed(torch.initial_seed() + (self.team.rank << 48))  # each draws its own dropout

    def weigh(self, loss: Tensor) -> Tensor:
        return loss * self.share  # a mean over this process's rows, weighted by how many they are

    def gradients(self, loss: Tensor) -> None:
        votes = torch.tensor([float(self.tired)], device=loss.device)  # (1,)
        self.team.add_up([p.grad for p in self.held] + [loss, votes])  # cut gradients were added up on the way back
        self.leaving = votes.item() > 0

    def after(self, done: int, loss: Tensor, ending: bool = False) -> bool:
        self.tired = bool(self.watch(done, loss))  # the others hear of it with the next gradients
        return self.leaving or ending


def torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def processes() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if torchrun() else 1


def restarts() -> int:
    """How often torchrun has started the team anew after a worker died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextlib.contextmanager
def join(device: torch.device, sharded: bool = False) -> Iterator[tuple[Team, torch.device]]:
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
        yield Team(rank, size, sharded), device
    finally:
        dist.destroy_process_group()
