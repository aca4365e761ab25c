"""From token ids to vectors, and three ways to say where a token stands.

A token's vector is its row in a table, nn.Embedding: looking the row up is the whole operation.
Learned and sinusoidal positions are added to the token's vector. Rotary positions are not added at all: they turn
queries and keys, so that a query meets a key at an angle which depends only on the distance between them.
"""

import torch
from torch import Tensor, nn

from lib.errors import CourseError


class LearnedPositions(nn.Module):
    """One trainable vector per position, up to block_size (GPT-2)."""

    def __init__(self, block_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(block_size, d_model))  # (block_size, D)
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, positions: Tensor) -> Tensor:
        """Positions (T,) → (T, D)."""
        return self.weight[positions]  # (T, D)


def sinusoidal(positions: int | Tensor, d_model: int) -> Tensor:
    """Fixed waves, from fast to slow (Vaswani et al. 2017, section 3.5).

        PE(pos, 2i) = sin(pos / 10000^(2i/D)),   PE(pos, 2i+1) = cos(pos / 10000^(2i/D))

    positions: how many (0 … n−1), or a tensor (T,). Returns (T, D). Raises CourseError when D is odd.
    """
    if d_model % 2:
        raise CourseError(f"sinusoidal positions come in pairs of sine and cosine; d_model={d_model} is odd")
    if isinstance(positions, int):
        positions = torch.arange(positions)  # (T,)
    pair = torch.arange(0, d_model, 2, device=positions.device, dtype=torch.float32)  # (D/2,)
    angle = positions[:, None] / 10000 ** (pair / d_model)  # (T, D/2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)  # (T, D)


def rotary_angles(positions: Tensor, head_dim: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle by which each pair of coordinates turns (Su et al. 2021, RoFormer).

    positions (T,) or (B, T); returns cos and sin, each (…, T, Dh/2). Raises CourseError when Dh is odd.
    """
    if head_dim % 2:
        raise CourseError(f"rotary positions turn pairs of coordinates; a head width of {head_dim} is odd")
    pair = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)  # (Dh/2,)
    speed = 1.0 / theta ** (pair / head_dim)  # (Dh/2,)
    angle = positions[..., None].float() * speed  # (…, T, Dh/2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their position: coordinate i with coordinate i + Dh/2, as in Llama.

    x (B, H, T, Dh); cos and sin broadcast to (B, H, T, Dh/2). Returns (B, H, T, Dh); lengths do not change.
    """
    a, b = x.chunk(2, dim=-1)  # (B, H, T, Dh/2) each
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)  # (B, H, T, Dh)
