"""Which outcomes are tried again and when, against corpora of what servers send; and that no secret is shown."""

from __future__ import annotations

import json
import math
import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nscore._sending.retry import Outcome, Retries, redact, redact_bytes, retry_after, verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOME = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"Retry-After": "2.5"}, 2.5),
        ({"RETRY-AFTER": " 4 "}, 4),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9),
        ({"retry-after": format_datetime(NOON + timedelta(seconds=90), usegmt=True)}, 90),
        ({"retry-after": "Thu, 01 Jan 2026 13:00:10 +0100"}, 10),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:10 -0000"}, 10),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "1000000000"}, 1e9),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after": "inf"}, math.inf),
        *(
            ({"retry-after": text}, None)
            for text in ("", "nan", "-1", "-inf", "soon", "3 s", "Thu, 99 Foo 2026", "Thu, 01 Jan 99999 12:00:00 GMT")
        ),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:10 +9999999999999"}, None),
        ({"retry-after": "9" * 5000}, math.inf),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers, expected):
    assert retry_after(headers, NOON) == expected


@SOME
@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ (Jan|Feb) \d+ \d+:\d+:\d+ ([+-]\d+|GMT|[A-Z]+)", fullmatch=True))
def test_retry_after_is_a_time_or_nothing_whatever_is_sent(text):
    for name in ("retry-after", "retry-after-ms"):
        seconds = retry_after({name: text}, NOON)
        assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("expected", "statuses"),
    [
        ("ok", [200, 201, 204, 299]),
        ("again", [408, 409, 425, 429, 500, 502, 503, 504, 524, 529, 599]),
        ("stop", [401, 402, 403, 404]),
        ("final", [0, 100, 199, 300, 301, 304, 307, 400, 405, 410, 413, 415, 418, 422, 431, 451, 600, 999]),
    ],
)
def test_each_status_has_its_verdict(expected, statuses):
    hostile = (b"", b"{}", b"null", b"[" * 10_000, b'{"error": {"code": "insufficient_quota"')
    assert {verdict(status, body) for status in statuses for body in hostile} == {expected}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, "stop"),
        ({"code": None, "type": "insufficient_quota"}, "stop"),
        ({"code": "billing_hard_limit_reached"}, "stop"),
        ({"type": "billing_error"}, "stop"),
        ({"code": "rate_limit_exceeded", "type": "tokens", "message": "see billing"}, "again"),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, "again"),
        ({"code": ["insufficient_quota"]}, "again"),
        ({}, "again"),
        ("insufficient_quota", "again"),
        (None, "again"),
    ],
)
def test_a_429_for_want_of_money_ends_the_run_and_any_other_does_not(error, expected):
    assert verdict(429, json.dumps({"error": error}).encode()) == expected


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"[]", b"7", b""])
def test_a_hostile_body_of_a_429_is_just_a_429(body):
    assert verdict(429, body) == "again"


@SOME
@given(st.integers(0, 6), st.none() | st.floats(0, 120), st.integers(0, 10**6))
def test_the_wait_is_full_jitter_on_top_of_the_floor(attempt, floor_s, seed):
    wait_s = Retries().wait(attempt, floor_s, random.Random(seed))
    assert (floor_s or 0) <= wait_s <= (floor_s or 0) + min(30, 0.5 * 2**attempt)


def test_the_jitter_fills_the_whole_of_its_range():
    rng = random.Random(0)
    waits = [Retries().wait(3, None, rng) for _ in range(2000)]
    assert min(waits) < 0.01
    assert max(waits) > 3.99
    assert sum(waits) / 2000 == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("attempt", "floor_s"), [(7, None), (8, 1.0), (10**6, None), (0, 120.1), (0, 1e9), (0, math.inf), (0, math.nan)]
)
def test_it_is_given_up_when_the_attempts_are_used_or_the_server_asks_for_too_long(attempt, floor_s):
    assert Retries().wait(attempt, floor_s, random.Random(0)) is None


def test_the_backoff_ends_its_doubling_however_many_attempts_there_are():
    retries = Retries(attempts=10**7, base_s=0.5, longest_backoff_s=30)
    assert 0 <= retries.wait(10**6, None, random.Random(0)) <= 30
    assert Retries(attempts=1).wait(0, None, random.Random(0)) is None


def test_an_outcome_says_only_what_happened():
    assert Outcome("timeout") == Outcome("timeout", None, None, "")


KEY = "canary-7f3a9c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing to hide", "nothing to hide"),
        (f"{KEY}{KEY} and {KEY}", "****** and ***"),
        ("Authorization: Bearer abc.DEF_1-2~3+/=", "Authorization: Bearer ***"),
        ("authorization: bearer x", "authorization: bearer ***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': 'Bearer ***'}"),
        ("Basic dXNlcjpwYXNz.", "Basic ***."),
        ("Incorrect API key provided: sk-abcd****************wxyz.", "Incorrect API key provided: ***."),
        ("sk-proj-a1b2c3d4e5f6 and sk-ant-api03-a1b2", "*** and ***"),
        ("hf_abcdefghijkl, gsk_abcdefghijkl", "***, ***"),
        ("AIza" + "Sy0123456789abcdefghijkl", "***"),
        ("http://user:p%40ss@host:8000/v1", "http://***@host:8000/v1"),
        ("https://user@host/v1?a=b@c", "https://***@host/v1?a=b@c"),
        ("http://u:p@ss@host", "http://***@host"),
        ("http://host/v1?api_key=abc&x=1", "http://host/v1?api_key=***&x=1"),
        ("x-api-key: abcdef", "x-api-key: ***"),
        ("{'api-key': 'abcdef', 'b': 1}", "{'api-key': '***', 'b': 1}"),
        ("a task-oriented, risk-adjusted approach", "a task-oriented, risk-adjusted approach"),
        ("a mail to me@example.com", "a mail to me@example.com"),
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(text, expected):
    assert redact(text, [KEY]) == expected
    assert redact(expected, [KEY]) == expected


def test_a_secret_is_found_as_a_url_and_as_json_write_it():
    secret = 'p/ss"wörd&1'  # noqa: S105 -- a canary
    for written in (secret, "p%2Fss%22w%C3%B6rd%261", json.dumps({"k": secret}), f"{secret}x"):
        assert "rd&1" not in redact(written, [secret])
        assert "***" in redact(written, [secret])


def test_secrets_within_each_other_and_short_ones():
    assert redact("abcdef abcd abc", ["abcd", "abcdef", "abc", ""]) == "*** *** abc"


@SOME
@given(st.lists(st.text("abcXY12-/%", min_size=4, max_size=12), max_size=4), st.data())
def test_no_secret_is_left_in_any_text(secrets, data):
    pieces = st.sampled_from([*secrets, " ", "Bearer ", "://", "@", "a", "-", "b1"]) | st.text(max_size=3)
    text = "".join(data.draw(st.lists(pieces, max_size=12)))
    shown = redact(text, secrets)
    assert not any(secret in shown for secret in secrets)


# Replies, before they are stored.

PASSWORD = 'pä/ss "w<rd>&+1'  # noqa: S105 -- a canary


@pytest.mark.parametrize(
    "written",
    [
        lambda secret: secret,
        lambda secret: quote(secret, safe=""),
        lambda secret: quote(secret).lower(),
        lambda secret: quote(quote(quote(secret))),
        lambda secret: quote(quote(quote(secret, safe="/+"), safe="/"), safe=""),
        lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
        lambda secret: json.dumps(secret)[1:-1],
        lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
        lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
        lambda secret: json.dumps(json.dumps(json.dumps(secret)[1:-1])[1:-1])[1:-1],
        lambda secret: "".join(f"\\u{ord(c):04X}" for c in secret),
        lambda secret: secret[:3] + "".join(f"\\u{ord(c):04x}" for c in secret[3:]),
    ],
)
@pytest.mark.parametrize("secret", [KEY, PASSWORD])
def test_a_secret_in_a_reply_is_blotted_out_however_it_is_written(secret, written):
    raw = f'{{"a": 1.50, "error": "no {written(secret)}!"}}'.encode()
    blotted = redact_bytes(raw, ["another-key", secret])
    assert blotted in {b'{"a": 1.50, "error": "no ***!"}', b'{"a": 1.50, "error": "***"}'}
    assert redact(raw.decode(), [secret]) == '{"a": 1.50, "error": "no ***!"}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b'{"text": "the words EMPTY, test, password and abcdefghijklmno are kept; 50%20off, \\u0041"}',
        b'{"text": "api_key=abcdefgh Bearer abc.def sk-1234567890"}',
    ],
)
def test_a_reply_without_a_secret_is_the_same_object(raw):
    assert redact_bytes(raw, ["EMPTY", "test", "password", "abcdefghijklmno", "key-1", "", KEY]) is raw


def test_a_secret_of_letters_alone_counts_when_nobody_writes_it_by_chance():
    assert redact_bytes(b"abcdefghijklmnop", ["abcdefghijklmnop"]) == b"***"
    assert redact_bytes(b"abcdefg1", ["abcdefg1"]) == b"***"


@pytest.mark.parametrize(
    ("raw", "secret", "expected"),
    [
        ('{"logprob": -0.12345678, "n": 1}', "12345678", '{"logprob": null, "n": 1}'),
        (r'{"a": "x\n12345678", "b": "y 12345678"}', "n12345678", r'{"a": "***", "b": "y 12345678"}'),
        (r'{"a": "\u00e9ab12345"}', "e9ab12345", '{"a": "***"}'),
        ('{"a":[{"b":12}]}', '"a":[{"b":12', '"***"'),
        ('{"a": "12345678123456781234"}', "12345678", '{"a": "******1234"}'),
        ("********" * 4, "*" * 8, "*" * 7),
        ("[" * 10**5 + "12345678", "12345678", "[" * 10**5 + "***"),
        ("8 of " + "\\" * 8 * 8, "\\" * 8, "8 of ************"),
        ("%ED%A0%80%201234567", "\ud800 1234567", "***"),
    ],
)
def test_json_is_json_after_it(raw, secret, expected):
    assert redact_bytes(raw.encode(), [secret]) == expected.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text('nu0019e-5\\/"'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@SOME
@given(st.lists(st.text('nu0019e-5\\/"%*', min_size=1, max_size=18), max_size=3), JSON, st.booleans(), st.data())
def test_no_reply_holds_a_secret_and_json_stays_json(secrets, value, ascii_only, data):
    hidden = st.sampled_from([*secrets, ""])
    whole = [value, data.draw(hidden) + data.draw(st.text(max_size=2)) + data.draw(hidden), data.draw(hidden)]
    raw = json.dumps(whole, ensure_ascii=ascii_only).encode(errors="replace")
    blotted = redact_bytes(raw, secrets)
    json.loads(blotted)
    counting = [s for s in secrets if len(s) >= 8 and not s.isalpha()]
    for form in (form for s in counting for form in (s, quote(s, safe=""), json.dumps(s)[1:-1])):
        assert form.encode() not in blotted
    if not counting:
        assert blotted is raw


@SOME
@given(st.lists(st.text(min_size=8, max_size=12), max_size=2), st.lists(st.binary(max_size=6), max_size=6), st.data())
def test_no_bytes_hold_a_secret_whatever_they_are(secrets, pieces, data):
    mixed = data.draw(st.permutations([*pieces, *(s.encode(errors="replace") for s in secrets * 2)]))
    blotted = redact_bytes(b"".join(mixed), secrets)
    assert not [s for s in secrets if not s.isalpha() and s.encode(errors="surrogatepass") in blotted]


def test_looking_for_secrets_in_a_large_reply_takes_no_time():
    token = {"token": "50% \u00e9\n", "logprob": -0.25, "bytes": [53, 48]}
    raw = json.dumps({"content": [token] * 30_000}).encode()
    begun = time.perf_counter()
    assert redact_bytes(raw, [KEY, PASSWORD]) is raw
    assert time.perf_counter() - begun < 0.5  # 2 MB
