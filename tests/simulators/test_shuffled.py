"""`shuffled`: the control that gives each neuron another neuron's explanation."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from simulation_tables import PROPERTY, explained, record, small_explanations, small_records

import nscore as ns
from nscore.simulators import resolve_simulator

COUNTS = st.lists(st.integers(1, 4), min_size=1, max_size=10)
SEEN = {"neuron": "seen_neuron", "explanation_id": "seen_id", "explanation": "seen_text"}


@dataclass(frozen=True)
class Echo:
    """Says which explanation it was given."""

    name: str = "echo"

    def simulate(self, pairs, *, keys, train):
        del keys, train
        seen = (pl.col(column).alias(alias) for column, alias in SEEN.items())
        return pairs.with_columns(*seen, predicted=pl.lit(0.0), status=pl.lit("ok"))


def pairs_of(counts):
    """Each neuron i with counts[i] explanations, every one beside two records of two tokens."""
    return pl.DataFrame(
        [
            {"layer": 0, "neuron": n, "explanation_id": e, "explanation": f"{n}/{e}", "sequence": s}
            | {"position": p, "token": "x", "activation": float(n), "note": f"{n}.{e}.{s}.{p}"}
            for n, count in enumerate(counts)
            for e in range(count)
            for s in range(2)
            for p in range(2)
        ]
    )


def echoed(pairs, seed=0):
    return ns.Shuffled(Echo(), seed).simulate(pairs.lazy(), keys=["layer", "neuron"], train=None).collect()


@PROPERTY
@given(COUNTS, st.integers(0, 2**32))
def test_no_neuron_gets_its_own_and_each_explanation_is_used_once(counts, seed):
    assume(2 * max(counts) <= sum(counts))
    result = echoed(pairs_of(counts), seed)
    assert (result["neuron"] != result["seen_neuron"]).all()
    drawn = result.select("neuron", "explanation_id", *SEEN.values()).unique()
    given_to = drawn.select("neuron", "explanation_id").sort("neuron", "explanation_id").rows()
    used = drawn.select("seen_neuron", "seen_id").sort("seen_neuron", "seen_id").rows()
    assert given_to == used == [(n, e) for n, count in enumerate(counts) for e in range(count)]
    assert drawn["seen_text"].to_list() == [f"{n}/{e}" for n, e in drawn.select("seen_neuron", "seen_id").rows()]


@PROPERTY
@given(COUNTS, st.integers(0, 2**32))
def test_rows_their_order_and_everything_else_stay_as_they_were(counts, seed):
    assume(2 * max(counts) <= sum(counts))
    pairs = pairs_of(counts)
    result = echoed(pairs, seed)
    unchanged = pairs.drop("explanation").columns
    assert result.columns == [*pairs.columns, *SEEN.values(), "predicted", "status"]
    assert result.select(unchanged).equals(pairs.select(unchanged))


@PROPERTY
@given(COUNTS, st.integers(0, 2**32))
def test_one_neuron_with_more_than_half_of_the_explanations_is_a_table_error(counts, seed):
    assume(2 * max(counts) > sum(counts))
    with pytest.raises(ns.TableError, match="at least two neurons") as caught:
        echoed(pairs_of(counts), seed)
    assert caught.value.problem == "too few neurons"


@PROPERTY
@given(st.integers(2, 12), st.integers(0, 2**32))
def test_the_same_seed_draws_the_same_whatever_the_order_of_the_rows(n_neurons, seed):
    pairs = pairs_of([1] * n_neurons)
    scattered = pairs.sample(fraction=1, shuffle=True, seed=seed % 1000)
    assert echoed(pairs, seed).equals(echoed(pairs, seed))
    assert echoed(scattered, seed).sort("note").equals(echoed(pairs, seed).sort("note"))


def test_other_seeds_draw_others():
    pairs = pairs_of([1] * 12)
    assert len({tuple(echoed(pairs, seed)["seen_neuron"]) for seed in range(10)}) > 5


def test_lexical_is_its_usual_inner_simulator_and_reads_the_other_explanation():
    records = pl.concat([record(["red", "blue"], neuron=n) for n in (7, 8)])
    explanations = pl.concat([explained("red", neuron=7), explained("blue", neuron=8)])
    result = ns.simulate(records, explanations, simulator="shuffled")
    assert result["simulator"].unique().to_list() == ["shuffled"]
    assert result["predicted"].to_list() == [0.0, 5.0, 5.0, 0.0]


def test_shuffled_token_lookup_predicts_from_the_other_neurons_table():
    records = pl.concat(
        record(["a", "b"], [x, 10 * x], neuron=neuron, sequence=s, split=split)
        for neuron, x in ((7, 1.0), (8, 2.0))
        for s, split in enumerate(["train", "test"])
    )
    explanations = pl.concat([explained("x", neuron=7), explained("x", neuron=8)])
    result = ns.simulate(records, explanations, simulator=["token_lookup", "shuffled_token_lookup"])
    assert result.select("neuron", "simulator", "predicted").rows() == [
        (7, "shuffled_token_lookup", 2.0),
        (7, "shuffled_token_lookup", 20.0),
        (7, "token_lookup", 1.0),
        (7, "token_lookup", 10.0),
        (8, "shuffled_token_lookup", 1.0),
        (8, "shuffled_token_lookup", 10.0),
        (8, "token_lookup", 2.0),
        (8, "token_lookup", 20.0),
    ]


def test_a_control_scores_far_below_what_it_controls():
    scores = ns.score(ns.simulate(small_records(), small_explanations(), simulator=["lexical", "shuffled"]))
    mean = dict(scores.group_by("simulator").agg(pl.col("ev_correlation_score").mean()).rows())
    assert mean["lexical"] > 0.9
    assert mean["shuffled"] < 0.3


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("shuffled", "shuffled"),
        ("shuffled_lexical", "shuffled"),
        ("shuffled_token_lookup", "shuffled_token_lookup"),
        ("shuffled_constant", "shuffled_constant"),
    ],
)
def test_its_name_tells_what_it_controls(given_name, name):
    assert resolve_simulator(given_name).name == name


def test_an_unknown_inner_simulator_suggests_a_known_one():
    with pytest.raises(ns.UnknownNameError, match="Did you mean 'token_lookup'"):
        resolve_simulator("shuffled_token_lookups")


def test_a_control_of_a_control_is_refused_by_an_error_of_nscore():
    with pytest.raises(ns.NscoreError):
        ns.simulate(small_records(), small_explanations(), simulator="shuffled_shuffled")
