"""What several commands share: the flags that mean the same, the output folder, summaries."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import polars as pl

from nscore._progress import bar
from nscore._tables.disk import make_folder, write_table
from nscore._tables.stores import Place, StorePath, place
from nscore.cli._names import names
from nscore.executors import EXECUTORS, Executor, make_executor
from nscore.intervals import Method
from nscore.records import SIMULATOR

__all__ = ["add_by", "add_intervals", "add_json", "add_output", "names", "print_json", "summarise", "write"]


def add_by(parser: argparse.ArgumentParser, default: str) -> None:
    """The flag that names the keys."""
    parser.add_argument("--by", type=names, metavar="KEYS", help=f"the keys, separated by commas (default: {default})")


def add_intervals(parser: argparse.ArgumentParser, default: Method | None = None) -> None:
    """The flags of confidence intervals."""
    parser.add_argument(
        "--intervals",
        choices=get_args(Method),
        default=default,
        help=f"the method of the confidence intervals (default: {default or 'no intervals'})",
    )
    parser.add_argument("--level", type=float, default=0.95, help="their level (default: 0.95)")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="(default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="what draws the resamples (default: 0)")


def add_executor(parser: argparse.ArgumentParser, default: str) -> None:
    """The flags that say where shards are worked on."""
    parser.add_argument("--executor", choices=list(EXECUTORS), help=f"where it is worked on (default: {default})")
    parser.add_argument("--workers", type=int, metavar="N", help="how many at a time (default: one a processor)")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of a Ray cluster (default: $RAY_ADDRESS, or this machine)"
    )


def executor_of(arguments: argparse.Namespace) -> str | Executor | None:
    """The executor that the flags name; None where they name none."""
    if arguments.address is None:
        return arguments.executor  # type: ignore[no-any-return]
    return make_executor(arguments.executor or "ray", workers=arguments.workers, address=arguments.address)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that makes the summary readable for machines."""
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def add_output(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The flag that names the output folder."""
    parser.add_argument(
        "-o",
        "--out",
        type=place,
        metavar="DIR",
        required=default is None,
        default=None if default is None else Path(default),
        help="the folder that the tables are written to, here or at s3://, gs://, az://"
        + (f" (default: {default})" if default else ""),
    )


def write(frame: pl.DataFrame | pl.LazyFrame, folder: Place, name: str, *, at_once: int | None = None) -> Place:
    """Writes a table as Parquet into a folder, durable, and whole or not at all; see `write_table`."""
    make_folder(folder)
    file = folder / f"{name}.parquet"
    with bar(name, "rows"):
        write_table(file, frame, at_once=at_once)
    return file


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
    return str(content) if isinstance(content, Path | StorePath) else content
