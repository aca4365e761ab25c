"""Attention by what it must do: mix, obey its mask, look only back, agree with torch's kernel, show its weights."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lib.attention import (
    Context,
    MultiHeadAttention,
    attention,
    attention_weights,
    causal_mask,
    grouped_attention,
    merge_heads,
    recorded,
    split_heads,
)
from lib.embedding import rotary_angles
from lib.errors import CourseError
from lib.transformer import Config

SIZES = dict(vocab_size=9, block_size=64, n_layer=1, n_head=4, d_model=32)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def qkv(rng, T=5, S=5, H=2, Dh=4):
    return [torch.randn(3, H, length, Dh, generator=rng) for length in (T, S, S)]


def test_equals_torchs_kernel_with_and_without_a_mask(rng):
    q, k, v = qkv(rng, T=5, S=7)
    for mask in (None, causal_mask(5, 7), torch.rand(3, 1, 5, 7, generator=rng) < 0.9):
        want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(attention(q, k, v, mask), want)


def test_any_number_of_axes_may_stand_in_front(rng):
    q, k, v = qkv(rng)
    mask = causal_mask(5)
    whole = attention(q, k, v, mask)
    torch.testing.assert_close(attention(q[1, 0], k[1, 0], v[1, 0], mask), whole[1, 0])
    torch.testing.assert_close(attention(q[None], k[None], v[None], mask), whole[None])


def test_a_mask_is_made_where_it_is_asked_for():
    assert causal_mask(3, 5, window=2, device="meta").device.type == "meta"


def test_a_context_is_shared_and_so_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Context().causal = True


def test_weights_are_shares_and_masked_ones_are_zero(rng):
    q, k, v = qkv(rng)
    out, weights = attention(q, k, v, causal_mask(5)), attention_weights(q, k, causal_mask(5))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 5))
    assert not weights.masked_select(~causal_mask(5)).any()
    torch.testing.assert_close(out, weights @ v)


def test_the_scale_keeps_scores_near_one(rng):
    q, k = torch.randn(2, 1, 1, 2000, 256, generator=rng)
    weights = attention_weights(q, k)
    scores = weights.log() - weights.log().mean(-1, keepdim=True)
    assert 0.9 < scores.std() < 1.1


def test_causal_mask_by_hand():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True, True, True, True]]
    assert causal_mask(4, window=2).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]


def test_split_heads_keeps_neighbours_together_and_merge_undoes_it(rng):
    x = torch.randn(2, 5, 12, generator=rng)
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 4)
    assert torch.equal(heads[1, 2, 4], x[1, 4, 8:12])
    assert torch.equal(merge_heads(heads), x)


def layer(**fields):
    torch.manual_seed(0)
    sizes = dict(vocab_size=7, block_size=16, n_layer=1, n_head=4, d_model=16)
    return MultiHeadAttention(Config.llama(**(sizes | fields))).eval()


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize("context", [Context(), Context(causal=True), Context(mask=causal_mask(6, window=2))])
def test_recorded_weights_are_those_that_are_used(n_kv_head, context, rng):
    x = torch.randn(2, 6, 16, generator=rng)
    attend = layer(n_kv_head=n_kv_head)
    with recorded(attend) as maps:
        out = attend(x, context)
    torch.testing.assert_close(out, attend(x, context))
    [weights] = maps
    values = attend.v(x).view(2, 6, n_kv_head, 4).repeat_interleave(4 // n_kv_head, dim=2)  # (B, S, H, Dh)
    torch.testing.assert_close(attend.out(torch.einsum("bhts,bshd->bthd", weights, values).flatten(2)), out)


def test_recordings_may_be_nested_and_leave_nothing_behind(rng):
    x, y = torch.randn(2, 1, 6, 16, generator=rng)
    one, other = layer(), layer(n_kv_head=2)
    with recorded(torch.nn.ModuleList([one, other])) as both:
        other(y)
        assert len(both) == 1, "at hand at once, for those that have been asked"
        with recorded(other) as inner:
            other(x)
            other(y)
        with pytest.raises(ZeroDivisionError), recorded(one):
            raise ZeroDivisionError
        one(y)
    assert torch.equal(both[1], inner[0]), "a layer's newest, in the order of the layers"
    assert len(both) == 2 and len(inner) == 1
    kept = [weights.clone() for weights in both]
    assert not one.watchers and not other.watchers
    one(x), other(x)
    assert all(map(torch.equal, kept, both)) and not torch.equal(kept[0], kept[1])


def test_recordings_that_overlap_each_end_alone(rng):
    x, attend = torch.randn(1, 6, 16, generator=rng), layer()
    first, second = recorded(attend), recorded(attend)
    maps, others = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    attend(x)
    second.__exit__(None, None, None)
    assert not maps and len(others) == 1 and not attend.watchers


def test_recording_keeps_the_gradient_and_the_weights_before_dropout(rng):
    x = torch.randn(1, 6, 16, generator=rng)
    attend = layer(dropout=0.5).train()
    with recorded(attend) as maps:
        out = attend(x)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(1, 4, 6))
    maps[0].square().sum().backward()
    assert attend.q.weight.grad.abs().sum() > 0
    assert not torch.allclose(out, attend.eval()(x)), "dropout is as it was"


def test_what_has_no_attention_layers_says_so():
    with pytest.raises(CourseError, match="a Linear has no attention layers to record"):
        recorded(torch.nn.Linear(1, 1)).__enter__()


def test_no_peeking(rng):
    x = torch.randn(1, 6, 16, generator=rng)
    y = x.clone()
    y[:, 4:] += 1
    attend, context = layer(n_kv_head=2), Context(rotary_angles(torch.arange(6), 4), causal=True)
    assert torch.equal(attend(x, context)[:, :4], attend(y, context)[:, :4])
    assert not torch.equal(attend(x, context)[:, 4:], attend(y, context)[:, 4:])


def test_without_positions_order_does_not_matter(rng):
    x = torch.randn(1, 6, 16, generator=rng)
    order = torch.randperm(6, generator=rng)
    attend = layer()
    torch.testing.assert_close(attend(x)[:, order], attend(x[:, order]))
    rotary = Context(rotary_angles(torch.arange(6), 4))
    assert not torch.allclose(attend(x, rotary)[:, order], attend(x[:, order], rotary), atol=1e-3)


def test_grouped_heads_equal_many_heads_with_repeated_keys(rng):
    x = torch.randn(2, 6, 16, generator=rng)
    grouped, many = layer(n_kv_head=2), layer()
    with torch.no_grad():
        many.q.weight.copy_(grouped.q.weight)
        many.out.weight.copy_(grouped.out.weight)
        for name in ("k", "v"):
            rows = getattr(grouped, name).weight.unflatten(0, (2, 4))  # (K, Dh, D)
            getattr(many, name).weight.copy_(rows.repeat_interleave(2, dim=0).flatten(0, 1))
    torch.testing.assert_close(grouped(x), many(x))


@pytest.mark.parametrize("attend", [grouped_attention, grouped_attention.plain], ids=["kernel", "written out"])
def test_nothing_is_dropped_unless_it_is_asked_for(attend, rng):
    q, k, v = (torch.randn(2, 4, 50, 8, generator=rng) for _ in range(3))
    heard = attend(q, k, v, Context())
    weights = (q @ k.mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(heard, weights @ v)
    torch.manual_seed(0)
    dropped = attend(q, k, torch.ones_like(v), Context(), 0.5)
    assert abs(dropped.mean().item() - 1) < 0.1 and dropped.std() > 0.05, "what stays is scaled up"


def test_a_layer_drops_in_training_only(rng):
    torch.manual_seed(0)
    layer = MultiHeadAttention(Config.llama(**SIZES, dropout=0.5))
    x = torch.randn(1, 30, SIZES["d_model"], generator=rng)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_biases_stand_where_the_config_says():
    for fields in (dict(), dict(qkv_bias=True), dict(out_bias=True)):
        layer = MultiHeadAttention(Config.llama(**SIZES, **fields))
        has = [getattr(layer, name).bias is not None for name in ("q", "k", "v", "out")]
        assert has == [fields.get("qkv_bias", False)] * 3 + [fields.get("out_bias", False)]


def test_all_is_made_where_the_inputs_are():
    q, k, v = (torch.empty(1, 4, 6, 8, device="meta") for _ in range(3))
    for context in (Context(), Context(causal=True), Context(mask=causal_mask(6, device="meta"))):
        assert grouped_attention.plain(q, k, v, context).device.type == "meta"
    assert causal_mask(3, 5, 2, "meta").device.type == "meta"
