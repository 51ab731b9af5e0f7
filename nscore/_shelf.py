"""A shelf: named things that live one to a file, to which other packages add theirs by an entry point."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from nscore.errors import SettingError, UnknownNameError

__all__ = ["Shelf"]

Item = TypeVar("Item")


class Shelf(Generic[Item]):
    """Things by name, in the order of their registration.

    An installed package adds to the shelf `metrics` by an entry point in the group `nscore.metrics` that
    names a module; importing the module registers what it holds.
    """

    def __init__(self, kind: str, group: str) -> None:
        self._kind, self._group = kind, group
        self._items: dict[str, Item] = {}
        self._opened = False

    def add(self, name: str, item: Item) -> None:
        """Puts an item on the shelf; a name is taken once."""
        if name in self._items:
            raise ValueError(f"there is a {self._kind} called {name!r} already")
        self._items[name] = item

    def adding(self, name: str) -> Callable[[Any], Any]:
        """A decorator that adds what it is put on, unchanged."""

        def register(item: Item) -> Item:
            self.add(name, item)
            return item

        return register

    def __getitem__(self, name: str) -> Item:
        self._open()
        if name not in self._items:
            raise UnknownNameError(self._kind, name, self._items)
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._open()
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        self._open()
        return name in self._items

    def check_options(self, name: str, given: Iterable[str]) -> None:
        """Whether the factory of a name takes such options.

        Raises:
            UnknownNameError: if there is nothing of that name.
            SettingError: if it takes other options, or none.
        """
        known = inspect.signature(self[name]).parameters  # type: ignore[arg-type]  # some shelves hold no factories
        for option in given:
            if option not in known:
                others = f"it has {', '.join(known)}" if known else "it has none"
                raise SettingError(f"{option}: {name} has no such option; {others}")

    def values(self) -> list[Item]:
        """The items, in the order of their registration."""
        self._open()
        return list(self._items.values())

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            for entry in entry_points(group=self._group):
                entry.load()
