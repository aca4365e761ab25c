"""`course train` from its options to its exit status."""

import os
from pathlib import Path
from typing import Any

import click
import torch

from lib import training
from lib.course.training_run.live import Run
from lib.course.training_run.recipe import model_config, read_text, train_config
from lib.course.training_run.run_folder import read_record
from lib.device import pick_device, seed_everything, threads
from lib.errors import CourseError
from lib.trainer import memory, parallel
from lib.trainer.history import History
from lib.trainer.parallel import Team
from lib.trainer.sound import Diverged
from lib.training import TrainConfig
from lib.transformer import Config, Transformer, count_parameters


def start(options: dict[str, Any], out: Path, resume: bool, shard: bool) -> int:
    """Train what the options ask for, alone or as one of torchrun's processes; the exit status."""
    tokenizer, train_ids, val_ids = read_text(options)
    sizes, config = model_config(options, tokenizer.vocab_size), train_config(options)
    with parallel.join(pick_device(options["device"]), shard) as (team, device):
        memory.check_memory(sizes, config, device, team)
        seed_everything(config.seed)
        model = team.place(Transformer(sizes), device)
        crew = options["threads"] or (1 if count_parameters(model) < 3e6 else max(1, os.cpu_count() // team.size))
        run = Run(out, options, team, model, tokenizer, config)
        if resume and (out / "record.json").exists():
            run.samples = read_record(out / "record.json").get("samples", [])
        elif team.leader:
            run.keep(History(), "running")  # a folder that can't be written is found out now
        with threads(crew), run.signals(), run.bar() as progress:
            try:
                history = training.train(model, train_ids, val_ids, config, run.look, out, progress, run.watch, team)
            except Diverged as problem:
                raise CourseError(f"{problem}; {run.diverged(problem.history)}") from None
            except (RuntimeError, MemoryError) as error:
                says = _what_to_do(error, sizes, config, team)
                if not says:
                    raise
                if not team.leader:
                    click.echo(f"course: {says}", err=True)  # the leader need not know
                raise CourseError(says) from None
        return run.end(history)


def _what_to_do(error: Exception, sizes: Config, config: TrainConfig, team: Team) -> str:
    """The one line for a run that ran out of memory or of colleagues; "" for any other error."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return memory.out_of_memory(sizes, config, team=team)
    if team.size > 1 and ("gloo" in text or isinstance(error, torch.distributed.DistError)):
        return f"process {team.rank} lost another of {team.size}; with --max-restarts torchrun goes on by itself"
    return ""
