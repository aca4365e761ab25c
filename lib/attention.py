"""Attention, one head and many.

    Attention(Q, K, V) = softmax(Q Kᵀ / √Dh) V          (Vaswani et al. 2017, equation 1)

Each query asks every key "how well do you match?", turns the answers into shares that sum to one, and takes that
mixture of the values: a soft look-up.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.embedding import rotate


def causal_mask(T: int, S: int | None = None, window: int | None = None, device=None) -> Tensor:
    """Who may look at whom: (T, S) booleans, True = may attend.

    The T queries are the last T of S positions (S = T unless earlier keys are cached). A query sees itself and what
    came before; with `window`, only the `window` most recent of those.
    """
    S = T if S is None else S
    query = torch.arange(S - T, S, device=device)[:, None]  # (T, 1)
    key = torch.arange(S, device=device)[None, :]  # (1, S)
    mask = key <= query  # (T, S)
    if window is not None:
        mask &= key > query - window  # (T, S)
    return mask


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, return_weights: bool = False):
    """Scaled dot-product attention, written out.

    q (…, T, Dh), k (…, S, Dh), v (…, S, Dv); mask boolean, broadcastable to (…, T, S), True = may attend.
    Returns (…, T, Dv), and the weights (…, T, S) if asked for.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (…, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))  # (…, T, S)
    weights = scores.softmax(dim=-1)  # (…, T, S)
    out = weights @ v  # (…, T, Dv)
    return (out, weights) if return_weights else out


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """Cut the width into heads: (B, T, H·Dh) → (B, H, T, Dh)."""
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)  # (B, H, T, Dh)


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads side by side again: (B, H, T, Dh) → (B, T, H·Dh)."""
    return x.transpose(1, 2).flatten(-2)  # (B, T, H·Dh)


def _fused(q: Tensor, k: Tensor, v: Tensor, **options) -> Tensor:
    """PyTorch's fused attention. In training on a CPU it is float32's: bfloat16's way back is several times slower."""
    if q.is_cpu and q.dtype is torch.bfloat16 and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), **options).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, **options)  # (B, H, T, Dh)


@dataclass(frozen=True)
class Context:
    """What every layer of one forward pass shares.

    rotary: (cos, sin), each broadcastable to (B, H, T, Dh/2). mask: boolean, broadcastable to (B, H, T, S),
    True = may attend. causal: the plain lower triangle over T = S, which a fused kernel need not be handed.
    The default is everyone sees everyone, wherever they stand.
    """

    rotary: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None
    causal: bool = False


EVERYONE = Context()


class MultiHeadAttention(nn.Module):
    """Several soft look-ups side by side (Vaswani et al. 2017, section 3.2.2).

    With n_kv_head < n_head, groups of G query heads share one key/value head (Ainslie et al. 2023, GQA).
    """

    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        q_width, kv_width = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.q = nn.Linear(config.d_model, q_width, bias=config.qkv_bias)
        self.k = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.v = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.out = nn.Linear(q_width, config.d_model, bias=config.out_bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor, context: Context = EVERYONE, cache=None, return_weights: bool = False):
        """x (B, T, D) → (B, T, D), and the weights (B, H, T, S) if asked for.

        cache: one layer's keys and values of earlier tokens (lib.generation.LayerCache), extended in passing.
        """
        q = split_heads(self.q(x), self.n_head)  # (B, H, T, Dh)
        k = split_heads(self.k(x), self.n_kv_head)  # (B, K, T, Dh)
        v = split_heads(self.v(x), self.n_kv_head)  # (B, K, T, Dh)
        if context.rotary is not None:
            q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, K, S, Dh) each
        if return_weights:
            group = self.n_head // self.n_kv_head
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)  # (B, H, S, Dh)
            mask = causal_mask(q.size(2), device=q.device) if context.causal else context.mask
            out, weights = attention(q, k, v, mask, return_weights=True)
            return self.out(merge_heads(out)), weights
        out = _fused(  # the same arithmetic, without keeping (T, S) in memory
            q,
            k,
            v,
            attn_mask=context.mask,
            is_causal=context.causal,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.n_kv_head < self.n_head,
        )  # (B, H, T, Dh)
        return self.out(merge_heads(out))  # (B, T, D)
