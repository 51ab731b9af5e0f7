"""What an importer is: it knows one format of files, and turns their bytes into the tables of nscore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import polars as pl

from nscore._shelf import Shelf
from nscore.importers._places import SourceFile

__all__ = ["IMPORTERS", "Importer", "Parsed", "importer", "make_importer"]

T = TypeVar("T")


@dataclass(slots=True)
class Parsed(Generic[T]):
    """What was read of a file, or of a part of one.

    Attributes:
        rows: how many rows it will be, about: tables are made of so many at a time.
        content: whatever the importer's `tables` takes; None where nothing of it is kept.
        left_out: how often something in the file was left out of the tables, by the reason in words.
    """

    rows: int
    content: T | None
    left_out: Counter[str] = field(default_factory=Counter)


class Importer(Protocol):
    """Knows one format. It is made with its options as keywords, and is small enough to be sent to workers.

    Attributes:
        makes: the names of the tables that it can make.
    """

    makes: ClassVar[tuple[str, ...]]

    @property
    def name(self) -> str:
        """The name on the shelf."""

    def wants(self, path: str) -> bool:
        """Whether a file that lies in a folder is one of its own, by its name; files named one by one are all read."""

    def parse(self, file: SourceFile) -> Iterator[Parsed[Any]]:
        """Reads one file: all of it at once where it is small, else in parts; nothing else is read but what lies beside it.

        Raises:
            SourceError: if the file is broken; `file.fault(...)` makes one.
        """

    def tables(self, parsed: Sequence[Any]) -> dict[str, pl.DataFrame]:
        """The tables of several files together, by name: `records`, `explanations`, `neurons`, `simulated`, `judgements`, ...

        Each has its keys first, and the same columns in the same dtypes whatever the files (a `layer` may be integers or
        names). A record has one `sequence`, whichever file it is in. Each record stands in one piece, its tokens in the order of their positions.
        """


Factory = TypeVar("Factory", bound=Callable[..., Importer])

IMPORTERS: Shelf[Callable[..., Importer]] = Shelf("import format", "nscore.importers")


def importer(name: str) -> Callable[[Factory], Factory]:
    """Puts a class on the shelf under a name."""
    return IMPORTERS.adding(name)


def make_importer(name: str, **options: object) -> Importer:
    """An importer by name, with its options.

    Raises:
        UnknownNameError: if the shelf has none of that name.
        SettingError: if it has no such option.
    """
    IMPORTERS.check_options(name, options)
    return IMPORTERS[name](**options)
