"""LoRA by hand: nothing at first, then the paper's formula; merged, switched off and taken out again."""

import pytest
import torch
import torch.nn.functional as F
from adapted import SIZES, Numbers, stirred, tiny

from lib.adapt.lora import (
    MATRICES,
    TARGETS,
    LoRALinear,
    add_lora,
    count_trainable,
    lora_layers,
    lora_off,
    merge,
    places,
    remove_lora,
    unmerge,
)
from lib.adapt.replies import reply
from lib.errors import CourseError
from lib.inference.decoding import Decoder
from lib.transformer import Config, Transformer
from lib.weights import pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_untrained_lora_changes_nothing_and_a_trained_one_is_the_paper_s_formula(tokens):
    model = tiny()
    before = model(tokens)
    add_lora(model, rank=2, alpha=6)
    assert torch.equal(model(tokens), before)
    stirred(model)
    layer = model.blocks[1].mlp.up
    x = torch.randn(3, 5, 32)
    want = x @ (layer.weight + 6 / 2 * layer.b @ layer.a).T  # (3, 5, F)
    assert torch.allclose(layer(x), want, atol=1e-5)
    assert not torch.allclose(model(tokens), before, atol=1e-2)


def test_scaling_where_it_is_narrow_changes_no_bit():
    """The course's own α / r is 4, a power of two."""
    layer = stirred(add_lora(tiny(), rank=8, alpha=32)).blocks[0].mlp.up
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wide = F.linear(x, layer.weight) + 4 * F.linear(F.linear(x, layer.a), layer.b)  # (7, F)
    push = torch.randn_like(wide)
    learns = (x, layer.a, layer.b)
    assert torch.equal(layer(x), wide)
    ours, theirs = (torch.autograd.grad(y, learns, push) for y in (layer(x), wide))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_merged_equals_unmerged_and_back(tokens):
    model = stirred(add_lora(tiny(), targets=MATRICES))
    weights = {name: layer.weight.clone() for name, layer in lora_layers(model).items()}
    with torch.no_grad():
        apart = model(tokens)
        merge(model)
        merge(model)  # a second time adds nothing
        assert torch.allclose(model(tokens), apart, atol=1e-4)
        assert not torch.equal(model.blocks[0].attention.q.weight, weights["blocks.0.attention.q"])
        unmerge(model)
        unmerge(model)
        assert torch.allclose(model(tokens), apart, atol=1e-4)
    for name, layer in lora_layers(model).items():
        assert torch.allclose(layer.weight, weights[name], atol=1e-6)


def test_lora_off_and_remove_lora_give_the_base_again(tokens):
    model = tiny()
    with torch.no_grad():
        before = model(tokens)
        stirred(add_lora(model))
        on = model(tokens)
        with lora_off(model):
            assert torch.equal(model(tokens), before)
        assert torch.equal(model(tokens), on)
        merge(model)
        remove_lora(model)
        assert torch.allclose(model(tokens), before, atol=1e-5)
    assert not lora_layers(model) and count_trainable(model) == sum(p.numel() for p in tiny().parameters())
    assert model.state_dict().keys() == tiny().state_dict().keys()


def test_what_learns_and_how_it_begins():
    """A as PyTorch begins a linear layer, uniform up to 1/√in; B at zero; all else frozen."""
    plain = torch.nn.Linear(400, 30)
    layer = LoRALinear(plain, rank=50, alpha=75.0)
    assert layer.weight is plain.weight and layer.bias is plain.bias and not layer.weight.requires_grad
    assert layer.a.shape == (50, 400) and layer.b.shape == (30, 50) and layer.scale == 1.5
    assert not layer.b.any() and layer.on and not layer.merged
    assert 0.99 / 20 < layer.a.abs().max() <= 1 / 20 and abs(layer.a.std().item() - 1 / 20 / 3**0.5) < 5e-4
    half = LoRALinear(torch.nn.Linear(4, 3, dtype=torch.bfloat16, device="meta"), 2, 1.0)
    assert {(p.dtype, p.device.type) for p in half.parameters()} == {(torch.bfloat16, "meta")}
    model = add_lora(tiny(qkv_bias=True), targets=("q",))
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning == [f"blocks.{i}.attention.q.{x}" for i in (0, 1) for x in "ab"]
    assert all(layer.scale == 4 and len(layer.a) == 8 for layer in lora_layers(model).values())


def test_a_seed_draws_the_same_and_leaves_the_callers_random_state_alone():
    drawn = [add_lora(tiny(), seed=seed).blocks[1].mlp.up.a for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], add_lora(tiny()).blocks[1].mlp.up.a), "0 is the seed that is meant"
    model = tiny()
    before = torch.get_rng_state()
    add_lora(model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_change_and_effective_weight():
    layer = stirred(add_lora(tiny(), rank=1, alpha=3.0)).blocks[0].attention.q
    base = layer.weight.clone()
    change = 3 * layer.b @ layer.a
    torch.testing.assert_close(layer.change, change)
    torch.testing.assert_close(layer.effective, base + change)
    layer.on = False
    assert layer.effective is layer.weight
    layer.on, layer.merged = True, True
    assert layer.effective is layer.weight


def test_switched_off_while_merged_it_is_the_base_and_taken_out_it_is_too(tokens):
    model = tiny()
    with torch.no_grad():
        before = model(tokens)
        stirred(add_lora(model))
        merge(model)
        assert not torch.allclose(model(tokens), before, atol=1e-2)
        with lora_off(model):
            assert torch.allclose(model(tokens), before, atol=1e-5)
            assert not any(layer.on or layer.merged for layer in lora_layers(model).values())
        assert all(layer.on for layer in lora_layers(model).values())
        merge(model)
        weights = {place: layer.weight - layer.change for place, layer in lora_layers(model).items()}
        remove_lora(model)
    for place, weight in weights.items():
        plain = model.get_submodule(place)
        assert type(plain) is torch.nn.Linear and (plain.out_features, plain.in_features) == plain.weight.shape
        torch.testing.assert_close(plain.weight, weight)
    assert all(p.requires_grad for p in model.parameters())


def test_places():
    model = tiny()
    names = ["attention.q", "attention.k", "attention.v", "attention.out", "mlp.gate", "mlp.up", "mlp.down"]
    assert places(model) == [f"blocks.{i}.{name}" for i in (0, 1) for name in names]
    assert places(model, ("down", "q"), 1) == ["blocks.1.mlp.down", "blocks.1.attention.q"]
    assert len(places(tiny(mlp="plain"))) == 12
    assert set(lora_layers(add_lora(model, first=1))) == {f"blocks.1.{name}" for name in names if name[-1] not in "ke"}


def test_default_targets_are_about_a_hundredth_of_smollm2():
    with torch.device("meta"):
        sizes = dict(vocab_size=49152, block_size=128, n_layer=30, n_head=9, n_kv_head=3, d_model=576, d_ff=1536)
        model = Transformer(Config.llama(**sizes))
    whole = sum(p.numel() for p in model.parameters())
    assert whole == 134_515_008
    assert len(places(model, TARGETS)) == 30 * len(TARGETS)
    numbers = 30 * 8 * sum(a + b for a, b in ((576, 576), (576, 192), (576, 576), (576, 1536), (1536, 576)))
    assert numbers == 1_751_040 and numbers / whole < 0.015


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_copied_or_saved_has_the_lora_in_it_and_leaves_the_model_alone(family, tmp_path, tokens):
    torch.manual_seed(0)
    base = getattr(Config, family)(**SIZES | dict(n_kv_head=4))
    model = stirred(add_lora(Transformer(base).eval(), targets=("q", "v", "out", "up")))
    before = {name: p.clone() for name, p in model.state_dict().items()}

    def same(other):
        return torch.allclose(other(tokens), model(tokens), atol=1e-4)

    with torch.no_grad():
        pretrained.save(model, tmp_path)
        assert same(Decoder(model)) and same(pretrained.load(tmp_path))
        reply(model, Numbers(), [[5, 6, 7]], most=2)
        assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
        with lora_off(model):
            pretrained.save(model, tmp_path)
            assert same(Decoder(model)) and same(pretrained.load(tmp_path))
        written = Decoder(model)(tokens).clone()
        merge(model)
        assert torch.equal(Decoder(model)(tokens), written), "not what merge computes, to the bit"


def test_refusals():
    for call, says in (
        (lambda: add_lora(tiny(), rank=0), "rank"),
        (lambda: add_lora(tiny(), targets=("q", "query")), "'query'"),
        (lambda: add_lora(tiny(mlp="plain"), targets=("gate",)), "'gate'"),
        (lambda: add_lora(add_lora(tiny())), "has LoRA already"),
        (lambda: add_lora(tiny(), first=2), "from 0 to 1"),
    ):
        with pytest.raises(CourseError, match=says):
            call()
