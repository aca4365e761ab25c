"""Generation: the cache changes nothing, sampling keeps its promises, bad options are refused."""

import random

import pytest
import torch

from lib import generation
from lib.errors import CourseError
from lib.generation import KVCache, choose, cut_tail, generate, left_pad, occurred, penalise, stream
from lib.transformer import Config, Transformer

SIZES = dict(vocab_size=23, block_size=96, n_layer=2, n_head=4, d_model=16)

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_buffer_is_never_longer_than_the_block(monkeypatch):
    made = []
    monkeypatch.setattr(generation, "KVCache", lambda *sizes: made.append(KVCache(*sizes)) or made[-1])
    tokens = torch.arange(20)[None]
    assert generate(model(), tokens, 76).size(1) == 96  # to the brim
    assert {layer.k.memory.size(2) for layer in made[0].layers} == {96}


def test_several_texts_go_on_from_one_that_was_read_once():
    ours, cache = model().eval(), KVCache(2)
    read, then = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[7, 8], [9, 10], [11, 12], [7, 1]])
    ours(read, cache)
    cache.repeat(2)
    want = ours(torch.cat([read.repeat_interleave(2, 0), then], dim=1))[:, 3:]
    torch.testing.assert_close(ours(then, cache), want, atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 1e-60, 5e-324])
def test_the_coldest_is_the_likeliest(temperature):
    logits = 30 * torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    for options in (dict(), dict(top_k=3), dict(top_p=0.9), dict(min_p=0.1)):
        given = dict(top_k=None, top_p=None, rng=torch.Generator().manual_seed(1)) | options
        assert torch.equal(choose(logits, temperature, **given), logits.argmax(-1, keepdim=True))


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
        (dict(temperature=-1.0), "temperature must be above 0"),
        (dict(temperature=0), "temperature must be above 0, not 0; leave it out"),
        (dict(temperature=float("nan")), "temperature"),
        (dict(temperature=float("inf")), "temperature"),
        (dict(top_k=0), "top_k"),
        (dict(top_k=2.5), "top_k"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_p=1.5), "top_p"),
        (dict(min_p=0.0), "min_p"),
        (dict(min_p=1.5), "min_p"),
        (dict(repetition_penalty=0.0), "repetition_penalty"),
        (dict(repetition_penalty=float("nan")), "repetition_penalty"),
        (dict(seed=2**64), "a seed is a whole number of at most 64 bits"),
        (dict(padding=torch.tensor([1])), "left_pad"),
        (dict(padding=torch.tensor([0, 0])), "left_pad"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(CourseError, match=says):
        next(stream(model(), torch.tensor([[1]]), 3, **options))


def test_prompts_that_do_not_fit_are_refused():
    with pytest.raises(CourseError, match="block_size=96"):
        generate(model(), torch.zeros(1, 90, dtype=torch.long), 7)
    for shape in ((1, 0), (0, 3)):
        with pytest.raises(CourseError, match="empty"):
            generate(model(), torch.zeros(shape, dtype=torch.long), 7)
    for prompts in ([], [[1], []]):
        with pytest.raises(CourseError, match="empty"):
            left_pad(prompts)
    with pytest.raises(CourseError, match="max_new_tokens"):
        generate(model(), torch.tensor([[1]]), -1)
    assert generate(model(), torch.zeros(1, 89, dtype=torch.long), 7).size(1) == 96  # to the brim


def test_200_random_cases_write_the_same_with_a_cache_and_without():
    """Over batch, prompt length, grouped heads, positions, window and left padding, in float64.

    Without: each row on its own, unpadded, read anew for every token.
    """
    draw = random.Random(4)
    for case in range(200):
        n_kv_head = draw.choice([1, 2, 4])
        fields = dict(n_kv_head=n_kv_head, position=draw.choice(["rotary", "rotary", "learned", "sinusoidal", "none"]))
        fields |= dict(sliding_window=draw.choice([None, None, 3, 7]), norm=draw.choice(["rms", "layer"]))
        torch.manual_seed(case)
        ours = Transformer(Config(**(SIZES | fields))).double().eval()
        prompts = [[draw.randrange(23) for _ in range(draw.randint(1, 12))] for _ in range(draw.randint(1, 4))]
        tokens, padding = left_pad(prompts, filler=draw.randrange(23))
        cache, want = KVCache(2), [list(prompt) for prompt in prompts]
        for _ in range(draw.randint(2, 6)):
            x = ours.last_hidden_state(tokens, cache, padding=padding)
            got = ours.head(x[:, -1])  # (B, V)
            alone = torch.stack([ours(torch.tensor([row]))[0, -1] for row in want])  # (B, V)
            torch.testing.assert_close(got, alone, atol=1e-9, rtol=1e-9, msg=lambda m, c=case: f"case {c}: {m}")
            tokens = got.argmax(-1, keepdim=True)  # (B, 1)
            want = [[*row, id] for row, id in zip(want, tokens.flatten().tolist(), strict=True)]


def test_uneven_prompts_write_what_each_writes_alone():
    ours, prompts = model(), [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]
    tokens, padding = left_pad(prompts)
    assert tokens.shape == (3, 7) and padding.tolist() == [0, 6, 4]
    for options in (dict(), dict(repetition_penalty=1.5)):
        together = generate(ours, tokens, 20, padding=padding, **options)[:, 7:].tolist()
        alone = [generate(ours, torch.tensor([p]), 20, **options)[0, len(p) :].tolist() for p in prompts]
        assert together == alone


def test_a_row_that_has_stopped_repeats_its_stop_while_others_go_on():
    ours, tokens = model(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    free = generate(ours, tokens, 20)
    stop = free[0, 6].item()
    at = free[1].tolist().index(stop, 3) if stop in free[1, 3:] else 22
    out = generate(ours, tokens, 20, stop={stop})
    first = free[0].tolist().index(stop, 3)
    assert out[0, : first + 1].tolist() == free[0, : first + 1].tolist()
    assert set(out[0, first:].tolist()) == {stop}
    assert out[1].tolist() == free[1, : out.size(1)].tolist() or at < out.size(1)
    assert out.size(1) == max(first, at) + 1


def test_min_p_keeps_what_is_near_the_likeliest():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for min_p, left in ((0.05, 4), (0.2, 3), (0.5, 2), (0.7, 1), (1.0, 1)):
        assert (cut_tail(logits, min_p=min_p) > float("-inf")).sum() == left
    assert torch.equal(cut_tail(logits), logits)
    assert (cut_tail(logits, top_k=3, top_p=0.6, min_p=0.9) > float("-inf")).sum() == 1


def test_cuts_leave_the_order_of_chances_alone():
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    for options in (dict(top_k=7), dict(top_p=0.8), dict(min_p=0.1)):
        cut = cut_tail(logits, **options)
        kept = cut > float("-inf")
        assert torch.equal(cut[kept], logits[kept]) and kept.any(-1).all() and not kept.all()
        least_kept = logits.masked_fill(~kept, float("inf")).amin(-1)
        assert (least_kept >= logits.masked_fill(kept, float("-inf")).amax(-1)).all()


def test_sampling_options_without_a_temperature_draw_at_one():
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    assert torch.equal(generate(ours, tokens, 30, top_k=5), generate(ours, tokens, 30, top_k=5, temperature=1.0))
    assert not torch.equal(generate(ours, tokens, 30, top_p=0.99), generate(ours, tokens, 30))
    assert torch.equal(generate(ours, tokens, 30, top_k=1), generate(ours, tokens, 30))


def test_repetition_penalty_spares_what_has_not_occurred():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalise(logits, seen, 2.0).tolist() == [[1.0, -4.0, 1.0, -1.0]]
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    plain, mild, strong = (generate(ours, tokens, 40, repetition_penalty=p)[0].tolist() for p in (1.0, 1.2, 1e6))
    assert plain == generate(ours, tokens, 40)[0].tolist() != mild
    assert len(set(plain)) < len(set(strong))


def test_a_penalty_of_exactly_two_is_one():
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    scores = ours.eval()(tokens)[:, -1]
    seen = torch.zeros(1, 23, dtype=torch.bool)
    seen[:, 1:4] = True
    first = generate(ours, tokens, 1, repetition_penalty=2.0)[0, -1]
    assert first == penalise(scores, seen, 2.0).argmax()
    written = generate(ours, tokens, 12, repetition_penalty=2.0)
    assert written.tolist() != generate(ours, tokens, 12).tolist()
    again = ours(written[:, :-1])[:, -1]  # what was written since counts as well
    seen = occurred(written[:, :-1], None, 23)
    assert written[0, -1] == penalise(again, seen, 2.0).argmax()


def test_what_has_occurred_is_what_stands_after_the_padding():
    tokens = torch.tensor([[0, 0, 3, 3], [1, 2, 0, 1]])
    assert occurred(tokens, None, 5).int().tolist() == [[1, 0, 0, 1, 0], [1, 1, 1, 0, 0]]
    assert occurred(tokens, torch.tensor([2, 0]), 5).int().tolist() == [[0, 0, 0, 1, 0], [1, 1, 1, 0, 0]]


def test_left_pad_by_hand():
    tokens, padding = left_pad([[7], [1, 2, 3]])
    assert tokens.tolist() == [[0, 0, 7], [1, 2, 3]] and padding.tolist() == [2, 0]
    assert left_pad([torch.tensor([7]), [1, 2]], filler=9)[0].tolist() == [[9, 7], [1, 2]]


def test_all_is_made_where_the_prompts_are():
    """On the meta device a tensor has a place and no numbers; what meets one of another device is an error."""
    tokens, padding = left_pad([[7], [1, 2, 3]], device="meta")
    assert tokens.device.type == padding.device.type == "meta"
    assert occurred(tokens, padding, 9).device.type == "meta"
    logits = torch.empty(2, 9, device="meta")
    assert cut_tail(logits, 3, 0.5, 0.1).device.type == "meta"
    assert choose(logits, 1.0, None, None, torch.Generator()).device.type == "meta"
    steps = stream(model().to("meta"), tokens, 3)
    assert [next(steps).device.type for _ in range(3)] == ["meta"] * 3
    assert generate(model().to("meta"), tokens, 3).shape == (2, 6)


def test_tails_are_cut_along_the_last_axis():
    logits = torch.randn(4, 3, 10, generator=torch.Generator().manual_seed(0))
    for options in (dict(top_k=4), dict(top_p=0.7), dict(min_p=0.3), dict(top_k=40), dict(top_p=1.0)):
        row_by_row = [cut_tail(row[None], **options)[0] for row in logits.flatten(0, 1)]
        assert torch.equal(cut_tail(logits, **options).flatten(0, 1), torch.stack(row_by_row))
    shares = torch.tensor([0.05, 0.5, 0.15, 0.3])
    assert (cut_tail(shares.log(), top_p=0.79) > -torch.inf).tolist() == [False, True, False, True]
    assert (cut_tail(shares.log(), top_p=0.81) > -torch.inf).tolist() == [False, True, True, True]
    assert (cut_tail(shares.log(), top_k=1) > -torch.inf).tolist() == [False, True, False, False]
    assert (cut_tail(torch.ones(2, 5), top_k=2) > -torch.inf).all(), "equals stay together"


def test_a_token_is_drawn_along_the_last_axis_by_gumbels_trick(monkeypatch):
    logits = torch.randn(4, 3, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choose(logits, None, None, None, None), logits.argmax(-1, keepdim=True))
    u = torch.rand(4, 3, 10, generator=torch.Generator().manual_seed(7))
    drawn = choose(logits, 0.5, None, None, torch.Generator().manual_seed(7))
    assert torch.equal(drawn, (logits / 0.5 - (-u.log()).log()).argmax(-1, keepdim=True))
    for u, chosen in (([0.05, 0.09], 1), ([0.0, 1e-30], 0), ([0.0, 1e-10], 1), ([0.95, 0.9], 0)):
        monkeypatch.setattr(torch, "rand", lambda *size, generator, u=u: torch.tensor([u]))
        assert choose(torch.zeros(1, 2), 1.0, None, None, None).item() == chosen


def test_a_cache_of_one_layer():
    cache = KVCache(1)
    model(n_layer=1)(torch.tensor([[1, 2, 3]]), cache)
    assert cache.length == 3


def test_room_is_made_once_and_rows_go_on_from_it():
    cache, ours = KVCache(2), model().eval()
    ours(torch.tensor([[1, 2, 3]]), cache)
    cache.reserve(90)
    places = [(layer.k.memory.data_ptr(), layer.v.memory.data_ptr()) for layer in cache.layers]
    for _ in range(6):
        ours(torch.arange(15)[None], cache)
    assert places == [(layer.k.memory.data_ptr(), layer.v.memory.data_ptr()) for layer in cache.layers]
    assert cache.length == 93 and [layer.length for layer in cache.layers] == [93, 93]


def test_nothing_to_write_is_the_prompt():
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    assert generate(ours, tokens, 0).tolist() == [[1, 2, 3]]
    assert generate(ours, tokens, 5, stop={22, 3}).size(1) <= 8
    assert torch.equal(generate(ours, tokens, 30, temperature=1.0), generate(ours, tokens, 30, temperature=1.0, seed=0))
    ours.eval()
    generate(ours, tokens, 2)
    assert not ours.training


def test_options_at_their_bounds():
    ours, tokens = model(), torch.tensor([[1, 2, 3]])
    least = dict(top_k=1, repetition_penalty=1e-3, temperature=1e-9)
    for options in ({name: value} for name, value in (least | dict(top_p=1.0, min_p=1.0)).items()):
        assert generate(ours, tokens, 2, **options).shape == (1, 5)
    for penalty in (float("inf"), -1.0):
        with pytest.raises(CourseError, match=r"repetition_penalty must be above 0 \(1 is none\)"):
            generate(ours, tokens, 2, repetition_penalty=penalty)
    for share in (-0.1, 1.1):
        with pytest.raises(CourseError, match=f"top_p must be above 0 and at most 1, not {share}"):
            generate(ours, tokens, 2, top_p=share)
    with pytest.raises(CourseError, match="padding must be 1 numbers from 0 to 2"):
        generate(ours, tokens, 2, padding=torch.tensor([3]))
    with pytest.raises(CourseError, match="left_pad"):
        generate(ours, tokens, 2, padding=torch.tensor([-1]))
