"""`nscore calibrate`: a simulated table in; the calibrated one and the fits out."""

from __future__ import annotations

import argparse
from typing import get_args

import polars as pl

import nscore as ns
from nscore.calibrate import N_FITTED, SLOPE, Method
from nscore.cli._common import add_by, add_json, add_output, print_json, write
from nscore.records import SPLIT, Split

__all__ = ["configure", "run"]


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
    fitted = ns.fit_calibration(
        arguments.simulated, arguments.method, fit=fit, by=arguments.by, fit_on_scored=arguments.fit_on_scored
    )
    calibrated = ns.calibrate(arguments.simulated, arguments.method, by=arguments.by, fitted=fitted)
    files = [write(calibrated, arguments.out, "simulated"), write(fitted, arguments.out, "calibration")]
    counts = {"explanations": fitted.height}
    if N_FITTED in fitted.columns:
        counts["without_rows_to_fit"] = fitted.filter(pl.col(N_FITTED) == 0).height
    if SLOPE in fitted.columns:
        counts["negative_slope"] = fitted.filter(pl.col(SLOPE) < 0).height
        counts["zero_slope"] = fitted.filter(pl.col(SLOPE) == 0).height
    if arguments.json:
        print_json({**counts, "files": files})
    else:
        print(", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items()))
        if counts.get("negative_slope"):
            print("(a negative slope turns an explanation's predictions over: its raw correlation is negative)")
        for file in files:
            print(f"wrote {file}")
    return 3 if counts.get("without_rows_to_fit") else 0
