"""Text as it is written: whole characters, the spaces between words, and a stop before a stop string."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from lib.inference import text
from lib.inference.text import Text, stream_text
from lib.transformer import Config, Transformer

MODEL = Transformer(Config.llama(vocab_size=256, block_size=96, n_layer=1, n_head=1, d_model=8))


class Bytes:
    """A tokenizer of one byte a token."""

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize("said", ["plain", "Grüße, 世界, 🙂!", "🙂🙂"])
def test_streamed_text_never_shows_half_a_character(said, monkeypatch):
    ids = list(said.encode())
    monkeypatch.setattr(text, "stream", lambda *args, **options: (torch.tensor([[id]]) for id in ids))
    pieces = list(stream_text(MODEL, Bytes(), [1], 99))
    assert "".join(pieces) == said and len(pieces) == len(said)
    cut = "".join(stream_text(MODEL, Bytes(), [1], 99, stop={ids[-1]}))
    assert said.startswith(cut.rstrip("\ufffd")) and len(cut) <= len(said)


def test_streamed_text_keeps_the_spaces_of_a_decoder_that_looks_one_token_back(monkeypatch):
    words = ["\u2581The", "\u2581cat", "s", "\u2581sat"]  # Llama 2's and Mistral's way: a space begins a word
    theirs = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token=words[0]))
    theirs.decoder = decoders.Metaspace()  # and is dropped where a text begins
    monkeypatch.setattr(text, "stream", lambda *args, **options: (torch.tensor([[id]]) for id in range(4)))
    assert list(stream_text(MODEL, theirs, [1], 99)) == [" The", " cat", "s", " sat"]


def test_streamed_text_shows_broken_bytes_as_such(monkeypatch):
    ids = [0xF0, 0x9F, 65, 0xFF]
    monkeypatch.setattr(text, "stream", lambda *args, **options: (torch.tensor([[id]]) for id in ids))
    assert "".join(stream_text(MODEL, Bytes(), [1], 99)) == "\ufffdA\ufffd"


@settings(deadline=None)
@given(st.text("ab☃é", min_size=1, max_size=12), st.lists(st.text("ab☃é", min_size=1, max_size=4), max_size=3))
def test_text_comes_whole_and_stops_before_the_first_stop_string(said, stops):
    maker = Text(Bytes(), stops)
    pieces = []
    for byte in said.encode():
        pieces.append(maker.add(byte))
        if maker.stopped:
            break
    if not maker.stopped:
        pieces.append(maker.end())
    found = [at for stop in stops if (at := said.find(stop)) >= 0]
    whole = "".join(pieces)
    assert maker.stopped == bool(found)
    # Of two stop strings the one that is complete first counts, which may begin after the other.
    assert said.startswith(whole) and not any(stop in whole for stop in stops)
    assert whole == said if not found else len(whole) >= min(found)
    if len(stops) == 1 and found:
        assert whole == said[: found[0]]


def test_text_is_out_as_soon_as_it_is_sure():
    maker = Text(Bytes(), ["end!"])
    assert [maker.add(byte) for byte in "aé en e".encode()] == ["a", "", "é", " ", "", "", "en ", ""]
    assert maker.end() == "e"
    maker = Text(Bytes())
    assert [maker.add(byte) for byte in (0xE2, 0x98)] == ["", ""] and maker.end() == "\ufffd"
