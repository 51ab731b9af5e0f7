"""One explanation of a neuron in full, as HTML and as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nscore._drawing.heat import Record, legend, record_html
from nscore._drawing.markup import Markup, tag, visible
from nscore._drawing.numbers import count, short
from nscore._drawing.pieces import table
from nscore._drawing.plots import calibration
from nscore._drawing.terminal import Colours, record_lines
from nscore._showing.chosen import Shown
from nscore.intervals import high, low
from nscore.records import N_SEQUENCES, N_TOKENS

__all__ = ["UNTOLD", "portrait", "portrait_lines", "records_html"]

UNTOLD = "The text is not known: no table was given, or this is a control with another neuron's explanation."


def portrait(shown: Shown) -> Markup:
    """Its keys, text and scores, then its records."""
    return tag(
        "article",
        tag("h3", shown.name),
        tag("blockquote", shown.explanation or UNTOLD),
        tag("p", _counts(shown), class_="told"),
        scores_table(shown),
        records_html(shown),
        class_="neuron",
    )


def scores_table(shown: Shown) -> Markup:
    """Its scores, each with its interval where there is one."""
    ends = [(low(name), high(name)) for name in shown.scores]
    intervals = any(a in shown.intervals for a, _ in ends)
    rows = [
        [name, short(value), *([_interval(shown, name) or short(None)] if intervals else [])]
        for name, value in shown.scores.items()
    ]
    return table(["score", "value", *(["interval"] if intervals else [])], rows, caption="Scores")


def records_html(shown: Shown) -> Markup:
    """Its records as heat maps, the worst first, beside how well it is calibrated."""
    return tag(
        "div",
        tag("div", calibration(shown.bins, shared=shown.scales.shared), class_="aside"),
        tag(
            "div",
            legend(shown.scales),
            tag("p", "Records in which nothing happens are left aside where there are enough others.", class_="told"),
            _group("Worst records", shown.worst, shown),
            _group("Best records", shown.best, shown),
            class_="records",
        ),
        class_="drawn",
    )


def _group(title: str, records: Sequence[Record], shown: Shown) -> Markup | None:
    return tag("div", tag("h4", title), *(record_html(r, shown.scales) for r in records)) if records else None


def portrait_lines(shown: Shown, *, colours: Colours, width: int) -> Iterator[str]:
    """The same for a terminal."""
    yield visible(shown.name) + (f" ({shown.why})" if shown.why else "")
    yield visible(shown.explanation or UNTOLD)
    yield ", ".join(f"{visible(name)} {short(value)}{_bracket(shown, name)}" for name, value in shown.scores.items())
    yield _counts(shown)
    yield scales_line(shown)
    for title, records in ("Worst records", shown.worst), ("Best records", shown.best):
        if records:
            yield f"\n{title}"
        for record in records:
            yield ""
            yield from record_lines(record, shown.scales, colours=colours, width=width)


def scales_line(shown: Shown) -> str:
    """What the strongest colour, or the digit 10, means."""
    a, b = shown.scales.activation.value, shown.scales.predicted.value
    return f"strongest (10): true {short(a)}, predicted {short(b)}; a dot: not known"


def _counts(shown: Shown) -> str:
    return f"{count(shown.counts[N_SEQUENCES])} records, {count(shown.counts[N_TOKENS])} tokens"


def _interval(shown: Shown, name: str) -> str | None:
    bounds = shown.intervals.get(low(name)), shown.intervals.get(high(name))
    return None if None in bounds else f"{short(bounds[0])} to {short(bounds[1])}"


def _bracket(shown: Shown, name: str) -> str:
    return "" if (interval := _interval(shown, name)) is None else f" [{interval}]"
