"""Tables at `az://`: Azurite on loopback, asked by Polars and by pyarrow as they ask Microsoft's store.

Runs where it is asked for: `npm install -g azurite`, then `pytest -m azurite`.
"""

import os
import socket
import subprocess
import sys
import time
from unittest import mock

import pytest
from store_promises import StorePromises
from store_server import simulated

from nscore._tables.disk import write_table, write_whole
from nscore._tables.stores import StorePath
from nscore.errors import TableError
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
def bucket(request):
    """The address of a container of its own."""
    address = f"az://c{abs(hash(request.node.nodeid)):x}"
    store, name = StorePath(address).opened()
    store.create_dir(name)
    return address


def test_an_object_is_there_whole_or_as_it_was(bucket, tmp_path):
    """A process that is killed while it writes over an object leaves it as it was."""
    file = StorePath(f"{bucket}/page.html")
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


class TestAzure(StorePromises):
    """What holds in every store."""


def test_no_permission_is_told_without_keys(bucket, monkeypatch):
    write_table(StorePath(f"{bucket}/t.parquet"), simulated())
    other = KEY.replace("E", "F")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", other)
    with pytest.raises(TableError, match=rf"{bucket}/t\.parquet: no permission") as error:
        source(f"{bucket}/t.parquet").schema()
    assert other not in str(error.value)
