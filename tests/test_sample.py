"""The bundled sample: real activations, explanations from the train records alone, small enough to ship."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import polars as pl
import pytest

import nscore as ns

FOLDER = Path(ns.sample.__file__).parent
KEYS = ["layer", "neuron"]


@pytest.fixture(scope="module")
def records():
    return ns.sample.records()


@pytest.fixture(scope="module")
def explanations():
    return ns.sample.explanations()


def test_both_tables_are_valid(records, explanations):
    ns.validate(records, "records")
    ns.validate(explanations, "explanations")


def test_both_are_sorted_by_their_keys(records, explanations):
    assert records.equals(records.sort(*KEYS, "sequence", "position"))
    assert explanations.equals(explanations.sort(*KEYS, "explanation_id"))


def test_the_parquet_files_are_under_a_megabyte_in_all():
    assert sum(file.stat().st_size for file in FOLDER.glob("*.parquet")) < 1_000_000


def test_there_are_at_least_48_neurons_each_with_one_explanation(records, explanations):
    neurons = records.select(KEYS).unique().sort(KEYS)
    assert neurons.height >= 48
    assert explanations.select(KEYS).sort(KEYS).equals(neurons)


def test_records_are_of_at_least_400_passages_of_30_to_64_tokens(records):
    lengths = records.group_by(*KEYS, "sequence").len()
    assert lengths["sequence"].n_unique() >= 400
    assert lengths["len"].is_between(30, 64).all()


def test_the_corpus_has_at_least_400_distinct_passages_and_every_record_is_one_of_them(records):
    passages = FOLDER.joinpath("corpus.txt").read_text("utf-8").splitlines()
    assert len(set(passages)) == len(passages) >= 400
    assert records["sequence"].n_unique() <= len(passages)
    assert records["sequence"].max() < len(passages)


def letters(text):
    """What the tokenizer keeps of a text: lower case, no accents; signs and spaces aside."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if c.isascii() and c.isalnum())


def test_the_tokens_of_a_record_spell_its_passage(records):
    passages = FOLDER.joinpath("corpus.txt").read_text("utf-8").splitlines()
    spelt = records.unique(["sequence", "position"]).sort("sequence", "position")
    spelt = spelt.group_by("sequence").agg(pl.col("token").str.strip_prefix("##").str.join(""))
    for sequence, text in spelt.rows():
        assert letters(text) == letters(passages[sequence])


def test_a_token_is_the_same_for_every_neuron(records):
    texts = records.group_by("sequence", "position").agg(pl.col("token").n_unique())
    assert texts["token"].max() == 1


def test_each_neuron_has_top_records_in_four_splits_and_random_ones_in_three(records):
    there = records.select(*KEYS, "stratum", "split").unique().sort(pl.all())
    four = [("top", split) for split in ("calibration", "test", "train", "valid")]
    three = [("random", split) for split in ("calibration", "test", "valid")]
    for _, part in there.group_by(KEYS):
        assert part.select("stratum", "split").rows() == sorted([*three, *four])


def test_each_split_of_a_stratum_has_as_many_records_as_another(records):
    counts = records.group_by(*KEYS, "stratum", "split").agg(pl.col("sequence").n_unique())
    assert counts["sequence"].unique().len() == 1


def test_a_top_record_fires_at_least_as_strongly_as_any_random_one(records):
    peaks = records.group_by(*KEYS, "stratum", "sequence").agg(pl.col("activation").max())
    weakest = peaks.filter(pl.col("stratum") == "top").group_by(KEYS).agg(pl.col("activation").min().alias("weakest"))
    others = peaks.filter(pl.col("stratum") == "random").join(weakest, on=KEYS)
    assert (others["activation"] <= others["weakest"]).all()


def test_the_shown_sequences_are_exactly_the_train_records(records, explanations):
    train = records.filter(pl.col("split") == "train")
    expected = train.group_by(KEYS).agg(pl.col("sequence").unique().sort()).sort(KEYS)
    assert explanations.select(*KEYS, pl.col("shown_sequences").list.sort()).rows() == expected.rows()


def test_no_shown_record_is_scored(records, explanations):
    scored = records.filter(pl.col("split").is_in(["valid", "test"])).select(*KEYS, "sequence").unique()
    shown = explanations.select(*KEYS, pl.col("shown_sequences").alias("sequence")).explode(
        "sequence", empty_as_null=False
    )
    assert scored.join(shown, on=[*KEYS, "sequence"]).is_empty()
    assert not ns.simulate(records, explanations, simulator="constant")["shown"].any()


def test_the_explanations_are_those_written_by_hand(explanations):
    written = pl.read_csv(FOLDER / "explanations.csv").sort(KEYS)
    assert explanations["explanation"].to_list() == written["explanation"].to_list()
    assert explanations["explanation"].is_unique().all()


def test_notes_tell_how_it_was_made():
    notes = FOLDER.joinpath("NOTES.md").read_text("utf-8")
    assert "MiniLM" in notes
