"""Published scores are computed again; each way in which they are known to differ is made here on purpose, and found."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reference import NUMPY
from tables import records as plain_records

import nscore as ns
from nscore.check import CAUSES
from nscore.errors import SettingError, TableError

SCORES = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]
KEYS = ["layer", "neuron", "explanation_id"]
SLOW = settings(max_examples=10, deadline=None)


def tokens(seed=0, *, n_neurons=4, n_records=6, n_tokens=12, slope=0.3):
    """Simulations with raw predictions 0 to 10 and calibrated ones in the neuron's units; no score of them is degenerate."""
    rng = np.random.default_rng(seed)
    n = n_neurons * n_records * n_tokens
    truth = np.maximum(rng.normal(size=n), 0) * 3
    raw = np.round(np.clip(truth * 2 + rng.normal(size=n) * 3, 0, 10), 2)
    return pl.DataFrame(
        {
            "layer": 5,
            "neuron": np.repeat(np.arange(n_neurons), n_records * n_tokens),
            "explanation_id": "0",
            "sequence": np.tile(np.repeat(np.arange(n_records), n_tokens), n_neurons),
            "position": np.tile(np.arange(n_tokens), n_neurons * n_records),
            "token": "x",
            "activation": truth,
            "predicted": slope * raw + 0.05,
            "predicted_raw": raw,
            "stratum": np.where(
                np.tile(np.repeat(np.arange(n_records), n_tokens), n_neurons) < n_records // 2, "top", "random"
            ),
        }
    )


def published(table, *, by=KEYS, of=SCORES):
    """The three scores of each group, by numpy alone."""
    rows = []
    for key, group in table.group_by(by, maintain_order=True):
        both = group.drop_nulls(["activation", "predicted"])
        t, p = both["activation"].to_numpy(), both["predicted"].to_numpy()
        rows.append(dict(zip(by, key, strict=True)) | {name: NUMPY[name](t, p) for name in of})
    return pl.DataFrame(rows)


def causes_of(table, told, **given):
    found = ns.check(simulated=table, published_scores=told, **given)
    assert not found.agrees
    return found.scores.filter(~pl.col("agrees")).select("score", "cause", "detail")


def only_cause(table, told, cause, detail=None, *, scores=SCORES):
    """Every score that differs has this cause; those named do differ."""
    rows = causes_of(table, told)
    assert set(rows["cause"]) == {cause}, rows
    assert set(rows["score"]) == set(scores)
    if detail is not None:
        assert set(rows["detail"]) == {detail}


def test_right_scores_agree_for_explanations_and_for_records():
    table = tokens()
    found = ns.check(
        simulated=table,
        published_scores=published(table),
        published_sequence_scores=published(table, by=[*KEYS, "sequence"]),
    )
    assert found.agrees
    assert found.scores.height == 4 * 3
    assert found.sequence_scores.height == 24 * 3
    assert found.scores["cause"].null_count() == found.scores.height
    assert found.causes().height == 0
    assert str(found).splitlines() == [
        "explanations: 12 scores: 12 agree, 0 differ, 0 were not published",
        "records: 72 scores: 72 agree, 0 differ, 0 were not published",
    ]


@SLOW
@given(seed=st.integers(0, 2**32), n_tokens=st.integers(2, 40), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_scores_of_numpy_agree_whatever_the_tokens(seed, n_tokens, scale):
    table = tokens(seed, n_tokens=n_tokens).with_columns(pl.col("activation", "predicted") * scale)
    assert ns.check(simulated=table, published_scores=published(table)).agrees


def test_the_tolerance_is_that_of_float64():
    table = tokens()
    told = published(table)
    near = told.with_columns(pl.col(SCORES) + 5e-13)
    far = told.with_columns(pl.col(SCORES) + 2e-3)
    assert ns.check(simulated=table, published_scores=near).agrees
    only_cause(table, far, "unknown")


@pytest.mark.parametrize(
    ("named", "truth"),
    [
        ("floor, 0 to 10", lambda x: np.minimum(10, np.floor(10 * np.maximum(x, 0) / x.max()))),
        ("ceil, 0 to 10", lambda x: np.minimum(10, np.ceil(10 * np.maximum(x, 0) / x.max()))),
        ("trunc, -10 to 10", lambda x: np.clip(np.trunc(10 * x / np.abs(x).max()), -10, 10)),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_a_truth_brought_to_the_scale_of_prompts_is_found(named, truth, raw):
    # some activations are below zero, and more so than the highest is above it: so the three differ
    table = tokens().with_columns(
        activation=pl.col("activation") - pl.when(pl.col("position") == 3).then(9.0).otherwise(0.4)
    )
    parts = [
        part.with_columns(activation=truth(part["activation"].to_numpy()))
        for _, part in table.group_by(KEYS, maintain_order=True)
    ]
    wrong = pl.concat(parts)
    if raw:
        wrong = wrong.with_columns(predicted="predicted_raw")
    detail = f"{named}, by the highest of the explanation{', raw predictions' if raw else ''}"
    # a correlation with raw predictions is that with calibrated ones
    rows = causes_of(table, published(wrong))
    assert set(rows["cause"]) == {"normalised_truth"}
    assert rows.filter(pl.col("score") != SCORES[0])["detail"].unique().to_list() == [detail]


def test_a_truth_brought_to_the_scale_of_each_record_is_found():
    table = tokens()
    most = pl.col("activation").max().over(*KEYS, "sequence")
    wrong = table.with_columns(activation=(10 * pl.col("activation") / most).floor().clip(0, 10))
    only_cause(table, published(wrong), "normalised_truth", "floor, 0 to 10, by the highest of each record")


def test_scores_of_the_raw_predictions_are_found():
    table = tokens()
    told = published(table.with_columns(predicted="predicted_raw"))
    # the correlation does not change where the slope is positive
    only_cause(table, told, "raw_predictions", scores=SCORES[1:])


def test_scores_of_a_fit_on_the_scored_tokens_are_found_where_the_correlation_is_its_size():
    table = tokens().with_columns(predicted_raw=10 - pl.col("predicted_raw"), predicted=8 - pl.col("predicted"))
    parts = []
    for _, part in table.group_by(KEYS, maintain_order=True):
        t, p = part["activation"].to_numpy(), part["predicted_raw"].to_numpy()
        slope, intercept = np.polyfit(p, t, 1)
        assert slope < 0
        parts.append(part.with_columns(predicted=slope * p + intercept))
    told = published(pl.concat(parts))
    assert (told["ev_correlation_score"] > 0).all()
    assert (ns.score(table)["ev_correlation_score"] < 0).all()
    only_cause(table, told, "fit_on_scored")


def test_failures_scored_as_zero_are_found():
    known = pl.col("position") != 7
    table = tokens().with_columns(
        predicted=pl.when(known).then("predicted"), predicted_raw=pl.when(known).then("predicted_raw")
    )
    only_cause(table, published(table.with_columns(pl.col("predicted").fill_null(0.0))), "failures_as_zero")


def test_the_mean_of_the_records_scores_is_found():
    table = tokens()
    told = published(table, by=[*KEYS, "sequence"]).group_by(KEYS, maintain_order=True).agg(pl.col(SCORES).mean())
    only_cause(table, told, "mean_of_records", "the scores of the records, where they are numbers")


def test_the_mean_of_what_was_published_for_the_records_is_found():
    table = tokens()
    records = published(table, by=[*KEYS, "sequence"]).with_columns(pl.col(SCORES).round(1))
    told = records.group_by(KEYS, maintain_order=True).agg(pl.col(SCORES).mean())
    found = ns.check(simulated=table, published_scores=told, published_sequence_scores=records)
    assert set(found.scores["detail"]) == {"the published scores of the records, where they are numbers"}
    assert set(found.sequence_scores["cause"]) == {"rounding"}


@pytest.mark.parametrize(
    ("rows", "detail"),
    [
        (pl.col("stratum") == "top", "the stratum top"),
        (pl.col("sequence") < 2, "the first 2 of 6 records"),
        (pl.col("sequence") >= 2, "the last 4 of 6 records"),
        (pl.col("sequence") != 4, "all of 6 records but number 4"),
        (pl.col("sequence") % 2 == 1, "every second record, from number 1"),
    ],
)
def test_scores_over_some_of_the_records_are_found(rows, detail):
    table = tokens()
    only_cause(table, published(table.filter(rows)), "some_records", detail)


def test_scores_over_one_split_or_over_whole_records_are_found():
    table = tokens().with_columns(
        split=pl.when(pl.col("sequence") == 5).then(pl.lit("test")).otherwise(pl.lit("valid"))
    )
    assert ns.check(simulated=table, published_scores=published(table)).agrees
    told = published(table.filter(pl.col("split") == "test"))
    only_cause(table, told, "some_records", "the split test")
    broken = tokens().with_columns(
        predicted=pl.when((pl.col("sequence") != 3) | (pl.col("position") > 0)).then("predicted")
    )
    told = published(broken.filter(pl.col("sequence") != 3))
    only_cause(broken, told, "some_records", "the records with a prediction on every token")


@pytest.mark.parametrize("places", [1, 2, 3, 5, 8])
def test_rounding_is_found_with_its_decimals(places):
    table = tokens()
    told = published(table).with_columns(pl.col(SCORES).round(places))
    only_cause(table, told, "rounding", f"rounded to {places} decimals")


@pytest.mark.parametrize(("dtype", "how"), [(np.float32, "in single precision"), (np.float16, "in half precision")])
def test_fewer_bits_are_found(dtype, how):
    table = tokens()
    told = published(table).with_columns(
        pl.col(c).map_batches(lambda s: pl.Series(s.to_numpy().astype(dtype).astype(float)), return_dtype=pl.Float64)
        for c in SCORES
    )
    only_cause(table, told, "rounding", how)


def test_another_way_with_few_digits_is_found_too():
    table = tokens()
    told = published(table.with_columns(predicted="predicted_raw")).with_columns(pl.col(SCORES).round(6))
    rows = causes_of(table, told).filter(pl.col("score") != SCORES[0])
    assert set(rows["cause"]) == {"raw_predictions"}
    assert set(rows["detail"]) == {"rounded to 6 decimals"}


def silent():
    """Neuron 0 never fires, and nothing is predicted for neuron 1: r is 0.0 by definition, and 0 / 0 where both are zero."""
    table = tokens()
    return table.with_columns(
        activation=pl.when(pl.col("neuron") == 0).then(0.0).otherwise("activation"),
        predicted=pl.when(pl.col("neuron") < 2).then(0.0).otherwise("predicted"),
        predicted_raw=pl.when(pl.col("neuron") < 2).then(0.0).otherwise("predicted_raw"),
    )


@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_correlation_without_the_guard_is_found(value):
    table = silent()
    told = published(table)
    assert told["ev_correlation_score"].to_list()[:2] == [0.0, 0.0]
    assert ns.check(simulated=table, published_scores=told).agrees
    bare = told.with_columns(
        ev_correlation_score=pl.when(pl.col("neuron") < 2).then(value).otherwise("ev_correlation_score")
    )
    only_cause(table, bare, "missing_guard", "NaN where a constant gives 0.0", scores=SCORES[:1])


def test_zero_where_a_score_is_undefined_is_found_and_null_for_nan_agrees():
    table = silent()
    told = published(table)
    assert np.isnan(told["rsquared_score"][0])
    only_cause(
        table,
        told.with_columns(pl.col(SCORES).fill_nan(0.0)),
        "missing_guard",
        "0.0 where the score is undefined",
        scores=SCORES[1:],
    )
    assert ns.check(simulated=table, published_scores=told.with_columns(pl.col(SCORES).fill_nan(None))).agrees


def test_a_number_where_a_constant_gives_zero_is_found():
    table = silent()
    told = published(table).with_columns(
        ev_correlation_score=pl.when(pl.col("neuron") == 1).then(0.62).otherwise("ev_correlation_score")
    )
    only_cause(table, told, "missing_guard", "a number where a constant gives 0.0", scores=SCORES[:1])


def test_a_score_that_was_never_computed_is_found():
    table = tokens()
    only_cause(table, published(table).with_columns(rsquared_score=0.0), "placeholder", scores=["rsquared_score"])


def test_published_scores_without_tokens_and_tokens_without_published_scores_are_told():
    table = tokens()
    told = published(table).filter(pl.col("neuron") != 3)
    gone = told.tail(1).with_columns(neuron=pl.lit(99, told["neuron"].dtype))
    found = ns.check(simulated=table, published_scores=pl.concat([told, gone]))
    rows = (
        found.scores.filter(pl.col("neuron").is_in([3, 99])).select("neuron", "agrees", "cause").unique().sort("neuron")
    )
    assert rows.rows() == [(3, None, "not_published"), (99, False, "no_tokens")]
    assert not found.agrees
    assert "15 scores: 9 agree, 3 differ, 3 were not published" in str(found)


def test_a_column_that_old_files_lack_is_no_disagreement():
    table = tokens()
    told = published(table).with_columns(rsquared_score=pl.lit(None, pl.Float64))
    found = ns.check(simulated=table, published_scores=told)
    assert found.agrees
    assert found.scores.filter(pl.col("score") == "rsquared_score")["agrees"].null_count() == 4


def test_records_get_causes_of_their_own():
    table = tokens()
    wrong = table.with_columns(predicted=pl.when(pl.col("neuron") == 2).then("predicted_raw").otherwise("predicted"))
    by = [*KEYS, "sequence"]
    found = ns.check(
        simulated=table, published_scores=published(table), published_sequence_scores=published(wrong, by=by)
    )
    rows = found.sequence_scores.filter(~pl.col("agrees"))
    assert set(rows["cause"]) == {"raw_predictions"}
    assert set(rows["neuron"]) == {2}
    assert rows.height == 6 * 2
    assert found.scores["agrees"].all()
    assert not found.agrees
    assert found.causes().select("of", "score", "cause", "n").rows() == [
        ("records", "absolute_dev_explained_score", "raw_predictions", 6),
        ("records", "rsquared_score", "raw_predictions", 6),
    ]


def test_one_wrong_explanation_leaves_the_others_alone_and_is_counted_by_cause():
    table = tokens()
    told = published(table).with_columns(
        rsquared_score=pl.when(pl.col("neuron") == 1).then(0.123456789).otherwise("rsquared_score")
    )
    found = ns.check(simulated=table, published_scores=told)
    rows = found.scores.filter(~pl.col("agrees"))
    assert rows.select("neuron", "score", "cause").rows() == [(1, "rsquared_score", "unknown")]
    assert rows["difference"].item() == pytest.approx(0.123456789 - ns.score(table)["rsquared_score"][1])
    assert str(found).splitlines()[1].startswith("explanations: 1 differ (by ")
    assert str(found).endswith(f"unknown: {CAUSES['unknown']}")


def test_tables_in_a_folder_frames_and_paths_give_the_same(tmp_path):
    table, told = tokens(), published(tokens()).with_columns(pl.col(SCORES).round(2))
    table.write_parquet(tmp_path / "simulated.parquet")
    told.write_parquet(tmp_path / "published_scores.parquet")
    expected = ns.check(simulated=table, published_scores=told)
    assert_frame_equal(ns.check(tmp_path).scores, expected.scores)
    paths = ns.check(simulated=tmp_path / "simulated.parquet", published_scores=tmp_path / "published_scores.parquet")
    assert_frame_equal(paths.scores, expected.scores)
    # the order of the rows is nobody's concern, nor the dtype of a key
    other = ns.check(
        simulated=table.sample(fraction=1.0, shuffle=True, seed=1), published_scores=told.cast({"layer": pl.String})
    )
    assert_frame_equal(other.scores, expected.scores)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(SettingError, match=r"no folder is there"):
        ns.check(tmp_path / "nowhere")
    with pytest.raises(SettingError, match=r"there is no simulated"):
        ns.check(tmp_path)
    with pytest.raises(SettingError, match=r"there is no published_scores"):
        ns.check(simulated=tokens())
    with pytest.raises(SettingError, match=r"no column 'explanation_id'"):
        ns.check(simulated=tokens(), published_scores=published(tokens()).drop("explanation_id"))
    with pytest.raises(SettingError, match=r"none of its columns is a score"):
        ns.check(simulated=tokens(), published_scores=published(tokens()).select(KEYS))
    with pytest.raises(TableError, match=r"missing column"):
        ns.check(simulated=plain_records(), published_scores=published(tokens()))
