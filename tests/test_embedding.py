"""Positions: what each kind promises."""

import math

import pytest
import torch

from lib.embedding import LearnedPositions, rotary_angles, rotate, sinusoidal
from lib.errors import CourseError


def test_sinusoidal_by_the_papers_formula():
    waves = sinusoidal(50, 8)
    assert waves.shape == (50, 8)
    for pos, i in ((0, 0), (3, 1), (49, 3)):
        angle = pos / 10000 ** (2 * i / 8)
        assert waves[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert waves[pos, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert torch.equal(sinusoidal(torch.tensor([7, 2]), 8), waves[[7, 2]])


def test_rotation_keeps_lengths_and_only_distance_counts():
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(at_q: int, at_k: int) -> float:
        turned = [rotate(x, *rotary_angles(torch.tensor([p]), 8)) for x, p in ((q, at_q), (k, at_k))]
        torch.testing.assert_close(turned[0].norm(), q.norm())
        return (turned[0] * turned[1]).sum().item()

    assert score(5, 3) == pytest.approx(score(105, 103), abs=1e-4)
    assert score(5, 3) != pytest.approx(score(5, 4), abs=1e-3)
    assert score(0, 0) == pytest.approx((q * k).sum().item(), abs=1e-5)


def test_learned_positions_are_rows():
    table = LearnedPositions(6, 4)
    assert torch.equal(table(torch.tensor([5, 1])), table.weight[[5, 1]])


def test_odd_widths_are_refused():
    with pytest.raises(CourseError, match="odd"):
        sinusoidal(3, 5)
    with pytest.raises(CourseError, match="odd"):
        rotary_angles(torch.arange(3), 7)
