"""From text to numbers and back: one number per character, or byte-pair encoding.

A model sees integers. `CharTokenizer` gives every character its own. `BPETokenizer` begins with the 256 bytes
and learns, from a text, which two neighbours to glue into a new token, again and again: frequent words end up
as one token, rare ones as a few, and nothing is ever out of vocabulary, because any text is bytes.

Both have `train`, `encode`, `decode` and `vocab_size`, and both give back exactly the text they were given.

Sources: Gage 1994, "A New Algorithm for Data Compression"; Sennrich, Haddow and Birch 2016 (arXiv:1508.07909)
for the use on words; Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2),
section 2.2, for bytes and for the pattern that first cuts a text into words.
"""

import base64
import binascii
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise
from pathlib import Path

import regex

from lib.errors import CourseError

# GPT-2's pattern (from its released encoder). No token ever crosses one of these cuts, so "dog", "dog." and
# "dog!" share the token "dog". A space belongs to the word after it: " dog" is one piece.
WORD = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d"  # the common English endings, lower case only
    r"| ?\p{L}+"  # letters of any script
    r"| ?\p{N}+"  # digits
    r"| ?[^\s\p{L}\p{N}]+"  # punctuation, symbols, emoji, combining marks
    r"|\s+(?!\S)"  # a run of white space, leaving its last character to the next word
    r"|\s+"  # … and white space that no word can take
)

# The 256 first ids are the single bytes in GPT-2's order: those that print in Latin-1, then the others.
PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTES = bytes((*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE)))
BYTE_TO_ID = bytes.maketrans(BYTES, bytes(range(256)))

CACHED_WORDS = 1 << 16  # how many words' encodings are remembered …
CACHED_LENGTH = 32  # … and the longest word worth remembering, in characters
GONE = -1  # stands where a token was, once its left neighbour has swallowed it

FORMAT = "transformer-course byte-level BPE 1"  # what a saved file calls itself
CHARACTERS = "transformer-course characters 1"
LARGEST = 1 << 28  # bytes of all tokens together; a few crafted merges could otherwise ask for terabytes


class CharTokenizer:
    """One token per character; the ids follow the characters' code points."""

    def __init__(self, characters: Iterable[str]):
        self._characters = dict(enumerate(characters))
        self._ids = {character: id for id, character in self._characters.items()}

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """Learns the characters of `text`. An empty text is a CourseError."""
        _check_text(text)
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        return len(self._characters)

    def encode(self, text: str) -> list[int]:
        """The ids of the text's characters. A character that `train` never saw is a CourseError."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as unknown:
            raise CourseError(
                f"the character {unknown.args[0]!r} was not in the training text; train on a text that has it"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text again. `ids` is any sequence of numbers, a 1-d tensor included."""
        return "".join(_look_up(self._characters, ids))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the characters as JSON; the file appears whole or not at all."""
        _write(path, {"format": CHARACTERS, "characters": "".join(self._characters.values())})


class BPETokenizer:
    """Byte-level byte-pair encoding, the same as GPT-2's.

    `pairs[r]` holds the two ids that merge into the id 256 + r. An id is therefore also a merge's rank: a
    smaller id was learned earlier and is applied earlier. Both parts of a merge are older than the merge.
    """

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()):
        self._pairs: list[tuple[int, int]] = []
        self._merged: dict[tuple[int, int], int] = {}  # (left id, right id) -> the id they become
        self._tokens = {id: bytes([byte]) for id, byte in enumerate(BYTES)}
        self._words = _Cache(self._encode_word)
        for pair in pairs:
            self._add(pair)

    def _add(self, pair: tuple[int, int]) -> None:
        left, right = pair
        new = len(self._tokens)
        self._pairs.append(pair)
        self._merged[pair] = new
        self._tokens[new] = self._tokens[left] + self._tokens[right]

    @classmethod
    def train(cls, text: str, vocab_size: int, progress: Callable[[int, int], None] | None = None) -> "BPETokenizer":
        """Learns `vocab_size - 256` merges from `text`; each time, the pair of neighbours seen most often.

        Ties go to the pair with the smaller ids, so the result depends on nothing but the text, and is what
        the `tokenizers` library learns. When every word has become one token there is no pair left: training
        stops early and `vocab_size` of the result says how far it came. `progress(done, wanted)` is called
        after each merge. An empty text, or a vocab_size below 256, is a CourseError.
        """
        _check_text(text)
        if vocab_size < 256:
            raise CourseError(f"vocab_size is {vocab_size}, but the bytes alone are 256; ask for 256 or more")

        # Each different word once, with how often it occurs: a thousand copies of " the" cost as much as one.
        occurrences = Counter(WORD.findall(text))
        repeats = list(occurrences.values())
        words = [list(word.encode().translate(BYTE_TO_ID)) for word in occurrences]

        counts = defaultdict(int)  # pair -> how often it occurs in the text
        holders = defaultdict(set)  # pair -> the words (by index) that have held it
        for index, word in enumerate(words):
            for pair in pairwise(word):
                counts[pair] += repeats[index]
                holders[pair].add(index)
        heap = [(-count, pair) for pair, count in counts.items()]  # the most frequent first, then smaller ids
        heapify(heap)

        tokenizer = cls()
        while tokenizer.vocab_size < vocab_size and heap:
            count, pair = heappop(heap)
            if -count != counts[pair]:  # out of date: other merges have since taken some of its occurrences
                if counts[pair]:
                    heappush(heap, (-counts[pair], pair))
                continue
            # Always a new token, never one that two pairs spell: equal bytes are always cut in the same way.
            new = tokenizer.vocab_size
            tokenizer._add(pair)
            changes = defaultdict(int)
            for index in holders.pop(pair):
                for neighbours, change in _merge_in_word(words[index], pair, new):
                    changes[neighbours] += change * repeats[index]
                    if change > 0:
                        holders[neighbours].add(index)
            for neighbours, change in changes.items():
                counts[neighbours] += change
                if change > 0:
                    heappush(heap, (-counts[neighbours], neighbours))
            if progress:
                progress(new - 255, vocab_size - 256)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """What was learned, in order: (left bytes, right bytes)."""
        return [(self._tokens[left], self._tokens[right]) for left, right in self._pairs]

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for. They need not be whole characters."""
        return _look_up(self._tokens, [int(id)])[0]

    def encode(self, text: str) -> list[int]:
        """The ids of the text's tokens, with no special tokens added.

        A lone surrogate (half of a UTF-16 pair, which is not text and has no UTF-8 bytes) is a CourseError.
        """
        _check_unicode(text)
        return list(chain.from_iterable(map(self._words.__getitem__, WORD.findall(text))))

    def decode(self, ids: Iterable[int]) -> str:
        """The text again: `decode(encode(text)) == text` for every text.

        `ids` is any sequence of numbers, a 1-d tensor included. A model may sample ids that stop halfway
        through a character; such bytes come out as the replacement character U+FFFD. An id outside the
        vocabulary is a CourseError.
        """
        return b"".join(_look_up(self._tokens, ids)).decode("utf-8", errors="replace")

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return self._merge(word.encode())

    def _merge(self, word: bytes) -> tuple[int, ...]:
        """Applies the merges to one word, the oldest first and each from the left: O(n log n) for n bytes.

        A merge makes only pairs whose own merge is younger. So one sweep from the oldest merge to the
        youngest is enough, and it visits only the merges that are present: `places` lists where each may
        happen. (To search the word anew for each merge would be quadratic: hopeless on a megabyte of "a".)
        """
        ids = [*word.translate(BYTE_TO_ID), GONE]  # one wall for both ends: the last entry is also ids[-1]
        before = list(range(-1, len(ids) - 1))  # position -> the position of the token on its left
        after = list(range(1, len(ids) + 1))  # … and on its right
        merged = self._merged
        places = defaultdict(list)
        for place, pair in enumerate(pairwise(ids)):
            if pair in merged:
                places[merged[pair]].append(place)
        waiting = list(places)
        heapify(waiting)
        while waiting:
            new = heappop(waiting)
            left, right = self._pairs[new - 256]
            for place in places.pop(new):
                end = after[place]
                if ids[place] != left or ids[end] != right:
                    continue  # another merge has taken one of the two
                ids[place], ids[end] = new, GONE
                beyond = after[place] = after[end]
                before[beyond] = place
                for start, pair in (
                    (before[place], (ids[before[place]], new)),
                    (place, (new, ids[beyond])),
                ):
                    if pair in merged:
                        if merged[pair] not in places:
                            heappush(waiting, merged[pair])
                        places[merged[pair]].append(start)
        return tuple(id for id in ids if id != GONE)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the merges as JSON; the file appears whole or not at all."""
        _write(path, {"format": FORMAT, "merges": self._pairs})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "BPETokenizer":
        """Reads what `save` wrote. Any other file is a CourseError."""
        try:
            saved = json.loads(_read(path))
        except (ValueError, RecursionError):
            saved = None
        if isinstance(saved, dict) and saved.get("format") == FORMAT and are_merges(saved.get("merges")):
            return cls(map(tuple, saved["merges"]))
        raise CourseError(f"{path} is not a tokenizer's file; give one that BPETokenizer.save wrote")

    @classmethod
    def from_tiktoken(cls, path: str | os.PathLike) -> "BPETokenizer":
        """Reads a ranks file as tiktoken uses them: on each line a token in base64 and its rank, its id.

        The file says which tokens there are, not which two parts make each. Those we find by encoding every
        token with the tokens older than it: what is left when nothing more merges must be its two parts. Nor
        does the file say how the text was cut into words; this class always cuts as GPT-2 does. A file that
        is not such a list, or that orders the bytes in another way than GPT-2, is a CourseError.
        """
        wrong = f"{path} is not a ranks file in GPT-2's order"
        mend = "give an unchanged file such as gpt2.tiktoken"
        tokenizer = cls()
        for rank, line in enumerate(_read(path).splitlines()):
            try:
                encoded, number = line.split()
                token = base64.b64decode(encoded, validate=True)
            except (ValueError, binascii.Error):
                raise CourseError(f"{wrong}: line {rank + 1} is not a token and a rank; {mend}") from None
            if number != str(rank):
                raise CourseError(f"{wrong}: line {rank + 1} should have rank {rank}; {mend}")
            parts = tokenizer._merge(token)
            if rank < 256:
                if token != tokenizer._tokens[rank]:
                    raise CourseError(f"{wrong}: rank {rank} should be the byte {BYTES[rank]}; {mend}")
            elif len(parts) != 2:
                raise CourseError(f"{wrong}: rank {rank} does not join two older tokens; {mend}")
            else:
                tokenizer._add(parts)
        if not tokenizer._pairs:
            raise CourseError(f"{wrong}: it has no merges; {mend}")
        return tokenizer


def load(path: str | os.PathLike) -> CharTokenizer | BPETokenizer:
    """Reads what either tokenizer's `save` wrote. Any other file is a CourseError."""
    try:
        saved = json.loads(_read(path))
    except (ValueError, RecursionError):
        saved = None
    if isinstance(saved, dict) and saved.get("format") == CHARACTERS:
        characters = saved.get("characters")
        if isinstance(characters, str) and characters and list(characters) == sorted(set(characters)):
            return CharTokenizer(characters)
    return BPETokenizer.load(path)


def gpt2() -> BPETokenizer:
    """GPT-2's own tokenizer: 50,256 tokens, from the packaged ranks file.

    GPT-2 has one id more, 50256, for "<|endoftext|>". It is a control sign, not text, so it is not in here.
    """
    from lib.sources import catalogue

    return BPETokenizer.from_tiktoken(catalogue.path("openai-whisper", "gpt2.tiktoken"))


class _Cache(dict):
    """Words already encoded. Natural text repeats its words, so most of encoding is looking up here."""

    def __init__(self, encode_word: Callable[[str], tuple[int, ...]]):
        super().__init__()
        self.encode_word = encode_word

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self.encode_word(word)
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


def _merge_in_word(word: list[int], pair: tuple[int, int], new: int) -> list[tuple[tuple[int, int], int]]:
    """Replaces `pair` by `new` in the word, from the left. Returns each change around it: (pair, +1 or -1).

    In "aaa" the pair (a, a) occurs twice but merges once; the second occurrence goes as the right neighbour
    of the first, and (aa, a) comes in its place.
    """
    left, right = pair
    changes = []
    after = []  # the word after the merge; written anew, for cutting it out of a long list would be quadratic
    place, end = 0, len(word)
    while place < end:
        if word[place] == left and place + 1 < end and word[place + 1] == right:
            if after:
                changes += ((after[-1], left), -1), ((after[-1], new), 1)
            if place + 2 < end:
                changes += ((right, word[place + 2]), -1), ((new, word[place + 2]), 1)
            after.append(new)
            place += 2
        else:
            after.append(word[place])
            place += 1
    word[:] = after
    return changes


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CourseError(
            f"character {error.start} of the text is {text[error.start]!r}, half of a surrogate pair and not "
            "a character; read the text as UTF-8"
        ) from None


def _check_text(text: str) -> None:
    if not text:
        raise CourseError("the text is empty, so there is nothing to learn from it; give some text")
    _check_unicode(text)


def _look_up(table: dict, ids: Iterable[int]) -> list:
    if hasattr(ids, "tolist"):  # a tensor or an array
        ids = ids.tolist()
    try:
        return [table[id] for id in ids]
    except TypeError:
        raise CourseError("the ids must be one row of whole numbers; of a batch take one row, as in ids[0]") from None
    except KeyError as unknown:
        raise CourseError(
            f"there is no token {unknown.args[0]}; this tokenizer's ids are 0 to {len(table) - 1}"
        ) from None


def _write(path: str | os.PathLike, saved: dict) -> None:
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(saved, allow_nan=False), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise CourseError(f"cannot write {path} ({error.strerror}); choose a folder you can write to") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _read(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CourseError(f"{path} is not text; give a tokenizer's file") from None
    except OSError as error:
        raise CourseError(f"cannot read {path} ({error.strerror}); check the path") from None


def are_merges(pairs: object) -> bool:
    """Whether each entry is two ids older than its own, none comes twice, and the tokens fit in memory."""
    if not isinstance(pairs, list):
        return False
    lengths = [1] * 256  # of the tokens, in bytes
    total = 256
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            return False
        if not all(type(id) is int and 0 <= id < len(lengths) for id in pair):
            return False
        lengths.append(lengths[pair[0]] + lengths[pair[1]])
        total += lengths[-1]
        if total > LARGEST:
            return False
    return len({tuple(pair) for pair in pairs}) == len(pairs)
