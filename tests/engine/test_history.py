"""What the frames of a journal mean: replies are found again, and what may have been billed is counted."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation_tables import PROPERTY

from nscore._history import History, begun, ended, reply, sent, shard_done
from nscore._journal import Journal

KEYS = [hashlib.sha256(bytes([i])).digest() for i in range(4)]


@pytest.fixture
def told(tmp_path):
    """A function that writes frames into a journal and gives its history."""

    def tell(*frames):
        with Journal(tmp_path / "journal") as journal:
            for frame in frames:
                head, payload = frame if isinstance(frame, tuple) else (frame, b"")
                journal.append(head, payload)
        return History.of(tmp_path / "journal")

    return tell


def test_a_run_that_has_just_begun_has_no_history(told):
    history = told()
    assert (len(history), history.spent, history.in_doubt) == (0, 0.0, 0)
    assert history.past(KEYS[0]) is None
    assert not history.knows(KEYS[0])


def test_the_last_reply_to_a_request_is_found_with_all_that_was_told(told):
    history = told(
        (reply(KEYS[0], 0, 0.25, "2026-01-01T00:00:00.000+00:00"), b"half"),
        (reply(KEYS[1], 0, 0.5, "later"), b"other"),
        (reply(KEYS[0], 1, 0.75, "2026-01-01T00:00:01.000+00:00"), b"whole"),
    )
    past = history.past(KEYS[0])
    assert (past.raw, past.attempts, past.latency_s, past.at) == (b"whole", 2, 0.75, "2026-01-01T00:00:01.000+00:00")
    assert history.past(KEYS[2]) is None
    assert [history.knows(k) for k in KEYS] == [True, True, False, False]


def test_keys_that_begin_alike_are_not_taken_for_one_another(told):
    near = KEYS[0][:8] + bytes(24)
    history = told((reply(KEYS[0], 0, 0.1, ""), b"mine"))
    assert history.knows(near)
    assert history.past(near) is None


def test_what_was_sent_and_never_ended_counts_at_its_most_and_is_in_doubt(told):
    history = told(sent(KEYS[0], 0, 0.5), sent(KEYS[1], 0, 0.25), ended(KEYS[1], 0, 0.125))
    assert (history.spent, history.in_doubt) == (0.625, 1)


def test_a_call_of_a_session_that_was_killed_is_not_forgotten_when_the_next_ends_its_own(told):
    history = told(
        sent(KEYS[0], 0, 0.5), sent(KEYS[0], 0, 0.5), (reply(KEYS[0], 0, 0.1, ""), b"x"), ended(KEYS[0], 0, 0.125)
    )
    assert (history.spent, history.in_doubt) == (0.625, 1)


def test_a_reply_that_was_not_paid_for_yet_counts_at_its_most_and_is_in_no_doubt(told):
    history = told(sent(KEYS[0], 0, 0.5), (reply(KEYS[0], 0, 0.1, ""), b"x"))
    assert (history.spent, history.in_doubt) == (0.5, 0)


def test_prices_that_nobody_knew_cost_nothing(told):
    history = told(sent(KEYS[0], 0, None), ended(KEYS[0], 0, None), sent(KEYS[1], 0, None))
    assert (history.spent, history.in_doubt) == (0.0, 1)


def test_shards_are_known_by_what_they_held_and_by_their_files(told):
    history = told(begun(0, "d0"), begun(1, "d1"), shard_done(0, "d0", {"a": "hash"}))
    assert history.digests == {0: "d0", 1: "d1"}
    assert history.shards[0]["files"] == {"a": "hash"}
    assert set(history.shards) == {0}


@PROPERTY
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=6), max_size=4))
def test_spending_and_doubt_are_those_of_a_plain_count_over_all_sessions(tmp_path_factory, sessions):
    spent, doubt = 0.0, 0
    folder = tmp_path_factory.mktemp("history")
    with Journal(folder / "journal") as journal:
        for session in sessions:
            used = set()
            for number, answered, over in session:
                if number in used:
                    continue
                used.add(number)
                journal.append(sent(KEYS[number], 0, 1.0))
                if answered:
                    journal.append(reply(KEYS[number], 0, 0.1, ""), b"x")
                if over:
                    journal.append(ended(KEYS[number], 0, 0.25))
                spent += 0.25 if over else 1.0
                doubt += not over and not answered
    history = History.of(folder / "journal")
    assert (history.spent, history.in_doubt) == (spent, doubt)
