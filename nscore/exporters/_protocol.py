"""What an exporter is: it knows one format of files, and turns whole neurons of nscore's tables into their bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import polars as pl

from nscore._shelf import Shelf

__all__ = ["EXPORTERS", "Exporter", "OutFile", "Part", "exporter", "make_exporter"]


class OutFile(NamedTuple):
    """A file to be written: the names of its folders and its own, each made by `safe_name`, and its bytes."""

    path: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Some neurons, whole, as one table tells of them.

    Attributes:
        table: which: `simulated`, `scores` or `judgements`.
        rows: its rows, sorted by the keys; those of `simulated` are tokens, all of which have a prediction.
        keys: of an explanation: `layer`, `neuron` and, where there is one, `explanation_id`; of judgements also `scorer`.
        sequence_scores: of `simulated`: one row a record with the original's three scores, in the order of the rows.
        scores: of `simulated`: one row an explanation with those over all its records.
        explanations: the texts of these neurons: the keys, `explanation` and what else is known of each.
        records: the tokens of these neurons, where they were given.
        left_out: what the exporter leaves out of the files, by reason; it counts here.
    """

    table: str
    rows: pl.DataFrame
    keys: list[str]
    explanations: pl.DataFrame | None
    sequence_scores: pl.DataFrame | None = None
    scores: pl.DataFrame | None = None
    records: pl.DataFrame | None = None
    left_out: Counter[str] = field(default_factory=Counter)


class Exporter(Protocol):
    """Knows one format. It is made with its options as keywords.

    Attributes:
        takes: the tables that it can write; one of them must be there.
        needs: columns that `simulated` must have for it, beside those that are scored.
        needs_texts: whether it writes nothing of explanations whose text is not known.
        several: whether the format has room for several explanations of a neuron.
    """

    takes: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]]
    needs_texts: ClassVar[bool]
    several: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name on the shelf."""

    def files(self, part: Part) -> Iterator[OutFile]:
        """The files of some neurons. Nothing about a neuron stands in two parts of one table.

        Raises:
            TableError: if a value has no place in the format.
        """


Factory = TypeVar("Factory", bound=Callable[..., Exporter])

EXPORTERS: Shelf[Callable[..., Exporter]] = Shelf("export format", "nscore.exporters")


def exporter(name: str) -> Callable[[Factory], Factory]:
    """Puts a class on the shelf under a name."""
    return EXPORTERS.adding(name)


def make_exporter(name: str, **options: object) -> Exporter:
    """An exporter by name, with its options.

    Raises:
        UnknownNameError: if the shelf has none of that name.
        SettingError: if it has no such option.
    """
    EXPORTERS.check_options(name, options)
    return EXPORTERS[name](**options)
