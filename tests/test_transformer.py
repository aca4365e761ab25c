"""The Block and the model: residual wiring, causality in every layer, counts to the digit, clear refusals."""

import pytest
import torch

from lib.attention import Context
from lib.errors import CourseError
from lib.transformer import Block, Config, LayerNorm, RMSNorm, Transformer, count_parameters

SIZES = dict(vocab_size=31, block_size=24, n_layer=3, n_head=4, d_model=16)
VARIANTS = {
    "gpt2": Config.gpt2(**SIZES),
    "llama": Config.llama(**SIZES, n_kv_head=2),
    "window": Config.llama(**SIZES, sliding_window=5),
    "sinusoidal": Config.llama(**SIZES, position="sinusoidal", mlp="plain", activation="relu2"),
    "none": Config.llama(**SIZES, position="none", norm="layer"),
}


def model(name: str) -> Transformer:
    torch.manual_seed(0)
    return Transformer(VARIANTS[name]).eval()


@pytest.fixture
def tokens():
    return torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_future_changes_nothing_before_it(name, tokens):
    other = tokens.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 31
    a, b = model(name)(tokens), model(name)(other)
    assert a.shape == (2, 12, 31)
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert not torch.allclose(a[:, 7:], b[:, 7:])


def test_a_non_causal_model_does_look_ahead(tokens):
    torch.manual_seed(0)
    both_ways = Transformer(Config.llama(**SIZES, causal=False)).eval()
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % 31
    assert not torch.equal(both_ways(tokens)[:, 0], both_ways(other)[:, 0])


def test_a_window_reaches_back_one_window_a_layer():
    torch.manual_seed(0)
    narrow = Transformer(Config.llama(**SIZES, sliding_window=2)).eval()  # 3 layers: reach 3
    tokens = torch.randint(31, (1, 12))
    other = tokens.clone()
    other[:, 4] = (other[:, 4] + 1) % 31
    changed = (narrow(tokens) != narrow(other)).any(-1)[0]
    assert changed.tolist() == [4 <= i <= 7 for i in range(12)]


def test_attention_maps_change_nothing_and_are_shares(tokens):
    llama = model("llama")
    logits, maps = llama(tokens, return_attention=True)
    torch.testing.assert_close(logits, llama(tokens))
    assert len(maps) == 3 and maps[0].shape == (2, 4, 12, 12)
    torch.testing.assert_close(maps[2].sum(-1), torch.ones(2, 4, 12))


def test_block_is_two_writes_on_a_stream():
    torch.manual_seed(0)
    block = Block(VARIANTS["llama"])
    x = torch.randn(2, 5, 16)
    context = Context(causal=True)
    heard = x + block.attention(block.norm1(x), context)
    torch.testing.assert_close(block(x, context), heard + block.mlp(block.norm2(heard)))
    for last in (block.attention.out, block.mlp.down):
        torch.nn.init.zeros_(last.weight)
    assert torch.equal(block(x, context), x)


def test_norms_by_hand():
    x = torch.tensor([[3.0, -1.0, 2.0, 4.0]])
    torch.testing.assert_close(RMSNorm(4, 0.0)(x), x / x.square().mean().sqrt())
    centred = x - x.mean()
    torch.testing.assert_close(LayerNorm(4, 0.0)(x), centred / centred.square().mean().sqrt())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (Config.gpt2(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, d_model=768), 124_439_808),
        (
            Config.llama(vocab_size=49152, block_size=8192, n_layer=30, n_head=9, n_kv_head=3, d_model=576, d_ff=1536),
            134_515_008,
        ),
    ],
)
def test_parameter_counts_of_published_models(config, count):
    with torch.device("meta"):
        assert count_parameters(Transformer(config)) == count


def test_an_untrained_model_is_as_good_as_guessing(tokens):
    logits = model("llama")(tokens)
    targets = (tokens + 3) % 31  # not the inputs: a tied head favours the token it has just read
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert abs(loss.item() - torch.tensor(31.0).log().item()) < 0.1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(n_head=3), "divide"),
        (dict(n_kv_head=3), "multiple"),
        (dict(norm="batch"), "rms, layer"),
        (dict(position="rotory"), "rotary"),
        (dict(activation="tanh"), "silu"),
        (dict(n_layer=0), "at least 1"),
        (dict(head_dim=0), "head_dim must be at least 1"),
        (dict(d_ff=-1), "d_ff must be at least 1"),
        (dict(sliding_window=0), "sliding_window must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(fields, says):
    with pytest.raises(CourseError, match=says):
        Config.llama(**(SIZES | fields))


@pytest.mark.parametrize("position", ["rotary", "learned", "sinusoidal", "none"])
def test_a_model_in_half_precision_stays_in_it(tokens, position):
    half = Transformer(Config.llama(**SIZES, position=position)).bfloat16()
    assert half(tokens).dtype is torch.bfloat16


def test_a_sequence_longer_than_the_block_is_refused():
    with pytest.raises(CourseError, match="block_size=24"):
        model("gpt2")(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize("size", [(3, 5, 8), (4, 8), (2, 3, 4, 6)])
def test_rms_norms_gradient_by_hand_is_pytorchs(size):
    rng = torch.Generator().manual_seed(0)
    norm = RMSNorm(size[-1], 1e-5).double()
    norm.weight.data = torch.randn(size[-1], generator=rng, dtype=torch.float64)
    x, push = (torch.randn(size, generator=rng, dtype=torch.float64) for _ in range(2))
    theirs = x.clone().requires_grad_(), norm.weight.detach().clone().requires_grad_()
    want = torch.nn.functional.rms_norm(theirs[0], size[-1:], theirs[1], 1e-5)
    want.backward(push)
    mine = x.clone().requires_grad_()
    got = norm(mine)
    got.backward(push)
    assert "RMSNormWithGradient" in type(got.grad_fn).__name__
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(mine.grad, theirs[0].grad)
    torch.testing.assert_close(norm.weight.grad, theirs[1].grad)
    assert torch.autograd.gradcheck(norm, (x.requires_grad_(),))
    norm.weight.requires_grad_(False)
    frozen = x.detach().requires_grad_()
    norm(frozen).backward(push)
    assert torch.equal(frozen.grad, mine.grad)
