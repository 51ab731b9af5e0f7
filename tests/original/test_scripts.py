"""Scripts written for the original run when their imports name nscore, against a model server, over real sockets."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys

import pytest
from asking import answer, serve, value
from model_server import ModelServer
from original.originals import correlation, neuron_content, record_of, write

from nscore import neuron_explainer
from nscore.neuron_explainer import (
    ActivationRecordSliceParams,
    ApiClient,
    LogprobFreeExplanationTokenSimulator,
    UncalibratedNeuronSimulator,
    load_neuron_async,
    make_simulator_and_score,
    make_uncalibrated_explanation_simulator,
    simulate_and_score,
)
from nscore.neuron_explainer._asking import forget

# As in the cells of a notebook: awaits stand by themselves. The explanation is given, instead of an explainer's.
CELLS = """
import os

os.environ["OPENAI_API_KEY"] = "put-key-here"

from neuron_explainer.activations.activation_records import calculate_max_activation
from neuron_explainer.activations.activations import ActivationRecordSliceParams, load_neuron
from neuron_explainer.explanations.calibrated_simulator import UncalibratedNeuronSimulator
from neuron_explainer.explanations.prompt_builder import PromptFormat
from neuron_explainer.explanations.scoring import make_explanation_simulator, simulate_and_score
from neuron_explainer.explanations.simulator import ExplanationNeuronSimulator

SIMULATOR_MODEL_NAME = "text-davinci-003"

neuron_record = load_neuron(9, 6236, dataset_path="data")

slice_params = ActivationRecordSliceParams(n_examples_per_split=1)
train_activation_records = neuron_record.train_activation_records(
    activation_record_slice_params=slice_params
)
calibration_activation_records = neuron_record.calibration_activation_records(slice_params)
valid_activation_records = neuron_record.valid_activation_records(
    activation_record_slice_params=slice_params
)
print(f"max={calculate_max_activation(train_activation_records)}")
explanation = "words for colours"

simulator = UncalibratedNeuronSimulator(
    ExplanationNeuronSimulator(
        SIMULATOR_MODEL_NAME,
        explanation,
        max_concurrent=1,
        prompt_format=PromptFormat.INSTRUCTION_FOLLOWING,
    )
)
scored_simulation = await simulate_and_score(simulator, valid_activation_records)
print(f"score={scored_simulation.get_preferred_score():.2f}")

calibrated = await make_explanation_simulator(
    explanation,
    calibration_activation_records,
    SIMULATOR_MODEL_NAME,
)
scored_simulation = await simulate_and_score(calibrated, valid_activation_records)
print(f"score={scored_simulation.get_preferred_score():.2f}")
predicted, true = [], []
for scored in scored_simulation.scored_sequence_simulations:
    predicted += scored.simulation.uncalibrated_simulation.expected_activations
    true += scored.true_activations
print(predicted)
print(true)
"""

LATER = """
import asyncio

from neuron_explainer.activations.activations import ActivationRecordSliceParams, load_neuron
from neuron_explainer.api_client import ApiClient
from neuron_explainer.explanations.scoring import make_uncalibrated_explanation_simulator, simulate_and_score

async def main():
    neuron = load_neuron("data", "9", "6236")
    client = ApiClient(model_name="gpt-4o", max_concurrent=5)
    records = neuron.valid_activation_records(ActivationRecordSliceParams(n_examples_per_split=2))
    simulator = await make_uncalibrated_explanation_simulator(explanation="words for colours", client=client)
    result = await simulator.simulate(records[0].tokens)
    for token, real, activation in zip(result.tokens, records[0].activations, result.expected_activations):
        print(str(token), real, activation)
    scored = await simulate_and_score(simulator, records)
    print(f"score={scored.get_preferred_score():.2f}")

asyncio.run(main())
"""

RUN = """
import ast, asyncio, inspect, sys
code = compile(open(sys.argv[1]).read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
found = {}
async def main():
    made = eval(code, found)
    if inspect.isawaitable(made):
        await made
asyncio.run(main()) if "await simulate_and_score(simulator, valid" in open(sys.argv[1]).read() else exec(code, {})
"""


@pytest.fixture(autouse=True)
def servers_are_new():
    forget()


def printed(tmp_path, server, script):
    """What a script prints whose imports name nscore."""
    write(tmp_path / "data", neuron_content())
    file = tmp_path / "script.py"
    file.write_text(re.sub(r"^from neuron_explainer\b", "from nscore.neuron_explainer", script, flags=re.MULTILINE))
    environment = os.environ | {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "k"}
    command = [sys.executable, "-W", "error", "-W", "ignore:the calibration has the slope", "-c", RUN, str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_notebook_runs_when_its_imports_are_changed(tmp_path):
    with ModelServer(answer=answer, max_logprobs=3) as server:
        lines = printed(tmp_path, server, CELLS)
    assert lines[0] == "max=5.0"
    predicted, true = ([float(x) for x in line.strip("[]").split(", ")] for line in lines[3:])
    r = correlation(true, predicted)
    assert true == record_of(2)["activations"] + record_of(21)["activations"]
    assert lines[1] == f"score={r:.2f}"
    # linear calibration changes the sign of the correlation, or nothing
    assert lines[2] in {f"score={r:.2f}", f"score={-r:.2f}"}


def test_a_script_of_the_later_form_runs_too(tmp_path):
    with serve() as server:
        lines = printed(tmp_path, server, LATER)
    shown = zip(*record_of(2).values(), strict=True)
    assert lines[:-1] == [f"{token} {real} {float(value(token))}" for token, real in shown]
    assert re.fullmatch(r"score=-?[01]\.\d\d", lines[-1])


def test_many_neurons_at_once_in_a_running_loop(tmp_path, monkeypatch):
    for neuron in range(12):
        write(tmp_path, neuron_content(neuron=neuron), name=f"{neuron}.json")

    async def notebook(client):
        params = ActivationRecordSliceParams(2)

        async def one(number):
            neuron = await load_neuron_async(9, number, tmp_path)
            records = neuron.valid_activation_records(params)
            if number % 2:
                made = make_uncalibrated_explanation_simulator(f"words {number}", client)
                return await make_simulator_and_score(made, records)
            simulator = UncalibratedNeuronSimulator(LogprobFreeExplanationTokenSimulator(client, f"words {number}"))
            return await simulate_and_score(simulator, records)

        return await asyncio.gather(*map(one, range(12)))

    with serve(wait_s=0.002) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        scores = asyncio.run(notebook(ApiClient("tiny", max_concurrent=5)))
        assert server.max_in_flight <= 5
    assert len({s.get_preferred_score() for s in scores}) == 1  # the model answers by the token alone
    assert all(s.coverage == 1.0 and len(s.scored_sequence_simulations) == 4 for s in scores)


LISTED = {
    "explanations.scoring": "flatten_list correlation_score score_from_simulation rsquared_score_from_sequences "
    "absolute_dev_explained_score_from_sequences make_uncalibrated_explanation_simulator make_explanation_simulator "
    "aggregate_scored_sequence_simulations simulate_and_score make_simulator_and_score",
    "explanations.simulator": "NeuronSimulator ExplanationNeuronSimulator ExplanationTokenByTokenSimulator "
    "LogprobFreeExplanationTokenSimulator",
    "explanations.calibrated_simulator": "CalibratedNeuronSimulator UncalibratedNeuronSimulator "
    "LinearCalibratedNeuronSimulator PercentileMatchingCalibratedNeuronSimulator",
    "explanations.explanations": "ActivationScale SequenceSimulation ScoredSequenceSimulation ScoredSimulation "
    "ScoredExplanation NeuronSimulationResults",
    "explanations.prompt_builder": "PromptFormat",
    "activations.activations": "ActivationRecord NeuronId NeuronRecord ActivationRecordSliceParams load_neuron",
    "activations.activation_records": "calculate_max_activation",
    "api_client": "ApiClient",
}


@pytest.mark.parametrize("module", LISTED)
def test_every_name_is_in_its_module_and_on_the_package(module):
    there = importlib.import_module(f"nscore.neuron_explainer.{module}")
    for name in LISTED[module].split():
        assert getattr(there, name) is getattr(neuron_explainer, name)
        assert name in there.__all__
        assert name in neuron_explainer.__all__
        assert getattr(there, name).__doc__
