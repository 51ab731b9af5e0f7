"""`nscore probe`: what a server can do, and which simulators work with it."""

from __future__ import annotations

import dataclasses
import os

import pytest
from asking import serve
from simulation_tables import command, read_json

import nscore as ns


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder, and no setting from outside."""
    for name in [name for name in os.environ if name.startswith(("NSCORE_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def probe(capsys, server, *flags):
    return command(capsys, "probe", "--base-url", server.base_url, "--model", "tiny", *flags)


ALL = {"all_at_once", "token_by_token", "json_list", "tab_list"}


@pytest.mark.parametrize(
    ("switches", "works"),
    [
        ({"ignore_logprobs": False}, ALL),
        ({"ignore_logprobs": True}, {"json_list", "tab_list"}),
        ({"ignore_logprobs": False, "ignore_echo": True}, ALL - {"all_at_once"}),
        ({"ignore_logprobs": False, "no_completions": True}, ALL - {"all_at_once"}),
        ({"ignore_logprobs": False, "no_chat": True}, ALL),
        ({"ignore_logprobs": False, "bos": False, "off_by_one": True}, ALL - {"all_at_once"}),
    ],
    ids=lambda given: ",".join(given) if isinstance(given, dict) else "",
)
def test_it_tells_which_simulators_work(capsys, switches, works):
    with serve(**switches) as server:
        code, out, err = probe(capsys, server, "--json")
        assert (code, err) == (0, "")
        told = read_json(out)
        assert {name for name, can in told["simulators"].items() if can} == works
        assert told["can"] == dataclasses.asdict(ns.probe(ns.OpenAI(model="tiny", base_url=server.base_url)))


def test_as_text_it_is_a_line_for_each_thing_and_one_for_the_simulators(capsys, folder):
    with serve() as server:
        code, out, err = probe(capsys, server)
    assert (code, err) == (0, "")
    rows = dict(row.split(maxsplit=1) for row in out.splitlines()[:10])
    assert set(rows) == {field.name for field in dataclasses.fields(ns.Capabilities)}
    assert (rows["chat"], rows["logprobs"], rows["aligned"]) == ("True", "0", "not known")
    assert out.splitlines()[-1] == "simulators that work: json_list, tab_list"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--model: name the model"),
        (["--base-url", "http://127.0.0.1:9/v1"], "--model: name the model"),
        (["--base-url", "ftp://host", "--model", "tiny"], "expected http://HOST"),
        (["--base-url", "http://127.0.0.1:9/v1", "--model", "tiny"], "tiny at http://127.0.0.1:9/v1"),
        (["--replay", "run"], "--replay: there is no server"),
        (["--backend", "replay", "--model", "tiny"], "--replay RUN"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_is_wrong_is_one_line_and_exit_code_1(capsys, flags, said):
    code, out, err = command(capsys, "probe", *flags)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nscore probe: ")
    assert said in err


def test_a_wrong_key_is_told_without_it(capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    with serve(api_key="another") as server:
        code, out, err = probe(capsys, server)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "401" in err
    assert "canary" not in err


def test_its_settings_come_from_the_file_and_the_environment_too(capsys, folder, monkeypatch):
    with serve() as server:
        folder.joinpath("nscore.toml").write_text(f"[probe]\nbase-url = '{server.base_url}'\nmodel = 'other'")
        monkeypatch.setenv("NSCORE_MODEL", "tiny")
        assert command(capsys, "probe")[0] == 0
        assert {received.body["model"] for received in server.requests} == {"tiny"}
