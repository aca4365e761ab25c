"""What a model answers to many prompts at once, and what an answer costs."""

from collections.abc import Sequence
from itertools import takewhile

import torch

from lib.adapt.workers import side_by_side
from lib.generation import generate, left_pad
from lib.inference.decoding import Decoder
from lib.inference.text import endings
from lib.transformer import Transformer


@torch.no_grad()
def reply(
    model: Transformer,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    batch_size: int = 16,
    most: int = 40,
    workers: int = 1,
) -> list[str]:
    """What the model answers to each prompt of ids, greedily, in at most `most` tokens; like lengths go together.

    The weights, a LoRA added in, are laid out for writing (lib.inference.decoding); the model stays as it is.
    workers: threads that share the batches.
    """
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [by_length[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    ends, writer = endings(tokenizer), Decoder(model, rows=min(batch_size, len(prompts)))

    def answers(places: list[int]) -> list[str]:
        tokens, padding = left_pad([prompts[i] for i in places], device=model.embedding.weight.device)
        out = generate(writer, tokens, most, stop=ends, padding=padding)[:, tokens.size(1) :]
        said = [list(takewhile(lambda id: id not in ends, ids)) for ids in out.tolist()]
        return [tokenizer.decode(ids).strip() for ids in said]

    with side_by_side(workers) as work:
        said = [text for some in work(answers, batches) for text in some]
    return [text for _, text in sorted(zip(by_length, said, strict=True))]


def request_flops(model: Transformer, prompt: int, said: int) -> int:
    """Multiplications and additions to read a prompt of so many tokens and to write so many, with a cache.

    Two for each number of each matrix and token; the head, at each token that is written only; and attention's
    products of queries with keys, and of weights with values (Kaplan et al. 2020, section 2.1, table 1).
    """
    config = model.config
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.ndim > 1)
    tokens = prompt + said
    pairs = tokens * (tokens + 1) // 2
    attention = 4 * config.n_layer * config.n_head * config.head_dim * pairs
    return 2 * matrices * tokens + 2 * model.head.weight.numel() * said + attention
