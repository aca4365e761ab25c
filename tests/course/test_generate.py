"""`course generate`: streams a model's text; every mistake is one line and leaves standard output empty."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from lib.course.cli import main
from lib.generation import generate
from lib.inference import text as streaming
from lib.tokenizer import BPETokenizer, CharTokenizer
from lib.transformer import Config, Transformer
from lib.weights import pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["generate", *arguments])
    return end.value.code


@pytest.fixture
def folder(tmp_path):
    """A tiny model with a tokenizer of four words, one of them the end of a turn."""
    torch.manual_seed(1)
    model = Transformer(Config.llama(vocab_size=4, block_size=16, n_layer=1, n_head=2, d_model=8))
    pretrained.save(model, tmp_path)
    library = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_it_writes_what_generate_writes(folder, capsys):
    assert ended("--model", str(folder), "--prompt", "a b", "--max-new-tokens", "6") == 0
    model = pretrained.load(folder)
    want = generate(model, torch.tensor([[0, 1]]), 6)[0, 2:].tolist()
    assert capsys.readouterr().out == "a b" + "".join(" " + "abc?"[id] for id in want) + "\n"


def test_sampling_options_arrive(folder, capsys):
    texts = []
    for options in (["--seed", "1"], ["--seed", "2"], ["--top-k", "1"], ["--min-p", "1"], ["--top-p", "1e-9"]):
        assert ended("--model", str(folder), "--prompt", "a", "--temperature", "50", *options) == 0
        texts.append(capsys.readouterr().out)
    assert ended("--model", str(folder), "--prompt", "a") == 0
    assert texts[0] != texts[1] and texts[2:] == [capsys.readouterr().out] * 3


def test_it_streams(folder, capsys, monkeypatch):
    seen, real = [], streaming.stream_text

    def watched(*arguments, **options):
        for piece in real(*arguments, **options):
            yield piece
            seen.append(capsys.readouterr().out)

    monkeypatch.setattr(streaming, "stream_text", watched)
    assert ended("--model", str(folder), "--prompt", "a", "--max-new-tokens", "5") == 0
    assert len([text for text in seen if text]) == 5  # each piece was out before the next was made


def test_by_default_it_writes_until_the_block_is_full(folder, capsys):
    assert ended("--model", str(folder), "--prompt", "a b") == 0
    assert len(capsys.readouterr().out) == len("a b") + 14 * len(" b") + 1


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_a_model_that_the_course_trained(kind, tmp_path, capsys):
    text = "to be or not to be"
    tokenizer = kind.train(text) if kind is CharTokenizer else kind.train(text, 260)
    V = tokenizer.vocab_size
    pretrained.save(Transformer(Config.llama(vocab_size=V, block_size=32, n_layer=1, n_head=2, d_model=8)), tmp_path)
    tokenizer.save(tmp_path / "course_tokenizer.json")
    assert ended("--model", str(tmp_path), "--prompt", "to be", "--max-new-tokens", "4") == 0
    assert capsys.readouterr().out.startswith("to be")
    assert ended("--model", str(tmp_path), "--prompt", "to be", "--chat") == 2
    assert "leave out --chat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", ""], "empty prompt"),
        (["--prompt", "a", "--temperature", "0"], "temperature must be above 0, not 0.0; leave it out"),
        (["--prompt", "a", "--temperature", "-1"], "temperature must be above 0"),
        (["--prompt", "a", "--temperature", "nan"], "temperature must be above 0"),
        (["--prompt", "a", "--top-k", "0"], "top_k"),
        (["--prompt", "a", "--top-p", "0"], "top_p must be above 0 and at most 1"),
        (["--prompt", "a", "--top-p", "1.01"], "top_p"),
        (["--prompt", "a", "--min-p", "2"], "min_p"),
        (["--prompt", "a", "--repetition-penalty", "0"], "repetition_penalty"),
        (["--prompt", "a", "--max-new-tokens", "0"], "not in the range"),
        (["--prompt", "a", "--max-new-tokens", "16"], "exceed block_size=16"),
        (["--prompt", "a " * 17], "exceed block_size=16"),
        (["--prompt", " "], "makes no tokens"),
        (["--prompt", "a", "--chat"], "knows no conversations"),
        ([], "Missing option '--prompt'"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, arguments, says):
    assert ended("--model", str(folder), *arguments) == 2
    told = capsys.readouterr()
    assert not told.out and len(told.err.splitlines()) == 1 and says in told.err, told


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_without_numbers_is_one_line(folder, capsys, value):
    model = pretrained.load(folder)
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[1, 1] = value
    pretrained.save(model, folder)
    assert ended("--model", str(folder), "--prompt", "a") == 2
    told = capsys.readouterr()
    assert not told.out and "NaN or infinite (blocks.0.mlp.up.weight)" in told.err


def test_a_bad_folder_is_one_line(folder, tmp_path, capsys):
    def says(expected):
        assert ended("--model", str(folder), "--prompt", "a") == 2
        told = capsys.readouterr()
        assert not told.out and len(told.err.splitlines()) == 1 and expected in told.err, told

    tokenizer = folder / "tokenizer.json"
    good = tokenizer.read_text()
    for text in ("{", json.dumps({"model": 3})):
        tokenizer.write_text(text)
        says("no usable tokenizer.json")
    tokenizer.unlink()
    says("no usable tokenizer.json")
    larger = json.loads(good)
    larger["model"]["vocab"]["d"] = 4
    tokenizer.write_text(json.dumps(larger))
    says("do not belong together")
    (folder / "model.safetensors").write_bytes(b"no weights")
    says("damaged")
    assert ended("--model", str(tmp_path / "nothing"), "--prompt", "a") == 2
    assert "no model folder" in capsys.readouterr().err
