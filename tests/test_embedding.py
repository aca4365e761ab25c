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


def test_rotary_angles_by_the_papers_formula():
    """theta_i = 10000^(-2i/Dh), and position p turns pair i by p theta_i (Su et al. 2021, section 3.2.2)."""
    positions = torch.tensor([[0, 1, 5], [40, 2, 1000]])
    for theta in (10000.0, 500.0):
        cos, sin = rotary_angles(positions, 6, theta) if theta != 10000 else rotary_angles(positions, 6)
        assert cos.shape == sin.shape == (2, 3, 3) and cos.dtype == sin.dtype == torch.float32
        for row, column, i in ((0, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (1, 2, 2)):
            angle = positions[row, column].item() * theta ** (-2 * i / 6)
            assert cos[row, column, i].item() == pytest.approx(math.cos(angle), abs=1e-4)
            assert sin[row, column, i].item() == pytest.approx(math.sin(angle), abs=1e-4)


def test_rotation_by_hand():
    """A quarter turn takes coordinate i to where i + Dh/2 was, whatever the axes in front."""
    x = torch.arange(1.0, 5.0).expand(2, 3, 1, 4)
    quarter = rotate(x, torch.zeros(1, 2), torch.ones(1, 2))
    assert quarter.shape == (2, 3, 1, 4) and torch.equal(quarter[1, 2, 0], torch.tensor([-3.0, -4.0, 1.0, 2.0]))
    assert torch.equal(rotate(x[0, 0], torch.zeros(1, 2), torch.ones(1, 2)), quarter[0, 0])
    assert rotate(x.bfloat16(), torch.zeros(1, 2), torch.ones(1, 2)).dtype == torch.bfloat16


def test_angles_and_waves_are_made_where_the_positions_are():
    positions = torch.arange(3, device="meta")
    assert {part.device.type for part in (*rotary_angles(positions, 4), sinusoidal(positions, 4))} == {"meta"}


def test_far_positions_are_told_apart_by_the_slow_waves():
    """Float64's own formula, at positions where a slightly other base would show."""
    far = torch.tensor([30_000, 90_001])
    angle = far[:, None].double() / 10000 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    want = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
    torch.testing.assert_close(sinusoidal(far, 8).double()[:, 4:], want[:, 4:], atol=1e-3, rtol=0)


def test_learned_positions_begin_small():
    assert LearnedPositions(1000, 64).weight.std().item() == pytest.approx(0.02, rel=0.05)  # GPT-2's


def test_learned_positions_are_rows():
    table = LearnedPositions(6, 4)
    assert torch.equal(table(torch.tensor([5, 1])), table.weight[[5, 1]])


def test_odd_widths_are_refused():
    with pytest.raises(CourseError, match="odd"):
        sinusoidal(3, 5)
    with pytest.raises(CourseError, match="odd"):
        rotary_angles(torch.arange(3), 7)


def test_angles_are_float32_whatever_torch_makes_by_default():
    """A loader that makes everything in bfloat16 must not round positions: past 256 it cannot tell neighbours."""
    positions = torch.arange(300, 304)
    want, waves = rotary_angles(positions, 8), sinusoidal(positions, 8)
    torch.set_default_dtype(torch.bfloat16)
    try:
        for got, expected in zip((*rotary_angles(positions, 8), sinusoidal(positions, 8)), (*want, waves), strict=True):
            assert got.dtype == torch.float32 and torch.equal(got, expected)
    finally:
        torch.set_default_dtype(torch.float32)
