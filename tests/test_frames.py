"""Tables come in in many forms and give one result; a row at fault is found again where it came from."""

from __future__ import annotations

import math
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, REWRITE, as_files, records, refused, row_of, shuffles, simulated

import nscore as ns
from nscore.frames import source

CHECK_PATH = "Check the path (a file, a folder of *.parquet, or a glob in quotes)."


class Stream:
    """Nothing but Arrow's C stream, as any dataframe library gives it."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


FORMS = {
    "eager": lambda frame, _: frame,
    "lazy": lambda frame, _: frame.lazy(),
    "pyarrow": lambda frame, _: frame.to_arrow(),
    "pyarrow reader": lambda frame, _: frame.to_arrow().to_reader(max_chunksize=5),
    "pandas": lambda frame, _: frame.to_pandas(),
    "arrow stream": lambda frame, _: Stream(frame),
    "pandas as a stream": lambda frame, _: Stream(frame.to_pandas()),
    "str": lambda frame, folder: str(as_files(folder, frame, n_files=1)[0]),
    "path": lambda frame, folder: as_files(folder, frame, n_files=1)[0],
    "glob": lambda frame, folder: str(as_files(folder, frame)[0].parent / "part-*.parquet"),
    "path with a glob": lambda frame, folder: as_files(folder, frame)[0].parent / "*.parquet",
    "folder": lambda frame, folder: as_files(folder, frame)[0].parent,
    "folder as str": lambda frame, folder: str(as_files(folder, frame)[0].parent),
    "list": lambda frame, folder: as_files(folder, frame),
    "tuple of str": lambda frame, folder: tuple(map(str, as_files(folder, frame))),
    "list of folders and globs": lambda frame, folder: [
        as_files(folder / "a", frame[:8])[0].parent,
        str(as_files(folder / "b", frame[8:])[0].parent / "*"),
    ],
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@each_form
def test_every_form_of_a_table_gives_the_same_result(form, tmp_path):
    table = simulated(predicted=[None, 9.0, 4.0] + [2.0, 8.0, 0.0] * 3)
    ns.validate(form(table, tmp_path), "simulated")
    assert ns.score_sequences(form(table, tmp_path)).equals(ns.score_sequences(table))
    assert ns.score(form(table, tmp_path)).equals(ns.score(table))


@each_form
def test_every_form_is_refused_at_the_same_row(form, tmp_path):
    last = records(sequence=[3] * 3 + [4] * 3, activation=[0.0] * 5 + [math.inf])
    with pytest.raises(ns.TableError, match="column 'activation': null or non-finite value") as caught:
        ns.validate(form(pl.concat([records(), last]), tmp_path), "records")
    file, row = caught.value.where.split(", row ")
    assert int(row) == 11 if file == "the frame" else pl.read_parquet(file)["activation"][int(row)] == math.inf


@each_form
def test_results_are_eager_for_eager_frames_and_lazy_for_the_rest(form, tmp_path):
    given_ = source(form(simulated(), tmp_path))
    result = ns.calibrate(form(simulated(), tmp_path))
    assert isinstance(result, pl.DataFrame if given_.eager else pl.LazyFrame)
    assert_frame_equal(result.lazy().collect(), ns.calibrate(simulated()), rel_tol=1e-12)


def test_a_shuffled_pandas_frame_brings_no_index_and_its_nan_is_null():
    table = simulated(predicted=[None, 9.0, 4.0] + [2.0, 8.0, 0.0] * 3)
    frame = table.to_pandas().sample(frac=1, random_state=1)
    assert math.isnan(frame["predicted"][0])
    taken = source(frame).frame.collect()
    assert taken.columns == table.columns
    assert_frame_equal(taken, table[frame.index.to_list()])


def test_nscore_imports_no_pandas():
    script = (
        "import sys, polars as pl, nscore as ns\n"
        "df = pl.DataFrame({'layer': 0, 'neuron': 7, 'sequence': [1, 1], 'split': ['calibration', 'test'],\n"
        "                   'activation': [1.0, 2.0], 'predicted': [0.0, 1.0]})\n"
        "df = df.with_columns(sequence=pl.Series([1, 2]))\n"
        "ns.score(ns.calibrate(df)), ns.score(df.to_arrow())\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'pandas'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("frame", [3, None, {"layer": [0]}, iter([])])
def test_what_is_no_table_is_a_type_error(frame):
    with pytest.raises(TypeError, match=f"expected a frame or a path, found {type(frame).__name__}"):
        ns.validate(frame, "records")


@pytest.mark.parametrize("path", ["gone.parquet", "gone-*.parquet", "gone/part.parquet"])
def test_a_file_that_is_not_there_is_named(path, tmp_path):
    with refused("no such file", tmp_path / path, found="no Parquet file is there", mend=CHECK_PATH):
        ns.validate(tmp_path / path, "records")
    there = as_files(tmp_path, records())
    with refused("no such file", tmp_path / path, found="no Parquet file is there", mend=CHECK_PATH):
        ns.validate([*there, tmp_path / path], "records")


def test_a_folder_without_parquet_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with refused("no such file", tmp_path / "*.parquet", found="no Parquet file is there", mend=CHECK_PATH):
        ns.validate(tmp_path, "records")


def test_an_empty_list_of_paths_has_no_file():
    with pytest.raises(ns.TableError, match="no such file"):
        ns.validate([], "records")


def test_brackets_in_a_path_are_taken_as_they_are(tmp_path):
    file = as_files(tmp_path / "run[1]", records(), n_files=1)[0].rename(tmp_path / "run[1]" / "part[2].parquet")
    for path in (file, [file], file.parent):
        ns.validate(path, "records")


def truncated(file):
    file.write_bytes(file.read_bytes()[:-40])


def emptied(file):
    file.write_bytes(b"")


def damaged(file):
    whole = bytearray(file.read_bytes())
    whole[4 : len(whole) // 3] = b"\xff" * (len(whole) // 3 - 4)
    file.write_bytes(whole)


def no_parquet(file):
    file.write_text("layer,neuron,sequence\n0,7,1\n" * 9)


def without_a_column(file):
    pl.read_parquet(file).drop("activation").write_parquet(file)


def of_other_dtypes(file):
    pl.read_parquet(file).with_columns(pl.col("activation").cast(pl.String)).write_parquet(file)


SPOILERS = [truncated, emptied, no_parquet, damaged]


def validated(path):
    ns.validate(path, "simulated")


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("stage", [validated, ns.score])
def test_a_file_that_is_no_whole_parquet_is_named(spoil, stage, tmp_path):
    (file,) = as_files(tmp_path, simulated(), n_files=1)
    spoil(file)
    with pytest.raises(ns.TableError) as caught:
        stage(file)
    assert (caught.value.problem, caught.value.where) == ("unreadable", str(file))
    assert str(caught.value).startswith(f"{file}: unreadable: ")
    assert str(caught.value).endswith(f". {REWRITE}")


@pytest.mark.parametrize("spoil", [*SPOILERS, without_a_column, of_other_dtypes])
@pytest.mark.parametrize("stage", [validated, ns.score])
def test_the_second_of_three_files_is_named_where_it_is_the_one_at_fault(spoil, stage, tmp_path):
    files = as_files(tmp_path, simulated())
    spoil(files[1])
    with pytest.raises(ns.TableError) as caught:
        stage(tmp_path / "*.parquet")
    assert str(files[1]) in str(caught.value)
    assert caught.value.problem in {"unreadable", "missing column", "wrong dtype"}


def placed(column, rows, value):
    return lambda row: pl.when(row.is_in(rows)).then(pl.lit(value)).otherwise(column).alias(column)


# 18 rows: records 1 to 6 of three tokens; the fault, and the rows that show it (the last of them where they clash)
FAULTS = {
    "null or non-finite value": (placed("activation", [10], math.nan), min, [10]),
    "null key": (placed("neuron", [10], None), min, [10]),
    "empty record": (placed("token", [10], None), min, [10]),
    "duplicate position": (placed("position", [10], 0), max, [9, 10]),
    "gap in positions": (placed("position", [11], 3), min, [11]),
    "unknown split": (placed("split", [9, 10, 11], "tset"), min, [9, 10, 11]),
    "two splits in one record": (placed("split", [10], "test"), min, [10]),
}


def spoilt(problem):
    change, first, rows = FAULTS[problem]
    three = pl.concat([records(sequence=[2 * i] * 3 + [2 * i + 1] * 3) for i in range(3)])
    table = three.with_columns(split=pl.lit("train")).with_row_index("was")
    return table.with_columns(change(pl.col("was"))), first, rows


@pytest.mark.parametrize("problem", FAULTS)
def test_a_row_at_fault_is_found_in_its_file_and_in_a_lazy_frame(problem, tmp_path):
    table, first, rows = spoilt(problem)
    files = as_files(tmp_path, table)
    row = first(rows)
    for frame, where in [
        (table, f"the frame, row {row}"),
        (table.lazy(), f"the frame, row {row}"),
        (table.lazy().filter(pl.col("was") > 2), f"the frame, row {row - 3}"),
        (tmp_path, f"{files[1]}, row {row - 6}"),
        (files[::-1], f"{files[1]}, row {row - 6}"),
        (files[1], f"{files[1]}, row {row - 6}"),
    ]:
        with pytest.raises(ns.TableError) as caught:
            ns.validate(frame, "records")
        assert (caught.value.problem, caught.value.where) == (problem, where)


@QUICK
@given(st.data())
@pytest.mark.parametrize("problem", FAULTS)
def test_a_row_at_fault_is_found_in_shuffled_rows(problem, data):
    table, first, rows = spoilt(problem)
    shuffled = data.draw(shuffles(table))
    with pytest.raises(ns.TableError) as caught:
        ns.validate(shuffled.lazy(), "records")
    assert caught.value.problem == problem
    assert row_of(caught.value) == first(i for i, was in enumerate(shuffled["was"]) if was in rows)


def test_a_repeated_explanation_is_found_in_its_file(tmp_path):
    rows = pl.DataFrame({"layer": 0, "neuron": 7, "explanation_id": list("abcb"), "explanation": "x"})
    files = as_files(tmp_path, rows, n_files=2)
    with pytest.raises(ns.TableError, match="repeated row: layer=0, neuron=7, explanation_id='b'") as caught:
        ns.validate(tmp_path, "explanations")
    assert caught.value.where == f"{files[1]}, row 1"
