"""`nscore simulate` with simulators that ask a model: what it writes, prints, refuses, and what an interrupt leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from asking import answer, correct, hanging, serve
from polars.testing import assert_frame_equal
from simulation_tables import command, enter, read_json, small_explanations, small_records

import nscore as ns

# Of the small tables, what is simulated: three of the records hold the same text as another of their neuron.
RECORDS, REQUESTS, TOKENS = 18, 15, 93
KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with small tables, and no setting from outside."""
    return enter(tmp_path, monkeypatch)


@pytest.fixture
def server():
    with serve() as server:
        yield server


def line(server, *flags, simulator="json_list", out="run"):
    at = [] if server is None else ["--base-url", server.base_url, "--model", "tiny"]
    return ["simulate", "records.parquet", "explanations.parquet", "--simulator", simulator, *at, "-o", out, *flags]


def asked(server):
    """The bodies of the requests about neurons: those of the probe are not."""
    return [received.body for received in server.requests if "neuron fires on" in str(received.body)]


def table(name, out="run"):
    return pl.read_parquet(f"{out}/{name}.parquet/*.parquet")


def test_a_run_writes_two_folders_of_parts_which_are_scored_as_they_are(capsys, folder, server):
    code, out, err = command(capsys, *line(server))
    assert (code, err) == (0, "")
    assert "json_list  ok" in out
    assert "wrote run/simulated.parquet and run/requests.parquet" in out
    simulated, requests = table("simulated"), table("requests")
    assert (simulated.height, requests.height, len(asked(server))) == (TOKENS, REQUESTS, REQUESTS)
    assert correct(simulated)
    assert requests["status"].unique().to_list() == ["ok"]
    ns.validate("run/simulated.parquet", "simulated")
    assert {path.name for path in folder.joinpath("run").iterdir()} == {
        *("run.json", "journal", "simulated.parquet", "requests.parquet", "committed.json")
    }
    code, out, err = command(capsys, "score", "run/simulated.parquet", "-o", "run")
    assert (code, err) == (0, "")
    assert_frame_equal(pl.read_parquet("run/scores.parquet"), ns.score(simulated))


def test_the_command_is_the_function(capsys, server):
    assert command(capsys, *line(server, "--splits", "test", "--by", "layer,neuron"))[0] == 0
    backend = ns.OpenAI(model="tiny", base_url=server.base_url)
    expected = ns.simulate(
        small_records(), small_explanations(), simulator="json_list", backend=backend, splits=["test"]
    )
    assert_frame_equal(table("simulated"), expected)


def test_the_summary_as_json(capsys, server):
    code, out, err = command(capsys, *line(server, "--json"))
    assert (code, err) == (0, "")
    assert read_json(out) == {
        "tokens": [{"simulator": "json_list", "status": "ok", "tokens": TOKENS}],
        "files": ["run/simulated.parquet", "run/requests.parquet"],
    }


def test_a_dry_run_tells_what_the_run_comes_to_and_sends_nothing(capsys, folder, server):
    flags = ["--price", "0.15,0.6", "--requests-per-minute", "9", "--pack", "2", "--dry-run"]
    code, out, err = command(capsys, *line(server, *flags, "--json"))
    assert (code, err) == (0, "")
    told = read_json(out)
    assert (told["requests"], told["scored_tokens"]) == (RECORDS // 2, TOKENS)
    assert 0 < told["price"] < told["most"]
    assert told["duration_s"] == 60
    code, out, err = command(capsys, *line(server, *flags))
    assert (code, err) == (0, "\nnothing was sent\n")
    for name, value in [
        ("requests", "9"),
        ("scored tokens", str(TOKENS)),
        ("prompt tokens", f"{told['prompt_tokens']:,}"),
        ("completion tokens", f"{told['completion_tokens']:,}"),
        ("price", f"${told['price']:.4f}"),
        ("length", "0:01:00"),
    ]:
        assert any(row.startswith(name) and f" {value} " in f"{row} " for row in out.splitlines()), name
    assert "--price" in command(capsys, *line(server, "--dry-run"))[1]
    assert server.n_requests == 0
    assert not folder.joinpath("run").exists()


def test_a_limit_makes_so_many_requests_and_without_it_the_run_goes_on(capsys, server):
    assert command(capsys, *line(server, "--limit", "5"))[0] == 0
    assert (table("requests").height, len(asked(server))) == (5, 5)
    assert correct(table("simulated"))
    assert command(capsys, *line(server))[0] == 0
    assert (table("requests").height, len(asked(server))) == (REQUESTS, REQUESTS)
    assert correct(table("simulated"))


def test_never_more_than_the_spending_limit_is_spent_and_what_was_not_sent_says_so(capsys, server):
    code, out, err = command(capsys, *line(server, "--price", "100,100", "--max-cost", "1.5", "--concurrency", "4"))
    assert (code, err) == (3, "")
    requests = table("requests")
    # what each costs is what the server says it counted, at these prices
    counted = (pl.col("prompt_tokens") + pl.col("completion_tokens")) * 100 / 1e6
    assert_frame_equal(
        requests.select("price").drop_nulls().filter(pl.col("price") > 0),
        requests.drop_nulls("prompt_tokens").select(price=counted),
    )
    assert 0 < requests["price"].sum() <= 1.5
    statuses = dict(requests["status"].value_counts().rows())
    assert set(statuses) == {"ok", "not_run"}
    assert "not_run" in out
    assert table("simulated").height == TOKENS


def test_a_spending_limit_without_a_price_is_refused(capsys, server):
    code, out, err = command(capsys, *line(server, "--max-cost", "1"))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "--price INPUT,OUTPUT" in err
    assert server.n_requests == 0


def test_a_replay_gives_the_same_table_and_asks_nobody(capsys):
    with serve() as server:
        assert command(capsys, *line(server))[0] == 0
    code, _, err = command(capsys, *line(None, "--replay", "run", out="again"))
    assert (code, err) == (0, "")
    assert_frame_equal(table("simulated", "again"), table("simulated"))
    # what the run never asked is not made up
    assert command(capsys, *line(None, "--replay", "run", simulator="tab_list", out="other"))[0] == 3
    assert table("simulated", "other")["status"].unique().to_list() == ["not_run"]


def test_packed_records_share_a_prompt(capsys, server):
    assert command(capsys, *line(server, "--pack", "4", simulator="tab_list"))[0] == 0
    assert table("requests")["sequences"].list.len().to_list() == [4, 2] * 3
    assert correct(table("simulated"))


def test_replicates_are_averaged_at_the_temperature_that_is_given(capsys, server):
    server.answer = lambda messages, sample: answer(messages) if sample % 2 else answer(messages).replace("10", "9")
    assert command(capsys, *line(server, "--replicates", "3", "--temperature", "0.7"))[0] == 0
    simulated, requests = table("simulated"), table("requests")
    assert (requests.height, simulated["n_replicates"].unique().to_list()) == (3 * REQUESTS, [3])
    assert simulated["spread"].null_count() == 0
    assert {(body["temperature"], body["seed"]) for body in asked(server)} == {(0.7, seed) for seed in range(3)}


@pytest.mark.parametrize(("rule", "predicted"), [("cut", 51), ("refuse", 0)])
def test_long_records_are_cut_or_refused_as_told(capsys, server, rule, predicted):
    assert command(capsys, *line(server, "--max-record-tokens", "3", "--long-records", rule))[0] == 3
    simulated = table("simulated").sort("neuron", "sequence", "position")
    kept = simulated.filter(pl.col("status") == "ok")
    length = pl.len().over("neuron", "sequence")
    fits = simulated.with_columns(n=length).filter((pl.col("n") <= 3) | ((pl.col("position") < 3) & (rule == "cut")))
    assert_frame_equal(kept, fits.drop("n"))
    assert correct(kept)
    assert set(simulated["status"]) == {"ok", "too_long"}
    assert kept.height >= predicted


def test_the_distribution_is_a_column_where_it_is_wanted(capsys, server):
    server.ignore_logprobs = False
    assert command(capsys, *line(server, "--distribution", "--limit", "2", simulator="all_at_once"))[0] == 0
    simulated = table("simulated")
    expected = [sum(i * p for i, p in enumerate(chances)) for chances in simulated["distribution"]]
    assert simulated["predicted"].to_list() == pytest.approx(expected)


def test_further_fields_of_the_body_are_sent(capsys, server):
    extra = ["--extra", '{"reasoning_effort": "low", "temperature": null}', "--limit", "1"]
    assert command(capsys, *line(server, *extra))[0] == 0
    assert {(r.body["reasoning_effort"], r.body.get("temperature")) for r in server.requests} == {("low", None)}


def test_only_what_the_parsers_read_is_kept_where_that_is_told(capsys, folder, server):
    server.ignore_logprobs = False
    sizes = {}
    for keep in ("raw", "needed"):
        flags = ["--keep", keep, "--limit", "4"]
        assert command(capsys, *line(server, *flags, simulator="all_at_once", out=keep))[0] == 0
        sizes[keep] = sum(file.stat().st_size for file in folder.joinpath(keep, "journal").iterdir())
    assert_frame_equal(table("simulated", "raw"), table("simulated", "needed"))
    assert sizes["needed"] < sizes["raw"] / 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--simulator", "all_at_once", "--pack", "2"], "--pack: all_at_once has no such option"),
        (["--simulator", "shuffled_token_by_token", "--pack", "2"], "--pack: shuffled_token_by_token has no such"),
        (["--simulator", "lexical", "--replicates", "2", "--temperature", "0"], "--replicates, --temperature: lexical"),
        (["--simulator", "constant", "--dry-run"], "--dry-run: constant asks no model"),
        (["--simulator", "lexical", "--limit", "3"], "--limit: lexical asks no model"),
        (["--simulator", "json_list,lexical"], "lexical: asks no model"),
        (["--pack", "0"], "pack=0"),
        (["--replicates", "2", "--temperature", "0"], "replicates at temperature 0"),
        (["--limit", "0"], "limit: found 0"),
        (["--concurrency", "0"], "concurrency: found 0"),
        (["--price", "nan,1"], "price: found nan"),
        (["--price=-1,1"], "price: found -1"),
        (["--extra", "low"], "--extra: found 'low', expected a JSON object"),
        (["--extra", "[1]"], "--extra: found '[1]', expected a JSON object"),
        (["--backend", "opnai"], "Did you mean 'openai'"),
        (["--backend", "replay"], "--replay RUN"),
        (["--replay", "nowhere"], "nowhere/journal: there is no journal here. Name the folder of a run"),
        (["--base-url", "localhost:8000"], "expected http://HOST"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_cannot_be_done_is_refused_in_a_line_before_anything_is_sent(capsys, server, flags, said):
    code, out, err = command(capsys, *line(server, *flags))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nscore simulate: ")
    assert said in err
    assert server.n_requests == 0


@pytest.mark.parametrize(
    "flags", [["--price", "1"], ["--price", "a,b"], ["--long-records", "drop"], ["--limit", "x"], ["--api-key", KEY]]
)
def test_wrong_usage_is_exit_code_2(capsys, server, flags):
    code, out, err = command(capsys, *line(server, *flags))
    assert (code, out) == (2, "")
    assert err.startswith("usage: nscore")


def test_a_model_that_is_not_named_is_asked_for(capsys, server):
    for flags in ([], ["--dry-run"]):
        code, out, err = command(capsys, *line(None, "--base-url", server.base_url, *flags))
        assert (code, out, err) == (1, "", "nscore simulate: --model: name the model, as the server calls it\n")
        code, out, err = command(capsys, *line(None, *flags))
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "--base-url URL --model NAME" in err


def test_the_server_is_the_one_of_the_environment_where_no_flag_names_it(capsys, server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    assert command(capsys, *line(None, "--model", "tiny", "--limit", "1"))[0] == 0
    assert server.n_requests > 0


def test_a_server_that_is_not_there_is_one_line(capsys):
    with serve() as server:
        pass
    code, out, err = command(capsys, *line(server))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"tiny at {server.base_url}" in err


def test_the_key_comes_from_the_environment_and_stands_nowhere(capsys, folder, server, monkeypatch):
    server.api_key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    code, out, err = command(capsys, *line(server))
    assert (code, err) == (0, "")
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in out
    written = [file for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 5
    assert not [file for file in written if KEY.encode() in file.read_bytes()]


def test_a_wrong_key_is_one_line_that_does_not_show_it(capsys, folder, server, monkeypatch):
    server.api_key = "another"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    code, out, err = command(capsys, *line(server))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "401" in err
    assert KEY not in err  # the server says it back
    assert not [file for file in folder.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("lacks", "works"),
    [
        ({"ignore_logprobs": True}, "json_list, tab_list."),
        ({"ignore_logprobs": False, "ignore_echo": True}, "json_list, tab_list, token_by_token."),
        ({"ignore_logprobs": False, "bos": False, "off_by_one": True}, "json_list, tab_list, token_by_token."),
    ],
)
def test_a_server_that_cannot_do_what_is_needed_ends_the_run_before_it_begins(capsys, folder, server, lacks, works):
    for name, value in lacks.items():
        setattr(server, name, value)
    code, out, err = command(capsys, *line(server, simulator="all_at_once"))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "all_at_once cannot work with tiny" in err
    assert err.rstrip().endswith(f"Simulators that would work there: {works}")
    assert not folder.joinpath("run", "simulated.parquet").exists()
    assert server.n_requests < 10


def test_rows_that_failed_are_written_and_are_exit_code_3(capsys, server):
    server.answer = lambda messages: "Sorry." if "blue" in messages[-1]["content"] else answer(messages)
    server.structured = False
    code, out, err = command(capsys, *line(server, "--json"))
    assert (code, err) == (3, "")
    simulated, requests = table("simulated"), table("requests")
    lost = simulated.filter(pl.col("status") != "ok")
    assert 0 < lost.height < simulated.height == TOKENS
    assert lost["status"].unique().to_list() == ["parse_error"]
    assert lost["predicted"].null_count() == lost.height
    assert correct(simulated.filter(pl.col("status") == "ok"))
    assert "Sorry." in requests.filter(pl.col("status") != "ok")["error"][0]
    counts = {row["status"]: row["tokens"] for row in read_json(out)["tokens"]}
    assert counts == {"ok": TOKENS - lost.height, "parse_error": lost.height}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_over_at_once_and_the_same_command_goes_on(capsys, sent):
    with hanging(4) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "nscore", *line(server)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 20
        while server.in_flight < 8:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(sent)
        begun = time.monotonic()
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - begun < 2
        assert (process.returncode, out) == (130, "")
        assert err == "nscore simulate: interrupted; what was answered is kept, and the same command goes on\n"
        server.answers, before = 10**9, len(asked(server))
        assert command(capsys, *line(server))[0] == 0
        assert len(asked(server)) - before == REQUESTS - 4
    assert correct(table("simulated"))
    assert (table("simulated").height, table("requests").height) == (TOKENS, REQUESTS)
