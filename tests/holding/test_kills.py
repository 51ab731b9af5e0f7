"""A process that is killed, whenever that is, loses no reply, asks none again, and comes to the same tables."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from holding.crash import Bench, Zygote, await_moment, same, serve, stored, tables_of

import nscore as ns


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    with Zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


def killed_again_and_again(zygote, bench, kills, seed):
    """Runs that are killed at random instants until they come to their end; gives what that came to."""
    rng = random.Random(seed)
    started = time.monotonic()
    whole = bench.folder / f"whole{seed}"
    assert zygote.run(bench.commands(whole))[0] == 0
    length_s = time.monotonic() - started
    expected, distinct = tables_of(whole), set(bench.asked_keys())
    done = runs = lost = again = doubt = extra = in_work = 0
    while done < kills:
        run = bench.folder / f"run{seed}_{runs}"
        flags = ["--max-cost", "1"] if runs % 3 == 2 else []
        runs += 1
        bench.server.forget()
        known, before = set(), 0
        while True:
            pid = zygote.start(bench.commands(run, *flags))
            if done < kills:
                await_moment(rng, bench, length_s, left=max(1, len(distinct) - len(known)))
                in_work += bench.server.in_flight > 0
                with contextlib.suppress(ProcessLookupError):  # it was done before
                    os.kill(pid, signal.SIGKILL)
            code = zygote.end(pid)
            bench.settle()
            if not code:
                break
            assert code == -signal.SIGKILL, zygote.log.read_text()
            done += 1
            there = stored(run)
            lost += len(known - there)
            asked = [key.hex() for key in bench.asked_keys()[before:]]
            again += sum(key in known for key in asked)
            known, before = there, len(bench.asked_keys())
        again += sum(key.hex() in known for key in bench.asked_keys()[before:])
        billed = bench.billed()
        extra += billed - len(distinct)
        told = ns.describe(run).in_doubt
        assert billed - len(distinct) <= told
        doubt += told
        assert same(run, expected)
        assert not ns.verify(run).problems
    return {
        "kills": done,
        "with requests on their way": in_work,
        "runs": runs,
        "replies lost": lost,
        "replies asked again": again,
        "calls billed beyond one for each request": extra,
        "calls in doubt as reported": doubt,
    }


def check(figures):
    print("\n", figures)
    assert figures["replies lost"] == figures["replies asked again"] == 0
    assert figures["calls billed beyond one for each request"] <= figures["calls in doubt as reported"]


def test_kills_at_random_instants_lose_nothing_and_what_may_be_billed_twice_is_reported(zygote, tmp_path):
    with serve() as server:
        check(killed_again_and_again(zygote, Bench.of(server, tmp_path), 6, seed=1))


@pytest.mark.full
def test_a_thousand_kills_at_random_instants(zygote, tmp_path):
    with serve() as server:
        check(killed_again_and_again(zygote, Bench.of(server, tmp_path, neurons=12), 1000, seed=2))


def sites(calls):
    """Where a process can be killed: before and after each call, and in the middle of each write."""
    for at, call in enumerate(calls):
        for when in ("before", "after", "half") if call == "write" else ("before", "after"):
            yield at, call, when


def killed_at(zygote, bench, chosen, expected, *, twice=False):
    """Kills a run at each of the chosen sites, once more while it goes on, and lets it come to its end."""
    for number, (at, call, when) in enumerate(chosen):
        run = bench.folder / f"at{number}"
        commands = bench.commands(run)
        code, _ = zygote.run(commands, at=at, when=when)
        # threads take turns as they like: now and then there is no call of this number
        assert code in (0, -signal.SIGKILL), zygote.log.read_text()
        if twice:
            zygote.run(commands, at=at // 2, when="after")
        there = stored(run)
        bench.settle()
        bench.server.forget()
        assert zygote.run(commands)[0] == 0, zygote.log.read_text()
        assert there.isdisjoint(key.hex() for key in bench.asked_keys()), (at, call, when)
        assert same(run, expected), (at, call, when)
        assert not ns.verify(run).problems, (at, call, when)


@pytest.fixture
def bench(tmp_path):
    with serve() as server:
        yield Bench.of(server, tmp_path)


def uninterrupted(zygote, bench):
    code, calls = zygote.run(bench.commands(bench.folder / "whole"))
    assert code == 0, zygote.log.read_text()
    return tables_of(bench.folder / "whole"), calls


def test_a_kill_at_a_call_of_the_disk_changes_no_byte_of_the_tables(zygote, bench):
    expected, calls = uninterrupted(zygote, bench)
    assert {"open", "write", "fsync", "truncate", "replace", "mkdir"} == set(calls)
    rng = random.Random(3)
    every = list(sites(calls))
    renames = [site for site in every if site[1] == "replace"]
    killed_at(zygote, bench, rng.sample(every, 4) + rng.sample(renames, 2), expected)
    killed_at(zygote, bench, rng.sample(every, 1), expected, twice=True)


@pytest.mark.full
def test_a_kill_at_every_call_of_the_disk_changes_no_byte_of_the_tables(zygote, bench):
    expected, calls = uninterrupted(zygote, bench)
    every = list(sites(calls))
    killed_at(zygote, bench, every, expected)
    again = random.Random(4).sample(every, len(every) // 4)
    killed_at(zygote, bench, again, expected, twice=True)
    counts = {call: calls.count(call) for call in sorted(set(calls))}
    print(f"\n {len(every)} sites of {len(calls)} calls {counts}, {len(again)} of them twice: all tables the same")
