"""Anything at all comes through the wire, or out of an evaluation: nothing stalls, grows or breaks but the one entry.

pytest tests/grading/test_fuzz.py --long -rP      100,000 frames, 20,000 outcomes; -rP prints how many were tried
"""

import gc
import json
import random
import resource
import socket
import time
from collections import Counter

import pytest
import torch
from hunt import hunt
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lib.exercises.properties import call, close, number, shape, tensor, truth
from lib.exercises.result import Outcome
from lib.exercises.verdict import Wrong
from lib.grading import exports, feedback
from lib.grading.cleaning import clean, learner
from lib.grading.gradebook import Gradebook, Standing
from lib.grading.grades import MOST, MOST_FLAGS, Flag, Grade, Report
from lib.grading.sandbox import _modest
from lib.grading.wire import HEAD, Broken, receive

STALL, GROWTH = 1.0, 200 * 2**20  # seconds, bytes
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def only_what_is_made_here():
    """What other tests have left in this process is nothing that a judge would collect."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def one_of(rng: random.Random, *makers):
    return rng.choice(makers)()


def any_number(rng):
    return one_of(
        rng,
        lambda: rng.randrange(-3, 5),
        lambda: rng.randrange(2**70),
        lambda: rng.random(),
        lambda: -1,
        lambda: int("9" * rng.randrange(1, 600)),
        lambda: float("nan"),
        lambda: float("inf"),
        lambda: 2**40,
    )


def any_text(rng):
    return "".join(
        chr(
            rng.choice(
                [rng.randrange(32, 127), rng.randrange(0xD7FF), rng.randrange(0xD800, 0xE000), 0, 0x202E, 0x1F600]
            )
        )
        for _ in range(rng.choice([0, 1, 5, 40, 3000]))
    )


def any_tensor(rng):
    kind = rng.choice(["tensor", "grad", "array", "odd"])
    shape_ = [
        any_number(rng) if rng.random() < 0.3 else rng.randrange(4) for _ in range(rng.choice([0, 1, 2, 3, 5, 17, 400]))
    ]
    about = [
        rng.choice(["float32", "bool", "int64", "bfloat16", "object", "", 3]),
        shape_,
        rng.choice([0, 8, 16, -8, 2**41, any_number(rng)]),
    ]
    if rng.random() < 0.3:
        about.append(rng.choice([list(range(len(shape_)))[::-1], [0, 0], "01", 5, [], None]))
    return {kind: about if rng.random() < 0.95 else any_value(rng, 0)}


def any_value(rng, depth=3):
    if depth <= 0 or rng.random() < 0.3:
        return one_of(rng, lambda: any_number(rng), lambda: any_text(rng), lambda: None, lambda: True)
    return one_of(
        rng,
        lambda: [any_value(rng, depth - 1) for _ in range(rng.choice([0, 1, 3, 30]))],
        lambda: any_tensor(rng),
        lambda: {"tuple": any_value(rng, depth - 1)},
        lambda: {"handle": any_value(rng, depth - 1)},
        lambda: {"dict": [[any_value(rng, 0), any_value(rng, depth - 1)] for _ in range(rng.choice([0, 2, 20]))]},
        lambda: {any_text(rng): any_value(rng, depth - 1) for _ in range(rng.choice([0, 1, 3]))},
        lambda: any_value(rng, depth - 1),
    )


def any_frame(rng) -> bytes:
    """Now and then large, or cut short, or no frame at all."""
    if rng.random() < 0.02:
        piece = rng.choice([b"[]", b"9" * 399, b"{}", b'""', b"[[]]", b'{"tensor":["bool",[1],0]}', b"1e9"])
        text = (
            b'{"v":[' + b",".join([piece] * min(rng.choice([10**4, 10**5, 4 * 10**5]), 4 * 10**6 // len(piece))) + b"]}"
        )
    elif rng.random() < 0.02:
        text = b'{"v":' + rng.choice([b"[", b'{"tuple":[', b'{"a":']) * rng.choice([50, 900, 10**5])
    else:
        text = json.dumps({"v": any_value(rng)}).encode()
    blob = rng.randbytes(rng.choice([0, 0, 8, 64, 4096]))
    head = HEAD.pack(len(text), len(blob)) if rng.random() < 0.97 else rng.randbytes(8)
    data = head + text + blob
    if rng.random() < 0.1:
        data = bytearray(data)
        for _ in range(rng.choice([1, 8])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data)) if rng.random() < 0.05 else None])


def heard(data: bytes):
    a, b = socket.socketpair()
    with a, b:
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 2**20)
        sent = 0
        a.setblocking(False)
        while sent < len(data):
            try:
                sent += a.send(data[sent : sent + 2**16])
            except BlockingIOError:  # the rest is never sent: as good as cut short
                break
        a.shutdown(socket.SHUT_WR)
        return receive(b, lambda tree: object(), time.monotonic() + 5)


def looked_at(value) -> None:
    """What checks do with a value."""
    for look in (
        tensor,
        number,
        truth,
        lambda v: shape(v, (2, 2)),
        lambda v: close(v, torch.zeros(2), ""),
        lambda v: call(lambda: v),
    ):
        try:
            look(value)
        except Wrong as wrong:
            clean(wrong.message)
    try:
        _modest(value)
    except ValueError:
        pass


def test_frames():
    """What comes is a value or no message; within a second, and within 200 MB."""
    rng, before, slowest, most = random.Random(hunt(1, time.time_ns())), memory(), 0.0, 0
    started, frames, values = time.monotonic(), hunt(800, 100_000), 0
    for _ in range(frames):
        data = any_frame(rng)
        began = time.process_time()
        try:
            got = heard(data)
        except Broken:
            got = None
        if got is not None:
            values += 1
            looked_at(got.get("v"))
        slowest = max(slowest, time.process_time() - began)
        assert slowest < STALL, data[:200]
        got = None
        most = max(most, memory() - before)
        assert most < GROWTH, data[:200]
    print(f"{frames} frames ({values} of them values) in {time.monotonic() - started:.0f} s")
    now = memory() - before
    print(f"slowest frame {slowest:.3f} s, growth at most {most / 2**20:.0f} MB, at the end {now / 2**20:.0f} MB")


@pytest.mark.parametrize(
    "data",
    [
        b'{"v":{"tensor":["float32",[' + b",".join([b"9" * 4299] * 400) + b"],0]}}",
        b'{"v":{"tensor":["float32",[' + b",".join([b"1"] * 100_000) + b"],0]}}",
        b'{"v":[' + b",".join([b"9" * 401] * 500) + b"]}",
        b'{"v":[' + b",".join([b"[]"] * 600_000) + b"]}",
        b'{"v":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"v":{"tensor":["float32",[0,1099511627775,1099511627775],0]}}',
        b'{"v":' + b'{"tuple":[' * 40 + b"]}" * 40 + b"}",
    ],
    ids=range(7),
)
def test_bounds_come_before_work(data):
    began = time.process_time()
    with pytest.raises(Broken):
        heard(HEAD.pack(len(data), 0) + data)
    assert time.process_time() - began < STALL


anything = st.text(st.characters(codec=None), max_size=80) | st.text(
    st.characters(categories=("Cs", "Cc", "Cf")), max_size=9
)
long_or_short = st.one_of(anything, st.builds(lambda s, n: s * n, anything, st.sampled_from([1, 50, 2000])))
outcomes = st.builds(
    Outcome, long_or_short, st.integers(0, 5), st.integers(0, 5), long_or_short, long_or_short, st.booleans()
)
grades = st.builds(
    Grade,
    st.sampled_from(["02.causal_mask", "02.attention"]),
    long_or_short,
    st.integers(0, 8),
    st.integers(0, 8),
    st.booleans(),
    st.lists(outcomes, max_size=4).map(tuple),
    long_or_short,
)
flags = st.builds(Flag, st.sampled_from(["02.causal_mask", ""]), long_or_short, st.none() | st.integers(1, 10**6))
reports = st.builds(
    Report,
    long_or_short,
    st.sampled_from(["02", "03", "", "13"]),
    long_or_short,
    st.sampled_from(["", "d1", "d2"]),
    st.integers(0, 2**62),
    st.booleans(),
    st.floats(0, 10),
    st.lists(grades, max_size=3, unique_by=lambda g: g.exercise).map(tuple),
    st.lists(flags, max_size=60).map(tuple),
    long_or_short,
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    with Gradebook(tmp_path_factory.mktemp("fuzz") / "grades.db") as book:
        book._engine.dispose()
        yield book


def test_outcomes(book):
    """Whatever a report says is kept, comes back as it was kept, and is written down for everybody."""
    tried, before, started = Counter(), memory(), time.monotonic()

    @settings(FUZZ, max_examples=hunt(25, 100))
    @given(st.lists(reports, min_size=1, max_size=4))
    def once(some):
        began = time.process_time()
        for report in some:
            assert book.write(report) == ""
            for name in MOST:
                text = getattr(report, name, "")
                assert len(text) <= MOST[name] and clean(text, MOST[name]) == text
                text.encode()
            assert len(report.flags) <= MOST_FLAGS
        standings = [Standing(r.learner, (r,)) for r in {r.learner: r for r in some}.values()]
        for text in (*exports._texts(standings).values(), *map(feedback.page, standings)):
            text.encode()
        took = time.process_time() - began
        assert took < STALL
        tried["ms"] = max(tried["ms"], round(1000 * took))
        tried["MB"] = max(tried["MB"], (memory() - before) // 2**20)
        tried["reports"] += len(some)
        tried["outcomes"] += sum(len(grade.outcomes) for report in some for grade in report.grades)

    while tried["outcomes"] < hunt(50, 20_000):
        once()
    assert tried["MB"] * 2**20 < GROWTH
    print(f"{tried['outcomes']} outcomes in {tried['reports']} reports in {time.monotonic() - started:.0f} s")
    print(f"slowest table of at most four {tried['ms'] / 1000:.3f} s, growth at most {tried['MB']} MB")


@FUZZ
@given(long_or_short, long_or_short)
@example("a\n", "a\\n")
@example("x" * 300, "x" * 301)
def test_no_two_names_become_one(a, b):
    assert (learner(a) == learner(b)) == (a == b)
    assert clean(learner(a), MOST["learner"]) == learner(a)
    assert learner(learner(a) if learner(a) != a else a + "!") != learner(
        a
    )  # who calls themselves what we made of another
    assert (exports.file_name(a) == exports.file_name(b)) == (a == b) and len(exports.file_name(a)) < 120


@FUZZ
@given(long_or_short)
def test_clean_text_stays(text):
    once = clean(text, 100)
    assert clean(once, 100) == once and len(once) <= 100
    assert not any(c in "\n\r\t\0\u202e\x1b" or 0xD800 <= ord(c) < 0xE000 for c in once)


@FUZZ
@given(st.lists(st.sampled_from([*"=+-@;,|\t\n'\" a1", "＝", "﹢"]), max_size=12).map("".join))
def test_no_cell_holds_a_formula_wherever_it_is_cut(text):
    cell = exports._cell(text)
    for separator in ",;|\t\n":
        for part in cell.split(separator):
            assert (
                part.lstrip(" \"'`")[:1] not in tuple("=+-@＝﹢")
                or part.lstrip(' "').startswith("'")
                or not part.strip()
            )
