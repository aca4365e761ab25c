"""The published laws against their tables, and fits that find what was put in."""

import math

import numpy as np
import pytest

from lib.decide.scaling import (
    CHINCHILLA_TABLE,
    OPTIMAL_SIZE,
    Chinchilla,
    Kaplan,
    chinchilla_optimum,
    fit_isoflop,
    fit_power_law,
)
from lib.errors import CourseError

ROWS = [(approach, *row) for approach, rows in CHINCHILLA_TABLE.items() for row in rows]


@pytest.mark.parametrize(("approach", "n", "flops", "tokens"), ROWS)
def test_chinchillas_table(approach, n, flops, tokens):
    found_n, found_tokens = chinchilla_optimum(flops, approach)
    assert abs(found_n / n - 1) < 0.10 and abs(found_tokens / tokens - 1) < 0.10


def test_the_papers_exponents_and_its_fitted_loss():
    for approach, stated in ((1, 0.50), (2, 0.49), (3, 0.46)):
        assert abs(OPTIMAL_SIZE[approach].exponent - stated) < 0.005
    for n, flops, _ in CHINCHILLA_TABLE[3]:
        assert abs(Chinchilla().optimum(flops)[0] / n - 1) < 0.10


def test_the_optimum_is_where_the_fitted_loss_is_least():
    law = Chinchilla()
    n, d = law.optimum(1e21)
    assert math.isclose(6 * n * d, 1e21)
    assert all(law.loss(n, d) < law.loss(n * k, d / k) for k in (0.8, 0.95, 1.05, 1.25))


def test_kaplan():
    law = Kaplan()
    n, d = law.optimum(8.64e19)  # one PF-day
    assert math.isclose(n, 1.3e9) and math.isclose(d, 2e10)
    assert math.isclose(law.loss_by_size(8.8e13), 1.0) and law.loss_by_tokens(1e9) > law.loss_by_tokens(1e10)
    assert math.isclose(law.loss_by_compute(3.1e8 * 8.64e19), 1.0)
    big = 5.76e23
    assert law.optimum(big)[0] > 5 * chinchilla_optimum(big)[0], "Kaplan's model is far larger, on fewer tokens"


def test_fits_find_what_was_put_in():
    x = np.array([1e9, 1e10, 1e11])
    law = fit_power_law(x, 0.3 * x**0.47)
    assert math.isclose(law.exponent, 0.47) and math.isclose(law.coefficient, 0.3)
    n = np.array([1e4, 3e4, 1e5, 3e5])
    curve = fit_isoflop(n, 2.0 + 0.05 * (np.log(n) - np.log(4e4)) ** 2)
    assert math.isclose(curve.best, 4e4) and math.isclose(curve.least, 2.0) and math.isclose(curve(4e4), 2.0)


@pytest.mark.parametrize(
    ("fit", "x", "y", "said"),
    [(fit_power_law, [1, 1], [2, 3], "two points with different x"), (fit_power_law, [1, 2], [0, 3], "above 0"),
     (fit_power_law, [1, 2, 3], [1, 2], "a y for each x"), (fit_isoflop, [1, 2], [1, 2], "at least three sizes"),
     (fit_isoflop, [1, 2, 4], [1, 2, 1], "do not curve upwards"),
     (fit_isoflop, [1, 2, 4], [1, math.nan, 1], "finite")],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said(fit, x, y, said):
    with pytest.raises(CourseError, match=said):
        fit(x, y)
