"""The page as a file: whole, closed, and the weights and texts in it as they are."""

import base64
import json
import re

import pytest
import torch
from tiny import talker, tiny

from lib.errors import CourseError
from lib.tokenizer import BPETokenizer, CharTokenizer
from lib.transformer import Config, Transformer
from lib.view import page as pages
from lib.view.page import describe, pack, page, start, too_large
from lib.weights.chat import ChatTokenizer

LETTERS = CharTokenizer("abcdefghijklmnopq")


def parts(html):
    return dict(re.findall(r'<script type="[^"]*" id="(\w+)">(.*?)</script>', html, re.S))


def test_the_weights_are_in_it_to_the_bit():
    model = tiny(tie=False)
    found = parts(page(model, LETTERS, "a model"))
    about, blob = json.loads(found["about"]), base64.b64decode(found["weights"])
    at, state = 0, model.state_dict()
    for name, shape in about["layout"]:
        size = torch.Size(shape).numel()
        values = torch.frombuffer(bytearray(blob[at : at + 4 * size]), dtype=torch.float32).view(shape)
        assert torch.equal(values, state.pop(name)), name
        at += 4 * size
    assert not state and at == len(blob)
    assert "head.weight" not in dict(pack(tiny(tie=True))[0])


def test_nothing_in_it_leads_elsewhere():
    html = page(tiny(), LETTERS, "a model")
    assert "default-src 'none'" in html and "connect-src 'none'" in html and "unsafe" not in html
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)|https?://(?!www\.w3\.org)|@import|url\(", html)
    assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write|pickle", html)
    assert "connect-src 'self'" in page(tiny(), LETTERS, "a model", served=True)


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--<script>", "@SCRIPT@ @ABOUT@",
                                  "\\1 \\g<0>", "مرحبا 🙂 \u202e", "\u2028", ""])  # fmt: skip
def test_a_text_or_a_name_stays_text(text):
    html = page(tiny(), LETTERS, text, text)
    about = json.loads(parts(html)["about"])
    assert (about["text"], about["name"]) == (text, text)
    assert html.count("<script") == 3


def test_a_model_too_large_for_a_page_is_said_so(monkeypatch):
    monkeypatch.setattr(pages, "LARGEST", 1000)
    assert too_large(tiny())
    with pytest.raises(CourseError, match="too many for a page"):
        page(tiny(), LETTERS, "a model")
    found = parts(page(tiny(), LETTERS, "a model", served=True))
    assert found["weights"] == "" and json.loads(found["about"])["layout"] == []


def test_the_cpu_presets_page_is_small():
    from lib.course.training_run import recipe

    model = Transformer(recipe.model_config(recipe.PRESETS["cpu"], 80))
    assert len(page(model, CharTokenizer(map(chr, range(32, 112))), "a model")) < 2e6


def test_a_text_to_begin_with():
    assert start(BPETokenizer()) == pages.TEXT
    assert start(CharTokenizer.train(pages.TEXT)) == pages.TEXT
    assert start(CharTokenizer("абвгд ")) == "абвгд"
    assert start(CharTokenizer("?!")) == "?!"


def test_a_folders_own_tokenizer_is_described(tmp_path):
    found = describe(ChatTokenizer(talker(tmp_path)))
    assert found["added"] == {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
    assert len(found["pieces"]) == 259 and found["merges"] == [] and found["words"] and not found["prefix"]


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t["model"].update(byte_fallback=True), "byte_fallback"),
    (lambda t: t.update(normalizer={"type": "Lowercase"}), "changes the text"),
    (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "cuts texts"),
    (lambda t: t.update(pre_tokenizer=None), "cuts texts"),
    (lambda t: t["added_tokens"][0].update(lstrip=True), "added tokens with conditions"),
])  # fmt: skip
def test_a_tokenizer_that_is_not_understood_is_refused(tmp_path, change, says):
    path = talker(tmp_path) / "tokenizer.json"
    theirs = json.loads(path.read_text())
    change(theirs)
    path.write_text(json.dumps(theirs))
    with pytest.raises(CourseError, match=says):
        describe(ChatTokenizer(tmp_path))


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CourseError, match="is of type WordLevel"):
        describe(ChatTokenizer(tmp_path))


def test_the_letters_for_bytes_are_gpt2s():
    from tokenizers import pre_tokenizers

    assert sorted(pages.LETTERS.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in map(chr, (*range(1, 600), 0x20AC, 0x1F642)):
        assert cut.pre_tokenize_str(text)[0][0] == "".join(pages.LETTERS[byte] for byte in text.encode())


def test_every_kind_of_model_has_a_page():
    """Whatever Config allows has a page."""
    sizes = dict(vocab_size=17, block_size=16, n_layer=2, n_head=2, d_model=16)
    for fields in (dict(norm="layer", position="sinusoidal", mlp="plain", activation="relu2"),
                   dict(position="none", n_kv_head=1), dict(position="learned", causal=False)):  # fmt: skip
        assert "</html>" in page(Transformer(Config(**sizes, **fields)), LETTERS, "a model")
