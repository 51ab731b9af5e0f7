"""The plan: which requests a simulation makes, in which shards and order, and what tells one request from another."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from asking import explanations_of, records_of
from hypothesis import given
from hypothesis import strategies as st
from simulation_tables import PROPERTY, explained, record, small_explanations, small_records
from tables import as_files

import nscore as ns
from nscore._running import plan as _plan
from nscore._running.plan import Plan
from nscore._running.shards import request_key
from nscore._tables import meeting as _meeting
from nscore._tables.meeting import meet
from nscore.simulators import resolve_simulator

SERVER = {"model": "tiny", "base_url": "http://127.0.0.1:1/v1", "api_key": "key"}


def plan_of(records, explanations, *names, limit=None, server=None, by=None, **options):
    backend = ns.OpenAI(**SERVER | (server or {}))
    simulators = [resolve_simulator(name, **options) for name in names or ("json_list",)]
    met = meet(records, explanations, by=by, splits=None, leaks="refuse")
    return Plan(met, simulators, backend, backend.assumed, limit)


def content(plan):
    """All that a plan says."""
    return [(s.index, s.digest, s.pairs.rows(), [r.key for r in s.requests], s.too_long) for s in plan.shards()]


def requests_of(plan):
    return [request for shard in plan.shards() for request in shard.requests]


def first_key(server=None, **options):
    return requests_of(plan_of(record(["a", "b"]), explained("x"), server=server, **options))[0].key


# Shards


@pytest.mark.parametrize("rows", [1, 7, 16, 1000])
def test_shards_are_whole_neurons_in_their_order(monkeypatch, rows):
    monkeypatch.setattr(_plan, "SHARD_ROWS", rows)
    records = records_of(neurons=6)
    shards = list(plan_of(records, explanations_of(6)).shards())
    assert [s.index for s in shards] == list(range(len(shards)))
    neurons = [n for s in shards for n in s.pairs["neuron"].unique().sort().to_list()]
    assert neurons == list(range(6))
    assert len(shards) == -(-6 // -(-rows // 12))
    assert pl.concat(s.pairs.select(records.columns) for s in shards).equals(records)


@PROPERTY
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=6),
    st.integers(1, 30),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_a_plan_is_the_same_whatever_the_batches_and_the_order_of_the_rows(neurons, shard_rows, batch_rows, chance):
    records = pl.concat(
        record(["a", "b", "c"][: 1 + s % 3], neuron=n, sequence=s)
        for n, count, _ in {n: (n, c, e) for n, c, e in neurons}.values()
        for s in range(count)
    )
    told = pl.concat(explained(*"xyz"[:e], neuron=n) for n, _, e in {n: (n, c, e) for n, c, e in neurons}.values())
    order = list(range(records.height))
    chance.shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_plan, "SHARD_ROWS", shard_rows)
        expected = content(plan_of(records.sort("neuron", "sequence", "position"), told))
        patch.setattr(_plan, "BATCH_ROWS", batch_rows)
        assert content(plan_of(records[order], told.reverse())) == expected


def test_a_plan_is_the_same_of_frames_of_lazy_frames_and_of_files(tmp_path):
    records, told = records_of(), explanations_of(each=2)
    expected = content(plan_of(records, told, "json_list", "shuffled_tab_list"))
    records.write_parquet(tmp_path / "records.parquet")
    told.write_parquet(tmp_path / "told.parquet")
    records.filter(pl.col("neuron") == 1).write_parquet(tmp_path / "part1.parquet")
    records.filter(pl.col("neuron") == 0).write_parquet(tmp_path / "part2.parquet")
    for given_records, given_told in (
        (records.lazy(), told.lazy()),
        (tmp_path / "records.parquet", str(tmp_path / "told.parquet")),
        (str(tmp_path / "part*.parquet"), told),
        (records.to_arrow(), told.to_pandas()),
    ):
        assert content(plan_of(given_records, given_told, "json_list", "shuffled_tab_list")) == expected


@pytest.mark.parametrize("rows", [1, 5, 24, 1000])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_plan_is_the_same_whatever_the_stretches_that_files_are_read_in(tmp_path, monkeypatch, rows, ordered):
    records = records_of(6).with_columns(
        split=pl.when(pl.col("sequence") == 1).then(pl.lit("train")).otherwise(pl.lit("test"))
    )
    told = explanations_of(6)
    monkeypatch.setattr(_plan, "SHARD_ROWS", 20)
    expected = content(plan_of(records, told))
    files = as_files(tmp_path, records if ordered else records.reverse(), n_files=4)
    monkeypatch.setattr(_meeting, "STRETCH_ROWS", rows)
    plan = plan_of(files, told)
    assert len(list(plan.meeting.stretches())) == -(-records.height // rows)
    assert content(plan) == expected
    assert sum(shard.pairs.height for shard in plan.shards()) == 48


def test_shards_are_made_as_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(_plan, "SHARD_ROWS", 1)
    plan = plan_of(records_of(neurons=50), explanations_of(50))
    assert len(list(itertools.islice(plan.shards(), 3))) == 3
    assert len(plan.digests) == 3


def test_a_plan_that_is_stopped_ends_at_its_next_shard(monkeypatch):
    monkeypatch.setattr(_plan, "SHARD_ROWS", 1)
    plan = plan_of(records_of(neurons=50), explanations_of(50))
    shards = plan.shards()
    next(shards)
    plan.stop()
    assert list(shards) == []


@pytest.mark.parametrize("change", ["activation", "token", "extra", "dtype", "explanation", "row"])
def test_a_digest_tells_whether_anything_in_the_tables_changed(change):
    records, told = records_of().with_columns(extra=pl.lit(b"\xff")), explanations_of()
    (before,) = plan_of(records, told).shards()
    match change:
        case "activation":
            records = records.with_columns(pl.col("activation") + 1e-9)
        case "token":
            records = records.with_columns(token=pl.lit("x"))
        case "extra":
            records = records.with_columns(extra=pl.lit(b"\xfe"))
        case "dtype":
            records = records.with_columns(pl.col("activation").cast(pl.Float32))
        case "explanation":
            told = told.with_columns(explanation=pl.col("explanation") + ".")
        case "row":
            records = records.filter(pl.col("sequence") > 0)
    (after,) = plan_of(records, told).shards()
    assert after.digest != before.digest


# Requests


@pytest.mark.parametrize("names", [("json_list",), ("tab_list", "shuffled_all_at_once", "token_by_token")])
def test_requests_of_one_explanation_follow_one_another_and_records_keep_their_order(names):
    requests = requests_of(plan_of(small_records(), small_explanations(), *names))
    groups = [tuple(r.group.identity.values()) for r in requests]
    assert [g for g, _ in itertools.groupby(groups)] == sorted(set(groups))
    for _, own in itertools.groupby(requests, key=lambda r: id(r.group)):
        places = [(s.record, s.start) for r in own for s in r.ask.spans]
        assert places == sorted(places)


@PROPERTY
@given(
    st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=5), min_size=1, max_size=3),
    st.sampled_from(["json_list", "tab_list", "token_by_token", "all_at_once"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 8),
    st.sampled_from(["refuse", "cut"]),
)
def test_every_row_is_asked_about_once_per_replicate_or_is_too_long(  # noqa: PLR0917
    lengths, name, pack, replicates, longest, rule
):
    if name == "all_at_once":
        replicates = 1
    records = pl.concat(
        record([f"t{i}" for i in range(length)], neuron=n, sequence=s)
        for n, own in enumerate(lengths)
        for s, length in enumerate(own)
    )
    told = pl.concat(explained("x", "y", neuron=n) for n in range(len(lengths)))
    options = {"max_record_tokens": longest, "long_records": rule, "replicates": replicates}
    if name.endswith("_list"):
        options["pack"] = pack
    for shard in plan_of(records, told, name, **options).shards():
        asked = [0] * shard.pairs.height
        for request in shard.requests:
            for (start, stop), span in zip(request.rows, request.ask.spans, strict=True):
                tokens = request.group.records[span.record][span.start : span.stop]
                assert shard.pairs["token"][start:stop].to_list() == tokens
                assert shard.pairs["sequence"][start:stop].unique().to_list() == [request.group.sequences[span.record]]
                for row in range(start, stop):
                    asked[row] += 1
        too_long = [row for start, stop in shard.too_long for row in range(start, stop)]
        assert all(asked[row] == 0 for row in too_long)
        assert sorted([row for row, n in enumerate(asked) if n == replicates] + too_long) == list(range(len(asked)))
        long = shard.pairs.with_columns(pl.len().over("explanation_id", "sequence", "neuron").alias("n"))
        beyond = pl.col("n") > longest if rule == "refuse" else pl.col("position") >= longest
        assert long.with_row_index("row").filter(beyond)["row"].to_list() == sorted(too_long)


def test_packed_records_are_those_of_one_explanation_and_no_more_than_asked():
    plan = plan_of(records_of(records=5), explanations_of(each=2), "json_list", pack=2)
    assert [len(r.ask.spans) for r in requests_of(plan)] == [2, 2, 1] * 4


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7, 11, 12, 13])
@pytest.mark.parametrize("rows", [1, 100])
def test_a_limit_makes_so_many_requests_and_leaves_the_rows_that_they_reach(monkeypatch, limit, rows):
    monkeypatch.setattr(_plan, "SHARD_ROWS", rows)
    whole = list(plan_of(records_of(), explanations_of(), "json_list", replicates=2).shards())
    cut = list(plan_of(records_of(), explanations_of(), "json_list", replicates=2, limit=limit).shards())
    keys = [r.key for s in cut for r in s.requests]
    assert keys == [r.key for s in whole for r in s.requests][:limit]
    assert [s.digest for s in cut] == [s.digest for s in whole][: len(cut)]
    assert [s.whole for s in cut] == [len(c.requests) == len(w.requests) for c, w in zip(cut, whole, strict=False)]
    assert sum(s.pairs.height for s in cut) == -(-min(limit, 12) // 2) * 4
    for shard in cut:
        for request in shard.requests:
            for (start, stop), span in zip(request.rows, request.ask.spans, strict=True):
                assert shard.pairs["token"][start:stop].to_list() == request.group.records[span.record]


def test_a_control_asks_about_another_neurons_explanation_and_keeps_its_own_keys():
    plan = plan_of(small_records(), small_explanations(), "shuffled_json_list")
    (own,) = (dict(small_explanations().select("neuron", "explanation").rows()),)
    for request in requests_of(plan):
        assert request.group.explanation in set(own.values()) - {own[request.group.identity["neuron"]]}
        assert request.group.identity["simulator"] == "shuffled_json_list"


@pytest.mark.parametrize(
    "dtype", [pl.UInt64, pl.Int8, pl.String, pl.Categorical, pl.Enum(["0", "1"])], ids=lambda d: str(d)[:11]
)
def test_keys_may_be_of_any_kind(dtype):
    text = not dtype.is_integer()
    records, told = (
        frame.with_columns(pl.col("neuron").cast(pl.String).cast(dtype) if text else pl.col("neuron").cast(dtype))
        for frame in (records_of(), explanations_of())
    )
    (shard,) = plan_of(records, told).shards()
    assert [r.key for r in shard.requests] == [r.key for r in requests_of(plan_of(records_of(), explanations_of()))]
    assert shard.pairs.schema["neuron"] == dtype


def test_keys_may_have_other_names():
    by = ["model", "layer", "neuron"]
    records = pl.concat(records_of(model=m, layer="h.0") for m in ("m", "n"))
    told = pl.concat(explanations_of(model=m, layer="h.0") for m in ("m", "n"))
    requests = requests_of(plan_of(records, told, by=by))
    assert [tuple(r.group.identity)[:3] for r in requests] == [tuple(by)] * 12
    assert [r.group.identity["model"] for r in requests] == ["m"] * 6 + ["n"] * 6


# The request key


def test_a_key_changes_with_all_that_changes_an_answer():
    keys = [
        first_key(),
        first_key(server={"model": "other"}),
        first_key(server={"base_url": "http://127.0.0.1:2/v1"}),
        first_key(server={"base_url": "http://127.0.0.1:1/v2"}),
        first_key(server={"extra": {"top_p": 0.5}}),
        first_key(temperature=0.5),
        first_key(pack=1, numbers_alone=True),
        requests_of(plan_of(record(["a", "b"]), explained("y")))[0].key,
        requests_of(plan_of(record(["a", "c"]), explained("x")))[0].key,
        requests_of(plan_of(record(["a", "b", "c"]), explained("x")))[0].key,
        *(r.key for r in requests_of(plan_of(record(["a", "b"]), explained("x"), replicates=3))),
        requests_of(plan_of(record(["a", "b"]), explained("x"), "tab_list"))[0].key,
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


@pytest.mark.parametrize(
    "server",
    [{"api_key": "another"}, {"api_key": None}, {"base_url": "http://me:pass@127.0.0.1:1/v1/?key=secret"}],
    ids=["key", "no key", "secrets in the url"],
)
def test_a_key_does_not_change_with_who_asks(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert first_key(server=server) == first_key()


@PROPERTY
@given(st.lists(st.tuples(st.text(), st.text(), st.binary(), st.integers(0, 99)), unique=True, max_size=5))
def test_no_two_requests_have_one_key(parts):
    assert len({request_key(*p) for p in parts}) == len(parts)


@PROPERTY
@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 8))
def test_moving_a_character_from_one_part_to_the_next_changes_the_key(url, path, at):
    whole = url + path
    cut = min(at, len(whole))
    moved = (whole[:cut], whole[cut:])
    assert (request_key(*moved, b"", 0) == request_key(url, path, b"", 0)) == (moved == (url, path))


def test_anthropics_replicates_have_keys_of_their_own_though_their_bodies_are_the_same():
    backend = ns.Anthropic(model="m", base_url="http://127.0.0.1:1", api_key="k")
    met = meet(record(["a"]), explained("x"), by=None, splits=None, leaks="refuse")
    requests = requests_of(Plan(met, [resolve_simulator("json_list", replicates=2)], backend, backend.assumed))
    assert requests[0].body == requests[1].body
    assert requests[0].key != requests[1].key
