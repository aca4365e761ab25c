"""Teaching a finished model one job: all of its weights, its last layers only, or a small addition to each matrix.

LoRA (Hu et al. 2021, arXiv:2106.09685, section 4.1) leaves a matrix W as it is and learns what to add to it,

    h = W x + (α / r) B A x,        A (r, in) random, B (out, r) zero at the start,

a change of rank r: for r = 8 about a hundredth of the numbers. Afterwards it can be added into W, and costs nothing.
Adapters are saved in the format of Hugging Face's peft, which reads ours and whose we read.
"""

import contextlib
import dataclasses
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.errors import CourseError
from lib.generation import generate, left_pad
from lib.inference.decoding import Decoder
from lib.shop import dialogues
from lib.shop.dialogues import Example
from lib.sources.places import DATA
from lib.training import (
    History,
    TrainConfig,
    begin_step,
    end_step,
    fingerprint,
    load_checkpoint,
    make_optimizers,
    no_progress,
    prepared,
    save_checkpoint,
)
from lib.transformer import Transformer
from lib.weights.pretrained import LLAMA_NAMES

ADAPTER = DATA / "summary_adapter"  # made by RECIPE: `python benchmarks/finetuning.py adapter` makes it anew
MATRICES = ("q", "k", "v", "out", "gate", "up", "down")  # a block's, by our names
TARGETS = ("q", "v", "out", "up", "down")
IGNORE = -100  # the target of a token that the loss passes over; cross_entropy's own default

# --- which weights learn ----------------------------------------------------------------------------------------------


class LoRALinear(nn.Linear):
    """A linear layer whose own weights are frozen, and a learned change of low rank beside them."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight.requires_grad_(False), layer.bias  # (out, in), (out,) or None
        self.a = nn.Parameter(torch.empty(rank, layer.in_features, device=self.weight.device))  # (r, in)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, device=self.weight.device))  # (out, r)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale, self.merged, self.on = alpha / rank, False, True

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        y = super().forward(x)  # (…, out)
        if self.merged or not self.on:
            return y
        low = self.scale * F.linear(x, self.a)  # (…, r): scaled where it is narrow
        return y + F.linear(low, self.b)  # (…, out)

    @property
    def change(self) -> Tensor:
        """What is added to the weight, (out, in)."""
        return self.scale * (self.b @ self.a)

    @property
    def effective(self) -> Tensor:
        """The one matrix that computes the same, (out, in)."""
        return self.weight if self.merged or not self.on else self.weight + self.change


def add_lora(
    model: Transformer,
    rank: int = 8,
    alpha: float = 32.0,
    targets: Sequence[str] = TARGETS,
    seed: int = 0,
    first: int = 0,
) -> Transformer:
    """Freeze the model and put a LoRA beside each target matrix of each block, in place; returns the model.

    first: the first block that gets some; no gradient need go through those before it, which saves time.
    It computes what it did before, until it is trained. Raises CourseError for a rank below 1, an unknown target, or
    a model that has LoRA already.
    """
    if rank < 1:
        raise CourseError(f"the rank must be at least 1, not {rank}")
    if lora_layers(model):
        raise CourseError("this model has LoRA already; load the base model anew or remove_lora first")
    known = [name for name in MATRICES if _find(model.blocks[0], name) is not None]
    if wrong := [name for name in targets if name not in known]:
        raise CourseError(f"no matrix {wrong[0]!r} in this model's blocks; choose from {', '.join(known)}")
    if not 0 <= first < len(model.blocks):
        raise CourseError(f"first should be a block from 0 to {len(model.blocks) - 1}, not {first}")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for block in model.blocks[first:]:
            for name in targets:
                part = block.mlp if _in_mlp(name) else block.attention
                setattr(part, name, LoRALinear(getattr(part, name), rank, alpha))
    return model


def _in_mlp(name: str) -> bool:
    return name in ("gate", "up", "down")


def _find(block: nn.Module, name: str) -> nn.Linear | None:
    return getattr(block.mlp if _in_mlp(name) else block.attention, name, None)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """By their place in the model: blocks.0.attention.q, …"""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add each change into its weight: the model computes the same, at the price of the base model."""
    for layer in lora_layers(model).values():
        if not layer.merged:
            layer.weight += layer.change
            layer.merged = True


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """Take each change out of its weight again; what is left of it is rounding."""
    for layer in lora_layers(model).values():
        if layer.merged:
            layer.weight -= layer.change
            layer.merged = False


@contextlib.contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    """The base model again, for a while."""
    layers = lora_layers(model).values()
    unmerge(model)
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True


def remove_lora(model: Transformer) -> Transformer:
    """The base model for good, in place, all of it free to learn."""
    unmerge(model)
    for place, lora in lora_layers(model).items():
        part, name = place.rsplit(".", 1)
        plain = nn.Linear(1, 1, bias=False)
        plain.in_features, plain.out_features = lora.in_features, lora.out_features
        plain.weight, plain.bias = lora.weight, lora.bias
        setattr(model.get_submodule(part), name, plain)
    return model.requires_grad_()


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


def count_trainable(model: nn.Module) -> int:
    """The numbers that learn, a tied matrix counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


METHODS = ("LoRA", "last layers", "full")
RATES = {"LoRA": 2e-3, "last layers": 5e-4, "full": 1e-4}  # the more learns, the smaller its steps
EXAMPLES = 480  # each read once by the recipe
RECIPE = TrainConfig(steps=240, batch_size=2, lr=RATES["LoRA"], warmup=10, weight_decay=0.0, min_lr=0.05)


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


def training_set(n: int = EXAMPLES, seed: int = 0) -> list[Example]:
    """The recipe's conversations: more varied than those that it is measured on."""
    return dialogues.make("train", n, seed, varied=True)


def studies(file: str | Path = DATA / "finetuning.json") -> dict:
    """What `python benchmarks/finetuning.py methods curve` measured when the course was made.

    machine: where. held_out: how many conversations of each kind judged. runs: for each method, examples, steps, seed,
    learning (how many weights), and by split the share that was right and ROUGE-1.
    Raises CourseError for a file that is missing or damaged.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        return {what: found[what] for what in ("machine", "held_out", "runs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{file} is missing or damaged ({error}); restore it with `git checkout -- data`") from None


# --- adapters as files ------------------------------------------------------------------------------------------------


def _their_key(place: str, side: str) -> str:
    """blocks.3.mlp.up, A → base_model.model.model.layers.3.mlp.up_proj.lora_A.weight."""
    _, i, rest = place.split(".", 2)
    return f"base_model.model.{LLAMA_NAMES['blocks.{i}.' + rest].format(i=i)}.lora_{side}.weight"


def _sample(model: Transformer) -> list[float]:
    """Some weights of the base, by which to know it again: up to 16 of the embedding and 16 of the last norm."""
    few = [w.detach().flatten()[:: max(1, w.numel() // 16)][:16] for w in (model.embedding.weight, model.norm.weight)]
    return [round(x, 4) for x in torch.cat(few).float().cpu().tolist()]


def save_adapter(model: Transformer, folder: str | Path, half: bool = False, base: str = "") -> None:
    """Write adapter_config.json and adapter_model.safetensors, as peft does; half: in float16, half the bytes.

    base: the base model's name or folder, which peft keeps for its reader. Each file appears whole or not at all.
    Raises CourseError for a model without LoRA, or one that peft has no names for.
    """
    layers = lora_layers(model)
    if not layers:
        raise CourseError("this model has no LoRA to save; add_lora and train it first")
    if (model.config.norm, model.config.position, model.config.mlp) != ("rms", "rotary", "gated"):
        raise CourseError("adapters are saved for the llama family only; this model belongs to another")
    first = next(iter(layers.values()))
    dtype = torch.float16 if half else torch.float32
    tensors = {}
    for place, layer in layers.items():
        tensors[_their_key(place, "A")] = layer.a.detach().to("cpu", dtype).contiguous()  # (r, in)
        tensors[_their_key(place, "B")] = layer.b.detach().to("cpu", dtype).contiguous()  # (out, r)
    modules = sorted({key.split(".")[-3] for key in tensors})
    rank = len(first.a)
    about = dict(
        peft_type="LORA",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base or None,
        r=rank,
        lora_alpha=first.scale * rank,
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=False,
        target_modules=modules,
        inference_mode=True,
    )
    places = sorted({int(place.split(".")[1]) for place in layers})
    if len(places) < len(model.blocks):
        about["layers_to_transform"] = places
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "adapter_model.part"
        save_file(tensors, part, metadata={"format": "pt", "base_sample": json.dumps(_sample(model))})
        part.replace(folder / "adapter_model.safetensors")
        part = folder / "adapter_config.part"
        part.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        part.replace(folder / "adapter_config.json")
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise CourseError(f"cannot save to {folder} ({why}); choose a folder you can write to") from None


UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")


def load_adapter(model: Transformer, folder: str | Path) -> Transformer:
    """Put a saved adapter, ours or peft's, on its base model, in place; returns the model.

    Raises CourseError, and changes nothing, for files that are missing, damaged, of another kind or another base.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            kept = (file.metadata() or {}).get("base_sample")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
        sample = json.loads(kept) if kept else None
        kind, rank, alpha = about["peft_type"], int(about["r"]), float(about["lora_alpha"])
    except FileNotFoundError as error:
        raise CourseError(f"no {Path(error.filename or 'adapter_model.safetensors').name} in {folder}; "
                          "pass the folder of a saved adapter") from None  # fmt: skip
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise CourseError(f"{folder} holds no whole adapter ({why}); save it again") from None
    if kind != "LORA" or rank < 1:
        raise CourseError(f"{folder} holds an adapter of kind {kind!r}; only LORA is supported")
    if used := [name for name in UNSUPPORTED if about.get(name)]:
        raise CourseError(f"the adapter in {folder} uses {used[0]}, which is not supported; save one without it")
    if about.get("bias", "none") != "none":
        raise CourseError(f"the adapter in {folder} trains biases, which is not supported; save one without them")
    if lora_layers(model):
        raise CourseError("this model has LoRA already; load the base model anew or remove_lora first")
    found = {}
    for i, block in enumerate(model.blocks):
        for name in MATRICES:
            place = f"blocks.{i}.{'mlp' if _in_mlp(name) else 'attention'}.{name}"
            layer = _find(block, name)
            keys = [_their_key(place, side) for side in "AB"]
            if layer is not None and keys[0] in tensors and keys[1] in tensors:
                found[place] = tuple(tensors.pop(key) for key in keys)
                shapes, ours = (
                    [tuple(t.shape) for t in found[place]],
                    [(rank, layer.in_features), (layer.out_features, rank)],
                )
                if shapes != ours:
                    raise CourseError(
                        f"the adapter in {folder} is for another base model: {keys[0]} and B have shapes {shapes}, "
                        f"this model needs {ours}; load the model it was made for"
                    )
    if tensors or not found:
        odd = f": it has {min(tensors)}" if tensors else ""
        raise CourseError(f"the adapter in {folder} is for another base model{odd}; load the model it was made for")
    ours = _sample(model)
    if sample is not None and not (len(sample) == len(ours) and torch.allclose(
        torch.tensor(sample), torch.tensor(ours), atol=2e-3, rtol=1e-2
    )):  # fmt: skip
        raise CourseError(
            f"the adapter in {folder} was trained on other base weights than these; load the model it was made for"
        )
    if about.get("use_rslora"):
        alpha *= math.sqrt(rank)  # α / √r in place of α / r (Kalajdzievski 2023)
    model.requires_grad_(False)
    for place, (a, b) in found.items():
        part, name = place.rsplit(".", 1)
        part = model.get_submodule(part)
        layer = LoRALinear(getattr(part, name), rank, alpha)
        with torch.no_grad():
            layer.a.copy_(a)
            layer.b.copy_(b)
        setattr(part, name, layer)
    return model


# --- what the model reads, and what it is held to ---------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One example as tokens: `prompt` of them are read, the rest, the answer and its end, are to be said."""

    tokens: tuple[int, ...]
    prompt: int

    @property
    def targets(self) -> list[int]:
        """For each token but the last, the one that follows, or IGNORE while that is still the prompt."""
        return [IGNORE] * (self.prompt - 1) + list(self.tokens[self.prompt :])


def row(tokenizer, example: Example) -> Row:
    """The conversation in the model's own chat template, then the summary and the token that ends a turn."""
    prompt = tokenizer.chat(dialogues.messages(example.dialogue))
    return Row((*prompt, *tokenizer.encode(example.summary), tokenizer.eos_id), len(prompt))


def rows(tokenizer, examples: Sequence[Example], most: int = 512) -> list[Row]:
    """All examples as tokens. Raises CourseError for one that is empty, comes twice, or exceeds `most` tokens."""
    dialogues.check(examples)
    made = [row(tokenizer, example) for example in examples]
    lengths = iter(made)
    dialogues.check(examples, most, lambda example: len(next(lengths).tokens))
    return made


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


@contextlib.contextmanager
def side_by_side(workers: int) -> Iterator[Callable[..., Iterable]]:
    """A `map` that shares the work out among so many threads, of one core each.

    On a CPU two rows on a core each are done well before both rows are on two cores together.
    """
    if workers == 1:
        yield map
    else:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map


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
    Raises CourseError if there is nothing to learn from, or nothing that learns.
    """
    if not rows:
        raise CourseError("there are no examples to learn from; give at least one")
    if not count_trainable(model):
        raise CourseError("every weight of this model is frozen; add_lora, only_last or requires_grad_ first")
    if any(layer.merged for layer in lora_layers(model).values()):
        raise CourseError("the LoRA is merged into the weights; unmerge the model before training it further")
    device = model.embedding.weight.device
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizers = make_optimizers(model, config)
    history, path = History(), None
    text = ""
    if folder is not None:
        every = [token for row in rows for token in (*row.tokens, row.prompt)]
        text = fingerprint(torch.tensor([*every, *(int(1e4 * x) for x in _sample(model))]))
        adds = sorted((place, len(layer.a), layer.scale) for place, layer in lora_layers(model).items())
        text += f", LoRA {zlib.crc32(repr(adds).encode()):08x}" if adds else ""
        path = Path(folder) / "checkpoint.safetensors"
        if path.exists():
            history = load_checkpoint(path, model, optimizers, config, text)
    batches = order(rows, config.batch_size, config.seed)
    for _ in range(history.step):
        next(batches)
    casts = [prepared(model, config, device)[1] for _ in range(workers)]
    model.train()
    before, started = history.seconds, time.perf_counter()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        side_by_side(workers) as work,
    ):
        for step in progress(range(history.step, config.steps), "fine-tuning"):
            begin_step(optimizers, config, step)
            chosen = [rows[i] for i in next(batches)]
            asked = sum(len(row.tokens) - row.prompt for row in chosen)
            shares = [share for i in range(workers) if (share := chosen[i::workers])]

            def slopes(share, cast, asked=asked):
                """The share's part of the loss, and that part's gradient by all that learns."""
                x, y = batch(share, device=device)  # (B, T) each
                with cast:
                    loss = answer_loss(model, x, y) * ((y != IGNORE).sum() / asked)
                return loss.item(), torch.autograd.grad(loss, learning, materialize_grads=True)

            losses, parts = zip(*work(slopes, shares, casts), strict=True)
            for p, *gradients in zip(learning, *parts, strict=True):
                p.grad = sum(gradients[1:], gradients[0])
            end_step(model, optimizers, config)
            history.train_loss.append(sum(losses))
            history.tokens += sum(len(row.tokens) for row in chosen)
            history.seconds = before + time.perf_counter() - started
            done = step + 1
            watch(done, history.train_loss[-1])
            if path is not None and (
                done == config.steps or (config.checkpoint_every and not done % config.checkpoint_every)
            ):
                save_checkpoint(path, model, optimizers, config, history, text)
    model.eval()
    return history


# --- what it says -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def reply(
    model: Transformer,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    batch_size: int = 16,
    most: int = 40,
    workers: int = 1,
) -> list[str]:
    """What the model answers to each prompt of ids, greedily, in at most `most` tokens; like lengths go together.

    The weights, a LoRA added in, are laid out for writing (lib.inference.decoding); the model stays as it is.
    workers: threads that share the batches.
    """
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [by_length[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    writer = Decoder(model, rows=min(batch_size, len(prompts)))

    def answers(places: list[int]) -> list[str]:
        tokens, padding = left_pad([prompts[i] for i in places], device=model.embedding.weight.device)
        out = generate(writer, tokens, most, stop={tokenizer.eos_id}, padding=padding)[:, tokens.size(1) :]
        ends = [ids.index(tokenizer.eos_id) if tokenizer.eos_id in ids else len(ids) for ids in out.tolist()]
        return [tokenizer.decode(ids[:end]).strip() for ids, end in zip(out.tolist(), ends, strict=True)]

    with side_by_side(workers) as work:
        said = [text for some in work(answers, batches) for text in some]
    return [text for _, text in sorted(zip(by_length, said, strict=True))]


def summarise(model: Transformer, tokenizer, conversations: Sequence[str], **options) -> list[str]:
    """The model's one-line summary of each conversation; options as for `reply`."""
    return reply(model, tokenizer, [tokenizer.chat(dialogues.messages(text)) for text in conversations], **options)


def request_flops(model: Transformer, prompt: int, said: int) -> int:
    """Multiplications and additions to read a prompt of so many tokens and to write so many, with a cache.

    Two for each number of each matrix and token; the head, at each token that is written only; and attention's
    products of queries with keys, and of weights with values (Kaplan et al. 2020, section 2.1, table 1).
    """
    config = model.config
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.ndim > 1)
    tokens = prompt + said
    pairs = tokens * (tokens + 1) // 2
    attention = 4 * config.n_layer * config.n_head * config.head_dim * pairs
    return 2 * matrices * tokens + 2 * model.head.weight.numel() * said + attention
