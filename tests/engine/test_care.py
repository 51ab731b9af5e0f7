"""The folder of a run is looked after: rebuilt from its journal byte for byte, verified byte by byte, salvaged."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from asking import Fast, answer, asked, backend, correct, explanations_of, records_of, serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import RefusalError
from simulation_tables import command

import nscore as ns
from nscore._sending.history import History
from nscore._sending.journal import Journal, JournalReader
from nscore._tables import disk as _disk

RECORDS, TOLD = records_of(6), explanations_of(6)
DERIVED = ("run.json", "committed.json", "simulated.parquet", "requests.parquet")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 20)  # two neurons, six requests
    monkeypatch.setattr("nscore._running.engine.RealClock", Fast)


def start(server, out, records=RECORDS, told=TOLD, **options):
    given = {"simulator": "json_list", "backend": backend(server), "out": out} | options
    return ns.simulate(records, told, **given)


def tables_of(path):
    """The bytes of everything that is derived from the journal."""
    names = sorted(f for name in DERIVED for f in [path / name, *(path / name).glob("*")] if f.is_file())
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in names}


def without_tables(path):
    """Deletes everything that is derived from the journal."""
    for name in DERIVED:
        shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three shards that was done without a fault."""
    with pytest.MonkeyPatch.context() as patch, serve() as server:
        patch.setattr("nscore._running.plan.SHARD_ROWS", 20)
        return start(server, tmp_path_factory.mktemp("finished") / "run", price=(1.0, 2.0)).path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


# Rebuild


@pytest.mark.parametrize(
    "options",
    [
        {"simulator": ["json_list", "shuffled_tab_list"], "price": (1.0, 2.0)},
        {"simulator": [ns.JsonList(pack=2, replicates=2), ns.AllAtOnce()], "distribution": True},
        {"simulator": "token_by_token", "keep": "needed"},
        {"limit": 8},
        {"price": (1e5, 1e5), "max_cost": 1000.0},
    ],
    ids=["control", "distribution", "needed", "limit", "cost"],
)
def test_what_was_deleted_is_made_again_byte_for_byte_at_no_cost(tmp_path, options):
    odd = RECORDS.with_columns(split=pl.lit("valid"), note=pl.Series(["ä", None] * 36, dtype=pl.Categorical))
    with serve(ignore_logprobs=False) as server:
        path = start(server, tmp_path / "run", odd, **options).path
        before = tables_of(path)
        server.forget()
        without_tables(path)
        assert ns.rebuild(path).path == path
        assert server.n_requests == 0
    assert tables_of(path) == before
    size = (path / "journal" / "000001.log").stat().st_size
    ns.rebuild(path)
    assert tables_of(path) == before
    assert (path / "journal" / "000001.log").stat().st_size == size, "nothing new was to be said"


FAULTS = ("429", "500", "reset", "cut", "cut_json", "count", "nan", "error200", "html")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    faults=st.dictionaries(st.sampled_from(FAULTS), st.floats(0.02, 0.3), max_size=3),
    seed=st.integers(0, 999),
    attempts=st.integers(1, 3),
    sessions=st.integers(1, 3),
    limit=st.none() | st.integers(1, 17),
)
def test_after_any_faults_in_any_sessions_a_rebuild_gives_the_same_bytes(  # noqa: PLR0917  (drawn)
    tmp_path_factory, faults, seed, attempts, sessions, limit
):
    out = tmp_path_factory.mktemp("faults") / "run"
    with pytest.MonkeyPatch.context() as patch, serve(fault_seed=seed) as server:
        patch.setattr("nscore._running.plan.SHARD_ROWS", 20)
        patch.setattr("nscore._running.engine.RealClock", Fast)
        start(server, out, limit=1)
        server.faults = faults
        for session in range(sessions):
            last = session == sessions - 1
            start(server, out, limit=None if last else limit, attempts=attempts, price=(1.0, 2.0))
    before = tables_of(out)
    assert not ns.verify(out).problems
    without_tables(out)
    ns.rebuild(out)
    assert tables_of(out) == before


def test_a_better_parser_costs_nothing(tmp_path, monkeypatch):
    def refused(*_):
        raise ns.ReplyError("parse_error", "not understood")

    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr("nscore.simulators.JsonList.read", refused)
            run = start(server, tmp_path / "run")
        assert set(run.simulated().collect()["status"]) == {"parse_error"}
        server.forget()
        ns.rebuild(run.path)
        assert server.n_requests == 0
    assert correct(run.simulated().collect())
    assert not ns.verify(run.path).problems


def test_a_run_that_was_broken_off_is_rebuilt_as_far_as_it_came(tmp_path):
    n = 0

    def sick(messages):
        nonlocal n
        if '"records"' in str(messages):
            n += 1
            if n > 8:
                raise RefusalError(401, "bad key")
        return answer(messages)

    with serve(answer=sick) as server:
        with pytest.raises(ns.BackendError, match="401"):
            start(server, tmp_path / "run", concurrency=1)
        statuses = ns.rebuild(tmp_path / "run").simulated().collect()["status"].value_counts()
        assert dict(statuses.rows()) == {"ok": 32, "not_run": 40}
        server.answer = answer
        server.forget()
        assert correct(start(server, tmp_path / "run").simulated().collect())
        assert asked(server) == 10


def test_a_nscore_that_asks_otherwise_does_not_rebuild(run, monkeypatch):
    before = tables_of(run)
    monkeypatch.setattr("nscore.simulators.JsonList.instruction", lambda *_: "other words")
    with pytest.raises(ns.RunError, match="this nscore asks otherwise than the run did"):
        ns.rebuild(run)
    monkeypatch.undo()
    monkeypatch.setattr("nscore.simulators.JsonList.version", "json_list/7")
    with pytest.raises(ns.SimulatorError, match="asked with the prompts json_list/1"):
        ns.rebuild(run)
    assert tables_of(run) == before


def test_a_run_that_somebody_works_on_is_left_alone(run):
    with Journal(run / "journal"):
        for care in (ns.rebuild, ns.salvage):
            with pytest.raises(ns.JournalError, match="another process"):
                care(run)


# Reading


def damaged(file, how="flipped"):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content[:-9] if how == "cut" else content)


@pytest.mark.parametrize("how", ["lost", "flipped", "cut"])
def test_a_shard_that_is_not_as_it_was_written_is_not_read_by_anybody(run, how):
    file = run / "simulated.parquet" / "part-000001.parquet"
    file.unlink() if how == "lost" else damaged(file, how)
    for read in (ns.Run(run).simulated, lambda: ns.score(run / "simulated.parquet"), lambda: ns.score(str(file))):
        with pytest.raises(ns.TableError, match=rf"part-000001\.parquet.*(shard|no such file).*|rebuild {run}"):
            read()
    with pytest.raises(ns.TableError, match=f"nscore runs rebuild {run}"):
        ns.Run(run).simulated()
    ns.Run(run).requests()
    ns.rebuild(run)
    assert correct(ns.Run(run).simulated().collect())


def test_every_flipped_byte_and_every_cut_of_a_shard_is_found(run):
    file = run / "simulated.parquet" / "part-000000.parquet"
    content = file.read_bytes()
    for at in range(0, len(content), 37):
        for broken in (content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :], content[:at]):
            file.write_bytes(broken)
            with pytest.raises(ns.TableError, match="damaged shard"):
                ns.Run(run).simulated()
    file.write_bytes(content)
    assert correct(ns.Run(run).simulated().collect())


def test_what_is_not_committed_is_not_read(run):
    shutil.copy(run / "simulated.parquet" / "part-000000.parquet", run / "simulated.parquet" / "part-000007.parquet")
    assert correct(ns.Run(run).simulated().collect())
    assert ns.Run(run).simulated().collect().height == 72
    assert ns.score(str(run / "simulated.parquet" / "*.parquet")).height == 6
    assert any("is none of this run's files" in problem for problem in ns.verify(run).problems)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"format": 1, "files": 3}', b"[" * 10**5])
def test_a_marker_that_cannot_be_read_says_what_to_do(run, content):
    (run / "committed.json").write_bytes(content)
    with pytest.raises(ns.RunError, match=r"committed\.json: cannot be read.*nscore runs rebuild"):
        ns.Run(run).simulated()
    assert ns.verify(run).problems
    ns.rebuild(run)
    assert correct(ns.Run(run).simulated().collect())
    assert not ns.verify(run).problems


def test_a_table_of_a_newer_nscore_is_refused_in_words(tmp_path, monkeypatch):
    file = tmp_path / "scores.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "FORMAT", 2)
        _disk.write_table(file, records_of(1))
    with pytest.raises(ns.TableError, match=r"scores.parquet: newer table: written in format 2; .* up to 1\. Update"):
        ns.validate(file, "records")


def test_a_marker_of_a_newer_nscore_is_refused_in_words(run):
    (run / "committed.json").write_text('{"format": 2}')
    with pytest.raises(ns.RunError, match=r"of format 2; this nscore reads up to 1\. Update"):
        ns.Run(run).simulated()


# Verify


def test_a_sound_run_is_verified_with_what_was_read(run):
    found = ns.verify(run)
    assert (found.problems, found.replies, found.shards) == ([], 18, 6)
    assert found.frames == len(list(JournalReader(run / "journal").entries()))


@pytest.mark.parametrize("name", ["run.json", "committed.json", "simulated.parquet/part-000001.parquet"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_derived_file_that_is_lost_or_damaged_is_found_and_mended(run, name, lost):
    before = tables_of(run)
    (run / name).unlink() if lost else damaged(run / name)
    problems = ns.verify(run).problems
    assert any(str(run / name) in problem for problem in problems)
    assert problems[-1].endswith(f"nscore runs rebuild {run}")
    ns.rebuild(run)
    assert tables_of(run) == before
    assert not ns.verify(run).problems


def test_every_damage_of_the_journal_is_found(run):
    log = run / "journal" / "000001.log"
    content = log.read_bytes()
    for at in range(0, len(content) - 60, 997):
        log.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        problems = ns.verify(run).problems
        assert f"{log}: " in problems[0]
        assert problems[-1].endswith(f"nscore runs salvage {run}")


# Salvage


def break_segment(run, share):
    log = run / "journal" / "000001.log"
    content = bytearray(log.read_bytes())
    content[int(share * len(content))] ^= 1
    log.write_bytes(content)


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("tables", ["whole", "gone"])
def test_what_is_whole_is_kept_and_only_what_was_lost_is_asked_again(run, share, tables):
    port = int(ns.Run(run).settings()["backend"]["base_url"].split(":")[-1].split("/")[0])
    expected = {name: content for name, content in tables_of(run).items() if name.startswith("simulated")}
    break_segment(run, share)
    if tables == "gone":
        shutil.rmtree(run / "simulated.parquet")
    before = tables_of(run)
    with pytest.raises(ns.JournalError, match=f"the journal is damaged.*nscore runs salvage {run}"), serve() as server:
        start(server, run)
    kept = ns.salvage(run)
    new = kept.run.path
    assert new == run.with_name("run-salvaged")
    assert len(kept.lost) == 1
    assert tables_of(run) == before, "the damaged run is left as it is"
    replies = History.of(new / "journal").replies
    assert replies >= 17
    with serve(port=port) as server:
        start(server, new)
        assert asked(server) == (18 - replies if tables == "gone" else 0)
    assert {name: content for name, content in tables_of(new).items() if name.startswith("simulated")} == expected


def test_a_rebuild_takes_no_table_that_is_whole_for_one_whose_replies_were_lost(run):
    reply = next(e for e in JournalReader(run / "journal").entries() if "reply" in e.head)
    log = run / "journal" / "000001.log"
    content = bytearray(log.read_bytes())
    content[reply.location.offset] ^= 1
    log.write_bytes(content)
    kept = ns.salvage(run)
    before = tables_of(kept.run.path)
    assert History.of(kept.run.path / "journal").replies < 18
    ns.rebuild(kept.run.path)
    assert tables_of(kept.run.path) == before
    assert correct(kept.run.simulated().collect())


def test_a_lost_segment_is_survived(tmp_path, monkeypatch):
    monkeypatch.setattr("nscore._running.workplace.Journal", lambda folder: Journal(folder, segment_bytes=4000))
    with serve() as server:
        start(server, tmp_path / "run")
        names = sorted(file.name for file in (tmp_path / "run" / "journal").glob("*.log"))
        assert len(names) >= 3
        (tmp_path / "run" / "journal" / names[1]).unlink()
        assert any(f"{names[1]}: this file is missing" in problem for problem in ns.verify(tmp_path / "run").problems)
        kept = ns.salvage(tmp_path / "run", tmp_path / "new")
        assert "this file is missing" in kept.lost[0]
        without_tables(kept.run.path)
        server.forget()
        assert correct(start(server, kept.run.path).simulated().collect())
        assert 0 < asked(server) < 18


def test_a_sound_run_is_copied_whole(run, tmp_path):
    kept = ns.salvage(run, tmp_path / "copy")
    assert (kept.lost, kept.shards) == ([], 6)
    assert not ns.verify(tmp_path / "copy").problems


def test_settings_that_the_journal_lost_come_from_the_readable_file(run):
    log = run / "journal" / "000001.log"
    content = log.read_bytes()
    log.write_bytes(content[:40] + b"x" * 200 + content[240:])
    kept = ns.salvage(run)
    assert kept.run.settings()["backend"]["model"] == "tiny"
    (run / "run.json").unlink()
    with pytest.raises(ns.RunError, match="Put a copy of this file back"):
        ns.salvage(run, run.with_name("again"))


def test_a_folder_with_something_in_it_is_not_written_to(run, tmp_path):
    with pytest.raises(ns.RunError, match="there is something in it already"):
        ns.salvage(run, tmp_path)


# Words


def test_show_says_what_is_there_and_what_is_missing(tmp_path, capsys):
    with serve() as server:
        start(server, tmp_path / "run", limit=7, price=(1.0, 2.0))
        code, out, _ = command(capsys, "runs", "show", str(tmp_path / "run"))
        assert code == 0
        assert "json_list with tiny" in out
        assert "Planned: 7 requests, with a limit of 7; 2 shards begun, 2 written." in out
        assert "Sent: 7 calls; 7 replies stored in " in out
        assert "Requests: 7 ok." in out
        assert "Spent: $" in out
        assert "the same command without it goes on" in out
        start(server, tmp_path / "run")
    _, out, _ = command(capsys, "runs", "show", str(tmp_path / "run"))
    assert "Requests: 18 ok." in out
    assert out.rstrip().endswith("It is done.")
    code, out, _ = command(capsys, "runs", "show", str(tmp_path / "run"), "--json")
    assert json.loads(out)["statuses"] == {"ok": 18}


def test_commands_do_what_the_functions_do(run, capsys):
    code, out, _ = command(capsys, "runs", "verify", str(run))
    assert (code, out) == (0, out)
    assert "18 of them replies, and 6 files of tables" in out
    damaged(run / "simulated.parquet" / "part-000001.parquet")
    code, out, _ = command(capsys, "runs", "verify", str(run))
    assert code == 1
    assert "its bytes are not those that were written" in out
    code, out, _ = command(capsys, "runs", "show", str(run))
    assert (code, "damaged shard" in out or "Requests: 18 ok" in out) == (0, True)
    code, out, _ = command(capsys, "runs", "rebuild", str(run))
    assert code == 0
    assert "3 shards were made again from 18 stored replies. Requests: 18 ok." in out
    break_segment(run, 0.5)
    code, _, err = command(capsys, "runs", "rebuild", str(run))
    assert code == 1
    assert f"nscore runs salvage {run}" in err
    code, out, _ = command(capsys, "runs", "salvage", str(run))
    assert code == 0
    assert "Lost: " in out
    assert f"goes on with -o {run}-salvaged" in out
    code, _, err = command(capsys, "runs", "show", str(run), "-o", "x")
    assert (code, "it is for salvage" in err) == (1, True)
