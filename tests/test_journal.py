from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nscore._sending import journal as _journal
from nscore._sending import segments as _segments
from nscore._sending.journal import Entry, Journal, JournalReader, Location
from nscore._tables.disk import Disk
from nscore.errors import JournalError

SEAL_BYTES = _segments._PREFIX_BYTES  # noqa: SLF001
FIRST_LINE = b"nscore journal 1 000001\n"


class Unsynced(Disk):
    """Files that are not synced, for tests that open a thousand journals."""

    def fsync(self, file: int) -> None:
        pass


class Failing(Disk):
    """Files of which one operation fails from its n-th call on; a failing write leaves a part of its bytes."""

    def __init__(self, what: str, after: int, number: int = errno.ENOSPC) -> None:
        self.what, self.left, self.error = what, after, OSError(number, os.strerror(number))
        self.calls = 0

    def due(self, what: str) -> bool:
        self.calls += what == self.what
        return what == self.what and self.calls > self.left

    def open(self, path: Path, flags: int) -> int:
        if self.due("open"):
            raise self.error
        return super().open(path, flags)

    def write(self, file: int, data: memoryview) -> int:
        if self.due("write"):
            if len(data) > 7:
                return super().write(file, data[: len(data) // 2])
            raise self.error
        return super().write(file, data)

    def fsync(self, file: int) -> None:
        if self.due("fsync"):
            raise self.error
        super().fsync(file)

    def truncate(self, file: int, size: int) -> None:
        if self.due("truncate"):
            raise self.error
        super().truncate(file, size)


def appended(folder: Path, files: Disk) -> tuple[list[tuple[dict[str, object], bytes]], JournalError | None]:
    """Of five frames in five segments those that were acknowledged, and the failure."""
    durable: list[tuple[dict[str, object], bytes]] = []
    try:
        with Journal(folder, segment_bytes=0, disk=files) as journal:
            for n in range(5):
                frame: tuple[dict[str, object], bytes] = ({"n": n}, os.urandom(60))
                future = journal.append(*frame)
                journal.flush()
                assert future.done()
                durable.append(frame)
    except JournalError as error:
        return durable, error
    return durable, None


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("journal")]


def contents(journal: JournalReader) -> list[tuple[dict[str, object], bytes]]:
    return [(entry.head, journal.read(entry.location)) for entry in journal.entries()]


def written(folder: Path, *groups: list[tuple[dict[str, object], bytes]]) -> dict[str, bytes]:
    """The files of a journal to which each group was appended in a session (so a segment) of its own."""
    for group in groups:
        with Journal(folder, disk=Unsynced()) as journal:
            for head, payload in group:
                journal.append(head, payload)
                journal.flush()
    return {path.name: path.read_bytes() for path in folder.glob("*.log")}


def restored(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.glob("*.log"):
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


FRAMES: list[tuple[dict[str, object], bytes]] = [
    ({"n": 0, "of": "Zürich 東京 🙂"}, b"a reply" * 20),
    ({"n": 1}, b""),
    ({}, b"\0" * 1000),
    ({"n": 3, "nested": {"list": [1, 2.5, None, True, "\0"]}}, bytes(range(256))),
]


def test_what_was_appended_is_read_back_in_order(tmp_path: Path):
    with Journal(tmp_path / "run" / "journal") as journal:
        locations = [journal.append(head, payload) for head, payload in FRAMES]
        assert [journal.read(location.result()) for location in locations] == [payload for _, payload in FRAMES]
        assert contents(journal) == FRAMES
    with Journal(tmp_path / "run" / "journal") as journal:
        assert contents(journal) == FRAMES
        assert [entry.location for entry in journal.entries()] == [location.result() for location in locations]
        assert [entry.size for entry in journal.entries()] == [len(payload) for _, payload in FRAMES]
        journal.append({"n": 4}, b"later").result()
        assert contents(journal) == [*FRAMES, ({"n": 4}, b"later")]
    assert contents(JournalReader(tmp_path / "run" / "journal")) == [*FRAMES, ({"n": 4}, b"later")]


def test_an_entry_is_a_head_a_location_and_a_size(tmp_path: Path):
    with Journal(tmp_path) as journal:
        location = journal.append({"key": "k"}, b"abc").result()
        assert list(journal.entries()) == [Entry({"key": "k"}, location, 3)]


def test_a_payload_of_an_empty_journal_is_an_error_and_it_has_no_entries(tmp_path: Path):
    with Journal(tmp_path) as journal:
        assert list(journal.entries()) == []
        with pytest.raises(JournalError, match=r"000001\.log: cannot read it"):
            journal.read(Location(1, 0))
    assert list(JournalReader(tmp_path).entries()) == []


def test_a_place_that_is_no_frame_s_is_an_error(tmp_path: Path):
    with Journal(tmp_path) as journal:
        segment, offset = journal.append({}, b"payload" * 9).result()
        for wrong in (0, offset - 1, offset + 1, offset + 10_000):
            with pytest.raises(JournalError, match=f"byte {wrong}: .* no frame begins there"):
                journal.read(Location(segment, wrong))


@given(st.integers(0, (1 << 23) - 1), st.integers(0, (1 << 40) - 1))
def test_a_location_fits_a_signed_integer_of_64_bits(segment: int, offset: int):
    packed = Location(segment, offset).pack()
    assert 0 <= packed < 1 << 63
    assert Location.unpack(packed) == Location(segment, offset)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
frames = st.tuples(st.dictionaries(st.text(), json_values, max_size=4), st.binary(max_size=300))


@settings(max_examples=40, deadline=None)
@given(sessions=st.lists(st.lists(frames, max_size=6), max_size=4), segment_bytes=st.integers(0, 1000))
def test_any_frames_in_any_sessions_and_segments_are_read_back(tmp_path_factory, sessions, segment_bytes):
    folder = tmp_path_factory.mktemp("journal")
    for session in sessions:
        with Journal(folder, segment_bytes=segment_bytes, disk=Unsynced()) as journal:
            for head, payload in session:
                journal.append(head, payload)
                journal.flush()
    with Journal(folder, disk=Unsynced()) as journal:
        assert contents(journal) == [frame for session in sessions for frame in session]
        assert journal.cut_bytes == 0


def test_a_segment_of_full_size_is_followed_by_a_new_one(tmp_path: Path):
    with Journal(tmp_path, segment_bytes=500) as journal:
        for n in range(20):
            journal.append({"n": n}, os.urandom(100)).result()
    assert len(list(tmp_path.glob("*.log"))) > 3
    assert [entry.head["n"] for entry in JournalReader(tmp_path).entries()] == list(range(20))


@pytest.mark.parametrize("sessions", [[FRAMES], [FRAMES[:2], FRAMES[2:]]])
def test_cut_at_any_byte_of_the_last_segment_all_whole_frames_before_are_there(tmp_path: Path, sessions):
    files = written(tmp_path, *sessions)
    entries = list(JournalReader(tmp_path).entries())
    last = f"{len(sessions):06d}.log"
    ends = [entry.location.offset for entry in entries if entry.location.segment == len(sessions)][1:]
    ends.append(len(files[last]) - SEAL_BYTES)
    before = len(FRAMES) - len(ends)
    for length in range(len(files[last])):
        restored(tmp_path, files | {last: files[last][:length]})
        expected = FRAMES[: before + sum(end <= length for end in ends)]
        assert contents(JournalReader(tmp_path)) == expected
        with Journal(tmp_path, disk=Unsynced()) as journal:
            assert contents(journal) == expected
            if length % 50 == 0:
                journal.append({"n": "new"}, b"new").result()
                assert contents(journal) == [*expected, ({"n": "new"}, b"new")]
        if length % 50 == 0:
            with Journal(tmp_path, disk=Unsynced()) as journal:
                assert contents(journal) == [*expected, ({"n": "new"}, b"new")]
                assert journal.cut_bytes == 0


def test_a_torn_end_of_any_bytes_is_cut_off(tmp_path: Path):
    files = written(tmp_path, FRAMES)
    for torn in (b"\0" * 5000, b"\xff", os.urandom(300), files["000001.log"][:100], b"\xa9nsJ" * 30):
        restored(tmp_path, {"000001.log": files["000001.log"] + torn})
        with Journal(tmp_path) as journal:
            assert journal.cut_bytes == len(torn)
            assert contents(journal) == FRAMES
        assert (tmp_path / "000001.log").read_bytes() == files["000001.log"]


def test_a_torn_end_that_cannot_be_cut_off_is_an_error_and_gives_the_lock_back(tmp_path: Path):
    files = written(tmp_path, FRAMES)
    restored(tmp_path, {"000001.log": files["000001.log"] + b"torn"})
    for _ in range(2):
        with pytest.raises(JournalError, match=r"000001\.log: cannot cut it: Read-only file system"):
            Journal(tmp_path, disk=Failing("truncate", 1, errno.EROFS))  # the first call is the lock's
    with Journal(tmp_path) as journal:
        assert contents(journal) == FRAMES


def test_a_commit_that_reached_the_disk_in_the_wrong_order_is_a_torn_end(tmp_path: Path):
    with Journal(tmp_path) as journal:
        journal.append({"n": 0}, b"durable").result()
        both = [journal.append({"n": n}, b"of one commit") for n in (1, 2)]
        first = both[0].result().offset
    path = tmp_path / "000001.log"
    data = path.read_bytes()[:-SEAL_BYTES]
    path.write_bytes(data[:first] + b"\0" * 8 + data[first + 8 :])
    with Journal(tmp_path) as journal:
        assert contents(journal) == [({"n": 0}, b"durable")]


@pytest.mark.parametrize("sealed", [True, False])
def test_every_flipped_byte_is_found_or_cut_off_with_the_last_frame(tmp_path: Path, sealed: bool):
    files = written(tmp_path, FRAMES[:2], FRAMES[2:])
    if not sealed:  # as a killed process leaves it
        files["000002.log"] = files["000002.log"][:-SEAL_BYTES]
    restored(tmp_path, files)
    last = list(JournalReader(tmp_path).entries())[-1].location
    cut_from = len(files["000002.log"]) - SEAL_BYTES if sealed else last.offset
    for name, data in files.items():
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8 if at % 3 else 0xFF
            restored(tmp_path, files | {name: bytes(flipped)})
            if name == "000002.log" and at >= cut_from:
                assert contents(JournalReader(tmp_path)) == (FRAMES if sealed else FRAMES[:-1])
                with Journal(tmp_path, disk=Unsynced()) as journal:
                    assert contents(journal) == (FRAMES if sealed else FRAMES[:-1])
                    assert journal.cut_bytes == len(data) - cut_from
                continue
            with pytest.raises(JournalError, match=f"{name}.* (damaged|newer)"):
                contents(JournalReader(tmp_path))
            with pytest.raises(JournalError, match=f"{name}.* (damaged|newer)"), Journal(tmp_path) as journal:
                contents(journal)
    assert not writers()


def test_a_damage_is_told_with_the_file_and_the_byte_and_gives_the_lock_back(tmp_path: Path):
    files = written(tmp_path, FRAMES, FRAMES)
    second = list(JournalReader(tmp_path).entries())[1].location
    path = tmp_path / "000001.log"
    path.write_bytes(files["000001.log"][: second.offset] + b"x" + files["000001.log"][second.offset + 1 :])
    for _ in range(2):
        with pytest.raises(JournalError, match=rf"000001\.log, byte {second.offset}: the journal is damaged"):
            Journal(tmp_path)


def test_a_missing_or_exchanged_segment_is_found(tmp_path: Path):
    files = written(tmp_path, FRAMES[:1], FRAMES[1:2], FRAMES[2:])
    (tmp_path / "000002.log").unlink()
    with pytest.raises(JournalError, match=r"000002\.log.*missing"):
        Journal(tmp_path)
    restored(tmp_path, files | {"000001.log": files["000002.log"], "000002.log": files["000001.log"]})
    with pytest.raises(JournalError, match=r"000001\.log, byte 0"):
        Journal(tmp_path)


def test_a_journal_of_a_newer_version_is_refused_in_words(tmp_path: Path):
    (tmp_path / "000001.log").write_bytes(b"nscore journal 2 000001\nwho knows")
    for opened in (Journal, lambda folder: list(JournalReader(folder).entries())):
        with pytest.raises(JournalError, match=r"newer nscore \(journal version 2; this one reads 1\)\. Update nscore"):
            opened(tmp_path)
    assert (tmp_path / "000001.log").read_bytes() == b"nscore journal 2 000001\nwho knows"


def test_no_more_is_decompressed_than_the_length_on_record(tmp_path: Path):
    path = tmp_path / "000001.log"
    for said in (999, 1001, 1 << 30):
        frame = bytearray(_segments.frame_bytes(b"{}", b"\0" * 1000, 0))
        prefix = list(_segments._PREFIX.unpack_from(frame))  # noqa: SLF001
        prefix[3] = said
        _segments._PREFIX.pack_into(frame, 0, *prefix)  # noqa: SLF001
        _segments._CHECKSUM.pack_into(frame, 32, _segments.zlib.crc32(frame[:32]))  # noqa: SLF001
        path.write_bytes(FIRST_LINE + frame)
        with pytest.raises(JournalError, match="cannot be decompressed"):
            JournalReader(tmp_path).read(Location(1, len(FIRST_LINE)))
    assert list(JournalReader(tmp_path).entries())


def test_a_reader_needs_no_lock_and_changes_nothing(tmp_path: Path):
    with Journal(tmp_path) as journal:
        journal.append({"n": 0}, b"0").result()
        with (tmp_path / "000001.log").open("ab") as file:
            file.write(b"\xa9nsJ and so on")
        before = (tmp_path / "000001.log").read_bytes()
        assert contents(JournalReader(tmp_path)) == [({"n": 0}, b"0")]
        assert (tmp_path / "000001.log").read_bytes() == before
    with pytest.raises(JournalError, match="there is no journal here"):
        JournalReader(tmp_path / "elsewhere")


APPENDER = """
import sys, itertools
from pathlib import Path
from nscore._sending.journal import Journal

journal = Journal(Path(sys.argv[1]), segment_bytes=100_000)
start = sum(1 for _ in journal.entries())
for first in itertools.count(start, 16):
    waiting = [journal.append({"n": n}, str(n).encode() * 50) for n in range(first, first + 16)]
    for n, future in enumerate(waiting, start=first):
        future.result()
        print(n, flush=True)
"""


def appender(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", APPENDER, str(folder)], stdout=subprocess.PIPE, text=True)


def test_all_that_was_acknowledged_before_a_kill_is_there(tmp_path: Path):
    told = -1
    for kill in range(5):
        with appender(tmp_path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.01 + 0.017 * kill)
            process.kill()
            told = max([told, *(int(line) for line in process.stdout if line.endswith("\n"))])
        with Journal(tmp_path) as journal:
            found = contents(journal)
        assert [head["n"] for head, _ in found] == list(range(len(found)))
        assert all(payload == str(head["n"]).encode() * 50 for head, payload in found)
        assert len(found) > told


def test_a_second_opener_is_told_who_works_on_the_run_until_that_one_ends(tmp_path: Path):
    with appender(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(JournalError, match=rf"another process \({process.pid}\) works on this run"):
            Journal(tmp_path)
        process.kill()
    with Journal(tmp_path), pytest.raises(JournalError, match=rf"\({os.getpid()}\)"):
        Journal(tmp_path)
    Journal(tmp_path).close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS])
@pytest.mark.parametrize("what", ["open", "write", "fsync"])
def test_a_failing_operation_ends_the_appending_and_loses_nothing_durable(tmp_path: Path, what: str, number: int):
    for after in range(9):
        folder = tmp_path / str(after)
        durable, failure = appended(folder, Failing(what, after, number))
        assert failure is None or isinstance(failure.__cause__, OSError)
        assert failure is None or os.strerror(number) in str(failure)
        assert failure is None or str(tmp_path) in str(failure)
        with Journal(folder, disk=Unsynced()) as journal:
            found = contents(journal)
        assert found[: len(durable)] == durable
        assert len(found) - len(durable) in (0, 1)
        assert failure is not None or len(durable) == 5
    assert not writers()


def test_after_a_failed_sync_nothing_is_appended_and_everyone_is_told(tmp_path: Path):
    files = Failing("fsync", 4)  # the first line, the folder and its parent, the first frame
    journal = Journal(tmp_path, disk=files)
    journal.append({"n": 0}).result()
    waiting = [journal.append({"n": n}) for n in range(1, 10)]
    for future in waiting:
        with pytest.raises(JournalError, match=r"cannot sync it: No space left on device\. Free some space"):
            future.result()
    assert journal.failed is not None
    size = (tmp_path / "000001.log").stat().st_size
    for later in (lambda: journal.append({}), lambda: journal.note({}), journal.flush):
        with pytest.raises(JournalError, match="No space left") as caught:
            later()
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(JournalError, match="No space left"):
        journal.close()
    journal.close()
    assert (tmp_path / "000001.log").stat().st_size == size
    assert journal.queued_bytes == 0
    assert contents(JournalReader(tmp_path))[:1] == [({"n": 0}, b"")]


def test_an_unforeseen_error_in_the_writer_leaves_nobody_waiting(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(_journal, "frame_bytes", lambda *_: 1 / 0)
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="ZeroDivisionError"):
        journal.append({}).result(timeout=5)
    with pytest.raises(JournalError, match="ZeroDivisionError"):
        journal.close()


def test_a_head_that_is_no_json_is_the_caller_s_error_alone(tmp_path: Path):
    with Journal(tmp_path) as journal:
        with pytest.raises(TypeError):
            journal.append({"x": object()})
        journal.append({"n": 0}).result()
        assert len(list(journal.entries())) == 1


def test_notes_reach_the_file_soon_and_in_their_place(tmp_path: Path):
    with Journal(tmp_path) as journal:
        journal.note({"n": 0})
        journal.note({"n": 1})
        limit = time.monotonic() + 5
        while len(list(JournalReader(tmp_path).entries())) < 2:
            assert time.monotonic() < limit
            time.sleep(0.005)
        assert list(journal.entries()) == []  # written, not yet durable
        journal.append({"n": 2}).result()
        assert [entry.head["n"] for entry in journal.entries()] == [0, 1, 2]
        journal.note({"n": 3})
        journal.flush()
        assert [entry.head["n"] for entry in journal.entries()] == [0, 1, 2, 3]
        journal.note({"n": 4})
    assert [entry.head["n"] for entry in JournalReader(tmp_path).entries()] == [0, 1, 2, 3, 4]


def test_frames_that_are_queued_together_share_a_sync(tmp_path: Path):
    files = Failing("fsync", 10**9)
    with Journal(tmp_path, disk=files) as journal:
        journal.append({}).result()
        before = files.calls
        for future in [journal.append({"n": n}) for n in range(64)]:
            future.result()
        assert files.calls - before <= 2


def test_what_is_queued_is_counted_until_it_is_written(tmp_path: Path):
    with Journal(tmp_path) as journal:
        future = journal.append({}, b"x" * 1000)
        assert journal.queued_bytes in (0, 1002)
        future.result()
        assert journal.queued_bytes == 0


def test_a_thousand_tasks_wait_at_once(tmp_path: Path):
    async def run() -> list[Location]:
        with Journal(tmp_path) as journal:
            return await asyncio.gather(*(journal.store({"n": n}, str(n).encode()) for n in range(1000)))

    locations = asyncio.run(run())
    assert [JournalReader(tmp_path).read(location) for location in locations] == [str(n).encode() for n in range(1000)]


def test_waiting_tasks_are_told_of_a_failure(tmp_path: Path):
    async def run() -> list[Location | BaseException]:
        journal = Journal(tmp_path, disk=Failing("write", 2))
        outcomes = await asyncio.gather(*(journal.store({"n": n}) for n in range(100)), return_exceptions=True)
        with pytest.raises(JournalError):
            journal.close()
        return outcomes

    outcomes = asyncio.run(run())
    assert len(outcomes) == 100
    assert all(isinstance(outcome, JournalError) for outcome in outcomes)


def test_a_cancelled_task_leaves_its_frame_and_the_writer_whole(tmp_path: Path):
    async def run() -> None:
        with Journal(tmp_path) as journal:
            tasks = [asyncio.create_task(journal.store({"n": n})) for n in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False] * 10
            wrapped = asyncio.wrap_future(journal.append({"n": 20}))
            wrapped.cancel()
            await journal.store({"n": 21})
            assert [entry.head["n"] for entry in journal.entries()] == list(range(22))

    asyncio.run(run())


def test_a_loop_that_ended_does_not_disturb_the_writer(tmp_path: Path):
    with Journal(tmp_path) as journal:

        async def leave() -> None:
            task = asyncio.create_task(journal.store({"n": 0}))
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(leave())
        journal.append({"n": 1}).result(timeout=5)
        assert [entry.head["n"] for entry in journal.entries()] == [0, 1]


def test_no_thread_and_no_open_file_is_left_after_closing(tmp_path: Path):
    before = sorted(Path("/dev/fd").iterdir())
    with Journal(tmp_path, segment_bytes=100) as journal:
        assert len(writers()) == 1
        for n in range(5):
            journal.append({"n": n}, b"x" * 100).result()
        list(journal.entries())
    journal.close()
    assert not writers()
    assert sorted(Path("/dev/fd").iterdir()) == before
    with pytest.raises(JournalError, match="is closed"):
        journal.append({})


def test_an_error_inside_is_not_hidden_by_the_failure_at_closing(tmp_path: Path):
    def run() -> None:
        with Journal(tmp_path, disk=Failing("write", 1)) as journal:
            journal.note({})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


def test_the_first_whole_frame_behind_a_long_damage_is_found(tmp_path: Path):
    with Journal(tmp_path) as journal:
        places = [journal.append({"n": n}, os.urandom(300_000 * n)).result() for n in range(4)]
    path = tmp_path / "000001.log"
    data = bytearray(path.read_bytes())
    data[places[2].offset] ^= 1
    path.write_bytes(data)
    gaps = [piece for piece in _segments.pieces_of(tmp_path) if isinstance(piece, _segments.Gap)]
    assert [(gap.start, gap.end, gap.torn) for gap in gaps] == [(places[2].offset, places[3].offset, False)]
    data[places[3].offset] ^= 1
    path.write_bytes(data[:-SEAL_BYTES])
    (tmp_path / "000002.log").write_bytes(b"nscore journal 1 000002\n")
    gaps = [piece for piece in _segments.pieces_of(tmp_path) if isinstance(piece, _segments.Gap)]
    assert [(gap.start, gap.end) for gap in gaps] == [(places[2].offset, len(data) - SEAL_BYTES)]


def test_a_lock_that_cannot_be_written_is_told_as_what_it_is(tmp_path: Path):
    with pytest.raises(JournalError, match="lock: cannot lock it: No space left on device"):
        Journal(tmp_path, disk=Failing("truncate", 0))


def test_what_only_looks_like_the_beginning_of_a_frame_is_passed_over(tmp_path: Path):
    payload = os.urandom(1000) + _segments._MAGIC + os.urandom(1000)  # noqa: SLF001
    with Journal(tmp_path) as journal:
        places = [journal.append({"n": n}, payload).result() for n in range(3)]
    path = tmp_path / "000001.log"
    data = bytearray(path.read_bytes())
    assert data.count(_segments._MAGIC) >= 6  # noqa: SLF001
    data[places[1].offset] ^= 1
    path.write_bytes(data)
    pieces = list(_segments.pieces_of(tmp_path))
    assert [(p.start, p.end) for p in pieces if isinstance(p, _segments.Gap)] == [(places[1].offset, places[2].offset)]
    assert [p.location for p in pieces if not isinstance(p, _segments.Gap) and p.head] == [places[0], places[2]]


def test_a_payload_that_is_too_large_is_refused_before_it_is_queued(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(_journal, "LARGEST_PAYLOAD", 100)
    with Journal(tmp_path) as journal:
        place = journal.append({}, bytes(100)).result()
        with pytest.raises(JournalError, match=r"a payload of 101 bytes; the most is 1 GiB\."):
            journal.append({}, bytes(101))
        assert journal.queued_bytes == 0
        assert journal.read(place) == bytes(100)
