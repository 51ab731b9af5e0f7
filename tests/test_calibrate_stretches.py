"""A file too long to be held is calibrated stretch by stretch, and nothing of the result tells."""

from __future__ import annotations

import sys

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import nscore as ns
from nscore.cli import main

# the module: the package's attribute of this name is the function
CALIBRATE = sys.modules[ns.fit_calibration.__module__]
HELD = 50


def table(neurons=20, rows=30, seed=0):
    """Ties, nulls, a neuron without rows to fit on, one whose predictions are all equal, and one of a null key."""
    rng = np.random.default_rng(seed)
    n = neurons * rows
    frame = pl.DataFrame(
        {
            "layer": 0,
            "neuron": np.repeat(np.arange(neurons), rows),
            "sequence": np.tile(np.arange(rows) // 5, neurons),
            "split": np.tile(np.where(np.arange(rows) < 20, "calibration", "test"), neurons),
            "activation": rng.normal(size=n),
            "predicted": np.round(rng.uniform(0, 10, n)),
            "mark": np.arange(n),
        }
    )
    neuron, fitted = pl.col("neuron"), pl.col("split") == "calibration"
    return frame.with_columns(
        pl.when(pl.col("mark") % 7 == 0)
        .then(None)
        .when(neuron == 4)
        .then(3.0)
        .otherwise("predicted")
        .alias("predicted"),
        pl.when(fitted & (neuron == 9)).then(pl.lit("train")).otherwise("split").alias("split"),
        pl.when(neuron == neurons - 1).then(None).otherwise(neuron).alias("neuron"),
    )


@pytest.fixture
def stretches(monkeypatch):
    """Short stretches from here on; gives how many each look found."""
    found = []
    look = CALIBRATE._each  # noqa: SLF001  (what is too long to be held)

    def looked(given, keys):
        each = look(given, keys)
        found.append(len(each))
        return each

    def begin():
        monkeypatch.setattr(CALIBRATE, "HELD_ROWS", HELD)
        monkeypatch.setattr(CALIBRATE, "_each", looked)
        return found

    return begin


@pytest.mark.parametrize("order", ["sorted", "backwards", "scattered"])
def test_stretch_by_stretch_a_file_is_calibrated_as_it_is_at_once(order, stretches, tmp_path):
    frame = table()
    if order == "backwards":
        frame = frame.sort("neuron", descending=True, maintain_order=True)
    elif order == "scattered":
        frame = frame.sample(fraction=1.0, shuffle=True, seed=1)
    frame.write_parquet(file := tmp_path / "simulated.parquet")
    fits, whole = ns.fit_calibration(file, "percentile"), ns.calibrate(file, "percentile").collect()
    found = stretches()
    assert_frame_equal(ns.fit_calibration(file, "percentile"), fits, check_exact=True)
    assert_frame_equal(ns.calibrate(file, "percentile").collect(), whole, check_exact=True)
    assert min(found) > 5


def test_what_is_chosen_of_the_calibrated_rows_is_chosen_of_all(stretches, tmp_path):
    table().write_parquet(file := tmp_path / "simulated.parquet")
    chosen = [
        lambda frame: frame.head(77),
        lambda frame: frame.filter(pl.col("predicted") > 0.5),
        lambda frame: frame.filter(pl.col("mark") > 500).head(20),
        lambda frame: frame.select("predicted", "mark"),
        lambda frame: frame.select(pl.col("predicted").sum(), pl.len()),
    ]
    whole = [choose(ns.calibrate(file, "percentile")).collect() for choose in chosen]
    found = stretches()
    for choose, expected in zip(chosen, whole, strict=True):
        assert_frame_equal(choose(ns.calibrate(file, "percentile")).collect(), expected, rel_tol=1e-12)
    assert min(found) > 5


def test_a_table_of_fits_is_applied_stretch_by_stretch_and_written_out_the_same(stretches, tmp_path):
    table().write_parquet(file := tmp_path / "simulated.parquet")
    fits, whole = ns.fit_calibration(file, "percentile"), ns.calibrate(file, "percentile").collect()
    stretches()
    ns.calibrate(file, "percentile", fitted=fits.sample(fraction=1.0, shuffle=True, seed=2)).sink_parquet(
        out := tmp_path / "calibrated.parquet"
    )
    assert_frame_equal(pl.read_parquet(out), whole, check_exact=True)


def test_an_expression_of_ones_own_sees_all_rows(stretches, tmp_path):
    table().write_parquet(file := tmp_path / "simulated.parquet")
    fit = pl.int_range(pl.len()) < 100
    whole = ns.fit_calibration(file, "percentile", fit=fit, fit_on_scored=True)
    stretches()
    assert_frame_equal(ns.fit_calibration(file, "percentile", fit=fit, fit_on_scored=True), whole, check_exact=True)
    assert whole["n_fitted"].sum() == 100 - len(range(0, 100, 7))


def test_with_no_row_to_fit_on_in_any_stretch_it_is_an_error(stretches, tmp_path):
    table().with_columns(split=pl.lit("test")).write_parquet(file := tmp_path / "simulated.parquet")
    stretches()
    with pytest.raises(ns.CalibrationError):
        ns.fit_calibration(file, "percentile")


def test_frames_and_short_files_are_calibrated_at_once(stretches, tmp_path):
    frame = table()
    frame.head(2 * HELD).write_parquet(file := tmp_path / "simulated.parquet")
    found = stretches()
    ns.calibrate(frame, "percentile")
    ns.calibrate(file, "percentile").collect()
    assert set(found) == {0}


@pytest.mark.parametrize("order", ["sorted", "backwards", "scattered"])
def test_the_command_writes_the_same_though_it_never_holds_the_fits(order, stretches, tmp_path):
    frame = table()
    if order == "backwards":
        frame = frame.sort("neuron", descending=True, maintain_order=True)
    elif order == "scattered":
        frame = frame.sample(fraction=1.0, shuffle=True, seed=1)
    frame.write_parquet(file := tmp_path / "simulated.parquet")
    fits, whole = ns.fit_calibration(file, "percentile"), ns.calibrate(file, "percentile").collect()
    found = stretches()
    assert main(["calibrate", str(file), "--method", "percentile", "-o", str(tmp_path / "out")]) == 3
    written = pl.read_parquet(tmp_path / "out/calibration.parquet")
    assert_frame_equal(written.sort("layer", "neuron"), fits, check_exact=True)
    assert_frame_equal(pl.read_parquet(tmp_path / "out/simulated.parquet"), whole, check_exact=True)
    assert min(found) > 5
