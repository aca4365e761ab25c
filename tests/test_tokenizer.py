"""The tokenizer: lossless on any text, and equal to the `tokenizers` library merge by merge, id by id."""

import base64
import json
import unicodedata

import numpy as np
import pytest
import torch
from hunt import hunt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lib import corpus, tokenizer
from lib.errors import CourseError
from lib.sources import catalogue
from lib.tokenizer import BYTES, WORD, BPETokenizer, CharTokenizer, gpt2

# The library writes bytes as characters: a byte that prints is itself, the others are 256, 257, …
LETTER = {byte: chr(byte) if id < 188 else chr(256 + id - 188) for id, byte in enumerate(BYTES)}


def letters(token):
    return "".join(LETTER[byte] for byte in token)


def library(model=None):
    peer = Tokenizer(model or models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return peer


def library_trained(text, vocab_size):
    peer = library()
    peer.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
        ),
    )
    return peer


def library_with(ours):
    """The library's tokenizer with our vocabulary and merges."""
    vocabulary = {letters(ours.token_bytes(id)): id for id in range(ours.vocab_size)}
    merges = [(letters(left), letters(right)) for left, right in ours.merges]
    return library(models.BPE(vocab=vocabulary, merges=merges))


def assert_same(ours, peer):
    model = json.loads(peer.to_str())["model"]
    assert [[letters(left), letters(right)] for left, right in ours.merges] == model["merges"]
    assert {letters(ours.token_bytes(id)): id for id in range(ours.vocab_size)} == model["vocab"]


@pytest.fixture(scope="module")
def plays():
    return corpus.shakespeare(corpus.FAMOUS)


@pytest.fixture(scope="module")
def trained(plays):
    return BPETokenizer.train(plays[:200_000], 700)


@pytest.fixture(scope="module")
def real():
    return gpt2()


@pytest.fixture(scope="module")
def library_real(real):
    return library_with(real)


# --- characters


def test_characters_are_numbered_by_code_point():
    characters = CharTokenizer.train("hello 🙂")
    assert characters.vocab_size == 6
    assert characters.encode(" ehlo🙂") == [0, 1, 2, 3, 4, 5]
    assert characters.decode(torch.tensor([2, 1, 3, 3, 4])) == "hello"


@given(st.text(min_size=1))
def test_characters_round_trip(text):
    characters = CharTokenizer.train(text)
    assert characters.decode(characters.encode(text)) == text


def test_characters_refuse_what_they_cannot_do():
    with pytest.raises(CourseError, match="empty"):
        CharTokenizer.train("")
    with pytest.raises(CourseError, match="surrogate"):
        CharTokenizer.train("\ud800")
    with pytest.raises(CourseError, match="'z' was not in the training text"):
        CharTokenizer.train("abc").encode("abz")
    for id in (3, -1):
        with pytest.raises(CourseError, match=f"no token {id}; this tokenizer's ids are 0 to 2"):
            CharTokenizer.train("abc").decode([0, id])


# --- round trip

AWKWARD = st.sampled_from(
    ["\0", "\r\n", "\n", "\r", " ", "   ", "\t", "\u00a0", "\u2028", "\x85", "\ufeff", "\uffff", "\U0010ffff",
     "e\u0301", "\u0301", "👩‍👩‍👧", "🇬🇧", "ﷺ", "क्षि", "don't", "'LL", "the", " the", "x²", "٣", "a" * 70, "\x7f"]
)  # fmt: skip
ANY_TEXT = st.one_of(st.text(max_size=60), st.lists(st.one_of(AWKWARD, st.text(max_size=5))).map("".join))


@settings(max_examples=hunt(1000, 100_000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_round_trip_of_any_text(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert b"".join(map(trained.token_bytes, ids)) == text.encode()


@given(text=ANY_TEXT.filter(bool), extra=st.integers(0, 40))
def test_round_trip_with_merges_learned_from_the_text_itself(text, extra):
    ours = BPETokenizer.train(text, 256 + extra)
    assert ours.decode(ours.encode(text)) == text


def test_every_character_round_trips(trained):
    text = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert trained.decode(trained.encode(text)) == text


def test_gpt2_round_trip(real, plays):
    text = plays[:100_000] + "naïve 東京 🙂\r\n\0 don't  \n\n x"
    assert real.decode(real.encode(text)) == text


# --- training, by hand


def test_two_merges_by_hand():
    ours = BPETokenizer.train("ab ab ab", 300)
    assert ours.merges == [(b"a", b"b"), (b" ", b"ab")]  # no pair is left after these
    assert ours.vocab_size == 258
    assert [ours.token_bytes(id) for id in ours.encode("ab abb")] == [b"ab", b" ab", b"b"]


def test_ties_go_to_the_smaller_ids():
    assert BPETokenizer.train("zy ba", 300).merges == [(b"b", b"a"), (b"z", b"y"), (b" ", b"ba")]


def test_overlapping_pairs_are_counted_once_per_merge():
    # In "aaa", (a, a) occurs twice but merges once; then (aa, a) ties with (" ", bc), whose ids are smaller.
    ours = BPETokenizer.train("aaa bcbc", 260)
    assert ours.merges == [(b"a", b"a"), (b"b", b"c"), (b" ", b"bc"), (b"aa", b"a")]
    # Seven are three pairs and one over: (aa, aa) is left twice, (aa, a) once.
    assert BPETokenizer.train("aaaaaaa", 258).merges == [(b"a", b"a"), (b"aa", b"aa")]


def test_the_first_ids_are_the_bytes_in_gpt2s_order():
    ours = BPETokenizer()
    assert ours.vocab_size == 256
    assert ours.encode("!~ \n") == [0, 93, 220, 198]
    assert ours.merges == []
    assert sorted(ours.token_bytes(id) for id in range(256)) == [bytes([byte]) for byte in range(256)]


def test_merges_never_cross_words():
    ours = BPETokenizer.train("one two. one two. one two. one two.", 400)
    for id in range(256, ours.vocab_size):
        token = ours.token_bytes(id).decode()
        assert WORD.fullmatch(token), token


def test_progress_is_told_after_each_merge():
    told = []
    BPETokenizer.train("ab ab ab abc", 258, progress=lambda done, wanted: told.append((done, wanted)))
    assert told == [(1, 2), (2, 2)]


def test_training_with_nothing_to_merge():
    for text in ("x", " ", "a-b"):
        assert BPETokenizer.train(text, 1000).vocab_size == 256
    assert BPETokenizer.train("ababab", 256).merges == []


@pytest.mark.parametrize(
    ("text", "vocab_size", "says"),
    [("", 300, "the text is empty"), ("abc", 255, "vocab_size is 255"), ("ab\udfff", 300, "character 2 of the text")],
)
def test_training_refuses(text, vocab_size, says):
    with pytest.raises(CourseError, match=says):
        BPETokenizer.train(text, vocab_size)


# --- training and encoding, against the library

TIED_TEXT = st.one_of(
    st.text("ab", max_size=120),
    st.text("aab ", max_size=200),
    st.text("abc \n", max_size=200),
    st.text("aé🙂 ", max_size=80),
    st.lists(st.integers(1, 40), max_size=12).map(lambda lengths: " ".join("a" * n for n in lengths)),
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=6), st.integers(1, 5)), max_size=12).map(
        lambda words: " ".join(word * n for word, n in words)
    ),
).filter(bool)


@settings(max_examples=hunt(300, 15_000), deadline=None)
@given(text=TIED_TEXT, extra=st.integers(0, 120), other=TIED_TEXT)
def test_small_corpora_give_the_librarys_merges(text, extra, other):
    ours, peer = BPETokenizer.train(text, 256 + extra), library_trained(text, 256 + extra)
    assert_same(ours, peer)
    for sample in (text, other):
        assert ours.encode(sample) == peer.encode(sample).ids


def test_shakespeare_gives_the_librarys_merges(plays):
    text, other = plays[:1_000_000], plays[1_000_000:]
    ours, peer = BPETokenizer.train(text, 1256), library_trained(text, 1256)
    assert len(ours.merges) == 1000
    assert_same(ours, peer)
    for sample in (text, other):
        assert ours.encode(sample) == peer.encode(sample).ids


def test_words_are_cut_as_the_library_cuts_them():
    """Every character of Unicode 3.2; the newest ones are letters only to a library that knows them already.

    In a short run, of the ideographs and syllables from U+3400 on every tenth."""
    known = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    known = [char for char in known if unicodedata.ucd_3_2_0.category(char) != "Cn"]
    assert len(known) > 90_000
    known = [char for n, char in enumerate(known) if ord(char) < 0x3400 or n % hunt(10, 1) == 0]
    for cases in (
        [f"a{char}1{char}!{char} {char}  {char}{char}\n" for char in known],
        ["I'll we've it's 'tis DON'T 'S  x\n\n y \t z   ", "  lead", "trail  ", "3.14 abc123", "_a_"],
    ):
        for case in ("".join(cases), *cases[-5:]):
            cuts = library().pre_tokenizer.pre_tokenize_str(case)
            assert WORD.findall(case) == [case[start:end] for _, (start, end) in cuts]


@settings(max_examples=hunt(300, 15_000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.text(st.characters(max_codepoint=0x24F), max_size=80),
        st.text("aehnrst '\n", max_size=120),
        st.text("-=_*. 0", max_size=120),
        TIED_TEXT,
    )
)
def test_gpt2_encodes_as_the_library_does(real, library_real, text):
    assert real.encode(text) == library_real.encode(text).ids


def test_gpt2_on_real_text(real, library_real, plays):
    assert real.encode(plays) == library_real.encode(plays).ids


def test_gpt2s_published_ids(real):
    assert real.vocab_size == 50256
    assert real.encode("Hello, world!") == [15496, 11, 995, 0]
    assert real.token_bytes(50255) == b" gazed"
    assert real.merges[:3] == [(b" ", b"t"), (b" ", b"a"), (b"h", b"e")]


@pytest.mark.parametrize("word", ["a" * 1_000_000, " " * 1_000_000, "ab" * 300_000 + "a", "-=" * 200_000])
def test_one_enormous_word(real, library_real, word):
    ids = real.encode(word)
    assert real.decode(ids) == word
    assert ids == library_real.encode(word).ids


def test_training_on_one_enormous_word():
    ours = BPETokenizer.train("a" * 1_000_000, 300)
    # 2, 4, 8, … up to 64 of them, where 15,625 remain; from there on a lone last one is left over.
    assert [len(left + right) for left, right in ours.merges[:6]] == [2, 4, 8, 16, 32, 64]
    assert ours.encode("a" * 1_000_000) == [256 + len(ours.merges) - 1]


# --- encoding and decoding


def test_encode_gives_a_list_of_ones_own(trained):
    first = trained.encode("the")
    expected = list(first)
    first.append(99)
    first[0] = 98
    assert trained.encode("the") == expected


def test_the_cache_is_bounded_and_changes_nothing(trained, plays, monkeypatch):
    text = plays[300_000:320_000]
    expected = trained.encode(text)
    monkeypatch.setattr(tokenizer, "CACHED_WORDS", 10)
    small = BPETokenizer(trained._pairs)
    assert small.encode(text) == expected
    assert 0 < len(small._words) <= 10
    small._words.clear()
    small.encode("b" * 33)
    assert len(small._words) == 0  # long words are not kept
    small.encode("b" * 32)
    assert len(small._words) == 1


def test_bounds_as_they_are_written():
    def doubling(n):
        return [[97, 97], *([255 + i, 255 + i] for i in range(1, n))]  # tokens of 2, 4, 8, … bytes

    assert tokenizer.are_merges(doubling(26)) and not tokenizer.are_merges(doubling(27)), "256 MiB of tokens"
    for wrong in (None, [1], [[1]], [[-1, 2]], doubling(27)):
        assert tokenizer.are_merges(wrong) is False
    cache = tokenizer._Cache(lambda word: (1,))
    for i in range(65_536):
        cache[str(i)]
    assert len(cache) == 65_536 and cache["one more"] == (1,) and len(cache) == 1


def test_empty_text(trained):
    assert trained.encode("") == []
    assert trained.decode([]) == ""


def test_a_lone_surrogate_is_refused(trained):
    with pytest.raises(CourseError, match=r"character 3 of the text is '\\ud83d', half of a surrogate pair"):
        trained.encode("abc\ud83d!")


def test_half_a_character_decodes_to_a_replacement():
    ours = BPETokenizer()
    assert ours.decode(ours.encode("é")[:1]) == "\ufffd"
    assert ours.decode(ours.encode("a🙂b")[:3]) == "a\ufffd"
    lone = ours.decode([int(BYTES.index(byte)) for byte in b"\xed\xa0\xbd"])  # would be a surrogate
    assert set(lone) == {"\ufffd"}


@pytest.mark.parametrize("convert", [list, tuple, iter, torch.tensor, np.array])
def test_decode_takes_any_sequence(trained, convert):
    assert trained.decode(convert(trained.encode("To be, or not"))) == "To be, or not"


@pytest.mark.parametrize("id", [700, -1, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(trained, id):
    with pytest.raises(CourseError, match=f"no token {id}; this tokenizer's ids are 0 to 699"):
        trained.decode([0, id])
    with pytest.raises(CourseError, match=f"no token {id}"):
        trained.token_bytes(id)


@pytest.mark.parametrize("ids", [torch.zeros(2, 3, dtype=torch.int64), torch.tensor(5), [[1, 2]], 5])
def test_ids_that_are_not_one_row_are_refused(trained, ids):
    with pytest.raises(CourseError, match="one row of whole numbers"):
        trained.decode(ids)


def test_token_bytes_of_a_tensors_entries(trained):
    assert b"".join(map(trained.token_bytes, torch.tensor(trained.encode("To be")))) == b"To be"


# --- files


def test_save_and_load(trained, tmp_path, plays):
    path = tmp_path / "bpe.json"
    path.write_text("older")
    trained.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["bpe.json"]
    again = BPETokenizer.load(path)
    assert again.merges == trained.merges
    assert again.encode(plays[:10_000]) == trained.encode(plays[:10_000])
    again.save(str(path))
    assert BPETokenizer.load(str(path)).merges == trained.merges


def test_save_where_it_cannot(trained, tmp_path):
    with pytest.raises(CourseError, match="cannot write"):
        trained.save(tmp_path / "absent" / "bpe.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CourseError, match="cannot write"):
        trained.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_load_knows_both_kinds(trained, tmp_path):
    text = "hello 🙂\n\0é"
    characters = CharTokenizer.train(text)
    for saved in (trained, characters):
        saved.save(tmp_path / "tokenizer.json")
        again = tokenizer.load(tmp_path / "tokenizer.json")
        assert type(again) is type(saved) and again.vocab_size == saved.vocab_size
        assert again.encode(text) == saved.encode(text) and again.decode(again.encode(text)) == text


@pytest.mark.parametrize("characters", [None, "", "ba", "aa", ["a", "b"], 3])
def test_load_refuses_characters_that_are_none(tmp_path, characters):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"format": tokenizer.CHARACTERS, "characters": characters}))
    with pytest.raises(CourseError, match="is not a tokenizer's file"):
        tokenizer.load(path)


def merges_file(merges):
    return json.dumps({"format": tokenizer.FORMAT, "merges": merges})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({"format": "another", "merges": []}),
        merges_file(None),
        merges_file({"0": [1, 2]}),
        merges_file([1]),
        merges_file([[1]]),
        merges_file([[1, 2, 3]]),
        merges_file([[1, "2"]]),
        merges_file([[1, 2.0]]),
        merges_file([[1, True]]),
        merges_file([[-1, 2]]),
        merges_file([[1, 256]]),  # itself
        merges_file([[257, 1], [2, 3]]),  # younger than itself
        merges_file([[1, 2], [1, 2]]),
        merges_file([[id, id] for id in (0, *range(256, 320))]),  # a token of 2⁶⁵ bytes
        merges_file([[id, id] for id in (0, *range(256, 281))] + [[281, id] for id in range(9)]),  # many of 2²⁶
    ],
)
def test_load_refuses_what_is_not_a_tokenizer(tmp_path, content):
    path = tmp_path / "bpe.json"
    path.write_text(content)
    with pytest.raises(CourseError, match="is not a tokenizer's file; give one that BPETokenizer"):
        BPETokenizer.load(path)


def test_reading_what_cannot_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for read in (BPETokenizer.load, BPETokenizer.from_tiktoken):
        with pytest.raises(CourseError, match=r"cannot read .*absent"):
            read(tmp_path / "absent")
        with pytest.raises(CourseError, match="cannot read"):
            read(tmp_path)
        with pytest.raises(CourseError, match="is not text"):
            read(tmp_path / "binary")


def ranks(tokens):
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))


ALPHABET = [bytes([byte]) for byte in BYTES]


def test_ranks_file_of_our_own(tmp_path):
    ours = BPETokenizer.train("the cat sat on the mat, the cat sat", 280)
    path = tmp_path / "ours.tiktoken"
    path.write_text(ranks(map(ours.token_bytes, range(ours.vocab_size))))
    assert BPETokenizer.from_tiktoken(path).merges == ours.merges


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "it has no merges"),
        (ranks(ALPHABET), "it has no merges"),
        (ranks(ALPHABET)[:200], "line .* is not a token and a rank|has no merges"),
        ("hello world\n", "line 1 is not a token and a rank"),
        ("IQ==\n", "line 1 is not a token and a rank"),
        ("I*Q== 0\n", "line 1 is not a token and a rank"),
        ("é 0\n", "line 1 is not a token and a rank"),
        ("IQ== 1\n", "line 1 should have rank 0"),
        ("IQ== zero\n", "line 1 should have rank 0"),
        (ranks([bytes([byte]) for byte in range(256)]), "rank 0 should be the byte 33"),
        (ranks([*ALPHABET[:-1], b"ab"]), "rank 255 should be the byte 173"),
        (ranks([*ALPHABET, b"abc"]), "rank 256 does not join two older tokens"),
        (ranks([*ALPHABET, b"ab", b"ab"]), "rank 257 does not join two older tokens"),
        (ranks([*ALPHABET, b""]), "line 257 is not a token and a rank"),
    ],
)
def test_ranks_files_that_are_not(tmp_path, content, says):
    path = tmp_path / "some.tiktoken"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CourseError, match=says) as error:
        BPETokenizer.from_tiktoken(path)
    assert "\n" not in str(error.value)


def test_a_changed_ranks_file_is_refused(tmp_path):
    lines = catalogue.path("openai-whisper", "gpt2.tiktoken").read_text().splitlines(keepends=True)
    path = tmp_path / "gap.tiktoken"
    path.write_text("".join(lines[:300] + lines[301:]))
    with pytest.raises(CourseError, match="line 301 should have rank 300"):
        BPETokenizer.from_tiktoken(path)
