"""Tables in an object store: a real S3 server on loopback, asked by Polars and by pyarrow as they ask Amazon's."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import moto.s3.models
import polars as pl
import pytest
from moto.s3.exceptions import AccessForbidden, InvalidPart
from polars.testing import assert_frame_equal
from store_server import SECRET, keys, put, serving, simulated, writer_of

import nscore as ns
from nscore._sql.sql_polars import counts_as_sql
from nscore._tables.commits import commit
from nscore._tables.disk import write_table, write_whole
from nscore._tables.stores import StorePath, place, said_of, shown
from nscore.cli import main
from nscore.errors import RunError, SettingError, SourceError, StorageError, TableError
from nscore.frames import source

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def server():
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def client(server):
    return boto3.client("s3", endpoint_url=server, region_name="us-east-1")


@pytest.fixture
def bucket(client, request):
    """The address of a bucket of its own."""
    name = f"b{abs(hash(request.node.nodeid)):x}"
    client.create_bucket(Bucket=name)
    return f"s3://{name}"


def test_a_table_comes_back_as_it_was_written(bucket):
    sha = write_table(StorePath(f"{bucket}/deep/er/t.parquet"), simulated())
    assert len(sha) == 64
    given = source(f"{bucket}/deep/er/t.parquet")
    assert_frame_equal(given.frame.collect(), simulated())
    assert given.height() == 12


@pytest.mark.parametrize("name", ["a run/t 1.parquet", "50%25/ü#1.parquet", "x=1/a+b&c.parquet", "[a]/t*.parquet"])
def test_any_name_is_written_and_found(bucket, name):
    write_table(place(bucket) / name, simulated())
    for address in (f"{bucket}/{name}", f"{bucket}/{name.rpartition('/')[0]}"):
        assert_frame_equal(source(address).frame.collect(), simulated())


def test_folders_and_globs_are_listed_as_on_a_disk(bucket, tmp_path):
    for name in ("b.parquet", "a.parquet", ".hidden.parquet", "note.txt", "sub/c.parquet"):
        for root in (place(bucket), tmp_path):
            if root is tmp_path:
                (tmp_path / name).parent.mkdir(exist_ok=True)
            write_table(root / "x" / name if root is not tmp_path else root / name, pl.DataFrame({"a": [1]}))

    def found(address):
        return [file.removeprefix(f"{bucket}/x/").removeprefix(f"{tmp_path}/") for file in source(address).files]

    for pattern in ("", "*.parquet", "[ab].parquet", "?.parquet", "**/*.parquet", "*/c.parquet", "a.parquet", ".h*"):
        assert found(f"{bucket}/x/{pattern}") == found(f"{tmp_path}/{pattern}"), pattern
    assert found(f"{bucket}/x/") == ["a.parquet", "b.parquet"]


def test_of_a_run_in_a_store_the_committed_files_are_read(bucket):
    run = place(bucket) / "run"
    part = {name: write_table(run / "simulated" / name, pl.DataFrame({"a": [i]})) for i, name in enumerate("pqr")}
    del part["r"]
    commit(run, {f"simulated/{name}": sha for name, sha in part.items()})
    assert source(f"{run}/simulated").frame.collect()["a"].to_list() == [0, 1]
    assert source(f"{run}/simulated/*").frame.collect()["a"].to_list() == [0, 1]
    (run / "simulated/q").remove()
    with pytest.raises(TableError, match=r"simulated/q: missing shard: it is committed, and is not there"):
        source(f"{run}/simulated")


def test_a_file_behind_https_is_read_and_its_signature_never_told(bucket, client, server):
    write_table(StorePath(f"{bucket}/t.parquet"), simulated())
    put(client, f"{bucket}/broken.parquet", b"PAR1 no table at all PAR1")
    name = bucket[5:]
    for key in ("t.parquet", "broken.parquet", "none.parquet"):
        url = client.generate_presigned_url("get_object", Params={"Bucket": name, "Key": key})
        assert "ignature=" in url
        if key == "t.parquet":
            assert_frame_equal(source(url).frame.collect(), simulated())
            continue
        with pytest.raises(TableError) as error:
            source(url).schema()
        assert f"{server}/{name}/{key}: " in str(error.value)
        assert "ignature" not in str(error.value)
        assert "xpires" not in str(error.value)
        assert error.value.problem == ("no such file" if key == "none.parquet" else "unreadable")


@pytest.mark.parametrize("what", ["none.parquet", "nowhere", "none/*.parquet"])
def test_what_is_not_there_is_named(bucket, what):
    with pytest.raises(TableError, match="no such file") as error:
        source(f"{bucket}/{what}")
    assert f"{bucket}/{what}" in str(error.value)


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_not_there_is_named():
    with pytest.raises(TableError, match=r"s3://nobucket/x\.parquet: no such file"):
        source("s3://nobucket/x.parquet")
    with pytest.raises(StorageError, match=r"s3://nobucket/x.parquet: cannot write it: .*bucket"):
        write_table(StorePath("s3://nobucket/x.parquet"), simulated())


def test_a_broken_object_is_named_and_an_odd_one_of_many_found(bucket, client):
    put(client, f"{bucket}/broken.parquet", b"PAR1 no table at all PAR1")
    with pytest.raises(TableError, match=f"{bucket}/broken.parquet: unreadable"):
        source(f"{bucket}/broken.parquet").schema()
    write_table(StorePath(f"{bucket}/two/a.parquet"), pl.DataFrame({"a": [1]}))
    write_table(StorePath(f"{bucket}/two/b.parquet"), pl.DataFrame({"a": ["x"]}))
    two = source(f"{bucket}/two")
    with pytest.raises(TableError, match=f"{bucket}/two/b.parquet, column 'a': wrong dtype"):
        two.collect(two.frame)


@pytest.mark.parametrize("refused", ["head_object", "get_object"])
def test_no_permission_is_told_without_keys(bucket, monkeypatch, refused):
    write_table(StorePath(f"{bucket}/t.parquet"), simulated())

    def denied(*_, **__):
        raise AccessForbidden(msg=f"canarykey may not, with {SECRET}")

    monkeypatch.setattr(moto.s3.models.S3Backend, refused, denied)
    with pytest.raises(TableError) as error:
        source(f"{bucket}/t.parquet").schema()
    assert error.value.problem == "no permission", str(error.value)
    assert f"{bucket}/t.parquet" in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.usefixtures("server")
def test_keys_and_options_do_not_belong_in_addresses():
    for address in ("s3://key:hunter22@bucket/x", "s3://bucket/x?secret_key=hunter22", "s3://", "https://host/x"):
        with pytest.raises(SettingError) as error:
            place(address)
        assert "hunter22" not in str(error.value)
    with pytest.raises(SettingError, match="as text"):
        place(Path("s3://bucket/x"))
    with pytest.raises(SettingError, match="AWS_ENDPOINT_URL"):
        source("s3://bucket/x?endpoint_override=127.0.0.1")


def test_what_azure_needs_is_told(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(SettingError, match=r"az://c: set AZURE_STORAGE_ACCOUNT_NAME"):
        source("az://c/t.parquet")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "")
    with pytest.raises(SettingError, match=r"az://c: set AZURE_STORAGE_ACCOUNT_NAME"):
        source("az://c/t.parquet")
    with pytest.raises(SourceError, match=r"az://c/in: .*set AZURE_STORAGE_ACCOUNT_NAME"):
        ns.import_files("table", "az://c/in", "out")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingError, match=r"az://c/t.html: .* pip install 'nscore\[azure\]'"):
        write_whole(StorePath("az://c/t.html"), b"x")


@pytest.mark.usefixtures("server")
def test_errors_hold_no_secrets():
    said = said_of(OSError(f"<Key>{SECRET}</Key> https://host/a?X-Amz-Signature=abcdef&b=c\n<Id>canarykey</Id>"))
    assert said == "<Key>***</Key> https://host/a"
    assert shown("https://me:pass@host/a?sig=abc") == "https://***@host/a"


def test_an_object_is_replaced_whole(bucket, client):
    file = StorePath(f"{bucket}/t.parquet")
    write_table(file, simulated(1))
    write_table(file, simulated(5))
    assert_frame_equal(source(file).frame.collect(), simulated(5))
    assert keys(client, bucket) == ["t.parquet"]


def test_a_table_that_fails_half_way_leaves_what_was_there(bucket, client):
    file = StorePath(f"{bucket}/t.parquet")
    write_table(file, simulated(1))

    def fails(_frame):
        raise ValueError("half way")

    broken = pl.concat([simulated(2).lazy(), simulated(2).lazy().map_batches(fails)])
    with pytest.raises((pl.exceptions.ComputeError, ValueError), match="half way"):
        write_table(file, broken)
    assert_frame_equal(source(file).frame.collect(), simulated(1))
    assert keys(client, bucket) == ["t.parquet"]


@pytest.mark.parametrize("step", ["complete_multipart_upload", "upload_part"])
def test_an_upload_that_the_store_refuses_leaves_what_was_there(bucket, monkeypatch, step):
    file = StorePath(f"{bucket}/page.html")
    write_whole(file, b"old")

    def refused(*_, **__):
        raise InvalidPart

    monkeypatch.setattr(moto.s3.models.S3Backend, step, refused)
    with pytest.raises(StorageError, match=rf"{file}: cannot write it: .*") as error:
        write_whole(file, b"new" * 8_000_000)
    assert "canary" not in str(error.value)
    assert file.read_bytes() == b"old"


@pytest.fixture
def stalled(bucket, monkeypatch):
    """The server stores a part of an upload into the test's bucket, and answers when it is let to."""
    reached, release = threading.Event(), threading.Event()
    upload_part = moto.s3.models.S3Backend.upload_part

    def stalls(backend, into, *arguments):
        made = upload_part(backend, into, *arguments)
        if into == bucket[5:]:  # a writer that was killed in the test before may still be heard
            reached.set()
            release.wait(20)
        return made

    monkeypatch.setattr(moto.s3.models.S3Backend, "upload_part", stalls)
    yield reached, release
    release.set()


@pytest.mark.parametrize("before", [True, False])
def test_a_killed_upload_leaves_nothing_to_see(bucket, client, stalled, before):
    reached, release = stalled
    file = StorePath(f"{bucket}/page.html")
    if before:
        client.put_object(Bucket=bucket[5:], Key="page.html", Body=b"old")
    writer = writer_of(file)
    try:
        assert reached.wait(60)
        assert keys(client, bucket) == (["page.html"] if before else [])
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.wait(20) == -signal.SIGKILL
    finally:
        writer.kill()
    release.set()
    assert len(client.list_multipart_uploads(Bucket=bucket[5:])["Uploads"]) == 1
    assert keys(client, bucket) == (["page.html"] if before else [])
    assert not before or file.read_bytes() == b"old"


def test_an_interrupted_upload_is_ended_whole(bucket, client, stalled):
    reached, release = stalled
    client.put_object(Bucket=bucket[5:], Key="page.html", Body=b"old")
    file = StorePath(f"{bucket}/page.html")
    writer = writer_of(file)
    try:
        assert reached.wait(60)
        os.kill(writer.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.5)
        assert file.read_bytes() == b"old"
        release.set()
        assert writer.wait(20) == -signal.SIGINT
    finally:
        writer.kill()
    assert file.size() == 24_000_000


def test_score_and_calibrate_read_and_write_there(bucket, client, capsys):
    write_table(StorePath(f"{bucket}/in/simulated.parquet"), simulated())
    assert main(["calibrate", f"{bucket}/in", "-o", f"{bucket}/calibrated"]) == 0
    assert main(["score", f"{bucket}/calibrated/simulated.parquet", "-o", f"{bucket}/results", "--json"]) == 0
    assert f'"{bucket}/results/scores.parquet"' in capsys.readouterr().out
    expected = ns.score(ns.calibrate(simulated(), "linear"))
    assert_frame_equal(source(f"{bucket}/results/scores.parquet").frame.collect(), expected)
    made = ["calibrated/calibration.parquet", "calibrated/simulated.parquet", "in/simulated.parquet"]
    assert keys(client, bucket) == [*made, "results/scores.parquet", "results/sequence_scores.parquet"]


def test_workers_read_there_for_themselves(bucket):
    write_table(StorePath(f"{bucket}/simulated.parquet"), simulated())
    scores, _ = ns.score_shards(f"{bucket}/simulated.parquet", executor="processes", workers=2)
    assert_frame_equal(scores, ns.score(simulated()))


def test_simulators_that_ask_nobody_write_there(bucket):
    records, explanations = ns.sample.records().filter(layer=0), ns.sample.explanations().filter(layer=0)
    write_table(StorePath(f"{bucket}/records.parquet"), records)
    write_table(StorePath(f"{bucket}/explanations.parquet"), explanations)
    tables = [f"{bucket}/records.parquet", f"{bucket}/explanations.parquet"]
    assert main(["simulate", *tables, "-o", f"{bucket}/out"]) == 0
    expected = ns.simulate(records, explanations)
    assert_frame_equal(source(f"{bucket}/out/simulated.parquet").frame.collect(), expected)


def test_a_run_with_a_journal_stays_on_a_disk(bucket, client):
    server = ns.OpenAI(model="m", base_url="http://127.0.0.1:9/v1", api_key="none")
    records, explanations = ns.sample.records(), ns.sample.explanations()
    with pytest.raises(RunError, match=f"{bucket}/run: the journal of a run lies on a disk"):
        ns.simulate(records, explanations, simulator="json_list", backend=server, out=f"{bucket}/run")
    assert keys(client, bucket) == []


def test_an_import_reads_and_writes_there(bucket, client, monkeypatch):
    lines = simulated().drop("predicted", "split")
    for n in range(3):
        name = f"{bucket}/in/{n}.csv"
        put(client, name, lines.filter(pl.col("neuron") == n).write_csv().encode())
    monkeypatch.setattr("nscore.imports.PART_ROWS", 4)  # each file is a part, and the table has more rows than one
    assert main(["import", "table", f"{bucket}/in", "-o", f"{bucket}/out", "--executor", "local"]) == 0
    assert [key for key in keys(client, bucket) if "out/records" in key] == ["out/records.parquet"]
    got = source(f"{bucket}/out/records.parquet").frame.collect()
    assert_frame_equal(got.select(lines.columns), lines, check_dtypes=False)
    with pytest.raises(SettingError, match=r"holds records.parquet already"):
        ns.import_files("table", f"{bucket}/in", f"{bucket}/out")


def test_an_import_that_cannot_read_shows_no_signature(bucket, client, tmp_path):
    put(client, f"{bucket}/t.csv", b"layer,neuron,sequence,position,token,activation\n0,1,0,0,a,1.0\n")
    name = bucket[5:]
    for key in ("t.csv", "none.csv"):
        url = client.generate_presigned_url("get_object", Params={"Bucket": name, "Key": key})
        if key == "t.csv":
            assert ns.import_files("table", url, tmp_path / "out").tokens == 1
            continue
        with pytest.raises(SourceError, match=f"{name}/none.csv: cannot be read: .*404") as error:
            ns.import_files("table", url, tmp_path / "none")
        assert "ignature" not in str(error.value)


def test_a_report_is_written_there(bucket):
    write_table(StorePath(f"{bucket}/run/simulated.parquet"), simulated())
    assert main(["report", f"{bucket}/run", "-o", f"{bucket}/pages/report.html"]) == 0
    assert StorePath(f"{bucket}/pages/report.html").read_bytes().startswith(b"<!DOCTYPE html>")


@pytest.mark.skipif(not counts_as_sql(), reason="an older Polars, which answers no questions")
def test_questions_of_what_lies_there(bucket, capsys):
    write_table(StorePath(f"{bucket}/run/simulated.parquet"), simulated())
    question = ["query", f"{bucket}/run", "SELECT COUNT(*) AS n FROM simulated"]
    assert main([*question, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 12}]
    assert main([*question, "-o", f"{bucket}/answer.csv"]) == 0
    assert StorePath(f"{bucket}/answer.csv").read_bytes() == b"n\n12\n"
    with pytest.raises(ns.errors.QueryError, match="DuckDB"):
        ns.query(f"{bucket}/run", "SELECT 1", engine="duckdb")


def test_sides_of_a_comparison_and_the_best_lie_there(bucket, capsys):
    told = simulated().with_columns(explanation_id=pl.lit("a"), split=pl.col("split").replace("calibration", "test"))
    both = pl.concat([told, told.with_columns(explanation_id=pl.lit("b"), predicted=pl.lit(1.0))])
    for name, rows in (("a", told), ("b", told), ("both", both)):
        write_table(StorePath(f"{bucket}/{name}.parquet"), rows)
        assert main(["score", f"{bucket}/{name}.parquet", "-o", f"{bucket}/{name}"]) == 0
    assert main(["compare", f"{bucket}/a", f"{bucket}/b", "-o", f"{bucket}/compared"]) == 0
    assert source(f"{bucket}/compared/comparison.parquet").height() == 3
    assert main(["best", f"{bucket}/both", "-o", f"{bucket}/best"]) == 0
    assert source(f"{bucket}/best/best.parquet").height() == 3
    capsys.readouterr()


def export(bucket):
    texts = pl.DataFrame({"layer": 0, "neuron": [0, 1, 2], "explanation_id": "a", "explanation": "red"})
    told = simulated().with_columns(explanation_id=pl.lit("a"))
    write_table(StorePath(f"{bucket}/run/simulated.parquet"), told)
    write_table(StorePath(f"{bucket}/run/explanations.parquet"), texts)
    return ns.export_files("openai", f"{bucket}/run", f"{bucket}/out")


def test_an_export_is_marked_when_all_its_files_are_there(bucket, client):
    told = export(bucket)
    files = [key.removeprefix("out/") for key in keys(client, bucket) if key.startswith("out/")]
    assert sorted(files) == ["0/0.jsonl", "0/1.jsonl", "0/2.jsonl", "committed.json"]
    marked = json.loads(StorePath(f"{bucket}/out/committed.json").read_bytes())["files"]
    assert sorted(marked) == ["0/0.jsonl", "0/1.jsonl", "0/2.jsonl"]
    assert told.files == 3
    with pytest.raises(SettingError, match="is there already and not empty"):
        ns.export_files("openai", f"{bucket}/run", f"{bucket}/out")


def test_an_export_that_fails_leaves_nothing(bucket, client, monkeypatch):
    upload = StorePath.upload

    def fails(self, file):
        if self.name == "2.jsonl":
            raise StorageError("full")
        upload(self, file)

    monkeypatch.setattr(StorePath, "upload", fails)
    with pytest.raises(StorageError, match="full"):
        export(bucket)
    left = [key for key in keys(client, bucket) if key.startswith("out/")]
    assert left == [key for key in left if key.endswith("/")]  # pyarrow marks a folder that it has emptied
    monkeypatch.undo()
    assert ns.export_files("openai", f"{bucket}/run", f"{bucket}/out").files == 3


def test_the_demo_runs_there(bucket, client):
    assert main(["demo", "-o", f"{bucket}/demo"]) == 0
    names = ["calibration", "explanations", "records", "scores", "sequence_scores", "simulated"]
    assert keys(client, bucket) == [f"demo/{name}.parquet" for name in names]
