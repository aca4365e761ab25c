"""Writing text one token at a time, with a memory of the keys and values already computed."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from lib.errors import CourseError
from lib.transformer import Transformer


class LayerCache:
    """One layer's keys and values, in a buffer that doubles when full, so that appending seldom copies."""

    def __init__(self):
        self.length = 0
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, Dh) keys and values; return all so far, (B, K, S, Dh) each."""
        start, self.length = self.length, self.length + k.size(2)
        if self.k is None or self.length > self.k.size(2):
            self.k, self.v = self._grown(self.k, k, start), self._grown(self.v, v, start)
        self.k[:, :, start : self.length] = k
        self.v[:, :, start : self.length] = v
        return self.k[:, :, : self.length], self.v[:, :, : self.length]  # (B, K, S, Dh)

    def _grown(self, old: Tensor | None, new: Tensor, filled: int) -> Tensor:
        B, K, _, Dh = new.shape
        buffer = new.new_empty(B, K, max(64, 2 * self.length), Dh)  # (B, K, room, Dh)
        if old is not None:
            buffer[:, :, :filled] = old[:, :, :filled]
        return buffer


class KVCache:
    """What a model remembers of the tokens it has read: one LayerCache a layer."""

    def __init__(self, n_layer: int):
        self.layers = [LayerCache() for _ in range(n_layer)]

    @property
    def length(self) -> int:
        return self.layers[0].length


def choose(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, rng: torch.Generator) -> Tensor:
    """Pick one token a row: logits (B, V) → (B, 1). Temperature 0 is greedy."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)  # (B, 1)
    logits = logits.float() / temperature  # (B, V)
    if top_k is not None:
        least = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, float("-inf"))  # (B, V)
    if top_p is not None:
        ranked, order = logits.sort(descending=True)  # (B, V)
        shares = ranked.softmax(-1)  # (B, V)
        beyond = shares.cumsum(-1) - shares >= top_p  # (B, V): the likelier ones already fill top_p
        logits = logits.masked_fill(beyond.gather(-1, order.argsort()), float("-inf"))  # (B, V)
    # Gumbel's trick on the CPU: one generator gives the same text on every device.
    noise = torch.rand(logits.shape, generator=rng).clamp_min(1e-20).to(logits.device)  # (B, V)
    return (logits - (-noise.log()).log()).argmax(dim=-1, keepdim=True)  # (B, 1)


@torch.no_grad()
def stream(
    model: Transformer,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield the next token of each row, (B, 1), up to max_new_tokens times.

    tokens (B, T): prompts of equal length. Reads the prompt once; after that each step computes one position and
    looks the rest up. Raises CourseError for an empty or overlong prompt, or sampling options out of range.
    """
    if tokens.size(1) == 0:
        raise CourseError("an empty prompt gives nothing to continue; pass at least one token")
    if tokens.size(1) + max_new_tokens > model.config.block_size:
        raise CourseError(
            f"a prompt of {tokens.size(1)} tokens and {max_new_tokens} new ones exceed "
            f"block_size={model.config.block_size}; shorten one of them"
        )
    if temperature < 0:
        raise CourseError(f"temperature must be 0 (greedy) or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise CourseError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise CourseError(f"top_p must be above 0 and at most 1, not {top_p}")
    was_training = model.training
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    cache = KVCache(model.config.n_layer)
    try:
        for _ in range(max_new_tokens):
            x, _ = model.hidden(tokens, cache)  # (B, T, D)
            tokens = choose(model.head(x[:, -1]), temperature, top_k, top_p, rng)  # (B, 1)
            yield tokens
    finally:
        model.train(was_training)


def generate(model: Transformer, tokens: Tensor, max_new_tokens: int, stop: Collection[int] = (), **options) -> Tensor:
    """The prompt and what follows it: (B, T) → (B, T + n), n ≤ max_new_tokens.

    Ends early once every row has produced a token in `stop`. Options are those of `stream`.
    """
    ending = torch.tensor(sorted(stop), device=tokens.device, dtype=tokens.dtype)
    done = torch.zeros(tokens.size(0), 1, dtype=torch.bool, device=tokens.device)  # (B, 1)
    pieces = [tokens]
    for token in stream(model, tokens, max_new_tokens, **options):
        pieces.append(token)  # (B, 1)
        done |= torch.isin(token, ending)
        if done.all():
            break
    return torch.cat(pieces, dim=1)  # (B, T + n)
