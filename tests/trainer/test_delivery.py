"""A step's examples, batch by batch; from pinned memory where a GPU fetches them."""

import torch

from lib.trainer.delivery import deliver


def test_batches_in_order_and_of_each_the_rows_that_are_asked_for():
    x = torch.arange(24).view(6, 4)
    whole = list(deliver(x, -x, 3, torch.device("cpu")))
    assert [a.tolist() for a, _ in whole] == [x[:3].tolist(), x[3:].tolist()]
    assert all(torch.equal(b, -a) for a, b in whole)
    some = [a.tolist() for a, _ in deliver(x, -x, 3, torch.device("cpu"), slice(1, 3))]
    assert some == [x[1:3].tolist(), x[4:6].tolist()]


def test_for_a_gpu_the_whole_step_is_pinned_once_and_nobody_waits(monkeypatch):
    calls = []
    to = torch.Tensor.to

    def moved(self, device, non_blocking=False):
        calls.append((device.type, non_blocking, len(self)))
        return to(self, "cpu")

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append(("pinned", len(self))) or self)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    x = torch.zeros(6, 4)
    list(deliver(x, x, 3, torch.device("cuda")))
    assert calls == [("pinned", 6)] * 2 + [("cuda", True, 3)] * 4
