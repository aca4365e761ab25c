"""Turning a pile of random numbers into a model: batches in, loss down, nothing lost on the way.

`loop` is the training loop of lesson 05. `train` runs it on a text, along with what a long run needs: checkpoints,
several processes and the rest are parts of lib.trainer, a file each, and `loop` does without them.

A run is a pure function of its TrainConfig, the starting weights and the text: batches and dropout are drawn from
(seed, step), so a run that is killed and resumed from its checkpoint ends with the very weights of one that was not.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import corpus
from lib.errors import CourseError
from lib.trainer.checkpoint import Checkpoints, fingerprint
from lib.trainer.delivery import deliver
from lib.trainer.history import History
from lib.trainer.muon import Muon
from lib.trainer.parallel import ALONE, Team, Together
from lib.trainer.part import Part, Parts, Watch
from lib.trainer.precision import PRECISIONS, Compiled, in_precision
from lib.trainer.sound import Sound
from lib.transformer import Transformer

SCHEDULES = ("cosine", "wsd", "constant")
MOST = 2**31  # of steps, rows and tokens
SEEDS = 2**43  # seeds lie below: each step's own, a million times that, is a number of 64 bits
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides how a run goes. Rates are per step, sizes in sequences or tokens."""

    steps: int = 2000
    batch_size: int = 12  # sequences in one forward pass
    block_size: int = 64  # tokens in a sequence
    accumulate: int = 1  # forward passes summed into one step
    optimizer: str = "adamw"
    lr: float = 1e-3
    muon_lr: float = 0.02  # the matrices' rate under optimizer="muon"; the rest use AdamW at lr
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 1.0
    schedule: str = "cosine"
    warmup: int = 100
    min_lr: float = 0.1  # as a share of the peak
    cooldown: float = 0.4  # the share of steps that a wsd schedule spends going down
    precision: str = "float32"
    compile: bool = False
    seed: int = 0
    eval_every: int = 200
    eval_batches: int = 20
    checkpoint_every: int = 0  # 0: only at the end; no folder, no checkpoint

    def __post_init__(self):
        for name, choices in (("precision", PRECISIONS), ("schedule", SCHEDULES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in choices:
                raise CourseError(f"unknown {name} {getattr(self, name)!r}; choose {', '.join(choices)}")
        for name in ("steps", "batch_size", "block_size", "accumulate", "eval_every", "eval_batches"):
            if getattr(self, name) < 1:
                raise CourseError(f"{name} must be at least 1, not {getattr(self, name)}")
            if getattr(self, name) >= MOST:
                raise CourseError(f"{name} must be below {MOST:,}, not {getattr(self, name)}")
        for name in ("seed", "warmup", "checkpoint_every", "lr", "muon_lr", "weight_decay", "grad_clip"):
            if not getattr(self, name) >= 0 or (getattr(self, name) == math.inf and name != "grad_clip"):
                raise CourseError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.seed >= SEEDS:
            raise CourseError(f"seed must be below {SEEDS:,}, not {self.seed}")
        for name in ("min_lr", "cooldown"):
            if not 0 <= getattr(self, name) <= 1:
                raise CourseError(f"{name} is a share, between 0 and 1, not {getattr(self, name)}")


def schedule(step: int, config: TrainConfig) -> float:
    """The learning rate at a step, as a share of its peak: warm up, then come down.

    cosine: half a cosine wave to min_lr (Loshchilov and Hutter 2017). wsd: hold, then straight down over the last
    `cooldown` of the steps (Hu et al. 2024). constant: hold.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)  # 0 … 1
    if config.schedule == "cosine":
        fall = 0.5 * (1 - math.cos(math.pi * done))
    elif config.schedule == "wsd":
        fall = max(0.0, done - 1 + config.cooldown) / (config.cooldown or 1)
    else:
        fall = 0.0
    return 1 - (1 - config.min_lr) * fall


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest. Vectors are never decayed."""
    matrices, tables, vectors = [], [], []
    for name, p in model.named_parameters():
        (vectors if p.ndim < 2 else matrices if name.startswith("blocks.") else tables).append(p)
    muon = config.optimizer == "muon" and bool(matrices)
    groups = [
        dict(params=tables if muon else matrices + tables, weight_decay=config.weight_decay),
        dict(params=vectors, weight_decay=0.0),
    ]
    groups = [g for g in groups if g["params"]]
    optimizers = [torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)]
    if muon:
        optimizers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def next_token_loss(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats: how surprised the model is by the token that really comes next. x, y (B, T)."""
    logits = model(x)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())  # ()


@torch.no_grad()
def evaluate(
    model: nn.Module, tokens: Tensor, batch_size: int, block_size: int, batches: int = 20, team: Team = ALONE
) -> float:
    """Mean loss on evenly spaced windows of held-out tokens (N,): the same windows at every call.

    A team shares the windows; each of its processes gets the mean over all. As long as a batch has a row for each,
    all make as many passes, as they must if sharded: shares differ by one window, and full batches come before it.
    """
    device = next(model.parameters()).device
    room = tokens.numel() - block_size - 1
    if room < 0:
        raise CourseError(
            f"the held-out text has {tokens.numel()} tokens, fewer than a block of {block_size} and one more; "
            f"use a longer text or a smaller block_size"
        )
    starts = torch.linspace(0, room, batches * batch_size, dtype=torch.float64).long()  # (n,)
    windows = tokens[(starts[:, None] + torch.arange(block_size + 1)).to(tokens.device)].long()  # (n, T + 1)
    was_training = model.training
    model.eval()
    total = 0.0
    for window in windows[team.share(len(windows))].split(batch_size):
        window = window.to(device)
        total += next_token_loss(model, window[:, :-1], window[:, 1:]).item() * len(window)
    model.train(was_training)
    return team.total(total, device) / len(windows)


def no_progress(steps: Iterable[int], label: str) -> Iterable[int]:
    return steps


def loop(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor],
    config: TrainConfig,
    history: History,
    look: Callable[[int], None] = lambda step: None,
    progress: Callable[[Iterable[int], str], Iterable[int]] = no_progress,
    parts: Sequence[Part] = (),
) -> History:
    """The plain loop, for texts, pictures and answers alike: trains in place, and returns the history, filled.

    batches(step) gives the `accumulate` batches (x, y) of a step, loss_of(model, x, y) the mean loss of one, (), and
    look(step) judges the model every eval_every steps. parts: what else goes along (lib.trainer.part).
    """
    device, others = next(model.parameters()).device, Parts(parts)
    others.begin(history)
    model.train()
    if history.step == 0:
        look(0)
    history.start()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in progress(range(history.step, config.steps), "training"):
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout is drawn from seed and step, as batches are
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * schedule(step, config)
            others.before(step)
            total = 0.0
            for x, y in batches(step):
                loss = loss_of(model, x, y) / config.accumulate  # how surprised?
                loss = others.weigh(loss)
                loss.backward()  # which way is up, for every parameter?
                total = total + loss.detach()  # ()
            others.gradients(total)
            if config.grad_clip:
                nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)  # no leaps
            for optimizer in optimizers:
                optimizer.step()  # a small step down
                optimizer.zero_grad()  # forget the gradient
            history.add(total)
            done = step + 1
            if done == config.steps or done % config.eval_every == 0:
                look(done)
            if others.after(done, total):
                break
    history.settle()
    model.eval()
    return history


def train(
    model: Transformer,
    train_tokens: Tensor,
    val_tokens: Tensor | None,
    config: TrainConfig,
    on_eval: Callable[[int, History], None] | None = None,
    folder: str | Path | None = None,
    progress: Callable[[Iterable[int], str], Iterable[int]] = no_progress,
    watch: Callable[[int, Tensor], bool] = lambda done, loss: False,
    team: Team = ALONE,
) -> History:
    """Train in place on a long run of tokens (N,); returns what the run saw.

    on_eval(step, history) is called after each evaluation on val_tokens, the one before the first step included.
    folder: where to keep checkpoint.safetensors; if one is there the run goes on from it.
    progress: wraps the steps in a progress bar; if it ends early, so does the run.
    watch(done, loss) is called at the end of each step, the loss still on its device; True saves the run and ends it.
    team: the processes that share the work; all call this with equal models, texts and configs. Only the leader
    writes checkpoints, into a folder that all can read. Team.place may have cut the model between them: the run and
    its checkpoints are the same, and on_eval must not read a weight in one process alone.
    Raises CourseError if the text is shorter than a block or the model's block is, or has tokens the model lacks, or
    the team is larger than a batch; Diverged (lib.trainer.sound), another, once losses or weights are not finite.
    """
    _check(model, config, train_tokens, val_tokens)
    device = next(model.parameters()).device
    optimizers = make_optimizers(model, config)
    history = History()
    sound = Sound(model, optimizers, config, team)
    parts: list[Part] = [Watch(watch) if team.size == 1 else Together(team, model, config, watch), sound]
    if folder is not None:
        checkpoints = Checkpoints(folder, model, optimizers, config, fingerprint(train_tokens), team)
        history = checkpoints.resume()
        parts.append(checkpoints)
    loss_of, judge = (in_precision(what, config.precision, device) for what in (next_token_loss, evaluate))

    def batches(step: int) -> Iterable[tuple[Tensor, Tensor]]:
        rows = config.batch_size * config.accumulate
        x, y = corpus.batches(train_tokens, rows, config.block_size, config.seed, step)  # (A·B, T) each
        history.tokens += x.numel()
        return deliver(x, y, config.batch_size, device, team.share(config.batch_size))

    def look(step: int) -> None:
        if val_tokens is None:
            return
        sound.look()
        loss = judge(model, val_tokens, config.batch_size, config.block_size, config.eval_batches, team)
        sound.judge(loss)
        history.val_steps.append(step)
        history.val_loss.append(loss)
        if on_eval is not None:
            on_eval(step, history)

    run = Compiled(model) if config.compile else model
    return loop(run, optimizers, batches, loss_of, config, history, look, progress, parts)


def _check(model: Transformer, config: TrainConfig, *texts: Tensor | None) -> None:
    if config.block_size > model.config.block_size:
        raise CourseError(f"block_size={config.block_size} is longer than the model's {model.config.block_size}")
    for tokens in texts:  # on a GPU the look-up would fail later, and say nothing
        if tokens is not None and tokens.numel() and tokens.max() >= model.config.vocab_size:
            raise CourseError(
                f"token {tokens.max()} is not among the model's {model.config.vocab_size}; "
                f"encode the text with the tokenizer the model was made for"
            )
