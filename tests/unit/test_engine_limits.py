"""Limits a minute, pauses and durations, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.endpoint import Terms
from pipeline.engine.limits import WINDOW_S, Limiter, duration, retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        # A little late, as sleeping is.
        self.now += seconds + 1e-6


def limiter(clock: Clock, **terms: int) -> Limiter:
    return Limiter(Terms(**terms), clock=clock, sleep=clock.sleep)


@settings(deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(1, 300), st.floats(0, 20)), min_size=1, max_size=60),
    requests=st.none() | st.integers(1, 10),
    tokens=st.none() | st.integers(300, 1000),
)
def test_no_minute_holds_more_than_the_limit(
    calls: list[tuple[int, float]], requests: int | None, tokens: int | None
) -> None:
    clock = Clock()
    sent: list[tuple[float, int]] = []

    async def run() -> None:
        paced = Limiter(
            Terms(requests_per_minute=requests, tokens_per_minute=tokens), clock=clock, sleep=clock.sleep
        )
        for size, gap in calls:
            clock.now += gap
            await paced.acquire(size)
            sent.append((clock.now, size))

    asyncio.run(run())
    for end, _ in sent:
        window = [(at, size) for at, size in sent if end - WINDOW_S < at <= end]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(size for _, size in window) <= tokens


def test_calls_within_the_limit_do_not_wait() -> None:
    clock = Clock()

    async def run() -> None:
        paced = limiter(clock, requests_per_minute=5)
        for _ in range(5):
            await paced.acquire(1)
        assert clock.now == 1000.0
        await paced.acquire(1)
        assert clock.now == pytest.approx(1060.0)

    asyncio.run(run())


def test_tokens_that_were_not_used_are_given_back() -> None:
    clock = Clock()

    async def run() -> None:
        paced = limiter(clock, tokens_per_minute=1000)
        slot = await paced.acquire(900)
        slot.tokens = 100
        await paced.acquire(900)
        assert clock.now == 1000.0

    asyncio.run(run())


def test_a_call_over_the_limit_alone_is_refused_not_awaited() -> None:
    with pytest.raises(ValueError, match="500 tokens, and the limit is 400"):
        asyncio.run(limiter(Clock(), tokens_per_minute=400).acquire(500))


def test_one_429_among_many_answers_stops_nobody_and_many_stop_all() -> None:
    clock = Clock()

    async def run() -> None:
        paced = limiter(clock)
        for number in range(200):
            paced.replied(limited=number % 50 == 0, wait_s=30.0, headers={})
            await paced.acquire(1)
        assert clock.now == 1000.0
        for _ in range(8):
            paced.replied(limited=True, wait_s=30.0, headers={})
        await paced.acquire(1)
        assert clock.now == pytest.approx(1030.0)

    asyncio.run(run())


def test_nothing_remaining_is_waited_out_as_the_headers_say() -> None:
    clock = Clock()

    async def run() -> None:
        paced = limiter(clock)
        some = {"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"}
        paced.replied(limited=False, wait_s=None, headers=some)
        await paced.acquire(1)
        assert clock.now == 1000.0
        none = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5s"}
        paced.replied(limited=False, wait_s=None, headers=none)
        await paced.acquire(1)
        assert clock.now == pytest.approx(1001.5)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("120ms", 0.12), ("1.5s", 1.5), ("1h2m3s", 3723), ("7", 7), ("", None), ("soon", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text())
def test_no_header_breaks_the_reading(text: str) -> None:
    for headers in ({"retry-after": text}, {"retry-after-ms": text}):
        wait = retry_after(headers)
        assert wait is None or wait >= 0
    seconds = duration(text)
    assert seconds is None or seconds >= 0
