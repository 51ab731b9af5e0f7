"""Servers that misbehave: every row ends with one status, what failed is never a number, and nobody is asked in vain."""

from __future__ import annotations

import re
import threading

import polars as pl
import pytest
from asking import Fast, answer, asked, backend, correct, explanations_of, is_asked, records_of, serve
from model_server import ModelServer, RefusalError
from polars.testing import assert_frame_equal
from simulation_tables import explained, record

import nscore as ns
from nscore._sending import history as _history
from nscore._sending.journal import Journal
from nscore.records import Status

MIX = {
    "429": 0.3,
    "500": 0.05,
    "503": 0.05,
    **dict.fromkeys(["reset", "hang", "cut", "cut_json", "count", "nan", "drip", "error200", "html"], 0.04),
}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Waits of the engine are a hundredth as long."""
    monkeypatch.setattr("nscore._running.engine.RealClock", Fast)


def refusing(status, when=lambda _n: True, message="no"):
    """An answer that refuses some questions; they are counted from 1 where they are no probe's."""
    n = 0
    lock = threading.Lock()

    def say(messages):
        nonlocal n
        if '"records"' in str(messages):
            with lock:
                n += 1
                mine = n
            if when(mine):
                raise RefusalError(status, message)
        return answer(messages)

    return say


def run_of(server, out, records=None, told=None, **options):
    given = {"simulator": "json_list", "backend": backend(server), "out": out} | options
    return ns.simulate(
        records_of() if records is None else records, explanations_of() if told is None else told, **given
    )


@pytest.mark.parametrize(("name", "neurons"), [("json_list", 15), ("all_at_once", 6)])
def test_a_mix_of_all_faults_ends_with_one_status_a_row_and_the_good_ones_are_a_faultless_runs(tmp_path, name, neurons):
    records, told = records_of(neurons, 10), explanations_of(neurons)
    with serve(ignore_logprobs=name == "json_list", drip_s=0.02) as server:
        options = {"simulator": name, "concurrency": 32}
        expected = run_of(server, tmp_path / "good", records, told, **options).simulated().collect()
        server.forget()
        # the probe is not what is tested
        with Journal(tmp_path / "bad" / "journal") as journal:
            journal.append(_history.settings(ns.Run(tmp_path / "good").settings()))
        server.faults = MIX
        options["timeout_s"] = 0.2
        run = run_of(server, tmp_path / "bad", records, told, **options)
        faults = {name for name in MIX if server.counts[name] or server.counts[name.isdecimal() and int(name)]}
        assert faults == set(MIX)
        result, requests = run.simulated().collect(), run.requests().collect()
        statuses = set(result["status"])
        assert {"ok", "http_error"} < statuses < set(Status.__args__)
        assert result["predicted"].is_null().to_list() == (result["status"] != "ok").to_list()
        ok = pl.col("status") == "ok"
        same = expected.join(
            result.filter(ok), on=["neuron", "sequence", "position"], how="semi", maintain_order="left"
        )
        assert_frame_equal(result.filter(ok), same)
        assert result.select(pl.exclude("predicted", "status", "digit_mass")).equals(
            expected.select(pl.exclude("predicted", "status", "digit_mass"))
        )
        # requests tell the same story, and count up
        assert requests.height == 10 * neurons
        counts = dict(requests.group_by("status").len().rows())
        assert sum(counts.values()) == 10 * neurons
        assert requests.filter(pl.col("status") == "ok")["http_status"].unique().to_list() == [200]
        assert requests.filter(pl.col("status") != "ok")["error"].drop_nulls().len() > 0
        assert (requests["attempts"] <= 8).all()
        assert requests["attempts"].sum() == server.n_requests
        # what a server did not answer is asked again by the same call, and nothing else is
        server.faults = None
        server.forget()
        again = requests.filter(pl.col("status") == "http_error").height
        options["timeout_s"] = 30  # of a machine that is busy with other tests
        mended = run_of(server, tmp_path / "bad", records, told, **options).simulated().collect()
        assert "http_error" not in set(mended["status"])
        assert again <= server.n_requests <= again + requests.filter(pl.col("status") == "parse_error").height


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_will_never_take_is_sent_once(tmp_path, status):
    with serve(answer=refusing(status, lambda n: n % 2)) as server:
        run = run_of(server, tmp_path)
        assert asked(server) == 6
    requests = run.requests().collect()
    assert requests["attempts"].to_list() == [1] * 6
    failed = requests.filter(pl.col("status") != "ok")
    assert failed["http_status"].to_list() == [status] * 3
    assert failed["error"].str.contains('"message": "no"').all()
    assert run.simulated().filter(pl.col("predicted").is_null()).collect()["status"].to_list() == ["http_error"] * 12


@pytest.mark.parametrize("status", [408, 409, 500, 502, 529])
def test_what_may_pass_is_sent_again(tmp_path, status):
    with serve(answer=refusing(status, lambda n: n % 3 == 0)) as server:
        run = run_of(server, tmp_path)
        assert asked(server) == run.requests().collect()["attempts"].sum() > 6
    assert correct(run.simulated().collect())


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_all_requests_would_meet_stops_the_run_which_then_goes_on(tmp_path, monkeypatch, status):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 8)
    with serve(answer=refusing(status, lambda n: n > 7, "key canary-key-1 is wrong")) as server:
        with pytest.raises(ns.BackendError, match=f"status {status}.*the same command goes on") as caught:
            run_of(server, tmp_path, records_of(6), explanations_of(6), concurrency=2)
        assert "canary-key-1" not in "".join(map(str, (caught.value, caught.value.__cause__, caught.value.__context__)))
        assert asked(server) <= 7 + 2 * 2
        server.answer = answer
        server.forget()
        run = run_of(server, tmp_path, records_of(6), explanations_of(6))
        assert asked(server) <= 18 - 7 + 1
    assert correct(run.simulated().collect())


def test_no_money_stops_the_run_though_it_comes_as_a_429(tmp_path):
    def broke(messages):
        if '"records"' in str(messages):
            raise RefusalError(429, "quota", code="insufficient_quota")
        return answer(messages)

    with serve(answer=broke) as server, pytest.raises(ns.BackendError, match="status 429"):
        run_of(server, tmp_path, concurrency=1)
    assert asked(server) <= 2


def test_a_wait_of_years_ends_the_request_at_once(tmp_path):
    with serve(retry_after=("huge",)) as server:
        run_of(server, tmp_path, limit=1)
        server.faults = {"429": 1.0}
        server.forget()
        run = run_of(server, tmp_path)
        assert asked(server) == 5
    requests = run.requests().collect()
    assert requests["status"].to_list() == ["ok"] + ["http_error"] * 5
    assert requests["attempts"].to_list() == [1] * 6


def test_a_retry_after_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(Fast, "times", 20.0)
    with serve(retry_after=("seconds",), retry_after_s=4.0) as server:
        run_of(server, tmp_path, record(["a"], neuron=0), explained("x", neuron=0))
    server.arrivals.clear()
    with serve(answer=refusing(429, lambda n: n == 1), port=server.port) as again:
        seen = RefusalError.__init__

        def waiting(self, status, message, **given):
            seen(self, status, message, **given | ({"headers": [("retry-after", "4")]} if status == 429 else {}))

        monkeypatch.setattr(RefusalError, "__init__", waiting)
        run_of(again, tmp_path / "b", record(["b"], neuron=0), explained("x", neuron=0))
        first, second = [a.at_s for a in again.arrivals][-2:]
    assert 0.2 <= second - first < 0.5


class Failing(ModelServer):
    """It breaks off the connections of its first requests after the probe, or refuses them."""

    out_for = n_asked = 0
    how = "reset"

    def _fault(self, key):
        del key
        self.n_asked += is_asked(self.requests[-1])
        return self.how if 0 < self.n_asked <= self.out_for else None


@pytest.mark.parametrize("how", ["reset", "503"])
def test_in_an_outage_little_is_sent_and_all_is_well_afterwards(tmp_path, how, monkeypatch):
    monkeypatch.setattr(Fast, "times", 1000.0)
    with Failing(answer=answer, ignore_logprobs=True) as server:
        server.out_for, server.how = 60, how
        options = {"simulator": "tab_list", "concurrency": 8}
        run = run_of(server, tmp_path, records_of(35, 10), explanations_of(35), **options)
        assert asked(server) <= 1.2 * 350
    assert correct(run.simulated().collect())


@pytest.mark.parametrize("how", ["reset", "503"])
def test_an_outage_without_end_ends_the_run_in_words(tmp_path, how, monkeypatch):
    monkeypatch.setattr(Fast, "times", 1000.0)
    with Failing(answer=answer, ignore_logprobs=True) as server:
        server.out_for, server.how = 10**9, how
        with pytest.raises(ns.OutageError, match="has not answered for 600 s"):
            run_of(server, tmp_path, records_of(20, 10), explanations_of(20), concurrency=8)
        assert asked(server) <= 100
        server.out_for = 0
        run = run_of(server, tmp_path, records_of(20, 10), explanations_of(20), limit=30)
    assert correct(run.simulated().collect())


def test_requests_adapt_to_what_the_server_bears(tmp_path):
    with serve(hidden_concurrency=6, wait_s=0.01) as server:
        run = run_of(server, tmp_path, records_of(30, 10), explanations_of(30))
        assert server.counts[429] <= 0.25 * 300
        assert server.max_in_flight <= 16
    assert correct(run.simulated().collect())


def spans(arrivals, amount):
    """For every two arrivals: the seconds between them and what came in them."""
    for i, first in enumerate(arrivals):
        total = 0
        for last in arrivals[i:]:
            total += amount(last)
            yield last.at_s - first.at_s, total


def test_requests_a_minute_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Fast, "times", 1.0)
    per_s = 25
    with serve() as server:
        run_of(server, tmp_path, records_of(3, 10), explanations_of(3), requests_per_minute=60 * per_s)
        arrivals = server.arrivals[-30:]
        assert asked(server) == 30
    assert all(n <= 1 + per_s * (span + 0.1) for span, n in spans(arrivals, lambda _: 1))


def test_tokens_a_minute_are_kept_as_the_server_counts_them(tmp_path, monkeypatch):
    monkeypatch.setattr(Fast, "times", 1.0)
    words = ["日本" * 20, "é" * 60, "ü" * 60]  # more tokens than bytes / 3
    records = pl.concat(record([*words, f"s{s}"], neuron=0, sequence=s) for s in range(12))
    per_s = 30_000
    with serve() as server:
        run_of(server, tmp_path, records, explanations_of(1), tokens_per_minute=60 * per_s)
        arrivals = server.arrivals[-12:]
    most = max(a.tokens for a in arrivals)
    assert sum(a.tokens for a in arrivals) > 15_000
    assert all(n <= most + per_s * (span + 0.15) for span, n in spans(arrivals, lambda a: a.tokens))


def test_a_request_larger_than_a_limit_is_an_error_and_no_wait(tmp_path):
    with serve() as server, pytest.raises(ns.LimitError, match="never fits a limit of 100 tokens a minute"):
        run_of(server, tmp_path, tokens_per_minute=100)
    assert asked(server) == 0


def test_an_answer_about_the_wrong_tokens_is_a_status_of_those_tokens_alone():
    def lost(messages):
        return re.sub(r'"token": "red"', '"token": "blue"', answer(messages))

    with serve(answer=lost) as server, pytest.warns(UserWarning, match="1 of 1 requests failed .1 length_mismatch"):
        result = ns.simulate(
            record(["the", "red", "sky"]), explained("x"), simulator="json_list", backend=backend(server)
        )
    assert result["status"].to_list() == ["ok", "length_mismatch", "ok"]
    assert result["predicted"].is_null().to_list() == [False, True, False]


def test_a_reply_that_lacks_one_packed_record_fails_that_record_only(tmp_path):
    def short(messages):
        text = answer(messages)
        return text.replace('{"record": 2', '{"record": 9') if '"record": 2' in text else text

    with serve(answer=short, structured=False) as server:
        run = run_of(server, tmp_path, simulator=ns.JsonList(pack=3))
    by_record = run.simulated().group_by("neuron", "sequence", maintain_order=True).agg(pl.col("status").unique())
    assert by_record.collect()["status"].to_list() == [["ok"], ["length_mismatch"], ["ok"]] * 2
    assert run.requests().collect()["status"].to_list() == ["length_mismatch"] * 2


@pytest.mark.parametrize(
    ("switches", "status"),
    [({"refusal": "I will not."}, "refused"), ({"content_filter": True}, "refused")],
    ids=["refusal", "filter"],
)
def test_refusals_are_a_status(tmp_path, switches, status):
    with serve() as server:
        run_of(server, tmp_path, limit=1)
        for name, value in switches.items():
            setattr(server, name, value)
        run = run_of(server, tmp_path)
    assert run.requests().collect()["status"].to_list() == ["ok"] + [status] * 5


def test_what_a_careless_proxy_echoes_is_in_no_table(tmp_path):
    def echoing(messages):
        return "key=canary-key-1 is wrong" if '"records"' in str(messages) else answer(messages)

    with serve(answer=echoing, structured=False) as server:
        run = run_of(server, tmp_path)
    with serve(answer=refusing(400, message="Incorrect key canary-key-1")) as server:
        other = run_of(server, tmp_path / "b")
    for one in (run, other):
        errors = one.requests().collect()["error"]
        assert errors.null_count() == 0
        assert not errors.str.contains("canary").any()
        assert errors.str.contains(r"\*\*\*").all()


class Closing(ModelServer):
    """It closes each connection after its reply, and does not say so."""

    closes = False

    def _deliver(self, connection, reply, raw, fault=None):
        connection.last = self.closes
        super()._deliver(connection, reply, raw, fault)


def test_a_server_that_closes_every_connection_is_no_fault(tmp_path):
    with Closing(answer=answer, ignore_logprobs=True) as server:
        run_of(server, tmp_path, limit=1)
        server.closes = True
        run = run_of(server, tmp_path)
    assert correct(run.simulated().collect())
