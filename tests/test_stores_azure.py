"""Tables at `az://`: Azurite on loopback, asked by Polars and by pyarrow as they ask Microsoft's store.

Runs where it is asked for: `npm install -g azurite`, then `pytest -m azurite`.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from store_server import simulated

import nscore as ns
from nscore._tables.commits import commit
from nscore._tables.disk import write_table, write_whole
from nscore._tables.stores import StorePath, place
from nscore.cli import main
from nscore.errors import StorageError, TableError
from nscore.frames import source

pytestmark = pytest.mark.azurite
# of Azurite's documentation: the same everywhere, and no secret
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["azurite-blob", "--silent", "--blobPort", str(port), "--skipApiVersionCheck", "--disableTelemetry"]
    running = subprocess.Popen([*command, "--location", tmp_path_factory.mktemp("azurite")])
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }
    try:
        for _ in range(300):
            with socket.socket() as trial:
                if not trial.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        with mock.patch.dict(os.environ, environment):
            yield
    finally:
        running.terminate()
        running.wait(20)


@pytest.fixture
def container(request):
    """The address of a container of its own."""
    address = f"az://c{abs(hash(request.node.nodeid)):x}"
    store, name = StorePath(address).opened()
    store.create_dir(name)
    return address


def test_an_object_is_there_whole_or_as_it_was(container, tmp_path):
    """A process that is killed while it writes over an object leaves it as it was."""
    file = StorePath(f"{container}/page.html")
    write_whole(file, b"old")
    (tmp_path / "new").write_bytes(b"n" * 300_000_000)
    code = f"""
from pathlib import Path
from nscore._tables.stores import StorePath
print("now", flush=True)
StorePath({str(file)!r}).upload(Path({str(tmp_path / "new")!r}))
"""
    for kill_after_s in (0.0, 0.2, 0.5, None):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"now\n"
            started = time.monotonic()
            while writer.poll() is None:
                assert file.size() in {3, 300_000_000}
                if kill_after_s is not None and time.monotonic() - started > kill_after_s:
                    writer.kill()
                    break
        assert file.size() == (300_000_000 if kill_after_s is None else 3)


@pytest.mark.parametrize("name", ["deep/er/t.parquet", "a run/t 1.parquet", "x=1/a+b&c.parquet"])
def test_a_table_comes_back_and_is_replaced_whole(container, name):
    for n in (1, 5):
        write_table(place(container) / name, simulated(n))
        assert_frame_equal(source(f"{container}/{name}").frame.collect(), simulated(n))
        assert_frame_equal(source(f"{container}/{name.rpartition('/')[0]}").frame.collect(), simulated(n))


def test_of_a_run_the_committed_files_are_read(container):
    run = place(container) / "run"
    part = {name: write_table(run / "simulated" / name, pl.DataFrame({"a": [i]})) for i, name in enumerate("pqr")}
    del part["r"]
    commit(run, {f"simulated/{name}": sha for name, sha in part.items()})
    assert source(f"{run}/simulated").frame.collect()["a"].to_list() == [0, 1]


def test_what_is_not_there_or_refused_is_told_without_keys(container, monkeypatch):
    with pytest.raises(TableError, match=rf"{container}/none\.parquet: no such file"):
        source(f"{container}/none.parquet")
    with pytest.raises(StorageError, match=r"az://nowhere/t\.html: cannot write it"):
        write_whole(StorePath("az://nowhere/t.html"), b"x")
    write_table(StorePath(f"{container}/t.parquet"), simulated())
    other = KEY.replace("E", "F")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", other)
    with pytest.raises(TableError, match=rf"{container}/t\.parquet: no permission") as error:
        source(f"{container}/t.parquet").schema()
    assert other not in str(error.value)


def test_commands_read_and_write_there(container, capsys):
    lines = simulated().drop("predicted", "split")
    write_whole(StorePath(f"{container}/in/t.csv"), lines.write_csv().encode())
    assert main(["import", "table", f"{container}/in", "-o", f"{container}/out", "--executor", "local"]) == 0
    got = source(f"{container}/out/records.parquet").frame.collect()
    assert_frame_equal(got.select(lines.columns), lines, check_dtypes=False)
    write_table(StorePath(f"{container}/run/simulated.parquet"), simulated())
    assert main(["score", f"{container}/run", "-o", f"{container}/run"]) == 0
    assert_frame_equal(source(f"{container}/run/scores.parquet").frame.collect(), ns.score(simulated()))
    assert main(["report", f"{container}/run", "-o", f"{container}/report.html"]) == 0
    assert StorePath(f"{container}/report.html").read_bytes().startswith(b"<!DOCTYPE html>")
    assert "az://" in capsys.readouterr().out


def test_the_demo_runs_there(container, tmp_path):
    assert main(["demo", "-o", f"{container}/demo"]) == 0
    assert main(["demo", "-o", str(tmp_path)]) == 0
    for name in ("scores", "sequence_scores"):
        assert_frame_equal(
            source(f"{container}/demo/{name}.parquet").frame.collect(),
            pl.read_parquet(Path(tmp_path) / f"{name}.parquet"),
        )
