"""How a step's examples get to the device that reads them."""

from collections.abc import Iterator

import torch
from torch import Tensor


def deliver(
    x: Tensor, y: Tensor, batch_size: int, device: torch.device, rows: slice = slice(None)
) -> Iterator[tuple[Tensor, Tensor]]:
    """A step's inputs and targets, (A·B, …) each, on the device, one batch (B, …) after the other.

    rows: of each batch, those that are read here. From pinned memory a GPU fetches them itself; nobody waits.
    """
    if pinned := device.type == "cuda" and not x.is_cuda:
        x, y = x.pin_memory(), y.pin_memory()  # (A·B, …) each
    for x_part, y_part in zip(x.split(batch_size), y.split(batch_size), strict=True):
        yield x_part[rows].to(device, non_blocking=pinned), y_part[rows].to(device, non_blocking=pinned)
