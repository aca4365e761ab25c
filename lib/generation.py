"""Writing text one token at a time, with a memory of the keys and values already computed."""

import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from lib.device import generator
from lib.errors import CourseError
from lib.kernels.buffer import Buffer
from lib.transformer import Transformer


class LayerCache:
    """One layer's keys and values so far. limit: the most positions that it will ever hold, where that is known."""

    def __init__(self, limit: int | None = None):
        self.length = 0
        self.k, self.v = Buffer(limit), Buffer(limit)

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, Dh) keys and values; return all so far, (B, K, S, Dh) each."""
        past, self.length = self.length, self.length + k.size(2)
        return self.k.append(k, past), self.v.append(v, past)  # (B, K, S, Dh) each


class KVCache:
    """What a model remembers of the tokens it has read: one LayerCache a layer. limit: the model's block_size."""

    def __init__(self, n_layer: int, limit: int | None = None):
        self.layers = [LayerCache(limit) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        return self.layers[0].length

    def reserve(self, n: int) -> None:
        """Make room for n more positions, once something has been read."""
        for layer in self.layers:
            layer.k.reserve(layer.length, n)
            layer.v.reserve(layer.length, n)

    def repeat(self, rows: int) -> None:
        """Let several texts go on from one that has been read: each of B rows becomes `rows` of them."""
        for layer in self.layers:
            for buffer in (layer.k, layer.v):
                buffer.memory = buffer.memory.repeat_interleave(rows, dim=0)  # (B · rows, K, room, Dh)


def left_pad(prompts: Sequence[Sequence[int]], filler: int = 0, device=None) -> tuple[Tensor, Tensor]:
    """Prompts of uneven length as one batch: tokens (B, T), each row ending where it should go on, and padding (B,).

    padding is how many fillers stand at the left of each row; which token fills makes no difference.
    Raises CourseError for no prompt or an empty one.
    """
    rows = [[int(id) for id in prompt] for prompt in prompts]
    if not rows or not all(rows):
        raise CourseError("an empty prompt gives nothing to continue; pass at least one token in each row")
    T = max(map(len, rows))
    tokens = torch.tensor([[filler] * (T - len(row)) + row for row in rows], device=device)  # (B, T)
    return tokens, torch.tensor([T - len(row) for row in rows], device=device)  # (B,)


def occurred(tokens: Tensor, padding: Tensor | None, vocab_size: int) -> Tensor:
    """Which tokens occur in each row: tokens (B, T) after padding (B,) fillers → (B, V) booleans."""
    B, T = tokens.shape
    real = torch.arange(T, device=tokens.device) >= (0 if padding is None else padding[:, None])  # (B, T) or (T,)
    times = torch.zeros(B, vocab_size, device=tokens.device)  # (B, V)
    return times.scatter_add(1, tokens, real.expand(B, T).float()) > 0  # (B, V)


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that have occurred less likely: logits (B, V), seen (B, V) booleans → (B, V).

    Their logits are divided by the penalty where positive, multiplied where negative (Keskar et al. 2019, CTRL).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)  # (B, V)


def cut_tail(
    logits: Tensor, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """Rule unlikely tokens out: logits (…, V) → the same with −inf for what is cut.

    top_k: all but the k likeliest. top_p: all beyond the fewest that together reach a chance of p (Holtzman et al.
    2020, nucleus sampling). min_p: all with less than min_p times the likeliest one's chance (Nguyen et al. 2024).
    Each works on what the one before has left. At least one token always stays.
    """
    if top_k is not None:
        least = logits.topk(min(top_k, logits.size(-1))).values[..., -1:]  # (…, 1)
        logits = logits.masked_fill(logits < least, float("-inf"))  # (…, V)
    if top_p is not None:
        ranked, order = logits.sort(descending=True)  # (…, V)
        shares = ranked.softmax(-1)  # (…, V)
        beyond = shares.cumsum(-1) - shares >= top_p  # (…, V): the likelier ones already fill top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf"))  # (…, V)
    if min_p is not None:
        least = logits.amax(-1, keepdim=True) + math.log(min_p)  # (…, 1)
        logits = logits.masked_fill(logits < least, float("-inf"))  # (…, V)
    return logits


def choose(
    logits: Tensor,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    rng: torch.Generator,
    min_p: float | None = None,
) -> Tensor:
    """Pick one token a row: logits (…, V) → (…, 1). Temperature None is greedy: the likeliest.

    Otherwise each token comes with its chance softmax(logits / temperature), after the tail is cut.
    """
    if temperature is None:
        return logits.argmax(dim=-1, keepdim=True)  # (…, 1)
    temperature = max(temperature, 1e-30)  # the likeliest long before; smaller ones overflow
    logits = cut_tail(logits.float() / temperature, top_k, top_p, min_p)  # (…, V)
    # torch.multinomial(logits.softmax(-1), 1) would do, but each kind of device draws numbers of its own. Ours are the
    # CPU's, so that a seed gives the same text on all, and Gumbel's trick picks by them: add −log(−log u) to each
    # logit, u uniform from 0 to 1; a token's sum is the largest with just its softmax chance (Maddison et al. 2014).
    u = torch.rand(logits.shape, generator=rng).clamp_min(1e-20).to(logits.device)  # (…, V)
    gumbel = -(-u.log()).log()  # (…, V)
    return (logits + gumbel).argmax(dim=-1, keepdim=True)  # (…, 1)


@torch.no_grad()
def stream(
    model: Transformer,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    padding: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of each row, (B, 1), up to max_new_tokens times.

    tokens (B, T): the prompts; of uneven length with padding (B,), both from `left_pad`. Reads them once; after that
    each step computes one position and looks the rest up.

    Greedy unless temperature, top_k, top_p or min_p is given; then it draws, at temperature 1 if none is given.
    repetition_penalty works with both. Raises CourseError for a prompt that is empty, or that with the new tokens
    would outgrow block_size (nothing slides or is dropped), or a sampling option or seed out of range.
    """
    check_prompts(model, tokens, max_new_tokens, padding)
    check_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    if padding is not None and not padding.any():
        padding = None
    if temperature is None and (top_k or top_p or min_p):
        temperature = 1.0
    penalty = repetition_penalty or 1.0
    seen = occurred(tokens, padding, model.config.vocab_size) if penalty != 1 else None  # (B, V)
    was_training = model.training
    model.eval()
    rng = generator(seed)
    cache = KVCache(model.config.n_layer, model.config.block_size)
    try:
        for _ in range(max_new_tokens):
            x = model.last_hidden_state(tokens, cache, padding)  # (B, T, D)
            logits = model.head(x[:, -1])  # (B, V)
            if seen is not None:
                logits = penalise(logits, seen, penalty)  # (B, V)
            tokens = choose(logits, temperature, top_k, top_p, rng, min_p)  # (B, 1)
            if seen is not None:
                seen.scatter_(1, tokens, True)
            yield tokens
    finally:
        model.train(was_training)


def generate(model: Transformer, tokens: Tensor, max_new_tokens: int, stop: Collection[int] = (), **options) -> Tensor:
    """The prompt and what follows it: (B, T) → (B, T + n), n ≤ max_new_tokens.

    A row that has produced a token in `stop` repeats that token; once every row has, it ends early. Options are
    those of `stream`.
    """
    ending = torch.tensor(sorted(stop), device=tokens.device, dtype=tokens.dtype)
    done = torch.zeros(tokens.size(0), 1, dtype=torch.bool, device=tokens.device)  # (B, 1)
    pieces = [tokens]
    for token in stream(model, tokens, max_new_tokens, **options):
        pieces.append(torch.where(done, pieces[-1][:, -1:], token))  # (B, 1)
        done = done | torch.isin(token, ending)
        if stop and done.all():  # asking makes a GPU wait
            break
    return torch.cat(pieces, dim=1)  # (B, T + n)


def check_prompts(model: Transformer, tokens: Tensor, max_new_tokens: int, padding: Tensor | None) -> None:
    """Raise CourseError for prompts (B, T) with padding (B,) that the model can't go on from."""
    B, T = tokens.shape
    if B == 0 or T == 0:
        raise CourseError("an empty prompt gives nothing to continue; pass at least one token")
    if max_new_tokens < 0:
        raise CourseError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    if T + max_new_tokens > model.config.block_size:
        raise CourseError(
            f"a prompt of {T} tokens and {max_new_tokens} new ones exceed "
            f"block_size={model.config.block_size}; shorten one of them"
        )
    if padding is not None and (padding.shape != (B,) or not ((0 <= padding) & (padding < T)).all()):
        raise CourseError(f"padding must be {B} numbers from 0 to {T - 1}, one a row; left_pad makes them")


def check_sampling(
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
) -> None:
    """Raise CourseError for an option out of range; None means that it was not given."""
    if temperature is not None and not 0 < temperature < math.inf:
        raise CourseError(f"temperature must be above 0, not {temperature}; leave it out to take the likeliest token")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise CourseError(f"top_k must be a whole number, at least 1, not {top_k}")
    for name, share in (("top_p", top_p), ("min_p", min_p)):
        if share is not None and not 0 < share <= 1:
            raise CourseError(f"{name} must be above 0 and at most 1, not {share}")
    if repetition_penalty is not None and not 0 < repetition_penalty < math.inf:
        raise CourseError(f"repetition_penalty must be above 0 (1 is none), not {repetition_penalty}")
