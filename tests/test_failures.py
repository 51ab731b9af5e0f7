"""The classes of failure: which one a token is in, where they are read from, and how they merge."""

from __future__ import annotations

from typing import get_args

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tables import as_files, refused, simulated

import nscore as ns
from nscore.records import FAILING, LEAST_COVERAGE, Status

NONE = dict.fromkeys(FAILING, 0)
WORDS = ", ".join(Status.__args__)
CORRECT = "Correct the word; where the reason is not known, it is null."


def failed(*statuses, **columns):
    """One record with a token for each status; none of them has a prediction but those that are `ok!`."""
    rows = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 7,
            "sequence": 1,
            "activation": 1.0,
            "predicted": [2.0 if s == "ok!" else None for s in statuses],
            "status": pl.Series([s and s.strip("!") for s in statuses], dtype=pl.String),
        },
        schema_overrides={"predicted": pl.Float64},
    )
    return rows.with_columns(**{name: pl.lit(value) for name, value in columns.items()})


def failures(scores):
    return scores["failures"].to_list()


def test_every_status_but_ok_is_a_class_in_the_order_of_the_vocabulary():
    assert ("ok", *FAILING) == Status.__args__
    for scores in (ns.score(failed("ok!")), ns.score_sequences(failed("ok!"))):
        assert scores.schema["failures"] == pl.Struct(dict.fromkeys(FAILING, pl.Int64))
        assert failures(scores) == [NONE]


@pytest.mark.parametrize("status", [*FAILING, None, "ok"])
@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(Status.__args__)])
def test_a_token_without_a_prediction_is_of_the_class_of_its_status_or_was_not_run(status, dtype):
    table = failed("ok!", status, "ok!", status).with_columns(pl.col("status").cast(dtype))
    expected = NONE | {"not_run" if status in {"ok", None} else status: 2}
    for policy in ("drop", "zero"):
        for scores in (ns.score(table, on_failure=policy), ns.score_sequences(table.lazy(), on_failure=policy)):
            assert failures(scores) == [expected]
            assert scores.select("n_tokens", "n_predicted").row(0) == (4, 2)


@pytest.mark.parametrize("predicted", [pl.Float64, pl.Null])
def test_without_a_status_it_was_not_run(predicted):
    table = failed(None, None).drop("status").with_columns(pl.col("predicted").cast(predicted))
    assert failures(ns.score(table)) == [NONE | {"not_run": 2}]


def test_a_status_that_nobody_knows_is_named_with_its_row(tmp_path):
    table = pl.concat([failed("ok!", "ok!"), failed("refused", "lost", "lost", sequence=2)])
    paths = as_files(tmp_path, table, n_files=2)
    for given, where in ((table, "the frame, row 3"), (paths, f"{paths[1]}, row 0")):
        for stage in (ns.score, ns.score_sequences, lambda t: ns.validate(t, "simulated")):
            with refused(
                "unknown status", where, column="status", found=f"found 'lost', expected one of {WORDS}", mend=CORRECT
            ):
                stage(given)


def test_a_table_without_failures_is_read_once():
    times = []

    def read(statuses):
        times.append(len(statuses))
        return statuses

    whole = failed("ok!", "ok!").lazy().with_columns(pl.col("status").map_batches(read, return_dtype=pl.String))
    assert failures(ns.score(whole)) == [NONE]
    once = sum(times)
    ns.score(failed("refused", "ok!").lazy().with_columns(pl.col("status").map_batches(read, return_dtype=pl.String)))
    assert sum(times) > 2 * once > 0


def test_rows_that_are_others_when_they_are_read_again_are_refused():
    times = iter(range(9))

    def later(values):
        return values.fill_null(1.0) if next(times) else values

    table = failed(None, "refused", "ok!").lazy()
    moving = table.with_columns(pl.col("predicted").map_batches(later, return_dtype=pl.Float64))
    with refused(
        "changing rows",
        column="predicted",
        found="the table has other rows when it is read a second time",
        mend="Write it to a file, or collect it, and score that.",
    ):
        ns.score(moving)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_status_that_only_some_files_have_is_refused_rather_than_guessed(tmp_path, order):
    parts = [failed("refused", "ok!"), failed(None, "ok!", sequence=2).drop("status")]
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for i, path in zip(order, paths, strict=True):
        parts[i].write_parquet(path)
    with_status, without = paths[order.index(0)], paths[order.index(1)]
    for stage in (ns.score, lambda t: ns.validate(t, "simulated")):
        with refused(
            "missing column",
            without,
            column="status",
            found=f"{with_status} has it and this file has not",
            mend="Expected files with the same columns: add it, null where it is not known.",
        ):
            stage(paths)


def old_and_new():
    """Sequence scores of two records: of one from before failures were counted, of the other from after it."""
    old = ns.score_sequences(failed("refused", "ok!")).drop("failures")
    return old, ns.score_sequences(failed("http_error", "truncated", "ok!", sequence=2))


def test_scores_from_before_failures_were_counted_pool_and_make_none_up(tmp_path):
    old, new = old_and_new()
    assert "failures" not in ns.pool(old).columns
    assert ns.pool(old).columns == ns.pool(new).drop("failures").columns
    both = ns.pool(pl.concat([old, new], how="diagonal"))
    assert failures(both) == [None]
    assert both.select("n_tokens", "n_predicted", "low_coverage").row(0) == (5, 2, True)
    for i, parts in enumerate([(old, new), (new, old), (old, old.with_columns(sequence=2))]):
        paths = [tmp_path / f"{i}{j}.parquet" for j in range(2)]
        for part, path in zip(parts, paths, strict=True):
            part.write_parquet(path)
        pooled = ns.pool(paths)
        assert pooled["n_tokens"].to_list() == [5 if i < 2 else 4]
        assert failures(pooled) == [None] if i < 2 else "failures" not in pooled.columns


def test_what_is_known_of_one_explanation_is_not_lost_by_another():
    old, new = old_and_new()
    both = pl.concat([old, new.with_columns(neuron=8)], how="diagonal_relaxed")
    assert failures(ns.pool(both)) == [None, NONE | {"http_error": 1, "truncated": 1}]


def test_shards_whose_failures_have_other_classes_name_the_file(tmp_path):
    _, new = old_and_new()
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    new.write_parquet(paths[0])
    other = new.with_columns(sequence=3, failures=pl.struct(vanished=pl.lit(2)))
    other.write_parquet(paths[1])
    with pytest.raises(ns.TableError, match=r"Expected .*files with the same columns") as caught:
        ns.pool(paths)
    assert caught.value.where == str(paths[1])


@pytest.mark.parametrize("dtype", [pl.Struct([]), pl.Struct({"refused": pl.Float64}), pl.List(pl.Int64), pl.Null])
def test_failures_that_are_no_counts_are_refused(dtype):
    _, new = old_and_new()
    bad = new.with_columns(pl.Series("failures", [None], dtype=dtype))
    for stage in (ns.pool, lambda t: ns.validate(t, "sequence_scores")):
        with refused(
            "wrong dtype",
            column="failures",
            found=f"found {bad.schema['failures']}, expected a struct of integers, one for each failing status",
            mend="Score the tokens again (nscore.score_sequences), or drop the column: what failed is then not known.",
        ):
            stage(bad)


def test_weights_and_strata_leave_the_counts_as_they_are():
    parts = [
        failed("refused", "ok!", "ok!", stratum="top", weight=0.0),
        failed("refused", "too_long", "ok!", sequence=2, stratum="random", weight=2.5),
    ]
    scores = ns.score(pl.concat(parts), strata=True, weights="weight")
    assert failures(scores) == [NONE | {"refused": 2, "too_long": 1}]
    assert scores.select("n_tokens", "n_predicted").row(0) == (6, 3)
    assert not [c for c in scores.columns if "only_failures" in c]
    again = ns.score(pl.concat(parts), strata=True, weights="weight", metrics=["ev_correlation_score", "spearman"])
    assert_frame_equal(again.select(pl.nth(range(8))), scores.select(pl.nth(range(8))))
    assert again.columns[2:8] == ["n_sequences", "n_tokens", "n_predicted", "failures", "coverage", "low_coverage"]


@pytest.mark.parametrize(("n_lost", "low"), [(0, False), (1, False), (2, True), (20, True)])
def test_scores_are_flagged_below_95_percent_coverage_and_not_at_it(n_lost, low):
    table = failed(*["ok!"] * (20 - n_lost), *["refused"] * n_lost)
    assert LEAST_COVERAGE == 19 / 20
    assert ns.score(table)["low_coverage"].to_list() == [low]
    assert ns.score(table, on_failure="zero")["low_coverage"].to_list() == [low]
    assert "low_coverage" not in ns.score_sequences(table).columns


@pytest.mark.parametrize("kind", ["sequence_scores", "scores"])
def test_counts_that_do_not_add_up_are_refused(kind):
    make = {"sequence_scores": ns.score_sequences, "scores": ns.score}[kind]
    good = make(pl.concat([failed("refused", "ok!", neuron=n) for n in range(2)]))
    ns.validate(good, kind)
    ns.validate(good.drop("failures"), kind)
    bad = good.with_columns(n_predicted=pl.when(pl.col("neuron") == 1).then(2).otherwise("n_predicted"))
    with refused(
        "counts that do not add up",
        "the frame, row 1",
        column="failures",
        found="expected n_tokens = n_predicted + the sum of the failures",
        mend="Score again.",
    ):
        ns.validate(bad, kind)
    with refused(
        "wrong dtype",
        column="failures",
        found="found Int32, expected a struct of integers, one for each failing status",
        mend="Score the tokens again (nscore.score_sequences), or drop the column: what failed is then not known.",
    ):
        ns.validate(good.with_columns(failures=pl.lit(0)), kind)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(Status.__args__)])
@pytest.mark.parametrize("status", FAILING)
def test_a_prediction_beside_a_failing_status_is_refused(dtype, status, tmp_path):
    words = pl.Series("status", ["ok"] * 10 + [status] + [None], dtype=pl.String).cast(dtype)
    table = simulated().with_columns(words)
    paths = as_files(tmp_path, table)
    for given, where in (
        (table, "the frame, row 10"),
        (table.lazy(), "the frame, row 10"),
        (paths, f"{paths[2]}, row 2"),
    ):
        with refused(
            "prediction of a failure",
            where,
            column="predicted",
            found=f"found 5.0 where the status is {status!r}",
            mend="A failure is never a number: make it null, or the status 'ok' if the prediction holds.",
        ):
            ns.validate(given, "simulated")
    ns.validate(table.with_columns(predicted=pl.when(pl.col("status") == "ok").then("predicted")), "simulated")


def test_ok_without_a_prediction_is_refused():
    table = simulated(predicted=[1.0] * 7 + [None] * 5, status=["ok"] * 6 + [None] * 2 + ["refused"] + ["ok"] * 3)
    with refused(
        "status without its prediction",
        "the frame, row 9",
        column="status",
        found="found 'ok' where 'predicted' is null",
        mend=f"Say why there is none: one of {', '.join(FAILING)}.",
    ):
        ns.validate(table, "simulated")


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(get_args(Status))])
@pytest.mark.parametrize("policy", ["drop", "zero"])
def test_a_failure_with_a_number_is_never_scored(dtype, policy):
    table = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 1,
            "sequence": [0, 0, 1],
            "position": [0, 1, 0],
            "activation": [1.0, 2.0, 3.0],
            "predicted": [1.0, None, 7.0],
            "status": pl.Series(["ok", "http_error", "refused"], dtype=dtype),
        }
    )
    with pytest.raises(ns.TableError, match=r"row 2, column 'predicted': .*found 7\.0 where the status is 'refused'"):
        ns.score(table, on_failure=policy)
    assert ns.score(table.with_columns(predicted=pl.Series([1.0, None, None])), on_failure=policy).height == 1
