"""What a folder holds: nscore's tables by name and, of a run, the explanations that it asked about."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from nscore._tables.stores import Place, StorePath, place
from nscore.errors import SettingError
from nscore.frames import Source, source
from nscore.records import EXPLANATION, EXPLANATION_ID, LAYER, NEURON, SIMULATOR
from nscore.run import JOURNAL, history_of

__all__ = ["tables_in", "texts_of_run"]


def tables_in(folder: str | Place, names: Iterable[str]) -> dict[str, Source]:
    """The tables of these names that lie in a folder, each as `NAME.parquet`, a file or a folder of files.

    Raises:
        SettingError: if there is no such folder.
        TableError: if one of them cannot be read.
    """
    path = place(folder)
    if not path.is_dir():
        raise SettingError(f"{path}: no folder is there. Name the folder of a run, or one that holds the tables.")
    there = {name: path / f"{name}.parquet" for name in names}
    return {n: source(file) for n, file in there.items() if file.is_file() or any(file.glob("*.parquet"))}


def texts_of_run(folder: str | Place) -> pl.DataFrame | None:
    """The explanations that a run asked about, as its journal holds them, with `simulator`; None if no run is there.

    A run's journal lies on a disk: of a run that was copied to a store they are not known.

    A control is asked about another neuron's explanation: it stands under the name of the control.

    Raises:
        JournalError: if the journal is damaged.
    """
    path = place(folder)
    if isinstance(path, StorePath) or not (path / JOURNAL).is_dir():
        return None
    history = history_of(path)
    keys = [LAYER, NEURON, SIMULATOR, EXPLANATION_ID]
    parts = []
    for index in sorted(history.planned):
        rows = pl.read_parquet(history.rows(index))
        if not {*keys, EXPLANATION} <= set(rows.columns):
            return None
        parts.append(rows.select(*keys, EXPLANATION).unique(keys, keep="first", maintain_order=True))
    return pl.concat(parts, how="vertical_relaxed") if parts else None
