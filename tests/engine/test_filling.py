"""A shard that fills: rows are the mean of the replicates that were answered, whatever the order of the replies."""

from __future__ import annotations

import math
import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from simulation_tables import PROPERTY, explained, record

import nscore as ns
from nscore._running.filling import Fared, Filling
from nscore._running.plan import Plan
from nscore._tables.meeting import meet
from nscore.exchange import Usage
from nscore.simulators import Predictions

VALUES = st.one_of(st.none(), st.floats(0, 10))


def shard_of(simulator, lengths=(2, 3)):
    records = pl.concat(record(["a", "b", "c", "d"][:n], sequence=s) for s, n in enumerate(lengths))
    backend = ns.OpenAI(model="m", base_url="http://127.0.0.1:1/v1", api_key="k")
    met = meet(records, explained("x"), by=None, splits=None, leaks="refuse")
    (shard,) = Plan(met, [simulator], backend, backend.assumed).shards()
    return shard


def filled(replies, *, replicates, distribution=False, order=None):
    """The rows after replies, each a list of values; None for no prediction, a text for a request that failed."""
    shard = shard_of(ns.JsonList(replicates=replicates))
    filling = Filling(shard, replicates=replicates, distribution=distribution)
    for number in order or range(len(shard.requests)):
        request, values = shard.requests[number], replies[number]
        if isinstance(values, str):
            filling.fail(request, values)
            continue
        chances = [None if v is None else [v / 10, 1 - v / 10] for v in values]
        status = ["parse_error" if v is None else "ok" for v in values]
        mass = [None if v is None else v / 20 for v in values]
        filling.take(request, [Predictions(status, values, mass, chances)])
    return filling


@PROPERTY
@given(st.data(), st.integers(1, 4))
def test_rows_are_the_mean_over_the_replicates_that_are_known(data, replicates):
    shape = [n for n in (2, 3) for _ in range(replicates)]
    replies = [
        data.draw(st.one_of(st.sampled_from(["http_error", "refused"]), st.lists(VALUES, min_size=n, max_size=n)))
        for n in shape
    ]
    order = data.draw(st.permutations(range(len(replies))))
    rows = filled(replies, replicates=replicates, distribution=True, order=order).simulated(["layer", "neuron"])
    assert_frame_equal(
        rows, filled(replies, replicates=replicates, distribution=True).simulated(["layer", "neuron"]), check_exact=True
    )
    at = 0
    for s, n in enumerate((2, 3)):
        own = replies[s * replicates : (s + 1) * replicates]
        for i in range(n):
            known = [r[i] for r in own if not isinstance(r, str) and r[i] is not None]
            row = rows.row(at, named=True)
            first = own[0] if isinstance(own[0], str) else "parse_error"
            assert row["status"] == ("ok" if known else first)
            assert row["predicted"] == (pytest.approx(np.mean(known)) if known else None)
            assert row["digit_mass"] == (pytest.approx(np.mean(known) / 20) if known else None)
            assert (row["distribution"] is None) == (not known)
            if replicates > 1:
                assert row["n_replicates"] == len(known)
                assert row["spread"] == (pytest.approx(np.std(known, ddof=1), abs=1e-7) if len(known) > 1 else None)
            at += 1


def test_what_no_request_reached_was_not_run():
    shard = shard_of(ns.JsonList())
    rows = Filling(shard, replicates=1, distribution=False).simulated(["layer", "neuron"])
    assert rows["status"].unique().to_list() == ["not_run"]
    assert rows["predicted"].null_count() == rows.height


def test_rows_that_are_too_long_say_so_and_have_a_version_only_where_something_was_asked():
    shard = shard_of(ns.JsonList(max_record_tokens=2))
    rows = Filling(shard, replicates=1, distribution=False).simulated(["layer", "neuron"])
    assert rows["status"].to_list() == ["not_run"] * 2 + ["too_long"] * 3
    shard = shard_of(ns.JsonList(max_record_tokens=1))
    rows = Filling(shard, replicates=1, distribution=True).simulated(["layer", "neuron"])
    assert rows["prompt_version"].null_count() == 5
    assert rows.schema["prompt_version"] == pl.String


@pytest.mark.parametrize(
    ("status", "again", "expected"),
    [
        ("http_error", False, True),
        ("not_run", False, True),
        ("refused", False, False),
        ("parse_error", False, False),
        ("parse_error", True, True),
    ],
)
def test_a_shard_is_done_unless_something_in_it_is_to_be_asked_again(status, again, expected):
    filling = Filling(shard_of(ns.JsonList()), replicates=1, distribution=False)
    filling.fail(filling.shard.requests[0], status, again=again)
    assert filling.failed_calls is expected


def test_requests_are_in_the_order_of_the_plan_whatever_came_first():
    shard = shard_of(ns.JsonList(), lengths=[1] * 8)
    numbers = list(range(8))
    random.Random(1).shuffle(numbers)
    filling = Filling(shard, replicates=1, distribution=False)
    for n in numbers:
        filling.log(n, shard.requests[n], Fared("ok", 200, attempts=n + 1, usage=Usage(1, 2, 3), price=0.5))
    rows = filling.requests(["layer", "neuron"])
    assert rows["sequences"].to_list() == [[n] for n in range(8)]
    assert rows["attempts"].to_list() == list(range(1, 9))
    assert rows.select("prompt_tokens", "completion_tokens", "cached_tokens", "price").unique().rows() == [
        (1, 2, 3, 0.5)
    ]


def test_an_empty_table_of_requests_has_all_its_columns():
    filling = Filling(shard_of(ns.JsonList()), replicates=1, distribution=False)
    empty = filling.requests(["layer", "neuron"])
    filling.log(0, filling.shard.requests[0], Fared("http_error"))
    assert empty.height == 0
    assert empty.schema == filling.requests(["layer", "neuron"]).schema


def test_a_number_that_is_none_is_null_and_never_nan():
    rows = filled([[math.nan, 1.0], [None, 2.0, 3.0]], replicates=1).simulated(["layer", "neuron"])
    assert rows["predicted"].to_list() == [None, 1.0, None, 2.0, 3.0]
    assert rows["predicted"].is_nan().sum() == 0
