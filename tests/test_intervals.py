"""Intervals against literal resampling by pool, numpy and the standard library; their rules; how often they cover."""

from __future__ import annotations

from statistics import NormalDist
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, refused, scored, shuffles

import nscore as ns
from nscore._statistics import alike as _alike
from nscore._statistics import bounds as _bounds
from nscore._statistics.alike import Records
from nscore._statistics.bounds import Draws, leave_one_out
from nscore._statistics.distributions import normal_cdf, normal_quantile, student_quantile, student_two_sided
from nscore._statistics.resampling import Resampler
from nscore.metrics import CATALOGUE
from nscore.pool import rows_of_records

DECOMPOSING = [m.name for m in CATALOGUE.values() if m.decomposes]
KEYS = ["layer", "neuron", "explanation_id"]
METHODS = ["bca", "percentile", "jackknife"]
every_method = pytest.mark.parametrize("method", METHODS)


def sequences(frame, **options):
    return ns.score_sequences(frame, **options)


def dense(n_records=8, n_neurons=3, n_tokens=12, seed=0):
    """Neurons whose predictions know something of their activations; half of the records are of each stratum."""
    rng = np.random.default_rng(seed)
    n = n_neurons * n_records * n_tokens
    t = rng.normal(size=n) + rng.normal(size=n // n_tokens).repeat(n_tokens)
    record = np.arange(n) // n_tokens
    columns = {"layer": 0, "neuron": record // n_records, "explanation_id": "a", "sequence": record % n_records}
    return pl.DataFrame(columns | {"activation": t, "predicted": t + rng.normal(size=n)}).with_columns(
        stratum=pl.when(pl.col("sequence") % 2 == 0).then(pl.lit("top")).otherwise(pl.lit("random"))
    )


def drawn(rows, weights):
    """The records of a neuron as often as they count, each under a name of its own."""
    repeated = rows[np.repeat(np.arange(rows.height), weights.astype(int))]
    return repeated.with_columns(sequence=pl.int_range(pl.len()))


def literal(rows, weighting, **options):
    """The pooled scores of one weighting, by pool; NaN where they are undefined."""
    pooled = ns.pool(drawn(rows, weighting), metrics=DECOMPOSING, **options)
    return pooled.select(pl.col(DECOMPOSING).cast(pl.Float64).fill_null(float("nan"))).row(0)


def resampler(table, **options):
    """The records of the only explanation in the table, to be weighted."""
    rows, keys = rows_of_records(table, None, list(options.values()))
    records = Records.of(rows, keys, weights=options.get("weights"), stratified=False)
    return Resampler(records.taken(np.arange(rows.height)[None]), [CATALOGUE[name] for name in DECOMPOSING])


def same(left, right, rel=1e-9, abs=1e-12):  # noqa: A002
    """Equal up to rounding, undefined and infinite in the same places."""
    left, right = np.asarray(left, float), np.asarray(right, float)
    np.testing.assert_array_equal(np.isnan(left), np.isnan(right))
    np.testing.assert_array_equal(np.isinf(left), np.isinf(right))
    np.testing.assert_allclose(left, right, rtol=rel, atol=abs)


@QUICK
@given(scored(lengths=st.integers(1, 6)), st.integers(0, 99), st.booleans())
def test_weights_times_moments_are_what_pool_makes_of_resampled_rows(frame, seed, weighted):
    table = sequences(frame.with_columns(w=pl.col("sequence") * 0.5 + 0.25), keep=["w"])
    options = {"weights": "w"} if weighted else {}
    for (rows,) in [(part,) for part in table.partition_by(KEYS, maintain_order=True)]:
        weights = Draws.of((rows.height,), 6, seed).resamples
        found = resampler(rows, **options).scores(weights, slice(0, 1))
        for i, weighting in enumerate(weights):
            same([x[0, i] for x in found], literal(rows, weighting, **options))


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    "constants", [[0.0, 0.0, 3.1, 7.7], [0.1, 0.1, 0.1, 0.7], [5.3, None, 5.3, None], [np.pi, np.e, 0.1, 2 / 3]]
)
def test_records_of_constants_are_as_constant_as_in_pool(constants, offset):
    rng, lengths = np.random.default_rng(0), [3, 5, 7, 11]
    parts = [rng.normal(size=n) if c is None else np.full(n, c) for c, n in zip(constants, lengths, strict=True)]
    p = np.repeat([0.3, 0.3, 0.9, 1 / 3], lengths)
    frame = pl.DataFrame({"sequence": np.repeat(range(4), lengths), "activation": np.concatenate(parts) + offset})
    rows = sequences(frame.with_columns(layer=0, neuron=7, predicted=pl.Series(p)))
    weights = np.array(np.meshgrid(*[range(4)] * 4)).reshape(4, -1).T
    weights = weights[weights.sum(axis=1) == 4]
    found = resampler(rows).scores(weights.astype(float), slice(0, 1))
    for i, weighting in enumerate(weights):
        same([x[0, i] for x in found], literal(rows, weighting), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_one_record_of_a_constant_has_no_spread_whatever_the_constant(seed):
    rng = np.random.default_rng(seed)
    lengths, t, p = rng.integers(2, 30, 6), rng.random(6), rng.random(6)
    columns = {name: np.repeat(x, lengths) for name, x in (("sequence", range(6)), ("activation", t), ("predicted", p))}
    rows = sequences(pl.DataFrame(columns).with_columns(layer=0, neuron=7))
    found = dict(zip(DECOMPOSING, resampler(rows).scores(6 * np.eye(6), slice(0, 1)), strict=True))
    assert np.isnan(found["pearson"]).all()
    assert np.isnan(found["r2_about_mean"]).all()
    assert (found["ev_correlation_score"] == 0).all()


def test_a_resample_of_quiet_records_keeps_its_digits_beside_a_loud_one():
    rng = np.random.default_rng(1)
    size = np.repeat([1e-4, 1e-4, 1e4], 8)
    frame = pl.DataFrame({"sequence": np.repeat(range(3), 8), "activation": rng.random(24) * size})
    rows = sequences(frame.with_columns(layer=0, neuron=7, predicted=pl.col("activation") * 2 + rng.random(24) * size))
    weighting = np.array([2.0, 1.0, 0.0])
    same([x[0, 0] for x in resampler(rows).scores(weighting[None], slice(0, 1))], literal(rows, weighting))


@pytest.mark.parametrize("stratified", [False, True])
def test_percentile_lies_between_numpys_quantiles_of_literal_resamples(stratified):
    table = sequences(dense(n_neurons=1)).sort("stratum", "sequence", descending=[True, False])
    counts = (4, 4) if stratified else (8,)
    rows = table if stratified else table.sort("sequence")
    scores = np.array([literal(rows, w) for w in Draws.of(counts, 200, seed=3).resamples])
    found = ns.intervals(
        table, metrics=DECOMPOSING, method="percentile", level=0.8, resamples=200, seed=3, stratified=stratified
    )
    for name, column in zip(DECOMPOSING, scores.T, strict=True):
        same(found.select(f"{name}_low", f"{name}_high").row(0), np.quantile(column, [0.1, 0.9]))


def test_bca_is_efrons_of_literal_resamples_and_leave_one_outs():
    table, normal = sequences(dense(n_neurons=1)), NormalDist()
    names = ["ev_correlation_score", "rsquared_score", "mean_squared_error"]
    where = [DECOMPOSING.index(name) for name in names]
    scores = np.array([literal(table, w) for w in Draws.of((8,), 300, seed=5).resamples])[:, where]
    without = np.array([literal(table, w) for w in leave_one_out(8)])[:, where]
    point = np.array(literal(table, np.ones(8)))[where]
    found = ns.intervals(table, metrics=names, method="bca", resamples=300, seed=5, stratified=False).row(0, named=True)
    for i, name in enumerate(names):
        off = without[:, i].mean() - without[:, i]
        a = (off**3).sum() / 6 / (off**2).sum() ** 1.5
        same_as_whole = np.isclose(scores[:, i], point[i], rtol=1e-12)
        below = (~same_as_whole & (scores[:, i] < point[i])).sum() + same_as_whole.sum() / 2
        bias = normal.inv_cdf((below + 0.5) / 301)
        shares = []
        for tail in (0.025, 0.975):
            z = bias + normal.inv_cdf(tail)
            shares.append(normal.cdf(bias + z / (1 - a * z)))
        same([found[f"{name}_low"], found[f"{name}_high"]], np.quantile(scores[:, i], shares))


@pytest.mark.parametrize("stratified", [False, True])
def test_jackknife_is_the_spread_of_pools_without_one_record(stratified):
    table = sequences(dense(n_neurons=1))
    parts = table.partition_by("stratum") if stratified else [table]
    out = {seq: literal(table.filter(pl.col("sequence") != seq), np.ones(7)) for seq in table["sequence"]}
    names = np.array(DECOMPOSING)
    bounded = np.isin(names, ["pearson", "ev_correlation_score", "cosine"])

    def scale(x):  # Fisher's z for correlations
        return np.where(bounded, np.arctanh(np.clip(x, -0.99999, 0.99999)), x)

    variance = 0
    for part in parts:
        x = np.array([scale(out[seq]) for seq in part["sequence"]])
        variance = variance + (len(x) - 1) / len(x) * ((x - x.mean(axis=0)) ** 2).sum(axis=0)
    t = {True: 2.446912, False: 2.364624}[stratified]  # of 6 and 7 degrees of freedom, from a printed table
    found = ns.intervals(table, metrics=DECOMPOSING, method="jackknife", stratified=stratified)
    point = scale(np.array(literal(table, np.ones(8))))
    best = np.array([CATALOGUE[name].best for name in names])
    higher = np.array([CATALOGUE[name].higher_is_better for name in names])
    low, high = (np.where(bounded, np.tanh(x), x) for x in (point - t * variance**0.5, point + t * variance**0.5))
    same(found.select(f"{n}_low" for n in names).row(0), np.where(higher, low, np.maximum(low, best)), rel=1e-6)
    same(found.select(f"{n}_high" for n in names).row(0), np.where(higher, np.minimum(high, best), high), rel=1e-6)


def test_mean_of_records_of_one_length_has_the_textbooks_interval():
    # errors 1, 2, 3, 4: mean 2.5, standard deviation 1.290994, t of 3 degrees of freedom 3.182446
    df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 2, 3, 4], "activation": [0.0, 1.0, 2.0, 3.0]})
    table = sequences(df.with_columns(predicted=pl.col("activation") + pl.col("sequence")))
    found = ns.intervals(table, metrics=["mean_absolute_error"], method="jackknife")
    reach = 3.18244631 * 1.29099445 / 2
    assert found.row(0)[-2:] == pytest.approx((2.5 - reach, 2.5 + reach), rel=1e-6)


@QUICK
@given(st.data(), scored(), st.sampled_from(METHODS))
def test_order_of_rows_blocks_and_neighbours_change_nothing(data, frame, method):
    table = sequences(frame)
    options = {"metrics": DECOMPOSING, "method": method, "resamples": 50}
    whole = ns.intervals(table, **options)
    assert_frame_equal(ns.intervals(data.draw(shuffles(table)), **options), whole, check_exact=True)
    with patch.object(_bounds, "CELLS", 60), patch.object(_alike, "CELLS", 3):
        assert_frame_equal(ns.intervals(table, **options), whole, check_exact=True)
    alone = [ns.intervals(part, **options) for part in table.partition_by(KEYS, maintain_order=True)]
    assert_frame_equal(pl.concat(alone), whole, check_exact=True)


@every_method
def test_many_neurons_give_to_the_bit_what_each_gives_alone(method):
    table = sequences(dense(n_records=10, n_neurons=150))
    whole = ns.intervals(table, method=method)
    for neuron in (0, 63, 149):
        alone = ns.intervals(table.filter(neuron=neuron), method=method)
        assert_frame_equal(alone, whole.filter(neuron=neuron), check_exact=True)


def test_a_seed_gives_the_same_again_and_another_does_not():
    table = sequences(dense())
    one, again, other = (ns.intervals(table, method="bca", seed=seed) for seed in (1, 1, 2))
    assert_frame_equal(one, again, check_exact=True)
    ends = [c for c in one.columns if c.endswith(("_low", "_high"))]
    assert (one.select(ends) != other.select(ends)).to_numpy().all()


@QUICK
@given(st.integers(2, 4), st.integers(0, 999))
def test_percentile_holds_the_score_where_the_records_themselves_are_often_drawn(n_records, seed):
    # of up to four records, more than 9% of the resamples are the records as they are
    table = sequences(dense(n_records=n_records, n_neurons=2, seed=seed))
    found = ns.intervals(table, metrics=DECOMPOSING, method="percentile", level=0.9, stratified=False)
    for name in DECOMPOSING:
        slack = 1e-12 * (1 + found[name].abs())
        assert (found[f"{name}_low"] - slack <= found[name]).all()
        assert (found[name] <= found[f"{name}_high"] + slack).all()


@every_method
@pytest.mark.parametrize("weights", [None, "w"])
def test_the_scores_are_those_of_pool(method, weights):
    table = sequences(dense().with_columns(w=pl.col("sequence") + 1), keep=["w"])
    found = ns.intervals(table, metrics=DECOMPOSING, method=method, weights=weights)
    assert_frame_equal(
        found.drop(f"{name}_{end}" for name in DECOMPOSING for end in ("low", "high")),
        ns.pool(table, metrics=DECOMPOSING, weights=weights),
        check_exact=True,
    )
    place = found.columns.index("pearson")
    assert found.columns[place : place + 3] == ["pearson", "pearson_low", "pearson_high"]


@every_method
def test_strata_keep_their_numbers_where_there_are_any(method):
    # records of a stratum are alike, so that nothing varies within one
    frame = pl.DataFrame({"sequence": [1, 2, 3, 4], "activation": 0.0, "predicted": [1.0, 1.0, 3.0, 3.0]})
    frame = frame.with_columns(layer=0, neuron=7, stratum=pl.Series(["top", "top", "random", "random"]))
    options = {"metrics": ["mean_absolute_error"], "method": method}
    assert ns.intervals(sequences(frame), **options).row(0)[-3:] == (2.0, 2.0, 2.0)
    _, low, high = ns.intervals(sequences(frame), stratified=False, **options).row(0)[-3:]
    assert low < 2 < high
    assert ns.intervals(sequences(frame.drop("stratum")), **options).row(0)[-2:] == (low, high)


@every_method
@pytest.mark.parametrize("strata", [["top"], ["top", "top", "random"], [None, "top", "top"]])
def test_one_record_or_one_of_a_stratum_gives_no_interval(method, strata):
    n = len(strata)
    frame = pl.DataFrame({"sequence": range(n), "activation": range(n), "predicted": 2.0, "stratum": strata})
    found = ns.intervals(
        sequences(frame.with_columns(layer=0, neuron=7)), metrics=["mean_squared_error"], method=method
    )
    assert found.row(0)[-3] is not None
    assert found.row(0)[-2:] == (None, None)


@every_method
def test_records_without_a_scored_token_count_for_coverage_alone(method):
    frame = pl.DataFrame(
        {"sequence": [1, 2, 3, 4], "activation": [0.0, 1.0, 2.0, 3.0], "predicted": [1.0, 1.5, 1.0, None]}
    ).with_columns(layer=0, neuron=7)
    options = {"metrics": ["mean_squared_error", "coverage"], "method": method}
    found, without = (ns.intervals(sequences(f), **options).row(0, named=True) for f in (frame, frame[:3]))
    for end in ("low", "high"):
        assert found[f"mean_squared_error_{end}"] == without[f"mean_squared_error_{end}"]
    assert found["coverage"] == 0.75
    assert found["coverage_low"] < 0.75
    assert without["coverage_low"] == 1.0


@every_method
def test_what_is_undefined_has_no_interval(method):
    silent = pl.DataFrame({"sequence": [1, 1, 2, 2], "activation": 0.0, "predicted": [0.0, 1.0, 2.0, 0.0]})
    table = sequences(silent.with_columns(layer=0, neuron=7))
    found = ns.intervals(table, metrics=["rsquared_score", "pearson", "ev_correlation_score"], method=method)
    assert found.row(0)[-9:] == (float("-inf"), None, None, None, None, None, 0.0, 0.0, 0.0)
    nothing = ns.intervals(sequences(silent.clear().with_columns(layer=0, neuron=7)), method=method)
    assert nothing.is_empty()


def test_the_low_end_may_be_infinite_where_resamples_are_silent():
    t = np.zeros(10)
    t[0] = 5.0
    frame = pl.DataFrame({"sequence": range(10), "activation": t, "predicted": t * 0.9 + 0.1})
    found = ns.intervals(
        sequences(frame.with_columns(layer=0, neuron=7)), metrics=["rsquared_score"], method="percentile"
    )
    score, low, high = found.row(0)[-3:]
    assert low == float("-inf")
    assert low < score < high < 1


def test_a_score_undefined_in_most_resamples_has_no_interval():
    predicted = np.zeros(12)
    predicted[0] = 1.0
    frame = pl.DataFrame({"sequence": np.arange(12) // 6, "activation": np.arange(12.0), "predicted": predicted})
    table = sequences(frame.with_columns(layer=0, neuron=7))
    # a quarter of the resamples lack the first record
    assert None not in ns.intervals(table, metrics=["pearson"], method="percentile").row(0)
    assert ns.intervals(table, metrics=["pearson"], method="bca").row(0)[-2:] == (None, None)
    more = pl.concat([table, table.filter(sequence=1).with_columns(sequence=pl.lit(7, pl.Int64))])
    assert None not in ns.intervals(more, metrics=["pearson"], method="percentile").row(0)


def test_a_perfect_prediction_has_an_interval_at_the_bound():
    perfect = dense().with_columns(predicted=pl.col("activation") * 2 + 1)
    found = ns.intervals(sequences(perfect), metrics=["pearson", "coverage"])
    np.testing.assert_allclose(found.select("pearson", "pearson_low", "pearson_high"), 1.0, atol=1e-12)
    assert (found.select("coverage_low", "coverage_high") == 1.0).to_numpy().all()


@QUICK
@given(scored(), st.sampled_from([0.5, 0.99]))
def test_the_jackknife_stays_within_the_bounds_and_holds_the_score(frame, level):
    found = ns.intervals(sequences(frame), metrics=DECOMPOSING, level=level)
    for name in DECOMPOSING:
        rows = found.drop_nulls(f"{name}_low")
        low, score, high = (rows[c].to_numpy() for c in (f"{name}_low", name, f"{name}_high"))
        slack = 1e-9 * (1 + np.abs(score))
        assert (low <= score + slack).all()
        assert (score <= high + slack).all()
        m = CATALOGUE[name]
        assert not (high > m.best if m.higher_is_better else low < m.best).any()
        if name in {"pearson", "ev_correlation_score", "cosine"}:
            assert (low >= -1).all()


@every_method
def test_level_widens(method):
    table = sequences(dense(n_records=12))
    narrow, wide = (ns.intervals(table, method=method, level=level) for level in (0.5, 0.99))
    for name in ("ev_correlation_score", "rsquared_score"):
        assert (wide[f"{name}_low"] < narrow[f"{name}_low"]).all()
        assert (wide[f"{name}_high"] > narrow[f"{name}_high"]).all()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"level": 1.0}, "level: found 1.0, expected a share between 0 and 1"),
        ({"level": 0.0}, "level: found 0.0"),
        ({"resamples": 0}, "resamples: found 0, expected 1 or more"),
        ({"seed": -1}, "seed: found -1"),
        ({"method": "bcaa"}, "no interval is called 'bcaa'. Did you mean 'bca'?"),
        ({"metrics": ["spearman"]}, "spearman does not decompose"),
    ],
)
def test_what_cannot_be_is_refused(option, said):
    with pytest.raises(ns.NscoreError, match=said.replace("?", r"\?")):
        ns.intervals(sequences(dense()), **option)


def test_strata_that_are_not_there_cannot_be_kept():
    table = sequences(dense().drop("stratum"))
    with pytest.raises(ns.TableError, match="stratum"):
        ns.intervals(table, stratified=True)
    with refused("no such file", "nowhere.parquet", found="no Parquet file is there", mend=NO_FILE):
        ns.intervals("nowhere.parquet")


NO_FILE = "Check the path (a file, a folder of *.parquet, or a glob in quotes)."


@pytest.mark.parametrize(
    ("level", "degrees", "t"),
    [(0.95, 1, 12.706205), (0.95, 9, 2.262157), (0.99, 4, 4.604095), (0.9, 30, 1.697261), (0.95, 10**6, 1.959966)],
)
def test_students_quantiles_are_the_printed_ones(level, degrees, t):
    assert student_quantile(level, degrees) == pytest.approx(t, rel=1e-6)
    assert student_two_sided(np.array([t, -t]), degrees) == pytest.approx([1 - level] * 2, rel=1e-4)


def test_students_tails_and_the_normal_are_right_at_their_ends():
    assert student_two_sided(np.array([0.0, np.inf, -np.inf]), 3).tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(student_two_sided(np.array([np.nan]), 3)).all()
    # of one degree of freedom it is 1 - 2 / pi * atan(t)
    t = np.array([1e-6, 0.5, 1.0, 7.0, 1e5])
    np.testing.assert_allclose(student_two_sided(t, 1), 2 / np.pi * np.arctan(1 / t), rtol=1e-9)
    p = np.array([0.001, 0.5, 0.9])
    np.testing.assert_allclose(normal_cdf(normal_quantile(p)), p, rtol=1e-14)
    assert normal_cdf(np.array([-np.inf, np.inf])).tolist() == [0.0, 1.0]
