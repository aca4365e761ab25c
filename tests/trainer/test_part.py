"""Parts: each is told of every moment, in order, and may weigh the loss or end the run."""

import pytest
import torch
from tiny import SMALL, same, tiny

from lib import training
from lib.trainer.history import History
from lib.trainer.part import Part, Parts, Watch
from lib.training import TrainConfig, loop, make_optimizers

pytestmark = pytest.mark.usefixtures("one_thread")


class Told(Part):
    """Keeps what it is told."""

    def __init__(self, end: int = 0, weight: float = 1.0):
        self.heard, self.end, self.weight = [], end, weight

    def begin(self, history):
        self.heard.append("begin")

    def before(self, step):
        self.heard.append(f"before {step}")

    def weigh(self, loss):
        self.heard.append("weigh")
        return loss * self.weight

    def gradients(self, loss):
        self.heard.append("gradients")

    def after(self, done, loss, ending=False):
        self.heard.append(f"after {done}{' ending' * ending}")
        return ending or done == self.end


def run(text, *parts, look=lambda step: None, **fields):
    model, config = tiny(), TrainConfig(**SMALL | fields)

    def batches(step):
        for part in range(config.accumulate):
            yield training.corpus.batches(text, config.batch_size, config.block_size, part, step)

    history = loop(model, make_optimizers(model, config), batches, training.next_token_loss, config, History(), look,
                   parts=parts)  # fmt: skip
    return model, history


def test_a_part_is_told_of_each_moment_in_turn(text):
    first, second = Told(end=2), Told()
    looked = []
    _, history = run(text, first, second, look=looked.append, accumulate=2, eval_every=2)
    step = ["weigh", "weigh", "gradients"]
    assert first.heard == ["begin", "before 0", *step, "after 1", "before 1", *step, "after 2"]
    assert second.heard == [*first.heard[:-1], "after 2 ending"], "it hears that the run ends"
    assert looked == [0, 2] and history.step == 2


def test_a_part_that_does_nothing_changes_nothing(text):
    plain, history = run(text)
    other, again = run(text, Part(), Parts([Part(), Told()]))
    assert same(plain, other) and history.train_loss == again.train_loss and history.step == 12


def test_a_weighed_loss_is_the_one_that_is_learnt_from_and_kept(text):
    _, history = run(text, steps=1)
    _, halved = run(text, Told(weight=0.5), steps=1)
    assert halved.train_loss[0] == pytest.approx(history.train_loss[0] / 2)


def test_gradients_are_seen_before_they_are_clipped(text):
    norms = []

    class Norm(Part):
        def gradients(self, loss):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())

    model, config = tiny(), TrainConfig(**SMALL | dict(grad_clip=1e-3, steps=2))
    loop(model, make_optimizers(model, config), lambda step: [training.corpus.batches(text, 4, 8, 0, step)],
         training.next_token_loss, config, History(), parts=[Norm()])  # fmt: skip
    assert min(norms) > 0.1


def test_who_watches_is_asked_even_if_the_run_ends_anyway():
    seen = []
    watch = Watch(lambda done, loss: seen.append(done))
    assert watch.after(3, torch.tensor(1.0), ending=True) is True
    assert watch.after(4, torch.tensor(1.0)) is False and seen == [3, 4]
