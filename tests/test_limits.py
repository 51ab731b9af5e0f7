"""What holds a run back, in virtual time: against a server with a hidden limit, one that is out, and a full purse."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virtual_clock import DeadlockError, run_virtual

from nscore._sending.limits import Breaker, Concurrency, Pace, RealClock, Spending
from nscore._sending.retry import Retries
from nscore.errors import LimitError, OutageError

SOME = settings(max_examples=60, deadline=None)
CLOCK = RealClock()  # the loop's own, which is virtual here


def now():
    return asyncio.get_running_loop().time()


# --- the loop itself


def test_an_hour_of_virtual_time_is_an_hour_by_its_clock():
    async def main():
        start = now()
        await asyncio.gather(*(CLOCK.sleep(s) for s in (3600, 60, 0)))
        return CLOCK.now() - start

    assert run_virtual(main()) == 3600


@pytest.mark.parametrize("patience", [0.01])
def test_a_wait_for_what_never_comes_is_an_error(patience, monkeypatch):
    monkeypatch.setattr("virtual_clock.PATIENCE_S", patience)

    async def main():
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run_virtual(main())


# --- Concurrency


class Crowded:
    """A server that refuses what comes beyond a hidden limit, and counts."""

    def __init__(self, hidden, refusal_s, seed=0):
        self.hidden, self.refusal_s, self.rng = hidden, refusal_s, random.Random(seed)
        self.inside = self.asked = self.refused = 0

    async def ask(self):
        self.inside += 1
        self.asked += 1
        busy = self.inside > self.hidden
        self.refused += busy
        mean_s = self.refusal_s if busy else 1.0
        await asyncio.sleep(self.rng.expovariate(1 / mean_s))
        self.inside -= 1
        return "busy" if busy else "ok"


async def crowd(gate, server, *, until_s, warm_s, workers=400):
    """The mean in flight over the requests' whole time but the first `warm_s`."""
    start = now()

    async def work():
        while now() < start + until_s:
            slot = await gate.enter()
            outcome = await server.ask()
            gate.leave(outcome, slot)
            if outcome == "busy":
                await asyncio.sleep(server.rng.random())

    async def look():
        await asyncio.sleep(warm_s)
        server.asked = server.refused = 0
        seen = []
        while now() < start + until_s:
            seen.append(gate.in_flight)
            await asyncio.sleep(0.0371)
        return sum(seen) / len(seen)

    mean, *_ = await asyncio.gather(look(), *(work() for _ in range(workers)))
    return mean


@pytest.mark.parametrize("refusal_s", [0.02, 1.0], ids=["refused at once", "refused late"])
@pytest.mark.parametrize(("hidden", "until_s", "warm_s"), [(10, 500, 60), (50, 200, 40), (200, 120, 30)])
def test_concurrency_stays_within_a_tenth_of_a_hidden_limit(hidden, until_s, warm_s, refusal_s):
    async def main():
        server = Crowded(hidden, refusal_s)
        mean = await crowd(Concurrency(512), server, until_s=until_s, warm_s=warm_s)
        return mean, server.refused / server.asked

    mean, refused = run_virtual(main())
    assert 0.9 * hidden <= mean <= 1.1 * hidden
    assert refused < 0.07


class Moody:
    """A server that says it is busy now and then, however few ask."""

    def __init__(self, share):
        self.share, self.rng = share, random.Random(0)
        self.asked = self.refused = 0

    async def ask(self):
        busy = self.rng.random() < self.share
        await asyncio.sleep(0.02 if busy else self.rng.expovariate(1))
        return "busy" if busy else "ok"


@pytest.mark.parametrize("most", [16, 64, 400])
def test_refusals_now_and_then_that_have_nothing_to_do_with_load_hold_nothing_back(most):
    mean = run_virtual(crowd(Concurrency(most), Moody(0.01), until_s=300, warm_s=150, workers=most + 50))
    assert mean >= 0.9 * most


def test_concurrency_follows_a_hidden_limit_that_moves():
    async def main():
        gate, server = Concurrency(512), Crowded(50, 0.02)
        await crowd(gate, server, until_s=60, warm_s=10)
        server.hidden = 10
        fewer = await crowd(gate, server, until_s=200, warm_s=40)
        server.hidden = 50
        return fewer, await crowd(gate, server, until_s=300, warm_s=150)

    fewer, more = run_virtual(main())
    assert 9 <= fewer <= 11
    assert 45 <= more <= 55


async def full(gate):
    return [await gate.enter() for _ in range(gate.limit - gate.in_flight)]


def test_concurrency_doubles_each_round_trip_until_the_first_busy_and_not_beyond_most():
    async def main():
        gate, limits = Concurrency(60, start=8), []
        waiting = [asyncio.ensure_future(gate.enter()) for _ in range(500)]
        await asyncio.sleep(0)
        for _ in range(5):
            limits.append(gate.limit)
            inside, waiting = waiting[: gate.in_flight], waiting[gate.in_flight :]
            for place in inside:
                gate.leave("ok", place.result())
            await asyncio.sleep(0)
        for place in waiting:
            place.cancel()
        return limits

    assert run_virtual(main()) == [8, 16, 32, 60, 60]


def test_concurrency_does_not_grow_when_it_is_not_used():
    async def main():
        gate = Concurrency(100, start=8)
        for _ in range(1000):
            gate.leave("ok", await gate.enter())
        return gate.limit

    assert run_virtual(main()) == 8


def test_concurrency_is_lowered_once_a_round_trip_and_not_below_one():
    async def main():
        gate, limits = Concurrency(100, start=100), []
        for _ in range(60):
            for slot in reversed(await full(gate)):
                gate.leave("busy", slot)
            limits.append(gate.limit)
        return limits

    limits = run_virtual(main())
    assert limits[:3] == [90, 81, 72]
    assert limits[-1] == 1


def test_other_outcomes_leave_the_limit_alone():
    async def main():
        gate = Concurrency(100, start=20)
        for slot in await full(gate):
            gate.leave("other", slot)
        return gate.limit, gate.in_flight

    assert run_virtual(main()) == (20, 0)


def test_the_limit_is_at_most_halved_by_a_lone_request():
    async def main():
        gate = Concurrency(100, start=100)
        gate.leave("busy", await gate.enter())
        return gate.limit

    assert run_virtual(main()) == 50


@SOME
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 60))
def test_no_place_is_lost_by_cancellation(seed, start, n):
    rng = random.Random(seed)

    async def main():
        gate, inside = Concurrency(8, start=start), 0

        async def work():
            nonlocal inside
            slot = await gate.enter()
            inside += 1
            assert slot.level <= 8
            assert inside <= gate.in_flight
            try:
                await asyncio.sleep(rng.choice([0, 0, 1, 2]))
            finally:
                inside -= 1
                gate.leave(rng.choice(["ok", "busy", "other"]), slot)

        tasks = [asyncio.ensure_future(work()) for _ in range(n)]
        while not all(task.done() for task in tasks):
            rng.choice(tasks).cancel()
            await asyncio.sleep(rng.choice([0, 0, 1]))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.in_flight == inside == 0
        assert all(t.cancelled() or t.exception() is None for t in tasks)
        await asyncio.wait_for(full(gate), 1)

    run_virtual(main())


def test_a_place_given_to_one_who_is_cancelled_in_the_same_breath_goes_to_the_next():
    async def main():
        gate = Concurrency(1)
        slot = await gate.enter()
        first, second = (asyncio.ensure_future(gate.enter()) for _ in range(2))
        await asyncio.sleep(0)
        gate.leave("ok", slot)
        first.cancel()
        await asyncio.wait_for(second, 1)
        return first.cancelled(), gate.in_flight

    assert run_virtual(main()) == (True, 1)


def test_thousands_wait_in_the_order_of_their_coming():
    async def main():
        gate, order = Concurrency(4, start=4), []

        async def work(i):
            slot = await gate.enter()
            order.append(i)
            await asyncio.sleep(1)
            gate.leave("ok", slot)

        tasks = [asyncio.ensure_future(work(i)) for i in range(10_000)]
        await asyncio.sleep(1.5)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    order = run_virtual(main())
    assert order == sorted(order)
    assert len(order) == 5_000 + 4  # 1, 3, 5, 7 were inside already


# --- Pace


def heaviest(times, *, window_s=60.0):
    """The largest sum in any closed window, from (time, amount)."""
    inside, total, most = deque(), 0, 0
    for time, amount in sorted(times):
        inside.append((time, amount))
        total += amount
        while inside[0][0] < time - window_s:
            total -= inside.popleft()[1]
        most = max(most, total)
    return most


async def paced(pace, amounts):
    sent = []
    for amount in amounts:
        await pace.take(amount)
        sent.append((now(), amount))
    return sent


@SOME
@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 0, 0.3, 5, 59.9, 60, 61, 500]), st.booleans())),
)
@example(10, [(1, 0, False), (1, 0, False)])
@example(3, [(1 / 3, 0, False)] * 5 + [(1, 0, True), (1, 0, False)])
def test_no_window_of_a_minute_lets_more_through(limit, requests):
    async def main():
        pace, sent, tasks = Pace(limit, clock=CLOCK), [], []

        async def one(amount):
            await pace.take(amount)
            sent.append((now(), amount))

        for share, idle_s, cancel in requests:
            tasks.append(asyncio.ensure_future(one(math.floor(share * limit))))
            await asyncio.sleep(idle_s)
            if cancel:
                tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or not task.exception() for task in tasks)
        return sent, sum(not task.cancelled() for task in tasks)

    sent, finished = run_virtual(main())
    assert len(sent) == finished
    assert heaviest(sent) <= limit


@pytest.mark.parametrize("limit", [20, 60, 600, 5000])
def test_pace_reaches_its_limit_and_holds_it_at_a_server_behind_a_jittery_network(limit):
    sent = run_virtual(paced(Pace(limit, clock=CLOCK), [1] * (3 * limit)))
    took_s = sent[-1][0] - sent[0][0]
    assert (len(sent) - 1) / took_s * 60 >= 0.99 * limit
    rng = random.Random(1)
    for jitter_s in (0.1, 0.49):
        assert heaviest([(time + rng.uniform(0, jitter_s), amount) for time, amount in sent]) <= limit
    assert heaviest([(time + rng.uniform(0, 1), amount) for time, amount in sent]) <= max(1.01 * limit, limit + 1)


def test_pace_spreads_what_it_lets_through():
    sent = run_virtual(paced(Pace(600, clock=CLOCK), [1] * 1200))
    assert heaviest(sent, window_s=1.0) <= 11
    assert heaviest(sent, window_s=0.05) <= 1


def test_tokens_of_any_size_keep_the_limit_and_come_near_it():
    rng = random.Random(2)
    amounts = [rng.randint(200, 4000) for _ in range(500)]
    sent = run_virtual(paced(Pace(100_000, clock=CLOCK, what="tokens"), amounts))
    assert 0.95 * 100_000 <= heaviest(sent) <= 100_000
    assert sum(amounts) / (sent[-1][0] - sent[0][0]) * 60 >= 0.95 * 100_000


def test_a_loop_that_wakes_late_still_reaches_a_high_rate():
    class Coarse(RealClock):
        async def sleep(self, wait_s, /):
            await asyncio.sleep(math.ceil(wait_s * 1000) / 1000 + 0.001)

    sent = run_virtual(paced(Pace(60_000, clock=Coarse()), [1] * 30_000))
    assert len(sent) / (sent[-1][0] - sent[0][0]) * 60 >= 0.97 * 60_000
    assert heaviest(sent) <= 60_000


def test_a_request_larger_than_a_minute_is_an_error_and_not_a_wait():
    async def main():
        pace, start = Pace(1000, clock=CLOCK, what="tokens"), now()
        for amount in (1001, -1, math.nan, math.inf):
            with pytest.raises(LimitError, match="never fits a limit of 1000 tokens a minute"):
                await pace.take(amount)
        await pace.take(1000)
        return now() - start

    assert run_virtual(main()) == 0


@pytest.mark.parametrize("per_minute", [0, -1, math.nan, math.inf])
def test_a_limit_that_is_no_rate_is_an_error(per_minute):
    with pytest.raises(LimitError):
        Pace(per_minute, clock=CLOCK)


def test_what_was_used_beyond_the_estimate_is_waited_for_and_nothing_is_given_back():
    async def main(actual):
        pace = Pace(60, clock=CLOCK)
        await pace.take(20)
        pace.correct(20, actual)
        sent = await paced(pace, [20] * 3)
        return sent[-1][0]

    as_taken, more, less = (run_virtual(main(actual)) for actual in (20, 60, 1))
    assert less == as_taken
    assert more >= as_taken + 40


# --- Breaker


class Patchy:
    """A server that is out between two times, and counts."""

    def __init__(self, out_from_s=0.0, out_until_s=math.inf):
        self.start, self.out = now(), (out_from_s, out_until_s)
        self.sends = self.inside_while_out = self.most_inside_late = 0

    async def ask(self, failing_s=0.3):
        t = now() - self.start
        self.sends += 1
        out = self.out[0] <= t < self.out[1]
        self.inside_while_out += out
        if t > self.out[0] + 5 and out:
            self.most_inside_late = max(self.most_inside_late, self.inside_while_out)
        await asyncio.sleep(failing_s)
        self.inside_while_out -= out
        return not out


async def crew(server, breaker, requests, *, in_flight=64, retries=None):
    """(answered, given up, workers stopped by the outage), every request tried as the retries allow."""
    retries, rng, ended = retries or Retries(), random.Random(0), [0, 0, 0]
    todo = iter(range(requests))

    async def work():
        for _ in todo:
            for attempt in range(retries.attempts):
                try:
                    entry = await breaker.enter()
                except OutageError:
                    ended[2] += 1
                    return
                ok = await server.ask()
                breaker.record(entry, ok=ok)
                wait_s = retries.wait(attempt, None, rng)
                if ok or wait_s is None:
                    ended[0 if ok else 1] += 1
                    break
                await asyncio.sleep(wait_s)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    return tuple(ended)


def test_a_complete_outage_costs_few_sends_and_ends():
    async def main():
        server, start = Patchy(), now()
        answered, _, stopped = await crew(server, Breaker(clock=CLOCK), 1000)
        return answered, stopped, server.sends, now() - start, server.most_inside_late

    answered, stopped, sends, took_s, most_inside_late = run_virtual(main())
    assert answered == 0
    assert stopped == 64
    assert sends <= 150  # of 1.2 * 1000 allowed
    assert 600 <= took_s <= 620
    assert most_inside_late == 1


def test_an_outage_that_ends_is_survived_by_every_request():
    async def main():
        server, start = Patchy(2, 100), now()
        ended = await crew(server, Breaker(clock=CLOCK), 1000, retries=Retries(attempts=50))
        return ended, server.sends, now() - start

    ended, sends, took_s = run_virtual(main())
    assert ended == (1000, 0, 0)
    assert sends <= 1200
    assert took_s <= 100 + 60


def test_probes_come_after_doubling_pauses():
    async def main():
        breaker, start, times = Breaker(after=1, longest_pause_s=8, give_up_s=40, clock=CLOCK), now(), []
        breaker.record(await breaker.enter(), ok=False)
        for _ in range(7):
            entry = await breaker.enter()
            times.append(now() - start)
            breaker.record(entry, ok=False)
        with pytest.raises(OutageError, match="has not answered for 40 s"):
            await breaker.enter()
        return times, now() - start

    assert run_virtual(main()) == ([1, 3, 7, 15, 23, 31, 39], 40)


def test_scattered_failures_do_not_open_the_breaker():
    async def main():
        breaker, start = Breaker(after=3, clock=CLOCK), now()
        for ok in [False, False, True] * 50:
            breaker.record(await breaker.enter(), ok=ok)
        return now() - start

    assert run_virtual(main()) == 0


def test_a_success_of_an_earlier_request_lets_the_waiters_go_at_once():
    async def main():
        breaker, start = Breaker(after=2, pause_s=50, clock=CLOCK), now()
        early = await breaker.enter()
        for _ in range(2):
            breaker.record(await breaker.enter(), ok=False)
        waiters = [asyncio.ensure_future(breaker.enter()) for _ in range(100)]
        await asyncio.sleep(10)
        assert not any(w.done() for w in waiters)
        breaker.record(early, ok=True)
        assert await asyncio.gather(*waiters) == [0] * 100
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1  # no nap is left behind
        return now() - start

    assert run_virtual(main()) == 10


def test_a_late_failure_is_not_taken_for_the_probes():
    async def main():
        breaker = Breaker(after=1, clock=CLOCK)
        late = await breaker.enter()
        breaker.record(await breaker.enter(), ok=False)
        probe = await breaker.enter()
        second = asyncio.ensure_future(breaker.enter())
        await asyncio.sleep(0)
        breaker.record(late, ok=False)
        await asyncio.sleep(100)
        assert not second.done()  # one probe is on its way
        breaker.record(probe, ok=True)
        return await second

    assert run_virtual(main()) == 0


def test_a_probe_that_hangs_does_not_keep_the_others_for_ever():
    async def main():
        breaker, start = Breaker(after=1, give_up_s=100, clock=CLOCK), now()
        breaker.record(await breaker.enter(), ok=False)
        await breaker.enter()
        outcomes = await asyncio.gather(*(breaker.enter() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, OutageError) for outcome in outcomes)
        return now() - start

    assert run_virtual(main()) == 100


def test_a_cancelled_probe_makes_room_for_the_next():
    async def main():
        breaker, start = Breaker(after=1, clock=CLOCK), now()
        breaker.record(await breaker.enter(), ok=False)
        probe = await breaker.enter()
        second = asyncio.ensure_future(breaker.enter())
        await asyncio.sleep(0)
        breaker.record(probe, ok=None)
        assert await second == probe + 1
        return now() - start

    assert run_virtual(main()) == 1


@SOME
@given(st.integers(0, 10**6))
def test_the_breaker_survives_cancellation_at_any_time(seed):
    rng = random.Random(seed)

    async def main():
        server, breaker = Patchy(3, rng.uniform(3, 40)), Breaker(after=3, longest_pause_s=4, clock=CLOCK)
        done = 0

        async def work():
            nonlocal done
            ok = False
            while not ok:
                entry, ok = await breaker.enter(), None
                try:
                    ok = await server.ask()
                finally:
                    breaker.record(entry, ok=ok)
            done += 1

        tasks = []
        for _ in range(60):
            tasks.append(asyncio.ensure_future(work()))
            await asyncio.sleep(rng.choice([0, 0.2, 1]))
            if rng.random() < 0.5:
                rng.choice(tasks).cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 100)
        return done, sum(task.cancelled() for task in tasks)

    done, cancelled = run_virtual(main())
    assert done + cancelled == 60


# --- Spending


money = st.one_of(st.integers(0, 30).map(lambda cents: cents / 100), st.floats(0, 2, allow_subnormal=False))


@settings(max_examples=200, deadline=None)
@given(money, money, st.lists(st.tuples(money, st.floats(0, 1), st.booleans())))
def test_spending_is_never_exceeded(most, spent, requests):
    purse, flying = Spending(most, spent), []
    paid, held = Fraction(str(spent)), Fraction(0)
    for price, share, settle in requests:
        fits = paid + held + Fraction(str(price)) <= Fraction(str(most))
        assert purse.reserve(price) == fits
        assert fits or purse.exhausted or flying  # whoever is refused may stop, or wait for another
        if fits:
            held += Fraction(str(price))
            flying.append((price, min(price, price * share)))
        if settle and flying:
            reserved, actual = flying.pop(0)
            purse.settle(reserved, actual)
            held -= Fraction(str(reserved))
            paid += Fraction(str(actual))
        assert (purse.spent, purse.reserved) == (float(paid), float(held))
        assert spent > most or purse.spent <= most


def test_three_times_a_tenth_fit_in_three_tenths():
    purse = Spending(0.3)
    assert [purse.reserve(0.1) for _ in range(4)] == [True, True, True, False]
    assert not purse.exhausted  # the three in flight may cost less
    for _ in range(3):
        purse.settle(0.1, 0.1)
    assert (purse.spent, purse.reserved, purse.exhausted) == (0.3, 0, True)


def test_what_cost_more_than_was_reserved_is_recorded_all_the_same():
    purse = Spending(1.0)
    assert purse.reserve(0.5)
    purse.settle(0.5, 1.5)
    assert (purse.spent, purse.exhausted, purse.reserve(0.0)) == (1.5, True, False)


def test_a_refused_price_exhausts_the_purse_once_nothing_in_flight_could_make_room():
    purse = Spending(1.0)
    assert purse.reserve(0.6)
    assert not purse.reserve(0.5)
    assert not purse.exhausted
    purse.settle(0.6, 0.55)
    assert purse.exhausted


def test_no_limit_is_no_limit():
    purse = Spending(None, spent=5)
    assert purse.reserve(1e9)
    purse.settle(1e9, 1e9)
    assert (purse.spent, purse.exhausted) == (1e9 + 5, False)


@pytest.mark.parametrize("wrong", [-0.01, math.nan, math.inf])
def test_what_is_no_sum_of_money_is_refused(wrong):
    with pytest.raises(ValueError, match="no sum of money"):
        Spending(1.0).reserve(wrong)
    with pytest.raises(ValueError, match="only"):
        Spending(1.0).settle(0.5, 0.5)
