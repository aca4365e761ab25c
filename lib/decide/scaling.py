"""Scaling laws: how large a model should be for a budget, as published and as fitted here.

C is a budget of training FLOPs, N parameters, D tokens; C = 6 N D unless said otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.errors import CourseError


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient · x ** exponent."""

    coefficient: float
    exponent: float

    def __call__(self, x):
        return self.coefficient * np.asarray(x, dtype=float) ** self.exponent


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The straight line through (log x, log y), by least squares. Raises CourseError for what has no logarithm."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.size < 2 or np.unique(x).size < 2:
        raise CourseError("a power law needs at least two points with different x, and a y for each x")
    if not ((x > 0).all() and (y > 0).all() and np.isfinite(x).all() and np.isfinite(y).all()):
        raise CourseError("a power law is a line between logarithms; all x and y must be above 0")
    slope, height = np.polyfit(np.log(x), np.log(y), 1)
    return PowerLaw(float(np.exp(height)), float(slope))


@dataclass(frozen=True)
class Parabola:
    """loss = least + curve · (log N − log best)², fitted to the runs of one budget."""

    best: float
    least: float
    curve: float

    def __call__(self, n):
        return self.least + self.curve * (np.log(np.asarray(n, dtype=float)) - np.log(self.best)) ** 2


def fit_isoflop(n: Sequence[float], loss: Sequence[float]) -> Parabola:
    """The parabola in log N through the losses of one budget (Hoffmann et al. 2022, approach 2).

    Raises CourseError with fewer than three sizes, or if the losses do not curve upwards: then no size is best.
    """
    n, loss = np.asarray(n, dtype=float), np.asarray(loss, dtype=float)
    if n.shape != loss.shape or np.unique(n).size < 3:
        raise CourseError("a parabola needs at least three sizes, and a loss for each")
    if not (n > 0).all() or not np.isfinite(loss).all():
        raise CourseError("sizes must be above 0 and losses finite numbers")
    a, b, c = np.polyfit(np.log(n), loss, 2)
    if a <= 0:
        raise CourseError("these losses do not curve upwards, so no size is best; add smaller and larger sizes")
    middle = -b / (2 * a)
    return Parabola(float(np.exp(middle)), float(c - a * middle**2), float(a))


# As published


@dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 10), in nats a token.

    The coefficients are approach 3's with the digits of the paper's source, which Besiroglu et al. (2024,
    arXiv:2404.10102) point out; the rounded 0.34 and 0.28 of the text do not give the paper's own table.
    """

    E: float = 1.6934
    A: float = 406.4
    B: float = 410.7
    alpha: float = 0.3392
    beta: float = 0.2849

    def loss(self, n: float, d: float) -> float:
        return self.E + self.A / n**self.alpha + self.B / d**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) with the least loss for a budget (equation 4)."""
        a = self.beta / (self.alpha + self.beta)
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        n = g * (flops / 6) ** a
        return n, flops / 6 / n


# Hoffmann et al. 2022, tables 3 (approach 1) and A3 (approaches 2 and 3): parameters, then FLOPs and tokens.
CHINCHILLA_TABLE = {
    1: [(400e6, 1.92e19, 8.0e9), (1e9, 1.21e20, 20.2e9), (10e9, 1.23e22, 205.1e9), (67e9, 5.76e23, 1.5e12),
        (175e9, 3.85e24, 3.7e12), (280e9, 9.90e24, 5.9e12), (520e9, 3.43e25, 11.0e12), (1e12, 1.27e26, 21.2e12),
        (10e12, 1.30e28, 216.2e12)],
    2: [(400e6, 1.84e19, 7.7e9), (1e9, 1.20e20, 20.0e9), (10e9, 1.32e22, 219.5e9), (67e9, 6.88e23, 1.7e12),
        (175e9, 4.54e24, 4.3e12), (280e9, 1.18e25, 7.1e12), (520e9, 4.19e25, 13.4e12), (1e12, 1.59e26, 26.5e12),
        (10e12, 1.75e28, 292.0e12)],
    3: [(400e6, 2.21e19, 9.2e9), (1e9, 1.62e20, 27.1e9), (10e9, 2.46e22, 410.1e9), (67e9, 1.71e24, 4.1e12),
        (175e9, 1.26e25, 12.0e12), (280e9, 3.52e25, 20.1e12), (520e9, 1.36e26, 43.5e12), (1e12, 5.65e26, 94.1e12),
        (10e12, 8.55e28, 1425.5e12)],
}  # fmt: skip

# N = coefficient · C ** exponent. The paper states the exponents 0.50, 0.49 and 0.46; the coefficients, and the third
# digit, are the lines through its own tables.
OPTIMAL_SIZE = {
    approach: fit_power_law([c for _, c, _ in rows], [n for n, _, _ in rows])
    for approach, rows in CHINCHILLA_TABLE.items()
}


def chinchilla_optimum(flops: float, approach: int = 1) -> tuple[float, float]:
    """(N, D) that Chinchilla's approach 1, 2 or 3 recommends for a budget, by the line through the paper's table."""
    if approach not in OPTIMAL_SIZE:
        raise CourseError(f"Chinchilla has approaches 1, 2 and 3, not {approach!r}")
    n = float(OPTIMAL_SIZE[approach](flops))
    return n, flops / 6 / n


PF_DAY = 1e15 * 24 * 3600


@dataclass(frozen=True)
class Kaplan:
    """Kaplan et al. 2020, table 5 and 6: N without embeddings, budgets in PF-days, loss in nats a token."""

    def loss_by_size(self, n: float) -> float:
        return (8.8e13 / n) ** 0.076

    def loss_by_tokens(self, d: float) -> float:
        return (5.4e13 / d) ** 0.095

    def loss_by_compute(self, flops: float) -> float:
        return (3.1e8 / (flops / PF_DAY)) ** 0.050

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, tokens): much larger models on fewer tokens than Chinchilla's."""
        return 1.3e9 * (flops / PF_DAY) ** 0.73, 2e10 * (flops / PF_DAY) ** 0.27
