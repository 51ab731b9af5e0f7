"""`nscore calibrate`: a simulated table in; the calibrated one and the fits out."""

from __future__ import annotations

import argparse
from typing import get_args

import polars as pl

from nscore._statistics.quantiles import N_FITTED
from nscore.calibrate import SLOPE, Method, with_fits
from nscore.cli._common import add_by, add_json, add_output, print_json, write
from nscore.frames import reading, source
from nscore.records import SPLIT, Split

__all__ = ["configure", "run"]

# A percentile fit may hold hundreds of knots.
FITS_AT_ONCE = 1 << 13


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("simulated", nargs="+", metavar="SIMULATED", help="Parquet files, folders or globs")
    parser.add_argument("--method", choices=get_args(Method), default="linear", help="(default: linear)")
    add_output(parser)
    add_by(parser, "layer,neuron and, where they exist, simulator,explanation_id")
    parser.add_argument(
        "--fit-split",
        choices=get_args(Split),
        default="calibration",
        help="the split that is fitted (default: calibration)",
    )
    parser.add_argument("--fit-on-scored", action="store_true", help="allow a fit on tokens that are scored")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fits, applies, writes both tables, prints what the slopes say."""
    fit = None if arguments.fit_split == "calibration" else pl.col(SPLIT).cast(pl.String) == arguments.fit_split
    given = source(arguments.simulated)
    asked = {"fit": fit, "by": arguments.by, "fit_on_scored": arguments.fit_on_scored}
    with reading(given):
        calibrated, fits = with_fits(given, arguments.method, **asked)
        written = write(calibrated, arguments.out, "simulated")
        files = [written, write(fits, arguments.out, "calibration", at_once=FITS_AT_ONCE)]
    counts = _counts(source(files[1]).frame)
    if arguments.json:
        print_json({**counts, "files": files})
    else:
        print(", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items()))
        if counts.get("negative_slope"):
            print("(a negative slope turns an explanation's predictions over: its raw correlation is negative)")
        for file in files:
            print(f"wrote {file}")
    return 3 if counts.get("without_rows_to_fit") else 0


def _counts(fits: pl.LazyFrame) -> dict[str, int]:
    columns = fits.collect_schema()
    counts = {"explanations": pl.len()}
    if N_FITTED in columns:
        counts["without_rows_to_fit"] = (pl.col(N_FITTED) == 0).sum()
    if SLOPE in columns:
        counts |= {"negative_slope": (pl.col(SLOPE) < 0).sum(), "zero_slope": (pl.col(SLOPE) == 0).sum()}
    return {name: int(n) for name, n in fits.select(**counts).collect().row(0, named=True).items()}
