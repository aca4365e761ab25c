"""What the view shows of one forward pass, in PyTorch: the truth that explore.js is tested against, and what the
server answers for models too large for a page. The names of what is shown are the same in both.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lib.attention import causal_mask, merge_heads, split_heads
from lib.embedding import rotate
from lib.errors import CourseError
from lib.transformer import Transformer

STRONGEST = 12  # features of an MLP that are shown
LENS = 8_000_000  # multiplications that reading the whole stream early may cost; beyond, one position is read


@dataclass(frozen=True)
class Changes:
    """What is changed in a model while it runs. mask, scale, order: whether they are on, as they should be.

    heads: (layer, head) whose mixture is nothing; features: (layer, feature) of the MLP that stay at 0.
    """

    mask: bool = True
    scale: bool = True
    order: bool = True
    heads: frozenset[tuple[int, int]] = frozenset()
    features: frozenset[tuple[int, int]] = frozenset()


@dataclass
class Layer:
    """One Block of a pass over T tokens."""

    norm1: Tensor  # (T, D)
    q: Tensor  # (H, T, Dh), turned
    k: Tensor  # (K, T, Dh), turned
    v: Tensor  # (K, T, Dh)
    weights: Tensor  # (H, T, T)
    mixture: Tensor  # (H, T, Dh), a silenced head's nothing
    attention: Tensor  # (T, D), what is added to the stream
    norm2: Tensor  # (T, D)
    features: Tensor  # (T, F), after the activation and the gate
    mlp: Tensor  # (T, D), what is added to the stream


@dataclass
class Pass:
    """A whole forward pass: stream[2l] before layer l, stream[2l + 1] between its halves, stream[2L] at the end."""

    stream: list[Tensor] = field(default_factory=list)  # (T, D) each
    layers: list[Layer] = field(default_factory=list)
    bridges: list[Tensor] = field(default_factory=list)  # (T, T) each: a layer's heads together, without the silent
    logits: Tensor = None  # (T, V)


@torch.no_grad()
def forward(model: Transformer, ids: Sequence[int], changes: Changes = Changes()) -> Pass:
    """The model's own forward pass over ids (T,), every step kept, with the changes made. Raises CourseError where
    there are no ids, more than block_size, or one that the model has no row for."""
    config, T = model.config, len(ids)
    if not 1 <= T <= config.block_size:
        raise CourseError(f"{T} pieces do not fit: the model reads 1 to {config.block_size}; give a shorter text")
    if not all(0 <= id < config.vocab_size for id in ids):
        raise CourseError(f"an id is outside 0 to {config.vocab_size - 1}; this tokenizer is not the model's")
    positions = torch.arange(T)  # (T,)
    tokens = torch.tensor(ids)[None]  # (1, T)
    rotary = model.rotary(positions) if changes.order else None
    x = (model.embed(tokens, positions) if changes.order else model.embedding(tokens))[0]  # (T, D)
    seen = torch.ones(T, T, dtype=torch.bool)  # (T, T)
    if config.causal and changes.mask:
        seen = causal_mask(T, window=config.sliding_window)
    scale = 1 / math.sqrt(config.head_dim) if changes.scale else 1.0
    run = Pass([x])
    for number, block in enumerate(model.blocks):
        part = block.attention
        norm1 = block.norm1(x)  # (T, D)
        q = split_heads(part.q(norm1)[None], config.n_head)  # (1, H, T, Dh)
        k = split_heads(part.k(norm1)[None], config.n_kv_head)  # (1, K, T, Dh)
        v = split_heads(part.v(norm1)[None], config.n_kv_head)  # (1, K, T, Dh)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        G = config.n_head // config.n_kv_head
        scores = q @ k.repeat_interleave(G, dim=1).transpose(-2, -1) * scale  # (1, H, T, T)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)  # (1, H, T, T)
        mixture = weights @ v.repeat_interleave(G, dim=1)  # (1, H, T, Dh)
        speaks = torch.tensor([(number, head) not in changes.heads for head in range(config.n_head)])  # (H,)
        mixture = mixture * speaks[:, None, None]  # (1, H, T, Dh)
        run.bridges.append((weights[0] * speaks[:, None, None]).mean(0))  # (T, T)
        attention = part.out(merge_heads(mixture))[0]  # (T, D)
        x = x + attention
        run.stream.append(x)
        norm2 = block.norm2(x)  # (T, D)
        mlp = block.mlp
        up = mlp.up(norm2)  # (T, F)
        features = mlp.activation(mlp.gate(norm2)) * up if config.mlp == "gated" else mlp.activation(up)  # (T, F)
        for layer, feature in changes.features:
            if layer == number:
                features[:, feature] = 0
        written = mlp.down(features)  # (T, D)
        x = x + written
        run.stream.append(x)
        run.layers.append(Layer(norm1, q[0], k[0], v[0], weights[0], mixture[0], attention, norm2, features, written))
    run.logits = model.head(model.norm(x))  # (T, V)
    return run


def _lens(model: Transformer, run: Pass, ids: Sequence[int], query: int) -> dict[str, Any]:
    """What the stream would say if it were read after each layer (nostalgebraist 2020): at every position, or, where
    that costs too much, at the query's. rank: where what comes next stands among all tokens, 1 the likeliest."""
    config, T, last = model.config, len(ids), run.logits.argmax(-1)  # (T,)
    points = run.stream[::2]
    cost = T * config.vocab_size * config.d_model * len(points)
    rows = list(range(T)) if cost <= LENS else [query]
    target = torch.tensor([*ids[1:], int(last[-1])])[rows]  # (R,)
    logits = model.head(model.norm(torch.stack(points)[:, rows]))  # (L + 1, R, V)
    own = logits.gather(-1, target[None, :, None].expand(len(points), -1, 1))  # (L + 1, R, 1)
    best = logits.max(-1)  # (L + 1, R)
    chance = (best.values - logits.logsumexp(-1)).exp()  # (L + 1, R)
    return dict(rows=rows, target=target, top=best.indices, chance=chance, rank=(logits > own).sum(-1) + 1)


def _strongest(model: Transformer, run: Pass, layer: int, query: int) -> dict[str, Any]:
    """The features of a layer's MLP that write most at the query, and which tokens each then makes likelier."""
    act = run.layers[layer].features  # (T, F)
    down = model.blocks[layer].mlp.down.weight  # (D, F)
    strength = act[query].abs() * down.norm(dim=0)  # (F,)
    index = strength.topk(min(STRONGEST, len(strength))).indices  # (n,)
    direction = (down[:, index] * act[query, index].sign()).T  # (n, D)
    if model.config.norm == "layer":
        direction = direction - direction.mean(-1, keepdim=True)  # (n, D)
    logits = model.head(direction * model.norm.weight)  # (n, V)
    return dict(
        index=index, act=act[query, index], strength=strength[index], over=act[:, index].T,
        promotes=logits.topk(min(3, logits.size(-1))).indices,
    )  # fmt: skip


@torch.no_grad()
def see(model: Transformer, run: Pass, ids: Sequence[int], at: Mapping[str, int]) -> dict[str, Any]:
    """What is shown of a pass to somebody who points at {layer, head, query, key}: tensors, by the view's names. A key
    of -1 is the one that the head looks at most from the query."""
    config = model.config
    n, h, i, j = (at[name] for name in ("layer", "head", "query", "key"))
    layer = run.layers[n]
    j = j if j >= 0 else int(layer.weights[h, i].argmax())
    kv = h // (config.n_head // config.n_kv_head)
    out = [b.attention.out.weight.unflatten(1, (config.n_head, -1)) for b in model.blocks]  # (D, H, Dh) each
    written = [torch.einsum("dhe,he->hd", w, r.mixture[:, i]) for w, r in zip(out, run.layers, strict=True)]  # (H, D)
    embedding = model.embedding.weight.detach()  # (V, D)
    row = embedding[ids[i]]  # (D,)
    alike = embedding @ row / (embedding.norm(dim=-1) * row.norm()).clamp_min(1e-20)  # (V,): cosines
    chances = run.logits.log_softmax(-1)  # (T, V)
    nexts = torch.tensor(ids[1:], dtype=torch.long)[:, None]  # (T - 1, 1)
    norms = [torch.stack([getattr(r, name).norm(dim=-1) for r in run.layers]) for name in ("attention", "mlp")]
    return dict(
        lengths=torch.stack([x.norm(dim=-1) for x in run.stream]),  # (2L + 1, T)
        stream=torch.stack([x[i] for x in run.stream]),  # (2L + 1, D)
        bridges=torch.stack(run.bridges),  # (L, T, T)
        heard=norms[0], thought=norms[1],  # (L, T) each: how much attention and MLP add to each river
        surprise=-chances[:-1].gather(1, nexts)[:, 0],  # (T - 1,), nats
        lens=_lens(model, run, ids, i),
        writes=torch.stack([w.norm(dim=-1) for w in written]),  # (L, H): how much each head adds at the query
        embedding=row, position=run.stream[0][i] - row, nearest=alike.topk(min(9, len(alike))).indices,
        key=j, norm1=layer.norm1[i], norm2=layer.norm2[i],
        q=layer.q[h, i], k=layer.k[kv, j], v=layer.v[kv, j], scores=layer.q[h] @ layer.k[kv].T,  # (T, T), raw
        weights=layer.weights, mixture=layer.mixture[h, i], written=written[n][h],  # (H, T, T), (Dh,), (D,)
        attention=layer.attention[i], features=_strongest(model, run, n, i), mlp=layer.mlp[i],
        logits=run.logits[i], last=run.logits[-1],
    )  # fmt: skip
