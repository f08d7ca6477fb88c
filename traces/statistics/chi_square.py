"""Pearson's χ² test of a contingency table, with a p-value that does not underflow.

A recorded trace's p-value is far below the smallest double (its logarithm is of the order of the token count), so this
computes log p. ``scipy.special.gammaincc`` returns 0 there; the continued fraction below gives the logarithm directly.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_TINY = 1e-300
_EPSILON = 1e-15
_MOST_TERMS = 1_000_000


class ChiSquare(NamedTuple):
    """A test's result; ``log10_p`` is at most 0."""

    statistic: float
    degrees_of_freedom: int
    log10_p: float


def independence_test(table: npt.NDArray[np.int64]) -> ChiSquare | None:
    """Test whether the rows and columns of ``table [rows, columns]`` (counts ≥ 0) are independent.

    The statistic is Σ (O − E)²/E with E = row sum · column sum / total, over rows and columns that are not empty; it
    has (rows − 1)(columns − 1) degrees of freedom. ``None`` if fewer than two rows or columns are left.
    """
    used = table[np.ix_(table.sum(axis=1) > 0, table.sum(axis=0) > 0)].astype(np.float64)
    rows, columns = used.shape
    if rows < 2 or columns < 2:
        return None
    expected = np.outer(used.sum(axis=1), used.sum(axis=0)) / used.sum()
    statistic = float(np.sum((used - expected) ** 2 / expected))
    freedom = (rows - 1) * (columns - 1)
    return ChiSquare(statistic, freedom, log_survival(statistic, freedom) / math.log(10))


def log_survival(statistic: float, freedom: int) -> float:
    """Natural logarithm of P(X > ``statistic``) for a χ² variable X with ``freedom`` degrees of freedom.

    This is ln Q(a, x), the regularised upper incomplete gamma function at a = freedom/2, x = statistic/2. If x > a + 1
    it is computed by its continued fraction (NIST DLMF 8.9.2, Lentz's method), else by the series of its complement
    (8.11.4).
    """
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 0.0
    prefactor = a * math.log(x) - x - math.lgamma(a)
    if x <= a + 1:
        return math.log1p(-min(math.exp(prefactor) * _lower_series(a, x), 1.0 - _EPSILON))
    return prefactor + math.log(_upper_fraction(a, x))


def _lower_series(a: float, x: float) -> float:
    """Σ xⁿ / (a (a+1) … (a+n)): γ(a, x) over xᵃe⁻ˣ."""
    term = total = 1 / a
    for n in range(1, _MOST_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * _EPSILON:
            return total
    raise ArithmeticError(f"no convergence at a = {a}, x = {x}")


def _upper_fraction(a: float, x: float) -> float:
    """Γ(a, x) over xᵃe⁻ˣ as 1/(x+1−a− 1(1−a)/(x+3−a− 2(2−a)/(x+5−a− …)))."""
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    value = d
    for n in range(1, _MOST_TERMS):
        numerator = -n * (n - a)
        b += 2
        d = 1 / _away_from_zero(numerator * d + b)
        c = _away_from_zero(b + numerator / c)
        value *= d * c
        if abs(d * c - 1) < _EPSILON:
            return value
    raise ArithmeticError(f"no convergence at a = {a}, x = {x}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
