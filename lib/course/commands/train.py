"""`course train`: train a model on any text, watch it learn, stop and go on at any time.

    course train --text FILE --out DIR
    torchrun --nproc-per-node 2 -m lib.course train --text FILE --out DIR

A run lives in one folder: record.json (what was asked, what was seen), checkpoint.safetensors (to go on from),
loss.png, and the model in Hugging Face's format with its tokenizer, which `load` reads back.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib.errors import CourseError
from lib.lesson.files import write_json
from lib.sources.places import ROOT

if TYPE_CHECKING:
    import torch

    from lib.tokenizer import BPETokenizer, CharTokenizer
    from lib.training import History, TrainConfig
    from lib.transformer import Config, Transformer

VERSION = 1
OPENING = "\n"  # what samples begin with
# Chosen by measuring: benchmarks/training.py says how soon `cpu` is as good as the classic recipe.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": dict(
        n_layer=2, n_head=2, d_model=32, block_size=32, batch_size=8, steps=20, eval_every=10, eval_batches=2,
        warmup=2, optimizer="muon", lr=1e-2, muon_lr=0.05, dropout=0.0, precision="float32", compile=False,
    ),
    "cpu": dict(
        n_layer=3, n_head=2, d_model=64, block_size=64, batch_size=24, steps=370, eval_every=74, eval_batches=4,
        warmup=20, optimizer="muon", lr=8e-3, muon_lr=0.05, dropout=0.0, precision="float32", compile=False,
    ),
    "gpu": dict(
        n_layer=6, n_head=6, d_model=384, block_size=256, batch_size=64, steps=1500, eval_every=150, eval_batches=20,
        warmup=100, optimizer="muon", lr=2e-3, muon_lr=0.03, dropout=0.2, precision="bfloat16", compile=True,
    ),
}  # fmt: skip


@click.command("train")
@click.option("--text", type=click.Path(path_type=Path), help="A UTF-8 file; default: nine of Shakespeare's plays.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "build" / "train",
              help="The run's folder; default: build/train.")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder, with the options it was given.")
@click.option("--shard", is_flag=True, help="Cut the weights between torchrun's processes; not kept for --resume.")
@click.option("--preset", metavar="NAME", help="smoke, cpu, gpu or auto (the default): sizes and budget.")
@click.option("--tokens", type=click.Choice(["char", "bpe"]), help="What a token is; default: a character.")
@click.option("--vocab-size", type=click.IntRange(257), help="Size of the BPE vocabulary; default: 1024.")
@click.option("--n-layer", type=click.IntRange(1), help="Blocks.")
@click.option("--n-head", type=click.IntRange(1), help="Attention heads of a block.")
@click.option("--d-model", type=click.IntRange(2), help="Width of the residual stream.")
@click.option("--block-size", type=click.IntRange(1), help="Tokens in a sequence.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="Share of activations dropped.")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps; the schedule ends with them.")
@click.option("--batch-size", type=click.IntRange(1), help="Sequences in a forward pass, over all processes.")
@click.option("--accumulate", type=click.IntRange(1), help="Forward passes summed into one step; default: 1.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]))
@click.option("--lr", type=click.FloatRange(0), help="Peak rate of AdamW.")
@click.option("--muon-lr", type=click.FloatRange(0), help="Peak rate of Muon.")
@click.option("--warmup", type=click.IntRange(0), help="Steps of warm-up.")
@click.option("--eval-every", type=click.IntRange(1), help="Steps between looks at the held-out text.")
@click.option("--eval-batches", type=click.IntRange(1), help="Batches in such a look.")
@click.option("--checkpoint-every", type=click.IntRange(1), help="Steps between checkpoints; default: eval-every.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]))
@click.option("--compile/--no-compile", default=None, help="Through torch.compile; the first step is slow.")
@click.option("--device", metavar="NAME", help="cpu, cuda or mps; default: the CPU, under preset gpu what there is.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: 1, for large models all cores.")
@click.option("--seed", type=click.IntRange(0), help="Starting weights, batches and dropout; default: 0.")
def train(text: Path | None, out: Path, resume: bool, shard: bool, **given: Any) -> int:
    """Train a transformer on a text, and watch it learn.

    It reads characters or BPE tokens, and the last tenth of the text is held out.

    Shows a progress bar with the loss, and at each look at the held-out text a line and a sample. Ctrl-C saves and
    stops; `--resume` goes on, and ends with the very weights of a run that was never stopped. The folder holds
    record.json, loss.png, the checkpoint, and the model as transformers reads it.

    Several processes share the work under torchrun:

        torchrun --nproc-per-node 2 -m lib.course train --out DIR

    Each holds the whole model. One that outgrows a device is cut between them by `--shard`: a process keeps its share
    of every weight, gradient and average, and borrows the rest of a layer while it works. The run, its checkpoints and
    its model are the same, and may go on without.
    """
    from lib.trainer import parallel

    restarted = parallel.restarts() > 0
    resume = resume or restarted
    try:
        if shard and parallel.processes() < 2:
            raise CourseError(
                "--shard cuts the weights between processes, and there is one; start more by "
                "`torchrun --nproc-per-node 2 -m lib.course train --shard`"
            )
        options = _options(out, resume, restarted, {"text": text and str(text.resolve()), **given})
        return _train(options, out, resume, shard)
    except CourseError:
        if int(os.environ.get("RANK", "0")) and parallel.torchrun():
            return 2  # the leader says it for all
        raise


def _options(out: Path, resume: bool, restarted: bool, given: dict[str, Any]) -> dict[str, Any]:
    """What is asked on the command line, before what a resumed run was given, before the preset's."""
    given = {name: value for name, value in given.items() if value is not None}
    kept: dict[str, Any] = {}
    record = out / "record.json"
    if resume and record.exists():
        kept = _read_record(record)["options"]
    elif resume and (out / "checkpoint.safetensors").exists():
        raise CourseError(f"{record} is missing, so the run cannot go on; choose another --out")
    elif not resume and (out / "checkpoint.safetensors").exists():
        raise CourseError(f"{out} holds a run already; go on with it by --resume, or choose another --out")
    elif resume and not restarted:
        raise CourseError(f"there is no run in {out} to go on with; leave out --resume")
    from lib.device import resolve_preset

    preset = given.get("preset") or kept.get("preset") or "auto"
    preset = resolve_preset(preset)
    defaults = dict(text=None, tokens="char", vocab_size=1024, accumulate=1, checkpoint_every=None, seed=0)
    defaults |= dict(device="auto" if preset == "gpu" else "cpu", threads=None)
    return defaults | PRESETS[preset] | kept | given | {"preset": preset}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["version"]
        if version == VERSION and isinstance(record["options"], dict):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        raise CourseError(f"{path} is damaged; choose another --out") from None
    raise CourseError(f"{path} has version {version}, this code reads {VERSION}; update, or choose another --out")


def _train(options: dict[str, Any], out: Path, resume: bool, shard: bool) -> int:
    import torch

    from lib import corpus, training
    from lib.device import pick_device, seed_everything, threads
    from lib.trainer import parallel
    from lib.transformer import Transformer, count_parameters

    text = corpus.read_text(options["text"]) if options["text"] else corpus.shakespeare(corpus.FAMOUS)
    tokenizer = _tokenizer(options, text)
    ids = torch.tensor(tokenizer.encode(text), dtype=torch.int32)  # (N,)
    block = options["block_size"]
    if len(ids) < 10 * (block + 1):  # both parts must hold a block and its last target
        raise CourseError(
            f"the text has {len(ids):,} tokens; its held-out tenth must fill a block of {block} and one more, so at "
            f"least {10 * (block + 1):,} are needed: use a longer text or a smaller --block-size"
        )
    train_ids, val_ids = corpus.split(ids)
    sizes, config = model_config(options, tokenizer.vocab_size), train_config(options)
    with parallel.join(pick_device(options["device"]), shard) as (team, device):
        training.check_memory(sizes, config, device, team)
        seed_everything(config.seed)
        model = team.place(Transformer(sizes), device)
        crew = options["threads"] or (1 if count_parameters(model) < 3e6 else max(1, os.cpu_count() // team.size))
        run = Run(out, options, team, model, tokenizer, config)
        if resume and (out / "record.json").exists():
            run.samples = _read_record(out / "record.json").get("samples", [])
        elif team.leader:
            run.keep(training.History(), "running")  # a folder that can't be written is found out now
        with threads(crew), run.signals(), run.bar() as progress:
            try:
                history = training.train(model, train_ids, val_ids, config, run.look, out, progress, run.watch, team)
            except (RuntimeError, MemoryError) as error:
                says = _what_to_do(error, sizes, config, team)
                if not says:
                    raise
                if not team.leader:
                    click.echo(f"course: {says}", err=True)  # the leader need not know
                raise CourseError(says) from None
        return run.end(history)


def model_config(options: dict[str, Any], vocab_size: int) -> "Config":
    """The model that options ask for: Llama's kind, which transformers reads too."""
    from lib.transformer import Config

    heads, width = options["n_head"], options["d_model"]
    if width % (2 * heads):
        raise CourseError(
            f"--d-model {width} does not divide into --n-head {heads} heads of even width; take a multiple of "
            f"{2 * heads}, such as --d-model {max(1, round(width / (2 * heads))) * 2 * heads}"
        )
    sizes = {name: options[name] for name in ("n_layer", "n_head", "d_model", "block_size", "dropout")}
    return Config.llama(vocab_size=vocab_size, d_ff=_width(options["d_model"]), **sizes)


def train_config(options: dict[str, Any]) -> "TrainConfig":
    """The run that options ask for."""
    from lib.training import TrainConfig

    known = {name: value for name, value in options.items() if name in TrainConfig.__dataclass_fields__}
    known["checkpoint_every"] = options.get("checkpoint_every") or options["eval_every"]
    return TrainConfig(**{"grad_clip": 0.5, "min_lr": 0.02} | known)


def _width(d_model: int) -> int:
    """Of the MLP: about 8/3 of the model's, in whole sixteens, as vector units like it."""
    return max(16, round(8 * d_model / 3 / 16) * 16)


def _tokenizer(options: dict[str, Any], text: str) -> "CharTokenizer | BPETokenizer":
    from lib.tokenizer import BPETokenizer, CharTokenizer

    if options["tokens"] == "char":
        return CharTokenizer.train(text)
    from lib import corpus

    return BPETokenizer.train(corpus.split(text)[0], options["vocab_size"])


def _what_to_do(error: Exception, sizes: "Config", config: "TrainConfig", team) -> str:
    """The one line for a run that ran out of memory or of colleagues; "" for any other error."""
    import torch

    from lib import training

    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return training.out_of_memory(sizes, config, team=team)
    if team.size > 1 and ("gloo" in text or isinstance(error, torch.distributed.DistError)):
        return f"process {team.rank} lost another of {team.size}; with --max-restarts torchrun goes on by itself"
    return ""


class Run:
    """What a run shows and writes as it goes: only the team's leader does either."""

    def __init__(self, out: Path, options: dict, team, model: "Transformer", tokenizer, config: "TrainConfig"):
        self.out, self.options, self.team, self.config = out, options, team, config
        self.model, self.tokenizer = model, tokenizer
        self.samples: list[dict[str, Any]] = []
        self.stopped_by = 0
        self.display = self.task = None

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Ctrl-C and a polite kill end the run after the step at hand; a second one ends it at once."""

        def note(number: int, frame: object) -> None:
            if self.stopped_by:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.stopped_by = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def bar(self) -> Iterator:
        """The wrapper of steps that `training.train` takes: a progress bar on a terminal, nothing elsewhere."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if not self.team.leader or not console.is_terminal:
            yield lambda steps, label: steps
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, refresh_per_second=4) as self.display:

            def follow(steps: range, label: str) -> Iterator[int]:
                self.task = self.display.add_task(label, total=self.config.steps, completed=steps.start, loss="…")
                yield from steps

            yield follow

    def watch(self, done: int, loss: "torch.Tensor") -> bool:
        """After each step: move the bar, say whether to stop."""
        if self.display is not None and (loss.device.type == "cpu" or done % 20 == 0):  # a look makes a GPU wait
            self.display.update(self.task, completed=done, loss=f"{loss.item():.3f}")
        return bool(self.stopped_by)

    def look(self, step: int, history: "History") -> None:
        """After each look at the held-out text: a line, a sample, and the record brought up to date."""
        model = self.whole()
        if not self.team.leader:
            return
        recent = history.train_loss[-20:]
        trained = f"training {sum(recent) / len(recent):.3f}, " if recent else ""
        speed = f", {history.tokens / history.seconds:,.0f} tokens/s" if history.seconds else ""
        new = {"step": step, "text": sample(model, self.tokenizer, self.config.seed)}
        self.samples = [old for old in self.samples if old["step"] < step] + [new]
        line = f"step {step} of {self.config.steps}: {trained}held out {history.val_loss[-1]:.3f}{speed}"
        shown = " ".join(self.samples[-1]["text"].split())[:100]
        for text in (line, f"    {shown}"):
            if self.display is not None:
                self.display.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                click.echo(text, err=True)
        self.keep(history, "running")

    def whole(self) -> "Transformer":
        """The model; if it is cut between the processes, one in the leader's main memory, and all must call this."""
        if not self.team.sharded:
            return self.model
        from lib.transformer import Transformer

        model = Transformer(self.model.config) if self.team.leader else None
        self.team.gather(self.model, model)
        return model

    def keep(self, history: "History", state: str) -> None:
        """Write record.json, whole or not at all."""
        import torch

        from lib.transformer import count_parameters

        record = {
            "version": VERSION,
            "state": state,
            "options": self.options,
            "model": self.model.config.to_dict(),
            "parameters": count_parameters(self.model),
            "held_out_loss": history.val_loss[-1] if history.val_loss else None,
            "seconds": history.seconds,
            "tokens": history.tokens,
            "tokens_per_second": history.tokens / history.seconds if history.seconds else None,
            "processes": self.team.size,
            "sharded": self.team.sharded,
            "threads": torch.get_num_threads(),
            "device": next(self.model.parameters()).device.type,
            "torch": torch.__version__,
            "val_steps": history.val_steps,
            "val_loss": history.val_loss,
            "train_loss": history.train_loss,
            "samples": self.samples,
        }
        with self.writing():
            write_json(self.out / "record.json", record)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise CourseError(f"cannot write into {self.out} ({problem.strerror}); choose another --out") from None

    def end(self, history: "History") -> int:
        """Save all there is to keep; the exit status."""
        finished = history.step == self.config.steps
        model = self.whole()
        if self.team.leader:
            save(model, self.tokenizer, self.out)
            self.keep(history, "finished" if finished else "interrupted")
            with self.writing():
                plot(history, self.out / "loss.png")
            if finished:
                click.echo(
                    f"held-out loss {history.val_loss[-1]:.3f} after {history.step} steps, {history.tokens:,} tokens, "
                    f"{history.seconds:.1f} s; all in {self.out}"
                )
            else:
                click.echo(
                    f"course: stopped after step {history.step} of {self.config.steps}, all saved; "
                    f"`course train --resume --out {self.out}` goes on",
                    err=True,
                )
        self.team.meet()  # or the leader is ended before it has saved
        return 0 if finished else 128 + self.stopped_by


def sample(model: "Transformer", tokenizer, seed: int, length: int = 100) -> str:
    """A little text from the model, after a line's end; what fits into half a block is kept in view."""
    import torch

    from lib.generation import generate

    device = next(model.parameters()).device
    half = max(1, model.config.block_size // 2)
    try:
        ids = tokenizer.encode(OPENING)
    except CourseError:  # a text in one line
        ids = [0]
    tokens = torch.tensor([ids], device=device)  # (1, n)
    while tokens.size(1) < length and half < model.config.block_size:
        recent = tokens[:, -half:]  # (1, ≤ half)
        new = min(half, length - tokens.size(1))
        longer = generate(model, recent, new, temperature=0.8, seed=seed + tokens.size(1))  # (1, …)
        tokens = torch.cat([tokens, longer[:, recent.size(1) :]], dim=1)
    return tokenizer.decode(tokens[0, len(ids) :].tolist())


def save(model: "Transformer", tokenizer: "CharTokenizer | BPETokenizer", folder: Path) -> None:
    """Write config.json and model.safetensors, which transformers reads too, and the tokenizer beside them."""
    from lib.weights import pretrained

    pretrained.save(model, folder)
    tokenizer.save(folder / "course_tokenizer.json")


def load(folder: Path) -> "tuple[Transformer, CharTokenizer | BPETokenizer]":
    """The model and tokenizer of a run's folder. Raises CourseError if one of them is missing or damaged."""
    from lib import tokenizer
    from lib.weights import pretrained

    return pretrained.load(folder), tokenizer.load(Path(folder) / "course_tokenizer.json")


def plot(history: "History", path: Path) -> None:
    """The training loss of every step and the held-out loss, as a picture."""
    from matplotlib.figure import Figure

    from lib.lesson.plotting import PALETTE

    fig = Figure(figsize=(7.5, 3.6), layout="constrained")
    ax = fig.subplots()
    ax.plot(range(1, history.step + 1), history.train_loss, color=PALETTE[0], alpha=0.4, label="training, each batch")
    ax.plot(history.val_steps, history.val_loss, "o-", color=PALETTE[3], label="held out")
    ax.set(xlabel="step", ylabel="loss (nats a token)", title=f"{history.tokens:,} tokens, {history.seconds:.0f} s")
    ax.legend()
    half = path.with_suffix(".part")
    fig.savefig(half, format="png", metadata={"Software": None})
    half.replace(path)
