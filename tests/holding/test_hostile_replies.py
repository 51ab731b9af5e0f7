"""Hostile replies: whatever bytes a model server sends end as predictions or as a status.

Never as an uncaught exception, a stored number that is not finite, a 0 that the model did not write, or a long wait.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from random import Random

import pytest
from hostile_corpus import corpus, mutated
from hostile_replies import CHANNELS, VALUES, bear
from hypothesis import given, settings
from hypothesis import strategies as st

from nscore.records import OK

# So much of the corpus in the ordinary suite, and in the long form: every so manyth, others for each channel. Those of
# chats on other backends are nearly the same.
STEP, FULL_STEP = 41, 2
SECONDS = 180
channels = pytest.mark.parametrize("channel", CHANNELS, ids=[c.name for c in CHANNELS])


@channels
def test_a_true_reply_is_read_whole(channel):
    settled, _ = bear(channel, channel.raw)
    assert settled.fared.status == OK
    predicted = [v for p in settled.predictions for v in p.predicted]
    assert all(predicted)
    if not channel.can.logprobs:
        assert predicted == [float(v) for row in VALUES for v in row]
    else:
        assert all(m is not None for p in settled.predictions for m in p.digit_mass)


def some_of(channel, step):
    return islice(corpus(channel), CHANNELS.index(channel) % step, None, step)


def met(channel, cases):
    """How the replies of a corpus end, and how many of them hold no 0."""
    ends, without_zeros = Counter(), 0
    for name, raw in cases:
        try:
            settled, zeros = bear(channel, raw())
        except BaseException as error:
            error.add_note(f"{channel.name}: {name}")
            raise
        ends[settled.fared.status] += 1
        without_zeros += zeros
    return ends, without_zeros


@channels
def test_a_hostile_reply_ends_as_predictions_or_as_a_status(channel):
    ends, without_zeros = met(channel, some_of(channel, STEP))
    assert ends[OK] > 2
    assert ends.total() - ends[OK] > 10
    assert without_zeros > ends.total() / 2


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(CHANNELS), st.randoms(use_true_random=False))
def test_a_reply_changed_at_random_ends_as_predictions_or_as_a_status(channel, rng):
    bear(channel, mutated(channel, rng))


@pytest.mark.full
@channels
def test_very_many_hostile_replies_end_as_predictions_or_as_a_status(channel, capsys):
    ends, without_zeros = met(channel, some_of(channel, FULL_STEP))
    with capsys.disabled():
        print(f"\n{channel.name}: {ends.total()} cases, {without_zeros} without a 0, {dict(ends)}")


@pytest.mark.full
def test_very_many_random_changes_end_as_predictions_or_as_a_status(capsys):
    ends, without_zeros, seed = Counter(), 0, 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        channel = CHANNELS[seed % len(CHANNELS)]
        name = f"seed {seed}"
        more, zeros = met(channel, [(name, lambda c=channel, s=seed: mutated(c, Random(s)))])
        ends += more
        without_zeros += zeros
        seed += 1
    with capsys.disabled():
        print(f"\n{ends.total()} random changes, {without_zeros} without a 0, {dict(ends)}")
    assert ends.total() > 10_000
