"""A model laid out for writing gives the model's logits, writes its texts, and says what it can't do."""

import pytest
import torch

from lib.attention import recorded
from lib.errors import CourseError
from lib.generation import KVCache, generate, left_pad
from lib.inference import decoding
from lib.inference.decoding import Decoder
from lib.inference.replay import Step
from lib.transformer import Config, Transformer

SIZES = dict(vocab_size=1056, block_size=48, n_layer=2, n_head=4, d_model=64, d_ff=160)
KINDS = {
    "llama": dict(),
    "grouped": dict(n_kv_head=2),
    "gpt2": dict(norm="layer", position="learned", mlp="plain", qkv_bias=True, out_bias=True, mlp_bias=True),
    "window": dict(sliding_window=5, n_kv_head=1, tie=False),
    "wide, with odd sizes": dict(d_model=4 * 134, n_head=4, d_ff=331, vocab_size=61),
    "waves": dict(position="sinusoidal", qkv_bias=True),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def made(kind: str) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(Config(**(SIZES | KINDS[kind]))).eval()
    for name, p in model.named_parameters():
        p.data = torch.randn_like(p) * (0.1 if p.dim() > 1 else 0.5) + ("norm" in name and "weight" in name)
    return model


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_same_logits_and_same_texts(kind, rows):
    model = made(kind)
    before = {name: p.clone() for name, p in model.named_parameters()}
    fast, V = Decoder(model, rows), model.config.vocab_size
    rng = torch.Generator().manual_seed(1)
    for B, T in ((1, 1), (1, 9), (3, 1), (3, 9)):  # whatever `rows` it was laid out for
        tokens = torch.randint(V, (B, T), generator=rng)
        torch.testing.assert_close(fast(tokens).clone(), model(tokens).detach(), atol=2e-4, rtol=2e-4)
    tokens = torch.randint(V, (2, 20), generator=rng)
    cache = KVCache(2)
    pieces = [fast(part, cache) for part in tokens.split([7, 1, 1, 11], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens).detach(), atol=2e-4, rtol=2e-4)
    tokens, padding = left_pad([range(3, 11), [5], [7, 8, 9]])
    assert torch.equal(generate(fast, tokens, 30, padding=padding), generate(model, tokens, 30, padding=padding))
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_a_fixed_buffer_write_the_same_texts(kind, monkeypatch):
    """What a GPU records and replays, computed each time; greedy texts long enough for the buffer to grow."""
    monkeypatch.setattr(Decoder, "recorded_on", ("cpu",))
    monkeypatch.setitem(SIZES, "block_size", 100)
    model = made(kind)
    fast = Decoder(model, rows=3)
    tokens, padding = left_pad([range(3, 11), [5], [7, 8, 9]])
    for given in (None, padding):
        assert torch.equal(generate(fast, tokens, 90, padding=given), generate(model, tokens, 90, padding=given))
    assert not fast.steps, "the steps of caches that are gone are kept"

    whole = torch.randint(model.config.vocab_size, (2, 12))
    cache = KVCache(2)
    pieces = [fast(part, cache).clone() for part in whole.split([3, 1, 1, 2, 1, 1, 3], dim=1)]  # now and then several
    torch.testing.assert_close(torch.cat(pieces, 1), model(whole).detach(), atol=2e-4, rtol=2e-4)
    begun = KVCache(2)
    fast(whole[:1, :5], begun)
    fast(whole[:1, 5:6], begun)
    begun.repeat(2)
    ours = fast(whole[:1, 6:7].expand(2, -1), begun)
    torch.testing.assert_close(ours[1].clone(), model(whole[:1, :7])[0, -1:].detach(), atol=2e-4, rtol=2e-4)
    with pytest.raises(CourseError, match="block_size"):
        generate(fast, tokens, 93)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_on_a_gpu(kind):
    model = made(kind).cuda()
    fast = Decoder(model, rows=3)
    tokens, padding = left_pad([range(3, 11), [5], [7, 8, 9]], device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    for given in (None, padding):
        cache, plain = KVCache(2), KVCache(2)
        for part in torch.cat([tokens, tokens.flip(1), tokens], 1).split([8, *[1] * 16], dim=1):  # (3, 8), (3, 1), …
            ours, theirs = fast(part, cache, padding=given)[:, -1], model(part, plain, padding=given)[:, -1]
            torch.testing.assert_close(ours.clone(), theirs.detach(), atol=2e-3, rtol=2e-3)
        [step] = fast.steps.values()
        assert step.graph is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_fault_while_recording_does_not_keep_others_from_it(monkeypatch):
    fast = Decoder(made("llama").cuda())
    tokens, compute, calls = torch.tensor([[1, 2, 3]], device="cuda"), Step.compute, []

    def fragile(step):
        calls.append(step)
        if len(calls) == 2:  # the first is the warm-up
            raise MemoryError("no room")
        return compute(step)

    monkeypatch.setattr(Step, "compute", fragile)
    with pytest.raises(MemoryError):
        generate(fast, tokens, 5)
    assert generate(fast, tokens, 5).shape == (1, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_copy(kind):
    model = made(kind)
    fast, tokens = Decoder(model), torch.tensor([[1, 2, 3]])
    before = fast(tokens).clone()
    for name, p in model.named_parameters():
        if name != "embedding.weight":
            p.data.mul_(1.5)
    assert torch.equal(fast(tokens), before)


def test_int8_is_near_and_not_equal():
    model = made("llama")
    model.head.weight.data.mul_(0.1)
    tokens = torch.arange(40)[None]
    ours, theirs = Decoder(model, weights="int8")(tokens).clone(), model(tokens).detach()
    off = (ours - theirs).norm() / theirs.norm()
    assert 0 < off < 0.05


def test_what_it_cannot_do_is_one_line():
    with pytest.raises(CourseError, match="int8"):
        Decoder(made("llama"), weights="int4")
    with pytest.raises(CourseError, match="multiples of 32"):
        Decoder(made("wide, with odd sizes"), weights="int8")
    with pytest.raises(CourseError, match=r"a Decoder has no attention .* made from a model, record that one"):
        recorded(Decoder(made("llama"))).__enter__()
    with pytest.raises(CourseError, match="move the model"):
        Decoder(made("llama")).double()
    with pytest.raises(CourseError, match="block_size"):
        Decoder(made("llama"))(torch.zeros(1, 49, dtype=torch.long))


def test_without_onednn_it_lays_out_plain_columns(monkeypatch):
    model, tokens = made("llama"), torch.arange(9)[None].repeat(3, 1)
    monkeypatch.setattr(decoding.Packed, "there", staticmethod(lambda: False))
    fast = Decoder(model, rows=3)
    assert isinstance(fast.blocks[0].qkv, decoding.Columns)
    torch.testing.assert_close(fast(tokens).clone(), model(tokens).detach(), atol=2e-4, rtol=2e-4)


def test_a_shelf_keeps_copies_in_reading_order_and_never_more_than_it_holds():
    shelf = decoding.Shelf(1024)
    first, second = torch.arange(15.0).view(3, 5), torch.arange(7, dtype=torch.int8)
    kept = [shelf(first.t()), shelf(second)]
    assert torch.equal(kept[0], first.t()) and torch.equal(kept[1], second)
    assert all(t.is_contiguous() and t.data_ptr() % 64 == 0 for t in kept)
    assert kept[1].data_ptr() - kept[0].data_ptr() == 64  # side by side
    first.zero_()
    elsewhere = shelf(torch.ones(300).expand(2, 300))  # no room for that
    shelf(torch.full((200,), 7.0)).add_(1)
    assert kept[0].sum() == 105 and torch.equal(elsewhere, torch.ones(2, 300))
    del shelf
    assert kept[0].sum() == 105  # the memory lives as long as what lies in it
