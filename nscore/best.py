"""The best of several explanations of a neuron, chosen on one split and told honestly on another."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from nscore._statistics.sides import sequence_scores_of
from nscore.errors import SettingError, TableError
from nscore.frames import Frame, source
from nscore.intervals import Method, high, intervals, low
from nscore.metrics import DEFAULT, MetricLike
from nscore.pool import decomposing
from nscore.records import EXPLANATION_ID, SEQUENCE, SEQUENCE_SCORES, SPLIT, Split

__all__ = ["best"]

CANDIDATES, CHOSEN_BY = "n_candidates", "chosen_by"


def best(
    sequence_scores: Frame,
    *,
    metric: MetricLike = DEFAULT[0],
    of: Sequence[str] = (EXPLANATION_ID,),
    choose_on: Split = "valid",
    report_on: Split = "test",
    method: Method = "jackknife",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    stratified: bool | None = None,
    weights: str | None = None,
) -> pl.DataFrame:
    """Chooses among a neuron's explanations the one whose score is surely highest, and scores it where nobody chose.

    Chosen is the candidate with the highest lower confidence bound on the records of one split: of two with the same
    score the one that more records speak for. The largest of several noisy numbers is too large (the winner's curse):
    what the choice is worth is told by the other split, and `{score}_drop` is what the curse came to.

    Args:
        sequence_scores: what `score_sequences` gives, with a `split`; a path to it, or the folder it lies in.
        metric: by which score, of those that decompose. Of an error the lowest upper bound is chosen.
        of: the keys that tell the candidates apart; the other keys are those of a neuron.
        choose_on: the split that is chosen on.
        report_on: the split that the score of the chosen one is told on.
        method: see `intervals`.
        level: how surely the score lies above the bound (one-sided).
        resamples: see `intervals`.
        seed: see `intervals`.
        stratified: see `intervals`.
        weights: see `pool`.

    Returns:
        One row a neuron: its keys, the chosen candidate's (`explanation_id`), `n_candidates`, `chosen_by`: `bound`, or
        `score` where no candidate has a bound, null (and no candidate) where none has a score; `{score}_{valid}` and
        `{score}_{valid}_bound` on the split that was chosen on, `{score}_{test}` with `_low` and `_high` (two-sided,
        at the same level) on the other, `{score}_drop` (the first less the second), and `{score}_{test}_mean`, the mean
        of all candidates on the other split: what choosing blindly gives. Of equals the first in the order of the
        keys is chosen.

    Raises:
        TableError: if there is no `split`, no record of one of the splits, or a key is missing.
        PoolError: if the metric does not decompose.
        SettingError: if the level is not between 0.5 and 1, or both splits are the same.

    Examples:
        >>> import nscore as ns
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 2, 2, 3, 3, 4, 4], "split": ["valid"] * 4 +
        ...                    ["test"] * 4, "activation": [0, 2, 1, 3, 0, 2, 1, 3]})
        >>> both = [df.with_columns(explanation_id=pl.lit(i), predicted=p) for i, p in
        ...         (("a", pl.col("activation") + 1.0), ("b", pl.lit(1.0)))]
        >>> found = best(ns.score_sequences(pl.concat(both)), metric="ev_correlation_score")
        >>> found.select("explanation_id", "n_candidates", "ev_correlation_score_test").row(0)
        ('a', 2, 1.0)
    """
    if not 0.5 < level < 1:
        raise SettingError(f"level: found {level}, expected a share between 0.5 and 1: a bound on one side")
    if choose_on == report_on:
        raise SettingError(f"report_on: found {report_on!r}, the split that is chosen on: its score would be too high")
    [m] = decomposing([metric])
    given = source(sequence_scores_of(sequence_scores))
    schema = given.schema()
    SEQUENCE_SCORES.check(schema, given.name, [*of, SPLIT])
    keys = schema.names()[: schema.names().index(SEQUENCE)]
    neuron, candidate = [k for k in keys if k not in of], [k for k in keys if k in of]

    def scored(split: Split, sure: float) -> pl.DataFrame:
        rows = given.collect(given.frame.filter(pl.col(SPLIT).cast(pl.String) == split))
        if rows.is_empty():
            raise TableError(
                "missing split",
                given.name,
                column=SPLIT,
                found=f"no record is in {split!r}",
                mend="Simulate and score it too, or name another with choose_on= and report_on=.",
            )
        options = {"resamples": resamples, "seed": seed}
        found = intervals(
            rows, metrics=[m], by=keys, method=method, level=sure, stratified=stratified, weights=weights, **options
        )
        return found.select(*keys, *(pl.col(c).fill_nan(None) for c in (m.name, low(m.name), high(m.name))))

    score, on = f"{m.name}_{choose_on}", f"{m.name}_{report_on}"
    bound = f"{score}_bound"
    # a two-sided interval whose one end is the bound
    chosen = scored(choose_on, 2 * level - 1).select(
        *keys, pl.col(m.name).alias(score), pl.col((low if m.higher_is_better else high)(m.name)).alias(bound)
    )
    told = scored(report_on, level).select(
        *keys, pl.col(m.name).alias(on), pl.col(low(m.name)).alias(low(on)), pl.col(high(m.name)).alias(high(on))
    )
    every = chosen.join(told, on=keys, how="full", coalesce=True, nulls_equal=True).sort(keys)
    order = every.sort(
        *neuron, bound, score, *candidate, descending=_down(m.higher_is_better, neuron, candidate), nulls_last=True
    )
    first = order.group_by(neuron, maintain_order=True).agg(
        *(pl.col(c).first() for c in (*candidate, score, bound, on, low(on), high(on))),
        pl.len().cast(pl.Int64).alias(CANDIDATES),
        pl.col(on).mean().alias(f"{on}_mean"),
    )
    by = (
        pl.when(pl.col(bound).is_not_null())
        .then(pl.lit("bound"))
        .when(pl.col(score).is_not_null())
        .then(pl.lit("score"))
    )
    known = pl.col(CHOSEN_BY).is_not_null()
    return first.with_columns(by.alias(CHOSEN_BY)).select(
        *neuron,
        *(pl.when(known).then(c).alias(c) for c in candidate),
        CANDIDATES,
        CHOSEN_BY,
        score,
        bound,
        *(pl.when(known).then(c).alias(c) for c in (on, low(on), high(on))),
        pl.when(known).then(pl.col(score) - pl.col(on)).alias(f"{m.name}_drop"),
        f"{on}_mean",
    )


def _down(higher_is_better: bool, neuron: Sequence[str], candidate: Sequence[str]) -> list[bool]:  # noqa: FBT001
    """The directions: neurons upward, the better bound and score first, then the keys upward."""
    return [*[False] * len(neuron), higher_is_better, higher_is_better, *[False] * len(candidate)]
