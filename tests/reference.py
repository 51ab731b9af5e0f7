"""What each metric is in plain numpy and in fractions, how near nscore must come to it, and tables to try it on."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import polars as pl
from hypothesis import settings
from hypothesis import strategies as st

from nscore.metrics import CATALOGUE

QUICK = settings(max_examples=15, deadline=None)
THOROUGH = settings(max_examples=30, deadline=None)

TOLERANCE = 1e-12
# What has no weight must leave no trace: neither rounding, nor a spread where the rest is constant, nor 0 / 0.
FAR_BUT_WEIGHTLESS = pl.DataFrame(
    {
        "activation": [0.1, 0.3, 0.1, -1e9, 5.0, 0.1],
        "predicted": [0.7, 0.9, 0.2, 1e12, 1e13, None],
        "w": [1, 2, 1, 0, 0, 3],
    }
)
# On columns that are nearly constant, numpy may come out exact by luck, while a score is a quotient of three sums each
# of which rounds: that much, and no more, the expression may be off where numpy is not.
SLACK = 8 * 2.0**-52


def quiet(function, *args):
    """The value of a numpy formula, which may divide by zero and say so."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*args))


def constant(x):
    return bool(x.min() == x.max())


def correlation(t, p):
    """As the original: numpy's, with 0.0 for NaN; a constant is 0.0 and not the rounding noise that numpy leaves."""
    if constant(t) or constant(p):
        return 0.0
    r = quiet(lambda: np.corrcoef(t, p)[0, 1])
    return 0.0 if math.isnan(r) else r


def pearson(t, p):
    return None if constant(t) or constant(p) else correlation(t, p)


def ranks(x):
    return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])


def cosine(t, p):
    if not t.any() or not p.any():
        return None
    # scaled first, so that numpy's own squares stay in range
    return float(t @ p / np.linalg.norm(t) / np.linalg.norm(p))


def d2_absolute_error(t, p):
    return None if constant(t) else quiet(lambda: 1 - np.abs(t - p).sum() / np.abs(t - np.median(t)).sum())


def auroc(t, p, threshold=0.0):
    active, rest = p[t > threshold], p[t <= threshold]
    if not len(active) or not len(rest):
        return None
    wins = (active[:, None] > rest).mean() + (active[:, None] == rest).mean() / 2
    return float(wins)


def average_precision(t, p, threshold=0.0):
    active = t > threshold
    if not active.any():
        return None
    score = reached = 0.0
    for level in sorted(set(p.tolist()), reverse=True):
        taken = p >= level
        recall = active[taken].sum() / active.sum()
        score += (recall - reached) * active[taken].mean()
        reached = recall
    return float(score)


# Each takes t and p without nulls, at least one token, and gives None where the metric is undefined.
NUMPY = {
    "ev_correlation_score": correlation,
    "rsquared_score": lambda t, p: quiet(lambda: 1 - np.mean((t - p) ** 2) / np.mean(t**2)),
    "absolute_dev_explained_score": lambda t, p: quiet(lambda: 1 - np.mean(np.abs(t - p)) / np.mean(np.abs(t))),
    "pearson": pearson,
    "spearman": lambda t, p: pearson(ranks(t), ranks(p)),
    "cosine": cosine,
    "r2_about_mean": lambda t, p: None if constant(t) else quiet(lambda: 1 - np.mean((t - p) ** 2) / np.var(t)),
    "d2_absolute_error": d2_absolute_error,
    "mean_squared_error": lambda t, p: float(np.mean((t - p) ** 2)),
    "mean_absolute_error": lambda t, p: float(np.mean(np.abs(t - p))),
    "auroc": auroc,
    "average_precision": average_precision,
}
BY_RANK = ["spearman", "auroc", "average_precision"]


def exact(name, t, p):
    """The metric of columns on which it is defined, as a fraction without rounding."""
    t, p = [Fraction(float(v)) for v in t], [Fraction(float(v)) for v in p]
    n = len(t)

    def spread(x, y):
        return sum(a * b for a, b in zip(x, y, strict=True)) - sum(x) * sum(y) / n

    def root(square):
        return Fraction(math.isqrt(square.numerator * 4**400 // square.denominator), 2**400)

    error = [a - b for a, b in zip(t, p, strict=True)]
    squares, sizes = sum(e * e for e in error), sum(map(abs, error))
    ordered = sorted(t)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    product = sum(a * b for a, b in zip(t, p, strict=True))
    return {
        "ev_correlation_score": lambda: (
            (1 if spread(t, p) > 0 else -1) * root(spread(t, p) ** 2 / spread(t, t) / spread(p, p))
        ),
        "rsquared_score": lambda: 1 - squares / sum(a * a for a in t),
        "absolute_dev_explained_score": lambda: 1 - sizes / sum(map(abs, t)),
        "pearson": lambda: exact("ev_correlation_score", t, p),
        "cosine": lambda: (1 if product > 0 else -1) * root(product**2 / sum(a * a for a in t) / sum(b * b for b in p)),
        "r2_about_mean": lambda: 1 - squares / spread(t, t),
        "d2_absolute_error": lambda: 1 - sizes / sum(abs(a - median) for a in t),
        "mean_squared_error": lambda: squares / n,
        "mean_absolute_error": lambda: sizes / n,
    }[name]()


def well_conditioned(x):
    """Where nscore promises numpy's digits: the spread of the column is no small part of its size, or it has none."""
    largest = np.abs(x).max()
    return constant(x) or bool(np.std(x / largest) > 1e-3)


def assert_score(name, found, t, p):
    """The score of t and p (numpy, no nulls) is the reference's, in as many digits as can be asked for."""
    expected = NUMPY[name](t, p) if len(t) else None
    what = f"{name}: found {found!r}, expected {expected!r}"
    if expected is None:
        assert found is None, what
    elif name == "ev_correlation_score" and (constant(t) or constant(p)):
        assert found == 0.0, what
    elif math.isnan(expected):
        assert math.isnan(found), what
    elif math.isinf(expected):
        assert found == expected, what
    elif name in BY_RANK or (well_conditioned(t) and well_conditioned(p)):
        assert abs(found - expected) <= TOLERANCE * max(1, abs(expected)), what
    else:
        truth = exact(name, t, p)
        slack = SLACK * max(1, abs(truth))
        assert abs(Fraction(found) - truth) <= abs(Fraction(expected) - truth) + slack, f"{what}, {float(truth)!r}"


def assert_row(row, table):
    """A row of scores, by name, is what the reference makes of the table; a column `w` says how often a row counts."""
    if "coverage" in row:
        # Polars divides by a column of one row by way of its reciprocal: the last digit may differ
        assert math.isclose(row["coverage"], table["predicted"].is_not_null().mean(), rel_tol=1e-15, abs_tol=0)
    t, p = both(table)
    for name in row.keys() & NUMPY.keys():
        assert_score(name, row[name], t, p)


def both(table):
    """t and p as numpy sees them: Float64, without the rows where either is null, repeated as `w` says."""
    rows = table.drop_nulls(["activation", "predicted"])
    often = rows["w"].to_numpy() if "w" in rows.columns else 1
    return tuple(np.repeat(rows[c].cast(pl.Float64).to_numpy(), often) for c in ("activation", "predicted"))


def expressions(names=None, weight=None):
    return [CATALOGUE[name].from_tokens(weight) for name in names or CATALOGUE]


def scores(table, names=None, weight=None):
    return table.select(expressions(names, weight)).row(0, named=True)


def _floats(dtype):
    low, high, width = (1e-100, 1e100, 64) if dtype == pl.Float64 else (2.0**-99, 2.0**99, 32)
    size = st.floats(low, high, width=width)
    return st.one_of(st.just(0.0), size, size.map(lambda x: -x), st.sampled_from([1.0, -0.0, 3.0, low, high, -high]))


@st.composite
def columns(draw, n, *, nulls=True):
    """A column of n numbers: of any scale, on one scale, sparse, whole, constant or nearly so, with nulls or without."""
    dtype = draw(st.sampled_from([pl.Float64, pl.Float64, pl.Float32, pl.Int64, pl.UInt8]))
    kind = draw(st.sampled_from(["any", "one scale", "sparse", "constant", "near"]))
    if dtype.is_integer():
        element = st.integers(0, 255) if dtype == pl.UInt8 else st.integers(-(2**40), 2**40)
        element = st.integers(0, 3) if kind == "sparse" else element
    else:
        element = _floats(dtype)
    if kind == "constant":
        values = [draw(element)] * n
    elif kind == "near":
        base = draw(element)
        steps = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
        size = draw(st.sampled_from([1e-5, 1e-7, 1e-10, 1e-13, 1e-15]))
        values = [base * (1 + k * size) for k in steps]
    elif kind == "any" or dtype.is_integer():
        values = draw(st.lists(element, min_size=n, max_size=n))
    else:
        unit = 10.0 ** draw(st.integers(-20, 20))
        tenths = st.integers(-99, 99) if kind == "one scale" else st.sampled_from([0, 0, 0, 1, 25])
        values = [unit * k / 10 for k in draw(st.lists(tenths, min_size=n, max_size=n))]
    if nulls and draw(st.booleans()):
        known = draw(st.lists(st.booleans(), min_size=n, max_size=n))
        values = [v if k else None for v, k in zip(values, known, strict=True)]
    top = 255 if dtype == pl.UInt8 else 2**41
    if dtype.is_integer():
        values = [None if v is None else min(round(v), top) for v in values]
    return pl.Series(values, dtype=dtype)


@st.composite
def tables(draw, *, min_size=0, max_size=24, nulls=True, weights=None):
    """A table of activations and predictions, which may be related; `w` holds whole weights in the range given."""
    n = draw(st.integers(min_size, max_size))
    t = draw(columns(n, nulls=nulls))
    p = draw(st.one_of(columns(n, nulls=nulls), st.sampled_from([t, t.cast(pl.Float64) / 2 + 1])))
    table = pl.DataFrame({"activation": t, "predicted": p})
    if weights is None:
        return table
    return table.with_columns(
        w=pl.Series(draw(st.lists(st.integers(*weights), min_size=n, max_size=n)), dtype=pl.Int64)
    )
