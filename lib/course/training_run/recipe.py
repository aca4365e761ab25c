"""What the options of `course train` stand for: presets, a model, a tokenizer, a run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib import corpus
from lib.course.training_run.run_folder import read_record
from lib.device import resolve_preset
from lib.errors import CourseError
from lib.tokenizer import BPETokenizer, CharTokenizer
from lib.training import TrainConfig
from lib.transformer import Config

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


def options(out: Path, resume: bool, restarted: bool, given: dict[str, Any]) -> dict[str, Any]:
    """What is asked on the command line, before what a resumed run was given, before the preset's."""
    given = {name: value for name, value in given.items() if value is not None}
    kept: dict[str, Any] = {}
    record = out / "record.json"
    if resume and record.exists():
        kept = read_record(record)["options"]
    elif resume and (out / "checkpoint.safetensors").exists():
        raise CourseError(f"{record} is missing, so the run cannot go on; choose another --out")
    elif not resume and (out / "checkpoint.safetensors").exists():
        raise CourseError(f"{out} holds a run already; go on with it by --resume, or choose another --out")
    elif resume and not restarted:
        raise CourseError(f"there is no run in {out} to go on with; leave out --resume")
    preset = given.get("preset") or kept.get("preset") or "auto"
    preset = resolve_preset(preset)
    defaults = dict(text=None, tokens="char", vocab_size=1024, accumulate=1, checkpoint_every=None, seed=0)
    defaults |= dict(device="auto" if preset == "gpu" else "cpu", threads=None)
    return defaults | PRESETS[preset] | kept | given | {"preset": preset}


def model_config(options: dict[str, Any], vocab_size: int) -> Config:
    """The model that options ask for: Llama's kind, which transformers reads too."""
    heads, width = options["n_head"], options["d_model"]
    if width % (2 * heads):
        raise CourseError(
            f"--d-model {width} does not divide into --n-head {heads} heads of even width; take a multiple of "
            f"{2 * heads}, such as --d-model {max(1, round(width / (2 * heads))) * 2 * heads}"
        )
    sizes = {name: options[name] for name in ("n_layer", "n_head", "d_model", "block_size", "dropout")}
    return Config.llama(vocab_size=vocab_size, d_ff=_width(options["d_model"]), **sizes)


def train_config(options: dict[str, Any]) -> TrainConfig:
    """The run that options ask for."""
    known = {name: value for name, value in options.items() if name in TrainConfig.__dataclass_fields__}
    known["checkpoint_every"] = options.get("checkpoint_every") or options["eval_every"]
    return TrainConfig(**{"grad_clip": 0.5, "min_lr": 0.02} | known)


def _width(d_model: int) -> int:
    """Of the MLP: about 8/3 of the model's, in whole sixteens, as vector units like it."""
    return max(16, round(8 * d_model / 3 / 16) * 16)


def read_text(options: dict[str, Any]) -> tuple[CharTokenizer | BPETokenizer, Tensor, Tensor]:
    """The tokenizer, and both parts of the text as tokens, (N,) each."""
    text = corpus.read_text(options["text"]) if options["text"] else corpus.shakespeare(corpus.FAMOUS)
    if options["tokens"] == "char":
        tokenizer = CharTokenizer.train(text)
    else:
        tokenizer = BPETokenizer.train(corpus.split(text)[0], options["vocab_size"])
    ids = torch.tensor(tokenizer.encode(text), dtype=torch.int32)  # (N,)
    block = options["block_size"]
    if len(ids) < 10 * (block + 1):  # both parts must hold a block and its last target
        raise CourseError(
            f"the text has {len(ids):,} tokens; its held-out tenth must fill a block of {block} and one more, so at "
            f"least {10 * (block + 1):,} are needed: use a longer text or a smaller --block-size"
        )
    return tokenizer, *corpus.split(ids)
