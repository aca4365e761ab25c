"""Many texts written at once by one model: the engine behind a server, with no web in it.

Reading a model's weights takes most of a step's time, and one reading serves every text that waits for its next token.
So requests share a batch. They join and leave it between steps, and nobody waits for the longest (Yu et al. 2022,
Orca: iteration-level scheduling). A long prompt is read in pieces, between the steps of those who write already
(Agrawal et al. 2023, SARATHI: chunked prefill).

    engine = Engine(model, tokenizer)
    with engine.running():                          # in a thread of its own
        engine.submit(Request(tokenizer.chat(messages), 100, listener=print))
"""

import contextlib
import logging
import math
import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.attention import Context
from lib.errors import CourseError
from lib.generation import check_sampling, choose
from lib.inference.decoding import Decoder
from lib.inference.text import Text, endings
from lib.transformer import Config, Transformer

ROUND = 64  # looked-up lengths are multiples of this, so that sums come out alike whoever else is in the batch


@dataclass(frozen=True)
class Piece:
    """A bit of a request's text. The last has a finish; `tokens` is how many were written so far.

    finish: "stop" (the model ended its turn, or a stop string came), "length" (max_new_tokens), "cancelled",
    "closed" (the engine closed before its turn came) or "error" (a fault in the engine; the text says which).
    """

    text: str
    tokens: int
    finish: str | None = None


@dataclass(eq=False)
class Request:
    """A prompt (T,) to go on from. Greedy where temperature is None.

    listener is called with each Piece, in the engine's thread; it must be quick. Neither the token that ends a turn nor
    a stop string is part of the text; the former is not counted either.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    stop: Sequence[str] = ()
    listener: Callable[[Piece], object] = field(default=lambda piece: None, repr=False)
    cancelled: bool = False  # set by Engine.cancel


class Full(Exception):
    """No place in the queue; try again later."""


class Closed(Exception):
    """The engine takes no more requests."""


class Rows:
    """Keys and values of up to `rows` texts, each in a row of its own, from place 0 on.

    Texts of a batch differ in length, so a mask hides what lies beyond each one's end. What lies there must be
    numbers nevertheless (nothing times NaN is NaN): the memory begins as zeros. On a CPU only what is written to takes
    up memory. `release` gives all of it back; the next use takes it anew.
    """

    def __init__(self, config: Config, rows: int, context: int, device: torch.device, dtype: torch.dtype):
        self.shape = (config.n_layer, 2, rows, config.n_kv_head, context, config.head_dim)
        self.device, self.dtype = device, dtype
        self.memory: Tensor | None = None

    @property
    def most_bytes(self) -> int:
        """What all rows take, filled to the end."""
        return math.prod(self.shape) * self.dtype.itemsize

    def layers(self, first: int, places: Tensor, end: int) -> list["LayerRows"]:
        """For one pass over rows first, first + 1, …: places (B, T) of the new tokens; all up to `end` is looked up."""
        if self.memory is None:
            if self.device.type == "cpu":
                self.memory = torch.frombuffer(mmap.mmap(-1, self.most_bytes), dtype=self.dtype).view(self.shape)
            else:
                self.memory = torch.zeros(self.shape, device=self.device, dtype=self.dtype)
        part = self.memory[:, :, first : first + len(places), :, :end]  # (n_layer, 2, B, K, S, Dh)
        row = torch.arange(len(places), device=self.device)[:, None]  # (B, 1)
        return [LayerRows(k, v, row, places) for k, v in part]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` places of a row to another row."""
        if self.memory is not None and source != target:
            self.memory[:, :, target, :, :length] = self.memory[:, :, source, :, :length]

    def release(self) -> None:
        self.memory = None


@dataclass
class LayerRows:
    """One layer's part in one pass; to a Block it is a cache."""

    k: Tensor  # (B, K, S, Dh)
    v: Tensor
    row: Tensor  # (B, 1)
    places: Tensor  # (B, T)

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put (B, K, T, Dh) keys and values at their places; return all, (B, K, S, Dh) each."""
        self.k[self.row, :, self.places] = k.transpose(1, 2)  # (B, T, K, Dh)
        self.v[self.row, :, self.places] = v.transpose(1, 2)
        return self.k, self.v


class Seat:
    """A request that has a row."""

    def __init__(self, request: Request, tokenizer):
        self.request = request
        self.text = Text(tokenizer, request.stop)
        self.rng = torch.Generator().manual_seed(request.seed)
        self.length = 0  # tokens in the cache
        self.last = -1  # the token that comes next into it
        self.tokens = 0  # written
        self.finish: str | None = None


class Engine:
    """Writes for many requests at once. `submit` and `cancel` may be called from any thread.

    model: a Transformer, which is laid out anew for batches (lib.inference.decoding), or a Decoder. tokenizer: with
    `decode`, and with `ends` or `eos_id` where tokens end a turn. max_batch: how many write at once; context: the most
    tokens of a prompt and its answer; max_waiting: how many more may wait; chunk: how much of a prompt is read between
    two steps.
    A prompt is read by itself, always cut at the same places, so a greedy answer is the same in whatever company.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer,
        max_batch: int = 8,
        context: int | None = None,
        max_waiting: int = 64,
        chunk: int = 256,
    ):
        block_size = model.config.block_size
        context = min(2048, block_size) if context is None else context
        least = dict(max_batch=1, context=2, max_waiting=0, chunk=1)
        given = dict(max_batch=max_batch, context=context, max_waiting=max_waiting, chunk=chunk)
        for name, value in given.items():
            if value < least[name]:
                raise CourseError(f"{name} must be at least {least[name]}, not {value}")
        if context > block_size:
            raise CourseError(f"a context of {context} is more than block_size={block_size}; choose a shorter one")
        weight = model.embedding.weight
        # Laid out for several rows also where max_batch is 1: one row then rounds as it does among others.
        self.model = model if isinstance(model, Decoder) else Decoder(model, rows=max(2, max_batch))
        self.tokenizer, self.ends = tokenizer, endings(tokenizer)
        self.max_batch, self.context, self.max_waiting, self.chunk = max_batch, context, max_waiting, chunk
        self.rows = Rows(model.config, max_batch, context, weight.device, weight.dtype)
        self._waiting: deque[Request] = deque()
        self._writing: list[Seat] = []  # in rows 0, 1, …
        self._reading: Seat | None = None  # in the row after them
        self._closing = False
        self._changed = threading.Condition()

    # From any thread

    def submit(self, request: Request) -> None:
        """Put a request in the queue. Raises Full, Closed, or CourseError for a request that can't be served."""
        check_sampling(request.temperature, top_p=request.top_p)
        if not request.prompt:
            raise CourseError("an empty prompt gives nothing to continue; pass at least one token")
        if request.max_new_tokens < 1:
            raise CourseError(f"max_new_tokens must be at least 1, not {request.max_new_tokens}")
        if len(request.prompt) + request.max_new_tokens > self.context:
            raise CourseError(
                f"a prompt of {len(request.prompt)} tokens and {request.max_new_tokens} new ones exceed the context of "
                f"{self.context}; shorten one of them"
            )
        V = self.model.config.vocab_size
        if min(request.prompt) < 0 or max(request.prompt) >= V:
            raise CourseError(f"a prompt's ids are 0 to {V - 1}; encode it with the tokenizer the model was made for")
        if not isinstance(request.seed, int) or not -(2**63) <= request.seed < 2**63:
            raise CourseError(f"a seed is a whole number of 64 bits, not {request.seed!r}")
        if any(not stop for stop in request.stop):
            raise CourseError("an empty stop string would stop everything; leave it out")
        with self._changed:
            if self._closing:
                raise Closed
            if len(self._waiting) >= self.max_waiting + self.max_batch - self.seated:
                raise Full
            self._waiting.append(request)
            self._changed.notify_all()

    def cancel(self, request: Request) -> None:
        """Nobody wants the answer any more: its place is free before the next step."""
        with self._changed:
            request.cancelled = True
            self._changed.notify_all()

    @property
    def seated(self) -> int:
        """How many requests have a row."""
        return len(self._writing) + (self._reading is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Take no more requests. Those that have a row end as they would; those that wait are told "closed"."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    @contextlib.contextmanager
    def running(self) -> Iterator["Engine"]:
        """Step in a thread of its own; at the end, close and wait for the answers under way."""
        thread = threading.Thread(target=self.run, name="engine", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.close()
            thread.join()

    # In the engine's thread

    def run(self) -> None:
        """Step until closed and done. A fault costs the requests that were in it, not the engine."""
        while True:
            try:
                busy = self.step()
            except Exception as fault:
                self._fail(fault)
                continue
            if not busy:
                with self._changed:
                    if self._closing and not self._waiting:
                        return
                    self._changed.wait_for(lambda: self._waiting or self._closing)

    @torch.inference_mode()
    def step(self) -> bool:
        """Let go of the cancelled, read some of a prompt, write a token for each. False if there was nothing to do."""
        self._let_go()
        self._read()
        self._write()
        if not self.seated and not self.waiting:
            self.rows.release()
            return False
        return True

    def _let_go(self) -> None:
        with self._changed:
            waiting = list(self._waiting)
            gone = waiting if self._closing else [request for request in waiting if request.cancelled]
            for request in gone:
                self._waiting.remove(request)
        for request in gone:
            self._tell(request, Piece("", 0, "cancelled" if request.cancelled else "closed"))
        for seat in [*self._writing, self._reading]:
            if seat is not None and seat.request.cancelled:
                self._end(seat, "cancelled")
        self._leave()

    def _read(self) -> None:
        """Read prompts until the chunk is used up; who has been read writes its first token."""
        budget = self.chunk
        while budget > 0:
            if self._reading is None:
                with self._changed:
                    if not self._waiting or len(self._writing) == self.max_batch:
                        return
                    self._reading = Seat(self._waiting.popleft(), self.tokenizer)
            seat = self._reading
            part = seat.request.prompt[seat.length : seat.length + self.chunk]
            logits = self._pass(len(self._writing), [part], [seat.length])  # (1, V)
            seat.length += len(part)
            budget -= len(part)
            if seat.length == len(seat.request.prompt):
                self._reading = None
                self._writing.append(seat)
                self._give([seat], logits)

    def _write(self) -> None:
        if self._writing:
            seats = list(self._writing)
            logits = self._pass(0, [[seat.last] for seat in seats], [seat.length for seat in seats])  # (B, V)
            for seat in seats:
                seat.length += 1
            self._give(seats, logits)

    def _pass(self, first: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """The scores (B, V) after the last of tokens (B, T), which stand at starts (B,) and on; rows from `first`."""
        model, config, device = self.model, self.model.config, self.rows.device
        T = len(tokens[0])
        end = min(self.context, -(-(max(starts) + T) // ROUND) * ROUND)  # S
        places = torch.tensor(starts, device=device)[:, None] + torch.arange(T, device=device)  # (B, T)
        distance = places[..., None] - torch.arange(end, device=device)  # (B, T, S)
        mask = distance >= 0  # (B, T, S): oneself, and what came before
        if config.sliding_window:
            mask &= distance < config.sliding_window
        x = model.embed(torch.tensor(tokens, device=device), places)  # (B, T, D)
        context = Context(model.rotary(places), mask=mask[:, None])  # (B, 1, T, Dh/2) each, (B, 1, T, S)
        for block, layer in zip(model.blocks, self.rows.layers(first, places, end), strict=True):
            x = block(x, context, layer)  # (B, T, D)
        return model.head(model.norm(x[:, -1]))  # (B, V)

    def _give(self, seats: list[Seat], logits: Tensor) -> None:
        """Choose each seat's next token from logits (B, V), and tell its listener what it means."""
        likeliest = logits.argmax(-1).tolist()
        for i, seat in enumerate(seats):
            request, token = seat.request, likeliest[i]
            if request.temperature is not None:
                token = choose(logits[i : i + 1], request.temperature, None, request.top_p, seat.rng).item()
            if token in self.ends:
                self._end(seat, "stop")
                continue
            seat.last = token
            seat.tokens += 1
            text = seat.text.add(token)
            if seat.text.stopped:
                self._end(seat, "stop", text)
            elif seat.tokens == request.max_new_tokens:
                self._end(seat, "length", text)
            elif text:
                self._tell(request, Piece(text, seat.tokens))
        self._leave()

    def _tell(self, request: Request, piece: Piece) -> None:
        """Pass a piece on. A listener's own fault costs its own request, nobody else's."""
        try:
            request.listener(piece)
        except Exception:
            logging.getLogger(__name__).exception("a listener failed; its request is cancelled")
            request.cancelled = True

    def _end(self, seat: Seat, finish: str, text: str = "") -> None:
        text += "" if seat.text.stopped else seat.text.end()
        seat.finish = "stop" if seat.text.stopped else finish
        self._tell(seat.request, Piece(text, seat.tokens, seat.finish))

    def _leave(self) -> None:
        """Take away the seats that have ended; the last ones move into the gaps, so that rows stay side by side."""
        for i in reversed(range(len(self._writing))):
            if self._writing[i].finish:
                last = self._writing.pop()
                if i < len(self._writing):
                    self._writing[i] = last
                    self.rows.move(len(self._writing), i, last.length)
                if self._reading is not None:
                    self.rows.move(len(self._writing) + 1, len(self._writing), self._reading.length)
        if self._reading is not None and self._reading.finish:
            self._reading = None

    def _fail(self, fault: Exception) -> None:
        logging.getLogger(__name__).error("a step failed; the requests that were in it are lost", exc_info=fault)
        for seat in [*self._writing, self._reading]:
            if seat is not None and not seat.finish:
                self._tell(seat.request, Piece(f"{type(fault).__name__}: {fault}", seat.tokens, "error"))
        self._writing, self._reading = [], None
        self.rows.release()
