"""Simulations that ask a model, end to end over real sockets: what comes out is what the model said, row by row."""

from __future__ import annotations

import asyncio
import re
import threading

import httpx
import numpy as np
import polars as pl
import pytest
from asking import answer, asked, backend, correct, explanations_of, records_of, serve, value
from polars.testing import assert_frame_equal
from simulation_tables import explained, record
from tiny_model import chat_text

import nscore as ns
from nscore._running import shards as _shards
from nscore.exchange import Capabilities
from nscore.simulators import resolve_simulator

NUMBER = re.compile(r"[0-9]+")
ORDER = ["layer", "neuron", "simulator", "explanation_id", "sequence", "position"]
FIRST = [*ORDER, "token", "activation", "predicted", "status", "digit_mass"]
SERVERS = {"openai": ns.OpenAI, "vllm": ns.VLLM, "sglang": ns.SGLang, "anthropic": ns.Anthropic}


def expectation(alternatives):
    """The mean activation among (token, logprob), and the probability of all activations."""
    chances = {int(t): np.exp(p) for t, p in alternatives if t.isdigit() and int(t) <= 10}
    mass = sum(chances.values())
    return sum(n * p for n, p in chances.items()) / mass, mass


def at_place(model, text, offset):
    """What the model expects at a character of a prompt."""
    return expectation(model.top(model.prompt(text)[: model.position(text, offset)], 15))


def at_number(model, messages, text, offset):
    """What the model expects where its answer to a conversation has a number."""
    tokens = model.tokenize(text)
    ends = np.cumsum([len(t) for t in tokens])
    index = int(np.searchsorted(ends, len(text[:offset].encode()), side="right"))
    before = [*model.prompt(chat_text(messages)), *tokens[:index]]
    written = float(model.logprobs(before)[model.ids[tokens[index]]])
    return expectation(({tokens[index]: written} | dict(model.top(before, 15))).items())


def computed(model, name, explanation, records, can):
    """What a simulator is to predict for each token of some records, from the model itself."""
    found = [[None] * len(tokens) for tokens in records]
    for ask in resolve_simulator(name).asks(explanation, records, can):
        if name == "all_at_once":
            values = [at_place(model, ask.prompt.text, offset) for offset in ask.prompt.places]
        else:
            messages = [{"role": m.role, "content": m.text} for m in ask.prompt.messages]
            text = answer(messages)
            pattern = {"json_list": r'"activation": ([0-9]+)', "tab_list": r"\t([0-9]+)"}.get(name, r"^([0-9]+)$")
            places = [m.start(1) for m in re.finditer(pattern, text)]
            values = [at_number(model, messages, text, place) for place in places]
        spots = [(s.record, i) for s in ask.spans for i in range(s.start, s.stop)]
        for (number, i), found_here in zip(spots, values, strict=True):
            found[number][i] = found_here
    return found


@pytest.fixture(scope="module")
def telling():
    """A server that gives logprobs."""
    with serve(ignore_logprobs=False) as server:
        yield server


# Every simulator with every backend


@pytest.mark.parametrize("kind", ["openai", "vllm", "sglang"])
@pytest.mark.parametrize("name", ["all_at_once", "token_by_token", "json_list", "tab_list"])
def test_predictions_are_what_the_model_itself_expects(telling, tmp_path, kind, name):
    records, told = records_of(records=2), explanations_of(each=2)
    url = telling.url if kind == "sglang" else telling.base_url
    run = ns.simulate(records, told, simulator=name, backend=SERVERS[kind](model="tiny", base_url=url), out=tmp_path)
    result = run.simulated().collect()
    can = Capabilities(**run.settings()["capabilities"])
    for (neuron, text), rows in result.join(told, on=["layer", "neuron", "explanation_id"]).group_by(
        "neuron", "explanation", maintain_order=True
    ):
        tokens = [t for (t,) in rows.group_by("sequence", maintain_order=True).agg("token").select("token").rows()]
        expected = [pair for one in computed(telling.model, name, text, tokens, can) for pair in one]
        np.testing.assert_allclose(rows["predicted"], [e[0] for e in expected], rtol=1e-9, err_msg=str(neuron))
        np.testing.assert_allclose(rows["digit_mass"], [e[1] for e in expected], rtol=1e-9)
    assert result["status"].unique().to_list() == ["ok"]
    assert_frame_equal(result.select(records.columns).unique(maintain_order=True), records, check_row_order=False)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("options", [{}, {"pack": 2}], ids=["alone", "packed"])
@pytest.mark.parametrize("name", ["json_list", "tab_list"])
def test_without_logprobs_predictions_are_the_numbers_that_are_written(kind, name, options):
    with serve() as server:
        url = server.base_url if kind in ("openai", "vllm") else server.url
        model = SERVERS[kind](model="tiny", base_url=url, api_key="k")
        result = ns.simulate(
            records_of(), explanations_of(), simulator=resolve_simulator(name, **options), backend=model
        )
    assert correct(result)
    assert result["digit_mass"].null_count() == result.height


# The table


def test_columns_are_the_keys_then_what_is_predicted_then_what_travels_along(telling):
    records = records_of(split="test", stratum="top", dataset="d", blob=b"\xff")
    told = explanations_of().with_columns(shown_sequences=pl.concat_list(pl.lit(9)))
    result = ns.simulate(
        records.select(pl.all().reverse()).select(reversed(records.columns)),
        told,
        simulator=[resolve_simulator("json_list", replicates=2), "all_at_once"],
        backend=backend(telling),
        distribution=True,
    )
    added = ["spread", "n_replicates", "distribution", "prompt_version"]
    assert result.columns == [*FIRST, *added, "split", "stratum", "blob", "dataset", "shown"]
    assert result.equals(result.sort(ORDER))
    ns.validate(result, "simulated")
    assert result["prompt_version"].unique().sort().to_list() == ["all_at_once/1", "json_list/1"]
    assert result["distribution"].list.sum().to_list() == pytest.approx([1.0] * result.height)
    weighed = [sum(i * p for i, p in enumerate(chances)) for chances in result["distribution"]]
    assert result["predicted"].to_list() == pytest.approx(weighed)
    scores = ns.score(result)
    assert scores.select("neuron", "simulator", "n_sequences", "coverage").rows() == [
        (n, name, 3, 1.0) for n in (0, 1) for name in ("all_at_once", "json_list")
    ]


def test_frames_come_out_as_the_records_came_in_and_a_run_where_a_folder_was_named(tmp_path):
    records, told = records_of(), explanations_of()
    records.write_parquet(tmp_path / "records.parquet")
    with serve() as server:
        options = {"simulator": "json_list", "backend": backend(server)}
        expected = ns.simulate(records, told, **options)
        assert isinstance(expected, pl.DataFrame)
        for lazy in (records.lazy(), tmp_path / "records.parquet"):
            result = ns.simulate(lazy, told, **options)
            assert isinstance(result, pl.LazyFrame)
            assert_frame_equal(result.collect(), expected)
        assert_frame_equal(ns.simulate(records.to_arrow(), told.to_arrow(), **options), expected)
        run = ns.simulate(records, told, out=str(tmp_path / "deep" / "run"), **options)
    assert_frame_equal(run.simulated().collect(), expected)
    assert run.path == tmp_path / "deep" / "run"
    settings = run.settings()
    assert settings["simulators"][0]["name"] == "json_list"
    assert settings["backend"]["model"] == "tiny"
    assert "canary-key-1" not in str(settings)


def test_the_requests_table_has_a_row_for_each_call(tmp_path):
    with serve() as server:
        run = ns.simulate(
            records_of(), explanations_of(), simulator="tab_list", backend=backend(server), out=tmp_path, price=(1, 10)
        )
        bodies = [r.body["messages"][-1]["content"] for r in server.requests if "# Record" in str(r.body)]
    requests = run.requests().collect()
    assert requests.columns == [
        *("request", "layer", "neuron", "simulator", "explanation_id", "sequences", "replicate", "n_tokens", "status"),
        *("http_status", "error", "attempts", "latency_s", "at", "prompt_tokens", "completion_tokens"),
        *("cached_tokens", "price", "prompt_version"),
    ]
    assert len(bodies) == requests.height == 6
    assert requests["request"].n_unique() == 6
    assert requests.select(
        "neuron", "sequences", "replicate", "n_tokens", "status", "attempts", "http_status"
    ).rows() == [(n, [s], 0, 4, "ok", 1, 200) for n in (0, 1) for s in (0, 1, 2)]
    cost = (requests["prompt_tokens"] * 1 + requests["completion_tokens"] * 10) / 1e6
    assert requests["price"].to_list() == pytest.approx(cost.to_list())
    assert (requests["latency_s"] > 0).all()
    assert requests["at"].str.to_datetime(time_zone="UTC").null_count() == 0


def test_several_simulators_are_rows_of_one_table():
    names = ["json_list", "shuffled_tab_list", "tab_list"]
    with serve() as server:
        together = ns.simulate(records_of(), explanations_of(each=2), simulator=names, backend=backend(server))
        alone = [
            ns.simulate(records_of(), explanations_of(each=2), simulator=name, backend=backend(server))
            for name in names
        ]
    assert_frame_equal(together, pl.concat(alone).sort(ORDER))
    assert correct(together)


def test_keys_may_have_other_names_and_kinds():
    by = ["model", "layer", "neuron"]
    kinds = {"model": pl.Categorical, "layer": pl.Enum(["h.0", "h.1"]), "neuron": pl.UInt64}
    records = pl.concat(records_of(model=m, layer="h.0") for m in ("m", "n")).cast(kinds)
    told = pl.concat(explanations_of(model=m, layer="h.0") for m in ("m", "n"))
    with serve() as server:
        result = ns.simulate(records, told, by=by, simulator="json_list", backend=backend(server))
        n_asked = asked(server)
    assert correct(result)
    assert {k: result.schema[k] for k in by} == kinds
    assert result.select(by).unique(maintain_order=True).rows() == [(m, "h.0", n) for m in "mn" for n in (0, 1)]
    assert n_asked == 6  # both models have the same records and explanations


def test_records_without_an_explanation_and_explanations_without_records_are_left_out():
    with serve() as server:
        told = pl.concat([explanations_of(1), explained("nobody", neuron=9)])
        result = ns.simulate(records_of(3), told, simulator="json_list", backend=backend(server))
    assert result["neuron"].unique().to_list() == [0]
    assert correct(result)


def test_other_splits_are_not_asked_about():
    records = pl.concat(records_of(1, 1, split=s).with_columns(sequence=i) for i, s in enumerate(["train", "valid"]))
    with serve() as server:
        result = ns.simulate(records, explanations_of(1), simulator="json_list", backend=backend(server))
        assert asked(server) == 1
    assert result["split"].unique().to_list() == ["valid"]


@pytest.mark.parametrize(("rule", "known"), [("refuse", [False] * 5), ("cut", [True] * 3 + [False] * 2)])
def test_long_records_are_refused_or_cut_and_never_sent_whole(rule, known):
    records = pl.concat([record(list("vwxyz")), record(["a", "b"], sequence=2)])
    simulator = ns.JsonList(max_record_tokens=3, long_records=rule)
    with serve() as server:
        result = ns.simulate(records, explained("x"), simulator=simulator, backend=backend(server))
        assert not any('"z"' in str(r.body) for r in server.requests)
    expected = [(float(value(t)), "ok") if k else (None, "too_long") for t, k in zip("vwxyz", known, strict=True)]
    assert result.select("predicted", "status").rows() == [
        *expected,
        (float(value("a")), "ok"),
        (float(value("b")), "ok"),
    ]


def test_a_simulation_of_records_that_are_all_too_long_ends_without_a_request(tmp_path):
    simulator = ns.TabList(max_record_tokens=3)
    with serve() as server:
        run = ns.simulate(records_of(), explanations_of(), simulator=simulator, backend=backend(server), out=tmp_path)
        assert asked(server) == 0
    assert run.simulated().collect()["status"].unique().to_list() == ["too_long"]
    assert run.requests().collect().height == 0


def test_a_limit_makes_so_many_requests_and_gives_the_rows_that_they_reach(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 12)
    with serve() as server:
        result = ns.simulate(records_of(4), explanations_of(4), simulator="json_list", backend=backend(server), limit=5)
        assert asked(server) == 5
    assert result.select("neuron", "sequence").unique(maintain_order=True).rows() == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
    ]
    assert correct(result)


# Replicates


def test_replicates_are_averaged_and_their_spread_kept(tmp_path):
    given = []

    def sampled(messages, sample):
        text = answer(messages)
        if sample and '"records"' in str(messages):
            text = re.sub(r'(?<="activation": )[0-9]+', lambda m: str((int(m[0]) + sample) % 11), text)
            given.append([int(n) for n in re.findall(r'"activation": ([0-9]+)', text)])
        return text

    records = record(["red", "blue", "sky"])
    with serve(answer=sampled) as server:
        simulator = ns.JsonList(replicates=3)
        run = ns.simulate(records, explained("x"), simulator=simulator, backend=backend(server), out=tmp_path)
        seeds = [r.body["seed"] for r in server.requests if "seed" in r.body]
    assert sorted(seeds) == [0, 1, 2]
    answers = np.array(given, dtype=float)
    result = run.simulated().collect()
    assert answers.shape == (3, 3)
    assert result["predicted"].to_list() == pytest.approx(answers.mean(axis=0).tolist())
    assert result["spread"].to_list() == pytest.approx(answers.std(axis=0, ddof=1).tolist())
    assert result["n_replicates"].to_list() == [3, 3, 3]
    requests = run.requests().collect()
    assert requests["replicate"].to_list() == [0, 1, 2]
    assert requests["request"].n_unique() == 3


def test_a_replicate_that_fails_is_left_out_of_the_mean(tmp_path):
    def unwilling(messages, sample):
        return "no" if sample % 2 else answer(messages)

    with serve(answer=unwilling, structured=False) as server:
        simulator = ns.JsonList(replicates=6)
        run = ns.simulate(record(["red"]), explained("x"), simulator=simulator, backend=backend(server), out=tmp_path)
    statuses = run.requests().collect()["status"].to_list()
    result = run.simulated().collect()
    assert set(statuses) == {"ok", "parse_error"}
    assert result["n_replicates"].item() == statuses.count("ok")
    assert result.select("predicted", "status", "spread").rows() == [(float(value("red")), "ok", 0.0)]


def test_a_distribution_is_the_mean_over_the_replicates_whatever_their_order(tmp_path):
    simulator = ns.TokenByToken(replicates=5, temperature=1.0)
    tables = []
    for jitter_s in (0.0, 0.05):
        with serve(ignore_logprobs=False, jitter_s=jitter_s, port=0) as server:
            model = backend(server, extra={"user": "x"})
            options = {"simulator": simulator, "backend": model, "distribution": True, "out": tmp_path / str(jitter_s)}
            tables.append(ns.simulate(record(["red", "sky"]), explained("x"), **options).simulated().collect())
    assert tables[0].equals(tables[1])


# One call for one question


def test_what_is_asked_twice_is_sent_once(tmp_path, monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 1)
    records = pl.concat(record(["red", "sky"], neuron=n) for n in range(40))
    told = pl.concat(explained("same", "same", neuron=n) for n in range(40))
    with serve(wait_s=0.05) as server:
        run = ns.simulate(records, told, simulator="json_list", backend=backend(server), out=tmp_path)
        assert asked(server) == 1
    assert correct(run.simulated().collect())
    assert run.requests().collect().select("neuron", "explanation_id").rows() == [(0, "a")]


# Memory


def test_shards_are_made_only_a_little_ahead_of_the_requests(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 1)
    monkeypatch.setattr("nscore._running.plan.REMEMBERED_BYTES", 0)
    made, seen = [], []
    first = threading.Event()
    make = _shards.Questions.shard

    def counted(self, index, pairs):
        made.append(index)
        return make(self, index, pairs)

    def answered(messages):
        if "# Record" in str(messages) and not first.is_set():
            first.set()
            seen.append(len(made) - 120)
        return answer(messages)

    monkeypatch.setattr("nscore._running.shards.Questions.shard", counted)
    with serve(answer=answered) as server:
        ns.simulate(records_of(120, 1), explanations_of(120), simulator="tab_list", backend=backend(server))
    assert len(made) == 240  # once to count, once to ask
    assert seen[0] <= 26


# What cannot be


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"simulator": ["json_list", "lexical"]},
            ns.SimulatorError,
            "lexical: asks no model; simulate with it by itself",
        ),
        ({"simulator": "json_list", "backend": None}, ns.SimulatorError, "json_list asks a language model: name one"),
        ({"simulator": "lexical"}, ns.SimulatorError, "lexical asks no model: backend="),
        ({"simulator": ["tab_list", ns.TabList(pack=2)]}, ns.SimulatorError, "each once"),
        ({"concurrency": 0}, ns.SettingError, "concurrency: found 0, expected 1 or more"),
        ({"limit": 0}, ns.SettingError, "limit: found 0"),
        ({"attempts": 0}, ns.SettingError, "attempts: found 0"),
        ({"timeout_s": 0}, ns.SettingError, "timeout_s: found 0"),
        ({"requests_per_minute": 0}, ns.SettingError, "requests_per_minute: found 0"),
        ({"tokens_per_minute": -1}, ns.SettingError, "tokens_per_minute: found -1"),
        ({"price": (1, 1), "max_cost": -1}, ns.SettingError, "max_cost: found -1"),
        ({"price": (1, float("nan"))}, ns.SettingError, "price: found nan"),
        ({"keep": "all"}, ns.SettingError, "keep: found 'all'"),
    ],
    ids=lambda v: str(v)[:30] if isinstance(v, dict) else "",
)
def test_what_cannot_be_run_is_refused_in_words_before_anything_is_sent(options, error, words):
    with serve() as server:
        given = {"simulator": "json_list", "backend": backend(server)} | options
        with pytest.raises(error, match=re.escape(words)):
            ns.simulate(records_of(), explanations_of(), **given)
        assert server.n_requests == 0


def test_a_server_that_cannot_do_it_is_refused_with_what_would_work_and_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        serve() as server,
        pytest.raises(ns.BackendError, match=r"all_at_once cannot work.*json_list, tab_list") as caught,
    ):
        ns.simulate(records_of(), explanations_of(), simulator="all_at_once", backend=backend(server))
    assert list(tmp_path.iterdir()) == []
    assert not hasattr(caught.value, "__notes__")


def test_a_wrong_key_stops_at_the_first_request_and_is_not_told(tmp_path):
    with serve(api_key="right") as server, pytest.raises(ns.BackendError, match="401") as caught:
        ns.simulate(records_of(), explanations_of(), simulator="json_list", backend=backend(server), out=tmp_path)
    assert server.n_requests == 1
    assert "canary-key-1" not in str(caught.value)


def test_offline_simulators_are_as_before():
    records, told = record(["the", "red"]), explained('the colour "red"')
    assert ns.simulate(records, told)["predicted"].to_list() == [0.0, 10.0]
    assert asyncio.run(ns.asimulate(records, told, simulator="lexical"))["predicted"].to_list() == [0.0, 10.0]


def test_an_estimate_sends_nothing_and_counts_exactly():
    with serve() as server:
        told = ns.estimate(
            records_of(), explanations_of(each=2), simulator=ns.JsonList(pack=2), backend=backend(server), price=(1, 2)
        )
        assert server.n_requests == 0
        run_rows = ns.simulate(
            records_of(), explanations_of(each=2), simulator=ns.JsonList(pack=2), backend=backend(server)
        )
        assert asked(server) == told.requests == 8
    assert told.scored_tokens == run_rows.height


def test_a_proxy_of_the_environment_is_not_needed(telling):
    assert httpx.get(telling.base_url + "/models", trust_env=False).status_code == 200
