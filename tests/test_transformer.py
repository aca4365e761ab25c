"""The Block and the model: residual wiring, causality in every layer, counts to the digit, clear refusals."""

import pytest
import torch

from lib.attention import Context, recorded
from lib.errors import CourseError
from lib.generation import KVCache
from lib.transformer import Block, Config, RMSNorm, Transformer, count_parameters, make_norm

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


@pytest.mark.parametrize("name", VARIANTS)
def test_all_is_made_on_the_models_device(name, tokens):
    """On the meta device a tensor has a place and no numbers; what meets one of another device is an error."""
    net, tokens = model(name).to("meta"), tokens.to("meta")
    padding = torch.tensor([0, 3], device="meta")
    assert net(tokens).shape == net(tokens, padding=padding).shape == (2, 12, 31)
    with recorded(net) as maps:
        net(tokens)
    assert [weights.device.type for weights in maps] == ["meta"] * 3


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
    with recorded(llama) as maps:
        logits = llama(tokens)
    torch.testing.assert_close(logits, llama(tokens))
    assert len(maps) == 3 and maps[0].shape == (2, 4, 12, 12)
    torch.testing.assert_close(maps[2].sum(-1), torch.ones(2, 4, 12))
    cache = KVCache(3)
    with recorded(llama) as steps:
        llama(tokens[:, :9], cache)
        llama(tokens[:, 9:], cache)
    for whole, step in zip(maps, steps, strict=True):
        torch.testing.assert_close(step, whole[:, :, 9:])


def test_a_compiled_model_is_recorded_too(tokens):
    llama = model("llama")
    fast = torch.compile(llama, backend="eager")
    want = fast(tokens)
    with recorded(fast) as maps:
        torch.testing.assert_close(fast(tokens), want)
    assert [tuple(weights.shape) for weights in maps] == [(2, 4, 12, 12)] * 3
    assert torch.equal(fast(tokens), want)


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
    layer_norm = make_norm(Config.gpt2(**(SIZES | dict(d_model=4)), norm_eps=0.0))
    torch.testing.assert_close(layer_norm(x), centred / centred.square().mean().sqrt())


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
        (dict(n_layer=2**24 + 1), "n_layer must be at least 1, and at most 16,777,216, not 16777217"),
        (dict(vocab_size=10**19), "vocab_size must be at least 1, and at most"),
        (dict(head_dim=0), "head_dim must be at least 1"),
        (dict(d_ff=-1), "d_ff must be at least 1"),
        (dict(sliding_window=0), "sliding_window must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(fields, says):
    with pytest.raises(CourseError, match=says):
        Config.llama(**(SIZES | fields))


def test_the_largest_size():
    assert Config.llama(**SIZES | dict(block_size=2**24)).block_size == 2**24


@pytest.mark.parametrize("position", ["rotary", "learned", "sinusoidal", "none"])
def test_a_model_in_half_precision_stays_in_it(tokens, position):
    half = Transformer(Config.llama(**SIZES, position=position)).bfloat16()
    assert half(tokens).dtype is torch.bfloat16


def test_a_sequence_longer_than_the_block_is_refused():
    with pytest.raises(CourseError, match="block_size=24"):
        model("gpt2")(torch.zeros(1, 25, dtype=torch.long))
