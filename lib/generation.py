"""Writing text one token at a time, with a memory of the keys and values already computed."""

import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from lib.errors import CourseError
from lib.transformer import Transformer

HALF = "\ufffd"  # what a decoder puts for half a character


class LayerCache:
    """One layer's keys and values, in a buffer that doubles when full, so that appending seldom copies.

    limit: the most positions that it will ever hold, where that is known.
    """

    def __init__(self, limit: int | None = None):
        self.length, self.limit = 0, limit
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, Dh) keys and values; return all so far, (B, K, S, Dh) each."""
        if self.k is None:
            self.k, self.v = (new.narrow(2, 0, 0) for new in (k, v))  # (B, K, 0, Dh) each
        self.reserve(k.size(2))
        start, self.length = self.length, self.length + k.size(2)
        self.k.narrow(2, start, k.size(2)).copy_(k)
        self.v.narrow(2, start, v.size(2)).copy_(v)
        return self.k.narrow(2, 0, self.length), self.v.narrow(2, 0, self.length)  # (B, K, S, Dh)

    def reserve(self, n: int) -> None:
        """Make room for n more positions. What is not written yet holds zeros."""
        if self.length + n > self.k.size(2):
            self.k, self.v = self._grown(self.k, n), self._grown(self.v, n)

    def _grown(self, old: Tensor, n: int) -> Tensor:
        B, K, _, Dh = old.shape
        needed = self.length + n
        room = -(-2 * needed // 64) * 64
        room = room if self.limit is None else max(needed, min(room, self.limit))
        buffer = old.new_zeros(B, K, room, Dh)  # (B, K, room, Dh)
        buffer[:, :, : self.length] = old[:, :, : self.length]
        return buffer


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
            layer.reserve(n)

    def repeat(self, rows: int) -> None:
        """Let several texts go on from one that has been read: each of B rows becomes `rows` of them."""
        for layer in self.layers:
            layer.k, layer.v = layer.k.repeat_interleave(rows, 0), layer.v.repeat_interleave(rows, 0)


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


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that have occurred less likely: logits (B, V), seen (B, V) booleans → (B, V).

    Their logits are divided by the penalty where positive, multiplied where negative (Keskar et al. 2019, CTRL).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)  # (B, V)


def cut_tail(
    logits: Tensor, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """Rule unlikely tokens out: logits (B, V) → the same with −inf for what is cut.

    top_k: all but the k likeliest. top_p: all beyond the fewest that together reach a chance of p (Holtzman et al.
    2020, nucleus sampling). min_p: all with less than min_p times the likeliest one's chance (Nguyen et al. 2024).
    Each works on what the one before has left. At least one token always stays.
    """
    if top_k is not None:
        least = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, float("-inf"))  # (B, V)
    if top_p is not None:
        ranked, order = logits.sort(descending=True)  # (B, V)
        shares = ranked.softmax(-1)  # (B, V)
        beyond = shares.cumsum(-1) - shares >= top_p  # (B, V): the likelier ones already fill top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf"))  # (B, V)
    if min_p is not None:
        least = logits.amax(-1, keepdim=True) + math.log(min_p)  # (B, 1)
        logits = logits.masked_fill(logits < least, float("-inf"))  # (B, V)
    return logits


def choose(
    logits: Tensor,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    rng: torch.Generator,
    min_p: float | None = None,
) -> Tensor:
    """Pick one token a row: logits (B, V) → (B, 1). Temperature None is greedy: the likeliest."""
    if temperature is None:
        return logits.argmax(dim=-1, keepdim=True)  # (B, 1)
    temperature = max(temperature, 1e-30)  # the likeliest long before; smaller ones overflow
    logits = cut_tail(logits.float() / temperature, top_k, top_p, min_p)  # (B, V)
    # Gumbel's trick on the CPU: one generator gives the same text on every device.
    noise = torch.rand(logits.shape, generator=rng).clamp_min(1e-20).to(logits.device)  # (B, V)
    return (logits - (-noise.log()).log()).argmax(dim=-1, keepdim=True)  # (B, 1)


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
    would outgrow block_size (nothing slides or is dropped), or a sampling option out of range.
    """
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
    check_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    if padding is not None:
        if padding.shape != (B,) or not ((0 <= padding) & (padding < T)).all():
            raise CourseError(f"padding must be {B} numbers from 0 to {T - 1}, one a row; left_pad makes them")
        padding = padding if padding.any() else None
    if temperature is None and (top_k or top_p or min_p):
        temperature = 1.0
    penalty = 1.0 if repetition_penalty is None else repetition_penalty
    if penalty != 1:
        real = torch.arange(T, device=tokens.device) >= (0 if padding is None else padding[:, None])  # (B, T) or (T,)
        times = torch.zeros(B, model.config.vocab_size, device=tokens.device)  # (B, V)
        seen = times.scatter_add(1, tokens, real.expand(B, T).float()) > 0  # (B, V)
    was_training = model.training
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    cache = KVCache(model.config.n_layer, model.config.block_size)
    try:
        for _ in range(max_new_tokens):
            x, _ = model.hidden(tokens, cache, padding=padding)  # (B, T, D)
            logits = model.head(x[:, -1])  # (B, V)
            if penalty != 1:
                logits = penalise(logits, seen, penalty)  # (B, V)
            tokens = choose(logits, temperature, top_k, top_p, rng, min_p)  # (B, 1)
            if penalty != 1:
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


class Text:
    """Tokens in, text out as soon as it is sure: whole characters, and nothing that may become a stop string.

    after: what the text goes on from, so that a space between the two is not lost.
    """

    def __init__(self, tokenizer, stop: Sequence[str] = (), after: Sequence[int] = ()):
        self.tokenizer, self.stop = tokenizer, stop
        self.ids = [int(id) for id in after]  # those that the next text depends on
        self.known = len(self.ids)  # how many of them are out as text; they stay, for some decoders look one token back
        self.held = ""  # text that may be the beginning of a stop string
        self.stopped = False

    def add(self, id: int) -> str:
        """The text that this token makes sure; "" where it is too early to say."""
        self.ids.append(id)
        new = self._new()
        if not new or new.endswith(HALF):
            return ""
        self.ids, self.known = self.ids[self.known :], len(self.ids) - self.known
        return self._sift(new)

    def end(self) -> str:
        """What was held back, now that no more comes."""
        text = self._sift(self._new())
        text, self.held, self.ids, self.known = text + self.held, "", [], 0
        return text

    def _new(self) -> str:
        before = self.tokenizer.decode(self.ids[: self.known])
        return self.tokenizer.decode(self.ids)[len(before) :]

    def _sift(self, new: str) -> str:
        text = self.held + new
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        if found:
            self.held, self.stopped = "", True
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self.stop), default=0)
        self.held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def stream_text(
    model: Transformer, tokenizer, ids: Sequence[int], max_new_tokens: int, stop: Collection[int] = (), **options
) -> Iterator[str]:
    """Yield what follows a prompt of ids (T,) piece by piece, as text; a character that spans tokens comes whole.

    Ends before the first token in `stop`. Options are those of `stream`.
    """
    tokens, _ = left_pad([ids], device=model.embedding.weight.device)  # (1, T)
    text = Text(tokenizer, after=ids[-1:])
    for token in stream(model, tokens, max_new_tokens, **options):
        if token.item() in stop:
            break
        if piece := text.add(token.item()):
            yield piece
    if rest := text.end():
        yield rest
