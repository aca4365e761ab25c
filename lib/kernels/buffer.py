"""Memory for what grows position by position."""

from torch import Tensor


class Buffer:
    """What torch.cat((old, new), dim=2) gives, in memory that doubles when full, so that appending seldom copies.

    limit: the most positions that it will ever hold, where that is known.
    """

    def __init__(self, limit: int | None = None):
        self.limit = limit
        self.memory: Tensor | None = None  # (B, K, room, Dh), from the first append on

    def append(self, new: Tensor, length: int) -> Tensor:
        """Put new (B, K, T, Dh) after the first `length` positions; return both, (B, K, length + T, Dh)."""
        if self.memory is None:
            self.memory = new.narrow(2, 0, 0)  # (B, K, 0, Dh)
        T = new.size(2)
        self.reserve(length, T)
        self.memory.narrow(2, length, T).copy_(new)
        return self.memory.narrow(2, 0, length + T)  # (B, K, length + T, Dh)

    def reserve(self, length: int, n: int) -> None:
        """Make room for n positions after the first `length`. What is not written yet holds zeros."""
        needed = length + n
        if needed <= self.memory.size(2):
            return
        room = -(-2 * needed // 64) * 64
        room = room if self.limit is None else max(needed, min(room, self.limit))
        B, K, _, Dh = self.memory.shape
        grown = self.memory.new_zeros(B, K, room, Dh)  # (B, K, room, Dh)
        grown[:, :, :length] = self.memory[:, :, :length]
        self.memory = grown
