"""A record that an explanation's author was shown is scored only where that is asked for by name."""

from __future__ import annotations

from functools import cache, partial

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tables import as_files, explanations, records

import nscore as ns

simulate = partial(ns.simulate, simulator="constant")

SPLITS = {1: "train", 2: "calibration", 3: "valid", 4: "test"}
INSTEAD = "Score records of a split that was held out (splits=[...]), or ask for these by name: leaks='allow' (--leaks allow)."


def in_splits():
    """One record in each split."""
    table = pl.concat([records(sequence=[1] * 3 + [2] * 3), records(sequence=[3] * 3 + [4] * 3)])
    return table.with_columns(split=pl.col("sequence").replace_strict(SPLITS, return_dtype=pl.String))


def told(*shown, other=()):
    """Explanation a, whose author was shown these sequences, and b, whose author was shown the others."""
    return explanations(shown_sequences=pl.Series([list(shown), list(other)], dtype=pl.List(pl.Int64)))


def leak(n, of, first):
    """What a leak of so many records says."""
    words = "records that would be scored were shown to the author of their explanation, the first"
    return f"{n} of {of} {words} {first}. {INSTEAD}"


@cache
def run(*simulators):
    """What simulators say of every record in every split, without a mark of what was shown."""
    return ns.simulate(in_splits(), explanations(), simulator=simulators or "constant", splits=list(SPLITS.values()))


@pytest.mark.parametrize(("sequence", "split"), [(3, "valid"), (4, "test")])
def test_a_shown_record_in_a_scored_split_is_not_simulated(sequence, split):
    with pytest.raises(ns.LeakError) as caught:
        simulate(in_splits(), told(1, sequence))
    assert str(caught.value) == leak(1, 4, f"layer=0, neuron=7, explanation_id='a', sequence={sequence}")
    assert in_splits().filter(sequence=sequence)["split"].unique().item() == split


def test_every_leak_is_counted_and_the_first_is_named():
    with pytest.raises(ns.LeakError) as caught:
        simulate(in_splits(), told(4, 3, 1, other=[4]))
    assert str(caught.value) == leak(3, 4, "layer=0, neuron=7, explanation_id='a', sequence=3")


@pytest.mark.parametrize("stage", [ns.score, ns.score_sequences])
@pytest.mark.parametrize("sequence", [3, 4])
def test_a_shown_record_in_a_scored_split_is_not_scored(stage, sequence):
    with pytest.raises(ns.LeakError) as caught:
        stage(run(), explanations=told(1, sequence))
    name = f"layer=0, neuron=7, simulator='constant', explanation_id='a', sequence={sequence}"
    assert str(caught.value) == leak(1, 4, name)


def test_a_leak_is_an_error_of_nscore():
    assert issubclass(ns.LeakError, ns.NscoreError)


def test_shown_records_in_train_and_calibration_are_fine():
    shown = told(1, 2, other=[1])
    table = simulate(in_splits(), shown)
    assert set(table["split"]) == {"calibration", "valid", "test"}
    scores = ns.score(table, explanations=shown)
    assert scores["n_sequences"].to_list() == [2, 2]
    assert_frame_equal(scores, ns.score(table))


def test_leaks_are_simulated_and_scored_where_asked_for_and_stay_marked():
    shown = told(1, 3, other=[4])
    table = simulate(in_splits(), shown, leaks="allow")
    marked = table.filter("shown").select("explanation_id", "sequence").unique().sort("explanation_id").rows()
    assert marked == [("a", 3), ("b", 4)]
    for stage in (ns.score, ns.score_sequences):
        with pytest.raises(ns.LeakError):  # the mark is enough
            stage(table)
        for explanations_ in (None, shown):
            scores = stage(table, explanations=explanations_, leaks="allow")
            assert_frame_equal(scores, stage(table.drop("shown")))


def test_a_record_that_is_marked_and_told_of_is_one_leak():
    shown = told(1, 3)
    table = simulate(in_splits(), shown, leaks="allow")
    with pytest.raises(ns.LeakError) as caught:
        ns.score(table, explanations=shown)
    assert str(caught.value) == leak(1, 4, "layer=0, neuron=7, simulator='constant', explanation_id='a', sequence=3")


def test_only_the_splits_that_are_scored_can_leak():
    assert ns.score(run(), splits=["test"], explanations=told(1, 3)).height == 2
    with pytest.raises(ns.LeakError, match=r"^1 of 2 records .* explanation_id='a', sequence=1\."):
        ns.score(run(), splits=["train"], explanations=told(1, 3))
    with pytest.raises(ns.LeakError, match=r"^1 of 2 records .* explanation_id='a', sequence=3\."):
        ns.score(run(), splits=["valid"], explanations=told(1, 3))


def test_without_splits_every_record_is_scored_and_may_leak():
    table = in_splits().drop("split")
    with pytest.raises(ns.LeakError, match=r"^1 of 8 records .* explanation_id='a', sequence=1\."):
        simulate(table, told(1))
    plain = run().drop("split")
    with pytest.raises(ns.LeakError, match=r"^2 of 8 records .* explanation_id='a', sequence=1\."):
        ns.score(plain, explanations=told(1, other=[2]))


def test_what_one_author_was_shown_is_no_leak_for_another():
    table = run().filter(explanation_id="b")
    assert ns.score(table, explanations=told(3, 4)).height == 1
    other_neuron = run().with_columns(neuron=pl.lit(8))
    assert ns.score(other_neuron, explanations=told(3, 4)).height == 2


def test_a_leak_is_one_under_every_simulator():
    table = run("lexical", "constant")
    with pytest.raises(
        ns.LeakError, match=r"^2 of 8 records .* simulator='constant', explanation_id='a', sequence=4\."
    ):
        ns.score(table, explanations=told(4))


@pytest.mark.parametrize("nothing", [[[], []], [None, None], [[1], None]])
def test_an_author_who_was_shown_nothing_leaks_nothing(nothing):
    shown = explanations(shown_sequences=pl.Series(nothing, dtype=pl.List(pl.Int64)))
    table = simulate(in_splits(), shown)
    assert not table["shown"].any()
    assert_frame_equal(ns.score(table, explanations=shown), ns.score(table.drop("shown")))


def test_explanations_that_do_not_say_what_was_shown_are_taken_at_their_word():
    table = simulate(in_splits(), explanations())
    assert "shown" not in table.columns
    assert ns.score(table, explanations=explanations()).height == 2


@pytest.mark.parametrize("dtype", [pl.Int16, pl.UInt64, pl.String])
def test_sequences_are_the_same_in_any_dtype(dtype):
    table = in_splits().with_columns(pl.col("sequence").cast(dtype))
    with pytest.raises(ns.LeakError, match=r"^1 of 4 records"):
        simulate(table, told(3))
    with pytest.raises(ns.LeakError, match=r"^1 of 4 records"):
        ns.score(run().with_columns(pl.col("sequence").cast(dtype)), explanations=told(3))


def test_explanations_may_be_lazy_or_a_file(tmp_path):
    (file,) = as_files(tmp_path, told(3), n_files=1)
    for form in (told(3).lazy(), file, str(file), told(3).to_arrow(), told(3).to_pandas()):
        with pytest.raises(ns.LeakError):
            simulate(in_splits().lazy(), form)
        with pytest.raises(ns.LeakError):
            ns.score(run().lazy(), explanations=form)


def test_keys_of_the_users_own_are_those_of_the_leak():
    names = {"layer": "hook", "neuron": "latent"}
    by = ["hook", "latent"]
    table, shown = in_splits().rename(names), told(3).rename(names)
    with pytest.raises(ns.LeakError, match="the first hook=0, latent=7, explanation_id='a', sequence=3"):
        simulate(table, shown, by=by)
    allowed = simulate(table, shown, by=by, leaks="allow").drop("shown")
    with pytest.raises(ns.LeakError, match="the first hook=0, latent=7, explanation_id='a', sequence=3"):
        ns.score(allowed, by=[*by, "explanation_id"], explanations=shown)
