"""How much memory a run needs, asked before it starts, and what to tell someone who has less.

A run's `config` is a lib.training.TrainConfig, a model's a lib.transformer.Config.
"""

import dataclasses
import math

import psutil
import torch

from lib.errors import CourseError
from lib.trainer.parallel import ALONE, Team
from lib.transformer import Config, Transformer


def memory(model: Config, config, team: Team = ALONE) -> int:
    """About how many bytes one process of a run needs: weights, gradients, averages, and activations kept for the way
    back. Counted per token: 11 D + 4 F in a block, 3 V at the head (PyTorch's fused attention keeps no (T, S)).

    If sharded, it holds its share of the first three, and all of what is at work: the embedding, the head and about
    two blocks with their gradients. bfloat16's copies of the weights stay whole until they have been back."""
    with torch.device("meta"):  # sizes without numbers
        sizes = Transformer(dataclasses.replace(model, n_layer=1))
    block = sum(p.numel() for p in sizes.blocks[0].parameters())
    weights = sum(p.numel() for p in sizes.parameters()) + (model.n_layer - 1) * block
    rows = -(-config.batch_size // team.size)
    width = 4 if config.precision == "float32" else 2
    blocks = model.n_layer * (11 * model.d_model + 4 * model.d_ff)
    kept = (16 if team.size == 1 else 20) * weights  # a team sends its gradients in one piece, a copy
    if team.sharded:
        kept = 16 * weights // team.size + 8 * (weights - model.n_layer * block) + 16 * block
        kept += 2 * weights if width == 2 else 0
    read = (config.accumulate + config.eval_batches) * config.batch_size * (config.block_size + 1)  # tokens, as numbers
    return kept + rows * config.block_size * (width * blocks + 12 * model.vocab_size) + 24 * read


def out_of_memory(model: Config, config, free: int | None = None, team: Team = ALONE) -> str:
    """What to tell someone whose run does not fit: the largest batch that does and takes the same steps.

    free: bytes that are there; None if unknown, after a run that failed.
    """
    need = f"a batch of {config.batch_size} rows needs about {memory(model, config, team) / 2**30:.1f} GiB"
    told = f"out of memory: {need}" if free is None else f"{need} and {free / 2**30:.1f} GiB are free"
    n = config.batch_size
    divisors = {d for k in range(1, math.isqrt(n) + 1) if n % k == 0 for d in (k, n // k)}
    for rows in sorted((d for d in divisors if team.size <= d < n), reverse=True):
        parts = config.accumulate * n // rows
        smaller = dataclasses.replace(config, batch_size=rows, accumulate=parts)
        if free is None or memory(model, smaller, team) <= free:
            sure = "is worth a try" if free is None else "fits"
            return f"{told}; --batch-size {rows} --accumulate {parts} {sure} and takes the same steps"
    cut = " or --shard" if 1 < team.size and not team.sharded else ""
    return f"{told}; not even one row fits: choose a smaller --d-model, --n-layer or --block-size{cut}"


def free_memory(device: torch.device) -> int:
    """Bytes that a run may still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def check_memory(model: Config, config, device: torch.device, team: Team = ALONE) -> None:
    """Raise CourseError, saying what would fit, if a run needs more memory than there is.

    Asked before the run: on a CPU the system would kill it without a word.
    """
    free = free_memory(device) // (1 if device.type == "cuda" else team.size)
    if memory(model, config, team) > free:
        raise CourseError(out_of_memory(model, config, free, team))
