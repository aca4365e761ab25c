"""The course's parts, with the names and arguments of the exercises: they stand where a learner's are missing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.attention import attention, causal_mask, merge_heads, split_heads
from lib.embedding import rotary_angles, rotate
from lib.tokenizer import _merge_in_word
from lib.transformer import ACTIVATIONS, rms_norm

__all__ = ["apply_merges", "attention", "causal_mask", "embed", "gated_mlp", "merge", "merge_heads", "multi_head",
           "pre_norm_block", "repeat_kv", "rms_norm", "rotary", "split_heads", "transformer"]  # fmt: skip


def merge(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    merged = list(ids)
    _merge_in_word(merged, pair, new_id)
    return merged


def apply_merges(ids: list[int], merges: list[tuple[int, int, int]]) -> list[int]:
    for left, right, new in merges:
        ids = merge(ids, (left, right), new)
    return list(ids)


def embed(ids: Tensor, table: Tensor) -> Tensor:
    return F.embedding(ids, table)  # (…) → (…, D)


def rotary(x: Tensor, positions: Tensor, theta: float = 10000.0) -> Tensor:
    return rotate(x, *rotary_angles(positions, x.size(-1), theta))  # (T, Dh)


def repeat_kv(x: Tensor, groups: int) -> Tensor:
    return torch.stack([x] * groups, dim=2).flatten(1, 2)  # (B, K, S, Dh) → (B, K · groups, S, Dh)


def multi_head(x: Tensor, w: dict[str, Tensor], n_head: int, n_kv_head: int, attend, turn) -> Tensor:
    q, k, v = (split_heads(x @ w[name].T, heads) for name, heads in (("q", n_head), ("k", n_kv_head), ("v", n_kv_head)))
    k, v = (repeat_kv(each, n_head // n_kv_head) for each in (turn(k), v))  # (B, H, T, Dh) each
    return merge_heads(attend(turn(q), k, v)) @ w["out"].T  # (B, T, D)


def gated_mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    return (ACTIVATIONS["silu"](x @ w_gate.T) * (x @ w_up.T)) @ w_down.T  # (…, D)


def pre_norm_block(x: Tensor, norm1, attend, norm2, mlp) -> Tensor:
    heard = x + attend(norm1(x))  # (…, T, D)
    return heard + mlp(norm2(heard))  # (…, T, D)


def transformer(tokens: Tensor, table: Tensor, blocks, norm, head: Tensor) -> Tensor:
    stream = table[tokens]  # (B, T, D)
    for block in blocks:
        stream = block(stream)
    return norm(stream) @ head.T  # (B, T, V)
