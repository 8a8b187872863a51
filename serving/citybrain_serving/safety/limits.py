"""How fast one caller may ask, a token bucket each; and how much is worked on at once, for all of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from cachetools import LRUCache

MOST_CALLERS = 50_000

BURST_S = 0.1
"""How long a request may wait for a slot while there were free ones as lately as that: a room of screens that ask at
once is answered."""

CALM_S = 1.0
"""How long nobody must have been refused until that holds again."""

OVERLOAD_S = 0.01
"""How long where there were none: more comes than can be done, and waiting would only make every answer late."""

PROMPT_S = 0.002
"""A round of the event loop that has lasted longer keeps others waiting whom nobody has counted yet."""


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

    A queue that is never empty is no buffer but a delay, so once it has stood for :data:`BURST_S`, and until nobody was
    refused for :data:`CALM_S`, those who come wait :data:`OVERLOAD_S` at most (as in "Fail at Scale", ACM Queue 13(8),
    2015, after CoDel, RFC 8289), and no more of them than can be worked on at once: who stands behind those would wait
    only to be refused. Much is answered within one round of the event loop, and there the queue is the loop's
    own: in a round that is long already a request lets all others come in before it goes on.
    """

    def __init__(self, at_once: int, now: Callable[[], float] = time.monotonic):
        self.at_once = at_once
        self.free = at_once
        self.waiting = 0
        self.now = now
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_free = now()
        self._last_refused = -math.inf
        self._round: float | None = None

    async def enter(self) -> bool:
        """Takes a slot, now or within the time that there is to wait; whether there was one."""
        now, loop = self.now(), asyncio.get_running_loop()
        if self._round is None:
            self._round = now
            loop.call_soon(self._end_round)
        if self.free > 0:
            self.free -= 1
            self._last_free = now
            if now - self._round > PROMPT_S:
                await self._let_others_in()
            return True
        if self.overrun():
            return False
        patience = BURST_S if self._calm(now) else OVERLOAD_S
        turn = loop.create_future()
        self._waiting.append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():
                return True  # it came in the moment in which the time was up
            self._last_refused = self.now()
            return False
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the slot came in the moment in which its caller went
            raise
        finally:
            self.waiting -= 1
        return True

    def overrun(self) -> bool:
        """Whether there is no slot and no use in waiting for one. Who asks and hears so is to be refused."""
        if self.free > 0 or self.waiting < self.at_once:
            return False
        now = self.now()
        if self._calm(now):
            return False
        self._last_refused = now
        return True

    def _calm(self, now: float) -> bool:
        return now - self._last_free < BURST_S and now - self._last_refused >= CALM_S

    def leave(self) -> None:
        """Gives a slot back, to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
        self._last_free = self.now()

    def _end_round(self) -> None:
        self._round = None

    async def _let_others_in(self) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.leave()
            raise
