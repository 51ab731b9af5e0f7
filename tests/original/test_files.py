"""Neurons and results are read as the original wrote them, older forms too, from folders and over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from original.originals import neuron_content, record_of, results_content, write

import nscore as ns
from nscore._sending.retry import Retries
from nscore.neuron_explainer import (
    ActivationRecord,
    ActivationRecordSliceParams,
    ActivationScale,
    NeuronId,
    NeuronRecord,
    ScoredSequenceSimulation,
    load_neuron,
    load_neuron_async,
    load_neuron_explanations,
    load_neuron_explanations_async,
    neuron_exists,
)
from nscore.neuron_explainer._files import joined
from nscore.neuron_explainer.activations.activation_records import calculate_max_activation, normalize_activations
from nscore.neuron_explainer.fast_dataclasses import dumps, loads

SPLITS = ["train", "calibration", "valid", "test"]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, neuron_content())
    return tmp_path


class Handler(SimpleHTTPRequestHandler):
    busy = 0

    def do_GET(self):
        if Handler.busy:
            Handler.busy -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(folder, monkeypatch):
    """The folder over HTTP."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_neuron_is_read_in_both_orders_of_arguments(folder):
    path = str(folder)
    forms = [
        load_neuron(9, 6236, path),
        load_neuron(9, 6236, dataset_path=path),
        load_neuron("9", "6236", dataset_path=folder),
        load_neuron(layer_index=9, neuron_index="6236", dataset_path=path),
        load_neuron(path, 9, 6236),
        load_neuron(folder, "9", "6236"),
        load_neuron(path, layer=9, neuron=6236),
        load_neuron(dataset_path=path, layer="9", neuron=6236),
        asyncio.run(load_neuron_async(9, 6236, path)),
        asyncio.run(load_neuron_async(path, 9, 6236)),
    ]
    for neuron in forms:
        assert neuron.neuron_id == NeuronId(layer_index=9, neuron_index=6236)
        assert neuron.most_positive_activation_records[0] == ActivationRecord(**record_of(0))
        assert len(neuron.random_sample) == 15
        assert math.isnan(neuron.mean)
        assert (neuron.variance, neuron.skewness) == (0.25, None)
        assert neuron.max_activation == 5.0


def test_layers_may_have_names(tmp_path):
    write(tmp_path, neuron_content(layer="resid_post"), layer="resid_post")
    assert load_neuron("resid_post", 6236, str(tmp_path)).neuron_id.layer_index == "resid_post"
    assert load_neuron(str(tmp_path), "resid_post", 6236).neuron_id.layer_index == "resid_post"


@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((9,), {}), ((9, 1, "p", 2), {}), ((9, 1), {"layer": 3}), ((9, 1), {"dataset": "p"}), ((9, 1, 2), {})],
)
def test_arguments_that_name_no_neuron_are_an_error(given, named):
    with pytest.raises((TypeError, FileNotFoundError)):
        load_neuron(*given, **named)


def test_where_nothing_is_named_it_is_what_was_published():
    from nscore.neuron_explainer.activations.activations import _where

    published = "https://openaipublic.blob.core.windows.net/neuron-explainer/data/collated-activations"
    assert _where((9, 6236), {}) == f"{published}/9/6236.json"
    assert joined("az://openaipublic/neuron-explainer/data/collated-activations/", 9, "6236.json") == _where(
        (9, 6236), {}
    )


def test_files_are_fetched_over_http_also_from_a_busy_server(web):
    Handler.busy = 1
    assert load_neuron(9, 6236, dataset_path=web).neuron_id.neuron_index == 6236

    async def script():
        # the plain one works where a loop runs, too
        return load_neuron(web, 9, 6236), await load_neuron_async(9, 6236, web + "/")

    plain, awaited = asyncio.run(script())
    assert plain.most_positive_activation_records == awaited.most_positive_activation_records
    assert neuron_exists(web, 9, 6236)
    assert not neuron_exists(web, 9, 7)
    assert load_neuron_explanations(web, 9, 7) is None
    with pytest.raises(FileNotFoundError, match=r"9/7\.json"):
        load_neuron(9, 7, dataset_path=web)


def test_a_file_without_end_is_given_up(web, monkeypatch):
    monkeypatch.setattr("nscore.neuron_explainer._files.LARGEST", 1000)
    with pytest.raises(ns.NscoreError, match="more than 1,000 bytes"):
        load_neuron(9, 6236, dataset_path=web)


def test_a_server_that_is_not_there_is_an_error_without_the_key(monkeypatch):
    monkeypatch.setattr("nscore._sending.fetching.RETRIES", Retries(attempts=2, base_s=0.01))
    with pytest.raises(ns.NscoreError, match="cannot be fetched: ConnectError") as error:
        load_neuron(9, 6236, dataset_path="http://me:canary-key-1@127.0.0.1:9/data")
    assert "canary-key-1" not in str(error.value)


def test_what_is_missing_or_broken_is_an_error_that_names_the_file(folder):
    with pytest.raises(FileNotFoundError, match=r"8.1.json"):
        load_neuron(8, 1, str(folder))
    assert neuron_exists(folder, 9, 6236)
    assert not neuron_exists(folder, 8, 1)
    path = write(folder, {}, name="1.json")
    for text, said in [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "missing required field `neuron_id`"),
        (json.dumps(neuron_content() | {"random_sample": [{"tokens": ["a"], "activations": ["b"]}]}), "activations"),
        (json.dumps(neuron_content() | {"neuron_id": {"layer_index": 1, "neuron_index": "x"}}), "neuron_index"),
    ]:
        path.write_text(text)
        with pytest.raises(ns.NscoreError, match=said) as error:
            load_neuron(9, 1, str(folder))
        assert str(path) in str(error.value)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_splits_are_the_originals_slices(folder, n):
    neuron = load_neuron(9, 6236, str(folder))
    params = ActivationRecordSliceParams(n_examples_per_split=n)
    top, random = neuron.most_positive_activation_records, neuron.random_sample
    for i, split in enumerate(SPLITS):
        expected = top[i : 4 * n : 4] + (random[i - 1 : 3 * n : 3] if i else [])
        assert getattr(neuron, f"{split}_activation_records")(activation_record_slice_params=params) == expected


def test_without_a_number_the_splits_are_equal(folder):
    write(folder, neuron_content(top=11, random=8), name="1.json")
    neuron = load_neuron(9, 1, str(folder))
    params = ActivationRecordSliceParams(None)
    assert len(neuron.train_activation_records(params)) == 2
    assert [r.tokens[-1] for r in neuron.calibration_activation_records(params)] == [" n1", " n5", " n11", " n14"]


def test_more_records_than_there_are_is_an_error(folder):
    neuron = load_neuron(9, 6236, str(folder))
    with pytest.raises(ns.TableError, match="20 top records, and 6 for each"):
        neuron.train_activation_records(ActivationRecordSliceParams(6))
    few = NeuronRecord(NeuronId(layer_index=0, neuron_index=0), most_positive_activation_records=neuron.random_sample)
    with pytest.raises(ns.TableError, match="0 random records"):
        few.valid_activation_records(ActivationRecordSliceParams(2))


@pytest.mark.parametrize("old", [False, True])
def test_results_are_read_under_all_their_names(tmp_path, old):
    write(tmp_path, results_content(old=old), layer=5, name="3.jsonl")
    found = load_neuron_explanations(str(tmp_path), 5, "3")
    assert found == asyncio.run(load_neuron_explanations_async(tmp_path, "5", 3))
    assert found.neuron_id == NeuronId(layer_index=5, neuron_index=3)
    (scored,) = found.scored_explanations
    assert scored.explanation == "the letter b"
    assert scored.get_preferred_score() == 1.0
    sequence = scored.scored_simulation.scored_sequence_simulations[1]
    assert sequence.true_activations == [0.0, 3.0]
    assert sequence.simulation is sequence.sequence_simulation
    assert sequence.simulation.activation_scale is ActivationScale.NEURON_ACTIVATIONS
    assert sequence.simulation.distribution_values == [[0.5, 0.0], [2.0]]
    assert sequence.simulation.uncalibrated_simulation.expected_activations == [1.0, 4.0]


def test_what_older_files_leave_out_is_left_open(tmp_path):
    content = results_content()
    sequence = content["scored_explanations"][0]["scored_simulation"]["scored_sequence_simulations"][0]
    simulated = sequence["sequence_simulation"]
    for name in ("distribution_values", "distribution_probabilities", "uncalibrated_simulation"):
        del simulated[name]
    simulated |= {"response": {"choices": []}, "expected_activations": [None, math.nan]}
    del sequence["ev_correlation_score"], sequence["rsquared_score"]
    content["scored_explanations"] *= 1
    write(tmp_path, content, layer=5, name="3.jsonl")
    first = (
        load_neuron_explanations(tmp_path, 5, 3).scored_explanations[0].scored_simulation.scored_sequence_simulations[0]
    )
    assert all(map(math.isnan, first.simulation.expected_activations))
    assert (first.simulation.distribution_values, first.rsquared_score) == ([], None)


def test_several_neurons_in_a_file_of_one_are_an_error(tmp_path):
    path = write(tmp_path, results_content(), layer=5, name="3.jsonl")
    path.write_text(path.read_text() + "\n" + path.read_text())
    with pytest.raises(ns.NscoreError, match="2 lines"):
        load_neuron_explanations(tmp_path, 5, 3)


def test_dataclasses_come_back_from_their_json():
    for content in (neuron_content(), results_content(), results_content(old=True), record_of(3)):
        made = loads(json.dumps(content))
        assert type(made).__name__ in {"NeuronRecord", "NeuronSimulationResults", "ActivationRecord"}
        again = json.loads(dumps(made))
        assert again["dataclass_name"] == type(made).__name__
        assert dumps(loads(dumps(made))) == dumps(made)


def test_other_json_is_given_as_it_is():
    assert loads('{"a": [1, {"tokens": ["x"], "activations": [2]}]}') == {"a": [1, ActivationRecord(["x"], [2.0])]}
    assert loads('{"dataclass_name": "Nothing", "a": 1}') == {"a": 1}
    with pytest.raises(ns.NscoreError, match="Nothing"):
        loads('{"dataclass_name": "Nothing", "a": 1}', backwards_compatible=False)


def test_half_a_character_does_not_stop_a_neuron():
    content = neuron_content()
    content["most_positive_activation_records"][0]["tokens"][0] = "\ud83d"
    assert loads(json.dumps(content)).most_positive_activation_records[0].tokens[0] == "\ufffd"


def test_fields_are_named_and_placed_as_in_the_original():
    from nscore.neuron_explainer import SequenceSimulation

    scale = ActivationScale("neuron_activations")
    made = SequenceSimulation(["a"], [1.0], scale, [[1.0]], [[1.0]])
    assert ScoredSequenceSimulation(made, [2.0], 0.5) == ScoredSequenceSimulation(
        simulation=made, true_activations=[2.0], ev_correlation_score=0.5
    )
    nan = [ScoredSequenceSimulation(made, [2.0], math.nan, float("nan")) for _ in range(2)]
    assert nan[0] == nan[1]
    assert nan[0] != ScoredSequenceSimulation(made, [2.0], 0.0)
    assert ActivationRecord([1.0], ["a"]) == ActivationRecord(tokens=["a"], activations=[1.0])
    with pytest.raises(TypeError):
        NeuronId(5, 3)  # one form has the layer first, the other the neuron


def test_the_largest_activation_and_the_scale_of_prompts():
    records = [ActivationRecord(["a", "b"], [-1.0, 2.5]), ActivationRecord([], []), ActivationRecord(["c"], [1.0])]
    assert calculate_max_activation(records) == 2.5
    assert calculate_max_activation([ActivationRecord(["a"], [-3.0])]) == 0.0
    assert normalize_activations([2.5, 2.49, -1.0, 99.0], 2.5) == [10, 9, 0, 10]
    assert normalize_activations([1.0], 0.0) == [0]
