"""The report: one page that holds everything, opens anywhere, and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from nscore._drawing.data import as_json, numbers, texts
from nscore._drawing.document import document
from nscore._drawing.markup import Markup, cut, join, tag
from nscore._drawing.numbers import count
from nscore._drawing.pieces import section
from nscore._progress import bar
from nscore._showing.chosen import Shown, choose, shown
from nscore._showing.gathered import Gathered, Given, better_when_higher, gather
from nscore._showing.overview import coverage, distributions, headline, layers, prices
from nscore._showing.portrait import UNTOLD, records_html
from nscore._tables.disk import make_folder, write_whole
from nscore._tables.stores import Place, place
from nscore.errors import SettingError
from nscore.failures import n_failed
from nscore.frames import Frame
from nscore.intervals import high, low
from nscore.metrics import MetricLike
from nscore.records import COVERAGE, EXPLANATION, FAILURES, N_SEQUENCES, N_TOKENS

__all__ = ["report"]

# What the page needs besides rows, texts and heat maps: its style, its script, the plots.
FIXED = 2_000_000
KEY, TITLE, LONGEST = 120, 200, 4000


def report(
    given: Given,
    *,
    out: str | Place = "report.html",
    scores: Frame | None = None,
    explanations: Frame | None = None,
    requests: Frame | None = None,
    by: Sequence[str] | None = None,
    metrics: Sequence[MetricLike] | str | None = None,
    splits: Sequence[str] | None = None,
    metric: str | None = None,
    title: str | None = None,
    neurons: int = 60,
    named: Sequence[str] = (),
    records: int = 3,
    tokens: int = 96,
    max_bytes: int = 24_000_000,
    seed: int = 0,
) -> Place:
    """Writes a page about a scoring: plots, a table of all explanations, and heat maps of chosen neurons.

    The page is one file without a network: its browser is told to load nothing and to run no script but its own.
    Texts of tables (tokens, explanations, names) are shown as texts, with what cannot be seen as escapes.

    Args:
        given: a run, a folder that holds tables under their names, a `simulated` table, which is scored, or one of
            `scores`, which has no records to draw.
        out: the file to write; it may be in a store.
        scores: a table of scores, where the folder has none.
        explanations: a table of explanations, where the folder has none.
        requests: a table of requests, where the folder has none.
        by: the keys of an explanation, as `score` takes them.
        metrics: as `score` takes them; of a table of scores all that it holds, if left out.
        splits: the splits that are scored and shown, as `score` takes them.
        metric: the score by which neurons are ranked; the first of the original's that is there, if left out.
        title: of the page; the name of the folder, if left out.
        neurons: how many neurons have heat maps: a third the best, a third the worst, the others at random.
        named: neurons that have heat maps besides, as `LAYER/NEURON`.
        records: of each neuron so many of the worst and of the best records.
        tokens: of a record so many tokens at most, around its highest activation.
        max_bytes: how large the file may become. What does not fit is left out, and the page says so: first texts of
            explanations are cut, then neurons have no heat maps, then rows of the table are missing.
        seed: draws the neurons at random.

    Returns:
        The path of the page.

    Raises:
        TableError: if there is neither a table of scores nor a simulated one, or no neuron of such a name.
        UnknownNameError: if there is no such score.
        SettingError: if the page cannot be so small.
        StorageError: if it cannot be written.

    Examples:
        >>> import tempfile
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 1], "position": [0, 1, 2],
        ...                    "token": ["the", " red", " fox"], "activation": [0.0, 2.0, 0.5],
        ...                    "predicted": [0.0, 1.0, 1.0]})
        >>> page = report(df, out=tempfile.mkdtemp() + "/report.html")
        >>> page.read_text("utf-8")[:15]
        '<!DOCTYPE html>'
    """
    if max_bytes < 2 * FIXED:
        raise SettingError(f"max_bytes: found {max_bytes:,}, expected {2 * FIXED:,} or more")
    room = (max_bytes - FIXED) // 3
    gathered = gather(
        given, scores=scores, explanations=explanations, requests=requests, by=by, metrics=metrics, splits=splits,
        metric=metric,
    )  # fmt: skip
    if not gathered.scores.height:
        raise SettingError(f"{gathered.name}: the table of scores has no rows, and there is nothing to report")
    chosen = choose(gathered, neurons, named, seed)
    drawn = shown(gathered, chosen, records=records, tokens=tokens, splits=splits)
    parts, n_fit = _within(room, drawn)
    rows = _Rows.of(gathered, chosen, room, seed)
    places = {key: i for i, key in enumerate(rows.table.select(gathered.keys).iter_rows())}
    held = {places[tuple(p.keys.values())]: (p, markup) for p, markup in parts if tuple(p.keys.values()) in places}
    name = title or f"Explanations of neurons: {gathered.name}"
    notes = [*rows.notes, *_notes(gathered, len(held), n_fit)]
    body = join(
        [
            tag("a", "To the table of neurons", href="#neurons", class_="skip"),
            tag("header", tag("h1", cut(name, TITLE))),
            tag(
                "main",
                headline(gathered),
                distributions(gathered),
                layers(gathered),
                _browser(notes),
                coverage(gathered),
                prices(gathered),
            ),
            *(tag("template", markup, id=f"row{place}") for place, (_, markup) in held.items()),
        ]
    )
    why = {place: p.why for place, (p, _) in held.items()}
    page = document(name, body, as_json(rows.content | {"drawn": list(held), "why": list(why.values())}))
    file = place(out)
    make_folder(file.parent)
    write_whole(file, page.encode("utf-8"))
    return file


def _within(room: int, drawn: Iterator[Shown]) -> tuple[list[tuple[Shown, Markup]], bool]:
    """As many heat maps as there is room for, in their order; whether that is all."""
    parts: list[tuple[Shown, Markup]] = []
    with bar("drawing", "explanations") as done:
        for each in drawn:
            markup = records_html(each)
            room -= len(markup.encode("utf-8"))
            if room < 0:
                return parts, False
            parts.append((each, markup))
            done(1)
    return parts, True


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of the page's table, as its script reads them, and what is missing of them in words."""

    table: pl.DataFrame
    content: dict[str, Any]
    notes: list[str]

    @classmethod
    def of(cls, gathered: Gathered, chosen: pl.DataFrame, room: int, seed: int) -> _Rows:
        table, notes = gathered.scores, list[str]()
        names = gathered.score_names()
        widths = [c for n in names for c in (n, low(n), high(n)) if c in table.columns]
        beside = [c for c in (COVERAGE, N_SEQUENCES, N_TOKENS) if c in table.columns]
        # four bytes are six characters of base64, and a text is a number as well
        size = 6 * (len(gathered.keys) + 1 + len(widths) + len(beside) + 1)
        size += sum(KEY for k in gathered.keys if not table[k].dtype.is_integer() and table[k].n_unique() > 1000)
        most = room // size
        if table.height > most:
            first = table.join(chosen, on=gathered.neuron, how="semi", nulls_equal=True).head(most)
            others = table.join(chosen, on=gathered.neuron, how="anti", nulls_equal=True)
            table = pl.concat([first, others.sample(most - first.height, seed=seed)]).sort(gathered.keys)
            notes.append(f"The table holds {count(most)} of {count(gathered.scores.height)} rows, drawn at random.")
        columns = [_key(table[k]) for k in gathered.keys]
        for n in sorted(names, key=lambda n: n != gathered.metric):
            ends = [numbers(end, table[end], role="end") for end in (low(n), high(n)) if end in table.columns]
            more = {"best": _best(n), "ends": len(ends) == 2, "shown": n in gathered.main_scores()}
            columns += [numbers(n, table[n], role="score", **more), *ends]
            if n == gathered.metric and EXPLANATION in table.columns:
                columns.append(_explanations(table[EXPLANATION], room, notes))
        columns += [numbers(c, table[c], role="count", shown=c == COVERAGE) for c in beside]
        if FAILURES in table.columns and (lost := table.select(n_failed()).to_series()).sum():
            columns.append(numbers("failed", lost, role="count", shown=True))
        content = {"n": table.height, "columns": columns, "metric": gathered.metric, "neuron": len(gathered.neuron)}
        return cls(table, content | {"up": gathered.higher_is_better, "untold": UNTOLD}, notes)


def _key(column: pl.Series) -> dict[str, Any]:
    several = column.n_unique()
    if column.dtype.is_integer() and several > 100:
        return numbers(column.name, column, role="key", shown=True)
    values = column.cast(pl.String) if not column.dtype.is_integer() else column
    return texts(column.name, values, KEY, role="key", shown=several > 1)


def _explanations(column: pl.Series, room: int, notes: list[str]) -> dict[str, Any]:
    length, longest = min(_length(column, room), LONGEST), int(column.str.len_chars().max() or 0)  # type: ignore[arg-type]
    if longest > length:
        notes.append(f"Explanations are cut to {count(length)} characters.")
    return texts(column.name, column, length, role="text", shown=True)


def _best(name: str) -> str:
    return "high" if better_when_higher(name) else "low"


def _length(column: pl.Series, room: int) -> int:
    """To how many characters texts must be cut to fit."""
    lengths = column.unique().drop_nulls().str.len_bytes()
    # a sign that is escaped takes six bytes in place of one
    total = int(lengths.sum()) + 5 * int(column.unique().drop_nulls().str.count_matches(r"[<>&\x00-\x1f]").sum())
    if total <= room:
        return int(column.str.len_chars().max() or 1)  # type: ignore[arg-type]
    return max(room // (6 * max(lengths.len(), 1)), 8)


def _notes(gathered: Gathered, n_drawn: int, n_fit: bool) -> Iterator[str]:  # noqa: FBT001  (of one caller)
    if gathered.simulated is None:
        yield "There are no heat maps: no simulated table was given."
    elif not n_fit:
        yield f"Heat maps of {count(n_drawn)} rows are in this page; more did not fit in its size."
    elif n_drawn == gathered.scores.height:
        yield "Each row has heat maps."
    else:
        yield f"Heat maps of {count(n_drawn)} rows (a blue mark) are in this page: of the best neurons, the worst, some at random, and those named."
    if EXPLANATION not in gathered.scores.columns:
        yield "The texts of the explanations are not known: no table of explanations was given."


def _browser(notes: Sequence[str]) -> Markup:
    """Where the script builds the table and shows a neuron."""
    return section(
        "Neurons",
        tag("p", " ".join(notes), class_="told"),
        tag("noscript", tag("p", "The table of neurons needs JavaScript; the rest of the page does not.")),
        tag("form", id="filters", aria_label="Filter the table"),
        tag("p", id="found", role="status", class_="told"),
        tag(
            "div", tag("div", id="table"), tag("section", id="detail", aria_label="The chosen neuron"), class_="browse"
        ),
        id_="neurons",
    )
