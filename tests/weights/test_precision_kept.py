"""float32, bfloat16 and float16: every model that the course builds computes the same in each, but for rounding."""

import pytest
import torch

from lib.generation import generate, left_pad
from lib.inference.decoding import Decoder
from lib.inference.engine import Engine, Request
from lib.transformer import Config, Transformer
from lib.vision import VisionTransformer

pytestmark = pytest.mark.usefixtures("one_thread")

HALVES = (torch.bfloat16, torch.float16)
SIZES = dict(vocab_size=30, block_size=24, n_layer=2, n_head=2, d_model=32)
CONFIGS = {
    "llama": Config.llama(**SIZES), "grouped": Config.llama(**SIZES, n_kv_head=1), "gpt2": Config.gpt2(**SIZES),
    "window": Config.llama(**SIZES, sliding_window=4), "sinusoidal": Config.llama(**SIZES, position="sinusoidal"),
    "no positions": Config.llama(**SIZES, position="none"), "biased": Config.llama(**SIZES, qkv_bias=True, tie=False),
}  # fmt: skip


def made(config, kind=Transformer, *rest):
    torch.manual_seed(0)
    model = kind(config, *rest).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_language_model(name, dtype):
    model, half = made(CONFIGS[name]), made(CONFIGS[name]).to(dtype)
    tokens, padding = left_pad([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        for options in ({}, dict(padding=padding)):
            want, got = model(tokens, **options), half(tokens, **options)
            assert got.dtype == dtype and torch.allclose(got.float(), want, atol=0.1 * want.abs().max().item())
            for rows in (1, 2):
                laid = Decoder(half, rows=rows)(tokens, **options)
                assert torch.allclose(laid.float(), want, atol=0.1 * want.abs().max().item())
    for writer in (half, Decoder(half, 2)):
        assert generate(writer, tokens, 5, padding=padding).shape == (2, 12)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_engine(dtype):
    pieces = []
    engine = Engine(made(CONFIGS["grouped"]).to(dtype), Letters(), max_batch=2, context=20)
    with engine.running():
        engine.submit(Request([1, 2, 3], 5, listener=pieces.append))
        while not (pieces and pieces[-1].finish):
            pass
    assert pieces[-1].finish == "length" and pieces[-1].tokens == 5


class Letters:
    def decode(self, ids):
        return "".join(chr(65 + int(id)) for id in ids)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_a_vision_transformer(position, norm, dtype):
    config = Config.llama(vocab_size=5, block_size=16, n_layer=2, n_head=2, d_model=16, position=position, norm=norm,
                          causal=False)  # fmt: skip
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = made(config, VisionTransformer, (1, 8, 8), 2)(images)
        got = made(config, VisionTransformer, (1, 8, 8), 2).to(dtype)(images.to(dtype))
    assert got.dtype == dtype and torch.allclose(got.float(), want, atol=0.1 * want.abs().max().item())
