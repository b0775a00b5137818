"""How fast an endpoint is asked: requests and tokens a minute, and the pauses that it asks for.

Limits are sliding windows: in any 60 seconds never more than the limit. Concurrency is not here: a place is
held from sending until the answer is committed (see `sending`).
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pipeline.engine.endpoint import Terms

__all__ = ["Limiter", "Slot", "duration", "retry_after"]

WINDOW_S = 60.0
PAUSE_S = 5.0
"""How long a full endpoint is left alone that does not say how long."""
RECENT = 16
"""Of so many replies, half must be 429 before the whole endpoint pauses."""


@dataclass(slots=True)
class Slot:
    """One call's part of the window: when it was sent, and how many tokens it stands for."""

    at: float
    tokens: int


class Limiter:
    """Lets calls go to one endpoint when its limits and its pauses allow, first come, first served."""

    def __init__(
        self,
        terms: Terms,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take note of the limits; nothing was sent yet."""
        self._requests = terms.requests_per_minute
        self._tokens = terms.tokens_per_minute
        self._clock, self._sleep = clock, sleep
        self.new_loop()
        self._slots: deque[Slot] = deque()
        self._free_at = 0.0
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def new_loop(self) -> None:
        """Serve another event loop from now on; what was sent before still counts."""
        self._turn = asyncio.Lock()

    async def acquire(self, tokens: int) -> Slot:
        """Wait until a call of about so many tokens may be sent.

        Raises:
            ValueError: when it alone is over the limit, so that it could never be sent.
        """
        if self._tokens is not None and tokens > self._tokens:
            raise ValueError(f"about {tokens} tokens, and the limit is {self._tokens} a minute")
        if self._requests is None and self._tokens is None and self._clock() >= self._free_at:
            return Slot(0.0, tokens)
        async with self._turn:
            while (delay := self._delay(tokens)) > 0:
                await self._sleep(delay)
            slot = Slot(self._clock(), tokens)
            if self._requests is not None or self._tokens is not None:
                self._slots.append(slot)
            return slot

    def replied(self, *, limited: bool, wait_s: float | None, headers: Mapping[str, str]) -> None:
        """Learn from a reply.

        One 429 among many answers is that call's matter alone. Where most replies are 429 the endpoint is
        full, and nobody asks until its Retry-After is over; so too where it says that nothing remains.

        Args:
            limited: it was a 429.
            wait_s: its Retry-After, in seconds.
            headers: of the reply.
        """
        self._recent.append(limited)
        if limited and sum(self._recent) * 2 >= RECENT:
            self._pause(wait_s or PAUSE_S)
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}") == "0":
                reset = duration(headers.get(f"x-ratelimit-reset-{what}", ""))
                if reset is not None:
                    self._pause(reset)

    def _pause(self, seconds: float) -> None:
        self._free_at = max(self._free_at, self._clock() + min(seconds, WINDOW_S))

    def _delay(self, tokens: int) -> float:
        """Seconds until a call of so many tokens fits, as far as is known now."""
        now = self._clock()
        while self._slots and self._slots[0].at <= now - WINDOW_S:
            self._slots.popleft()
        free_at = self._free_at
        if self._requests is not None and len(self._slots) >= self._requests:
            free_at = max(free_at, self._slots[-self._requests].at + WINDOW_S)
        if self._tokens is not None:
            over = sum(slot.tokens for slot in self._slots) + tokens - self._tokens
            for slot in self._slots:
                if over <= 0:
                    break
                over -= slot.tokens
                free_at = max(free_at, slot.at + WINDOW_S)
        return free_at - now


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply's headers ask to wait: `retry-after-ms`, or `retry-after` in seconds or a date."""
    value = headers.get("retry-after-ms")
    if value is not None:
        try:
            return max(0.0, float(value) / 1000)
        except ValueError:
            pass  # the other header may be right
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float | None:
    """Seconds of a duration as rate-limit headers spell it: `6m0s`, `120ms`, `1.5s`, or bare seconds."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
