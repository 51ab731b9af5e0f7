"""One neuron to look at: its explanations with their records as heat maps, in a notebook and on a terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nscore._drawing.markup import Markup
from nscore._drawing.pieces import fragment
from nscore._drawing.terminal import Colours
from nscore._showing.chosen import Shown, named, shown
from nscore._showing.gathered import Given, gather
from nscore._showing.portrait import portrait, portrait_lines
from nscore.errors import TableError
from nscore.frames import Frame
from nscore.records import SIMULATOR

__all__ = ["Portrait", "show"]

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Portrait:
    """A neuron's explanations as they are shown: HTML in a notebook, text where it is printed.

    Attributes:
        explanations: what there is to draw of each, the one with the best score first.
    """

    explanations: tuple[Shown, ...]

    def text(self, *, colours: Colours = "none", width: int = WIDTH) -> str:
        """As lines of a terminal: `colours` is `"none"`, `"256"` or `"truecolor"`."""
        parts = ["\n".join(portrait_lines(each, colours=colours, width=width)) for each in self.explanations]
        return "\n\n".join(parts)

    def best(self) -> Portrait:
        """The explanation with the best score alone: the first of them, as they are sorted."""
        return Portrait(self.explanations[:1])

    def as_data(self) -> list[dict[str, Any]]:
        """The same as plain values, for JSON."""
        return [dataclasses.asdict(each) for each in self.explanations]

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return fragment(*(Markup(portrait(each)) for each in self.explanations))


def show(
    given: Given,
    *neuron: object,
    scores: Frame | None = None,
    explanations: Frame | None = None,
    simulator: str | None = None,
    by: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    metric: str | None = None,
    records: int = 4,
    tokens: int = 128,
) -> Portrait:
    """Shows a neuron: each explanation of it with its worst and best records, true above predicted.

    Args:
        given: a run, a folder that holds tables under their names, or a `simulated` table.
        *neuron: its keys, by default its layer and its number in it; or all of them in one text, `"0/134"`.
        scores: a table of scores, where the folder has none; without one the simulated table is scored.
        explanations: a table of explanations, where the folder has none.
        simulator: only the predictions of this one; of all, if left out.
        by: the keys of an explanation, as `score` takes them.
        splits: the splits whose records are shown, as `score` takes them.
        metric: the score by which simulators and records are ranked.
        records: how many of the worst and of the best records.
        tokens: how many tokens of a record at most, around its highest activation.

    Returns:
        What shows itself as HTML in a notebook and as text when printed.

    Raises:
        TableError: if there is no such neuron, or its records are not in the table.
        UnknownNameError: if there is no such score.

    Examples:
        >>> import polars as pl
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 1, 2, 2], "position": [0, 1, 2, 0, 1],
        ...                    "token": ["the", " red", " fox", "a", " sky"], "activation": [0.0, 2.0, 0.5, 0.0, 0.0],
        ...                    "predicted": [0.0, 1.0, 1.0, 0.0, None]})
        >>> print(show(df, 0, 7, records=1))
        0/7
        The text is not known: no table was given, or this is a control with another neuron's explanation.
        ev_correlation_score 0.762 [-1.000 to 1.000], rsquared_score 0.706, absolute_dev_explained_score 0.400
        2 records, 5 tokens
        strongest (10): true 2.000, predicted 2.000; a dot: not known
        <BLANKLINE>
        Worst records
        <BLANKLINE>
        record 2, ev_correlation_score 0.000
              a  sky
        true  0 0
        pred. 0 .
        <BLANKLINE>
        Best records
        <BLANKLINE>
        record 1, ev_correlation_score 0.693
              the  red  fox
        true  0   10   2
        pred. 0   5    5
    """
    gathered = gather(given, scores=scores, explanations=explanations, by=by, splits=splits, metric=metric)
    name = "/".join(map(str, neuron))
    one = named(gathered, [name]).with_columns(why=None)
    found = shown(gathered, one, records=records, tokens=tokens, splits=splits)
    kept = [each for each in found if simulator is None or each.keys.get(SIMULATOR) == simulator]
    if not kept:
        of = "" if simulator is None else f" with predictions of {simulator!r}"
        raise TableError(
            "no records",
            gathered.name,
            found=f"the simulated table holds no records of {name}{of}",
            mend="Name a folder or a table that holds them.",
        )
    sign = -1 if gathered.higher_is_better else 1

    def rank(each: Shown) -> tuple[bool, float]:
        value = each.scores[gathered.metric]
        return (True, 0.0) if value is None or math.isnan(value) else (False, sign * value)

    return Portrait(tuple(sorted(kept, key=rank)))
