"""Replay: the answers of an earlier run, without a network."""

from __future__ import annotations

import json
import shutil

import pytest
from asking import backend, explanations_of, records_of, serve
from backends.fixtures import CAN, CHAT

import nscore as ns
from nscore._sending.history import reply
from nscore._sending.journal import Journal
from nscore.backends import Backend, Replay
from nscore.errors import BackendError, JournalError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "run"
    with serve() as server:
        ns.simulate(records_of(), explanations_of(), simulator="tab_list", backend=backend(server), out=path)
    return path


def settings_of(run):
    return json.loads((run / "run.json").read_bytes())


def test_it_is_the_backend_of_the_run_without_its_secrets_and_sends_nothing(run, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    replay = Replay(run)
    told = settings_of(run)["backend"]
    inner = ns.OpenAI(model="tiny", base_url=replay.url, api_key="another-key-5")
    assert isinstance(replay, Backend)
    assert (replay.name, replay.model, replay.url) == ("replay", "tiny", told["base_url"])
    assert replay.settings() == told == inner.settings()
    assert replay.call(CHAT, CAN, seed=2) == inner.call(CHAT, CAN, seed=2)
    assert (replay.headers(), replay.secrets(), replay.address) == ({}, (), replay.url)
    assert "canary" not in repr(replay)


def test_what_the_environment_holds_is_kept_out_of_what_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-of-today")
    monkeypatch.setenv("http_proxy", "http://me:canary-pass@127.0.0.1:1")
    copy = shutil.copytree(run, tmp_path / "run")
    assert {"canary-key-of-today", "canary-pass"} <= set(Replay(copy).secrets())
    # a reply of a server that told the key, stored by something that did not know it
    history = Replay(copy)._history  # noqa: SLF001
    key = bytes.fromhex(next(e.head["reply"] for e in history.reader.entries() if "reply" in e.head))
    with Journal(copy / "journal") as journal:
        raw = b'{"error": {"message": "the key canary-key-of-today is too old"}}'
        journal.append(reply(key, 0, 0.1, "2020-01-01T00:00:00Z"), raw).result()
    again = ns.simulate(
        records_of(), explanations_of(), simulator="tab_list", backend=Replay(copy), out=tmp_path / "again"
    )
    errors = again.requests().collect()["error"].drop_nulls()
    assert errors.to_list() == ['status 200 with an error: {"error": {"message": "the key *** is too old"}}']


def test_what_the_server_was_found_to_do_is_known(run):
    can = Replay(run).assumed
    assert (can.chat, can.logprobs, can.structured) == (True, 0, True)


def test_what_was_asked_is_known_and_nothing_else_is(run):
    replay = Replay(run)
    key = bytes.fromhex(next(e.head["reply"] for e in replay._history.reader.entries() if "reply" in e.head))  # noqa: SLF001
    past = replay.past(key)
    assert "\t" in replay.read(past.raw).text
    assert past.attempts == 1
    assert replay.past(bytes(32)) is None


def test_no_key_is_needed(run, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert Replay(str(run)).model == "tiny"


def test_a_folder_that_is_no_run_is_refused_in_words(tmp_path):
    with pytest.raises(JournalError, match="Name the folder of a run"):
        Replay(tmp_path)


def test_a_run_that_never_asked_is_refused_in_words(tmp_path):
    with Journal(tmp_path / "journal"), pytest.raises(BackendError, match="nothing was asked in this run"):
        Replay(tmp_path)


def test_a_run_whose_journal_is_gone_is_refused_in_words(run, tmp_path):
    shutil.copy(run / "run.json", tmp_path)
    with pytest.raises(JournalError, match="there is no journal here"):
        Replay(tmp_path)
