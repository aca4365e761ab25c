"""Each kernel gives what the plain form says, values and gradients, in every kind of number; and the door to it."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from lib.attention import Context, causal_mask, grouped_attention
from lib.kernels.buffer import Buffer
from lib.kernels.door import with_kernel, written_out
from lib.transformer import Config, RMSNorm, Transformer, rms_norm

KERNELS = ("RMSNormWithGradient", "ScaledDotProduct")  # as autograd names them
KINDS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
CONTEXTS = {
    "everyone": Context(),
    "causal": Context(causal=True),
    "window": Context(mask=causal_mask(6, window=2)),
    "padded": Context(mask=(torch.arange(6) >= torch.tensor([0, 2])[:, None, None]).unsqueeze(1) | torch.eye(6).bool()),
}


def agree(function, inputs, *more, dtype):
    """Both forms of a function of tensors on float64 inputs, against each other in dtype and the truth in float64."""

    def results(form, kind):
        given = [x.to(kind, copy=True).requires_grad_() for x in inputs]
        out = form(*given, *more)
        assert out.dtype is kind
        push = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        return [out, *torch.autograd.grad(out, given, push.to(kind))], out

    truth, _ = results(function.plain, torch.float64)
    (kernel, out), (plain, _) = results(function, dtype), results(function.plain, dtype)
    for want, fast, slow in zip(truth, kernel, plain, strict=True):
        near = dict(rtol=0, atol=8 * torch.finfo(dtype).eps * want.abs().max().item())
        torch.testing.assert_close(fast.double(), want, **near)
        torch.testing.assert_close(slow.double(), want, **near)
    with torch.no_grad():
        few = [x.to(dtype) for x in inputs]
        near = dict(rtol=0, atol=8 * torch.finfo(dtype).eps * truth[0].abs().max().item())
        torch.testing.assert_close(function(*few, *more).double(), truth[0], **near)
    return out.grad_fn.name()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("size", [(3, 5, 8), (4, 8), (2, 3, 4, 6)])
def test_rms_norm(size, dtype):
    rng = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in (size, size[-1:]))
    assert KERNELS[0] in agree(rms_norm, (x, weight), 1e-5, dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_attention(n_kv_head, context, dtype):
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 6, 8, generator=rng, dtype=torch.float64) for n in (4, n_kv_head, n_kv_head))
    used = agree(grouped_attention, (q, k, v), CONTEXTS[context], dtype=dtype)
    assert ("ToCopy" if dtype is torch.bfloat16 else "ScaledDotProduct") in used


def test_rms_norms_gradient_by_hand_is_pytorchs():
    rng = torch.Generator().manual_seed(0)
    norm = RMSNorm(8, 1e-5).double()
    norm.weight.data = torch.randn(8, generator=rng, dtype=torch.float64)
    x, push = (torch.randn(3, 5, 8, generator=rng, dtype=torch.float64) for _ in range(2))
    theirs = x.clone().requires_grad_(), norm.weight.detach().clone().requires_grad_()
    F.rms_norm(theirs[0], (8,), theirs[1], 1e-5).backward(push)
    mine = x.clone().requires_grad_()
    norm(mine).backward(push)
    torch.testing.assert_close(mine.grad, theirs[0].grad)
    torch.testing.assert_close(norm.weight.grad, theirs[1].grad)
    assert torch.autograd.gradcheck(norm, (x.requires_grad_(),))
    norm.weight.requires_grad_(False)
    frozen = x.detach().requires_grad_()
    norm(frozen).backward(push)
    assert torch.equal(frozen.grad, mine.grad)


def test_a_model_compiles_whole_through_the_doors():
    torch.manual_seed(0)
    model = Transformer(Config.llama(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=8))
    tokens = torch.arange(8)[None]
    seen = []

    def look(graph, inputs):
        seen.append(graph.code)
        return graph.forward

    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(model, backend=look, fullgraph=True)(tokens), model(tokens))
    assert len(seen) == 1 and seen[0].count("scaled_dot_product_attention") == 1 and seen[0].count("rms_norm(") == 3


def test_the_door():
    asked = []

    def kernel(x, by=1):
        asked.append(x)
        return NotImplemented if x < 0 else ("kernel", x + by)

    @with_kernel(kernel)
    def add(x, by=1):
        """x + by."""
        return "plain", x + by

    assert add(1) == ("kernel", 2) and add(-1, by=2) == ("plain", 1) and asked == [1, -1]
    assert add.plain(1) == ("plain", 2) and (add.__name__, add.__doc__) == ("add", "x + by.")
    with written_out(add):
        with pytest.raises(ZeroDivisionError), written_out(add, grouped_attention):
            raise ZeroDivisionError
        assert add(1) == ("plain", 2)
    assert add(1) == ("kernel", 2)


def test_written_out_is_one_function_and_not_the_others():
    torch.manual_seed(0)
    model = Transformer(Config.llama(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=8))

    def kernels(out):
        found, new = set(), {out.grad_fn}
        while new:
            found |= new
            new = {parent for node in new for parent, _ in node.next_functions if parent} - found
        return {name for name in KERNELS if any(name in node.name() for node in found)}

    tokens = torch.arange(8)[None]
    assert kernels(model(tokens)) == set(KERNELS)
    with written_out(grouped_attention):
        assert kernels(model(tokens)) == {"RMSNormWithGradient"}
    with written_out(rms_norm):
        assert kernels(model(tokens)) == {"ScaledDotProduct"}


@pytest.mark.parametrize("limit", [None, 150])
def test_a_buffer_is_cat_that_seldom_copies(limit):
    rng = torch.Generator().manual_seed(0)
    buffer, whole, places = Buffer(limit), torch.zeros(2, 3, 0, 4), []
    for n in (1, 5, 30, 1, 1, 60, 2, 40):
        new = torch.randn(2, 3, n, 4, generator=rng)
        got = buffer.append(new, whole.size(2))
        whole = torch.cat((whole, new), dim=2)
        assert torch.equal(got, whole)
        places.append(buffer.memory.data_ptr())
        assert not buffer.memory[:, :, whole.size(2) :].any()
    assert len(list(itertools.groupby(places))) == 2
    assert buffer.memory.size(2) == limit or limit is None
