"""Files of strangers: whatever is in them, reading ends with an error that names the file, never with the process."""

from __future__ import annotations

import os
import random
import sys

import polars as pl
import pyarrow as pa
import pytest
from holding.craft import BOMB_ROWS, Reader, bomb, crafted, footer_of, page_bomb, small_tables, written
from holding.file_readers import Readers
from tables import REWRITE, explanations, records, refused, simulated

import nscore as ns
from nscore._tables.batches import batches_of
from nscore._tables.parquet import contents_of
from nscore.frames import source

PIPE = "Expected a Parquet file: copy it to one."
TABLES = list(small_tables())
# Each table as others write it, in turn.
WRITERS = {
    "zstd": {},
    "plain": {"codec": "uncompressed"},
    "arrow": {"codec": "snappy", "arrow": True},
    "pages of the second version": {"codec": "gzip", "arrow": True, "data_page_version": "2.0"},
    "row groups without dictionaries": {"codec": "lz4", "arrow": True, "row_group_size": 4, "use_dictionary": False},
    "row groups without statistics": {"codec": "gzip", "row_group_size": 4, "statistics": False},
}


@pytest.fixture
def readers(tmp_path):
    with Readers(tmp_path) as crew:
        yield crew
        assert not crew.faults, crew.faults[:10]


QUICKLY = [("simulated", True), ("explanations", False)]
AT_LENGTH = [(table, arrow) for table in TABLES for arrow in (False, True) if (table, arrow) not in QUICKLY]


@pytest.mark.parametrize(("table", "arrow"), QUICKLY + [pytest.param(*c, marks=pytest.mark.full) for c in AT_LENGTH])
def test_whatever_a_footer_says_reading_ends_with_a_result_or_an_error_that_names_the_file(
    readers, tmp_path, table, arrow
):
    whole = written(small_tables()[table], tmp_path, "whole", arrow=arrow)
    for name, content in crafted(whole).items():
        readers.read(table, name, content=content, commands=True)
    assert readers.counts["typed"] > 3 * readers.counts["ok"]


def spoilt(whole, sample=None):
    """Orders for each length a file can be cut to, and for each of its bytes turned in two ways."""
    orders = [{"cut": n} for n in range(len(whole))]
    orders += [{"flip": n, "mask": mask} for mask in (1, 255) for n in range(len(whole))]
    return orders if sample is None else random.Random(3).sample(orders, sample)


@pytest.mark.parametrize("table", TABLES)
def test_a_file_that_is_cut_off_or_has_a_byte_turned_ends_no_process(readers, tmp_path, table):
    options = list(WRITERS.values())[TABLES.index(table)]
    whole = written(small_tables()[table], tmp_path, "whole", **options)
    for order in spoilt(whole, 60):
        readers.read(table, order, of=str(tmp_path / "whole.parquet"), **order)


@pytest.mark.full
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("table", TABLES)
def test_no_cut_and_no_turned_byte_ends_a_process(readers, tmp_path, capsys, table, writer):
    whole = written(small_tables()[table], tmp_path, "whole", **WRITERS[writer])
    # EVERY_BYTE=1: all of them, for about an hour
    orders = spoilt(whole, None if "EVERY_BYTE" in os.environ else 400)
    for order in orders:
        readers.read(table, order, of=str(tmp_path / "whole.parquet"), **order)
    with capsys.disabled():
        stages = ", ".join(f"{n} {kind}" for kind, n in sorted(readers.counts.items()))
        sys.stdout.write(f"\n{table}, {writer}: {len(orders)} files of {len(whole)} bytes; stages: {stages}\n")


ZEROS = 1 << 28
ROW = {"layer": 0, "neuron": 7, "sequence": 1, "position": 0, "token": "a", "activation": 0.0, "predicted": 1.0}


def test_a_few_bytes_that_would_fill_the_memory_are_refused(tmp_path):
    file = tmp_path / "bomb.parquet"
    file.write_bytes(bomb(ROW, 1000))
    with refused("unreadable", file, found="its columns lie upon one another", mend=REWRITE):
        ns.score(file)
    whole, packed = written(simulated(), tmp_path, "whole", arrow=True), pa.compress(bytes(ZEROS), "zstd", asbytes=True)
    for column in range(8):
        whole = page_bomb(whole, column, ZEROS, packed)
    file.write_bytes(whole)
    with pytest.raises(
        ns.TableError, match=r"bomb\.parquet: decompression bomb: 2,1[0-9,]+ bytes would come"
    ) as caught:
        ns.score(file)
    assert "pl.scan_parquet(file)" in str(caught.value)


def test_tables_that_compress_well_are_no_bombs(tmp_path):
    n_records, length = 1 << 18, 64
    n = n_records * length
    sparse = pl.DataFrame(
        {
            "layer": pl.repeat(0, n, dtype=pl.Int32, eager=True),
            "neuron": pl.int_range(n_records, dtype=pl.Int32, eager=True).repeat_by(length).explode() // 1024,
            "sequence": pl.int_range(n_records, dtype=pl.Int32, eager=True).repeat_by(length).explode() % 1024,
            "position": pl.int_range(n, dtype=pl.Int32, eager=True) % length,
            "activation": pl.repeat(0.0, n, dtype=pl.Float32, eager=True),
        }
    )
    file = tmp_path / "sparse.parquet"
    for group in (None, n):
        sparse.write_parquet(file, row_group_size=group)
        assert contents_of(str(file)).rows == n > 10 * BOMB_ROWS


@pytest.mark.parametrize("name", ["pipe.parquet", "folder/part.parquet", "/dev/zero", "/dev/null"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    file = tmp_path / name
    if name.startswith("pipe"):
        os.mkfifo(file)
    elif name.startswith("folder"):
        file.mkdir(parents=True)
    given, kind = (file.parent, "a folder") if name.startswith("folder") else (file, "a pipe or a device")
    with refused("not a file", file, found=f"found {kind}", mend=PIPE):
        ns.score(given)


def test_links_in_a_circle_lead_to_no_file(tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    one.symlink_to(two)
    two.symlink_to(one)
    for given in (one, tmp_path):
        with pytest.raises(ns.TableError, match=r"one\.parquet: (no such file|unreadable: Too many levels)"):
            ns.score(given)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    written(simulated(), tmp_path, "mine")
    file = tmp_path / "mine.parquet"
    file.chmod(0)
    with refused("unreadable", file, found="Permission denied", mend=REWRITE):
        ns.score(file)


def panicking(folder):
    """A file over which Polars panics once its pages are decoded."""
    whole = written(simulated(), folder, "whole", codec="uncompressed")
    file = folder / "panics.parquet"
    file.write_bytes(crafted(whole)["required where optional"])
    return file


def test_a_panic_is_not_taken_for_the_end_of_the_rows(tmp_path, capfd):
    rows = pl.scan_parquet(panicking(tmp_path))
    with pytest.raises(pl.exceptions.PanicException):
        list(batches_of(rows))
    with pytest.raises(pl.exceptions.PanicException):
        ns.score_sequences(rows)
    assert "panicked" in capfd.readouterr().err


def test_a_panic_over_a_file_is_an_error_that_names_it(tmp_path, capfd):
    file = panicking(tmp_path)
    with pytest.raises(ns.TableError, match=rf"^{file}: unreadable: Polars gave up on it \(") as caught:
        ns.score_sequences(file)
    assert str(caught.value).endswith(f". {REWRITE}")
    assert "JoinError" not in str(caught.value)
    capfd.readouterr()


def test_batches_that_nobody_wants_are_no_longer_made():
    rows = pl.LazyFrame({"a": range(10_000)})
    batches = batches_of(rows, chunk_size=1)
    first = next(batches)
    batches.close()
    assert first.height >= 1
    assert sum(batch.height for batch in batches_of(rows, chunk_size=7)) == 10_000


def test_a_column_of_the_explanations_that_only_the_leak_check_reads_is_looked_for_in_their_file(tmp_path, capfd):
    told = explanations(shown_sequences=[[1], [2]])
    whole = bytearray(written(told, tmp_path, "told", codec="none", arrow=True, use_dictionary=False))
    about = footer_of(whole)[4][1][1][0][1][1][1][-1][3][1]
    page = Reader(whole, about[9][1])
    page.struct()
    whole[page.at : page.at + 4] = b"\xff" * 4  # the length of its levels
    (tmp_path / "told.parquet").write_bytes(whole)
    with pytest.raises(ns.TableError, match=r"told\.parquet"):
        ns.simulate(records(), tmp_path / "told.parquet")
    capfd.readouterr()


def test_files_behind_http_are_not_looked_at_before_they_are_read():
    path = "https://example.org/part.parquet"
    given = source(path)
    assert (given.files, given.contents) == ((path,), (None,))


def test_a_local_address_is_a_path(tmp_path):
    written(simulated(), tmp_path, "whole")
    assert source(f"file://{tmp_path}/whole.parquet").height() == 12
