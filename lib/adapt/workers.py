"""A batch shared between threads of one core each: on a CPU two rows on a core each are done well before both rows are
on two cores together.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

IGNORE = -100  # the target of a token that the loss passes over; cross_entropy's own default


@contextlib.contextmanager
def side_by_side(workers: int) -> Iterator[Callable[..., Iterable]]:
    """A `map` that shares the work out among so many threads, of one core each."""
    if workers == 1:
        yield map
    else:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of a model, x (B, T) and targets (B, T): ()


@contextlib.contextmanager
def shared(loss_of: Loss, learning: Sequence[nn.Parameter], workers: int) -> Iterator[Loss]:
    """The same loss, but for rounding, each batch's rows shared between threads.

    loss_of: a mean over the targets that are not IGNORE. learning: what is to have gradients. The threads compute these
    too, so they are there when the loss is: `backward`, called on the loss itself, has nothing left to do.
    """
    if workers == 1:
        yield loss_of
        return
    with side_by_side(workers) as work:

        def together(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            asked = int((y != IGNORE).sum())

            def slopes(i: int) -> tuple[float, tuple[Tensor, ...]]:
                """Every so-many-th row's part of the loss, and that part's gradient by all that learns."""
                here = (y[i::workers] != IGNORE).any(0).nonzero().max() + 1  # further on these rows are filled up
                mine, targets = x[i::workers, :here], y[i::workers, :here]  # (B / workers, ≤ T) each
                loss = loss_of(model, mine, targets) * ((targets != IGNORE).sum() / asked)
                return loss.item(), torch.autograd.grad(loss, learning, materialize_grads=True)

            losses, parts = zip(*work(slopes, range(min(workers, len(x)))), strict=True)
            for p, *gradients in zip(learning, *parts, strict=True):
                p.grad = sum(gradients[1:], gradients[0])
            return torch.tensor(sum(losses), dtype=torch.float64, requires_grad=True)  # ()

        yield together
