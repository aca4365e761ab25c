"""Turning a pile of random numbers into a model: batches in, loss down, nothing lost on the way.

A run is a pure function of its TrainConfig, the starting weights and the text: batches and dropout are drawn from
(seed, step), so a run that is killed and resumed from its checkpoint ends with the very weights of one that was not.
Several processes can train one model together (lib.trainer.parallel): the batch stays the same, each reads its share of
it, and may keep only its share of the weights.
"""

import contextlib
import dataclasses
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lib import corpus
from lib.errors import CourseError
from lib.trainer.parallel import ALONE, Team, cut, is_cut, whole
from lib.transformer import Config, Transformer

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SCHEDULES = ("cosine", "wsd", "constant")
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
        for name in ("seed", "warmup", "checkpoint_every", "lr", "muon_lr", "weight_decay", "grad_clip"):
            if not getattr(self, name) >= 0:
                raise CourseError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("min_lr", "cooldown"):
            if not 0 <= getattr(self, name) <= 1:
                raise CourseError(f"{name} is a share, between 0 and 1, not {getattr(self, name)}")


@dataclass
class History:
    """What a run saw. train_loss has one entry a step; val_loss one for each of val_steps; losses in nats a token."""

    train_loss: list[float] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def step(self) -> int:
        return len(self.train_loss)


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


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal: every direction of a matrix moves by the same amount (Jordan 2024).

    For the hidden matrices only. Matrices of one shape are stacked and orthogonalised together, in float32 on a CPU
    and bfloat16 on a GPU, by five steps of a Newton–Schulz iteration. Of matrices that are cut between processes each
    is made whole in turn: every process orthogonalises all of it and keeps its share.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay=0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @staticmethod
    def orthogonalise(g: Tensor) -> Tensor:
        """The nearest matrices with all singular values near 1: (n, R, C) → (n, R, C)."""
        x = g.bfloat16() if g.is_cuda else g  # (n, R, C)
        if tall := x.size(-2) > x.size(-1):
            x = x.mT
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):  # an odd polynomial of the singular values: 3.4445 x − 4.7750 x³ + 2.0315 x⁵
            gram = x @ x.mT  # (n, R, R)
            cubic = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)  # (n, R, R)
            x = torch.baddbmm(x, cubic, x, beta=3.4445)  # (n, R, C)
        return (x.mT if tall else x).to(g.dtype)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, parameters in shapes.items():
                gradients = [p.grad for p in parameters]
                for p in parameters:
                    if not self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)  # (R, C)
                momenta = [self.state[p]["momentum"] for p in parameters]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                updates = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's look ahead
                if is_cut(updates[0]):
                    orthogonal = [cut(self.orthogonalise(whole(u)[None])[0], like=u) for u in updates]  # (R, C) each
                else:
                    orthogonal = list(self.orthogonalise(torch.stack(updates)))  # (R, C) each
                scale = group["lr"] * math.sqrt(max(1, shape[0] / shape[1]))
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(parameters, orthogonal, alpha=scale)


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
    if team.size > 1:
        everyone = torch.tensor([total], dtype=torch.float64, device=device)  # (1,)
        team.add_up([everyone])
        total = everyone.item()
    return total / len(windows)


def memory(model: Config, config: TrainConfig, team: Team = ALONE) -> int:
    """About how many bytes one process of a run needs: weights, gradients, averages, and activations kept for the way
    back. Counted per token: 11 D + 4 F in a block, 3 V at the head (PyTorch's fused attention keeps no (T, S)).

    If sharded, it holds its share of the first three, and all of what is at work: the embedding, the head and about
    two blocks with their gradients. bfloat16's copies of the weights stay whole until they have been back."""
    with torch.device("meta"):  # sizes without numbers
        sizes = Transformer(model)
    weights = sum(p.numel() for p in sizes.parameters())
    rows = -(-config.batch_size // team.size)
    width = 4 if config.precision == "float32" else 2
    blocks = model.n_layer * (11 * model.d_model + 4 * model.d_ff)
    kept = (16 if team.size == 1 else 20) * weights  # a team sends its gradients in one piece, a copy
    if team.sharded:
        block = sum(p.numel() for p in sizes.blocks[0].parameters())
        kept = 16 * weights // team.size + 8 * (weights - model.n_layer * block) + 16 * block
        kept += 2 * weights if width == 2 else 0
    return kept + rows * config.block_size * (width * blocks + 12 * model.vocab_size)


def out_of_memory(model: Config, config: TrainConfig, free: int | None = None, team: Team = ALONE) -> str:
    """What to tell someone whose run does not fit: the largest batch that does and takes the same steps.

    free: bytes that are there; None if unknown, after a run that failed.
    """
    need = f"a batch of {config.batch_size} rows needs about {memory(model, config, team) / 2**30:.1f} GiB"
    told = f"out of memory: {need}" if free is None else f"{need} and {free / 2**30:.1f} GiB are free"
    for rows in range(config.batch_size - 1, team.size - 1, -1):
        smaller = dataclasses.replace(config, batch_size=rows)
        fits = free is None or memory(model, smaller, team) <= free
        if config.batch_size % rows == 0 and fits:
            parts = config.accumulate * config.batch_size // rows
            sure = "is worth a try" if free is None else "fits"
            return f"{told}; --batch-size {rows} --accumulate {parts} {sure} and takes the same steps"
    cut = " or --shard" if 1 < team.size and not team.sharded else ""
    return f"{told}; not even one row fits: choose a smaller --d-model, --n-layer or --block-size{cut}"


def free_memory(device: torch.device) -> int:
    """Bytes that a run may still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def check_memory(model: Config, config: TrainConfig, device: torch.device, team: Team = ALONE) -> None:
    """Raise CourseError, saying what would fit, if a run needs more memory than there is.

    Asked before the run: on a CPU the system would kill it without a word.
    """
    free = free_memory(device) // (1 if device.type == "cuda" else team.size)
    if memory(model, config, team) > free:
        raise CourseError(out_of_memory(model, config, free, team))


def fingerprint(tokens: Tensor) -> str:
    """Length and checksum of a text's tokens (N,): a run that goes on must go on reading the same text."""
    tokens = tokens.cpu().to(torch.int32).contiguous()  # (N,)
    return f"{tokens.numel()} tokens, {zlib.crc32(tokens.numpy()):08x}"


def save_checkpoint(
    path: Path,
    model: Transformer,
    optimizers,
    config: TrainConfig,
    history: History,
    text: str = "",
    team: Team = ALONE,
) -> None:
    """Everything a run needs to go on, in one safetensors file that appears whole or not at all.

    text: the fingerprint of what it reads. team: all its processes call this, since tensors that are cut are made
    whole, one at a time; the leader writes. Raises CourseError if the file cannot be written.
    """
    tensors = {f"model/{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    names = {p: name for name, p in model.named_parameters()}
    for i, optimizer in enumerate(optimizers):
        for p, state in optimizer.state.items():
            tensors |= {f"optimizer/{i}/{key}/{names[p]}": value for key, value in state.items()}
    complete = {}
    for key, value in tensors.items():
        value = whole(value)
        if team.leader:
            complete[key] = value.contiguous().cpu()
    if not team.leader:
        return
    about = dict(
        version=1,
        text=text,
        model=model.config.to_dict(),
        train=dataclasses.asdict(config),
        history=dataclasses.asdict(history),
    )
    half = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(complete, half, metadata={"about": json.dumps(about)})
        half.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        why = " ".join(str(error).split())
        raise CourseError(f"cannot write {path} ({why}); free some space or choose another folder") from None


def load_checkpoint(path: Path, model: Transformer, optimizers, config: TrainConfig, text: str = "") -> History:
    """Put model and optimizers back as they were; returns the history so far.

    Raises CourseError, and changes nothing, if the file is damaged or belongs to another model, run or text.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        version = about["version"]
        saved = about if version != 1 else {part: about[part] for part in ("model", "train", "text", "history")}
        history = History(**saved["history"]) if version == 1 else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise CourseError(f"{path} is not a whole checkpoint ({why}); delete it to start anew") from None
    if version != 1:
        raise CourseError(f"{path} has checkpoint version {version}, this code reads 1; delete it or update")
    ours = json.loads(json.dumps(dict(model=model.config.to_dict(), train=dataclasses.asdict(config))))
    free = {"eval_every", "eval_batches", "checkpoint_every", "compile"}  # these do not change the trajectory
    for part, fields in ours.items():
        for name, value in fields.items():
            if name not in free and saved[part].get(name) != value:
                raise CourseError(
                    f"{path} was made with {name}={saved[part].get(name)}, this run has {name}={value}; "
                    f"match it, or delete the checkpoint to start anew"
                )
    if saved["text"] != text:
        what = "text or LoRA" if "LoRA" in f"{saved['text']} {text}" else "text"
        raise CourseError(
            f"{path} was made from another {what} ({saved['text']}; this one has {text}); "
            f"match it, or delete the checkpoint to start anew"
        )
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}  # what is frozen is not kept
    if lost := [name for name in parameters if f"model/{name}" not in tensors]:
        raise CourseError(f"{path} is not a whole checkpoint ({lost[0]} is missing); delete it to start anew")
    slots = {}  # of a key: the optimizer, what it keeps there, and of which parameter
    for key, value in tensors.items():
        part, _, name = key.rpartition("/")
        of_optimizer, p = re.fullmatch(r"optimizer/(\d+)/(\w+)", part), parameters.get(name)
        known = part == "model" or (of_optimizer and int(of_optimizer[1]) < len(optimizers))
        if not known or p is None or (value.shape != p.shape and (part == "model" or value.ndim)):
            raise CourseError(f"{path} is of another model ({key} does not fit); delete it to start anew")
        if of_optimizer:
            slots[key] = optimizers[int(of_optimizer[1])], of_optimizer[2], p
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(cut(tensors[f"model/{name}"], like=p))
    for key, (optimizer, slot, p) in slots.items():
        value = tensors[key]
        # The fused AdamW's step count too, which is nobody's share.
        optimizer.state[p][slot] = cut(value, like=p) if value.ndim else value.to(p.device)
    return history


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model through torch.compile, which looks for a compiler only when it is first called."""
    fast = torch.compile(model)

    def run(tokens: Tensor) -> Tensor:
        try:
            return fast(tokens)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = str(error).strip().split("\n")[0]
            raise CourseError(f"torch.compile failed ({why}); install a C++ compiler or set compile=False") from None

    return run


def no_progress(steps: Iterable[int], label: str) -> Iterable[int]:
    return steps


def prepared(model: nn.Module, config: TrainConfig, device: torch.device):
    """(the model as it is to be called, the context to call it in), by the config's compile and precision."""
    half = PRECISIONS[config.precision] is not torch.float32
    cast = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()
    return _compiled(model) if config.compile else model, cast


def begin_step(optimizers: list[torch.optim.Optimizer], config: TrainConfig, step: int, rank: int = 0) -> None:
    """Set what follows from seed and step alone: the random state that dropout draws from, and the learning rates."""
    torch.manual_seed(config.seed * 1_000_003 + step + (rank << 48))  # each of a team draws its own dropout
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(step, config)


def end_step(model: nn.Module, optimizers: list[torch.optim.Optimizer], config: TrainConfig) -> None:
    """Clip the gradients, move the weights, forget the gradients."""
    if config.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


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
    watch(done, loss) is called after each step, the loss still on its device; True saves the run and ends it.
    team: the processes that share the work; all call this with equal models, texts and configs. Only the leader
    writes checkpoints, into a folder that all can read. Team.place may have cut the model between them: the run and
    its checkpoints are the same, and on_eval must not read a weight in one process alone.
    Raises CourseError if the text is shorter than a block or the model's block is, or has tokens the model lacks, or
    the team is larger than a batch.
    """
    if config.block_size > model.config.block_size:
        raise CourseError(f"block_size={config.block_size} is longer than the model's {model.config.block_size}")
    for tokens in (train_tokens, val_tokens):  # on a GPU the look-up would fail later, and say nothing
        if tokens is not None and tokens.numel() and tokens.max() >= model.config.vocab_size:
            raise CourseError(
                f"token {tokens.max()} is not among the model's {model.config.vocab_size}; "
                f"encode the text with the tokenizer the model was made for"
            )
    if team.size > config.batch_size:
        raise CourseError(
            f"{team.size} processes cannot share a batch of {config.batch_size} rows; "
            f"start at most {config.batch_size} processes or use a larger batch_size"
        )
    device = next(model.parameters()).device
    optimizers = make_optimizers(model, config)
    path = None if folder is None else Path(folder) / "checkpoint.safetensors"
    history = History()
    text = "" if path is None else fingerprint(train_tokens)
    if path is not None and path.exists():
        history = load_checkpoint(path, model, optimizers, config, text)
    team.agree(history.step, "the step to go on from")
    held = [p for p in model.parameters() if not is_cut(p)]  # by every process; of a model that is cut, none
    team.follow(held)
    rows_in_step = config.batch_size * config.accumulate
    rows = team.share(config.batch_size)
    share = (rows.stop - rows.start) / config.batch_size
    run, cast = prepared(model, config, device)

    def look(step: int) -> None:
        if val_tokens is None:
            return
        history.val_steps.append(step)
        with cast:
            loss = evaluate(model, val_tokens, config.batch_size, config.block_size, config.eval_batches, team)
        history.val_loss.append(loss)
        if on_eval is not None:
            on_eval(step, history)

    model.train()
    if history.step == 0:
        look(0)
    before, started = history.seconds, time.perf_counter()
    losses: list[Tensor] = []  # left on the device until someone looks, so that the GPU need not wait
    leaving = False

    def note() -> None:
        history.train_loss += torch.stack(losses).tolist() if losses else []
        losses.clear()
        history.seconds = before + time.perf_counter() - started

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in progress(range(history.step, config.steps), "training"):
            begin_step(optimizers, config, step, team.rank)
            loss = torch.zeros((), device=device)
            x, y = corpus.batches(train_tokens, rows_in_step, config.block_size, config.seed, step)  # (A·B, T) each
            if hurried := device.type == "cuda" and not x.is_cuda:  # the GPU fetches them itself; nobody waits
                x, y = x.pin_memory(), y.pin_memory()  # (A·B, T) each
            for x_part, y_part in zip(x.split(config.batch_size), y.split(config.batch_size), strict=True):
                inputs, targets = (part[rows].to(device, non_blocking=hurried) for part in (x_part, y_part))  # (B, T)
                with cast:
                    piece = next_token_loss(run, inputs, targets)  # ()
                piece = piece / config.accumulate
                if team.size > 1:
                    piece = piece * share  # a mean over this process's rows, weighted by how many they are
                piece.backward()
                loss += piece.detach()
            if team.size > 1:
                votes = torch.tensor([float(leaving)], device=device)  # (1,): all leave together or none does
                team.add_up([p.grad for p in held] + [loss, votes])  # cut gradients were added up on the way back
                leaving = votes.item() > 0
            end_step(model, optimizers, config)
            losses.append(loss)
            history.tokens += rows_in_step * config.block_size
            done = step + 1
            last = done == config.steps
            ending, leaving = leaving, watch(done, loss)  # a team hears of it with the next gradients
            ending = ending or (leaving and team.size == 1)
            if last or done % config.eval_every == 0:
                note()
                look(done)
            due = last or ending or (config.checkpoint_every and done % config.checkpoint_every == 0)
            if path is not None and due:
                note()
                save_checkpoint(path, model, optimizers, config, history, text, team)
            if ending:
                break
    note()  # a progress bar may have stopped before the last step
    model.eval()
    return history
