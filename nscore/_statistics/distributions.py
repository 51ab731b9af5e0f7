"""The normal distribution and Student's, as far as intervals and p-values need them."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from nscore._tables.fused import Floats

__all__ = ["normal_cdf", "normal_quantile", "student_quantile", "student_two_sided"]

# Terms of the continued fraction: it has converged long before, whatever the degrees of freedom.
TERMS = 300


def normal_cdf(z: Floats) -> Floats:
    """P(Z <= z)."""
    return 0.5 * np.asarray(_ERFC(-z / math.sqrt(2)), np.float64)


def normal_quantile(p: Floats) -> Floats:
    """The z for which P(Z <= z) = p, each p strictly between 0 and 1."""
    distinct, place = np.unique(p, return_inverse=True)
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(x)) for x in distinct], np.float64)[place].reshape(p.shape)


def student_two_sided(t: Floats, degrees: int) -> Floats:
    """P(|T| >= |t|) of Student's distribution; NaN where t is.

    The regularised incomplete beta function I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2).
    """
    square = np.asarray(t, np.float64) ** 2
    a, b = degrees / 2, 0.5
    x = degrees / (degrees + square)
    with np.errstate(all="ignore"):
        rest = np.where(np.isinf(square), 1.0, square / (degrees + square))
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    with np.errstate(all="ignore"):
        scale = np.exp(front + a * np.log(x) + b * np.log(rest))
        # each of the two converges where the other is slow
        low = scale * _fraction(a, b, x) / a
        high = 1 - scale * _fraction(b, a, rest) / b
    p = np.where(x < (a + 1) / (a + b + 2), low, high)
    return np.where(np.isnan(square), np.nan, np.where(x == 0, 0.0, np.where(rest == 0, 1.0, p)))


@lru_cache(maxsize=1024)
def student_quantile(level: float, degrees: int) -> float:
    """The t that |T| stays below with probability `level`.

    >>> round(student_quantile(0.95, 9), 6)
    2.262157
    """
    low, high = 0.0, 1.0
    while student_two_sided(np.array(high), degrees) > 1 - level:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        if student_two_sided(np.array(middle), degrees) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def _fraction(a: float, b: float, x: Floats) -> Floats:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c = np.ones_like(x)
    d = 1 - (a + b) * x / (a + 1)
    d = 1 / np.where(np.abs(d) < tiny, tiny, d)
    result = d.copy()
    for m in range(1, TERMS):
        change = np.ones_like(x)
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 + term * d, 1 + term / c
            d, c = 1 / np.where(np.abs(d) < tiny, tiny, d), np.where(np.abs(c) < tiny, tiny, c)
            change = change * d * c
        result = result * change
        if not (np.abs(change - 1) > 1e-15).any():
            break
    return result


_ERFC = np.frompyfunc(math.erfc, 1, 1)
