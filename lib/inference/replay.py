"""A step of writing, recorded once on a GPU and replayed: no Python between its kernels.

A step of a small model is hundreds of kernels of a few microseconds each. Python takes longer to ask for one than the
GPU to run it. A CUDA graph asks for all of them at once. For that they must find the same shapes in the same places at
each step: so keys and values go to a position that the GPU knows, all of the cache's buffer is looked up, written or
not, and a mask rules out what is not.
"""

import threading

import torch
from torch import Tensor

from lib.attention import Context
from lib.generation import KVCache, LayerCache
from lib.transformer import Transformer

RECORDING = threading.Lock()  # CUDA records for one thread at a time


class FixedLayer:
    """One layer's buffer at a fixed place; to a Block it is a cache."""

    def __init__(self, layer: LayerCache, at: Tensor):
        self.k, self.v, self.at = layer.k.memory, layer.v.memory, at  # (B, K, room, Dh) each, (1,)

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put (B, K, 1, Dh) keys and values at their position; return the whole buffer, (B, K, room, Dh) each."""
        self.k.index_copy_(2, self.at, k)
        self.v.index_copy_(2, self.at, v)
        return self.k, self.v


class Step:
    """The next token of each text in a cache → the residual stream after the last norm, in a buffer of fixed size.

    Without a GPU nothing is recorded, and the same is computed each time.
    """

    def __init__(self, model: Transformer, cache: KVCache, padding: Tensor | None):
        self.model, self.padding, self.graph = model, padding, None
        self.buffer = cache.layers[0].k.memory  # (B, K, room, Dh)
        self.tokens = torch.zeros(self.buffer.size(0), 1, dtype=torch.long, device=self.buffer.device)  # (B, 1)
        self.at = torch.zeros(1, dtype=torch.long, device=self.buffer.device)  # (1,): the position they stand at
        self.layers = [FixedLayer(layer, self.at) for layer in cache.layers]

    def fits(self, cache: KVCache, padding: Tensor | None) -> bool:
        """Whether this step still writes where the cache has its room."""
        return self.buffer is cache.layers[0].k.memory and self.padding is padding

    def __call__(self, tokens: Tensor, position: int) -> Tensor:
        """tokens (B, 1) at a position → (B, 1, D)."""
        self.tokens.copy_(tokens)
        self.at.fill_(position)
        if not tokens.is_cuda:
            return self.compute()
        with torch.cuda.device(self.buffer.device):  # streams and recordings are those of the current card
            if self.graph is None:
                self.record()
            self.graph.replay()
        return self.x.clone()  # (B, 1, D): the next step writes over x

    def compute(self) -> Tensor:
        model, config = self.model, self.model.config
        key = torch.arange(self.buffer.size(2), device=self.at.device)  # (room,)
        mask = key <= self.at  # (room,)
        if config.sliding_window:
            mask = mask & (key > self.at - config.sliding_window)  # (room,)
        positions = self.at  # (1,)
        if self.padding is not None:
            positions = (self.at - self.padding[:, None]).clamp_min(0)  # (B, 1)
            mask = (mask & (key >= self.padding[:, None]))[:, None, None]  # (B, 1, 1, room)
        context = Context(model.rotary(positions), mask if mask.ndim > 1 else mask[None])
        x = model.embed(self.tokens, positions)  # (B, 1, D)
        for block, layer in zip(model.blocks, self.layers, strict=True):
            x = block(x, context, layer)  # (B, 1, D)
        return model.norm(x)  # (B, 1, D)

    def record(self) -> None:
        with RECORDING:
            stream, here = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                self.compute()  # kernels are loaded, and libraries take their memory, outside the recording
                graph = torch.cuda.CUDAGraph()
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.x = self.compute()  # (B, 1, D)
                finally:
                    graph.capture_end()  # or nothing else could be recorded
            here.wait_stream(stream)
        self.graph = graph
