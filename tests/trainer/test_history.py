"""What a run saw: losses that wait on their device, and a clock that goes on."""

import dataclasses

import torch

from lib.trainer.history import History


def test_losses_wait_until_they_are_fetched(monkeypatch):
    now = iter((100.0, 103.0, 107.0))
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    history = History(train_loss=[3.0], seconds=10.0)
    history.settle()
    assert history.seconds == 10.0, "the clock has not been started"
    history.start()
    for loss in (2.0, 1.0):
        history.add(torch.tensor(loss))
    assert history.train_loss == [3.0]
    history.settle()
    assert history.train_loss == [3.0, 2.0, 1.0] and history.step == 3 and history.seconds == 13.0
    history.settle()
    assert history.step == 3 and history.seconds == 17.0


def test_what_waits_is_no_part_of_a_record():
    history = History()
    history.add(torch.tensor(2.0))
    assert dataclasses.asdict(history) == dict(train_loss=[], val_steps=[], val_loss=[], tokens=0, seconds=0.0)
