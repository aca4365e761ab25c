"""Teaching a finished model one job: the training loop once more, on answers.

A row is a prompt and its answer. The model reads both, and the loss asks for the answer only. What learns is all of the
weights, the last blocks, or a LoRA (lib.adapt.lora).
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.adapt.adapters import base_sample
from lib.adapt.lora import add_lora, count_trainable, lora_layers
from lib.adapt.workers import IGNORE, shared
from lib.errors import CourseError
from lib.trainer.checkpoint import Checkpoints, fingerprint
from lib.trainer.history import History
from lib.trainer.part import Part, Watch
from lib.trainer.precision import in_precision
from lib.trainer.sound import Sound
from lib.training import TrainConfig, loop, make_optimizers, no_progress
from lib.transformer import Transformer

METHODS = ("LoRA", "last layers", "full")
RATES = {"LoRA": 2e-3, "last layers": 5e-4, "full": 1e-4}  # the more learns, the smaller its steps
RECIPE = TrainConfig(steps=240, batch_size=2, lr=RATES["LoRA"], warmup=10, weight_decay=0.0, min_lr=0.05)


@dataclass(frozen=True)
class Row:
    """One example as tokens: `prompt` of them are read, the rest, the answer and its end, are to be said."""

    tokens: tuple[int, ...]
    prompt: int

    @property
    def targets(self) -> list[int]:
        """For each token but the last, the one that follows, or IGNORE while that is still the prompt."""
        return [IGNORE] * (self.prompt - 1) + list(self.tokens[self.prompt :])


def shown(tokenizer, row: Row) -> list[tuple[str, str, bool]]:
    """What the loss mask does: for each token but the last (itself, what follows, whether the loss asks for that)."""
    texts = [tokenizer.token(id) for id in row.tokens]
    return [(here, after, target != IGNORE) for here, after, target in zip(texts, texts[1:], row.targets, strict=False)]


def batch(rows: Sequence[Row], filler: int = 0, device=None) -> tuple[Tensor, Tensor]:
    """Rows as x (B, T) and targets (B, T), filled up at the right, where no causal model looks."""
    T = max(len(row.tokens) for row in rows) - 1
    x = [list(row.tokens[:-1]) + [filler] * (T + 1 - len(row.tokens)) for row in rows]
    y = [row.targets + [IGNORE] * (T + 1 - len(row.tokens)) for row in rows]
    return torch.tensor(x, device=device), torch.tensor(y, device=device)  # (B, T) each


def answer_loss(model: Transformer, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens that are to be said; x, y (B, T), y with IGNORE for the others.

    The head, a fifth of SmolLM2's work, is asked at those places only.
    """
    x = model.last_hidden_state(x)  # (B, T, D)
    asked = y != IGNORE  # (B, T)
    return F.cross_entropy(model.head(x[asked]).float(), y[asked])  # (n, V), (n,) → ()


def order(rows: Sequence[Row], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Which rows make up each batch, for ever: every epoch shuffled anew, rows of like length put together."""
    rng = torch.Generator().manual_seed(seed)
    while True:
        shuffled = torch.randperm(len(rows), generator=rng).tolist()
        pool = 8 * batch_size  # sorted within a pool only, so that an epoch's batches differ from the last one's
        pools = [shuffled[i : i + pool] for i in range(0, len(shuffled), pool)]
        sort = [sorted(part, key=lambda i: len(rows[i].tokens)) for part in pools]
        batches = [part[i : i + batch_size] for part in sort for i in range(0, len(part), batch_size)]
        for i in torch.randperm(len(batches), generator=rng).tolist():
            yield batches[i]


def finetune(
    model: Transformer,
    rows: Sequence[Row],
    config: TrainConfig,
    folder: str | Path | None = None,
    progress: Callable[[Iterable[int], str], Iterable[int]] = no_progress,
    watch: Callable[[int, float], None] = lambda done, loss: None,
    workers: int = 1,
) -> History:
    """Train what is free to learn, in place, on the answers in `rows`; returns what the run saw.

    Of the config: steps, batch_size, optimizer, rates, schedule, clip, precision, seed, checkpoint_every.
    workers: threads that share each batch's rows; the result is the same but for rounding (without dropout).
    folder: where to keep checkpoint.safetensors, with the weights that learn only; if one is there the run goes on
    from it, to the very weights of one that was not stopped. watch(done, loss) is called after each step.
    Raises CourseError if there is nothing to learn from, nothing that learns, or the run diverges.
    """
    _check(model, rows)
    device = model.embedding.weight.device
    optimizers = make_optimizers(model, config)

    def tell(done: int, loss: Tensor) -> None:
        watch(done, loss.item())

    history = History()
    parts: list[Part] = [Watch(tell), Sound(model, optimizers, config)]
    if folder is not None:
        checkpoints = Checkpoints(folder, model, optimizers, config, _fingerprint(model, rows))
        history = checkpoints.resume()
        parts.append(checkpoints)
    numbers = order(rows, config.batch_size, config.seed)
    for _ in range(history.step):
        next(numbers)

    def batches(step: int) -> Iterator[tuple[Tensor, Tensor]]:
        chosen = [rows[i] for i in next(numbers)]
        history.tokens += sum(len(row.tokens) for row in chosen)
        yield batch(chosen, device=device)  # (B, T) each

    def named(steps: Iterable[int], label: str) -> Iterable[int]:
        return progress(steps, "fine-tuning")

    learning = [p for p in model.parameters() if p.requires_grad]
    config = dataclasses.replace(config, accumulate=1)  # a batch, a step
    with shared(in_precision(answer_loss, config.precision, device), learning, workers) as loss_of:
        return loop(model, optimizers, batches, loss_of, config, history, progress=named, parts=parts)


def prepare(
    model: Transformer, method: str, config: TrainConfig = RECIPE, first: int = 4, last: int = 6
) -> TrainConfig:
    """Free, in place, the weights that a method lets learn; returns the recipe at the method's rate.

    first: the first block with LoRA; no gradient need go through those before it, which saves some of the time.
    last: how many blocks learn by the method "last layers".
    """
    if method not in METHODS:
        raise CourseError(f"unknown method {method!r}; choose {', '.join(METHODS)}")
    if method == "LoRA":
        add_lora(model, seed=config.seed, first=min(first, len(model.blocks) - 1))
    elif method == "last layers":
        only_last(model, last)
    else:
        model.requires_grad_()
    return dataclasses.replace(config, lr=RATES[method])


def only_last(model: Transformer, n: int) -> Transformer:
    """Freeze all but the last n blocks and the norm after them, in place; returns the model."""
    if not 1 <= n <= len(model.blocks):
        raise CourseError(
            f"this model has {len(model.blocks)} blocks; train the last 1 to {len(model.blocks)}, not {n}"
        )
    model.requires_grad_(False)
    model.blocks[-n:].requires_grad_()
    model.norm.requires_grad_()
    return model


def _check(model: Transformer, rows: Sequence[Row]) -> None:
    if not rows:
        raise CourseError("there are no examples to learn from; give at least one")
    if not count_trainable(model):
        raise CourseError("every weight of this model is frozen; add_lora, only_last or requires_grad_ first")
    if any(layer.merged for layer in lora_layers(model).values()):
        raise CourseError("the LoRA is merged into the weights; unmerge the model before training it further")


def _fingerprint(model: Transformer, rows: Sequence[Row]) -> str:
    """Of what a run reads, the base that it changes, and where its LoRA is."""
    every = [token for row in rows for token in (*row.tokens, row.prompt)]
    text = fingerprint(torch.tensor([*every, *(int(1e4 * x) for x in base_sample(model))]))
    adds = sorted((place, len(layer.a), layer.scale) for place, layer in lora_layers(model).items())
    return text + (f", LoRA {zlib.crc32(repr(adds).encode()):08x}" if adds else "")
