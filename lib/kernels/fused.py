"""Attention without the table of weights: computed tile by tile, and again on the way back (Dao et al. 2022)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def fused_attention(q: Tensor, k: Tensor, v: Tensor, context, dropout: float = 0.0, watchers=()) -> Tensor:
    """q (B, H, T, Dh), k and v (B, K, S, Dh) → (B, H, T, Dh), by PyTorch's scaled_dot_product_attention.

    Not for watchers: there are no weights (T, S) to show. In training on a CPU bfloat16 takes a detour over float32,
    since its own way back is several times slower.
    """
    if watchers:
        return NotImplemented
    options = dict(
        attn_mask=context.mask, is_causal=context.causal, dropout_p=dropout, enable_gqa=k.size(1) < q.size(1)
    )
    if q.is_cpu and q.dtype is torch.bfloat16 and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), **options).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, **options)  # (B, H, T, Dh)
