"""Simulators ask as nscore's engine does, in the signatures of both originals; what is not answered is never zero."""

from __future__ import annotations

import asyncio
import json
import logging
import math

import polars as pl
import pytest
from asking import answer, is_asked, serve, value
from model_server import ModelServer
from original.originals import same
from simulation_tables import explained, record

import nscore as ns
from nscore.neuron_explainer import (
    ActivationRecord,
    ActivationScale,
    ApiClient,
    ExplanationNeuronSimulator,
    ExplanationTokenByTokenSimulator,
    FewShotExampleSet,
    LinearCalibratedNeuronSimulator,
    LogprobFreeExplanationTokenSimulator,
    PercentileMatchingCalibratedNeuronSimulator,
    PromptFormat,
    make_explanation_simulator,
    make_uncalibrated_explanation_simulator,
    sequence_simulations,
    simulate_and_score,
)
from nscore.neuron_explainer._asking import forget

ALL = [ExplanationNeuronSimulator, ExplanationTokenByTokenSimulator, LogprobFreeExplanationTokenSimulator]
TOKENS = ["the", " red", "\tfox", "\n", " 10", "10", "é", ""]


@pytest.fixture(autouse=True)
def servers_are_new():
    """A port may be another server's than in the test before."""
    forget()


@pytest.fixture(scope="module")
def logprobs():
    # of the likeliest tokens three are enough here: fifteen take the little model seconds
    with ModelServer(answer=answer, max_logprobs=3) as server:
        yield server


@pytest.fixture(scope="module")
def plain():
    with serve() as server:
        yield server


@pytest.fixture
def at(monkeypatch):
    """Has the environment name a server."""

    def at(server):
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "canary-key-1")
        for name, usual in {"answer": answer, "api_key": None, "structured": True, "refusal": None}.items():
            setattr(server, name, usual)
        server.forget()
        return server

    return at


def simulated(simulator, tokens=TOKENS):
    return asyncio.run(simulator.simulate(tokens))


def by_nscore(server, name, tokens=TOKENS):
    backend = ns.OpenAI(model="tiny", base_url=server.base_url)
    frame = ns.simulate(record(tokens), explained("red things"), simulator=name, backend=backend, distribution=True)
    return sequence_simulations(frame)[0]


@pytest.mark.parametrize(("cls", "name"), [(ALL[0], "all_at_once"), (ALL[1], "token_by_token")])
@pytest.mark.parametrize("form", ["model", "client"])
def test_what_is_predicted_is_what_nscore_predicts(at, logprobs, cls, name, form):
    at(logprobs)
    made = simulated(cls("tiny" if form == "model" else ApiClient("tiny"), "red things"))
    expected = by_nscore(logprobs, name)
    assert made == expected
    assert made.tokens == TOKENS
    assert made.activation_scale == ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS
    assert made.uncalibrated_simulation is None
    for x, values, chances in zip(
        made.expected_activations, made.distribution_values, made.distribution_probabilities, strict=True
    ):
        assert math.fsum(chances) == pytest.approx(1.0)
        assert x == pytest.approx(math.fsum(v * p for v, p in zip(values, chances, strict=True)))


@pytest.mark.parametrize("form", ["model", "client"])
@pytest.mark.parametrize("with_logprobs", [False, True])
def test_the_logprob_free_simulator_takes_the_numbers_as_they_are(at, plain, logprobs, form, with_logprobs):
    server = at(logprobs if with_logprobs else plain)
    tokens = ["the", " red", "fox", "tea"]
    made = simulated(
        LogprobFreeExplanationTokenSimulator("tiny" if form == "model" else ApiClient("tiny"), "red"), tokens
    )
    asked = [r.body for r in server.requests if is_asked(r)]
    assert len(asked) == 1
    assert ('"records"' in str(asked[0]["messages"])) == (
        form == "client"
    )  # JSON by the later form, lines by the older
    assert "logprobs" not in asked[0]
    assert made.expected_activations == [float(value(t)) for t in tokens]  # the last token, too
    assert (made.distribution_values, made.distribution_probabilities) == ([], [])


def test_both_originals_signatures_are_taken(at, plain):
    at(plain)
    client = ApiClient("tiny", max_concurrent=3)
    few, form = FewShotExampleSet.NEWER, PromptFormat.INSTRUCTION_FOLLOWING
    for cls in ALL:
        for made, most in [
            (cls("tiny", "e", 1, few, form, True), 1),
            (
                cls(model_name="tiny", explanation="e", max_concurrent=2, few_shot_example_set=few, prompt_format=form),
                2,
            ),
            (cls("tiny", "e"), 10),
            (cls(client, "e", few, form), 3),
            (cls(client=client, explanation="e", few_shot_example_set=few, prompt_format=form), 3),
        ]:
            assert made.explanation == "e"
            assert made.client is made.api_client
            assert made.client.max_concurrent == most
            if most != 10:
                assert (made.few_shot_example_set, made.prompt_format) == (few, form)
        for wrong in [(), (client,), (client, "e", few, form, 1), ("tiny", "e", 1, few, form, True, 1)]:
            with pytest.raises(TypeError, match=cls.__name__):
                cls(*wrong)
        with pytest.raises(ns.SimulatorError, match="no client"):
            simulated(cls(None, "e"))


def test_prompts_can_be_looked_at_without_a_server():
    whole = ExplanationNeuronSimulator(None, "red things").make_simulation_prompt(["a", "b"])
    assert whole.endswith("red things\n<start>\na\tunknown\nb\tunknown\n<end>\n")
    chat = LogprobFreeExplanationTokenSimulator(None, "x").make_simulation_prompt(["a"], "blue things")
    assert "blue things" in chat[-1]["content"]
    one = ExplanationTokenByTokenSimulator(None, "x").make_single_token_simulation_prompt(["a", "b", "c"], "red", 1)
    assert one[-1]["content"].endswith("Text: ab\nLast token: b")


def spoilt(kind):
    """What a model answers that does not do as it is told."""

    def reply(messages):
        text = answer(messages)
        if '"records"' not in text:
            return text
        content = json.loads(text)
        numbers = content["records"][0]["activations"]
        if kind == "short":
            numbers.pop()
        elif kind == "nan":
            numbers[1]["activation"] = math.nan
        elif kind == "far":
            numbers[1]["activation"] = 11
        return "I cannot say." if kind == "talk" else json.dumps(content)

    return reply


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        ("short", ["length_mismatch"] * 3),
        ("talk", ["parse_error"] * 3),
        ("nan", ["ok", "parse_error", "ok"]),
        ("far", ["ok", "parse_error", "ok"]),
    ],
)
def test_an_answer_that_cannot_be_read_is_nan_and_told(at, plain, caplog, kind, statuses):
    server = at(plain)
    server.answer, server.structured = spoilt(kind), False
    with caplog.at_level(logging.WARNING):
        made = simulated(LogprobFreeExplanationTokenSimulator(ApiClient("tiny"), "red"), ["the", "red", "fox"])
    assert made.status == statuses
    for token, x, status in zip(made.tokens, made.expected_activations, statuses, strict=True):
        assert x == value(token) if status == "ok" else math.isnan(x)
    assert f"{sum(s != 'ok' for s in statuses)} " in caplog.text


def test_a_refusal_is_nan_and_the_others_are_scored(at, plain):
    def refuse_fox(messages):
        return "No." if "fox" in messages[-1]["content"] else answer(messages)

    server = at(plain)
    server.answer, server.structured = refuse_fox, False
    records = [ActivationRecord(["a", "fox"], [1.0, 2.0]), ActivationRecord(["red", "tea"], [1.0, 0.0])]

    async def script():
        simulator = await make_uncalibrated_explanation_simulator("red", ApiClient("tiny"))
        return await simulate_and_score(simulator, records)

    with pytest.warns(UserWarning, match=r"2 of 4 tokens have no prediction \(2 parse_error\)"):
        made = asyncio.run(script())
    assert made.coverage == 0.5
    assert all(map(math.isnan, made.scored_sequence_simulations[0].simulation.expected_activations))
    assert math.isnan(made.scored_sequence_simulations[0].ev_correlation_score)
    assert made.scored_sequence_simulations[0].simulation.uncalibrated_simulation.status == ["parse_error"] * 2


@pytest.mark.parametrize("cls", ALL[:2])
def test_a_server_without_logprobs_is_refused_before_anything_is_asked(at, plain, cls):
    server = at(plain)
    with pytest.raises(ns.BackendError, match=r"cannot work with tiny .* json_list"):
        simulated(cls("tiny", "red"))
    assert not any(map(is_asked, server.requests))


def test_texts_of_no_tokens_and_of_too_many_are_not_sent(at, plain):
    server = at(plain)
    simulator = LogprobFreeExplanationTokenSimulator(ApiClient("tiny"), "red")
    assert simulated(simulator, []).expected_activations == []
    assert not server.requests
    made = simulated(simulator, ["a"] * 5000)
    assert set(made.status) == {"too_long"}
    assert all(map(math.isnan, made.expected_activations))
    assert not any(map(is_asked, server.requests))


@pytest.mark.parametrize("cls", [LinearCalibratedNeuronSimulator, PercentileMatchingCalibratedNeuronSimulator])
@pytest.mark.filterwarnings("ignore:the calibration has the slope")
def test_a_calibrated_simulator_scores_as_nscores_tables_do(at, logprobs, cls):
    at(logprobs)
    texts = {0: ["the", " red"], 1: [" fox", " sees", " a"], 2: [" blue", " sky"], 3: [" tea", " and", " 10"]}
    truth = {s: [float((s + i * i) % 5) for i in range(len(t))] for s, t in texts.items()}
    records = {s: ActivationRecord(texts[s], truth[s]) for s in texts}

    async def script():
        simulator = await make_explanation_simulator(
            "red things", [records[0], records[1]], "tiny", cls, prompt_format=PromptFormat.INSTRUCTION_FOLLOWING
        )
        return await simulate_and_score(simulator, [records[2], records[3]])

    made = asyncio.run(script())
    splits = ["calibration", "calibration", "test", "test"]
    frame = pl.concat(record(texts[s], truth[s], sequence=s, split=splits[s]) for s in texts)
    backend = ns.OpenAI(model="tiny", base_url=logprobs.base_url)
    table = ns.simulate(frame, explained("red things"), simulator="all_at_once", backend=backend)
    method = "linear" if cls is LinearCalibratedNeuronSimulator else "percentile"
    scores = ns.score(ns.calibrate(table, method)).row(0, named=True)
    for name in ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"):
        assert same(getattr(made, name), scores[name])


def test_a_server_is_probed_once_for_all_simulators(at, plain):
    server = at(plain)

    async def script():
        simulators = [LogprobFreeExplanationTokenSimulator("tiny", f"words {i}") for i in range(6)]
        return await asyncio.gather(*(s.simulate(["a", "red"]) for s in simulators))

    assert len(asyncio.run(script())) == 6
    assert sum(map(is_asked, server.requests)) == 6
    assert len(server.requests) - 6 <= 8
    server.forget()
    asyncio.run(script())  # another loop
    assert len(server.requests) == 6
