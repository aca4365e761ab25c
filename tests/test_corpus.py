"""The corpus: the right text, nothing held out leaks, and batches that depend on seed and step alone."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import corpus
from lib.errors import CourseError
from lib.sources import catalogue


def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@pytest.fixture(scope="module")
def plays():
    try:
        return corpus.shakespeare()
    except CourseError as error:
        pytest.skip(str(error))


# Reading


def test_read_text(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rcaf\xc3\xa9\n")
    assert corpus.read_text(file) == "one\ntwo\ncaf\u00e9\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"fine until here \xe9 latin-1", "not UTF-8: byte 0xe9 at offset 16; save it as UTF-8"),
        (b"\x1f\x8b\x08compressed", "byte 0x8b at offset 1"),
        (b"cut in a letter \xc3", "byte 0xc3 at offset 16"),
    ],
)
def test_text_that_is_none(tmp_path, content, words):
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(CourseError, match=words):
        corpus.read_text(file)


def test_file_that_is_none(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CourseError, match=r"cannot read .*; check the path"):
            corpus.read_text(path)


# Shakespeare


def test_shakespeare_is_the_text_that_losses_were_measured_on(plays):
    assert sha256(plays) == corpus.SHA256
    assert sha256(corpus.shakespeare(corpus.FAMOUS)) == corpus.FAMOUS_SHA256
    assert len(corpus.PLAYS) == len(set(corpus.PLAYS)) == 37 and set(corpus.FAMOUS) <= set(corpus.PLAYS)


def test_shakespeare_is_clean(plays):
    assert plays.isascii() and plays.endswith("[Exeunt.]\n") and not set("\r\t") & set(plays)
    assert " \n" not in plays and "\n\n\n\n" not in plays and plays.count("\n\n\n") == 36
    for notice in ("gutenberg", "copyright", "by william shakespeare", "www.", "@gmail"):
        assert notice not in plays.lower()
    for line in ("\nVIOLA.\n", "\nTo be, or not to be,--that is the question:--\n", "When shall we three meet again?"):
        assert line in plays


def test_every_play_is_in_the_catalogue():
    files = catalogue.packages()["shakespeare"].files
    poems = {
        "lovers_complaint",
        "passionate_pilgrim",
        "phoenix_and_the_turtle",
        "rape_of_lucrece",
        "sonnets",
    }
    assert {file.removesuffix("_gut.txt") for file in files if file.endswith("_gut.txt")} == poems | {*corpus.PLAYS}


def test_unknown_play_and_no_data(monkeypatch, tmp_path):
    with pytest.raises(CourseError, match="no play 'hamlett'"):
        corpus.shakespeare(["hamlett"])
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    with pytest.raises(CourseError, match="shakespeare is not here yet; run `course data`"):
        corpus.shakespeare()


# Splitting


@given(st.text(min_size=20, max_size=300), st.floats(0.05, 0.95))
def test_split_loses_and_repeats_nothing(text, held_out):
    train, held = corpus.split(text, held_out)
    assert train + held == text and train and held
    assert abs(len(held) - held_out * len(text)) <= 0.5 + 1e-9


def test_split_holds_out_the_last_tenth():
    train, held = corpus.split(torch.arange(1000))
    assert train.tolist() == list(range(900)) and held.tolist() == list(range(900, 1000))


@pytest.mark.parametrize("held_out", [0, 1, -0.1, 1.5, float("nan")])
def test_split_at_an_impossible_place(held_out):
    with pytest.raises(CourseError, match="between 0 and 1"):
        corpus.split("some text", held_out)


def test_split_of_too_little():
    for text in ("", "a", "abc"):
        with pytest.raises(CourseError, match="cannot be split"):
            corpus.split(text)
    with pytest.raises(CourseError, match=r"length 2 cannot be split at 0\.9"):
        corpus.split("ab", 0.9)


# Batches


def test_targets_are_the_next_tokens():
    x, y = corpus.batches(torch.arange(500, dtype=torch.int32), 16, 32, seed=0, step=0)
    assert x.shape == y.shape == (16, 32) and x.dtype == y.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(32)), "a block is one piece of the corpus"


def test_batches_depend_on_seed_and_step_alone():
    tokens = torch.arange(10_000)
    torch.manual_seed(1)
    first = corpus.batches(tokens, 8, 16, seed=3, step=7)[0]
    torch.manual_seed(2)
    corpus.batches(tokens, 8, 16, seed=3, step=6)
    assert torch.equal(first, corpus.batches(tokens, 8, 16, seed=3, step=7)[0])
    starts = {(seed, step): tuple(corpus.batches(tokens, 8, 16, seed, step)[0][:, 0].tolist())
              for seed in range(20) for step in range(20)}  # fmt: skip
    assert len(set(starts.values())) == 400


def test_batches_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    corpus.batches(torch.arange(100), 8, 16, seed=0, step=0)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_the_same_everywhere():
    """Bands measured on one machine are about the batches of every machine."""
    x, _ = corpus.batches(torch.arange(1_000_000), 4, 8, seed=0, step=0)
    assert x[:, 0].tolist() == [135621, 14066, 937724, 257765]


def test_every_start_is_as_likely():
    tokens = torch.arange(12)  # block of 8 and its target: starts 0, 1, 2, 3
    starts = torch.cat([corpus.batches(tokens, 100, 8, seed=0, step=step)[0][:, 0] for step in range(100)])
    counts = torch.bincount(starts, minlength=5)
    assert counts[4] == 0 and (counts[:4] - 2500).abs().max() < 250  # 5 standard deviations


@given(st.integers(1, 64), st.integers(1, 40), st.integers(0, 2**31 - 1), st.integers(0, 10**6))
def test_batches_stay_inside(length, block_size, seed, step):
    tokens = torch.arange(length)
    if length <= block_size:
        with pytest.raises(CourseError, match="choose a smaller block_size or a longer text"):
            corpus.batches(tokens, 3, block_size, seed, step)
    else:
        x, y = corpus.batches(tokens, 3, block_size, seed, step)
        assert x.shape == (3, block_size) and x.min() >= 0 and y.max() < length


def test_batches_of_the_wrong_shape():
    with pytest.raises(CourseError, match=r"not shape \[2, 50\]"):
        corpus.batches(torch.zeros(2, 50), 4, 8, seed=0, step=0)
