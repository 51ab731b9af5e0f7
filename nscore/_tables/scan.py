"""How Polars reads files that are named one by one, here and in a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nscore._tables.stores import emulator

__all__ = ["scan", "store_options"]


def scan(files: str | Path | Sequence[str | Path], **options: Any) -> pl.LazyFrame:  # noqa: ANN401  (Polars' own)
    """The rows of Parquet files in their order, in the columns of the first one."""
    named = [str(file) for file in ([files] if isinstance(files, str | Path) else files)]
    store = store_options(named[0]) if named else None
    return pl.scan_parquet(named, glob=False, extra_columns="ignore", storage_options=store, **options)


def store_options(file: str | Path) -> dict[str, str] | None:
    """What Polars is to know of the store that a file lies in; None if it finds that in the environment."""
    host = emulator() if str(file).startswith("gs://") else None
    # not left to the environment: where google-auth is installed, Polars has it sign in before it looks there
    return {"google_base_url": host, "google_skip_signature": "true", "google_allow_http": "true"} if host else None
