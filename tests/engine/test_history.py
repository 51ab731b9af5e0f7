"""What the frames of a journal mean: replies are found again, and what may have been billed is counted."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation_tables import PROPERTY

from nscore._sending.history import (
    History,
    Written,
    begun,
    ended,
    inputs,
    reply,
    sent,
    settings,
    shard_done,
    unanswered,
    unsent,
)
from nscore._sending.journal import Journal, JournalReader

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
    assert (history.replies, history.sent, history.spent, history.in_doubt) == (0, 0, 0.0, 0)
    assert (history.settings, history.inputs, history.planned, history.written) == (None, None, {}, {})
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
    history = told(sent(KEYS[0], 0, 0.5), sent(KEYS[1], 0, 0.25), ended(KEYS[1], 0, 0.125, 0.125))
    assert (history.spent, history.in_doubt) == (0.625, 1)


def test_a_call_of_a_session_that_was_killed_is_not_forgotten_when_the_next_ends_its_own(told):
    history = told(
        sent(KEYS[0], 0, 0.5),
        sent(KEYS[0], 0, 0.5),
        (reply(KEYS[0], 0, 0.1, ""), b"x"),
        ended(KEYS[0], 0, 0.125, 0.125),
    )
    assert (history.spent, history.in_doubt) == (0.625, 1)


def test_a_reply_that_was_not_paid_for_yet_counts_at_its_most_and_is_in_no_doubt(told):
    history = told(sent(KEYS[0], 0, 0.5), (reply(KEYS[0], 0, 0.1, ""), b"x"))
    assert (history.spent, history.in_doubt) == (0.5, 0)


def test_prices_that_nobody_knew_cost_nothing(told):
    history = told(sent(KEYS[0], 0, None), ended(KEYS[0], 0, None, None), sent(KEYS[1], 0, None))
    assert (history.spent, history.in_doubt) == (0.0, 1)


def test_what_was_about_to_leave_and_did_not_was_not_sent(told):
    history = told(sent(KEYS[0], 0, 0.5), unsent(KEYS[0], 0), sent(KEYS[0], 0, 0.5))
    assert (history.sent, history.spent, history.in_doubt) == (1, 0.5, 1)


def test_the_last_settings_and_inputs_are_those_of_the_run(told):
    history = told(settings({"format": 1}), inputs({"requests": 3}), inputs({"requests": 9}))
    assert (history.settings, history.inputs) == ({"format": 1}, {"requests": 9})


def test_what_a_request_cost_and_how_it_was_given_up_is_known(told):
    history = told(
        sent(KEYS[0], 0, 1.0),
        ended(KEYS[0], 0, 0.5, 0.5, http=500, error="down"),
        unanswered(KEYS[0], status="http_error", http_status=500, error="down", attempts=1, price=0.5),
        (reply(KEYS[1], 2, 0.1, "at"), b"raw"),
        unanswered(KEYS[1], status="not_run"),
        (reply(KEYS[2], 0, 0.1, "at"), b"old"),
        ended(KEYS[2], 0, 0.25, 0.75),
    )
    failed, given_up, answered = (history.past(key) for key in KEYS[:3])
    assert (failed.raw, failed.attempts, failed.price, failed.paid) == (None, 1, 0.5, True)
    assert failed.unanswered["http_status"] == 500
    assert (given_up.raw, given_up.attempts, given_up.paid) == (b"raw", 3, False)
    assert given_up.unanswered == {"status": "not_run"}
    assert (answered.raw, answered.price, answered.paid, answered.unanswered) == (b"old", 0.75, True, None)


def test_a_reply_after_it_was_given_up_is_what_counts(told):
    history = told(unanswered(KEYS[0], status="http_error"), (reply(KEYS[0], 0, 0.1, ""), b"x"))
    assert history.past(KEYS[0]).unanswered is None


def test_shards_are_known_by_their_rows_and_by_their_files(told):
    history = told(
        (begun(0, "d0", 3), b"rows of 0"),
        begun(0, "d0", None),
        (begun(1, "d1", None), b"rows of 1"),
        shard_done(0, "d0", {"a": "old"}, final=False),
        shard_done(0, "d0", {"a": "hash"}, final=True),
    )
    assert [(p.digest, p.requests) for p in history.planned.values()] == [("d0", None), ("d1", None)]
    assert [history.rows(index) for index in (0, 1)] == [b"rows of 0", b"rows of 1"]
    assert history.written == {0: Written({"a": "hash"}, final=True)}


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
                    journal.append(ended(KEYS[number], 0, 0.25, 0.25))
                spent += 0.25 if over else 1.0
                doubt += not over and not answered
    history = History.of(folder / "journal")
    assert (history.spent, history.in_doubt) == (spent, doubt)


def journals(folder, **each):
    """Journals of those names, each with frames; gives their folders."""
    for name, frames in each.items():
        with Journal(folder / name) as journal:
            for frame in frames:
                journal.append(*(frame if isinstance(frame, tuple) else (frame, b"")))
    return [folder / name for name in each]


LATE = "2026-01-01T00:00:00.000+00:00"
GIVEN_UP = unanswered(KEYS[1], status="http_error", http_status=500, error="no", attempts=1, price=None)


@pytest.mark.parametrize("first", ["run", "shard"])
def test_of_several_journals_the_last_attempt_counts_whichever_is_read_first(tmp_path, first):
    early = [sent(KEYS[0], 0, 2.0), (reply(KEYS[0], 0, 0.5, LATE), b"early"), ended(KEYS[0], 0, 1.0, 1.0), GIVEN_UP]
    late = [sent(KEYS[0], 1, 2.0), (reply(KEYS[0], 1, 0.5, LATE), b"late"), (reply(KEYS[1], 1, 0.5, LATE), b"at last")]
    each = {"run": early, "shard": late} if first == "run" else {"run": late, "shard": early}
    run, shard = journals(tmp_path, **each)
    history = History(JournalReader(run), [JournalReader(shard)])
    past = history.past(KEYS[0])
    assert (past.raw, past.attempts, past.price, past.paid) == (b"late", 2, 1.0, False)
    past = history.past(KEYS[1])
    assert (past.raw, past.attempts, past.unanswered) == (b"at last", 2, None)
    assert (history.sent, history.replies, history.spent) == (2, 3, 3.0)
    at = {run: 1.0, shard: 2.0} if first == "run" else {run: 2.0, shard: 1.0}
    assert {folder: history.spent_in(folder) for folder in (run, shard, tmp_path)} == at | {tmp_path: 0.0}


def test_a_shards_journal_tells_nothing_of_the_run(tmp_path):
    run, shard = journals(tmp_path, run=[inputs({"requests": 1})], shard=[inputs({"requests": 2})])
    assert History(JournalReader(run), [JournalReader(shard)]).inputs == History.of(run).inputs


def test_an_excerpt_tells_of_its_requests_and_its_sums_do_not_count(tmp_path):
    spent = [sent(KEYS[0], 0, 2.0), (reply(KEYS[0], 0, 0.5, LATE), b"there"), ended(KEYS[0], 0, 1.0, 1.0), GIVEN_UP]
    mine, other = journals(tmp_path, mine=[], other=spent)
    whole = History.of(other)
    excerpts = whole.excerpts_of([KEYS[0], KEYS[2]], without=mine)
    assert [excerpt.folder for excerpt in excerpts] == [other]
    assert whole.excerpts_of(KEYS, without=other) == ()
    history = History(JournalReader(mine), excerpts=excerpts)
    assert history.past(KEYS[0]) == whole.past(KEYS[0])
    assert history.past(KEYS[1]) is None
    assert (history.sent, history.replies, history.spent) == (0, 0, 0.0)
    assert history.folders == [mine, other]
