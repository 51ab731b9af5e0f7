"""The run directory: what it says of itself, and what it refuses in words."""

from __future__ import annotations

import json

import pytest
from asking import backend, explanations_of, records_of, serve

import nscore as ns
from nscore._running.workplace import Workplace, wanted_settings
from nscore._sending import history as _history
from nscore._sending.journal import Journal
from nscore.exchange import Capabilities
from nscore.run import Run

SERVER = ns.OpenAI(model="m", base_url="http://me:canary-pass@127.0.0.1:1/v1?key=canary-query", api_key="canary-key")


def workplace(path, **given):
    options = {"simulators": [ns.JsonList()], "keys": ["layer", "neuron"], "distribution": False} | given
    return Workplace(path, wanted_settings(options.pop("simulators"), SERVER, **options))


@pytest.fixture
def settled(tmp_path):
    """The folder of a run whose server was probed."""
    place = workplace(tmp_path / "run")
    place.settle(Capabilities(logprobs=5, ten=2))
    place.close()
    return tmp_path / "run"


def test_settings_hold_what_decides_an_answer_and_no_secret(settled):
    settings = Run(settled).settings()
    assert settings["format"] == 1
    assert settings["nscore"] == ns.__version__
    assert settings["backend"] == {
        "name": "openai",
        "model": "m",
        "base_url": "http://127.0.0.1:1/v1",
        "extra": {},
        "thinking_tokens": 4096,
    }
    assert settings["simulators"][0]["prompts"] == "json_list/1"
    assert settings["capabilities"]["logprobs"] == 5
    assert not any(b"canary" in file.read_bytes() for file in settled.rglob("*") if file.is_file())


def test_a_run_that_goes_on_knows_what_its_server_can_do(settled):
    place = workplace(settled)
    place.close()
    assert place.can == Capabilities(logprobs=5, ten=2)


def test_a_control_is_described_with_what_it_controls(tmp_path):
    place = workplace(tmp_path, simulators=[ns.Shuffled(ns.TabList(pack=3), seed=7)])
    place.settle(Capabilities())
    place.close()
    (told,) = Run(tmp_path).settings()["simulators"]
    assert (told["name"], told["seed"], told["inner"]["pack"]) == ("shuffled_tab_list", 7, 3)


def test_a_run_of_a_newer_nscore_is_refused_in_words(tmp_path):
    with Journal(tmp_path / "journal") as journal:
        journal.append(_history.settings({"format": 2, "nscore": "9.0"}))
    for opened in (lambda: Run(tmp_path).settings(), lambda: workplace(tmp_path), lambda: ns.rebuild(tmp_path)):
        with pytest.raises(ns.RunError, match=r"written by nscore 9\.0, format 2; .* Update nscore"):
            opened()


@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_the_journal_is_the_truth_and_the_readable_file_is_written_again(settled, content):
    before = (settled / "run.json").read_bytes()
    (settled / "run.json").unlink() if content is None else (settled / "run.json").write_bytes(content)
    place = workplace(settled)
    place.write_settings()
    place.close()
    assert (settled / "run.json").read_bytes() == before


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(ns.RunError, match=r"no run was started here. Name the folder of a run"):
        Run(tmp_path).settings()


def test_a_run_that_never_asked_says_so(tmp_path):
    workplace(tmp_path).close()
    with pytest.raises(ns.RunError, match="broken off before anything was asked"):
        Run(tmp_path).settings()


def test_a_run_of_which_nothing_is_written_yet_says_so(settled):
    for table in (Run(settled).simulated, Run(settled).requests):
        with pytest.raises(ns.RunError, match="nothing is written yet"):
            table()


def test_differences_of_settings_are_told_one_by_one(settled):
    with pytest.raises(ns.RunError) as caught:
        workplace(settled, simulators=[ns.JsonList(pack=4, temperature=0.5)], keys=["neuron"], distribution=True)
    lines = str(caught.value).split("\n  ")
    assert lines[0].endswith("holds a run with other settings:")
    assert lines[1:3] == [
        "simulators[0].pack: the run has 1, now 4",
        "simulators[0].temperature: the run has null, now 0.5",
    ]
    assert 'keys: the run has ["layer", "neuron"], now ["neuron"]' in lines


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with serve() as server, pytest.raises(ns.RunError, match=r"0.0 GB are free.*keep='needed'"):
        ns.simulate(records_of(), explanations_of(), simulator="json_list", backend=backend(server), out=tmp_path)
    assert not any("fires on" in str(r.body) for r in server.requests)


def test_run_json_is_made_for_people_too(settled):
    text = (settled / "run.json").read_text("utf-8")
    assert text.startswith('{\n  "format": 1,\n')
    assert json.loads(text) == Run(settled).settings() | {"inputs": None}
