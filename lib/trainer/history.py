"""What a run saw: its losses, how much it read, how long it took."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class History:
    """What a run saw. train_loss has one entry a step; val_loss one for each of val_steps; losses in nats a token.

    A run adds a step's loss as it lies on its device, so that a GPU need not wait for it, and calls `settle` before
    anybody looks.
    """

    train_loss: list[float] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self):
        self._waiting: list[Tensor] = []
        self._began: float | None = None

    @property
    def step(self) -> int:
        return len(self.train_loss)

    def start(self) -> None:
        """Let the clock run on."""
        self._began = time.perf_counter() - self.seconds

    def add(self, loss: Tensor) -> None:
        """A step's loss, ()."""
        self._waiting.append(loss)

    def settle(self) -> None:
        """Fetch the losses that still lie on their device, and read the clock."""
        self.train_loss += torch.stack(self._waiting).tolist() if self._waiting else []
        self._waiting.clear()
        if self._began is not None:
            self.seconds = time.perf_counter() - self._began
