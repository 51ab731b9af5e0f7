"""Questions in SQL: two engines and one answer, only what is needed is read, and of a run only what is committed."""

from __future__ import annotations

import sys

import polars as pl
import pytest
from asked_tables import ENGINES, kinds, spoil
from asking import backend, explanations_of, files_of, records_of, serve, shards_of
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from simulation_tables import PROPERTY

import nscore as ns

# What is asked of the table of kinds, with ORDER BY where an order is promised.
QUESTIONS = [
    "SELECT * FROM kinds",
    "SELECT layer - 3 AS a, -layer AS b, layer * 100 AS c, i8 * 100 AS d, u32 + 1 AS e FROM kinds",
    "SELECT SUM(layer) AS a, SUM(i8) AS b, SUM(u32) AS c, SUM(layer) - 100 AS d, COUNT(*) AS n, COUNT(i8) AS k FROM kinds",
    "SELECT SUM(f64) AS a, AVG(f64) AS b, MAX(f64) AS c, MIN(f64) AS d, MAX(f32) AS e FROM kinds WHERE f64 < 100",
    "SELECT MAX(score) AS a, MIN(score) AS b, AVG(score) AS c, MEDIAN(score) AS d, STDDEV(score) AS e FROM kinds",
    "SELECT layer, MAX(score) AS a, SUM(score) AS b, STDDEV(score) AS c FROM kinds GROUP BY layer ORDER BY layer",
    "SELECT SUM(i8) AS a, AVG(i8) AS b, MAX(text) AS c FROM kinds WHERE layer > 100",
    "SELECT score FROM kinds ORDER BY score, text",
    "SELECT score FROM kinds ORDER BY score DESC",
    "SELECT score FROM kinds ORDER BY score DESC NULLS LAST",
    "SELECT score FROM kinds ORDER BY score NULLS FIRST",
    "SELECT text, status, category FROM kinds ORDER BY text, status DESC, category",
    "SELECT status, COUNT(*) AS n FROM kinds GROUP BY status ORDER BY status",
    "SELECT COUNT(DISTINCT status) AS a, COUNT(DISTINCT score) AS b FROM kinds",
    "SELECT DISTINCT category FROM kinds ORDER BY category",
    "SELECT i8 FROM kinds WHERE status = 'ok' AND category <> 'x' AND layer IN (0, 1, 2)",
    "SELECT i8 FROM kinds WHERE layer NOT IN (0, NULL)",
    "SELECT layer IN (0, NULL) AS a, NOT flag AS b, flag AND NULL AS c, flag OR NULL AS d FROM kinds",
    "SELECT 5 / 2 AS a, layer / 2 AS b, 1.0 / 3 AS c, 0.1 + 0.2 AS d, 0.1 * i8 AS e, layer % 2 AS f FROM kinds",
    "SELECT layer / 0 AS a, f64 / 0 AS b, 0.0 / 0.0 AS c FROM kinds",
    "SELECT LENGTH(text) - 5 AS a, UPPER(text) AS b, text || '!' AS c, SUBSTR(text, 1, 1) AS d FROM kinds",
    "SELECT SUM(LENGTH(text)) - 50 AS a, SUM(score > 0) - 50 AS b, SUM(flag) - 50 AS c FROM kinds",
    "SELECT SUM(CASE WHEN score > 0.1 THEN 1 ELSE 0 END) AS a, AVG(CASE WHEN flag THEN 1.0 ELSE 0.0 END) AS b FROM kinds",
    "SELECT SUM(DISTINCT layer) AS a, SUM(i8) FILTER (WHERE layer < 2) AS b FROM kinds",
    "SELECT counts.a AS a, counts.b * 2 AS b, list[1] AS c FROM kinds",
    'SELECT day, "at", zoned, raw FROM kinds WHERE layer = 0',
    "SELECT NULL AS a, TRUE AS b, 'it''s' AS c, 1 AS d, 2.5 AS e, .5 AS f, 3. AS g, 1e3 AS h",
    "SELECT u64 FROM kinds WHERE u64 > 5",
    "SELECT u64 FROM kinds WHERE u64 <= 5",
    "SELECT COALESCE(score, 0) AS a, NULLIF(layer, 1) AS b, GREATEST(layer, 1) AS c, ABS(i8) AS d FROM kinds",
    "SELECT ROUND(f64, 1) AS a, FLOOR(f64) AS b, SQRT(ABS(f64)) AS c, POWER(f64, 2) AS d FROM kinds WHERE f64 < 9",
    "SELECT text LIKE '%a%' AS a, text ILIKE 'b' AS b FROM kinds",
    "SELECT QUANTILE_CONT(score, 0.25) AS a, CORR(score, i8) AS b, VARIANCE(score) AS c FROM kinds",
    "SELECT a.i8 AS x, b.i8 AS y FROM kinds a JOIN kinds b ON a.layer = b.layer AND a.i8 < b.i8",
    "SELECT a.i8 AS x, b.name AS y FROM kinds a LEFT JOIN other b ON a.layer = b.layer ORDER BY x, y",
    "SELECT i8 FROM kinds WHERE layer IN (SELECT layer FROM other)",
    "WITH q AS (SELECT layer, MAX(i8) AS m FROM kinds GROUP BY layer) SELECT k.i8 AS a FROM kinds k JOIN q ON k.i8 = q.m",
    "SELECT layer, ROW_NUMBER() OVER (PARTITION BY layer ORDER BY i8) AS a FROM kinds ORDER BY layer, a",
    "SELECT i8, RANK() OVER (ORDER BY layer DESC) AS a, SUM(i8) OVER (PARTITION BY layer) AS b FROM kinds ORDER BY i8",
    "SELECT layer FROM kinds UNION SELECT layer FROM other",
    "SELECT layer FROM kinds EXCEPT SELECT layer FROM other",
    "SELECT i8 FROM kinds ORDER BY i8 LIMIT 2 OFFSET 1 -- a comment; and 'more'",
    "VALUES (1, 'a'), (2, NULL);",
]
PLAIN = {pl.Int64, pl.UInt64, pl.Float64, pl.String, pl.Boolean, pl.Binary, pl.Date, pl.Datetime, pl.List, pl.Struct}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    kinds().write_parquet(folder / "kinds.parquet")
    pl.DataFrame({"layer": [1, 2, 3], "name": ["one", None, "three"]}).write_parquet(folder / "other.parquet")
    return folder


@pytest.mark.parametrize("sql", QUESTIONS)
def test_engines_give_the_same_answer_in_the_same_dtypes(folder, sql):
    first, *others = (ns.query(folder, sql, engine=engine) for engine in ENGINES)
    assert {dtype.base_type() for dtype in first.dtypes} <= PLAIN
    ordered = "ORDER BY" in sql.split("(")[-1] or "ORDER BY" in sql.rsplit(")", maxsplit=1)[-1]
    for other in others:
        positional = "VALUES" in sql  # each engine names these columns
        other.columns = first.columns if positional else other.columns
        assert_frame_equal(first, other, check_row_order=ordered, rel_tol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_whole_table_comes_as_it_is_but_wide_and_with_null_for_nan(folder, engine):
    answer = ns.query(folder, "SELECT * FROM kinds", engine=engine)
    given = kinds()
    assert answer.columns == given.columns
    assert answer["f64"].to_list() == [0.5, None, float("inf"), None, -2.5, 3.0]
    assert answer["u64"].dtype == pl.UInt64
    for name in ("layer", "i8", "u32", "i64", "u64", "text", "status", "category", "flag", "day", "raw", "list"):
        assert answer[name].to_list() == given[name].to_list(), name
    assert answer["counts"].to_list()[0] == {"a": 1, "b": 0.5}
    assert answer["zoned"].to_list() == given["zoned"].to_list()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sum_worked_by_hand(folder, engine):
    sql = "SELECT layer, SUM(u32) AS u, AVG(score) AS s FROM kinds GROUP BY layer ORDER BY layer NULLS FIRST"
    rows = ns.query(folder, sql, engine=engine).rows()
    assert rows == [(None, 2, 3.0), (0, 2**32 - 1, 0.5), (1, 5, 0.25), (2, 1, -2.5)]


NUMBER = st.none() | st.floats(width=32) | st.sampled_from([0.0, 1.0])
ROWS = st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(-128, 127), NUMBER), max_size=30)


@PROPERTY
@given(rows=ROWS)
def test_engines_agree_on_any_numbers(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("numbers")
    schema = {"g": pl.UInt8, "i": pl.Int8, "f": pl.Float32}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "t.parquet")
    sql = (
        "SELECT g, COUNT(*) AS n, COUNT(f) AS k, SUM(i) AS s, MIN(f) AS lo, MAX(f) AS hi, AVG(i) AS m, "
        "SUM(CASE WHEN f > 0.5 THEN 1 ELSE 0 END) AS above FROM t GROUP BY g ORDER BY g"
    )
    first, *others = (ns.query(folder, sql, engine=engine) for engine in ENGINES)
    for other in others:
        assert_frame_equal(first, other, rel_tol=1e-9)
    listed = [ns.query(folder, "SELECT f, i FROM t ORDER BY f DESC, i", engine=engine) for engine in ENGINES]
    assert all(listed[0].equals(other) for other in listed)


@pytest.fixture
def wide(tmp_path):
    """Six layers in row groups of their own, and a large column."""
    n = 6000
    frame = pl.DataFrame(
        {
            "layer": pl.Series([i // 1000 for i in range(n)], dtype=pl.UInt8),
            "neuron": pl.Series(range(n), dtype=pl.UInt16),
            "token": [f"token {i * 7919 % 10007}" for i in range(n)],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=1000)
    return tmp_path


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_columns_that_are_asked_for_are_read(wide, engine):
    spoil(wide / "t.parquet", "token")
    answer = ns.query(wide, "SELECT layer, SUM(neuron) AS s FROM t GROUP BY layer ORDER BY layer", engine=engine)
    assert answer["s"].to_list() == [sum(range(k * 1000, (k + 1) * 1000)) for k in range(6)]
    with pytest.raises(ns.errors.TableError, match=r"t\.parquet"):
        ns.query(wide, "SELECT MAX(token) AS m FROM t", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_row_groups_without_a_row_that_is_asked_for_are_not_read(wide, engine):
    spoil(wide / "t.parquet", "token", groups={0, 1, 2, 4, 5})
    answer = ns.query(wide, "SELECT COUNT(token) AS n, MIN(token) AS t FROM t WHERE layer = 3", engine=engine)
    assert answer["n"].to_list() == [1000]
    with pytest.raises(ns.errors.TableError, match=r"t\.parquet"):
        ns.query(wide, "SELECT MIN(token) AS m FROM t WHERE layer >= 3", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_tables_are_not_looked_at(wide, engine):
    (wide / "broken.parquet").write_bytes(b"no Parquet at all")
    assert ns.query(wide, "SELECT COUNT(*) AS n FROM t", engine=engine).item() == 6000
    assert ns.query(
        wide, 'SELECT COUNT(*) AS n FROM "T"' if engine == "duckdb" else "SELECT COUNT(*) AS n FROM t"
    ).item()
    with pytest.raises(ns.errors.TableError, match=r"broken\.parquet: unreadable"):
        ns.query(wide, "SELECT COUNT(*) AS n FROM broken", engine=engine)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("query") / "run"
    with pytest.MonkeyPatch.context() as patch, shards_of(patch, 10), serve() as server:
        ns.simulate(records_of(), explanations_of(), simulator="json_list", backend=backend(server), out=out)
    return out


@pytest.mark.parametrize("engine", ENGINES)
def test_of_a_run_only_committed_shards_are_read(run, engine):
    assert len(files_of(run)) > 1
    stray = run / "simulated.parquet" / "part-99999.parquet"
    pl.read_parquet(next((run / "simulated.parquet").glob("*.parquet"))).write_parquet(stray)
    try:
        assert ns.query(run, "SELECT COUNT(*) AS n FROM simulated", engine=engine).item() == 24
    finally:
        stray.unlink()
    assert list(ns.tables(run)) == ["requests", "simulated"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_shard_of_a_run_is_found_where_its_table_is_asked_for(run, engine):
    shard = next((run / "simulated.parquet").glob("*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"!")
    try:
        assert ns.query(run, "SELECT COUNT(*) AS n FROM requests", engine=engine).item() == 6
        with pytest.raises(ns.errors.TableError, match="damaged shard"):
            ns.query(run, "SELECT COUNT(*) AS n FROM simulated", engine=engine)
    finally:
        shard.write_bytes(whole)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_is_a_file_or_a_folder_and_one_may_be_asked_alone(tmp_path, engine):
    for part in (1, 2):
        (tmp_path / "parts").mkdir(exist_ok=True)
        pl.DataFrame({"x": [part]}).write_parquet(tmp_path / "parts" / f"{part}.parquet")
    pl.DataFrame({"x": [5]}).write_parquet(tmp_path / "one.parquet")
    (tmp_path / ".hidden.parquet").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "run.json").write_text("{}")
    assert list(ns.tables(tmp_path)) == ["one", "parts"]
    sql = "SELECT SUM(p.x) AS s, MAX(o.x) AS o FROM parts p CROSS JOIN one o"
    assert ns.query(tmp_path, sql, engine=engine).row(0) == (3, 5)
    assert ns.query(tmp_path / "one.parquet", "SELECT x FROM one", engine=engine).item() == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_path_with_the_signs_of_a_pattern_is_that_path(tmp_path, engine):
    for i, name in enumerate(["a*", "ab", "[ab]", "it's", 'q"']):
        (tmp_path / name).mkdir()
        pl.DataFrame({"x": [i]}).write_parquet(tmp_path / name / "t.parquet")
    found = [
        ns.query(tmp_path / name, "SELECT x FROM t", engine=engine)["x"].to_list() for name in ("a*", "[ab]", "it's")
    ]
    assert found == [[0], [2], [3]]
    assert ns.query(tmp_path / 'q"', "SELECT x FROM t", engine=engine).item() == 4


def test_tables_are_lazy_frames_and_opened_when_they_are_taken(tmp_path):
    pl.DataFrame({"x": [1.0, float("nan")]}).write_parquet(tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"")
    tables = ns.tables(tmp_path)
    assert (len(tables), "t" in tables, repr(tables)) == (2, True, f"<tables of {tmp_path}: broken, t>")
    assert isinstance(tables["t"], pl.LazyFrame)
    assert tables["t"].select(pl.col("x").is_nan().sum()).collect().item() == 1
    assert tables.get("nothing") is None
    with pytest.raises(KeyError, match=r"no table 'nothing' in .*: the tables are broken, t"):
        tables["nothing"]
    with pytest.raises(ns.errors.TableError, match=r"broken\.parquet: unreadable"):
        tables["broken"]


def test_auto_is_duckdb_where_it_is_there_and_polars_where_not(folder, monkeypatch):
    asked = []
    home = sys.modules["nscore.query"]
    monkeypatch.setattr(home, "ask_polars", lambda *_: asked.append("polars"))
    monkeypatch.setattr(home, "ask_duckdb", lambda *_: asked.append("duckdb"))
    ns.query(folder, "SELECT 1 AS x")
    monkeypatch.setattr(home, "duckdb_version", lambda: None)
    ns.query(folder, "SELECT 1 AS x")
    assert asked == ["duckdb", "polars"]


def test_a_polars_that_counts_otherwise_is_refused(folder, monkeypatch):
    monkeypatch.setattr("nscore._sql.sql_polars.counts_as_sql", lambda: False)
    with pytest.raises(ns.errors.QueryError, match=r"install DuckDB .* or a newer Polars"):
        ns.query(folder, "SELECT 1 AS x", engine="polars")


@pytest.mark.parametrize("version", [None, (1, 3)])
def test_a_duckdb_that_is_missing_or_too_old_is_told(folder, monkeypatch, version):
    monkeypatch.setattr("nscore._sql.sql_duckdb.duckdb_version", lambda: version)
    with pytest.raises(ns.errors.QueryError, match=r"DuckDB 1\.4 or newer is needed"):
        ns.query(folder, "SELECT 1 AS x", engine="duckdb")


def test_names_that_differ_in_case_alone_are_for_polars(tmp_path):
    pl.DataFrame({"a": [1], "A": [2]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ns.errors.QueryError, match="columns of t: 'a', 'A' differ in case alone"):
        ns.query(tmp_path, "SELECT * FROM t", engine="duckdb")
    for engine in set(ENGINES) - {"duckdb"}:
        assert ns.query(tmp_path, "SELECT * FROM t", engine=engine).row(0) == (1, 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder.rmdir(), "no such folder"),
        (lambda _: None, "no tables"),
        (lambda folder: [(folder / name).mkdir() for name in ("t", "t.parquet")], "no Parquet file is there"),
    ],
    ids=["missing", "empty", "nothing written yet"],
)
def test_a_folder_without_the_table_is_told(tmp_path, make, said):
    folder = tmp_path / "f"
    folder.mkdir()
    make(folder)
    with pytest.raises(ns.errors.TableError, match=said):
        ns.query(folder, "SELECT * FROM t")


def test_two_tables_of_one_name_are_told(tmp_path):
    (tmp_path / "t").mkdir()
    for file in (tmp_path / "t.parquet", tmp_path / "t" / "1.parquet"):
        pl.DataFrame({"x": [1]}).write_parquet(file)
    with pytest.raises(ns.errors.TableError, match=r"two tables of one name: t and t\.parquet are both there"):
        ns.query(tmp_path, "SELECT * FROM t")
