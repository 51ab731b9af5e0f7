"""A small sample of real activations with an explanation for each neuron; `NOTES.md` says how it was made."""

from __future__ import annotations

from pathlib import Path

import polars as pl

__all__ = ["EXPLANATIONS", "RECORDS", "explanations", "records"]

RECORDS = Path(__file__).parent / "records.parquet"
EXPLANATIONS = Path(__file__).parent / "explanations.parquet"


def records() -> pl.DataFrame:
    """The sample's records: 60 MLP neurons of all-MiniLM-L6-v2 with 56 records each.

    >>> records().columns
    ['layer', 'neuron', 'sequence', 'position', 'token', 'activation', 'split', 'stratum']
    """
    return pl.read_parquet(RECORDS)


def explanations() -> pl.DataFrame:
    """The sample's explanations: one for each neuron, written by reading its train records only.

    >>> explanations().columns
    ['layer', 'neuron', 'explanation_id', 'explanation', 'shown_sequences']
    """
    return pl.read_parquet(EXPLANATIONS)
