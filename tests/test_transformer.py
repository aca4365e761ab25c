"""The Block and the model: residual wiring, causality in every layer, counts to the digit, clear refusals."""

import pytest
import torch

from lib.attention import Context, causal_mask, recorded
from lib.embedding import sinusoidal
from lib.errors import CourseError
from lib.generation import KVCache
from lib.kernels.door import written_out
from lib.transformer import (
    MLP,
    Block,
    Config,
    GatedMLP,
    RMSNorm,
    Transformer,
    count_parameters,
    initialise,
    make_norm,
    rms_norm,
)

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


@pytest.mark.parametrize("how", [rms_norm, rms_norm.plain], ids=["kernel", "written out"])
def test_an_rms_norm_by_hand_row_by_row(how):
    x = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[-1.0, 7.0], [1.0, 1.0]]])
    stretched = how(x, torch.tensor([2.0, 10.0]), 3.5)
    expected = torch.tensor([[[6.0, 40.0], [0.0, 0.0]], [[-2.0, 70.0], [2.0, 10.0]]])
    lengths = torch.tensor([[12.5, 0.0], [25.0, 1.0]])  # mean squares
    torch.testing.assert_close(stretched, expected / (lengths + 3.5).sqrt()[..., None])


def test_a_model_written_out_says_the_same(tokens):
    llama = model("llama")
    want = llama(tokens)
    with written_out(rms_norm):
        torch.testing.assert_close(llama(tokens), want)


def test_mlps_by_hand():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16)
    plain = MLP(Config.gpt2(**SIZES))
    torch.testing.assert_close(plain(x), torch.nn.functional.gelu(x @ plain.up.weight.T + plain.up.bias,
                               approximate="tanh") @ plain.down.weight.T + plain.down.bias)  # fmt: skip
    gated = GatedMLP(Config.llama(**SIZES))
    assert gated.up.bias is gated.down.bias is gated.gate.bias is None
    by_hand = torch.nn.functional.silu(x @ gated.gate.weight.T) * (x @ gated.up.weight.T) @ gated.down.weight.T
    torch.testing.assert_close(gated(x), by_hand)


def test_where_training_starts():
    torch.manual_seed(0)
    wide = Transformer(Config.gpt2(vocab_size=500, block_size=200, n_layer=8, n_head=4, d_model=64))
    for module in wide.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            torch.nn.init.ones_(module.bias)
    initialise(wide)
    first = wide.blocks[0]
    for weight in (wide.embedding.weight, wide.positions.weight, first.attention.q.weight, first.mlp.up.weight):
        assert abs(weight.std().item() / 0.02 - 1) < 0.05 and abs(weight.mean().item()) < 0.001
    for block in wide.blocks:
        for last in (block.attention.out, block.mlp.down):
            assert abs(last.weight.std().item() / (0.02 / 4) - 1) < 0.05  # √(2 · 8) writes on the stream
    biases = [m.bias for m in wide.modules() if isinstance(m, torch.nn.Linear) and m.bias is not None]
    assert len(biases) == 6 * 8 and not any(bias.any() for bias in biases)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_stands_before_the_first_block(name, tokens):
    net, at = model(name), torch.arange(3, 15)
    rows = net.embedding.weight[tokens]
    places = {"learned": lambda: net.positions.weight[at], "sinusoidal": lambda: sinusoidal(at, 16)}
    added = places.get(VARIANTS[name].position, lambda: torch.zeros(12, 16))()
    torch.testing.assert_close(net.embed(tokens, at), rows + added)
    torch.testing.assert_close(net.embed(tokens, at.expand(2, 12)), rows + added)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_padded_row_says_what_it_says_alone(name, causal, tokens):
    torch.manual_seed(0)
    net = Transformer(Config(**(VARIANTS[name].to_dict() | dict(causal=causal)))).eval()
    padding = torch.tensor([0, 4])
    padded = tokens.clone()
    padded[1, :4] = 30
    together = net(padded, padding=padding)
    torch.testing.assert_close(together[:1], net(tokens[:1]))
    torch.testing.assert_close(together[1:, 4:], net(tokens[1:, 4:]))
    assert together.isfinite().all()


def test_a_padded_row_goes_on_with_a_cache(tokens):
    net, padding = model("window"), torch.tensor([0, 4])
    cache = KVCache(3)
    net(tokens[:, :9], cache, padding)
    later = net(tokens[:, 9:], cache, padding)
    torch.testing.assert_close(later[:1], net(tokens[:1])[:, 9:])
    torch.testing.assert_close(later[1:], net(tokens[1:, 4:])[:, 5:])


def test_no_mask_is_made_where_none_is_needed():
    positions = torch.arange(6)
    whole = model("llama").context(positions, 6)
    assert whole.causal and whole.mask is None and whole.rotary[0].shape == (6, 2)
    newest = model("llama").context(positions[5:], 6)
    assert not newest.causal and newest.mask is None
    torch.testing.assert_close(model("llama").context(positions[4:], 6).mask, causal_mask(2, 6))
    for S, causal, masked in ((4, True, False), (5, True, False), (6, False, True)):  # the window has 5
        context = model("window").context(torch.arange(S), S)
        assert (context.causal, context.mask is not None) == (causal, masked)
        newest = model("window").context(torch.tensor([S - 1]), S)
        assert not newest.causal and (newest.mask is not None) == masked
    both_ways = Transformer(Config.llama(**SIZES, causal=False)).context(positions, 6)
    assert not both_ways.causal and both_ways.mask is None
    assert model("none").context(positions, 6).rotary is None


def test_dropout_falls_on_every_write_to_the_stream(tokens):
    torch.manual_seed(0)
    net = Transformer(Config.llama(**SIZES, dropout=0.5)).train()
    seen = []
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, args, out: seen.append((out == 0).float().mean().item()))
    x = torch.ones(2, 12, 16)
    dropped = net.embed(tokens, torch.arange(12))
    assert 0.35 < (dropped == 0).float().mean() < 0.65 and len(seen) == 1
    net.blocks[0](x, Context(causal=True))
    assert len(seen) == 3 and all(0.35 < share < 0.65 for share in seen)
    assert torch.equal(net.eval().embed(tokens, torch.arange(12)), net.embedding.weight[tokens])


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
    assert model("gpt2")(torch.zeros(1, 24, dtype=torch.long)).shape == (1, 24, 31)
    with pytest.raises(CourseError, match="block_size=24"):
        model("gpt2")(torch.zeros(1, 25, dtype=torch.long))


def test_sizes_that_follow_from_others():
    gated, plain = Config.llama(**SIZES), Config.gpt2(**SIZES)
    assert (gated.d_ff, plain.d_ff, gated.n_kv_head, gated.head_dim) == (42, 64, 4, 4)
    smallest = dict(vocab_size=1, block_size=1, n_layer=1, n_head=1, d_model=1, n_kv_head=1, head_dim=1, d_ff=1)
    assert Config.llama(**smallest, sliding_window=1).to_dict().items() >= smallest.items()
    for field in smallest:
        with pytest.raises(CourseError, match=field):
            Config.llama(**(smallest | {field: 0}))
