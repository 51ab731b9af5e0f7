"""All explanations at once: headline numbers, how scores are spread, by layer, what failed, what it cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore._drawing.markup import Child, Markup, tag
from nscore._drawing.numbers import count, short
from nscore._drawing.pieces import cards, grid, section, table
from nscore._drawing.plots import Box, boxes, histogram, shares, spread
from nscore._sending.prices import dollars
from nscore._showing.gathered import Gathered, better_when_higher, defined, quantile
from nscore.intervals import high, low
from nscore.records import (
    FAILING,
    FAILURES,
    LEAST_COVERAGE,
    LOW_COVERAGE,
    N_PREDICTED,
    N_SEQUENCES,
    N_TOKENS,
    SIMULATOR,
    STATUS,
)

__all__ = ["coverage", "distributions", "headline", "layers", "prices"]

Floats = npt.NDArray[np.float64]
DRAWN = 8
"""Simulators and scores that are drawn, at most; the tables hold all."""
LAYERS = 100
ALL = "all explanations"
FLOOR = -1.0


def headline(gathered: Gathered) -> Markup:
    """How much there is, and each simulator's scores in a table."""
    scores, simulators = gathered.scores, gathered.simulators()
    tokens, predicted = (int(scores[c].sum()) if c in scores.columns else None for c in (N_TOKENS, N_PREDICTED))
    neurons = scores.select(gathered.neuron).n_unique() if gathered.neuron else scores.height
    facts = [("neurons", count(neurons)), ("rows of scores", count(scores.height))]
    facts += [("records", count(int(scores[N_SEQUENCES].sum()))), ("tokens", count(tokens))]
    if tokens and predicted is not None:
        facts.append(("coverage", f"{predicted / tokens:.1%}"))
    names = gathered.main_scores()
    leading, best = simulators[0]
    facts.append(
        (f"median {gathered.metric}{f', {leading}' if leading else ''}", short(quantile(best[gathered.metric], 0.5)))
    )
    rows = [[name or ALL, count(part.height), *(_middle(part, n) for n in names)] for name, part in simulators]
    widths = any(low(n) in scores.columns for n in names)
    caption = "Median of each score, in brackets its middle half (25% to 75%)" + (
        "; ± half the width of an explanation's interval (median)" if widths else ""
    )
    return section(
        "Scores at a glance", cards(facts), table([SIMULATOR, "rows", *names], rows, caption=caption), id_="glance"
    )


def _middle(part: pl.DataFrame, name: str) -> str:
    values = defined(part[name])
    a, b, c = (quantile(values, q) for q in (0.25, 0.5, 0.75))
    said = f"{short(b)} [{short(a)}, {short(c)}]"
    if low(name) in part.columns and high(name) in part.columns:
        half = part.select((pl.col(high(name)) - pl.col(low(name))) / 2).to_series()
        said += f" ± {short(quantile(half, 0.5))}"
    undefined = part.height - values.len()
    return said + (f" ({count(undefined)} undefined)" if undefined else "")


def distributions(gathered: Gathered) -> Markup:
    """A histogram for each score and simulator; those of one score have one axis."""
    names, simulators = gathered.main_scores()[:DRAWN], gathered.simulators()[:DRAWN]
    plots: list[Child] = []
    for name in names:
        ends = _ends(_floats(gathered.scores[name]), name)
        for i, (simulator, part) in enumerate(simulators):
            title = simulator or name
            plots.append(
                histogram(
                    _floats(part[name]),
                    f"{name} (no unit)" if _unitless(name) else name,
                    ends=ends,
                    title=title,
                    colour=i,
                )
            )
    return section(
        "Distribution of scores",
        tag(
            "p",
            "One count a row of scores. A dashed line marks the median; a grey bar at an end holds what lies beyond.",
            class_="told",
        ),
        grid(*plots),
        _left_out(gathered),
        id_="distribution",
    )


def layers(gathered: Gathered) -> Markup:
    """The scores by layer; the leading score first, the others to unfold."""
    if not gathered.neuron:
        return Markup()
    layer = gathered.neuron[0]
    n = gathered.scores[layer].n_unique()
    if n > LAYERS:
        return section(
            f"Score by {layer}", tag("p", f"{count(n)} values of {layer} are too many to draw."), id_="layers"
        )
    names = [gathered.metric, *(x for x in gathered.main_scores()[:DRAWN] if x != gathered.metric)]
    first, *others = (_by_layer(gathered, layer, name) for name in names)
    folded = [tag("details", tag("summary", name), plots) for name, plots in zip(names[1:], others, strict=True)]
    told = "Box: the middle half of explanations; line: the median; whiskers: 10% to 90%."
    return section(f"Score by {layer}", tag("p", told, class_="told"), first, *folded, id_="layers")


def _by_layer(gathered: Gathered, layer: str, name: str) -> Markup:
    spreads = [(simulator, list(_boxes(part, layer, name))) for simulator, part in gathered.simulators()[:DRAWN]]
    drawn = np.array([q for _, groups in spreads for g in groups for q in g.quantiles])
    ends = _ends(drawn, name)
    return grid(
        *(
            boxes(
                groups,
                name,
                ends=ends,
                title=simulator or name,
                across=layer,
                colour=i,
            )
            for i, (simulator, groups) in enumerate(spreads)
        )
    )


def _boxes(part: pl.DataFrame, layer: str, name: str) -> Iterator[Box]:
    value = pl.col(name).cast(pl.Float64).fill_nan(None).drop_nulls()
    at = [value.quantile(q, "linear").alias(str(q)) for q in (0.1, 0.25, 0.5, 0.75, 0.9)]
    for key, n, *quantiles in part.group_by(layer).agg(value.len().alias("n"), *at).sort(layer).iter_rows():
        if n:
            a, b, c, d, e = quantiles
            yield Box(str(key), n, (a, b, c, d, e))


def coverage(gathered: Gathered) -> Markup:
    """How much was predicted, and of what class the rest is."""
    scores = gathered.scores
    if N_PREDICTED not in scores.columns:
        return Markup()
    rows, bars = [], []
    for name, part in gathered.simulators():
        tokens, predicted = int(part[N_TOKENS].sum()), int(part[N_PREDICTED].sum())
        known = FAILURES in part.columns and part[FAILURES].null_count() < part.height
        lost = part[FAILURES].struct.unnest().sum().row(0, named=True) if known else {}
        flagged = int(part[LOW_COVERAGE].sum()) if LOW_COVERAGE in part.columns else None
        share = f"{predicted / tokens:.2%}" if tokens else short(None)
        rows.append([name or ALL, count(tokens), share, count(flagged), *(count(lost.get(c)) for c in FAILING)])
        bars.append((name or ALL, [("predicted", predicted), *((c, int(lost.get(c) or 0)) for c in FAILING)]))
    lost_columns = [i for i, c in enumerate(FAILING) if any(row[4 + i] not in {"0", short(None)} for row in rows)]
    head = [
        SIMULATOR,
        "tokens",
        "coverage",
        f"explanations below {LEAST_COVERAGE:.0%}",
        *(FAILING[i] for i in lost_columns),
    ]
    kept = [[*row[:4], *(row[4 + i] for i in lost_columns)] for row in rows]
    clean = None if lost_columns else tag("p", "No token is without a prediction.", class_="told")
    drawing = shares(bars[:DRAWN], "Tokens by what became of them") if lost_columns else None
    return section(
        "Coverage and failures",
        table(head, kept, caption="Tokens to predict, and why some were not"),
        clean,
        drawing,
        id_="coverage",
    )


def prices(gathered: Gathered) -> Markup:
    """Calls to the model by simulator and status: tokens, dollars, time. Nothing where there were none."""
    if gathered.requests is None:
        return Markup()
    schema = gathered.requests.collect_schema()
    by = [c for c in (SIMULATOR, STATUS) if c in schema]
    sums = [
        pl.col(c).sum()
        for c in ("attempts", "prompt_tokens", "completion_tokens", "cached_tokens", "price")
        if c in schema
    ]
    times = [
        pl.col("latency_s").quantile(q, "linear").alias(f"latency {q:.0%}")
        for q in (0.5, 0.95)
        if "latency_s" in schema
    ]
    calls = (
        gathered.requests.group_by(by)
        .agg(pl.len().alias("requests"), *sums, *times)
        .sort(by)
        .collect(engine="streaming")
    )
    told: list[tuple[str, str]] = [("requests", count(int(calls["requests"].sum())))]
    told += [
        (name.replace("_", " "), count(int(calls[name].sum())))
        for name in ("prompt_tokens", "completion_tokens")
        if name in calls.columns
    ]
    if "price" in calls.columns:
        known = calls["price"].drop_nulls()
        told.append(("price", dollars(float(known.sum())) if known.len() and known.sum() else "not known"))
    rows = [[_figure(name, row[name]) for name in calls.columns] for row in calls.iter_rows(named=True)]
    head = [name.replace("_", " ") + (" (s)" if name.startswith("latency") else "") for name in calls.columns]
    return section(
        "Price and tokens", cards(told), table(head, rows, caption="Requests to the model", texts=len(by)), id_="price"
    )


def _figure(name: str, value: object) -> str:
    if isinstance(value, float):
        return dollars(value) if name == "price" else short(value, 2)
    return count(value) if isinstance(value, int) else short(None) if value is None else str(value)


def _floats(scores: pl.Series) -> Floats:
    return scores.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _unitless(name: str) -> bool:
    return not name.rpartition("_only_")[2].startswith("mean_")


def _ends(values: Floats, name: str) -> tuple[float, float]:
    if better_when_higher(name):
        return spread(values, FLOOR)
    finite = values[np.isfinite(values)]
    return spread(finite[finite <= np.quantile(finite, 0.99)] if finite.size else finite)


def _left_out(gathered: Gathered) -> Markup | None:
    n_names, n_simulators = len(gathered.main_scores()), len(gathered.simulators())
    if n_names <= DRAWN and n_simulators <= DRAWN:
        return None
    return tag("p", f"Drawn are {DRAWN} of {n_names} scores and {n_simulators} simulators, at most.", class_="told")
