"""Tables at `gs://`: a server on loopback, asked by Polars and by pyarrow as they ask Google's store."""

import gc
import json
import os
import signal
import subprocess
import time
from datetime import timedelta

import httpx
import pytest
from gcs_server import serving
from store_promises import StorePromises
from store_server import simulated, writer_of

from nscore._sql.sql_polars import counts_as_sql
from nscore._tables import stores
from nscore._tables.disk import write_table, write_whole
from nscore._tables.stores import StorePath
from nscore.cli import main
from nscore.errors import StorageError, TableError
from nscore.frames import source

# a large object is sent in two: what fills the writer's buffers, and what is left, which ends it
FIRST, LAST = r"^PUT .* bytes 0-\d+/\*", r"^PUT .*/\d+$"


@pytest.fixture(scope="module", autouse=True)
def server():
    with serving() as told:
        yield told


@pytest.fixture
def bucket(server, request):
    """The address of a bucket of its own."""
    server.fault()
    name = f"b{abs(hash(request.node.nodeid)):x}"
    made = httpx.post(
        f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b", params={"project": "p"}, json={"name": name}
    )
    assert made.is_success
    return f"gs://{name}"


@pytest.fixture
def page(bucket):
    """An object that is there already."""
    file = StorePath(f"{bucket}/page.html")
    write_whole(file, b"old")
    return file


class TestGoogle(StorePromises):
    """What holds in every store."""


@pytest.mark.parametrize("at", [FIRST, LAST])
def test_a_killed_upload_leaves_what_was_there(page, server, at):
    server.fault(at, "stall")
    with writer_of(page) as writer:
        server.met()
        assert page.read_bytes() == b"old"
        writer.kill()
    server.fault()
    time.sleep(0.2)  # the server takes in what has arrived
    # all of a short last part may have left the writer before it was killed
    assert page.size() in ({3} if at == FIRST else {3, 24_000_000})


def test_a_killed_upload_of_a_new_object_leaves_nothing(bucket, server):
    server.fault(FIRST, "stall")
    with writer_of(f"{bucket}/page.html") as writer:
        server.met()
        writer.kill()
    server.fault()
    time.sleep(0.2)
    assert StorePath(bucket).glob("**/*") == []


def test_an_interrupted_upload_is_ended_whole(page, server):
    server.fault(FIRST, "stall")
    with writer_of(page) as writer:
        server.met()
        writer.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.5)
        assert page.read_bytes() == b"old"
        server.fault()
        assert writer.wait(20) == -signal.SIGINT
    assert page.size() == 24_000_000


@pytest.mark.parametrize("at", [FIRST, LAST])
def test_an_upload_that_the_store_refuses_leaves_what_was_there(page, server, at):
    server.fault(at, 403)
    with pytest.raises(StorageError, match=rf"{page}: cannot write it: .*PERMISSION_DENIED.* 403\. See") as error:
        write_whole(page, b"new" * 8_000_000)
    assert "error_info" not in str(error.value)
    assert page.read_bytes() == b"old"
    # nor does the stream that failed write anything when it goes
    stores._STREAMS.clear()  # noqa: SLF001
    gc.collect()
    assert page.read_bytes() == b"old"


@pytest.mark.parametrize(("at", "does"), [(FIRST, "cut"), (LAST, 503)])
def test_an_upload_goes_on_after_a_fault(page, server, at, does):
    server.fault(at, does)
    content = os.urandom(9_000_000)
    write_whole(page, content)
    server.met()
    assert page.read_bytes() == content


def test_a_store_that_stays_away_is_told_and_the_object_is_as_it_was(page, server, monkeypatch):
    impatient(monkeypatch)
    server.fault(LAST, 503, times=99)
    with pytest.raises(StorageError, match=rf"{page}: cannot write it: .*UNAVAILABLE.* 503\. See"):
        write_whole(page, b"new")
    server.fault()
    assert page.read_bytes() == b"old"


@pytest.mark.parametrize("at", ["^GET /storage/", r"^(GET|HEAD) /b\w+/"])
def test_no_permission_is_told(bucket, server, at):
    """By pyarrow, which looks for the file, and by Polars, which reads it."""
    write_table(StorePath(f"{bucket}/t.parquet"), simulated())
    server.fault(at, 403, times=99)
    with pytest.raises(TableError, match=rf"{bucket}/t\.parquet: no permission"):
        source(f"{bucket}/t.parquet").schema()


def test_without_keys_it_is_told_what_to_set(monkeypatch, tmp_path):
    impatient(monkeypatch)
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")
    with pytest.raises(TableError, match=r"gs://b/t\.parquet: no permission.* Set GOOGLE_APPLICATION_CREDENTIALS"):
        source("gs://b/t.parquet")


def test_a_host_may_be_named_without_its_scheme(page, monkeypatch):
    write_table(page.parent / "t.parquet", simulated())
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://"))
    assert page.read_bytes() == b"old"
    assert source(page.parent / "t.parquet").height() == 12


@pytest.mark.skipif(not counts_as_sql(), reason="an older Polars, which answers no questions")
def test_questions_of_what_lies_there(bucket, capsys):
    write_table(StorePath(f"{bucket}/run/simulated.parquet"), simulated())
    assert main(["query", f"{bucket}/run", "SELECT COUNT(*) AS n FROM simulated", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 12}]


def impatient(monkeypatch):
    stores._opened.cache_clear()  # noqa: SLF001
    monkeypatch.setattr(stores, "RETRIES", timedelta(seconds=0.5))
