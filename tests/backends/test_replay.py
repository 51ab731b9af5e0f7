"""Replay: the answers of an earlier run, without a network."""

from __future__ import annotations

import json
import shutil

import pytest
from asking import backend, explanations_of, records_of, serve
from backends.fixtures import CAN, CHAT

import nscore as ns
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


def test_it_is_the_backend_of_the_run_without_its_secrets_and_sends_nothing(run):
    replay = Replay(run)
    told = settings_of(run)["backend"]
    inner = ns.OpenAI(model="tiny", base_url=replay.url, api_key="another-key-5")
    assert isinstance(replay, Backend)
    assert (replay.name, replay.model, replay.url) == ("replay", "tiny", told["base_url"])
    assert replay.settings() == told == inner.settings()
    assert replay.call(CHAT, CAN, seed=2) == inner.call(CHAT, CAN, seed=2)
    assert (replay.headers(), replay.secrets(), replay.address) == ({}, (), replay.url)
    assert "canary" not in repr(replay)


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


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("backend"),
        lambda told: told.pop("capabilities"),
        lambda told: told.update(backend=3),
        lambda told: told.update(capabilities=[]),
        lambda told: told["backend"].update(name="nowhere"),
        lambda told: told["backend"].update(name=["openai"]),
        lambda told: told["backend"].update(name=None),
        lambda told: told["backend"].update(odd=1),
        lambda told: told["capabilities"].update(logprobs="many"),
    ],
)
def test_settings_of_another_kind_are_refused_with_their_place(run, tmp_path, change):
    told = settings_of(run)
    change(told)
    (tmp_path / "run.json").write_text(json.dumps(told))
    with pytest.raises(BackendError, match=r"run\.json: expected the settings of a run"):
        Replay(tmp_path)


@pytest.mark.parametrize("raw", [None, b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_a_folder_that_is_no_run_is_refused_in_words(tmp_path, raw):
    if raw is not None:
        (tmp_path / "run.json").write_bytes(raw)
    with pytest.raises(BackendError, match=r"run\.json: expected the settings of a run.*Name the folder of a run"):
        Replay(tmp_path)


def test_a_bad_address_in_the_settings_is_refused_in_words(run, tmp_path):
    told = settings_of(run)
    told["backend"]["base_url"] = "nowhere"
    (tmp_path / "run.json").write_text(json.dumps(told))
    with pytest.raises(BackendError, match="base_url='nowhere'"):
        Replay(tmp_path)


def test_a_run_whose_journal_is_gone_is_refused_in_words(run, tmp_path):
    shutil.copy(run / "run.json", tmp_path)
    with pytest.raises(JournalError, match="there is no journal here"):
        Replay(tmp_path)
