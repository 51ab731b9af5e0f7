"""Scores beside what chance gives: the same simulator with another neuron's explanation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from nscore._tables.fused import Floats
from nscore.errors import TableError
from nscore.frames import Frame, source
from nscore.metrics import CATALOGUE
from nscore.records import COVERAGE, N_SEQUENCES, SCORES, SIMULATOR

__all__ = ["CONTROL", "against_chance"]

CONTROL = "shuffled"
# The control whose name says no inner simulator has this one.
UNNAMED = "lexical"
ONLY = "_only_"


def against_chance(scores: Frame, *, metrics: Sequence[str] | None = None) -> pl.DataFrame:
    """Puts beside each score what its shuffled control got, and where it stands among all controls of its kind.

    The controls of a simulator X are the rows of `shuffled_X`; those of `lexical` are `shuffled` as well.

    Args:
        scores: a table of `scores` (`nscore.score`, `nscore.pool`) that holds simulators and their controls.
        metrics: which scores; every one that the table has if left out, those of one stratum included.

    Returns:
        The rows that are no controls, with three columns after each score: `{score}_chance`, the control's score for
        the same neuron and explanation; `{score}_above_chance`, the score less that; `{score}_percentile`, the share
        in percent of the simulator's controls (of all neurons) that are worse, ties counted half: 50 on average
        where an explanation says nothing. Null where the score or the control is null or NaN, or there is no control
        of the simulator.

    Raises:
        TableError: if there is no simulator, no such score, no control, or two rows of a control for one explanation.

    Examples:
        >>> scores = pl.DataFrame({"layer": 0, "neuron": [1, 2, 1, 2], "n_sequences": 5, "n_tokens": 50, "coverage": 1.0,
        ...                        "simulator": ["lexical", "lexical", "shuffled", "shuffled"],
        ...                        "pearson": [0.5, 0.1, 0.2, 0.0]}).select("layer", "neuron", "simulator", pl.all().exclude(
        ...                        "layer", "neuron", "simulator"))
        >>> against_chance(scores).select("neuron", "pearson", "pearson_chance", "pearson_percentile").rows()
        [(1, 0.5, 0.2, 100.0), (2, 0.1, 0.0, 50.0)]
    """
    given = source(scores)
    schema = given.schema()
    SCORES.check(schema, given.name, [SIMULATOR])
    there = [c for c in schema if (c if c in CATALOGUE else _whole(c)) in CATALOGUE and c != COVERAGE]
    wanted = there if metrics is None else list(metrics)
    for name in wanted:
        if name not in there:
            raise TableError(
                "no such score",
                given.name,
                column=name,
                found=f"the scores are {', '.join(there) or 'none'}",
                mend="Score with it first: nscore.score(..., metrics=[...]).",
            )
    table = given.collect(given.frame)
    keys = [c for c in table.columns[: table.columns.index(N_SEQUENCES)] if c != SIMULATOR]
    simulators = table[SIMULATOR].cast(pl.String)
    names = set(simulators.drop_nulls())
    control_of = {name: control for name in names if (control := _control(name, names)) is not None}
    if not control_of:
        raise TableError(
            "no control",
            given.name,
            column=SIMULATOR,
            found=f"found {', '.join(map(repr, sorted(names)))}, and of none of them the shuffled control",
            mend="Simulate with it as well: nscore.simulate(..., simulator=['lexical', 'shuffled']).",
        )
    controls = table.filter(simulators.is_in(set(control_of.values())))
    own = table.filter(~simulators.fill_null("").is_in([n for n in names if _is_control(n)]))
    kind = own[SIMULATOR].cast(pl.String).replace_strict(control_of, default=None, return_dtype=pl.String)
    beside = controls.select(*keys, pl.col(SIMULATOR).cast(pl.String).alias("__kind"), *wanted)
    if beside.select(*keys, "__kind").is_duplicated().any():
        raise TableError(
            "repeated row",
            given.name,
            found="a control has two rows of scores for one explanation",
            mend="Give a table in which each explanation was pooled once.",
        )
    matched = (
        own.select(keys)
        .with_columns(kind.alias("__kind"))
        .join(beside, on=[*keys, "__kind"], how="left", nulls_equal=True, maintain_order="left")
    )
    columns: list[pl.Series] = []
    for name in own.columns:
        columns.append(own[name])
        if name in wanted:
            columns += _beside(own[name], matched[name], kind, beside)
    return pl.DataFrame(columns)


def _beside(score: pl.Series, chance: pl.Series, kind: pl.Series, controls: pl.DataFrame) -> list[pl.Series]:
    name = score.name
    score, chance = (x.cast(pl.Float64).fill_nan(None) for x in (score, chance))
    values, percentile = score.fill_null(np.nan).to_numpy(), np.full(len(score), np.nan)
    sign = 1.0 if CATALOGUE[name if name in CATALOGUE else _whole(name)].higher_is_better else -1.0
    for control in kind.drop_nulls().unique():
        of_kind = controls.filter(pl.col("__kind") == control)[name].cast(pl.Float64).fill_nan(None).drop_nulls()
        here = (kind == control).fill_null(value=False).to_numpy() & ~np.isnan(values)
        if len(of_kind):
            percentile[here] = _percentiles(sign * values[here], np.sort(sign * of_kind.to_numpy()))
    return [
        chance.alias(f"{name}_chance"),
        (score - chance).fill_nan(None).alias(f"{name}_above_chance"),
        pl.Series(f"{name}_percentile", percentile).fill_nan(None),
    ]


def _percentiles(values: Floats, ordered: Floats) -> Floats:
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    share: Floats = 100 * (below + upto) / (2 * len(ordered))
    return share


def _is_control(name: str) -> bool:
    return name == CONTROL or name.startswith(f"{CONTROL}_")


def _control(name: str, names: set[str]) -> str | None:
    """The control of a simulator, if it is there."""
    if _is_control(name):
        return None
    known = [CONTROL, f"{CONTROL}_{name}"] if name == UNNAMED else [f"{CONTROL}_{name}"]
    return next((control for control in known if control in names), None)


def _whole(name: str) -> str:
    """The score of which this is that of one stratum alone."""
    return name.rpartition(ONLY)[2]
