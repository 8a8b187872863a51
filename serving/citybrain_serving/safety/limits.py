"""How fast one caller may ask, a token bucket each; and how much is worked on at once, for all of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from cachetools import LRUCache

MOST_CALLERS = 50_000

BURST_S = 1.0
"""How long a request may wait for a slot while there were free ones as lately as that: a whole control room that asks
at once is answered."""

OVERLOAD_S = 0.01
"""How long where there were none: more comes than can be done, and waiting would only make every answer late."""


class Buckets:
    """``rate`` requests a second for each caller, ``burst`` at once. Used from the event loop alone."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float] = time.monotonic):
        self.rate = rate
        self.burst = burst
        self.now = now
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(MOST_CALLERS)

    def take(self, caller: str) -> float:
        """Takes one token; 0 where there was one, else the seconds until there is."""
        now = self.now()
        left, then = self._left.get(caller, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        if left >= 1:
            self._left[caller] = (left - 1, now)
            return 0.0
        self._left[caller] = (left, now)
        return (1 - left) / self.rate if self.rate else math.inf


class Slots:
    """At most ``at_once`` requests are worked on; others wait, briefly. Used from the event loop alone.

    A queue that is never empty is no buffer but a delay, so once it has stood for :data:`BURST_S` those who come
    wait :data:`OVERLOAD_S` at most (as in "Fail at Scale", ACM Queue 13(8), 2015, after CoDel, RFC 8289).
    """

    def __init__(self, at_once: int, now: Callable[[], float] = time.monotonic):
        self.free = at_once
        self.now = now
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_free = now()

    async def enter(self) -> bool:
        """Takes a slot, now or within the time that there is to wait; whether there was one."""
        now = self.now()
        if self.free > 0:
            self.free -= 1
            self._last_free = now
            return True
        patience = BURST_S if now - self._last_free < BURST_S else OVERLOAD_S
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the slot came in the moment in which its caller went
            raise
        return True

    def leave(self) -> None:
        """Gives a slot back, to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
        self._last_free = self.now()
