"""Generation: the cache changes nothing, sampling keeps its promises, bad options are refused."""

import pytest
import torch

from lib.errors import CourseError
from lib.generation import KVCache, choose, generate, stream
from lib.transformer import Config, Transformer

SIZES = dict(vocab_size=23, block_size=96, n_layer=2, n_head=4, d_model=16)


def model(**fields) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(Config.llama(**(SIZES | fields)))
    for p in made.parameters():
        p.data *= 4  # far from uniform, so that greedy choices are clear
    return made


@pytest.mark.parametrize("fields", [{}, dict(n_kv_head=1), dict(position="learned"), dict(sliding_window=6)])
def test_cache_equals_no_cache(fields):
    ours = model(**fields).eval()
    tokens = torch.randint(23, (3, 90), generator=torch.Generator().manual_seed(1))
    cache = KVCache(2)
    pieces = [ours(part, cache) for part in tokens.split([5, 1, 1, 70, 13], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), ours(tokens), atol=1e-4, rtol=1e-4)
    assert cache.length == 90


def test_greedy_is_the_argmax_step_by_step():
    ours, tokens = model(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    want = tokens
    for _ in range(70):
        want = torch.cat([want, ours(want)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(ours, tokens, 70), want)
    assert ours.training  # left as it was found


def test_stop_ends_when_every_row_has_stopped():
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    free = generate(ours, tokens, 20)[0].tolist()
    stop = free[8]
    ended = generate(ours, tokens, 20, stop={stop})[0].tolist()
    assert ended == free[: free.index(stop, 3) + 1]


def test_sampling_follows_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(40_000, 1)
    drawn = choose(logits, 2.0, None, None, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn.flatten(), minlength=4) / 40_000
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(-1), atol=0.01, rtol=0)


def test_top_k_and_top_p_cut_the_tail():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(5_000, 1)
    rng = torch.Generator().manual_seed(0)
    assert set(choose(logits, 1.0, 2, None, rng).flatten().tolist()) == {0, 1}
    assert set(choose(logits, 1.0, None, 0.6, rng).flatten().tolist()) == {0, 1}
    assert set(choose(logits, 1.0, None, 0.5, rng).flatten().tolist()) == {0}
    assert set(choose(logits, 1.0, None, 1.0, rng).flatten().tolist()) == {0, 1, 2, 3}


def test_same_seed_same_text():
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    a, b, c = (generate(ours, tokens, 30, temperature=1.0, seed=s).tolist() for s in (1, 1, 2))
    assert a == b != c


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(temperature=-1.0), "temperature"),
        (dict(top_k=0), "top_k"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_p=1.5), "top_p"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(CourseError, match=says):
        next(stream(model(), torch.tensor([[1]]), 3, **options))


def test_prompts_that_do_not_fit_are_refused():
    with pytest.raises(CourseError, match="block_size=96"):
        generate(model(), torch.zeros(1, 90, dtype=torch.long), 7)
    with pytest.raises(CourseError, match="empty"):
        generate(model(), torch.zeros(1, 0, dtype=torch.long), 7)
