"""The same Transformer, laid out for writing.

Writing computes one position at a time, so each weight is read from memory and used once: on a CPU the reading is
what takes the time. A Decoder holds a copy of a model's weights in the order in which they are read, in huge pages,
joins matrices that meet the same x, and takes few steps between them. The logits are the same but for rounding.
"""

import contextlib
import copy
import math
import mmap
import sys
import weakref
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import Context
from lib.embedding import rotate
from lib.errors import CourseError
from lib.generation import KVCache
from lib.inference.replay import Step
from lib.transformer import Block, Transformer


class Shelf:
    """Memory for many tensors in one stretch, in huge pages where Linux gives them.

    In pages of 4 KiB a CPU looks up an address for every thousand numbers, which costs a fifth of the time.
    """

    def __init__(self, size: int):
        # Private: Linux keeps memory that could be shared in small pages. Taken page by page, as it is filled.
        private = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
        memory = mmap.mmap(-1, size, **private)
        with contextlib.suppress(AttributeError, OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.free = torch.frombuffer(memory, dtype=torch.uint8)

    def __call__(self, tensor: Tensor) -> Tensor:
        """A copy that lies on the shelf in the order in which the tensor is read; elsewhere if there is no room."""
        if tensor.nbytes > self.free.numel():
            return tensor.contiguous()
        copy = self.free[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        self.free = self.free[-(-tensor.nbytes // 64) * 64 :]  # the next begins with a cache line
        return copy


Keep = Callable[[Tensor], Tensor]  # a Shelf, or Tensor.contiguous


class Columns:
    """x @ W with W (in, out) in memory: a row x reads W from its first number to its last."""

    def __init__(self, weight: Tensor, keep: Keep):
        self.weight = keep(weight.t())  # (in, out)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return x @ self.weight  # (…, out)


class Bags:
    """The same in blocks of at most 480 columns, for one row x and few columns.

    x @ W is a sum of W's rows, weighted by x. That is also what embedding_bag computes, and it fetches the rows
    ahead of their use, which a matrix product by one row does not.
    """

    def __init__(self, weight: Tensor, keep: Keep):
        out, width = weight.shape
        self.n = next(n for n in range(1, out + 1) if out % n == 0 and out // n <= 480)
        blocks = weight.unflatten(0, (self.n, -1)).transpose(1, 2)  # (n, in, out/n)
        self.table = keep(blocks).flatten(0, 1)  # (n · in, out/n)
        self.rows = torch.arange(self.n * width, dtype=torch.int32)  # all of them, in order
        self.starts = self.rows[::width].contiguous()  # (n,)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        if x.numel() > x.size(-1):
            blocks = self.table.unflatten(0, (self.n, -1))  # (n, in, out/n)
            return (x.unsqueeze(-3) @ blocks).transpose(-3, -2).flatten(-2)  # (…, T, out)
        weights = x.expand(self.n, *x.shape).reshape(-1)  # (n · in,)
        y = torch.embedding_bag(self.table, self.rows, self.starts, False, 0, False, weights)[0]  # (n, out/n); 0: sum
        return y.view(*x.shape[:-1], -1)  # (…, out)


class Packed:
    """The same in oneDNN's own blocks: several rows for little more than the price of one."""

    @staticmethod
    def there() -> bool:
        """Whether this build of PyTorch has them."""
        return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")

    def __init__(self, weight: Tensor, rows: int):
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")  # (…, out)


class Int8:
    """Weights as whole numbers from −127 to 127 with a scale for each output; the products are taken in bfloat16."""

    def __init__(self, weight: Tensor, keep: Keep):
        if weight.device.type != "cpu" or weight.size(0) % 32 or weight.size(1) % 32:
            raise CourseError("int8 weights need a CPU and widths that are multiples of 32; use weights='float32'")
        self.scale = (weight.abs().amax(dim=1).clamp_min(1e-12) / 127).bfloat16()  # (out,), rounded before it is used
        whole = (weight / self.scale[:, None].float()).round().clamp(-127, 127)  # (out, in)
        self.weight = keep(whole.to(torch.int8))  # (out, in)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        y = torch._weight_int8pack_mm(x.flatten(0, -2).bfloat16(), self.weight, self.scale)  # (rows, out)
        return y.to(x.dtype).unflatten(0, x.shape[:-1])  # (…, out)


class Layout:
    """How to lay out what linear layers hold, for a number of rows and a kind of weights."""

    def __init__(self, rows: int, weights: str, keep: Keep):
        self.rows, self.weights, self.keep = rows, weights, keep

    def __call__(self, *layers: nn.Linear):
        """One function (…, in) → (…, out) for layers that read the same x, their outputs side by side."""
        weight = torch.cat([getattr(layer, "effective", layer.weight) for layer in layers])  # (out, in); a LoRA's too
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        if self.weights == "int8":
            product = Int8(weight, self.keep)
        elif plain and self.rows > 1 and Packed.there():
            product = Packed(weight, self.rows)
        elif plain and self.rows == 1 and weight.size(0) <= 1024:
            product = Bags(weight, self.keep)
        else:
            product = Columns(weight, self.keep)
        if layers[0].bias is None:
            return product
        bias = torch.cat([layer.bias for layer in layers])  # (out,)
        return lambda x: product(x) + bias


def laid_norm(norm: nn.Module):
    """A norm (…, D) → (…, D) in few steps.

    On a CPU |x| / √D is the root mean square, and hypot adds eps under the root.
    """
    D = norm.weight.numel()
    if isinstance(norm, nn.LayerNorm):
        weight, bias, eps = norm.weight.clone(), norm.bias.clone(), norm.eps  # (D,), (D,)
        return lambda x: F.layer_norm(x, (D,), weight, bias, eps)
    if not norm.weight.is_cpu:  # there it is one kernel
        weight, least = norm.weight.clone(), norm.eps  # (D,)
        return lambda x: F.rms_norm(x, (D,), weight, least)
    gain, eps = norm.weight * math.sqrt(D), norm.weight.new_tensor(math.sqrt(norm.eps * D))  # (D,), ()
    return lambda x: x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), eps) * gain


class LaidBlock:
    """Block, with q, k and v from one matrix, and gate and up from another."""

    def __init__(self, block: Block, lay: Layout):
        attention, mlp = block.attention, block.mlp
        self.n_head, self.n_kv_head = attention.n_head, attention.n_kv_head
        self.norm1, self.norm2 = laid_norm(block.norm1), laid_norm(block.norm2)
        self.qkv, self.out = lay(attention.q, attention.k, attention.v), lay(attention.out)
        self.gated = hasattr(mlp, "gate")
        self.up, self.down = lay(mlp.gate, mlp.up) if self.gated else lay(mlp.up), lay(mlp.down)
        self.activation = mlp.activation

    def __call__(self, x: Tensor, context: Context, cache=None) -> Tensor:
        """x (B, T, D) → (B, T, D)."""
        B, T, D = x.shape
        H, K = self.n_head, self.n_kv_head
        x = x.view(B * T, D)
        heads = self.qkv(self.norm1(x)).view(B, T, H + 2 * K, -1).transpose(1, 2)  # (B, H + 2K, T, Dh)
        qk, v = heads.narrow(1, 0, H + K), heads.narrow(1, H + K, K)  # (B, H + K, T, Dh), (B, K, T, Dh)
        if context.rotary is not None:
            qk = rotate(qk, *context.rotary)
        q, k = qk.narrow(1, 0, H), qk.narrow(1, H, K)  # (B, H, T, Dh), (B, K, T, Dh)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, K, S, Dh) each
        grouped = x.is_cuda and T == 1 < H // K  # the heads of a group look at the same keys: as one head's queries
        q = q.reshape(B, K, H // K, -1) if grouped else q  # (B, K, H/K, Dh) or (B, H, T, Dh)
        heard = F.scaled_dot_product_attention(
            q, k, v, attn_mask=context.mask, is_causal=context.causal, enable_gqa=K < H and not grouped
        ).reshape(B, H, T, -1)  # (B, H, T, Dh)
        x = x + self.out(heard.transpose(1, 2).reshape(B * T, -1))  # (B·T, D)
        h = self.up(self.norm2(x))  # (B·T, F), or (B·T, 2F)
        if self.gated:
            gate, h = h.chunk(2, dim=-1)  # (B·T, F) each
            h = self.activation(gate) * h
        else:
            h = self.activation(h)
        return (x + self.down(h)).view(B, T, D)


class Decoder(Transformer):
    """A finished model, laid out for writing, on the model's device: `stream` and `generate` take it as the model.

    rows: how many texts it will write at once; any number works, this one is fast. weights: "float32" (the model's
    own precision) or "int8" (a quarter of the bytes, on a CPU; it changes the results a little). The weights are
    copied, all but the embedding, so later training of the model does not reach it, and it can't be trained.
    Raises CourseError for other weights, or where int8 does not fit.
    """

    recorded_on = ("cuda",)

    @torch.no_grad()
    def __init__(self, model: Transformer, rows: int = 1, weights: str = "float32"):
        nn.Module.__init__(self)
        if weights not in ("float32", "int8"):
            raise CourseError(f"unknown weights {weights!r}; choose float32 or int8")
        matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
        on_cpu = model.embedding.weight.is_cpu
        keep = Shelf(sum(matrix.nbytes + 64 for matrix in matrices)) if on_cpu else Tensor.contiguous
        lay = Layout(rows, weights, keep)
        self.config, self.embedding, self.dropout = model.config, model.embedding, nn.Identity()
        if model.config.position == "learned":
            self.positions = copy.deepcopy(model.positions)
        self.blocks = [LaidBlock(block, lay) for block in model.blocks]
        self.norm, self.head = laid_norm(model.norm), lay(model.head)
        self.steps = weakref.WeakKeyDictionary()  # of a cache: the step that writes into it
        self.eval()

    def _apply(self, *args, **options):
        raise CourseError("a Decoder stays as and where it was made; move the model, then make one of it")

    @torch.inference_mode()
    def last_hidden_state(self, tokens: Tensor, cache=None, padding: Tensor | None = None) -> Tensor:
        """As Transformer's. One more token of each text, on a GPU, is a recorded step (lib.inference.replay)."""
        once_more = isinstance(cache, KVCache) and tokens.size(1) == 1 and 0 < cache.length < self.config.block_size
        if not (once_more and tokens.device.type in self.recorded_on):
            return super().last_hidden_state(tokens, cache, padding)
        cache.reserve(1)
        step = self.steps.get(cache)
        if step is None or not step.fits(cache, padding):
            step = self.steps[cache] = Step(self, cache, padding)
        x = step(tokens, cache.length)  # (B, 1, D)
        for layer in cache.layers:
            layer.length += 1
        return x
