"""`openai` files follow the rules of the original's reader, and say what was calibrated, distributed, and in which unit."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reference import NUMPY

import nscore as ns
from nscore.errors import SettingError, TableError

# What each kind of object must have, and in which order of importance nothing else: the newest names alone.
FIELDS = {
    "NeuronSimulationResults": {"neuron_id": "NeuronId", "scored_explanations": ["ScoredExplanation"]},
    "NeuronId": {"neuron_index": int, "layer_index": (int, str)},
    "ScoredExplanation": {"explanation": str, "scored_simulation": "ScoredSimulation"},
    "ScoredSimulation": {"scored_sequence_simulations": ["ScoredSequenceSimulation"]},
    "ScoredSequenceSimulation": {"sequence_simulation": "SequenceSimulation", "true_activations": [float]},
    "SequenceSimulation": {
        "tokens": [str],
        "expected_activations": [float],
        "activation_scale": str,
        "distribution_values": [[float]],
        "distribution_probabilities": [[float]],
        "uncalibrated_simulation": "SequenceSimulation",
    },
}
SCORES = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]
SCORED = {"ScoredSimulation", "ScoredSequenceSimulation"}
SCALES = {"neuron_activations", "simulated_normalized_activations", "human_predicted_activations"}
NORMALIZED = "simulated_normalized_activations"


def read(file):
    """A file as the original's reader takes it: one line, each object of the class that it names, no field missing or more."""
    lines = [line for line in file.read_bytes().decode().split("\n") if line]
    assert len(lines) == 1
    found = json.loads(lines[0], parse_constant=pytest.fail)
    assert_kind(found, "NeuronSimulationResults")
    return found


def assert_kind(value, kind):
    if isinstance(kind, list):
        assert isinstance(value, list)
        for each in value:
            assert_kind(each, kind[0])
    elif isinstance(kind, str):
        if kind == "SequenceSimulation" and value is None:
            return
        fields = FIELDS[kind] | (dict.fromkeys(SCORES, (float, type(None))) if kind in SCORED else {})
        assert next(iter(value)) == "dataclass_name"
        assert value["dataclass_name"] == kind
        assert set(value) == {"dataclass_name", *fields}
        for name, inner in fields.items():
            assert_kind(value[name], inner)
        if kind == "SequenceSimulation":
            lengths = {len(value[name]) for name, inner in fields.items() if isinstance(inner, list)}
            assert lengths == {len(value["tokens"])}
            assert value["activation_scale"] in SCALES
    else:
        assert isinstance(value, kind), (value, kind)


def sequences(found, explanation=0):
    return found["scored_explanations"][explanation]["scored_simulation"]["scored_sequence_simulations"]


def table(**columns):
    """Two records of neuron 7, with a raw prediction beside the calibrated one."""
    usual = {
        "layer": 5,
        "neuron": 7,
        "explanation_id": "a",
        "sequence": [0, 0, 0, 1, 1],
        "position": [0, 1, 2, 0, 1],
        "token": ["a", " red", "\ud7ff\u2028", "", '"\t'],
        "activation": [0.0, 2.5, 1.0, 0.0, 0.25],
        "predicted": [0.1, 2.1, 1.1, 0.1, 0.1],
        "predicted_raw": [0.0, 10.0, 5.0, 0.0, 0.0],
    }
    return pl.DataFrame(usual | columns)


def texts(**columns):
    return pl.DataFrame({"layer": 5, "neuron": 7, "explanation_id": ["a"], "explanation": ["the colour red"]} | columns)


def export(simulated, out, explanations=None, **options):
    return ns.export_files(
        "openai",
        None,
        out,
        simulated=simulated,
        explanations=texts() if explanations is None else explanations,
        **options,
    )


def test_a_calibrated_prediction_carries_the_raw_one_and_the_units_of_both(tmp_path):
    export(table(), tmp_path / "out")
    found = read(tmp_path / "out/5/7.jsonl")
    first = sequences(found)[0]["sequence_simulation"]
    assert first["tokens"] == ["a", " red", "\ud7ff\u2028"]
    assert (first["activation_scale"], first["expected_activations"]) == ("neuron_activations", [0.1, 2.1, 1.1])
    before = first["uncalibrated_simulation"]
    assert (before["activation_scale"], before["expected_activations"]) == (NORMALIZED, [0.0, 10.0, 5.0])
    assert before["uncalibrated_simulation"] is None
    # a record on which calibration changes nothing visible belongs to an explanation that is calibrated all the same
    assert sequences(found)[1]["sequence_simulation"]["uncalibrated_simulation"] is not None


@pytest.mark.parametrize("raw", ["absent", "the same"])
def test_a_prediction_that_is_not_calibrated_has_no_other_in_it(tmp_path, raw):
    simulated = table().with_columns(predicted="predicted_raw")
    export(simulated.drop("predicted_raw") if raw == "absent" else simulated, tmp_path / "out")
    for sequence in sequences(read(tmp_path / "out/5/7.jsonl")):
        assert sequence["sequence_simulation"]["activation_scale"] == NORMALIZED
        assert sequence["sequence_simulation"]["uncalibrated_simulation"] is None


def test_scores_are_numpys_and_pooled_over_tokens(tmp_path):
    export(table(), tmp_path / "out")
    found = read(tmp_path / "out/5/7.jsonl")
    t, p = (table()[c].to_numpy() for c in ("activation", "predicted"))
    pooled = found["scored_explanations"][0]["scored_simulation"]
    for name in SCORES:
        assert pooled[name] == pytest.approx(NUMPY[name](t, p), abs=1e-12)
        assert sequences(found)[0][name] == pytest.approx(NUMPY[name](t[:3], p[:3]), abs=1e-12)
    assert sequences(found)[1]["ev_correlation_score"] == 0.0  # predicted is constant there


def test_a_score_that_is_no_finite_number_is_null_as_the_originals_writer_has_it(tmp_path):
    silent = table(activation=0.0, predicted=[0.0, 0.0, 0.0, 1.0, 0.0], predicted_raw=0.0)
    scores = ns.score_sequences(silent)["rsquared_score"].to_list()
    assert math.isnan(scores[0])
    assert math.isinf(scores[1])
    export(silent, tmp_path / "out")
    assert [s["rsquared_score"] for s in sequences(read(tmp_path / "out/5/7.jsonl"))] == [None, None]


def test_the_distribution_of_a_simulator_stands_where_the_prediction_is_that_it_belongs_to(tmp_path):
    chances = [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0], None, [0.25, 0.75]]
    spread = table().with_columns(distribution=pl.Series(chances, dtype=pl.List(pl.Float64)))
    export(spread, tmp_path / "a")
    calibrated = sequences(read(tmp_path / "a/5/7.jsonl"))
    assert calibrated[0]["sequence_simulation"]["distribution_values"] == [[], [], []]
    before = calibrated[1]["sequence_simulation"]["uncalibrated_simulation"]
    assert before["distribution_values"] == [[], [0.0, 1.0]]
    assert before["distribution_probabilities"] == [[], [0.25, 0.75]]
    export(spread.drop("predicted_raw"), tmp_path / "b")
    raw = sequences(read(tmp_path / "b/5/7.jsonl"))[0]["sequence_simulation"]
    assert raw["distribution_values"] == [[0.0, 1.0]] * 3
    assert raw["distribution_probabilities"] == chances[:3]


def test_explanations_stand_in_the_order_of_their_numbers(tmp_path):
    ids = [str(i) for i in range(12)]
    many = pl.concat([table(explanation_id=pl.Series([i] * 5)) for i in ids])
    told = pl.concat([texts(explanation_id=[i], explanation=[f"text {i}"]) for i in ids])
    export(many, tmp_path / "out", told)
    found = read(tmp_path / "out/5/7.jsonl")
    assert [e["explanation"] for e in found["scored_explanations"]] == [f"text {i}" for i in ids]


@pytest.mark.parametrize(
    ("layer", "said", "folder"),
    [(5, 5, "5"), ("5", 5, "5"), ("05", "05", "05"), ("blocks.5.mlp", "blocks.5.mlp", "blocks.5.mlp")],
)
def test_a_layer_is_a_number_where_it_is_spelled_as_one(tmp_path, layer, said, folder):
    export(table(layer=layer), tmp_path / "out", texts(layer=layer))
    assert read(tmp_path / f"out/{folder}/7.jsonl")["neuron_id"]["layer_index"] == said


def test_a_neuron_without_a_number_is_refused(tmp_path):
    with pytest.raises(TableError, match="openai numbers its neurons"):
        export(table(neuron="x7"), tmp_path / "out", texts(neuron="x7"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["token", "position"])
def test_a_column_that_the_format_needs_is_named(tmp_path, column):
    with pytest.raises(TableError, match=f"column '{column}': missing column"):
        export(table().drop(column), tmp_path / "out")


def test_texts_are_needed_and_those_that_are_missing_are_counted(tmp_path):
    with pytest.raises(SettingError, match="explanations="):
        ns.export_files("openai", None, tmp_path / "out", simulated=table())
    two = pl.concat([table(), table(explanation_id="b")])
    more = pl.concat([texts(), texts(explanation_id=["c"])])
    done = export(two, tmp_path / "out", more)
    assert done.left_out == {"explanations whose text is not known": 1, "explanations that are not in simulated": 1}
    assert done.incomplete
    assert len(read(tmp_path / "out/5/7.jsonl")["scored_explanations"]) == 1


FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e12, max_value=1e12)


@st.composite
def calibrated_tables(draw):
    rows = draw(st.lists(st.tuples(st.text(max_size=4), FLOATS, FLOATS, FLOATS), min_size=2, max_size=8))
    cut = draw(st.integers(1, len(rows) - 1))
    places = [(0, i) for i in range(cut)] + [(1, i) for i in range(len(rows) - cut)]
    names = ["sequence", "position", "token", "activation", "predicted", "predicted_raw"]
    told = [(*place, *row) for place, row in zip(places, rows, strict=True)]
    keys = {"layer": 5, "neuron": 7, "explanation_id": "0"}
    lists = st.lists(st.floats(0, 10), max_size=3)
    values = [draw(lists) for _ in rows]
    return (
        pl.DataFrame(told, schema=names, orient="row", infer_schema_length=None)
        .select(*(pl.lit(v).alias(k) for k, v in keys.items()), pl.all())
        .with_columns(
            distribution_values=pl.Series(values, dtype=pl.List(pl.Float64)),
            distribution_probabilities=pl.Series(values, dtype=pl.List(pl.Float64)),
        )
    )


@given(calibrated_tables(), st.text())
@settings(max_examples=40, deadline=None)
def test_a_second_export_of_what_was_imported_is_the_first_to_the_byte(simulated, text):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(simulated, folder / "a", texts(explanation_id=["0"], explanation=[text]))
        read(folder / "a/5/7.jsonl")
        ns.import_files("openai", folder / "a", folder / "back", distribution=True)
        back = pl.read_parquet(folder / "back/simulated.parquet").select(simulated.columns)
        raw = (
            back["predicted_raw"]
            if simulated["predicted_raw"].ne(simulated["predicted"]).any()
            else simulated["predicted"]
        )
        assert_frame_equal(back, simulated.with_columns(raw), check_exact=True, check_dtypes=False)
        ns.export_files("openai", folder / "back", folder / "b")
        assert (folder / "a/5/7.jsonl").read_bytes() == (folder / "b/5/7.jsonl").read_bytes()


def test_the_unit_that_was_published_is_the_one_that_is_exported_again(tmp_path):
    simulated = table().drop("predicted_raw")
    export(simulated, tmp_path / "a")
    file = tmp_path / "a/5/7.jsonl"
    file.write_text(file.read_text().replace(NORMALIZED, "human_predicted_activations"))
    ns.import_files("openai", tmp_path / "a", tmp_path / "back")
    ns.export_files("openai", tmp_path / "back", tmp_path / "b")
    assert (tmp_path / "b/5/7.jsonl").read_bytes() == file.read_bytes()
