"""The same Transformer, its weights laid out for writing.

Writing computes one position at a time, so each weight is read from memory and used once: on a CPU the reading is
what takes the time. `for_decoding` copies a model's weights into matrices that are read in the order in which they
lie, and joins those that meet the same x. Nothing else changes, and the logits are the same but for rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.attention import MultiHeadAttention, split_heads
from lib.errors import CourseError
from lib.transformer import Block, Transformer


class Columns(nn.Module):
    """x @ W + b with W (in, out) in memory: the fastest to read for a single row x."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight.t().contiguous())  # (in, out)
        self.register_buffer("bias", bias)  # (out,)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        y = x @ self.weight  # (…, out)
        return y if self.bias is None else y + self.bias


class Packed(nn.Module):
    """The same in oneDNN's own blocks: a few rows for little more than the price of one. float32 on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self.bias = bias

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether this build of PyTorch can lay this weight out so."""
        there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        return there and weight.device.type == "cpu" and weight.dtype == torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Int8(nn.Module):
    """Weights as whole numbers from −127 to 127 with one scale a row: a quarter of the bytes, and a loss.

    The products are taken in bfloat16. `in` and `out` must be multiples of 32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        if weight.device.type != "cpu" or weight.size(0) % 32 or weight.size(1) % 32:
            raise CourseError("int8 weights need a CPU and widths that are multiples of 32; use weights='float32'")
        scale = (weight.abs().amax(dim=1).clamp_min(1e-12) / 127).bfloat16()  # (out,), rounded before it is used
        self.register_buffer("weight", (weight / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        rows = x.flatten(0, -2).bfloat16()  # (rows, in)
        y = torch._weight_int8pack_mm(rows, self.weight, self.scale).to(x.dtype)  # (rows, out)
        y = y.unflatten(0, x.shape[:-1])  # (…, out)
        return y if self.bias is None else y + self.bias


class JoinedAttention(MultiHeadAttention):
    """MultiHeadAttention whose queries, keys and values come out of one matrix."""

    def __init__(self, attention: MultiHeadAttention, lay: Callable):
        nn.Module.__init__(self)
        self.n_head, self.n_kv_head, self.dropout = attention.n_head, attention.n_kv_head, 0.0
        self.qkv = lay(attention.q, attention.k, attention.v)
        self.out = lay(attention.out)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, Dh), keys and values (B, K, T, Dh) of x (B, T, D)."""
        heads = split_heads(self.qkv(x), self.n_head + 2 * self.n_kv_head)  # (B, H + 2K, T, Dh)
        return heads.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)


class JoinedMLP(nn.Module):
    """An MLP whose gate, where it has one, comes out of the same matrix as what it gates."""

    def __init__(self, mlp: nn.Module, lay: Callable):
        super().__init__()
        self.gated = hasattr(mlp, "gate")
        self.up = lay(mlp.gate, mlp.up) if self.gated else lay(mlp.up)
        self.down = lay(mlp.down)
        self.activation = mlp.activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        x = self.up(x)  # (B, T, F), or (B, T, 2F)
        if not self.gated:
            return self.down(self.activation(x))  # (B, T, D)
        gate, x = x.chunk(2, dim=-1)  # (B, T, F) each
        return self.down(self.activation(gate) * x)  # (B, T, D)


@torch.no_grad()
def for_decoding(model: Transformer, rows: int = 1, weights: str = "float32") -> Transformer:
    """A copy of a finished model that writes faster; `generate` and `stream` take it as they take the model.

    rows: how many texts will be written at once; any number works, this one is fast. weights: "float32" keeps the
    model's own precision, "int8" rounds the weights. The embedding is shared with the model and the rest is copied,
    so it does not follow later training. Raises CourseError for other weights, or where int8 does not fit.
    """
    if weights not in ("float32", "int8"):
        raise CourseError(f"unknown weights {weights!r}; choose float32 or int8")

    def lay(*layers: nn.Linear) -> nn.Module:
        weight = torch.cat([layer.weight for layer in layers])  # (out, in)
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])  # (out,)
        if weights == "int8":
            return Int8(weight, bias)
        return Packed(weight, bias, rows) if rows > 1 and Packed.fits(weight) else Columns(weight, bias)

    with torch.device("meta"):  # a shell without numbers
        fast = Transformer(model.config)
    fast.embedding, fast.head = model.embedding, lay(model.head)
    for ours, theirs in zip(fast.blocks, model.blocks, strict=True):
        _copy(ours, theirs, lay)
    fast.norm.load_state_dict(model.norm.state_dict(), assign=True)
    if hasattr(model, "positions"):
        fast.positions = model.positions
    return fast.eval()


def _copy(ours: Block, theirs: Block, lay: Callable) -> None:
    ours.norm1.load_state_dict(theirs.norm1.state_dict(), assign=True)
    ours.norm2.load_state_dict(theirs.norm2.state_dict(), assign=True)
    ours.attention, ours.mlp = JoinedAttention(theirs.attention, lay), JoinedMLP(theirs.mlp, lay)
