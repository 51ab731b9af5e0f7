"""In which words another setting or another input is refused: what it was, and what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from nscore.records import EXPLANATION_ID, POSITION, SEQUENCE

__all__ = ["rows_differ", "settings_differ"]


def rows_differ(there: pl.DataFrame, now: pl.DataFrame | None, keys: Sequence[str]) -> str:
    """The first difference between the rows of a shard as they were and as they are, in words."""
    first = ", ".join(f"{key}={there[key][0]!r}" for key in keys)
    if now is None:
        return f"the neurons from {first} on are gone."
    if there.schema != now.schema:
        was, here = ({f"{name} ({dtype})" for name, dtype in frame.schema.items()} for frame in (there, now))
        gone, new = ", ".join(sorted(was - here)) or "none", ", ".join(sorted(here - was)) or "none"
        return f"columns that are gone: {gone}; columns that are new: {new}."
    height = min(there.height, now.height)
    for before, after in zip(there.iter_slices(4096), now.iter_slices(4096), strict=False):
        n = min(before.height, after.height)
        other = [before[c][:n].ne_missing(after[c][:n]).arg_true() for c in before.columns]
        if found := [(int(rows[0]), c) for rows, c in zip(other, before.columns, strict=True) if len(rows)]:
            row, column = min(found, key=lambda each: each[0])
            named = [*keys, *(c for c in (EXPLANATION_ID, SEQUENCE, POSITION) if c in before.columns)]
            where = ", ".join(f"{c}={before[c][row]!r}" for c in named)
            return f"at {where} the {column} was {before[column][row]!r}, and is {after[column][row]!r}."
    if there.height != now.height:
        return f"from {first} on there were {there.height:,} rows, and are {now.height:,}."
    return f"of the {height:,} rows from {first} on other requests are made, by another version of nscore or a plugin."


def settings_differ(name: str, there: object, wanted: object) -> list[str]:
    """Each setting that is another, in words."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        return [
            d
            for key in sorted({*there, *wanted})
            if there.get(key) != wanted.get(key)
            for d in settings_differ(f"{name}.{key}", there.get(key), wanted.get(key))
        ]
    if isinstance(there, list) and isinstance(wanted, list) and len(there) == len(wanted):
        pairs = enumerate(zip(there, wanted, strict=True))
        return [d for i, (a, b) in pairs if a != b for d in settings_differ(f"{name}[{i}]", a, b)]
    return [f"{name}: the run has {json.dumps(there)}, now {json.dumps(wanted)}"]
