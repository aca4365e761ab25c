"""A run's folder: record.json, the model as transformers reads it, its tokenizer, and a picture of the losses.

The checkpoint beside them is lib.trainer.checkpoint's.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import tokenizer as tokenizers
from lib.errors import CourseError
from lib.tokenizer import BPETokenizer, CharTokenizer
from lib.trainer.history import History
from lib.transformer import Transformer
from lib.weights import pretrained

VERSION = 1  # of record.json


def read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["version"]
        if version == VERSION and isinstance(record["options"], dict):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        raise CourseError(f"{path} is damaged; choose another --out") from None
    raise CourseError(f"{path} has version {version}, this code reads {VERSION}; update, or choose another --out")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A file that cannot be written into the folder becomes a CourseError."""
    try:
        yield
    except OSError as problem:
        raise CourseError(f"cannot write into {folder} ({problem.strerror}); choose another --out") from None


def save(model: Transformer, tokenizer: CharTokenizer | BPETokenizer, folder: Path) -> None:
    """Write config.json and model.safetensors, which transformers reads too, and the tokenizer beside them."""
    pretrained.save(model, folder)
    tokenizer.save(folder / "course_tokenizer.json")


def load(folder: Path) -> tuple[Transformer, CharTokenizer | BPETokenizer]:
    """The model and tokenizer of a run's folder. Raises CourseError if one of them is missing or damaged."""
    return pretrained.load(folder), tokenizers.load(Path(folder) / "course_tokenizer.json")


def plot(history: History, path: Path) -> None:
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
