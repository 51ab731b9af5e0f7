"""Scores to look at: how they are spread, the best and the worst explanations, in a notebook and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nscore._drawing.markup import Child, cut, visible
from nscore._drawing.numbers import short
from nscore._drawing.pieces import fragment, section, table
from nscore._showing.gathered import Gathered, Given, gather
from nscore._showing.overview import coverage, distributions, headline, layers
from nscore.frames import Frame
from nscore.intervals import high, low
from nscore.records import COVERAGE, EXPLANATION

__all__ = ["View", "view"]

TEXT = 90


@dataclass(frozen=True, slots=True)
class View:
    """Scores as they are shown: HTML in a notebook, text where they are printed."""

    gathered: Gathered
    rows: int

    def ends(self) -> pl.DataFrame:
        """The best and the worst rows of scores, best first, those with undefined scores left out."""
        metric, better = self.gathered.metric, self.gathered.higher_is_better
        known = self.gathered.scores.filter(pl.col(metric).cast(pl.Float64).is_finite())
        ranked = known.sort(metric, descending=better, maintain_order=True)
        n = min(self.rows, ranked.height)
        return pl.concat([ranked.head(n), ranked.tail(min(n, ranked.height - n))])

    def __str__(self) -> str:
        names = self.gathered.main_scores()
        lines = [f"{', '.join(self.gathered.keys)}; best and worst by {self.gathered.metric}"]
        for row in self.ends().iter_rows(named=True):
            key = "/".join(visible(str(row[k])) for k in self.gathered.keys)
            said = "  ".join(short(row[name]).rjust(7) for name in names)
            lines.append(f"{said}  {key}  {visible(cut(row.get(EXPLANATION) or '', TEXT))}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        gathered = self.gathered
        return fragment(
            headline(gathered), distributions(gathered), layers(gathered), coverage(gathered), ends_table(self)
        )


def view(
    given: Given,
    *,
    scores: Frame | None = None,
    explanations: Frame | None = None,
    by: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    metric: str | None = None,
    rows: int = 10,
) -> View:
    """Shows scores: headline numbers, histograms, by layer, coverage, the best and the worst.

    Args:
        given: a table of scores, as `score`, `pool` or `intervals` give it; a run or a folder that holds one, or a
            `simulated` table, which is scored.
        scores: a table of scores, where the folder has none.
        explanations: a table of explanations, whose texts are shown, where the folder has none.
        by: the keys of an explanation, as `score` takes them.
        splits: the splits that are scored, as `score` takes them.
        metric: the score by which explanations are ranked; the first of the original's that is there, if left out.
        rows: how many of the best and of the worst.

    Returns:
        What shows itself as HTML in a notebook and as text when printed.

    Raises:
        TableError: if there is neither a table of scores nor a simulated one.
        UnknownNameError: if there is no such score.

    Examples:
        >>> import nscore as ns
        >>> df = pl.DataFrame({"layer": 0, "neuron": [7, 7, 8, 8], "sequence": 1, "activation": [0.0, 1.0, 0.0, 4.0],
        ...                    "predicted": [0.0, 1.0, 1.0, 0.0]})
        >>> print(view(ns.score(df)))
        layer, neuron; best and worst by ev_correlation_score
          1.000    1.000    1.000  0/7
         -1.000   -0.062   -0.250  0/8
    """
    gathered = gather(given, scores=scores, explanations=explanations, by=by, splits=splits, metric=metric)
    return View(gathered, rows)


def ends_table(given: View) -> Child:
    """The best and the worst as a table."""
    gathered = given.gathered
    keys: Sequence[str] = gathered.keys
    names = gathered.main_scores()
    texts = [EXPLANATION] if EXPLANATION in gathered.scores.columns else []
    rows = [
        [
            "/".join(str(row[k]) for k in keys),
            *(row[EXPLANATION] or "" for _ in texts),
            *(_with_interval(row, name) for name in names),
            f"{row[COVERAGE]:.1%}" if row[COVERAGE] is not None else short(None),
        ]
        for row in given.ends().iter_rows(named=True)
    ]
    head = ["/".join(keys), *texts, *names, COVERAGE]
    return section(
        "Best and worst", table(head, rows, caption=f"By {gathered.metric}, the best first", texts=1 + len(texts))
    )


def _with_interval(row: dict[str, float | None], name: str) -> str:
    if low(name) not in row:
        return short(row[name])
    return f"{short(row[name])} [{short(row[low(name)])}, {short(row[high(name)])}]"
