"""A batch shared between threads: the same but for rounding, and a fault in a thread is raised."""

import pytest
import torch
from adapted import CONFIG, some_rows, tiny

from lib.adapt.finetuning import finetune, only_last
from lib.adapt.lora import add_lora
from lib.training import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("prepare", [add_lora, lambda model: only_last(model, 1), lambda model: model])
def test_threads_that_share_a_batch_change_nothing_but_rounding(prepare):
    config = TrainConfig(steps=5, batch_size=3, lr=1e-2, warmup=2)
    found = []
    for workers in (1, 2, 2, 4):
        model = prepare(tiny())
        history = finetune(model, some_rows(), config, workers=workers)
        found.append((history.train_loss, torch.cat([p.detach().flatten() for p in model.parameters()])))
    (alone, weights), (two, by_two), (again, by_two_again), (four, by_four) = found
    assert alone == pytest.approx(two, abs=1e-5) and alone == pytest.approx(four, abs=1e-5)
    assert torch.allclose(weights, by_two, atol=1e-3) and torch.allclose(weights, by_four, atol=1e-3)
    assert two == again and torch.equal(by_two, by_two_again)


def test_a_fault_in_a_thread_is_raised():
    model = add_lora(tiny())
    model.last_hidden_state = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        finetune(model, some_rows(), CONFIG, workers=2)
