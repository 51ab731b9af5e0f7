"""What holds in every store: tests that a module takes over in a class of its own, beside a fixture `bucket`.

The fixture gives the address of a bucket of the test's own.
"""

import re

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


class StorePromises:
    @pytest.mark.parametrize("name", ["deep/er/t.parquet", "a run/t 1.parquet", "x=1/a+b&c.parquet"])
    def test_a_table_comes_back_and_is_replaced_whole(self, bucket, name):
        for n in (1, 5):
            write_table(place(bucket) / name, simulated(n))
            assert_frame_equal(source(f"{bucket}/{name}").frame.collect(), simulated(n))
            assert_frame_equal(source(f"{bucket}/{name.rpartition('/')[0]}").frame.collect(), simulated(n))

    def test_of_a_run_the_committed_files_are_read(self, bucket):
        run = place(bucket) / "run"
        part = {name: write_table(run / "simulated" / name, pl.DataFrame({"a": [i]})) for i, name in enumerate("pqr")}
        del part["r"]
        commit(run, {f"simulated/{name}": sha for name, sha in part.items()})
        assert source(f"{run}/simulated").frame.collect()["a"].to_list() == [0, 1]

    def test_what_is_not_there_is_told(self, bucket):
        with pytest.raises(TableError, match=rf"{bucket}/none\.parquet: no such file"):
            source(f"{bucket}/none.parquet")
        nowhere = re.sub("//.*", "//nowhere/t.html", bucket)
        with pytest.raises(StorageError, match=rf"{nowhere}: cannot write it"):
            write_whole(StorePath(nowhere), b"x")

    def test_an_odd_file_of_many_is_found(self, bucket):
        write_table(StorePath(f"{bucket}/two/a.parquet"), pl.DataFrame({"a": [1]}))
        write_table(StorePath(f"{bucket}/two/b.parquet"), pl.DataFrame({"a": ["x"]}))
        two = source(f"{bucket}/two")
        with pytest.raises(TableError, match=f"{bucket}/two/b.parquet, column 'a': wrong dtype"):
            two.collect(two.frame)

    def test_commands_read_and_write_there(self, bucket, capsys):
        lines = simulated().drop("predicted", "split")
        write_whole(StorePath(f"{bucket}/in/t.csv"), lines.write_csv().encode())
        assert main(["import", "table", f"{bucket}/in", "-o", f"{bucket}/out", "--executor", "local"]) == 0
        got = source(f"{bucket}/out/records.parquet").frame.collect()
        assert_frame_equal(got.select(lines.columns), lines, check_dtypes=False)
        write_table(StorePath(f"{bucket}/run/simulated.parquet"), simulated())
        assert main(["score", f"{bucket}/run", "-o", f"{bucket}/run"]) == 0
        assert_frame_equal(source(f"{bucket}/run/scores.parquet").frame.collect(), ns.score(simulated()))
        assert main(["report", f"{bucket}/run", "-o", f"{bucket}/report.html"]) == 0
        assert StorePath(f"{bucket}/report.html").read_bytes().startswith(b"<!DOCTYPE html>")
        assert bucket in capsys.readouterr().out

    def test_workers_read_there_for_themselves(self, bucket):
        write_table(StorePath(f"{bucket}/simulated.parquet"), simulated())
        scores, _ = ns.score_shards(f"{bucket}/simulated.parquet", executor="processes", workers=2)
        assert_frame_equal(scores, ns.score(simulated()))

    def test_the_demo_runs_there(self, bucket):
        assert main(["demo", "-o", f"{bucket}/demo"]) == 0
        tables = ["calibration", "explanations", "records", "scores", "sequence_scores", "simulated"]
        assert [file.name for file in StorePath(bucket).glob("**/*")] == [f"{name}.parquet" for name in tables]
