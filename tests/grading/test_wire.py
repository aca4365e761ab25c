"""Values come out of a frame as they went in, and what is no frame is refused whatever it claims."""

import json
import math
import socket
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.grading import wire
from lib.grading.wire import HEAD, Broken, Late, receive, send


def through(value, refer=None, resolve=None):
    a, b = socket.socketpair()
    with a, b:
        thread = threading.Thread(target=send, args=(a, {"value": value}, refer))
        thread.start()
        got = receive(b, resolve)["value"]
        thread.join()
    return got


def raw(*frames):
    a, b = socket.socketpair()
    with a, b:
        for frame in frames:
            a.sendall(frame)
        a.shutdown(socket.SHUT_WR)
        return receive(b)


def frame(tree, blob=b""):
    head = json.dumps(tree).encode()
    return HEAD.pack(len(head), len(blob)) + head + blob


plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda v: st.lists(v) | st.tuples(v, v) | st.dictionaries(st.text() | st.integers(), v))


@given(values)
def test_plain_values_are_the_same_on_the_other_side(value):
    got = through(value)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("dtype", wire.DTYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5,), (2, 3, 4)])
def test_tensors_of_every_dtype_and_shape(dtype, shape):
    t = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    got = through([1, t, t.mT if t.ndim > 1 else t])[1:]
    assert got[0].dtype == dtype and torch.equal(got[0], t) and torch.equal(got[1], t.mT if t.ndim > 1 else t)


def test_nan_gradients_views_arrays_and_numbers_of_numpy():
    assert math.isnan(through(float("nan"))) and through(float("-inf")) == float("-inf")
    assert through(torch.zeros(2, requires_grad=True)).requires_grad
    assert torch.equal(through(torch.arange(6).view(2, 3).T[:, :1]), torch.tensor([[0], [1], [2]]))
    got = through(np.arange(3.0))
    assert isinstance(got, np.ndarray) and got.tolist() == [0, 1, 2]
    assert through(np.float32(1.5)) == 1.5 and through(np.bool_(True)) is True


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_a_transposed_view_arrives_as_one(axes):
    x = torch.arange(24.0).view(2, 3, 4).permute(axes)
    y = through(x)
    assert torch.equal(x, y) and x.stride() == y.stride()


@pytest.mark.parametrize("order", [[0], [0, 0], [1, 2], "01", 3, {"a": 1}])
def test_axes_that_are_none_are_refused(order):
    with pytest.raises(Broken):
        raw(frame({"v": {"tensor": ["float32", [2, 3], 0, order]}}, bytes(24)))


def test_what_cannot_travel_stays_and_is_known_by_a_number():
    kept = [object()]
    got = through([kept[0]], lambda v: {"handle": 0}, lambda tree: kept[tree["handle"]])
    assert got[0] is kept[0]
    with pytest.raises(TypeError):
        send(None, {"value": object()})


def test_a_view_of_a_trillion_entries_is_refused_before_it_is_copied():
    with pytest.raises(ValueError, match="far larger"):
        wire.encode(torch.zeros(1).expand(10**6, 10**6), bytearray())


@pytest.mark.parametrize("data", [
    b"", b"x", HEAD.pack(5, 0) + b"{", HEAD.pack(2**31, 0), HEAD.pack(2, 2**31) + b"{}", HEAD.pack(2, 0) + b"[]",
    HEAD.pack(4, 0) + b"\xff\xfe{}", HEAD.pack(100_000, 0) + b"[" * 100_000, HEAD.pack(9000, 0) + b"9" * 9000,
    frame({"v": {"tensor": ["float32", [4], 0]}}, b"abc"), frame({"v": {"tensor": ["float32", [-1, -1], 0]}}, b"abcd"),
    frame({"v": {"tensor": ["float32", [1], 10**9]}}, b"abcd"), frame({"v": {"tensor": ["float32", [2**62], 0]}}, b"a"),
    frame({"v": {"tensor": ["object", [1], 0]}}, bytes(8)), frame({"v": {"tensor": "x"}}), frame({"v": {}}),
    frame({"v": {"dict": [[[], 1]]}}), frame({"v": {"handle": 3}}), frame({"v": {"__class__": 3}}),
    frame({"v": {"tensor": ["float32", [1], -4]}}, bytes(16)),
], ids=range(20))  # fmt: skip
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(Broken):
        raw(data)


def test_waiting_has_an_end():
    a, b = socket.socketpair()
    with a, b, pytest.raises(Late):
        receive(b, deadline=time.monotonic() + 0.05)
    a, b = socket.socketpair()
    with a, b, pytest.raises(Late):  # nobody reads: the line is full
        send(a, {"v": "x" * 2**20}, deadline=time.monotonic() + 0.05)
