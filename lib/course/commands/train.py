"""`course train`: train a model on any text, watch it learn, stop and go on at any time.

    course train --text FILE --out DIR
    torchrun --nproc-per-node 2 -m lib.course train --text FILE --out DIR

A run lives in one folder: record.json (what was asked, what was seen), checkpoint.safetensors (to go on from),
loss.png, and the model in Hugging Face's format with its tokenizer, which `load` reads back.
"""

import os
from pathlib import Path
from typing import Any

import click

from lib.errors import CourseError
from lib.sources.places import ROOT


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
@click.option("--threads", type=click.IntRange(1, 4096), help="CPU threads; default: 1, for large models all cores.")
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
    from lib.course.training_run import recipe
    from lib.course.training_run.start import start
    from lib.trainer import parallel

    restarted = parallel.restarts() > 0
    resume = resume or restarted
    try:
        if shard and parallel.processes() < 2:
            raise CourseError(
                "--shard cuts the weights between processes, and there is one; start more by "
                "`torchrun --nproc-per-node 2 -m lib.course train --shard`"
            )
        if text is not None and text.name == "-" and not text.exists():
            raise CourseError("--text takes a file, which --resume reads again; save what comes through a pipe first")
        options = recipe.options(out, resume, restarted, {"text": text and str(text.absolute()), **given})
        return start(options, out, resume, shard)
    except CourseError:
        if int(os.environ.get("RANK", "0")) and parallel.torchrun():
            return 2  # the leader says it for all
        raise
