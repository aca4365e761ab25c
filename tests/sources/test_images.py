"""Pictures: the right digits in the right order, and Fashion-MNIST only if every byte is where it should be."""

import gzip
import hashlib
import struct

import pytest
import torch

from lib.errors import CourseError
from lib.sources import images


def test_digits():
    try:
        train, test = images.digits(in_order=True)
    except CourseError as error:
        pytest.skip(str(error))
    assert train.images.shape == (1437, 1, 8, 8) and test.images.shape == (360, 1, 8, 8)
    assert train.images.dtype == torch.float32 and train.labels.dtype == torch.int64
    everything = torch.cat((train.images, test.images))
    assert everything.min() == 0 and everything.max() == 1
    labels = torch.cat((train.labels, test.labels))
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI counts them
    assert train.labels[:10].tolist() == list(range(10))
    assert (16 * train.images[0, 0, 0]).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert 30 <= test.labels.bincount().min() and test.labels.bincount().max() <= 40

    mixed, mixed_test = images.digits()
    again = torch.cat((mixed.images, mixed_test.images))
    assert len(mixed_test.labels) == 360 and torch.equal(mixed.images, images.digits()[0].images)
    assert not torch.equal(again, everything) and torch.equal(again.sum(0), everything.sum(0))
    pairs, mixed_pairs = (sorted(zip(map(tuple, i.flatten(1).tolist()), j.tolist(), strict=True))
                          for i, j in ((everything, labels), (again, torch.cat((mixed.labels, mixed_test.labels)))))
    assert pairs == mixed_pairs, "each digit with its own label, once"


def test_digits_before_they_are_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    with pytest.raises(CourseError, match="scikit-learn is not here yet; run `course data`"):
        images.digits()


# Fashion-MNIST, in small


def idx(shape, data, kind=8, magic=0):
    return struct.pack(f">BBBB{len(shape)}I", magic, 0, kind, len(shape), *shape) + bytes(data)


def write(folder, name, content):
    (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(content, 1, mtime=0))


def fill(folder, part, n):
    """Two files: every picture black but for one pixel, labels 0 … 9 over and over."""
    pixels = bytearray(n * 784)
    pixels[784 + 28 + 2] = 255  # picture 1, row 1, column 2
    write(folder, f"{part}-images-idx3", idx((n, 28, 28), pixels))
    write(folder, f"{part}-labels-idx1", idx((n,), [i % 10 for i in range(n)]))


@pytest.fixture
def clothes(tmp_path):
    fill(tmp_path, "t10k", 10_000)
    return tmp_path


def held_out(folder):
    return images._idx_pair(folder, "t10k", 10_000)


def test_fashion(clothes, monkeypatch):
    monkeypatch.setenv("COURSE_FASHION", str(clothes))
    fill(clothes, "train", 60_000)
    train, test = images.fashion()
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert test.images.dtype == torch.float32 and test.labels.dtype == torch.int64
    assert test.images.nonzero().tolist() == [[1, 0, 1, 2]] and test.images.max() == 1
    assert test.labels[:12].tolist() == [*range(10), 0, 1] and len(images.CLOTHES) == 10


def test_fashion_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_FASHION", str(tmp_path / "nowhere"))
    with pytest.raises(CourseError, match=r"no Fashion-MNIST in .*apt install dataset-fashion-mnist.*COURSE_FASHION"):
        images.fashion()


@pytest.mark.parametrize(
    "content",
    [
        idx((10_000,), [0] * 9_999),  # cut short
        idx((10_000,), [0] * 10_001),  # too long
        idx((9_999,), [0] * 10_000),  # it says another number
        idx((100, 100), [0] * 10_000),  # another form
        idx((10_000,), [0] * 10_000, kind=13),  # floats
        idx((10_000,), [0] * 10_000, magic=1),
        b"",
    ],
    ids=["short", "long", "number", "form", "kind", "magic", "empty"],
)
def test_fashion_of_another_size(clothes, content):
    write(clothes, "t10k-labels-idx1", content)
    with pytest.raises(CourseError, match=r"t10k-labels-idx1-ubyte.gz is not the file that was expected"):
        held_out(clothes)


def test_fashion_damaged(clothes):
    path = clothes / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:40], b"no gzip at all", whole[:-8] + bytes(8)):
        path.write_bytes(content)
        with pytest.raises(CourseError, match=r"cannot read .*; install Fashion-MNIST again"):
            held_out(clothes)
    write(clothes, "t10k-labels-idx1", idx((10_000,), [10] * 10_000))
    with pytest.raises(CourseError, match="has a label 10 where 0 to 9 are known"):
        held_out(clothes)


def test_a_bomb_is_not_unpacked(clothes):
    """A gzip of a gigabyte of zeros is a megabyte: read no further than the size that is expected."""
    import tracemalloc

    write(clothes, "t10k-labels-idx1", idx((10_000,), bytes(300_000_000)))
    tracemalloc.start()
    with pytest.raises(CourseError, match="not the file that was expected"):
        images._idx(clothes / "t10k-labels-idx1-ubyte.gz", (10_000,))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_fashion_as_debian_has_it():
    try:
        train, test = images.fashion()
    except CourseError as error:
        pytest.skip(str(error))
    assert train.labels.bincount().tolist() == [6000] * 10 and test.labels.bincount().tolist() == [1000] * 10
    assert hashlib.sha256(test.labels.to(torch.uint8).numpy().tobytes()).hexdigest()[:16] == "3d0e6c6ea990b53b"
    assert 0.28 < train.images.mean() < 0.29
