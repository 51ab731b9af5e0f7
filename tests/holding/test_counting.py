"""Honest counting: n_tokens = n_predicted + failures by class, in every table, whatever the statuses and the faults."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from asking import Fast, answer, backend, explanations_of, is_asked, records_of
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from model_server import ModelServer, RefusalError
from polars.testing import assert_frame_equal
from tables import as_files

import nscore as ns
from nscore.records import FAILING, Status

KEYS = ["layer", "neuron", "simulator", "explanation_id"]
STATUSES = Status.__args__
NONE = dict.fromkeys(FAILING, 0)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Waits of the engine are a thousandth as long."""
    monkeypatch.setattr("nscore._running.engine.RealClock", Fast)
    monkeypatch.setattr(Fast, "times", 1000.0)


def counts_by_loop(table, keys, splits=("valid", "test")):
    """For each group of rows: how many there are, how many have a prediction, how many failed, by class."""
    found = {}
    for row in table.iter_rows(named=True):
        if row.get("split", "test") not in splits:
            continue
        n = found.setdefault(tuple(row[k] for k in keys), [0, 0, dict(NONE)])
        n[0] += 1
        if row["predicted"] is not None:
            n[1] += 1
        else:
            status = row.get("status")
            n[2]["not_run" if status in {None, "ok"} else str(status)] += 1
    return found


def counts_of(scores, keys):
    """The same as a table of scores tells it."""
    columns = scores.select(*keys, "n_tokens", "n_predicted", "failures").iter_rows()
    return {tuple(key): [n, predicted, failures] for *key, n, predicted, failures in columns}


def add_up(scores):
    """Whether in every row n_tokens = n_predicted + the sum of the failures, and it is flagged where it should be."""
    counts = scores.select("n_tokens", "n_predicted", "failures").iter_rows()
    assert scores.schema["failures"] == pl.Struct(dict.fromkeys(FAILING, pl.Int64))
    assert all(n == predicted + sum(failures.values()) for n, predicted, failures in counts)
    if "low_coverage" in scores.columns:
        flags = [None if c is None else c < 0.95 for c in scores["coverage"]]
        assert scores["low_coverage"].to_list() == flags
        assert scores.columns[scores.columns.index("coverage") + 1] == "low_coverage"
    return True


@st.composite
def simulated(draw):
    """A simulated table with any statuses: words, null, or no such column; with splits and repeated records or not."""
    neurons = draw(st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=3, unique=True))
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rows = [
        {"layer": 0, "neuron": n, "simulator": s, "explanation_id": e, "sequence": i, "position": at}
        for n in neurons
        for s in draw(st.sampled_from([["x"], ["x", "y"]]))
        for e in draw(st.sampled_from([["a"], ["a", "b"]]))
        for i, length in enumerate(lengths)
        for at in range(length)
    ]
    splits = draw(st.none() | st.lists(st.sampled_from(ns.records.Split.__args__), min_size=4, max_size=4))
    likely = draw(st.sampled_from([("ok",), ("ok", "ok", "ok", *STATUSES, None), FAILING, ("http_error", None)]))
    for row in rows:
        status = draw(st.sampled_from(likely))
        known = status == "ok" and draw(st.integers(0, 5)) > 0
        row["activation"] = draw(st.sampled_from([0.0, 1.5, None]))
        row["predicted"] = 2.0 if known else None
        row["status"] = None if known and draw(st.booleans()) else status
        if splits:
            row["split"] = splits[row["sequence"]]
    dtypes = {"neuron": pl.Int64, "activation": pl.Float64, "predicted": pl.Float64}
    table = pl.DataFrame(rows, schema_overrides=dtypes | {"status": pl.String}, infer_schema_length=None)
    match draw(st.sampled_from(["text", "category", "enumeration", "absent"])):
        case "category":
            return table.with_columns(pl.col("status", "simulator").cast(pl.Categorical))
        case "enumeration":
            return table.with_columns(pl.col("status").cast(pl.Enum(STATUSES)))
        case "absent":
            return table.drop("status")
    return table


@settings(max_examples=30, deadline=None)
@given(simulated(), st.sampled_from(["drop", "zero"]))
def test_every_row_of_both_tables_counts_what_a_loop_counts(table, policy):
    expected = counts_by_loop(table, [*KEYS, "sequence"])
    sequences = ns.score_sequences(table, on_failure=policy)
    assert add_up(sequences)
    assert counts_of(sequences, [*KEYS, "sequence"]) == expected
    n_scored = dict.fromkeys(expected, 0)
    for row in table.iter_rows(named=True):
        counts = row["activation"] is not None and (row["predicted"] is not None or policy == "zero")
        key = tuple(row[k] for k in [*KEYS, "sequence"])
        if key in n_scored:
            n_scored[key] += counts
    assert dict(zip(expected, n_scored.values(), strict=True)) == {
        tuple(key): n for *key, n in sequences.select(*KEYS, "sequence", "n_scored").iter_rows()
    }
    for scores in (ns.score(table, on_failure=policy), ns.pool(sequences)):
        assert add_up(scores)
        assert counts_of(scores, KEYS) == counts_by_loop(table, KEYS)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(simulated(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_counts_are_the_same_for_frames_files_and_shards_in_any_order(tmp_path, table, random, n_files):
    rows = list(range(table.height))
    random.shuffle(rows)
    whole, scores = ns.score_sequences(table), ns.score(table)
    keys = [*KEYS, "sequence"]
    for one in (table.lazy(), table[rows], table[rows].lazy(), as_files(tmp_path, table[rows], n_files=n_files)):
        again = ns.score_sequences(one)
        assert_frame_equal(again.select(keys), whole.select(keys))
        assert counts_of(again, keys) == counts_of(whole, keys)
        assert counts_of(ns.score(one), KEYS) == counts_of(scores, KEYS)
    shards = [ns.score_sequences(table.filter(pl.col("sequence") % 2 == i)) for i in (1, 0)]
    assert counts_of(ns.pool(pl.concat(shards)), KEYS) == counts_of(scores, KEYS)
    # a shard in which nothing is scored has no rows, and takes nothing away
    paths = as_files(tmp_path / "shards", pl.concat(shards), n_files=3)
    assert counts_of(ns.pool(paths), KEYS) == counts_of(scores, KEYS)
    assert counts_of(ns.pool(paths, by=["layer"]), ["layer"]) == counts_by_loop(table, ["layer"])


@settings(max_examples=20, deadline=None)
@given(simulated(), st.lists(st.sampled_from(ns.records.Split.__args__), min_size=1, unique=True))
def test_counts_are_of_the_splits_that_are_scored(table, splits):
    if "split" not in table.columns:
        table = table.with_columns(split=pl.lit("train"))
    scores = ns.score(table, splits=splits)
    assert add_up(scores)
    assert counts_of(scores, KEYS) == counts_by_loop(table, KEYS, splits)


FAULTS = ["429", "500", "503", "529", "reset", "cut", "cut_json", "count", "nan", "error200", "html"]
LASTING = ["400", "413", "422", "refusal", "filter", "prose"]
# fewer than the 50 failures in a row after which a run waits for the server
SCRIPTS = st.lists(st.sampled_from([None] * 8 + FAULTS + LASTING), min_size=16, max_size=40)


class Scripted(ModelServer):
    """It has a fault for each question about records, in the order in which they come."""

    def play(self, script):
        self.forget()
        self.script = iter(script)

    def _fault(self, key):
        del key
        fault = next(self.script, None) if is_asked(self.requests[-1]) else None
        self.refusal = "I will not." if fault == "refusal" else None
        self.content_filter = fault == "filter"
        self.answer = (lambda _: "I have no numbers for you.") if fault == "prose" else answer
        if fault in {"400", "413", "422"}:
            raise RefusalError(int(fault), "no")
        return fault if fault in FAULTS else None


@pytest.fixture(scope="module")
def server():
    with Scripted(answer=answer, ignore_logprobs=True, retry_after=("seconds", "absent", "huge")) as running:
        yield running


simulators = st.builds(
    lambda kind, pack, replicates: kind(pack=pack, replicates=replicates),
    st.sampled_from([ns.JsonList, ns.TabList]),
    st.integers(1, 3),
    st.integers(1, 2),
)


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    SCRIPTS, simulators, st.fixed_dictionaries({"attempts": st.integers(1, 3), "concurrency": st.sampled_from([1, 8])})
)
def test_a_run_counts_every_row_and_every_request_once_whatever_the_faults(
    tmp_path_factory, server, script, simulator, options
):
    server.play(script)
    out = tmp_path_factory.mktemp("run")
    records, told = records_of(2, 4), explanations_of(2, each=2)
    run = ns.simulate(records, told, simulator=simulator, backend=backend(server), out=out, **options)
    rows = run.simulated().collect()
    each_row_has_one_status(rows, records.join(told, on=["layer", "neuron"]))
    each_request_is_there_once(run.requests().collect(), rows, simulator.replicates)
    ns.validate(out / "simulated.parquet", "simulated")

    expected = counts_by_loop(rows, KEYS)
    by_status = dict(rows.group_by("status").len().iter_rows())
    for simulated in (rows, run.simulated(), out / "simulated.parquet"):
        sequences = ns.score_sequences(simulated)
        assert counts_of(sequences, [*KEYS, "sequence"]) == counts_by_loop(rows, [*KEYS, "sequence"])
        for scores in (ns.score(simulated), ns.pool(sequences)):
            assert add_up(sequences)
            assert add_up(scores)
            assert counts_of(scores, KEYS) == expected
            failures = scores["failures"].struct.unnest().sum().row(0, named=True)
            assert failures == NONE | {s: n for s, n in by_status.items() if s != "ok"}
            assert scores["n_predicted"].sum() == by_status.get("ok", 0)
    for status in by_status:
        event(status)


def each_row_has_one_status(rows, expected):
    """Every token of a record under every explanation, once; null where it failed, finite where it did not."""
    keys = ["layer", "neuron", "explanation_id", "sequence", "position"]
    same = pl.concat([t.select(*keys, "token").with_columns(pl.col("token").cast(pl.String)) for t in (rows, expected)])
    assert rows.height == expected.height == same.n_unique()
    assert set(rows["status"]) <= set(STATUSES)
    assert rows["predicted"].is_null().to_list() == (rows["status"] != "ok").to_list()
    assert rows["predicted"].drop_nulls().is_finite().all()


def each_request_is_there_once(requests, rows, replicates):
    """Every record under every explanation and replicate is in one request, which tells of its rows what they tell."""
    assert requests["request"].is_unique().all()
    keys = ["layer", "neuron", "explanation_id"]
    asked = requests.explode("sequences").select(*keys, pl.col("sequences").alias("sequence"), "replicate")
    planned = rows.select(*keys, "sequence").unique().join(pl.DataFrame({"replicate": range(replicates)}), how="cross")
    assert Counter(asked.iter_rows()) == Counter(planned.iter_rows())
    assert requests["n_tokens"].sum() == replicates * rows.height
    if replicates > 1:
        return
    in_parts = False
    in_order = rows.with_columns(at=pl.int_range(pl.len()))
    for request in requests.iter_rows(named=True):
        mine = pl.all_horizontal(pl.col(k) == request[k] for k in keys) & pl.col("sequence").is_in(request["sequences"])
        statuses = in_order.filter(mine).sort("at")["status"].to_list()
        assert request["n_tokens"] == len(statuses)
        assert request["status"] == next((s for s in statuses if s != "ok"), "ok")
        in_parts |= len(set(statuses)) > 1
    if not in_parts:
        told = requests.group_by("status").agg(pl.col("n_tokens").sum())
        assert dict(told.iter_rows()) == dict(rows.group_by("status").len().iter_rows())
