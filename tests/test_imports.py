"""Importing: many files, several processes, one result; nothing is half there; what is wrong is said."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from functools import partial

import polars as pl
import pyarrow.fs
import pytest
from moto.server import ThreadedMotoServer
from openai_files import record, written

import nscore as ns
from nscore import imports
from nscore.errors import SettingError, SourceError, UnknownNameError
from nscore.importers import listed


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_FILES", 3)
    monkeypatch.setattr(imports, "PART_ROWS", 10)


def neuron(i, n=2):
    tokens = [f"t{i}"] * n
    return {"neuron_id": {"layer_index": 0, "neuron_index": i}, "random_sample": [record(tokens, [float(i)] * n)] * 2}


def folder_of(path, count):
    for i in range(count):
        written(path, 0, i, neuron(i))
    return path


@pytest.mark.usefixtures("_small")
def test_many_files_are_a_folder_of_parts_in_the_order_of_their_numbers(tmp_path):
    told = ns.import_files("openai", folder_of(tmp_path / "in", 23), tmp_path / "out")
    assert (tmp_path / "out/records.parquet").is_dir()
    records = pl.read_parquet(tmp_path / "out/records.parquet")
    assert records["neuron"].to_list() == [i for i in range(23) for _ in range(4)]
    assert (told.files, told.neurons, told.records, told.tokens) == (23, 23, 46, 92)
    scored = ns.score(ns.simulate(tmp_path / "out/records.parquet", explanations(23)), splits=["valid", "calibration"])
    assert scored.height == 23


def explanations(count):
    return pl.DataFrame({"layer": 0, "neuron": range(count), "explanation_id": "a", "explanation": "t"})


def test_several_processes_give_the_same_tables_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_FILES", 3)
    folder_of(tmp_path / "in", 12)
    (tmp_path / "in/0/5.json").write_text("{")
    one, two = (
        ns.import_files("openai", tmp_path / "in", tmp_path / f"out{n}", on_error="skip", workers=n) for n in (1, 2)
    )
    for name in one.tables:
        files = [tmp_path / f"out{n}/{name}.parquet" for n in (1, 2)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert (one.tables, one.skipped) == (two.tables, two.skipped)


@pytest.mark.usefixtures("_small")
def test_an_error_in_another_process_is_the_same_error_and_nothing_is_left(tmp_path):
    folder_of(tmp_path / "in", 7)
    (tmp_path / "in/0/5.json").write_text("{")
    with pytest.raises(SourceError, match=r"0/5\.json: no JSON") as caught:
        ns.import_files("openai", tmp_path / "in", tmp_path / "out", workers=2)
    assert caught.value.path.endswith("0/5.json")
    assert not (tmp_path / "out").exists()


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path):
    folder_of(tmp_path / "in", 3)
    script = tmp_path / "script.py"
    script.write_text(
        "import nscore as ns\nfrom nscore import imports\nimports.CHUNK_FILES = 1\n"
        f"ns.import_files('openai', {str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]
    assert "ExecutorError" in done.stderr.splitlines()[-1]
    assert "runs the script that began it" in done.stderr
    assert "resource_tracker" not in done.stderr
    assert not list(tmp_path.glob("out/*.parquet"))  # a process that ran the script again may leave a folder there


def test_the_same_neuron_in_two_files_is_refused(tmp_path):
    written(tmp_path / "in", 0, 1, neuron(1))
    written(tmp_path / "in", "a", 1, neuron(1))
    with pytest.raises(SourceError, match=r"holds layer 0, neuron 1, as .*json does"):
        ns.import_files("openai", tmp_path / "in", tmp_path / "out")


def test_tables_that_are_there_are_not_overwritten(tmp_path):
    folder_of(tmp_path / "in", 1)
    ns.import_files("openai", tmp_path / "in", tmp_path / "out")
    with pytest.raises(SettingError, match=r"holds records\.parquet already"):
        ns.import_files("openai", tmp_path / "in", tmp_path / "out")


def test_names_options_and_places_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="openai"):
        ns.import_files("opnai", tmp_path, tmp_path)
    with pytest.raises(SettingError, match="per_splt: openai has no such option; it has per_split"):
        ns.import_files("openai", tmp_path, tmp_path, per_splt=3)
    with pytest.raises(SourceError, match="no file of this format is there"):
        ns.import_files("openai", tmp_path, tmp_path / "out")
    with pytest.raises(SourceError, match=r"gone\.json: no file of this format is there"):
        ns.import_files("openai", tmp_path / "gone.json", tmp_path / "out")
    with pytest.raises(SettingError, match="on_error"):
        ns.import_files("openai", tmp_path, tmp_path, on_error="ignore")


def test_files_come_in_the_order_of_their_numbers_and_once(tmp_path):
    for name in ("10.json", "9.json", "b/2.json", ".hidden/1.json", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = listed([tmp_path, tmp_path / "9.json"], lambda path: path.endswith(".json"))
    assert [f.path.removeprefix(f"{tmp_path}/") for f in found] == ["9.json", "10.json", "b/2.json"]
    assert [f.path for f in listed([f"{tmp_path}/[0-9]*.json"], lambda _: True)] == [f.path for f in found[:2]]


@pytest.fixture
def site(tmp_path):
    """A folder behind http."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_files_behind_http_are_read_and_what_is_not_there_is_named(tmp_path, site, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    written(tmp_path, 0, 4, neuron(4))
    told = ns.import_files("openai", f"{site}/0/4.json", tmp_path / "out")
    assert told.neurons == 1
    with pytest.raises(SourceError, match="404"):
        ns.import_files("openai", f"{site}/0/5.json", tmp_path / "out2")


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a real S3 server: the address of a folder in it, and the query that leads there."""
    names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    query = f"?endpoint_override={host}:{port}&scheme=http"
    store, _ = pyarrow.fs.FileSystem.from_uri(f"s3://bucket{query}&allow_bucket_creation=true")
    store.create_dir("bucket")
    yield store, query
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_files_in_an_object_store_are_found_and_read(tmp_path, bucket):
    store, query = bucket
    for i in (10, 9):
        with store.open_output_stream(f"bucket/neurons/0/{i}.json") as file:
            file.write(json.dumps(neuron(i)).encode())
    told = ns.import_files("openai", f"s3://bucket/neurons{query}", tmp_path / "out")
    neurons = pl.read_parquet(tmp_path / "out/neurons.parquet")
    assert neurons["file"].to_list() == ["s3://bucket/neurons/0/9.json", "s3://bucket/neurons/0/10.json"]
    assert told.neurons == 2
    one = ns.import_files("openai", f"s3://bucket/neurons/0/9.json{query}", tmp_path / "one")
    assert one.neurons == 1
    with pytest.raises(SourceError, match="no file of this format is there"):
        ns.import_files("openai", f"s3://bucket/nothing{query}", tmp_path / "none")
    with pytest.raises(SourceError, match=r"s3://\*\*\*@nowhere/x: no file of this format is there"):
        ns.import_files("openai", f"s3://canary:hunter22@nowhere/x{query}", tmp_path / "none")
