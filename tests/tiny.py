"""A model that trains in a moment, and its run, for the tests of training and of what goes along with it."""

import torch

from lib.transformer import Config, Transformer

SIZES = dict(vocab_size=17, block_size=16, n_layer=2, n_head=2, d_model=16)
SMALL = dict(steps=12, batch_size=4, block_size=8, warmup=3, eval_every=5, eval_batches=2)


def tiny(**fields) -> Transformer:
    torch.manual_seed(0)
    return Transformer(Config.llama(**(SIZES | fields)))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
