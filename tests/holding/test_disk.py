"""A disk that is full, sick, or loses power: one error in words, nothing stored is lost, and the run goes on."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import time

import polars as pl
import pytest
from asking import asked, backend, explanations_of, files_of, records_of, serve, value
from holding.power import Recording, after_power_loss
from simulation_tables import command

import nscore as ns
from nscore._sending.history import History
from nscore._sending.journal import Journal
from nscore._tables import disk as _disk
from nscore._tables.disk import Disk

RECORDS, TOLD = records_of(5), explanations_of(5)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS, errno.EDQUOT)
KINDS = ("open", "write", "fsync", "truncate", "replace", "mkdir")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Shards of one neuron, and segments of some replies."""
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 12)
    monkeypatch.setitem(Journal.__init__.__kwdefaults__, "segment_bytes", 9000)
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-1")


class Sick(Disk):
    """A disk of which each call from the n-th on fails, or only those of one kind; a failing write does a part of it."""

    def __init__(self, after, number, kind=None):
        self.after, self.number, self.kind = after, number, kind
        self.calls: list[str] = []
        self.failed_at = None
        self._lock = threading.Lock()

    def _call(self, what, act, *given):
        with self._lock:
            due = len(self.calls) >= self.after and self.kind in (None, what)
            self.calls.append(what)
            if due and self.failed_at is None:
                self.failed_at = time.monotonic()
                if what == "write":
                    file, data = given
                    return act(file, data[: (len(data) + 1) // 2])
        if due:
            raise OSError(self.number, os.strerror(self.number))
        return act(*given)

    def open(self, path, flags):
        return self._call("open", super().open, path, flags)

    def write(self, file, data):
        return self._call("write", super().write, file, data)

    def fsync(self, file):
        self._call("fsync", super().fsync, file)

    def truncate(self, file, size):
        self._call("truncate", super().truncate, file, size)

    def replace(self, source, target):
        self._call("replace", super().replace, source, target)

    def mkdir(self, path):
        self._call("mkdir", super().mkdir, path)


def commands(server, folder, out):
    """What a user types."""
    inputs = [folder / "records.parquet", folder / "told.parquet"]
    flags = ["--simulator", "json_list", "--model", "tiny", "--base-url", server.base_url, "--concurrency", "4"]
    return ["simulate", *inputs, *flags, "-o", out], ["score", out / "simulated.parquet", "-o", out]


def carried_out(capsys, both):
    """The exit code and the words of commands, up to the first that fails."""
    for one in both:
        code, _, err = command(capsys, *one)
        if code:
            return code, err
    return 0, ""


def tables_of(out):
    return files_of(out), (out / "scores.parquet").read_bytes(), (out / "sequence_scores.parquet").read_bytes()


@pytest.fixture
def bench(tmp_path, capsys, monkeypatch):
    """A server, inputs, what comes out of them on a sound disk, and how many calls it takes."""
    RECORDS.write_parquet(tmp_path / "records.parquet")
    TOLD.write_parquet(tmp_path / "told.parquet")
    with serve(wait_s=0.002, jitter_s=0.01) as server:
        sound = Sick(10**9, 0)
        with monkeypatch.context() as patch:
            patch.setattr(_disk, "DISK", sound)
            assert carried_out(capsys, commands(server, tmp_path, tmp_path / "whole")) == (0, "")
        yield server, tables_of(tmp_path / "whole"), sound.calls


def falls_sick(server, expected, folder, capsys, monkeypatch, after, number, kind):  # noqa: PLR0917
    """A run on a disk that falls sick, and goes on when it is mended."""
    out = folder / "sick"
    shutil.rmtree(out, ignore_errors=True)
    server.forget()
    sick = Sick(after, number, kind)
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "DISK", sick)
        code, err = carried_out(capsys, commands(server, folder, out))
    if sick.failed_at is None:
        return 0.0, False  # threads take turns as they like: there was no such call
    last_s = max((a.at_s for a in server.arrivals), default=0.0) - sick.failed_at
    assert last_s < 0.1, (after, number, kind)
    if code:
        assert (code, len(err.strip().splitlines())) == (1, 1), err
        assert os.strerror(number) in err
        assert str(out) in err
        assert "run the same command again" in err
    there = History.of(out / "journal").replies if (out / "journal").is_dir() else 0
    before = asked(server)
    assert carried_out(capsys, commands(server, folder, out)) == (0, "")
    assert asked(server) - before == 15 - there, (after, number, kind)
    assert tables_of(out) == expected, (after, number, kind)
    assert not ns.verify(out).problems
    return last_s, bool(code)


def test_a_sick_disk_ends_the_run_in_a_line_and_the_run_goes_on_when_it_is_mended(bench, tmp_path, capsys, monkeypatch):
    server, expected, calls = bench
    rng = random.Random(5)
    for kind in [None, *KINDS, None]:
        after = rng.randrange(len(calls) if kind is None else max(i for i, c in enumerate(calls) if c == kind) + 1)
        falls_sick(server, expected, tmp_path, capsys, monkeypatch, after, rng.choice(ERRORS), kind)


@pytest.mark.full
def test_every_call_of_the_disk_may_fail_in_every_way(bench, tmp_path, capsys, monkeypatch):
    server, expected, calls = bench
    trials = [(after, number, kind) for after, call in enumerate(calls) for number in ERRORS for kind in (None, call)]
    results = [falls_sick(server, expected, tmp_path, capsys, monkeypatch, *trial) for trial in trials]
    ended = sum(code for _, code in results)
    longest_s = max(last_s for last_s, _ in results)
    print(
        f"\n {len(trials)} disks that fell sick: {ended} runs ended by it, the last request {1000 * longest_s:.0f} ms"
    )
    print(" after the failure; replies lost: 0; asked again: 0; tables the same after each")


# Loss of power


def recorded(server, out, monkeypatch):
    """The log of a run: all calls of its disk, and when which reply was acknowledged."""
    log = Recording()
    store = Journal.store

    async def acknowledged(self, head, payload=b"", **given):
        result = await store(self, head, payload, **given)
        if "reply" in head:
            log.acknowledge(head["reply"])
        return result

    with monkeypatch.context() as patch:
        patch.setattr(_disk, "DISK", log)
        patch.setattr(Journal, "store", acknowledged)
        start(server, out)
    return log


def start(server, out):
    return ns.simulate(
        RECORDS, TOLD, simulator="json_list", backend=backend(server), out=out, concurrency=4, price=(1.0, 2.0)
    )


def loses_power(server, log, root, state, at, rng, expected):  # noqa: PLR0917
    """Whether all that was acknowledged is there, nothing wrong is read, and the run comes to the same end."""
    shutil.rmtree(state, ignore_errors=True)
    after_power_loss(log, at, rng, root, state)
    out = state / "run"
    durable = {key for when, key in log.acknowledged if when <= at}
    there = History.of(out / "journal") if (out / "journal").is_dir() else None
    assert all(there is not None and there.past(bytes.fromhex(key)) for key in durable), at
    try:
        rows = ns.Run(out).simulated().collect()
    except ns.NscoreError:
        pass
    else:
        ok = rows.filter(pl.col("status") == "ok")
        assert ok["predicted"].to_list() == [float(value(token)) for token in ok["token"]]
        assert rows.filter(pl.col("status") != "ok")["predicted"].null_count() == rows.height - ok.height
    server.forget()
    start(server, out)
    assert asked(server) <= 15 - len(durable)
    assert files_of(out) == expected
    assert not ns.verify(out).problems
    return len(durable)


def power_losses(tmp_path, monkeypatch, states, seed):
    root = tmp_path / "root"
    root.mkdir()
    with serve(wait_s=0.002, jitter_s=0.01) as server:
        log = recorded(server, root / "run", monkeypatch)
        expected = files_of(root / "run")
        rng = random.Random(seed)
        server.wait_s = server.jitter_s = 0.0
        durable = sum(
            loses_power(server, log, root, tmp_path / "state", rng.randrange(1, log.length + 1), rng, expected)
            for _ in range(states)
        )
    return log.length, durable


def test_what_was_acknowledged_outlives_a_loss_of_power(tmp_path, monkeypatch):
    power_losses(tmp_path, monkeypatch, 12, seed=6)


@pytest.mark.full
def test_what_was_acknowledged_outlives_two_thousand_losses_of_power(tmp_path, monkeypatch):
    length, durable = power_losses(tmp_path, monkeypatch, 2000, seed=7)
    print(
        f"\n 2,000 losses of power within {length} calls: 0 of {durable:,} acknowledged replies lost, tables the same"
    )
