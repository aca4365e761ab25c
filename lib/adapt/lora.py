"""LoRA: a small addition to each matrix learns, while the matrix itself stays as it is.

Hu et al. 2021 (arXiv:2106.09685, section 4.1) leave a matrix W alone and learn what to add to it,

    h = W x + (α / r) B A x,        A (r, in) random, B (out, r) zero at the start,

a change of rank r: for r = 8 about a hundredth of the numbers. Afterwards it can be added into W, and costs nothing.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import CourseError
from lib.transformer import Transformer

PLACES = dict(q="attention.q", k="attention.k", v="attention.v", out="attention.out", gate="mlp.gate", up="mlp.up",
              down="mlp.down")  # fmt: skip
MATRICES = tuple(PLACES)  # a block's, by our names
TARGETS = ("q", "v", "out", "up", "down")


class LoRALinear(nn.Linear):
    """A linear layer whose own weights are frozen, and a learned change of low rank beside them."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight.requires_grad_(False), layer.bias  # (out, in), (out,) or None
        same = dict(device=self.weight.device, dtype=self.weight.dtype)
        self.a = nn.Parameter(torch.empty(rank, layer.in_features, **same))  # (r, in)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, **same))  # (out, r)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale, self.merged, self.on = alpha / rank, False, True

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        y = super().forward(x)  # (…, out)
        if self.merged or not self.on:
            return y
        low = self.scale * F.linear(x, self.a)  # (…, r): scaled where it is narrow
        return y + F.linear(low, self.b)  # (…, out)

    @property
    def change(self) -> Tensor:
        """What is added to the weight, (out, in)."""
        return self.scale * (self.b @ self.a)

    @property
    def effective(self) -> Tensor:
        """The one matrix that computes the same, (out, in)."""
        return self.weight if self.merged or not self.on else self.weight + self.change


def add_lora(
    model: Transformer,
    rank: int = 8,
    alpha: float = 32.0,
    targets: Sequence[str] = TARGETS,
    seed: int = 0,
    first: int = 0,
) -> Transformer:
    """Freeze the model and put a LoRA beside each target matrix of each block, in place; returns the model.

    first: the first block that gets some; no gradient need go through those before it, which saves time.
    It computes what it did before, until it is trained. Raises CourseError for a rank below 1, an unknown target, or
    a model that has LoRA already.
    """
    if rank < 1:
        raise CourseError(f"the rank must be at least 1, not {rank}")
    if lora_layers(model):
        raise CourseError("this model has LoRA already; load the base model anew or remove_lora first")
    known = [place.rpartition(".")[2] for place in places(model) if place.startswith("blocks.0.")]
    if wrong := [name for name in targets if name not in known]:
        raise CourseError(f"no matrix {wrong[0]!r} in this model's blocks; choose from {', '.join(known)}")
    if not 0 <= first < len(model.blocks):
        raise CourseError(f"first should be a block from 0 to {len(model.blocks) - 1}, not {first}")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for place in places(model, targets, first):
            put(model, place, LoRALinear(model.get_submodule(place), rank, alpha))
    return model


def places(model: Transformer, names: Sequence[str] = MATRICES, first: int = 0) -> list[str]:
    """Where the matrices with these names are, block by block from the first on: blocks.0.attention.q, …"""
    there = {name for name, _ in model.named_modules()}
    found = [f"blocks.{i}.{PLACES[name]}" for i in range(first, len(model.blocks)) for name in names]
    return [place for place in found if place in there]


def put(model: nn.Module, place: str, layer: nn.Linear) -> None:
    """Let this layer stand at that place of the model."""
    part, _, name = place.rpartition(".")
    setattr(model.get_submodule(part), name, layer)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """By their place in the model: blocks.0.attention.q, …"""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add each change into its weight: the model computes the same, at the price of the base model."""
    for layer in lora_layers(model).values():
        if not layer.merged:
            layer.weight += layer.change
            layer.merged = True


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """Take each change out of its weight again; what is left of it is rounding."""
    for layer in lora_layers(model).values():
        if layer.merged:
            layer.weight -= layer.change
            layer.merged = False


@contextlib.contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    """The base model again, for a while."""
    layers = lora_layers(model).values()
    unmerge(model)
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True


def remove_lora(model: Transformer) -> Transformer:
    """The base model for good, in place, all of it free to learn."""
    unmerge(model)
    for place, lora in lora_layers(model).items():
        plain = nn.Linear(1, 1, bias=False)
        plain.in_features, plain.out_features = lora.in_features, lora.out_features
        plain.weight, plain.bias = lora.weight, lora.bias
        put(model, place, plain)
    return model.requires_grad_()


def count_trainable(model: nn.Module) -> int:
    """The numbers that learn, a tied matrix counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
