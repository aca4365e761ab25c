"""The course's parts, with the names and arguments of the exercises: they stand where a learner's are missing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import attention, causal_mask, merge_heads, split_heads
from lib.embedding import rotary_angles, rotate
from lib.generation import LayerCache, choose
from lib.tokenizer import _merge_in_word
from lib.transformer import ACTIVATIONS, rms_norm

__all__ = ["Cache", "apply_merges", "attention", "causal_mask", "cross_entropy", "embed", "gated_mlp", "merge",
           "merge_heads", "merged", "multi_head", "pre_norm_block", "repeat_kv", "rms_norm",
           "rotary", "sample", "split_heads", "training_step", "transformer", "write_text"]  # fmt: skip


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


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())  # ()


def training_step(model: nn.Module, optimizer, x: Tensor, y: Tensor, loss_of, max_norm: float) -> float:
    loss = loss_of(model(x), y)  # ()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()


def sample(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator) -> Tensor:
    return choose(logits, temperature, top_k, top_p, generator)[:, 0]  # (B,)


class Cache:
    def __init__(self):
        self.layer = LayerCache()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = self.layer.extend(k, v)  # (B, H, S, Dh) each
        T, S = q.size(2), k.size(2)
        return attention(q, k, v, causal_mask(S)[S - T :])  # (B, H, T, Dh)


def write_text(read, prompt: Tensor, n: int, choose) -> Tensor:
    text = new = prompt  # (B, T)
    for _ in range(n):
        new = choose(read(new)[:, -1])[:, None]  # (B, 1)
        text = torch.cat([text, new], dim=1)  # (B, T + 1)
    return text


def merged(W: Tensor, adapters) -> Tensor:
    return W + sum(alpha / len(A) * (B @ A) for A, B, alpha in adapters)  # (out, in)
