"""What several commands share: the flags that mean the same, the output folder, tables on the terminal."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from nscore._progress import bar
from nscore.cli._names import names
from nscore.records import SIMULATOR

__all__ = ["add_by", "add_json", "add_output", "names", "print_json", "summarise", "table", "write"]


def add_by(parser: argparse.ArgumentParser, default: str) -> None:
    """The flag that names the keys."""
    parser.add_argument("--by", type=names, metavar="KEYS", help=f"the keys, separated by commas (default: {default})")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that makes the summary readable for machines."""
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def add_output(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The flag that names the output folder."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        required=default is None,
        default=None if default is None else Path(default),
        help="the folder that the tables are written to" + (f" (default: {default})" if default else ""),
    )


def write(frame: pl.DataFrame | pl.LazyFrame, folder: Path, name: str) -> Path:
    """Writes a table as Parquet into a folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file, part = folder / f"{name}.parquet", folder / f".{name}.parquet.part"
    try:
        with bar(name, "rows"):
            frame.lazy().sink_parquet(part, mkdir=False)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file


def table(frame: pl.DataFrame, *, width: int = 60) -> str:
    """A frame as plain text for the terminal."""
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=1000,
        fmt_str_lengths=width,
        float_precision=3,
        tbl_formatting="NOTHING",
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_hide_dtype_separator=True,
        tbl_cell_numeric_alignment="RIGHT",
    ):
        return "\n".join(line.rstrip() for line in str(frame).splitlines())


def summarise(scores: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """Quantiles of each score over the explanations, how many are undefined, for each simulator."""
    groups = [SIMULATOR] if SIMULATOR in scores.columns else []
    rows = []
    for key, part in scores.group_by(groups, maintain_order=True) if groups else [((), scores)]:
        for name in metrics:
            defined = part[name].cast(pl.Float64).fill_nan(None).drop_nulls()
            finite = defined.filter(defined.is_finite())
            row: dict[str, object] = dict(zip(groups, key, strict=True))
            row |= {
                "score": name,
                "n": part.height,
                "undefined": part.height - finite.len(),
                "mean": finite.mean(),
            }
            row |= {f"{q:.0%}": finite.quantile(q, "linear") for q in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)}
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def print_json(content: object) -> None:
    """JSON on stdout; what JSON has no number for (NaN, infinities) is null."""
    print(json.dumps(_plain(content), indent=2, allow_nan=False))


def _plain(content: object) -> object:
    if isinstance(content, pl.DataFrame):
        return [_plain(row) for row in content.iter_rows(named=True)]
    if isinstance(content, dict):
        return {str(k): _plain(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(v) for v in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return str(content) if isinstance(content, Path) else content
