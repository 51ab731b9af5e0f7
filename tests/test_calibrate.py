"""Calibration against numpy; what it refuses to fit on, and what it leaves as it was."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, as_files, shuffles, simulated

import nscore as ns
from nscore.records import FAILING

CALIBRATION = pl.col("split") == "calibration"
POSITIONS = pl.int_range(pl.len()).over("explanation_id", "sequence").alias("position")
both_methods = pytest.mark.parametrize("method", ["linear", "percentile"])

# whole numbers make ties, which a simulator's scale is full of
raw = st.integers(0, 10).map(float) | st.floats(-10, 20, width=16)
activation = st.integers(0, 3).map(float) | st.floats(-5, 50, width=32)
pairs = st.lists(st.tuples(activation, raw), min_size=1, max_size=12)


def table(fitted, scored, **keys):
    """One record of (activation, predicted) in calibration, and one that is scored."""
    rows = [(1, "calibration", *pair) for pair in fitted] + [(2, "test", *pair) for pair in scored]
    schema = {"sequence": pl.Int64, "split": pl.String, "activation": pl.Float64, "predicted": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(**{k: pl.lit(v) for k, v in ({"layer": 0, "neuron": 7} | keys).items()})


def many(n=5, seed=0):
    """Several explanations, of which every second one is right about the sign."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(n):
        t = rng.normal(size=60)
        p = np.round(5 + (-1) ** i * 2 * t + rng.normal(size=60), 1)
        rows = list(zip(t.tolist(), p.tolist(), strict=True))
        parts.append(table(rows[:40], rows[40:], explanation_id=f"e{i}"))
    return pl.concat(parts).with_columns(status=pl.lit("ok"))


def close(left, right):
    assert_frame_equal(left, right, rel_tol=1e-12, abs_tol=1e-12)


@QUICK
@given(pairs, pairs)
@example([(1.0, 0.0), (3.0, 10.0)], [(9.0, 5.0)])
def test_linear_is_the_least_squares_line_of_the_activation_on_the_prediction(fitted, scored):
    t, p = np.array(fitted).T
    assume(np.ptp(p) > 1e-3)
    frame = table(fitted, scored)
    slope, intercept = np.polyfit(p, t, 1)
    fit = ns.fit_calibration(frame).row(0, named=True)
    assert fit["slope"] == pytest.approx(slope, rel=1e-8, abs=1e-8)
    assert fit["intercept"] == pytest.approx(intercept, rel=1e-8, abs=1e-8)
    assert fit["n_fitted"] == len(fitted)
    expected = slope * frame["predicted"].to_numpy() + intercept
    np.testing.assert_allclose(ns.calibrate(frame)["predicted"], expected, rtol=1e-8, atol=1e-6)


@QUICK
@given(pairs, st.lists(st.tuples(activation, raw), max_size=12))
@example([(1.0, 2.0), (5.0, 2.0), (0.0, 2.0), (9.0, 4.0)], [(0.0, v) for v in (1.0, 1.999, 2.0, 2.001, 3.0, 4.0, 5.0)])
@example([(1.0, 0.0), (2.0, 1.0), (3.0, 1.0)], [(0.0, v) for v in (-1.0, 0.0, 0.5, 1.0, 2.0)])
def test_percentile_is_numpys_interpolation_between_the_sorted_columns(fitted, scored):
    t, p = np.array(fitted).T
    assume(np.ptp(p) > 0)
    frame = table(fitted, scored)
    expected = np.interp(frame["predicted"], np.sort(p), np.sort(t))
    np.testing.assert_allclose(ns.calibrate(frame, "percentile")["predicted"], expected, rtol=1e-12, atol=1e-12)


def test_percentile_is_finite_where_two_predictions_almost_touch():
    frame = table([(0.0, 0.0), (2.0, 5e-324)], [(1.0, 0.0), (1.0, 5e-324)])
    assert np.interp([0.0, 5e-324], [0.0, 5e-324], [0.0, 2.0]).tolist() == [0.0, 2.0]
    assert ns.calibrate(frame, "percentile")["predicted"].to_list() == [0.0, 2.0, 0.0, 2.0]


@both_methods
@pytest.mark.parametrize("fitted", [[(1.0, 4.0), (2.0, 4.0), (6.0, 4.0)], [(3.0, 0.1)] * 3, [(3.0, 0.0)]])
def test_where_all_predictions_are_equal_the_calibrated_one_is_the_mean_of_the_activations(method, fitted):
    frame = table(fitted, [(9.0, value) for value in (-7.0, 0.0, 0.1, 4.0, 100.0)])
    assert ns.calibrate(frame, method)["predicted"].to_list() == [3.0] * frame.height
    assert ns.fit_calibration(frame)["slope"].item() == 0.0


@both_methods
def test_unknown_tokens_are_not_fitted_on_and_stay_unknown(method):
    frame = many(2)
    gaps = [(99.0, None), (None, 7.0), (None, None)]
    more = pl.concat([frame.drop("status"), table(gaps, gaps, explanation_id="e0")], how="diagonal")
    calibrated = ns.calibrate(more, method)
    assert_frame_equal(calibrated[: frame.height], ns.calibrate(frame.drop("status"), method), rel_tol=1e-12)
    assert ns.fit_calibration(more, method)["n_fitted"].to_list() == [40, 40]
    unknown = calibrated[frame.height :]
    assert unknown["predicted"].is_null().to_list() == [True, False, True] * 2
    assert unknown["predicted_raw"].to_list() == [None, 7.0, None] * 2


@QUICK
@given(st.integers(0, 2**32))
def test_a_positive_slope_leaves_the_correlation_and_a_negative_one_flips_it(seed):
    frame = many(4, seed)
    slopes = ns.fit_calibration(frame)["slope"].to_numpy()
    before, after = (ns.score(f)["ev_correlation_score"].to_numpy() for f in (frame, ns.calibrate(frame)))
    np.testing.assert_allclose(after, np.sign(slopes) * before, rtol=0, atol=1e-9)
    assert (np.sign(slopes) == [1, -1, 1, -1]).all()


@both_methods
def test_a_fit_on_scored_tokens_is_refused_unless_asked_for_by_name(method):
    frame = many(1)
    for call in (ns.calibrate, ns.fit_calibration):
        for rows in (pl.col("split") == "test", pl.lit(value=True), pl.col("sequence") == 2):
            with pytest.raises(
                ns.CalibrationError,
                match=r"the frame: the fit would use tokens that are scored \(the first of layer=0, neuron=7, "
                r"explanation_id='e0'\), which makes every correlation positive: .*fit_on_scored=True",
            ):
                call(frame, method, fit=rows)
    everything = ns.calibrate(frame, method, fit=pl.lit(value=True), fit_on_scored=True)
    close(
        everything, ns.calibrate(frame.with_columns(split=pl.lit("calibration")), method).with_columns(frame["split"])
    )


def test_a_fit_on_the_scored_tokens_makes_a_negative_correlation_positive():
    frame = many(2)
    fitted = ns.calibrate(frame, fit=pl.col("split") == "test", fit_on_scored=True)
    before, after = (ns.score(f)["ev_correlation_score"] for f in (frame, fitted))
    assert before[1] < 0 < after[1]
    np.testing.assert_allclose(after, before.abs(), rtol=0, atol=1e-9)


@both_methods
def test_without_a_split_nothing_is_fitted_unless_asked_for_by_name(method):
    frame = many(1).drop("split")
    with pytest.raises(ns.CalibrationError, match="no column 'split' that says which rows to fit on: assign splits"):
        ns.calibrate(frame, method)
    with pytest.raises(ns.CalibrationError, match="the fit would use tokens that are scored"):
        ns.calibrate(frame, method, fit=pl.col("sequence") == 1)
    asked = ns.calibrate(frame, method, fit=pl.col("sequence") == 1, fit_on_scored=True)
    close(asked, ns.calibrate(many(1), method).drop("split"))


@both_methods
def test_with_no_row_to_fit_on_nothing_is_calibrated(method, tmp_path):
    (file,) = as_files(tmp_path, many(2).filter(~CALIBRATION), n_files=1)
    with pytest.raises(ns.CalibrationError, match=f"^{file}: no row with a prediction is there to fit on: "):
        ns.calibrate(file, method)


@both_methods
def test_an_explanation_without_calibration_rows_gets_null_and_says_so(method):
    frame = many(3).filter(CALIBRATION.not_() | (pl.col("explanation_id") != "e1"))
    failed = pl.int_range(pl.len()).over("explanation_id") == 0
    frame = frame.with_columns(
        predicted=pl.when(~failed).then("predicted"), status=pl.when(failed).then(pl.lit("refused")).otherwise("status")
    )
    calibrated = ns.calibrate(frame, method)
    lost = calibrated.filter(explanation_id="e1")
    assert lost["predicted"].null_count() == lost.height
    assert lost["status"].to_list() == ["refused"] + ["not_calibrated"] * (lost.height - 1)
    assert lost["predicted_raw"].equals(frame.filter(explanation_id="e1")["predicted"])
    rest = frame.filter(pl.col("explanation_id") != "e1")
    close(calibrated.filter(pl.col("explanation_id") != "e1"), ns.calibrate(rest, method))
    fits = ns.fit_calibration(frame, method)
    assert fits["n_fitted"].to_list() == [39, 0, 39]
    assert fits.row(1)[-1] is None


@pytest.mark.parametrize("method", ["none", "linear", "percentile"])
@pytest.mark.parametrize("status", [s for s in FAILING if s != "not_calibrated"])
def test_a_failure_is_no_number_though_one_should_stand_beside_it(method, status):
    failed = pl.int_range(pl.len()).over("explanation_id") % 3 == 1
    words = pl.when(failed).then(pl.lit(status)).otherwise("status").alias("status")
    honest = many(2).with_columns(words, predicted=pl.when(~failed).then("predicted"))
    # a number from before the failure: as the prediction, and as what another calibration made it from
    for frame in (many(2).with_columns(words), ns.calibrate(many(2)).with_columns(words)):
        calibrated = ns.calibrate(frame, method)
        close(calibrated.drop("predicted_raw"), ns.calibrate(honest, method).drop("predicted_raw"))
        assert calibrated["predicted"].is_null().to_list() == (calibrated["status"] == status).to_list()
        close(ns.calibrate(calibrated, method), calibrated)
        close(ns.fit_calibration(frame, method), ns.fit_calibration(honest, method))


@both_methods
def test_calibrating_twice_equals_once(method):
    frame = many()
    once = ns.calibrate(frame, method)
    assert ns.calibrate(once, method).equals(once)
    other = "linear" if method == "percentile" else "percentile"
    assert ns.calibrate(ns.calibrate(frame, other), method).equals(once)
    close(ns.fit_calibration(once, method), ns.fit_calibration(frame, method))


@pytest.mark.parametrize("method", ["none", "linear", "percentile"])
def test_what_was_not_calibrated_is_ok_again_once_it_is(method):
    frame = many(2)
    first = ns.calibrate(frame, fit=CALIBRATION & (pl.col("explanation_id") == "e0"))
    assert set(first.filter(explanation_id="e1")["status"]) == {"not_calibrated"}
    assert_frame_equal(ns.calibrate(first, method), ns.calibrate(frame, method))


@pytest.mark.parametrize("method", ["none", "linear", "percentile"])
def test_a_number_whose_raw_prediction_is_not_known_is_not_calibrated(method):
    lost = pl.int_range(pl.len()).over("explanation_id") % 3 == 1
    words = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("ok")).alias("status")  # null stands for ok
    frame = ns.calibrate(many(2)).with_columns(words, predicted_raw=pl.when(~lost).then("predicted_raw"))
    calibrated = ns.calibrate(frame, method)
    assert calibrated["predicted"].is_null().equals(frame["predicted_raw"].is_null())
    for known, rows in calibrated.with_columns(was=frame["status"]).group_by(pl.col("predicted").is_not_null()):
        assert rows["status"].equals(rows["was"] if known[0] else pl.Series(["not_calibrated"] * rows.height))
    ns.validate(calibrated.with_columns(pl.col("status").fill_null("ok"), POSITIONS), "simulated")
    failures = ns.score(calibrated)["failures"].struct
    scored = frame.filter(split="test")["predicted_raw"]
    assert failures.field("not_calibrated").sum() == scored.null_count() > 0
    assert failures.field("not_run").sum() == 0


@pytest.mark.parametrize("method", ["none", "linear", "percentile"])
def test_a_table_without_status_gets_one_that_tells_what_was_lost_from_what_was_never_there(method):
    missing = pl.int_range(pl.len()).over("explanation_id") % 4 == 1
    frame = many(2).drop("status").with_columns(predicted=pl.when(~missing).then("predicted"))
    frame = frame.filter(CALIBRATION.not_() | (pl.col("explanation_id") != "e1"))
    calibrated = ns.calibrate(frame, method)
    taken = (calibrated["explanation_id"] == "e1") if method != "none" else pl.repeat(False, frame.height, eager=True)
    never = frame["predicted"].is_null()
    words = ["not_run" if n else "not_calibrated" if t else "ok" for n, t in zip(never, taken, strict=True)]
    assert calibrated["status"].cast(pl.String).to_list() == words
    ns.validate(calibrated.with_columns(POSITIONS), "simulated")
    failures = ns.score(calibrated)["failures"].struct
    e1 = calibrated.filter(pl.col("explanation_id") == "e1")["status"]
    assert failures.field("not_calibrated").to_list() == [0, (e1 == "not_calibrated").sum()]
    # it is ok again once there is a fit
    close(
        ns.calibrate(calibrated, fit=pl.lit(value=True), fit_on_scored=True).drop("status"),
        ns.calibrate(frame, fit=pl.lit(value=True), fit_on_scored=True).drop("status"),
    )


def test_what_lost_its_number_before_there_was_a_status_is_ok_once_it_has_one():
    frame = many(2).drop("status").with_columns(predicted_raw="predicted", predicted=pl.lit(None, pl.Float64))
    assert set(ns.calibrate(frame)["status"].cast(pl.String)) == {"ok"}


def test_none_keeps_the_prediction_beside_itself():
    frame = many(2)
    assert ns.calibrate(frame, "none").equals(frame.with_columns(predicted_raw=pl.col("predicted")))
    assert_frame_equal(ns.calibrate(ns.calibrate(frame), "none"), ns.calibrate(frame, "none"))


@both_methods
def test_a_table_of_fits_is_used_again(method, tmp_path):
    frame = many()
    fits = ns.fit_calibration(frame, method)
    assert fits.columns[:5] == ["layer", "neuron", "explanation_id", "method", "n_fitted"]
    close(ns.calibrate(frame, method, fitted=fits), ns.calibrate(frame, method))
    (file,) = as_files(tmp_path, fits, n_files=1)
    scored = frame.filter(~CALIBRATION)  # what was fitted on is not needed any more
    again = ns.calibrate(scored, method, fitted=pl.read_parquet(file))
    close(again, ns.calibrate(frame, method).filter(~CALIBRATION))


@both_methods
def test_several_explanations_at_once_equal_a_loop(method):
    frame = many()
    alone = [ns.calibrate(part, method) for part in frame.partition_by("explanation_id")]
    close(ns.calibrate(frame, method), pl.concat(alone))


@QUICK
@given(st.data())
@both_methods
def test_rows_stay_where_they_are(method, data):
    frame = simulated().with_columns(note=pl.int_range(pl.len()))
    shuffled = data.draw(shuffles(frame))
    calibrated = ns.calibrate(shuffled, method)
    assert calibrated.drop("predicted", "predicted_raw", "status").equals(shuffled.drop("predicted"))
    assert calibrated.columns == [*frame.columns, "predicted_raw", "status"]
    close(calibrated.sort("note"), ns.calibrate(frame, method))


@both_methods
def test_eager_lazy_and_files_agree(method, tmp_path):
    frame = many()
    eager = ns.calibrate(frame, method)
    for given_ in (frame.lazy(), as_files(tmp_path, frame), tmp_path, str(tmp_path / "part-*.parquet")):
        lazy = ns.calibrate(given_, method)
        assert isinstance(lazy, pl.LazyFrame)
        close(lazy.collect(), eager)


@both_methods
def test_a_key_may_be_null(method):
    frame = many(2)
    null = ns.calibrate(frame.with_columns(layer=pl.lit(None, dtype=pl.Int64)), method)
    close(null.drop("layer"), ns.calibrate(frame, method).drop("layer"))


def test_an_unknown_method_is_named_with_the_nearest_one():
    with pytest.raises(ns.UnknownNameError, match=r"no calibration is called 'liner'\. Did you mean 'linear'"):
        ns.calibrate(many(1), "liner")
