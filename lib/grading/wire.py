"""Values as bytes between the judge and a sandbox: JSON for their structure, raw numbers for their tensors.

Both ends import this file, and the judge believes nothing that comes through it: a frame has a size limit, JSON holds
only plain values, a tensor is a known dtype and a length that is checked, and whatever else an answer returns stays
where it is, known here by a number and the name of its type. Nothing is ever unpickled.

A frame is two lengths (4 bytes each, big-endian), that many bytes of JSON, that many of numbers. A tensor in the JSON
is its dtype, its shape and where its numbers start; if it lies in memory with its axes in another order, the shape is
in that order and the order follows.
"""

import json
import math
import socket
import struct
import time

import numpy as np
import torch

MOST_JSON = 2 * 2**20  # bytes; more text and structure than any answer needs
MOST_VALUES = 150_000  # values in all lists, tuples and dictionaries of one frame
MOST_KEYS = 2048  # in all dictionaries: with more, keys that collide on purpose would take the judge hours
MOST_NUMBERS = 16 * 2**20  # bytes in all tensors of one frame
MOST_TENSORS = 10_000
MOST_AXES = 16
MOST_DIGITS = 400  # of a whole number: reading one takes the square of them
MOST_DEPTH = 32
USUAL = 2**16  # bytes; nearly every frame comes in one piece of at most that
HEAD = struct.Struct(">II")
DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
)}  # fmt: skip


class Broken(Exception):
    """The other end is gone, or what it says is no frame."""


class Late(Exception):
    """The other end did not answer in time."""


def send(channel: socket.socket, message: dict, refer=None, deadline: float | None = None) -> None:
    """Send one message. refer(object) gives the dictionary that stands for what cannot travel.

    Raises Broken, Late, or ValueError for a message too large to send.
    """
    blob = bytearray()
    tree = {key: encode(value, blob, refer) for key, value in message.items()}
    head = json.dumps(tree, separators=(",", ":")).encode()
    if len(head) > MOST_JSON:
        raise ValueError("more text and numbers than the grader takes")
    _wait(channel, deadline)
    try:
        channel.sendall(HEAD.pack(len(head), len(blob)) + head + blob)
    except TimeoutError:
        raise Late from None
    except OSError as error:
        raise Broken(str(error)) from None


def receive(channel: socket.socket, resolve=None, deadline: float | None = None) -> dict:
    """The next message. resolve(dictionary) gives back what `refer` stood for. Raises Broken or Late."""
    data = bytearray(USUAL)
    got = _read(channel, data, 0, HEAD.size, deadline)
    head, blob = HEAD.unpack_from(data)
    size = HEAD.size + head + blob
    if head > MOST_JSON or blob > MOST_NUMBERS + MOST_JSON:
        raise Broken("a message larger than any right answer")
    data += bytes(max(0, size - USUAL))
    got = _read(channel, data, got, size, deadline)
    if got > size:  # the two ends take turns
        raise Broken("more than one message")
    try:
        text = data[HEAD.size : size - blob]
        if sum(map(text.count, (b",", b"[", b"{"))) > 3 * MOST_VALUES:  # before anything is built
            raise Broken("more values than in any right answer")
        tree = READER.decode(text.decode("utf-8", "surrogatepass"))
        blob = memoryview(data[size - blob : size])  # of its own, so that any dtype may start in it
        room = _Room(blob, resolve)
        return {key: room.decode(value) for key, value in tree.items()}
    except Exception as error:  # the sender may have made it so that any of the three stumbles
        raise Broken(f"no message: {type(error).__name__}") from None


def encode(value, blob: bytearray, refer=None):
    """A value as JSON; the numbers of its tensors go to the end of `blob`. Raises ValueError for too many of them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 1300:  # MOST_DIGITS
            raise ValueError("a number of more digits than any right answer's")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, torch.Tensor):
        return _tensor(value, blob, "grad" if value.requires_grad else "tensor", refer)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return _tensor(torch.from_numpy(np.ascontiguousarray(value)), blob, "array", refer)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return encode(value.item(), blob)
    if isinstance(value, list):
        return [encode(v, blob, refer) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(v, blob, refer) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, blob, refer), encode(v, blob, refer)] for k, v in value.items()]}
    if refer is None:
        raise TypeError(f"{type(value).__name__} cannot be sent")
    return refer(value)


def _tensor(value: torch.Tensor, blob: bytearray, kind: str, refer):
    name = str(value.dtype).removeprefix("torch.")
    if value.layout is not torch.strided or name not in DTYPES or value.is_meta:
        if refer is None:
            raise TypeError("an unusual tensor cannot be sent")
        return {"odd": "complex" if value.is_complex() else "sparse"}
    if value.ndim > MOST_AXES:
        raise ValueError(f"a tensor of {value.ndim} axes")
    size = value.numel() * value.element_size()
    if len(blob) + size > MOST_NUMBERS:  # before a view of 10^12 entries is written out
        raise ValueError(f"a tensor of shape {tuple(value.shape)}: far larger than any right answer")
    blob += bytes(-len(blob) % 8)  # so that every dtype may start there
    start = len(blob)
    # A transposed view arrives as one: an answer must not depend on how numbers lie in memory, and some do.
    order = sorted(range(value.ndim), key=value.stride, reverse=True)
    turned = [] if value.is_contiguous() or not value.permute(order).is_contiguous() else [order]
    value = value.permute(order) if turned else value
    if size:
        plain = value.detach().as_subclass(torch.Tensor).cpu().resolve_neg().contiguous()
        blob += memoryview(plain.reshape(-1).view(torch.uint8).numpy())
    return {kind: [name, list(value.shape), start, *turned]}


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("a number of more digits than any right answer's")
    return int(text)


READER = json.JSONDecoder(parse_int=_whole)


def decode(value, blob: memoryview, resolve=None):
    """The value that `encode` made this JSON of."""
    return _Room(blob, resolve).decode(value)


class _Room:
    """What one frame may hold; whatever is more is refused before it is built."""

    def __init__(self, blob: memoryview, resolve):
        self.blob, self.resolve, self.values, self.tensors = blob, resolve, MOST_VALUES, MOST_TENSORS
        self.bytes, self.keys = len(blob), MOST_KEYS  # no two tensors share a byte

    def decode(self, value, depth: int = 0):
        if not isinstance(value, list | dict):
            return value
        if depth > MOST_DEPTH:
            raise ValueError("deeper than any right answer")
        if isinstance(value, list):
            return [self.decode(v, depth + 1) for v in self._of(value)]
        kind, content = next(iter(value.items()))
        if kind == "tensor":
            return self._tensor(content)
        if kind == "grad":
            return self._tensor(content).requires_grad_()
        if kind == "array":
            return self._tensor(content).numpy()
        if kind == "tuple":
            return tuple(self.decode(v, depth + 1) for v in self._of(content))
        if kind == "dict":
            self.keys -= len(content)
            if self.keys < 0:
                raise ValueError("a dictionary larger than any right answer's")
            return {self.decode(k, depth + 1): self.decode(v, depth + 1) for k, v in self._of(content)}
        if kind == "odd":
            return torch.zeros(0, dtype=torch.complex64) if content == "complex" else torch.zeros(0).to_sparse()
        if self.resolve is None:
            raise ValueError(kind)
        return self.resolve(value)

    def _of(self, content: list) -> list:
        if not isinstance(content, list):
            raise ValueError(content)
        self.values -= len(content)
        if self.values < 0:
            raise ValueError("more values than in any right answer")
        return content

    def _tensor(self, about: list) -> torch.Tensor:
        """A tensor from its dtype, shape, place in the blob and order of axes there; none of them is believed."""
        name, shape, start, *turned = about
        self.tensors -= 1
        if self.tensors < 0 or not isinstance(shape, list) or len(shape) > MOST_AXES:
            raise ValueError("more tensors, or axes, than in any right answer")
        if not all(type(n) is int and 0 <= n < 2**40 for n in (*shape, start)):
            raise ValueError("no shape")
        dtype, count, reach = DTYPES[name], math.prod(shape), math.prod(max(n, 1) for n in shape)
        self.bytes -= count * dtype.itemsize
        if reach >= 2**40 or self.bytes < 0 or start + count * dtype.itemsize > len(self.blob):
            raise ValueError("a tensor larger than what came with it")
        if count == 0:
            made = torch.empty(shape, dtype=dtype)
        elif dtype is torch.bool:  # a byte of 2 is neither True nor False
            made = (torch.frombuffer(self.blob, dtype=torch.uint8, count=count, offset=start) != 0).reshape(shape)
        else:
            made = torch.frombuffer(self.blob, dtype=dtype, count=count, offset=start).reshape(shape)
        return made.permute([turned[0].index(axis) for axis in range(len(shape))]) if turned else made


def _read(channel: socket.socket, data: bytearray, got: int, least: int, deadline: float | None) -> int:
    """Fill `data` from `got` on until it holds at least so many bytes, or what more has come; returns how many."""
    view = memoryview(data)
    while got < least:
        _wait(channel, deadline)
        try:
            n = channel.recv_into(view[got:])
        except TimeoutError:
            raise Late from None
        except OSError as error:
            raise Broken(str(error)) from None
        if n == 0:
            raise Broken("the other end is gone")
        got += n
    return got


def _wait(channel: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        channel.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise Late
    channel.settimeout(left)
