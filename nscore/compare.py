"""Two runs, simulators, calibrations or sets of explanations compared on the same records of the same neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nscore._statistics.alike import Records, measured
from nscore._statistics.bounds import Draws, Interval, Method, ends
from nscore._statistics.distributions import student_quantile
from nscore._statistics.sides import Side, Sides, met, sequence_scores_of
from nscore._statistics.swaps import NEAR, Difference, q_values, swap_p_values
from nscore._tables.fused import Floats, Indices
from nscore.errors import SettingError, UnknownNameError
from nscore.frames import Frame
from nscore.intervals import high, is_stratified, low
from nscore.metrics import Metric, MetricLike
from nscore.pool import decomposing, pooled_rows
from nscore.records import N_SEQUENCES, STRATUM

__all__ = ["Comparison", "compare", "difference", "q_values"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two sides compare.

    Attributes:
        neurons: one row for each neuron (or explanation) that both sides have: keys, `n_sequences`, and for each score
            `{score}_a`, `{score}_b`, `{score}_difference` (a less b), the ends of its interval
            `{score}_difference_low` and `_high`, `{score}_p_value` and `{score}_q_value`.
        summary: one row a score: `n` with a difference, `undefined`, `wins` of the first side, `losses`, `ties`,
            `clear_wins` and `clear_losses` (q-value at most 1 - level), `mean_a`, `mean_b`, `mean_difference` with the
            ends of its interval over the neurons (`mean_difference_low`, `_high`: Student's), and `spearman`, the
            agreement of the two rankings of the neurons.
        only_a: how many the second side lacks.
        only_b: how many the first side lacks.
        unmatched_records: records of common neurons of which only one side has a scored token; they take no part.
    """

    neurons: pl.DataFrame
    summary: pl.DataFrame
    only_a: int
    only_b: int
    unmatched_records: int

    def largest(self, metric: str | None = None, n: int = 10) -> pl.DataFrame:
        """The rows whose score differs most, largest first; the first score's if none is named.

        Raises:
            UnknownNameError: if the score was not compared.
        """
        there = self.summary["score"].to_list()
        name = there[0] if metric is None else metric
        if name not in there:
            raise UnknownNameError("compared score", name, there)
        order = self.neurons[difference(name)].abs().fill_nan(None)
        kept = np.flatnonzero(order.is_not_null().to_numpy())
        rows = kept[np.argsort(-order.drop_nulls().to_numpy(), kind="stable")[:n]]
        shown = [c for c in self.neurons.columns if c.startswith(name)]
        keys = self.neurons.columns[: self.neurons.columns.index(N_SEQUENCES) + 1]
        return self.neurons[rows].select(*keys, *shown)


def compare(
    a: Frame,
    b: Frame | None = None,
    *,
    simulators: tuple[str, str] | None = None,
    explanation_ids: tuple[str, str] | None = None,
    metrics: Sequence[MetricLike] | str | None = None,
    by: Sequence[str] | None = None,
    method: Method = "jackknife",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    stratified: bool | None = None,
    weights: str | None = None,
) -> Comparison:
    """Compares two sides neuron by neuron on the records that both have scored: who wins, by how much, how surely.

    The interval of a difference resamples records as `intervals` does, the same on both sides. The p-value is that of
    the test that swaps the two sides record by record (all 2^(n - 1) ways, or as many as `resamples`): exact for any
    distribution, and never below 2 / 2^n of n records, which bounds what few records can show. The q-value adjusts it
    for all neurons at once (Benjamini and Hochberg).

    Args:
        a: the first side: sequence scores, a path to them, or a folder that holds `sequence_scores.parquet`.
        b: the second; the same table if left out.
        simulators: the simulator of each side, where a table has several.
        explanation_ids: the explanation of each side.
        metrics: as in `pool`, those that decompose.
        by: what the sides are matched by; the keys of the neuron if each side has one explanation of each, else all
            keys that both tables have.
        method: see `intervals`.
        level: see `intervals`.
        resamples: see `intervals`.
        seed: see `intervals`.
        stratified: see `intervals`; strata are those of the first side.
        weights: see `pool`.

    Returns:
        A `Comparison`.

    Raises:
        TableError: if nothing is on both sides, a side has several explanations of what is compared, or they scored
            other records.
        PoolError: if a metric does not decompose.
        SettingError: if there is one table and nothing to tell two sides apart.

    Examples:
        >>> import nscore as ns
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 2, 3], "activation": 1.0, "predicted": 1.5})
        >>> worse = df.with_columns(predicted=pl.Series([3.0, 4.0, 5.0]))
        >>> found = compare(ns.score_sequences(df), ns.score_sequences(worse), metrics=["mean_absolute_error"])
        >>> found.summary.select("wins", "losses", "ties", "mean_difference").row(0)
        (1, 0, 0, -2.5)
        >>> found.neurons["mean_absolute_error_p_value"].item()
        0.25
    """
    if b is None and simulators is None and explanation_ids is None:
        raise SettingError("b: one table was given and no simulators or explanation_ids of it that are to be compared")
    wanted = Interval(method, level, resamples, seed)
    chosen = decomposing(metrics)
    strata = is_stratified(sequence_scores_of(a), stratified)
    (sim_a, sim_b), (exp_a, exp_b) = simulators or (None, None), explanation_ids or (None, None)
    extra = [c for c in (weights, STRATUM if strata else None) if c is not None]
    sides = met(Side(a, sim_a, exp_a), Side(a if b is None else b, sim_b, exp_b), by, extra)
    neurons = _neurons(sides, chosen, wanted, weights=weights, stratified=strata)
    summary = pl.DataFrame([_summary(neurons, m, level) for m in chosen], infer_schema_length=None)
    return Comparison(neurons, summary, sides.only_a, sides.only_b, sides.unmatched)


def difference(name: str) -> str:
    """The column of a score's difference."""
    return f"{name}_difference"


def _neurons(
    sides: Sides, chosen: list[Metric], wanted: Interval, *, weights: str | None, stratified: bool
) -> pl.DataFrame:
    tables = sides.a, sides.b
    of_a, of_b = (Records.of(t, sides.keys, weights=weights, stratified=stratified) for t in tables)
    free = [(-np.inf, np.inf)] * len(chosen)

    def measure(draws: Draws, places: Indices) -> Floats:
        a, b = of_a.taken(places), of_b.taken(places)
        found = ends(Difference(a, b, chosen), len(places), draws, wanted, free)
        p_values = swap_p_values(a, b, chosen, resamples=wanted.resamples, seed=wanted.seed)
        return np.concatenate([*found, p_values])

    width = 3 * len(chosen)
    found = measured(of_a, measure, width, resamples=wanted.drawn, seed=wanted.seed)
    pooled = [pooled_rows(t, sides.keys, chosen, weights) for t in tables]
    columns: list[pl.Series] = []
    for i, m in enumerate(chosen):
        x, y = (side[m.name].cast(pl.Float64).fill_nan(None) for side in pooled)
        p = pl.Series(f"{m.name}_p_value", found[2 * len(chosen) + i]).fill_nan(None)
        apart = (x - y).fill_nan(None).alias(difference(m.name))
        edges = zip((low, high), found[2 * i : 2 * i + 2], strict=True)
        columns += [x.alias(f"{m.name}_a"), y.alias(f"{m.name}_b"), apart]
        columns += [pl.Series(end(apart.name), v).fill_nan(None) for end, v in edges]
        columns += [p, q_values(p).alias(f"{m.name}_q_value")]
    return pooled[0].select(*sides.keys, N_SEQUENCES).hstack(columns)


def _summary(neurons: pl.DataFrame, m: Metric, level: float) -> dict[str, object]:
    apart = neurons[difference(m.name)]
    x, y = neurons[f"{m.name}_a"], neurons[f"{m.name}_b"]
    # what differs by rounding alone, as the correlations of two calibrations, is a tie
    tied = ((apart.abs() <= NEAR * x.abs()) | (apart == 0)).fill_null(value=False)
    better = apart if m.higher_is_better else -apart
    clear = (neurons[f"{m.name}_q_value"] <= 1 - level).fill_null(value=False)
    both = pl.DataFrame([x.alias("a"), y.alias("b")]).drop_nulls()
    finite = both.filter(pl.all_horizontal(pl.all().is_finite()))
    off = (finite["a"] - finite["b"]).to_numpy()
    mean = float(off.mean()) if len(off) else None
    reach = None
    if mean is not None and len(off) > 1:
        reach = student_quantile(level, len(off) - 1) * float(off.std(ddof=1)) / len(off) ** 0.5
    agreement = both.select(pl.corr("a", "b", method="spearman").fill_nan(None)).item() if both.height > 1 else None
    return {
        "score": m.name,
        "n": apart.drop_nulls().len(),
        "undefined": apart.null_count(),
        "wins": int(((better > 0) & ~tied).sum()),
        "losses": int(((better < 0) & ~tied).sum()),
        "ties": int(tied.sum()),
        "clear_wins": int(((better > 0) & clear & ~tied).sum()),
        "clear_losses": int(((better < 0) & clear & ~tied).sum()),
        "mean_a": finite["a"].mean(),
        "mean_b": finite["b"].mean(),
        "mean_difference": mean,
        "mean_difference_low": None if mean is None or reach is None else mean - reach,
        "mean_difference_high": None if mean is None or reach is None else mean + reach,
        "spearman": agreement,
    }
