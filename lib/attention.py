"""Attention, one head and many.

    Attention(Q, K, V) = softmax(Q Kᵀ / √Dh) V          (Vaswani et al. 2017, equation 1)

Each query asks every key "how well do you match?", turns the answers into shares that sum to one, and takes that
mixture of the values: a soft look-up.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.embedding import rotate
from lib.errors import CourseError
from lib.kernels.door import with_kernel
from lib.kernels.fused import fused_attention


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


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """How much each query listens to each key, in shares that add up to one: softmax(Q Kᵀ / √Dh).

    q (…, T, Dh), k (…, S, Dh); mask boolean, broadcastable to (…, T, S), True = may attend. Returns (…, T, S).
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (…, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))  # (…, T, S)
    return scores.softmax(dim=-1)  # (…, T, S)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, written out: the values, mixed by these shares.

    q (…, T, Dh), k (…, S, Dh), v (…, S, Dv); mask as in attention_weights. Returns (…, T, Dv).
    """
    return attention_weights(q, k, mask) @ v  # (…, T, Dv)


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """Cut the width into heads: (B, T, H·Dh) → (B, H, T, Dh)."""
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)  # (B, H, T, Dh)


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads side by side again: (B, H, T, Dh) → (B, T, H·Dh)."""
    return x.transpose(1, 2).flatten(-2)  # (B, T, H·Dh)


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


@with_kernel(fused_attention)
def grouped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Context,
    dropout: float = 0.0,
    watchers: Sequence[Callable[[Tensor], object]] = (),
) -> Tensor:
    """Attention in H heads side by side, of which groups of G = H / K share keys and values (Ainslie et al. 2023, GQA).

    q (B, H, T, Dh), k and v (B, K, S, Dh); K = H is one head each. dropout: the chance that a weight is left out.
    watchers are called with the weights (B, H, T, S). Returns (B, H, T, Dh).
    """
    G = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(G, dim=1), v.repeat_interleave(G, dim=1)  # (B, H, S, Dh) each
    mask = causal_mask(q.size(2), device=q.device) if context.causal else context.mask
    weights = attention_weights(q, k, mask)  # (B, H, T, S)
    for watch in watchers:
        watch(weights)
    return F.dropout(weights, dropout) @ v  # (B, H, T, Dh)


class MultiHeadAttention(nn.Module):
    """Several soft look-ups side by side (Vaswani et al. 2017, section 3.2.2)."""

    watchers: tuple[Callable[[Tensor], object], ...] = ()  # who is shown the weights: see `recorded`

    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        q_width, kv_width = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.q = nn.Linear(config.d_model, q_width, bias=config.qkv_bias)
        self.k = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.v = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.out = nn.Linear(q_width, config.d_model, bias=config.out_bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor, context: Context = EVERYONE, cache=None) -> Tensor:
        """x (B, T, D) → (B, T, D).

        cache: one layer's keys and values of earlier tokens (lib.generation.LayerCache), extended in passing.
        """
        q = split_heads(self.q(x), self.n_head)  # (B, H, T, Dh)
        k = split_heads(self.k(x), self.n_kv_head)  # (B, K, T, Dh)
        v = split_heads(self.v(x), self.n_kv_head)  # (B, K, T, Dh)
        if context.rotary is not None:
            q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, K, S, Dh) each
        dropout = self.dropout if self.training else 0.0
        heard = grouped_attention(q, k, v, context, dropout, self.watchers)  # (B, H, T, Dh)
        return self.out(merge_heads(heard))  # (B, T, D)


@contextlib.contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the weights of every attention layer of a model:

        with recorded(model) as maps:
            model(tokens)

    maps then holds a tensor (B, H, T, S) for each MultiHeadAttention, in the order of the layers; a layer that is asked
    again replaces what it gave before. Meanwhile attention runs written out, since a fused kernel has no weights to
    show; results differ by rounding only. Raises CourseError for a model without such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    if not layers:
        name = type(model).__name__
        raise CourseError(f"a {name} has no attention layers to record; if it was made from a model, record that one")
    newest: dict[int, Tensor] = {}  # by layer
    maps: list[Tensor] = []

    def keep(i: int, weights: Tensor) -> None:
        newest[i] = weights
        maps[:] = [newest[i] for i in sorted(newest)]

    watchers = {layer: functools.partial(keep, i) for i, layer in enumerate(layers)}
    for layer, watcher in watchers.items():
        layer.watchers = (*layer.watchers, watcher)
    try:
        yield maps
    finally:  # another recording may be under way
        for layer, watcher in watchers.items():
            layer.watchers = tuple(each for each in layer.watchers if each is not watcher)
