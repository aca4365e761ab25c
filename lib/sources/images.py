"""Pictures to learn from: handwritten digits that `course data` fetches, and Fashion-MNIST where it is installed.

Pictures are (N, C, Y, X) float32, 0 for the background and 1 for full ink; labels are (N,) int64.
"""

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.errors import CourseError
from lib.sources import catalogue

HELD_OUT = 360  # of the digits
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
FASHION = "/usr/share/datasets/fashion-mnist"  # where Debian's package dataset-fashion-mnist puts it


class Pictures(NamedTuple):
    """Pictures and what they show."""

    images: Tensor  # (N, C, Y, X)
    labels: Tensor  # (N,)


def digits(in_order: bool = False) -> tuple[Pictures, Pictures]:
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998): (1,437 to learn from, 360 held out).

    The held-out ones are drawn once and for all; in_order: they are the last in the file. 13 people wrote the digits,
    and the file does not say who wrote which, but neighbours look alike: its end is a harder test than a random choice.
    Raises CourseError before `course data` was run.
    """
    with gzip.open(catalogue.path("scikit-learn", "digits.csv.gz")) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # (N, 65): 64 pixels of 0 … 16, then the digit
    table = torch.from_numpy(table)
    images = table[:, :64].float().div(16).view(-1, 1, 8, 8)  # (N, 1, 8, 8)
    labels = table[:, 64].long()  # (N,)
    if not in_order:
        order = torch.from_numpy(np.random.Generator(np.random.Philox(0)).permutation(len(images)))  # (N,)
        images, labels = images[order], labels[order]
    cut = len(images) - HELD_OUT
    return Pictures(images[:cut], labels[:cut]), Pictures(images[cut:], labels[cut:])


def fashion() -> tuple[Pictures, Pictures]:
    """Fashion-MNIST (Xiao et al. 2017), 28 x 28 pixels, ten kinds of clothes: (60,000 to learn from, 10,000 held out).

    Read from the folder where Debian's package has it, or from COURSE_FASHION, a folder with the four .gz files.
    Raises CourseError if they are not there or not whole.
    """
    folder = Path(os.environ.get("COURSE_FASHION") or FASHION)
    train = Pictures(*_idx_pair(folder, "train", 60_000))
    return train, Pictures(*_idx_pair(folder, "t10k", 10_000))


def _idx_pair(folder: Path, part: str, n: int) -> tuple[Tensor, Tensor]:
    images = _idx(folder / f"{part}-images-idx3-ubyte.gz", (n, 28, 28))  # (N, 28, 28)
    labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz", (n,))  # (N,)
    if labels.max() >= len(CLOTHES):
        raise CourseError(f"{folder} has a label {labels.max()} where 0 to {len(CLOTHES) - 1} are known; reinstall it")
    return images[:, None].float().div_(255), labels.long()  # (N, 1, 28, 28), (N,)


def _idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The bytes of one gzipped IDX file (LeCun's format), which must have exactly this shape.

    No more is unpacked than that shape needs, whatever the file claims.
    """
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)  # 8: unsigned bytes
    size = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) as file:
            data = file.read(size + 1)
    except FileNotFoundError:
        raise CourseError(
            f"no Fashion-MNIST in {path.parent} ({path.name} is missing); on Debian or Ubuntu run `sudo apt install "
            f"dataset-fashion-mnist`, elsewhere set COURSE_FASHION to a folder with its four .gz files"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise CourseError(f"cannot read {path} ({error}); install Fashion-MNIST again") from None
    if len(data) != size or not data.startswith(header):
        raise CourseError(f"{path} is not the file that was expected, {shape} bytes in IDX form; install it again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=len(header)).view(shape)  # shape
