"""A run while it goes: what is shown of it, what stops it, and what it leaves behind."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lib.course.output import say
from lib.course.training_run.run_folder import VERSION, plot, save, writing
from lib.errors import CourseError
from lib.generation import generate
from lib.lesson.files import write_json
from lib.trainer.history import History
from lib.trainer.parallel import Team
from lib.training import TrainConfig
from lib.transformer import Transformer, count_parameters

OPENING = "\n"  # what samples begin with


class Run:
    """What a run shows and writes as it goes: only the team's leader does either."""

    def __init__(self, out: Path, options: dict, team: Team, model: Transformer, tokenizer, config: TrainConfig):
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

    def watch(self, done: int, loss: Tensor) -> bool:
        """After each step: move the bar, say whether to stop."""
        if self.display is not None and (loss.device.type == "cpu" or done % 20 == 0):  # a look makes a GPU wait
            self.display.update(self.task, completed=done, loss=f"{loss.item():.3f}")
        return bool(self.stopped_by)

    def look(self, step: int, history: History) -> None:
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
                say(text, err=True)
        self.keep(history, "running")

    def whole(self) -> Transformer:
        """The model; if it is cut between the processes, one in the leader's main memory, and all must call this."""
        if not self.team.sharded:
            return self.model
        model = Transformer(self.model.config) if self.team.leader else None
        self.team.gather(self.model, model)
        return model

    def keep(self, history: History, state: str) -> None:
        """Write record.json, whole or not at all."""
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
        with writing(self.out):
            write_json(self.out / "record.json", record)

    def diverged(self, history: History) -> str:
        """Keep what the run saw before it went astray; what is left of it, in words."""
        if self.team.leader:
            self.keep(history, "diverged")
        self.team.meet()  # or the leader is ended before it has
        kept = self.out / "checkpoint.safetensors"
        return f"the last good checkpoint is {kept}" if kept.exists() else "there was no checkpoint yet"

    def end(self, history: History) -> int:
        """Save all there is to keep; the exit status."""
        finished = history.step == self.config.steps
        model = self.whole()
        if self.team.leader:
            save(model, self.tokenizer, self.out)
            self.keep(history, "finished" if finished else "interrupted")
            with writing(self.out):
                plot(history, self.out / "loss.png")
            if finished:
                if history.val_loss[-1] > history.val_loss[0]:
                    worse = "the held-out loss is higher than before the first step; a smaller --lr may help"
                    say(f"course: {worse}", err=True)
                say(
                    f"held-out loss {history.val_loss[-1]:.3f} after {history.step} steps, {history.tokens:,} tokens, "
                    f"{history.seconds:.1f} s; all in {self.out}"
                )
            else:
                say(
                    f"course: stopped after step {history.step} of {self.config.steps}, all saved; "
                    f"`course train --resume --out {self.out}` goes on",
                    err=True,
                )
        self.team.meet()  # or the leader is ended before it has saved
        return 0 if finished else 128 + self.stopped_by


def sample(model: Transformer, tokenizer, seed: int, length: int = 100) -> str:
    """A little text from the model, after a line's end; what fits into half a block is kept in view."""
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
