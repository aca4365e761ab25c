"""Muon: singular values near one, and a step by hand."""

import math

import pytest
import torch

from lib.trainer.muon import Muon

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("size", [(3, 16, 16), (2, 40, 12), (1, 8, 64)])
def test_muon_brings_singular_values_near_one(size):
    g = torch.randn(size, generator=torch.Generator().manual_seed(0))
    out = Muon.orthogonalise(g)
    assert out.shape == g.shape
    s = torch.linalg.svdvals(out)
    assert 0.6 < s.min() and s.max() < 1.3
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(out.flatten(1), (u @ v).flatten(1))  # the nearest orthogonal
    assert cosine.min() > 0.97


def test_muon_ignores_the_gradients_size_and_survives_zero():
    g = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Muon.orthogonalise(1000 * g), Muon.orthogonalise(g), atol=1e-4, rtol=1e-4)
    assert Muon.orthogonalise(torch.zeros(1, 8, 8)).abs().max() == 0


def test_a_step_of_muon_by_hand():
    gradients = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    p = torch.nn.Parameter(torch.ones(12, 4))
    optimizer = Muon([p], lr=0.1, momentum=0.9, weight_decay=0.5)
    momentum, want = torch.zeros(12, 4), torch.ones(12, 4)
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * g
        update = Muon.orthogonalise((0.1 * g + 0.9 * momentum)[None])[0]
        want = want * (1 - 0.1 * 0.5) - 0.1 * math.sqrt(3) * update
        torch.testing.assert_close(p.data, want)
