"""The engine: requests share a batch, and none notices the others."""

import threading
from itertools import pairwise

import psutil
import pytest
import torch

from lib.errors import CourseError
from lib.generation import generate, stream
from lib.inference.decoding import Decoder
from lib.inference.engine import Closed, Engine, Full, Request, Rows
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = dict(vocab_size=96, block_size=256, n_layer=2, n_head=4, n_kv_head=2, d_model=32)
KINDS = {
    "llama": Config.llama(**SIZES),
    "gpt2": Config.gpt2(**SIZES | dict(n_kv_head=4)),
    "sinusoidal": Config(**SIZES, position="sinusoidal"),
    "window": Config(**SIZES, sliding_window=5),
}


class Letters:
    """Token i is one printable character; `eos_id` ends a turn."""

    def __init__(self, eos_id=None):
        self.eos_id = eos_id

    def decode(self, ids):
        return "".join(chr(32 + int(id)) for id in ids)


def make(config=KINDS["llama"], seed=0):
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # sharp enough that the likeliest token is not a near tie
    return model


def prompt(n, seed=0):
    return torch.randint(0, 96, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


class Listener(list):
    @property
    def text(self):
        return "".join(piece.text for piece in self)

    @property
    def end(self):
        return self[-1].finish, self[-1].tokens


def ask(engine, *arguments, **options):
    heard = Listener()
    engine.submit(request := Request(*arguments, listener=heard.append, **options))
    return request, heard


def finish(engine):
    for _ in range(10_000):
        if not engine.step():
            return
    raise AssertionError("it goes on and on")


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_what_generate_writes(kind):
    model = make(KINDS[kind])
    engine = Engine(model, Letters(), max_batch=4, context=128, chunk=7)
    prompts = [prompt(n, n) for n in (1, 3, 20, 90)]
    heard = [ask(engine, ids, 30)[1] for ids in prompts]
    finish(engine)
    for ids, answer in zip(prompts, heard, strict=True):
        want = generate(model, torch.tensor([ids]), 30)[0, len(ids) :].tolist()
        assert answer.text == Letters().decode(want) and answer.end == ("length", 30)


def test_a_request_writes_the_same_alone_and_in_any_company():
    model = make()
    sampled = [dict(), dict(temperature=0.7, seed=3), dict(temperature=2.0, top_p=0.8, seed=4)]
    wanted = [(prompt(5 + 9 * i, i), 10 + 3 * i, sampled[i % 3]) for i in range(12)]
    alone = []
    for ids, n, options in wanted:
        engine = Engine(model, Letters(), max_batch=5, context=256, chunk=16)
        alone.append(ask(engine, ids, n, **options)[1])
        finish(engine)
    engine = Engine(model, Letters(), max_batch=5, context=256, chunk=16)
    heard = []
    for i, (ids, n, options) in enumerate(wanted):
        heard.append(ask(engine, ids, n, **options)[1])
        for _ in range(i % 4):  # some come while others write
            engine.step()
    finish(engine)
    assert [answer.text for answer in heard] == [answer.text for answer in alone]
    assert len({answer.text for answer in heard}) == 12


def test_logits_do_not_depend_on_the_company_beyond_rounding():
    engine = Engine(make().double(), Letters(), max_batch=4, context=128)
    lengths = [5, 40, 100]
    for row, n in enumerate(lengths):
        with torch.inference_mode():
            engine._pass(row, [prompt(n, row)], [0])
    with torch.inference_mode():
        together = engine._pass(0, [[1], [2], [3]], lengths)
        for row, n in enumerate(lengths):
            alone = engine._pass(row, [[row + 1]], [n])
            assert torch.allclose(alone[0], together[row], rtol=0, atol=1e-12)


def test_sampling_is_that_of_stream():
    model = make()
    ids, options = prompt(6), dict(temperature=1.3, top_p=0.9, seed=11)
    engine = Engine(model, Letters())
    _, heard = ask(engine, ids, 25, **options)
    finish(engine)
    want = [token.item() for token in stream(model, torch.tensor([ids]), 25, **options)]
    assert heard.text == Letters().decode(want)


def test_requests_join_and_leave_a_batch_that_runs():
    engine = Engine(make(), Letters(), max_batch=2)
    _, long = ask(engine, prompt(4), 60)
    _, short = ask(engine, prompt(5), 3)
    _, third = ask(engine, prompt(6), 3)
    for _ in range(2):
        engine.step()
    assert short.end == ("length", 3) and not third and engine.seated == 1
    for _ in range(2):
        engine.step()
    assert third.end == ("length", 3) and long[-1].finish is None
    finish(engine)
    assert long.end == ("length", 60)


def test_a_long_prompt_is_read_between_the_steps_of_others():
    engine = Engine(make(), Letters(), chunk=8)
    _, first = ask(engine, prompt(3), 60)
    engine.step()
    _, long = ask(engine, prompt(100), 5)
    counts = []
    while not long:
        counts.append(first[-1].tokens)
        engine.step()
    assert len(counts) >= 100 // 8 and all(b - a == 1 for a, b in pairwise(counts))


def test_the_end_of_a_turn_is_neither_text_nor_counted():
    model = make()
    ids = prompt(4)
    free = generate(model, torch.tensor([ids]), 40)[0, 4:].tolist()
    eos = free[10]
    at = free.index(eos)
    engine = Engine(model, Letters(eos))
    _, heard = ask(engine, ids, 40)
    finish(engine)
    assert heard.text == Letters().decode(free[:at]) and heard.end == ("stop", at)


def test_a_stop_string_ends_it_and_is_not_shown():
    model = make()
    ids = prompt(4)
    free = Letters().decode(generate(model, torch.tensor([ids]), 40)[0, 4:].tolist())
    stop = free[12:15]
    at = free.index(stop)
    engine = Engine(model, Letters())
    _, heard = ask(engine, ids, 40, stop=("never there", stop))
    _, other = ask(engine, ids, 40)
    finish(engine)
    assert heard.text == free[:at] and heard.end == ("stop", at + 3)
    assert other.text == free and other.end == ("length", 40)


def test_who_is_cancelled_frees_the_place_before_the_next_step():
    engine = Engine(make(), Letters(), max_batch=2, chunk=8)
    first, a = ask(engine, prompt(4, 1), 200)
    _, b = ask(engine, prompt(5, 2), 40)
    _, c = ask(engine, prompt(6, 3), 7)
    for _ in range(5):
        engine.step()
    assert engine.seated == 2 and engine.waiting == 1
    engine.cancel(first)
    engine.step()
    assert a.end[0] == "cancelled" and a.end[1] < 8
    assert c and engine.waiting == 0  # the third has begun in that very step
    finish(engine)
    alone = Engine(make(), Letters())
    _, b2 = ask(alone, prompt(5, 2), 40)
    _, c2 = ask(alone, prompt(6, 3), 7)
    finish(alone)
    assert (b.text, c.text) == (b2.text, c2.text)  # though they moved to other rows


def test_a_prompt_half_read_moves_with_its_row_and_can_be_cancelled():
    model = make()
    engine = Engine(model, Letters(), max_batch=4, chunk=8)
    requests = [ask(engine, prompt(4, i), 100)[0] for i in range(3)]
    engine.step()
    _, long = ask(engine, prompt(60, 9), 5)
    for _ in range(3):
        engine.step()
    assert engine._reading is not None and engine._reading.length == 24
    for request in requests:
        engine.cancel(request)
    finish(engine)
    want = generate(model, torch.tensor([prompt(60, 9)]), 5)[0, 60:].tolist()
    assert long.text == Letters().decode(want)
    request, heard = ask(engine, prompt(60, 9), 5)
    engine.step()
    engine.cancel(request)
    engine.step()
    assert heard.end == ("cancelled", 0) and engine.seated == 0
    waiting = [ask(engine, prompt(3, i), 50) for i in range(5)]
    engine.step()
    engine.cancel(waiting[4][0])
    engine.step()
    assert waiting[4][1].end == ("cancelled", 0) and engine.waiting == 0


def test_the_queue_is_bounded():
    engine = Engine(make(), Letters(), max_batch=2, max_waiting=3)
    for i in range(5):
        ask(engine, prompt(3, i), 5)
    with pytest.raises(Full):
        ask(engine, prompt(3), 5)
    finish(engine)
    ask(engine, prompt(3), 5)


def test_memory_is_bounded_and_comes_back():
    engine = Engine(make(), Letters(), max_batch=2, context=64)
    assert engine.rows.memory is None
    for i in range(6):
        ask(engine, prompt(30, i), 34)
    engine.step()
    assert engine.rows.memory.nbytes == engine.rows.most_bytes == 2 * 2 * 2 * 2 * 64 * 8 * 4
    finish(engine)
    assert engine.rows.memory is None


def test_rows_take_up_what_is_written_to_and_give_all_of_it_back():
    config = Config.llama(vocab_size=8, block_size=4096, n_layer=2, n_head=4, d_model=256)
    rows = Rows(config, 8, 4096, torch.device("cpu"), torch.float32)
    assert rows.most_bytes == 2 * 2 * 8 * 4 * 4096 * 64 * 4 == 2**27
    process = psutil.Process()
    before = process.memory_info().rss
    layers = rows.layers(0, torch.arange(8)[None], 64)
    for layer in layers:
        layer.extend(torch.ones(1, 4, 8, 64), torch.ones(1, 4, 8, 64))
    assert process.memory_info().rss - before < 2**24  # one short text
    rows.memory.fill_(1.0)
    assert process.memory_info().rss - before > 2**26
    del layers, layer
    rows.release()
    assert process.memory_info().rss - before < 2**24


def test_a_row_that_was_used_before_does_not_show():
    rows = Rows(KINDS["llama"], 2, 16, torch.device("cpu"), torch.float32)
    places = torch.tensor([[0, 1, 2]])
    (layer, _), x = rows.layers(1, places, 8), torch.ones(1, 2, 3, 8)
    k, _ = layer.extend(x, 2 * x)
    assert k.shape == (1, 2, 8, 8) and k[0, :, :3].eq(1).all() and k[0, :, 3:].eq(0).all()
    assert rows.memory[0, 1, 1, :, :3].eq(2).all() and rows.memory[:, :, 0].eq(0).all()
    rows.move(1, 0, 2)
    assert rows.memory[0, 0, 0, :, :2].eq(1).all() and rows.memory[0, 0, 0, :, 2:].eq(0).all()
    model = make()
    engine = Engine(model, Letters(), max_batch=2)
    ask(engine, prompt(80, 1), 50)
    _, keeps = ask(engine, prompt(5, 3), 90)  # so that the memory is not given back between
    finish_first = 52
    for _ in range(finish_first):
        engine.step()
    _, heard = ask(engine, prompt(3, 2), 20)
    finish(engine)
    assert heard.text == Letters().decode(generate(model, torch.tensor([prompt(3, 2)]), 20)[0, 3:].tolist())
    assert keeps.end == ("length", 90)


def test_from_many_threads():
    engine = Engine(make(), Letters(), max_batch=8, max_waiting=64)
    heard = [Listener() for _ in range(32)]
    ended = [threading.Event() for _ in heard]

    def client(i):
        def listener(piece):
            heard[i].append(piece)
            if piece.finish:
                ended[i].set()

        engine.submit(Request(prompt(3 + i, i), 5 + i % 7, listener=listener))

    with engine.running():
        threads = [threading.Thread(target=client, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(event.wait(30) for event in ended)
    assert [answer.end for answer in heard] == [("length", 5 + i % 7) for i in range(32)]


def test_closing_lets_those_who_write_end_and_tells_those_who_wait():
    engine = Engine(make(), Letters(), max_batch=1)
    _, first = ask(engine, prompt(3), 30)
    _, second = ask(engine, prompt(3), 30)
    engine.step()
    engine.close()
    with pytest.raises(Closed):
        ask(engine, prompt(3), 3)
    engine.run()
    assert first.end == ("length", 30) and second.end == ("closed", 0)


def test_a_fault_costs_those_in_the_batch_and_not_the_engine(caplog):
    engine = Engine(make(), Letters())
    real, broken = engine._pass, [True]

    def fragile(first, tokens, starts):
        if broken and first == 0 and len(tokens[0]) == 1:
            broken.clear()
            raise MemoryError("no room")
        return real(first, tokens, starts)

    engine._pass = fragile
    _, first = ask(engine, prompt(3), 5)
    ended = threading.Event()
    with engine.running():
        for _ in range(200):
            if first and first[-1].finish:
                break
            ended.wait(0.05)
        assert first.end[0] == "error" and "no room" in first[-1].text
        _, second = ask(engine, prompt(3), 5)
    assert second.end in (("length", 5), ("closed", 0)) and engine.rows.memory is None
    assert "a step failed" in caplog.text


@pytest.mark.parametrize("good", [0, 1])
def test_a_broken_listener_costs_its_own_request_only(caplog, good):
    """Those that write, that wait, and that are told of the end; before and after it in the batch."""
    engine = Engine(make(), Letters(), max_batch=2)
    heard = []
    for i in range(4):
        if i % 2 == good:
            heard.append(ask(engine, prompt(3, i), 20, seed=-(2**63))[1])
        else:
            engine.submit(Request(prompt(3, i), 20, listener=lambda piece: 1 / 0))
    engine.step()
    engine.step()
    assert engine.seated == 2 and heard[0][-1].finish is None  # the broken one's place is the next one's
    engine.close()
    engine.run()
    assert heard[0].end == ("length", 20) and heard[1].end[0] in ("length", "closed")
    assert "a listener failed" in caplog.text and "a step failed" not in caplog.text


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request([], 5), "empty prompt"),
        (Request([1], 0), "max_new_tokens must be at least 1"),
        (Request([1] * 60, 5), "exceed the context of 64"),
        (Request([1], 5, temperature=-1.0), "temperature"),
        (Request([1], 5, temperature=float("nan")), "temperature"),
        (Request([1], 5, temperature=1.0, top_p=0.0), "top_p"),
        (Request([1], 5, stop=("",)), "empty stop string"),
        (Request([1, 96], 5), "ids are 0 to 95"),
        (Request([-1], 5), "ids are 0 to 95"),
        (Request([1], 5, seed=2**63), "a seed is"),
        (Request([1], 5, seed=-(2**63) - 1), "a seed is"),
        (Request([1], 5, seed=0.5), "a seed is"),
    ],
)
def test_a_request_that_can_not_be(request_, says):
    engine = Engine(make(), Letters(), context=64)
    with pytest.raises(CourseError, match=says):
        engine.submit(request_)
    assert engine.waiting == 0


def test_an_engine_that_can_not_be():
    for options, says in ((dict(max_batch=0), "max_batch must be at least 1"), (dict(context=1), "context"),
                          (dict(chunk=0), "chunk"), (dict(max_waiting=-1), "max_waiting"),
                          (dict(context=257), "more than block_size=256")):
        with pytest.raises(CourseError, match=says):
            Engine(make(), Letters(), **options)
    assert isinstance(Engine(Decoder(make(), 2), Letters()).model, Decoder)
